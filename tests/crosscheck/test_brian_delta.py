"""Brian2 runs delta networks as evsim does: same events, same states, within the rounding of `test_brian`.

Thresholds of 0 ask whether two rounded numbers are equal, so what they are tried on never stands still.
"""

from functools import cache

import numpy as np
import pytest

from evsim.brian import crosscheck, crosscheck_model, to_brian2
from evsim.comparison import compare
from evsim.errors import NetworkError, StimulusError
from evsim.events import Events
from evsim.examples import delta_example
from evsim.models import EGRU, DeltaEncoder, DeltaGRU, DeltaLSTM, DeltaReadout, EventSource, LeakyReadout
from evsim.network import Network

both_units = pytest.mark.parametrize("unit", ["delta_gru", "delta_lstm"])


def normal(rng, shape):
    return rng.normal(0.0, 0.7, shape)


def walk(n_steps, n_lines, seed=4):
    """Lines that change in every step."""
    return np.cumsum(np.random.default_rng(seed).normal(0.0, 0.2, (n_steps, n_lines)), axis=0)


def steps_of(n_steps, n_lines, seed=5):
    """Changes of both signs, as events."""
    rng = np.random.default_rng(seed)
    sent = rng.normal(size=(n_steps, 1, n_lines)) * (rng.random((n_steps, 1, n_lines)) < 0.4)
    sent[1::2] = -sent[::2]  # so that their sums stay bounded
    return Events.from_dense(sent, np.float64)


# -- evsim against Brian2 ----------------------------------------------------------------------------------


@pytest.mark.peer
@pytest.mark.parametrize("density", [1.0, 0.3])
@pytest.mark.parametrize("delay", [1, 3])
@pytest.mark.parametrize("layers", [1, 2, 3])
@both_units
def test_small_networks(brian2, unit, layers, delay, density):
    size = {"n_units": 12, "n_inputs": 7, "n_steps": 60, "layers": layers}
    found = crosscheck_model(unit, delay=delay, density=density, seed=1, **size)
    assert found.ok(1e-12), str(found)
    assert set(found.states) == {*(f"hidden_{n + 1}" for n in range(layers)), "answer"}
    assert all(p.n_events > 20 for p in found.populations.values() if p.n_events is not None)
    assert found.populations["output"].n_events > 0.95 * 12 * 60  # h hardly ever stands still


@pytest.mark.peer
@pytest.mark.parametrize(("delay", "density"), [(1, 1.0), (3, 0.3)])
@both_units
def test_fifty_units_five_hundred_steps(brian2, unit, delay, density):
    found = crosscheck_model(unit, n_units=50, n_steps=500, layers=3, delay=delay, density=density)
    assert found.ok(1e-12), str(found)
    for name in ("hidden_1", "hidden_2", "hidden_3"):
        assert 0.1 < found.events[name].activity < 0.3


def tangle(dt):
    """Both units in a loop, encoders in it, changes from three sources, parallel projections, delays 0 to 4.

    Names are such that the order by name is not that of a step.
    """
    spread = {
        "bias": lambda rng, shape: rng.normal(0.0, 0.5, shape),
        "threshold": lambda rng, shape: rng.choice([0.0, 0.1, 0.4], shape),
    }
    net = Network(dt=dt, seed=3, dtype="float64")
    net.add(EventSource(4, name="lines", threshold=lambda rng, shape: rng.choice([0.0, 0.3], shape)))
    net.add(EventSource(3, name="coarse", threshold=0.5))
    net.add(EventSource(4, name="plain"))
    net.add(DeltaGRU(7, name="i", **spread))
    net.add(DeltaLSTM(5, name="t", **spread))
    net.add(DeltaEncoder(net["i"], name="all_of_i"))
    net.add(DeltaEncoder(net["t"], name="some_of_t", threshold=np.linspace(0.0, 0.3, 5)))
    for name in ("a", "z"):
        net.add(DeltaReadout(2, name=name, bias=0.2))
    ends = [
        ("lines", "i", 0, "input"),
        ("lines", "t", 2, "recurrent"),
        ("coarse", "i", 4, "recurrent"),
        ("coarse", "a", 0, "input"),
        ("plain", "i", 1, "input"),
        ("plain", "t", 0, "input"),
        ("plain", "z", 3, "input"),
        ("i", "i", 1, "recurrent"),
        ("i", "i", 4, "recurrent"),
        ("i", "i", 2, "input"),
        ("i", "t", 0, "input"),
        ("i", "a", 1, "input"),
        ("t", "i", 1, "input"),
        ("t", "i", 3, "recurrent"),
        ("t", "t", 2, "recurrent"),
        ("t", "z", 0, "input"),
        ("all_of_i", "i", 1, "recurrent"),
        ("all_of_i", "t", 0, "recurrent"),
        ("all_of_i", "a", 0, "input"),
        ("some_of_t", "t", 3, "recurrent"),
        ("some_of_t", "i", 2, "input"),
        ("some_of_t", "z", 2, "input"),
    ]
    for number, (source, target, steps, port) in enumerate(ends):
        options = {"density": 0.5} if number % 3 == 0 else {"weight": normal}
        net.connect(source, target, delay=steps * dt, port=port, name=f"p{number}", **options)
    return net, {"lines": walk(80, 4), "coarse": walk(80, 3, seed=6)[:, None], "plain": steps_of(80, 4)}


