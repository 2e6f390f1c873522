"""The command ``evsim crosscheck``: the same network here and in Brian2."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

#: Options of random networks that exist in one kind of time, and in which.
ONLY_STEPS, ONLY_CONTINUOUS = ("form", "steps"), ("gate", "transmit", "duration", "dt", "halvings")


def crosscheck(
    what: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|PROTOCOL|FILE.py:NAME",
            help="A random network of egru, lif, delta_gru or delta_lstm; a protocol; a network in a file.",
            show_default=False,
        ),
    ],
    continuous: Annotated[
        bool, typer.Option("--continuous", help="A random network in continuous time.")
    ] = False,
    form: Annotated[
        Literal["evnn", "paper"] | None,
        typer.Option(help="Form of the EGRU, in steps.  [default: evnn]", show_default=False),
    ] = None,
    gate: Annotated[
        Literal["pre", "post", "none"] | None,
        typer.Option(help="Reset gate of the EGRU, in continuous time.  [default: pre]", show_default=False),
    ] = None,
    transmit: Annotated[
        Literal["value", "unit"] | None,
        typer.Option(help="Payload of the EGRU, in continuous time.  [default: value]", show_default=False),
    ] = None,
    units: Annotated[
        int | None,
        typer.Option(
            help="Units per layer.  [default: 50, continuous 16; of a protocol its own]",
            min=1,
            show_default=False,
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Time steps.  [default: 500]", min=1, show_default=False)
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option(help="In continuous time, in ms.  [default: 50]", show_default=False),
    ] = None,
    layers: Annotated[
        int | None, typer.Option(help="Layers.  [default: 1]", min=1, show_default=False)
    ] = None,
    delay: Annotated[
        float | None,
        typer.Option(
            help="Recurrent delay in steps, or ms if continuous.  [default: 1, continuous 0, delta_lstm 1]",
            show_default=False,
        ),
    ] = None,
    dt: Annotated[
        float | None,
        typer.Option(
            help="Longest step of Brian2 in ms, in continuous time.  [default: 0.1]", show_default=False
        ),
    ] = None,
    halvings: Annotated[
        int | None,
        typer.Option(help="How often to halve it.  [default: 4]", min=1, max=10, show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights and stimulus.", min=0)] = 0,
    target: Annotated[
        Literal["numpy", "cython", "standalone"], typer.Option(help="How Brian2 runs.")
    ] = "numpy",
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Largest difference allowed: in steps of states and payloads, in continuous time of the "
            "order, of a chaotic network of rates.  [default: 1e-12, 0.1, 0.01]",
            min=0,
            show_default=False,
        ),
    ] = None,
    plant: Annotated[
        str | None,
        typer.Option(
            help="Self-test: an error to put into Brian2's side, as in 'hidden_1.threshold[17]+1e-3'.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder for the report.  [default: runs/crosscheck-<time>]", show_default=False
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that is not empty.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json.")] = False,
) -> None:
    """Run a network here and in Brian2, and write a report.

    In steps, events must be the same, their payloads and all states equal within the tolerance (float64).  In
    continuous time Brian2 runs in steps, each time half as long: its event times must tend to those here with
    order 1, and each of its single steps must be as evsim predicts it.  Of a chaotic network (cuba) rates and
    intervals are compared, besides single steps.  The exit code is 1 if a tolerance does not hold.

    FILE.py:NAME is a Network (with random events for its sources), or a function that returns a network, its
    stimulus and a duration in ms.  The report is a page of its own, report.html; beside it are report.json,
    and the events of both as evsim.h5 and brian2.h5.  Needs Brian2: pip install "evsim[brian2]".
    """
    from evsim.brian.checking import check
    from evsim.brian.library import quiet_brian2
    from evsim.brian.plant import Plant
    from evsim.brian.report import report_numbers, write_report
    from evsim.brian.subject import MODELS, find_subject, protocols_with_subjects
    from evsim.protocol import RunFolder, default_path, names
    from evsim.tables import criteria_table

    error = None if plant is None else Plant.parse(plant)
    given: dict[str, Any] = {"form": form, "gate": gate, "transmit": transmit, "layers": layers}
    given |= {"units": units, "steps": steps, "duration": duration, "delay": delay}
    _check_numbers(duration=duration, dt=dt, delay=delay)
    if what in MODELS:
        _check_model(what, continuous, given | {"dt": dt, "halvings": halvings})
        options = _model_options(continuous, given)
    elif ":" not in what and not what.endswith(".py") and what not in names():
        choice = f"{', '.join(MODELS)}, a protocol ({', '.join(protocols_with_subjects())}), or FILE.py:NAME"
        raise typer.BadParameter(
            f"'{what}' is not one of {choice}", param_hint="'MODEL|PROTOCOL|FILE.py:NAME'"
        )
    else:
        if continuous:
            raise typer.BadParameter(f"'{what}' has its own kind of time", param_hint="'--continuous'")
        options = {name: value for name, value in given.items() if value is not None}
        if "steps" in options:
            options["n_steps"] = options.pop("steps")
    subject = find_subject(what, seed=seed, continuous=continuous, **options)
    if what not in MODELS and not subject.network.continuous and (dt, halvings) != (None, None):
        option, value = ("dt", dt) if dt is not None else ("halvings", halvings)
        problem = f"'{value}' means nothing for '{what}', which is in steps"
        raise typer.BadParameter(problem, param_hint=f"'--{option}'")
    if error is not None:
        error.into(subject.network)  # is it possible?
    with quiet_brian2("numpy"):  # is it here?
        pass
    folder = RunFolder(out or default_path("crosscheck"), force=force, quiet=quiet or as_json)
    dts = [(dt or 0.1) / 2**k for k in range((4 if halvings is None else halvings) + 1)]
    result = check(subject, target=target, dts=dts, tolerance=tolerance, plant=error)
    write_report(result, folder, sys.argv[1:])
    if as_json:
        print(json.dumps(report_numbers(result), indent=2))
    folder.console.print(criteria_table(result.criteria))
    if result.located is not None:
        folder.console.print(f"the difference shows first in {result.located}", soft_wrap=True)
    verdict = "all tolerances hold" if result.ok else "NOT all tolerances hold"
    folder.console.print(f"{verdict}; report in {folder / 'report.html'}", soft_wrap=True)
    sys.exit(0 if result.ok else 1)


def _check_numbers(**options: float | None) -> None:
    for option, number in options.items():
        above = 0 if option == "delay" else 1e-9
        if number is not None and not above <= number < float("inf"):
            raise typer.BadParameter(f"{number:g} ms is out of range", param_hint=f"'--{option}'")


def _check_model(model: str, continuous: bool, given: dict[str, Any]) -> None:
    """Raise for options that a random network of that kind does not have."""
    if given["form"] is not None and model != "egru":
        problem = f"'{given['form']}' is a form of egru, {model} has none"
        raise typer.BadParameter(problem, param_hint="'--form'")
    for option in ONLY_STEPS if continuous else ONLY_CONTINUOUS:
        if given[option] is not None:
            kind = "in steps" if continuous else "with --continuous"
            problem = f"'{given[option]}' means something {kind} only"
            raise typer.BadParameter(problem, param_hint=f"'--{option}'")
    for option in ("gate", "transmit"):
        if given[option] is not None and model != "egru":
            problem = f"'{given[option]}' is for egru, {model} has none"
            raise typer.BadParameter(problem, param_hint=f"'--{option}'")
    delay = given["delay"]
    if not continuous and delay is not None and (delay < 1 or delay % 1):
        problem = f"{delay:g} is not a whole number of steps"
        raise typer.BadParameter(problem, param_hint="'--delay'")


def _model_options(continuous: bool, given: dict[str, Any]) -> dict[str, Any]:
    """The options of a random network under the names of `evsim.examples`."""
    renamed = {"units": "n_units", "steps": "n_steps"}
    options = {renamed.get(name, name): value for name, value in given.items() if value is not None}
    if not continuous and "delay" in options:
        options["delay"] = int(options["delay"])
    return options
