"""What the time of a pruned network depends on: its zeros stored, or left out.

Motivation: counting multiply-accumulates, 80 % zeros save 80 %.  Sparse rows cost more for each weight, so
what is left of that in time?

An EGRU layer with as many inputs as units, activity 0.1 on both sides, one lane and one thread, 64 steps per
call; magnitude pruning of both projections.  The same pruned network is run with its zeros stored and with
them left out (`evsim.sparsified`), in turn, on the same input; both send the same events, which is checked.
Training is a run with tape and its replay with gradients of all that is stored; three times as many units are
backward-active as send.  The time is the processor's, and a ratio is taken within each round.

    python benchmarks/pruning.py
    python benchmarks/pruning.py --units 256 --zeros 0.5 0.8 --rounds 9
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from evsim.adjoint import Adjoint
from evsim.models import EGRU, EventSource
from evsim.network import Network
from evsim.pruning import magnitude_mask
from evsim.simulation import Simulation
from evsim.sparsity import sparsified

ACTIVITY, STEPS, BETA = 0.1, 64, 0.3


def pruned_layer(units: int, zeros: float) -> Network:
    """Input -> EGRU with a share of zeros, all stored, and thresholds for the activity of its input."""
    net = Network(seed=0)
    net.add(EventSource(units, "input"))
    hidden = net.add(EGRU(units, "hidden", threshold=0.1))
    for source in ("input", "hidden"):
        net.connect(source, hidden, weight=lambda rng, shape: rng.normal(size=shape))
    for name, mask in magnitude_mask(net, zeros).items():
        weight = net.parameters()[name]
        scale = 0.5 / np.sqrt(units * np.mean(np.where(mask, weight.values, 0) ** 2))
        weight.assign(np.where(mask, weight.values, 0) * scale)
    rng, threshold = np.random.default_rng(0), hidden.parameters["threshold"]
    low, high = 0.0, 1.0
    for _ in range(14):
        threshold.assign((low + high) / 2)
        active = Simulation(net, 1).run(stimulus(rng, units, 256), tape=False)["hidden"].activity
        low, high = ((low + high) / 2, high) if active > ACTIVITY else (low, (low + high) / 2)
    return net


def stimulus(rng: np.random.Generator, units: int, steps: int = STEPS) -> NDArray:
    """Events of normal values."""
    values = rng.standard_normal((steps, 1, units), dtype=np.float32)
    return np.where(rng.random(values.shape) < ACTIVITY, values, np.float32(0))


def pseudo_derivative(net: Network, units: int) -> float:
    """Inverse half-width of the triangle with which a share `BETA` of the units is backward-active."""
    simulation, rng = Simulation(net, 1), np.random.default_rng(1)
    log = simulation.run(stimulus(rng, units))
    low, high = 0.5, 500.0
    for _ in range(14):
        eps = np.sqrt(low * high)
        found = Adjoint(simulation.plan, gamma=1.0, eps=eps, threads=1).replay(
            log, {"hidden.y": np.ones((STEPS, 1, units), np.float32)}
        )
        low, high = (eps, high) if found.counters["beta"]["hidden"] > BETA else (low, eps)
    return float(eps)


class Contestant:
    """One way to store a network."""

    def __init__(self, net: Network, eps: float):
        self.simulation = Simulation(net, 1)
        self.adjoint = Adjoint(self.simulation.plan, gamma=1.0, eps=eps, threads=1)

    def forward(self, x: NDArray, g: NDArray) -> int:
        """Events only; their number."""
        return self.simulation.run(x, carry=True, tape=False)["hidden"].n_events

    def training(self, x: NDArray, g: NDArray) -> int:
        """A run and its replay."""
        log = self.simulation.run(x, carry=True)
        self.adjoint.replay(log, {"hidden.y": g})
        return log["hidden"].n_events


def race(ways: dict[str, Callable[[NDArray, NDArray], int]], units: int, rounds: int) -> dict[str, NDArray]:
    """Seconds per step of each contestant, by round: median of five calls after one for the caches."""
    rng, found = np.random.default_rng(2), {name: np.zeros(rounds) for name in ways}
    for index in range(rounds):
        inputs = [stimulus(rng, units) for _ in range(6)]
        g = rng.standard_normal((STEPS, 1, units), dtype=np.float32)
        counts = []
        for name, way in ways.items():
            seconds, count = [], 0
            for x in inputs:
                start = time.process_time()
                count += way(x, g)
                seconds.append((time.process_time() - start) / STEPS)
            found[name][index] = np.median(seconds[1:])
            counts.append(count)
        if len(set(counts)) > 1:
            raise SystemExit(f"the ways to store a network differ in their events: {counts}")
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--units", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--zeros", type=float, nargs="+", default=[0.8, 0.9, 0.95])
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    print(f"{'':12}{'us per step':^56}   {'times faster (10-90 %)'}")
    print(
        f"units zeros{'forward: stored':>16}{'left out':>12}{'training: stored':>18}{'left out':>10}", end=""
    )
    print("   forward            training")
    for units in options.units:
        for zeros in options.zeros:
            net = pruned_layer(units, zeros)
            eps = pseudo_derivative(net, units)
            ways = {"stored": Contestant(net, eps), "left out": Contestant(sparsified(net, least=0.0), eps)}
            line, ratios = f"{units:5d} {zeros:5.0%}", ""
            for mode in ("forward", "training"):
                times = race({n: getattr(way, mode) for n, way in ways.items()}, units, options.rounds)
                each = times["stored"] / times["left out"]
                line += "".join(f"{1e6 * np.median(times[name]):14.1f}" for name in ways)
                ratios += "   {:5.2f} ({:.2f}-{:.2f})".format(*np.quantile(each, [0.5, 0.1, 0.9]))
            print(line + ratios, flush=True)


if __name__ == "__main__":
    main()
