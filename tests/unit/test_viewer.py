"""What the viewer says about a log, held against counting event by event."""

import csv
import io
import json
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evsim.errors import EvsimError
from evsim.log_file import LogFile
from evsim.log_writer import LogWriter
from evsim.viewer import box as boxes
from evsim.viewer import pyramid as pyramids
from evsim.viewer import tiles
from evsim.viewer import traces as state_traces
from evsim.viewer.box import statistics, table
from evsim.viewer.grid import Bands, Columns, dyadic
from evsim.viewer.packing import packed, words
from evsim.viewer.pyramid import Pyramid, band_height
from evsim.viewer.query import Query, QueryError
from evsim.viewer.source import Cancelled, Source, go_on
from evsim.viewer.tiles import Cells, Marks, Window, tile
from evsim.viewer.traces import traces
from evsim.viewer.turns import Turns
from oracles import viewed_logs


@pytest.fixture(scope="module")
def clocked(tmp_path_factory):
    log = viewed_logs.clocked(start_step=7, dt=0.3, lengths=[400, 380, 60])
    return log.save(tmp_path_factory.mktemp("clocked") / "log.h5")


@pytest.fixture(scope="module")
def continuous(tmp_path_factory):
    return viewed_logs.continuous().save(tmp_path_factory.mktemp("continuous") / "log.h5")


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    """A log of several blocks of rows."""
    log = viewed_logs.clocked(n_events=200_000, n_lanes=4, n_units=120, n_steps=3000, dt=1.0)
    return log.save(tmp_path_factory.mktemp("blocks") / "log.h5")


@pytest.fixture(params=["clocked", "continuous"])
def source(request):
    with LogFile(request.getfixturevalue(request.param)) as file:
        yield Source(file, "hidden", Turns())


def window(source, start=0.0, stop=1e9, lane=None, low=0, high=10**9, columns=50, rows=20, marks=0, **more):
    file, n = source.file, source.population.n_units
    shown = (0, source.n_nodes) if lane is None else (lane * n, (lane + 1) * n)
    low, high = max(low, shown[0]), min(high, shown[1])
    start, stop = max(start, file.start), min(stop, file.stop)
    return Window(start, stop, low, high, shown, columns, rows, marks, **more)


def check_cells(found, source, colour=None):
    """Whether all counts, and means, are those of the events."""
    assert isinstance(found, Cells)
    assert found.exact
    counts, means = viewed_logs.counted(source.population.table(), found.columns, found.bands, colour)
    np.testing.assert_array_equal(found.counts, counts)
    if colour is not None:
        np.testing.assert_allclose(found.means, means, rtol=1e-5, atol=1e-9)


WINDOWS = [
    {},
    {"lane": 1},
    {"lane": 1, "low": 55, "high": 71},
    {"start": 20.0, "stop": 31.0},
    {"start": 30.1, "stop": 30.9, "low": 3, "high": 90},
    {"columns": 7, "rows": 3, "lane": 0},
    {"columns": 4000, "rows": 4000},
]


class TestGrid:
    @given(
        st.floats(0, 1e6), st.floats(1e-3, 1e6), st.integers(1, 2000), st.sampled_from([None, 0.1, 1.0]),
        st.sampled_from([0, 1, 8]),
    )  # fmt: skip
    def test_columns_cover_the_window(self, start, length, most, dt, width):
        columns = Columns.cover(start, start + length, most, 0.0, dt, width)
        slack = 1e-6 * columns.width * columns.tick + 1e-9 * start
        assert columns.start <= start + slack
        assert columns.stop >= start + length - slack
        assert columns.count <= (2 if width else 1) * most + 2
        assert columns.first >= 0
        if dt is not None:
            assert columns.width == int(columns.width) >= 1

    def test_columns_stay_when_the_window_moves(self):
        edges = [set(Columns.cover(x, x + 100, 30, 0.0, 1.0).edges) for x in range(20)]
        assert all(len(one & edges[0]) >= 20 for one in edges)

    @given(st.floats(1e-12, 1e12))
    def test_dyadic_widths_are_no_smaller_and_not_much_larger(self, least):
        assert least <= dyadic(least) <= 1.25 * least

    def test_bands_leave_out_other_lanes(self):
        bands = Bands.cover(105, 195, 40, (100, 200))
        assert (bands.first, bands.height, bands.count) == (103, 3, 31)
        assert bands.table.tolist()[:4] == [0, 0, 0, 1]
        assert Bands.cover(195, 200, 2, (100, 200)).table.tolist() == [0, 0, 0, 1, 1, 1, 2, -1, -1]

    @pytest.mark.parametrize(("n_units", "n_lanes"), [(1000, 8), (997, 8), (10, 5000), (5, 1), (100_000, 3)])
    def test_bands_of_a_pyramid_are_few(self, n_units, n_lanes):
        height = band_height(n_units, n_units * n_lanes)
        assert n_units * n_lanes / height <= pyramids.MOST_BANDS


