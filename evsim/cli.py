"""The command ``evsim``.  Exit codes: 0 done, 1 a check failed, 2 bad use."""

from __future__ import annotations

import inspect
import json
import os
import shlex
import sys
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperGroup

from evsim.cli_bench import benches
from evsim.cli_brian import crosscheck
from evsim.cli_export import exports
from evsim.cli_logs import COMMANDS
from evsim.cli_prune import prune
from evsim.errors import EvsimError, ProtocolError
from evsim.protocol import RunFolder, can_resume, default_path, load, names


class _RunFirst(TyperGroup):
    """Commands in the order of the file, but ``run`` before all others."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=lambda name: name != "run")


app = typer.Typer(
    cls=_RunFirst,
    help="Event-driven simulation and training of event-based recurrent networks.",
    epilog="Each command has a --help of its own.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Run the command line; errors made on purpose, and wrong usage, are one line on stderr."""
    try:
        add_protocols(sys.argv[1:])
        sys.exit(app(prog_name="evsim", standalone_mode=False))
    except EvsimError as error:
        _fail(str(error), 2)
    except typer.Abort:
        _fail("stopped", 1)
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if not hasattr(error, "format_message"):  # by which all versions of Typer mark errors of usage
            raise
        _fail(_usage(error), 2)


def _fail(line: str, code: int) -> None:
    print(f"evsim: {line}", file=sys.stderr)
    sys.exit(code)


def _usage(error: Any) -> str:
    """What is wrong with a command line, in one line."""
    said = " ".join(error.format_message().split()).rstrip(".").replace("Value error, ", "")
    for detail in getattr(error.__cause__, "errors", list)():  # newer Typer leaves out what was given
        given = repr(detail.get("input"))
        said += f": {given}" if given not in said else ""
    context = getattr(error, "ctx", None)
    command = "evsim" if context is None else context.command_path
    return f"{said[0].lower()}{said[1:]}; see {command} --help"


# -- evsim run -------------------------------------------------------------------------------------------

#: Options that every protocol has besides its own.
Out = Annotated[
    Path | None,
    typer.Option("--out", help="Folder for results.  [default: runs/<protocol>-<time>]", show_default=False),
]
Resume = Annotated[
    Path | None,
    typer.Option("--resume", help="Go on with the run in this folder and its settings.", show_default=False),
]
Force = Annotated[bool, typer.Option("--force", help="Write into a folder that is not empty.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]
COMMON = {"out": (Out, None), "resume": (Resume, None), "force": (Force, False), "quiet": (Quiet, False)}

runs = typer.Typer(
    help="Run a protocol: one of evsim's, or your own Python file.",
    epilog="evsim run NAME --help shows the options of one; results go to a folder of their own.  A file of"
    " yours, evsim run my.py, needs a function run(folder, ...): its typed parameters become options.",
    subcommand_metavar="NAME|FILE.py [OPTIONS]",
    rich_markup_mode=None,
)
app.add_typer(runs, name="run")
app.add_typer(exports, name="export")
app.add_typer(benches, name="bench")


@runs.callback(invoke_without_command=True)
def _runs(ctx: typer.Context) -> None:
    _help_alone(ctx)


def _help_alone(ctx: typer.Context) -> None:
    """Without a command, show the help, as bad use."""
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())
        raise typer.Exit(2)


def add_protocols(arguments: list[str]) -> None:
    """Make the commands below ``run`` that a command line may need: the one it names, or all of evsim's."""
    if arguments[:1] != ["run"]:
        return
    named = [word for word in arguments[1:2] if not word.startswith("-")]
    runs.registered_commands.clear()
    for name in named or names():
        run = load(name)
        runs.command(name, help=inspect.getdoc(run))(protocol_command(name, run))


def protocol_command(name: str, run: Callable[..., Any]) -> Callable[..., None]:
    """A function whose keywords are the typed parameters of a protocol's ``run``, and the common ones."""
    hints = _hints(name, run)
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter("ctx", keyword, annotation=typer.Context)]
    for p in list(inspect.signature(run).parameters.values())[1:]:
        _check_parameter(f"protocol '{name}'", p, hints.get(p.name))
        parameters.append(p.replace(annotation=_option(hints[p.name]), kind=keyword))
    for option, (annotation, default) in COMMON.items():
        if option != "resume" or can_resume(run):
            parameters.append(inspect.Parameter(option, keyword, default=default, annotation=annotation))

    def command(ctx: typer.Context, **options: Any) -> None:
        common = {option: options.pop(option, None) for option in COMMON}
        typed = {o for o in options if getattr(ctx.get_parameter_source(o), "name", "") == "COMMANDLINE"}
        start(name, run, options, typed, **common)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def _hints(name: str, run: Callable[..., Any]) -> dict[str, Any]:
    """Types of the parameters of ``run`` after the first, whose type says nothing that is needed here."""
    first = next(iter(inspect.signature(run).parameters))
    annotations = {key: value for key, value in run.__annotations__.items() if key not in (first, "return")}
    try:
        return get_type_hints(
            type("parameters", (), {"__annotations__": annotations}), run.__globals__, include_extras=True
        )
    except (NameError, TypeError, SyntaxError, AttributeError) as error:
        raise ProtocolError(
            f"protocol '{name}'", f"a type of run() means nothing: {error}", "import or mend it"
        ) from error


