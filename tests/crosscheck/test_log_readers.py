"""Files of ours in readers of others, and events of ours in the objects of others, equal to the last event.

libsonata and bmtk open the files as they are.  Neo (with Elephant), pynapple, pandas and NWB get theirs from
`EventTable`.  Times are equal to the bit where they stay in ms, and within one unit in the last place where
they went through seconds.
"""

import datetime
import importlib

import h5py
import numpy as np
import pytest
from fuzz.logs import streamed
from hypothesis import given, settings
from hypothesis import strategies as st

import evsim
from evsim.event_table import EventTable
from evsim.eventlog import EventLog, PopulationLog
from evsim.events import Events
from evsim.examples import egru_example
from evsim.interchange import to_nwb
from evsim.log_file import LogFile
from oracles.continuous_logs import make_log as make_continuous_log


class Later:
    """A module imported when it is used: to collect these tests takes none of them, to run them all."""

    def __init__(self, name):
        self._name = name

    def __getattr__(self, name):
        return getattr(importlib.import_module(self._name), name)


bmtk_reports = Later("bmtk.utils.reports.compartment")
bmtk_trains = Later("bmtk.utils.reports.spike_trains")
bmtk_utils = Later("bmtk.utils.sonata.utils")
elephant = Later("elephant.statistics")
elephant_conversion = Later("elephant.conversion")
libsonata = Later("libsonata")
neo = Later("neo")
pandas = Later("pandas")
pynapple = Later("pynapple")
pynwb = Later("pynwb")
quantities = Later("quantities")

pytestmark = pytest.mark.peer

STEPS, LANES, UNITS, FIRST = 400, 3, 20, 70


def make_clocked_log(dt=1.0, activity=0.05):
    rng = np.random.default_rng(3)

    def sent(n_units):
        shape = (STEPS, LANES, n_units)
        return Events.from_dense(rng.normal(size=shape) * (rng.random(shape) < activity))

    cue = PopulationLog("cue", "EventSource", 4, dt, FIRST, events=sent(4))
    hidden = PopulationLog("hidden", "EGRU", UNITS, dt, FIRST, events=sent(UNITS))
    answer = PopulationLog("answer", "LeakyReadout", 2, dt, FIRST, tape_fields=("v",))
    answer.tape = rng.normal(size=(STEPS, LANES, 1, 2)).astype(np.float32)
    window = {"dt": dt, "start_step": FIRST, "n_steps": STEPS, "n_lanes": LANES}
    members = {"cue": cue, "hidden": hidden, "answer": answer}
    return EventLog(members, **window, lengths=np.full(LANES, STEPS))


LOGS = {
    "steps of 1 ms": make_clocked_log,
    "steps of 0.1 ms": lambda: make_clocked_log(0.1),
    "no events": lambda: make_clocked_log(activity=0),
    "continuous": lambda: make_continuous_log(n_events=500),
}


@pytest.fixture(params=LOGS)
def log(request):
    return LOGS[request.param]()


@pytest.fixture(params=["whole", "streamed", "repaired"])
def path(log, tmp_path, request):
    """A file written at once, in windows, or copied from what a killed writer has left."""
    path = tmp_path / "run.h5"
    if request.param == "whole":
        log.save(path)
    else:
        streamed(log, path, 3, killed=request.param == "repaired")
    if request.param == "repaired":
        with LogFile(path) as file:
            path = file.copy(tmp_path / "copy.h5")
    return str(path)


def stamps(log, name):
    """What SONATA's column of times holds: ms, or steps where these are not ms."""
    times = log[name].table().time
    return times if log.dt in (None, 1.0) else np.rint(times / log.dt)


# -- files -----------------------------------------------------------------------------------------------


def test_libsonata_reads_every_event(log, path):
    reader = libsonata.SpikeReader(path)
    assert sorted(reader.get_population_names()) == ["cue", "hidden"]
    for name in ("cue", "hidden"):
        population, table, times = reader[name], log[name].table(), stamps(log, name)
        read = population.get_dict()
        assert population.sorting == "by_time"
        assert population.time_units == ("ms" if log.dt in (None, 1.0) else "step")
        np.testing.assert_array_equal(read["timestamps"], times)
        np.testing.assert_array_equal(read["node_ids"], table.node)
        if not len(times):
            continue
        start, stop = np.quantile(times, [0.3, 0.6])
        wanted = np.unique(table.node[::7])
        part = population.get(node_ids=libsonata.Selection(wanted), tstart=start, tstop=stop)
        keep = np.isin(table.node, wanted) & (times >= start) & (times <= stop)  # its ends are closed
        assert sorted(part) == sorted(zip(table.node[keep].tolist(), times[keep].tolist(), strict=True))


