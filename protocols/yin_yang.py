"""Tell the classes of the Yin-Yang data set apart, in continuous time, by the times of single events."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evsim.continuous_log import ContinuousLog
from evsim.continuous_training import ContinuousTrainer, Judgement
from evsim.data.yin_yang import CLASSES, DISC, Points, yin_yang
from evsim.errors import ProtocolError
from evsim.loss import cross_entropy, first_event_cross_entropy, first_events, silence
from evsim.models.egru import EGRU
from evsim.models.lif import LIF
from evsim.models.readout import LeakyReadout
from evsim.models.source import EventSource
from evsim.network import Network
from evsim.optimizer import Adam
from evsim.progress import epochs_shown
from evsim.protocol import Protocol, RunFolder, Trial, check_counts, check_unchanged
from evsim.training import History, fit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from evsim.brian.subject import Subject

#: A coordinate of 0 is an event at FIRST, one of 1 at FIRST + SPAN; the bias line sends at FIRST + BIAS: ms.
FIRST, SPAN, BIAS = 0.0, 30.0, 15.0
#: How long a trial lasts, in ms.
WINDOW = 60.0
#: Lanes in which points are tested; results do not depend on it.
LANES = 500
#: Colours of the classes (yin, yang, dot), and of ink.
COLOURS = ("#2f6db3", "#e08a2c", "#3c9a5f")
INK = "#1f2933"


class Recipe(NamedTuple):
    """What a model is trained with unless something else is asked for."""

    epochs: int
    lr: float
    silent_cost: float


RECIPES = {"lif": Recipe(20, 3e-3, 10.0), "egru": Recipe(5, 2e-3, 0.1)}


class YinYang(Protocol):
    """Points as events of four lines, whose times are the coordinates, and of a bias line.

    Parameters
    ----------
    n_points : int
        To learn from; a fifth as many are for validation, and a fifth for the test.
    batch_size : int
        Lanes.
    seed : int
    """

    n_inputs, n_outputs = 5, len(CLASSES)

    def __init__(self, n_points: int = 5000, batch_size: int = 50, seed: int = 0):
        check_counts("yin_yang", points=n_points, batch_size=batch_size)
        if seed < 0:
            raise ProtocolError("yin_yang", f"seed is {seed}", "give 0 or more")
        self.batch_size, self.seed = batch_size, seed
        held_out = max(n_points // 5, 1)
        sizes = {"train": n_points, "valid": held_out, "test": held_out}
        self.parts = {name: yin_yang(n, 3 * seed + k) for k, (name, n) in enumerate(sizes.items())}

    def __len__(self) -> int:
        return math.ceil(len(self.parts["train"]) / self.batch_size)

    def trials(self, stream: int) -> Iterator[Trial]:
        """One pass over the points to learn from, in an order of its own for each stream."""
        points = self.parts["train"]
        order = np.random.default_rng([self.seed, stream]).permutation(len(points))
        return present(points.coordinates[order], points.label[order], self.batch_size)

    def check(self, part: Literal["train", "valid", "test"]) -> Iterator[Trial]:
        """One pass over a part of the points, as it is."""
        points = self.parts[part]
        return present(points.coordinates, points.label, LANES)


def present(coordinates: NDArray, label: NDArray, lanes: int) -> Iterator[Trial]:
    """Trials of so many points each, a point in each lane."""
    for k in range(0, len(label), lanes):
        yield Trial({"point": encode(coordinates[k : k + lanes])}, label[k : k + lanes], WINDOW)


def encode(coordinates: NDArray) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Times, lanes, units and values of the events of some points, a point in each lane.

    Parameters
    ----------
    coordinates : ndarray, shape (n_points, n_lines)
        Within [0, 1].
    """
    n_points, n_lines = coordinates.shape
    when = np.column_stack([FIRST + SPAN * coordinates, np.full(n_points, FIRST + BIAS)])
    lane, unit = np.divmod(np.arange(when.size), n_lines + 1)
    return when.ravel(), lane, unit, np.ones(when.size)


# -- networks and losses ---------------------------------------------------------------------------------


