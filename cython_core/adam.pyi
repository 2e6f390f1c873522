import numpy as np
from numpy.typing import NDArray

class Moments:
    def __init__(
        self,
        values: list[NDArray[np.floating]],
        means: list[NDArray[np.floating]],
        squares: list[NDArray[np.floating]],
    ) -> None: ...
    def step(
        self,
        gradients: list[NDArray[np.floating]],
        keeps: list[float],
        scale: float,
        first: float,
        second: float,
        correct: float,
        rate: float,
        eps: float,
    ) -> None: ...

def sum_of_squares(arrays: list[NDArray[np.floating]]) -> float: ...
