"""Pictures and tables of events: what is drawn where, not how it looks."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from evsim import raster as module
from evsim.errors import LogError
from evsim.event_table import EventTable
from evsim.eventlog import EventLog, PopulationLog
from evsim.events import Events
from evsim.log_file import LogFile
from evsim.raster import activity_trace, figure, raster, summary_row
from evsim.selection import Selection


def make_dense(n_steps=20, n_lanes=3, n_units=5, density=0.3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0.1, 1, (n_steps, n_lanes, n_units)) * (
        rng.random((n_steps, n_lanes, n_units)) < density
    )


@pytest.fixture
def dense():
    return make_dense()


@pytest.fixture
def events(dense):
    return Events.from_dense(dense)


def marks(ax):
    """Positions and colours of the marks, in the order (x, y)."""
    drawn = ax.collections[0]
    offsets = np.asarray(drawn.get_offsets())
    order = np.lexsort(offsets.T)
    values = drawn.get_array()
    return offsets[order], None if values is None else np.asarray(values)[order]


# -- marks -----------------------------------------------------------------------------------------------


def test_marks_lie_in_ms_and_units_and_show_the_payload(dense, events):
    positions, values = marks(raster(events, 0.5, start_step=100))
    unit, step = np.nonzero(dense[:, 0].T)
    # The middle of the step, as the axis runs from its beginning to its end.
    np.testing.assert_allclose(positions, np.column_stack([(100 + step + 0.5) * 0.5, unit]))
    np.testing.assert_allclose(values, dense[step, 0, unit], rtol=1e-6)


def test_axes_have_limits_units_and_names(events):
    ax = raster(events, 0.5, start_step=100)
    assert ax.get_xlim() == (50.0, 60.0)
    assert ax.get_ylim() == (-0.5, 4.5)
    assert ax.get_xlabel() == "time [ms]"
    assert ax.get_ylabel() == "unit"
    assert [other.get_ylabel() for other in ax.figure.axes] == ["unit", "payload"]


def test_lanes_are_stacked_in_the_order_given(dense, events):
    ax = raster(events, 1.0, lanes=[2, 0])
    positions, _ = marks(ax)
    lane, unit, step = np.nonzero(dense[:, [2, 0]].transpose(1, 2, 0))
    np.testing.assert_allclose(positions, np.column_stack([step + 0.5, lane * 5 + unit]))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["2", "0"]
    assert ax.get_ylabel() == "lane (5 units each)"
    assert ax.get_ylim() == (-0.5, 9.5)
    assert len(marks(raster(events, 1.0, lanes="all"))[0]) == len(events)


def test_units_can_be_chosen(dense, events):
    ax = raster(events, 1.0, units=[3, 1])
    positions, _ = marks(ax)
    row, step = np.nonzero(dense[:, 0][:, [3, 1]].T)
    np.testing.assert_allclose(positions, np.column_stack([step + 0.5, row]))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["3", "1"]
    # Consecutive units keep their numbers.
    ax = raster(events, 1.0, units=slice(2, 4))
    assert ax.get_ylim() == (1.5, 3.5)
    assert set(marks(ax)[0][:, 1]) == {2.0, 3.0}


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"lanes": 3}, r"there is no lane 3; give different lanes in 0\.\.2"),
        ({"lanes": -1}, "there is no lane -1"),
        ({"lanes": []}, "lanes are"),
        ({"lanes": 0.5}, r"lanes are 0\.5"),
        ({"lanes": "some"}, "lanes are 'some'"),
        ({"units": [1, 1]}, r"units \[1, 1\] repeat"),
        ({"units": [1, 5]}, "there is no unit 5"),
        ({"units": [[1], [2, 3]]}, "units are"),
        ({"units": slice(3, 3)}, "units are"),
    ],
)
def test_what_does_not_exist_cannot_be_shown(events, options, match):
    with pytest.raises(LogError, match=match):
        raster(events, 1.0, **options)


def test_colours_say_nothing_when_payloads_are_alike(events):
    tokens = Events.from_tokens(np.array([[0], [2], [1]]), 3)
    for ax in (raster(tokens, 1.0), raster(events, 1.0, colour=None), raster(events, 1.0, colour="#ff0000")):
        assert marks(ax)[1] is None
        assert len(ax.figure.axes) == 1
    assert ax.collections[0].get_facecolor().tolist() == [[1, 0, 0, 1]]


def test_payloads_of_both_signs_have_colours_around_zero():
    dense = np.zeros((4, 1, 3))
    dense[0, 0, 0], dense[1, 0, 1] = -0.5, 2.0
    drawn = raster(Events.from_dense(dense), 1.0).collections[0]
    assert drawn.get_clim() == (-2.0, 2.0)


def test_one_far_payload_does_not_take_all_the_colours():
    dense = np.random.default_rng(0).uniform(0.4, 0.6, (100, 1, 10))
    dense[50, 0, 5] = 1000.0
    drawn = raster(Events.from_dense(dense), 1.0).collections[0]
    assert drawn.get_clim()[1] < 0.61


def test_a_bar_may_be_left_out_or_put_elsewhere(events):
    ax = raster(events, 1.0, colour_bar=False)
    assert len(ax.figure.axes) == 1
    place = ax.figure.add_subplot()
    raster(events, 1.0, ax=ax, colour_bar=place)
    assert place.get_ylabel() == "payload"


def test_axes_given_are_axes_drawn_on(events):
    from matplotlib.figure import Figure

    ax = Figure().add_subplot()
    assert raster(events, 1.0, ax=ax) is ax
    other = Figure().add_subplot()
    assert activity_trace(events, 1.0, ax=other) is other


@pytest.mark.parametrize("shape", [(0, 1, 3), (4, 2, 3), (1, 1, 1)])
def test_nothing_to_draw_is_drawn(shape, tmp_path):
    empty = Events.empty(shape[2], shape[1], shape[0])
    raster(empty, 1.0).figure.savefig(tmp_path / "raster.png")
    figure({"a": empty}, 1.0, lanes="all").savefig(tmp_path / "figure.png")


# -- density ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [(7, 4), (20, 15), (3, 100), (1, 1)])
def test_density_is_the_fraction_of_each_cell(dense, events, most):
    cells = Selection(events, "all", dt=1.0).cells(most)
    percent, per_step, per_row = cells.active, cells.steps[0], cells.nodes[0]
    rows = dense.transpose(1, 2, 0).reshape(15, 20) != 0
    assert percent.shape[0] <= most[1]
    assert percent.shape[1] <= most[0]
    for i, j in np.ndindex(*percent.shape):
        cell = rows[i * per_row : (i + 1) * per_row, j * per_step : (j + 1) * per_step]
        assert percent[i, j] == pytest.approx(100 * cell.mean())


def test_many_events_become_a_density(events, monkeypatch):
    monkeypatch.setattr(module, "MOST_MARKS", 10)
    ax = raster(events, 0.5, start_step=4)
    (image,) = ax.images
    cells = Selection(events, dt=0.5).cells(module.MOST_CELLS)
    assert set(cells.steps) == set(cells.nodes) == {1}
    np.testing.assert_allclose(image.get_array(), cells.active)
    assert image.get_extent() == [2.0, 12.0, -0.5, 4.5]
    assert ax.get_xlim() == (2.0, 12.0)
    assert ax.figure.axes[1].get_ylabel() == "active units [%]\nin cells of 1 unit, 0.5 ms"


def test_cells_that_reach_past_the_window_are_cut(monkeypatch):
    monkeypatch.setattr(module, "MOST_MARKS", 10)
    monkeypatch.setattr(module, "MOST_CELLS", (3, 2))
    ax = raster(Events.from_dense(make_dense(n_steps=20)), 1.0)
    assert ax.images[0].get_extent() == [0, 21, -0.5, 5.5]
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 20), (-0.5, 4.5))


# -- activity --------------------------------------------------------------------------------------------


def test_activity_of_each_step_in_percent(dense, events):
    percent, present = module.activity_per_step(Selection(events, [0, 2], dt=1.0))
    np.testing.assert_allclose(percent, 100 * (dense[:, [0, 2]] != 0).mean(axis=(1, 2)))
    np.testing.assert_array_equal(present, 10)


def test_lanes_that_have_ended_do_not_count():
    lengths = np.array([20, 5, 12])
    dense = make_dense()
    alive = np.arange(20)[:, None] < lengths
    dense *= alive[:, :, None]
    events = Events.from_dense(dense)
    percent, present = module.activity_per_step(Selection(events, "all", dt=1.0), lengths)
    expected = 100 * (dense != 0).sum(axis=(1, 2)) / (5 * alive.sum(axis=1))
    np.testing.assert_allclose(percent, expected)
    np.testing.assert_array_equal(present, 5 * alive.sum(axis=1))
    percent, _ = module.activity_per_step(Selection(events, 1, dt=1.0), lengths)
    assert np.isnan(percent[5:]).all()
    ax = activity_trace(events, 1.0, lanes="all", lengths=lengths)
    alpha = 100 * len(events) / (5 * lengths.sum())
    assert ax.lines[-1].get_ydata()[0] == pytest.approx(alpha)
    assert ax.get_ylabel() == "active\nunits [%]"


def test_a_long_trace_is_a_mean_and_a_range(monkeypatch):
    monkeypatch.setattr(module, "MOST_CELLS", (6, 450))
    events = Events.from_dense(make_dense(n_steps=20))
    percent, _ = module.activity_per_step(Selection(events, dt=1.0))
    line = activity_trace(events, 1.0).lines[0]
    np.testing.assert_allclose(line.get_xdata(), [2, 6, 10, 14, 18])
    np.testing.assert_allclose(line.get_ydata(), percent.reshape(5, 4).mean(axis=1))


# -- several populations ---------------------------------------------------------------------------------


def test_populations_share_the_time_axis(events, tmp_path):
    tokens = Events.from_tokens(np.random.default_rng(0).integers(0, 4, (20, 3)), 4)
    made = figure({"cue": tokens, "hidden": events}, 0.5, lanes="all")
    titles = {ax.get_title("left"): ax.get_title("right") for ax in made.axes if ax.get_title("left")}
    assert titles == {
        "cue": "4 units, 3 lanes, 60 events, α = 25 %",  # noqa: RUF001
        "hidden": f"5 units, 3 lanes, {len(events)} events, α = {100 * events.activity:.3g} %",  # noqa: RUF001
    }
    panels = [ax for ax in made.axes if ax.get_ylabel().startswith(("active", "lane"))]
    assert len(panels) == 4
    assert {ax.get_xlim() for ax in panels} == {(0.0, 10.0)}
    assert [ax.get_xlabel() for ax in panels] == ["", "", "", "time [ms]"]
    made.savefig(tmp_path / "raster.png")
    assert (tmp_path / "raster.png").stat().st_size > 10_000
    with pytest.raises(LogError, match="no population that sends events"):
        figure({}, 1.0)


def make_log(events):
    readout = PopulationLog(
        "answer", "LeakyReadout", 2, 1.0, 0, tape=np.zeros((20, 3, 1, 2)), tape_fields=("v",)
    )
    hidden = PopulationLog("hidden", "EGRU", 5, 1.0, 0, events=events)
    return EventLog(
        {"hidden": hidden, "answer": readout},
        dt=1.0,
        start_step=0,
        n_steps=20,
        n_lanes=3,
        lengths=[20, 20, 20],
    )


def test_a_log_draws_itself(events):
    log = make_log(events)
    assert len(marks(log["hidden"].plot_raster(lanes="all"))[0]) == len(events)
    titles = [ax.get_title("left") for ax in log.figure().axes]
    assert "hidden" in titles
    assert "answer" not in titles
    with pytest.raises(LogError, match="sends no events"):
        log["answer"].plot_raster()


# -- tables ----------------------------------------------------------------------------------------------


def test_summary_counts():
    dense = np.zeros((10, 2, 4))
    dense[:, :, 1] = 1.0  # 20 events
    dense[:5, 0, 3] = 1.0  # 5 events
    dense[0, 1, 0] = 1.0  # 1 event
    row = summary_row(Events.from_dense(dense), dt=2.0, n_extreme=2)
    seconds = 2 * 10 * 2e-3
    assert row["events"] == 26
    assert row["alpha"] == pytest.approx(26 / 80)
    assert row["rate_hz"] == pytest.approx(26 / 4 / seconds)
    assert row["most_active"] == [(1, pytest.approx(20 / seconds)), (3, pytest.approx(5 / seconds))]
    assert row["least_active"] == [(2, 0.0), (0, pytest.approx(1 / seconds))]
    assert row["silent_units"] == 1
    assert (row["lanes"], row["steps"], row["lane_steps"]) == (2, 10, 20)
    assert summary_row(Events.from_dense(dense), 2.0, lengths=[10, 6])["alpha"] == pytest.approx(26 / 64)


def test_summary_of_nothing():
    row = summary_row(Events.empty(3, 1, 0), 1.0)
    assert (row["events"], row["alpha"], row["rate_hz"], row["silent_units"]) == (0, 0.0, 0.0, 3)
    row = summary_row(None, 1.0, lengths=[4, 3])
    assert (row["lanes"], row["steps"], row["events"], row["most_active"]) == (2, 4, None, None)


def test_summary_of_a_log(events):
    import json

    rows = make_log(events).summary()
    assert [(row["population"], row["type"], row["units"]) for row in rows] == [
        ("hidden", "EGRU", 5),
        ("answer", "LeakyReadout", 2),
    ]
    assert json.loads(json.dumps(rows))[0]["events"] == len(events)


# -- no global state -------------------------------------------------------------------------------------


def test_pyplot_is_never_imported_and_matplotlib_only_to_draw():
    code = """if True:
        import sys
        import evsim.raster as r
        from evsim.events import Events
        events = Events.empty(2, 1, 3)
        r.summary_row(events, 1.0)
        assert "matplotlib" not in sys.modules
        r.figure({"a": events}, 1.0).canvas.draw()
        assert "matplotlib.pyplot" not in sys.modules
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_threads_draw_the_same_picture(events, tmp_path):
    import matplotlib.image

    def draw(k):
        path = tmp_path / f"{k}.png"
        figure({"hidden": events}, 1.0, lanes="all").savefig(path)
        return matplotlib.image.imread(path)

    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(draw, range(6))
    assert all(np.array_equal(first, other) for other in others)


