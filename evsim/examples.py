"""Random networks with a stimulus, to run in two simulators: lively, and not chaotic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from evsim.events import Events
from evsim.models import EGRU, EventSource, LeakyReadout
from evsim.network import Network
from evsim.population import Population


def _normal(gain: float, density: float) -> Callable[[np.random.Generator, tuple[int, int]], Any]:
    """Weights whose sum over all senders has standard deviation ``gain``; CSR if density is below 1."""

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray | scipy.sparse.csr_array:
        weight = rng.normal(0.0, gain / np.sqrt(density * shape[0]), shape)
        if density == 1:
            return weight
        return scipy.sparse.csr_array(np.where(rng.random(shape) < density, weight, 0.0))

    return draw


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
    spread: dict[str, Any] = {
        "threshold": lambda rng, shape: rng.uniform(0.15, 0.7, shape),
        "bias": lambda rng, shape: rng.uniform(-0.2, 0.2, shape),
    }
    for number in range(1, layers + 1):
        hidden = network.add(EGRU(n_units, f"hidden_{number}", form=form, **spread))
        network.connect(sender, hidden, weight=_normal(4.0, density))
        network.connect(hidden, hidden, delay=float(delay), weight=_normal(3.0, density))
        sender = hidden
    network.connect(sender, network.add(LeakyReadout(3, name="answer", tau=10.0)))
    # the generator of a network's parts takes [seed, checksum of a name]: [seed] alone is a stream of its own
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed])))
    value = rng.gamma(2.0, 0.5, (n_steps, 1, n_inputs)) * (rng.random((n_steps, 1, n_inputs)) < 0.15)
    return network, {"cue": Events.from_dense(value, dtype=np.float64)}