def _check_parameter(where: str, p: inspect.Parameter, hint: Any) -> None:
    """Raise unless a parameter of ``run`` can be an option."""
    what = f"parameter '{p.name}' of run()"
    if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD, p.POSITIONAL_ONLY):
        raise ProtocolError(where, f"{what} has no keyword of its own", "write its options out one by one")
    if p.name in (*COMMON, "ctx", "help"):
        raise ProtocolError(where, f"{what} has a name that is taken", "rename it")
    if hint is None:
        raise ProtocolError(where, f"{what} has no type", f"annotate it, such as {p.name}: int = 1")
    if not _can_be_typed(hint):
        kinds = "bool, int, float, str, Path, Literal or Enum"
        raise ProtocolError(where, f"{what} has type {hint}", f"use {kinds}, | None, list or tuple of them")


def _plain(hint: Any) -> Any:
    """A type without its description and its ``| None``."""
    if get_origin(hint) is Annotated:
        return _plain(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not NoneType]
        return _plain(kinds[0]) if len(kinds) == 1 else hint
    return hint


def _can_be_typed(hint: Any) -> bool:
    """Whether values of this type can be written on a command line."""
    kind = _plain(hint)
    if get_origin(kind) is Literal:
        return all(isinstance(word, str) for word in get_args(kind))
    if get_origin(kind) in (list, tuple):
        return Ellipsis not in get_args(kind) and all(_can_be_typed(part) for part in get_args(kind))
    return kind in (bool, int, float, str, Path) or (isinstance(kind, type) and issubclass(kind, Enum))


def _option(hint: Any) -> Any:
    """``Annotated[int, "what it is"]`` as an annotation with that help."""
    described = getattr(hint, "__metadata__", ())
    words = [item for item in described if isinstance(item, str) and item]
    if not words:
        return hint
    kind = hint.__origin__
    return Annotated[kind, typer.Option(help=words[0][0].upper() + words[0][1:].rstrip(".") + ".")]


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
    """Make or reopen the run folder, keep the settings in it, and run; options that were typed win."""
    earlier: dict[str, Any] = {}
    if resume is not None:
        if out is not None:
            raise ProtocolError(
                "run",
                f"--out {out} beside --resume {resume}",
                "results go to the resumed folder: leave --out away",
            )
        hints, earlier = _hints(name, run), _settings(resume, name, options)
        for key, value in earlier.items():
            if key not in typed and not _is_of(hints[key], value):
                problem = f"settings.json has {key} as {value!r}"
                raise ProtocolError(f"run folder '{resume}'", problem, "give that of evsim run")
        options |= {key: _from_json(hints[key], value) for key, value in earlier.items() if key not in typed}
    path = Path(resume or out or default_path(Path(name).stem))
    is_new = not os.path.exists(path)  # which unlike that of Path minds no name
    folder = RunFolder(path, force=force, quiet=quiet, resume=resume is not None)
    folder.settings, folder.earlier = {key: _to_json(value) for key, value in options.items()}, earlier
    settings, trained = folder / "settings.json", _trained(folder)
    before = settings.read_bytes() if settings.is_file() else None
    folder.write_json("settings.json", {"protocol": name, "options": folder.settings})
    try:
        run(folder, **options)
    except BaseException as error:
        begun = _trained(folder) != trained
        if not begun:  # these are no settings of what is there
            with suppress(OSError):  # a full disk, perhaps, which is said already
                if before is not None:
                    folder.write(settings.name, before)
                elif list(folder.path.iterdir()) == [settings]:  # so that the next try may have the folder
                    settings.unlink()
                    if is_new:
                        folder.path.rmdir()
        if not isinstance(error, KeyboardInterrupt):
            raise
        go_on = shlex.join(["evsim", "run", name, "--resume", str(folder.path)])
        there = (folder / "checkpoint.h5").exists() and (begun or resume is not None)
        _fail(f"stopped; go on with: {go_on}" if there else "stopped", 1)


