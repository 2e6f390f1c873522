/* EGRU between events, in continuous time (EGRU, ICLR 2023, appendix; evsim/models/egru.py):
 *
 *     tau_s da_X/dt = b_X - a_X  (X = u, r, z),    tau_m dc/dt = u (z - c),  u = s(a_u), z = tanh(a_z)
 *
 * Template, see kernel_table.c; REAL is double.  Items side by side: x[k * stride + i] is state k of item i.
 *
 *     states      c a_u a_r a_z, and behind them u z, which belong to a_u a_z where egru_bound set them last
 *     parameters  b_u b_r b_z threshold, and behind them s(b_u) tanh(b_z)
 *     constants   tau_m tau_s near middle far taus unit
 *
 * The a are exponentials.  c has no closed form but is analytic: with x = t / tau_s the series of u and z
 * about a point where a_u - b_u = d converges for |d| (e^x - 1) < pi (half of that for z), the distance to the
 * poles of the logistic function.  A step of a fraction q of that radius with a series of order p has an error
 * that goes with q^(p + 1) (evsim/continuous_plan.py has the factors): order NEAR for q < near, MIDDLE for
 * q < middle, else order FAR in steps of q = far.  The step's polynomial in s = 0..1 also finds crossings
 * (crossing.h).
 *
 * taus: whether gradients at the time constants are wanted; unit: whether events have the value 1, not the
 * threshold.
 */
#define NEAR 4
#define MIDDLE 6
#define FAR 12
#define PI 3.14159265358979323846

/* Coefficients in s of u, z, c, P = u (1 - u), Q = 1 - z^2, V = z - c and G = u V, up to s^order, over a
 * step of H tau_s (which may be negative), c' = kappa H G. */
typedef struct {
    VEC U[FAR + 1], Z[FAR + 1], C[FAR + 1], P[FAR + 1], Q[FAR + 1], V[FAR + 1], G[FAR + 1], E[FAR + 1];
} FN(EgruSeries);

/* sum_{i <= k} a_i b_{k - i} */
INLINE VEC FN(product)(const VEC *a, const VEC *b, int k)
{
    VEC sum = a[0] * b[k];
#pragma GCC unroll 16
    for (int i = 1; i <= k; i++)
        sum += a[i] * b[k - i];
    return sum;
}

INLINE VEC FN(square)(const VEC *a, int k)
{
    if (k == 0)
        return a[0] * a[0];
    VEC sum = a[0] * a[k];
#pragma GCC unroll 16
    for (int i = 1; 2 * i < k; i++)
        sum += a[i] * a[k - i];
    sum += sum;
    if (k % 2 == 0)
        sum += a[k / 2] * a[k / 2];
    return sum;
}

/* sum_k a_k */
INLINE VEC FN(at_end)(const VEC *a, int order)
{
    VEC sum = a[order];
#pragma GCC unroll 16
    for (int k = order - 1; k >= 0; k--)
        sum += a[k];
    return sum;
}

/* integral over s = 0..1 */
INLINE VEC FN(integral)(const VEC *a, int order)
{
    VEC sum = a[order] * (1.0 / (order + 1));
#pragma GCC unroll 16
    for (int k = order - 1; k >= 0; k--)
        sum += a[k] * (1.0 / (k + 1));
    return sum;
}

INLINE void FN(egru_series)(const int order, VEC H, double kappa, VEC du, VEC dz, VEC u, VEC z, VEC c,
                            FN(EgruSeries) *s)
{
    const VEC Hu = -H * du, Hz = -H * dz, Hc = H * kappa;
    s->E[0] = FN(splat)(1.0);
    s->U[0] = u;
    s->Z[0] = z;
    s->C[0] = c;
#pragma GCC unroll 16
    for (int k = 0; k < order; k++) {
        const double share = 1.0 / (k + 1);
        s->P[k] = s->U[k] - FN(square)(s->U, k);
        s->Q[k] = (k ? 0.0 : 1.0) - FN(square)(s->Z, k);
        s->V[k] = s->Z[k] - s->C[k];
        s->G[k] = FN(product)(s->U, s->V, k);
        s->U[k + 1] = Hu * share * FN(product)(s->P, s->E, k);
        s->Z[k + 1] = Hz * share * FN(product)(s->Q, s->E, k);
        s->C[k + 1] = Hc * share * s->G[k];
        s->E[k + 1] = s->E[k] * (-H * share);
    }
}

