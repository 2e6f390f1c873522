import numpy as np
from numpy.typing import NDArray

from evsim.core.layout import PlanTable

class Backward:
    def __init__(
        self,
        plan: PlanTable,
        lengths: NDArray[np.int64],
        n_steps: int,
        n_done: int,
        continued: bool,
        pseudo_kind: int,
        gamma: float,
        eps: float,
    ) -> None: ...
    def give_events(
        self, population: int, history: int, ptr: NDArray[np.int64], unit: NDArray[np.int32], value: NDArray
    ) -> None: ...
    def give_senders(self, population: int, ptr: NDArray[np.int64], unit: NDArray[np.int32]) -> None: ...
    def give_arrays(
        self,
        population: int,
        tape: NDArray | None,
        initial: NDArray,
        loss_state: NDArray | None,
        loss_value: NDArray | None,
        loss_event: NDArray | None,
        D: NDArray,
        carry: NDArray,
        dbias: NDArray | None,
        dthreshold: NDArray | None,
        dnumbers: NDArray | None,
        active: NDArray[np.int64],
    ) -> None: ...
    def give_sent(self, population: int, devent: NDArray) -> None: ...
    def give_line(self, population: int, dline: NDArray) -> None: ...
    def give_gains(self, projection: int, gain: NDArray) -> None: ...
    def give_products(self, projection: int, product: NDArray) -> None: ...
    def go(self, n_threads: int, teams: bool) -> tuple[list[int], list[int]]: ...
    def weights(
        self, dweights: list[NDArray], fresh: bool, n_threads: int, dense: bool = True
    ) -> list[int]: ...
