"""Weight gradients of a piece of time, once all D are known: each row from the events of its own unit."""

from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from evsim.core.fanout cimport outer, outer_many
from evsim.core.kernels cimport EventList
from evsim.core.layout cimport EGRU_PAPER, PopulationRow, ProjectionRow, real
from evsim.core.memory cimport place
from evsim.core.paper_form cimport Window, outer_gated
from evsim.core.replay_step cimport Replay

cdef enum:
    APART = 16      # entries between the events of one unit and those of the next

# The weight gradient of one projection.
cdef struct Rows:
    EventList *lists            # of each unit: step * n_lanes + lane where an event arrives, and its value
    int32_t *arrival            # what they point into
    void *value
    int64_t *next               # of each unit: where its next event is written
    int64_t n_events
    void *dweight               # OUT
    int64_t chunk               # units whose rows are written together
    int64_t first_chunk         # chunks of all projections are counted through


cdef inline int64_t place_rows(
    const Replay *replay, int j, int64_t n_steps, Rows *rows, char *start, int64_t at, Py_ssize_t size
) noexcept nogil:
    """Place the lists of a projection, see `place`; lists of the events of all steps fit in."""
    cdef const ProjectionRow *p = &replay.projections[j]
    cdef const Window *window = &replay.slot[p.source].window
    cdef int64_t n = replay.populations[p.source].n
    # Lists of equal length would begin at multiples of it, and all go through the same places of the cache.
    cdef int64_t room = window.ptr[(window.history + n_steps) * replay.n_lanes] + n * APART
    at = place(<void **> &rows.lists, start, at, n * sizeof(EventList))
    at = place(<void **> &rows.next, start, at, n * sizeof(int64_t))
    at = place(&rows.value, start, at, room * size)
    return place(<void **> &rows.arrival, start, at, room * sizeof(int32_t))


cdef inline void visit(
    const Replay *replay, int j, int64_t n_steps, Rows *rows, bint listing, real *tag
) noexcept nogil:
    """Go through the events of a projection that arrive within the piece: count those of each unit in
    ``rows.next``; or, ``listing``, write them to the places in there."""
    cdef const ProjectionRow *p = &replay.projections[j]
    cdef const Window *window = &replay.slot[p.source].window
    cdef const int32_t *unit_of = window.unit
    cdef const real *sent = <const real *> window.value
    cdef const real *gain = NULL
    cdef int64_t *next = rows.next
    cdef int32_t *arrival = rows.arrival
    cdef real *value = <real *> rows.value
    cdef int64_t n = replay.populations[p.source].n
    cdef int64_t lanes = replay.n_lanes
    cdef int64_t cell = 0
    cdef int64_t step
    cdef int64_t lane
    cdef int64_t to
    cdef int64_t e
    cdef int64_t k
    cdef int32_t unit
    for step in range(window.history + n_steps):
        to = step - window.history + p.delay
        for lane in range(lanes):
            if 0 <= to < min(replay.lengths[lane], replay.n_open):
                if replay.gain[j] != NULL:
                    gain = <const real *> replay.gain[j] + lane * n
                for e in range(window.ptr[cell], window.ptr[cell + 1]):
                    unit = unit_of[e]
                    if gain != NULL and gain[unit] == 0:
                        continue
                    k = next[unit]
                    next[unit] = k + 1
                    if listing:
                        arrival[k] = <int32_t> (to * lanes + lane)
                        value[k] = sent[e] if gain == NULL else sent[e] * gain[unit]
            cell += 1


cdef inline void sort_by_unit(
    const Replay *replay, int j, int64_t n_steps, Rows *rows, real *tag
) noexcept nogil:
    """List the events of a projection that arrive within the piece, by unit."""
    cdef int64_t n = replay.populations[replay.projections[j].source].n
    cdef int64_t at = 0
    cdef int64_t unit
    memset(rows.next, 0, n * sizeof(int64_t))
    visit(replay, j, n_steps, rows, False, tag)
    for unit in range(n):
        rows.lists[unit].n = rows.next[unit]
        rows.lists[unit].unit = rows.arrival + at
        rows.lists[unit].value = <real *> rows.value + at
        rows.n_events += rows.next[unit]
        rows.next[unit] = at
        at += rows.lists[unit].n + APART
    visit(replay, j, n_steps, rows, True, tag)


cdef inline int64_t write_row(
    const Replay *replay, int j, int64_t unit, int64_t n, const int32_t *arrival, const real *value,
    real *gated, char *mark, real *dweight
) noexcept nogil:
    """Add to one unit's weight row its gradient from that unit's events."""
    cdef const ProjectionRow *p = &replay.projections[j]
    cdef const PopulationRow *target = &replay.populations[p.target]
    cdef const Window *window = &replay.slot[p.target].window
    if p.recurrent and target.kind == EGRU_PAPER:
        return outer_gated(p, window, unit, n, arrival, value, gated, mark, dweight)
    return outer(p, 0, p.n_blocks, unit, n, arrival, value, <const real *> window.D, target.n_in, dweight)


cdef inline bint write_rows(
    const Replay *replay, const Rows *rows, int64_t chunk, bint fresh, int64_t *macs_of, real *tag
) noexcept nogil:
    """Write, or add to, the weight gradient of one chunk of units of some projection; False: no memory."""
    cdef int j = 0
    while chunk >= rows[j + 1].first_chunk:
        j += 1
    cdef const ProjectionRow *p = &replay.projections[j]
    cdef const PopulationRow *target = &replay.populations[p.target]
    cdef EventList *lists = rows[j].lists
    cdef const int64_t *block_ptr = <const int64_t *> p.block_ptr
    cdef real *dweight = <real *> rows[j].dweight
    cdef int64_t first = (chunk - rows[j].first_chunk) * rows[j].chunk
    cdef int64_t stop = min(first + rows[j].chunk, <int64_t> replay.populations[p.source].n)
    cdef int64_t width = p.n_blocks * p.block
    cdef bint gated = p.recurrent and target.kind == EGRU_PAPER
    cdef int64_t most = 1
    cdef int64_t unit
    cdef int64_t macs = 0
    cdef void *scratch = NULL
    cdef char *mark = NULL
    cdef bint good = True
    if block_ptr == NULL and not gated:
        macs = outer_many(p, stop - first, lists + first, <const real *> replay.slot[p.target].window.D,
                          replay.n_cells, target.n_in, dweight + first * width, fresh)
    else:
        if not fresh:
            pass
        elif block_ptr == NULL:
            memset(dweight + first * width, 0, (stop - first) * width * sizeof(real))
        elif dweight != NULL:       # as where no weight is stored
            memset(dweight + block_ptr[first * p.n_blocks], 0,
                   (block_ptr[stop * p.n_blocks] - block_ptr[first * p.n_blocks]) * sizeof(real))
        for unit in range(first, stop):
            most = max(most, lists[unit].n)
        scratch = malloc(most * sizeof(real))
        mark = <char *> calloc(p.block, 1)
        good = scratch != NULL and mark != NULL
        if good:
            for unit in range(first, stop):
                if lists[unit].n:
                    macs += write_row(replay, j, unit, lists[unit].n, lists[unit].unit,
                                      <const real *> lists[unit].value, <real *> scratch, mark, dweight)
    macs_of[chunk] = macs
    free(scratch)
    free(mark)
    return good
