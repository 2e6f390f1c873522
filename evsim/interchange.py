"""Events in the objects of other tools: NumPy structured arrays, pandas, Neo, pynapple and NWB; and back.

None of these tools is needed but for what one of them is asked for: ``pip install "evsim[analysis]"``.

Times are in ms here, in Neo and in pandas, and keep all their bits there.  pynapple and NWB count in seconds:
a time divided by 1000 and multiplied by 1000 again is within one unit in the last place of what it was.  Rows
of one train keep their order.  `EventTable` has these functions as its methods.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.errors import LogError, MissingExtraError

if TYPE_CHECKING:
    from evsim.event_table import EventTable

#: Columns of a table that go with each event beside its time and sender.
CARRIED = ("value", "gradient", "time_gradient")
#: What pynapple and NWB count time in.
MS_PER_S = 1e3


class _AnyLog(Protocol):
    """A log in memory or on disk."""

    @property
    def n_lanes(self) -> int: ...

    @property
    def names(self) -> list[str]: ...

    def __getitem__(self, name: str) -> Any: ...


# -- out -------------------------------------------------------------------------------------------------


def structured(table: EventTable) -> NDArray:
    """One record for each event, with the table's columns as fields."""
    columns = table.columns
    records = np.empty(len(table), [(name, column.dtype) for name, column in columns.items()])
    for name, column in columns.items():
        records[name] = column
    return records


def to_pandas(table: EventTable) -> Any:
    """A `pandas.DataFrame` with the table's columns; ``attrs`` holds what it is about."""
    pandas = _tool("pandas")
    frame = pandas.DataFrame(table.columns)
    frame.attrs.update(
        population=table.name,
        n_units=table.n_units,
        n_lanes=table.n_lanes,
        start_ms=table.start,
        stop_ms=table.stop,
    )
    return frame


def to_neo(table: EventTable) -> list[Any]:
    """A `neo.SpikeTrain` for each lane and unit, silent ones too, in order of lane and unit."""
    return list(_neo_trains(table))


def _neo_trains(table: EventTable) -> Iterator[Any]:
    neo = _tool("neo")
    for lane, unit, rows in _trains(table):
        yield neo.SpikeTrain(
            rows["time"],
            units="ms",
            t_start=table.start,
            t_stop=table.stop,
            name=f"{table.name}[{unit}]",
            array_annotations={name: rows[name] for name in CARRIED if name in rows},
            population=table.name,
            lane=lane,
            unit=unit,
        )


def neo_block(
    log: _AnyLog,
    start: float | None = None,
    stop: float | None = None,
    populations: Iterable[str] | None = None,
) -> Any:
    """A `neo.Block` of a log, or of a window of it: one Segment for each lane, with the trains of all units.

    Neo takes about half a millisecond for each train.

    Parameters
    ----------
    log : EventLog, ContinuousLog or LogFile
    start, stop : float, optional
        ms.
    populations : iterable of str, optional
        By default all that send events.
    """
    neo = _tool("neo")
    names = [name for name in log.names if _sends(log[name])] if populations is None else list(populations)
    block = neo.Block(name="evsim")
    segments = [neo.Segment(name=f"lane {lane}", index=lane, lane=lane) for lane in range(log.n_lanes)]
    for name in names:
        for train in _neo_trains(log[name].table(start, stop)):
            segments[train.annotations["lane"]].spiketrains.append(train)
    block.segments.extend(segments)
    return block


def _sends(population: Any) -> bool:
    """Whether a population of a log, in memory or on disk, sends events."""
    sends = getattr(population, "sends", None)
    return population.events is not None if sends is None else bool(sends)


