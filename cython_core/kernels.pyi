import numpy as np
from numpy.typing import NDArray

def use(name: str = "") -> str: ...
def available() -> list[str]: ...
def in_use() -> str: ...
def gates(x: NDArray[np.floating], s: NDArray[np.floating], t: NDArray[np.floating]) -> None: ...
def adam_step(
    gradients: list[NDArray[np.floating]],
    means: list[NDArray[np.floating]],
    squares: list[NDArray[np.floating]],
    values: list[NDArray[np.floating]],
    keeps: list[float],
    first: float,
    second: float,
    correct: float,
    rate: float,
    eps: float,
) -> None: ...
def sum_of_squares(arrays: list[NDArray[np.floating]]) -> float: ...
