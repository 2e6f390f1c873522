/* EGRU between events, in continuous time (EGRU, ICLR 2023, appendix; evsim/models/egru.py):
 *
 *     tau_s da_X/dt = b_X - a_X  (X = u, r, z),    tau_m dc/dt = u (z - c),  u = s(a_u), z = tanh(a_z)
 *
 * Template, see kernel_table.c; REAL is double.  Items side by side: x[k * stride + i] is state k of item i.
 *
 *     states      c a_u a_r a_z, and behind them u z, which belong to a_u a_z where egru_bound set them last
 *     parameters  b_u b_r b_z threshold, and behind them s(b_u) tanh(b_z)
 *     constants   tau_m tau_s taus unit q_3 q_4 q_5 q_6 q_7 q_9 q_14
 *
 * The a are exponentials.  c has no closed form but is analytic.  With x = t / tau_s and s = 1 - e^-x, a_X is
 * linear in s, a_X - b_X = d_X (1 - s), so that the series of u and z in s take one product of series each:
 *
 *     du/ds = -d_u u (1 - u),    dz/ds = -d_z (1 - z^2),    (1 - s) dc/ds = kappa u (z - c),  kappa = tau_s / tau_m
 *
 * They converge up to |s| = pi / |d_u| and pi / (2 |d_z|), the distance to the poles of the logistic function,
 * that of c also only up to 1.  A step of a fraction q of that radius with a series of order p has an error
 * that goes with q^(p + 1) (the factors are in evsim/continuous_plan.py).  So a step is made with the lowest of
 * seven orders p with q < q_p, or in pieces of q_14.  Its polynomial also finds crossings (crossing.h).  A step
 * back is one with x, s < 0.
 *
 * taus: whether gradients at the time constants are wanted; unit: whether events have the value 1, not the
 * threshold.
 */
#define LAST 14
#define PI 3.14159265358979323846
#define BLOCK 128 /* items at a time */
#define WAYS 8    /* seven orders, and several steps */
#define MOST 10   /* place of the q of the highest */

/* Coefficients of u, z, c, z^2 - 1, z - c and G = u (z - c) in powers of s / S, for a step to S. */
typedef struct {
    VEC U[LAST + 1], Z[LAST + 1], C[LAST + 1], Q[LAST + 1], V[LAST + 1], G[LAST + 1];
} FN(EgruSeries);

/* sum_{0 < i < k} a_i b_{k - i}, k > 1: what can be added up before a_k and b_k are known.  The series are chains of
 * products; the newest coefficients come last in each sum, so that little has to wait for them. */
INLINE VEC FN(inner)(const VEC *a, const VEC *b, int k)
{
    VEC sum = a[1] * b[k - 1];
#pragma GCC unroll 16
    for (int i = 2; i < k; i++)
        sum += a[i] * b[k - i];
    return sum;
}

/* sum_{i <= k} a_i b_{k - i}; b_k is the newest. */
INLINE VEC FN(product)(const VEC *a, const VEC *b, int k)
{
    if (k == 0)
        return a[0] * b[0];
    if (k == 1)
        return a[1] * b[0] + a[0] * b[1];
    return (FN(inner)(a, b, k) + a[k] * b[0]) + a[0] * b[k];
}

/* The inner sum of a with itself, k > 1. */
INLINE VEC FN(inner_square)(const VEC *a, int k)
{
    if (k == 2)
        return a[1] * a[1];
    VEC sum = a[1] * a[k - 1];
#pragma GCC unroll 16
    for (int i = 2; 2 * i < k; i++)
        sum += a[i] * a[k - i];
    sum += sum;
    if (k % 2 == 0)
        sum += a[k / 2] * a[k / 2];
    return sum;
}

INLINE VEC FN(square)(const VEC *a, int k)
{
    if (k == 0)
        return a[0] * a[0];
    const VEC newest = (a[0] + a[0]) * a[k];
    if (k == 1)
        return newest;
    return FN(inner_square)(a, k) + newest;
}

/* sum_k a_k */
INLINE VEC FN(at_end)(const VEC *a, int order)
{
    VEC sum = a[order - 2] + a[order - 3];
#pragma GCC unroll 16
    for (int k = order - 4; k >= 0; k--)
        sum += a[k];
    return sum + (a[order - 1] + a[order]);
}

