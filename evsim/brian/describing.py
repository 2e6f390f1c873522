"""What is asked for is checked, and the network described: the way to objects and to scripts of Brian2."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike

from evsim.brian.clocked import describe_steps
from evsim.brian.continuous import InitialStates, describe_continuous
from evsim.brian.description import Description
from evsim.errors import NetworkError
from evsim.events import Events
from evsim.network import Network


class Timing(TypedDict):
    """How long, and when to look: arguments of `evsim.brian.to_brian2`, some of one kind of time only."""

    duration: float | None
    n_steps: int | None
    dt: float | None
    samples: ArrayLike | None


def describe(
    where: str,
    network: Network,
    stimulus: Mapping[str, Any],
    timing: Timing,
    *,
    initial: InitialStates | None,
    **options: Any,
) -> Description:
    """What Brian2 is to do, whichever the network's kind of time.

    Parameters
    ----------
    where : str
        What is being made, for errors.
    network, stimulus, initial
        As of `evsim.brian.to_brian2`.
    timing : Timing
    **options
        For continuous time: method, slots.

    Raises
    ------
    NetworkError
        Arguments that are missing, or belong to the other kind of time; what has no twin in Brian2.
    StimulusError
        A stimulus that does not fit the network.
    """
    duration, n_steps = timing["duration"], timing["n_steps"]
    dt, samples = timing["dt"], timing["samples"]
    if network.continuous:
        if n_steps is not None:
            raise NetworkError(where, f"n_steps is {n_steps!r} in continuous time", "give duration in ms")
        if duration is None:
            raise NetworkError(where, "there is no duration", "give duration, in ms")
        if dt is None:
            raise NetworkError(where, "the network is in continuous time", "give dt, Brian2's step, in ms")
        options["sampled"] = samples is not None and np.size(samples) > 0
        return describe_continuous(network, stimulus, duration, dt, initial=initial, **options)
    for what, value, remedy in (
        ("samples", samples, "leave it out: states are those after each step"),
        ("initial", initial, "leave it out: a network in steps starts from rest"),
        ("dt", None if dt == network.step else dt, f"leave it out: the network has dt = {network.step:g} ms"),
    ):
        if value is not None:
            raise NetworkError(where, f"{what} means something in continuous time only", remedy)
    return describe_steps(network, stimulus, _count_steps(where, network, stimulus, duration, n_steps))


def _count_steps(
    where: str, network: Network, stimulus: Mapping[str, Any], duration: float | None, n_steps: int | None
) -> int:
    """How many steps are asked for, by a number, a duration or the stimulus."""
    if n_steps is not None:
        if duration is not None:
            raise NetworkError(where, "there are both duration and n_steps", "give one of them")
        return n_steps
    if duration is None:
        sizes = {e.n_steps if isinstance(e, Events) else len(np.asarray(e)) for e in stimulus.values()}
        if len(sizes) != 1:
            raise NetworkError(where, "there is neither duration nor n_steps", "give one of them")
        return sizes.pop()
    exact = duration / network.step if isinstance(duration, (int, float, np.number)) else math.nan
    if not (math.isfinite(exact) and exact > 0 and abs(exact - round(exact)) < 1e-6):
        problem = f"duration {duration!r} ms is not a multiple of dt = {network.step:g} ms"
        raise NetworkError(where, problem, "give a whole number of steps")
    return round(exact)
