"""The loop over time, forwards.

Populations that reach each other form a component.  Components run one after the other, each for a stretch of
time: what comes from outside is known by then, so it is received for all steps of the stretch at once, before
the loop over them.

Lanes are independent and run in parallel; with fewer lanes than threads a team of threads shares a lane.  No
result depends on the number of threads.
"""

import numpy as np

from cython.parallel cimport parallel, prange, threadid
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from evsim.core.buffers cimport address, sums
from evsim.core.event_queue cimport Queue, queue_free, queue_again, queue_open, queue_peek, queue_push, queue_room
from evsim.core.fanout cimport deliver_many, deliver_share, shared_out
from evsim.core.gains cimport Passed, counted, passed_free, passed_open, share_passed
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
    PlanTable,
    PopulationRow,
    ProjectionRow,
    decides,
    holds,
    real,
)
from evsim.core.paper_form cimport receive_gated
from evsim.core.team cimport Team, evsim_team_size, wait

cdef enum:
    STRETCH_BYTES = 4194304     # what a component receives in a stretch of time, at most, but a step at least

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


cdef inline int component_end(const Run *run, int first) noexcept nogil:
    cdef int p = first + 1
    while p < run.n_populations and run.populations[p].component == run.populations[first].component:
        p += 1
    return p


cdef void lay_out(Run *run, int64_t n_steps, Py_ssize_t size) noexcept nogil:
    """Whether and where each population receives from outside, and how long a stretch of time is."""
    cdef const PopulationRow *pop
    cdef int64_t at = 0
    cdef int p
    cdef int j
    run.width = 1
    for p in range(run.n_populations):
        pop = &run.populations[p]
        for j in range(pop.in_first, pop.in_stop):
            if run.populations[run.projections[j].source].component != pop.component:
                run.slot[p].outside = True
        if p and pop.component != run.populations[p - 1].component:
            at = 0
        run.slot[p].received = at
        at += pop.n_in
        run.width = max(run.width, at)
    run.stretch = max(min(n_steps, <int64_t> STRETCH_BYTES // (run.width * size)), 1)


cdef bint scratch_open(const Run *run, int team_size, Scratch *scratch, Py_ssize_t size) noexcept nogil:
    """False if memory ran out."""
    cdef int64_t n = 1
    cdef int64_t n_tape = 1
    cdef int p
    for p in range(run.n_populations):
        n = max(n, run.populations[p].n)
        n_tape = max(n_tape, run.populations[p].n_tape)
    scratch.received = malloc(run.stretch * run.width * size)
    scratch.tape = malloc(n_tape * size)
    scratch.gated = malloc(n * size)
    scratch.senders = <int32_t *> malloc(n * sizeof(int32_t))
    scratch.mark = <char *> calloc(n, 1)
    scratch.lists = <int64_t *> malloc(team_size * 3 * run.stretch * sizeof(int64_t))
    scratch.good = (passed_open(&scratch.passed, run.stretch)
                    and scratch.received != NULL and scratch.tape != NULL and scratch.gated != NULL
                    and scratch.senders != NULL and scratch.mark != NULL and scratch.lists != NULL)
    return scratch.good


cdef void scratch_free(Scratch *scratch) noexcept nogil:
    free(scratch.received)
    free(scratch.tape)
    free(scratch.gated)
    free(scratch.senders)
    free(scratch.mark)
    free(scratch.lists)
    passed_free(&scratch.passed)


cdef inline const real *gain_of(const Run *run, int j, int64_t lane, const real *tag) noexcept nogil:
    """The gains of a projection in one lane, or NULL.  ``tag`` only carries the float type."""
    if run.gain[j] == NULL:
        return NULL
    return <const real *> run.gain[j] + lane * run.populations[run.projections[j].source].n


cdef void receive_outside(
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


cdef void receive_inside(
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


cdef int32_t edit(
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


cdef bint advance(
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


cdef void save_states(
    const Run *run, int first, int stop, int64_t lane, int64_t step, real *tag
) noexcept nogil:
    """The checkpoint before a step, if there is to be one."""
    cdef int64_t n
    cdef int p
    for p in range(first, stop):
        n = run.populations[p].n_state
        if run.slot[p].checkpoints != NULL and step % run.every == 0:
            memcpy(<real *> run.slot[p].checkpoints + (step // run.every * run.n_lanes + lane) * n,
                   <real *> run.slot[p].state + lane * n, n * sizeof(real))


cdef void run_component(
    const Run *run, int first, int stop, int64_t lane, int64_t start, int64_t count, Scratch *scratch,
    const Team *team, real *tag
) noexcept nogil:
    """Populations first:stop for ``count`` steps from ``start`` on."""
    cdef const PopulationRow *pop
    cdef real *received
    cdef int64_t step
    cdef int p
    for p in range(first, stop):
        received = <real *> scratch.received + run.stretch * run.slot[p].received
        receive_outside(run, p, lane, start, count, scratch, team, received)
    wait(team)
    for step in range(count):
        if team.member == 0:
            save_states(run, first, stop, lane, start + step, tag)
        wait(team)
        for p in range(first, stop):
            pop = &run.populations[p]
            received = <real *> scratch.received + run.stretch * run.slot[p].received + step * pop.n_in
            receive_inside(run, p, lane, start + step, scratch, team,
                           <real *> run.slot[p].state + lane * pop.n_state if holds(pop.kind) else received)
            wait(team)
            if team.member == 0 and scratch.good:
                scratch.good = advance(run, p, lane, start + step, scratch, received)
            wait(team)
        if not scratch.good:
            return


cdef void run_lane(
    const Run *run, int64_t lane, Scratch *scratch, const Team *team, real *tag
) noexcept nogil:
    """The steps of one lane that are to be run now.  ``tag`` only carries the float type."""
    cdef int64_t start = run.first
    cdef int64_t end = min(run.stop, run.lengths[lane])
    cdef int64_t count
    cdef int first
    cdef int stop
    while start < end:
        count = min(run.stretch, end - start)
        first = 0
        while first < run.n_populations and scratch.good:
            stop = component_end(run, first)
            if not run.slot[first].given:       # if it is, it is a component of its own
                run_component(run, first, stop, lane, start, count, scratch, team, tag)
            first = stop
        start += count


cdef void run_member(
    const Run *run, int64_t lane, Scratch *scratch, int member, int size, real *tag
) noexcept nogil:
    cdef Team team
    team.member = member
    team.size = size
    run_lane(run, lane, scratch, &team, tag)


cdef bint run_team(const Run *run, int64_t lane, int n_threads, real *tag) noexcept nogil:
    """One lane on one thread or several; False if memory ran out."""
    cdef Scratch scratch
    if scratch_open(run, n_threads, &scratch, sizeof(real)):
        if n_threads == 1:
            run_member(run, lane, &scratch, 0, 1, tag)
        else:
            with parallel(num_threads=n_threads):
                run_member(run, lane, &scratch, threadid(), evsim_team_size(), tag)
    scratch_free(&scratch)
    return scratch.good


cdef class Forward:
    """One run of a plan: its slots, and the events that are sent until they are collected.

    Parameters
    ----------
    plan : PlanTable
    lengths : int64 array, shape (B,)
        Steps of each lane, at most ``n_steps``.
    n_steps : int
    """

    cdef Run run
    cdef PlanTable plan
    cdef object keep
    cdef dict stimulus      # arrays of given events, lines and drives, by population
    cdef int64_t n_steps
    cdef Py_ssize_t itemsize
    cdef char kind

    def __cinit__(self, PlanTable plan, lengths, int64_t n_steps):
        self.plan = plan
        self.n_steps = n_steps
        self.itemsize = sizeof(double) if plan.double_precision else sizeof(float)
        self.kind = c"d" if plan.double_precision else c"f"
        self.keep = [lengths]
        self.stimulus = {}
        self.run.populations = plan.populations
        self.run.projections = plan.projections
        self.run.n_populations = plan.n_populations
        self.run.n_projections = plan.n_projections
        self.run.n_lanes = lengths.size
        self.run.lengths = <const int64_t *> address(lengths, lengths.size, c"l")
        self.run.slot = <Slot *> calloc(plan.n_populations, sizeof(Slot))
        self.run.macs = <int64_t *> calloc(max(self.run.n_lanes * plan.n_projections, 1), sizeof(int64_t))
        self.run.gain = <const void **> calloc(max(plan.n_projections, 1), sizeof(void *))
        if self.run.slot == NULL or self.run.macs == NULL or self.run.gain == NULL:
            raise MemoryError("forward: no memory for the run")
        lay_out(&self.run, n_steps, self.itemsize)

    def __dealloc__(self):
        cdef int p
        cdef int64_t lane
        if self.run.slot != NULL:
            for p in range(self.run.n_populations):
                if self.run.slot[p].queue != NULL:
                    for lane in range(self.run.n_lanes):
                        queue_free(&self.run.slot[p].queue[lane])
                    free(self.run.slot[p].queue)
        free(self.run.slot)
        free(self.run.macs)
        free(self.run.gain)

    def give_events(self, int population, int64_t history, ptr, unit, value, bint whole):
        """Set the events of the ``history`` steps before the window and, if ``whole``, of all its steps.

        As bucket pointer (steps * B + 1,), units and values.  To be called for every population that sends.
        """
        cdef Slot *slot = &self.run.slot[population]
        cdef int64_t lanes = self.run.n_lanes
        cdef int64_t cells = (history + (self.n_steps if whole else 0)) * lanes
        cdef int64_t *pointer = <int64_t *> address(ptr, cells + 1, c"l")
        cdef int32_t *units = <int32_t *> address(unit, pointer[cells], c"i")
        cdef char *values = <char *> address(value, pointer[cells], self.kind)
        cdef Queue *queue
        cdef int64_t lane
        cdef int64_t step
        cdef int64_t first
        cdef int64_t room
        cdef int64_t count
        if slot.queue != NULL:
            raise ValueError("forward: events are given twice")
        slot.queue = <Queue *> calloc(lanes, sizeof(Queue))
        if slot.queue == NULL:
            raise MemoryError("forward: no memory for the event queues")
        slot.given = whole
        if whole:
            self.stimulus[population] = ptr, unit, value
        for lane in range(lanes):
            queue = &slot.queue[lane]
            if whole:
                queue[0] = Queue(history=history, row=lanes, ptr=pointer + lane, unit=units, value=values)
                continue
            if not queue_open(queue, history, self.n_steps, pointer[cells], self.itemsize):
                raise MemoryError("forward: no memory for the event queues")
            for step in range(history):
                first = pointer[step * lanes + lane]
                count = pointer[step * lanes + lane + 1] - first
                if count:
                    room = queue_peek(queue, queue.now)[0]
                    memcpy(queue.unit + room, units + first, count * sizeof(int32_t))
                    memcpy(<char *> queue.value + room * self.itemsize, values + first * self.itemsize,
                           count * self.itemsize)
                queue_push(queue, <int32_t> count)

    def give_line(self, int population, line):
        """Set the stimulus (T, B, n) of a source that sends changes; its state is given by `give_arrays`."""
        cdef int64_t cells = self.n_steps * self.run.n_lanes
        self.stimulus[population] = line
        self.run.slot[population].line = address(line, cells * self.plan.populations[population].n, self.kind)

    def give_arrays(self, int population, base, state, tape=None):
        """Set biases (n_in,), state (B, n_state) and tape (T, B, n_tape) of any population but a source."""
        cdef Slot *slot = &self.run.slot[population]
        cdef const PopulationRow *pop = &self.plan.populations[population]
        self.keep += [base, state, tape]
        slot.base = address(base, pop.n_in, self.kind)
        slot.state = address(state, self.run.n_lanes * pop.n_state, self.kind)
        slot.tape = address(tape, self.n_steps * self.run.n_lanes * pop.n_tape, self.kind)

    def give_drive(self, int population, drive):
        """Set what a population starts from in each of the next steps to run, (steps, B, n_in).

        That is its biases and all that `ProjectionRow.dense` projections bring.
        """
        self.stimulus[population] = drive
        self.run.slot[population].drive = address(drive, drive.size, self.kind)

    def give_gains(self, int projection, gain):
        """Set what payloads that go through a projection are multiplied by, (B, units of its source)."""
        self.keep.append(gain)
        n = self.plan.populations[self.plan.projections[projection].source].n
        self.run.gain[projection] = address(gain, self.run.n_lanes * n, self.kind)

    def give_edits(self, int population, ptr, unit, factor, shift, edited):
        """Set changes of what a population decides to send, as `Edits.table` gives them.

        ``edited`` (B,), zero, counts those that took place.
        """
        cdef Slot *slot = &self.run.slot[population]
        cdef int64_t cells = self.n_steps * self.run.n_lanes
        self.keep += [ptr, unit, factor, shift, edited]
        slot.edit_ptr = <const int64_t *> address(ptr, cells + 1, c"l")
        slot.edit_unit = <const int32_t *> address(unit, slot.edit_ptr[cells], c"i")
        slot.edit_factor = address(factor, slot.edit_ptr[cells], self.kind)
        slot.edit_shift = address(shift, slot.edit_ptr[cells], self.kind)
        slot.edited = <int64_t *> address(edited, self.run.n_lanes, c"l")

    def give_checkpoints(self, int population, int64_t every, checkpoints):
        """Set room for the states (ceil(T / every), B, n_state) before every ``every`` steps."""
        cdef int64_t count = (self.n_steps + every - 1) // every
        self.keep.append(checkpoints)
        self.run.every = every
        self.run.slot[population].checkpoints = address(
            checkpoints, count * self.run.n_lanes * self.plan.populations[population].n_state, self.kind)

    def again(self):
        """Begin the next window of as many steps, after one of which all lanes were run to the end.

        States go on, events in flight stay so, and arrays that were given are used, and written, again.  New
        events of the populations to which they were given, and new lines and drives, are to be given.
        """
        cdef Slot *slot
        cdef int64_t lane
        cdef int p
        memset(self.run.macs, 0, self.run.n_lanes * self.run.n_projections * sizeof(int64_t))
        for p in range(self.run.n_populations):
            slot = &self.run.slot[p]
            if slot.queue == NULL:
                continue
            if slot.given:
                free(slot.queue)
                slot.queue = NULL
                continue
            for lane in range(self.run.n_lanes):
                queue_again(&slot.queue[lane], self.itemsize)

    def go(self, int n_threads, bint teams, first=0, stop=None):
        """Run all lanes, one after the other by a ``teams``, or side by side.

        Steps ``first:stop`` only, if they are given; they must follow those that have been run.  Returns the
        MACs of each projection up to here.
        """
        cdef int64_t lane
        cdef int failed = 0
        cdef bint double_precision = self.plan.double_precision
        cdef Run *run = &self.run
        cdef int64_t n_lanes = run.n_lanes
        cdef float narrow = 0
        cdef double wide = 0
        run.first = first
        run.stop = self.n_steps if stop is None else min(stop, self.n_steps)
        if teams:
            with nogil:
                for lane in range(n_lanes):
                    failed += not (run_team(run, lane, n_threads, &wide) if double_precision
                                   else run_team(run, lane, n_threads, &narrow))
        else:
            n_threads = <int> min(<int64_t> n_threads, n_lanes)
            if double_precision:
                for lane in prange(n_lanes, nogil=True, num_threads=n_threads, schedule="dynamic",
                                   chunksize=1):
                    failed += not run_team(run, lane, 1, &wide)
            else:
                for lane in prange(n_lanes, nogil=True, num_threads=n_threads, schedule="dynamic",
                                   chunksize=1):
                    failed += not run_team(run, lane, 1, &narrow)
        if failed:
            raise MemoryError("forward: no memory for events")
        return sums(run.macs, n_lanes, run.n_projections)

    def sent(self, int population, int64_t step):
        """What a population sent in a step of the window: (B, n), 0 where there is no event."""
        cdef Queue *queue = self.run.slot[population].queue
        cdef int64_t n = self.plan.populations[population].n
        cdef int64_t lanes = self.run.n_lanes
        cdef const int64_t *bucket
        cdef int64_t lane
        cdef int64_t e
        values = np.zeros((lanes, n), np.float64 if self.plan.double_precision else np.float32)
        cdef char *value = <char *> address(values, lanes * n, self.kind)
        for lane in range(lanes):
            if step >= self.run.lengths[lane]:
                continue
            bucket = queue_peek(&queue[lane], step)
            for e in range(bucket[0], bucket[1]):
                if self.plan.double_precision:
                    (<double *> value)[lane * n + queue[lane].unit[e]] = (<double *> queue[lane].value)[e]
                else:
                    (<float *> value)[lane * n + queue[lane].unit[e]] = (<float *> queue[lane].value)[e]
        return values

    def collect(self, int population):
        """What a population sent in the window, by (step, lane, unit): ptr (T * B + 1,), unit, value."""
        return self._buckets(population, self.n_steps, False)

    def in_flight(self, int population):
        """Those of the last steps of each lane, as many as were given before the window, in the same form."""
        return self._buckets(population, self.run.slot[population].queue[0].history, True)

    cdef _buckets(self, int population, int64_t n_steps, bint from_end):
        """The first steps of each lane, or the last ones."""
        cdef Queue *queue = self.run.slot[population].queue
        cdef int64_t lanes = self.run.n_lanes
        cdef const int64_t *lengths = self.run.lengths
        cdef const int64_t *bucket
        cdef int64_t step
        cdef int64_t lane
        cdef int64_t count
        cdef int64_t total = 0
        cdef int64_t first
        cdef int64_t i
        pointers = np.zeros(n_steps * lanes + 1, np.int64)
        cdef int64_t *ptr = <int64_t *> address(pointers, n_steps * lanes + 1, c"l")
        with nogil:
            for step in range(n_steps):
                for lane in range(lanes):
                    i = lengths[lane] - n_steps + step if from_end else step
                    if i < lengths[lane]:
                        bucket = queue_peek(&queue[lane], i)
                        total += bucket[1] - bucket[0]
                    ptr[step * lanes + lane + 1] = total
        units = np.empty(total, np.int32)
        values = np.empty(total, np.float64 if self.plan.double_precision else np.float32)
        cdef int32_t *unit = <int32_t *> address(units, total, c"i")
        cdef char *value = <char *> address(values, total, self.kind)
        cdef Py_ssize_t size = self.itemsize
        with nogil:
            for step in range(n_steps):
                for lane in range(lanes):
                    first = ptr[step * lanes + lane]
                    count = ptr[step * lanes + lane + 1] - first
                    if count:
                        i = lengths[lane] - n_steps + step if from_end else step
                        bucket = queue_peek(&queue[lane], i)
                        memcpy(&unit[first], queue[lane].unit + bucket[0], count * sizeof(int32_t))
                        memcpy(&value[first * size], <char *> queue[lane].value + bucket[0] * size,
                               count * size)
        return pointers, units, values
