"""Arrays for the core that begin with a cache line: a vector of eight is then one line, not parts of two."""

import math

import numpy as np
from numpy.typing import NDArray

#: Doubles of a cache line.
LINE = 8


def zeros(*shape: int) -> NDArray[np.float64]:
    """Float64 zeros of a shape."""
    count = math.prod(shape)
    room = np.zeros(count + LINE)
    first = -(room.ctypes.data // room.itemsize) % LINE
    return room[first : first + count].reshape(shape)


def copy(array: NDArray[np.float64]) -> NDArray[np.float64]:
    """A copy of a contiguous array."""
    made = zeros(*array.shape)
    made[...] = array
    return made
