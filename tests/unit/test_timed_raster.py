"""Pictures of events in continuous time: what is drawn where, not how it looks."""

from itertools import pairwise

import numpy as np
import pytest

from evsim import raster as module
from evsim.errors import LogError
from evsim.events import Events
from evsim.raster import activity_trace, figure, raster, timed_summary_row
from evsim.selection import TimedSelection
from evsim.timed_events import TimedEvents
from oracles.continuous_logs import make_events, make_log

UNITS, LANES, START, STOP = 5, 3, 10.0, 30.0


@pytest.fixture
def events():
    return make_events(0, UNITS, 200, LANES, START, STOP)


def marks(ax):
    """Positions of the marks, in the order (x, y)."""
    offsets = np.asarray(ax.collections[0].get_offsets())
    return offsets[np.lexsort(offsets.T)]


def in_order(x, y):
    points = np.column_stack([x, y])
    return points[np.lexsort(points.T)]


# -- marks -----------------------------------------------------------------------------------------------


def test_marks_lie_at_their_times_and_show_the_payload(events):
    ax = raster(events)
    mine = events.lane == 0
    np.testing.assert_array_equal(marks(ax), in_order(events.time[mine], events.unit[mine]))
    assert sorted(ax.collections[0].get_array()) == sorted(events.value[mine])
    assert ax.get_xlim() == (START, STOP)
    assert ax.get_ylim() == (-0.5, UNITS - 0.5)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time [ms]", "unit")


def test_lanes_and_units_can_be_chosen(events):
    positions = marks(raster(events, lanes=[2, 0], units=[3, 1]))
    rows = {(2, 3): 0, (2, 1): 1, (0, 3): 2, (0, 1): 3}
    expected = [(t, rows[lane, unit]) for t, lane, unit, _ in events if (lane, unit) in rows]
    np.testing.assert_array_equal(positions, in_order(*zip(*expected, strict=True)))
    with pytest.raises(LogError, match="there is no lane 3"):
        raster(events, lanes=3)


def test_a_window_keeps_its_times(events):
    ax = raster(events.window(15.0, 20.0), lanes="all")
    assert ax.get_xlim() == (15.0, 20.0)
    assert len(marks(ax)) == ((events.time >= 15) & (events.time < 20)).sum()


def test_clocked_events_need_a_step():
    with pytest.raises(LogError, match=r"no dt for Events.*; give the length of a step in ms"):
        raster(Events.empty(3, 1, 4))


@pytest.mark.parametrize("window", [(0.0, 0.0), (3.0, 3.0), (0.0, 5.0), (0.0, 5e-324)])
def test_nothing_to_draw_is_drawn(window, tmp_path):
    empty = TimedEvents.empty(3, 2, *window)
    raster(empty).figure.savefig(tmp_path / "raster.png")
    figure({"a": empty}, lanes="all").savefig(tmp_path / "figure.png")


