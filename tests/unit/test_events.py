"""Event lists against dense arrays and plain Python lists."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from evsim.errors import StimulusError
from evsim.events import Events

SHAPES = arrays.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6)


@st.composite
def dense_arrays(draw, dtype=np.float32):
    shape = draw(SHAPES)
    elements = st.one_of(st.just(0.0), st.floats(-1e3, 1e3, width=32))
    return draw(arrays.arrays(dtype, shape, elements=elements))


def rows(dense):
    """(step, lane, unit, value) of all that is not zero, in order, by plain loops."""
    return [(*index, float(dense[index])) for index in np.ndindex(dense.shape) if dense[index] != 0]


@given(dense_arrays())
def test_dense_and_back(dense):
    events = Events.from_dense(dense)
    assert list(events) == rows(dense)
    assert len(events) == len(rows(dense))
    np.testing.assert_array_equal(events.to_dense(), dense)
    events.check()
    assert (events.ptr.dtype, events.unit.dtype, events.value.dtype) == (np.int64, np.int32, np.float32)
    assert events.activity == len(rows(dense)) / dense.size


@given(dense_arrays(), st.randoms(use_true_random=False))
def test_lists_in_any_order(dense, random):
    listed = rows(dense)
    random.shuffle(listed)
    columns = list(zip(*listed, strict=True)) if listed else [[], [], [], []]
    steps, lanes, units = dense.shape
    events = Events.from_list(*columns, n_units=units, n_lanes=lanes, n_steps=steps)
    assert events.equal(Events.from_dense(dense))


@given(dense_arrays(), st.data())
def test_windows_follow_each_other(dense, data):
    cut = data.draw(st.integers(0, len(dense)))
    events = Events.from_dense(dense)
    first, second = events.window(0, cut), events.window(cut, len(dense))
    assert first.equal(Events.from_dense(dense[:cut])) or cut == 0
    np.testing.assert_array_equal(second.to_dense(), dense[cut:])
    assert first.then(second).equal(events)


@given(dense_arrays())
def test_buckets(dense):
    events = Events.from_dense(dense)
    for step in range(dense.shape[0]):
        for lane in range(dense.shape[1]):
            units, values = events.at(step, lane)
            expected = np.nonzero(dense[step, lane])[0]
            np.testing.assert_array_equal(units, expected)
            np.testing.assert_array_equal(values, dense[step, lane, expected])


@given(
    arrays.arrays(
        np.int64, arrays.array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.integers(-1, 6)
    )
)
def test_tokens(tokens):
    events = Events.from_tokens(tokens, 7)
    expected = np.zeros((*tokens.shape, 7), np.float32)
    for index in np.ndindex(tokens.shape):
        if tokens[index] >= 0:
            expected[(*index, tokens[index])] = 1
    np.testing.assert_array_equal(events.to_dense(), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint64, np.int16, np.int64])
def test_integers_of_any_width(dtype):
    tokens = np.array([[0, 2], [1, 1]], dtype)
    expected = [(0, 0, 0, 1.0), (0, 1, 2, 1.0), (1, 0, 1, 1.0), (1, 1, 1, 1.0)]
    assert list(Events.from_tokens(tokens, 3)) == expected
    columns = [np.array(column, dtype) for column in zip(*[row[:3] for row in expected], strict=True)]
    assert list(Events.from_list(*columns, np.ones(4), n_units=3, n_lanes=2, n_steps=2)) == expected


def test_zeros_are_no_events():
    events = Events.from_list([0, 0], [0, 0], [1, 1], [0.0, 2.0], n_units=2, n_lanes=1, n_steps=1)
    assert list(events) == [(0, 0, 1, 2.0)]


def test_no_events():
    events = Events.empty(3, 2, 4, np.float64)
    assert len(events) == 0
    assert list(events) == []
    assert events.activity == 0
    assert events.to_dense().shape == (4, 2, 3)
    assert events.value.dtype == np.float64
    assert Events.empty(3, 2, 0).then(events.window(1, 3)).n_steps == 2
    assert Events.empty(3, 2, 0).activity == 0


def test_equality_is_of_window_and_bits():
    dense = np.zeros((2, 1, 3))
    dense[1, 0, 2] = 0.1
    events = Events.from_dense(dense, np.float64)
    assert events.equal(Events.from_dense(dense, np.float64))
    assert not events.equal(Events.from_dense(dense, np.float32))
    assert not events.equal(Events.from_dense(dense[::-1], np.float64))
    assert not events.equal(Events.from_dense(np.concatenate([dense, dense * 0]), np.float64))


def test_different_populations_do_not_follow_each_other():
    with pytest.raises(StimulusError, match="units and lanes must agree"):
        Events.empty(3, 1, 2).then(Events.empty(3, 2, 2))


def test_repr_says_how_many():
    assert repr(Events.empty(3, 2, 4)) == "Events(0 of 3 units x 2 lanes x 4 steps)"
