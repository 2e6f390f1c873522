"""One step of one population, backwards, of one lane or of several side by side: by kind of its units."""

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.string cimport memset

from evsim.core.fanout cimport contiguous, gather
from evsim.core.gains cimport Heard, gather_heard
from evsim.core.kernels cimport (
    DOT_LANES,
    Asking,
    backward_active,
    delta_gru_vjp,
    delta_lstm_vjp,
    delta_readout_vjp,
    dot_lanes,
    egru_evnn_vjp,
    egru_paper_vjp,
    lif_active,
    lif_vjp,
    pseudo_derivative,
)
from evsim.core.layout cimport (
    DELTA_ENCODER,
    DELTA_GRU,
    DELTA_READOUT,
    DELTA_SOURCE,
    EGRU_EVNN,
    EGRU_PAPER,
    LIF,
    PopulationRow,
    ProjectionRow,
    real,
)
from evsim.core.paper_form cimport Window, gather_gated, reset_gate_gradient
from evsim.core.team cimport Team, share, wait

# One population's share; addresses are 0 where there is nothing.  T steps, B lanes, n units.
cdef struct Slot:
    Window window           # events from `history` steps before the window, tape and D
    void *initial           # real[B, n_state]: states before the first step
    void *loss_state        # real[T, B, n]: loss gradients at the state after reset, event value, event
    void *loss_value        # of delta units: real[events of the window], for each event it sent
    void *loss_event
    void *dline             # real[T, B, n], OUT: gradient at the stimulus of a source that sends changes
    void *devent            # real[events of the window], OUT: gradient at what each event carries
    void *carry             # real[B, n_state]: zero at the end of a run; OUT: gradient of the initial state
    void *dbias             # real[B, n_in], OUT
    void *dthreshold        # real[B, n], OUT
    void *dnumbers          # of LIF units: real[B, 5 n], OUT: gradient at the numbers of a step, by unit
    int64_t *active         # int64[B], OUT: backward-active units, summed over steps

cdef struct Replay:
    const PopulationRow *populations
    const ProjectionRow *projections
    int n_populations
    int n_projections
    int64_t n_lanes
    int64_t n_cells             # steps * lanes
    int64_t n_open              # steps to replay; of those behind them D is known
    bint continued              # the tape begins before the window
    const int64_t *lengths
    int32_t pseudo_kind
    double gamma
    double eps
    Slot *slot
    const void **gain           # by projection: real[B, units of its source], or NULL
    void **by_event             # per recurrent projection of the paper's form: real[events]
    int64_t *macs_state         # int64[members of a team, B, n_projections], OUT
    int64_t *macs_recompute     # the same

# Scratch of one lane, or of one member of a team that shares a lane: arrays of the largest population's size.
cdef struct Scratch:
    int32_t n_active    # backward-active units of the lane,
    int32_t *unit       # which they are,
    void *compact       # and their dL/dy; one for the whole team
    void *slope
    void *dy            # dL/dy of all units; before, of lanes side by side, sums by unit
    void *zero          # stays zero
    void *dr            # zero before and after
    char *mark          # zero before and after
    Heard heard         # units whose events a projection's gains let through
    Asking asking       # of lanes side by side, in the first's: which ask for the row of a unit,
    void *room          # and for sums on the way


cdef inline bint gated(const Replay *replay, int j) noexcept nogil:
    """Whether a projection leads to the reset gate of the paper's form, too."""
    cdef const ProjectionRow *projection = &replay.projections[j]
    return projection.recurrent and replay.populations[projection.target].kind == EGRU_PAPER


cdef inline const real *arrived(
    const Replay *replay, int j, int64_t arrival, int64_t lane, real *tag
) noexcept nogil:
    """D of a projection's target where events arrive."""
    cdef const ProjectionRow *projection = &replay.projections[j]
    cdef const real *D = <const real *> replay.slot[projection.target].window.D
    return D + (arrival * replay.n_lanes + lane) * replay.populations[projection.target].n_in


