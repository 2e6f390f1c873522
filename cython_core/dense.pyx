"""Dense arrays: their events, back from events, and the search for what is no number; a pass each."""

import numpy as np

from libc.float cimport DBL_MAX, FLT_MAX
from libc.math cimport fabs, signbit
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from evsim.core.buffers cimport address
from evsim.core.kernels cimport any_beyond, count_nonzero, list_nonzero
from evsim.core.layout cimport real

cdef enum:
    BEHIND = 16     # places that are written behind the last event of a bucket, see choose.h

# Floats by their bits.
ctypedef fused bits:
    uint32_t
    uint64_t


cdef int64_t find_beyond(int64_t n, const real *x, double limit) noexcept nogil:
    """The first entry larger in size than ``limit``, as infinity and NaN are; -1 if there is none."""
    cdef int64_t i
    if any_beyond(n, x, limit):
        for i in range(n):
            if not fabs(x[i]) <= limit:
                return i
    return -1


cdef bint count_events(int64_t buckets, int64_t n, const real *x, int64_t *ptr) noexcept nogil:
    """Fill the bucket pointers; False if an entry is not finite."""
    cdef int64_t count
    cdef int64_t k
    ptr[0] = 0
    for k in range(buckets):
        count = count_nonzero(n, x + k * n)
        if count < 0:
            return False
        ptr[k + 1] = ptr[k] + count
    return True


cdef bint list_events(
    int64_t buckets, int64_t n, const real *x, const int64_t *ptr, int32_t *unit, real *value
) noexcept nogil:
    """Write the events that were counted; False if there is no memory.

    What is written behind those of a bucket is overwritten by the next; the last ones need room of their own.
    """
    cdef int64_t total = ptr[buckets]
    cdef int64_t k = 0
    cdef int64_t start
    cdef int32_t *units
    cdef real *values
    while k < buckets and ptr[k + 1] + BEHIND <= total:
        list_nonzero(n, x + k * n, unit + ptr[k], value + ptr[k])
        k += 1
    start = ptr[k]
    units = <int32_t *> malloc((total - start + BEHIND) * sizeof(int32_t))
    values = <real *> malloc((total - start + BEHIND) * sizeof(real))
    if units != NULL and values != NULL:
        for k in range(k, buckets):
            list_nonzero(n, x + k * n, units + ptr[k] - start, values + ptr[k] - start)
        if start < total:       # else there may be no arrays to copy to
            memcpy(unit + start, units, (total - start) * sizeof(int32_t))
            memcpy(value + start, values, (total - start) * sizeof(real))
    free(units)
    free(values)
    return units != NULL and values != NULL


cdef bint write_events(
    int64_t buckets, int64_t n, const int64_t *ptr, int64_t total, const int32_t *unit, const bits *value,
    bits *x
) noexcept nogil:
    """Write events into zeros; False if they are not events of so many buckets and units."""
    cdef int64_t k
    cdef int64_t row
    for k in range(buckets):
        if not 0 <= ptr[k] <= ptr[k + 1] <= total:
            return False
        for row in range(ptr[k], ptr[k + 1]):
            if not 0 <= unit[row] < n:
                return False
            x[unit[row]] = value[row]
        x += n
    return True


def first_beyond(array, double limit=DBL_MAX):
    """Flat index of the first entry that is not finite or larger than ``limit`` in size; -1 if none is.

    ``array`` is contiguous float32 or float64.
    """
    cdef int64_t n = array.size
    cdef bint wide = array.itemsize == sizeof(double)
    cdef void *x = address(array, n, c"d" if wide else c"f")
    cdef int64_t found
    with nogil:
        if wide:
            found = find_beyond(n, <double *> x, limit)
        else:
            found = find_beyond(n, <float *> x, <float> min(limit, <double> FLT_MAX))
    return found


def increasing(time, value, double start, double stop):
    """Whether times increase, within [start, stop) and without a -0, and no value is zero.

    Both are contiguous float64 of one length.
    """
    cdef int64_t n = time.size
    cdef const double *t = <const double *> address(time, n, c"d")
    cdef const double *v = <const double *> address(value, n, c"d")
    cdef bint good = n == 0 or (t[0] >= start and not signbit(t[0]) and t[n - 1] < stop)
    cdef int64_t i
    if good:
        for i in range(n):
            good &= v[i] != 0 and (i == 0 or t[i] > t[i - 1])
    return good


def as_indices(numbers, int64_t limit):
    """Contiguous int64 as int32, shape (n,); None if one lies outside of 0..limit - 1."""
    cdef int64_t n = numbers.size
    cdef const int64_t *x = <const int64_t *> address(numbers, n, c"l")
    found = np.empty(n, np.int32)
    cdef int32_t *index = <int32_t *> address(found, n, c"i")
    cdef bint within = limit <= 0x7FFFFFFF
    cdef int64_t i
    for i in range(n):
        within &= 0 <= x[i] < limit
        index[i] = <int32_t> x[i]
    return found if within else None


