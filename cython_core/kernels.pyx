"""The choice of the instruction set, how the core was built, and the gate functions for tests."""

import os

import numpy as np

from libc.stdint cimport int32_t, int64_t, uint32_t

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


cdef class Sparse:
    """Some blocks of a sparse matrix for the kernels of sparse_rows.h, to test them by themselves.

    Parameters
    ----------
    ptr : int64 array, shape (rows * n_blocks + 1,)
        Where each block of each row begins.
    column : uint16 or int32 array, shape (nnz,)
    n_blocks, first, stop : int
        Blocks first:stop of each row are taken.
    """

    cdef SparseRows rows
    cdef object _keep

    def __init__(self, ptr, column, int n_blocks, int first, int stop):
        self._keep = (ptr, column)
        self.rows.wide = column.dtype == np.int32
        self.rows.ptr = <const int64_t *> address(ptr, ptr.size, c"l") + first
        self.rows.column = address(column, column.size, c"i" if self.rows.wide else c"H")
        self.rows.stride = n_blocks
        self.rows.width = stop - first

    def add(self, int32_t[::1] unit, real[::1] value, real[::1] weight, real[::1] target):
        """target += value[e] * row of unit[e], one event after the other; returns the MACs."""
        return add_sparse_rows(&self.rows, unit.shape[0], &unit[0], &value[0], &weight[0], &target[0])

    def dot(self, int32_t[::1] unit, real[::1] weight, real[::1] vector, real[::1] out):
        """out[e] += row of unit[e] . vector; returns the MACs."""
        return dot_sparse_rows(&self.rows, unit.shape[0], &unit[0], &weight[0], &vector[0], &out[0])

    def add_outer(self, int unit, int32_t[::1] arrival, real[::1] value, real[:, ::1] vectors,
                  real[::1] gradient):
        """Gradient of the values stored for ``unit`` += value[e] * vectors[arrival[e]]; returns the MACs."""
        return add_outer_sparse(&self.rows, unit, arrival.shape[0], &arrival[0], &value[0], &vectors[0, 0],
                                vectors.shape[1], &gradient[0])


def add_narrow(int32_t[::1] unit, real[::1] value, const uint32_t[:, ::1] rows, real[::1] target, scale=None):
    """target += sum of value[e] * row of unit[e], to test the kernels of narrow_rows.h.

    ``rows`` are strips (`evsim.narrow_weights.strips`): of int8 if there is a ``scale`` (a factor per
    row, of the type of the values), else of bfloat16.
    """
    cdef real[::1] factor
    if scale is None:
        add_bf16_rows(unit.shape[0], &unit[0], &value[0], &rows[0, 0], rows.shape[1], target.shape[0],
                      &target[0])
    else:
        factor = scale
        add_int8_rows(unit.shape[0], &unit[0], &value[0], &factor[0], &rows[0, 0], rows.shape[1],
                      target.shape[0], &target[0])


use(os.environ.get("EVSIM_ISA", ""), "environment variable EVSIM_ISA")
