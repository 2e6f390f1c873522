"""The same network as Brian2 objects, run by Brian2: what they did, in evsim's terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.brian import clocked, continuous
from evsim.brian.continuous import InitialStates, Method, sample_times
from evsim.brian.describing import Timing, describe
from evsim.brian.description import Description, Group
from evsim.brian.library import Target, check_target, quiet_brian2
from evsim.brian.objects import Objects, Record, run_standalone
from evsim.continuous_comparison import TimedRun
from evsim.errors import NetworkError
from evsim.events import Events
from evsim.network import Network
from evsim.timed_events import TimedEvents

#: What a source is given, in either kind of time.
Stimulus = clocked.Stimulus | continuous.Stimulus


@dataclass(frozen=True, eq=False)
class BrianRun:
    """What happened in a Brian2 run in steps.

    Attributes
    ----------
    events : dict of Events
        By population (readouts send none), one lane, values float64.
    states : dict of ndarray, shape (n_steps, n_units), float64
        After each step: EGRU c (after the reset), delta units h, readouts v; sources and encoders have none.
    dt : float
        ms.
    seconds, prepare_seconds : float
        Wall time of the steps, and of the code generation before them.
    version : str
        ``"Brian2 2.9.0, numpy"``: version and code generation target.
    """

    events: dict[str, Events]
    states: dict[str, NDArray[np.float64]]
    dt: float
    seconds: float
    prepare_seconds: float
    version: str


class Twin:
    """A network as Brian2 objects; made by `to_brian2`.

    Attributes
    ----------
    description : Description
    net : brian2.Network
    groups : dict of brian2.NeuronGroup or brian2.SpikeGeneratorGroup
        By population.
    synapses : dict of brian2.Synapses
        By projection; those without any weight, or without events, are left out.
    spikes, traces : dict of brian2.SpikeMonitor, brian2.StateMonitor
        By population.  A standalone run leaves them, and all other objects, as they are.
    n_steps : int
    dt : float
        ms.
    """

    def __init__(self, description: Description):
        self.description = description
        self.n_steps, self.dt = description.n_steps, description.dt
        with quiet_brian2("numpy"):  # which says what is missing
            self._objects: Objects | None = None

    @property
    def _live(self) -> Objects:
        """Made when they are first asked for: a standalone run has objects of its own."""
        if self._objects is None:
            with quiet_brian2("numpy") as brian2:
                self._objects = Objects(brian2, self.description)
        return self._objects

    @property
    def clock(self) -> Any:
        return self._live.clock

    @property
    def net(self) -> Any:
        return self._live.net

    @property
    def groups(self) -> dict[str, Any]:
        return self._live.groups

    @property
    def synapses(self) -> dict[str, Any]:
        return self._live.synapses

    @property
    def spikes(self) -> dict[str, Any]:
        return self._live.spikes

    @property
    def traces(self) -> dict[str, Any]:
        return self._live.traces

    def _run(self, target: Target) -> Record:
        check_target(target)
        return run_standalone(self.description) if target == "standalone" else self._live.run(target)


class BrianTwin(Twin):
    """A network in steps, written down as the head of `evsim.brian.clocked` says."""

    def run(self, target: Target = "numpy") -> BrianRun:
        """Run all steps from the initial state; each call starts afresh.

        Parameters
        ----------
        target : {"numpy", "cython", "standalone"}
            How Brian2 runs it: interpreted, with Cython's modules (kept in Brian2's cache), or as a C++
            program that is written and compiled for each run.  The latter two need a C++ compiler.

        Raises
        ------
        NetworkError
            Another target, a Brian2 device that is not its runtime, or code that does not compile.
        MissingExtraError
            There is no compiler.
        """
        record = self._run(target)
        return BrianRun(
            events={name: self._events(name, record) for name in record.steps},
            states={name: trace.T.copy() for name, trace in record.traces.items()},
            dt=self.dt,
            seconds=record.seconds,
            prepare_seconds=record.prepare_seconds,
            version=record.version,
        )

    def _events(self, name: str, record: Record) -> Events:
        step, n_units = record.steps[name], self.description.groups[name].n
        form: dict[str, Any] = {"n_units": n_units, "n_steps": self.n_steps, "dtype": np.float64}
        columns = step, np.zeros_like(step), record.units[name], record.values[name]
        return Events.from_list(*columns, n_lanes=1, where="Brian2", **form)


class ContinuousTwin(Twin):
    """A network in continuous time, written down as the head of `evsim.brian.continuous` says.

    Attributes
    ----------
    duration : float
        ms.
    samples : ndarray of float64
        ms.
    slots : int
        How many events, whose payloads differ, a unit may have on their way at one time.
    """

    def __init__(self, description: Description, duration: float, samples: NDArray[np.float64], slots: int):
        super().__init__(description)
        self.duration, self.samples, self.slots = duration, samples, slots
        self._last: Record | None = None

    def run(self, target: Target = "numpy") -> TimedRun:
        """Run all steps from the initial state; each call starts afresh.

        Parameters
        ----------
        target : {"numpy", "cython", "standalone"}
            As of `BrianTwin.run`.

        Raises
        ------
        NetworkError
            Another target, a Brian2 device that is not its runtime, code that does not compile, or too few
            slots: some unit had more events on their way than could be told apart.
        MissingExtraError
            There is no compiler.
        """
        record = self._last = self._run(target)
        if (needed := self.slots_needed()) > self.slots:
            problem = f"some unit has {needed} events on their way at one time, there are {self.slots} slots"
            raise NetworkError("Brian2 twin", problem, f"give slots={needed}")
        return TimedRun(
            events={name: self._events(name, record) for name in record.steps},
            states={name: self._sampled(name, record) for name in record.traces},
            samples=self.samples,
            duration=self.duration,
            dt=self.dt,
            seconds=record.seconds,
            prepare_seconds=record.prepare_seconds,
            version=record.version,
        )

    def slots_needed(self) -> int:
        """How many slots the events of the last run need; 1 before the first."""
        needed = 1
        for name, group in self.description.groups.items():
            if not isinstance(group, Group) or not group.slots or self._last is None:
                continue
            unit, step = self._last.units[name], self._last.steps[name]
            for one in np.unique(unit):
                sent = step[unit == one]
                # an event is on its way up to and including the step in which it arrives
                reach = np.searchsorted(sent, sent + group.reach, side="right")
                needed = max(needed, int((reach - np.arange(len(sent))).max()))
        return needed

    def _events(self, name: str, record: Record) -> TimedEvents:
        when, unit, group = (
            (record.steps[name] + 1) * self.dt,
            record.units[name],
            self.description.groups[name],
        )
        value = record.values[name] if group.payload is None else group.payload[unit]
        # an event of the last step is at the end of it
        window: dict[str, Any] = {"start": 0.0, "stop": (self.n_steps + 1) * self.dt}
        size: dict[str, Any] = {"n_units": group.n, "n_lanes": 1}
        return TimedEvents.from_list(when, np.zeros_like(unit), unit, value, where="Brian2", **size, **window)

    def _sampled(self, name: str, record: Record) -> NDArray[np.float64]:
        """States at the grid points nearest to the samples."""
        traces = np.column_stack([record.traces[name], record.last[name]])
        return traces[:, np.rint(self.samples / self.dt).astype(int).clip(max=self.n_steps)].T


def to_brian2(
    network: Network,
    stimulus: Mapping[str, Any] | None = None,
    duration: float | None = None,
    *,
    n_steps: int | None = None,
    dt: float | None = None,
    samples: ArrayLike | None = None,
    initial: InitialStates | None = None,
    method: Method = "rk4",
    slots: int = 4,
) -> BrianTwin | ContinuousTwin:
    """Write a network down as Brian2 objects, whichever its kind of time.

    Parameters
    ----------
    network : Network
        Weights are copied.  In steps in float64.
    stimulus : dict, optional
        By source, of one lane.  In steps Events, or float arrays of shape (n_steps, n_units) or
        (n_steps, 1, n_units); in continuous time TimedEvents or (time, lane, unit, value).  Sources that are
        not named are silent.
    duration : float
        ms, from 0; in steps a multiple of the network's dt.  In steps ``n_steps`` may be given instead, or
        neither, if there is a stimulus that tells.
    n_steps : int
        In steps.
    dt : float
        In continuous time: Brian2's step in ms.
    samples : array, shape (n_samples,), optional
        In continuous time: increasing times in [0, duration], in ms; states are those at the nearest ends of
        steps.  In steps, states are those after each step.
    initial : dict of dict of array, optional
        In continuous time: states at the start, by population and name; otherwise at rest.  In steps evsim
        starts from rest.
    method : {"rk4", "rk2", "exponential_euler", "euler"}
        In continuous time: Brian2's integrator of the state c of EGRU.
    slots : int
        In continuous time: how many events of a unit, whose payloads differ, may be on their way at one time.
        In steps there are always enough.

    Returns
    -------
    BrianTwin or ContinuousTwin
        In steps and in continuous time.

    Raises
    ------
    NetworkError
        Something in the network that has no twin in Brian2 here.
    StimulusError
        A stimulus that does not fit the network.
    MissingExtraError
        Brian2 is not installed.
    """
    timing: Timing = {"duration": duration, "n_steps": n_steps, "dt": dt, "samples": samples}
    options: dict[str, Any] = {"initial": initial, "method": method, "slots": slots}
    description = describe("Brian2 twin", network, stimulus or {}, timing, **options)
    if not network.continuous:
        return BrianTwin(description)
    assert duration is not None  # or there were no description
    times = sample_times(samples, float(duration))
    return ContinuousTwin(description, float(duration), times, int(slots))


def to_brian2_continuous(
    network: Network, stimulus: Mapping[str, Any], duration: float, dt: float, **options: Any
) -> ContinuousTwin:
    """`to_brian2` of a network in continuous time; ``options``: samples, initial, method, slots."""
    if not network.continuous:
        problem = f"the network has dt = {network.dt} ms"
        raise NetworkError("Brian2 twin", problem, "use evsim.brian.to_brian2")
    twin = to_brian2(network, stimulus, duration, dt=dt, **options)
    assert isinstance(twin, ContinuousTwin)
    return twin
