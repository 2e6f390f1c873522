"""Edges of runs and replays in continuous time."""

import numpy as np
import pytest
import scipy.sparse

from evsim.adjoint import Adjoint
from evsim.core import continuous
from evsim.core.continuous_forward import MESSAGE
from evsim.core.queues import FIELDS
from evsim.errors import StimulusError
from evsim.models import EGRU, LIF, DeltaGRU, DeltaLSTM, DeltaReadout, EventSource, LeakyReadout
from evsim.network import Network
from evsim.simulation import Simulation
from oracles.continuous import simulate_fast
from oracles.continuous_cases import Case, differences, oracle


def ones(time, unit=None, value=1.0):
    """Columns of external events of lane 0."""
    time = np.asarray(time, float)
    unit = np.zeros(time.size, int) if unit is None else np.asarray(unit)
    return time, np.zeros(time.size, int), unit, np.full(time.size, value)


def single(unit, weight, delay=0.0, dtype="float64"):
    """A source of one unit, a population "hid", and a readout with weights 1."""
    net = Network(dt=None, dtype=dtype)
    net.add(EventSource(1, "cue"))
    net.add(unit)
    delta = isinstance(unit, (DeltaGRU, DeltaLSTM))
    net.add(DeltaReadout(1, "out") if delta else LeakyReadout(1, "out", tau=5.0))
    net.connect("cue", "hid", weight, delay=delay)
    net.connect("hid", "out", np.ones((unit.n_units, 1)))
    return net


def replay(sim, log, **given):
    losses = given or {name: np.ones(log[name].state.shape) for name in log if log[name].state is not None}
    return Adjoint(sim.plan).replay(log, losses, inputs=True, initial=True)


UNITS = [
    lambda n=2: EGRU(n, "hid", threshold=0.2, bias=np.repeat([0.5, 0.0, 0.8], n)),
    lambda n=2: LIF(n, "hid", bias=1.3),
    lambda n=2: DeltaGRU(n, "hid"),
    lambda n=2: DeltaLSTM(n, "hid"),
]
BLOCKS = (3, 1, 3, 4)
each_unit = pytest.mark.parametrize(
    ("make", "blocks"), list(zip(UNITS, BLOCKS, strict=True)), ids=["egru", "lif", "gru", "lstm"]
)


def test_twins_of_structs():
    sizes = continuous.struct_sizes()
    assert sizes == {
        "units": continuous.UNITS.itemsize,
        "fans": continuous.FANS.itemsize,
        "event": continuous.EVENT_DTYPE.itemsize,
    }
    assert set(MESSAGE.names) == set(FIELDS)


# -- windows -----------------------------------------------------------------------------------------------


@each_unit
@pytest.mark.parametrize("samples", [None, [0.0]])
@pytest.mark.parametrize("tape", [True, False])
def test_a_window_of_no_length(make, blocks, samples, tape):
    """Nothing happens but samples, and the gradient goes to the states at the start."""
    net = single(make(), np.ones((1, blocks * 2)))
    sim = Simulation(net)
    log = sim.run(duration=0.0, samples=samples, tape=tape)
    assert (log.duration, log["hid"].n_events, sim.time) == (0.0, 0, 0.0)
    if samples is not None:
        gradients = replay(sim, log)
        main = {"EGRU": "c", "LIF": "v", "DeltaGRU": "h", "DeltaLSTM": "c"}[log["hid"].kind]
        # An LSTM's h is no state of its own but o tanh(c): at rest, dh/dc = o.
        slope = (
            1 / (1 + np.exp(-net.parameters()["hid.bias"].values[6:])) if main == "c" and blocks == 4 else 1
        )
        np.testing.assert_allclose(gradients.initial["hid"][main], np.ones((1, 2)) * slope, rtol=1e-14)
    else:
        gradients = replay(sim, log, out=np.zeros((0, 1, 1)))
        assert not any(values.any() for values in gradients.values())


@each_unit
def test_no_events_and_no_samples(make, blocks):
    net = single(make(), np.ones((1, blocks * 2)))
    sim = Simulation(net)
    log = sim.run(duration=3.0)
    assert log["hid"].state is None
    losses = {"out": np.zeros((0, 1, 1))}
    gradients = Adjoint(sim.plan).replay(log, losses, inputs=True, initial=True)
    assert not any(values.any() for values in gradients.values())
    assert set(gradients) >= {"hid.bias", "cue->hid.weight", "hid->out.weight"}


