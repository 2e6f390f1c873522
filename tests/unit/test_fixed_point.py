"""Fixed point: equal to integers bit for bit, tables and rounding right to the last unit."""

import warnings
from decimal import Decimal, localcontext

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from evsim.adjoint import Adjoint
from evsim.brian import to_brian2
from evsim.core import kernels
from evsim.errors import GradientError, NetworkError, ParameterError
from evsim.eventlog import EventLog
from evsim.fixed_point import FixedPoint, Format, quantize
from evsim.models import (
    EGRU,
    DeltaEncoder,
    DeltaGRU,
    DeltaLSTM,
    DeltaReadout,
    EventSource,
    LeakyReadout,
)
from evsim.network import Network
from evsim.plan import Plan
from evsim.simulation import Simulation
from oracles.integer_delta import IntegerLane, gate, to_integer

pytestmark = pytest.mark.filterwarnings("ignore:quantize")

#: Activations, weights, tables.
FORMATS = [
    ("Q8.8", "Q1.7", "Q2.4"),
    ("Q3.5", "Q1.7", "Q2.6"),
    ("Q8.8", "Q2.6", "Q2.4"),
    ("Q2.10", "Q1.3", "Q1.7"),
    ("Q4.3", "Q3.9", "Q2.9"),
    ("Q3.0", "Q2.0", "Q2.1"),
]


def bits(name):
    """(integer, fraction) of a format."""
    return tuple(map(int, name[1:].split(".")))


def weights(rng, shape, density, scale):
    """Normal, a few of them beyond any small format."""
    dense = rng.normal(0, scale, shape) * np.where(rng.random(shape) < 0.03, 8, 1)
    return (
        dense if density is None else scipy.sparse.csr_array(np.where(rng.random(shape) < density, dense, 0))
    )


def draw_network(rng, kinds, density, top, dtype="float64"):
    """Source, hidden layers with recurrence, an encoder on the last, readouts, a shortcut; random delays."""
    net = Network(seed=int(rng.integers(1000)), dtype=dtype)

    def thresholds(_, shape):
        return rng.choice([0.0, 0.001, 0.03, 0.2, top / 8], shape)

    def biases(_, shape):
        return rng.normal(0, 0.7, shape)

    def size():
        return int(rng.integers(1, 20))

    def connect(source, target, shortest=0, **options):
        rows, columns = source.n_units, len(target.ports[options.get("port") or "input"]) * target.n_units
        scale = rng.choice([0.2, 0.6]) / (top / 4 if source.kernel == "delta_source" else 1)
        made = weights(rng, (rows, columns), density, scale)
        net.connect(source, target, made, delay=float(rng.integers(shortest, 4)), **options)

    source = net.add(EventSource(size(), "x", threshold=thresholds))
    layers = [source]
    for number, kind in enumerate(kinds):
        unit = DeltaGRU if kind == "gru" else DeltaLSTM
        hidden = net.add(unit(size(), f"h{number}", threshold=thresholds, bias=biases))
        connect(layers[-1], hidden)
        connect(hidden, hidden, 1, port="recurrent")
        layers.append(hidden)
    encoder = net.add(DeltaEncoder(layers[-1], "a_encoder", threshold=thresholds))
    for name, seen in (("v", encoder), ("w", layers[1])):
        connect(seen, net.add(DeltaReadout(3, name, bias=biases)))
    connect(encoder, layers[1], 1, port="input")
    connect(source, layers[-1], name="shortcut")
    return net


def draw_lines(rng, n_steps, n_lanes, n_units, top):
    """Random walks of all sizes, with jumps across and beyond the range of the format."""
    walk = np.cumsum(rng.normal(0, 0.15, (n_steps, n_lanes, n_units)), axis=0)
    jumps = rng.choice([-1.5, -1.0, 0.98, 2.5], walk.shape) * top
    return np.where(rng.random(walk.shape) < 0.12, jumps, walk)


