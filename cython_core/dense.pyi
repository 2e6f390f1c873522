import numpy as np
from numpy.typing import DTypeLike, NDArray

def first_beyond(array: NDArray[np.floating], limit: float = ...) -> int: ...
def increasing(time: NDArray[np.float64], value: NDArray[np.float64], start: float, stop: float) -> bool: ...
def to_events(array: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray] | None: ...
def from_tokens(
    tokens: NDArray[np.int64], n_units: int, values: DTypeLike
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray] | None: ...
def from_events(
    shape: tuple[int, int, int], ptr: NDArray[np.int64], unit: NDArray[np.int32], value: NDArray
) -> NDArray: ...
def joined(
    ptr: NDArray[np.int64],
    unit: NDArray[np.int32],
    value: NDArray,
    later_ptr: NDArray[np.int64],
    later_unit: NDArray[np.int32],
    later_value: NDArray,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray]: ...