@pytest.mark.parametrize("unit", [EGRU(3, "hid"), LIF(3, "hid"), DeltaGRU(3, "hid"), DeltaLSTM(3, "hid")])
def test_a_silent_population(unit):
    """The state's gradient at the bias is there though nothing was sent."""
    net = single(
        unit, np.zeros((1, {"EGRU": 9, "LIF": 3, "DeltaGRU": 9, "DeltaLSTM": 12}[type(unit).__name__]))
    )
    sim = Simulation(net)
    log = sim.run({"cue": ones([1.0, 2.0])}, 10.0, samples=[10.0])
    assert log["hid"].n_events == 0
    assert log.counters["macs"]["hid->out"] == 0
    gradients = replay(sim, log)
    assert np.abs(gradients["hid.bias"]).max() > 0
    assert not gradients["hid->out.weight"].any()
    assert np.abs(gradients["cue->hid.weight"]).max() > 0


def test_samples_at_start_and_end_and_at_events():
    """A sample is of the state just before the events of that instant."""
    net = Network(dt=None, dtype="float64")
    net.add(EventSource(1, "cue"))
    net.add(LeakyReadout(1, "out", tau=1e12))
    net.connect("cue", "out", [[1.0]])
    sim = Simulation(net)
    log = sim.run({"cue": ones([0.0, 1.0, 2.0])}, 3.0, samples=[0.0, 1.0, 1.5, 2.0, 3.0])
    np.testing.assert_allclose(log["out"].state[:, 0, 0], [0, 1, 2, 2, 3], rtol=1e-9)
    np.testing.assert_allclose(log["out"].integral[:, 0, 0], [0, 1, 1, 1, 3], rtol=1e-9)
    np.testing.assert_allclose(log["out"].square[:, 0, 0], [0, 1, 2, 2, 9], rtol=1e-9)
    dstate = np.array([1.0, 10.0, 100.0, 1000.0, 10000.0]).reshape(5, 1, 1)
    gradients = Adjoint(sim.plan).replay(log, {"out": dstate}, inputs=True)
    np.testing.assert_allclose(gradients["cue->out.weight"], 11110 + 11100 + 10000, rtol=1e-9)
    np.testing.assert_allclose(gradients.inputs["cue"]["value"], [11110, 11100, 10000], rtol=1e-9)


def test_an_event_at_the_end_belongs_to_the_next_window():
    """An arrival, too: 1 + 0.5 is the end."""
    net = Network(dt=None, dtype="float64")
    net.add(EventSource(1, "cue"))
    net.add(DeltaReadout(1, "total"))
    net.connect("cue", "total", [[1.0]], delay=0.5)
    sim = Simulation(net)
    first = sim.run({"cue": ones([0.25, 1.0])}, 1.5, samples=[1.5])
    assert (first["total"].state.ravel().tolist(), first.counters["macs"]["cue->total"]) == ([1.0], 1)
    with pytest.raises(StimulusError, match=r"\[1.5, 2.5\)"):
        sim.run({"cue": ones([2.5])}, 1.0, carry=True)
    second = sim.run({"cue": ones([1.5])}, 1.0, samples=[1.5, 1.75, 2.5], carry=True)
    assert second["total"].state.ravel().tolist() == [1.0, 2.0, 3.0]
    assert second.counters["macs"]["cue->total"] == 2
    gradient = replay(sim, second)
    # The event in flight at the start came from before the window: it counts for the weight.
    assert gradient["cue->total.weight"].tolist() == [[3.0]]


@pytest.mark.parametrize("delay", [2.0, [[1.0, 2.0, 3.0]]])
def test_delays_stay_while_events_are_in_flight(delay):
    """In another order of delays the rest of an event would arrive twice here and never there."""
    net = Network(dt=None, dtype="float64")
    net.add(EventSource(1, "cue"))
    net.add(DeltaReadout(3, "total"))
    projection = net.connect("cue", "total", [[1.0, 10.0, 100.0]], delay=delay)
    sim, before = Simulation(net), projection.delay.values.copy()
    sim.run({"cue": ones([0.5])}, 2.0)
    projection.delay.assign(before[..., ::-1] + 0.25)
    with pytest.raises(StimulusError, match=r"'cue->total': its delays have changed.*reset"):
        sim.run(duration=5.0, samples=[7.0], carry=True)
    projection.delay.assign(before)
    Adjoint(sim.plan)
    with pytest.raises(StimulusError, match="have changed"):  # it cannot know that they are as before
        sim.run(duration=5.0, samples=[7.0], carry=True)
    fresh = sim.run({"cue": ones([0.5])}, 2.0)
    assert sim.run(duration=5.0, samples=[7.0], carry=True)["total"].state.ravel().tolist() == [1, 10, 100]
    projection.delay.assign(before + 1.0)
    assert fresh.tape is not None
    log = sim.run(duration=5.0, carry=True)  # nothing is in flight
    assert log.counters["macs"]["cue->total"] == 0


