"""Which events mattered: gradients of single events, on a task where the answer is known.

A symbol is to be remembered that was shown once, with a marker, among many that were shown without one.  A
replay gives dL/d(payload) of every event; taking events out, or changing them a little, shows whether that is
right.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray

from evsim.adjoint import Adjoint
from evsim.edits import Edits
from evsim.errors import ProtocolError
from evsim.eventlog import EventLog
from evsim.events import Events
from evsim.gradients import Gradients
from evsim.models.egru import EGRU
from evsim.models.readout import LeakyReadout
from evsim.models.source import EventSource
from evsim.network import Network
from evsim.optimizer import Adam
from evsim.plan import Plan
from evsim.progress import epochs_shown
from evsim.protocol import Protocol, RunFolder, Trial, check_counts, check_unchanged
from evsim.simulation import Simulation
from evsim.training import Trainer, fit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from evsim.brian.subject import Subject

#: Events of each trial that are taken out.
TAKEN_OUT = (1, 2, 4, 8, 16)
#: Changes of a payload, as shares of it, and the one that is drawn.
CHANGES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
DRAWN = 1e-3
#: Kinds of events of the source, and their colours.
KINDS = {"cue": "#a8161e", "distractors": "#8b959c", "go": "#1f5fa8"}
HIGHEST, RANDOM, INK = "#a8161e", "#8b959c", "#1f2933"


class MarkedCue(Protocol):
    """Symbols come at random; one of them comes with a marker, and is to be named at the end.

    Lines 0 to ``n_symbols - 1`` are symbols, then a marker and a go signal.  The cue is one step in which the
    marker and one symbol send an event, and no other line.

    Parameters
    ----------
    n_symbols : int
    onset : int
        The cue comes at a random step from 0 to this one.
    delay : int
        Steps from the last possible cue to the go signal.
    answer : int
        Steps for which the go signal sends, and the symbol is asked for.
    rate : float
        Probability that a symbol's line sends in a step before that.
    batch_size : int
        Lanes.
    seed : int
    """

    def __init__(
        self,
        n_symbols: int = 4,
        onset: int = 8,
        delay: int = 40,
        answer: int = 4,
        rate: float = 0.15,
        batch_size: int = 32,
        seed: int = 0,
    ):
        least = {
            "n_symbols": (n_symbols, 2),
            "onset": (onset, 0),
            "delay": (delay, 0),
            "answer": (answer, 1),
            "batch_size": (batch_size, 1),
            "seed": (seed, 0),
        }
        for name, (value, lowest) in least.items():
            if not isinstance(value, (int, np.integer)) or value < lowest:
                raise ProtocolError("credit", f"{name} is {value!r}", f"give an integer of {lowest} or more")
        if not 0 <= rate <= 1:
            raise ProtocolError("credit", f"rate is {rate!r}", "give a number from 0 to 1")
        self.n_symbols, self.onset, self.delay, self.answer = n_symbols, onset, delay, answer
        self.rate, self.batch_size, self.seed = float(rate), batch_size, seed
        self.marker, self.go = n_symbols, n_symbols + 1
        self.n_inputs, self.n_outputs = n_symbols + 2, n_symbols

    @property
    def n_steps(self) -> int:
        """Steps of a trial."""
        return self.onset + 1 + self.delay + self.answer

    def trials(self, stream: int) -> Iterator[Trial]:
        """Trials without end."""
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, stream])))
        lanes = np.arange(self.batch_size)
        while True:
            symbol = rng.integers(0, self.n_symbols, self.batch_size)
            cue = rng.integers(0, self.onset + 1, self.batch_size)
            sent = rng.random((self.n_steps, self.batch_size, self.n_symbols)) < self.rate
            stimulus = np.zeros((self.n_steps, self.batch_size, self.n_inputs))
            stimulus[:, :, : self.n_symbols] = sent
            stimulus[cue, lanes] = 0
            stimulus[cue, lanes, symbol] = stimulus[cue, lanes, self.marker] = 1
            stimulus[-self.answer :] = 0
            stimulus[-self.answer :, :, self.go] = 1
            target = np.full((self.n_steps, self.batch_size), -1)
            target[-self.answer :] = symbol
            yield Trial(stimulus, target)

    def kinds(self, events: Events) -> dict[str, NDArray[np.bool_]]:
        """Which events of the source are the cue's (symbol and marker), distractors, or of the go signal."""
        marked = np.zeros(events.n_steps * events.n_lanes, bool)
        marked[events.bucket[events.unit == self.marker]] = True
        cue, go = marked[events.bucket], events.unit == self.go
        return dict(zip(KINDS, (cue, ~cue & ~go, go), strict=True))


