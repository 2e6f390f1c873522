"""Kills processes that write event logs, at random instants, and looks at what they leave behind.

    python tests/kill_writers.py            # 200 of them, about two minutes

Each writes until it is killed: in steps or in continuous time, small windows or large ones.  Through a pipe
it tells how many windows it had put on file.  What it leaves must open, hold all of those, each event once
and with the right bits, and pass the check; and so must its copy, which is complete.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from evsim.continuous_log import ContinuousLog, ContinuousPopulationLog
from evsim.errors import LogError
from evsim.eventlog import EventLog, PopulationLog
from evsim.events import Events
from evsim.log_file import LogFile
from evsim.log_writer import LogWriter
from evsim.timed_events import TimedEvents

#: Different windows; window k of a run is the k-th of them, and again from the first.
POOL = 5
STEPS, LANES = 8, 2


class Steps:
    """Windows of a run in steps: two populations that send, and a readout."""

    def __init__(self, seed, n_units, density):
        rng = np.random.default_rng(seed)
        shape = (STEPS, LANES, n_units)
        self.n_units = n_units
        self.sent = [
            [Events.from_dense(rng.normal(size=shape) * (rng.random(shape) < density)) for _ in range(POOL)]
            for _ in range(2)
        ]
        self.tape = [rng.normal(size=(STEPS, LANES, 1, 3)).astype(np.float32) for _ in range(POOL)]

    def window(self, k):
        members = {
            name: PopulationLog(name, "EGRU", self.n_units, 1.0, k * STEPS, events=sent[k % POOL])
            for name, sent in zip(("cue", "hidden"), self.sent, strict=True)
        }
        members["answer"] = PopulationLog("answer", "LeakyReadout", 3, 1.0, k * STEPS, tape_fields=("v",))
        members["answer"].tape = self.tape[k % POOL]
        return EventLog(
            members,
            dt=1.0,
            start_step=k * STEPS,
            n_steps=STEPS,
            n_lanes=LANES,
            lengths=[STEPS] * LANES,
            counters={"lane_steps": STEPS * LANES},
        )

    def check(self, file):
        """Hold a file against these windows; how many it has."""
        n_windows, rest = divmod(file.n_steps, STEPS)
        assert rest == 0, f"{file.n_steps} steps"
        assert file.counters == {"lane_steps": STEPS * LANES * n_windows}
        for k in range(n_windows):
            ours, theirs = self.window(k), file.steps(k * STEPS, (k + 1) * STEPS)
            for name in ours:
                assert ours[name].equal(theirs[name]), f"window {k}, '{name}'"
        return n_windows


class Timed:
    """Windows of a run in continuous time, one ms each."""

    def __init__(self, seed, n_units, density):
        rng = np.random.default_rng(seed)
        self.n_units, n_events = n_units, max(int(n_units * LANES * STEPS * density), 1)
        self.sent = []
        for _ in range(POOL):
            columns = (
                rng.integers(0, 2**20, n_events) / 2**20,  # adding whole numbers to these is exact
                rng.integers(0, LANES, n_events),
                rng.integers(0, n_units, n_events),
            )
            _, first = np.unique(np.stack(columns), axis=1, return_index=True)
            columns = [column[first] for column in columns]
            values = rng.normal(size=len(first))
            sizes = {"n_units": n_units, "n_lanes": LANES, "start": 0.0, "stop": 1.0}
            self.sent.append(TimedEvents.from_list(*columns, values, **sizes))

    def window(self, k):
        sent = self.sent[k % POOL]
        moved = TimedEvents(
            self.n_units, LANES, float(k), float(k + 1), sent.time + k, sent.lane, sent.unit, sent.value
        )
        hidden = ContinuousPopulationLog("hidden", "LIF", self.n_units, moved)
        return ContinuousLog({"hidden": hidden}, start=k, duration=1, n_lanes=LANES, counters={"windows": 1})

    def check(self, file):
        """Hold a file against these windows; how many it has."""
        n_windows = int(file.stop)
        assert n_windows == file.stop
        assert file.counters == {"windows": n_windows}
        for k in range(n_windows):
            theirs = file.window(k, k + 1)["hidden"].events
            assert self.window(k)["hidden"].events.equal(theirs), f"window {k}"
        assert file["hidden"].n_events == sum(len(self.sent[k % POOL]) for k in range(n_windows))
        return n_windows


#: (windows, units, density)
RUNS = {
    "steps, small": (Steps, 20, 0.2),
    "time, small": (Timed, 20, 0.2),
    "steps, large": (Steps, 3000, 0.8),
    "time, large": (Timed, 3000, 0.8),
}


def write(windows, path, seed, pipe):
    """Write until killed; after each `flush`, tell how many windows are on file."""
    often = random.Random(seed).choice([1.0, 0.3, 0.02])
    chance = random.Random(seed + 1)
    with LogWriter(path) as writer:
        for k in range(10**9):
            writer.append(windows.window(k))
            if chance.random() < often:
                writer.flush()
                os.write(pipe, b"%d\n" % (k + 1))


def kill_one(windows, path, seed, longest):
    """Start a writer, kill it, and check what is there.

    Returns
    -------
    told, found : int
        Windows that the writer had put on file, as far as it told, and those that are there.
    """
    listen, pipe = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(listen)
            write(windows, path, seed, pipe)
        finally:
            os._exit(1)  # only after an error
    os.close(pipe)
    chance = random.Random(seed + 2)
    first = os.read(listen, 1) if chance.random() < 0.8 else b""  # the others may not come so far
    time.sleep(chance.uniform(0, longest))
    os.kill(child, signal.SIGKILL)
    with os.fdopen(listen, "rb") as told:
        lines = (first + told.read()).split(b"\n")[:-1]
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the writer failed before it was killed"
    told = int(lines[-1]) if lines else 0
    return told, look(windows, path, told)


def look(windows, path, told):
    """Check what a killed writer has left, and a copy of it; how many windows that is."""
    try:
        file = LogFile(path)
    except LogError as error:
        if told or not any(what in str(error) for what in ("there is no such file", "holds nothing yet")):
            raise
        return 0
    with file:
        assert not file.complete
        found = windows.check(file)
        assert found >= told, f"{found} windows on file, but {told} were put there"
        problems = file.check()
        assert not problems, problems
        copied = file.copy(path.with_name("copy.h5"))
    with LogFile(copied) as file:
        assert file.complete
        assert windows.check(file) == found
        assert not file.check()
    return found


def main():
    """Kill as many as asked for; 1 if what one of them left is not right."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("n", type=int, nargs="?", default=200, help="writers to kill [200]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=0.6, help="seconds that one may write [0.6]")
    chosen = parser.parse_args()
    failures, opened, n_windows, n_told = 0, 0, 0, 0
    made = {name: kind(chosen.seed, *sizes) for name, (kind, *sizes) in RUNS.items()}
    for k in range(chosen.n):
        name = list(RUNS)[k % len(RUNS)]
        with tempfile.TemporaryDirectory() as folder:
            try:
                told, found = kill_one(
                    made[name], Path(folder) / "run.h5", chosen.seed + 10 * k, chosen.longest
                )
            except Exception as error:
                failures += 1
                print(f"writer {k} ({name}): {type(error).__name__}: {error}", flush=True)
                continue
        opened, n_windows, n_told = opened + (found > 0), n_windows + found, n_told + told
    print(
        f"{chosen.n} writers killed: {opened} left a file with windows ({n_windows}, of which {n_told} were"
        f" known to be on file), {chosen.n - opened - failures} were killed before that, {failures} failed"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
