"""Adjoint event replay in continuous time: the log of a run walked backwards gives the gradient of a loss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.continuous_log import ContinuousLog
from evsim.continuous_plan import N_CONSTANTS, TIME_CONSTANTS, ContinuousPlan
from evsim.continuous_run import Outcome, Rows, forward, resting
from evsim.core.continuous_backward import ContinuousBackward
from evsim.core.dense import first_beyond
from evsim.core.memory import zeros
from evsim.errors import GradientError
from evsim.gradients import Gradients, over_lanes
from evsim.memory import zeros_by_page
from evsim.population import Population
from evsim.threads import usable_threads

#: Lanes are summed in at most so many parts, whatever the number of threads.
MOST_SHARDS = 16
#: From so many bytes on NumPy has an array made of huge pages; a gradient of which at most such a part of the
#: rows will not be zero is made of small ones instead.
LARGE, FEW = 1 << 22, 1 / 3


class ContinuousAdjoint:
    """Replays logs of a plan in continuous time backwards; ``Adjoint(plan)`` gives one for such a plan.

    The gradient of EGRU and LIF networks is exact: events move in time with the parameters (EventProp; no
    pseudo-derivative).  Where a state grazes its threshold that gradient is without bound, so slopes at
    crossings below ``min_slope`` are raised to it, and counted in ``counters["grazing"]``.  It knows nothing
    of events that come or go.  Delta units are differentiated with the times of their events held fixed.

    Parameters
    ----------
    plan : ContinuousPlan
    threads : int, optional
        As of a simulation.  Results do not depend on it.
    min_slope : float
        Per ms.
    tolerance : float
        Error of EGRU's c and its gradient in one step back.  It does not add up in the times of events, which
        are known, so it may be larger than that of the simulation.
    """

    def __init__(
        self,
        plan: ContinuousPlan,
        threads: int | None = None,
        min_slope: float = 1e-6,
        tolerance: float = 1e-10,
    ):
        if not (isinstance(min_slope, (int, float)) and 0 < min_slope < np.inf):
            raise GradientError("adjoint", f"min_slope is {min_slope!r}", "give a positive number")
        if not (isinstance(tolerance, (int, float)) and 1e-14 <= tolerance <= 1e-3):
            raise GradientError("adjoint", f"tolerance is {tolerance!r}", "give 1e-14 to 1e-3")
        self.plan, self.min_slope, self.tolerance = plan, float(min_slope), float(tolerance)
        self.threads = usable_threads(threads)

    def replay(
        self,
        log: ContinuousLog,
        losses: Mapping[str, ArrayLike],
        *,
        inputs: bool = False,
        initial: bool = False,
        events: bool = False,
    ) -> Gradients:
        """Gradient of a loss whose derivatives at what a log holds are given.

        Parameters
        ----------
        log : ContinuousLog
            Of a run of this plan, with the parameters as they are now.  A log without tape is run again
            first, and must send the same events.
        losses : mapping of str to array
            ``"hidden"``: at the sampled states of a population, shape (n_samples, n_lanes, n_units);
            ``"hidden.integral"``, ``"hidden.square"``: at those of the log, same shape; ``"hidden.time"``: at
            the times of its events, shape (n_events,), of EGRU and LIF.
        inputs : bool
            Also give ``inputs[source]["value"]`` and ``["time"]``, shape (n_events,): the gradient at the
            payloads and times of external events.
        initial : bool
            Also give ``initial[population][state]``, shape (n_lanes, n_units).
        events : bool
            Also give ``events[name]["value"]`` and ``["time"]``, shape (n_events,), for every population that
            sends: the gradient at the payload of each event of the log, and at its time, in 1/ms.  Both are
            of the event on its way: the sender has sent it, and its reset and its gate stay where they were;
            all targets receive another payload, or the same one earlier or later (as if the delays of this
            one event were longer), and a loss at ``.time`` sees that too.  All that follows at the targets
            follows by the rules of this replay.  Both are 0 where nothing arrives within the window.

        Raises
        ------
        GradientError
            Unknown names, wrong shapes, values that are not finite, a log of another plan.
        """
        self._check(log)
        parts = self._losses(log, losses)
        self.plan.refresh(self.tolerance)
        outcome = self._outcome(log)
        work = _Work(self.plan, log, outcome, parts, self.min_slope)
        work.run(self.threads)
        gradients = Gradients(work.parameters(), counters=work.counters)
        if inputs:
            gradients.inputs = work.at_events(self.plan.sources)
        if initial:
            gradients.initial = work.initial()
        if events:
            gradients.events = work.at_events(self.plan.populations)
        return gradients

    def _check(self, log: ContinuousLog) -> None:
        mine = self.plan.description
        if not isinstance(log, ContinuousLog):
            raise GradientError("log", repr(log), "give the log of a run in continuous time")
        if log.network is not mine:
            for part in ("dt_ms", "dtype", "populations", "projections"):
                if log.network.get(part) != mine.get(part):
                    raise GradientError(
                        "log",
                        f"its {part} are not those of the plan",
                        "replay a log on the plan that recorded it",
                    )

    def _losses(self, log: ContinuousLog, losses: Mapping[str, ArrayLike]) -> dict[tuple[str, str], NDArray]:
        """Loss gradients by population and kind (state, time, integral, square)."""
        parts: dict[tuple[str, str], NDArray] = {}
        for key, given in losses.items():
            name, _, kind = key.partition(".")
            if name not in self.plan.rank or kind not in self.plan.network[name].continuous_losses:
                places = {p.name: p.continuous_losses for p in self.plan.populations if p.continuous_losses}
                raise GradientError(f"loss '{key}'", "no such place", f"use a name and kind among {places}")
            try:
                array = np.ascontiguousarray(given, np.float64)
            except (TypeError, ValueError):
                raise GradientError(
                    f"loss '{key}'", f"{type(given).__name__} is not an array of numbers", "give floats"
                ) from None
            n_units = self.plan.network[name].n_units
            shape: tuple[int, ...] = len(log.samples), log.n_lanes, n_units
            if kind == "time":
                shape = (log[name].n_events,)
            if array.shape != shape:
                what = "events" if kind == "time" else "samples, lanes, units"
                raise GradientError(
                    f"loss '{key}'", f"gradient has shape {array.shape}", f"give {shape}: {what}"
                )
            if first_beyond(array) >= 0:
                where = tuple(int(i[0]) for i in np.nonzero(~np.isfinite(array)))
                raise GradientError(
                    f"loss '{key}'", f"gradient is {array[where]} at {where}", "give finite values"
                )
            parts[name, kind] = array
        if not parts:
            raise GradientError("losses", "none given", "give at least one, such as {'answer': dloss}")
        return parts

    def _outcome(self, log: ContinuousLog) -> Outcome:
        """What the run left behind, or leaves behind when it is run again."""
        tape = log.tape
        if tape is not None:
            if not tape.core.replayable:
                raise GradientError("log", "its tape is empty", "run again with tape=True")
            now = self.plan.delays
            if any(now[name] is not then for name, then in tape.delays.items()):
                raise GradientError(
                    "log", "delays have changed since it was made", "replay before the parameters change"
                )
            return Outcome(tape.core, tape.final, [], [], [])
        if log.provenance.get("carried"):
            raise GradientError(
                "log",
                "events were in flight at its start, and it has no tape to hold them",
                "replay a carried run from the log that Simulation.run returned",
            )
        states = []
        for rank, population in enumerate(self.plan.populations):
            row, member = self.plan.unit_rows[rank], log[population.name]
            x = zeros((log.n_lanes, int(row["n_slot"]), int(row["stride"])), np.dtype(np.float64))
            for k, state in enumerate(population.states):
                x[:, k, : population.n_units] = member.initial[state]
            states.append(x)
        given = {p.name: log[p.name].events for p in self.plan.sources}
        window = log.start, log.stop
        self.plan.refresh(log.provenance.get("tolerance", self.tolerance))
        outcome = forward(self.plan, given, states, window, log.samples, threads=self.threads)  # type: ignore[arg-type]
        self.plan.refresh(self.tolerance)
        events, lane, rows = outcome.events(range(len(self.plan.populations)))
        for rank, population in enumerate(self.plan.populations):
            sent = log[population.name].events
            if sent is None:
                continue
            mine = events[rows[rank]]
            if (
                len(mine) != len(sent)
                or not np.array_equal(mine["unit"], sent.unit)
                or not np.array_equal(lane[rows[rank]], sent.lane)
                or not np.allclose(mine["time"], sent.time, rtol=1e-6, atol=1e-6)
            ):
                raise GradientError(
                    f"log of '{population.name}'",
                    f"has {len(sent)} events, and others ({len(mine)}) follow from the present parameters",
                    "replay before the parameters change",
                )
        return outcome


class _Work:
    """The arrays of one replay: filled by the core, then read out by parameter name."""

    def __init__(
        self,
        plan: ContinuousPlan,
        log: ContinuousLog,
        outcome: Outcome,
        losses: Mapping[tuple[str, str], NDArray],
        min_slope: float,
    ):
        self.plan, self.log, self.outcome = plan, log, outcome
        self.rested = set(log.provenance.get("rest", []))
        n_lanes, n_shards = log.n_lanes, min(log.n_lanes, MOST_SHARDS)
        self.core = ContinuousBackward(plan.table, outcome.tape, n_shards, log.samples, min_slope)
        self.counters: dict[str, Any] = {}
        counts = [outcome.tape.n_events(lane) for lane in range(n_lanes)]
        ptr = np.array([0, *accumulate(counts)], np.int64)
        dtime = np.zeros(ptr[-1])
        for (name, kind), array in losses.items():
            if kind == "time":
                dtime[self.rows[plan.rank[name]]] = array
        self.at_time, self.at_value = np.zeros(ptr[-1]), np.zeros(ptr[-1])
        self.core.give_events(ptr, dtime, self.at_time, self.at_value)
        self.dpar, self.dconstants, self.dinitial = [], [], []
        for rank, population in enumerate(plan.populations):
            row, name = plan.unit_rows[rank], population.name
            stride = int(row["stride"])
            self.dpar.append(zeros((n_lanes, int(row["n_par"]), stride), np.dtype(np.float64)))
            self.dconstants.append(np.zeros((n_lanes, N_CONSTANTS)))
            self.dinitial.append(np.zeros((n_lanes, int(row["n_slot"]), stride)))
            if row["n_slot"]:
                self.core.give_arrays(
                    rank,
                    outcome.final[rank],
                    losses.get((name, "")),
                    losses.get((name, "integral")),
                    losses.get((name, "square")),
                    self.dpar[-1],
                    self.dconstants[-1],
                    self.dinitial[-1],
                )
        self.dweight, self.ddelay, self.taken = [], [], []
        for index, projection in enumerate(plan.projections):
            assert projection.delay is not None  # in continuous time
            values = projection.weight.values
            shape, few = (n_shards, *values.shape), self._few_rows(index, n_shards)
            self.dweight.append((zeros_by_page if few else np.zeros)(shape, values.dtype))
            self.taken.append(np.zeros(shape[:2], np.bool_) if few else None)
            wanted = projection.delay.trainable
            self.ddelay.append(np.zeros((n_shards, projection.delay.values.size)) if wanted else None)
            self.core.give_projection(index, self.dweight[-1], self.ddelay[-1], self.taken[-1])

    def _few_rows(self, index: int, n_shards: int) -> bool:
        """Whether most rows of a large gradient stay zero, so that they should take no memory.

        Not exact: events that were in flight at the start are not counted, those of lanes one by one.
        """
        projection, tape = self.plan.projections[index], self.outcome.tape
        most = FEW * n_shards * projection.source.n_units
        if projection.weight.values.nbytes * n_shards < LARGE or self.plan.fan_rows[index]["ptr"]:
            return False
        rank, n_rows = self.plan.rank[projection.source.name], 0
        for lane in range(tape.n_lanes):
            events = tape.events(lane)
            n_rows += int(np.count_nonzero(np.bincount(events["unit"][events["population"] == rank])))
        return n_rows <= most

    @cached_property
    def rows(self) -> dict[int, Rows]:
        """Rows of each population's events among those of all."""
        return self.outcome.events(range(len(self.plan.populations)))[2]

    def run(self, threads: int) -> None:
        """Let the core work."""
        macs, grazing = self.core.go(threads)
        names = [p.name for p in self.plan.projections]
        self.counters = {"macs": dict(zip(names, macs, strict=True)), "grazing": grazing}

    def parameters(self) -> dict[str, NDArray]:
        """Gradients by name, summed over lanes."""
        found: dict[str, NDArray] = {}
        dtype = self.plan.network.dtype
        for rank, population in enumerate(self.plan.populations):
            n, parameters = population.n_units, population.parameters
            blocks = over_lanes(self.dpar[rank])[:, :n]
            for block, state in enumerate(resting(population)):
                if f"{population.name}.{state}" in self.rested:  # it is the bias of that block
                    k = population.states.index(state)
                    blocks[block] += over_lanes(self.dinitial[rank][:, k, :n])
            at = 0
            for name in ("bias", "threshold"):
                if name in parameters:
                    count = parameters[name].values.size // n
                    gradient = blocks[at : at + count].reshape(parameters[name].values.shape)
                    found[parameters[name].name] = gradient.astype(dtype)
                    at += count
            for k, name in enumerate(TIME_CONSTANTS[population.kernel]):
                if parameters[name].trainable:
                    total = self.dconstants[rank][:, k].sum()
                    found[parameters[name].name] = np.array([total], dtype)
        for index, projection in enumerate(self.plan.projections):
            weight, delay, taken = self.dweight[index], self.ddelay[index], self.taken[index]
            found[projection.weight.name] = over_lanes(weight) if taken is None else _over_rows(weight, taken)
            if delay is not None and projection.delay is not None:
                shape = projection.delay.values.shape
                found[projection.delay.name] = delay.sum(axis=0).reshape(shape).astype(dtype)
        return found

    def at_events(self, populations: Iterable[Population]) -> dict[str, dict[str, NDArray]]:
        """dL/d(payload) and dL/d(time) of what some populations sent."""
        found = {}
        for population in populations:
            if population.emits:
                rows = self.rows[self.plan.rank[population.name]]
                found[population.name] = {"value": self.at_value[rows], "time": self.at_time[rows]}
        return found

    def initial(self) -> dict[str, dict[str, NDArray]]:
        """dL/d(states at the start)."""
        return {
            population.name: {
                state: self.dinitial[rank][:, k, : population.n_units]
                for k, state in enumerate(population.states)
            }
            for rank, population in enumerate(self.plan.populations)
            if population.states
        }


def _over_rows(array: NDArray, taken: NDArray[np.bool_]) -> NDArray:
    """As `over_lanes`, of an array of which only rows that are ``taken`` are in memory."""
    if len(array) == 1:
        return array[0]
    total = zeros_by_page(array.shape[1:], array.dtype)
    for row in np.flatnonzero(taken.any(axis=0)):
        for part in array:
            total[row] += part[row]
    return total
