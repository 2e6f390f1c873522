"""Networks with narrow weights: equal, event for event, to float32 networks of the rounded numbers.

In int8 that holds where float32 sums are as exact as sums of integers; other sums are held against NumPy.
"""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

import evsim
from evsim.adjoint import Adjoint
from evsim.calibration import calibrate
from evsim.core import kernels
from evsim.errors import GradientError, NetworkError, ParameterError
from evsim.eventlog import EventLog
from evsim.fixed_point import quantize
from evsim.models import (
    EGRU,
    DeltaEncoder,
    DeltaGRU,
    DeltaLSTM,
    DeltaReadout,
    EventSource,
    LeakyReadout,
    LinearReadout,
)
from evsim.narrow_weights import FORMATS, from_bfloat16, narrow, to_bfloat16, to_int8
from evsim.network import Network
from evsim.optimizer import SGD, Adam
from evsim.plan import HEAVY, Plan
from evsim.protocol import Trial
from evsim.reference import simulate
from evsim.simulation import Simulation
from evsim.training import Trainer
from oracles.int8_sums import add_int8
from oracles.random_networks import facts, recipes

N_IN, N_STEPS, N_LANES = 21, 30, 3


def draw_network(units: int, delta: bool = False, seed: int = 0) -> Network:
    """Source, two layers with recurrence, one projection sparse, a readout; several delays."""
    net = Network(seed=seed)
    if delta:
        layers = [DeltaGRU(units, "first", threshold=0.05), DeltaLSTM(units, "second", threshold=0.05)]
        source, readout = EventSource(N_IN, "source", threshold=0.1), DeltaReadout(5, "out")
    else:
        layers = [EGRU(units, "first", threshold=0.05), EGRU(units, "second", form="paper", threshold=0.05)]
        source, readout = EventSource(N_IN, "source"), LeakyReadout(5, "out", tau=4.0)
    for population in (source, *layers, readout):
        net.add(population)
    net.connect("source", "first", delay=3.0)
    net.connect("first", "first", weight="orthogonal", delay=2.0)
    net.connect("first", "second")
    net.connect("second", "second", weight="orthogonal")
    net.connect("second", "first", delay=5.0, density=0.3)
    net.connect(net.add(DeltaEncoder(layers[1], "again", threshold=0.02)) if delta else "second", "out")
    return net


def draw_stimulus(delta: bool = False, seed: int = 1, n_lanes: int = N_LANES) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(N_STEPS, n_lanes, N_IN)) * (rng.random((N_STEPS, n_lanes, N_IN)) < 0.3)
    return (np.cumsum(values, axis=0) if delta else values).astype(np.float32)


def widened(network: Network, narrowed: Network) -> Network:
    """The float32 network with the values of the narrowed one."""
    twin = network.copy()
    for name, parameter in twin.parameters().items():
        parameter.assign(narrowed.parameters()[name].values)
    return twin


def make_exact(network: Network, seed: int = 3) -> None:
    """Leave a single product to each sum, and payloads of one step that differ by less than 32 times.

    The unit of int8 sums is 2^28 to 2^29 times in the largest payload, so that all 24 bits of others count.
    """
    rng = np.random.default_rng(seed)
    for projection in network.projections.values():
        if not projection.is_sparse:
            n_rows, n_columns = projection.shape
            row = rng.integers(n_rows, size=n_columns)
            whole = np.zeros((n_rows, n_columns))
            whole[row, np.arange(n_columns)] = rng.integers(-127, 128, n_columns)
            whole[np.unique(row, return_index=True)] = 127  # one for each row: all have the same scale
            projection.weight.assign(whole / 64)
    for population in network.populations.values():
        for name, parameter in network.parameters().items():
            if name == f"{population.name}.threshold":
                parameter.assign(np.maximum(parameter.values, 0.15))
            elif name == f"{population.name}.bias" and getattr(population, "form", None) == "paper":
                values = parameter.values.copy()
                values[population.n_units : 2 * population.n_units] = (
                    60  # the reset gate is 1, to the last bit
                )
                parameter.assign(values)


