"""Events along weight rows: delivery, its transpose for the replay, and the weight gradient.

Each returns its MACs.
"""

from libc.stdint cimport int32_t, int64_t

from evsim.core.kernels cimport add_rows, add_rows_many, dot_rows
from evsim.core.layout cimport ProjectionRow, real
from evsim.core.team cimport Team, share


cdef inline int32_t contiguous(const ProjectionRow *p, int32_t first, int32_t stop) noexcept nogil:
    """The end of the run of blocks from ``first`` whose accumulators lie side by side like their columns."""
    cdef int32_t end = first + 1
    while end < stop and p.offset[end] == p.offset[end - 1] + p.block:
        end += 1
    return end


cdef inline int64_t deliver(
    const ProjectionRow *p, int32_t first, int32_t stop,
    int64_t n, const int32_t *unit, const real *value, real *accumulators
) noexcept nogil:
    """accumulators += sum of value * row over the events, for the blocks first:stop."""
    cdef const real *weight = <const real *> p.weight
    cdef const int64_t *ptr = <const int64_t *> p.block_ptr
    cdef const int32_t *column = <const int32_t *> p.column
    cdef int64_t macs = 0
    cdef int64_t e
    cdef int64_t j
    cdef int64_t row
    cdef int32_t end
    cdef int32_t k
    cdef real *target
    cdef real v
    if ptr == NULL:
        while first < stop:
            end = contiguous(p, first, stop)
            add_rows(n, unit, value, weight + first * p.block, p.n_blocks * p.block,
                     (end - first) * p.block, accumulators + p.offset[first])
            macs += n * (end - first) * p.block
            first = end
        return macs
    for e in range(n):
        v = value[e]
        row = <int64_t> unit[e] * p.n_blocks
        for k in range(first, stop):
            target = accumulators + p.offset[k]
            for j in range(ptr[row + k], ptr[row + k + 1]):
                target[column[j]] += v * weight[j]
            macs += ptr[row + k + 1] - ptr[row + k]
    return macs


cdef inline int64_t deliver_share(
    const ProjectionRow *p, const Team *team, int64_t n, const int32_t *unit, const real *value,
    real *accumulators
) noexcept nogil:
    """This member's share of `deliver` for all blocks; the MACs are those of the whole team."""
    cdef int32_t first = 0
    cdef int32_t stop
    cdef int64_t low
    cdef int64_t high
    if team.size == 1 or p.block_ptr != 0:
        return deliver(p, 0, p.n_blocks, n, unit, value, accumulators) if team.member == 0 else 0
    while first < p.n_blocks:
        stop = contiguous(p, first, p.n_blocks)
        low = share(team, (stop - first) * p.block, False)
        high = share(team, (stop - first) * p.block, True)
        add_rows(n, unit, value, <const real *> p.weight + first * p.block + low, p.n_blocks * p.block,
                 high - low, accumulators + p.offset[first] + low)
        first = stop
    return n * p.n_blocks * p.block


cdef inline int64_t deliver_many(
    const ProjectionRow *p, const Team *team, int64_t n_rows, int64_t n_lists, const int64_t *begin, const int64_t *end,
    const int32_t *unit, const real *value, real *accumulators, int64_t stride, int64_t *next
) noexcept nogil:
    """`deliver_share` for many lists of events, begin[l]:end[l] to accumulators + l * stride; scratch (n_lists)."""
    cdef int64_t macs = 0
    cdef int64_t low
    cdef int64_t high
    cdef int64_t l
    cdef int32_t first = 0
    cdef int32_t stop
    if p.block_ptr != 0:
        for l in range(n_lists if team.member == 0 else 0):
            macs += deliver(p, 0, p.n_blocks, end[l] - begin[l], unit + begin[l], value + begin[l],
                            accumulators + l * stride)
        return macs
    while first < p.n_blocks:
        stop = contiguous(p, first, p.n_blocks)
        low = share(team, (stop - first) * p.block, False)
        high = share(team, (stop - first) * p.block, True)
        add_rows_many(n_lists, begin, end, unit, value, <const real *> p.weight + first * p.block + low, n_rows,
                      p.n_blocks * p.block, high - low, False, accumulators + p.offset[first] + low, stride,
                      next)
        first = stop
    for l in range(n_lists):
        macs += (end[l] - begin[l]) * p.n_blocks * p.block
    return macs


