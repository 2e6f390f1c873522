/* Weight rows: add scaled rows to vectors (events forwards, and weight gradients), dot rows with a vector
 * (backwards).
 *
 * Template, see kernel_table.c.  A row is contiguous; only the rows named in `unit` are ever read.  Sums run
 * in the order of the events, whatever the instruction set.
 */

#define STRIP_ROW_BYTES (8 * 1024)

/* Columns that stay in registers while the events pass, `n` vectors of them; from zero with `fresh`. */
typedef REAL FN(Lanes) __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));
#define LANES ((int64_t)(VECTOR_BYTES / sizeof(REAL)))
#define STRIP (VECTOR_BYTES == 64 ? 16 : 8) /* half of the registers */

static inline __attribute__((always_inline)) void FN(add_strip)(
    const int n, int64_t n_events, const int32_t *restrict unit, const REAL *restrict value,
    const REAL *restrict rows, int64_t stride, int32_t fresh, REAL *restrict target)
{
    FN(Lanes) sum[STRIP];
    for (int j = 0; j < n; j++)
        sum[j] = fresh ? (FN(Lanes)){0} : *(const FN(Lanes) *)(target + j * LANES);
    for (int64_t e = 0; e < n_events; e++) {
        const REAL *row = rows + unit[e] * stride;
        for (int j = 0; j < n; j++)
            sum[j] += value[e] * *(const FN(Lanes) *)(row + j * LANES);
    }
    for (int j = 0; j < n; j++)
        *(FN(Lanes) *)(target + j * LANES) = sum[j];
}

static inline void FN(add_strips)(
    int64_t n_events, const int32_t *restrict unit, const REAL *restrict value,
    const REAL *restrict rows, int64_t stride, int64_t length, int32_t fresh, REAL *restrict target)
{
    int64_t i = 0;
    if (n_events == 0 && !fresh)
        return;
    for (; i + STRIP * LANES <= length; i += STRIP * LANES)
        FN(add_strip)(STRIP, n_events, unit, value, rows + i, stride, fresh, target + i);
    for (int n = STRIP / 2; n; n /= 2) /* what is left, by halves */
        if (i + n * LANES <= length) {
            if (n == 8)
                FN(add_strip)(8, n_events, unit, value, rows + i, stride, fresh, target + i);
            else if (n == 4)
                FN(add_strip)(4, n_events, unit, value, rows + i, stride, fresh, target + i);
            else if (n == 2)
                FN(add_strip)(2, n_events, unit, value, rows + i, stride, fresh, target + i);
            else
                FN(add_strip)(1, n_events, unit, value, rows + i, stride, fresh, target + i);
            i += n * LANES;
        }
    for (; i < length; i++) {
        REAL sum = fresh ? 0 : target[i];
        for (int64_t e = 0; e < n_events; e++)
            sum += value[e] * rows[unit[e] * stride + i];
        target[i] = sum;
    }
}

/* n rows in one pass over the target, which is loaded and stored once for all of them. */
static inline __attribute__((always_inline)) void FN(add_pass)(
    const int n, const int32_t *restrict unit, const REAL *restrict value, const REAL *restrict rows,
    int64_t stride, int64_t length, REAL *restrict target)
{
    const REAL *row[8];
    int64_t i = 0;
    for (int r = 0; r < n; r++)
        row[r] = rows + unit[r] * stride;
    for (; i + LANES <= length; i += LANES) {
        FN(Lanes) sum = *(const FN(Lanes) *)(target + i);
        for (int r = 0; r < n; r++)
            sum += value[r] * *(const FN(Lanes) *)(row[r] + i);
        *(FN(Lanes) *)(target + i) = sum;
    }
    for (; i < length; i++)
        for (int r = 0; r < n; r++)
            target[i] += value[r] * row[r][i];
}

