"""Arrays that the core makes and reads: where they begin, blocks used again, events of dense ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evsim.core import kernels
from evsim.core.dense import first_beyond, increasing, to_events
from evsim.core.memory import copy, empty, let_go, zeros
from evsim.memory import aligned

FLOAT = np.dtype(np.float32)
MIB = 1 << 20


@pytest.fixture(autouse=True)
def nothing_kept():
    let_go()
    yield
    let_go()


def address(array):
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize("make", [empty, zeros])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (5, 0), (7, 3), (33, 1000), (3, 1 << 20)])
def test_arrays_begin_at_a_cache_line(make, shape):
    array = make(shape, FLOAT)
    assert (array.shape, array.dtype) == (shape, FLOAT)
    assert array.flags.carray
    assert address(array) % 64 == 0
    array[...] = 1


def test_a_copy_is_contiguous():
    given = np.arange(12.0).reshape(3, 4).T
    copy = aligned(given, np.float32)
    np.testing.assert_array_equal(copy, given)
    assert copy.dtype == FLOAT
    assert copy.flags.carray
    assert not np.shares_memory(copy, given)


def test_a_copy_of_the_core_is_an_array_of_its_own():
    given = np.arange(12.0).reshape(3, 4)
    copied = copy(given)
    given[:] = 0
    np.testing.assert_array_equal(copied, np.arange(12.0).reshape(3, 4))
    with pytest.raises(ValueError, match="not contiguous"):
        copy(given.T)


@pytest.mark.parametrize("size", [5000, 30_000, 500_000, 4 * MIB])
def test_large_blocks_are_used_again_and_zeros_are_zero(size):
    first = empty((size,), FLOAT)
    where = address(first)
    first[:] = 1
    del first
    again = zeros((size - size // 100,), FLOAT)  # about the same size
    assert address(again) == where
    assert not again.any()


@pytest.mark.parametrize("dtype", [">f4", "O", "S3", [("a", "f4")]])
def test_what_is_no_number_of_this_machine_is_refused(dtype):
    with pytest.raises(ValueError, match="an array of 1 axes"):
        empty((3,), np.dtype(dtype))
    with pytest.raises(ValueError, match="an array of 9 axes"):
        empty((1,) * 9, FLOAT)


def test_the_core_reads_only_arrays_of_its_own_kinds():
    """Of the right type, size and byte order, one behind the other."""
    column = np.arange(1.0, 5.0)
    assert increasing(column, column, 0.0, 9.0)
    for wrong in (
        column.astype(">f8"),
        column.astype("f4"),
        column.astype("i8"),
        np.arange(8.0)[::2],
        column[:3],
    ):
        with pytest.raises(ValueError, match="does not fit"):
            increasing(column, wrong, 0.0, 9.0)
    with pytest.raises(ValueError, match="does not fit"):
        first_beyond(column.astype("f4").astype(">f4"))
    with pytest.raises(TypeError):
        increasing(column, memoryview(column), 0.0, 9.0)


def test_small_blocks_are_not_kept():
    del [empty((1000,), FLOAT) for _ in range(9)][:]
    assert let_go() == 0


def test_arrays_of_other_lengths_have_the_same_blocks():
    """As in training on trials each of another length, whose arrays are to stay in the cache."""
    del [empty((n,), FLOAT) for n in (16_000, 8200)][:]  # both live at once: two blocks of 64 KiB
    lengths = [empty((n,), FLOAT) for n in (9000, 12_345)]
    assert let_go() == 0
    del lengths[:]
    assert let_go() == 2 << 16


def test_no_more_is_kept_than_256_mib():
    arrays = [empty((n * MIB,), np.dtype(np.uint8)) for n in (100, 50, 100, 60)]
    while arrays:
        arrays.pop(0)  # the first one has to go when the last one comes
    assert let_go() == 216 * MIB  # 52 + 104 + 60: rounded to 4, 8 and 4 MiB
    del [empty((300 * MIB,), np.dtype(np.uint8))][:]
    assert let_go() == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=40))
def test_live_arrays_never_share_memory(steps):
    """Of arrays that come and go, each keeps what was written into it."""
    alive = []
    for number, (take, size) in enumerate(steps):
        if take or not alive:
            array = empty((size * MIB // 4,), FLOAT)
            array[:: 1 << 16] = number
            alive.append((number, array))
        else:
            alive.pop(size % len(alive))
        for written, array in alive:
            assert (array[:: 1 << 16] == written).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(
    st.tuples(st.integers(0, 9), st.integers(1, 3), st.sampled_from([1, 2, 15, 16, 17, 64, 131])),
    st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    st.integers(0, 99),
)
def test_events_of_a_dense_array_are_its_entries_other_than_zero(dtype, shape, density, seed):
    """On all paths; -0 is no event, and what is no finite number is not listed but told."""
    rng = np.random.default_rng(seed)
    dense = (rng.standard_normal(shape) * (rng.random(shape) < density)).astype(dtype)
    used = kernels.in_use()
    for path in kernels.available():
        kernels.use(path)
        ptr, unit, value = to_events(dense)
        steps, lanes, units = np.nonzero(dense)
        np.testing.assert_array_equal(unit, units)
        np.testing.assert_array_equal(value, dense[dense != 0])
        expected = np.searchsorted(steps * shape[1] + lanes, np.arange(shape[0] * shape[1] + 1))
        np.testing.assert_array_equal(ptr, expected)
        for wrong in (np.nan, -np.inf) if dense.size else ():
            spoilt = dense.copy()
            spoilt.flat[rng.integers(dense.size)] = wrong
            assert to_events(spoilt) is None
    kernels.use(used)