def frames(log):
    """Times of states in ms: the first, the one behind the last, and the spacing."""
    return (13.0, 21.0, 2.0) if log.dt is None else (FIRST * log.dt, (FIRST + STEPS) * log.dt, log.dt)


def test_libsonata_reads_the_states(log, path):
    state = log["answer"].state
    population = libsonata.SomaReportReader(path)["answer"]
    assert population.time_units == "ms"
    assert population.get_node_ids() == list(range(state[0].size))
    np.testing.assert_array_equal(population.get().data, state.reshape(len(state), -1).astype(np.float32))
    assert population.times == pytest.approx(frames(log))


def test_bmtk_reads_every_event(log, path):
    with h5py.File(path, "r") as file:
        assert bmtk_utils.check_magic(file)
        assert bmtk_utils.get_version(file) == "0.1"
    trains = bmtk_trains.SpikeTrains.from_sonata(path)
    assert set(trains.populations) == {"cue", "hidden"}
    for name in ("cue", "hidden"):
        node, times = log[name].table().node, stamps(log, name)
        assert str(trains.sort_order(name)) == "SortOrder.by_time"
        assert trains.units(name) == ("ms" if log.dt in (None, 1.0) else "step")
        frame = trains.to_dataframe(populations=name)
        order = np.lexsort((frame["node_ids"], frame["timestamps"]))
        np.testing.assert_array_equal(frame["timestamps"].to_numpy()[order], times)
        np.testing.assert_array_equal(frame["node_ids"].to_numpy()[order], node)
        if len(node):
            np.testing.assert_array_equal(trains.get_times(node[0], name), times[node == node[0]])


def test_bmtk_reads_the_states(log, path):
    state = log["answer"].state
    report = bmtk_reports.CompartmentReport(path, mode="r")
    assert "answer" in report.populations
    found = report.tstart("answer"), report.tstop("answer"), report.dt("answer")
    assert found == pytest.approx(frames(log))
    np.testing.assert_array_equal(
        report.data(population="answer"), state.reshape(len(state), -1).astype("f4")
    )


# -- objects ---------------------------------------------------------------------------------------------


def trains_of(table):
    """(lane, unit) and rows of each train, silent ones too, the slow way."""
    for lane in range(table.n_lanes):
        for unit in range(table.n_units):
            yield lane, unit, (table.lane == lane) & (table.unit == unit)


def same_events(mine, theirs, ulps=0):
    """The same tables, with times up to a few units in the last place."""
    assert (mine.n_units, mine.n_lanes) == (theirs.n_units, theirs.n_lanes)
    assert mine.columns.keys() == theirs.columns.keys()
    for name, column in mine.columns.items():
        other = getattr(theirs, name)
        assert column.dtype == other.dtype
        if name == "time" and ulps:
            np.testing.assert_array_max_ulp(column, other, maxulp=ulps)
        else:
            np.testing.assert_array_equal(column, other)


def test_neo_holds_every_event(log):
    table = log["hidden"].table()
    trains = table.to_neo()
    assert len(trains) == table.n_units * table.n_lanes
    for train, (lane, unit, rows) in zip(trains, trains_of(table), strict=True):
        assert train.units == quantities.ms
        np.testing.assert_array_equal(train.magnitude, table.time[rows])
        np.testing.assert_array_equal(train.array_annotations["value"], table.value[rows])
        assert (train.t_start.item(), train.t_stop.item()) == (table.start, table.stop)
        assert train.annotations == {"population": "hidden", "lane": lane, "unit": unit}
    back = EventTable.from_neo(trains, name="hidden")
    same_events(table, back)
    assert (back.start, back.stop) == (table.start, table.stop)


def test_neo_holds_a_log(log):
    same_block(log, log.to_neo())