@pytest.mark.peer
@pytest.mark.parametrize("dt", [1.0, 0.1, 1 / 3])
def test_loops_of_both_units_with_all_delays(brian2, dt):
    found = crosscheck(*tangle(dt), n_steps=80)
    assert found.ok(1e-12), str(found)
    assert set(found.states) == {"i", "t", "a", "z"}
    assert min(p.n_events for p in found.populations.values() if p.n_events is not None) > 20


@pytest.mark.peer
@pytest.mark.parametrize("units", [DeltaGRU, DeltaLSTM])
def test_thresholds_of_zero(brian2, units):
    """All that moves is sent: the delta network is then the dense one, and so are the events."""
    net = Network(seed=1, dtype="float64")
    net.add(EventSource(3, name="lines", threshold=0.0))
    net.add(units(6, name="hidden", threshold=0.0))
    net.add(DeltaReadout(2, name="answer"))
    net.connect("lines", "hidden", weight=normal)
    net.connect("hidden", "hidden")
    net.connect("hidden", "answer", weight=normal)
    found = crosscheck(net, {"lines": walk(60, 3)}, n_steps=60)
    assert found.ok(1e-12), str(found)
    assert found.events["lines"].activity == found.events["hidden"].activity == 1.0


@pytest.mark.peer
def test_lines_that_hold_still_send_nothing(brian2):
    net = Network(dtype="float64")
    net.add(EventSource(2, name="lines", threshold=[0.0, 0.25]))
    lines = np.repeat(walk(10, 2), 4, axis=0)
    found = crosscheck(net, {"lines": lines}, n_steps=40)
    assert found.ok(0.0), str(found)
    # what was sent may miss its line by one rounding, which is then sent after it
    large = np.abs(found.events["lines"].value) > 1e-12
    assert not (found.events["lines"].step[large] % 4).any()


@pytest.mark.peer
def test_a_change_that_equals_the_threshold_is_sent(brian2):
    """Lines on a grid of 1/8, which floats hold exactly, and thresholds of 1/4."""
    net = Network(dtype="float64")
    net.add(EventSource(5, name="lines", threshold=0.25))
    lines = np.cumsum(np.random.default_rng(0).integers(-1, 2, (100, 5)), axis=0) / 8
    found = crosscheck(net, {"lines": lines}, n_steps=100)
    assert found.ok(0.0), str(found)
    assert np.sum(np.abs(found.events["lines"].value) == 0.25) > 20


@pytest.mark.peer
def test_delta_units_and_egru_in_one_network(brian2):
    """They share a plain source, and no more than that can connect them."""
    net = Network(seed=2, dtype="float64")
    net.add(EventSource(4, name="cue"))
    net.add(EGRU(6, name="values", threshold=0.1))
    net.add(DeltaGRU(6, name="changes", threshold=0.05))
    net.add(LeakyReadout(2, name="leaky"))
    net.add(DeltaReadout(2, name="held"))
    for hidden, readout in (("values", "leaky"), ("changes", "held")):
        net.connect("cue", hidden, weight=normal, delay=2.0)
        net.connect(hidden, hidden)
        net.connect(hidden, readout)
    found = crosscheck(net, {"cue": steps_of(60, 4)}, n_steps=60)
    assert found.ok(1e-12), str(found)
    assert min(found.populations[name].n_events for name in ("values", "changes")) > 20


@pytest.mark.peer
def test_each_run_starts_afresh(brian2):
    twin = to_brian2(*tangle(1.0), n_steps=80)
    first, second = twin.run(), twin.run()
    assert all(events.equal(second.events[name]) for name, events in first.events.items())
    assert all(np.array_equal(state, second.states[name]) for name, state in first.states.items())