def to_events(array):
    """The entries that are not zero, by bucket: ptr (n_buckets + 1,), unit, value; None if one is not finite.

    ``array`` is contiguous float32 or float64, shape (n_steps, n_lanes, n_units).
    """
    n_steps, n_lanes, n_units = array.shape
    cdef int64_t n = n_units
    cdef int64_t buckets = n_steps * n_lanes
    cdef bint wide = array.itemsize == sizeof(double)
    cdef char kind = c"d" if wide else c"f"
    cdef void *x = address(array, buckets * n, kind)
    cdef bint finite
    pointers = np.empty(buckets + 1, np.int64)
    cdef int64_t *ptr = <int64_t *> address(pointers, buckets + 1, c"l")
    with nogil:
        finite = (count_events(buckets, n, <double *> x, ptr) if wide
                  else count_events(buckets, n, <float *> x, ptr))
    if not finite:
        return None
    cdef int64_t total = ptr[buckets]
    units = np.empty(total, np.int32)
    values = np.empty(total, array.dtype)
    cdef int32_t *unit = <int32_t *> address(units, total, c"i")
    cdef void *value = address(values, total, kind)
    cdef bint good
    with nogil:
        good = (list_events(buckets, n, <double *> x, ptr, unit, <double *> value) if wide
                else list_events(buckets, n, <float *> x, ptr, unit, <float *> value))
    if not good:
        raise MemoryError("dense: no memory for the last events")
    return pointers, units, values


def from_tokens(tokens, int64_t n_units, values):
    """One event of value 1 from each token's unit, -1 for none: ptr (n + 1,), unit, value.

    None if an id lies outside of -1..n_units - 1.  ``tokens`` is contiguous int64, shape (n,) or (steps,
    lanes); ``values`` is the float type of what is made.
    """
    cdef int64_t n = tokens.size
    cdef const int64_t *token = <const int64_t *> address(tokens, n, c"l")
    cdef int64_t i
    cdef int64_t row
    pointers = np.empty(n + 1, np.int64)
    cdef int64_t *ptr = <int64_t *> address(pointers, n + 1, c"l")
    ptr[0] = 0
    for i in range(n):
        if not -1 <= token[i] < n_units:
            return None
        ptr[i + 1] = ptr[i] + (token[i] >= 0)
    units = np.empty(ptr[n], np.int32)
    cdef int32_t *unit = <int32_t *> address(units, ptr[n], c"i")
    for i in range(n):
        if token[i] >= 0:
            row = ptr[i]
            unit[row] = <int32_t> token[i]
    return pointers, units, np.ones(ptr[n], values)


def from_events(shape, ptr, unit, value):
    """A new array of ``shape``, (n_steps, n_lanes, n_units), with zeros where there is no event."""
    n_steps, n_lanes, n_units = shape
    cdef int64_t n = n_units
    cdef int64_t buckets = n_steps * n_lanes
    cdef int64_t total = unit.size
    cdef bint wide = value.itemsize == sizeof(double)
    cdef char kind = c"d" if wide else c"f"
    dense = np.zeros(shape, value.dtype)
    cdef void *x = address(dense, buckets * n, kind)
    cdef const int64_t *pointers = <const int64_t *> address(ptr, buckets + 1, c"l")
    cdef const int32_t *units = <const int32_t *> address(unit, total, c"i")
    cdef const void *values = address(value, total, kind)
    cdef bint fits
    with nogil:
        if wide:
            fits = write_events(buckets, n, pointers, total, units, <const uint64_t *> values, <uint64_t *> x)
        else:
            fits = write_events(buckets, n, pointers, total, units, <const uint32_t *> values, <uint32_t *> x)
    if not fits:
        raise IndexError("dense: an event outside the array")
    return dense


def joined(ptr, unit, value, later_ptr, later_unit, later_value):
    """The columns of some events, and of those in the buckets behind them, as those of one list."""
    cdef int64_t cells = ptr.size
    cdef int64_t more = later_ptr.size - 1
    cdef int64_t n = unit.size
    cdef int64_t n_later = later_unit.size
    cdef bint wide = later_value.itemsize == sizeof(double)
    cdef Py_ssize_t size = sizeof(double) if wide else sizeof(float)
    cdef char kind = c"d" if wide else c"f"
    cdef const int64_t *then = <const int64_t *> address(later_ptr, more + 1, c"l")
    cdef int64_t *pointer
    cdef int64_t k
    pointers = np.empty(cells + more, np.int64)
    pointer = <int64_t *> address(pointers, cells + more, c"l")
    memcpy(pointer, address(ptr, cells, c"l"), cells * sizeof(int64_t))
    for k in range(more):
        pointer[cells + k] = n + then[k + 1]
    if n == 0:
        return pointers, later_unit, later_value
    units, values = np.empty(n + n_later, np.int32), np.empty(n + n_later, later_value.dtype)
    put(units, address(unit, n, c"i"), n, address(later_unit, n_later, c"i"), n_later, sizeof(int32_t), c"i")
    put(values, address(value, n, kind), n, address(later_value, n_later, kind), n_later, size, kind)
    return pointers, units, values


cdef int put(
    array, const void *first, int64_t n, const void *later, int64_t n_later, Py_ssize_t size, char kind
) except -1:
    """Fill an array with n items, and as many later ones as there are."""
    cdef char *start = <char *> address(array, n + n_later, kind)
    memcpy(start, first, n * size)
    if n_later:
        memcpy(start + n * size, later, n_later * size)
    return 0