def run(
    folder: RunFolder,
    n_symbols: Annotated[int, "symbols to tell apart"] = 4,
    delay: Annotated[int, "steps from the last possible cue to the go signal"] = 40,
    rate: Annotated[float, "events of a symbol's line per step, the cue aside"] = 0.15,
    units: Annotated[int, "EGRU units"] = 32,
    threshold: Annotated[float, "event threshold at the start, 0 to 1"] = 0.1,
    gamma: Annotated[float, "height of the pseudo-derivative"] = 0.7,
    activity_cost: Annotated[float, "loss for activity 1, in the second half of the epochs"] = 0.5,
    batch_size: Annotated[int, "trials learned from at once (lanes)"] = 32,
    trials: Annotated[int, "batches per epoch"] = 100,
    epochs: Annotated[int, "epochs"] = 20,
    lr: Annotated[float, "learning rate of Adam; it falls to 0 in the second half"] = 5e-3,
    tests: Annotated[int, "trials in which events are taken out and changed"] = 128,
    draws: Annotated[int, "random choices of events for each number of them"] = 10,
    seed: Annotated[int, "seed of weights and trials"] = 0,
) -> dict[str, Any]:
    """Find the events that mattered, and take them out to check.

    An EGRU learns to remember the one symbol that came with a marker, among others that come all the time.
    Then dL/d(payload) of each event of test trials is computed, and events of the source and of the hidden
    units are taken out, those of highest credit or random ones, and changed a little.
    """
    check_counts(
        "credit", units=units, trials=trials, epochs=epochs, tests=tests, draws=draws, batch_size=batch_size
    )
    if not math.isfinite(activity_cost):
        raise ProtocolError("credit", f"activity_cost is {activity_cost}", "give a number")
    check_unchanged("credit", folder, ("epochs", "lr", "tests", "draws"))
    task = MarkedCue(n_symbols, delay=delay, rate=rate, batch_size=batch_size, seed=seed)
    network = build(task, units, threshold, seed)
    trainer = Trainer(network, "answer", Adam(network.parameters(), lr=lr, clip=1.0), threads=1, gamma=gamma)

    def schedule(epoch: int) -> float:
        half = epochs // 2
        trainer.activity_cost = activity_cost if epoch >= half else 0.0  # first to learn it, then to say less
        return lr * min(1.0, (epochs - epoch) / (epochs - half))

    start = time.perf_counter()
    with epochs_shown(folder, epochs, trials) as (tick, report):
        history = fit(
            trainer,
            lambda epoch: islice(task.trials(epoch), trials),
            epochs=epochs,
            schedule=schedule,
            checkpoint=folder / "checkpoint.h5",
            resume=folder.resume,
            on_trial=tick,
            on_epoch=report,
        )
    seconds = sum(entry["seconds"] for entry in history.epochs)
    test = MarkedCue(n_symbols, delay=delay, rate=rate, batch_size=tests, seed=seed)
    test_trial = next(test.trials(10**6))
    study = Study(trainer.simulation.plan, test_trial, seed)
    study.log.provenance |= {"protocol": "credit", "settings": folder.settings}
    found, exact = study.replay(gamma), study.replay(0.0)
    found.mark(study.log).save(folder / "events.h5", overwrite=True)
    summary = examine(study, test, payload_gradients(found), payload_gradients(exact), draws)
    summary |= {"seconds_training": seconds, "seconds": time.perf_counter() - start}
    _draw(folder, study, test, summary)
    for changes in summary["first_order"].values():
        for change in changes.values():
            del change["predicted"], change["measured"]
    folder.write_json("summary.json", summary)
    _tell(folder, summary)
    return summary


