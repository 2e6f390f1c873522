"""What the loops over events in continuous time need of flow.h beside the flows themselves (kernels.pxd)."""

from libc.stdint cimport int32_t, int64_t

from evsim.core.kernels cimport active

cdef enum:
    BLOCK = 128    # units of a dense arrival that are handled together: what they need fits the nearest cache

cdef extern from "flow.h":
    ctypedef struct Sweeps "FlowTable":
        int32_t (*elapse)(int64_t, double, int32_t, double *, double *) noexcept nogil
        int32_t (*renew)(int64_t, double, const double *, int64_t *, double *) noexcept nogil
        void (*lift)(int64_t, int64_t, const double *, double *) noexcept nogil
        void (*lower_bounds)(int64_t, int64_t, const double *, double *) noexcept nogil


cdef inline const Sweeps *sweeps() noexcept nogil:
    """The table in use."""
    return <const Sweeps *> active.flow
