"""The events of one population in a file, read piece by piece between the requests of others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evsim.core import counting
from evsim.viewer.grid import Bands, Columns
from evsim.viewer.turns import Turns

if TYPE_CHECKING:
    from evsim.file_population import FilePopulation
    from evsim.log_file import LogFile

#: Rows read at once: some 10 ms, for which others wait.
PIECE = 2**20

#: Called between pieces; raises `Cancelled` when nobody wants the answer any more.
Check = Callable[[], None]


class Cancelled(Exception):
    """The page has dropped the request."""


def go_on() -> None:
    """The check of work that is always wanted."""


class Source:
    """A population, and the turns in which it may be read.

    Parameters
    ----------
    file : LogFile
    name : str
    turns : Turns
    ahead : bool
        Whether this is work ahead, which lets requests pass.
    """

    def __init__(self, file: LogFile, name: str, turns: Turns, ahead: bool = False):
        self.file, self.name, self.turns, self.ahead = file, name, turns, ahead
        self.population: FilePopulation = file[name]
        self.n_nodes = self.population.n_lanes * self.population.n_units

    def turn(self) -> AbstractContextManager[None]:
        """The right to read."""
        return self.turns.later() if self.ahead else self.turns.now()

    # -- rows --------------------------------------------------------------------------------------------

    def rows(self, start: float, stop: float) -> slice:
        """Rows of events with ``start <= time < stop`` ms."""
        with self.turn():
            return self.population.rows(start, stop)

    def rows_of(self, columns: Columns) -> slice:
        """Rows of events within columns of time."""
        if self.file.dt is None:
            return self.rows(columns.start, columns.stop)
        row_ptr = self.row_ptr
        ends = np.clip(columns.edges[[0, -1]], 0, len(row_ptr) - 1).astype(np.int64)
        return slice(int(row_ptr[ends[0]]), int(row_ptr[ends[1]]))

    def pieces(self, rows: slice, check: Check) -> Iterator[tuple[slice, NDArray]]:
        """Rows and nodes, `PIECE` rows at a time."""
        for begin in range(rows.start, rows.stop, PIECE):
            check()
            piece = slice(begin, min(begin + PIECE, rows.stop))
            with self.turn():
                nodes = self.population.nodes(piece)
            yield piece, nodes

    def column(self, name: str, rows: slice) -> NDArray:
        """Payloads, or gradients, of some rows."""
        with self.turn():
            return self.population.values(rows) if name == "value" else self.population.gradients(rows, name)

    def times(self, rows: slice, chosen: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Times in ms of some rows, or only of those ``chosen`` by number within them."""
        if self.file.dt is None:
            with self.turn():
                times = self.population.times(rows)
            return times if chosen is None else times[chosen]
        numbers = np.arange(rows.start, rows.stop) if chosen is None else chosen + rows.start
        steps = np.searchsorted(self.row_ptr, numbers, side="right") - 1
        return (self.file.start_step + steps) * np.float64(self.file.dt)

    @property
    def row_ptr(self) -> NDArray[np.int64]:
        """Where the rows of each step begin, and where those of the last end."""
        with self.turn():
            return self.population.row_ptr

    # -- counting ----------------------------------------------------------------------------------------

    def ends(self, columns: Columns, rows: slice, from_column: int) -> NDArray[np.int64]:
        """Rows at which columns end, for those from ``from_column`` on that begin before the last row.

        Counted from the first row.
        """
        edges = columns.edges[from_column + 1 :]
        if self.file.dt is None:
            with self.turn():
                times = self.population.times(rows)
            found = np.searchsorted(times, columns.origin + edges * columns.tick)
        else:
            row_ptr = self.row_ptr
            steps = np.clip(edges, 0, len(row_ptr) - 1).astype(np.int64)
            found = np.clip(row_ptr[steps] - rows.start, 0, rows.stop - rows.start)
        reached = int(np.searchsorted(found, rows.stop - rows.start)) + 1
        return np.ascontiguousarray(found[:reached], np.int64)

    def count(
        self, columns: Columns, bands: Bands, colour: str | None = None, check: Check = go_on
    ) -> tuple[NDArray[np.uint32], NDArray[np.float64] | None]:
        """Events of each cell, shape (columns, bands), and the sum of a column of the file over them."""
        counts = np.zeros((columns.count, bands.count), np.uint32)
        sums = None if colour is None else np.zeros(counts.shape)
        table, column = bands.table, 0
        for piece, nodes in self.pieces(self.rows_of(columns), check):
            ends = self.ends(columns, piece, column)
            reached = slice(column, column + len(ends))
            if sums is None:
                counting.count_cells(nodes, ends, bands.first, table, counts[reached])
            else:
                values = self.column(colour, piece)  # type: ignore[arg-type]
                counting.sum_cells(nodes, values, ends, bands.first, table, counts[reached], sums[reached])
            column = reached.stop - 1  # the next piece may go on with this column
        return counts, sums
