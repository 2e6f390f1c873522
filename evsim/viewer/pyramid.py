"""A whole file counted once into fine cells, ahead of the requests that need it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from threading import Event, Thread

import numpy as np
from numpy.typing import NDArray

from evsim.viewer.grid import Bands, Columns, dyadic
from evsim.viewer.source import Cancelled, Check, Source, go_on

#: Columns at most, twice what a file has that does not grow, and bands at most: 64 MB of counts.
MOST_COLUMNS, MOST_BANDS = 8192, 2048

#: Columns counted at once.
BATCH = 64


@dataclass(frozen=True, eq=False)
class Level:
    """What has been counted, as one value that other threads can hold on to.

    Attributes
    ----------
    width : int or float
        Ticks of a column; columns are counted from the start of the file.
    height : int
        Nodes of a band.
    n_nodes : int
        Nodes of all bands.
    n_columns : int
        Columns that have been counted: the file had been written up to their end.
    counts : ndarray of uint32, shape (MOST_COLUMNS, n_bands)
    sums : ndarray of float32, likewise, or None
    """

    width: float
    height: int
    n_nodes: int
    n_columns: int
    counts: NDArray[np.uint32]
    sums: NDArray[np.float32] | None

    def cut(self, columns: Columns, bands: Bands) -> tuple[NDArray[np.uint32], NDArray[np.float64] | None]:
        """Counts and sums of cells made of whole cells of these; what has not been counted is 0."""
        across, up = round(columns.width / self.width), bands.height // self.height
        left, bottom = columns.first * across, bands.first // self.height
        window = slice(left, min(left + columns.count * across, self.n_columns))
        shown = slice(bottom, min(bottom + bands.count * up, -(-bands.high // self.height)))
        shape = columns.count, bands.count
        counts = _sum_blocks(self.counts[window, shown], across, up, shape)
        return counts, None if self.sums is None else _sum_blocks(self.sums[window, shown], across, up, shape)

    def fits(self, bands: Bands) -> bool:
        """Whether no cell holds nodes of lanes that are not shown."""
        edges = bands.low, bands.high
        return all(edge % self.height == 0 or edge == self.n_nodes for edge in edges)

    def merged(self) -> Level:
        """The same with columns of twice the width; an odd last one is to be counted again."""
        pairs = self.n_columns // 2

        def add(fine: NDArray) -> NDArray:
            coarse = np.zeros_like(fine)
            coarse[:pairs] = fine[0 : 2 * pairs : 2] + fine[1 : 2 * pairs : 2]
            return coarse

        sums = None if self.sums is None else add(self.sums)
        return Level(2 * self.width, self.height, self.n_nodes, pairs, add(self.counts), sums)


def _sum_blocks(fine: NDArray, across: int, up: int, shape: tuple[int, int]) -> NDArray:
    """Sums over blocks of ``across x up``; the last blocks may be cut, or missing and then 0."""
    found = np.zeros(shape, fine.dtype if fine.dtype.kind == "u" else np.float64)
    for axis, width in ((0, across), (1, up)):
        fine = np.moveaxis(fine, axis, 0)
        whole = len(fine) // width
        parts = [fine[: whole * width].reshape(whole, width, -1).sum(1, dtype=found.dtype)]
        if whole * width < len(fine):
            parts.append(fine[whole * width :].sum(0, keepdims=True, dtype=found.dtype))
        fine = np.moveaxis(np.concatenate(parts), 0, axis)
    found[: len(fine), : fine.shape[1]] = fine
    return found


class Pyramid:
    """Counts of events in cells over all of a file's time and nodes, and sums of one of its columns.

    It grows with the file: when there would be more than `MOST_COLUMNS` columns, pairs of them are merged.

    Parameters
    ----------
    source : Source
    colour : str, optional
        Column of the file to sum up beside the counts.

    Attributes
    ----------
    level : Level
        What has been counted so far.
    """

    def __init__(self, source: Source, colour: str | None = None):
        self.source, self.colour = source, colour
        file, n_nodes = source.file, source.n_nodes
        height = band_height(source.population.n_units, n_nodes)
        self.bands = Bands.cover(0, n_nodes, MOST_BANDS, (0, n_nodes), height)
        ticks = self._ticks() / (MOST_COLUMNS // 2)
        width: float = max(math.ceil(ticks), 1) if file.dt is not None else dyadic(ticks)
        shape = MOST_COLUMNS, self.bands.count
        sums = None if colour is None else np.zeros(shape, np.float32)
        # Memory is taken only as it is written to.
        self.level = Level(width, self.bands.height, n_nodes, 0, np.zeros(shape, np.uint32), sums)

    def _ticks(self) -> float:
        file = self.source.file
        return file.n_steps if file.dt is not None else file.stop - file.start

    @property
    def missing(self) -> int:
        """Columns that could be counted and have not been."""
        return math.floor(self._ticks() / self.level.width) - self.level.n_columns

    @property
    def progress(self) -> float:
        """Fraction of the file that has been counted."""
        done = self.level.n_columns
        return done / max(done + self.missing, 1) if self.missing > 0 else 1.0

    def extend(self, check: Check = go_on) -> bool:
        """Count the next `BATCH` columns; whether there were any."""
        level = self.level
        while level.n_columns + self.missing > MOST_COLUMNS:
            level = self.level = level.merged()
        batch = min(BATCH, self.missing)
        if batch <= 0:
            return False
        file = self.source.file
        tick = 1.0 if file.dt is None else file.dt
        columns = Columns(file.start, tick, level.width, level.n_columns, batch)
        counts, sums = self.source.count(columns, self.bands, self.colour, check)
        new = slice(level.n_columns, level.n_columns + batch)
        level.counts[new] = counts
        if level.sums is not None:
            level.sums[new] = sums
        self.level = replace(level, n_columns=new.stop)
        return True


def band_height(n_units: int, n_nodes: int) -> int:
    """Nodes of a band: few enough bands, and no band across two lanes where that can be."""
    least = max(math.ceil(n_nodes / MOST_BANDS), 1)
    if least > n_units:
        return math.ceil(least / n_units) * n_units
    return next((height for height in range(least, 2 * least) if n_units % height == 0), least)


class Ahead(Thread):
    """Counts pyramids in the background, first come first served, and goes on while the file grows."""

    def __init__(self) -> None:
        super().__init__(name="evsim view: counting", daemon=True)
        self.stopped, self._wake = Event(), Event()
        self._pyramids: list[Pyramid] = []

    def add(self, pyramid: Pyramid) -> None:
        """Count this one too."""
        self._pyramids.append(pyramid)
        self._wake.set()

    def file_has_grown(self) -> None:
        """Look again for columns to count."""
        self._wake.set()

    def stop(self) -> None:
        """End; a batch that has begun is dropped."""
        self.stopped.set()
        self._wake.set()

    def run(self) -> None:
        """Count until stopped."""
        while not self.stopped.is_set():
            self._wake.clear()
            for pyramid in list(self._pyramids):
                try:
                    while pyramid.extend(self._check):
                        pass
                except Cancelled:
                    return
                except Exception:
                    # Requests that read the same rows say what is wrong with them.
                    self._pyramids.remove(pyramid)
            self._wake.wait()

    def _check(self) -> None:
        if self.stopped.is_set():
            raise Cancelled
