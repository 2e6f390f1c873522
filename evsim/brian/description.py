"""A network in Brian2's terms, as plain data: what live objects and exported scripts are both made of.

Nothing here needs Brian2.  Times are whole numbers of steps of `Description.dt`, so that no rounding comes
between a network and its twin; numbers are without unit, but for `Group.times`.  `clocked` and `continuous`
write a network down in these terms, `objects` makes Brian2 objects of it, `script` a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

#: A value of each unit, or one for all.
Values = float | NDArray[np.float64]


@dataclass(frozen=True)
class Code:
    """Statements in Brian2's language, and when they are run in a step.

    Attributes
    ----------
    text : str
    when : str
        A slot of the schedule.
    order : int
        Within the slot, lower first.
    """

    text: str
    when: str
    order: int = 0


@dataclass(frozen=True, eq=False)
class Group:
    """A `NeuronGroup`.

    Attributes
    ----------
    name : str
        Of the population.
    title : str
        What it is, in one line.
    n : int
    equations : str
        One to a line, with comments.
    threshold, reset : str, optional
        Condition and statements; None for units that send nothing.
    turn : dict of str
        The slots of ``"threshold"`` and ``"reset"``, where they are not those of Brian2's own schedule.
    refractory : int, optional
        Steps; None for units that have no such period.
    method : str, optional
        Integrator of its differential equations.
    constants, times : dict of float
        Names that the equations use; times are in ms.
    stimulus : ndarray of float64, shape (n_steps, n), optional
        What ``stimulus(t, i)`` in its code is.
    values : dict
        Parameters and states at the start, by variable; what is not named begins at 0.
    lastspike : ndarray of int64, shape (n,), optional
        The step in which each unit has sent last, before the start.
    linked : dict of (str, str)
        Variables that are those of another group: its name, and that of the variable.
    regular : Code, optional
        What is done in each step.
    payload : ndarray of float64, shape (n,), optional
        What an event of each unit is worth, if that never changes.
    slots, reach : int
        How many of its last events it keeps the payloads of, 0 if it keeps none; and for how many steps they
        are read.
    """

    name: str
    title: str
    n: int
    equations: str
    threshold: str | None = None
    reset: str | None = None
    turn: Mapping[str, str] = field(default_factory=dict)
    refractory: int | None = None
    method: str | None = None
    constants: Mapping[str, float] = field(default_factory=dict)
    times: Mapping[str, float] = field(default_factory=dict)
    stimulus: NDArray[np.float64] | None = None
    values: Mapping[str, Values] = field(default_factory=dict)
    lastspike: NDArray[np.int64] | None = None
    linked: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    regular: Code | None = None
    payload: NDArray[np.float64] | None = None
    slots: int = 0
    reach: int = 0


@dataclass(frozen=True, eq=False)
class Generator:
    """A `SpikeGeneratorGroup`: events that are given.

    Attributes
    ----------
    name, title : str
    n : int
    unit, step : ndarray of int64, shape (n_events,)
    payload : ndarray of float64, shape (n,)
        What an event of each of its units is worth.
    """

    name: str
    title: str
    n: int
    unit: NDArray[np.int64]
    step: NDArray[np.int64]
    payload: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Synapses:
    """A `Synapses` object.

    Attributes
    ----------
    name : str
        Of the projection.
    source, target : str
        Names of groups.
    equations : str
        Its variables.
    i, j : ndarray of int64, shape (n_synapses,)
        Units of source and target.
    weights : dict
        Values of its constants, one for each synapse or one for all.
    on_pre : dict of Code
        What an event does, by name of the pathway.
    delay : int or ndarray of int64, shape (n_synapses,)
        Steps.
    """

    name: str
    source: str
    target: str
    equations: str
    i: NDArray[np.int64]
    j: NDArray[np.int64]
    weights: Mapping[str, Values]
    on_pre: Mapping[str, Code]
    delay: int | NDArray[np.int64] = 0


@dataclass(frozen=True)
class Monitor:
    """A `SpikeMonitor` or a `StateMonitor` of all units of a group.

    Attributes
    ----------
    group : str
    variable : str, optional
        What is recorded; of events besides their time and unit.
    when : str, optional
        Slot; None for Brian2's choice.
    order : int
    """

    group: str
    variable: str | None
    when: str | None = None
    order: int = 0


@dataclass(frozen=True, eq=False)
class Description:
    """A network with its stimulus, as Brian2 would run it.

    Attributes
    ----------
    dt : float
        ms.
    n_steps : int
    about : str
        How to read it, in a few lines.
    groups : dict of Group or Generator
        By population; one that is linked to another comes after it.
    synapses : dict of Synapses
        By projection, in the order in which their events are taken.
    spikes, states : dict of Monitor
        By population.
    schedule : tuple of str
        Slots of a step in order; empty for Brian2's own.
    """

    dt: float
    n_steps: int
    about: str
    groups: Mapping[str, Group | Generator]
    synapses: Mapping[str, Synapses]
    spikes: Mapping[str, Monitor]
    states: Mapping[str, Monitor]
    schedule: tuple[str, ...] = ()


def same(values: NDArray) -> Values:
    """The one value that all have, if they do; else a copy."""
    return values[0].item() if values.size and (values == values[0]).all() else values.copy()
