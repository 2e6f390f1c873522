"""The data sets of an event log that grow, and what the journal is to say of them: see `evsim.log_format`."""

from __future__ import annotations

import math
import zlib
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.continuous_log import ContinuousLog, ContinuousPopulationLog
from evsim.errors import LogError
from evsim.eventlog import EventLog, PopulationLog
from evsim.events import Events
from evsim.hdf5 import put_text
from evsim.log_format import (
    BLOCK,
    CHUNK,
    PIECE,
    SORTING,
    group_shift,
    n_groups,
    node_dtype,
)

AnyLog = EventLog | ContinuousLog
Member = PopulationLog | ContinuousPopulationLog


class Column:
    """A data set that grows by rows, and the pieces of it that are not in the journal yet.

    Parameters
    ----------
    group : h5py.Group
    name : str
    dtype : dtype
    shape : tuple of int
        Of a row.
    chunk, piece : int
        Rows of a chunk, and of a piece, at most.
    expected : int, optional
        Rows that there will be, where that is known: a chunk is no larger.
    options
        Of `h5py.Group.create_dataset`.
    """

    def __init__(
        self,
        group: h5py.Group,
        name: str,
        dtype: Any,
        shape: tuple[int, ...] = (),
        chunk: int | None = None,
        piece: int | None = None,
        expected: int | None = None,
        **options: Any,
    ):
        width = int(np.prod(shape, dtype=np.int64))
        self.piece = piece or max(PIECE // width, 1)
        rows = chunk or min(max(2**13 // width, 1), 1024)
        chunks = (rows if expected is None else min(rows, max(expected, 1)), *shape)
        if width > PIECE:  # a chunk is no larger than readers accept, however wide a row is
            chunks = (*(1 for _ in shape), min(shape[-1], PIECE))
        self.dataset = group.create_dataset(
            name, (0, *shape), dtype, maxshape=(None, *shape), chunks=chunks, **options
        )
        self.path = self.dataset.name.lstrip("/")
        self.n_rows = 0
        self.pending: list[NDArray] = []

    def add(self, rows: ArrayLike) -> None:
        """Rows to be written by the next `commit`; a copy, because whose they are may change them."""
        array = np.array(rows, self.dataset.dtype, order="C")
        if len(array):
            self.pending.append(array)

    @property
    def n_added(self) -> int:
        """Rows on file and to be written."""
        return self.n_rows + sum(map(len, self.pending))

    @property
    def n_bytes(self) -> int:
        """Bytes to be written."""
        return sum(array.nbytes for array in self.pending)

    @property
    def n_bytes_of_chunks(self) -> int:
        """Bytes of the chunks that hold what is to be written, which may all get a new place."""
        first = self.n_rows // self.dataset.chunks[0]
        last = (self.n_added - 1) // self.dataset.chunks[0]
        across = zip(self.dataset.shape[1:], self.dataset.chunks[1:], strict=True)
        n_chunks = (last - first + 1) * math.prod(-(-n // chunk) for n, chunk in across)
        return n_chunks * math.prod(self.dataset.chunks) * self.dataset.dtype.itemsize if self.pending else 0

    def commit(self) -> list[list[int]]:
        """Write what is pending; the end and the CRC-32 of each piece."""
        if not self.pending:
            return []
        rows = self.pending[0] if len(self.pending) == 1 else np.concatenate(self.pending)
        self.pending.clear()
        start, self.n_rows = self.n_rows, self.n_rows + len(rows)
        self.dataset.resize(self.n_rows, axis=0)
        self.dataset[start:] = rows
        pieces = [rows[at : at + self.piece] for at in range(0, len(rows), self.piece)]
        ends = (min(start + (k + 1) * self.piece, self.n_rows) for k in range(len(pieces)))
        return [[end, zlib.crc32(piece.data)] for end, piece in zip(ends, pieces, strict=True)]


class Spikes:
    """The events of one population: columns that grow together, block by block."""

    def __init__(self, where: str, group: h5py.Group, log: AnyLog, member: Member, whole: bool):
        sent = member.events
        assert sent is not None
        rows = len(sent) if whole else None
        self.n_units, self.n_lanes = sent.n_units, sent.n_lanes
        self.n_nodes = sent.n_units * sent.n_lanes
        self.path = group.name.lstrip("/")
        group.attrs.create("sorting", 2, dtype=SORTING)
        group.attrs["n_units"], group.attrs["n_lanes"] = np.uint64(sent.n_units), np.uint32(sent.n_lanes)
        pack = {"scaleoffset": 0}
        node = node_dtype(self.n_nodes)
        values = numeric(where, "value", sent.value, "f").dtype

        def column(name: str, dtype: Any, **options: Any) -> Column:
            return Column(group, name, dtype, chunk=CHUNK, piece=BLOCK, expected=rows, **options)

        if isinstance(log, EventLog):
            group.attrs["dt_ms"] = float(log.dt)
            tick = "u4" if log.start_step + log.n_steps < 2**31 else "u8"
            self.time = column("timestamps", tick, **pack)
            self.time.dataset.attrs["units"] = "ms" if log.dt == 1.0 else "step"
        else:
            self.time = column("timestamps", "f8")
            self.time.dataset.attrs["units"] = "ms"
        # 16 bits are not packed: faster, and the rows on file never move
        self.node = column("node_ids", node, **(pack if node.itemsize > 2 else {}))
        self.node.dataset.attrs["sorting"] = "by_time"
        self.value = column("value", values)
        self.value.dataset.attrs["meaning"] = "payload of the event, dimensionless"
        self.gradient = column("gradient", values)
        self.gradient.dataset.attrs["meaning"] = "derivative of a loss with respect to value"
        self.time_gradient = column("time_gradient", "f8")
        self.time_gradient.dataset.attrs["meaning"] = "derivative of a loss with respect to time, 1/ms"
        index = group.create_group("index")
        blocks = -(-len(sent) // BLOCK) if whole else None
        self.counts = Column(index, "counts", "u4", (n_groups(self.n_nodes),), expected=blocks)
        self.row_ptr: Column | None = None
        if isinstance(log, EventLog):
            self.row_ptr = Column(
                index, "row_ptr", "i8", chunk=4096, expected=log.n_steps + 1 if whole else None
            )
            self.row_ptr.add([0])
        self.unit_events = Column(index, "unit_events", "i8", chunk=CHUNK, expected=self.n_nodes)
        self.tally = np.zeros(self.n_nodes, np.int64)
        self.n_appended = 0

    @property
    def columns(self) -> list[Column]:
        """All but the tally of nodes."""
        columns = [self.time, self.node, self.value, self.gradient, self.time_gradient, self.counts]
        return columns + ([] if self.row_ptr is None else [self.row_ptr])

    def append(self, member: Member, start: float) -> None:
        sent = member.events
        assert sent is not None
        if isinstance(sent, Events):
            self._append_steps(sent, int(start))
        else:
            self.time.add(sent.time)
            self.node.add(sent.lane.astype(np.int64) * self.n_units + sent.unit)
        self.value.add(sent.value)
        for name in ("gradient", "time_gradient"):
            found = getattr(member, name, None)
            if found is not None:
                getattr(self, name).add(found)
        self.n_appended += len(sent)

    def _append_steps(self, sent: Events, start_step: int) -> None:
        assert self.row_ptr is not None
        per_bucket, dtype = np.diff(sent.ptr), self.node.dataset.dtype
        ends = sent.ptr[:: self.n_lanes]
        steps = np.arange(start_step, start_step + sent.n_steps).astype(self.time.dataset.dtype)
        self.time.add(np.repeat(steps, np.diff(ends)))
        if self.n_lanes == 1:
            self.node.add(sent.unit)
        else:
            first = (np.arange(self.n_lanes) * self.n_units).astype(dtype)
            self.node.add(np.repeat(np.tile(first, sent.n_steps), per_bucket) + sent.unit.astype(dtype))
        self.row_ptr.add(ends[1:] + self.n_appended)

    def commit(self, last: bool) -> dict[str, list]:
        """Write what is pending; entries of the journal by path."""
        pieces: dict[str, list] = {}
        start = self.time.n_rows
        first = self._times_of_blocks(start)
        if first:
            columns = [column.commit() for column in (self.time, self.node, self.value)]
            pieces[self.path] = [
                [time[0], when, time[1], node[1], value[1]]
                for when, time, node, value in zip(first, *columns, strict=True)
            ]
        for column in (self.gradient, self.time_gradient, self.counts, self.row_ptr):
            if column is not None:
                pieces[column.path] = column.commit()
        if last:
            self.unit_events.add(self.tally)
            pieces[self.unit_events.path] = self.unit_events.commit()
        return {path: entries for path, entries in pieces.items() if entries}

    def _times_of_blocks(self, start: int) -> list:
        """Time of the first event of each block to be written; counts its nodes on the way."""
        if not self.time.pending:
            return []
        for column in (self.time, self.node):
            if len(column.pending) > 1:
                column.pending = [np.concatenate(column.pending)]
        times, nodes = self.time.pending[0], self.node.pending[0]
        shift, width = group_shift(self.n_nodes), n_groups(self.n_nodes)
        few = self.n_nodes <= BLOCK
        for at in range(0, len(nodes), BLOCK):
            block = nodes[at : at + BLOCK]
            if few:  # count once, and add up the nodes of each group
                by_node = np.bincount(block, minlength=self.n_nodes)
                groups = np.add.reduceat(by_node, np.arange(width) << shift)
                self.tally += by_node
            else:
                groups = np.bincount(block >> block.dtype.type(shift), minlength=width)
            self.counts.add(groups[None])
        if not few:
            self.tally += np.bincount(nodes, minlength=self.n_nodes)
        return times[::BLOCK].tolist()


class Reported:
    """A state that is sampled: in SONATA's layout if times are equally spaced, and in ours otherwise."""

    def __init__(
        self,
        file: h5py.File,
        name: str,
        state: str,
        values: NDArray,
        span: tuple[float, float],
        expected: int | None,
    ):
        self.first, self.step = span
        self.shape = values.shape[1:]
        n_nodes = int(np.prod(self.shape))
        group = file.require_group("report").create_group(name)
        put_text(group, "state", state)
        self.data = Column(group, "data", "f4", (n_nodes,), expected=expected)
        self.data.dataset.attrs["units"] = "1"
        exact = values.dtype != np.float32
        self.data64 = Column(group, "data64", "f8", (n_nodes,), expected=expected) if exact else None
        mapping = group.create_group("mapping")
        node_ids = mapping.create_dataset("node_ids", data=np.arange(n_nodes, dtype="u8"))
        node_ids.attrs["sorted"] = np.uint8(1)
        mapping.create_dataset("index_pointers", data=np.arange(n_nodes + 1, dtype="u8"))
        mapping["index_pointer"] = mapping["index_pointers"]  # by which name bmtk knows it
        mapping.create_dataset("element_ids", data=np.zeros(n_nodes, "u4"))
        self.time = mapping.create_dataset("time", data=np.array([self.first, self.first, self.step], "f8"))
        self.time.attrs["units"] = "ms"

    @property
    def columns(self) -> list[Column]:
        return [self.data] if self.data64 is None else [self.data, self.data64]

    def append(self, values: NDArray) -> None:
        rows = values.reshape(len(values), int(np.prod(self.shape)))
        with np.errstate(over="ignore"):
            for column in self.columns:
                column.add(rows.astype(column.dataset.dtype))

    def commit(self) -> dict[str, list]:
        pieces = {column.path: column.commit() for column in self.columns}
        # frame k is at first + k * step, and the one behind the last would be at the second number
        self.time[1] = self.first + self.data.n_rows * self.step
        return pieces


def numeric(where: str, name: str, values: ArrayLike, kinds: str = "fiu") -> NDArray:
    """``values`` as an array of a type that files may hold."""
    array = np.asarray(values)
    if array.dtype.kind not in kinds or array.dtype.itemsize > 8 or array.dtype == np.float16:
        allowed = "float32 or float64" if kinds == "f" else "float32, float64 or integers"
        raise LogError(where, f"'{name}' is of dtype {array.dtype}", f"give {allowed}")
    return array