def test_a_crossing_at_the_end_belongs_to_the_next_window():
    """LIF from v = 0 under bias 2: threshold 1 at tau ln 2."""
    tau = 1.0 / np.log(2.0)
    net = single(LIF(1, "hid", bias=2.0, tau_m=tau), [[0.0]])
    times = Simulation(net).run(duration=1.5)["hid"].time
    assert times[0] == pytest.approx(1.0, rel=1e-14)
    sim = Simulation(net)
    assert sim.run(duration=float(times[0]))["hid"].n_events == 0
    log = sim.run(duration=0.5, carry=True)
    assert log["hid"].n_events == 1
    assert log["hid"].time[0] == pytest.approx(1.0, rel=1e-14)


# -- instants ----------------------------------------------------------------------------------------------


@each_unit
def test_two_units_at_the_same_instant(make, blocks):
    """Equal units cross at one time to the last bit, in order of number, and back."""
    net = single(make(3), np.repeat([[2.0, -2.0, 2.0, 2.0][:blocks]], 3, axis=1), delay=0.25)
    sim = Simulation(net)
    log = sim.run({"cue": ones([0.5, 4.0, 9.0])}, 60.0, samples=[60.0])
    assert log["hid"].n_events >= 3
    assert log["hid"].n_events % 3 == 0
    time, unit = log["hid"].time.reshape(-1, 3), log["hid"].unit.reshape(-1, 3)
    assert (time == time[:, :1]).all()
    assert (unit == [0, 1, 2]).all()
    gradient = replay(sim, log)
    weights = gradient["cue->hid.weight"].reshape(blocks, 3)
    np.testing.assert_allclose(weights, weights[:, :1] * np.ones(3), rtol=1e-9, atol=1e-12)


def test_order_at_one_instant():
    """External events come before arrivals, and both before the crossing that is due then."""
    tau = 1.0 / np.log(2.0)
    net = Network(dt=None, dtype="float64")
    net.add(EventSource(1, "cue"))
    net.add(LIF(1, "hid", bias=2.0, tau_m=tau))
    net.connect("cue", "hid", [[1.0]])
    crossing = float(Simulation(net).run(duration=1.5)["hid"].time[0])
    log = Simulation(net).run({"cue": ones([crossing])}, 1.5)
    assert log["hid"].time.tolist()[0] == crossing


@pytest.mark.parametrize("state", [1.0, 1.5])
def test_lif_that_starts_at_its_threshold_or_above(state):
    net = single(LIF(2, "hid", bias=0.5), [[0.0, 0.0]])
    sim = Simulation(net)
    log = sim.run(duration=5.0, samples=[0.0, 5.0], initial={"hid": {"v": [state, 0.0]}})
    assert log["hid"].time.tolist() == [0.0]
    assert log["hid"].unit.tolist() == [0]
    assert log["hid"].state[0, 0].tolist() == [state, 0.0]
    assert np.isfinite(replay(sim, log)["hid.bias"]).all()


def test_egru_and_delta_that_start_above_their_threshold():
    cases = (
        (EGRU(1, "hid", threshold=0.3), 3, {"c": 0.5}, 0.3),
        (DeltaGRU(1, "hid", threshold=0.1), 3, {"h": 0.5}, 0.5),
        (DeltaLSTM(1, "hid", threshold=0.1), 4, {"c": 1.0, "h": np.tanh(1) / 2}, np.tanh(1) / 2),
    )
    for unit, blocks, state, value in cases:
        net = single(unit, np.zeros((1, blocks)))
        sim = Simulation(net)
        log = sim.run(duration=0.01, initial={"hid": state}, samples=[0.01])
        assert log["hid"].time.tolist() == [0.0], unit
        assert log["hid"].value[0] == pytest.approx(value)
        assert all(np.isfinite(g).all() for g in replay(sim, log).values())


