"""CUBA as a Brian2 script, run by Brian2 in small steps and by evsim through `from_brian2`: the same network?

The network is chaotic, so spikes agree one by one in the beginning only, and statistics after that.  Both run
from the same initial states, several of them, as the rate of one run is a random number too.

Motivation: does a script that is taken over by `evsim.brian.from_brian2` mean the same, at full size?  The
answer is in docs/from_brian2.md.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from evsim.brian import from_brian2
from evsim.brian.library import quiet_brian2
from evsim.continuous_comparison import TimedRun, compare_timed
from evsim.timed_events import TimedEvents

#: Ways to exchange runs that are tried.
EXCHANGES = 2000
EQUATIONS = """
dv/dt  = (ge + gi - (v - El))/taum : volt (unless refractory)
dge/dt = -ge/taue : volt
dgi/dt = -gi/taui : volt
"""


def build(b2: Any, units: int, dt: float, seed: int) -> tuple[Any, dict[str, Any]]:
    """The network of Brette et al. (2007), benchmark 2; its objects by what they are.

    Parameters
    ----------
    b2 : module
        Brian2.
    units, seed : int
    dt : float
        ms.

    Returns
    -------
    network : brian2.Network
    constants : dict
        The values of the names in its equations.
    """
    ms, mV = b2.ms, b2.mV
    constants = {"taum": 20 * ms, "taue": 5 * ms, "taui": 10 * ms, "Vt": -50 * mV, "Vr": -60 * mV}
    constants |= {"El": -49 * mV, "we": 1.62 * mV, "wi": -9 * mV}
    b2.seed(seed)
    clock = b2.Clock(dt=dt * ms)
    options = {"clock": clock, "method": "exact", "refractory": 5 * ms, "name": "neurons"}
    neurons = b2.NeuronGroup(units, EQUATIONS, threshold="v > Vt", reset="v = Vr", **options)
    excitatory, probability = units * 4 // 5, min(1.0, 80 / units)
    synapses = []
    for part, code in ((neurons[:excitatory], "ge += we"), (neurons[excitatory:], "gi += wi")):
        one = b2.Synapses(part, neurons, on_pre=code, clock=clock)
        one.connect(p=probability)
        synapses.append(one)
    return b2.Network(neurons, *synapses, b2.SpikeMonitor(neurons, name="spikes")), constants


def states(units: int, seed: int) -> NDArray[np.float64]:
    """V in mV, anywhere between reset and threshold."""
    return np.random.default_rng([seed, 2007]).uniform(-60.0, -50.0, units)


def intervals(events: TimedEvents) -> NDArray[np.float64]:
    """Between the events of each unit, in ms."""
    order = np.lexsort((events.time, events.unit))
    unit, when = events.unit[order], events.time[order]
    return np.diff(when)[np.diff(unit) == 0]


def timed(events: TimedEvents, dt: float | None, stop: float) -> TimedRun:
    """Its first ``stop`` ms, as a side of a comparison."""
    return TimedRun({"neurons": events.window(0.0, stop)}, {}, np.zeros(0), stop, dt=dt)


def main() -> None:
    """Print how far the two agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--units", type=int, default=4000)
    parser.add_argument("--duration", type=float, default=1000.0, help="ms")
    parser.add_argument("--dt", type=float, default=0.01, help="Brian2's step in ms")
    parser.add_argument("--runs", type=int, default=16, help="initial states from which both run")
    parser.add_argument("--exact-runs", type=int, default=40, help="initial states from which evsim runs")
    parser.add_argument("--beginning", type=float, default=50.0, help="ms that are compared spike by spike")
    parser.add_argument("--beginning-runs", type=int, default=4, help="initial states of that")
    parser.add_argument(
        "--fine", type=float, nargs="*", default=(0.01, 0.001), help="its steps of Brian2 in ms"
    )
    parser.add_argument("--target", default="cython", choices=("numpy", "cython"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    beginning(options)
    report(*run(options), options)


def run(options: argparse.Namespace) -> tuple[list[TimedEvents], list[TimedEvents]]:
    """Events of evsim and of Brian2, by initial state."""
    exact, stepped = [], []
    with quiet_brian2(options.target) as b2:
        network, constants = build(b2, options.units, options.dt, options.seed)
        network.store()
        for seed in range(max(options.runs, options.exact_runs)):
            network.restore()
            network["neurons"].v = states(options.units, seed) * b2.mV
            if seed < options.exact_runs:
                imported = from_brian2(network, namespace=constants)
                begin = time.perf_counter()
                events = imported.run(options.duration)["neurons"].events
                print(
                    f"evsim, state {seed}: {len(events)} events, {time.perf_counter() - begin:.2f} s",
                    flush=True,
                )
                exact.append(events)
            if seed < options.runs:
                begin = time.perf_counter()
                network.run(options.duration * b2.ms, namespace=constants)
                peer = recorded(b2, network, options.units, options.duration, options.dt)
                print(
                    f"Brian2, state {seed}: {len(peer)} events, {time.perf_counter() - begin:.1f} s",
                    flush=True,
                )
                stepped.append(peer)
    return exact, stepped


def recorded(b2: Any, network: Any, units: int, duration: float, dt: float) -> TimedEvents:
    """What Brian2's monitor has, each event at the end of its step: by then it has happened."""
    monitor = network["spikes"]
    when, unit = np.asarray(monitor.t / b2.ms) + dt, np.asarray(monitor.i, np.int64)
    window = {"n_units": units, "n_lanes": 1, "start": 0.0, "stop": duration + dt}
    return TimedEvents.from_list(when, 0 * unit, unit, 0 * when + 1, **window).window(0.0, duration)


def report(exact: list[TimedEvents], stepped: list[TimedEvents], options: argparse.Namespace) -> None:
    """Print rates, intervals, and the beginning spike by spike."""
    rates, peers = np.array([e.rate for e in exact]), np.array([e.rate for e in stepped])
    spread = rates.std(ddof=1)
    print(f"\nevsim  {rates.mean():.4f} Hz, mean of {len(rates)} states; one differs by {spread:.4f} (sd)")
    print(f"Brian2 {peers.mean():.4f} Hz, mean of {len(peers)} states, dt {options.dt:g} ms")
    error = spread * np.sqrt(1 / len(peers) + 1 / len(rates))
    apart, percent = peers.mean() - rates.mean(), 100 / rates.mean()
    print(f"apart  {apart * percent:+.2f} % of evsim's, standard error {error * percent:.2f} %")
    own, other = [intervals(e) for e in exact], [intervals(e) for e in stepped]
    sizes = sum(map(len, own)), sum(map(len, other))
    distance = ks_2samp(np.concatenate(own), np.concatenate(other)).statistic
    print(f"\nintervals: {sizes[0]} of evsim and {sizes[1]} of Brian2, Kolmogorov-Smirnov D {distance:.4f}")
    print("  (those of one run are not independent of each other, so whole runs are exchanged for p)")
    print(f"  p {exchanged(own, other):.3f}, of {EXCHANGES} exchanges")


def exchanged(own: list[NDArray[np.float64]], other: list[NDArray[np.float64]]) -> float:
    """Of all ways to call some runs Brian2's: the share in which D is as large as it is."""
    grid = np.quantile(np.concatenate(own + other), np.linspace(0, 1, 4001))
    below = np.array([np.searchsorted(np.sort(run), grid, side="right") for run in own + other])
    sizes = np.array([len(run) for run in own + other])
    rng, found = np.random.default_rng(0), []
    for draw in range(EXCHANGES + 1):
        order = rng.permutation(len(sizes)) if draw else np.arange(len(sizes))
        one, two = order[: len(own)], order[len(own) :]
        apart = below[one].sum(0) / sizes[one].sum() - below[two].sum(0) / sizes[two].sum()
        found.append(np.abs(apart).max())
    return float(np.mean(np.array(found) >= found[0]))


def beginning(options: argparse.Namespace) -> None:
    """Print how long both agree spike by spike, at falling steps of Brian2."""
    stop = options.beginning
    print(f"\nthe first {stop:g} ms spike by spike: events of evsim | Brian2; when the first differs (ms);")
    print("mean |difference| of times up to then (ms)")
    for dt in options.fine:
        with quiet_brian2(options.target) as b2:
            network, constants = build(b2, options.units, dt, options.seed)
            network.store()
            for seed in range(options.beginning_runs):
                network.restore()
                network["neurons"].v = states(options.units, seed) * b2.mV
                imported = from_brian2(network, namespace=constants)
                own = imported.run(stop)["neurons"].events
                network.run(stop * b2.ms, namespace=constants)
                peer = recorded(b2, network, options.units, stop, dt)
                whole = compare_timed(timed(own, None, stop), timed(peer, dt, stop))
                first = stop if whole.first is None else whole.first[1].when
                upto = max(0.0, first - 20 * dt)
                part = compare_timed(timed(own, None, upto), timed(peer, dt, upto))
                when = "none" if whole.first is None else f"{first:.2f}"
                print(
                    f"  dt {dt:g}, state {seed}: {len(own)} | {len(peer)}; {when}; {part.mean_error:.2g}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
