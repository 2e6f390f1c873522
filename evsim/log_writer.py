"""Writes event logs to disk, window after window, while a simulation runs: see `evsim.log_format`."""

from __future__ import annotations

import math
import os
import secrets
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.continuous_log import ContinuousLog, ContinuousPopulationLog
from evsim.errors import LogError
from evsim.eventlog import EventLog, PopulationLog
from evsim.events import Events
from evsim.hdf5 import abandon, check_target, close_written, one_line, put, put_json, put_text, reserve
from evsim.log_format import (
    BLOCK,
    CHUNK,
    LIBVER,
    MAGIC,
    PIECE,
    SORTING,
    VERSION,
    duration_between,
    group_shift,
    journal_line,
    n_groups,
    node_dtype,
)
from evsim.provenance import to_json

#: Rows, or seconds, after which what was appended is put on file.
FLUSH_ROWS = 4 * BLOCK
FLUSH_SECONDS = 1.0
#: Bytes set aside beyond what is to be written, for HDF5's own entries and for closing the file in order.
SPARE = 2**20
#: How far a sample may be from an equally spaced one, in parts of the spacing, to be in SONATA's layout.
SPACING = 1e-6

#: What h5py raises when a file cannot be written.
WRITING = (OSError, RuntimeError, ValueError)

AnyLog = EventLog | ContinuousLog
Member = PopulationLog | ContinuousPopulationLog


