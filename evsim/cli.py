"""The command ``evsim``.  Exit codes: 0 done, 1 a check failed, 2 bad use."""

from __future__ import annotations

import inspect as python_inspect
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer

from evsim.errors import EvsimError, ProtocolError
from evsim.protocol import RunFolder, default_path, load, names

app = typer.Typer(
    help="Event-driven simulation and training of event-based recurrent networks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Run the command line; errors made on purpose are one line on stderr."""
    try:
        add_protocols(sys.argv[1:])
        app()
    except EvsimError as error:
        print(f"evsim: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


# -- evsim run -------------------------------------------------------------------------------------------

#: Options that every protocol has besides its own.
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", help="Folder for the results.  [default: runs/<protocol>-<time>]", show_default=False
    ),
]
Resume = Annotated[
    Path | None,
    typer.Option(
        "--resume", help="Go on with the run in this folder, with its settings.", show_default=False
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Write into a folder that holds something.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]
COMMON = {"out": (Out, None), "resume": (Resume, None), "force": (Force, False), "quiet": (Quiet, False)}


runs = typer.Typer(
    help="Run a protocol: one of evsim's by name, or your own Python file by path.",
    no_args_is_help=True,
    subcommand_metavar="NAME|PATH [OPTIONS]",
    rich_markup_mode=None,
)
app.add_typer(runs, name="run")


@runs.callback()
def _runs() -> None: ...


def add_protocols(arguments: list[str]) -> None:
    """Make the commands below ``run`` that a command line may need: the one it names, or all of evsim's."""
    if arguments[:1] != ["run"]:
        return
    named = [word for word in arguments[1:2] if not word.startswith("-")]
    for name in named or names():
        run = load(name)
        runs.command(name, help=python_inspect.getdoc(run))(protocol_command(name, run))


def protocol_command(name: str, run: Callable[..., Any]) -> Callable[..., None]:
    """A function whose keywords are the typed parameters of a protocol's ``run``, and the common ones."""
    hints = get_type_hints(run, include_extras=True)
    keyword = python_inspect.Parameter.KEYWORD_ONLY
    parameters = [python_inspect.Parameter("ctx", keyword, annotation=typer.Context)]
    for p in list(python_inspect.signature(run).parameters.values())[1:]:
        if p.name in COMMON or p.name not in hints:
            problem = "is an option of every protocol" if p.name in COMMON else "has no type"
            raise ProtocolError(
                f"protocol '{name}'", f"parameter '{p.name}' of run() {problem}", "rename or annotate it"
            )
        parameters.append(p.replace(annotation=_option(hints[p.name]), kind=keyword))
    for option, (annotation, default) in COMMON.items():
        parameters.append(python_inspect.Parameter(option, keyword, default=default, annotation=annotation))

    def command(ctx: typer.Context, **options: Any) -> None:
        common = {option: options.pop(option) for option in COMMON}
        typed = {o for o in options if getattr(ctx.get_parameter_source(o), "name", "") == "COMMANDLINE"}
        start(name, run, options, typed, **common)

    command.__signature__ = python_inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def _option(hint: Any) -> Any:
    """``Annotated[int, "what it is"]`` as an annotation with that help."""
    described = getattr(hint, "__metadata__", ())
    words = [item for item in described if isinstance(item, str)]
    if not words:
        return hint
    kind = hint.__origin__
    return Annotated[kind, typer.Option(help=words[0][0].upper() + words[0][1:] + ".")]


def start(
    name: str,
    run: Callable[..., Any],
    options: dict[str, Any],
    typed: set[str],
    out: Path | None,
    resume: Path | None,
    force: bool,
    quiet: bool,
) -> None:
    """Make or reopen the run folder, keep the settings in it, and run; ``typed`` options win over resumed ones."""
    if resume is not None:
        if out is not None:
            raise ProtocolError(
                "run", f"--out {out} beside --resume {resume}", "results go to the resumed folder"
            )
        options |= {key: value for key, value in _settings(resume, name, options).items() if key not in typed}
    folder = RunFolder(
        resume or out or default_path(Path(name).stem), force=force, quiet=quiet, resume=resume is not None
    )
    stored = {key: str(value) if isinstance(value, Path) else value for key, value in options.items()}
    folder.settings = stored
    folder.write_json("settings.json", {"protocol": name, "options": stored})
    try:
        run(folder, **options)
    except KeyboardInterrupt:
        print(f"evsim: stopped; go on with: evsim run {name} --resume {folder.path}", file=sys.stderr)
        sys.exit(1)


def _settings(folder: Path, name: str, options: dict[str, Any]) -> dict[str, Any]:
    path = folder / "settings.json"
    where = f"run folder '{folder}'"
    try:
        stored = json.loads(path.read_text())
        kept = {key: value for key, value in stored["options"].items() if key in options}
        of = stored["protocol"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProtocolError(
            where, "has no readable settings.json", "give the folder of a run to --resume"
        ) from error
    if of != name:
        raise ProtocolError(where, f"is of the protocol '{of}'", f"use: evsim run {of} --resume {folder}")
    if not (folder / "checkpoint.h5").exists():
        raise ProtocolError(
            where, "holds no checkpoint yet", f"start anew: evsim run {name} --force --out {folder}"
        )
    return {
        key: Path(value) if key == "corpus" and value is not None else value for key, value in kept.items()
    }


@app.command("list")
def list_() -> None:
    """Name the protocols that come with evsim, each with what it does."""
    for name in names():
        print(f"{name:20} {(load(name).__doc__ or '').strip().splitlines()[0]}")


# -- logs ------------------------------------------------------------------------------------------------

LogFile = Annotated[Path, typer.Argument(help="Event log (HDF5) of a run.", show_default=False)]


@app.command()
def inspect(
    file: LogFile, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Show what is in an event log: populations, events, activity, operations, provenance."""
    from evsim.eventlog import EventLog
    from evsim.provenance import to_json

    log = EventLog.open(file)
    facts = {
        "duration_ms": log.duration,
        "dt_ms": log.dt,
        "lanes": log.n_lanes,
        "populations": log.summary(),
        "counters": log.counters,
        "provenance": log.provenance,
    }
    if as_json:
        print(json.dumps(json.loads(to_json(facts)), indent=2))
        return
    from rich.console import Console

    from evsim.tables import counter_table, population_table

    console = Console(highlight=False)
    console.print(
        f"{file}: {log.duration:g} ms in steps of {log.dt:g} ms, {log.n_lanes} lane{'s' * (log.n_lanes > 1)}"
    )
    console.print(population_table(facts["populations"]))
    if log.counters.get("macs"):
        console.print(counter_table(log.counters))
    for key, value in log.provenance.items():
        console.print(f"{key:14} {value}", soft_wrap=True)


@app.command()
def raster(
    file: LogFile,
    out: Annotated[Path, typer.Option("-o", "--out", help="Picture to write: .png, .svg or .pdf.")] = Path(
        "raster.png"
    ),
    lane: Annotated[int, typer.Option(help="Lane to draw.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing picture.")] = False,
) -> None:
    """Draw the events of a log, with the activity below."""
    from evsim.errors import LogError
    from evsim.eventlog import EventLog

    if out.suffix not in (".png", ".svg", ".pdf"):
        raise LogError(f"picture '{out}'", f"has the suffix '{out.suffix}'", "use .png, .svg or .pdf")
    if out.exists() and not force:
        raise LogError(f"picture '{out}'", "exists already", "give another -o, or --force")
    log = EventLog.open(file)
    try:
        log.figure(lanes=lane).savefig(out)
    except OSError as error:
        raise LogError(
            f"picture '{out}'", f"cannot be written: {error.strerror}", "give another -o"
        ) from error
    print(out)


# -- checks ----------------------------------------------------------------------------------------------


@app.command()
def crosscheck(
    model: Annotated[Literal["egru"], typer.Argument(help="Unit type.")],
    form: Annotated[Literal["evnn", "paper"], typer.Option(help="Form of the EGRU.")] = "evnn",
    units: Annotated[int, typer.Option(help="Units per layer.", min=1)] = 50,
    steps: Annotated[int, typer.Option(help="Time steps.", min=1)] = 500,
    layers: Annotated[int, typer.Option(help="Layers.", min=1)] = 1,
    delay: Annotated[int, typer.Option(help="Recurrent delay in steps.", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="Of weights and stimulus.", min=0)] = 0,
    tolerance: Annotated[float, typer.Option(help="Largest difference of states.")] = 1e-12,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder for the picture.  [default: runs/crosscheck-<time>]", show_default=False
        ),
    ] = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Build the same random network in Brian2, run both, and compare events and states (float64)."""
    from evsim.brian import crosscheck_egru

    folder = RunFolder(out or default_path("crosscheck"), force=force, quiet=quiet)
    comparison = crosscheck_egru(
        n_units=units, n_steps=steps, layers=layers, delay=delay, form=form, seed=seed
    )
    from evsim.tables import comparison_table

    good = comparison.ok(tolerance)
    folder.console.print(comparison_table(comparison))
    comparison.draw(folder / "crosscheck.png")
    folder.console.print(
        f"{'equal' if good else 'NOT equal'} within {tolerance:g}; picture in {folder / 'crosscheck.png'}"
    )
    sys.exit(0 if good else 1)


@app.command()
def info() -> None:
    """Show versions, instruction set and threads in use."""
    from evsim.core import kernels
    from evsim.provenance import provenance
    from evsim.threads import usable_threads

    facts = provenance()
    for key in ("evsim", "python", "numpy", "h5py", "platform"):
        print(f"{key:16} {facts[key]}")
    print(
        f"{'instruction set':16} {kernels.in_use()} (of {', '.join(kernels.available())}; EVSIM_ISA chooses)"
    )
    print(f"{'threads':16} {usable_threads(None)}")


@app.callback(invoke_without_command=True)
def _app(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as version_of

        print(version_of("evsim"))
        raise typer.Exit


if __name__ == "__main__":
    main()
