"""A subject in steps: the same events, payloads and states, and where they differ first."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evsim.brian import to_brian2
from evsim.brian.audit import audit
from evsim.brian.library import Target
from evsim.brian.result import Crosscheck, Traces, at_most
from evsim.comparison import Comparison, compare
from evsim.errors import NetworkError
from evsim.eventlog import EventLog
from evsim.events import Events
from evsim.interval_comparison import compare_statistics
from evsim.models import EventSource
from evsim.network import Network
from evsim.state_comparison import Parting, first_state


def check_steps(result: Crosscheck, other: Network, target: Target, tolerance: float) -> None:
    """Run the subject and, in Brian2, ``other``; fill in the result."""
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
    times = np.arange(n_steps) * np.float64(network.step)
    result.traces = Traces(times, found.states, peer.states)
    result.measure_states()
    for name, mine in events.items():
        first, second = ((one.step * network.step, one.unit) for one in (mine, peer.events[name]))
        result.statistics[name] = compare_statistics(first, second, mine.n_units, subject.duration)
    result.located = _first_in_steps(found, times, [p.name for p in simulation.plan.populations], tolerance)
    firsts = [p.first.step for p in found.populations.values() if p.first is not None]
    result.parted = min(firsts) * network.step if firsts else None
    alone = sum(len(np.setxor1d(_key(mine), _key(peer.events[name]))) for name, mine in events.items())
    total = sum(len(mine) for mine in events.values())
    value_error = max((p.value_error for p in found.populations.values()), default=0.0)
    state_error = max((e.largest for e in result.states.values()), default=0.0)
    result.criteria += [
        at_most(f"Events without a partner in the same step, of {total:,}", float(alone), 0.0),
        at_most("Largest difference of payloads (dimensionless)", value_error, tolerance),
        at_most("Largest difference of states (dimensionless)", state_error, tolerance),
    ]
    result.log, result.version = log, peer.version
    result.peer_log = _peer_log_in_steps(log, other, peer)
    result.seconds |= {"evsim": seconds, "Brian2": peer.seconds, "Brian2, preparing": peer.prepare_seconds}


def _key(events: Events) -> NDArray[np.int64]:
    """One number for each step and unit."""
    return np.asarray(events.step * events.n_units + events.unit, np.int64)


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
        _, here, there = np.intersect1d(_key(mine), _key(theirs), return_indices=True)
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
        tape, fields = None, tuple[str, ...]()
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
