/* WIDTH doubles at a time, and the gate functions on them; the arithmetic of gates.h, so the same bits.
 *
 * A path has vectors of four, or of eight if it defines WIDTH.  What is decided for several items at once is
 * decided for the eight of a GROUP, so that it is the same on all paths.
 */

#ifndef WIDTH
#define WIDTH 4
#endif
#define GROUP 8
#define PARTS (GROUP / WIDTH)

typedef double FN(Vec) __attribute__((vector_size(8 * WIDTH), may_alias));
typedef int64_t FN(Bits) __attribute__((vector_size(8 * WIDTH), may_alias));
typedef double FN(Anywhere) __attribute__((vector_size(8 * WIDTH), aligned(8), may_alias));
#define VEC FN(Vec)
#define BITS FN(Bits)
#define INLINE static inline __attribute__((always_inline))

INLINE VEC FN(splat)(double x)
{
#if WIDTH == 8
    return (VEC){x, x, x, x, x, x, x, x};
#else
    return (VEC){x, x, x, x};
#endif
}

/* a where the mask is set, else b */
INLINE VEC FN(choose)(BITS mask, VEC a, VEC b)
{
    return (VEC)(((BITS)a & mask) | ((BITS)b & ~mask));
}

/* a > b ? a : b, and a < b ? a : b; the instructions give b too where one is no number. */
INLINE VEC FN(larger)(VEC a, VEC b)
{
#if WIDTH == 8
    return (VEC)_mm512_max_pd((__m512d)a, (__m512d)b);
#elif defined(AVX2)
    return (VEC)_mm256_max_pd((__m256d)a, (__m256d)b);
#else
    return FN(choose)((BITS)(a > b), a, b);
#endif
}

INLINE VEC FN(smaller)(VEC a, VEC b)
{
#if WIDTH == 8
    return (VEC)_mm512_min_pd((__m512d)a, (__m512d)b);
#elif defined(AVX2)
    return (VEC)_mm256_min_pd((__m256d)a, (__m256d)b);
#else
    return FN(choose)((BITS)(a < b), a, b);
#endif
}

INLINE VEC FN(absolute)(VEC a)
{
    return (VEC)((BITS)a & 0x7fffffffffffffffLL);
}

/* Whether all of a are those of b. */
INLINE int FN(same)(VEC a, VEC b)
{
#if WIDTH == 8
    return _mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_NEQ_UQ) == 0;
#elif defined(AVX2)
    return _mm256_movemask_pd(_mm256_cmp_pd((__m256d)a, (__m256d)b, _CMP_NEQ_UQ)) == 0;
#else
    const BITS other = (BITS)(a != b);
    return (other[0] | other[1] | other[2] | other[3]) == 0;
#endif
}

/* Whether any of a is larger than q, or no number. */
INLINE int FN(beyond)(VEC a, double q)
{
#if WIDTH == 8
    return _mm512_cmp_pd_mask((__m512d)a, _mm512_set1_pd(q), _CMP_NLE_UQ) != 0;
#elif defined(AVX2)
    return _mm256_movemask_pd(_mm256_cmp_pd((__m256d)a, _mm256_set1_pd(q), _CMP_NLE_UQ)) != 0;
#else
    const BITS within = (BITS)(a <= q);
    return (within[0] & within[1] & within[2] & within[3]) == 0;
#endif
}

/* Which of a are x: a bit for each, that of the first one lowest. */
INLINE unsigned FN(equal)(VEC a, double x)
{
#if WIDTH == 8
    return _mm512_cmp_pd_mask((__m512d)a, _mm512_set1_pd(x), _CMP_EQ_OQ);
#elif defined(AVX2)
    return (unsigned)_mm256_movemask_pd(_mm256_cmp_pd((__m256d)a, _mm256_set1_pd(x), _CMP_EQ_OQ));
#else
    const BITS equal = (BITS)(a == x) & (BITS){1, 2, 4, 8};
    return (unsigned)(equal[0] | equal[1] | equal[2] | equal[3]);
#endif
}