/* target[0:length] += sum_e value[e] * rows[unit[e] * stride : + length] */
TARGET void FN(add_rows)(
    int64_t n_events, const int32_t *restrict unit, const REAL *restrict value,
    const REAL *restrict rows, int64_t stride, int64_t length, REAL *restrict target)
{
    int64_t e = 0;
    if (stride * (int64_t)sizeof(REAL) <= STRIP_ROW_BYTES) {
        FN(add_strips)(n_events, unit, value, rows, stride, length, 0, target);
        return;
    }
    /* Long rows come from far away, and the processor reads ahead along each of a few rows. */
    for (; e + 8 <= n_events; e += 8)
        FN(add_pass)(8, unit + e, value + e, rows, stride, length, target);
    if (e + 4 <= n_events) {
        FN(add_pass)(4, unit + e, value + e, rows, stride, length, target);
        e += 4;
    }
    for (; e < n_events; e++)
        FN(add_pass)(1, unit + e, value + e, rows, stride, length, target);
}

/* The events of up to GROUP lists, in order of their rows: so rows are read from the first to the last, each as
 * often as it is asked for, and can be asked for ahead; PIECE columns at a time, for which the sums of all lists
 * stay in the first-level cache.  Returns 0, and has done nothing, if there is no memory. */
#define GROUP 64
#define PIECE (8 * LANES)
#define AHEAD 32 /* events */

static inline int FN(add_in_order)(
    int64_t n_lists, const EventList *restrict lists, const REAL *restrict rows, int64_t n_rows,
    int64_t stride, int64_t length, int64_t from, int32_t fresh)
{
    int64_t n = 0;
    for (int64_t l = 0; l < n_lists; l++)
        n += lists[l].n;
    int32_t *next = calloc(n_rows + 1, sizeof *next), *unit = malloc((n + AHEAD) * sizeof *unit);
    int32_t *list = malloc((n + 1) * sizeof *list);
    REAL *value = malloc((n + 1) * sizeof *value), *room = malloc((GROUP * PIECE + LANES) * sizeof *room);
    const int good = next && unit && list && value && room;
    if (good) {
        REAL *sums = (REAL *)(((uintptr_t)room + VECTOR_BYTES - 1) / VECTOR_BYTES * VECTOR_BYTES);
        for (int64_t l = 0; l < n_lists; l++)
            for (int64_t e = 0; e < lists[l].n; e++)
                next[lists[l].unit[e] + 1]++;
        for (int64_t row = 0; row < n_rows; row++)
            next[row + 1] += next[row];
        for (int64_t l = 0; l < n_lists; l++)
            for (int64_t e = 0; e < lists[l].n; e++) {
                const int32_t k = next[lists[l].unit[e]]++;
                unit[k] = lists[l].unit[e];
                list[k] = (int32_t)l;
                value[k] = ((const REAL *)lists[l].value)[e];
            }
        for (int64_t k = 0; k < AHEAD; k++)
            unit[n + k] = n ? unit[n - 1] : 0;
        for (int64_t first = 0; first < length; first += PIECE) {
            const int64_t columns = length - first < PIECE ? length - first : PIECE;
            for (int64_t l = 0; l < n_lists; l++)
                if (fresh)
                    memset(sums + l * PIECE, 0, columns * sizeof(REAL));
                else
                    memcpy(sums + l * PIECE, (REAL *)lists[l].target + from + first, columns * sizeof(REAL));
            for (int64_t e = 0; e < n; e++) {
                const REAL *row = rows + unit[e] * stride + first, *later = rows + unit[e + AHEAD] * stride + first;
                REAL *sum = sums + list[e] * PIECE;
                if (unit[e + AHEAD] != unit[e + AHEAD - 1])
                    for (int64_t i = 0; i < columns; i += 64 / (int64_t)sizeof(REAL))
                        __builtin_prefetch(later + i);
                if (columns == PIECE)
                    for (int j = 0; j < 8; j++)
                        *(FN(Lanes) *)(sum + j * LANES) += value[e] * *(const FN(Lanes) *)(row + j * LANES);
                else
                    for (int64_t i = 0; i < columns; i++)
                        sum[i] += value[e] * row[i];
            }
            for (int64_t l = 0; l < n_lists; l++)
                memcpy((REAL *)lists[l].target + from + first, sums + l * PIECE, columns * sizeof(REAL));
        }
    }
    free(next);
    free(unit);
    free(list);
    free(value);
    free(room);
    return good;
}

