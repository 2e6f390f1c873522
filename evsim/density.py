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
from evsim.event_table import EventTable

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
    population : FilePopulation or EventTable
    start, stop : float
        The window in ms, cut into ``n_columns`` equal parts; by default all there is of an `EventTable`.
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
        Length of a step in ms, for `Density.steps`.
    edges : array of float64, shape (n_columns + 1,), optional
        The columns, in place of ``start``, ``stop`` and ``n_columns``.
    row_of : array of integers, shape (nodes[1] - nodes[0],), optional
        The row of each node, or -1 for those that are not in the picture, in place of even rows.

    Raises
    ------
    LogError
        Nodes, rows or columns that make no picture, or a column that the events do not have.
    """
    cuts = _edges(population, start, stop, n_columns, edges)
    first, last = _nodes(population, nodes)
    places, n_rows, covered = _places(first, last, n_rows, row_of)
    steps = None if dt is None else np.diff(first_step(cuts, dt))
    if exact is not True and value is None and has_blocks(population):
        near = _near_bounds(population, cuts)
        if exact is False or near[-1] - near[0] > MOST_ROWS:
            counts = _estimate(population, near, first, last, places, n_rows)
            return Density(np.ascontiguousarray(counts.T), cuts, False, covered, steps)
    bounds = row_bounds(population, cuts)
    most = int(np.diff(bounds).max())
    if most > np.iinfo(np.uint32).max:
        raise LogError("density", f"has a column of {most} events", "give more columns: a cell holds 2^32")
    counts = np.zeros((len(cuts) - 1, n_rows), np.uint32)
    sums = None if value is None else np.zeros(counts.shape)
    _count(population, bounds, first, last, places, counts, sums, value)
    turned = None if sums is None else np.ascontiguousarray(sums.T)
    return Density(np.ascontiguousarray(counts.T), cuts, True, covered, steps, turned)


def row_bounds(population: Any, edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many of a population's events are before each of these times in ms, which increase.

    Of a file in continuous time only the blocks are read in which one of the times lies.
    """
    if isinstance(population, EventTable):
        return np.searchsorted(population.time, edges).astype(np.int64)
    if _in_steps(population) or not has_blocks(population):
        return np.array([population.rows(None, float(edge)).stop for edge in edges], np.int64)
    ends = np.asarray(population.block_ends, np.int64)
    starts = np.append(0, ends)
    # A block that begins before a time and whose successor does not: the time lies within it, or at its end.
    block = np.searchsorted(population.block_times, edges) - 1
    bounds = np.zeros(len(edges), np.int64)
    for b in np.unique(block[block >= 0]):
        here = block == b
        times = population.times(slice(int(starts[b]), int(ends[b])))
        bounds[here] = starts[b] + np.searchsorted(times, edges[here])
    return bounds


