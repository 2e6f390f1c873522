"""The loop over time, backwards: adjoint event replay.

Going back in time, a unit asks its targets for the gradient of its event only where that can matter: where it
fired, or (EGRU, LIF) where the pseudo-derivative is not zero.  Then, once all gradients at the accumulators
(D) of a piece of time are known, each weight row is written (first piece) or added to by its own unit, over
that unit's events.  Weights of units that sent nothing are not read, and their gradient is zero.

Lanes run in parallel backwards in time, some of them side by side in a thread, so that a row that comes from
memory serves all of these; or a team of threads shares a lane.  Units run in parallel for the weights; sums
over lanes are taken in order of lane.  So no result depends on the number of threads.
"""

from numpy import dtype, ndarray

from cython.parallel cimport parallel, prange, threadid
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from evsim.core.buffers cimport address
from evsim.core.kernels cimport DOT_LANES, DOT_ROOM, DOT_SUMS, readout_vjp
from evsim.core.layout cimport (
    EGRU_EVNN,
    EGRU_PAPER,
    LIF,
    READOUT,
    SOURCE,
    PlanTable,
    PopulationRow,
    ProjectionRow,
    decides,
    holds,
    real,
    sends_changes,
)
from evsim.core.memory cimport empty, line_calloc, place, zeros
from evsim.core.paper_form cimport Window
from evsim.core.replay_step cimport Replay, Scratch, Slot, replay_delta, replay_source, replay_units
from evsim.core.team cimport Team, evsim_team_size, wait
from evsim.core.weight_rows cimport Rows, place_rows, sort_by_unit, write_rows

cdef enum:
    FEWEST = 16     # units whose weight rows one thread writes at a time,
    MOST = 1024     # at least and at most

SINGLE = dtype("f4")
DOUBLE = dtype("f8")
BYTE = dtype("u1")

cdef int64_t lay_out(Replay *replay, char *start, Py_ssize_t itemsize) noexcept nogil:
    """Place what is carried from piece to piece, of all populations; returns how many bytes that is."""
    cdef const PopulationRow *pop
    cdef Slot *slot
    cdef int64_t lanes = replay.n_lanes
    cdef int64_t at = 0
    cdef int p
    for p in range(replay.n_populations):
        pop = &replay.populations[p]
        slot = &replay.slot[p]
        at = place(&slot.carry, start, at, lanes * pop.n_state * itemsize)
        if not holds(pop.kind):
            at = place(&slot.dbias, start, at, lanes * pop.n_in * itemsize)
        if pop.kind == EGRU_EVNN or pop.kind == EGRU_PAPER or pop.kind == LIF:
            at = place(&slot.dthreshold, start, at, lanes * pop.n * itemsize)
        if pop.kind == LIF:
            at = place(&slot.dnumbers, start, at, lanes * 5 * pop.n * itemsize)
    return at


cdef int64_t most_units(const Replay *replay) noexcept nogil:
    cdef int64_t most = 1
    cdef int p
    for p in range(replay.n_populations):
        most = max(most, replay.populations[p].n)
    return most


cdef int64_t lay_out_scratch(
    const Replay *replay, int64_t n_lanes, int64_t number, Scratch *scratch, char *start, Py_ssize_t size
) noexcept nogil:
    """Place the arrays of so many members, or lanes; returns how many bytes that is."""
    cdef int64_t most = most_units(replay)
    cdef int64_t at = 0
    cdef int64_t k
    for k in range(number):
        at = place(&scratch[k].compact, start, at, most * size if k < n_lanes else 0)
        if k >= n_lanes:
            scratch[k].compact = scratch[k % n_lanes].compact
        at = place(&scratch[k].slope, start, at, most * size)
        at = place(&scratch[k].dy, start, at, most * size)
        at = place(&scratch[k].zero, start, at, most * size)
        at = place(&scratch[k].dr, start, at, most * size)
        at = place(&scratch[k].heard.total, start, at, most * size)
        at = place(<void **> &scratch[k].heard.unit, start, at, most * sizeof(int32_t))
        at = place(<void **> &scratch[k].heard.place, start, at, most * sizeof(int32_t))
        at = place(<void **> &scratch[k].unit, start, at, most * sizeof(int32_t))
        at = place(<void **> &scratch[k].mark, start, at, most)
    if n_lanes > 1:
        at = place(<void **> &scratch.asking.count, start, at, most)
        at = place(<void **> &scratch.asking.lane, start, at, most * n_lanes)
        at = place(&scratch.room, start, at, DOT_ROOM * DOT_SUMS * size)
    return at


