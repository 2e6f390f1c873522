"""What an event costs as a network of LIF units grows: 1000 to 100,000 units, 100 targets each.

Motivation: with the same rates and fan-out, events per second grow with the units, and the cost of one
delivered event should not.  The queue is a heap, whose depth grows with the logarithm of the units, and
targets lie further apart in memory than caches hold; both are to cost less than a factor of two.  And a
long run must not grow: what it keeps is the log.

Units: threshold 1, reset 0, membrane 20 ms, synapses 5 and 10 ms, refractory for 2 ms, a constant drive
that differs from unit to unit (0.9 to 1.3: some fire by themselves, some only with input); 80 % are
excitatory, weights cancel on average. Each run goes on from a first part that is not counted.  All sizes
in turn, one thread, processor time, no tape.

    python benchmarks/fanout.py
    python benchmarks/fanout.py --units 1000 10000 --deliveries 2e6 --long 0

"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from processes import Contestant, best_and_median, one_core, peak, race, seconds, serve, verdict

FAN_OUT = 100
#: There are four excitatory units to an inhibitory one, whose current lasts twice as long: charges cancel.
WEIGHTS = {"excitatory": 0.01, "inhibitory": -0.02}
#: Cost per delivery of the dearest size / that of the cheapest, at most.  Growth of the long run, bytes per
#: event, at most: the log's columns (time and value 8, lane and unit 4) and the record they are made of.
AIM, AIM_GROWTH = 2.0, 48.0


def connections(n: int, rng: np.random.Generator) -> dict[str, tuple[NDArray, NDArray, NDArray]]:
    """Weights, targets and row pointers (CSR) of the excitatory and the inhibitory units' rows."""
    targets = np.sort(rng.integers(0, n, (n, FAN_OUT), dtype=np.int32), axis=1)
    while (twice := targets[:, 1:] == targets[:, :-1]).any():  # no target twice
        rows = np.nonzero(twice.any(axis=1))[0]
        targets[rows] = np.sort(rng.integers(0, n, (len(rows), FAN_OUT), dtype=np.int32), axis=1)
    n_excitatory = n * 4 // 5
    found = {}
    for port, rows in (("excitatory", range(n_excitatory)), ("inhibitory", range(n_excitatory, n))):
        counts = np.zeros(n, np.int64)
        counts[rows] = FAN_OUT
        data = np.full(len(rows) * FAN_OUT, WEIGHTS[port], np.float32)
        found[port] = data, targets[rows].ravel(), np.concatenate([[0], np.cumsum(counts)])
    return found


class Evsim:
    """A network of one size, in a process of its own."""

    def load(self, n: int, seed: int) -> float:
        """Build the network; bytes of resident memory."""
        from scipy.sparse import csr_array

        import evsim
        from evsim.models import LIF

        rng = np.random.default_rng(seed)
        net = evsim.Network(dt=None)
        drive = rng.uniform(0.9, 1.3, n)
        cells = net.add(LIF(n, "cells", bias=drive, refractory=2.0))
        for port, csr in connections(n, rng).items():
            net.connect(cells, cells, weight=csr_array(csr, shape=(n, n)), port=port, name=port)
        self.simulation = evsim.Simulation(net, threads=1)
        self.n, self.initial = n, {"cells": {"v": rng.random(n)}}
        return resident()

    def warm_up(self, duration: float) -> float:
        """Run the first part; Hz per unit."""
        run = self.simulation.run
        return self._run(lambda: run({}, duration, initial=self.initial, tape=False), duration)[1]

    def run(self, duration: float) -> tuple[float, float, int]:
        """Go on; seconds, Hz per unit, deliveries."""
        return self._run(lambda: self.simulation.run({}, duration, carry=True, tape=False), duration)

    def _run(self, call: Callable[[], Any], duration: float) -> tuple[float, float, int]:
        def run() -> None:
            self.log = call()

        taken = seconds(run)
        n_events = len(self.log["cells"].time)
        return taken, 1e3 * n_events / self.n / duration, n_events * FAN_OUT

    def memory(self) -> tuple[float, float]:
        """Bytes: resident now, and the largest so far."""
        return resident(), peak()


