"""Simulation and Adjoint against the NumPy reference and against central differences, in float64."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import scipy.sparse

from evsim.adjoint import Adjoint
from evsim.events import Events
from evsim.reference import Run, backpropagate, simulate
from evsim.simulation import Simulation
from gradients.cases import (
    ALL,
    LAYERS,
    N_LANES,
    N_STEPS,
    Case,
    before_window,
    check_differences,
    deciding,
    gradient_errors,
    relative_error,
    state_of,
    with_states,
)

WARM_UP = 7
SOME = [ALL[0], *ALL[60::4]]


def run_both(case: Case, tape: bool = True):
    """A warmed-up run by Simulation, the same by the reference, and the plan."""
    net = case.network()
    simulation = Simulation(net, threads=2)
    simulation.run(replace(case, lengths=None).stimulus(net, seed=9, n_steps=WARM_UP))
    stimulus = case.stimulus(net)
    log = simulation.run(stimulus, carry=True, lengths=case.lengths, tape=tape)
    run = simulate(net, stimulus, N_STEPS, N_LANES, before_window(log, net), case.lengths)
    return log, run, simulation.plan


def state_macs(run: Run, active: dict[str, np.ndarray]) -> tuple[dict[str, int], dict[str, int]]:
    """What dL/dy costs: stored weights in the rows of backward-active units, when their events would arrive.

    In the recurrent port of the paper's form the r block counts in columns of units whose events arrive, and
    the gradient of r needs the z block of their rows, even of those sent before the window.  The second count
    is of the gates r that the forward run did not need: of backward-active units whose events do not arrive.
    """
    macs = dict.fromkeys(run.network.projections, 0)
    again = dict(macs)
    for (name, p), t in product(run.network.projections.items(), range(run.n_steps)):
        n, stored = p.target.n_units, stored_weights(p)
        columns = np.ones((run.n_lanes, p.shape[1]), int)
        asks = p.source.name in active and t >= p.delay_steps
        rows = (
            active[p.source.name][t - p.delay_steps] & run.alive[t]
            if asks
            else np.zeros((N_LANES, len(stored)), bool)
        )
        if getattr(p.target, "form", "") == "paper" and p.port == "recurrent":
            arriving = {q: (run.arriving(q, t) != 0) & run.alive[t] for q in run.into(p.target, "recurrent")}
            senders = np.any(list(arriving.values()), axis=0)
            columns[:, n : 2 * n] = senders
            if not asks:
                rows, columns[:, : 2 * n] = arriving[p], 0
            for q, events in arriving.items():
                gates = events.astype(int) @ stored_weights(q)[:, n : 2 * n]
                again[q.name] += int((gates * (rows & ~senders)).sum())
        macs[name] += int((rows.astype(int) @ stored * columns).sum())
    return macs, again


def stored_weights(projection) -> np.ndarray:
    """1 where a weight is stored, also a zero."""
    if not projection.is_sparse:
        return np.ones(projection.shape, int)
    ones = np.ones(projection.n_weights, int)
    return scipy.sparse.csr_array((ones, projection.indices, projection.indptr), projection.shape).toarray()


@pytest.mark.parametrize("case", ALL, ids=str)
def test_events_and_states_equal_the_reference(case):
    log, run, _ = run_both(case)
    alive = case.alive()
    for name, population in run.network.populations.items():
        if population.emits:
            expected = Events.from_dense(run[name]["y"], np.float64)
            np.testing.assert_array_equal(log[name].events.ptr, expected.ptr)
            np.testing.assert_array_equal(log[name].events.unit, expected.unit)
            # A change is a difference: its error is that of the values it was taken from.
            precision = {"rtol": 0, "atol": 1e-13} if case.is_delta else {"rtol": 1e-12, "atol": 0}
            np.testing.assert_allclose(log[name].events.value, expected.value, **precision)
    for population in with_states(run.network):
        name, expected_state = population.name, run[population.name][state_of(population)]
        assert relative_error(log[name].state * alive, expected_state * alive) < 1e-12
    assert log.counters["macs"] == run.macs
    assert log.counters["lane_steps"] == alive.sum()
    sent = {name: np.count_nonzero(run[name]["y"]) for name, p in run.network.populations.items() if p.emits}
    assert log.counters["events"] == sent


@pytest.mark.parametrize("case", ALL, ids=str)
def test_gradients_equal_the_reference(case):
    log, run, plan = run_both(case)
    losses = case.losses(run.network)
    got = Adjoint(plan, **case.surrogate, threads=2).replay(log, losses, inputs=True, initial=True)
    expected = backpropagate(run, losses, **case.surrogate)
    active = expected.pop("backward_active")
    initial, inputs = expected.pop("initial"), expected.pop("inputs")
    errors = gradient_errors(dict(got), expected) | gradient_errors(got.inputs, inputs)
    for name, states in initial.items():
        for key, gradient in states.items():
            if key == "y":  # the reference may keep a step that nobody hears
                known = got.initial[name].get("y", np.zeros((0, *gradient.shape[1:])))
                unheard, gradient = np.split(gradient, [len(gradient) - len(known)])
                assert not unheard.any()
            errors[f"initial {name} {key}"] = relative_error(
                got.initial[name].get(key, gradient[:0]), gradient
            )
    assert max(errors.values()) < 1e-12, {k: e for k, e in errors.items() if not e < 1e-12}

    counters, units = got.counters, {name: run.network[name].n_units for name in active}
    assert counters["backward_active"] == {name: mask.sum() for name, mask in active.items()}
    for name, mask in active.items():
        assert counters["beta"][name] == pytest.approx(
            mask.sum() / (units[name] * case.alive().sum()), rel=1e-12
        )
    assert counters["macs_weight"] == run.macs  # a weight is touched once by each event, in both directions
    assert (counters["macs_state"], counters["macs_recompute"]) == state_macs(run, active)


@pytest.mark.parametrize("case", SOME, ids=str)
def test_a_carried_run_is_the_rest_of_one_long_run(case):
    case = replace(case, lengths=None)
    log, run, _ = run_both(case)
    net = run.network
    first, second = case.stimulus(net, seed=9, n_steps=WARM_UP), case.stimulus(net)
    both = {name: np.concatenate([first[name], second[name]]) for name in first}
    whole = simulate(net, both, WARM_UP + N_STEPS, N_LANES)
    for name, population in net.populations.items():
        for key in population.states + (("y",) if population.emits else ()):
            assert relative_error(run[name][key], whole[name][key][WARM_UP:]) < 1e-12
    assert log.start_step == WARM_UP


@pytest.mark.parametrize("case", SOME, ids=str)
def test_a_log_without_tape_gives_the_same_gradients(case):
    gradients = []
    for tape in (True, False):
        log, run, plan = run_both(case, tape)
        replayed = Adjoint(plan, **case.surrogate).replay(
            log, case.losses(run.network), initial=True, inputs=True
        )
        gradients.append(dict(replayed) | {"inputs": replayed.inputs, "initial": replayed.initial})
    assert max(gradient_errors(*gradients).values()) == 0


def test_losses_after_the_end_of_a_lane_do_not_count():
    case = next(c for c in ALL if c.lengths)
    log, run, plan = run_both(case)
    losses = case.losses(run.network)
    garbage = {key: np.where(case.alive(), loss, 7.0) for key, loss in losses.items()}
    adjoint = Adjoint(plan, **case.surrogate)
    assert (
        max(gradient_errors(dict(adjoint.replay(log, garbage)), dict(adjoint.replay(log, losses))).values())
        == 0
    )


@pytest.mark.parametrize("units", LAYERS)
def test_input_after_the_end_of_a_lane_is_not_heard(units):
    case = Case(units, "csr", (1, 3), graph="tangle", lengths=(5, N_STEPS, 0))
    net = case.network()
    quiet, loud = case.stimulus(net), replace(case, lengths=None).stimulus(net)
    logs = [Simulation(net).run(stimulus, lengths=case.lengths) for stimulus in (quiet, loud)]
    for name in deciding(net):
        assert logs[0][name].events.equal(logs[1][name].events)
    assert logs[0].counters["macs"] == logs[1].counters["macs"]


@pytest.mark.parametrize("units", LAYERS)
@pytest.mark.parametrize("storage", ["dense", "csr"])
def test_gradients_equal_central_differences(units, storage):
    case = Case(units, storage, (1, 3), graph="tangle", gamma=0.0)
    net = case.network()
    simulation = Simulation(net)
    stimulus, losses = case.stimulus(net), case.losses(net)

    def observe(log, key):
        name, _, kind = key.partition(".")
        value = log[name].events.to_dense() if kind else log[name].state
        return value != 0 if kind == "o" else value

    def loss_and_raster():
        log = simulation.run(stimulus)
        total = sum((weights * observe(log, key)).sum() for key, weights in losses.items())
        return total, np.concatenate([(log[name].events.to_dense() != 0).ravel() for name in deciding(net)])

    replayed = Adjoint(simulation.plan, gamma=0.0).replay(simulation.run(stimulus), losses, inputs=True)
    arrays = {name: p.values for name, p in net.parameters().items() if name in replayed}
    gradients = dict(replayed) | {f"input {name}": gradient for name, gradient in replayed.inputs.items()}
    arrays |= {f"input {name}": dense for name, dense in stimulus.items()}
    check_differences(loss_and_raster, arrays, gradients, 1e-7 if case.is_delta else 1e-6)
