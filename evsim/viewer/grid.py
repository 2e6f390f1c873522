"""Cells over time and nodes that stay where they are while a window moves over them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Widths of columns in continuous time are these times a power of two: few, so that a slow zoom does not
#: flicker, and without rounding, so that edges meet.
MANTISSAS = (1.0, 1.25, 1.5, 1.75, 2.0)


@dataclass(frozen=True)
class Columns:
    """Columns of time of equal width; edges are whole multiples of it, counted from an origin.

    Attributes
    ----------
    origin : float
        In ms: the start of the file.
    tick : float
        In ms: a step, or 1 in continuous time.
    width : int or float
        Ticks of a column, whole steps where there are steps.
    first, count : int
        Columns ``first`` to ``first + count`` (exclusive).
    """

    origin: float
    tick: float
    width: float
    first: int
    count: int

    @classmethod
    def cover(
        cls, start: float, stop: float, most: int, origin: float, dt: float | None, width: float = 0
    ) -> Columns:
        """At most ``most`` columns (one more when they do not begin with the window) over ``start..stop`` ms.

        With ``width``, in ticks, columns are whole multiples of that, and up to twice as many.
        """
        tick = 1.0 if dt is None else dt
        ticks = (stop - start) / tick / most
        if width:
            chosen = width * max(math.floor(ticks / width + 1e-9), 1)
        else:
            chosen = dyadic(ticks) if dt is None else max(math.ceil(ticks - 1e-9), 1)
        # A window that begins on an edge, but for rounding, begins with the column there.
        first = math.floor((start - origin) / tick / chosen + 1e-9)
        last = math.ceil((stop - origin) / tick / chosen - 1e-9)
        return cls(origin, tick, chosen, first, max(last - first, 1))

    @property
    def edges(self) -> NDArray[np.float64]:
        """Edges in ticks from the origin, shape (count + 1,)."""
        return (self.first + np.arange(self.count + 1)) * np.float64(self.width)

    @property
    def start(self) -> float:
        """Left edge in ms."""
        return self.origin + self.first * self.width * self.tick

    @property
    def stop(self) -> float:
        """Right edge in ms."""
        return self.origin + (self.first + self.count) * self.width * self.tick

    def part(self, begin: int, end: int) -> Columns:
        """Columns ``begin`` to ``end`` of these."""
        return Columns(self.origin, self.tick, self.width, self.first + begin, end - begin)


@dataclass(frozen=True)
class Bands:
    """Rows of nodes of equal height; the last may be cut.

    Attributes
    ----------
    first : int
        Lowest node of the lowest row.
    height : int
        Nodes of a row.
    count : int
    low, high : int
        Only nodes ``low <= node < high`` are counted: the lanes that are shown.
    """

    first: int
    height: int
    count: int
    low: int
    high: int

    @classmethod
    def cover(cls, low: int, high: int, most: int, shown: tuple[int, int], height: int = 0) -> Bands:
        """At most ``most`` rows (one more when they do not begin with the window) over nodes ``low..high``.

        ``shown`` are the nodes of the lanes that are shown; rows are counted from its first.  With
        ``height``, rows are whole multiples of that, and up to twice as many.
        """
        origin, end = shown
        least = max(math.ceil((high - low) / most), 1)
        chosen = height * max(least // height, 1) if height else least
        first = origin + (low - origin) // chosen * chosen
        return cls(first, chosen, max(-(-(high - first) // chosen), 1), origin, end)

    @property
    def table(self) -> NDArray[np.int32]:
        """Row of each node from ``first`` on; -1 for those that are not counted."""
        nodes = self.first + np.arange(self.count * self.height)
        rows = np.repeat(np.arange(self.count, dtype=np.int32), self.height)
        rows[(nodes < self.low) | (nodes >= self.high)] = -1
        return rows


def dyadic(least: float) -> float:
    """The smallest of `MANTISSAS` times a power of two that is no smaller."""
    least = max(least, 2.0**-60)
    power = 2.0 ** math.floor(math.log2(least))
    return next(m * power for m in MANTISSAS if m * power >= least)
