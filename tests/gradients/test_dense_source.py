"""Dense sources: matrix products in the place of their events, against the reference and against events."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evsim import dense_products
from evsim.adjoint import Adjoint
from evsim.errors import NetworkError
from evsim.eventlog import EventLog
from evsim.log_file import LogFile
from evsim.log_writer import LogWriter
from evsim.models import EGRU, LIF, DeltaGRU, DeltaReadout, EventSource, LeakyReadout
from evsim.narrow_weights import narrow
from evsim.network import Network
from evsim.reference import backpropagate
from evsim.simulation import Simulation
from gradients.cases import N_LANES, N_STEPS, Case, gradient_errors, relative_error, state_of, with_states
from gradients.test_replay import run_both
from oracles.random_networks import recipes

TANGLES = ("evnn", "paper", "mixed", "lif", "lif+evnn", "evnn+lif")


@dataclass(frozen=True)
class DenseCase(Case):
    """A case whose sources are dense."""

    def network(self) -> Network:
        """The network of the case."""
        return with_dense_sources(super().network())


CASES = [
    *(DenseCase(units, graph="tangle", delays=(1, 3)) for units in TANGLES),
    *(DenseCase(units, graph="tangle", lengths=(N_STEPS, 0, 6)) for units in TANGLES),
    DenseCase("evnn", "csr", graph="tangle"),
    DenseCase("gru+lstm", graph="tangle"),
]


def with_dense_sources(net: Network) -> Network:
    """The same network, its sources dense where they can be."""
    for population in net.populations.values():
        if isinstance(population, EventSource) and population.sends == "any":
            population.dense = True
    return net


@pytest.fixture(autouse=True)
def _with_few_lanes_too(monkeypatch):
    monkeypatch.setattr(dense_products, "FEWEST_LANES", 1)


def features(n_lanes=9, n_units=6, dtype="float64", n_steps=13, seed=0):
    """Values of all units in all steps, but a few zeros."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_steps, n_lanes, n_units))
    return (x * (rng.random(x.shape) < 0.9)).astype(dtype)


def two_layers(dense=True, dtype="float64", source=6, delays=(0, 2)):
    """A source into both ports of an EGRU population and into LIF units, and a readout of all."""
    net = Network(dt=1.0, seed=3, dtype=dtype)
    net.add(EventSource(source, "x", dense=dense))
    net.add(EGRU(11, "h", threshold=0.1, bias=lambda rng, shape: rng.normal(0.2, 0.5, shape)))
    net.add(LIF(5, "spikes", threshold=0.4))
    net.add(LeakyReadout(3, "v", tau=4.0))
    net.connect("x", "h", delay=delays[0])
    net.connect("x", "h", delay=delays[1], port="recurrent", name="again")
    net.connect("h", "h")
    net.connect("x", "spikes", delay=delays[1])
    net.connect("h", "spikes", port="inhibitory")
    for name in ("x", "h", "spikes"):
        net.connect(name, "v", delay=1.0)
    return net


def losses_of(net, n_steps, n_lanes, seed=4):
    rng = np.random.default_rng(seed)
    keys = [(n, k, p.n_units) for n, p in net.populations.items() for k in p.losses]
    shape = n_steps, n_lanes
    return {f"{n}.{k}".rstrip("."): rng.normal(size=(*shape, units)) for n, k, units in keys}


def everything(gradients):
    """All that a replay gives, by path."""
    return {
        **gradients,
        **{f"inputs/{name}": g for name, g in gradients.inputs.items()},
        **{f"initial/{name}/{key}": g for name, by in gradients.initial.items() for key, g in by.items()},
        **{f"events/{name}": by["value"] for name, by in gradients.events.items()},
    }


