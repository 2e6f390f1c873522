/* Weight rows in bfloat16 or int8, for inference: add scaled rows to a vector.
 *
 * Template, see kernel_table.c.  Rows are whole strips of sixteen 32-bit words, of 32 columns (bfloat16) or
 * 64 columns (int8), the last one filled up with zeros.  Columns are so placed that no byte has to change
 * lanes: of columns in their natural order the compiler makes shuffles that take longer than the sums.
 *
 * bfloat16: field k of word j, counted from the low end, is column 16 k + j of its strip, so that a shift or
 * a mask makes it a float.  Sums are of REAL, in the order of the events.
 *
 * int8: sums are of integers, see `add_int8_rows`.  16-bit word i of the lower (upper) eight bytes of each
 * sixteen, k, holds column 4 k + i (32 + 4 k + i) of its strip in the low byte, as w + 128 without a sign,
 * and in the high byte the column 16 further on.  So it is 256 w' + w + 128, and a shift leaves w'.
 */

#define INLINE static inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))

typedef int32_t FN(Words) __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));
typedef float FN(Floats) __attribute__((vector_size(VECTOR_BYTES)));
typedef REAL FN(Wide)
    __attribute__((vector_size(VECTOR_BYTES / 4 * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));

#define TOP16 ((int32_t)0xffff0000)
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

/* All strips of n rows; the last one by way of a copy if it is not full. */
INLINE void FN(add_bf16)(
    const int n, const int32_t *unit, const REAL *factor, const uint32_t *restrict rows, int64_t stride,
    int64_t length, REAL *restrict target)
{
    const uint32_t *row[8];
    REAL last[BF16_COLUMNS] = {0};
    int64_t i = 0;
    for (int r = 0; r < n; r++)
        row[r] = rows + unit[r] * stride;
    for (; i + BF16_COLUMNS <= length; i += BF16_COLUMNS)
        FN(add_bf16_strip)(n, row, i / (BF16_COLUMNS / WORDS), factor, target + i);
    if (i < length) {
        memcpy(last, target + i, (length - i) * sizeof(REAL));
        FN(add_bf16_strip)(n, row, i / (BF16_COLUMNS / WORDS), factor, last);
        memcpy(target + i, last, (length - i) * sizeof(REAL));
    }
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

#define BLOCK 1024 /* events that are added together: so many products of 2^14 and 127 stay below 2^31 */
#define PIECE 3072 /* columns whose sums stay in the first-level cache: 24 kB */
#define PAIRS 10   /* of rows in a pass: with fewer, sums are stored too often; more are not read ahead */

/* For largest factors of these powers of 2 the unit, 2^-28 of it, is a normal REAL, and so is its inverse. */
#define LEAST_POWER (REAL_IS_FLOAT ? 0x1p-98 : 0x1p-994)
#define LARGEST_POWER (REAL_IS_FLOAT ? 0x1p127 : 0x1p1023)

typedef uint32_t FN(Sums) __attribute__((vector_size(VECTOR_BYTES)));
typedef int16_t FN(Shorts) __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));
typedef int16_t FN(HalfShorts) __attribute__((vector_size(VECTOR_BYTES / 2), aligned(4), may_alias));
typedef uint16_t FN(Short) __attribute__((may_alias));

/* Events with factors of (32768 high + low) unit. */
typedef struct {
    int64_t n; /* even: behind an odd number there is a row times zero */
    REAL unit;
    uint32_t high_offset, low_offset; /* what the 128 in low bytes add to their sums */
    const uint32_t *row[BLOCK];
    int16_t high[BLOCK], low[BLOCK];
} FN(Block);

#ifdef EVSIM_X86
#if VECTOR_BYTES == 64
#define MM(name) _mm512_##name
typedef __m512i FN(Integers);
#elif VECTOR_BYTES == 32
#define MM(name) _mm256_##name
typedef __m256i FN(Integers);
#else
#define MM(name) _mm_##name
typedef __m128i FN(Integers);
#endif

