"""Which lanes and units of a population a picture shows, and where it shows them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.errors import LogError
from evsim.events import Events
from evsim.timed_events import TimedEvents


class Rows:
    """The lanes and units of a picture, and the row in which each event is drawn.

    Parameters
    ----------
    events : Events or TimedEvents
    lanes : int, sequence of int, "all" or None
        None is lane 0.
    units : slice, sequence of int or None
        None is all of them.

    Attributes
    ----------
    lanes, units : ndarray of int64
        What is shown, bottom to top.
    shown : ndarray of bool, shape (n_events,)
        Which events are.
    row, value : ndarray, shape (n_events_shown,)
        Row: ``position of the lane * len(units) + position of the unit``.
    n_rows : int

    Raises
    ------
    LogError
        A lane or unit that does not exist, or is named twice.
    """

    def __init__(self, events: Events | TimedEvents, lanes: Any = None, units: Any = None):
        self.lanes = _choose(0 if lanes is None else lanes, events.n_lanes, "lane")
        self.units = _choose("all" if units is None else units, events.n_units, "unit")
        lane_row = _rows_of(self.lanes, events.n_lanes)[events.lane]
        unit_row = _rows_of(self.units, events.n_units)[events.unit]
        self.shown = (lane_row >= 0) & (unit_row >= 0)
        self.value = events.value[self.shown]
        self.row = lane_row[self.shown] * len(self.units) + unit_row[self.shown]
        self.n_rows = len(self.lanes) * len(self.units)

    def __len__(self) -> int:
        return len(self.row)

    @property
    def first_row(self) -> int:
        """Number of the lowest row: the unit itself when consecutive units of one lane are shown, else 0."""
        return int(self.units[0]) if self.is_consecutive and len(self.lanes) == 1 else 0

    @property
    def is_consecutive(self) -> bool:
        """Whether the units shown follow each other."""
        return bool((np.diff(self.units) == 1).all())

    def _count(
        self, column: NDArray[np.int64], n_columns: int, most_rows: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
        """Events in each cell of whole rows, (row cells, n_columns), rows of each cell, and of most."""
        per_row = max(-(-self.n_rows // most_rows), 1)
        shape = max(-(-self.n_rows // per_row), 1), n_columns
        cell = (self.row // per_row) * n_columns + column
        count = np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape)
        # The last cells may cover less.
        return count, np.minimum(per_row, self.n_rows - per_row * np.arange(shape[0])), per_row


class Selection(Rows):
    """What a picture of clocked events shows, and where.

    Parameters
    ----------
    events : Events
    lanes, units
        See `Rows`.
    dt : float
        Length of a step in ms.
    start_step : int
        Step at which the window starts.

    Attributes
    ----------
    step : ndarray of int64, shape (n_events_shown,)
    n_steps, start_step : int
    left, right : float
        The window in ms.
    mark : float
        What an event covers of the axis of time, in ms.
    """

    density_label = "active [%]"

    def __init__(
        self, events: Events, lanes: Any = None, units: Any = None, dt: float = 1.0, start_step: int = 0
    ):
        super().__init__(events, lanes, units)
        self.step, self.n_steps = events.step[self.shown], events.n_steps
        self.start_step, self.mark = start_step, dt
        self.left, self.right = start_step * dt, (start_step + max(events.n_steps, 1)) * dt

    @property
    def time(self) -> NDArray[np.float64]:
        """Where events are drawn, in ms: the middle of their step."""
        return np.asarray(self.left + (self.step + 0.5) * self.mark, np.float64)

    def density(self, most: tuple[int, int]) -> tuple[NDArray[np.float64], int, int]:
        """Active units in percent of each cell, and how many steps and rows a cell covers.

        Cells cover whole steps and whole rows, so few of them that there are at most ``most`` = (over steps,
        over rows); the array has shape (cells over rows, cells over steps).
        """
        per_step = max(-(-self.n_steps // most[0]), 1)
        n_columns = max(-(-self.n_steps // per_step), 1)
        count, rows, per_row = self._count(self.step // per_step, n_columns, most[1])
        steps = np.minimum(per_step, self.n_steps - per_step * np.arange(n_columns))
        return 100.0 * count / np.maximum(np.outer(rows, steps), 1), per_step, per_row

    def cells(self, most: tuple[int, int]) -> tuple[NDArray[np.float64], float, int]:
        """`density`, with the ms and rows that a cell covers."""
        percent, per_step, per_row = self.density(most)
        return percent, per_step * self.mark, per_row

    def about(self, lengths: ArrayLike | None) -> str:
        """Alpha of what is shown, lanes being of those ``lengths`` in steps."""
        ends = np.full(self.lanes.max() + 1, self.n_steps) if lengths is None else np.asarray(lengths)
        unit_steps = len(self.units) * int(ends[self.lanes].sum())
        return f"α = {100 * len(self) / max(unit_steps, 1):.3g} %"  # noqa: RUF001


class TimedSelection(Rows):
    """What a picture of events in continuous time shows, and where.

    Attributes
    ----------
    time : ndarray of float64, shape (n_events_shown,)
        In ms.
    left, right : float
        The window in ms.
    mark : float
        0: an event has no extent in time.
    """

    density_label = "rate [Hz]"
    mark = 0.0

    def __init__(self, events: TimedEvents, lanes: Any = None, units: Any = None):
        super().__init__(events, lanes, units)
        self.time = events.time[self.shown]
        self.left, self.right = events.start, events.stop

    @property
    def rate(self) -> float:
        """Events per unit, lane and second."""
        seconds = 1e-3 * (self.right - self.left) * self.n_rows
        return len(self) / seconds if seconds > 0 else 0.0

    def bins(self, n_bins: int) -> NDArray[np.int64]:
        """Which of equal parts of the window each event is in."""
        place = (self.time - self.left) * (n_bins / max(self.right - self.left, 1e-300))
        return np.minimum(place.astype(np.int64), n_bins - 1)

    def cells(self, most: tuple[int, int]) -> tuple[NDArray[np.float64], float, int]:
        """Events per unit and second (Hz) in each cell, and the ms and rows that a cell covers.

        The array has shape (cells over rows, most[0]), with at most ``most[1]`` cells over rows.
        """
        width = max(self.right - self.left, 1e-300) / most[0]
        count, rows, per_row = self._count(self.bins(most[0]), most[0], most[1])
        return count / (1e-3 * width * rows[:, None]), width, per_row

    def rates(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Events per unit and second (Hz) in bins of a round width, and the edges of the bins in ms.

        There are so few bins that most hold some events, were these spread evenly; none in a window too
        short to be divided.
        """
        span = self.right - self.left
        if span < 1e4 * np.spacing(self.right):
            return np.zeros(0), np.array([self.left])
        width = _round_up(span / min(max(len(self) / 5, 30), 400))
        edges = np.append(np.arange(self.left, self.right - 1e-6 * width, width), self.right)
        count = np.bincount(np.searchsorted(edges, self.time, "right") - 1, minlength=len(edges) - 1)
        return count / (1e-3 * np.diff(edges) * self.n_rows), edges

    def about(self, lengths: ArrayLike | None) -> str:
        """Mean rate of what is shown."""
        return f"{self.rate:.3g} Hz"


def select(
    events: Events | TimedEvents,
    lanes: Any = None,
    units: Any = None,
    dt: float | None = None,
    start_step: int = 0,
) -> Selection | TimedSelection:
    """A selection of either kind; clocked events need ``dt``, the length of a step in ms."""
    if isinstance(events, TimedEvents):
        return TimedSelection(events, lanes, units)
    if dt is None:
        raise LogError("raster", f"no dt for {events!r}", "give the length of a step in ms")
    return Selection(events, lanes, units, dt, start_step)


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


def _rows_of(chosen: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Position of each index among the chosen ones, -1 for the others."""
    row = np.full(count, -1)
    row[chosen] = np.arange(len(chosen))
    return row
