"""Addresses of NumPy arrays, with all that must hold checked: cheaper than memoryviews or ``ctypes``.

Only what NumPy's headers read from an array itself: modules that use this need no table of its functions.
"""

cimport numpy as np
from libc.stdint cimport int64_t
from libc.string cimport memcpy

from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer


cdef inline int64_t length(np.ndarray array) noexcept:
    """How many items it has, whatever its shape."""
    cdef int64_t n = 1
    cdef int k
    for k in range(np.PyArray_NDIM(array)):
        n *= np.PyArray_DIMS(array)[k]
    return n


cdef inline bint holds_kind(np.ndarray array, char kind) noexcept:
    """Whether its items are of that kind, see `address`, in the byte order of this machine."""
    cdef char found = (<np.dtype> np.PyArray_DESCR(array)).type
    if found == c"q" and sizeof(long long) == 8 or found == c"l" and sizeof(long) == 8:
        found = c"l"
    elif found == c"l":
        found = c"i"
    return found == kind and np.PyArray_ISNOTSWAPPED(array)


cdef inline void *address(object array, Py_ssize_t size, char kind) except? NULL:
    """Address of the first item; NULL for None, or if ``size`` is 0.  The array must be kept alive elsewhere.

    ``kind`` is b"l" for int64, b"i" for int32, and what NumPy calls other types: b"d" and b"f" for floats,
    b"?" for bool.  Raises ValueError if the array is of another type or size, or not contiguous.
    """
    cdef np.ndarray given
    if array is None or size == 0:
        return NULL
    given = array
    if not (np.PyArray_IS_C_CONTIGUOUS(given) and holds_kind(given, kind) and length(given) == size):
        raise ValueError("core: an array does not fit")
    return np.PyArray_DATA(given)


cdef inline int fill(object array, const void *items, Py_ssize_t size) except -1:
    """Copy so many bytes into an array of that many, of whatever type."""
    cdef Py_buffer view
    PyObject_GetBuffer(array, &view, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)
    if view.len == size:
        memcpy(view.buf, items, size)
    size -= view.len
    PyBuffer_Release(&view)
    if size:
        raise ValueError("core: an array does not fit")
    return 0


cdef inline list sums(const int64_t *table, int64_t rows, int64_t columns):
    """Column by column, as Python integers."""
    cdef int64_t row
    cdef int64_t column
    cdef int64_t total
    found = []
    for column in range(columns):
        total = 0
        for row in range(rows):
            total += table[row * columns + column]
        found.append(total)
    return found