def test_matplotlib_missing_is_said(events, monkeypatch):
    from evsim.errors import MissingExtraError

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match="matplotlib is not installed"):
        raster(events, 1.0)


# -- logs on disk, windows, gradients --------------------------------------------------------------------


def make_file(path, gradient=None):
    log = make_log(Events.from_dense(make_dense()))
    log["hidden"].gradient = gradient
    log.populations.pop("answer")
    return log, log.save(path)


def test_a_file_is_drawn_as_the_log_in_memory(tmp_path, monkeypatch):
    log, path = make_file(tmp_path / "log.h5")
    options = {"lanes": [2, 0], "units": [3, 1, 4], "start": 3.0, "stop": 15.0}
    with LogFile(path) as file:
        for source in (file, file["hidden"], file["hidden"].table(), log, log["hidden"]):
            dt = 1.0 if isinstance(source, EventTable) else None
            positions, values = marks(raster(source, dt, **options))
            expected = marks(raster(log["hidden"].events, 1.0, **options))
            np.testing.assert_array_equal(positions, expected[0])
            np.testing.assert_array_equal(values, expected[1])
        monkeypatch.setattr(module, "MOST_MARKS", 10)
        for source in (file, log):
            images = [ax.images[0] for ax in figure(source, **options).axes if ax.images]
            expected = raster(log["hidden"].events, 1.0, **options).images[0]
            np.testing.assert_array_equal(images[0].get_array(), expected.get_array())
            traces = [activity_trace(x, **options).patches[0] for x in (source, log)]
            np.testing.assert_array_equal(*(trace.get_data().values for trace in traces))


