"""dL/d(payload) of every event: by differences of a reference that changes one on its way, and others."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from evsim import recorded
from evsim.adjoint import Adjoint
from evsim.errors import GradientError
from evsim.models import EGRU, EventSource, LinearReadout
from evsim.network import Network
from evsim.simulation import Simulation
from gradients.cases import (
    ALL,
    LAYERS,
    N_LANES,
    N_STEPS,
    TANGLES,
    Case,
    before_window,
    deciding,
    relative_error,
    state_of,
)
from oracles import transit

WARM_UP = 7
STEP = 1e-5
CASES = [
    *(Case(units, storage, (1, 3), gamma=0.0) for units, storage in product(LAYERS, ("dense", "csr"))),
    *(
        Case(units, storage, (1, 3), graph="tangle", gamma=0.0)
        for units in LAYERS
        for storage in ("dense", "csr")
    ),
    *(Case(units, "csr", (2,), graph="tangle", gamma=0.0, lengths=(N_STEPS, 0, 6)) for units in LAYERS),
    *(Case(units, loss="v", graph="tangle", gamma=0.0, threshold="zero") for units in LAYERS),
]
SOME = [TANGLES[0], TANGLES[4], TANGLES[7], TANGLES[-1], *(c for c in ALL if c.lengths)]


def carried_log(case, **options):
    """The log of a run that goes on from a warm-up, its network, stimulus and simulation."""
    net = case.network()
    simulation = Simulation(net, threads=1)
    simulation.run(replace(case, lengths=None).stimulus(net, seed=9, n_steps=WARM_UP))
    stimulus = case.stimulus(net)
    return simulation.run(stimulus, carry=True, lengths=case.lengths, **options), net, stimulus, simulation


def bits(gradients) -> dict:
    """Everything as bytes by name."""
    found = {name: array.tobytes() for name, array in gradients.items()}
    found |= {f"input {name}": array.tobytes() for name, array in gradients.inputs.items()}
    for name, states in gradients.initial.items():
        found |= {f"initial {name} {key}": array.tobytes() for key, array in states.items()}
    return found


def event_bits(gradients) -> dict:
    return {name: found["value"].tobytes() for name, found in gradients.events.items()}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equal_to_differences_over_one_payload(case):
    log, net, stimulus, simulation = carried_log(case)
    losses, initial = case.losses(net), before_window(log, net)
    replayed = Adjoint(simulation.plan, gamma=0.0).replay(log, losses, events=True)

    def loss_and_raster(**change):
        run = transit.simulate(net, stimulus, N_STEPS, N_LANES, initial, case.lengths, **change)
        total = 0.0
        for key, weights in losses.items():
            name, _, kind = key.partition(".")
            seen = run.received(name) if kind == "y" else run[name][kind or state_of(net[name])]
            total += (weights * seen).sum()
        return total, np.concatenate([(run[name]["y"] != 0).ravel() for name in deciding(net)])

    _, raster = loss_and_raster()
    rng, tried, compared = np.random.default_rng(5), 0, 0
    assert set(replayed.events) == {name for name, p in net.populations.items() if p.emits}
    for name, found in replayed.events.items():
        events, gradient = log[name].events, found["value"]
        assert gradient.shape == (len(events),)
        assert gradient.dtype == np.float64
        scale = np.abs(gradient).max(initial=0.0) or 1.0
        for row in rng.permutation(len(events))[:3]:
            values = []
            for sign in (1, -1):
                shift = np.zeros((N_STEPS, N_LANES, events.n_units))
                shift[events.step[row], events.lane[row], events.unit[row]] = sign * STEP
                value, now = loss_and_raster(shift={name: shift})
                values.append(value if np.array_equal(now, raster) else np.nan)
            tried += 1
            if not np.isnan(values).any():
                compared += 1
                numeric = (values[0] - values[1]) / (2 * STEP)
                assert abs(numeric - gradient[row]) < 1e-6 * scale, (name, row, gradient[row], numeric)
    assert compared >= 0.8 * tried, (compared, tried)


@pytest.mark.peer
@pytest.mark.parametrize("case", ALL[::5], ids=str)
def test_equal_to_autograd(case):
    from oracles import torch_network  # here, because tests without peers collect this file too

    net = case.network()
    stimulus, losses = case.stimulus(net), case.losses(net)
    simulation = Simulation(net)
    log = simulation.run(stimulus, lengths=case.lengths)
    replayed = Adjoint(simulation.plan, **case.surrogate).replay(log, losses, events=True)
    at_rest = {
        name: {key: np.full_like(start, net[name].rest.get(key, 0)) for key, start in states.items()}
        for name, states in case.initial(net).items()
    }
    twin = torch_network.TorchNetwork(net, stimulus, at_rest, case.lengths, *case.surrogate.values())
    twin.gradients(losses)
    for name, found in replayed.events.items():
        events = log[name].events
        at_events = twin.transit[name].grad.numpy()[events.step, events.lane, events.unit]
        assert relative_error(found["value"], at_events) < 1e-10


@pytest.mark.parametrize("case", SOME, ids=str)
def test_a_source_has_its_input_gradient_at_its_events(case):
    log, net, _, simulation = carried_log(case)
    replayed = Adjoint(simulation.plan, **case.surrogate).replay(
        log, case.losses(net), inputs=True, events=True
    )
    for name, dense in replayed.inputs.items():
        events = log[name].events
        if net[name].sends != "changes":
            at_events = dense[events.step, events.lane, events.unit]
            assert relative_error(replayed.events[name]["value"], at_events) < 1e-12


@pytest.mark.parametrize("case", SOME, ids=str)
def test_nothing_else_changes(case):
    log, net, _, simulation = carried_log(case)
    replay, losses = Adjoint(simulation.plan, **case.surrogate).replay, case.losses(net)
    plain = replay(log, losses, inputs=True, initial=True)
    assert bits(replay(log, losses, inputs=True, initial=True, events=True)) == bits(plain)
    assert not plain.events
    alone, without = replay(log, losses, events=True), replay(log, losses)
    assert bits(alone) == bits(without)
    assert event_bits(alone) == event_bits(replay(log, losses, inputs=True, initial=True, events=True))
    for kind in ("macs_weight", "macs_recompute", "macs_rerun"):
        assert alone.counters[kind] == without.counters[kind]
    sources = {p.name for p in simulation.plan.sources}
    for p in simulation.plan.projections:
        more = alone.counters["macs_state"][p.name] - without.counters["macs_state"][p.name]
        assert more == 0 if p.source.name not in sources else 0 <= more <= log.counters["macs"][p.name]


@pytest.mark.parametrize("case", SOME, ids=str)
def test_same_bits_with_any_number_of_threads_and_without_tape(case):
    log, net, _, simulation = carried_log(case)
    losses = case.losses(net)
    expected = event_bits(
        Adjoint(simulation.plan, **case.surrogate, threads=1).replay(log, losses, events=True)
    )
    for threads, teams in ((2, False), (3, True)):
        more = Adjoint(simulation.plan, **case.surrogate, threads=threads)
        more._teams = teams
        assert event_bits(more.replay(log, losses, events=True)) == expected
    bare, *_, simulation = carried_log(case, tape=False)
    without = Adjoint(simulation.plan, **case.surrogate).replay(bare, losses, events=True)
    assert event_bits(without) == expected


@pytest.mark.parametrize("every", [2, 4])
@pytest.mark.parametrize("case", SOME, ids=str)
def test_piece_by_piece(case, every, monkeypatch):
    log, net, _, simulation = carried_log(case)
    replay, losses = Adjoint(simulation.plan, **case.surrogate).replay, case.losses(net)
    whole = replay(log, losses, events=True)
    monkeypatch.setattr(recorded, "PIECE_BYTES", every * 100)
    pieces = replay(log, losses, events=True)
    kept, *_ = carried_log(case, checkpoint=every)
    checkpoints = replay(kept, losses, events=True)
    for name, found in whole.events.items():
        assert relative_error(pieces.events[name]["value"], found["value"]) < 1e-12
        assert relative_error(checkpoints.events[name]["value"], found["value"]) < 1e-12


def small_network(dtype="float64"):
    net = Network(dt=1.0, seed=3, dtype=dtype)
    net.add(EventSource(3, "cue"))
    net.add(EGRU(4, "hidden", threshold=0.05))
    net.add(LinearReadout(2, "answer"))
    net.connect("cue", "hidden", weight="glorot", delay=2.0)
    net.connect("hidden", "hidden", weight="glorot")
    net.connect("hidden", "answer", weight="glorot", delay=1.0)
    return net


def small_run(dtype="float64"):
    simulation = Simulation(small_network(dtype))
    log = simulation.run(np.ones((6, 2, 3)))
    assert log["hidden"].n_events
    return log, simulation, {"answer": np.ones((6, 2, 2))}


def test_what_arrives_after_the_window_has_no_gradient():
    log, simulation, losses = small_run()
    replayed = Adjoint(simulation.plan).replay(log, losses, events=True)
    late = log["cue"].events.step >= 4
    assert not replayed.events["cue"]["value"][late].any()
    assert replayed.events["cue"]["value"][~late].any()
    assert not replayed.events["hidden"]["value"][log["hidden"].events.step == 5].any()
    losses["hidden.y"] = np.ones((6, 2, 4))
    seen = Adjoint(simulation.plan).replay(log, losses, events=True)
    assert (seen.events["hidden"]["value"][log["hidden"].events.step == 5] == 1).all()


def test_single_precision():
    log, simulation, losses = small_run("float32")
    found = Adjoint(simulation.plan).replay(log, losses, events=True).events["cue"]["value"]
    log, simulation, losses = small_run()
    expected = Adjoint(simulation.plan).replay(log, losses, events=True).events["cue"]["value"]
    assert found.dtype == np.float32
    assert relative_error(found.astype(np.float64), expected) < 1e-4


def test_a_window_without_steps_or_events():
    simulation = Simulation(small_network())
    for stimulus in (np.zeros((0, 2, 3)), np.zeros((4, 2, 3))):
        log = simulation.run(stimulus)
        shape = (*stimulus.shape[:2], 2)
        replayed = Adjoint(simulation.plan).replay(log, {"answer": np.ones(shape)}, events=True)
        assert {name: found["value"].shape for name, found in replayed.events.items()} == {
            "cue": (0,),
            "hidden": (0,),
        }


class TestMark:
    def test_columns(self):
        log, simulation, losses = small_run()
        assert log["cue"].gradient is None
        gradients = Adjoint(simulation.plan).replay(log, losses, events=True)
        assert gradients.mark(log) is log
        for name in ("cue", "hidden"):
            assert log[name].gradient is gradients.events[name]["value"]
            assert log[name].time_gradient is None
        assert log["answer"].gradient is None

    def test_it_counts_in_comparisons(self):
        log, simulation, losses = small_run()
        other, *_ = small_run()
        assert log["cue"].equal(other["cue"])
        Adjoint(simulation.plan).replay(log, losses, events=True).mark(log)
        assert not log["cue"].equal(other["cue"])
        assert not other["cue"].equal(log["cue"])
        Adjoint(simulation.plan).replay(other, losses, events=True).mark(other)
        assert log["cue"].equal(other["cue"])

    def test_without_gradients_of_events(self):
        log, simulation, losses = small_run()
        with pytest.raises(GradientError, match="events=True"):
            Adjoint(simulation.plan).replay(log, losses).mark(log)

    def test_another_log(self):
        log, simulation, losses = small_run()
        gradients = Adjoint(simulation.plan).replay(log, losses, events=True)
        other = simulation.run(np.ones((5, 2, 3)))
        with pytest.raises(GradientError, match=r"log of 'cue': it has 30 events"):
            gradients.mark(other)
        assert other["cue"].gradient is None
