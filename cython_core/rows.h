/* Weight rows: add scaled rows to vectors (events forwards, and weight gradients), dot rows with a vector
 * (backwards).
 *
 * Template, see kernel_table.c.  A row is contiguous; only the rows named in `unit` are ever read.  Sums run
 * in the order of the events, whatever the instruction set.
 */

#define STRIP_ROW_BYTES (8 * 1024)

/* Columns that stay in registers while the events pass, `n` vectors of them. */
typedef REAL FN(Lanes) __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));
#define LANES ((int64_t)(VECTOR_BYTES / sizeof(REAL)))
#define STRIP (VECTOR_BYTES == 64 ? 16 : 8) /* half of the registers */

static inline __attribute__((always_inline)) void FN(add_strip)(
    const int n, int64_t n_events, const int32_t *restrict unit, const REAL *restrict value,
    const REAL *restrict rows, int64_t stride, REAL *restrict target)
{
    FN(Lanes) sum[STRIP];
    for (int j = 0; j < n; j++)
        sum[j] = *(const FN(Lanes) *)(target + j * LANES);
    for (int64_t e = 0; e < n_events; e++) {
        const REAL *row = rows + unit[e] * stride;
        /* Else compilers keep the first row's address of each vector, and add to it: more than fit in registers. */
        __asm__("" : "+r"(row));
        for (int j = 0; j < n; j++)
            sum[j] += value[e] * *(const FN(Lanes) *)(row + j * LANES);
    }
    for (int j = 0; j < n; j++)
        *(FN(Lanes) *)(target + j * LANES) = sum[j];
}

