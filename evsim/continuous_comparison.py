"""One network in continuous time, run by evsim and by Brian2 in steps: how far apart are the events?

A simulator that steps registers an event at the end of the step in which it happens, so its event times are
off by something in proportion to the step.  `Comparison` in `evsim.comparison` asks whether two runs are
equal; here the question is whether the difference vanishes as the step does: `Convergence`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evsim.errors import LogError
from evsim.timed_events import TimedEvents

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Differences of event times beyond this are worth telling where: in steps, and in ms between exact times.
FAR, FAR_EXACT = 20.0, 1e-6


@dataclass(frozen=True, eq=False)
class TimedRun:
    """What happened in a run of one lane in continuous time.

    Attributes
    ----------
    events : dict of TimedEvents
        By population; of those that send on their own.  Times in ms.
    states : dict of ndarray, shape (n_samples, n_units), float64
        EGRU c, LIF and readouts v, delta units h, at the samples.
    samples : ndarray of float64, shape (n_samples,)
        ms.
    duration : float
        ms, from 0.
    dt : float or None
        Step in ms; None for exact times.
    seconds, prepare_seconds : float
        Wall time of the run, and of what was compiled or generated before.
    version : str
        Who ran it.
    """

    events: dict[str, TimedEvents]
    states: dict[str, NDArray[np.float64]]
    samples: NDArray[np.float64]
    duration: float
    dt: float | None = None
    seconds: float = float("nan")
    prepare_seconds: float = 0.0
    version: str = "evsim"


@dataclass(frozen=True, eq=False)
class FirstDifference:
    """The first event that is far from its partner, or has none.

    Attributes
    ----------
    unit, number : int
        The event is the ``number``-th of this unit, counted from 0.
    time, peer_time : float or None
        When evsim and Brian2 have it, in ms; None for no such event.
    """

    unit: int
    number: int
    time: float | None
    peer_time: float | None

    @property
    def when(self) -> float:
        """The earlier of the two times."""
        return min(time for time in (self.time, self.peer_time) if time is not None)

    def __str__(self) -> str:
        sides = (("evsim", self.time), ("Brian2", self.peer_time))
        said = [f"{who} {'has none' if time is None else f'{time:.6g} ms'}" for who, time in sides]
        return f"event {self.number} of unit {self.unit}: {', '.join(said)}"


@dataclass(frozen=True, eq=False)
class PopulationDifference:
    """Both runs of one population; events are matched in order, the k-th of a unit with the k-th.

    Attributes
    ----------
    name : str
    n_events, n_peer_events : int or None
        None for populations that send none.
    errors : ndarray of float64, shape (n_matched,)
        Time of the event in Brian2, minus that in evsim, in ms.
    n_unmatched : int
        Events without a partner, but for those so near to the end that the partner may lie beyond it.
    first : FirstDifference or None
        None if every event has a partner nearby.
    value_error : float
        Largest |difference| of the values of matched events; 0 if there are none.
    state_error, mean_state_error : float or None
        Largest and mean |difference| of the states at the samples.  A sample between the two times of one
        event sees one state before its jump and the other after it: the largest need not become small.
    """

    name: str
    n_events: int | None
    n_peer_events: int | None
    errors: NDArray[np.float64] = field(repr=False)
    n_unmatched: int
    first: FirstDifference | None
    value_error: float
    state_error: float | None
    mean_state_error: float | None


@dataclass(frozen=True, eq=False)
class ContinuousComparison:
    """What `compare_timed` found, at one step of Brian2.

    Attributes
    ----------
    populations : dict of PopulationDifference
    run, peer : TimedRun
        evsim's side, and Brian2's.
    """

    populations: dict[str, PopulationDifference]
    run: TimedRun = field(repr=False)
    peer: TimedRun = field(repr=False)

    @property
    def dt(self) -> float:
        """Brian2's step in ms."""
        return float("nan") if self.peer.dt is None else self.peer.dt

    @property
    def errors(self) -> NDArray[np.float64]:
        """Differences of all matched event times in ms, shape (n_matched,)."""
        return np.concatenate([np.zeros(0), *(p.errors for p in self.populations.values())])

    @property
    def n_events(self) -> int:
        """Events of evsim."""
        return sum(p.n_events or 0 for p in self.populations.values())

    @property
    def n_peer_events(self) -> int:
        """Events of Brian2."""
        return sum(p.n_peer_events or 0 for p in self.populations.values())

    @property
    def n_unmatched(self) -> int:
        """Events without a partner."""
        return sum(p.n_unmatched for p in self.populations.values())

    @property
    def mean_error(self) -> float:
        """Mean |difference| of matched event times, in ms; nan without events."""
        errors = self.errors
        return float(np.abs(errors).mean()) if errors.size else float("nan")

    @property
    def max_error(self) -> float:
        """Largest |difference| of matched event times, in ms; nan without events."""
        errors = self.errors
        return float(np.abs(errors).max()) if errors.size else float("nan")

    @property
    def mean_state_error(self) -> float:
        """Mean |difference| of states at samples, over populations; nan without samples."""
        found = [p.mean_state_error for p in self.populations.values() if p.mean_state_error is not None]
        return float(np.mean(found)) if found else float("nan")

    @property
    def first(self) -> tuple[str, FirstDifference] | None:
        """Population and event of the first event that is far from its partner, or has none."""
        found = [(p.name, p.first) for p in self.populations.values() if p.first is not None]
        return min(found, key=lambda one: (one[1].when, one[0]), default=None)

    def __str__(self) -> str:
        counts = f"{self.n_events} | {self.n_peer_events} events, {self.n_unmatched} unmatched"
        times = f"times within {self.max_error:.3g} ms, mean {self.mean_error:.3g} ms"
        text = f"dt {self.dt:g} ms: {counts}, {times}"
        return text if self.first is None else f"{text}; first difference: '{self.first[0]}', {self.first[1]}"


