"""Brian2's event times tend to those of evsim, and of the oracle, in proportion to its step.

The order is fitted to mean differences of 50 to 150 events, which have a spread of their own: 0.1 is about
three times the standard deviation of the slope over five steps.
"""

import sys

import numpy as np
import pytest
import scipy.sparse

from evsim.brian import (
    crosscheck_continuous,
    crosscheck_continuous_model,
    order_of_convergence,
    run_brian2,
    run_evsim,
    to_brian2,
    to_brian2_continuous,
)
from evsim.continuous_comparison import Convergence, TimedRun, compare_timed
from evsim.errors import LogError, MissingExtraError, NetworkError, StimulusError
from evsim.examples import continuous_example
from evsim.models import EGRU, LIF, DeltaGRU, DeltaLSTM, DeltaReadout, EventSource, LeakyReadout
from evsim.network import Network
from evsim.simulation import Simulation
from evsim.timed_events import TimedEvents
from oracles.continuous import from_network, simulate_fast

MODELS = ["egru", "lif", "delta_gru", "delta_lstm"]
VARIANTS = [(gate, transmit) for gate in ("pre", "post", "none") for transmit in ("value", "unit")]


def columns(events):
    return (events.time, events.unit, events.value) if isinstance(events, TimedEvents) else events


def oracle(net, stimulus, duration, samples=(), initial=None):
    """The exact side by the oracle instead of evsim."""
    given = {name: columns(events) for name, events in stimulus.items()}
    found = simulate_fast(from_network(net), given, duration, samples, initial)
    own = [p for p in net.populations.values() if not isinstance(p, EventSource)]
    events = {}
    for population in own:
        if population.emits:
            time, unit, value = found.of(population.name)
            window = {"n_units": population.n_units, "n_lanes": 1, "start": 0.0, "stop": duration}
            lane = np.zeros(len(time), int)
            events[population.name] = TimedEvents.from_list(time, lane, unit, value, **window)
    states = {p.name: found.state[p.name] for p in own} if len(samples) else {}
    return TimedRun(events, states, np.asarray(samples, float), duration, version="oracle")


# -- order 1 -----------------------------------------------------------------------------------------------


@pytest.mark.peer
@pytest.mark.parametrize("model", MODELS)
def test_order_is_one(brian2, model):
    found = crosscheck_continuous_model(model)
    assert found.ok(0.1), str(found)
    assert 50 <= found.comparisons[0].n_events <= 300
    for comparison in found.comparisons:
        assert comparison.mean_error < 6 * comparison.dt
    states = [comparison.mean_state_error for comparison in found.comparisons]
    assert states[-1] < states[0] / 2


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_the_oracle_is_what_brian2_tends_to(brian2, model):
    net, stimulus = continuous_example(model, seed=1, duration=40.0)
    samples = np.linspace(0, 40, 9)
    exact = oracle(net, stimulus, 40.0, samples)
    found = order_of_convergence(net, stimulus, 40.0, [0.05, 0.025, 0.0125], run=exact)
    assert found.ok(0.25), str(found)
    mine = run_evsim(net, stimulus, 40.0, samples=samples)
    both = compare_timed(exact, mine)
    assert both.n_unmatched == 0
    assert both.max_error < 1e-7
    assert all(p.state_error < 1e-7 and p.value_error < 1e-9 for p in both.populations.values())


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.parametrize(("gate", "transmit"), VARIANTS)
def test_variants_of_egru(brian2, gate, transmit):
    net, stimulus = continuous_example("egru", gate=gate, transmit=transmit, duration=30.0)
    found = order_of_convergence(net, stimulus, 30.0, [0.05, 0.025, 0.0125])
    assert found.ok(0.25), str(found)


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.parametrize("method", ["rk4", "exponential_euler"])
def test_methods(brian2, method):
    net, stimulus = continuous_example("egru", duration=30.0)
    found = order_of_convergence(net, stimulus, 30.0, [0.05, 0.025, 0.0125], method=method)
    assert found.ok(0.25), str(found)


