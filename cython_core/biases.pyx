"""The two biases of EGRU units in EvNN's form, added into what their accumulators start from."""

from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free

from evsim.core.buffers cimport address
from evsim.core.layout cimport real

# Of one population of n units.
cdef struct Sum:
    int64_t n
    const void *bias        # real[3 n]: of z, r and the candidate's input
    const void *recurrent   # real[3 n]: of z, r and what the candidate's reset gate lets through
    void *base              # real[4 n], OUT


cdef void add_biases(const Sum *sum, real *base) noexcept nogil:
    cdef const real *bias = <const real *> sum.bias
    cdef const real *recurrent = <const real *> sum.recurrent
    cdef int64_t n = sum.n
    cdef int64_t i
    for i in range(2 * n):
        base[i] = bias[i] + recurrent[i]
    for i in range(2 * n, 3 * n):
        base[i] = bias[i]
        base[n + i] = recurrent[i]


cdef class Biases:
    """Where the biases of some populations are, and where their sums go.

    Parameters
    ----------
    arrays : list of (bias, recurrent bias, sum), (3 n,), (3 n,), (4 n,)
        They are kept alive here and must not move.
    double_precision : bool
    """

    cdef Sum *sums
    cdef int count
    cdef bint double_precision
    cdef object keep

    def __cinit__(self, arrays, bint double_precision):
        cdef char kind = c"d" if double_precision else c"f"
        cdef Sum *sum
        self.keep = list(arrays)
        self.count = len(self.keep)
        self.double_precision = double_precision
        self.sums = <Sum *> calloc(max(self.count, 1), sizeof(Sum))
        if self.sums == NULL:
            raise MemoryError("biases: no memory")
        for i, (bias, recurrent, base) in enumerate(self.keep):
            sum = &self.sums[<int> i]
            sum.n = bias.size // 3
            sum.bias = address(bias, 3 * sum.n, kind)
            sum.recurrent = address(recurrent, 3 * sum.n, kind)
            sum.base = address(base, 4 * sum.n, kind)

    def __dealloc__(self):
        free(self.sums)

    def add(self):
        """Write the sums of the present biases; of arrays in use that have not changed, the same again."""
        cdef int i
        for i in range(self.count):
            if self.double_precision:
                add_biases(&self.sums[i], <double *> self.sums[i].base)
            else:
                add_biases(&self.sums[i], <float *> self.sums[i].base)
