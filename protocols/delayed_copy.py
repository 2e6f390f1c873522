"""Remember a symbol through a silent delay and name it when asked."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from evsim.checkpoint import Checkpoint
from evsim.errors import ProtocolError
from evsim.events import Events
from evsim.models.egru import EGRU
from evsim.models.readout import LeakyReadout
from evsim.models.source import EventSource
from evsim.network import Network
from evsim.optimizer import Adam
from evsim.progress import epochs_shown
from evsim.protocol import Protocol, RunFolder, Trial, check_counts, check_unchanged
from evsim.training import Trainer, fit

if TYPE_CHECKING:
    from evsim.brian.subject import Subject


class DelayedCopy(Protocol):
    """A symbol is shown for a while, then nothing, then a go signal: name the symbol while it lasts.

    Parameters
    ----------
    n_symbols : int
    delay : int
        Silent steps between symbol and go signal.
    batch_size : int
        Lanes.
    cue, answer : int
        Steps for which the symbol is shown, and asked for.
    seed : int
    """

    def __init__(
        self,
        n_symbols: int = 8,
        delay: int = 50,
        batch_size: int = 32,
        cue: int = 5,
        answer: int = 5,
        seed: int = 0,
    ):
        least = {
            "n_symbols": (n_symbols, 2),
            "delay": (delay, 0),
            "batch_size": (batch_size, 1),
            "cue": (cue, 1),
            "answer": (answer, 1),
            "seed": (seed, 0),
        }
        for name, (value, lowest) in least.items():
            if not isinstance(value, (int, np.integer)) or value < lowest:
                raise ProtocolError(
                    "delayed_copy", f"{name} is {value!r}", f"give an integer of {lowest} or more"
                )
        self.n_symbols, self.delay, self.batch_size = int(n_symbols), int(delay), int(batch_size)
        self.cue, self.answer, self.seed = int(cue), int(answer), int(seed)
        self.n_inputs, self.n_outputs = self.n_symbols + 1, self.n_symbols

    @property
    def n_steps(self) -> int:
        """Steps of a trial."""
        return self.cue + self.delay + self.answer

    def trials(self, stream: int) -> Iterator[Trial]:
        """Trials without end; the go signal is the last input."""
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, stream])))
        while True:
            symbol = rng.integers(0, self.n_symbols, self.batch_size)
            stimulus = np.full((self.n_steps, self.batch_size), -1)
            stimulus[: self.cue] = symbol
            stimulus[-self.answer :] = self.n_symbols
            target = np.full((self.n_steps, self.batch_size), -1)
            target[-self.answer :] = symbol
            yield Trial(stimulus, target)


def run(
    folder: RunFolder,
    n_symbols: Annotated[int, "symbols to tell apart"] = 8,
    delay: Annotated[int, "silent steps between symbol and go signal"] = 50,
    units: Annotated[int, "EGRU units"] = 128,
    threshold: Annotated[float, "event threshold at the start, 0 to 1"] = 0.3,
    batch_size: Annotated[int, "trials learned from at once (lanes)"] = 32,
    trials: Annotated[int, "batches per epoch"] = 100,
    epochs: Annotated[int, "epochs at most"] = 20,
    patience: Annotated[int, "stop after this many epochs without improvement"] = 3,
    lr: Annotated[float, "learning rate of Adam"] = 3e-3,
    seed: Annotated[int, "seed of weights and trials"] = 0,
) -> dict[str, Any]:
    """Train an EGRU to remember a symbol through a silent delay.

    A symbol is shown for 5 steps, then nothing for the delay, then a go signal for 5 steps, while the network
    has to name the symbol: a test of working memory.
    """
    check_counts("delayed_copy", trials=trials, epochs=epochs, patience=patience)
    check_unchanged("delayed_copy", folder, ("trials", "epochs", "patience", "lr"))
    task = DelayedCopy(n_symbols, delay, batch_size, seed=seed)
    network = build(task, units, threshold, seed)
    if folder.resume:  # it may have been pruned since
        network = Checkpoint.open(folder / "checkpoint.h5").in_form(network)
    trainer = Trainer(network, "answer", Adam(network.parameters(), lr=lr, clip=1.0))
    with epochs_shown(folder, epochs, trials) as (tick, report):
        history = fit(
            trainer,
            lambda epoch: islice(task.trials(epoch), trials),
            epochs=epochs,
            validation=lambda: islice(task.trials(10**6), 4),
            schedule=lambda epoch: lr,  # so that a resumed run heeds --lr
            patience=patience,
            checkpoint=folder / "checkpoint.h5",
            resume=folder.resume,
            on_trial=tick,
            on_epoch=report,
        )
    checked = trainer.evaluate(islice(task.trials(10**6 + 1), 8))
    log = trainer.simulation.run(next(task.trials(10**6 + 1)).stimulus)
    log.provenance |= {"protocol": "delayed_copy", "settings": folder.settings}
    log.save(folder / "events.h5", overwrite=True)
    log.figure().savefig(folder / "raster.png", dpi=150)
    summary = {
        "accuracy": checked.accuracy,
        "chance": 1 / n_symbols,
        "activity": checked.activity(["hidden"]),
        "best_epoch": history.best_epoch,
        "epochs": history.epochs,
        "seconds": sum(entry["seconds"] for entry in history.epochs),
    }
    folder.write_json("summary.json", summary)
    folder.console.print(
        f"accuracy {checked.accuracy:.1%} (chance {1 / n_symbols:.1%}) after {delay} silent steps, "
        f"activity {summary['activity']:.3f} events per unit and step\n"
        f"results in {folder.path}: events.h5, raster.png, summary.json, checkpoint.h5",
        soft_wrap=True,
    )
    return summary


def subject(seed: int = 0, units: int = 128) -> Subject:
    """One trial of an untrained network, for `evsim crosscheck delayed_copy`."""
    from evsim.brian.subject import Subject

    task = DelayedCopy(batch_size=1, seed=seed)
    tokens = np.asarray(next(task.trials(0)).stimulus)
    given = Events.from_tokens(tokens, task.n_inputs, np.float64)
    about = "One trial of the protocol, before training."
    return Subject("delayed_copy", build(task, units, 0.3, seed), {"cue": given}, task.n_steps, about=about)


def build(task: DelayedCopy, units: int, threshold: float, seed: int) -> Network:
    """cue -> hidden (recurrent) -> answer."""
    network = Network(dt=1.0, seed=seed)
    cue = network.add(EventSource(task.n_inputs, "cue"))
    hidden = network.add(EGRU(units, "hidden", threshold=threshold))
    answer = network.add(LeakyReadout(task.n_outputs, "answer", tau=10.0))
    network.connect(cue, hidden, weight="glorot")
    network.connect(hidden, hidden, weight="orthogonal")
    network.connect(hidden, answer, weight="glorot")
    return network
