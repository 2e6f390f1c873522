"""Layers of EGRU on each other: the event-based body of a word-level language model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from evsim.adjoint import Adjoint
from evsim.errors import NetworkError, StimulusError
from evsim.eventlog import EventLog, PopulationLog
from evsim.models.egru import EGRU
from evsim.models.source import EventSource
from evsim.network import Network
from evsim.parameter import Parameter
from evsim.population import Initial
from evsim.projection import Projection
from evsim.simulation import Simulation
from evsim.tied_embedding import TiedEmbedding
from evsim.training import Tally, add
from evsim.word_recipe import Masks

#: What words are predicted from: the sum of all layers' states, states of the last layer, or its events.
Reads = Literal["states", "state", "events"]


def build_stack(
    n_inputs: int,
    sizes: Sequence[int],
    threshold: Initial = 0.0,
    train_threshold: bool = False,
    seed: int = 0,
    dtype: str = "float32",
) -> Network:
    """words -> layer1 -> layer2 ..., each layer recurrent.

    Parameters
    ----------
    n_inputs : int
        Units of the embedding.
    sizes : sequence of int
        Units of each layer.
    threshold : number, or function of (generator, shape)
        Of all units, at the start.
    train_threshold : bool
    seed : int
    dtype : {"float32", "float64"}
    """
    network = Network(dt=1.0, seed=seed, dtype=dtype)
    below: Any = network.add(EventSource(n_inputs, "words", dense=True))
    for number, n in enumerate(sizes, 1):
        layer = network.add(EGRU(n, f"layer{number}", threshold=threshold, train_threshold=train_threshold))
        network.connect(below, layer, weight="glorot" if number == 1 else _large)
        network.connect(layer, layer, weight="orthogonal")
        below = layer
    return network


def _large(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray:
    # A third of a layer sends events of about 0.3, so the next one is driven by a little less than 1.
    return rng.normal(0.0, 4 / np.sqrt(shape[0]), shape)


def tabulated(network: Network, embedding: TiedEmbedding) -> Network:
    """A network of a stack that takes words instead of their vectors, for inference.

    What the first layer receives of a word is always the same, W E[word]: a row for each word is computed
    once, and read where the word comes.  Sums are rounded otherwise; all else is equal.

    Parameters
    ----------
    network : Network
        As `build_stack` makes it.
    embedding : TiedEmbedding

    Returns
    -------
    Network
        With a source ``words`` of ``n_words`` units.  If the first layer has n units, its rows take
        ``3 n_words n`` numbers.
    """
    first = network.projections["words->layer1"]
    weight = first.to_scipy() if first.is_sparse else first.weight.values
    table = np.asarray(embedding.look_up(np.arange(embedding.n_words)) @ weight)
    other = Network(dt=network.step, seed=network.seed, dtype=network.dtype.name)
    places: dict[str, Any] = {"words": other.add(EventSource(embedding.n_words, "words"))}
    for name, unit in network.populations.items():
        if isinstance(unit, EGRU):
            places[name] = other.add(EGRU(unit.n_units, name, form=cast(Any, unit.form)))
            for part, parameter in unit.parameters.items():
                places[name].parameters[part].assign(parameter.values)
    for name, p in network.projections.items():
        stored = p.to_scipy() if p.is_sparse else p.weight.values
        other.connect(
            places[p.source.name],
            places[p.target.name],
            port=p.port,
            weight=table if name == "words->layer1" else stored,
            delay=p.delay_steps * network.step,
        )
    return other


class EventStack:
    """A network as the body of a language model: embedded words in, states or events out.

    Parameters
    ----------
    network : Network
        As `build_stack` makes it; projections may be sparse.
    activity_cost, activity_target : float
        Adds ``activity_cost`` times the mean over all units of (a - activity_target)^2 to the loss, where a
        is how often a unit sends per step of the window.  So each unit keeps something to say: a price on
        the mean activity makes some silent for ever, while others send always.
    reads : {"states", "state", "events"}
        What comes out: the sum of the states c of all layers, of wider ones than the last those of as many
        units as that has; those of the last layer; or the values of its events, which are those of a few
        units.  States tell more; between layers, and within them, there are events either way.
    threads : int, optional
    **pseudo_derivative
        Options of `Adjoint`.

    Attributes
    ----------
    network : Network
    layers : list of str
        Names of the layers, first one first.
    """

    def __init__(
        self,
        network: Network,
        activity_cost: float = 0.0,
        activity_target: float = 0.0,
        reads: Reads = "state",
        threads: int | None = None,
        **pseudo_derivative: Any,
    ):
        if reads not in get_args(Reads):
            raise NetworkError("stack", f"reads is {reads!r}", f"use one of {get_args(Reads)}")
        self.network, self.reads = network, reads
        self.activity_cost, self.activity_target = activity_cost, activity_target
        self._simulation = Simulation(network, threads)
        plan = self._simulation.plan
        if [p.name for p in plan.sources] != ["words"]:
            names = [p.name for p in plan.sources]
            raise NetworkError("stack", f"the network has sources {names}", "give it one, 'words'")
        self._adjoint = Adjoint(plan, threads=threads, **pseudo_derivative)
        self._units = [p for p in plan.populations if isinstance(p, EGRU)]
        self.layers = [p.name for p in self._units]
        self.n_inputs, self.n_units = plan.sources[0].n_units, self._units[-1].n_units
        if reads == "states" and min(self.sizes) < self.n_units:
            problem = f"a layer of {self.sizes} units is narrower than the last"
            raise NetworkError("stack", problem, "make the last one narrowest, or use reads='state'")
        pairs = zip(["words", *self.layers], self.layers, strict=False)
        self._upward = [self._between(below, above) for below, above in pairs]
        self._recurrent = [self._between(name, name) for name in self.layers]
        # Layers whose states come out.
        self._read = {"states": self.layers, "state": self.layers[-1:], "events": []}[reads]
        self._log: EventLog | None = None
        self._masks: Masks | None = None
        self._gradients: Any = None

    def _between(self, source: str, target: str) -> Projection:
        found = [
            p for p in self.network.projections.values() if (p.source.name, p.target.name) == (source, target)
        ]
        if len(found) != 1:
            problem = f"{len(found)} projections lead from '{source}' to '{target}'"
            raise NetworkError("stack", problem, "build it with build_stack")
        return found[0]

    @property
    def sizes(self) -> list[int]:
        """Units of each layer."""
        return [p.n_units for p in self._units]

    @property
    def recurrent_shapes(self) -> list[tuple[int, int]]:
        """Of each layer's recurrent weights, all of them."""
        return [p.shape for p in self._recurrent]

    def parameters(self) -> dict[str, Parameter]:
        """Those of the network."""
        return self.network.parameters()

    @property
    def simulation(self) -> Simulation:
        """What runs the network, with its present states."""
        return self._simulation

    # -- states --------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Begin at rest."""
        self._simulation = Simulation(self._simulation.plan, self._simulation.threads)

    def states(self) -> Simulation:
        """The states in which the last window ended, for `restore`."""
        return self._simulation

    def restore(self, states: Simulation) -> None:
        """Go on from there; states that were restored are to be used once."""
        self._simulation = states

    # -- running -------------------------------------------------------------------------------------------

    def read(self, x: NDArray, carry: bool) -> NDArray:
        """What layers hold or the last one sends, shape (n_steps, n_lanes, n_units), with nothing dropped.

        Parameters
        ----------
        x : float array, shape (n_steps, n_lanes, n_inputs)
        carry : bool
            Go on from the states in which the last window ended.
        """
        self._log = self._simulation.run({"words": x}, carry=carry, tape=self.reads != "events")
        return self._output()

    def output_of(self, simulation: Simulation, sent: Mapping[str, NDArray]) -> NDArray:
        """What `read` gives for the last step, shape (n_lanes, n_units), of a simulation of the same layers.

        Parameters
        ----------
        simulation : Simulation
            Such as that of the `tabulated` network.
        sent : mapping of str to ndarray
            What `Simulation.step` returned.
        """
        if self._read:
            return np.sum([simulation.states(name)["c"][:, : self.n_units] for name in self._read], axis=0)
        return sent[self.layers[-1]]

    def forward(self, x: NDArray, masks: Masks, carry: bool) -> NDArray:
        """As `read`, with dropout, and what `backward` needs is kept."""
        layers = zip(self._upward[1:], masks.layers, strict=True)
        gains = {p.name: mask for p, mask in layers if mask is not None}
        self._masks = masks
        with self._dropped(masks):
            self._log = self._simulation.run({"words": x}, carry=carry, gains=gains)
        return self._output()

    def backward(self, dy: NDArray) -> tuple[NDArray, dict[str, NDArray]]:
        """Gradients of the last `forward`.

        Parameters
        ----------
        dy : float array, shape (n_steps, n_lanes, n_units)
            Of the loss at what `forward` gave.

        Returns
        -------
        dx : ndarray, shape (n_steps, n_lanes, n_inputs)
        gradients : dict of str to ndarray
            By parameter name.
        """
        if self._log is None or self._masks is None:
            raise StimulusError("stack", "backward without forward", "run forward first")
        losses = {name: self._widened(dy, name) for name in self._read} or {f"{self.layers[-1]}.y": dy}
        if self.activity_cost:
            losses |= {f"{p.name}.o": self._activity_loss(self._log[p.name], dy.dtype) for p in self._units}
        with self._dropped(self._masks):
            self._gradients = self._adjoint.replay(self._log, losses, inputs=True)
        gradients = dict(self._gradients)
        for projection, mask in self._dropping(self._masks):
            gradients[projection.weight.name] = gradients[projection.weight.name] * mask
        return self._gradients.inputs["words"], gradients

    def _activity_loss(self, layer: PopulationLog, dtype: np.dtype) -> NDArray:
        """Derivatives of the activity term by each event of a layer, shape (n_steps, n_lanes, n_units)."""
        assert self._log is not None
        assert layer.events is not None
        cells = self._log.n_steps * self._log.n_lanes
        activity = np.bincount(layer.events.unit, minlength=layer.n_units) / cells
        slope = 2 * self.activity_cost * (activity - self.activity_target) / (cells * sum(self.sizes))
        return np.full((self._log.n_steps, self._log.n_lanes, layer.n_units), slope, dtype)

    def count(self, tally: Tally, backward: bool = False) -> None:
        """Add events and MACs of the last `read` or `forward`, or those of the last `backward`."""
        if backward:
            add(tally.backward_active, self._gradients.counters["backward_active"])
            for kind in ("state", "weight"):
                add(tally.macs.setdefault(kind, {}), self._gradients.counters[f"macs_{kind}"])
            return
        assert self._log is not None
        counters = self._log.counters
        tally.lane_steps += counters["lane_steps"]
        add(tally.events, counters["events"])
        units = {name: self._log[name].n_units * counters["lane_steps"] for name in counters["events"]}
        add(tally.unit_steps, units)
        add(tally.macs.setdefault("forward", {}), counters["macs"])
        add(tally.dense_macs, counters["dense_macs"])

    def _output(self) -> NDArray:
        assert self._log is not None
        if self._read:
            first, *others = (self._log[name].state[..., : self.n_units] for name in self._read)
            return sum(others, first)
        events = self._log[self.layers[-1]].events
        assert events is not None
        return events.to_dense()

    def _widened(self, dy: NDArray, name: str) -> NDArray:
        """Derivatives by the states of a layer: 0 by those that are not read."""
        beyond = self.network.populations[name].n_units - self.n_units
        return np.pad(dy, ((0, 0), (0, 0), (0, beyond))) if beyond else dy

    def _dropping(self, masks: Masks) -> Iterator[tuple[Projection, NDArray]]:
        """Recurrent projections with factors of their stored weights."""
        for projection, mask in zip(self._recurrent, masks.recurrent, strict=True):
            if mask is not None:
                stored = mask
                if projection.indptr is not None and projection.indices is not None:
                    rows = np.repeat(np.arange(projection.shape[0]), np.diff(projection.indptr))
                    stored = mask[rows, projection.indices]
                yield projection, stored

    @contextmanager
    def _dropped(self, masks: Masks) -> Iterator[None]:
        """Recurrent weights are those of this window: dropconnect."""
        kept: Mapping[Projection, NDArray] = {p: p.weight.values.copy() for p, _ in self._dropping(masks)}
        for projection, mask in self._dropping(masks):
            projection.weight.values *= mask
        try:
            yield
        finally:
            for projection, values in kept.items():
                projection.weight.values[...] = values
