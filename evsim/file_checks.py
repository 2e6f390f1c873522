"""Reads all of an event log on disk, and says what is wrong with it: see `LogFile.check`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evsim.errors import LogError, StimulusError
from evsim.file_population import FilePopulation, pieces_of
from evsim.log_format import n_groups
from evsim.timed_events import TimedEvents

if TYPE_CHECKING:
    from evsim.log_file import LogFile


def problems(file: LogFile) -> list[str]:
    """One line for each damage that was found; each part is read once, and little is held at a time."""
    found: list[str] = []

    def attempt(what: Callable[[], Any]) -> Any:
        try:
            with file._read.guard():
                return what()
        except LogError as error:
            found.append(error.problem)
            return None

    for name in ("network", "provenance", "parameters", "samples" if file.continuous else "lengths"):
        attempt(partial(getattr, file, name))
    checkpoints = attempt(lambda: file.checkpoints)
    for population in file.populations.values():
        for check in attempt(partial(list, _Checks(population))) or []:
            attempt(check)
        for step in [] if checkpoints is None else checkpoints.tolist():
            attempt(partial(population.states_before, step))
    return found


class _Checks:
    """Functions that raise LogError if a part of a population is damaged; together they read all of it."""

    def __init__(self, population: FilePopulation):
        self.of, self.read, self.file = population, population._read, population._file
        self.counts: NDArray[np.uint32] | None = None
        #: Events of each node: as the index says, and as those say that were read; None if not to be checked.
        self.claimed: NDArray[np.int64] | None = None
        self.tally: NDArray[np.int64] | None = None
        #: Blocks whose nodes could not be read.
        self.missing: list[int] = []
        #: Time and node of the last event of the block before, if that was read.
        self.last: tuple[float, int] | None = None

    def __iter__(self) -> Iterator[Callable[[], Any]]:
        of = self.of
        yield lambda: of.states_before(0)
        yield of._thresholds
        yield lambda: of.state_name
        if self.read.has(of._group, "carried"):
            yield lambda: of._carried(0)
        n_samples = len(self.file.samples) if self.file.continuous else self.file.n_steps
        yield lambda: self._lengths(n_samples)
        sampled = any(True for _ in self._samples(slice(0, 0)))  # else nothing bounds their number
        for rows in pieces_of(slice(0, n_samples if sampled else 0), max(2**22 // of.n_nodes, 1)):
            yield from self._samples(rows)
        if of._report is not None:
            yield self._report
        if of.sends:
            yield from self._events()

    # -- states --------------------------------------------------------------------------------------------

    def _lengths(self, n_samples: int) -> None:
        """Whether there is a row for each sample."""
        of = self.of
        places = {of._report: ("data", "data64"), of._group: ("state", "integral", "square")}
        for group, names in places.items():
            for name in names:
                if group is None or not self.read.has(group, name):
                    continue
                path = f"{group.name}/{name}".lstrip("/")
                if of._journal.length(path) != n_samples:
                    problem = f"{of._journal.length(path)} rows of /{path} for {n_samples} samples"
                    raise self.read.fail(f"has {problem}")

    def _samples(self, rows: slice) -> Iterator[Callable[[], Any]]:
        of = self.of
        if of._report is not None or self.read.has(of._group, "state"):
            yield lambda: self._states(rows)
        for what in ("integral", "square"):
            if self.read.has(of._group, what):
                yield partial(self._sampled, what, rows)

    def _sampled(self, what: str, rows: slice) -> None:
        self._check_bits(what, self.of._sampled(what, rows))

    def _check_bits(self, what: str, values: NDArray) -> None:
        if self.file.continuous and values.dtype != np.float64:
            raise self.read.fail(f"{what} of '{self.of.name}' is of dtype {values.dtype}, not float64")

    def _states(self, rows: slice) -> None:
        """All copies of some samples: SONATA's readers know only that in single precision."""
        of = self.of
        states = of._states(rows)
        self._check_bits("state", states)
        if of._report is None or states.dtype == np.float32:
            return
        single = of._journal.rows(f"report/{of.name}/data", "f", rows, (of.n_nodes,))
        with np.errstate(over="ignore"):
            rounded = states.reshape(single.shape).astype(np.float32)
        if not np.array_equal(single, rounded, equal_nan=True):
            problem = f"samples {rows.start} to {rows.stop} of '{of.name}'"
            raise self.read.fail(f"{problem}: /report/{of.name}/data is not data64 in single precision")

    def _report(self) -> None:
        """What else SONATA's readers look at."""
        of, read, n_nodes = self.of, self.read, self.of.n_nodes
        assert of._report is not None
        mapping = read.group(of._report, "mapping")
        for name in ("node_ids", "index_pointers", "index_pointer", "element_ids"):
            size = n_nodes + name.startswith("index")
            found = read.array(mapping, name, "u", (size,), summed=False)
            if not np.array_equal(found, np.zeros(size) if name == "element_ids" else np.arange(size)):
                raise read.fail(f"{mapping.name}/{name} does not list the nodes of '{of.name}' in order")
        first, stop, step = read.array(mapping, "time", "f", (3,), summed=False).tolist()
        if self.file.dt is not None:
            n, when, spacing = self.file.n_steps, self.file.start, self.file.dt
        else:
            n, when = len(self.file.samples), float(self.file.samples[0])
            spacing = (float(self.file.samples[-1]) - when) / max(n - 1, 1)
        near = np.isclose([first, step], [when, spacing], rtol=1e-4, atol=1e-9).all()
        if not near or (self.file.complete and not np.isclose(stop, first + n * step, rtol=1e-9)):
            raise read.fail(
                f"{mapping.name}/time has {[first, stop, step]}, not the times of its {n} samples"
            )

    # -- events --------------------------------------------------------------------------------------------

    def _events(self) -> Iterator[Callable[[], Any]]:
        of = self.of
        if self.file.dt is not None:
            yield lambda: of.row_ptr
        yield self._index
        if self.file.complete:
            yield self._claims
        ends = of.block_ends.tolist()
        for k, (start, end) in enumerate(zip([0, *ends][:-1], ends, strict=True)):
            yield partial(self._block, k, slice(start, end))
        yield self._tally

    def _index(self) -> None:
        self.counts = self.of.block_counts

    def _claims(self) -> None:
        self.claimed = self.of.unit_events.ravel()
        self.tally = np.zeros_like(self.claimed)

    def _tally(self) -> None:
        """Whether the units' counts are those of the events, as far as events could be read."""
        if self.claimed is None or self.tally is None:
            return
        rest = self.claimed - self.tally
        wrong = (rest.min() < 0 or self._is_odd(rest)) if self.missing else rest.any()
        if wrong:
            raise self.read.fail(f"index/unit_events of '{self.of.name}' are not the counts of its events")

    def _is_odd(self, rest: NDArray[np.int64]) -> bool:
        """Whether events that were not read, by node, are others than those by group of blocks not read."""
        if self.counts is None:
            return False
        starts = np.arange(0, self.of.n_nodes, self.of.group_size)
        expected = self.counts[self.missing].sum(axis=0, dtype=np.int64)
        return not np.array_equal(np.add.reduceat(rest, starts), expected)

    def _block(self, k: int, rows: slice) -> None:
        """Read a block in full, and hold it against what else is known of it."""
        of, where = self.of, f"rows {rows.start} to {rows.stop} of '{self.of.name}'"
        before, self.last = self.last, None
        self.missing.append(k)
        nodes = of.nodes(rows)
        self.missing.pop()
        if self.tally is not None:
            np.add.at(self.tally, nodes, 1)
        values = of.values(rows)
        for name in of.columns[4:]:
            of.gradients(rows, name)
        times = self._times(where, rows, nodes, values)
        if times[0] != of._journal.blocks(of._path).when[k]:
            raise self.read.fail(f"{where}: the journal has another time for the first of them")
        if before is not None and not before < (float(times[0]), int(nodes[0])):
            raise self.read.fail(f"{where}: the first of them does not come after the row before it")
        groups = np.bincount(nodes // nodes.dtype.type(of.group_size), minlength=n_groups(of.n_nodes))
        if self.counts is not None and not np.array_equal(groups, self.counts[k]):
            raise self.read.fail(f"{where}: index/counts does not fit")
        self.last = float(times[-1]), int(nodes[-1])

    def _times(self, where: str, rows: slice, nodes: NDArray, values: NDArray) -> NDArray:
        """Steps, or times in ms, of the rows of a block, whose order they are checked for."""
        of = self.of
        if self.file.dt is None:
            lane, unit = of._lanes_and_units(rows)
            window = self.file.start, self.file.stop
            times = of.times(rows)
            try:
                TimedEvents(of.n_units, of.n_lanes, *window, times, lane, unit, values).check()
            except StimulusError as error:
                raise self.read.fail(f"{where}: {error.problem}; {error.remedy}") from error
            return times
        ticks, steps = of._column("timestamps", rows, 0, "u"), of._steps_of(rows)
        if not np.array_equal(ticks, steps):
            raise self.read.fail(f"{where}: timestamps and index/row_ptr do not fit")
        ptr = np.concatenate([[0], np.flatnonzero(np.diff(steps)) + 1, [len(steps)]])
        of._check_rows(nodes, values, ptr, int(steps[0]) - self.file.start_step)
        return steps
