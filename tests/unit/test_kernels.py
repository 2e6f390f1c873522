"""The compiled kernels: gates, equal bits on every instruction set, C structs and their twins."""

import numpy as np
import pytest
import scipy.special

from evsim.adjoint import Adjoint
from evsim.core import kernels, layout
from evsim.errors import EvsimError
from evsim.models import EGRU, LIF, DeltaEncoder, DeltaGRU, DeltaLSTM, DeltaReadout, EventSource, LeakyReadout
from evsim.network import Network
from evsim.simulation import Simulation

#: Largest absolute errors: both functions lie in [-1, 1], where a few roundings come to this.
BOUND = {"float64": 5e-16, "float32": 3e-7}


@pytest.fixture(params=kernels.available())
def isa(request):
    before = kernels.in_use()
    assert kernels.use(request.param) == request.param
    yield request.param
    kernels.use(before)


def gates(x):
    s, t = np.empty_like(x), np.empty_like(x)
    kernels.gates(x, s, t)
    return s, t


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gates(isa, dtype):
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [
            np.linspace(-45, 45, 200_001),
            rng.normal(size=100_000),
            rng.normal(0, 1e-6, 1000),
            10.0 ** np.linspace(-30, 4, 1001),
            -(10.0 ** np.linspace(-30, 4, 1001)),
            np.arange(-1100, 1100) * np.log(2) / 2,  # where the exponent changes
            [0.0, -0.0, 1e4, -1e4, 1e30, -1e30, np.inf, -np.inf],
        ]
    ).astype(dtype)
    s, t = gates(x)
    exact = x.astype(np.float64)
    assert np.abs(s - scipy.special.expit(exact)).max() <= BOUND[dtype]
    assert np.abs(t - np.tanh(exact)).max() <= BOUND[dtype]
    assert (s >= 0).all()
    assert (s <= 1).all()
    assert (np.abs(t) <= 1).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gates_at_the_ends(isa, dtype):
    s, t = gates(np.array([1e4, np.inf, -1e4, -np.inf, 0.0], dtype))
    np.testing.assert_array_equal(s[:2], 1)
    np.testing.assert_allclose(s[2:4], 0, atol=1e-30)
    np.testing.assert_array_equal(t, [1, 1, -1, -1, 0])
    assert s[4] == 0.5


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("length", [1, 3, 8, 17])
def test_nan_passes_through_and_spoils_nothing_else(isa, dtype, length):
    for place in range(length):
        x = np.linspace(-1, 1, length).astype(dtype)
        clean_s, clean_t = gates(x)
        x[place] = np.nan
        s, t = gates(x)
        others = np.arange(length) != place
        assert np.isnan(s[place])
        assert np.isnan(t[place])
        np.testing.assert_array_equal(s[others], clean_s[others])
        np.testing.assert_array_equal(t[others], clean_t[others])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gates_do_not_depend_on_the_place_in_the_array(isa, dtype):
    """Vector bodies and scalar tails of a loop do the same arithmetic."""
    x = np.random.default_rng(1).normal(0, 4, 67).astype(dtype)
    s, t = gates(x)
    for i in range(len(x)):
        one_s, one_t = gates(x[i : i + 1].copy())
        assert one_s[0] == s[i]
        assert one_t[0] == t[i]


def egru(form):
    """A network of odd sizes, so that loops have tails."""

    def add(net):
        net.add(EventSource(7, name="cue"))
        net.add(EGRU(37, "hidden", form=form, threshold=0.1, bias=lambda r, shape: r.normal(0.2, 0.5, shape)))
        net.add(LeakyReadout(5, name="answer"))
        net.connect("hidden", "answer")

    return add


def lif(net):
    """The same of LIF units, some of which are held at any time."""
    net.add(EventSource(7, name="cue"))
    options = {"tau_m": 4.0, "tau_e": 2.0, "tau_i": 4.0, "refractory": 1.5}
    net.add(LIF(37, "hidden", threshold=0.3, bias=lambda r, shape: r.normal(0.2, 0.5, shape), **options))
    net.add(LeakyReadout(5, name="answer"))
    net.connect("hidden", "answer")


