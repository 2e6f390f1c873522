"""Scripts run by Brian2, and by evsim through `from_brian2`: the same events, to first order in dt."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import ks_2samp

import evsim
from evsim import Network
from evsim.brian import from_brian2
from evsim.brian.connections import _in_flight
from evsim.brian.statements import statements
from evsim.continuous_comparison import Convergence, TimedRun, compare_timed
from evsim.errors import LogError, MissingExtraError, NetworkError, StimulusError
from evsim.timed_events import TimedEvents
from oracles import brian_scripts


@pytest.fixture(autouse=True)
def numpy_target(request):
    """No compilation, and no objects of other tests in Brian2's way."""
    if "brian2" in request.fixturenames:
        b2 = request.getfixturevalue("brian2")
        before = b2.prefs.codegen.target
        b2.prefs.codegen.target = "numpy"
        b2.BrianLogger.suppress_hierarchy("brian2")
        yield
        b2.prefs.codegen.target = before
    else:
        yield


def run_brian2(b2, network, values, duration, dt):
    """Events of a Brian2 network by group, each at the end of its step."""
    groups = [one for one in network.objects if type(one) is b2.NeuronGroup]
    monitors = {group.name: b2.SpikeMonitor(group) for group in groups}
    network.add(*monitors.values())
    network.run(duration * b2.ms, namespace=values)
    events = {}
    for name, monitor in monitors.items():
        when, unit = np.asarray(monitor.t / b2.ms) + dt, np.asarray(monitor.i, int)
        window = {"n_units": len(network[name]), "n_lanes": 1, "start": 0.0, "stop": duration + dt}
        every = TimedEvents.from_list(when, 0 * unit, unit, 0 * when + 1, **window)
        events[name] = every.window(0.0, duration)
    return TimedRun(events, {}, np.zeros(0), duration, dt=dt)


def run_evsim(imported, duration):
    log = imported.run(duration)
    events = {name: log[name].events for name in imported.neurons if log[name].events is not None}
    return TimedRun(events, {}, np.zeros(0), duration)


def convergence(b2, script, duration, dts):
    network, values = script(b2, dts[0])
    exact = run_evsim(from_brian2(network, namespace=values), duration)
    return Convergence([compare_timed(exact, run_brian2(b2, *script(b2, dt), duration, dt)) for dt in dts])


@pytest.mark.peer
@pytest.mark.parametrize("name", brian_scripts.DETERMINED)
def test_event_times_converge_with_order_one(brian2, name):
    script, duration = brian_scripts.DETERMINED[name]
    found = convergence(brian2, script, duration, [0.2, 0.1, 0.05, 0.025, 0.0125])
    assert found.comparisons[0].n_events > 12
    assert found.comparisons[-1].n_unmatched == 0, str(found)
    assert found.ok(0.1), str(found)


@pytest.mark.peer
def test_the_beginning_of_cuba(brian2):
    """Later it is chaotic."""
    found = convergence(brian2, brian_scripts.cuba, 10.0, [0.02, 0.01, 0.005])
    assert found.comparisons[0].n_events > 20
    assert found.ok(0.1), str(found)


@pytest.mark.peer
@pytest.mark.slow
def test_cuba(brian2):
    """4,000 units, 1 s, dt 0.01 ms: rates within 1 %, intervals by Kolmogorov and Smirnov.

    The rate of one run is itself uncertain by 1.2 %, so that it takes the mean over eight initial states.
    The intervals of one run are not independent of each other: D may be twice what chance makes of others.
    """
    brian2.prefs.codegen.target = "cython"
    network, values = brian_scripts.cuba(brian2, 0.01, units=4000)
    network.add(brian2.SpikeMonitor(network["P"], name="spikes"))
    network.store()
    rates, intervals = ([], []), ([], [])
    for seed in range(24):
        network.restore()
        network["P"].v = np.random.default_rng(seed).uniform(-60, -50, 4000) * brian2.mV
        imported = from_brian2(network, namespace=values)
        imported.run(1000.0)
        sides = [imported.spikes("P")]
        if seed < 8:
            network.run(1 * brian2.second, namespace=values)
            sides.append((np.asarray(network["spikes"].i), network["spikes"].t))
        for side, (unit, when) in enumerate(sides):
            order = np.lexsort((when, unit))
            between = np.diff(np.asarray(when / brian2.ms)[order])[np.diff(unit[order]) == 0]
            rates[side].append(len(unit) / 4000)
            intervals[side].append(between)
    assert np.mean(rates[1]) == pytest.approx(np.mean(rates[0]), rel=0.01)
    own, other = (np.concatenate(side) for side in intervals)
    assert min(len(own), len(other)) > 100_000
    chance = 1.63 * np.sqrt(1 / len(own) + 1 / len(other))  # exceeded by chance in 1 % of independent samples
    assert ks_2samp(own, other).statistic < 2 * chance


