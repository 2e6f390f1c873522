"""What must not change a result: threads, order of description and of events, lanes, windows, tapes."""

import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import evsim.log
import evsim.plan
import evsim.recorded
from evsim.adjoint import Adjoint
from evsim.errors import NetworkError, StimulusError
from evsim.eventlog import EventLog
from evsim.events import Events
from evsim.models import EGRU, EventSource, LeakyReadout
from evsim.network import Network
from evsim.simulation import Simulation
from oracles.gained import some_gains
from oracles.random_networks import Layer, Link, Recipe, bits, facts, long_delays, recipes

UNITS = ("EGRU", "LIF", "DeltaGRU", "DeltaLSTM")
SURROGATE = {"pseudo_derivative": "triangle", "gamma": 0.7, "eps": 2.0}


def run(recipe: Recipe, stimulus=None, threads: int = 1, net=None, **options):
    """A simulation of a fresh network and the log of its first run."""
    simulation = Simulation(recipe.build() if net is None else net, threads=threads)
    return simulation, simulation.run(recipe.stimulus() if stimulus is None else stimulus, **options)


def replay(simulation, log, losses, threads: int = 1, **options):
    return Adjoint(simulation.plan, threads=threads, **SURROGATE).replay(log, losses, **options)


def assert_close(got, expected, tolerance: float):
    """Within ``tolerance`` of the largest expected value."""
    for name in expected:
        scale = max(float(np.abs(expected[name]).max(initial=0)), 1e-300)
        assert np.abs(got[name] - expected[name]).max(initial=0) <= tolerance * scale, name


def of_lane(arrays: dict, lane: int, stop: int | None = None) -> dict:
    return {name: np.ascontiguousarray(array[:stop, lane : lane + 1]) for name, array in arrays.items()}


def test_the_random_networks_are_not_silent():
    """Otherwise all that follows would say nothing."""
    counts = []

    @given(recipes())
    @settings(max_examples=40, database=None)
    def count(recipe):
        _, log = run(recipe)
        counts.append([log[name].n_events for name in log if log[name].kind in UNITS])

    count()
    assert sum(max(one) > 0 for one in counts) > len(counts) * 0.6


# -- threads -----------------------------------------------------------------------------------------------


@given(recipes())
@settings(max_examples=20)
def test_threads(recipe):
    (one, log1), (two, log2) = run(recipe, threads=1), run(recipe, threads=2)
    assert facts(log1) == facts(log2)
    assert log1.counters == log2.counters
    losses = recipe.losses()
    first = replay(one, log1, losses, threads=1, inputs=True, initial=True)
    second = replay(two, log2, losses, threads=2, inputs=True, initial=True)
    assert bits(first) == bits(second)
    assert bits(first.inputs) == bits(second.inputs)
    assert first.counters == second.counters


@given(recipes(max_lanes=40, max_steps=6), st.booleans(), st.booleans(), st.randoms(use_true_random=False))
@settings(max_examples=20)
def test_lanes_that_are_run_side_by_side(recipe, gained, equal, random):
    """Up to 32 in one thread; with a thread for each lane it runs alone.  Of any lengths, and carried on."""
    rng, logs = np.random.default_rng(random.getrandbits(32)), []
    gains = some_gains(recipe.build(), recipe.n_lanes, rng) if gained else None
    lengths = None if equal else rng.integers(0, recipe.n_steps + 1, recipe.n_lanes)
    options = {"gains": gains, "lengths": lengths, "checkpoint": 2}
    for threads in (1, recipe.n_lanes):
        simulation, first = run(recipe, threads=threads, **options)
        logs.append((first, simulation.run(recipe.stimulus(3), carry=True, **options)))
    for one, alone in zip(*logs, strict=True):
        assert facts(one) == facts(alone)
        assert one.counters == alone.counters
        for name in one:
            assert evsim.log.same(one[name].checkpoints, alone[name].checkpoints), name


@given(recipes(max_lanes=20, max_steps=6), st.booleans(), st.randoms(use_true_random=False))
@settings(max_examples=20)
def test_lanes_that_are_replayed_side_by_side(recipe, gained, random):
    """Up to eight in one thread; with a thread for each lane it is walked back alone.  Of any lengths."""
    rng, net = np.random.default_rng(random.getrandbits(32)), recipe.build()
    gains = some_gains(net, recipe.n_lanes, rng) if gained else None
    lengths = rng.integers(0, recipe.n_steps + 1, recipe.n_lanes)
    simulation, log = run(recipe, net=net, gains=gains, lengths=lengths)
    one, alone = (
        replay(simulation, log, recipe.losses(), threads, inputs=True, initial=True, events=True)
        for threads in (1, recipe.n_lanes)
    )
    assert bits(one) == bits(alone)
    assert bits(one.inputs) == bits(alone.inputs)
    for part in ("initial", "events"):
        for name, arrays in getattr(one, part).items():
            assert bits(arrays) == bits(getattr(alone, part)[name]), (part, name)
    assert one.counters == alone.counters


