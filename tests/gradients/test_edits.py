"""Runs with events changed on their way, against the reference where what arrives is changed."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from evsim.adjoint import Adjoint
from evsim.edits import Edits
from evsim.errors import GradientError, StimulusError
from evsim.events import Events
from evsim.fixed_point import FixedPoint, quantize
from evsim.models import DeltaGRU, DeltaReadout, EventSource
from evsim.network import Network
from evsim.simulation import Simulation
from gradients.cases import (
    LAYERS,
    N_LANES,
    N_STEPS,
    Case,
    before_window,
    relative_error,
    state_of,
    with_states,
)
from oracles import transit

CASES = [
    *(Case(units, storage, (1, 3), graph="tangle") for units, storage in product(LAYERS, ("dense", "csr"))),
    *(Case(units, "csr", (2,), lengths=(N_STEPS, 0, 6)) for units in LAYERS),
]


def some_edits(case, net, rng, share=0.2):
    """Random places and changes, a third of them deletions; and the arrays that the reference takes."""
    edits, factors, shifts = {}, {}, {}
    for name, population in net.populations.items():
        if population.emits:
            shape = (N_STEPS, N_LANES, population.n_units)
            chosen = np.flatnonzero(rng.random(shape) < share)
            factor, shift = rng.normal(1, 0.5, chosen.size), rng.normal(0, 0.3, chosen.size)
            factor[::3] = shift[::3] = 0.0
            order = rng.permutation(chosen.size)
            places = np.unravel_index(chosen[order], shape)
            edits[name] = Edits(*places, factor[order], shift[order])
            factors[name], shifts[name] = np.ones(shape), np.zeros(shape)
            factors[name].ravel()[chosen], shifts[name].ravel()[chosen] = factor, shift
    return edits, factors, shifts


def warm(case, net, **options):
    simulation = Simulation(net, **options)
    simulation.run(replace(case, lengths=None).stimulus(net, seed=9, n_steps=7))
    return simulation


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equal_to_the_reference(case):
    net, rng = case.network(), np.random.default_rng(6)
    simulation, stimulus = warm(case, net), case.stimulus(net)
    edits, factors, shifts = some_edits(case, net, rng)
    log = simulation.run(stimulus, carry=True, lengths=case.lengths, edits=edits)
    run = transit.simulate(
        net, stimulus, N_STEPS, N_LANES, before_window(log, net), case.lengths, factor=factors, shift=shifts
    )
    alive = case.alive()
    for name in edits:
        expected, found = run.received(name) * alive, log[name].events.to_dense() * alive
        np.testing.assert_array_equal(found != 0, expected != 0)
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)
        sent, changed = run[name]["y"] * alive, (factors[name] != 1) | (shifts[name] != 0)
        assert log.counters["edits"][name] == np.count_nonzero(sent[changed])
    for population in with_states(net):
        name, expected = population.name, run[population.name][state_of(population)]
        assert relative_error(log[name].state * alive, expected * alive) < 1e-11
    assert log.counters["macs"] == run.macs
    assert sum(log.counters["edits"].values()) > 5


@pytest.mark.parametrize("case", CASES[::3], ids=str)
def test_same_bits_with_any_number_of_threads(case):
    net = case.network()
    stimulus = case.stimulus(net)
    edits, *_ = some_edits(case, net, np.random.default_rng(6))
    logs = []
    for threads, teams in ((1, False), (2, False), (3, True)):
        simulation = warm(case, net, threads=threads)
        simulation._teams = teams
        logs.append(simulation.run(stimulus, carry=True, lengths=case.lengths, edits=edits))
        after = simulation.run(stimulus, carry=True)  # what is in flight has been edited, too
        logs[-1].populations |= {f"later {name}": after[name] for name in after}
        logs[-1].counters = {}
    for log in logs[1:]:
        assert all(log[name].equal(logs[0][name]) for name in log)


def test_no_edits_are_no_change():
    case = CASES[0]
    net = case.network()
    stimulus, simulation = case.stimulus(net), Simulation(net)
    plain = simulation.run(stimulus)
    empty = {name: Edits([], [], []) for name, p in net.populations.items() if p.emits}
    one = {name: Edits.at(plain[name].events, np.arange(plain[name].n_events), factor=1.0) for name in empty}
    for edits in (empty, one, {}):
        log = simulation.run(stimulus, edits=edits)
        assert all(log[name].equal(plain[name]) for name in log)
    Adjoint(simulation.plan).replay(simulation.run(stimulus, edits=empty), case.losses(net))


def test_rows_of_a_log():
    events = Events.from_dense(np.array([[[1.0, 2.0], [0.0, 3.0]], [[4.0, 0.0], [0.0, 5.0]]]), np.float64)
    by_rows, by_mask = Edits.at(events, [1, 4]), Edits.at(events, events.value % 3 == 2)
    for edits in (by_rows, by_mask):
        assert (edits.step.tolist(), edits.lane.tolist(), edits.unit.tolist()) == ([0, 1], [0, 1], [1, 1])
    left, count = by_rows.apply(events)
    left.check()
    assert (left.value.tolist(), count) == ([1.0, 3.0, 4.0], 2)
    more, count = Edits.at(events, [0, 2], factor=[2.0, 1.0], shift=-1.0).apply(events)
    assert (more.value.tolist(), count) == ([1.0, 2.0, 2.0, 4.0, 5.0], 2)
    missing, count = Edits([0, 1], [1, 0], [0, 1]).apply(events)
    assert (missing.equal(events), count) == (True, 0)
    assert len(Edits.at(events, [])) == 0


def delta_network():
    net = Network(dt=1.0, seed=0)
    net.add(EventSource(3, "lines", threshold=0.0))
    net.add(DeltaGRU(4, "hidden", threshold=0.1))
    net.add(DeltaReadout(2, "answer"))
    net.connect("lines", "hidden", weight="glorot")
    net.connect("hidden", "hidden", weight="orthogonal")
    net.connect("hidden", "answer", weight="glorot")
    return net


def test_an_edited_log_is_not_replayed():
    simulation = Simulation(delta_network())
    stimulus = np.random.default_rng(0).normal(size=(5, 1, 3))
    log = simulation.run(stimulus)
    edited = simulation.run(stimulus, edits={"hidden": Edits.at(log["hidden"].events, [0])})
    assert edited.counters["edits"] == {"hidden": 1}
    with pytest.raises(GradientError, match="edited on their way"):
        Adjoint(simulation.plan).replay(edited, {"answer": np.ones((5, 1, 2))})


def test_fixed_point():
    net = quantize(delta_network(), FixedPoint(weights="Q2.6"))
    simulation = Simulation(net)
    stimulus = np.random.default_rng(0).normal(size=(5, 1, 3))
    log = simulation.run(stimulus)
    rows = np.arange(log["hidden"].n_events)
    edited = simulation.run(stimulus, edits={"hidden": Edits.at(log["hidden"].events, rows[:1])})
    assert edited["hidden"].n_events
    with pytest.raises(StimulusError, match="fixed point"):
        simulation.run(stimulus, edits={"hidden": Edits.at(log["hidden"].events, rows, factor=0.5)})


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (([0, 1], [0], [0, 0]), "1 lanes of dtype int64 for 2 steps"),
        (([0.5], [0], [0]), "steps of dtype float64"),
        (([0], [0], [0], [1.0, 2.0]), r"factor is \[1.0, 2.0\]"),
        (([0], [0], [0], 1.0, np.nan), "shift 0 is nan"),
        (([0], [0], [0], "half"), "factor is 'half'"),
    ],
)
def test_edits_that_cannot_be(columns, message):
    with pytest.raises(StimulusError, match=message):
        Edits(*columns)


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({"hidden": Edits([5], [0], [0])}, "edits of 'hidden': edit 0 has step 5; steps lie in 0..4"),
        ({"hidden": Edits([0], [1], [0])}, "lane 1; lanes lie in 0..0"),
        ({"lines": Edits([0], [0], [-1])}, "edits of 'lines': edit 0 has unit -1"),
        ({"hidden": Edits([1, 1], [0, 0], [2, 2])}, "two edits of unit 2 in step 1, lane 0"),
        ({"answer": Edits([0], [0], [0])}, r"give Edits of some of \['hidden', 'lines'\]"),
        ({"hidden": ([0], [0], [0])}, "give Edits"),
    ],
)
def test_edits_that_do_not_fit_the_run(edits, message):
    simulation = Simulation(delta_network())
    stimulus = np.random.default_rng(0).normal(size=(5, 1, 3))
    simulation.run(stimulus)
    before = simulation.time_step
    with pytest.raises(StimulusError, match=message):
        simulation.run(stimulus, edits=edits)
    assert simulation.time_step == before
