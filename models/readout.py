"""Readouts: populations that integrate events and send none.  Their state is what a loss looks at."""

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from evsim.errors import NetworkError
from evsim.population import Initial, Population


class LeakyReadout(Population):
    """A leaky integrator of events::

        v_t = k v_{t-1} + (1 - k) (sum_i W_i y_i,t + b),    k = exp(-dt / tau)

    Parameters
    ----------
    n_units : int
    name : str
    tau : float
        Time constant in ms; 0 integrates nothing (see `LinearReadout`).
    bias : number, array of shape (n_units,) or callable
    """

    kernel = "readout"
    ports: Mapping[str, tuple[str, ...]] = {"input": ("v",)}
    emits: ClassVar[bool] = False
    states = ("v",)
    losses = ("",)

    def __init__(self, n_units: int, name: str, tau: float = 10.0, bias: Initial = 0.0):
        super().__init__(n_units, name)
        if not (isinstance(tau, (int, float)) and math.isfinite(tau) and tau >= 0):
            raise NetworkError(
                f"population '{name}'", f"tau is {tau!r}", "give a time constant in ms, 0 or more"
            )
        self.tau = float(tau)
        self._bias = bias

    def build(self, dtype: np.dtype, rng: np.random.Generator) -> None:
        """Make ``bias``, shape (n_units,)."""
        self._add("bias", self._bias, (self.n_units,), dtype, rng)

    def decay(self, dt: float) -> float:
        """The factor k of one step of ``dt`` ms."""
        return math.exp(-dt / self.tau) if self.tau > 0 else 0.0

    def describe(self) -> dict:
        """Type and arguments."""
        return super().describe() | {"tau_ms": self.tau}


class LinearReadout(LeakyReadout):
    """A readout without memory, for classes: ``v_t = sum_i W_i y_i,t + b``.

    Parameters
    ----------
    n_units : int
    name : str
    bias : number, array of shape (n_units,) or callable
    """

    def __init__(self, n_units: int, name: str, bias: Initial = 0.0):
        super().__init__(n_units, name, tau=0.0, bias=bias)


class DeltaReadout(Population):
    """A readout of changes: it holds the sum of all that it has received::

        m_t = m_{t-1} + sum_i d_i,t W_i,    v_t = m_t + b

    Behind a delta population it sees what that has sent so far; behind a `DeltaEncoder` with threshold 0 it
    sees the units' outputs h themselves.

    Parameters
    ----------
    n_units : int
    name : str
    bias : number, array of shape (n_units,) or callable
    """

    kernel = "delta_readout"
    ports: Mapping[str, tuple[str, ...]] = {"input": ("v",)}
    emits: ClassVar[bool] = False
    states = ("m",)
    takes = "changes"
    losses = ("",)

    def __init__(self, n_units: int, name: str, bias: Initial = 0.0):
        super().__init__(n_units, name)
        self._bias = bias

    def build(self, dtype: np.dtype, rng: np.random.Generator) -> None:
        """Make ``bias``, shape (n_units,)."""
        self._add("bias", self._bias, (self.n_units,), dtype, rng)
