from typing import Any

import numpy as np
from numpy.typing import NDArray

def use(name: str = "", where: str = "kernels") -> str: ...
def available() -> list[str]: ...
def in_use() -> str: ...
def build() -> dict[str, Any]: ...
def gates(x: NDArray[np.floating], s: NDArray[np.floating], t: NDArray[np.floating]) -> None: ...

class Sparse:
    def __init__(
        self, ptr: NDArray[np.int64], column: NDArray[np.integer], n_blocks: int, first: int, stop: int
    ) -> None: ...
    def add(
        self,
        unit: NDArray[np.int32],
        value: NDArray[np.floating],
        weight: NDArray[np.floating],
        target: NDArray[np.floating],
    ) -> int: ...
    def dot(
        self,
        unit: NDArray[np.int32],
        weight: NDArray[np.floating],
        vector: NDArray[np.floating],
        out: NDArray[np.floating],
    ) -> int: ...
    def add_outer(
        self,
        unit: int,
        arrival: NDArray[np.int32],
        value: NDArray[np.floating],
        vectors: NDArray[np.floating],
        gradient: NDArray[np.floating],
    ) -> int: ...

def add_narrow(
    unit: NDArray[np.int32],
    value: NDArray[np.floating],
    rows: NDArray[np.uint32],
    target: NDArray[np.floating],
    scale: NDArray[np.floating] | None = None,
) -> None: ...