def test_a_window_shows_what_is_in_it(dense, events):
    ax = raster(events, 0.5, start_step=100, start=52.0, stop=55.25)
    assert ax.get_xlim() == (52.0, 55.5)  # the step at 55 ms is within
    step = np.nonzero(dense[4:11, 0])[0]
    np.testing.assert_allclose(np.sort(marks(ax)[0][:, 0]), np.sort(52.25 + 0.5 * step))
    ax = activity_trace(events, 0.5, start_step=100, start=52.0, stop=55.25, lanes="all")
    percent = ax.patches[0].get_data().values
    np.testing.assert_allclose(percent, 100 * (dense[4:11] != 0).mean(axis=(1, 2)))
    with pytest.raises(LogError, match=r"from 70 to None ms; give start < stop within 50 to 60"):
        raster(events, 0.5, start_step=100, start=70)


def test_gradients_have_colours_around_zero(tmp_path, monkeypatch):
    gradient = np.random.default_rng(0).normal(size=len(Events.from_dense(make_dense()))).astype(np.float32)
    log, path = make_file(tmp_path / "log.h5", gradient)
    mine = log["hidden"].lane == 0
    with LogFile(path) as file:
        ax = raster(file, colour="gradient")
        order = np.lexsort((log["hidden"].unit[mine], log["hidden"].time[mine]))
        np.testing.assert_allclose(np.sort(marks(ax)[1]), np.sort(gradient[mine][order]), rtol=1e-6)
        low, high = ax.collections[0].get_clim()
        assert low == -high == pytest.approx(-np.quantile(np.abs(gradient[mine]), 0.99))
        assert ax.figure.axes[1].get_ylabel() == "dL/d(payload)"
        with pytest.raises(LogError, match="its events have no time gradient"):
            raster(file, colour="time_gradient")
        monkeypatch.setattr(module, "MOST_MARKS", 10)
        monkeypatch.setattr(module, "MOST_CELLS", (4, 2))
        ax = raster(file, colour="gradient")
    assert ax.figure.axes[1].get_ylabel() == "mean dL/d(payload)\nin cells of 3 units, 5 ms"
    step, unit = log["hidden"].events.step[mine], log["hidden"].unit[mine]
    shown = ax.images[0].get_array()
    for i, j in np.ndindex(2, 4):
        cell = gradient[mine][(unit // 3 == i) & (step // 5 == j)]
        assert shown[i, j] == pytest.approx(cell.mean())


def test_gradients_that_are_all_zero_are_grey():
    log = make_log(Events.from_dense(make_dense()))
    log["hidden"].gradient = np.zeros(log["hidden"].n_events)
    assert marks(raster(log["hidden"], colour="gradient"))[1] is None
    log["hidden"].gradient[3:5] = 1.0
    assert raster(log["hidden"], colour="gradient", lanes="all").collections[0].get_clim() == (-1.0, 1.0)


def test_a_density_can_show_the_mean_payload(dense, events, monkeypatch):
    monkeypatch.setattr(module, "MOST_MARKS", 10)
    ax = raster(events, 1.0, colour="value")
    values = ax.images[0].get_array()
    there = dense[:, 0].T != 0
    np.testing.assert_allclose(values[there], dense[:, 0].T[there], rtol=1e-6)
    assert np.ma.getmaskarray(values)[~there].all() or np.isnan(values.data[~there]).all()


def test_long_windows_are_labelled_in_seconds():
    ax = raster(Events.empty(3, 1, 30_000), 1.0)
    assert ax.get_xlabel() == "time [s]"
    assert ax.get_xlim() == (0.0, 30_000.0)
    assert ax.xaxis.get_major_formatter()(12_500.0) == "12.5"
    assert activity_trace(Events.empty(3, 1, 9_999), 1.0).get_xlabel() == "time [ms]"


def test_very_many_steps_are_traced_in_bins(monkeypatch):
    from evsim import selection

    dense = make_dense(n_steps=50)
    expected = 100 * (dense[:, 0] != 0).reshape(10, 5, 5).mean(axis=(1, 2))
    monkeypatch.setattr(selection, "MOST_BINS", 10)
    percent, present = Selection(Events.from_dense(dense), dt=1.0).activity()
    np.testing.assert_allclose(percent, expected)
    assert present.tolist() == [25] * 10
    percent, present = Selection(Events.from_dense(dense), dt=1.0).activity([12, 50, 50])
    assert present.tolist() == [25, 25, 10] + [0] * 7


def test_a_log_of_several_populations_is_a_figure():
    log = make_log(Events.from_dense(make_dense()))
    log.populations["other"] = PopulationLog("other", "EGRU", 5, 1.0, 0, events=log["hidden"].events)
    with pytest.raises(LogError, match=r"2 populations of the log send.*or make a figure"):
        raster(log)
    made = figure(log, rate=False, width=5.0, dpi=100)
    assert [ax.get_title("left") for ax in made.axes if ax.get_title("left")] == ["hidden", "other"]
    assert not [ax for ax in made.axes if ax.get_ylabel().startswith("active")]
    assert (made.get_size_inches()[0], made.dpi) == (5.0, 100)
