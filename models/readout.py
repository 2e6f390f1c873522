"""Readouts: populations that integrate events and send none.  Their state is what a loss looks at."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from evsim.errors import NetworkError
from evsim.population import Initial, Population, Rng


class LeakyReadout(Population):
    """A leaky integrator of events::

        v_t = k v_{t-1} + (1 - k) (sum_i W_i y_i,t + b),    k = exp(-dt / tau)

    In continuous time an event of payload y from unit i, when it arrives, makes a jump of its weights::

        tau dv/dt = b - v,    v += W_i y,    at rest v = b

    Parameters
    ----------
    n_units : int
    name : str
    tau : float
        Time constant in ms; 0 integrates nothing (see `LinearReadout`).  In continuous time a parameter of
        shape (1,), 0.001 or more.
    bias : number, array of shape (n_units,) or callable
    train_time_constants : bool
        Whether optimisers move tau; in continuous time only.
    """

    kernel = "readout"
    ports: Mapping[str, tuple[str, ...]] = {"input": ("v",)}
    emits: ClassVar[bool] = False
    states = ("v",)
    losses = ("",)
    continuous_losses: ClassVar[tuple[str, ...]] = ("", "integral", "square")
    only_continuous: ClassVar[Mapping[str, Any]] = {"train_time_constants": False}

    def __init__(
        self,
        n_units: int,
        name: str,
        tau: float = 10.0,
        bias: Initial = 0.0,
        train_time_constants: bool = False,
    ):
        super().__init__(n_units, name)
        if not (isinstance(tau, (int, float)) and math.isfinite(tau) and tau >= 0):
            raise NetworkError(
                f"population '{name}'", f"tau is {tau!r}", "give a time constant in ms, 0 or more"
            )
        self.tau = float(tau)
        self._bias = bias
        self._given = {"train_time_constants": bool(train_time_constants)}

    def build(self, dtype: np.dtype, rng: Rng) -> None:
        """Make ``bias``, shape (n_units,), and in continuous time ``tau``, shape (1,)."""
        self._add("bias", self._bias, (self.n_units,), dtype, rng)
        if self.continuous:
            self._add_time_constant("tau", self.tau, dtype, rng, self._given["train_time_constants"])

    def decay(self, dt: float) -> float:
        """The factor k of one step of ``dt`` ms."""
        return math.exp(-dt / self.tau) if self.tau > 0 else 0.0

    def describe(self) -> dict:
        """Type and arguments."""
        return super().describe() | ({} if self.continuous else {"tau_ms": self.tau})


class LinearReadout(LeakyReadout):
    """A readout without memory, for classes: ``v_t = sum_i W_i y_i,t + b``.  Not in continuous time.

    Parameters
    ----------
    n_units : int
    name : str
    bias : number, array of shape (n_units,) or callable
    """

    def __init__(self, n_units: int, name: str, bias: Initial = 0.0):
        super().__init__(n_units, name, tau=0.0, bias=bias)

    def settle(self, continuous: bool) -> None:
        """There is no continuous form: it would hold nothing but at single instants."""
        if continuous:
            raise self._needs(False, repr(self), "use LeakyReadout")
        super().settle(continuous)


class DeltaReadout(Population):
    """A readout of changes: it holds the sum of all that it has received::

        m_t = m_{t-1} + sum_i d_i,t W_i,    v_t = m_t + b

    In continuous time the same, from arrival to arrival: m += W_i d; at rest m = 0.

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
    continuous_losses: ClassVar[tuple[str, ...]] = ("", "integral", "square")

    def __init__(self, n_units: int, name: str, bias: Initial = 0.0):
        super().__init__(n_units, name)
        self._bias = bias

    def build(self, dtype: np.dtype, rng: Rng) -> None:
        """Make ``bias``, shape (n_units,)."""
        self._add("bias", self._bias, (self.n_units,), dtype, rng)
