"""Which lanes and units of a population a picture shows, and where it shows them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evsim.errors import LogError
from evsim.events import Events


class Selection:
    """The lanes and units of a picture, and where each is drawn.

    Parameters
    ----------
    events : Events
    lanes : int, sequence of int, "all" or None
        None is lane 0.
    units : slice, sequence of int or None
        None is all of them.

    Attributes
    ----------
    lanes, units : ndarray of int64
        What is shown, bottom to top.
    step, row, value : ndarray, shape (n_events_shown,)
        Row: ``position of the lane * len(units) + position of the unit``.

    Raises
    ------
    LogError
        A lane or unit that does not exist, or is named twice.
    """

    def __init__(self, events: Events, lanes: Any = None, units: Any = None):
        self.lanes = _choose(0 if lanes is None else lanes, events.n_lanes, "lane")
        self.units = _choose("all" if units is None else units, events.n_units, "unit")
        lane_row = _rows_of(self.lanes, events.n_lanes)[events.lane]
        unit_row = _rows_of(self.units, events.n_units)[events.unit]
        shown = (lane_row >= 0) & (unit_row >= 0)
        self.step, self.value = events.step[shown], events.value[shown]
        self.row = lane_row[shown] * len(self.units) + unit_row[shown]
        self.n_rows, self.n_steps = len(self.lanes) * len(self.units), events.n_steps

    @property
    def first_row(self) -> int:
        """Number of the lowest row: the unit itself when consecutive units of one lane are shown, else 0."""
        return int(self.units[0]) if self.is_consecutive and len(self.lanes) == 1 else 0

    @property
    def is_consecutive(self) -> bool:
        """Whether the units shown follow each other."""
        return bool((np.diff(self.units) == 1).all())

    def density(self, most: tuple[int, int]) -> tuple[NDArray[np.float64], int, int]:
        """Active units in percent of each cell, and how many steps and rows a cell covers.

        Cells cover whole steps and whole rows, so few of them that there are at most ``most`` = (over steps,
        over rows); the array has shape (cells over rows, cells over steps).
        """
        per_step, per_row = max(-(-self.n_steps // most[0]), 1), max(-(-self.n_rows // most[1]), 1)
        shape = max(-(-self.n_rows // per_row), 1), max(-(-self.n_steps // per_step), 1)
        cell = (self.row // per_row) * shape[1] + self.step // per_step
        count = np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape)
        # The last cells may cover less.
        steps = np.minimum(per_step, self.n_steps - per_step * np.arange(shape[1]))
        rows = np.minimum(per_row, self.n_rows - per_row * np.arange(shape[0]))
        return 100.0 * count / np.maximum(np.outer(rows, steps), 1), per_step, per_row


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
