"""Where events of an imported network come from: lists of them, and Poisson processes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evsim.timed_events import TimedEvents


@dataclass(frozen=True, eq=False)
class ListedEvents:
    """Events that are known beforehand.

    Attributes
    ----------
    n_units : int
    times : ndarray of float64, shape (n_events,)
        ms from the start; those before it are dropped.
    units : ndarray of int, shape (n_events,)
    period : float
        ms after which they come again; 0 for once.
    name : str
        What errors are about.
    """

    n_units: int
    times: NDArray[np.float64]
    units: NDArray[np.int64]
    period: float
    name: str

    def events(self, duration: float, rng: np.random.Generator) -> TimedEvents:
        """Those of the first ``duration`` ms; ``rng`` is not used."""
        del rng
        times, units = self.times, self.units
        if self.period > 0 and len(times):
            rounds = np.arange(
                math.floor(-times.max() / self.period), math.ceil((duration - times.min()) / self.period) + 1
            )
            times = (times + rounds[:, None] * self.period).ravel()
            units = np.tile(units, len(rounds))
        times = np.where(np.abs(times) < 1e-9, 0.0, times)
        here = (times >= 0) & (times < duration)
        return _events(times[here], units[here], self.n_units, duration, self.name)


@dataclass(frozen=True, eq=False)
class PoissonEvents:
    """Independent Poisson processes of constant rates.

    Attributes
    ----------
    rates : ndarray of float64, shape (n_units,)
        Hz.
    name : str
        What errors are about.
    """

    rates: NDArray[np.float64]
    name: str

    @property
    def n_units(self) -> int:
        """How many processes."""
        return len(self.rates)

    def events(self, duration: float, rng: np.random.Generator) -> TimedEvents:
        """Events of the first ``duration`` ms."""
        counts = rng.poisson(self.rates * 1e-3 * duration)
        units = np.repeat(np.arange(self.n_units), counts)
        return _events(rng.uniform(0.0, duration, len(units)), units, self.n_units, duration, self.name)


def _events(times: NDArray, units: NDArray, n_units: int, duration: float, name: str) -> TimedEvents:
    lanes = np.zeros(len(times), np.int64)
    return TimedEvents.from_list(
        times,
        lanes,
        units,
        np.ones(len(times)),
        n_units=n_units,
        n_lanes=1,
        start=0.0,
        stop=duration,
        where=f"source '{name}'",
    )
