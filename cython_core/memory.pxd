"""Memory that begins where a cache line does, and memory that is taken row by row.

A vector that is read across two lines takes twice as long.
"""

cimport numpy as np
from libc.stdint cimport int64_t
from libc.string cimport memset

cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t alignment, size_t size)

cdef extern from *:
    """
    #include <stddef.h>
    #include <stdint.h>
    #include <sys/mman.h>
    #include <unistd.h>

    enum { EVSIM_PAGE_OUT = 21, EVSIM_POPULATE_WRITE = 23 }; /* of Linux; headers may be older than it */

    /* Advise the system on all pages that hold some of the bytes; what it does not know it refuses. */
    static inline void evsim_advise(const void *start, size_t size, int advice)
    {
    #ifdef __linux__
        uintptr_t page = (uintptr_t) sysconf(_SC_PAGESIZE), first = (uintptr_t) start / page * page;
        madvise((void *) first, ((uintptr_t) start + size - first + page - 1) / page * page, advice);
    #endif
    }
    """
    enum:
        EVSIM_PAGE_OUT
        EVSIM_POPULATE_WRITE
    void evsim_advise(const void *start, size_t size, int advice) nogil

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


cdef inline int64_t place(void **array, char *start, int64_t at, int64_t size) noexcept nogil:
    """Have an array begin ``at`` bytes behind ``start``, unless that is NULL.

    Returns where the next may, at a line behind ``size`` bytes.  So a block is laid out in two calls of one
    function: the first finds its size.
    """
    if start != NULL:
        array[0] = start + at
    return at + (size + LINE - 1) // LINE * LINE


cdef inline void take_row(unsigned char *taken, const void *rows, int64_t row, int64_t size) noexcept nogil:
    """Before the first use of a row of ``size`` bytes: have the system put just its pages into memory.

    Of a file that is mapped copy-on-write a first *read* would map the file's pages far around it too, 2 MB
    at a time; of fresh memory the pages would come one by one.  Only advice: what it does not do is done when
    the row is used.  ``taken``, a byte for each row, says which ones were; NULL: there is nothing to be done.
    """
    if taken != NULL and not taken[row]:
        taken[row] = 1      # threads that come here with one row write the same and ask for the same
        evsim_advise(<const char *> rows + row * size, size, EVSIM_POPULATE_WRITE)


# Objects, because attributes of an `np.ndarray` may need the table of NumPy's functions, which only modules
# have that import it.
cpdef object empty(tuple shape, np.dtype dtype)
cpdef object zeros(tuple shape, np.dtype dtype)
