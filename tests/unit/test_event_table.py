"""Events as plain columns: selections, where they come from, and what a network is given of them."""

import sys

import numpy as np
import pytest

from evsim.errors import LogError, MissingExtraError, StimulusError
from evsim.event_table import EventTable
from evsim.eventlog import PopulationLog
from evsim.events import Events
from oracles.continuous_logs import START, UNITS, make_events
from oracles.continuous_logs import make_log as make_continuous_log


def make_table(n_events=200, n_units=5, n_lanes=3, stop=50.0, seed=0):
    rng = np.random.default_rng(seed)
    return EventTable.from_columns(
        rng.uniform(0, stop, n_events),
        rng.integers(0, n_units, n_events),
        rng.integers(0, n_lanes, n_events),
        rng.normal(size=n_events).astype(np.float32),
        name="hidden",
        n_units=n_units,
        n_lanes=n_lanes,
        start=0.0,
        stop=stop,
    )


def rows(table):
    """(time, lane, unit, value) of every event."""
    columns = (table.time, table.lane, table.unit, table.value)
    return list(zip(*(column.tolist() for column in columns), strict=True))


# -- selections ------------------------------------------------------------------------------------------


def test_a_selection_remembers_whom_it_is_of():
    table = make_table()
    chosen = table.select(units=[0, 3], lanes=1)
    assert rows(chosen) == [row for row in rows(table) if row[1] == 1 and row[2] in (0, 3)]
    assert chosen.units.tolist() == [0, 3]
    assert chosen.lanes.tolist() == [1]
    again = chosen.select(units=slice(1, None))
    assert again.units.tolist() == [3]
    assert rows(again) == [row for row in rows(chosen) if row[2] == 3]
    assert table.select(lanes="all").lanes is None
    assert table.select(units=[]).units.tolist() == []


# -- windows of a log in memory --------------------------------------------------------------------------


def clocked(dt=0.1, start_step=30, n_steps=40, n_lanes=3, n_units=5):
    rng = np.random.default_rng(1)
    dense = rng.normal(size=(n_steps, n_lanes, n_units)) * (rng.random((n_steps, n_lanes, n_units)) < 0.3)
    return PopulationLog("hidden", "EGRU", n_units, dt, start_step, events=Events.from_dense(dense)), dense


@pytest.mark.parametrize("dt", [0.1, 1.0, 0.7])
def test_a_window_of_a_clocked_log(dt):
    log, dense = clocked(dt)
    step, lane, unit = np.nonzero(dense)
    whole = log.table()
    assert rows(whole) == list(
        zip((30 + step) * dt, lane, unit, dense[step, lane, unit].astype(np.float32), strict=True)
    )
    assert (whole.start, whole.stop) == (30 * dt, 70 * dt)
    for start, stop in ((35 * dt, 41 * dt), (35.5 * dt, 35.7 * dt), (0, 1e9), (36 * dt, 36 * dt)):
        assert rows(log.table(start, stop)) == [row for row in rows(whole) if start <= row[0] < stop]
    part = log.table(36 * dt, units=[2], lanes=[0, 2])
    assert rows(part) == [row for row in rows(whole) if row[0] >= 36 * dt and row[1] != 1 and row[2] == 2]
    assert part.value.dtype == np.float32
    assert part.lane.dtype == part.unit.dtype == np.int32


def test_a_window_of_a_log_in_continuous_time():
    log = make_continuous_log()["hidden"]
    assert rows(log.table()) == list(log.events)
    start, stop = START + 2.0, float(log.events.time[-1])
    assert rows(log.table(start, stop)) == [row for row in log.events if start <= row[0] < stop]
    assert rows(log.table(lanes=1)) == [row for row in log.events if row[1] == 1]


def test_gradients_go_with_their_events():
    log, _ = clocked()
    log.gradient = np.arange(log.n_events, dtype=np.float32)
    part = log.table(4.0, 5.0, units=[1, 2])
    whole = log.table()
    keep = (whole.time >= 4.0) & (whole.time < 5.0) & np.isin(whole.unit, [1, 2])
    np.testing.assert_array_equal(part.gradient, np.flatnonzero(keep))


