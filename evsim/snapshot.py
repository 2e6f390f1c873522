"""HDF5 files that were not closed, as they were at one moment.

A file that is being written, or whose writer was killed, says so in its superblock.  HDF5 opens such a file
in one mode only (SWMR), in which it does not know where the file ends: it allocates and reads whatever length
its metadata claim, many times if their checksum is wrong.  Here HDF5 reads such a file by way of a Python
object that shows it another superblock, one that says that the file was closed and ends where it ends now.
Then all that lies beyond is refused before anything is allocated or read.

That is enough to read while another process writes: HDF5 then writes in such an order that what is on file
at any moment fits together, and uses no place twice (SWMR, for the writer).  A block that was read while half
of it was written has a wrong checksum, and what has moved since may lie behind the end: both are read again
in the next snapshot, see `Reader.steadily` in `evsim.hdf5_reader`.
"""

from __future__ import annotations

import io
import os
import time
from pathlib import Path
from typing import Any

#: Bytes of a superblock of version 3, of which the last four are its checksum.
HEAD = 48
SIGNATURE = b"\x89HDF\r\n\x1a\n"
#: Seconds in which a file may change and its time of change stay the same (of the kernel's clock: 0.01 s).
GRAIN = 0.05
PREADV = hasattr(os, "preadv")
#: A file of more bytes than the first number of which the disk holds fewer than one in so many is refused.
LARGE, HOLLOW = 2**28, 100


class Snapshot(io.RawIOBase):
    """What HDF5 reads of an open file that was not closed; of what is appended later it sees nothing.

    Whoever opened the file closes it.  A file that is made shorter meanwhile gives an error (OSError).

    Parameters
    ----------
    raw : io.FileIO
        The file, open for reading.

    Attributes
    ----------
    raw : io.FileIO
    size : int
        Bytes of the file.

    Raises
    ------
    OSError
        The superblock is damaged, or nearly all of the file is holes.
    """

    def __init__(self, raw: io.FileIO):
        check_held(os.fstat(raw.fileno()))
        self.raw, self._at = raw, 0
        self._state, self._taken = _state(raw), time.time()
        self.size = self._state[0]
        self._descriptor = raw.fileno()
        head = bytearray(HEAD)
        self._head = _closed(bytes(head[: self._read_at(0, head)]), self.size)

    def is_outdated(self) -> bool:
        """Whether the file has changed since."""
        if _state(self.raw) == self._state and abs(self._taken - self._state[1] / 1e9) < GRAIN:
            time.sleep(min(max(self._taken + GRAIN - time.time(), 0.0), GRAIN))
        return _state(self.raw) != self._state

    # -- what h5py asks for --------------------------------------------------------------------------------

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place, counted from the start, from here, or from the end."""
        self._at = offset + (0, self._at, self.size)[whence]
        return self._at

    def tell(self) -> int:
        """The place gone to."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, or raise OSError."""
        start = self._at
        end = start + len(buffer)
        if not 0 <= start <= end <= self.size:
            raise OSError(f"bytes {start} to {end} of a file of {self.size} bytes")
        at = start + self._read_at(start, buffer)
        while at < end:
            n_bytes = self._read_at(at, memoryview(buffer)[at - start :])
            if not n_bytes:
                raise OSError(f"the file ended at byte {at} when it was read, and was longer before")
            at += n_bytes
        if start < HEAD:
            n_bytes = min(HEAD, end) - start
            memoryview(buffer)[:n_bytes] = self._head[start : start + n_bytes]
        self._at = end
        return end - start

    def _read_at(self, at: int, buffer: Any) -> int:
        """Fill a buffer, or a part of it, with the file's bytes; how many there were."""
        if PREADV:  # a process that was forked shares the place where a file stands
            return os.preadv(self._descriptor, [buffer], at)
        self.raw.seek(at)
        return self.raw.readinto(buffer) or 0


def is_open(path: str | Path) -> bool:
    """Whether an HDF5 file says that it is being written: it is, or what wrote it was killed."""
    with open(path, "rb") as file:
        head = file.read(12)
    return head[:8] == SIGNATURE and len(head) == 12 and head[8] >= 3 and head[11] != 0


def check_held(stat: os.stat_result) -> None:
    """Raise OSError if a file is nearly all holes: what is read is bounded by its size, and that is free."""
    held = 512 * getattr(stat, "st_blocks", 0)  # of 0 the file system says nothing
    if stat.st_size > LARGE and 0 < held * HOLLOW < stat.st_size:
        raise OSError(f"of its {stat.st_size} bytes the disk holds {held}, the rest are holes")


def _state(raw: io.FileIO) -> tuple[int, int]:
    """Size of a file and when it was changed."""
    stat = os.fstat(raw.fileno())
    return stat.st_size, stat.st_mtime_ns


def _closed(head: bytes, size: int) -> bytes:
    """The superblock of a file that was closed and has so many bytes.

    Bytes of version 3 (HDF5 File Format Specification 3.0, II.A): 8 version, 9 size of offsets, 10 size of
    lengths, 11 flags, 12 base address, 28 end of file, 44 checksum.
    """
    if len(head) < HEAD or head[:8] != SIGNATURE or head[8] != 3 or head[9:11] != b"\x08\x08":
        raise OSError("its superblock is not one of version 3")
    if lookup3(head[:44]).to_bytes(4, "little") != head[44:]:
        raise OSError("its superblock does not match its checksum")
    changed = head[:11] + b"\0" + head[12:28] + size.to_bytes(8, "little") + head[36:44]
    return changed + lookup3(changed).to_bytes(4, "little")


def lookup3(data: bytes) -> int:
    """Bob Jenkins's hash of some bytes as HDF5 uses it for checksums (http://burtleburtle.net/bob/c/lookup3.c)."""

    def turned(x: int, k: int) -> int:
        return (x << k | x >> (32 - k)) & 0xFFFFFFFF

    def words(at: int) -> list[int]:
        part = data[at : at + 12].ljust(12, b"\0")
        return [int.from_bytes(part[k : k + 4], "little") for k in (0, 4, 8)]

    state = [(0xDEADBEEF + len(data)) & 0xFFFFFFFF] * 3
    last = max(len(data) - 1, 0) // 12 * 12
    for at in range(0, last, 12):
        a, b, c = ((x + y) & 0xFFFFFFFF for x, y in zip(state, words(at), strict=True))
        for k in (4, 6, 8, 16, 19, 4):  # a, b and c take turns
            a, c = ((a - c) & 0xFFFFFFFF) ^ turned(c, k), (c + b) & 0xFFFFFFFF
            a, b, c = b, c, a
        state = [a, b, c]
    if not data:
        return state[2]
    a, b, c = ((x + y) & 0xFFFFFFFF for x, y in zip(state, words(last), strict=True))
    for k in (14, 11, 25, 16, 4, 14, 24):
        c = ((c ^ b) - turned(b, k)) & 0xFFFFFFFF
        a, b, c = b, c, a
    return b
