/* EGRU between events, backwards: the adjoint of egru_flow.h, by the series of egru_series.h; include both first.
 * Template, see kernel_table.c. */

/* One step of the adjoint: c, u, z and lambda at its end become those at its start; du and dz stay. */
typedef struct {
    VEC c, du, dz, u, z, lc, lu, lz;  /* IN and OUT */
    VEC bias_u, bias_z, tau_m, tau_s; /* sums */
} FN(EgruAdjoint);

/* With M = kappa u lambda_c: (1 - s) d lambda_c / ds = M - (loss per x), and (1 - s) d lambda_X / ds =
 * lambda_X - M f_X with f_u = (1 - u) (z - c), f_z = 1 - z^2.  So d ((1 - s) lambda_X) / ds = - M f_X, and the
 * integral of lambda_X over x is what lambda_X gains and that of M f_X.  S < 0; fall is 1 / (1 - S). */
INLINE void FN(egru_step_back)(const int order, const FN(EgruScale) *scale, VEC S, VEC fall, double kappa, double tau_s, int running, VEC m1, VEC m2,
                               int taus, FN(EgruAdjoint) *a)
{
    FN(EgruSeries) s;
    VEC L[LAST + 1], M[LAST + 1], F[LAST + 1], by_u[LAST + 1], by_z[LAST + 1];
    FN(egru_series)(order, scale, kappa, a->du, a->dz, a->u, a->z, a->c, &s);
    const VEC slope = kappa * a->u;
#pragma GCC unroll 16
    for (int k = 0; k < order; k++)
        F[k] = s.V[k] - s.G[k];
    a->c = FN(at_end)(s.C, order);
    a->u = FN(at_end)(s.U, order);
    a->z = FN(at_end)(s.Z, order);
    L[0] = a->lc;
#pragma GCC unroll 16
    for (int k = 0; k < order; k++) {
        const VEC slow = scale->slow[k];
        M[k] = slope * L[k];
        L[k + 1] = (scale->keep[k] + slow * s.U[0]) * L[k];
        if (k) {
            VEC rest = s.U[k] * L[0]; /* of M / kappa */
            if (k > 1)
                rest += FN(inner)(s.U, L, k);
            M[k] += kappa * rest;
            L[k + 1] += slow * rest;
        }
        if (running) {
            L[k + 1] -= scale->part[k] * (tau_s * 2 * m2 * s.C[k]);
            if (k == 0)
                L[1] -= S * tau_s * m1;
        }
    }
    a->lc = FN(at_end)(L, order);
    VEC gain_u, gain_z, gone_u, gone_z; /* of (1 - s) lambda, and the integrals of M f over x */
#pragma GCC unroll 16
    for (int k = 0; k < order; k++) {
        by_u[k] = FN(product)(M, F, k);
        if (k == 0) {
            gain_u = by_u[0] * scale->part[0];
            gone_u = by_u[0] * scale->weight[0];
        } else {
            gain_u += by_u[k] * scale->part[k];
            gone_u += by_u[k] * scale->weight[k];
        }
    }
#pragma GCC unroll 16
    for (int k = 0; k < order; k++) {
        by_z[k] = FN(product)(M, s.Q, k);
        if (k == 0) {
            gain_z = by_z[0] * scale->part[0];
            gone_z = by_z[0] * scale->weight[0];
        } else {
            gain_z += by_z[k] * scale->part[k];
            gone_z += by_z[k] * scale->weight[k];
        }
    }
    if (taus) {
        VEC change[LAST + 1];
#pragma GCC unroll 16
        for (int k = 0; k < order; k++)
            change[k] = FN(product)(L, s.G, k);
        a->tau_m -= FN(integral)(change, order - 1, scale);
        VEC deviation = (a->du * a->lu + a->dz * a->lz) * scale->weight[0];
#pragma GCC unroll 16
        for (int k = 0; k < order; k++) /* of the integral of (1 - s) (d_u lambda_u + d_z lambda_z) over x */
            deviation += (a->dz * by_z[k] - a->du * by_u[k]) * scale->part[k] * scale->weight[k + 1];
        a->tau_s -= deviation;
    }
    const VEC lu = (a->lu - gain_u) * fall, lz = (a->lz + gain_z) * fall;
    a->bias_u -= (lu - a->lu) + gone_u;
    a->bias_z -= (lz - a->lz) - gone_z;
    a->lu = lu;
    a->lz = lz;
}

