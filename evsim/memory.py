"""Memory of arrays: where it begins, that it is kept for the next step, and what need not be in memory."""

from __future__ import annotations

import mmap
from contextlib import suppress
from math import prod

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from evsim.core.memory import empty, page_out

#: Bytes of a mapped file that are looked at together, and those by which the system may map it.
PIECE, HUGE_PAGE = 8 << 20, 2 << 20


def keep_freed_memory() -> None:
    """Have the C library keep what is freed, up to some 60 MB, instead of giving it back at once.

    Each step of training frees a few arrays (tape, gradients) that the next one needs again.  glibc returns
    the free top of its heap to the system once that exceeds twice the largest block that was ever mapped on
    its own and freed; then every step faults all its pages in anew, which can take as long as its arithmetic.
    So one large block is freed here, without having been touched.  Where the environment sets ``MALLOC_``
    thresholds, and with other C libraries, this does nothing.
    """
    np.empty(31 << 20, np.uint8)  # glibc does not follow blocks of 32 MiB and more


def aligned(values: ArrayLike, dtype: DTypeLike) -> NDArray:
    """A C-contiguous copy in some type, from the start of a cache line on."""
    given = np.asarray(values)
    copy = empty(given.shape, np.dtype(dtype))
    copy[...] = given
    return copy


def is_mapped(values: NDArray) -> bool:
    """Whether an array lies in a file mapped copy-on-write, as by ``np.load(path, mmap_mode="c")``."""
    array: object = values
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return array.mode == "c"
        array = array.base
    return False


def ends(values: NDArray) -> tuple[float, float]:
    """The least and the largest value, NaN if any is; one at least.

    A mapped file is not in memory afterwards, but for what was written to it there, where the system can
    forget what it has read.
    """
    if not (is_mapped(values) and values.flags.c_contiguous):
        return values.min(), values.max()
    flat, step, start, found = values.reshape(-1), PIECE // values.itemsize, values.ctypes.data, []
    for piece in (flat[first : first + step] for first in range(0, flat.size, step)):
        found += [piece.min(), piece.max()]
        begin = max(start, piece.ctypes.data - HUGE_PAGE)  # with what the piece before shares with this one
        page_out(begin, piece.ctypes.data + piece.nbytes - begin)
    return np.min(found), np.max(found)


def zeros_by_page(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray:
    """As `numpy.zeros`, but only pages that are written to take memory, 4 kB each: for few rows of many."""
    try:
        pages = mmap.mmap(-1, prod(shape) * np.dtype(dtype).itemsize, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:
        raise MemoryError(f"no memory for an array of shape {shape}") from None
    with suppress(AttributeError, OSError):  # a system without huge pages
        pages.madvise(mmap.MADV_NOHUGEPAGE)
    return np.ndarray(shape, dtype, pages)
