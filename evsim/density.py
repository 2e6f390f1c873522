"""How many events lie in each cell of a picture: of events in memory, or streamed from a file of any length.

Rows of events are in order of time, so a column of a picture is a run of rows; where runs end is found first,
then the nodes are read once, in pieces, and counted by the core.  A window of very many events can be
estimated from the counts that a file keeps of each block of rows, without reading any event.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.core import counting
from evsim.errors import LogError
from evsim.event_rows import as_rows, first_step

#: Rows read at a time, and rows up to which a density is counted rather than estimated.
PIECE = 2**20
MOST_ROWS = 2**22
#: Nodes up to which a table says the row of each; beyond that it is computed for each event.
MOST_PLACES = 2**24

ValueName = Literal["value", "gradient", "time_gradient"]


@dataclass(frozen=True, eq=False)
class Density:
    """Events in cells of a picture; row 0 is the lowest node, column 0 the earliest time.

    Attributes
    ----------
    counts : ndarray of uint32, shape (n_rows, n_columns)
        Events with ``edges[j] <= time < edges[j + 1]`` of the nodes of row i.
    edges : ndarray of float64, shape (n_columns + 1,)
        In ms.
    exact : bool
        False if the counts were estimated from those of the file's blocks.
    nodes : ndarray of int64, shape (n_rows,)
        How many nodes each row stands for.
    steps : ndarray of int64, shape (n_columns,), or None
        How many steps begin in each column, of a run in steps.
    sums : ndarray of float64, shape (n_rows, n_columns), or None
        Sum of the value that was asked for.
    """

    counts: NDArray[np.uint32]
    edges: NDArray[np.float64]
    exact: bool
    nodes: NDArray[np.int64]
    steps: NDArray[np.int64] | None = None
    sums: NDArray[np.float64] | None = None

    @property
    def rate(self) -> NDArray[np.float64]:
        """Events per node and second in each cell, in Hz; NaN where a cell covers nothing."""
        return self._per(1e-3 * np.diff(self.edges))

    @property
    def active(self) -> NDArray[np.float64]:
        """Percent of the nodes and steps of each cell that have an event; NaN where a cell covers nothing.

        Cells may cover unequally many steps or nodes: this does not show stripes there, the counts do.
        """
        if self.steps is None:
            raise LogError("density", "has no steps", "give dt, or look at the rate")
        return 100.0 * self._per(self.steps)

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean value of the events of each cell; NaN where there are none."""
        if self.sums is None:
            raise LogError("density", "has no sums", "ask for density(..., value='value')")
        nothing = np.full(self.counts.shape, np.nan)
        return np.divide(self.sums, self.counts, out=nothing, where=self.counts > 0)

    def _per(self, extent: NDArray) -> NDArray[np.float64]:
        size = np.multiply.outer(self.nodes.astype(np.float64), extent)
        return np.divide(self.counts, size, out=np.full(size.shape, np.nan), where=size > 0)


def density(
    population: Any,
    start: float | None = None,
    stop: float | None = None,
    n_columns: int = 900,
    nodes: tuple[int, int] | None = None,
    n_rows: int | None = None,
    *,
    exact: bool | None = None,
    value: ValueName | None = None,
    dt: float | None = None,
    edges: ArrayLike | None = None,
    row_of: ArrayLike | None = None,
) -> Density:
    """Count the events of a population in the cells of a picture.

    Parameters
    ----------
    population : FilePopulation, EventTable, PopulationLog or TimedEvents
    start, stop : float
        The window in ms, cut into ``n_columns`` equal parts; by default all there is.
    n_columns : int
    nodes : (int, int)
        First node, and the one after the last; a node is ``lane * n_units + unit``.  By default all.
    n_rows : int
        Rows of the picture, at most one for each node: node ``k`` of ``n`` is in row ``k * n_rows // n``.  By
        default at most 450, which cover the same number of nodes each, but for the last.
    exact : bool or None
        True: read all events of the window, whatever the time and never much memory.  False: estimate from
        the counts of the file's blocks where there are any.  None: read if there are at most `MOST_ROWS`.
    value : "value", "gradient", "time_gradient" or None
        A column to sum over the events of each cell; all of them are read then.
    dt : float, optional
        Length of a step in ms, of a population that does not know it, for `Density.steps`.
    edges : array of float64, shape (n_columns + 1,), optional
        The columns, in place of ``start``, ``stop`` and ``n_columns``.
    row_of : array of integers, shape (nodes[1] - nodes[0],), optional
        The row of each node, or -1 for those that are not in the picture, in place of even rows.

    Raises
    ------
    LogError
        Nodes, rows or columns that make no picture, or a column that the events do not have.
    """
    events = as_rows(population, dt)
    cuts = _edges(events, start, stop, n_columns, edges)
    first, last = _nodes(events, nodes)
    places, n_rows, covered = _places(first, last, n_rows, row_of)
    dt = getattr(events, "dt", dt)
    steps = None if dt is None else np.diff(first_step(cuts, dt))
    if exact is not True and value is None and _has_blocks(events):
        near = _near_bounds(events, cuts)
        if exact is False or near[-1] - near[0] > MOST_ROWS:
            counts = _estimate(events, near, first, last, places, n_rows)
            return Density(np.ascontiguousarray(counts.T), cuts, False, covered, steps)
    tally = Tally(row_bounds(events, cuts), n_rows, first, last, places, value)
    count(events, [tally])
    sums = None if tally.sums is None else np.ascontiguousarray(tally.sums.T)
    return Density(np.ascontiguousarray(tally.counts.T), cuts, True, covered, steps, sums)


