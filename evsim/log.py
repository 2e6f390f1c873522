"""What the record of a run has in common, whether time goes in steps or is continuous."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from evsim.errors import LogError
from evsim.events import Events
from evsim.provenance import provenance, to_json
from evsim.timed_events import TimedEvents


class PopulationRecord:
    """What one population did in the window of a run: its columns of events."""

    name: str
    kind: str
    n_units: int
    events: Events | TimedEvents | None

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

    def summary(self) -> dict:
        """One row of the log's summary."""
        raise NotImplementedError


Member = TypeVar("Member", bound=PopulationRecord)


class Log(Generic[Member]):
    """Populations by name, and what else is known about a run."""

    populations: dict[str, Member]
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
