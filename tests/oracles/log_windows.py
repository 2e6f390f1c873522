"""Runs made by hand, in steps and in continuous time, and the windows that a simulation cuts them into."""

from contextlib import contextmanager
from itertools import pairwise
from unittest import mock

import numpy as np

from evsim.continuous_log import ContinuousLog, ContinuousPopulationLog
from evsim.eventlog import EventLog, PopulationLog
from evsim.events import Events
from evsim.timed_events import TimedEvents

KNOWN = {"evsim": "of this test", "seed": 3}


@contextmanager
def small_blocks(block=16, flush_rows=40, rows=32):
    """Blocks, chunks and pieces of a few rows, so that small logs have many."""
    with (
        mock.patch.multiple("evsim.log_columns", BLOCK=block, CHUNK=block, PIECE=block),
        mock.patch("evsim.growing_log.FLUSH_ROWS", flush_rows),
        mock.patch("evsim.log_file.ROWS", rows),
        mock.patch("evsim.file_population.ROWS", rows),
    ):
        yield


# -- in steps --------------------------------------------------------------------------------------------


def run_in_steps(
    seed=0,
    n_steps=12,
    n_lanes=2,
    n_units=5,
    dt=0.5,
    start_step=10,
    dtype=np.float32,
    density=0.4,
    carried=2,
    gradient=False,
    lengths=None,
):
    """A source, units with states and a readout."""
    rng = np.random.default_rng(seed)

    def array(*shape):
        return rng.normal(size=shape).astype(dtype)

    def sent(steps, units):
        shape = (steps, n_lanes, units)
        return Events.from_dense(rng.normal(size=shape) * (rng.random(shape) < density), dtype)

    cue = PopulationLog("cue", "EventSource", 3, dt, start_step, events=sent(n_steps, 3))
    hidden = PopulationLog(
        "hidden",
        "DeltaGRU",
        n_units,
        dt,
        start_step,
        events=sent(n_steps, n_units),
        carried=sent(carried, n_units) if carried is not None else None,
        initial={"h": array(n_lanes, n_units), "sent": array(n_lanes, n_units)},
        tape=array(n_steps, n_lanes, 1, n_units),
        tape_fields=("h",),
        thresholds=abs(array(n_units)),
    )
    answer = PopulationLog("answer", "LeakyReadout", 2, dt, start_step, initial={"v": array(n_lanes, 2)})
    answer.tape, answer.tape_fields = array(n_steps, n_lanes, 1, 2), ("v",)
    if gradient:
        hidden.gradient = array(len(hidden.events))
    lengths = np.full(n_lanes, n_steps) if lengths is None else np.array(lengths)
    return EventLog(
        {"cue": cue, "hidden": hidden, "answer": answer},
        dt=dt,
        start_step=start_step,
        n_steps=n_steps,
        n_lanes=n_lanes,
        lengths=lengths,
        counters={"lane_steps": int(lengths.sum()), "macs": {"cue->hidden": 7 * n_steps}, "note": "same"},
        network={"dt_ms": dt},
        parameters={"cue->hidden.weight": array(3, n_units), "cue->hidden.indices": np.arange(4)},
        provenance=dict(KNOWN),
    )


def states_before(log, step):
    """States of each population before a step of a run: those it began with, or any others."""
    if step == 0:
        return {name: log[name].initial for name in log}
    rng = np.random.default_rng(step)
    return {
        name: {state: rng.normal(size=x.shape).astype(x.dtype) for state, x in log[name].initial.items()}
        for name in log
    }


def steps_of(log, first, last):
    """Steps of a run as the log of a window; columns are copies."""
    members, initial = {}, states_before(log, first)
    for name, whole in log.populations.items():
        start_step = log.start_step + first
        part = PopulationLog(name, whole.kind, whole.n_units, log.dt, start_step, thresholds=whole.thresholds)
        part.initial = {state: values.copy() for state, values in initial[name].items()}
        if whole.events is not None:
            part.events = whole.events.window(first, last)
            rows = slice(*whole.events.ptr[[first * log.n_lanes, last * log.n_lanes]])
            part.gradient = None if whole.gradient is None else whole.gradient[rows].copy()
        if whole.carried is not None:
            n = whole.carried.n_steps
            part.carried = whole.carried.then(whole.events).window(first, first + n)
        if whole.tape is not None:
            part.tape, part.tape_fields = whole.tape[first:last].copy(), whole.tape_fields
        members[name] = part
    lengths = np.clip(log.lengths - first, 0, last - first)
    return EventLog(
        members,
        dt=log.dt,
        start_step=log.start_step + first,
        n_steps=last - first,
        n_lanes=log.n_lanes,
        lengths=lengths,
        counters={
            "lane_steps": int(lengths.sum()),
            "macs": {"cue->hidden": 7 * (last - first)},
            "note": "same",
        },
        network=log.network,
        parameters=log.parameters,
        provenance=dict(KNOWN),
    )