def build(task: MarkedCue, units: int, threshold: float, seed: int) -> Network:
    """source -> hidden (recurrent) -> answer, in float64; units keep their state for 1 to n_steps steps."""

    def bias(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray:
        values = np.zeros(shape)
        values[:units] = np.log(rng.uniform(1, task.n_steps, units))  # of the gate that keeps the state
        return values

    network = Network(dt=1.0, seed=seed, dtype="float64")
    source = network.add(EventSource(task.n_inputs, "source"))
    hidden = network.add(EGRU(units, "hidden", threshold=threshold, bias=bias))
    answer = network.add(LeakyReadout(task.n_outputs, "answer", tau=5.0))
    network.connect(source, hidden, weight="glorot")
    network.connect(hidden, hidden, weight="orthogonal")
    network.connect(hidden, answer, weight="glorot")
    return network


def subject(seed: int = 0, units: int = 32) -> Subject:
    """One trial of an untrained network, for `evsim crosscheck credit`."""
    from evsim.brian.subject import Subject

    task = MarkedCue(batch_size=1, seed=seed)
    given = Events.from_dense(np.asarray(next(task.trials(0)).stimulus), np.float64)
    about = "One trial of the protocol, before training."
    return Subject("credit", build(task, units, 0.1, seed), {"source": given}, task.n_steps, about=about)


def loss_by_lane(state: NDArray, target: NDArray) -> tuple[NDArray, NDArray]:
    """Mean cross-entropy of each lane, shape (n_lanes,), and the gradient of their sum at the state."""
    asked = target[:, 0] >= 0
    logits, wanted = state[asked], target[asked][..., None]
    at_target = np.take_along_axis(logits, wanted, axis=-1)
    over = np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    gradient = np.zeros_like(state)
    probability = np.exp(logits - over)
    np.put_along_axis(probability, wanted, np.take_along_axis(probability, wanted, axis=-1) - 1, axis=-1)
    gradient[asked] = probability / asked.sum()
    return (over - at_target)[..., 0].mean(axis=0), gradient


@dataclass
class Study:
    """A trained network on test trials, one in each lane, and what becomes of their loss.

    Attributes
    ----------
    plan : Plan
    trial : Trial
    seed : int
        Of what is drawn at random.
    log : EventLog
        Of the run with nothing changed.
    loss : ndarray, shape (n_lanes,)
    """

    plan: Plan
    trial: Trial
    seed: int

    def __post_init__(self) -> None:
        self.simulation = Simulation(self.plan, threads=1)
        self.log: EventLog = self.simulation.run(self.trial.stimulus)
        self.loss, self._gradient = self._judge(self.log)

    @property
    def accuracy(self) -> float:
        """Share of the trials that are right at the end."""
        last = self.log["answer"].state[-1].argmax(axis=-1)
        return float((last == np.asarray(self.trial.target)[-1]).mean())

    def _judge(self, log: EventLog) -> tuple[NDArray, NDArray]:
        return loss_by_lane(log["answer"].state, np.asarray(self.trial.target))

    def replay(self, gamma: float) -> Gradients:
        """The gradient of the sum of the losses at all events; with ``gamma`` 0 no event comes or goes."""
        adjoint = Adjoint(self.plan, gamma=gamma, threads=1)
        return adjoint.replay(self.log, {"answer": self._gradient}, events=True)

    def change(self, name: str, edits: Edits) -> tuple[NDArray, EventLog]:
        """What edits do to the loss of each lane; and the log."""
        log = self.simulation.run(self.trial.stimulus, tape=False, edits={name: edits})
        return self._judge(log)[0] - self.loss, log

    def taken_out(self, name: str, gradient: NDArray, draws: int) -> dict[str, Any]:
        """Change of the loss where events are taken out: mean over trials, and its standard error.

        ``highest``: of highest credit, |payload x gradient|, which is what the loss changes by to first
        order; ``random``: mean over draws.
        """
        rng = np.random.default_rng([self.seed, 1])
        events, found = self.log[name].events, {}
        assert events is not None
        for count in TAKEN_OUT:
            rows = highest(events, np.abs(events.value * gradient), count)
            at_random = [highest(events, rng.random(len(events)), count) for _ in range(draws)]
            top, *random = (self.change(name, Edits.at(events, r))[0] for r in (rows, *at_random))
            found[str(count)] = {
                kind: {"mean": float(change.mean()), "error": float(change.std() / np.sqrt(change.size))}
                for kind, change in (("highest", top), ("random", np.mean(random, axis=0)))
            }
        return found

    def first_order(self, name: str, gradient: NDArray, draws: int) -> dict[str, Any]:
        """Predicted and measured change of the loss where one event's payload changes, one in each trial.

        For shares of the payload: the median of the relative error of the prediction, and the share of
        changes that made other events come or go.
        """
        rng = np.random.default_rng([self.seed, 2])
        events, found = self.log[name].events, {}
        assert events is not None
        chosen = [highest(events, rng.random(len(events)), 1) for _ in range(draws)]
        for size in CHANGES:
            predicted, measured, other = [], [], []
            for rows in chosen:
                step = size * events.value[rows]
                change, log = self.change(name, Edits.at(events, rows, factor=1.0, shift=step))
                lanes = events.lane[rows]
                predicted.append(gradient[rows] * step)
                measured.append(change[lanes])
                other.append(self._differs(log)[lanes])
            guess, truth, differs = (np.concatenate(parts) for parts in (predicted, measured, other))
            error = np.abs(guess - truth) / np.maximum(np.abs(truth), 1e-300)
            found[f"{size:g}"] = {
                "median_error": float(np.median(error)) if error.size else 0.0,
                "changed_raster": float(differs.mean()) if error.size else 0.0,
                "predicted": guess,
                "measured": truth,
            }
        return found

    def _differs(self, log: EventLog) -> NDArray[np.bool_]:
        """Which lanes have other hidden events, shape (n_lanes,)."""
        mine, theirs = self.log["hidden"].events, log["hidden"].events
        assert mine is not None
        assert theirs is not None
        return ((mine.to_dense() != 0) != (theirs.to_dense() != 0)).any(axis=(0, 2))


def examine(
    study: Study, task: MarkedCue, credit: dict[str, NDArray], exact: dict[str, NDArray], draws: int
) -> dict[str, Any]:
    """What the gradients say of the events, and what becomes of the loss without these events.

    Parameters
    ----------
    credit, exact : dict of str to ndarray, shape (n_events,)
        dL/d(payload) by population, with the pseudo-derivative, which ranks the events, and with events held
        fixed, which predicts small changes.
    """
    log = study.log
    equal = {name: np.ones(log[name].n_events) for name in credit}
    shares = {"events": equal, "credit": credit, "credit_with_events_fixed": exact}
    return {
        "accuracy": study.accuracy,
        "loss": float(study.loss.mean()),
        "events_per_trial": {name: log[name].n_events / log.n_lanes for name in credit},
        "activity": log["hidden"].activity,
        "share": {what: share(task, log, gradient["source"]) for what, gradient in shares.items()},
        "taken_out": {name: study.taken_out(name, credit[name], draws) for name in credit},
        "first_order": {name: study.first_order(name, exact[name], draws) for name in credit},
    }


def payload_gradients(gradients: Gradients) -> dict[str, NDArray]:
    """dL/d(payload) by population."""
    return {name: found["value"] for name, found in gradients.events.items()}


def highest(events: Events, score: NDArray, count: int) -> NDArray[np.int64]:
    """Rows of the events of highest score, so many of each lane, or all that it has."""
    order = np.lexsort((-score, events.lane))
    lane = events.lane[order]
    first = np.searchsorted(lane, np.arange(events.n_lanes))
    return order[np.arange(len(order)) - first[lane] < count]


def share(task: MarkedCue, log: EventLog, gradient: NDArray) -> dict[str, float]:
    """Share of |gradient| on each kind of the source's events; 0 if there is none at all."""
    sent = log["source"].events
    assert sent is not None
    size = np.abs(gradient)
    total = max(float(size.sum()), 1e-300)
    return {kind: float(size[mask].sum()) / total for kind, mask in task.kinds(sent).items()}


def _tell(folder: RunFolder, summary: dict[str, Any]) -> None:
    print_, shares = folder.console.print, summary["share"]
    sent, credit, fixed = (shares[kind]["cue"] for kind in ("events", "credit", "credit_with_events_fixed"))
    print_(
        f"accuracy {summary['accuracy']:.1%}, trained in {summary['seconds_training']:.0f} s\n"
        f"the cue's share of |dL/d(payload)| over all source events: {credit:.0%} "
        f"({fixed:.0%} with events held fixed), of all source events: {sent:.0%}",
        soft_wrap=True,
    )
    for name, by_count in summary["taken_out"].items():
        print_(f"{name}: loss (now {summary['loss']:.4f}) grows if of each trial's events are taken out")
        for count, change in by_count.items():
            top, drawn = change["highest"], change["random"]
            print_(
                f"  {count:>2} of highest credit {top['mean']:7.3f} +- {top['error']:.3f}    "
                f"random {drawn['mean']:7.3f} +- {drawn['error']:.3f}"
            )
    print_(
        "payload of one event changed: median error of the first-order prediction (other events come or go)"
    )
    for name, by_size in summary["first_order"].items():
        errors = (
            f"{size}: {c['median_error']:.1e} ({c['changed_raster']:.0%})" for size, c in by_size.items()
        )
        print_(f"  {name}  " + "   ".join(errors), soft_wrap=True)
    files = "events.h5, credit.png, summary.json, checkpoint.h5"
    print_(f"results in {folder.path}: {files}", soft_wrap=True)


# -- the picture -------------------------------------------------------------------------------------------


def _draw(folder: RunFolder, study: Study, task: MarkedCue, summary: dict[str, Any]) -> None:
    """One trial's events coloured by their gradients; below, shares, events taken out and changed."""
    from matplotlib.figure import Figure

    from evsim.raster import raster

    picture = Figure(figsize=(9.6, 7.4), layout="constrained", dpi=130)
    halves: Any = picture.subfigures(2, 1, height_ratios=(1.45, 1.0))
    rasters, panels = halves
    top, middle = rasters.subplots(2, 1, sharex=True, height_ratios=(1.0, 2.2))
    lane = _typical(study, task)
    for ax, name in ((top, "source"), (middle, "hidden")):
        raster(study.log[name], ax=ax, lanes=lane, colour="gradient")
    names = [f"symbol {k + 1}" for k in range(task.n_symbols)] + ["marker", "go"]
    top.set_yticks(range(task.n_inputs), names)
    top.set_xlabel("")
    top.set_ylabel("")
    middle.set_ylabel("hidden unit")
    wanted = int(np.asarray(study.trial.target)[-1, lane])
    top.set_title(
        f"One of {study.log.n_lanes} trials, '{names[wanted]}' is right: events coloured by dL/d(payload)",
        fontsize=10,
        loc="left",
        color=INK,
    )
    shares, source, hidden, changed = panels.subplots(1, 4, width_ratios=(0.9, 1.0, 1.0, 1.15))
    _draw_shares(shares, summary["share"])
    for ax, name in ((source, "source"), (hidden, "hidden")):
        _draw_taken_out(ax, name, summary["taken_out"][name])
    source.set_ylabel("growth of the loss, nats")
    source.legend(fontsize=7.5, frameon=False)
    _draw_changes(changed, summary["first_order"])
    for ax in (top, middle, shares, source, hidden, changed):
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8, colors="#5b6770", labelcolor=INK)
        for label in (ax.xaxis.label, ax.yaxis.label):
            label.set(fontsize=9, color=INK)
    picture.savefig(folder / "credit.png")


