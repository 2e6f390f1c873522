"""The queues of continuous time as Python objects, to look at each alone; runs do without them."""

from libc.stdint cimport int64_t

from evsim.core.messages cimport Message, Messages, messages_free, messages_peek, messages_pop, messages_push
from evsim.core.schedule cimport (
    Schedule,
    schedule_free,
    schedule_open,
    schedule_peek,
    schedule_refresh,
    schedule_set,
)

#: Fields of a message, in the order of `MessageQueue.push`.
FIELDS = ("time", "sent", "value", "gated", "source", "event", "place", "projection", "row")


cdef class UnitSchedule:
    """A schedule of ``n`` > 0 entries, at infinity at first."""

    cdef Schedule schedule
    cdef readonly int64_t n

    def __cinit__(self, int64_t n):
        if n < 1:
            raise ValueError(f"a schedule of {n} entries")
        self.n = n
        if not schedule_open(&self.schedule, n):
            raise MemoryError

    def __dealloc__(self):
        schedule_free(&self.schedule)

    def set(self, int64_t entry, double time):
        """Replace an entry."""
        if not 0 <= entry < self.n:
            raise IndexError(f"entry {entry} of {self.n}")
        schedule_set(&self.schedule, entry, time)

    def write(self, int64_t first, const double[::1] times):
        """Replace entries from ``first`` on, all at once."""
        cdef int64_t count = len(times)
        cdef int64_t i
        if not 0 <= first <= self.n - count:
            raise IndexError(f"entries {first} to {first + count} of {self.n}")
        for i in range(count):
            self.schedule.level[0][first + i] = times[i]
        schedule_refresh(&self.schedule, first, count)

    def peek(self):
        """(entry, time) of the earliest, of the first of those if there are several."""
        cdef double time
        cdef int64_t entry = schedule_peek(&self.schedule, &time)
        return entry, time


cdef class MessageQueue:
    """Events in flight; a message is a tuple of numbers in the order of FIELDS."""

    cdef Messages messages

    def __dealloc__(self):
        messages_free(&self.messages)

    def __len__(self):
        return self.messages.count

    def push(self, message):
        cdef Message item
        (item.time, item.sent, item.value, item.gated, item.source, item.event, item.place, item.projection,
         item.row) = message
        if not messages_push(&self.messages, item):
            raise MemoryError

    def peek(self):
        """The next to arrive; None if there is none."""
        cdef const Message *item = messages_peek(&self.messages)
        return None if item == NULL else as_tuple(item)

    def pop(self):
        """Take out the next to arrive."""
        cdef Message item
        if self.messages.count == 0:
            raise IndexError("no message is in flight")
        item = messages_pop(&self.messages)
        return as_tuple(&item)


cdef tuple as_tuple(const Message *m):
    return (m.time, m.sent, m.value, m.gated, m.source, m.event, m.place, m.projection, m.row)