def resident() -> float:
    """Bytes of this process in memory; Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * float(next(line.split()[1] for line in lines if line.startswith("VmRSS:")))


def start(n: int, seed: int, warm_up: float) -> tuple[Contestant, float]:
    """A process with a network that has settled, and its rate, Hz."""
    one = Contestant(f"{n} units", sys.executable, __file__, "--serve")
    held = one.ask("load", n=n, seed=seed)
    rate = one.ask("warm_up", duration=warm_up)
    print(f"{n:7} units: {rate:.1f} Hz in the first {warm_up:g} ms; {held / 1e6:.0f} MB")
    return one, rate


def costs(options: argparse.Namespace) -> None:
    """Print the cost per delivery at each size."""
    contestants: dict[str, Contestant] = {}
    durations, deliveries, rates = {}, {}, {}
    try:
        for n in options.units:
            one, rate = start(n, options.seed, options.warm_up)
            contestants[one.name] = one
            durations[one.name] = 1e3 * options.deliveries / (n * rate * FAN_OUT)

        def asker(name: str) -> Callable[[], float]:
            def ask() -> float:
                taken, rates[name], deliveries[name] = contestants[name].ask("run", duration=durations[name])
                return 1e9 * taken / deliveries[name]

            return ask

        found = race({name: asker(name) for name in contestants}, options.seconds)
        medians = []
        for name, each in found.items():
            best, middle = best_and_median(each)
            medians.append(middle)
            print(
                f"{name:>13}: {best:.2f} ns per delivery best, {middle:.2f} median of {len(each)}; "
                f"{deliveries[name]:,} in {durations[name]:.0f} ms at {rates[name]:.1f} Hz"
            )
        if len(medians) > 1:
            print(f"dearest / cheapest: {verdict(max(medians) / min(medians), AIM, at_most=True)}")
    finally:
        for one in contestants.values():
            one.end()


def long_run(options: argparse.Namespace) -> None:
    """Print what memory a single run of many deliveries takes."""
    n = options.long_units
    one, rate = start(n, options.seed, options.warm_up)
    with one:
        one.ask("run", duration=1e3 * options.deliveries / (n * rate * FAN_OUT))
        before, peak_before = one.ask("memory")
        taken, rate, deliveries = one.ask("run", duration=1e3 * options.long / (n * rate * FAN_OUT))
        after, peak_after = one.ask("memory")
    n_events = deliveries // FAN_OUT
    print(
        f"one run of {deliveries:,} deliveries, {n_events:,} events at {rate:.1f} Hz: {taken:.1f} s, "
        f"{1e9 * taken / deliveries:.2f} ns each\n"
        f"memory before {before / 1e6:.1f} MB (peak {peak_before / 1e6:.1f}), after {after / 1e6:.1f} MB "
        f"(peak {peak_after / 1e6:.1f}); the log's columns are {24e-6 * n_events:.1f} MB\n"
        f"growth of the peak, bytes per event: "
        f"{verdict((peak_after - peak_before) / n_events, AIM_GROWTH, at_most=True)}"
    )


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, nargs="*", default=[1000, 10_000, 100_000])
    parser.add_argument("--deliveries", type=float, default=1e7, help="of each timed run")
    parser.add_argument("--long", type=float, default=1e8, help="deliveries of the long run; 0 leaves it out")
    parser.add_argument("--long-units", type=int, default=10_000)
    parser.add_argument("--warm-up", type=float, default=300.0, help="ms")
    parser.add_argument("--seconds", type=float, default=30.0, help="for all sizes, as far as 3 rounds allow")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        own = Evsim()
        serve(load=own.load, warm_up=own.warm_up, run=own.run, memory=own.memory)
        return
    print(f"one thread, core {one_core()}; processor time; fan-out {FAN_OUT}")
    if options.units:
        costs(options)
    if options.long:
        long_run(options)


if __name__ == "__main__":
    main()
