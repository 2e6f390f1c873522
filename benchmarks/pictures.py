"""Pictures of logs of 10^2, 10^4, 10^6 and 10^8 events, for the documentation, and the time they take.

Motivation: a raster has to be read at a glance, whatever its size.  The events are made up, but as uneven as
those of a real network: rates of units are spread log-normally, and there are five groups of units with
rhythms, bouts, a volley and steady activity.  Logs go through `evsim.LogWriter` to disk, and pictures are
drawn from there as ``evsim raster`` does.  Two show a gradient that stands in for the one of a replay: of a
loss that depends on a stretch of time, and on groups of units with either sign.

    python benchmarks/pictures.py [--sizes 2 4 6 8] [--folder build/pictures] [--images docs/images]
"""

from __future__ import annotations

import argparse
import io
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evsim.continuous_log import ContinuousLog, ContinuousPopulationLog
from evsim.eventlog import EventLog, PopulationLog
from evsim.events import Events
from evsim.log_file import LogFile
from evsim.log_writer import LogWriter
from evsim.raster import figure
from evsim.timed_events import TimedEvents

#: By power of ten: units, steps of 1 ms, whether time is continuous, and pixels per inch of the picture.
SCENES = {
    2: (16, 250, True, 120),
    4: (200, 4_000, True, 110),
    6: (1_000, 60_000, False, 90),
    8: (10_000, 1_000_000, False, 90),
}
#: Parts of the units that are in each group.
PARTS = (0.3, 0.2, 0.25, 0.15, 0.1)
#: Bytes that a picture in the documentation may have.
MOST_BYTES = 150_000


def activity(group: int, when: NDArray, duration: float) -> NDArray:
    """How active a group is at some times in ms: 1 on average, more or less."""
    part = when / duration
    slow = 1 + 0.6 * np.sin(2 * np.pi * (part * (1.5 + group) + 0.2 * group))
    shapes = (
        slow * (1 + 0.8 * np.sin(2 * np.pi * when / 25)),  # 40 Hz
        0.15 + 4 * ((part * 9 + 0.3) % 1 < 0.18),  # bouts
        slow * (1 + 0.9 * np.sin(2 * np.pi * when / 125)),  # 8 Hz
        0.1 + 5 * np.exp(-(((part - 0.55) / 0.06) ** 2)),  # a volley
        np.full(when.shape, 0.8),
    )
    return shapes[group]


def pieces(n_events: int, n_units: int, n_steps: int) -> Iterator[tuple[int, int, NDArray, NDArray, NDArray]]:
    """Stretches of steps: the first, how many, and step in it, unit and payload of each event in order."""
    rng = np.random.default_rng(3)
    ends = np.rint(np.cumsum(PARTS) * n_units).astype(int)
    starts = np.append(0, ends[:-1])
    weight = rng.lognormal(0.0, 0.8, n_units)
    chance = np.array([weight[a:b].sum() for a, b in zip(starts, ends, strict=True)])
    tables = []  # for a random number, a unit in proportion to its weight
    for a, b in zip(starts, ends, strict=True):
        share = np.cumsum(weight[a:b])
        tables.append(a + np.searchsorted(share / share[-1], (np.arange(65536) + 0.5) / 65536))
    times = np.linspace(0, n_steps, 20_000, endpoint=False)
    mean = sum(chance[g] * activity(g, times, n_steps).mean() for g in range(len(PARTS)))
    per_step = n_events / n_steps / mean
    length = max(int(1_000_000 * n_steps / n_events), 1)
    for first in range(0, n_steps, length):
        step = np.arange(min(length, n_steps - first))
        keys = []
        for g, table in enumerate(tables):
            count = rng.poisson(per_step * chance[g] * activity(g, first + step, n_steps))
            when = np.repeat(step, count)
            keys.append(when * n_units + table[rng.integers(0, 65536, len(when))])
        when, unit = np.divmod(np.unique(np.concatenate(keys)), n_units)
        value = 0.2 + 0.3 * rng.gamma(3, 0.2, len(when)) * (1 + 0.8 * np.sin(9 * unit / n_units))
        yield first, len(step), when, unit, value


