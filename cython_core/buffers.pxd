"""Addresses of NumPy arrays, with all that must hold checked: cheaper than a memoryview or ``ctypes``."""

from libc.stdint cimport int64_t
from libc.string cimport memcpy

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS,
    PyBUF_FORMAT,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)


cdef inline void *address(object array, Py_ssize_t size, char kind) except? NULL:
    """Address of the first item; NULL for None, or if ``size`` is 0.  The array must be kept alive elsewhere.

    ``kind`` is b"l" for int64, b"i" for int32, b"d" and b"f" for floats, b"?" for bool.  Raises ValueError if
    the array is of another type or size, or not contiguous.
    """
    cdef Py_buffer view
    cdef void *first
    cdef bint fits
    if array is None or size == 0:
        return NULL
    PyObject_GetBuffer(array, &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
    first = view.buf
    fits = view.len == size * view.itemsize and (
        view.format[0] == kind or (kind == c"l" and view.format[0] == c"q" and view.itemsize == 8))
    PyBuffer_Release(&view)
    if not fits:
        raise ValueError("core: an array does not fit")
    return first


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
