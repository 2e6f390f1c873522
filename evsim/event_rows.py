"""Events in memory, of whatever kind, read by rows like those of a file."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evsim.core import counting
from evsim.errors import LogError
from evsim.event_table import EventTable
from evsim.events import Events
from evsim.timed_events import TimedEvents


class EventRows:
    """What pictures and statistics ask of a population's events; `FilePopulation` answers the same.

    Parameters
    ----------
    events : Events, TimedEvents or EventTable
    dt : float, optional
        Length of a step in ms, of `Events`; an `EventTable` with a dt is taken to be of a run in steps.
    start_step : int
        Step at which the window of `Events` starts.
    gradients : ndarray of float, shape (n_events,)
        Further columns, by name.

    Attributes
    ----------
    name : str
    n_units, n_lanes, n_events : int
    dt : float or None
        None in continuous time.
    start, stop : float
        The window in ms.
    start_step, n_steps : int
        The window in steps; 0 in continuous time.
    row_ptr : ndarray of int64, shape (n_steps + 1,), or None
        Rows of step s are ``row_ptr[s]:row_ptr[s + 1]``.
    columns : tuple of str
    """

    def __init__(
        self,
        events: Events | TimedEvents | EventTable,
        dt: float | None = None,
        start_step: int = 0,
        name: str = "events",
        **gradients: NDArray,
    ):
        self.name = getattr(events, "name", name)
        self.n_units, self.n_lanes, self.n_events = events.n_units, events.n_lanes, len(events)
        self.dt: float | None = None
        self.start_step = self.n_steps = 0
        self.row_ptr: NDArray[np.int64] | None = None
        if isinstance(events, Events):
            if dt is None:
                raise LogError("raster", f"no dt for {events!r}", "give the length of a step in ms")
            self._in_steps(dt, start_step, np.ascontiguousarray(events.ptr[:: max(events.n_lanes, 1)]))
        else:
            self.start, self.stop, self._time = events.start, events.stop, events.time
        if isinstance(events, EventTable):
            given = {"gradient": events.gradient, "time_gradient": events.time_gradient}
            gradients = {key: column for key, column in given.items() if column is not None}
            if dt is not None:
                first, last = first_step(np.array([events.start, events.stop]), dt)
                edges = (first + np.arange(last - first + 1) - 0.5) * dt
                self._in_steps(dt, int(first), np.searchsorted(events.time, edges).astype(np.int64))
        self._lane, self._unit, self._value = events.lane, events.unit, events.value
        self._gradients = gradients
        self.columns = ("time", "lane", "unit", "value", *gradients)

    def _in_steps(self, dt: float, start_step: int, row_ptr: NDArray[np.int64]) -> None:
        self.dt, self.start_step, self.n_steps, self.row_ptr = dt, start_step, len(row_ptr) - 1, row_ptr
        self.start, self.stop = start_step * dt, (start_step + self.n_steps) * dt

    @property
    def unit_events(self) -> NDArray[np.int64]:
        """Events of each unit, shape (n_lanes, n_units)."""
        counts = np.zeros(self.n_lanes * self.n_units, np.int64)
        counting.count_nodes(self.nodes(slice(None)), counts)
        return counts.reshape(self.n_lanes, self.n_units)

    def times(self, rows: slice) -> NDArray[np.float64]:
        """Time of each row in ms."""
        if self.row_ptr is None or self.dt is None:
            return self._time[rows]
        return steps_of(self.row_ptr, rows, self.start_step) * np.float64(self.dt)

    def nodes(self, rows: slice) -> NDArray[np.unsignedinteger]:
        """``lane * n_units + unit`` of each row."""
        if self.n_lanes == 1:
            return self._unit[rows].astype(np.uint32)
        nodes = self._lane[rows].astype(np.uint64)
        nodes *= np.uint64(self.n_units)
        nodes += self._unit[rows].astype(np.uint64)
        return nodes

    def values(self, rows: slice) -> NDArray:
        """Payload of each row."""
        return self._value[rows]

    def gradients(self, rows: slice, name: str = "gradient") -> NDArray:
        """Another column of each row."""
        return self._gradients[name][rows]


def as_rows(events: Any, dt: float | None = None, start_step: int = 0) -> Any:
    """Events of any kind, a population of a log, or one of a file, to be read by rows."""
    sends = getattr(events, "sends", getattr(events, "events", events) is not None)
    if not sends:
        what = f"a {events.kind} sends no events"
        raise LogError(f"population '{events.name}'", what, "look at its state")
    if hasattr(events, "nodes"):
        return events
    if hasattr(events, "events"):  # a population of a log in memory
        known = {name: getattr(events, name, None) for name in ("gradient", "time_gradient")}
        gradients = {name: column for name, column in known.items() if column is not None}
        clock = getattr(events, "dt", None), getattr(events, "start_step", 0)
        return EventRows(events.events, *clock, name=events.name, **gradients)
    return EventRows(events, dt, start_step)


def steps_of(row_ptr: NDArray[np.int64], rows: slice, start_step: int = 0) -> NDArray[np.int64]:
    """Step of each of some rows."""
    first, last = (int(k) for k in np.searchsorted(row_ptr, [rows.start, rows.stop], "right") - 1)
    last = max(min(last, len(row_ptr) - 2), first)
    ends = np.clip(row_ptr[first : last + 2], rows.start, rows.stop)
    return np.repeat(np.arange(first, first + len(ends) - 1) + start_step, ends[1:] - ends[:-1])


def first_step(times: NDArray[np.float64], dt: float) -> NDArray[np.int64]:
    """The first step at or after each time in ms; a time that is a step but for rounding is that step."""
    exact = np.asarray(times, np.float64) / dt
    near = np.rint(exact)
    is_step = np.abs(exact - near) <= 1e-9 * np.maximum(np.abs(exact), 1.0)
    return np.asarray(np.where(is_step, near, np.ceil(exact)), np.int64)
