import numpy as np
from numpy.typing import NDArray

FLOWS: dict[str, int]
UNITS: np.dtype[np.void]
FANS: np.dtype[np.void]
EVENT_DTYPE: np.dtype[np.void]

def struct_sizes() -> dict[str, int]: ...

class Table:
    n_populations: int
    n_projections: int
    n_units: int
    def __init__(
        self, populations: NDArray[np.void], projections: NDArray[np.void], arrays: object
    ) -> None: ...

class Tape:
    n_lanes: int
    start: float
    stop: float
    def events(self, lane: int) -> NDArray[np.void]: ...
    def sent_by(
        self, population: int
    ) -> tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.float64]] | None: ...
    def n_events(self, lane: int) -> int: ...
    @property
    def replayable(self) -> bool: ...
    @property
    def nbytes(self) -> int: ...
