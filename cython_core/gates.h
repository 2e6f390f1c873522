/* exp, the logistic function and tanh for one REAL, as plain arithmetic that a compiler can vectorise.
 *
 * Template: included once per instruction set and REAL (float or double) by kernel_table.c.  No libm call and
 * no contraction to fused multiply-add, so that every path gives the same bits.
 *
 * exp(x) = 2^k exp(r), |r| <= ln(2)/2, with the Taylor polynomial of exp(r).  Truncation is below half a unit
 * in the last place (degree 7: 5e-9; degree 13: 5e-18); the tests measure the whole error: 2 ulp in double, 3
 * in float.
 */

#if REAL_IS_FLOAT

static inline REAL FN(exponential)(REAL x)
{
    x = x < -80.0f ? -80.0f : x;
    x = x > 80.0f ? 80.0f : x;
    /* Adding 1.5 * 2^23 rounds to an integer and leaves that integer in the low bits. */
    const float shifted = x * 1.44269504088896341f + 12582912.0f;
    const float k = shifted - 12582912.0f;
    const float r = (x - k * 0.693359375f) + k * 2.12194440e-4f; /* ln(2) in two parts */
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    int32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (int32_t)((uint32_t)bits << 23) + 0x3f800000; /* 2^k: all but the low bits are shifted out */
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

#else

static inline REAL FN(exponential)(REAL x)
{
    x = x < -700.0 ? -700.0 : x;
    x = x > 700.0 ? 700.0 : x;
    const double shifted = x * 1.4426950408889634074 + 6755399441055744.0;
    const double k = shifted - 6755399441055744.0;
    const double r = (x - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10;
    double p = 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    int64_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (int64_t)((uint64_t)bits << 52) + 0x3ff0000000000000LL;
    double scale;
    memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

#endif

static inline REAL FN(logistic)(REAL x)
{
    return (REAL)1 / ((REAL)1 + FN(exponential)(-x));
}

/* Absolute error of one rounding; relative error near 0 is larger, which a state of size 1 does not see. */
static inline REAL FN(hyperbolic_tangent)(REAL x)
{
    return (REAL)1 - (REAL)2 / (FN(exponential)(x + x) + (REAL)1);
}

/* Both functions over an array, for the tests. */
TARGET void FN(evaluate_gates)(int64_t n, const REAL *restrict x, REAL *restrict s, REAL *restrict t)
{
    for (int64_t i = 0; i < n; i++) {
        s[i] = FN(logistic)(x[i]);
        t[i] = FN(hyperbolic_tangent)(x[i]);
    }
}
