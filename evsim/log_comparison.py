"""Two records of one run: are the events the same, and how far apart are their times, payloads and states?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evsim.errors import LogError

if TYPE_CHECKING:
    from evsim.continuous_log import ContinuousLog
    from evsim.eventlog import EventLog


@dataclass(frozen=True)
class EventDifference:
    """The first event for which the other log has none at its time.

    Attributes
    ----------
    lane, unit : int
    time, other_time : float or None
        In ms, of this event in the first log and in the second; None if there is none.
    value, other_value : float or None
        Their payloads.
    """

    lane: int
    unit: int
    time: float | None
    other_time: float | None
    value: float | None
    other_value: float | None

    def when(self) -> float:
        """The earlier of the two times."""
        return min(time for time in (self.time, self.other_time) if time is not None)

    def __str__(self) -> str:
        who = f"unit {self.unit}, lane {self.lane}"
        if self.time is None or self.other_time is None:
            alone = ("first", self.time, self.value), ("second", self.other_time, self.other_value)
            which, time, value = alone[self.time is None]
            return f"{who}: only the {which} has an event at {time:.12g} ms ({value:.6g})"
        mine, theirs = f"{self.time:.12g}", f"{self.other_time:.12g}"
        return f"{who}: events at {mine} and {theirs} ms, {abs(self.other_time - self.time):.3g} ms apart"


@dataclass(frozen=True)
class EventMatch:
    """The events of one population in two logs, one to one.

    Attributes
    ----------
    n_events : (int, int)
        In the first log and in the second.
    n_unequal : int
        Pairs further apart than the tolerance, and events without a partner.
    first : EventDifference or None
        The earliest of these.
    time_error : float
        Largest difference of times in ms, of units that sent equally many events in both.
    value_error : float
        Largest |difference| of payloads of the pairs within the tolerance.
    """

    n_events: tuple[int, int]
    n_unequal: int
    first: EventDifference | None
    time_error: float
    value_error: float


@dataclass(frozen=True)
class PopulationMatch:
    """One population in two logs; entries that mean nothing for it are None.

    Attributes
    ----------
    name : str
    n_units : int
    n_events, n_unequal, first, time_error, value_error
        See `EventMatch`.
    state_error : float or None
        Largest |difference| of the states that both logs hold.
    """

    name: str
    n_units: int
    n_events: tuple[int | None, int | None]
    n_unequal: int | None
    first: EventDifference | None
    time_error: float | None
    value_error: float | None
    state_error: float | None

    def ok(self, tolerance: float) -> bool:
        """Whether all events have a partner, and payloads and states agree within ``tolerance``."""
        errors = (self.value_error, self.state_error)
        return self.first is None and all(error is None or error <= tolerance for error in errors)


@dataclass(frozen=True)
class LogComparison:
    """What `compare_logs` found, by population."""

    populations: dict[str, PopulationMatch]

    def ok(self, tolerance: float = 1e-9) -> bool:
        """Whether all populations agree; see `PopulationMatch.ok`."""
        return all(population.ok(tolerance) for population in self.populations.values())

    def first_differences(self) -> Iterator[str]:
        """A line for each population whose events differ."""
        for population in self.populations.values():
            if population.first is not None:
                yield f"{population.name}: {population.first}"


def match_events(first: Any, second: Any, tolerance: float = 1e-9) -> EventMatch:
    """Hold the k-th event of each unit and lane against the k-th in the other record.

    Parameters
    ----------
    first, second : TimedEvents, PopulationLog or ContinuousPopulationLog
        Anything with ``n_units`` and the columns ``time`` (ms, sorted), ``lane``, ``unit`` and ``value``.
    tolerance : float
        Largest difference of times in ms of two events that count as the same.
    """
    mine, theirs = _ByUnit(first), _ByUnit(second)
    paired, other_paired = mine.has_partner(theirs), theirs.has_partner(mine)
    here, there = mine.order[paired], theirs.order[other_paired]  # both by lane, unit and time
    apart = np.abs(first.time[here] - second.time[there])
    near = apart <= tolerance
    equally_many = np.equal(*_padded(mine.count, theirs.count))
    values = np.abs(first.value[here] - second.value[there])[near]
    alone, other_alone = mine.order[~paired], theirs.order[~other_paired]
    differences = [_earliest(first, second, here[~near], there[~near])]
    differences += [_earliest(first, None, alone, alone), _earliest(None, second, other_alone, other_alone)]
    return EventMatch(
        n_events=(len(first.time), len(second.time)),
        n_unequal=int((~near).sum()) + len(alone) + len(other_alone),
        first=min((d for d in differences if d is not None), key=EventDifference.when, default=None),
        time_error=float(apart[equally_many[mine.group[paired]]].max(initial=0.0)),
        value_error=float(values.max(initial=0.0)),
    )


class _ByUnit:
    """Events in the order (lane, unit, time).

    Attributes
    ----------
    order : ndarray of int64, shape (n_events,)
        Rows in that order.
    group, rank : ndarray of int64, shape (n_events,)
        In that order: lane and unit as one number, and how many events of that unit come before.
    count : ndarray of int64
        Events of each group.
    """

    def __init__(self, events: Any):
        group = np.asarray(events.lane, np.int64) * events.n_units + events.unit
        self.order = np.argsort(group, kind="stable")
        self.group, self.count = group[self.order], np.bincount(group)
        self.rank = np.arange(len(group)) - np.searchsorted(self.group, self.group)

    def has_partner(self, other: _ByUnit) -> NDArray[np.bool_]:
        """Whether the same unit has sent as many events in the other record."""
        _, count = _padded(self.count, other.count)
        return self.rank < count[self.group]


def _padded(first: NDArray, second: NDArray) -> tuple[NDArray, NDArray]:
    """Both with zeros behind, so that they are equally long."""
    size = max(len(first), len(second))
    return np.pad(first, (0, size - len(first))), np.pad(second, (0, size - len(second)))


def _earliest(first: Any, second: Any, here: NDArray, there: NDArray) -> EventDifference | None:
    """The earliest of the differences between rows of two records, one of which may be missing."""
    if not len(here):
        return None
    times = [events.time[rows] for events, rows in ((first, here), (second, there)) if events is not None]
    k = int(np.argmin(np.minimum.reduce(times)))
    events, row = (second, there[k]) if first is None else (first, here[k])
    return EventDifference(
        lane=int(events.lane[row]),
        unit=int(events.unit[row]),
        time=None if first is None else float(first.time[here[k]]),
        other_time=None if second is None else float(second.time[there[k]]),
        value=None if first is None else float(first.value[here[k]]),
        other_value=None if second is None else float(second.value[there[k]]),
    )


def compare_logs(
    first: EventLog | ContinuousLog, second: EventLog | ContinuousLog, time_tolerance: float = 1e-9
) -> LogComparison:
    """Compare two records of a run, of either kind.

    Parameters
    ----------
    first, second : EventLog or ContinuousLog
    time_tolerance : float
        Largest difference of times in ms of two events that count as the same.

    Raises
    ------
    LogError
        They are not of the same populations, units, lanes and window.
    """
    sizes = [{name: log[name].n_units for name in log} for log in (first, second)]
    if sizes[0] != sizes[1]:
        raise _not_alike("units", *sizes)
    if first.n_lanes != second.n_lanes:
        raise _not_alike("lanes", first.n_lanes, second.n_lanes)
    windows = [_window(log) for log in (first, second)]
    if not np.allclose(windows[0], windows[1], rtol=1e-9, atol=1e-9):
        raise _not_alike("windows in ms", *windows)
    return LogComparison({name: _compare(first, second, name, time_tolerance) for name in first})


def _not_alike(what: str, mine: object, theirs: object) -> LogError:
    return LogError("comparison", f"the logs have {what} {mine} and {theirs}", "compare runs of one network")


def _window(log: EventLog | ContinuousLog) -> tuple[float, float]:
    """Start and length in ms."""
    return log.start if log.dt is None else log.start_step * log.dt, log.duration


def _compare(first: Any, second: Any, name: str, time_tolerance: float) -> PopulationMatch:
    mine, theirs = first[name], second[name]
    error = _state_error(first, second, name)
    if mine.events is None or theirs.events is None:
        if mine.events is not theirs.events:
            raise _not_alike(f"of '{name}' events", *(p.events is not None for p in (mine, theirs)))
        return PopulationMatch(name, mine.n_units, (None, None), None, None, None, None, error)
    match = match_events(mine, theirs, time_tolerance)
    return PopulationMatch(name, mine.n_units, **vars(match), state_error=error)


def _state_error(first: Any, second: Any, name: str) -> float | None:
    """Largest difference of states of one kind at the same times; None if there are none in both."""
    mine, theirs = first[name], second[name]
    if mine.state_name is None or mine.state_name != theirs.state_name or first.dt != second.dt:
        return None
    if mine.state.shape != theirs.state.shape:
        return None
    there = np.ones(mine.state.shape[:2], bool)
    if first.dt is not None:  # beyond the end of a lane states mean nothing
        there = np.arange(first.n_steps)[:, None] < np.minimum(first.lengths, second.lengths)
    elif not np.allclose(first.samples, second.samples, rtol=0, atol=1e-9):
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        return float(np.abs(mine.state[there] - theirs.state[there]).max(initial=0.0))
