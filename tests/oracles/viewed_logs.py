"""Logs for the viewer's tests, and what a picture of them must hold, counted event by event."""

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from evsim.continuous_log import ContinuousLog, ContinuousPopulationLog
from evsim.eventlog import EventLog, PopulationLog
from evsim.events import Events
from evsim.timed_events import TimedEvents


def clocked(n_events=3000, n_lanes=3, n_units=50, n_steps=400, start_step=0, dt=0.5, seed=0, lengths=None):
    """A run in steps: "hidden" sends, "answer" has states."""
    rng = np.random.default_rng(seed)
    present = np.arange(n_steps)[:, None] < (np.full(n_lanes, n_steps) if lengths is None else lengths)
    sent = (rng.random((n_steps, n_lanes, n_units)) < n_events / (n_steps * n_lanes * n_units)) & present[
        :, :, None
    ]
    step, lane, unit = np.nonzero(sent)
    ptr = np.zeros(n_steps * n_lanes + 1, np.int64)
    np.cumsum(np.bincount(step * n_lanes + lane, minlength=n_steps * n_lanes), out=ptr[1:])
    value = rng.normal(1, 2, len(unit)).astype(np.float32)
    events = Events(n_units, n_lanes, n_steps, ptr, unit.astype(np.int32), value)
    hidden = PopulationLog("hidden", "EGRU", n_units, dt, start_step, events)
    hidden.gradient = rng.normal(0, 1e-3, len(unit)).astype(np.float32)
    answer = PopulationLog("answer", "LeakyReadout", 2, dt, start_step)
    time = start_step + np.arange(n_steps)
    states = np.sin(time[:, None, None] / 20 + np.arange(2 * n_lanes).reshape(n_lanes, 2))
    answer.tape, answer.tape_fields = states.astype(np.float32)[:, :, None], ("v",)
    return EventLog(
        {"hidden": hidden, "answer": answer},
        dt=dt,
        start_step=start_step,
        n_steps=n_steps,
        n_lanes=n_lanes,
        lengths=np.full(n_lanes, n_steps) if lengths is None else np.asarray(lengths),
    )


def continuous(n_events=3000, n_lanes=2, n_units=40, start=5.0, duration=100.0, seed=0):
    """A run in continuous time."""
    rng = np.random.default_rng(seed)
    time = np.sort(rng.uniform(start, start + duration, n_events))
    lane, unit = (rng.integers(0, n, n_events, dtype=np.int32) for n in (n_lanes, n_units))
    events = TimedEvents(
        n_units, n_lanes, start, start + duration, time, lane, unit, rng.normal(0, 1, n_events)
    )
    hidden = ContinuousPopulationLog("hidden", "LIF", n_units, events=events)
    return ContinuousLog(
        {"hidden": hidden}, start=start, duration=duration, n_lanes=n_lanes, samples=np.zeros(0)
    )


def counted(table, columns, bands, colour=None):
    """Events of each cell, and their mean: shape (columns, bands)."""
    counts = np.zeros((columns.count, bands.count), np.int64)
    sums = np.zeros(counts.shape)
    ticks = (table.time - columns.origin) / columns.tick
    for k, (tick, node) in enumerate(zip(ticks, table.node, strict=True)):
        column = int(np.floor(tick / columns.width + 1e-9)) - columns.first
        band = (node - bands.first) // bands.height
        if 0 <= column < columns.count and 0 <= band < bands.count and bands.low <= node < bands.high:
            counts[column, band] += 1
            sums[column, band] += 0 if colour is None else getattr(table, colour)[k]
    return counts, sums / np.maximum(counts, 1)


WRITER = """
import sys
sys.path.insert(0, sys.argv[3])
from evsim.log_writer import LogWriter
from oracles import viewed_logs
with LogWriter(sys.argv[1]) as writer:
    for k in range(int(sys.argv[2])):
        writer.append(viewed_logs.clocked(n_events=1500, start_step=200 * k, n_steps=200, dt=1.0, seed=k))
        writer.flush()
        print(k, flush=True)
        sys.stdin.readline()
"""


@contextmanager
def writing(path, n_windows=10):
    """Another process that has written a window of 200 ms; it ends when its input does, or is killed."""
    command = [sys.executable, "-c", WRITER, str(path), str(n_windows), str(Path(__file__).parents[1])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline()
            yield process
        finally:
            process.kill()


def write_on(process):
    """Have it write another window."""
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline()