class LogWriter:
    """A log on disk that grows by appending the logs of one window after the other.

    ::

        with LogWriter("run.h5") as writer:
            for piece in stimulus:
                writer.append(sim.run(piece, carry=True, tape=False))

    What was appended is put on file every 262144 events and every second, so that memory stays bounded.  A
    process killed at any moment loses what came after that, and the file opens (`evsim.LogFile`); it can be
    read while it is written.

    Parameters
    ----------
    path : str or Path
        The file is there from the first window on.
    states : bool
        Whether to keep the states of units that send too (readouts' always are).  They need a tape:
        ``run(..., tape=True)``.
    checkpoints : bool
        Whether to keep the states at the start of each window, so that `Adjoint` can replay the file window
        by window.  Of runs in steps.
    overwrite : bool
        Whether an existing file may be replaced.

    Attributes
    ----------
    path : Path
    n_events : int
        Events on file.

    Raises
    ------
    LogError
        The file exists and may not be replaced, or its folder does not.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        states: bool = False,
        checkpoints: bool = False,
        overwrite: bool = False,
    ):
        self.path, self._where, self._overwrite = Path(path), f"log {str(path)!r}", overwrite
        self._states, self._checkpoints = states, checkpoints
        check_target(self.path, self._where, overwrite, LogError)
        self.n_events = 0
        self._growing: _Growing | None = None
        self._closed = False
        self._all_samples: NDArray[np.float64] | None = None

    @classmethod
    def of_known(cls, path: Path, where: str, samples: NDArray[np.float64] | None, **options: Any) -> Self:
        """A writer for a run that is over: errors are about ``where``, and all samples are known."""
        writer = cls(path, **options)
        writer._where, writer._all_samples = where, samples
        return writer

    def conclude(self, counters: Mapping[str, Any], stop: float, duration: float) -> None:
        """Say what all windows come to, where that is known better than by adding up theirs."""
        assert self._growing is not None
        self._growing.counters, self._growing.end, self._growing.duration = dict(counters), stop, duration

    def append(self, log: AnyLog) -> None:
        """Add a window; it starts where the one before ended.

        Parameters
        ----------
        log : EventLog or ContinuousLog
            Nothing in it is kept or changed.

        Raises
        ------
        LogError
            The window does not follow on the one before, is of another network, or cannot be written (a full
            disk): what was on file stays there.
        """
        if self._closed:
            raise LogError(self._where, "is closed", "open another one")
        if self._growing is None:
            self._growing = self._create(log)
        growing = self._growing
        growing.check(log)
        with self._writing():
            growing.append(log)
            if growing.is_due():
                growing.commit()
                self.n_events = growing.n_rows

    def flush(self) -> None:
        """Put all that was appended on file."""
        if self._growing is not None and not self._closed:
            with self._writing():
                self._growing.commit()
                self.n_events = self._growing.n_rows

    def close(self) -> None:
        """Put all on file and close it.  Without a window there is no file."""
        if self._growing is not None and not self._closed:
            with self._writing():
                self._growing.commit(last=True)
                self.n_events = self._growing.n_rows
                self._growing.close()
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            with suppress(LogError):  # what is on the way tells more
                self.close()

    def _create(self, log: AnyLog) -> _Growing:
        """A file with its first window's description, under its own name as soon as it can be opened."""
        hidden = hidden_name(self.path)
        file = None
        try:
            file = h5py.File(hidden, "x", libver=LIBVER)
            growing = _Growing(self._where, file, log, self._states, self._checkpoints, self._all_samples)
            file.swmr_mode = True
            check_target(self.path, self._where, self._overwrite, LogError)
            os.replace(hidden, self.path)
        except BaseException as cause:
            if file is not None:
                abandon(file)
            hidden.unlink(missing_ok=True)
            if isinstance(cause, WRITING) and not isinstance(cause, LogError):
                raise _unwritable(self._where, cause) from cause
            raise
        return growing

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Close the file if it cannot be written any more."""
        try:
            yield
        except BaseException as cause:
            self._closed = True
            assert self._growing is not None
            if isinstance(cause, WRITING) and not isinstance(cause, LogError):
                abandon(self._growing.file)
                raise _unwritable(self._where, cause, self.n_events) from cause
            with suppress(Exception):
                self._growing.close()
            raise


def write_whole(log: AnyLog, path: str | Path, overwrite: bool = False, states: bool = False) -> Path:
    """Write one log to a file that appears under its name when it is whole, or not at all.

    Raises
    ------
    LogError
        The file exists and may not be replaced, or cannot be written.
    """
    where, path = f"log {str(path)!r}", Path(path)
    check_target(path, where, overwrite, LogError)
    hidden = hidden_name(path)
    file = None
    try:
        file = h5py.File(hidden, "x", libver=LIBVER)
        growing = _Growing(where, file, log, states, False, whole=True)
        growing.check(log)
        growing.append(log)
        growing.commit(last=True)
        growing.close()
        with open(hidden, "rb") as written:
            os.fsync(written.fileno())  # the data must be on the disk before the name is
        check_target(path, where, overwrite, LogError)
        os.replace(hidden, path)
    except WRITING as cause:
        if isinstance(cause, LogError):
            raise
        raise _unwritable(where, cause) from cause
    finally:
        if file:
            abandon(file)
        hidden.unlink(missing_ok=True)
    return path


def hidden_name(path: Path) -> Path:
    """A name beside ``path`` that nobody else uses."""
    return path.with_name(f".{path.name[:100]}.{os.getpid()}-{secrets.token_hex(4)}.part")


def _unwritable(where: str, cause: BaseException, kept: int = 0) -> LogError:
    rest = f"; its first {kept} events are on file" if kept else ""
    return LogError(where, f"cannot be written: {one_line(cause)}{rest}", "give another place")


# -- what grows ------------------------------------------------------------------------------------------


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


class _Spikes:
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
            self.row_ptr = Column(index, "row_ptr", "i8", expected=log.n_steps + 1 if whole else None)
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


class _Reported:
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


class _Growing:
    """An open file, all that grows in it, and the journal."""

    def __init__(
        self,
        where: str,
        file: h5py.File,
        log: AnyLog,
        states: bool,
        checkpoints: bool,
        all_samples: NDArray[np.float64] | None = None,
        whole: bool = False,
    ):
        self.where, self.file, self.states, self.whole = where, file, states, whole
        self.clocked = isinstance(log, EventLog)
        self.spikes: dict[str, _Spikes] = {}
        log.complete_provenance()
        self._reserve(described_bytes(log))
        file.attrs["magic"], file.attrs["version"] = np.uint32(MAGIC), np.array([0, 1], "u4")
        file.attrs["evsim_log_version"] = np.array(VERSION, "u4")
        spikes, ours = file.create_group("spikes"), file.create_group("evsim")
        self.n_lanes, self.start = log.n_lanes, start_of(log)
        self.end, self.duration = self.start, 0.0
        ours.attrs["n_lanes"] = np.int64(log.n_lanes)
        put_text(ours, "clock", "steps" if self.clocked else "continuous")
        self.samples: Column | None = None
        self.step: float | None = None
        if isinstance(log, EventLog):
            self.dt: float | None = float(log.dt)
            ours.attrs["dt_ms"], ours.attrs["start_step"] = self.dt, np.int64(log.start_step)
        else:
            known = log.samples if all_samples is None else all_samples
            self.dt, self.step = None, equal_step(known)
            self.first_sample = float(known[0]) if len(known) else 0.0
            ours.attrs["start_ms"] = float(log.start)
            self.samples = Column(ours, "samples", "f8", expected=len(log.samples) if whole else None)
        self.last_sample = -np.inf
        self.journal = Column(ours, "journal", "u1", chunk=2**13)
        for name in ("network", "provenance"):
            self._put_json(ours, name, getattr(log, name))
        self.lengths = np.zeros(log.n_lanes, np.int64)
        self.counters: dict[str, Any] = {}
        self.members = {name: member_facts(member) for name, member in log.populations.items()}
        self.reports: dict[str, _Reported] = {}
        self.own: dict[str, dict[str, Column]] = {}
        self.at_checkpoints: dict[str, dict[str, Column]] = {}
        self._describe(log, ours.create_group("populations"), spikes)
        self.checkpoint_steps: Column | None = None
        if checkpoints and isinstance(log, EventLog):
            self._describe_checkpoints(log, ours.create_group("checkpoints"))
        parameters = ours.create_group("parameters")
        for name, values in log.parameters.items():
            put(parameters, link(where, name), numeric(where, name, values))
        self.n_entries, self.committed_at, self.dirty = 0, time.monotonic(), True

    # -- the first window's description --------------------------------------------------------------------

    def _put_json(self, ours: h5py.Group, name: str, value: Any) -> None:
        try:
            self._reserve(len(to_json(value)))
            put_json(ours, name, value)
        except LogError:
            raise
        except (TypeError, ValueError, RecursionError) as error:
            problem = f"{name} cannot be kept: {one_line(error)}"
            raise LogError(self.where, problem, "use numbers, text, lists and dicts") from error

    def _describe(self, log: Any, members: h5py.Group, spikes: h5py.Group) -> None:
        for rank, member in enumerate(log.populations.values()):
            group = members.create_group(link(self.where, member.name))
            group.attrs["rank"], group.attrs["n_units"] = np.int64(rank), np.int64(member.n_units)
            group.attrs["emits"] = np.uint8(member.events is not None)
            put_text(group, "kind", member.kind)
            self._put_initial(group, member)
            if isinstance(member, PopulationLog) and member.carried is not None:
                carried = group.create_group("carried")
                carried.attrs["n_steps"] = np.int64(member.carried.n_steps)
                for column in ("ptr", "unit", "value"):
                    put(carried, column, getattr(member.carried, column))
            if member.events is not None:
                sent = spikes.create_group(member.name)
                self.spikes[member.name] = _Spikes(self.where, sent, log, member, self.whole)
            if isinstance(member, ContinuousPopulationLog):
                self._describe_samples(log, group, member)
            elif self._keeps_state(member):
                self._report(member, str(member.state_name), log.start_step * log.dt, log.dt)

    def _put_initial(self, group: h5py.Group, member: Member) -> None:
        initial, shape = group.create_group("initial"), (self.n_lanes, member.n_units)
        for state, values in member.initial.items():
            if np.shape(values) != shape:
                problem = f"initial {state} of '{member.name}' has shape {np.shape(values)}"
                raise LogError(self.where, problem, f"give {shape}")
            where = f"{member.name}.{state}"
            put(initial, link(self.where, state), numeric(self.where, where, values, "f"))
        if member.thresholds is not None:
            where = f"{member.name}.threshold"
            put(group, "thresholds", numeric(self.where, where, member.thresholds, "f"))

    def _describe_samples(
        self, log: ContinuousLog, group: h5py.Group, member: ContinuousPopulationLog
    ) -> None:
        sampled = {"integral": member.integral, "square": member.square}
        if self.step is not None and member.state is not None:
            self._report(member, str(member.state_name), self.first_sample, self.step)
        elif member.state is not None:
            put_text(group, "state_name", str(member.state_name))
            sampled["state"] = member.state
        shape = (log.n_lanes, member.n_units)
        self.own[member.name] = {
            what: Column(group, what, "f8", shape, expected=len(values) if self.whole else None)
            for what, values in sampled.items()
            if values is not None
        }

    def _report(self, member: Member, name: str, first: float, step: float) -> None:
        assert member.state is not None
        expected = len(member.state) if self.whole else None
        span = first, step
        self.reports[member.name] = _Reported(self.file, member.name, name, member.state, span, expected)

    def _describe_checkpoints(self, log: EventLog, group: h5py.Group) -> None:
        self.checkpoint_steps = Column(group, "step", "i8")
        for member in log.populations.values():
            if member.initial:
                mine = group.create_group(member.name)
                self.at_checkpoints[member.name] = {
                    state: Column(mine, state, values.dtype, values.shape)
                    for state, values in member.initial.items()
                }

    # -- windows -------------------------------------------------------------------------------------------

    def check(self, log: AnyLog) -> None:
        """Raise LogError unless a window may follow those before."""
        if isinstance(log, EventLog) != self.clocked or log.dt != self.dt or log.n_lanes != self.n_lanes:
            raise LogError(self.where, f"{log!r} does not fit it", "append windows of one run")
        facts = {name: member_facts(member) for name, member in log.populations.items()}
        if facts != self.members:
            raise LogError(self.where, f"holds {self.members}, not {facts}", "append windows of one run")
        if not math.isclose(start_of(log), self.end, rel_tol=1e-15):
            what = "step" if self.clocked else "ms"
            problem = f"the window starts at {what} {start_of(log)}, the one before ended at {self.end}"
            raise LogError(self.where, problem, "run with carry=True, and append every window")
        if isinstance(log, EventLog):
            goes_on = np.flatnonzero((self.lengths < self._steps_so_far(log)) & (log.lengths > 0))
            if goes_on.size:
                lane = int(goes_on[0])
                problem = f"lane {lane} ended after {self.lengths[lane]} steps, but has more in the window"
                raise LogError(self.where, problem, "append no steps to lanes that have ended")
        for name, member in log.populations.items():
            self._check_columns(name, member)
            self._check_states(log, member)
        if isinstance(log, ContinuousLog):
            self._check_samples(log)

    def _steps_so_far(self, log: EventLog) -> int:
        return log.start_step - int(self.start)

    def _check_columns(self, name: str, member: Member) -> None:
        if name in self.spikes:
            spikes = self.spikes[name]
            sent = member.events
            assert sent is not None
            if sent.value.dtype != spikes.value.dataset.dtype:
                was = spikes.value.dataset.dtype
                raise LogError(
                    self.where, f"'{name}' sends {sent.value.dtype}, before it was {was}", "keep one"
                )
            for what in ("gradient", "time_gradient"):
                column, found = getattr(spikes, what), getattr(member, what, None)
                if column.n_added != (spikes.n_appended if found is not None else 0):
                    raise LogError(
                        self.where,
                        f"some windows of '{name}' have a {what} and others do not",
                        "append windows that all have it, or none",
                    )

    def _check_states(self, log: AnyLog, member: Member) -> None:
        """Raise LogError unless a window has the states that the first one had; it may be without samples."""
        if isinstance(log, ContinuousLog) and not len(log.samples):
            return
        name = member.name
        had = {"state"} if name in self.reports else set()
        had |= self.own.get(name, {}).keys()
        has = {"state"} if isinstance(member, PopulationLog) and self._keeps_state(member) else set()
        if isinstance(member, ContinuousPopulationLog):
            has = {what for what in ("state", "integral", "square") if getattr(member, what) is not None}
        if had != has:
            problem = f"the window has {sorted(has) or 'no states'} of '{name}', the first had"
            remedy = "record them from the first window on, or never"
            raise LogError(self.where, f"{problem} {sorted(had) or 'none'}", remedy)

    def _keeps_state(self, member: PopulationLog) -> bool:
        """Whether the state of a population is kept: a readout's always is."""
        return member.state_name == "v" or (self.states and member.state_name is not None)

    def _check_samples(self, log: ContinuousLog) -> None:
        times = log.samples[log.samples > self.last_sample]
        if self.step is None or not self.reports or not len(times):
            return
        if not next(iter(self.reports.values())).data.n_added:
            return
        # from one to the next: errors of rounding in the spacing must not add up over a long run
        gaps = np.diff(times, prepend=self.last_sample)
        if float(np.abs(gaps - self.step).max()) > SPACING * self.step + 4 * np.spacing(times[-1]):
            raise LogError(
                self.where,
                f"a sample at {times[0]:g} ms does not go on with the spacing of {self.step:g} ms",
                "sample all windows on one grid",
            )

    def append(self, log: AnyLog) -> None:
        """Take a window in; `commit` puts it on file."""
        if isinstance(log, EventLog):
            if self.checkpoint_steps is not None and self._knows_states(log):
                self.checkpoint_steps.add([log.start_step])
                for name, columns in self.at_checkpoints.items():
                    for state, column in columns.items():
                        column.add(log[name].initial[state][None])
            self.lengths += log.lengths
        for name, member in log.populations.items():
            if name in self.spikes:
                self.spikes[name].append(member, start_of(log))
            if isinstance(member, PopulationLog) and name in self.reports:
                self.reports[name].append(member.state)
        if isinstance(log, ContinuousLog) and len(log.samples):
            self._append_samples(log)
        self.counters = added(self.counters, log.counters) if self.counters else dict(log.counters)
        self.duration = log.duration if self.end == self.start else duration_between(self.start, stop_of(log))
        self.end = stop_of(log)
        self.dirty = True

    def _append_samples(self, log: ContinuousLog) -> None:
        assert self.samples is not None
        new = log.samples > self.last_sample  # the last sample of a window may be the first of the next
        for name, member in log.populations.items():
            if name in self.reports:
                assert member.state is not None
                self.reports[name].append(member.state[new])
            for what, column in self.own.get(name, {}).items():
                column.add(getattr(member, what)[new])
        self.samples.add(log.samples[new])
        self.last_sample = max(self.last_sample, float(log.samples[-1]))

    def _knows_states(self, log: EventLog) -> bool:
        """Whether a window has steps and says from which states they began; one cut out of a file may not."""
        return log.n_steps > 0 and all(
            columns.keys() <= log[name].initial.keys() for name, columns in self.at_checkpoints.items()
        )

    @property
    def n_rows(self) -> int:
        """Events on file."""
        return sum(spikes.time.n_rows for spikes in self.spikes.values())

    def is_due(self) -> bool:
        """Whether it is time for a `commit`."""
        pending = sum(spikes.n_appended for spikes in self.spikes.values()) - self.n_rows
        return pending >= FLUSH_ROWS or time.monotonic() - self.committed_at >= FLUSH_SECONDS or self._heavy()

    def _heavy(self) -> bool:
        return sum(column.n_bytes for column in self._columns()) >= 2**24

    def _columns(self) -> Iterator[Column]:
        """All that grows, but the journal."""
        for spikes in self.spikes.values():
            yield from spikes.columns
        for report in self.reports.values():
            yield from report.columns
        for columns in (*self.own.values(), *self.at_checkpoints.values()):
            yield from columns.values()
        for column in (self.samples, self.checkpoint_steps):
            if column is not None:
                yield column

    # -- on file -------------------------------------------------------------------------------------------

    def commit(self, last: bool = False) -> None:
        """Write all that is pending, and then a line of the journal."""
        if not (self.dirty or last):
            return
        columns = list(self._columns())
        tally = sum(spikes.n_nodes * 8 + 2**16 for spikes in self.spikes.values()) if last else 0
        lines = sum(column.n_bytes for column in columns) // 256
        self._reserve(sum(column.n_bytes_of_chunks for column in columns) + tally + lines)
        pieces: dict[str, list] = {}
        for spikes in self.spikes.values():
            pieces |= spikes.commit(last)
        for report in self.reports.values():
            pieces |= report.commit()
        for column in columns:
            if column.pending:
                pieces[column.path] = column.commit()
        entry: dict[str, Any] = {"entry": self.n_entries}
        if self.clocked:
            entry |= {"stop_step": self.end, "lengths": self.lengths}
        else:
            entry |= {"stop_ms": self.end, "duration_ms": self.duration}
        entry |= {"counters": self.counters, "closed": last}
        entry["pieces"] = {path: found for path, found in pieces.items() if found}
        try:
            line = journal_line(entry)
        except (TypeError, ValueError, RecursionError) as error:
            problem = f"counters cannot be kept: {one_line(error)}"
            raise LogError(self.where, problem, "use numbers, text, lists and dicts") from error
        self.journal.add(np.frombuffer(line, np.uint8))
        self._flush(columns)  # before the journal speaks of it
        self.journal.commit()
        self._flush([self.journal])
        self.n_entries, self.committed_at, self.dirty = self.n_entries + 1, time.monotonic(), False

    def _flush(self, columns: list[Column]) -> None:
        if self.file.swmr_mode:
            for column in columns:
                column.dataset.flush()
            for report in self.reports.values():
                report.time.flush()
            for spikes in self.spikes.values():
                spikes.unit_events.dataset.flush()

    def _reserve(self, n_bytes: int) -> None:
        """Raise LogError while the file can still be closed in order, if the disk lacks so many bytes."""
        try:
            reserve(self.file, n_bytes + SPARE)
        except OSError as error:
            problem = f"cannot be written: {one_line(error)}: {n_bytes + SPARE} bytes more are needed"
            kept = f"; its first {self.n_rows} events are on file" if self.n_rows else ""
            raise LogError(self.where, problem + kept, "give another place") from error

    def close(self) -> None:
        """Close the file, on the disk and not only in its cache."""
        if self.file:
            if self.file.swmr_mode:
                with suppress(Exception):
                    os.fsync(self.file.id.get_vfd_handle())
            close_written(self.file)


