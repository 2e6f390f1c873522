"""The door to Brian2: imported when it is first needed, quietly, and left as it was found."""

from __future__ import annotations

import importlib
import logging
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np

from evsim.errors import MissingExtraError, NetworkError

#: How Brian2 runs: its two code generation targets, or a C++ program of its own ("C++ standalone").
Target = Literal["numpy", "cython", "standalone"]
TARGETS = ("numpy", "cython", "standalone")


def _import_brian2() -> Any:
    """Import Brian2 without the handlers it installs for Ctrl+C, uncaught exceptions and warnings."""
    if sys.modules.get("brian2") is not None:
        return sys.modules["brian2"]
    hook, interrupt, show = sys.excepthook, signal.getsignal(signal.SIGINT), warnings.showwarning
    try:
        brian2 = importlib.import_module("brian2")
    except (ImportError, AttributeError) as error:  # AttributeError: Brian2 2.9 with NumPy >= 2.4
        remedy = 'pip install "evsim[brian2]"'
        raise MissingExtraError("Brian2", f"cannot be imported ({error})", remedy) from error
    finally:
        sys.excepthook = hook
        if warnings.showwarning is not show:
            logging.captureWarnings(False)
    if interrupt is not None:
        signal.signal(signal.SIGINT, interrupt)
    logging.getLogger("py.warnings").removeHandler(brian2.BrianLogger.console_handler)
    return brian2


@contextmanager
def quiet_brian2(target: str) -> Iterator[Any]:
    """Brian2 with our preferences, without its chatter; afterwards everything is as before.

    Parameters
    ----------
    target : {"numpy", "cython", "standalone"}
        With "standalone" what is made inside belongs to a standalone device of our own, to be built with
        ``build``; that of the caller takes over again afterwards.

    Raises
    ------
    NetworkError
        Another target, or the caller has set a device that is not Brian2's runtime.
    MissingExtraError
        Brian2, or the compiler that the target needs, is not installed.
    """
    check_target(target)
    log = logging.getLogger("brian2")
    # exp(-x) of a gate may be inf: 1/(1 + inf) = 0
    with warnings.catch_warnings(), np.errstate(over="ignore"):
        # Brian2 calls pyparsing by its old names, when imported and for each equation
        old_names, callers = r"'\w+' (argument is )?deprecated", r"(brian2|pyparsing)\."
        warnings.filterwarnings("ignore", old_names, DeprecationWarning, callers)
        brian2 = _import_brian2()
        if brian2.get_device() is not brian2.all_devices["runtime"]:
            problem, remedy = "Brian2 is set to a standalone device", "call brian2.set_device('runtime')"
            raise NetworkError("Brian2 twin", problem, remedy)
        if target == "standalone":
            need_compiler("make")
        code = "cython" if target == "cython" else "numpy"
        level, wanted = log.level, {"codegen.target": code, "core.default_float_dtype": np.float64}
        before = {key: brian2.prefs[key] for key in wanted}
        try:
            log.setLevel(logging.ERROR)
            for key, value in wanted.items():
                brian2.prefs[key] = value
            if target == "standalone":
                with _own_device(brian2):
                    yield brian2
            else:
                yield brian2
        finally:
            log.setLevel(level)
            for key, value in before.items():
                brian2.prefs[key] = value


@contextmanager
def _own_device(brian2: Any) -> Iterator[None]:
    """A standalone device besides the one that Brian2 has, which holds what others have made on it."""
    device = type(brian2.all_devices["cpp_standalone"])()
    brian2.set_device(device, build_on_run=False)
    try:
        yield
    finally:
        brian2.Network._globally_running = False  # left set when the program is stopped
        importlib.import_module("brian2.devices.device").reset_device()


def check_target(target: str) -> None:
    """Raise a NetworkError unless there is such a target."""
    if target not in TARGETS:
        known = ", ".join(repr(one) for one in TARGETS)
        raise NetworkError("Brian2 twin", f"target is {target!r}", f"use one of {known}")


def compiler() -> str:
    """The command that compiles C++."""
    return (os.environ.get("CXX", "").split() or ["g++"])[0]


def need_compiler(*tools: str) -> None:
    """Raise a MissingExtraError unless there is a C++ compiler, and these tools."""
    for tool in (compiler(), *tools):
        if shutil.which(tool) is None:
            remedy = "install it (Debian: apt install g++ make), or use target='numpy'"
            raise MissingExtraError("C++ compiler", f"there is no {tool}", remedy)
