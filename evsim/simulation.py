"""A simulation: a plan plus its running state.  It gives stimulus to the core and returns an event log."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.continuous_plan import ContinuousPlan
from evsim.continuous_simulation import ContinuousSimulation
from evsim.core import kernels
from evsim.core.dense import from_tokens
from evsim.core.forward import Forward
from evsim.core.memory import copy, empty, zeros
from evsim.dense_products import DenseProducts
from evsim.edits import Edits
from evsim.errors import NetworkError, StimulusError
from evsim.eventlog import EventLog, PopulationLog
from evsim.events import Events
from evsim.gains import gains_by_index
from evsim.memory import keep_freed_memory
from evsim.network import Network
from evsim.plan import SOURCES, STATES, TAPES, Plan
from evsim.states import States
from evsim.stimulus import encode_source, lane_lengths, one_step, shape_of
from evsim.threads import usable_threads

#: What the stimulus of one source may be; see `Simulation.run`.
Stimulus = Events | ArrayLike | tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike]
#: Edits of one population, as the core takes them, and room to count by lane those that took place.
Change = tuple[NDArray[np.int64], NDArray[np.int32], NDArray, NDArray, NDArray[np.int64]]


class Simulation:
    """Runs a network on its time grid; of one in continuous time this makes a `ContinuousSimulation`.

    Parameters
    ----------
    network : Network or Plan
    threads : int, optional
        Lanes are shared among so many threads; by default as many as this process may use.  If it is given,
        and there are fewer lanes than threads, a team of threads shares each lane of a large network (see
        `Plan.heavy`): they wait for each other in every step, which is slow on a machine busy with other
        things.  Results do not depend on it.

    Attributes
    ----------
    plan : Plan
    time_step : int
        Steps since the last reset: where the next carried run starts.
    n_lanes : int
        Lanes of the present state; 0 before the first run.
    """

    def __new__(cls, network: Any, *args: Any, **options: Any) -> Any:
        """In continuous time, a `ContinuousSimulation`."""
        if isinstance(network, ContinuousPlan) or (isinstance(network, Network) and network.continuous):
            return ContinuousSimulation(network, *args, **options)
        return super().__new__(cls)

    def __init__(self, network: Network | Plan, threads: int | None = None):
        keep_freed_memory()
        self.plan = network if isinstance(network, Plan) else Plan(network)
        self.threads = usable_threads(threads)
        self._teams = self.plan.heavy and threads is not None
        self.time_step = 0
        self.n_lanes = 0
        self._states: list[NDArray] = []
        self._in_flight: list[Events | None] = []
        # What is in flight, and the states, at rest, of so many lanes: training often begins there.
        self._nothing: list[Events | None] = []
        self._rest: list[NDArray] = []
        self._rest_for = 0
        # Of the last step, until a run follows: it has what is in flight, but that of given sources.
        self._core: Forward | None = None
        self._core_steps = np.ones(0, np.int64)
        self._core_tapes: list[NDArray | None] = []

    @property
    def schedule(self) -> str:
        """The order of things within one step, to be printed."""
        return self.plan.schedule

    def reset(self) -> None:
        """Forget states and events in flight; the next run starts at time 0 with any number of lanes."""
        self.n_lanes, self.time_step, self._states, self._in_flight = 0, 0, [], []
        self._core = None

    def run(
        self,
        stimulus: Mapping[str, Stimulus] | Stimulus,
        duration: float | None = None,
        *,
        carry: bool = False,
        lengths: ArrayLike | None = None,
        tape: bool = True,
        checkpoint: int | None = None,
        edits: Mapping[str, Edits] | None = None,
        gains: Mapping[str, ArrayLike] | None = None,
    ) -> EventLog:
        """Run and return the log of what happened.

        Parameters
        ----------
        stimulus : mapping of source name to data, or data if there is one source
            Data is one of: a float array (n_steps, n_lanes, n_units), or (n_steps, n_units) for one lane;
            integer token ids (n_steps, n_lanes), or (n_steps,) for one lane, -1 for no event; `Events`; or a
            tuple of arrays (time in ms, lane, unit, value), in any order.  A zero is no event.  To a source
            with a threshold they are the values of its lines, 0 where nothing is given, and it sends their
            changes.
        duration : float, optional
            ms, a multiple of dt; by default the length of the longest array.  Needed for tuples.
        carry : bool
            Go on from where the last run ended, with its states and events in flight, instead of from rest.
        lengths : array of int, shape (n_lanes,), optional
            Steps of each lane, for sequences of unequal length: what lies behind costs nothing and means
            nothing.
        tape : bool
            Record what `Adjoint` needs (5 or 6 numbers per unit, lane and step).  Without it, a replay
            computes it again, all at once.
        checkpoint : int, optional
            Record no tape but the states before every so many steps (1 to 7 numbers per unit and lane): a
            replay computes the tape of one such stretch at a time.  A third more time for far less memory;
            the square root of the number of steps is a good choice.
        edits : mapping of population name to `Edits`, optional
            Change single events on their way, or take them out: what all targets receive is another, while
            the sender has sent what it sent.  The log holds what arrives; ``counters["edits"]`` the number of
            edited events of each population, fewer than asked for where one does not come about.  Such a log
            cannot be replayed.
        gains : mapping of projection name to array, shape (n_lanes, units of its source), optional
            What payloads are multiplied by on their way through some projections, in all steps of this run;
            other projections of the same sender deliver what was sent, and so does the log.  Where it is 0
            the event does not go that way: its weights are not read, and not counted.  Events in flight are
            multiplied as they arrive, by the gains of the run in which they do.  The log remembers them
            (`EventLog.gains`), and a replay differentiates the run with them; a file does not, and cannot be
            replayed.  ``counters["gains"]`` is the number of gains that are not 1 of each projection.

        Raises
        ------
        StimulusError
            Data that do not fit the network or each other.
        """
        if checkpoint is not None and not (isinstance(checkpoint, (int, np.integer)) and checkpoint > 0):
            raise StimulusError("run", f"checkpoint {checkpoint!r}", "give a number of steps, at least 1")
        given, steps, n_steps, changes, factors = self._prepare(
            stimulus, duration, lengths, carry, edits, gains
        )
        plan = self.plan
        if self._core is not None:
            self._land(self._core, plan.rank.keys() - given.keys())
            self._core = None
        n_lanes, lane_steps = len(steps), sum(steps.tolist())
        full = lane_steps == n_steps * n_lanes
        tapes = self._room_for_tapes(n_steps, n_lanes, full, tape and checkpoint is None)
        every = (
            None if checkpoint is None else (checkpoint, self._room_for_states(n_steps, n_lanes, checkpoint))
        )
        initial, carried = self._states, self._in_flight.copy()
        core, macs = self._forward(given, steps, n_steps, tapes, every, changes, factors)
        logs, counts = {}, {}
        for rank, (name, kind, n_units, kernel, emits, threshold) in enumerate(plan.members):
            events, recorded = None, tapes[rank]
            if emits:
                stimulus_of = given.get(name)
                if isinstance(stimulus_of, Events):
                    events = stimulus_of
                else:
                    events = Events(n_units, n_lanes, n_steps, *core.collect(rank))
                counts[name] = len(events.unit)
            logs[name] = PopulationLog(
                name,
                kind,
                n_units,
                plan.dt,
                self.time_step,
                events,
                carried[rank],
                States(initial[rank], STATES[kernel]),
                recorded,
                () if recorded is None else TAPES[kernel],
                None if every is None else every[1][rank],
                threshold,
            )
        counters = {
            "lane_steps": lane_steps,
            "events": counts,
            "macs": dict(zip(plan.projection_names, macs, strict=True)),
            "dense_macs": {name: n * lane_steps for name, n in plan.n_weights.items()},
        }
        if changes:
            counters["edits"] = {name: sum(change[-1].tolist()) for name, change in changes.items()}
        by_name = {plan.projection_names[index]: gain for index, gain in factors.items()}
        if by_name:
            counters["gains"] = {name: int(np.count_nonzero(gain != 1)) for name, gain in by_name.items()}
        start, self.time_step = self.time_step, self.time_step + n_steps
        return EventLog(
            logs,
            dt=plan.dt,
            start_step=start,
            n_steps=n_steps,
            n_lanes=n_lanes,
            lengths=steps,
            counters=counters,
            network=plan.description,
            parameters=plan.parameters,
            provenance={"seed": plan.network.seed, "instruction_set": kernels.in_use()},
            checkpoint=checkpoint,
            gains=by_name,
        )

    def step(self, stimulus: Mapping[str, ArrayLike] | ArrayLike) -> dict[str, NDArray]:
        """Advance by one step, going on from the present state.

        Parameters
        ----------
        stimulus : mapping of source name to data, or data if there is one source
            Floats (n_lanes, n_units), or (n_units,) for one lane; or integer token ids (n_lanes,), or one
            integer.

        Returns
        -------
        dict of str to ndarray, shape (n_lanes, n_units)
            Event values of the populations that send, states of the readouts.
        """
        given = self._tokens(stimulus)
        if given is None:
            stimulus = {name: one_step(data) for name, data in self._by_source(stimulus).items()}
            given, *_ = self._prepare(stimulus, None if stimulus else self.plan.dt, None, True)
        plan, core = self.plan, self._core
        if core is None:
            # No log is made: of readouts the state is recorded, and of the others is read what they sent.
            self._core_steps = np.ones(self.n_lanes, np.int64)
            self._core_tapes = [
                None if p.emits else np.empty((1, self.n_lanes, p.n_units), plan.dtype)
                for p in plan.populations
            ]
            core, _ = self._forward(given, self._core_steps, 1, self._core_tapes)
            self._core = core
        else:
            self._again(core, given)
        self.time_step += 1
        return {
            p.name: core.sent(rank, 0) if tape is None else tape[0].copy()
            for rank, (p, tape) in enumerate(zip(plan.populations, self._core_tapes, strict=True))
        }

    def states(self, name: str) -> dict[str, NDArray]:
        """The present states of a population.

        Parameters
        ----------
        name : str

        Returns
        -------
        dict of str to ndarray, shape (n_lanes, n_units)
            Copies, by name, such as ``"c"`` of EGRU.

        Raises
        ------
        StimulusError
            Nothing has run yet.
        NetworkError
            There is no such population.
        """
        if not self._states:
            raise StimulusError(f"population '{name}'", "has no states yet", "run the network first")
        if name not in self.plan.rank:
            raise NetworkError(f"population '{name}'", "is not in the network", f"use {list(self.plan.rank)}")
        rank = self.plan.rank[name]
        states = States(self._states[rank], STATES[self.plan.kernels[rank]])
        return {state: values.copy() for state, values in states.items()}

    def _tokens(self, stimulus: Any) -> dict[str, Events | NDArray] | None:
        """Token ids of one step for the only source, encoded; None if it is anything else, or wrong.

        That is what `_prepare` does, for the most frequent kind of step.
        """
        source = self.plan.sources[0] if len(self.plan.sources) == 1 else None
        if source is None or source.sends == "changes" or isinstance(stimulus, (list, tuple, Mapping)):
            return None
        ids = np.asarray(stimulus)
        if ids.dtype.kind != "i" or ids.ndim > 1 or ids.size != self.n_lanes:
            return None
        found = from_tokens(np.ascontiguousarray(ids, np.int64), source.n_units, self.plan.dtype)
        if found is None or not self.n_lanes:
            return None
        return {source.name: Events(source.n_units, self.n_lanes, 1, *found)}

    def _again(self, core: Forward, given: dict[str, Events | NDArray]) -> None:
        """Another step with the core of the last one, which has all but the stimulus."""
        self.plan.refresh()
        dense = DenseProducts(self.plan, self._core_steps, 1)
        core.again()
        for name, stimulus in given.items():
            self._give_stimulus(core, dense, self.plan.rank[name], stimulus)
        self._go(core, dense, self.plan.bases(), self.n_lanes)
        self._land(core, given)

    # -- the pieces of a run, in order ---------------------------------------------------------------------

    def _prepare(
        self,
        stimulus: Any,
        duration: float | None,
        lengths: ArrayLike | None,
        carry: bool,
        edits: Mapping[str, Edits] | None = None,
        gains: Mapping[str, ArrayLike] | None = None,
    ) -> tuple[dict[str, Events | NDArray], NDArray[np.int64], int, dict[str, Change], dict[int, NDArray]]:
        """The encoded stimulus, the steps of each lane and of the window, edits, gains by index.

        The state is ready to go on.

        Edits of what a source was told to send are in its stimulus already.
        """
        given = self._by_source(stimulus)
        n_steps, n_lanes = self._window(given, duration, lengths)
        encoded = self._encode(given, n_steps, n_lanes)
        # All that can be wrong with the input is found before the present state is touched.
        steps = lane_lengths(lengths, n_steps, n_lanes)
        changes = self._changes(edits or {}, encoded, n_lanes, n_steps)
        factors = gains_by_index(self.plan, gains, n_lanes)
        if not carry or not self.n_lanes:
            self._begin(n_lanes)
        elif n_lanes != self.n_lanes:
            raise StimulusError(
                "stimulus",
                f"has {n_lanes} lanes, the carried state has {self.n_lanes}",
                "reset(), or keep the lanes",
            )
        return encoded, steps, n_steps, changes, factors

    def _changes(
        self, edits: Mapping[str, Edits], given: dict[str, Events | NDArray], n_lanes: int, n_steps: int
    ) -> dict[str, Change]:
        """Edits as the core takes them, with room to count; those of given events are made here and now."""
        if not edits:
            return {}
        senders = {p.name: p for p in self.plan.populations if p.emits}
        changes = {}
        for name, edit in edits.items():
            if name not in senders or not isinstance(edit, Edits):
                raise StimulusError(
                    f"edits of '{name}'", repr(edit), f"give Edits of some of {sorted(senders)}"
                )
            if self.plan.network.fixed_point is not None and (edit.factor.any() or edit.shift.any()):
                raise StimulusError(
                    f"edits of '{name}'",
                    "payloads in fixed point cannot be anything",
                    "take events out (factor 0, shift 0)",
                )
            n_units, stimulus = senders[name].n_units, given.get(name)
            table = edit.table(n_units, n_lanes, n_steps, self.plan.dtype, f"edits of '{name}'")
            edited = np.zeros(n_lanes, np.int64)
            if isinstance(stimulus, Events):
                given[name], edited[0] = edit.apply(stimulus)
            changes[name] = *table, edited
        return changes

    def _by_source(self, stimulus: Any) -> Mapping[str, Any]:
        """The data by the name of their source; they may come without a name if there is but one."""
        if not isinstance(stimulus, np.ndarray) and isinstance(stimulus, Mapping):
            return stimulus
        if len(self.plan.sources) != 1:
            names = [p.name for p in self.plan.sources]
            raise StimulusError(
                "stimulus", f"the network has sources {names}", "give a mapping from source name to data"
            )
        return {self.plan.sources[0].name: stimulus}

    def _window(
        self, given: Mapping[str, Any], duration: float | None, lengths: ArrayLike | None
    ) -> tuple[int, int]:
        """Steps and lanes that the stimulus, the duration and the lengths agree on."""
        shapes = {name: shape_of(name, data) for name, data in given.items()}
        if len(shapes) == 1 and duration is None and lengths is None:  # most often
            n_steps, n_lanes = next(iter(shapes.values()))
            if n_steps is not None and n_lanes:
                return n_steps, n_lanes
        steps = {shape[0] for shape in shapes.values() if shape[0] is not None}
        lanes = {shape[1] for shape in shapes.values() if shape[1] is not None}
        if lengths is not None:
            lanes.add(np.asarray(lengths).size)
        if duration is not None:
            exact = duration / self.plan.dt if isinstance(duration, (int, float, np.number)) else np.nan
            if not (math.isfinite(exact) and exact >= 0 and abs(exact - round(exact)) < 1e-6):
                raise StimulusError(
                    "run",
                    f"duration {duration!r} ms is not a multiple of dt = {self.plan.dt:g} ms",
                    "give a whole number of steps",
                )
            steps.add(round(exact))
        if len(steps) != 1 or len(lanes) > 1:
            raise StimulusError(
                "stimulus",
                f"steps {sorted(steps) or 'unknown'} and lanes {sorted(lanes) or 'unknown'} "
                f"from {shapes} and duration {duration}",
                "all inputs need the same number of steps and lanes; give duration= for event lists",
            )
        if not lanes:
            top = [int(np.max(data[1], initial=0)) + 1 for data in given.values() if isinstance(data, tuple)]
            lanes = {self.n_lanes or max(top, default=1)}
        if lanes == {0}:
            raise StimulusError("stimulus", "has 0 lanes", "give at least one lane")
        return steps.pop(), lanes.pop()

    def _encode(self, given: Mapping[str, Any], n_steps: int, n_lanes: int) -> dict[str, Events | NDArray]:
        """The events of every source; of one that sends changes its lines, (n_steps, n_lanes, n_units)."""
        names = self.plan.source_names
        if given.keys() != names:
            raise StimulusError(
                "stimulus",
                f"is for {sorted(given)}, the sources are {sorted(names)}",
                "give data for each source by name",
            )
        return {
            p.name: encode_source(p, given[p.name], n_lanes, n_steps, self.plan) for p in self.plan.sources
        }

    def _begin(self, n_lanes: int) -> None:
        """Rest: states zero, V of LIF units at the reset; nothing in flight."""
        self.n_lanes, self.time_step, self._core = n_lanes, 0, None
        if self._rest_for != n_lanes:
            self._rest_for = n_lanes
            self._nothing = [
                Events.empty(p.n_units, n_lanes, history, self.plan.dtype) if p.emits else None
                for p, history in zip(self.plan.populations, self.plan.history, strict=True)
            ]
            self._rest = [self._at_rest(rank) for rank in range(len(self.plan.populations))]
        self._in_flight, self._states = self._nothing.copy(), self._rest

    def _at_rest(self, rank: int) -> NDArray:
        """States of a population at rest, which many logs will share: not to be written into."""
        population = self.plan.populations[rank]
        states = zeros((self.n_lanes, self.plan.sizes[rank][1]), self.plan.dtype)
        for name, value in population.rest.items():
            States(states, STATES[population.kernel])[name][...] = value
        states.flags.writeable = False
        return states

    def _room_for_tapes(self, n_steps: int, n_lanes: int, full: bool, tape: bool) -> list[NDArray | None]:
        """Tapes to be written, by population; of those that send only if wanted."""
        make = empty if full else zeros  # what lies behind the end of a lane stays unwritten
        return [
            make((n_steps, n_lanes, len(TAPES[kernel]), n_units), self.plan.dtype)
            if TAPES[kernel] and (tape or not emits)
            else None
            for _, _, n_units, kernel, emits, _ in self.plan.members
        ]

    def _room_for_states(self, n_steps: int, n_lanes: int, every: int) -> list[NDArray | None]:
        """Checkpoints to be written, by population; None of sources."""
        count = (n_steps + every - 1) // every
        return [
            None if kernel in SOURCES else np.zeros((count, n_lanes, n_state), self.plan.dtype)
            for kernel, (_, n_state) in zip(self.plan.kernels, self.plan.sizes, strict=True)
        ]

    def _forward(
        self,
        given: dict[str, Events | NDArray],
        lengths: NDArray[np.int64],
        n_steps: int,
        tapes: Sequence[NDArray | None],
        checkpoints: tuple[int, Sequence[NDArray | None]] | None = None,
        changes: Mapping[str, Change] | None = None,
        gains: Mapping[int, NDArray] | None = None,
    ) -> tuple[Forward, list[int]]:
        """Go on from the present state; the core, which knows what was sent, and the MACs of each projection.

        ``tapes`` and ``checkpoints``, with the steps from one to the next, are to be written, by population.
        """
        plan = self.plan
        plan.refresh()
        core = Forward(plan.table, lengths, n_steps)
        self._states = [copy(states) for states in self._states]  # logs keep those before
        bases = plan.bases()
        dense = DenseProducts(plan, lengths, n_steps, gains)
        for index, gain in (gains or {}).items():
            core.give_gains(index, gain)
        for rank, name in enumerate(plan.rank):
            stimulus, carried = given.get(name), self._in_flight[rank]
            if stimulus is not None:
                self._give_stimulus(core, dense, rank, stimulus)
            if not isinstance(stimulus, Events):
                if carried is not None:
                    core.give_events(rank, carried.n_steps, carried.ptr, carried.unit, carried.value, False)
                core.give_arrays(rank, bases[rank], self._states[rank], tapes[rank])
                if changes and name in changes:
                    core.give_edits(rank, *changes[name])
                if checkpoints is not None and (room := checkpoints[1][rank]) is not None:
                    core.give_checkpoints(rank, checkpoints[0], room)
        macs = self._go(core, dense, bases, len(lengths))
        self._land(core, plan.rank)
        return core, macs

    def _give_stimulus(
        self, core: Forward, dense: DenseProducts, rank: int, stimulus: Events | NDArray
    ) -> None:
        if not isinstance(stimulus, Events):
            core.give_line(rank, stimulus)
            return
        carried = self._in_flight[rank]
        assert carried is not None
        events = carried.then(stimulus)
        core.give_events(rank, carried.n_steps, events.ptr, events.unit, events.value, True)
        dense.give_events(rank, events)

    def _go(
        self, core: Forward, dense: DenseProducts, bases: Sequence[NDArray | None], n_lanes: int
    ) -> list[int]:
        try:
            return dense.go(core, bases, self.threads, self._teams and n_lanes < self.threads)
        except MemoryError:
            self.reset()  # some lanes went further than others
            raise

    def _land(self, core: Forward, names: Iterable[str]) -> None:
        """Take from the core what some populations sent and is in flight."""
        for name in names:
            rank = self.plan.rank[name]
            carried = self._in_flight[rank]
            if carried is not None and carried.n_steps:
                self._in_flight[rank] = Events(
                    carried.n_units, carried.n_lanes, carried.n_steps, *core.in_flight(rank)
                )