def _trained(folder: RunFolder) -> dict[str, tuple[int, int]]:
    """The checkpoints in a folder, as they are now."""
    found = {path.name: path.stat() for path in folder.path.glob("*.h5") if path.is_file()}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items()}


def _to_json(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_to_json(part) for part in value]
    return value.value if isinstance(value, Enum) else str(value) if isinstance(value, Path) else value


def _is_of(hint: Any, value: Any) -> bool:
    """Whether a stored setting can be of the type of its parameter."""
    kind = _plain(hint)
    if value is None:
        return NoneType in get_args(get_args(hint)[0] if get_origin(hint) is Annotated else hint)
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) in (list, tuple):
        return isinstance(value, list)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return value in [one.value for one in kind]
    kinds: dict[Any, tuple[type, ...]] = {int: (int,), float: (int, float), str: (str,), Path: (str,)}
    if isinstance(value, bool):
        return kind is bool or kind not in kinds
    return kind is not bool and isinstance(value, kinds.get(kind, object))


def _from_json(hint: Any, value: Any) -> Any:
    """A stored setting in the type of its parameter."""
    kind = _plain(hint)
    if value is None:
        return None
    if get_origin(kind) is list:
        return [_from_json(get_args(kind)[0], part) for part in value]
    if get_origin(kind) is tuple:
        return tuple(_from_json(part, item) for part, item in zip(get_args(kind), value, strict=True))
    return kind(value) if isinstance(kind, type) and issubclass(kind, (Path, Enum)) else value


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
    return kept


@app.command("list")
def list_() -> None:
    """List the protocols that come with evsim."""
    for name in names():
        print(f"{name:20} {(load(name).__doc__ or '').strip().splitlines()[0]}")


for command in (*COMMANDS, crosscheck, prune):
    app.command()(command)


@app.command()
def info(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show versions, instruction sets, compiler and threads.

    The environment variable EVSIM_ISA chooses among the instruction sets, all of which give the same bits.
    """
    from evsim.core import kernels
    from evsim.provenance import provenance, version
    from evsim.threads import usable_threads

    build, origin = kernels.build(), provenance()
    facts = {key: origin[key] for key in ("evsim", "python", "numpy", "h5py", "platform")} | {
        "instruction_set": kernels.in_use(),
        "instruction_sets": kernels.available(),
        "compiler": build["compiler"],
        "openmp": build["openmp"],
        "threads": usable_threads(None) if build["openmp"] else 1,
        "peers": {name: version(name) for name in ("brian2", "torch")},
    }
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    peers = facts.pop("peers")
    shown = facts | {name: found or f'not here: pip install "evsim[{name}]"' for name, found in peers.items()}
    shown["instruction_set"] = f"{kernels.in_use()} (EVSIM_ISA chooses)"
    for key, value in shown.items():
        value = ", ".join(value) if isinstance(value, list) else value
        value = ("yes" if value else "no") if isinstance(value, bool) else value
        print(f"{key.replace('_', ' '):16} {value}")


@app.callback(invoke_without_command=True)
def _app(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as version_of

        print(version_of("evsim"))
        raise typer.Exit
    _help_alone(ctx)


if __name__ == "__main__":
    main()
