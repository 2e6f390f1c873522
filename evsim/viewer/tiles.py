"""What a window of the raster shows: marks for few events, cells for many."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evsim.density import density
from evsim.viewer.grid import Bands, Columns
from evsim.viewer.pyramid import Level, Pyramid
from evsim.viewer.source import Check, Source

#: Events up to which each may be sent as a mark of its own.
MOST_MARKS = 20_000

#: Rows of the file up to which a request reads them all: what a person does not notice.
MOST_ROWS = 2_500_000


@dataclass(frozen=True)
class Window:
    """What is asked for.

    Attributes
    ----------
    start, stop : float
        In ms.
    low, high : int
        Nodes ``low <= node < high``.
    shown : (int, int)
        The nodes of the lanes that are shown.
    columns, rows : int
        Cells over and up, at most.
    marks : int
        Events that are not counted into cells, at most.
    colour : str or None
        Column of the file, such as ``"value"``, by whose mean cells are coloured.
    refine : bool
        Read as much of the file as it takes.
    """

    start: float
    stop: float
    low: int
    high: int
    shown: tuple[int, int]
    columns: int
    rows: int
    marks: int
    colour: str | None = None
    refine: bool = False


@dataclass(frozen=True, eq=False)
class Marks:
    """Events one by one, in order of time; ``columns`` as in `EventTable`, but with nodes."""

    columns: dict[str, NDArray]


@dataclass(frozen=True, eq=False)
class Cells:
    """Events counted into cells.

    Attributes
    ----------
    columns : Columns
    bands : Bands
    counts : ndarray of uint32, shape (columns, bands)
    means : ndarray of float32, likewise, or None
        Of the column of the file asked for; 0 where there are no events.
    exact : bool
        Whether counts are those of the file; else events are spread evenly over blocks of the file, or
        some are of units next to the lane that is shown.
    coarse : bool
        Whether cells are larger than asked for.
    """

    columns: Columns
    bands: Bands
    counts: NDArray[np.uint32]
    means: NDArray[np.float32] | None
    exact: bool = True
    coarse: bool = False


def tile(
    source: Source, window: Window, pyramid: Pyramid | None, colours: Pyramid | None, check: Check
) -> Marks | Cells:
    """What a window shows, from the rows themselves, a pyramid, or what blocks of the file say.

    Parameters
    ----------
    source : Source
    window : Window
    pyramid : Pyramid or None
        Of counts, as far as it has come.
    colours : Pyramid or None
        Of the sums of the column asked for, likewise.
    check : callable
        Raises when nobody wants the answer.
    """
    columns, bands = _grid(source, window)
    rows = source.rows_of(columns)
    n_rows = rows.stop - rows.start
    if n_rows <= MOST_ROWS or (window.refine and not _is_fine(columns, bands, window, pyramid, colours)):
        return _exact(source, rows, window, check)
    found = None
    for candidate in (colours, pyramid) if window.colour else (pyramid,):
        if found is None and candidate is not None:
            found = _from_level(source, window, candidate.level, check)
    return found or _from_blocks(source, window)


def _grid(source: Source, window: Window, level: Level | None = None) -> tuple[Columns, Bands]:
    file = source.file
    width, height = (0.0, 0) if level is None else (level.width, level.height)
    columns = Columns.cover(window.start, window.stop, window.columns, file.start, file.dt, width)
    return columns, Bands.cover(window.low, window.high, window.rows, window.shown, height)


def _is_fine(
    columns: Columns, bands: Bands, window: Window, pyramid: Pyramid | None, colours: Pyramid | None
) -> bool:
    """Whether a pyramid is whole and has cells as small as those asked for."""
    chosen = colours if window.colour else pyramid
    if chosen is None or chosen.missing > 0:
        return False
    level = chosen.level
    return columns.width >= level.width and bands.height >= level.height and level.fits(bands)


def _marks(source: Source, rows: slice, window: Window, chosen: NDArray[np.int64] | None = None) -> Marks:
    """Events of the rows that are in the window, all of them or those chosen by number."""
    with source.turn():
        nodes = source.population.nodes(rows)
    if chosen is None:
        low, high = max(window.low, window.shown[0]), min(window.high, window.shown[1])
        chosen = np.flatnonzero((nodes >= low) & (nodes < high))
    names = [name for name in ("value", "gradient", "time_gradient") if name in source.population.columns]
    if rows.stop - rows.start > 64 * MOST_MARKS:  # whole columns are read: only what is drawn
        names = [name for name in names if name == window.colour]
    columns: dict[str, NDArray] = {
        "time": source.times(rows, chosen),
        "node": nodes[chosen].astype(np.uint32),
    }
    columns |= {name: source.column(name, rows)[chosen].astype(np.float32) for name in names}
    return Marks(columns)


def _exact(source: Source, rows: slice, window: Window, check: Check) -> Marks | Cells:
    """Count rows; when there turn out to be few events among them, as marks."""
    columns, bands = _grid(source, window)
    low, high = max(window.low, window.shown[0]), min(window.high, window.shown[1])
    n_rows = rows.stop - rows.start
    if n_rows <= window.marks or (n_rows <= MOST_ROWS and high - low < source.n_nodes):
        with source.turn():
            nodes = source.population.nodes(rows)
        chosen = np.flatnonzero((nodes >= low) & (nodes < high))
        if len(chosen) <= window.marks:
            return _marks(source, rows, window, chosen)
    counts, sums = source.count(columns, bands, window.colour, check)
    return Cells(columns, bands, counts, _means(counts, sums))


def _from_level(source: Source, window: Window, level: Level, check: Check) -> Cells | None:
    """From a pyramid, and the rows behind its end; None when there are too many of those."""
    columns, bands = _grid(source, window, level)
    across = round(columns.width / level.width)
    counted = max(min(level.n_columns // across - columns.first, columns.count), 0)
    tail = columns.part(counted, columns.count)
    rows = source.rows_of(tail)
    if rows.stop - rows.start > MOST_ROWS or not counted:
        return None
    colour = window.colour if level.sums is not None else None
    counts, sums = level.cut(columns, bands)
    counts[counted:], last = source.count(tail, bands, colour, check)
    if sums is not None:
        sums[counted:] = last
    asked, asked_bands = _grid(source, window)
    coarse = columns.width > asked.width or bands.height > asked_bands.height
    return Cells(columns, bands, counts, _means(counts, sums), level.fits(bands), coarse)


def _from_blocks(source: Source, window: Window) -> Cells:
    """From the counts that each block of the file has for groups of nodes."""
    population = source.population
    columns, _ = _grid(source, window)
    bands = Bands.cover(window.low, window.high, window.rows, window.shown, population.group_size)
    high = min(bands.first + bands.count * bands.height, source.n_nodes)
    with source.turn():
        found = density(
            population,
            edges=columns.origin + columns.edges * columns.tick,
            nodes=(bands.first, high),
            row_of=bands.table[: high - bands.first],
            exact=False,
        )
    counts = np.zeros((columns.count, bands.count), np.uint32)  # a row that is not shown may be missing
    counts[:, : len(found.counts)] = found.counts.T
    return Cells(columns, bands, counts, None, exact=found.exact, coarse=True)


def _means(counts: NDArray[np.uint32], sums: NDArray[np.float64] | None) -> NDArray[np.float32] | None:
    return None if sums is None else (sums / np.maximum(counts, 1)).astype(np.float32)
