"""A simulation in continuous time: a plan plus its running state, brought from event to event."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.continuous_log import ContinuousLog, ContinuousPopulationLog
from evsim.continuous_plan import ContinuousPlan
from evsim.continuous_run import Outcome, forward, rest, resting
from evsim.core import kernels
from evsim.core.continuous import Tape
from evsim.errors import ParameterError, StimulusError
from evsim.memory import aligned, keep_freed_memory
from evsim.network import Network
from evsim.threads import usable_threads
from evsim.timed_events import TimedEvents

#: What the stimulus of one source may be: events, or columns (time in ms, lane, unit, value) in any order.
Stimulus = TimedEvents | tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike]


@dataclass(eq=False)
class ReplayTape:
    """What `Adjoint` needs of a run besides its log.

    Attributes
    ----------
    core : Tape
    final : list of ndarray
        States of each population at the end.
    delays : dict of str to ndarray
        `ContinuousPlan.delays` of that time.
    """

    core: Tape
    final: list[NDArray[np.float64]]
    delays: dict[str, NDArray[np.float64]]


class ContinuousSimulation:
    """Runs a network in continuous time; ``Simulation(network)`` gives one if the network has ``dt=None``.

    Parameters
    ----------
    network : Network or ContinuousPlan
    threads : int, optional
        Lanes are shared among so many threads; by default as many as this process may use.  Results do not
        depend on it.
    tolerance : float
        Error of EGRU's c in one step of its integration, between 1e-14 and 1e-3.  Other units have closed
        forms.

    Attributes
    ----------
    plan : ContinuousPlan
    time : float
        ms since the last reset: where the next carried run starts.
    n_lanes : int
        Lanes of the present state; 0 before the first run.
    """

    def __init__(
        self, network: Network | ContinuousPlan, threads: int | None = None, tolerance: float = 1e-12
    ):
        keep_freed_memory()
        if not (isinstance(tolerance, (int, float)) and 1e-14 <= tolerance <= 1e-3):
            raise ParameterError("simulation", f"tolerance is {tolerance!r}", "give 1e-14 to 1e-3")
        self.plan = network if isinstance(network, ContinuousPlan) else ContinuousPlan(network)
        self.threads, self.tolerance = usable_threads(threads), float(tolerance)
        self.reset()

    @property
    def schedule(self) -> str:
        """The order of things at one instant, to be printed."""
        return self.plan.schedule

    def reset(self) -> None:
        """Forget states and events in flight; the next run starts at time 0 with any number of lanes."""
        self.n_lanes, self.time = 0, 0.0
        self._states: list[NDArray[np.float64]] = []
        self._in_flight: list[NDArray] = []
        self._delays: dict[str, NDArray[np.float64]] = {}

    def run(
        self,
        stimulus: Mapping[str, Stimulus] | Stimulus | None = None,
        duration: float | None = None,
        *,
        samples: ArrayLike | None = None,
        initial: Mapping[str, Mapping[str, ArrayLike]] | None = None,
        n_lanes: int | None = None,
        carry: bool = False,
        tape: bool = True,
        most_events: int = 10**9,
    ) -> ContinuousLog:
        """Run over a window [start, start + duration) and return the log of what happened.

        Parameters
        ----------
        stimulus : mapping of source name to data, or data if there is one source
            `TimedEvents` of the window, or columns (time in ms, lane, unit, value) in any order; times count
            from the start of the simulation.  A zero is no event.
        duration : float
            ms.
        samples : array of float, shape (n_samples,), optional
            Increasing times in [start, start + duration] at which states are recorded, as they are just
            before the events of that instant.
        initial : mapping of population to mapping of state to array, optional
            States at the start, broadcast to (n_lanes, n_units); others are at rest, or carried.
        n_lanes : int, optional
            By default as many as the stimulus or the initial states have.
        carry : bool
            Go on from where the last run ended, with its states and events in flight.
        tape : bool
            Record what `Adjoint` needs: the order of things, and states every two of the shortest time
            constants.  Without it a replay runs the network again.
        most_events : int
            Of one lane, after which the run ends with an error.

        Raises
        ------
        StimulusError
            Data that do not fit the network or each other, or too many events.
        """
        start = self.time if carry and self.n_lanes else 0.0
        if not (isinstance(duration, (int, float, np.number)) and 0 <= duration < math.inf):
            raise StimulusError("run", f"duration is {duration!r}", "give a number of ms, 0 or more")
        if isinstance(most_events, bool) or not isinstance(most_events, (int, np.integer)) or most_events < 1:
            raise StimulusError("run", f"most_events is {most_events!r}", "give a positive integer")
        window = start, start + float(duration)
        going_on = carry and self.n_lanes > 0
        given = self._by_source(stimulus)
        lanes = self._lanes(given, initial or {}, n_lanes, going_on)
        events = {name: self._events(name, given.get(name), lanes, window) for name in self._source_names()}
        times = _sample_times(samples, window)
        # All that can be wrong with the input is found before the present state is touched.
        self.plan.refresh(self.tolerance)
        if going_on:
            self._check_delays()
        states = [aligned(x, np.float64) for x in self._states] if going_on else rest(self.plan, lanes)
        self._set(states, initial or {}, lanes)
        carried = self._in_flight if going_on else []
        before = [x.copy() for x in states]
        outcome = forward(
            self.plan,
            events,
            states,
            window,
            times,
            carried=carried,
            tape=tape,
            threads=self.threads,
            most_events=int(most_events),
        )
        self.n_lanes, self.time = lanes, window[1]
        self._states, self._in_flight = outcome.final, outcome.in_flight
        self._delays = self.plan.delays
        given_states = {f"{name}.{state}" for name, of in (initial or {}).items() for state in of}
        rested = [] if going_on else [name for name in _resting_states(self.plan) if name not in given_states]
        return self._log(outcome, events, before, window, times, tape, rested, any(map(len, carried)))

    # -- the pieces of a run, in order ---------------------------------------------------------------------

    def _source_names(self) -> list[str]:
        return [population.name for population in self.plan.sources]

    def _check_delays(self) -> None:
        """What is in flight is to arrive at targets in the order of the delays that it was sent with."""
        now = self.plan.delays
        flying = {int(k) for messages in self._in_flight for k in np.unique(messages["projection"])}
        for projection in (self.plan.projections[k] for k in sorted(flying)):
            if now[projection.name] is not self._delays[projection.name]:
                raise StimulusError(
                    f"projection '{projection.name}'",
                    "its delays have changed since events in flight were sent",
                    "call reset(), or change delays between runs that are not carried",
                )

    def _by_source(self, stimulus: Any) -> Mapping[str, Any]:
        """The data by the name of their source; they may come without a name if there is but one."""
        names = self._source_names()
        if stimulus is None:
            return {}
        if not isinstance(stimulus, Mapping):
            if len(names) != 1:
                raise StimulusError(
                    "stimulus", f"the network has sources {names}", "give a mapping from source name to data"
                )
            return {names[0]: stimulus}
        unknown = sorted(set(stimulus) - set(names))
        if unknown:
            raise StimulusError(
                "stimulus", f"is for {unknown}, the sources are {names}", "give data by source name"
            )
        return stimulus

    def _lanes(
        self, given: Mapping[str, Any], initial: Mapping[str, Any], n_lanes: int | None, going_on: bool
    ) -> int:
        """How many lanes the stimulus, the initial states and the present ones agree on."""
        if n_lanes is not None and not (
            isinstance(n_lanes, (int, np.integer)) and not isinstance(n_lanes, bool) and n_lanes > 0
        ):
            raise StimulusError("run", f"n_lanes is {n_lanes!r}", "give a positive integer")
        fixed = {int(n_lanes)} if n_lanes is not None else set()
        fixed |= {data.n_lanes for data in given.values() if isinstance(data, TimedEvents)}
        fixed |= {self.n_lanes} if going_on else set()
        for states in initial.values():
            shapes = (np.shape(values) for values in states.values() if not isinstance(values, float))
            fixed |= {shape[0] for shape in shapes if len(shape) == 2 and shape[0] > 1}
        if len(fixed) > 1:
            raise StimulusError(
                "run",
                f"stimulus, initial states, n_lanes and carried states have {sorted(fixed)} lanes",
                "they must agree; reset() forgets carried states",
            )
        if fixed:
            return fixed.pop()
        lanes = [np.asarray(data[1]) for data in given.values() if isinstance(data, tuple) and len(data) == 4]
        return max(
            (int(column.max()) + 1 for column in lanes if column.dtype.kind in "iu" and column.size),
            default=1,
        )

    def _events(self, name: str, data: Any, n_lanes: int, window: tuple[float, float]) -> TimedEvents:
        """The events of one source, checked."""
        n_units, (start, stop), where = self.plan.network[name].n_units, window, f"source '{name}'"
        if data is None:
            return TimedEvents.empty(n_units, n_lanes, start, stop)
        if isinstance(data, TimedEvents):
            if data.n_units != n_units or data.start > start or data.stop < stop:
                raise StimulusError(
                    where,
                    repr(data),
                    f"give events of {n_units} units over a window that holds {start:g} to {stop:g} ms",
                )
            data.check(where)
            return data.window(start, stop)
        if not isinstance(data, tuple) or len(data) != 4:
            kind = f"{len(data)} columns" if isinstance(data, tuple) else type(data).__name__
            raise StimulusError(where, kind, "give TimedEvents or (time in ms, lane, unit, value)")
        return TimedEvents.from_list(
            *data, n_units=n_units, n_lanes=n_lanes, start=start, stop=stop, where=where
        )

    def _set(
        self,
        states: list[NDArray[np.float64]],
        initial: Mapping[str, Mapping[str, ArrayLike]],
        n_lanes: int,
    ) -> None:
        """Write given initial states into those of the core."""
        for name, values in initial.items():
            population = self.plan.network[name]
            for state, given in values.items():
                where = f"initial state '{name}.{state}'"
                if state not in population.states:
                    raise StimulusError(where, "there is none", f"{population!r} has {population.states}")
                slot = states[self.plan.rank[name]][:, population.states.index(state), : population.n_units]
                try:
                    slot[...] = np.asarray(given, np.float64)
                except (TypeError, ValueError):
                    raise StimulusError(
                        where, f"has shape {np.shape(given)}", f"give {(n_lanes, population.n_units)}"
                    ) from None
                if not np.isfinite(slot).all():
                    wrong = slot[~np.isfinite(slot)][0]
                    raise StimulusError(where, f"has a value {wrong}", "give finite values")

    def _log(
        self,
        outcome: Outcome,
        given: Mapping[str, TimedEvents],
        before: list[NDArray[np.float64]],
        window: tuple[float, float],
        times: NDArray[np.float64],
        tape: bool,
        rested: list[str],
        carried: bool,
    ) -> ContinuousLog:
        sending = [rank for rank, p in enumerate(self.plan.populations) if p.emits and p.name not in given]
        members, columns = {}, outcome.columns(sending)
        for rank, population in enumerate(self.plan.populations):
            name, n = population.name, population.n_units
            sent = given.get(name)
            if rank in columns:
                sent = TimedEvents(n, len(before[rank]), *window, *columns[rank])
            member = ContinuousPopulationLog(name, type(population).__name__, n, sent)
            member.initial = {
                state: before[rank][:, k, :n].copy() for k, state in enumerate(population.states)
            }
            taken = outcome.samples[rank]
            if taken is not None and len(times):
                member.state, member.integral, member.square = taken
            if "threshold" in population.parameters:
                member.thresholds = population.parameters["threshold"].values
            members[name] = member
        return ContinuousLog(
            members,
            start=window[0],
            duration=window[1] - window[0],
            n_lanes=len(before[0]),
            samples=times,
            counters={
                "events": {name: log.n_events for name, log in members.items() if log.events is not None},
                "macs": dict(zip([p.name for p in self.plan.projections], outcome.macs, strict=True)),
            },
            network=self.plan.description,
            parameters=self.plan.parameters,
            provenance={
                "seed": self.plan.network.seed,
                "instruction_set": kernels.in_use(),
                "tolerance": self.tolerance,
                "rest": rested,
                "carried": carried,
            },
            tape=ReplayTape(outcome.tape, [x.copy() for x in outcome.final], self.plan.delays)
            if tape
            else None,
        )


def _resting_states(plan: ContinuousPlan) -> list[str]:
    """States whose value at rest is a parameter, by name: a gradient at them is one at that."""
    return [
        f"{population.name}.{state}"
        for population in plan.populations
        if "bias" in population.parameters and population.kernel != "lif"
        for state in resting(population)
    ]


def _sample_times(samples: ArrayLike | None, window: tuple[float, float]) -> NDArray[np.float64]:
    if samples is None:
        return np.zeros(0)
    try:
        times = np.array(samples, np.float64)
    except (TypeError, ValueError):
        raise StimulusError("samples", f"{samples!r} are not numbers", "give times in ms") from None
    start, stop = window
    inside = (times >= start) & (times <= stop)  # NaN is outside
    if times.ndim != 1 or not inside.all() or (times[1:] <= times[:-1]).any():
        raise StimulusError(
            "samples",
            f"{np.array2string(times, threshold=8)}",
            f"give increasing times from {start:g} to {stop:g} ms",
        )
    return times
