"""Logs in continuous time, in memory."""

import json

import numpy as np
import pytest

from evsim.continuous_log import ContinuousLog, ContinuousPopulationLog
from evsim.errors import LogError
from evsim.timed_events import TimedEvents
from oracles.continuous_logs import DURATION, EQUAL, LANES, START, UNITS, make_events, make_log


@pytest.fixture
def log():
    return make_log()


def test_columns_of_a_population(log):
    hidden, events = log["hidden"], make_events(2)
    for column in ("time", "lane", "unit", "value"):
        np.testing.assert_array_equal(getattr(hidden, column), getattr(events, column))
    assert hidden.n_events == 20
    assert hidden.rate == pytest.approx(20 / (UNITS * LANES * DURATION * 1e-3))
    assert hidden.activity is None
    assert (log["answer"].n_events, log["answer"].rate) == (0, 0.0)
    assert log.names == list(log) == ["cue", "hidden", "answer"]
    assert "hidden" in log
    assert (log.dt, log.start, log.duration, log.stop) == (None, START, DURATION, START + DURATION)
    assert log.tape is not None
    assert repr(log).startswith("ContinuousLog(cue:EventSource(4), hidden:EGRU(3)")
    assert "20 of 3 units" in repr(hidden)


def test_what_is_not_there_is_said(log):
    with pytest.raises(LogError, match="LeakyReadout sends no events"):
        _ = log["answer"].time
    with pytest.raises(LogError, match="sends no events"):
        log["answer"].plot_raster()
    with pytest.raises(LogError, match=r"no population 'x'; it has \['cue'"):
        log["x"]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("EGRU", "c"),
        ("LIF", "v"),
        ("LeakyReadout", "v"),
        ("DeltaReadout", "v"),
        ("DeltaGRU", "h"),
        ("DeltaLSTM", "h"),
    ],
)
def test_which_state_is_sampled(kind, name):
    state = np.zeros((1, 1, 2))
    assert ContinuousPopulationLog("x", kind, 2, state=state).state_name == name
    assert ContinuousPopulationLog("x", kind, 2).state_name is None
    assert ContinuousPopulationLog("x", "Mine", 2, None, {"c": state[0]}, state).state_name == "c"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"n_lanes": 0}, "0 lanes"),
        ({"start": -1.0}, r"from -1\.0 ms"),
        ({"duration": -1.0}, r"x -1\.0 ms"),
        ({"duration": np.inf}, "inf ms"),
        ({"start": np.nan}, "nan ms"),
        ({"samples": [3.0, 9.0]}, r"a sample at 9\.0 ms; give times from 2\.0 to 8\.0 ms"),
        ({"samples": [1.0]}, r"a sample at 1\.0 ms"),
        ({"samples": [np.nan]}, "a sample at nan ms"),
        ({"samples": [3.0, 3.0]}, r"a sample at 3\.0 ms follows one at 3\.0 ms; sample times increase"),
        ({"samples": [[3.0]]}, r"samples have shape \(1, 1\)"),
    ],
)
def test_windows_and_samples_that_make_no_sense(change, match):
    with pytest.raises(LogError, match=match):
        ContinuousLog({}, **{"start": 2.0, "duration": 6.0, "n_lanes": 1} | change)


def test_sizes_must_agree(log):
    options = {"start": START, "duration": DURATION, "n_lanes": LANES, "samples": EQUAL}
    ContinuousLog(log.populations, **options)
    for change in ({"start": START + 1}, {"duration": DURATION + 1}, {"n_lanes": LANES + 1}):
        with pytest.raises(LogError, match=r"population 'cue': .*its window is not that of the log"):
            ContinuousLog({"cue": log["cue"]}, **options | change | {"samples": None})
    for what in ("state", "integral", "square"):
        other = make_log()
        setattr(other["answer"], what, np.zeros((4, LANES, 3)))
        with pytest.raises(LogError, match=rf"'answer': its {what} has shape \(4, 2, 3\), float64; give"):
            ContinuousLog(other.populations, **options)
        setattr(other["answer"], what, np.zeros((4, LANES, 2), np.float32))
        with pytest.raises(LogError, match="float32; give"):
            ContinuousLog(other.populations, **options)


def test_samples_may_lie_on_both_ends_and_may_be_none():
    options = {"start": 2.0, "duration": 6.0, "n_lanes": 1}
    np.testing.assert_array_equal(ContinuousLog({}, **options, samples=[2, 8]).samples, [2.0, 8.0])
    for none in (None, []):
        samples = ContinuousLog({}, **options, samples=none).samples
        assert (samples.shape, samples.dtype) == ((0,), np.float64)
    assert ContinuousLog({}, **options | {"duration": 0.0}).stop == 2.0


def test_equal_sees_every_difference(log):
    assert log.equal(make_log())

    def change(what):
        other = make_log()
        what(other)
        return not log.equal(other) and not other.equal(log)

    def other_events(o, name):
        columns = {c: getattr(o[name], c) for c in ("time", "lane", "unit", "value")}
        columns["time"] = np.nextafter(columns["time"], np.inf)
        o[name].events = TimedEvents(4, LANES, o.start, o.stop, **columns)

    assert change(lambda o: o["hidden"].value.__setitem__(0, 9))
    assert change(lambda o: other_events(o, "cue"))
    assert change(lambda o: setattr(o["cue"], "events", None))
    assert change(lambda o: o["hidden"].initial["c"].__setitem__((0, 0), 9))
    assert change(lambda o: o["hidden"].initial.pop("c"))
    assert change(lambda o: setattr(o["hidden"], "thresholds", None))
    assert change(lambda o: o["hidden"].thresholds.__setitem__(0, 9))
    for what in ("state", "integral", "square"):
        assert change(lambda o, what=what: getattr(o["answer"], what).__setitem__((0, 0, 0), 9))
        assert change(lambda o, what=what: setattr(o["answer"], what, None))
    assert change(lambda o: o.samples.__setitem__(0, 13.5))
    assert change(lambda o: o.parameters["cue->hidden.weight"].__setitem__((0, 0), 9))
    assert change(lambda o: o.counters.update(crossings=21))
    assert change(lambda o: o.network.update(dt_ms=1))
    assert change(lambda o: o.provenance.update(seed=4))
    assert change(lambda o: setattr(o, "duration", 8.0))
    assert change(lambda o: setattr(o["hidden"], "kind", "LIF"))
    assert change(lambda o: o.populations.pop("answer"))
    # What a file does not keep does not count.
    other = make_log()
    other.tape = None
    assert log.equal(other)


def test_summary(log):
    rows = json.loads(json.dumps(log.summary()))
    assert [(row["population"], row["type"], row["units"]) for row in rows] == [
        ("cue", "EventSource", 4),
        ("hidden", "EGRU", 3),
        ("answer", "LeakyReadout", 2),
    ]
    counts = np.bincount(log["hidden"].unit, minlength=UNITS)
    seconds = LANES * DURATION * 1e-3
    assert rows[1]["events"] == 20
    assert rows[1]["rate_hz"] == pytest.approx(log["hidden"].rate)
    assert rows[1]["most_active"][0] == [counts.argmax(), pytest.approx(counts.max() / seconds)]
    assert rows[1]["silent_units"] == (counts == 0).sum()
    assert rows[2]["events"] is None
    assert all("alpha" not in row for row in rows)
