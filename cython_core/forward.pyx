"""The loop over time, forwards.

Lanes are independent and run in parallel, so no result depends on the number of threads.
"""

import numpy as np

from cython.parallel cimport prange
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from evsim.core.buffers cimport address
from evsim.core.event_queue cimport (
    Bucket,
    Record,
    Ring,
    Rings,
    record_append,
    ring_advance,
    ring_peek,
    ring_push,
)
from evsim.core.fanout cimport deliver
from evsim.core.kernels cimport (
    delta_gru_advance,
    delta_lstm_advance,
    delta_readout_advance,
    egru_evnn_advance,
    egru_paper_advance,
    readout_advance,
    send_changes,
)
from evsim.core.layout cimport (
    DELTA_ENCODER,
    DELTA_GRU,
    DELTA_LSTM,
    DELTA_READOUT,
    DELTA_SOURCE,
    EGRU_EVNN,
    EGRU_PAPER,
    READOUT,
    SOURCE,
    FixedFormat,
    PlanTable,
    PopulationRow,
    ProjectionRow,
    decides,
    holds,
    real,
)
from evsim.core.paper_form cimport receive_gated

# One population's share of a run; addresses are 0 where there is nothing.
cdef struct Slot:
    void *base              # the biases
    void *state             # real[B, n_state], IN and OUT
    void *tape              # real[T, B, n_tape], OUT
    const void *line        # stimulus of a source that sends changes: real[T, B, n]
    const int64_t *ptr      # events of any other source: int64[T * B + 1]
    const int32_t *unit
    const void *value
    Record *record          # events of the others: one record per lane

cdef struct Run:
    const PopulationRow *populations
    const ProjectionRow *projections
    int n_populations
    int n_projections
    int64_t n_lanes
    const int64_t *lengths
    Slot *slot
    Ring *rings
    int64_t *macs           # int64[B, n_projections], OUT


cdef int64_t widest(const Run *run, int what) noexcept nogil:
    """The largest number of accumulators (0), tape reals (1) or units (2) of a population."""
    cdef int64_t most = 1
    cdef const PopulationRow *pop
    cdef int p
    cdef int64_t size
    for p in range(run.n_populations):
        pop = &run.populations[p]
        size = pop.n_in if what == 0 else pop.n_tape if what == 1 else pop.n
        most = max(most, size)
    return most


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


cdef bint run_lane(const Run *run, int64_t lane, real *tag) noexcept nogil:
    """All steps of one lane; False if memory ran out.  ``tag`` only carries the float type."""
    cdef real *accumulators = <real *> malloc(widest(run, 0) * sizeof(real))
    cdef real *scratch = <real *> malloc(widest(run, 1) * sizeof(real))
    cdef int64_t n_most = widest(run, 2)
    cdef real *value = <real *> malloc(n_most * sizeof(real))
    cdef real *gated = <real *> malloc(n_most * sizeof(real))
    cdef int32_t *unit = <int32_t *> malloc(n_most * sizeof(int32_t))
    cdef int32_t *senders = <int32_t *> malloc(n_most * sizeof(int32_t))
    cdef char *mark = <char *> calloc(n_most, 1)
    cdef int64_t *macs = run.macs + lane * run.n_projections
    cdef bint good = (accumulators != NULL and scratch != NULL and value != NULL and gated != NULL
                      and unit != NULL and senders != NULL and mark != NULL)
    cdef const PopulationRow *pop
    cdef const ProjectionRow *projection
    cdef Slot *slot
    cdef Ring *ring
    cdef Bucket *bucket
    cdef real *into
    cdef real *tape
    cdef real *state
    cdef const real *threshold
    cdef int64_t step
    cdef int64_t at
    cdef int32_t count
    cdef int p
    cdef int j

    if good:
        for step in range(run.lengths[lane]):
            at = step * run.n_lanes + lane
            for p in range(run.n_populations):
                pop = &run.populations[p]
                slot = &run.slot[p]
                ring = &run.rings[p * run.n_lanes + lane]
                if pop.kind == SOURCE or (pop.kind == DELTA_SOURCE and slot.line == NULL):
                    good = good and ring_push(ring, slot.ptr[at + 1] - slot.ptr[at], slot.unit + slot.ptr[at],
                                              <const real *> slot.value + slot.ptr[at])
                    continue
                tape = scratch if slot.tape == NULL else <real *> slot.tape + at * pop.n_tape
                state = <real *> slot.state + lane * pop.n_state
                threshold = <const real *> pop.threshold

                if holds(pop.kind):
                    into = state
                else:
                    into = accumulators
                    memcpy(into, slot.base, pop.n_in * sizeof(real))
                for j in range(pop.in_first, pop.in_stop):
                    projection = &run.projections[j]
                    if projection.recurrent and pop.kind == EGRU_PAPER:
                        continue
                    bucket = ring_peek(&run.rings[projection.source * run.n_lanes + lane], projection.delay)
                    macs[j] += deliver(projection, 0, projection.n_blocks, bucket.count, bucket.unit,
                                       <const real *> bucket.value, into)
                if pop.kind == EGRU_EVNN:
                    count = egru_evnn_advance(pop.n, accumulators, threshold, state, tape, unit, value)
                elif pop.kind == EGRU_PAPER:
                    receive_gated(pop, run.projections, ring, accumulators, tape, mark, senders, gated, macs)
                    count = egru_paper_advance(pop.n, accumulators, threshold, state, state + pop.n, tape,
                                               unit, value)
                elif pop.kind == READOUT:
                    readout_advance(pop.n, pop.decay, accumulators, state, tape)
                    continue
                else:
                    count = advance_delta(run, p, lane, at, tape, unit, value)
                    if pop.kind == DELTA_READOUT:
                        continue
                good = good and ring_push(ring, count, unit, value)
                good = good and record_append(&slot.record[lane], count, unit, value)
                slot.record[lane].per_step[step] = count
            if not good:
                break
            for p in range(run.n_populations):
                ring_advance(&run.rings[p * run.n_lanes + lane])
    free(accumulators)
    free(scratch)
    free(value)
    free(gated)
    free(unit)
    free(senders)
    free(mark)
    return good


