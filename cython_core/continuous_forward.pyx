"""The loop over events in continuous time, forwards.

A unit is brought to the present only when something happens to it: when events arrive, when it may have come
to its threshold, when states are sampled.  What comes next is the earliest of the next sample, external
event, event in flight, and entry of the schedule; at one instant in this order.

Lanes are independent and run in parallel; no result depends on the number of threads.
"""

import numpy as np

from cpython.exc cimport PyErr_CheckSignals
from cython.parallel cimport prange
from libc.math cimport INFINITY, nextafter
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from evsim.core.buffers cimport address, fill, sums
from evsim.core.continuous cimport (
    ARRIVAL,
    BLOCK,
    EVENT,
    FAR_APART,
    GROUP,
    MAX_BLOCKS,
    MAX_SLOTS,
    NO_FLOW,
    SAMPLE,
    SNAPSHOT,
    Event,
    FanRow,
    Item,
    Record,
    Table,
    Tape,
    UnitRow,
    align,
    delay_of,
    fetch,
    fetch_block,
    fill_up,
    gather,
    group_end,
    read_row,
    read_weights,
    room_for,
    scatter,
    take_weights,
)
from evsim.core.kernels cimport EGRU_FLOW, SUM_FLOW, Flow, active, logistic
from evsim.core.memory cimport line_calloc
from evsim.core.messages cimport Message, Messages, messages_free, messages_peek, messages_pop, messages_push
from evsim.core.schedule cimport (
    Schedule,
    schedule_free,
    schedule_open,
    schedule_peek,
    schedule_refresh,
    schedule_set,
)

MESSAGE = np.dtype(
    [(name, "f8") for name in ("time", "sent", "value", "gated")]
    + [(name, "i8") for name in ("source", "event", "place")]
    + [(name, "i4") for name in ("projection", "row")]
)

cdef enum:
    BUDGET = 65536      # what happens in a lane before signals are looked at

# The arrays of one population, for all lanes.
cdef struct Slot:
    double *x           # [n_lanes, n_slot, stride], IN and OUT
    double *state       # [n_samples, n_lanes, n], OUT
    double *integral    # same, of the state and of its square, since the sample before; or NULL
    double *square

cdef struct Run:
    const UnitRow *populations
    const FanRow *projections
    int n_populations
    int n_projections
    int64_t n_lanes
    int64_t n_units
    int64_t stride              # of the largest population
    double start
    double stop
    double every                # ms from one snapshot to the next; 0: none
    int64_t most_events
    bint gated                  # whether events of some units are gated by their own r
    int64_t n_samples
    const double *samples
    const int64_t *given_ptr    # the stimulus: rows of each lane, in order of time
    const double *given_time
    const double *given_value
    const int32_t *given_population
    const int32_t *given_unit
    Slot *slot
    int64_t *macs               # [n_lanes, n_projections]

# One population in one lane.
cdef struct Pool:
    double *x       # [n_slot, stride]
    double *last    # [stride] the time that x belongs to
    int64_t *sure   # [n] whether (1) the entry in the schedule is that of the next event
    double *sums    # [2, stride] or NULL

cdef struct Lane:
    const Run *run
    Record *record
    int64_t number
    Pool *pool
    Schedule schedule
    Messages messages
    int64_t next_given
    int64_t next_sample
    int64_t next_snapshot
    # scratch for units side by side, each [k, stride]
    double *h
    double *x
    double *par
    double *w
    double *wait
    double *sums
    int status      # 0 goes on, 1 done, -1 memory ran out, -2 too many events, -3 states are not numbers


# -- units --------------------------------------------------------------------------------------------------


cdef void look_ahead(Lane *lane, const UnitRow *pop, Pool *pool, int64_t m, const int32_t *unit, double now,
                     const double *wait) noexcept nogil:
    """New entries in the schedule for units that have changed, unless their event is due now."""
    cdef double *entry = lane.schedule.level[0] + pop.first
    cdef int64_t i
    cdef int64_t k
    for i in range(m):
        k = unit[i]
        if pool.sure[k] and entry[k] <= now:
            continue
        pool.sure[k] = 0
        schedule_set(&lane.schedule, pop.first + k, now + wait[i])
        if wait[i] != wait[i]:
            lane.status = -3


