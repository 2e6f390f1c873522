"""The loop over time, forwards.

Populations that reach each other form a component.  Components run one after the other, each for a stretch of
time: what comes from outside is known by then, so it is received for all steps of the stretch at once, before
the loop over them.

Lanes are independent and run in parallel, some of them side by side in a thread, so that a row that comes
from memory serves all of these; with fewer lanes than threads a team of threads shares a lane.  No result
depends on the number of threads.
"""

from numpy import dtype

from cython.parallel cimport parallel, prange, threadid
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from evsim.core.buffers cimport address, sums
from evsim.core.event_queue cimport Queue, queue_again, queue_free, queue_open, queue_peek, queue_push
from evsim.core.forward_step cimport (
    Run,
    Scratch,
    Slot,
    advance,
    begin_stretch,
    live,
    receive,
    received_at,
)
from evsim.core.gains cimport Passed, passed_free
from evsim.core.kernels cimport EventList
from evsim.core.layout cimport PlanTable, PopulationRow, real
from evsim.core.memory cimport empty, place, zeros
from evsim.core.team cimport Team, evsim_team_size, wait

SINGLE, DOUBLE, INT32, INT64, BYTE = map(dtype, ("f4", "f8", "i4", "i8", "u1"))

cdef enum:
    STRETCH_BYTES = 1048576     # what is received in a stretch of time just fits in the second-level cache,
    FEWEST_LISTS = 256          # but rows are to serve so many steps and lanes,
    MOST_BYTES = 8388608        # within limits; a step at least
    MOST_LANES = 32             # that a thread runs side by side
    MOST_ROOM = 16384           # for events that are still to be sent, at first


cdef inline int component_end(const Run *run, int first) noexcept nogil:
    cdef int p = first + 1
    while p < run.n_populations and run.populations[p].component == run.populations[first].component:
        p += 1
    return p


cdef void lay_out(Run *run) noexcept nogil:
    """Whether and where each population receives from outside."""
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