ALL_GRADIENTS = {"inputs": True, "initial": True, "events": True}


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("drive_bytes", [16 << 20, 1], ids=("whole", "by step"))
def test_events_states_and_gradients_equal_the_reference(case, drive_bytes, monkeypatch):
    monkeypatch.setattr(dense_products, "DRIVE_BYTES", drive_bytes)
    log, run, plan = run_both(case)
    assert bool(plan.dense) == (case.storage == "dense" and not case.is_delta)
    alive = case.alive()
    for name, population in run.network.populations.items():
        if population.emits:
            assert relative_error(log[name].events.to_dense() * alive, run[name]["y"] * alive) < 1e-12
    for population in with_states(run.network):
        expected = run[population.name][state_of(population)]
        assert relative_error(log[population.name].state * alive, expected * alive) < 1e-12
    assert log.counters["macs"] == run.macs

    losses = case.losses(run.network)
    got = Adjoint(plan, **case.surrogate, threads=2).replay(log, losses, inputs=True)
    expected = backpropagate(run, losses, **case.surrogate)
    inputs = expected.pop("inputs")
    del expected["backward_active"], expected["initial"]
    errors = gradient_errors(dict(got), expected) | gradient_errors(got.inputs, inputs)
    assert max(errors.values()) < 1e-12, errors
    assert got.counters["macs_weight"] == run.macs


