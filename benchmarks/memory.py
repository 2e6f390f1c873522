"""Peak memory and time of one training step of a long sequence, beside torch's layers and a dense EGRU.

Motivation: a full tape of every step is what makes long sequences large.  Each contestant runs in a process
of its own: it is made and warmed up with a short sequence, then the peak of its resident memory during one
forward and backward over the long one is compared with what it held just before, when input and upstream
gradient were there already.  Times are processor time, the shortest of three further steps.  Gradients
are as in speed.py; Linux only.

    python benchmarks/memory.py [--units 512] [--lanes 8] [--steps 1024]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

NAMES = ("evsim, full tape", "evsim, checkpoints", "torch nn.GRU", "torch nn.LSTM", "torch EGRU")
ACTIVITY = 0.1
#: Steps from one checkpoint to the next.
CHECKPOINT = 48
#: Aims, at most: the full tape's peak / that of torch.nn.GRU; checkpoints / full tape, in memory and in time.
AIM_TAPE, AIM_CHECKPOINTS, AIM_TIME = 0.6, 0.25, 1.4


def grown(name: str, units: int, lanes: int, steps: int) -> tuple[float, float]:
    """Bytes by which the peak of this process exceeds what it held before, and seconds."""
    import time

    import numpy as np
    from peers import stimulus
    from timing import pin

    pin(1)
    contestant = make(name, units)
    rng = np.random.default_rng(0)
    for length in (8, steps):
        x = contestant.take(stimulus(rng, units, ACTIVITY, length, lanes))
        g = contestant.take(stimulus(rng, units, 1.0, length, lanes))
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before = status("VmRSS")
        contestant.train(x, g)
    peak, seconds = status("VmHWM") - before, []
    for _ in range(3):
        start = time.process_time()
        contestant.train(x, g)
        seconds.append(time.process_time() - start)
    return peak, min(seconds)


def make(name: str, units: int) -> Any:
    """A contestant of speed.py."""
    import torch
    from peers import Evsim, Layer, TorchEGRU, TorchLayer

    if name == "torch nn.GRU":
        return TorchLayer(torch.nn.GRU, units)
    if name == "torch nn.LSTM":
        return TorchLayer(torch.nn.LSTM, units)
    layer = Layer(units)
    if name == "torch EGRU":
        return TorchEGRU(layer, layer.level(ACTIVITY).eps)
    return Evsim(layer, ACTIVITY, checkpoint=CHECKPOINT if "checkpoints" in name else None)


def status(key: str) -> float:
    """Bytes, from a line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * float(next(line.split()[1] for line in lines if line.startswith(f"{key}:")))


def main() -> None:
    """Start a process for each contestant and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, default=512)
    parser.add_argument("--lanes", type=int, default=8)
    parser.add_argument("--steps", type=int, default=1024)
    parser.add_argument("--only", choices=NAMES, help="measure in this process, print bytes as JSON")
    options = parser.parse_args()
    size = options.units, options.lanes, options.steps
    if options.only:
        print(json.dumps(grown(options.only, *size)))
        return
    found = {}
    for name in NAMES:
        command = [sys.executable, *sys.argv, "--only", name]
        found[name] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    numbers = options.steps * options.lanes * options.units
    print(f"{options.units} units, {options.lanes} lanes, {options.steps} steps, activity {ACTIVITY:g}:")
    print("growth of peak memory in one training step; that in numbers of 4 bytes per unit, lane and step;")
    print("share of nn.GRU's; us per step")
    for name, (peak, seconds) in found.items():
        print(
            f"{name:20} {peak / 1e6:8.1f} MB {peak / 4 / numbers:6.1f} {peak / found['torch nn.GRU'][0]:8.0%}"
            f" {1e6 * seconds / options.steps:10.0f}"
        )
    full, checkpoints = found["evsim, full tape"], found["evsim, checkpoints"]
    for text, value, aim in (
        ("full tape / nn.GRU, memory", full[0] / found["torch nn.GRU"][0], AIM_TAPE),
        (
            f"every {CHECKPOINT} steps / full tape, memory",
            checkpoints[0] / full[0],
            AIM_CHECKPOINTS,
        ),
        (f"every {CHECKPOINT} steps / full tape, time", checkpoints[1] / full[1], AIM_TIME),
    ):
        print(f"{text}: {value:.2f}, aim at most {aim:g}: {'yes' if value <= aim else 'NO'}")


if __name__ == "__main__":
    main()
