/* Weight rows: add scaled rows to vectors (events forwards, and weight gradients), dot rows with a vector
 * (backwards).
 *
 * Template, see kernel_table.c.  A row is contiguous; only the rows named in `unit` are ever read.  Sums run
 * in the order of the events, whatever the instruction set.
 */

/* target[0:length] += sum_e value[e] * rows[unit[e] * stride : + length] */
TARGET void FN(add_rows)(
    int64_t n_events, const int32_t *restrict unit, const REAL *restrict value,
    const REAL *restrict rows, int64_t stride, int64_t length, REAL *restrict target)
{
    int64_t e = 0;
    /* Four rows per pass: the target is loaded and stored once for four rows. */
    for (; e + 4 <= n_events; e += 4) {
        const REAL *restrict row0 = rows + unit[e] * stride, *restrict row1 = rows + unit[e + 1] * stride;
        const REAL *restrict row2 = rows + unit[e + 2] * stride, *restrict row3 = rows + unit[e + 3] * stride;
        const REAL v0 = value[e], v1 = value[e + 1], v2 = value[e + 2], v3 = value[e + 3];
        for (int64_t i = 0; i < length; i++)
            target[i] = (((target[i] + v0 * row0[i]) + v1 * row1[i]) + v2 * row2[i]) + v3 * row3[i];
    }
    for (; e < n_events; e++) {
        const REAL *restrict row = rows + unit[e] * stride;
        const REAL v = value[e];
        for (int64_t i = 0; i < length; i++)
            target[i] += v * row[i];
    }
}

/* As add_rows, or with `fresh` from zero, for columns that stay in registers while the events pass; the same
 * sums in the same order. */
typedef REAL FN(Lanes) __attribute__((vector_size(32), aligned(sizeof(REAL)), may_alias));
#define LANES ((int64_t)(32 / sizeof(REAL)))
#define STRIP 8

static inline void FN(add_strips)(
    int64_t n_events, const int32_t *restrict unit, const REAL *restrict value,
    const REAL *restrict rows, int64_t stride, int64_t length, int32_t fresh, REAL *restrict target)
{
    int64_t i = 0;
    for (; i + STRIP * LANES <= length; i += STRIP * LANES) {
        FN(Lanes) sum[STRIP];
        if (fresh)
            for (int j = 0; j < STRIP; j++)
                sum[j] = (FN(Lanes)){0};
        else
            for (int j = 0; j < STRIP; j++)
                sum[j] = *(const FN(Lanes) *)(target + i + j * LANES);
        for (int64_t e = 0; e < n_events; e++) {
            const REAL *row = rows + unit[e] * stride + i;
            for (int j = 0; j < STRIP; j++)
                sum[j] += value[e] * *(const FN(Lanes) *)(row + j * LANES);
        }
        for (int j = 0; j < STRIP; j++)
            *(FN(Lanes) *)(target + i + j * LANES) = sum[j];
    }
    if (i < length) {
        if (fresh)
            memset(target + i, 0, (length - i) * sizeof(REAL));
        FN(add_rows)(n_events, unit, value, rows + i, stride, length - i, target + i);
    }
}

#undef STRIP

/* add_rows for many lists of events: list l is begin[l]:end[l] and goes to target + l * target_stride, which is
 * added to, or with `fresh` written.  Units increase within a list.
 *
 * Rows that are asked for several times are taken in blocks that fit the second-level cache, and each block
 * serves all lists: so a row comes from memory once and not once per event.  Every sum is still taken in the
 * order of the list. */
#define BLOCK_BYTES (384 * 1024)
#define BLOCK_ROW_BYTES (6 * 1024)
#define BLOCK_REUSE 4

TARGET void FN(add_rows_many)(
    int64_t n_lists, const int64_t *restrict begin, const int64_t *restrict end,
    const int32_t *restrict unit, const REAL *restrict value,
    const REAL *restrict rows, int64_t n_rows, int64_t stride, int64_t length,
    int32_t fresh, REAL *restrict target, int64_t target_stride,
    int64_t *restrict next) /* scratch (n_lists) */
{
    const int64_t most_columns = BLOCK_ROW_BYTES / (int64_t)sizeof(REAL);
    int64_t n_events = 0;
    for (int64_t l = 0; l < n_lists; l++)
        n_events += end[l] - begin[l];
    if (n_events < BLOCK_REUSE * n_rows || n_rows == 0) {
        for (int64_t l = 0; l < n_lists; l++) {
            if (fresh)
                memset(target + l * target_stride, 0, length * sizeof(REAL));
            FN(add_rows)(end[l] - begin[l], unit + begin[l], value + begin[l], rows, stride, length,
                         target + l * target_stride);
        }
        return;
    }
    for (int64_t first = 0; first < length; first += most_columns) {
        const int64_t columns = length - first < most_columns ? length - first : most_columns;
        const int64_t most_rows = BLOCK_BYTES / (columns * (int64_t)sizeof(REAL));
        for (int64_t l = 0; l < n_lists; l++)
            next[l] = begin[l];
        for (int64_t row = 0; row < n_rows; row += most_rows)
            for (int64_t l = 0; l < n_lists; l++) {
                const int64_t from = next[l];
                int64_t e = from;
                while (e < end[l] && unit[e] < row + most_rows)
                    e++;
                FN(add_strips)(e - from, unit + from, value + from, rows + first, stride, columns,
                               fresh && row == 0, target + l * target_stride + first);
                next[l] = e;
            }
    }
}