@given(recipes(max_lanes=1), st.integers(2, 3))
@settings(max_examples=10)
def test_a_team_of_threads_that_shares_a_lane(recipe, size):
    with patch.object(evsim.plan, "HEAVY", 0):  # any recurrent projection is large enough
        (one, log1), (team, log2) = run(recipe, threads=1), run(recipe, threads=size)
    assert facts(log1) == facts(log2)
    assert log1.counters == log2.counters
    losses = recipe.losses()
    first = replay(one, log1, losses, threads=1)
    second = replay(team, log2, losses, threads=size)
    assert bits(first) == bits(second)
    assert first.counters == second.counters


def test_a_team_and_projections_to_two_ports():
    """Their columns, shared out differently, meet in the same accumulators."""
    layers = (Layer("cue", "source", 40), Layer("one", "evnn", 512), Layer("two", "evnn", 512))
    ends = (("cue", "one", 0), ("one", "one", 1), ("one", "two", 0), ("two", "one", 1))
    links = tuple(Link(*end, index=index) for index, end in enumerate(ends))
    recipe = Recipe(layers, links, n_steps=60, n_lanes=1, dtype="float32")
    with patch.object(evsim.plan, "HEAVY", 0):
        one, expected = run(recipe, threads=1)
        gradients = bits(replay(one, expected, recipe.losses(), threads=1))
        for _ in range(4):
            team, log = run(recipe, threads=2)
            assert facts(log) == facts(expected)
            assert bits(replay(team, log, recipe.losses(), threads=2)) == gradients


def test_a_team_smaller_than_asked_for():
    """OpenMP may start fewer threads than it was asked for."""
    code = """
import numpy as np, evsim, evsim.plan
from evsim.models import EGRU, EventSource
evsim.plan.HEAVY = 0
net = evsim.Network(seed=0)
net.add(EventSource(40, "cue"))
net.add(EGRU(100, "hidden", threshold=0.05))
net.connect("cue", "hidden")
net.connect("hidden", "hidden")
x = np.random.default_rng(0).normal(size=(20, 1, 40)).astype("float32")
found = []
for threads in (1, 4):
    sim = evsim.Simulation(net, threads=threads)
    log = sim.run(x)
    gradients = evsim.Adjoint(sim.plan, threads=threads).replay(log, {"hidden.y": np.ones((20, 1, 100))})
    found.append([log["hidden"].tape.tobytes(), *(gradients[name].tobytes() for name in gradients)])
assert log["hidden"].n_events > 100
assert found[0] == found[1]
"""
    environment = os.environ | {"OMP_THREAD_LIMIT": "2"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)


# -- checkpoints -------------------------------------------------------------------------------------------


def assert_same_replay(pieces, whole, dtype):
    """Sums over pieces are taken in another order; which units were active, and all counts, are the same."""
    tolerance = 1e-12 if dtype == np.float64 else 1e-4
    assert_close(pieces, whole, tolerance)
    assert_close(pieces.inputs, whole.inputs, tolerance)
    for name in whole.initial:
        assert_close(pieces.initial[name], whole.initial[name], tolerance)
    for key in ("backward_active", "macs_state", "macs_weight"):
        assert pieces.counters[key] == whole.counters[key]


@given(recipes(), st.integers(1, 20))
@settings(max_examples=30)
def test_checkpoints_change_no_gradient(recipe, every):
    (one, log1), (two, log2) = run(recipe), run(recipe, checkpoint=every)
    assert all(log2[name].tape is None for name in log2 if log2[name].events is not None)
    losses = recipe.losses()
    whole = replay(one, log1, losses, inputs=True, initial=True)
    pieces = replay(two, log2, losses, inputs=True, initial=True)
    assert_same_replay(pieces, whole, one.plan.dtype)
    if max(one.plan.history) == 0 or every >= log1.n_steps:  # nothing is run twice again
        assert pieces.counters["macs_rerun"] == log1.counters["macs"]
    assert not any(whole.counters["macs_rerun"].values())


