"""Events along weight rows: delivery, its transpose for the replay, and the weight gradient.

Each returns its MACs.
"""

from libc.stdint cimport int8_t, int32_t, int64_t, uint16_t, uint32_t
from libc.string cimport memcpy

from evsim.core.kernels cimport (
    EventList,
    SparseRows,
    add_bf16_rows,
    add_int8_rows,
    add_outer_sparse,
    add_rows,
    add_rows_many,
    add_sparse_rows,
    dot_rows,
    dot_sparse_rows,
)
from evsim.core.layout cimport ProjectionRow, real
from evsim.core.team cimport Team, share


cdef enum:
    STRIP_WORDS = 16    # of a strip of narrow weights, see narrow_rows.h


cdef inline bint shared_out(const ProjectionRow *p) noexcept nogil:
    """Whether the members of a team share the columns; sparse and narrow rows are left to member 0."""
    return p.block_ptr == 0 and p.narrow == 0


cdef inline int32_t contiguous(const ProjectionRow *p, int32_t first, int32_t stop) noexcept nogil:
    """The end of the run of blocks from ``first`` whose accumulators lie side by side like their columns."""
    cdef int32_t end = first + 1
    while end < stop and p.offset[end] == p.offset[end - 1] + p.block:
        end += 1
    return end


cdef inline SparseRows stored(const ProjectionRow *p, int32_t first, int32_t stop) noexcept nogil:
    """The blocks first:stop of a projection stored as CSR; they lie side by side in each row."""
    cdef SparseRows rows
    rows.ptr = <const int64_t *> p.block_ptr + first
    rows.column = <const void *> p.column
    rows.wide = p.wide
    rows.stride = p.n_blocks
    rows.width = stop - first
    return rows


cdef inline int64_t unit_at(const ProjectionRow *p, int32_t k, int64_t j) noexcept nogil:
    """The target's unit that stored value j, which must be of block k, leads to."""
    if p.wide:
        return (<const int32_t *> p.column)[j] - p.offset[k]
    return (<const uint16_t *> p.column)[j] - p.offset[k]


cdef inline int64_t strip_columns(const ProjectionRow *p) noexcept nogil:
    return STRIP_WORDS * 32 // p.narrow


cdef inline int64_t block_words(const ProjectionRow *p) noexcept nogil:
    """Words of one block of a narrow row: whole strips."""
    cdef int64_t columns = strip_columns(p)
    return (p.block + columns - 1) // columns * STRIP_WORDS


cdef inline int64_t deliver_narrow(
    const ProjectionRow *p, int32_t first, int32_t stop,
    int64_t n, const int32_t *unit, const real *value, real *accumulators
) noexcept nogil:
    """`deliver` of weights in bfloat16 or int8.  Blocks that are filled up to whole strips go one by one."""
    cdef const uint32_t *rows
    cdef int64_t words = block_words(p)
    cdef int64_t macs = 0
    cdef int64_t length
    cdef int32_t end
    while first < stop:
        end = contiguous(p, first, stop) if p.block % strip_columns(p) == 0 else first + 1
        rows = <const uint32_t *> p.weight + first * words
        length = (end - first) * p.block
        if p.narrow == 16:
            add_bf16_rows(n, unit, value, rows, p.n_blocks * words, length, accumulators + p.offset[first])
        else:
            add_int8_rows(n, unit, value, <const real *> p.scale, rows, p.n_blocks * words, length,
                          accumulators + p.offset[first])
        macs += n * length
        first = end
    return macs


