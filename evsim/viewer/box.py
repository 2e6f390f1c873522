"""What there is to say about a box of the raster, and its events as a table."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evsim.core import counting
from evsim.errors import EvsimError
from evsim.viewer.source import Check, Source

#: Events that are handed over as a table at most.
MOST_LINES = 1_000_000


def statistics(
    source: Source, start: float, stop: float, low: int, high: int, check: Check
) -> dict[str, Any]:
    """Numbers about events with ``start <= time < stop`` of nodes ``low <= node < high``.

    Returns
    -------
    dict
        ``events``; ``nodes`` and how many of them are ``active``; ``duration_ms``; ``rate_hz``, of a node on
        average; ``alpha``, events per node and step, None in continuous time; for each column of values a
        dict of ``mean``, ``sd``, ``min`` and ``max``; ``interval_ms``, from an event of a node to its next,
        on average; ``cv``, the coefficient of variation of a node's intervals, averaged over the ``cv_nodes``
        that have at least two of them.  None for what is not defined.
    """
    columns = [name for name in ("value", "gradient", "time_gradient") if name in source.population.columns]
    moments = {name: _Moments() for name in columns}
    counts = np.zeros(source.n_nodes, np.int64)
    intervals = counting.Intervals(source.n_nodes)
    rows = source.rows(start, stop)
    for piece, nodes in source.pieces(rows, check):
        counting.count_nodes(nodes, counts)
        intervals.add(nodes, source.times(piece))
        inside = (nodes >= low) & (nodes < high)
        if inside.any():
            for name, found in moments.items():
                found.add(source.column(name, piece)[inside])
    counts = counts[low:high]
    n_events, extent, dt = int(counts.sum()), _extent(source, start, stop, low, high), source.file.dt
    spread = _intervals(intervals, low, high)
    return {
        "events": n_events,
        "nodes": len(counts),
        "active": int(np.count_nonzero(counts)),
        "duration_ms": stop - start,
        "rate_hz": 1e3 * n_events / extent if extent > 0 else None,
        "alpha": n_events * dt / extent if dt is not None and extent > 0 else None,
        **{name: found.result() for name, found in moments.items()},
        **spread,
    }


def _extent(source: Source, start: float, stop: float, low: int, high: int) -> float:
    """How long nodes were there, in ms summed over them: a lane may end before the file does."""
    file, n_units = source.file, source.population.n_units
    if file.dt is None:
        return (high - low) * (stop - start)
    first = np.arange(file.n_lanes) * n_units
    nodes = np.clip(np.minimum(first + n_units, high) - np.maximum(first, low), 0, None)
    ends = (file.start_step + file.lengths) * file.dt
    return float((nodes * np.clip(np.minimum(ends, stop) - start, 0, None)).sum())


class _Moments:
    """Mean, deviation and range of numbers that come in pieces."""

    def __init__(self) -> None:
        self.n, self.mean, self.squares, self.low, self.high = 0, 0.0, 0.0, np.inf, -np.inf

    def add(self, values: NDArray) -> None:
        values = values.astype(np.float64)
        n, mean = len(values), float(values.mean())
        # Chan's update: the sum of squares about the common mean.
        difference, total = mean - self.mean, self.n + n
        self.squares += float(((values - mean) ** 2).sum()) + difference**2 * self.n * n / total
        self.mean += difference * n / total
        self.n, self.low, self.high = total, min(self.low, values.min()), max(self.high, values.max())

    def result(self) -> dict[str, float] | None:
        if not self.n:
            return None
        deviation = float(np.sqrt(self.squares / self.n))
        return {"mean": self.mean, "sd": deviation, "min": float(self.low), "max": float(self.high)}


def _intervals(found: counting.Intervals, low: int, high: int) -> dict[str, Any]:
    counts = np.asarray(found.counts)[low:high]
    sums, squares = np.asarray(found.sums)[low:high], np.asarray(found.squares)[low:high]
    total = int(counts.sum())
    several = (counts >= 2) & (sums > 0)
    n, sums_of, squares_of = counts[several], sums[several], squares[several]
    mean = sums_of / n
    # Rounding may leave a little less than nothing of regular intervals.
    cv = np.sqrt(np.maximum(squares_of / n - mean**2, 0.0)) / mean
    return {
        "interval_ms": float(sums.sum()) / total if total else None,
        "cv": float(cv.mean()) if len(cv) else None,
        "cv_nodes": len(cv),
    }


def table(source: Source, start: float, stop: float, low: int, high: int, check: Check) -> bytes:
    """The events of a box as comma-separated lines, with a line of names.

    Raises
    ------
    EvsimError
        There are more than `MOST_LINES`.
    """
    columns = [name for name in ("value", "gradient", "time_gradient") if name in source.population.columns]
    n_units = source.population.n_units
    lines = [",".join(["time_ms", "lane", "unit", *columns])]
    for piece, nodes in source.pieces(source.rows(start, stop), check):
        chosen = np.flatnonzero((nodes >= low) & (nodes < high))
        if len(lines) + len(chosen) > MOST_LINES + 1:
            problem = f"holds more than {MOST_LINES:,} events"
            raise EvsimError("box", problem, "choose a smaller one, or read the file with evsim.LogFile")
        if not len(chosen):
            continue
        lanes, units = np.divmod(nodes[chosen].astype(np.int64), n_units)
        cells = [source.times(piece, chosen), lanes, units]
        cells += [source.column(name, piece)[chosen] for name in columns]
        # The shortest decimals that give the same number back, in each column's own precision.
        lines += map(",".join, zip(*(column.astype("U").tolist() for column in cells), strict=True))
    return ("\n".join(lines) + "\n").encode()
