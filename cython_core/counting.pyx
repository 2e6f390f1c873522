"""Counting rows of events, in one pass each: into the cells of a picture, per node, and for statistics.

A node is ``lane * n_units + unit``.  Rows come in order of time, so a column of a picture, or a bin of
time, is a run of rows: no kernel here reads times to find it, the caller says where each run ends.  A log of
any length is counted piece by piece, with the same arrays given again.
"""

from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint64_t

ctypedef fused node_t:
    uint16_t
    uint32_t
    uint64_t

ctypedef fused value_t:
    float
    double


cdef int check_ends(const int64_t[::1] ends, int64_t n) except -1:
    """Raise unless each run ends where the one before does, or later, and none after row ``n``."""
    cdef int64_t before = 0
    cdef Py_ssize_t k
    for k in range(ends.shape[0]):
        if not before <= ends[k] <= n:
            raise ValueError(f"core: column {k} ends at row {ends[k]}, after {before}, of {n} rows")
        before = ends[k]
    return 0


cdef int check_table(const int32_t[::1] table, int64_t n_rows) except -1:
    """Raise unless all places exist; negative ones are no place."""
    cdef Py_ssize_t k
    for k in range(table.shape[0]):
        if table[k] >= n_rows:
            raise ValueError(f"core: place {table[k]} of {n_rows}")
    return 0


def count_cells(
    const node_t[::1] nodes,         # IN   (n,)
    const int64_t[::1] ends,         # IN   (n_columns,) row at which each column ends
    int64_t first,                   # IN   node that ``table`` begins with
    const int32_t[::1] table,        # IN   row of the picture of each node from there on; negative: not shown
    uint32_t[:, ::1] counts,         # OUT  (n_columns, n_rows) is added to
):
    """Count rows into cells.  Nodes that the table does not reach are not counted."""
    cdef int64_t column
    cdef int64_t k = 0
    cdef int64_t end
    cdef uint64_t place
    cdef uint64_t span = table.shape[0]
    cdef int32_t row
    cdef uint32_t *cell
    if counts.shape[0] != ends.shape[0]:
        raise ValueError(f"core: {ends.shape[0]} columns for counts of {counts.shape[0]}")
    check_ends(ends, nodes.shape[0])
    check_table(table, counts.shape[1])
    if counts.shape[1] == 0:
        return
    with nogil:
        for column in range(ends.shape[0]):
            cell = &counts[column, 0]
            end = ends[column]
            while k < end:
                place = <uint64_t> nodes[k] - <uint64_t> first
                k += 1
                if place < span:
                    row = table[place]
                    if row >= 0:
                        cell[row] += 1


def sum_cells(
    const node_t[::1] nodes,         # IN   (n,)
    const value_t[::1] values,       # IN   (n,)
    const int64_t[::1] ends,         # IN   (n_columns,)
    int64_t first,                   # IN
    const int32_t[::1] table,        # IN
    uint32_t[:, ::1] counts,         # OUT  (n_columns, n_rows) is added to
    double[:, ::1] sums,             # OUT  (n_columns, n_rows) is added to
):
    """`count_cells`, and the sum of a value of the rows of each cell."""
    cdef int64_t column
    cdef int64_t k = 0
    cdef int64_t end
    cdef uint64_t place
    cdef uint64_t span = table.shape[0]
    cdef int32_t row
    cdef uint32_t *cell
    cdef double *total
    if counts.shape[0] != ends.shape[0] or values.shape[0] != nodes.shape[0]:
        raise ValueError(f"core: {ends.shape[0]} columns, {nodes.shape[0]} nodes, {values.shape[0]} values")
    if sums.shape[0] != counts.shape[0] or sums.shape[1] != counts.shape[1]:
        raise ValueError("core: sums and counts differ in shape")
    check_ends(ends, nodes.shape[0])
    check_table(table, counts.shape[1])
    if counts.shape[1] == 0:
        return
    with nogil:
        for column in range(ends.shape[0]):
            cell = &counts[column, 0]
            total = &sums[column, 0]
            end = ends[column]
            while k < end:
                place = <uint64_t> nodes[k] - <uint64_t> first
                if place < span:
                    row = table[place]
                    if row >= 0:
                        cell[row] += 1
                        total[row] += values[k]
                k += 1


def count_nodes(const node_t[::1] nodes, int64_t[::1] counts):
    """Add the rows of each node to ``counts``; the number of rows whose node it does not have."""
    cdef int64_t k
    cdef int64_t beyond = 0
    cdef uint64_t n = counts.shape[0]
    with nogil:
        for k in range(nodes.shape[0]):
            if nodes[k] < n:
                counts[nodes[k]] += 1
            else:
                beyond += 1
    return beyond