# -- shapes ------------------------------------------------------------------------------------------------


def test_empty_rows_of_sparse_weights():
    """A unit without targets is heard by nobody."""
    net = Network(dt=None, dtype="float64")
    net.add(EventSource(4, "cue"))
    net.add(DeltaReadout(3, "total"))
    weight = np.zeros((4, 3))
    weight[1, 2], weight[3, 0] = 2.0, 5.0
    delay = scipy.sparse.csr_array(([0.5, 1.0], ([1, 3], [2, 0])), shape=(4, 3))
    net.connect("cue", "total", scipy.sparse.csr_array(weight), delay=delay, train_delay=True)
    sim = Simulation(net)
    log = sim.run({"cue": ones([1.0, 1.0, 1.0, 1.0], [0, 1, 2, 3])}, 3.0, samples=[1.75, 3.0])
    assert log["total"].state[:, 0].tolist() == [[0, 0, 2], [5, 0, 2]]
    assert log.counters["macs"]["cue->total"] == 2
    losses = {"total.integral": np.ones((2, 1, 3))}
    gradient = Adjoint(sim.plan).replay(log, losses, inputs=True)
    assert gradient["cue->total.weight"].tolist() == [1.5, 1.0]
    assert gradient["cue->total.delay"].tolist() == [-2.0, -5.0]
    assert gradient.inputs["cue"]["value"].tolist() == [0, 3, 0, 5]
    assert gradient.inputs["cue"]["time"].tolist() == [0, -2, 0, -5]


def test_sparse_weights_without_any_entry():
    net = single(LIF(2, "hid", bias=1.5), scipy.sparse.csr_array((1, 2)))
    sim = Simulation(net)
    log = sim.run({"cue": ones([1.0])}, 30.0, samples=[30.0])
    assert log["hid"].n_events >= 2
    assert replay(sim, log)["cue->hid.weight"].shape == (0,)


@pytest.mark.parametrize("kind", ["egru", "lif", "delta_gru", "delta_lstm"])
def test_one_unit(kind):
    case = Case(kind, "one", False, 1, seed=2)
    net, stimulus = case.network(), case.stimulus()
    log = Simulation(net).run(stimulus, case.duration, samples=case.samples())
    result = oracle(simulate_fast, net, stimulus, case.duration, samples=case.samples())
    assert max(differences(log, result).values()) < 1e-9


# -- long and short ----------------------------------------------------------------------------------------


@each_unit
def test_long_idle_stretches(make, blocks):
    """What happened 1e5 ms ago is forgotten, forwards and backwards, and the replay is not lost in it."""
    weight = np.ones((1, blocks * 2))
    quiet = {
        "EGRU": lambda: EGRU(2, "hid", threshold=0.2, bias=np.repeat([0.0, 0.0, -0.5], 2)),
        "LIF": lambda: LIF(2, "hid"),
    }.get(type(make()).__name__, make)
    net = single(quiet(), 3 * weight)
    early, late = 5.0, 1e5
    sim = Simulation(net)
    samples = [late + 2, late + 40]
    both = sim.run({"cue": ones([early, early + 3, late, late + 3])}, late + 40, samples=samples)
    gradients = replay(sim, both)
    assert all(np.isfinite(values).all() for values in gradients.values())
    other = Simulation(net)
    alone = other.run({"cue": ones([late, late + 3])}, late + 40, samples=samples)
    same = replay(other, alone)
    if both["hid"].kind in ("EGRU", "LIF"):  # which forget
        np.testing.assert_allclose(both["hid"].state, alone["hid"].state, rtol=1e-9, atol=1e-12)
        for key in ("value", "time"):
            np.testing.assert_allclose(
                gradients.inputs["cue"][key][2:], same.inputs["cue"][key], rtol=1e-8, atol=1e-12
            )
            assert np.abs(gradients.inputs["cue"][key][:2]).max() < 1e-12
        weights = gradients["cue->hid.weight"], same["cue->hid.weight"]
        np.testing.assert_allclose(*weights, rtol=1e-8, atol=1e-12)


