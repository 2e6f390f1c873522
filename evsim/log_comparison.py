"""Two records of one run: are the events the same, and how far apart are their times, payloads and states?

Records in memory and on file are read in windows of time, so that their size does not matter; windows that
are the same in both cost little more than reading them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evsim.core.matching import VanRossum, match
from evsim.density import row_bounds
from evsim.errors import LogError
from evsim.event_rows import as_rows

if TYPE_CHECKING:
    from evsim.continuous_log import ContinuousLog
    from evsim.eventlog import EventLog
    from evsim.log_file import LogFile

#: Rows of each record held against each other at a time, states likewise, and rows that may await a partner.
PIECE = 2**20
MOST_PENDING = 2**25


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
    n_events : (int, int)
        In the first log and in the second.
    n_equal : int
        Pairs of events no further apart than the tolerance.
    n_moved : int
        Pairs further apart than that, of events that are the nearest to each other, within tau.
    n_alone : (int, int)
        Events without a partner, in the first log and in the second.
    first : EventDifference or None
        The earliest of those that are moved or alone.
    first_value : EventDifference or None
        The earliest equal pair whose payloads are further apart than their tolerance.
    time_error : float
        Largest difference of times within pairs, in ms.
    value_error : float
        Largest |difference| of payloads of equal pairs.
    distance, most_distant : float, (int, int, float)
        Van Rossum's distance of a unit (1 where one log has an event more), on average over units and lanes;
        lane, unit and distance of the one where it is largest.
    state_error : float or None
        Largest |difference| of the states that both logs hold.
    """

    name: str
    n_units: int
    n_events: tuple[int | None, int | None] = (None, None)
    n_equal: int | None = None
    n_moved: int | None = None
    n_alone: tuple[int, int] | None = None
    first: EventDifference | None = None
    first_value: EventDifference | None = None
    time_error: float | None = None
    value_error: float | None = None
    distance: float | None = None
    most_distant: tuple[int, int, float] | None = None
    state_error: float | None = None

    @property
    def n_unequal(self) -> int | None:
        """Pairs that moved, and events without a partner."""
        if self.n_moved is None or self.n_alone is None:
            return None
        return self.n_moved + sum(self.n_alone)

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
        """Lines for each population whose events differ, the earliest difference first."""
        found = []
        for population in self.populations.values():
            if population.first is not None:
                found.append((population.first.when(), f"{population.name}: {population.first}"))
            value = population.first_value
            if value is not None:
                who = f"unit {value.unit}, lane {value.lane}, at {value.time:.12g} ms"
                line = f"{population.name}: {who}: payloads {value.value!r} and {value.other_value!r}"
                found.append((value.when(), line))
        yield from (line for _, line in sorted(found))


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
    first: EventLog | ContinuousLog | LogFile,
    second: EventLog | ContinuousLog | LogFile,
    time_tolerance: float = 1e-9,
    *,
    value_tolerance: float = 1e-9,
    tau: float = 10.0,
    start: float | None = None,
    stop: float | None = None,
) -> LogComparison:
    """Compare two records of a run, of either kind, in memory or on file.

    Parameters
    ----------
    first, second : EventLog, ContinuousLog or LogFile
    time_tolerance : float
        Largest difference of times in ms of two events that count as the same.
    value_tolerance : float
        Largest |difference| of payloads that `PopulationMatch.first_value` lets pass.
    tau : float
        Time constant in ms of van Rossum's distance, and how far an event may have moved.
    start, stop : float, optional
        Window in ms; by default all, which must be the same in both.

    Raises
    ------
    LogError
        They are not of the same populations, units, lanes and window, or so different that more than
        `MOST_PENDING` events of ``tau`` would have to be held in memory.
    """
    sizes = [{name: log[name].n_units for name in log} for log in (first, second)]
    if sizes[0] != sizes[1]:
        raise _not_alike("units", sizes)
    if first.n_lanes != second.n_lanes:
        raise _not_alike("lanes", [first.n_lanes, second.n_lanes])
    if not (math.isfinite(tau) and tau > 0):
        raise LogError("comparison", f"tau is {tau} ms", "give a positive time")
    windows = [_window(log) for log in (first, second)]
    begin = max(window[0] for window in windows) if start is None else start
    end = min(sum(window) for window in windows) if stop is None else stop
    if not all(w[0] <= begin <= end <= sum(w) * (1 + 1e-9) + 1e-9 for w in windows) or (
        start is None and stop is None and not np.allclose(windows[0], windows[1], rtol=1e-9, atol=1e-9)
    ):
        raise _not_alike("windows in ms", windows, ", or a window that both have (start, stop)")
    whole = start is None and stop is None
    if whole:
        end = max(sum(window) for window in windows)
    settings = _Settings(time_tolerance, value_tolerance, tau, begin, end)
    return LogComparison({name: _compare(first, second, name, settings, whole) for name in first})


