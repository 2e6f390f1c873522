"""LIF units in steps: hand-computed runs, and how they tend to the same network in continuous time."""

import numpy as np
import pytest

from evsim.adjoint import Adjoint
from evsim.errors import NetworkError
from evsim.eventlog import EventLog
from evsim.fixed_point import quantize
from evsim.models import LIF, EventSource, LeakyReadout
from evsim.narrow_weights import narrow
from evsim.network import Network
from evsim.optimizer import Adam
from evsim.simulation import Simulation
from oracles.continuous import from_network, simulate_fast


def one_unit(dt=1.0, dtype="float64", weight=0.0, port="excitatory", **options):
    """A source and a unit that it excites."""
    net = Network(dt=dt, dtype=dtype)
    net.add(EventSource(1, "cue"))
    net.add(LIF(1, "unit", **options))
    net.connect("cue", "unit", weight=np.array([[weight]]), port=port)
    return net


def run(net, n_steps, at=()):
    """The log of a run with events of 1 in some steps."""
    stimulus = np.zeros((n_steps, 1, 1))
    stimulus[list(at)] = 1.0
    return Simulation(net).run(stimulus.astype(net.dtype))


# -- one unit ----------------------------------------------------------------------------------------------


def test_a_constant_drive_by_hand():
    """V = bias (1 - g^k) after k steps, from the reset; it reaches 1 after 3 steps, and is held for 2."""
    bias, tau, dt = 2.0, 4.0, 1.0
    log = run(one_unit(dt, bias=bias, tau_m=tau, refractory=2.0), 13)
    free = [bias * (1 - np.exp(-k * dt / tau)) for k in (1, 2)]
    assert bias * (1 - np.exp(-3 * dt / tau)) > 1 > free[1]
    expected = [*free, 0, 0, 0, *free, 0, 0, 0, *free, 0]
    np.testing.assert_allclose(log["unit"].state[:, 0, 0], expected, rtol=1e-14)
    assert log["unit"].events.step.tolist() == [2, 7, 12]
    assert log["unit"].events.value.tolist() == [1, 1, 1]
    assert log["unit"].kind == "LIF"
    assert log["unit"].state_name == "v"


@pytest.mark.parametrize(("port", "tau"), [("excitatory", 3.0), ("inhibitory", 7.0)])
def test_an_event_acts_in_the_step_in_which_it_arrives(port, tau):
    """It is a current that decays from the beginning of that step on: the difference of two exponentials."""
    dt, tau_m, weight = 0.5, 5.0, -0.8
    net = one_unit(dt, weight=weight, port=port, tau_m=tau_m, tau_e=3.0, tau_i=7.0)
    v = run(net, 20, at=[4])["unit"].state[:, 0, 0]
    assert not v[:4].any()
    s = dt * np.arange(1, 17)
    expected = weight * tau / (tau - tau_m) * (np.exp(-s / tau) - np.exp(-s / tau_m))
    np.testing.assert_allclose(v[4:], expected, rtol=1e-13)


def test_currents_go_on_while_v_is_held():
    """What arrives in a refractory period acts after it, as far as it is left."""
    options = {"tau_m": 5.0, "tau_e": 3.0, "refractory": 4.0, "threshold": 0.9}
    net = one_unit(1.0, weight=-1.0, bias=1.0, **options)
    net["unit"].parameters["bias"].assign(100.0)  # fires in step 0, and is held in steps 1 to 4
    first = Simulation(net)
    first.run(np.zeros((1, 1, 1)))
    net["unit"].parameters["bias"].assign(0.0)
    stimulus = np.zeros((6, 1, 1))
    stimulus[1] = 1.0  # step 2 of all
    log = first.run(stimulus, carry=True)
    assert log["unit"].initial["hold"].tolist() == [[4.0]]
    v, left = log["unit"].state[:, 0, 0], -np.exp(-3.0 / 3.0)
    assert not v[:4].any()
    s = np.array([1.0, 2.0])
    expected = left * 3.0 / (3.0 - 5.0) * (np.exp(-s / 3.0) - np.exp(-s / 5.0))
    np.testing.assert_allclose(v[4:], expected, rtol=1e-13)


def test_a_state_at_the_threshold_is_an_event():
    bias = 0.75
    net = one_unit(1.0, bias=bias, tau_m=1e-3, threshold=bias)  # V is the bias after any step
    assert run(net, 5)["unit"].events.step.tolist() == [0, 1, 2, 3, 4]
    net["unit"].parameters["threshold"].assign(np.nextafter(bias, 1))
    log = run(net, 5)
    assert log["unit"].n_events == 0
    assert (log["unit"].state == bias).all()


def test_units_rest_at_the_reset():
    net = one_unit(bias=-0.3, reset=-0.3)
    simulation = Simulation(net)
    assert (simulation.run(np.zeros((4, 1, 1)))["unit"].state == -0.3).all()
    simulation.reset()
    assert simulation.run(np.zeros((4, 2, 1)))["unit"].initial["v"].tolist() == [[-0.3], [-0.3]]


def test_what_has_decayed_is_zero_and_not_a_denormal_number():
    net = one_unit(weight=0.5, dtype="float32", tau_m=3.0, tau_e=2.0)
    simulation = Simulation(net)
    stimulus = np.zeros((600, 1, 1), np.float32)
    stimulus[0] = 1
    assert simulation.run(stimulus)["unit"].state[20] > 0
    rest = simulation.run(np.zeros((1, 1, 1), np.float32), carry=True)["unit"].initial
    assert rest["v"] == 0
    assert rest["i_e"] == 0


