"""Events of one population in continuous time: who sent what, in which lane, and when to the last bit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.core.dense import as_indices, first_beyond, increasing
from evsim.errors import StimulusError

#: Columns and their types, in the order of the rows.
COLUMNS = {"time": np.float64, "lane": np.int32, "unit": np.int32, "value": np.float64}


@dataclass(frozen=True, eq=False)
class TimedEvents:
    """Events of one population over a window of time, sorted by (time, lane, unit).

    The window is [start, stop): an event at its end belongs to the next window.  A zero is no event: every
    value is non-zero and finite, and a unit sends at most one event at one instant of a lane.

    Attributes
    ----------
    n_units, n_lanes : int
    start, stop : float
        The window in ms, ``0 <= start <= stop``.
    time : ndarray of float64, shape (n_events,)
        In ms from the start of the simulation.
    lane, unit : ndarray of int32, shape (n_events,)
    value : ndarray of float64, shape (n_events,)
        The payload; dimensionless.
    """

    n_units: int
    n_lanes: int
    start: float
    stop: float
    time: NDArray[np.float64]
    lane: NDArray[np.int32]
    unit: NDArray[np.int32]
    value: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.time)

    def __repr__(self) -> str:
        window = f"{self.start:g} to {self.stop:g} ms"
        return f"TimedEvents({len(self)} of {self.n_units} units x {self.n_lanes} lanes, {window})"

    # -- construction ------------------------------------------------------------------------------------

    @classmethod
    def empty(cls, n_units: int, n_lanes: int, start: float, stop: float) -> TimedEvents:
        """No events at all."""
        return cls(n_units, n_lanes, start, stop, *(np.zeros(0, dtype) for dtype in COLUMNS.values()))

    @classmethod
    def from_list(
        cls,
        time: ArrayLike,
        lane: ArrayLike,
        unit: ArrayLike,
        value: ArrayLike,
        *,
        n_units: int,
        n_lanes: int,
        start: float,
        stop: float,
        where: str = "events",
    ) -> TimedEvents:
        """Events given one by one, in any order.

        Parameters
        ----------
        time : array, shape (n_events,)
            In ms, ``start <= time < stop``.
        lane, unit : array of integers, shape (n_events,)
        value : array, shape (n_events,)
            Zeros are dropped.
        where : str
            What errors are about.

        Raises
        ------
        StimulusError
            Times outside the window, indices out of range, numbers that are not finite, or two events of one
            unit and lane at one time.
        """
        start, stop = _window(where, start, stop)
        times, values = _floats(where, "time", time), _floats(where, "value", value)
        lanes, units = _indices(where, "lane", lane, n_lanes), _indices(where, "unit", unit, n_units)
        for name, column in (("time", times), ("lane", lanes), ("unit", units)):
            if column.size != values.size:
                raise StimulusError(
                    where, f"{column.size} {name}s for {values.size} values", "give equal lengths"
                )
        if increasing(times, values, start, stop):  # as most often
            return cls(n_units, n_lanes, start, stop, times.copy(), lanes, units, values.copy())
        outside = (times < start) | (times >= stop)
        if outside.any():
            first = int(outside.argmax())
            raise StimulusError(
                where,
                f"event {first} is at {float(times[first])!r} ms",
                f"times lie in [{start!r}, {stop!r})",
            )
        sent = values != 0
        columns: list[NDArray] = [times + 0.0, lanes, units, values]  # -0 becomes 0
        columns = [column.copy() if sent.all() else column[sent] for column in columns]
        made = cls(n_units, n_lanes, start, stop, *columns)
        in_order = made._in_order()
        if not in_order.all():
            # By time alone is many times faster, and enough unless two are equal.
            order = np.argsort(made.time)
            if (np.diff(made.time[order]) == 0).any():
                order = np.lexsort((made.unit, made.lane, made.time))
            made = cls(n_units, n_lanes, start, stop, *(column[order] for column in columns))
            in_order = made._in_order()
        if not in_order.all():
            wrong = np.flatnonzero(~in_order)
            when, lane_, unit_, _ = made._row(int(wrong[0]))
            raise StimulusError(
                where, f"two events of unit {unit_} at {when!r} ms, lane {lane_}", "sum or drop one"
            )
        return made

    def check(self, where: str = "events") -> None:
        """Raise StimulusError unless all is as the head of this class says; `from_list` guarantees it."""
        _window(where, self.start, self.stop)
        for name, dtype in COLUMNS.items():
            column = getattr(self, name)
            if column.dtype != dtype or column.shape != self.time.shape or column.ndim != 1:
                raise StimulusError(
                    where,
                    f"{name}s have dtype {column.dtype} and shape {column.shape}",
                    "make events with TimedEvents.from_list",
                )
        right = np.isfinite(self.value) & (self.value != 0) & (self.time >= self.start)
        right &= self.time < self.stop
        for column, limit in ((self.lane, self.n_lanes), (self.unit, self.n_units)):
            right &= (column >= 0) & (column < limit)
        if not right.all():
            time, lane, unit, value = self._row(int(np.flatnonzero(~right)[0]))
            raise StimulusError(
                where,
                f"an event of unit {unit}, lane {lane} at {time!r} ms with value {value!r}",
                f"units lie in 0..{self.n_units - 1}, lanes in 0..{self.n_lanes - 1}, "
                f"times in [{self.start!r}, {self.stop!r}), values are finite and not zero",
            )
        disorder = np.flatnonzero(~self._in_order())
        if disorder.size:
            first, second = (self._row(int(disorder[0]) + k)[:3] for k in (0, 1))
            raise StimulusError(
                where,
                f"event (time, lane, unit) = {second} comes after {first}",
                "rows increase, without repeats; TimedEvents.from_list sorts",
            )

    # -- views -------------------------------------------------------------------------------------------

    @property
    def duration(self) -> float:
        """Length of the window in ms."""
        return self.stop - self.start

    @property
    def rate(self) -> float:
        """Events per unit, lane and second (Hz)."""
        seconds = 1e-3 * self.duration * self.n_units * self.n_lanes
        return len(self) / seconds if seconds > 0 else 0.0

    def window(self, start: float, stop: float) -> TimedEvents:
        """The events of [start, stop) within this window, at the same times; no columns are copied."""
        if not self.start <= start <= stop <= self.stop:
            raise StimulusError(
                "events",
                f"there is no window [{start!r}, {stop!r}) in {self!r}",
                f"{self.start!r} <= start <= stop <= {self.stop!r}",
            )
        rows = slice(*np.searchsorted(self.time, (start, stop)))
        columns = (getattr(self, name)[rows] for name in COLUMNS)
        return TimedEvents(self.n_units, self.n_lanes, start, stop, *columns)

    def __iter__(self) -> Iterator[tuple[float, int, int, float]]:
        """(time, lane, unit, value) of every event, in order."""
        return zip(*(getattr(self, name).tolist() for name in COLUMNS), strict=True)

    def equal(self, other: TimedEvents) -> bool:
        """Same window, same events, same bits."""
        return (self.n_units, self.n_lanes, self.start, self.stop) == (
            other.n_units,
            other.n_lanes,
            other.start,
            other.stop,
        ) and all(np.array_equal(getattr(self, name), getattr(other, name)) for name in COLUMNS)

    def _in_order(self) -> NDArray[np.bool_]:
        """Whether each row but the first comes after the one before it, shape (n_events - 1,)."""
        before, after = self.time[:-1], self.time[1:]
        lane, unit = np.diff(self.lane), np.diff(self.unit)
        return (after > before) | ((after == before) & ((lane > 0) | ((lane == 0) & (unit > 0))))

    def _row(self, k: int) -> tuple[float, int, int, float]:
        return float(self.time[k]), int(self.lane[k]), int(self.unit[k]), float(self.value[k])


def _window(where: str, start: float, stop: float) -> tuple[float, float]:
    if not (math.isfinite(start) and math.isfinite(stop) and 0 <= start <= stop):
        raise StimulusError(where, f"the window is from {start} to {stop} ms", "give 0 <= start <= stop")
    return float(start), float(stop)


def _floats(where: str, name: str, column: ArrayLike) -> NDArray[np.float64]:
    """A column as finite floats."""
    try:
        numbers = np.asarray(column, np.float64).ravel()
    except (TypeError, ValueError):
        raise StimulusError(where, f"{name}s are not numbers", "give floats") from None
    numbers = np.ascontiguousarray(numbers)
    wrong = first_beyond(numbers)
    if wrong >= 0:
        raise StimulusError(where, f"event {wrong} has {name} {numbers[wrong]}", f"give finite {name}s")
    return numbers


def _indices(where: str, name: str, column: ArrayLike, limit: int) -> NDArray[np.int32]:
    """A column as integers in ``0..limit - 1``."""
    numbers = np.asarray(column).ravel()
    if not numbers.size:  # an empty list has no dtype worth speaking of
        return np.zeros(0, np.int32)
    if numbers.dtype.kind not in "iu":
        raise StimulusError(where, f"{name}s are of dtype {numbers.dtype}", "give integers")
    signed = np.ascontiguousarray(numbers, np.int64)
    indices = as_indices(signed, limit)  # an unsigned integer may be larger than an int64 can be
    if indices is None or (numbers.dtype == np.uint64 and (signed < 0).any()):
        first = int(((numbers < 0) | (numbers >= limit)).argmax())
        raise StimulusError(
            where, f"event {first} has {name} {numbers[first]}", f"{name}s lie in 0..{limit - 1}"
        )
    return indices