/* The fraction of the radius of convergence that a step of x tau_s is, from above: 1 / ln(1 + y) < 1 + 1 / y. */
INLINE VEC FN(egru_reach)(VEC x, double kappa, VEC du, VEC dz)
{
    const VEC relative = 1.0 + FN(larger)(FN(absolute)(du) * (1.0 / PI), FN(absolute)(dz) * (2.0 / PI));
    return x * FN(larger)(relative, FN(splat)(kappa));
}

/* Which part of `left` one step of order FAR covers in all items; 0 if u and z do not change any more. */
static double FN(egru_share)(VEC left, double kappa, double far, VEC du, VEC dz)
{
    double share = 1.0;
    int still = 1;
    for (int j = 0; j < WIDTH; j++) {
        const double a = fabs(du[j]), b = fabs(dz[j]);
        still &= a < 1e-17 && b < 1e-17;
        const double radius = log1p(PI / fmax(2 * b, fmax(a, 1e-300)));
        const double most = far * fmin(radius, 1 / kappa);
        if (left[j] * share > most)
            share = most / left[j];
    }
    return still ? 0.0 : share;
}

INLINE void FN(add_sums)(const int order, const FN(EgruSeries) *s, VEC h, VEC *integral, VEC *square)
{
    VEC power[FAR + 1];
    *integral += h * FN(integral)(s->C, order);
    for (int k = 0; k <= order; k++)
        power[k] = FN(square)(s->C, k);
    *square += h * FN(integral)(power, order);
}

TARGET void FN(egru_advance)(const double *K, int64_t m, int64_t stride, const double *h, const double *par,
                             double *x, double *sums)
{
    const double tau_s = K[1], kappa = tau_s / K[0], near = K[2], middle = K[3], far = K[4];
    FN(EgruSeries) s;
    for (int64_t i = 0; i < m; i += WIDTH) {
        const VEC length = FN(load)(h, i, m), bu = FN(load)(par, i, m), bz = FN(load)(par + 2 * stride, i, m);
        const VEC br = FN(load)(par + stride, i, m);
        VEC left = length * (1 / tau_s), c = FN(load)(x, i, m);
        VEC u = FN(load)(x + 4 * stride, i, m), z = FN(load)(x + 5 * stride, i, m);
        VEC du = FN(load)(x + stride, i, m) - bu, dz = FN(load)(x + 3 * stride, i, m) - bz;
        const VEC dr = FN(load)(x + 2 * stride, i, m) - br, decay = FN(vec_exponential)(-left);
        VEC integral = FN(splat)(0.0), square = FN(splat)(0.0);
        const VEC au = bu + du * decay, az = bz + dz * decay;
        const double reach = FN(largest)(FN(egru_reach)(left, kappa, du, dz));
        if (reach <= near) {
            FN(egru_series)(NEAR, left, kappa, du, dz, u, z, c, &s);
            c = FN(at_end)(s.C, NEAR);
            if (sums)
                FN(add_sums)(NEAR, &s, length, &integral, &square);
        } else if (reach <= middle) {
            FN(egru_series)(MIDDLE, left, kappa, du, dz, u, z, c, &s);
            c = FN(at_end)(s.C, MIDDLE);
            if (sums)
                FN(add_sums)(MIDDLE, &s, length, &integral, &square);
        } else
            while (FN(largest)(left) > 0) {
                const double share = FN(egru_share)(left, kappa, far, du, dz);
                VEC step = left * share; /* all of it if share is 1 */
                if (share == 0) { /* c relaxes to z at the constant rate u */
                    const VEC fall = FN(vec_exponential)(-kappa * u * left), away = c - z;
                    if (sums) {
                        const VEC rate = kappa / tau_s * u, lost = away * (1.0 - fall) / rate;
                        integral += z * left * tau_s + lost;
                        square += z * (z * left * tau_s + 2 * lost)
                                + away * away * (1.0 - fall * fall) / (2 * rate);
                    }
                    c = z + away * fall;
                    break;
                }
                FN(egru_series)(FAR, step, kappa, du, dz, u, z, c, &s);
                c = FN(at_end)(s.C, FAR);
                if (sums)
                    FN(add_sums)(FAR, &s, step * tau_s, &integral, &square);
                const VEC fall = FN(vec_exponential)(-step);
                du *= fall;
                dz *= fall;
                FN(vec_gates)(bu + du, bz + dz, &u, &z);
                left -= step;
            }
        FN(store)(x, i, m, c);
        FN(store)(x + stride, i, m, au);
        FN(store)(x + 2 * stride, i, m, br + dr * decay);
        FN(store)(x + 3 * stride, i, m, az);
        if (sums) {
            FN(store)(sums, i, m, FN(load)(sums, i, m) + integral);
            FN(store)(sums + stride, i, m, FN(load)(sums + stride, i, m) + square);
        }
    }
}

