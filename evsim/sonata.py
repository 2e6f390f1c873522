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

A lane is a replica of the network: ``node_id = lane * n_units + unit``.  ``timestamps`` are whole steps
counted from the start of the simulation; their unit is "ms" when dt = 1 and "step" otherwise.  Rows are in
order of (step, lane, unit).  Every array of ours carries the CRC-32 of its bytes, so that a damaged file is
refused and not half believed.

Facts about readers: libsonata's wheel has no zlib, so timestamps and node ids use only HDF5's own
scale-offset filter; it demands N + 1 index pointers where the specification says N, and float32 for the data
of a report.  bmtk reads ``sorting`` as a string on ``node_ids`` and cannot read the enum that libsonata wants
on the group: both are written.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.errors import LogError
from evsim.events import Events
from evsim.hdf5 import CHUNK, Reader, new_file, one_line, open_file, put, put_json, put_text

if TYPE_CHECKING:
    from evsim.eventlog import EventLog, PopulationLog

VERSION = (1, 0)
MAGIC = 0x0A7A  # of SONATA
SORTING = h5py.enum_dtype({"none": 0, "by_id": 1, "by_time": 2}, basetype="i1")


# -- writing ---------------------------------------------------------------------------------------------


def write(log: EventLog, path: str | Path, overwrite: bool = False, states: bool = False) -> Path:
    """Write ``log`` to ``path``; see `EventLog.save`.

    Raises
    ------
    LogError
        The file exists and may not be replaced, or cannot be written.
    """
    where = f"log {str(path)!r}"
    with new_file(path, where, overwrite) as file:
        file.attrs["magic"] = np.uint32(MAGIC)
        file.attrs["version"] = np.array([0, 1], "u4")
        file.attrs["evsim_log_version"] = np.array(VERSION, "u4")
        file.create_group("spikes")
        ours = file.create_group("evsim")
        _write_window(where, ours, log)
        members = ours.create_group("populations")
        for rank, population in enumerate(log.populations.values()):
            group = members.create_group(_link(where, population.name))
            group.attrs["rank"] = np.int64(rank)
            _write_population(where, group, log, population)
            if population.events is not None:
                _write_spikes(where, file["spikes"].create_group(population.name), log, population.events)
            if population.state_name == "v" or (states and population.state_name is not None):
                _write_report(file.require_group("report").create_group(population.name), log, population)
        parameters = ours.create_group("parameters")
        for name, values in log.parameters.items():
            put(parameters, _link(where, name), _numeric(where, name, values))
    return Path(path)


def _write_window(where: str, ours: h5py.Group, log: EventLog) -> None:
    ours.attrs["dt_ms"] = float(log.dt)
    for size in ("start_step", "n_steps", "n_lanes"):
        ours.attrs[size] = np.int64(getattr(log, size))
    put(ours, "lengths", log.lengths)
    for name in ("network", "counters", "provenance"):
        try:
            put_json(ours, name, getattr(log, name))
        except (TypeError, ValueError, RecursionError) as error:
            problem = f"{name} cannot be kept: {one_line(error)}"
            raise LogError(where, problem, "use numbers, text, lists and dicts") from error


def _write_population(where: str, group: h5py.Group, log: EventLog, population: PopulationLog) -> None:
    put_text(group, "kind", population.kind)
    group.attrs["n_units"] = np.int64(population.n_units)
    group.attrs["emits"] = np.uint8(population.events is not None)
    if population.carried is not None:
        carried = group.create_group("carried")
        carried.attrs["n_steps"] = np.int64(population.carried.n_steps)
        for column in ("ptr", "unit", "value"):
            put(carried, column, getattr(population.carried, column))
    initial = group.create_group("initial")
    shape = (log.n_lanes, population.n_units)
    for state, values in population.initial.items():
        if np.shape(values) != shape:
            problem = f"initial {state} of '{population.name}' has shape {np.shape(values)}"
            raise LogError(where, problem, f"give {shape}")
        put(initial, _link(where, state), _numeric(where, f"{population.name}.{state}", values, "f"))
    if population.thresholds is not None:
        put(group, "thresholds", _numeric(where, f"{population.name}.threshold", population.thresholds, "f"))


