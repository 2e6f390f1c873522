"""The pieces of a cross-check that need no Brian2: subjects, planted errors, comparisons, predicted steps."""

import numpy as np
import pytest
import scipy.stats

from evsim.brian.plant import Plant
from evsim.brian.prediction import predict
from evsim.brian.subject import Subject, find_subject, protocols_with_subjects, random_stimulus
from evsim.errors import NetworkError, ParameterError, ProtocolError
from evsim.examples import continuous_example, egru_example
from evsim.interval_comparison import compare_statistics, intervals, spread
from evsim.models import LIF, EventSource
from evsim.network import Network
from evsim.simulation import Simulation
from evsim.state_comparison import first_state, state_errors
from evsim.timed_events import TimedEvents

# -- subjects ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["credit", "cuba", "delayed_copy", "yin_yang", "yin_yang:egru"])
def test_protocols_run(name):
    subject = find_subject(name, seed=2)
    assert subject.network.dtype == np.float64
    assert subject.name == name
    again = find_subject(name, seed=2)
    for mine, other in zip(
        subject.network.parameters().values(), again.network.parameters().values(), strict=True
    ):
        np.testing.assert_array_equal(mine.values, other.values)
    if name != "cuba":
        log = Simulation(subject.network).run(subject.stimulus, subject.duration)
        assert log.duration == subject.duration


def test_which_protocols_can_be_compared():
    found = protocols_with_subjects()
    assert set(found) == {
        "character_model",
        "credit",
        "cuba",
        "delayed_copy",
        "keyword_spotting",
        "language_model",
        "yin_yang",
    }


@pytest.mark.parametrize(
    ("what", "options", "words"),
    [
        ("incremental_learning", {}, "protocol 'incremental_learning': defines no subject.*cuba.*yin_yang"),
        ("nothing", {}, "subject 'nothing': there is none.*egru.*FILE.py:NAME"),
        ("yin_yang:gru", {}, "no variant 'gru'.*lif.*egru"),
        ("credit", {"layers": 2}, "has no 'layers' to be 2.*'units'"),
        ("none.py:net", {}, "no such file"),
        ("mine.py", {}, "mine.py:NAME"),
        ("mine.py:nothing", {}, "no 'nothing' in the file.*net"),
        ("mine.py:number", {}, "is of type int"),
        ("mine.py:net", {"layers": 2}, "takes no 'layers'"),
        ("mine.py:later", {}, "duration is -1.0"),
    ],
)
def test_what_cannot_be_found(tmp_path, monkeypatch, what, options, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "from evsim.network import Network\nnet, number = Network(), 3\n"
        "def later(): return Network(), {}, -1.0\n"
    )
    with pytest.raises(ProtocolError, match=words):
        find_subject(what, **options)


def test_things_in_a_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import evsim.examples\n"
        "from evsim.brian.subject import Subject\n"
        "net, given = evsim.examples.continuous_example('lif', n_units=3, duration=5.0)\n"
        "whole = Subject('x', net, given, 4.0)\n"
        "def made(seed, units=2):\n"
        "    net, given = evsim.examples.egru_example(n_units=units, n_steps=7, seed=seed)\n"
        "    return net, given, 7.0\n"
    )
    assert find_subject(f"{path}:whole").duration == 4.0
    found = find_subject(f"{path}:made", seed=5, units=4)
    assert (found.network["hidden_1"].n_units, found.network.seed, found.n_steps) == (4, 5, 7)
    alone = find_subject(f"{path}:net", seed=1, duration=30.0)
    assert (alone.duration, len(alone.stimulus["cue"]) > 0) == (30.0, True)
    other = find_subject(f"{path}:net", seed=2, duration=30.0)
    assert not alone.stimulus["cue"].equal(other.stimulus["cue"])