def tangle(first, second, seed, **options):
    """Two populations in a loop, two sources; delays for all and per pair, dense and sparse weights."""
    rng = np.random.default_rng(seed)
    net = Network(dt=None, seed=seed, dtype="float64")
    net.add(EventSource(3, name="cue"))
    net.add(EventSource(2, name="N"))
    for kind, name in ((first, "z"), (second, "a")):
        if kind is EGRU:
            bias = np.repeat([0.5, 0.0, 1.2], 5) + rng.normal(0, 0.2, 15)
            net.add(EGRU(5, name, threshold=0.3, bias=bias, tau_m=8.0, tau_s=6.0, **options))
        elif kind is LIF:
            bias = rng.uniform(1.3, 2.2, 5)
            net.add(LIF(5, name, threshold=0.9, bias=bias, tau_m=10.0, reset=-0.2, refractory=1.3))
        else:
            net.add(kind(5, name, threshold=0.025, bias=rng.normal(0, 0.2, 20), tau=30.0))
    changes = first in (DeltaGRU, DeltaLSTM)
    net.add(DeltaReadout(2, name="answer") if changes else LeakyReadout(2, name="answer", tau=4.0, bias=0.3))
    gains = (2.0, 1.0, 0.5, 0.5) if changes else (0.8, 0.5, 0.3, 0.3)
    for source, gain in zip(("cue", "N", "z", "a"), gains, strict=True):
        for target in ("z", "a"):
            n = net[source].n_units
            port = net[target].default_port(net[source])
            if options.get("gate") == "post" and target == "a":
                port = "recurrent"
            shape = n, 5 * len(net[target].ports[port])
            weight = rng.normal(0, gain, shape)
            delay = rng.choice([0.4, 0.8, 2.0], (n, 5)) if target == "z" else 1.2
            if source in "Nz":
                weight = scipy.sparse.csr_array(np.where(rng.random(shape) < 0.4, weight, 0))
            net.connect(source, target, weight=weight, delay=delay, port=port)
    net.connect("z", "answer")
    net.connect("a", "answer", delay=0.6)
    stimulus = {}
    for name, n in (("cue", 3), ("N", 2)):
        times = np.sort(rng.uniform(0, 30, 20))
        values = rng.choice([1.0, 0.5, -0.7], 20)
        stimulus[name] = times, np.zeros(20, int), rng.integers(0, n, 20), values
    return net, stimulus


@pytest.mark.peer
@pytest.mark.parametrize(
    ("kinds", "seed", "options"),
    [
        ((LIF, LIF), 5, {}),
        ((LIF, EGRU), 6, {"gate": "post"}),
        ((EGRU, EGRU), 8, {"gate": "pre", "transmit": "unit"}),
        ((DeltaGRU, DeltaLSTM), 5, {}),
        ((DeltaLSTM, DeltaGRU), 5, {}),
    ],
    ids=["lif", "lif-egru", "egru", "gru-lstm", "lstm-gru"],
)
def test_loops_with_delays_and_sparse_weights(brian2, kinds, seed, options):
    net, stimulus = tangle(*kinds, seed, **options)
    given = {name: (time, unit, value) for name, (time, _, unit, value) in stimulus.items()}
    exact = oracle(net, given, 30.0, np.linspace(0, 30, 7))
    found = order_of_convergence(net, stimulus, 30.0, [0.04, 0.005], run=exact)
    assert all(p.n_events > 8 for p in found.comparisons[0].populations.values() if p.n_events is not None)
    assert found.ok(0.2), str(found)
    assert found.comparisons[-1].mean_error < 8 * 0.005
    mine = compare_timed(exact, run_evsim(net, stimulus, 30.0, samples=np.linspace(0, 30, 7)))
    assert (mine.n_unmatched, mine.first) == (0, None)
    assert mine.max_error < 1e-7


