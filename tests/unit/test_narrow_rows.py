"""Weights in bfloat16 and int8: rounding, storage, and the kernels against one sum after the other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evsim.core import kernels
from evsim.narrow_weights import from_bfloat16, strips, to_bfloat16, to_int8


def on_each_path(run):
    """What ``run`` returns, which must be the same bits on every instruction set."""
    before, results = kernels.in_use(), []
    try:
        for name in kernels.available():
            kernels.use(name)
            results.append(run())
    finally:
        kernels.use(before)
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)
    return results[0]


def test_every_bfloat16_is_kept():
    every = np.arange(2**16, dtype=np.uint16)
    numbers = from_bfloat16(every)
    np.testing.assert_array_equal(to_bfloat16(numbers)[~np.isnan(numbers)], every[~np.isnan(numbers)])
    assert np.isnan(from_bfloat16(to_bfloat16(numbers[np.isnan(numbers)]))).all()


def test_bfloat16_is_the_nearest_and_ties_are_even():
    lower = np.arange(0x7F7F, dtype=np.uint16)  # all finite positive ones but the largest
    low, high = from_bfloat16(lower), from_bfloat16(lower + 1)
    middle = low + (high - low) / 2  # exact in float32
    np.testing.assert_array_equal(to_bfloat16(middle), lower + lower % 2)
    np.testing.assert_array_equal(to_bfloat16(np.nextafter(middle, np.float32(0))), lower)
    np.testing.assert_array_equal(to_bfloat16(np.nextafter(middle, np.float32(np.inf))), lower + 1)
    np.testing.assert_array_equal(to_bfloat16(-middle), (lower + lower % 2) | 0x8000)


def test_bfloat16_of_numbers_without_a_neighbour():
    largest = np.finfo(np.float32).max
    numbers = np.array([np.inf, -np.inf, largest, -largest, np.nan], np.float32)
    np.testing.assert_array_equal(
        from_bfloat16(to_bfloat16(numbers)), np.array([np.inf, -np.inf, np.inf, -np.inf, np.nan], np.float32)
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_int8(dtype):
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(20, 300)).astype(dtype) * 10.0 ** rng.integers(-8, 3, (20, 1)).astype(dtype)
    weight[3] = 0
    whole, scale = to_int8(weight)
    assert scale.dtype == weight.dtype
    assert (np.abs(whole).max(axis=1) == np.where(scale > 0, 127, 0)).all()
    error = np.abs(whole * scale.astype(np.float64)[:, None] - weight)
    assert (error <= (0.5 + 1e-5) * scale[:, None]).all()
    np.testing.assert_array_equal(to_int8(-weight)[0], -whole)


def test_order_of_the_strips():
    whole = np.arange(-80, 80, dtype=np.int8).reshape(1, 160)  # 2 blocks of 80 columns: two strips each
    words = strips(whole, 2)
    assert words.shape == (1, 64)
    fields = words.view("<u4").view(np.int8).reshape(4, 16, 4)  # strip, word, field
    for block in range(2):
        for column in range(128):
            found = fields[2 * block + column // 64, column % 16, column % 64 // 16]
            assert found == (whole[0, 80 * block + column] if column < 80 else 0)


@st.composite
def cases(draw):
    """Weights of any shape, events with repeated units, where the sums begin."""
    n_rows, n_blocks = draw(st.integers(1, 9)), draw(st.integers(1, 4))
    block = draw(st.one_of(st.integers(1, 70), st.sampled_from([16, 32, 64, 96])))
    n_events = draw(st.integers(1, 21))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weight = rng.normal(size=(n_rows, n_blocks * block)) * 10.0 ** rng.integers(-3, 3, (n_rows, 1))
    weight[rng.random(n_rows) < 0.2] = 0
    unit = rng.integers(n_rows, size=n_events).astype(np.int32)
    return weight, n_blocks, unit, rng.normal(size=n_events), rng.normal(size=n_blocks * block)


def check(case, dtype, rows, widened, factor, scale):
    """Each block, as the core asks for it, against one rounded product and sum per event."""
    _, n_blocks, unit, value, start = case
    block, words = len(start) // n_blocks, rows.shape[1] // n_blocks
    value, start = value.astype(dtype), start.astype(dtype)
    for b in range(n_blocks):
        place = slice(b * block, (b + 1) * block)
        mine = np.ascontiguousarray(rows[:, b * words : (b + 1) * words])

        def run(mine=mine, place=place):
            target = start[place].copy()
            kernels.add_narrow(unit, value, mine, target, scale)
            return target

        expected = start[place].copy()
        for u, v in zip(unit, value, strict=True):
            expected += dtype.type(v * factor[u]) * widened[u, place]
        np.testing.assert_array_equal(on_each_path(run), expected)


@given(cases(), st.sampled_from([np.dtype("f4"), np.dtype("f8")]))
def test_bfloat16_rows(case, dtype):
    weight, n_blocks = case[:2]
    narrow = to_bfloat16(weight)
    check(
        case,
        dtype,
        strips(narrow, n_blocks),
        from_bfloat16(narrow).astype(dtype),
        np.ones(len(weight), dtype),
        None,
    )


@given(cases(), st.sampled_from([np.dtype("f4"), np.dtype("f8")]))
def test_int8_rows(case, dtype):
    weight, n_blocks = case[:2]
    whole, scale = to_int8(weight.astype(dtype))
    check(case, dtype, strips(whole, n_blocks), whole.astype(dtype), scale, scale)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_blocks_without_a_gap_are_one_row(dtype):
    """Blocks of whole strips lie side by side, so that one call does several of them."""
    rng = np.random.default_rng(2)
    whole, scale = to_int8(rng.normal(size=(5, 3 * 64)).astype(dtype))
    unit, value = np.array([3, 0, 4, 4, 1], np.int32), rng.normal(size=5).astype(dtype)
    together, apart = np.zeros(3 * 64, dtype), np.zeros(3 * 64, dtype)
    rows = strips(whole, 3)
    kernels.add_narrow(unit, value, rows, together, scale)
    for b in range(3):
        mine = np.ascontiguousarray(rows[:, 16 * b : 16 * b + 16])
        kernels.add_narrow(unit, value, mine, apart[64 * b : 64 * b + 64], scale)
    np.testing.assert_array_equal(together, apart)
