"""Lists of events in continuous time against plain Python lists."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evsim.errors import StimulusError
from evsim.timed_events import TimedEvents
from oracles.continuous_logs import from_rows, rows, windows

SIZES = {"n_units": 3, "n_lanes": 2, "start": 1.0, "stop": 5.0}


@st.composite
def listed_events(draw):
    start, stop = draw(windows())
    sizes = {"n_units": draw(st.integers(1, 4)), "n_lanes": draw(st.integers(1, 3))}
    sizes |= {"start": start, "stop": stop}
    return draw(rows(**sizes)), sizes


def kept(listed):
    """What a list of rows means: sorted, without zeros."""
    return sorted(row for row in listed if row[3] != 0)


@given(listed_events())
def test_lists_in_any_order(drawn):
    listed, sizes = drawn
    events = from_rows(listed, **sizes)
    assert list(events) == kept(listed)
    assert len(events) == len(kept(listed))
    events.check()
    types = [getattr(events, name).dtype for name in ("time", "lane", "unit", "value")]
    assert types == [np.float64, np.int32, np.int32, np.float64]
    assert (events.start, events.stop, events.duration) == (
        sizes["start"],
        sizes["stop"],
        sizes["stop"] - sizes["start"],
    )


@given(listed_events(), st.randoms(use_true_random=False))
def test_order_does_not_matter(drawn, random):
    listed, sizes = drawn
    shuffled = list(listed)
    random.shuffle(shuffled)
    assert from_rows(shuffled, **sizes).equal(from_rows(listed, **sizes))


@given(listed_events())
def test_lists_in_order(drawn):
    """They are taken as they are, but into arrays of their own."""
    listed, sizes = drawn
    kinds = {"time": float, "lane": np.int32, "unit": np.int32, "value": float}
    given = [np.array([row[k] for row in kept(listed)], kind) for k, kind in enumerate(kinds.values())]
    events = TimedEvents.from_list(*given, **sizes)
    assert list(events) == kept(listed)
    assert not any(
        np.shares_memory(getattr(events, name), one) for name, one in zip(kinds, given, strict=True)
    )


@given(listed_events(), st.data())
def test_windows(drawn, data):
    listed, sizes = drawn
    events = from_rows(listed, **sizes)
    # Cuts at events too: what is at the end of a window is not in it.
    cuts = st.floats(sizes["start"], sizes["stop"])
    if listed:
        cuts = st.sampled_from([row[0] for row in listed]) | cuts
    first, second = sorted((data.draw(cuts), data.draw(cuts)))
    inside = events.window(first, second)
    inside.check()
    assert list(inside) == [row for row in kept(listed) if first <= row[0] < second]
    assert (inside.start, inside.stop) == (first, second)
    assert inside.window(first, second).equal(inside)
    parts = [events.window(sizes["start"], first), inside, events.window(second, sizes["stop"])]
    assert [row for part in parts for row in part] == list(events)


@given(listed_events(), st.data())
def test_two_events_at_once_are_refused(drawn, data):
    listed, sizes = drawn
    listed = [row for row in listed if row[3] != 0]
    if not listed:
        return
    time, lane, unit, _ = data.draw(st.sampled_from(listed))
    with pytest.raises(StimulusError, match=f"two events of unit {unit} at .* ms, lane {lane}; sum or drop"):
        from_rows([*listed, (time, lane, unit, 1.0)], **sizes)
    # A zero is no event.
    assert len(from_rows([*listed, (time, lane, unit, 0.0)], **sizes)) == len(listed)


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ((5.0, 0, 0, 1.0), r"event 1 is at 5\.0 ms; times lie in \[1\.0, 5\.0\)"),
        ((0.9, 0, 0, 1.0), r"event 1 is at 0\.9 ms"),
        ((np.nan, 0, 0, 1.0), "event 1 has time nan; give finite times"),
        ((np.inf, 0, 0, 1.0), "event 1 has time inf"),
        ((2.0, 2, 0, 1.0), r"event 1 has lane 2; lanes lie in 0\.\.1"),
        ((2.0, -1, 0, 1.0), "event 1 has lane -1"),
        ((2.0, 0, 3, 1.0), r"event 1 has unit 3; units lie in 0\.\.2"),
        ((2.0, 0, 2**32, 1.0), "event 1 has unit 4294967296"),
        ((2.0, 0, 0.5, 1.0), "units are of dtype float64; give integers"),
        ((2.0, 0, 0, np.nan), "event 1 has value nan; give finite values"),
        ((2.0, 0, 0, -np.inf), "event 1 has value -inf"),
        (("x", 0, 0, 1.0), "times are not numbers"),
        ((2.0, 0, 0, "x"), "values are not numbers"),
    ],
)
def test_what_is_no_event_is_refused(row, match):
    with pytest.raises(StimulusError, match=rf"source 'cue': {match}"):
        from_rows([(3.0, 1, 1, 1.0), row], **SIZES, where="source 'cue'")


def test_columns_must_be_equally_long():
    with pytest.raises(StimulusError, match="1 lanes for 2 values"):
        TimedEvents.from_list([1, 2], [0], [0, 0], [1, 1], **SIZES)


@pytest.mark.parametrize("window", [(-1.0, 2.0), (2.0, 1.0), (0.0, np.inf), (np.nan, 1.0)])
def test_windows_are_refused_that_are_none(window):
    with pytest.raises(StimulusError, match="the window is from"):
        TimedEvents.from_list([], [], [], [], n_units=1, n_lanes=1, start=window[0], stop=window[1])


def test_a_window_beyond_the_events_is_refused():
    for window in ((0.0, 2.0), (2.0, 6.0), (3.0, 2.0)):
        with pytest.raises(StimulusError, match="there is no window"):
            TimedEvents.empty(**SIZES).window(*window)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint64, np.int16, np.int64])
def test_integers_of_any_width(dtype):
    index = np.array([1, 0], dtype)
    events = TimedEvents.from_list([2, 2], index, index, np.float32([1, 2]), **SIZES)
    assert list(events) == [(2.0, 0, 0, 2.0), (2.0, 1, 1, 1.0)]


def test_negative_zero_is_zero():
    sizes = SIZES | {"start": 0.0}
    assert not np.signbit(TimedEvents.from_list([-0.0], [0], [0], [1.0], **sizes).time[0])


def test_rates():
    events = TimedEvents.from_list([1, 2, 3], [0, 0, 1], [0, 1, 2], [1, 1, 1], **SIZES)
    assert events.rate == pytest.approx(3 / (3 * 2 * 4e-3))
    assert TimedEvents.empty(**SIZES).rate == 0
    assert TimedEvents.empty(3, 1, 2.0, 2.0).rate == 0
    assert repr(events) == "TimedEvents(3 of 3 units x 2 lanes, 1 to 5 ms)"


def test_equality_is_of_window_and_bits():
    listed = [(2.0, 0, 0, 1.0), (3.0, 0, 0, 1.0)]
    events = from_rows(listed, **SIZES)
    assert events.equal(from_rows(listed, **SIZES))
    for size, other in (("n_units", 4), ("n_lanes", 3), ("start", 0.5), ("stop", 6.0)):
        assert not events.equal(from_rows(listed, **SIZES | {size: other}))
    for k, other in enumerate([np.nextafter(3.0, 4.0), 1, 1, 2.0]):
        changed = [*listed[1][:k], other, *listed[1][k + 1 :]]
        assert not events.equal(from_rows([listed[0], tuple(changed)], **SIZES))


def test_check_sees_what_from_list_would_not_make():
    time, index, value = np.array([2.0, 3.0]), np.zeros(2, np.int32), np.ones(2)

    def check(time=time, lane=index, unit=index, value=value):
        TimedEvents(3, 2, 1.0, 5.0, time, lane, unit, value).check("source 'cue'")

    check()
    for changed, match in (
        ({"time": time.astype(np.float32)}, "times have dtype float32"),
        ({"unit": index[:1]}, r"units have dtype int32 and shape \(1,\)"),
        ({"time": time[::-1].copy()}, r"= \(2\.0, 0, 0\) comes after \(3\.0, 0, 0\)"),
        ({"time": np.array([2.0, 2.0])}, r"= \(2\.0, 0, 0\) comes after \(2\.0, 0, 0\)"),
        ({"time": np.array([2.0, np.nan])}, "at nan ms"),
        ({"time": np.array([2.0, 5.0])}, r"at 5\.0 ms"),
        ({"value": np.array([1.0, 0.0])}, r"value 0\.0"),
        ({"value": np.array([1.0, np.inf])}, "value inf"),
        ({"lane": np.array([0, 2], np.int32)}, "lane 2"),
        ({"unit": np.array([0, -1], np.int32)}, "unit -1"),
    ):
        with pytest.raises(StimulusError, match=rf"source 'cue': .*{match}"):
            check(**changed)
