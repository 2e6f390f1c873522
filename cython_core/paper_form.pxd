"""The recurrent port of the paper's EGRU: reset gates of the senders multiply the events before the product.

With A the units whose events arrive in this step through any recurrent projection, and y' their values::

    u-accumulators += y' R_u                       2 x |A| H products and |A|^2 for r,
    r_A = s(p_A + y' R_r[:, A])                    which is needed on A only
    z-accumulators += (r_A y') R_z

Accumulators and D hold the blocks (u, r, z); the tape (u, z, r, p, a), with p the input part of r's
accumulator.
"""

from libc.stdint cimport int32_t, int64_t
from libc.string cimport memcpy, memset

from evsim.core.event_queue cimport Queue, queue_peek
from evsim.core.fanout cimport deliver, deliver_to, gather, gather_from, outer, unit_at
from evsim.core.kernels cimport logistic
from evsim.core.layout cimport PopulationRow, ProjectionRow, real


cdef inline void receive_gated(
    const PopulationRow *pop, const ProjectionRow *projections, const Queue *own, int64_t step,
    real *accumulators, real *tape,                     # IN and OUT
    char *mark, int32_t *senders, real *gated,          # scratch (n); mark is zero before and after
    int64_t *macs                                       # OUT, per projection
) noexcept nogil:
    cdef int64_t n = pop.n
    cdef real *r = tape + 2 * n
    cdef const real *value = <const real *> own.value
    cdef const int64_t *bucket
    cdef const ProjectionRow *p
    cdef int64_t e
    cdef int64_t first
    cdef int64_t count
    cdef int32_t j
    cdef int32_t i
    cdef int32_t n_senders = 0

    memset(r, 0, n * sizeof(real))
    memcpy(tape + 3 * n, accumulators + n, n * sizeof(real))
    for j in range(pop.in_first, pop.in_stop):
        if projections[j].recurrent:
            bucket = queue_peek(own, step - projections[j].delay)
            for e in range(bucket[0], bucket[1]):
                i = own.unit[e]
                if not mark[i]:
                    mark[i] = 1
                    senders[n_senders] = i
                    n_senders += 1
    for j in range(pop.in_first, pop.in_stop):
        p = &projections[j]
        if p.recurrent:
            bucket = queue_peek(own, step - p.delay)
            first = bucket[0]
            count = bucket[1] - first
            macs[j] += deliver(p, 0, 1, count, own.unit + first, value + first, accumulators)
            macs[j] += deliver_to(p, 1, count, own.unit + first, value + first, n_senders, senders, mark,
                                  accumulators)
    for i in range(n_senders):
        r[senders[i]] = logistic(accumulators[n + senders[i]])
        mark[senders[i]] = 0
    for j in range(pop.in_first, pop.in_stop):
        p = &projections[j]
        if p.recurrent:
            bucket = queue_peek(own, step - p.delay)
            first = bucket[0]
            count = bucket[1] - first
            for e in range(count):
                gated[e] = r[own.unit[first + e]] * value[first + e]
            macs[j] += deliver(p, 2, 3, count, own.unit + first, gated, accumulators)


# What the transposes below need of a window that was run: see backward.pyx for the meaning of each.
cdef struct Window:
    int64_t n_lanes
    int64_t history             # steps before the window whose events are at hand
    int64_t n_open              # steps of the window that are replayed
    const int64_t *ptr          # own events of those steps and of the window
    const int32_t *unit
    const void *value
    const int64_t *sender_ptr   # units whose events arrive, by (step, lane) of the window
    const int32_t *sender
    const void *tape            # real[T, B, 5 n]
    const void *D               # real[T, B, 3 n]


cdef inline void reset_gate_gradient(
    const PopulationRow *pop, const ProjectionRow *projections, const Window *window,
    int64_t step, int64_t lane,
    real *D, void **by_event,       # IN: D's u and z blocks; OUT: its r block, R_z D_z of each arriving event
    real *dr, int64_t *macs         # scratch (n), zero before and after; OUT
) noexcept nogil:
    """dL/dp_r of the senders: r (1 - r) y' (R_z D_z)."""
    cdef int64_t n = pop.n
    cdef int64_t at = step * window.n_lanes + lane
    cdef const real *r = <const real *> window.tape + at * 5 * n + 2 * n
    cdef const real *value = <const real *> window.value
    cdef const ProjectionRow *p
    cdef real *product
    cdef int64_t bucket
    cdef int64_t e
    cdef int32_t i
    cdef int32_t j
    for j in range(pop.in_first, pop.in_stop):
        p = &projections[j]
        if not p.recurrent:
            continue
        product = <real *> by_event[j]
        bucket = (window.history + step - p.delay) * window.n_lanes + lane
        for e in range(window.ptr[bucket], window.ptr[bucket + 1]):
            product[e] = 0
        e = window.ptr[bucket]
        macs[j] += gather(p, 2, 3, window.ptr[bucket + 1] - e, window.unit + e, D, product + e)
        for e in range(window.ptr[bucket], window.ptr[bucket + 1]):
            dr[window.unit[e]] += value[e] * product[e]
    for e in range(window.sender_ptr[at], window.sender_ptr[at + 1]):
        i = window.sender[e]
        D[n + i] = r[i] * (1 - r[i]) * dr[i]
        dr[i] = 0