/* Also sets u and z of the present a. */
TARGET void FN(egru_bound)(const double *K, int64_t m, int64_t stride, const double *par, double *x,
                           double *wait)
{
    const double tau_m = K[0] * (1 - 1e-12);
    for (int64_t i = 0; i < m; i += WIDTH) {
        VEC u, z;
        FN(vec_gates)(FN(load)(x + stride, i, m), FN(load)(x + 3 * stride, i, m), &u, &z);
        const VEC c = FN(load)(x, i, m), threshold = FN(load)(par + 3 * stride, i, m);
        /* a_X moves from here to b_X: u and z are never larger than at one of the two ends. */
        const VEC u_most = FN(larger)(u, FN(load)(par + 4 * stride, i, m)) * (1 + 1e-12);
        const VEC z_most = FN(larger)(z, FN(load)(par + 5 * stride, i, m)) + 1e-15;
        const VEC gap = threshold - c, rise = z_most - c;
        VEC time = gap * tau_m / (u_most * rise);
        time = FN(choose)((BITS)(z_most > threshold), time, FN(splat)(INFINITY));
        time = FN(choose)((BITS)(gap > 0), time, FN(splat)(0.0));
        FN(store)(x + 4 * stride, i, m, u);
        FN(store)(x + 5 * stride, i, m, z);
        FN(store)(wait, i, m, time);
    }
}

/* At most a few steps ahead; what arrives meanwhile would make more of them useless. */
TARGET int32_t FN(egru_locate)(const double *K, const double *par, const double *x, double *when)
{
    const double tau_s = K[1], kappa = tau_s / K[0], far = K[4], threshold = par[3];
    double coefficient[FAR + 1], wait, now[6];
    FN(EgruSeries) s;
    memcpy(now, x, sizeof now);
    *when = 0;
    for (int steps = 0; steps < 4; steps++) {
        FN(egru_bound)(K, 1, 1, par, now, &wait);
        if (wait == 0)
            return 1;
        if (wait == INFINITY) {
            *when = INFINITY;
            return 0;
        }
        const VEC du = FN(splat)(now[1] - par[0]), dz = FN(splat)(now[3] - par[2]);
        const double longest = 2 * wait / tau_s; /* look twice as far as the bound does, as far as one step can */
        const double share = FN(egru_share)(FN(splat)(longest), kappa, far, du, dz);
        const double step = share == 0 ? fmin(longest, far / kappa) : longest * share;
        if (step * tau_s > wait) {
            FN(egru_series)(FAR, FN(splat)(step), kappa, du, dz, FN(splat)(now[4]), FN(splat)(now[5]),
                            FN(splat)(now[0]), &s);
            for (int k = 0; k <= FAR; k++)
                coefficient[k] = s.C[k][0];
            coefficient[0] -= threshold;
            double where;
            if (FN(first_crossing)(FAR, coefficient, 1.0, &where)) {
                *when += where * step * tau_s;
                return 1;
            }
        }
        const double h = step * tau_s;
        FN(egru_advance)(K, 1, 1, &h, par, now, NULL);
        *when += h;
    }
    return 0;
}

