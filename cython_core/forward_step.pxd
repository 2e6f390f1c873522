"""A step of one population: what it receives, in several lanes at once, how it advances, what it sends."""

from libc.stdint cimport int32_t, int64_t
from libc.string cimport memcpy, memset

from evsim.core.event_queue cimport Queue, queue_peek, queue_push, queue_room
from evsim.core.fanout cimport deliver_many, shared_out
from evsim.core.gains cimport Passed, counted, share_passed
from evsim.core.kernels cimport (
    EventList,
    add_rows,
    delta_gru_advance,
    delta_lstm_advance,
    delta_readout_advance,
    egru_evnn_advance,
    egru_paper_advance,
    lif_advance,
    readout_advance,
    send_changes,
)
from evsim.core.layout cimport (
    DELTA_ENCODER,
    DELTA_GRU,
    DELTA_LSTM,
    DELTA_SOURCE,
    EGRU_EVNN,
    EGRU_PAPER,
    LIF,
    READOUT,
    FixedFormat,
    PopulationRow,
    ProjectionRow,
    decides,
    holds,
    real,
)
from evsim.core.paper_form cimport receive_gated
from evsim.core.team cimport Team, wait

# One population's share of a run; addresses are 0 where there is nothing.
cdef struct Slot:
    void *base              # the biases
    const void *drive       # real[steps, B, n_in]: biases and dense products from step `first` on, or NULL
    void *state             # real[B, n_state], IN and OUT
    void *tape              # real[T, B, n_tape], OUT
    void *checkpoints       # real[ceil(T / every), B, n_state], OUT: states before every so many steps
    const void *line        # stimulus of a source that sends changes: real[T, B, n]
    bint given              # its events are part of the stimulus
    bint outside            # it receives from other components
    Queue *queue            # [B], of all that send
    int64_t received        # where in the scratch what it receives begins, in reals per step of a stretch
    const int64_t *edit_ptr     # changes of events on their way, by bucket like events, or NULL
    const int32_t *edit_unit
    const void *edit_factor     # real[edits]
    const void *edit_shift
    int64_t *edited             # int64[B], OUT: events that were changed

cdef struct Run:
    const PopulationRow *populations
    const ProjectionRow *projections
    int n_populations
    int n_projections
    int64_t n_lanes
    const int64_t *lengths
    int64_t first           # steps to run now: first:stop
    int64_t stop
    int64_t every           # steps from one checkpoint to the next
    int64_t together        # lanes that a thread runs side by side
    int64_t stretch         # steps
    int64_t width           # reals received in one step by the largest component
    Slot *slot
    const void **gain       # by projection: real[B, units of its source], or NULL
    int64_t *macs           # int64[B, n_projections], OUT

# Memory of the lanes that a thread runs side by side; n is the number of units of the largest population.
cdef struct Scratch:
    void *received      # real[together, width by population, stretch]: accumulators of each step
    void *tape          # real[n_tape], where none is recorded
    void *gated         # real[n]
    int32_t *senders    # [n]
    char *mark          # [n], zero before and after
    EventList *lists    # [team, stretch * together]: of each member, the events of a step and lane
    Passed *passed      # [together]: what gains let through, of one projection at a time; zero at first
    int64_t zeros       # bytes of all these that are zero at first
    bint good           # False if memory ran out


cdef inline const real *gain_of(const Run *run, int j, int64_t lane, const real *tag) noexcept nogil:
    """The gains of a projection in one lane, or NULL.  ``tag`` only carries the float type."""
    if run.gain[j] == NULL:
        return NULL
    return <const real *> run.gain[j] + lane * run.populations[run.projections[j].source].n


cdef inline int64_t live(const Run *run, int64_t lane, int64_t start, int64_t count) noexcept nogil:
    """How many of ``count`` steps from ``start`` on a lane takes part in."""
    return max(min(count, min(run.lengths[lane], run.stop) - start), <int64_t> 0)


cdef inline real *received_at(
    const Run *run, int p, int64_t k, int64_t step, const Scratch *scratch, const real *tag
) noexcept nogil:
    """Where a population of lane k of those side by side receives in a step of the stretch."""
    return (<real *> scratch.received + run.stretch * (k * run.width + run.slot[p].received)
            + step * run.populations[p].n_in)