cdef inline int64_t deliver_to(
    const ProjectionRow *p, int32_t k, int64_t n, const int32_t *unit, const real *value,
    int64_t n_targets, const int32_t *targets, const char *is_target, real *accumulators
) noexcept nogil:
    """As `deliver` for block k, but only to some of the target's units, given as a list and as marks."""
    cdef const real *weight = <const real *> p.weight
    cdef const int64_t *ptr = <const int64_t *> p.block_ptr
    cdef const int32_t *column = <const int32_t *> p.column
    cdef real *target = accumulators + p.offset[k]
    cdef const real *row
    cdef int64_t macs = 0
    cdef int64_t block
    cdef int64_t e
    cdef int64_t i
    cdef int64_t j
    for e in range(n):
        block = <int64_t> unit[e] * p.n_blocks + k
        if ptr == NULL:
            row = weight + block * p.block
            for i in range(n_targets):
                target[targets[i]] += value[e] * row[targets[i]]
            macs += n_targets
        else:
            for j in range(ptr[block], ptr[block + 1]):
                if is_target[column[j]]:
                    target[column[j]] += value[e] * weight[j]
                    macs += 1
    return macs


cdef inline int64_t gather(
    const ProjectionRow *p, int32_t first, int32_t stop,
    int64_t n, const int32_t *unit, const real *D, real *out
) noexcept nogil:
    """out[e] += row of unit[e] . D, for the blocks first:stop: `deliver` transposed."""
    cdef const real *weight = <const real *> p.weight
    cdef const int64_t *ptr = <const int64_t *> p.block_ptr
    cdef const int32_t *column = <const int32_t *> p.column
    cdef int64_t macs = 0
    cdef int64_t e
    cdef int64_t j
    cdef int64_t row
    cdef int32_t end
    cdef int32_t k
    cdef const real *target
    cdef real total
    if ptr == NULL:
        while first < stop:
            end = contiguous(p, first, stop)
            dot_rows(n, unit, weight + first * p.block, p.n_blocks * p.block,
                     (end - first) * p.block, D + p.offset[first], out)
            macs += n * (end - first) * p.block
            first = end
        return macs
    for e in range(n):
        total = 0
        row = <int64_t> unit[e] * p.n_blocks
        for k in range(first, stop):
            target = D + p.offset[k]
            for j in range(ptr[row + k], ptr[row + k + 1]):
                total += weight[j] * target[column[j]]
            macs += ptr[row + k + 1] - ptr[row + k]
        out[e] += total
    return macs


cdef inline int64_t gather_from(
    const ProjectionRow *p, int32_t k, int64_t n, const int32_t *unit,
    int64_t n_targets, const int32_t *targets, const char *is_target, const real *D, real *out
) noexcept nogil:
    """As `gather` for block k, but only from some of the target's units: `deliver_to` transposed."""
    cdef const real *weight = <const real *> p.weight
    cdef const int64_t *ptr = <const int64_t *> p.block_ptr
    cdef const int32_t *column = <const int32_t *> p.column
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
                if is_target[column[j]]:
                    total += weight[j] * target[column[j]]
                    macs += 1
        out[e] += total
    return macs


cdef inline int64_t outer_many(
    const ProjectionRow *p, int64_t n_units, const int64_t *ptr, const int32_t *arrival, const real *value,
    const real *D, int64_t n_cells, int64_t n_in, real *dweight, bint fresh, int64_t *next
) noexcept nogil:
    """`outer` for units side by side with dense rows, events ptr[u]:ptr[u + 1]; ``fresh`` rows are written."""
    cdef int64_t width = p.n_blocks * p.block
    cdef int32_t first = 0
    cdef int32_t stop
    while first < p.n_blocks:
        stop = contiguous(p, first, p.n_blocks)
        add_rows_many(n_units, ptr, ptr + 1, arrival, value, D + p.offset[first], n_cells, n_in,
                      (stop - first) * p.block, fresh, dweight + first * p.block, width, next)
        first = stop
    return (ptr[n_units] - ptr[0]) * width


cdef inline int64_t outer(
    const ProjectionRow *p, int32_t first, int32_t stop, int64_t unit,
    int64_t n, const int32_t *arrival, const real *value, const real *D, int64_t n_in, real *dweight
) noexcept nogil:
    """Row ``unit`` of dweight += sum of value * D[arrival] over that unit's events; blocks first:stop."""
    cdef const int64_t *ptr = <const int64_t *> p.block_ptr
    cdef const int32_t *column = <const int32_t *> p.column
    cdef int64_t row = unit * p.n_blocks
    cdef int64_t macs = 0
    cdef int64_t e
    cdef int64_t j
    cdef int32_t end
    cdef int32_t k
    cdef const real *target
    if ptr == NULL:
        while first < stop:
            end = contiguous(p, first, stop)
            add_rows(n, arrival, value, D + p.offset[first], n_in, (end - first) * p.block,
                     dweight + (row + first) * p.block)
            macs += n * (end - first) * p.block
            first = end
        return macs
    for e in range(n):
        for k in range(first, stop):
            target = D + <int64_t> arrival[e] * n_in + p.offset[k]
            for j in range(ptr[row + k], ptr[row + k + 1]):
                dweight[j] += value[e] * target[column[j]]
            macs += ptr[row + k + 1] - ptr[row + k]
    return macs
