/* Weight rows in bfloat16 or int8, for inference: add scaled rows to a vector.
 *
 * Template, see kernel_table.c.  Weights become REAL again before they are multiplied; sums run in the order
 * of the events.  So the bits do not depend on the instruction set.
 *
 * Rows are whole strips of sixteen 32-bit words, of 32 columns (bfloat16) or 64 columns (int8), the last one
 * filled up with zeros.  Field k of word j, counted from the low end, is column 16 k + j of its strip.  So
 * a shift or a mask brings a weight to the top of its lane, and no byte has to change lanes.  (Of columns
 * in their natural order the compiler makes shuffles that take longer than the sums.)
 */

#define INLINE static inline __attribute__((always_inline))

typedef int32_t FN(Words) __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));
typedef float FN(Floats) __attribute__((vector_size(VECTOR_BYTES)));
typedef REAL FN(Wide)
    __attribute__((vector_size(VECTOR_BYTES / 4 * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));

#define TOP16 ((int32_t)0xffff0000)
#define TOP8 ((int32_t)0xff000000)
#define WORDS 16
#define PART (VECTOR_BYTES / 4) /* words of a strip that are taken at once */
#define BF16_COLUMNS 32
#define INT8_COLUMNS 64

/* Ask for the first 256 bytes of rows that come next; the rest of a row follows by itself. */
INLINE void FN(ask_for_rows)(int64_t n, const int32_t *unit, const uint32_t *rows, int64_t stride)
{
    for (int64_t r = 0; r < n; r++)
        for (int line = 0; line < 256; line += 64)
            __builtin_prefetch((const char *)(rows + unit[r] * stride) + line);
}

/* One strip of n rows, from that word on. */
INLINE void FN(add_bf16_strip)(
    const int n, const uint32_t *const *row, int64_t word, const REAL *factor, REAL *target)
{
    for (int part = 0; part < WORDS; part += PART) {
        FN(Wide) *const t0 = (FN(Wide) *)(target + part), *const t1 = (FN(Wide) *)(target + WORDS + part);
        FN(Wide) sum0 = *t0, sum1 = *t1;
#pragma GCC unroll 8
        for (int r = 0; r < n; r++) {
            const FN(Words) x = *(const FN(Words) *)(row[r] + word + part);
            sum0 += factor[r] * __builtin_convertvector((FN(Floats))(x << 16), FN(Wide));
            sum1 += factor[r] * __builtin_convertvector((FN(Floats))(x & TOP16), FN(Wide));
        }
        *t0 = sum0;
        *t1 = sum1;
    }
}

/* The same; the integers are 2^24 times the weights, the factors 2^-24 times what they should be. */
INLINE void FN(add_int8_strip)(
    const int n, const uint32_t *const *row, int64_t word, const REAL *factor, REAL *target)
{
    for (int part = 0; part < WORDS; part += PART) {
        FN(Wide) *const t0 = (FN(Wide) *)(target + part), *const t1 = (FN(Wide) *)(target + WORDS + part);
        FN(Wide) *const t2 = (FN(Wide) *)(target + 2 * WORDS + part);
        FN(Wide) *const t3 = (FN(Wide) *)(target + 3 * WORDS + part);
        FN(Wide) sum0 = *t0, sum1 = *t1, sum2 = *t2, sum3 = *t3;
#pragma GCC unroll 8
        for (int r = 0; r < n; r++) {
            const FN(Words) x = *(const FN(Words) *)(row[r] + word + part);
            sum0 += factor[r] * __builtin_convertvector(x << 24, FN(Wide));
            sum1 += factor[r] * __builtin_convertvector((x << 16) & TOP8, FN(Wide));
            sum2 += factor[r] * __builtin_convertvector((x << 8) & TOP8, FN(Wide));
            sum3 += factor[r] * __builtin_convertvector(x & TOP8, FN(Wide));
        }
        *t0 = sum0;
        *t1 = sum1;
        *t2 = sum2;
        *t3 = sum3;
    }
}

/* All strips of n rows; the last one by way of a copy if it is not full. */
#define ALL_STRIPS(add_strip, COLUMNS)                                                                       \
    const uint32_t *row[8];                                                                                  \
    REAL last[COLUMNS] = {0};                                                                                \
    int64_t i = 0;                                                                                           \
    for (int r = 0; r < n; r++)                                                                              \
        row[r] = rows + unit[r] * stride;                                                                    \
    for (; i + COLUMNS <= length; i += COLUMNS)                                                              \
        add_strip(n, row, i / (COLUMNS / WORDS), factor, target + i);                                        \
    if (i < length) {                                                                                        \
        memcpy(last, target + i, (length - i) * sizeof(REAL));                                               \
        add_strip(n, row, i / (COLUMNS / WORDS), factor, last);                                              \
        memcpy(target + i, last, (length - i) * sizeof(REAL));                                               \
    }

INLINE void FN(add_bf16)(
    const int n, const int32_t *unit, const REAL *factor, const uint32_t *restrict rows, int64_t stride,
    int64_t length, REAL *restrict target)
{
    ALL_STRIPS(FN(add_bf16_strip), BF16_COLUMNS)
}

INLINE void FN(add_int8)(
    const int n, const int32_t *unit, const REAL *factor, const uint32_t *restrict rows, int64_t stride,
    int64_t length, REAL *restrict target)
{
    ALL_STRIPS(FN(add_int8_strip), INT8_COLUMNS)
}

/* target[0:length] += sum_e value[e] * row of unit[e]; a row takes `stride` words. */
TARGET void FN(add_bf16_rows)(
    int64_t n_events, const int32_t *restrict unit, const REAL *restrict value,
    const uint32_t *restrict rows, int64_t stride, int64_t length, REAL *restrict target)
{
    int64_t e = 0;
    for (; e + 8 <= n_events; e += 8) {
        const int64_t more = n_events - e - 8;
        FN(ask_for_rows)(more < 8 ? more : 8, unit + e + 8, rows, stride);
        FN(add_bf16)(8, unit + e, value + e, rows, stride, length, target);
    }
    for (; e < n_events; e++)
        FN(add_bf16)(1, unit + e, value + e, rows, stride, length, target);
}

/* target[0:length] += sum_e (value[e] * scale[unit[e]]) * row of unit[e] */
TARGET void FN(add_int8_rows)(
    int64_t n_events, const int32_t *restrict unit, const REAL *restrict value, const REAL *restrict scale,
    const uint32_t *restrict rows, int64_t stride, int64_t length, REAL *restrict target)
{
    int64_t e = 0;
    REAL factor[4];
    for (; e + 4 <= n_events; e += 4) {
        const int64_t more = n_events - e - 4;
        FN(ask_for_rows)(more < 4 ? more : 4, unit + e + 4, rows, stride);
        for (int r = 0; r < 4; r++)
            factor[r] = value[e + r] * scale[unit[e + r]] * (REAL)0x1p-24;
        FN(add_int8)(4, unit + e, factor, rows, stride, length, target);
    }
    for (; e < n_events; e++) {
        factor[0] = value[e] * scale[unit[e]] * (REAL)0x1p-24;
        FN(add_int8)(1, unit + e, factor, rows, stride, length, target);
    }
}

#undef INLINE
#undef TOP16
#undef TOP8
#undef WORDS
#undef PART
#undef BF16_COLUMNS
#undef INT8_COLUMNS
#undef ALL_STRIPS
