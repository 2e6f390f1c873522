/* EGRU between events, forwards: what the core asks for.  The equations, the layout of items and the steps are in
 * egru_series.h; include that first.  Template, see kernel_table.c. */

TARGET void FN(egru_advance)(const double *K, int64_t m, int64_t stride, const double *h, const double *par,
                             double *x, double *sums)
{
    FN(EgruSteps) steps;
    for (int64_t first = 0; first < m; first += BLOCK) {
        const int64_t n = m - first < BLOCK ? m - first : BLOCK;
        const double *hb = h + first, *pb = par + first;
        double *xb = x + first, *sb = sums ? sums + first : NULL;
        FN(egru_sort)(K, n, stride, hb, pb, xb, 0, &steps);
        FN(egru_steps)(3, 0, &steps, K, stride, hb, pb, xb, sb);
        FN(egru_steps)(4, 1, &steps, K, stride, hb, pb, xb, sb);
        FN(egru_steps)(5, 2, &steps, K, stride, hb, pb, xb, sb);
        FN(egru_steps)(6, 3, &steps, K, stride, hb, pb, xb, sb);
        FN(egru_steps)(7, 4, &steps, K, stride, hb, pb, xb, sb);
        FN(egru_steps)(9, 5, &steps, K, stride, hb, pb, xb, sb);
        FN(egru_steps)(LAST, 6, &steps, K, stride, hb, pb, xb, sb);
        FN(egru_steps)(0, 7, &steps, K, stride, hb, pb, xb, sb);
    }
}

/* Also sets u and z of the present a. */
TARGET void FN(egru_bound)(const double *K, int64_t m, int64_t stride, const double *par, double *x,
                           double *wait)
{
    const double tau_m = K[0] * (1 - 1e-12);
    for (int64_t i = 0; i < m; i += WIDTH) {
        VEC u, z;
        FN(vec_gates)(FN(load)(x + stride, i), FN(load)(x + 3 * stride, i), &u, &z);
        const VEC c = FN(load)(x, i), threshold = FN(load)(par + 3 * stride, i);
        /* a_X moves from here to b_X: u and z are never larger than at one of the two ends. */
        const VEC u_most = FN(larger)(u, FN(load)(par + 4 * stride, i)) * (1 + 1e-12);
        const VEC z_most = FN(larger)(z, FN(load)(par + 5 * stride, i)) + 1e-15;
        const VEC gap = threshold - c, rise = z_most - c;
        VEC time = gap * tau_m / (u_most * rise);
        time = FN(choose)((BITS)(z_most > threshold), time, FN(splat)(INFINITY));
        time = FN(choose)((BITS)(gap > 0), time, FN(splat)(0.0));
        FN(store)(x + 4 * stride, i, u);
        FN(store)(x + 5 * stride, i, z);
        FN(store)(wait, i, time);
    }
}

/* At most a few steps ahead; what arrives meanwhile would make more of them useless. */
TARGET int32_t FN(egru_locate)(const double *K, const double *par, const double *x, double *when)
{
    const double tau_s = K[1], kappa = tau_s / K[0], most = K[MOST];
    double coefficient[LAST + 1], wait[GROUP], h[GROUP], now[6 * GROUP], own[6 * GROUP];
    for (int k = 0; k < 6; k++) {
        FN(fill)(now + k * GROUP, x[k]);
        FN(fill)(own + k * GROUP, par[k]);
    }
    *when = 0;
    for (int steps = 0; steps < 4; steps++) {
        FN(egru_bound)(K, 1, GROUP, own, now, wait);
        if (wait[0] == 0)
            return 1;
        if (wait[0] == INFINITY) {
            *when = INFINITY;
            return 0;
        }
        const VEC du = FN(load)(now, GROUP) - par[0], dz = FN(load)(now, 3 * GROUP) - par[2];
        /* The longest step that one series takes: however near the threshold, it goes on by that much. */
        const double S = most / FN(egru_bend)(kappa, du, dz)[0];
        double length = -log1p(-S) * tau_s;
        if (length > wait[0]) {
            FN(EgruScale) scale;
            FN(EgruSeries) s;
            FN(egru_scale)(LAST, FN(splat)(S), kappa, &scale);
            FN(egru_series)(LAST, &scale, kappa, du, dz, FN(load)(now, 4 * GROUP),
                            FN(load)(now, 5 * GROUP), FN(load)(now, 0), &s);
            for (int k = 0; k <= LAST; k++)
                coefficient[k] = s.C[k][0];
            coefficient[0] -= par[3];
            double where;
            if (FN(first_crossing)(LAST, coefficient, 1.0, &where)) {
                *when -= log1p(-S * where) * tau_s;
                return 1;
            }
        } else
            length = wait[0];
        FN(fill)(h, length);
        FN(egru_advance)(K, 1, GROUP, h, own, now, NULL);
        *when += length;
    }
    return 0;
}

TARGET double FN(egru_fire)(const double *K, const double *par, double *x)
{
    x[0] = 0;
    return K[3] != 0 ? 1.0 : par[3];
}

TARGET void FN(egru_rate)(const double *K, int64_t m, int64_t stride, const double *par, const double *x,
                          double *f)
{
    for (int64_t i = 0; i < m; i += WIDTH) {
        VEC u, z;
        FN(vec_gates)(FN(load)(x + stride, i), FN(load)(x + 3 * stride, i), &u, &z);
        FN(store)(f, i, u * (z - FN(load)(x, i)) * (1 / K[0]));
        for (int k = 0; k < 3; k++)
            FN(store)(f + (k + 1) * stride, i,
                      (FN(load)(par + k * stride, i) - FN(load)(x + (k + 1) * stride, i)) * (1 / K[1]));
    }
}

/* An event of value s arrives: a_u, a_r += w s and a_z += w gated, times the target's own r with `post`. */
TARGET void FN(egru_receive)(int64_t m, int64_t stride, double *x, const double *w, double s, double gated,
                             int32_t post)
{
    double *au = x + stride, *ar = x + 2 * stride, *az = x + 3 * stride;
    if (post)
        for (int64_t i = 0; i < m; i += WIDTH) {
            const VEC r = FN(vec_logistic)(FN(load)(ar, i));
            FN(store)(az, i, FN(load)(az, i) + FN(load)(w + 2 * stride, i) * gated * r);
        }
    else
        for (int64_t i = 0; i < m; i++)
            az[i] += w[2 * stride + i] * gated;
    for (int64_t i = 0; i < m; i++) {
        au[i] += w[i] * s;
        ar[i] += w[stride + i] * s;
    }
}