cdef void bring_range(Lane *lane, int p, int64_t first, int64_t m, double now) noexcept nogil:
    """Bring the m units from ``first``, a multiple of GROUP, to the present, where they are."""
    cdef const UnitRow *pop = &lane.run.populations[p]
    cdef Pool *pool = &lane.pool[p]
    active.flow.elapse(m, now, 0, pool.last + first, lane.h)
    fill_up(pop, m, lane.h)
    active.flow.kind[pop.kind].advance(
        <const double *> pop.constants, m, pop.stride, lane.h, <const double *> pop.par + first,
        pool.x + first, pool.sums + first if pool.sums != NULL else NULL)


cdef void put_back_range(Lane *lane, int p, int64_t first, int64_t m, double now) noexcept nogil:
    """After `bring_range` and what happened: look ahead.  The nodes of the schedule are left as they are."""
    cdef const UnitRow *pop = &lane.run.populations[p]
    cdef Pool *pool = &lane.pool[p]
    cdef const Flow *flow = &active.flow.kind[pop.kind]
    if flow.bound == NULL:
        return
    flow.bound(<const double *> pop.constants, m, pop.stride, <const double *> pop.par + first,
               pool.x + first, lane.wait)
    if active.flow.renew(m, now, lane.wait, pool.sure + first, lane.schedule.level[0] + pop.first + first):
        lane.status = -3


cdef void bring_all(Lane *lane, int p, double now) noexcept nogil:
    """Bring all units to the present and look ahead."""
    cdef const UnitRow *pop = &lane.run.populations[p]
    bring_range(lane, p, 0, pop.n, now)
    put_back_range(lane, p, 0, pop.n, now)
    schedule_refresh(&lane.schedule, pop.first, pop.n)


cdef void bring(Lane *lane, int p, int64_t m, const int32_t *unit, double now) noexcept nogil:
    """Bring some units to the present, side by side in scratch."""
    cdef const UnitRow *pop = &lane.run.populations[p]
    cdef Pool *pool = &lane.pool[p]
    cdef const double *par = <const double *> pop.par
    cdef int64_t stride = align(m)
    cdef const Flow *flow = &active.flow.kind[pop.kind]
    cdef int64_t i
    cdef int k
    if pop.n >= FAR_APART:
        fetch(m, unit, 0, 1, pool.last)
        fetch(m, unit, pop.stride, pop.n_slot, pool.x)
        fetch(m, unit, pop.stride, pop.n_par, par)
        fetch(m, unit, 0, 1, lane.schedule.level[0] + pop.first)
    for i in range(m):
        lane.h[i] = now - pool.last[unit[i]]
        pool.last[unit[i]] = now
    fill_up(pop, m, lane.h)
    if m == 1:
        active.flow.lift(pop.n_slot, pop.stride, pool.x + unit[0], lane.x)
        active.flow.lift(pop.n_par, pop.stride, par + unit[0], lane.par)
    else:
        for k in range(pop.n_slot):
            gather(m, unit, pool.x + k * pop.stride, lane.x + k * stride)
        for k in range(pop.n_par):
            gather(m, unit, par + k * pop.stride, lane.par + k * stride)
    if pool.sums != NULL:
        for k in range(2):
            gather(m, unit, pool.sums + k * pop.stride, lane.sums + k * stride)
    flow.advance(<const double *> pop.constants, m, stride, lane.h, lane.par, lane.x,
                 lane.sums if pool.sums != NULL else NULL)
    if pool.sums != NULL:
        for k in range(2):
            scatter(m, unit, lane.sums + k * stride, pool.sums + k * pop.stride)


cdef void put_back(Lane *lane, int p, int64_t m, const int32_t *unit, double now) noexcept nogil:
    """After `bring` and what happened: look ahead, and write the units back."""
    cdef const UnitRow *pop = &lane.run.populations[p]
    cdef Pool *pool = &lane.pool[p]
    cdef int64_t stride = align(m)
    cdef const Flow *flow = &active.flow.kind[pop.kind]
    cdef int k
    if flow.bound != NULL:
        flow.bound(<const double *> pop.constants, m, stride, lane.par, lane.x, lane.wait)
        look_ahead(lane, pop, pool, m, unit, now, lane.wait)
    for k in range(pop.n_slot):
        scatter(m, unit, lane.x + k * stride, pool.x + k * pop.stride)