TARGET double FN(egru_fire)(const double *K, const double *par, double *x)
{
    x[0] = 0;
    return K[6] != 0 ? 1.0 : par[3];
}

TARGET void FN(egru_rate)(const double *K, int64_t m, int64_t stride, const double *par, const double *x,
                          double *f)
{
    for (int64_t i = 0; i < m; i += WIDTH) {
        VEC u, z;
        FN(vec_gates)(FN(load)(x + stride, i, m), FN(load)(x + 3 * stride, i, m), &u, &z);
        FN(store)(f, i, m, u * (z - FN(load)(x, i, m)) * (1 / K[0]));
        for (int k = 0; k < 3; k++)
            FN(store)(f + (k + 1) * stride, i, m,
                      (FN(load)(par + k * stride, i, m) - FN(load)(x + (k + 1) * stride, i, m)) * (1 / K[1]));
    }
}

/* An event of value s arrives: a_u, a_r += w s and a_z += w gated, times the target's own r with `post`. */
TARGET void FN(egru_receive)(int64_t m, int64_t stride, double *x, const double *w, double s, double gated,
                             int32_t post)
{
    double *au = x + stride, *ar = x + 2 * stride, *az = x + 3 * stride;
    if (post)
        for (int64_t i = 0; i < m; i += WIDTH) {
            const VEC r = FN(vec_logistic)(FN(load)(ar, i, m));
            FN(store)(az, i, m, FN(load)(az, i, m) + FN(load)(w + 2 * stride, i, m) * gated * r);
        }
    else
        for (int64_t i = 0; i < m; i++)
            az[i] += w[2 * stride + i] * gated;
    for (int64_t i = 0; i < m; i++) {
        au[i] += w[i] * s;
        ar[i] += w[stride + i] * s;
    }
}

/* One step of the adjoint: c, du, dz, u, z and lambda at its end become those at its start. */
typedef struct {
    VEC c, du, dz, u, z, lc, lu, lz;  /* IN and OUT */
    VEC bias_u, bias_z, tau_m, tau_s; /* sums */
} FN(EgruAdjoint);

INLINE void FN(egru_step_back)(const int order, VEC H, double kappa, double tau_s, VEC m1, VEC m2, int taus,
                               FN(EgruSeries) *s, FN(EgruAdjoint) *a)
{
    VEC L[FAR + 1], W[FAR + 1], X[FAR + 1], Su[FAR + 1], Sz[FAR + 1], Lu[FAR + 1], Lz[FAR + 1];
    FN(egru_series)(order, -H, kappa, a->du, a->dz, a->u, a->z, a->c, s);
    L[0] = a->lc;
    Lu[0] = a->lu;
    Lz[0] = a->lz;
#pragma GCC unroll 16
    for (int k = 0; k < order; k++) {
        const VEC share = -H * (1.0 / (k + 1));
        W[k] = FN(product)(s->P, s->V, k);
        X[k] = FN(product)(s->U, s->Q, k);
        Su[k] = kappa * FN(product)(L, W, k);
        Sz[k] = kappa * FN(product)(L, X, k);
        VEC running = 2 * m2 * s->C[k];
        if (k == 0)
            running += m1;
        L[k + 1] = share * (kappa * FN(product)(s->U, L, k) - tau_s * running);
        Lu[k + 1] = share * (Lu[k] - Su[k]);
        Lz[k + 1] = share * (Lz[k] - Sz[k]);
    }
    if (taus) {
        VEC change[FAR + 1], deviation[FAR + 1];
#pragma GCC unroll 16
        for (int k = 0; k < order; k++) {
            change[k] = FN(product)(L, s->G, k);
            deviation[k] = a->du * FN(product)(Lu, s->E, k) + a->dz * FN(product)(Lz, s->E, k);
        }
        a->tau_m += H * FN(integral)(change, order - 1);
        a->tau_s += H * FN(integral)(deviation, order - 1);
    }
    const VEC lu = FN(at_end)(Lu, order), lz = FN(at_end)(Lz, order), grown = FN(vec_exponential)(H);
    /* With x = t / tau_s, d lambda / dx = lambda - S: the integral of lambda is its change and that of S. */
    a->bias_u += a->lu - lu + H * FN(integral)(Su, order - 1);
    a->bias_z += a->lz - lz + H * FN(integral)(Sz, order - 1);
    a->lc = FN(at_end)(L, order);
    a->lu = lu;
    a->lz = lz;
    a->c = FN(at_end)(s->C, order);
    a->u = FN(at_end)(s->U, order);
    a->z = FN(at_end)(s->Z, order);
    a->du *= grown;
    a->dz *= grown;
}

