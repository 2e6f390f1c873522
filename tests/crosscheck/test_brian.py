"""Brian2 runs the same networks as evsim: same events, same states.

The limit 1e-12 allows for rounding only: sums are formed in another order, exp and tanh come from elsewhere.
"""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from evsim.brian import BrianRun, crosscheck, crosscheck_model, to_brian2
from evsim.comparison import compare
from evsim.errors import LogError, MissingExtraError, NetworkError, StimulusError
from evsim.events import Events
from evsim.examples import egru_example
from evsim.models import EGRU, EventSource, LeakyReadout, LinearReadout
from evsim.network import Network
from evsim.simulation import Simulation

# -- evsim against Brian2 ----------------------------------------------------------------------------------


@pytest.mark.peer
@pytest.mark.parametrize("density", [1.0, 0.3])
@pytest.mark.parametrize("delay", [1, 3])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("form", ["evnn", "paper"])
def test_small_networks(brian2, form, layers, delay, density):
    size = {"n_units": 12, "n_inputs": 7, "n_steps": 60, "layers": layers}
    found = crosscheck_model("egru", form=form, delay=delay, density=density, seed=1, **size)
    assert found.ok(1e-12), str(found)
    assert all(p.n_events > 20 for p in found.populations.values() if p.n_events is not None)


@pytest.mark.peer
@pytest.mark.parametrize("form", ["evnn", "paper"])
@pytest.mark.parametrize(("delay", "density"), [(1, 1.0), (3, 0.3)])
def test_fifty_units_five_hundred_steps(brian2, form, delay, density):
    found = crosscheck_model("egru", n_steps=500, form=form, layers=2, delay=delay, density=density)
    assert found.ok(1e-12), str(found)
    for name in ("hidden_1", "hidden_2"):
        assert 0.05 < found.events[name].activity < 0.3


@pytest.mark.peer
def test_a_dense_source(brian2, monkeypatch):
    """Brian2 is given its events, evsim makes matrix products of them."""
    monkeypatch.setattr("evsim.dense_products.FEWEST_LANES", 1)
    network, stimulus = egru_example(12, 7, 60, seed=1)
    network["cue"].dense = True
    assert Simulation(network).plan.dense
    found = crosscheck(network, stimulus, 60)
    assert found.ok(1e-12), str(found)


def tangle(dt):
    """Both forms in a loop, feedback to earlier and later turns, parallel projections, delays 0 to 4."""

    def normal(rng, shape):
        return rng.normal(0.0, 0.8, shape)

    net = Network(dt=dt, seed=3, dtype="float64")
    for name in ("cue", "N"):
        net.add(EventSource(4, name=name))
    spread = {
        "bias": lambda rng, shape: rng.normal(0.0, 0.5, shape),
        "threshold": lambda rng, shape: rng.choice([0.0, 0.1, 0.4], shape),
    }
    net.add(EGRU(7, name="i", form="paper", **spread))
    net.add(EGRU(5, name="t", form="evnn", **spread))
    net["t"].parameters["recurrent_bias"].assign(np.linspace(-0.5, 0.5, 15))
    net.add(LeakyReadout(2, name="leaky", tau=3.0, bias=0.2))
    net.add(LinearReadout(2, name="linear"))
    ends = [
        ("cue", "i", 0, "input"),
        ("cue", "t", 2, "recurrent"),
        ("cue", "linear", 3, "input"),
        ("N", "t", 4, "input"),
        ("i", "i", 1, "recurrent"),
        ("i", "i", 4, "recurrent"),
        ("i", "i", 2, "input"),
        ("i", "t", 0, "recurrent"),
        ("i", "leaky", 1, "input"),
        ("i", "linear", 0, "input"),
        ("t", "i", 1, "input"),
        ("t", "i", 3, "input"),
        ("t", "t", 2, "recurrent"),
        ("t", "leaky", 0, "input"),
    ]
    for number, (source, target, steps, port) in enumerate(ends):
        options = {"density": 0.5} if number % 3 == 0 else {"weight": normal}
        net.connect(source, target, delay=steps * dt, port=port, name=f"p{number}", **options)
    rng = np.random.default_rng(4)
    sent = rng.normal(size=(2, 80, 1, 4)) * (rng.random((2, 80, 1, 4)) < 0.3)
    return net, {name: Events.from_dense(x, np.float64) for name, x in zip(("cue", "N"), sent, strict=True)}


@pytest.mark.peer
@pytest.mark.parametrize("dt", [1.0, 0.1, 1 / 3])
def test_loops_of_both_forms_with_all_delays(brian2, dt):
    found = crosscheck(*tangle(dt), n_steps=80)
    assert found.ok(1e-12), str(found)
    assert min(found.populations[name].n_events for name in ("i", "t")) > 20


