/* Which units fulfil a condition: `unit` becomes their numbers, in order, and `count` how many there are; `unit`
 * has room for n.
 *
 * Template, see kernel_table.c.  The condition is evaluated for a block of units at once, which is vectorised, and
 * the numbers are written without branches: which ones it will be cannot be predicted.
 */

#define TOLD_APART 64

#if VECTOR_BYTES == 64
static inline __m512i FN(sixteen_from)(int64_t first)
{
    return _mm512_add_epi32(_mm512_set1_epi32((int32_t)first), _mm512_set_epi32(
        15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
}
#endif

/* Behind the `count` numbers in the list, first + k for the k < m that are chosen (1, others 0); returns how many
 * there are then.  At most `first` are there before, so that whole vectors can be written. */
static inline int32_t FN(list_chosen)(int64_t m, const int32_t *restrict chosen, int64_t first, int32_t count,
                                      int32_t *restrict unit)
{
    int64_t k = 0;
#if VECTOR_BYTES == 64
    __m512i number = FN(sixteen_from)(first);
    for (; k + 16 <= m; k += 16) {
        const __m512i here = _mm512_loadu_si512(chosen + k);
        const __mmask16 mask = _mm512_test_epi32_mask(here, here);
        _mm512_storeu_si512(unit + count, _mm512_maskz_compress_epi32(mask, number));
        number = _mm512_add_epi32(number, _mm512_set1_epi32(16));
        count += __builtin_popcount(mask);
    }
#endif
    for (; k < m; k++) {
        unit[count] = (int32_t)(first + k);
        count += chosen[k];
    }
    return count;
}

#define CHOOSE(n, i, condition, unit, count)                                  \
    do {                                                                      \
        int32_t chosen[TOLD_APART];                                                \
        count = 0;                                                            \
        for (int64_t first = 0; first < n; first += TOLD_APART) {                  \
            const int64_t m = n - first < TOLD_APART ? n - first : TOLD_APART;          \
            for (int64_t k = 0; k < m; k++) {                                 \
                const int64_t i = first + k;                                  \
                chosen[k] = condition;                                        \
            }                                                                 \
            count = FN(list_chosen)(m, chosen, first, count, unit);           \
        }                                                                     \
    } while (0)

/* As `list_chosen`, of the entries of x that are not zero, with their values. */
static inline int32_t FN(list_values)(int64_t m, const REAL *restrict x, int64_t first, int32_t count,
                                      int32_t *restrict unit, REAL *restrict value)
{
    int64_t k = 0;
#if VECTOR_BYTES == 64 && REAL_IS_FLOAT
    __m512i number = FN(sixteen_from)(first);
    for (; k + 16 <= m; k += 16) {
        const __m512 here = _mm512_loadu_ps(x + k);
        const __mmask16 mask = _mm512_cmp_ps_mask(here, _mm512_setzero_ps(), _CMP_NEQ_UQ);
        _mm512_storeu_si512(unit + count, _mm512_maskz_compress_epi32(mask, number));
        _mm512_storeu_ps(value + count, _mm512_maskz_compress_ps(mask, here));
        number = _mm512_add_epi32(number, _mm512_set1_epi32(16));
        count += __builtin_popcount(mask);
    }
#endif
    for (; k < m; k++) {
        unit[count] = (int32_t)(first + k);
        value[count] = x[k];
        count += x[k] != 0;
    }
    return count;
}

/* Whether an entry is larger in size than `limit`, as infinity and NaN are. */
TARGET int32_t FN(any_beyond)(int64_t n, const REAL *restrict x, double limit_)
{
    const REAL limit = (REAL)limit_;
    int32_t found = 0;
    for (int64_t i = 0; i < n; i++) /* to the end: a loop that stops in the middle is not vectorised */
        found |= !(x[i] <= limit && x[i] >= -limit);
    return found;
}

/* How many entries are not zero; -1 if one of them is not finite. */
TARGET int64_t FN(count_nonzero)(int64_t n, const REAL *restrict x)
{
    int64_t total = 0;
    int32_t wrong = 0;
    for (int64_t first = 0; first < n; first += 1 << 20) {
        const int64_t stop = n - first < 1 << 20 ? n : first + (1 << 20);
        int32_t count = 0;
        for (int64_t i = first; i < stop; i++) {
            count += x[i] != 0;
            wrong |= !(x[i] - x[i] == 0);
        }
        total += count;
    }
    return wrong ? -1 : total;
}

/* List the entries that are not zero; with them up to 16 places behind the last one are written. */
TARGET int32_t FN(list_nonzero)(int64_t n, const REAL *restrict x, int32_t *restrict unit, REAL *restrict value)
{
    return FN(list_values)(n, x, 0, 0, unit, value);
}
