"""Writes event logs to disk, window after window, while a simulation runs: see `evsim.log_format`."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from evsim.errors import LogError
from evsim.growing_log import GrowingLog
from evsim.hdf5 import abandon, check_target, one_line
from evsim.log_columns import AnyLog
from evsim.log_format import (
    LIBVER,
)

#: What h5py raises when a file cannot be written.
WRITING = (OSError, RuntimeError, ValueError)


class LogWriter:
    """A log on disk that grows by appending the logs of one window after the other.

    ::

        with LogWriter("run.h5") as writer:
            for piece in stimulus:
                writer.append(sim.run(piece, carry=True, tape=False))

    What was appended is put on file every 262144 events and every second, so that memory stays bounded.  A
    process killed at any moment loses what came after that, and the file opens (`evsim.LogFile`); it can be
    read while it is written.

    Parameters
    ----------
    path : str or Path
        The file is there from the first window on.
    states : bool
        Whether to keep the states of units that send too (readouts' always are).  They need a tape:
        ``run(..., tape=True)``.
    checkpoints : bool
        Whether to keep the states at the start of each window, so that `Adjoint` can replay the file window
        by window.  Of runs in steps.
    overwrite : bool
        Whether an existing file may be replaced.

    Attributes
    ----------
    path : Path
    n_events : int
        Events on file.

    Raises
    ------
    LogError
        The file exists and may not be replaced, or its folder does not.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        states: bool = False,
        checkpoints: bool = False,
        overwrite: bool = False,
    ):
        self.path, self._where, self._overwrite = Path(path), f"log {str(path)!r}", overwrite
        self._states, self._checkpoints = states, checkpoints
        check_target(self.path, self._where, overwrite, LogError)
        self.n_events = 0
        self._growing: GrowingLog | None = None
        self._closed = False
        self._made = (0, 0)
        self._all_samples: NDArray[np.float64] | None = None

    @classmethod
    def of_known(cls, path: Path, where: str, samples: NDArray[np.float64] | None, **options: Any) -> Self:
        """A writer for a run that is over: errors are about ``where``, and all samples are known."""
        writer = cls(path, **options)
        writer._where, writer._all_samples = where, samples
        return writer

    def conclude(self, counters: Mapping[str, Any], stop: float, duration: float) -> None:
        """Say what all windows come to, where that is known better than by adding up theirs."""
        assert self._growing is not None
        self._growing.counters, self._growing.end, self._growing.duration = dict(counters), stop, duration

    def append(self, log: AnyLog) -> None:
        """Add a window; it starts where the one before ended.

        Parameters
        ----------
        log : EventLog or ContinuousLog
            Nothing in it is kept or changed.

        Raises
        ------
        LogError
            The window does not follow on the one before, is of another network, or cannot be written (a full
            disk): what was on file stays there, and if nothing was, there is no file.
        """
        if self._closed:
            raise LogError(self._where, "is closed", "open another one")
        if self._growing is None:
            self._growing = self._create(log)
        growing = self._growing
        growing.check(log)
        with self._writing():
            growing.append(log)
            if growing.is_due():
                growing.commit()
                self.n_events = growing.n_rows

    def flush(self) -> None:
        """Put all that was appended on file."""
        if self._growing is not None and not self._closed:
            with self._writing():
                self._growing.commit()
                self.n_events = self._growing.n_rows

    def close(self) -> None:
        """Put all on file and close it.  Without a window there is no file."""
        if self._growing is not None and not self._closed:
            with self._writing():
                self._growing.commit(last=True)
                self.n_events = self._growing.n_rows
                self._growing.close()
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            with suppress(LogError):  # what is on the way tells more
                self.close()

    def _create(self, log: AnyLog) -> GrowingLog:
        """A file with its first window's description, under its own name as soon as it can be opened."""
        hidden = hidden_name(self.path)
        file = None
        try:
            file = h5py.File(hidden, "x", libver=LIBVER)
            growing = GrowingLog(self._where, file, log, self._states, self._checkpoints, self._all_samples)
            file.swmr_mode = True
            check_target(self.path, self._where, self._overwrite, LogError)
            os.replace(hidden, self.path)
            self._made = _identity(self.path)
        except BaseException as cause:
            if file is not None:
                abandon(file)
            hidden.unlink(missing_ok=True)
            if isinstance(cause, WRITING) and not isinstance(cause, LogError):
                raise _unwritable(self._where, cause) from cause
            raise
        return growing

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Close the file if it cannot be written any more, and remove it if nothing is on it."""
        try:
            yield
        except BaseException as cause:
            self._closed = True
            assert self._growing is not None
            is_ours = not isinstance(cause, WRITING) or isinstance(cause, LogError)
            if is_ours:
                with suppress(Exception):
                    self._growing.close()
            else:
                abandon(self._growing.file)
            if not self._growing.n_entries:
                self._remove()
            if is_ours:
                raise
            raise _unwritable(self._where, cause, self.n_events) from cause

    def _remove(self) -> None:
        """Remove the file, of which nothing can be read, unless another one has taken its place."""
        with suppress(OSError):
            if _identity(self.path) == self._made:
                self.path.unlink()


def write_whole(log: AnyLog, path: str | Path, overwrite: bool = False, states: bool = False) -> Path:
    """Write one log to a file that appears under its name when it is whole, or not at all.

    Raises
    ------
    LogError
        The file exists and may not be replaced, or cannot be written.
    """
    where, path = f"log {str(path)!r}", Path(path)
    check_target(path, where, overwrite, LogError)
    hidden = hidden_name(path)
    file = None
    try:
        file = h5py.File(hidden, "x", libver=LIBVER)
        growing = GrowingLog(where, file, log, states, False, whole=True)
        growing.check(log)
        growing.append(log)
        growing.commit(last=True)
        growing.close()
        with open(hidden, "rb") as written:
            os.fsync(written.fileno())  # the data must be on the disk before the name is
        check_target(path, where, overwrite, LogError)
        os.replace(hidden, path)
    except WRITING as cause:
        if isinstance(cause, LogError):
            raise
        raise _unwritable(where, cause) from cause
    finally:
        if file:
            abandon(file)
        hidden.unlink(missing_ok=True)
    return path


def hidden_name(path: Path) -> Path:
    """A name beside ``path`` that nobody else uses."""
    return path.with_name(f".{path.name[:100]}.{os.getpid()}-{secrets.token_hex(4)}.part")


def _identity(path: Path) -> tuple[int, int]:
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino


def _unwritable(where: str, cause: BaseException, kept: int = 0) -> LogError:
    rest = f"; its first {kept} events are on file" if kept else ""
    return LogError(where, f"cannot be written: {one_line(cause)}{rest}", "give another place")
