"""Training: trials through a simulation, losses back through the adjoint, steps of an optimiser."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.adjoint import Adjoint
from evsim.checkpoint import Checkpoint
from evsim.errors import CheckpointError, ParameterError
from evsim.eventlog import EventLog
from evsim.loss import cross_entropy
from evsim.network import Network
from evsim.optimizer import Optimizer
from evsim.parameter import Parameter
from evsim.protocol import Trial
from evsim.simulation import Simulation
from evsim.sparsity import stored_structure

#: A loss: (state of the readout, target) -> (mean, gradient).
Loss = Callable[[NDArray, ArrayLike], tuple[float, NDArray]]


@dataclass
class Tally:
    """Sums over the trials of an epoch.

    Attributes
    ----------
    trials : int
    loss : float
        Sum over targets, in nats for cross-entropy.
    correct : int or None
        Whose class was the readout's largest; None if targets are no classes, or nobody counts.
    targets : int
    lane_steps : int
    events, unit_steps : dict of str to int
        Per population that sends: events, and units x lane-steps.
    backward_active : dict of str to int
    macs : dict of str to dict of str to int
        Of ``forward``, ``state`` (dL/dy) and ``weight``, by projection.
    dense_macs : dict of str to int
        Of each of the three if every unit sent an event in every step, by projection.
    seconds : dict of str to float
        Wall time of ``forward``, ``backward``, ``other``.
    grazing : int
        In continuous time: events at which a state reached its threshold so slowly that the slope was raised.
    """

    trials: int = 0
    loss: float = 0.0
    correct: int | None = None
    targets: int = 0
    lane_steps: int = 0
    events: dict[str, int] = field(default_factory=dict)
    unit_steps: dict[str, int] = field(default_factory=dict)
    backward_active: dict[str, int] = field(default_factory=dict)
    macs: dict[str, dict[str, int]] = field(default_factory=dict)
    dense_macs: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    grazing: int = 0

    @property
    def mean_loss(self) -> float:
        """Loss per target."""
        return self.loss / max(self.targets, 1)

    @property
    def accuracy(self) -> float | None:
        """Fraction of targets that are the readout's largest class; None if those were not counted."""
        return None if self.correct is None else self.correct / max(self.targets, 1)

    def activity(self, names: Iterable[str]) -> float:
        """Events per unit and step over some populations: alpha."""
        chosen = list(names)
        return sum(self.events[n] for n in chosen) / max(sum(self.unit_steps[n] for n in chosen), 1)

    def activities(self) -> dict[str, float]:
        """Events per unit and step of each population that sends; nothing in continuous time."""
        return {name: self.activity([name]) for name in self.unit_steps}

    def backward_activities(self) -> dict[str, float]:
        """Backward-active units per unit and step of each population that has some."""
        return {name: active / max(self.unit_steps[name], 1) for name, active in self.backward_active.items()}

    def backward_activity(self) -> float:
        """Backward-active units per unit and step: beta."""
        units = sum(self.unit_steps[name] for name in self.backward_active)
        return sum(self.backward_active.values()) / max(units, 1)

    def __iadd__(self, more: Tally) -> Tally:
        """Add the sums of further trials."""
        for name, value in vars(more).items():
            if not (isinstance(value, dict) or value is None):
                setattr(self, name, (getattr(self, name) or 0) + value)
        for name in ("events", "unit_steps", "backward_active", "dense_macs", "seconds"):
            add(getattr(self, name), getattr(more, name))
        for kind, macs in more.macs.items():
            add(self.macs.setdefault(kind, {}), macs)
        return self

    def summary(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        return {**vars(self), "mean_loss": self.mean_loss, "accuracy": self.accuracy}


@dataclass
class History:
    """What came of a call of `fit`.

    Attributes
    ----------
    epochs : list of dict
        One per epoch: ``epoch``, ``loss``, ``validation`` (loss or None), ``accuracy``, ``lr``,
        ``activity`` (of each population that sends), ``backward_activity``, ``seconds``.
    best_epoch : int
        The epoch whose parameters the network holds now.
    stopped_early : bool
    training : Tally
        Of the last epoch, which may have been run before this call resumed.
    """

    epochs: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    stopped_early: bool = False
    training: Tally = field(default_factory=Tally)


class Learner(Protocol):
    """What `fit` trains: `Trainer`, `evsim.continuous_training.ContinuousTrainer`, `WordTrainer`."""

    optimizer: Optimizer

    @property
    def network(self) -> Network | None:
        """Its sparse structure is part of checkpoints; None if what is trained is no network of ours."""

    def parameters(self) -> dict[str, Parameter]:
        """All that a checkpoint holds, by name."""

    def reset(self) -> None:
        """Forget the states in which the last trial ended."""

    def learn(self, trials: Iterable[Any], tick: Callable[[], None] = ...) -> Tally:
        """One pass over trials with an optimiser step after each."""

    def evaluate(self, trials: Iterable[Any]) -> Tally:
        """One pass over trials without learning."""


class Trainer:
    """One network with all that is needed to train it.

    Parameters
    ----------
    network : Network
    readout : str
        The population whose state the loss looks at.
    optimizer : Optimizer
    loss : callable
        (state, target) -> (mean over targets, gradient).
    activity_cost : float
        Adds ``activity_cost * mean(event)`` to the loss: the mean over all units that are trained through the
        pseudo-derivative, so that a unit is paid for being silent.
    change_cost : float
        Adds ``change_cost * mean(|event value|)`` to the loss: the mean over all delta units and steps, 0
        where nothing was sent (Chen et al. 2024, their beta sum |delta h|).
    threads : int, optional
    checkpoint : int, optional
        While it learns, keep the states before every so many steps instead of all that replay needs: the same
        gradients, up to the order of sums, in far less memory and a third more time (`Simulation.run`).
    **pseudo_derivative
        Options of `Adjoint`.

    Raises
    ------
    ParameterError
        A cost that is not finite, or of units that the network does not have.
    """

    def __init__(
        self,
        network: Network,
        readout: str,
        optimizer: Optimizer,
        *,
        loss: Loss = cross_entropy,
        activity_cost: float = 0.0,
        change_cost: float = 0.0,
        threads: int | None = None,
        checkpoint: int | None = None,
        **pseudo_derivative: Any,
    ):
        self.network, self.readout, self.optimizer, self.loss = network, readout, optimizer, loss
        self.activity_cost, self.change_cost, self.checkpoint = activity_cost, change_cost, checkpoint
        self.simulation = Simulation(network, threads)
        self.adjoint = Adjoint(self.simulation.plan, threads=threads, **pseudo_derivative)
        units = self.simulation.plan.populations
        self._costly = [p for p in units if "o" in p.losses]
        self._changing = [p for p in units if p.sends == "changes" and "y" in p.losses]
        for name, cost, asked, kind in (
            ("activity_cost", activity_cost, self._costly, "units with a pseudo-derivative"),
            ("change_cost", change_cost, self._changing, "delta units"),
        ):
            if not np.isfinite(cost):
                raise ParameterError("trainer", f"{name} is {cost}", "give a number")
            if cost and not asked:
                raise ParameterError(
                    "trainer", f"{name} is {cost}, and the network has no {kind}", "leave it at 0"
                )

    def parameters(self) -> dict[str, Parameter]:
        """Those of the network."""
        return self.network.parameters()

    def reset(self) -> None:
        """Forget the states in which the last trial ended."""
        self.simulation.reset()

    def learn(self, trials: Iterable[Trial], tick: Callable[[], None] = lambda: None) -> Tally:
        """One pass over trials with an optimiser step after each."""
        tally = Tally()
        for trial in trials:
            start = time.perf_counter()
            log, value, gradient = self._present(self.simulation, trial, checkpoint=self.checkpoint)
            forward = time.perf_counter()
            losses = {self.readout: gradient} | self._activity_gradient(log) | self._change_gradient(log)
            gradients = self.adjoint.replay(log, losses)
            backward = time.perf_counter()
            self.optimizer.step(gradients)
            self._count(tally, log, trial, value)
            add(tally.backward_active, gradients.counters["backward_active"])
            for kind in ("state", "weight"):
                add(tally.macs.setdefault(kind, {}), gradients.counters[f"macs_{kind}"])
            end = time.perf_counter()
            add(
                tally.seconds,
                {"forward": forward - start, "backward": backward - forward, "other": end - backward},
            )
            tick()
        return tally

    def evaluate(self, trials: Iterable[Trial], network: Network | None = None) -> Tally:
        """One pass over trials without learning, in a simulation of its own.

        Parameters
        ----------
        network : Network, optional
            Another one with such populations, such as a narrowed copy; by default the one that is trained.
        """
        runs = self.simulation.plan if network is None else network
        tally, simulation = Tally(), Simulation(runs, self.simulation.threads)
        for trial in trials:
            start = time.perf_counter()
            log, value, _ = self._present(simulation, trial, tape=False)
            add(tally.seconds, {"forward": time.perf_counter() - start})
            self._count(tally, log, trial, value)
        return tally

    def _present(
        self, simulation: Simulation, trial: Trial, **recorded: Any
    ) -> tuple[EventLog, float, NDArray]:
        log = simulation.run(
            trial.stimulus, trial.duration, carry=trial.carry, lengths=trial.lengths, **recorded
        )
        value, gradient = self.loss(log[self.readout].state, trial.target)
        return log, value, gradient

    def _activity_gradient(self, log: EventLog) -> dict[str, NDArray]:
        if not self.activity_cost:
            return {}
        share = self.activity_cost / max(int(log.lengths.sum()) * sum(p.n_units for p in self._costly), 1)
        window, dtype = (log.n_steps, log.n_lanes), self.network.dtype
        return {f"{p.name}.o": np.full((*window, p.n_units), share, dtype) for p in self._costly}

    def _change_gradient(self, log: EventLog) -> dict[str, NDArray]:
        if not self.change_cost:
            return {}
        share = self.change_cost / max(int(log.lengths.sum()) * sum(p.n_units for p in self._changing), 1)
        return {f"{p.name}.y": share * np.sign(log[p.name].value) for p in self._changing}

    def _count(self, tally: Tally, log: EventLog, trial: Trial, value: float) -> None:
        target, state = np.asarray(trial.target), log[self.readout].state
        if target.dtype.kind in "iu" and target.ndim < state.ndim:
            asked = target >= 0
            tally.correct = (tally.correct or 0) + int((state.argmax(axis=-1)[asked] == target[asked]).sum())
            number = int(asked.sum())
        else:
            number = int(np.isfinite(target).sum())
        tally.trials += 1
        tally.targets += number
        tally.loss += value * number
        tally.lane_steps += log.counters["lane_steps"]
        add(tally.events, log.counters["events"])
        add(
            tally.unit_steps, {n: log[n].n_units * log.counters["lane_steps"] for n in log.counters["events"]}
        )
        add(tally.macs.setdefault("forward", {}), log.counters["macs"])
        add(tally.dense_macs, log.counters["dense_macs"])


def fit(
    trainer: Learner,
    trials: Callable[[int], Iterable[Any]],
    *,
    epochs: int,
    validation: Callable[[], Iterable[Any]] | None = None,
    schedule: Callable[[int], float] | None = None,
    patience: int | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    on_trial: Callable[[], None] = lambda: None,
    on_epoch: Callable[[dict[str, Any]], None] = lambda epoch: None,
) -> History:
    """Train for some epochs; at the end the network holds the parameters of the best one.

    Parameters
    ----------
    trainer : Learner
    trials : callable
        Epoch number -> its trials.  They must depend on nothing but that number for a resumed run to equal an
        uninterrupted one.  State is carried from trial to trial, but not from epoch to epoch.
    epochs : int
    validation : callable, optional
        -> trials that are never learned from.  The best epoch is the one with the lowest loss on them;
        without, the last one.  An epoch in which weights were pruned counts as better than all before it.
    schedule : callable, optional
        Epoch number -> learning rate of that epoch.
    patience : int, optional
        Stop after so many epochs without a better validation loss, but not before the optimiser's
        `Optimizer.pruning` is finished.
    checkpoint : path, optional
        Written at the start and after every epoch, whole or not at all.
    resume : bool
        Go on from ``checkpoint``.  The weights then are, bit for bit, those of an uninterrupted run.
    on_trial, on_epoch : callable
        Called after each trial, and after each epoch with its entry of the history.

    Raises
    ------
    CheckpointError
        Nothing to resume from, or a checkpoint of another network.
    """
    parameters, history = trainer.parameters(), History()
    best_loss, best = np.inf, _copy(parameters)
    if resume:
        best_loss, best = _resume(trainer, checkpoint, history)
    elif checkpoint is not None:  # a place that cannot be written to is better found before the first epoch
        _save(trainer, checkpoint, history, best_loss, best)
    for epoch in range(len(history.epochs), epochs):
        pruning, n_pruned = trainer.optimizer.pruning, trainer.optimizer.n_pruned
        settled = pruning is None or pruning.finished(trainer.optimizer.n_steps)
        if patience is not None and epoch - history.best_epoch > patience and settled:
            history.stopped_early = True
            break
        if schedule is not None:
            trainer.optimizer.lr = schedule(epoch)
        start = time.perf_counter()
        trainer.reset()  # a checkpoint holds no states: a resumed run must not miss them
        history.training = trainer.learn(trials(epoch), on_trial)
        checked = trainer.evaluate(validation()) if validation is not None else None
        score = checked.mean_loss if checked is not None else -float(epoch)
        if score < best_loss or trainer.optimizer.n_pruned > n_pruned:
            best_loss, best, history.best_epoch = score, _copy(parameters), epoch
        entry = {
            "epoch": epoch,
            "loss": history.training.mean_loss,
            "validation": None if checked is None else checked.mean_loss,
            "accuracy": (checked or history.training).accuracy,
            "lr": trainer.optimizer.lr,
            "activity": (checked or history.training).activities(),
            "backward_activity": history.training.backward_activities(),
            "seconds": time.perf_counter() - start,
        }
        history.epochs.append(entry)
        if checkpoint is not None:
            _save(trainer, checkpoint, history, best_loss, best)
        on_epoch(entry)
    for name, parameter in parameters.items():
        parameter.assign(best[name])
    return history


def _save(
    trainer: Learner, path: str | Path, history: History, best_loss: float, best: dict[str, NDArray]
) -> None:
    progress = {
        "epochs": history.epochs,
        "best_epoch": history.best_epoch,
        "best_loss": None if best_loss == np.inf else best_loss,  # JSON has no infinity
        "training": vars(history.training),
    }
    parameters = _copy(trainer.parameters())
    structure = {} if trainer.network is None else stored_structure(trainer.network)
    Checkpoint(parameters, best, trainer.optimizer.state(), progress, structure).save(path)


def _resume(trainer: Learner, path: str | Path | None, history: History) -> tuple[float, dict[str, NDArray]]:
    """Put a checkpoint into trainer and history; nothing is changed if any part of it does not fit."""
    if path is None:
        raise CheckpointError("fit", "asked to resume without a checkpoint", "give checkpoint=")
    state = Checkpoint.open(path)
    try:
        epochs, best_epoch = list(state.progress["epochs"]), int(state.progress["best_epoch"])
        found = state.progress["best_loss"]
        best_loss = np.inf if found is None else float(found)
        training = Tally(**state.progress.get("training", {}))
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(
            f"checkpoint '{path}'", "holds no progress of a training run", "give one that fit() wrote"
        ) from None
    parameters = trainer.parameters()
    if trainer.network is not None:
        state.check_structure(trainer.network)
    state.check(parameters)
    best = state.check(parameters, best=True)
    trainer.optimizer.load(state.optimizer)
    state.restore(parameters)
    history.epochs, history.best_epoch, history.training = epochs, best_epoch, training
    return best_loss, best


def _copy(parameters: Mapping[str, Parameter]) -> dict[str, NDArray]:
    return {name: p.values.copy() for name, p in parameters.items()}


def add(sums: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add numbers to those under the same names."""
    for name, value in more.items():
        sums[name] = sums.get(name, 0) + value
