"""Rates and intervals between events of two runs: what can agree where single events cannot."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

#: Up to so many intervals p is computed exactly; beyond, by the limit for many, which is as good there.
EXACT = 500


@dataclass(frozen=True, eq=False)
class Statistics:
    """One population in two runs.

    Attributes
    ----------
    n_units : int
    n_events : (int, int)
    rates : (float, float)
        Events per unit and second, in Hz.
    intervals : (ndarray, ndarray) of float64
        Times between consecutive events of a unit in ms, of all units together.
    distance, p_value : float
        Of the two-sample test of Kolmogorov and Smirnov on them: the largest difference of the distribution
        functions, and how often it would be as large if both were drawn from one; nan without intervals.
    """

    n_units: int
    n_events: tuple[int, int]
    rates: tuple[float, float]
    intervals: tuple[NDArray[np.float64], NDArray[np.float64]] = field(repr=False)
    distance: float
    p_value: float

    @property
    def n_intervals(self) -> tuple[int, int]:
        """The sizes of both samples."""
        return len(self.intervals[0]), len(self.intervals[1])

    @property
    def rate_difference(self) -> float:
        """Second rate by the first, minus 1; 0 where both are 0."""
        first, second = self.rates
        if first == second:
            return 0.0
        return second / first - 1 if first else float("inf")


@dataclass(frozen=True)
class Spread:
    """How far apart runs of one network are anyway, and where another simulator's run is among them.

    Attributes
    ----------
    counts : list of int
        Events of each run.
    distances : list of float
        Kolmogorov and Smirnov's distance of the intervals of each run from those of all others together.
    peer_count : int
    peer_distance : float
        The same of the other simulator's run, from all of these.
    """

    counts: list[int]
    distances: list[float]
    peer_count: int
    peer_distance: float

    @property
    def rate_difference(self) -> float:
        """The other's rate by the mean of these, minus 1."""
        return self.peer_count / float(np.mean(self.counts)) - 1

    @property
    def share(self) -> float:
        """The share of all runs, the other's among them, that are at least as far from the rest."""
        further = sum(distance >= self.peer_distance for distance in self.distances)
        return (1 + further) / (1 + len(self.distances))


def spread(runs: list[tuple[NDArray, NDArray]], peer: tuple[NDArray, NDArray]) -> Spread:
    """Hold one run against many of the same network; each is (time in ms, unit) of its events."""
    from scipy.stats import ks_2samp

    found = [intervals(*run) for run in runs]
    distances = []
    for number, own in enumerate([*found, intervals(*peer)]):
        others = np.concatenate([one for k, one in enumerate(found) if k != number])
        both = len(own) and len(others)
        distances.append(float(ks_2samp(own, others, method="asymp")[0]) if both else 1.0)
    return Spread([len(run[0]) for run in runs], distances[:-1], len(peer[0]), distances[-1])


def intervals(time: NDArray, unit: NDArray) -> NDArray[np.float64]:
    """Times between consecutive events of each unit, in the unit of ``time``; shape (n_intervals,)."""
    order = np.lexsort((time, unit))
    gaps, same = np.diff(time[order]), np.diff(unit[order]) == 0
    return np.asarray(gaps[same], np.float64)


def compare_statistics(
    first: tuple[NDArray, NDArray], second: tuple[NDArray, NDArray], n_units: int, duration: float
) -> Statistics:
    """Compare (time in ms, unit) of one population in two runs of the same duration (ms).

    Intervals are compared by a two-sample Kolmogorov-Smirnov test (`scipy.stats.ks_2samp`), which takes them
    for independent; those of one network are not quite.
    """
    from scipy.stats import ks_2samp

    both = intervals(*first), intervals(*second)
    seconds = n_units * duration / 1000
    distance = p_value = float("nan")
    if len(both[0]) and len(both[1]):
        method = "exact" if max(map(len, both)) <= EXACT else "asymp"
        distance, p_value = (float(x) for x in ks_2samp(*both, method=method))
    counts = len(first[0]), len(second[0])
    return Statistics(n_units, counts, (counts[0] / seconds, counts[1] / seconds), both, distance, p_value)
