"""Predict the next character of a text with event-based recurrent layers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from evsim.checkpoint import Checkpoint
from evsim.data.ngram import WittenBell
from evsim.data.text import Corpus, load_corpus, windows
from evsim.eventlog import EventLog
from evsim.events import Events
from evsim.models.egru import EGRU
from evsim.models.readout import LinearReadout
from evsim.models.source import EventSource
from evsim.narrow_weights import FORMATS, narrow
from evsim.network import Network
from evsim.optimizer import Adam
from evsim.population import Population
from evsim.progress import epochs_shown
from evsim.protocol import Protocol, RunFolder, Trial, check_counts, check_data, check_unchanged
from evsim.training import Tally, Trainer, fit

if TYPE_CHECKING:
    from evsim.brian.subject import Subject

#: Lanes and steps in which the validation text is read, and steps of the stretch that is logged.
CHECK_LANES, CHECK_STEPS, LOGGED_STEPS = 8, 256, 400


class CharacterModel(Protocol):
    """The training text in parallel streams, cut into windows; states are carried from window to window.

    Parameters
    ----------
    corpus : Corpus
    lanes : int
        Streams learned from at once.
    window : int
        Steps of truncated backpropagation.
    """

    def __init__(self, corpus: Corpus, lanes: int = 32, window: int = 64):
        self.corpus, self.lanes, self.window = corpus, lanes, window
        self.n_inputs = self.n_outputs = corpus.n_tokens

    def trials(self, stream: int) -> Iterator[Trial]:
        """One pass over the training text (the same in every stream)."""
        return _trials(self.corpus.train, self.lanes, self.window)

    def check(self, part: Literal["valid", "test"] = "valid") -> Iterator[Trial]:
        """One pass over text that is not learned from."""
        ids = getattr(self.corpus, part)
        lanes = max(1, min(CHECK_LANES, (ids.size - 1) // 64))
        return _trials(ids, lanes, CHECK_STEPS)

    def __len__(self) -> int:
        return -(-((self.corpus.train.size - 1) // self.lanes) // self.window)


def _trials(ids: NDArray[np.int32], lanes: int, window: int) -> Iterator[Trial]:
    for index, (inputs, targets) in enumerate(windows(ids, lanes, window)):
        yield Trial(inputs, targets, carry=index > 0)


def run(
    folder: RunFolder,
    corpus: Annotated[
        Path | None,
        "text file, or folder with train, valid and test files; without it, Python's own help texts",
    ] = None,
    units: Annotated[int, "EGRU units per layer"] = 256,
    layers: Annotated[int, "EGRU layers"] = 1,
    threshold: Annotated[float, "event threshold at the start, 0 to 1"] = 0.3,
    activity_cost: Annotated[
        float, "nats added to the loss times the mean activity: more makes the network more silent"
    ] = 1.0,
    gamma: Annotated[float, "height of the triangular pseudo-derivative"] = 1.0,
    eps: Annotated[float, "inverse half-width of that triangle: more makes the backward pass sparser"] = 3.6,
    lr: Annotated[float, "learning rate of Adam, falling to 5 % along a cosine"] = 1e-2,
    epochs: Annotated[int, "passes over the training text at most"] = 20,
    patience: Annotated[int, "stop after this many epochs without improvement"] = 4,
    lanes: Annotated[int, "streams of text learned from at once"] = 64,
    window: Annotated[int, "steps of truncated backpropagation"] = 64,
    seed: Annotated[int, "seed of the weights"] = 0,
) -> dict[str, Any]:
    """Train an EGRU on characters and compare it with n-grams.

    Bits per character on text that was not learned from are compared with those of n-grams, the operations
    (MACs) that the events ask for with those of a dense network of the same size.  The trained network is
    also tested with weights of 16 and 8 bits.
    """
    check_counts(
        "character_model",
        units=units,
        layers=layers,
        epochs=epochs,
        patience=patience,
        lanes=lanes,
        window=window,
    )
    check_unchanged("character_model", folder, ("corpus", "epochs", "patience", "lr"))
    task = CharacterModel(load_corpus(corpus, "char"), lanes, window)
    for given in (task.trials(0), task.check(), task.check("test") if task.corpus.test.size else [None]):
        next(iter(given))  # a text that is too short is found before anything is trained
    check_data("character_model", folder, f"corpus '{task.corpus.name}'", task.corpus.checksum)
    network = build(task, units, layers, threshold, seed)
    if folder.resume:  # it may have been pruned since
        network = Checkpoint.open(folder / "checkpoint.h5").in_form(network)
    trainer = Trainer(
        network,
        "next",
        Adam(network.parameters(), lr=lr, clip=1.0),
        activity_cost=activity_cost,
        gamma=gamma,
        eps=eps,
    )
    folder.console.print(f"{_describe(task.corpus)}\n{network!r}", soft_wrap=True)
    with epochs_shown(folder, epochs, len(task), _say) as (tick, report):
        history = fit(
            trainer,
            task.trials,
            epochs=epochs,
            validation=task.check,
            schedule=lambda epoch: lr * max(0.05, (1 + math.cos(math.pi * epoch / epochs)) / 2),
            patience=patience,
            checkpoint=folder / "checkpoint.h5",
            resume=folder.resume,
            on_trial=tick,
            on_epoch=report,
        )
    checked = trainer.evaluate(task.check())
    log = _log(trainer, task, folder)
    summary = {
        "bits_per_character": checked.mean_loss / math.log(2),
        "perplexity": math.exp(
            min(checked.mean_loss, 700.0)
        ),  # a diverged network's has no floating-point number
        "narrow_bits": {kind: _narrow_bits(trainer, task, kind) for kind in FORMATS},
        "ngram_bits": _ngrams(task.corpus),
        "alpha": checked.activity(_layers(network)),
        "beta": history.training.backward_activity() if history.training.targets else None,
        "work_per_character": work(network, history.training if history.training.targets else checked),
        "training": history.training.summary(),
        "validation": checked.summary(),
        "best_epoch": history.best_epoch,
        "epochs": history.epochs,
        "seconds_of_training": sum(entry["seconds"] for entry in history.epochs),
        "provenance": log.provenance,
    }
    if task.corpus.test.size:
        summary["test_bits_per_character"] = trainer.evaluate(task.check("test")).mean_loss / math.log(2)
    folder.write_json("summary.json", summary)
    _print(folder, task, summary)
    return summary


def build(task: CharacterModel, units: int, layers: int, threshold: float, seed: int) -> Network:
    """tokens -> EGRU layers, each recurrent -> next."""
    network = Network(dt=1.0, seed=seed)
    below: Population = network.add(EventSource(task.n_inputs, "tokens"))
    for number in range(1, layers + 1):
        # A gate's bias below 0 for the candidate starts the units off silent; they learn when to speak.
        layer = network.add(
            EGRU(units, f"layer{number}", threshold=threshold, bias=np.repeat([0.0, 0.0, -0.3], units))
        )
        # One token is one event of size 1, so its row is the whole drive: entries of size 1, not smaller.
        network.connect(below, layer, weight=_unit_rows if number == 1 else _large_rows)
        network.connect(layer, layer, weight="orthogonal")
        below = layer
    network.connect(below, network.add(LinearReadout(task.n_outputs, "next")), weight="glorot")
    return network


def subject(seed: int = 0, units: int = 256) -> Subject:
    """200 characters of text through an untrained network, for `evsim crosscheck character_model`."""
    from evsim.brian.subject import Subject

    task = CharacterModel(load_corpus(None, "char"), lanes=1, window=200)
    tokens = np.asarray(next(task.trials(0)).stimulus)
    given = Events.from_tokens(tokens, task.n_inputs, np.float64)
    about = "The first 200 characters of the training text, before training."
    return Subject("character_model", build(task, units, 1, 0.3, seed), {"tokens": given}, 200.0, about=about)


def _unit_rows(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray:
    return rng.normal(0.0, 1.0, shape)


def _large_rows(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray:
    # A quarter of a layer sends events of about 0.4, so the next one is driven by 0.8; with less it starts,
    # and stays, silent.
    return rng.normal(0.0, 4 / np.sqrt(shape[0]), shape)


def work(network: Network, tally: Tally) -> dict[str, dict[str, float]]:
    """MACs per character of each pass, by event and dense.

    The input is a look-up of one row in either, so it counts the same in both, and needs no gradient.
    """
    looked_up = [name for name, p in network.projections.items() if p.source.kernel == "source"]
    passes = {}
    for kind, macs in tally.macs.items():
        dense = sum(macs[name] if name in looked_up else tally.dense_macs[name] for name in macs)
        passes[kind] = {"event": sum(macs.values()) / tally.lane_steps, "dense": dense / tally.lane_steps}
    return passes


def _layers(network: Network) -> list[str]:
    return [name for name, p in network.populations.items() if isinstance(p, EGRU)]


def _say(entry: dict[str, Any]) -> str:
    return f"{entry['validation'] / math.log(2):.3f} bits per character on held-out text"


def _ngrams(corpus: Corpus) -> dict[str, float]:
    orders = (3, 5)
    return {
        str(n): WittenBell(n, corpus.n_tokens).fit(corpus.train).bits_per_token(corpus.valid) for n in orders
    }


def _narrow_bits(trainer: Trainer, task: CharacterModel, kind: str) -> float:
    """Bits per character on the held-out text with narrow weights."""
    return trainer.evaluate(task.check(), narrow(trainer.network, kind)).mean_loss / math.log(2)


def _log(trainer: Trainer, task: CharacterModel, folder: RunFolder) -> EventLog:
    """Log and draw the network reading the start of the held-out text."""
    stretch = next(_trials(task.corpus.valid, 1, LOGGED_STEPS))
    trainer.simulation.reset()
    log = trainer.simulation.run(stretch.stimulus)
    log.provenance |= {"protocol": "character_model", "settings": folder.settings}
    log.save(folder / "events.h5", overwrite=True)
    log.figure().savefig(folder / "raster.png", dpi=150)
    return log


def _describe(corpus: Corpus) -> str:
    sizes = f"{corpus.train.size:,} to learn from, {corpus.valid.size:,} held out"
    test = f", {corpus.test.size:,} for the test" * bool(corpus.test.size)
    return f"{corpus.name}: characters: {sizes}{test}; {corpus.n_tokens:,} different ones"


def _print(folder: RunFolder, task: CharacterModel, summary: dict[str, Any]) -> None:
    from evsim.tables import plain_table

    table = plain_table("", "evsim", "to compare with", words=("", "to compare with"))
    grams = ", ".join(f"{n}-gram {bits:.3f}" for n, bits in summary["ngram_bits"].items())
    table.add_row("bits per character, held-out text", f"{summary['bits_per_character']:.3f}", grams)
    for kind, bits in summary["narrow_bits"].items():
        table.add_row(
            f"  with {kind} weights", f"{bits:.3f}", f"in float32 {summary['bits_per_character']:.3f}"
        )
    if "test_bits_per_character" in summary:
        table.add_row("bits per character, test text", f"{summary['test_bits_per_character']:.3f}", "")
    table.add_row("forward activity alpha", f"{summary['alpha']:.3f}", "1 when dense")
    if summary["beta"] is not None:
        table.add_row("backward activity beta", f"{summary['beta']:.3f}", "1 when dense")
    for kind, name in (("forward", "forward"), ("state", "dL/dy"), ("weight", "dL/dW")):
        if kind in summary["work_per_character"]:
            macs = summary["work_per_character"][kind]
            ratio = macs["dense"] / max(macs["event"], 1e-9)
            dense = f"dense {macs['dense']:,.0f}, {ratio:.1f} x as many"
            table.add_row(f"MACs per character, {name}", f"{macs['event']:,.0f}", dense)
    for name, tally in (("training", summary["training"]), ("reading", summary["validation"])):
        seconds = sum(tally["seconds"].values())
        if seconds:
            rate = f"{tally['lane_steps'] / seconds:,.0f} characters per second"
            table.add_row(
                f"events per second, {name}", f"{sum(tally['events'].values()) / seconds:,.0f}", rate
            )
    folder.console.print(f"\nEGRU on {task.corpus.name}, characters")
    folder.console.print(table)
    folder.console.print(
        f"results in {folder.path}: events.h5, raster.png, summary.json, checkpoint.h5", soft_wrap=True
    )