cdef inline void replay_readout(
    const Replay *replay, int p, int64_t step, int64_t lane, const Scratch *scratch, real *tag
) noexcept nogil:
    """One step of a readout, backwards."""
    cdef const PopulationRow *pop = &replay.populations[p]
    cdef Slot *slot = &replay.slot[p]
    cdef int64_t at = step * replay.n_lanes + lane
    cdef const real *loss = <const real *> scratch.zero
    if slot.loss_state != NULL:
        loss = <const real *> slot.loss_state + at * pop.n
    readout_vjp(pop.n, pop.decay, loss, <real *> slot.carry + lane * pop.n,
                <real *> slot.window.D + at * pop.n, <real *> slot.dbias + lane * pop.n)


cdef void replay_lanes(
    const Replay *replay, int64_t lane, int64_t n_lanes, const Team *team, Scratch *scratch, real *tag
) noexcept nogil:
    """All steps of some lanes, last to first.  ``tag`` only carries the float type."""
    cdef int64_t most = 0
    cdef int64_t step
    cdef int64_t k
    cdef int p
    cdef int kind
    for k in range(n_lanes):
        most = max(most, replay.lengths[lane + k])
    for step in range(min(most, replay.n_open) - 1, -1, -1):
        for p in range(replay.n_populations - 1, -1, -1):
            kind = replay.populations[p].kind
            if kind == EGRU_EVNN or kind == EGRU_PAPER or kind == LIF:
                replay_units(replay, p, step, lane, n_lanes, team, scratch, tag)
            elif kind != SOURCE or replay.slot[p].devent != NULL:
                for k in range(n_lanes):
                    if step >= replay.lengths[lane + k]:
                        continue
                    if kind == SOURCE:
                        replay_source(replay, p, step, lane + k, team, &scratch[k], tag)
                    elif kind != READOUT:
                        replay_delta(replay, p, step, lane + k, team, &scratch[k], tag)
                    elif team.member == 0:
                        replay_readout(replay, p, step, lane + k, &scratch[k], tag)
            wait(team)


cdef void replay_member(
    const Replay *replay, int64_t lane, int64_t n_lanes, Scratch *scratch, int member, int size, real *tag
) noexcept nogil:
    cdef Team team
    team.member = member
    team.size = size
    replay_lanes(replay, lane, n_lanes, &team, &scratch[member], tag)


cdef bint replay_team(
    const Replay *replay, int64_t lane, int64_t n_lanes, int n_threads, real *tag
) noexcept nogil:
    """Some lanes on one thread, or one lane on several; False if memory ran out."""
    cdef int64_t number = max(n_lanes, <int64_t> n_threads)
    cdef Scratch *scratch = <Scratch *> calloc(number, sizeof(Scratch))
    cdef char *room = NULL
    if scratch != NULL:
        room = <char *> line_calloc(lay_out_scratch(replay, n_lanes, number, scratch, NULL, sizeof(real)))
    if room != NULL:
        lay_out_scratch(replay, n_lanes, number, scratch, room, sizeof(real))
        if n_threads == 1:
            replay_member(replay, lane, n_lanes, scratch, 0, 1, tag)
        else:
            with parallel(num_threads=n_threads):
                replay_member(replay, lane, n_lanes, scratch, threadid(), evsim_team_size(), tag)
    free(room)
    free(scratch)
    return room != NULL


cdef void add_to(int64_t n, const real *x, real *to) noexcept nogil:
    cdef int64_t i
    for i in range(n):
        to[i] += x[i]


cdef bint replay_part(
    const Replay *replay, int64_t part, int64_t together, bint double_precision
) noexcept nogil:
    """The ``part``-th of all groups of so many lanes; False if memory ran out."""
    cdef int64_t lane = part * together
    cdef int64_t count = min(together, replay.n_lanes - lane)
    cdef float narrow = 0
    cdef double wide = 0
    if double_precision:
        return replay_team(replay, lane, count, 1, &wide)
    return replay_team(replay, lane, count, 1, &narrow)