@pytest.mark.peer
def test_states_at_the_start(brian2):
    """Among them a refractory period that has begun before."""
    net, stimulus = continuous_example("lif", duration=12.0, n_units=4)
    net.add(DeltaGRU(2, "g", bias=0.5, tau=5.0))
    net.add(DeltaLSTM(2, "l", bias=0.5, tau=5.0))
    initial = {
        "hidden_1": {"v": [0.5, 0.2, 0.0, 0.7], "i_e": 0.3, "hold": [0.0, 1.0, 4.0, 0.0]},
        "g": {"h": [0.3, -0.2], "sent": [0.25, -0.2], "m_z": 0.4},
        "l": {"c": [0.3, -0.2], "m_o": 0.4},
        "answer": {"v": -1.0},
    }
    samples = np.linspace(0, 12, 13)
    exact = oracle(net, stimulus, 12.0, samples, initial)
    found = crosscheck_continuous(net, stimulus, 12.0, 0.01, run=exact, initial=initial)
    assert found.n_unmatched == 0
    assert found.max_error < 0.05, str(found)
    for name in ("hidden_1", "g", "l", "answer"):
        np.testing.assert_allclose(found.peer.states[name][0], exact.states[name][0], atol=1e-12)
    assert found.populations["g"].state_error < 1e-3
    mine = run_evsim(net, stimulus, 12.0, samples=samples, initial=initial)
    assert compare_timed(exact, mine).max_error < 1e-7


@pytest.mark.peer
def test_a_network_in_which_nothing_happens(brian2):
    net = Network(dt=None, dtype="float64")
    net.add(EventSource(2, name="cue"))
    net.add(LIF(2, "hidden"))
    net.connect("cue", "hidden")
    net.connect("hidden", "hidden", weight=scipy.sparse.csr_array((2, 2)))
    found = order_of_convergence(net, {}, 5.0, [1.0, 0.5], samples=[0.0, 5.0])
    assert np.isnan(found.order)
    assert not found.ok()
    assert found.comparisons[0].populations["hidden"].state_error == 0


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.parametrize("what", ["hidden_1.threshold", "hidden_1->hidden_1.weight"])
def test_an_error_is_found(brian2, what):
    net, stimulus = continuous_example("lif")
    exact = run_evsim(net, stimulus, 50.0)
    net.parameters()[what].values[...] *= 1.05
    found = order_of_convergence(net, stimulus, 50.0, [0.05, 0.025, 0.0125], run=exact)
    assert not found.ok(0.3), str(found)


# -- payloads ----------------------------------------------------------------------------------------------


@pytest.mark.peer
@pytest.mark.parametrize("dt", [0.5, 0.25, 0.1])
def test_external_payloads_are_all_delivered(brian2, dt):
    """Several in one step, of equal and other values; the readout, almost without leak, sums them up."""
    net = Network(dt=None, dtype="float64")
    net.add(EventSource(2, name="cue"))
    net.add(LeakyReadout(2, name="answer", tau=1e9))
    net.connect("cue", "answer", weight=np.array([[1.0, 10.0], [100.0, 1000.0]]), delay=[[0, 1.0], [2.0, 0]])
    rng = np.random.default_rng(1)
    time, unit = rng.uniform(0, 5, 40), rng.integers(0, 2, 40)
    value = rng.choice([1.0, -2.0, 0.3], 40)
    twin = to_brian2_continuous(net, {"cue": (time, 0 * unit, unit, value)}, 8.0, dt, samples=[8.0])
    found = twin.run().states["answer"]
    total = np.bincount(unit, value)
    np.testing.assert_allclose(found[0], total @ np.array([[1.0, 10.0], [100.0, 1000.0]]), rtol=1e-7)


@pytest.mark.peer
@pytest.mark.parametrize("delay", [6.0, 0.0])
def test_payloads_on_their_way_are_kept_apart(brian2, delay):
    """The sum of all changes sent is ``sent``; a delay is many times as long as the time between events."""
    net, stimulus = continuous_example("delta_gru", n_units=3, duration=20.0)
    net["hidden_1"].parameters["threshold"].assign(np.full(3, 0.01))
    net.add(DeltaReadout(3, name="copy"))
    net.connect("hidden_1", "copy", weight=np.eye(3), delay=[[delay], [delay / 2], [delay / 3]] * np.ones(3))
    window = {"samples": [20.0], "slots": 1}
    if delay:
        with pytest.raises(NetworkError, match=r"events on their way.*give slots=\d"):
            to_brian2_continuous(net, stimulus, 20.0, 0.02, **window).run()
    found = run_brian2(net, stimulus, 20.0, 0.02, **window)
    arrived = np.zeros(3)
    for time, _, unit, value in found.events["hidden_1"]:
        arrived[unit] += value if time + delay / (unit + 1) <= 20.0 else 0.0
    np.testing.assert_allclose(found.states["copy"][0], arrived, atol=1e-12)
    assert len(found.events["hidden_1"]) > 10


