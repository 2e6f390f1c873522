"""A plan in continuous time as C structs, and a population's units as the kernels of flow.h see them.

The NumPy twins are in continuous.pyx.
"""

from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport realloc

from evsim.core.kernels cimport EGRU_FLOW, active
from evsim.core.memory cimport take_row
from evsim.core.messages cimport Message

cdef enum:
    GROUP = 8           # items of a whole group, see vec.h
    BLOCK = 128         # units of a dense arrival that are handled together: they fit the nearest cache
    MAX_BLOCKS = 4
    MAX_SLOTS = 8
    N_CONSTANTS = 11    # of a population
    NO_FLOW = -1        # kind of a source, which has no states

# Addresses are those of NumPy arrays that the plan keeps alive; 0 where there is none.
cdef struct UnitRow:
    int32_t kind        # as in flow.h
    int32_t n           # units
    int32_t stride      # n, rounded up so that rows of states start on vectors
    int32_t n_state     # what a loss or an initial value may look at
    int32_t n_slot      # and what the kernels keep beside it
    int32_t n_par
    int32_t main        # the state that is sampled
    int32_t own_gate    # EGRU: whether its events are gated by its own r
    int32_t out_first   # projections from it are rows out_first:out_stop
    int32_t out_stop
    int64_t first       # its first unit, counted over all populations
    double soon         # ms: a unit that certainly does not cross for so long is looked at again then
    uint64_t par        # double[n_par, stride]
    uint64_t constants  # double[]

cdef struct FanRow:
    int32_t source
    int32_t target
    int32_t n_blocks
    int32_t wide        # weights are float64, not float32
    int32_t gated       # EGRU: the last block takes the payload times the sender's r
    int32_t post        # EGRU: the last block is multiplied by the target's r
    int32_t slot[MAX_BLOCKS]    # state that each block is added to
    uint64_t weight     # the parameter's values
    uint64_t taken      # char[n_source]: of a mapped file, which rows are in memory; 0: of other weights
    uint64_t ptr        # int64[n_source + 1]: pairs of each row; 0: all units of the target, with one delay
    uint64_t unit       # int32[n_pairs]: targets; within a row by delay
    uint64_t where      # int64[n_pairs, n_blocks]: of each weight, -1 where none; 0: pair k has weight k
    uint64_t pair       # int64[n_pairs]: place of the pair's delay in the parameter; 0: they have one delay
    uint64_t delay      # double[1], or double[n_pairs] in the order of pairs

# What happened in a lane, in order; with the events themselves all that the way back needs.
cdef enum Happening:
    EVENT = 0           # an event, and its arrivals at once
    ARRIVAL = 1         # of some targets of an event
    SAMPLE = 2
    SNAPSHOT = 3

cdef struct Item:
    int64_t event       # number of the event, sample or snapshot
    int64_t place       # of an arrival: first pair
    int32_t what
    int32_t projection
    int32_t row

# An event of any population, those of the stimulus included.
cdef struct Event:
    double time         # ms
    double value        # payload
    int32_t population
    int32_t unit

# What is recorded of a lane.  Snapshots hold, population by population, the states (n_state * stride) and the
# times they belong to (stride).
cdef struct Record:
    Event *event
    int64_t n_events
    int64_t event_room
    double *gated           # of each event, payload times the sender's r; NULL if no unit's events are gated
    int64_t gated_room
    Item *item
    int64_t n_items
    int64_t item_room
    double **snapshot
    int64_t n_snapshots
    int64_t snapshot_room
    Message *carried        # in flight at the start; event -k is the k-th from the end
    int64_t n_carried


cdef inline bint room_for(void **array, int64_t count, int64_t *room, Py_ssize_t size) noexcept nogil:
    """Make room for one more; False if memory ran out."""
    cdef int64_t wanted = count + count // 2 + 64
    cdef void *grown
    if count < room[0]:
        return True
    grown = realloc(array[0], wanted * size)
    if grown == NULL:
        return False
    array[0] = grown
    room[0] = wanted
    return True


cdef inline double gated_value(const Record *record, int64_t event) noexcept nogil:
    """What an event carries to targets that are gated by the sender's r."""
    return record.gated[event] if record.gated != NULL else record.event[event].value


cdef inline int64_t align(int64_t n) noexcept nogil:
    """Numbers up to the next whole group."""
    return (n + GROUP - 1) // GROUP * GROUP


cdef extern from *:
    """
    #if defined(__GNUC__)
    #define EVSIM_FETCH(address) __builtin_prefetch(address)
    #else
    #define EVSIM_FETCH(address) ((void) (address))
    #endif
    """
    void EVSIM_FETCH(const void *) nogil

cdef enum:
    FAR_APART = 16384       # units from which on their states do not fit the second-level cache


