"""What a scientist wants to know first about a log on disk: sizes, rates, synchrony, regularity, work.

Rates come from the counts of units that a file keeps.  Synchrony and regularity need the events; of more than
`MOST_EVENTS` they are estimated from windows spread evenly over the run, and say so.

Synchrony is Golomb's chi (D. Golomb, Neuronal synchrony measures, Scholarpedia 2(1):1347, 2007)::

    chi^2 = Var_t[X(t)] / mean_i Var_t[x_i(t)],    X(t) = mean_i x_i(t)

of the units i of a lane: 1 if all do the same, of the order 1 / sqrt(units) if each does what it likes.  In
steps, x_i(t) is 1 if unit i sends in step t, else 0; in continuous time it counts its events in a bin.

Regularity is the coefficient of variation (standard deviation / mean) of the times from each event of a unit
to its next: 0 of a clock, 1 of a Poisson process; the mean over the units with at least `LEAST_INTERVALS`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evsim.core import counting
from evsim.density import nodes_of, pieces, row_bounds

#: Events read at most of each population, in so many windows.
MOST_EVENTS = 2**23
N_WINDOWS = 4
#: Intervals below which a unit has no regularity to speak of.
LEAST_INTERVALS = 5
#: Bins of time in ms in which units of runs in continuous time are held against each other.
BIN = 5.0


def describe(file: Any, bin_ms: float = BIN) -> dict[str, Any]:
    """All that ``evsim inspect`` shows of a `LogFile`, as plain numbers, words, lists and dicts.

    Parameters
    ----------
    file : LogFile
    bin_ms : float
        Bins of time for the synchrony of runs in continuous time.

    Returns
    -------
    dict
        ``duration_ms``, ``start_ms``, ``dt_ms``, ``lanes``, ``complete``, ``bytes`` on disk, ``counters``,
        ``provenance``, and ``populations``: for each what `describe_population` gives.

    Raises
    ------
    LogError
        What was read is damaged.
    """
    facts: dict[str, Any] = {
        "start_ms": file.start,
        "duration_ms": file.stop - file.start,
        "dt_ms": file.dt,
        "lanes": file.n_lanes,
        "complete": file.complete,
        "bytes": file.path.stat().st_size,
    }
    if file.dt is None:
        facts["samples"] = len(file.samples)
    rows = file.summary()
    described = [describe_population(file[row["population"]], row, bin_ms) for row in rows]
    return facts | {"populations": described, "counters": file.counters, "provenance": file.provenance}


def describe_population(population: Any, row: dict[str, Any], bin_ms: float = BIN) -> dict[str, Any]:
    """A row of a log's summary, and what else is known of that population.

    Returns
    -------
    dict
        The row with ``rate_min_hz`` and ``rate_max_hz`` of the units, ``silent`` (share of the units that
        sent nothing), ``synchrony`` and ``regularity`` (see the functions of that name), ``columns`` of the
        events and ``states`` (the name of the state that was recorded); None where there are none.
    """
    row = row | {"states": population.state_name, "columns": list(population.columns)}
    if not population.sends:
        names = ("rate_min_hz", "rate_max_hz", "silent", "synchrony", "regularity")
        return row | dict.fromkeys(names)
    return row | {
        "rate_min_hz": row["least_active"][0][1],
        "rate_max_hz": row["most_active"][0][1],
        "silent": row["silent_units"] / population.n_units,
        "synchrony": synchrony(population, bin_ms),
        "regularity": regularity(population),
    }


def synchrony(population: Any, bin_ms: float = BIN, most: int = MOST_EVENTS) -> dict[str, Any] | None:
    """Golomb's chi of each lane, and their mean.

    Parameters
    ----------
    population : FilePopulation or EventRows
    bin_ms : float
        Of runs in continuous time; in steps, a bin is a step.
    most : int
        Events read at most; of a single lane in steps none need be, and chi is that of all.

    Returns
    -------
    dict or None
        ``chi``, ``bin_ms``, ``bins``, ``events``, how many it is from, and ``whole``, whether these are all
        (but for a last bin that is cut short).  None if no unit of any lane varies, or there are fewer than
        two bins.
    """
    lengths = getattr(population, "lengths", None)
    whole = population.n_events <= most
    if population.dt is not None and population.n_lanes == 1:
        whole = True
        counts = np.diff(population.row_ptr).astype(np.float64)
        lane_squares, node_counts = np.array([counts @ counts]), population.unit_events.astype(np.float64)
        n_bins, found, node_squares = len(counts), population.n_events, node_counts.sum(axis=1)
        bins = np.array([float(n_bins)])
    else:
        sums = counting.Synchrony(population.n_lanes, population.n_units)
        for rows, ends in _bins(population, bin_ms, most):
            sums.add(nodes_of(population, rows), ends)
        n_bins, lane_squares = sums.n_bins, np.asarray(sums.lane_squares)
        node_counts = np.asarray(sums.node_counts).reshape(population.n_lanes, -1).astype(np.float64)
        node_squares, found = np.asarray(sums.node_squares), int(node_counts.sum())
        bins = np.full(population.n_lanes, float(n_bins))
    if population.dt is not None and lengths is not None and whole:
        bins = np.minimum(bins, np.asarray(lengths, np.float64))  # nothing happens after the end of a lane
    n_units = population.n_units
    with np.errstate(divide="ignore", invalid="ignore"):
        of_mean = (lane_squares / bins - (node_counts.sum(axis=1) / bins) ** 2) / n_units**2
        of_units = (node_squares / bins - ((node_counts / bins[:, None]) ** 2).sum(axis=1)) / n_units
        chi = np.sqrt(np.maximum(of_mean, 0.0) / of_units)
    known = chi[(of_units > 1e-12) & (bins > 1)]
    if not known.size:
        return None
    chi_of_all, width = float(known.mean()), bin_ms if population.dt is None else population.dt
    return {"chi": chi_of_all, "bin_ms": width, "bins": int(n_bins), "events": found, "whole": whole}


def regularity(population: Any, most: int = MOST_EVENTS) -> dict[str, Any] | None:
    """Mean coefficient of variation of the intervals between events, over units and lanes.

    Parameters
    ----------
    population : FilePopulation or EventRows
    most : int
        Events read at most.

    Returns
    -------
    dict or None
        ``cv``, ``units``: of how many (each lane's counted by itself), ``events``, how many it is from, and
        ``whole``, whether these are all.  None if there is no unit with `LEAST_INTERVALS` intervals.
    """
    sums = counting.Intervals(population.n_lanes * population.n_units)
    found = 0
    for window in windows(population, most):
        sums.forget()
        found += window.stop - window.start
        for rows in pieces(population, window):
            nodes = nodes_of(population, rows)
            if population.dt is None:
                sums.add(nodes, np.ascontiguousarray(population.times(rows)))
                continue
            ptr = population.row_ptr
            first, last = (int(k) for k in np.searchsorted(ptr, [rows.start, rows.stop], "right") - 1)
            ends = np.clip(ptr[first + 1 : last + 2], rows.start, rows.stop) - rows.start
            sums.add_steps(nodes, ends, first)
    enough = np.asarray(sums.counts) >= LEAST_INTERVALS
    if not enough.any():
        return None
    counts, total, squares = (np.asarray(a)[enough] for a in (sums.counts, sums.sums, sums.squares))
    mean = total / counts
    cv = np.sqrt(np.maximum(squares / counts - mean**2, 0.0)) / mean
    whole = population.n_events <= most
    return {"cv": float(cv.mean()), "units": int(enough.sum()), "events": found, "whole": whole}


def windows(population: Any, most: int = MOST_EVENTS) -> list[slice]:
    """All rows, or `N_WINDOWS` stretches of ``most`` rows together, spread evenly."""
    n = population.n_events
    if n <= most:
        return [slice(0, n)]
    starts = np.linspace(0, n - most // N_WINDOWS, N_WINDOWS).astype(np.int64)
    return [slice(int(start), int(start) + most // N_WINDOWS) for start in starts]


def _bins(population: Any, bin_ms: float, most: int) -> Iterator[tuple[slice, NDArray[np.int64]]]:
    """Pieces of rows in whole bins, with the ends of the bins in each."""
    for window in windows(population, most):
        whole = window == slice(0, population.n_events)
        if population.dt is not None:
            first, last = 0, population.n_steps
            if not whole:
                first = int(np.searchsorted(population.row_ptr, window.start, "left"))
                last = int(np.searchsorted(population.row_ptr, window.stop, "right")) - 1
            bounds = population.row_ptr[first : max(last, first) + 1]
        else:
            start, stop = population.start, population.stop
            if not whole:
                at = (window.start, window.stop - 1)
                start, stop = (float(population.times(slice(k, k + 1))[0]) for k in at)
            # The last bin would be cut short: it is left out.
            edges = start + bin_ms * np.arange(int((stop - start) / bin_ms * (1 + 1e-12)) + 1)
            bounds = row_bounds(population, edges)
        begin = 0
        for rows in pieces(population, slice(int(bounds[0]), int(bounds[-1]))):
            end = int(np.searchsorted(bounds[1:], rows.stop, "right"))
            yield rows, np.ascontiguousarray(bounds[1:][begin:end]) - rows.start
            begin = end
