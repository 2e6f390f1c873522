"""Rows times the vectors of the lanes that ask for them, on every path of this machine."""

import ctypes

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from oracles.kernel_calls import ADDRESS, LONG, PATHS, kernel

ROOM = 2048 * 16  # DOT_ROOM * DOT_SUMS of event_list.h


class Asking(ctypes.Structure):
    """Of event_list.h."""

    _fields_ = (("n_lanes", LONG), ("count", ADDRESS), ("lane", ADDRESS))


DOT_LANES = ctypes.CFUNCTYPE(None, LONG, ADDRESS, ADDRESS, LONG, LONG, ADDRESS, ADDRESS, ADDRESS)
DOT_ROWS = ctypes.CFUNCTYPE(None, LONG, ADDRESS, ADDRESS, LONG, LONG, ADDRESS, ADDRESS)


def pointers(arrays):
    """Addresses of some arrays; NULL for None."""
    return (ADDRESS * len(arrays))(*(None if array is None else array.ctypes.data for array in arrays))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(
    n_lanes=st.integers(1, 16),
    n_rows=st.integers(1, 300),
    length=st.integers(1, 300),
    more=st.integers(0, 40),
    density=st.sampled_from([0.0, 0.02, 0.3, 0.9, 1.0]),
    away=st.booleans(),
    seed=st.integers(0, 99),
)
@example(16, 300, 1101, 3, 1.0, False, 1)  # more columns than fit, and more pairs than have room at once
@example(16, 260, 1500, 0, 0.3, True, 1)
@example(3, 40, 5000, 0, 0.5, False, 1)
@settings(max_examples=60, deadline=None)
def test_products_are_those_of_numpy_and_bit_by_bit_those_of_one_lane(
    dtype, n_lanes, n_rows, length, more, density, away, seed
):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n_rows, length + more)).astype(dtype)
    vectors = rng.standard_normal((n_lanes, length)).astype(dtype)
    asks = rng.random((n_lanes, n_rows)) < density
    if away:  # a lane that has ended has no vector
        asks[0] = False
    count = asks.sum(axis=0).astype(np.uint8)
    lane = np.zeros((n_rows, n_lanes), np.uint8)
    for row in range(n_rows):
        lane[row, : count[row]] = np.flatnonzero(asks[:, row])
    asking = Asking(n_lanes, count.ctypes.data, lane.ctypes.data)
    before = rng.standard_normal((n_lanes, n_rows)).astype(dtype)
    exact = before + vectors.astype(float) @ rows[:, :length].astype(float).T
    room = np.empty(ROOM, dtype)
    for path in PATHS:
        one, many = before.copy(), before.copy()
        for vector, asked, out in zip(vectors, asks, one, strict=True):
            unit = np.flatnonzero(asked).astype(np.int32)
            total = out[unit]
            kernel(path, "dot_rows", DOT_ROWS, dtype)(
                len(unit),
                unit.ctypes.data,
                rows.ctypes.data,
                rows.shape[1],
                length,
                vector.ctypes.data,
                total.ctypes.data,
            )
            out[unit] = total
        kernel(path, "dot_lanes", DOT_LANES, dtype)(
            n_rows,
            ctypes.addressof(asking),
            rows.ctypes.data,
            rows.shape[1],
            length,
            pointers([None if away and k == 0 else vector for k, vector in enumerate(vectors)]),
            pointers(list(many)),
            room.ctypes.data,
        )
        np.testing.assert_array_equal(many, one, err_msg=path.name.decode())
        tolerance = 1e-4 if dtype == np.float32 else 1e-12
        np.testing.assert_allclose(many[asks], exact[asks], rtol=tolerance, atol=tolerance * length**0.5)
        np.testing.assert_array_equal(many[~asks], before[~asks])