@pytest.mark.peer
def test_poisson_inputs_have_the_same_statistics(brian2):
    """Coincident inputs fire more often than independent ones of the same rate."""
    brian2.seed(5)
    network, values = brian_scripts.coincidences(brian2, 0.2)
    imported = from_brian2(network, namespace=values, seed=4)
    own = run_evsim(imported, 1000.0).events["group"]
    peer = run_brian2(brian2, network, values, 1000.0, 0.2).events["group"]
    rates = [
        [np.count_nonzero((e.unit >= low) & (e.unit < low + 20)) / 20 for low in (0, 20)] for e in (own, peer)
    ]
    for mine, theirs in zip(*rates, strict=True):  # independent units, more regular than Poisson processes
        assert mine == pytest.approx(theirs, abs=4 * np.sqrt((mine + theirs) / 20))
    assert rates[0][1] > 1.5 * rates[0][0] > 0


# -- what an imported network is ---------------------------------------------------------------------------


@pytest.mark.peer
def test_cuba_is_understood(brian2):
    network, values = brian_scripts.cuba(brian2, 0.1, units=100)
    imported = from_brian2(network, namespace=values)
    lif = imported.network["P"]
    assert {name: float(p.values.flat[0]) for name, p in lif.parameters.items()} == {
        "bias": -49,
        "threshold": -50,
        "tau_m": 20,
        "tau_e": 5,
        "tau_i": 10,
    }
    assert (lif.reset, lif.refractory) == (-60, 5)
    projections = imported.network.projections
    assert {name: p.port for name, p in projections.items()} == {"Ce": "excitatory", "Ci": "inhibitory"}
    for name, code in (("Ce", 1.62), ("Ci", -9.0)):
        synapses, weights = network[name], projections[name].to_dense()
        expected = np.zeros((100, 100))
        expected[np.asarray(synapses.variables["_synaptic_pre"].get_value()), synapses.j[:]] = code
        np.testing.assert_allclose(weights, expected, rtol=1e-15)
    np.testing.assert_array_equal(imported.initial["P"]["v"][0], np.asarray(network["P"].v) * 1e3)
    assert imported.names == {"P": ["P"], "Ce": ["Ce"], "Ci": ["Ci"]}
    assert imported.units["P"] == 1 * brian2.mV
    assert repr(imported).startswith("Imported(Network(P:LIF(100); 2 projections;")
    text = str(imported)
    for words in ("in units of 1. mV", "(ge+gi-(v-El))/taum: tau_m 20 ms, bias -49", "reset 'v = Vr': -60"):
        assert words in text
    assert "'gi += wi'" in text


@pytest.mark.peer
def test_results_are_in_units_of_brian2(brian2):
    network, values = brian_scripts.if_curve(brian2, 0.1)
    group = network["group"]
    imported = from_brian2(network, namespace=values)
    with pytest.raises(LogError, match=r"call run\(\) first"):
        imported.spikes("group")
    imported.run(50 * brian2.ms)
    with pytest.raises(LogError, match="give samples="):
        imported.samples("group")
    imported.run(50 * brian2.ms, samples=[0, 1, 40] * brian2.ms)
    v = imported.samples(group)
    assert v.shape == (60, 3)
    exact = np.linspace(0, 20, 60) * (1 - np.exp(-0.1)) * brian2.mV
    np.testing.assert_allclose(np.asarray(v[:, 1]), np.asarray(exact), atol=1e-15)
    i, t = imported.spikes(group)
    assert len(i) == len(t) == imported.log["group"].n_events > 50
    period = 5 * brian2.ms + 10 * brian2.ms * np.log(2)
    np.testing.assert_allclose(np.diff(t[i == 59] / brian2.ms), period / brian2.ms, atol=1e-9)
    part, when = imported.spikes(group[50:])
    np.testing.assert_array_equal(part, i[i >= 50] - 50)
    np.testing.assert_array_equal(when, t[i >= 50])
    with pytest.raises(StimulusError, match=r"duration: is 3\. mV"):
        imported.run(3 * brian2.mV)


