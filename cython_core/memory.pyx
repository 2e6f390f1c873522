"""Memory of arrays; see memory.pxd.

Blocks that are given back are kept for the next array of about that size: training asks for the same ones in
every step, and the system hands out fresh memory page by page, each of which it has to clear.  The C library
keeps smaller ones as well, but puts them together and cuts them up again each time.
"""

cimport cython
cimport numpy as np
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
    N_SMALL = 7
    MOST_ALIKE = 32
    MOST_AXES = 8

# Blocks that are kept, the last ones given back first to be taken.
cdef struct Stack:
    int n
    void *start[MOST_ALIKE]

cdef Stack small[N_SMALL]       # of powers of two, from LEAST_KEPT on, below HUGE_PAGE
cdef dict kept = {}             # larger ones, bytes: addresses; sizes that have waited longest first
cdef Py_ssize_t bytes_kept = 0


np.import_array()


@cython.freelist(16)
cdef class Block:
    """So many bytes from the start of a cache line on, which an array owns."""

    cdef void *allocated
    cdef char *start
    cdef Py_ssize_t size

    cdef int open(self, Py_ssize_t size) except -1:
        self.size = size
        if size < LEAST_KEPT:   # for small ones malloc and some bytes more are faster than aligned_alloc
            self.allocated = malloc(size + LINE)
            self.start = <char *> self.allocated + (LINE - <size_t> self.allocated % LINE) % LINE
        else:
            self.allocated = take(rounded(size))
            self.start = <char *> self.allocated
        if self.allocated == NULL:
            raise MemoryError(f"no memory for an array of {size} bytes")
        return 0

    def __dealloc__(self):
        if self.allocated != NULL and LEAST_KEPT <= self.size <= MOST_KEPT:
            keep(self.allocated, rounded(self.size))
        else:
            free(self.allocated)


cdef Py_ssize_t rounded(Py_ssize_t size):
    """The size of the block that an array takes, so that arrays of other sizes can have it later.

    Below huge pages a power of two: what is not used is not touched, and the trials of a task, each of
    another length, go through the same blocks, which stay in the cache.  Beyond, an eighth more at most.
    """
    cdef Py_ssize_t unit = SMALL_PAGE
    if size >= HUGE_PAGE:
        unit = HUGE_PAGE
        while 16 * unit <= size:
            unit *= 2
        return (size + unit - 1) // unit * unit
    while unit < size:
        unit *= 2
    return unit


cdef inline Stack *alike(Py_ssize_t size) noexcept nogil:
    """The stack of the blocks of such a size, which is below HUGE_PAGE."""
    cdef Stack *stack = small
    while size > LEAST_KEPT:
        size //= 2
        stack += 1
    return stack


cdef void *take(Py_ssize_t size):
    """A block that was kept, or a new one; NULL if there is no memory even without those that are kept."""
    global bytes_kept
    cdef list waiting
    cdef Stack *stack
    cdef Py_ssize_t alignment = LINE if size < HUGE_PAGE else HUGE_PAGE
    cdef void *start
    if size < HUGE_PAGE:
        stack = alike(size)
        if stack.n:
            bytes_kept -= size
            stack.n -= 1
            return stack.start[stack.n]
    else:
        waiting = kept.get(size)
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
    cdef list waiting
    cdef Stack *stack
    if size < HUGE_PAGE:
        stack = alike(size)
        if stack.n == MOST_ALIKE:
            free(start)
            return
        stack.start[stack.n] = start
        stack.n += 1
    else:
        waiting = kept.get(size)
        if waiting is None:
            waiting = kept[size] = []
        waiting.append(<size_t> start)
    bytes_kept += size
    while bytes_kept > MOST_KEPT and kept:
        first = next(iter(kept))
        waiting = kept.pop(first)   # to the end of the line, if any are left
        if waiting:
            bytes_kept -= first
            free(<void *> <size_t> waiting.pop(0))
            kept[first] = waiting


def let_go():
    """Give the blocks that are kept back to the C library; returns their bytes."""
    global bytes_kept
    cdef int k
    given = bytes_kept
    for k in range(N_SMALL):
        while small[k].n:
            small[k].n -= 1
            free(small[k].start[small[k].n])
    for waiting in kept.values():
        for address in waiting:
            free(<void *> <size_t> address)
    kept.clear()
    bytes_kept = 0
    return given


cdef np.ndarray array_of(tuple shape, np.dtype dtype, Block block):
    """A new array in a block that is large enough; of a type with a number of its own."""
    cdef np.npy_intp n[MOST_AXES]
    cdef int n_axes = <int> len(shape)
    cdef int k
    for k in range(n_axes):
        n[k] = shape[k]
    array = np.PyArray_SimpleNewFromData(n_axes, n, dtype.type_num, block.start)
    np.set_array_base(array, block)
    return array


cdef Py_ssize_t size_of(tuple shape, np.dtype dtype) except -1:
    cdef Py_ssize_t size = dtype.itemsize
    cdef Py_ssize_t n
    if len(shape) > MOST_AXES or dtype.type_num > np.NPY_CLONGDOUBLE or not np.PyDataType_ISNOTSWAPPED(dtype):
        raise ValueError(f"memory: an array of {len(shape)} axes, of {dtype}")
    for n in shape:
        size *= n
    return size


cpdef object empty(tuple shape, np.dtype dtype):
    """As `numpy.empty`, from the start of a cache line on."""
    cdef Block block = Block.__new__(Block)
    block.open(size_of(shape, dtype))
    return array_of(shape, dtype, block)


cpdef object zeros(tuple shape, np.dtype dtype):
    """As `numpy.zeros`, from the start of a cache line on."""
    cdef Block block = Block.__new__(Block)
    block.open(size_of(shape, dtype))
    memset(block.start, 0, block.size)
    return array_of(shape, dtype, block)


def copy(np.ndarray array):
    """As ``array.copy()`` of a C-contiguous array, from the start of a cache line on."""
    cdef np.ndarray copied
    if not np.PyArray_IS_C_CONTIGUOUS(array):
        raise ValueError("memory: the array is not contiguous")
    copied = empty((<object> array).shape, (<object> array).dtype)
    memcpy(np.PyArray_DATA(copied), np.PyArray_DATA(array), np.PyArray_NBYTES(array))
    return copied


def page_out(size_t address, size_t size):
    """Have the system forget pages of a mapped file, which it can read again, but not those written to here.

    No value changes.  Linux does so from 5.4 on, if this process may write the file.
    """
    evsim_advise(<const void *> address, size, EVSIM_PAGE_OUT)
