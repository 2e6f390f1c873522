"""Matching of events and van Rossum's distance, against plain loops and integrals; records in windows."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evsim import log_comparison as module
from evsim.core.matching import VanRossum, match
from evsim.errors import LogError
from evsim.log_comparison import compare_logs
from evsim.log_file import LogFile
from evsim.timed_events import TimedEvents
from oracles.continuous_logs import from_rows, make_log, rows

SIZES = {"n_units": 3, "n_lanes": 2, "start": 0.0, "stop": 20.0}
#: Of times with few digits, differences are exact and equal ones occur.
TIMES = st.lists(st.integers(0, 60).map(lambda k: k / 4), max_size=12, unique=True).map(sorted)


def naive(a, b, tolerance, reach):
    """Pairs of indices of two trains, as the rule says it."""
    pairs, i, j = [], 0, 0
    while i < len(a) and j < len(b):
        apart = abs(a[i] - b[j])
        if apart > tolerance:
            if a[i] < b[j] and (
                apart > reach or abs(a[i + 1 : i + 2][0] - b[j] if a[i + 1 :] else 99) < apart
            ):
                i += 1
                continue
            if b[j] < a[i] and (
                apart > reach or abs(b[j + 1 : j + 2][0] - a[i] if b[j + 1 :] else 99) < apart
            ):
                j += 1
                continue
        pairs.append((i, j))
        i, j = i + 1, j + 1
    return pairs


def sort(time, node):
    order = np.lexsort((time, node))
    return np.asarray(node, np.int64)[order], np.asarray(time, np.float64)[order]


@given(st.lists(st.tuples(TIMES, TIMES), min_size=1, max_size=3), st.sampled_from([0.0, 0.25, 1.0]))
@example([([1.0, 2.0], [1.75])], 0.0)
def test_trains_are_paired_by_the_rule(trains, tolerance):
    reach = 1.5
    columns = []
    for side in (0, 1):
        time = [t for pair in trains for t in pair[side]]
        columns += sort(time, [node for node, pair in enumerate(trains) for _ in pair[side]])
    partner, other = match(*columns, tolerance, reach, math.inf)
    start, other_start = 0, 0
    expected = []
    for a, b in trains:
        expected += [(start + i, other_start + j) for i, j in naive(a, b, tolerance, reach)]
        start, other_start = start + len(a), other_start + len(b)
    assert [(i, j) for i, j in enumerate(partner.tolist()) if j >= 0] == expected
    assert [(i, j) for j, i in enumerate(other.tolist()) if i >= 0] == expected
    assert set(partner[partner < 0]) <= {-1}
    back = match(*columns[2:], *columns[:2], tolerance, reach, math.inf)
    np.testing.assert_array_equal(back[0], other)


@given(st.data(), st.sampled_from([1, 3, 8]), st.sampled_from([0.0, 0.3, 3.0]))
def test_windows_change_nothing(data, size, tolerance):
    first = data.draw(rows(**SIZES, max_size=20))
    second = data.draw(rows(**SIZES, max_size=20)) + first[: data.draw(st.integers(0, len(first)))]
    second = list({row[:3]: row for row in second}.values())
    logs = []
    for events in (first, second):
        log = make_log()
        log.populations = {"hidden": log["hidden"]}
        log.start, log.duration, log["hidden"].events = 0.0, 20.0, from_rows(events, **SIZES)
        logs.append(log)
    found = []
    for piece in (2**20, size):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "PIECE", piece)
            found.append(compare_logs(*logs, tolerance, tau=0.7).populations["hidden"])
    whole, in_windows = (vars(match) for match in found)
    for key, value in whole.items():
        if key == "most_distant":
            assert in_windows[key][2] == pytest.approx(value[2], abs=1e-12)
        elif isinstance(value, float):
            assert in_windows[key] == pytest.approx(value, abs=1e-12)
        elif key in ("first", "first_value") and value is not None:
            assert in_windows[key].when() == value.when()
        else:
            assert in_windows[key] == value
    n_equal, n_moved, alone = whole["n_equal"], whole["n_moved"], whole["n_alone"]
    assert whole["n_events"] == tuple(n_equal + n_moved + n for n in alone)


@pytest.mark.parametrize("tau", [0.3, 2.0])
def test_the_distance_is_the_integral_of_the_difference(tau):
    rng = np.random.default_rng(0)
    a, b = np.sort(rng.uniform(0, 10, 12)), np.sort(rng.uniform(0, 10, 9))
    b[4] = a[5]
    b.sort()
    time = np.linspace(0, 10 + 30 * tau, 2_000_001)

    def trace(train):
        return sum(np.where(time >= t, np.exp(-(time - t) / tau), 0.0) for t in train)

    expected = math.sqrt(np.trapezoid((trace(a) - trace(b)) ** 2, time) * 2 / tau)
    sums = VanRossum(2, tau)
    cut = 5.0  # the record comes in two windows
    for window in (lambda x: x[x < cut], lambda x: x[x >= cut]):
        x, y = window(a), window(b)
        sums.add(np.ones(len(x), np.int64), x, np.ones(len(y), np.int64), y)
    assert sums.distances() == pytest.approx([0.0, expected], rel=1e-4)


def test_the_distance_of_one_event_and_of_equal_trains():
    node, none = np.zeros(1, np.int64), np.zeros(0, np.int64)
    sums = VanRossum(1, 5.0)
    sums.add(node, np.array([3.0]), none, np.zeros(0))
    assert sums.distances() == pytest.approx([1.0])
    time = np.sort(np.random.default_rng(0).uniform(0, 10, 50))
    sums = VanRossum(1, 5.0)
    sums.add(np.zeros(50, np.int64), time, np.zeros(50, np.int64), time)
    assert sums.distances().tolist() == [0.0]


def test_what_does_not_fit_is_refused():
    node, time = np.zeros(2, np.int64), np.zeros(2)
    with pytest.raises(ValueError, match="differ in length"):
        match(node, time[:1], node, time, 0.0, 1.0, 5.0)
    with pytest.raises(ValueError, match="differ in length"):
        VanRossum(1, 1.0).add(node, time, node, time[:1])
    for wrong in (-1, 1):
        with pytest.raises(ValueError, match=f"node {wrong} of 1"):
            VanRossum(1, 1.0).add(node + wrong, time, node, time)


# -- logs ------------------------------------------------------------------------------------------------


def test_one_event_that_is_missing_leaves_the_others_their_partners():
    log, other = make_log(), make_log()
    events = log["hidden"].events
    columns = [np.delete(getattr(events, name), 3) for name in ("time", "lane", "unit", "value")]
    other["hidden"].events = TimedEvents(events.n_units, events.n_lanes, events.start, events.stop, *columns)
    found = compare_logs(log, other).populations["hidden"]
    assert (found.n_equal, found.n_moved, found.n_alone, found.n_unequal) == (19, 0, (1, 0), 1)
    assert found.first.when() == events.time[3]
    lane, unit, distance = found.most_distant
    assert (lane, unit) == (events.lane[3], events.unit[3])
    assert 0 < distance <= 1
    assert found.distance == pytest.approx(distance / 6)


def test_the_first_payload_that_differs_is_named():
    log, other = make_log(), make_log()
    other["hidden"].value[[7, 3]] += 1e-3
    found = compare_logs(log, other)
    hidden = found.populations["hidden"]
    assert hidden.first is None
    assert hidden.first_value.time == log["hidden"].time[3]
    (line,) = found.first_differences()
    assert line.startswith(f"hidden: unit {log['hidden'].unit[3]}, lane {log['hidden'].lane[3]}, at ")
    assert "payloads" in line
    assert list(compare_logs(log, other, value_tolerance=1e-2).first_differences()) == []


def test_files_and_memory_are_compared_alike(tmp_path):
    log, other = make_log(), make_log()
    other["hidden"].time[:] += 1e-6
    other["answer"].state[1, 0, 0] += 1e-3
    paths = log.save(tmp_path / "a.h5"), other.save(tmp_path / "b.h5")
    expected = compare_logs(log, other)
    with LogFile(paths[0]) as first, LogFile(paths[1]) as second:
        assert compare_logs(first, second) == expected
        assert compare_logs(log, second) == expected
        assert not expected.ok()
        assert compare_logs(first, first).ok(0.0)


def test_a_window_can_be_compared():
    log, other = make_log(), make_log()
    late = log["hidden"].time > 16.0
    other["hidden"].time[late] += 1e-3
    assert not compare_logs(log, other).ok()
    assert compare_logs(log, other, stop=16.0).ok(0.0)
    found = compare_logs(log, other, start=16.0).populations["hidden"]
    assert found.n_moved == late.sum()
    other.duration = 5.0
    with pytest.raises(LogError, match="compare runs of one network, or a window that both have"):
        compare_logs(log, other)
    with pytest.raises(LogError, match="the logs have windows"):
        compare_logs(log, other, start=0.0, stop=15.0)
    assert compare_logs(log, other, start=13.0, stop=16.0).populations["hidden"].n_moved == 0


def test_logs_that_share_too_little_are_refused(monkeypatch):
    monkeypatch.setattr(module, "PIECE", 4)
    monkeypatch.setattr(module, "MOST_PENDING", 3)
    log, other = make_log(), make_log()
    other["hidden"].time[:] += 1e-6
    with pytest.raises(LogError, match=r"events of 'hidden' within tau.*smaller tau, or a window"):
        compare_logs(log, other, tau=100.0)
    with pytest.raises(LogError, match="tau is 0 ms; give a positive time"):
        compare_logs(log, other, tau=0)


def test_many_events_at_one_time(monkeypatch):
    monkeypatch.setattr(module, "PIECE", 2)
    time, unit = np.repeat([1.0, 2.0, 3.0], 3), np.tile([0, 1, 2], 3)
    log = make_log()
    log.populations = {"hidden": log["hidden"]}
    log.start, log.duration = 0.0, 20.0
    log["hidden"].events = TimedEvents.from_list(time, np.zeros(9, int), unit, np.ones(9), **SIZES)
    found = compare_logs(log, log).populations["hidden"]
    assert (found.n_equal, found.n_unequal, found.distance) == (9, 0, 0.0)
