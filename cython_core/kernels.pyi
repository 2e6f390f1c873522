import numpy as np
from numpy.typing import NDArray

def use(name: str = "") -> str: ...
def available() -> list[str]: ...
def in_use() -> str: ...
def gates(x: NDArray[np.floating], s: NDArray[np.floating], t: NDArray[np.floating]) -> None: ...
def adam_step(
    gradient: NDArray[np.floating],
    mean: NDArray[np.floating],
    square: NDArray[np.floating],
    values: NDArray[np.floating],
    first: float,
    second: float,
    correct: float,
    rate: float,
    eps: float,
    keep: float,
) -> None: ...
def sum_of_squares(x: NDArray[np.floating]) -> float: ...