@pytest.mark.peer
def test_objects_may_be_listed_or_seen(brian2):
    """As `run` sees them: by the frame of the caller, and its names."""
    tau, v_th = 10 * brian2.ms, 0.5
    group = brian2.NeuronGroup(2, "dv/dt = (1 - v)/tau : 1", threshold="v > v_th", reset="v = 0", name="seen")
    monitor = brian2.SpikeMonitor(group)

    def inner():
        return evsim.from_brian2(level=1)

    found = [evsim.from_brian2(), inner(), evsim.from_brian2([group, monitor])]
    assert [one.network["seen"].parameters["tau_m"].values[0] for one in found] == [10.0] * 3
    assert [list(one.names) for one in found] == [["seen"]] * 3
    for objects in (group, 3):
        with pytest.raises(NetworkError, match=r"give a brian2.Network, or a list"):
            from_brian2(objects)
    with pytest.raises(NetworkError, match="no NeuronGroup"):
        from_brian2([monitor])
    del tau, v_th


@pytest.mark.peer
def test_what_time_it_is(brian2):
    """That at which Brian2 would go on, whatever other networks have made of the default clock."""
    ms, tau = brian2.ms, 10 * brian2.ms
    options = {"threshold": "v > 0.5", "reset": "v = 0", "refractory": 3 * ms}
    equations = "dv/dt = (1 - v)/tau : 1 (unless refractory)"
    first, second, third = (brian2.NeuronGroup(1, equations, name=name, **options) for name in "abc")
    network = brian2.Network(first)
    network.run(7 * ms)  # it sends after 6.93 ms
    assert from_brian2(network).start == pytest.approx(7.0)
    assert 2.8 < from_brian2(network).initial["a"]["hold"].item() < 3.0
    assert from_brian2([second]).start == 0.0
    with pytest.raises(NetworkError, match="give that Network"):
        from_brian2([first])
    del first, network
    brian2.run(8 * ms)
    imported = from_brian2()
    assert (list(imported.names), imported.start) == (["b", "c"], pytest.approx(8.0))
    assert imported.initial["b"]["hold"].item() == pytest.approx(1.9)
    assert from_brian2([second, third]).start == pytest.approx(8.0)
    del tau


@pytest.mark.peer
def test_units_of_any_size(brian2):
    """Thresholds must be well above resets in evsim's unit, so it is chosen for that."""
    volt = brian2.volt
    values = {"tau": 10 * brian2.ms, "top": 3e-9 * volt, "drive": 6e-9 * volt}
    equations = "dv/dt = (drive - v)/tau : volt"
    group = brian2.NeuronGroup(1, equations, threshold="v > top", reset="v = 0*volt", name="small")
    imported = from_brian2([group], namespace=values)
    assert float(imported.units["small"]) == 1e-9
    imported.run(10.0)
    np.testing.assert_allclose(imported.spikes("small")[1] / brian2.ms, [10 * np.log(2)], rtol=1e-12)


@pytest.mark.peer
def test_without_a_threshold(brian2):
    """Example simple_case, and a membrane with a current: nothing is sent, states are exact."""
    ms = brian2.ms
    values = {"tau": 10 * ms, "tau_s": 4 * ms}
    plain = brian2.NeuronGroup(3, "dv/dt = (1 - v)/tau : 1", method="exact", name="plain")
    plain.v = [0.0, 0.5, 2.0]
    equations = "dv/dt = (g - v)/tau : 1\ndg/dt = -g/tau_s : 1"
    filtered = brian2.NeuronGroup(1, equations, method="exact", name="filtered")
    given = brian2.SpikeGeneratorGroup(1, [0], [2] * ms, name="given")
    to_plain = brian2.Synapses(given, plain, on_pre="v += 3", name="to_plain")
    to_plain.connect(j="1")
    to_filtered = brian2.Synapses(given, filtered, on_pre="g += 5", name="to_filtered")
    to_filtered.connect()
    imported = from_brian2([plain, filtered, given, to_plain, to_filtered], namespace=values)
    imported.run(10.0, samples=[1.0, 7.0])
    v = np.array([0.0, 0.5, 2.0])[:, None]
    exact = 1 + (v - 1) * np.exp(-np.array([0.1, 0.7]))
    exact[1, 1] += 3 * np.exp(-0.5)
    np.testing.assert_allclose(np.asarray(imported.samples("plain")), exact, rtol=1e-12)
    alpha = 5 * 0.1 / (0.25 - 0.1) * (np.exp(-0.5) - np.exp(-1.25))
    np.testing.assert_allclose(np.asarray(imported.samples("filtered")), [[0.0, alpha]], rtol=1e-12)
    with pytest.raises(LogError, match="sends no events"):
        imported.spikes("plain")
    assert len(imported.spikes("filtered")[0]) == 0


