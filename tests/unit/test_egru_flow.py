"""EGRU in continuous time: its series against SciPy's solver, and crossings that are hard to find."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import evsim
from evsim.models import EGRU

TAU_S = 5.0


def run(duration, tau_m, tolerance, samples, states):
    """All units of a population from given states, without input; shape (n_samples, n_units)."""
    n = len(states["c"])
    net = evsim.Network(dt=None, dtype="float64")
    biases = np.concatenate([states["b_u"], np.zeros(n), states["b_z"]])
    units = net.add(EGRU(n, "units", threshold=0.999, bias=biases, tau_m=tau_m, tau_s=TAU_S))
    initial = {"units": {name: states[name] for name in ("c", "a_u", "a_z")}}
    sim = evsim.Simulation(net, tolerance=tolerance)
    return sim.run(duration=duration, samples=samples, initial=initial)[units.name]


@pytest.mark.parametrize("tau_m", [1.0, 5.0, 40.0])
@pytest.mark.parametrize("tolerance", [1e-6, 1e-9, 1e-12])
def test_the_error_of_a_step_is_within_the_tolerance(tau_m, tolerance):
    """Samples are the steps: of lengths that take each of the orders, and pieces of the highest."""
    rng = np.random.default_rng(0)
    n = 40
    names = ("a_u", "a_z", "b_u", "b_z")
    states = {name: rng.normal(0, 2, n) for name in names} | {"c": rng.uniform(-1, 0.5, n)}
    times = np.array([0.05, 0.15, 0.4, 1.0, 3.0, 20.0, 200.0])
    log = run(times[-1], tau_m, tolerance, times, states)

    def slope(t, y):
        away = np.exp(-t / TAU_S)
        u = 1 / (1 + np.exp(-(states["b_u"] + (states["a_u"] - states["b_u"]) * away)))
        z = np.tanh(states["b_z"] + (states["a_z"] - states["b_z"]) * away)
        return u * (z - y) / tau_m

    exact = solve_ivp(
        slope, (0, times[-1]), states["c"], t_eval=times, method="DOP853", rtol=1e-13, atol=1e-15
    ).y.T
    assert log.n_events == 0
    pieces = np.array([1, 2, 3, 4, 6, 30, 100])[:, None]  # of all steps so far, generously
    assert (np.abs(log.state[:, 0] - exact) <= pieces * tolerance + 1e-13).all()


def test_a_crossing_just_ahead_of_a_bound_that_is_loose():
    """The bound of this unit is far below what it will do: steps in proportion to it would never arrive."""
    net = evsim.Network(dt=None, dtype="float64")
    net.add(EGRU(1, "unit", threshold=0.199, tau_m=10.0, tau_s=20.0))
    log = evsim.Simulation(net).run(duration=1.0, initial={"unit": {"c": 0.19899, "a_u": -4.0, "a_z": 1.6}})
    assert log["unit"].time == pytest.approx([0.00768808], abs=1e-8)


def test_grazing_the_threshold_ends():
    """States whose maximum is within rounding of the threshold, or a little above or below it."""
    start = {"a_u": 0.0, "a_z": 2.0}

    def n_events(c):
        net = evsim.Network(dt=None, dtype="float64")
        bias = np.repeat([0.0, 0.0, -1.0], len(c))
        net.add(EGRU(len(c), "units", threshold=0.5, bias=bias, tau_m=5.0, tau_s=TAU_S))
        return evsim.Simulation(net).run(duration=10.0, initial={"units": start | {"c": c}})["units"].n_events

    low, high = 0.0, 0.499
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if n_events([middle]) else (middle, high)
    spread = np.geomspace(1e-17, 1e-3, 100)
    assert n_events(high + spread) == 100
    assert n_events(low - spread) == 0
