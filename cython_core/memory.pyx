"""Memory of arrays; see memory.pxd."""

from cpython.buffer cimport PyBuffer_FillInfo
from libc.stdlib cimport free


cdef class Block:
    """So many bytes from the start of a cache line on, to be the buffer of an array."""

    cdef void *start
    cdef Py_ssize_t size

    def __cinit__(self, Py_ssize_t size, bint zero):
        self.size = size
        self.start = line_calloc(max(size, 1)) if zero else line_malloc(max(size, 1))
        if self.start == NULL:
            raise MemoryError(f"no memory for an array of {size} bytes")

    def __dealloc__(self):
        free(self.start)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.start, self.size, 0, flags)