def assert_equal_to_integers(log, after, oracle, lane, names):
    """``log`` of a run from rest, ``after`` the states at its end."""
    activations, products = 2 ** oracle.a[1], 2**oracle.products
    for name, member in log.populations.items():
        states = oracle.states[name]
        if member.events is not None:
            own = member.lane == lane
            found = list(
                zip(
                    member.time[own].tolist(),
                    member.unit[own].tolist(),
                    (member.value[own] * activations).tolist(),
                    strict=True,
                )
            )
            assert found == oracle.events[name]
        for key in after[name]:
            units = products if key.startswith("m") else activations
            np.testing.assert_array_equal(after[name][key][lane] * units, states[key], f"{name}.{key}")
        for key in set(member.tape_fields) & {"h", "c", "v"}:
            traced = member.tape[: log.lengths[lane], lane, member.tape_fields.index(key)]
            expected = [step[key] for step in oracle.history[name]]
            units = products if key == "v" else activations
            np.testing.assert_array_equal(traced * units, np.reshape(expected, traced.shape))
        if "sent" in states:  # in integers, whether payloads were cut or not
            total = np.zeros(member.n_units, np.int64)
            for _, unit, payload in oracle.events[name]:
                total[unit] += payload
            np.testing.assert_array_equal(total, states["sent"])
            dense = member.events.to_dense()[:, lane].sum(axis=0)
            np.testing.assert_array_equal(dense, after[name]["sent"][lane])


def states_after(simulation):
    """The present states by population and name, seen through a window of no steps."""
    sources = {p.name: np.zeros((0, simulation.n_lanes, p.n_units)) for p in simulation.plan.sources}
    log = simulation.run(sources, carry=True)
    return {name: log[name].initial for name in log}


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**20),
    kinds=st.lists(st.sampled_from(["gru", "lstm"]), min_size=1, max_size=2),
    formats=st.sampled_from(FORMATS),
    density=st.sampled_from([None, 0.5, 0.1]),
    dtype=st.sampled_from(["float64", "float32"]),
    isa=st.sampled_from(kernels.available()),
)
def test_equal_to_integers(seed, kinds, formats, density, dtype, isa):
    rng = np.random.default_rng(seed)
    top = 2.0 ** (bits(formats[0])[0] - 1)
    net = draw_network(rng, kinds, density, top, dtype)
    lines = draw_lines(rng, 25, 2, net["x"].n_units, top)
    lengths = [25, int(rng.integers(0, 26))]
    before = kernels.in_use()
    kernels.use(isa)
    try:
        simulation = Simulation(quantize(net, FixedPoint(*formats)))
        log = simulation.run({"x": lines}, lengths=lengths)
        after = states_after(simulation)
    finally:
        kernels.use(before)
    for lane, stop in enumerate(lengths):
        oracle = IntegerLane(net, *map(bits, formats)).run({"x": lines[:stop, lane]})
        assert_equal_to_integers(log, after, oracle, lane, net.populations)


def test_the_random_networks_do_something():
    """Events of all populations, cut payloads, cut lines, cut weights."""
    rng = np.random.default_rng(5)
    net = draw_network(rng, ["gru", "lstm"], None, 128.0)
    lines = draw_lines(rng, 60, 1, net["x"].n_units, 128.0)
    oracle = IntegerLane(net, (8, 8), (1, 7), (2, 4)).run({"x": lines[:, 0]})
    assert all(len(oracle.events[name]) > 20 for name in ("x", "h0", "h1", "a_encoder"))
    payloads = {payload for _, _, payload in oracle.events["x"]}
    assert {-(2**15), 2**15 - 1} <= payloads
    assert any(row["cut"] for row in FixedPoint().report(net))


def test_windows_steps_and_threads():
    rng = np.random.default_rng(8)
    fixed = quantize(draw_network(rng, ["lstm", "gru"], 0.5, 128.0))
    lines = draw_lines(rng, 20, 3, fixed["x"].n_units, 128.0)
    whole = Simulation(fixed, threads=2).run(lines)
    parts = Simulation(fixed, threads=1)
    first, second = parts.run(lines[:7]), parts.run(lines[7:], carry=True)
    online = Simulation(fixed)
    stepped = [online.step(line) for line in lines]
    for name in whole:
        if whole[name].events is not None:
            dense = whole[name].events.to_dense()
            halves = [log[name].events.to_dense() for log in (first, second)]
            np.testing.assert_array_equal(np.concatenate(halves), dense)
        else:
            dense = whole[name].state
        np.testing.assert_array_equal([step[name] for step in stepped], dense)