cdef class Forward:
    """One run of a plan: its slots, and the records of its events until they are collected.

    Parameters
    ----------
    plan : PlanTable
    rings : Rings
        Events in flight; IN and OUT.
    lengths : int64 array, shape (B,)
        Steps of each lane, at most ``n_steps``.
    n_steps : int
    """

    cdef Run run
    cdef PlanTable plan
    cdef object keep
    cdef int64_t n_steps
    cdef Py_ssize_t itemsize
    cdef char kind

    def __cinit__(self, PlanTable plan, Rings rings, lengths, int64_t n_steps):
        cdef int p
        cdef int64_t lane
        cdef Slot *slot
        self.plan = plan
        self.n_steps = n_steps
        self.itemsize = sizeof(double) if plan.double_precision else sizeof(float)
        self.kind = c"d" if plan.double_precision else c"f"
        self.keep = [rings, lengths]
        self.run.populations = plan.populations
        self.run.projections = plan.projections
        self.run.n_populations = plan.n_populations
        self.run.n_projections = plan.n_projections
        self.run.n_lanes = rings.n_lanes
        self.run.lengths = <const int64_t *> address(lengths, rings.n_lanes, c"l")
        self.run.rings = rings.rings
        self.run.slot = <Slot *> calloc(plan.n_populations, sizeof(Slot))
        self.run.macs = <int64_t *> calloc(max(rings.n_lanes * plan.n_projections, 1), sizeof(int64_t))
        if self.run.slot == NULL or self.run.macs == NULL:
            raise MemoryError("forward: no memory for the run")
        for p in range(plan.n_populations):
            slot = &self.run.slot[p]
            if not decides(plan.populations[p].kind):
                continue
            slot.record = <Record *> calloc(self.run.n_lanes, sizeof(Record))
            if slot.record == NULL:
                raise MemoryError("forward: no memory for the event records")
            for lane in range(self.run.n_lanes):
                slot.record[lane].per_step = <int32_t *> calloc(max(n_steps, 1), sizeof(int32_t))
                if slot.record[lane].per_step == NULL:
                    raise MemoryError("forward: no memory for the event records")

    def __dealloc__(self):
        cdef int p
        cdef int64_t lane
        if self.run.slot != NULL:
            for p in range(self.run.n_populations):
                if self.run.slot[p].record != NULL:
                    for lane in range(self.run.n_lanes):
                        free(self.run.slot[p].record[lane].unit)
                        free(self.run.slot[p].record[lane].value)
                        free(self.run.slot[p].record[lane].per_step)
                    free(self.run.slot[p].record)
        free(self.run.slot)
        free(self.run.macs)

    def give_source(self, int population, ptr, unit, value):
        """Set the events of a source: bucket pointer (T * B + 1,), units and values."""
        cdef Slot *slot = &self.run.slot[population]
        cdef int64_t cells = self.n_steps * self.run.n_lanes
        self.keep += [ptr, unit, value]
        slot.ptr = <const int64_t *> address(ptr, cells + 1, c"l")
        slot.unit = <const int32_t *> address(unit, slot.ptr[cells], c"i")
        slot.value = address(value, slot.ptr[cells], self.kind)

    def give_line(self, int population, line):
        """Set the stimulus (T, B, n) of a source that sends changes; its state is given by `give_arrays`."""
        cdef int64_t cells = self.n_steps * self.run.n_lanes
        self.keep.append(line)
        self.run.slot[population].line = address(line, cells * self.plan.populations[population].n, self.kind)

    def give_arrays(self, int population, base, state, tape=None):
        """Set biases (n_in,), state (B, n_state) and tape (T, B, n_tape) of any population but a source."""
        cdef Slot *slot = &self.run.slot[population]
        cdef const PopulationRow *pop = &self.plan.populations[population]
        self.keep += [base, state, tape]
        slot.base = address(base, pop.n_in, self.kind)
        slot.state = address(state, self.run.n_lanes * pop.n_state, self.kind)
        slot.tape = address(tape, self.n_steps * self.run.n_lanes * pop.n_tape, self.kind)

    def go(self, int n_threads):
        """Run all lanes; returns the MACs of each projection, int64 (B, n_projections)."""
        cdef int64_t lane
        cdef int failed = 0
        cdef bint double_precision = self.plan.double_precision
        cdef Run *run = &self.run
        cdef int64_t n_lanes = run.n_lanes
        cdef float narrow = 0
        cdef double wide = 0
        if double_precision:
            for lane in prange(n_lanes, nogil=True, num_threads=n_threads, schedule="dynamic", chunksize=1):
                failed += not run_lane(run, lane, &wide)
        else:
            for lane in prange(n_lanes, nogil=True, num_threads=n_threads, schedule="dynamic", chunksize=1):
                failed += not run_lane(run, lane, &narrow)
        if failed:
            raise MemoryError("forward: no memory for events")
        cdef int64_t cells = n_lanes * self.run.n_projections
        macs = np.empty((n_lanes, self.run.n_projections), np.int64)
        if cells:
            memcpy(address(macs, cells, c"l"), self.run.macs, cells * sizeof(int64_t))
        return macs

    def collect(self, int population):
        """The events a population sent, sorted by (step, lane, unit): ptr (T * B + 1,), unit, value."""
        cdef Record *record = self.run.slot[population].record
        cdef int64_t lanes = self.run.n_lanes
        cdef int64_t step
        cdef int64_t lane
        cdef int64_t count
        cdef int64_t total = 0
        for lane in range(lanes):
            total += record[lane].count
        pointers = np.zeros(self.n_steps * lanes + 1, np.int64)
        units = np.empty(total, np.int32)
        values = np.empty(total, np.float64 if self.plan.double_precision else np.float32)
        if total == 0:
            return pointers, units, values
        done = np.zeros(lanes, np.int64)
        cdef int64_t *ptr = <int64_t *> address(pointers, self.n_steps * lanes + 1, c"l")
        cdef int32_t *unit = <int32_t *> address(units, total, c"i")
        cdef char *value = <char *> address(values, total, self.kind)
        cdef int64_t *taken = <int64_t *> address(done, lanes, c"l")
        cdef int64_t row = 0
        cdef Py_ssize_t size = self.itemsize
        with nogil:
            for step in range(self.n_steps):
                for lane in range(lanes):
                    count = record[lane].per_step[step]
                    if count:
                        memcpy(&unit[row], record[lane].unit + taken[lane], count * sizeof(int32_t))
                        memcpy(&value[row * size], <char *> record[lane].value + taken[lane] * size,
                               count * size)
                        taken[lane] += count
                        row += count
                    ptr[step * lanes + lane + 1] = row
        return pointers, units, values