def _near_bounds(population: Any, edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """`row_bounds`; of a file in continuous time as if events were spread evenly within a block."""
    if _in_steps(population):
        return row_bounds(population, edges)
    ends = np.asarray(population.block_ends, np.int64)
    last = population.times(slice(int(ends[-1]) - 1, int(ends[-1])))
    times, rows = np.append(population.block_times, last), np.append(0, ends)
    return np.rint(np.interp(edges, times, rows, right=float(ends[-1]))).astype(np.int64)


def _in_steps(population: Any) -> bool:
    return getattr(population, "row_ptr", None) is not None


def first_step(edges: NDArray[np.float64], dt: float) -> NDArray[np.int64]:
    """The first step of the simulation that begins at each of these times in ms or later."""
    step = np.ceil(edges / dt).astype(np.int64)
    # The quotient may be off by a rounding; what counts is step * dt, the time that events are given.
    step -= (step - 1) * dt >= edges
    return np.asarray(step + (step * dt < edges), np.int64)


def has_blocks(population: Any) -> bool:
    """Whether a population is on file with counts of its blocks."""
    return getattr(population, "block_counts", None) is not None and len(population.block_ends) > 0


def pieces(population: Any, rows: slice, size: int = PIECE) -> Iterator[slice]:
    """Rows in pieces of about ``size``, of whole blocks where there are blocks."""
    start, stop = int(rows.start), int(rows.stop)
    ends = getattr(population, "block_ends", None)
    while start < stop:
        end = min(start + size, stop)
        if ends is not None and end < stop:
            place = int(np.searchsorted(ends, end, side="right")) - 1  # the last block that ends by then
            if place >= 0 and ends[place] > start:
                end = int(ends[place])
        yield slice(start, end)
        start = end


def nodes_of(population: Any, rows: slice) -> NDArray[np.unsignedinteger]:
    """Nodes of some rows, in a type that the core takes."""
    if isinstance(population, EventTable):
        lane = population.lane[rows].astype(np.uint64)
        return lane * np.uint64(population.n_units) + population.unit[rows].astype(np.uint64)
    nodes = np.ascontiguousarray(population.nodes(rows))
    return nodes if nodes.dtype in (np.uint16, np.uint32, np.uint64) else nodes.astype(np.uint64)


def values_of(population: Any, rows: slice, value: ValueName) -> NDArray[np.floating]:
    """One of the columns of some rows."""
    if isinstance(population, EventTable):
        column = getattr(population, value)
        if column is not None:
            return np.ascontiguousarray(column[rows])
    elif value in population.columns:
        read = population.values(rows) if value == "value" else population.gradients(rows, value)
        return np.ascontiguousarray(read)
    what = "have no payload" if value == "value" else f"have no {value.replace('_', ' ')}"
    raise LogError(
        f"population '{population.name}'", f"its events {what}", "gradients are written by a replay"
    )


def _count(
    population: Any,
    bounds: NDArray[np.int64],
    first: int,
    last: int,
    places: NDArray[np.int32] | None,
    counts: NDArray[np.uint32],
    sums: NDArray[np.float64] | None,
    value: ValueName | None,
) -> None:
    """Add all events between the first and the last of ``bounds`` to the cells, (n_columns, n_rows)."""
    table = np.arange(counts.shape[1], dtype=np.int32) if places is None else places
    for rows in pieces(population, slice(bounds[0], bounds[-1])):
        nodes = nodes_of(population, rows)
        if places is None:
            nodes = _even_rows(nodes, first, last, counts.shape[1])
        # From the column in which the piece begins to that in which it ends.
        begin = int(np.searchsorted(bounds, rows.start, side="right")) - 1
        end = int(np.searchsorted(bounds, rows.stop, side="left"))
        ends = np.clip(bounds[begin + 1 : end + 1], rows.start, rows.stop) - rows.start
        base = 0 if places is None else first
        if sums is None or value is None:
            counting.count_cells(nodes, ends, base, table, counts[begin:end])
        else:
            values = values_of(population, rows, value)
            counting.sum_cells(nodes, values, ends, base, table, counts[begin:end], sums[begin:end])


def _even_rows(
    nodes: NDArray[np.unsignedinteger], first: int, last: int, n_rows: int
) -> NDArray[np.unsignedinteger]:
    """Row of each event, one past the last for those of other nodes."""
    node = nodes.astype(np.uint64)
    row = (node - np.uint64(first)) * np.uint64(n_rows) // np.uint64(last - first)
    row[(node < first) | (node >= last)] = n_rows
    return row


def _estimate(
    population: Any,
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
    ends = np.asarray(population.block_ends, np.int64)
    begin = int(np.searchsorted(ends, bounds[0], side="right"))
    end = min(int(np.searchsorted(ends, bounds[-1], side="left")) + 1, len(ends))
    grouped = np.asarray(population.block_counts[begin:end], np.float64)
    starts = np.append(0, ends)[begin : end + 1]
    total = np.zeros((len(grouped) + 1, grouped.shape[1]))
    np.cumsum(grouped, axis=0, out=total[1:])
    # Events of each group before each edge: interpolated over rows, whose number at each edge is known.
    block = np.clip(np.searchsorted(starts, bounds, side="right") - 1, 0, max(len(grouped) - 1, 0))
    if not len(grouped):
        return np.zeros((len(bounds) - 1, n_rows), np.uint32)
    part = (bounds - starts[block]) / np.maximum(np.diff(starts)[block], 1)
    before = total[block] + part[:, None] * grouped[block]
    cells = np.diff(before, axis=0) @ _shares(population, first, last, places, n_rows)
    whole = np.rint(np.cumsum(cells, axis=0))
    return np.diff(whole, axis=0, prepend=0.0).astype(np.uint32)


def _shares(
    population: Any, first: int, last: int, places: NDArray[np.int32] | None, n_rows: int
) -> NDArray[np.float64]:
    """What part of the events of each group of nodes is in each row, (n_groups, n_rows)."""
    per_group, n_groups = int(population.group_size), int(population.block_counts.shape[1])
    sent = np.asarray(population.unit_events, np.float64).ravel()
    group = np.arange(len(sent)) // per_group
    of_group = np.bincount(group, sent, minlength=n_groups)
    node = np.arange(first, last)
    row = (node - first) * n_rows // (last - first) if places is None else places
    shown = row >= 0
    node, row = node[shown], row[shown]
    weight = sent[node] / np.maximum(of_group[group[node]], 1.0)
    shares = np.bincount(group[node] * n_rows + row, weight, minlength=n_groups * n_rows)
    return np.asarray(shares.reshape(n_groups, n_rows))


def _edges(
    population: Any, start: float | None, stop: float | None, n_columns: int, edges: ArrayLike | None
) -> NDArray[np.float64]:
    """The columns of a picture."""
    if edges is not None:
        cuts = np.array(edges, np.float64)
    else:
        if isinstance(population, EventTable):
            start = population.start if start is None else start
            stop = population.stop if stop is None else stop
        if start is None or stop is None or n_columns < 1:
            problem = f"has {n_columns} columns from {start} to {stop} ms"
            raise LogError("density", problem, "give start, stop and at least one column")
        cuts = np.linspace(start, stop, n_columns + 1)
    if cuts.ndim != 1 or len(cuts) < 2 or not np.isfinite(cuts).all() or (np.diff(cuts) < 0).any():
        raise LogError("density", f"has the edges {cuts}", "give at least two finite times that increase")
    return cuts


def _nodes(population: Any, nodes: tuple[int, int] | None) -> tuple[int, int]:
    n_nodes = population.n_lanes * population.n_units
    first, last = (0, n_nodes) if nodes is None else (int(nodes[0]), int(nodes[1]))
    if not 0 <= first < last <= n_nodes:
        raise LogError(
            f"population '{population.name}'", f"has no nodes {first} to {last}", f"it has 0 to {n_nodes}"
        )
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