def test_neo_holds_a_log_on_disk(log, tmp_path):
    with LogFile(log.save(tmp_path / "run.h5")) as file:
        same_block(log, file.to_neo())


def same_block(log, block):
    assert len(block.segments) == log.n_lanes
    for lane, segment in enumerate(block.segments):
        assert len(segment.spiketrains) == sum(log[name].n_units for name in ("cue", "hidden"))
        for name in ("cue", "hidden"):
            trains = [train for train in segment.spiketrains if train.annotations["population"] == name]
            same_events(
                log[name].table().select(lanes=lane), EventTable.from_neo(trains, n_lanes=log.n_lanes)
            )


def test_neo_holds_a_part_of_a_log():
    log = make_clocked_log()
    block = log.to_neo(100.0, 200.0, populations=["hidden"])
    for lane, segment in enumerate(block.segments):
        part = log["hidden"].table(100.0, 200.0, lanes=lane)
        same_events(part, EventTable.from_neo(segment.spiketrains, n_lanes=LANES))
    few = log["hidden"].table(units=[7, 3], lanes=2).to_neo()
    assert [train.annotations["unit"] for train in few] == [3, 7]


@pytest.mark.filterwarnings("ignore:The 'copy' argument in Quantity is deprecated")
def test_elephant_agrees_about_rates_and_intervals():
    table = make_clocked_log()["hidden"].table()
    trains = table.to_neo()
    for train, (_, _, rows) in zip(trains, trains_of(table), strict=True):
        rate = elephant.mean_firing_rate(train).rescale("Hz").item()
        assert rate == pytest.approx(1e3 * rows.sum() / STEPS)
        intervals = np.diff(table.time[rows])
        cv = elephant.cv(elephant.isi(train))
        assert cv == pytest.approx(intervals.std() / intervals.mean())
    binned = elephant_conversion.BinnedSpikeTrain(trains, bin_size=20 * quantities.ms).to_array()
    counts = np.zeros((LANES * UNITS, STEPS // 20))
    np.add.at(counts, (table.node, (table.time - table.start).astype(int) // 20), 1)
    np.testing.assert_array_equal(binned, counts)


def test_pynapple_holds_every_event(log):
    table = log["hidden"].table()
    group = table.to_pynapple()
    assert list(group.keys()) == list(range(table.n_units * table.n_lanes))
    np.testing.assert_array_equal(group.time_support.values, [[table.start / 1e3, table.stop / 1e3]])
    for node, (lane, unit, rows) in enumerate(trains_of(table)):
        assert (group["lane"][node], group["unit"][node]) == (lane, unit)
        np.testing.assert_array_equal(group[node].t, table.time[rows] / 1e3)
        np.testing.assert_array_equal(group[node].d, table.value[rows])
        assert group["rate"][node] == pytest.approx(1e3 * rows.sum() / (table.stop - table.start))
    same_events(table, EventTable.from_pynapple(group), ulps=1)
    half = (table.start + table.stop) / 2e3
    first = group.restrict(pynapple.IntervalSet(table.start / 1e3, half))
    kept = sum(len(first[node]) for node in first)
    assert kept == (table.time / 1e3 <= half).sum()


def test_pandas_holds_every_event(log):
    table = log["hidden"].table()
    frame = table.to_pandas()
    assert list(frame.columns) == ["time", "lane", "unit", "value"]
    for name, column in table.columns.items():
        np.testing.assert_array_equal(frame[name], column)
    counts = frame.groupby(["lane", "unit"]).size()
    assert counts.to_dict() == {
        (lane, unit): rows.sum() for lane, unit, rows in trains_of(table) if rows.any()
    }
    back = EventTable.from_pandas(frame.sample(frac=1, random_state=0))
    same_events(table, back)
    assert (back.name, back.start, back.stop) == ("hidden", table.start, table.stop)


def test_nwb_holds_every_event(log, tmp_path):
    tables = [log[name].table() for name in ("cue", "hidden")]
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    file = pynwb.NWBFile("events of a network", "run", start)
    file.units = to_nwb(tables)
    with pynwb.NWBHDF5IO(tmp_path / "run.nwb", "w") as io:
        io.write(file)
    with pynwb.NWBHDF5IO(tmp_path / "run.nwb", "r") as io:
        units = io.read().units
        expected = [(table, *train) for table in tables for train in trains_of(table)]
        assert len(units) == len(expected)
        for k, (table, lane, unit, rows) in enumerate(expected):
            assert (units["population"][k], units["lane"][k], units["unit"][k]) == (table.name, lane, unit)
            np.testing.assert_array_equal(units["spike_times"][k], table.time[rows] / 1e3)
            np.testing.assert_array_equal(units["event_value"][k], table.value[rows])


def test_gradients_go_along():
    log = make_clocked_log()["hidden"]
    log.gradient = np.arange(log.n_events, dtype=np.float32)
    table = log.table()
    same_events(table, EventTable.from_neo(table.to_neo()))
    same_events(table, EventTable.from_pandas(table.to_pandas()))
    assert "event_gradient" in table.to_nwb().colnames


# -- any events ------------------------------------------------------------------------------------------

#: ms; below this, seconds would be subnormal and lose bits.
SMALLEST = 1e-200
TIMES = st.just(0.0) | st.floats(SMALLEST, 1e7)


@st.composite
def tables(draw):
    """Any few events, many at one time."""
    n_units, n_lanes = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    times = st.sampled_from(draw(st.lists(TIMES, min_size=1, max_size=3))) | TIMES
    senders = st.tuples(times, st.integers(0, n_units - 1), st.integers(0, n_lanes - 1))
    listed = draw(st.lists(senders, max_size=12))
    width = draw(st.sampled_from([32, 64]))
    values = st.floats(width=width, allow_nan=False, allow_infinity=False)
    value = np.array([draw(values) for _ in listed], f"f{width // 8}")
    columns = [list(column) for column in zip(*listed, strict=True)] or [[], [], []]
    stop = draw(st.none() | st.just(2e7))
    return EventTable.from_columns(*columns, value, n_units=n_units, n_lanes=n_lanes, stop=stop)


@settings(max_examples=60)
@given(tables())
def test_any_events_come_back(table):
    back = EventTable.from_pandas(table.to_pandas())
    same_events(table, back)
    assert (back.start, back.stop) == (table.start, table.stop)
    back = EventTable.from_neo(table.to_neo())
    same_events(table, back)
    assert (back.start, back.stop) == (table.start, table.stop)
    if table.start / 1e3 < table.stop / 1e3:
        sizes = {"n_units": table.n_units, "n_lanes": table.n_lanes}
        back = EventTable.from_pynapple(table.to_pynapple(), **sizes)
        order = np.lexsort((back.node, back.time))
        assert (order == np.arange(len(back))).all()
        for (_, _, mine), (_, _, theirs) in zip(trains_of(table), trains_of(back), strict=True):
            np.testing.assert_array_max_ulp(table.time[mine], back.time[theirs], maxulp=1)
            np.testing.assert_array_equal(table.value[mine], back.value[theirs])


# -- recorded trains as input ----------------------------------------------------------------------------


def test_recorded_trains_are_input():
    """Trains in seconds, without any annotation of ours."""
    rng = np.random.default_rng(0)
    network, _ = egru_example(n_units=8, n_inputs=3, n_steps=4)
    times = [np.sort(rng.uniform(10.0, 10.1, count)) for count in (5, 0, 9)]
    trains = [neo.SpikeTrain(t, units="s", t_start=10.0, t_stop=10.1) for t in times]
    table = EventTable.from_neo(trains)
    assert (table.n_units, table.n_lanes) == (3, 1)
    assert (table.start, table.stop) == (10000.0, pytest.approx(10100.0))
    for unit, t in enumerate(times):
        np.testing.assert_array_max_ulp(table.time[table.unit == unit], t * 1e3, maxulp=1)
    events = table.to_events(network.dt)
    log = evsim.Simulation(network).run(events)
    assert log.n_steps == 100
    group = pynapple.TsGroup({k: pynapple.Ts(t) for k, t in enumerate(times)})
    same_events(table, EventTable.from_pynapple(group, start=table.start, n_units=3), ulps=1)
    frame = pandas.DataFrame({"time": 1e3 * times[0], "unit": 0})
    np.testing.assert_array_equal(EventTable.from_pandas(frame).time, 1e3 * times[0])
