"""Layers of EGRU with random weights that are as active, and as full of zeros, as is asked: to be timed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evsim.errors import ParameterError
from evsim.models import EGRU, EventSource
from evsim.network import Network
from evsim.population import Population
from evsim.pruning import magnitude_mask
from evsim.simulation import Simulation
from evsim.sparsity import check_share

#: Biases of the candidate between which the one is searched that makes a layer as active as asked.
LOWEST, HIGHEST = -6.0, 3.0
#: Steps of the search; steps of the text each of them looks at, after so many that are not counted.
HALVINGS, LOOKED_AT, SETTLING = 14, 400, 50


class RandomStack(NamedTuple):
    """Layers of EGRU and a text.

    Attributes
    ----------
    network : Network
        ``"words"``, a source of vectors, then ``"layer1"``, ``"layer2"`` ...; zeros are stored.
    vectors : ndarray of float32, shape (n_words, units)
        Of each word, independent standard normal values.
    text : ndarray of int64, shape (n_steps,)
        Words by Zipf's law: word n is n times as rare as the first.
    """

    network: Network
    vectors: NDArray
    text: NDArray

    def by_token(self) -> Network:
        """The same layers with a source of token ids, ``"tokens"``: rows of ``vectors @ weights`` are read.

        It computes the same up to rounding, without the product of the first layer's input.
        """
        table = self.vectors @ self.network.projections["words->layer1"].to_dense()
        twin = Network(self.network.step, self.network.seed, str(self.network.dtype))
        below: Population = twin.add(EventSource(len(self.vectors), "tokens"))
        for name, p in self.network.projections.items():
            if p.port == "input":
                layer = twin.add(EGRU(p.target.n_units, p.target.name))
                for key, parameter in p.target.parameters.items():
                    layer.parameters[key].assign(parameter.values)
                twin.connect(below, layer, weight=table if name == "words->layer1" else p.to_dense())
                below = layer
            else:
                twin.connect(below, below, weight=p.to_dense())
        return twin


def random_stack(
    units: int,
    layers: int = 2,
    activity: float = 0.1,
    sparsity: float = 0.0,
    n_words: int = 10_000,
    n_steps: int = 5_000,
    seed: int = 0,
) -> RandomStack:
    """Make layers and a text.

    Weights are drawn as for training ("glorot", "orthogonal") and pruned by magnitude, projection by
    projection; those that are left grow until the matrix is as large as before.  Then one bias for all
    candidates of a layer is searched, so that as many units send as is asked, as far as that can be.

    Parameters
    ----------
    units, layers : int
        Units of each layer, and values of each word.
    activity : float
        Events per unit and step.
    sparsity : float
        Share of zeros in each projection.
    n_words, n_steps : int
    seed : int

    Raises
    ------
    ParameterError
        Values out of their range.
    """
    for name, n in (("units", units), ("layers", layers), ("n_words", n_words), ("n_steps", n_steps)):
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
            raise ParameterError("random stack", f"{name} is {n!r}", "give a positive integer")
    if not check_share("random stack", activity, "activity") > 0:
        raise ParameterError("random stack", f"activity is {activity!r}", "give more than 0")
    check_share("random stack", sparsity, "sparsity")
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n_words, units), dtype=np.float32)
    rarity = np.arange(1, n_words + 1)
    text = rng.choice(n_words, n_steps, p=(1 / rarity) / np.sum(1 / rarity))
    net = Network(seed=seed)
    below: Population = net.add(EventSource(units, "words"))
    sample = vectors[text[: SETTLING + LOOKED_AT]]
    for k in range(1, layers + 1):
        layer = net.add(EGRU(units, f"layer{k}"))
        made = [net.connect(below, layer, "glorot"), net.connect(layer, layer, "orthogonal")]
        if sparsity:
            masks = magnitude_mask(net, sparsity, [p.name for p in made])
            for p in made:
                values = p.weight.values
                left = np.where(masks[p.weight.name], values, 0)
                length = float(np.linalg.norm(left)) or 1.0
                p.weight.assign(left * (float(np.linalg.norm(values)) / length))
        _tune(net, layer, activity, sample)
        below = layer
    return RandomStack(net, vectors, text)


def _tune(network: Network, layer: EGRU, activity: float, sample: NDArray) -> None:
    """Find the bias of the candidate with which a layer is as active as asked."""
    simulation, bias = Simulation(network), layer.parameters["bias"]
    settling, low, high = min(SETTLING, len(sample) // 2), LOWEST, HIGHEST
    values = np.zeros(3 * layer.n_units)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        values[2 * layer.n_units :] = middle
        bias.assign(values)
        simulation.run(sample[:settling], tape=False)
        found = simulation.run(sample[settling:], carry=True, tape=False)[layer.name].activity
        low, high = (middle, high) if found < activity else (low, middle)
