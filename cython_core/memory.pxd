"""Memory that begins where a cache line does: a vector that is read across two lines takes twice as long."""

from libc.string cimport memset

cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t alignment, size_t size)

cdef enum:
    LINE = 64       # bytes; also the longest vector


cdef inline void *line_malloc(size_t size) noexcept nogil:
    """As malloc, from the start of a line on; to be freed as usual."""
    return aligned_alloc(LINE, (size // LINE + 1) * LINE)


cdef inline void *line_calloc(size_t size) noexcept nogil:
    """The same, zero."""
    cdef void *start = line_malloc(size)
    if start != NULL:
        memset(start, 0, size)
    return start