/* What all series of a step to S have in common: S / (k + 1), also times kappa, S k / (k + 1), and the integrals of
 * (s / S)^k over x from 0 to the end of the step, dx = ds / (1 - s). */
typedef struct {
    VEC part[LAST], slow[LAST], keep[LAST], weight[LAST + 1];
} FN(EgruScale);

INLINE void FN(egru_scale)(const int order, VEC S, double kappa, FN(EgruScale) *scale)
{
#pragma GCC unroll 16
    for (int k = 0; k < order; k++) {
        scale->part[k] = S * (1.0 / (k + 1));
        scale->slow[k] = kappa * scale->part[k];
        scale->keep[k] = S * ((double)k / (k + 1));
    }
    /* Downwards from the first term of a higher one, as each step multiplies the error of that by S. */
    VEC weight = S * (1.0 / (order + 4));
#pragma GCC unroll 32
    for (int k = order + 3; k > 0; k--) {
        weight = S * (weight + 1.0 / k);
        if (k <= order + 1)
            scale->weight[k - 1] = weight;
    }
}

/* sum_k a_k weight_k */
INLINE VEC FN(integral)(const VEC *a, int order, const FN(EgruScale) *scale)
{
    VEC sum = a[order - 2] * scale->weight[order - 2];
#pragma GCC unroll 16
    for (int k = order - 3; k >= 0; k--)
        sum += a[k] * scale->weight[k];
    return sum + (a[order - 1] * scale->weight[order - 1] + a[order] * scale->weight[order]);
}

/* What the newest coefficients are multiplied by is made ahead: each waits for its predecessor no longer than one
 * product and one sum take. */
INLINE void FN(egru_series)(const int order, const FN(EgruScale) *scale, double kappa, VEC du, VEC dz, VEC u,
                            VEC z, VEC c, FN(EgruSeries) *s)
{
    const VEC bend = u + u - 1.0, twice = z + z, du_bend = du * bend, dz_twice = dz * twice;
    s->U[0] = u;
    s->Z[0] = z;
    s->C[0] = c;
    s->V[0] = z - c;
    s->Q[0] = z * z - 1.0;
    s->G[0] = u * s->V[0];
    s->U[1] = du * scale->part[0] * (u * u - u);
    s->Z[1] = dz * scale->part[0] * s->Q[0];
    s->C[1] = scale->slow[0] * s->G[0];
#pragma GCC unroll 16
    for (int k = 1; k < order; k++) {
        const VEC part = scale->part[k], slow = scale->slow[k];
        VEC rest = s->U[k] * s->V[0] + u * s->Z[k]; /* G but for u C_k */
        s->V[k] = s->Z[k] - s->C[k];
        s->Q[k] = twice * s->Z[k];
        s->U[k + 1] = du_bend * part * s->U[k];
        s->Z[k + 1] = dz_twice * part * s->Z[k];
        if (k > 1) {
            const VEC inner_u = FN(inner_square)(s->U, k), inner_z = FN(inner_square)(s->Z, k);
            s->Q[k] += inner_z;
            s->U[k + 1] += du * part * inner_u;
            s->Z[k + 1] += dz * part * inner_z;
            rest += FN(inner)(s->U, s->V, k);
        }
        s->G[k] = rest - u * s->C[k];
        s->C[k + 1] = slow * rest + (scale->keep[k] - slow * u) * s->C[k];
    }
}

/* q of a step to s = 1. */
INLINE VEC FN(egru_bend)(double kappa, VEC du, VEC dz)
{
    const VEC d = FN(larger)(FN(absolute)(du), 2 * FN(absolute)(dz)) * (1 / PI);
    return FN(larger)(d, FN(splat)(kappa > 1 ? kappa : 1));
}

/* Which part of `left` one step covers in all items of a group; 0 if u and z do not change any more.  A step of
 * x = s + s^2 / 2 has 1 - e^-x < s, and one of x = s / (1 + s / 2) back e^x - 1 < s. */
INLINE double FN(egru_share)(const VEC *left, double kappa, double most, const VEC *du, const VEC *dz, int back)
{
    VEC change[PARTS], reach[PARTS];
    for (int p = 0; p < PARTS; p++) {
        change[p] = FN(larger)(FN(absolute)(du[p]), FN(absolute)(dz[p]));
        const VEC s = FN(smaller)(most / FN(egru_bend)(kappa, du[p], dz[p]), FN(splat)(0.5));
        const VEC stretch = 1.0 + 0.5 * s;
        reach[p] = back ? left[p] * stretch / s : left[p] / (stretch * s);
    }
    if (FN(largest)(change) < 1e-17)
        return 0.0;
    const double whole = FN(largest)(reach);
    return whole > 1 ? 1 / whole : 1.0;
}

