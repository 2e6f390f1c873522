/* The leaky integrate-and-fire unit between events, in closed form.
 *
 * Template, see kernel_table.c; REAL is double.  Needs gates.h and crossing.h.
 *
 *     tau_m v' = -v + bias + i_e + i_i,    tau_e i_e' = -i_e,    tau_i i_i' = -i_i
 *
 * and v = reset while `hold`, the refractory time left, is positive.  State k of item i is x[k * stride + i]:
 * v, i_e, i_i, hold.  Parameters likewise: bias, threshold.  Constants K: tau_m, tau_e, tau_i, reset,
 * refractory.
 *
 * With a = 1 / tau_m and c = 1 / tau_e, a time s after the release
 *
 *     v(s) = bias + (v(0) - bias) g(s) + i_e(0) k_e(s) + i_i(0) k_i(s)
 *     g(s) = exp(-a s),  f(s) = exp(-c s)
 *     k(s) = a integral from 0 to s of exp(-a (s - r)) exp(-c r) dr = a (f - g) / (a - c)
 *
 * which is a s exp(-a s) where the time constants are equal: near that, where (a - c) s is small, the difference
 * is replaced by its series.
 */

/* (1 - exp(-y)) / y, the mean of exp(-y t) over 0 <= t <= 1, for |y| < 1/2. */
static inline double FN(decay_mean)(double y)
{
    double p = -1.0 / 87178291200.0;
    p = p * y + 1.0 / 6227020800.0;
    p = p * y - 1.0 / 479001600.0;
    p = p * y + 1.0 / 39916800.0;
    p = p * y - 1.0 / 3628800.0;
    p = p * y + 1.0 / 362880.0;
    p = p * y - 1.0 / 40320.0;
    p = p * y + 1.0 / 5040.0;
    p = p * y - 1.0 / 720.0;
    p = p * y + 1.0 / 120.0;
    p = p * y - 1.0 / 24.0;
    p = p * y + 1.0 / 6.0;
    p = p * y - 0.5;
    return p * y + 1.0;
}

/* (1 - (1 + y) exp(-y)) / y^2, the mean of t exp(-y t) over 0 <= t <= 1, for |y| < 1/2. */
static inline double FN(decay_moment)(double y)
{
    double p = -1.0 / (6227020800.0 * 15);
    p = p * y + 1.0 / (479001600.0 * 14);
    p = p * y - 1.0 / (39916800.0 * 13);
    p = p * y + 1.0 / (3628800.0 * 12);
    p = p * y - 1.0 / (362880.0 * 11);
    p = p * y + 1.0 / (40320.0 * 10);
    p = p * y - 1.0 / (5040.0 * 9);
    p = p * y + 1.0 / (720.0 * 8);
    p = p * y - 1.0 / (120.0 * 7);
    p = p * y + 1.0 / (24.0 * 6);
    p = p * y - 1.0 / (6.0 * 5);
    p = p * y + 1.0 / (2.0 * 4);
    p = p * y - 1.0 / 3.0;
    return p * y + 0.5;
}

/* 1 - exp(-y), y >= 0, also where y is small; decay is exp(-y). */
static inline double FN(decay_loss)(double y, double decay)
{
    const double near = y * FN(decay_mean)(y), far = 1.0 - decay;
    return y < 0.5 ? near : far;
}

/* What has decayed to nothing is nothing: arithmetic on denormal numbers is slow. */
static inline double FN(without_traces)(double x)
{
    return fabs(x) < 1e-280 ? 0.0 : x;
}

/* Rates of one population, and what k and its derivatives need of the distance between them. */
typedef struct {
    double m, e, i;              /* a and the two c: 1 / tau */
    double gap_e, gap_i;         /* c - a */
    double per_gap_e, per_gap_i; /* 1 / (c - a), infinite if they are equal: never used then */
} FN(LifRates);

static inline FN(LifRates) FN(lif_rates)(const double *K)
{
    FN(LifRates) q;
    q.m = 1.0 / K[0];
    q.e = 1.0 / K[1];
    q.i = 1.0 / K[2];
    q.gap_e = q.e - q.m;
    q.gap_i = q.i - q.m;
    q.per_gap_e = 1.0 / q.gap_e;
    q.per_gap_i = 1.0 / q.gap_i;
    return q;
}