@pytest.mark.peer
@pytest.mark.parametrize("script", ["chain", "leaky_current", "integrated_form", "first_tutorial"])
def test_the_present_moment(brian2, script):
    """Brian2 runs first, evsim goes on with its currents, refractory periods and events on their way."""
    make, _ = brian_scripts.DETERMINED[script]
    first, then, dt = 6.3, 15.0, 0.02
    network, values = make(brian2, dt)
    network.run(first * brian2.ms, namespace=values)
    imported = from_brian2(network, namespace=values)
    assert imported.start == pytest.approx(first)
    if script == "chain":
        assert "onward_slow_in_flight->P_inhibitory" in imported.names["onward"]
        assert "events on their way" in str(imported)
        assert (imported.initial["P"]["hold"] > 0).sum() > 3
    own = run_evsim(imported, then)
    group = next(iter(imported.neurons))
    assert (imported.spikes(group)[1] >= first * brian2.ms).all()
    monitors = {name: brian2.SpikeMonitor(network[name]) for name in imported.neurons}
    network.add(*monitors.values())
    network.run(then * brian2.ms, namespace=values)
    for name, monitor in monitors.items():
        unit, when = np.asarray(monitor.i, int), np.asarray(monitor.t / brian2.ms) - first + dt
        window = {"n_units": len(network[name]), "n_lanes": 1, "start": 0.0, "stop": then + dt}
        peer = TimedEvents.from_list(when, 0 * unit, unit, 0 * when + 1, **window).window(0.0, then)
        runs = TimedRun({name: own.events[name]}, {}, np.zeros(0), then)
        found = compare_timed(runs, TimedRun({name: peer}, {}, np.zeros(0), then, dt=dt))
        assert found.n_unmatched == 0, str(found)
        assert (np.abs(found.errors) < 10 * dt).all(), str(found)
    assert sum(len(e) for e in own.events.values()) > 2


@pytest.mark.peer
@pytest.mark.parametrize("by_threshold", [True, False])
def test_both_queues_of_brian2(brian2, by_threshold):
    """The one in C++ and the one in Python: which synapses, and how long until they act."""
    from brian2.synapses import cythonspikequeue, spikequeue

    sources, delays = np.array([0, 0, 1, 2], np.int32), np.array([3.0, 0.0, 1.0, 4.0])
    for module in (cythonspikequeue, spikequeue):
        queue = module.SpikeQueue(0, 3)
        pathway = SimpleNamespace(queue=queue, source=SimpleNamespace(clock=SimpleNamespace(dt_=5e-4)))
        assert [len(part) for part in _in_flight(pathway, by_threshold)] == [0, 0]
        queue.prepare(delays * 5e-4, 5e-4, sources)
        queue.push(np.array([0, 2], np.int32))
        queue.advance()
        queue.push(np.array([1], np.int32))
        index, left = _in_flight(pathway, by_threshold)
        found = sorted(zip(index.tolist(), left.tolist(), strict=True))
        late = 0.5 * by_threshold
        assert found == [(0, 1.0 + late), (2, 0.5 + late), (3, 1.5 + late)]