class Tally:
    """Cells that `count` adds events to.

    Parameters
    ----------
    bounds : ndarray of int64, shape (n_columns + 1,)
        Rows of events between which the columns lie.
    n_rows : int
    first, last : int
        The nodes that are shown.
    places : ndarray of int32, shape (last - first,), or None
        Row of each of them, or -1; None for even rows.
    value : str, optional
        A column to sum.

    Attributes
    ----------
    counts : ndarray of uint32, shape (n_columns, n_rows)
    sums : ndarray of float64, shape (n_columns, n_rows), or None
    """

    def __init__(
        self,
        bounds: NDArray[np.int64],
        n_rows: int,
        first: int,
        last: int,
        places: NDArray[np.int32] | None = None,
        value: ValueName | None = None,
    ):
        most = int(np.diff(bounds).max(initial=0))
        if most > np.iinfo(np.uint32).max:
            problem = f"has a column of {most} events"
            raise LogError("density", problem, "give more columns: a cell holds 2^32")
        self.bounds, self.value = bounds, value
        self.counts = np.zeros((len(bounds) - 1, n_rows), np.uint32)
        self.sums = None if value is None else np.zeros(self.counts.shape)
        self._window = (first, last) if places is None else None
        self._first = first if places is not None else 0
        self._table = np.arange(n_rows, dtype=np.int32) if places is None else places

    def add(self, events: Any, rows: slice, nodes: NDArray[np.unsignedinteger]) -> None:
        """Count a piece of rows, whose nodes these are."""
        bounds = self.bounds
        start, stop = np.clip([rows.start, rows.stop], bounds[0], bounds[-1])
        if start == stop:
            return
        here = slice(start - rows.start, stop - rows.start)
        nodes = nodes[here]
        if self._window is not None:
            nodes = _even_rows(nodes, *self._window, self.counts.shape[1])
        # From the column in which the piece begins to that in which it ends.
        begin = int(np.searchsorted(bounds, start, side="right")) - 1
        end = int(np.searchsorted(bounds, stop, side="left"))
        ends = np.clip(bounds[begin + 1 : end + 1], start, stop) - start
        counts = self.counts[begin:end]
        if self.sums is None or self.value is None:
            counting.count_cells(nodes, ends, self._first, self._table, counts)
        else:
            values = column(events, slice(int(start), int(stop)), self.value)
            counting.sum_cells(nodes, values, ends, self._first, self._table, counts, self.sums[begin:end])


def count(events: Any, tallies: list[Tally]) -> None:
    """Add the events of a population to several tallies, reading them once."""
    start = min((int(tally.bounds[0]) for tally in tallies), default=0)
    stop = max((int(tally.bounds[-1]) for tally in tallies), default=0)
    for rows in pieces(events, slice(start, stop)):
        nodes = nodes_of(events, rows)
        for tally in tallies:
            tally.add(events, rows, nodes)