cdef inline void come_back(
    const Replay *replay, int j, int64_t step, int64_t lane, const Team *team, int64_t n_active,
    const int32_t *unit, real *dy, Scratch *scratch
) noexcept nogil:
    """Add to dL/dy what comes back through one projection, for some units of its source."""
    cdef const ProjectionRow *projection = &replay.projections[j]
    cdef int p = projection.source
    cdef int64_t arrival = step + projection.delay
    cdef int64_t first = (team.member * replay.n_lanes + lane) * replay.n_projections
    cdef int64_t *macs = replay.macs_state + first
    cdef const real *D
    cdef const real *gain
    if arrival >= replay.lengths[lane]:
        return
    if gated(replay, j):
        gather_gated[real](&replay.populations[projection.target], replay.projections, j,
                           &replay.slot[p].window, step, lane, n_active, unit, replay.by_event[j], dy,
                           scratch.mark, macs, replay.macs_recompute + first)
        return
    D = arrived[real](replay, j, arrival, lane, dy)
    if replay.gain[j] == NULL:
        macs[j] += gather(projection, 0, projection.n_blocks, n_active, unit, D, dy)
    else:
        gain = <const real *> replay.gain[j] + lane * replay.populations[p].n
        macs[j] += gather_heard[real](projection, gain, n_active, unit, D, dy, &scratch.heard)


cdef inline void event_gradient(
    const Replay *replay, int p, int64_t step, int64_t lane, const Team *team, int64_t n_active,
    const int32_t *unit, real *dy, Scratch *scratch
) noexcept nogil:
    """Add to dL/dy what comes back from the targets, for some units of population p.

    That is their rows times D at the steps where events would arrive.  The units are this member's.
    """
    cdef int j
    for j in range(replay.n_projections):
        if replay.projections[j].source == p:
            come_back[real](replay, j, step, lane, team, n_active, unit, dy, scratch)


cdef inline void ask(
    const Replay *replay, int j, int64_t lane, int64_t k, Scratch *scratch, real *tag
) noexcept nogil:
    """Enter the k-th lane at the rows of its backward-active units, and the sums to which they are to add."""
    cdef int64_t n = replay.populations[replay.projections[j].source].n
    cdef const real *gain = <const real *> replay.gain[j]
    cdef const real *compact = <const real *> scratch[k].compact
    cdef real *sums = <real *> scratch[k].dy
    cdef Asking *asking = &scratch.asking
    cdef int32_t unit
    cdef int32_t i
    if gain != NULL:
        gain += (lane + k) * n
    for i in range(scratch[k].n_active):
        unit = scratch[k].unit[i]
        if gain == NULL or gain[unit] != 0:
            asking.lane[unit * asking.n_lanes + asking.count[unit]] = <uint8_t> k
            asking.count[unit] += 1
            sums[unit] = compact[i] if gain == NULL else 0


cdef inline int64_t take_sums(
    const Replay *replay, int j, int64_t lane, int64_t k, Scratch *scratch, real *tag
) noexcept nogil:
    """The sums of the k-th lane to its dL/dy, through the gains if there are any; returns how many."""
    cdef int64_t n = replay.populations[replay.projections[j].source].n
    cdef const real *gain = <const real *> replay.gain[j]
    cdef real *compact = <real *> scratch[k].compact
    cdef const real *sums = <const real *> scratch[k].dy
    cdef int64_t taken = 0
    cdef int32_t unit
    cdef int32_t i
    if gain != NULL:
        gain += (lane + k) * n
    for i in range(scratch[k].n_active):
        unit = scratch[k].unit[i]
        if gain == NULL:
            compact[i] = sums[unit]
            taken += 1
        elif gain[unit] != 0:
            compact[i] += gain[unit] * sums[unit]
            taken += 1
    return taken