/* What is known of up to BLOCK items before their steps, and which groups of them take which order: a step that
 * is chosen where it is made is a branch that nobody can foretell. */
typedef struct {
    double step[BLOCK] __attribute__((aligned(64))); /* s of the step, as far as the items have to go */
    double fall[BLOCK];  /* e^-x */
    double grown[BLOCK]; /* on the way back: e^x */
    VEC common;          /* the step of most groups */
    uint8_t own[BLOCK / GROUP]; /* whether that of a group is another */
    int32_t count[WAYS];
    uint8_t place[WAYS][BLOCK / GROUP]; /* of each group, in groups */
} FN(EgruSteps);

/* With back, h is taken backwards. */
INLINE void FN(egru_sort)(const double *K, int64_t m, int64_t stride, const double *h, const double *par,
                          const double *x, int back, FN(EgruSteps) *steps)
{
    const double tau_s = K[1], kappa = tau_s / K[0], *q = K + 4;
    /* Units that were together before are as far back; those that were looked at since, less. */
    const double first = h[0], middle = h[m / 2], end = h[m - 1], more = first > middle ? first : middle;
    const VEC left = FN(splat)(more > end ? more : end) * (1 / tau_s);
    const VEC common_fall = FN(vec_exponential)(-left), common_grown = 1.0 / common_fall;
    steps->common = 1.0 - (back ? common_grown : common_fall);
    for (int way = 0; way < WAYS; way++)
        steps->count[way] = 0;
    for (int64_t i = 0; i < m; i += GROUP) {
        int way = 0, own = 0;
        int beyond[WAYS - 1] = {0};
        for (int p = 0; p < PARTS; p++) {
            const int64_t j = i + p * WIDTH;
            const VEC length = FN(load)(h, j) * (1 / tau_s);
            VEC fall = common_fall, grown = common_grown, step = steps->common;
            if (!FN(same)(length, left)) {
                fall = FN(vec_exponential)(-length);
                if (back)
                    grown = 1.0 / fall;
                step = 1.0 - (back ? grown : fall);
                own = 1;
            }
            const VEC du = FN(load)(x + stride, j) - FN(load)(par, j);
            const VEC dz = FN(load)(x + 3 * stride, j) - FN(load)(par + 2 * stride, j);
            const VEC reach = FN(absolute)(step) * FN(egru_bend)(kappa, du, dz);
            for (int k = 0; k < WAYS - 1; k++)
                beyond[k] |= FN(beyond)(reach, q[k]);
            FN(store)(steps->step, j, step);
            FN(store)(steps->fall, j, fall);
            if (back)
                FN(store)(steps->grown, j, grown);
        }
        for (int k = 0; k < WAYS - 1; k++)
            way += beyond[k];
        steps->own[i / GROUP] = (uint8_t)own;
        steps->place[way][steps->count[way]++] = (uint8_t)(i / GROUP);
    }
}

/* c after a step to S; adds its integral over x and that of its square, if they are wanted. */
INLINE VEC FN(egru_step)(const int order, const FN(EgruScale) *scale, double kappa, VEC du, VEC dz, VEC u, VEC z, VEC c, int sums,
                         VEC *integral, VEC *square)
{
    FN(EgruSeries) s;
    FN(egru_series)(order, scale, kappa, du, dz, u, z, c, &s);
    if (sums) {
        VEC power[LAST + 1];
#pragma GCC unroll 16
        for (int k = 0; k <= order; k++)
            power[k] = FN(square)(s.C, k);
        *integral += FN(integral)(s.C, order, scale);
        *square += FN(integral)(power, order, scale);
    }
    return FN(at_end)(s.C, order);
}

