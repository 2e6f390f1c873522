"""Networks, stimuli and losses that the tests of gradients share: small, float64, events and silences."""

from dataclasses import dataclass
from itertools import product

import numpy as np
import scipy.sparse

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
from evsim.population import Population
from evsim.reference import history

N_STEPS, N_LANES = 11, 3

#: Units of the first and of the second layer, by the name of the choice.
LAYERS = {
    "evnn": ("evnn", "evnn"),
    "paper": ("paper", "paper"),
    "mixed": ("evnn", "paper"),
    "lif": ("lif", "lif"),
    "lif+evnn": ("lif", "evnn"),
    "evnn+lif": ("evnn", "lif"),
    "gru": ("gru", "gru"),
    "lstm": ("lstm", "lstm"),
    "gru+lstm": ("gru", "lstm"),
}
#: What a loss may look at.
EGRU_LOSSES = ("v", "c", "y", "o", "all")
LIF_LOSSES = ("v", "y", "o", "all")
#: Ports of LIF units in place of those of EGRU.
LIF_PORTS = {"input": "excitatory", "recurrent": "inhibitory"}
DELTA_LOSSES = ("v", "h", "y", "all")


@dataclass(frozen=True)
class Case:
    """One network and what is asked of it.

    Attributes
    ----------
    units : str
        A key of `LAYERS`.
    storage : {"dense", "csr"}
    delays : tuple of int
        One projection of the first layer to itself for each, in steps.
    loss : {"v", "c", "h", "y", "o", "all"}
        A state, by its name, of all populations that have it; what was sent; whether it was; or everything.
    graph : {"chain", "tangle"}
        Two layers and a readout, for delta units with an encoder between; or two sources, feedback, delays
        everywhere, two readouts, and several projections into one port.
    threshold : {"mixed", "zero"}
        Mixed ones run from 0 to 0.5 (of changes of h: to 0.25).  LIF units are reset to -0.3.
    pseudo_derivative, gamma, eps
        See `evsim.adjoint.Adjoint`.
    lengths : tuple of int, optional
        Steps that each lane runs.
    """

    units: str = "evnn"
    storage: str = "dense"
    delays: tuple[int, ...] = (1,)
    loss: str = "all"
    graph: str = "chain"
    threshold: str = "mixed"
    pseudo_derivative: str = "triangle"
    gamma: float = 0.7
    eps: float = 2.5
    lengths: tuple[int, ...] | None = None

    def __str__(self) -> str:
        delays = "+".join(map(str, self.delays))
        parts = [self.graph, self.units, self.storage, f"delay{delays}", self.loss]
        parts += [] if self.is_delta else [self.pseudo_derivative]
        extra = ["thresholds0"] if self.threshold == "zero" else []
        return "-".join(parts + extra + (["ragged"] if self.lengths else []))

    @property
    def is_delta(self) -> bool:
        """Whether the units send changes."""
        return not {"evnn", "paper", "lif"}.intersection(LAYERS[self.units])

    @property
    def surrogate(self) -> dict:
        """Arguments of the pseudo-derivative."""
        return {"pseudo_derivative": self.pseudo_derivative, "gamma": self.gamma, "eps": self.eps}

    # -- the network ---------------------------------------------------------------------------------------

    def network(self) -> Network:
        """The network, with the same parameters at every call."""
        rng = np.random.default_rng(1)
        net = Network(dt=0.5, dtype="float64")
        for population in self._delta_populations(rng) if self.is_delta else self._egru_populations(rng):
            net.add(population)
        for source, target, delay, *port in self._delta_links() if self.is_delta else self._egru_links():
            self._connect(net, net[source], net[target], delay, *port, rng=rng)
        for parameter in net.parameters().values():
            if parameter.name.endswith("recurrent_bias"):
                parameter.assign(rng.normal(0, 0.3, parameter.values.shape))
        return net

    def _egru_populations(self, rng: np.random.Generator) -> list[Population]:
        first, second = LAYERS[self.units]
        made = [
            EventSource(5, name="cue"),
            self._layer(7, "first", first, rng),
            self._layer(6, "second", second, rng),
            LeakyReadout(3, name="answer", tau=2.0, bias=rng.normal(0, 0.2, 3)),
        ]
        if self.graph == "tangle":
            made += [EventSource(4, name="a_second_source"), LinearReadout(2, "label", rng.normal(0, 0.2, 2))]
        return made

    def _egru_links(self) -> list[tuple]:
        """(source, target, delay) or (source, target, delay, port)."""
        links: list[tuple] = [("cue", "first", 0)]
        links += [("first", "first", delay) for delay in self.delays]
        links += [("first", "second", 0), ("second", "second", 1), ("second", "answer", 0)]
        if self.graph == "tangle":
            links += [
                ("second", "first", 2),
                ("second", "second", 3),
                ("first", "first", 2, "input"),
                ("first", "second", 4),
                ("a_second_source", "second", 2),
                ("a_second_source", "first", 1, "input" if self.units == "paper" else "recurrent"),
                ("cue", "answer", 3),
                ("a_second_source", "answer", 0),
                ("first", "label", 1),
                ("second", "label", 0),
            ]
        return links

    def _delta_populations(self, rng: np.random.Generator) -> list[Population]:
        first = self._layer(7, "first", LAYERS[self.units][0], rng)
        made = [
            EventSource(5, name="cue", threshold=self._thresholds(5, 0.5, rng)),
            first,
            DeltaEncoder(first, name="again", threshold=self._thresholds(7, 0.1, rng)),
            self._layer(6, "second", LAYERS[self.units][1], rng),
            DeltaReadout(3, name="answer", bias=rng.normal(0, 0.2, 3)),
        ]
        if self.graph == "tangle":
            made += [EventSource(4, name="a_second_source"), DeltaReadout(2, "label", rng.normal(0, 0.2, 2))]
        return made

    def _delta_links(self) -> list[tuple]:
        links: list[tuple] = [("cue", "first", 0)]
        links += [("first", "first", delay) for delay in self.delays]
        links += [
            ("again", "second", 0),
            ("again", "answer", 0),
            ("second", "second", 1),
            ("second", "answer", 0),
        ]
        if self.graph == "tangle":
            links += [
                ("again", "first", 2),
                ("again", "first", 1, "input"),
                ("second", "first", 2),
                ("second", "second", 3),
                ("first", "second", 4),
                ("first", "second", 1, "recurrent"),
                ("a_second_source", "second", 2),
                ("a_second_source", "first", 1, "recurrent"),
                ("cue", "answer", 3),
                ("a_second_source", "answer", 0),
                ("first", "label", 1),
                ("second", "label", 0),
            ]
        return links

    def _connect(
        self,
        net: Network,
        source: Population,
        target: Population,
        delay: int,
        port: str | None = None,
        *,
        rng: np.random.Generator,
    ) -> None:
        if isinstance(target, LIF):  # recurrence through both ports, by turns
            port = LIF_PORTS.get(port) or ("inhibitory" if source is target and delay > 1 else "excitatory")
        port = port or target.default_port(source)
        weight = self._weight((source.n_units, len(target.ports[port]) * target.n_units), rng)
        name = f"{source.name}->{target.name}-{port}-{delay}"
        net.connect(source, target, weight, delay * net.dt, port, name=name)

    def _layer(self, n: int, name: str, units: str, rng: np.random.Generator) -> Population:
        if units in ("gru", "lstm"):
            make = DeltaGRU if units == "gru" else DeltaLSTM
            return make(n, name, self._thresholds(n, 0.25, rng), rng.normal(0, 0.5, 4 * n))
        threshold = self._thresholds(n, 0.5, rng)
        if units == "lif":  # with a time constant of the second layer twice: there the closed form has a gap
            taus = (2.0, 1.5, 3.0) if name == "first" else (2.5, 2.5, 1.0)
            options = dict(zip(("tau_m", "tau_e", "tau_i"), taus, strict=True))
            bias = rng.normal(0.3, 0.3, n)
            return LIF(n, name, threshold, bias, reset=-0.3, refractory=0.8, **options)
        bias = rng.normal(0, 0.3, 3 * n)
        bias[2 * n :] += 0.5  # keeps units above their thresholds now and then
        return EGRU(n, name=name, form=units, threshold=threshold, bias=bias)

    def _thresholds(self, n: int, most: float, rng: np.random.Generator) -> np.ndarray | float:
        return rng.permutation(np.linspace(0.0, most, n)) if self.threshold == "mixed" else 0.0

    def _weight(self, shape: tuple[int, int], rng: np.random.Generator):
        dense = rng.normal(0, 1.6 / np.sqrt(shape[0]), shape)
        if self.storage == "dense":
            return dense
        kept = rng.random(shape) < 0.5
        kept[rng.integers(shape[0])] = False  # a row without weights
        csr = scipy.sparse.csr_array(np.where(kept, 1.4 * dense, 0.0))
        csr.data[rng.integers(csr.nnz)] = 0.0  # a stored zero is a weight like any other
        return csr

    # -- what goes in --------------------------------------------------------------------------------------

    def stimulus(self, network: Network, seed: int = 2, n_steps: int = N_STEPS) -> dict[str, np.ndarray]:
        """Graded events in three of ten places, lines that wander; nothing after the end of a lane."""
        rng = np.random.default_rng(seed)
        made = {}
        for name, population in network.populations.items():
            if isinstance(population, EventSource):
                shape = (n_steps, N_LANES, population.n_units)
                dense = rng.normal(0, 0.7 if self.is_delta else 1.5, shape) * (rng.random(shape) < 0.3)
                if population.states:
                    dense = np.cumsum(dense, axis=0)
                made[name] = dense * self.alive(n_steps)
        return made

    def initial(self, network: Network, seed: int = 3) -> dict[str, dict[str, np.ndarray]]:
        """Random states, and events in flight."""
        rng = np.random.default_rng(seed)
        made: dict[str, dict[str, np.ndarray]] = {}
        for name, population in network.populations.items():
            made[name] = {s: rng.normal(0, 0.4, (N_LANES, population.n_units)) for s in population.states}
            if isinstance(population, LIF):
                made[name]["hold"] = rng.integers(0, 3, (N_LANES, population.n_units)).astype(np.float64)
            if population.emits:
                shape = (history(network, population), N_LANES, population.n_units)
                made[name]["y"] = rng.uniform(0.2, 1.0, shape) * (rng.random(shape) < 0.4)
        return made

    def alive(self, n_steps: int = N_STEPS) -> np.ndarray:
        """Whether a lane runs, shape (n_steps, n_lanes, 1)."""
        lengths = np.array(self.lengths or (n_steps,) * N_LANES)
        return (np.arange(n_steps)[:, None] < lengths)[:, :, None]

    # -- what comes out ------------------------------------------------------------------------------------

    def losses(self, network: Network, seed: int = 4, n_steps: int = N_STEPS) -> dict[str, np.ndarray]:
        """Weights of what the loss looks at, of which it is the sum; zero after the end of a lane."""
        rng = np.random.default_rng(seed)
        keys = []
        for name, population in network.populations.items():
            for kind in population.losses:
                if self.loss in ("all", kind or state_of(population)):
                    keys.append((f"{name}.{kind}" if kind else name, population.n_units))
        return {key: rng.normal(size=(n_steps, N_LANES, n)) * self.alive(n_steps) for key, n in keys}


