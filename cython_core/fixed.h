/* Delta units in fixed point: what delta.h does, rounded where evsim/fixed_point.py says.
 *
 * Template, see kernel_table.c.  Everything is a whole multiple of a power of two, so but for FN(steps) nothing
 * here is ever rounded: the sums and products are exact.
 */

#if REAL_IS_FLOAT
#define MAGIC 12582912.0f /* 1.5 * 2^23: what is added to it is rounded to a whole number, halves to even */
#else
#define MAGIC 6755399441055744.0 /* 1.5 * 2^52 */
#endif

/* The nearest activation, in steps. */
static inline REAL FN(steps)(FixedFormat f, REAL x)
{
    REAL s = x * (REAL)f.scale;
    s = s < (REAL)f.low ? (REAL)f.low : s;
    s = s > (REAL)f.high ? (REAL)f.high : s;
    return (s + MAGIC) - MAGIC;
}

#undef MAGIC

/* A function's table at the activation nearest to x. */
static inline REAL FN(look_up)(FixedFormat f, const double *table, double reach, REAL x)
{
    REAL s = FN(steps)(f, x);
    s = s < -(REAL)reach ? -(REAL)reach : s;
    s = s > (REAL)reach ? (REAL)reach : s;
    return (REAL)table[(int32_t)s];
}

static inline REAL FN(logistic_fixed)(FixedFormat f, REAL x)
{
    return FN(look_up)(f, f.logistic, f.logistic_reach, x);
}

static inline REAL FN(hyperbolic_tangent_fixed)(FixedFormat f, REAL x)
{
    return FN(look_up)(f, f.hyperbolic_tangent, f.hyperbolic_tangent_reach, x);
}

/* Where a payload is cut to the format, the rest stays between `line` and `sent`, and goes out later. */
TARGET int32_t FN(send_changes_fixed)(int64_t n, const FixedFormat *format, const REAL *restrict line,
                                      const REAL *restrict threshold, REAL *restrict sent,
                                      int32_t *restrict unit, REAL *restrict value)
{
    const FixedFormat f = *format;
    const REAL low = (REAL)(f.low * f.step), high = (REAL)(f.high * f.step);
    int32_t count = 0;
    for (int64_t i = 0; i < n; i++) {
        REAL d = FN(steps)(f, line[i]) * (REAL)f.step - sent[i];
        d = d < low ? low : d;
        d = d > high ? high : d;
        const int moved = ((d < 0 ? -d : d) >= threshold[i]) & (d != 0);
        unit[count] = (int32_t)i;
        value[count] = d;
        sent[i] += moved ? d : (REAL)0;
        count += moved;
    }
    return count;
}

TARGET void FN(delta_gru_fixed_advance)(
    int64_t n, const FixedFormat *format, const REAL *restrict bias, const REAL *restrict m, /* IN */
    REAL *restrict h,                                                                        /* IN and OUT */
    REAL *restrict tape)                                                                     /* OUT */
{
    const FixedFormat f = *format;
    REAL *restrict r = tape, *restrict z = tape + n, *restrict c = tape + 2 * n;
    REAL *restrict q = tape + 3 * n, *restrict out = tape + 4 * n;
    for (int64_t i = 0; i < n; i++) {
        r[i] = FN(logistic_fixed)(f, m[i] + bias[i]);
        z[i] = FN(logistic_fixed)(f, m[n + i] + bias[n + i]);
    }
    for (int64_t i = 0; i < n; i++) {
        q[i] = FN(steps)(f, m[3 * n + i] + bias[3 * n + i]) * (REAL)f.step;
        c[i] = FN(hyperbolic_tangent_fixed)(f, (m[2 * n + i] + bias[2 * n + i]) + r[i] * q[i]);
        out[i] = h[i] = FN(steps)(f, ((REAL)1 - z[i]) * c[i] + z[i] * h[i]) * (REAL)f.step;
    }
}

TARGET void FN(delta_lstm_fixed_advance)(
    int64_t n, const FixedFormat *format, const REAL *restrict bias, const REAL *restrict m, /* IN */
    REAL *restrict c,                                                                        /* IN and OUT */
    REAL *restrict h, REAL *restrict tape)                                                   /* OUT */
{
    const FixedFormat k = *format;
    REAL *restrict in = tape, *restrict f = tape + n, *restrict g = tape + 2 * n, *restrict o = tape + 3 * n;
    REAL *restrict cell = tape + 4 * n, *restrict out = tape + 5 * n;
    for (int64_t i = 0; i < n; i++) {
        in[i] = FN(logistic_fixed)(k, m[i] + bias[i]);
        f[i] = FN(logistic_fixed)(k, m[n + i] + bias[n + i]);
    }
    for (int64_t i = 0; i < n; i++) {
        g[i] = FN(hyperbolic_tangent_fixed)(k, m[2 * n + i] + bias[2 * n + i]);
        o[i] = FN(logistic_fixed)(k, m[3 * n + i] + bias[3 * n + i]);
    }
    for (int64_t i = 0; i < n; i++) {
        cell[i] = c[i] = FN(steps)(k, f[i] * c[i] + in[i] * g[i]) * (REAL)k.step;
        out[i] = h[i] = FN(steps)(k, o[i] * FN(hyperbolic_tangent_fixed)(k, c[i])) * (REAL)k.step;
    }
}