typedef struct {
    FN(Integers) high, low;
} FN(Factors);

/* Of two rows, in turn. */
INLINE FN(Factors) FN(factors)(const FN(Block) *block, int64_t at)
{
    uint32_t high, low;
    memcpy(&high, block->high + at, sizeof high);
    memcpy(&low, block->low + at, sizeof low);
    return (FN(Factors)){(FN(Integers))((FN(Sums)){0} + high), (FN(Integers))((FN(Sums)){0} + low)};
}

/* Many processors with AVX-512 multiply and add in one instruction.  It is none of those that this path is
 * compiled for, so it is written out, which Clang would refuse. */
#if VECTOR_BYTES == 64 && !defined(__clang__) && !defined(EVSIM_NO_VNNI)
#define VNNI
#endif

/* sum + x * y, of two rows */
INLINE FN(Sums) FN(multiply_add)(const int vnni, FN(Sums) sum, FN(Integers) x, FN(Integers) y)
{
#ifdef VNNI
    if (vnni) {
        __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(y));
        return sum;
    }
#endif
    (void)vnni;
    return sum + (FN(Sums))MM(madd_epi16)(x, y);
}

/* Add two rows to the sums of one vector of words: of low bytes (and 256 times the high ones) and of high
 * bytes in the lower words of each sixteen, the same of the upper words; all times `high`, then `low`. */
INLINE void FN(add_pair)(
    const int vnni, const uint32_t *a, const uint32_t *b, const FN(Factors) *factors, FN(Sums) *sum)
{
    const FN(Integers) rows[2] = {(FN(Integers))*(const FN(Shorts) *)a, (FN(Integers))*(const FN(Shorts) *)b};
    const FN(Integers) words[2] = {
        MM(unpacklo_epi16)(rows[0], rows[1]), MM(unpackhi_epi16)(rows[0], rows[1])};
    for (int k = 0; k < 2; k++) {
        const FN(Integers) bytes = MM(srai_epi16)(words[k], 8);
        sum[2 * k] = FN(multiply_add)(vnni, sum[2 * k], words[k], factors->high);
        sum[2 * k + 1] = FN(multiply_add)(vnni, sum[2 * k + 1], bytes, factors->high);
        sum[4 + 2 * k] = FN(multiply_add)(vnni, sum[4 + 2 * k], words[k], factors->low);
        sum[5 + 2 * k] = FN(multiply_add)(vnni, sum[5 + 2 * k], bytes, factors->low);
    }
}
#undef MM
#else
typedef struct {
    int16_t high[2], low[2];
} FN(Factors);

INLINE FN(Factors) FN(factors)(const FN(Block) *block, int64_t at)
{
    return (FN(Factors)){{block->high[at], block->high[at + 1]}, {block->low[at], block->low[at + 1]}};
}

INLINE void FN(add_pair)(
    const int vnni, const uint32_t *a, const uint32_t *b, const FN(Factors) *factors, FN(Sums) *sum)
{
    const uint32_t *const rows[2] = {a, b};
    (void)vnni;
    for (int r = 0; r < 2; r++)
        for (int k = 0; k < 2; k++) {
            const FN(HalfShorts) *const half = (const FN(HalfShorts) *)rows[r] + k;
            const FN(Words) words = __builtin_convertvector(*half, FN(Words)), bytes = words >> 8;
            sum[2 * k] += (FN(Sums))(words * factors->high[r]);
            sum[2 * k + 1] += (FN(Sums))(bytes * factors->high[r]);
            sum[4 + 2 * k] += (FN(Sums))(words * factors->low[r]);
            sum[5 + 2 * k] += (FN(Sums))(bytes * factors->low[r]);
        }
}
#endif

