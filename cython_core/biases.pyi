from collections.abc import Sequence

from numpy.typing import NDArray

class Biases:
    def __init__(
        self, arrays: Sequence[tuple[NDArray, NDArray, NDArray]], double_precision: bool
    ) -> None: ...
    def add(self) -> None: ...