/* k(s) / a, from g(s) and f(s). */
static inline double FN(lif_response)(double s, double g, double f, double gap, double per_gap)
{
    const double y = gap * s, near = s * g * FN(decay_mean)(y), far = (g - f) * per_gap;
    return fabs(y) < 0.5 ? near : far;
}

enum { FN(LIF_BLOCK) = 64 }; /* items handled at a time */

static inline int32_t FN(lif_any_held)(int64_t m, const double *hold)
{
    int64_t held = 0;
    for (int64_t j = 0; j < m; j++)
        held += hold[j] > 0;
    return held > 0;
}

/* Up to the release, where there is one; s is what is left of h. */
static void FN(lif_hold)(const FN(LifRates) *q, double reset, int64_t m, const double *restrict h,
                         double *restrict v, double *restrict i_e, double *restrict i_i,
                         double *restrict hold, double *restrict s)
{
    const double rate_e = q->e, rate_i = q->i;
    for (int64_t j = 0; j < m; j++) {
        const double wait = hold[j], pinned = wait < h[j] ? wait : h[j];
        v[j] = wait > 0 ? reset : v[j];
        i_e[j] *= FN(exponential)(-pinned * rate_e);
        i_i[j] *= FN(exponential)(-pinned * rate_i);
        hold[j] = wait - pinned;
        s[j] = h[j] - pinned;
    }
}

/* From the release, over a time s. */
static void FN(lif_move)(const FN(LifRates) *rates, int64_t m, const double *restrict s,
                         const double *restrict bias, double *restrict v, double *restrict i_e,
                         double *restrict i_i)
{
    const FN(LifRates) q = *rates;
    for (int64_t j = 0; j < m; j++) {
        const double g = FN(exponential)(-s[j] * q.m);
        const double f_e = FN(exponential)(-s[j] * q.e), f_i = FN(exponential)(-s[j] * q.i);
        const double k_e = q.m * FN(lif_response)(s[j], g, f_e, q.gap_e, q.per_gap_e);
        const double k_i = q.m * FN(lif_response)(s[j], g, f_i, q.gap_i, q.per_gap_i);
        v[j] = FN(without_traces)(v[j] + ((bias[j] - v[j]) * (1.0 - g) + (i_e[j] * k_e + i_i[j] * k_i)));
        i_e[j] = FN(without_traces)(i_e[j] * f_e);
        i_i[j] = FN(without_traces)(i_i[j] * f_i);
    }
}

/* Adds the integrals of v and of v^2 over the segment.  The integrals of products follow from their rates of
 * change, as (g k)' = a g f - 2 a g k: again without a - c.  X is 1 minus an exponential; GK stands for the
 * integral of g k, and so on. */