INLINE double FN(lowest)(VEC a)
{
#if WIDTH == 8
    return _mm512_reduce_min_pd((__m512d)a);
#else
    double b[WIDTH];
    memcpy(b, &a, sizeof b);
    for (int k = WIDTH / 2; k > 0; k /= 2)
        for (int j = 0; j < k; j++)
            b[j] = b[j + k] < b[j] ? b[j + k] : b[j];
    return b[0];
#endif
}

/* Of the items of a group. */
INLINE double FN(largest)(const VEC *a)
{
#if PARTS == 2
    const VEC b = FN(larger)(a[0], a[1]);
#else
    const VEC whole = a[0];
    double b[4];
    for (int k = 0; k < 4; k++)
        b[k] = whole[k] > whole[k + 4] ? whole[k] : whole[k + 4];
#endif
    const double x = b[0] > b[1] ? b[0] : b[1], y = b[2] > b[3] ? b[2] : b[3];
    return x > y ? x : y;
}

INLINE double FN(total)(const VEC *a)
{
    double b[GROUP];
    memcpy(b, a, sizeof b);
    return ((b[0] + b[1]) + (b[2] + b[3])) + ((b[4] + b[5]) + (b[6] + b[7]));
}

INLINE VEC FN(vec_exponential)(VEC x)
{
    x = FN(larger)(x, FN(splat)(-700.0));
    x = FN(smaller)(x, FN(splat)(700.0));
    const VEC shifted = x * 1.4426950408889634074 + 6755399441055744.0;
    const VEC k = shifted - 6755399441055744.0;
    const VEC r = (x - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10;
    VEC p = FN(splat)(1.0 / 6227020800.0);
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
    const BITS bits = ((BITS)shifted << 52) + 0x3ff0000000000000LL;
    return p * (VEC)bits;
}

/* exp(x) = *up / *down, without the division: Pade's approximant [6/6] of exp(r), |r| <= ln(2)/2, whose error
 * is 2e-19.  |x| is cut off at 340, so that products of two of these numbers are finite. */
INLINE void FN(exponential_ratio)(VEC x, VEC *up, VEC *down)
{
    x = FN(larger)(x, FN(splat)(-340.0));
    x = FN(smaller)(x, FN(splat)(340.0));
    const VEC shifted = x * 1.4426950408889634074 + 6755399441055744.0;
    const VEC k = shifted - 6755399441055744.0;
    const VEC r = (x - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10;
    const VEC square = r * r;
    const VEC even = ((square * (1.0 / 665280.0) + 1.0 / 792.0) * square + 5.0 / 44.0) * square + 1.0;
    const VEC odd = ((square * (1.0 / 15840.0) + 1.0 / 66.0) * square + 0.5) * r;
    const BITS bits = ((BITS)shifted << 52) + 0x3ff0000000000000LL;
    *up = (even + odd) * (VEC)bits;
    *down = even - odd;
}

INLINE VEC FN(vec_logistic)(VEC x)
{
    VEC up, down;
    FN(exponential_ratio)(-x, &up, &down);
    return down / (down + up);
}

/* The logistic function of x and tanh of y, with one division. */
INLINE void FN(vec_gates)(VEC x, VEC y, VEC *logistic, VEC *tangent)
{
    VEC up_x, down_x, up_y, down_y;
    FN(exponential_ratio)(-x, &up_x, &down_x);
    FN(exponential_ratio)(y + y, &up_y, &down_y);
    const VEC under_x = down_x + up_x, under_y = down_y + up_y, inverse = 1.0 / (under_x * under_y);
    *logistic = down_x * under_y * inverse;
    *tangent = (up_y - down_y) * under_x * inverse;
}

/* Items of an array; those that hold items have room for whole groups. */
INLINE VEC FN(load)(const double *array, int64_t i)
{
    return *(const FN(Anywhere) *)(array + i);
}

INLINE void FN(store)(double *array, int64_t i, VEC value)
{
    *(FN(Anywhere) *)(array + i) = value;
}

INLINE void FN(fill)(double *array, double value)
{
    for (int i = 0; i < GROUP; i++)
        array[i] = value;
}
