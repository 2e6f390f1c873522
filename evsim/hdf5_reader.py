"""Reads HDF5 files without believing them.

Reading follows no links, opens no second file, and checks types, shapes, sizes and checksums.
"""

from __future__ import annotations

import io
import json
import math
import os
import weakref
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from evsim.errors import EvsimError, LogError
from evsim.hdf5 import LIBVER, one_line
from evsim.snapshot import Snapshot, check_held, is_open

T = TypeVar("T")

#: Elements of the largest chunk accepted on reading.
LARGEST_CHUNK = 2**20
#: How often to read what another process is writing at that moment.
ATTEMPTS = 10
DAMAGED = "the file is damaged or was edited: save it again"


@contextmanager
def open_file(path: str | Path, where: str, error: type[EvsimError] = LogError) -> Iterator[Reader]:
    """A `Reader` of the file at ``path``; whatever goes wrong in the block becomes one ``error``.

    Raises
    ------
    LogError (or the type given as ``error``)
        The file is missing, not HDF5, cut short, or anything in it is not as it should be.
    """
    reader = open_reader(path, where, error, growing=False)
    with closing(reader), reader.guard():
        yield reader


def open_reader(
    path: str | Path, where: str, error: type[EvsimError] = LogError, growing: bool = True
) -> Reader:
    """A `Reader` of the file at ``path``, to be closed by the caller.

    Parameters
    ----------
    path : str or Path
    where : str
        What errors are about.
    error : type
    growing : bool
        Whether another process may be writing the file, or may have been killed doing so.

    Raises
    ------
    LogError (or the type given as ``error``)
        The file is missing, not HDF5, or cut short.
    """
    try:
        there = Path(path).is_file()
        with open(path, "rb") if there else open(os.devnull, "rb") as opened:
            stat = os.fstat(opened.fileno())
        foreign = there and not h5py.is_hdf5(path)
    except (OSError, ValueError) as cause:
        raise error(
            where, f"cannot be read: {one_line(cause)}", "check the name and its permissions"
        ) from cause
    if not there:
        raise error(where, "there is no such file", "check the path")
    if foreign:
        raise error(where, "is not an HDF5 file", "give a file made by evsim")
    raw: io.FileIO | None = None
    try:
        check_held(stat)
        if not (growing and is_open(path)):
            return Reader(where, h5py.File(path, "r", libver=LIBVER), stat.st_size, error)
        raw = io.FileIO(path)
        file, snapshot = _shown(raw)
        return Reader(where, file, snapshot.size, error, snapshot)
    except (OSError, RuntimeError, ValueError) as cause:
        if raw is not None:
            raw.close()
        remedy = "it is cut short, or damaged" if growing else "it is cut short, or being written"
        raise error(where, f"cannot be opened: {one_line(cause)}", remedy) from cause


def _shown(raw: io.FileIO) -> tuple[h5py.File, Snapshot]:
    """A file that was not closed, as it is now."""
    for _ in range(ATTEMPTS):
        snapshot = Snapshot(raw)
        try:
            return h5py.File(snapshot, "r", libver=LIBVER), snapshot
        except (OSError, RuntimeError, ValueError):
            if not snapshot.is_outdated():
                raise
    raise OSError("it changes while it is read")


