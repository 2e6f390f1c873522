import numpy as np
from numpy.typing import NDArray

from evsim.core.continuous import Table, Tape

class ContinuousBackward:
    def __init__(
        self, plan: Table, tape: Tape, n_shards: int, samples: NDArray[np.float64], min_slope: float
    ) -> None: ...
    def give_arrays(
        self,
        population: int,
        x: NDArray[np.float64],
        dstate: NDArray[np.float64] | None,
        dintegral: NDArray[np.float64] | None,
        dsquare: NDArray[np.float64] | None,
        dpar: NDArray[np.float64],
        dconstants: NDArray[np.float64],
        dinitial: NDArray[np.float64],
    ) -> None: ...
    def give_projection(
        self,
        projection: int,
        dweight: NDArray,
        ddelay: NDArray[np.float64] | None = None,
        taken: NDArray[np.bool_] | None = None,
    ) -> None: ...
    def give_events(
        self,
        ptr: NDArray[np.int64],
        dtime: NDArray[np.float64],
        at_time: NDArray[np.float64],
        at_value: NDArray[np.float64],
    ) -> None: ...
    def go(self, n_threads: int) -> tuple[list[int], int]: ...
