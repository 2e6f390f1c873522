"""Reads the journal of an event log, and the rows that it speaks of: see `evsim.log_format`."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from evsim.errors import LogError
from evsim.hdf5_reader import Reader
from evsim.log_format import BLOCK, JournalError, journal_entries

#: Bytes of a payload, at least.
SMALLEST_VALUE = 4
#: A column has no more chunks of fewer rows than this: a million of them take seconds to read.
TINY_CHUNK, MOST_TINY_CHUNKS = 1024, 1000


@dataclass(frozen=True, eq=False)
class Pieces:
    """Pieces of a data set, one behind the other.

    Attributes
    ----------
    ends : ndarray of int64, shape (n,)
        Row behind each.
    when : ndarray of float64, shape (n,)
        Of blocks of events: step, or time in ms, of the first; 0 otherwise.
    sums : ndarray of int64, shape (n, k)
        CRC-32 of each; of blocks of events those of times, nodes and values.
    """

    ends: NDArray[np.int64]
    when: NDArray[np.float64]
    sums: NDArray[np.int64]

    @property
    def n_rows(self) -> int:
        """Rows on file."""
        return int(self.ends[-1]) if len(self.ends) else 0


class Journal:
    """What is on file, as far as whole lines of the journal say so.

    Parameters
    ----------
    read : Reader
    continuous : bool
    first : float
        Step, or ms, at which the file begins.
    n_lanes : int

    Attributes
    ----------
    stop : int or float
        Step, or ms, that the run has come to.
    duration : float
        From the first ms to there, in continuous time.
    lengths : ndarray of int64, shape (n_lanes,)
        Steps of each lane, of runs in steps.
    counters : dict
    closed : bool
        Whether the last line says that no other will follow.
    """

    def __init__(self, read: Reader, continuous: bool, first: float, n_lanes: int):
        self._read, self._continuous, self._first = read, continuous, first
        self.stop: Any = first
        self.duration = 0.0
        read.check_memory(8 * n_lanes, f"{n_lanes} lanes")
        self.lengths = np.zeros(n_lanes if n_lanes <= read.size else 0, np.int64)
        self.counters: dict[str, Any] = {}
        self.closed = False
        self._bytes, self._n_entries = 0, 0
        self._lines: dict[str, list] = {}
        self._pieces: dict[str, Pieces] = {}
        self._blocks: dict[str, Pieces] = {}
        self._datasets: dict[str, tuple[int, h5py.Dataset]] = {}
        self._take_new()
        if not self._n_entries:
            raise read.fail("holds nothing yet: its journal has no whole line", "wait for what writes it")

    def refresh(self) -> bool:
        """Read the lines that are new; whether there were any."""
        return self._read.renew() and self._take_new()

    def _take_new(self) -> bool:
        """Read the lines that are on file and were not read before; whether there were any."""
        data = self._read.steadily(self._new_bytes)
        try:
            entries, n_bytes = journal_entries(data)
        except JournalError as error:
            raise self._read.fail(str(error)) from error
        self._bytes += n_bytes
        for entry in entries:
            self._take(entry)
        if entries:
            self._take_state(f"line {self._n_entries} of its journal", entries[-1])
        return bool(entries)

    def _new_bytes(self) -> bytes:
        data = self._read.growing(self._read.at("evsim"), "journal", "u")
        if data.nbytes > self._read.size:
            raise self._read.fail(f"its journal claims {data.nbytes} bytes, which the file does not hold")
        return data[self._bytes :].tobytes()

    def _take(self, entry: dict[str, Any]) -> None:
        what = f"line {self._n_entries + 1} of its journal"
        if entry.get("entry") != self._n_entries:
            raise self._read.fail(f"{what} is entry {entry.get('entry')!r}")
        stop = entry["stop_ms" if self._continuous else "stop_step"]
        good = isinstance(stop, (int, float) if self._continuous else int) and self.stop <= stop < 2**62
        pieces = entry["pieces"]
        if not (good and isinstance(pieces, dict)):
            raise self._read.fail(f"{what} does not follow on the one before")
        for path, found in pieces.items():
            if not isinstance(found, list):
                raise self._read.fail(f"{what} is damaged")
            self._lines.setdefault(path, []).extend(found)
            self._pieces.pop(path, None)
            self._blocks.pop(path, None)
        self.stop = stop
        self._n_entries += 1

    def _take_state(self, what: str, entry: dict[str, Any]) -> None:
        """What each line says of the whole run so far: the last one counts."""
        self.counters, self.closed = entry["counters"], entry["closed"] is True
        if not isinstance(self.counters, dict):
            raise self._read.fail(f"{what} does not follow on the one before")
        if not self._continuous:
            self._take_lengths(what, entry["lengths"], self.stop)
            return
        self.duration = entry["duration_ms"]
        if not isinstance(self.duration, float) or not 0 <= self.duration < 2**62:
            raise self._read.fail(f"{what} claims a duration of {self.duration!r} ms")

    def _take_lengths(self, what: str, lengths: Any, stop: int) -> None:
        steps = np.array(lengths)
        if steps.dtype.kind != "i" or steps.shape != self.lengths.shape:
            raise self._read.fail(f"{what} has no lengths of {len(self.lengths)} lanes")
        if steps.min() < 0 or steps.max() > stop - self._first:
            n_steps = stop - self._first
            raise self._read.fail(f"has lengths from {steps.min()} to {steps.max()} in {n_steps} steps")
        self.lengths = steps.astype(np.int64)

    def again(self) -> dict[str, Any]:
        """A line that says the same as the last one, without pieces."""
        entry: dict[str, Any] = {"entry": self._n_entries, "counters": self.counters, "closed": True}
        if self._continuous:
            return entry | {"stop_ms": self.stop, "duration_ms": self.duration}
        return entry | {"stop_step": self.stop, "lengths": self.lengths}

    # -- pieces --------------------------------------------------------------------------------------------

    def length(self, path: str) -> int:
        """Rows on file of a data set, 0 if there is none."""
        return self.pieces(path).n_rows

    def pieces(self, path: str, width: int = 1) -> Pieces:
        """The pieces of a data set, whose lines are its end and so many checksums."""
        if path not in self._pieces:
            lines = self._lines.get(path, [])
            try:
                table = np.array(lines, np.float64) if lines else np.zeros((0, 1 + width))
            except (TypeError, ValueError, OverflowError):
                table = np.zeros(0)
            if table.ndim != 2 or table.shape[1] < 2 or not (np.abs(table) < 2.0**62).all():
                raise self._read.fail(f"its journal is damaged where it speaks of /{path}")
            ends = table[:, 0].astype(np.int64)
            if len(ends) and (ends[0] < 1 or (np.diff(ends) < 1).any() or ends[-1] > 2**53):
                raise self._read.fail(f"the pieces of /{path} do not follow on one another")
            when = table[:, 1] if width > 1 else np.zeros(len(ends))
            self._pieces[path] = Pieces(ends, when, table[:, table.shape[1] - width :].astype(np.int64))
        return self._pieces[path]

    def blocks(self, path: str) -> Pieces:
        """Blocks of the events of a population, such as "spikes/hidden"."""
        if path in self._blocks:
            return self._blocks[path]
        blocks = self.pieces(path, 3)
        if blocks.sums.shape[1] != 3 or (np.diff(blocks.ends, prepend=0) > BLOCK).any():
            raise self._read.fail(f"blocks of /{path} do not fit")
        if (np.diff(blocks.when, prepend=self._first) < 0).any():
            raise self._read.fail(f"blocks of /{path} are not in order of time")
        self._check_size(SMALLEST_VALUE * blocks.n_rows, f"{blocks.n_rows} rows of /{path}/value")
        self._blocks[path] = blocks
        return blocks

    # -- rows ----------------------------------------------------------------------------------------------

    def array(self, path: str, kinds: str, shape: tuple[int, ...] = ()) -> NDArray:
        """All rows on file of a data set."""
        return self.rows(path, kinds, slice(0, self.length(path)), shape)

    def rows(self, path: str, kinds: str, rows: slice, shape: tuple[int, ...] = ()) -> NDArray:
        """Some rows of a data set, and none that are not what was written.

        Parameters
        ----------
        path : str
            Such as "spikes/hidden/gradient".
        kinds : str
            Of dtypes allowed, of ``f``, ``i``, ``u``.
        rows : slice
        shape : tuple of int
            Of a row.
        """
        pieces = self.pieces(path)
        with self._read.guard():
            return self._read.steadily(
                lambda: self._verified(path, kinds, rows, shape, pieces.ends, pieces.sums[:, 0])
            )

    def block_rows(self, path: str, name: str, kinds: str, rows: slice, which: int) -> NDArray:
        """Some rows of a column of events, ``which`` of timestamps, node_ids and value."""
        blocks = self.blocks(path)
        return self._read.steadily(
            lambda: self._verified(f"{path}/{name}", kinds, rows, (), blocks.ends, blocks.sums[:, which])
        )

    def _verified(
        self,
        path: str,
        kinds: str,
        rows: slice,
        shape: tuple[int, ...],
        ends: NDArray[np.int64],
        sums: NDArray[np.int64],
    ) -> NDArray:
        n_rows = int(ends[-1]) if len(ends) else 0
        if not 0 <= rows.start <= rows.stop <= n_rows:
            problem = f"rows {rows.start} to {rows.stop} of /{path}"
            raise LogError(self._read.where, problem, f"it has {n_rows} rows")
        dataset = self._dataset(path, kinds)
        if dataset.shape[1:] != shape or dataset.shape[0] < n_rows:
            raise self._read.fail(f"/{path} has shape {dataset.shape}, not {(n_rows, *shape)}")
        if rows.start == rows.stop:
            return np.zeros((0, *shape), dataset.dtype.newbyteorder("="))
        first = int(np.searchsorted(ends, rows.start, "right"))
        last = int(np.searchsorted(ends, rows.stop, "left"))
        start = int(ends[first - 1]) if first else 0
        width = math.prod(shape) * dataset.dtype.itemsize
        if not path.endswith(
            ("/timestamps", "/node_ids")
        ):  # what may be packed has as many rows as what is not
            self._check_size(n_rows * width, f"{n_rows} rows of /{path}")
        size = (int(ends[last]) - start) * width
        self._read.check_memory(size, f"{size} bytes for /{path}")
        data = dataset[start : int(ends[last])]
        at = 0
        for k in range(first, last + 1):
            end = int(ends[k]) - start
            if zlib.crc32(data[at:end].data) != sums[k]:
                raise self._read.fail(
                    f"rows {start + at} to {start + end} of /{path} do not match their checksum"
                )
            at = end
        return data[rows.start - start : rows.stop - start]

    def _check_size(self, n_bytes: int, what: str) -> None:
        """Raise unless the file holds so many bytes."""
        if n_bytes > self._read.size:
            raise self._read.fail(f"claims {what}, which the file does not hold")

    def _dataset(self, path: str, kinds: str) -> h5py.Dataset:
        """A data set that grows, as long as it is now."""
        n_shown, dataset = self._datasets.get(path, (0, None))
        if n_shown != self._read.n_shown:
            parent, _, name = path.rpartition("/")
            dataset = self._read.growing(self._read.at(parent), name, kinds)
            n_chunks = -(-dataset.shape[0] // dataset.chunks[0])
            if dataset.ndim == 1 and dataset.chunks[0] < TINY_CHUNK and n_chunks > MOST_TINY_CHUNKS:
                raise self._read.fail(f"/{path} is stored in chunks of {dataset.chunks[0]} rows")
            self._datasets[path] = self._read.n_shown, dataset
        return dataset