@dataclass(frozen=True, eq=False)
class Convergence:
    """What becomes of the differences as Brian2's step falls.

    Attributes
    ----------
    comparisons : list of ContinuousComparison
        By falling step.
    """

    comparisons: list[ContinuousComparison]

    @property
    def order(self) -> float:
        """Slope of log(mean |difference| of event times) against log(dt), by least squares.

        1 for event times that are rounded up to the grid; nan if there are not two steps at which events
        were matched.
        """
        points = [(c.dt, c.mean_error) for c in self.comparisons if c.mean_error > 0]
        if len(points) < 2:
            return float("nan")
        dt, error = np.log(np.array(points)).T
        return float(np.polyfit(dt, error, 1)[0])

    @property
    def first(self) -> tuple[str, FirstDifference] | None:
        """Population and event of the first difference that is left at the finest step."""
        return self.comparisons[-1].first

    def ok(self, tolerance: float = 0.1) -> bool:
        """Whether every event has a partner at every step, and the order is 1 within ``tolerance``."""
        return all(c.n_unmatched == 0 for c in self.comparisons) and abs(self.order - 1) <= tolerance

    def table(self) -> list[dict[str, Any]]:
        """A row for each step."""
        return [
            {
                "dt_ms": c.dt,
                "events evsim": c.n_events,
                "events Brian2": c.n_peer_events,
                "unmatched": c.n_unmatched,
                "mean |time difference| (ms)": c.mean_error,
                "max |time difference| (ms)": c.max_error,
                "mean |state difference|": c.mean_state_error,
                "seconds Brian2": c.peer.seconds,
            }
            for c in self.comparisons
        ]

    def __str__(self) -> str:
        first, last = self.comparisons[0].run, self.comparisons[-1].peer
        return "\n".join(
            [
                *map(str, self.comparisons),
                f"order {self.order:.3f}",
                f"wall time: {first.version} {first.seconds:.3g} s, {last.version} at dt {last.dt:g} ms "
                f"{last.seconds:.3g} s",
            ]
        )

    def draw(self, path: str | Path, tolerance: float = 0.1) -> None:
        """Draw both rasters at the finest step, and the differences against the step.

        Parameters
        ----------
        path : str or Path
            The ending chooses the format.
        tolerance : float
            Of the order, for the title.
        """
        from matplotlib.figure import Figure

        finest = self.comparisons[-1]
        figure = Figure(figsize=(10, 8), layout="constrained")
        raster, error = figure.subplots(2, 1, height_ratios=(3, 2))
        verdict = "converges" if self.ok(tolerance) else "does NOT converge"
        figure.suptitle(f"{finest.peer.version} {verdict} to evsim's event times: order {self.order:.3f}")
        _draw_raster(raster, finest)
        self._draw_errors(error)
        figure.savefig(path, dpi=120)

    def _draw_errors(self, ax: Axes) -> None:
        dt = np.array([c.dt for c in self.comparisons])
        for label, values in (
            ("mean", [c.mean_error for c in self.comparisons]),
            ("largest", [c.max_error for c in self.comparisons]),
        ):
            ax.plot(dt, values, "o-", label=label)
        ax.plot(dt, self.comparisons[0].mean_error * dt / dt[0], "k--", linewidth=0.8, label="order 1")
        ax.set(xscale="log", yscale="log", xlabel="dt of Brian2 (ms)", ylabel="|time difference| (ms)")
        ax.set_title("Differences of event times", loc="left")
        ax.legend(frameon=False, fontsize="small")