def state_of(population: Population) -> str:
    """The state that a loss looks at, of populations that have one."""
    if not population.emits or isinstance(population, LIF):
        return "v"
    return "h" if population.sends == "changes" else "c"


def with_states(network: Network) -> list[Population]:
    """The populations whose states logs hold."""
    return [p for p in network.populations.values() if p.losses]


def deciding(network: Network) -> list[str]:
    """Names of the populations that decide what they send."""
    return [name for name, p in network.populations.items() if "threshold" in p.parameters]


def product_of(units: tuple[str, ...], losses: tuple[str, ...]) -> list[Case]:
    """Units x storage x delays x what the loss looks at."""
    return [
        Case(kind, storage, delays, loss)
        for kind, storage in product(units, ("dense", "csr"))
        for delays, loss in product(((1,), (3,), (1, 3)), losses)
    ]


MATRIX = product_of(("evnn", "paper"), EGRU_LOSSES) + product_of(("lif",), LIF_LOSSES)
#: Everything at once, with every pseudo-derivative.
TANGLES = [
    Case(units, storage, (1, 3), graph="tangle", pseudo_derivative=shape, gamma=gamma, eps=eps)
    for units, storage, (shape, gamma, eps) in product(
        ("evnn", "paper", "mixed", "lif", "lif+evnn", "evnn+lif"),
        ("dense", "csr"),
        (("triangle", 3.6, 3.6), ("rectangle", 0.5, 4.0), ("fast_sigmoid", 0.9, 5.0)),
    )
]
DELTA_MATRIX = product_of(("gru", "lstm"), DELTA_LOSSES)
DELTA_TANGLES = [
    Case(units, storage, delays, loss, graph="tangle")
    for units, storage, delays in product(("gru", "lstm", "gru+lstm"), ("dense", "csr"), ((1,), (3,), (1, 3)))
    for loss in (DELTA_LOSSES if delays == (1, 3) else ("all",))
]
#: All thresholds 0; lanes of different lengths, one of which does not run at all.
CORNERS = [
    case
    for units in LAYERS
    for case in (
        Case(units, threshold="zero"),
        Case(units, "csr", (1, 2), graph="tangle", threshold="zero", eps=1.0),
        Case(units, graph="tangle", lengths=(N_STEPS, 0, 6)),
        Case(units, "csr", (2, 3), graph="tangle", lengths=(4, N_STEPS, 7)),
    )
]
ALL = MATRIX + TANGLES + DELTA_MATRIX + DELTA_TANGLES + CORNERS