def _not_alike(what: str, found: Sequence[object], more: str = "") -> LogError:
    problem = f"the logs have {what} {found[0]} and {found[1]}"
    return LogError("comparison", problem, f"compare runs of one network{more}")


def _window(log: Any) -> tuple[float, float]:
    """Start and length in ms."""
    start = log.start if hasattr(log, "start") else log.start_step * log.dt
    return float(start), float(log.duration)


@dataclass(frozen=True)
class _Settings:
    """What is asked for; times in ms."""

    tolerance: float
    value_tolerance: float
    tau: float
    start: float
    stop: float


def _compare(first: Any, second: Any, name: str, settings: _Settings, whole: bool) -> PopulationMatch:
    mine, theirs = first[name], second[name]
    sends = [_sends(population) for population in (mine, theirs)]
    if sends[0] != sends[1]:
        raise _not_alike(f"of '{name}' events", sends)
    error = _state_error(first, second, name, settings, whole)
    if not sends[0]:
        return PopulationMatch(name, mine.n_units, state_error=error)
    matching = _Matching(as_rows(mine), as_rows(theirs), settings)
    return PopulationMatch(name, mine.n_units, state_error=error, **matching.facts())


def _sends(population: Any) -> bool:
    return bool(getattr(population, "sends", getattr(population, "events", None) is not None))


@dataclass
class _Rows:
    """Events of one record, in some order."""

    time: NDArray[np.float64]
    node: NDArray[np.int64]
    value: NDArray

    def __len__(self) -> int:
        return len(self.time)

    def where(self, chosen: NDArray) -> _Rows:
        return _Rows(self.time[chosen], self.node[chosen], self.value[chosen])

    def by_node(self, small: bool) -> _Rows:
        """Sorted by (node, time), if they are by time; of ``small`` nodes that takes far less time."""
        return self.where(np.argsort(self.node.astype(np.uint16) if small else self.node, kind="stable"))

    def then(self, later: _Rows) -> _Rows:
        pairs = ((getattr(self, name), getattr(later, name)) for name in ("time", "node", "value"))
        return _Rows(*(np.concatenate(pair) for pair in pairs))


