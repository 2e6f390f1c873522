"""Two records of the same units, event against event: which are the same, and how far apart trains are.

Rows are sorted by (node, time).  Records of any length are held against each other in windows of time: what
cannot be decided before the next window is known stays pending, and is given again with it.
"""

import numpy as np

from libc.math cimport INFINITY, exp, fabs
from libc.stdint cimport int64_t

# Entries of a partner that are no row.
cdef enum:
    ALONE = -1
    PENDING = -2


cdef int check_nodes(const int64_t[::1] node, int64_t n_nodes) except -1:
    """Raise unless all nodes exist."""
    cdef Py_ssize_t k
    for k in range(node.shape[0]):
        if not 0 <= node[k] < n_nodes:
            raise ValueError(f"core: node {node[k]} of {n_nodes}")
    return 0


cdef int64_t run_end(const int64_t[::1] node, int64_t k) noexcept nogil:
    """Where the rows of the node of row ``k`` end."""
    cdef int64_t end = k + 1
    while end < node.shape[0] and node[end] == node[k]:
        end += 1
    return end


cdef void match_node(
    const double *a, int64_t a_end, const double *b, int64_t b_end,
    int64_t a_first, int64_t b_first, double tolerance, double reach, double horizon,
    int64_t *a_partner, int64_t *b_partner,
) noexcept nogil:
    """Pair the events of one node: rows ``a_first`` to ``a_end`` of one record with those of the other.

    Events within the tolerance are paired in order.  Others are, if no event between them is nearer to the
    later one, and they are no further apart than ``reach``.  All before ``horizon`` are given.
    """
    cdef int64_t i = a_first
    cdef int64_t j = b_first
    cdef double apart
    while i < a_end and j < b_end:
        apart = fabs(a[i] - b[j])
        if apart <= reach and (a[i] if a[i] > b[j] else b[j]) + reach >= horizon:
            horizon = -INFINITY  # these two may have nearer partners: they wait, and all that follow
            break
        if apart > tolerance and a[i] < b[j] and (
                apart > reach or (i + 1 < a_end and fabs(a[i + 1] - b[j]) < apart)):
            a_partner[i] = ALONE
            i += 1
        elif apart > tolerance and b[j] < a[i] and (
                apart > reach or (j + 1 < b_end and fabs(b[j + 1] - a[i]) < apart)):
            b_partner[j] = ALONE
            j += 1
        else:
            a_partner[i] = j
            b_partner[j] = i
            i += 1
            j += 1
    while i < a_end:
        a_partner[i] = ALONE if a[i] + reach < horizon else PENDING
        i += 1
    while j < b_end:
        b_partner[j] = ALONE if b[j] + reach < horizon else PENDING
        j += 1


def match(
    const int64_t[::1] a_node,       # IN   (n,) increasing
    const double[::1] a_time,        # IN   (n,) increasing within a node
    const int64_t[::1] b_node,       # IN   (m,)
    const double[::1] b_time,        # IN   (m,)
    double tolerance,
    double reach,
    double horizon,
):
    """Partner of each row in the other record: its row, -1 if it has none, -2 if that is not known yet.

    Times before ``horizon`` are given, all others are later; see `match_node`.
    """
    if a_time.shape[0] != a_node.shape[0] or b_time.shape[0] != b_node.shape[0]:
        raise ValueError("core: nodes and times differ in length")
    a_found, b_found = (np.empty(n, np.int64) for n in (a_node.shape[0], b_node.shape[0]))
    cdef int64_t[::1] a_partner = a_found
    cdef int64_t[::1] b_partner = b_found
    cdef int64_t n = a_node.shape[0]
    cdef int64_t m = b_node.shape[0]
    cdef int64_t i = 0
    cdef int64_t j = 0
    cdef int64_t i_end
    cdef int64_t j_end
    cdef const double *a = NULL
    cdef const double *b = NULL
    cdef int64_t *a_out = NULL
    cdef int64_t *b_out = NULL
    if n:
        a, a_out = &a_time[0], &a_partner[0]
    if m:
        b, b_out = &b_time[0], &b_partner[0]
    with nogil:
        while i < n or j < m:
            i_end = run_end(a_node, i) if i < n and (j == m or a_node[i] <= b_node[j]) else i
            j_end = run_end(b_node, j) if j < m and (i == n or b_node[j] <= a_node[i]) else j
            match_node(a, i_end, b, j_end, i, j, tolerance, reach, horizon, a_out, b_out)
            i = i_end
            j = j_end
    return a_found, b_found


cdef class VanRossum:
    """Van Rossum's distance of each node between two records (Neural Computation 13:751, 2001).

    Every event becomes a jump of 1 that decays with the time constant tau; the distance is the root of the
    integral over time of the squared difference of the two records, by tau / 2: so it is 1 where one record
    has an event more (as in Elephant; the paper's is smaller by a factor sqrt(2)).

    Parameters
    ----------
    n_nodes : int
    tau : float
        In the unit of the times.
    """

    cdef double tau
    cdef double[::1] last                # time of a node's last event in either record
    cdef double[::1] trace               # first record less the second just after it
    cdef double[::1] square              # integral of the square of that up to it

    def __init__(self, int64_t n_nodes, double tau):
        self.tau = tau
        self.last, self.trace, self.square = np.zeros((3, n_nodes))

    cdef inline void jump(self, int64_t node, double time, double by) noexcept nogil:
        cdef double decay = exp((self.last[node] - time) / self.tau)
        cdef double trace = self.trace[node]
        if trace != 0:
            self.square[node] += 0.5 * self.tau * trace * trace * (1 - decay * decay)
        self.trace[node] = trace * decay + by
        self.last[node] = time

    def add(
        self,
        const int64_t[::1] a_node,   # IN   (n,) increasing
        const double[::1] a_time,    # IN   (n,) increasing within a node
        const int64_t[::1] b_node,   # IN   (m,)
        const double[::1] b_time,    # IN   (m,)
    ):
        """The events of the next window of both records."""
        cdef int64_t n = a_node.shape[0]
        cdef int64_t m = b_node.shape[0]
        cdef int64_t i = 0
        cdef int64_t j = 0
        if a_time.shape[0] != n or b_time.shape[0] != m:
            raise ValueError("core: nodes and times differ in length")
        check_nodes(a_node, self.last.shape[0])
        check_nodes(b_node, self.last.shape[0])
        with nogil:
            while i < n or j < m:
                if i < n and j < m and a_node[i] == b_node[j] and a_time[i] == b_time[j]:
                    i += 1
                    j += 1
                elif j == m or (i < n and (
                        a_node[i] < b_node[j] or (a_node[i] == b_node[j] and a_time[i] < b_time[j]))):
                    self.jump(a_node[i], a_time[i], 1)
                    i += 1
                else:
                    self.jump(b_node[j], b_time[j], -1)
                    j += 1

    def distances(self):
        """Of each node, shape (n_nodes,)."""
        trace, square = np.asarray(self.trace), np.asarray(self.square)
        return np.sqrt(square * (2 / self.tau) + trace**2)