/* As egru_long. */
static void FN(egru_long_back)(VEC *left, double kappa, double tau_s, double most, int running, const VEC *m1,
                               const VEC *m2, int taus, FN(EgruAdjoint) *a)
{
    while (FN(largest)(left) > 0) {
        VEC du[PARTS], dz[PARTS];
        for (int p = 0; p < PARTS; p++) {
            du[p] = a[p].du;
            dz[p] = a[p].dz;
        }
        double share = FN(egru_share)(left, kappa, most, du, dz, 1);
        if (share == 0) /* nothing bends but c */
            share = fmin(1.0, most / (2 * (kappa > 1 ? kappa : 1) * FN(largest)(left)));
        for (int p = 0; p < PARTS; p++) {
            const VEC step = left[p] * share, grown = FN(vec_exponential)(step);
            FN(EgruScale) scale;
            FN(egru_scale)(LAST, 1.0 - grown, kappa, &scale);
            FN(egru_step_back)(LAST, &scale, 1.0 - grown, 1.0 / grown, kappa, tau_s, running, m1[p], m2[p], taus, a + p);
            a[p].du *= grown;
            a[p].dz *= grown;
            left[p] -= step;
        }
    }
}

/* As egru_steps; tau_m and tau_s sum their gradients.  Without more, neither those nor running losses. */
INLINE void FN(egru_steps_back)(const int order, const int more, int way, const FN(EgruSteps) *steps, const double *K, int64_t m,
                                int64_t stride, const double *h, const double *par, double *x, double *lam,
                                const double *dsums, double *dpar, VEC *tau_m, VEC *tau_s_sum)
{
    const double tau_s = K[1], kappa = tau_s / K[0];
    const int taus = more && K[2] != 0, running = more && dsums != NULL;
    FN(EgruScale) common, own;
    if (order && steps->count[way])
        FN(egru_scale)(order, steps->common, kappa, &common);
    for (int32_t k = 0; k < steps->count[way]; k++) {
        const int64_t i = steps->place[way][k] * GROUP;
        FN(EgruAdjoint) a[PARTS];
        VEC du[PARTS], dz[PARTS], left[PARTS], m1[PARTS], m2[PARTS];
        for (int p = 0; p < PARTS; p++) {
            const int64_t j = i + p * WIDTH;
            const VEC grown = FN(load)(steps->grown, j);
            m1[p] = running ? FN(load)(dsums, j) : FN(splat)(0.0);
            m2[p] = running ? FN(load)(dsums + stride, j) : FN(splat)(0.0);
            a[p] = (FN(EgruAdjoint)){
                .c = FN(load)(x, j), .du = FN(load)(x + stride, j) - FN(load)(par, j),
                .dz = FN(load)(x + 3 * stride, j) - FN(load)(par + 2 * stride, j),
                .u = FN(load)(x + 4 * stride, j), .z = FN(load)(x + 5 * stride, j), .lc = FN(load)(lam, j),
                .lu = FN(load)(lam + stride, j), .lz = FN(load)(lam + 3 * stride, j)};
            du[p] = a[p].du * grown;
            dz[p] = a[p].dz * grown;
            if (order) {
                const VEC step = FN(load)(steps->step, j);
                const FN(EgruScale) *scale = &common;
                if (steps->own[i / GROUP]) {
                    FN(egru_scale)(order, step, kappa, &own);
                    scale = &own;
                }
                FN(egru_step_back)(order, scale, step, FN(load)(steps->fall, j), kappa, tau_s, running, m1[p],
                                   m2[p], taus, a + p);
            } else
                left[p] = FN(load)(h, j) * (1 / tau_s);
        }
        if (!order)
            FN(egru_long_back)(left, kappa, tau_s, K[MOST], running, m1, m2, taus, a);
        for (int p = 0; p < PARTS; p++) {
            const int64_t j = i + p * WIDTH;
            const VEC grown = FN(load)(steps->grown, j), fall = FN(load)(steps->fall, j);
            const VEC br = FN(load)(par + stride, j), lr = FN(load)(lam + 2 * stride, j);
            const VEC dr = FN(load)(x + 2 * stride, j) - br;
            FN(store)(x, j, a[p].c);
            FN(store)(x + stride, j, FN(load)(par, j) + du[p]);
            FN(store)(x + 2 * stride, j, br + dr * grown);
            FN(store)(x + 3 * stride, j, FN(load)(par + 2 * stride, j) + dz[p]);
            FN(store)(x + 4 * stride, j, a[p].u);
            FN(store)(x + 5 * stride, j, a[p].z);
            FN(store)(lam, j, a[p].lc);
            FN(store)(lam + stride, j, a[p].lu);
            FN(store)(lam + 2 * stride, j, lr * fall);
            FN(store)(lam + 3 * stride, j, a[p].lz);
            FN(store)(dpar, j, FN(load)(dpar, j) + a[p].bias_u);
            FN(store)(dpar + stride, j, FN(load)(dpar + stride, j) + lr * (1.0 - fall));
            FN(store)(dpar + 2 * stride, j, FN(load)(dpar + 2 * stride, j) + a[p].bias_z);
            if (taus) {
                a[p].tau_s += FN(load)(h, j) * (1 / tau_s) * lr * dr;
                for (int64_t n = j; n < j + WIDTH && n < m; n++) {
                    tau_m[p][n - j] -= a[p].tau_m[n - j] * (kappa / K[0]);
                    tau_s_sum[p][n - j] += a[p].tau_s[n - j] / tau_s;
                }
            }
        }
    }
}

