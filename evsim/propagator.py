"""The exact step of a leaky integrate-and-fire unit: what a time dt makes of its state, and the derivative.

Between events the equations at the head of `evsim.models.lif` are linear, so that a step is a matrix product
(Rotter & Diesmann, "Exact digital simulation of time-invariant linear systems with applications to neuronal
modeling", Biological Cybernetics 81, 1999).  With a = 1 / tau_m and c = 1 / tau of a current::

    V(dt) = V + leak (bias - V) + gain_e I_e + gain_i I_i         leak = 1 - exp(-a dt)
    I(dt) = keep I                                                keep = exp(-c dt)
    gain  = a dt E,   E = integral over 0 <= r <= 1 of exp(-a dt (1 - r) - c dt r)

E is exp(-a dt) (1 - exp(-x)) / x with x = (c - a) dt, and symmetric in a and c.  With the slower of the two
rates before the fraction, x is not negative, and nothing cancels or overflows, whether time constants are
equal, nearly so, or thousands of times apart.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class Propagator(NamedTuple):
    """The numbers of a step, as named at the head of this file; also the gradient at each of them."""

    leak: float
    keep_e: float
    keep_i: float
    gain_e: float
    gain_i: float


def lif_propagator(dt: float, tau_m: float, tau_e: float, tau_i: float) -> Propagator:
    """The numbers of a step of ``dt``; all in ms."""
    m, e, i = dt / tau_m, dt / tau_e, dt / tau_i
    return Propagator(-math.expm1(-m), math.exp(-e), math.exp(-i), m * _overlap(m, e), m * _overlap(m, i))


def lif_propagator_vjp(
    dt: float, tau_m: float, tau_e: float, tau_i: float, d: Propagator
) -> tuple[float, float, float]:
    """Gradient at tau_m, tau_e and tau_i, in 1 / ms, from that at the numbers of a step, ``d``."""
    m, e, i = dt / tau_m, dt / tau_e, dt / tau_i
    by_m = d.leak * math.exp(-m)
    by_current = []
    for rate, d_keep, d_gain in ((e, d.keep_e, d.gain_e), (i, d.keep_i, d.gain_i)):
        gain_by_m, gain_by_rate = _gain_slopes(m, rate)
        by_m += d_gain * gain_by_m
        by_current.append(d_gain * gain_by_rate - d_keep * math.exp(-rate))
    by_e, by_i = by_current
    # d (dt / tau) / d tau = -(dt / tau) / tau
    return -by_m * m / tau_m, -by_e * e / tau_e, -by_i * i / tau_i


def _overlap(m: float, c: float) -> float:
    """E of two rates in 1 / dt."""
    x = abs(c - m)
    return math.exp(-min(m, c)) * (-math.expm1(-x) / x if x else 1.0)


def _gain_slopes(m: float, c: float) -> tuple[float, float]:
    """Derivatives of m E by both rates."""
    by_m, by_c = _overlap_slopes(m, c)
    if m - c > 0.5:  # where m E is nearly 1 the sum below would be a small difference
        return (m * math.exp(-m) - c * _overlap(m, c)) / (m - c), m * by_c
    return _overlap(m, c) + m * by_m, m * by_c


def _overlap_slopes(m: float, c: float) -> tuple[float, float]:
    """Derivatives of E by both rates."""
    if c < m:
        by_c, by_m = _overlap_slopes(c, m)
        return by_m, by_c
    by_c = -math.exp(-m) * _moment(c - m)
    return -_overlap(m, c) - by_c, by_c  # the weights 1 - r and r add up to 1


def _moment(x: float) -> float:
    """(1 - (1 + x) exp(-x)) / x^2, the mean of r exp(-x r) over 0 <= r <= 1, for x >= 0."""
    if x > 0.5:
        return (1.0 - (1.0 + x) * math.exp(-x)) / x**2
    return math.fsum((-x) ** k / (math.factorial(k) * (k + 2)) for k in range(16))
