"""States of two runs beside each other: how far apart, on average and at most, and where they part first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class StateErrors:
    """How far the states of one population are apart.

    Attributes
    ----------
    largest, rms, mean : float
        Of |difference| over all units and times; rms is the root of the mean of the squares.
    unit : int
        The one with the largest |difference|.
    time : float
        When that is, in ms.
    """

    largest: float
    rms: float
    mean: float
    unit: int
    time: float


@dataclass(frozen=True)
class Parting:
    """Where two runs differ first: in a state, in the value of an event, or in whether there is one.

    Attributes
    ----------
    population : str
    unit, index : int
        ``index`` counts the times compared: the step of runs in steps.
    time : float
        ms.
    what : {"state", "value", "event"}
    value, peer_value : float or None
        Of evsim and of Brian2; None for no event.
    """

    population: str
    unit: int
    index: int
    time: float
    what: str
    value: float | None
    peer_value: float | None

    def __str__(self) -> str:
        where = f"'{self.population}', unit {self.unit}, at {self.time:.6g} ms"
        sides = (("evsim", self.value), ("Brian2", self.peer_value))
        if self.what == "event":
            said = [f"{who} has {'none' if value is None else f'one of {value:.6g}'}" for who, value in sides]
            return f"{where}: of events {' and '.join(said)}"
        is_at = ", ".join(f"{who} {value:.15g}" for who, value in sides)
        return f"{where}: {'state' if self.what == 'state' else 'value of an event'} {is_at}"


def state_errors(mine: NDArray, theirs: NDArray, times: NDArray) -> StateErrors | None:
    """Errors of one population; arrays of shape (n_times, n_units), times in ms.  None without any."""
    if not mine.size:
        return None
    distance = np.abs(mine - theirs)
    index, unit = divmod(int(np.nan_to_num(distance, nan=np.inf).argmax()), distance.shape[1])
    square = float(np.sqrt((distance**2).mean()))
    return StateErrors(float(distance.max()), square, float(distance.mean()), unit, float(times[index]))


def first_state(
    states: Mapping[str, NDArray],
    peer: Mapping[str, NDArray],
    times: NDArray,
    tolerance: float,
    order: Sequence[str] = (),
) -> Parting | None:
    """The first state beyond the tolerance (NaN is): the unit furthest off in the earliest row that has one.

    Parameters
    ----------
    states, peer : dict of ndarray, shape (n_times, n_units)
    times : ndarray, shape (n_times,)
        ms.
    tolerance : float
    order : sequence of str
        Of populations that differ at the same time, the one named first here is the answer.
    """
    found: list[tuple[int, int, Parting]] = []
    for name, mine in states.items():
        far = ~(np.abs(mine - peer[name]) <= tolerance)
        rows = far.any(axis=1)
        if rows.any():
            index = int(rows.argmax())
            distance = np.abs(mine[index] - peer[name][index])
            unit = int(np.nan_to_num(distance, nan=np.inf).argmax())
            values = float(mine[index, unit]), float(peer[name][index, unit])
            rank = list(order).index(name) if name in order else len(order)
            where = Parting(name, unit, index, float(times[index]), "state", *values)
            found.append((index, rank, where))
    return min(found, key=lambda one: one[:2])[2] if found else None
