"""Thresholds of delta populations from data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evsim.errors import ParameterError
from evsim.network import Network
from evsim.protocol import Trial
from evsim.simulation import Simulation


def calibrate(
    network: Network,
    trials: Iterable[Trial],
    k: float | Mapping[str, float],
    *,
    per: Literal["unit", "population"] = "unit",
) -> dict[str, NDArray]:
    """Set thresholds to ``k`` times the root mean square of each line's change from one step to the next.

    One pass over the trials with all thresholds 0, so that every change is seen: those are the changes of the
    dense network.  The first step of a trial that starts from rest does not count: there, all lines jump from
    0.

    Parameters
    ----------
    network : Network
        Its delta populations, encoders and sources with thresholds are those that can be set.
    trials : iterable of Trial
        Targets are not looked at.
    k : float, or mapping of population name to float
        By name, only the named ones are set.
    per : {"unit", "population"}
        Whether each unit gets a threshold of its own, or all units of a population share one.

    Returns
    -------
    dict of str to ndarray, shape (n_units,)
        The new thresholds, by population; 0 for lines that never changed.

    Raises
    ------
    ParameterError
        A negative k, a population without such a threshold, or no steps to look at.  No threshold is changed.
    """
    if network.continuous:
        raise ParameterError(
            "calibrate", "a network in continuous time has no steps to look at", "calibrate one with dt in ms"
        )
    lines = {name: p for name, p in network.populations.items() if p.sends == "changes"}
    factors = dict(k) if isinstance(k, Mapping) else dict.fromkeys(lines, k)
    for name, factor in factors.items():
        if name not in lines:
            raise ParameterError(
                f"calibrate, k of '{name}'", "it sends no changes", f"use some of {list(lines)}"
            )
        if not (isinstance(factor, (int, float, np.number)) and np.isfinite(factor) and factor >= 0):
            raise ParameterError(f"calibrate, k of '{name}'", f"is {factor!r}", "give a number, 0 or more")
    if per not in ("unit", "population"):
        raise ParameterError("calibrate", f"per is {per!r}", "use 'unit' or 'population'")
    parameters = {name: p.parameters["threshold"] for name, p in lines.items()}
    before = {name: parameter.values.copy() for name, parameter in parameters.items()}
    squares = {name: np.zeros(p.n_units) for name, p in lines.items()}
    steps = 0
    try:
        for parameter in parameters.values():
            parameter.assign(0.0)
        steps = _add_up(network, trials, squares)
    finally:
        for name, parameter in parameters.items():
            parameter.assign(before[name])
    if steps == 0:
        raise ParameterError("calibrate", "the trials have no steps after their first", "give longer trials")
    found = {}
    for name, factor in factors.items():
        mean = squares[name] if per == "unit" else np.full_like(squares[name], squares[name].mean())
        with np.errstate(over="ignore"):  # check() reports what the float type cannot hold
            found[name] = (factor * np.sqrt(mean / steps)).astype(network.dtype)
        parameters[name].check(found[name])
    for name, values in found.items():
        parameters[name].assign(values)
        found[name] = parameters[name].values.copy()  # in fixed point, rounded
    return found


def _add_up(network: Network, trials: Iterable[Trial], squares: dict[str, NDArray]) -> int:
    """Add the squares of all changes to ``squares``, by population; returns the steps that count."""
    simulation, steps = Simulation(network), 0
    for trial in trials:
        start = 0 if trial.carry and simulation.time_step else 1
        log = simulation.run(
            trial.stimulus, trial.duration, carry=trial.carry, lengths=trial.lengths, tape=False
        )
        steps += int(np.maximum(log.lengths - start, 0).sum())
        for name, total in squares.items():
            events = log[name].events
            assert events is not None  # whoever sends changes has events
            later = events.window(min(start, events.n_steps), events.n_steps)
            total += np.bincount(later.unit, later.value.astype(np.float64) ** 2, events.n_units)
    return steps
