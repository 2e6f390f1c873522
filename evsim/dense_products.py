"""Matrix products in the place of events, for sources in which nearly every unit sends in every step.

Of a dense `EventSource`, this is done for projections whose weights are stored dense and in floats, to
targets that start from their biases in every step (EGRU, LIF, leaky readouts)::

    forwards     drive_t = base + sum x_{t - delay} W      what a target starts from in step t
    backwards    dW = sum over steps and lanes of x_{t - delay} D_t

With fewer than `FEWEST_LANES` lanes it is done backwards only: forwards each step would read all weights for
a few products, where the events of many steps share what is read.  Everything else, sparse or narrow weights,
and targets that keep their accumulators, takes events as from any source.

Forwards each step is a product by itself.  So what a step receives does not depend on the window it is run
in, and a run that is taken up from a checkpoint sends the same events, to the last bit.

Memory: the drive of a stretch of `DRIVE_BYTES`, a step at least, and the dense values of that stretch;
backwards the dense values of a piece of the replay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from evsim.core.forward import Forward
from evsim.events import Events
from evsim.plan import ACCUMULATORS, Plan
from evsim.projection import Projection

#: A stretch of time is so long that the drive of all targets is about so large, or a step.
DRIVE_BYTES = 16 << 20
#: With fewer lanes, events are faster forwards (benchmarks/dense_sources.py).
FEWEST_LANES = 16


class DenseProducts:
    """The products of one run, or of one piece of a replay.

    Parameters
    ----------
    plan : Plan
    lengths : ndarray of int64, shape (n_lanes,)
        Steps of each lane.
    n_steps : int
    gains : mapping of int to ndarray, shape (n_lanes, n_units)
        By index of the projection: what payloads are multiplied by on their way through it.
    """

    def __init__(
        self, plan: Plan, lengths: NDArray[np.int64], n_steps: int, gains: Mapping[int, NDArray] | None = None
    ):
        self.gains = gains or {}
        self.plan, self.lengths, self.n_steps = plan, lengths, n_steps
        self.projections = plan.dense
        self.senders = {plan.rank[plan.projections[j].source.name] for j in self.projections}
        self.events: dict[int, Events] = {}

    def give_events(self, rank: int, events: Events | None) -> None:
        """Set the events of a population, those of the steps before the window first."""
        if rank in self.senders and events is not None:
            self.events[rank] = events

    def go(self, core: Forward, bases: Sequence[NDArray | None], threads: int, teams: bool) -> list[int]:
        """Run the core, which has been given all else; returns the MACs of each projection."""
        if not self.projections or len(self.lengths) < FEWEST_LANES:
            return core.go(threads, teams)
        plan, n_lanes, macs = self.plan, len(self.lengths), [0] * len(self.plan.projections)
        targets = sorted({plan.rank[plan.projections[j].target.name] for j in self.projections})
        width = sum(plan.sizes[target][0] for target in targets)
        every = max(DRIVE_BYTES // (n_lanes * width * plan.dtype.itemsize), 1)
        last = int(self.lengths.max(initial=0))
        for first in range(0, last, every):
            stop = min(first + every, last)
            for target in targets:
                core.give_drive(target, self._drive(target, bases[target], first, stop))
            macs = core.go(threads, teams, first, stop)
        return macs

    def add_gradients(
        self, D: Sequence[NDArray], n_open: int, dweights: Sequence[NDArray], fresh: bool
    ) -> dict[int, int]:
        """Write weight gradients into some of ``dweights``, or add to them.

        Parameters
        ----------
        D : sequence of ndarray, shape (n_steps, n_lanes, n_in)
            Gradients at the accumulators of each population, zero behind the end of a lane.
        n_open : int
            So many steps from the first are wanted.
        dweights : sequence of ndarray
        fresh : bool
            Whether to write.

        Returns
        -------
        dict of int to int
            MACs by index of the projection.
        """
        macs, dense = {}, {rank: events.to_dense() for rank, events in self.events.items()}
        for j in self.projections:
            projection = self.plan.projections[j]
            rank = self.plan.rank[projection.source.name]
            first = self.plan.history[rank] - projection.delay_steps
            x = dense[rank][first : first + n_open]
            if j in self.gains:
                x = x * self.gains[j]
            x = x.reshape(-1, projection.source.n_units).T
            of_target = D[self.plan.rank[projection.target.name]][:n_open]
            of_target = of_target.reshape(-1, of_target.shape[-1])
            for columns, accumulators in runs_of_columns(projection):
                into = dweights[j][:, columns]
                if fresh:
                    np.matmul(x, of_target[:, accumulators], out=into)
                else:
                    into += x @ of_target[:, accumulators]
            macs[j] = self._count(j, rank, first, n_open) * projection.shape[1]
        return macs

    def _drive(self, target: int, base: NDArray | None, first: int, stop: int) -> NDArray:
        """What a target starts from in steps first:stop, shape (steps, n_lanes, n_in)."""
        assert base is not None
        drive = np.empty((stop - first, len(self.lengths), len(base)), self.plan.dtype)
        mine = [j for j in self.projections if self.plan.rank[self.plan.projections[j].target.name] == target]
        if self.plan.projections[mine[0]].shape[1] < len(base):
            drive[...] = 0  # what its columns do not lead to
        for j in mine:
            projection, x = self.plan.projections[j], self._sent(j, first, stop)
            for columns, accumulators in runs_of_columns(projection):
                weight = projection.weight.values[:, columns]
                if j == mine[0]:
                    np.matmul(x, weight, out=drive[..., accumulators])
                else:
                    drive[..., accumulators] += x @ weight
        drive += base
        return drive

    def _sent(self, j: int, first: int, stop: int) -> NDArray:
        """What arrives through a projection in steps first:stop, shape (steps, n_lanes, n_units)."""
        projection = self.plan.projections[j]
        rank = self.plan.rank[projection.source.name]
        back = self.plan.history[rank] - projection.delay_steps
        sent = self.events[rank].window(first + back, stop + back).to_dense()
        return sent * self.gains[j] if j in self.gains else sent

    def _count(self, j: int, rank: int, first: int, n_open: int) -> int:
        """Events of steps from ``first`` on that arrive in ``n_open`` steps, before their lane ends."""
        n_lanes = len(self.lengths)
        ptr = self.events[rank].ptr[first * n_lanes : (first + n_open) * n_lanes + 1]
        there = np.arange(n_open)[:, None] < self.lengths
        if j not in self.gains:
            return int(np.diff(ptr)[there.ravel()].sum())
        events = self.events[rank].window(first, first + n_open)
        let_through = self.gains[j][events.lane, events.unit] != 0
        return int(np.count_nonzero(let_through & there[events.step, events.lane]))


def runs_of_columns(projection: Projection) -> list[tuple[slice, slice]]:
    """The columns of a projection, and the accumulators they lead to, in runs that lie side by side."""
    places, n = ACCUMULATORS[projection.target.kernel][projection.port], projection.target.n_units
    starts = [k for k in range(len(places)) if k == 0 or places[k] != places[k - 1] + 1]
    stops = [*starts[1:], len(places)]
    return [
        (slice(k * n, end * n), slice(places[k] * n, (places[k] + end - k) * n))
        for k, end in zip(starts, stops, strict=True)
    ]
