"""Where a result comes from: versions, machine, commit, command line and time."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def provenance(
    arguments: Sequence[str] | None = None, folder: str | Path | None = None, **extra: Any
) -> dict:
    """What a log should know about its own making, as JSON can hold it.

    Parameters
    ----------
    arguments : sequence of str, optional
        The command line, given by the caller; nothing is read from ``sys.argv``.
    folder : str or Path, optional
        Whose git commit is noted; by default the current directory.
    **extra
        Further entries, such as ``seed=0`` or ``protocol="delayed_copy"``.

    Returns
    -------
    dict
        ``evsim``, ``python``, ``numpy``, ``h5py`` (versions, None where not installed), ``platform``,
        ``git_commit`` (40 digits, with ``-dirty`` when files differ from it; None outside a repository),
        ``arguments`` (list of str or None), ``time_utc`` (ISO 8601) and the extras.
    """
    return {
        "evsim": version("evsim"),
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "h5py": version("h5py"),
        "platform": platform.platform(),
        "git_commit": git_commit(folder),
        "arguments": None if arguments is None else [str(argument) for argument in arguments],
        "time_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    } | extra


def git_commit(folder: str | Path | None = None) -> str | None:
    """The commit checked out in ``folder``, ``-dirty`` appended when files differ; None if there is none."""
    # --exclude '*' ignores tags, so that what comes back is always the bare hash.
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=5.0, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return (done.stdout.strip() or None) if done.returncode == 0 else None


def to_json(value: Any, sort_keys: bool = False) -> str:
    """``value`` as JSON; NumPy numbers and arrays are written as plain ones.

    Raises
    ------
    TypeError
        Something JSON has no form for.
    """
    return json.dumps(value, sort_keys=sort_keys, default=_plain)


def _plain(item: Any) -> Any:
    if not hasattr(item, "tolist"):
        raise TypeError(f"{type(item).__name__} has no form in JSON")
    return item.tolist()


def version(distribution: str) -> str | None:
    from importlib import metadata  # takes longer to import than this whole file

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
