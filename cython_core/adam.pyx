"""Adam's step on all parameters of a network, whose arrays are found once: at batch 1 that takes long."""

from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free

from evsim.core.buffers cimport address
from evsim.core.kernels cimport adam_step
from evsim.core.kernels cimport sum_of_squares as squares_of

# One parameter; float or double.
cdef struct Moved:
    int64_t n
    bint wide
    void *values
    void *mean
    void *square


cdef class Moments:
    """Parameters with the running means of their gradients and of the squares of these.

    Parameters
    ----------
    values, means, squares : list of contiguous float arrays
        Those of a parameter are of one type and size.  They are kept alive here and must not move.
    """

    cdef Moved *moved
    cdef int count
    cdef object keep

    def __cinit__(self, list values, list means, list squares):
        cdef Moved *at
        cdef char kind
        self.keep = values, means, squares
        self.count = <int> len(values)
        self.moved = <Moved *> calloc(self.count + 1, sizeof(Moved))
        if self.moved == NULL:
            raise MemoryError("adam: no memory")
        for i, (value, mean, square) in enumerate(zip(values, means, squares, strict=True)):
            at = &self.moved[<int> i]
            at.n = value.size
            at.wide = value.itemsize == sizeof(double)
            kind = c"d" if at.wide else c"f"
            at.values = address(value, at.n, kind)
            at.mean = address(mean, at.n, kind)
            at.square = address(square, at.n, kind)

    def __dealloc__(self):
        free(self.moved)

    def step(self, list gradients, list keeps, double scale, double first, double second, double correct,
             double rate, double eps):
        """Take one step.

        Parameters
        ----------
        gradients : list of array
            Of each parameter, in its type and size.
        keeps : list of float
            What is left of each parameter's values.
        scale : float
            What gradients are multiplied by first.
        first, second, correct, rate, eps : float
            See adam.h.
        """
        cdef const Moved *at
        cdef void *gradient
        cdef double keep
        cdef int i
        if len(gradients) != self.count or len(keeps) != self.count:
            raise ValueError(f"adam: there are {self.count} parameters")
        for i in range(self.count):
            at = &self.moved[i]
            gradient = address(gradients[i], at.n, c"d" if at.wide else c"f")
            keep = keeps[i]
            with nogil:
                if at.wide:
                    adam_step(at.n, <double *> gradient, scale, first, second, correct, rate, eps, keep,
                              <double *> at.mean, <double *> at.square, <double *> at.values)
                else:
                    adam_step(at.n, <float *> gradient, scale, first, second, correct, rate, eps, keep,
                              <float *> at.mean, <float *> at.square, <float *> at.values)


def sum_of_squares(list arrays):
    """Sum of the squares of all entries of contiguous float arrays, in double."""
    cdef void *first
    cdef int64_t n
    cdef double total = 0
    cdef bint wide
    for array in arrays:
        n = array.size
        wide = array.itemsize == sizeof(double)
        first = address(array, n, c"d" if wide else c"f")
        with nogil:
            total += squares_of(n, <double *> first) if wide else squares_of(n, <float *> first)
    return total
