"""Ring of buckets: the events of the last steps of one population in one lane, a bucket a step."""

from libc.stdint cimport int32_t, int64_t

from evsim.core.layout cimport real

cdef struct Bucket:
    int32_t count
    int32_t capacity
    int32_t *unit
    void *value

cdef struct Ring:
    int32_t depth       # buckets: the longest delay + 1
    int32_t head        # the bucket of the present step
    Bucket *bucket

# Growing list of events of one population in one lane, with the number of each step.
cdef struct Record:
    int64_t count
    int64_t capacity
    int32_t *unit
    void *value
    int32_t *per_step


cdef inline Bucket *ring_peek(Ring *ring, int32_t ago) noexcept nogil:
    """The bucket of ``ago`` steps ago, 0 <= ago < depth."""
    cdef int32_t slot = ring.head - ago
    return &ring.bucket[slot if slot >= 0 else slot + ring.depth]


cdef inline void ring_advance(Ring *ring) noexcept nogil:
    """Begin the next step: its bucket, the oldest one, is emptied."""
    ring.head = ring.head + 1 if ring.head + 1 < ring.depth else 0
    ring.bucket[ring.head].count = 0


cdef bint ring_push(Ring *ring, int64_t n, const int32_t *unit, const real *value) noexcept nogil
cdef bint record_append(Record *record, int64_t n, const int32_t *unit, const real *value) noexcept nogil


cdef class Rings:
    cdef Ring *rings
    cdef readonly int n_populations
    cdef readonly int n_lanes
    cdef readonly bint double_precision
    cdef Ring *at(self, int population, int lane) noexcept nogil
    cdef Ring *_checked(self, int population, int lane) except NULL
