"""Adjoint event replay in continuous time: the record of a run walked backwards.

What happened is undone in reverse order.  Each item touches the same units as it did forwards and no
others, so the work is that of the way there.  A unit waits, with its states x and lambda = dL/dx, at the time
of the last thing that was undone; when the next is to be undone, both are integrated back to it (retreat in
flow.h).  The states need not be stored: they are integrated backwards too, and snapshots every few time
constants keep that from losing what has decayed.

With f = dx/dt and x+ = J(x-), moving an arrival or an event in time by dt changes the loss by lambda+ . (J_x
f- - f+) dt, and a crossing c = threshold turns a gradient B at its time into lambda_c- = -B / f_c- (all else
that an event does is in J).  Equations: Wunderlich & Pehle 2021 (LIF); for EGRU see evsim/models/egru.py.

Lanes are summed in fixed shards, so no result depends on the number of threads.
"""

from cpython.exc cimport PyErr_CheckSignals
from cython.parallel cimport prange
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from evsim.core.buffers cimport address, sums
from evsim.core.continuous cimport (
    ARRIVAL,
    BLOCK,
    EVENT,
    GROUP,
    MAX_BLOCKS,
    MAX_SLOTS,
    N_CONSTANTS,
    NO_FLOW,
    SAMPLE,
    Event,
    FanRow,
    Item,
    Record,
    Table,
    Tape,
    UnitRow,
    align,
    delay_of,
    fetch_block,
    fill_up,
    gated_value,
    gather,
    group_end,
    read_row,
    read_weights,
    row_bytes,
    scatter,
)
from evsim.core.memory cimport line_calloc, take_row
from evsim.core.messages cimport Message
from evsim.core.kernels cimport EGRU_FLOW, LEAKY_FLOW, LIF_FLOW, LSTM_FLOW, SUM_FLOW, Flow, active, logistic

cdef enum:
    BUDGET = 65536      # items of a shard before signals are looked at

# The arrays of one population, for all lanes.
cdef struct Slot:
    const double *x         # [n_lanes, n_slot, stride]: states at the end
    const double *dstate    # [n_samples, n_lanes, n], or NULL
    const double *dintegral
    const double *dsquare
    double *dpar            # [n_lanes, n_par, stride], OUT
    double *dconstants      # [n_lanes, N_CONSTANTS], OUT
    double *dinitial        # [n_lanes, n_slot, stride], OUT

cdef struct Run:
    const UnitRow *populations
    const FanRow *projections
    int n_populations
    int n_projections
    int64_t n_lanes
    int64_t n_shards
    int64_t n_units
    int64_t stride              # of the largest population
    double start
    double stop
    double min_slope
    const double *samples
    const Record *record        # [n_lanes]
    Slot *slot
    void **dweight              # [n_shards, n_projections], of the type of the weights, OUT
    unsigned char **taken       # [n_shards, n_projections], rows of dweight that are in memory, OUT; or NULL
    double **ddelay             # [n_shards, n_projections], or NULL each, OUT
    const int64_t *event_ptr    # events of each lane among those of all
    const double *dtime         # [n_events]: dL/d(time of each event)
    double *at_time             # [n_events], OUT: total dL/d(time), if the event could be moved
    double *at_value            # [n_events], OUT: dL/d(payload)
    int64_t *macs               # [n_shards, n_projections]
    int64_t *grazing            # [n_shards]

# One population in one lane.
cdef struct Pool:
    double *x       # [n_slot, stride]
    double *lam     # [n_slot, stride]
    double *last    # [stride] the time that x and lam belong to
    double *dsums   # [2, stride]: dL/d(integral) and of the square, of the present interval; or NULL
    double *hold    # [stride]: of LIF, when the hold ends that was on at the start

cdef struct Lane:
    const Run *run
    const Record *record
    int64_t number
    int64_t shard
    int64_t next_item       # items left
    Pool *pool
    int64_t *latest         # [n_units]: latest event of each unit that is not undone, -1 if none
    int64_t *previous       # [n_events]: the one before it of the same unit
    double *through_gate    # [n_events]: dL/d(gated payload)
    # scratch for units side by side, each [k, stride]
    double *h
    double *x
    double *lam
    double *par
    double *dpar
    double *w
    double *gradient
    double *timing
    double *dsums
    double *before
    double *after
    bint good               # False if memory ran out


# -- units --------------------------------------------------------------------------------------------------


cdef double held_until(const Lane *lane, const UnitRow *pop, const Pool *pool, int64_t unit) noexcept nogil:
    """When the refractory time of a LIF unit ends that is on, or was over before, at the present."""
    cdef int64_t event = lane.latest[pop.first + unit]
    if event < 0:
        return pool.hold[unit]
    return lane.record.event[event].time + (<const double *> pop.constants)[4]