# -- small things ----------------------------------------------------------------------------------------


def start_of(log: AnyLog) -> float:
    """First step, or ms, of a window."""
    return log.start_step if isinstance(log, EventLog) else log.start


def stop_of(log: AnyLog) -> float:
    """Step, or ms, behind the last one of a window."""
    return log.start_step + log.n_steps if isinstance(log, EventLog) else log.stop


def member_facts(member: Member) -> tuple[str, int, bool]:
    """Type and size of a population, and whether it sends."""
    return member.kind, member.n_units, member.events is not None


def described_bytes(log: AnyLog) -> int:
    """About how much of a file is neither rows nor text: parameters, states, and events before the window."""
    arrays = list(log.parameters.values())
    for member in log.populations.values():
        arrays += member.initial.values()
        if isinstance(member, PopulationLog) and member.carried is not None:
            arrays += [member.carried.ptr, member.carried.unit, member.carried.value]
    n_nodes = sum(member.n_units for member in log.populations.values()) * log.n_lanes
    return sum(np.asarray(array).nbytes for array in arrays) + 32 * n_nodes


def added(mine: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Counters of two windows together: numbers are added, anything else is that of the later one."""
    total = dict(mine)
    for name, value in more.items():
        before = total.get(name)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            total[name] = added(before, value)
        elif isinstance(value, (int, float)) and isinstance(before, (int, float)):
            total[name] = before + value
        else:
            total[name] = value
    return total


def equal_step(samples: NDArray[np.float64]) -> float | None:
    """Spacing of samples in ms if they are equally spaced; None if not, and for fewer than two."""
    if len(samples) < 2:
        return None
    step = float(samples[-1] - samples[0]) / (len(samples) - 1)
    off = np.abs(samples - (samples[0] + step * np.arange(len(samples))))
    return step if step > 0 and float(off.max()) <= SPACING * step else None


def link(where: str, name: str) -> str:
    """``name`` if HDF5 can use it for one link."""
    if name in ("", ".") or "/" in name or "\0" in name:
        raise LogError(where, f"cannot name an entry {name!r}", "use a name without '/'")
    return name


def numeric(where: str, name: str, values: ArrayLike, kinds: str = "fiu") -> NDArray:
    """``values`` as an array of a type that files may hold."""
    array = np.asarray(values)
    if array.dtype.kind not in kinds or array.dtype.itemsize > 8 or array.dtype == np.float16:
        allowed = "float32 or float64" if kinds == "f" else "float32, float64 or integers"
        raise LogError(where, f"'{name}' is of dtype {array.dtype}", f"give {allowed}")
    return array