def _typical(study: Study, task: MarkedCue) -> int:
    """A lane that is right, with a loss in the middle of those, and a cue that does not come at once."""
    sent = study.log["source"].events
    assert sent is not None
    late = np.zeros(sent.n_lanes, bool)
    late[sent.lane[(sent.unit == task.marker) & (sent.step >= min(3, task.onset))]] = True
    lanes = np.flatnonzero(late) if late.any() else np.arange(sent.n_lanes)
    return int(lanes[np.argsort(study.loss[lanes])[len(lanes) // 2]])


def _draw_shares(ax: Axes, shares: dict[str, dict[str, float]]) -> None:
    labels = {"events": "events", "credit": "|gradient|"}
    for x, kind in enumerate(labels):
        bottom = 0.0
        for name, colour in KINDS.items():
            part = 100 * shares[kind][name]
            ax.bar(x, part, 0.8, bottom, color=colour)
            if part > 4:
                text = f"{name} {part:.0f}"
                ax.text(x, bottom + part / 2, text, ha="center", va="center", fontsize=6.5, color="white")
            bottom += part
    ax.set_xticks(range(len(labels)), list(labels.values()))
    ax.set_xlabel("of all source events")
    ax.set_ylabel("share, %")


def _draw_taken_out(ax: Axes, name: str, taken_out: dict[str, Any]) -> None:
    counts = [int(count) for count in taken_out]
    for kind, colour, label in (("highest", HIGHEST, "highest credit"), ("random", RANDOM, "random")):
        found = [change[kind] for change in taken_out.values()]
        means, errors = ([change[what] for change in found] for what in ("mean", "error"))
        ax.errorbar(
            counts,
            means,
            errors,
            color=colour,
            marker="o",
            markersize=4,
            linewidth=1.2,
            capsize=2,
            label=label,
        )
    ax.set_xscale("log", base=2)
    ax.set_xticks(counts, [str(count) for count in counts])
    ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    ax.set_xlabel(f"{name} events taken out")


def _draw_changes(ax: Axes, first_order: dict[str, Any]) -> None:
    sizes = []
    for name, colour in (("source", "#1f5fa8"), ("hidden", "#e08a2c")):
        drawn = first_order[name][f"{DRAWN:g}"]
        predicted, measured = np.abs(drawn["predicted"]), np.abs(drawn["measured"])
        seen = (predicted > 0) & (measured > 0)
        sizes.append(predicted[seen])
        ax.scatter(
            predicted[seen], measured[seen], s=6, color=colour, linewidths=0, label=name, rasterized=True
        )
    size = np.concatenate(sizes)
    if size.size:
        ends = float(size.min()), float(size.max())
        ax.plot(ends, ends, color=INK, linewidth=0.6, zorder=0)
        ax.set_xscale("log")
        ax.set_yscale("log")
    ax.set_xlabel(f"|predicted|, payload + {100 * DRAWN:g} %")
    ax.set_ylabel("|change of the loss|")
    ax.legend(fontsize=7.5, frameon=False)