def test_fixed_point_is_refused(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import evsim, evsim.examples\nfrom evsim.narrow_weights import narrow\n"
        "net = narrow(evsim.examples.egru_example(n_units=3)[0].copy('float32'), 'int8')\n"
    )
    with pytest.raises(NetworkError, match=r"int8 weights.*compare the one it was made from"):
        find_subject(f"{path}:net")


def test_random_lines_and_changes():
    net = Network(dtype="float64")
    net.add(EventSource(3, "lines", threshold=0.1))
    walk = random_stimulus(net, 200.0)["lines"]
    assert walk.shape == (200, 3)
    assert np.abs(np.diff(walk, axis=0)).std() < 0.5 < walk.std()


# -- planted errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("density", [1.0, 0.5])
def test_one_number_changes(density):
    network, _ = egru_example(n_units=4, n_inputs=3, density=density)
    projection = network.projections["cue->hidden_1"]
    row, column = (int(i[0]) for i in np.nonzero(projection.to_dense()))
    changed = Plant.parse(f" cue->hidden_1.weight[{row}, {column}]-1e-3 ").into(network)
    difference = changed.projections["cue->hidden_1"].to_dense() - projection.to_dense()
    assert [*zip(*np.nonzero(difference), strict=True)] == [(row, column)]
    assert difference[row, column] == pytest.approx(-1e-3)
    before = network["hidden_1"].parameters["threshold"].values
    after = (
        Plant.parse("hidden_1.threshold[2]+0.001").into(network)["hidden_1"].parameters["threshold"].values
    )
    assert np.flatnonzero(before != after).tolist() == [2]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hidden_1.threshold", "not of the form"),
        ("hidden_1.threshold[2]", "not of the form"),
        ("hidden_1.threshold[2]+x", "not of the form"),
        ("hidden_1.threshold[2]+0", "not of the form"),
        ("hidden_1.threshold[9]+1e-3", r"no such index in shape \(4,\)"),
        ("hidden_1.threshold[1,1]+1e-3", "no such index"),
        ("hidden_2.threshold[1]+1e-3", "no parameter 'hidden_2.threshold'.*hidden_1.bias"),
        ("hidden_1.threshold[1]+10", "outside"),
        ("cue->hidden_1.weight[9,0]+1", "no weight from unit 9 to column 0"),
    ],
)
def test_errors_that_cannot_be_planted(text, words):
    network, _ = egru_example(n_units=4, n_inputs=3, density=0.5)
    with pytest.raises(ParameterError, match=words):
        Plant.parse(text).into(network)


# -- comparisons -------------------------------------------------------------------------------------------


def test_intervals_of_each_unit():
    time, unit = np.array([1.0, 2.0, 4.0, 8.0, 16.0]), np.array([0, 1, 0, 1, 0])
    assert sorted(intervals(time, unit)) == [3.0, 6.0, 12.0]
    none = np.zeros(0), np.zeros(0, int)
    found = compare_statistics((time, unit), none, 2, 1000.0)
    assert found.rates == (2.5, 0.0)
    assert found.rate_difference == -1.0
    assert found.n_intervals == (3, 0)
    assert np.isnan(found.p_value)
    one = compare_statistics((time, unit), (time[:3], unit[:3]), 2, 1000.0)
    assert (one.n_intervals, 0 < one.p_value <= 1) == ((3, 1), True)
    assert compare_statistics(none, none, 2, 1000.0).rate_difference == 0.0


def test_the_test_of_kolmogorov_and_smirnov():
    """Its distance by hand: the largest difference of the shares of intervals up to x."""
    rng = np.random.default_rng(0)
    first, second = (np.cumsum(rng.gamma(2.0, scale, 300)) for scale in (5.0, 6.0))
    zeros = np.zeros(300, int)
    found = compare_statistics((first, zeros), (second, zeros), 1, 1e4)
    a, b = np.sort(np.diff(first)), np.sort(np.diff(second))
    both = np.concatenate([a, b])
    share = [np.searchsorted(x, both, side="right") / len(x) for x in (a, b)]
    assert found.distance == pytest.approx(np.abs(share[0] - share[1]).max())
    assert found.p_value == pytest.approx(scipy.stats.ks_2samp(a, b, method="exact").pvalue)


