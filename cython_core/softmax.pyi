import numpy as np
from numpy.typing import NDArray

def shift(
    logits: NDArray[np.floating], target: NDArray[np.int64], n: int
) -> tuple[NDArray, float, int, int]: ...
def differentiate(
    exponential: NDArray[np.floating], target: NDArray[np.int64], n: int, counted: int
) -> float: ...
