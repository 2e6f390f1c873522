"""When each unit of a lane has to be looked at again: at its next event, or to see whether there will be one.

A tournament over all units.  Every unit has exactly one entry, which is replaced when what it will do
changes: so no entry is ever stale, and memory does not grow.  Entries of 64 units share a node, 64 nodes a
node above, and so on.  A node holds a lower bound of what is below it: to make an entry earlier corrects the
nodes above it, to make it later leaves them for `schedule_peek` to correct when it passes.  Ties go to the
lower unit.
"""

from libc.math cimport INFINITY
from libc.stdint cimport int64_t
from libc.stdlib cimport free

from evsim.core.kernels cimport active
from evsim.core.memory cimport line_malloc

cdef enum:
    BRANCHES = 64
    MAX_LEVELS = 8      # 64^8 units

cdef struct Schedule:
    int n_levels
    int64_t size[MAX_LEVELS]        # entries, and nodes of each level above
    double *level[MAX_LEVELS]       # level[0] are the entries, in ms; INFINITY: nothing to come


cdef inline void schedule_free(Schedule *schedule) noexcept nogil:
    cdef int k
    for k in range(schedule.n_levels):
        free(schedule.level[k])
        schedule.level[k] = NULL


cdef inline bint schedule_open(Schedule *schedule, int64_t n) noexcept nogil:
    """A schedule of n entries, nothing to come; False if memory ran out."""
    cdef int64_t room
    cdef int64_t i
    cdef double *entries
    schedule.n_levels = 0
    while True:
        room = (max(n, 1) + 7) // 8 * 8
        entries = <double *> line_malloc(room * sizeof(double))
        if entries == NULL:
            schedule_free(schedule)
            return False
        for i in range(room):
            entries[i] = INFINITY
        schedule.level[schedule.n_levels] = entries
        schedule.size[schedule.n_levels] = n
        schedule.n_levels += 1
        if n <= BRANCHES:
            return True
        n = (n + BRANCHES - 1) // BRANCHES


cdef inline void schedule_set(Schedule *schedule, int64_t entry, double time) noexcept nogil:
    """Replace an entry."""
    cdef int k
    schedule.level[0][entry] = time
    for k in range(1, schedule.n_levels):
        entry = entry // BRANCHES
        if not time < schedule.level[k][entry]:
            return
        schedule.level[k][entry] = time


cdef inline void schedule_refresh(Schedule *schedule, int64_t first, int64_t count) noexcept nogil:
    """Correct the nodes above entries that were written into directly."""
    cdef int64_t stop = first + count
    cdef int k
    for k in range(1, schedule.n_levels):
        first = first // BRANCHES
        stop = (stop + BRANCHES - 1) // BRANCHES
        active.flow.lower_bounds(
            min(stop * BRANCHES, schedule.size[k - 1]) - first * BRANCHES, BRANCHES,
            schedule.level[k - 1] + first * BRANCHES, schedule.level[k] + first)


cdef inline int64_t schedule_peek(Schedule *schedule, double *time) noexcept nogil:
    """The earliest entry, and its time."""
    cdef int64_t node
    cdef int64_t first
    cdef int k
    cdef double below
    while True:
        k = schedule.n_levels - 1
        node = active.flow.least(schedule.size[k], schedule.level[k], time)
        while k > 0:
            first = node * BRANCHES
            first += active.flow.least(
                min(<int64_t> BRANCHES, schedule.size[k - 1] - first), schedule.level[k - 1] + first, &below)
            if below > time[0]:
                schedule.level[k][node] = below
                break
            node = first
            k -= 1
        if k == 0:
            return node
