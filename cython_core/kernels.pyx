"""The choice of the instruction set, and the gate functions for tests."""

import os

from evsim.core.buffers cimport address
from evsim.errors import EvsimError

cdef const KernelTable *active = NULL


def use(str name=""):
    """Use the kernels compiled for an instruction set ("" is the best of this machine); returns its name.

    Not to be called while something runs.  The environment variable EVSIM_ISA gives the one used from the
    start.
    """
    global active
    cdef const KernelTable *table = evsim_kernel_table(name.encode())
    if table is NULL:
        raise EvsimError("kernels", f"instruction set '{name}' is not here", f"use one of {available()}")
    active = table
    return active.name.decode()


def available():
    """Names of the instruction sets that this build and this machine have, best first."""
    return [name for name in ("avx2", "baseline") if evsim_kernel_table(name.encode()) is not NULL]


def in_use():
    """Name of the instruction set in use."""
    return active.name.decode()


def gates(real[::1] x, real[::1] s, real[::1] t):
    """Write the logistic function of ``x`` into ``s`` and tanh into ``t``."""
    if real is float:
        active.f32.evaluate_gates(x.shape[0], &x[0], &s[0], &t[0])
    else:
        active.f64.evaluate_gates(x.shape[0], &x[0], &s[0], &t[0])


def adam_step(list gradients, list means, list squares, list values, list keeps, double first, double second,
              double correct, double rate, double eps):
    """One step of Adam of some parameters; ``means``, ``squares`` and ``values`` are written into.

    The arrays of a parameter are contiguous and of one type.
    """
    cdef Py_ssize_t n
    cdef bint wide
    cdef char kind
    cdef double keep
    cdef void *g
    cdef void *m
    cdef void *s
    cdef void *v
    for gradient, mean, square, value, keep in zip(gradients, means, squares, values, keeps, strict=True):
        n = value.size
        wide = value.itemsize == sizeof(double)
        kind = c"d" if wide else c"f"
        g = address(gradient, n, kind)
        m = address(mean, n, kind)
        s = address(square, n, kind)
        v = address(value, n, kind)
        with nogil:
            if wide:
                active.f64.adam_step(n, <double *> g, first, second, correct, rate, eps, keep,
                                     <double *> m, <double *> s, <double *> v)
            else:
                active.f32.adam_step(n, <float *> g, first, second, correct, rate, eps, keep,
                                     <float *> m, <float *> s, <float *> v)


def sum_of_squares(list arrays):
    """Sum of the squares of all entries of contiguous float arrays, in double."""
    cdef Py_ssize_t n
    cdef bint wide
    cdef void *first
    cdef double total = 0
    for array in arrays:
        n = array.size
        wide = array.itemsize == sizeof(double)
        first = address(array, n, c"d" if wide else c"f")
        with nogil:
            total += active.f64.sum_of_squares(n, <double *> first) if wide else active.f32.sum_of_squares(
                n, <float *> first)
    return total


use(os.environ.get("EVSIM_ISA", ""))
