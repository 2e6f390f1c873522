"""Weights in bfloat16 or int8: how they are rounded, and the order in which the core reads them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Eight 32-bit words of a strip hold so many columns of each type.
STRIP_COLUMNS = {np.dtype(np.uint16): 16, np.dtype(np.int8): 32}


def to_bfloat16(weight: NDArray) -> NDArray[np.uint16]:
    """The upper halves of float32 numbers, rounded to nearest, ties to even.

    Parameters
    ----------
    weight : array of float
        float64 is first rounded to float32.

    Returns
    -------
    ndarray of uint16
        Of the same shape.  What is too large for bfloat16 becomes infinite; NaN stays NaN.
    """
    weight = np.asarray(weight, dtype=np.float32)
    bits = weight.view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(weight), 0x7FC0, rounded).astype(np.uint16)


def from_bfloat16(narrow: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The numbers that `to_bfloat16` kept."""
    return (narrow.astype(np.uint32) << 16).view(np.float32)


def to_int8(weight: NDArray) -> tuple[NDArray[np.int8], NDArray]:
    """Whole numbers from -127 to 127 and a factor per row, whose product is about the weights.

    Parameters
    ----------
    weight : array of float, shape (rows, columns)
        All finite.

    Returns
    -------
    whole : ndarray of int8, shape (rows, columns)
        Rounded to nearest, ties to even.
    scale : ndarray of the type of ``weight``, shape (rows,)
        Largest absolute value of the row / 127; 0 for a row of zeros.
    """
    scale = (np.abs(weight).max(axis=1, initial=0) / 127).astype(weight.dtype)
    whole = weight / np.where(scale > 0, scale, 1).astype(np.float64)[:, None]
    return np.clip(np.rint(whole), -127, 127).astype(np.int8), scale


def strips(narrow: NDArray, n_blocks: int) -> NDArray[np.uint32]:
    """Narrow weights in the order in which the core reads them (see narrow_rows.h).

    Each block of a row is cut into strips of eight words; field k of word j, counted from its low end, is
    column 8 k + j of the strip.  The last strip of a block is filled up with zeros.

    Parameters
    ----------
    narrow : ndarray of uint16 (bfloat16) or int8, shape (rows, n_blocks * columns)
    n_blocks : int

    Returns
    -------
    ndarray of uint32, shape (rows, words)
    """
    columns = STRIP_COLUMNS[narrow.dtype]
    fields, bits = columns // 8, 8 * narrow.itemsize
    n_rows, block = len(narrow), narrow.shape[1] // n_blocks
    whole = np.zeros((n_rows, n_blocks, -(-block // columns) * columns), f"u{narrow.itemsize}")
    whole[:, :, :block] = narrow.view(whole.dtype).reshape(n_rows, n_blocks, block)
    split = whole.reshape(n_rows, -1, fields, 8).astype(np.uint32)
    shift = (bits * np.arange(fields, dtype=np.uint32))[:, None]
    return np.ascontiguousarray(np.bitwise_or.reduce(split << shift, axis=2).reshape(n_rows, -1))