static inline void FN(lif_integrate)(const double *K, int64_t m, int64_t stride, const double *restrict h,
                                     const double *restrict par, const double *restrict x, double *restrict sums)
{
    const FN(LifRates) q = FN(lif_rates)(K);
    const double reset = K[3];
    const double per_2a = 0.5 * K[0], per_ae = 1.0 / (q.m + q.e), per_ai = 1.0 / (q.m + q.i);
    const double per_ei = 1.0 / (q.e + q.i);
    const double *restrict bias = par;
    const double *restrict v = x, *restrict i_e = x + stride, *restrict i_i = x + 2 * stride;
    const double *restrict hold = x + 3 * stride;
    double *restrict first = sums, *restrict second = sums + stride;
    for (int64_t j = 0; j < m; j++) {
        const double wait = hold[j], pinned = wait < h[j] ? wait : h[j], s = h[j] - pinned;
        const double b = bias[j], u = (wait > 0 ? reset : v[j]) - b;
        const double e = i_e[j] * FN(exponential)(-pinned * q.e), i = i_i[j] * FN(exponential)(-pinned * q.i);
        const double g = FN(exponential)(-s * q.m);
        const double f_e = FN(exponential)(-s * q.e), f_i = FN(exponential)(-s * q.i);
        const double k_e = q.m * FN(lif_response)(s, g, f_e, q.gap_e, q.per_gap_e);
        const double k_i = q.m * FN(lif_response)(s, g, f_i, q.gap_i, q.per_gap_i);
        const double X_m = FN(decay_loss)(s * q.m, g);
        const double X_e = FN(decay_loss)(s * q.e, f_e), X_i = FN(decay_loss)(s * q.i, f_i);
        const double G = X_m * K[0], K_e = X_e * K[1] - k_e * K[0], K_i = X_i * K[2] - k_i * K[0];
        const double FF = (X_e + f_e * X_i) * per_ei;
        const double GG = X_m * (1.0 + g) * per_2a;
        const double GK_e = 0.5 * ((X_m + g * X_e) * per_ae) - g * k_e * per_2a;
        const double GK_i = 0.5 * ((X_m + g * X_i) * per_ai) - g * k_i * per_2a;
        const double FK_e = (0.5 * q.m * K[1] * (X_e * (1.0 + f_e)) - f_e * k_e) * per_ae;
        const double FK_i = (0.5 * q.m * K[2] * (X_i * (1.0 + f_i)) - f_i * k_i) * per_ai;
        const double cross = (q.m * FF - f_e * k_i) * per_ae + (q.m * FF - f_i * k_e) * per_ai;
        const double KK_e = FK_e - k_e * k_e * per_2a, KK_i = FK_i - k_i * k_i * per_2a;
        const double KK_ei = 0.5 * cross - k_e * k_i * per_2a;
        const double moved = u * G + (e * K_e + i * K_i);
        first[j] += reset * pinned + (b * s + moved);
        second[j] += reset * reset * pinned
                     + (b * (b * s + 2.0 * moved) + u * (u * GG + 2.0 * (e * GK_e + i * GK_i))
                        + (e * (e * KK_e) + i * (i * KK_i) + 2.0 * (e * i) * KK_ei));
    }
}

TARGET void FN(lif_advance)(const double *K, int64_t m, int64_t stride, const double *restrict h,
                            const double *restrict par, double *restrict x, double *restrict sums)
{
    const FN(LifRates) q = FN(lif_rates)(K);
    if (sums)
        FN(lif_integrate)(K, m, stride, h, par, x, sums);
    for (int64_t start = 0; start < m; start += FN(LIF_BLOCK)) {
        const int64_t n = m - start < FN(LIF_BLOCK) ? m - start : FN(LIF_BLOCK);
        double *v = x + start, *i_e = v + stride, *i_i = i_e + stride, *hold = i_i + stride;
        double left[FN(LIF_BLOCK)];
        const double *s = h + start;
        if (FN(lif_any_held)(n, hold)) {
            FN(lif_hold)(&q, K[3], n, s, v, i_e, i_i, hold, left);
            s = left;
        }
        FN(lif_move)(&q, n, s, par + start, v, i_e, i_i);
    }
}

/* v cannot rise faster than with the positive currents of now kept up: by (top - v) / tau_m, and slowing. */
TARGET void FN(lif_bound)(const double *K, int64_t m, int64_t stride, const double *restrict par,
                          double *restrict x, double *restrict wait)
{
    const double tau = K[0] * (1.0 - 1e-15), reset = K[3]; /* room for rounding */
    const double *restrict bias = par, *restrict threshold = par + stride;
    const double *restrict v = x, *restrict i_e = x + stride, *restrict i_i = x + 2 * stride;
    const double *restrict hold = x + 3 * stride;
    for (int64_t j = 0; j < m; j++) {
        const double e = i_e[j] > 0 ? i_e[j] : 0.0, i = i_i[j] > 0 ? i_i[j] : 0.0;
        const double now = hold[j] > 0 ? reset : v[j], top = bias[j] + (e + i);
        const double rise = threshold[j] - now;
        const double linear = rise * tau / (top - now);
        const double never = top <= threshold[j] ? INFINITY : linear;
        wait[j] = hold[j] + (rise > 0 ? never : 0.0);
    }
}