cdef void bring_range_back(Lane *lane, int p, int64_t first, int64_t m, double now) noexcept nogil:
    """Bring the m units from ``first``, a multiple of GROUP, back to ``now``, where they are."""
    cdef const UnitRow *pop = &lane.run.populations[p]
    cdef Pool *pool = &lane.pool[p]
    cdef Slot *slot = &lane.run.slot[p]
    cdef int64_t i
    # The lambda of an LSTM at h goes on to c by a retreat of any length.
    if not active.flow.elapse(m, now, 1, pool.last + first, lane.h) and pop.kind != LSTM_FLOW:
        return
    fill_up(pop, m, lane.h)
    if pop.kind == LIF_FLOW:
        for i in range(first, first + m):
            pool.x[3 * pop.stride + i] = max(held_until(lane, pop, pool, i) - now, 0.0)
    active.flow.kind[pop.kind].retreat(
        <const double *> pop.constants, m, pop.stride, lane.h, <const double *> pop.par + first,
        pool.x + first, pool.lam + first, pool.dsums + first if pool.dsums != NULL else NULL,
        slot.dpar + lane.number * pop.n_par * pop.stride + first, slot.dconstants + lane.number * N_CONSTANTS)


cdef void bring_back(Lane *lane, int p, int64_t m, const int32_t *unit, double now) noexcept nogil:
    """Bring some units back to ``now``, side by side in scratch."""
    cdef const UnitRow *pop = &lane.run.populations[p]
    cdef Pool *pool = &lane.pool[p]
    cdef Slot *slot = &lane.run.slot[p]
    cdef const double *K = <const double *> pop.constants
    cdef const double *par = <const double *> pop.par
    cdef double *dpar = slot.dpar + lane.number * pop.n_par * pop.stride
    cdef double *dK = slot.dconstants + lane.number * N_CONSTANTS
    cdef int64_t stride = align(m)
    cdef const Flow *flow = &active.flow.kind[pop.kind]
    cdef bint moves = False
    cdef int64_t i
    cdef int k
    for k in range(pop.n_slot):
        gather(m, unit, pool.x + k * pop.stride, lane.x + k * stride)
        gather(m, unit, pool.lam + k * pop.stride, lane.lam + k * stride)
    for k in range(pop.n_par):
        gather(m, unit, par + k * pop.stride, lane.par + k * stride)
    for i in range(m):
        lane.h[i] = pool.last[unit[i]] - now
        moves = moves or lane.h[i] > 0
        pool.last[unit[i]] = now
    fill_up(pop, m, lane.h)
    if not moves and pop.kind != LSTM_FLOW:
        return
    if pop.kind == LIF_FLOW:
        for i in range(m):
            lane.x[3 * stride + i] = max(held_until(lane, pop, pool, unit[i]) - now, 0.0)
    if pool.dsums != NULL:
        for k in range(2):
            gather(m, unit, pool.dsums + k * pop.stride, lane.dsums + k * stride)
    memset(lane.dpar, 0, pop.n_par * stride * sizeof(double))
    flow.retreat(K, m, stride, lane.h, lane.par, lane.x, lane.lam,
                 lane.dsums if pool.dsums != NULL else NULL, lane.dpar, dK)
    for k in range(pop.n_par):
        for i in range(m):
            dpar[k * pop.stride + unit[i]] += lane.dpar[k * stride + i]


cdef void put_back(Lane *lane, int p, int64_t m, const int32_t *unit) noexcept nogil:
    """Write units back from the scratch."""
    cdef const UnitRow *pop = &lane.run.populations[p]
    cdef Pool *pool = &lane.pool[p]
    cdef int64_t stride = align(m)
    cdef int k
    for k in range(pop.n_slot):
        scatter(m, unit, lane.x + k * stride, pool.x + k * pop.stride)
        scatter(m, unit, lane.lam + k * stride, pool.lam + k * pop.stride)


# -- arrivals and events -------------------------------------------------------------------------------------


cdef inline void running_loss(
    const UnitRow *pop, int64_t m, int64_t stride, const double *x, const double *par, const double *dsums,
    double sign, double *timing
) noexcept nogil:
    """Add to ``timing`` the loss per ms of integrals that end with it, of a readout."""
    cdef double v
    cdef int64_t i
    for i in range(m):
        v = x[i] + par[i] if pop.kind == SUM_FLOW else x[i]
        timing[i] += sign * (dsums[i] + dsums[stride + i] * v) * v