cdef inline double narrow_at(const ProjectionRow *p, int64_t unit, int32_t k, int64_t i) noexcept nogil:
    """One weight of block k in bfloat16 or int8, without the factor of its row."""
    cdef int64_t columns = strip_columns(p)
    cdef int64_t place = i % columns
    cdef int64_t strip = (unit * p.n_blocks + k) * block_words(p) + i // columns * STRIP_WORDS
    cdef uint32_t bits
    cdef float number
    if p.narrow == 8:
        bits = (<const uint16_t *> p.weight)[2 * strip + place % 16 // 4 * 8 + place // 32 * 4 + place % 4]
        return <int8_t> (bits >> 8) if place & 16 else <int> (bits & 255) - 128
    bits = (<const uint32_t *> p.weight)[strip + place % STRIP_WORDS]
    bits >>= 16 * (place // STRIP_WORDS)
    bits <<= 16
    memcpy(&number, &bits, sizeof(float))
    return number


cdef inline int64_t deliver(
    const ProjectionRow *p, int32_t first, int32_t stop,
    int64_t n, const int32_t *unit, const real *value, real *accumulators
) noexcept nogil:
    """accumulators += sum of value * row over the events, for the blocks first:stop."""
    cdef const real *weight = <const real *> p.weight
    cdef SparseRows rows
    cdef int64_t macs = 0
    cdef int32_t end
    if p.block_ptr != 0:
        rows = stored(p, first, stop)
        return add_sparse_rows(&rows, n, unit, value, weight, accumulators)
    if p.narrow != 0:
        return deliver_narrow(p, first, stop, n, unit, value, accumulators)
    while first < stop:
        end = contiguous(p, first, stop)
        add_rows(n, unit, value, weight + first * p.block, p.n_blocks * p.block,
                 (end - first) * p.block, accumulators + p.offset[first])
        macs += n * (end - first) * p.block
        first = end
    return macs


cdef inline void deliver_many(
    const ProjectionRow *p, const Team *team, int64_t n_rows, int64_t n_lists, EventList *lists,
    const real *tag
) noexcept nogil:
    """`deliver` for the events of several steps and lanes, each to its own accumulators.

    Every member of a team is to call it with lists of its own, and takes a share of the columns; the MACs of
    all are counted by the first.  ``tag`` only carries the float type.
    """
    cdef const EventList *events
    cdef int64_t width = p.n_blocks * p.block
    cdef int64_t low
    cdef int64_t high
    cdef int64_t i
    cdef int32_t first = 0
    cdef int32_t stop
    if not shared_out(p):
        for i in range(n_lists if team.member == 0 else 0):
            events = &lists[i]
            events.macs[0] += deliver(p, 0, p.n_blocks, events.n, events.unit, <const real *> events.value,
                                      <real *> events.target)
        return
    while first < p.n_blocks:
        stop = contiguous(p, first, p.n_blocks)
        low = share(team, (stop - first) * p.block, False)
        high = share(team, (stop - first) * p.block, True)
        add_rows_many(n_lists, lists, <const real *> p.weight + first * p.block + low, n_rows, width,
                      high - low, p.offset[first] + low, False)
        first = stop
    for i in range(n_lists if team.member == 0 else 0):
        lists[i].macs[0] += lists[i].n * width


cdef inline int64_t deliver_to(
    const ProjectionRow *p, int32_t k, int64_t n, const int32_t *unit, const real *value,
    int64_t n_targets, const int32_t *targets, const char *is_target, real *accumulators
) noexcept nogil:
    """As `deliver` for block k, but only to some of the target's units, given as a list and as marks.

    Sums of int8 weights are of floats here, one event after the other: nothing else makes these sums, so
    there are no bits to agree with.
    """
    cdef const real *weight = <const real *> p.weight
    cdef const int64_t *ptr = <const int64_t *> p.block_ptr
    cdef real *target = accumulators + p.offset[k]
    cdef const real *row
    cdef real factor
    cdef int64_t macs = 0
    cdef int64_t block
    cdef int64_t e
    cdef int64_t i
    cdef int64_t j
    for e in range(n):
        block = <int64_t> unit[e] * p.n_blocks + k
        if p.narrow != 0:
            factor = value[e] if p.scale == 0 else value[e] * (<const real *> p.scale)[unit[e]]
            for i in range(n_targets):
                target[targets[i]] += factor * <real> narrow_at(p, unit[e], k, targets[i])
            macs += n_targets
        elif ptr == NULL:
            row = weight + block * p.block
            for i in range(n_targets):
                target[targets[i]] += value[e] * row[targets[i]]
            macs += n_targets
        else:
            for j in range(ptr[block], ptr[block + 1]):
                i = unit_at(p, k, j)
                if is_target[i]:
                    target[i] += value[e] * weight[j]
                    macs += 1
    return macs


cdef inline int64_t gather(
    const ProjectionRow *p, int32_t first, int32_t stop,
    int64_t n, const int32_t *unit, const real *D, real *out
) noexcept nogil:
    """out[e] += row of unit[e] . D, for the blocks first:stop: `deliver` transposed."""
    cdef const real *weight = <const real *> p.weight
    cdef SparseRows rows
    cdef int64_t macs = 0
    cdef int32_t end
    if p.block_ptr != 0:
        rows = stored(p, first, stop)
        return dot_sparse_rows(&rows, n, unit, weight, D, out)
    while first < stop:
        end = contiguous(p, first, stop)
        dot_rows(n, unit, weight + first * p.block, p.n_blocks * p.block,
                 (end - first) * p.block, D + p.offset[first], out)
        macs += n * (end - first) * p.block
        first = end
    return macs


cdef inline int64_t gather_from(
    const ProjectionRow *p, int32_t k, int64_t n, const int32_t *unit,
    int64_t n_targets, const int32_t *targets, const char *is_target, const real *D, real *out
) noexcept nogil:
    """As `gather` for block k, but only from some of the target's units: `deliver_to` transposed."""
    cdef const real *weight = <const real *> p.weight
    cdef const int64_t *ptr = <const int64_t *> p.block_ptr
    cdef const real *target = D + p.offset[k]
    cdef const real *row
    cdef int64_t macs = 0
    cdef int64_t block
    cdef int64_t e
    cdef int64_t i
    cdef int64_t j
    cdef real total
    for e in range(n):
        total = 0
        block = <int64_t> unit[e] * p.n_blocks + k
        if ptr == NULL:
            row = weight + block * p.block
            for i in range(n_targets):
                total += row[targets[i]] * target[targets[i]]
            macs += n_targets
        else:
            for j in range(ptr[block], ptr[block + 1]):
                i = unit_at(p, k, j)
                if is_target[i]:
                    total += weight[j] * target[i]
                    macs += 1
        out[e] += total
    return macs


cdef inline int64_t outer_many(
    const ProjectionRow *p, int64_t n_units, EventList *lists, const real *D, int64_t n_cells, int64_t n_in,
    real *dweight, bint fresh
) noexcept nogil:
    """`outer` for units side by side with dense rows and the events of each; writes ``fresh`` rows."""
    cdef int64_t width = p.n_blocks * p.block
    cdef int64_t n_events = 0
    cdef int64_t unit
    cdef int32_t first = 0
    cdef int32_t stop
    for unit in range(n_units):
        n_events += lists[unit].n
        lists[unit].target = dweight + unit * width
    while first < p.n_blocks:
        stop = contiguous(p, first, p.n_blocks)
        add_rows_many(n_units, lists, D + p.offset[first], n_cells, n_in, (stop - first) * p.block,
                      first * p.block, fresh)
        first = stop
    return n_events * width


cdef inline int64_t outer(
    const ProjectionRow *p, int32_t first, int32_t stop, int64_t unit,
    int64_t n, const int32_t *arrival, const real *value, const real *D, int64_t n_in, real *dweight
) noexcept nogil:
    """Row ``unit`` of dweight += sum of value * D[arrival] over that unit's events; blocks first:stop."""
    cdef SparseRows rows
    cdef int64_t macs = 0
    cdef int32_t end
    if p.block_ptr != 0:
        rows = stored(p, first, stop)
        return add_outer_sparse(&rows, unit, n, arrival, value, D, n_in, dweight)
    while first < stop:
        end = contiguous(p, first, stop)
        add_rows(n, arrival, value, D + p.offset[first], n_in, (end - first) * p.block,
                 dweight + (unit * p.n_blocks + first) * p.block)
        macs += n * (end - first) * p.block
        first = end
    return macs
