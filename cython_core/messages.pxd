"""Events in flight: a binary heap of what will arrive where, and when.

The order is total, (time, source, event, projection, place in the row): so what comes out does not depend on
what went in first.  An event whose synapses have different delays is in the heap once per projection, with
the place of its next group of targets.
"""

from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free, realloc

# The NumPy twin is MESSAGE in continuous_forward.pyx.
cdef struct Message:
    double time         # of arrival, in ms
    double sent         # ms
    double value        # payload
    double gated        # payload for what the sender's reset gate multiplies
    int64_t source      # entry of the sending unit, counted over all populations
    int64_t event       # number of the event in its lane; below 0 for those from before the window
    int64_t place       # first pair of the group, in the order of the projection's rows
    int32_t projection
    int32_t row         # the sending unit

cdef struct Messages:
    int64_t count
    int64_t capacity
    Message *item


cdef inline bint before(const Message *a, const Message *b) noexcept nogil:
    if a.time != b.time:
        return a.time < b.time
    if a.source != b.source:
        return a.source < b.source
    if a.event != b.event:
        return a.event < b.event
    if a.projection != b.projection:
        return a.projection < b.projection
    return a.place < b.place


cdef inline bint messages_push(Messages *heap, Message message) noexcept nogil:
    """False if memory ran out."""
    cdef int64_t here
    cdef int64_t parent
    cdef void *grown
    if heap.count == heap.capacity:
        grown = realloc(heap.item, (2 * heap.capacity + 64) * sizeof(Message))
        if grown == NULL:
            return False
        heap.item = <Message *> grown
        heap.capacity = 2 * heap.capacity + 64
    here = heap.count
    heap.count += 1
    while here > 0:
        parent = (here - 1) // 2
        if not before(&message, &heap.item[parent]):
            break
        heap.item[here] = heap.item[parent]
        here = parent
    heap.item[here] = message
    return True


cdef inline const Message *messages_peek(const Messages *heap) noexcept nogil:
    """The next to arrive; NULL if none is in flight."""
    return heap.item if heap.count else NULL


cdef inline Message messages_pop(Messages *heap) noexcept nogil:
    """The next to arrive; there must be one."""
    cdef Message first = heap.item[0]
    cdef Message last
    cdef int64_t here = 0
    cdef int64_t child
    heap.count -= 1
    last = heap.item[heap.count]
    while True:
        child = 2 * here + 1
        if child >= heap.count:
            break
        if child + 1 < heap.count and before(&heap.item[child + 1], &heap.item[child]):
            child += 1
        if not before(&heap.item[child], &last):
            break
        heap.item[here] = heap.item[child]
        here = child
    if heap.count:
        heap.item[here] = last
    return first


cdef inline void messages_free(Messages *heap) noexcept nogil:
    free(heap.item)
    heap.item = NULL
    heap.count = heap.capacity = 0