cdef inline void come_back_together(
    const Replay *replay, int j, int64_t step, int64_t lane, int64_t n_lanes, Scratch *scratch, real *tag
) noexcept nogil:
    """`come_back` of the backward-active units of several lanes, through a projection with dense rows.

    A row is read once for all lanes in which its unit is active.  Sums are those of `come_back`.
    """
    cdef const ProjectionRow *projection = &replay.projections[j]
    cdef const real *weight = <const real *> projection.weight
    cdef int64_t n = replay.populations[projection.source].n
    cdef int64_t width = projection.n_blocks * projection.block
    cdef int64_t arrival = step + projection.delay
    cdef const real *D[DOT_LANES]
    cdef const real *vector[DOT_LANES]
    cdef real *sums[DOT_LANES]
    cdef int32_t first = 0
    cdef int32_t stop
    cdef int k
    scratch.asking.n_lanes = n_lanes
    memset(scratch.asking.count, 0, n)
    for k in range(n_lanes):
        D[k] = NULL
        vector[k] = NULL
        sums[k] = <real *> scratch[k].dy
        if arrival < replay.lengths[lane + k]:
            D[k] = arrived[real](replay, j, arrival, lane + k, tag)
            ask[real](replay, j, lane, k, scratch, tag)
    while first < projection.n_blocks:
        stop = contiguous(projection, first, projection.n_blocks)
        for k in range(n_lanes):
            if D[k] != NULL:
                vector[k] = D[k] + projection.offset[first]
        dot_lanes(n, &scratch.asking, weight + first * projection.block, width,
                  (stop - first) * projection.block, vector, sums, <real *> scratch.room)
        first = stop
    for k in range(n_lanes):
        if D[k] != NULL:
            replay.macs_state[(lane + k) * replay.n_projections + j] += width * take_sums[real](
                replay, j, lane, k, scratch, tag)


cdef inline void event_gradients(
    const Replay *replay, int p, int64_t step, int64_t lane, int64_t n_lanes, const Team *team,
    Scratch *scratch, real *tag
) noexcept nogil:
    """`event_gradient` of the backward-active units of several lanes."""
    cdef int64_t k
    cdef int j
    for j in range(replay.n_projections):
        if replay.projections[j].source != p:
            continue
        if replay.projections[j].block_ptr == 0 and not gated(replay, j):
            come_back_together[real](replay, j, step, lane, n_lanes, scratch, tag)
            continue
        for k in range(n_lanes):
            if scratch[k].n_active:
                come_back[real](replay, j, step, lane + k, team, scratch[k].n_active, scratch[k].unit,
                                <real *> scratch[k].compact, &scratch[k])


cdef inline int64_t event_row(const Slot *slot, int64_t step, int64_t lane) noexcept nogil:
    """The first event of a step and lane among those of the window."""
    cdef const Window *window = &slot.window
    return (window.ptr[(window.history + step) * window.n_lanes + lane]
            - window.ptr[window.history * window.n_lanes])


cdef inline void keep_sent(
    const Slot *slot, int64_t step, int64_t lane, int32_t n_active, const int32_t *unit, const real *dy
) noexcept nogil:
    """Of dL/dy of backward-active units, keep that of those that fired."""
    cdef const Window *window = &slot.window
    cdef int64_t bucket = (window.history + step) * window.n_lanes + lane
    cdef real *devent = <real *> slot.devent + event_row(slot, step, lane)
    cdef int64_t first = window.ptr[bucket]
    cdef int32_t i = 0
    cdef int64_t e
    for e in range(window.ptr[bucket + 1] - first):
        while i < n_active and unit[i] < window.unit[first + e]:    # both lists are in order of unit
            i += 1
        if i < n_active and unit[i] == window.unit[first + e]:
            devent[e] = dy[i]


cdef inline void replay_source(
    const Replay *replay, int p, int64_t step, int64_t lane, const Team *team, Scratch *scratch, real *tag
) noexcept nogil:
    """The gradient at the events of a source: a step of nothing but that."""
    cdef Slot *slot = &replay.slot[p]
    cdef const Window *window = &slot.window
    cdef int64_t bucket = (window.history + step) * replay.n_lanes + lane
    cdef int64_t first = window.ptr[bucket]
    cdef int64_t low = share(team, window.ptr[bucket + 1] - first, False)
    cdef int64_t high = share(team, window.ptr[bucket + 1] - first, True)
    cdef real *devent = <real *> slot.devent + event_row(slot, step, lane)
    if low < high:
        memset(devent + low, 0, (high - low) * sizeof(real))
        event_gradient[real](replay, p, step, lane, team, high - low, window.unit + first + low,
                             devent + low, scratch)


cdef inline void of_loss(
    const Replay *replay, int p, int64_t step, int64_t lane, int64_t low, int64_t high, Scratch *scratch,
    real *tag
) noexcept nogil:
    """dL/dy of the backward-active units low:high where they stand in their list, but for what comes back."""
    cdef const real *loss = <const real *> replay.slot[p].loss_value
    cdef real *compact = <real *> scratch.compact
    cdef int64_t i
    if loss != NULL:
        loss += (step * replay.n_lanes + lane) * replay.populations[p].n
    for i in range(low, high):
        compact[i] = 0 if loss == NULL else loss[scratch.unit[i]]