cdef inline void fetch(
    int64_t m, const int32_t *unit, int64_t stride, int n_rows, const double *rows
) noexcept nogil:
    """Ask for units' places in some rows ahead of their use: many are then on their way at once."""
    cdef int64_t i
    cdef int k
    for k in range(n_rows):
        for i in range(m):
            EVSIM_FETCH(rows + k * stride + unit[i])


cdef inline void gather(int64_t m, const int32_t *unit, const double *array, double *out) noexcept nogil:
    """The last item fills up the vector."""
    cdef int64_t i
    for i in range(m):
        out[i] = array[unit[i]]
    for i in range(m, align(m)):
        out[i] = out[m - 1]


cdef inline void scatter(int64_t m, const int32_t *unit, const double *array, double *out) noexcept nogil:
    cdef int64_t i
    for i in range(m):
        out[unit[i]] = array[i]


cdef inline void fill_up(const UnitRow *pop, int64_t m, double *h) noexcept nogil:
    """The times of the last group that belong to no unit; in EGRU, those of its last unit: all are alike."""
    cdef int64_t i
    for i in range(m, align(m)):
        h[i] = h[m - 1] if pop.kind == EGRU_FLOW else 0.0


cdef inline int64_t group_end(const FanRow *fan, int64_t row, int64_t place) noexcept nogil:
    """Where the group of targets with the same delay ends that begins at a pair."""
    cdef const double *delay = <const double *> fan.delay
    cdef int64_t stop
    if not fan.ptr:
        return 0
    stop = (<const int64_t *> fan.ptr)[row + 1]
    if not fan.pair:
        return stop
    cdef int64_t here = place
    while here < stop and delay[here] == delay[place]:
        here += 1
    return here


cdef inline double delay_of(const FanRow *fan, int64_t place) noexcept nogil:
    return (<const double *> fan.delay)[place if fan.pair else 0]


cdef inline int64_t row_bytes(const FanRow *fan, int64_t n_target) noexcept nogil:
    """Of a dense row of weights."""
    return fan.n_blocks * n_target * <int64_t> (sizeof(double) if fan.wide else sizeof(float))


cdef inline void take_weights(const FanRow *fan, int64_t n_target, int64_t row) noexcept nogil:
    """Before a dense row of weights is read."""
    take_row(<unsigned char *> fan.taken, <const void *> fan.weight, row, row_bytes(fan, n_target))


cdef inline void fetch_block(
    const FanRow *fan, const void *weight, int64_t n_target, int64_t row, int64_t first
) noexcept nogil:
    """Ask for weights, or gradients of them, of a block of a dense row ahead of their use, if any."""
    cdef int64_t m = min(<int64_t> BLOCK, n_target - first)
    cdef int64_t width = sizeof(double) if fan.wide else sizeof(float)
    cdef const char *start = <const char *> weight + (row * fan.n_blocks * n_target + first) * width
    cdef int64_t line
    cdef int b
    for b in range(fan.n_blocks):
        for line in range((m * width + 63) // 64):
            EVSIM_FETCH(start + b * n_target * width + line * 64)


cdef inline void read_row(
    const FanRow *fan, int64_t n_target, int64_t row, int64_t first, int64_t m, int64_t stride, double *w
) noexcept nogil:
    """Weights of m targets of a dense row, from the ``first`` on: w[b * stride + i]; then zeros."""
    cdef int64_t at = row * fan.n_blocks * n_target + first
    cdef int64_t i
    cdef int b
    for b in range(fan.n_blocks):
        if fan.wide:
            for i in range(m):
                w[b * stride + i] = (<const double *> fan.weight)[at + b * n_target + i]
        else:
            active.flow.widen(m, <const float *> fan.weight + at + b * n_target, w + b * stride)
        for i in range(m, align(m)):
            w[b * stride + i] = 0


cdef inline void read_weights(
    const FanRow *fan, int64_t place, int64_t m, int64_t stride, double *w
) noexcept nogil:
    """The weights of m pairs, block by block: w[b * stride + i]; then zeros."""
    cdef const int64_t *where = <const int64_t *> fan.where
    cdef const double *doubles = <const double *> fan.weight
    cdef const float *floats = <const float *> fan.weight
    cdef int64_t at
    cdef int64_t i
    cdef int b
    if not where:
        for i in range(m):
            w[i] = doubles[place + i] if fan.wide else floats[place + i]
    else:
        for b in range(fan.n_blocks):
            for i in range(m):
                at = where[(place + i) * fan.n_blocks + b]
                w[b * stride + i] = 0.0 if at < 0 else doubles[at] if fan.wide else floats[at]
    for b in range(fan.n_blocks):
        for i in range(m, align(m)):
            w[b * stride + i] = 0


cdef class Table:
    cdef UnitRow *populations
    cdef FanRow *projections
    cdef readonly int n_populations
    cdef readonly int n_projections
    cdef readonly int64_t n_units
    cdef object _keep


cdef class Tape:
    cdef Record *record     # [n_lanes]
    cdef readonly int n_lanes
    cdef readonly double start
    cdef readonly double stop
