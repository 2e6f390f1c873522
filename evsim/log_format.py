"""Event logs on disk: HDF5 that grows by appending, and that SONATA readers (libsonata, bmtk) open too.

Layout, version 2.0 of ``evsim_log_version``::

    /                       magic, version (SONATA), evsim_log_version
    /spikes/<population>    timestamps, node_ids, value: a row for each event, in order of (time, lane, unit)
        gradient, time_gradient     likewise, or of length 0: what a replay has found (see `evsim.Gradients`)
        index/row_ptr               in steps: rows of step s are row_ptr[s]:row_ptr[s + 1], s from start_step
        index/counts                events of each block in each of at most 256 groups of nodes
        index/unit_events           events of each node; written when the file is closed
    /report/<population>    sampled states (v of readouts and LIF, h of delta units, c of EGRU) in SONATA's
                            report layout; all bits of float64 states in data64
    /evsim                  clock ("steps": dt_ms, start_step; "continuous": start_ms), n_lanes; journal;
                            JSON: network, provenance; samples (ms, continuous)
        populations/<name>  kind, n_units, rank, emits; thresholds; initial/<state>;
                            carried/{ptr, unit, value}; continuous: integral, square, and state where it is
                            not in a report
        parameters/<name>   arrays
        checkpoints         step, and <population>/<state>: states before some steps

A lane is a replica of the network: ``node_id = lane * n_units + unit``.  In steps, ``timestamps`` are whole
steps counted from the start of the simulation, in the unit "ms" when dt = 1 and "step" otherwise; in
continuous time they are float64, in ms.

**The journal** says what of all this is on file.  Whatever grows is written first, and then one line of JSON
behind its own CRC-32: how far the run has come, its counters, and for every data set that grew the end and
the CRC-32 of each new piece (of events: blocks of at most 65536 rows).  What no line speaks of does not
exist, so that a process killed at any moment leaves a file that is right up to its last whole line.  Rows
that a line has spoken of are never changed: columns that pass a filter (timestamps, and node ids of more than
65536 nodes) are packed chunk by chunk, and a chunk that grew is written again with the same rows.

Facts about readers: libsonata's wheel has no zlib, so the only filter is HDF5's own scale-offset; it demands
N + 1 index pointers where the specification says N, and float32 for the data of a report.  bmtk reads
``sorting`` as a string on ``node_ids`` and cannot read the enum that libsonata wants on the group: both are
written.
"""

from __future__ import annotations

import json
import math
import zlib
from typing import Any

import h5py
import numpy as np

from evsim.provenance import to_json

#: Of the layout; readers accept files of the same first number.
VERSION = (2, 0)
MAGIC = 0x0A7A  # of SONATA
SORTING = h5py.enum_dtype({"none": 0, "by_id": 1, "by_time": 2}, basetype="i1")
#: Oldest and newest format allowed: SWMR needs the first, and others' HDF5 cannot read newer ones.
LIBVER = ("v110", "v110")
#: Rows of a block.
BLOCK = 65536
#: Rows of a chunk of the columns of events: the less, the fewer bits a packed row needs, and the less room is
#: lost where a chunk grew that others follow.
CHUNK = 16384
#: Groups of nodes that events are counted in, at most.
GROUPS = 256
#: Elements of a piece of a data set that is no column of events.
PIECE = 2**18
#: States whose samples are reported.
REPORTED = ("v", "h", "c")


class JournalError(ValueError):
    """A line of a journal that is not the last one is damaged."""


def journal_line(entry: dict[str, Any]) -> bytes:
    """An entry as a line, behind the CRC-32 of its text."""
    text = to_json(entry).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def journal_entries(data: bytes) -> tuple[list[dict[str, Any]], int]:
    """The entries of a journal, and the number of bytes that they take.

    The last line may be cut short, by a process that was killed as it wrote it: it does not count.

    Raises
    ------
    JournalError
        A line that is followed by others is not what was written.
    """
    texts, at = [], 0
    lines = data.split(b"\n")
    for number, line in enumerate(lines[:-1]):
        if not _is_whole(line):
            if number == len(lines) - 2 and not lines[-1].strip(b"\0"):
                break
            raise JournalError(f"line {number + 1} of its journal is damaged")
        texts.append(line[9:])
        at += len(line) + 1
    entries = json.loads(b"[" + b",".join(texts) + b"]")  # at once: there may be thousands
    if len(entries) != len(texts) or not all(isinstance(entry, dict) for entry in entries):
        raise JournalError("a line of its journal is no entry")
    return entries, at


def _is_whole(line: bytes) -> bool:
    return line[8:9] == b" " and line[:8] == b"%08x" % zlib.crc32(line[9:])


def duration_between(start: float, stop: float) -> float:
    """A length of a window that starts at ``start`` and does not end before ``stop``, whatever is rounded."""
    duration = stop - start
    return duration if start + duration >= stop else math.nextafter(duration, math.inf)


def node_dtype(n_nodes: int) -> np.dtype:
    """The type of node ids: 16 bits if they do, 32 or 64 otherwise."""
    return np.dtype("u2" if n_nodes <= 2**16 else "u4" if n_nodes <= 2**32 else "u8")


def group_shift(n_nodes: int) -> int:
    """Node ids shifted right by so many bits are numbers of groups, of which there are at most `GROUPS`."""
    return max((n_nodes - 1).bit_length() - (GROUPS - 1).bit_length(), 0)


def n_groups(n_nodes: int) -> int:
    """Number of groups of nodes."""
    return ((n_nodes - 1) >> group_shift(n_nodes)) + 1