@pytest.mark.peer
def test_a_source_that_is_not_named_stays_silent(brian2):
    net, stimulus = tangle(1.0)
    found = crosscheck(net, {"cue": stimulus["cue"]}, n_steps=80)
    assert found.ok(1e-12), str(found)
    assert found.populations["N"].n_peer_events == 0


@pytest.mark.peer
@pytest.mark.parametrize("form", ["evnn", "paper"])
@pytest.mark.parametrize("block", [0, 1, 2])
def test_an_error_of_a_thousandth_in_one_weight_is_found(brian2, form, block):
    net, stimulus = egru_example(n_units=12, n_inputs=7, n_steps=60, form=form)
    twin = to_brian2(net, stimulus, 60)
    right = twin.run()
    busiest = int(np.bincount(right.events["hidden_1"].unit).argmax())
    net.projections["hidden_1->hidden_1"].weight.values[busiest, 12 * block + (busiest + 1) % 12] += 1e-3
    wrong = to_brian2(net, stimulus, 60).run()
    assert not compare(right.events, right.states, wrong).ok(1e-12)
    assert compare(wrong.events, wrong.states, wrong).ok(0.0)


@pytest.mark.peer
def test_each_run_starts_afresh(brian2):
    twin = to_brian2(*tangle(1.0), n_steps=80)
    first, second = twin.run(), twin.run()
    assert all(events.equal(second.events[name]) for name, events in first.events.items())
    assert all(np.array_equal(state, second.states[name]) for name, state in first.states.items())


@pytest.mark.peer
def test_brian2_is_left_as_it_was(brian2):
    """In a process of its own: Brian2 installs handlers when it is imported.  All warnings are errors."""
    code = """
import logging, signal, sys, warnings
import evsim.brian
def installed():
    return sys.excepthook, signal.getsignal(signal.SIGINT), warnings.showwarning, list(warnings.filters)
before = installed()
assert "brian2" not in sys.modules
net, stimulus = evsim.examples.egru_example(n_units=3, n_inputs=2, n_steps=5)
twin = evsim.brian.to_brian2(net, stimulus, 5)
import brian2
brian2.prefs["core.default_float_dtype"] = brian2.float32
with warnings.catch_warnings(action="ignore"):  # ours: pyparsing on how Brian2 calls it
    group = brian2.NeuronGroup(2, "x : 1")
level = logging.getLogger("brian2").level
run = twin.run()
assert run.states["hidden_1"].dtype == "float64"
assert brian2.prefs["core.default_float_dtype"] == brian2.float32
assert brian2.prefs["codegen.target"] == "auto"
assert logging.getLogger("brian2").level == level
assert not logging.getLogger("py.warnings").handlers
assert before == installed()
assert {thing.name for thing in brian2.collect()} == {group.name}  # what the user's brian2.run() would run
"""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""


@pytest.mark.peer
def test_other_targets_and_devices_are_refused(brian2):
    twin = to_brian2(*egru_example(n_units=2, n_inputs=2, n_steps=3), n_steps=3)
    with pytest.raises(NetworkError, match="target is 'fortran'"):
        twin.run("fortran")
    brian2.set_device("cpp_standalone", build_on_run=False)
    try:
        with pytest.raises(NetworkError, match="standalone device"):
            twin.run()
    finally:
        brian2.set_device("runtime")


# -- what has no twin; no Brian2 needed --------------------------------------------------------------------


def test_brian2_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "brian2", None)
    with pytest.raises(MissingExtraError, match=r'pip install "evsim\[brian2\]"'):
        to_brian2(*egru_example(n_units=2, n_inputs=2, n_steps=3), n_steps=3)


def test_networks_without_a_twin_are_refused():
    class Odd(EGRU):
        pass

    single = Network(dtype="float32")
    odd = Network(dtype="float64")
    odd.add(Odd(2, name="odd"))
    for net, n_steps, words in (
        (single, 3, "float32.*dtype='float64'"),
        (odd, 3, "population 'odd'.*Odd"),
        (Network(dtype="float64"), 3, "no populations"),
        (odd, 0, "n_steps is 0"),
        (odd, 2.0, "n_steps is 2.0"),
    ):
        with pytest.raises(NetworkError, match=words):
            to_brian2(net, {}, n_steps=n_steps)


@pytest.mark.parametrize("shape", [(3, 2, 4), (2, 1, 4), (3, 1, 5)])
def test_a_stimulus_of_another_shape_is_refused(shape):
    net = Network(dtype="float64")
    net.add(EventSource(4, name="cue"))
    with pytest.raises(StimulusError, match="give 4 units x 1 lane x 3 steps"):
        to_brian2(net, {"cue": Events.from_dense(np.ones(shape))}, 3)
    with pytest.raises(StimulusError, match="no EventSource of that name"):
        to_brian2(net, {"clue": Events.from_dense(np.ones((3, 1, 4)))}, 3)


