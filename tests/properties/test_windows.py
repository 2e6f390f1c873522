"""Training windows: each id is predicted once, from the id before it, in the lane where that id was read."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from evsim.data.text import windows


@st.composite
def cases(draw):
    lanes = draw(st.integers(1, 7))
    size = draw(st.integers(lanes + 1, 120))
    length = draw(st.integers(1, 40))
    return size, lanes, length


@settings(deadline=None)
@given(cases())
def test_nothing_is_skipped_or_repeated(case):
    size, lanes, length = case
    # Ids are their own positions, so that a lane can be checked for order and place.
    pairs = list(windows(np.arange(size), lanes, length))
    steps = (size - 1) // lanes
    inputs = np.concatenate([pair[0] for pair in pairs])
    targets = np.concatenate([pair[1] for pair in pairs])
    assert inputs.shape == targets.shape == (steps, lanes)
    np.testing.assert_array_equal(targets, inputs + 1)
    np.testing.assert_array_equal(targets.T.ravel(), np.arange(1, steps * lanes + 1))
    assert size - 1 - targets.size < lanes


@settings(deadline=None)
@given(cases())
def test_only_the_last_window_is_shorter(case):
    size, lanes, length = case
    times = [inputs.shape[0] for inputs, _ in windows(np.arange(size), lanes, length)]
    assert all(time == length for time in times[:-1])
    assert 1 <= times[-1] <= length


@settings(deadline=None)
@given(cases())
def test_the_lanes_do_not_depend_on_the_length_of_a_window(case):
    size, lanes, length = case
    ids = np.random.default_rng(size).integers(0, 50, size=size)
    whole = next(windows(ids, lanes, size))
    cut = [np.concatenate(part) for part in zip(*windows(ids, lanes, length), strict=True)]
    for one, other in zip(whole, cut, strict=True):
        np.testing.assert_array_equal(one, other)
