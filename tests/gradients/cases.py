"""Networks, stimuli and losses that the tests of gradients share: small, float64, events and silences."""

from dataclasses import dataclass
from itertools import product

import numpy as np
import scipy.sparse

from evsim.events import Events
from evsim.models import EGRU, EventSource, LeakyReadout, LinearReadout
from evsim.network import Network
from evsim.reference import history

N_STEPS, N_LANES = 11, 3

#: What each kind of loss looks at, by what a population is.
LOOKS_AT = {
    "v": {"readout": ("",)},
    "c": {"EGRU": ("",)},
    "y": {"EGRU": (".y",)},
    "o": {"EGRU": (".o",)},
    "all": {"readout": ("",), "EGRU": ("", ".y", ".o")},
}


@dataclass(frozen=True)
class Case:
    """One network and what is asked of it.

    Attributes
    ----------
    form : {"evnn", "paper", "mixed"}
        Of both layers; "mixed" is evnn below paper.
    storage : {"dense", "csr"}
    delays : tuple of int
        One projection of the first layer to itself for each, in steps.
    loss : str
        A key of `LOOKS_AT`.
    graph : {"chain", "tangle"}
        Two layers and a readout; or two sources, feedback, delays everywhere, two readouts, and several
        projections into one port.
    threshold : {"mixed", "zero"}
        Mixed ones run from 0 to 0.5.
    pseudo_derivative, gamma, eps
        See `evsim.adjoint.Adjoint`.
    lengths : tuple of int, optional
        Steps that each lane runs.
    """

    form: str = "evnn"
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
        parts = [self.graph, self.form, self.storage, f"delay{delays}", self.loss, self.pseudo_derivative]
        extra = ["thresholds0"] if self.threshold == "zero" else []
        return "-".join(parts + extra + (["ragged"] if self.lengths else []))

    @property
    def surrogate(self) -> dict:
        """Arguments of the pseudo-derivative."""
        return {"pseudo_derivative": self.pseudo_derivative, "gamma": self.gamma, "eps": self.eps}

    # -- the network ---------------------------------------------------------------------------------------

    def network(self) -> Network:
        """The network, with the same parameters at every call."""
        rng = np.random.default_rng(1)
        net = Network(dt=0.5, dtype="float64")
        cue = net.add(EventSource(5, name="cue"))
        first = net.add(self._layer(7, "first", "evnn" if self.form == "mixed" else self.form, rng))
        second = net.add(self._layer(6, "second", "paper" if self.form == "mixed" else self.form, rng))
        answer = net.add(LeakyReadout(3, name="answer", tau=2.0, bias=rng.normal(0, 0.2, 3)))

        def connect(source, target, delay, **options):
            port = options.get("port") or target.default_port(source)
            shape = (source.n_units, len(target.ports[port]) * target.n_units)
            name = f"{source.name}->{target.name}-{port}-{delay}"
            net.connect(source, target, self._weight(shape, rng), delay * net.dt, name=name, **options)

        connect(cue, first, 0)
        for delay in self.delays:
            connect(first, first, delay)
        connect(first, second, 0)
        connect(second, second, 1)
        connect(second, answer, 0)
        if self.graph == "tangle":
            extra = net.add(EventSource(4, name="a_second_source"))
            label = net.add(LinearReadout(2, name="label", bias=rng.normal(0, 0.2, 2)))
            connect(second, first, 2)
            connect(second, second, 3)
            connect(first, first, 2, port="input")
            connect(first, second, 4)
            connect(extra, second, 2)
            connect(extra, first, 1, port="recurrent" if first.form == "evnn" else "input")
            connect(cue, answer, 3)
            connect(extra, answer, 0)
            connect(first, label, 1)
            connect(second, label, 0)
        for parameter in net.parameters().values():
            if parameter.name.endswith("recurrent_bias"):
                parameter.assign(rng.normal(0, 0.3, parameter.values.shape))
        return net

    def _layer(self, n: int, name: str, form: str, rng: np.random.Generator) -> EGRU:
        threshold = rng.permutation(np.linspace(0.0, 0.5, n)) if self.threshold == "mixed" else 0.0
        bias = rng.normal(0, 0.3, 3 * n)
        bias[2 * n :] += 0.5  # keeps units above their thresholds now and then
        return EGRU(n, name=name, form=form, threshold=threshold, bias=bias)

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

    def stimulus(self, network: Network, seed: int = 2, n_steps: int = N_STEPS) -> dict[str, Events]:
        """Graded events in three of ten places; none after the end of a lane."""
        rng = np.random.default_rng(seed)
        made = {}
        for name, population in network.populations.items():
            if isinstance(population, EventSource):
                shape = (n_steps, N_LANES, population.n_units)
                dense = rng.normal(0, 1.5, shape) * (rng.random(shape) < 0.3)
                made[name] = Events.from_dense(dense * self.alive(n_steps), dtype=np.float64)
        return made

    def initial(self, network: Network, seed: int = 3) -> dict[str, dict[str, np.ndarray]]:
        """Random states, and events in flight."""
        rng = np.random.default_rng(seed)
        made: dict[str, dict[str, np.ndarray]] = {}
        for name, population in network.populations.items():
            made[name] = {s: rng.normal(0, 0.4, (N_LANES, population.n_units)) for s in population.states}
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
            kind = "EGRU" if isinstance(population, EGRU) else "source" if population.emits else "readout"
            keys += [(name + suffix, population.n_units) for suffix in LOOKS_AT[self.loss].get(kind, ())]
        return {key: rng.normal(size=(n_steps, N_LANES, n)) * self.alive(n_steps) for key, n in keys}