cdef double give_back_sums(Lane *lane, const UnitRow *pop, const FanRow *fan, int64_t m, int64_t stride,
                           double *x, double *lam, const double *par, double value,
                           const double *dsums) noexcept nogil:
    """An arrival that adds ``value`` w to states: undo it; the gradients are left in the scratch.

    Returns dL/d(value).
    """
    cdef const Flow *flow = &active.flow.kind[pop.kind]
    cdef const double *K = <const double *> pop.constants
    cdef bint jumps = dsums != NULL and (pop.kind == LEAKY_FLOW or pop.kind == SUM_FLOW)
    cdef double payload = 0
    cdef double *to
    cdef int64_t i
    cdef int b
    cdef int k
    memset(lane.timing, 0, m * sizeof(double))
    if jumps:
        running_loss(pop, m, stride, x, par, dsums, -1.0, lane.timing)
    flow.rate(K, m, stride, par, x, lane.after)
    for b in range(fan.n_blocks):
        to = lam + fan.slot[b] * stride
        for i in range(m):
            x[fan.slot[b] * stride + i] -= value * lane.w[b * stride + i]
            lane.gradient[b * stride + i] = to[i] * value
            payload += to[i] * lane.w[b * stride + i]
    flow.rate(K, m, stride, par, x, lane.before)
    if jumps:
        running_loss(pop, m, stride, x, par, dsums, 1.0, lane.timing)
    for k in range(pop.n_state):
        for i in range(m):
            lane.timing[i] += lam[k * stride + i] * (lane.before[k * stride + i] - lane.after[k * stride + i])
    return payload


cdef void add_row(Lane *lane, const FanRow *fan, int projection, int64_t n, int64_t row, int64_t first,
                  int64_t m, int64_t stride) noexcept nogil:
    """Add what is in the scratch to the gradient of the weights of m targets of a dense row."""
    cdef void *to = lane.run.dweight[lane.shard * lane.run.n_projections + projection]
    cdef int64_t at
    cdef int b
    for b in range(fan.n_blocks):
        at = (row * fan.n_blocks + b) * n + first
        if fan.wide:
            active.flow.add_to_double(m, lane.gradient + b * stride, <double *> to + at)
        else:
            active.flow.add_to_float(m, lane.gradient + b * stride, <float *> to + at)


cdef void add_weights(Lane *lane, const FanRow *fan, int projection, int64_t place, int64_t m,
                      int64_t stride) noexcept nogil:
    """Add what is in the scratch to the gradient of the weights of m pairs."""
    cdef void *to = lane.run.dweight[lane.shard * lane.run.n_projections + projection]
    cdef const int64_t *where = <const int64_t *> fan.where
    cdef int64_t at
    cdef int64_t i
    cdef int b
    for b in range(fan.n_blocks):
        for i in range(m):
            at = where[(place + i) * fan.n_blocks + b] if where else place + i
            if at < 0:
                continue
            if fan.wide:
                (<double *> to)[at] += lane.gradient[b * stride + i]
            else:
                (<float *> to)[at] += <float> lane.gradient[b * stride + i]


cdef void take_back(Lane *lane, const UnitRow *pop, const FanRow *fan, int64_t m, int64_t stride, double *x,
                    double *lam, const double *par, double value, double gated, const double *dsums,
                    double *payload) noexcept nogil:
    """Undo what an arrival did to m units; gradients in the scratch, sums over units as of egru_give_back."""
    cdef int64_t i
    if pop.kind == EGRU_FLOW:
        active.flow.egru_give_back(
            <const double *> pop.constants, m, stride, par, x, lam, lane.w, value,
            gated if fan.gated else value, fan.post, lane.gradient, lane.timing, payload)
        return
    payload[0] += give_back_sums(lane, pop, fan, m, stride, x, lam, par, value, dsums)
    for i in range(m):
        payload[2] += lane.timing[i]


