"""Logs of runs in continuous time as files: HDF5 that SONATA readers (libsonata, bmtk) open too.

Layout, version 1.1 of ``evsim_log_version``::

    /                       magic, version (SONATA), evsim_log_version
    /spikes/<population>    timestamps (float64, ms), node_ids, value (float64); attributes sorting, n_units,
                            n_lanes
        index/first_time    time of every 65536th row, to find a window without reading all rows
        index/lane_count    events of each lane
    /report/<population>    sampled states in SONATA's report layout, if samples are equally spaced; all bits
                            in data64
    /evsim                  clock = "continuous"; start_ms, duration_ms, n_lanes; samples (ms); JSON: network,
                            counters, provenance
        populations/<name>  kind, n_units, rank, emits; thresholds; initial/<state>; integral, square; state
                            where it is not in a report
        parameters/<name>   arrays

Rows are in order of (time, lane, unit).  What this has in common with the files of `evsim.sonata` is in
`evsim.sonata_file`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from evsim.errors import StimulusError
from evsim.hdf5 import CHUNK, Reader, open_file, put, put_text
from evsim.sonata_file import (
    CONTINUOUS_VERSION,
    SORTING,
    LogReader,
    new_log,
    numeric,
    says_continuous,
    write_initial,
    write_member,
    write_nodes,
    write_parameters,
    write_report,
    write_texts,
    write_values,
)
from evsim.timed_events import TimedEvents

if TYPE_CHECKING:
    from evsim.continuous_log import ContinuousLog, ContinuousPopulationLog

#: How far a sample may be from an equally spaced one, in parts of the spacing, to be in SONATA's layout.
SPACING = 1e-6


# -- writing ---------------------------------------------------------------------------------------------


def write(log: ContinuousLog, path: str | Path, overwrite: bool = False) -> Path:
    """Write ``log`` to ``path``; see `ContinuousLog.save`.

    Raises
    ------
    LogError
        The file exists and may not be replaced, or cannot be written.
    """
    where = f"log {str(path)!r}"
    with new_log(path, where, CONTINUOUS_VERSION, overwrite) as file:
        ours = file["evsim"]
        put_text(ours, "clock", "continuous")
        ours.attrs["start_ms"], ours.attrs["duration_ms"] = float(log.start), float(log.duration)
        ours.attrs["n_lanes"] = np.int64(log.n_lanes)
        put(ours, "samples", log.samples)
        write_texts(where, ours, log)
        members = ours.create_group("populations")
        for rank, population in enumerate(log.populations.values()):
            group = write_member(where, members, rank, population)
            write_initial(where, group, log.n_lanes, population)
            if population.events is not None:
                _write_spikes(where, file["spikes"].create_group(population.name), population.events)
            _write_samples(where, file, group, log.samples, population)
        write_parameters(where, ours, log)
    return Path(path)


def _write_spikes(where: str, group: h5py.Group, events: TimedEvents) -> None:
    group.attrs.create("sorting", 2, dtype=SORTING)
    group.attrs["n_units"] = np.uint64(events.n_units)
    group.attrs["n_lanes"] = np.uint32(events.n_lanes)
    put(group, "timestamps", np.asarray(events.time, np.float64)).attrs["units"] = "ms"
    write_nodes(group, events.lane, events.unit, events.n_lanes, events.n_units)
    write_values(where, group, events.value)
    index = group.create_group("index")
    put(index, "first_time", events.time[::CHUNK])
    put(index, "lane_count", np.bincount(events.lane, minlength=events.n_lanes))


def _write_samples(
    where: str,
    file: h5py.File,
    group: h5py.Group,
    samples: NDArray[np.float64],
    population: ContinuousPopulationLog,
) -> None:
    step = equal_step(samples)
    if population.state is not None and step is not None:
        report = file.require_group("report").create_group(population.name)
        first, last = float(samples[0]), float(samples[0]) + len(samples) * step
        write_report(report, str(population.state_name), population.state, first, last, step)
    elif population.state is not None:
        put_text(group, "state_name", str(population.state_name))
        put(group, "state", population.state)
    for name in ("integral", "square"):
        values = getattr(population, name)
        if values is not None:
            put(group, name, numeric(where, f"{population.name}.{name}", values, "f"))


def equal_step(samples: NDArray[np.float64]) -> float | None:
    """Spacing of samples in ms if they are equally spaced; None if not, and for fewer than two."""
    if len(samples) < 2:
        return None
    step = float(samples[-1] - samples[0]) / (len(samples) - 1)
    off = np.abs(samples - (samples[0] + step * np.arange(len(samples))))
    return step if step > 0 and float(off.max()) <= SPACING * step else None


# -- reading ---------------------------------------------------------------------------------------------


def read(path: str | Path) -> dict[str, Any]:
    """The arguments of `ContinuousLog` from a file of `write`, each population as those of its own log.

    Raises
    ------
    LogError
        The file is missing, foreign, damaged or inconsistent, or of a run in steps.
    """
    with open_file(path, f"log {str(path)!r}") as reader:
        return _ContinuousReader(reader).log()


class _ContinuousReader(LogReader):
    def __init__(self, reader: Reader):
        super().__init__(reader)
        if not says_continuous(reader, self.ours):
            raise self.fail("is of a run in steps", "open it with EventLog.open")
        self.start = reader.number(self.ours, "start_ms", float)
        self.duration = reader.number(self.ours, "duration_ms", float)
        self.stop = self.start + self.duration
        lanes = 0 < self.n_lanes < 2**31
        if not (lanes and self.start >= 0 and self.duration >= 0 and math.isfinite(self.stop)):
            raise self.fail(f"claims {self.n_lanes} lanes x {self.duration} ms from {self.start} ms")
        self.samples = reader.column(self.ours, "samples", "f")
        inside = (self.samples >= self.start) & (self.samples <= self.stop)
        if self.samples.dtype != np.float64 or not inside.all() or (np.diff(self.samples) <= 0).any():
            raise self.fail("has samples that do not increase, or lie outside its window")

    def log(self) -> dict[str, Any]:
        """Keyword arguments of `ContinuousLog`."""
        window = {"start": self.start, "duration": self.duration, "samples": self.samples}
        return self.contents() | window

    def population(self, name: str, group: h5py.Group) -> dict[str, Any]:
        """Keyword arguments of `ContinuousPopulationLog`."""
        found = super().population(name, group)
        sampled = {what: self.sampled(group, what, found["n_units"]) for what in ("integral", "square")}
        return found | sampled | {"state": self.state(name, group, found["n_units"])}

    def state(self, name: str, group: h5py.Group, n_units: int) -> NDArray[np.float64] | None:
        """Samples of the state, from where they are."""
        own = self.sampled(group, "state", n_units)
        if name not in set(self.report):
            return own
        _, state = self.reported(name, len(self.samples), n_units)
        if own is not None or state.dtype != np.float64:
            raise self.fail(f"/report/{name} lacks data64, or is not the only place of its states")
        return state

    def sampled(self, group: h5py.Group, what: str, n_units: int) -> NDArray[np.float64] | None:
        """An array with a row for each sample, None if there is none."""
        if not self.read.has(group, what):
            return None
        array = self.read.array(group, what, "f", (len(self.samples), self.n_lanes, n_units))
        if array.dtype != np.float64:
            raise self.fail(f"{group.name}/{what} is of dtype {array.dtype}")
        return array

    def events(self, name: str, n_units: int) -> TimedEvents:
        """The events of the window, from SONATA's columns."""
        read, group = self.read, self.read.group(self.spikes, name)
        claimed = read.number(group, "n_units"), read.number(group, "n_lanes")
        if claimed != (n_units, self.n_lanes):
            raise self.fail(f"/spikes/{name} and /evsim disagree about units and lanes: {claimed}")
        index = read.group(group, "index")
        lane_count = read.array(index, "lane_count", "i", (self.n_lanes,))
        # value comes first: no filter may shrink it, so that the file's size bounds the number of rows
        value = read.column(group, "value", "f")
        time = read.array(group, "timestamps", "f", value.shape)
        if not time.dtype == value.dtype == np.float64:
            raise self.fail(f"'{name}' has times of {time.dtype} and values of {value.dtype}, not float64")
        lane, unit = np.divmod(self.nodes(name, group, value.shape, n_units), n_units)
        lane, unit = lane.astype(np.int32), unit.astype(np.int32)
        events = TimedEvents(n_units, self.n_lanes, self.start, self.stop, time, lane, unit, value)
        try:
            events.check()
        except StimulusError as error:
            raise self.fail(f"'{name}': {error.problem}; {error.remedy}") from error
        first_time = read.column(index, "first_time", "f")
        if not np.array_equal(first_time, time[::CHUNK]) or not np.array_equal(
            lane_count, np.bincount(lane, minlength=self.n_lanes)
        ):
            raise self.fail(f"the index of '{name}' does not fit its events")
        return events
