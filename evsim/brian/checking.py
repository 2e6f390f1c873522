"""A subject run by evsim and by Brian2, compared, and judged by stated tolerances."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evsim.brian import order_of_convergence, to_brian2, to_brian2_continuous
from evsim.brian.audit import Entry, audit
from evsim.brian.library import Target, quiet_brian2
from evsim.brian.plant import Plant
from evsim.brian.prediction import Finding, Prediction, Watched, predict
from evsim.brian.subject import Subject
from evsim.comparison import Comparison, compare
from evsim.continuous_comparison import Convergence, TimedRun
from evsim.continuous_log import ContinuousLog
from evsim.errors import NetworkError
from evsim.eventlog import EventLog
from evsim.events import Events
from evsim.interval_comparison import Statistics, compare_statistics
from evsim.models import EventSource
from evsim.network import Network
from evsim.state_comparison import Parting, StateErrors, first_state, state_errors

#: Largest differences allowed: of states and payloads in steps, of the order of convergence, of one predicted
#: step (relative), of rates (relative); and the least p of the intervals.
STATE, ORDER, STEP, RATE, P_VALUE = 1e-12, 0.1, 1e-9, 0.01, 0.01
#: Brian2's step where the network is chaotic, in ms: its events are not expected to converge.
CHAOTIC_DT = 0.1
#: Runs of evsim from other initial states, which say how far apart chaotic runs are anyway.
OWN_RUNS = 19
#: Numbers of states recorded of Brian2 in every step.
MOST_STATES = 2**25
#: Numbers of states sampled in continuous time.
MOST_SAMPLES = 2**21


@dataclass(frozen=True)
class Criterion:
    """One stated tolerance, and what was measured.

    Attributes
    ----------
    name : str
        What is asked, in plain words.
    measured, allowed : str
        With units.
    value, limit : float
    ok : bool
    """

    name: str
    measured: str
    allowed: str
    value: float
    limit: float
    ok: bool


@dataclass(frozen=True, eq=False)
class Traces:
    """States of both sides at the same times; arrays of shape (n_times, n_units), times in ms."""

    times: NDArray[np.float64]
    mine: Mapping[str, NDArray[np.float64]]
    theirs: Mapping[str, NDArray[np.float64]]


@dataclass(eq=False)
class Crosscheck:
    """What came of running a subject in both.

    Attributes
    ----------
    subject : Subject
    planted : Plant or None
        The error that was put into Brian2's side.
    criteria : list of Criterion
    comparison, convergence : Comparison or None, Convergence or None
        In steps, and in continuous time.
    prediction : Prediction or None
        Of Brian2's single steps, in continuous time.
    entries : list of Entry
        The parameters, read back from Brian2.
    statistics : dict of Statistics
        Of populations that send, by name.
    own : dict of list of (float, float)
        Chaotic subjects: relative rate and distance of intervals of each of evsim's own runs from other
        initial states, against the first.
    states : dict of StateErrors
    traces : Traces
    located : Parting or Finding or None
        Where the difference shows first, found from what the two did alone.
    parted : float or None
        ms up to which every event has a partner; None if all have.
    log, peer_log : EventLog or ContinuousLog
    version : str
        Of Brian2, and how it ran.
    seconds : dict of float
        Wall times: ``evsim``, ``Brian2``, ``Brian2, preparing``, ``all``.
    """

    subject: Subject
    planted: Plant | None = None
    criteria: list[Criterion] = field(default_factory=list)
    comparison: Comparison | None = None
    convergence: Convergence | None = None
    prediction: Prediction | None = None
    entries: list[Entry] = field(default_factory=list)
    statistics: dict[str, Statistics] = field(default_factory=dict)
    own: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    states: dict[str, StateErrors] = field(default_factory=dict)
    traces: Traces = field(default_factory=lambda: Traces(np.zeros(0), {}, {}))
    located: Parting | Finding | None = None
    parted: float | None = None
    log: Any = None
    peer_log: Any = None
    version: str = ""
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether all tolerances hold."""
        return bool(self.criteria) and all(one.ok for one in self.criteria)

    @property
    def reasons(self) -> list[str]:
        """The tolerances that do not."""
        failed = (one for one in self.criteria if not one.ok)
        return [f"{one.name}: {one.measured}, allowed {one.allowed}" for one in failed]