@pytest.mark.parametrize("every", [0, -3, 2.5, "all"])
def test_checkpoints_are_a_number_of_steps(every):
    with pytest.raises(StimulusError, match="give a number of steps, at least 1"):
        Simulation(one_source()).run(np.zeros((3, 1, 1)), checkpoint=every)


def one_source():
    net = Network()
    net.add(EventSource(1, "cue"))
    return net


@given(recipes(), st.integers(1, 2000))
@settings(max_examples=30)
def test_long_replays_go_piece_by_piece(recipe, piece_bytes):
    one, log = run(recipe)
    losses = recipe.losses()
    whole = replay(one, log, losses, inputs=True, initial=True)
    with patch.object(evsim.recorded, "PIECE_BYTES", piece_bytes):
        pieces = replay(one, log, losses, inputs=True, initial=True)
    assert_same_replay(pieces, whole, one.plan.dtype)


# -- order -------------------------------------------------------------------------------------------------


@given(recipes(), st.data())
@settings(max_examples=30)
def test_order_of_description(recipe, data):
    layers = data.draw(st.permutations(recipe.layers))
    links = data.draw(st.permutations(recipe.links))
    (one, log1), (two, log2) = run(recipe), run(recipe, net=recipe.build(layers, links))
    for name, parameter in one.plan.network.parameters().items():
        np.testing.assert_array_equal(two.plan.network.parameters()[name].values, parameter.values)
    assert one.schedule == two.schedule
    assert facts(log1) == facts(log2)
    assert log1.counters == log2.counters
    assert bits(replay(one, log1, recipe.losses())) == bits(replay(two, log2, recipe.losses()))


@given(recipes(), st.data())
@settings(max_examples=30)
def test_order_of_event_rows(recipe, data):
    stimulus = recipe.stimulus()
    shuffled = {}
    for name, dense in stimulus.items():
        step, lane, unit = np.nonzero(dense)
        rows = np.random.default_rng(data.draw(st.integers(0, 1000))).permutation(len(step))
        columns = (step * recipe.dt, lane, unit, dense[step, lane, unit])
        shuffled[name] = tuple(column[rows] for column in columns)
    _, expected = run(recipe, stimulus)
    # Only the lanes that got an event are known from a list of events; lengths= says how many there are.
    lengths = [recipe.n_steps] * recipe.n_lanes
    _, log = run(recipe, shuffled, duration=recipe.n_steps * recipe.dt, lengths=lengths)
    assert facts(log) == facts(expected)


@given(recipes())
@settings(max_examples=25)
def test_a_loss_may_be_given_in_any_order(recipe):
    simulation, log = run(recipe)
    losses = recipe.losses()
    backwards = dict(reversed(losses.items()))
    assert bits(replay(simulation, log, losses)) == bits(replay(simulation, log, backwards))


# -- lanes -------------------------------------------------------------------------------------------------


@given(recipes())
@settings(max_examples=30)
def test_lanes_do_not_see_each_other(recipe):
    stimulus, losses = recipe.stimulus(), recipe.losses()
    together, log = run(recipe, threads=2)
    total = replay(together, log, losses, threads=2, inputs=True)
    alone = {}
    for lane in range(recipe.n_lanes):
        one, log_of_lane = run(recipe, of_lane(stimulus, lane))
        assert facts(log_of_lane) == facts(log, lane=lane)
        gradients = replay(one, log_of_lane, of_lane(losses, lane), inputs=True)
        for name, array in gradients.inputs.items():
            np.testing.assert_allclose(
                array[:, 0],
                total.inputs[name][:, lane],
                rtol=1e-4,
                atol=1e-5 if recipe.dtype == "float32" else 1e-12,
            )
        for name, array in gradients.items():
            alone[name] = alone.get(name, 0) + array.astype(np.float64)
    assert_close(total, alone, 1e-12 if recipe.dtype == "float64" else 1e-5)