/* State of one item a time s after the release: v, i_e, i_i. */
static inline void FN(lif_after)(const FN(LifRates) *q, double bias, const double *from, double s, double *to)
{
    const double g = FN(exponential)(-s * q->m);
    const double f_e = FN(exponential)(-s * q->e), f_i = FN(exponential)(-s * q->i);
    const double k_e = q->m * FN(lif_response)(s, g, f_e, q->gap_e, q->per_gap_e);
    const double k_i = q->m * FN(lif_response)(s, g, f_i, q->gap_i, q->per_gap_i);
    to[0] = from[0] + ((bias - from[0]) * (1.0 - g) + (from[1] * k_e + from[2] * k_i));
    to[1] = from[1] * f_e;
    to[2] = from[2] * f_i;
}

#define LIF_DEGREE 16
#define LIF_STEPS 64

/* A step of Taylor's series: the longest whose remainder stays below 1e-14 of `scale`.  The n-th derivative of v
 * is at most |drive| times n a c^(n-1), c the faster of the two rates. */
static double FN(lif_step)(double a, double c, double drive, double scale)
{
    const double fast = c > a ? c : a;
    const double part = fabs(drive) / scale * (a / fast) * 3.0; /* three of them add up */
    return part > 1e-280 ? pow(1e-14 * 20922789888000.0 / part, 1.0 / (LIF_DEGREE + 1)) / fast : INFINITY;
}

/* Steps from certainty to certainty: over what `lif_bound`, with the logarithm instead of its first term, rules
 * out, then along Taylor's series of v. */
TARGET int32_t FN(lif_locate)(const double *K, const double *par, const double *x, double *when)
{
    const FN(LifRates) q = FN(lif_rates)(K);
    const double bias = par[0], threshold = par[1], hold = x[3];
    double from[3] = {x[0], x[1], x[2]}, at[3];
    if (hold > 0) {
        from[0] = K[3];
        from[1] *= FN(exponential)(-hold * q.e);
        from[2] *= FN(exponential)(-hold * q.i);
    }
    double t = 0.0; /* since the release */
    for (int32_t step = 0; step < LIF_STEPS; step++) {
        FN(lif_after)(&q, bias, from, t, at);
        if (at[0] >= threshold)
            break;
        double e = at[1] > 0 ? at[1] : 0.0, i = at[2] > 0 ? at[2] : 0.0;
        if (bias + (e + i) <= threshold) {
            *when = INFINITY;
            return 0;
        }
        const double rise = threshold - at[0];
        /* Where the top is over the threshold by no more than rounding the logarithm is -37 at least. */
        const double log_left = log1p(-rise / ((bias - at[0]) + (e + i)));
        const double jump = K[0] * (1.0 - 1e-14) * (log_left > -36.0 ? -log_left : 36.0);
        if (jump > 0) { /* it may be nothing to t */
            t += jump;
            FN(lif_after)(&q, bias, from, t, at);
            if (at[0] >= threshold)
                break;
            e = at[1] > 0 ? at[1] : 0.0;
            i = at[2] > 0 ? at[2] : 0.0;
            if (bias + (e + i) <= threshold) {
                *when = INFINITY;
                return 0;
            }
        }

        const double scale = fabs(bias) + fabs(threshold) + fabs(at[0]);
        double length = FN(lif_step)(q.m, q.m, at[0] - bias, scale);
        const double length_e = FN(lif_step)(q.m, q.e, at[1], scale);
        const double length_i = FN(lif_step)(q.m, q.i, at[2], scale);
        length = length_e < length ? length_e : length;
        length = length_i < length ? length_i : length;
        double coef[LIF_DEGREE + 1];
        e = at[1];
        i = at[2];
        double term = at[0], drive = bias;
        coef[0] = at[0] - threshold;
        for (int32_t k = 1; k <= LIF_DEGREE; k++) {
            const double per_k = 1.0 / k;
            coef[k] = term = q.m * ((drive - term) + (e + i)) * per_k;
            e *= -q.e * per_k;
            i *= -q.i * per_k;
            drive = 0.0;
        }
        double found;
        if (FN(first_crossing)(LIF_DEGREE, coef, length, &found)) {
            /* To the last bits of the closed form; where v only just gets there, noise must not lead away. */
            const double low = t, high = t + length;
            t += found;
            for (int32_t round = 0; round < 3; round++) {
                FN(lif_after)(&q, bias, from, t, at);
                const double move = (threshold - at[0]) / (q.m * ((bias - at[0]) + (at[1] + at[2])));
                if (!(fabs(move) <= 1e-6 * length && t + move >= low && t + move <= high))
                    break;
                t += move;
            }
            *when = hold + t;
            return 1;
        }
        t += length;
        if (step == LIF_STEPS - 1) {
            *when = hold + t;
            return 0;
        }
    }
    *when = hold + t; /* there already, or so near that the way to there is rounding */
    return 1;
}

