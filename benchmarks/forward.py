"""Forward time per step of an EGRU layer beside torch.nn.GRU: same sizes, same run, one thread, one lane.

Motivation: at one lane a dense GRU is bound by streaming its weights; an event-driven layer streams only the
rows of units that sent something.  This is a sanity check of that claim, not yet the whole benchmark.

Both are given fresh input at every repetition and carry their state.  They alternate in one process, and the
medians of the repetitions are compared.  The thresholds of the EGRU are set so that its activity is near the
one asked for; the activity really measured is printed.

    python benchmarks/forward.py [--units 512] [--activity 0.1]
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import numpy as np
import torch

from evsim import Network, Simulation
from evsim.core import kernels
from evsim.models import EGRU, EventSource


def network(units: int, activity: float, seed: int) -> Network:
    """Input -> EGRU, both ``units`` wide.

    Thresholds are at each unit's own (1 - activity) quantile, found by iteration.
    """
    net = Network(seed=seed)
    source = net.add(EventSource(units, "input"))
    hidden = net.add(EGRU(units, "hidden", threshold=0.1))
    net.connect(source, hidden)
    net.connect(hidden, hidden, weight="orthogonal")
    threshold = hidden.parameters["threshold"]
    rng = np.random.default_rng(seed)
    for _ in range(20):
        log = Simulation(net, threads=1).run(stimulus(rng, units, activity, 400))
        before_reset = log["hidden"].tape[100:, 0, -1]
        target = np.clip(np.quantile(before_reset, 1 - activity, axis=0), 0.0, 1.0)
        threshold.assign(0.5 * threshold.values + 0.5 * target)
    return net


def stimulus(rng: np.random.Generator, units: int, activity: float, steps: int) -> np.ndarray:
    """Graded events of one lane, shape (steps, 1, units)."""
    values = rng.normal(size=(steps, 1, units)) * (rng.random((steps, 1, units)) < activity)
    return values.astype(np.float32)


def compare(units: int, activity: float, steps: int, repetitions: int) -> dict[str, float]:
    """Median microseconds per step of both, and their ratio's spread over repetitions."""
    net = network(units, activity, seed=0)
    simulation = Simulation(net, threads=1)
    gru = torch.nn.GRU(units, units)
    rng = np.random.default_rng(1)
    times: dict[str, list[float]] = {"evsim": [], "torch": []}
    active = []
    state = None
    with torch.inference_mode():
        for _ in range(repetitions):
            x = stimulus(rng, units, activity, steps)
            start = time.perf_counter()
            # Making events from the dense input is part of the work.
            log = simulation.run(x, carry=True, tape=False)
            times["evsim"].append((time.perf_counter() - start) / steps * 1e6)
            active.append(log["hidden"].activity)
            dense = torch.from_numpy(x)
            start = time.perf_counter()
            _, state = gru(dense, state)
            times["torch"].append((time.perf_counter() - start) / steps * 1e6)
    ratio = np.array(times["torch"]) / np.array(times["evsim"])
    return {
        "activity": float(np.mean(active[5:])),
        "evsim": float(np.median(times["evsim"])),
        "torch": float(np.median(times["torch"])),
        "ratio": float(np.median(ratio)),
        "low": float(np.quantile(ratio, 0.1)),
        "high": float(np.quantile(ratio, 0.9)),
    }


def main() -> None:
    """Print one line per size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, nargs="+", default=[128, 256, 512, 1024])
    parser.add_argument("--activity", type=float, default=0.1)
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[64, 256], help="per call: a call has a fixed cost"
    )
    parser.add_argument("--repetitions", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"evsim kernels: {kernels.in_use()}; torch {torch.__version__}; one thread, one lane")
    print("steps  units   alpha  evsim us/step  nn.GRU us/step   ratio   10-90 %")
    for steps in options.steps:
        for units in options.units:
            r = compare(units, options.activity, steps, options.repetitions)
            print(
                f"{steps:5d} {units:6d} {r['activity']:7.3f} {r['evsim']:14.1f} {r['torch']:15.1f} "
                f"{r['ratio']:6.1f}x   {r['low']:.1f}-{r['high']:.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
