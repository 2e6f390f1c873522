"""Networks: names, delays, random streams, and the order of things."""

import itertools

import numpy as np
import pytest

from evsim.errors import NetworkError
from evsim.models import EGRU, DeltaEncoder, DeltaLSTM, DeltaReadout, EventSource, LeakyReadout
from evsim.network import Network
from evsim.plan import Plan
from evsim.simulation import Simulation


def build(order=(0, 1, 2), links=(0, 1, 2), seed=0, dtype="float64"):
    net = Network(dt=0.5, seed=seed, dtype=dtype)
    makers = [
        lambda: EventSource(5, name="cue"),
        lambda: EGRU(6, name="hidden", threshold=lambda rng, shape: rng.uniform(0, 1, shape)),
        lambda: LeakyReadout(3, name="answer", bias=lambda rng, shape: rng.normal(size=shape)),
    ]
    ends = [("cue", "hidden"), ("hidden", "hidden"), ("hidden", "answer")]
    for i in order:
        net.add(makers[i]())
    for i in links:
        net.connect(*ends[i])
    return net


def values(net):
    return {name: p.values.tobytes() for name, p in net.parameters().items()}


def test_weights_depend_on_names_and_seed_and_not_on_order():
    expected = values(build())
    for order, links in itertools.product(itertools.permutations(range(3)), itertools.permutations(range(3))):
        assert values(build(order, links)) == expected
    other = values(build(seed=1))
    for name in ("cue->hidden.weight", "hidden->hidden.weight", "hidden.threshold", "answer.bias"):
        assert other[name] != expected[name]


def test_a_part_more_changes_no_weight_of_the_others():
    bigger = build()
    bigger.add(EGRU(4, name="another"))
    bigger.connect("cue", "another")
    mine = values(bigger)
    assert {name: mine[name] for name in values(build())} == values(build())


def test_equal_shapes_get_different_weights():
    net = build()
    twin = net.connect("cue", "hidden", name="twin").weight.values
    assert not np.array_equal(twin, net.projections["cue->hidden"].weight.values)


def test_float32_weights_are_rounded_float64_weights():
    wide, narrow = build().parameters(), build(dtype="float32").parameters()
    for name, parameter in narrow.items():
        assert parameter.values.dtype == np.float32
        np.testing.assert_array_equal(parameter.values, wide[name].values.astype("float32"))


def test_parameters_are_live():
    net = build()
    assert net.parameters()["cue->hidden.weight"] is net.projections["cue->hidden"].weight
    simulation = Simulation(net)
    before = simulation.run(np.ones((3, 1, 5)))["answer"].state.copy()
    net.parameters()["answer.bias"].assign(5.0)
    np.testing.assert_array_equal(net["answer"].parameters["bias"].values, 5)
    assert not np.array_equal(simulation.run(np.ones((3, 1, 5)))["answer"].state, before)


def test_a_copy_does_the_same_and_shares_nothing():
    net = build()
    twin = net.copy()
    assert values(twin) == values(net)
    assert twin.describe() == net.describe()
    cue = np.ones((3, 1, 5))
    first, second = Simulation(net).run(cue), Simulation(twin).run(cue)
    assert all(first[name].equal(second[name]) for name in first)
    twin.parameters()["answer.bias"].assign(5.0)
    twin.add(EGRU(2, name="late"))
    assert values(net) == values(build())


def test_a_copy_of_another_float_type():
    net = build()
    for name, parameter in net.copy("float64").parameters().items():
        assert parameter.values.dtype == np.float64
        np.testing.assert_array_equal(parameter.values, net.parameters()[name].values)
    with pytest.raises(NetworkError, match="float16"):
        net.copy("float16")


@pytest.mark.parametrize("seed", [0, 7, 2**40, np.int64(3)])
def test_seeds(seed):
    assert values(build(seed=seed)) == values(build(seed=int(seed)))


@pytest.mark.parametrize(
    ("dt", "delay", "steps"),
    [
        (0.1, 0.3, 3),
        (0.1, 0.7, 7),
        (1.0, 2000.0, 2000),
        (0.05, 1000.0, 20_000),
        (1 / 3, 1.0, 3),
        (1e-3, 0.007, 7),
        (2.0, 0, 0),
    ],
)
def test_delays_become_steps_despite_rounding(dt, delay, steps):
    net = Network(dt=dt)
    net.add(EventSource(1, name="a"))
    net.add(LeakyReadout(1, name="b"))
    assert net.connect("a", "b", delay=delay).delay_steps == steps


@pytest.mark.parametrize(("dt", "delay"), [(0.1, 0.35), (1.0, 0.3), (1.0, 1.0001), (0.5, 1e-3)])
def test_delays_off_the_grid_name_one_that_is_on_it(dt, delay):
    net = Network(dt=dt)
    net.add(EventSource(1, name="a"))
    net.add(LeakyReadout(1, name="b"))
    with pytest.raises(NetworkError, match=r"use delay=([0-9.]+)") as caught:
        net.connect("a", "b", delay=delay)
    advised = float(str(caught.value).split("use delay=")[1].split()[0])
    assert net.connect("a", "b", delay=advised).delay_steps >= 1


def test_delays_by_default():
    net = build()
    assert net.projections["cue->hidden"].delay_steps == 0
    assert net.projections["hidden->hidden"].delay_steps == 1
    assert net.connect("hidden", "hidden", delay=0.5, name="again").delay_steps == 1