cdef class Synchrony:
    """Running sums for the variance over bins of time of each node's count, and of each lane's.

    Parameters
    ----------
    n_lanes, n_units : int

    Attributes
    ----------
    n_bins : int
        Bins that have ended.
    node_counts : memoryview of int64, shape (n_lanes * n_units,)
        Events of each node.
    node_squares : memoryview of float64, shape (n_lanes,)
        The square of a node's count in a bin, summed over bins and the nodes of a lane.
    lane_counts, lane_squares : memoryview of float64, shape (n_lanes,)
        Events of each lane, and the square of its events in a bin summed over bins.
    """

    cdef readonly int64_t n_lanes
    cdef readonly int64_t n_units
    cdef readonly int64_t n_bins
    cdef readonly int64_t[::1] node_counts
    cdef readonly double[::1] node_squares
    cdef readonly double[::1] lane_counts
    cdef readonly double[::1] lane_squares
    cdef int64_t[::1] seen               # bin of a node's last event, -1 before any
    cdef int64_t[::1] within             # its events in that bin
    cdef int64_t[::1] current            # events of each lane in the bin that goes on

    def __init__(self, int64_t n_lanes, int64_t n_units):
        import numpy as np

        self.n_lanes, self.n_units, self.n_bins = n_lanes, n_units, 0
        self.node_counts = np.zeros(n_lanes * n_units, np.int64)
        self.node_squares, self.lane_counts, self.lane_squares = np.zeros((3, n_lanes))
        self.seen = np.full(n_lanes * n_units, -1, np.int64)
        self.within = np.zeros(n_lanes * n_units, np.int64)
        self.current = np.zeros(n_lanes, np.int64)

    def add(self, const node_t[::1] nodes, const int64_t[::1] ends):
        """Count rows; the current bin ends at row ``ends[0]``, and rows after the last end begin the next."""
        cdef int64_t k = 0
        cdef int64_t j
        cdef int64_t end
        cdef int64_t lane
        cdef int64_t node
        cdef uint64_t n = self.node_counts.shape[0]
        cdef int64_t n_bins = self.n_bins
        cdef double count
        check_ends(ends, nodes.shape[0])
        with nogil:
            for j in range(ends.shape[0] + 1):
                end = ends[j] if j < ends.shape[0] else nodes.shape[0]
                while k < end:
                    if nodes[k] < n:
                        node = <int64_t> nodes[k]
                        lane = node // self.n_units
                        if self.seen[node] != n_bins:
                            self.seen[node] = n_bins
                            self.within[node] = 0
                        self.node_squares[lane] += 2 * self.within[node] + 1
                        self.within[node] += 1
                        self.node_counts[node] += 1
                        self.current[lane] += 1
                    k += 1
                if j < ends.shape[0]:
                    for lane in range(self.n_lanes):
                        count = <double> self.current[lane]
                        self.lane_counts[lane] += count
                        self.lane_squares[lane] += count * count
                        self.current[lane] = 0
                    n_bins += 1
        self.n_bins = n_bins


cdef class Intervals:
    """Running sums of the time from each event of a node to its next.

    Parameters
    ----------
    n_nodes : int

    Attributes
    ----------
    counts : memoryview of int64, shape (n_nodes,)
        Intervals of each node.
    sums, squares : memoryview of float64, shape (n_nodes,)
        Of its intervals, and of their squares.
    """

    cdef readonly int64_t[::1] counts
    cdef readonly double[::1] sums
    cdef readonly double[::1] squares
    cdef double[::1] last                # time of a node's last event, NaN before any

    def __init__(self, int64_t n_nodes):
        import numpy as np

        self.counts = np.zeros(n_nodes, np.int64)
        self.sums, self.squares = np.zeros((2, n_nodes))
        self.last = np.full(n_nodes, np.nan)

    cdef inline void take(self, int64_t node, double time) noexcept nogil:
        cdef double interval = time - self.last[node]
        if interval == interval:
            self.counts[node] += 1
            self.sums[node] += interval
            self.squares[node] += interval * interval
        self.last[node] = time

    def add(self, const node_t[::1] nodes, const double[::1] times):
        """Rows with their times, in order of time."""
        cdef int64_t k
        cdef uint64_t n = self.last.shape[0]
        if times.shape[0] != nodes.shape[0]:
            raise ValueError(f"core: {times.shape[0]} times for {nodes.shape[0]} nodes")
        with nogil:
            for k in range(nodes.shape[0]):
                if nodes[k] < n:
                    self.take(<int64_t> nodes[k], times[k])

    def add_steps(self, const node_t[::1] nodes, const int64_t[::1] ends, int64_t step):
        """Rows of steps from ``step`` on, each of which ends at its entry of ``ends``; times are steps."""
        cdef int64_t k = 0
        cdef int64_t j
        cdef uint64_t n = self.last.shape[0]
        check_ends(ends, nodes.shape[0])
        with nogil:
            for j in range(ends.shape[0]):
                while k < ends[j]:
                    if nodes[k] < n:
                        self.take(<int64_t> nodes[k], <double> (step + j))
                    k += 1

    def forget(self):
        """Begin a new window: no interval goes from before it into it."""
        self.last[:] = float("nan")