@settings(max_examples=60)
@given(recipes(dtypes=("float64",), delays=st.integers(1, 6)), st.integers(1, 50), st.integers(1, 1 << 12))
def test_as_with_events_to_rounding(recipe, seed, drive_bytes):
    kept = dense_products.DRIVE_BYTES
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, recipe.n_steps + 1, recipe.n_lanes)
    found = []
    try:
        dense_products.DRIVE_BYTES = drive_bytes
        for change in (lambda net: net, with_dense_sources):
            simulation = Simulation(change(recipe.build()))
            simulation.run(recipe.stimulus(seed, n_steps=4))
            log = simulation.run(recipe.stimulus(), carry=True, lengths=lengths)
            found.append((log, Adjoint(simulation.plan).replay(log, recipe.losses(), **ALL_GRADIENTS)))
    finally:
        dense_products.DRIVE_BYTES = kept
    (events, by_events), (dense, by_dense) = found
    alive = np.arange(recipe.n_steps)[:, None] < lengths
    for name in events:
        if events[name].events is not None:
            mine, theirs = dense[name].events.to_dense(), events[name].events.to_dense()
            np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-11)
        if events[name].tape is not None:
            states = dense[name].state[alive], events[name].state[alive]
            np.testing.assert_allclose(*states, rtol=1e-9, atol=1e-11)
    for counter in ("macs", "events", "dense_macs"):
        assert dense.counters[counter] == events.counters[counter]
    for counter in ("macs_weight", "macs_state"):
        assert by_dense.counters[counter] == by_events.counters[counter]
    mine, theirs = everything(by_dense), everything(by_events)
    assert mine.keys() == theirs.keys()
    for name in mine:
        scale = 1e-9 * max(1.0, np.abs(theirs[name]).max(initial=0))
        np.testing.assert_allclose(mine[name], theirs[name], rtol=0, atol=scale, err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_window_does_not_matter_to_the_last_bit(dtype, monkeypatch):
    x = features(dtype=dtype)
    whole = Simulation(two_layers(dtype=dtype)).run(x)
    monkeypatch.setattr(dense_products, "DRIVE_BYTES", 4000)
    simulation = Simulation(two_layers(dtype=dtype))
    first, last = simulation.run(x[:5]), simulation.run(x[5:], carry=True)
    stepped = Simulation(two_layers(dtype=dtype))
    for step, values in enumerate(x):
        outcome = stepped.step(values)
        np.testing.assert_array_equal(outcome["v"], whole["v"].state[step])
    for name in ("h", "spikes"):
        both = first[name].events.then(last[name].events)
        assert both.equal(whole[name].events)
    states = np.concatenate([first["v"].state, last["v"].state])
    np.testing.assert_array_equal(states, whole["v"].state)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lengths", [None, (13, 0, 5, 13, 1, 12, 7, 3, 2)])
def test_a_log_without_tape_replays_to_the_same_gradient(dtype, lengths, tmp_path, monkeypatch):
    x, net = features(dtype=dtype), two_layers(dtype=dtype)
    simulation = Simulation(net)
    adjoint, losses = Adjoint(simulation.plan), losses_of(net, 13, 9)
    with_tape = adjoint.replay(simulation.run(x, lengths=lengths), losses)
    monkeypatch.setattr(dense_products, "DRIVE_BYTES", 4000)
    without = adjoint.replay(simulation.run(x, lengths=lengths, tape=False), losses)
    pieces = adjoint.replay(simulation.run(x, lengths=lengths, checkpoint=3), losses)
    assert without.counters["macs_rerun"] == simulation.run(x, lengths=lengths).counters["macs"]
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == "float32" else {"rtol": 1e-11, "atol": 1e-11}
    for name in with_tape:
        np.testing.assert_array_equal(without[name], with_tape[name])
        np.testing.assert_allclose(pieces[name], with_tape[name], **tolerance)
    if lengths is None:
        with LogWriter(tmp_path / "run.h5") as writer:
            simulation.reset()
            for part in (x[:4], x[4:9], x[9:]):
                writer.append(simulation.run(part, carry=True, tape=False))
        with LogFile(tmp_path / "run.h5") as file:
            from_file = adjoint.replay(file, losses)
        for name in with_tape:
            np.testing.assert_allclose(from_file[name], with_tape[name], **tolerance)


@pytest.mark.parametrize("n_lanes", [1, 9])
def test_threads_do_not_matter(n_lanes):
    net = two_layers(dtype="float32")
    x, losses = features(n_lanes, dtype="float32"), losses_of(net, 13, n_lanes)
    found = []
    for threads in (1, 2, 3):
        for teams in (False, True):
            simulation = Simulation(net, threads=threads)
            adjoint = Adjoint(simulation.plan, threads=threads)
            simulation._teams = adjoint._teams = teams
            log = simulation.run(x)
            found.append(everything(adjoint.replay(log, losses, **ALL_GRADIENTS)) | {"v": log["v"].state})
    for other in found[1:]:
        for name, gradient in found[0].items():
            np.testing.assert_array_equal(other[name], gradient)


def test_what_lies_behind_the_end_of_a_lane_does_not_matter():
    net, lengths = two_layers(), np.array([13, 0, 5, 13, 1, 12, 7, 3, 2])
    x, losses = features(), losses_of(net, 13, 9)
    behind = np.arange(13)[:, None] >= lengths
    other = np.where(behind[:, :, None], 7.0, x)
    simulation = Simulation(net)
    logs = [simulation.run(given, lengths=lengths) for given in (x, other)]
    one, two = (Adjoint(simulation.plan).replay(log, losses) for log in logs)
    assert logs[0].counters["macs"] == logs[1].counters["macs"]
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-12, atol=1e-13)


def test_few_lanes_take_events(monkeypatch):
    """Forwards; then a dense source is the same as any other to the last bit."""
    monkeypatch.undo()
    for n_lanes, same in ((dense_products.FEWEST_LANES - 1, True), (dense_products.FEWEST_LANES, False)):
        x = features(n_lanes, 60, "float32")
        one, two = (
            Simulation(two_layers(dense, "float32", source=60)).run(x)["v"].state for dense in (False, True)
        )
        assert np.array_equal(one, two) == same
        np.testing.assert_allclose(one[:2], two[:2], rtol=0, atol=1e-5)


def test_tokens_and_lists_and_no_events_at_all():
    tokens = np.array([[0, 3, -1], [5, -1, 2]])
    events = ([0, 1, 1], [0, 2, 1], [3, 5, 0], [0.5, -1.0, 2.0])
    for stimulus, duration in ((tokens, None), (events, 2.0), (np.zeros((2, 3, 6)), None)):
        one, two = (Simulation(two_layers(dense)).run(stimulus, duration) for dense in (False, True))
        np.testing.assert_allclose(two["h"].state, one["h"].state, rtol=1e-13)
        assert one.counters["macs"] == two.counters["macs"]
    none = Simulation(two_layers()).run(np.zeros((0, 3, 6)))
    assert none.n_steps == 0