# -- the comparison itself, on runs made by hand -----------------------------------------------------------


def by_hand():
    """Three units, six steps; events (1, 0), (3, 2), (5, 1)."""
    dense = np.zeros((6, 1, 3))
    dense[[1, 3, 5], 0, [0, 2, 1]] = 0.5, 0.25, -1.0
    events = Events.from_dense(dense, np.float64)
    states = {"hidden": np.arange(18.0).reshape(6, 3), "answer": np.zeros((6, 1))}
    times = {"dt": 0.5, "seconds": 2.0, "prepare_seconds": 1.0}
    return BrianRun({"hidden": events}, states, **times, version="Brian2 0, numpy")


def test_equal_runs():
    run = by_hand()
    lanes = {name: state[:, None] for name, state in run.states.items()}
    found = compare(run.events, lanes, run, seconds=0.5)
    assert found.ok(0.0)
    assert found.table()[0] == {
        "population": "hidden",
        "units": 3,
        "events evsim": 3,
        "events Brian2": 3,
        "first difference": None,
        "max |value difference|": 0.0,
        "max |state difference|": 0.0,
    }
    assert found.table()[1]["events evsim"] is None
    assert "evsim 0.5 s, Brian2 0, numpy 2 s" in str(found)


@pytest.mark.parametrize(
    ("steps", "units", "expected"),
    [
        ([1, 5], [0, 1], (3, 2, None, 0.25)),
        ([1, 2, 3, 5], [0, 1, 2, 1], (2, 1, 0.75, None)),
        ([1, 3, 5], [0, 1, 1], (3, 1, 0.75, None)),
        ([], [], (1, 0, None, 0.5)),
    ],
)
def test_the_first_difference_is_found(steps, units, expected):
    run = by_hand()
    dense = np.zeros((6, 1, 3))
    dense[steps, 0, units] = 0.75
    mine = Events.from_dense(dense, np.float64)
    found = compare({"hidden": mine}, run.states, run)
    first = found.populations["hidden"].first
    assert (first.step, first.unit, first.value, first.peer_value) == expected
    assert first.steps.tolist() == list(range(max(0, first.step - 2), min(6, first.step + 3)))
    np.testing.assert_array_equal(first.peer_state, run.states["hidden"][first.steps, first.unit])
    assert not found.ok(10.0)
    assert f"step {first.step}, unit {first.unit}: only" in str(found)


@pytest.mark.parametrize(("change", "error"), [(1e-9, 1e-9), (np.nan, np.nan)])
def test_values_and_states_count(change, error):
    run = by_hand()
    states = {name: state.copy() for name, state in run.states.items()}
    states["answer"][4, 0] += change
    found = compare(run.events, states, run)
    np.testing.assert_equal(found.populations["answer"].state_error, error)
    assert not found.ok()
    assert found.ok(1e-8) == (change < 1)
    value = run.events["hidden"].value + np.array([0.0, change, 0.0])
    found = compare({"hidden": replace(run.events["hidden"], value=value)}, run.states, run)
    assert found.populations["hidden"].first is None
    assert not found.ok()


def test_runs_of_different_things_are_refused():
    run = by_hand()
    with pytest.raises(LogError, match="give the same"):
        compare({}, run.states, run)
    with pytest.raises(LogError, match="same steps"):
        compare(run.events, run.states | {"answer": np.zeros((5, 1))}, run)
    with pytest.raises(LogError, match="same steps and units"):
        compare({"hidden": Events.empty(3, 2, 6)}, run.states, run)
    with pytest.raises(LogError, match="no events to draw"):
        compare(run.events, run.states, run).draw("never.png", population="answer")


@pytest.mark.parametrize("change", [False, True])
def test_a_picture(tmp_path, change):
    run = by_hand()
    mine = Events.empty(3, 1, 6, np.float64) if change else run.events["hidden"]
    compare({"hidden": mine}, run.states, run).draw(tmp_path / "both.png")
    assert (tmp_path / "both.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_drawn_shows_the_difference():
    run = by_hand()
    run.events["output"] = run.events["hidden"]
    one_less = Events.from_dense(run.events["output"].to_dense() * [[[1, 1, 0]]], np.float64)
    same = compare(run.events, run.states, run)
    assert same._worth_drawing() == "hidden"
    assert compare(run.events | {"output": one_less}, run.states, run)._worth_drawing() == "output"


@pytest.mark.parametrize("change", [False, True])
def test_a_picture_of_a_population_without_a_state(tmp_path, change):
    run = replace(by_hand(), states={})
    mine = Events.empty(3, 1, 6, np.float64) if change else run.events["hidden"]
    compare({"hidden": mine}, {}, run).draw(tmp_path / "events.svg")
    assert "value sent" in (tmp_path / "events.svg").read_text(encoding="utf-8")