def before_window(log, network) -> dict[str, dict[str, np.ndarray]]:
    """What a log says about the time before its window, as the reference wants it."""
    initial = {}
    for name, population in network.populations.items():
        member = log[name]
        initial[name] = {key: np.array(member.initial[key]) for key in population.states}
        if population.emits:
            y = np.zeros((history(network, population), log.n_lanes, population.n_units))
            sent = member.carried.to_dense()
            y[len(y) - len(sent) :] = sent
            if "y" in member.initial:
                y[-1] = member.initial["y"]
            initial[name]["y"] = y
    return initial


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference over largest expected value; with nothing expected, the largest value."""
    assert got.shape == expected.shape, (got.shape, expected.shape)
    if not got.size:
        return 0.0
    return float(np.abs(got - expected).max() / (np.abs(expected).max() or 1.0))


def gradient_errors(got: dict, expected: dict) -> dict[str, float]:
    """`relative_error` of every entry of nested dicts of arrays, by path; the keys must agree."""
    assert set(got) == set(expected), set(got) ^ set(expected)
    errors = {}
    for key in expected:
        if isinstance(expected[key], dict):
            errors |= {f"{key}/{k}": e for k, e in gradient_errors(got[key], expected[key]).items()}
        else:
            errors[key] = relative_error(got[key], expected[key])
    return errors


def central_difference(loss_and_raster, values: np.ndarray, index, raster, step: float = 1e-5) -> float:
    """d loss / d values[index], or NaN where a perturbed run has another raster.

    Parameters
    ----------
    loss_and_raster : callable () -> (float, ndarray)
        Runs with the present content of ``values``.
    """
    kept, losses = values[index], []
    for sign in (1, -1):
        values[index] = kept + sign * step
        loss, now = loss_and_raster()
        losses.append(loss if np.array_equal(now, raster) else np.nan)
    values[index] = kept
    return (losses[0] - losses[1]) / (2 * step)


def check_differences(
    loss_and_raster, arrays: dict, gradients: dict, tolerance: float = 1e-6, entries: int = 8
) -> float:
    """Compare gradients with central differences in some entries of each array; return the worst error.

    Errors are relative to the largest gradient of an array.  Four in five entries must be comparable.
    """
    rng = np.random.default_rng(5)
    _, raster = loss_and_raster()
    worst, tried, compared = 0.0, 0, 0
    for name, values in arrays.items():
        flat, scale = values.reshape(-1), np.abs(gradients[name]).max() or 1.0
        assert np.shares_memory(flat, values)
        for i in rng.permutation(flat.size)[:entries]:
            numeric = central_difference(loss_and_raster, flat, i, raster)
            tried += 1
            if not np.isnan(numeric):
                compared += 1
                exact = gradients[name].reshape(-1)[i]
                error = abs(numeric - exact) / scale
                assert error < tolerance, f"{name}[{i}]: {exact}, by differences {numeric}"
                worst = max(worst, error)
    assert compared >= 0.8 * tried, f"only {compared} of {tried} entries kept their raster"
    return worst