def test_one_run_among_many():
    rng = np.random.default_rng(2)

    def run(scale):
        return np.cumsum(rng.gamma(2.0, scale, 400)), np.zeros(400, int)

    runs = [run(5.0) for _ in range(19)]
    like, other = spread(runs, run(5.0)), spread(runs, run(9.0))
    assert like.share > 0.05
    assert other.share == 1 / 20
    assert other.peer_distance > max(other.distances)
    assert like.rate_difference == 0.0
    apart = scipy.stats.ks_2samp(
        np.diff(runs[3][0]), np.concatenate([np.diff(r[0]) for r in runs[:3] + runs[4:]])
    )
    assert like.distances[3] == pytest.approx(apart.statistic)
    none = np.zeros(0), np.zeros(0, int)
    assert spread(runs, none).peer_distance == 1.0


def test_errors_of_states():
    mine, theirs = np.zeros((3, 2)), np.array([[0.0, 0.0], [0.0, 3.0], [4.0, 0.0]])
    found = state_errors(mine, theirs, np.array([0.0, 0.5, 1.0]))
    assert (found.largest, found.unit, found.time) == (4.0, 0, 1.0)
    assert found.rms == pytest.approx(np.sqrt(25 / 6))
    assert found.mean == pytest.approx(7 / 6)
    assert state_errors(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0)) is None


def test_the_first_state_that_differs():
    mine = {"a": np.zeros((4, 3)), "b": np.zeros((4, 3))}
    theirs = {name: x.copy() for name, x in mine.items()}
    times = np.arange(4) * 0.5
    assert first_state(mine, theirs, times, 0.0) is None
    theirs["b"][2] = 0.0, 1e-6, 1e-3
    theirs["a"][2, 1] = 1.0
    found = first_state(mine, theirs, times, 1e-9, ["b", "a"])
    assert (found.population, found.unit, found.index, found.time) == ("b", 2, 2, 1.0)
    theirs["a"][1, 0] = np.nan
    assert first_state(mine, theirs, times, 1e-9, ["b", "a"]).unit == 0
    assert "'a', unit 0, at 0.5 ms" in str(first_state(mine, theirs, times, 1e-9))


# -- predicted steps ---------------------------------------------------------------------------------------


def stepped(network, dt, n_steps, arriving):
    """LIF units as a simulator that steps has them, by closed forms; ``arriving``: (step, unit, weight)."""
    unit = network["hidden"]
    values = {name: p.values for name, p in unit.parameters.items()}
    tau_m, tau_e = values["tau_m"][0], values["tau_e"][0]
    v, i_e = np.full((n_steps + 1, unit.n_units), unit.reset), np.zeros((n_steps + 1, unit.n_units))
    held, sent = np.zeros(unit.n_units, int), []
    for k in range(n_steps):
        ratio = tau_e / (tau_e - tau_m)
        to_v = ratio * (np.exp(-dt / tau_e) - np.exp(-dt / tau_m))
        rise = values["bias"] * -np.expm1(-dt / tau_m)
        moved = v[k] * np.exp(-dt / tau_m) + rise + i_e[k] * to_v
        v[k + 1] = np.where(held > 0, v[k], moved)
        i_e[k + 1] = i_e[k] * np.exp(-dt / tau_e)
        fires = v[k + 1] >= values["threshold"]
        for step, target, weight in arriving:
            i_e[k + 1, target] += weight * (step == k)
        v[k + 1, fires] = unit.reset
        held = np.maximum(held - 1, 0)
        held[fires] = round(unit.refractory / dt)
        sent += [((k + 1) * dt, int(u)) for u in np.flatnonzero(fires)]
    states = {"hidden": {"v": v, "i_e": i_e, "i_i": np.zeros_like(v)}}
    window = {"n_units": unit.n_units, "n_lanes": 1, "start": 0.0, "stop": (n_steps + 2) * dt}
    time, who = (np.array(x) for x in zip(*sent, strict=True))
    return states, {"hidden": TimedEvents.from_list(time, 0 * who, who, np.ones(len(who)), **window)}


