"""C structs of a plan, its integer and float types.  The NumPy twins are in layout.pyx."""

from libc.stdint cimport int32_t, int64_t, uint64_t

cdef extern from "fixed_format.h" nogil:
    ctypedef struct FixedFormat:
        pass

ctypedef fused real:
    float
    double

cdef enum Kind:
    SOURCE = 0
    EGRU_EVNN = 1
    EGRU_PAPER = 2
    READOUT = 3
    DELTA_SOURCE = 4
    DELTA_ENCODER = 5
    DELTA_GRU = 6
    DELTA_LSTM = 7
    DELTA_READOUT = 8
    LIF = 9

cdef enum:
    MAX_BLOCKS = 4


cdef inline bint holds(int32_t kind) noexcept nogil:
    """Whether the accumulators are kept from step to step, as the first n_in reals of the state."""
    return kind == DELTA_GRU or kind == DELTA_LSTM or kind == DELTA_READOUT


cdef inline bint sends_changes(int32_t kind) noexcept nogil:
    return kind == DELTA_SOURCE or kind == DELTA_ENCODER or kind == DELTA_GRU or kind == DELTA_LSTM


cdef inline bint decides(int32_t kind) noexcept nogil:
    """Whether it finds out itself which events it sends."""
    return kind != SOURCE and kind != READOUT and kind != DELTA_READOUT


# Addresses are those of NumPy arrays that the Plan keeps alive; 0 where there is none.
cdef struct PopulationRow:
    int32_t kind
    int32_t n           # units
    int32_t n_in        # accumulators of one lane
    int32_t n_state     # carried reals of one lane
    int32_t n_tape      # reals of one lane and step that the replay needs
    int32_t in_first    # projections into it are rows in_first:in_stop
    int32_t in_stop
    int32_t watched     # of an encoder: the population it watches,
    int32_t watched_at  # and where in that one's state the line begins
    int32_t component   # populations of one component, which reach each other, stand side by side
    uint64_t threshold          # real[n]
    uint64_t fixed              # FixedFormat; 0 in floating point
    double decay                # readouts
    uint64_t bias               # of LIF units: real[n],
    uint64_t numbers            # and double[7], those of a step, as in lif.h

cdef struct ProjectionRow:
    int32_t source
    int32_t target
    int32_t delay       # steps
    int32_t recurrent   # 1 if it ends in the recurrent port
    int32_t n_blocks
    int32_t block       # columns of a block = units of the target
    int32_t offset[MAX_BLOCKS]  # accumulator where each block begins
    int32_t wide        # of CSR: whether columns are int32, not uint16
    int32_t narrow      # bits of a dense weight: 16 of bfloat16, 8 of int8; 0: they are real
    int32_t dense       # 1 if its products can be made ahead of the loop over time
    uint64_t weight     # real[rows, n_blocks * block], the stored values of CSR, or strips (narrow_rows.h)
    uint64_t block_ptr  # int64[rows * n_blocks + 1] of CSR: where each block of each row begins
    uint64_t column     # uint16 or int32[nnz] of CSR: the accumulator of each stored value
    uint64_t scale      # real[rows] of int8: the factor of each row


cdef class PlanTable:
    cdef PopulationRow *populations
    cdef ProjectionRow *projections
    cdef readonly int n_populations
    cdef readonly int n_projections
    cdef readonly bint double_precision
    cdef object _keep