/* add_rows for many lists of events, each to the places from `from` on of its own target, which is added to, or
 * with `fresh` written.
 *
 * Rows that are asked for several times are taken in blocks that fit the second-level cache, and each block
 * serves all lists: so a row comes from memory once and not once per event.  Rows that are far from fitting there
 * all together are taken in order instead.  Every sum is still taken in the order of the list. */
#define FAR_BYTES (4 * 1024 * 1024)
#define BLOCK_BYTES (384 * 1024)
#define BLOCK_ROW_BYTES (6 * 1024)
#define BLOCK_REUSE 3

TARGET void FN(add_rows_many)(
    int64_t n_lists, EventList *restrict lists, const REAL *restrict rows, int64_t n_rows, int64_t stride,
    int64_t length, int64_t from, int32_t fresh)
{
    const int64_t most_columns = BLOCK_ROW_BYTES / (int64_t)sizeof(REAL);
    int64_t n_events = 0;
    for (int64_t l = 0; l < n_lists; l++)
        n_events += lists[l].n;
    if (n_events < BLOCK_REUSE * n_rows || n_rows == 0) {
        for (int64_t l = 0; l < n_lists; l++) {
            REAL *target = (REAL *)lists[l].target + from;
            if (fresh)
                memset(target, 0, length * sizeof(REAL));
            FN(add_rows)(lists[l].n, lists[l].unit, lists[l].value, rows, stride, length, target);
        }
        return;
    }
    int64_t done = 0; /* lists */
    while (n_rows * stride * (int64_t)sizeof(REAL) > FAR_BYTES && done < n_lists) {
        const int64_t n = n_lists - done < GROUP ? n_lists - done : GROUP;
        if (!FN(add_in_order)(n, lists + done, rows, n_rows, stride, length, from, fresh))
            break;
        done += n;
    }
    lists += done;
    n_lists -= done;
    for (int64_t first = 0; n_lists > 0 && first < length; first += most_columns) {
        const int64_t columns = length - first < most_columns ? length - first : most_columns;
        const int64_t most_rows = BLOCK_BYTES / (columns * (int64_t)sizeof(REAL));
        for (int64_t l = 0; l < n_lists; l++)
            lists[l].next = 0;
        for (int64_t row = 0; row < n_rows; row += most_rows)
            for (int64_t l = 0; l < n_lists; l++) {
                const int32_t *unit = lists[l].unit;
                const int64_t next = lists[l].next;
                int64_t e = next;
                while (e < lists[l].n && unit[e] < row + most_rows)
                    e++;
                FN(add_strips)(e - next, unit + next, (const REAL *)lists[l].value + next, rows + first, stride,
                               columns, fresh && row == 0, (REAL *)lists[l].target + from + first);
                lists[l].next = e;
            }
    }
}

#undef GROUP
#undef PIECE
#undef AHEAD
#undef STRIP
#undef STRIP_ROW_BYTES
#undef FAR_BYTES
#undef BLOCK_BYTES
#undef BLOCK_ROW_BYTES
#undef BLOCK_REUSE

/* Products of rows and vectors: sixteen partial sums each, folded in a fixed tree, so the same bits for every
 * vector width.  As many pairs at a time as there are registers for eight vectors: one sum is a chain of
 * additions, and they have to overlap. */
#define PARTIALS 16
#define VECTORS (PARTIALS / LANES)
#define TOGETHER ((int)(8 / VECTORS))

typedef REAL FN(HalfSum) __attribute__((vector_size(8 * sizeof(REAL))));
typedef REAL FN(QuarterSum) __attribute__((vector_size(4 * sizeof(REAL))));

