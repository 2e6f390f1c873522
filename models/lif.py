"""The leaky integrate-and-fire unit with exponential currents, in both kinds of time.

Two currents, as in Vogels & Abbott, "Signal propagation and logic gating in networks of integrate-and-fire
neurons", Journal of Neuroscience 25, 2005, in the current-based form ("CUBA", benchmark 2) of Brette et al.,
"Simulation of networks of spiking neurons: a review of tools and strategies", Journal of Computational
Neuroscience 23, 2007::

    tau_m dV/dt   = -V + bias + I_e + I_i
    tau_e dI_e/dt = -I_e
    tau_i dI_i/dt = -I_i
    at rest       V = reset,  I_e = I_i = 0

When V reaches the threshold from below, an event (a spike) of payload 1 is sent, V becomes the reset and
stays there for the refractory period, of which the state ``hold`` is what is left; the currents go on.  Where
an event of payload y arrives::

    port "excitatory"    I_e += W y
    port "inhibitory"    I_i += W y

The ports differ in their time constants only: a weight has the sign it is given, so that one that inhibits
is negative on either.  Currents are in the unit of V.

In steps
--------
In each step, in this order: what arrives is added to the currents; V and the currents move on by dt; a unit
whose V is at or above its threshold sends; its V becomes the reset::

    I_e += sum of W y,  I_i += sum of W y
    V   += leak (bias - V) + gain_e I_e + gain_i I_i,  or V = reset while hold > 0, and hold -= 1
    I_e *= keep_e,  I_i *= keep_i
    o    = H(V - threshold),  H(0) = 1;  y = o
    V, hold = reset, n  where o = 1

The numbers are those of the exact solution over dt (`evsim.propagator`; Rotter & Diesmann 1999), so that
states are right at any dt, and only the times of events are rounded: what crosses its threshold between t and
t + dt is an event of the step at t, which acts on its targets from then on, in the same step where there is
no delay.  A network in steps tends to the same network in continuous time in proportion to dt.  Brian2 does
the same if its ``synapses`` come before its ``groups``; by its own schedule it adds what arrives at the end
of a step, as NEST does, one step later.

``hold`` counts steps, n = refractory / dt of them after that of the event, rounded up, so that a refractory
period is never shorter than asked for.  (NEST does the same.  Brian2 rounds down and counts the step of the
event too: n there is Brian2's for ``refractory=(n + 1)*dt``.)

Backwards, H' is the pseudo-derivative of V - threshold before the reset, 0 while ``hold`` > 0 (a unit that is
held cannot send); its width is in the unit of V.  The reset is differentiated like everything else, by o as
well as by V, as that of EGRU is; the time for which V is held is not.

In continuous time
------------------
``hold`` is in ms.  V does not jump when an event arrives, so no event causes another at the same instant.

With one current, no bias, reset 0 and no refractory period this is the network of Wunderlich & Pehle,
"Event-based backpropagation can compute exact gradients for spiking neural networks", Scientific Reports 11,
2021 (arXiv 2009.08378), whose adjoint equations, EventProp, give the gradient.  In terms of p_V and p_I, the
derivatives of the loss L by V and I (theirs are -p_V / tau_m and -p_I / tau_e), backwards in time (')::

    p_V'     = -p_V / tau_m + dL/dV
    p_I'     = -p_I / tau_e + p_V / tau_m
    dL/dW_nj = sum of p_I,j over the arrivals from n

and at an event of unit n at time t, with - just before and + just after it, V' the slopes forwards in time,
j over all targets and k over those but n, without delays::

    p_V,n(-) = (p_V,n(+) V'_n(+) - sum_j W_nj p_I,j / tau_e + sum_k W_nk p_V,k / tau_m - dL/dt) / V'_n(-)
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from evsim.errors import NetworkError
from evsim.population import Initial, Population, Rng
from evsim.propagator import Propagator, lif_propagator

#: How far a threshold must be above the reset.
THRESHOLD_ABOVE_RESET = 1e-3
#: Relative error of refractory / dt that makes no further step: 2.1 / 0.7 is a little more than 3.
ROUNDING = 1e-9


class LIF(Population):
    """Leaky integrate-and-fire units; the equations are those at the head of this file.

    Parameters
    ----------
    n_units : int
    name : str
    threshold : number, array of shape (n_units,) or callable (generator, shape) -> array
        Per unit, in the unit of V; more than 0.001 above the reset.
    bias : number, array of shape (n_units,) or callable
        What V goes to without input.
    tau_m, tau_e, tau_i : number, array of shape (1,) or callable
        Time constants of V and of the two currents, in ms.
    reset : float
        What V becomes at an event.
    refractory : float
        How long it stays there, in ms; 0 or more.  In steps it is rounded up to whole ones.
    train_threshold, train_time_constants : bool
        Whether optimisers move them.
    """

    kernel = "lif"
    ports: Mapping[str, tuple[str, ...]] = {"excitatory": ("i_e",), "inhibitory": ("i_i",)}
    states = ("v", "i_e", "i_i", "hold")
    losses = ("", "y", "o")
    continuous_losses: ClassVar[tuple[str, ...]] = ("", "time", "integral", "square")

    def __init__(
        self,
        n_units: int,
        name: str,
        threshold: Initial = 1.0,
        bias: Initial = 0.0,
        tau_m: Initial = 20.0,
        tau_e: Initial = 5.0,
        tau_i: Initial = 10.0,
        reset: float = 0.0,
        refractory: float = 0.0,
        train_threshold: bool = False,
        train_time_constants: bool = False,
    ):
        super().__init__(n_units, name)
        if not _is_finite(reset):
            raise NetworkError(f"population '{name}'", f"reset is {reset!r}", "give a finite number")
        if not (_is_finite(refractory) and refractory >= 0):
            raise NetworkError(
                f"population '{name}'", f"refractory is {refractory!r}", "give a number of ms, 0 or more"
            )
        self.reset, self.refractory = float(reset), float(refractory)
        self.rest = {"v": self.reset}
        self._threshold, self._bias, self._train_threshold = threshold, bias, bool(train_threshold)
        self._time_constants = {"tau_m": tau_m, "tau_e": tau_e, "tau_i": tau_i}
        self._train_time_constants = bool(train_time_constants)

    def build(self, dtype: np.dtype, rng: Rng) -> None:
        """Make the parameter arrays.

        ``bias`` and ``threshold``, shape (n_units,), and ``tau_m``, ``tau_e``, ``tau_i``, shape (1,).
        """
        self._add("bias", self._bias, (self.n_units,), dtype, rng)
        self._add(
            "threshold",
            self._threshold,
            (self.n_units,),
            dtype,
            rng,
            lower=self.reset + THRESHOLD_ABOVE_RESET,
            reason=f"at the reset, {self.reset:g}, or below, a unit sends without end at one instant",
            trainable=self._train_threshold,
        )
        for name, initial in self._time_constants.items():
            self._add_time_constant(name, initial, dtype, rng, self._train_time_constants)

    def time_constants(self) -> tuple[float, float, float]:
        """The present tau_m, tau_e and tau_i, in ms."""
        tau_m, tau_e, tau_i = (float(self.parameters[name].values[0]) for name in self._time_constants)
        return tau_m, tau_e, tau_i

    def propagator(self, dt: float) -> Propagator:
        """The numbers of a step of ``dt`` ms."""
        return lif_propagator(dt, *self.time_constants())

    def held_steps(self, dt: float) -> int:
        """Steps of ``dt`` ms for which V stays at the reset after that of an event."""
        return math.ceil(self.refractory / dt * (1 - ROUNDING))

    def describe(self) -> dict[str, Any]:
        """Type and arguments."""
        return super().describe() | {"reset": self.reset, "refractory_ms": self.refractory}


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and math.isfinite(value)