/* The same for steps of any length of a group, piece by piece. */
static void FN(egru_long)(VEC *left, double kappa, double most, const VEC *bu, const VEC *bz, VEC *du, VEC *dz,
                          VEC *u, VEC *z, VEC *c, int sums, VEC *integral, VEC *square)
{
    while (FN(largest)(left) > 0) {
        const double share = FN(egru_share)(left, kappa, most, du, dz, 0);
        for (int p = 0; p < PARTS; p++) {
            const VEC step = left[p] * share; /* all of it if share is 1 */
            left[p] -= step;
            if (share == 0) { /* c relaxes to z at the constant rate u */
                const VEC rest = left[p], fall = FN(vec_exponential)(-kappa * u[p] * rest);
                const VEC away = c[p] - z[p];
                if (sums) {
                    const VEC rate = kappa * u[p], lost = away * (1.0 - fall) / rate;
                    integral[p] += z[p] * rest + lost;
                    square[p] += z[p] * (z[p] * rest + 2 * lost) + away * away * (1.0 - fall * fall) / (2 * rate);
                }
                c[p] = z[p] + away * fall;
                left[p] = FN(splat)(0.0);
                continue;
            }
            const VEC fall = FN(vec_exponential)(-step);
            FN(EgruScale) scale;
            FN(egru_scale)(LAST, 1.0 - fall, kappa, &scale);
            c[p] = FN(egru_step)(LAST, &scale, kappa, du[p], dz[p], u[p], z[p], c[p], sums, integral + p,
                                 square + p);
            if (share == 1) /* it was the last */
                continue;
            du[p] *= fall;
            dz[p] *= fall;
            FN(vec_gates)(bu[p] + du[p], bz[p] + dz[p], u + p, z + p);
        }
    }
}

/* The groups of a block that take one step of an order, or (0) several of the highest. */
INLINE void FN(egru_steps)(const int order, int way, const FN(EgruSteps) *steps, const double *K, int64_t stride,
                           const double *h, const double *par, double *x, double *sums)
{
    const double tau_s = K[1], kappa = tau_s / K[0];
    const int wanted = sums != NULL;
    FN(EgruScale) common, own;
    if (order && steps->count[way])
        FN(egru_scale)(order, steps->common, kappa, &common);
    for (int32_t k = 0; k < steps->count[way]; k++) {
        const int64_t i = steps->place[way][k] * GROUP;
        VEC bu[PARTS], bz[PARTS], c[PARTS], u[PARTS], z[PARTS], du[PARTS], dz[PARTS];
        VEC later_u[PARTS], later_z[PARTS], integral[PARTS], square[PARTS], left[PARTS];
        for (int p = 0; p < PARTS; p++) {
            const int64_t j = i + p * WIDTH;
            const VEC decay = FN(load)(steps->fall, j);
            bu[p] = FN(load)(par, j);
            bz[p] = FN(load)(par + 2 * stride, j);
            c[p] = FN(load)(x, j);
            u[p] = FN(load)(x + 4 * stride, j);
            z[p] = FN(load)(x + 5 * stride, j);
            du[p] = FN(load)(x + stride, j) - bu[p];
            dz[p] = FN(load)(x + 3 * stride, j) - bz[p];
            later_u[p] = bu[p] + du[p] * decay;
            later_z[p] = bz[p] + dz[p] * decay;
            integral[p] = square[p] = FN(splat)(0.0);
            if (order) {
                const FN(EgruScale) *scale = &common;
                if (steps->own[i / GROUP]) {
                    FN(egru_scale)(order, FN(load)(steps->step, j), kappa, &own);
                    scale = &own;
                }
                c[p] = FN(egru_step)(order, scale, kappa, du[p], dz[p], u[p], z[p], c[p], wanted, integral + p,
                                     square + p);
            } else
                left[p] = FN(load)(h, j) * (1 / tau_s);
        }
        if (!order)
            FN(egru_long)(left, kappa, K[MOST], bu, bz, du, dz, u, z, c, wanted, integral, square);
        for (int p = 0; p < PARTS; p++) {
            const int64_t j = i + p * WIDTH;
            const VEC br = FN(load)(par + stride, j);
            FN(store)(x, j, c[p]);
            FN(store)(x + stride, j, later_u[p]);
            FN(store)(x + 2 * stride, j, br + (FN(load)(x + 2 * stride, j) - br) * FN(load)(steps->fall, j));
            FN(store)(x + 3 * stride, j, later_z[p]);
            if (wanted) {
                FN(store)(sums, j, FN(load)(sums, j) + integral[p] * tau_s);
                FN(store)(sums + stride, j, FN(load)(sums + stride, j) + square[p] * tau_s);
            }
        }
    }
}

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
