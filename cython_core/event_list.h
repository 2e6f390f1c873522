/* Events whose rows are summed into one target, for add_rows_many of rows.h. */
#ifndef EVSIM_EVENT_LIST_H
#define EVSIM_EVENT_LIST_H

#include <stdint.h>

/* value and target are arrays of the kernel's float type; units increase. */
typedef struct {
    const int32_t *unit;
    const void *value;
    int64_t n;
    void *target;
    int64_t *macs; /* where what they cost is counted; not for the kernel */
    int64_t next;  /* scratch of the kernel: the first event that is still to be served */
} EventList;

#endif
