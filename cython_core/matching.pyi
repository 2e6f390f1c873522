import numpy as np
from numpy.typing import NDArray

def match(
    a_node: NDArray[np.int64],
    a_time: NDArray[np.float64],
    b_node: NDArray[np.int64],
    b_time: NDArray[np.float64],
    tolerance: float,
    reach: float,
    horizon: float,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...

class VanRossum:
    def __init__(self, n_nodes: int, tau: float) -> None: ...
    def add(
        self,
        a_node: NDArray[np.int64],
        a_time: NDArray[np.float64],
        b_node: NDArray[np.int64],
        b_time: NDArray[np.float64],
    ) -> None: ...
    def distances(self) -> NDArray[np.float64]: ...
