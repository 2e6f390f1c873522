"""The event-based gated recurrent unit, in the two forms that carry its name.

Subramoney, Nazeer, Schoene, Mayr & Kappel, "Efficient recurrent architectures through activity sparsity and
sparse back-propagation through time", ICLR 2023 (arXiv 2206.06178).

A unit holds a state c.  When c exceeds its threshold it sends an event whose value y is the state itself;
otherwise it says nothing.  Recurrence goes through the events only.  Below, x are events from other
populations, y' are events that arrive through the recurrent port, s is the logistic function and H the
Heaviside function with H(0) = 0.

``form="evnn"``: the reset gate multiplies the result of the recurrent product (as in EvNN, and in cuDNN's
GRU)::

    z = s(x Wz + bz + y' Rz + bRz)                       keeps the old state
    r = s(x Wr + br + y' Rr + bRr)
    g = tanh(x Wg + bg + r * (y' Rg + bRg))
    a_t = z c_{t-1} + (1 - z) g
    o_t = H(a_t - threshold),  y_t = o_t a_t,  c_t = a_t - o_t threshold

``form="paper"``: the reset gate multiplies the events before the product (ICLR 2023, eqs 1-3)::

    u = s(x Wu + y' Ru + bu)                             takes the new candidate
    r = s(x Wr + y' Rr + br)
    z = tanh(x Wz + (r * y') Rz + bz)
    a_t = u z + (1 - u) c_{t-1} - y_{t-1}
    o_t = H(a_t - threshold),  y_t = o_t a_t,  c_t = a_t

In the paper's form r is evaluated only for units whose events arrive, and its recurrent port takes
projections from the population itself only: r belongs to the sender.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evsim.errors import NetworkError
from evsim.population import Initial, Population


def beta_threshold(mean: float) -> Callable[[np.random.Generator, tuple[int, ...]], NDArray]:
    """Thresholds drawn from Beta(3 m / (1 - m), 3), whose mean is m: EvNN's initialisation.

    A small mean gives many thresholds that are zero for all purposes (for m = 0.01, two in three are below
    1e-6).
    """
    if not 0 < mean < 1:
        raise NetworkError("beta_threshold", f"mean is {mean!r}", "give a number between 0 and 1")
    return lambda rng, shape: rng.beta(3 * mean / (1 - mean), 3.0, shape)


class EGRU(Population):
    """Event-based gated recurrent units; the equations are those at the head of this file.

    Parameters
    ----------
    n_units : int
    name : str
    threshold : number, array of shape (n_units,) or callable (generator, shape) -> array
        Per unit, within [0, 1]; 0 is allowed and means that every positive state is an event.
    form : {"evnn", "paper"}
        Where the reset gate acts and what a reset is.
    bias : number, array of shape (3 n_units,) or callable
        Blocks in the order of the port: (z, r, g) or (u, r, z).
    train_threshold : bool
        Whether optimisers move the thresholds.
    """

    states = ("c",)
    losses = ("", "y", "o")

    def __init__(
        self,
        n_units: int,
        name: str,
        threshold: Initial = 0.3,
        form: Literal["evnn", "paper"] = "evnn",
        bias: Initial = 0.0,
        train_threshold: bool = True,
    ):
        super().__init__(n_units, name)
        if form not in ("evnn", "paper"):
            raise NetworkError(f"population '{name}'", f"form is {form!r}", "use 'evnn' or 'paper'")
        self.form = form
        self._threshold, self._bias, self._train_threshold = threshold, bias, bool(train_threshold)
        self.kernel = f"egru_{form}"
        blocks = ("z", "r", "g") if form == "evnn" else ("u", "r", "z")
        self.ports = {"input": blocks, "recurrent": blocks}

    def build(self, dtype: np.dtype, rng: np.random.Generator) -> None:
        """Make the parameter arrays.

        ``bias`` (and ``recurrent_bias`` in EvNN's form), shape (3 n_units,), and ``threshold``, shape
        (n_units,).
        """
        self._add("bias", self._bias, (3 * self.n_units,), dtype, rng)
        if self.form == "evnn":
            self._add("recurrent_bias", 0.0, (3 * self.n_units,), dtype, rng)
        self._add(
            "threshold",
            self._threshold,
            (self.n_units,),
            dtype,
            rng,
            lower=0.0,
            upper=1.0,
            trainable=self._train_threshold,
        )

    def default_port(self, source: Population) -> str:
        """``recurrent`` from itself, ``input`` from others."""
        return "recurrent" if source is self else "input"

    def check_projection(self, where: str, source: Population, port: str) -> None:
        """The paper's form gates events by the sender's reset gate, so they must be its own."""
        if self.form == "paper" and port == "recurrent" and source is not self:
            raise NetworkError(
                where,
                f"the recurrent port of '{self.name}' (form 'paper') takes its own events only",
                "use port='input'",
            )

    def describe(self) -> dict:
        """Type and arguments."""
        return super().describe() | {"form": self.form}