/* n columns, fewer than a vector has: the last ones, and all of a readout of few classes. */
#define ADD_PIECE(n)                                                                                           \
    typedef REAL FN(Piece##n) __attribute__((vector_size(n * sizeof(REAL)), aligned(sizeof(REAL)), may_alias)); \
    static inline void FN(add_piece##n)(                                                                       \
        int64_t n_events, const int32_t *restrict unit, const REAL *restrict value,                            \
        const REAL *restrict rows, int64_t stride, REAL *restrict target)                                      \
    {                                                                                                          \
        FN(Piece##n) sum = *(const FN(Piece##n) *)target;                                                      \
        for (int64_t e = 0; e < n_events; e++)                                                                 \
            sum += value[e] * *(const FN(Piece##n) *)(rows + unit[e] * stride);                                \
        *(FN(Piece##n) *)target = sum;                                                                         \
    }
ADD_PIECE(8)
ADD_PIECE(4)
ADD_PIECE(2)
#undef ADD_PIECE

static inline void FN(add_strips)(
    int64_t n_events, const int32_t *restrict unit, const REAL *restrict value,
    const REAL *restrict rows, int64_t stride, int64_t length, REAL *restrict target)
{
    int64_t i = 0;
    if (n_events == 0)
        return;
    for (; i + STRIP * LANES <= length; i += STRIP * LANES)
        FN(add_strip)(STRIP, n_events, unit, value, rows + i, stride, target + i);
    for (int n = STRIP / 2; n; n /= 2) /* what is left, by halves */
        if (i + n * LANES <= length) {
            if (n == 8)
                FN(add_strip)(8, n_events, unit, value, rows + i, stride, target + i);
            else if (n == 4)
                FN(add_strip)(4, n_events, unit, value, rows + i, stride, target + i);
            else if (n == 2)
                FN(add_strip)(2, n_events, unit, value, rows + i, stride, target + i);
            else
                FN(add_strip)(1, n_events, unit, value, rows + i, stride, target + i);
            i += n * LANES;
        }
#define ADD_PIECE(n)                                                                                           \
    if (LANES > n && i + n <= length) {                                                                        \
        FN(add_piece##n)(n_events, unit, value, rows + i, stride, target + i);                                 \
        i += n;                                                                                                \
    }
    ADD_PIECE(8)
    ADD_PIECE(4)
    ADD_PIECE(2)
#undef ADD_PIECE
    for (; i < length; i++) { /* at most one */
        REAL sum = target[i];
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
        FN(add_strips)(n_events, unit, value, rows, stride, length, target);
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

/* A tile is of 8 vectors of columns, or of 4 and twice as many rows; with the targets and the events it has to
 * fit in the first-level cache.  The tall one has a list's target loaded and stored less often, but is copied in
 * shorter pieces: worth it if many lists use it. */
#define TILE_BYTES (32 * 1024)
#define TILE_ROWS(vectors) (TILE_BYTES / ((vectors) * VECTOR_BYTES))
#define FEWEST_FOR_TALL 128
#define FAR_BYTES (1024 * 1024) /* matrices that do not fit in the second-level cache */

/* An event whose row is in the tile. */
typedef struct {
    int32_t at; /* where the row begins there, in REALs */
    REAL value;
} FN(Addend);

static inline __attribute__((always_inline)) void FN(copy_tile)(
    const int vectors, int64_t n_rows, const REAL *restrict rows, int64_t stride, int64_t columns,
    REAL *restrict tile)
{
    const int64_t width = vectors * LANES;
    for (int64_t r = 0; r < n_rows; r++)
        if (columns < width) /* what lies behind the last column is added up too, and not kept */
            for (int64_t i = 0; i < width; i++)
                tile[r * width + i] = i < columns ? rows[r * stride + i] : 0;
        else {
            FN(Lanes) part[8]; /* all are asked for before the first is waited for */
            for (int j = 0; j < vectors; j++)
                part[j] = *(const FN(Lanes) *)(rows + r * stride + j * LANES);
            for (int j = 0; j < vectors; j++)
                *(FN(Lanes) *)(tile + r * width + j * LANES) = part[j];
        }
}

/* Add the rows of a tile that the addends name, count[l] of them for each list l in turn, to `columns` columns of
 * its target from `place` on; returns the addends behind the last of them.  Ask meanwhile for the next tile.
 * `whole`: there are `n` vectors of columns; else at most. */
static inline __attribute__((always_inline)) const FN(Addend) *FN(add_tile)(
    const int n, const int whole, const REAL *restrict tile, const FN(Addend) *restrict addend,
    int64_t n_lists, const int32_t *restrict count, const EventList *restrict lists,
    int64_t place, int64_t columns, int32_t fresh, int64_t width, const REAL *next_tile, int64_t next_rows,
    int64_t stride)
{
    const int64_t each = next_rows / n_lists + 1;
    for (int64_t l = 0; l < n_lists; l++) {
        REAL room[8 * LANES] = {0}, *target = (REAL *)lists[l].target + place, *sums = whole ? target : room;
        FN(Lanes) sum[8];
        for (int64_t r = l * each; r < (l + 1) * each && r < next_rows; r++)
            for (int64_t i = 0; i < width; i += 64 / (int64_t)sizeof(REAL))
                __builtin_prefetch(next_tile + r * stride + i, 0, 2);
        if (!count[l] && !fresh)
            continue;
        if (!whole && !fresh)
            memcpy(room, target, columns * sizeof(REAL));
        for (int j = 0; j < n; j++)
            sum[j] = fresh ? (FN(Lanes)){0} : *(const FN(Lanes) *)(sums + j * LANES);
        for (const FN(Addend) *stop = addend + count[l]; addend < stop; addend++)
            for (int j = 0; j < n; j++)
                sum[j] += addend->value * *(const FN(Lanes) *)(tile + addend->at + j * LANES);
        for (int j = 0; j < n; j++)
            *(FN(Lanes) *)(sums + j * LANES) = sum[j];
        if (!whole)
            memcpy(target, room, columns * sizeof(REAL));
    }
    return addend;
}

/* add_rows_many with each row at hand in the first-level cache.  Tiles are copied there: rows that lie apart by
 * about a power of two would share a few places of that cache.  What is to be added is listed in the order in
 * which it is needed, once for all columns.  Returns 0, and has done nothing, if there is no memory. */
static inline __attribute__((always_inline)) int FN(add_tiles)(
    const int vectors, int64_t n_lists, EventList *restrict lists, int64_t n_events,
    const REAL *restrict rows, int64_t n_rows, int64_t stride, int64_t length, int64_t from, int32_t fresh)
{
    const int64_t width = vectors * LANES, height = TILE_ROWS(vectors);
    const int64_t n_blocks = (n_rows + height - 1) / height;
    const int far = n_rows * stride * (int64_t)sizeof(REAL) > FAR_BYTES;
    REAL tile[TILE_BYTES / sizeof(REAL)] __attribute__((aligned(64)));
    FN(Addend) *addends = malloc(n_events * sizeof *addends + n_blocks * n_lists * sizeof(int32_t));
    FN(Addend) *last = addends;
    int32_t *counts = (int32_t *)(addends + n_events), *count = counts;
    if (addends != NULL) {
        for (int64_t l = 0; l < n_lists; l++)
            lists[l].next = 0;
        for (int64_t row = 0; row < n_rows; row += height)
            for (int64_t l = 0; l < n_lists; l++, count++) {
                int64_t e = lists[l].next;
                for (; e < lists[l].n && lists[l].unit[e] < row + height; e++, last++) {
                    last->at = (int32_t)((lists[l].unit[e] - row) * width);
                    last->value = ((const REAL *)lists[l].value)[e];
                }
                *count = (int32_t)(e - lists[l].next);
                lists[l].next = e;
            }
        for (int64_t first = 0; first < length; first += width) {
            const int64_t columns = length - first < width ? length - first : width;
            const FN(Addend) *addend = addends;
            count = counts;
            for (int64_t row = 0; row < n_rows; row += height, count += n_lists) {
                const int64_t stop = row + height < n_rows ? row + height : n_rows;
                const int64_t next_row = stop < n_rows ? stop : 0, next_first = next_row ? first : first + width;
                const int64_t rest = far && next_first < length ? n_rows - next_row : 0;
#define ADD_TILE(n, whole)                                                                                     \
    FN(add_tile)(n, whole, tile, addend, n_lists, count, lists, from + first, columns, fresh && row == 0,      \
                 width, rows + next_row * stride + next_first, rest < height ? rest : height, stride)
                FN(copy_tile)(vectors, stop - row, rows + row * stride + first, stride, columns, tile);
                if (columns == width)
                    addend = ADD_TILE(vectors, 1);
                else if (columns > 4 * LANES)
                    addend = ADD_TILE(8, 0);
                else if (columns > 2 * LANES)
                    addend = ADD_TILE(4, 0);
                else if (columns > LANES)
                    addend = ADD_TILE(2, 0);
                else
                    addend = ADD_TILE(1, 0);
#undef ADD_TILE
            }
        }
    }
    free(addends);
    return addends != NULL;
}

/* add_rows for many lists of events, each to the places from `from` on of its own target, which is added to, or
 * with `fresh` written.
 *
 * Rows that are asked for several times are taken in tiles, each of which serves all lists: so a row comes from
 * memory once and not once per event.  The farther it comes, the sooner that is worth the copy.  Every sum is
 * still taken in the order of the list. */
TARGET void FN(add_rows_many)(
    int64_t n_lists, EventList *restrict lists, const REAL *restrict rows, int64_t n_rows, int64_t stride,
    int64_t length, int64_t from, int32_t fresh)
{
    const int64_t bytes = n_rows * stride * (int64_t)sizeof(REAL), reuse = bytes > FAR_BYTES ? 3 : 4;
    int64_t n_events = 0;
    for (int64_t l = 0; l < n_lists; l++)
        n_events += lists[l].n;
    if (bytes > TILE_BYTES && n_events >= reuse * n_rows) {
#define ADD_TILES(vectors)                                                                                     \
    FN(add_tiles)(vectors, n_lists, lists, n_events, rows, n_rows, stride, length, from, fresh)
        if (n_lists < FEWEST_FOR_TALL || n_rows <= TILE_ROWS(8) ? ADD_TILES(8) : ADD_TILES(4))
            return;
#undef ADD_TILES
    }
    for (int64_t l = 0; l < n_lists; l++) {
        REAL *target = (REAL *)lists[l].target + from;
        if (fresh)
            memset(target, 0, length * sizeof(REAL));
        FN(add_rows)(lists[l].n, lists[l].unit, lists[l].value, rows, stride, length, target);
    }
}

#undef TILE_BYTES
#undef TILE_ROWS
#undef FEWEST_FOR_TALL
#undef FAR_BYTES
#undef STRIP
#undef STRIP_ROW_BYTES

/* Products of rows and vectors: sixteen partial sums each, folded in a fixed tree, so the same bits for every
 * vector width.  As many pairs at a time as there are registers for eight vectors: one sum is a chain of
 * additions, and they have to overlap. */
#define PARTIALS DOT_SUMS
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

/* What is left of some pairs, fewer than TOGETHER, in one pass: a single one takes almost as long as four. */
static inline __attribute__((always_inline)) void FN(dot_rest)(
    int64_t n, const REAL *const *restrict row, const REAL *const *restrict vector, int64_t length,
    REAL *restrict out)
{
    switch (n) {
#define REST(n)                                                                                                \
    case n:                                                                                                    \
        if (n < TOGETHER)                                                                                      \
            FN(dot_together)(n < TOGETHER ? n : 1, row, vector, length, out);                                  \
        break;
        REST(1)
        REST(2)
        REST(3)
        REST(4)
        REST(5)
        REST(6)
        REST(7)
#undef REST
    }
}

/* out[e] += rows[unit[e] * stride : + length] . vector */
TARGET void FN(dot_rows)(
    int64_t n_units, const int32_t *restrict unit, const REAL *restrict rows, int64_t stride, int64_t length,
    const REAL *restrict vector, REAL *restrict out)
{
    const REAL *row[TOGETHER], *same[TOGETHER];
    int64_t e = 0;
    for (int j = 0; j < TOGETHER; j++)
        same[j] = vector;
    for (; e + TOGETHER <= n_units; e += TOGETHER) {
        for (int j = 0; j < TOGETHER; j++)
            row[j] = rows + unit[e + j] * stride;
        FN(dot_together)(TOGETHER, row, same, length, out + e);
    }
    for (int j = 0; j < n_units - e; j++)
        row[j] = rows + unit[e + j] * stride;
    FN(dot_rest)(n_units - e, row, same, length, out + e);
}

#define DOT_BYTES (32 * 1024) /* of the first-level cache */
#define DOT_ROWS 256          /* whose places fit in a byte */
#define LINE ((int)(64 / sizeof(REAL)))

/* Some columns of the vectors of all lanes, side by side in `tile`, and of the rows.  Sums of which they are
 * not the last columns are kept as they are. */
typedef struct {
    const REAL *rows, *tile;
    int64_t stride, columns, n_lanes;
    const uint8_t *lane; /* as in Asking */
    int first, last;     /* whether they are the first, the last columns */
} FN(DotTile);

/* `n_lanes` of the lanes that ask for each of `n_rows` rows, from the `skip`-th on.  As many rows behind these
 * are fetched meanwhile. */
static inline __attribute__((always_inline)) void FN(dot_block)(
    const int n_rows, const int n_lanes, const FN(DotTile) *restrict t, const uint8_t *restrict row,
    int64_t skip, FN(Lanes) *restrict kept, REAL *const *restrict out)
{
    FN(Lanes) sum[TOGETHER][VECTORS];
    const REAL *rows[TOGETHER], *next[TOGETHER], *vector[TOGETHER];
    int64_t i = 0;
    for (int r = 0, k = 0; r < n_rows; r++) {
        rows[r] = t->rows + row[r] * t->stride;
        next[r] = t->rows + row[n_rows + r] * t->stride;
        for (int l = 0; l < n_lanes; l++, k++) {
            vector[k] = t->tile + t->lane[row[r] * t->n_lanes + skip + l] * t->columns;
            for (int v = 0; v < VECTORS; v++)
                sum[k][v] = t->first ? (FN(Lanes)){0} : kept[k * VECTORS + v];
        }
    }
    for (; i + PARTIALS <= t->columns; i += PARTIALS) {
        for (int r = 0; r < n_rows; r++)
            for (int j = 0; j < PARTIALS; j += LINE)
                __builtin_prefetch(next[r] + i + j);
        for (int v = 0; v < VECTORS; v++)
            for (int r = 0, k = 0; r < n_rows; r++) {
                const FN(Lanes) part = *(const FN(Lanes) *)(rows[r] + i + v * LANES);
                for (int l = 0; l < n_lanes; l++, k++)
                    sum[k][v] += part * *(const FN(Lanes) *)(vector[k] + i + v * LANES);
            }
    }
    for (int r = 0, k = 0; r < n_rows; r++)
        for (int l = 0; l < n_lanes; l++, k++) {
            REAL *to = &out[t->lane[row[r] * t->n_lanes + skip + l]][row[r]], rest = 0;
            if (!t->last) {
                memcpy(kept + k * VECTORS, sum[k], sizeof sum[k]);
                continue;
            }
            for (int64_t j = i; j < t->columns; j++)
                rest += rows[r][j] * vector[k][j];
            *to += i || !t->first ? FN(fold)(sum[k]) + rest : rest;
        }
}

/* All rows of a list, each of which `n_lanes` lanes ask for; returns where the next sums are kept. */
static inline FN(Lanes) *FN(dot_class)(
    int64_t n_lanes, const FN(DotTile) *restrict t, int64_t n_rows, const uint8_t *restrict row,
    FN(Lanes) *restrict kept, REAL *const *restrict out)
{
    const int64_t n_parts = (n_lanes + TOGETHER - 1) / TOGETHER;
    for (int64_t part = 0; part < n_parts; part++) {
        const int64_t skip = n_lanes * part / n_parts, n = n_lanes * (part + 1) / n_parts - skip;
        int64_t r = 0;
        switch (n) {
#define CLASS(n)                                                                                               \
    case n:                                                                                                    \
        if (n <= TOGETHER) {                                                                                   \
            enum { HERE = n <= TOGETHER ? n : 1, ROWS = TOGETHER / HERE < 4 ? TOGETHER / HERE : 4 };           \
            for (; r + ROWS <= n_rows; r += ROWS, kept += ROWS * n * VECTORS)                                  \
                FN(dot_block)(ROWS, HERE, t, row + r, skip, kept, out);                                        \
            for (; r < n_rows; r++, kept += n * VECTORS)                                                       \
                FN(dot_block)(1, HERE, t, row + r, skip, kept, out);                                           \
        }                                                                                                      \
        break;
            CLASS(1)
            CLASS(2)
            CLASS(3)
            CLASS(4)
            CLASS(5)
            CLASS(6)
            CLASS(7)
            CLASS(8)
#undef CLASS
        }
    }
    return kept;
}

/* out[k][r] += row r . vector[k] for the lanes k that ask for row r.
 *
 * A row is read once for several lanes, whose vectors are at hand in the first-level cache, some columns at a
 * time; and rows that as many lanes ask for follow each other, so that branches can be foreseen.  A lane that
 * asks for none may have no vector.  Sums are those of dot_rows.  `room` is for sums of DOT_ROOM pairs. */
TARGET void FN(dot_lanes)(
    int64_t n_rows, const Asking *restrict asking, const REAL *restrict rows, int64_t stride, int64_t length,
    const REAL *const *restrict vector, REAL *const *restrict out, REAL *restrict room)
{
    const int64_t n_lanes = asking->n_lanes;
    const uint8_t *restrict asked = asking->count;
    REAL tile[DOT_BYTES / sizeof(REAL)] __attribute__((aligned(64)));
    const int64_t fit = DOT_BYTES / (int64_t)sizeof(REAL) / n_lanes / PARTIALS * PARTIALS;
    const int64_t n_tiles = (length + fit - 1) / fit;
    const int64_t width = (length + n_tiles * PARTIALS - 1) / (n_tiles * PARTIALS) * PARTIALS;
    REAL *to[DOT_LANES];
    int64_t stop;
    for (int64_t first = 0; first < n_rows; first = stop) {
        int64_t end[DOT_LANES + 2] = {0}, pairs = 0;
        uint8_t row[DOT_ROWS + TOGETHER] = {0};
        FN(DotTile) t = {.stride = stride, .tile = tile, .n_lanes = n_lanes};
        t.lane = asking->lane + first * n_lanes;
        for (stop = first; stop < n_rows && stop < first + DOT_ROWS; stop++) {
            if (pairs + asked[stop] > DOT_ROOM)
                break;
            pairs += asked[stop];
            end[asked[stop] + 1]++;
        }
        for (int64_t n = 1; n <= n_lanes; n++)
            end[n + 1] += end[n];
        for (int64_t r = first; r < stop; r++)
            row[end[asked[r]]++] = (uint8_t)(r - first);
        for (int64_t k = 0; k < n_lanes; k++)
            to[k] = out[k] + first;
        for (int64_t column = 0; column < length; column += width) {
            FN(Lanes) *kept = (FN(Lanes) *)room;
            t.columns = length - column < width ? length - column : width;
            t.rows = rows + first * stride + column;
            t.first = column == 0;
            t.last = column + width >= length;
            for (int64_t k = 0; k < n_lanes; k++)
                if (vector[k] != NULL)
                    memcpy(tile + k * t.columns, vector[k] + column, t.columns * sizeof(REAL));
            for (int64_t n = 1; n <= n_lanes; n++)
                kept = FN(dot_class)(n, &t, end[n] - end[n - 1], row + end[n - 1], kept, to);
        }
    }
}

#undef DOT_BYTES
#undef DOT_ROWS
#undef LINE
#undef LANES
#undef PARTIALS
#undef VECTORS
#undef TOGETHER
