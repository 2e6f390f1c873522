"""Random small networks as data: Hypothesis draws and shrinks them, tests build them in any order."""

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse
from hypothesis import strategies as st

from evsim.models import (
    EGRU,
    LIF,
    DeltaEncoder,
    DeltaGRU,
    DeltaLSTM,
    DeltaReadout,
    EventSource,
    LeakyReadout,
    LinearReadout,
)
from evsim.network import Network

#: What a loss may look at, by kind of population.
LOSSES = {
    "source": (),
    "lines": (),
    "evnn": ("", ".y", ".o"),
    "paper": ("", ".y", ".o"),
    "lif": ("", ".y", ".o"),
    "gru": ("", ".y"),
    "lstm": ("", ".y"),
    "encoder": (),
    "leaky": ("",),
    "linear": ("",),
    "held": ("",),
}


@dataclass(frozen=True)
class Layer:
    """A population."""

    name: str
    kind: str  # a key of LOSSES
    n: int
    watches: str | None = None


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
        """The network, put together in the order given (by default that of the recipe), but encoders last."""
        net = Network(dt=self.dt, seed=self.seed, dtype=self.dtype)
        layers = self.layers if layers is None else layers
        for layer in sorted(layers, key=lambda layer: layer.kind == "encoder"):
            net.add(_population(layer, net))
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
        return [layer for layer in self.layers if layer.kind in ("source", "lines")]

    def stimulus(self, seed: int = 1, n_steps: int | None = None) -> dict[str, np.ndarray]:
        """Dense float input of every source: mostly zero; of lines, mostly as in the step before.

        Lines take values that floats hold exactly, so that a line that stays has nothing left to send.
        """
        rng = np.random.default_rng([self.seed, seed])
        made = {}
        for layer in self.sources():
            shape = (self.n_steps if n_steps is None else n_steps, self.n_lanes, layer.n)
            dense = rng.normal(0, 1.2, shape) * (rng.random(shape) < self.rate)
            if layer.kind == "lines":
                dense = np.round(np.cumsum(dense / 2, axis=0) * 64) / 64
            made[layer.name] = dense.astype(self.dtype)
        return made

    def losses(self, seed: int = 2) -> dict[str, np.ndarray]:
        """Random loss gradients at every state, value and event."""
        rng = np.random.default_rng([self.seed, seed])
        made = {}
        for layer in self.layers:
            for suffix in LOSSES[layer.kind]:
                shape = (self.n_steps, self.n_lanes, layer.n)
                made[layer.name + suffix] = rng.normal(size=shape).astype(self.dtype)
        return made


def _population(layer: Layer, net: Network):
    n, name = layer.n, layer.name
    match layer.kind:
        case "source":
            return EventSource(n, name)
        case "lines":
            return EventSource(n, name, threshold=_thresholds)
        case "lif":
            options = {"tau_m": 3.0, "tau_e": 1.5, "tau_i": 3.0, "reset": -0.1, "refractory": 0.8}
            return LIF(n, name, threshold=_thresholds, bias=_normal(0.4), **options)
        case "gru":
            return DeltaGRU(n, name, threshold=_thresholds, bias=_normal(0.5))
        case "lstm":
            return DeltaLSTM(n, name, threshold=_thresholds, bias=_normal(0.5))
        case "encoder":
            return DeltaEncoder(net[layer.watches], name, threshold=_thresholds)
        case "leaky":
            return LeakyReadout(n, name, tau=1.7, bias=_normal(0.2))
        case "linear":
            return LinearReadout(n, name, bias=_normal(0.2))
        case "held":
            return DeltaReadout(n, name, bias=_normal(0.2))
    return EGRU(n, name, form=layer.kind, threshold=_thresholds, bias=_bias)


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
    """Sources, EGRU of both forms and LIF, or delta units of both types with encoders, and readouts.

    Delay 0 is only forwards, so that no cycle lacks one.
    """
    delays = st.integers(1, 20) if delays is None else delays
    # Names are shuffled so that the order by name is not that of the layers.
    names = draw(
        st.permutations(["able", "bird", "cask", "dune", "echo", "fern", "gale", "hush", "iris", "jade"])
    )
    layers: list[Layer] = []

    def add(kinds: tuple[str, ...], most: int, watched: Layer | None = None) -> int:
        n = draw(st.integers(1, most)) if watched is None else watched.n
        kind = draw(st.sampled_from(kinds))
        layers.append(Layer(names[len(layers)], kind, n, None if watched is None else watched.name))
        return len(layers) - 1

    delta = draw(st.booleans())
    n_sources, n_hidden, n_readouts = (
        draw(st.integers(1, 2)),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 2)),
    )
    senders = [add(("lines", "source") if delta else ("source",), 4) for _ in range(n_sources)]
    hidden, readouts = [], []
    for _ in range(n_hidden):
        hidden.append(add(("gru", "lstm") if delta else ("evnn", "paper", "lif"), 19))
        senders.append(hidden[-1])
        if delta and draw(st.booleans()):
            senders.append(add(("encoder",), 0, layers[hidden[-1]]))
    for _ in range(n_readouts):
        readouts.append(add(("held",) if delta else ("leaky", "linear"), 4))

    density = st.sampled_from([None, None, 0.5, 0.1])
    links: list[Link] = []

    def link(source: int, target: int, port: str | None = None) -> None:
        later = target > source
        delay = draw(st.one_of(st.just(0), delays)) if later else draw(delays)
        links.append(Link(layers[source].name, layers[target].name, delay, port, draw(density), len(links)))

    for target in hidden:
        link(draw(st.sampled_from([sender for sender in senders if sender < target])), target)
        link(target, target)
    for target in readouts:
        link(draw(st.sampled_from([sender for sender in senders if sender >= hidden[0]])), target)
    for _ in range(draw(st.integers(0, 4))):
        source, target = draw(st.sampled_from(senders)), draw(st.sampled_from(hidden + readouts))
        port = None
        if layers[target].kind in ("evnn", "gru", "lstm"):
            port = draw(st.sampled_from([None, "input", "recurrent"]))
        elif layers[target].kind == "lif":
            port = draw(st.sampled_from([None, "excitatory", "inhibitory"]))
        elif layers[target].kind == "paper" and source == target:
            port = draw(st.sampled_from(["input", "recurrent"]))
        link(source, target, port)
    return Recipe(
        tuple(layers),
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
