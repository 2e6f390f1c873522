"""Which lanes, units and time of a population a picture shows, and where it shows them.

Events in memory and on file are read in one way, by rows (`evsim.event_rows`): few become marks, many are
counted into cells, in one pass and in little memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.density import Density, Tally, ValueName, column, count, nodes_of, pieces, row_bounds
from evsim.errors import LogError
from evsim.event_rows import as_rows, first_step, steps_of

#: Bins of time of a trace at most.
MOST_BINS = 2**20


@dataclass(frozen=True, eq=False)
class Marks:
    """Events one by one.

    Attributes
    ----------
    time : ndarray of float64, shape (n_events,)
        Where events are drawn, in ms: those of a run in steps in the middle of their step.
    row : ndarray of int64, shape (n_events,)
    value : ndarray of float, shape (n_events,), or None
        What gives them their colour.
    """

    time: NDArray[np.float64]
    row: NDArray[np.int64]
    value: NDArray | None

    def __len__(self) -> int:
        return len(self.time)


class Picture:
    """Lanes, units and time that a picture shows, and the row in which each event is drawn.

    Parameters
    ----------
    events : see `evsim.event_rows.as_rows`
    lanes : int, sequence of int, "all" or None
        None is lane 0.
    units : slice, sequence of int or None
        None is all of them.
    dt, start_step
        Clock of `Events`, which do not know it.
    start, stop : float or None
        Time in ms; by default all there is.

    Attributes
    ----------
    lanes, units : ndarray of int64
        What is shown, bottom to top.
    row_of : ndarray of int32, shape (n_lanes * n_units,)
        Row of each node, ``position of the lane * len(units) + position of the unit``, or -1.
    n_rows : int
    left, right : float
        The window in ms.
    rows : slice
        Rows of the events in that window, of all nodes.
    mark : float
        What an event covers of the axis of time, in ms.

    Raises
    ------
    LogError
        A lane or unit that does not exist, or is named twice; a window without extent.
    """

    density_label: str
    mark = 0.0

    def __init__(
        self,
        events: Any,
        lanes: Any = None,
        units: Any = None,
        dt: float | None = None,
        start_step: int = 0,
        start: float | None = None,
        stop: float | None = None,
    ):
        self.events = events = as_rows(events, dt, start_step)
        self.lanes = _choose(0 if lanes is None else lanes, events.n_lanes, "lane")
        self.units = _choose("all" if units is None else units, events.n_units, "unit")
        self.n_rows = len(self.lanes) * len(self.units)
        table = np.full((events.n_lanes, events.n_units), -1, np.int32)
        table[np.ix_(self.lanes, self.units)] = np.arange(self.n_rows).reshape(len(self.lanes), -1)
        self.row_of = table.ravel()
        given = (events.start if start is None else start, events.stop if stop is None else stop)
        if start is not None or stop is not None:
            given = max(given[0], events.start), min(given[1], events.stop)
            if not given[0] < given[1]:
                problem = f"is asked for from {start} to {stop} ms"
                remedy = f"give start < stop within {events.start:g} to {events.stop:g}"
                raise LogError(f"population '{events.name}'", problem, remedy)
        self._set_window(*given)
        self._n: int | None = None
        self._marks: dict[str | None, Marks | None] = {}
        self._traced: NDArray[np.int64] | None = None

    def _set_window(self, start: float, stop: float) -> None:
        self.left, self.right = start, stop
        self.rows = slice(*row_bounds(self.events, np.array([start, stop])).tolist())

    def __len__(self) -> int:
        """Events that are shown; of a file, all of them may be read to know."""
        if self._n is None:
            n_rows = self.rows.stop - self.rows.start
            if (self.row_of >= 0).all():
                self._n = n_rows
            elif n_rows == self.events.n_events and hasattr(self.events, "unit_events"):
                self._n = int(self.events.unit_events.ravel()[self.row_of >= 0].sum())
            else:
                tally = self._tally(np.array([self.rows.start, self.rows.stop]))
                count(self.events, [tally])
                self._n = int(tally.counts.sum())
        return self._n

    @property
    def first_row(self) -> int:
        """Number of the lowest row: the unit itself when consecutive units of one lane are shown, else 0."""
        return int(self.units[0]) if self.is_consecutive and len(self.lanes) == 1 else 0

    @property
    def is_consecutive(self) -> bool:
        """Whether the units shown follow each other."""
        return bool((np.diff(self.units) == 1).all())

    def marks(self, most: int, value: ValueName | None = "value") -> Marks | None:
        """The events one by one, or None if there are more than ``most``."""
        if self._n is not None and self._n > most:
            return None
        if value not in self._marks:
            self._marks[value] = self._gather(most, value)
        return self._marks[value]

    def _gather(self, most: int, value: ValueName | None) -> Marks | None:
        if (self.row_of >= 0).all() and self.rows.stop - self.rows.start > most:
            return None
        times, shown, values, found = [np.zeros(0)], [np.zeros(0, np.int64)], [], 0
        for rows in pieces(self.events, self.rows):
            row = self.row_of[nodes_of(self.events, rows)]
            here = np.flatnonzero(row >= 0)
            found += len(here)
            if found > most:
                return None
            times.append(self._time(rows)[here])
            shown.append(row[here].astype(np.int64))
            if value is not None:
                values.append(column(self.events, rows, value)[here])
        self._n = found
        if value is None:
            coloured = None
        else:
            coloured = np.concatenate(values) if values else column(self.events, slice(0, 0), value)
        return Marks(np.concatenate(times), np.concatenate(shown), coloured)

    def _time(self, rows: slice) -> NDArray[np.float64]:
        """Where rows of events are drawn."""
        return self.events.times(rows)

    def _tally(
        self, bounds: NDArray[np.int64], per_row: int | None = None, value: ValueName | None = None
    ) -> Tally:
        """Cells of columns between these rows of events, and of so many rows of the picture; None is all."""
        per_row = max(self.n_rows, 1) if per_row is None else per_row
        places = np.where(self.row_of >= 0, self.row_of // per_row, -1).astype(np.int32)
        n_rows = max(-(-self.n_rows // per_row), 1)
        return Tally(bounds, n_rows, 0, len(self.row_of), places, value)

    def cells(self, most: tuple[int, int], value: ValueName | None = None) -> Density:
        """Events in cells, at most ``most`` = (over time, over rows) of them, each of equally many rows.

        Only the last row and column of cells may cover less.
        """
        per_row = max(-(-self.n_rows // most[1]), 1)
        edges, steps = self._columns(most[0])
        tally = self._tally(row_bounds(self.events, edges), per_row, value)
        self._read(tally)
        covered = np.minimum(per_row, self.n_rows - per_row * np.arange(tally.counts.shape[1]))
        sums = None if tally.sums is None else tally.sums.T
        return Density(tally.counts.T, edges, True, covered, steps, sums)

    def counts(self) -> NDArray[np.int64]:
        """Events that are shown in each bin of the trace."""
        if self._traced is None:
            self._read()
        assert self._traced is not None
        return self._traced

    def _read(self, *tallies: Tally) -> None:
        """Count into cells, and into the bins of the trace on the way."""
        bounds = self._trace_bounds()
        if (self.row_of >= 0).all():
            self._traced = np.diff(bounds)
            count(self.events, list(tallies))
        else:
            trace = self._tally(bounds)
            count(self.events, [*tallies, trace])
            self._traced = trace.counts[:, 0].astype(np.int64)
        self._n = int(self._traced.sum())

    def _columns(self, most: int) -> tuple[NDArray[np.float64], NDArray[np.int64] | None]:
        """Edges of the columns of cells in ms, and how many steps each covers."""
        raise NotImplementedError

    def _trace_bounds(self) -> NDArray[np.int64]:
        """Rows of events between which the bins of the trace lie."""
        raise NotImplementedError


class Selection(Picture):
    """What a picture of a run in steps shows.

    Attributes
    ----------
    start_step, n_steps : int
        The window in steps.
    """

    density_label = "active units [%]"

    def _set_window(self, start: float, stop: float) -> None:
        events = self.events
        steps = np.clip(first_step(np.array([start, stop]), events.dt) - events.start_step, 0, events.n_steps)
        first, last = steps.tolist()
        self.start_step, self.n_steps, self.mark = events.start_step + first, last - first, events.dt
        self.left = self.start_step * self.mark
        self.right = (self.start_step + max(self.n_steps, 1)) * self.mark
        self._ptr: NDArray[np.int64] = events.row_ptr[first : last + 1]
        self.rows = slice(int(self._ptr[0]), int(self._ptr[-1]))

    def _time(self, rows: slice) -> NDArray[np.float64]:
        step = steps_of(self._ptr, rows, self.start_step)
        return np.asarray((step + 0.5) * self.mark, np.float64)

    def _columns(self, most: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        per_step = max(-(-self.n_steps // most), 1)
        cuts = np.append(np.arange(0, max(self.n_steps, 1), per_step), max(self.n_steps, 1))
        return (self.start_step + cuts) * self.mark, np.diff(cuts)

    @property
    def steps_of_bin(self) -> int:
        """Steps of each bin of the trace: one, unless there are very many."""
        return max(-(-self.n_steps // MOST_BINS), 1)

    def _trace_bounds(self) -> NDArray[np.int64]:
        cuts = np.append(np.arange(0, self.n_steps, self.steps_of_bin), self.n_steps)
        return np.ascontiguousarray(self._ptr[cuts])

    def lengths(self, given: ArrayLike | None) -> NDArray[np.int64]:
        """Steps of each lane shown that lie in the window; by default all, or what the file says."""
        ends = getattr(self.events, "lengths", None) if given is None else given
        if ends is None:
            return np.full(len(self.lanes), self.n_steps)
        before = self.start_step - self.events.start_step
        return np.clip(np.asarray(ends, np.int64)[self.lanes] - before, 0, self.n_steps)

    def activity(self, lengths: ArrayLike | None = None) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Units that send in each bin, in percent of those whose lane has not ended, and these.

        Percentages are NaN where there are none; the latter are summed over the steps of a bin.
        """
        cuts = np.append(np.arange(0, self.n_steps, self.steps_of_bin), self.n_steps)
        ends = np.sort(self.lengths(lengths))
        # Lane-steps before each cut: all of the lanes that have ended, and so many of each that has not.
        ended = np.searchsorted(ends, cuts, side="right")
        before = np.append(0, np.cumsum(ends))[ended] + (len(ends) - ended) * cuts
        present = np.diff(before) * len(self.units)
        percent = np.full(len(present), np.nan)
        np.divide(100.0 * self.counts(), present, out=percent, where=present > 0)
        return percent, present

    def about(self, lengths: ArrayLike | None) -> str:
        """Alpha of what is shown, lanes being of those ``lengths`` in steps."""
        unit_steps = len(self.units) * int(self.lengths(lengths).sum())
        return f"α = {100 * len(self) / max(unit_steps, 1):.3g} %"  # noqa: RUF001

    def density(self, cells: Density) -> NDArray[np.float64]:
        """What colours a cell."""
        return cells.active