/* Add n pairs of rows, from that one on, to the sums of all vectors of words; the first ones begin them. */
INLINE void FN(add_n_pairs)(
    const int vnni, int64_t n, const FN(Block) *restrict block, int64_t at, int64_t word, int64_t words,
    FN(Sums) *restrict sums)
{
    const uint32_t *row[2 * PAIRS];
    FN(Factors) factors[PAIRS];
    for (int64_t r = 0; r < 2 * n; r++)
        row[r] = block->row[at + r] + word;
    for (int64_t k = 0; k < n; k++)
        factors[k] = FN(factors)(block, at + 2 * k);
    for (int64_t i = 0; i < words; i += PART, sums += 8) {
        FN(Sums) sum[8];
        for (int k = 0; k < 8; k++)
            sum[k] = at > 0 ? sums[k] : (FN(Sums)){0};
#pragma GCC unroll 1 /* or the sums leave their registers */
        for (int64_t k = 0; k < n; k++)
            FN(add_pair)(vnni, row[2 * k] + i, row[2 * k + 1] + i, &factors[k], sum);
        for (int k = 0; k < 8; k++)
            sums[k] = sum[k];
    }
}

static NOINLINE void FN(add_pairs)(
    int64_t n, const FN(Block) *restrict block, int64_t at, int64_t word, int64_t words,
    FN(Sums) *restrict sums)
{
    FN(add_n_pairs)(0, n, block, at, word, words, sums);
}

#ifdef VNNI
static NOINLINE void FN(add_pairs_vnni)(
    int64_t n, const FN(Block) *restrict block, int64_t at, int64_t word, int64_t words,
    FN(Sums) *restrict sums)
{
    FN(add_n_pairs)(1, n, block, at, word, words, sums);
}
#define ADD_PAIRS (__builtin_cpu_supports("avx512vnni") ? FN(add_pairs_vnni) : FN(add_pairs))
#else
#define ADD_PAIRS FN(add_pairs)
#endif

/* Add the sums of a strip to its targets. */
INLINE void FN(add_sums)(const FN(Block) *block, const FN(Sums) *sum, REAL *target)
{
    for (int part = 0; part < WORDS; part += PART, sum += 8)
        for (int k = 0; k < 4; k++) {
            FN(Wide) *const t = (FN(Wide) *)(target + k * WORDS + part);
            FN(Sums) high = sum[k], low = sum[4 + k];
            if (k % 2 == 0) {
                high -= 256u * sum[k + 1] + block->high_offset;
                low -= 256u * sum[k + 5] + block->low_offset;
            }
            *t += (__builtin_convertvector((FN(Words))high, FN(Wide)) * (REAL)32768
                   + __builtin_convertvector((FN(Words))low, FN(Wide)))
                  * block->unit;
        }
}

/* Columns by pieces: the sums of all pairs, and then what they add to the target. */
static void FN(add_block)(const FN(Block) *restrict block, int64_t length, REAL *restrict target)
{
    FN(Sums) sums[PIECE / INT8_COLUMNS * (WORDS / PART) * 8];
    for (int64_t first = 0; first < length; first += PIECE) {
        const int64_t columns = length - first < PIECE ? length - first : PIECE;
        const int64_t word = first / INT8_COLUMNS * WORDS;
        const int64_t words = (columns + INT8_COLUMNS - 1) / INT8_COLUMNS * WORDS;
        const FN(Sums) *sum = sums;
        for (int64_t at = 0; at < block->n; at += 2 * PAIRS) {
            const int64_t n = (block->n - at) / 2;
            ADD_PAIRS(n < PAIRS ? n : PAIRS, block, at, word, words, sums);
        }
        int64_t i = 0;
        for (; i + INT8_COLUMNS <= columns; i += INT8_COLUMNS, sum += 8 * (WORDS / PART))
            FN(add_sums)(block, sum, target + first + i);
        if (i < columns) {
            REAL last[INT8_COLUMNS] = {0};
            memcpy(last, target + first + i, (columns - i) * sizeof(REAL));
            FN(add_sums)(block, sum, last);
            memcpy(target + first + i, last, (columns - i) * sizeof(REAL));
        }
    }
}

