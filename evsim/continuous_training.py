"""Training in continuous time: each trial from rest, losses of event times and of states at samples."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.adjoint import Adjoint
from evsim.continuous_log import ContinuousLog
from evsim.errors import ParameterError
from evsim.network import Network
from evsim.optimizer import Optimizer
from evsim.parameter import Parameter
from evsim.protocol import Trial
from evsim.simulation import Simulation
from evsim.training import Tally, add


class Judgement(NamedTuple):
    """What a loss says of a run.

    Attributes
    ----------
    value : float
        Mean over lanes.
    losses : dict of str to ndarray
        Its derivatives, as `Adjoint.replay` takes them: ``{"out.time": (n_events,)}``.
    answer : ndarray of int64, shape (n_lanes,)
        The class that the network names in each lane; -1 for none.
    """

    value: float
    losses: dict[str, NDArray]
    answer: NDArray[np.int64]


#: A loss: (log, class of each lane) -> judgement.
ContinuousLoss = Callable[[ContinuousLog, NDArray], Judgement]


class ContinuousTrainer:
    """One network in continuous time with all that is needed to train it; `fit` takes it.

    Parameters
    ----------
    network : Network
    optimizer : Optimizer
    loss : callable
        (log, class of each lane) -> `Judgement`.
    samples : array of float, optional
        Times in ms from the start of a trial at which states are sampled for the loss.
    threads : int, optional
    min_slope : float, optional
        See `Adjoint`.

    Raises
    ------
    ParameterError
        The network is not in continuous time.
    """

    def __init__(
        self,
        network: Network,
        optimizer: Optimizer,
        loss: ContinuousLoss,
        *,
        samples: ArrayLike | None = None,
        threads: int | None = None,
        **options: Any,
    ):
        if not network.continuous:
            raise ParameterError("trainer", f"{network!r} is not in continuous time", "use Trainer")
        self.network, self.optimizer, self.loss, self.samples = network, optimizer, loss, samples
        self.simulation: Any = Simulation(network, threads)
        self.adjoint: Any = Adjoint(self.simulation.plan, threads=threads, **options)

    def parameters(self) -> dict[str, Parameter]:
        """Those of the network."""
        return self.network.parameters()

    def reset(self) -> None:
        """Nothing: every trial starts from rest."""

    def learn(self, trials: Iterable[Trial], tick: Callable[[], None] = lambda: None) -> Tally:
        """One pass over trials with an optimiser step after each."""
        tally = Tally()
        for trial in trials:
            start = time.perf_counter()
            log, judged = self._present(trial, tape=True)
            forward = time.perf_counter()
            gradients = self.adjoint.replay(log, judged.losses)
            backward = time.perf_counter()
            self.optimizer.step(gradients)
            _count(tally, log, trial, judged)
            tally.grazing += int(gradients.counters["grazing"])
            end = time.perf_counter()
            spent = {"forward": forward - start, "backward": backward - forward, "other": end - backward}
            add(tally.seconds, spent)
            tick()
        return tally

    def evaluate(self, trials: Iterable[Trial]) -> Tally:
        """One pass over trials without learning."""
        tally = Tally()
        for trial in trials:
            start = time.perf_counter()
            log, judged = self._present(trial, tape=False)
            add(tally.seconds, {"forward": time.perf_counter() - start})
            _count(tally, log, trial, judged)
        return tally

    def _present(self, trial: Trial, tape: bool) -> tuple[ContinuousLog, Judgement]:
        log = self.simulation.run(trial.stimulus, trial.duration, samples=self.samples, tape=tape)
        return log, self.loss(log, np.asarray(trial.target))


def _count(tally: Tally, log: ContinuousLog, trial: Trial, judged: Judgement) -> None:
    target = np.asarray(trial.target)
    asked = target >= 0
    number = int(asked.sum())
    tally.trials += 1
    tally.targets += number
    tally.loss += judged.value * number
    tally.correct = (tally.correct or 0) + int((judged.answer[asked] == target[asked]).sum())
    add(tally.events, {name: log[name].n_events for name in log if log[name].events is not None})
