"""The choice of the instruction set, and the gate functions for tests."""

import os

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


use(os.environ.get("EVSIM_ISA", ""))
