"""A subject in continuous time: convergence, single steps, and of chaotic ones rates and intervals."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evsim.brian import order_of_convergence, to_brian2_continuous
from evsim.brian.audit import audit
from evsim.brian.library import Target, quiet_brian2
from evsim.brian.prediction import Watched, predict
from evsim.brian.result import Criterion, Crosscheck, Traces, at_most
from evsim.continuous_comparison import Convergence, TimedRun
from evsim.continuous_log import ContinuousLog
from evsim.errors import NetworkError
from evsim.interval_comparison import compare_statistics, spread
from evsim.network import Network

#: Largest differences allowed: of the order of convergence, of one predicted step (relative), of rates
#: (relative); and the least p of the intervals.
ORDER, STEP, RATE, P_VALUE = 0.1, 1e-9, 0.01, 0.01
#: Runs of evsim from other initial states, which say how far apart chaotic runs are anyway.
OWN_RUNS = 19
#: Numbers of states recorded of Brian2 in every step.
MOST_STATES = 2**25
#: Numbers of states sampled in continuous time.
MOST_SAMPLES = 2**21


def check_times(
    result: Crosscheck, other: Network, target: Target, dts: Sequence[float], tolerance: float | None
) -> None:
    """Run the subject and, in Brian2, ``other`` at each step of ``dts`` (ms, falling); fill in the result."""
    from evsim.continuous_simulation import ContinuousSimulation

    subject, network = result.subject, result.subject.network
    simulation = ContinuousSimulation(network)
    given, duration = subject.timed(), subject.duration
    n_units = sum(p.n_units for p in network.populations.values())
    samples: NDArray[np.float64] = np.zeros(0)
    if not subject.chaotic:
        count = min(int(duration / dts[0] + 1e-9), max(1, MOST_SAMPLES // n_units))
        samples = np.linspace(0.0, duration, count + 1)
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
        first, second = ((one.time, one.unit) for one in (mine, inside))
        result.statistics[name] = compare_statistics(first, second, mine.n_units, duration)
    result.parted = finest.first[1].when if finest.first else None
    _predict(result, other, dts[-1])
    if subject.chaotic:
        result.traces = _until(result.traces, result.parted)
        _compare_with_own_runs(result, simulation, run, peer)
        result.criteria += _chaotic_criteria(result, RATE if tolerance is None else tolerance)
    else:
        result.criteria += _converging_criteria(found, ORDER if tolerance is None else tolerance)
    result.measure_states()
    prediction = result.prediction
    assert prediction is not None
    predicted = f"{prediction.n_predicted:,} unit steps of {prediction.dt:g} ms"
    result.criteria += [
        at_most(
            f"One step of Brian2 as predicted by evsim, {predicted}: difference of states, relative",
            prediction.largest,
            STEP,
        ),
        at_most(
            f"Events that one side only has, a step after the same state, of {prediction.n_events:,}",
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
    shown = f"{order:.4f}" if order == order else "none: too few events"
    return [
        at_most(f"Events without a partner, of {total:,}, at all steps", float(alone), 0.0),
        Criterion(
            name, shown, f"1 within {tolerance:g}", order, tolerance, bool(abs(order - 1) <= tolerance)
        ),
    ]


def _chaotic_criteria(result: Crosscheck, tolerance: float) -> list[Criterion]:
    criteria = []
    for name, found in result.statistics.items():
        own, rate = result.own.get(name), found.rate_difference
        what, sizes = f"Rate of '{name}'", f"{found.n_intervals[0]:,} and {found.n_intervals[1]:,} intervals"
        test, p_value, least = "Kolmogorov-Smirnov test, p", found.p_value, P_VALUE
        if own is not None:
            what, rate = f"{what}, against the mean of {len(own.counts)} runs of evsim", own.rate_difference
            test = f"share of {1 + len(own.counts)} runs that are as far from the others (Kolmogorov-Smirnov)"
            p_value, least = own.share, 1 / (1 + len(own.counts))
        criteria.append(at_most(what, 100 * abs(rate), 100 * tolerance, " %"))
        good = bool(p_value > least * (1 + 1e-9)) if own is not None else bool(p_value >= least)
        allowed = f"more than {least:.3g}" if own is not None else f"{least:g} or more"
        text = f"Intervals of '{name}', {sizes}: {test}"
        criteria.append(Criterion(text, f"{p_value:.3g}", allowed, p_value, least, good))
    return criteria


def _compare_with_own_runs(result: Crosscheck, simulation: Any, run: TimedRun, peer: TimedRun) -> None:
    """evsim again, from initial states that are dealt out to other units: how far apart are runs anyway?"""
    subject = result.subject
    if not subject.initial:
        return
    rng = np.random.default_rng(1)
    runs = {name: [(events.time, events.unit)] for name, events in run.events.items()}
    for _ in range(OWN_RUNS):
        initial: dict[str, dict[str, Any]] = {}
        for name, given in subject.initial.items():
            n_units = subject.network[name].n_units
            full = {k: np.broadcast_to(np.asarray(v, float), (1, n_units)) for k, v in given.items()}
            order = rng.permutation(n_units)
            initial[name] = {k: v[:, order] for k, v in full.items()}
        log = simulation.run(subject.timed(), subject.duration, initial=initial, tape=False)
        for name in runs:
            runs[name].append((log[name].events.time, log[name].events.unit))
    for name, mine in runs.items():
        inside = peer.events[name].window(0.0, subject.duration)
        result.own[name] = spread(mine, (inside.time, inside.unit))


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
    mine = {name: state[:, 0] for name in log if (state := log[name].state) is not None}
    names = {name: log[name].state_name or "" for name in mine}
    theirs = {name: states[name][key] for name, key in names.items() if key in states[name]}
    result.traces = Traces(times, {name: mine[name] for name in theirs}, theirs)


def _until(traces: Traces, stop: float | None) -> Traces:
    """States at times up to ``stop``."""
    if stop is None:
        return traces
    part = traces.times <= stop
    mine, theirs = ({name: x[part] for name, x in side.items()} for side in (traces.mine, traces.theirs))
    return Traces(traces.times[part], mine, theirs)


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
