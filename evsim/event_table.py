"""Events of one population as plain columns: what is handed to other tools, and cut out of files.

`evsim.interchange` says what each tool is given.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from evsim.errors import LogError, StimulusError
from evsim.events import Events
from evsim.interchange import (
    from_neo,
    from_pandas,
    from_pynapple,
    structured,
    to_neo,
    to_nwb,
    to_pandas,
    to_pynapple,
)
from evsim.timed_events import TimedEvents

#: What a selection of units may be: a range, or numbers in increasing order.
Units = slice | Iterable[int]
#: By how many steps a time may be off the step it is meant for, as 0.3 / 0.1 is off 3.
STEP_ROUNDING = 1e-6


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
    units, lanes : ndarray of int32, or None
        Those that the table was narrowed to, in increasing order; None: all.  A unit of these without events
        was silent, and of any other one nothing is known.
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
    units: NDArray[np.int32] | None = None
    lanes: NDArray[np.int32] | None = None

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
        chosen: dict[str, Any] = {name: column[rows] for name, column in self.columns.items()}
        return replace(self, **chosen)

    def select(
        self, units: Units | None = None, lanes: int | Iterable[int] | Literal["all"] | None = None
    ) -> EventTable:
        """The events of some units and lanes; None, and "all" lanes, are all of them.

        Raises
        ------
        LogError
            Units or lanes that there are not.
        """
        where, table = f"population '{self.name}'", self
        if units is not None:
            mask = _mask(where, "unit", units, self.n_units) & _among(self.units, self.n_units)
            table = table._narrow(mask[table.unit], units=np.flatnonzero(mask).astype(np.int32))
        if lanes is not None and not (isinstance(lanes, str) and lanes == "all"):
            wanted = [lanes] if isinstance(lanes, (int, np.integer)) else lanes
            mask = _mask(where, "lane", wanted, self.n_lanes) & _among(self.lanes, self.n_lanes)
            table = table._narrow(mask[table.lane], lanes=np.flatnonzero(mask).astype(np.int32))
        return table

    def _narrow(self, keep: NDArray[np.bool_], **to: Any) -> EventTable:
        return replace(self if keep.all() else self.where(keep), **to)

    # -- to other tools ----------------------------------------------------------------------------------

    def to_numpy(self) -> NDArray:
        """A structured array: one record for each event, with the columns as fields."""
        return structured(self)

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with a row for each event."""
        return to_pandas(self)

    def to_neo(self) -> list[Any]:
        """A list of `neo.SpikeTrain`, one for each lane and unit, payloads as array annotations."""
        return to_neo(self)

    def to_pynapple(self) -> Any:
        """A `pynapple.TsGroup` with a `Tsd` of payloads for each lane and unit; times in seconds."""
        return to_pynapple(self)

    def to_nwb(self) -> Any:
        """A `pynwb.misc.Units`; `evsim.interchange.to_nwb` makes one of several populations."""
        return to_nwb([self])

    # -- from other tools --------------------------------------------------------------------------------

    @classmethod
    def from_columns(
        cls,
        time: ArrayLike,
        unit: ArrayLike,
        lane: ArrayLike = 0,
        value: ArrayLike = 1.0,
        *,
        gradient: ArrayLike | None = None,
        time_gradient: ArrayLike | None = None,
        name: str = "events",
        n_units: int | None = None,
        n_lanes: int | None = None,
        start: float | None = None,
        stop: float | None = None,
    ) -> EventTable:
        """Events in any order.

        Parameters
        ----------
        time : array, shape (n_events,)
            ms.
        unit, lane : array of integers, shape (n_events,), or one for all
        value, gradient, time_gradient : array, shape (n_events,), or one for all
            float32 stays float32, all else becomes float64.
        n_units, n_lanes : int, optional
            By default as many as the largest number needs.
        start, stop : float, optional
            The window in ms.  By default from 0, or the first event if that is earlier, to right behind the
            last event.

        Raises
        ------
        LogError
            Columns of different lengths, numbers that are not finite, events outside the window, units or
            lanes that are no numbers from 0 up.
        """
        where = f"events '{name}'"
        times = _floats(where, "time", time, None).astype(np.float64)
        n_events = len(times)
        units, n_units = _numbers(where, "unit", unit, n_events, n_units)
        lanes, n_lanes = _numbers(where, "lane", lane, n_events, n_lanes)
        first, last = (times.min(), times.max()) if n_events else (0.0, 0.0)
        start = min(0.0, float(first)) if start is None else float(start)
        if stop is None:
            stop = float(np.nextafter(last, np.inf)) if n_events else start
        if not (np.isfinite([start, stop]).all() and start <= stop):
            raise LogError(where, f"the window is from {start} to {stop} ms", "give start <= stop")
        if n_events and not start <= first <= last < stop:
            problem = f"times go from {first} to {last} ms, the window from {start} to {stop} ms"
            raise LogError(where, problem, "give start <= time < stop")
        given = {"value": value, "gradient": gradient, "time_gradient": time_gradient}
        carried = {what: _floats(where, what, x, n_events) for what, x in given.items() if x is not None}
        if "time_gradient" in carried:
            carried["time_gradient"] = carried["time_gradient"].astype(np.float64)
        table = cls(name, n_units, n_lanes, start, float(stop), times, lanes, units, **carried)
        node = table.node
        grouped = bool((np.diff(node) >= 0).all())  # as trains one after the other are
        later, tied = np.diff(times) > 0, np.diff(times) == 0
        if not (later | (tied & (grouped | (np.diff(node) >= 0)))).all():
            # A stable sort by time leaves senders in order, and takes little for runs that are sorted.
            table = table.where(np.argsort(times, kind="stable") if grouped else np.lexsort((node, times)))
        return table

    @classmethod
    def from_pandas(cls, frame: Any, **options: Any) -> EventTable:
        """Events of a DataFrame with columns time (ms) and unit, and perhaps lane and value.

        Options are the keywords of `from_columns`; what `to_pandas` was given is remembered.
        """
        return cls.from_columns(**(from_pandas(frame) | options))

    @classmethod
    def from_neo(cls, trains: Iterable[Any], **options: Any) -> EventTable:
        """Events of `neo.SpikeTrain`s, such as ``segment.spiketrains``.

        A train's annotations ``lane`` and ``unit`` say whose it is; one that has none is of lane 0, and of
        the unit with its place in the list.  Payloads are those of the array annotation ``value``, if all
        trains have it, else 1.  The window goes from the first ``t_start`` to the last ``t_stop``, or right
        behind an event at that end.  Options are the keywords of `from_columns`.
        """
        return cls.from_columns(**(_open_end(from_neo(trains)) | options))

    @classmethod
    def from_pynapple(cls, group: Any, **options: Any) -> EventTable:
        """Events of a `pynapple.TsGroup`; payloads are the values of its `Tsd`, 1 for `Ts`.

        Metadata ``lane`` and ``unit`` say whose a series is, as annotations do in `from_neo`; the window is
        that of the time support.
        """
        return cls.from_columns(**(_open_end(from_pynapple(group)) | options))

    # -- as input of a network ---------------------------------------------------------------------------

    def to_timed_events(self, start: float | None = None) -> TimedEvents:
        """Events for a run in continuous time; a payload of 0 is no event.

        Parameters
        ----------
        start : float, optional
            Where the window is to start, in ms; the events move with it.  By default they stay.

        Raises
        ------
        StimulusError
            A window that starts before 0, numbers that are not finite, or two events of a unit at one time.
        """
        shift = 0.0 if start is None else start - self.start
        time, stop = self.time + shift, self.stop + shift
        if len(time) and time[-1] >= stop:  # rounding
            stop = float(np.nextafter(time[-1], np.inf))
        return TimedEvents.from_list(
            time,
            self.lane,
            self.unit,
            self.value,
            n_units=self.n_units,
            n_lanes=self.n_lanes,
            start=self.start + shift,
            stop=stop,
            where=f"events '{self.name}'",
        )

    def to_events(self, dt: float, dtype: DTypeLike = np.float32) -> Events:
        """Events for a run in steps of ``dt`` ms, the first of which starts with the window.

        An event belongs to the step in which it happens.  Payloads of a unit with several events in one step
        are added.

        Raises
        ------
        StimulusError
            A step that is not positive, or payloads that are not finite.
        """
        where = f"events '{self.name}'"
        if not (np.isfinite(dt) and dt > 0):
            raise StimulusError(where, f"dt = {dt} ms", "give a positive number")
        n_steps = int(np.ceil((self.stop - self.start) / dt - STEP_ROUNDING))
        step = np.floor((self.time - self.start) / dt + STEP_ROUNDING).astype(np.int64)
        np.minimum(step, max(n_steps - 1, 0), out=step)
        n_steps = max(n_steps, 1) if len(self) else n_steps
        senders = self.n_lanes * self.n_units
        key, place = np.unique(step * senders + self.node, return_inverse=True)
        value = np.bincount(place, self.value, len(key))
        step, node = np.divmod(key, max(senders, 1))
        lane, unit = np.divmod(node, max(self.n_units, 1))
        return Events.from_list(
            step,
            lane,
            unit,
            value,
            n_units=self.n_units,
            n_lanes=self.n_lanes,
            n_steps=n_steps,
            dtype=dtype,
            where=where,
        )