def lif_network(**changes):
    network = Network(dt=None, dtype="float64")
    network.add(EventSource(2, "cue"))
    options = {"threshold": 1.0, "bias": [1.5, 1.2, 1.8], "tau_m": 10.0, "tau_e": 5.0, "refractory": 1.0}
    network.add(LIF(3, "hidden", **(options | changes)))
    network.connect("cue", "hidden", weight=[[0.5, 0.6, 0.7], [0.1, 0.2, 0.3]], delay=0.5)
    return network


def cue(dt):
    """One event of each unit, in the middle of steps 20 and 40; they arrive half a millisecond later."""
    time = (np.array([20, 40]) + 0.5) * dt
    columns = time, np.zeros(2, int), np.array([0, 1]), np.array([1.0, 2.0])
    return {"cue": TimedEvents.from_list(*columns, n_units=2, n_lanes=1, start=0.0, stop=30.0)}


ARRIVING = [(25, 0, 0.5), (25, 1, 0.6), (25, 2, 0.7), (45, 0, 0.2), (45, 1, 0.4), (45, 2, 0.6)]


def test_steps_that_are_right():
    states, events = stepped(lif_network(), 0.1, 300, ARRIVING)
    found = predict(lif_network(), states, events, cue(0.1), 0.1)
    assert found.ok, found.first
    assert found.largest < 1e-13
    assert found.n_events == len(events["hidden"]) > 5
    assert found.n_predicted == 900


@pytest.mark.parametrize("size", [1e-3, -1e-3, 1e-7])
def test_a_wrong_weight_is_seen_when_its_event_arrives(size):
    wrong = [(k, u, w + size * ((k, u) == (45, 1))) for k, u, w in ARRIVING]
    states, events = stepped(lif_network(), 0.1, 300, wrong)
    found = predict(lif_network(), states, events, cue(0.1), 0.1)
    assert (found.first.unit, found.first.step, found.first.state) == (1, 45, "i_e")
    assert found.first.difference == pytest.approx(size)
    assert found.first.time == pytest.approx(4.6)


@pytest.mark.parametrize(
    ("changes", "state", "units"),
    [
        ({"threshold": [1.0, 1.0, 1.02]}, "event", {2}),
        ({"threshold": [1.0, 0.98, 1.0]}, "event", {1}),
        ({"bias": [1.5, 1.2, 1.801]}, "v", {2}),
        ({"tau_m": 10.01}, "v", {0, 1, 2}),
        ({"refractory": 1.2}, "v", {0, 1, 2}),
    ],
)
def test_wrong_parameters(changes, state, units):
    states, events = stepped(lif_network(**changes), 0.1, 300, ARRIVING)
    found = predict(lif_network(), states, events, cue(0.1), 0.1)
    assert not found.ok
    assert found.first.state == state
    assert {one.unit for one in found.findings} == units
    assert "'hidden', unit" in str(found.first)


def test_states_that_are_no_numbers_are_far():
    states, events = stepped(lif_network(), 0.1, 150, [])
    states["hidden"]["v"][-1, 1] = np.nan
    found = predict(lif_network(), states, events, {"cue": TimedEvents.empty(2, 1, 0.0, 30.0)}, 0.1)
    assert not found.ok
    assert found.first.unit == 1


def test_timed_stimuli_of_a_subject():
    network, given = continuous_example("lif", n_units=2, duration=5.0)
    columns = given["cue"].time, given["cue"].lane, given["cue"].unit, given["cue"].value
    timed = Subject("x", network, {"cue": columns}, 5.0).timed()
    assert timed["cue"].equal(given["cue"])
    assert len(Subject("x", network, {}, 5.0).timed()["cue"]) == 0
