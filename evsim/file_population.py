"""One population of an event log on disk, read by rows: see `evsim.log_file`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from evsim.continuous_log import ContinuousPopulationLog
from evsim.errors import LogError, StimulusError
from evsim.event_table import EventTable, Units
from evsim.eventlog import PopulationLog
from evsim.events import Events
from evsim.log_format import BLOCK, REPORTED, group_shift, n_groups, node_dtype
from evsim.timed_events import TimedEvents

if TYPE_CHECKING:
    from evsim.hdf5_reader import Reader
    from evsim.journal import Journal
    from evsim.log_file import LogFile

#: Nodes of a population that need not have anything on file.
FEW_NODES = 2**25
#: Rows read at a time by what goes through a whole file.
ROWS = 16 * BLOCK


class FilePopulation:
    """One population of a `LogFile`.

    A row is an event, in order of (time, lane, unit); a node is ``lane * n_units + unit``.  All methods raise
    LogError if what they read is damaged.

    Attributes
    ----------
    name, kind : str
        Name, and type, such as ``"EGRU"``.
    n_units, n_lanes : int
    sends : bool
        Whether it sends events; if not, it has states only.
    """

    def __init__(self, file: LogFile, name: str):
        self._file, self.name, self.n_lanes = file, name, file.n_lanes
        read, group = self._read, self._group
        self.kind = read.text(group, "kind")
        self.n_units = read.number(group, "n_units")
        if not 0 < self.n_units < 2**31:
            raise read.fail(f"claims {self.n_units} units in population '{name}'")
        if self.n_nodes > max(FEW_NODES, read.size):
            claim = f"{self.n_units} units x {self.n_lanes} lanes of '{name}'"
            raise read.fail(f"claims {claim}, which the file does not hold")
        self.sends = bool(read.number(group, "emits"))
        if self.sends != read.has(read.at("spikes"), name):
            problem = "lacks its events" if self.sends else "must not have events"
            raise read.fail(f"population '{name}' {problem}")
        self._reported = read.has(read.file, "report") and read.has(read.at("report"), name)
        self._path = f"spikes/{name}"
        self._row_ptr: NDArray[np.int64] | None = None
        self._tally: tuple[NDArray[np.int64], int] | None = None
        if self.sends:
            spikes = read.at(self._path)
            claimed = read.number(spikes, "n_units"), read.number(spikes, "n_lanes")
            step = None if file.dt is None else read.number(spikes, "dt_ms", float)
            read.at(f"{self._path}/index")
            if (*claimed, step) != (self.n_units, self.n_lanes, file.dt):
                problem = f"disagree about units, lanes and dt: {(*claimed, step)}"
                raise read.fail(f"/spikes/{name} and /evsim {problem}")

    # groups are asked for whenever they are needed: those of a file that grows do not stay the same

    @property
    def _read(self) -> Reader:
        return self._file._read

    @property
    def _journal(self) -> Journal:
        return self._file._journal

    @property
    def _group(self) -> h5py.Group:
        return self._read.at(f"evsim/populations/{self.name}")

    @property
    def _report(self) -> h5py.Group | None:
        return self._read.at(f"report/{self.name}") if self._reported else None

    def __repr__(self) -> str:
        return f"FilePopulation('{self.name}', {self.kind}, {self.n_events} events)"

    # -- the window, as the file has it --------------------------------------------------------------------

    @property
    def dt(self) -> float | None:
        """Length of a step in ms; None in continuous time."""
        return self._file.dt

    @property
    def start(self) -> float:
        """Start of what was recorded, in ms."""
        return self._file.start

    @property
    def stop(self) -> float:
        """End of what was recorded, in ms."""
        return self._file.stop

    @property
    def start_step(self) -> int:
        """First step recorded; 0 in continuous time."""
        return 0 if self._file.dt is None else self._file.start_step

    @property
    def n_steps(self) -> int:
        """Steps recorded; 0 in continuous time."""
        return self._file.n_steps

    @property
    def lengths(self) -> NDArray[np.int64] | None:
        """Steps of each lane, shape (n_lanes,); None in continuous time."""
        return None if self._file.dt is None else self._file.lengths

    # -- events, by row ------------------------------------------------------------------------------------

    @property
    def n_nodes(self) -> int:
        """Units of all lanes."""
        return self.n_units * self.n_lanes

    @property
    def n_events(self) -> int:
        """Events on file; 0 for populations that send nothing."""
        return self._journal.blocks(self._path).n_rows if self.sends else 0

    @property
    def columns(self) -> tuple[str, ...]:
        """time, lane, unit, value, and the gradients that there are."""
        if not self.sends:
            return ()
        gradients = (name for name in ("gradient", "time_gradient") if self._has(name))
        return ("time", "lane", "unit", "value", *gradients)

    @property
    def row_ptr(self) -> NDArray[np.int64]:
        """Rows of step s, from the first of the file, are ``row_ptr[s]:row_ptr[s + 1]``; of runs in steps."""
        n_steps = self._file.n_steps
        if self._row_ptr is None or len(self._row_ptr) <= n_steps:
            with self._read.guard():
                ptr = self._journal.array(f"{self._path}/index/row_ptr", "i")
                if len(ptr) != n_steps + 1 or ptr[0] or ptr[-1] != self.n_events or (np.diff(ptr) < 0).any():
                    raise self._read.fail(
                        f"index/row_ptr of '{self.name}' does not fit its {self.n_events} rows"
                    )
                self._row_ptr = ptr
        return self._row_ptr

    def rows(self, start: float | None = None, stop: float | None = None) -> slice:
        """Rows of the events with ``start <= time < stop``, in ms from the start of the simulation."""
        start, stop = self._file._clip(start, stop)
        if not self.sends:
            return slice(0, 0)
        if self._file.dt is not None:
            dt, first = self._file.dt, self._file.start_step
            steps = [min(max(step_at(t, dt) - first, 0), self._file.n_steps) for t in (start, stop)]
            return slice(int(self.row_ptr[steps[0]]), int(self.row_ptr[steps[1]]))
        end = self.n_events if stop >= self._file.stop else self._row_at(stop)
        return slice(self._row_at(start), end)

    def times(self, rows: slice) -> NDArray[np.float64]:
        """Time of each row in ms."""
        if self._file.dt is not None:
            return self._steps_of(rows) * np.float64(self._file.dt)
        with self._read.guard():
            return self._column("timestamps", rows, 0, "f")

    def nodes(self, rows: slice) -> NDArray:
        """Node of each row, as unsigned integers."""
        with self._read.guard():
            nodes = self._column("node_ids", rows, 1, "u")
            if nodes.dtype != node_dtype(self.n_nodes):
                raise self._read.fail(f"node ids of '{self.name}' are of dtype {nodes.dtype}")
            if len(nodes) and int(nodes.max()) >= self.n_nodes:
                raise self._read.fail(
                    f"'{self.name}' has an event of node {nodes.max()}, but only {self.n_nodes} nodes"
                )
            return nodes

    def values(self, rows: slice) -> NDArray:
        """Payload of each row."""
        with self._read.guard():
            return self._column("value", rows, 2, "f")

    def gradients(self, rows: slice, name: str = "gradient") -> NDArray:
        """dL/d(payload) of each row, or with ``name="time_gradient"`` dL/d(time)."""
        if name not in self.columns[4:]:
            raise LogError(
                f"population '{self.name}'",
                f"has no {name}",
                "replay the log with events=True, and keep them",
            )
        with self._read.guard():
            return self._journal.rows(f"{self._path}/{name}", "f", rows)

    def _has(self, name: str) -> bool:
        path = f"{self._path}/{name}"
        return self._journal.length(path) == self.n_events > 0

    def _steps_of(self, rows: slice) -> NDArray[np.int64]:
        """Step of each row, from the start of the simulation."""
        ptr = self.row_ptr
        first, last = np.searchsorted(ptr, [rows.start, rows.stop], "right") - 1
        last = min(max(last, first), len(ptr) - 2)
        ends = np.clip(ptr[first : last + 2], rows.start, rows.stop)
        return np.repeat(np.arange(first, last + 1) + self._file.start_step, ends[1:] - ends[:-1])

    def _row_at(self, when: float) -> int:
        """The first row at or after a time, in continuous time."""
        blocks = self._journal.blocks(self._path)
        # the block before the first one that begins then or later may hold it
        k = int(np.searchsorted(blocks.when, when, "left"))
        if k == 0:
            return 0
        rows = slice(int(blocks.ends[k - 2]) if k > 1 else 0, int(blocks.ends[k - 1]))
        return rows.start + int(np.searchsorted(self.times(rows), when, "left"))

    def _column(self, name: str, rows: slice, which: int, kinds: str) -> NDArray:
        return self._journal.block_rows(self._path, name, kinds, rows, which)

    # -- tables --------------------------------------------------------------------------------------------

    def table(
        self,
        start: float | None = None,
        stop: float | None = None,
        units: Units | None = None,
        lanes: int | Iterable[int] | Literal["all"] | None = None,
    ) -> EventTable:
        """Columns of the events of a window, of some units and lanes."""
        start, stop = self._file._clip(start, stop)
        parts = list(self._parts(self.rows(start, stop), start, stop, units, lanes, ROWS))
        if len(parts) == 1:
            return parts[0]
        names = parts[0].columns
        joined: dict[str, Any] = {
            name: np.concatenate([part.columns[name] for part in parts]) for name in names
        }
        return replace(parts[0], **joined)

    def tables(
        self,
        start: float | None = None,
        stop: float | None = None,
        units: Units | None = None,
        lanes: int | Iterable[int] | Literal["all"] | None = None,
        size: int = ROWS,
    ) -> Iterator[EventTable]:
        """The same in pieces, each made of at most ``size`` rows of the file."""
        start, stop = self._file._clip(start, stop)
        if size < 1:
            raise LogError(f"population '{self.name}'", f"size is {size}", "give a number of rows")
        yield from self._parts(self.rows(start, stop), start, stop, units, lanes, size)

    def _parts(
        self, rows: slice, start: float, stop: float, units: Any, lanes: Any, size: int
    ) -> Iterator[EventTable]:
        for at in range(rows.start, max(rows.stop, rows.start + 1), size):
            part = slice(at, min(at + size, rows.stop))
            yield self._table(part, start, stop).select(units, lanes)

    def _table(self, rows: slice, start: float, stop: float) -> EventTable:
        if not self.sends:
            raise LogError(f"population '{self.name}'", f"a {self.kind} sends no events", "look at its state")
        lane, unit = self._lanes_and_units(rows)
        columns = self.times(rows), lane, unit, self.values(rows)
        gradients = {name: self.gradients(rows, name) for name in self.columns[4:]}
        return EventTable(self.name, self.n_units, self.n_lanes, start, stop, *columns, **gradients)

    def _lanes_and_units(self, rows: slice) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        nodes = self.nodes(rows)
        if self.n_lanes == 1:
            return np.zeros(len(nodes), np.int32), nodes.astype(np.int32)
        width = nodes.dtype.type(self.n_units)
        lane = nodes // width
        unit = nodes - lane * width
        return lane.astype(np.int32), unit.astype(np.int32)

    # -- what the index knows ------------------------------------------------------------------------------

    @property
    def unit_events(self) -> NDArray[np.int64]:
        """Events of each unit, shape (n_lanes, n_units); read from the file if it is complete."""
        shape = (self.n_lanes, self.n_units)
        if not self.sends:
            return np.zeros(shape, np.int64)
        with self._read.guard():
            if self._journal.closed:
                tally = self._journal.array(f"{self._path}/index/unit_events", "i")
                if tally.shape != (self.n_nodes,) or tally.min() < 0 or tally.sum() != self.n_events:
                    raise self._read.fail(f"index/unit_events of '{self.name}' does not fit its events")
                return tally.reshape(shape)
            self._read.check_memory(8 * self.n_nodes, f"{self.n_nodes} nodes")
            tally, done = self._tally or (np.zeros(self.n_nodes, np.int64), 0)
            for rows in pieces_of(slice(done, self.n_events), ROWS):
                tally = tally + np.bincount(self.nodes(rows), minlength=self.n_nodes)
            self._tally = tally, self.n_events
            return tally.reshape(shape)

    @property
    def block_ends(self) -> NDArray[np.int64]:
        """Rows at which blocks of the file end, shape (n_blocks,)."""
        return self._journal.blocks(self._path).ends

    @property
    def block_times(self) -> NDArray[np.float64]:
        """Time in ms of the first event of each block."""
        return self._journal.blocks(self._path).when * (self._file.dt or 1.0)

    @property
    def block_counts(self) -> NDArray[np.uint32]:
        """Events of each block in each group of nodes, shape (n_blocks, n_groups)."""
        with self._read.guard():
            counts = self._journal.array(f"{self._path}/index/counts", "u", (n_groups(self.n_nodes),))
            if len(counts) != len(self.block_ends):
                raise self._read.fail(f"index/counts of '{self.name}' does not fit its blocks")
            return counts

    @property
    def group_size(self) -> int:
        """Nodes of a group: ``group = node // group_size``."""
        return 1 << group_shift(self.n_nodes)

    def summary(self) -> dict:
        """One row of `LogFile.summary`."""
        from evsim.raster import counted_row, summary_row, timed_summary_row

        row = {"population": self.name, "type": self.kind, "units": self.n_units}
        dt, lengths = self._file.dt, self._file.lengths
        row |= timed_summary_row(None) if dt is None else summary_row(None, dt, lengths)
        if not self.sends:
            return row
        count = self.unit_events.sum(axis=0)
        if dt is None:
            return row | counted_row(count, self.n_lanes * self._file.duration)
        lane_steps = int(lengths.sum())
        return row | counted_row(count, lane_steps * dt, lane_steps)

    # -- states --------------------------------------------------------------------------------------------

    @property
    def state_name(self) -> str | None:
        """``"v"``, ``"h"`` or ``"c"``, whichever was sampled; None if none was."""
        if self._report is not None:
            name = self._read.text(self._report, "state")
        elif self._read.has(self._group, "state"):
            name = self._read.text(self._group, "state_name")
        else:
            return None
        if name not in REPORTED:
            raise self._read.fail(f"/report/{self.name} is of state '{name}'")
        return name

    def state(
        self, start: float | None = None, stop: float | None = None
    ) -> tuple[NDArray[np.float64], str, NDArray] | None:
        """Samples of the state in a window: times in ms, its name, and values (n_samples, n_lanes, n_units).

        None if no states were recorded.
        """
        with self._read.guard():
            name = self.state_name
            if name is None:
                return None
            start, stop = self._file._clip(start, stop)
            if self._file.dt is not None:
                dt, first = self._file.dt, self._file.start_step
                a, b = (min(max(step_at(t, dt) - first, 0), self._file.n_steps) for t in (start, stop))
                times = (first + np.arange(a, b)) * np.float64(dt)
                return times, name, self._states(slice(a, b))
            samples = self._file._samples
            a, b = np.searchsorted(samples, start), np.searchsorted(samples, stop, "right")
            return samples[a:b], name, self._states(slice(int(a), int(b)))

    def _states(self, samples: slice) -> NDArray:
        """States of some samples or steps."""
        if self._report is None:
            return self._sampled("state", samples)
        data = "data64" if self._read.has(self._report, "data64") else "data"
        flat = self._journal.rows(f"report/{self.name}/{data}", "f", samples, (self.n_nodes,))
        return flat.reshape(len(flat), self.n_lanes, self.n_units)

    def _sampled(self, what: str, samples: slice) -> NDArray:
        """Rows of an array of our own layout."""
        path = f"evsim/populations/{self.name}/{what}"
        return self._journal.rows(path, "f", samples, (self.n_lanes, self.n_units))

    # -- logs ----------------------------------------------------------------------------------------------

    def log_of_steps(self, first: int, last: int) -> PopulationLog:
        """A stretch of a run in steps, counted from the first of the file."""
        file = self._file
        assert file.dt is not None
        found = PopulationLog(self.name, self.kind, self.n_units, file.dt, file.start_step + first)
        if self.sends:
            found.events = self._events_of_steps(first, last)
            for name in self.columns[4:]:
                rows = slice(int(self.row_ptr[first]), int(self.row_ptr[last]))
                setattr(found, name, self.gradients(rows, name))
        if self._read.has(self._group, "carried"):
            found.carried = self._carried(first)
        found.initial, found.thresholds = self.states_before(first), self._thresholds()
        state = self.state_name
        if state is not None:
            found.tape, found.tape_fields = self._states(slice(first, last))[:, :, None], (state,)
        return found

    def log_of_times(self, stop: float, span: tuple[float, float], samples: slice) -> ContinuousPopulationLog:
        """A stretch of a run in continuous time: its events before ``stop``, its window ``span``."""
        start = span[0]
        found = ContinuousPopulationLog(self.name, self.kind, self.n_units)
        if self.sends:
            rows = self.rows(start, stop)
            lane, unit = self._lanes_and_units(rows)
            time, value = self.times(rows), self.values(rows)
            if not time.dtype == value.dtype == np.float64:
                types = f"times of {time.dtype} and values of {value.dtype}"
                raise self._read.fail(f"'{self.name}' has {types}, not float64")
            found.events = TimedEvents(self.n_units, self.n_lanes, *span, time, lane, unit, value)
            try:
                found.events.check()
            except StimulusError as error:
                raise self._read.fail(f"'{self.name}': {error.problem}; {error.remedy}") from error
            for name in self.columns[4:]:
                setattr(found, name, self.gradients(rows, name))
        found.thresholds = self._thresholds()
        found.initial = self.states_before(0) if start == self._file.start else {}
        for what in ("integral", "square"):
            if self._read.has(self._group, what):
                setattr(found, what, self._sampled(what, samples))
        if self.state_name is not None:
            found.state = self._states(samples)
        for what in ("state", "integral", "square"):
            sampled = getattr(found, what)
            if sampled is not None and sampled.dtype != np.float64:
                raise self._read.fail(f"{what} of '{self.name}' is of dtype {sampled.dtype}, not float64")
        return found

    def events_of_steps(self, first: int, last: int) -> Events:
        """Events of a stretch of steps, which may begin before the file does: then with those it carries."""
        with self._read.guard():
            if first >= 0:
                return self._events_of_steps(first, last)
            carried = self._carried(0)
            before = carried.window(carried.n_steps + first, carried.n_steps + min(last, 0))
            return before.then(self._events_of_steps(0, max(last, 0)))

    def _events_of_steps(self, first: int, last: int) -> Events:
        ptr = self.row_ptr[first : last + 1]
        rows = slice(int(ptr[0]), int(ptr[-1]))
        nodes, value = self.nodes(rows), self.values(rows)
        self._check_rows(nodes, value, ptr - ptr[0], first)
        lane, unit = self._lanes_and_units(rows) if self.n_lanes > 1 else (None, nodes.astype(np.int32))
        if lane is None:
            return Events(self.n_units, 1, last - first, ptr - ptr[0], unit, value)
        self._read.check_memory(
            8 * (last - first) * self.n_lanes, f"{last - first} steps x {self.n_lanes} lanes"
        )
        bucket = np.repeat(np.arange(last - first) * self.n_lanes, np.diff(ptr)) + lane
        by_bucket = np.zeros((last - first) * self.n_lanes + 1, np.int64)
        np.cumsum(np.bincount(bucket, minlength=len(by_bucket) - 1), out=by_bucket[1:])
        return Events(self.n_units, self.n_lanes, last - first, by_bucket, unit, value)

    def _check_rows(self, nodes: NDArray, value: NDArray, ptr: NDArray[np.int64], first: int) -> None:
        """Raise unless rows are in order, without repeats, and every value is finite and not 0."""
        if not (np.isfinite(value) & (value != 0)).all():
            raise self._read.fail(f"'{self.name}' has an event whose value is 0 or not finite")
        ahead = nodes[1:] > nodes[:-1]
        ahead[ptr[(ptr > 0) & (ptr < len(nodes))] - 1] = True  # a new step
        if not ahead.all():
            row = int(np.flatnonzero(~ahead)[0]) + 1
            step = first + int(np.searchsorted(ptr, row, "right")) - 1 + self._file.start_step
            raise self._read.fail(f"events of '{self.name}' in step {step} are not in the order (lane, unit)")

    def _carried(self, first: int) -> Events:
        """Events of the steps before a window, as many as the longest delay."""
        read, group = self._read, self._read.group(self._group, "carried")
        n_steps, n_lanes = read.number(group, "n_steps"), self.n_lanes
        if n_steps < 0:
            raise read.fail(f"'{self.name}' carries {n_steps} steps")
        if first >= n_steps:
            return self._events_of_steps(first - n_steps, first)
        read.check_memory(8 * n_steps * n_lanes, f"{n_steps} steps x {n_lanes} lanes")
        ptr = read.array(group, "ptr", "i", (n_steps * n_lanes + 1,))
        value = read.column(group, "value", "f")
        unit = read.array(group, "unit", "i", value.shape)
        if ptr[0] != 0 or ptr[-1] != len(value) or (np.diff(ptr) < 0).any():
            raise read.fail(f"the row pointer of what '{self.name}' carries does not fit {len(value)} rows")
        carried = Events(self.n_units, n_lanes, n_steps, ptr, unit.astype(np.int32, copy=False), value)
        try:
            carried.check()
        except StimulusError as error:
            raise read.fail(f"what '{self.name}' carries: {error.problem}; {error.remedy}") from error
        if first == 0:
            return carried
        return carried.window(first, n_steps).then(self._events_of_steps(0, first))

    def states_before(self, first: int) -> dict[str, NDArray]:
        """States before a step counted from the first of the file, by name; none where they are not known."""
        with self._read.guard():
            shape = (self.n_lanes, self.n_units)
            if first == 0:
                initial = self._read.group(self._group, "initial")
                return {state: self._read.array(initial, state, "f", shape) for state in initial}
            at = np.flatnonzero(self._file.checkpoints == first)
            if not at.size:
                return {}
            if not self._read.has(self._read.at("evsim/checkpoints"), self.name):
                return {}
            path, rows = f"evsim/checkpoints/{self.name}", slice(int(at[0]), int(at[0]) + 1)
            kept = list(self._read.at(path))
            return {state: self._journal.rows(f"{path}/{state}", "f", rows, shape)[0] for state in kept}

    def _thresholds(self) -> NDArray | None:
        if not self._read.has(self._group, "thresholds"):
            return None
        return self._read.array(self._group, "thresholds", "f", (self.n_units,))

    def check_steps(self) -> None:
        """Raise unless all that a run in steps has a row of for each step has them all."""
        n_steps = self._file.n_steps
        found = {f"{self._path}/index/row_ptr": n_steps + 1} if self.sends else {}
        if self._report is not None:
            found[f"report/{self.name}/data"] = n_steps
        for what in ("state", "integral", "square"):
            if self._read.has(self._group, what):
                found[f"evsim/populations/{self.name}/{what}"] = n_steps
        for path, wanted in found.items():
            if self._journal.length(path) != wanted:
                raise self._read.fail(f"/{path} has {self._journal.length(path)} rows in {n_steps} steps")


def step_at(when: float, dt: float) -> int:
    """The first step at or after a time in ms; times that are a step but for rounding are that step."""
    exact = when / dt
    near = round(exact)
    return near if abs(exact - near) <= max(1e-9, 4 * math.ulp(exact)) else math.ceil(exact)


def pieces_of(rows: slice, size: int) -> Iterator[slice]:
    """Rows in pieces of a size."""
    for at in range(rows.start, rows.stop, size):
        yield slice(at, min(at + size, rows.stop))
