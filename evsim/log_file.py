"""Reads event logs from disk by windows, also while they are being written: see `evsim.log_format`."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from evsim.continuous_log import ContinuousLog, ContinuousPopulationLog
from evsim.errors import LogError
from evsim.eventlog import EventLog
from evsim.file_checks import problems
from evsim.file_population import ROWS, FilePopulation, step_at
from evsim.hdf5 import check_target, one_line
from evsim.hdf5_reader import Reader, open_reader
from evsim.interchange import neo_block
from evsim.journal import Journal
from evsim.log_format import VERSION, duration_between
from evsim.log_gradients import COLUMNS, write_gradients
from evsim.log_writer import LogWriter, hidden_name


class LogFile:
    """An event log on disk; nothing of it is read before it is asked for.

    ::

        with LogFile("run.h5") as file:
            log = file.window(1000.0, 2000.0)              # as a run of that stretch would have given it
            table = file["hidden"].table(units=slice(10))  # plain columns

    Every block of rows that is read is held against its checksum.  A file that is still being written shows
    what is on it; `refresh` looks for more.

    Parameters
    ----------
    path : str or Path

    Attributes
    ----------
    path : Path
    continuous : bool
        Whether the run had no steps.
    dt : float or None
        Length of a step in ms; None in continuous time.
    n_lanes : int
    populations : dict of str to FilePopulation
        In the order of the network.

    Raises
    ------
    LogError
        The file is missing, foreign, damaged or inconsistent.  So do all methods.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._open()

    def _open(self) -> None:
        self._read = open_reader(self.path, f"log {str(self.path)!r}")
        try:
            with self._read.guard():
                self._read.steadily(self._take_in)
        except BaseException:
            self.close()
            raise

    def _take_in(self) -> None:
        """Read what the file says of itself."""
        read = self._read
        _check_version(read)
        ours = read.at("evsim")
        clock = read.text(ours, "clock")
        if clock not in ("steps", "continuous"):
            raise read.fail(f"has the clock '{clock}'")
        self.continuous = clock == "continuous"
        self.n_lanes = read.number(ours, "n_lanes")
        self.dt: float | None = None
        if self.continuous:
            self.start = read.number(ours, "start_ms", float)
            first = self.start
        else:
            self.dt = read.number(ours, "dt_ms", float)
            first = self.start_step = read.number(ours, "start_step")
            self.start = first * self.dt
        lanes = 0 < self.n_lanes < 2**31
        if not (lanes and math.isfinite(self.start) and self.start >= 0 and (self.dt is None or self.dt > 0)):
            raise read.fail(f"claims {self.n_lanes} lanes from {first}, in steps of {self.dt} ms")
        self._journal = Journal(read, self.continuous, first, self.n_lanes)
        spikes, report = read.at("spikes"), _optional(read, read.file, "report")
        members = read.at("evsim/populations")
        ranks = {name: read.number(read.group(members, name), "rank") for name in members}
        unknown = sorted((set(spikes) | set(report or ())) - set(ranks))
        if unknown:
            raise read.fail(
                f"holds events or states of '{unknown[0]}', but does not describe that population"
            )
        self.populations = {
            name: FilePopulation(self, name) for name in sorted(ranks, key=lambda name: (ranks[name], name))
        }
        self._check_steps()

    def _check_steps(self) -> None:
        """Raise unless all that has a row for each step has as many as the journal tells of."""
        if not self.continuous:
            for population in self.populations.values():
                population.check_steps()

    # -- what there is -------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> FilePopulation:
        try:
            return self.populations[name]
        except KeyError:
            raise LogError(self._read.where, f"has no population '{name}'", f"it has {self.names}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.populations)

    def __contains__(self, name: object) -> bool:
        return name in self.populations

    def __repr__(self) -> str:
        sizes = ", ".join(f"{p.name}: {p.n_events} events" for p in self.populations.values() if p.sends)
        return f"LogFile('{self.path}', {self.start:g} to {self.stop:g} ms; {sizes})"

    @property
    def names(self) -> list[str]:
        """Names of the populations, in the order of the network."""
        return list(self.populations)

    @property
    def complete(self) -> bool:
        """Whether the file was closed by what wrote it: not while it grows, nor after that was killed."""
        return self._journal.closed

    @property
    def stop(self) -> float:
        """End of what was recorded, in ms."""
        return self._journal.stop if self.dt is None else self._journal.stop * self.dt

    @property
    def duration(self) -> float:
        """Length of what was recorded, in ms."""
        return self.stop - self.start

    @property
    def n_steps(self) -> int:
        """Steps recorded; 0 in continuous time."""
        return 0 if self.continuous else self._journal.stop - self.start_step

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Steps of each lane, shape (n_lanes,); of runs in steps."""
        return self._journal.lengths

    @property
    def samples(self) -> NDArray[np.float64]:
        """Times at which states were sampled, in ms; of runs in continuous time."""
        with self._read.guard():
            return self._samples

    @property
    def checkpoints(self) -> NDArray[np.int64]:
        """Steps, counted from the first of the file, before which all states are on file."""
        with self._read.guard():
            if not self._read.has(self._ours, "checkpoints"):
                return np.zeros(0, np.int64)
            first = 0 if self.continuous else self.start_step
            steps = self._journal.array("evsim/checkpoints/step", "i") - first
            if (np.diff(steps, prepend=-1) <= 0).any() or steps.max(initial=0) > self.n_steps:
                raise self._read.fail("has checkpoints that do not increase, or lie outside its window")
            return steps

    @property
    def counters(self) -> dict[str, Any]:
        """Operation counts of what was recorded."""
        return self._journal.counters

    @cached_property
    def network(self) -> dict[str, Any]:
        """``Network.describe()``."""
        with self._read.guard():
            return self._read.json(self._ours, "network")

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """As made by `evsim.provenance.provenance`."""
        with self._read.guard():
            return self._read.json(self._ours, "provenance")

    @cached_property
    def parameters(self) -> dict[str, NDArray]:
        """Parameters by name."""
        with self._read.guard():
            group = self._read.group(self._ours, "parameters")
            return {name: self._read.array(group, name, "fiu") for name in group}

    def refresh(self) -> bool:
        """Look for what was written since the file was opened; whether there is more."""
        with self._read.guard():
            more = self._journal.refresh()
            self._check_steps()
            return more

    def close(self) -> None:
        """Close the file; what was read stays."""
        self._read.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- reading -------------------------------------------------------------------------------------------

    def summary(self) -> list[dict]:
        """A row per population, as `EventLog.summary`, from the counts of units: no events are read."""
        return [population.summary() for population in self.populations.values()]

    def window(self, start: float | None = None, stop: float | None = None) -> EventLog | ContinuousLog:
        """A stretch of the run in memory, from ``start`` to ``stop`` in ms (a step belongs to its beginning).

        Parameters and thresholds are those of the run.  Initial states are there if the window begins where
        the file does, or at a checkpoint, and counters if it is all of the file.
        """
        with self._read.guard():
            start, stop = self._clip(start, stop)
            if self.continuous:
                return self._window_of_times(start, stop)
            assert self.dt is not None
            steps = [min(max(step_at(t, self.dt) - self.start_step, 0), self.n_steps) for t in (start, stop)]
            return self.steps(steps[0], max(steps))

    def steps(self, first: int, last: int) -> EventLog:
        """Steps ``first`` to ``last`` (exclusive) of the file in memory, counted from its first one."""
        if self.continuous or not 0 <= first <= last <= self.n_steps:
            problem = f"steps {first} to {last} of {self.n_steps}"
            raise LogError(self._read.where, problem, "give steps that there are, of a run in steps")
        with self._read.guard():
            assert self.dt is not None
            whole = (first, last) == (0, self.n_steps)
            # Those of all of the file, also in a part: what has them cannot be replayed.
            marks = {name: n for name, n in self.counters.items() if name in ("edits", "gains")}
            return EventLog(
                {name: member.log_of_steps(first, last) for name, member in self.populations.items()},
                dt=self.dt,
                start_step=self.start_step + first,
                n_steps=last - first,
                n_lanes=self.n_lanes,
                lengths=np.clip(self.lengths - first, 0, last - first),
                counters=self.counters if whole else marks,
                network=self.network,
                parameters=self.parameters,
                provenance=self.provenance,
            )

    def windows(self, n_rows: int = ROWS) -> Iterator[EventLog | ContinuousLog]:
        """The run in memory, one window after the other, each of about so many events at most."""
        with self._read.guard():
            marks = self._marks(n_rows)
        return self._cut(marks)

    def _cut(self, marks: list[Any]) -> Iterator[EventLog | ContinuousLog]:
        """The windows between marks."""
        for start, stop in pairwise(marks):
            yield self._window_of_times(start, stop) if self.continuous else self.steps(start, stop)

    def to_neo(
        self,
        start: float | None = None,
        stop: float | None = None,
        populations: Iterable[str] | None = None,
    ) -> Any:
        """A `neo.Block` with a Segment for each lane, holding the spike trains of all units in a window."""
        return neo_block(self, start, stop, populations)

    def copy(self, path: str | Path, overwrite: bool = False, gradients: bool = True) -> Path:
        """Write what is on file to another one that is complete, window by window, and return its path.

        That is for files whose writer was killed, which SONATA's readers refuse.  Everything is kept: events,
        gradients, states, checkpoints.

        Parameters
        ----------
        path : str or Path
            The file appears there when it is whole, or not at all.
        overwrite : bool
            Whether an existing file may be replaced, even this one.
        gradients : bool
            Whether to keep the gradients of events.

        Raises
        ------
        LogError
            A part of this file is damaged, or the other one exists or cannot be written.
        """
        path, where = Path(path), f"log {str(path)!r}"
        check_target(path, where, overwrite, LogError)
        with self._read.guard():
            has_checkpoints = self._read.has(self._ours, "checkpoints")
            marks = self._marks(ROWS)
            if has_checkpoints:  # states are known where a window begins
                inner = {step for step in self.checkpoints.tolist() if 0 < step < self.n_steps}
                marks = [0, *sorted(inner.union(marks[1:-1])), self.n_steps]
            samples = self._samples if self.continuous else None
        hidden = hidden_name(path)
        try:
            kept = {"states": True, "checkpoints": has_checkpoints}
            with LogWriter.of_known(hidden, where, samples, **kept) as writer:
                for window in self._cut(marks):
                    window.counters = {}
                    if not gradients:
                        _forget_gradients(window)
                    writer.append(window)
                writer.conclude(self.counters, self._journal.stop, self._journal.duration)
            check_target(path, where, overwrite, LogError)
            os.replace(hidden, path)
        except OSError as error:
            raise LogError(where, f"cannot be written: {one_line(error)}", "give another place") from error
        finally:
            hidden.unlink(missing_ok=True)
        return path

    def _marks(self, n_rows: int) -> list[Any]:
        """Where to cut into windows, two at least: times, or steps counted from the first."""
        senders = [p for p in self.populations.values() if p.sends]
        width = sum(p.n_units for p in self.populations.values()) * self.n_lanes
        if not self.continuous:
            total = sum((p.row_ptr for p in senders), np.zeros(self.n_steps + 1, np.int64))
            # states of a step take memory too
            size = total + np.arange(self.n_steps + 1) * max(width // 8, 1)
            inner = np.searchsorted(size, _multiples(n_rows, size[-1]))
            return [0, *sorted({*inner.tolist()} - {0, self.n_steps}), self.n_steps]
        blocks = [(p.block_times, np.append(0, p.block_ends)) for p in senders]
        times = np.unique(np.concatenate([self._samples, *(when for when, _ in blocks)]))
        size = np.searchsorted(self._samples, times) * width
        for when, ends in blocks:
            size = size + ends[np.searchsorted(when, times)]
        inner = times[np.searchsorted(size, _multiples(n_rows, size[-1] if len(size) else 0))]
        return [self.start, *np.unique(inner[(inner > self.start) & (inner < self.stop)]).tolist(), self.stop]

    def _window_of_times(self, start: float, stop: float) -> ContinuousLog:
        with self._read.guard():
            samples, whole = self._samples, (start, stop) == (self.start, self.stop)
            # a sample at the end of a window is one at the start of the next, too
            taken = slice(int(np.searchsorted(samples, start)), int(np.searchsorted(samples, stop, "right")))
            duration = self._journal.duration if whole else duration_between(start, stop)
            span = start, start + duration
            return ContinuousLog(
                {name: p.log_of_times(stop, span, taken) for name, p in self.populations.items()},
                start=start,
                duration=duration,
                n_lanes=self.n_lanes,
                samples=samples[taken],
                counters=self.counters if whole else {},
                network=self.network,
                parameters=self.parameters,
                provenance=self.provenance,
            )

    def write_gradients(self, gradients: Mapping[str, Mapping[str, NDArray]]) -> None:
        """Write dL/d(payload), and dL/d(time), beside the events; `Gradients.mark` calls it.

        Parameters
        ----------
        gradients : mapping of population to mapping of "value" and "time" to array, shape (n_events,)

        Raises
        ------
        LogError
            The file is not complete, has gradients already, or cannot be written.
        """
        where = self._read.where
        if not self.complete:
            raise LogError(
                where, "is still being written, or its writer was killed", "wait, or repair it first"
            )
        columns, ends = {}, {}
        for name, found in gradients.items():
            population = self[name]
            for what, gradient in found.items():
                path = f"spikes/{name}/{COLUMNS[what]}"
                if COLUMNS[what] in population.columns:
                    remedy = "copy it without them: file.copy(path, gradients=False)"
                    raise LogError(where, f"'{name}' has a {COLUMNS[what]} already", remedy)
                if len(gradient) != population.n_events:
                    problem = f"'{name}' has {population.n_events} events, not {len(gradient)}"
                    raise LogError(where, problem, "mark the log that was replayed")
                columns[path], ends[path] = gradient, population.block_ends
        entry = self._journal.again()
        self.close()
        try:
            write_gradients(self.path, where, columns, ends, entry)
        finally:
            self._open()

    def check(self) -> list[str]:
        """Read everything, and say what is wrong: one line for each damage that was found."""
        return problems(self)

    # -- inside --------------------------------------------------------------------------------------------

    @property
    def _ours(self) -> h5py.Group:
        return self._read.at("evsim")

    @property
    def _samples(self) -> NDArray[np.float64]:
        """Times of samples, of runs in continuous time."""
        samples = self._journal.array("evsim/samples", "f")
        inside = (samples >= self.start) & (samples <= self.stop)
        if samples.dtype != np.float64 or not inside.all() or (np.diff(samples) <= 0).any():
            raise self._read.fail("has samples that do not increase, or lie outside its window")
        return samples

    def _clip(self, start: float | None, stop: float | None) -> tuple[float, float]:
        """A window that lies in that of the file."""
        given = (self.start if start is None else start, self.stop if stop is None else stop)
        first, last = (float(x) if isinstance(x, (int, float, np.number)) else math.nan for x in given)
        if not first <= last:
            raise LogError(
                self._read.where, f"window {start!r} to {stop!r}", "give times in ms, start <= stop"
            )
        first = min(max(first, self.start), self.stop)
        return first, min(max(last, first), self.stop)


def _forget_gradients(log: EventLog | ContinuousLog) -> None:
    for member in log.populations.values():
        member.gradient = None
        if isinstance(member, ContinuousPopulationLog):
            member.time_gradient = None


def _multiples(size: int, end: int) -> NDArray[np.int64]:
    """Multiples of a size, up to but not including an end."""
    return np.arange(size, int(end), size)


def _check_version(read: Reader) -> None:
    """Raise LogError unless this is a log of ours, of a version known here."""
    version = read.attribute(read.file, "evsim_log_version")
    if version is None:
        kind = "SONATA" if "magic" in read.file.attrs else "HDF5"
        raise read.fail(f"is {kind}, but not an event log of evsim", "give a file made by LogWriter or save")
    numbers = np.ravel(version).tolist()
    if numbers[:1] != [VERSION[0]]:
        found = ".".join(str(number) for number in numbers[:3])
        raise read.fail(f"has log version {found}, not {VERSION[0]}.x", "use the evsim that wrote it")


def _optional(read: Reader, parent: h5py.Group, name: str) -> h5py.Group | None:
    return read.group(parent, name) if read.has(parent, name) else None
