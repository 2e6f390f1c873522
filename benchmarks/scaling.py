"""What the time of an event-driven EGRU layer grows with: units, steps, lanes, activity; what is left at 0.

Motivation: work should grow with events.  The exponent p of cost ~ x ** p says whether time does: 1 for
activity, steps and lanes; between 1 (gates) and 2 (rows) for units.  A step without events has a price too,
and so has a call.  One thread, activity 0.1 unless it says otherwise; all points of a line are timed in turn.

    python benchmarks/scaling.py [--modes forward]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

import numpy as np
from peers import Evsim, Layer, Level, stimulus
from timing import CLOCKS, Task, Times, compare, describe, exponent, pin, quiet_warnings

ACTIVITY = 0.1
MODES = ("forward", "training")


class Bench:
    """Layers, made once, and how they are timed."""

    def __init__(self, options: argparse.Namespace):
        self.seconds, self.clock = options.seconds, CLOCKS[options.clock]
        self.rng, self.layers = np.random.default_rng(0), {}

    def task(self, mode: str, units: int, steps: int, lanes: int, activity: float) -> Task:
        """Calls of a layer of its own state."""
        if units not in self.layers:
            self.layers[units] = Layer(units)
        one, training = Evsim(self.layers[units], activity), mode == "training"
        g = self.rng.standard_normal((steps if training else 0, lanes, units), dtype=np.float32)

        def fresh():
            x = one.take(stimulus(self.rng, units, activity, steps, lanes))
            return (lambda: one.train(x, g)) if training else (lambda: one.forward(x))

        return fresh

    def race(self, tasks: Mapping[str, Task]) -> Times:
        """Times per call."""
        return compare(tasks, dict.fromkeys(tasks, 1), self.seconds, self.clock)

    def line(self, mode: str, what: str, points: Sequence[float], **fixed: float) -> None:
        """Print the cost of a call at some points, and the exponent."""
        arguments = {"units": 512, "steps": 64, "lanes": 1, "activity": ACTIVITY} | fixed
        times = self.race({f"{p:g}": self.task(mode, **arguments | {what: p}) for p in points})
        cost = [times[f"{p:g}"] for p in points]
        each = "  ".join(f"{p:g}: {1e3 * c:.2f}" for p, c in zip(points, cost, strict=True))
        last = f", {exponent(points[-2:], cost[-2:]):.2f} at the end" if len(points) > 2 else ""
        where = ", ".join(f"{k} {v:g}" for k, v in arguments.items() if k not in (what, "activity"))
        power = f"{exponent(points, cost):.2f}{last:17}"
        print(f"{mode:8}  {what:8} ** {power}  {where:34}  ms: {each}", flush=True)


def doubling(bench: Bench, mode: str, units: int) -> None:
    """Print what twice the activity costs (aim: at most 2.2 times)."""
    times = bench.race({f"{a}": bench.task(mode, units, 64, 1, a) for a in (0.05, 0.1)})
    middle, low, high = times.ratio("0.1", "0.05")
    verdict = "yes" if middle <= 2.2 else "NO"
    ratio = f"{middle:.2f} times ({low:.2f}-{high:.2f}), aim 2.2 {verdict}"
    print(f"{mode:8}  activity 0.05 -> 0.1, {units} units: {ratio}")


def empty_steps(bench: Bench, units: int) -> None:
    """Print what a step and a call cost when nothing is sent (aim: below 3 us a step)."""
    layer = bench.layers.get(units) or Layer(units)
    layer.levels[0.0] = Level(0.0, 1.0, 0.0, 1.0)  # states do not exceed 1
    one = Evsim(layer, 0.0)

    def silent(steps: int) -> Task:
        x = np.zeros((steps, 1, units), np.float32)
        return lambda: (one.take(x), lambda: one.forward(x))[1]

    times = bench.race({"64": silent(64), "1088": silent(1088)})
    step = (times["1088"] - times["64"]) / 1024
    call = times["64"] - 64 * step
    assert one.alpha == 0
    verdict = "yes" if step < 3e-6 else "NO"
    per_step = f"{1e6 * step:.2f} us per step (aim 3 {verdict})"
    print(f"empty, {units} units: {per_step}, {1e6 * call:.0f} us per call")


def main() -> None:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=MODES)
    parser.add_argument("--clock", choices=list(CLOCKS), default="processor")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each line, as far as 3 rounds allow")
    options = parser.parse_args()
    pin(1)
    quiet_warnings()
    print(f"{describe(1)}; {options.clock} time")
    bench = Bench(options)
    empty_steps(bench, 256)
    for mode in options.modes:
        doubling(bench, mode, 512)
        bench.line(mode, "units", [128, 256, 512, 1024, 2048], steps=32)
        bench.line(mode, "steps", [16, 64, 256, 1024], units=256)
        bench.line(mode, "lanes", [1, 2, 4, 8, 16, 32], steps=32)
        bench.line(mode, "activity", [0.01, 0.03, 0.1, 0.3, 1.0])


if __name__ == "__main__":
    main()
