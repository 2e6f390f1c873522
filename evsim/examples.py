"""Random networks with a stimulus, to run in two simulators: lively, and not chaotic.

In steps `egru_example`, `lif_example` and `delta_example`, in continuous time `continuous_example`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from evsim.errors import NetworkError
from evsim.events import Events
from evsim.models import (
    EGRU,
    LIF,
    DeltaEncoder,
    DeltaGRU,
    DeltaLSTM,
    DeltaReadout,
    EventSource,
    LeakyReadout,
)
from evsim.network import Network
from evsim.population import Population
from evsim.timed_events import TimedEvents


def _normal(gain: float, density: float) -> Callable[[np.random.Generator, tuple[int, int]], Any]:
    """Weights whose sum over all senders has standard deviation ``gain``; CSR if density is below 1."""

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray | scipy.sparse.csr_array:
        weight = rng.normal(0.0, gain / np.sqrt(density * shape[0]), shape)
        if density == 1:
            return weight
        return scipy.sparse.csr_array(np.where(rng.random(shape) < density, weight, 0.0))

    return draw


def _uniform(low: float, high: float) -> Callable[[np.random.Generator, tuple[int, ...]], NDArray]:
    return lambda rng, shape: rng.uniform(low, high, shape)


def _stimulus_generator(seed: int) -> np.random.Generator:
    # the generator of a network's parts takes [seed, checksum of a name]: [seed] alone is a stream of its own
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed])))


def egru_example(
    n_units: int = 50,
    n_inputs: int = 20,
    n_steps: int = 500,
    form: Literal["evnn", "paper"] = "evnn",
    layers: int = 1,
    delay: int = 1,
    density: float = 1.0,
    seed: int = 0,
) -> tuple[Network, dict[str, Events]]:
    """A lively random network, ``cue -> hidden_1 -> ... -> answer``, and its stimulus.

    In each step each input sends an event with probability 0.15, its value gamma-distributed with mean 1.
    Hidden populations have activities of 0.05 to 0.3, and few units that are silent or always send.  The
    recurrence is strong enough to matter, the input to keep runs together that differ by rounding.

    Parameters
    ----------
    layers : int
        Hidden populations, each of n_units and recurrent.
    delay : int
        Of the recurrent projections, in steps of 1 ms.
    density : float
        Fraction of weights kept, in CSR if below 1.

    Returns
    -------
    network : Network
    stimulus : dict of Events
        For `to_brian2`, `Simulation.run` and `crosscheck`.
    """
    network = Network(dt=1.0, seed=seed, dtype="float64")
    sender: Population = network.add(EventSource(n_inputs, name="cue"))
    for number in range(1, layers + 1):
        threshold, bias = _uniform(0.15, 0.7), _uniform(-0.2, 0.2)
        hidden = network.add(EGRU(n_units, f"hidden_{number}", threshold, form=form, bias=bias))
        network.connect(sender, hidden, weight=_normal(4.0, density))
        network.connect(hidden, hidden, delay=float(delay), weight=_normal(3.0, density))
        sender = hidden
    network.connect(sender, network.add(LeakyReadout(3, name="answer", tau=10.0)))
    rng = _stimulus_generator(seed)
    value = rng.gamma(2.0, 0.5, (n_steps, 1, n_inputs)) * (rng.random((n_steps, 1, n_inputs)) < 0.15)
    return network, {"cue": Events.from_dense(value, dtype=np.float64)}


def lif_example(
    n_units: int = 50,
    n_inputs: int = 20,
    n_steps: int = 500,
    layers: int = 1,
    delay: int = 1,
    density: float = 1.0,
    dt: float = 0.5,
    seed: int = 0,
) -> tuple[Network, dict[str, Events]]:
    """A lively random network of LIF units in steps, ``cue -> hidden_1 -> ... -> answer``, and its stimulus.

    Each input sends an event every 5 ms on average, its value gamma-distributed with mean 1.  Units have a
    refractory period of 2 ms, and recurrent inhibition besides recurrent excitation.  Hidden populations send
    50 to 100 events a second and unit, and few of their units are silent.

    Parameters
    ----------
    layers, density
        As those of `egru_example`.
    delay : int
        Of the recurrent projections, in steps.
    dt : float
        Of a step, in ms.

    Returns
    -------
    network : Network
    stimulus : dict of Events
        For `to_brian2`, `Simulation.run` and `crosscheck`.
    """
    network = Network(dt=dt, seed=seed, dtype="float64")
    sender: Population = network.add(EventSource(n_inputs, name="cue"))
    for number in range(1, layers + 1):
        name, later = f"hidden_{number}", delay * dt
        hidden = network.add(LIF(n_units, name, bias=_uniform(0.9, 1.6), tau_m=10.0, refractory=2.0))
        network.connect(sender, hidden, weight=_positive(1.2, density))
        network.connect(hidden, hidden, delay=later, weight=_positive(1.0, density))
        to = f"{name}-inhibitory"
        inhibition = _positive(-1.2, density)
        network.connect(hidden, hidden, delay=later, weight=inhibition, port="inhibitory", name=to)
        sender = hidden
    network.connect(sender, network.add(LeakyReadout(3, name="answer", tau=10.0)))
    rng, shape = _stimulus_generator(seed), (n_steps, 1, n_inputs)
    value = rng.gamma(2.0, 0.5, shape) * (rng.random(shape) < dt / 5.0)
    return network, {"cue": Events.from_dense(value, dtype=np.float64)}


def delta_example(
    n_units: int = 50,
    n_inputs: int = 20,
    n_steps: int = 500,
    unit: Literal["delta_gru", "delta_lstm"] = "delta_gru",
    layers: int = 1,
    delay: int = 1,
    density: float = 1.0,
    seed: int = 0,
) -> tuple[Network, dict[str, NDArray[np.float64]]]:
    """A lively random network, ``lines -> hidden_1 -> ... -> output -> answer``, and its stimulus.

    Each input line is a random walk drawn back to 0: 0.95 of the last value plus normal noise, of standard
    deviation 1 in the long run.  ``output`` encodes the last hidden population to 1e-6, so that ``answer``
    is a projection of its h.  Hidden populations have activities of 0.1 to 0.3.  The lines reach all of them:
    where a unit stands still, rounding alone would decide what changed by more than a threshold of 0.

    Parameters
    ----------
    unit : {"delta_gru", "delta_lstm"}
    layers, delay, density
        As those of `egru_example`.

    Returns
    -------
    network : Network
    stimulus : dict of ndarray, shape (n_steps, n_inputs)
        For `to_brian2`, `Simulation.run` and `crosscheck`.
    """
    network = Network(dt=1.0, seed=seed, dtype="float64")
    lines = network.add(EventSource(n_inputs, name="lines", threshold=_uniform(0.1, 0.6)))
    senders: list[Population] = [lines]
    units = DeltaGRU if unit == "delta_gru" else DeltaLSTM
    for number in range(1, layers + 1):
        threshold, bias = _uniform(0.05, 0.3), _uniform(-0.2, 0.2)
        hidden = network.add(units(n_units, f"hidden_{number}", threshold, bias))
        for sender in senders:
            network.connect(sender, hidden, weight=_normal(1.5, density))
        network.connect(hidden, hidden, delay=float(delay), weight=_normal(1.0, density))
        senders = [lines, hidden]
    output = network.add(DeltaEncoder(hidden, name="output", threshold=1e-6))
    network.connect(output, network.add(DeltaReadout(3, name="answer", bias=0.1)))
    walk = _stimulus_generator(seed).normal(size=(n_steps, n_inputs))
    for step in range(1, n_steps):
        walk[step] = 0.95 * walk[step - 1] + np.sqrt(1 - 0.95**2) * walk[step]
    return network, {"lines": walk}


def continuous_example(
    model: Literal["egru", "lif", "delta_gru", "delta_lstm"] = "egru",
    n_units: int = 16,
    n_inputs: int = 5,
    duration: float = 50.0,
    layers: int = 1,
    delay: float | Callable[[np.random.Generator, tuple[int, int]], NDArray] | None = None,
    density: float = 1.0,
    gate: Literal["pre", "post", "none"] = "pre",
    transmit: Literal["value", "unit"] = "value",
    seed: int = 0,
) -> tuple[Network, dict[str, TimedEvents]]:
    """A lively random network in continuous time, ``cue -> hidden_1 -> ... -> answer``, and its stimulus.

    Each input sends an event every 20 ms on average.  Its value is gamma-distributed with mean 1; to delta
    units it is the change from one normal value of its line to the next.  LIF units have a refractory period
    of 2 ms, and recurrent inhibition besides recurrent excitation.  Units are driven strongly enough that few
    states touch their threshold just barely: such an event may be there or not, whoever computes it.

    Parameters
    ----------
    model : {"egru", "lif", "delta_gru", "delta_lstm"}
    duration : float
        Of the stimulus, in ms.
    layers : int
        Hidden populations, each of n_units and recurrent.
    delay : float or callable (generator, shape) -> array, optional
        Of the recurrent projections, in ms, one for all pairs of units or one for each; by default 0, of
        DeltaLSTM 1.
    density : float
        Fraction of weights kept, in CSR if below 1.
    gate, transmit
        Of EGRU units.

    Returns
    -------
    network : Network
    stimulus : dict of TimedEvents
        For `to_brian2_continuous`, `Simulation.run` and `order_of_convergence`.

    Raises
    ------
    NetworkError
        No such model.
    """
    if model not in ("egru", "lif", "delta_gru", "delta_lstm"):
        raise NetworkError(
            "continuous_example", f"model is {model!r}", "use egru, lif, delta_gru or delta_lstm"
        )
    changes = model in ("delta_gru", "delta_lstm")
    network = Network(dt=None, seed=seed, dtype="float64")
    sender: Population = network.add(EventSource(n_inputs, name="cue"))
    if delay is None:
        delay = 1.0 if model == "delta_lstm" else 0.0
    for number in range(1, layers + 1):
        name, hidden = f"hidden_{number}", sender
        if model == "egru":
            hidden = network.add(_egru(n_units, name, gate=gate, transmit=transmit))
            network.connect(sender, hidden, weight=_normal(1.5, density))
            network.connect(hidden, hidden, delay=delay, weight=_normal(0.5, density))
        elif model == "lif":
            bias = _uniform(1.2, 2.4)
            hidden = network.add(LIF(n_units, name, bias=bias, tau_m=10.0, refractory=2.0))
            network.connect(sender, hidden, weight=_positive(1.0, density))
            network.connect(hidden, hidden, delay=delay, weight=_positive(1.0, density))
            to = f"{name}-inhibitory"
            inhibition = _positive(-1.0, density)
            network.connect(hidden, hidden, delay=delay, weight=inhibition, port="inhibitory", name=to)
        else:
            threshold, bias = _uniform(0.01, 0.03), _uniform(-0.2, 0.2)
            units = DeltaGRU if model == "delta_gru" else DeltaLSTM
            hidden = network.add(units(n_units, name, threshold, bias, tau=40.0))
            network.connect(sender, hidden, weight=_normal(1.5, density))
            network.connect(hidden, hidden, delay=delay, weight=_normal(0.5, density))
        sender = hidden
    readout = DeltaReadout(3, name="answer", bias=0.1) if changes else LeakyReadout(3, name="answer")
    network.connect(sender, network.add(readout))
    return network, {"cue": _arrivals(_stimulus_generator(seed), n_inputs, duration, changes)}


def _egru(n_units: int, name: str, **variant: Any) -> EGRU:
    """EGRU units that mostly fire on their own, at different rates."""

    def bias(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray:
        u, r, z = rng.normal(0.0, 0.3, (3, shape[0] // 3))
        return np.concatenate([u + 0.5, r, z + 1.2])

    options: dict[str, Any] = {"threshold": _uniform(0.2, 0.4), "bias": bias, "tau_m": 8.0, "tau_s": 6.0}
    return EGRU(n_units, name, **options, **variant)


def _positive(gain: float, density: float) -> Callable[[np.random.Generator, tuple[int, int]], Any]:
    """Weights of one sign whose sum over all senders is ``gain`` on average; CSR if density is below 1."""

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray | scipy.sparse.csr_array:
        weight = 2.0 * gain / (density * shape[0]) * rng.random(shape)
        if density == 1:
            return weight
        return scipy.sparse.csr_array(np.where(rng.random(shape) < density, weight, 0.0))

    return draw


def _arrivals(rng: np.random.Generator, n_inputs: int, duration: float, changes: bool) -> TimedEvents:
    """Events at random times, 20 ms apart on average."""
    count = rng.poisson(duration / 20.0 * n_inputs)
    time, unit = np.sort(rng.uniform(0.0, duration, count)), rng.integers(0, n_inputs, count)
    value = rng.gamma(2.0, 0.5, count)
    if changes:  # from one value of the line to the next
        value = rng.normal(size=count)
        for one in range(n_inputs):
            value[unit == one] = np.diff(value[unit == one], prepend=0.0)
    size: dict[str, Any] = {"n_units": n_inputs, "n_lanes": 1, "start": 0.0, "stop": duration}
    return TimedEvents.from_list(time, np.zeros_like(unit), unit, value, **size)
