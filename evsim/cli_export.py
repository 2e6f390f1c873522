"""The command ``evsim export``: a network in the form of another simulator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

#: ms of a script, which holds every event of its stimulus by value.
LONGEST = 1e6

exports = typer.Typer(help="Write a network down for another simulator.", rich_markup_mode=None)


@exports.callback(invoke_without_command=True)
def _exports(ctx: typer.Context) -> None:
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())
        raise typer.Exit(2)


@exports.command()
def brian2(
    network: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|PROTOCOL|FILE.py:NAME",
            help="A random network of egru, lif, delta_gru or delta_lstm, "
            "a protocol such as cuba, or a network in a file; as for evsim crosscheck.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="The script; large arrays go into a .npz beside it.")
    ] = Path("script.py"),
    continuous: Annotated[
        bool, typer.Option("--continuous", help="A random network in continuous time.")
    ] = False,
    dt: Annotated[
        float | None,
        typer.Option(help="Brian2's step in ms, in continuous time.  [default: 0.1]", show_default=False),
    ] = None,
    duration: Annotated[
        float | None, typer.Option(help="In ms.  [default: that of the network]", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights and stimulus.", min=0)] = 0,
    slots: Annotated[
        int,
        typer.Option(
            help="Events of a unit that may be on their way at one time, where their payloads differ; in "
            "continuous time.",
            min=1,
            max=64,
        ),
    ] = 4,
    force: Annotated[bool, typer.Option("--force", help="Write over files that are there.")] = False,
) -> None:
    """Write a network as a Brian2 script.

    The script runs without evsim.  It holds equations, parameters, weights and events by value, and does what
    evsim crosscheck has Brian2 do.  Writing it does not need Brian2.
    """
    from evsim.brian.script import brian2_script
    from evsim.brian.subject import MODELS, find_subject

    for option, number in (("dt", dt), ("duration", duration)):
        if number is not None and not 0 < number <= LONGEST:
            problem = f"{number:g} ms is out of range, above 0 to {LONGEST:g}"
            raise typer.BadParameter(problem, param_hint=f"'--{option}'")
    subject = find_subject(network, seed=seed, continuous=continuous)
    if duration is not None and network in MODELS:  # whose stimulus is as long as is asked for
        own = subject.network
        size = {"duration": duration} if own.continuous else {"n_steps": max(1, round(duration / own.step))}
        subject = find_subject(network, seed=seed, continuous=continuous, **size)
    timing: dict[str, Any] = {}
    if subject.network.continuous:
        timing = {"dt": dt or 0.1, "initial": subject.initial, "slots": slots}
    elif dt is not None:
        problem = f"'{dt:g}': the network has steps of {subject.network.step:g} ms"
        raise typer.BadParameter(problem, param_hint="'--dt'")
    length = duration or subject.duration
    if not subject.network.continuous and network not in MODELS and length > subject.duration:
        problem = f"'{length:g}': the stimulus of '{subject.name}' ends at {subject.duration:g} ms"
        raise typer.BadParameter(problem, param_hint="'--duration'")
    stimulus = _until(subject.stimulus, length, subject.network)
    script = brian2_script(subject.network, stimulus, length, title=f"The network '{subject.name}'", **timing)
    for path in script.save(out, overwrite=force):
        print(path)


def _until(stimulus: Mapping[str, Any], duration: float, network: Any) -> dict[str, Any]:
    """The part of a stimulus before a time in ms."""
    if not network.continuous:
        n_steps = round(duration / network.step)
        return {n: e.window(0, n_steps) if hasattr(e, "window") else e[:n_steps] for n, e in stimulus.items()}
    found = {}
    for name, given in stimulus.items():
        columns = (
            [getattr(given, c) for c in ("time", "lane", "unit", "value")]
            if hasattr(given, "time")
            else given
        )
        early = np.asarray(columns[0]) < duration
        found[name] = tuple(np.asarray(column)[early] for column in columns)
    return found
