/* Weight rows: add scaled rows to a vector (events forwards, and weight gradients), dot rows with a vector
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

/* Sixteen partial sums, folded in a fixed tree: the same bits for every vector width. */
#define PARTIALS 16

static inline REAL FN(fold)(REAL *partial)
{
    for (int width = PARTIALS / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++)
            partial[i] += partial[i + width];
    return partial[0];
}

/* out[e] += rows[unit[e] * stride : + length] . vector */
TARGET void FN(dot_rows)(
    int64_t n_units, const int32_t *restrict unit, const REAL *restrict rows, int64_t stride, int64_t length,
    const REAL *restrict vector, REAL *restrict out)
{
    const int64_t whole = length - length % PARTIALS;
    for (int64_t e = 0; e < n_units; e++) {
        const REAL *restrict row = rows + unit[e] * stride;
        REAL partial[PARTIALS] = {0}, rest = 0;
        for (int64_t i = 0; i < whole; i += PARTIALS)
            for (int j = 0; j < PARTIALS; j++)
                partial[j] += row[i + j] * vector[i + j];
        for (int64_t i = whole; i < length; i++)
            rest += row[i] * vector[i];
        out[e] += whole ? FN(fold)(partial) + rest : rest; /* a readout's rows may be very short */
    }
}

#undef PARTIALS
