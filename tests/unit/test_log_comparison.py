"""Comparison of two logs, against plain loops over lists of events."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evsim.errors import LogError
from evsim.eventlog import EventLog, PopulationLog
from evsim.events import Events
from evsim.log_comparison import compare_logs, match_events
from evsim.timed_events import TimedEvents
from oracles.continuous_logs import from_rows, make_log, rows

SIZES = {"n_units": 3, "n_lanes": 2, "start": 0.0, "stop": 10.0}


def naive(first, second, tolerance):
    """What `match_events` finds, unit by unit."""
    unequal, equal_units, values = [], [0.0], [0.0]
    for lane, unit in np.ndindex(SIZES["n_lanes"], SIZES["n_units"]):
        mine, theirs = ([row for row in side if row[1:3] == (lane, unit)] for side in (first, second))
        for a, b in zip(mine, theirs, strict=False):
            if len(mine) == len(theirs):
                equal_units.append(abs(a[0] - b[0]))
            if abs(a[0] - b[0]) <= tolerance:
                values.append(abs(a[3] - b[3]))
            else:
                unequal.append((min(a[0], b[0]), lane, unit))
        both = min(len(mine), len(theirs))
        unequal += [(row[0], lane, unit) for row in (*mine[both:], *theirs[both:])]
    return len(unequal), min(unequal, default=None), max(equal_units), max(values)


@given(st.data(), st.sampled_from([0.0, 1e-9, 0.5, 3.0]))
def test_matching_is_one_to_one_and_in_order(data, tolerance):
    first, second = (data.draw(rows(**SIZES, max_size=8)) for _ in range(2))
    first = [(*row[:3], 1.0 + row[2]) for row in first]
    second = [(*row[:3], 2.0) for row in second] + first[: data.draw(st.integers(0, len(first)))]
    second = list({row[:3]: row for row in second}.values())
    mine, theirs = from_rows(first, **SIZES), from_rows(second, **SIZES)
    match = match_events(mine, theirs, tolerance)
    n_unequal, earliest, time_error, value_error = naive(list(mine), list(theirs), tolerance)
    assert match.n_events == (len(mine), len(theirs))
    assert match.n_unequal == n_unequal
    assert (match.first is None) == (n_unequal == 0)
    if earliest is not None:
        assert match.first.when() == earliest[0]
    assert match.time_error == pytest.approx(time_error)
    assert match.value_error == pytest.approx(value_error)
    other_way = match_events(theirs, mine, tolerance)
    assert (other_way.n_unequal, other_way.time_error) == (match.n_unequal, match.time_error)


def shifted(events, by, rows=slice(None)):
    time = events.time.copy()
    time[rows] += by
    sizes = {name: getattr(events, name) for name in ("n_units", "n_lanes", "start", "stop")}
    return TimedEvents.from_list(time, events.lane, events.unit, events.value, **sizes)


def without(events, row):
    columns = [np.delete(getattr(events, name), row) for name in ("time", "lane", "unit", "value")]
    return TimedEvents(events.n_units, events.n_lanes, events.start, events.stop, *columns)


def test_equal_logs_are_equal():
    found = compare_logs(make_log(), make_log())
    assert found.ok(0.0)
    assert list(found.first_differences()) == []
    assert found.populations["hidden"].n_events == (20, 20)
    assert found.populations["answer"].n_events == (None, None)
    assert found.populations["answer"].state_error == 0.0
    assert found.populations["cue"].state_error is None


def test_small_differences_of_time_are_allowed():
    log, other = make_log(), make_log()
    other["hidden"].events = shifted(log["hidden"].events, 3e-10)
    assert compare_logs(log, other).ok()
    found = compare_logs(log, other, time_tolerance=1e-10)
    assert not found.ok()
    hidden = found.populations["hidden"]
    assert hidden.time_error == pytest.approx(3e-10, rel=1e-4)
    assert hidden.n_unequal == 20
    (line,) = found.first_differences()
    assert line.startswith(f"hidden: unit {log['hidden'].unit[0]}, lane {log['hidden'].lane[0]}: events at ")
    assert line.endswith("3e-10 ms apart")


@pytest.mark.parametrize(("kept", "which"), [(0, "first"), (1, "second")])
def test_a_missing_event_is_found(kept, which):
    log, other = make_log(), make_log()
    other["hidden"].events = without(log["hidden"].events, 19)
    found = compare_logs(*((log, other) if kept == 0 else (other, log)))
    hidden = found.populations["hidden"]
    assert not found.ok()
    assert (hidden.n_unequal, hidden.time_error, hidden.value_error) == (1, 0.0, 0.0)
    last = list(log["hidden"].events)[-1]
    assert str(hidden.first) == (
        f"unit {last[2]}, lane {last[1]}: only the {which} has an event at {last[0]:.12g} ms ({last[3]:.6g})"
    )


def test_values_and_states_count():
    other = make_log()
    other["hidden"].value[3] += 1e-3
    found = compare_logs(make_log(), other)
    assert found.populations["hidden"].value_error == pytest.approx(1e-3)
    assert (found.ok(), found.ok(2e-3)) == (False, True)
    other = make_log()
    other["answer"].state[2, 1, 0] -= 1e-3
    found = compare_logs(make_log(), other)
    assert found.populations["answer"].state_error == pytest.approx(1e-3)
    assert (found.ok(), found.ok(2e-3)) == (False, True)
    other["answer"].state[2, 1, 0] = np.nan
    assert not compare_logs(make_log(), other).ok()


def test_states_at_other_times_are_not_compared():
    found = compare_logs(make_log(samples=(13.0, 15.0)), make_log(samples=(13.0, 16.0)))
    assert found.populations["answer"].state_error is None
    found = compare_logs(make_log(samples=(13.0, 15.0)), make_log(samples=()))
    assert found.populations["answer"].state_error is None


def clocked(dense, tape, lengths, dt=0.5):
    sent = PopulationLog("cue", "EventSource", 3, dt, 4, events=Events.from_dense(dense))
    readout = PopulationLog("answer", "LeakyReadout", 2, dt, 4, tape=tape, tape_fields=("v",))
    sizes = {"dt": dt, "start_step": 4, "n_steps": len(dense), "n_lanes": 2}
    return EventLog({"cue": sent, "answer": readout}, **sizes, lengths=lengths)


def test_runs_in_steps_are_compared_too():
    rng = np.random.default_rng(0)
    dense, tape = rng.normal(size=(6, 2, 3)) * (rng.random((6, 2, 3)) < 0.4), rng.normal(size=(6, 2, 1, 2))
    log = clocked(dense, tape, [6, 4])
    changed = tape.copy()
    changed[5, 1] = np.nan  # after the end of that lane
    found = compare_logs(log, clocked(dense, changed, [6, 4]))
    assert found.ok(0.0)
    assert found.populations["answer"].state_error == 0.0
    changed[3, 1, 0, 0] += 1
    assert compare_logs(log, clocked(dense, changed, [6, 4])).populations["answer"].state_error == 1.0
    step, lane, unit = (int(index[-1]) for index in np.nonzero(dense))
    fewer = dense.copy()
    fewer[step, lane, unit] = 0
    (line,) = compare_logs(log, clocked(fewer, tape, [6, 4])).first_differences()
    assert line.startswith(
        f"cue: unit {unit}, lane {lane}: only the first has an event at {(4 + step) / 2:g}"
    )


def test_a_run_in_steps_against_one_in_continuous_time():
    log = make_log()
    dense = np.zeros((15, 2, 4))
    steps = ((log["cue"].time - 12.5) / 0.5).astype(int)
    dense[steps, log["cue"].lane, log["cue"].unit] = log["cue"].value
    cue = PopulationLog("cue", "EventSource", 4, 0.5, 25, events=Events.from_dense(dense, np.float64))
    in_steps = EventLog({"cue": cue}, dt=0.5, start_step=25, n_steps=15, n_lanes=2, lengths=[15, 15])
    log.populations = {"cue": log["cue"]}
    found = compare_logs(log, in_steps, time_tolerance=0.5)
    assert found.populations["cue"].state_error is None
    if found.populations["cue"].n_events == (20, 20):  # no two in one step
        assert found.ok(0.0)
    assert not compare_logs(log, in_steps).ok()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda log: log.populations.pop("cue"), "the logs have units"),
        (lambda log: setattr(log["cue"], "n_units", 5), "the logs have units"),
        (lambda log: setattr(log, "n_lanes", 3), "the logs have lanes 2 and 3; compare runs of one network"),
        (lambda log: setattr(log, "start", 13.0), "the logs have windows in ms"),
        (lambda log: setattr(log["cue"], "events", None), "the logs have of 'cue' events"),
    ],
)
def test_runs_of_other_networks_are_not_compared(change, match):
    other = make_log()
    change(other)
    with pytest.raises(LogError, match=match):
        compare_logs(make_log(), other)
