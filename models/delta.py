"""Delta networks: gated recurrent units that send the change of their output, once it is large enough.

Neil, Lee, Delbruck & Liu, "Delta networks for optimized recurrent network computation", ICML 2017 (arXiv
1612.05571); Chen, Gao, Wang, Cheng, Zhou, Liu & Delbruck, "Exploiting symmetric temporally sparse BPTT for
efficient RNN training", AAAI 2024 (arXiv 2312.09391).

A line is anything that changes in time: an input or the output h of a unit.  It remembers what it has sent so
far and sends an event when it has moved away from that by its threshold::

    d = h_t - sent_{t-1}
    event of value d   if |d| >= threshold and d != 0
    sent_t = sent_{t-1} + d   if it was sent, else sent_{t-1}

So ``sent`` is exactly the sum of all payloads, |h - sent| stays below the threshold, and a threshold of 0
sends whatever changed (in floating point that includes rounding errors of ``sent``).  Targets hold the sums
of all they have received: with d' the events that arrive,
::

    m_t = m_{t-1} + d' W,     m_{-1} = 0;     M_t = m_t + bias

Because the events of a line sum up to its ``sent``, M = bias + sent W: a delta network is an ordinary
recurrent network that sees held copies of its inputs and outputs.  Below, s is the logistic function.

`DeltaGRU`, with the reset gate after the product (as in cuDNN, PyTorch and Keras)::

    r = s(M_r),  z = s(M_z),  n = tanh(M_n + r M_q)
    h_t = (1 - z) n + z h_{t-1}

where q takes the recurrent events of the candidate and n those of the input.  `DeltaLSTM`::

    i = s(M_i),  f = s(M_f),  g = tanh(M_g),  o = s(M_o)
    c_t = f c_{t-1} + i g,  h_t = o tanh(c_t)

With threshold 0 they are the GRU and the LSTM of PyTorch.  The gradient is exact with the choice of what was
sent held fixed: it reads and writes the weight rows of the events, and no others.

In continuous time the gates keep their values from one arrival to the next, and the state moves towards where
it was going step by step: steps of length tau would be those above.  `DeltaGRU` and `DeltaLSTM`::

    tau dh/dt = (1 - z) (n - h)
    tau dc/dt = i g - (1 - f) c,  h = o tanh(c)
    at rest     m = 0,  c = 0,  h = 0,  sent = 0

An event of value d = h - sent is sent when |d| reaches the threshold: it is plus or minus the threshold, but
where h jumps.  That of a `DeltaGRU` never does; that of a `DeltaLSTM` does with its output gate, so that an
arrival can cause an event at the same instant: no cycle that goes through one may be free of delay.  The
gradient holds the times of events fixed and follows their values, as that of steps does, and tends to the
gradient of the network without thresholds as they become small.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from evsim.errors import NetworkError
from evsim.population import Initial, Population, Rng

#: Smallest threshold in continuous time.
LOWEST_THRESHOLD = 1e-6


class _DeltaUnits(Population):
    """What the two units share: four accumulators, a bias for each, one threshold per unit."""

    sends = "changes"
    takes = "changes"
    losses = ("", "y")
    continuous_losses: ClassVar[tuple[str, ...]] = ("", "integral", "square")
    only_continuous: ClassVar[Mapping[str, Any]] = {"tau": 20.0, "train_time_constants": False}

    def __init__(
        self,
        n_units: int,
        name: str,
        threshold: Initial = 0.1,
        bias: Initial = 0.0,
        tau: Initial = 20.0,
        train_time_constants: bool = False,
    ):
        super().__init__(n_units, name)
        self._threshold, self._bias = threshold, bias
        self._given = {"tau": tau, "train_time_constants": bool(train_time_constants)}

    def build(self, dtype: np.dtype, rng: Rng) -> None:
        """Make ``bias``, shape (4 n_units,), and ``threshold``, shape (n_units,), which is not trained.

        In continuous time ``tau``, shape (1,), too.
        """
        self._add("bias", self._bias, (4 * self.n_units,), dtype, rng)
        limits: dict[str, Any] = {"lower": 0.0}
        if self.continuous:
            reason = "with 0 a unit sends without end at one instant"
            limits = {"lower": LOWEST_THRESHOLD, "reason": reason}
        self._add("threshold", self._threshold, (self.n_units,), dtype, rng, trainable=False, **limits)
        if self.continuous:
            trained = self._given["train_time_constants"]
            self._add_time_constant("tau", self._given["tau"], dtype, rng, trained)

    def default_port(self, source: Population) -> str:
        """``recurrent`` from itself, also by way of a `DeltaEncoder`; ``input`` from others."""
        return "recurrent" if self in (source, source.watches) else "input"


class DeltaGRU(_DeltaUnits):
    """Delta gated recurrent units; the equations are those at the head of this file.

    Parameters
    ----------
    n_units : int
    name : str
    threshold : number, array of shape (n_units,) or callable (generator, shape) -> array
        Change of h, per unit, that makes an event; 0 or more, in continuous time 1e-6 or more.  `calibrate`
        sets it from data.
    bias : number, array of shape (4 n_units,) or callable
        Blocks (r, z, n, q).
    tau : number, array of shape (1,) or callable
        Time constant of h, in ms; in continuous time only.
    train_time_constants : bool
        Whether optimisers move it; in continuous time only.
    """

    kernel = "delta_gru"
    ports: Mapping[str, tuple[str, ...]] = {"input": ("r", "z", "n"), "recurrent": ("r", "z", "q")}
    states = ("m_r", "m_z", "m_n", "m_q", "h", "sent")


class DeltaLSTM(_DeltaUnits):
    """Delta long short-term memory units; the equations are those at the head of this file.

    Parameters
    ----------
    n_units : int
    name : str
    threshold : number, array of shape (n_units,) or callable (generator, shape) -> array
        Change of h, per unit, that makes an event; 0 or more, in continuous time 1e-6 or more.  `calibrate`
        sets it from data.
    bias : number, array of shape (4 n_units,) or callable
        Blocks (i, f, g, o).
    tau : number, array of shape (1,) or callable
        Time constant of c, in ms; in continuous time only.
    train_time_constants : bool
        Whether optimisers move it; in continuous time only.
    """

    kernel = "delta_lstm"
    ports: Mapping[str, tuple[str, ...]] = {"input": ("i", "f", "g", "o"), "recurrent": ("i", "f", "g", "o")}
    states = ("m_i", "m_f", "m_g", "m_o", "c", "h", "sent")
    cascades: ClassVar[bool] = True


class DeltaEncoder(Population):
    """A second event stream of the same lines: the changes of h of a delta population, by another threshold.

    For targets that need finer or coarser events than the population itself sends.  With threshold 0 a
    `DeltaReadout` behind it sees h as it is.  Not in continuous time.

    Parameters
    ----------
    watches : DeltaGRU or DeltaLSTM
        Of the same network, and added before.
    name : str
    threshold : number, array of shape (n_units,) or callable (generator, shape) -> array
    """

    kernel = "delta_encoder"
    sends = "changes"
    states = ("sent",)
    watches: Population

    def __init__(self, watches: Population, name: str, threshold: Initial = 0.0):
        if not isinstance(watches, _DeltaUnits):
            raise NetworkError(
                f"population '{name}'", f"cannot watch {watches!r}", "give a DeltaGRU or a DeltaLSTM"
            )
        super().__init__(watches.n_units, name)
        self.watches = watches
        self._threshold = threshold

    def settle(self, continuous: bool) -> None:
        """There is no continuous form."""
        if continuous:
            raise self._needs(False, repr(self), f"connect '{self.watches.name}' itself")
        super().settle(continuous)

    def build(self, dtype: np.dtype, rng: Rng) -> None:
        """Make ``threshold``, shape (n_units,), which is not trained."""
        self._add("threshold", self._threshold, (self.n_units,), dtype, rng, lower=0.0, trainable=False)

    def describe(self) -> dict:
        """Type and arguments."""
        return super().describe() | {"watches": self.watches.name}