class TimedSelection(Picture):
    """What a picture of a run in continuous time shows; an event has no extent in time."""

    density_label = "rate [Hz]"

    @property
    def rate(self) -> float:
        """Events per unit, lane and second."""
        seconds = 1e-3 * (self.right - self.left) * self.n_rows
        return len(self) / seconds if seconds > 0 else 0.0

    def _columns(self, most: int) -> tuple[NDArray[np.float64], None]:
        return np.linspace(self.left, self.right, most + 1), None

    def _trace_bounds(self) -> NDArray[np.int64]:
        return row_bounds(self.events, self._trace_edges())

    def _trace_edges(self) -> NDArray[np.float64]:
        """Bins of a round width, so few that most hold some events, were these spread evenly.

        There are none in a window too short to be divided.
        """
        span = self.right - self.left
        if span < 1e4 * np.spacing(self.right):
            return np.array([self.left])
        if self._bin is None:
            # To count those of a file it would have to be read once more; where that matters there are many.
            n = self.rows.stop - self.rows.start if hasattr(self.events, "block_ends") else len(self)
            self._bin = _round_up(span / min(max(n / 5, 30), 400))
        width = self._bin
        return np.append(np.arange(self.left, self.right - 1e-6 * width, width), self.right)

    _bin: float | None = None

    def rates(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Events per unit and second (Hz) in bins of time, and the edges of the bins in ms."""
        edges = self._trace_edges()
        return self.counts() / (1e-3 * np.diff(edges) * self.n_rows), edges

    def about(self, lengths: ArrayLike | None) -> str:
        """Mean rate of what is shown."""
        return f"{self.rate:.3g} Hz"

    def density(self, cells: Density) -> NDArray[np.float64]:
        """What colours a cell."""
        return cells.rate


def select(
    events: Any,
    lanes: Any = None,
    units: Any = None,
    dt: float | None = None,
    start_step: int = 0,
    start: float | None = None,
    stop: float | None = None,
) -> Selection | TimedSelection:
    """A selection of either kind, for what `as_rows` takes."""
    events = as_rows(events, dt, start_step)
    kind = TimedSelection if events.dt is None else Selection
    return kind(events, lanes, units, start=start, stop=stop)


def _round_up(width: float) -> float:
    """The next number of the form 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(width))
    return next(factor * power for factor in (1, 2, 5, 10, 20) if factor * power >= width * (1 - 1e-9))


def _choose(wanted: Any, count: int, what: str) -> NDArray[np.int64]:
    """Indices below ``count`` from a number, a slice, a sequence or "all"."""
    if isinstance(wanted, str) and wanted == "all":
        return np.arange(count)
    if isinstance(wanted, slice):
        chosen = np.arange(count)[wanted]
    else:
        try:
            chosen = np.atleast_1d(np.asarray(wanted))
        except ValueError:  # a ragged list
            chosen = np.zeros(0, np.int64)
    if not chosen.size or chosen.ndim != 1 or chosen.dtype.kind not in "iu":
        raise LogError("raster", f"{what}s are {wanted!r}", f"give whole numbers in 0..{count - 1}")
    wrong = chosen[(chosen < 0) | (chosen >= count)]
    if wrong.size or len(set(chosen.tolist())) < len(chosen):
        problem = f"there is no {what} {wrong[0]}" if wrong.size else f"{what}s {wanted!r} repeat"
        raise LogError("raster", problem, f"give different {what}s in 0..{count - 1}")
    return chosen.astype(np.int64)
