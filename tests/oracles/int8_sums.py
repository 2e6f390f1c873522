"""Sums of int8 weights in 64-bit integers, as the head of narrow_weights.py defines them."""

import math

import numpy as np
from numpy.typing import NDArray

#: Events that are added together.
BLOCK = 1024


def add_int8(target: NDArray, unit: NDArray, value: NDArray, scale: NDArray, whole: NDArray) -> None:
    """Add rows ``unit`` of scale * whole, times the values, to a target; all factors are finite."""
    factor = value.astype(np.float64) * scale[unit]
    if not factor.any():
        return
    one = 2.0 ** (math.frexp(np.abs(factor).max())[1] - 29)
    multiple = np.rint(factor / one).astype(np.int64)
    rows, multiple = whole[unit[multiple != 0]].astype(np.int64), multiple[multiple != 0]
    real = target.dtype.type
    for first in range(0, len(multiple), BLOCK):
        high, low = np.divmod(multiple[first : first + BLOCK] + 2**14, 2**15)
        upper, lower = high @ rows[first : first + BLOCK], (low - 2**14) @ rows[first : first + BLOCK]
        assert max(np.abs(upper).max(), np.abs(lower).max()) < 2**31
        target += (upper.astype(real) * real(2**15) + lower.astype(real)) * real(one)