@pytest.mark.peer
def test_each_run_starts_afresh(brian2):
    twin = to_brian2_continuous(*continuous_example("egru", duration=10.0), 10.0, 0.1, samples=[5.0])
    first, second = twin.run(), twin.run()
    assert first.events["hidden_1"].equal(second.events["hidden_1"])
    np.testing.assert_array_equal(first.states["answer"], second.states["answer"])


# -- what has no twin; no Brian2 needed --------------------------------------------------------------------


def test_brian2_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "brian2", None)
    with pytest.raises(MissingExtraError, match=r'pip install "evsim\[brian2\]"'):
        to_brian2_continuous(*continuous_example("lif", n_units=2, duration=2.0), 2.0, 0.1)


class Odd(LIF):
    """Not what it is derived from, for all one knows."""


def small(unit=LIF):
    net = Network(dt=None, dtype="float64")
    net.add(EventSource(2, name="cue"))
    net.add(unit(2, name="hidden"))
    net.connect("cue", "hidden")
    return net


@pytest.mark.parametrize(
    ("net", "change", "words"),
    [
        (Network(), {}, "dt = 1.0 ms.*evsim.brian.to_brian2"),
        (Network(dt=None), {}, "no populations"),
        (small(Odd), {}, "population 'hidden'.*Odd"),
        (small(), {"duration": 0.0}, "duration is 0.0"),
        (small(), {"dt": -1.0}, "dt is -1.0"),
        (small(), {"method": "exact"}, "method is 'exact'.*rk4"),
        (small(), {"slots": 0}, "slots is 0"),
        (small(), {"initial": {"cue": {"v": 0}}}, "initial states of 'cue'"),
    ],
)
def test_what_is_refused(net, change, words):
    options = {"duration": 5.0, "dt": 0.1} | change
    with pytest.raises(NetworkError, match=words):
        to_brian2_continuous(net, {}, options.pop("duration"), options.pop("dt"), **options)


def test_a_clocked_twin_of_continuous_time_is_refused():
    with pytest.raises(NetworkError):
        to_brian2(small(), {}, 3)


@pytest.mark.parametrize(
    ("stimulus", "samples", "words"),
    [
        ({"clue": ([], [], [], [])}, None, "no EventSource of that name"),
        ({"cue": ([1.0], [1], [0], [1.0])}, None, "lane 1"),
        ({"cue": ([5.0], [0], [0], [1.0])}, None, "times lie in"),
        ({}, [1.0, 1.0], "increasing times from 0 to 5 ms"),
        ({}, [6.0], "increasing times from 0 to 5 ms"),
        ({}, [[1.0]], "increasing times from 0 to 5 ms"),
    ],
)
def test_a_stimulus_that_does_not_fit_is_refused(stimulus, samples, words):
    with pytest.raises(StimulusError, match=words):
        to_brian2_continuous(small(), stimulus, 5.0, 0.1, samples=samples)


def test_no_such_example():
    with pytest.raises(NetworkError, match="model is 'gru'"):
        continuous_example("gru")


@pytest.mark.parametrize("model", MODELS)
def test_examples_run(model):
    net, stimulus = continuous_example(model, layers=2, density=0.5, delay=1.5, duration=30.0)
    log = Simulation(net).run(stimulus, 30.0)
    assert min(log["hidden_1"].n_events, log["hidden_2"].n_events) > 3


# -- the comparison itself, on runs made by hand -----------------------------------------------------------


