"""Progress of a training run on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from evsim.protocol import RunFolder


@contextmanager
def epochs_shown(
    folder: RunFolder,
    epochs: int,
    trials: int,
    describe: Callable[[dict[str, Any]], str] | None = None,
    now: Callable[[], str] | None = None,
) -> Iterator[tuple[Callable[[], None], Callable[[dict[str, Any]], None]]]:
    """A bar with rate and time left: gives ``on_trial`` and ``on_epoch`` for `evsim.training.fit`.

    Parameters
    ----------
    folder : RunFolder
    epochs, trials : int
        Epochs at most, and trials of an epoch.
    describe : callable, optional
        Entry of the history -> what the bar says after that epoch; by default losses and accuracy.  Where the
        output is no terminal, the same goes to a line of its own.
    now : callable, optional
        -> what the bar says after a trial.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    say, console = describe or _losses, folder.console
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("batches"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=folder.quiet or not console.is_terminal,
    )
    with bar:
        task = bar.add_task("training", total=epochs * trials)

        def on_epoch(entry: dict[str, Any]) -> None:
            line = f"epoch {entry['epoch'] + 1}/{epochs}: {say(entry)}"
            bar.update(task, completed=(entry["epoch"] + 1) * trials, description=line)
            if not console.is_terminal:
                console.print(line, soft_wrap=True)

        def on_trial() -> None:
            bar.update(task, advance=1, description=None if now is None or bar.disable else now())

        yield on_trial, on_epoch


def _losses(entry: dict[str, Any]) -> str:
    loss = entry["loss"] if entry["validation"] is None else entry["validation"]
    right = entry["accuracy"]
    return f"loss {loss:.3f}" + ("" if right is None else f", accuracy {right:.1%}")
