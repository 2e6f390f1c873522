"""Recorded states over time, reduced to what a picture can show."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evsim.viewer.source import Check
from evsim.viewer.turns import Turns

if TYPE_CHECKING:
    from evsim.log_file import LogFile

#: Bytes of states read at once, and for one picture.
PIECE_BYTES, MOST_BYTES = 2**22, 2**26


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

    Of more samples, the lowest and highest of a stretch are given.  Of very many, a part is read.
    """
    population = file[name]
    tick = file.dt or (stop - start) / most
    sample_bytes = 8 * population.n_lanes * population.n_units
    n_samples = max((stop - start) / tick, 1.0)
    thinned = n_samples * sample_bytes > MOST_BYTES
    n_parts = most if thinned else min(max(int(n_samples * sample_bytes / PIECE_BYTES), 1), most)
    edges = np.linspace(start, stop, n_parts + 1)
    read = tick * max(MOST_BYTES // (sample_bytes * most), 1)
    times, samples, state = [], [], None
    per_part = max(most // n_parts, 1)
    for begin, end in pairwise(edges):
        check()
        with turns.now():
            found = population.state(begin, min(begin + read, end) if thinned else end)
        if found is None:
            return None
        time, state, values = found
        if not len(time):
            continue
        chosen = values.reshape(len(time), -1)[:, nodes].T.astype(np.float32)
        middle, low, high = _ranges(time, chosen, per_part)
        times.append(middle)
        samples.append((low, high))
    if state is None or not times:
        nothing = np.zeros((len(nodes), 0), np.float32)
        return None if state is None else Traces(state, np.zeros(0), nothing, nothing, False)
    lows, highs = (np.concatenate([pair[k] for pair in samples], axis=1) for k in (0, 1))
    return Traces(state, np.concatenate(times), lows, highs, thinned)


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