cdef inline void begin_stretch(
    const Run *run, int p, int64_t lane, int64_t n_lanes, int64_t start, int64_t count, Scratch *scratch,
    const real *tag
) noexcept nogil:
    """Set what a population receives in each of ``count`` steps to its biases, or its drive.

    Accumulators that are kept only receive what is new.
    """
    cdef const PopulationRow *pop = &run.populations[p]
    cdef const real *drive
    cdef real *received
    cdef int64_t n_in = pop.n_in
    cdef int64_t step
    cdef int64_t k
    for k in range(n_lanes if n_in else 0):     # sources and encoders receive nothing
        for step in range(live(run, lane + k, start, count)):
            received = received_at[real](run, p, k, step, scratch, tag)
            if run.slot[p].drive != NULL:
                drive = <const real *> run.slot[p].drive
                drive += ((start - run.first + step) * run.n_lanes + lane + k) * n_in
                memcpy(received, drive, n_in * sizeof(real))
            elif not holds(pop.kind):
                memcpy(received, run.slot[p].base, n_in * sizeof(real))
            elif run.slot[p].outside:
                memset(received, 0, n_in * sizeof(real))


cdef inline void receive(
    const Run *run, int p, int64_t lane, int64_t n_lanes, int64_t start, int64_t count, int64_t place,
    bint inside, Scratch *scratch, const Team *team, const real *tag
) noexcept nogil:
    """Add what arrives in each of ``count`` steps, from the population's own component or from all others.

    ``place`` is that of step ``start`` in the stretch.
    """
    cdef const PopulationRow *pop = &run.populations[p]
    cdef const ProjectionRow *projection
    cdef const Queue *queue
    cdef const Passed *passed
    cdef const int64_t *bucket
    cdef const real *gain
    cdef EventList *lists = scratch.lists + team.member * run.stretch * run.together
    cdef EventList *events
    cdef int64_t n_lists
    cdef int64_t n_live
    cdef int64_t step
    cdef int64_t k
    cdef int last = -1      # recurrent or not: the port of the projection before; -1 if there is none
    cdef int j
    for j in range(pop.in_first, pop.in_stop):
        projection = &run.projections[j]
        if (run.populations[projection.source].component == pop.component) != inside:
            continue
        if inside and projection.recurrent and pop.kind == EGRU_PAPER:
            continue
        n_lists = 0
        for k in range(n_lanes):
            queue = &run.slot[projection.source].queue[lane + k]
            gain = gain_of[real](run, j, lane + k, tag)
            n_live = live(run, lane + k, start, count)
            if projection.dense and run.slot[p].drive != NULL:
                if team.member == 0:
                    run.macs[(lane + k) * run.n_projections + j] += counted(
                        projection, queue, start - projection.delay, n_live, gain)
                continue
            passed = &scratch.passed[k]
            if gain != NULL:
                share_passed(&scratch.passed[k], team, gain, queue, start - projection.delay, n_live,
                             &scratch.good)
                if not scratch.good:
                    return
            for step in range(n_live):
                events = &lists[n_lists]
                n_lists += 1
                if gain == NULL:
                    bucket = queue_peek(queue, start + step - projection.delay)
                    events.unit = queue.unit
                    events.value = queue.value
                else:
                    bucket = passed.ptr + step
                    events.unit = passed.unit
                    events.value = passed.value
                events.unit += bucket[0]
                events.value = <const real *> events.value + bucket[0]
                events.n = bucket[1] - bucket[0]
                events.macs = &run.macs[(lane + k) * run.n_projections + j]
                if inside and holds(pop.kind):
                    events.target = <real *> run.slot[p].state + (lane + k) * pop.n_state
                else:
                    events.target = received_at[real](run, p, k, place + step, scratch, tag)
        if projection.dense and run.slot[p].drive != NULL:
            continue
        # The order of projections is kept: where rows are not shared out, and from port to port, whose blocks
        # are shared out differently.
        if not shared_out(projection) or (last >= 0 and last != projection.recurrent):
            wait(team)
        last = projection.recurrent
        deliver_many(projection, team, run.populations[projection.source].n, n_lists, lists, tag)
        if not shared_out(projection):
            wait(team)


