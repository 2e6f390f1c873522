"""Gains of a projection in one lane, real[units of its source]: factors of the payloads that go through it.

Where a gain is 0, the event does not go that way: its row is read neither forwards nor backwards.
"""

from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free, malloc

from evsim.core.event_queue cimport Queue, queue_peek
from evsim.core.fanout cimport gather
from evsim.core.layout cimport ProjectionRow, real
from evsim.core.team cimport Team, wait

# Events of some steps as they come through.
cdef struct Passed:
    int64_t *ptr        # [steps + 1], given: those of step i are ptr[i]:ptr[i + 1]
    int32_t *unit       # [capacity]
    void *value         # real[capacity]
    int64_t capacity    # 0 at first

# Backwards: units whose events came through, where they stand in the list they are from, what comes back.
cdef struct Heard:
    int32_t *unit
    int32_t *place
    void *total         # real


cdef inline void passed_free(Passed *passed) noexcept nogil:
    free(passed.unit)
    free(passed.value)


cdef inline bint let_through(
    Passed *passed, const real *gain, const Queue *queue, int64_t first, int64_t n_steps
) noexcept nogil:
    """List the events of some steps of a lane as they come through; False if memory ran out."""
    cdef const real *value = <const real *> queue.value
    cdef const int64_t *bucket
    cdef real *into
    cdef int64_t n = 0
    cdef int64_t i
    cdef int64_t e
    for i in range(n_steps):
        bucket = queue_peek(queue, first + i)
        n += bucket[1] - bucket[0]
    if n > passed.capacity:
        n += n // 2
        free(passed.unit)
        free(passed.value)
        passed.unit = <int32_t *> malloc(n * sizeof(int32_t))
        passed.value = malloc(n * sizeof(real))
        passed.capacity = n
        if passed.unit == NULL or passed.value == NULL:
            return False
    into = <real *> passed.value
    n = 0
    for i in range(n_steps):
        passed.ptr[i] = n
        bucket = queue_peek(queue, first + i)
        for e in range(bucket[0], bucket[1]):
            if gain[queue.unit[e]] != 0:
                passed.unit[n] = queue.unit[e]
                into[n] = gain[queue.unit[e]] * value[e]
                n += 1
    passed.ptr[n_steps] = n
    return True


cdef inline void share_passed(
    Passed *passed, const Team *team, const real *gain, const Queue *queue, int64_t first, int64_t n_steps,
    bint *good
) noexcept nogil:
    """`let_through`, by member 0 for its whole team; not ``good`` for all of them if memory ran out."""
    wait(team)      # nobody reads what was let through before
    if team.member == 0 and good[0]:
        good[0] = let_through(passed, gain, queue, first, n_steps)
    wait(team)


cdef inline int64_t counted(
    const ProjectionRow *p, const Queue *queue, int64_t first, int64_t n_steps, const real *gain
) noexcept nogil:
    """The MACs of events whose products are made elsewhere; without gains, ``gain`` is NULL."""
    cdef const int64_t *bucket
    cdef int64_t n = 0
    cdef int64_t i
    cdef int64_t e
    for i in range(n_steps):
        bucket = queue_peek(queue, first + i)
        if gain == NULL:
            n += bucket[1] - bucket[0]
            continue
        for e in range(bucket[0], bucket[1]):
            n += gain[queue.unit[e]] != 0
    return n * p.n_blocks * p.block


cdef inline int64_t gather_heard(
    const ProjectionRow *p, const real *gain, int64_t n, const int32_t *unit, const real *D, real *dy,
    Heard *heard
) noexcept nogil:
    """dy += gain times row . D, for some units."""
    cdef real *total = <real *> heard.total
    cdef int64_t n_heard = 0
    cdef int64_t macs
    cdef int64_t i
    for i in range(n):
        if gain[unit[i]] != 0:
            heard.unit[n_heard] = unit[i]
            heard.place[n_heard] = <int32_t> i
            total[n_heard] = 0
            n_heard += 1
    macs = gather(p, 0, p.n_blocks, n_heard, heard.unit, D, total)
    for i in range(n_heard):
        dy[heard.place[i]] += gain[heard.unit[i]] * total[i]
    return macs