def test_thresholds_that_change_between_windows():
    """They are rounded like those from the start: 0.0019 is nothing, 0.002 is 1/256."""
    rng = np.random.default_rng(9)
    net = draw_network(rng, ["gru"], None, 128.0)
    lines = draw_lines(rng, 20, 1, net["x"].n_units, 128.0)
    fixed = quantize(net)
    simulation = Simulation(fixed)
    oracle = IntegerLane(net, (8, 8), (1, 7), (2, 4))
    for number, threshold in enumerate([0.1, 0.0019, 0.002, 1e9]):
        part = slice(5 * number, 5 * number + 5)
        fixed.parameters()["h0.threshold"].assign(threshold)
        expected = [26, 0, 1, 2**15 - 1][number]
        np.testing.assert_array_equal(fixed["h0"].parameters["threshold"].values * 256, expected)
        oracle.parameters["h0"]["threshold"][:] = expected
        simulation.run(lines[part], carry=True)
        oracle.run({"x": lines[part, 0]})
    after = states_after(simulation)
    for key, values in oracle.states["h0"].items():
        np.testing.assert_array_equal(after["h0"][key][0] * (2**15 if key[0] == "m" else 2**8), values)


def test_a_cut_payload_goes_out_in_parts():
    net = Network()
    source = net.add(EventSource(1, "x", threshold=0.5))
    net.connect(source, net.add(DeltaReadout(1, "v")), [[0.5]])
    fixed = quantize(net)
    log = Simulation(fixed).run(np.array([[-500.0], [500.0], [500.0], [500.0], [127.4]]))
    # In units of 1/256 the lines are -32768, 32767 and 32614; a payload is at most 32767.  After the third
    # event 1 is left, which is below the threshold of 128.
    np.testing.assert_array_equal(log["x"].time, [0, 1, 2, 4])
    np.testing.assert_array_equal(log["x"].value * 256, [-32768, 32767, 32767, 32614 - 32766])
    np.testing.assert_array_equal(log["v"].state[:, 0, 0] * 512, [-32768, -1, 32766, 32766, 32614])


def test_a_log_in_a_file(tmp_path):
    rng = np.random.default_rng(10)
    fixed = quantize(draw_network(rng, ["gru", "lstm"], 0.5, 128.0))
    log = Simulation(fixed).run(draw_lines(rng, 15, 2, fixed["x"].n_units, 128.0))
    again = EventLog.open(log.save(tmp_path / "fixed.h5"))
    assert all(again[name].equal(log[name]) for name in log)
    assert again.network["fixed_point"] == FixedPoint().describe()
    assert again.counters == log.counters


def test_finer_formats_come_to_the_float_network():
    rng = np.random.default_rng(11)
    net = draw_network(rng, ["gru", "lstm"], None, 8.0)
    for parameter in net.parameters().values():
        if parameter.name.endswith("threshold"):
            parameter.assign(0)  # what is sent then follows the states, without jumps
        else:
            parameter.assign(np.clip(parameter.values, -1.9, 1.9))
    lines = np.cumsum(rng.normal(0, 0.2, (30, 2, net["x"].n_units)), axis=0)
    exact = Simulation(net).run(lines)
    errors = []
    for fraction in (6, 10, 14, 18):
        fixed = FixedPoint(f"Q4.{min(fraction, 16)}", f"Q2.{fraction}", f"Q2.{fraction}")
        log = Simulation(quantize(net, fixed)).run(lines)
        errors.append(max(np.abs(log[name].state - exact[name].state).max() for name in ("h0", "h1", "v")))
    assert errors[0] > 8 * errors[1] > 64 * errors[2]
    assert errors[2] > 2 * errors[3]
    assert errors[3] < 3e-4


# -- rounding and tables -----------------------------------------------------------------------------------


@given(st.floats(-300, 300), st.integers(1, 9), st.integers(0, 12))
def test_rounding(value, integer, fraction):
    assert Format(integer, fraction).round(value) * 2**fraction == to_integer(value, integer, fraction)


@pytest.mark.parametrize("name", ["Q8.8", "Q1.7", "Q2.4", "Q3.5", "Q2.6", "Q1.0"])
def test_rounding_of_halves_and_ends(name):
    form, (integer, fraction) = Format.parse(name), bits(name)
    assert str(form) == name
    units = np.arange(-(2 ** (integer + fraction)) - 3, 2 ** (integer + fraction) + 4) / 2
    for halves in (units, np.nextafter(units, np.inf), np.nextafter(units, -np.inf)):
        rounded = form.round(halves / 2**fraction) * 2**fraction
        expected = [to_integer(h / 2**fraction, integer, fraction) for h in halves.tolist()]
        np.testing.assert_array_equal(rounded, expected)
        assert not np.signbit(rounded[rounded == 0]).any()
    assert form.round(1e308) == form.high
    assert form.round(-1e308) == form.low
    assert form.is_outside([form.low, form.high, form.high + form.step]).tolist() == [False, False, True]


