"""The exact step of a LIF unit against SciPy's matrix exponential, and closed forms in many digits."""

from decimal import Decimal, localcontext
from itertools import product

import numpy as np
import pytest
import scipy.linalg

from evsim.models import LIF
from evsim.network import Network
from evsim.propagator import Propagator, lif_propagator, lif_propagator_vjp

DIGITS = 90


def exact(dt, tau_m, tau_e, tau_i):
    """The numbers of a step in many digits; arguments are Decimal."""
    a = 1 / tau_m
    g = (-a * dt).exp()
    found = [1 - g]
    keeps = [(-dt / tau).exp() for tau in (tau_e, tau_i)]
    found += keeps
    for keep, tau in zip(keeps, (tau_e, tau_i), strict=True):
        c = 1 / tau
        found.append(a * dt * g if a == c else a * (keep - g) / (a - c))
    return found


def relative(got, expected):
    """Largest error, each relative to what is expected (of subnormal numbers, absolute)."""
    expected = np.array([float(x) for x in expected])
    return float((np.abs(np.array(got) - expected) / np.maximum(np.abs(expected), 1e-290)).max())


def condition(times):
    """Error to be expected: exp(-x) has an error of x times that of x."""
    dt, *taus = times
    return 4e-15 * (1 + dt / min(taus))


TIMES = [
    (dt, tau_m, tau_e, tau_i)
    for dt, tau_m in product((1e-3, 0.1, 1.0), (1e-3, 0.1, 5.0, 20.0, 1e4))
    for tau_e, tau_i in ((5.0, 10.0), (tau_m, tau_m * (1 + 1e-12)), (tau_m * (1 - 1e-7), 1.001 * tau_m))
] + [(0.5, 20.0, 1e-3, 1e5), (0.1, 1e-3, 1e5, 0.9e-3), (0.3, 0.7, 0.4, 2.0)]


@pytest.mark.parametrize("times", TIMES)
def test_numbers_in_many_digits(times):
    with localcontext(prec=DIGITS):
        expected = exact(*map(Decimal, times))
    assert relative(lif_propagator(*times), expected) < condition(times)


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("which", range(5), ids=Propagator._fields)
def test_gradients_in_many_digits(times, which):
    one = Propagator(*(float(k == which) for k in range(5)))
    got = lif_propagator_vjp(*times, one)
    with localcontext(prec=DIGITS):
        dt, *taus = map(Decimal, times)
        expected = []
        for k, tau in enumerate(taus):
            small = tau * Decimal(10) ** -28
            ends = [exact(dt, *taus[:k], tau + sign * small, *taus[k + 1 :])[which] for sign in (1, -1)]
            expected.append((ends[0] - ends[1]) / (2 * small))
    scale = max(abs(float(x)) for x in expected)
    assert np.abs(np.array(got) - [float(x) for x in expected]).max() <= 4 * condition(times) * scale


@pytest.mark.parametrize("dt", [0.05, 1.0])
@pytest.mark.parametrize("taus", [(20.0, 5.0, 10.0), (5.0, 5.0, 10.0), (2.0, 8.0, 2.0 + 1e-9)])
def test_a_unit_moves_as_the_matrix_exponential_does(dt, taus):
    network = Network(dt=dt, dtype="float64")
    unit = network.add(LIF(1, "unit", tau_m=taus[0], tau_e=taus[1], tau_i=taus[2]))
    step, (tau_m, tau_e, tau_i) = unit.propagator(dt), taus
    rates = np.array([[-1 / tau_m, 1 / tau_m, 1 / tau_m], [0, -1 / tau_e, 0], [0, 0, -1 / tau_i]])
    moved = [[1 - step.leak, step.gain_e, step.gain_i], [0, step.keep_e, 0], [0, 0, step.keep_i]]
    np.testing.assert_allclose(moved, scipy.linalg.expm(rates * dt), rtol=1e-13, atol=0)


@pytest.mark.parametrize(
    ("refractory", "dt", "steps"),
    [
        (0.0, 1.0, 0),
        (2.0, 1.0, 2),
        (2.0, 0.1, 20),
        (0.3, 0.1, 3),
        (2.1, 0.7, 3),
        (2.5, 1.0, 3),
        (0.01, 0.1, 1),
        (5.0, 0.0125, 400),
    ],
)
def test_refractory_periods_are_whole_steps_and_not_too_short(refractory, dt, steps):
    assert LIF(1, "unit", refractory=refractory).held_steps(dt) == steps
