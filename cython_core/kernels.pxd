"""The C kernels by float type: thin inline wrappers over the chosen kernel table.

Those with an argument ``fixed`` run in fixed point where it is not NULL.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from evsim.core.layout cimport FixedFormat, real


cdef extern from "kernel_table.h" nogil:
    enum:
        DOT_LANES       # lanes side by side in one call of `dot_lanes`, at most;
        DOT_ROOM        # pairs of a row and a lane that it wants room for,
        DOT_SUMS        # and sums of each

    ctypedef struct EventList:
        const int32_t *unit
        const void *value
        int64_t n
        void *target
        int64_t *macs
        int64_t next

    ctypedef struct Asking:
        int64_t n_lanes
        uint8_t *count
        uint8_t *lane

    ctypedef struct SparseRows:
        const int64_t *ptr
        const void *column
        int32_t wide
        int32_t stride
        int32_t width

    ctypedef struct KernelsFloat:
        void (*evaluate_gates)(int64_t, const float *, float *, float *) noexcept nogil
        int32_t (*any_beyond)(int64_t, const float *, double) noexcept nogil
        int64_t (*count_nonzero)(int64_t, const float *) noexcept nogil
        int32_t (*list_nonzero)(int64_t, const float *, int32_t *, float *) noexcept nogil
        void (*add_rows)(
            int64_t, const int32_t *, const float *, const float *, int64_t, int64_t, float *) noexcept nogil
        void (*add_rows_many)(
            int64_t, EventList *, const float *, int64_t, int64_t, int64_t, int64_t, int32_t) noexcept nogil
        void (*dot_rows)(
            int64_t, const int32_t *, const float *, int64_t, int64_t, const float *, float *) noexcept nogil
        void (*dot_lanes)(
            int64_t, const Asking *, const float *, int64_t, int64_t, const float *const *,
            float *const *, float *) noexcept nogil
        int64_t (*add_sparse_rows)(
            const SparseRows *, int64_t, const int32_t *, const float *, const float *,
            float *) noexcept nogil
        int64_t (*dot_sparse_rows)(
            const SparseRows *, int64_t, const int32_t *, const float *, const float *,
            float *) noexcept nogil
        int64_t (*add_outer_sparse)(
            const SparseRows *, int64_t, int64_t, const int32_t *, const float *, const float *, int64_t,
            float *) noexcept nogil
        void (*add_bf16_rows)(
            int64_t, const int32_t *, const float *, const uint32_t *, int64_t, int64_t,
            float *) noexcept nogil
        void (*add_int8_rows)(
            int64_t, const int32_t *, const float *, const float *, const uint32_t *, int64_t, int64_t,
            float *) noexcept nogil
        int32_t (*egru_evnn_advance)(
            int64_t, const float *, const float *, float *, float *, int32_t *, float *) noexcept nogil
        void (*egru_evnn_vjp)(
            int64_t, const float *, const float *, int32_t, const float *, const float *,
            const float *, const float *, float *, float *, float *, float *) noexcept nogil
        int32_t (*egru_paper_advance)(
            int64_t, const float *, const float *, float *, float *, float *, int32_t *,
            float *) noexcept nogil
        void (*egru_paper_vjp)(
            int64_t, const float *, const float *, const float *, const float *,
            const float *, const float *, float *, float *, float *, float *) noexcept nogil
        int32_t (*lif_advance)(
            int64_t, const double *, const float *, const float *, const float *, float *, float *,
            int32_t *, float *) noexcept nogil
        int32_t (*lif_active)(
            int64_t, const float *, const float *, float *, int32_t *) noexcept nogil
        void (*lif_vjp)(
            int64_t, const double *, const float *, const float *, const float *, const float *,
            const float *, const float *, const float *, float *, float *, float *, float *,
            float *) noexcept nogil
        void (*pseudo_derivative)(
            int32_t, double, double, int64_t, const float *, const float *, float *) noexcept nogil
        int32_t (*backward_active)(
            int64_t, const float *, const float *, const float *, int32_t *) noexcept nogil
        int32_t (*send_changes)(
            int64_t, const float *, const float *, float *, int32_t *, float *) noexcept nogil
        int32_t (*send_changes_fixed)(
            int64_t, const FixedFormat *, const float *, const float *, float *, int32_t *,
            float *) noexcept nogil
        void (*delta_gru_advance)(int64_t, const float *, const float *, float *, float *) noexcept nogil
        void (*delta_gru_fixed_advance)(
            int64_t, const FixedFormat *, const float *, const float *, float *, float *) noexcept nogil
        void (*delta_gru_vjp)(int64_t, const float *, const float *, float *, float *, float *) noexcept nogil
        void (*delta_lstm_advance)(
            int64_t, const float *, const float *, float *, float *, float *) noexcept nogil
        void (*delta_lstm_fixed_advance)(
            int64_t, const FixedFormat *, const float *, const float *, float *, float *,
            float *) noexcept nogil
        void (*delta_lstm_vjp)(
            int64_t, const float *, const float *, float *, float *, float *, float *) noexcept nogil
        void (*delta_readout_advance)(int64_t, const float *, const float *, float *) noexcept nogil
        void (*delta_readout_vjp)(int64_t, const float *, float *, float *) noexcept nogil
        void (*readout_advance)(int64_t, double, const float *, float *, float *) noexcept nogil
        void (*readout_vjp)(int64_t, double, const float *, float *, float *, float *) noexcept nogil
        void (*adam_step)(
            int64_t, const float *, double, double, double, double, double, double, double, float *, float *,
            float *) noexcept nogil
        double (*sum_of_squares)(int64_t, const float *) noexcept nogil

    ctypedef struct KernelsDouble:
        void (*evaluate_gates)(int64_t, const double *, double *, double *) noexcept nogil
        int32_t (*any_beyond)(int64_t, const double *, double) noexcept nogil
        int64_t (*count_nonzero)(int64_t, const double *) noexcept nogil
        int32_t (*list_nonzero)(int64_t, const double *, int32_t *, double *) noexcept nogil
        void (*add_rows)(
            int64_t, const int32_t *, const double *, const double *, int64_t, int64_t,
            double *) noexcept nogil
        void (*add_rows_many)(
            int64_t, EventList *, const double *, int64_t, int64_t, int64_t, int64_t, int32_t) noexcept nogil
        void (*dot_rows)(
            int64_t, const int32_t *, const double *, int64_t, int64_t, const double *,
            double *) noexcept nogil
        void (*dot_lanes)(
            int64_t, const Asking *, const double *, int64_t, int64_t, const double *const *,
            double *const *, double *) noexcept nogil
        int64_t (*add_sparse_rows)(
            const SparseRows *, int64_t, const int32_t *, const double *, const double *,
            double *) noexcept nogil
        int64_t (*dot_sparse_rows)(
            const SparseRows *, int64_t, const int32_t *, const double *, const double *,
            double *) noexcept nogil
        int64_t (*add_outer_sparse)(
            const SparseRows *, int64_t, int64_t, const int32_t *, const double *, const double *, int64_t,
            double *) noexcept nogil
        void (*add_bf16_rows)(
            int64_t, const int32_t *, const double *, const uint32_t *, int64_t, int64_t,
            double *) noexcept nogil
        void (*add_int8_rows)(
            int64_t, const int32_t *, const double *, const double *, const uint32_t *, int64_t, int64_t,
            double *) noexcept nogil
        int32_t (*egru_evnn_advance)(
            int64_t, const double *, const double *, double *, double *, int32_t *, double *) noexcept nogil
        void (*egru_evnn_vjp)(
            int64_t, const double *, const double *, int32_t, const double *, const double *,
            const double *, const double *, double *, double *, double *, double *) noexcept nogil
        int32_t (*egru_paper_advance)(
            int64_t, const double *, const double *, double *, double *, double *, int32_t *,
            double *) noexcept nogil
        void (*egru_paper_vjp)(
            int64_t, const double *, const double *, const double *, const double *,
            const double *, const double *, double *, double *, double *, double *) noexcept nogil
        int32_t (*lif_advance)(
            int64_t, const double *, const double *, const double *, const double *, double *, double *,
            int32_t *, double *) noexcept nogil
        int32_t (*lif_active)(
            int64_t, const double *, const double *, double *, int32_t *) noexcept nogil
        void (*lif_vjp)(
            int64_t, const double *, const double *, const double *, const double *, const double *,
            const double *, const double *, const double *, double *, double *, double *, double *,
            double *) noexcept nogil
        void (*pseudo_derivative)(
            int32_t, double, double, int64_t, const double *, const double *, double *) noexcept nogil
        int32_t (*backward_active)(
            int64_t, const double *, const double *, const double *, int32_t *) noexcept nogil
        int32_t (*send_changes)(
            int64_t, const double *, const double *, double *, int32_t *, double *) noexcept nogil
        int32_t (*send_changes_fixed)(
            int64_t, const FixedFormat *, const double *, const double *, double *, int32_t *,
            double *) noexcept nogil
        void (*delta_gru_advance)(int64_t, const double *, const double *, double *, double *) noexcept nogil
        void (*delta_gru_fixed_advance)(
            int64_t, const FixedFormat *, const double *, const double *, double *, double *) noexcept nogil
        void (*delta_gru_vjp)(
            int64_t, const double *, const double *, double *, double *, double *) noexcept nogil
        void (*delta_lstm_advance)(
            int64_t, const double *, const double *, double *, double *, double *) noexcept nogil
        void (*delta_lstm_fixed_advance)(
            int64_t, const FixedFormat *, const double *, const double *, double *, double *,
            double *) noexcept nogil
        void (*delta_lstm_vjp)(
            int64_t, const double *, const double *, double *, double *, double *, double *) noexcept nogil
        void (*delta_readout_advance)(int64_t, const double *, const double *, double *) noexcept nogil
        void (*delta_readout_vjp)(int64_t, const double *, double *, double *) noexcept nogil
        void (*readout_advance)(int64_t, double, const double *, double *, double *) noexcept nogil
        void (*readout_vjp)(int64_t, double, const double *, double *, double *, double *) noexcept nogil
        void (*adam_step)(
            int64_t, const double *, double, double, double, double, double, double, double, double *,
            double *, double *) noexcept nogil
        double (*sum_of_squares)(int64_t, const double *) noexcept nogil

    ctypedef struct Flow:
        void (*advance)(
            const double *, int64_t, int64_t, const double *, const double *, double *,
            double *) noexcept nogil
        void (*bound)(
            const double *, int64_t, int64_t, const double *, double *, double *) noexcept nogil
        int32_t (*locate)(const double *, const double *, const double *, double *) noexcept nogil
        double (*fire)(const double *, const double *, double *) noexcept nogil
        void (*rate)(
            const double *, int64_t, int64_t, const double *, const double *, double *) noexcept nogil
        void (*retreat)(
            const double *, int64_t, int64_t, const double *, const double *, double *, double *,
            const double *, double *, double *) noexcept nogil
        void (*unfire)(
            const double *, const double *, double *, double *, double, double, double *) noexcept nogil

    enum:
        EGRU_FLOW
        LIF_FLOW
        GRU_FLOW
        LSTM_FLOW
        LEAKY_FLOW
        SUM_FLOW
        N_FLOWS

    ctypedef struct FlowTable:
        Flow kind[6]
        int64_t (*least)(int64_t, const double *, double *) noexcept nogil
        void (*lower_bounds)(int64_t, int64_t, const double *, double *) noexcept nogil
        int32_t (*elapse)(int64_t, double, int32_t, double *, double *) noexcept nogil
        int32_t (*renew)(int64_t, double, const double *, int64_t *, double *) noexcept nogil
        void (*egru_receive)(
            int64_t, int64_t, double *, const double *, double, double, int32_t) noexcept nogil
        void (*egru_give_back)(
            const double *, int64_t, int64_t, const double *, double *, double *, const double *, double,
            double, int32_t, double *, double *, double *) noexcept nogil
        void (*lift)(int64_t, int64_t, const double *, double *) noexcept nogil
        void (*widen)(int64_t, const float *, double *) noexcept nogil
        void (*add_to_float)(int64_t, const double *, float *) noexcept nogil
        void (*add_to_double)(int64_t, const double *, double *) noexcept nogil

    ctypedef struct KernelTable:
        const char *name
        KernelsFloat f32
        KernelsDouble f64
        const FlowTable *flow

    const KernelTable *evsim_kernel_table(const char *name)

# The path in use, set once at import (kernels.pyx).
cdef const KernelTable *active


cdef inline bint any_beyond(int64_t n, const real *x, double limit) noexcept nogil:
    if real is float:
        return active.f32.any_beyond(n, x, limit)
    return active.f64.any_beyond(n, x, limit)


cdef inline int64_t count_nonzero(int64_t n, const real *x) noexcept nogil:
    if real is float:
        return active.f32.count_nonzero(n, x)
    return active.f64.count_nonzero(n, x)


cdef inline int32_t list_nonzero(int64_t n, const real *x, int32_t *unit, real *value) noexcept nogil:
    if real is float:
        return active.f32.list_nonzero(n, x, unit, value)
    return active.f64.list_nonzero(n, x, unit, value)


cdef inline void add_rows(
    int64_t n, const int32_t *unit, const real *value, const real *rows, int64_t stride, int64_t length,
    real *target
) noexcept nogil:
    if real is float:
        active.f32.add_rows(n, unit, value, rows, stride, length, target)
    else:
        active.f64.add_rows(n, unit, value, rows, stride, length, target)


cdef inline void add_rows_many(
    int64_t n_lists, EventList *lists, const real *rows, int64_t n_rows, int64_t stride, int64_t length,
    int64_t from_place, bint fresh
) noexcept nogil:
    if real is float:
        active.f32.add_rows_many(n_lists, lists, rows, n_rows, stride, length, from_place, fresh)
    else:
        active.f64.add_rows_many(n_lists, lists, rows, n_rows, stride, length, from_place, fresh)


cdef inline void dot_rows(
    int64_t n, const int32_t *unit, const real *rows, int64_t stride, int64_t length, const real *vector,
    real *out
) noexcept nogil:
    if real is float:
        active.f32.dot_rows(n, unit, rows, stride, length, vector, out)
    else:
        active.f64.dot_rows(n, unit, rows, stride, length, vector, out)


cdef inline void dot_lanes(
    int64_t n_rows, const Asking *asking, const real *rows, int64_t stride, int64_t length,
    const real *const *vector, real *const *out, real *room
) noexcept nogil:
    if real is float:
        active.f32.dot_lanes(n_rows, asking, rows, stride, length, vector, out, room)
    else:
        active.f64.dot_lanes(n_rows, asking, rows, stride, length, vector, out, room)


cdef inline int64_t add_sparse_rows(
    const SparseRows *rows, int64_t n, const int32_t *unit, const real *value, const real *weight,
    real *target
) noexcept nogil:
    if real is float:
        return active.f32.add_sparse_rows(rows, n, unit, value, weight, target)
    else:
        return active.f64.add_sparse_rows(rows, n, unit, value, weight, target)


cdef inline int64_t dot_sparse_rows(
    const SparseRows *rows, int64_t n, const int32_t *unit, const real *weight, const real *vector, real *out
) noexcept nogil:
    if real is float:
        return active.f32.dot_sparse_rows(rows, n, unit, weight, vector, out)
    else:
        return active.f64.dot_sparse_rows(rows, n, unit, weight, vector, out)


cdef inline int64_t add_outer_sparse(
    const SparseRows *rows, int64_t unit, int64_t n, const int32_t *arrival, const real *value,
    const real *vectors, int64_t stride, real *gradient
) noexcept nogil:
    if real is float:
        return active.f32.add_outer_sparse(rows, unit, n, arrival, value, vectors, stride, gradient)
    else:
        return active.f64.add_outer_sparse(rows, unit, n, arrival, value, vectors, stride, gradient)


cdef inline void add_bf16_rows(
    int64_t n, const int32_t *unit, const real *value, const uint32_t *rows, int64_t stride, int64_t length,
    real *target
) noexcept nogil:
    if real is float:
        active.f32.add_bf16_rows(n, unit, value, rows, stride, length, target)
    else:
        active.f64.add_bf16_rows(n, unit, value, rows, stride, length, target)


cdef inline void add_int8_rows(
    int64_t n, const int32_t *unit, const real *value, const real *scale, const uint32_t *rows,
    int64_t stride, int64_t length, real *target
) noexcept nogil:
    if real is float:
        active.f32.add_int8_rows(n, unit, value, scale, rows, stride, length, target)
    else:
        active.f64.add_int8_rows(n, unit, value, scale, rows, stride, length, target)


cdef inline int32_t egru_evnn_advance(
    int64_t n, const real *inputs, const real *threshold, real *c, real *tape, int32_t *unit, real *value
) noexcept nogil:
    if real is float:
        return active.f32.egru_evnn_advance(n, inputs, threshold, c, tape, unit, value)
    else:
        return active.f64.egru_evnn_advance(n, inputs, threshold, c, tape, unit, value)


cdef inline void egru_evnn_vjp(
    int64_t n, const real *tape, const real *before, bint resets, const real *threshold, const real *slope,
    const real *dy, const real *d_event, real *dc, real *D, real *dbias, real *dthreshold
) noexcept nogil:
    if real is float:
        active.f32.egru_evnn_vjp(n, tape, before, resets, threshold, slope, dy, d_event, dc, D, dbias,
                                 dthreshold)
    else:
        active.f64.egru_evnn_vjp(n, tape, before, resets, threshold, slope, dy, d_event, dc, D, dbias,
                                 dthreshold)


cdef inline int32_t egru_paper_advance(
    int64_t n, const real *inputs, const real *threshold, real *c, real *y, real *tape, int32_t *unit,
    real *value
) noexcept nogil:
    if real is float:
        return active.f32.egru_paper_advance(n, inputs, threshold, c, y, tape, unit, value)
    else:
        return active.f64.egru_paper_advance(n, inputs, threshold, c, y, tape, unit, value)


cdef inline void egru_paper_vjp(
    int64_t n, const real *tape, const real *c_before, const real *threshold, const real *slope,
    const real *dy, const real *d_event, real *dc, real *D, real *dreset, real *dthreshold
) noexcept nogil:
    if real is float:
        active.f32.egru_paper_vjp(n, tape, c_before, threshold, slope, dy, d_event, dc, D, dreset, dthreshold)
    else:
        active.f64.egru_paper_vjp(n, tape, c_before, threshold, slope, dy, d_event, dc, D, dreset, dthreshold)


cdef inline int32_t lif_advance(
    int64_t n, const double *numbers, const real *inputs, const real *bias, const real *threshold,
    real *state, real *tape, int32_t *unit, real *value
) noexcept nogil:
    if real is float:
        return active.f32.lif_advance(n, numbers, inputs, bias, threshold, state, tape, unit, value)
    else:
        return active.f64.lif_advance(n, numbers, inputs, bias, threshold, state, tape, unit, value)


cdef inline int32_t lif_active(
    int64_t n, const real *tape, const real *threshold, real *slope, int32_t *unit
) noexcept nogil:
    if real is float:
        return active.f32.lif_active(n, tape, threshold, slope, unit)
    else:
        return active.f64.lif_active(n, tape, threshold, slope, unit)


cdef inline void lif_vjp(
    int64_t n, const double *numbers, const real *tape, const real *v_before, const real *bias,
    const real *threshold, const real *slope, const real *dy, const real *d_event, real *dstate, real *D,
    real *dbias, real *dthreshold, real *dnumbers
) noexcept nogil:
    if real is float:
        active.f32.lif_vjp(n, numbers, tape, v_before, bias, threshold, slope, dy, d_event, dstate, D, dbias,
                           dthreshold, dnumbers)
    else:
        active.f64.lif_vjp(n, numbers, tape, v_before, bias, threshold, slope, dy, d_event, dstate, D, dbias,
                           dthreshold, dnumbers)


cdef inline void pseudo_derivative(
    int32_t kind, double gamma, double eps, int64_t n, const real *a, const real *threshold, real *slope
) noexcept nogil:
    if real is float:
        active.f32.pseudo_derivative(kind, gamma, eps, n, a, threshold, slope)
    else:
        active.f64.pseudo_derivative(kind, gamma, eps, n, a, threshold, slope)


cdef inline int32_t backward_active(
    int64_t n, const real *a, const real *threshold, const real *slope, int32_t *unit
) noexcept nogil:
    if real is float:
        return active.f32.backward_active(n, a, threshold, slope, unit)
    else:
        return active.f64.backward_active(n, a, threshold, slope, unit)


cdef inline int32_t send_changes(
    int64_t n, const FixedFormat *fixed, const real *line, const real *threshold, real *sent, int32_t *unit,
    real *value
) noexcept nogil:
    if fixed == NULL:
        if real is float:
            return active.f32.send_changes(n, line, threshold, sent, unit, value)
        else:
            return active.f64.send_changes(n, line, threshold, sent, unit, value)
    else:
        if real is float:
            return active.f32.send_changes_fixed(n, fixed, line, threshold, sent, unit, value)
        else:
            return active.f64.send_changes_fixed(n, fixed, line, threshold, sent, unit, value)


cdef inline void delta_gru_advance(
    int64_t n, const FixedFormat *fixed, const real *bias, const real *m, real *h, real *tape
) noexcept nogil:
    if fixed == NULL:
        if real is float:
            active.f32.delta_gru_advance(n, bias, m, h, tape)
        else:
            active.f64.delta_gru_advance(n, bias, m, h, tape)
    else:
        if real is float:
            active.f32.delta_gru_fixed_advance(n, fixed, bias, m, h, tape)
        else:
            active.f64.delta_gru_fixed_advance(n, fixed, bias, m, h, tape)


cdef inline void delta_gru_vjp(
    int64_t n, const real *tape, const real *h_before, real *dh, real *G, real *D
) noexcept nogil:
    if real is float:
        active.f32.delta_gru_vjp(n, tape, h_before, dh, G, D)
    else:
        active.f64.delta_gru_vjp(n, tape, h_before, dh, G, D)


cdef inline void delta_lstm_advance(
    int64_t n, const FixedFormat *fixed, const real *bias, const real *m, real *c, real *h, real *tape
) noexcept nogil:
    if fixed == NULL:
        if real is float:
            active.f32.delta_lstm_advance(n, bias, m, c, h, tape)
        else:
            active.f64.delta_lstm_advance(n, bias, m, c, h, tape)
    else:
        if real is float:
            active.f32.delta_lstm_fixed_advance(n, fixed, bias, m, c, h, tape)
        else:
            active.f64.delta_lstm_fixed_advance(n, fixed, bias, m, c, h, tape)


cdef inline void delta_lstm_vjp(
    int64_t n, const real *tape, const real *c_before, real *dc, real *dh, real *G, real *D
) noexcept nogil:
    if real is float:
        active.f32.delta_lstm_vjp(n, tape, c_before, dc, dh, G, D)
    else:
        active.f64.delta_lstm_vjp(n, tape, c_before, dc, dh, G, D)


cdef inline void delta_readout_advance(
    int64_t n, const real *bias, const real *m, real *tape
) noexcept nogil:
    if real is float:
        active.f32.delta_readout_advance(n, bias, m, tape)
    else:
        active.f64.delta_readout_advance(n, bias, m, tape)


cdef inline void delta_readout_vjp(
    int64_t n, const real *loss, real *G, real *D
) noexcept nogil:
    if real is float:
        active.f32.delta_readout_vjp(n, loss, G, D)
    else:
        active.f64.delta_readout_vjp(n, loss, G, D)


cdef inline void readout_advance(
    int64_t n, double decay, const real *inputs, real *v, real *tape
) noexcept nogil:
    if real is float:
        active.f32.readout_advance(n, decay, inputs, v, tape)
    else:
        active.f64.readout_advance(n, decay, inputs, v, tape)


cdef inline void readout_vjp(
    int64_t n, double decay, const real *loss, real *dv, real *D, real *dbias
) noexcept nogil:
    if real is float:
        active.f32.readout_vjp(n, decay, loss, dv, D, dbias)
    else:
        active.f64.readout_vjp(n, decay, loss, dv, D, dbias)


cdef inline real logistic(real x) noexcept nogil:
    cdef real s
    cdef real t
    if real is float:
        active.f32.evaluate_gates(1, &x, &s, &t)
    else:
        active.f64.evaluate_gates(1, &x, &s, &t)
    return s


cdef inline void adam_step(
    int64_t n, const real *gradient, double scale, double first, double second, double correct, double rate,
    double eps, double keep, real *mean, real *square, real *values
) noexcept nogil:
    if real is float:
        active.f32.adam_step(n, gradient, scale, first, second, correct, rate, eps, keep, mean, square,
                             values)
    else:
        active.f64.adam_step(n, gradient, scale, first, second, correct, rate, eps, keep, mean, square,
                             values)


cdef inline double sum_of_squares(int64_t n, const real *x) noexcept nogil:
    if real is float:
        return active.f32.sum_of_squares(n, x)
    else:
        return active.f64.sum_of_squares(n, x)
