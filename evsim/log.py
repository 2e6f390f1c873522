"""What the record of a run has in common, whether time goes in steps or is continuous."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from evsim.errors import LogError
from evsim.event_table import EventTable, Units
from evsim.events import Events
from evsim.interchange import neo_block
from evsim.provenance import provenance, to_json
from evsim.timed_events import TimedEvents


class PopulationRecord:
    """What one population did in the window of a run: its columns of events."""

    name: str
    kind: str
    n_units: int
    events: Events | TimedEvents | None
    dt: float  # this and the next of runs in steps
    start_step: int

    @property
    def lane(self) -> NDArray[np.integer]:
        """Lane of every event, shape (n_events,)."""
        return self._sent.lane

    @property
    def unit(self) -> NDArray[np.int32]:
        """Unit of every event, shape (n_events,)."""
        return self._sent.unit

    @property
    def value(self) -> NDArray:
        """Payload of every event, shape (n_events,), float32 or float64."""
        return self._sent.value

    @property
    def n_events(self) -> int:
        """Number of events; 0 for populations that send nothing."""
        return 0 if self.events is None else len(self.events)

    @property
    def _sent(self) -> Any:
        if self.events is None:
            raise LogError(f"population '{self.name}'", f"a {self.kind} sends no events", "look at its state")
        return self.events

    def table(
        self,
        start: float | None = None,
        stop: float | None = None,
        units: Units | None = None,
        lanes: int | Iterable[int] | Literal["all"] | None = None,
    ) -> EventTable:
        """The events with ``start <= time < stop`` as plain columns, to count, plot or hand to other tools.

        Parameters
        ----------
        start, stop : float, optional
            ms from the start of the simulation; by default, and at most, the window of the log.
        units, lanes : optional
            Numbers of those that are wanted; by default all.

        Raises
        ------
        LogError
            A population that sends nothing, a window that ends before it starts, or units or lanes that there
            are not.
        """
        first, last, time, columns = self._between(start, stop)
        sent = self._sent
        table = EventTable(self.name, self.n_units, sent.n_lanes, first, last, time, **columns)
        return table.select(units, lanes)

    def _between(
        self, start: float | None, stop: float | None
    ) -> tuple[float, float, NDArray[np.float64], dict[str, NDArray]]:
        """The window that there is of one that is wanted, and the time and columns of its events."""
        sent: Events | TimedEvents = self._sent
        if isinstance(sent, TimedEvents):
            first, last = self._clip(start, stop, sent.start, sent.stop)
            from_row, to_row = np.searchsorted(sent.time, (first, last)).tolist()
            rows = slice(from_row, to_row)
            time, lane = sent.time[rows], sent.lane[rows]
        else:
            step = np.arange(sent.n_steps + 1) + self.start_step
            edges = step * np.float64(self.dt)
            first, last = self._clip(start, stop, float(edges[0]), float(edges[-1]))
            steps = np.searchsorted(edges[:-1], (first, last)).tolist()
            rows = slice(*sent.ptr[[k * sent.n_lanes for k in steps]].tolist())
            cut = sent.window(*steps)
            time, lane = edges[steps[0] + cut.step], cut.lane.astype(np.int32)
        columns = {"lane": lane, "unit": sent.unit[rows], "value": sent.value[rows]}
        for name in ("gradient", "time_gradient"):
            credit = getattr(self, name, None)
            if credit is not None:
                columns[name] = credit[rows]
        return first, last, time, columns

    def _clip(
        self, start: float | None, stop: float | None, first: float, last: float
    ) -> tuple[float, float]:
        """A window in ms, within that of the log."""
        wanted = (-np.inf if start is None else float(start), np.inf if stop is None else float(stop))
        if not wanted[0] <= wanted[1]:  # NaN neither
            problem = f"there is no window from {wanted[0]} to {wanted[1]} ms"
            raise LogError(f"population '{self.name}'", problem, "give start <= stop")
        low, high = np.clip(wanted, first, last).tolist()
        return low, high

    def summary(self) -> dict:
        """One row of the log's summary."""
        raise NotImplementedError


Member = TypeVar("Member", bound=PopulationRecord)


class Log(Generic[Member]):
    """Populations by name, and what else is known about a run."""

    populations: dict[str, Member]
    n_lanes: int
    counters: dict[str, Any]
    network: dict[str, Any]
    parameters: dict[str, NDArray]
    provenance: dict[str, Any]

    def __getitem__(self, name: str) -> Member:
        try:
            return self.populations[name]
        except KeyError:
            raise LogError("log", f"has no population '{name}'", f"it has {self.names}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.populations)

    def __contains__(self, name: object) -> bool:
        return name in self.populations

    @property
    def names(self) -> list[str]:
        """Names of the populations, in the order of the network."""
        return list(self.populations)

    def to_neo(
        self,
        start: float | None = None,
        stop: float | None = None,
        populations: Iterable[str] | None = None,
    ) -> Any:
        """A `neo.Block` with a Segment for each lane, holding the spike trains of all units in a window."""
        return neo_block(self, start, stop, populations)

    def summary(self) -> list[dict]:
        """A row per population: type, size, events, activity, rates, extreme units (see `evsim.raster`)."""
        return [population.summary() for population in self.populations.values()]

    def write_gradients(self, gradients: Mapping[str, Mapping[str, NDArray]]) -> None:
        """Keep gradients at payloads ("value") and times ("time") beside the events; see `Gradients.mark`."""
        for name, found in gradients.items():
            member: Any = self[name]
            member.gradient = found["value"]
            if "time" in found:
                member.time_gradient = found["time"]

    def complete_provenance(self) -> None:
        """Note versions, machine and time, unless a run has done so."""
        if "evsim" not in self.provenance:
            self.provenance = provenance(**self.provenance)

    def equal_about(self, other: Log) -> bool:
        """Whether parameters, counters, network and provenance are the same, to the last bit."""
        return same_arrays(self.parameters, other.parameters) and all(
            to_json(mine, sort_keys=True) == to_json(theirs, sort_keys=True)
            for mine, theirs in (
                (self.counters, other.counters),
                (self.network, other.network),
                (self.provenance, other.provenance),
            )
        )


def same(mine: NDArray | None, theirs: NDArray | None) -> bool:
    """Same dtype, shape and bits (so that NaN equals itself and -0 is not 0)."""
    if mine is None or theirs is None:
        return mine is theirs
    if mine.dtype != theirs.dtype or mine.shape != theirs.shape:
        return False
    bits = f"u{mine.dtype.itemsize}"
    return np.array_equal(np.asarray(mine, order="C").view(bits), np.asarray(theirs, order="C").view(bits))


def same_arrays(mine: Mapping[str, NDArray], theirs: Mapping[str, NDArray]) -> bool:
    """The same names, with the same arrays."""
    return mine.keys() == theirs.keys() and all(same(mine[name], theirs[name]) for name in mine)