def _open_end(found: dict[str, Any]) -> dict[str, Any]:
    """Their windows hold their ends, ours do not: an event there moves the end by a bit."""
    if len(found["time"]) and found["time"].max() >= found["stop"]:
        found["stop"] = float(np.nextafter(found["time"].max(), np.inf))
    return found


def _floats(where: str, what: str, given: ArrayLike, length: int | None) -> NDArray:
    """A column of finite floats."""
    try:
        column = np.asarray(given)
        if column.dtype != np.float32:
            column = column.astype(np.float64)
    except (TypeError, ValueError):
        raise LogError(where, f"{what}s are not numbers", "give floats") from None
    column = _column(where, what, column, length)
    if not np.isfinite(column).all():
        row = int(np.flatnonzero(~np.isfinite(column))[0])
        raise LogError(where, f"event {row} has {what} {column[row]}", f"give finite {what}s")
    return column


def _numbers(
    where: str, what: str, given: ArrayLike, length: int, limit: int | None
) -> tuple[NDArray[np.int32], int]:
    """A column of numbers from 0 up, and how many of them there are."""
    column = np.asarray(given)
    if column.size == 0:  # an empty list has no dtype worth speaking of
        column = column.astype(np.int32)
    if column.dtype.kind not in "iu":
        raise LogError(where, f"{what}s are of dtype {column.dtype}", "give integers")
    column = _column(where, what, column, length)
    largest = int(column.max(initial=0))
    limit = largest + 1 if limit is None else int(limit)
    if not 0 < limit < 2**31 or largest >= limit or column.min(initial=0) < 0:
        wrong = int(column.min(initial=0)) if column.min(initial=0) < 0 else largest
        raise LogError(where, f"there is {what} {wrong} of {limit}", f"{what}s are 0 to n_{what}s - 1")
    return column.astype(np.int32), limit


def _column(where: str, what: str, column: NDArray, length: int | None) -> NDArray:
    if column.ndim == 0 and length is not None:
        return np.full(length, column)
    if column.ndim != 1 or (length is not None and len(column) != length):
        raise LogError(where, f"{what}s have shape {column.shape}", f"give {length or 'n'} in one dimension")
    return column


def _among(chosen: NDArray | None, limit: int) -> NDArray[np.bool_]:
    """Which of ``limit`` numbers are chosen."""
    mask = np.full(limit, chosen is None)
    if chosen is not None:
        mask[chosen] = True
    return mask


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