class TestTiles:
    @pytest.mark.parametrize("asked", WINDOWS)
    def test_marks_are_the_events_of_the_window(self, source, asked):
        wanted = window(source, **asked, marks=10**6)
        found = tile(source, wanted, None, None, go_on)
        assert isinstance(found, Marks)
        events = source.population.table()
        columns, _ = tiles._grid(source, wanted)
        inside = (events.node >= wanted.low) & (events.node < wanted.high)
        inside &= (events.time >= columns.start - 1e-9) & (events.time < columns.stop - 1e-9)
        np.testing.assert_array_equal(found.columns["node"], events.node[inside])
        np.testing.assert_array_equal(found.columns["time"], events.time[inside])
        np.testing.assert_allclose(found.columns["value"], events.value[inside].astype(np.float32))

    @pytest.mark.parametrize("colour", [None, "value"])
    @pytest.mark.parametrize("asked", WINDOWS)
    def test_cells_are_counted_from_rows(self, source, asked, colour):
        check_cells(tile(source, window(source, colour=colour, **asked), None, None, go_on), source, colour)

    @pytest.mark.parametrize("piece", [1, 13, 100])
    def test_pieces_of_rows_do_not_show(self, source, monkeypatch, piece):
        monkeypatch.setattr("evsim.viewer.source.PIECE", piece)
        check_cells(tile(source, window(source, colour="value"), None, None, go_on), source, "value")

    def test_few_events_of_many_rows_are_marks(self, source):
        found = tile(source, window(source, low=3, high=4, marks=500), None, None, go_on)
        assert isinstance(found, Marks)
        assert set(found.columns["node"].tolist()) == {3}

    @pytest.mark.parametrize("colour", [None, "value"])
    @pytest.mark.parametrize("asked", WINDOWS)
    def test_cells_of_a_pyramid_are_those_of_the_rows(self, source, monkeypatch, asked, colour):
        monkeypatch.setattr(pyramids, "MOST_COLUMNS", 128)
        monkeypatch.setattr(pyramids, "MOST_BANDS", 30)
        monkeypatch.setattr(pyramids, "BATCH", 5)
        counts, sums = Pyramid(source), Pyramid(source, "value")
        for pyramid in (counts, sums):
            while pyramid.extend():
                pass
            assert pyramid.progress == 1.0
        monkeypatch.setattr(tiles, "MOST_ROWS", 200)
        wanted = window(source, colour=colour, **asked)
        check_cells(tile(source, wanted, counts, sums, go_on), source, colour)

    def test_a_pyramid_whose_bands_cross_lanes_says_so(self, tmp_path, monkeypatch):
        monkeypatch.setattr(pyramids, "MOST_BANDS", 21)
        monkeypatch.setattr(tiles, "MOST_ROWS", 200)
        path = viewed_logs.clocked(n_lanes=2, n_units=53).save(tmp_path / "log.h5")
        with LogFile(path) as file:
            source = Source(file, "hidden", Turns())
            pyramid = Pyramid(source)
            while pyramid.extend():
                pass
            check_cells(tile(source, window(source), pyramid, None, go_on), source)
            assert not tile(source, window(source, lane=0), pyramid, None, go_on).exact
            check_cells(tile(source, window(source, lane=0, refine=True), pyramid, None, go_on), source)

    def test_a_pyramid_that_is_not_whole_is_used_as_far_as_it_goes(self, source, monkeypatch):
        monkeypatch.setattr(tiles, "MOST_ROWS", 1500)
        monkeypatch.setattr(pyramids, "BATCH", 20)
        pyramid = Pyramid(source)
        while pyramid.progress < 0.6:
            pyramid.extend()
        found = tile(source, window(source), pyramid, None, go_on)
        check_cells(found, source)

    def test_colours_wait_for_their_pyramid(self, source, monkeypatch):
        monkeypatch.setattr(tiles, "MOST_ROWS", 200)
        pyramid = Pyramid(source)
        while pyramid.extend():
            pass
        found = tile(source, window(source, colour="value"), pyramid, Pyramid(source, "value"), go_on)
        assert found.means is None
        check_cells(found, source)

    def test_refinement_reads_all_rows(self, source, monkeypatch):
        monkeypatch.setattr(tiles, "MOST_ROWS", 200)
        found = tile(source, window(source, refine=True, colour="value", rows=1000), None, None, go_on)
        check_cells(found, source, "value")
        assert not found.coarse

    def test_work_that_nobody_wants_stops(self, source, monkeypatch):
        def nobody():
            raise Cancelled

        with pytest.raises(Cancelled):
            tile(source, window(source), None, None, nobody)

    def test_blocks_tell_where_events_are_about(self, blocks, monkeypatch):
        monkeypatch.setattr(tiles, "MOST_ROWS", 1000)
        with LogFile(blocks) as file:
            source = Source(file, "hidden", Turns())
            found = tile(source, window(source, columns=20, rows=8), None, None, go_on)
            assert not found.exact
            assert found.coarse
            true, _ = viewed_logs.counted(source.population.table(), found.columns, found.bands)
            assert found.counts.sum() == pytest.approx(true.sum(), rel=0.01)
            np.testing.assert_allclose(found.counts, true, rtol=0.25)
            one = tile(source, window(source, lane=2, columns=20, rows=8), None, None, go_on)
            assert one.counts.sum() == pytest.approx(true.sum() / 4, rel=0.05)


