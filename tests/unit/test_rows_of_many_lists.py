"""Rows added up for many lists of events, on every path of this machine: bit by bit what a loop adds up."""

import ctypes

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from oracles.kernel_calls import ADDRESS, LONG, PATHS, kernel


class Events(ctypes.Structure):
    """EventList of event_list.h."""

    _fields_ = (
        ("unit", ADDRESS),
        ("value", ADDRESS),
        ("n", LONG),
        ("target", ADDRESS),
        ("macs", ADDRESS),
        ("next", LONG),
    )


KERNEL = ctypes.CFUNCTYPE(None, LONG, ADDRESS, ADDRESS, LONG, LONG, LONG, LONG, ctypes.c_int32)


def call(path, rows, lists, targets, length, place, fresh):
    """`add_rows_many` of a path."""
    made = [
        Events(unit.ctypes.data, value.ctypes.data, len(unit), target.ctypes.data, None, -1)
        for (unit, value), target in zip(lists, targets, strict=True)
    ]
    many = (Events * len(made))(*made)
    kernel(path, "add_rows_many", KERNEL, rows.dtype)(
        len(made), ctypes.addressof(many), rows.ctypes.data, *rows.shape, length, place, fresh
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(
    n_lists=st.integers(1, 90),
    n_rows=st.integers(1, 300),
    length=st.integers(1, 300),
    more=st.integers(0, 40),
    place=st.integers(0, 9),
    density=st.sampled_from([0.0, 0.02, 0.1, 0.5, 1.0]),
    fresh=st.booleans(),
    seed=st.integers(0, 99),
)
@example(70, 1100, 1000, 24, 3, 0.1, True, 1)  # beyond the second-level cache
@example(5, 64, 128, 0, 0, 1.0, False, 1)
@settings(max_examples=60, deadline=None)
def test_sums_are_those_of_a_loop(dtype, n_lists, n_rows, length, more, place, density, fresh, seed):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n_rows, length + more)).astype(dtype)
    units = [np.flatnonzero(rng.random(n_rows) < density).astype(np.int32) for _ in range(n_lists)]
    lists = [(unit, rng.standard_normal(len(unit)).astype(dtype)) for unit in units]
    before = rng.standard_normal((n_lists, place + length + 5)).astype(dtype)
    expected, columns = before.copy(), slice(place, place + length)
    for (unit, value), target in zip(lists, expected[:, columns], strict=True):
        target[...] = 0 if fresh else target
        for one, times in zip(unit, value, strict=True):
            target += times * rows[one, :length]
    for path in PATHS:
        targets = before.copy()
        call(path, rows, lists, targets, length, place, fresh)
        np.testing.assert_array_equal(targets, expected, err_msg=path.name.decode())