@given(recipes(), st.data())
@settings(max_examples=25)
def test_shorter_lanes_are_shorter_runs(recipe, data):
    lengths = data.draw(
        st.lists(st.integers(0, recipe.n_steps), min_size=recipe.n_lanes, max_size=recipe.n_lanes)
    )
    stimulus, losses = recipe.stimulus(), recipe.losses()
    together, log = run(recipe, lengths=lengths)
    total = replay(together, log, losses)  # what is given behind the end of a lane means nothing
    later = recipe.stimulus(seed=5, n_steps=4)
    after = together.run(later, carry=True)
    alone = {name: np.zeros_like(array, np.float64) for name, array in total.items()}
    units_and_readouts = [name for name in log if log[name].kind != "EventSource"]
    assert log.counters["lane_steps"] == sum(lengths)
    macs = dict.fromkeys(log.counters["macs"], 0)
    for lane, length in enumerate(lengths):
        one, shorter = run(recipe, of_lane(stimulus, lane, length))
        assert facts(shorter, units_and_readouts) == facts(log, units_and_readouts, lane, length)
        for name in units_and_readouts:  # and nothing happens behind the end
            if log[name].events is not None:
                assert not log[name].events.to_dense()[length:, lane].any()
        for name, array in replay(one, shorter, of_lane(losses, lane, length)).items():
            alone[name] += array
        for name, count in shorter.counters["macs"].items():
            macs[name] += count
        # A lane goes on from its own end.
        assert facts(one.run(of_lane(later, lane), carry=True)) == facts(after, lane=lane)
    assert macs == log.counters["macs"]
    assert_close(total, alone, 1e-12 if recipe.dtype == "float64" else 1e-5)


# -- windows -----------------------------------------------------------------------------------------------


def joined(logs, name):
    """Events and states of one population over several windows."""
    events = logs[0][name].events
    for log in logs[1:]:
        events = None if events is None else events.then(log[name].events)
    if logs[0][name].tape is None:
        return events, None
    return events, np.concatenate([log[name].state for log in logs])


def assert_windows_equal_one_run(recipe, cuts, threads=1):
    stimulus = recipe.stimulus()
    _, whole = run(recipe)
    simulation = Simulation(recipe.build(), threads=threads)
    edges = sorted({0, recipe.n_steps, *(cut for cut in cuts if cut < recipe.n_steps)})
    logs = [
        simulation.run({name: dense[a:b] for name, dense in stimulus.items()}, carry=True)
        for a, b in pairwise(edges)
    ]
    assert [log.start_step for log in logs] == edges[:-1]
    for name in whole:
        events, state = joined(logs, name)
        if events is not None:
            assert events.equal(whole[name].events)
            np.testing.assert_array_equal(
                np.concatenate([log[name].time for log in logs]), np.sort(whole[name].time, kind="stable")
            )
        if state is not None:
            np.testing.assert_array_equal(state, whole[name].state)
    for projection, macs in whole.counters["macs"].items():
        assert sum(log.counters["macs"][projection] for log in logs) == macs
    return simulation, whole, logs, edges


@given(recipes(), st.lists(st.integers(1, 15), max_size=4))
@settings(max_examples=30)
def test_windows(recipe, cuts):
    assert_windows_equal_one_run(recipe, cuts)


@given(recipes(), st.lists(st.integers(1, 15), max_size=4))
@settings(max_examples=25)
def test_a_window_holds_what_its_replay_needs(recipe, cuts):
    """Losses in the last window: its own part of the gradient, from its log, with and without tape."""
    simulation, _, logs, edges = assert_windows_equal_one_run(recipe, cuts)
    losses = {name: array[edges[-2] :] for name, array in recipe.losses().items()}
    expected = bits(replay(simulation, logs[-1], losses))
    for member in logs[-1].populations.values():
        member.tape = None
    assert bits(replay(simulation, logs[-1], losses)) == expected


@given(recipes(delays=long_delays(), max_lanes=2), st.lists(st.integers(1, 3100), max_size=3))
@settings(max_examples=6)
def test_windows_with_delays_of_thousands_of_steps(recipe, cuts):
    recipe = recipe.with_(n_steps=3100)
    simulation, whole, _, _ = assert_windows_equal_one_run(recipe, cuts, threads=2)
    _, log = run(recipe, threads=2, tape=False)
    losses = recipe.losses()
    assert bits(replay(simulation, log, losses, threads=2)) == bits(replay(simulation, whole, losses))


@given(recipes())
@settings(max_examples=25)
def test_step_by_step(recipe):
    stimulus = recipe.stimulus()
    _, whole = run(recipe)
    simulation = Simulation(recipe.build(), threads=1)
    for step in range(recipe.n_steps):
        out = simulation.step({name: dense[step] for name, dense in stimulus.items()})
        assert set(out) == set(whole)
        for name, got in out.items():
            member = whole[name]
            expected = member.state[step] if member.events is None else member.events.to_dense()[step]
            np.testing.assert_array_equal(got, expected)
    assert simulation.time_step == recipe.n_steps


