/* The leaky readout v = k v + (1 - k) in, and below it its vector-Jacobian product.
 *
 * Template, see kernel_table.c. */

TARGET void FN(readout_advance)(int64_t n, double decay, const REAL *restrict in, REAL *restrict v,
                                REAL *restrict tape)
{
    const REAL k = (REAL)decay, gain = (REAL)(1 - decay);
    for (int64_t i = 0; i < n; i++)
        tape[i] = v[i] = k * v[i] + gain * in[i];
}

/* dv enters as dL/dv_t without the loss's own term, which is `loss`; it leaves as dL/dv_{t-1}. */
TARGET void FN(readout_vjp)(int64_t n, double decay, const REAL *restrict loss, REAL *restrict dv,
                            REAL *restrict D, REAL *restrict dbias)
{
    const REAL k = (REAL)decay, gain = (REAL)(1 - decay);
    for (int64_t i = 0; i < n; i++) {
        const REAL total = loss[i] + dv[i];
        D[i] = gain * total;
        dbias[i] += D[i];
        dv[i] = k * total;
    }
}