# -- networks ----------------------------------------------------------------------------------------------


def two_layers(dt, seed=3):
    """Recurrence, delays, both ports; a time constant twice."""
    rng = np.random.default_rng(seed)
    net = Network(dt=dt, seed=seed, dtype="float64")
    net.add(EventSource(6, "cue"))
    net.add(LIF(8, "first", bias=rng.uniform(1.1, 1.6, 8), tau_m=10.0, tau_i=10.0, refractory=2.0))
    net.add(LIF(5, "second", bias=0.6, tau_m=8.0, tau_e=4.0, reset=-0.2, refractory=1.6))
    for source, target, port, delay, gain in (
        ("cue", "first", "excitatory", 0.0, 0.4),
        ("first", "first", "inhibitory", 1.6, -0.05),
        ("first", "second", "excitatory", 0.8, 0.5),
        ("second", "first", "excitatory", 3.2, 0.1),
    ):
        shape = net[source].n_units, net[target].n_units
        weight = gain * rng.uniform(0.5, 1.5, shape)
        net.connect(source, target, weight=weight, delay=delay, port=port, name=f"{source}->{target}")
    return net


def test_steps_tend_to_continuous_time_with_order_one():
    """Against closed forms from event to event, which share nothing with evsim."""
    duration, rng = 48.0, np.random.default_rng(0)
    time, unit = np.sort(rng.uniform(0, duration, 40)), rng.integers(0, 6, 40)
    description = from_network(two_layers(None))
    exact = simulate_fast(description, {"cue": (time, unit, np.ones(40))}, duration)
    errors, dts = [], [0.1, 0.05, 0.025, 0.0125, 0.00625]
    for dt in dts:
        stimulus = np.zeros((round(duration / dt), 1, 6))
        np.add.at(stimulus, (np.floor(time / dt).astype(int), 0, unit), 1.0)
        log = Simulation(two_layers(dt)).run(stimulus)
        apart = []
        for name in ("first", "second"):
            mine = np.array(exact.population) == name
            expected, units = exact.time[mine], exact.unit[mine]
            for one in range(log[name].n_units):
                times = log[name].time[log[name].events.unit == one]
                wanted = expected[(units == one) & (expected < duration - 4)]  # the last may be too late
                apart.append(times[: len(wanted)] - wanted)
        apart = np.abs(np.concatenate(apart))
        assert len(apart) > 60
        errors.append(apart.mean())
    order = np.polyfit(np.log(dts), np.log(errors), 1)[0]
    assert abs(order - 1) < 0.1
    assert errors[-1] < dts[-1]


def test_time_constants_are_trained_and_the_next_run_sees_them():
    net = two_layers(0.4)
    net.add(LeakyReadout(2, "answer"))
    net.connect("second", "answer", weight=0.5 * np.ones((5, 2)))
    for name in ("tau_m", "tau_e", "tau_i"):
        net["first"].parameters[name].trainable = True
    simulation, stimulus = Simulation(net), np.zeros((100, 1, 6))
    stimulus[::7] = 1
    optimizer, losses = Adam(net.parameters(), lr=0.05), []
    for _ in range(12):
        log = simulation.run(stimulus)
        again = Simulation(net).run(stimulus)  # a plan of its own
        np.testing.assert_array_equal(log["first"].tape, again["first"].tape)
        difference = log["answer"].state - 0.3
        losses.append(float((difference**2).sum()))
        gradients = Adjoint(simulation.plan, eps=2.0).replay(log, {"answer": 2 * difference})
        assert all(gradients[f"first.{name}"] != 0 for name in ("tau_m", "tau_e", "tau_i"))
        optimizer.step(gradients)
    assert losses[-1] < losses[0]
    assert net["first"].parameters["tau_m"].values != 10.0
    assert net["second"].parameters["tau_m"].values == 8.0  # was not to be trained


@pytest.mark.parametrize("states", [False, True])
def test_a_file_keeps_the_events_and_if_asked_v(states, tmp_path):
    net = two_layers(0.4)
    log = Simulation(net).run(np.ones((50, 2, 6)))
    again = EventLog.open(log.save(tmp_path / "run.h5", states=states))
    assert again.equal(log)
    assert again["first"].events.equal(log["first"].events)
    assert again["first"].n_events > 10
    assert (again["first"].tape is not None) == states
    if states:
        np.testing.assert_array_equal(again["first"].state, log["first"].state)


def test_narrow_weights_and_no_fixed_point():
    net = two_layers(0.4)
    net = net.copy("float32")
    log = Simulation(narrow(net, "int8")).run(np.ones((50, 1, 6), np.float32))
    assert log["second"].n_events > 0
    with pytest.raises(NetworkError, match="does not run in fixed point"):
        quantize(net)


def test_what_is_said_about_a_unit():
    net = two_layers(0.4)
    assert net["first"].describe() == {"type": "LIF", "n_units": 8, "reset": 0.0, "refractory_ms": 2.0}
    schedule = Simulation(net).schedule
    assert "first: accumulators = 0\n" in schedule  # the bias goes into V
    assert "advance, threshold, send and log events, reset" in schedule
    assert net["first"].losses == ("", "y", "o")
    assert two_layers(None)["first"].losses == ("", "time", "integral", "square")