def test_windows_that_there_are_not():
    log, _ = clocked()
    with pytest.raises(LogError, match=r"population 'hidden': there is no window from 5.0 to 4.0 ms"):
        log.table(5, 4)
    with pytest.raises(LogError, match="there is no window from nan"):
        log.table(float("nan"))
    with pytest.raises(LogError, match="a LeakyReadout sends no events"):
        make_continuous_log()["answer"].table()
    assert len(log.table(100.0)) == 0


# -- columns in any order --------------------------------------------------------------------------------


def test_columns_are_sorted_and_have_sizes():
    table = EventTable.from_columns([3.0, 1.0, 1.0, 1.0], [0, 2, 1, 4], [0, 1, 1, 0])
    assert rows(table) == [(1.0, 0, 4, 1.0), (1.0, 1, 1, 1.0), (1.0, 1, 2, 1.0), (3.0, 0, 0, 1.0)]
    assert (table.n_units, table.n_lanes, table.start) == (5, 2, 0.0)
    assert 3.0 < table.stop < 3.0 + 1e-9
    assert table.value.dtype == np.float64
    empty = EventTable.from_columns([], [])
    assert (len(empty), empty.n_units, empty.n_lanes, empty.stop) == (0, 1, 1, 0.0)


@pytest.mark.parametrize(
    ("columns", "sizes", "message"),
    [
        (([1.0, 2.0], [0]), {}, "units have shape"),
        (([1.0], [0.5]), {}, "units are of dtype float64; give integers"),
        (([1.0], [-1]), {}, "there is unit -1"),
        (([1.0], [3]), {"n_units": 3}, "there is unit 3 of 3"),
        (([float("nan")], [0]), {}, "event 0 has time nan"),
        (([1.0], [0]), {"stop": 1.0}, "times go from 1.0 to 1.0 ms, the window from 0.0 to 1.0 ms"),
        (([1.0], [0]), {"start": 2.0, "stop": 1.0}, "the window is from 2.0 to 1.0 ms"),
        ((["a"], [0]), {}, "times are not numbers"),
        (([1.0], [0], 0, [float("inf")]), {}, "event 0 has value inf"),
    ],
)
def test_columns_that_do_not_fit(columns, sizes, message):
    with pytest.raises(LogError, match=f"events 'events': {message}"):
        EventTable.from_columns(*columns, **sizes)


def test_a_structured_array():
    table = make_table()
    records = table.to_numpy()
    assert records.dtype.names == ("time", "lane", "unit", "value")
    assert records.tolist() == rows(table)
    for name, column in table.columns.items():
        assert records[name].dtype == column.dtype


# -- as input of a network -------------------------------------------------------------------------------


def test_events_in_continuous_time_come_back():
    events = make_events(0)
    table = EventTable("x", UNITS, 2, events.start, events.stop, *(getattr(events, c) for c in COLUMNS))
    assert table.to_timed_events().equal(events)
    moved = table.to_timed_events(start=0.0)
    assert moved.start == 0.0
    np.testing.assert_array_equal(moved.time, table.time - table.start)
    np.testing.assert_array_equal(moved.unit, table.unit)


COLUMNS = ("time", "lane", "unit", "value")


@pytest.mark.parametrize("dt", [0.1, 0.3, 1.0, 2.5])
def test_events_in_steps_come_back(dt):
    log, _ = clocked(dt)
    assert log.table().to_events(dt).equal(log.events)


def test_a_step_takes_all_events_of_its_time():
    table = EventTable.from_columns([0.1, 0.9, 1.0, 2.999], [1, 1, 1, 0], value=[1, 2, 4, 8], stop=3.0)
    assert list(table.to_events(1.0)) == [(0, 0, 1, 3.0), (1, 0, 1, 4.0), (2, 0, 0, 8.0)]
    with pytest.raises(StimulusError, match="dt = 0 ms"):
        table.to_events(0)


# -- tools that are not there ----------------------------------------------------------------------------


@pytest.mark.parametrize("tool", ["pandas", "neo", "pynapple", "pynwb"])
def test_a_tool_that_is_missing_is_named(tool, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == tool]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, tool, None)
    convert = getattr(make_table(), f"to_{tool}" if tool != "pynwb" else "to_nwb")
    with pytest.raises(
        MissingExtraError, match=rf'^{tool}: cannot be imported .*pip install "evsim\[analysis\]"'
    ):
        convert()