class Reader:
    """Reads one open file, believing nothing.

    Every method raises the error type it was made with.

    Parameters
    ----------
    where : str
        What errors are about.
    file : h5py.File
    size : int
        Bytes of the file.
    error : type
    snapshot : Snapshot, optional
        By way of which HDF5 reads, of a file that was not closed.

    Attributes
    ----------
    n_shown : int
        How many states of the file were read: groups and data sets of one cannot be used in the next.
    """

    def __init__(
        self,
        where: str,
        file: h5py.File,
        size: int,
        error: type[EvsimError] = LogError,
        snapshot: Snapshot | None = None,
    ):
        self.where, self.error, self.n_shown = where, error, 0
        self._show(file, size, snapshot)

    def _show(self, file: h5py.File, size: int, snapshot: Snapshot | None) -> None:
        self.file, self.size, self._snapshot = file, size, snapshot
        self._groups: dict[str, h5py.Group] = {}
        self.n_shown += 1
        # HDF5 closes at the end of a process what is open, and must not ask Python for it then
        self._at_exit = weakref.finalize(self, _close, file, snapshot.raw if snapshot else None)

    def renew(self) -> bool:
        """Read from here on what the file holds now, if it was not closed; whether it was not.

        Raises
        ------
        LogError (or the type given as ``error``)
            It cannot be opened any more; what was read before can still be.
        """
        if self._snapshot is None or not self.file:
            return False
        try:
            file, snapshot = _shown(self._snapshot.raw)
        except (OSError, RuntimeError, ValueError) as cause:
            remedy = "it is cut short, or damaged"
            raise self.error(self.where, f"cannot be opened: {one_line(cause)}", remedy) from cause
        self._at_exit.detach()
        self.file.close()
        self._show(file, snapshot.size, snapshot)
        return True

    def steadily(self, read: Callable[[], T]) -> T:
        """What a function reads, called again where it fails because the file is being written meanwhile."""
        for _ in range(ATTEMPTS - 1):
            try:
                return read()
            except Exception:  # a damaged file may make HDF5 raise nearly anything
                if self._snapshot is None or not self.file or not self._snapshot.is_outdated():
                    raise
                self.renew()
        return read()

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Whatever goes wrong in the block becomes one error."""
        try:
            yield
        except EvsimError:
            raise
        except Exception as cause:  # a damaged file may make HDF5 raise nearly anything
            if not self.file:
                raise self.error(self.where, "is closed", "open it again") from cause
            raise self.error(self.where, f"cannot be read: {one_line(cause)}", DAMAGED) from cause

    def close(self) -> None:
        """Close the file."""
        self._at_exit()

    def fail(self, problem: str, remedy: str = DAMAGED) -> EvsimError:
        """An error to raise."""
        return self.error(self.where, problem, remedy)

    def has(self, parent: h5py.Group, name: str) -> bool:
        """Whether there is a link of that name; it is not followed."""
        with self.guard():
            return parent.id.links.exists(name.encode())

    def group(self, parent: h5py.Group, name: str) -> h5py.Group:
        """A group of this file."""
        return self._entry(parent, name, h5py.Group)

    def at(self, path: str) -> h5py.Group:
        """A group by the names on the way to it, with "/" between."""
        if path not in self._groups:
            parent, _, name = path.rpartition("/")
            self._groups[path] = self.group(self.at(parent) if parent else self.file, name)
        return self._groups[path]

    def array(
        self,
        parent: h5py.Group,
        name: str,
        kinds: str,
        shape: tuple[int, ...] | None = None,
        summed: bool = True,
    ) -> NDArray:
        """A whole data set.

        Parameters
        ----------
        kinds : str
            Allowed kinds of dtype, of ``f``, ``i``, ``u``; floats have 32 or 64 bit.
        shape : tuple of int, optional
            The shape it must have.
        summed : bool
            Whether it has a checksum.
        """
        dataset = self._entry(parent, name, h5py.Dataset)
        self._check_type(dataset, kinds)
        dtype = dataset.dtype
        if dataset.shape is None or (shape is not None and dataset.shape != shape):
            raise self.fail(f"{dataset.name} has shape {dataset.shape}, not {shape}")
        self._check_storage(dataset)
        array = np.asarray(dataset[()], order="C")
        if summed:
            self._check_sum(dataset, array.astype(dtype.newbyteorder("<"), copy=False).data)
        return array.astype(dtype.newbyteorder("="), copy=False)

    def growing(self, parent: h5py.Group, name: str, kinds: str) -> h5py.Dataset:
        """A chunked data set of this very file, of which nothing has been read."""
        dataset = self._entry(parent, name, h5py.Dataset)
        self._check_type(dataset, kinds)
        self._check_place(dataset)
        if not dataset.shape or dataset.chunks is None or math.prod(dataset.chunks) > LARGEST_CHUNK:
            raise self.fail(f"{dataset.name} is stored in chunks of {dataset.chunks}")
        return dataset

    def column(self, parent: h5py.Group, name: str, kinds: str) -> NDArray:
        """A data set of one dimension and any length."""
        array = self.array(parent, name, kinds)
        if array.ndim != 1:
            raise self.fail(f"{parent.name}/{name} has shape {array.shape}, not one dimension")
        return array

    def number(self, item: h5py.Group | h5py.Dataset, name: str, kind: type = int) -> Any:
        """A scalar attribute as int or float."""
        with self.guard():
            value = np.asarray(self.attribute(item, name))
            if value.ndim or value.dtype.kind not in ("iu" if kind is int else "f"):
                raise self.fail(f"{item.name} lacks the number '{name}'")
            return kind(value)

    def text(self, item: h5py.Group, name: str) -> str:
        """An attribute written by `put_text`."""
        with self.guard():
            value = self.attribute(item, name)
            if not isinstance(value, bytes):
                raise self.fail(f"{item.name} lacks the text '{name}'")
            return value.decode()

    def attribute(self, item: h5py.Group | h5py.Dataset, name: str) -> Any:
        """An attribute, None if there is none or it is of variable length (see `put_text`)."""
        with self.guard():
            if not h5py.h5a.exists(item.id, name.encode()):
                return None
            found = h5py.h5a.open(item.id, name.encode())
            dtype = found.dtype
            if dtype.kind == "O":
                return None
            if dtype.kind not in "iufS" or found.shape is None:
                return item.attrs[name]
            value = np.zeros(found.shape, dtype)  # as h5py does it, in half the time
            found.read(value)
            return value[()]

    def json(self, parent: h5py.Group, name: str) -> dict:
        """A dict written by `put_json`."""
        dataset = self._entry(parent, name, h5py.Dataset)
        if dataset.shape != () or dataset.dtype.kind != "S":
            raise self.fail(f"{dataset.name} is no text")
        self._check_storage(dataset)
        text = bytes(dataset[()])
        self._check_sum(dataset, text)
        value = json.loads(text)
        if not isinstance(value, dict):
            raise self.fail(f"{dataset.name} is no JSON object")
        return value

    def check_memory(self, n_bytes: int, what: str) -> None:
        """Raise unless this machine has that much memory."""
        if n_bytes > _memory():
            raise self.fail(f"claims {what}, more than the memory of this machine holds")

    def _entry(self, parent: h5py.Group, name: str, kind: type) -> Any:
        with self.guard():
            full = f"{parent.name.rstrip('/')}/{name}"
            links = parent.id.links
            if not links.exists(name.encode()):
                raise self.fail(f"lacks {full}")
            if links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
                raise self.fail(f"{full} is a link", "links are not followed: put the data itself there")
            found = h5py.h5o.open(parent.id, name.encode())
            if not isinstance(found, h5py.h5g.GroupID if kind is h5py.Group else h5py.h5d.DatasetID):
                raise self.fail(f"{full} is a {type(found).__name__[:-2]}, not a {kind.__name__}")
            # h5py keeps shape and dtype of what does not change
            return h5py.Group(found) if kind is h5py.Group else h5py.Dataset(found, readonly=True)

    def _check_type(self, dataset: h5py.Dataset, kinds: str) -> None:
        dtype = dataset.dtype
        if dtype.kind not in kinds or dtype.itemsize > 8 or (dtype.kind == "f" and dtype.itemsize < 4):
            raise self.fail(f"{dataset.name} is of dtype {dtype}")

    def _check_place(self, dataset: h5py.Dataset) -> None:
        if dataset.is_virtual or dataset.external:
            raise self.fail(f"{dataset.name} keeps its data in another file", "put the data itself there")

    def _check_storage(self, dataset: h5py.Dataset) -> None:
        """Raise unless the bytes that a data set claims are in this very file."""
        self._check_place(dataset)
        stored, chunks = dataset.id.get_storage_size(), dataset.chunks
        if chunks is None:
            whole = dataset.nbytes <= stored
        else:  # filters may shrink chunks, but each must be there, and none may be huge
            n_chunks = math.prod(-(-n // chunk) for n, chunk in zip(dataset.shape, chunks, strict=True))
            whole = math.prod(chunks) <= LARGEST_CHUNK and dataset.id.get_num_chunks() == n_chunks
        if not whole or max(stored, dataset.nbytes) > self.size:
            raise self.fail(f"{dataset.name} claims {dataset.nbytes} bytes, which the file does not hold")
        self.check_memory(dataset.nbytes, f"{dataset.nbytes} bytes for {dataset.name}")

    def _check_sum(self, dataset: h5py.Dataset, data: memoryview | bytes) -> None:
        if self.number(dataset, "crc32") != zlib.crc32(data):
            raise self.fail(f"{dataset.name} does not match its checksum")


def _close(file: h5py.File, raw: io.FileIO | None) -> None:
    file.close()
    if raw is not None:
        raw.close()


def _memory() -> int:
    """Bytes of memory of this machine; a very large number where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 2**62