cdef bint write_chunk(
    const Replay *replay, const Rows *rows, int64_t chunk, bint fresh, int64_t *macs, bint double_precision
) noexcept nogil:
    """`write_rows` in the plan's float type."""
    cdef float narrow = 0
    cdef double wide = 0
    if double_precision:
        return write_rows(replay, rows, chunk, fresh, macs, &wide)
    return write_rows(replay, rows, chunk, fresh, macs, &narrow)


cdef class Backward:
    """One replay: gradients that one piece of time after the other, the last one first, is added to.

    Parameters
    ----------
    plan : PlanTable
    n_lanes : int
    pseudo_kind : int
        0 triangle, 1 rectangle, 2 fast sigmoid.
    gamma, eps : float
    """

    cdef Replay replay
    cdef PlanTable plan
    cdef list keep          # arrays of the present piece
    cdef object sums        # real, by `lay_out`: what slots carry from piece to piece
    cdef object accumulated     # real: D of all populations in the present piece
    cdef char *first_sum    # where these arrays begin
    cdef char *first_D
    cdef int64_t *counts    # by projection: MACs for dL/dy, for recomputed gates, for the weights; then, by
    cdef int64_t n_steps    # population and lane, backward-active units
    cdef Py_ssize_t itemsize
    cdef char kind

    def __cinit__(self, PlanTable plan, int64_t n_lanes, int pseudo_kind, double gamma, double eps):
        cdef int p
        self.plan = plan
        self.itemsize = sizeof(double) if plan.double_precision else sizeof(float)
        self.kind = c"d" if plan.double_precision else c"f"
        self.keep = []
        self.replay.populations = plan.populations
        self.replay.projections = plan.projections
        self.replay.n_populations = plan.n_populations
        self.replay.n_projections = plan.n_projections
        self.replay.n_lanes = n_lanes
        self.replay.pseudo_kind = pseudo_kind
        self.replay.gamma = gamma
        self.replay.eps = eps
        self.replay.slot = <Slot *> calloc(plan.n_populations, sizeof(Slot))
        self.replay.by_event = <void **> calloc(max(plan.n_projections, 1), sizeof(void *))
        self.replay.gain = <const void **> calloc(max(plan.n_projections, 1), sizeof(void *))
        self.counts = <int64_t *> calloc(3 * plan.n_projections + plan.n_populations * n_lanes,
                                         sizeof(int64_t))
        if (self.replay.slot == NULL or self.replay.by_event == NULL or self.replay.gain == NULL
                or self.counts == NULL):
            raise MemoryError("backward: no memory for the replay")
        self.sums = zeros((lay_out(&self.replay, NULL, self.itemsize) // self.itemsize,), self._dtype())
        self.first_sum = <char *> address(self.sums, self.sums.size, self.kind)
        lay_out(&self.replay, self.first_sum, self.itemsize)
        for p in range(plan.n_populations):
            self.replay.slot[p].active = self.counts + 3 * plan.n_projections + p * n_lanes

    def __dealloc__(self):
        free(self.replay.slot)
        free(self.replay.by_event)
        free(self.replay.gain)
        free(self.counts)

    cdef _dtype(self):
        return DOUBLE if self.plan.double_precision else SINGLE

    def turn_to(self, lengths, int64_t n_steps, int64_t n_done, bint continued):
        """Begin a piece of time, the one before the last.

        Parameters
        ----------
        lengths : int64 array, shape (B,)
            Steps of each lane in it.
        n_steps : int
        n_done : int
            So many steps at its end have been replayed, as the first ones of the last piece.
        continued : bool
            The tapes are parts of longer ones, which begin before the piece: there are the states before it.
        """
        cdef Replay *replay = &self.replay
        cdef int64_t lanes = replay.n_lanes
        cdef Slot *slot
        cdef int64_t size
        cdef int64_t at = 0
        cdef int64_t lane
        cdef int p
        cdef bint full = True
        cdef object _later = self.accumulated   # kept until its first steps are copied
        cdef char *start
        if lanes * n_steps > 0x7FFFFFFF:
            raise ValueError(f"backward: {n_steps} steps of {lanes} lanes are too many at once")
        self.keep = [lengths]
        self.n_steps = n_steps
        replay.n_cells = lanes * n_steps
        replay.n_open = n_steps - n_done
        replay.continued = continued
        replay.lengths = <const int64_t *> address(lengths, lanes, c"l")
        for lane in range(lanes):       # lanes that end early leave the rest of D unwritten
            full = full and replay.lengths[lane] == n_steps
        for p in range(replay.n_populations):
            at = place(NULL, NULL, at, replay.n_cells * replay.populations[p].n_in * self.itemsize)
        size = at // self.itemsize
        self.accumulated = empty((size,), self._dtype()) if full else zeros((size,), self._dtype())
        start = self.first_D = <char *> address(self.accumulated, size, self.kind)
        at = 0
        for p in range(replay.n_populations):
            slot = &replay.slot[p]
            size = lanes * replay.populations[p].n_in
            if n_done:
                memcpy(start + at + (n_steps - n_done) * size * self.itemsize, slot.window.D,
                       n_done * size * self.itemsize)
            at = place(<void **> &slot.window.D, start, at, n_steps * size * self.itemsize)
            slot.window.n_lanes = lanes
            slot.window.n_open = replay.n_open

    cdef void *_real(self, array, Py_ssize_t size) except? NULL:
        self.keep.append(array)
        return address(array, size, self.kind)

    def give_events(self, int population, int history, ptr, unit, value):
        """Set a population's events, from ``history`` steps before the window on."""
        cdef Window *window = &self.replay.slot[population].window
        cdef int64_t cells = (history + self.n_steps) * self.replay.n_lanes
        self.keep += [ptr, unit]
        window.history = history
        window.ptr = <const int64_t *> address(ptr, cells + 1, c"l")
        window.unit = <const int32_t *> address(unit, window.ptr[cells], c"i")
        window.value = self._real(value, window.ptr[cells])

    def give_senders(self, int population, ptr, unit):
        """Set, for the paper's form, the units whose events arrive at the recurrent port, by (step, lane)."""
        cdef Window *window = &self.replay.slot[population].window
        cdef int64_t cells = self.n_steps * self.replay.n_lanes
        self.keep += [ptr, unit]
        window.sender_ptr = <const int64_t *> address(ptr, cells + 1, c"l")
        window.sender = <const int32_t *> address(unit, window.sender_ptr[cells], c"i")

    def give_arrays(self, int population, tape, initial, loss_state, loss_value, loss_event):
        """Set what is known of a population, shaped as at Slot; losses and tape may be None.

        Its events, if it sends any, are to be given before.
        """
        cdef Slot *slot = &self.replay.slot[population]
        cdef const PopulationRow *pop = &self.plan.populations[population]
        cdef int64_t lanes = self.replay.n_lanes
        cdef int64_t cells = self.n_steps * lanes
        cdef int64_t before = slot.window.history * lanes
        cdef int64_t values = cells * pop.n
        if ((tape is None and pop.n_tape) or initial is None
                or (decides(pop.kind) and slot.window.ptr == NULL)):
            raise ValueError("backward: an array is missing")
        if sends_changes(pop.kind):
            values = slot.window.ptr[before + cells] - slot.window.ptr[before]
        slot.window.tape = self._real(tape, cells * pop.n_tape)
        slot.initial = self._real(initial, lanes * pop.n_state)
        slot.loss_state = self._real(loss_state, cells * pop.n)
        slot.loss_value = self._real(loss_value, values)
        slot.loss_event = self._real(loss_event, cells * pop.n)

    def give_sent(self, int population, devent):
        """Set the room (events of the window,), zero, for the gradient at what each event carries.

        The events are to be given before.
        """
        cdef Slot *slot = &self.replay.slot[population]
        cdef int64_t before = slot.window.history * self.replay.n_lanes
        cdef int64_t cells = self.n_steps * self.replay.n_lanes
        slot.devent = self._real(devent, slot.window.ptr[before + cells] - slot.window.ptr[before])

    def give_line(self, int population, dline):
        """Set the room (T, B, n), zero, for the gradient at the stimulus of a source that sends changes."""
        cdef int64_t cells = self.n_steps * self.replay.n_lanes
        self.replay.slot[population].dline = self._real(dline, cells * self.plan.populations[population].n)

    def give_products(self, int projection, product):
        """Set the room for R_z D_z of each event of the source (paper's form, recurrent projections)."""
        cdef const Window *window = &self.replay.slot[self.replay.projections[projection].source].window
        cells = (window.history + self.n_steps) * window.n_lanes
        self.replay.by_event[projection] = self._real(product, max(window.ptr[cells], 1))

    def give_gains(self, int projection, gain):
        """Set what payloads that go through a projection are multiplied by, (B, units of its source)."""
        n = self.replay.populations[self.replay.projections[projection].source].n
        self.replay.gain[projection] = self._real(gain, self.replay.n_lanes * n)

    def go(self, int n_threads, bint teams):
        """Walk all lanes back."""
        cdef int64_t lane
        cdef int64_t together
        cdef int64_t part
        cdef int64_t n_parts
        cdef int failed = 0
        cdef Replay *replay = &self.replay
        cdef int64_t n_lanes = replay.n_lanes
        cdef float narrow = 0
        cdef double wide = 0
        cdef int64_t rows = (n_threads if teams else 1) * n_lanes
        cdef int64_t size = replay.n_projections
        replay.macs_state = <int64_t *> calloc(2 * rows * size + 1, sizeof(int64_t))
        replay.macs_recompute = replay.macs_state + rows * size
        if replay.macs_state == NULL:
            raise MemoryError("backward: no memory to count")
        if teams:
            with nogil:
                for lane in range(n_lanes):
                    if self.plan.double_precision:
                        failed += not replay_team(replay, lane, 1, n_threads, &wide)
                    else:
                        failed += not replay_team(replay, lane, 1, n_threads, &narrow)
        else:
            n_threads = <int> min(<int64_t> n_threads, n_lanes)
            together = min(max(n_lanes // max(n_threads, 1), <int64_t> 1), <int64_t> DOT_LANES)
            n_parts = (n_lanes + together - 1) // together
            if n_threads == 1:      # without OpenMP, whose barriers call the system even for one thread
                with nogil:
                    for part in range(n_parts):
                        failed += not replay_part(replay, part, together, self.plan.double_precision)
            else:
                for part in prange(n_parts, nogil=True, num_threads=n_threads, schedule="dynamic",
                                   chunksize=1):
                    failed += not replay_part(replay, part, together, self.plan.double_precision)
        for lane in range(2 * rows * size):
            self.counts[lane // (rows * size) * size + lane % size] += replay.macs_state[lane]
        free(replay.macs_state)
        if failed:
            raise MemoryError("backward: no memory for a lane")

    def weights(self, dweights, bint fresh, int n_threads, bint dense=True):
        """Write the gradient of each projection's weights into one of ``dweights``, or add to it.

        Unless ``dense``, `ProjectionRow.dense` projections are left out.
        """
        cdef const ProjectionRow *p
        cdef Replay *replay = &self.replay
        cdef Rows *rows = <Rows *> calloc(replay.n_projections + 1, sizeof(Rows))
        cdef int64_t *macs = NULL
        cdef int64_t n_chunks = 0
        cdef int64_t work = 0
        cdef int64_t chunk
        cdef int64_t n
        cdef int64_t at = 0
        cdef char *start
        cdef int failed = 0
        cdef int j
        cdef bint in_double
        cdef float narrow = 0
        cdef double wide = 0
        if rows == NULL:
            raise MemoryError("backward: no memory for the weight rows")
        try:
            for j in range(replay.n_projections):
                if dense or not replay.projections[j].dense:
                    at = place_rows(replay, j, self.n_steps, &rows[j], NULL, at, self.itemsize)
            room = empty((at,), BYTE)
            start, at = <char *> address(room, at, c"B"), 0
            for j in range(replay.n_projections):
                p = &replay.projections[j]
                n = replay.populations[p.source].n
                rows[j].first_chunk = n_chunks
                if p.dense and not dense:
                    continue
                at = place_rows(replay, j, self.n_steps, &rows[j], start, at, self.itemsize)
                if self.plan.double_precision:
                    sort_by_unit(replay, j, self.n_steps, &rows[j], &wide)
                else:
                    sort_by_unit(replay, j, self.n_steps, &rows[j], &narrow)
                rows[j].dweight = self._real(dweights[j], n * p.n_blocks * p.block if p.block_ptr == 0
                                             else (<const int64_t *> p.block_ptr)[n * p.n_blocks])
                rows[j].chunk = min(max(n // n_threads, <int64_t> FEWEST), <int64_t> MOST)
                n_chunks += (n + rows[j].chunk - 1) // rows[j].chunk
                work += rows[j].n_events * p.n_blocks * p.block
            rows[replay.n_projections].first_chunk = n_chunks
            macs = <int64_t *> calloc(n_chunks + 1, sizeof(int64_t))
            if macs == NULL:
                raise MemoryError("backward: no memory for the weight rows")
            # Waking a thread takes as long as some hundred thousand MACs.
            n_threads = <int> min(n_threads, 1 + work // 400_000)
            in_double = self.plan.double_precision
            if n_threads == 1:
                with nogil:
                    for chunk in range(n_chunks):
                        failed += not write_chunk(replay, rows, chunk, fresh, macs, in_double)
            else:
                for chunk in prange(n_chunks, nogil=True, num_threads=n_threads, schedule="dynamic",
                                    chunksize=1):
                    failed += not write_chunk(replay, rows, chunk, fresh, macs, in_double)
            if failed:
                raise MemoryError("backward: no memory for a weight row")
            for j in range(replay.n_projections):
                for chunk in range(rows[j].first_chunk, rows[j + 1].first_chunk):
                    self.counts[2 * replay.n_projections + j] += macs[chunk]
        finally:
            free(rows)
            free(macs)

    # -- what was found ------------------------------------------------------------------------------------

    def macs(self, list names):
        """MACs of each projection so far, by name: for dL/dy, for recomputed gates, for the weights."""
        cdef int n = self.replay.n_projections
        cdef int j
        state, recompute, weight = {}, {}, {}
        for j in range(n):
            name = names[j]
            state[name] = self.counts[j]
            recompute[name] = self.counts[n + j]
            weight[name] = self.counts[2 * n + j]
        return state, recompute, weight

    def active(self, int population):
        """Backward-active units of a population so far, summed over steps and lanes."""
        cdef int64_t lanes = self.replay.n_lanes
        cdef const int64_t *active = self.counts + 3 * self.replay.n_projections + population * lanes
        cdef int64_t total = 0
        cdef int64_t lane
        for lane in range(lanes):
            total += active[lane]
        return total

    def D(self, int population):
        """dL/d(accumulators) of the present piece, shape (T, B, n_in), in place."""
        cdef const void *D = self.replay.slot[population].window.D
        return ndarray((self.n_steps, self.replay.n_lanes, self.plan.populations[population].n_in),
                       self._dtype(), self.accumulated, <const char *> D - self.first_D)

    def carry(self, int population):
        """dL/d(states before the last piece), shape (B, n_state), in place."""
        return self._sum(population, self.replay.slot[population].carry,
                         self.plan.populations[population].n_state)

    def dbias(self, int population):
        """What a bias gets, (n_in,).  Where accumulators are kept, that is their carry."""
        cdef const PopulationRow *pop = &self.plan.populations[population]
        cdef const Slot *slot = &self.replay.slot[population]
        if holds(pop.kind):
            return self._over_lanes(slot.carry, pop.n_state, pop.n_in)
        return self._over_lanes(slot.dbias, pop.n_in, pop.n_in)

    def dthreshold(self, int population):
        """What thresholds of EGRU and LIF units get, (n,)."""
        cdef int64_t n = self.plan.populations[population].n
        return self._over_lanes(self.replay.slot[population].dthreshold, n, n)

    def dnumbers(self, int population):
        """At the numbers of a step of LIF units by lane and unit, (B, 5 n)."""
        return self._sum(population, self.replay.slot[population].dnumbers,
                         5 * self.plan.populations[population].n)

    cdef _over_lanes(self, const void *first, int64_t stride, int64_t n):
        """The sum of the first n of each lane's reals, in order of lane, in an array of its own."""
        cdef int64_t _lane
        if first == NULL:
            raise ValueError("backward: the population has no such gradient")
        total = empty((n,), self._dtype())
        cdef void *to = address(total, n, self.kind)
        memcpy(to, first, n * self.itemsize)
        for _lane in range(1, self.replay.n_lanes):
            first = <const char *> first + stride * self.itemsize
            if self.plan.double_precision:
                add_to(n, <const double *> first, <double *> to)
            else:
                add_to(n, <const float *> first, <float *> to)
        return total

    cdef _sum(self, int population, const void *first, int64_t n):
        """An array of ``sums``."""
        if first == NULL:
            raise ValueError("backward: the population has no such gradient")
        offset = <const char *> first - self.first_sum
        return ndarray((self.replay.n_lanes, n), self._dtype(), self.sums, offset)
