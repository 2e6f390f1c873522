"""Runs in continuous time against the oracles: event times, payloads, states and integrals at samples."""

import numpy as np
import pytest

from evsim.simulation import Simulation
from oracles.continuous import simulate, simulate_fast
from oracles.continuous_cases import EGRU_VARIANTS, Case, differences, oracle, tangle, tangle_stimulus

#: Of times, relative; and of states and integrals, of the largest or of 1.
TIME, STATE = 1e-9, 1e-8

DELAYS = (None, "one", "pair")
#: Against the ODE solver: 5 to 20 units.
EXACT = [
    *(
        Case("egru", DELAYS[k % 3], k % 2 == 1, 5 + k % 3, gate, transmit, duration=30.0)
        for k, (gate, transmit) in enumerate(EGRU_VARIANTS)
    ),
    *(
        Case(kind, delay, sparse, 6, duration=20.0)
        for kind in ("lif", "delta_gru", "delta_lstm")
        for delay, sparse in ((None, False), ("one", True), ("pair", False), ("pair", True))
    ),
    Case("egru", "pair", False, 20, duration=20.0),
    Case("lif", "pair", True, 20, duration=12.0),
    Case("delta_gru", None, False, 12, duration=12.0),
    Case("delta_lstm", "pair", True, 12, duration=12.0),
]
#: Against the closed forms: more, and longer.
MORE = [
    *(
        Case("egru", delay, sparse, 8, gate, transmit, duration=50.0, seed=seed)
        for seed, ((gate, transmit), delay, sparse) in enumerate(
            [(v, d, s) for v in EGRU_VARIANTS for d, s in zip(DELAYS, (True, False, True), strict=True)], 10
        )
    ),
    *(
        Case(kind, delay, sparse, 8, duration=40.0, seed=seed, n_external=20)
        for kind in ("lif", "delta_gru", "delta_lstm")
        for delay, sparse in ((None, True), ("one", False), ("pair", True))
        for seed in (21, 22)
    ),
    *(
        Case(kind, "pair", True, 30, duration=25.0, seed=5)
        for kind in ("egru", "lif", "delta_gru", "delta_lstm")
    ),
]


def compare(case, by, samples, **options):
    net, stimulus = case.network(), case.stimulus()
    initial = case.initial(net)
    log = Simulation(net, **options).run(stimulus, case.duration, samples=samples, initial=initial)
    result = oracle(by, net, stimulus, case.duration, initial=initial, samples=samples)
    return log, differences(log, result)


def check(worst):
    assert worst["time"] < TIME, worst
    assert max(worst[key] for key in ("value", "state", "integral", "square")) < STATE, worst


@pytest.mark.parametrize("case", EXACT, ids=str)
def test_events_equal_those_of_an_ode_solver(case):
    log, worst = compare(case, simulate, [0.0, *case.samples().tolist()])
    assert log["hid"].n_events >= 5
    check(worst)


@pytest.mark.parametrize("case", MORE, ids=lambda c: f"{c}-{c.seed}")
def test_events_equal_those_of_closed_forms(case):
    log, worst = compare(case, simulate_fast, case.samples())
    assert log["hid"].n_events >= 5
    check(worst)


@pytest.mark.parametrize("seed", range(3))
def test_populations_of_all_types(seed):
    net, stimulus, samples = tangle(seed), tangle_stimulus(seed), [5.0, 12.5, 25.0]
    log = Simulation(net).run(stimulus, 25.0, samples=samples)
    result = oracle(simulate if seed == 0 else simulate_fast, net, stimulus, 25.0, samples=samples)
    assert all(log[name].n_events for name in ("gated", "leaky", "delta", "memory"))
    check(differences(log, result))


def test_lanes_are_runs_of_their_own():
    case = Case("lif", "pair", True, 6, n_lanes=3)
    net, stimulus = case.network(), case.stimulus()
    initial = case.initial(net)
    log = Simulation(net).run(stimulus, case.duration, samples=case.samples(), initial=initial)
    for lane in range(3):
        result = oracle(
            simulate_fast, net, stimulus, case.duration, lane, initial=initial, samples=case.samples()
        )
        check(differences(log, result, lane))


def test_float32_weights_are_taken_as_they_are():
    """States are in float64 whatever the weights are."""
    case = Case("egru", "pair", True, 6)
    net, stimulus = case.network("float32"), case.stimulus()
    log = Simulation(net).run(stimulus, case.duration, samples=case.samples())
    result = oracle(simulate_fast, net, stimulus, case.duration, samples=case.samples())
    check(differences(log, result))


def test_the_tolerance_bounds_the_error_of_an_egru():
    case = Case("egru", "pair", False, 8)
    found = []
    for tolerance in (1e-5, 1e-7, 1e-9, 1e-11, 1e-13):
        _, worst = compare(case, simulate_fast, case.samples(), tolerance=tolerance)
        found.append(max(worst.values()))
        assert found[-1] < max(100 * tolerance, 1e-10), found
    assert np.all(np.diff(found[:4]) < 0), found
