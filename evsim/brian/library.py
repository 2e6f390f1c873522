"""The door to Brian2: imported when it is first needed, quietly, and left as it was found."""

from __future__ import annotations

import importlib
import logging
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np

from evsim.errors import MissingExtraError, NetworkError

#: Brian2's code generation targets.
Target = Literal["numpy", "cython"]


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
    """Brian2 with our preferences, without its chatter; afterwards everything is as before."""
    if target not in ("numpy", "cython"):
        raise NetworkError("Brian2 twin", f"target is {target!r}", "use 'numpy' or 'cython'")
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
        level, wanted = log.level, {"codegen.target": target, "core.default_float_dtype": np.float64}
        before = {key: brian2.prefs[key] for key in wanted}
        try:
            log.setLevel(logging.ERROR)
            for key, value in wanted.items():
                brian2.prefs[key] = value
            yield brian2
        finally:
            log.setLevel(level)
            for key, value in before.items():
                brian2.prefs[key] = value
