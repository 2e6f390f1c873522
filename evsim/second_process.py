"""Work that a second process does while this one does something else."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evsim.errors import EvsimError, ProtocolError
from evsim.protocol import OWN, import_file


class SecondProcess:
    """A call of a function in a process of its own, which ends when this one ends, however it does.

    Parameters
    ----------
    function : callable
        Of a module, so that it can be imported there; that may be the file of a protocol (`evsim run my.py`).
    arguments : sequence
        What it is called with, to be pickled.
    log : str or Path
        Takes, after what it held before, what the function prints, and what it raises.

    Raises
    ------
    ProtocolError
        The log cannot be written.
    """

    def __init__(self, function: Callable[..., object], *arguments: Any, log: str | Path):
        self.log = Path(log)
        try:
            self.log.open("a").close()
        except OSError as error:
            problem = f"cannot be written: {error.strerror}"
            raise ProtocolError(f"file '{self.log}'", problem, "make room, or give another --out") from error
        # Not forked: libraries hold threads, which a fork would not have.
        self._process = multiprocessing.get_context("spawn").Process(
            target=_call, args=(_Home(function), function, arguments, self.log), daemon=True
        )
        self._process.start()

    def join(self) -> bool:
        """Wait for its end; whether the function returned."""
        self._process.join()
        return self._process.exitcode == 0


class _Home:
    """Where a function is from; arrives as what importing it gives, and what comes after it finds it there.

    The module of a protocol in somebody's own file has no name by which it could be imported.
    """

    def __init__(self, function: Callable[..., object]):
        name = getattr(function, "__module__", "")
        self.file = Path(sys.modules[name].__file__ or "").resolve() if name.startswith(OWN) else None

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (type(None), ()) if self.file is None else (import_file, (self.file,))


def _call(home: Any, function: Callable[..., object], arguments: tuple[Any, ...], log: Path) -> None:
    """What the other process does; ``home`` has served by arriving first."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with log.open("a", buffering=1) as file:
        sys.stdout = sys.stderr = file
        try:
            function(*arguments)
        except EvsimError as error:
            print(f"evsim: {error}")
            sys.exit(2)
        except Exception:  # whatever it is, the log is the only place where it can be said
            traceback.print_exc()
            sys.exit(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # in the middle of whatever it is: files are written whole or not at all
