"""Weights in bfloat16 and int8: rounding, storage, and the kernels against sums by NumPy, bit for bit."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evsim.core import kernels
from evsim.narrow_weights import from_bfloat16, strips, to_bfloat16, to_int8
from oracles.int8_sums import add_int8


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
    shorts = words.view(np.uint16).reshape(4, 32)  # strip, word
    for block in range(2):
        for column in range(128):
            k, i, upper, in_high_byte = column % 16 // 4, column % 4, column % 64 // 32, column % 32 // 16
            word = int(shorts[2 * block + column // 64, 8 * k + 4 * upper + i])
            found = (
                np.int8(word >> 8 if word < 2**15 else (word >> 8) - 256)
                if in_high_byte
                else word % 256 - 128
            )
            assert found == (whole[0, 80 * block + column] if column < 80 else 0)


def test_order_of_the_strips_of_bfloat16():
    narrow = np.arange(1, 81, dtype=np.uint16).reshape(1, 80)  # 2 blocks of 40 columns: two strips each
    words = strips(narrow, 2)
    assert words.shape == (1, 64)
    fields = np.stack([words % 2**16, words >> 16]).reshape(2, 4, 16)  # field, strip, word
    for block in range(2):
        for column in range(64):
            found = fields[column % 32 // 16, 2 * block + column // 32, column % 16]
            assert found == (narrow[0, 40 * block + column] if column < 40 else 0)


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


def add_floats(target, unit, value, factor, widened):
    """One rounded product and sum per event."""
    for u, v in zip(unit, value, strict=True):
        target += target.dtype.type(v * factor[u]) * widened[u]


def narrow_sums(unit, value, rows, start, scale=None):
    """What the kernels add, on all paths."""

    def run():
        target = start.copy()
        kernels.add_narrow(unit, value, rows, target, scale)
        return target

    return on_each_path(run)


def check(case, dtype, rows, expect):
    """Each block, as the core asks for it; ``expect`` adds to a target what it should get."""
    _, n_blocks, unit, value, start = case
    block, words = len(start) // n_blocks, rows.shape[1] // n_blocks
    value, start = value.astype(dtype), start.astype(dtype)
    for b in range(n_blocks):
        place = slice(b * block, (b + 1) * block)
        mine = np.ascontiguousarray(rows[:, b * words : (b + 1) * words])
        expected = start[place].copy()
        scale = expect(expected, unit, value, place)
        np.testing.assert_array_equal(narrow_sums(unit, value, mine, start[place], scale), expected)


@given(cases(), st.sampled_from([np.dtype("f4"), np.dtype("f8")]))
def test_bfloat16_rows(case, dtype):
    narrow = to_bfloat16(case[0])
    widened, one = from_bfloat16(narrow).astype(dtype), np.ones(len(narrow), dtype)

    def expect(target, unit, value, place):
        add_floats(target, unit, value, one, widened[:, place])

    check(case, dtype, strips(narrow, case[1]), expect)


@given(cases(), st.sampled_from([np.dtype("f4"), np.dtype("f8")]))
def test_int8_rows(case, dtype):
    whole, scale = to_int8(case[0].astype(dtype))

    def expect(target, unit, value, place):
        add_int8(target, unit, value, scale, whole[:, place])
        return scale

    check(case, dtype, strips(whole, case[1]), expect)


def draw_int8(dtype, n_rows=400, columns=100, n_events=200, seed=0):
    """Rows, their weights and scales, and events."""
    rng = np.random.default_rng(seed)
    whole = rng.integers(-127, 128, (n_rows, columns), dtype=np.int8)
    scale = (10.0 ** rng.uniform(-4, 0, n_rows)).astype(dtype)
    unit = rng.integers(n_rows, size=n_events).astype(np.int32)
    return strips(whole, 1), whole, scale, unit, rng.normal(size=n_events).astype(dtype)


DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


@DTYPES
@pytest.mark.parametrize("n_events", [1, 2, 3, 4, 5, 1023, 1024, 1025, 2049, 3000])
def test_any_number_of_events(dtype, n_events):
    """More than a block of them; some values are zero, and some too small to count."""
    rows, whole, scale, unit, value = draw_int8(dtype, n_events=n_events, seed=n_events)
    value[::7] *= 0
    value[3::11] *= np.float32(1e-30)
    start = np.linspace(-1, 1, whole.shape[1], dtype=dtype)
    expected = start.copy()
    add_int8(expected, unit, value, scale, whole)
    np.testing.assert_array_equal(narrow_sums(unit, value, rows, start, scale), expected)


@DTYPES
@pytest.mark.parametrize("columns", [1, 63, 64, 3072, 3073, 6200])
def test_int8_rows_of_any_length(dtype, columns):
    rows, whole, scale, unit, value = draw_int8(dtype, 9, columns, 11)
    start = np.linspace(-1, 1, columns, dtype=dtype)
    expected = start.copy()
    add_int8(expected, unit, value, scale, whole)
    np.testing.assert_array_equal(narrow_sums(unit, value, rows, start, scale), expected)


@DTYPES
def test_the_order_of_a_block_does_not_matter(dtype):
    rows, whole, scale, unit, value = draw_int8(dtype, n_events=1024)
    start = np.zeros(whole.shape[1], dtype)
    expected = narrow_sums(unit, value, rows, start, scale)
    order = np.random.default_rng(1).permutation(1024)
    np.testing.assert_array_equal(narrow_sums(unit[order], value[order], rows, start, scale), expected)
    with_zeros = np.repeat(value[order], 3) * np.tile([0, 1, 0], 1024).astype(dtype)
    np.testing.assert_array_equal(
        narrow_sums(np.repeat(unit[order], 3), with_zeros, rows, start, scale), expected
    )


@DTYPES
@pytest.mark.parametrize("weight", [-127, 127])
@pytest.mark.parametrize("factor", [2 - 2**-23, 1 + 2**-14, 1 - 2**-14, -1 - 2**-14 + 2**-28, -2 + 2**-28])
def test_the_largest_sums(dtype, weight, factor):
    """The largest halves of either sign, 1,024 times: 2^31 is just not reached."""
    whole = np.full((1, 70), weight, np.int8)
    value, scale = np.full(1024, factor, dtype), np.ones(1, dtype)
    expected, start = np.zeros(70, dtype), np.zeros(70, dtype)
    add_int8(expected, np.zeros(1024, int), value, scale, whole)
    found = narrow_sums(np.zeros(1024, np.int32), value, strips(whole, 1), start, scale)
    np.testing.assert_array_equal(found, expected)
    exact = 1024 * weight * float(value[0])
    np.testing.assert_allclose(found, exact, rtol=2 * np.finfo(dtype).eps)


@DTYPES
@pytest.mark.parametrize("spread", [0, 3, 12])
def test_int8_sums_are_as_near_as_is_said(dtype, spread):
    rows, whole, scale, unit, value = draw_int8(dtype)
    value *= (10.0 ** np.random.default_rng(2).uniform(-spread, 0, len(value))).astype(dtype)
    found = narrow_sums(unit, value, rows, np.zeros(whole.shape[1], dtype), scale)
    factor = [Fraction(float(v)) * Fraction(float(scale[u])) for u, v in zip(unit, value, strict=True)]
    largest, half = max(map(abs, factor)), Fraction(float(np.finfo(dtype).eps)) / 2
    for column in range(whole.shape[1]):
        weight = [int(w) for w in whole[unit, column]]
        exact = sum(f * w for f, w in zip(factor, weight, strict=True))
        near = sum(map(abs, weight)) * largest / 2**29
        rounded = 3 * half * (abs(exact) + near)  # of both halves and their sum
        assert abs(Fraction(float(found[column])) - exact) <= near + rounded


@DTYPES
@pytest.mark.parametrize("odd", [[np.inf], [-np.inf, 1e-3], [np.inf, -np.inf], [np.nan], [np.nan, np.inf]])
def test_nothing_that_is_not_finite_gets_lost(dtype, odd):
    rows, whole, scale, unit, value = draw_int8(dtype, n_events=21)
    value[3 : 3 + len(odd)] = odd
    expected = np.zeros(whole.shape[1], dtype)
    with np.errstate(invalid="ignore"):
        add_floats(expected, unit, value, scale, whole.astype(dtype))
    assert not np.isfinite(expected).any()
    found = narrow_sums(unit, value, rows, np.zeros(whole.shape[1], dtype), scale)
    np.testing.assert_array_equal(found, expected)


@DTYPES
def test_sums_that_are_too_large(dtype):
    """Of finite factors they are infinite; with a factor that is too large, what floats make of it."""
    rows, whole, scale, unit, value = draw_int8(dtype, n_events=21)
    scale[:], start = 1, np.zeros(whole.shape[1], dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        value[::2] = np.finfo(dtype).max
        expected = start.copy()
        add_int8(expected, unit, value, scale, whole)
        assert np.isinf(expected).any()
        np.testing.assert_array_equal(narrow_sums(unit, value, rows, start, scale), expected)
        scale[unit[4]] = 2
        expected = start.copy()
        add_floats(expected, unit, value, scale, whole.astype(dtype))
        np.testing.assert_array_equal(narrow_sums(unit, value, rows, start, scale), expected)


@DTYPES
def test_denormal_factors(dtype):
    rows, whole, scale, unit, value = draw_int8(dtype, n_events=21)
    value[:] = np.finfo(dtype).smallest_subnormal * np.arange(len(value))
    scale[:], expected = 3, np.zeros(whole.shape[1], dtype)
    add_floats(expected, unit, value, scale, whole.astype(dtype))
    assert np.count_nonzero(expected) > 80
    np.testing.assert_array_equal(narrow_sums(unit, value, rows, 0 * expected, scale), expected)


@pytest.mark.parametrize(("dtype", "least"), [("float32", -98), ("float64", -994)])
def test_where_factors_become_small(dtype, least):
    """The unit is a normal number down to a power of 2; below it sums are those of floats."""
    rows, whole, scale, unit, value = draw_int8(dtype, n_events=21)
    scale[:], value = 1, value / np.abs(value).max()
    for power, by in ((least + 1, add_int8), (least, add_int8), (least - 1, add_floats)):
        small = (value * 2.0**power).astype(dtype)
        expected = np.zeros(whole.shape[1], dtype)
        by(expected, unit, small, scale, whole.astype(dtype) if by is add_floats else whole)
        found = narrow_sums(unit, small, rows, np.zeros(whole.shape[1], dtype), scale)
        np.testing.assert_array_equal(found, expected)


@DTYPES
def test_zeros_add_nothing(dtype):
    rows, whole, scale, unit, value = draw_int8(dtype, n_events=9)
    start = np.linspace(-1, 1, whole.shape[1], dtype=dtype)
    for values, scales in ((0 * value, scale), (value, 0 * scale)):
        np.testing.assert_array_equal(narrow_sums(unit, values, rows, start, scales), start)


@DTYPES
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