def build(model: str, units: int, seed: int) -> Network:
    """point -> hidden -> answer: LIF units all the way, or an EGRU (recurrent) and a readout."""
    network = Network(dt=None, seed=seed)
    point = network.add(EventSource(YinYang.n_inputs, "point"))
    if model == "lif":
        hidden = network.add(LIF(units, "hidden"))
        # One event of each output unit is all that is asked for.
        answer = network.add(LIF(YinYang.n_outputs, "answer", refractory=WINDOW))
        # A unit is driven over its threshold by most, but not all, of the input lines together.
        network.connect(point, hidden, weight=lambda rng, shape: rng.normal(1.5, 0.8, shape))
        network.connect(hidden, answer, weight=lambda rng, shape: rng.normal(110 / units, 20 / units, shape))
        return network
    recurrent = network.add(
        EGRU(units, "hidden", threshold=0.4, gate="pre", transmit="unit", tau_m=10.0, tau_s=10.0)
    )
    readout = network.add(LeakyReadout(YinYang.n_outputs, "answer", tau=20.0))
    network.connect(point, recurrent, weight=lambda rng, shape: rng.normal(0.0, 1.0, shape))
    network.connect(recurrent, recurrent, weight=lambda rng, shape: rng.normal(0.0, 0.3 / units**0.5, shape))
    network.connect(recurrent, readout, weight=lambda rng, shape: rng.normal(0.0, units**-0.5, shape))
    return network


def subject(
    seed: int = 0, variant: Literal["lif", "egru"] = "lif", units: int = 120, points: int = 3
) -> Subject:
    """Points one after the other, for `evsim crosscheck yin_yang` and ``yin_yang:egru``; before training."""
    from evsim.brian.subject import Subject

    check_counts("yin_yang", units=units, points=points)
    time, trial, unit, value = encode(yin_yang(points, 3 * seed).coordinates)
    stimulus = {"point": (time + WINDOW * trial, 0 * trial, unit, value)}
    about = "Points of the protocol one after the other, before training."
    return Subject("yin_yang", build(variant, units, seed), stimulus, WINDOW * points, about=about)


class FirstEventLoss:
    """The answer is the output unit that sends first; cross-entropy of -time / tau.

    Silent units get help: output units in every lane in which they should be first and are silent, hidden
    units that are silent in all lanes.

    Parameters
    ----------
    tau : float
        ms.
    early : float
        Nats that each ms until the right unit's event costs.
    help : float
        Weight of what silent units lack.
    """

    def __init__(self, tau: float = 0.3, early: float = 0.01, help: float = 0.0):
        self.tau, self.early, self.help = tau, early, help

    def __call__(self, log: ContinuousLog, target: NDArray) -> Judgement:
        events = log["answer"].events
        assert events is not None  # LIF units send
        value, by_time = first_event_cross_entropy(events, target, self.tau, self.early)
        first = first_events(events)
        when = np.where(first >= 0, np.append(events.time, 0.0)[first], np.inf)
        answer = np.where((first >= 0).any(axis=1), when.argmin(axis=1), -1)
        losses = {"answer.time": by_time}
        asked = np.arange(log["answer"].n_units) == target[:, None]
        value += _help(log, "answer", (first < 0) & asked, self.help, losses)
        value += _help(log, "hidden", _never_sent(log, "hidden"), self.help, losses)
        return Judgement(value, losses, answer)


class MeanStateLoss:
    """The answer is the largest of the readout's states, averaged over the trial; cross-entropy of these.

    Hidden units that are silent in all lanes get help.

    Parameters
    ----------
    gain : float
        Factor of the averages.
    help : float
        Weight of what silent units lack.
    """

    def __init__(self, gain: float = 5.0, help: float = 0.0):
        self.gain, self.help = gain, help

    def __call__(self, log: ContinuousLog, target: NDArray) -> Judgement:
        integral = log["answer"].integral
        assert integral is not None  # there are samples
        scale = self.gain / log.duration
        logits = scale * integral.sum(axis=0, keepdims=True)
        value, by_logit = cross_entropy(logits, target[None])
        losses = {"answer.integral": np.broadcast_to(scale * by_logit, integral.shape).copy()}
        value += _help(log, "hidden", _never_sent(log, "hidden"), self.help, losses)
        return Judgement(value, losses, logits[0].argmax(axis=-1))


def _never_sent(log: ContinuousLog, name: str) -> NDArray[np.bool_]:
    """Units that are silent in all lanes, shape (n_lanes, n_units)."""
    population = log[name]
    sent = np.bincount(population.unit, minlength=population.n_units)
    return np.broadcast_to(sent == 0, (log.n_lanes, population.n_units))


def _help(
    log: ContinuousLog, name: str, silent: NDArray[np.bool_], help: float, losses: dict[str, NDArray]
) -> float:
    """Add what silent units lack to the losses; returns its value."""
    population = log[name]
    assert population.integral is not None  # there are samples
    assert population.thresholds is not None  # units of both types have some
    if not (help and silent.any()):
        return 0.0
    level = float(population.thresholds.mean())
    value, by_integral = silence(population.integral, silent, level, log.duration)
    losses[f"{name}.integral"] = help * by_integral
    return help * value