class TestGrowingFiles:
    def test_pyramids_follow_and_merge(self, tmp_path, monkeypatch):
        monkeypatch.setattr(pyramids, "MOST_COLUMNS", 16)
        logs = [
            viewed_logs.clocked(start_step=k, n_steps=50, seed=k, n_events=300) for k in (0, 50, 100, 150)
        ]
        with LogWriter(tmp_path / "log.h5") as writer:
            writer.append(logs[0])
            writer.flush()
            with LogFile(tmp_path / "log.h5") as file:
                source = Source(file, "hidden", Turns())
                counts, sums = Pyramid(source), Pyramid(source, "value")
                widths = []
                for log in [*logs[1:], None]:
                    while counts.extend() | sums.extend():
                        pass
                    widths.append(counts.level.width)
                    monkeypatch.setattr(tiles, "MOST_ROWS", 120)
                    wanted = window(source, columns=5, rows=10, colour="value")
                    check_cells(tile(source, wanted, counts, sums, go_on), source, "value")
                    if log is not None:
                        writer.append(log)
                        writer.flush()
                        assert file.refresh()
                assert widths == sorted(widths)
                assert widths[-1] >= 2 * widths[0]


class TestStatistics:
    @pytest.mark.parametrize("piece", [37, 2**20])
    @pytest.mark.parametrize("box", [(0.0, 1e9, 0, 80), (15.0, 40.0, 10, 30), (20.0, 20.1, 0, 80)])
    def test_numbers(self, source, monkeypatch, box, piece):
        monkeypatch.setattr("evsim.viewer.source.PIECE", piece)
        start, stop, low, high = max(box[0], source.file.start), min(box[1], source.file.stop), *box[2:]
        found = statistics(source, start, stop, low, high, go_on)
        events = source.population.table(start, stop)
        events = events.where((events.node >= low) & (events.node < high))
        assert found["events"] == len(events)
        assert found["active"] == len(np.unique(events.node))
        assert found["nodes"] == high - low
        for name in ("value", "gradient"):
            column = getattr(events, name)
            if column is not None and len(column):
                column = column.astype(np.float64)
                expected = {
                    "mean": column.mean(),
                    "sd": column.std(),
                    "min": column.min(),
                    "max": column.max(),
                }
                assert found[name] == pytest.approx(expected)
        intervals = {node: np.diff(events.time[events.node == node]) for node in np.unique(events.node)}
        joined = np.concatenate([np.zeros(0), *intervals.values()])
        assert found["interval_ms"] == (pytest.approx(joined.mean()) if len(joined) else None)
        cvs = [x.std() / x.mean() for x in intervals.values() if len(x) >= 2]
        assert found["cv_nodes"] == len(cvs)
        assert found["cv"] == (pytest.approx(np.mean(cvs), abs=1e-6) if cvs else None)

    def test_rates_know_that_lanes_end(self, clocked):
        with LogFile(clocked) as file:
            source = Source(file, "hidden", Turns())
            found = statistics(source, file.start, file.stop, 100, 150, go_on)  # lane 2: 60 of 400 steps
            assert found["alpha"] == pytest.approx(found["events"] / (50 * 60))
            assert found["rate_hz"] == pytest.approx(1000 * found["alpha"] / 0.3)

    def test_table_gives_the_same_numbers_back(self, source):
        start, stop = source.file.start + 3, source.file.start + 60
        lines = list(csv.DictReader(io.StringIO(table(source, start, stop, 5, 60, go_on).decode())))
        events = source.population.table(start, stop)
        events = events.where((events.node >= 5) & (events.node < 60))
        assert len(lines) == len(events)
        for name, column in {
            "time_ms": events.time,
            "lane": events.lane,
            "unit": events.unit,
            "value": events.value,
        }.items():
            read = np.array([line[name] for line in lines], column.dtype)
            np.testing.assert_array_equal(read, column)

    def test_tables_are_bounded(self, source, monkeypatch):
        monkeypatch.setattr(boxes, "MOST_LINES", 10)
        with pytest.raises(EvsimError, match="more than 10 events; choose a smaller one"):
            table(source, source.file.start, source.file.stop, 0, 80, go_on)


