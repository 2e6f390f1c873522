/* What the kernels of rows.h share with those who call them. */
#ifndef EVSIM_EVENT_LIST_H
#define EVSIM_EVENT_LIST_H

#include <stdint.h>

/* Events whose rows are summed into one target, for add_rows_many.
 *
 * value and target are arrays of the kernel's float type; units increase. */
typedef struct {
    const int32_t *unit;
    const void *value;
    int64_t n;
    void *target;
    int64_t *macs; /* where what they cost is counted; not for the kernel */
    int64_t next;  /* scratch of the kernel: the first event that is still to be served */
} EventList;

/* Of dot_lanes: lanes at most, and how many pairs of a row and a lane have room, with DOT_SUMS sums each. */
enum { DOT_LANES = 16, DOT_ROOM = 2048, DOT_SUMS = 16 };

/* Which of up to DOT_LANES lanes ask for each row, for dot_lanes. */
typedef struct {
    int64_t n_lanes;
    uint8_t *count; /* by row: how many, */
    uint8_t *lane;  /* and which, in n_lanes places */
} Asking;

#endif