cdef inline int32_t advance_delta(
    const Run *run, int p, int64_t lane, int64_t at, real *tape, int32_t *unit, real *value
) noexcept nogil:
    """One step of units that send changes, or of their readout, after all has arrived; counts the events."""
    cdef const PopulationRow *pop = &run.populations[p]
    cdef const FixedFormat *fixed = <const FixedFormat *> pop.fixed
    cdef const real *bias = <const real *> run.slot[p].base
    cdef real *state = <real *> run.slot[p].state + lane * pop.n_state
    cdef real *sent = state
    cdef const real *line
    cdef int64_t n = pop.n
    if pop.kind == DELTA_GRU:
        delta_gru_advance(n, fixed, bias, state, state + 4 * n, tape)
        line = state + 4 * n
        sent = state + 5 * n
    elif pop.kind == DELTA_LSTM:
        delta_lstm_advance(n, fixed, bias, state, state + 4 * n, state + 5 * n, tape)
        line = state + 5 * n
        sent = state + 6 * n
    elif pop.kind == DELTA_SOURCE:
        line = <const real *> run.slot[p].line + at * n
    elif pop.kind == DELTA_ENCODER:
        line = <const real *> run.slot[pop.watched].state + pop.watched_at
        line += lane * run.populations[pop.watched].n_state
    else:
        delta_readout_advance(n, bias, state, tape)
        return 0
    return send_changes(n, fixed, line, <const real *> pop.threshold, sent, unit, value)


cdef inline int32_t edit(
    const Slot *slot, int64_t bucket, int64_t lane, int32_t count, int32_t *unit, real *value
) noexcept nogil:
    """Change what was sent, before anyone receives it; counts what is left."""
    cdef const real *factor = <const real *> slot.edit_factor
    cdef const real *shift = <const real *> slot.edit_shift
    cdef int64_t k = slot.edit_ptr[bucket]
    cdef int64_t stop = slot.edit_ptr[bucket + 1]
    cdef int32_t left = 0
    cdef int32_t e
    for e in range(count):
        while k < stop and slot.edit_unit[k] < unit[e]:     # both are in order of unit
            k += 1
        unit[left] = unit[e]
        value[left] = value[e]
        if k < stop and slot.edit_unit[k] == unit[e]:
            value[left] = factor[k] * value[e] + shift[k]
            slot.edited[lane] += 1
        left += value[left] != 0
    return left


cdef inline bint advance(
    const Run *run, int p, int64_t lane, int64_t step, Scratch *scratch, real *received
) noexcept nogil:
    """One step of one population that has received all but, if it keeps them, the changes from outside.

    Send, too; False if memory ran out.
    """
    cdef const PopulationRow *pop = &run.populations[p]
    cdef Slot *slot = &run.slot[p]
    cdef Queue *own = NULL
    cdef int64_t at = step * run.n_lanes + lane
    cdef int64_t first
    cdef real *tape = <real *> scratch.tape if slot.tape == NULL else <real *> slot.tape + at * pop.n_tape
    cdef real *state = <real *> slot.state + lane * pop.n_state
    cdef const real *threshold = <const real *> pop.threshold
    cdef int32_t *unit = NULL
    cdef real *value = NULL
    cdef real one = 1
    cdef int32_t zero = 0
    cdef int32_t count = 0

    if decides(pop.kind):
        own = &slot.queue[lane]
        if not queue_room(own, pop.n, sizeof(real)):
            return False
        first = queue_peek(own, own.now)[0]
        unit = own.unit + first
        value = <real *> own.value + first
    if holds(pop.kind) and slot.outside:
        add_rows(1, &zero, &one, received, pop.n_in, pop.n_in, state)
    if pop.kind == EGRU_EVNN:
        count = egru_evnn_advance(pop.n, received, threshold, state, tape, unit, value)
    elif pop.kind == EGRU_PAPER:
        receive_gated(pop, run.projections, own, step, received, tape, scratch.mark, scratch.senders,
                      <real *> scratch.gated, run.macs + lane * run.n_projections)
        count = egru_paper_advance(pop.n, received, threshold, state, state + pop.n, tape, unit, value)
    elif pop.kind == LIF:
        count = lif_advance(pop.n, <const double *> pop.numbers, received, <const real *> pop.bias, threshold,
                            state, tape, unit, value)
    elif pop.kind == READOUT:
        readout_advance(pop.n, pop.decay, received, state, tape)
    else:
        count = advance_delta(run, p, lane, at, tape, unit, value)
    if slot.edit_ptr != NULL:
        count = edit[real](slot, at, lane, count, unit, value)
    if own != NULL:
        queue_push(own, count)
    return True
