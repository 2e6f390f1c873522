"""CUBA, the classic network of 4000 current-based neurons, beside NEST's precise neuron and Brian2 in C++.

Motivation: this is the network that simulators are compared with (Vogels & Abbott 2005; Brette et al.
2007, benchmark 2).  Exact event times are worth having if they cost no more than a fine time grid does.

Membrane 20 ms, synapses 5 and 10 ms, leak towards -49 mV, threshold -50, reset -60, refractory for 5 ms;
3200 excitatory and 800 inhibitory neurons, connected at random with probability 0.02; an excitatory event
adds 1.62 mV to its current, an inhibitory one -9 mV; potentials start anywhere between reset and
threshold.  All get the same connections and potentials as arrays.  The network is chaotic: no two
simulators find the same events, but the same rates.

- evsim finds exact times and delivers at once.
- NEST's `iaf_psc_exp_ps` finds exact times, but delivers after a delay, at least its resolution. "nest"
  has 0.1 ms for both, nearest to no delay; "nest-defaults" its default resolution and delay, 0.1 and 1 ms;
  "nest-coarse" 1 ms for both, the coarsest and fastest grid for that delay.
- Brian2 rounds times to 0.1 ms and delivers at once.

One biological second, one thread, one core, in turn, a new network for each run; processor time of the
loop over time alone (for Brian2 what it reports, which is that), recording of events included.

    python benchmarks/cuba.py [--seconds 60]
    python benchmarks/cuba.py --only nest brian2

The file handed to all: indptr (4001,) and indices, the targets of each neuron; weight (4000,) mV, of what
each neuron sends; v (4000,) mV; bias (the leak's goal), threshold, reset, mV; tau_m, tau_e, tau_i,
refractory, ms.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from processes import (
    BENCHMARKS,
    BUILD,
    Contestant,
    best_and_median,
    environment,
    one_core,
    peak,
    race,
    ratio,
    seconds,
    serve,
    verdict,
)

#: Brian2 2.9 is the last for Python 3.11 and cannot be imported with NumPy 2.4.
BRIAN2 = ["brian2>=2.10", "setuptools"]
if sys.version_info < (3, 12):
    BRIAN2 = ["brian2>=2.9", "numpy<2.4", "setuptools"]
NEST = ["nest-simulator"]
#: Resolution and delay, ms.
NEST_GRIDS = {"nest": (0.1, 0.1), "nest-defaults": (0.1, 1.0), "nest-coarse": (1.0, 1.0)}
#: Times faster than NEST, at least; times Brian2's loop, at most.
AIM_NEST, AIM_BRIAN2 = 8.0, 1.5


def network(seed: int = 0, n_excitatory: int = 3200, n_inhibitory: int = 800) -> dict[str, NDArray]:
    """The arrays of the file."""
    rng = np.random.default_rng(seed)
    n = n_excitatory + n_inhibitory
    targets = [np.nonzero(rng.random(n) < 0.02)[0] for _ in range(n)]
    weight = np.where(np.arange(n) < n_excitatory, 1.62, -9.0)
    scalars = {
        "bias": -49.0,
        "threshold": -50.0,
        "reset": -60.0,
        "tau_m": 20.0,
        "tau_e": 5.0,
        "tau_i": 10.0,
        "refractory": 5.0,
    }
    return {
        "indptr": np.concatenate([[0], np.cumsum([len(t) for t in targets])]),
        "indices": np.concatenate(targets),
        "weight": weight,
        "v": rng.uniform(scalars["reset"], scalars["threshold"], n),
        **{name: np.array(value) for name, value in scalars.items()},
    }


class Evsim:
    """The same network in evsim; answers the same requests as nest_peer.py."""

    def load(self, path: str) -> dict[str, Any]:
        """Build the network of a file."""
        from scipy.sparse import csr_array

        import evsim
        from evsim.core import kernels
        from evsim.models import LIF

        with np.load(path) as file:
            case = dict(file)
        n = len(case["v"])
        net = evsim.Network(dt=None)
        names = "tau_m", "tau_e", "tau_i", "bias", "threshold", "reset", "refractory"
        cells = net.add(LIF(n, "cells", **{name: float(case[name]) for name in names}))
        senders = np.repeat(np.arange(n), np.diff(case["indptr"]))
        weights = case["weight"][senders]
        for port, here in (("excitatory", weights > 0), ("inhibitory", weights < 0)):
            entries = (weights[here], (senders[here], case["indices"][here]))
            net.connect(cells, cells, weight=csr_array(entries, shape=(n, n)), port=port, name=port)
        self.simulation = evsim.Simulation(net, threads=1)
        self.initial = {"cells": {"v": case["v"]}}
        return {"versions": f"evsim {evsim.__version__}, kernels {kernels.in_use()}"}

    def run(self, duration: float) -> float:
        """Seconds of one run without tape."""

        def run() -> None:
            self.log = self.simulation.run({}, duration, initial=self.initial, tape=False)

        return seconds(run)

    def events(self, path: str) -> int:
        """Write time and unit of the events of the last run; their number."""
        cells = self.log["cells"]
        np.savez(path, time=cells.time, unit=cells.unit)
        return len(cells.time)


def start(name: str, path: Path, duration: float, stack: ExitStack) -> Contestant:
    """A contestant's process, its network loaded."""
    if name == "evsim":
        one = Contestant(name, sys.executable, __file__, "--serve")
        arguments: dict[str, Any] = {}
    elif name == "brian2":
        one = Contestant(name, environment("brian2-venv", BRIAN2), str(BENCHMARKS / "brian2_peer.py"))
        arguments = {"dt": 0.1, "duration": duration, "folder": str(BUILD / "brian2-cuba")}
    else:
        one = Contestant(name, environment("nest-venv", NEST), str(BENCHMARKS / "nest_peer.py"))
        arguments = dict(zip(("resolution", "delay"), NEST_GRIDS[name], strict=True))
    stack.enter_context(one)
    told = one.ask("load", path=str(path), **arguments)
    built = f"; written and compiled in {told['build']:.0f} s" if "build" in told else ""
    print(f"{name:13} {told['versions']}{built}", flush=True)
    return one