/* The adjoint of egru_advance; u and z must be those of the end, and are then those of the start. */
TARGET void FN(egru_retreat)(const double *K, int64_t m, int64_t stride, const double *h, const double *par,
                             double *x, double *lam, const double *dsums, double *dpar, double *dK)
{
    const double tau_m = K[0], tau_s = K[1], kappa = tau_s / tau_m, near = K[2], middle = K[3], far = K[4];
    const int taus = K[5] != 0;
    FN(EgruSeries) s;
    VEC to_tau_m = FN(splat)(0.0), to_tau_s = FN(splat)(0.0);
    for (int64_t i = 0; i < m; i += WIDTH) {
        const VEC bu = FN(load)(par, i, m), br = FN(load)(par + stride, i, m);
        const VEC bz = FN(load)(par + 2 * stride, i, m), length = FN(load)(h, i, m) * (1 / tau_s);
        const VEC m1 = dsums ? FN(load)(dsums, i, m) : FN(splat)(0.0);
        const VEC m2 = dsums ? FN(load)(dsums + stride, i, m) : FN(splat)(0.0);
        const VEC dr = FN(load)(x + 2 * stride, i, m) - br, lr = FN(load)(lam + 2 * stride, i, m);
        const VEC fall = FN(vec_exponential)(-length), grown = 1.0 / fall;
        FN(EgruAdjoint) a = {
            .c = FN(load)(x, i, m), .du = FN(load)(x + stride, i, m) - bu,
            .dz = FN(load)(x + 3 * stride, i, m) - bz, .u = FN(load)(x + 4 * stride, i, m),
            .z = FN(load)(x + 5 * stride, i, m), .lc = FN(load)(lam, i, m),
            .lu = FN(load)(lam + stride, i, m), .lz = FN(load)(lam + 3 * stride, i, m)};
        const VEC du = a.du * grown, dz = a.dz * grown;
        const double reach = FN(largest)(FN(egru_reach)(length, kappa, a.du, a.dz));
        if (reach <= near)
            FN(egru_step_back)(NEAR, length, kappa, tau_s, m1, m2, taus, &s, &a);
        else if (reach <= middle)
            FN(egru_step_back)(MIDDLE, length, kappa, tau_s, m1, m2, taus, &s, &a);
        else
            for (VEC left = length; FN(largest)(left) > 0;) {
                double share = FN(egru_share)(left, kappa, far, a.du, a.dz);
                if (share == 0) /* nothing bends but c: any step that its own exponential allows */
                    share = fmin(1.0, far / (kappa * FN(largest)(left)));
                const VEC step = left * share; /* all of it if share is 1 */
                FN(egru_step_back)(FAR, step, kappa, tau_s, m1, m2, taus, &s, &a);
                left -= step;
            }
        FN(store)(x, i, m, a.c);
        FN(store)(x + stride, i, m, bu + du);
        FN(store)(x + 2 * stride, i, m, br + dr * grown);
        FN(store)(x + 3 * stride, i, m, bz + dz);
        FN(store)(x + 4 * stride, i, m, a.u);
        FN(store)(x + 5 * stride, i, m, a.z);
        FN(store)(lam, i, m, a.lc);
        FN(store)(lam + stride, i, m, a.lu);
        FN(store)(lam + 2 * stride, i, m, lr * fall);
        FN(store)(lam + 3 * stride, i, m, a.lz);
        FN(store)(dpar, i, m, FN(load)(dpar, i, m) + a.bias_u);
        FN(store)(dpar + stride, i, m, FN(load)(dpar + stride, i, m) + lr * (1.0 - fall));
        FN(store)(dpar + 2 * stride, i, m, FN(load)(dpar + 2 * stride, i, m) + a.bias_z);
        if (taus) {
            a.tau_s += length * lr * dr;
            for (int64_t j = i; j < i + WIDTH; j++) {
                to_tau_m[j - i] -= j < m ? a.tau_m[j - i] * (kappa / tau_m) : 0.0;
                to_tau_s[j - i] += j < m ? a.tau_s[j - i] / tau_s : 0.0;
            }
        }
    }
    dK[0] += FN(total)(to_tau_m);
    dK[1] += FN(total)(to_tau_s);
}