cdef inline void sent_gradient(
    const Replay *replay, int p, int64_t step, int64_t lane, int64_t n_lanes, const Team *team, bint shared,
    Scratch *scratch, real *tag
) noexcept nogil:
    """dL/dy of the backward-active units, ``scratch.unit``: of the loss, and what comes back from targets.

    Of several lanes, or of one, where every member of a team is to call it; unless the units are ``shared``
    out, the first one does it all.
    """
    cdef Slot *slot = &replay.slot[p]
    cdef int64_t n_active = scratch.n_active
    cdef int64_t low
    cdef int64_t high
    cdef int64_t k
    if n_lanes > 1:
        for k in range(n_lanes):
            of_loss[real](replay, p, step, lane + k, 0, scratch[k].n_active, &scratch[k], tag)
        event_gradients[real](replay, p, step, lane, n_lanes, team, scratch, tag)
    else:
        low = share(team, n_active, False) if shared or team.member else 0
        high = share(team, n_active, True) if shared else 0 if team.member else n_active
        of_loss[real](replay, p, step, lane, low, high, scratch, tag)
        if low < high:
            event_gradient[real](replay, p, step, lane, team, high - low, scratch.unit + low,
                                 <real *> scratch.compact + low, scratch)
    wait(team)
    if team.member:
        return
    for k in range(n_lanes):
        slot.active[lane + k] += scratch[k].n_active
        if slot.devent != NULL and scratch[k].n_active:
            keep_sent[real](slot, step, lane + k, scratch[k].n_active, scratch[k].unit,
                            <const real *> scratch[k].compact)


cdef inline void open_unit_step(
    const Replay *replay, int p, int64_t step, int64_t lane, Scratch *scratch, real *tag
) noexcept nogil:
    """Which EGRU or LIF units are backward-active, and the slopes of their thresholds."""
    cdef const PopulationRow *pop = &replay.populations[p]
    cdef const real *threshold = <const real *> pop.threshold
    cdef const real *tape = <const real *> replay.slot[p].window.tape
    cdef real *slope = <real *> scratch.slope
    tape += (step * replay.n_lanes + lane) * pop.n_tape
    if pop.kind == LIF:
        pseudo_derivative(replay.pseudo_kind, replay.gamma, replay.eps, pop.n, tape + pop.n, threshold, slope)
        scratch.n_active = lif_active(pop.n, tape, threshold, slope, scratch.unit)
        return
    tape += 4 * pop.n
    pseudo_derivative(replay.pseudo_kind, replay.gamma, replay.eps, pop.n, tape, threshold, slope)
    scratch.n_active = backward_active(pop.n, tape, threshold, <const real *> slope, scratch.unit)


cdef inline const real *take_up(
    const Replay *replay, int p, int64_t step, int64_t lane, Scratch *scratch, real *tag
) noexcept nogil:
    """dL/dy of the backward-active units to their places, dL/dstate to the carry; returns dL/do of all."""
    cdef Slot *slot = &replay.slot[p]
    cdef int64_t n = replay.populations[p].n
    cdef int64_t at = step * replay.n_lanes + lane
    cdef const real *loss
    cdef const real *compact = <const real *> scratch.compact
    cdef real *dy = <real *> scratch.dy
    cdef real *carry = <real *> slot.carry + lane * replay.populations[p].n_state
    cdef int64_t i
    memset(dy, 0, n * sizeof(real))
    for i in range(scratch.n_active):
        dy[scratch.unit[i]] = compact[i]
    if slot.loss_state != NULL:
        loss = <const real *> slot.loss_state + at * n
        for i in range(n):
            carry[i] += loss[i]
    if slot.loss_event != NULL:
        return <const real *> slot.loss_event + at * n
    return <const real *> scratch.zero


