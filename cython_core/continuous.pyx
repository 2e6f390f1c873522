"""NumPy twins of the C structs in continuous.pxd, the table of one plan, and what a run records."""

import numpy as np

from cpython.buffer cimport PyBuffer_FillInfo
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport calloc, free

from evsim.core.buffers cimport address
from evsim.core.kernels cimport EGRU_FLOW, GRU_FLOW, LEAKY_FLOW, LIF_FLOW, LSTM_FLOW, SUM_FLOW

FLOWS = {
    "source": NO_FLOW,
    "egru_continuous": EGRU_FLOW,
    "lif": LIF_FLOW,
    "delta_gru": GRU_FLOW,
    "delta_lstm": LSTM_FLOW,
    "readout": LEAKY_FLOW,
    "delta_readout": SUM_FLOW,
}

UNITS = np.dtype(
    [(name, "i4") for name in ("kind", "n", "stride", "n_state", "n_slot", "n_par", "main")]
    + [(name, "i4") for name in ("own_gate", "out_first", "out_stop")]
    + [("first", "i8"), ("soon", "f8"), ("par", "u8"), ("constants", "u8")],
    align=True,
)
FANS = np.dtype(
    [(name, "i4") for name in ("source", "target", "n_blocks", "wide", "gated", "post")]
    + [("slot", "i4", MAX_BLOCKS)]
    + [(name, "u8") for name in ("weight", "taken", "ptr", "unit", "where", "pair", "delay")],
    align=True,
)
EVENT_DTYPE = np.dtype(
    [(name, "f8") for name in ("time", "value")] + [(name, "i4") for name in ("population", "unit")])


def struct_sizes():
    """Sizes in bytes of the C structs, to compare with the twins."""
    return {"units": sizeof(UnitRow), "fans": sizeof(FanRow), "event": sizeof(Event)}


cdef class Table:
    """The rows of a plan as C structs.

    Parameters
    ----------
    populations, projections : structured ndarray of dtype UNITS, FANS
        Kept alive here, as must be the arrays whose addresses they hold: ``arrays``.
    arrays : list of ndarray
    """

    def __init__(self, populations, projections, arrays):
        cdef const unsigned char[::1] rows
        if populations.dtype != UNITS or projections.dtype != FANS:
            raise TypeError("plan table: rows are not of dtype UNITS and FANS")
        self._keep = (populations, projections, arrays)
        self.n_populations = len(populations)
        self.n_projections = len(projections)
        self.n_units = int(populations["n"].sum())
        rows = populations.view(np.uint8)
        self.populations = <UnitRow *> &rows[0]
        if self.n_projections:
            rows = projections.view(np.uint8)
            self.projections = <FanRow *> &rows[0]


cdef class Recorded:
    """The bytes of the events of one lane of a tape, which they keep alive, to be the buffer of an array."""

    cdef Tape tape
    cdef int lane

    def __cinit__(self, Tape tape, int lane):
        self.tape, self.lane = tape, lane

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        cdef Record *record = &self.tape.record[self.lane]
        PyBuffer_FillInfo(buffer, self, record.event, record.n_events * sizeof(Event), 1, flags)


cdef class Tape:
    """What a run of some lanes records: the events, the order of what happened, and states every so often."""

    def __cinit__(self, int n_lanes, double start, double stop):
        self.n_lanes, self.start, self.stop = n_lanes, start, stop
        self.record = <Record *> calloc(max(n_lanes, 1), sizeof(Record))
        if self.record == NULL:
            raise MemoryError

    def __dealloc__(self):
        cdef int lane
        cdef int64_t k
        if self.record == NULL:
            return
        for lane in range(self.n_lanes):
            for k in range(self.record[lane].n_snapshots):
                free(self.record[lane].snapshot[k])
            free(self.record[lane].snapshot)
            free(self.record[lane].item)
            free(self.record[lane].event)
            free(self.record[lane].gated)
            free(self.record[lane].carried)
        free(self.record)

    def events(self, int lane):
        """The events of a lane in order of time, those of the stimulus included: of dtype EVENT_DTYPE.

        The array is read-only, and looks at the record itself.
        """
        return np.ndarray(self.record[lane].n_events, EVENT_DTYPE, Recorded(self, lane))

    def sent_by(self, int population):
        """Time, unit and value of all that a population sent, in order of a log.

        None unless there is one lane, and no two events have the same time.
        """
        cdef const Record *record = &self.record[0]
        cdef const Event *event = record.event
        cdef int64_t count = 0
        cdef int64_t i
        cdef bint increasing = self.n_lanes == 1
        for i in range(record.n_events if increasing else 0):
            increasing = increasing and (i == 0 or event[i].time > event[i - 1].time)
            count += event[i].population == population
        if not increasing:
            return None
        times, units, values = np.empty(count), np.empty(count, np.int32), np.empty(count)
        cdef double *time = <double *> address(times, count, c"d")
        cdef int32_t *unit = <int32_t *> address(units, count, c"i")
        cdef double *value = <double *> address(values, count, c"d")
        count = 0
        for i in range(record.n_events):
            if event[i].population == population:
                time[count] = event[i].time
                unit[count] = event[i].unit
                value[count] = event[i].value
                count += 1
        return times, units, values

    def n_events(self, int lane):
        """Number of events of a lane, those of the stimulus included."""
        return self.record[lane].n_events

    @property
    def replayable(self):
        """Whether it holds what the way back needs."""
        return self.record[0].n_snapshots > 0

    @property
    def nbytes(self):
        """Bytes it takes, but for the snapshots' states."""
        cdef int64_t total = 0
        cdef int lane
        for lane in range(self.n_lanes):
            total += self.record[lane].event_room * <int64_t> sizeof(Event)
            total += self.record[lane].gated_room * <int64_t> sizeof(double)
            total += self.record[lane].item_room * <int64_t> sizeof(Item)
        return total