def gradient(when: NDArray, unit: NDArray, n_units: int, n_steps: int) -> NDArray:
    """What a replay might write beside the events of a loss at 0.7 of the run."""
    credit = np.exp((when / n_steps - 0.7) / 0.12) * (when < 0.7 * n_steps)
    return credit * np.cos(2 * np.pi * 2.5 * unit / n_units) * (0.5 + 0.5 * np.sin(np.arange(len(when))) ** 2)


def write(path: Path, power: int) -> None:
    """A log of about 10^power events; those of up to 10^6 with a gradient."""
    n_units, n_steps, continuous, _ = SCENES[power]
    rng = np.random.default_rng(0)
    with LogWriter(path, overwrite=True) as writer:
        for first, length, when, unit, value in pieces(10**power, n_units, n_steps):
            lane, credit = np.zeros(len(when), int), None
            if power <= 6:
                credit = gradient(first + when, unit, n_units, n_steps)
            if continuous:
                time = first + when + rng.random(len(when))
                order = np.argsort(time)
                window = {"start": float(first), "stop": float(first + length)}
                sizes = {"n_units": n_units, "n_lanes": 1} | window
                timed = TimedEvents.from_list(time[order], lane, unit[order], value[order], **sizes)
                hidden = ContinuousPopulationLog("hidden", "LIF", n_units, timed)
                hidden.gradient = None if credit is None else credit[order]
                writer.append(
                    ContinuousLog(
                        {"hidden": hidden},
                        start=window["start"],
                        duration=float(length),
                        n_lanes=1,
                        samples=np.zeros(0),
                    )
                )
            else:
                sizes = {"n_units": n_units, "n_lanes": 1, "n_steps": length}
                events = Events.from_list(when, lane, unit, value, **sizes)
                population = PopulationLog("hidden", "EGRU", n_units, 1.0, first, events=events)
                population.gradient = None if credit is None else credit.astype(np.float32)
                whole = {"start_step": first, "n_steps": length, "lengths": np.array([length])}
                writer.append(EventLog({"hidden": population}, dt=1.0, n_lanes=1, **whole))


def draw(path: Path, picture: Path, **options: object) -> None:
    """A picture of a log, with at most 256 colours, and what it took."""
    import matplotlib.backends.backend_agg  # noqa: F401, for its time not to be counted
    from PIL import Image

    start = time.perf_counter()
    with LogFile(path) as file:
        n_events = file["hidden"].n_events
        made = figure(file, **options)
    raw = io.BytesIO()
    made.savefig(raw, format="png")
    seconds = time.perf_counter() - start
    colours = (
        Image.open(raw)
        .convert("RGB")
        .quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    )
    colours.save(picture, optimize=True)
    size = picture.stat().st_size
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    large = "" if size <= MOST_BYTES else ", too large"
    print(
        f"{picture}: {n_events:,} events in {seconds:.2f} s, peak {memory:.2f} GB, {size // 1000} kB{large}"
    )


def main() -> None:
    """Write the logs that are not there, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=sorted(SCENES), choices=sorted(SCENES))
    parser.add_argument("--folder", type=Path, default=Path("build/pictures"))
    parser.add_argument("--images", type=Path, default=Path("docs/images"))
    given = parser.parse_args()
    for folder in (given.folder, given.images):
        folder.mkdir(parents=True, exist_ok=True)
    for power in given.sizes:
        path = given.folder / f"1e{power}.h5"
        if not path.exists():
            start = time.perf_counter()
            write(path, power)
            seconds = time.perf_counter() - start
            print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, made and written in {seconds:.1f} s")
        dpi = SCENES[power][3]
        draw(path, given.images / f"raster-1e{power}.png", dpi=dpi)
        if power in (4, 6):
            draw(path, given.images / f"raster-1e{power}-gradient.png", dpi=dpi, colour="gradient")


if __name__ == "__main__":
    main()