/* What floats make of factors that are infinite, no numbers, or all very small. */
static NOINLINE void FN(add_odd_int8_rows)(
    int64_t n_events, const int32_t *restrict unit, const REAL *restrict value, const REAL *restrict scale,
    const uint32_t *restrict rows, int64_t stride, int64_t length, REAL *restrict target)
{
    for (int64_t e = 0; e < n_events; e++) {
        const FN(Short) *row = (const FN(Short) *)(rows + unit[e] * stride);
        const REAL factor = value[e] * scale[unit[e]];
        for (int64_t i = 0; i < length; i++) {
            const int word = row[i / 64 * 32 + i % 16 / 4 * 8 + i % 64 / 32 * 4 + i % 4];
            target[i] += factor * (REAL)(i & 16 ? (int8_t)(word >> 8) : (word & 255) - 128);
        }
    }
}

/* target[0:length] += sum_e (value[e] * scale[unit[e]]) * row of unit[e]
 *
 * The factors are rounded to whole multiples, ties to even, of a unit: the power of 2 that goes 2^28 to 2^29
 * times into the largest of this call.  Their products with the weights are added up exactly, for BLOCK
 * events at a time that are not zero; then the two halves of each sum become REAL, and are put together.  So
 * the order of the events of a block does not matter. */
TARGET void FN(add_int8_rows)(
    int64_t n_events, const int32_t *restrict unit, const REAL *restrict value, const REAL *restrict scale,
    const uint32_t *restrict rows, int64_t stride, int64_t length, REAL *restrict target)
{
    FN(Block) block;
    uint64_t most = 0;
    double power;
    for (int64_t e = 0; e < n_events; e++) {
        const double factor = fabs((double)value[e] * scale[unit[e]]);
        uint64_t bits; /* in the order of the numbers; those of NaN are the largest */
        memcpy(&bits, &factor, sizeof bits);
        most = bits > most ? bits : most;
    }
    if (most == 0)
        return;
    most &= 0x7ff0000000000000ULL;
    memcpy(&power, &most, sizeof power);
    if (!(power >= LEAST_POWER && power <= LARGEST_POWER)) {
        FN(add_odd_int8_rows)(n_events, unit, value, scale, rows, stride, length, target);
        return;
    }
    const double inverse = 0x1p28 / power;
    block.unit = (REAL)(power * 0x1p-28);
    for (int64_t e = 0; e < n_events;) {
        int64_t n = 0;
        int32_t high_sum = 0, low_sum = 0;
        for (; e < n_events && n < BLOCK; e++) {
            const double factor = (double)value[e] * scale[unit[e]];
            const int32_t whole = (int32_t)(factor * inverse + 0x1.8p52 - 0x1.8p52);
            const int32_t high = (whole + 0x4000) >> 15, low = whole - high * 0x8000;
            block.row[n] = rows + unit[e] * stride;
            block.high[n] = (int16_t)high;
            block.low[n] = (int16_t)low;
            high_sum += high;
            low_sum += low;
            n += whole != 0;
        }
        if (n == 0) /* all that were left are zero */
            return;
        if (n % 2) {
            block.row[n] = block.row[n - 1];
            block.high[n] = block.low[n] = 0;
            n++;
        }
        block.n = n;
        block.high_offset = 128 * (uint32_t)high_sum;
        block.low_offset = 128 * (uint32_t)low_sum;
        FN(add_block)(&block, length, target);
    }
}

#undef INLINE
#undef NOINLINE
#undef TOP16
#undef WORDS
#undef PART
#undef BF16_COLUMNS
#undef INT8_COLUMNS
#undef BLOCK
#undef PIECE
#undef PAIRS
#undef ADD_PAIRS
#undef VNNI
#undef LEAST_POWER
#undef LARGEST_POWER