def by_hand(time=(1.0, 4.0, 2.0, 6.0), unit=(0, 0, 1, 1), dt=None, **change):
    size = {"n_units": 3, "n_lanes": 1, "start": 0.0, "stop": 11.0}
    events = TimedEvents.from_list(time, np.zeros(len(time), int), unit, np.ones(len(time)), **size)
    states = {"hidden": np.arange(6.0).reshape(2, 3), "answer": np.zeros((2, 1))}
    options = {"samples": np.array([2.0, 5.0]), "duration": 10.0, "dt": dt}
    return TimedRun(**({"events": {"hidden": events}, "states": states} | options | change))


def test_equal_runs():
    found = compare_timed(by_hand(), by_hand(dt=0.5))
    assert (found.n_events, found.n_peer_events, found.n_unmatched) == (4, 4, 0)
    assert found.mean_error == found.max_error == found.mean_state_error == 0
    assert found.first is None
    assert found.populations["answer"].n_events is None


def test_times_are_compared_in_order_by_unit():
    found = compare_timed(by_hand(), by_hand(time=(1.1, 4.2, 2.3, 5.6), dt=0.1))
    np.testing.assert_allclose(np.sort(found.errors), [-0.4, 0.1, 0.2, 0.3])
    assert found.mean_error == pytest.approx(0.25)
    assert found.max_error == pytest.approx(0.4)
    assert found.first is None


@pytest.mark.parametrize(
    ("time", "unit", "unmatched", "first"),
    [
        ([1.0, 4.0, 2.0], [0, 0, 1], 1, (1, 1, 6.0, None)),
        ([1.0, 4.0, 2.0, 6.0, 3.0], [0, 0, 1, 1, 2], 1, (2, 0, None, 3.0)),
        ([1.0, 7.0, 2.0, 6.0], [0, 0, 1, 1], 0, (0, 1, 4.0, 7.0)),
        ([1.0, 4.0, 2.0, 6.0, 9.95], [0, 0, 1, 1, 2], 0, None),
        ([], [], 4, (0, 0, 1.0, None)),
    ],
)
def test_the_first_difference(time, unit, unmatched, first):
    found = compare_timed(by_hand(), by_hand(time=time, unit=unit, dt=0.1))
    assert found.n_unmatched == unmatched
    if first is None:
        assert found.first is None
    else:
        name, one = found.first
        assert (name, one.unit, one.number, one.time, one.peer_time) == ("hidden", *first)
        assert f"event {one.number} of unit {one.unit}" in str(found)


@pytest.mark.parametrize("power", [1.0, 2.0, 0.0])
def test_the_order_is_the_slope(power, tmp_path):
    late = np.array([1.0, 2.0, 3.0, 0.5])
    peers = [by_hand(time=[1, 4, 2, 6] + 0.1 * late * dt**power, dt=dt) for dt in (0.4, 0.2, 0.1)]
    found = Convergence([compare_timed(by_hand(), peer) for peer in peers])
    assert found.order == pytest.approx(power)
    assert found.ok() == (power == 1)
    assert [row["dt_ms"] for row in found.table()] == [0.4, 0.2, 0.1]
    assert f"order {power:.3f}" in str(found).replace("-0.000", "0.000")
    found.draw(tmp_path / "order.png")
    assert (tmp_path / "order.png").read_bytes().startswith(b"\x89PNG")


def test_an_event_without_partner_is_no_convergence():
    peers = [by_hand(time=np.array([1, 4, 2, 6, 5]) + dt, unit=[0, 0, 1, 1, 2], dt=dt) for dt in (0.2, 0.1)]
    found = Convergence([compare_timed(by_hand(), peer) for peer in peers])
    assert found.order == pytest.approx(1)
    assert not found.ok()


def test_runs_of_different_things_are_refused():
    run, peer = by_hand(), by_hand(dt=0.1)
    for change, words in (
        ({"events": {}}, "give the same"),
        ({"states": {}}, "give the same"),
        ({"samples": np.array([2.0])}, "samples or duration"),
        ({"duration": 9.0}, "samples or duration"),
        ({"states": peer.states | {"answer": np.zeros((2, 2))}}, "same samples"),
        ({"events": {"hidden": TimedEvents.empty(4, 1, 0.0, 10.0)}}, "same units"),
    ):
        with pytest.raises(LogError, match=words):
            compare_timed(run, by_hand(dt=0.1, **change))
