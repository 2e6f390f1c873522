"""Event logs as files: HDF5 that SONATA readers (libsonata, bmtk) open too.

Layout, version 1.0 of ``evsim_log_version``::

    /                       magic, version (SONATA), evsim_log_version
    /spikes/<population>    timestamps, node_ids, value; attributes sorting, n_units, n_lanes, dt_ms
        index/row_ptr       rows of step s are row_ptr[s]:row_ptr[s + 1]
    /report/<population>    sampled states (v of a readout, h of delta units, c of EGRU) in SONATA's report
                            layout; all bits of float64 states in data64
    /evsim                  dt_ms, start_step, n_steps, n_lanes; lengths; JSON: network, counters, provenance
        populations/<name>  kind, n_units, rank, emits; thresholds; initial/<state>;
                            carried/{ptr, unit, value}
        parameters/<name>   arrays

``timestamps`` are whole steps counted from the start of the simulation; their unit is "ms" when dt = 1 and
"step" otherwise.  Rows are in order of (step, lane, unit).  What this has in common with the files of
`evsim.sonata_continuous` is in `evsim.sonata_file`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from evsim.events import Events
from evsim.hdf5 import Reader, open_file, put
from evsim.sonata_file import (
    SORTING,
    VERSION,
    LogReader,
    column_layout,
    new_log,
    unsigned,
    write_initial,
    write_member,
    write_nodes,
    write_parameters,
    write_report,
    write_texts,
    write_values,
)

if TYPE_CHECKING:
    from evsim.eventlog import EventLog, PopulationLog

# -- writing ---------------------------------------------------------------------------------------------


def write(log: EventLog, path: str | Path, overwrite: bool = False, states: bool = False) -> Path:
    """Write ``log`` to ``path``; see `EventLog.save`.

    Raises
    ------
    LogError
        The file exists and may not be replaced, or cannot be written.
    """
    where = f"log {str(path)!r}"
    with new_log(path, where, VERSION, overwrite) as file:
        ours = file["evsim"]
        ours.attrs["dt_ms"] = float(log.dt)
        for size in ("start_step", "n_steps", "n_lanes"):
            ours.attrs[size] = np.int64(getattr(log, size))
        put(ours, "lengths", log.lengths)
        write_texts(where, ours, log)
        members = ours.create_group("populations")
        for rank, population in enumerate(log.populations.values()):
            group = write_member(where, members, rank, population)
            _write_carried(group, population)
            write_initial(where, group, log.n_lanes, population)
            if population.events is not None:
                _write_spikes(where, file["spikes"].create_group(population.name), log, population.events)
            if population.state_name == "v" or (states and population.state_name is not None):
                _write_report(file.require_group("report").create_group(population.name), log, population)
        write_parameters(where, ours, log)
    return Path(path)


def _write_carried(group: h5py.Group, population: PopulationLog) -> None:
    if population.carried is not None:
        carried = group.create_group("carried")
        carried.attrs["n_steps"] = np.int64(population.carried.n_steps)
        for column in ("ptr", "unit", "value"):
            put(carried, column, getattr(population.carried, column))


def _write_spikes(where: str, group: h5py.Group, log: EventLog, events: Events) -> None:
    group.attrs.create("sorting", 2, dtype=SORTING)
    group.attrs["n_units"] = np.uint64(events.n_units)
    group.attrs["n_lanes"] = np.uint32(events.n_lanes)
    group.attrs["dt_ms"] = float(log.dt)
    end = log.start_step + log.n_steps
    row_ptr = events.ptr[:: events.n_lanes]
    ticks = np.repeat(np.arange(log.start_step, end).astype(unsigned(end)), np.diff(row_ptr))
    timestamps = put(group, "timestamps", ticks, **column_layout(len(ticks)))
    timestamps.attrs["units"] = "ms" if log.dt == 1.0 else "step"
    write_nodes(group, events.lane, events.unit, events.n_lanes, events.n_units)
    write_values(where, group, events.value)
    put(group.create_group("index"), "row_ptr", row_ptr)


def _write_report(group: h5py.Group, log: EventLog, population: PopulationLog) -> None:
    """Frame s is at ``(start_step + s) * dt``."""
    first, last = log.start_step * log.dt, (log.start_step + log.n_steps) * log.dt
    write_report(group, str(population.state_name), population.state, first, last, log.dt)


# -- reading ---------------------------------------------------------------------------------------------


def read(path: str | Path) -> dict[str, Any]:
    """The arguments of `EventLog` from a file made by `write`, each population as those of `PopulationLog`.

    Raises
    ------
    LogError
        The file is missing, foreign, damaged or inconsistent.
    """
    with open_file(path, f"log {str(path)!r}") as reader:
        return _ClockedReader(reader).log()


class _ClockedReader(LogReader):
    def __init__(self, reader: Reader):
        super().__init__(reader)
        self.dt = reader.number(self.ours, "dt_ms", float)
        self.start_step = reader.number(self.ours, "start_step")
        self.n_steps = reader.number(self.ours, "n_steps")
        if (
            not (self.dt > 0 and math.isfinite(self.dt))
            or self.n_lanes < 1
            or min(self.start_step, self.n_steps) < 0
        ):
            window = f"{self.n_lanes} lanes x {self.n_steps} steps of {self.dt} ms"
            raise self.fail(f"claims {window} from step {self.start_step}")

    def log(self) -> dict[str, Any]:
        """Keyword arguments of `EventLog`."""
        lengths = self.read.array(self.ours, "lengths", "i", (self.n_lanes,))
        if lengths.min() < 0 or lengths.max() > self.n_steps:
            raise self.fail(f"has lengths from {lengths.min()} to {lengths.max()} in {self.n_steps} steps")
        window = {"dt": self.dt, "start_step": self.start_step, "n_steps": self.n_steps}
        return self.contents() | window | {"lengths": lengths}

    def population(self, name: str, group: h5py.Group) -> dict[str, Any]:
        """Keyword arguments of `PopulationLog`."""
        found = super().population(name, group)
        n_units, carries = found["n_units"], self.read.has(group, "carried")
        fields, tape = self.tape(name, n_units) if name in set(self.report) else ((), None)
        return found | {
            "dt": self.dt,
            "start_step": self.start_step,
            "carried": self.carried(name, n_units, group) if carries else None,
            "tape": tape,
            "tape_fields": fields,
        }

    def events(self, name: str, n_units: int) -> Events:
        """The events of the window, from SONATA's columns."""
        read, group = self.read, self.read.group(self.spikes, name)
        claimed = (
            read.number(group, "n_units"),
            read.number(group, "n_lanes"),
            read.number(group, "dt_ms", float),
        )
        if claimed != (n_units, self.n_lanes, self.dt):
            raise self.fail(f"/spikes/{name} and /evsim disagree about units, lanes and dt: {claimed}")
        row_ptr = read.array(read.group(group, "index"), "row_ptr", "i", (self.n_steps + 1,))
        # value comes first: no filter may shrink it, so that the file's size bounds the number of rows
        value = read.column(group, "value", "f")
        ticks = read.array(group, "timestamps", "u", value.shape)
        nodes = self.nodes(name, group, value.shape, n_units)
        end = self.start_step + self.n_steps
        if len(value) and not self.start_step <= int(ticks.min()) <= int(ticks.max()) < end:
            raise self.fail(f"'{name}' has events in steps {ticks.min()}..{ticks.max()}, outside the window")
        lane, unit = np.divmod(nodes, n_units)
        bucket = (ticks.astype(np.int64) - self.start_step) * self.n_lanes + lane
        ptr = np.zeros(self.n_buckets(self.n_steps) + 1, np.int64)
        np.cumsum(np.bincount(bucket, minlength=len(ptr) - 1), out=ptr[1:])
        if not np.array_equal(ptr[:: self.n_lanes], row_ptr):
            raise self.fail(f"index/row_ptr of '{name}' does not fit its timestamps")
        self.check_rows(name, bucket, unit, value)
        return Events(n_units, self.n_lanes, self.n_steps, ptr, unit.astype(np.int32), value)

    def carried(self, name: str, n_units: int, population: h5py.Group) -> Events:
        """Events of the steps before the window."""
        read, group = self.read, self.read.group(population, "carried")
        n_steps = read.number(group, "n_steps")
        if n_steps < 0:
            raise self.fail(f"'{name}' carries {n_steps} steps")
        ptr = read.array(group, "ptr", "i", (self.n_buckets(n_steps) + 1,))
        value = read.column(group, "value", "f")
        unit = read.array(group, "unit", "i", value.shape)
        if ptr[0] != 0 or ptr[-1] != len(value) or (np.diff(ptr) < 0).any():
            raise self.fail(f"the row pointer of the events '{name}' carries does not fit {len(value)} rows")
        if len(value) and not 0 <= int(unit.min()) <= int(unit.max()) < n_units:
            raise self.fail(f"'{name}' carries events of units {unit.min()}..{unit.max()}, but has {n_units}")
        self.check_rows(name, np.repeat(np.arange(len(ptr) - 1), np.diff(ptr)), unit, value)
        return Events(n_units, self.n_lanes, n_steps, ptr, unit.astype(np.int32, copy=False), value)

    def check_rows(self, name: str, bucket: NDArray, unit: NDArray, value: NDArray) -> None:
        """Raise LogError unless rows are in order, without repeats, and every value is finite and not 0."""
        if not (np.isfinite(value) & (value != 0)).all():
            raise self.fail(f"'{name}' has an event whose value is 0 or not finite")
        ahead = np.diff(bucket)
        if (ahead < 0).any() or ((ahead == 0) & (np.diff(unit) <= 0)).any():
            raise self.fail(f"events of '{name}' are not in the order (step, lane, unit)")

    def tape(self, name: str, n_units: int) -> tuple[tuple[str, ...], NDArray]:
        """Sampled states as a tape of one field."""
        state, data = self.reported(name, self.n_steps, n_units)
        return (state,), data[:, :, None]

    def n_buckets(self, n_steps: int) -> int:
        """``n_steps * n_lanes``, if this machine can hold a pointer to each."""
        self.read.check_memory(8 * n_steps * self.n_lanes, f"{n_steps} steps x {self.n_lanes} lanes")
        return n_steps * self.n_lanes
