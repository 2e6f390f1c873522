import numpy as np
from numpy.typing import NDArray

from evsim.core.layout import PlanTable

class Forward:
    def __init__(self, plan: PlanTable, lengths: NDArray[np.int64], n_steps: int) -> None: ...
    def give_events(
        self,
        population: int,
        history: int,
        ptr: NDArray[np.int64],
        unit: NDArray[np.int32],
        value: NDArray,
        whole: bool,
    ) -> None: ...
    def give_line(self, population: int, line: NDArray) -> None: ...
    def give_arrays(
        self, population: int, base: NDArray | None, state: NDArray, tape: NDArray | None = None
    ) -> None: ...
    def give_edits(
        self,
        population: int,
        ptr: NDArray[np.int64],
        unit: NDArray[np.int32],
        factor: NDArray,
        shift: NDArray,
        edited: NDArray[np.int64],
    ) -> None: ...
    def give_checkpoints(self, population: int, every: int, checkpoints: NDArray) -> None: ...
    def give_drive(self, population: int, drive: NDArray) -> None: ...
    def go(self, n_threads: int, teams: bool, first: int = 0, stop: int | None = None) -> list[int]: ...
    def in_flight(self, population: int) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray]: ...
    def collect(self, population: int) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray]: ...
