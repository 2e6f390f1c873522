/* Readouts between events, in closed form; they never cross anything.
 *
 * Template, see kernel_table.c; REAL is double.  Needs gates.h and lif_flow.h (decay_loss).  State k of item i is
 * x[k * stride + i], parameter k par[k * stride + i].
 */

/* tau v' = bias - v.  State: v.  Parameter: bias.  Constant: tau. */
TARGET void FN(leaky_readout_advance)(const double *K, int64_t m, int64_t stride, const double *restrict h,
                                      const double *restrict par, double *restrict x, double *restrict sums)
{
    const double tau = K[0], rate = 1.0 / K[0];
    if (sums)
        for (int64_t j = 0; j < m; j++) {
            const double b = par[j], u = x[j] - b, g = FN(exponential)(-h[j] * rate);
            const double G = FN(decay_loss)(h[j] * rate, g) * tau, GG = 0.5 * G * (1.0 + g);
            sums[j] += b * h[j] + u * G;
            sums[stride + j] += b * (b * h[j] + 2.0 * (u * G)) + u * (u * GG);
        }
    for (int64_t j = 0; j < m; j++) {
        const double lost = 1.0 - FN(exponential)(-h[j] * rate);
        x[j] = FN(without_traces)(x[j] + (par[j] - x[j]) * lost);
    }
}

TARGET void FN(leaky_readout_bound)(const double *K, int64_t m, int64_t stride, const double *restrict par,
                                    const double *restrict x, double *restrict wait)
{
    (void)K, (void)stride, (void)par, (void)x;
    for (int64_t j = 0; j < m; j++)
        wait[j] = INFINITY;
}

TARGET void FN(leaky_readout_rate)(const double *K, int64_t m, int64_t stride, const double *restrict par,
                                   const double *restrict x, double *restrict f)
{
    const double rate = 1.0 / K[0];
    (void)stride;
    for (int64_t j = 0; j < m; j++)
        f[j] = rate * (par[j] - x[j]);
}

TARGET void FN(leaky_readout_retreat)(const double *K, int64_t m, int64_t stride, const double *restrict h,
                                      const double *restrict par, double *restrict x, double *restrict lam,
                                      const double *restrict dsums, double *restrict dpar, double *restrict dK)
{
    const double tau = K[0], rate = 1.0 / K[0];
    double d_tau = 0.0;
    for (int64_t j = 0; j < m; j++) {
        const double y = h[j] * rate, g = FN(exponential)(-y), u = (x[j] - par[j]) / g, moved = par[j] + u;
        x[j] = h[j] > 0 ? moved : x[j];
        dpar[j] += lam[j] * FN(decay_loss)(y, g);
        d_tau += lam[j] * (u * (g * y)) * rate;
        lam[j] *= g;
    }
    if (dsums)
        for (int64_t j = 0; j < m; j++) {
            const double y = h[j] * rate, g = FN(exponential)(-y), X = FN(decay_loss)(y, g);
            const double b = par[j], u = x[j] - b, first = dsums[j], second = 2.0 * dsums[stride + j];
            const double G = X * tau, GG = 0.5 * G * (1.0 + g);
            const double dG = X - y * g, dGG = 0.5 * (X * (1.0 + g)) - y * (g * g); /* by tau */
            const double at_u = first * G + second * (b * G + u * GG);
            lam[j] += at_u;
            dpar[j] += first * h[j] + second * (b * h[j] + u * G) - at_u; /* u = v - bias */
            d_tau += u * ((first + second * b) * dG + 0.5 * second * (u * dGG));
        }
    dK[0] += d_tau;
}

/* v = m + bias, and m stands still.  State: m.  Parameter: bias.  No constants. */
TARGET void FN(delta_readout_flow_advance)(const double *K, int64_t m, int64_t stride, const double *restrict h,
                                           const double *restrict par, double *restrict x, double *restrict sums)
{
    (void)K;
    if (sums)
        for (int64_t j = 0; j < m; j++) {
            const double v = x[j] + par[j];
            sums[j] += v * h[j];
            sums[stride + j] += v * (v * h[j]);
        }
}

TARGET void FN(delta_readout_flow_bound)(const double *K, int64_t m, int64_t stride, const double *restrict par,
                                         const double *restrict x, double *restrict wait)
{
    FN(leaky_readout_bound)(K, m, stride, par, x, wait);
}

TARGET void FN(delta_readout_flow_rate)(const double *K, int64_t m, int64_t stride, const double *restrict par,
                                        const double *restrict x, double *restrict f)
{
    (void)K, (void)stride, (void)par, (void)x;
    for (int64_t j = 0; j < m; j++)
        f[j] = 0.0;
}

TARGET void FN(delta_readout_flow_retreat)(const double *K, int64_t m, int64_t stride, const double *restrict h,
                                           const double *restrict par, double *restrict x, double *restrict lam,
                                           const double *restrict dsums, double *restrict dpar, double *restrict dK)
{
    (void)K, (void)dK;
    if (dsums)
        for (int64_t j = 0; j < m; j++) {
            const double at_v = h[j] * (dsums[j] + 2.0 * dsums[stride + j] * (x[j] + par[j]));
            lam[j] += at_v;
            dpar[j] += at_v;
        }
}
