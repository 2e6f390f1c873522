"""A population of events in memory with what a file says of its blocks, as small as one likes."""

import numpy as np


class BlockPopulation:
    """Events in order of time; those of a run in steps have ``row_ptr`` too.

    ``read`` counts the rows that were asked for.
    """

    def __init__(
        self, time, node, value, *, n_units, n_lanes, dt=None, n_steps=0, block=7, groups=4, **gradients
    ):
        self.name, self.kind, self.n_units, self.n_lanes = "hidden", "EGRU", n_units, n_lanes
        self.n_events, n_nodes = len(node), n_units * n_lanes
        self.time, self.value = np.asarray(time, np.float64), np.asarray(value)
        self.node = np.asarray(node, np.uint16 if n_nodes <= 65536 else np.uint32)
        self._gradients, self.columns = gradients, ("time", "lane", "unit", "value", *gradients)
        self.dt, self.start_step, self.n_steps, self.row_ptr = dt, 0, n_steps, None
        self.start, self.stop = 0.0, 40.0
        if dt is not None:
            self.row_ptr = np.searchsorted(self.time, np.arange(n_steps + 1) * dt).astype(np.int64)
        starts = np.arange(0, self.n_events, block)
        self.block_ends = np.minimum(starts + block, self.n_events)
        self.block_times = self.time[starts]
        self.group_size = -(-n_nodes // groups)
        counts = [np.bincount(part // self.group_size, minlength=groups) for part in self._blocks()]
        self.block_counts = np.array(counts, np.uint32).reshape(-1, groups)
        self.unit_events = np.bincount(self.node, minlength=n_nodes).reshape(n_lanes, n_units)
        self.read = 0

    def _blocks(self):
        return np.split(self.node, self.block_ends[:-1]) if self.n_events else []

    def rows(self, start_ms=None, stop_ms=None):
        start = 0 if start_ms is None else int(np.searchsorted(self.time, start_ms))
        return slice(start, self.n_events if stop_ms is None else int(np.searchsorted(self.time, stop_ms)))

    def nodes(self, rows):
        self.read += rows.stop - rows.start
        return self.node[rows]

    def times(self, rows):
        self.read += rows.stop - rows.start
        return self.time[rows]

    def values(self, rows):
        return self.value[rows]

    def gradients(self, rows, name="gradient"):
        return self._gradients[name][rows]
