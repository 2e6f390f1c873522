/* EGRU between events, in continuous time (EGRU, ICLR 2023, appendix; evsim/models/egru.py):
 *
 *     tau_s da_X/dt = b_X - a_X  (X = u, r, z),    tau_m dc/dt = u (z - c),  u = s(a_u), z = tanh(a_z)
 *
 * Template, see kernel_table.c; REAL is double.  Items side by side: x[k * stride + i] is state k of item i.
 *
 *     states      c a_u a_r a_z, and behind them u z, which belong to a_u a_z where egru_bound set them last
 *     parameters  b_u b_r b_z threshold, and behind them s(b_u) tanh(b_z)
 *     constants   tau_m tau_s q_4 q_6 q_9 q_14 taus unit
 *
 * The a are exponentials.  c has no closed form but is analytic.  With x = t / tau_s and s = 1 - e^-x, a_X is
 * linear in s, a_X - b_X = d_X (1 - s), so that the series of u and z in s take one product of series each:
 *
 *     du/ds = -d_u u (1 - u),    dz/ds = -d_z (1 - z^2),    (1 - s) dc/ds = kappa u (z - c),  kappa = tau_s / tau_m
 *
 * They converge up to |s| = pi / |d_u| and pi / (2 |d_z|), the distance to the poles of the logistic function,
 * that of c also only up to 1.  A step of a fraction q of that radius with a series of order p has an error
 * that goes with q^(p + 1) (the factors are in evsim/continuous_plan.py).  So a step is made with the lowest of
 * four orders p with q < q_p, or in pieces of q_14.  Its polynomial also finds crossings (crossing.h).  A step
 * back is one with x, s < 0.
 *
 * taus: whether gradients at the time constants are wanted; unit: whether events have the value 1, not the
 * threshold.
 */
#define LAST 14
#define PI 3.14159265358979323846

