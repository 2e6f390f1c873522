import numpy as np
from numpy.typing import NDArray

KINDS: dict[str, int]
POPULATION: np.dtype[np.void]
PROJECTION: np.dtype[np.void]
FIXED: np.dtype[np.void]

def struct_sizes() -> dict[str, int]: ...

class PlanTable:
    n_populations: int
    n_projections: int
    double_precision: bool
    def __init__(
        self,
        populations: NDArray[np.void],
        projections: NDArray[np.void],
        double_precision: bool,
        arrays: list[NDArray],
    ) -> None: ...