@dataclass
class _Matching:
    """Pairs the events of one population in two records, window after window."""

    first: Any
    second: Any
    settings: _Settings
    n_equal: int = 0
    n_moved: int = 0
    n_alone: list[int] = field(default_factory=lambda: [0, 0])
    time_error: float = 0.0
    value_error: float = 0.0
    difference: EventDifference | None = None
    value_difference: EventDifference | None = None

    def facts(self) -> dict[str, Any]:
        """Read both, and say what was found."""
        records, settings = (self.first, self.second), self.settings
        n_nodes = self.first.n_units * self.first.n_lanes
        distance = VanRossum(n_nodes, settings.tau)
        pending = [_take(record, slice(0, 0)) for record in records]
        counts = [0, 0]
        for horizon, rows in _windows(records, settings):
            new = [_take(record, part) for record, part in zip(records, rows, strict=True)]
            counts = [n + len(part) for n, part in zip(counts, new, strict=True)]
            if not (len(pending[0]) or len(pending[1])) and _same(*new):
                # A partner may be within the tolerance too, but the one at the same time is the one.
                self._pair(*new)
                continue
            new = [part.by_node(n_nodes <= 65536) for part in new]
            distance.add(new[0].node, new[0].time, new[1].node, new[1].time)
            both = [
                old.then(part).by_node(n_nodes <= 65536) if len(old) else part
                for old, part in zip(pending, new, strict=True)
            ]
            pending = self._match(both[0], both[1], horizon)
        distances = distance.distances()
        far = int(np.argmax(distances))
        lane, unit = divmod(far, self.first.n_units)
        return {
            "n_events": tuple(counts),
            "n_equal": self.n_equal,
            "n_moved": self.n_moved,
            "n_alone": tuple(self.n_alone),
            "first": self.difference,
            "first_value": self.value_difference,
            "time_error": self.time_error,
            "value_error": self.value_error,
            "distance": float(distances.mean()),
            "most_distant": (lane, unit, float(distances[far])),
        }

    def _match(self, mine: _Rows, theirs: _Rows, horizon: float) -> list[_Rows]:
        """Pair what can be paired before the next window is known; the rest, which awaits it."""
        tolerance = self.settings.tolerance
        reach = max(self.settings.tau, tolerance)
        columns = (mine.node, mine.time, theirs.node, theirs.time)
        partner, other = match(*columns, tolerance, reach, horizon)
        here = np.flatnonzero(partner >= 0)
        there = partner[here]
        near = np.abs(mine.time[here] - theirs.time[there]) <= tolerance
        self._pair(mine.where(here[near]), theirs.where(there[near]))
        moved = mine.where(here[~near]), theirs.where(there[~near])
        self.n_moved += len(moved[0])
        if len(moved[0]):
            self.time_error = max(self.time_error, float(np.abs(moved[0].time - moved[1].time).max()))
        alone = mine.where(partner == -1), theirs.where(other == -1)
        self.n_alone = [n + len(part) for n, part in zip(self.n_alone, alone, strict=True)]
        for pair in (moved, (alone[0], None), (None, alone[1])):
            self.difference = self._earlier(self.difference, *pair)
        left = [mine.where(partner == -2), theirs.where(other == -2)]
        if max(len(part) for part in left) > MOST_PENDING:
            problem = (
                f"{max(len(part) for part in left)} events of '{self.first.name}' within tau of each other"
            )
            raise LogError("comparison", problem, "give a smaller tau, or a window (start, stop)")
        return left

    def _pair(self, mine: _Rows, theirs: _Rows) -> None:
        """Count pairs that are equal but for their payloads."""
        if not len(mine):
            return
        self.n_equal += len(mine)
        self.time_error = max(self.time_error, float(np.abs(mine.time - theirs.time).max()))
        apart = np.abs(mine.value - theirs.value)
        largest = float(apart.max())
        self.value_error = max(self.value_error, largest)
        if not largest <= self.settings.value_tolerance:
            far = np.flatnonzero(~(apart <= self.settings.value_tolerance))
            found = self.value_difference
            self.value_difference = self._earlier(found, mine.where(far), theirs.where(far))

    def _earlier(
        self, found: EventDifference | None, mine: _Rows | None, theirs: _Rows | None
    ) -> EventDifference | None:
        """The earliest of a difference and those between rows of two records, one of which may be missing."""
        rows = [part for part in (mine, theirs) if part is not None]
        if not len(rows[0]):
            return found
        k = int(np.argmin(np.minimum.reduce([part.time for part in rows])))
        lane, unit = divmod(int(rows[0].node[k]), self.first.n_units)
        made = EventDifference(
            lane=lane,
            unit=unit,
            time=None if mine is None else float(mine.time[k]),
            other_time=None if theirs is None else float(theirs.time[k]),
            value=None if mine is None else float(mine.value[k]),
            other_value=None if theirs is None else float(theirs.value[k]),
        )
        return made if found is None or made.when() < found.when() else found