cdef void give_back_all(Lane *lane, int projection, int64_t row, double now, double value, double gated,
                        double *payload) noexcept nogil:
    """Undo an arrival at all units of the target, block by block."""
    cdef const FanRow *fan = &lane.run.projections[projection]
    cdef const UnitRow *pop = &lane.run.populations[fan.target]
    cdef Pool *pool = &lane.pool[fan.target]
    cdef int64_t first
    cdef int64_t m
    cdef int64_t at = lane.shard * lane.run.n_projections + projection
    cdef const void *dweight = lane.run.dweight[at]
    cdef int block
    take_row(lane.run.taken[at], dweight, row, row_bytes(fan, pop.n))
    fetch_block(fan, <const void *> fan.weight, pop.n, row, 0)
    fetch_block(fan, dweight, pop.n, row, 0)
    for block in range((pop.n + BLOCK - 1) // BLOCK):
        first = block * BLOCK
        m = min(<int64_t> BLOCK, pop.n - first)
        fetch_block(fan, <const void *> fan.weight, pop.n, row, first + m)
        fetch_block(fan, dweight, pop.n, row, first + m)
        bring_range_back(lane, fan.target, first, m, now)
        read_row(fan, pop.n, row, first, m, pop.stride, lane.w)
        take_back(lane, pop, fan, m, pop.stride, pool.x + first, pool.lam + first,
                  <const double *> pop.par + first, value, gated,
                  pool.dsums + first if pool.dsums != NULL else NULL, payload)
        add_row(lane, fan, projection, pop.n, row, first, m, pop.stride)


cdef void give_back(Lane *lane, int projection, int64_t row, int64_t place, int64_t stop, double now,
                    int64_t event, double value, double gated) noexcept nogil:
    """Undo an arrival at the pairs from ``place`` to ``stop``, or at all units of the target."""
    cdef const Run *run = lane.run
    cdef const FanRow *fan = &run.projections[projection]
    cdef const UnitRow *pop = &run.populations[fan.target]
    cdef Pool *pool = &lane.pool[fan.target]
    cdef const int32_t *unit = <const int32_t *> fan.unit + place
    cdef int64_t m = stop - place if fan.ptr else pop.n
    cdef int64_t stride = align(m)
    cdef double *ddelay = run.ddelay[lane.shard * run.n_projections + projection]
    cdef double payload[3]
    cdef int64_t i
    cdef int k
    run.macs[lane.shard * run.n_projections + projection] += m * fan.n_blocks
    memset(payload, 0, sizeof(payload))
    if fan.ptr:
        bring_back(lane, fan.target, m, unit, now)
        read_weights(fan, place, m, stride, lane.w)
        if pool.dsums != NULL:
            for k in range(2):
                gather(m, unit, pool.dsums + k * pop.stride, lane.dsums + k * stride)
        take_back(lane, pop, fan, m, stride, lane.x, lane.lam, lane.par, value, gated,
                  lane.dsums if pool.dsums != NULL else NULL, payload)
        add_weights(lane, fan, projection, place, m, stride)
        put_back(lane, fan.target, m, unit)
    else:
        give_back_all(lane, projection, row, now, value, gated, payload)
    if ddelay != NULL:
        if fan.pair:
            for i in range(m):
                ddelay[(<const int64_t *> fan.pair)[place + i]] += lane.timing[i]
        else:
            ddelay[0] += payload[2]
    if event >= 0:
        i = run.event_ptr[lane.number] + event
        run.at_time[i] += payload[2]
        run.at_value[i] += payload[0]
        if fan.gated:
            lane.through_gate[event] += payload[1]
        else:
            run.at_value[i] += payload[1]


cdef void uncross(Lane *lane, const UnitRow *pop, double after, double before, double jump, double *B,
                  double threshold, double low, const double *dsums, double *lam) noexcept nogil:
    """A crossing of the first state, from ``low`` after it to the threshold: B and lambda before it.

    ``after``, ``before``: its rate; ``jump``: what else moves with the time of the event.
    """
    B[0] += jump - lam[0] * after
    if dsums != NULL:
        B[0] += dsums[0] * (threshold - low) + dsums[1] * (threshold * threshold - low * low)
    if before < lane.run.min_slope:
        before = lane.run.min_slope
        lane.run.grazing[lane.shard] += 1
    B[0] = B[0] / before    # now dL/d(threshold) by way of the time
    lam[0] = -B[0]


cdef void unfire(Lane *lane, int64_t number) noexcept nogil:
    """Undo the event of a unit, of which all arrivals are undone."""
    cdef const Run *run = lane.run
    cdef const Event *event = &lane.record.event[number]
    cdef int p = event.population
    cdef const UnitRow *pop = &run.populations[p]
    cdef Pool *pool = &lane.pool[p]
    cdef const double *K = <const double *> pop.constants
    cdef int32_t unit = event.unit
    cdef int64_t at = run.event_ptr[lane.number] + number
    cdef double *dpar = run.slot[p].dpar + lane.number * pop.n_par * pop.stride + unit
    cdef double x[MAX_SLOTS]
    cdef double lam[MAX_SLOTS]
    cdef double par[MAX_SLOTS]
    cdef double to_par[MAX_SLOTS]
    cdef double dsums[2]
    cdef double B
    cdef double r
    cdef double jump = 0
    cdef double drive
    cdef int k
    bring_back(lane, p, 1, &unit, event.time)
    for k in range(pop.n_slot):
        x[k] = lane.x[k * GROUP]
        lam[k] = lane.lam[k * GROUP]
    for k in range(pop.n_par):
        par[k] = lane.par[k * GROUP]
    if pool.dsums != NULL:
        dsums[0] = pool.dsums[unit]
        dsums[1] = pool.dsums[pop.stride + unit]
    run.at_time[at] += run.dtime[at]
    B = run.at_time[at]
    if pop.kind == EGRU_FLOW:
        if pop.own_gate:
            r = logistic(x[2])
            run.at_value[at] += r * lane.through_gate[number]
            lam[2] += event.value * r * (1 - r) * lane.through_gate[number]
            jump = event.value * r * (1 - r) * lane.through_gate[number] * (par[1] - x[2]) / K[1]
        drive = x[4] / K[0]
        uncross(lane, pop, drive * x[5], drive * (x[5] - par[3]), jump, &B, par[3], 0.0,
                dsums if pool.dsums != NULL else NULL, lam)
        dpar[3 * pop.stride] += B + (0.0 if K[3] != 0 else run.at_value[at])
        x[0] = par[3]
    elif pop.kind == LIF_FLOW:
        drive = (par[0] + x[1] + x[2]) / K[0]
        uncross(lane, pop, 0.0 if K[4] > 0 else drive - K[3] / K[0], drive - par[1] / K[0],
                lam[3] if K[4] > 0 else 0.0, &B, par[1], K[3], dsums if pool.dsums != NULL else NULL, lam)
        dpar[pop.stride] += B
        x[0] = par[1]
        x[3] = lam[3] = 0
    else:
        memset(to_par, 0, sizeof(to_par))
        active.flow.kind[pop.kind].unfire(K, par, x, lam, event.value, run.at_value[at], to_par)
        for k in range(pop.n_par):
            dpar[k * pop.stride] += to_par[k]
    lane.latest[pop.first + unit] = lane.previous[number]
    for k in range(pop.n_slot):
        lane.x[k * GROUP] = x[k]
        lane.lam[k * GROUP] = lam[k]
    put_back(lane, p, 1, &unit)


cdef void undo_event(Lane *lane, int64_t number) noexcept nogil:
    """Undo an event and its arrivals at once, in reverse order."""
    cdef const Run *run = lane.run
    cdef const Event *event = &lane.record.event[number]
    cdef const UnitRow *pop = &run.populations[event.population]
    cdef const FanRow *fan
    cdef int64_t place
    cdef int64_t stop
    cdef int j
    for j in range(pop.out_stop - 1, pop.out_first - 1, -1):
        fan = &run.projections[j]
        place = (<const int64_t *> fan.ptr)[event.unit] if fan.ptr else 0
        stop = (<const int64_t *> fan.ptr)[event.unit + 1] if fan.ptr else 1
        if place < stop and delay_of(fan, place) == 0:
            give_back(lane, j, event.unit, place, group_end(fan, event.unit, place), event.time, number,
                      event.value, gated_value(lane.record, number))
    if pop.kind != NO_FLOW:
        unfire(lane, number)


cdef void undo_arrival(Lane *lane, const Item *item) noexcept nogil:
    cdef const FanRow *fan = &lane.run.projections[item.projection]
    cdef int64_t stop = group_end(fan, item.row, item.place)
    cdef const Event *event
    cdef const Message *carried
    if item.event >= 0:
        event = &lane.record.event[item.event]
        give_back(lane, item.projection, item.row, item.place, stop, event.time + delay_of(fan, item.place),
                  item.event, event.value, gated_value(lane.record, item.event))
    else:
        carried = &lane.record.carried[lane.record.n_carried + item.event]
        give_back(lane, item.projection, item.row, item.place, stop,
                  carried.sent + delay_of(fan, item.place), item.event, carried.value, carried.gated)


cdef void undo_sample(Lane *lane, int64_t number) noexcept nogil:
    """Bring all back to a sample, where its gradient comes in; before it another interval is integrated."""
    cdef const Run *run = lane.run
    cdef const UnitRow *pop
    cdef const Slot *slot
    cdef Pool *pool
    cdef int64_t at
    cdef int64_t i
    cdef int p
    for p in range(run.n_populations):
        pop = &run.populations[p]
        if pop.kind == NO_FLOW:
            continue
        pool = &lane.pool[p]
        slot = &run.slot[p]
        bring_range_back(lane, p, 0, pop.n, run.samples[number])
        at = (number * run.n_lanes + lane.number) * pop.n
        if slot.dstate != NULL:
            for i in range(pop.n):
                pool.lam[pop.main * pop.stride + i] += slot.dstate[at + i]
                if pop.kind == SUM_FLOW:
                    slot.dpar[lane.number * pop.n_par * pop.stride + i] += slot.dstate[at + i]
        if pool.dsums != NULL:
            for i in range(pop.n):
                pool.dsums[i] = slot.dintegral[at + i] if slot.dintegral != NULL else 0.0
                pool.dsums[pop.stride + i] = slot.dsquare[at + i] if slot.dsquare != NULL else 0.0


cdef void return_to_snapshot(Lane *lane, int64_t number) noexcept nogil:
    """Bring each unit back to the time that it was recorded at, and take its recorded states."""
    cdef const Run *run = lane.run
    cdef const UnitRow *pop
    cdef const double *states = lane.record.snapshot[number]
    cdef Pool *pool
    cdef int p
    for p in range(run.n_populations):
        pop = &run.populations[p]
        if pop.kind == NO_FLOW:
            continue
        bring_back_each(lane, p, states + pop.n_state * pop.stride)
        pool = &lane.pool[p]
        memcpy(pool.x, states, pop.n_state * pop.stride * sizeof(double))
        states += (pop.n_state + 1) * pop.stride
        if pop.kind == EGRU_FLOW:
            active.flow.kind[pop.kind].bound(
                <const double *> pop.constants, pop.n, pop.stride, <const double *> pop.par, pool.x, lane.h)


cdef void bring_back_each(Lane *lane, int p, const double *time) noexcept nogil:
    """Bring all units of a population back, each to a time of its own."""
    cdef const UnitRow *pop = &lane.run.populations[p]
    cdef Pool *pool = &lane.pool[p]
    cdef const Slot *slot = &lane.run.slot[p]
    cdef int64_t i
    for i in range(pop.n):
        lane.h[i] = pool.last[i] - time[i]
        pool.last[i] = time[i]
        if pop.kind == LIF_FLOW:
            pool.x[3 * pop.stride + i] = max(held_until(lane, pop, pool, i) - time[i], 0.0)
    fill_up(pop, pop.n, lane.h)
    active.flow.kind[pop.kind].retreat(
        <const double *> pop.constants, pop.n, pop.stride, lane.h, <const double *> pop.par, pool.x, pool.lam,
        pool.dsums, slot.dpar + lane.number * pop.n_par * pop.stride,
        slot.dconstants + lane.number * N_CONSTANTS)


# -- a lane --------------------------------------------------------------------------------------------------


cdef void lane_open(Lane *lane, const Run *run, int64_t shard, int64_t number) noexcept nogil:
    """A lane at the end of the window."""
    cdef const UnitRow *pop
    cdef const double *states
    cdef Pool *pool
    cdef int64_t i
    cdef int64_t unit
    cdef int p
    lane.run = run
    lane.record = &run.record[number]
    lane.number = number
    lane.shard = shard
    lane.next_item = lane.record.n_items
    lane.good = False
    lane.pool = <Pool *> calloc(run.n_populations, sizeof(Pool))
    lane.latest = <int64_t *> malloc(max(run.n_units, <int64_t> 1) * sizeof(int64_t))
    lane.previous = <int64_t *> malloc(max(lane.record.n_events, <int64_t> 1) * sizeof(int64_t))
    lane.through_gate = <double *> calloc(max(lane.record.n_events, <int64_t> 1), sizeof(double))
    lane.h = <double *> line_calloc(sizeof(double) * (6 * MAX_SLOTS + 2 * MAX_BLOCKS + 4) * run.stride)
    if (lane.pool == NULL or lane.latest == NULL or lane.previous == NULL or lane.through_gate == NULL
            or lane.h == NULL):
        return
    lane.x = lane.h + run.stride
    lane.lam = lane.x + MAX_SLOTS * run.stride
    lane.par = lane.lam + MAX_SLOTS * run.stride
    lane.dpar = lane.par + MAX_SLOTS * run.stride
    lane.before = lane.dpar + MAX_SLOTS * run.stride
    lane.after = lane.before + MAX_SLOTS * run.stride
    lane.w = lane.after + MAX_SLOTS * run.stride
    lane.gradient = lane.w + MAX_BLOCKS * run.stride
    lane.timing = lane.gradient + MAX_BLOCKS * run.stride
    lane.dsums = lane.timing + run.stride
    for i in range(run.n_units):
        lane.latest[i] = -1
    for i in range(lane.record.n_events):
        unit = run.populations[lane.record.event[i].population].first + lane.record.event[i].unit
        lane.previous[i] = lane.latest[unit]
        lane.latest[unit] = i
    states = lane.record.snapshot[0]
    for p in range(run.n_populations):
        pop = &run.populations[p]
        if pop.kind == NO_FLOW:
            continue
        pool = &lane.pool[p]
        pool.x = <double *> line_calloc(sizeof(double) * (2 * pop.n_slot + 2) * pop.stride)
        if run.slot[p].dintegral != NULL or run.slot[p].dsquare != NULL:
            pool.dsums = <double *> line_calloc(sizeof(double) * 2 * pop.stride)
        if pool.x == NULL or ((run.slot[p].dintegral != NULL or run.slot[p].dsquare != NULL)
                              and pool.dsums == NULL):
            return
        pool.lam = pool.x + pop.n_slot * pop.stride
        pool.last = pool.lam + pop.n_slot * pop.stride
        pool.hold = pool.last + pop.stride
        memcpy(pool.x, run.slot[p].x + number * pop.n_slot * pop.stride,
               pop.n_slot * pop.stride * sizeof(double))
        for i in range(pop.stride):
            pool.last[i] = run.stop
            if pop.kind == LIF_FLOW:
                pool.hold[i] = run.start + states[3 * pop.stride + i]
        states += (pop.n_state + 1) * pop.stride
    lane.good = True


cdef void lane_close(Lane *lane) noexcept nogil:
    cdef int p
    if lane.pool != NULL:
        for p in range(lane.run.n_populations):
            free(lane.pool[p].x)
            free(lane.pool[p].dsums)
    free(lane.pool)
    free(lane.latest)
    free(lane.previous)
    free(lane.through_gate)
    free(lane.h)
    memset(lane, 0, sizeof(Lane))


cdef void lane_finish(Lane *lane) noexcept nogil:
    """Bring all units to the start, where lambda is the gradient at the initial states."""
    cdef const UnitRow *pop
    cdef int p
    for p in range(lane.run.n_populations):
        pop = &lane.run.populations[p]
        if pop.kind != NO_FLOW:
            bring_range_back(lane, p, 0, pop.n, lane.run.start)
            memcpy(lane.run.slot[p].dinitial + lane.number * pop.n_slot * pop.stride, lane.pool[p].lam,
                   pop.n_slot * pop.stride * sizeof(double))


cdef bint shard_run(const Run *run, Lane *lane, int64_t shard, int64_t *number, int64_t end) noexcept nogil:
    """Go on for a while with the lanes of a shard, up to ``end``; whether there is more to do."""
    cdef const Item *item
    cdef int64_t _
    for _ in range(BUDGET):
        if number[0] == end:
            return False
        if lane.run == NULL:
            lane_open(lane, run, shard, number[0])
            if not lane.good:
                return False
        if lane.next_item == 0:
            lane_finish(lane)
            lane_close(lane)
            number[0] += 1
            continue
        lane.next_item -= 1
        item = &lane.record.item[lane.next_item]
        if item.what == EVENT:
            undo_event(lane, item.event)
        elif item.what == ARRIVAL:
            undo_arrival(lane, item)
        elif item.what == SAMPLE:
            undo_sample(lane, item.event)
        else:
            return_to_snapshot(lane, item.event)
    return True


cdef class ContinuousBackward:
    """The replay of what a run recorded.

    Parameters
    ----------
    plan : Table
    tape : Tape
    n_shards : int
        Lanes are summed in so many parts.
    samples : float64 array
    min_slope : float
        Slopes at crossings below it are raised to it.
    """

    cdef Run run
    cdef Lane *lanes        # [n_shards], the one that each is at
    cdef int64_t *number
    cdef list keep

    def __cinit__(self, Table plan, Tape tape, int64_t n_shards, samples, double min_slope):
        cdef int64_t p
        self.keep = [plan, tape, samples]
        self.run.populations, self.run.projections = plan.populations, plan.projections
        self.run.n_populations, self.run.n_projections = plan.n_populations, plan.n_projections
        self.run.n_lanes, self.run.n_shards, self.run.n_units = tape.n_lanes, n_shards, plan.n_units
        self.run.start, self.run.stop, self.run.min_slope = tape.start, tape.stop, min_slope
        self.run.samples = <const double *> address(samples, len(samples), c"d")
        self.run.record = tape.record
        self.run.stride = GROUP
        for p in range(plan.n_populations):
            self.run.stride = max(self.run.stride, <int64_t> plan.populations[p].stride)
        p = max(n_shards * plan.n_projections, 1)
        self.run.slot = <Slot *> calloc(plan.n_populations, sizeof(Slot))
        self.run.dweight = <void **> calloc(p, sizeof(void *))
        self.run.taken = <unsigned char **> calloc(p, sizeof(unsigned char *))
        self.run.ddelay = <double **> calloc(p, sizeof(double *))
        self.run.macs = <int64_t *> calloc(p, sizeof(int64_t))
        self.run.grazing = <int64_t *> calloc(n_shards, sizeof(int64_t))
        self.lanes = <Lane *> calloc(n_shards, sizeof(Lane))
        self.number = <int64_t *> calloc(n_shards, sizeof(int64_t))
        if (self.run.slot == NULL or self.run.dweight == NULL or self.run.taken == NULL
                or self.run.ddelay == NULL or self.run.macs == NULL or self.run.grazing == NULL
                or self.lanes == NULL or self.number == NULL):
            raise MemoryError

    def __dealloc__(self):
        cdef int64_t shard
        if self.lanes != NULL:
            for shard in range(self.run.n_shards):
                if self.lanes[shard].run != NULL:
                    lane_close(&self.lanes[shard])
        free(self.lanes)
        free(self.number)
        free(self.run.slot)
        free(self.run.dweight)
        free(self.run.taken)
        free(self.run.ddelay)
        free(self.run.macs)
        free(self.run.grazing)

    def give_arrays(self, int population, x, dstate, dintegral, dsquare, dpar, dconstants, dinitial):
        """Arrays of a population; see Slot."""
        cdef const UnitRow *pop = &self.run.populations[population]
        cdef Slot *slot = &self.run.slot[population]
        cdef int64_t lanes = self.run.n_lanes
        cdef int64_t n = lanes * pop.n * len(self.keep[2])
        self.keep += [x, dstate, dintegral, dsquare, dpar, dconstants, dinitial]
        slot.x = <const double *> address(x, lanes * pop.n_slot * pop.stride, c"d")
        slot.dstate = <const double *> address(dstate, n, c"d")
        slot.dintegral = <const double *> address(dintegral, n, c"d")
        slot.dsquare = <const double *> address(dsquare, n, c"d")
        slot.dpar = <double *> address(dpar, lanes * pop.n_par * pop.stride, c"d")
        slot.dconstants = <double *> address(dconstants, lanes * N_CONSTANTS, c"d")
        slot.dinitial = <double *> address(dinitial, lanes * pop.n_slot * pop.stride, c"d")

    def give_projection(self, int projection, dweight, ddelay=None, taken=None):
        """Gradients of a projection's weights (n_shards, n_weights) and delays (n_shards, n_delays), zero.

        ``taken``, bool of shape (n_shards, n_source), False: becomes True where a row of dense weights gets a
        gradient, which is then taken into memory; without it the gradient is in memory as it is.
        """
        cdef int64_t shard
        cdef int64_t at
        cdef int64_t n
        self.keep += [dweight, ddelay, taken]
        cdef char kind = c"d" if self.run.projections[projection].wide else c"f"
        for shard in range(self.run.n_shards):
            at = shard * self.run.n_projections + projection
            self.run.dweight[at] = address(dweight[shard], dweight[shard].size, kind)
            if ddelay is not None:
                self.run.ddelay[at] = <double *> address(ddelay[shard], ddelay[shard].size, c"d")
            if taken is not None:
                n = self.run.populations[self.run.projections[projection].source].n
                self.run.taken[at] = <unsigned char *> address(taken[shard], n, c"?")

    def give_events(self, ptr, dtime, at_time, at_value):
        """Gradients at events, rows ptr[l]:ptr[l + 1] of lane l; dtime IN, at_time and at_value zero, OUT."""
        cdef int64_t n = len(dtime)
        self.keep += [ptr, dtime, at_time, at_value]
        self.run.event_ptr = <const int64_t *> address(ptr, self.run.n_lanes + 1, c"l")
        self.run.dtime = <const double *> address(dtime, n, c"d")
        self.run.at_time = <double *> address(at_time, n, c"d")
        self.run.at_value = <double *> address(at_value, n, c"d")

    def go(self, int n_threads):
        """Replay; the MACs of each projection, and the number of slopes that were raised."""
        cdef int64_t shard
        cdef int64_t n_shards = self.run.n_shards
        cdef int64_t n_lanes = self.run.n_lanes
        cdef int64_t going = 1
        for shard in range(n_shards):
            self.number[shard] = shard * n_lanes // n_shards
        while going:
            going = 0
            if n_threads == 1:      # without OpenMP, whose barriers call the system even for one thread
                with nogil:
                    for shard in range(n_shards):
                        going += shard_run(&self.run, &self.lanes[shard], shard, &self.number[shard],
                                           (shard + 1) * n_lanes // n_shards)
            else:
                for shard in prange(n_shards, num_threads=n_threads, schedule="dynamic", nogil=True):
                    going += shard_run(&self.run, &self.lanes[shard], shard, &self.number[shard],
                                       (shard + 1) * n_lanes // n_shards)
            for shard in range(n_shards):
                if self.lanes[shard].run != NULL and not self.lanes[shard].good:
                    raise MemoryError
            PyErr_CheckSignals()
        return (sums(self.run.macs, n_shards, self.run.n_projections),
                sums(self.run.grazing, n_shards, 1)[0])