@pytest.mark.peer
def test_what_lines_are_given_as(brian2):
    """Arrays with and without a lane axis, in float32, and events; nothing for a source that is not named."""
    net = Network(dtype="float64")
    net.add(EventSource(3, name="lines", threshold=0.1))
    net.add(EventSource(3, name="still", threshold=0.0))
    lines = walk(20, 3).astype(np.float32)
    for given in (lines, lines[:, None], lines.astype(np.float64), Events.from_dense(lines[:, None])):
        found = crosscheck(net, {"lines": given}, n_steps=20)
        assert found.ok(0.0), str(found)
        assert found.populations["lines"].n_events > 20
        assert found.populations["still"].n_peer_events == 0


# -- errors are found --------------------------------------------------------------------------------------


@cache
def unchanged(**options):
    """What Brian2 makes of an example as it is."""
    net, stimulus = delta_example(**options)
    return to_brian2(net, stimulus, len(stimulus["lines"])).run()


def both(change, **options):
    """Runs of Brian2 before and after a change of an example: ``change(network, run before it)``."""
    net, stimulus = delta_example(**options)
    right = unchanged(**options)
    change(net, right)
    return right, to_brian2(net, stimulus, len(stimulus["lines"])).run()


@pytest.mark.peer
@pytest.mark.parametrize("projection", ["lines->hidden_1", "hidden_1->hidden_1"])
@pytest.mark.parametrize(
    ("unit", "block"),
    [(unit, block) for unit, blocks in (("delta_gru", 3), ("delta_lstm", 4)) for block in range(blocks)],
)
def test_an_error_of_a_thousandth_in_one_weight_is_found(brian2, unit, block, projection):
    def change(net, right):
        busiest = int(np.bincount(right.events[projection.partition("->")[0]].unit).argmax())
        net.projections[projection].weight.values[busiest, 12 * block + (busiest + 1) % 12] += 1e-3

    right, wrong = both(change, n_units=12, n_inputs=7, n_steps=60, unit=unit)
    assert not compare(right.events, right.states, wrong).ok(1e-12)
    assert compare(wrong.events, wrong.states, wrong).ok(0.0)


@pytest.mark.peer
@pytest.mark.parametrize("block", range(4))
@both_units
def test_an_error_of_a_thousandth_in_one_bias_is_found(brian2, unit, block):
    def change(net, right):
        net["hidden_1"].parameters["bias"].values[12 * block + 5] += 1e-3

    right, wrong = both(change, n_units=12, n_inputs=7, n_steps=60, unit=unit)
    assert not compare(right.events, right.states, wrong).ok(1e-12)


@pytest.mark.peer
@pytest.mark.parametrize("name", ["lines", "hidden_1", "hidden_2", "output"])
@both_units
def test_an_error_of_a_thousandth_in_one_threshold_is_found(brian2, unit, name):
    """That of the unit with the event that only just reached its threshold."""

    def change(net, right):
        threshold = net[name].parameters["threshold"].values
        sent = right.events[name]
        margin = np.abs(sent.value) - threshold[sent.unit]
        closest = margin.argmin()
        assert margin[closest] < 1e-3
        threshold[sent.unit[closest]] += 1e-3

    right, wrong = both(change, n_units=20, n_inputs=20, n_steps=200, layers=2, unit=unit)
    found = compare(right.events, right.states, wrong)
    assert found.populations[name].first is not None
    assert not found.ok(1e-12)


# -- what has no twin; no Brian2 needed --------------------------------------------------------------------


@pytest.mark.parametrize("base", [DeltaGRU, DeltaLSTM, DeltaReadout, EventSource])
def test_subclasses_are_refused(base):
    class Odd(base):
        pass

    net = Network(dtype="float64")
    net.add(Odd(2, name="odd"))
    with pytest.raises(NetworkError, match=r"population 'odd'.*no Brian2 equations for Odd.*DeltaGRU"):
        to_brian2(net, {}, 3)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((3, 5)), r"float64 array of shape \(3, 5\).*4 units x 1 lane x 3 steps"),
        (np.zeros((4, 4)), r"shape \(4, 4\)"),
        (np.zeros((3, 2, 4)), r"shape \(3, 2, 4\)"),
        (np.zeros((3, 4), int), "int.* as Events or floats"),
        (np.full((3, 4), np.nan), "not finite"),
        (Events.empty(4, 2, 3), r"2 lanes x 3 steps\) does not fit"),
    ],
)
@pytest.mark.parametrize("threshold", [None, 0.1])
def test_a_stimulus_that_does_not_fit_is_refused(given, said, threshold):
    net = Network(dtype="float64")
    net.add(EventSource(4, name="lines", threshold=threshold))
    with pytest.raises(StimulusError, match=f"stimulus 'lines'.*{said}"):
        to_brian2(net, {"lines": given}, 3)
