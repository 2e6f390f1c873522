"""Dense arrays to events and back, and the search for what is no number, against NumPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from evsim.core.dense import first_beyond, from_events, to_events
from evsim.errors import StimulusError
from evsim.events import Events

DTYPES = ["float32", "float64"]


@st.composite
def dense_arrays(draw, odd=(0.0, -0.0)):
    """(steps, lanes, units), any of them 0 too, mostly of the odd values and the extremes of the type."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    largest, smallest = float(np.finfo(dtype).max), float(np.finfo(dtype).smallest_subnormal)
    special = st.sampled_from([*odd, 1.0, largest, -largest, smallest, -smallest])
    elements = st.sampled_from(odd) | special | st.floats(-1e3, 1e3, width=32)
    shape = draw(arrays.array_shapes(min_dims=3, max_dims=3, min_side=0, max_side=9))
    return draw(arrays.arrays(dtype, shape, elements=elements))


@given(dense_arrays())
def test_events_are_what_is_not_zero(dense):
    ptr, unit, value = to_events(dense)
    step, lane, units = np.nonzero(dense)
    count = np.bincount(step * dense.shape[1] + lane, minlength=dense.shape[0] * dense.shape[1])
    np.testing.assert_array_equal(ptr, np.concatenate([[0], np.cumsum(count)]))
    np.testing.assert_array_equal(unit, units)
    np.testing.assert_array_equal(value, dense[step, lane, units])
    assert (ptr.dtype, unit.dtype, value.dtype) == (np.int64, np.int32, dense.dtype)
    back = from_events(dense.shape, ptr, unit, value)
    np.testing.assert_array_equal(back, dense)
    assert back.dtype == dense.dtype
    assert not np.signbit(back[back == 0]).any()


@given(dense_arrays(odd=(0.0, np.nan, -np.nan, np.inf, -np.inf)))
def test_the_first_that_is_not_finite_is_found(dense):
    wrong = np.flatnonzero(~np.isfinite(dense))
    assert first_beyond(dense) == (wrong[0] if wrong.size else -1)
    assert (to_events(dense) is None) == bool(wrong.size)
    if wrong.size:
        step, lane, unit = np.unravel_index(wrong[0], dense.shape)
        with pytest.raises(StimulusError, match=f"at step {step}, lane {lane}, unit {unit}; give finite"):
            Events.from_dense(dense, dense.dtype)


@given(dense_arrays(odd=(0.0, np.nan, np.inf)), st.floats(0, 1e3, width=32))
def test_the_first_beyond_a_limit_is_found(dense, limit):
    wrong = np.flatnonzero(~(np.abs(dense) <= limit))
    assert first_beyond(dense, limit) == (wrong[0] if wrong.size else -1)
    within = np.abs(dense[np.isfinite(dense)]).max(initial=0)
    assert first_beyond(np.array([within, -within], dense.dtype), within) == -1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("place", [0, 500, 4999])
def test_one_bad_value_among_thousands(dtype, place):
    dense = np.random.default_rng(0).normal(size=(5, 2, 500)).astype(dtype)
    assert first_beyond(dense) == -1
    dense.reshape(-1)[place] = np.nan
    assert first_beyond(dense) == place
    assert to_events(dense) is None


@pytest.mark.parametrize(
    ("ptr", "unit"),
    [
        ([0, 1, 2], [0, 3]),
        ([0, 1, 2], [-1, 0]),
        ([0, 1, 3], [0, 1]),
        ([0, 2, 1], [0, 1]),
        ([-1, 1, 2], [0, 1]),
    ],
)
def test_events_outside_the_array_are_refused(ptr, unit):
    columns = np.array(ptr), np.array(unit, np.int32), np.ones(2, np.float32)
    with pytest.raises(IndexError, match="outside"):
        from_events((2, 1, 3), *columns)
    with pytest.raises(IndexError, match="outside"):
        Events(3, 1, 2, *columns).to_dense()


def test_other_types_and_views_are_refused():
    for wrong in (np.zeros((2, 1, 3), np.int32), np.zeros((2, 1, 6), np.float32)[..., ::2]):
        with pytest.raises(ValueError, match=r"does not fit|not C-contiguous"):
            to_events(wrong)
        with pytest.raises(ValueError, match=r"does not fit|not C-contiguous"):
            first_beyond(wrong)


def test_any_array_becomes_events():
    """Other types, orders and strides are converted on the way in."""
    dense = np.random.default_rng(0).normal(size=(4, 2, 6)) * (np.arange(6) % 2)
    expected = Events.from_dense(dense.astype(np.float32))
    for array in (dense, np.asfortranarray(dense), dense.tolist(), np.repeat(dense, 2, axis=2)[..., ::2]):
        assert Events.from_dense(array).equal(expected)
