/* Sparse weight rows: add scaled rows to a vector, dot rows with a vector, and the gradient of the weights.
 *
 * Template, see kernel_table.c.  Only the stored items of the rows named in `unit` are read.  Every sum runs
 * in the order of the events; a dot product is eight partial sums, folded in a fixed tree.  So the bits do
 * not depend on the instruction set.
 *
 * What limits these loops is the number of loads and stores, not the arithmetic.  Hence 16-bit columns, four
 * of them in one load, and weights loaded and multiplied four at a time.  Rows are short and lie anywhere:
 * the head of the next one is asked for before this one is worked on, the rest of it follows by itself.
 */

#define INLINE static inline __attribute__((always_inline))
#define LITTLE (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__)

typedef REAL FN(Four) __attribute__((vector_size(4 * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));

/* Columns j to j + 3 by as few loads as there can be. */
INLINE void FN(four_columns)(const SparseRows *rows, const int wide, int64_t j, uint64_t *c)
{
    uint64_t word[2];
    if (wide) {
        memcpy(word, (const int32_t *)rows->column + j, sizeof word);
        for (int k = 0; k < 4; k++)
            c[k] = (uint32_t)(word[k / 2] >> 32 * (LITTLE ? k % 2 : 1 - k % 2));
    } else {
        memcpy(word, (const uint16_t *)rows->column + j, sizeof *word);
        for (int k = 0; k < 4; k++)
            c[k] = (uint16_t)(*word >> 16 * (LITTLE ? k : 3 - k));
    }
}

INLINE int64_t FN(column_at)(const SparseRows *rows, const int wide, int64_t j)
{
    return wide ? ((const int32_t *)rows->column)[j] : ((const uint16_t *)rows->column)[j];
}

/* Ask for the first items of a row: two cache lines of weights and one of columns. */
INLINE void FN(ask_for)(const SparseRows *rows, const int wide, const REAL *weight, int32_t unit)
{
    const int64_t j = rows->ptr[(int64_t)unit * rows->stride];
    __builtin_prefetch(weight + j);
    __builtin_prefetch((const char *)(weight + j) + 64);
    __builtin_prefetch((const char *)rows->column + j * (wide ? 4 : 2));
}

INLINE int64_t FN(add_sparse)(
    const SparseRows *rows, const int wide, int64_t n_events, const int32_t *restrict unit,
    const REAL *restrict value, const REAL *restrict weight, REAL *restrict target)
{
    int64_t macs = 0;
    for (int64_t e = 0; e < n_events; e++) {
        const int64_t *ptr = rows->ptr + (int64_t)unit[e] * rows->stride;
        const int64_t stop = ptr[rows->width];
        const REAL v = value[e];
        int64_t j = ptr[0];
        macs += stop - j;
        if (e + 1 < n_events)
            FN(ask_for)(rows, wide, weight, unit[e + 1]);
        for (; j + 8 <= stop; j += 8)
            for (int half = 0; half < 8; half += 4) {
                const FN(Four) product = v * *(const FN(Four) *)(weight + j + half);
                uint64_t c[4];
                FN(four_columns)(rows, wide, j + half, c);
                for (int k = 0; k < 4; k++)
                    target[c[k]] += product[k];
            }
        for (; j < stop; j++)
            target[FN(column_at)(rows, wide, j)] += v * weight[j];
    }
    return macs;
}

INLINE int64_t FN(dot_sparse)(
    const SparseRows *rows, const int wide, int64_t n_units, const int32_t *restrict unit,
    const REAL *restrict weight, const REAL *restrict vector, REAL *restrict out)
{
    int64_t macs = 0;
    for (int64_t e = 0; e < n_units; e++) {
        const int64_t *ptr = rows->ptr + (int64_t)unit[e] * rows->stride;
        const int64_t stop = ptr[rows->width];
        FN(Four) sum[2] = {{0}, {0}};
        REAL rest = 0;
        int64_t j = ptr[0];
        macs += stop - j;
        if (e + 1 < n_units)
            FN(ask_for)(rows, wide, weight, unit[e + 1]);
        for (; j + 8 <= stop; j += 8)
            for (int half = 0; half < 2; half++) {
                uint64_t c[4];
                FN(four_columns)(rows, wide, j + 4 * half, c);
                const FN(Four) x = {vector[c[0]], vector[c[1]], vector[c[2]], vector[c[3]]};
                sum[half] += *(const FN(Four) *)(weight + j + 4 * half) * x;
            }
        for (; j < stop; j++)
            rest += weight[j] * vector[FN(column_at)(rows, wide, j)];
        sum[0] += sum[1];
        out[e] += ((sum[0][0] + sum[0][2]) + (sum[0][1] + sum[0][3])) + rest;
    }
    return macs;
}

INLINE int64_t FN(add_outer)(
    const SparseRows *rows, const int wide, int64_t unit, int64_t n_events, const int32_t *restrict arrival,
    const REAL *restrict value, const REAL *restrict vectors, int64_t stride, REAL *restrict gradient)
{
    const int64_t *ptr = rows->ptr + unit * rows->stride;
    const int64_t start = ptr[0], stop = ptr[rows->width];
    int64_t e = 0;
    /* Four events per pass: the column is loaded, the gradient loaded and stored, once for four events. */
    for (; e + 4 <= n_events; e += 4) {
        const REAL *restrict D0 = vectors + arrival[e] * stride;
        const REAL *restrict D1 = vectors + arrival[e + 1] * stride;
        const REAL *restrict D2 = vectors + arrival[e + 2] * stride;
        const REAL *restrict D3 = vectors + arrival[e + 3] * stride;
        const REAL v0 = value[e], v1 = value[e + 1], v2 = value[e + 2], v3 = value[e + 3];
        for (int64_t j = start; j < stop; j++) {
            const int64_t i = FN(column_at)(rows, wide, j);
            gradient[j] = (((gradient[j] + v0 * D0[i]) + v1 * D1[i]) + v2 * D2[i]) + v3 * D3[i];
        }
    }
    for (; e < n_events; e++) {
        const REAL *restrict D = vectors + arrival[e] * stride;
        const REAL v = value[e];
        for (int64_t j = start; j < stop; j++)
            gradient[j] += v * D[FN(column_at)(rows, wide, j)];
    }
    return n_events * (stop - start);
}

/* target += sum_e value[e] * row of unit[e]; returns the multiplications */
TARGET int64_t FN(add_sparse_rows)(
    const SparseRows *rows, int64_t n_events, const int32_t *unit, const REAL *value, const REAL *weight,
    REAL *target)
{
    return rows->wide ? FN(add_sparse)(rows, 1, n_events, unit, value, weight, target)
                      : FN(add_sparse)(rows, 0, n_events, unit, value, weight, target);
}

/* out[e] += row of unit[e] . vector */
TARGET int64_t FN(dot_sparse_rows)(
    const SparseRows *rows, int64_t n_units, const int32_t *unit, const REAL *weight, const REAL *vector,
    REAL *out)
{
    return rows->wide ? FN(dot_sparse)(rows, 1, n_units, unit, weight, vector, out)
                      : FN(dot_sparse)(rows, 0, n_units, unit, weight, vector, out);
}

/* gradient of the weights stored for `unit` += sum_e value[e] * vectors[arrival[e] * stride + column] */
TARGET int64_t FN(add_outer_sparse)(
    const SparseRows *rows, int64_t unit, int64_t n_events, const int32_t *arrival, const REAL *value,
    const REAL *vectors, int64_t stride, REAL *gradient)
{
    return rows->wide ? FN(add_outer)(rows, 1, unit, n_events, arrival, value, vectors, stride, gradient)
                      : FN(add_outer)(rows, 0, unit, n_events, arrival, value, vectors, stride, gradient);
}

#undef INLINE
#undef LITTLE