def test_which_projections_are_made_ahead():
    net = two_layers()
    net.connect("x", "h", density=0.5, delay=1.0, name="sparse")
    plan = Simulation(net).plan
    names = sorted(plan.projections[j].name for j in plan.dense)
    assert names == ["again", "x->h", "x->spikes", "x->v"]
    assert "(x->h, made ahead for many steps)" in plan.schedule
    assert "(sparse)" in plan.schedule
    assert not Simulation(narrow(two_layers(dtype="float32"), "bfloat16")).plan.dense
    held = Network(1.0, dtype="float32")
    held.add(EventSource(2, "x", dense=True))
    held.add(DeltaGRU(3, "h", 0.1))
    held.add(DeltaReadout(2, "v"))
    held.connect("x", "h")
    held.connect("h", "v")
    assert not Simulation(held).plan.dense


def test_narrow_weights_of_a_dense_source():
    nets = [narrow(two_layers(dense, "float32"), "int8") for dense in (False, True)]
    one, two = (Simulation(net).run(features(dtype="float32")) for net in nets)
    np.testing.assert_array_equal(one["v"].state, two["v"].state)


def test_descriptions_say_so():
    assert EventSource(3, "x", dense=True).describe()["dense"] is True
    assert "dense" not in EventSource(3, "x").describe()
    assert two_layers().copy()["x"].dense


def test_a_log_is_kept_and_read_again(tmp_path):
    log = Simulation(two_layers()).run(features())
    log.save(tmp_path / "log.h5")
    assert EventLog.open(tmp_path / "log.h5").equal(log)
    assert len(log["x"].events) == np.count_nonzero(features())


def test_refused():
    with pytest.raises(NetworkError, match="threshold"):
        EventSource(3, "x", threshold=0.1, dense=True)
    with pytest.raises(NetworkError, match="True or False"):
        EventSource(3, "x", dense=0.5)
    with pytest.raises(NetworkError, match=r"dense=True is for steps only.*leave out dense"):
        Network(dt=None).add(EventSource(3, "x", dense=True))


@pytest.mark.parametrize("case", [replace(CASES[0], gamma=0.0), replace(CASES[3], gamma=0.0)], ids=str)
def test_input_gradients_are_differences(case):
    """Of a run with its events held fixed, by moving a few values of the stimulus."""
    net = case.network()
    stimulus, losses = case.stimulus(net), case.losses(net)
    losses = {key: loss for key, loss in losses.items() if not key.endswith(".o")}

    def loss_and_events():
        log = Simulation(net).run(stimulus)
        total = 0.0
        for key, loss in losses.items():
            name, _, kind = key.partition(".")
            total += (loss * (log[name].events.to_dense() if kind == "y" else log[name].state)).sum()
        return total, np.concatenate([log[n].events.unit for n in log if log[n].events is not None])

    simulation = Simulation(net)
    got = Adjoint(simulation.plan, gamma=0.0).replay(simulation.run(stimulus), losses, inputs=True)
    values, tried = stimulus["cue"].reshape(-1), 0
    rng = np.random.default_rng(3)
    for i in rng.permutation(np.flatnonzero(values))[:25]:
        kept, found = values[i], []
        for change in (1e-5, -1e-5):
            values[i] = kept + change
            found.append(loss_and_events())
        values[i] = kept
        if np.array_equal(found[0][1], found[1][1]):
            tried += 1
            numeric = (found[0][0] - found[1][0]) / 2e-5
            assert got.inputs["cue"].reshape(-1)[i] == pytest.approx(numeric, rel=1e-5, abs=1e-6)
    assert tried >= 15
    assert N_LANES == 3
