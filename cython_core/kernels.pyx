"""The choice of the instruction set, how the core was built, and the gate functions for tests."""

import os

import numpy as np

from evsim.core.buffers cimport address
from evsim.errors import EvsimError


cdef extern from "kernel_table.h":
    const KernelTable *evsim_kernel_path(int place)
    const char *EVSIM_COMPILER
    const int EVSIM_OPENMP

cdef const KernelTable *active = NULL


def use(str name="", str where="kernels"):
    """Use the kernels compiled for an instruction set ("" is the best of this machine); returns its name.

    Not to be called while something runs.  The environment variable EVSIM_ISA gives the one used from the
    start; an error is said to be in ``where``.
    """
    global active
    names = available()
    if name and name not in names:
        raise EvsimError(where, f"instruction set {name!r} is not here", f"use one of {names}")
    active = evsim_kernel_table(name.encode())
    return in_use()


def available():
    """Names of the instruction sets that this build and this machine have, best first."""
    names = []
    while evsim_kernel_path(len(names)) is not NULL:
        names.append(evsim_kernel_path(len(names)).name.decode())
    return names


def in_use():
    """Name of the instruction set in use."""
    return active.name.decode()


def build():
    """The compiler that made the core, and whether it has OpenMP, without which all runs on one thread."""
    return {"compiler": EVSIM_COMPILER.decode().strip(), "openmp": EVSIM_OPENMP != 0}


def gates(real[::1] x, real[::1] s, real[::1] t):
    """Write the logistic function of ``x`` into ``s`` and tanh into ``t``."""
    if real is float:
        active.f32.evaluate_gates(x.shape[0], &x[0], &s[0], &t[0])
    else:
        active.f64.evaluate_gates(x.shape[0], &x[0], &s[0], &t[0])


def adam_step(gradient, mean, square, values, double first, double second, double correct, double rate,
              double eps, double keep):
    """One step of Adam; ``mean``, ``square`` and ``values`` are written into; contiguous, of one type."""
    cdef Py_ssize_t n = values.size
    cdef bint wide = values.dtype == np.float64
    cdef char kind = c"d" if wide else c"f"
    cdef void *g = address(gradient, n, kind)
    cdef void *m = address(mean, n, kind)
    cdef void *s = address(square, n, kind)
    cdef void *v = address(values, n, kind)
    with nogil:
        if wide:
            active.f64.adam_step(n, <double *> g, first, second, correct, rate, eps, keep,
                                 <double *> m, <double *> s, <double *> v)
        else:
            active.f32.adam_step(n, <float *> g, first, second, correct, rate, eps, keep,
                                 <float *> m, <float *> s, <float *> v)


def sum_of_squares(x):
    """Sum of the squares of a contiguous float array, in double."""
    cdef Py_ssize_t n = x.size
    cdef bint wide = x.dtype == np.float64
    cdef void *first = address(x, n, c"d" if wide else c"f")
    cdef double total
    with nogil:
        total = active.f64.sum_of_squares(n, <double *> first) if wide else active.f32.sum_of_squares(
            n, <float *> first)
    return total


use(os.environ.get("EVSIM_ISA", ""), "environment variable EVSIM_ISA")