def _take(record: Any, rows: slice) -> _Rows:
    """Some rows of a record."""
    times = np.ascontiguousarray(record.times(rows), np.float64)
    return _Rows(times, record.nodes(rows).astype(np.int64), np.asarray(record.values(rows)))


def _same(mine: _Rows, theirs: _Rows) -> bool:
    """Whether the same units send at the same times."""
    return np.array_equal(mine.node, theirs.node) and np.array_equal(mine.time, theirs.time)


def _windows(records: tuple[Any, Any], settings: _Settings) -> Iterator[tuple[float, list[slice]]]:
    """Ends of windows of time with about `PIECE` rows of one record and no more of the other; the rows."""
    edges = np.array([settings.start, settings.stop])
    bounds = [row_bounds(record, edges) for record in records]
    at, stop = ([int(bound[k]) for bound in bounds] for k in (0, 1))
    size = PIECE
    while at[0] < stop[0] or at[1] < stop[1]:
        ahead = [
            float(record.times(slice(a + size, a + size + 1))[0])
            for record, a, last in zip(records, at, stop, strict=True)
            if a + size < last
        ]
        horizon = min(ahead, default=math.inf)
        if horizon == math.inf:
            ends = list(stop)
        else:
            ends = [int(row_bounds(record, np.array([horizon]))[0]) for record in records]
        if ends == at:  # more events at one time than a window holds
            size *= 2
            continue
        yield horizon, [slice(a, end) for a, end in zip(at, ends, strict=True)]
        at, size = ends, PIECE


def _state_error(first: Any, second: Any, name: str, settings: _Settings, whole: bool) -> float | None:
    """Largest difference of states of one kind at the same times; None if there are none in both."""
    mine, theirs = first[name], second[name]
    if mine.state_name is None or mine.state_name != theirs.state_name or first.dt != second.dt:
        return None
    in_memory = not (callable(mine.state) and callable(theirs.state))
    reads = [_states(log, log[name], None if whole else settings, in_memory) for log in (first, second)]
    largest = 0.0
    for (times, states), (others, their_states) in zip(*reads, strict=False):
        if len(times) != len(others) or not np.allclose(times, others, rtol=0, atol=1e-9):
            return None
        there = np.ones(states.shape[:2], bool)
        if first.dt is not None:  # beyond the end of a lane states mean nothing
            step = np.rint(times / first.dt).astype(np.int64) - first.start_step
            there = step[:, None] < np.minimum(first.lengths, second.lengths)
        with np.errstate(invalid="ignore", over="ignore"):
            apart = np.abs(states[there] - their_states[there]).max(initial=0.0)
        largest = float(np.maximum(largest, apart))  # NaN stays
    return largest


def _states(
    log: Any, population: Any, settings: _Settings | None, in_memory: bool
) -> Iterator[tuple[NDArray[np.float64], NDArray]]:
    """Times and states of a population, in pieces; in one if one of the logs is in memory."""
    if not callable(population.state):
        times = log.samples if log.dt is None else (log.start_step + np.arange(log.n_steps)) * log.dt
        states = population.state
        if settings is not None:
            inside = (times >= settings.start - 1e-9) & (times < settings.stop - 1e-9)
            times, states = times[inside], states[inside]
        yield times, states
        return
    start, length = _window(log)
    stop = start + length
    if settings is not None:
        start, stop = settings.start, settings.stop
    n_samples = len(log.samples) if log.dt is None else log.n_steps
    size = n_samples * population.n_units * population.n_lanes
    n_pieces = 1 if in_memory else max(-(-size // (4 * PIECE)), 1)
    for begin, end in pairwise(np.linspace(start, stop, n_pieces + 1)):
        times, _, states = population.state(begin, end)
        yield times, states