/* Takes the event of egru_receive back: x and lambda after the arrival become those before it.
 *
 *     gradient   dL/dw, laid out like w
 *     timing     dL/d(time of the arrival) of each item
 *     payload    sums over items: dL/ds of what is not gated, dL/d gated
 *
 * u and z must be those after the arrival, and are then those before it. */
TARGET void FN(egru_give_back)(const double *K, int64_t m, int64_t stride, const double *par, double *x,
                               double *lam, const double *w, double s, double gated, int32_t post,
                               double *gradient, double *timing, double *payload)
{
    const double per_m = 1 / K[0], per_s = 1 / K[1];
    VEC plain = FN(splat)(0.0), through_gate = FN(splat)(0.0);
    for (int64_t i = 0; i < m; i += WIDTH) {
        const VEC wu = FN(load)(w, i, m), wr = FN(load)(w + stride, i, m), wz = FN(load)(w + 2 * stride, i, m);
        const VEC lc = FN(load)(lam, i, m), lu = FN(load)(lam + stride, i, m);
        const VEC lr = FN(load)(lam + 2 * stride, i, m), lz = FN(load)(lam + 3 * stride, i, m);
        const VEC c = FN(load)(x, i, m);
        const VEC after = FN(load)(x + 4 * stride, i, m) * (FN(load)(x + 5 * stride, i, m) - c);
        const VEC au = FN(load)(x + stride, i, m) - wu * s, ar = FN(load)(x + 2 * stride, i, m) - wr * s;
        VEC r = FN(splat)(1.0), slope = FN(splat)(0.0), in_time = FN(splat)(0.0);
        if (post) {
            r = FN(vec_logistic)(ar);
            slope = gated * wz * lz * r * (1.0 - r);
            in_time = slope * (FN(load)(par + stride, i, m) - ar) * per_s;
        }
        const VEC az = FN(load)(x + 3 * stride, i, m) - wz * gated * r;
        VEC u, z;
        FN(vec_gates)(au, az, &u, &z);
        const VEC u_and_r = lu * wu + lr * wr, by_z = lz * wz * r;
        FN(store)(timing, i, m,
                  lc * (u * (z - c) - after) * per_m + (u_and_r * s + by_z * gated) * per_s + in_time);
        FN(store)(gradient, i, m, lu * s);
        FN(store)(gradient + stride, i, m, lr * s);
        FN(store)(gradient + 2 * stride, i, m, lz * gated * r);
        FN(store)(x + stride, i, m, au);
        FN(store)(x + 2 * stride, i, m, ar);
        FN(store)(x + 3 * stride, i, m, az);
        FN(store)(x + 4 * stride, i, m, u);
        FN(store)(x + 5 * stride, i, m, z);
        FN(store)(lam + 2 * stride, i, m, lr + slope);
        if (i + WIDTH <= m) {
            plain += u_and_r;
            through_gate += by_z;
        } else
            for (int64_t j = i; j < m; j++) {
                plain[j - i] += u_and_r[j - i];
                through_gate[j - i] += by_z[j - i];
            }
    }
    payload[0] += FN(total)(plain);
    payload[1] += FN(total)(through_gate);
}

#undef NEAR
#undef MIDDLE
#undef FAR
#undef PI