def test_populations_run_after_those_that_reach_them():
    net = Network()
    for name in ("e", "d", "c", "b", "a"):
        net.add(EGRU(2, name=name))
    net.connect("e", "a")
    net.connect("a", "c")
    net.connect("c", "b", delay=1)
    net.connect("d", "b")
    plan = Plan(net)
    assert [p.name for p in plan.populations] == ["d", "e", "a", "c", "b"]
    assert plan.components == [0, 1, 2, 3, 4]
    net.connect("b", "e", delay=1)  # closes a loop, in which only what arrives at once counts
    plan = Plan(net)
    assert [p.name for p in plan.populations] == ["d", "b", "e", "a", "c"]
    assert plan.components == [0, 1, 1, 1, 1]


def test_an_encoder_runs_with_what_it_watches():
    net = Network()
    net.add(DeltaLSTM(2, name="z"))
    net.add(DeltaEncoder(net["z"], name="a"))
    net.add(DeltaReadout(2, name="b"))
    net.connect("a", "b")
    plan = Plan(net)
    assert [p.name for p in plan.populations] == ["z", "a", "b"]
    assert plan.components == [0, 0, 1]


def test_order_of_projections():
    net = Network()
    net.add(EventSource(2, name="z_cue"))
    net.add(EGRU(2, name="hidden"))
    net.connect("hidden", "hidden", delay=3, name="a")
    net.connect("hidden", "hidden", delay=1, name="c")
    net.connect("hidden", "hidden", delay=1, name="b")
    net.connect("z_cue", "hidden", name="x")
    assert [p.name for p in Plan(net).projections] == ["x", "b", "c", "a"]


def test_schedule_can_be_read():
    net = Network()
    net.add(LeakyReadout(3, name="answer"))
    net.add(EGRU(6, name="hidden"))
    net.add(EventSource(5, name="cue"))
    net.connect("hidden", "answer")
    net.connect("hidden", "hidden", delay=3, name="slow")
    net.connect("hidden", "hidden")
    net.connect("cue", "hidden")
    assert Simulation(net).schedule == "\n".join(
        [
            "every step, in every lane:",
            "  cue: send the stimulus of this step",
            "  hidden: accumulators = biases",
            "    receive events of 'cue' of this step on port 'input' (cue->hidden)",
            "    receive events of 'hidden' of 1 step ago on port 'recurrent' (hidden->hidden)",
            "    receive events of 'hidden' of 3 steps ago on port 'recurrent' (slow)",
            "    advance, threshold, send and log events, reset",
            "  answer: accumulators = biases",
            "    receive events of 'hidden' of this step on port 'input' (hidden->answer)",
            "    advance, log",
        ]
    )


def test_description_is_plain_data():
    import json

    described = build(seed=np.int64(3)).describe()
    assert json.loads(json.dumps(described)) == described
    assert described["dt_ms"] == 0.5
    assert described["seed"] == 3
    assert described["dtype"] == "float64"
    assert list(described["populations"]) == ["cue", "hidden", "answer"]


def test_repr():
    parts = "cue:EventSource(5), hidden:EGRU(6), answer:LeakyReadout(3)"
    assert repr(build()) == f"Network({parts}; 3 projections; dt=0.5 ms, float64)"
    assert repr(Plan(build())) == "Plan(3 populations, 3 projections, float64)"


def test_a_network_without_sources_runs_on_its_biases():
    net = Network()
    net.add(EGRU(3, name="hidden", bias=1.0, threshold=0.1))
    log = Simulation(net).run({}, 10.0)
    assert (log.n_steps, log.n_lanes) == (10, 1)
    assert log["hidden"].n_events > 0


def test_zero_steps():
    net = build()
    log = Simulation(net).run(np.zeros((0, 2, 5)))
    assert (log.n_steps, log.n_lanes) == (0, 2)
    assert log["answer"].state.shape == (0, 2, 3)


def test_shapes_of_stimuli():
    """One lane may be left out; tokens are events of value 1; lists need a duration."""
    dense = np.zeros((4, 1, 5))
    dense[np.arange(4), 0, [0, 3, 3, 1]] = 1
    tokens = np.array([0, 3, 3, 1])
    expected = Simulation(build()).run(dense)["answer"].state
    for stimulus in (
        dense[:, 0],
        tokens,
        tokens[:, None],
        {"cue": tokens.astype(np.uint8)},
        dense.tolist(),
        (np.arange(4) * 0.5, [0] * 4, tokens, [1.0] * 4),
    ):
        log = Simulation(build()).run(stimulus, 2.0)
        np.testing.assert_array_equal(log["answer"].state, expected)
    assert Simulation(build()).run(([], [], [], []), 2.0)["cue"].n_events == 0


def test_inputs_of_one_step():
    dense = np.zeros((1, 5))
    dense[0, 3] = 1
    expected = Simulation(build()).step(dense)
    assert {name: value.shape for name, value in expected.items()} == {
        "cue": (1, 5),
        "hidden": (1, 6),
        "answer": (1, 3),
    }
    for stimulus in (dense[0], 3, np.array([3]), {"cue": dense}, {"cue": 3}):
        got = Simulation(build()).step(stimulus)
        for name, value in expected.items():
            np.testing.assert_array_equal(got[name], value)
