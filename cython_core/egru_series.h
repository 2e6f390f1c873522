/* EGRU between events, in continuous time: the series of its states, and steps by them (EGRU, ICLR 2023, appendix;
 * evsim/models/egru.py).
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