/* The adjoint of egru_advance; u and z must be those of the end, and are then those of the start. */
TARGET void FN(egru_retreat)(const double *K, int64_t m, int64_t stride, const double *h, const double *par,
                             double *x, double *lam, const double *dsums, double *dpar, double *dK)
{
    FN(EgruSteps) steps;
    VEC tau_m[PARTS], tau_s[PARTS];
    for (int p = 0; p < PARTS; p++)
        tau_m[p] = tau_s[p] = FN(splat)(0.0);
    for (int64_t first = 0; first < m; first += BLOCK) {
        const int64_t n = m - first < BLOCK ? m - first : BLOCK;
        FN(egru_sort)(K, n, stride, h + first, par + first, x + first, 1, &steps);
#define STEPS(more, order, way)                                                                               \
    FN(egru_steps_back)(order, more, way, &steps, K, n, stride, h + first, par + first, x + first,            \
                        lam + first, dsums ? dsums + first : NULL, dpar + first, tau_m, tau_s)
#define ALL_STEPS(more)                                                                                       \
    STEPS(more, 3, 0);                                                                                        \
    STEPS(more, 4, 1);                                                                                        \
    STEPS(more, 5, 2);                                                                                        \
    STEPS(more, 6, 3);                                                                                        \
    STEPS(more, 7, 4);                                                                                        \
    STEPS(more, 9, 5);                                                                                        \
    STEPS(more, LAST, 6);                                                                                     \
    STEPS(more, 0, 7)
        if (K[2] != 0 || dsums) { /* what is seldom wanted stays out of the way */
            ALL_STEPS(1);
        } else {
            ALL_STEPS(0);
        }
#undef ALL_STEPS
#undef STEPS
    }
    dK[0] += FN(total)(tau_m);
    dK[1] += FN(total)(tau_s);
}

