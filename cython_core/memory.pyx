"""Memory of arrays; see memory.pxd.

Large blocks that are given back are kept for the next array of about that size: training asks for the same
ones in every step, and the system hands out fresh memory page by page, each of which it has to clear.
"""

from numpy import ndarray

from cpython.buffer cimport PyBuffer_FillInfo
from libc.stdlib cimport free, malloc
from libc.string cimport memset

cdef extern from *:
    """
    #include <sys/mman.h>
    static void evsim_huge_pages(void *start, size_t size)
    {
    #ifdef MADV_HUGEPAGE
        madvise(start, size, MADV_HUGEPAGE); /* no harm if it is refused */
    #endif
    }
    """
    void evsim_huge_pages(void *start, size_t size) nogil

cdef enum:
    PAGE = 2097152              # bytes of a huge page; smaller blocks are left to the C library
    MOST_KEPT = 268435456       # bytes of all blocks that are kept

cdef list kept = []             # (bytes, address), the longest kept first
cdef Py_ssize_t bytes_kept = 0


cdef class Block:
    """So many bytes from the start of a cache line on, to be the buffer of an array."""

    cdef void *allocated
    cdef char *start
    cdef Py_ssize_t size

    def __cinit__(self, Py_ssize_t size, bint zero):
        self.size = size
        if size < PAGE:         # for small ones malloc and some bytes more are faster than aligned_alloc
            self.allocated = malloc(size + LINE)
            self.start = <char *> self.allocated + (LINE - <size_t> self.allocated % LINE) % LINE
        else:
            self.allocated = large(rounded(size))
            self.start = <char *> self.allocated
        if self.allocated == NULL:
            raise MemoryError(f"no memory for an array of {size} bytes")
        if zero:
            memset(self.start, 0, size)

    def __dealloc__(self):
        if self.allocated != NULL and PAGE <= self.size <= MOST_KEPT:
            keep(self.allocated, rounded(self.size))
        else:
            free(self.allocated)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.start, self.size, 0, flags)


cdef Py_ssize_t rounded(Py_ssize_t size):
    """Whole pages, an eighth more at most: arrays of about the same size can have each other's blocks."""
    cdef Py_ssize_t unit = PAGE
    while 16 * unit <= size:
        unit *= 2
    return (size + unit - 1) // unit * unit


cdef void *large(Py_ssize_t size):
    """A block that was kept, or a new one; NULL if there is no memory even without those that are kept."""
    global bytes_kept
    cdef void *start
    for i in range(len(kept) - 1, -1, -1):
        if kept[i][0] == size:
            bytes_kept -= size
            return <void *> <size_t> kept.pop(i)[1]
    start = aligned_alloc(PAGE, size)
    if start == NULL:
        let_go()
        start = aligned_alloc(PAGE, size)
    if start != NULL:
        evsim_huge_pages(start, size)
    return start


cdef keep(void *start, Py_ssize_t size):
    """Keep a block, and in its place give back those that waited longest if that becomes too much."""
    global bytes_kept
    kept.append((size, <size_t> start))
    bytes_kept += size
    while bytes_kept > MOST_KEPT:
        first, address = kept.pop(0)
        bytes_kept -= first
        free(<void *> <size_t> address)


def let_go():
    """Give the blocks that are kept back to the C library; returns their bytes."""
    global bytes_kept
    given = bytes_kept
    for _, address in kept:
        free(<void *> <size_t> address)
    kept.clear()
    bytes_kept = 0
    return given


def empty(tuple shape, dtype):
    """As `numpy.empty`, from the start of a cache line on."""
    return ndarray(shape, dtype, Block(size_of(shape, dtype), False))


def zeros(tuple shape, dtype):
    """As `numpy.zeros`, from the start of a cache line on."""
    return ndarray(shape, dtype, Block(size_of(shape, dtype), True))


def copy(array):
    """As ``array.copy()``, from the start of a cache line on."""
    copied = empty(array.shape, array.dtype)
    copied[...] = array
    return copied


cdef Py_ssize_t size_of(tuple shape, dtype) except -1:
    cdef Py_ssize_t size = dtype.itemsize
    cdef Py_ssize_t n
    for n in shape:
        size *= n
    return size
