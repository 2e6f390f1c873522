import numpy as np
from numpy.typing import NDArray

Nodes = NDArray[np.unsignedinteger]

def count_cells(
    nodes: Nodes, ends: NDArray[np.int64], first: int, table: NDArray[np.int32], counts: NDArray[np.uint32]
) -> None: ...
def sum_cells(
    nodes: Nodes,
    values: NDArray[np.floating],
    ends: NDArray[np.int64],
    first: int,
    table: NDArray[np.int32],
    counts: NDArray[np.uint32],
    sums: NDArray[np.float64],
) -> None: ...
def count_nodes(nodes: Nodes, counts: NDArray[np.int64]) -> int: ...

class Synchrony:
    n_lanes: int
    n_units: int
    n_bins: int
    node_counts: memoryview
    node_squares: memoryview
    lane_counts: memoryview
    lane_squares: memoryview
    def __init__(self, n_lanes: int, n_units: int) -> None: ...
    def add(self, nodes: Nodes, ends: NDArray[np.int64]) -> None: ...

class Intervals:
    counts: memoryview
    sums: memoryview
    squares: memoryview
    def __init__(self, n_nodes: int) -> None: ...
    def add(self, nodes: Nodes, times: NDArray[np.float64]) -> None: ...
    def add_steps(self, nodes: Nodes, ends: NDArray[np.int64], step: int) -> None: ...
    def forget(self) -> None: ...