/* Coefficients of u, z, c, u (1 - u), 1 - z^2, z - c and G = u (z - c) in powers of s / S, for a step to S. */
typedef struct {
    VEC U[LAST + 1], Z[LAST + 1], C[LAST + 1], P[LAST + 1], Q[LAST + 1], V[LAST + 1], G[LAST + 1];
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

/* Its integral over x from 0 to the end of the step: dx = ds / (1 - s). */
INLINE VEC FN(integral)(const VEC *a, int order, VEC S)
{
    VEC term = S * a[0], sum = term;
#pragma GCC unroll 16
    for (int k = 1; k <= order; k++) {
        term = S * (a[k] + k * term) * (1.0 / (k + 1));
        sum += term;
    }
    return sum;
}

INLINE void FN(egru_series)(const int order, VEC S, double kappa, VEC du, VEC dz, VEC u, VEC z, VEC c,
                            FN(EgruSeries) *s)
{
    const VEC Su = -S * du, Sz = -S * dz;
    s->U[0] = u;
    s->Z[0] = z;
    s->C[0] = c;
#pragma GCC unroll 16
    for (int k = 0; k < order; k++) {
        const VEC share = S * (1.0 / (k + 1));
        s->P[k] = s->U[k] - FN(square)(s->U, k);
        s->Q[k] = (k ? 0.0 : 1.0) - FN(square)(s->Z, k);
        s->V[k] = s->Z[k] - s->C[k];
        s->G[k] = FN(product)(s->U, s->V, k);
        s->U[k + 1] = Su * (1.0 / (k + 1)) * s->P[k];
        s->Z[k + 1] = Sz * (1.0 / (k + 1)) * s->Q[k];
        s->C[k + 1] = share * (kappa * s->G[k] + k * s->C[k]);
    }
}

/* q of a step to s = 1. */
INLINE VEC FN(egru_bend)(double kappa, VEC du, VEC dz)
{
    const VEC d = FN(larger)(FN(absolute)(du), 2 * FN(absolute)(dz)) * (1 / PI);
    return FN(larger)(d, FN(splat)(kappa > 1 ? kappa : 1));
}

/* Which part of `left` one step covers in all items; 0 if u and z do not change any more.  |s| is at most
 * x / (1 - x), forwards and back. */
INLINE double FN(egru_share)(VEC left, double kappa, double most, VEC du, VEC dz)
{
    if (FN(largest)(FN(larger)(FN(absolute)(du), FN(absolute)(dz))) < 1e-17)
        return 0.0;
    const VEC s = FN(smaller)(most / FN(egru_bend)(kappa, du, dz), FN(splat)(0.5));
    const double reach = FN(largest)(left * (1.0 + s) / s);
    return reach > 1 ? 1 / reach : 1.0;
}

/* c after a step to S; adds its integral over x and that of its square, if they are wanted. */
INLINE VEC FN(egru_step)(const int order, VEC S, double kappa, VEC du, VEC dz, VEC u, VEC z, VEC c, int sums,
                         VEC *integral, VEC *square)
{
    FN(EgruSeries) s;
    FN(egru_series)(order, S, kappa, du, dz, u, z, c, &s);
    if (sums) {
        VEC power[LAST + 1];
#pragma GCC unroll 16
        for (int k = 0; k <= order; k++)
            power[k] = FN(square)(s.C, k);
        *integral += FN(integral)(s.C, order, S);
        *square += FN(integral)(power, order, S);
    }
    return FN(at_end)(s.C, order);
}

/* The same for steps of any length, piece by piece. */
static VEC FN(egru_long)(VEC left, double kappa, double most, VEC bu, VEC bz, VEC du, VEC dz, VEC u, VEC z,
                         VEC c, int sums, VEC *integral, VEC *square)
{
    while (FN(largest)(left) > 0) {
        const double share = FN(egru_share)(left, kappa, most, du, dz);
        const VEC step = left * share; /* all of it if share is 1 */
        if (share == 0) { /* c relaxes to z at the constant rate u */
            const VEC fall = FN(vec_exponential)(-kappa * u * left), away = c - z;
            if (sums) {
                const VEC rate = kappa * u, lost = away * (1.0 - fall) / rate;
                *integral += z * left + lost;
                *square += z * (z * left + 2 * lost) + away * away * (1.0 - fall * fall) / (2 * rate);
            }
            return z + away * fall;
        }
        const VEC fall = FN(vec_exponential)(-step);
        c = FN(egru_step)(LAST, 1.0 - fall, kappa, du, dz, u, z, c, sums, integral, square);
        du *= fall;
        dz *= fall;
        FN(vec_gates)(bu + du, bz + dz, &u, &z);
        left -= step;
    }
    return c;
}

TARGET void FN(egru_advance)(const double *K, int64_t m, int64_t stride, const double *h, const double *par,
                             double *x, double *sums)
{
    const double tau_s = K[1], kappa = tau_s / K[0], *q = K + 2;
    const int wanted = sums != NULL;
    VEC left = FN(splat)(0.0), decay = FN(splat)(1.0), S = FN(splat)(0.0);
    for (int64_t i = 0; i < m; i += WIDTH) {
        const VEC length = FN(load)(h, i) * (1 / tau_s);
        if (!FN(all)(length == left)) { /* units that were together before are as far back */
            left = length;
            decay = FN(vec_exponential)(-left);
            S = 1.0 - decay;
        }
        const VEC bu = FN(load)(par, i), br = FN(load)(par + stride, i);
        const VEC bz = FN(load)(par + 2 * stride, i), c = FN(load)(x, i);
        const VEC u = FN(load)(x + 4 * stride, i), z = FN(load)(x + 5 * stride, i);
        const VEC du = FN(load)(x + stride, i) - bu, dz = FN(load)(x + 3 * stride, i) - bz;
        const VEC dr = FN(load)(x + 2 * stride, i) - br;
        const double reach = FN(largest)(S * FN(egru_bend)(kappa, du, dz));
        VEC integral = FN(splat)(0.0), square = FN(splat)(0.0), later;
#define STEP(p) FN(egru_step)(p, S, kappa, du, dz, u, z, c, wanted, &integral, &square)
        if (reach <= q[0])
            later = STEP(4);
        else if (reach <= q[1])
            later = STEP(6);
        else if (reach <= q[2])
            later = STEP(9);
        else
            later = FN(egru_long)(left, kappa, q[3], bu, bz, du, dz, u, z, c, wanted, &integral, &square);
#undef STEP
        FN(store)(x, i, later);
        FN(store)(x + stride, i, bu + du * decay);
        FN(store)(x + 2 * stride, i, br + dr * decay);
        FN(store)(x + 3 * stride, i, bz + dz * decay);
        if (sums) {
            FN(store)(sums, i, FN(load)(sums, i) + integral * tau_s);
            FN(store)(sums + stride, i, FN(load)(sums + stride, i) + square * tau_s);
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
    const double tau_s = K[1], kappa = tau_s / K[0], most = K[5];
    double coefficient[LAST + 1], wait[WIDTH], h[WIDTH], now[6 * WIDTH], own[6 * WIDTH];
    for (int k = 0; k < 6; k++) {
        FN(store)(now, k * WIDTH, FN(splat)(x[k]));
        FN(store)(own, k * WIDTH, FN(splat)(par[k]));
    }
    *when = 0;
    for (int steps = 0; steps < 4; steps++) {
        FN(egru_bound)(K, 1, WIDTH, own, now, wait);
        if (wait[0] == 0)
            return 1;
        if (wait[0] == INFINITY) {
            *when = INFINITY;
            return 0;
        }
        const VEC du = FN(load)(now, WIDTH) - par[0], dz = FN(load)(now, 3 * WIDTH) - par[2];
        /* The longest step that one series takes: however near the threshold, it goes on by that much. */
        const double S = most / FN(egru_bend)(kappa, du, dz)[0];
        double length = -log1p(-S) * tau_s;
        if (length > wait[0]) {
            FN(EgruSeries) s;
            FN(egru_series)(LAST, FN(splat)(S), kappa, du, dz, FN(load)(now, 4 * WIDTH),
                            FN(load)(now, 5 * WIDTH), FN(load)(now, 0), &s);
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
        FN(store)(h, 0, FN(splat)(length));
        FN(egru_advance)(K, 1, WIDTH, h, own, now, NULL);
        *when += length;
    }
    return 0;
}

TARGET double FN(egru_fire)(const double *K, const double *par, double *x)
{
    x[0] = 0;
    return K[7] != 0 ? 1.0 : par[3];
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

/* One step of the adjoint: c, u, z and lambda at its end become those at its start; du and dz stay. */
typedef struct {
    VEC c, du, dz, u, z, lc, lu, lz;  /* IN and OUT */
    VEC bias_u, bias_z, tau_m, tau_s; /* sums */
} FN(EgruAdjoint);

/* With M = u lambda_c: (1 - s) d lambda_c / ds = kappa M - (loss per x), and (1 - s) d lambda_X / ds =
 * lambda_X - kappa M f_X with f_u = (1 - u) (z - c), f_z = 1 - z^2.  S < 0. */
INLINE void FN(egru_step_back)(const int order, VEC S, double kappa, double tau_s, VEC m1, VEC m2, int taus,
                               FN(EgruAdjoint) *a)
{
    FN(EgruSeries) s;
    VEC L[LAST + 1], M[LAST + 1], F[LAST + 1], Lu[LAST + 1], Lz[LAST + 1];
    FN(egru_series)(order, S, kappa, a->du, a->dz, a->u, a->z, a->c, &s);
    L[0] = a->lc;
    Lu[0] = a->lu;
    Lz[0] = a->lz;
#pragma GCC unroll 16
    for (int k = 0; k < order; k++) {
        const VEC share = S * (1.0 / (k + 1));
        VEC running = 2 * m2 * s.C[k];
        if (k == 0)
            running += m1;
        M[k] = kappa * FN(product)(s.U, L, k);
        F[k] = s.V[k] - s.G[k];
        L[k + 1] = share * (M[k] + k * L[k] - tau_s * running);
        Lu[k + 1] = share * ((k + 1) * Lu[k] - FN(product)(M, F, k));
        Lz[k + 1] = share * ((k + 1) * Lz[k] - FN(product)(M, s.Q, k));
    }
    if (taus) {
        VEC change[LAST + 1];
#pragma GCC unroll 16
        for (int k = 0; k < order; k++)
            change[k] = FN(product)(L, s.G, k);
        a->tau_m -= FN(integral)(change, order - 1, S);
        VEC deviation = a->du * Lu[0] + a->dz * Lz[0];
#pragma GCC unroll 16
        for (int k = 1; k < order; k++) /* d (1 - s) dx = d ds */
            deviation += (a->du * Lu[k] + a->dz * Lz[k]) * (1.0 / (k + 1));
        a->tau_s -= S * deviation;
    }
    a->bias_u -= FN(integral)(Lu, order, S);
    a->bias_z -= FN(integral)(Lz, order, S);
    a->lc = FN(at_end)(L, order);
    a->lu = FN(at_end)(Lu, order);
    a->lz = FN(at_end)(Lz, order);
    a->c = FN(at_end)(s.C, order);
    a->u = FN(at_end)(s.U, order);
    a->z = FN(at_end)(s.Z, order);
}

/* As egru_long. */
static void FN(egru_long_back)(VEC left, double kappa, double tau_s, double most, VEC m1, VEC m2, int taus,
                               FN(EgruAdjoint) *a)
{
    while (FN(largest)(left) > 0) {
        double share = FN(egru_share)(left, kappa, most, a->du, a->dz);
        if (share == 0) /* nothing bends but c */
            share = fmin(1.0, most / (2 * (kappa > 1 ? kappa : 1) * FN(largest)(left)));
        const VEC step = left * share, grown = FN(vec_exponential)(step);
        FN(egru_step_back)(LAST, 1.0 - grown, kappa, tau_s, m1, m2, taus, a);
        a->du *= grown;
        a->dz *= grown;
        left -= step;
    }
}

/* The adjoint of egru_advance; u and z must be those of the end, and are then those of the start. */
TARGET void FN(egru_retreat)(const double *K, int64_t m, int64_t stride, const double *h, const double *par,
                             double *x, double *lam, const double *dsums, double *dpar, double *dK)
{
    const double tau_m = K[0], tau_s = K[1], kappa = tau_s / tau_m, *q = K + 2;
    const int taus = K[6] != 0;
    VEC to_tau_m = FN(splat)(0.0), to_tau_s = FN(splat)(0.0);
    VEC left = FN(splat)(0.0), fall = FN(splat)(1.0), grown = FN(splat)(1.0);
    for (int64_t i = 0; i < m; i += WIDTH) {
        const VEC length = FN(load)(h, i) * (1 / tau_s);
        if (!FN(all)(length == left)) {
            left = length;
            fall = FN(vec_exponential)(-left);
            grown = 1.0 / fall;
        }
        const VEC bu = FN(load)(par, i), br = FN(load)(par + stride, i);
        const VEC bz = FN(load)(par + 2 * stride, i);
        const VEC m1 = dsums ? FN(load)(dsums, i) : FN(splat)(0.0);
        const VEC m2 = dsums ? FN(load)(dsums + stride, i) : FN(splat)(0.0);
        const VEC dr = FN(load)(x + 2 * stride, i) - br, lr = FN(load)(lam + 2 * stride, i);
        FN(EgruAdjoint) a = {
            .c = FN(load)(x, i), .du = FN(load)(x + stride, i) - bu,
            .dz = FN(load)(x + 3 * stride, i) - bz, .u = FN(load)(x + 4 * stride, i),
            .z = FN(load)(x + 5 * stride, i), .lc = FN(load)(lam, i),
            .lu = FN(load)(lam + stride, i), .lz = FN(load)(lam + 3 * stride, i)};
        const VEC du = a.du * grown, dz = a.dz * grown;
        const double reach = FN(largest)((grown - 1.0) * FN(egru_bend)(kappa, a.du, a.dz));
#define STEP_BACK(p) FN(egru_step_back)(p, 1.0 - grown, kappa, tau_s, m1, m2, taus, &a)
        if (reach <= q[0])
            STEP_BACK(4);
        else if (reach <= q[1])
            STEP_BACK(6);
        else if (reach <= q[2])
            STEP_BACK(9);
        else
            FN(egru_long_back)(left, kappa, tau_s, q[3], m1, m2, taus, &a);
#undef STEP_BACK
        FN(store)(x, i, a.c);
        FN(store)(x + stride, i, bu + du);
        FN(store)(x + 2 * stride, i, br + dr * grown);
        FN(store)(x + 3 * stride, i, bz + dz);
        FN(store)(x + 4 * stride, i, a.u);
        FN(store)(x + 5 * stride, i, a.z);
        FN(store)(lam, i, a.lc);
        FN(store)(lam + stride, i, a.lu);
        FN(store)(lam + 2 * stride, i, lr * fall);
        FN(store)(lam + 3 * stride, i, a.lz);
        FN(store)(dpar, i, FN(load)(dpar, i) + a.bias_u);
        FN(store)(dpar + stride, i, FN(load)(dpar + stride, i) + lr * (1.0 - fall));
        FN(store)(dpar + 2 * stride, i, FN(load)(dpar + 2 * stride, i) + a.bias_z);
        if (taus) {
            a.tau_s += left * lr * dr;
            for (int64_t j = i; j < i + WIDTH && j < m; j++) {
                to_tau_m[j - i] -= a.tau_m[j - i] * (kappa / tau_m);
                to_tau_s[j - i] += a.tau_s[j - i] / tau_s;
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
        const VEC wu = FN(load)(w, i), wr = FN(load)(w + stride, i), wz = FN(load)(w + 2 * stride, i);
        const VEC lc = FN(load)(lam, i), lu = FN(load)(lam + stride, i);
        const VEC lr = FN(load)(lam + 2 * stride, i), lz = FN(load)(lam + 3 * stride, i);
        const VEC c = FN(load)(x, i);
        const VEC after = FN(load)(x + 4 * stride, i) * (FN(load)(x + 5 * stride, i) - c);
        const VEC au = FN(load)(x + stride, i) - wu * s, ar = FN(load)(x + 2 * stride, i) - wr * s;
        VEC r = FN(splat)(1.0), slope = FN(splat)(0.0), in_time = FN(splat)(0.0);
        if (post) {
            r = FN(vec_logistic)(ar);
            slope = gated * wz * lz * r * (1.0 - r);
            in_time = slope * (FN(load)(par + stride, i) - ar) * per_s;
        }
        const VEC az = FN(load)(x + 3 * stride, i) - wz * gated * r;
        VEC u, z;
        FN(vec_gates)(au, az, &u, &z);
        const VEC u_and_r = lu * wu + lr * wr, by_z = lz * wz * r;
        FN(store)(timing, i,
                  lc * (u * (z - c) - after) * per_m + (u_and_r * s + by_z * gated) * per_s + in_time);
        FN(store)(gradient, i, lu * s);
        FN(store)(gradient + stride, i, lr * s);
        FN(store)(gradient + 2 * stride, i, lz * gated * r);
        FN(store)(x + stride, i, au);
        FN(store)(x + 2 * stride, i, ar);
        FN(store)(x + 3 * stride, i, az);
        FN(store)(x + 4 * stride, i, u);
        FN(store)(x + 5 * stride, i, z);
        FN(store)(lam + 2 * stride, i, lr + slope);
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

#undef LAST
#undef PI
