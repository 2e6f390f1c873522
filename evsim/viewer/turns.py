"""Who may read the file: one thread at a time, and those with a person waiting before the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class Turns:
    """A lock with two queues.

    HDF5 reads for one thread at a time.  A plain lock would let the thread that counts a file ahead take it
    again and again between two requests.
    """

    def __init__(self) -> None:
        self._free = Condition()
        self._busy = False
        self._urgent = 0

    @contextmanager
    def now(self) -> Iterator[None]:
        """For requests: before all that is `later`."""
        with self._free:
            self._urgent += 1
            self._free.wait_for(lambda: not self._busy)
            self._urgent -= 1
            self._busy = True
        yield from self._work()

    @contextmanager
    def later(self) -> Iterator[None]:
        """For work ahead: once no request waits."""
        with self._free:
            self._free.wait_for(lambda: not self._busy and not self._urgent)
            self._busy = True
        yield from self._work()

    def _work(self) -> Iterator[None]:
        try:
            yield
        finally:
            with self._free:
                self._busy = False
                self._free.notify_all()
