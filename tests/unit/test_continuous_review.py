"""Rare cases of continuous time: gradients at rest, at the start and of carried windows; what is refused."""

import numpy as np
import pytest

import evsim
from evsim import Adjoint, EventLog, Network, Simulation
from evsim.errors import EvsimError, GradientError, StimulusError
from evsim.models import EGRU, DeltaLSTM, DeltaReadout, EventSource, LeakyReadout


def differences(run, values, step=1e-6):
    found = np.zeros(values.size)
    flat = values.ravel()
    for i in range(values.size):
        before = flat[i]
        flat[i] = before + step
        above = run()
        flat[i] = before - step
        found[i] = (above - run()) / (2 * step)
        flat[i] = before
    return found


@pytest.mark.parametrize("given", [(), ("a_u",), ("a_u", "a_r"), ("a_r", "a_z"), ("a_u", "a_r", "a_z")])
def test_biases_where_only_some_states_are_at_rest(given):
    net = Network(dt=None, dtype="float64")
    unit = net.add(EGRU(1, "h", threshold=0.9, bias=np.array([0.2, 0.3, 0.5]), gate="post"))
    source = net.add(EventSource(1, "cue"))
    net.connect(source, unit, np.array([[0.3, 0.2, 0.4]]), port="recurrent")
    sim = Simulation(net)
    initial = {"h": dict.fromkeys(given, 0.1)}

    def run():
        return sim.run(([3.0], [0], [0], [1.0]), 10.0, samples=[10.0], initial=initial)

    gradients = Adjoint(sim.plan).replay(run(), {"h": np.ones((1, 1, 1))})
    bias = unit.parameters["bias"].values
    assert gradients["h.bias"] == pytest.approx(
        differences(lambda: float(run()["h"].state.sum()), bias), abs=1e-8
    )


def test_a_sample_at_the_start_has_its_gradient():
    net = Network(dt=None, dtype="float64")
    net.add(DeltaLSTM(2, "h", threshold=0.9, bias=0.3))
    sim = Simulation(net)
    found = []
    for time in (0.0, 1e-12):
        log = sim.run({}, 5.0, samples=[time], initial={"h": {"c": 1.0}})
        found.append(Adjoint(sim.plan).replay(log, {"h": np.ones((1, 1, 2))}, initial=True))
    assert found[0]["h.bias"] == pytest.approx(found[1]["h.bias"], abs=1e-9)
    assert found[0]["h.bias"].any()
    for state, gradient in found[0].initial["h"].items():
        assert gradient == pytest.approx(found[1].initial["h"][state], abs=1e-9)


def late(delay=5.0):
    net = Network(dt=None, dtype="float64")
    net.add(EventSource(1, "cue"))
    net.add(LeakyReadout(1, "out"))
    net.connect("cue", "out", weight=1.0, delay=delay)
    return net


def test_a_carried_log_without_tape_is_refused(tmp_path):
    sim = Simulation(late())
    sim.run(([9.0], [0], [0], [1.0]), 10.0)
    log = sim.run({}, 10.0, samples=[20.0], carry=True)
    loss = {"out": np.ones((1, 1, 1))}
    assert Adjoint(sim.plan).replay(log, loss)["cue->out.weight"] == pytest.approx(np.exp(-0.6))
    opened = EventLog.open(log.save(tmp_path / "late.h5"))
    with pytest.raises(GradientError, match="in flight"):
        Adjoint(sim.plan).replay(opened, loss)


def test_delays_that_changed_since_are_refused():
    sim = Simulation(late())
    log = sim.run(([1.0], [0], [0], [1.0]), 10.0, samples=[10.0])
    sim.plan.projections[0].delay.assign(3.0)
    with pytest.raises(GradientError, match="delays have changed"):
        Adjoint(sim.plan).replay(log, {"out": np.ones((1, 1, 1))})


def test_values_written_in_place_are_checked():
    net = late()
    sim = Simulation(net)
    for name, value in (("out.tau", 0.0), ("cue->out.delay", -1.0), ("out.bias", np.nan)):
        values = net.parameters()[name].values
        before = values.copy()
        values[:] = value
        with pytest.raises(EvsimError, match=name):
            sim.run({}, 1.0)
        values[:] = before
    assert sim.run({}, 1.0).duration == 1.0


def test_weights_that_are_no_numbers_are_an_error():
    net = Network(dt=None)
    net.add(EventSource(1, "cue"))
    net.add(EGRU(3, "h"))
    weight = net.connect("cue", "h", weight=1.0).weight
    sim = Simulation(net)
    weight.values[0, 0] = np.nan
    with pytest.raises(StimulusError, match="no longer numbers"):
        sim.run(([1.0], [0], [0], [1.0]), 5.0)
    weight.values[0, 0] = 1.0
    assert sim.run(([1.0], [0], [0], [1.0]), 5.0).duration == 5.0


def test_a_large_tolerance_is_no_licence():
    """However loose, a step stays within the series' radius of convergence."""
    net = Network(dt=None, dtype="float64")
    bias = np.array([0.0, 0.0, 1.0])
    net.add(EGRU(1, "h", threshold=0.5, bias=bias, tau_m=1000.0, tau_s=1.0))
    log = Simulation(net, tolerance=1e-3).run(duration=5000.0)
    period = 2000.0 * np.log(np.tanh(1.0) / (np.tanh(1.0) - 0.5))  # tau_m / s(0), from 0 to the threshold
    assert log["h"].time == pytest.approx([period, 2 * period], rel=2e-2)


def test_units_send_once_at_one_instant(tmp_path):
    """Two senders without delay cross at once: their target has received both before it sends."""
    net = Network(dt=None, dtype="float64")
    net.add(EventSource(1, "cue"))
    net.add(DeltaLSTM(1, "a", threshold=0.05))
    net.add(DeltaLSTM(2, "b", threshold=0.05))
    net.add(DeltaReadout(1, "sum"))
    net.connect("cue", "b", np.repeat([[0.0, 0.0, 0.0, 2.0]], 2, axis=1).reshape(1, 8))
    net.connect("b", "a", np.array([[0.0, 0.0, 0.0, 2.0]] * 2))
    net.connect("a", "sum", weight=1.0)
    start = {"a": {"c": 1.0, "sent": 0.38}, "b": {"c": 1.0, "sent": 0.38}}
    log = Simulation(net).run(([1.0], [0], [0], [1.0]), 1.5, initial=start)
    at_once = log["a"].time[log["a"].time == 1.0]
    assert len(at_once) == 1
    assert evsim.ContinuousLog.open(log.save(tmp_path / "log.h5")).equal(log)


@pytest.mark.parametrize("lane", [[np.nan], ["a"], [0.5], [-1]])
def test_lanes_that_are_no_integers(lane):
    with pytest.raises(StimulusError, match="lane"):
        Simulation(late()).run(([1.0], lane, [0], [1.0]), 5.0)