cdef inline void close_egru(
    const Replay *replay, int p, int64_t step, int64_t lane, Scratch *scratch, real *tag
) noexcept nogil:
    """The rest of a step of EGRU units, once their dL/dy is known."""
    cdef Slot *slot = &replay.slot[p]
    cdef const PopulationRow *pop = &replay.populations[p]
    cdef int64_t n = pop.n
    cdef int64_t at = step * replay.n_lanes + lane
    cdef const real *tape = <const real *> slot.window.tape + at * pop.n_tape
    cdef const real *a = tape + 4 * n
    cdef const real *threshold = <const real *> pop.threshold
    cdef const real *reset
    cdef const real *d_event
    cdef bint initial = step == 0 and not replay.continued
    cdef const real *before = a - replay.n_lanes * pop.n_tape
    cdef real *slope = <real *> scratch.slope
    cdef const real *dy = <const real *> scratch.dy
    cdef real *compact = <real *> scratch.compact
    cdef real *dc = <real *> slot.carry + lane * pop.n_state
    cdef real *D = <real *> slot.window.D + at * pop.n_in
    cdef real *dbias = <real *> slot.dbias + lane * pop.n_in
    cdef real *dthreshold = <real *> slot.dthreshold + lane * n
    cdef int64_t i

    if pop.kind == EGRU_PAPER:      # the reset of the next step: a_{t+1} = ... - y_t
        reset = dc + n
        for i in range(scratch.n_active):
            compact[i] -= reset[scratch.unit[i]]
    d_event = take_up[real](replay, p, step, lane, scratch, tag)
    if initial:
        before = <const real *> slot.initial + lane * pop.n_state
    if pop.kind == EGRU_EVNN:
        egru_evnn_vjp(n, tape, before, not initial, threshold, <const real *> slope, dy, d_event,
                      dc, D, dbias, dthreshold)
    else:
        egru_paper_vjp(n, tape, before, threshold, <const real *> slope, dy, d_event,
                       dc, D, dc + n, dthreshold)
        reset_gate_gradient(pop, replay.projections, &slot.window, step, lane, D, replay.by_event,
                            <real *> scratch.dr, replay.macs_state + lane * replay.n_projections)
        for i in range(3 * n):
            dbias[i] += D[i]


cdef inline void close_lif(
    const Replay *replay, int p, int64_t step, int64_t lane, Scratch *scratch, real *tag
) noexcept nogil:
    """The rest of a step of LIF units, once their dL/dy is known."""
    cdef Slot *slot = &replay.slot[p]
    cdef const PopulationRow *pop = &replay.populations[p]
    cdef int64_t n = pop.n
    cdef int64_t at = step * replay.n_lanes + lane
    cdef const real *tape = <const real *> slot.window.tape + at * pop.n_tape
    cdef const real *v_before = tape - replay.n_lanes * pop.n_tape
    cdef const real *d_event = take_up[real](replay, p, step, lane, scratch, tag)

    if step == 0 and not replay.continued:
        v_before = <const real *> slot.initial + lane * pop.n_state
    lif_vjp(n, <const double *> pop.numbers, tape, v_before, <const real *> pop.bias,
            <const real *> pop.threshold, <const real *> scratch.slope, <const real *> scratch.dy, d_event,
            <real *> slot.carry + lane * pop.n_state, <real *> slot.window.D + at * pop.n_in,
            <real *> slot.dbias + lane * pop.n_in, <real *> slot.dthreshold + lane * n,
            <real *> slot.dnumbers + lane * 5 * n)


cdef inline void replay_units(
    const Replay *replay, int p, int64_t step, int64_t lane, int64_t n_lanes, const Team *team,
    Scratch *scratch, real *tag
) noexcept nogil:
    """One step of an EGRU or LIF population, backwards, in the lanes that have come so far."""
    cdef bint shared = replay.populations[p].kind != EGRU_PAPER
    cdef int64_t k
    for k in range(n_lanes):
        if step < replay.lengths[lane + k]:
            open_unit_step[real](replay, p, step, lane + k, &scratch[k], tag)
        else:
            scratch[k].n_active = 0
    sent_gradient[real](replay, p, step, lane, n_lanes, team, shared, scratch, tag)
    if team.member:
        return
    for k in range(n_lanes):
        if step >= replay.lengths[lane + k]:
            continue
        if replay.populations[p].kind == LIF:
            close_lif[real](replay, p, step, lane + k, &scratch[k], tag)
        else:
            close_egru[real](replay, p, step, lane + k, &scratch[k], tag)