def refuse(call, error, *words):
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message
    assert caught.value.remedy


# -- runs --------------------------------------------------------------------------------------------------


def check_recipe(recipe, times, kind):
    """A narrowed random network against the float32 network of the same values."""
    layers = tuple(replace(layer, n=layer.n * times) for layer in recipe.layers)
    recipe = recipe.with_(layers=layers)
    net, stimulus = recipe.build(), recipe.stimulus()
    if kind == "int8":
        make_exact(net)
        for layer in recipe.sources():
            if layer.kind == "source":  # lines take few values
                x = stimulus[layer.name]
                stimulus[layer.name] = np.sign(x) * np.clip(np.abs(x), np.float32(0.1), np.float32(3))
    narrowed = narrow(net, kind)
    expected = Simulation(widened(net, narrowed), threads=1).run(stimulus)
    got = Simulation(narrowed, threads=1).run(stimulus)
    assert facts(got) == facts(expected)
    assert got.counters == expected.counters


@pytest.mark.parametrize("kind", FORMATS)
def test_random_networks(kind):
    """Both forms of EGRU, delta units, encoders, readouts; strips full or not; sparse projections between."""

    @given(recipes(dtypes=("float32",)), st.sampled_from([1, 3, 16]))
    @settings(max_examples=60)
    def check(recipe, times):
        check_recipe(recipe, times, kind)

    check()


@pytest.mark.parametrize("n_in", [3, 200, 1500])
@pytest.mark.parametrize("units", [5, 64, 200])
def test_int8_sums_are_those_of_integers(n_in, units):
    """Of any weights and payloads, bit for bit, for fewer and for more events than are added together."""
    net, rng = Network(seed=1), np.random.default_rng(2)
    net.add(EventSource(n_in, "source"))
    net.add(LinearReadout(units, "out", bias=lambda rng, shape: rng.normal(size=shape)))
    for name in ("one", "two"):
        net.connect("source", "out", name=name)
    x = (
        rng.normal(size=(6, 2, n_in))
        * 10.0 ** rng.uniform(-6, 6, (6, 2, n_in))
        * (rng.random((6, 2, n_in)) < 0.9)
    )
    narrowed, x = narrow(net, "int8"), x.astype(np.float32)
    log = Simulation(narrowed).run(x)
    for step, lane in np.ndindex(6, 2):
        expected, unit = net.parameters()["out.bias"].values.copy(), np.flatnonzero(x[step, lane])
        for name in ("one", "two"):
            whole, scale = to_int8(net.projections[name].weight.values)
            add_int8(expected, unit, x[step, lane, unit], scale, whole)
        np.testing.assert_array_equal(log["out"].state[step, lane], expected)


@pytest.mark.parametrize("units", [16, 37, 64])
@pytest.mark.parametrize("delta", [False, True])
@pytest.mark.parametrize("kind", FORMATS)
def test_the_reference_runs_the_rounded_numbers(kind, delta, units):
    """Any weights, within what sums of float32 leave."""
    narrowed = narrow(draw_network(units, delta), kind)
    log = Simulation(narrowed).run(draw_stimulus(delta))
    expected = simulate(narrowed, {"source": draw_stimulus(delta)}, N_STEPS, N_LANES)
    assert log["second"].n_events > 100
    for name in ("first", "second"):
        sent = log[name].events.to_dense()
        np.testing.assert_array_equal(sent != 0, expected[name]["y"] != 0)
        np.testing.assert_allclose(sent, expected[name]["y"], atol=2e-5)
    np.testing.assert_allclose(log["out"].state, expected["out"]["v"], atol=2e-5)
    assert log.counters["macs"] == expected.macs