/* Takes the event of egru_receive back: x and lambda after the arrival become those before it.
 *
 *     gradient   dL/dw, laid out like w
 *     timing     dL/d(time of the arrival) of each item
 *     payload    sums over items: dL/ds of what is not gated, dL/d gated, and of timing
 *
 * u and z must be those after the arrival, and are then those before it. */
TARGET void FN(egru_give_back)(const double *K, int64_t m, int64_t stride, const double *par, double *x,
                               double *lam, const double *w, double s, double gated, int32_t post,
                               double *gradient, double *timing, double *payload)
{
    const double per_m = 1 / K[0], per_s = 1 / K[1];
    VEC plain[PARTS], through_gate[PARTS], moved[PARTS];
    for (int p = 0; p < PARTS; p++)
        plain[p] = through_gate[p] = moved[p] = FN(splat)(0.0);
    /* The gates of a_u and a_z wait for that of a_r: in a loop of their own they wait for nothing. */
    for (int64_t i = 0; i < m; i += WIDTH) {
        const int p = (int)(i / WIDTH % PARTS);
        const VEC wu = FN(load)(w, i), wr = FN(load)(w + stride, i), wz = FN(load)(w + 2 * stride, i);
        const VEC lu = FN(load)(lam + stride, i), lr = FN(load)(lam + 2 * stride, i);
        const VEC lz = FN(load)(lam + 3 * stride, i);
        const VEC after = FN(load)(x + 4 * stride, i) * (FN(load)(x + 5 * stride, i) - FN(load)(x, i));
        const VEC ar = FN(load)(x + 2 * stride, i) - wr * s;
        VEC r = FN(splat)(1.0), slope = FN(splat)(0.0), in_time = FN(splat)(0.0);
        if (post) {
            r = FN(vec_logistic)(ar);
            slope = gated * wz * lz * r * (1.0 - r);
            in_time = slope * (FN(load)(par + stride, i) - ar) * per_s;
        }
        const VEC u_and_r = lu * wu + lr * wr, by_z = lz * wz * r;
        FN(store)(timing, i,
                  (u_and_r * s + by_z * gated) * per_s + in_time - FN(load)(lam, i) * after * per_m);
        FN(store)(gradient, i, lu * s);
        FN(store)(gradient + stride, i, lr * s);
        FN(store)(gradient + 2 * stride, i, lz * gated * r);
        FN(store)(x + stride, i, FN(load)(x + stride, i) - wu * s);
        FN(store)(x + 2 * stride, i, ar);
        FN(store)(x + 3 * stride, i, FN(load)(x + 3 * stride, i) - wz * gated * r);
        FN(store)(lam + 2 * stride, i, lr + slope);
        if (i + WIDTH <= m) {
            plain[p] += u_and_r;
            through_gate[p] += by_z;
        } else
            for (int64_t j = i; j < m; j++) {
                plain[p][j - i] += u_and_r[j - i];
                through_gate[p][j - i] += by_z[j - i];
            }
    }
    for (int64_t i = 0; i < m; i += WIDTH) {
        const int p = (int)(i / WIDTH % PARTS);
        VEC u, z;
        FN(vec_gates)(FN(load)(x + stride, i), FN(load)(x + 3 * stride, i), &u, &z);
        const VEC later = FN(load)(timing, i) + FN(load)(lam, i) * u * (z - FN(load)(x, i)) * per_m;
        FN(store)(timing, i, later);
        FN(store)(x + 4 * stride, i, u);
        FN(store)(x + 5 * stride, i, z);
        if (i + WIDTH <= m)
            moved[p] += later;
        else
            for (int64_t j = i; j < m; j++)
                moved[p][j - i] += later[j - i];
    }
    payload[0] += FN(total)(plain);
    payload[1] += FN(total)(through_gate);
    payload[2] += FN(total)(moved);
}

#undef MOST
#undef WAYS
#undef BLOCK
#undef LAST
#undef PI
