"""Random small networks as data: Hypothesis draws and shrinks them, tests build them in any order."""

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse
from hypothesis import strategies as st

from evsim.models import EGRU, EventSource, LeakyReadout, LinearReadout
from evsim.network import Network


@dataclass(frozen=True)
class Layer:
    """A population."""

    name: str
    kind: str  # "source", "evnn", "paper", "leaky" or "linear"
    n: int


@dataclass(frozen=True)
class Link:
    """A projection; ``density`` None means dense."""

    source: str
    target: str
    delay: int
    port: str | None = None
    density: float | None = None
    index: int = 0

    @property
    def name(self) -> str:
        """Unique, and not in any order of importance."""
        return f"p{7 * self.index % 11}{self.index}"


@dataclass(frozen=True)
class Recipe:
    """A network; `build` makes it anew at every call."""

    layers: tuple[Layer, ...]
    links: tuple[Link, ...]
    seed: int = 0
    dtype: str = "float64"
    dt: float = 0.5
    n_steps: int = 12
    n_lanes: int = 2
    rate: float = 0.4

    def with_(self, **changes) -> "Recipe":
        """A changed copy."""
        return replace(self, **changes)

    def build(self, layers=None, links=None) -> Network:
        """The network, put together in the order given (by default that of the recipe)."""
        net = Network(dt=self.dt, seed=self.seed, dtype=self.dtype)
        for layer in self.layers if layers is None else layers:
            net.add(_population(layer))
        for link in self.links if links is None else links:
            net.connect(
                link.source,
                link.target,
                _weights(link.density),
                delay=link.delay * self.dt,
                port=link.port,
                name=link.name,
            )
        return net

    def sources(self) -> list[Layer]:
        """Where a stimulus is needed."""
        return [layer for layer in self.layers if layer.kind == "source"]

    def stimulus(self, seed: int = 1, n_steps: int | None = None) -> dict[str, np.ndarray]:
        """Dense float input, mostly zero, of every source."""
        rng = np.random.default_rng([self.seed, seed])
        made = {}
        for layer in self.sources():
            shape = (self.n_steps if n_steps is None else n_steps, self.n_lanes, layer.n)
            made[layer.name] = (rng.normal(0, 1.2, shape) * (rng.random(shape) < self.rate)).astype(
                self.dtype
            )
        return made

    def losses(self, seed: int = 2) -> dict[str, np.ndarray]:
        """Random loss gradients at every state, value and event."""
        rng = np.random.default_rng([self.seed, seed])
        made = {}
        for layer in self.layers:
            if layer.kind != "source":
                for suffix in ("", ".y", ".o") if layer.kind in ("evnn", "paper") else ("",):
                    shape = (self.n_steps, self.n_lanes, layer.n)
                    made[layer.name + suffix] = rng.normal(size=shape).astype(self.dtype)
        return made


def _population(layer: Layer):
    if layer.kind == "source":
        return EventSource(layer.n, name=layer.name)
    if layer.kind == "leaky":
        return LeakyReadout(layer.n, name=layer.name, tau=1.7, bias=_normal(0.2))
    if layer.kind == "linear":
        return LinearReadout(layer.n, name=layer.name, bias=_normal(0.2))
    return EGRU(layer.n, name=layer.name, form=layer.kind, threshold=_thresholds, bias=_bias)


def _normal(scale: float):
    return lambda rng, shape: rng.normal(0, scale, shape)


def _thresholds(rng, shape):
    return rng.uniform(0, 0.4, shape) * (rng.random(shape) < 0.9)


def _bias(rng, shape):
    values = rng.normal(0, 0.4, shape)
    values[2 * shape[0] // 3 :] += 0.4  # candidates above the threshold, so that units fire
    return values


def _weights(density: float | None):
    def make(rng, shape):
        dense = rng.normal(0, 1.6 / np.sqrt(shape[0]), shape)
        if density is None:
            return dense
        return scipy.sparse.csr_array(np.where(rng.random(shape) < density, dense, 0.0))

    return make


@st.composite
def recipes(
    draw, dtypes=("float64", "float32"), delays=None, max_steps: int = 16, max_lanes: int = 4
) -> Recipe:
    """Sources, EGRU of both forms and readouts; delay 0 only forwards, so that no cycle lacks one."""
    delays = st.integers(1, 20) if delays is None else delays
    n_sources, n_hidden, n_readouts = (
        draw(st.integers(1, 2)),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 2)),
    )
    # Names are shuffled so that the order by name is not that of the layers.
    names = draw(st.permutations(["able", "bird", "cask", "dune", "echo", "fern", "gale"]))
    kinds = ["source"] * n_sources
    kinds += [draw(st.sampled_from(["evnn", "paper"])) for _ in range(n_hidden)]
    kinds += [draw(st.sampled_from(["leaky", "linear"])) for _ in range(n_readouts)]
    layers = tuple(
        Layer(name, kind, draw(st.integers(1, 19 if kind in ("evnn", "paper") else 4)))
        for name, kind in zip(names, kinds, strict=False)
    )
    density = st.sampled_from([None, None, 0.5, 0.1])
    links: list[Link] = []

    def link(source: int, target: int, port: str | None = None) -> None:
        later = target > source
        delay = draw(st.one_of(st.just(0), delays)) if later else draw(delays)
        links.append(Link(layers[source].name, layers[target].name, delay, port, draw(density), len(links)))

    hidden = range(n_sources, n_sources + n_hidden)
    for target in hidden:
        link(draw(st.integers(0, target - 1)), target)
        link(target, target)
    for target in range(n_sources + n_hidden, len(layers)):
        link(draw(st.sampled_from(list(hidden))), target)
    for _ in range(draw(st.integers(0, 4))):
        source = draw(st.integers(0, n_sources + n_hidden - 1))
        target = draw(st.integers(n_sources, len(layers) - 1))
        port = None
        if layers[target].kind == "evnn":
            port = draw(st.sampled_from([None, "input", "recurrent"]))
        elif layers[target].kind == "paper" and source == target:
            port = draw(st.sampled_from(["input", "recurrent"]))
        link(source, target, port)
    return Recipe(
        layers,
        tuple(links),
        seed=draw(st.integers(0, 2**20)),
        dtype=draw(st.sampled_from(list(dtypes))),
        n_steps=draw(st.integers(1, max_steps)),
        n_lanes=draw(st.integers(1, max_lanes)),
        rate=draw(st.sampled_from([0.1, 0.5, 0.9])),
    )


def long_delays():
    """Delays of up to thousands of steps among short ones."""
    return st.sampled_from([1, 2, 999, 1700, 2500])


def facts(log, members=None, lane: int | None = None, stop: int | None = None) -> dict:
    """Everything a run did, as bytes by name; of one lane and the steps before ``stop`` only, if wanted."""
    found = {}
    for name in log if members is None else members:
        member = log[name]
        part = slice(None) if lane is None else slice(lane, lane + 1)
        if member.events is not None:
            dense = member.events.to_dense()[:stop, part]
            found[name, "events"] = dense.shape, dense.tobytes()
        if member.tape is not None:
            state = np.ascontiguousarray(member.state[:stop, part])
            found[name, "state"] = state.shape, state.tobytes()
    return found


def bits(gradients) -> dict:
    """All gradients as bytes by name."""
    return {name: (value.shape, value.tobytes()) for name, value in gradients.items()}