def check(
    subject: Subject,
    *,
    target: Target = "numpy",
    dts: Sequence[float] = (0.1, 0.05, 0.025, 0.0125, 0.00625),
    tolerance: float | None = None,
    plant: Plant | None = None,
) -> Crosscheck:
    """Run a subject in both and compare.

    Parameters
    ----------
    subject : Subject
    target : {"numpy", "cython", "standalone"}
        How Brian2 runs it.
    dts : sequence of float
        In continuous time: Brian2's steps in ms.  A chaotic subject is run with the first one only.
    tolerance : float, optional
        Largest difference of states and payloads in steps, by default 1e-12; in continuous time of the order
        of convergence, by default 0.1; of a chaotic subject of rates, by default 0.01.
    plant : Plant, optional
        An error to put into Brian2's side.

    Raises
    ------
    NetworkError, StimulusError
        Something that has no twin in Brian2 here.
    MissingExtraError
        Brian2 is not installed.
    """
    began = time.perf_counter()
    result = Crosscheck(subject, plant)
    other = subject.network if plant is None else plant.into(subject.network)
    if subject.network.continuous:
        dts = sorted(dts, reverse=True)
        _in_continuous_time(result, other, target, dts[:1] if subject.chaotic else dts, tolerance)
    else:
        _in_steps(result, other, target, STATE if tolerance is None else tolerance)
    wrong = [entry for entry in result.entries if entry.difference]
    n_values = sum(entry.n_values for entry in result.entries)
    largest = max((entry.difference for entry in wrong), default=0.0)
    measured = (
        f"{len(wrong)} of {len(result.entries)} differ, by up to {largest:.3g}" if wrong else "all equal"
    )
    name = f"Parameters read back from Brian2, {n_values:,} values"
    result.criteria.append(Criterion(name, measured, "equal to rounding", largest, 0.0, not wrong))
    result.seconds["all"] = time.perf_counter() - began
    return result


def _limit(name: str, value: float, limit: float, unit: str = "") -> Criterion:
    shown = f"{value:.3g}{unit}" if limit else f"{value:,.0f}"
    shown = shown if value == value else "not a number"
    allowed = f"{limit:g}{unit} or less" if limit else "none"
    return Criterion(name, shown, allowed, value, limit, bool(value <= limit))


# -- in steps ----------------------------------------------------------------------------------------------


def _in_steps(result: Crosscheck, other: Network, target: Target, tolerance: float) -> None:
    from evsim.simulation import Simulation

    subject, network = result.subject, result.subject.network
    if subject.initial:
        raise NetworkError(f"'{subject.name}'", "has initial states, in steps", "leave them out")
    n_steps = subject.n_steps
    twin: Any = to_brian2(other, subject.stimulus, n_steps=n_steps)
    result.entries = audit(network, twin)
    simulation = Simulation(network)
    populations = network.populations.values()
    sources = [p for p in populations if isinstance(p, EventSource)]
    silent = {p.name: Events.empty(p.n_units, 1, n_steps, np.float64) for p in sources}
    start = time.perf_counter()
    log = simulation.run({**silent, **subject.stimulus}, n_steps * network.step)
    seconds = time.perf_counter() - start
    assert isinstance(log, EventLog)
    peer = twin.run(target)
    events = {p.name: e for p in populations if (e := log[p.name].events) is not None}
    states = {name: log[name].state for name in peer.states}
    found = result.comparison = compare(events, states, peer, seconds)
    times = np.arange(n_steps) * network.step
    result.traces = Traces(times, found.states, peer.states)
    _measure_states(result)
    for name, mine in events.items():
        pairs = ((one.step * network.step, one.unit) for one in (mine, peer.events[name]))
        result.statistics[name] = compare_statistics(*pairs, mine.n_units, subject.duration)
    result.located = _first_in_steps(found, times, [p.name for p in simulation.plan.populations], tolerance)
    firsts = [p.first.step for p in found.populations.values() if p.first is not None]
    result.parted = min(firsts) * network.step if firsts else None
    alone = sum(len(np.setxor1d(*_keys(mine, peer.events[name]))) for name, mine in events.items())
    total = sum(len(mine) for mine in events.values())
    value_error = max((p.value_error for p in found.populations.values()), default=0.0)
    state_error = max((e.largest for e in result.states.values()), default=0.0)
    result.criteria += [
        _limit(f"Events without a partner in the same step, of {total:,}", float(alone), 0.0),
        _limit("Largest difference of payloads (dimensionless)", value_error, tolerance),
        _limit("Largest difference of states (dimensionless)", state_error, tolerance),
    ]
    result.log, result.version = log, peer.version
    result.peer_log = _peer_log_in_steps(log, other, peer)
    result.seconds |= {"evsim": seconds, "Brian2": peer.seconds, "Brian2, preparing": peer.prepare_seconds}


