/* Where the rows of a sparse matrix are kept, for the kernels of sparse_rows.h; filled in fanout.pxd. */
#ifndef EVSIM_SPARSE_FORMAT_H
#define EVSIM_SPARSE_FORMAT_H

#include <stdint.h>

/* The blocks that are wanted of row u are the items ptr[u * stride] : ptr[u * stride + width] of the stored
 * weights and of `column`.  Columns are places in a lane's accumulators, each at most once in a row. */
typedef struct {
    const int64_t *ptr;
    const void *column; /* uint16_t or, if wide, int32_t */
    int32_t wide;
    int32_t stride; /* blocks of a row, */
    int32_t width;  /* and how many of them are wanted */
} SparseRows;

#endif