TARGET double FN(lif_fire)(const double *K, const double *par, double *x)
{
    (void)par;
    x[0] = K[3];
    x[3] = K[4];
    return 1.0;
}

TARGET void FN(lif_rate)(const double *K, int64_t m, int64_t stride, const double *restrict par,
                         const double *restrict x, double *restrict f)
{
    const FN(LifRates) q = FN(lif_rates)(K);
    for (int64_t j = 0; j < m; j++) {
        const double e = x[stride + j], i = x[2 * stride + j], hold = x[3 * stride + j];
        f[j] = hold > 0 ? 0.0 : q.m * ((par[j] - x[j]) + (e + i));
        f[stride + j] = -q.e * e;
        f[2 * stride + j] = -q.i * i;
        f[3 * stride + j] = hold > 0 ? -1.0 : 0.0;
    }
}

/* Gradients of one item: at the state at the release, at the bias and at the time constants. */
typedef struct {
    double v, e, i, bias, tau_m, tau_e, tau_i;
} FN(LifGradient);

/* Adds what a gradient (at_v, at_e, at_i) a time s after the release makes of it; u = v - bias, e and i are those
 * of the release.  With P = k / a, the integral of exp(-a (s - r) - c r), and Q, the same with r under it:
 * dk/dc = -a Q, dk/da = P - a (s P - Q). */
static inline void FN(lif_pull)(const FN(LifRates) *q, double s, double u, double e, double i, double g,
                                double f_e, double f_i, double at_v, double at_e, double at_i,
                                FN(LifGradient) *d)
{
    const double a = q->m, y_e = q->gap_e * s, y_i = q->gap_i * s;
    const double P_e = FN(lif_response)(s, g, f_e, q->gap_e, q->per_gap_e);
    const double P_i = FN(lif_response)(s, g, f_i, q->gap_i, q->per_gap_i);
    const double near_e = s * s * g * FN(decay_moment)(y_e), near_i = s * s * g * FN(decay_moment)(y_i);
    const double far_e = (P_e - s * f_e) * q->per_gap_e, far_i = (P_i - s * f_i) * q->per_gap_i;
    const double Q_e = fabs(y_e) < 0.5 ? near_e : far_e, Q_i = fabs(y_i) < 0.5 ? near_i : far_i;
    const double by_a = (e * (P_e - a * (s * P_e - Q_e)) + i * (P_i - a * (s * P_i - Q_i))) - u * (g * s);
    d->v += at_v * g;
    d->e += at_e * f_e + at_v * (a * P_e);
    d->i += at_i * f_i + at_v * (a * P_i);
    d->bias += at_v * FN(decay_loss)(s * a, g);
    d->tau_m -= a * a * (at_v * by_a);
    d->tau_e += q->e * q->e * e * (at_e * (f_e * s) + at_v * (a * Q_e));
    d->tau_i += q->i * q->i * i * (at_i * (f_i * s) + at_v * (a * Q_i));
}

/* Adds the gradient of first * integral of v + second * integral of v^2 over a time s from the release: by
 * Gauss's rule of order 16 on pieces no longer than the shortest time constant, where it is exact to rounding. */
