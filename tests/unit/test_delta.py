"""Delta units: what their equations promise, seen from outside."""

import numpy as np
import pytest

from evsim.adjoint import Adjoint
from evsim.errors import GradientError, LogError, StimulusError
from evsim.eventlog import EventLog
from evsim.models import DeltaEncoder, DeltaGRU, DeltaLSTM, DeltaReadout, EventSource
from evsim.network import Network
from evsim.simulation import Simulation

T, B, K, H, C = 40, 3, 5, 8, 2
UNITS = {"gru": DeltaGRU, "lstm": DeltaLSTM}
#: Blocks that an event meets, in either port.
GATES = {"gru": 3, "lstm": 4}

all_units = pytest.mark.parametrize("units", UNITS)


def network(units, threshold=0.1, input_threshold=0.15, encoder_threshold=0.05, delay=1.0, dtype="float64"):
    """Lines -> first -> second -> answer, where answer also sees first through an encoder."""
    net = Network(seed=3, dtype=dtype)
    net.add(EventSource(K, "lines", threshold=input_threshold))
    for name in ("first", "second"):
        net.add(UNITS[units](H, name, threshold=threshold, bias=normal(0.3)))
    net.add(DeltaEncoder(net["first"], "again", threshold=encoder_threshold))
    net.add(DeltaReadout(C, "answer", bias=normal(0.3)))
    net.connect("lines", "first", normal(0.8))
    net.connect("first", "first", "orthogonal", delay=delay)
    net.connect("first", "second", normal(0.6))
    net.connect("second", "second", "orthogonal", delay=delay)
    net.connect("second", "answer")
    net.connect("again", "answer", delay=2.0)
    return net


def normal(scale):
    return lambda rng, shape: rng.normal(0, scale, shape)


def lines(seed=0, n_steps=T):
    """Lines that wander."""
    return np.cumsum(np.random.default_rng(seed).normal(0, 0.15, (n_steps, B, K)), axis=0)


def losses(seed=1):
    rng = np.random.default_rng(seed)
    return {"answer": rng.normal(size=(T, B, C)), "second": rng.normal(size=(T, B, H))}


def replay(simulation, log, **options):
    return Adjoint(simulation.plan).replay(log, losses(), **options)


def sent_so_far(log, name):
    """The sum of all payloads of every line after each step, in the order in which they were sent."""
    return np.cumsum(log[name].events.to_dense(), axis=0)


def window_after(simulation):
    """A window of no steps: its initial states are those that the run before left."""
    return simulation.run(np.zeros((0, B, K)), carry=True)


def second_window(units):
    """A simulation, and the log of the second of two windows."""
    simulation = Simulation(network(units))
    simulation.run(lines())
    return simulation, simulation.run(lines(2), carry=True)


SENDERS = ("lines", "first", "again", "second")


# -- what is sent ------------------------------------------------------------------------------------------


@all_units
def test_a_line_has_sent_the_sum_of_its_payloads(units):
    simulation = Simulation(network(units))
    log = simulation.run(lines())
    after = window_after(simulation)
    for name in SENDERS:
        assert log[name].n_events
        np.testing.assert_array_equal(after[name].initial["sent"], sent_so_far(log, name)[-1])


@all_units
def test_what_was_sent_stays_within_the_threshold(units):
    thresholds = np.linspace(0, 0.3, H)
    log = Simulation(network(units, thresholds, input_threshold=0.25)).run(lines())
    gap = np.abs(log["first"].state - sent_so_far(log, "first"))
    assert (gap[..., 1:] < thresholds[1:]).all()
    assert gap[..., 0].max() < 1e-15  # threshold 0: nothing but rounding
    assert (np.abs(lines() - sent_so_far(log, "lines")) < 0.25).all()
    assert (np.abs(log["first"].state - sent_so_far(log, "again")) < 0.05).all()


@all_units
def test_an_event_is_a_change_of_at_least_the_threshold(units):
    log = Simulation(network(units)).run(lines())
    for name, threshold in zip(SENDERS, (0.15, 0.1, 0.05, 0.1), strict=True):
        assert (np.abs(log[name].value) >= threshold).all()


