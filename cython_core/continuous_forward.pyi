import numpy as np
from numpy.typing import NDArray

from evsim.core.continuous import Table, Tape

MESSAGE: np.dtype[np.void]

class ContinuousForward:
    tape: Tape
    def __init__(
        self,
        plan: Table,
        n_lanes: int,
        start: float,
        stop: float,
        samples: NDArray[np.float64],
        every: float,
        most_events: int,
    ) -> None: ...
    def give_stimulus(
        self,
        ptr: NDArray[np.int64],
        time: NDArray[np.float64],
        population: NDArray[np.int32],
        unit: NDArray[np.int32],
        value: NDArray[np.float64],
    ) -> None: ...
    def give_arrays(
        self,
        population: int,
        x: NDArray[np.float64],
        state: NDArray[np.float64],
        integral: NDArray[np.float64] | None = None,
        square: NDArray[np.float64] | None = None,
    ) -> None: ...
    def give_messages(self, lane: int, messages: NDArray[np.uint8]) -> None: ...
    def go(self, n_threads: int) -> list[int]: ...
    def in_flight(self, lane: int) -> NDArray[np.void]: ...
