"""How many threads to use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from threadpoolctl import threadpool_limits

from evsim.errors import ParameterError


def usable_threads(wanted: int | None) -> int:
    """``wanted``, or as many as this process may use."""
    if wanted is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if isinstance(wanted, bool) or not isinstance(wanted, (int, np.integer)) or wanted < 1:
        raise ParameterError("threads", f"is {wanted!r}", "give a positive integer")
    return int(wanted)


@contextmanager
def blas_threads(number: int) -> Iterator[None]:
    """Matrix products of NumPy on so many threads.

    More than there are free cores are many times as slow as one, because they wait for each other.
    """
    with threadpool_limits(number, user_api="blas"):
        yield
