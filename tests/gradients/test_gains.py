"""Gains of projections: against the reference with gains, scaled networks, scaled inputs and differences."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evsim import dense_products
from evsim.adjoint import Adjoint
from evsim.errors import GradientError, StimulusError
from evsim.eventlog import EventLog
from evsim.events import Events
from evsim.fixed_point import FixedPoint, quantize
from evsim.log_file import LogFile
from evsim.log_writer import LogWriter
from evsim.models import EGRU, DeltaGRU, DeltaReadout, EventSource, LeakyReadout
from evsim.narrow_weights import narrow
from evsim.network import Network
from evsim.simulation import Simulation
from gradients.cases import (
    LAYERS,
    N_LANES,
    N_STEPS,
    Case,
    before_window,
    check_differences,
    gradient_errors,
    relative_error,
    state_of,
    with_states,
)
from gradients.test_dense_source import (
    ALL_GRADIENTS,
    DenseCase,
    everything,
    features,
    losses_of,
    two_layers,
    with_dense_sources,
)
from gradients.test_replay import state_macs
from oracles import gained
from oracles.random_networks import recipes

CASES = [
    *(Case(units, storage, (1, 3), graph="tangle") for units, storage in product(LAYERS, ("dense", "csr"))),
    *(Case(units, lengths=(N_STEPS, 0, 6), graph="tangle") for units in LAYERS),
    *(DenseCase(units, "dense", (1, 3), graph="tangle") for units in ("evnn", "paper", "lif")),
    DenseCase("evnn", lengths=(N_STEPS, 0, 6), graph="tangle"),
]


@pytest.fixture(autouse=True)
def _with_few_lanes_too(monkeypatch):
    monkeypatch.setattr(dense_products, "FEWEST_LANES", 1)


def run_with_gains(case, seed=6, **options):
    """A warmed-up run, its plan, its stimulus and its gains; events are in flight when it begins."""
    net, rng = case.network(), np.random.default_rng(seed)
    simulation = Simulation(net, threads=2)
    simulation.run(replace(case, lengths=None).stimulus(net, seed=9, n_steps=7))
    gains, stimulus = gained.some_gains(net, N_LANES, rng), case.stimulus(net)
    log = simulation.run(stimulus, carry=True, lengths=case.lengths, gains=gains, **options)
    return log, simulation.plan, stimulus, gains


@pytest.mark.parametrize("case", CASES, ids=str)
def test_events_states_and_gradients_equal_the_reference(case):
    log, plan, stimulus, gains = run_with_gains(case)
    net, alive = plan.network, case.alive()
    run = gained.simulate(net, stimulus, N_STEPS, N_LANES, before_window(log, net), case.lengths, gain=gains)
    for name, population in net.populations.items():
        if population.emits:
            expected = Events.from_dense(run[name]["y"], np.float64)
            np.testing.assert_array_equal(log[name].events.ptr, expected.ptr)
            np.testing.assert_array_equal(log[name].events.unit, expected.unit)
            np.testing.assert_allclose(log[name].events.value, expected.value, rtol=1e-11, atol=1e-13)
    for population in with_states(net):
        expected = run[population.name][state_of(population)]
        assert relative_error(log[population.name].state * alive, expected * alive) < 1e-12
    assert log.counters["macs"] == run.macs
    for name, gain in gains.items():
        np.testing.assert_array_equal(log.gains[name], gain)
        assert log.counters["gains"][name] == np.count_nonzero(gain != 1)

    losses = case.losses(net)
    got = Adjoint(plan, **case.surrogate, threads=2).replay(log, losses, inputs=True, initial=True)
    expected = gained.backpropagate(run, losses, **case.surrogate)
    active = expected.pop("backward_active")
    initial, inputs = expected.pop("initial"), expected.pop("inputs")
    errors = gradient_errors(dict(got), expected) | gradient_errors(got.inputs, inputs)
    for name, states in initial.items():
        for key, gradient in states.items():
            if key == "y":  # the reference may keep a step that nobody hears
                known = got.initial[name].get("y", np.zeros((0, *gradient.shape[1:])))
                gradient = gradient[len(gradient) - len(known) :]
            errors[f"initial {name} {key}"] = relative_error(
                got.initial[name].get(key, gradient[:0]), gradient
            )
    assert max(errors.values()) < 1e-12, {k: e for k, e in errors.items() if not e < 1e-12}
    assert got.counters["macs_weight"] == run.macs
    if "paper" not in case.units and "mixed" not in case.units:
        for name, gain in gains.items():
            assert got.counters["macs_state"][name] == rows_read(run, net.projections[name], gain, active)


def rows_read(run, projection, gain, active):
    """Stored weights of rows that dL/dy asks for: of backward-active units whose gain is not 0."""
    if projection.source.name not in active:
        return 0
    only = {projection.source.name: active[projection.source.name] & (gain != 0)}
    return state_macs(run, only)[0][projection.name]


@pytest.mark.parametrize("case", CASES[::2], ids=str)
def test_event_gradients_are_those_of_changed_inputs(case):
    """Of what sources send, the gradient by event is the dense gradient there; silent gains bring none."""
    log, plan, _, gains = run_with_gains(case)
    got = Adjoint(plan, **case.surrogate).replay(log, case.losses(plan.network), inputs=True, events=True)
    for source in plan.sources:
        sent = log[source.name].events
        if source.sends == "any":
            expected = got.inputs[source.name].reshape(-1, source.n_units)[sent.bucket, sent.unit]
            assert relative_error(got.events[source.name]["value"], expected) < 1e-12
    silent = {name: np.zeros_like(gain) for name, gain in all_gains(plan.network).items()}
    quiet = Simulation(plan).run(case.stimulus(plan.network), gains=silent)
    unheard = Adjoint(plan).replay(quiet, {"answer": np.ones((N_STEPS, N_LANES, 3))}, events=True)
    alone = [p.name for p in plan.populations if p.emits and not any_paper(plan.network, p)]
    assert all(not unheard.events[name]["value"].any() for name in alone)
    assert sum(quiet.counters["macs"][name] for name in silent) == 0
    assert gains


def all_gains(net):
    return gained.some_gains(net, N_LANES, np.random.default_rng(0), share=1.1)


def any_paper(net, population):
    return any(
        p.source is population and p.target.kernel == "egru_paper" and p.port == "recurrent"
        for p in net.projections.values()
    )


@pytest.mark.parametrize("case", [CASES[0], CASES[1], CASES[8], CASES[-1]], ids=str)
def test_one_lane_with_gains_is_a_network_with_scaled_rows(case):
    case = replace(case, lengths=None)
    net, rng = case.network(), np.random.default_rng(1)
    stimulus, losses, gains = case.stimulus(net), case.losses(net), all_gains(net)
    simulation = Simulation(net)
    log = simulation.run(stimulus, gains=gains)
    lane = int(rng.integers(N_LANES))
    scaled = case.network()
    for name, gain in gains.items():
        p = scaled.projections[name]
        rows = np.diff(p.indptr) if p.is_sparse else 1
        factor = np.repeat(gain[lane], rows) if p.is_sparse else gain[lane][:, None]
        p.weight.assign(p.weight.values * factor)
    alone = Simulation(scaled)
    own = alone.run({name: x[:, lane : lane + 1] for name, x in stimulus.items()})
    for population in with_states(net):
        mine = log[population.name].state[:, lane : lane + 1]
        assert relative_error(mine, own[population.name].state) < 1e-12
    only = {key: np.where(np.arange(N_LANES)[:, None] == lane, loss, 0) for key, loss in losses.items()}
    got = Adjoint(simulation.plan, gamma=0.5).replay(log, only)
    by_scaled = Adjoint(alone.plan, gamma=0.5).replay(
        own, {key: loss[:, lane : lane + 1] for key, loss in losses.items()}
    )
    for name, gain in gains.items():
        p = net.projections[name]
        factor = np.repeat(gain[lane], np.diff(p.indptr)) if p.is_sparse else gain[lane][:, None]
        assert relative_error(got[p.weight.name], by_scaled[p.weight.name] * factor) < 1e-11


def stored(net, storage):
    """The network with its weights in another form."""
    return narrow(net, storage) if storage in ("bfloat16", "int8") else net


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("storage", ["dense", "bfloat16", "int8"])
def test_gains_of_a_source_scale_its_stimulus_to_the_last_bit(dtype, dense, storage):
    if storage != "dense" and dtype == "float64":
        return
    net = stored(two_layers(dense, dtype), storage)
    x, rng = features(dtype=dtype), np.random.default_rng(2)
    gain = (rng.normal(1, 0.5, (9, 6)) * (rng.random((9, 6)) < 0.7)).astype(dtype)
    names = [p.name for p in net.projections.values() if p.source.name == "x"]
    simulation = Simulation(net)
    by_gain = simulation.run(x, gains=dict.fromkeys(names, gain), lengths=np.arange(5, 14))
    by_input = simulation.run(x * gain, lengths=np.arange(5, 14))
    alive = np.arange(13)[:, None] < np.arange(5, 14)
    np.testing.assert_array_equal(by_gain["v"].state[alive], by_input["v"].state[alive])
    assert by_gain["h"].events.equal(by_input["h"].events)
    assert by_gain.counters["macs"] == by_input.counters["macs"]
    np.testing.assert_array_equal(by_gain["x"].events.to_dense(), x)
    if storage == "dense":
        losses, adjoint = losses_of(net, 13, 9), Adjoint(simulation.plan)
        one, two = (adjoint.replay(log, losses, inputs=True) for log in (by_gain, by_input))
        for name in one:
            np.testing.assert_array_equal(one[name], two[name])
        tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == "float32" else {"rtol": 1e-12, "atol": 1e-12}
        np.testing.assert_allclose(one.inputs["x"], two.inputs["x"] * gain, **tolerance)
        assert one.counters["macs_weight"] == two.counters["macs_weight"]


@settings(max_examples=50)
@given(recipes(dtypes=("float64",), delays=st.integers(1, 6)), st.integers(1, 99))
def test_random_networks(recipe, seed):
    """Any number of threads, with and without tape, dense sources or not, carried on or in one run."""
    rng, net = np.random.default_rng(seed), recipe.build()
    gains = gained.some_gains(net, recipe.n_lanes, rng)
    lengths = rng.integers(0, recipe.n_steps + 1, recipe.n_lanes)
    stimulus, losses = recipe.stimulus(), recipe.losses()
    found = []
    for threads, dense, options in (
        (1, False, {}),
        (3, False, {"tape": False}),
        (2, False, {}),
        (1, False, {"checkpoint": 2}),
        (2, True, {}),
        (1, True, {"checkpoint": 3}),
    ):
        if dense:
            net = with_dense_sources(net)
        simulation = Simulation(net, threads=threads)
        adjoint = Adjoint(simulation.plan, threads=threads)
        simulation._teams = adjoint._teams = threads == 3
        simulation.run(recipe.stimulus(seed, n_steps=3))
        log = simulation.run(stimulus, carry=True, lengths=lengths, gains=gains, **options)
        gradients = everything(adjoint.replay(log, losses, **ALL_GRADIENTS))
        found.append((log.counters["macs"], gradients))
    for other, (macs, gradients) in enumerate(found[1:], 1):
        assert macs == found[0][0]
        for name, expected in found[0][1].items():
            if other < 3:
                np.testing.assert_array_equal(gradients[name], expected, err_msg=name)
            else:
                scale = 1e-9 * max(1.0, np.abs(expected).max(initial=0))
                np.testing.assert_allclose(gradients[name], expected, rtol=0, atol=scale, err_msg=name)


@pytest.mark.parametrize("dense", [False, True])
def test_a_carried_run_with_the_same_gains_is_the_rest_of_one(dense):
    net, x = two_layers(dense), features()
    gains = gained.some_gains(net, 9, np.random.default_rng(5), share=1.1)
    whole = Simulation(net).run(x, gains=gains)
    simulation = Simulation(net)
    parts = [simulation.run(part, carry=True, gains=gains) for part in (x[:6], x[6:])]
    np.testing.assert_array_equal(np.concatenate([p["v"].state for p in parts]), whole["v"].state)
    without = simulation.run(x[:2], carry=True)
    assert without.gains == {}
    assert "gains" not in without.counters


def test_gains_of_one_change_nothing():
    net, x = two_layers(False, "float32"), features(dtype="float32")
    ones = {name: np.ones((9, p.source.n_units)) for name, p in net.projections.items()}
    simulation = Simulation(net)
    plain, log = simulation.run(x), simulation.run(x, gains=ones)
    assert all(log[name].equal(plain[name]) for name in log)
    assert set(log.counters["gains"].values()) == {0}
    one, two = (Adjoint(simulation.plan).replay(run, losses_of(net, 13, 9)) for run in (plain, log))
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", [CASES[0], CASES[2], CASES[6], CASES[-4]], ids=str)
def test_gradients_are_differences(case):
    """With the events held fixed."""
    case = replace(case, gamma=0.0, lengths=None)
    net = case.network()
    stimulus, gains = case.stimulus(net), all_gains(net)
    losses = {key: loss for key, loss in case.losses(net).items() if not key.endswith(".o")}
    simulation = Simulation(net)

    def loss_and_raster():
        log, total = simulation.run(stimulus, gains=gains), 0.0
        for key, loss in losses.items():
            name, _, kind = key.partition(".")
            total += (loss * (log[name].events.to_dense() if kind == "y" else log[name].state)).sum()
        sent = [log[n].events for n in log if log[n].events is not None]
        return total, np.concatenate([e.ptr for e in sent] + [e.unit for e in sent])

    got = Adjoint(simulation.plan, gamma=0.0).replay(simulation.run(stimulus, gains=gains), losses)
    arrays = {p.weight.name: p.weight.values for p in net.projections.values()}
    check_differences(loss_and_raster, arrays, got, tolerance=2e-6)


def test_the_log_keeps_its_own_gains():
    net, x = two_layers(), features()
    gain = np.full((9, 11), 0.5)
    simulation = Simulation(net)
    log = simulation.run(x, gains={"h->h": gain})
    expected = Adjoint(simulation.plan).replay(log, losses_of(net, 13, 9))
    gain[:] = 3.0
    again = Adjoint(simulation.plan).replay(log, losses_of(net, 13, 9))
    assert all(np.array_equal(again[name], expected[name]) for name in expected)


def test_files_do_not_keep_gains(tmp_path):
    net, x = two_layers(), features()
    simulation = Simulation(net)
    adjoint, losses = Adjoint(simulation.plan), losses_of(net, 13, 9)
    log = simulation.run(x, gains={"h->v": np.full((9, 11), 2.0)})
    log.save(tmp_path / "log.h5")
    loaded = EventLog.open(tmp_path / "log.h5")
    assert loaded.equal(log)
    with LogWriter(tmp_path / "run.h5") as writer:
        simulation.reset()
        writer.append(simulation.run(x[:7]))
        writer.append(simulation.run(x[7:], carry=True, gains={"h->v": np.full((9, 11), 2.0)}))
    with LogFile(tmp_path / "run.h5") as file:
        for kept in (loaded, file, file.steps(0, 7), file.steps(0, 13)):
            with pytest.raises(GradientError, match="gains of projections, which files do not keep"):
                adjoint.replay(kept, lambda window: losses)
    simulation.run(x, gains={"h->v": np.ones((9, 11))}).save(tmp_path / "ones.h5")
    adjoint.replay(EventLog.open(tmp_path / "ones.h5"), losses)


@pytest.mark.parametrize(
    ("gains", "message"),
    [
        (3, "give a mapping"),
        ({"h->x": np.ones((9, 11))}, r"gains of 'h->x': no such projection; give gains of some of \["),
        ({"h->h": np.ones(11)}, r"gains of 'h->h': shape \(11,\).* give floats of shape \(9, 11\)"),
        ({"h->h": np.ones((8, 11))}, r"give floats of shape \(9, 11\): lanes, units of the source"),
        ({"h->h": "much"}, "gains of 'h->h'"),
        ({"h->h": [[1.0], [2.0, 3.0]]}, "not an array of numbers"),
        ({"h->h": np.where(np.arange(11) == 4, np.nan, np.ones((9, 11)))}, "nan of lane 0, unit 4"),
        ({"h->h": np.full((9, 11), 1e300)}, "inf of lane 0, unit 0"),
    ],
)
def test_refused(gains, message):
    simulation = Simulation(two_layers(dtype="float32"))
    before = simulation.run(features()[:3])["v"].state[-1]
    with pytest.raises(StimulusError, match=message):
        simulation.run(features(), carry=True, gains=gains)
    assert simulation.time_step == 3
    assert np.isfinite(before).all()


def test_recurrent_events_of_the_papers_form_are_refused():
    net = Network(dt=1.0)
    net.add(EventSource(2, "x"))
    net.add(EGRU(3, "h", form="paper"))
    net.add(LeakyReadout(1, "v", tau=2.0))
    for source, target in (("x", "h"), ("h", "h"), ("h", "v")):
        net.connect(source, target)
    simulation = Simulation(net)
    with pytest.raises(StimulusError, match=r"gains of 'h->h': in the paper's form.*form='evnn'"):
        simulation.run(np.ones((4, 2, 2)), gains={"h->h": np.ones((2, 3))})
    simulation.run(np.ones((4, 2, 2)), gains={"h->v": np.ones((2, 3)), "x->h": np.ones((2, 2))})


def test_fixed_point_takes_events_or_leaves_them():
    net = Network(dt=1.0, seed=0)
    net.add(EventSource(3, "lines", threshold=0.0))
    net.add(DeltaGRU(4, "hidden", threshold=0.1))
    net.add(DeltaReadout(2, "answer"))
    for source, target in (("lines", "hidden"), ("hidden", "hidden"), ("hidden", "answer")):
        net.connect(source, target)
    simulation = Simulation(quantize(net, FixedPoint(weights="Q2.6")))
    stimulus = np.random.default_rng(0).normal(size=(5, 2, 3))
    log = simulation.run(stimulus, gains={"lines->hidden": np.array([[0, 0, 0], [1, 1, 1]])})
    plain = simulation.run(stimulus)
    np.testing.assert_array_equal(log["answer"].state[:, 1], plain["answer"].state[:, 1])
    assert log.counters["macs"]["lines->hidden"] < plain.counters["macs"]["lines->hidden"]
    with pytest.raises(StimulusError, match="give gains 0 and 1"):
        simulation.run(stimulus, gains={"lines->hidden": np.full((2, 3), 0.5)})