static void FN(lif_pull_sums)(const FN(LifRates) *rates, double s, double bias, double u, double e, double i,
                              double first, double second, FN(LifGradient) *d)
{
    static const double place[8] = {-0.96028985649753623168, -0.79666647741362673959, -0.52553240991632898582,
                                    -0.18343464249564980494, 0.18343464249564980494,  0.52553240991632898582,
                                    0.79666647741362673959,  0.96028985649753623168};
    static const double weight[8] = {0.10122853629037625915, 0.22238103445337447054, 0.31370664587788728734,
                                     0.36268378337836198297, 0.36268378337836198297, 0.31370664587788728734,
                                     0.22238103445337447054, 0.10122853629037625915};
    const FN(LifRates) q = *rates;
    const double fastest = q.e > q.i ? (q.e > q.m ? q.e : q.m) : (q.i > q.m ? q.i : q.m);
    const int64_t pieces = (int64_t)(s * fastest) + 1;
    const double half = 0.5 * s / (double)pieces;
    for (int64_t piece = 0; piece < pieces; piece++) {
        const double middle = half * (double)(2 * piece + 1);
        double part[7][8];
        for (int32_t node = 0; node < 8; node++) {
            const double r = middle + half * place[node];
            const double g = FN(exponential)(-r * q.m);
            const double f_e = FN(exponential)(-r * q.e), f_i = FN(exponential)(-r * q.i);
            const double k_e = q.m * FN(lif_response)(r, g, f_e, q.gap_e, q.per_gap_e);
            const double k_i = q.m * FN(lif_response)(r, g, f_i, q.gap_i, q.per_gap_i);
            const double v = bias + (u * g + (e * k_e + i * k_i));
            const double at_v = half * weight[node] * (first + 2.0 * second * v);
            FN(LifGradient) at = {0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0};
            FN(lif_pull)(&q, r, u, e, i, g, f_e, f_i, at_v, 0.0, 0.0, &at);
            part[0][node] = at.v;
            part[1][node] = at.e;
            part[2][node] = at.i;
            part[3][node] = at.bias;
            part[4][node] = at.tau_m;
            part[5][node] = at.tau_e;
            part[6][node] = at.tau_i;
        }
        for (int32_t node = 0; node < 8; node++) {
            d->v += part[0][node];
            d->e += part[1][node];
            d->i += part[2][node];
            d->bias += part[3][node];
            d->tau_m += part[4][node];
            d->tau_e += part[5][node];
            d->tau_i += part[6][node];
        }
    }
}

/* From a time s after the release, the end, back to it: x and lam likewise. */
static void FN(lif_move_back)(const FN(LifRates) *rates, double reset, int64_t m, const double *restrict s,
                              const double *restrict bias, double *restrict v, double *restrict i_e,
                              double *restrict i_i, const double *restrict hold, double *restrict lam_v,
                              double *restrict lam_e, double *restrict lam_i, double *restrict dbias,
                              double *restrict dK)
{
    const FN(LifRates) q = *rates;
    double by_m[FN(LIF_BLOCK)], by_e[FN(LIF_BLOCK)], by_i[FN(LIF_BLOCK)];
    for (int64_t j = 0; j < m; j++) {
        const double g = FN(exponential)(-s[j] * q.m);
        const double f_e = FN(exponential)(-s[j] * q.e), f_i = FN(exponential)(-s[j] * q.i);
        const double k_e = q.m * FN(lif_response)(s[j], g, f_e, q.gap_e, q.per_gap_e);
        const double k_i = q.m * FN(lif_response)(s[j], g, f_i, q.gap_i, q.per_gap_i);
        const double e = i_e[j] / f_e, i = i_i[j] / f_i;
        const double back = ((v[j] - bias[j]) - (e * k_e + i * k_i)) / g;
        const double u = hold[j] > 0 ? reset - bias[j] : back;
        FN(LifGradient) d = {0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0};
        FN(lif_pull)(&q, s[j], u, e, i, g, f_e, f_i, lam_v[j], lam_e[j], lam_i[j], &d);
        const double before = s[j] > 0 ? bias[j] + u : v[j];
        v[j] = hold[j] > 0 ? reset : before;
        i_e[j] = e;
        i_i[j] = i;
        lam_v[j] = d.v;
        lam_e[j] = d.e;
        lam_i[j] = d.i;
        dbias[j] += d.bias;
        by_m[j] = d.tau_m;
        by_e[j] = d.tau_e;
        by_i[j] = d.tau_i;
    }
    for (int64_t j = 0; j < m; j++) {
        dK[0] += by_m[j];
        dK[1] += by_e[j];
        dK[2] += by_i[j];
    }
}