cdef inline real missing_reset_gate(
    const PopulationRow *pop, const ProjectionRow *projections, const Window *window,
    int64_t step, int64_t lane, int32_t unit, const real *input_part, int64_t *macs
) noexcept nogil:
    """r of a unit that sent nothing, which the forward pass did not need; ``input_part`` is p on the tape."""
    cdef real total = input_part[unit]
    cdef const real *value = <const real *> window.value
    cdef const ProjectionRow *p
    cdef const real *weight
    cdef const int64_t *ptr
    cdef int64_t bucket
    cdef int64_t e
    cdef int64_t k
    cdef int64_t row
    cdef int32_t j
    for j in range(pop.in_first, pop.in_stop):
        p = &projections[j]
        if not p.recurrent:
            continue
        weight = <const real *> p.weight
        ptr = <const int64_t *> p.block_ptr
        bucket = (window.history + step - p.delay) * window.n_lanes + lane
        for e in range(window.ptr[bucket], window.ptr[bucket + 1]):
            row = <int64_t> window.unit[e] * p.n_blocks + 1
            if ptr == NULL:
                total += value[e] * weight[row * p.block + unit]
                macs[j] += 1
            else:
                for k in range(ptr[row], ptr[row + 1]):
                    if unit_at(p, 1, k) == unit:
                        total += value[e] * weight[k]
                        macs[j] += 1
    return logistic(total)


cdef inline void gather_gated(
    const PopulationRow *pop, const ProjectionRow *projections, int32_t j, const Window *window,
    int64_t step, int64_t lane, int64_t n_units, const int32_t *unit, const void *by_event, real *out,
    char *mark, int64_t *macs, int64_t *macs_recompute
) noexcept nogil:
    """dL/dy of some units at ``step`` through recurrent projection j: R_u D_u + R_r D_r + r (R_z D_z)."""
    cdef const ProjectionRow *p = &projections[j]
    cdef int64_t n = pop.n
    cdef int64_t arrival = step + p.delay
    cdef int64_t at = arrival * window.n_lanes + lane
    cdef int64_t bucket = (window.history + step) * window.n_lanes + lane
    cdef const real *D = <const real *> window.D + at * 3 * n
    cdef const real *r = <const real *> window.tape + at * 5 * n + 2 * n
    cdef const int32_t *senders = window.sender + window.sender_ptr[at]
    cdef int64_t n_senders = window.sender_ptr[at + 1] - window.sender_ptr[at]
    cdef int64_t row = window.ptr[bucket]
    cdef int64_t e
    cdef real product
    cdef real gate
    for e in range(n_senders):
        mark[senders[e]] = 1
    macs[j] += gather(p, 0, 1, n_units, unit, D, out)
    macs[j] += gather_from(p, 1, n_units, unit, n_senders, senders, mark, D, out)
    for e in range(n_units):
        if row < window.ptr[bucket + 1] and window.unit[row] == unit[e]:    # both lists are in order of unit
            product = (<const real *> by_event)[row]
            row += 1
            if arrival >= window.n_open:    # made when that step was replayed, and not kept
                product = 0
                macs_recompute[j] += gather(p, 2, 3, 1, &unit[e], D, &product)
        else:
            product = 0
            macs[j] += gather(p, 2, 3, 1, &unit[e], D, &product)
        if mark[unit[e]]:
            gate = r[unit[e]]
        else:
            gate = missing_reset_gate(pop, projections, window, arrival, lane, unit[e], r + n, macs_recompute)
        out[e] += gate * product
    for e in range(n_senders):
        mark[senders[e]] = 0


cdef inline int64_t outer_gated(
    const ProjectionRow *p, const Window *window, int64_t unit, int64_t n,
    const int32_t *arrival, const real *value, real *gated, char *mark, real *dweight
) noexcept nogil:
    """Row ``unit`` of dweight from the events of that unit: y D_u, y D_r on the senders, r y D_z."""
    cdef const real *D = <const real *> window.D
    cdef const int64_t *ptr = <const int64_t *> p.block_ptr
    cdef int64_t width = 3 * p.block
    cdef int64_t row = unit * p.n_blocks + 1
    cdef const real *tape = <const real *> window.tape
    cdef const real *target
    cdef int64_t macs = 0
    cdef int64_t e
    cdef int64_t i
    cdef int64_t k
    for e in range(n):
        gated[e] = value[e] * tape[<int64_t> arrival[e] * 5 * p.block + 2 * p.block + unit]
    macs += outer(p, 0, 1, unit, n, arrival, value, D, width, dweight)
    macs += outer[real](p, 2, 3, unit, n, arrival, gated, D, width, dweight)
    for e in range(n):
        target = D + <int64_t> arrival[e] * width + p.block
        if ptr == NULL:
            for i in range(window.sender_ptr[arrival[e]], window.sender_ptr[arrival[e] + 1]):
                dweight[row * p.block + window.sender[i]] += value[e] * target[window.sender[i]]
                macs += 1
            continue
        for i in range(window.sender_ptr[arrival[e]], window.sender_ptr[arrival[e] + 1]):
            mark[window.sender[i]] = 1
        for k in range(ptr[row], ptr[row + 1]):
            i = unit_at(p, 1, k)
            if mark[i]:
                dweight[k] += value[e] * target[i]
                macs += 1
        for i in range(window.sender_ptr[arrival[e]], window.sender_ptr[arrival[e] + 1]):
            mark[window.sender[i]] = 0
    return macs