# -- the run ---------------------------------------------------------------------------------------------


def run(
    folder: RunFolder,
    model: Annotated[
        Literal["lif", "egru"],
        "LIF units that answer by who is first, or an EGRU whose events a readout averages",
    ] = "lif",
    units: Annotated[int, "hidden units"] = 120,
    points: Annotated[int, "points to learn from; a fifth as many for validation, and for the test"] = 5000,
    batch_size: Annotated[int, "points learned from at once (lanes)"] = 50,
    epochs: Annotated[int | None, "passes over the points; by default 20 of LIF, 5 of EGRU"] = None,
    lr: Annotated[
        float | None,
        "learning rate of Adam, falling to 5 % along a cosine; by default 0.003 of LIF, 0.002 of EGRU",
    ] = None,
    silent_cost: Annotated[
        float | None, "weight of what silent units lack in the loss; by default 10 of LIF, 0.1 of EGRU"
    ] = None,
    grid: Annotated[int, "points over and across in the map of decisions"] = 64,
    seed: Annotated[int, "seed of weights and points"] = 0,
) -> dict[str, Any]:
    """Train a network in continuous time on the Yin-Yang data.

    A point of the square is given by the times of single events; the network names its class.  Gradients are
    those of the event times and states themselves, by adjoint replay, without a surrogate.
    """
    recipe = RECIPES[model]
    passes = recipe.epochs if epochs is None else epochs
    rate = recipe.lr if lr is None else lr
    cost = recipe.silent_cost if silent_cost is None else silent_cost
    check_counts("yin_yang", units=units, epochs=passes, grid=grid)
    for name, number in (("lr", rate), ("silent_cost", cost)):
        if not 0 <= number < math.inf:
            raise ProtocolError("yin_yang", f"{name} is {number}", "give a number, 0 or more")
    check_unchanged("yin_yang", folder, ("epochs", "lr", "silent_cost", "grid"))
    task = YinYang(points, batch_size, seed)
    network = build(model, units, seed)
    loss = FirstEventLoss(help=cost) if model == "lif" else MeanStateLoss(help=cost)
    trainer = ContinuousTrainer(
        network, Adam(network.parameters(), lr=rate, clip=1.0), loss, samples=[WINDOW]
    )
    folder.console.print(f"{network!r}", soft_wrap=True)
    with epochs_shown(folder, passes, len(task)) as (tick, report):
        history = fit(
            trainer,
            task.trials,
            epochs=passes,
            validation=lambda: task.check("valid"),
            schedule=lambda epoch: cosine(rate, epoch / passes),
            checkpoint=folder / "checkpoint.h5",
            resume=folder.resume,
            on_trial=tick,
            on_epoch=report,
        )
    seconds = [entry["seconds"] for entry in history.epochs]
    tests = {part: Outcome(trainer, task.parts[part]) for part in ("train", "test")}
    summary = {
        "model": model,
        **{part: test.numbers() for part, test in tests.items()},
        "chance": 1 / len(CLASSES),
        "best_epoch": history.best_epoch,
        "epochs": history.epochs,
        "seconds_of_training": sum(seconds),
        "seconds_per_epoch": float(np.mean(seconds)),
        "training": history.training.summary(),
    }
    folder.write_json("summary.json", summary)
    _draw_map(folder, trainer, task.parts["test"], tests["test"], history, grid)
    _draw_samples(folder, trainer, task.parts["test"], tests["test"])
    _print(folder, summary)
    return summary


def cosine(lr: float, done: float) -> float:
    """The learning rate after a part of the training: down a cosine to 5 %."""
    return lr * max(0.05, (1 + math.cos(math.pi * done)) / 2)


