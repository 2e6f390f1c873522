"""Writes the gradients of events beside the events of a log on disk."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from evsim.errors import LogError
from evsim.hdf5 import abandon, close_written, one_line, reserve
from evsim.log_format import LIBVER, journal_line

#: Columns by what a gradient is taken at.
COLUMNS = {"value": "gradient", "time": "time_gradient"}
#: Bytes set aside for HDF5's own entries.
SPARE = 2**20


def write_gradients(
    path: Path, where: str, columns: Mapping[str, NDArray], ends: Mapping[str, NDArray], entry: dict[str, Any]
) -> None:
    """Fill columns that are empty, and add a line to the journal that speaks of them.

    A process killed meanwhile leaves the file as it was, though it counts as one that was not closed.

    Parameters
    ----------
    path : Path
    where : str
        What errors are about.
    columns : mapping of str to ndarray
        By path in the file, ``"spikes/hidden/gradient"``.
    ends : mapping of str to ndarray
        Rows behind each block of the events, likewise.
    entry : dict
        Line for the journal, but for its pieces.

    Raises
    ------
    LogError
        The file cannot be written.
    """
    try:
        file = _open(path)
    except OSError as cause:
        raise LogError(where, f"cannot be written: {one_line(cause)}", "close it elsewhere first") from cause
    try:
        # a chunk that begins to be filled takes all its room
        reserve(file, sum(column.nbytes + 2**19 for column in columns.values()) + SPARE)
        pieces: dict[str, list] = {}
        for name, column in columns.items():
            dataset, start, pieces[name] = file[name], 0, []
            dataset.resize(len(column), axis=0)
            for end in ends[name].tolist():
                block = np.ascontiguousarray(column[start:end], dataset.dtype)
                dataset[start:end] = block
                pieces[name].append([end, zlib.crc32(block.data)])
                start = end
            dataset.flush()
        line = np.frombuffer(journal_line(entry | {"pieces": pieces}), np.uint8)
        journal = file["evsim/journal"]
        end = len(journal)
        journal.resize(end + len(line), axis=0)
        journal[end:] = line
        journal.flush()
        close_written(file)
    except BaseException as cause:
        abandon(file)
        if isinstance(cause, (OSError, RuntimeError, ValueError)):  # any of which h5py raises
            raise LogError(where, f"cannot be written: {one_line(cause)}", "make room") from cause
        raise


def _open(path: Path) -> h5py.File:
    """The file, open for writing so that it can be read meanwhile, and whenever this process ends.

    Opened in h5py's usual way, it could not be read again if the process were killed early.
    """
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    bounds = {"v108": h5py.h5f.LIBVER_V18, "v110": h5py.h5f.LIBVER_V110}
    access.set_libver_bounds(*(bounds[version] for version in LIBVER))
    flags = h5py.h5f.ACC_RDWR | h5py.h5f.ACC_SWMR_WRITE
    return h5py.File(h5py.h5f.open(bytes(path.absolute()), flags, fapl=access))
