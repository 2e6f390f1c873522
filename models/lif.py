"""The leaky integrate-and-fire unit with exponential currents, in continuous time.

Two currents, as in Vogels & Abbott, "Signal propagation and logic gating in networks of integrate-and-fire
neurons", Journal of Neuroscience 25, 2005, in the current-based form ("CUBA", benchmark 2) of Brette et al.,
"Simulation of networks of spiking neurons: a review of tools and strategies", Journal of Computational
Neuroscience 23, 2007::

    tau_m dV/dt   = -V + bias + I_e + I_i
    tau_e dI_e/dt = -I_e
    tau_i dI_i/dt = -I_i
    at rest       V = reset,  I_e = I_i = 0

When V reaches the threshold from below, an event of payload 1 is sent, V becomes the reset and stays there
for the refractory period, of which the state ``hold`` is what is left in ms; the currents go on.  Where an
event of payload y arrives::

    port "excitatory"    I_e += W y
    port "inhibitory"    I_i += W y

The ports differ in their time constants only: a weight has the sign it is given, so that one that inhibits
is negative on either.  Currents are in the unit of V.  V does not jump when an event arrives, so no event
causes another at the same instant.

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
from evsim.population import Initial, Population

#: How far a threshold must be above the reset.
THRESHOLD_ABOVE_RESET = 1e-3


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
        How long it stays there, in ms; 0 or more.
    train_threshold, train_time_constants : bool
        Whether optimisers move them.
    """

    kernel = "lif"
    ports: Mapping[str, tuple[str, ...]] = {"excitatory": ("i_e",), "inhibitory": ("i_i",)}
    states = ("v", "i_e", "i_i", "hold")
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
        self._threshold, self._bias, self._train_threshold = threshold, bias, bool(train_threshold)
        self._time_constants = {"tau_m": tau_m, "tau_e": tau_e, "tau_i": tau_i}
        self._train_time_constants = bool(train_time_constants)

    def settle(self, continuous: bool) -> None:
        """There is no clocked form."""
        if not continuous:
            raise self._needs(True, repr(self), "use EGRU")
        super().settle(continuous)

    def build(self, dtype: np.dtype, rng: np.random.Generator) -> None:
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

    def describe(self) -> dict[str, Any]:
        """Type and arguments."""
        return super().describe() | {"reset": self.reset, "refractory_ms": self.refractory}


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and math.isfinite(value)