class Outcome:
    """What a network says of some points, and how many events that takes.

    Attributes
    ----------
    answer : ndarray of int64, shape (n_points,)
        -1 for none.
    correct : ndarray of bool, shape (n_points,)
    sent : dict of str to ndarray of int64, shape (n_units,)
        Events of each unit, by population.
    """

    def __init__(self, trainer: ContinuousTrainer, points: Points):
        answers: list[NDArray[np.int64]] = []
        self.sent: dict[str, NDArray[np.int64]] = {}
        for trial in present(points.coordinates, points.label, LANES):
            log = trainer.simulation.run(trial.stimulus, trial.duration, samples=trainer.samples, tape=False)
            answers.append(trainer.loss(log, np.asarray(trial.target)).answer)
            for name in log:
                if log[name].events is not None:
                    count = np.bincount(log[name].unit, minlength=log[name].n_units)
                    self.sent[name] = self.sent.get(name, np.zeros_like(count)) + count
        self.answer = np.concatenate(answers)
        self.correct = self.answer == points.label

    def numbers(self) -> dict[str, Any]:
        """Accuracy and events, as JSON can hold them."""
        n = len(self.answer)
        return {
            "points": n,
            "accuracy": float(self.correct.mean()),
            "undecided": float((self.answer < 0).mean()),
            "events_per_point": {name: float(count.sum() / n) for name, count in self.sent.items()},
            "events_per_unit": {name: float(count.mean() / n) for name, count in self.sent.items()},
            "silent_units": {name: int((count == 0).sum()) for name, count in self.sent.items()},
        }


def _print(folder: RunFolder, summary: dict[str, Any]) -> None:
    from evsim.tables import plain_table

    table = plain_table("", "training points", "test points", words=("",))
    both = [summary[part] for part in ("train", "test")]
    table.add_row("points", *(f"{one['points']:,}" for one in both))
    table.add_row("accuracy", *(f"{one['accuracy']:.1%}" for one in both))
    table.add_row("no answer", *(f"{one['undecided']:.1%}" for one in both))
    for name in both[0]["events_per_point"]:
        table.add_row(f"events per point, {name}", *(f"{one['events_per_point'][name]:.1f}" for one in both))
    table.add_row("  per hidden unit", *(f"{one['events_per_unit']['hidden']:.2f}" for one in both))
    table.add_row("hidden units that never send", *(str(one["silent_units"]["hidden"]) for one in both))
    folder.console.print(table)
    training = summary["training"]
    spent = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in training["seconds"].items())
    folder.console.print(
        f"{summary['seconds_per_epoch']:.2f} s per epoch with validation (the last: {spent}), "
        f"{summary['seconds_of_training']:.0f} s in all; "
        f"best epoch {summary['best_epoch'] + 1} of {len(summary['epochs'])}; "
        f"grazing events in the last: {training['grazing']:,}\n"
        f"results in {folder.path}: decisions.png, raster.png, events.h5, summary.json, checkpoint.h5",
        soft_wrap=True,
    )


# -- pictures --------------------------------------------------------------------------------------------


def decisions(trainer: ContinuousTrainer, n: int) -> NDArray[np.int64]:
    """What the network says in the middle of n x n cells of the unit square, by y, then x; -1 for nothing."""
    middles = (np.arange(n) + 0.5) / n
    x, y = np.meshgrid(middles, middles)
    xy = np.column_stack([x.ravel(), y.ravel()])
    nowhere = np.full(len(xy), -1)
    return Outcome(trainer, Points(xy, nowhere)).answer.reshape(n, n)


def _draw_map(
    folder: RunFolder, trainer: ContinuousTrainer, points: Points, test: Outcome, history: History, grid: int
) -> None:
    """Decisions over the square with the test points, and the accuracy over the epochs."""
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle

    picture = Figure(figsize=(9.6, 4.6), layout="constrained", dpi=150)
    left, right = picture.subplots(1, 2, width_ratios=(1.0, 0.95))
    colours = ListedColormap(["#ffffff", *COLOURS])
    left.imshow(
        decisions(trainer, grid),
        origin="lower",
        extent=(0, 1, 0, 1),
        cmap=colours,
        vmin=-1,
        vmax=2,
        alpha=0.35,
    )
    for label, (name, colour) in enumerate(zip(CLASSES, COLOURS, strict=True)):
        mine = points.label == label
        good, bad = mine & test.correct, mine & ~test.correct
        left.scatter(*points.xy[good].T, s=7, color=colour, linewidths=0, label=name)
        left.scatter(*points.xy[bad].T, s=22, color=colour, edgecolors=INK, linewidths=1.0)
    left.scatter([], [], s=22, color="none", edgecolors=INK, linewidths=1.0, label="wrong")
    left.add_patch(Circle((DISC, DISC), DISC, fill=False, color=INK, linewidth=0.6))
    left.set(xlabel="x", ylabel="y", aspect="equal", xlim=(0, 1), ylim=(0, 1))
    left.set_title(
        f"decisions, and {len(points):,} test points: {test.correct.mean():.1%} right", fontsize=10
    )
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=4, fontsize=8, frameon=False)
    epochs = history.epochs
    number = [entry["epoch"] + 1 for entry in epochs]
    right.plot(number, [100 * (1 - entry["accuracy"]) for entry in epochs], color=COLOURS[0])
    right.axvline(history.best_epoch + 1, color=INK, linewidth=0.7, linestyle=(0, (4, 3)))
    right.set(xlabel="epoch (dashed: the one that is kept)", ylabel="wrong answers on validation points (%)")
    right.set_ylim(0, None)
    right.xaxis.get_major_locator().set_params(integer=True)
    right.set_title("training", fontsize=10)
    _tidy(left, right)
    picture.savefig(folder / "decisions.png")


