"""The gradient of a loss by the names of what it is taken at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray


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
    counters : dict
        ``backward_active`` and ``beta`` per population; ``macs_state`` (dL/dy), ``macs_weight``,
        ``macs_recompute`` (what the paper's form needs and the run did not keep) and ``macs_rerun`` (running
        again where there is no tape) per projection.  In continuous time ``macs`` per projection and
        ``grazing``, the number of crossings whose slope was raised.
    """

    parameters: dict[str, NDArray]
    inputs: dict[str, Any] = field(default_factory=dict)
    initial: dict[str, dict[str, NDArray]] = field(default_factory=dict)
    counters: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> NDArray:
        return self.parameters[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.parameters)

    def __len__(self) -> int:
        return len(self.parameters)
