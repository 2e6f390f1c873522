"""Learn some spoken words, then new ones a task at a time, one word after the other at batch 1."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from evsim.errors import ProtocolError
from evsim.loss import binary_cross_entropy
from evsim.network import Network
from evsim.optimizer import Adam
from evsim.protocol import RunFolder, Trial, check_counts
from evsim.protocols.keyword_spotting import KeywordSpotting, build, open_recordings, torch_step_seconds, work
from evsim.simulation import Simulation
from evsim.training import Tally, Trainer

#: Lanes in which features and old answers are computed; results do not depend on it.
LANES = 64


def run(
    folder: RunFolder,
    data: Annotated[
        Path | None,
        "folder of the Free Spoken Digit Dataset, or with a folder of WAV files for each word; without it, "
        "synthetic words",
    ] = None,
    cell: Annotated[Literal["lstm", "gru"], "unit type"] = "lstm",
    units: Annotated[int, "units of the one layer"] = 128,
    threshold: Annotated[float, "threshold of the delta network; the dense one beside it has 0"] = 0.2,
    first_words: Annotated[int, "words learned at first"] = 4,
    new_words: Annotated[int, "words learned in each later task"] = 2,
    memory: Annotated[int, "exemplars kept of all words together"] = 200,
    first_epochs: Annotated[int, "passes over the first words, 32 at a time"] = 20,
    epochs: Annotated[int, "passes over new words and exemplars, one at a time"] = 6,
    first_lr: Annotated[float, "learning rate for the first words"] = 3e-3,
    lr: Annotated[float, "learning rate for later tasks; a tenth of it in their first pass"] = 5e-4,
    hop: Annotated[float, "ms from frame to frame"] = 10.0,
    seed: Annotated[int, "seed of weights, order of the words and of the tasks"] = 0,
) -> dict[str, Any]:
    """Learn new words at batch 1 and do not forget the old ones.

    Once with a dense network, once with a delta network.
    iCaRL (Rebuffi, Kolesnikov, Sperl & Lampert, CVPR 2017): a memory of exemplars chosen by herding, the old
    network's answers as targets for the old words, and the nearest mean of exemplars as the classifier.  Both
    networks see the same new words in the same order; each chooses its own exemplars.
    """
    check_counts(
        "incremental_learning",
        units=units,
        first_words=first_words,
        new_words=new_words,
        memory=memory,
        first_epochs=first_epochs,
        epochs=epochs,
    )
    for name, value in (("threshold", threshold), ("first_lr", first_lr), ("lr", lr)):
        if not 0 <= value < np.inf:
            raise ProtocolError("incremental_learning", f"{name} is {value}", "give a number, 0 or more")
    task = KeywordSpotting(open_recordings(data), 32, 16, hop, seed)
    words = np.random.default_rng(seed).permutation(task.n_outputs)
    if first_words > words.size:
        raise ProtocolError(
            "incremental_learning",
            f"first_words is {first_words}, there are {words.size} words",
            "give fewer",
        )
    tasks = [words[:first_words], *_chunks(words[first_words:], new_words)]
    folder.console.print(f"{task.recordings!r}; tasks of {[len(t) for t in tasks]} words", soft_wrap=True)
    curves: dict[str, list[dict[str, Any]]] = {}
    for name, theta in (("dense", 0.0), ("delta", threshold)):
        network = build(task, cell, units, 1, theta, seed)
        learner = Learner(task, network, memory)
        curve = curves[name] = []
        for number, new in enumerate(tasks):
            start = time.perf_counter()
            if number == 0:
                tally = learner.learn(new, first_epochs, first_lr, 32)
            else:
                tally = learner.learn(new, epochs, lr, 1)
            seconds = time.perf_counter() - start
            curve.append(_entry(learner, tally, seconds, number))
            folder.console.print(_say(name, curve[-1]), soft_wrap=True)
    peer = torch_step_seconds(task, cell, units, 1, lanes=1)
    summary = {
        "words": [[task.recordings.words[i] for i in t] for t in tasks],
        "curves": curves,
        "torch_seconds_per_step": peer,
    }
    folder.write_json("summary.json", summary)
    _print(folder, summary)
    _draw(folder, summary, cell, threshold)
    return summary


class Learner:
    """A network that learns words task by task, with its memory of exemplars.

    Parameters
    ----------
    task : KeywordSpotting
    network : Network
        With a layer ``layer1`` and a readout ``word`` that has a unit for every word there will be.
    memory : int
        Exemplars of all words together; at least one for each word there will be.

    Attributes
    ----------
    known : list of int
        Words learned so far, in order.
    exemplars : dict of int to ndarray of int
        By word: numbers of recordings, the most telling first.

    Raises
    ------
    ProtocolError
        Too small a memory, or a word without recordings to learn from or to test with.
    """

    def __init__(self, task: KeywordSpotting, network: Network, memory: int):
        recordings = task.recordings
        if memory < task.n_outputs:
            raise ProtocolError(
                "incremental_learning",
                f"memory is {memory}, there are {task.n_outputs} words",
                "give at least one exemplar to each",
            )
        for part in ("train", "test"):
            missing = np.setdiff1d(np.arange(task.n_outputs), recordings.label[task.part(part)])
            if missing.size:
                raise ProtocolError(
                    "incremental_learning",
                    f"{recordings!r} has no {part} recordings of '{recordings.words[missing[0]]}'",
                    "add some, or take the word out",
                )
        self.task, self.network, self.memory = task, network, memory
        self.simulation = Simulation(network)
        self.known: list[int] = []
        self.exemplars: dict[int, NDArray[np.int64]] = {}

    def learn(self, new: NDArray[np.int64], epochs: int, lr: float, lanes: int) -> Tally:
        """Learn some new words; returns the tally of all passes."""
        train = self.task.part("train")
        label = self.task.recordings.label
        numbers = np.concatenate([train[np.isin(label[train], new)], *self.exemplars.values()])
        targets = self._targets(numbers, new)
        trainer = Trainer(
            self.network, "word", Adam(self.network.parameters(), lr=lr, clip=1.0), loss=binary_cross_entropy
        )
        total = Tally()
        for epoch in range(epochs):
            # A first pass with small steps lets the new outputs settle before they pull at the rest.
            trainer.optimizer.lr = lr / 10 if self.known and epoch == 0 else lr
            order = np.random.default_rng([self.task.seed, len(self.known), epoch]).permutation(numbers)
            total += trainer.learn(self._trials(order, targets, lanes))
        self.known += [int(word) for word in new]
        self._choose_exemplars()
        return total

    def accuracy(self) -> float:
        """Fraction of the test words, among the known ones, that the nearest mean of exemplars names."""
        means = np.stack([_unit(self._features(self.exemplars[word]).mean(axis=0)) for word in self.known])
        label, test = self.task.recordings.label, self.task.part("test")
        test = test[np.isin(label[test], self.known)]
        named = np.array(self.known)[(self._features(test) @ means.T).argmax(axis=1)]
        return float((named == label[test]).mean())

    def _targets(self, numbers: NDArray[np.int64], new: NDArray[np.int64]) -> dict[int, NDArray]:
        """What each unit should say in every frame: the old network's answer, 0 or 1, NaN for later words."""
        targets = {}
        for some, lengths, log in self._runs(numbers):
            answers = 0.5 + 0.5 * np.tanh(0.5 * log["word"].state)
            for lane, number in enumerate(some):
                goal = np.full((lengths[lane], self.task.n_outputs), np.nan, np.float32)
                goal[:, self.known] = answers[: lengths[lane], lane, self.known]
                goal[:, new] = new == self.task.recordings.label[number]
                targets[int(number)] = goal
        return targets

    def _trials(self, order: NDArray[np.int64], targets: dict[int, NDArray], lanes: int) -> Iterator[Trial]:
        for some in _chunks(order, lanes):
            trial = self.task.trial(some)
            frames = np.asarray(trial.stimulus)
            goal = np.full((*frames.shape[:2], self.task.n_outputs), np.nan, np.float32)
            for lane, number in enumerate(some):
                goal[: len(targets[int(number)]), lane] = targets[int(number)]
            yield Trial(frames, goal, lengths=trial.lengths)

    def _runs(self, numbers: NDArray[np.int64]) -> Iterator[tuple[NDArray, NDArray, Any]]:
        """The network hearing some recordings: their numbers, lengths and log, `LANES` at a time."""
        for some in _chunks(numbers, LANES):
            trial = self.task.trial(some)
            yield some, np.asarray(trial.lengths), self.simulation.run(trial.stimulus, lengths=trial.lengths)

    def _features(self, numbers: NDArray[np.int64]) -> NDArray:
        """The layer's outputs averaged over the frames of a word, of length 1; shape (n, units)."""
        found = []
        for _, lengths, log in self._runs(numbers):
            h = log["layer1"].state
            there = (np.arange(len(h))[:, None] < lengths)[..., None]
            found.append(np.where(there, h, 0).sum(axis=0) / lengths[:, None])
        return _unit(np.concatenate(found))

    def _choose_exemplars(self) -> None:
        """Herding: one by one, what brings the mean of the chosen closest to the mean of the word."""
        share = self.memory // len(self.known)
        label, train = self.task.recordings.label, self.task.part("train")
        for word in self.known:
            if word in self.exemplars:
                self.exemplars[word] = self.exemplars[word][:share]
                continue
            numbers = train[label[train] == word]
            features = self._features(numbers)
            mean, so_far = features.mean(axis=0), np.zeros(features.shape[1])
            chosen: list[int] = []
            for count in range(min(share, len(numbers))):
                distance = np.linalg.norm(mean - (so_far + features) / (count + 1), axis=1)
                distance[chosen] = np.inf
                chosen.append(int(distance.argmin()))
                so_far += features[chosen[-1]]
            self.exemplars[word] = numbers[chosen]