def _draw_samples(folder: RunFolder, trainer: ContinuousTrainer, points: Points, test: Outcome) -> None:
    """One point of each class: its events, those of hidden units, and the output; the log of these runs."""
    from matplotlib.figure import Figure

    chosen = [_typical(points, test, label) for label in range(len(CLASSES))]
    (trial,) = present(points.coordinates[chosen], points.label[chosen], len(chosen))
    samples = np.linspace(0.0, WINDOW, 601)
    log: ContinuousLog = trainer.simulation.run(trial.stimulus, trial.duration, samples=samples)
    log.provenance |= {"protocol": "yin_yang", "settings": folder.settings}
    log.save(folder / "events.h5", overwrite=True)
    picture = Figure(figsize=(9.6, 6.4), layout="constrained", dpi=150)
    rows = picture.subplots(3, len(chosen), sharex=True, sharey="row", height_ratios=(0.6, 2.0, 1.2))
    order = _by_first_event(log)
    for lane, number in enumerate(chosen):
        top, middle, bottom = rows[:, lane]
        x, y = points.xy[number]
        top.set_title(f"{CLASSES[points.label[number]]}: ({x:.2f}, {y:.2f})", fontsize=10)
        for ax, name, rank in ((top, "point", np.arange(YinYang.n_inputs)), (middle, "hidden", order)):
            mine = log[name].lane == lane
            ax.scatter(
                log[name].time[mine],
                rank[log[name].unit[mine]],
                s=4 if ax is middle else 14,
                color=INK,
                marker="o" if ax is middle else "|",
            )
        _draw_outputs(bottom, log, lane)
        bottom.set_xlabel("time [ms]")
    rows[0, 0].set_yticks(range(YinYang.n_inputs), ["x", "y", "1 - x", "1 - y", "bias"], fontsize=7)
    rows[0, 0].set(ylim=(YinYang.n_inputs - 0.5, -0.5), xlim=(0, WINDOW))
    active = max(len(np.unique(log["hidden"].unit)), 1)
    rows[1, 0].set(ylabel=f"hidden unit, by first event\n({active} of {len(order)} send)", ylim=(-1, active))
    rows[2, 0].set_ylabel("V of the outputs" if log["answer"].events is not None else "readout v")
    rows[2, -1].legend(loc="upper right", fontsize=7, frameon=False)
    _tidy(*rows.ravel())
    picture.savefig(folder / "raster.png")


def _typical(points: Points, test: Outcome, label: int) -> int:
    """Number of a point of that class, one that the network knows if there is such a point."""
    mine = points.label == label
    good = np.flatnonzero(mine & test.correct)
    return int((good if good.size else np.flatnonzero(mine) if mine.any() else np.arange(1))[0])


def _by_first_event(log: ContinuousLog) -> NDArray[np.int64]:
    """Rank of each hidden unit by the time of its first event in all lanes; silent ones come last."""
    hidden = log["hidden"]
    first = np.full(hidden.n_units, np.inf)
    np.minimum.at(first, hidden.unit, hidden.time)
    return np.argsort(np.argsort(first, kind="stable"))


def _draw_outputs(ax: Axes, log: ContinuousLog, lane: int) -> None:
    """States of the outputs of one lane over time, with the first events marked."""
    answer = log["answer"]
    assert answer.state is not None  # there are samples
    for unit, (name, colour) in enumerate(zip(CLASSES, COLOURS, strict=True)):
        ax.plot(log.samples, answer.state[:, lane, unit], color=colour, linewidth=1.1, label=name)
        if answer.events is not None:
            mine = (answer.lane == lane) & (answer.unit == unit)
            for when in answer.time[mine]:
                ax.axvline(when, color=colour, linewidth=1.0, linestyle=(0, (2, 2)))


def _tidy(*all_axes: Axes) -> None:
    for ax in all_axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8, colors="#5b6770", labelcolor=INK)
