"""Weights in bfloat16 or int8, for inference: how they are rounded, and in which order the core reads them.

An event reads one row of weights, and narrow rows take a half or a quarter of the memory.  Only dense weights
are narrow: events, states, biases, thresholds and all sums are float32::

    bfloat16    w rounded to the upper half of a float32: 8 bits of precision
    int8        w = scale q, q from -127 to 127, with a scale for each row (one unit's outgoing weights)

In bfloat16 an event of value y adds y w, and sums run over events in the same order as of float32 weights: so
they have the bits of float32 sums of the rounded numbers.

In int8 sums are of integers, exact, so that their order does not matter.  Of the events of one step, lane
and projection the largest ``|y scale|`` decides on a unit: the power of 2 that goes 2^28 to 2^29 times into
it.  Each ``y scale`` becomes the nearest whole multiple p of the unit, ties to even::

    sum of p q = 2^15 H + L       p = 2^15 h + l, with l from -2^14 to 2^14 - 1
    target += unit (2^15 H + L)   in float32: H, L, 2^15 H + L and the new target are rounded

So before it is rounded what is added lies within ``sum of |q| * largest / 2^29`` of the exact sum.  Events
with p = 0 add nothing; more than 1,024 others are added 1,024 at a time.  Where the largest ``|y scale|`` is
infinite, no number, 2^128 or more, or less than 2^-98, sums are of floats: (y scale) q of one event after the
other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evsim.errors import NetworkError
from evsim.memory import aligned
from evsim.network import Network
from evsim.projection import Projection

#: What weights can be narrowed to.
FORMATS = ("bfloat16", "int8")
#: 32-bit words of a strip, and how many columns of each type they hold.
STRIP_WORDS = 16
STRIP_COLUMNS = {np.dtype(np.uint16): 2 * STRIP_WORDS, np.dtype(np.int8): 4 * STRIP_WORDS}


@dataclass(frozen=True, eq=False)
class NarrowRows:
    """Narrow weights of a dense projection, as the core reads them.

    Attributes
    ----------
    kind : str
        One of `FORMATS`.
    words : ndarray of uint32, shape (rows, words), read-only
        See `strips`.
    scale : ndarray of float32, shape (rows,), read-only, or None
        Of int8: the factor of each row.
    """

    kind: str
    words: NDArray[np.uint32]
    scale: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        for array in (self.words, self.scale):
            if array is not None:
                array.setflags(write=False)

    @property
    def bits(self) -> int:
        """Bits of one weight."""
        return 8 if self.kind == "int8" else 16

    @property
    def nbytes(self) -> int:
        """Bytes of all weights and factors."""
        return self.words.nbytes + (0 if self.scale is None else self.scale.nbytes)


def narrow(network: Network, weights: str) -> Network:
    """A copy of a network for inference, whose dense weights the core reads in fewer bits.

    Everything that takes a network takes it, but `Adjoint` and what trains.  Values of its dense weights are
    the rounded numbers, in float32 and read-only; thresholds and biases can be set as before.  Sparse
    projections stay as they are, in float32.

    Parameters
    ----------
    network : Network
        In float32; it stays as it is.
    weights : {"bfloat16", "int8"}
        2 bytes for each weight, or 1 and 4 for each row; see the head of this file.

    Returns
    -------
    Network
        With the same names.

    Raises
    ------
    NetworkError
        Another format, a network in float64, in fixed point or with narrow weights.
    ParameterError
        A weight that is too large once it is rounded.
    """
    if weights not in FORMATS:
        raise NetworkError("narrow", f"unknown weights {weights!r}", f"use one of {FORMATS}")
    if network.continuous:
        raise NetworkError(
            "network", f"in continuous time has no {weights} weights", "narrow one with dt in ms"
        )
    if network.narrow is not None:
        raise NetworkError("network", f"has {network.narrow} weights", "narrow the one it was made from")
    if network.fixed_point is not None:
        raise NetworkError("network", f"is in {network.fixed_point!r}", "narrow the one it was made from")
    if network.dtype != np.float32:
        raise NetworkError("network", f"is in {network.dtype}", "narrow network.copy('float32')")
    twin = network.copy()
    for projection in twin.projections.values():
        if not projection.is_sparse:
            _narrow(projection, weights)
    twin.narrow = weights
    return twin


def _narrow(projection: Projection, kind: str) -> None:
    """Round the weights of a dense projection."""
    values = projection.weight.values
    if kind == "int8":
        whole, scale = to_int8(values)
        projection.narrow = NarrowRows(kind, strips(whole, projection.n_blocks), scale)
        with np.errstate(over="ignore"):
            rounded = whole * scale[:, None]
    else:
        upper = to_bfloat16(values)
        projection.narrow = NarrowRows(kind, strips(upper, projection.n_blocks))
        rounded = from_bfloat16(upper)
    projection.weight = replace(projection.weight, values=rounded, read_only=True)


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

    Each block of a row is cut into strips of sixteen words, the last of which is filled up with zeros.  In
    bfloat16 column 16 k + j of a strip is field k of word j, counted from its low end.  In int8 columns
    4 k + i and 32 + 4 k + i are in the low bytes of 16-bit words 8 k + i and 8 k + 4 + i (i < 4), with 128
    added, and those 16 further on in the high bytes.

    Parameters
    ----------
    narrow : ndarray of uint16 (bfloat16) or int8, shape (rows, n_blocks * columns)
    n_blocks : int

    Returns
    -------
    ndarray of uint32, shape (rows, words)
    """
    columns = STRIP_COLUMNS[narrow.dtype]
    n_rows, block = len(narrow), narrow.shape[1] // n_blocks
    whole = np.zeros((n_rows, n_blocks, -(-block // columns) * columns), narrow.dtype)
    whole[:, :, :block] = narrow.reshape(n_rows, n_blocks, block)
    if narrow.dtype == np.int8:
        low, high = np.moveaxis(whole.reshape(-1, 2, 2, 4, 4).swapaxes(1, 3).astype(np.int16), 2, 0)
        words = (256 * high + low + 128).view(np.uint32)
    else:
        low, high = np.moveaxis(whole.reshape(-1, 2, STRIP_WORDS).astype(np.uint32), 1, 0)
        words = low | high << 16
    return aligned(words.reshape(n_rows, -1), np.uint32)