#: Form x storage x delays x what the loss looks at.
MATRIX = [
    Case(form, storage, delays, loss)
    for form, storage in product(("evnn", "paper"), ("dense", "csr"))
    for delays, loss in product(((1,), (3,), (1, 3)), LOOKS_AT)
]
#: Everything at once, with every pseudo-derivative.
TANGLES = [
    Case(form, storage, (1, 3), graph="tangle", pseudo_derivative=shape, gamma=gamma, eps=eps)
    for form, storage, (shape, gamma, eps) in product(
        ("evnn", "paper", "mixed"),
        ("dense", "csr"),
        (("triangle", 3.6, 3.6), ("rectangle", 0.5, 4.0), ("fast_sigmoid", 0.9, 5.0)),
    )
]
#: All thresholds 0; lanes of different lengths, one of which does not run at all.
CORNERS = [
    case
    for form in ("evnn", "paper", "mixed")
    for case in (
        Case(form, threshold="zero"),
        Case(form, "csr", (1, 2), graph="tangle", threshold="zero", eps=1.0),
        Case(form, graph="tangle", lengths=(N_STEPS, 0, 6)),
        Case(form, "csr", (2, 3), graph="tangle", lengths=(4, N_STEPS, 7)),
    )
]
ALL = MATRIX + TANGLES + CORNERS


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


def check_differences(loss_and_raster, arrays: dict, gradients: dict) -> float:
    """Compare gradients with central differences in 8 entries of each array; return the worst error.

    Errors are relative to the largest gradient of an array.  Four in five entries must be comparable.
    """
    rng = np.random.default_rng(5)
    _, raster = loss_and_raster()
    worst, tried, compared = 0.0, 0, 0
    for name, values in arrays.items():
        flat, scale = values.reshape(-1), np.abs(gradients[name]).max() or 1.0
        assert np.shares_memory(flat, values)
        for i in rng.permutation(flat.size)[:8]:
            numeric = central_difference(loss_and_raster, flat, i, raster)
            tried += 1
            if not np.isnan(numeric):
                compared += 1
                exact = gradients[name].reshape(-1)[i]
                error = abs(numeric - exact) / scale
                assert error < 1e-6, f"{name}[{i}]: {exact}, by differences {numeric}"
                worst = max(worst, error)
    assert compared >= 0.8 * tried, f"only {compared} of {tried} entries kept their raster"
    return worst