def to_pynapple(table: EventTable) -> Any:
    """A `pynapple.TsGroup` with a `Tsd` of payloads for each lane and unit, silent ones too.

    Keys are ``lane * n_units + unit``; lane and unit are metadata; times are in seconds, as always there.
    """
    pynapple = _tool("pynapple")
    start, stop = table.start / MS_PER_S, table.stop / MS_PER_S
    if not start < stop:
        raise LogError(f"{table!r}", "pynapple has no empty windows", "give start < stop")
    window = pynapple.IntervalSet(start, stop)
    lanes, units, series = [], [], {}
    for lane, unit, rows in _trains(table):
        lanes.append(lane)
        units.append(unit)
        series[lane * table.n_units + unit] = pynapple.Tsd(
            t=rows["time"] / MS_PER_S, d=rows["value"], time_support=window
        )
    about = {"lane": np.array(lanes), "unit": np.array(units)}
    return pynapple.TsGroup(series, time_support=window, bypass_check=True, metadata=about)


def to_nwb(tables: Iterable[EventTable]) -> Any:
    """A `pynwb.misc.Units`, to become ``nwbfile.units``: a row for each population, lane and unit.

    Spike times are in seconds; the payloads (and gradients, if all tables have them) are ragged columns as
    the spike times are.
    """
    misc, common = _tool("pynwb.misc", "pynwb"), _tool("hdmf.common", "pynwb")
    members = list(tables)
    if not members:
        raise LogError("NWB units", "there are no tables", "give one at least")
    split = [_split(table) for table in members]
    ends = np.concatenate([[0], *(np.diff(ends) for _, _, _, ends in split)]).cumsum()[1:]
    senders = [len(lanes) for lanes, _, _, _ in split]

    def ragged(name: str, column: NDArray, description: str) -> list[Any]:
        data = common.VectorData(name=name, description=description, data=column)
        return [data, common.VectorIndex(name=f"{name}_index", data=ends, target=data)]

    def plain(name: str, column: Any, description: str) -> Any:
        return common.VectorData(name=name, description=description, data=column)

    times = np.concatenate(
        [table.time[order] for table, (_, _, order, _) in zip(members, split, strict=True)]
    )
    columns = ragged("spike_times", times / MS_PER_S, "time of each event in s")
    for name in CARRIED:
        if all(name in table.columns for table in members):
            values = [
                table.columns[name][order] for table, (_, _, order, _) in zip(members, split, strict=True)
            ]
            columns += ragged(f"event_{name}", np.concatenate(values), f"{name} of each event")
    populations = [table.name for table, count in zip(members, senders, strict=True) for _ in range(count)]
    columns += [
        plain("population", populations, "population the unit belongs to"),
        plain("lane", np.concatenate([lanes for lanes, _, _, _ in split]), "replica of the network"),
        plain("unit", np.concatenate([units for _, units, _, _ in split]), "number within its population"),
    ]
    return misc.Units(
        name="units",
        description="units of a network and their events, from evsim",
        columns=columns,
        colnames=[column.name for column in columns if not column.name.endswith("_index")],
        id=common.ElementIdentifiers(name="id", data=np.arange(sum(senders))),
    )


def _trains(table: EventTable) -> Iterator[tuple[int, int, dict[str, NDArray]]]:
    """(lane, unit, columns of its events) of every lane and unit in a table, silent ones too."""
    lanes, units, order, ends = _split(table)
    kept = {name: column[order] for name, column in table.columns.items() if name not in ("lane", "unit")}
    for k, (lane, unit) in enumerate(zip(lanes.tolist(), units.tolist(), strict=True)):
        rows = slice(ends[k], ends[k + 1])
        yield lane, unit, {name: column[rows] for name, column in kept.items()}


