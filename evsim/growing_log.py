"""An event log on disk that is open for appending: its description, all that grows in it, and the journal."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from evsim.continuous_log import ContinuousLog, ContinuousPopulationLog
from evsim.errors import LogError
from evsim.eventlog import EventLog, PopulationLog
from evsim.hdf5 import close_written, one_line, put, put_json, put_text, reserve
from evsim.log_columns import AnyLog, Column, Member, Reported, Spikes, numeric
from evsim.log_format import (
    BLOCK,
    MAGIC,
    VERSION,
    duration_between,
    journal_line,
)
from evsim.provenance import to_json

#: Rows, or seconds, after which what was appended is put on file.
FLUSH_ROWS = 4 * BLOCK
FLUSH_SECONDS = 1.0
#: Bytes set aside beyond what is to be written, for HDF5's own entries and for closing the file in order.
SPARE = 2**20
#: How far a sample may be from an equally spaced one, in parts of the spacing, to be in SONATA's layout.
SPACING = 1e-6


class GrowingLog:
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
        self.spikes: dict[str, Spikes] = {}
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
        self.reports: dict[str, Reported] = {}
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
                self.spikes[member.name] = Spikes(self.where, sent, log, member, self.whole)
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
        self.reports[member.name] = Reported(self.file, member.name, name, member.state, span, expected)

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
        return member.state_name is not None and (self.states or member.events is None)

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