def describe(name: str, one: Contestant, duration: float, case: dict[str, NDArray], path: Path) -> None:
    """Print what a contestant found in its last run."""
    one.ask("events", path=str(path))
    with np.load(path) as file:
        time, unit = file["time"], file["unit"]
    n, fan_out = len(case["v"]), np.diff(case["indptr"])
    late = time > 0.2 * duration  # the start, from random potentials, is a volley
    rate = 1e3 * late.sum() / n / (0.8 * duration)
    spread = np.histogram(time[late], np.arange(0.2 * duration, duration + 1, 5.0))[0]
    print(
        f"{name:13} {len(time):7,} spikes, {fan_out[unit].sum():10,} deliveries; after the first fifth "
        f"{rate:.2f} Hz, in 5 ms {spread.mean():.0f} +- {spread.std():.0f} spikes; "
        f"peak memory {one.ask('peak') / 1e6:.0f} MB"
    )


def main() -> None:
    """Print the comparison."""
    names = ["evsim", *NEST_GRIDS, "brian2"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=names, choices=names)
    parser.add_argument("--duration", type=float, default=1000.0, help="ms of biological time")
    parser.add_argument("--seconds", type=float, default=60.0, help="for the race, as far as 3 rounds allow")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        own = Evsim()
        serve(load=own.load, run=own.run, events=own.events, peak=peak)
        return
    core, case = one_core(), network(options.seed)
    print(
        f"one thread, core {core}; {options.duration:g} ms; {len(case['indices']):,} synapses; processor time"
    )
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = Path(folder) / "cuba.npz"
        np.savez(path, **case)
        contestants = {name: start(name, path, options.duration, stack) for name in options.only}

        def asker(one: Contestant) -> Any:
            return lambda: one.ask("run", duration=options.duration)

        times = race({name: asker(one) for name, one in contestants.items()}, options.seconds)
        for name in times:
            describe(name, contestants[name], options.duration, case, Path(folder) / "events.npz")
        report(times, options.duration)


def report(times: dict[str, list[float]], duration: float) -> None:
    """Print seconds and ratios."""
    for name, each in times.items():
        best, middle = best_and_median(each)
        pace = 1e-3 * duration / middle
        print(f"{name:13} {best:.4f} s best, {middle:.4f} median of {len(each)}; {pace:.2f} x real time")
    if "evsim" not in times:
        return
    for name in (name for name in NEST_GRIDS if name in times):
        print(f"evsim faster than {name}, times: {verdict(ratio(times[name], times['evsim']), AIM_NEST)}")
    if "brian2" in times:
        text = verdict(ratio(times["evsim"], times["brian2"]), AIM_BRIAN2, at_most=True)
        print(f"evsim / Brian2's loop: {text}")


if __name__ == "__main__":
    main()