@given(recipes(), st.lists(st.booleans(), min_size=2, max_size=8), st.integers(0, 3))
@settings(max_examples=25)
def test_steps_and_runs_in_turn(recipe, by_step, changed):
    """With parameters written in place in between, too; a simulation that only runs is the oracle."""
    stimulus = recipe.stimulus()
    nets = recipe.build(), recipe.build()
    stepping, running = Simulation(nets[0], threads=1), Simulation(nets[1], threads=1)
    for step in range(min(recipe.n_steps, 3 * len(by_step))):
        if step % 4 == changed:
            for net in nets:
                for name, parameter in net.parameters().items():
                    if name.endswith(("bias", "weight")) and not parameter.read_only:
                        parameter.values *= 0.5
        now = {name: dense[step : step + 1] for name, dense in stimulus.items()}
        whole = running.run(now, carry=True)
        if by_step[step % len(by_step)]:
            wrong = {name: np.full_like(dense[0], np.nan) for name, dense in now.items()}
            if step and any(dense.size for dense in wrong.values()):
                with pytest.raises(StimulusError):
                    stepping.step(wrong)
            for name, got in stepping.step({name: dense[0] for name, dense in now.items()}).items():
                member = whole[name]
                expected = member.state[0] if member.events is None else member.events.to_dense()[0]
                np.testing.assert_array_equal(got, expected)
        else:
            assert facts(stepping.run(now, carry=True)) == facts(whole)
        assert stepping.time_step == running.time_step == step + 1


def test_states_that_are_not_there():
    net = Network(seed=1)
    net.connect(net.add(EventSource(3, "words")), net.add(EGRU(2, "hidden")))
    simulation = Simulation(net)
    with pytest.raises(StimulusError, match="no states yet"):
        simulation.states("hidden")
    simulation.step(1)
    with pytest.raises(NetworkError, match=r"hiden.*\['words', 'hidden'\]"):
        simulation.states("hiden")
    assert simulation.states("words") == {}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lanes", [1, 3, 9])
@pytest.mark.parametrize("dense", [False, True])
def test_steps_of_tokens(dtype, lanes, dense):
    net = Network(seed=1, dtype=dtype)
    net.add(EventSource(20, "words", dense=dense))
    net.add(EGRU(30, "hidden", threshold=0.05))
    net.add(LeakyReadout(4, "answer"))
    net.connect("words", "hidden")
    net.connect("words", "hidden", delay=2, name="late")
    net.connect("hidden", "hidden")
    net.connect("hidden", "answer", delay=3)
    tokens = np.random.default_rng(0).integers(-1, 20, (12, lanes))
    log, simulation = Simulation(net, threads=1).run(tokens), Simulation(net, threads=1)
    kinds = [np.int64, np.int8, np.int32, list]
    for step, ids in enumerate(tokens):
        if step:
            for wrong in (np.full(lanes, 20), np.full(lanes, -2), np.zeros(lanes + 1, int), 2**64):
                with pytest.raises(StimulusError):
                    simulation.step(wrong)
        kind = kinds[step % 4]
        given = ids.tolist() if kind is list else int(ids[0]) if lanes == 1 else ids.astype(kind)
        out = simulation.step(given)
        np.testing.assert_array_equal(out["answer"], log["answer"].state[step])
        for name, state in (("hidden", "c"), ("answer", "v")):
            held = simulation.states(name)[state]
            np.testing.assert_array_equal(held, log[name].state[step])
            held[:] = 7  # a copy, as is what is returned
        for name in ("words", "hidden"):
            np.testing.assert_array_equal(out[name], log[name].events.to_dense()[step])
            out[name][:] = 7  # what is returned is the caller's
        out["answer"][:] = 7
    assert log["hidden"].n_events > 20


@given(recipes())
@settings(max_examples=15)
def test_without_carry_a_run_starts_afresh(recipe):
    simulation, first = run(recipe)
    assert facts(simulation.run(recipe.stimulus())) == facts(first)
    simulation.run(recipe.stimulus(seed=7), carry=True)
    simulation.reset()
    assert facts(simulation.run(recipe.stimulus(), carry=True)) == facts(first)


# -- logs --------------------------------------------------------------------------------------------------