class TestTraces:
    def test_samples_as_they_are(self, clocked):
        with LogFile(clocked) as file:
            found = traces(file, Turns(), "answer", file.start, file.stop, [1, 4], 1000, go_on)
            times, name, states = file["answer"].state()
            assert (found.state, found.thinned) == (name, False)
            np.testing.assert_array_equal(found.times, times)
            np.testing.assert_array_equal(found.low, states.reshape(400, -1)[:, [1, 4]].T)
            np.testing.assert_array_equal(found.low, found.high)

    def test_many_samples_become_ranges(self, clocked):
        with LogFile(clocked) as file:
            found = traces(file, Turns(), "answer", file.start, file.stop, [2], 25, go_on)
            states = file["answer"].state()[2].reshape(400, -1)[:, 2].reshape(25, 16)
            np.testing.assert_array_equal(found.low[0], states.min(1))
            np.testing.assert_array_equal(found.high[0], states.max(1))

    def test_very_many_are_thinned(self, clocked, monkeypatch):
        monkeypatch.setattr(state_traces, "STRETCH", 60)
        monkeypatch.setattr(state_traces, "MOST_ELEMENTS", 600)
        with LogFile(clocked) as file:
            found = traces(file, Turns(), "answer", file.start, file.stop, [2], 50, go_on)
            assert found.thinned
            assert len(found.times) == 50
            states = file["answer"].state()[2].reshape(400, -1)[:, 2]
            assert found.low.min() >= states.min()
            assert found.high.max() == pytest.approx(states.max(), abs=0.1)

    def test_none_recorded(self, clocked):
        with LogFile(clocked) as file:
            assert traces(file, Turns(), "hidden", file.start, file.stop, [0], 10, go_on) is None


class TestParts:
    def test_arrays_survive_packing(self):
        arrays = {
            "a": np.arange(3, dtype=np.uint8),
            "b": np.arange(6.0).reshape(2, 3),
            "c": np.zeros(0, np.float32),
        }
        body = packed({"x": np.float64("nan"), "n": np.int64(3)}, arrays).body
        length = int.from_bytes(body[:4], "little")
        facts = json.loads(body[4 : 4 + length])
        assert (facts["x"], facts["n"]) == (None, 3)
        at = 4 + length
        for name, dtype, shape in facts["arrays"]:
            at += -at % 8
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            found = np.frombuffer(body[at : at + size], dtype).reshape(shape)
            np.testing.assert_array_equal(found, arrays[name])
            at += size
        assert at == len(body)

    def test_words_are_json_without_infinities(self):
        assert json.loads(words({"a": [float("inf"), (1, np.float32(2))]}).body) == {"a": [None, [1, 2.0]]}

    @pytest.mark.parametrize(
        "text", ["x=nan", "x=inf", "x=1e999", "x=", "x=one", "y=1", "x=1&x=2", "&", "x=" + "1" * 99]
    )
    def test_numbers_must_be_numbers(self, text):
        with pytest.raises(QueryError):
            Query(text).number("x", 0, 10)

    def test_numbers_are_put_into_their_range(self):
        assert Query("x=1e300").number("x", 0, 10) == 10
        assert Query("x=-5").whole("x", 0, 10) == 0
        with pytest.raises(QueryError, match="whole"):
            Query("x=1.5").whole("x", 0, 10)

    @pytest.mark.parametrize("text", ["u=1,2,x", "u=-1", "u=9", "u=1.0", "u=" + "1," * 9, "u=" + "9" * 50])
    def test_lists_are_checked(self, text):
        with pytest.raises(QueryError):
            Query(text).wholes("u", 8, 9)

    def test_unknown_parts_are_refused(self):
        with pytest.raises(QueryError, match="'z'"):
            Query("z=1").finish()

    def test_requests_go_before_work_ahead(self):
        turns, order = Turns(), []

        def take(kind, name):
            with kind():
                order.append(name)

        with turns.now():
            ahead = threading.Thread(target=take, args=(turns.later, "ahead"))
            ahead.start()
            time.sleep(0.05)
            request = threading.Thread(target=take, args=(turns.now, "request"))
            request.start()
            time.sleep(0.05)
        ahead.join()
        request.join()
        assert order == ["request", "ahead"]

    def test_turns_are_given_back_after_an_error(self):
        turns = Turns()
        with pytest.raises(ValueError, match="x"), turns.now():
            raise ValueError("x")
        with turns.later():
            pass