def _keys(*sides: Events) -> list[NDArray[np.int64]]:
    return [side.step * side.n_units + side.unit for side in sides]


def _first_in_steps(
    found: Comparison, times: NDArray, order: Sequence[str], tolerance: float
) -> Parting | None:
    """The first difference, in the order in which populations take their turns."""
    state = first_state(found.states, found.peer.states, times, tolerance, order)
    candidates = [state] if state else []
    for name, mine in found.events.items():
        theirs = found.peer.events[name]
        first = found.populations[name].first
        if first is not None:
            when = float(times[first.step])
            values = first.value, first.peer_value
            candidates.append(Parting(name, first.unit, first.step, when, "event", *values))
        _, here, there = np.intersect1d(*_keys(mine, theirs), assume_unique=True, return_indices=True)
        far = np.flatnonzero(~(np.abs(mine.value[here] - theirs.value[there]) <= tolerance))
        if far.size:
            row, peer_row = here[far[0]], there[far[0]]
            step, unit = int(mine.step[row]), int(mine.unit[row])
            values = float(mine.value[row]), float(theirs.value[peer_row])
            candidates.append(Parting(name, unit, step, float(times[step]), "value", *values))
    rank = {name: number for number, name in enumerate(order)}
    return min(candidates, key=lambda one: (one.index, rank[one.population]), default=None)


def _peer_log_in_steps(log: EventLog, other: Network, peer: Any) -> EventLog:
    """Brian2's run as a log."""
    members = {}
    for name, own in log.populations.items():
        tape, fields = None, ()
        if name in peer.states:
            tape, fields = peer.states[name][:, None, None], (own.state_name or "c",)
        events = peer.events.get(name)
        threshold = other[name].parameters.get("threshold")
        members[name] = replace(
            own,
            events=events,
            tape=tape,
            tape_fields=fields,
            checkpoints=None,
            thresholds=None if threshold is None else threshold.values,
        )
    sent = {name: len(events) for name, events in peer.events.items()}
    return replace(
        log,
        populations=members,
        counters={"lane_steps": log.counters.get("lane_steps"), "events": sent},
        parameters={name: p.values for name, p in other.parameters().items()},
        provenance={"simulator": peer.version, "seed": log.provenance.get("seed")},
    )


# -- in continuous time ------------------------------------------------------------------------------------


