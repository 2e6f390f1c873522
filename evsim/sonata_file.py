"""What files of event logs have in common, whether time goes in steps or is continuous: see `evsim.sonata`.

A lane is a replica of the network: ``node_id = lane * n_units + unit``.  Every array of ours carries the
CRC-32 of its bytes, so that a damaged file is refused and not half believed.

Facts about readers: libsonata's wheel has no zlib, so timestamps and node ids use at most HDF5's own
scale-offset filter; it demands N + 1 index pointers where the specification says N, and float32 for the data
of a report.  bmtk reads ``sorting`` as a string on ``node_ids`` and cannot read the enum that libsonata wants
on the group: both are written.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.errors import LogError
from evsim.hdf5 import CHUNK, Reader, new_file, one_line, open_file, put, put_json, put_text
from evsim.log import Log, PopulationRecord

#: Of the layout; readers accept files of the same first number.
VERSION = (1, 0)
#: Of logs in continuous time, which what knows version 1.0 cannot read.
CONTINUOUS_VERSION = (1, 1)
MAGIC = 0x0A7A  # of SONATA
SORTING = h5py.enum_dtype({"none": 0, "by_id": 1, "by_time": 2}, basetype="i1")


# -- writing ---------------------------------------------------------------------------------------------


@contextmanager
def new_log(path: str | Path, where: str, version: tuple[int, int], overwrite: bool) -> Iterator[h5py.File]:
    """A file with empty groups ``spikes`` and ``evsim``; see `new_file`."""
    with new_file(path, where, overwrite) as file:
        file.attrs["magic"] = np.uint32(MAGIC)
        file.attrs["version"] = np.array([0, 1], "u4")
        file.attrs["evsim_log_version"] = np.array(version, "u4")
        file.create_group("spikes")
        file.create_group("evsim")
        yield file


def write_texts(where: str, ours: h5py.Group, log: Log) -> None:
    """Network, counters and provenance."""
    for name in ("network", "counters", "provenance"):
        try:
            put_json(ours, name, getattr(log, name))
        except (TypeError, ValueError, RecursionError) as error:
            problem = f"{name} cannot be kept: {one_line(error)}"
            raise LogError(where, problem, "use numbers, text, lists and dicts") from error


def write_parameters(where: str, ours: h5py.Group, log: Log) -> None:
    """All parameters by name."""
    parameters = ours.create_group("parameters")
    for name, values in log.parameters.items():
        put(parameters, link(where, name), numeric(where, name, values))


def write_member(where: str, members: h5py.Group, rank: int, population: PopulationRecord) -> h5py.Group:
    """A population's group, with its place in the network, type and size."""
    group = members.create_group(link(where, population.name))
    group.attrs["rank"] = np.int64(rank)
    put_text(group, "kind", population.kind)
    group.attrs["n_units"] = np.int64(population.n_units)
    group.attrs["emits"] = np.uint8(population.events is not None)
    return group


def write_initial(where: str, group: h5py.Group, n_lanes: int, population: Any) -> None:
    """A population's states at the start, and its thresholds."""
    initial = group.create_group("initial")
    shape = (n_lanes, population.n_units)
    for state, values in population.initial.items():
        if np.shape(values) != shape:
            problem = f"initial {state} of '{population.name}' has shape {np.shape(values)}"
            raise LogError(where, problem, f"give {shape}")
        put(initial, link(where, state), numeric(where, f"{population.name}.{state}", values, "f"))
    if population.thresholds is not None:
        put(group, "thresholds", numeric(where, f"{population.name}.threshold", population.thresholds, "f"))


def column_layout(n_rows: int) -> dict[str, Any]:
    """Options of a column of integers that keeps only the bits it needs."""
    # an empty data set has chunks only if it may grow
    return {"chunks": (min(max(n_rows, 1), CHUNK),), "maxshape": (None,), "scaleoffset": 0}


def write_nodes(group: h5py.Group, lane: NDArray, unit: NDArray, n_lanes: int, n_units: int) -> None:
    """Who sent each event."""
    # int64 until the last moment: uint64 with int64 would silently become float64
    nodes = (lane.astype(np.int64) * n_units + unit).astype(unsigned(n_lanes * n_units))
    put(group, "node_ids", nodes, **column_layout(len(nodes))).attrs["sorting"] = "by_time"


def write_values(where: str, group: h5py.Group, values: ArrayLike) -> None:
    """What each event carried."""
    value = put(group, "value", numeric(where, "value", values, "f"))
    value.attrs["meaning"] = "payload of the event, dimensionless"


def write_report(
    group: h5py.Group, name: str, state: NDArray, first: float, last: float, step: float
) -> None:
    """States as SONATA's soma report: data[frame, node].

    Parameters
    ----------
    name : str
        Of the state.
    state : ndarray, shape (n_frames, n_lanes, n_units)
    first, last, step : float
        Frame k is at ``first + k * step``, in ms, and the one behind the last would be at ``last``.
    """
    put_text(group, "state", name)
    n_nodes = state.shape[1] * state.shape[2]
    state = state.reshape(len(state), n_nodes)
    with np.errstate(over="ignore"):
        put(group, "data", state.astype("f4", copy=False)).attrs["units"] = "1"
    if state.dtype != np.float32:
        put(group, "data64", state)
    mapping = group.create_group("mapping")
    node_ids = mapping.create_dataset("node_ids", data=np.arange(n_nodes, dtype="u8"))
    node_ids.attrs["sorted"] = np.uint8(1)
    mapping.create_dataset("index_pointers", data=np.arange(n_nodes + 1, dtype="u8"))
    mapping.create_dataset("element_ids", data=np.zeros(n_nodes, "u4"))
    span = np.array([first, last, step], "f8")
    mapping.create_dataset("time", data=span).attrs["units"] = "ms"


