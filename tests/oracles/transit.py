"""The NumPy reference where some events are changed on their way: their senders see nothing of it."""

from dataclasses import dataclass, field

import numpy as np

from evsim import reference


@dataclass
class Transit(reference.Run):
    """A run in which targets receive ``factor * y + shift`` for what was sent; arrays by population.

    Shape (n_steps, n_lanes, n_units).  An event that becomes 0 does not arrive; nothing arrives where nothing
    was sent, and what was sent before the run arrives as it was.
    """

    factor: dict = field(default_factory=dict)
    shift: dict = field(default_factory=dict)

    def change(self, name, t):
        """What is to be added to what a population sent in step t."""
        y = self.sent(name, t)
        if t < 0 or name not in self.factor:
            return np.zeros_like(y)
        return np.where(y != 0, (self.factor[name][t] - 1) * y + self.shift[name][t], 0.0)

    def arriving(self, projection, t):
        y = super().arriving(projection, t)
        return y + self.change(projection.source.name, t - projection.delay_steps)

    def arrived(self, projection, t):
        total = super().arrived(projection, t)
        for before in range(t - projection.delay_steps + 1):
            total = total + self.change(projection.source.name, before)
        return total

    def received(self, name):
        """What targets without delay receive, shape (n_steps, n_lanes, n_units)."""
        changes = [self.change(name, t) for t in range(self.n_steps)]
        return self[name]["y"] + np.array(changes).reshape(self[name]["y"].shape)


def simulate(network, stimulus, n_steps, n_lanes, initial=None, lengths=None, *, factor=None, shift=None):
    """As `evsim.reference.simulate`, with ``factor`` and ``shift`` of some populations."""
    shapes = {name: (n_steps, n_lanes, p.n_units) for name, p in network.populations.items()}
    changed = {*(factor or {}), *(shift or {})}
    factors = {name: np.broadcast_to((factor or {}).get(name, 1.0), shapes[name]) for name in changed}
    shifts = {name: np.broadcast_to((shift or {}).get(name, 0.0), shapes[name]) for name in changed}
    plain = reference.Run
    reference.Run = lambda *columns: Transit(*columns, factors, shifts)
    try:
        return reference.simulate(network, stimulus, n_steps, n_lanes, initial, lengths)
    finally:
        reference.Run = plain