def _unit(vectors: NDArray) -> NDArray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _chunks(numbers: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [numbers[first : first + size] for first in range(0, len(numbers), size)]


def _entry(learner: Learner, tally: Tally, seconds: float, number: int) -> dict[str, Any]:
    """One point of a curve."""
    macs = {kind: sum(by_name.values()) for kind, by_name in tally.macs.items()}
    return {
        "task": number,
        "words": len(learner.known),
        "accuracy": learner.accuracy(),
        "seconds": seconds,
        "steps": tally.trials,
        "seconds_per_step": sum(tally.seconds.values()) / tally.trials,
        "macs": macs,
        "work_per_frame": work(learner.network, tally),
    }


def _say(name: str, entry: dict[str, Any]) -> str:
    return (
        f"{name}: {entry['words']} words, {entry['accuracy']:.1%} of the test words named, "
        f"{entry['seconds']:.1f} s, {sum(entry['macs'].values()) / 1e9:.2f} billion MACs"
    )


def _print(folder: RunFolder, summary: dict[str, Any]) -> None:
    from evsim.tables import plain_table

    columns = ("words", "accuracy", "GMACs", "seconds", "ms per word")
    table = plain_table("network", *columns, words=("network",))
    for name, curve in summary["curves"].items():
        for entry in curve:
            table.add_row(
                name,
                f"{entry['words']}",
                f"{entry['accuracy']:.1%}",
                f"{sum(entry['macs'].values()) / 1e9:.2f}",
                f"{entry['seconds']:.1f}",
                f"{1000 * entry['seconds_per_step']:.2f}" if entry["task"] else "-",
            )
    folder.console.print(table)
    if summary["torch_seconds_per_step"] is not None:
        each = 1000 * summary["torch_seconds_per_step"]
        folder.console.print(
            f"a training step of one word with PyTorch's dense layer, afterwards: {each:.2f} ms"
        )
    folder.console.print(f"results in {folder.path}: incremental_learning.png, summary.json", soft_wrap=True)


def _draw(folder: RunFolder, summary: dict[str, Any], cell: str, threshold: float) -> None:
    """Accuracy after each task, and what the later tasks took."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    labels = {"dense": f"dense {cell.upper()} (threshold 0)", "delta": f"delta {cell.upper()}, {threshold:g}"}
    for name, marker in (("dense", "s--"), ("delta", "o-")):
        curve = summary["curves"][name]
        words = [entry["words"] for entry in curve]
        left.plot(words, [100 * entry["accuracy"] for entry in curve], marker, label=labels[name])
        later = curve[1:]
        macs = np.cumsum([sum(entry["macs"].values()) / 1e9 for entry in later])
        middle.plot(words[1:], macs, marker, label=labels[name])
        right.plot(words[1:], np.cumsum([entry["seconds"] for entry in later]), marker, label=labels[name])
    if summary["torch_seconds_per_step"] is not None:
        later = summary["curves"]["dense"][1:]
        took = np.cumsum([entry["steps"] * summary["torch_seconds_per_step"] for entry in later])
        right.plot(
            [entry["words"] for entry in later], took, "k:", label=f"torch.nn.{cell.upper()}, steps only"
        )
    left.set(ylabel="test words named (%)", ylim=(0, 102))
    middle.set(ylabel="MACs of later tasks ($10^9$)", ylim=(0, None))
    right.set(ylabel="time of later tasks (s)", ylim=(0, None))
    for axes in (left, middle, right):
        axes.set_xlabel("words known")
        axes.legend(loc="lower left" if axes is left else "upper left")
        if axes is not left:
            axes.set_ylim(0, 1.4 * axes.get_ylim()[1])
    figure.savefig(folder / "incremental_learning.png", dpi=150)
