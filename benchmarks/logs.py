"""Event logs on disk: writing, size, windows and inspection, beside plain h5py in SONATA's own types.

Motivation: a raster is recorded for hours and looked at for days.  One process writes events window by
window through `evsim.LogWriter`, on one thread; the peer writes the same columns as SONATA's specification
has them (uint64 ids, float64 times, float32 payloads, no journal, no checksums, no index), in blocks of the
same size.  Then fresh processes ask for windows of a thousandth of the file, and run `evsim inspect`.

Events are those of 1024 units in 8 lanes, of which a tenth is active in each step, in random order of units
and with random payloads; 32 windows of them are made beforehand and written again and again.

    python benchmarks/logs.py [--events 1e9] [--folder .] [--no-peer] [--keep]

The default writes 7 GB.  "Cold" means a new process and new Python objects, not an empty cache of the disk.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

UNITS, LANES, ACTIVITY = 1024, 8, 0.1
#: Steps of a window: about 260 thousand events.
STEPS = 320
#: Aims: million events a second, bytes an event, GB of memory, seconds for a window and for inspect.
AIM_RATE, AIM_BYTES, AIM_MEMORY, AIM_WINDOW, AIM_INSPECT = 20.0, 7.0, 2.0, 0.2, 10.0


def prepared() -> list:
    """Windows of events, all at step 0."""
    from evsim.events import Events

    rng = np.random.default_rng(0)
    made = []
    for _ in range(32):
        active = rng.random((STEPS, LANES, UNITS), np.float32) < ACTIVITY
        dense = np.where(active, 0.1 + rng.random(active.shape, np.float32), np.float32(0))
        made.append(Events.from_dense(dense))
    return made


def windows(n_events: int, made: list) -> Iterator[tuple[int, object]]:
    """Windows until there are so many events: their first step and their events."""
    step = k = written = 0
    while written < n_events:
        events = made[k % len(made)]
        yield step, events
        written, step, k = written + len(events), step + STEPS, k + 1


def write_ours(path: Path, n_events: int) -> dict[str, float]:
    """Write a log; events, seconds and memory."""
    from evsim.eventlog import EventLog, PopulationLog
    from evsim.log_writer import LogWriter

    made = prepared()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu, total = time.perf_counter(), time.process_time(), 0
    with LogWriter(path, overwrite=True) as writer:
        for step, events in windows(n_events, made):
            hidden = PopulationLog("hidden", "EGRU", UNITS, 1.0, step, events=events)
            lengths = np.full(LANES, STEPS)
            log = EventLog(
                {"hidden": hidden}, dt=1.0, start_step=step, n_steps=STEPS, n_lanes=LANES, lengths=lengths
            )
            log.provenance = {"evsim": "benchmark"}
            writer.append(log)
            total += len(events)
    return cost(path, total, start, cpu, before)


def write_plain(path: Path, n_events: int) -> dict[str, float]:
    """The same columns by h5py alone, in SONATA's own types."""
    import h5py

    made = prepared()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu, total = time.perf_counter(), time.process_time(), 0
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        group = file.create_group("spikes/hidden")
        columns = [
            group.create_dataset(name, (0,), dtype, maxshape=(None,), chunks=(65536,))
            for name, dtype in (("timestamps", "f8"), ("node_ids", "u8"), ("value", "f4"))
        ]
        for step, events in windows(n_events, made):
            times = (events.step + step).astype("f8")
            nodes = (events.lane * UNITS + events.unit).astype("u8")
            end = total + len(events)
            for column, rows in zip(columns, (times, nodes, events.value), strict=True):
                column.resize((end,))
                column[total:] = rows
            total = end
    return cost(path, total, start, cpu, before)


def cost(path: Path, total: int, start: float, cpu: float, before: int) -> dict[str, float]:
    """What writing took, from when it began."""
    return {
        "events": total,
        "rate": total / (time.perf_counter() - start) / 1e6,
        "cpu_rate": total / (time.process_time() - cpu) / 1e6,
        "bytes": os.path.getsize(path) / total,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "grown": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6,
    }


def ask(path: Path, at: float) -> dict[str, float]:
    """Seconds to open a file and get the columns of a thousandth of it, from some part on; not to import."""
    from evsim.log_file import LogFile

    start = time.perf_counter()
    with LogFile(path) as file:
        first = file.start + at * file.duration
        table = file["hidden"].table(first, first + 1e-3 * file.duration)
    return {"seconds": time.perf_counter() - start, "rows": len(table)}


def elsewhere(*arguments: object) -> dict[str, float]:
    """What a fresh process of this script answers."""
    command = [sys.executable, __file__, "--ask", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--events", type=float, default=1e9, help="events to write")
    parser.add_argument("--folder", type=Path, default=Path(), help="where to write them")
    parser.add_argument("--no-peer", action="store_true", help="do not write them by plain h5py, too")
    parser.add_argument("--keep", action="store_true", help="leave the file there")
    parser.add_argument("--ask", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ask:
        what, path, number = options.ask
        answer = {"ours": write_ours, "plain": write_plain, "window": ask}[what]
        print(json.dumps(answer(Path(path), float(number) if what == "window" else int(float(number)))))
        return
    path = options.folder / "evsim-benchmark.h5"
    try:
        for what in ("ours",) if options.no_peer else ("plain", "ours"):
            found = elsewhere(what, path, min(options.events, 1e8) if what == "plain" else options.events)
            print(
                f"{'evsim' if what == 'ours' else 'h5py':6} {found['events']:13,.0f} events: "
                f"{found['rate']:5.1f} M/s ({found['cpu_rate']:.1f} by processor time), "
                f"{found['bytes']:5.2f} bytes an event, peak memory {found['memory']:.2f} GB "
                f"({found['grown']:.2f} of it while writing)",
                flush=True,
            )
        print(f"       aims: {AIM_RATE:g} M/s, {AIM_BYTES:g} bytes, {AIM_MEMORY:g} GB")
        asked = [elsewhere("window", path, at) for at in (0.5, 0.0, 0.25, 0.75, 0.998)]
        worst, rows = max(one["seconds"] for one in asked), asked[0]["rows"]
        median = statistics.median(one["seconds"] for one in asked)
        print(
            f"window of {rows:,} events: {1e3 * median:.0f} ms, at worst {1e3 * worst:.0f} ms "
            f"(aim {1e3 * AIM_WINDOW:g})"
        )
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "evsim", "inspect", str(path)], check=True)
        print(f"inspect: {time.perf_counter() - start:.2f} s (aim {AIM_INSPECT:g})")
    finally:
        if not options.keep:
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