static inline REAL FN(fold)(const FN(Lanes) *sum)
{
    FN(HalfSum) half[2];
    FN(QuarterSum) quarter[2];
    memcpy(half, sum, sizeof half);
    half[0] += half[1];
    memcpy(quarter, half, sizeof quarter);
    quarter[0] += quarter[1];
    return (quarter[0][0] + quarter[0][2]) + (quarter[0][1] + quarter[0][3]);
}

static inline __attribute__((always_inline)) void FN(dot_together)(
    const int n, const REAL *const *restrict row, const REAL *const *restrict vector, int64_t length,
    REAL *restrict out)
{
    FN(Lanes) sum[TOGETHER][VECTORS];
    int64_t i = 0;
    for (int k = 0; k < n; k++)
        for (int v = 0; v < VECTORS; v++)
            sum[k][v] = (FN(Lanes)){0};
    for (; i + PARTIALS <= length; i += PARTIALS)
        for (int v = 0; v < VECTORS; v++)
            for (int k = 0; k < n; k++)
                sum[k][v] += *(const FN(Lanes) *)(row[k] + i + v * LANES)
                             * *(const FN(Lanes) *)(vector[k] + i + v * LANES);
    for (int k = 0; k < n; k++) {
        REAL rest = 0;
        for (int64_t j = i; j < length; j++)
            rest += row[k][j] * vector[k][j];
        out[k] += i ? FN(fold)(sum[k]) + rest : rest; /* a readout's rows may be very short */
    }
}

/* Some pairs, as many at a time as there can be. */
static inline __attribute__((always_inline)) void FN(dot_each)(
    int64_t n, const REAL *const *restrict row, const REAL *const *restrict vector, int64_t length,
    REAL *restrict out)
{
    int64_t k = 0;
    for (; k + TOGETHER <= n; k += TOGETHER)
        FN(dot_together)(TOGETHER, row + k, vector + k, length, out + k);
    if (TOGETHER > 4 && k + 4 <= n) {
        FN(dot_together)(4, row + k, vector + k, length, out + k);
        k += 4;
    }
    if (TOGETHER > 2 && k + 2 <= n) {
        FN(dot_together)(2, row + k, vector + k, length, out + k);
        k += 2;
    }
    for (; k < n; k++)
        FN(dot_together)(1, row + k, vector + k, length, out + k);
}

/* out[k] += row[k][from_row : + length] . vector[k][from : + length], for any pairs. */
TARGET void FN(dot_pairs)(
    int64_t n, const REAL *const *restrict row, int64_t from_row, const REAL *const *restrict vector,
    int64_t from, int64_t length, REAL *restrict out)
{
    enum { MOST = TOGETHER > 4 ? 4 : TOGETHER }; /* whose addresses fit in registers */
    const REAL *rows[MOST], *vectors[MOST];
    for (int64_t k = 0; k < n; k += MOST) {
        const int64_t m = n - k < MOST ? n - k : MOST;
        for (int j = 0; j < m; j++) {
            rows[j] = row[k + j] + from_row;
            vectors[j] = vector[k + j] + from;
        }
        FN(dot_each)(m, rows, vectors, length, out + k);
    }
}

/* out[e] += rows[unit[e] * stride : + length] . vector */
TARGET void FN(dot_rows)(
    int64_t n_units, const int32_t *restrict unit, const REAL *restrict rows, int64_t stride, int64_t length,
    const REAL *restrict vector, REAL *restrict out)
{
    const REAL *row[TOGETHER], *same[TOGETHER];
    for (int j = 0; j < TOGETHER; j++)
        same[j] = vector;
    for (int64_t e = 0; e < n_units; e += TOGETHER) {
        const int64_t m = n_units - e < TOGETHER ? n_units - e : TOGETHER;
        for (int j = 0; j < m; j++)
            row[j] = rows + unit[e + j] * stride;
        FN(dot_each)(m, row, same, length, out + e);
    }
}

#undef LANES
#undef PARTIALS
#undef VECTORS
#undef TOGETHER
