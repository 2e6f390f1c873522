"""Protocols: what is shown to a network and what it should answer.  A protocol is a Python file.

The file defines a function ``run(folder, ...)``.  Its typed signature is the command line of ``evsim run``,
its docstring the help; ``typing.Annotated[int, "what it is"]`` describes an option.  ``folder`` is the
`RunFolder` that takes the results.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import pkgutil
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from evsim.errors import ProtocolError

if TYPE_CHECKING:
    from rich.console import Console

    from evsim.simulation import Stimulus


#: What the names of modules begin with that are made of files: so a file called json.py takes nobody's place.
OWN = "evsim_protocol_"


@dataclass(frozen=True)
class Trial:
    """One stretch of input with what should come out of it.

    Attributes
    ----------
    stimulus
        As `Simulation.run` takes it.
    target : array
        What the loss compares the readout with; for classes shape (n_steps, n_lanes), -1 where nothing is
        asked.
    duration : float, optional
        ms; by default as long as the stimulus.
    carry : bool
        Go on from the state in which the trial before ended.
    lengths : array of int, shape (n_lanes,), optional
        Steps of each lane.
    """

    stimulus: Mapping[str, Stimulus] | Stimulus
    target: ArrayLike
    duration: float | None = None
    carry: bool = False
    lengths: ArrayLike | None = None


class Protocol(ABC):
    """An endless source of trials, the same ones for the same seed.

    Attributes
    ----------
    n_inputs, n_outputs : int
        Units that a network needs at its ends.
    """

    n_inputs: int
    n_outputs: int

    @abstractmethod
    def trials(self, stream: int) -> Iterator[Trial]:
        """The trials of one stream: 0 is for training, others are independent of it."""

    def __iter__(self) -> Iterator[Trial]:
        return self.trials(0)


class RunFolder:
    """The folder that takes the results of one run, and its voice.

    Parameters
    ----------
    path : str or Path
    force : bool
        Whether a folder that holds something may be written into.
    quiet : bool
        Print nothing but errors.
    resume : bool
        Whether this goes on with a run that was stopped.

    Attributes
    ----------
    settings : dict
        The protocol's options of this run, as JSON can hold them.
    earlier : dict
        Those that a run which is resumed had so far; else none.

    Raises
    ------
    ProtocolError
        The folder holds something, or cannot be made.
    """

    def __init__(self, path: str | Path, *, force: bool = False, quiet: bool = False, resume: bool = False):
        self.path, self.quiet, self.resume = Path(path), quiet, resume
        self.settings: dict[str, Any] = {}
        self.earlier: dict[str, Any] = {}
        where = f"run folder '{path}'"
        try:
            if not (force or resume) and self.path.exists() and any(self.path.iterdir()):
                raise ProtocolError(where, "is not empty", "give another --out, or --force to write into it")
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ProtocolError(where, f"cannot be used: {error.strerror}", "give another --out") from error

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def console(self) -> Console:
        """Where a protocol prints (a Rich console)."""
        from rich.console import Console

        return Console(quiet=self.quiet, highlight=False, markup=False)

    def write_json(self, name: str, content: Mapping[str, Any]) -> Path:
        """Write a dict as indented JSON, whole or not at all."""
        from evsim.provenance import to_json

        try:
            return self.write(name, (json.dumps(json.loads(to_json(content)), indent=2) + "\n").encode())
        except OSError as error:
            raise ProtocolError(
                f"file '{self / name}'",
                f"cannot be written: {error.strerror}",
                "make room, or give another --out",
            ) from error

    def write(self, name: str, content: bytes) -> Path:
        """Write a file, whole or not at all; raises OSError."""
        part = self / f".{name}.part"
        part.write_bytes(content)
        return part.replace(self / name)


def check_unchanged(where: str, folder: RunFolder, free: Iterable[str]) -> None:
    """Refuse options of a resumed run other than those with which it was begun: what is reported would not be
    what was trained.

    Raises
    ------
    ProtocolError
        At the first of them, by name, that is not among the ``free`` ones.
    """
    for name in sorted(folder.earlier.keys() - {*free}):
        now, before = folder.settings[name], folder.earlier[name]
        if now != before:
            problem = f"{name} is {now}, this run was begun with {before}"
            raise ProtocolError(where, problem, "leave it away, or start another run")


def check_data(where: str, folder: RunFolder, what: str, checksum: int) -> None:
    """Refuse data in a resumed run other than those with which it was begun, wherever they lie by now.

    To be called right before training, as a new run keeps the checksum in data.json.

    Raises
    ------
    ProtocolError
        With ``what`` the data are, such as the name of a corpus.
    """
    path, mine = folder / "data.json", {"crc32": checksum}
    if folder.resume and path.exists():
        try:
            same = json.loads(path.read_text()) == mine
        except (OSError, ValueError):  # spoilt
            same = False
        if not same:
            problem = f"{what} is not what this run was begun with"
            raise ProtocolError(where, problem, "give that, or start another run")
    else:
        folder.write_json(path.name, mine)


def check_counts(where: str, **counts: int) -> None:
    """Raise ProtocolError at the first of the settings that is below 1."""
    for name, value in counts.items():
        if value < 1:
            raise ProtocolError(where, f"{name} is {value}", "give 1 or more")


def default_path(name: str) -> Path:
    """``runs/<protocol>-<time>``."""
    return Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def names() -> list[str]:
    """The protocols that come with evsim."""
    package = importlib.import_module("evsim.protocols")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def load(name: str) -> Callable[..., Any]:
    """The ``run`` function of a protocol by name, or of a Python file by path.

    Raises
    ------
    ProtocolError
        There is no such protocol or file, it fails to import, or has no fitting ``run``.
    """
    if name in names():
        module = importlib.import_module(f"evsim.protocols.{name}")
    elif name.endswith(".py"):
        module = import_file(Path(name))
    else:
        raise ProtocolError(
            f"protocol '{name}'",
            "there is none of that name",
            f"use one of {names()}, or the path of a .py file",
        )
    run = getattr(module, "run", None)
    if not inspect.isfunction(run):
        raise ProtocolError(f"protocol '{name}'", "has no function run", "define run(folder, ...) in it")
    if not inspect.signature(run).parameters:
        raise ProtocolError(
            f"protocol '{name}'", "run() takes nothing", "its first parameter is the RunFolder"
        )
    return run


def can_resume(run: Callable[..., Any]) -> bool:
    """Whether a protocol anywhere asks its folder if it is resumed: no other can go on with a run."""
    return ".resume" in Path(run.__code__.co_filename).read_text(encoding="utf-8")


def import_file(path: Path) -> Any:
    """The module of a protocol's file.

    Raises
    ------
    ProtocolError
        There is no such file, or it fails to import.
    """
    if not path.is_file():
        raise ProtocolError(f"protocol '{path}'", "there is no such file", "check the path")
    spec = importlib.util.spec_from_file_location(f"{OWN}{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    if str(path.resolve().parent) not in sys.path:
        sys.path.append(
            str(path.resolve().parent)
        )  # for what lies beside the file; last, so that it hides nothing
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[spec.name]
        line = str(error).splitlines()[0] if str(error) else ""
        raise ProtocolError(
            f"protocol '{path}'", f"cannot be imported: {type(error).__name__}: {line}", "mend the file"
        ) from error
    return module
