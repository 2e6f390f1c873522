"""Memory that one training step frees is kept for the next."""

from __future__ import annotations

import numpy as np


def keep_freed_memory() -> None:
    """Have the C library keep what is freed, up to some 60 MB, instead of giving it back at once.

    Each step of training frees a few arrays (tape, gradients) that the next one needs again.  glibc returns
    the free top of its heap to the system once that exceeds twice the largest block that was ever mapped on
    its own and freed; then every step faults all its pages in anew, which can take as long as its arithmetic.
    So one large block is freed here, without having been touched.  Where the environment sets ``MALLOC_``
    thresholds, and with other C libraries, this does nothing.
    """
    np.empty(31 << 20, np.uint8)  # glibc does not follow blocks of 32 MiB and more