@pytest.mark.parametrize("delta", [False, True])
@pytest.mark.parametrize("kind", FORMATS)
def test_instruction_sets_threads_and_lanes_do_not_matter(kind, delta):
    narrowed, before, found = narrow(draw_network(75, delta), kind), kernels.in_use(), []
    try:
        for name in kernels.available():
            kernels.use(name)
            for threads in (1, 2):
                found.append(facts(Simulation(narrowed, threads).run(draw_stimulus(delta))))
    finally:
        kernels.use(before)
    assert all(other == found[0] for other in found[1:])
    whole = Simulation(narrowed).run(draw_stimulus(delta))
    for lane in range(N_LANES):
        alone = Simulation(narrowed).run(draw_stimulus(delta)[:, lane : lane + 1])
        assert facts(alone) == facts(whole, lane=lane)


def test_a_large_network_on_two_threads():
    """In float32 a team of threads would share the lane."""
    units = math.isqrt(HEAVY // 3) + 1
    net = Network()
    net.add(EventSource(N_IN, "source"))
    net.add(EGRU(units, "hidden", threshold=0.05))
    net.connect("source", "hidden")
    net.connect("hidden", "hidden", weight=0.01)
    narrowed = narrow(net, "bfloat16")
    assert Plan(net).heavy
    assert not Plan(narrowed).heavy
    stimulus = draw_stimulus(n_lanes=1)[:4]
    expected = Simulation(widened(net, narrowed), threads=2).run(stimulus)
    assert facts(Simulation(narrowed, threads=2).run(stimulus)) == facts(expected)


# -- what a narrowed network is ----------------------------------------------------------------------------


def test_values_are_the_rounded_numbers():
    net = draw_network(37)
    for kind in FORMATS:
        narrowed = narrow(net, kind)
        for name, projection in narrowed.projections.items():
            values, given_values = projection.weight.values, net.projections[name].weight.values
            if projection.is_sparse:
                assert projection.narrow is None
                np.testing.assert_array_equal(values, given_values)
            elif kind == "bfloat16":
                np.testing.assert_array_equal(values, from_bfloat16(to_bfloat16(given_values)))
            else:
                whole, scale = to_int8(given_values)
                np.testing.assert_array_equal(values, whole * scale[:, None])
            assert values.dtype == np.float32
            np.testing.assert_array_equal(projection.to_dense(), projection.to_scipy().toarray())
    assert net.narrow is None
    assert all(p.narrow is None and p.weight.values.flags.writeable for p in net.projections.values())


def test_memory():
    net = Network()
    net.add(EventSource(100, "source"))
    net.add(EGRU(64, "hidden"))
    dense = net.connect("source", "hidden").weight.values.nbytes
    assert narrow(net, "bfloat16").projections["source->hidden"].narrow.nbytes == dense // 2
    assert narrow(net, "int8").projections["source->hidden"].narrow.nbytes == dense // 4 + 4 * 100


@pytest.mark.parametrize("kind", FORMATS)
def test_the_core_has_the_narrow_rows_only(kind):
    plan = Plan(narrow(draw_network(16), kind))
    for row, projection in zip(plan.projection_rows, plan.projections, strict=True):
        if projection.is_sparse:
            assert (row["narrow"], row["scale"]) == (0, 0)
            assert row["weight"] == projection.weight.values.ctypes.data
        else:
            assert row["narrow"] == projection.narrow.bits
            assert row["weight"] == projection.narrow.words.ctypes.data
            assert bool(row["scale"]) == (kind == "int8")


def test_thresholds_and_biases_can_be_set():
    net, stimulus = draw_network(20, delta=True), draw_stimulus(delta=True)
    narrowed = narrow(net, "bfloat16")
    for network in (narrowed, wide := widened(net, narrowed)):
        network.parameters()["first.bias"].assign(0.1)
        calibrate(network, [Trial(stimulus, np.zeros(1))], 0.5)
    assert facts(Simulation(narrowed).run(stimulus)) == facts(Simulation(wide).run(stimulus))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_log_in_a_file_names_the_format(tmp_path, kind):
    narrowed = narrow(draw_network(20), kind)
    log = Simulation(narrowed).run(draw_stimulus())
    again = EventLog.open(log.save(tmp_path / "narrow.h5"))
    assert all(again[name].equal(log[name]) for name in log)
    assert again.network["narrow"] == kind
    assert again.network["projections"]["first->first"]["format"] == kind
    assert again.network["projections"]["second->first"]["format"] == "csr"
    assert again.counters == log.counters


def test_copies():
    narrowed = narrow(draw_network(20), "int8")
    expected = facts(Simulation(narrowed).run(draw_stimulus()))
    for twin in (narrowed.copy(), narrowed.copy("float32"), copy.deepcopy(narrowed)):
        assert twin.describe() == narrowed.describe()
        assert facts(Simulation(twin).run(draw_stimulus())) == expected
        refuse(lambda twin=twin: twin.parameters()["first->first.weight"].assign(0), ParameterError, "narrow")
    refuse(lambda: narrowed.copy("float64"), NetworkError, "int8", "float64")


def test_a_network_of_sparse_weights_stays_as_it_is():
    net = Network()
    net.add(EventSource(4, "source"))
    net.add(EGRU(4, "hidden"))
    net.connect("source", "hidden", scipy.sparse.eye_array(4, 12).tocsr())
    assert evsim.narrow(net, "int8").describe()["narrow"] == "int8"
    stimulus = draw_stimulus()[:, :, :4]
    assert facts(Simulation(narrow(net, "int8")).run(stimulus)) == facts(Simulation(net).run(stimulus))


# -- what is refused ---------------------------------------------------------------------------------------


def test_what_cannot_be_narrowed():
    net, delta = draw_network(4), Network()
    delta.add(EventSource(2, "source", threshold=0.1))
    for kind in ("int4", "float32", None, 8):
        refuse(lambda kind=kind: narrow(net, kind), NetworkError, "unknown weights", "int8", "bfloat16")
    refuse(lambda: narrow(net.copy("float64"), "int8"), NetworkError, "float64", "copy('float32')")
    refuse(lambda: narrow(quantize(delta), "int8"), NetworkError, "FixedPoint(", "made from")
    refuse(lambda: narrow(narrow(net, "int8"), "bfloat16"), NetworkError, "int8", "made from")
    refuse(lambda: quantize(narrow(delta, "int8")), NetworkError, "int8", "made from")


def test_weights_that_are_too_large():
    net = Network()
    net.add(EventSource(2, "source"))
    net.add(LeakyReadout(1, "out", tau=2.0))
    net.connect("source", "out", weight=np.full((2, 1), np.finfo(np.float32).max))
    refuse(lambda: narrow(net, "bfloat16"), ParameterError, "source->out.weight", "inf")


def test_what_a_narrowed_network_refuses():
    net = draw_network(4)
    narrowed = narrow(net, "int8")
    weight = narrowed.parameters()["first->first.weight"]
    refuse(lambda: narrowed.add(EGRU(2, "late")), NetworkError, "int8", "made from")
    refuse(lambda: narrowed.connect("source", "second"), NetworkError, "int8")
    refuse(lambda: Adjoint(Plan(narrowed)), GradientError, "int8", "no gradient", "narrow that")
    for optimizer in (SGD, Adam):
        refuse(
            lambda o=optimizer: o(narrowed.parameters(), lr=0.1), ParameterError, "read-only", "narrow that"
        )
    refuse(lambda: Trainer(narrowed, "out", SGD({}, lr=0.1)), GradientError, "int8")
    refuse(
        lambda: weight.assign(0.0), ParameterError, "first->first.weight", "read-only", "narrow that again"
    )
    with pytest.raises(ValueError, match="read-only"):
        weight.values[0, 0] = 1


def test_a_log_of_narrow_weights_is_not_replayed_in_float32():
    net = draw_network(4)
    log = Simulation(narrow(net, "bfloat16")).run(draw_stimulus())
    loss = {"out": np.ones((N_STEPS, N_LANES, 5), np.float32)}
    refuse(lambda: Adjoint(Plan(net)).replay(log, loss), GradientError, "log", "projections")
