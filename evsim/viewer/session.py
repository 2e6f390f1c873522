"""One log that a page looks at, and the answers to what it asks."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any, Self

import numpy as np

from evsim.errors import EvsimError
from evsim.log_file import LogFile
from evsim.viewer.box import statistics, table
from evsim.viewer.packing import Answer, packed, words
from evsim.viewer.pyramid import Ahead, Pyramid
from evsim.viewer.query import Query, QueryError
from evsim.viewer.source import Check, Source
from evsim.viewer.tiles import MOST_MARKS, MOST_ROWS, Cells, Window, tile
from evsim.viewer.traces import traces
from evsim.viewer.turns import Turns

#: Rows within reach of the pointer that are searched for the nearest event.
MOST_NEAR = 2**20
#: Cells of a tile over and up at most, and units whose states are shown at once.
MOST_CELLS, MOST_TRACES = 4096, 8

#: Nodes that are counted at once at most: 64 MB for each table of them.
MOST_NODES = 2**24

COLOURS = ("value", "gradient", "time_gradient")


class Session:
    """What a page may ask about one log.

    Parameters
    ----------
    path : str or Path
    population : str, optional
        The one to begin with; by default the one with most events.

    Attributes
    ----------
    answers : dict of str to callable
        By the last part of an address; each is given the query, and a check to be called now and then.

    Raises
    ------
    LogError
        The file cannot be read, holds no events, or has no such population.
    """

    def __init__(self, path: str | Path, population: str | None = None):
        self.path = Path(path)
        self.file = LogFile(self.path)
        sending = [name for name in self.file.names if self.file[name].sends]
        if population is None and sending:
            population = max(sending, key=lambda name: self.file[name].n_events)
        if population not in sending:
            has = f"those with events are {', '.join(sending)}" if sending else "no population sends any"
            raise EvsimError(f"log '{path}'", f"has no events of a population '{population}'", has)
        self.first = population
        self._turns, self._ahead = Turns(), Ahead()
        self._pyramids: dict[tuple[str, str | None], Pyramid] = {}
        self._making = Lock()
        self._identity = _identity(self.path)
        self._last_growth = time.monotonic()
        self.answers: dict[str, Callable[[Query, Check], Answer]] = {
            "info": self._info,
            "tile": self._tile,
            "nearest": self._nearest,
            "state": self._state,
            "statistics": self._statistics,
            "events.csv": self._table,
        }
        self._ahead.start()
        self._pyramid(Source(self.file, population, self._turns), None)  # while the browser starts

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop counting ahead, and let go of the file."""
        self._ahead.stop()
        self._ahead.join()
        with self._turns.now():
            self.file.close()

    # -- answers -----------------------------------------------------------------------------------------

    def _info(self, query: Query, check: Check) -> Answer:
        """What the page says about the file; looks for what was written since the last time."""
        query.finish()
        note = None
        with self._turns.now():
            file = self.file
            if not file.complete:
                try:
                    if file.refresh():
                        self._last_growth = time.monotonic()
                        self._ahead.file_has_grown()
                except (EvsimError, OSError) as error:
                    note = str(error)
            members = [self._member(name) for name in file.names]
        if _identity(self.path) != self._identity:
            there = (
                "another file has taken its place" if self.path.exists() else "it has been deleted or moved"
            )
            note = f"{there} since this page was opened; shown is what was read before"
        facts = {
            "file": self.path.name,
            "continuous": file.continuous,
            "dt": file.dt,
            "n_lanes": file.n_lanes,
            "start": file.start,
            "stop": file.stop,
            "lane_stops": self._lane_stops(),
            "complete": file.complete,
            "quiet_s": time.monotonic() - self._last_growth,
            "note": note,
            "population": self.first,
            "populations": members,
        }
        return words(facts)

    def _lane_stops(self) -> list[float] | None:
        """When each lane ends in ms, if not all end with the file."""
        file = self.file
        if file.dt is None or file.n_lanes > MOST_CELLS or (file.lengths == file.n_steps).all():
            return None
        return ((file.start_step + file.lengths) * file.dt).tolist()

    def _member(self, name: str) -> dict[str, Any]:
        population = self.file[name]
        return {
            "name": name,
            "kind": population.kind,
            "n_units": population.n_units,
            "n_events": population.n_events,
            "sends": population.sends,
            "colours": [colour for colour in COLOURS if colour in population.columns],
            "states": population.state_name is not None,
        }

    def _tile(self, query: Query, check: Check) -> Answer:
        """What a window of the raster shows."""
        source = self._source(query)
        colour = query.choice("colour", ("density", *COLOURS), "density")
        if colour != "density" and colour not in source.population.columns:
            raise QueryError(f"population '{source.name}'", f"has no {colour}", "choose another colour")
        start, stop = self._span(query)
        low, high, shown = self._nodes(query, source)
        window = Window(
            start,
            stop,
            low,
            high,
            shown,
            columns=query.whole("columns", 1, MOST_CELLS),
            rows=query.whole("rows", 1, MOST_CELLS),
            marks=query.whole("marks", 0, MOST_MARKS, str(MOST_MARKS)),
            colour=None if colour == "density" else colour,
            refine=query.choice("refine", ("0", "1"), "0") == "1",
        )
        query.finish()
        pyramid = self._pyramid(source, None)
        colours = self._pyramid(source, window.colour) if window.colour else None
        begin = time.perf_counter()
        waiting = [one.progress for one in (pyramid, colours) if one is not None and one.missing > 0]
        found = tile(source, window, pyramid, colours, check)
        facts: dict[str, Any] = {
            "took_ms": 1e3 * (time.perf_counter() - begin),
            "progress": min(waiting, default=None),
            "stop": self.file.stop,
        }
        if isinstance(found, Cells):
            columns, bands = found.columns, found.bands
            facts |= {
                "start": columns.start,
                "width": columns.width * columns.tick,
                "first": bands.first,
                "height": bands.height,
                "low": bands.low,
                "high": bands.high,
                "exact": found.exact,
                "coarse": found.coarse,
                "colour": "density" if found.means is None else colour,
            }
            means = {} if found.means is None else {"means": found.means}
            return packed(facts | {"kind": "cells"}, {"counts": found.counts} | means)
        return packed(
            facts | {"kind": "marks", "exact": True, "coarse": False, "colour": colour}, found.columns
        )

    def _nearest(self, query: Query, check: Check) -> Answer:
        """The event nearest to the pointer, if it is within reach and there are not too many."""
        source = self._source(query)
        when = query.number("time", -1e300, 1e300)
        node = query.number("node", -1, source.n_nodes)
        reach, nodes_reach = query.number("reach", 0, 1e300), query.number("nodes", 0, source.n_nodes)
        low, high, shown = self._nodes(query, source)
        query.finish()
        half = 0.5 * (self.file.dt or 0.0)  # steps are drawn in their middle
        first, last = self.file.start, self.file.stop
        start, stop = (min(max(when - half + side, first), last) for side in (-reach, reach))
        rows = source.rows(start, stop)
        if not 0 < rows.stop - rows.start <= MOST_NEAR:
            return words({"event": None})
        check()
        with source.turn():
            nodes = source.population.nodes(rows)
        away = np.abs(nodes + 0.5 - node)
        chosen = np.flatnonzero((away <= nodes_reach + 0.5) & (nodes >= max(low, shown[0])) & (nodes < high))
        if not len(chosen):
            return words({"event": None})
        times = source.times(rows, chosen)
        far = np.hypot((times + half - when) / max(reach, 1e-300), away[chosen] / max(nodes_reach, 1.0))
        best = int(np.argmin(far))
        row = rows.start + int(chosen[best])
        lane, unit = divmod(int(nodes[chosen[best]]), source.population.n_units)
        event: dict[str, Any] = {"time": times[best], "lane": lane, "unit": unit}
        for name in COLOURS:
            if name in source.population.columns:
                event[name] = source.column(name, slice(row, row + 1))[0]
        return words({"event": event})

    def _state(self, query: Query, check: Check) -> Answer:
        """Recorded states of some units of a lane."""
        name = query.choice("population", tuple(self.file.names))
        population = self.file[name]
        lane = query.whole("lane", 0, population.n_lanes - 1)
        units = query.wholes("unit", MOST_TRACES, population.n_units)
        start, stop = self._span(query)
        most = query.whole("points", 2, MOST_CELLS)
        query.finish()
        nodes = [lane * population.n_units + unit for unit in units]
        found = traces(self.file, self._turns, name, start, stop, nodes, most, check)
        if found is None:
            raise QueryError(f"population '{name}'", "has no recorded states", "choose another one")
        facts = {"state": found.state, "thinned": found.thinned, "lane": lane, "units": units}
        return packed(facts, {"times": found.times, "low": found.low, "high": found.high})

    def _statistics(self, query: Query, check: Check) -> Answer:
        """Numbers about a box."""
        source, box = self._box(query)
        if source.n_nodes > MOST_NODES:
            raise QueryError(
                f"population '{source.name}'", f"has {source.n_nodes} units", "save the box as CSV"
            )
        facts = statistics(source, *box, check)
        return words(facts)

    def _table(self, query: Query, check: Check) -> Answer:
        """The events of a box, to be kept."""
        source, box = self._box(query)
        name = f"{self.path.stem}-{source.name}.csv"
        safe = "".join(
            letter if letter.isascii() and (letter.isalnum() or letter in "-_.") else "_" for letter in name
        )
        return Answer("text/csv; charset=utf-8", table(source, *box, check), safe)

    # -- parts of queries --------------------------------------------------------------------------------

    def _source(self, query: Query) -> Source:
        name = query.choice("population", tuple(self.file.names))
        if not self.file[name].sends:
            raise QueryError(f"population '{name}'", "sends no events", "choose another one")
        return Source(self.file, name, self._turns)

    def _span(self, query: Query) -> tuple[float, float]:
        """A window of time within the file."""
        least, most = self.file.start, max(self.file.stop, self.file.start + 1e-9)
        start, stop = query.number("start", least, most), query.number("stop", least, most)
        if not start < stop:
            raise QueryError("request", f"'start' {start:g} is not before 'stop' {stop:g}", "turn them round")
        return start, stop

    def _nodes(self, query: Query, source: Source) -> tuple[int, int, tuple[int, int]]:
        """Nodes asked for, and those of the lanes that are shown."""
        n_units, n_lanes = source.population.n_units, source.population.n_lanes
        low, high = query.whole("low", 0, source.n_nodes), query.whole("high", 0, source.n_nodes)
        lane = query.whole("lane", -1, n_lanes - 1, "-1")
        shown = (0, source.n_nodes) if lane < 0 else (lane * n_units, (lane + 1) * n_units)
        low, high = max(low, shown[0]), min(high, shown[1])
        if not low < high:
            raise QueryError(
                "request", f"no unit lies between 'low' {low} and 'high' {high}", "turn them round"
            )
        if high - low > MOST_NODES:
            raise QueryError(
                "request", f"{high - low} units at once", f"choose a lane, or {MOST_NODES} units"
            )
        return low, high, shown

    def _box(self, query: Query) -> tuple[Source, tuple[float, float, int, int]]:
        source = self._source(query)
        start, stop = self._span(query)
        low, high, _ = self._nodes(query, source)
        query.finish()
        return source, (start, stop, low, high)

    def _pyramid(self, source: Source, colour: str | None) -> Pyramid | None:
        """The pyramid of a population that needs one, made when it is first asked for."""
        with source.turn():
            if source.population.n_events <= MOST_ROWS or source.n_nodes > MOST_NODES:
                return None
        key = source.name, colour
        with self._making:
            if key not in self._pyramids:
                ahead = Source(self.file, source.name, self._turns, ahead=True)
                self._pyramids[key] = Pyramid(ahead, colour)
                self._ahead.add(self._pyramids[key])
            return self._pyramids[key]


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file a path stands for; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