def _write_spikes(where: str, group: h5py.Group, log: EventLog, events: Events) -> None:
    group.attrs.create("sorting", 2, dtype=SORTING)
    group.attrs["n_units"] = np.uint64(events.n_units)
    group.attrs["n_lanes"] = np.uint32(events.n_lanes)
    group.attrs["dt_ms"] = float(log.dt)
    end, n_nodes = log.start_step + log.n_steps, events.n_lanes * events.n_units
    row_ptr = events.ptr[:: events.n_lanes]
    ticks = np.repeat(np.arange(log.start_step, end).astype(_unsigned(end)), np.diff(row_ptr))
    # int64 until the last moment: uint64 with int64 would silently become float64
    nodes = (events.lane * events.n_units + events.unit).astype(_unsigned(n_nodes))
    # an empty data set has chunks only if it may grow
    layout = {"chunks": (min(max(len(events), 1), CHUNK),), "maxshape": (None,), "scaleoffset": 0}
    timestamps = put(group, "timestamps", ticks, **layout)
    timestamps.attrs["units"] = "ms" if log.dt == 1.0 else "step"
    put(group, "node_ids", nodes, **layout).attrs["sorting"] = "by_time"
    value = put(group, "value", _numeric(where, "value", events.value, "f"))
    value.attrs["meaning"] = "payload of the event, dimensionless"
    put(group.create_group("index"), "row_ptr", row_ptr)


def _write_report(group: h5py.Group, log: EventLog, population: PopulationLog) -> None:
    """States as SONATA's soma report: data[frame, node]; frame s is at ``(start_step + s) * dt``."""
    put_text(group, "state", str(population.state_name))
    n_nodes = log.n_lanes * population.n_units
    state = population.state.reshape(log.n_steps, n_nodes)
    with np.errstate(over="ignore"):
        put(group, "data", state.astype("f4", copy=False)).attrs["units"] = "1"
    if state.dtype != np.float32:
        put(group, "data64", state)
    mapping = group.create_group("mapping")
    node_ids = mapping.create_dataset("node_ids", data=np.arange(n_nodes, dtype="u8"))
    node_ids.attrs["sorted"] = np.uint8(1)
    mapping.create_dataset("index_pointers", data=np.arange(n_nodes + 1, dtype="u8"))
    mapping.create_dataset("element_ids", data=np.zeros(n_nodes, "u4"))
    span = np.array([log.start_step, log.start_step + log.n_steps, 1], "f8") * log.dt
    mapping.create_dataset("time", data=span).attrs["units"] = "ms"


def _unsigned(limit: int) -> str:
    return "u4" if limit <= 2**32 else "u8"


def _link(where: str, name: str) -> str:
    """``name`` if HDF5 can use it for one link."""
    if name in ("", ".") or "/" in name or "\0" in name:
        raise LogError(where, f"cannot name an entry {name!r}", "use a name without '/'")
    return name


def _numeric(where: str, name: str, values: ArrayLike, kinds: str = "fiu") -> NDArray:
    array = np.asarray(values)
    if array.dtype.kind not in kinds or array.dtype.itemsize > 8 or array.dtype == np.float16:
        allowed = "float32 or float64" if kinds == "f" else "float32, float64 or integers"
        raise LogError(where, f"'{name}' is of dtype {array.dtype}", f"give {allowed}")
    return array


# -- reading ---------------------------------------------------------------------------------------------


def read(path: str | Path) -> dict[str, Any]:
    """The arguments of `EventLog` from a file made by `write`, each population as those of `PopulationLog`.

    Raises
    ------
    LogError
        The file is missing, foreign, damaged or inconsistent.
    """
    with open_file(path, f"log {str(path)!r}") as reader:
        return _LogReader(reader).log()