cdef inline void add_arrival(const FanRow *fan, const UnitRow *pop, int64_t m, int64_t stride, double *x,
                             const double *w, double value, double gated) noexcept nogil:
    """What an event does to the states of m units."""
    cdef int64_t i
    cdef int b
    if pop.kind == EGRU_FLOW:
        active.flow.egru_receive(m, stride, x, w, value, gated if fan.gated else value, fan.post)
        return
    for b in range(fan.n_blocks):
        for i in range(m):
            x[fan.slot[b] * stride + i] += value * w[b * stride + i]


cdef void receive_all(Lane *lane, const FanRow *fan, int64_t row, double now, double value,
                      double gated) noexcept nogil:
    """An event arrives at all units of the target, block by block."""
    cdef const UnitRow *pop = &lane.run.populations[fan.target]
    cdef int64_t first
    cdef int64_t m
    cdef int block
    take_weights(fan, pop.n, row)
    fetch_block(fan, <const void *> fan.weight, pop.n, row, 0)
    for block in range((pop.n + BLOCK - 1) // BLOCK):
        first = block * BLOCK
        m = min(<int64_t> BLOCK, pop.n - first)
        fetch_block(fan, <const void *> fan.weight, pop.n, row, first + m)
        bring_range(lane, fan.target, first, m, now)
        read_row(fan, pop.n, row, first, m, pop.stride, lane.w)
        add_arrival(fan, pop, m, pop.stride, lane.pool[fan.target].x + first, lane.w, value, gated)
        put_back_range(lane, fan.target, first, m, now)
    schedule_refresh(&lane.schedule, pop.first, pop.n)


cdef void receive(Lane *lane, int projection, int64_t row, int64_t place, int64_t stop, double now,
                  double value, double gated) noexcept nogil:
    """An event arrives at the pairs from ``place`` to ``stop``, or at all units of the target."""
    cdef const FanRow *fan = &lane.run.projections[projection]
    cdef const UnitRow *pop = &lane.run.populations[fan.target]
    cdef const int32_t *unit = <const int32_t *> fan.unit + place
    cdef int64_t m = stop - place if fan.ptr else pop.n
    lane.run.macs[lane.number * lane.run.n_projections + projection] += m * fan.n_blocks
    if not fan.ptr:
        receive_all(lane, fan, row, now, value, gated)
        return
    bring(lane, fan.target, m, unit, now)
    read_weights(fan, place, m, align(m), lane.w)
    add_arrival(fan, pop, m, align(m), lane.x, lane.w, value, gated)
    put_back(lane, fan.target, m, unit, now)


# -- what can happen -----------------------------------------------------------------------------------------


cdef bint note(Lane *lane, int32_t what, int64_t event, int32_t projection, int32_t row,
               int64_t place) noexcept nogil:
    """Record the order of things; False if memory ran out."""
    cdef Record *record = lane.record
    if lane.run.every == 0:
        return True
    if not room_for(<void **> &record.item, record.n_items, &record.item_room, sizeof(Item)):
        return False
    record.item[record.n_items].what = what
    record.item[record.n_items].event = event
    record.item[record.n_items].projection = projection
    record.item[record.n_items].row = row
    record.item[record.n_items].place = place
    record.n_items += 1
    return True


cdef bint send(Lane *lane, int p, int32_t unit, double now, double value, double gated) noexcept nogil:
    """Record an event, let it arrive where it arrives at once, and put the rest into flight."""
    cdef Record *record = lane.record
    cdef const UnitRow *pop = &lane.run.populations[p]
    cdef const FanRow *fan
    cdef Message message
    cdef int64_t stop
    cdef int64_t end
    cdef int j
    if not room_for(<void **> &record.event, record.n_events, &record.event_room, sizeof(Event)):
        return False
    if lane.run.gated:
        if not room_for(<void **> &record.gated, record.n_events, &record.gated_room, sizeof(double)):
            return False
        record.gated[record.n_events] = gated
    record.event[record.n_events].time = now
    record.event[record.n_events].value = value
    record.event[record.n_events].population = p
    record.event[record.n_events].unit = unit
    if not note(lane, EVENT, record.n_events, -1, unit, 0):
        return False
    for j in range(pop.out_first, pop.out_stop):
        fan = &lane.run.projections[j]
        message.place = (<const int64_t *> fan.ptr)[unit] if fan.ptr else 0
        stop = (<const int64_t *> fan.ptr)[unit + 1] if fan.ptr else 1
        if message.place < stop and delay_of(fan, message.place) == 0:
            end = group_end(fan, unit, message.place)
            receive(lane, j, unit, message.place, end, now, value, gated)
            message.place = end if fan.ptr else 1
        if message.place < stop:
            message.time = now + delay_of(fan, message.place)
            message.sent = now
            message.value = value
            message.gated = gated
            message.source = pop.first + unit
            message.event = record.n_events
            message.projection = j
            message.row = unit
            if not messages_push(&lane.messages, message):
                return False
    record.n_events += 1
    return True


cdef bint arrive(Lane *lane) noexcept nogil:
    """The next event in flight arrives; what follows of it goes on."""
    cdef Message message = messages_pop(&lane.messages)
    cdef const FanRow *fan = &lane.run.projections[message.projection]
    cdef int64_t end = group_end(fan, message.row, message.place)
    if not note(lane, ARRIVAL, message.event, message.projection, message.row, message.place):
        return False
    receive(lane, message.projection, message.row, message.place, end, message.time, message.value,
            message.gated)
    if not fan.ptr or end == (<const int64_t *> fan.ptr)[message.row + 1]:
        return True
    message.place = end
    message.time = message.sent + delay_of(fan, end)
    return messages_push(&lane.messages, message)


cdef int owner(const Run *run, int64_t entry) noexcept nogil:
    """The population that an entry of the schedule belongs to."""
    cdef int low = 0
    cdef int high = run.n_populations
    cdef int middle
    while high - low > 1:
        middle = (low + high) // 2
        if run.populations[middle].first <= entry:
            low = middle
        else:
            high = middle
    return low


cdef bint look(Lane *lane, int64_t entry, double now) noexcept nogil:
    """A unit's entry in the schedule has come: its event, or a look at when that will be."""
    cdef int p = owner(lane.run, entry)
    cdef const UnitRow *pop = &lane.run.populations[p]
    cdef Pool *pool = &lane.pool[p]
    cdef const Flow *flow = &active.flow.kind[pop.kind]
    cdef const double *K = <const double *> pop.constants
    cdef int32_t unit = <int32_t> (entry - pop.first)
    cdef double one[MAX_SLOTS]
    cdef double par[MAX_SLOTS]
    cdef double value
    cdef double gated
    cdef double when
    cdef bint found
    cdef int k
    bring(lane, p, 1, &unit, now)
    for k in range(pop.n_slot):
        one[k] = lane.x[k * GROUP]
    for k in range(pop.n_par):
        par[k] = lane.par[k * GROUP]
    if pool.sure[unit]:
        gated = logistic(one[2]) if pop.own_gate else 1.0
        value = flow.fire(K, par, one)
        for k in range(pop.n_slot):
            lane.x[k * GROUP] = one[k]
        pool.sure[unit] = 0
        put_back(lane, p, 1, &unit, now)
        if lane.record.n_events >= lane.run.most_events:
            lane.status = -2
            return True
        return send(lane, p, unit, now, value, value * gated)
    put_back(lane, p, 1, &unit, now)
    if lane.wait[0] > pop.soon:
        return True
    found = flow.locate(K, par, one, &when)
    when += now
    if not found and when <= now:
        when = nextafter(now, INFINITY)
    pool.sure[unit] = found
    schedule_set(&lane.schedule, entry, when)
    return True


cdef void sample(Lane *lane, double now) noexcept nogil:
    """Bring all units to the present and copy their states."""
    cdef const Run *run = lane.run
    cdef const UnitRow *pop
    cdef const double *bias
    cdef Pool *pool
    cdef int64_t at
    cdef int64_t i
    cdef int p
    for p in range(run.n_populations):
        pop = &run.populations[p]
        if pop.kind == NO_FLOW:
            continue
        pool = &lane.pool[p]
        bring_all(lane, p, now)
        at = (lane.next_sample * run.n_lanes + lane.number) * pop.n
        memcpy(run.slot[p].state + at, pool.x + pop.main * pop.stride, pop.n * sizeof(double))
        if pop.kind == SUM_FLOW:
            bias = <const double *> pop.par
            for i in range(pop.n):
                run.slot[p].state[at + i] += bias[i]
        if pool.sums != NULL:
            memcpy(run.slot[p].integral + at, pool.sums, pop.n * sizeof(double))
            memcpy(run.slot[p].square + at, pool.sums + pop.stride, pop.n * sizeof(double))
            memset(pool.sums, 0, 2 * pop.stride * sizeof(double))


cdef bint take_snapshot(Lane *lane, double now) noexcept nogil:
    """Copy all states; units that nothing has happened to since the last snapshot are brought up first.

    So the way back never has to go over more than two intervals at a time, over which what has decayed can
    still be found again.
    """
    cdef const Run *run = lane.run
    cdef const UnitRow *pop
    cdef Record *record = lane.record
    cdef Pool *pool
    cdef double *states
    cdef int64_t size = 0
    cdef int32_t unit
    cdef int p
    for p in range(run.n_populations):
        if run.populations[p].kind != NO_FLOW:
            size += (run.populations[p].n_state + 1) * run.populations[p].stride
    states = <double *> malloc(max(size, 1) * sizeof(double))
    if states == NULL or not room_for(<void **> &record.snapshot, record.n_snapshots, &record.snapshot_room,
                                      sizeof(double *)):
        free(states)
        return False
    record.snapshot[record.n_snapshots] = states
    record.n_snapshots += 1
    for p in range(run.n_populations):
        pop = &run.populations[p]
        if pop.kind == NO_FLOW:
            continue
        pool = &lane.pool[p]
        for unit in range(pop.n):
            if pool.last[unit] < now - run.every:
                bring(lane, p, 1, &unit, now)
                put_back(lane, p, 1, &unit, now)
        memcpy(states, pool.x, pop.n_state * pop.stride * sizeof(double))
        memcpy(states + pop.n_state * pop.stride, pool.last, pop.stride * sizeof(double))
        states += (pop.n_state + 1) * pop.stride
    return True


cdef void step(Lane *lane) noexcept nogil:
    """What comes next in a lane."""
    cdef const Run *run = lane.run
    cdef const Message *message = messages_peek(&lane.messages)
    cdef int64_t given = lane.next_given
    cdef int64_t entry
    cdef double due
    cdef double now = INFINITY
    cdef int what = -1
    cdef bint good = True
    if given < run.given_ptr[lane.number + 1]:
        now = run.given_time[given]
        what = EVENT
    if message != NULL and message.time < now:
        now = message.time
        what = ARRIVAL
    if run.every > 0 and run.start + lane.next_snapshot * run.every <= now:
        now = run.start + lane.next_snapshot * run.every
        what = SNAPSHOT
    if lane.next_sample < run.n_samples and run.samples[lane.next_sample] <= now:
        now = run.samples[lane.next_sample]
        what = SAMPLE
    entry = schedule_peek(&lane.schedule, &due)
    if due < now and due < run.stop:
        good = look(lane, entry, due)
    elif what < 0 or now > run.stop or (
            # The way back needs a snapshot of the start, even if the window has no length.
            now == run.stop and what != SAMPLE and (what != SNAPSHOT or lane.next_snapshot > 0)):
        lane.status = 1
    elif what == SAMPLE:
        sample(lane, now)
        good = note(lane, SAMPLE, lane.next_sample, -1, -1, 0)
        lane.next_sample += 1
    elif what == SNAPSHOT:
        good = take_snapshot(lane, now) and note(lane, SNAPSHOT, lane.next_snapshot, -1, -1, 0)
        lane.next_snapshot += 1
    elif what == EVENT:
        lane.next_given += 1
        good = send(lane, run.given_population[given], run.given_unit[given], now, run.given_value[given],
                    run.given_value[given])
    else:
        good = arrive(lane)
    if not good:
        lane.status = -1


# -- a lane --------------------------------------------------------------------------------------------------


cdef bint lane_open(Lane *lane, const Run *run, Record *record, int64_t number) noexcept nogil:
    """A lane at the start of the window; False if memory ran out."""
    cdef const UnitRow *pop
    cdef Pool *pool
    cdef int64_t i
    cdef int p
    lane.run = run
    lane.record = record
    lane.number = number
    lane.next_given = run.given_ptr[number]
    lane.pool = <Pool *> calloc(run.n_populations, sizeof(Pool))
    lane.h = <double *> line_calloc(sizeof(double) * (2 + 2 * MAX_SLOTS + MAX_BLOCKS + 2) * run.stride)
    if lane.pool == NULL or lane.h == NULL or not schedule_open(&lane.schedule, run.n_units):
        return False
    lane.wait = lane.h + run.stride
    lane.x = lane.wait + run.stride
    lane.par = lane.x + MAX_SLOTS * run.stride
    lane.w = lane.par + MAX_SLOTS * run.stride
    lane.sums = lane.w + MAX_BLOCKS * run.stride
    for p in range(run.n_populations):
        pop = &run.populations[p]
        pool = &lane.pool[p]
        if pop.kind == NO_FLOW:
            continue
        pool.x = run.slot[p].x + number * pop.n_slot * pop.stride
        pool.last = <double *> line_calloc(sizeof(double) * pop.stride)
        pool.sure = <int64_t *> line_calloc(sizeof(double) * pop.stride)
        if pool.last == NULL or pool.sure == NULL:
            return False
        if run.slot[p].integral != NULL:
            pool.sums = <double *> line_calloc(sizeof(double) * 2 * pop.stride)
            if pool.sums == NULL:
                return False
        for i in range(pop.stride):
            pool.last[i] = run.start
        put_back_range(lane, p, 0, pop.n, run.start)
        schedule_refresh(&lane.schedule, pop.first, pop.n)
    return True


cdef void lane_close(Lane *lane) noexcept nogil:
    cdef int p
    if lane.pool != NULL:
        for p in range(lane.run.n_populations):
            free(lane.pool[p].last)
            free(lane.pool[p].sure)
            free(lane.pool[p].sums)
    free(lane.pool)
    free(lane.h)
    schedule_free(&lane.schedule)
    messages_free(&lane.messages)


cdef void lane_run(Lane *lane) noexcept nogil:
    """Go on for a while; at the end of the window all units are brought there."""
    cdef const UnitRow *pop
    cdef int64_t _
    cdef int p
    for _ in range(BUDGET):
        if lane.status != 0:
            break
        step(lane)
        if lane.status == 1:
            for p in range(lane.run.n_populations):
                pop = &lane.run.populations[p]
                if pop.kind != NO_FLOW:
                    bring_all(lane, p, lane.run.stop)


cdef class ContinuousForward:
    """One run of a plan, over the window from ``start`` to ``stop`` in ms.

    Parameters
    ----------
    plan : Table
    n_lanes : int
    start, stop : float
    samples : float64 array
        Times at which states are sampled.
    every : float
        ms from one snapshot to the next; 0: nothing is kept for the way back.
    most_events : int
        Of one lane, after which the run stops with an error.
    """

    cdef Run run
    cdef Lane *lanes
    cdef Table table
    cdef readonly Tape tape
    cdef list keep

    def __cinit__(self, Table plan, int64_t n_lanes, double start, double stop, samples, double every,
                  int64_t most_events):
        cdef int p
        self.table = plan
        self.tape = Tape(n_lanes, start, stop)
        self.keep = [samples]
        self.run.populations, self.run.projections = plan.populations, plan.projections
        self.run.n_populations, self.run.n_projections = plan.n_populations, plan.n_projections
        self.run.n_lanes, self.run.n_units = n_lanes, plan.n_units
        self.run.start, self.run.stop, self.run.every = start, stop, every
        self.run.most_events, self.run.n_samples = most_events, len(samples)
        self.run.samples = <const double *> address(samples, len(samples), c"d")
        self.run.stride = GROUP
        for p in range(plan.n_populations):
            self.run.stride = max(self.run.stride, <int64_t> plan.populations[p].stride)
            self.run.gated = self.run.gated or plan.populations[p].own_gate != 0
        self.run.slot = <Slot *> calloc(plan.n_populations, sizeof(Slot))
        self.run.macs = <int64_t *> calloc(max(n_lanes * plan.n_projections, 1), sizeof(int64_t))
        self.lanes = <Lane *> calloc(n_lanes, sizeof(Lane))
        if self.run.slot == NULL or self.run.macs == NULL or self.lanes == NULL:
            raise MemoryError

    def __dealloc__(self):
        cdef int64_t lane
        if self.lanes != NULL:
            for lane in range(self.run.n_lanes):
                if self.lanes[lane].run != NULL:
                    lane_close(&self.lanes[lane])
        free(self.lanes)
        free(self.run.slot)
        free(self.run.macs)

    def give_stimulus(self, ptr, time, population, unit, value):
        """External events of all lanes: rows ptr[l]:ptr[l + 1] are lane l, in order of time."""
        cdef int64_t n = len(time)
        self.keep += [ptr, time, population, unit, value]
        self.run.given_ptr = <const int64_t *> address(ptr, self.run.n_lanes + 1, c"l")
        self.run.given_time = <const double *> address(time, n, c"d")
        self.run.given_population = <const int32_t *> address(population, n, c"i")
        self.run.given_unit = <const int32_t *> address(unit, n, c"i")
        self.run.given_value = <const double *> address(value, n, c"d")

    def give_arrays(self, int population, x, state, integral=None, square=None):
        """Arrays of a population: states (n_lanes, n_slot, stride), IN and OUT, and of samples, OUT."""
        cdef const UnitRow *pop = &self.run.populations[population]
        cdef Slot *slot = &self.run.slot[population]
        cdef int64_t n = self.run.n_samples * self.run.n_lanes * pop.n
        self.keep += [x, state, integral, square]
        slot.x = <double *> address(x, self.run.n_lanes * pop.n_slot * pop.stride, c"d")
        slot.state = <double *> address(state, n, c"d")
        slot.integral = <double *> address(integral, n, c"d")
        slot.square = <double *> address(square, n, c"d")

    def give_messages(self, int64_t lane, const unsigned char[::1] messages):
        """Events in flight at the start, as `in_flight` gives them."""
        cdef Record *record = &self.tape.record[lane]
        cdef int64_t k
        if len(messages) == 0:
            return
        record.carried = <Message *> malloc(len(messages))
        if record.carried == NULL:
            raise MemoryError
        memcpy(record.carried, &messages[0], len(messages))
        record.n_carried = len(messages) // sizeof(Message)
        for k in range(record.n_carried):
            if not messages_push(&self.lanes[lane].messages, record.carried[k]):
                raise MemoryError

    def go(self, int n_threads):
        """Run; the MACs of each projection.

        Raises
        ------
        MemoryError
        OverflowError
            A lane had too many events.
        FloatingPointError
            States of a lane are no numbers any more.
        """
        cdef int64_t lane
        cdef int64_t n_lanes = self.run.n_lanes
        cdef bint going = True
        for lane in range(n_lanes):
            if not lane_open(&self.lanes[lane], &self.run, &self.tape.record[lane], lane):
                raise MemoryError
        while going:
            if n_threads == 1:      # without OpenMP, whose barriers call the system even for one thread
                with nogil:
                    for lane in range(n_lanes):
                        lane_run(&self.lanes[lane])
            else:
                for lane in prange(n_lanes, num_threads=n_threads, schedule="dynamic", nogil=True):
                    lane_run(&self.lanes[lane])
            going = False
            for lane in range(n_lanes):
                if self.lanes[lane].status == -1:
                    raise MemoryError
                if self.lanes[lane].status == -2:
                    raise OverflowError(f"lane {lane}")
                if self.lanes[lane].status == -3:
                    raise FloatingPointError(f"lane {lane}")
                going = going or self.lanes[lane].status == 0
            PyErr_CheckSignals()
        return sums(self.run.macs, n_lanes, self.run.n_projections)

    def in_flight(self, int64_t lane):
        """Events of a lane that arrive after the end, of dtype MESSAGE; numbered as from before a window."""
        cdef Messages *heap = &self.lanes[lane].messages
        cdef int64_t n = heap.count
        if n == 0:
            return np.empty(0, MESSAGE)
        found = np.empty(n, MESSAGE)
        fill(found, heap.item, n * sizeof(Message))
        found = np.sort(found, order=["time", "source", "event", "projection", "place"])
        found["event"] = np.arange(-n, 0)
        return found