# -- density and rates -----------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [(7, 4), (20, 15), (3, 100), (1, 1)])
def test_density_is_the_rate_of_each_cell(events, most):
    cells = TimedSelection(events, "all").cells(most)
    rate, width, per_row = cells.rate, cells.edges[1] - cells.edges[0], cells.nodes[0]
    row = events.lane * UNITS + events.unit
    assert rate.shape[0] <= most[1]
    assert width == pytest.approx(20 / most[0])
    for i, j in np.ndindex(*rate.shape):
        inside = (row // per_row == i) & (events.time >= START + j * width)
        inside &= events.time < START + (j + 1) * width
        n_rows = min(per_row, LANES * UNITS - i * per_row)
        assert rate[i, j] == pytest.approx(inside.sum() / (n_rows * width * 1e-3))


def test_many_events_become_a_density(events, monkeypatch):
    monkeypatch.setattr(module, "MOST_MARKS", 10)
    ax = raster(events)
    (image,) = ax.images
    np.testing.assert_allclose(image.get_array(), TimedSelection(events).cells(module.MOST_CELLS).rate)
    assert image.get_extent() == pytest.approx([START, STOP, -0.5, 4.5])
    assert ax.get_xlim() == (START, STOP)
    assert ax.figure.axes[1].get_ylabel() == "rate [Hz]\nin cells of 1 unit, 0.0222 ms"


@pytest.mark.parametrize(("start", "stop"), [(10.0, 30.0), (0.0, 0.37), (1e5, 1e5 + 1234.5)])
@pytest.mark.parametrize("n_events", [0, 3, 5000])
def test_rates_of_bins(start, stop, n_events):
    events = make_events(0, UNITS, n_events, LANES, start, stop)
    rates, edges = TimedSelection(events, "all").rates()
    assert (edges[0], edges[-1]) == (start, stop)
    width = edges[1] - edges[0]
    assert float(f"{width:.3e}".split("e")[0]) in (1.0, 2.0, 5.0)  # a round number
    np.testing.assert_allclose(np.diff(edges)[:-1], width)
    assert 0 < edges[-1] - edges[-2] <= width * (1 + 1e-5)
    assert 10 < len(rates) <= 401
    inside = [((events.time >= a) & (events.time < b)).sum() for a, b in pairwise(edges)]
    np.testing.assert_allclose(rates, inside / (np.diff(edges) * 1e-3 * UNITS * LANES))


def test_the_trace_is_the_rate_and_its_mean(events):
    ax = activity_trace(events, lanes=1, units=[0, 2])
    expected = ((events.lane == 1) & np.isin(events.unit, [0, 2])).sum() / (2 * 20e-3)
    assert ax.lines[-1].get_ydata()[0] == pytest.approx(expected)
    assert ax.get_ylabel() == "rate [Hz]\n1 ms bins"
    assert ax.get_xlim() == (START, STOP)


# -- several populations ---------------------------------------------------------------------------------


def test_a_log_draws_itself(tmp_path):
    log = make_log()
    made = log.figure(lanes="all")
    titles = {ax.get_title("left"): ax.get_title("right") for ax in made.axes if ax.get_title("left")}
    assert titles == {
        "cue": f"4 units, 2 lanes, 20 events, {log['cue'].rate:.3g} Hz",
        "hidden": f"3 units, 2 lanes, 20 events, {log['hidden'].rate:.3g} Hz",
    }
    panels = [ax for ax in made.axes if ax.get_ylabel().startswith(("rate", "lane"))]
    assert len(panels) == 4
    assert {ax.get_xlim() for ax in panels} == {(12.5, 20.0)}
    assert [ax.get_xlabel() for ax in panels] == ["", "", "", "time [ms]"]
    made.savefig(tmp_path / "raster.png")
    assert (tmp_path / "raster.png").stat().st_size > 10_000
    assert len(marks(log["hidden"].plot_raster(lanes="all"))) == 20


# -- tables ----------------------------------------------------------------------------------------------


def test_summary_counts():
    time = np.linspace(0, 9, 6)
    events = TimedEvents.from_list(
        time, [0, 1, 0, 1, 0, 1], [1, 1, 1, 1, 3, 0], np.ones(6), n_units=4, n_lanes=2, start=0, stop=10
    )
    row = timed_summary_row(events, n_extreme=2)
    seconds = 2 * 10e-3
    assert row["events"] == 6
    assert row["rate_hz"] == pytest.approx(6 / 4 / seconds)
    assert row["most_active"] == [(1, pytest.approx(4 / seconds)), (0, pytest.approx(1 / seconds))]
    assert row["least_active"] == [(2, 0.0), (0, pytest.approx(1 / seconds))]
    assert row["silent_units"] == 1
    assert timed_summary_row(TimedEvents.empty(3, 1, 0, 0))["rate_hz"] == 0.0
    assert set(timed_summary_row(None).values()) == {None}