def row_bounds(population: Any, edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many of a population's events are before each of these times in ms, which increase.

    Of a file in continuous time only the blocks are read in which one of the times lies.
    """
    events = as_rows(population)
    dt = getattr(events, "dt", None)
    if dt is not None:
        step = first_step(edges, dt) - events.start_step
        return np.asarray(events.row_ptr[np.clip(step, 0, len(events.row_ptr) - 1)], np.int64)
    ends = np.asarray(getattr(events, "block_ends", [events.n_events]), np.int64)
    starts = np.append(0, ends)
    # A block that begins before a time and whose successor does not: the time lies within it, or at its end.
    first = getattr(events, "block_times", np.array([-np.inf]))
    block = np.searchsorted(first, edges) - 1
    bounds = np.zeros(len(edges), np.int64)
    for b in np.unique(block[block >= 0]):
        here = block == b
        times = events.times(slice(int(starts[b]), int(ends[b])))
        bounds[here] = starts[b] + np.searchsorted(times, edges[here])
    return bounds


def _near_bounds(events: Any, edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """`row_bounds`; of a file in continuous time as if events were spread evenly within a block."""
    if getattr(events, "dt", None) is not None:
        return row_bounds(events, edges)
    ends = np.asarray(events.block_ends, np.int64)
    last = events.times(slice(int(ends[-1]) - 1, int(ends[-1])))
    times, rows = np.append(events.block_times, last), np.append(0, ends)
    return np.rint(np.interp(edges, times, rows, right=float(ends[-1]))).astype(np.int64)


def _has_blocks(events: Any) -> bool:
    """Whether events are on file, with counts of their blocks."""
    return len(getattr(events, "block_ends", ())) > 0


def pieces(events: Any, rows: slice, size: int = PIECE) -> Iterator[slice]:
    """Rows in pieces of about ``size``, of whole blocks where there are blocks."""
    start, stop = int(rows.start), int(rows.stop)
    ends = getattr(events, "block_ends", None)
    while start < stop:
        end = min(start + size, stop)
        if ends is not None and end < stop:
            place = int(np.searchsorted(ends, end, side="right")) - 1  # the last block that ends by then
            if place >= 0 and ends[place] > start:
                end = int(ends[place])
        yield slice(start, end)
        start = end


def nodes_of(events: Any, rows: slice) -> NDArray[np.unsignedinteger]:
    """Nodes of some rows, in a type that the core takes."""
    nodes = np.ascontiguousarray(events.nodes(rows))
    return nodes if nodes.dtype in (np.uint16, np.uint32, np.uint64) else nodes.astype(np.uint64)


def column(events: Any, rows: slice, value: ValueName) -> NDArray[np.floating]:
    """One of the columns of some rows.

    Raises
    ------
    LogError
        The events do not have it.
    """
    if value not in events.columns:
        what = f"its events have no {value.replace('_', ' ')}"
        raise LogError(f"population '{events.name}'", what, "gradients are written by a replay")
    read = events.values(rows) if value == "value" else events.gradients(rows, value)
    return np.ascontiguousarray(read)


def _even_rows(
    nodes: NDArray[np.unsignedinteger], first: int, last: int, n_rows: int
) -> NDArray[np.unsignedinteger]:
    """Row of each event, one past the last for those of other nodes."""
    node = nodes.astype(np.uint64)
    row = (node - np.uint64(first)) * np.uint64(n_rows) // np.uint64(last - first)
    row[(node < first) | (node >= last)] = n_rows
    return row


def _estimate(
    events: Any,
    bounds: NDArray[np.int64],
    first: int,
    last: int,
    places: NDArray[np.int32] | None,
    n_rows: int,
) -> NDArray[np.uint32]:
    """Counts of cells, (n_columns, n_rows), from those of blocks and groups of nodes.

    Within a block events are taken to be spread evenly in time; within a group as over the whole file.  Each
    column has as many events in all as in truth, and rounding loses none along a row.
    """
    # From the block in which the window begins to the one in which it ends.
    ends = np.asarray(events.block_ends, np.int64)
    begin = int(np.searchsorted(ends, bounds[0], side="right"))
    end = min(int(np.searchsorted(ends, bounds[-1], side="left")) + 1, len(ends))
    if begin >= end:
        return np.zeros((len(bounds) - 1, n_rows), np.uint32)
    grouped = np.asarray(events.block_counts[begin:end], np.float64)
    starts = np.append(0, ends)[begin : end + 1]
    total = np.zeros((len(grouped) + 1, grouped.shape[1]))
    np.cumsum(grouped, axis=0, out=total[1:])
    # Events of each group before each edge, by the part of the block's rows that are before it.
    block = np.clip(np.searchsorted(starts, bounds, side="right") - 1, 0, len(grouped) - 1)
    part = (bounds - starts[block]) / np.maximum(np.diff(starts)[block], 1)
    before = total[block] + part[:, None] * grouped[block]
    shares = _shares(events, grouped.shape[1], first, last, places, n_rows)
    whole = np.rint(np.cumsum(np.diff(before, axis=0) @ shares, axis=0))
    return np.diff(whole, axis=0, prepend=0.0).astype(np.uint32)


def _shares(
    events: Any, n_groups: int, first: int, last: int, places: NDArray[np.int32] | None, n_rows: int
) -> NDArray[np.float64]:
    """What part of the events of each group of nodes is in each row, (n_groups, n_rows)."""
    sent = np.asarray(events.unit_events, np.float64).ravel()
    group = np.arange(len(sent)) // int(events.group_size)
    of_group = np.bincount(group, sent, minlength=n_groups)
    node = np.arange(first, last)
    row = (node - first) * n_rows // (last - first) if places is None else places
    shown = row >= 0
    node, row = node[shown], row[shown]
    weight = sent[node] / np.maximum(of_group[group[node]], 1.0)
    shares = np.bincount(group[node] * n_rows + row, weight, minlength=n_groups * n_rows)
    return np.asarray(shares.reshape(n_groups, n_rows))


def _edges(
    events: Any, start: float | None, stop: float | None, n_columns: int, edges: ArrayLike | None
) -> NDArray[np.float64]:
    """The columns of a picture."""
    if edges is not None:
        cuts = np.array(edges, np.float64)
    else:
        if n_columns < 1:
            raise LogError("density", f"has {n_columns} columns", "give at least one")
        start = events.start if start is None else start
        stop = events.stop if stop is None else stop
        cuts = np.linspace(start, stop, n_columns + 1)
    if cuts.ndim != 1 or len(cuts) < 2 or not np.isfinite(cuts).all() or (np.diff(cuts) < 0).any():
        raise LogError("density", f"has the edges {cuts}", "give at least two finite times that increase")
    return cuts


def _nodes(events: Any, nodes: tuple[int, int] | None) -> tuple[int, int]:
    n_nodes = events.n_lanes * events.n_units
    first, last = (0, n_nodes) if nodes is None else (int(nodes[0]), int(nodes[1]))
    if not 0 <= first < last <= n_nodes:
        problem = f"has no nodes {first} to {last}"
        raise LogError(f"population '{events.name}'", problem, f"it has 0 to {n_nodes}")
    return first, last


def _places(
    first: int, last: int, n_rows: int | None, row_of: ArrayLike | None
) -> tuple[NDArray[np.int32] | None, int, NDArray[np.int64]]:
    """The row of each node from ``first`` on, the number of rows, and how many nodes each stands for.

    None in place of the first if there are more than `MOST_PLACES` nodes, in even rows.
    """
    span = last - first
    if row_of is not None:
        places = np.ascontiguousarray(row_of, np.int32)
        n_rows = int(places.max(initial=0)) + 1 if n_rows is None else n_rows
        if places.shape != (span,) or places.max(initial=0) >= n_rows:
            problem = f"rows of shape {places.shape} up to {places.max(initial=0)}"
            raise LogError("density", problem, f"give a row below {n_rows} for each of {span} nodes")
        return places, n_rows, np.bincount(places[places >= 0], minlength=n_rows)
    if n_rows is None:
        per_row = -(-span // 450)
        places = (np.arange(span) // per_row).astype(np.int32)
        return places, -(-span // per_row), np.bincount(places)
    n_rows = min(n_rows, span)
    if n_rows < 1:
        raise LogError("density", f"has {n_rows} rows", "give at least one")
    if span > MOST_PLACES:
        begins = -(-np.arange(n_rows + 1) * span // n_rows)
        return None, n_rows, np.diff(begins)
    places = (np.arange(span) * n_rows // span).astype(np.int32)
    return places, n_rows, np.bincount(places, minlength=n_rows)
