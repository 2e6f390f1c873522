"""Memory of arrays; see memory.pxd."""

from numpy import ndarray

from cpython.buffer cimport PyBuffer_FillInfo
from libc.stdlib cimport free, malloc
from libc.string cimport memset


cdef class Block:
    """So many bytes from the start of a cache line on, to be the buffer of an array."""

    cdef void *allocated    # malloc and some bytes more are faster than aligned_alloc
    cdef char *start
    cdef Py_ssize_t size

    def __cinit__(self, Py_ssize_t size, bint zero):
        self.size = size
        self.allocated = malloc(size + LINE)
        if self.allocated == NULL:
            raise MemoryError(f"no memory for an array of {size} bytes")
        self.start = <char *> self.allocated + (LINE - <size_t> self.allocated % LINE) % LINE
        if zero:
            memset(self.start, 0, size)

    def __dealloc__(self):
        free(self.allocated)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.start, self.size, 0, flags)


def empty(tuple shape, dtype):
    """As `numpy.empty`, from the start of a cache line on."""
    return ndarray(shape, dtype, Block(size_of(shape, dtype), False))


def zeros(tuple shape, dtype):
    """As `numpy.zeros`, from the start of a cache line on."""
    return ndarray(shape, dtype, Block(size_of(shape, dtype), True))


cdef Py_ssize_t size_of(tuple shape, dtype) except -1:
    cdef Py_ssize_t size = dtype.itemsize
    cdef Py_ssize_t n
    for n in shape:
        size *= n
    return size