/* From the release back to the start: v is pinned, the currents go on. */
static void FN(lif_hold_back)(const FN(LifRates) *q, double reset, int64_t m, const double *restrict h,
                              const double *restrict bias, double *restrict i_e, double *restrict i_i,
                              const double *restrict hold, double *restrict lam_v, double *restrict lam_e,
                              double *restrict lam_i, double *restrict lam_hold, double *restrict dK)
{
    const double rate_m = q->m, rate_e = q->e, rate_i = q->i;
    double d_tau_e = 0.0, d_tau_i = 0.0, d_reset = 0.0;
    for (int64_t j = 0; j < m; j++) {
        const double wait = hold[j], pinned = wait < h[j] ? wait : h[j];
        const double was_held = wait > 0 ? 1.0 : 0.0, at_v = was_held * lam_v[j];
        const double slope = rate_m * ((bias[j] - reset) + (i_e[j] + i_i[j]));
        const double later = -at_v * slope, kept = lam_hold[j];
        const double f_e = FN(exponential)(-pinned * rate_e), f_i = FN(exponential)(-pinned * rate_i);
        lam_hold[j] = (wait > h[j]) | (h[j] == 0) ? kept : later; /* it may end with the interval */
        d_reset += at_v;
        lam_v[j] -= at_v;
        d_tau_e += pinned * (i_e[j] * lam_e[j]);
        d_tau_i += pinned * (i_i[j] * lam_i[j]);
        i_e[j] /= f_e;
        i_i[j] /= f_i;
        lam_e[j] *= f_e;
        lam_i[j] *= f_i;
    }
    dK[1] += rate_e * rate_e * d_tau_e;
    dK[2] += rate_i * rate_i * d_tau_i;
    dK[3] += d_reset;
}

/* x: at the end to at the start, but hold, which is that of the start all along; lam likewise, hold's too. */
TARGET void FN(lif_retreat)(const double *K, int64_t m, int64_t stride, const double *restrict h,
                            const double *restrict par, double *restrict x, double *restrict lam,
                            const double *restrict dsums, double *restrict dpar, double *restrict dK)
{
    const FN(LifRates) q = FN(lif_rates)(K);
    const double reset = K[3];
    for (int64_t start = 0; start < m; start += FN(LIF_BLOCK)) {
        const int64_t n = m - start < FN(LIF_BLOCK) ? m - start : FN(LIF_BLOCK);
        double *v = x + start, *i_e = v + stride, *i_i = i_e + stride, *hold = i_i + stride;
        double left[FN(LIF_BLOCK)];
        double *lam_v = lam + start, *lam_e = lam_v + stride, *lam_i = lam_e + stride;
        double *lam_hold = lam_i + stride;
        const double *s = h + start, *bias = par + start;
        const int32_t held = FN(lif_any_held)(n, hold);
        if (held) {
            for (int64_t j = 0; j < n; j++)
                left[j] = hold[j] < s[j] ? s[j] - hold[j] : 0.0;
            s = left;
        }
        FN(lif_move_back)(&q, reset, n, s, bias, v, i_e, i_i, hold, lam_v, lam_e, lam_i, dpar + start, dK);
        if (dsums)
            for (int64_t j = 0; j < n; j++) {
                const double first = dsums[start + j], second = dsums[stride + start + j];
                FN(LifGradient) d = {lam_v[j], lam_e[j], lam_i[j], dpar[start + j], 0.0, 0.0, 0.0};
                if (first == 0 && second == 0)
                    continue;
                if (s[j] > 0)
                    FN(lif_pull_sums)(&q, s[j], bias[j], v[j] - bias[j], i_e[j], i_i[j], first, second, &d);
                lam_v[j] = d.v;
                lam_e[j] = d.e;
                lam_i[j] = d.i;
                dpar[start + j] = d.bias;
                dK[0] += d.tau_m;
                dK[1] += d.tau_e;
                dK[2] += d.tau_i;
                dK[3] += (h[start + j] - s[j]) * (first + 2.0 * second * reset);
            }
        if (held)
            FN(lif_hold_back)(&q, reset, n, h + start, bias, i_e, i_i, hold, lam_v, lam_e, lam_i, lam_hold,
                              dK);
        else
            for (int64_t j = 0; j < n; j++)
                lam_hold[j] = h[start + j] > 0 ? 0.0 : lam_hold[j];
    }
}