cdef void share_time(Run *run, int64_t together, Py_ssize_t size) noexcept nogil:
    """How many lanes are run side by side, and how long a stretch of time is."""
    cdef int64_t step_bytes = run.width * size * together
    cdef int64_t wanted = max(<int64_t> STRETCH_BYTES // step_bytes, FEWEST_LISTS // together)
    run.together = together
    run.stretch = max(min(min(wanted, <int64_t> MOST_BYTES // step_bytes), run.stop - run.first), 1)


cdef int64_t lay_out_scratch(
    const Run *run, int team_size, Scratch *scratch, char *start, Py_ssize_t size
) noexcept nogil:
    """Place the arrays of some lanes side by side; returns how many bytes that is."""
    cdef int64_t lists = run.stretch * run.together
    cdef int64_t n = 1
    cdef int64_t n_tape = 1
    cdef int64_t at = 0
    cdef int64_t k
    cdef int p
    for p in range(run.n_populations):
        n = max(n, run.populations[p].n)
        n_tape = max(n_tape, run.populations[p].n_tape)
    at = place(<void **> &scratch.mark, start, at, n)           # these two are to be zero,
    at = place(<void **> &scratch.passed, start, at, run.together * sizeof(Passed))
    scratch.zeros = at
    at = place(&scratch.received, start, at, lists * run.width * size)
    at = place(&scratch.tape, start, at, n_tape * size)
    at = place(&scratch.gated, start, at, n * size)
    at = place(<void **> &scratch.senders, start, at, n * sizeof(int32_t))
    at = place(<void **> &scratch.lists, start, at, team_size * lists * sizeof(EventList))
    for k in range(run.together):
        at = place(<void **> &scratch.passed[k].ptr if start != NULL else NULL, start, at,
                   (run.stretch + 1) * sizeof(int64_t))
    return at


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
    const Run *run, int first, int stop, int64_t lane, int64_t n_lanes, int64_t start, int64_t count,
    Scratch *scratch, const Team *team, real *tag
) noexcept nogil:
    """Populations first:stop of some lanes for ``count`` steps from ``start`` on."""
    cdef int64_t step
    cdef int64_t k
    cdef int p
    for p in range(first, stop):
        if team.member == 0:
            begin_stretch[real](run, p, lane, n_lanes, start, count, scratch, tag)
        wait(team)
        receive[real](run, p, lane, n_lanes, start, count, 0, False, scratch, team, tag)
    wait(team)
    for step in range(count):
        if team.member == 0:
            for k in range(n_lanes):
                if live(run, lane + k, start + step, 1):
                    save_states(run, first, stop, lane + k, start + step, tag)
        wait(team)
        for p in range(first, stop):
            receive[real](run, p, lane, n_lanes, start + step, 1, step, True, scratch, team, tag)
            wait(team)
            if team.member == 0:
                for k in range(n_lanes):
                    if scratch.good and live(run, lane + k, start + step, 1):
                        scratch.good = advance(run, p, lane + k, start + step, scratch,
                                               received_at[real](run, p, k, step, scratch, tag))
            wait(team)
        if not scratch.good:
            return


cdef void run_lanes(
    const Run *run, int64_t lane, int64_t n_lanes, Scratch *scratch, const Team *team, real *tag
) noexcept nogil:
    """The steps of some lanes that are to be run now.  ``tag`` only carries the float type."""
    cdef int64_t start = run.first
    cdef int64_t end = 0
    cdef int64_t count
    cdef int64_t k
    cdef int first
    cdef int stop
    for k in range(n_lanes):
        end = max(end, min(run.stop, run.lengths[lane + k]))
    while start < end:
        count = min(run.stretch, end - start)
        first = 0
        while first < run.n_populations and scratch.good:
            stop = component_end(run, first)
            if not run.slot[first].given:       # if it is, it is a component of its own
                run_component(run, first, stop, lane, n_lanes, start, count, scratch, team, tag)
            first = stop
        start += count


cdef void run_member(
    const Run *run, int64_t lane, int64_t n_lanes, Scratch *scratch, int member, int size, real *tag
) noexcept nogil:
    cdef Team team
    team.member = member
    team.size = size
    run_lanes(run, lane, n_lanes, scratch, &team, tag)


cdef bint run_team(
    const Run *run, int64_t lane, int64_t n_lanes, int n_threads, char *room, real *tag
) noexcept nogil:
    """Some lanes on one thread, or one lane on several; scratch is in ``room``.  False if memory ran out."""
    cdef Scratch scratch
    cdef int64_t k
    lay_out_scratch(run, n_threads, &scratch, NULL, sizeof(real))
    memset(room, 0, scratch.zeros)
    lay_out_scratch(run, n_threads, &scratch, room, sizeof(real))
    scratch.good = True
    if n_threads == 1:
        run_member(run, lane, n_lanes, &scratch, 0, 1, tag)
    else:
        with parallel(num_threads=n_threads):
            run_member(run, lane, n_lanes, &scratch, threadid(), evsim_team_size(), tag)
    for k in range(run.together):
        passed_free(&scratch.passed[k])
    return scratch.good


cdef bint run_part(const Run *run, int64_t part, char *room, bint double_precision) noexcept nogil:
    """The lanes that are run side by side as the ``part``-th of all; False if memory ran out."""
    cdef int64_t lane = part * run.together
    cdef int64_t count = min(run.together, run.n_lanes - lane)
    cdef float narrow = 0
    cdef double wide = 0
    if double_precision:
        return run_team(run, lane, count, 1, room, &wide)
    return run_team(run, lane, count, 1, room, &narrow)


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
        lay_out(&self.run)

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

    cdef _dtype(self):
        return DOUBLE if self.plan.double_precision else SINGLE

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
        cdef int64_t n = self.plan.populations[population].n
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
                queue[0] = Queue(history=history, row=lanes, now=0, capacity=0, ptr=pointer + lane,
                                 unit=units, value=values)
                continue
            # What is not used costs nothing, and to make a queue longer does.
            room = pointer[cells] + 64 + min(self.n_steps * n // 8, <int64_t> MOST_ROOM)
            if not queue_open(queue, history, self.n_steps, room, self.itemsize):
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
        cdef int64_t part
        cdef int64_t n_parts
        cdef int64_t groups
        cdef int64_t size
        cdef char *room
        cdef Scratch scratch
        cdef int failed = 0
        cdef bint double_precision = self.plan.double_precision
        cdef Run *run = &self.run
        cdef int64_t n_lanes = run.n_lanes
        cdef float narrow = 0
        cdef double wide = 0
        run.first = first
        run.stop = self.n_steps if stop is None else min(stop, self.n_steps)
        if not teams:
            n_threads = <int> max(min(<int64_t> n_threads, n_lanes), <int64_t> 1)
        # Lanes of unequal length go in smaller groups, so that all threads end at about the same time.
        groups = n_lanes if teams else n_threads
        for lane in range(1, 0 if teams or n_threads == 1 else n_lanes):
            if run.lengths[lane] != run.lengths[0]:
                groups = 4 * n_threads
        share_time(run, min(max(n_lanes // groups, <int64_t> 1), <int64_t> MOST_LANES), self.itemsize)
        n_parts = (n_lanes + run.together - 1) // run.together
        size = lay_out_scratch(run, n_threads if teams else 1, &scratch, NULL, self.itemsize)
        scratches = empty(((1 if teams else n_threads) * size,), BYTE)
        room = <char *> address(scratches, scratches.size, c"B")
        if teams:
            with nogil:
                for lane in range(n_lanes):
                    failed += not (run_team(run, lane, 1, n_threads, room, &wide) if double_precision
                                   else run_team(run, lane, 1, n_threads, room, &narrow))
        elif n_threads == 1:        # without OpenMP, whose barriers call the system even for one thread
            with nogil:
                for part in range(n_parts):
                    failed += not run_part(run, part, room, double_precision)
        else:
            for part in prange(n_parts, nogil=True, num_threads=n_threads, schedule="dynamic", chunksize=1):
                failed += not run_part(run, part, room + threadid() * size, double_precision)
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
        values = zeros((lanes, n), self._dtype())
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
        pointers = empty((n_steps * lanes + 1,), INT64)
        cdef int64_t *ptr = <int64_t *> address(pointers, n_steps * lanes + 1, c"l")
        ptr[0] = 0
        with nogil:
            for step in range(n_steps):
                for lane in range(lanes):
                    i = lengths[lane] - n_steps + step if from_end else step
                    if i < lengths[lane]:
                        bucket = queue_peek(&queue[lane], i)
                        total += bucket[1] - bucket[0]
                    ptr[step * lanes + lane + 1] = total
        units, values = empty((total,), INT32), empty((total,), self._dtype())
        cdef int32_t *unit = <int32_t *> address(units, total, c"i")
        cdef char *value = <char *> address(values, total, self.kind)
        cdef Py_ssize_t size = self.itemsize
        with nogil:
            for step in range(n_steps if lanes > 1 else min(n_steps, <int64_t> 1)):
                for lane in range(lanes):
                    first = ptr[step * lanes + lane]
                    # One lane has the events of all steps side by side.
                    count = (ptr[step * lanes + lane + 1] if lanes > 1 else total) - first
                    if count:
                        i = lengths[lane] - n_steps + step if from_end else step
                        bucket = queue_peek(&queue[lane], i)
                        memcpy(&unit[first], queue[lane].unit + bucket[0], count * sizeof(int32_t))
                        memcpy(&value[first * size], <char *> queue[lane].value + bucket[0] * size,
                               count * size)
        return pointers, units, values