def delta(units):
    """The same of delta units, which the readout sees through an encoder."""

    def add(net):
        net.add(EventSource(7, name="cue", threshold=0.3))
        net.add(units(37, "hidden", threshold=0.1, bias=lambda r, shape: r.normal(0, 0.5, shape)))
        net.add(DeltaEncoder(net["hidden"], "exact"))
        net.add(DeltaReadout(5, name="answer"))
        net.connect("exact", "answer")

    return add


NETWORKS = {
    "evnn": egru("evnn"),
    "paper": egru("paper"),
    "lif": lif,
    "gru": delta(DeltaGRU),
    "lstm": delta(DeltaLSTM),
}
#: Pseudo-derivatives are of EGRU and LIF; delta units have none.
KERNELS = [
    (form, shape) for form in ("evnn", "paper", "lif") for shape in ("triangle", "rectangle", "fast_sigmoid")
]
KERNELS += [("gru", "triangle"), ("lstm", "triangle")]


def everything(dtype, units, pseudo_derivative):
    """All numbers of a run and its replay as bytes."""
    rng = np.random.default_rng(5)
    net = Network(seed=3, dtype=dtype)
    NETWORKS[units](net)
    net.connect("cue", "hidden")
    net.connect("hidden", "hidden", "orthogonal", delay=1.0, name="dense")
    net.connect("hidden", "hidden", "orthogonal", delay=3.0, density=0.3, name="sparse")
    simulation = Simulation(net, threads=2)
    log = simulation.run(rng.normal(size=(25, 3, 7)) * (rng.random((25, 3, 7)) < 0.5))
    events = "hidden.o" if "o" in net["hidden"].losses else "hidden.y"
    loss = {"answer": rng.normal(size=(25, 3, 5)), events: rng.normal(size=(25, 3, 37))}
    gradients = Adjoint(simulation.plan, pseudo_derivative, eps=1.3).replay(log, loss, inputs=True)
    assert log["hidden"].n_events > 100
    found = {name: array.tobytes() for name, array in gradients.items()}
    found |= {f"{name} input": array.tobytes() for name, array in gradients.inputs.items()}
    for name in log:
        if log[name].events is not None:
            found[f"{name} events"] = log[name].events.to_dense().tobytes()
        if log[name].tape is not None:
            found[f"{name} tape"] = log[name].tape.tobytes()
    return found


@pytest.mark.parametrize(("units", "pseudo_derivative"), KERNELS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_instruction_set_gives_the_same_bits(dtype, units, pseudo_derivative):
    before, results = kernels.in_use(), {}
    try:
        for name in kernels.available():
            kernels.use(name)
            results[name] = everything(dtype, units, pseudo_derivative)
    finally:
        kernels.use(before)
    reference = results["baseline"]
    for name, result in results.items():
        assert result == reference, name


def test_choice_of_instruction_set():
    before = kernels.in_use()
    assert before in kernels.available()
    assert kernels.available()[-1] == "baseline"
    try:
        assert kernels.use("") == kernels.available()[0]
        with pytest.raises(EvsimError, match="instruction set 'abacus'") as caught:
            kernels.use("abacus")
        assert str(kernels.available()) in str(caught.value)
        assert kernels.in_use() == kernels.available()[0]
    finally:
        kernels.use(before)


def test_structs_and_their_twins_have_one_size():
    assert layout.struct_sizes() == {
        "population": layout.POPULATION.itemsize,
        "projection": layout.PROJECTION.itemsize,
        "fixed": layout.FIXED.itemsize,
    }


def test_a_plan_table_wants_its_own_dtypes():
    with pytest.raises(TypeError, match="dtype"):
        layout.PlanTable(np.zeros(1, "i4"), np.zeros(0, layout.PROJECTION), True, [])
