"""Recorded states over time, reduced to what a picture can show."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evsim.viewer.source import Check
from evsim.viewer.turns import Turns

if TYPE_CHECKING:
    from evsim.log_file import LogFile

#: Elements of states read at once, which is how a file keeps them, and for one picture.
STRETCH, MOST_ELEMENTS = 2**18, 2**25


@dataclass(frozen=True, eq=False)
class Traces:
    """States of some nodes over time.

    Attributes
    ----------
    state : str
        Name of the state, such as ``"v"``.
    times : ndarray of float64, shape (n,)
        In ms.
    low, high : ndarray of float32, shape (n_nodes, n)
        Range of the samples about each time; the same when there is one.
    thinned : bool
        Whether samples have been left out that may lie outside the ranges.
    """

    state: str
    times: NDArray[np.float64]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    thinned: bool


def traces(
    file: LogFile,
    turns: Turns,
    name: str,
    start: float,
    stop: float,
    nodes: list[int],
    most: int,
    check: Check,
) -> Traces | None:
    """States of nodes in ``start <= time < stop`` ms at ``most`` times at most; None if none are recorded.

    Of more samples, the lowest and highest of a stretch are given.  Of very many, stretches that lie equally
    far apart are read.
    """
    population = file[name]
    n_samples = most if file.dt is None else max((stop - start) / file.dt, 1.0)
    stretches = n_samples * population.n_lanes * population.n_units / STRETCH
    n_parts = min(max(math.ceil(stretches), 1), most)
    thinned = stretches > MOST_ELEMENTS / STRETCH
    if thinned:
        n_parts = min(MOST_ELEMENTS // STRETCH, most)
    edges = np.linspace(start, stop, n_parts + 1)
    length = (stop - start) / stretches if thinned else np.inf
    per_part = max(most // n_parts, 1)
    state, times, lows, highs = None, [], [], []
    for begin, end in pairwise(edges.tolist()):
        check()
        with turns.now():
            found = population.state(begin, min(begin + length, end))
        if found is None:
            return None
        time, state, values = found
        if len(time):
            chosen = values.reshape(len(time), -1)[:, nodes].T.astype(np.float32)
            middle, low, high = _ranges(time, chosen, per_part)
            times.append(middle)
            lows.append(low)
            highs.append(high)
    assert state is not None
    if not times:
        nothing = np.zeros((len(nodes), 0), np.float32)
        return Traces(state, np.zeros(0), nothing, nothing, False)
    low, high = np.concatenate(lows, axis=1), np.concatenate(highs, axis=1)
    return Traces(state, np.concatenate(times), low, high, thinned)


def _ranges(
    time: NDArray[np.float64], values: NDArray[np.float32], most: int
) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.float32]]:
    """Times, and lowest and highest values, of at most ``most`` stretches of samples."""
    if len(time) <= most:
        return time, values, values
    starts = np.linspace(0, len(time), most, endpoint=False).astype(np.int64)
    low, high = np.minimum.reduceat(values, starts, axis=1), np.maximum.reduceat(values, starts, axis=1)
    last = np.append(starts[1:], len(time)) - 1
    return (time[starts] + time[last]) / 2, low, high
