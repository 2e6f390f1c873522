"""NumPy twins of the C structs in layout.pxd, and the table of one plan that the loops read."""

import numpy as np

from evsim.core.layout cimport (
    DELTA_ENCODER,
    DELTA_GRU,
    DELTA_LSTM,
    DELTA_READOUT,
    DELTA_SOURCE,
    EGRU_EVNN,
    EGRU_PAPER,
    LIF,
    MAX_BLOCKS,
    READOUT,
    SOURCE,
)

KINDS = {
    "source": SOURCE,
    "egru_evnn": EGRU_EVNN,
    "egru_paper": EGRU_PAPER,
    "readout": READOUT,
    "delta_source": DELTA_SOURCE,
    "delta_encoder": DELTA_ENCODER,
    "delta_gru": DELTA_GRU,
    "delta_lstm": DELTA_LSTM,
    "delta_readout": DELTA_READOUT,
    "lif": LIF,
}

POPULATION = np.dtype(
    [(name, "i4") for name in ("kind", "n", "n_in", "n_state", "n_tape", "in_first", "in_stop")]
    + [(name, "i4") for name in ("watched", "watched_at", "component")]
    + [(name, "u8") for name in ("threshold", "fixed")]
    + [("decay", "f8")]
    + [(name, "u8") for name in ("bias", "numbers")],
    align=True,
)
PROJECTION = np.dtype(
    [(name, "i4") for name in ("source", "target", "delay", "recurrent", "n_blocks", "block")]
    + [("offset", "i4", MAX_BLOCKS), ("wide", "i4"), ("narrow", "i4"), ("dense", "i4")]
    + [(name, "u8") for name in ("weight", "block_ptr", "column", "scale")],
    align=True,
)

FIXED = np.dtype(
    [(name, "f8") for name in ("scale", "step", "low", "high", "logistic_reach", "hyperbolic_tangent_reach")]
    + [(name, "u8") for name in ("logistic", "hyperbolic_tangent")],
    align=True,
)


def struct_sizes():
    """Sizes in bytes of the C structs, to compare with the twins."""
    return {
        "population": sizeof(PopulationRow),
        "projection": sizeof(ProjectionRow),
        "fixed": sizeof(FixedFormat),
    }


cdef class PlanTable:
    """The rows of a plan as C structs.

    Parameters
    ----------
    populations, projections : structured ndarray of dtype POPULATION, PROJECTION
        Kept alive here, as must be the arrays whose addresses they hold: ``arrays``.
    double_precision : bool
    arrays : list of ndarray
    """

    def __init__(self, populations, projections, double_precision, arrays):
        cdef const unsigned char[::1] rows
        if populations.dtype != POPULATION or projections.dtype != PROJECTION:
            raise TypeError("plan table: rows are not of dtype POPULATION and PROJECTION")
        self._keep = (populations, projections, arrays)
        self.n_populations = len(populations)
        self.n_projections = len(projections)
        self.double_precision = double_precision
        rows = populations.view(np.uint8)
        self.populations = <PopulationRow *> &rows[0]
        if self.n_projections:
            rows = projections.view(np.uint8)
            self.projections = <ProjectionRow *> &rows[0]