def _split(table: EventTable) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Lane and unit of each train, the order that puts its rows side by side, and where those end."""
    units = np.arange(table.n_units) if table.units is None else table.units
    lanes = np.arange(table.n_lanes) if table.lanes is None else table.lanes
    senders = (lanes[:, None] * np.int64(table.n_units) + units).ravel()
    # Rows of a sender stay in order of time.  Sorts of 16 bits take no comparisons.
    node = table.node
    small = table.n_units * table.n_lanes <= 2**16
    order = np.argsort(node.astype(np.uint16) if small else node, kind="stable")
    ends = np.searchsorted(node[order], senders, side="right")
    return np.repeat(lanes, len(units)), np.tile(units, len(lanes)), order, np.concatenate([[0], ends])


# -- in --------------------------------------------------------------------------------------------------


def from_pandas(frame: Any) -> dict[str, Any]:
    """Columns of a DataFrame ``time, unit[, lane, value, ...]``, and the sizes `to_pandas` left there."""
    if "time" not in frame or "unit" not in frame:
        raise LogError("data frame", f"has columns {list(frame.columns)}", "give time (ms) and unit at least")
    names = ("time", "unit", "lane", *CARRIED)
    found = {name: frame[name].to_numpy() for name in names if name in frame}
    known = {"population": "name", "start_ms": "start", "stop_ms": "stop"}
    sizes = {known.get(name, name): size for name, size in frame.attrs.items()}
    return found | {
        name: sizes[name] for name in ("name", "n_units", "n_lanes", "start", "stop") if name in sizes
    }


def from_neo(trains: Any) -> dict[str, Any]:
    """Columns of spike trains in any unit of time; the window goes from the first start to the last stop."""
    listed = list(trains)
    about = [_sender(train.annotations, k) for k, train in enumerate(listed)]
    times = [train.rescale("ms").magnitude for train in listed]
    payloads = [train.array_annotations for train in listed]
    window = {}
    if listed:
        window["start"] = min(float(train.t_start.rescale("ms").magnitude) for train in listed)
        window["stop"] = max(float(train.t_stop.rescale("ms").magnitude) for train in listed)
    return _joined(times, about, payloads) | window


def from_pynapple(group: Any) -> dict[str, Any]:
    """Columns of a `TsGroup` of `Ts` or `Tsd`; the window goes from end to end of its time support."""
    keys = list(group.keys())
    named = {name: np.asarray(group[name]) for name in ("lane", "unit") if name in group.metadata_columns}
    about = [_sender({name: column[k] for name, column in named.items()}, k) for k in range(len(keys))]
    series = [group[key] for key in keys]
    times = [np.asarray(one.t) * MS_PER_S for one in series]
    payloads = [{"value": np.asarray(one.d)} if hasattr(one, "d") else {} for one in series]
    support = np.asarray(group.time_support.values) * MS_PER_S
    window = {"start": float(support.min()), "stop": float(support.max())} if support.size else {}
    return _joined(times, about, payloads) | window


def _sender(about: Mapping[str, Any], place: int) -> tuple[int, int]:
    """(lane, unit) that a train names; one that names no unit is called by its place in the list."""
    lane, unit = about.get("lane"), about.get("unit")
    whole = (int, np.integer)
    return (int(lane) if isinstance(lane, whole) else 0, int(unit) if isinstance(unit, whole) else place)


def _joined(
    times: list[NDArray], about: list[tuple[int, int]], payloads: Sequence[Mapping[str, ArrayLike]]
) -> dict[str, Any]:
    """Columns of all trains one after the other; those that not all of them have are left out."""
    counts = [len(time) for time in times]
    lanes, units = (np.array([sender[k] for sender in about], np.int64) for k in (0, 1))
    found = {
        "time": np.concatenate([np.zeros(0), *times]),
        "lane": np.repeat(lanes, counts),
        "unit": np.repeat(units, counts),
        "n_lanes": int(lanes.max(initial=0)) + 1,
        "n_units": int(units.max(initial=-1)) + 1,
    }
    for name in CARRIED:
        if payloads and all(name in payload for payload in payloads):
            found[name] = np.concatenate([np.asarray(payload[name]) for payload in payloads])
    return found


def _tool(module: str, package: str = "") -> Any:
    """An optional dependency, imported."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = package or module
        raise MissingExtraError(
            name, f"cannot be imported ({error})", 'pip install "evsim[analysis]"'
        ) from error
