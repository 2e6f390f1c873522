"""The gradient of a loss by the names of what it is taken at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from numpy.typing import NDArray

from evsim.errors import GradientError


class Markable(Protocol):
    """A log, in memory or on disk."""

    def __getitem__(self, name: str) -> Any:
        """A population, with its number of events."""

    def write_gradients(self, gradients: Mapping[str, Mapping[str, NDArray]]) -> None:
        """Keep gradients beside the events."""


AnyLog = TypeVar("AnyLog", bound=Markable)


@dataclass(eq=False)
class Gradients(Mapping[str, NDArray]):
    """Gradients by parameter name, and what it took to get them.

    Attributes
    ----------
    parameters : dict of str to ndarray
        In the shapes of `Network.parameters`.
    inputs : dict of str to ndarray, shape (n_steps, n_lanes, n_units)
        Gradient at each source's input, dense; filled by ``replay(..., inputs=True)``.  In continuous time a
        dict for each source: ``"value"`` and ``"time"`` of its events, shape (n_events,).
    initial : dict of str to dict of str to ndarray
        Gradient at the states before the window, shape (n_lanes, n_units), and for populations with delayed
        projections at the events in flight, ``"y"``, shape (history, n_lanes, n_units), the step just before
        the window last; filled by ``replay(..., initial=True)``.
    events : dict of str to dict of str to ndarray, shape (n_events,)
        For every population that sends, in order of the log's events: ``"value"``, the gradient at the number
        that each carries to its targets; in continuous time also ``"time"``, in 1/ms, at the time when it
        reaches them.  Filled by ``replay(..., events=True)``, where both are explained.
    counters : dict
        ``backward_active`` and ``beta`` per population; ``macs_state`` (dL/dy), ``macs_weight``,
        ``macs_recompute`` (what the paper's form needs and the run did not keep) and ``macs_rerun`` (running
        again where there is no tape) per projection; with ``events``, those of sources too.  In continuous
        time ``macs`` per projection and ``grazing``, the number of crossings whose slope was raised.
    """

    parameters: dict[str, NDArray]
    inputs: dict[str, Any] = field(default_factory=dict)
    initial: dict[str, dict[str, NDArray]] = field(default_factory=dict)
    counters: dict[str, Any] = field(default_factory=dict)
    events: dict[str, dict[str, NDArray]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> NDArray:
        return self.parameters[name]

    def get(self, name: str, default: Any = None) -> Any:
        """As of a dict; shorter than what `Mapping` has."""
        return self.parameters.get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self.parameters)

    def __len__(self) -> int:
        return len(self.parameters)

    def mark(self, log: AnyLog) -> AnyLog:
        """Write the gradients of events beside the events of the log that was replayed, and return it.

        Its populations get columns ``gradient`` and, in continuous time, ``time_gradient``: rasters can
        colour by them, and files keep them.  A `LogFile` is opened anew.

        Raises
        ------
        GradientError
            The replay did not ask for them, or was one of another log.
        """
        if not self.events:
            raise GradientError("gradients", "there are none of events", "replay(..., events=True)")
        for name, found in self.events.items():
            n_events = log[name].n_events
            if len(found["value"]) != n_events:
                raise GradientError(
                    f"log of '{name}'",
                    f"it has {n_events} events, the one that was replayed {len(found['value'])}",
                    "mark the log that was replayed",
                )
        log.write_gradients(self.events)
        return log


def over_lanes(array: NDArray) -> NDArray:
    """Sum over the first axis, in order; of one lane, that lane."""
    return array[0] if len(array) == 1 else array.sum(axis=0)
