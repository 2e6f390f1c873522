"""Memory of arrays; see memory.pxd.

Blocks that are given back are kept for the next array of about that size: training asks for the same ones in
every step, and the system hands out fresh memory page by page, each of which it has to clear.  The C library
keeps smaller ones as well, but puts them together and cuts them up again each time.
"""

from numpy import ndarray

from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

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
    LEAST_KEPT = 16384          # bytes; smaller blocks are left to the C library
    SMALL_PAGE = 4096
    HUGE_PAGE = 2097152         # blocks as large as one begin with one
    MOST_KEPT = 268435456       # bytes of all blocks that are kept

cdef dict kept = {}             # bytes: addresses; sizes that have waited longest first
cdef Py_ssize_t bytes_kept = 0


cdef class Block:
    """So many bytes from the start of a cache line on, to be the buffer of an array."""

    cdef void *allocated
    cdef char *start
    cdef Py_ssize_t size

    def __cinit__(self, Py_ssize_t size, bint zero):
        self.size = size
        if size < LEAST_KEPT:   # for small ones malloc and some bytes more are faster than aligned_alloc
            self.allocated = malloc(size + LINE)
            self.start = <char *> self.allocated + (LINE - <size_t> self.allocated % LINE) % LINE
        else:
            self.allocated = take(rounded(size))
            self.start = <char *> self.allocated
        if self.allocated == NULL:
            raise MemoryError(f"no memory for an array of {size} bytes")
        if zero:
            memset(self.start, 0, size)

    def __dealloc__(self):
        if self.allocated != NULL and LEAST_KEPT <= self.size <= MOST_KEPT:
            keep(self.allocated, rounded(self.size))
        else:
            free(self.allocated)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.start, self.size, 0, flags)


cdef Py_ssize_t rounded(Py_ssize_t size):
    """Whole pages, an eighth more at most: arrays of about the same size can have each other's blocks."""
    cdef Py_ssize_t unit = SMALL_PAGE if size < HUGE_PAGE else HUGE_PAGE
    while 16 * unit <= size:
        unit *= 2
    return (size + unit - 1) // unit * unit


cdef void *take(Py_ssize_t size):
    """A block that was kept, or a new one; NULL if there is no memory even without those that are kept."""
    global bytes_kept
    cdef list waiting = kept.get(size)
    cdef Py_ssize_t alignment = LINE if size < HUGE_PAGE else HUGE_PAGE
    cdef void *start
    if waiting:
        bytes_kept -= size
        return <void *> <size_t> waiting.pop()
    start = aligned_alloc(alignment, size)
    if start == NULL:
        let_go()
        start = aligned_alloc(alignment, size)
    if start != NULL and size >= HUGE_PAGE:
        evsim_huge_pages(start, size)
    return start


cdef keep(void *start, Py_ssize_t size):
    """Keep a block, and in its place give back those that waited longest if that becomes too much."""
    global bytes_kept
    cdef list waiting = kept.get(size)
    if waiting is None:
        waiting = kept[size] = []
    waiting.append(<size_t> start)
    bytes_kept += size
    while bytes_kept > MOST_KEPT:
        first = next(iter(kept))
        waiting = kept.pop(first)   # to the end of the line, if any are left
        if waiting:
            bytes_kept -= first
            free(<void *> <size_t> waiting.pop(0))
            kept[first] = waiting


def let_go():
    """Give the blocks that are kept back to the C library; returns their bytes."""
    global bytes_kept
    given = bytes_kept
    for waiting in kept.values():
        for address in waiting:
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
    """As ``array.copy()`` of a C-contiguous array, from the start of a cache line on."""
    cdef Py_buffer view
    cdef Block block
    PyObject_GetBuffer(array, &view, PyBUF_C_CONTIGUOUS)
    block = Block(view.len, False)
    memcpy(block.start, view.buf, view.len)
    PyBuffer_Release(&view)
    return ndarray(array.shape, array.dtype, block)


def page_out(size_t address, size_t size):
    """Have the system forget pages of a mapped file, which it can read again, but not those written to here.

    No value changes.  Linux does so from 5.4 on, if this process may write the file.
    """
    evsim_advise(<const void *> address, size, EVSIM_PAGE_OUT)


cdef Py_ssize_t size_of(tuple shape, dtype) except -1:
    cdef Py_ssize_t size = dtype.itemsize
    cdef Py_ssize_t n
    for n in shape:
        size *= n
    return size
