"""One step of one population in one lane: what it receives, how it advances, what it sends."""

from libc.stdint cimport int32_t, int64_t
from libc.string cimport memcpy, memset

from evsim.core.event_queue cimport Queue, queue_peek, queue_push, queue_room
from evsim.core.fanout cimport deliver_many, deliver_share, shared_out
from evsim.core.gains cimport Passed, counted, share_passed
from evsim.core.kernels cimport (
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
    int64_t stretch         # steps
    int64_t width           # reals received in one step by the largest component
    Slot *slot
    const void **gain       # by projection: real[B, units of its source], or NULL
    int64_t *macs           # int64[B, n_projections], OUT

# Memory of one lane; n is the number of units of the largest population.
cdef struct Scratch:
    void *received      # real[stretch, width]: accumulators of each step
    void *tape          # real[n_tape], where none is recorded
    void *gated         # real[n]
    int32_t *senders    # [n]
    char *mark          # [n], zero before and after
    int64_t *lists      # [team, 3, stretch], of each member: begin and end of each step's events, and next
    Passed passed       # what gains let through in each step of a stretch, of one projection at a time
    bint good           # False if memory ran out


cdef inline const real *gain_of(const Run *run, int j, int64_t lane, const real *tag) noexcept nogil:
    """The gains of a projection in one lane, or NULL.  ``tag`` only carries the float type."""
    if run.gain[j] == NULL:
        return NULL
    return <const real *> run.gain[j] + lane * run.populations[run.projections[j].source].n


cdef inline void receive_outside(
    const Run *run, int p, int64_t lane, int64_t start, int64_t count, Scratch *scratch, const Team *team,
    real *received
) noexcept nogil:
    """Set what a population receives in each of ``count`` steps from other components, and the biases.

    For accumulators that are kept it is only what is new.
    """
    cdef const PopulationRow *pop = &run.populations[p]
    cdef const ProjectionRow *projection
    cdef const Queue *queue
    cdef const int64_t *bucket
    cdef const real *drive = <const real *> run.slot[p].drive
    cdef const real *gain
    cdef const real *value
    cdef const int32_t *unit
    cdef int64_t n_in = pop.n_in
    cdef int64_t *begin = scratch.lists + team.member * 3 * run.stretch
    cdef int64_t *end = begin + run.stretch
    cdef int64_t step
    cdef int64_t macs
    cdef int last = -1      # recurrent or not: the port of the projection before; -1 if there is none
    cdef int j
    if team.member == 0:
        if drive != NULL:
            drive += ((start - run.first) * run.n_lanes + lane) * n_in
            for step in range(count):
                memcpy(received + step * n_in, drive + step * run.n_lanes * n_in, n_in * sizeof(real))
        elif not holds(pop.kind):
            for step in range(count):
                memcpy(received + step * n_in, run.slot[p].base, n_in * sizeof(real))
        elif run.slot[p].outside:
            memset(received, 0, count * n_in * sizeof(real))
    wait(team)
    for j in range(pop.in_first, pop.in_stop):
        projection = &run.projections[j]
        if run.populations[projection.source].component == pop.component:
            continue
        queue = &run.slot[projection.source].queue[lane]
        gain = gain_of[real](run, j, lane, received)
        for step in range(count):
            bucket = queue_peek(queue, start + step - projection.delay)
            begin[step] = bucket[0]
            end[step] = bucket[1]
        if projection.dense and run.slot[p].drive != NULL:
            if team.member == 0:
                run.macs[lane * run.n_projections + j] += counted(projection, count, begin, end, queue.unit,
                                                                  gain)
            continue
        unit = queue.unit
        value = <const real *> queue.value
        if gain != NULL:
            share_passed(&scratch.passed, team, gain, queue, count, begin, end, &scratch.good)
            if not scratch.good:
                return
            for step in range(count):
                begin[step] = scratch.passed.ptr[step]
                end[step] = scratch.passed.ptr[step + 1]
            unit = scratch.passed.unit
            value = <const real *> scratch.passed.value
        if not shared_out(projection) or (last >= 0 and last != projection.recurrent):
            wait(team)      # as below
        last = projection.recurrent
        macs = deliver_many(projection, team, run.populations[projection.source].n, count, begin, end,
                            unit, value, received, n_in, end + run.stretch)
        if not shared_out(projection):
            wait(team)
        if team.member == 0:
            run.macs[lane * run.n_projections + j] += macs


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


cdef inline void receive_inside(
    const Run *run, int p, int64_t lane, int64_t step, Scratch *scratch, const Team *team, real *into
) noexcept nogil:
    """Add to the accumulators what arrives in this step from the population's own component."""
    cdef const PopulationRow *pop = &run.populations[p]
    cdef const ProjectionRow *projection
    cdef const Queue *queue
    cdef const int64_t *bucket
    cdef const int32_t *unit
    cdef const real *value
    cdef const real *gain
    cdef int64_t n
    cdef int64_t macs
    cdef int last = -1      # recurrent or not: the port of the projection before; -1 if there is none
    cdef int j
    for j in range(pop.in_first, pop.in_stop):
        projection = &run.projections[j]
        if (run.populations[projection.source].component != pop.component
                or (projection.recurrent and pop.kind == EGRU_PAPER)):
            continue
        queue = &run.slot[projection.source].queue[lane]
        bucket = queue_peek(queue, step - projection.delay)
        n = bucket[1] - bucket[0]
        unit = queue.unit + bucket[0]
        value = <const real *> queue.value + bucket[0]
        gain = gain_of[real](run, j, lane, into)
        if gain != NULL:
            share_passed(&scratch.passed, team, gain, queue, 1, bucket, bucket + 1, &scratch.good)
            if not scratch.good:
                return
            n = scratch.passed.ptr[1]
            unit = scratch.passed.unit
            value = <const real *> scratch.passed.value
        # The order of projections is kept: where rows are not shared out, and from port to port, whose blocks
        # are shared out differently.
        if not shared_out(projection) or (last >= 0 and last != projection.recurrent):
            wait(team)
        last = projection.recurrent
        macs = deliver_share(projection, team, n, unit, value, into)
        if not shared_out(projection):
            wait(team)
        if team.member == 0:
            run.macs[lane * run.n_projections + j] += macs


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