class _LogReader:
    """Reads one log; `Reader` guards types and sizes, this class the sense of what they hold."""

    def __init__(self, reader: Reader):
        self.read, self.file, self.fail = reader, reader.file, reader.fail
        self.check_version()
        self.ours = reader.group(self.file, "evsim")
        self.spikes = reader.group(self.file, "spikes")
        self.report = reader.group(self.file, "report") if reader.has(self.file, "report") else {}
        self.dt = reader.number(self.ours, "dt_ms", float)
        self.start_step = reader.number(self.ours, "start_step")
        self.n_steps = reader.number(self.ours, "n_steps")
        self.n_lanes = reader.number(self.ours, "n_lanes")
        if (
            not (self.dt > 0 and math.isfinite(self.dt))
            or self.n_lanes < 1
            or min(self.start_step, self.n_steps) < 0
        ):
            window = f"{self.n_lanes} lanes x {self.n_steps} steps of {self.dt} ms"
            raise self.fail(f"claims {window} from step {self.start_step}")

    def check_version(self) -> None:
        """Raise LogError unless this is a log of ours, of a version known here."""
        version = self.read.attribute(self.file, "evsim_log_version")
        if version is None:
            kind = "SONATA" if "magic" in self.file.attrs else "HDF5"
            raise self.fail(f"is {kind}, but not an event log of evsim", "give a file made by EventLog.save")
        numbers = np.ravel(version).tolist()
        if numbers[:1] != [VERSION[0]]:
            found = ".".join(str(number) for number in numbers[:3])
            raise self.fail(f"has log version {found}, not {VERSION[0]}.x", "use the evsim that wrote it")

    def log(self) -> dict[str, Any]:
        """Keyword arguments of `EventLog`."""
        members = self.read.group(self.ours, "populations")
        ranks = {name: self.read.number(self.read.group(members, name), "rank") for name in members}
        unknown = sorted((set(self.spikes) | set(self.report)) - set(ranks))
        if unknown:
            raise self.fail(
                f"holds events or states of '{unknown[0]}', but does not describe that population"
            )
        lengths = self.read.array(self.ours, "lengths", "i", (self.n_lanes,))
        if lengths.min() < 0 or lengths.max() > self.n_steps:
            raise self.fail(f"has lengths from {lengths.min()} to {lengths.max()} in {self.n_steps} steps")
        parameters = self.read.group(self.ours, "parameters")
        order = sorted(ranks, key=lambda name: (ranks[name], name))
        return {
            "populations": {name: self.population(name, self.read.group(members, name)) for name in order},
            "dt": self.dt,
            "start_step": self.start_step,
            "n_steps": self.n_steps,
            "n_lanes": self.n_lanes,
            "lengths": lengths,
            "counters": self.read.json(self.ours, "counters"),
            "network": self.read.json(self.ours, "network"),
            "parameters": {name: self.read.array(parameters, name, "fiu") for name in parameters},
            "provenance": self.read.json(self.ours, "provenance"),
        }

    def population(self, name: str, group: h5py.Group) -> dict[str, Any]:
        """Keyword arguments of `PopulationLog`."""
        read, n_units = self.read, self.read.number(group, "n_units")
        if not 0 < n_units < 2**31:
            raise self.fail(f"claims {n_units} units in population '{name}'")
        emits = bool(read.number(group, "emits"))
        if emits != read.has(self.spikes, name):
            raise self.fail(f"population '{name}' {'lacks its events' if emits else 'must not have events'}")
        initial = read.group(group, "initial")
        fields, tape = self.tape(name, n_units) if name in set(self.report) else ((), None)
        return {
            "name": name,
            "kind": read.text(group, "kind"),
            "n_units": n_units,
            "dt": self.dt,
            "start_step": self.start_step,
            "events": self.events(name, n_units) if emits else None,
            "carried": self.carried(name, n_units, group) if read.has(group, "carried") else None,
            "initial": {state: read.array(initial, state, "f", (self.n_lanes, n_units)) for state in initial},
            "tape": tape,
            "tape_fields": fields,
            "thresholds": read.array(group, "thresholds", "f", (n_units,))
            if read.has(group, "thresholds")
            else None,
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
        nodes = read.array(group, "node_ids", "u", value.shape)
        end, n_nodes = self.start_step + self.n_steps, n_units * self.n_lanes
        if len(value) and not self.start_step <= int(ticks.min()) <= int(ticks.max()) < end:
            raise self.fail(f"'{name}' has events in steps {ticks.min()}..{ticks.max()}, outside the window")
        if len(value) and int(nodes.max()) >= n_nodes:
            raise self.fail(f"'{name}' has an event of node {nodes.max()}, but only {n_nodes} nodes")
        lane, unit = np.divmod(nodes.astype(np.int64), n_units)
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
        group = self.read.group(self.report, name)
        state = self.read.text(group, "state")
        if state not in ("v", "h", "c"):
            raise self.fail(f"/report/{name} is of state '{state}'")
        column = "data64" if self.read.has(group, "data64") else "data"
        data = self.read.array(group, column, "f", (self.n_steps, self.n_lanes * n_units))
        return (state,), data.reshape(self.n_steps, self.n_lanes, 1, n_units)

    def n_buckets(self, n_steps: int) -> int:
        """``n_steps * n_lanes``, if this machine can hold a pointer to each."""
        self.read.check_memory(8 * n_steps * self.n_lanes, f"{n_steps} steps x {self.n_lanes} lanes")
        return n_steps * self.n_lanes
