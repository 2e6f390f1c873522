"""Networks in continuous time: parameters, ports, delays and what is refused."""

import json

import numpy as np
import pytest
import scipy.sparse

from evsim.errors import NetworkError, ParameterError
from evsim.models import EGRU, LIF, DeltaGRU, DeltaLSTM, DeltaReadout, EventSource, LeakyReadout
from evsim.network import SHORTEST_DELAY, Network
from evsim.optimizer import SGD
from evsim.parameter import Parameter
from oracles.bad_continuous import CASES, make_network


def values(net):
    return {name: p.values.tobytes() for name, p in net.parameters().items()}


def limits(net):
    return {name: (p.lower, p.upper, p.trainable) for name, p in net.parameters().items()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_calls(case):
    net, same = make_network(), make_network()
    with pytest.raises(case.error) as caught:
        case.call(net)
    message = str(caught.value)
    assert type(caught.value) is case.error
    assert "\n" not in message
    assert len(message) < 400
    for word in case.words:
        assert word in message, message
    assert caught.value.remedy, message
    assert net.describe() == same.describe()
    assert values(net) == values(same)
    assert limits(net) == limits(same)


def test_names_of_cases_are_distinct():
    assert len({case.name for case in CASES}) == len(CASES)


def test_parameters_and_states_of_each_type():
    net = Network(dt=None)
    net.add(EGRU(3, "egru"))
    net.add(LIF(4, "lif", reset=-2.0, train_threshold=True, train_time_constants=True))
    net.add(DeltaGRU(2, "gru"))
    net.add(DeltaLSTM(2, "lstm", tau=7.0, train_time_constants=True))
    net.add(LeakyReadout(2, "leaky", tau=3))
    net.add(DeltaReadout(2, "sum"))
    net.add(EventSource(2, "cue"))
    time, inf = 1e-3, np.inf
    found = {name: (p.values.shape, p.lower, p.upper, p.trainable) for name, p in net.parameters().items()}
    assert found == {
        "egru.bias": ((9,), -inf, inf, True),
        "egru.threshold": ((3,), 1e-3, 0.999, True),
        "egru.tau_m": ((1,), time, inf, False),
        "egru.tau_s": ((1,), time, inf, False),
        "lif.bias": ((4,), -inf, inf, True),
        "lif.threshold": ((4,), -2 + 1e-3, inf, True),
        "lif.tau_m": ((1,), time, inf, True),
        "lif.tau_e": ((1,), time, inf, True),
        "lif.tau_i": ((1,), time, inf, True),
        "gru.bias": ((8,), -inf, inf, True),
        "gru.threshold": ((2,), 1e-6, inf, False),
        "gru.tau": ((1,), time, inf, False),
        "lstm.bias": ((8,), -inf, inf, True),
        "lstm.threshold": ((2,), 1e-6, inf, False),
        "lstm.tau": ((1,), time, inf, True),
        "leaky.bias": ((2,), -inf, inf, True),
        "leaky.tau": ((1,), time, inf, False),
        "sum.bias": ((2,), -inf, inf, True),
    }
    assert {name: (p.kernel, p.states) for name, p in net.populations.items()} == {
        "egru": ("egru_continuous", ("c", "a_u", "a_r", "a_z")),
        "lif": ("lif", ("v", "i_e", "i_i", "hold")),
        "gru": ("delta_gru", ("m_r", "m_z", "m_n", "m_q", "h", "sent")),
        "lstm": ("delta_lstm", ("m_i", "m_f", "m_g", "m_o", "c", "h", "sent")),
        "leaky": ("readout", ("v",)),
        "sum": ("delta_readout", ("m",)),
        "cue": ("source", ()),
    }
    defaults = {name: p.values.tolist() for name, p in net.parameters().items()}
    assert defaults["egru.threshold"] == pytest.approx([0.3] * 3)
    assert defaults["egru.bias"] == [0] * 9
    assert [defaults[f"egru.{tau}"] for tau in ("tau_m", "tau_s")] == [[20], [5]]
    assert [defaults[f"lif.{tau}"] for tau in ("tau_m", "tau_e", "tau_i")] == [[20], [5], [10]]
    assert (defaults["lstm.tau"], defaults["gru.tau"], defaults["leaky.tau"]) == ([7], [20], [3])
    assert net["egru"].losses == net["lif"].losses == ("", "time", "integral", "square")
    assert net["gru"].losses == net["leaky"].losses == ("", "integral", "square")
    assert net["cue"].losses == ()


def test_values_that_are_given():
    net = Network(dt=None, dtype="float64")
    net.add(
        EGRU(2, "a", threshold=[0.2, 0.4], tau_m=[8.0], tau_s=lambda rng, shape: rng.uniform(1, 2, shape))
    )
    parameters = net["a"].parameters
    assert parameters["threshold"].values.tolist() == [0.2, 0.4]
    assert parameters["tau_m"].values.tolist() == [8.0]
    assert 1 <= parameters["tau_s"].values[0] <= 2


def test_ends_of_ranges_are_inside_in_either_float_type():
    for dtype in ("float32", "float64"):
        net = Network(dt=None, dtype=dtype)
        net.add(EGRU(2, "a", threshold=[1e-3, 0.999], tau_m=1e-3))
        net.add(LIF(1, "b", threshold=-54.3 + 1e-3, reset=-54.3))
        net.add(DeltaGRU(1, "c", threshold=1e-6))
        assert values(net.copy(dtype)) == values(net)
        for parameter in net.parameters().values():
            parameter.assign(parameter.values)


def test_a_refused_population_can_be_added_elsewhere():
    population = EGRU(2, "a", threshold=0.0)
    with pytest.raises(ParameterError):
        Network(dt=None).add(population)
    clocked = Network()
    clocked.add(population)
    assert (population.kernel, population.states, population.losses) == ("egru_evnn", ("c",), ("", "y", "o"))
    assert population.ports["input"] == ("z", "r", "g")
    other = EGRU(2, "b", form="continuous")
    with pytest.raises(NetworkError):
        clocked.add(other)
    assert Network(dt=None).add(other) is other


def test_one_class_of_lif_units_serves_both_kinds_of_time():
    for network in (Network(dt=None), Network(dt=0.1)):
        unit = network.add(LIF(2, "a", refractory=0.25, train_time_constants=True))
        assert unit.states == ("v", "i_e", "i_i", "hold")
        assert [p.trainable for p in unit.parameters.values()] == [True, False, True, True, True]
        assert unit.describe()["refractory_ms"] == 0.25


def test_steps_do_not_exist():
    with pytest.raises(NetworkError, match="continuous time"):
        _ = Network(dt=None).step
    assert Network(dt=0.5).step == 0.5
    assert Network(dt=None).continuous
    assert not Network().continuous


def test_ports():
    net = make_network()
    assert net.connect("spikes", "spikes").port == "excitatory"
    assert net.connect("cue", "spikes", port="inhibitory").shape == (3, 5)
    assert net.connect("hidden", "spikes").port == "excitatory"
    assert net.connect("spikes", "hidden").port == "input"
    assert net.connect("after", "hidden", port="recurrent").port == "recurrent"
    assert net.connect("spikes", "after", port="recurrent").shape == (5, 12)
    assert net.connect("gru", "gru").port == "recurrent"
    for gate in ("post", "none"):
        net.add(EGRU(2, gate, gate=gate))
        assert net.connect("cue", gate, port="recurrent").port == "recurrent"


def test_delays_by_default_and_as_numbers():
    net = make_network()
    assert net.projections["cue->hidden"].delay.values.tolist() == [0.0]
    assert not net.projections["cue->hidden"].delay.trainable
    assert net.projections["hidden->hidden"].delay.trainable
    assert net.connect("after", "after").delay.values.tolist() == [0.0]
    for i, number in enumerate((2, 0.37, np.float64(0.25), np.array(1.5), [0.5])):
        delay = net.connect("cue", "answer", delay=number, name=f"x{i}").delay
        assert delay.values.dtype == np.float32
        np.testing.assert_array_equal(delay.values, np.float32(number), strict=False)
        assert (delay.name, delay.values.shape, delay.lower) == (f"x{i}.delay", (1,), 0.0)
    assert Network().parameters() == {}
    net = Network(dt=0.5)
    net.add(EGRU(2, "a"))
    assert net.connect("a", "a").delay is None
    assert list(net.parameters()) == ["a.bias", "a.recurrent_bias", "a.threshold", "a->a.weight"]


def test_delays_of_pairs():
    net = make_network()
    given = np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(net.connect("cue", "after", delay=given).delay.values, given)
    drawn = net.connect("cue", "after", delay=lambda rng, shape: rng.uniform(1, 3, shape), name="drawn")
    assert drawn.delay.values.shape == (3, 4)
    assert 1 <= drawn.delay.values.min() < drawn.delay.values.max() <= 3
    assert "delay 1." in repr(drawn)
    assert " to 2." in repr(drawn)
    given[:] = -1  # they were copied
    assert (net.projections["cue->after"].delay.values >= 0).all()


@pytest.mark.parametrize("form", ["csr", "coo", "dense", "flat", "function"])
def test_delays_of_sparse_weights(form):
    """One for each pair that has a weight in some gate, whatever the number of gates."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(3, 12)) * (rng.random((3, 12)) < 0.3)
    linked = (weight != 0).reshape(3, 3, 4).any(axis=1)
    delays = np.where(linked, np.arange(12.0).reshape(3, 4), 0)
    sparse = scipy.sparse.coo_array((delays[linked], np.nonzero(linked)), shape=(3, 4))  # keeps zeros
    given = {
        "csr": sparse.tocsr(),
        "coo": sparse,
        "dense": np.arange(12.0).reshape(3, 4),
        "flat": delays[linked],
        "function": lambda rng, shape: delays[linked].reshape(shape),
    }[form]
    net = make_network()
    projection = net.connect("cue", "after", scipy.sparse.csr_array(weight), delay=given, train_delay=True)
    np.testing.assert_array_equal(projection.delay.values, delays[linked])
    np.testing.assert_array_equal(projection.pairs().target, np.nonzero(linked)[1])
    again = net.connect(
        "cue", "after", scipy.sparse.csr_array(weight), delay=projection.delay.values, name="x"
    )
    np.testing.assert_array_equal(again.delay.values, projection.delay.values)


def test_drawn_delays_leave_the_weights_as_they_are():
    drawn, fixed = make_network(), make_network()
    drawn.connect("cue", "after", density=0.5, delay=lambda rng, shape: rng.uniform(size=shape))
    fixed.connect("cue", "after", density=0.5)
    one, other = (net.projections["cue->after"].weight.values for net in (drawn, fixed))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("port", ["one", "three"])
@pytest.mark.parametrize("density", [None, 0.0, 0.2, 0.9])
def test_pairs(density, port):
    """Against a loop: the units that a row leads to, and the weights of each."""
    rng = np.random.default_rng(1)
    n_source, n_target, n_blocks = 7, 5, 3 if port == "three" else 1
    weight = rng.normal(size=(n_source, n_blocks * n_target))
    if density is not None:
        weight = scipy.sparse.csr_array(weight * (rng.random(weight.shape) < density))
    net = Network(dt=None, dtype="float64")
    net.add(EventSource(n_source, "cue"))
    net.add(EGRU(n_target, "target") if n_blocks == 3 else LIF(n_target, "target"))
    projection = net.connect("cue", "target", weight)
    ptr, target, where = projection.pairs()
    assert (ptr.dtype, target.dtype, where.dtype) == (np.int64, np.int32, np.int64)
    assert all(array.flags.c_contiguous for array in (ptr, target, where))
    assert where.shape == (len(target), n_blocks)
    whole = projection.to_dense().reshape(n_source, n_blocks, n_target)
    stored = np.ones_like(whole, bool) if density is None else whole != 0
    assert ptr.tolist() == [0, *np.cumsum(stored.any(axis=1).sum(axis=1)).tolist()]
    flat = np.append(projection.weight.values.ravel(), 0.0)  # -1 finds the zero
    for i in range(n_source):
        mine = slice(ptr[i], ptr[i + 1])
        assert target[mine].tolist() == np.nonzero(stored[i].any(axis=0))[0].tolist()
        np.testing.assert_array_equal(flat[where[mine]], whole[i].T[target[mine]])
    assert sorted(where[where >= 0].tolist()) == list(range(projection.n_weights))


def test_stored_zeros_make_pairs():
    net = make_network()
    weight = scipy.sparse.csr_array(([0.0, 1.0], [1, 0], [0, 1, 2, 2]), shape=(3, 2))
    assert net.connect("cue", "answer", weight).pairs().target.tolist() == [1, 0]


def test_a_copy_shares_nothing():
    net = make_network()
    twin = net.copy()
    assert twin.continuous
    assert twin.describe() == net.describe()
    assert values(twin) == values(net)
    assert limits(twin) == limits(net)
    for parameter in twin.parameters().values():
        parameter.assign(np.minimum(parameter.values + 0.25, parameter.upper))
    assert values(net) == values(make_network())
    wide = net.copy("float64").parameters()
    for name, parameter in net.parameters().items():
        assert wide[name].values.dtype == np.float64
        np.testing.assert_array_equal(wide[name].values, parameter.values)


def test_descriptions():
    net = make_network()
    described = net.describe()
    assert json.loads(json.dumps(described)) == described
    assert described["dt_ms"] is None
    assert described["populations"]["hidden"] == {
        "type": "EGRU",
        "n_units": 4,
        "form": "continuous",
        "gate": "pre",
        "transmit": "value",
    }
    assert described["populations"]["spikes"] == {
        "type": "LIF",
        "n_units": 5,
        "reset": -1.0,
        "refractory_ms": 0.0,
    }
    assert described["populations"]["answer"] == {"type": "LeakyReadout", "n_units": 2}
    assert described["projections"]["hidden->hidden"] == {
        "source": "hidden",
        "target": "hidden",
        "port": "recurrent",
        "delays": [1],
        "shape": [4, 12],
        "weights": 48,
        "format": "dense",
    }
    assert net.connect("cue", "answer", delay=np.ones((3, 2))).describe()["delays"] == [3, 2]
    small = Network(dt=None)
    small.add(LIF(2, "a"))
    assert repr(small.connect("a", "a", delay=0.5)) == "Projection('a->a', 2 x 2, dense, delay 0.5 ms)"
    assert repr(small) == "Network(a:LIF(2); 1 projections; continuous time, float32)"


def test_weights_are_those_of_steps():
    """The initial weights follow from names and shapes, not from the kind of time."""
    found = []
    for dt in (1.0, None):
        net = Network(dt=dt, seed=3)
        net.add(EventSource(3, "cue"))
        net.add(EGRU(4, "hidden"))
        net.connect("cue", "hidden")
        found.append(net.connect("hidden", "hidden", "orthogonal", density=0.5).weight.values)
    np.testing.assert_array_equal(*found)


def test_only_cycles_through_an_lstm_need_a_delay():
    net = make_network()
    for ends in (("hidden", "after"), ("after", "hidden"), ("spikes", "spikes"), ("gru", "gru")):
        assert net.connect(*ends).delay.lower == 0
    net.add(DeltaLSTM(4, "next"))
    assert net.connect("lstm", "next").delay.lower == 0
    assert net.connect("next", "sum").delay.lower == 0


def test_delays_of_cycles_through_an_lstm_cannot_be_lost():
    """Whatever the order of the projections, all that delay the cycle keep a delay."""
    for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2)):
        net = Network(dt=None)
        net.add(DeltaLSTM(2, "lstm"))
        net.add(DeltaGRU(2, "gru"))
        ends = [("lstm", "gru", 0.5), ("gru", "gru", 0.0), ("gru", "lstm", 0.0)]
        for i in order:
            net.connect(*ends[i][:2], delay=ends[i][2])
        delays = {name: p.delay for name, p in net.projections.items()}
        assert {name: delay.lower for name, delay in delays.items()} == {
            "lstm->gru": SHORTEST_DELAY,
            "gru->gru": 0,
            "gru->lstm": 0,
        }
        with pytest.raises(ParameterError, match="cycle through 'lstm'"):
            delays["lstm->gru"].assign(0.0)


def test_optimisers_keep_delays_positive():
    net = Network(dt=None)
    net.add(DeltaGRU(2, "gru"))
    delay = net.connect("gru", "gru", delay=0.5, train_delay=True).delay
    SGD({delay.name: delay}, lr=1.0).step({delay.name: np.ones(1, "float32")})
    assert delay.values.tolist() == [0]


def test_an_lstm_with_delayed_recurrence():
    net = Network(dt=None)
    net.add(DeltaLSTM(3, "lstm"))
    delay = net.connect("lstm", "lstm", delay=[[1, 2, 3]] * 3).delay
    assert delay.lower == SHORTEST_DELAY
    assert net.copy().projections["lstm->lstm"].delay.lower == SHORTEST_DELAY


def test_a_parameter_says_why_its_range_ends():
    parameter = Parameter("x", np.ones(2), lower=0.5, reason="half is needed")
    with pytest.raises(ParameterError, match=r"\[0.5, inf\] \(half is needed\); give"):
        parameter.assign(0.0)
    assert parameter.copy(np.dtype("float32")).reason == "half is needed"