def _draw_raster(ax: Axes, comparison: ContinuousComparison) -> None:
    marks: dict[str, Any] = {"marker": "|", "color": "C0", "markersize": 6}
    rings = {"marker": "o", "color": "C3", "markersize": 6, "mfc": "none", "markeredgewidth": 0.6}
    for who, run, style in (("evsim", comparison.run, marks), ("Brian2", comparison.peer, rings)):
        below = 0
        time: list[NDArray] = [np.zeros(0)]
        unit: list[NDArray] = [np.zeros(0)]
        for name in comparison.run.events:
            events = run.events[name]
            time.append(events.time)
            unit.append(events.unit + below)
            below += events.n_units
        when = np.concatenate(time)
        ax.plot(when, np.concatenate(unit), linestyle="", label=f"{who}, {len(when)} events", **style)
    ax.set(xlabel="time (ms)", ylabel=f"unit ({', '.join(comparison.run.events)}, from below)")
    ax.set_title(f"Events, Brian2 at dt {comparison.dt:g} ms", loc="left")
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, fontsize="small")


def compare_timed(run: TimedRun, peer: TimedRun) -> ContinuousComparison:
    """Compare a run of evsim with one of Brian2.

    Raises
    ------
    LogError
        The two runs are not of the same populations, units and samples.
    """
    for what, mine, theirs in (("events", run.events, peer.events), ("states", run.states, peer.states)):
        if set(mine) != set(theirs):
            problem = f"evsim has {what} of {sorted(mine)}, Brian2 of {sorted(theirs)}"
            raise LogError("comparison", problem, "give the same")
    if not np.array_equal(run.samples, peer.samples) or run.duration != peer.duration:
        raise LogError("comparison", "the runs differ in their samples or duration", "give the same")
    names = dict.fromkeys([*run.events, *run.states])
    return ContinuousComparison({name: _compare(name, run, peer) for name in names}, run, peer)


def _compare(name: str, run: TimedRun, peer: TimedRun) -> PopulationDifference:
    state_error = mean_state_error = None
    if name in run.states:
        mine, theirs = run.states[name], peer.states[name]
        if mine.shape != theirs.shape:
            problem = f"its states have shape {mine.shape}, Brian2's {theirs.shape}"
            raise LogError(f"population '{name}'", problem, "compare one lane, same samples")
        if mine.size:
            distance = np.abs(mine - theirs)
            state_error, mean_state_error = float(distance.max()), float(distance.mean())
    if name not in run.events:
        nothing = np.zeros(0)
        return PopulationDifference(name, None, None, nothing, 0, None, 0.0, state_error, mean_state_error)
    own, other = run.events[name], peer.events[name]
    if own.n_units != other.n_units or own.n_lanes != 1 or other.n_lanes != 1:
        raise LogError(f"population '{name}'", f"{own!r} against {other!r}", "compare one lane, same units")
    errors, values, unmatched, first = _match(own, other, run.duration, peer.dt or 0.0)
    value_error = float(np.abs(values).max(initial=0.0))
    counts = len(own), len(other)
    return PopulationDifference(
        name, *counts, errors, unmatched, first, value_error, state_error, mean_state_error
    )


def _match(
    own: TimedEvents, other: TimedEvents, duration: float, dt: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], int, FirstDifference | None]:
    """Differences of times and values of matched events, how many have no partner, the first far one."""
    most = max(len(own), len(other)) + 1
    (order, key), (peer_order, peer_key) = (_by_unit(events, most) for events in (own, other))
    _, here, there = np.intersect1d(key, peer_key, assume_unique=True, return_indices=True)
    mine, theirs = order[here], peer_order[there]
    errors = other.time[theirs] - own.time[mine]
    values = other.value[theirs] - own.value[mine]
    # an event this near to the end may have its partner beyond it
    end = duration - 2 * dt - 5 * float(np.abs(errors).mean() if errors.size else 0.0)
    found = [
        FirstDifference(*divmod(int(key[k]), most), float(time), float(time + error))
        for k, time, error in zip(here, own.time[mine], errors, strict=True)
        if abs(error) > max(FAR * dt, FAR_EXACT)
    ]
    unmatched = 0
    for events, rows, keys, partners in ((own, order, key, here), (other, peer_order, peer_key, there)):
        alone = np.setdiff1d(np.arange(len(rows)), partners)
        alone = alone[events.time[rows[alone]] < end]
        unmatched += len(alone)
        for k in alone:
            time = float(events.time[rows[k]])
            sides = (time, None) if events is own else (None, time)
            found.append(FirstDifference(*divmod(int(keys[k]), most), *sides))
    return errors, values, unmatched, min(found, key=lambda one: (one.when, one.unit), default=None)


def _by_unit(events: TimedEvents, most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows by unit, then time; and, in that order, unit * most + how many events of the unit came before."""
    rows = np.argsort(events.unit, kind="stable")
    unit = events.unit[rows].astype(np.int64)
    return rows, unit * most + np.arange(len(rows)) - np.searchsorted(unit, unit)