def _in_continuous_time(
    result: Crosscheck, other: Network, target: Target, dts: Sequence[float], tolerance: float | None
) -> None:
    from evsim.continuous_simulation import ContinuousSimulation

    subject, network = result.subject, result.subject.network
    simulation = ContinuousSimulation(network)
    given, duration = subject.timed(), subject.duration
    n_units = sum(p.n_units for p in network.populations.values())
    samples = np.zeros(0)
    if not subject.chaotic:
        count = min(int(duration / dts[0] + 1e-9), max(1, MOST_SAMPLES // n_units))
        samples = np.arange(count + 1) * (duration / count)
    start = time.perf_counter()
    log = simulation.run(given, duration, samples=samples, initial=subject.initial, tape=False)
    seconds = time.perf_counter() - start
    run = _timed_run(log, seconds)
    options: dict[str, Any] = {"samples": samples, "initial": subject.initial, "target": target}
    found = order_of_convergence(other, given, duration, dts, run=run, **options)
    result.convergence, finest = found, found.comparisons[-1]
    peer = finest.peer
    result.traces = Traces(samples, run.states, peer.states)
    for name, mine in run.events.items():
        inside = peer.events[name].window(0.0, duration)
        pairs = ((one.time, one.unit) for one in (mine, inside))
        result.statistics[name] = compare_statistics(*pairs, mine.n_units, duration)
    result.parted = finest.first[1].when if finest.first else None
    _predict(result, other, dts[-1])
    if subject.chaotic:
        result.traces = _until(result.traces, result.parted)
        _compare_with_own_runs(result, simulation, run)
        result.criteria += _chaotic_criteria(result, RATE if tolerance is None else tolerance)
    else:
        result.criteria += _converging_criteria(found, ORDER if tolerance is None else tolerance)
    _measure_states(result)
    prediction = result.prediction
    assert prediction is not None
    predicted = f"{prediction.n_predicted:,} unit steps of {prediction.dt:g} ms"
    result.criteria += [
        _limit(
            f"One step of Brian2 as predicted by evsim, {predicted}: difference of states, relative",
            prediction.largest,
            STEP,
        ),
        _limit(
            f"Events that one step should have and has not, or the other way round, of "
            f"{prediction.n_events:,}",
            float(prediction.n_wrong_events),
            0.0,
        ),
    ]
    result.located = prediction.first
    result.log, result.version = log, peer.version
    result.peer_log = _peer_log(log, other, peer, samples)
    prepare = sum(c.peer.prepare_seconds for c in found.comparisons)
    label = f"Brian2 at dt {dts[-1]:g} ms"
    result.seconds |= {"evsim": seconds, label: peer.seconds, "Brian2, preparing": prepare}


def _timed_run(log: ContinuousLog, seconds: float) -> TimedRun:
    own = [one for one in log.populations.values() if one.kind != "EventSource"]
    return TimedRun(
        events={one.name: one.events for one in own if one.events is not None},
        states={one.name: one.state[:, 0] for one in own if one.state is not None},
        samples=log.samples,
        duration=log.duration,
        seconds=seconds,
    )


def _converging_criteria(found: Convergence, tolerance: float) -> list[Criterion]:
    alone = sum(c.n_unmatched for c in found.comparisons)
    total = found.comparisons[0].n_events
    order = found.order
    steps = f"{len(found.comparisons)} steps, {found.comparisons[0].dt:g} to {found.comparisons[-1].dt:g} ms"
    name = f"Order in which Brian2's event times tend to evsim's, over {steps}"
    shown = f"{order:.3f}" if order == order else "none: too few events"
    return [
        _limit(f"Events without a partner, of {total:,}, at all steps", float(alone), 0.0),
        Criterion(
            name, shown, f"1 within {tolerance:g}", order, tolerance, bool(abs(order - 1) <= tolerance)
        ),
    ]


def _chaotic_criteria(result: Crosscheck, tolerance: float) -> list[Criterion]:
    criteria = []
    for name, found in result.statistics.items():
        own = result.own.get(name, [])
        factor = 1.0 + float(np.mean([rate for rate, _ in own])) if own else 1.0  # evsim's mean rate
        rate = abs((1 + found.rate_difference) / factor - 1)
        what = f"Rate of '{name}', against the mean of {len(own) + 1} runs of evsim"
        criteria.append(_limit(what if own else f"Rate of '{name}'", 100 * rate, 100 * tolerance, " %"))
        sizes = f"{found.n_intervals[0]:,} and {found.n_intervals[1]:,} intervals"
        p_value, how = found.p_value, "p"
        if own:
            p_value = (1 + sum(distance >= found.distance for _, distance in own)) / (1 + len(own))
            how = f"share of evsim's own {len(own)} runs as far apart"
        least = 1 / (1 + len(own)) if own else P_VALUE
        text = f"Intervals of '{name}' (Kolmogorov-Smirnov, {sizes}): {how}"
        good = bool(p_value > least) if own else bool(p_value >= least)
        allowed = f"more than {least:g}" if own else f"{least:g} or more"
        criteria.append(Criterion(text, f"{p_value:.3g}", allowed, p_value, least, good))
    return criteria


def _compare_with_own_runs(result: Crosscheck, simulation: Any, run: TimedRun) -> None:
    """evsim again, from initial states that are dealt out to other units: how far apart are runs anyway?"""
    subject = result.subject
    if not subject.initial:
        return
    rng = np.random.default_rng(1)
    for _ in range(OWN_RUNS):
        initial: dict[str, dict[str, Any]] = {}
        for name, given in subject.initial.items():
            n_units = subject.network[name].n_units
            full = {k: np.broadcast_to(np.asarray(v, float), (1, n_units)) for k, v in given.items()}
            order = rng.permutation(n_units)
            initial[name] = {k: v[:, order] for k, v in full.items()}
        log = simulation.run(subject.timed(), subject.duration, initial=initial, tape=False)
        for name, mine in run.events.items():
            theirs = log[name].events
            pairs = (mine.time, mine.unit), (theirs.time, theirs.unit)
            found = compare_statistics(*pairs, mine.n_units, subject.duration)
            result.own.setdefault(name, []).append((found.rate_difference, found.distance))


def _predict(result: Crosscheck, other: Network, dt: float) -> None:
    """Predict Brian2's steps, as many as can be recorded; and read its parameters back."""
    subject, network = result.subject, result.subject.network
    given = subject.timed()
    per_step = sum(len(p.states) * p.n_units for p in network.populations.values())
    duration = min(subject.duration, max(1, MOST_STATES // max(per_step, 1)) * dt)
    if subject.chaotic:
        given = {name: events.window(0.0, duration) for name, events in given.items()}
    slots = 4
    while True:
        twin: Any = to_brian2_continuous(other, given, duration, dt, initial=subject.initial, slots=slots)
        with quiet_brian2("numpy") as brian2:
            watched = Watched(brian2, twin, network)
        try:
            run = twin.run("numpy")
            break
        except NetworkError:
            if not slots < twin.slots_needed() <= 64:
                raise
            slots = twin.slots_needed()
    states = watched.states()
    result.prediction = predict(
        network, states, run.events, given, dt, initial=subject.initial, tolerance=STEP
    )
    result.entries = audit(network, twin, given)
    if subject.chaotic:
        _trace_from(result, states, given, duration, dt)


def _trace_from(
    result: Crosscheck,
    states: Mapping[str, Mapping[str, NDArray]],
    given: Mapping[str, Any],
    duration: float,
    dt: float,
) -> None:
    """States of both sides in the stretch that was predicted."""
    from evsim.continuous_simulation import ContinuousSimulation

    subject = result.subject
    n_steps = len(next(iter(next(iter(states.values())).values())))
    times = np.minimum(np.arange(n_steps) * dt, duration)
    simulation = ContinuousSimulation(subject.network)
    log = simulation.run(given, duration, samples=times, initial=subject.initial, tape=False)
    mine = {name: log[name].state[:, 0] for name in log if log[name].state is not None}
    names = {name: log[name].state_name for name in mine}
    theirs = {name: states[name][key] for name, key in names.items() if key in states[name]}
    result.traces = Traces(times, {name: mine[name] for name in theirs}, theirs)


def _until(traces: Traces, stop: float | None) -> Traces:
    """States at times up to ``stop``."""
    if stop is None:
        return traces
    part = traces.times <= stop
    mine, theirs = ({name: x[part] for name, x in side.items()} for side in (traces.mine, traces.theirs))
    return Traces(traces.times[part], mine, theirs)


def _measure_states(result: Crosscheck) -> None:
    traces = result.traces
    for name, mine in traces.mine.items():
        found = state_errors(mine, traces.theirs[name], traces.times)
        if found is not None:
            result.states[name] = found


def _peer_log(log: ContinuousLog, other: Network, peer: TimedRun, samples: NDArray) -> ContinuousLog:
    """Brian2's run as a log; events that it has after the end are left out."""
    members = {}
    for name, own in log.populations.items():
        changes: dict[str, Any] = {"integral": None, "square": None}
        if name in peer.events:
            changes["events"] = peer.events[name].window(log.start, log.stop)
        if name in peer.states and len(samples):
            changes["state"] = np.ascontiguousarray(peer.states[name][:, None])
        threshold = other[name].parameters.get("threshold")
        changes["thresholds"] = None if threshold is None else threshold.values
        members[name] = replace(own, **changes)
    counts = {name: len(m.events) for name, m in members.items() if m.events is not None}
    return replace(
        log,
        populations=members,
        counters={"events": counts},
        parameters={name: p.values for name, p in other.parameters().items()},
        provenance={"simulator": f"{peer.version}, dt {peer.dt:g} ms", "seed": log.provenance.get("seed")},
    )
