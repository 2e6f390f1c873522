"""The event-based gated recurrent unit, in the three forms that carry its name.

Subramoney, Nazeer, Schoene, Mayr & Kappel, "Efficient recurrent architectures through activity sparsity and
sparse back-propagation through time", ICLR 2023 (arXiv 2206.06178).

A unit holds a state c.  When c exceeds its threshold it sends an event whose value y is the state itself;
otherwise it says nothing.  Recurrence goes through the events only.  Below, x are events from other
populations, y' are events that arrive through the recurrent port, s is the logistic function and H the
Heaviside function with H(0) = 0.

In steps
--------
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

In continuous time
------------------
``form="continuous"`` (the appendix of that paper, which derives the two above from it): what arrives is
filtered, and the gates follow the filtered values::

    tau_s da_X/dt = b_X - a_X                            X = u, r, z
    tau_m dc/dt   = s(a_u) (tanh(a_z) - c)
    at rest       c = 0,  a_X = b_X

When c reaches the threshold from below, c becomes 0 and an event is sent.  Its payload y is the threshold
(``transmit="value"``: the state, as above) or 1 (``transmit="unit"``).  Where it arrives::

    port "input"        a_X += W_X y                     X = u, r, z
    port "recurrent"    a_u += W_u y,  a_r += W_r y,  a_z += W_z y rho

    gate "pre"          rho = s(a_r) of the sender, just before its event
    gate "post"         rho = s(a_r) of the target, just before the arrival
    gate "none"         rho = 1

Neither c nor a threshold jumps when an event arrives, so no event causes another at the same instant.  As c
stays below 1 and moves no faster than 1 / tau_m, two events of a unit are at least -tau_m ln(1 - threshold)
apart: a threshold of 0 would allow infinitely many in no time, one of 1 is never reached.

The gradient is that of the event times and states themselves: adjoint variables run backwards in time and
jump at events (the appendix; the general rule is that of Wunderlich & Pehle, see `evsim.models.lif`).
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from evsim.errors import NetworkError
from evsim.population import Initial, Population, Rng

#: Names of the blocks of both ports, by form.
BLOCKS = {"evnn": ("z", "r", "g"), "paper": ("u", "r", "z"), "continuous": ("u", "r", "z")}
#: How the candidate's recurrent events are gated, and what an event is worth, in continuous time.
GATES, PAYLOADS = ("pre", "post", "none"), ("value", "unit")
#: Range of thresholds in continuous time.
LOWEST_THRESHOLD, HIGHEST_THRESHOLD = 1e-3, 0.999


def beta_threshold(mean: float) -> Callable[["np.random.Generator", tuple[int, ...]], NDArray]:
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
        Per unit, within [0, 1]; 0 is allowed and means that every positive state is an event.  In continuous
        time within [0.001, 0.999].
    form : {"evnn", "paper", "continuous"}, optional
        In steps: where the reset gate acts and what a reset is; by default "evnn".  In continuous time there
        is one form.
    bias : number, array of shape (3 n_units,) or callable
        Blocks in the order of the port: (z, r, g) or (u, r, z).
    train_threshold : bool
        Whether optimisers move the thresholds.
    gate : {"pre", "post", "none"}
        Whose reset gate acts on the candidate's recurrent events.  With "pre" these come from EGRU
        populations only.  This and all that follow: in continuous time only.
    transmit : {"value", "unit"}
        Whether an event's payload is the threshold or 1.
    tau_m, tau_s : number, array of shape (1,) or callable
        Time constants of the state and of the gates' inputs, in ms.
    train_time_constants : bool
        Whether optimisers move them.
    """

    losses = ("", "y", "o")
    continuous_losses: ClassVar[tuple[str, ...]] = ("", "time", "integral", "square")
    only_continuous: ClassVar[Mapping[str, Any]] = {
        "gate": "pre",
        "transmit": "value",
        "tau_m": 20.0,
        "tau_s": 5.0,
        "train_time_constants": False,
    }

    def __init__(
        self,
        n_units: int,
        name: str,
        threshold: Initial = 0.3,
        form: Literal["evnn", "paper", "continuous"] | None = None,
        bias: Initial = 0.0,
        train_threshold: bool = True,
        gate: Literal["pre", "post", "none"] = "pre",
        transmit: Literal["value", "unit"] = "value",
        tau_m: Initial = 20.0,
        tau_s: Initial = 5.0,
        train_time_constants: bool = False,
    ):
        super().__init__(n_units, name)
        for argument, value, allowed in (
            ("form", form, (None, *BLOCKS)),
            ("gate", gate, GATES),
            ("transmit", transmit, PAYLOADS),
        ):
            if value not in allowed:
                names = " or ".join(repr(one) for one in allowed if one is not None)
                raise NetworkError(f"population '{name}'", f"{argument} is {value!r}", f"use {names}")
        self.gate, self.transmit = gate, transmit
        self._threshold, self._bias, self._train_threshold = threshold, bias, bool(train_threshold)
        self._form = form
        self._given = {
            "gate": gate,
            "transmit": transmit,
            "tau_m": tau_m,
            "tau_s": tau_s,
            "train_time_constants": bool(train_time_constants),
        }
        self._take(form or "evnn")

    def settle(self, continuous: bool) -> None:
        """Take the default form, or see to it that the chosen one is of that kind of time."""
        super().settle(continuous)
        form = self._form or ("continuous" if continuous else "evnn")
        if (form == "continuous") != continuous:
            raise self._needs(not continuous, f"form '{form}'", "leave out form")
        self._take(form)

    def _take(self, form: str) -> None:
        self.form = form
        self.kernel = f"egru_{form}"
        self.ports = {"input": BLOCKS[form], "recurrent": BLOCKS[form]}
        self.states = ("c", "a_u", "a_r", "a_z") if form == "continuous" else ("c",)

    def build(self, dtype: np.dtype, rng: Rng) -> None:
        """Make the parameter arrays.

        ``bias`` (and ``recurrent_bias`` in EvNN's form), shape (3 n_units,), and ``threshold``, shape
        (n_units,); in continuous time ``tau_m`` and ``tau_s``, shape (1,), too.
        """
        self._add("bias", self._bias, (3 * self.n_units,), dtype, rng)
        if self.form == "evnn":
            self._add("recurrent_bias", 0.0, (3 * self.n_units,), dtype, rng)
        limits: dict[str, Any] = {"lower": 0.0, "upper": 1.0}
        if self.continuous:
            reason = "with 0 a unit sends without end at one instant, with 1 never"
            limits = {"lower": LOWEST_THRESHOLD, "upper": HIGHEST_THRESHOLD, "reason": reason}
        self._add(
            "threshold",
            self._threshold,
            (self.n_units,),
            dtype,
            rng,
            trainable=self._train_threshold,
            **limits,
        )
        if self.continuous:
            for name in ("tau_m", "tau_s"):
                self._add_time_constant(
                    name, self._given[name], dtype, rng, self._given["train_time_constants"]
                )

    def default_port(self, source: Population) -> str:
        """``recurrent`` from itself, ``input`` from others."""
        return "recurrent" if source is self else "input"

    def check_projection(self, where: str, source: Population, port: str) -> None:
        """Where events are gated by the sender's reset gate, the sender must have one.

        The paper's form takes those of the population itself, continuous time those of any EGRU population.
        """
        if self.form == "paper" and port == "recurrent" and source is not self:
            raise NetworkError(
                where,
                f"the recurrent port of '{self.name}' (form 'paper') takes its own events only",
                "use port='input'",
            )
        if self.continuous and self.gate == "pre" and port == "recurrent" and not isinstance(source, EGRU):
            raise NetworkError(
                where,
                f"the recurrent port of '{self.name}' (gate 'pre') takes events of EGRU populations only, "
                f"as {source!r} has no reset gate",
                "use port='input', or gate='post'",
            )

    def describe(self) -> dict:
        """Type and arguments."""
        own = {"gate": self.gate, "transmit": self.transmit} if self.continuous else {}
        return super().describe() | {"form": self.form} | own