@pytest.mark.parametrize("formats", FORMATS)
def test_tables(formats):
    fixed, (inputs, _, outputs) = FixedPoint(*formats), map(bits, formats)
    steps = np.arange(-(2 ** (sum(inputs) - 1)), 2 ** (sum(inputs) - 1))
    steps = np.unique(
        np.concatenate([steps[np.abs(steps) < 2500], steps[:: max(1, len(steps) // 500)], steps[-1:]])
    )
    for function, table in (("s", fixed.logistic), ("tanh", fixed.hyperbolic_tangent)):
        expected = [gate(function, int(step), inputs, outputs) for step in steps]
        np.testing.assert_array_equal(table(steps) * 2 ** outputs[1], expected)


def test_where_tables_end():
    """For Q8.8 in and Q2.4 out the logistic function still changes at 879/256, and then no more."""
    fixed = FixedPoint("Q8.8", "Q1.7", "Q2.4")
    assert fixed.logistic([878, 879, 880, 881, 32767]).tolist() == [15 / 16, 15 / 16, 1, 1, 1]
    assert fixed.logistic([-879, -880, -32768]).tolist() == [1 / 16, 0, 0]
    assert fixed.logistic.reach == 880
    assert fixed.logistic.values.shape == (2 * 880 + 1,)
    assert fixed.hyperbolic_tangent([-32768, 0, 32767]).tolist() == [-1, 0, 1]


def test_a_table_of_the_largest_kind_at_close_calls():
    """Values nearest to a half between two outputs, where float64 alone might err."""
    fixed = FixedPoint("Q4.16", "Q2.16", "Q2.18")
    steps = np.arange(-(2**19), 2**19)
    units = (0.5 + 0.5 * np.tanh(0.5 * steps / 2**16)) * 2**18
    close = np.argsort(np.abs(units - np.floor(units) - 0.5))[:200]
    expected = [gate("s", int(steps[i]), (4, 16), (2, 18)) for i in close]
    np.testing.assert_array_equal(fixed.logistic(steps[close]) * 2**18, expected)
    with localcontext(prec=50):
        assert (
            Decimal(float(fixed.logistic(1 << 16))) == Decimal(gate("s", 1 << 16, (4, 16), (2, 18))) / 2**18
        )


# -- the copy, the report, and bad input -------------------------------------------------------------------


@pytest.fixture
def net():
    return draw_network(np.random.default_rng(3), ["gru", "lstm"], 0.5, 128.0, "float32")


def test_the_original_is_untouched(net):
    kept = {name: p.values.copy() for name, p in net.parameters().items()}
    lines = draw_lines(np.random.default_rng(4), 10, 1, net["x"].n_units, 128.0)
    before = Simulation(net).run(lines)
    fixed = quantize(net)
    fixed.parameters()["h0.bias"].assign(0.25)
    Simulation(fixed).run(lines)
    after = Simulation(net).run(lines)
    assert net.fixed_point is None
    assert net.dtype == np.float32
    assert fixed.dtype == np.float64
    assert list(fixed.parameters()) == list(net.parameters())
    assert fixed["a_encoder"].watches is fixed["h1"]
    for name, parameter in net.parameters().items():
        np.testing.assert_array_equal(parameter.values, kept[name])
        assert not np.shares_memory(parameter.values, fixed.parameters()[name].values)
    assert all(after[name].equal(before[name]) for name in before)


def test_parameters_are_rounded(net):
    fixed = quantize(net, FixedPoint("Q3.5", "Q1.7", "Q2.6"))
    formats = {"weight": (1, 7), "bias": (3, 12), "threshold": (3, 5)}
    for name, parameter in net.parameters().items():
        form = formats[name.rpartition(".")[2]]
        expected = [to_integer(value, *form) for value in parameter.values.ravel()]
        np.testing.assert_array_equal(fixed.parameters()[name].values.ravel() * 2 ** form[1], expected)


def test_a_copy_of_a_network_in_fixed_point(net):
    fixed = quantize(net)
    twin = fixed.copy()
    assert twin.describe() == fixed.describe()
    twin.parameters()["h0.threshold"].assign(0.3)
    assert (twin["h0"].parameters["threshold"].values == 77 / 256).all()
    assert not (fixed["h0"].parameters["threshold"].values == 77 / 256).any()


def test_the_report():
    net = Network(dtype="float64")
    source = net.add(EventSource(2, "x", threshold=0.1))
    readout = net.add(DeltaReadout(2, "v", bias=[0.3, 1000.0]))
    net.connect(source, readout, [[0.25, 1.0], [-1.0, 2.5]])
    with pytest.warns(UserWarning, match=r"quantize: 3 values .* 'v.bias' \(Q8.15\) by up to 872"):
        quantize(net)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        readout.parameters["bias"].assign(0.5)
        quantize(net, FixedPoint(weights="Q3.5"))
    rows = {row["parameter"]: row for row in FixedPoint().report(net)}
    assert rows["x->v.weight"] == {
        "parameter": "x->v.weight",
        "format": "Q1.7",
        "values": 4,
        "cut": 2,
        "largest_error": 2.5 - 127 / 128,
    }
    assert rows["v.bias"]["format"] == "Q8.15"
    assert rows["x.threshold"]["largest_error"] == pytest.approx(26 / 256 - 0.1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"activations": "8.8"}, ("activations", "'8.8'", "Qm.n")),
        ({"weights": "Q0.8"}, ("weights", "Q0.8", "the sign")),
        ({"tables": "Q8.30"}, ("tables", "Q8.30", "32")),
        ({"weights": 7}, ("weights", "7")),
        ({"weights": "Q1.7 "}, ("weights", "'Q1.7 '")),
        ({"activations": "Q8.24", "tables": "Q2.30"}, ("Q8.24", "Q2.30", "53")),
        ({"activations": "Q8.24", "tables": "Q2.20"}, ("table of Q2.20 for Q8.24", "entries")),
    ],
)
def test_bad_formats(arguments, words):
    with pytest.raises(ParameterError) as caught:
        FixedPoint(**arguments)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert caught.value.remedy


def test_formats_compare_and_print():
    assert FixedPoint() == FixedPoint("Q8.8", "Q1.7", "Q2.4")
    assert FixedPoint() != FixedPoint(weights="Q2.6")
    assert FixedPoint() != "Q8.8"
    assert len({FixedPoint(), FixedPoint()}) == 1
    assert repr(FixedPoint()) == "FixedPoint(activations='Q8.8', weights='Q1.7', tables='Q2.4')"


def refuse(call, error, *words):
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message
    assert caught.value.remedy


def test_what_cannot_be_quantized(net):
    for unit in (EGRU(2, "u"), LeakyReadout(2, "u"), EventSource(2, "u")):
        other = Network()
        other.add(unit)
        refuse(lambda other=other: quantize(other), NetworkError, "'u'", "fixed point")
        refuse(lambda other=other: FixedPoint().report(other), NetworkError, "'u'", "fixed point")
    refuse(lambda: quantize(quantize(net)), NetworkError, "FixedPoint(", "made from")
    refuse(lambda: quantize(net, "Q8.8"), NetworkError, "'Q8.8'")
    fine = FixedPoint("Q8.14", "Q2.30", "Q2.12")
    refuse(lambda: quantize(net, fine), NetworkError, "population 'h0'", "bits", "53")


def test_what_a_network_in_fixed_point_refuses(net):
    fixed = quantize(net)
    refuse(lambda: fixed.add(DeltaReadout(2, "late")), NetworkError, "FixedPoint(", "made from")
    refuse(lambda: fixed.connect("h0", "v"), NetworkError, "FixedPoint(")
    refuse(lambda: fixed.copy("float32"), NetworkError, "float32")
    refuse(lambda: to_brian2(fixed, {}, 3), NetworkError, "FixedPoint(", "floating point")
    refuse(lambda: Adjoint(Plan(fixed)), GradientError, "FixedPoint(", "no gradient")
    refuse(lambda: fixed.parameters()["h0.bias"].assign(np.nan), ParameterError, "h0.bias", "nan")


def test_a_log_of_fixed_point_is_not_replayed_in_floating_point(net):
    wide = net.copy("float64")
    lines = draw_lines(np.random.default_rng(4), 10, 1, net["x"].n_units, 128.0)
    log = Simulation(quantize(wide)).run(lines)
    loss = {"v": np.ones((10, 1, 3))}
    refuse(lambda: Adjoint(Plan(wide)).replay(log, loss), GradientError, "log", "fixed_point")