#undef BLOCK_BYTES
#undef BLOCK_ROW_BYTES
#undef BLOCK_REUSE

/* Sixteen partial sums, folded in a fixed tree: the same bits for every vector width.  Several rows at a time
 * share what is loaded of the vector. */
#define PARTIALS 16
#define VECTORS (PARTIALS / LANES)
#define TOGETHER ((int)LANES / 2)

static inline REAL FN(fold)(const FN(Lanes) *sum)
{
#if REAL_IS_FLOAT
    const FN(Lanes) p = sum[0] + sum[1];
    return ((p[0] + p[4]) + (p[2] + p[6])) + ((p[1] + p[5]) + (p[3] + p[7]));
#else
    const FN(Lanes) p = (sum[0] + sum[2]) + (sum[1] + sum[3]);
    return (p[0] + p[2]) + (p[1] + p[3]);
#endif
}

static inline __attribute__((always_inline)) void FN(dot_together)(
    const int n, const int32_t *restrict unit, const REAL *restrict rows, int64_t stride, int64_t length,
    const REAL *restrict vector, REAL *restrict out)
{
    FN(Lanes) sum[TOGETHER][VECTORS];
    const REAL *row[TOGETHER];
    int64_t i = 0;
    for (int r = 0; r < n; r++) {
        row[r] = rows + unit[r] * stride;
        for (int v = 0; v < VECTORS; v++)
            sum[r][v] = (FN(Lanes)){0};
    }
    for (; i + PARTIALS <= length; i += PARTIALS)
        for (int v = 0; v < VECTORS; v++) {
            const FN(Lanes) x = *(const FN(Lanes) *)(vector + i + v * LANES);
            for (int r = 0; r < n; r++)
                sum[r][v] += *(const FN(Lanes) *)(row[r] + i + v * LANES) * x;
        }
    for (int r = 0; r < n; r++) {
        REAL rest = 0;
        for (int64_t k = i; k < length; k++)
            rest += row[r][k] * vector[k];
        out[r] += i ? FN(fold)(sum[r]) + rest : rest; /* a readout's rows may be very short */
    }
}

/* out[e] += rows[unit[e] * stride : + length] . vector */
TARGET void FN(dot_rows)(
    int64_t n_units, const int32_t *restrict unit, const REAL *restrict rows, int64_t stride, int64_t length,
    const REAL *restrict vector, REAL *restrict out)
{
    int64_t e = 0;
    for (; e + TOGETHER <= n_units; e += TOGETHER)
        FN(dot_together)(TOGETHER, unit + e, rows, stride, length, vector, out + e);
    for (; e < n_units; e++)
        FN(dot_together)(1, unit + e, rows, stride, length, vector, out + e);
}

static inline __attribute__((always_inline)) void FN(dot_with)(
    const int n, const REAL *restrict row, int64_t length, const REAL *const *restrict vector,
    REAL *restrict out)
{
    FN(Lanes) sum[TOGETHER][VECTORS];
    int64_t i = 0;
    for (int r = 0; r < n; r++)
        for (int v = 0; v < VECTORS; v++)
            sum[r][v] = (FN(Lanes)){0};
    for (; i + PARTIALS <= length; i += PARTIALS)
        for (int v = 0; v < VECTORS; v++) {
            const FN(Lanes) x = *(const FN(Lanes) *)(row + i + v * LANES);
            for (int r = 0; r < n; r++)
                sum[r][v] += x * *(const FN(Lanes) *)(vector[r] + i + v * LANES);
        }
    for (int r = 0; r < n; r++) {
        REAL rest = 0;
        for (int64_t k = i; k < length; k++)
            rest += row[k] * vector[r][k];
        out[r] += i ? FN(fold)(sum[r]) + rest : rest;
    }
}

/* out[k] += row[0:length] . vector[k]: the same sums as those of dot_rows, of one row that is read once. */
TARGET void FN(dot_vectors)(
    int64_t n_vectors, const REAL *restrict row, int64_t length, const REAL *const *restrict vector,
    REAL *restrict out)
{
    int64_t k = 0;
    for (; k + TOGETHER <= n_vectors; k += TOGETHER)
        FN(dot_with)(TOGETHER, row, length, vector + k, out + k);
    for (; k + 2 <= n_vectors; k += 2)
        FN(dot_with)(2, row, length, vector + k, out + k);
    if (k < n_vectors)
        FN(dot_with)(1, row, length, vector + k, out + k);
}

#undef LANES
#undef PARTIALS
#undef VECTORS
#undef TOGETHER
