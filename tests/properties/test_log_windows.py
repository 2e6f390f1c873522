"""However a run is cut into windows, its file is the same; and any part of it is what the run had there."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from evsim.continuous_log import ContinuousLog
from evsim.eventlog import EventLog
from evsim.log_file import LogFile
from evsim.log_writer import LogWriter
from oracles.log_windows import (
    EQUAL,
    UNEQUAL,
    columns_of,
    run_in_steps,
    run_in_time,
    small_blocks,
    states_before,
    steps_of,
    times_of,
    windows_of,
)

SEEDS = st.integers(0, 2**32)


@st.composite
def runs_in_steps(draw):
    n_steps, n_lanes = draw(st.integers(0, 14)), draw(st.integers(1, 3))
    return run_in_steps(
        draw(SEEDS),
        n_steps,
        n_lanes,
        n_units=draw(st.sampled_from([1, 5, 300])),
        dt=draw(st.sampled_from([1.0, 0.1, 0.3])),
        start_step=draw(st.sampled_from([0, 7, 2**33])),
        dtype=draw(st.sampled_from([np.float32, np.float64])),
        density=draw(st.sampled_from([0.0, 0.02, 0.4, 1.0])),
        carried=draw(st.sampled_from([None, 0, 3])),
        gradient=draw(st.booleans()),
        lengths=draw(st.none() | st.lists(st.integers(0, n_steps), min_size=n_lanes, max_size=n_lanes)),
    )


@st.composite
def runs_in_time(draw):
    return run_in_time(
        draw(SEEDS),
        n_events=draw(st.sampled_from([0, 1, 30, 300])),
        n_lanes=draw(st.integers(1, 3)),
        n_units=draw(st.sampled_from([1, 5])),
        samples=draw(st.sampled_from([EQUAL, UNEQUAL, (9.0,), ()])),
        gradient=draw(st.booleans()),
        grid=draw(st.sampled_from([None, 0.25, 4.0])),
    )


def same_marked(mine, theirs):
    """Equal, but for gradients of no events, of which a file does not say whether there were any."""
    for log in (mine, theirs):
        for member in log.populations.values():
            if member.n_events == 0:
                member.gradient = None
                if isinstance(log, ContinuousLog):
                    member.time_gradient = None
    return mine.equal(theirs)


def write(log, marks, path, flushes, **options):
    """Write a run window by window; a reader looks on."""
    reader = None
    with LogWriter(path, **options) as writer:
        for window, flush in zip(windows_of(log, marks), flushes, strict=False):
            writer.append(window)
            if flush:
                writer.flush()
                if reader is None:
                    reader = LogFile(path)
                reader.refresh()
                assert not reader.complete
                look_on(log, reader)
    if reader is not None:
        assert reader.refresh()
        assert reader.complete
        look_on(log, reader)
        reader.close()


def look_on(log, file):
    """What is on file so far is the beginning of the run."""
    for name in log:
        if log[name].events is not None:
            n = file[name].n_events
            np.testing.assert_array_equal(file[name].values(slice(0, n)), log[name].value[:n])
            np.testing.assert_array_equal(file[name].times(slice(0, n)), log[name].time[:n])
            assert file[name].unit_events.sum() == n
            if isinstance(log, EventLog):
                assert n == np.count_nonzero(log[name].events.step < file.n_steps)
            else:
                assert n == np.count_nonzero(log[name].time < file.stop)


def check_parts(draw, log, file):
    """Any rows, table and index of a file against the columns of the run."""
    span = st.floats(file.start - 1, file.stop + 1)
    for name in log:
        member = file[name]
        assert member.sends == (log[name].events is not None)
        if not member.sends:
            continue
        expected = columns_of(log, name)
        n, time = len(expected["time"]), expected["time"]
        start, stop = sorted((draw(span), draw(span)))
        rows = member.rows(start, stop)
        # a step is where it is but for rounding
        slack = 0 if log.dt is None else max(1e-9 * log.dt, 4 * np.spacing(file.stop))
        inside = (time >= start - slack) & (time < stop - slack)
        assert rows.start == np.count_nonzero(time < start - slack)
        assert rows.stop == np.count_nonzero(time < stop - slack)
        nodes = expected["lane"].astype(int) * member.n_units + expected["unit"]
        np.testing.assert_array_equal(member.nodes(rows), nodes[inside])
        np.testing.assert_array_equal(member.times(rows), time[inside])
        np.testing.assert_array_equal(member.values(rows), expected["value"][inside])
        units = draw(st.none() | st.lists(st.integers(0, member.n_units - 1), unique=True))
        lanes = draw(st.none() | st.just("all") | st.integers(0, log.n_lanes - 1))
        if units is not None:
            inside &= np.isin(expected["unit"], units)
        if lanes not in (None, "all"):
            inside &= expected["lane"] == lanes
        table = member.table(start, stop, units, lanes)
        pieces = list(member.tables(start, stop, units, lanes, size=draw(st.integers(1, 50))))
        assert table.columns.keys() == (
            expected.keys() if n else set(expected) - {"gradient", "time_gradient"}
        )
        for what, column in table.columns.items():
            np.testing.assert_array_equal(column, expected[what][inside])
            assert column.dtype == np.concatenate([piece.columns[what] for piece in pieces]).dtype
            np.testing.assert_array_equal(np.concatenate([p.columns[what] for p in pieces]), column)
        tally = np.bincount(nodes, minlength=member.n_nodes)
        np.testing.assert_array_equal(member.unit_events.ravel(), tally)
        ends = member.block_ends
        assert (ends[-1] if len(ends) else 0) == n
        np.testing.assert_array_equal(member.block_times, time[np.append(0, ends)[:-1]])
        groups = nodes // member.group_size
        for block, (first, last) in enumerate(zip(np.append(0, ends)[:-1], ends, strict=True)):
            np.testing.assert_array_equal(
                member.block_counts[block],
                np.bincount(groups[first:last], minlength=member.block_counts.shape[1]),
            )


@settings(max_examples=25, phases=[Phase.generate])  # without shrinking, which takes minutes here
@given(st.data(), runs_in_steps())
def test_windows_of_a_run_in_steps(data, log):
    n = log.n_steps
    marks = [0, *sorted(data.draw(st.lists(st.integers(0, n), max_size=5))), n]
    flushes = data.draw(st.lists(st.booleans(), min_size=6, max_size=6))
    states, checkpoints = data.draw(st.booleans()), data.draw(st.booleans())
    with tempfile.TemporaryDirectory() as folder, small_blocks():
        path = Path(folder) / "run.h5"
        write(log, marks, path, [*flushes, False], states=states, checkpoints=checkpoints)
        with LogFile(path) as file:
            assert same_marked(log, file.window())
            assert file.check() == []
            assert (file["hidden"].state() is not None) == states
            check_parts(data.draw, log, file)
            np.testing.assert_array_equal(file["answer"].state()[2], log["answer"].state)
            first, last = sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n))))
            part, expected = file.steps(first, last), steps_of(log, first, last)
            kept = {first} & {0, *(marks if checkpoints and first < n else ())}
            for name in log:
                assert part[name].initial.keys() == (log[name].initial.keys() if kept else set())
                for state, values in part[name].initial.items():
                    np.testing.assert_array_equal(values, states_before(log, first)[name][state])
                expected[name].initial = part[name].initial
            part.counters = expected.counters
            assert same_marked(expected, part)
            windows = list(file.windows(data.draw(st.integers(1, 200))))
            for name in ("cue", "hidden"):
                joined = windows[0][name].events
                for window in windows[1:]:
                    joined = joined.then(window[name].events)
                assert joined.equal(log[name].events)
            assert sum(window.n_steps for window in windows) == n
            copied = file.copy(Path(folder) / "copy.h5")
            kept_steps = file.checkpoints
        with LogFile(copied) as file:
            assert same_marked(log, file.window())
            assert (file["hidden"].state() is not None) == states
            np.testing.assert_array_equal(file.checkpoints, kept_steps)
            assert file.check() == []


@settings(max_examples=25, phases=[Phase.generate])  # without shrinking, which takes minutes here
@given(st.data(), runs_in_time())
def test_windows_of_a_run_in_time(data, log):
    marks = data.draw(st.lists(st.integers(32, 160), max_size=5))  # eighths of ms
    marks = [log.start, *(mark / 8 for mark in sorted(marks)), log.stop]
    # from its first window a file knows that there are samples, and how they are spaced
    marks = [mark for k, mark in enumerate(marks) if k == 0 or mark >= first_mark(log.samples, log.start)]
    flushes = data.draw(st.lists(st.booleans(), min_size=7, max_size=7))
    with tempfile.TemporaryDirectory() as folder, small_blocks():
        path = Path(folder) / "run.h5"
        write(log, marks, path, flushes)
        with LogFile(path) as file:
            assert same_marked(log, file.window())
            assert file.check() == []
            check_parts(data.draw, log, file)
            times = st.integers(32, 160).map(lambda mark: mark / 8)
            start, stop = sorted(data.draw(st.tuples(times, times)))
            part, expected = file.window(start, stop), times_of(log, start, stop)
            part.counters = expected.counters
            for name in log:
                if start != log.start:
                    assert part[name].initial == {}
                part[name].initial = expected[name].initial
                for what in ("state", "integral", "square"):  # of no samples
                    if not len(part.samples):
                        setattr(part[name], what, None)
            assert same_marked(expected, part)
            windows = list(file.windows(data.draw(st.integers(1, 200))))
            for name in ("cue", "hidden"):
                for what in ("time", "lane", "unit", "value"):
                    joined = np.concatenate([getattr(window[name], what) for window in windows])
                    np.testing.assert_array_equal(joined, getattr(log[name], what))
            copied = file.copy(Path(folder) / "copy.h5")
            reports = file["hidden"].state()
        with LogFile(copied) as file:
            assert same_marked(log, file.window())
            assert (file["hidden"].state() is None) == (reports is None)
            assert file.check() == []


def first_mark(samples, start):
    """Where a first window may end: it has one sample at least, and two that are no grid, or more."""
    if not len(samples):
        return start
    return samples[min(2, len(samples) - 1)] if samples[0] != UNEQUAL[0] else samples[2]
