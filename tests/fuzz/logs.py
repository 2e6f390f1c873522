"""Event logs that are right, of all kinds."""

import itertools
import shutil
import tempfile
from pathlib import Path

import numpy as np

from evsim.continuous_log import ContinuousLog, ContinuousPopulationLog
from evsim.eventlog import EventLog, PopulationLog
from evsim.events import Events
from evsim.log_file import LogFile
from evsim.log_writer import LogWriter
from evsim.timed_events import TimedEvents


def clocked_log(seed=0, dt=1.0, n_steps=60, n_lanes=2, n_units=9, start_step=5, activity=0.2, credit=False):
    """A source, units and a readout, in steps."""
    rng = np.random.default_rng(seed)

    def sent(steps, units):
        shape = (steps, n_lanes, units)
        return Events.from_dense(rng.normal(size=shape) * (rng.random(shape) < activity))

    window = {"dt": dt, "start_step": start_step}
    cue = PopulationLog("cue", "EventSource", 3, **window, events=sent(n_steps, 3))
    hidden = PopulationLog("hidden", "EGRU", n_units, **window, events=sent(n_steps, n_units))
    hidden.carried, hidden.thresholds = sent(2, n_units), rng.random(n_units)
    hidden.initial = {"c": rng.normal(size=(n_lanes, n_units)).astype("f4")}
    if credit:
        hidden.gradient = rng.normal(size=hidden.n_events).astype("f4")
    answer = PopulationLog("answer", "LeakyReadout", 2, **window, tape_fields=("v",))
    answer.tape = rng.normal(size=(n_steps, n_lanes, 1, 2)).astype("f4")
    return EventLog(
        {"cue": cue, "hidden": hidden, "answer": answer},
        **window,
        n_steps=n_steps,
        n_lanes=n_lanes,
        lengths=np.full(n_lanes, n_steps),
        counters={"events": {"hidden": hidden.n_events}, "lane_steps": n_lanes * n_steps},
        network={"dt_ms": dt},
        parameters={"hidden->answer.weight": rng.normal(size=(n_units, 2)).astype("f4")},
    )


def timed_log(seed=0, start=2.5, duration=30.0, n_lanes=2, n_units=9, n_events=200, credit=False):
    """A source, units and a readout, in continuous time."""
    rng = np.random.default_rng(seed)
    stop, samples = start + duration, np.linspace(start, start + duration, 5)

    def sent(units, count):
        columns = rng.uniform(start, stop, count), rng.integers(0, n_lanes, count)
        columns += rng.integers(0, units, count), rng.normal(size=count)
        return TimedEvents.from_list(*columns, n_units=units, n_lanes=n_lanes, start=start, stop=stop)

    def states(units):
        return rng.normal(size=(len(samples), n_lanes, units))

    cue = ContinuousPopulationLog("cue", "EventSource", 3, sent(3, n_events // 4))
    hidden = ContinuousPopulationLog("hidden", "LIF", n_units, sent(n_units, n_events))
    hidden.initial, hidden.state = {"v": rng.normal(size=(n_lanes, n_units))}, states(n_units)
    hidden.integral = states(n_units)
    if credit:
        hidden.gradient, hidden.time_gradient = rng.normal(size=(2, hidden.n_events))
    answer = ContinuousPopulationLog("answer", "LeakyReadout", 2, state=states(2))
    answer.initial = {"v": rng.normal(size=(n_lanes, 2))}
    return ContinuousLog(
        {"cue": cue, "hidden": hidden, "answer": answer},
        start=start,
        duration=duration,
        n_lanes=n_lanes,
        samples=samples,
        counters={"crossings": hidden.n_events},
        network={"dt_ms": None},
        parameters={"hidden->answer.weight": rng.normal(size=(n_units, 2))},
    )


def alone(log):
    """A log of its hidden units only: read in less than half the time, and most of the file is HDF5's."""
    del log.populations["cue"], log.populations["answer"]
    return log


def cut(log, count):
    """Windows of a log, by way of a file."""
    with tempfile.TemporaryDirectory() as folder, LogFile(log.save(Path(folder) / "whole.h5")) as file:
        marks = np.linspace(file.start, file.stop, count + 1)
        if not file.continuous:
            marks = np.rint(marks / file.dt) * file.dt
        for first, last in itertools.pairwise(marks.tolist()):
            yield file.window(first, last)


def streamed(log, path, count, killed):
    """Write a log in windows; of a writer that was killed, what was on the disk then."""
    with LogWriter(path) as writer:
        for window in cut(log, count):
            writer.append(window)
            writer.flush()
        if killed:
            shutil.copy(path, path.with_suffix(".killed"))
    if killed:
        path.with_suffix(".killed").replace(path)


def make_good_files(folder, names=None):
    """Files by name, all kinds of them or some."""
    folder = Path(folder)
    logs = {
        "whole": clocked_log(),
        "streamed": clocked_log(1, dt=0.1, credit=True),
        "killed": clocked_log(2, n_lanes=1),
        "timed": timed_log(),
        "timed streamed": timed_log(1, credit=True),
        "timed killed": timed_log(2),
        "many nodes": clocked_log(3, n_lanes=40, n_units=2000, n_steps=40, activity=0.03),
        "tiny": alone(clocked_log(4, n_lanes=1, n_units=3, n_steps=9, credit=True)),
        "tiny killed": alone(clocked_log(5, n_lanes=1, n_units=3, n_steps=9)),
        "tiny timed": alone(timed_log(4, n_lanes=1, n_units=3, n_events=20, credit=True)),
        "tiny timed killed": alone(timed_log(5, n_lanes=1, n_units=3, n_events=20)),
    }
    files = {}
    for name, log in logs.items():
        if names is not None and name not in names:
            continue
        path = folder / f"{name.replace(' ', '_')}.h5"
        if "streamed" in name or "killed" in name:
            streamed(log, path, 2 if "tiny" in name else 4, "killed" in name)
        else:
            log.save(path)
        files[name] = path
    return files