def test_threshold_zero_sends_exactly_what_changed():
    stairs = np.repeat(np.random.default_rng(0).integers(-8, 8, (T // 4, B, K)), 4, axis=0) / 16
    log = Simulation(network("gru", input_threshold=0.0)).run(stairs)
    expected = np.diff(stairs, axis=0, prepend=0)
    assert np.count_nonzero(expected) < expected.size / 3
    np.testing.assert_array_equal(log["lines"].events.to_dense(), expected)


def test_a_change_equal_to_the_threshold_is_sent():
    """Numbers that binary floats hold exactly: the comparison is >=."""
    net = network("gru", input_threshold=[0.25, 0.25, 0.25, 0.25, 0.0])
    steps = np.array([0.25, -0.25, 0.125, 0.0, 0.0])
    log = Simulation(net).run(steps.reshape(1, 1, K))
    np.testing.assert_array_equal(log["lines"].unit, [0, 1])
    np.testing.assert_array_equal(log["lines"].value, [0.25, -0.25])


@all_units
def test_one_stream_serves_two_targets_with_the_same_threshold(units):
    thresholds = np.linspace(0.02, 0.2, H)
    log = Simulation(network(units, thresholds, encoder_threshold=thresholds)).run(lines())
    assert log["again"].events.equal(log["first"].events)


@all_units
def test_at_rest_nothing_is_sent(units):
    net = network(units, threshold=0.0, encoder_threshold=0.0)
    for name in ("first", "second"):
        net.parameters()[f"{name}.bias"].assign(0.0)
    log = Simulation(net).run(np.zeros((T, B, K)))
    assert not any(log.counters["events"].values())
    assert not any(log.counters["macs"].values())
    np.testing.assert_array_equal(log["answer"].state - net.parameters()["answer.bias"].values, 0.0)


@all_units
def test_thresholds_may_change_between_runs(units):
    net = network(units)
    simulation = Simulation(net)
    coarse = simulation.run(lines())
    new = {"lines": 0.05, "first": 0.02, "again": 0.01, "second": np.linspace(0, 0.1, H)}
    for name, value in new.items():
        net.parameters()[f"{name}.threshold"].assign(value)
    log = simulation.run(lines())
    expected = Simulation(network(units, 0.02, 0.05, 0.01))
    expected.plan.network.parameters()["second.threshold"].assign(new["second"])
    made_so = expected.run(lines())
    for name in SENDERS:
        assert log[name].events.equal(made_so[name].events)
        assert log[name].n_events > coarse[name].n_events


def test_thresholds_are_not_trained():
    net = network("gru")
    assert not any(net.parameters()[f"{name}.threshold"].trainable for name in SENDERS)
    simulation = Simulation(net)
    assert not any("threshold" in name for name in replay(simulation, simulation.run(lines())))


# -- what has arrived --------------------------------------------------------------------------------------


@all_units
@pytest.mark.parametrize("lengths", [None, (17, 0, 9)])
def test_accumulators_hold_the_weights_times_what_was_sent(units, lengths):
    """M = bias + W x_sent + W h_sent: of delayed projections, without what is still on its way."""
    net = network(units, delay=2.0)
    simulation = Simulation(net)
    for window in range(4):
        log = simulation.run(lines(window, 20), carry=True, lengths=lengths if window == 1 else None)
        log = window_after(simulation)
        for name in ("first", "second", "answer"):
            target = net[name]
            expected = {state: 0.0 for state in target.states if state[0] == "m"}
            for p in net.projections.values():
                if p.target is target:
                    source = log[p.source.name]
                    in_flight = source.carried.to_dense()[source.carried.n_steps - p.delay_steps :]
                    arrived = (source.initial["sent"] - in_flight.sum(axis=0)) @ p.weight.values
                    blocks = ["m"] if name == "answer" else [f"m_{gate}" for gate in target.ports[p.port]]
                    for state, part in zip(blocks, np.split(arrived, len(blocks), axis=1), strict=True):
                        expected[state] = expected[state] + part
            for state, values in expected.items():
                assert np.abs(values).max() > 0.1
                np.testing.assert_allclose(log[name].initial[state], values, rtol=0, atol=1e-12)


@all_units
def test_a_readout_holds_what_was_sent_to_it(units):
    net = network(units)
    log = Simulation(net).run(lines())
    again = np.concatenate([np.zeros((2, B, H)), sent_so_far(log, "again")[:-2]])
    expected = (
        sent_so_far(log, "second") @ net.projections["second->answer"].weight.values
        + again @ net.projections["again->answer"].weight.values
        + net.parameters()["answer.bias"].values
    )
    np.testing.assert_allclose(log["answer"].state, expected, rtol=0, atol=1e-12)


@all_units
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_carried_windows_equal_one_run_bit_for_bit(units, dtype):
    net = network(units, delay=3.0, dtype=dtype)
    whole = Simulation(net).run(lines())
    simulation = Simulation(net)
    parts = [simulation.run(lines()[a:b], carry=True) for a, b in ((0, 1), (1, 14), (14, 16), (16, T))]
    for name in SENDERS:
        events = parts[0][name].events
        for part in parts[1:]:
            events = events.then(part[name].events)
        assert events.equal(whole[name].events)
    for name in ("first", "second", "answer"):
        np.testing.assert_array_equal(np.concatenate([part[name].state for part in parts]), whole[name].state)


# -- work --------------------------------------------------------------------------------------------------


@all_units
@pytest.mark.parametrize("lengths", [(T, T, T), (T, 0, 13)])
def test_multiply_accumulates_are_gates_times_units_times_events(units, lengths):
    """Forwards, back to the input and for the weights: each g H (n_x + n_h), of the events that arrive."""
    simulation = Simulation(network(units))
    log = simulation.run(lines(), lengths=lengths)
    macs = log.counters["macs"]
    last_steps = np.array(lengths) - 1
    arriving = {
        name: log[name].n_events - np.count_nonzero(log[name].events.step == last_steps[log[name].lane])
        for name in ("first", "second")
    }
    gH = GATES[units] * H
    assert macs["lines->first"] == gH * log["lines"].n_events > 0
    assert macs["first->first"] == gH * arriving["first"] > 0
    assert macs["first->second"] == gH * log["first"].n_events > 0
    assert macs["second->second"] == gH * arriving["second"] > 0
    assert macs["second->answer"] == C * log["second"].n_events > 0
    gradients = replay(simulation, log, inputs=True)
    assert gradients.counters["macs_state"] == macs
    assert gradients.counters["macs_weight"] == macs
    assert not any(gradients.counters["macs_recompute"].values())
    assert gradients.counters["backward_active"] == {name: log[name].n_events for name in SENDERS}


def test_the_gradient_at_the_input_costs_nothing_unless_asked_for():
    simulation = Simulation(network("lstm"))
    counters = replay(simulation, simulation.run(lines())).counters
    assert counters["macs_state"]["lines->first"] == 0
    assert counters["backward_active"]["lines"] == 0
    assert counters["macs_weight"]["lines->first"] > 0


@all_units
def test_the_gradient_at_the_input_is_zero_outside_the_events(units):
    simulation = Simulation(network(units))
    log = simulation.run(lines())
    gradient = replay(simulation, log, inputs=True).inputs["lines"]
    sent = log["lines"].events.to_dense() != 0
    assert 0.1 < sent.mean() < 0.6
    assert not gradient[~sent].any()
    assert np.count_nonzero(gradient[sent]) > 0.9 * sent.sum()


@all_units
def test_rows_of_lines_that_send_nothing_are_never_read(units):
    """Their weights are NaN, and nothing is, forwards or backwards."""
    thresholds = np.where(np.arange(H) % 3 == 0, 9.0, 0.05)  # h stays within 1
    stimulus = lines()
    stimulus[..., [1, 3]] = 0.0
    results = []
    for poison in (0.0, np.nan):
        net = network(units, thresholds, encoder_threshold=thresholds)
        for p in net.projections.values():
            silent = [1, 3] if p.source.name == "lines" else thresholds > 1
            p.weight.values[silent] = poison
        simulation = Simulation(net)
        log = simulation.run(stimulus)
        gradients = replay(simulation, log, inputs=True)
        for p in net.projections.values():
            silent = [1, 3] if p.source.name == "lines" else thresholds > 1
            assert not gradients[p.weight.name][silent].any()
        results.append([log["answer"].state, gradients.inputs["lines"], *gradients.values()])
    for clean, poisoned in zip(*results, strict=True):
        assert np.isfinite(poisoned).all()
        np.testing.assert_array_equal(clean, poisoned)


# -- losses ------------------------------------------------------------------------------------------------


@all_units
def test_a_loss_of_values_may_be_given_by_event(units):
    simulation = Simulation(network(units))
    log = simulation.run(lines())
    dense = np.random.default_rng(2).normal(size=(T, B, H))
    events = log["first"].events
    by_event = dense[events.step, events.lane, events.unit]
    adjoint = Adjoint(simulation.plan)
    one, other = adjoint.replay(log, {"first.y": dense}), adjoint.replay(log, {"first.y": by_event})
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])
    assert one["lines->first.weight"].any()


def test_a_run_without_events_has_a_loss_of_no_events():
    simulation = Simulation(network("gru", threshold=9.0))
    log = simulation.run(lines())
    assert log["first"].n_events == 0
    gradients = Adjoint(simulation.plan).replay(log, {"first.y": np.zeros(0)})
    assert not any(values.any() for values in gradients.values())


# -- logs --------------------------------------------------------------------------------------------------


@all_units
@pytest.mark.parametrize("states", [False, True])
def test_a_saved_log_replays_and_keeps_states_if_wanted(units, states, tmp_path):
    simulation = Simulation(network(units, delay=2.0))
    simulation.run(lines(5), carry=True)
    log = simulation.run(lines(), carry=True)
    opened = EventLog.open(log.save(tmp_path / "run.h5", states=states))
    assert opened.equal(log)
    first, again = replay(simulation, log, initial=True), replay(simulation, opened, initial=True)
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    for name in ("first", "second"):
        if states:
            np.testing.assert_array_equal(opened[name].state, log[name].state)
        else:
            with pytest.raises(LogError, match=r"save\(states=True\)"):
                _ = opened[name].state


def test_a_log_whose_thresholds_changed_is_not_replayed_without_its_tape():
    net = network("gru")
    simulation = Simulation(net)
    log = simulation.run(lines(), tape=False)
    net.parameters()["again.threshold"].assign(0.04)
    with pytest.raises(GradientError, match=r"'again'.*do not follow"):
        replay(simulation, log)


# -- continuous time -------------------------------------------------------------------------------------


def euler(units, net, x):
    """Events of "first" by explicit Euler with dt = tau, thresholds tested on the grid.

    GRU: tau h' = (1 - z) (n - h); LSTM: tau c' = -(1 - f) c + i g, h = o tanh(c).
    """
    value = {name: p.values for name, p in net.parameters().items()}
    logistic = lambda a: 1 / (1 + np.exp(-a))  # noqa: E731
    sent_x, sent_h = np.zeros((B, K)), np.zeros((B, H))
    state, events = np.zeros((B, H)), []
    for step in x:
        moved = np.abs(step - sent_x) >= value["lines.threshold"]
        sent_x = np.where(moved, step, sent_x)
        a, b, c, d = np.split(value["first.bias"], 4)
        into = np.split(sent_x @ value["lines->first.weight"], GATES[units], axis=1)
        back = np.split(sent_h @ value["first->first.weight"], GATES[units], axis=1)
        if units == "gru":
            r, z = logistic(a + into[0] + back[0]), logistic(b + into[1] + back[1])
            slope = (1 - z) * (np.tanh(c + into[2] + r * (d + back[2])) - state)
            h = state = state + slope
        else:
            i, f = logistic(a + into[0] + back[0]), logistic(b + into[1] + back[1])
            slope = -(1 - f) * state + i * np.tanh(c + into[2] + back[2])
            state = state + slope
            h = logistic(d + into[3] + back[3]) * np.tanh(state)
        moved = np.abs(h - sent_h) >= value["first.threshold"]
        events.append(np.where(moved, h - sent_h, 0.0))
        sent_h = np.where(moved, h, sent_h)
    return np.array(events)


@all_units
def test_a_step_is_an_euler_step_of_one_time_constant(units):
    net = network(units)
    log = Simulation(net).run(lines())
    expected = euler(units, net, lines())
    sent = log["first"].events.to_dense()
    np.testing.assert_array_equal(sent != 0, expected != 0)
    np.testing.assert_allclose(sent, expected, rtol=0, atol=1e-12)


@all_units
def test_the_gradient_at_what_a_source_had_sent_does_not_need_that_at_its_input(units):
    simulation, log = second_window(units)
    alone = replay(simulation, log, initial=True)
    both = replay(simulation, log, initial=True, inputs=True)
    assert not alone.inputs
    assert np.abs(both.initial["lines"]["sent"]).max() > 0
    for name, states in both.initial.items():
        for state, gradient in states.items():
            np.testing.assert_array_equal(alone.initial[name][state], gradient)


@pytest.mark.parametrize("missing", ["carried", "events", "sent", "longer"])
def test_a_log_that_lacks_something_is_refused(missing):
    simulation, log = second_window("gru")
    member = log["first"]
    if missing == "sent":
        member.initial = {name: states for name, states in member.initial.items() if name != "sent"}
    elif missing == "longer":
        member.carried = member.events
    else:
        setattr(member, missing, None)
    with pytest.raises(GradientError, match="log of 'first': it lacks"):
        replay(simulation, log)


@pytest.mark.parametrize("value", [3e38, -3e38, np.inf, np.nan])
def test_lines_whose_changes_are_not_finite_are_refused(value):
    simulation, x = Simulation(network("gru", dtype="float32")), lines()
    x[3, 1, 2] = value
    with pytest.raises(StimulusError, match="at step 3, lane 1, unit 2"):
        simulation.run(x)
    assert np.isfinite(simulation.run(lines())["answer"].state).all()
