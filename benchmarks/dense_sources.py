"""What it saves to make matrix products of the events of a source that always sends.

Motivation: the features of an embedding are not sparse.  As events they cost what a matrix product costs, but
row by row; `EventSource(dense=True)` leaves them to the BLAS.  How much of a training step is that?

A source of which every unit sends in every step, and a recurrent EGRU layer with an activity of about 0.2;
one thread, float32, no carry.  Training is a run with tape, and its replay with gradients of all weights and
of the input.  Both ways run in turn on the same input; the time is the processor's, and a ratio is taken
within each round.

    OPENBLAS_NUM_THREADS=1 python benchmarks/dense_sources.py
    OPENBLAS_NUM_THREADS=1 python benchmarks/dense_sources.py --lanes 8 16 64 --units 400 --steps 35
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from numpy.typing import NDArray

from evsim.adjoint import Adjoint
from evsim.models import EGRU, EventSource
from evsim.network import Network
from evsim.simulation import Simulation


class Contestant:
    """One way to take the input."""

    def __init__(self, units: int, dense: bool):
        net = Network(seed=1)
        net.add(EventSource(units, "features", dense=dense))
        net.add(EGRU(units, "hidden"))
        net.connect("features", "hidden")
        net.connect("hidden", "hidden")
        self.simulation = Simulation(net, 1)
        self.adjoint = Adjoint(self.simulation.plan, threads=1)

    def times(self, x: NDArray, g: NDArray) -> tuple[float, float]:
        """Seconds of the processor for a run and for its replay."""
        start = time.process_time()
        log = self.simulation.run(x)
        middle = time.process_time()
        self.adjoint.replay(log, {"hidden.y": g}, inputs=True)
        return middle - start, time.process_time() - middle


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--units", type=int, default=400)
    parser.add_argument("--lanes", type=int, nargs="+", default=[1, 4, 8, 16, 32, 64])
    parser.add_argument("--steps", type=int, default=35)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    print("lanes  forward: events, dense / ms    replay: events, dense / ms    events / dense: forward, sum")
    for lanes in options.lanes:
        shape = options.steps, lanes, options.units
        x, g = rng.standard_normal(shape, dtype=np.float32), rng.standard_normal(shape, dtype=np.float32)
        both = [Contestant(options.units, dense) for dense in (False, True)]
        rounds = np.array([[one.times(x, g) for one in both] for _ in range(options.rounds + 1)])[1:]
        (events, events_back), (dense, dense_back) = 1e3 * np.median(rounds, axis=0)
        sums = rounds.sum(axis=2)
        forward = np.median(rounds[:, 0, 0] / rounds[:, 1, 0])
        total = np.median(sums[:, 0] / sums[:, 1])
        print(
            f"{lanes:5} {events:18.1f} {dense:10.1f} {events_back:20.1f} {dense_back:10.1f} "
            f"{forward:26.2f} {total:6.2f}"
        )


if __name__ == "__main__":
    main()