def test_a_slow_approach_to_the_threshold_ends():
    """Steps to a crossing with a small slope once shrank until c no longer changed."""
    case = Case("egru", "one", False, 4, duration=30.0, seed=5)
    for seed in range(12):
        net = case.network()
        log = Simulation(net).run(case.stimulus(), case.duration, initial=case.initial(net))
        case = Case("egru", "one", False, 4, duration=30.0, seed=seed)
        assert log["hid"].n_events > 0
    net = single(EGRU(1, "hid", threshold=0.5, bias=[3.0, 0.0, np.arctanh(0.5 + 1e-9)]), np.zeros((1, 3)))
    times = Simulation(net).run(duration=1000.0)["hid"].time
    assert np.all(np.diff(times) > 100)


@pytest.mark.parametrize("tau", [1e-3, 0.05])
def test_tiny_time_constants(tau):
    """Of currents far shorter than the membrane's: each event is a jump of w tau / tau_m."""
    net = single(LIF(1, "hid", tau_m=20.0, tau_e=tau, tau_i=tau, train_time_constants=True), [[6.0 / tau]])
    sim = Simulation(net)
    time = np.arange(1.0, 12.0)
    log = sim.run({"cue": ones(time)}, 15.0, samples=[2.5, 15.0])
    result = oracle(simulate_fast, net, {"cue": ones(time)}, 15.0, samples=[2.5, 15.0])
    worst = differences(log, result)
    assert log["hid"].n_events >= 2
    assert max(worst.values()) < 1e-9, worst
    assert all(np.isfinite(values).all() for values in replay(sim, log).values())


@pytest.mark.parametrize("gap", [0.0, 1e-15, 1e-12, 1e-9, 1e-6, 1e-3])
def test_equal_time_constants_lose_nothing(gap):
    """tau_e = tau_m is a removable singularity: events and gradients are continuous through it."""
    found = []
    for tau_e in (10.0, 10.0 * (1 + gap)):
        net = single(
            LIF(2, "hid", tau_m=10.0, tau_e=tau_e, tau_i=10.0, train_time_constants=True), [[8.0, 9.0]]
        )
        sim = Simulation(net)
        log = sim.run({"cue": ones([1.0, 4.0, 6.0])}, 30.0, samples=[20.0, 30.0])
        gradient = replay(sim, log)
        found.append([log["hid"].time, log["hid"].state.ravel(), *(g.ravel() for g in gradient.values())])
        assert log["hid"].n_events >= 2
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11 + 300 * gap, atol=1e-10 + 300 * gap)


def test_events_of_a_record_outlive_it():
    simulation = Simulation(single(LIF(1, "hid", bias=50.0), [[1.0]]))
    log = simulation.run(duration=5.0)
    events = log.tape.core.events(0)
    before = events.copy()
    assert len(events) > 2
    assert not events.flags.writeable
    del log
    simulation.run(duration=5.0)
    np.testing.assert_array_equal(events, before)


def test_too_many_events():
    """The error names lane, number and end, and the simulation goes on from where it was."""
    net = single(LIF(1, "hid", bias=50.0), [[1.0]])
    sim = Simulation(net)
    first = sim.run(duration=1.0, samples=[1.0])
    time = sim.time
    with pytest.raises(StimulusError, match=r"lane 0 had more than 10 events before 1001 ms.*most_events"):
        sim.run(duration=1000.0, carry=True, most_events=10)
    assert sim.time == time
    again = Simulation(net)
    again.run(duration=1.0, samples=[1.0])
    one, other = (s.run(duration=5.0, samples=[4.0], carry=True) for s in (sim, again))
    assert one.equal(other)
    assert first["hid"].n_events > 0


# -- grazing -----------------------------------------------------------------------------------------------


def test_grazing_is_counted():
    """A slope below the floor is raised to it, and the counter says so."""
    net = single(LIF(1, "hid", bias=1.0 + 1e-9, tau_m=1.0), [[0.0]])
    sim = Simulation(net)
    log = sim.run(duration=25.0, samples=[25.0])
    assert log["hid"].n_events == 1
    losses = {"hid.time": np.ones(1)}
    for floor, grazing in ((1e-3, 1), (1e-6, 1), (1e-12, 0)):
        gradients = Adjoint(sim.plan, min_slope=floor).replay(log, losses)
        assert gradients.counters["grazing"] == grazing
        bound = max(floor, 1e-9)
        # dt/d(threshold) = 1 / slope
        assert gradients["hid.bias"][0] == pytest.approx(-1 / bound, rel=1e-4)
