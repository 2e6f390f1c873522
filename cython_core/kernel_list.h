/* Every kernel, once: KERNEL(name, result, (arguments)).  Included to declare the table and to fill it. */
KERNEL(evaluate_gates, void, (int64_t, const REAL *, REAL *, REAL *))
KERNEL(any_beyond, int32_t, (int64_t, const REAL *, double))
KERNEL(count_nonzero, int64_t, (int64_t, const REAL *))
KERNEL(list_nonzero, int32_t, (int64_t, const REAL *, int32_t *, REAL *))
KERNEL(add_rows, void, (int64_t, const int32_t *, const REAL *, const REAL *, int64_t, int64_t, REAL *))
KERNEL(add_rows_many, void,
       (int64_t, EventList *, const REAL *, int64_t, int64_t, int64_t, int64_t, int32_t))
KERNEL(dot_rows, void, (int64_t, const int32_t *, const REAL *, int64_t, int64_t, const REAL *, REAL *))
KERNEL(dot_lanes, void,
       (int64_t, const Asking *, const REAL *, int64_t, int64_t, const REAL *const *, REAL *const *, REAL *))
KERNEL(add_sparse_rows, int64_t,
       (const SparseRows *, int64_t, const int32_t *, const REAL *, const REAL *, REAL *))
KERNEL(dot_sparse_rows, int64_t,
       (const SparseRows *, int64_t, const int32_t *, const REAL *, const REAL *, REAL *))
KERNEL(add_outer_sparse, int64_t,
       (const SparseRows *, int64_t, int64_t, const int32_t *, const REAL *, const REAL *, int64_t, REAL *))
KERNEL(add_bf16_rows, void,
       (int64_t, const int32_t *, const REAL *, const uint32_t *, int64_t, int64_t, REAL *))
KERNEL(add_int8_rows, void,
       (int64_t, const int32_t *, const REAL *, const REAL *, const uint32_t *, int64_t, int64_t, REAL *))
KERNEL(egru_evnn_advance, int32_t, (int64_t, const REAL *, const REAL *, REAL *, REAL *, int32_t *, REAL *))
KERNEL(egru_evnn_vjp, void,
       (int64_t, const REAL *, const REAL *, int32_t, const REAL *, const REAL *, const REAL *, const REAL *,
        REAL *, REAL *, REAL *, REAL *))
KERNEL(egru_paper_advance, int32_t,
       (int64_t, const REAL *, const REAL *, REAL *, REAL *, REAL *, int32_t *, REAL *))
KERNEL(egru_paper_vjp, void,
       (int64_t, const REAL *, const REAL *, const REAL *, const REAL *, const REAL *, const REAL *,
        REAL *, REAL *, REAL *, REAL *))
KERNEL(lif_advance, int32_t,
       (int64_t, const double *, const REAL *, const REAL *, const REAL *, REAL *, REAL *, int32_t *, REAL *))
KERNEL(lif_active, int32_t, (int64_t, const REAL *, const REAL *, REAL *, int32_t *))
KERNEL(lif_vjp, void,
       (int64_t, const double *, const REAL *, const REAL *, const REAL *, const REAL *, const REAL *,
        const REAL *, const REAL *, REAL *, REAL *, REAL *, REAL *, REAL *))
KERNEL(pseudo_derivative, void, (int32_t, double, double, int64_t, const REAL *, const REAL *, REAL *))
KERNEL(backward_active, int32_t, (int64_t, const REAL *, const REAL *, const REAL *, int32_t *))
KERNEL(send_changes, int32_t, (int64_t, const REAL *, const REAL *, REAL *, int32_t *, REAL *))
KERNEL(send_changes_fixed, int32_t,
       (int64_t, const FixedFormat *, const REAL *, const REAL *, REAL *, int32_t *, REAL *))
KERNEL(delta_gru_advance, void, (int64_t, const REAL *, const REAL *, REAL *, REAL *))
KERNEL(delta_gru_fixed_advance, void,
       (int64_t, const FixedFormat *, const REAL *, const REAL *, REAL *, REAL *))
KERNEL(delta_gru_vjp, void, (int64_t, const REAL *, const REAL *, REAL *, REAL *, REAL *))
KERNEL(delta_lstm_advance, void, (int64_t, const REAL *, const REAL *, REAL *, REAL *, REAL *))
KERNEL(delta_lstm_fixed_advance, void,
       (int64_t, const FixedFormat *, const REAL *, const REAL *, REAL *, REAL *, REAL *))
KERNEL(delta_lstm_vjp, void, (int64_t, const REAL *, const REAL *, REAL *, REAL *, REAL *, REAL *))
KERNEL(delta_readout_advance, void, (int64_t, const REAL *, const REAL *, REAL *))
KERNEL(delta_readout_vjp, void, (int64_t, const REAL *, REAL *, REAL *))
KERNEL(readout_advance, void, (int64_t, double, const REAL *, REAL *, REAL *))
KERNEL(readout_vjp, void, (int64_t, double, const REAL *, REAL *, REAL *, REAL *))
KERNEL(adam_step, void,
       (int64_t, const REAL *, double, double, double, double, double, double, double, REAL *, REAL *, REAL *))
KERNEL(sum_of_squares, double, (int64_t, const REAL *))