# -- in continuous time ----------------------------------------------------------------------------------

EQUAL, UNEQUAL = tuple(np.arange(4.5, 20.1, 0.5)), (4.0, 4.5, 7.0, 11.25, 12.0, 20.0)


def run_in_time(
    seed=0,
    n_events=80,
    start=4.0,
    stop=20.0,
    n_lanes=2,
    n_units=5,
    samples=EQUAL,
    gradient=False,
    grid=None,
):
    """A source, units with sampled states and a readout; with a grid, many events are at the same time."""
    rng = np.random.default_rng(seed)

    def sent(units, count):
        times = rng.uniform(start, stop, count)
        if grid is not None:
            times = np.minimum(np.floor(times / grid) * grid, np.nextafter(stop, 0)).clip(start)
        rows = np.stack([times, rng.integers(0, n_lanes, count), rng.integers(0, units, count)])
        time, lane, unit = np.unique(rows, axis=1)
        values = rng.normal(size=len(time))
        return TimedEvents.from_list(
            time,
            lane.astype(int),
            unit.astype(int),
            values,
            n_units=units,
            n_lanes=n_lanes,
            start=start,
            stop=stop,
        )

    cue = ContinuousPopulationLog("cue", "EventSource", 3, sent(3, n_events // 2))
    hidden = ContinuousPopulationLog("hidden", "LIF", n_units, sent(n_units, n_events))
    hidden.initial = {"v": rng.normal(size=(n_lanes, n_units))}
    hidden.thresholds = abs(rng.normal(size=n_units)).astype(np.float32)
    answer = ContinuousPopulationLog("answer", "LeakyReadout", 2)
    answer.initial = {"v": rng.normal(size=(n_lanes, 2))}
    if len(samples):
        for member in (hidden, answer):
            for what in ("state", "integral", "square"):
                setattr(member, what, rng.normal(size=(len(samples), n_lanes, member.n_units)))
    if gradient:
        hidden.gradient = rng.normal(size=len(hidden.events))
        hidden.time_gradient = rng.normal(size=len(hidden.events))
    return ContinuousLog(
        {"cue": cue, "hidden": hidden, "answer": answer},
        start=start,
        duration=stop - start,
        n_lanes=n_lanes,
        samples=np.array(samples),
        counters={"events": {"hidden": len(hidden.events)}},
        network={"dt_ms": None},
        parameters={"cue->hidden.weight": rng.normal(size=(3, n_units)).astype(np.float32)},
        provenance=dict(KNOWN),
    )


def times_of(log, start, stop):
    """A stretch of a run in continuous time as the log of a window; samples at both its ends are in it."""
    taken = (log.samples >= start) & (log.samples <= stop)
    members = {}
    for name, whole in log.populations.items():
        part = ContinuousPopulationLog(name, whole.kind, whole.n_units, thresholds=whole.thresholds)
        part.initial = whole.initial
        if whole.events is not None:
            part.events = whole.events.window(start, stop)
            rows = slice(*np.searchsorted(whole.time, (start, stop)))
            for what in ("gradient", "time_gradient"):
                column = getattr(whole, what)
                setattr(part, what, None if column is None else column[rows].copy())
        if taken.any():
            for what in ("state", "integral", "square"):
                values = getattr(whole, what)
                setattr(part, what, None if values is None else values[taken])
        members[name] = part
    sent = members["hidden"].events
    return ContinuousLog(
        members,
        start=start,
        duration=stop - start,
        n_lanes=log.n_lanes,
        samples=log.samples[taken],
        counters={"events": {"hidden": len(sent)}},
        network=log.network,
        parameters=log.parameters,
        provenance=dict(KNOWN),
    )


# -- what to expect --------------------------------------------------------------------------------------


def columns_of(log, name):
    """Columns of all events of a population, in plain NumPy: time in ms, lane, unit, value, gradients."""
    member = log[name]
    found = {"time": member.time, "lane": member.lane, "unit": member.unit, "value": member.value}
    gradients = {what: getattr(member, what) for what in ("gradient", "time_gradient")}
    return found | {what: column for what, column in gradients.items() if column is not None}


def windows_of(log, marks):
    """The windows of a run between marks, which are steps or times."""
    cut = steps_of if isinstance(log, EventLog) else times_of
    return [cut(log, first, last) for first, last in pairwise(marks)]