@pytest.mark.peer
def test_poisson_groups(brian2):
    ms, Hz = brian2.ms, brian2.Hz
    rates = np.array([0.0, 100.0, 1000.0])
    array = brian2.PoissonGroup(3, rates * Hz, name="array")
    text = brian2.PoissonGroup(3, "500*Hz*i/k", name="text")
    equations = "dv/dt = (g - v)/(10*ms) : 1\ndg/dt = -g/(2*ms) : 1"
    group = brian2.NeuronGroup(3, equations, threshold="v > 100", reset="v = 0", name="group")
    synapses = brian2.Synapses(array[1:], group, on_pre="g += 0.5", name="synapses")
    synapses.connect(j="i")
    imported = from_brian2([array, text, group, synapses], namespace={"k": 2}, seed=3)
    found = imported.stimulus(20 * brian2.second)
    for name, expected in (("array", rates), ("text", [0.0, 250.0, 500.0])):
        counts = np.bincount(found[name].unit, minlength=3)
        np.testing.assert_allclose(counts, 20 * np.array(expected), atol=4 * np.sqrt(20 * 1000))
        assert counts[0] == 0
    assert found["array"].equal(imported.stimulus(20000.0)["array"])
    assert not found["array"].equal(imported.stimulus(20000.0, seed=4)["array"])
    np.testing.assert_array_equal(
        imported.network.projections["synapses"].to_dense(), [[0, 0, 0], [0.5, 0, 0], [0, 0.5, 0]]
    )
    log = imported.run(2000.0, samples=np.linspace(500, 2000, 400))
    mean = log["group"].state[:, 0].mean(axis=0)  # rate times weight times the integral of the current, 2 ms
    np.testing.assert_allclose(mean, [0.1, 1.0, 0.0], rtol=0.25)
    del ms


@pytest.mark.peer
def test_generators(brian2):
    """Those of a period come again, and what lies before the present has been."""
    ms = brian2.ms
    group = brian2.NeuronGroup(1, "dv/dt = -v/(10*ms) : 1", threshold="v > 1", reset="v = 0", name="group")
    once = brian2.SpikeGeneratorGroup(2, [0, 1, 0], [1, 4, 7] * ms, name="once")
    again = brian2.SpikeGeneratorGroup(1, [0, 0], [0, 1.5] * ms, period=3 * ms, name="again")
    network = brian2.Network(group, once, again)
    for now, times in ((0.0, [1, 4, 7]), (5.0, [2])):
        found = from_brian2(network).stimulus(9.0)
        assert found["once"].time.tolist() == times
        expected = np.sort(np.r_[np.arange(6) * 3.0, np.arange(6) * 3.0 + 1.5])
        expected = expected[(expected >= now) & (expected < now + 9)] - now
        np.testing.assert_allclose(found["again"].time, expected, atol=1e-12)
        network.run(5 * ms)


@pytest.mark.peer
def test_an_imported_network_is_like_any_other(brian2, tmp_path):
    network, values = brian_scripts.cuba(brian2, 0.1, units=100)
    imported = from_brian2(network, namespace=values)
    assert isinstance(imported.network, Network)
    log = imported.run(20.0)
    again = evsim.Simulation(imported.network).run({}, 20.0, initial=imported.initial, tape=False)
    assert again["P"].events.equal(log["P"].events)
    log.save(tmp_path / "run.h5")
    assert evsim.EventLog.open(tmp_path / "run.h5")["P"].events.equal(log["P"].events)


def test_brian2_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "brian2", None)
    with pytest.raises(MissingExtraError, match=r'pip install "evsim\[brian2\]"'):
        from_brian2()


# -- statements, no Brian2 needed --------------------------------------------------------------------------


def test_statements():
    code = """
        v = v_r  # back
        ge += w*mV; gi -= 2*(a+b)
        u *= 3
    """
    found = [(one.text, one.variable, one.operator, one.value) for one in statements(code, "here")]
    assert found == [
        ("v = v_r", "v", "=", "v_r"),
        ("ge += w * mV", "ge", "+=", "w * mV"),
        ("gi -= 2 * (a + b)", "gi", "-=", "2 * (a + b)"),
        ("u *= 3", "u", "*=", "3"),
    ]
    assert statements("", "here") == []


@pytest.mark.parametrize(
    ("code", "words"), [("v +", "cannot be read"), ("f(x)", "no assignment"), ("v, w = 1", "no")]
)
def test_no_statements(code, words):
    with pytest.raises(NetworkError, match=f"here: .*{words}"):
        statements(code, "here")
