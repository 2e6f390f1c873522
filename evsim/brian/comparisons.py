"""One network, run by evsim and by Brian2, and compared: at the same steps, or at falling steps of Brian2."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from evsim.brian import clocked, continuous
from evsim.brian.continuous import MOST_SLOTS, InitialStates, sample_times, timed_stimulus
from evsim.brian.library import Target
from evsim.brian.twin import BrianTwin, to_brian2, to_brian2_continuous
from evsim.comparison import Comparison, compare
from evsim.continuous_comparison import ContinuousComparison, Convergence, TimedRun, compare_timed
from evsim.errors import NetworkError
from evsim.events import Events
from evsim.examples import continuous_example, delta_example, egru_example, lif_example
from evsim.models import EventSource
from evsim.network import Network

#: Steps in ms, each half of the one before.
STEPS = (0.1, 0.05, 0.025, 0.0125, 0.00625)


def crosscheck(
    network: Network, stimulus: Mapping[str, clocked.Stimulus], n_steps: int, target: Target = "numpy"
) -> Comparison:
    """Run a network with evsim and with Brian2, and compare; arguments and errors as of `to_brian2`.

    A delta unit or an encoder with threshold 0 sends whatever changed, be it the last bit.  Once nothing
    arrives any more and h stands still but for rounding, the two may differ by events of about 1e-17.
    """
    from evsim.simulation import Simulation

    twin = to_brian2(network, stimulus, n_steps=n_steps)
    assert isinstance(twin, BrianTwin)
    simulation = Simulation(network)
    populations = network.populations.values()
    sources = [p for p in populations if isinstance(p, EventSource)]
    silent = {p.name: Events.empty(p.n_units, 1, n_steps, np.float64) for p in sources}
    start = time.perf_counter()
    log = simulation.run({**silent, **stimulus}, n_steps * network.step)
    seconds = time.perf_counter() - start
    events = {p.name: e for p in populations if (e := log[p.name].events) is not None}
    states = {p.name: log[p.name].state for p in populations if clocked.EQUATIONS[p.kernel].state}
    return compare(events, states, twin.run(target), seconds)


def crosscheck_model(
    model: Literal["egru", "lif", "delta_gru", "delta_lstm"], target: Target = "numpy", **options: Any
) -> Comparison:
    """`crosscheck` of an `egru_example`, a `lif_example` or a `delta_example`, whose parameters are the
    ``options``.
    """
    if model == "egru" or model == "lif":
        network, events = (egru_example if model == "egru" else lif_example)(**options)
        return crosscheck(network, events, events["cue"].n_steps, target)
    network, lines = delta_example(unit=model, **options)
    return crosscheck(network, lines, len(lines["lines"]), target)


def run_brian2(
    network: Network,
    stimulus: Mapping[str, continuous.Stimulus],
    duration: float,
    dt: float,
    *,
    target: Target = "numpy",
    slots: int = 1,
    **options: Any,
) -> TimedRun:
    """Run a network in Brian2, with as many slots as it turns out to need.

    Parameters
    ----------
    network, stimulus, duration, dt, slots, **options
        As of `to_brian2_continuous`; ``slots`` is where to begin.
    target : {"numpy", "cython", "standalone"}
    """
    while True:
        twin = to_brian2_continuous(network, stimulus, duration, dt, slots=slots, **options)
        try:
            return twin.run(target)
        except NetworkError:
            # Payloads that were mixed up may have led to other events than there are.
            needed = twin.slots_needed()
            if not slots < needed <= MOST_SLOTS:
                raise
            slots = needed


def run_evsim(
    network: Network,
    stimulus: Mapping[str, continuous.Stimulus],
    duration: float,
    *,
    samples: ArrayLike | None = None,
    initial: InitialStates | None = None,
) -> TimedRun:
    """Run a network with evsim: the exact side of a comparison.  Arguments as of `to_brian2_continuous`."""
    from evsim.continuous_simulation import ContinuousSimulation

    simulation = ContinuousSimulation(network)
    events = timed_stimulus(network, stimulus, float(duration))
    times = sample_times(samples, float(duration))
    begin = time.perf_counter()
    log = simulation.run(events, duration, samples=times, initial=initial)
    seconds = time.perf_counter() - begin
    own = [log[p.name] for p in network.populations.values() if not isinstance(p, EventSource)]
    return TimedRun(
        events={one.name: one.events for one in own if one.events is not None},
        states={one.name: one.state[:, 0] for one in own if one.state is not None},
        samples=times,
        duration=float(duration),
        seconds=seconds,
    )


def crosscheck_continuous(
    network: Network,
    stimulus: Mapping[str, continuous.Stimulus],
    duration: float,
    dt: float,
    *,
    run: TimedRun | None = None,
    samples: ArrayLike | None = None,
    initial: InitialStates | None = None,
    **options: Any,
) -> ContinuousComparison:
    """Run a network with evsim and, at one step, with Brian2, and compare.

    Parameters
    ----------
    network, stimulus, duration, dt, samples, initial
        As of `to_brian2_continuous`.
    run : TimedRun, optional
        What to compare Brian2 with, instead of evsim's run, with the same samples.
    **options
        Further ones of `run_brian2`: ``method``, ``target``, ``slots``.
    """
    convergence = order_of_convergence(
        network, stimulus, duration, [dt], run=run, samples=samples, initial=initial, **options
    )
    return convergence.comparisons[0]


def order_of_convergence(
    network: Network,
    stimulus: Mapping[str, continuous.Stimulus],
    duration: float,
    dts: Sequence[float] = STEPS,
    *,
    run: TimedRun | None = None,
    samples: ArrayLike | None = None,
    initial: InitialStates | None = None,
    **options: Any,
) -> Convergence:
    """Run a network with evsim and, at falling steps, with Brian2, and compare; the order should be 1.

    Parameters
    ----------
    dts : sequence of float
        Brian2's steps in ms.  Where an example is nearly chaotic, only small ones tell.
    network, stimulus, duration, run, samples, initial, **options
        As of `crosscheck_continuous`.
    """
    if run is None:
        run = run_evsim(network, stimulus, duration, samples=samples, initial=initial)
    options |= {"samples": run.samples, "initial": initial}
    falling = sorted(dts, reverse=True)
    peers = [run_brian2(network, stimulus, duration, dt, **options) for dt in falling]
    return Convergence([compare_timed(run, peer) for peer in peers])


def crosscheck_continuous_model(
    model: Literal["egru", "lif", "delta_gru", "delta_lstm"],
    dts: Sequence[float] = STEPS,
    target: Target = "numpy",
    **options: Any,
) -> Convergence:
    """`order_of_convergence` of a `continuous_example`, whose parameters are the ``options``."""
    network, stimulus = continuous_example(model, **options)
    duration = stimulus["cue"].duration
    samples = np.linspace(0.0, duration, 21)
    return order_of_convergence(network, stimulus, duration, dts, samples=samples, target=target)
