"""The event queue of a clocked run: what one population sends in one lane, a bucket a step.

An event sent at step t must reach each of its targets ``delay`` steps later.  Instead of one copy per delay,
the queue keeps its buckets and a projection with delay d peeks at the one of d steps ago.  Nothing is thrown
away: what the buckets hold in the end is the log.
"""

from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memmove

# Bucket of step t: ptr[k] to ptr[k + 1] with k = (history + t) * row.
cdef struct Queue:
    int64_t history     # steps before the window whose buckets are at hand
    int64_t row         # lanes side by side in ptr
    int64_t now         # step of the open bucket, which is the last one
    int64_t capacity    # events there is room for; 0 if the arrays are someone else's
    int64_t *ptr
    int32_t *unit
    void *value


cdef inline const int64_t *queue_peek(const Queue *queue, int64_t step) noexcept nogil:
    """The two pointers around the bucket of a step, which may lie before the window."""
    return queue.ptr + (queue.history + step) * queue.row


cdef inline void queue_push(Queue *queue, int32_t count) noexcept nogil:
    """Close the open bucket, into which ``count`` events were written, and open the next."""
    cdef int64_t *last = queue.ptr + queue.history + queue.now
    last[1] = last[0] + count
    queue.now += 1


cdef inline bint queue_open(
    Queue *queue, int64_t history, int64_t n_steps, int64_t capacity, Py_ssize_t size
) noexcept nogil:
    """A queue of its own, with room for so many events; False if memory ran out.

    ``size`` is that of a value in bytes.
    """
    queue.history = history
    queue.row = 1
    queue.now = -history
    queue.capacity = capacity
    queue.ptr = <int64_t *> calloc(history + n_steps + 1, sizeof(int64_t))
    queue.unit = <int32_t *> malloc(queue.capacity * sizeof(int32_t))
    queue.value = malloc(queue.capacity * size)
    return queue.ptr != NULL and queue.unit != NULL and queue.value != NULL


cdef inline bint queue_room(Queue *queue, int64_t n, Py_ssize_t size) noexcept nogil:
    """Make room for n more events in the open bucket; False if memory ran out."""
    cdef int64_t wanted = queue.ptr[queue.history + queue.now] + n
    cdef void *grown
    if wanted <= queue.capacity:
        return True
    wanted += wanted // 2
    grown = realloc(queue.unit, wanted * sizeof(int32_t))
    if grown == NULL:
        return False
    queue.unit = <int32_t *> grown
    grown = realloc(queue.value, wanted * size)
    if grown == NULL:
        return False
    queue.value = grown
    queue.capacity = wanted
    return True


cdef inline void queue_again(Queue *queue, Py_ssize_t size) noexcept nogil:
    """Keep the last ``history`` buckets of a window that is over, as those before the next one."""
    cdef int64_t k
    cdef int64_t first = queue.ptr[queue.now]
    cdef int64_t count = queue.ptr[queue.now + queue.history] - first
    memmove(queue.unit, queue.unit + first, count * sizeof(int32_t))
    memmove(queue.value, <char *> queue.value + first * size, count * size)
    for k in range(queue.history + 1):
        queue.ptr[k] = queue.ptr[queue.now + k] - first
    queue.now = 0


cdef inline void queue_free(Queue *queue) noexcept nogil:
    if queue.capacity:
        free(queue.ptr)
        free(queue.unit)
        free(queue.value)