@given(recipes())
@settings(max_examples=25)
def test_replay_without_tape(recipe):
    simulation, log = run(recipe)
    without = Simulation(recipe.build(), threads=2).run(recipe.stimulus(), tape=False)
    assert all(without[name].tape is None for name in without if log[name].kind in UNITS)
    losses = recipe.losses()
    first = replay(simulation, log, losses, inputs=True, initial=True)
    second = replay(simulation, without, losses, inputs=True, initial=True)
    assert bits(first) == bits(second)
    assert second.counters.pop("macs_rerun") == log.counters["macs"]
    assert not any(first.counters.pop("macs_rerun").values())
    assert first.counters == second.counters
    for name, arrays in first.initial.items():
        assert bits(arrays) == bits(second.initial[name])


@given(recipes(), st.integers(0, 10), st.booleans())
@settings(max_examples=12)
def test_replay_of_a_file(recipe, warm_up, states):
    simulation, _ = run(recipe, recipe.stimulus(seed=9, n_steps=warm_up))
    log = simulation.run(recipe.stimulus(), carry=True)
    losses = recipe.losses()
    expected = bits(replay(simulation, log, losses))
    with tempfile.TemporaryDirectory() as folder:
        again = EventLog.open(log.save(Path(folder, "log.h5"), states=states))
    assert bits(replay(simulation, again, losses)) == expected
    # and on a network made anew
    assert bits(replay(Simulation(recipe.build()), again, losses)) == expected


@given(recipes())
@settings(max_examples=15)
def test_logged_events_of_a_source_are_the_stimulus(recipe):
    stimulus = recipe.stimulus()
    _, log = run(recipe)
    for layer in recipe.sources():
        sent, given_ = log[layer.name].events.to_dense(), stimulus[layer.name]
        if layer.kind == "source":
            np.testing.assert_array_equal(sent, given_)
        else:
            thresholds = log[layer.name].thresholds
            assert (np.abs(given_ - np.cumsum(sent, axis=0)) <= np.maximum(thresholds, 1e-5)).all()
    as_events = {name: Events.from_dense(dense, dtype=recipe.dtype) for name, dense in stimulus.items()}
    assert facts(run(recipe, as_events)[1]) == facts(log)


# -- float types -------------------------------------------------------------------------------------------


@given(recipes(dtypes=["float32"], max_steps=12))
@settings(max_examples=30)
def test_float32_is_close_to_float64(recipe):
    narrow, log32 = run(recipe)
    wide_recipe = recipe.with_(dtype="float64")
    # The same numbers in both: those of float32.
    net = wide_recipe.build()
    for name, parameter in narrow.plan.network.parameters().items():
        net.parameters()[name].assign(parameter.values)
    wide, log64 = run(
        wide_recipe, {name: x.astype("float64") for name, x in recipe.stimulus().items()}, net=net
    )
    assume(all(_same_raster(log32[name].events, log64[name].events) for name in log32))
    for name in log32:
        if log32[name].tape is not None:
            np.testing.assert_allclose(log32[name].state, log64[name].state, atol=5e-5, rtol=5e-5)
    losses = recipe.losses()
    assert_close(replay(narrow, log32, losses), dict(replay(wide, log64, losses)), 2e-3)


def _same_raster(one, other) -> bool:
    if one is None:
        return True
    return np.array_equal(one.ptr, other.ptr) and np.array_equal(one.unit, other.unit)


# -- what the parts say about each other -------------------------------------------------------------------


@given(recipes())
@settings(max_examples=25)
def test_no_loss_no_gradient(recipe):
    simulation, log = run(recipe)
    losses = {name: np.zeros_like(array) for name, array in recipe.losses().items()}
    for name, array in replay(simulation, log, losses).items():
        assert not array.any(), name


@given(recipes(dtypes=["float64"]), st.floats(0.1, 10))
@settings(max_examples=25)
def test_gradients_are_linear_in_the_loss(recipe, factor):
    simulation, log = run(recipe)
    one, two = recipe.losses(), recipe.losses(seed=8)
    both = {name: one[name] + factor * two[name] for name in one}
    first, second = replay(simulation, log, one), replay(simulation, log, two)
    expected = {name: first[name] + factor * second[name] for name in first}
    scale = max(np.abs(array).max(initial=0) for array in expected.values())
    for name, array in replay(simulation, log, both).items():
        assert np.abs(array - expected[name]).max(initial=0) <= 1e-9 * max(scale, 1)


def test_links_have_distinct_names():
    """Names of projections break ties of their order, so the recipes must not hide any by equal names."""
    names = {Link("a", "b", 0, index=index).name for index in range(30)}
    assert len(names) == 30
