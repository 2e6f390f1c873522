"""Events of one population as plain columns: what is handed to other tools, and cut out of files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evsim.errors import LogError

#: What a selection of units may be: a range, or numbers in increasing order.
Units = slice | Iterable[int]


@dataclass(frozen=True, eq=False)
class EventTable:
    """Columns of the events that a population sent in a window of time, in order of time.

    Attributes
    ----------
    name : str
        Of the population.
    n_units, n_lanes : int
        Of the population, whichever of them are in the table.
    start, stop : float
        The window in ms: ``start <= time < stop``.
    time : ndarray of float64, shape (n_events,)
        In ms from the start of the simulation.
    lane, unit : ndarray of int32, shape (n_events,)
    value : ndarray of float32 or float64, shape (n_events,)
        The payload; dimensionless.
    gradient : ndarray of float32 or float64, shape (n_events,), or None
        dL/d(payload), where a replay has written it beside the events.
    time_gradient : ndarray of float64, shape (n_events,), or None
        dL/d(time) in 1/ms, likewise, of a run in continuous time.
    """

    name: str
    n_units: int
    n_lanes: int
    start: float
    stop: float
    time: NDArray[np.float64]
    lane: NDArray[np.int32]
    unit: NDArray[np.int32]
    value: NDArray
    gradient: NDArray | None = None
    time_gradient: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.time)

    def __repr__(self) -> str:
        window = f"{self.start:g} to {self.stop:g} ms"
        return f"EventTable('{self.name}', {len(self)} events, {window})"

    @property
    def node(self) -> NDArray[np.int64]:
        """``lane * n_units + unit`` of every event: who it is in a SONATA file."""
        return self.lane.astype(np.int64) * self.n_units + self.unit

    @property
    def columns(self) -> dict[str, NDArray]:
        """time, lane, unit, value, and the gradients that there are."""
        names = ("time", "lane", "unit", "value", "gradient", "time_gradient")
        return {name: column for name in names if (column := getattr(self, name)) is not None}

    def where(self, rows: slice | NDArray) -> EventTable:
        """The same table with some of its rows."""
        chosen = {name: column[rows] for name, column in self.columns.items()}
        return EventTable(self.name, self.n_units, self.n_lanes, self.start, self.stop, **chosen)

    def select(
        self, units: Units | None = None, lanes: int | Iterable[int] | Literal["all"] | None = None
    ) -> EventTable:
        """The events of some units and lanes; None, and "all" lanes, are all of them.

        Raises
        ------
        LogError
            Units or lanes that there are not.
        """
        where = f"population '{self.name}'"
        keep = np.ones(len(self), bool)
        if units is not None:
            keep &= _mask(where, "unit", units, self.n_units)[self.unit]
        if lanes is not None and not (isinstance(lanes, str) and lanes == "all"):
            wanted = [lanes] if isinstance(lanes, (int, np.integer)) else lanes
            keep &= _mask(where, "lane", wanted, self.n_lanes)[self.lane]
        return self if keep.all() else self.where(keep)


def _mask(where: str, what: str, wanted: slice | Iterable[int], limit: int) -> NDArray[np.bool_]:
    """Which of ``limit`` numbers are wanted."""
    mask = np.zeros(limit, bool)
    if isinstance(wanted, slice):
        mask[wanted] = True
        return mask
    numbers = np.asarray(list(wanted))
    if numbers.size == 0:
        return mask
    if numbers.dtype.kind not in "iu" or numbers.ndim != 1:
        raise LogError(where, f"{what}s of dtype {numbers.dtype}", "give integers")
    wrong = numbers[(numbers < 0) | (numbers >= limit)]
    if wrong.size:
        raise LogError(where, f"has no {what} {wrong[0]}", f"{what}s are 0 to {limit - 1}")
    mask[numbers] = True
    return mask