def unsigned(limit: int) -> str:
    """The type for integers below ``limit``."""
    return "u4" if limit <= 2**32 else "u8"


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


# -- reading ---------------------------------------------------------------------------------------------


def is_continuous(path: str | Path) -> bool:
    """Whether the log at ``path`` is of a run in continuous time.

    Raises
    ------
    LogError
        The file is missing, damaged, or no log of ours.
    """
    with open_file(path, f"log {str(path)!r}") as reader:
        check_version(reader)
        return says_continuous(reader, reader.group(reader.file, "evsim"))


def says_continuous(reader: Reader, ours: h5py.Group) -> bool:
    """Whether the group ``evsim`` of a file is that of a run in continuous time."""
    clock = reader.attribute(ours, "clock")
    return isinstance(clock, bytes) and clock == b"continuous"


def check_version(reader: Reader) -> None:
    """Raise LogError unless this is a log of ours, of a version known here."""
    version = reader.attribute(reader.file, "evsim_log_version")
    if version is None:
        kind = "SONATA" if "magic" in reader.file.attrs else "HDF5"
        raise reader.fail(f"is {kind}, but not an event log of evsim", "give a file made by EventLog.save")
    numbers = np.ravel(version).tolist()
    if numbers[:1] != [VERSION[0]]:
        found = ".".join(str(number) for number in numbers[:3])
        raise reader.fail(f"has log version {found}, not {VERSION[0]}.x", "use the evsim that wrote it")


class LogReader:
    """Reads one log; `Reader` guards types and sizes, this class the sense of what they hold."""

    def __init__(self, reader: Reader):
        self.read, self.file, self.fail = reader, reader.file, reader.fail
        check_version(reader)
        self.ours = reader.group(self.file, "evsim")
        self.spikes = reader.group(self.file, "spikes")
        self.report = reader.group(self.file, "report") if reader.has(self.file, "report") else {}
        self.n_lanes = reader.number(self.ours, "n_lanes")

    def contents(self) -> dict[str, Any]:
        """Keyword arguments of a `Log`: populations and what is known about the run."""
        members = self.read.group(self.ours, "populations")
        ranks = {name: self.read.number(self.read.group(members, name), "rank") for name in members}
        unknown = sorted((set(self.spikes) | set(self.report)) - set(ranks))
        if unknown:
            raise self.fail(
                f"holds events or states of '{unknown[0]}', but does not describe that population"
            )
        parameters = self.read.group(self.ours, "parameters")
        order = sorted(ranks, key=lambda name: (ranks[name], name))
        return {
            "populations": {name: self.population(name, self.read.group(members, name)) for name in order},
            "n_lanes": self.n_lanes,
            "counters": self.read.json(self.ours, "counters"),
            "network": self.read.json(self.ours, "network"),
            "parameters": {name: self.read.array(parameters, name, "fiu") for name in parameters},
            "provenance": self.read.json(self.ours, "provenance"),
        }

    def population(self, name: str, group: h5py.Group) -> dict[str, Any]:
        """Keyword arguments of a `PopulationRecord`."""
        read, n_units = self.read, self.read.number(group, "n_units")
        if not 0 < n_units < 2**31:
            raise self.fail(f"claims {n_units} units in population '{name}'")
        emits = bool(read.number(group, "emits"))
        if emits != read.has(self.spikes, name):
            raise self.fail(f"population '{name}' {'lacks its events' if emits else 'must not have events'}")
        initial = read.group(group, "initial")
        return {
            "name": name,
            "kind": read.text(group, "kind"),
            "n_units": n_units,
            "events": self.events(name, n_units) if emits else None,
            "initial": {state: read.array(initial, state, "f", (self.n_lanes, n_units)) for state in initial},
            "thresholds": read.array(group, "thresholds", "f", (n_units,))
            if read.has(group, "thresholds")
            else None,
        }

    def events(self, name: str, n_units: int) -> Any:
        """The events of the window, from SONATA's columns."""
        raise NotImplementedError

    def nodes(self, name: str, group: h5py.Group, shape: tuple[int, ...], n_units: int) -> NDArray[np.int64]:
        """``lane * n_units + unit`` of every event."""
        nodes = self.read.array(group, "node_ids", "u", shape)
        n_nodes = n_units * self.n_lanes
        if len(nodes) and int(nodes.max()) >= n_nodes:
            raise self.fail(f"'{name}' has an event of node {nodes.max()}, but only {n_nodes} nodes")
        return nodes.astype(np.int64)

    def reported(self, name: str, n_frames: int, n_units: int) -> tuple[str, NDArray]:
        """Name and values of sampled states, shape (n_frames, n_lanes, n_units)."""
        group = self.read.group(self.report, name)
        state = self.read.text(group, "state")
        if state not in ("v", "h", "c"):
            raise self.fail(f"/report/{name} is of state '{state}'")
        column = "data64" if self.read.has(group, "data64") else "data"
        data = self.read.array(group, column, "f", (n_frames, self.n_lanes * n_units))
        return state, data.reshape(n_frames, self.n_lanes, n_units)
