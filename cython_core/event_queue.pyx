"""Ring of buckets for clocked runs.

An event sent at step t must reach each of its targets ``delay`` steps later.  Instead of one copy per delay,
a population keeps its events of the last ``depth`` steps, and a projection with delay d reads the bucket of d
steps ago: push, peek, advance.
"""

import numpy as np

from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy


cdef bint ring_push(Ring *ring, int64_t n, const int32_t *unit, const real *value) noexcept nogil:
    """Add events to the present bucket; False if memory ran out."""
    cdef Bucket *bucket = &ring.bucket[ring.head]
    cdef int64_t wanted = bucket.count + n
    cdef void *grown
    if wanted > bucket.capacity:
        wanted += wanted // 2
        grown = realloc(bucket.unit, wanted * sizeof(int32_t))
        if grown == NULL:
            return False
        bucket.unit = <int32_t *> grown
        grown = realloc(bucket.value, wanted * sizeof(real))
        if grown == NULL:
            return False
        bucket.value = grown
        bucket.capacity = <int32_t> wanted
    if n > 0:
        memcpy(bucket.unit + bucket.count, unit, n * sizeof(int32_t))
        memcpy(<real *> bucket.value + bucket.count, value, n * sizeof(real))
        bucket.count += <int32_t> n
    return True


cdef bint record_append(Record *record, int64_t n, const int32_t *unit, const real *value) noexcept nogil:
    """Add events to the list; False if memory ran out."""
    cdef int64_t wanted = record.count + n
    cdef void *grown
    if wanted > record.capacity:
        wanted += wanted // 2 + 64
        grown = realloc(record.unit, wanted * sizeof(int32_t))
        if grown == NULL:
            return False
        record.unit = <int32_t *> grown
        grown = realloc(record.value, wanted * sizeof(real))
        if grown == NULL:
            return False
        record.value = grown
        record.capacity = wanted
    if n > 0:
        memcpy(record.unit + record.count, unit, n * sizeof(int32_t))
        memcpy(<real *> record.value + record.count, value, n * sizeof(real))
        record.count += n
    return True


cdef class Rings:
    """The rings of all populations in all lanes.

    Parameters
    ----------
    depths : sequence of int
        Buckets of each population's rings: its longest outgoing delay + 1.
    n_lanes : int
    double_precision : bool
        Float type of the values.
    """

    def __cinit__(self, depths, int n_lanes, bint double_precision):
        cdef int p
        cdef int lane
        cdef Ring *ring
        self.n_populations = len(depths)
        self.n_lanes = n_lanes
        self.double_precision = double_precision
        self.rings = <Ring *> calloc(max(self.n_populations * n_lanes, 1), sizeof(Ring))
        if self.rings == NULL:
            raise MemoryError("event queue: no memory for the rings")
        for p in range(self.n_populations):
            for lane in range(n_lanes):
                ring = self.at(p, lane)
                ring.bucket = <Bucket *> calloc(depths[p], sizeof(Bucket))
                if ring.bucket == NULL:
                    raise MemoryError(f"event queue: no memory for {depths[p]} buckets")
                ring.depth = depths[p]

    def __dealloc__(self):
        cdef int i
        cdef int k
        if self.rings == NULL:
            return
        for i in range(self.n_populations * self.n_lanes):
            for k in range(self.rings[i].depth):
                free(self.rings[i].bucket[k].unit)
                free(self.rings[i].bucket[k].value)
            free(self.rings[i].bucket)
        free(self.rings)

    cdef Ring *at(self, int population, int lane) noexcept nogil:
        return &self.rings[population * self.n_lanes + lane]

    cdef Ring *_checked(self, int population, int lane) except NULL:
        if not (0 <= population < self.n_populations and 0 <= lane < self.n_lanes):
            raise IndexError(f"event queue: no ring for population {population}, lane {lane}")
        return self.at(population, lane)

    def clear(self):
        """Forget all events."""
        cdef int i
        cdef int k
        for i in range(self.n_populations * self.n_lanes):
            for k in range(self.rings[i].depth):
                self.rings[i].bucket[k].count = 0

    def push(self, int population, int lane, const int32_t[::1] unit, value):
        """Add events to the present bucket of one ring."""
        cdef Ring *ring = self._checked(population, lane)
        cdef const double[::1] wide
        cdef const float[::1] narrow
        cdef bint done
        if unit.shape[0] != len(value):
            raise ValueError(f"event queue: {unit.shape[0]} units for {len(value)} values")
        if unit.shape[0] == 0:
            return
        if self.double_precision:
            wide = value
            done = ring_push[double](ring, unit.shape[0], &unit[0], &wide[0])
        else:
            narrow = value
            done = ring_push[float](ring, unit.shape[0], &unit[0], &narrow[0])
        if not done:
            raise MemoryError("event queue: no memory for a bucket")

    def peek(self, int population, int lane, int ago):
        """Units (int32) and values of the bucket of ``ago`` steps ago, as new arrays."""
        cdef Ring *ring = self._checked(population, lane)
        if not 0 <= ago < ring.depth:
            raise IndexError(f"event queue: {ago} steps ago is outside 0..{ring.depth - 1}")
        cdef Bucket *bucket = ring_peek(ring, ago)
        unit = np.empty(bucket.count, np.int32)
        value = np.empty(bucket.count, np.float64 if self.double_precision else np.float32)
        cdef int32_t[::1] units = unit
        cdef unsigned char[::1] raw = value.view(np.uint8)
        if bucket.count:
            memcpy(&units[0], bucket.unit, bucket.count * sizeof(int32_t))
            memcpy(&raw[0], bucket.value, raw.shape[0])
        return unit, value

    def past(self, int population):
        """Events of all steps before the present one, oldest step first.

        Returns ptr (steps * lanes + 1,), unit, value.
        """
        cdef int steps = self._checked(population, 0).depth - 1
        cdef Py_ssize_t size = sizeof(double) if self.double_precision else sizeof(float)
        cdef int64_t row = 0
        cdef int ago
        cdef int lane
        cdef Bucket *bucket
        pointers = np.zeros(steps * self.n_lanes + 1, np.int64)
        cdef int64_t[::1] ptr = pointers
        for ago in range(steps, 0, -1):
            for lane in range(self.n_lanes):
                row += ring_peek(self.at(population, lane), ago).count
                ptr[(steps - ago) * self.n_lanes + lane + 1] = row
        units = np.empty(row, np.int32)
        values = np.empty(row, np.float64 if self.double_precision else np.float32)
        cdef int32_t[::1] unit = units
        cdef unsigned char[::1] value = values.view(np.uint8)
        row = 0
        for ago in range(steps, 0, -1):
            for lane in range(self.n_lanes):
                bucket = ring_peek(self.at(population, lane), ago)
                if bucket.count:
                    memcpy(&unit[row], bucket.unit, bucket.count * sizeof(int32_t))
                    memcpy(&value[row * size], bucket.value, bucket.count * size)
                    row += bucket.count
        return pointers, units, values

    def advance(self, int population, int lane):
        """Begin the next step of one ring."""
        ring_advance(self._checked(population, lane))
