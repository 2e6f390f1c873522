"""One run of a plan in continuous time by the core, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evsim.continuous_plan import SLOTS, ContinuousPlan
from evsim.core.continuous import Tape
from evsim.core.continuous_forward import ContinuousForward
from evsim.core.dense import first_beyond
from evsim.core.memory import zeros
from evsim.errors import StimulusError
from evsim.population import Population
from evsim.timed_events import TimedEvents

#: What is sampled of a population: its state, and the integrals of that and of its square since the sample
#: before; shape (n_samples, n_lanes, n_units) each.
Samples = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
#: Rows of an array, in an order: their numbers, or all as they are, which takes no memory.
Rows = NDArray[np.intp] | slice


@dataclass(eq=False)
class Outcome:
    """What a run leaves behind.

    Attributes
    ----------
    tape : Tape
        The events of all lanes and populations, and what the way back needs if that was recorded.
    final : list of ndarray of float64, shape (n_lanes, n_slots, stride)
        States of each population at the end, as the core holds them.
    samples : list of Samples or None
        Of each population with states.
    macs : list of int
        Of each projection.
    in_flight : list of structured ndarray
        Of each lane: events that arrive after the end.
    """

    tape: Tape
    final: list[NDArray[np.float64]]
    samples: list[Samples | None]
    macs: list[int]
    in_flight: list[NDArray]

    def columns(self, ranks: Collection[int]) -> dict[int, tuple[NDArray, ...]]:
        """Time, lane, unit and value of what some populations sent, in order of a log."""
        found: dict[int, tuple[NDArray, ...]] = {}
        for rank in ranks:
            sent = self.tape.sent_by(rank)
            if sent is None:
                events, lane, rows = self.events(ranks)
                for each, mine in rows.items():
                    own = events["time"][mine], lane[mine], events["unit"][mine], events["value"][mine]
                    found[each] = tuple(map(np.ascontiguousarray, own))
                return found
            time, unit, value = sent
            found[rank] = time, np.zeros(len(time), np.int32), unit, value
        return found

    def events(self, ranks: Iterable[int]) -> tuple[NDArray[np.void], NDArray[np.int32], dict[int, Rows]]:
        """Events lane by lane, the lane of each, and the rows of some populations' in order of a log."""
        by_lane = [self.tape.events(lane) for lane in range(self.tape.n_lanes)]
        if len(by_lane) == 1:
            events, lane = by_lane[0], np.zeros(len(by_lane[0]), np.int32)
            in_order = bool((events["time"][1:] > events["time"][:-1]).all())
        else:
            events, in_order = np.concatenate(by_lane), False
            lane = np.repeat(np.arange(len(by_lane), dtype=np.int32), [len(part) for part in by_lane])
        rows: dict[int, Rows] = {}
        for rank in ranks:
            sent = events["population"] == rank
            if in_order and sent.all():
                rows[rank] = slice(None)
                continue
            mine = np.flatnonzero(sent)
            if not in_order:
                mine = mine[np.lexsort((events["unit"][mine], lane[mine], events["time"][mine]))]
            rows[rank] = mine
        return events, lane, rows


def rest(plan: ContinuousPlan, n_lanes: int) -> list[NDArray[np.float64]]:
    """States of each population at rest, shape (n_lanes, n_slots, stride)."""
    found = []
    for rank, population in enumerate(plan.populations):
        row = plan.unit_rows[rank]
        x = zeros((n_lanes, int(row["n_slot"]), int(row["stride"])), np.dtype(np.float64))
        for name, values in resting(population).items():
            x[:, population.states.index(name), : population.n_units] = values
        found.append(x)
    return found


def resting(population: Population) -> dict[str, NDArray | float]:
    """The states that are not zero at rest; those that are a bias move with it."""
    bias, n = population.parameters.get("bias"), population.n_units
    if population.kernel == "egru_continuous" and bias is not None:
        return {name: bias.values[k * n : (k + 1) * n] for k, name in enumerate(("a_u", "a_r", "a_z"))}
    if population.kernel == "readout" and bias is not None:
        return {"v": bias.values}
    return {"v": getattr(population, "reset", 0.0)} if population.kernel == "lif" else {}


def forward(
    plan: ContinuousPlan,
    given: Mapping[str, TimedEvents],
    states: list[NDArray[np.float64]],
    window: tuple[float, float],
    samples: NDArray[np.float64],
    *,
    carried: list[NDArray] | None = None,
    tape: bool = True,
    threads: int = 1,
    most_events: int = 10**9,
) -> Outcome:
    """Run the core; ``states`` are those at the start and become those at the end.

    Raises
    ------
    StimulusError
        A lane had more than ``most_events`` events, or its states are no longer numbers.
    """
    n_lanes, (start, stop) = len(states[0]), window
    core = ContinuousForward(
        plan.table, n_lanes, start, stop, samples, plan.every if tape else 0.0, most_events
    )
    core.give_stimulus(*_by_lane(plan, given, n_lanes))
    taken: list[Samples | None] = []
    for rank, population in enumerate(plan.populations):
        if not SLOTS[population.kernel][0]:
            taken.append(None)
            continue
        shape = len(samples), n_lanes, population.n_units
        mine = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        core.give_arrays(rank, states[rank], mine[0], *(mine[1:] if len(samples) else (None, None)))
        taken.append(mine)
    for lane, messages in enumerate(carried or []):
        core.give_messages(lane, messages.view(np.uint8))
    try:
        macs = core.go(threads)
    except OverflowError as error:
        raise StimulusError(
            "run",
            f"{error} had more than {most_events} events before {stop:g} ms",
            "give a shorter duration, weaker weights, or a larger most_events",
        ) from None
    except FloatingPointError as error:
        raise _no_numbers(str(error)) from None
    for rank, population in enumerate(plan.populations):
        if first_beyond(states[rank]) < 0:
            continue
        if not np.isfinite(states[rank][:, :, : population.n_units]).all():
            raise _no_numbers(f"'{population.name}'")
    in_flight = [core.in_flight(lane) for lane in range(n_lanes)]
    return Outcome(core.tape, states, taken, macs, in_flight)


def _no_numbers(of: str) -> StimulusError:
    return StimulusError(
        "run", f"states of {of} are no longer numbers", "look for weights or values that are not finite"
    )


def _by_lane(plan: ContinuousPlan, given: Mapping[str, TimedEvents], n_lanes: int) -> tuple[NDArray, ...]:
    """The stimulus of all sources as columns, lane by lane in order of time."""
    ranks = sorted(((plan.rank[name], events) for name, events in given.items()), key=lambda pair: pair[0])
    if n_lanes == 1 and len(ranks) == 1:  # as they are
        rank, only = ranks[0]
        ptr, population = np.array([0, len(only)]), np.full(len(only), rank, np.int32)
        time, unit, value = (np.ascontiguousarray(column) for column in (only.time, only.unit, only.value))
        return ptr, time, population, unit, value
    columns = [
        np.concatenate([getattr(events, name) for _, events in ranks] or [np.zeros(0)])
        for name in ("lane", "time", "unit", "value")
    ]
    lane, time, unit, value = columns
    population = np.repeat([rank for rank, _ in ranks], [len(events) for _, events in ranks])
    order = np.lexsort((unit, population, time, lane))
    ptr = np.zeros(n_lanes + 1, np.int64)
    np.cumsum(np.bincount(lane.astype(np.int64), minlength=n_lanes), out=ptr[1:])
    return (
        ptr,
        time[order].astype(np.float64),
        population[order].astype(np.int32),
        unit[order].astype(np.int32),
        value[order].astype(np.float64),
    )