cdef inline void replay_sent(
    const Replay *replay, int p, int64_t step, int64_t lane, const Team *team, Scratch *scratch,
    real *dline, real *dsent
) noexcept nogil:
    """Sending changes, backwards: sent_t = sent_{t-1} + d, d = line - sent_{t-1}, where an event was sent.

    So dL/dline = dL/dd + dL/dsent_t there, and dL/dsent_{t-1} = -dL/dd; elsewhere nothing happened.
    Of a source whose stimulus gets no gradient, ``dline`` is NULL.
    """
    cdef Slot *slot = &replay.slot[p]
    cdef const Window *window = &slot.window
    cdef int64_t bucket = (window.history + step) * replay.n_lanes + lane
    cdef int64_t first = window.ptr[bucket]
    cdef int32_t count = <int32_t> (window.ptr[bucket + 1] - first)
    cdef const int32_t *unit = window.unit + first
    cdef real *dd = <real *> scratch.compact
    cdef real *devent = <real *> slot.devent
    cdef const real *loss
    cdef int64_t low = share(team, count, False)
    cdef int64_t high = share(team, count, True)
    cdef int64_t e
    for e in range(low, high):
        dd[e] = 0
    if slot.loss_value != NULL:
        loss = <const real *> slot.loss_value + event_row(slot, step, lane)
        for e in range(low, high):
            dd[e] = loss[e]
    event_gradient[real](replay, p, step, lane, team, high - low, unit + low, dd + low, scratch)
    if devent != NULL:
        devent += event_row(slot, step, lane)
        for e in range(low, high):
            devent[e] = dd[e]
    wait(team)
    if team.member:
        return
    slot.active[lane] += count
    if dline == NULL:
        return
    for e in range(count):
        dline[unit[e]] += dd[e] + dsent[unit[e]]
        dsent[unit[e]] = -dd[e]


cdef inline void replay_delta(
    const Replay *replay, int p, int64_t step, int64_t lane, const Team *team, Scratch *scratch, real *tag
) noexcept nogil:
    """One step of delta units, or of an encoder, backwards."""
    cdef Slot *slot = &replay.slot[p]
    cdef const PopulationRow *pop = &replay.populations[p]
    cdef int64_t n = pop.n
    cdef int64_t at = step * replay.n_lanes + lane
    cdef const real *tape = <const real *> slot.window.tape + at * pop.n_tape
    cdef const real *before = tape - replay.n_lanes * pop.n_tape
    cdef const real *initial = <const real *> slot.initial + lane * pop.n_state
    cdef const real *earlier = before + 4 * n if step or replay.continued else initial + 4 * n
    cdef const real *loss
    cdef real *carry = <real *> slot.carry + lane * pop.n_state
    cdef real *D = <real *> slot.window.D + at * pop.n_in
    cdef real *dh
    cdef int64_t i
    if pop.kind == DELTA_SOURCE:
        dh = NULL if slot.dline == NULL else <real *> slot.dline + at * n
        if dh != NULL or slot.devent != NULL:
            replay_sent(replay, p, step, lane, team, scratch, dh, carry)
        return
    if pop.kind == DELTA_ENCODER:
        dh = <real *> replay.slot[pop.watched].carry + pop.watched_at
        dh += lane * replay.populations[pop.watched].n_state
        replay_sent(replay, p, step, lane, team, scratch, dh, carry)
        return
    if pop.kind == DELTA_READOUT:
        loss = <const real *> scratch.zero
        if slot.loss_state != NULL:
            loss = <const real *> slot.loss_state + at * n
        if team.member == 0:
            delta_readout_vjp(n, loss, carry, D)
        return
    dh = carry + (4 if pop.kind == DELTA_GRU else 5) * n
    replay_sent(replay, p, step, lane, team, scratch, dh, dh + n)
    if team.member:
        return
    if slot.loss_state != NULL:
        loss = <const real *> slot.loss_state + at * n
        for i in range(n):
            dh[i] += loss[i]
    if pop.kind == DELTA_GRU:
        delta_gru_vjp(n, tape, earlier, dh, carry, D)
    else:
        delta_lstm_vjp(n, tape, earlier, carry + 4 * n, dh, carry, D)
