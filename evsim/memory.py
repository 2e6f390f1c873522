"""Memory of arrays that the core reads: where it begins, and that it is kept for the next step."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from evsim.core.memory import empty


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
