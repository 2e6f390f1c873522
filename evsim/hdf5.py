"""HDF5 files written whole or not at all.

Writing goes to a hidden name beside the target and is renamed at the end; every array carries the CRC-32 of
its bytes.  `evsim.hdf5_reader` reads them.
"""

from __future__ import annotations

import errno
import os
import secrets
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike

from evsim.errors import EvsimError, LogError
from evsim.provenance import to_json

#: Oldest and newest format allowed: with checksums on its metadata, and no newer than others' HDF5 can read.
LIBVER = ("v108", "v108")


@contextmanager
def new_file(
    path: str | Path, where: str, overwrite: bool = False, error: type[EvsimError] = LogError
) -> Iterator[h5py.File]:
    """A file to write into that appears under ``path`` when the block ends, whole, or not at all.

    Raises
    ------
    LogError (or the type given as ``error``)
        The file exists and may not be replaced, or cannot be written.
    """
    target = Path(path)
    check_target(target, where, overwrite, error)
    hidden = target.with_name(f".{target.name[:100]}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with h5py.File(hidden, "x", libver=LIBVER) as file:
            yield file
        with open(hidden, "rb") as written:
            os.fsync(written.fileno())  # the data must be on the disk before the name is
        check_target(target, where, overwrite, error)
        os.replace(hidden, target)
    except EvsimError:
        raise
    except (OSError, RuntimeError, ValueError) as cause:  # any of which h5py raises when a disk is full
        raise error(where, f"cannot be written: {one_line(cause)}", "give another place") from cause
    finally:
        hidden.unlink(missing_ok=True)


def reserve(file: h5py.File, n_bytes: int) -> None:
    """Have the disk set aside so many bytes behind the end of a file, or raise OSError.

    HDF5 cannot close a file after a write to it has failed (a full disk, a quota): the process would crash at
    its end.  So what is to be written gets its place first.
    """
    descriptor, size = file.id.get_vfd_handle(), file.id.get_filesize()
    if not hasattr(os, "posix_fallocate"):
        disk = os.fstatvfs(descriptor)
        if disk.f_bavail * disk.f_frsize < n_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return
    try:
        os.posix_fallocate(descriptor, size, n_bytes)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):  # a file system that cannot
            raise


def close_written(file: h5py.File) -> None:
    """Close a file, and give back what `reserve` has set aside and nothing was written to."""
    descriptor = os.dup(file.id.get_vfd_handle())
    try:
        file.close()
        head = os.pread(descriptor, 36, 0)  # superblock of version 3: flags at 11, end of file at 28
        in_use, end = head[11], int.from_bytes(head[28:36], "little")
        if not in_use and 0 < end < os.fstat(descriptor).st_size:  # else it is open here a second time
            os.ftruncate(descriptor, end)
    finally:
        os.close(descriptor)


def abandon(file: h5py.File) -> None:
    """Close a file that cannot be written: it stays as it is, and what HDF5 still has goes nowhere."""
    with suppress(Exception):
        if hasattr(os, "memfd_create"):
            nowhere = os.memfd_create("abandoned")
        else:
            nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, file.id.get_vfd_handle(), inheritable=False)
        os.close(nowhere)
    with suppress(Exception):
        file.close()


def check_target(target: Path, where: str, overwrite: bool, error: type[EvsimError]) -> None:
    """Raise ``error`` unless a file may be written there."""
    if "\0" in str(target):
        raise error(where, "the name holds a zero byte", "give another name")
    try:
        is_folder, has_folder, exists = target.is_dir(), target.parent.is_dir(), os.path.lexists(target)
    except OSError as cause:
        raise error(where, f"cannot be written: {one_line(cause)}", "give another name") from cause
    if is_folder or not target.name:
        raise error(where, "is a folder", "give the name of a file")
    if not has_folder:
        raise error(where, f"the folder '{target.parent}' does not exist", "make it first")
    if exists and not overwrite:
        raise error(where, "exists already", "give another name or overwrite=True")


def put(group: h5py.Group, name: str, values: ArrayLike, **options: Any) -> h5py.Dataset:
    """Write an array of any shape, little-endian, with its CRC-32 as attribute ``crc32``."""
    array = np.asarray(values, order="C")
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    dataset = group.create_dataset(name, data=array, **options)
    dataset.attrs["crc32"] = np.uint32(zlib.crc32(array.data))
    return dataset


def put_json(group: h5py.Group, name: str, value: Any) -> None:
    """Write a dict as JSON text (in a data set, because an attribute ends at 64 kB)."""
    text = to_json(value).encode()
    group.create_dataset(name, data=np.bytes_(text)).attrs["crc32"] = np.uint32(zlib.crc32(text))


def put_text(item: h5py.Group | h5py.Dataset, name: str, text: str) -> None:
    """Write an attribute of fixed length.

    Strings of variable length lie in a heap without checksum, and one wrong bit there can send HDF5 into an
    endless loop: none is read here.
    """
    item.attrs[name] = np.bytes_(text.encode())


def one_line(cause: BaseException) -> str:
    """What an exception says, on one line."""
    return " ".join(str(cause).split())[:200] or type(cause).__name__
