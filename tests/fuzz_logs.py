"""Damaged event logs, by the thousand.

None may crash, hang, take memory without bound, reach outside the file, or give data that were not written.

::

    python tests/fuzz_logs.py --files 100000

File k is made from seed (``--seed``, k) alone, so that any can be made again: ``--only K --keep PATH``.  Two
kinds of damage are done.  *Blind* damage changes bytes: what is read then must be an error (EvsimError), or
the truth, or, where the end of a journal is gone, a shorter run that says that it is not complete.  *Sly*
damage makes a file whose checksums are right, with h5py or by computing HDF5's own: such a file may say
something else, but must not harm.  Each file is read in a worker process with 1 GB of memory more than it
starts with and 2 s of computing time.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import h5py
import numpy as np

from evsim.continuous_log import ContinuousLog, ContinuousPopulationLog
from evsim.errors import EvsimError
from evsim.eventlog import EventLog, PopulationLog
from evsim.events import Events
from evsim.inspection import describe
from evsim.log_file import LogFile
from evsim.log_writer import LogWriter
from evsim.timed_events import TimedEvents

SECONDS, WALL_SECONDS, BYTES = 2.0, 60.0, 2**30
#: What becomes of a file, if all is well.
FINE = ("refused", "equal", "prefix", "harmless", "not made")


# -- files that are right --------------------------------------------------------------------------------


def clocked_log(seed=0, dt=1.0, n_steps=60, n_lanes=2, n_units=9, start_step=5, activity=0.2, credit=False):
    """A source, units and a readout, in steps."""
    rng = np.random.default_rng(seed)

    def sent(steps, units):
        shape = (steps, n_lanes, units)
        return Events.from_dense(rng.normal(size=shape) * (rng.random(shape) < activity))

    window = {"dt": dt, "start_step": start_step}
    cue = PopulationLog("cue", "EventSource", 3, **window, events=sent(n_steps, 3))
    hidden = PopulationLog("hidden", "EGRU", n_units, **window, events=sent(n_steps, n_units))
    hidden.carried, hidden.thresholds = sent(2, n_units), rng.random(n_units)
    hidden.initial = {"c": rng.normal(size=(n_lanes, n_units)).astype("f4")}
    if credit:
        hidden.gradient = rng.normal(size=hidden.n_events).astype("f4")
    answer = PopulationLog("answer", "LeakyReadout", 2, **window, tape_fields=("v",))
    answer.tape = rng.normal(size=(n_steps, n_lanes, 1, 2)).astype("f4")
    return EventLog(
        {"cue": cue, "hidden": hidden, "answer": answer},
        **window,
        n_steps=n_steps,
        n_lanes=n_lanes,
        lengths=np.full(n_lanes, n_steps),
        counters={"events": {"hidden": hidden.n_events}, "lane_steps": n_lanes * n_steps},
        network={"dt_ms": dt},
        parameters={"hidden->answer.weight": rng.normal(size=(n_units, 2)).astype("f4")},
    )


def timed_log(seed=0, start=2.5, duration=30.0, n_lanes=2, n_units=9, n_events=200, credit=False):
    """A source, units and a readout, in continuous time."""
    rng = np.random.default_rng(seed)
    stop, samples = start + duration, np.linspace(start, start + duration, 5)

    def sent(units, count):
        columns = rng.uniform(start, stop, count), rng.integers(0, n_lanes, count)
        columns += rng.integers(0, units, count), rng.normal(size=count)
        return TimedEvents.from_list(*columns, n_units=units, n_lanes=n_lanes, start=start, stop=stop)

    def states(units):
        return rng.normal(size=(len(samples), n_lanes, units))

    cue = ContinuousPopulationLog("cue", "EventSource", 3, sent(3, n_events // 4))
    hidden = ContinuousPopulationLog("hidden", "LIF", n_units, sent(n_units, n_events))
    hidden.initial, hidden.state = {"v": rng.normal(size=(n_lanes, n_units))}, states(n_units)
    hidden.integral = states(n_units)
    if credit:
        hidden.gradient, hidden.time_gradient = rng.normal(size=(2, hidden.n_events))
    answer = ContinuousPopulationLog("answer", "LeakyReadout", 2, state=states(2))
    answer.initial = {"v": rng.normal(size=(n_lanes, 2))}
    return ContinuousLog(
        {"cue": cue, "hidden": hidden, "answer": answer},
        start=start,
        duration=duration,
        n_lanes=n_lanes,
        samples=samples,
        counters={"crossings": hidden.n_events},
        network={"dt_ms": None},
        parameters={"hidden->answer.weight": rng.normal(size=(n_units, 2))},
    )


def alone(log):
    """A log of its hidden units only: read in less than half the time, and most of the file is HDF5's."""
    del log.populations["cue"], log.populations["answer"]
    return log


def cut(log, count):
    """Windows of a log, by way of a file."""
    with tempfile.TemporaryDirectory() as folder, LogFile(log.save(Path(folder) / "whole.h5")) as file:
        marks = np.linspace(file.start, file.stop, count + 1)
        if not file.continuous:
            marks = np.rint(marks / file.dt) * file.dt
        for first, last in itertools.pairwise(marks.tolist()):
            yield file.window(first, last)


def streamed(log, path, count, killed):
    """Write a log in windows; of a writer that was killed, what was on the disk then."""
    with LogWriter(path) as writer:
        for window in cut(log, count):
            writer.append(window)
            writer.flush()
        if killed:
            shutil.copy(path, path.with_suffix(".killed"))
    if killed:
        path.with_suffix(".killed").replace(path)


def make_good_files(folder, names=None):
    """Files by name, all kinds of them or some."""
    folder = Path(folder)
    logs = {
        "whole": clocked_log(),
        "streamed": clocked_log(1, dt=0.1, credit=True),
        "killed": clocked_log(2, n_lanes=1),
        "timed": timed_log(),
        "timed streamed": timed_log(1, credit=True),
        "timed killed": timed_log(2),
        "many nodes": clocked_log(3, n_lanes=40, n_units=2000, n_steps=40, activity=0.03),
        "tiny": alone(clocked_log(4, n_lanes=1, n_units=3, n_steps=9, credit=True)),
        "tiny killed": alone(clocked_log(5, n_lanes=1, n_units=3, n_steps=9)),
        "tiny timed": alone(timed_log(4, n_lanes=1, n_units=3, n_events=20, credit=True)),
        "tiny timed killed": alone(timed_log(5, n_lanes=1, n_units=3, n_events=20)),
    }
    files = {}
    for name, log in logs.items():
        if names is not None and name not in names:
            continue
        path = folder / f"{name.replace(' ', '_')}.h5"
        if "streamed" in name or "killed" in name:
            streamed(log, path, 2 if "tiny" in name else 4, "killed" in name)
        else:
            log.save(path)
        files[name] = path
    return files


# -- blind damage: bytes ---------------------------------------------------------------------------------

WORDS = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)


def _place(data, rng, length=1):
    """Where to damage: anywhere, or near where HDF5 keeps something about the data."""
    if rng.random() < 0.5:
        marks = [
            b"OHDR",
            b"OCHK",
            b"FRHP",
            b"FHDB",
            b"FSHD",
            b"BTHD",
            b"BTLF",
            b"EAHD",
            b"EAIB",
            b"EADB",
            b"FAHD",
        ]
        mark = marks[rng.integers(len(marks))]
        start = data.find(mark, int(rng.integers(len(data))))
        if start >= 0:
            return min(start + int(rng.integers(4, 300)), len(data) - length)
    return int(rng.integers(max(len(data) - length, 1)))


def flip_bits(data, rng):
    for _ in range(rng.integers(1, 9)):
        data[_place(data, rng)] ^= 1 << int(rng.integers(8))


def set_bytes(data, rng):
    for _ in range(rng.integers(1, 5)):
        data[_place(data, rng)] = int(rng.integers(256))


def set_word(data, rng):
    at = _place(data, rng, 8)
    word = WORDS[rng.integers(len(WORDS))] if rng.random() < 0.8 else int(rng.integers(2**63))
    data[at : at + 8] = word.to_bytes(8, "little")


def fill_range(data, rng):
    length = int(2 ** rng.uniform(1, 13))
    at = _place(data, rng, length)
    length = min(length, len(data) - at)
    fill = rng.integers(3)
    data[at : at + length] = (
        bytes(length) if fill == 0 else b"\xff" * length if fill == 1 else rng.bytes(length)
    )


def cut_short(data, rng):
    del data[int(rng.integers(len(data))) :]


def lengthen(data, rng):
    data += rng.bytes(int(2 ** rng.uniform(0, 14)))


def insert_or_remove(data, rng):
    length = int(2 ** rng.uniform(0, 10))
    at = _place(data, rng, length)
    if rng.random() < 0.5:
        del data[at : at + length]
    else:
        data[at:at] = data[at : at + length]


def swap_blocks(data, rng):
    length = int(2 ** rng.uniform(3, 12))
    a, b = sorted(_place(data, rng, length) for _ in range(2))
    if a + length <= b:
        data[a : a + length], data[b : b + length] = data[b : b + length], data[a : a + length]


def copy_block(data, rng):
    length = int(2 ** rng.uniform(3, 12))
    a, b = (_place(data, rng, length) for _ in range(2))
    data[b : b + length] = data[a : a + length]


BLIND = (
    flip_bits,
    set_bytes,
    set_word,
    fill_range,
    cut_short,
    lengthen,
    insert_or_remove,
    swap_blocks,
    copy_block,
)


# -- sly damage: HDF5's own checksums made right -----------------------------------------------------------


def lookup3(data, lengths):
    """Bob Jenkins's hash of the first so many bytes of ``data``, for an array of lengths, as HDF5 has it."""
    lengths = np.asarray(lengths, np.int64)
    padded = np.frombuffer(data.ljust((len(data) // 12 + 2) * 12, b"\0"), "<u4").reshape(-1, 3)
    a = b = c = (0xDEADBEEF + lengths).astype(np.uint32)

    def turned(x, k):
        return (x << np.uint32(k)) | (x >> np.uint32(32 - k))

    rounds = np.maximum((lengths - 1) // 12, 0)
    for k in range(int(rounds.max(initial=0))):
        going = rounds > k
        x, y, z = a + padded[k, 0], b + padded[k, 1], c + padded[k, 2]
        x = (x - z) ^ turned(z, 4)
        z = z + y
        y = (y - x) ^ turned(x, 6)
        x = x + z
        z = (z - y) ^ turned(y, 8)
        y = y + x
        x = (x - z) ^ turned(z, 16)
        z = z + y
        y = (y - x) ^ turned(x, 19)
        x = x + z
        z = (z - y) ^ turned(y, 4)
        y = y + x
        a, b, c = np.where(going, x, a), np.where(going, y, b), np.where(going, z, c)
    left = lengths - 12 * rounds
    words = padded[rounds]
    for k in range(3):  # bytes behind the end count as zeros
        kept = np.clip(left - 4 * k, 0, 4)
        mask = np.where(kept == 4, 2**32 - 1, (np.int64(1) << (8 * np.minimum(kept, 3))) - 1).astype(
            np.uint32
        )
        words[:, k] &= mask
    x, y, z = a + words[:, 0], b + words[:, 1], c + words[:, 2]
    z = (z ^ y) - turned(y, 14)
    x = (x ^ z) - turned(z, 11)
    y = (y ^ x) - turned(x, 25)
    z = (z ^ y) - turned(y, 16)
    x = (x ^ z) - turned(z, 4)
    y = (y ^ x) - turned(x, 14)
    z = (z ^ y) - turned(y, 24)
    return np.where(lengths > 0, z, c)


def checked_blocks(data, longest=340):
    """(start, end) of each stretch of a file behind which its checksum stands, found by trying."""
    marks = (b"OHDR", b"OCHK", b"FRHP", b"FHDB", b"FHIB", b"BTHD", b"BTLF", b"BTIN")
    marks += (b"EAHD", b"EAIB", b"EASB", b"EADB", b"FAHD", b"FADB", b"\x89HDF", b"FSHD", b"SMTB")
    found = []
    for mark in marks:
        at = data.find(mark)
        while at >= 0:
            stretch = bytes(data[at : at + longest])
            lengths = np.arange(8, max(len(stretch) - 4, 8))
            ends = np.array([int.from_bytes(stretch[n : n + 4], "little") for n in lengths], np.uint32)
            right = lengths[lookup3(stretch, lengths) == ends] if len(lengths) else lengths
            if len(right):
                found.append((at, at + int(right[0])))
            at = data.find(mark, at + 1)
    return found


def lie(data, rng, blocks):
    """Change what HDF5 knows about the data, and make its checksum right."""
    for _ in range(rng.integers(1, 4)):
        start, end = blocks[rng.integers(len(blocks))]
        at = int(rng.integers(start + 4, end))
        what = rng.integers(4)
        if what == 0:
            data[at] ^= 1 << int(rng.integers(8))
        elif what == 1:
            data[at] = int(rng.integers(256))
        else:
            size = min(int(rng.choice([2, 4, 8])), end - at)
            word = WORDS[rng.integers(len(WORDS))] if what == 2 else int(rng.integers(len(data)))
            data[at : at + size] = word.to_bytes(8, "little")[:size]
        sum_ = int(lookup3(bytes(data[start:end]), [end - start])[0])
        data[end : end + 4] = sum_.to_bytes(4, "little")


# -- sly damage: with h5py --------------------------------------------------------------------------------


def _entries(file):
    names = []
    file.visit(names.append)
    return names


def _pick(rng, options):
    options = list(options)
    return options[rng.integers(len(options))]


def _data_sets(file):
    return [name for name in _entries(file) if isinstance(file[name], h5py.Dataset)]


def remove_entry(file, rng):
    del file[_pick(rng, _entries(file))]


def rename_entry(file, rng):
    old, new = _pick(rng, _entries(file)), _pick(rng, _entries(file))
    kept = new + "x" if rng.random() < 0.5 or new.startswith(old) else new
    if kept in file:
        del file[kept]
    file.move(old, kept)


def other_type(file, rng):
    name = _pick(rng, _data_sets(file))
    values = file[name][()] if file[name].shape != () else np.zeros(3)
    kinds = [
        "f2",
        "f4",
        "f8",
        ">f8",
        "i1",
        "i8",
        ">i4",
        "u2",
        "u8",
        "S3",
        "c8",
        "V5",
        "?",
        [("a", "f4"), ("b", "i8")],
    ]
    dtype = kinds[rng.integers(len(kinds))]
    del file[name]
    with np.errstate(all="ignore"):
        try:
            values = values.astype(dtype)
        except (TypeError, ValueError):
            values = np.zeros(np.shape(values), dtype)
    _put(file, name, values, rng)


def other_shape(file, rng):
    name = _pick(rng, _data_sets(file))
    shape, dtype = file[name].shape, file[name].dtype
    shapes = [
        (),
        (0,),
        (1,),
        (*shape, 1),
        (1, *shape),
        tuple(n + 1 for n in shape),
        tuple(n // 2 for n in shape),
        (2, 3, 2),
    ]
    del file[name]
    _put(file, name, np.zeros(shapes[rng.integers(len(shapes))], dtype), rng)


def _put(file, name, values, rng):
    """A data set, chunked or not, whose attribute has the right CRC-32."""
    values = np.asarray(values)
    chunked = values.ndim > 0 and rng.random() < 0.7
    options = {"maxshape": (None,) * values.ndim, "chunks": True} if chunked else {}
    made = file.create_dataset(name, data=values, **options)
    if values.dtype.kind not in "VO":
        made.attrs["crc32"] = np.uint32(zlib.crc32(np.ascontiguousarray(values).tobytes()))


def absurd_size(file, rng):
    """A data set that claims far more than the file holds: rows never written, or packed to nothing."""
    name = _pick(rng, _data_sets(file))
    old = file[name]
    rows, width = int(2 ** rng.uniform(16, 60)), old.shape[1:]
    how = rng.integers(4)
    if how == 0 and old.chunks is not None:
        old.resize(rows, axis=0)
        return
    dtype, attrs = old.dtype, dict(old.attrs)
    del file[name]
    if how == 1:
        made = file.create_dataset(
            name, (rows // 64, *width), dtype, chunks=(65536, *width), maxshape=(None, *width)
        )
    elif how == 2:
        made = file.create_dataset(
            name,
            (2**21,),
            dtype if dtype.kind in "iuf" else "u1",
            chunks=(2**20,),
            compression="gzip",
            maxshape=(None,),
        )
        made[...] = 0
    else:
        made = file.create_dataset(name, (2**18, *width), dtype, chunks=(2**18, *width), fillvalue=None)
    for key, value in attrs.items():
        made.attrs[key] = value


def link_away(file, rng):
    """A link, or a place of data, outside the file; a named pipe waits there for whoever opens it."""
    name = _pick(rng, _entries(file))
    pipe = str(Path(file.filename).parent / "pipe.h5")
    how = rng.integers(5)
    old = file[name]
    if how >= 3 and isinstance(old, h5py.Dataset) and old.ndim and old.dtype.kind in "iuf" and old.size:
        shape, dtype, attrs = old.shape, old.dtype, dict(old.attrs)
        del file[name]
        if how == 3:
            layout = h5py.VirtualLayout(shape, dtype)
            layout[...] = h5py.VirtualSource(pipe, "data", shape)
            made = file.create_virtual_dataset(name, layout)
        else:
            made = file.create_dataset(name, shape, dtype, external=[(pipe, 0, h5py.h5f.UNLIMITED)])
        for key, value in attrs.items():
            made.attrs[key] = value
        return
    del file[name]
    if how == 0:
        file[name] = h5py.ExternalLink(pipe, "/data")
    elif how == 1:
        file[name] = h5py.SoftLink("/" + _pick(rng, [name, "evsim", "spikes", "nowhere"]))
    else:
        file[name] = h5py.SoftLink("/")


def make_cycle(file, rng):
    groups = ["/", *(name for name in _entries(file) if isinstance(file[name], h5py.Group))]
    inner, outer = _pick(rng, groups), _pick(rng, groups)
    name = _pick(rng, ["x", "hidden", "index", "initial", "spikes", "evsim"])
    where = f"{inner.rstrip('/')}/{name}"
    if where in file:
        del file[where]
    if inner in file and outer in file:
        file[where] = file[outer]


def swap_kind(file, rng):
    name = _pick(rng, _entries(file))
    was_group = isinstance(file[name], h5py.Group)
    del file[name]
    if rng.random() < 0.3:
        file[name] = np.dtype("f8")
    elif was_group:
        file[name] = np.arange(4)
    else:
        file.create_group(name)


def other_attribute(file, rng):
    holders = ["/", *_entries(file)]
    item = file[_pick(rng, [name for name in holders if len(file[name].attrs)])]
    key = _pick(rng, item.attrs)
    values = [
        -1, 0, 1, 2**31, 2**62, 2**64 - 1, float("nan"), float("inf"), -0.5, 1e308, "text", "x" * 60000,
        np.bytes_(b"\xff\xfe"), np.arange(5), np.zeros((2, 0)), np.zeros(8000), h5py.Empty("f4"),
        np.void(b"abc"), True, 1j, [b"a", b"bc"], np.float16(1), np.uint8(3), np.int64(3), file.ref,
        np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")]), np.array([[1]]), np.array([2.0]),
    ]  # fmt: skip
    del item.attrs[key]
    if rng.random() < 0.9:
        item.attrs[key] = values[rng.integers(len(values))]


def other_values(file, rng):
    """Other numbers in a data set, and checksums that fit them."""
    name = _pick(rng, [name for name in _data_sets(file) if "journal" not in name])
    old = file[name]
    if old.dtype.kind not in "iuf" or not old.size:
        return
    values = old[...]
    flat = values.reshape(-1)
    limits = np.iinfo if values.dtype.kind in "iu" else np.finfo
    extremes = [0, 1, limits(values.dtype).min, limits(values.dtype).max]
    if values.dtype.kind == "f":
        extremes += [np.nan, np.inf, -np.inf, -1.0, 5e-324]
    how, count = rng.integers(4), int(rng.integers(1, 4))
    if how == 0:
        flat[rng.integers(len(flat), size=count)] = extremes[rng.integers(len(extremes))]
    elif how == 1:
        flat[...] = flat[::-1].copy()
    elif how == 2:
        flat[...] = rng.permutation(flat)
    else:
        flat[...] = extremes[rng.integers(len(extremes))]
    old[...] = values
    if "crc32" in old.attrs:
        old.attrs["crc32"] = np.uint32(zlib.crc32(np.ascontiguousarray(values).tobytes()))
    rewrite_journal(file, lambda entries: resum(file, entries))


def resum(file, entries):
    """Checksums of all pieces that entries speak of, made anew."""
    at = collections.Counter()
    for entry in entries:
        for path, pieces in entry["pieces"].items():
            columns = ("timestamps", "node_ids", "value") if len(pieces[0]) == 5 else ("",)
            for piece in pieces:
                for k, column in enumerate(columns):
                    rows = file[f"{path}/{column}".rstrip("/")][at[path] : piece[0]]
                    piece[len(piece) - len(columns) + k] = zlib.crc32(np.ascontiguousarray(rows).tobytes())
                at[path] = piece[0]


def rewrite_journal(file, change, raw=None):
    """A journal with other entries, each behind its right CRC-32."""
    text = file["evsim/journal"][...].tobytes()
    entries = [json.loads(line[9:]) for line in text.split(b"\n")[:-1]]
    change(entries)
    lines = [raw(entry) if raw else json.dumps(entry) for entry in entries]
    data = b"".join(b"%08x %s\n" % (zlib.crc32(line.encode()), line.encode()) for line in lines)
    journal = file["evsim/journal"]
    journal.resize(len(data), axis=0)
    journal[...] = np.frombuffer(data, "u1")


STRANGE = (
    None, True, -1, 0, 2**31, 2**53, 2**63, 2**64, 10**30, 1e308, 0.5, float("nan"), float("inf"), "text", "",
    [], {}, [[1]], [None], [[]], {"a": 1}, "\ud800", [[1, 2], [3]],
)  # fmt: skip


def strange_journal(file, rng):
    """Entries that say what no writer says."""

    def change(entries):
        for _ in range(rng.integers(1, 3)):
            entry = entries[rng.integers(len(entries))]
            how = rng.integers(8)
            strange = STRANGE[rng.integers(len(STRANGE))]
            if how == 0:
                entry[_pick(rng, entry)] = strange
            elif how == 1:
                entry.pop(_pick(rng, entry))
            elif how == 2 and entry["pieces"]:
                entry["pieces"][_pick(rng, entry["pieces"])] = strange
            elif how == 3 and entry["pieces"]:
                piece = _pick(rng, _pick(rng, entry["pieces"].values()) or [[0]])
                piece[rng.integers(len(piece))] = strange
            elif how == 4:
                entries.insert(int(rng.integers(len(entries) + 1)), dict(entry))
            elif how == 5:
                entries.remove(entry) if len(entries) > 1 else entry.clear()
            elif how == 6 and entry["pieces"]:  # more rows, of which none were written
                path = _pick(rng, entry["pieces"])
                last, rows = list(entry["pieces"][path][-1]), int(2 ** rng.uniform(1, 40))
                entry["pieces"][path].append([last[0] + rows, *last[1:]])
                for name in ("", "timestamps", "node_ids", "value"):
                    column = file.get(f"{path}/{name}".rstrip("/"))
                    if isinstance(column, h5py.Dataset) and column.chunks:
                        column.resize(last[0] + rows, axis=0)
            else:
                stop = _pick(
                    rng, [key for key in ("stop_step", "stop_ms", "duration_ms") if key in entry] or ["entry"]
                )
                entry[stop] = _pick(rng, [2**40, 1e300, -5, 0, 3, 2**61])

    rewrite_journal(file, lambda entries: change(entries) if entries else None)


def strange_json(file, rng):
    """Text that is no JSON, or JSON that goes deep."""
    how = rng.integers(6)
    if rng.random() < 0.5:
        texts = [
            "[" * 100000,
            '{"a":' * 50000,
            "9" * 5000,
            '{"entry": NaN}',
            "\x00",
            '{"entry": 0, "entry": 1}',
        ]
        rewrite_journal(file, lambda entries: None, raw=lambda entry: texts[how])
        return
    name = _pick(rng, ["evsim/network", "evsim/provenance"])
    deep = b'{"a":' * 20000 + b"1" + b"}" * 20000
    text = [
        b"[]",
        b"{",
        b'{"a": ' + b"[" * 100000 + b"}",
        deep,
        b'{"a": 1e999999}',
        b'{"a": ' + b"9" * 6000 + b"}",
    ][how]
    del file[name]
    file.create_dataset(name, data=np.bytes_(text)).attrs["crc32"] = np.uint32(zlib.crc32(text))


def ghost_rows(file, rng):
    """A journal that tells of many blocks, with right checksums, of rows that were never written."""
    count, name = int(2 ** rng.uniform(4, 12)), _pick(rng, file["spikes"])
    group = file[f"spikes/{name}"]
    sums = [zlib.crc32(bytes(65536 * group[c].dtype.itemsize)) for c in ("timestamps", "node_ids", "value")]

    def change(entries):
        entry = entries[-1]
        blocks = entry["pieces"].setdefault(f"spikes/{name}", [[0, 0, 0, 0, 0]])
        last, when = blocks[-1][0], blocks[-1][1]
        blocks += [[last + (k + 1) * 65536, when, *sums] for k in range(count)]
        for column in ("timestamps", "node_ids", "value"):
            group[column].resize(last + count * 65536, axis=0)
        if count < 20 and rng.random() < 0.5:  # the file is still small
            group["value"][last:] = 1.0

    rewrite_journal(file, change)


SLY = (
    remove_entry,
    rename_entry,
    other_type,
    other_shape,
    absurd_size,
    link_away,
    make_cycle,
    swap_kind,
    other_attribute,
    other_values,
    strange_journal,
    strange_json,
    ghost_rows,
)


# -- one damaged file --------------------------------------------------------------------------------------


def is_killed(name):
    return "killed" in name


def damage(good, blocks, number, seed, path):
    """Make file ``number`` at ``path``; (name of the good one, kind of damage, whether it is sly)."""
    rng = np.random.default_rng([seed, number])
    names = [name for name in good for _ in range(8 if "tiny" in name else 1 if name == "many nodes" else 3)]
    name = names[rng.integers(len(names))]
    kind = rng.random()
    if kind < 0.45:
        data = bytearray(good[name])
        how = BLIND[rng.integers(len(BLIND))]
        how(data, rng)
        path.write_bytes(data)
        return name, how.__name__, False
    if kind < 0.7:
        data = bytearray(good[name])
        lie(data, rng, blocks[name])
        path.write_bytes(data)
        return name, "lie", True
    if is_killed(name):  # h5py does not change such a file
        names = [other for other in names if not is_killed(other)]
        name = names[rng.integers(len(names))]
    how = SLY[rng.integers(len(SLY))]
    path.write_bytes(good[name])
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        how(file, rng)
    return name, how.__name__, True


def look(path, rng):
    """All that is in a file, as far as it can be had: (what was asked for, answer or EvsimError)."""
    answers = []

    def ask(what, question):
        try:
            answers.append((what, question()))
        except EvsimError as error:
            if "\n" in str(error):
                raise AssertionError(f"an error of several lines: {error}") from error
            answers.append((what, error))
            if isinstance(error.__cause__, MemoryError):
                raise MemoryError(str(error)) from error
            if isinstance(error.__cause__, AssertionError):
                raise

    if rng.random() < 0.1:  # else a window of all, which is the same
        ask("log", lambda: EventLog.open(path))
    try:
        file = LogFile(path)
    except EvsimError as error:
        return [*answers, ("log", error)], None
    with file:
        a, b = sorted(rng.uniform(file.start, max(file.stop, file.start), 2).tolist())
        ask("summary", file.summary)
        ask("parameters", lambda: file.parameters)
        ask("network", lambda: file.network)
        ask("check", file.check)
        if "log" not in dict(answers):
            ask("log", file.window)
        ask("window", lambda: file.window(a, b))
        for name, population in file.populations.items():
            ask((name, "state"), lambda population=population: population.state(a, b))
            if population.sends:
                ask((name, "table", None, None), population.table)
                ask((name, "table", a, b), lambda population=population: population.table(a, b))
                ask((name, "unit_events"), lambda population=population: population.unit_events)
                ask((name, "block_counts"), lambda population=population: population.block_counts)
        ask("stop", lambda: (file.complete, file.stop))
        seldom = rng.random()
        if seldom < 0.1:
            ask("windows", lambda: sum(len(log.populations) for log in file.windows(500)))
        elif seldom < 0.2:
            ask("description", lambda: describe(file))
        elif seldom < 0.25:
            ask("copy", lambda: file.copy(path.with_suffix(".copy"), overwrite=True))
    return answers, file


def same_columns(mine, theirs):
    return mine.columns.keys() == theirs.columns.keys() and all(
        np.array_equal(column, getattr(theirs, name)) for name, column in mine.columns.items()
    )


def judge(answers, truth):
    """What became of a file that was damaged blindly, or an AssertionError."""
    said = dict(answers)
    refused = any(isinstance(answer, EvsimError) for answer in said.values())
    if "stop" not in said:
        assert all(isinstance(answer, EvsimError) for answer in said.values()), "one opens what is refused"
        return "refused"
    complete, stop = said["stop"]
    shorter = stop != truth.stop
    if shorter:
        assert not complete, "a shorter run that says it is complete"
        assert stop < truth.stop, "a longer run"
    opened = said["log"]
    if not isinstance(opened, EvsimError) and not shorter:
        assert opened.equal(truth.log), "EventLog.open gives other data"
    for what, answer in said.items():
        if isinstance(answer, EvsimError) or not isinstance(what, tuple):
            continue
        name, what, *window = what
        if what == "table":
            start, end = (window[0], window[1]) if window[0] is not None else (None, stop)
            expected = truth.log[name].table(start, min(end, stop))
            assert same_columns(answer, expected), f"the table of {name} is not the truth"
        elif what == "unit_events":
            table = truth.log[name].table(None, stop)
            count = np.bincount(table.node, minlength=answer.size).reshape(answer.shape)
            assert np.array_equal(answer, count), f"the counts of {name} are not the truth"
    if said["check"] == [] and not shorter:
        assert not refused, "check finds nothing wrong with a file that is refused"
    return "refused" if refused else "prefix" if shorter else "equal"


def harmless(answers):
    """A file that may say anything, as long as it is a log."""
    said = dict(answers)
    for answer in said.values():
        if hasattr(answer, "columns"):
            assert ((answer.unit >= 0) & (answer.unit < answer.n_units)).all(), "units that there are not"
            assert ((answer.lane >= 0) & (answer.lane < answer.n_lanes)).all(), "lanes that there are not"
            assert len({len(column) for column in answer.columns.values()}) == 1, (
                "columns of different lengths"
            )
        elif hasattr(answer, "populations"):
            for population in answer.populations.values():
                if population.events is not None:
                    population.events.check()
    return "refused" if any(isinstance(answer, EvsimError) for answer in said.values()) else "harmless"


class Truth:
    """What a good file holds."""

    def __init__(self, path):
        self.log = EventLog.open(path)
        with LogFile(path) as file:
            self.stop = file.stop


# -- a worker: reads one file after the other, and says so ------------------------------------------------


def work(folder, seed, numbers):
    """Lines "number start name kind" and "number outcome message", for whoever watches."""
    folder = Path(folder)
    good_paths = {path.stem.replace("_", " "): path for path in sorted((folder / "good").glob("*.h5"))}
    good = {name: path.read_bytes() for name, path in good_paths.items()}
    blocks = {
        k: [tuple(pair) for pair in v] for k, v in json.loads((folder / "blocks.json").read_text()).items()
    }
    truths = {name: Truth(path) for name, path in good_paths.items()}
    look(next(iter(good_paths.values())), np.random.default_rng(0))
    start = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (start + BYTES, start + BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for kind in (signal.SIGPROF, signal.SIGALRM):  # the process ends: a loop in C hears no handler
        signal.signal(kind, signal.SIG_DFL)
    path = folder / f"damaged-{os.getpid()}.h5"
    for number in numbers:
        print(number, "making", flush=True)
        signal.setitimer(signal.ITIMER_PROF, 20 * SECONDS)
        try:
            name, kind, sly = damage(good, blocks, number, seed, path)
        except Exception as error:  # h5py may refuse to make something so bad
            print(
                number,
                "done",
                "not made",
                f"{type(error).__name__}: {error}".replace("\n", " ")[:100],
                flush=True,
            )
            continue
        os.utime(path, (0, 0))  # nobody waits for a file that was not changed just now
        print(number, "reading", name.replace(" ", "_"), kind, flush=True)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS)
        message = ""
        try:
            answers, _ = look(path, np.random.default_rng([seed, number, 1]))
            signal.setitimer(signal.ITIMER_PROF, 20 * SECONDS)
            outcome = harmless(answers) if sly else judge(answers, truths[name])
        except Exception as error:
            outcome = "memory" if isinstance(error, MemoryError) else "WRONG"
            message = f"{type(error).__name__}: {error}"
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(number, "done", outcome, message.replace("\n", " ")[:300], flush=True)
    for left in folder.glob(f"{path.stem}.*"):
        left.unlink()


def prepare(folder, names=None):
    """The good files, where HDF5's checksums are in them, and a pipe that nobody must open."""
    folder = Path(folder)
    (folder / "good").mkdir()
    files = make_good_files(folder / "good", names)
    blocks = {name: checked_blocks(path.read_bytes()) for name, path in files.items()}
    (folder / "blocks.json").write_text(json.dumps(blocks))
    os.mkfifo(folder / "pipe.h5")


def watch(folder, seed, first, last, report, counts=None, each=None):
    """Have files ``first`` to ``last`` made and read; counts of (kind of damage, outcome)."""
    counts = collections.Counter() if counts is None else counts
    at, name, kind = first, "", ""
    while at < last:
        command = [sys.executable, __file__, "--work", str(folder), str(at), str(last), "--seed", str(seed)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as worker:
            state = "starting"
            for line in worker.stdout:
                number, state, *rest = line.rstrip("\n").split(" ", 3)
                at = int(number)
                if state == "making":
                    name, kind = "", "made"
                elif state == "reading":
                    name, kind = rest[0], rest[1]
                else:
                    text = line.split(" ", 2)[2].strip()
                    outcome = next((o for o in (*FINE, "memory", "WRONG") if text.startswith(o)), text)
                    counts[kind, outcome] += 1
                    if outcome not in FINE:
                        report(f"file {at} (seed {seed}): {name}, {kind}: {text}")
                    if each:
                        each(at + 1)
            stderr = worker.stderr.read()
        if worker.returncode == 0:
            break
        if state == "starting":
            raise RuntimeError(f"the worker does not start: {stderr[-2000:]}")
        died = (
            signal.Signals(-worker.returncode).name if worker.returncode < 0 else f"exit {worker.returncode}"
        )
        outcome = {"SIGPROF": "hang", "SIGALRM": "waits"}.get(died, f"crash ({died})")
        if state == "making":
            outcome = "not made"
        else:
            report(f"file {at} (seed {seed}): {name}, {kind}: {outcome} {stderr[-300:].strip()}")
        counts[kind, outcome] += 1
        at += 1
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--files", type=int, default=10000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--findings", type=Path, help="append what is wrong to this file")
    parser.add_argument("--tally", type=Path, help="keep counts here, and go on from what is there")
    parser.add_argument("--only", type=int, help="make and read this one file")
    parser.add_argument("--keep", type=Path, help="and leave it here")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work[0], options.seed, range(int(options.work[1]), int(options.work[2])))
        return
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        prepare(folder)
        if options.only is not None:
            paths = {p.stem.replace("_", " "): p for p in sorted((Path(folder) / "good").glob("*.h5"))}
            good = {name: path.read_bytes() for name, path in paths.items()}
            blocks = json.loads((Path(folder) / "blocks.json").read_text())
            path = options.keep or Path(folder) / "only.h5"
            print(damage(good, blocks, options.only, options.seed, path))
            answers, _ = look(path, np.random.default_rng([options.seed, options.only, 1]))
            for what, answer in answers:
                print(what, "->", answer)
            return

        counts, first, before = collections.Counter(), options.first, 0.0
        if options.tally and options.tally.exists():
            kept = json.loads(options.tally.read_text())
            counts.update({tuple(key.split(": ")): n for key, n in kept["counts"].items()})
            first, before, options.seed = kept["next"], kept["seconds"], kept["seed"]
        begun = time.monotonic()

        def report(text):
            print(text, flush=True)
            if options.findings:
                with open(options.findings, "a") as file:
                    file.write(text + "\n")

        def each(following):
            if following % 200 == 0 and options.tally:
                keep(following)

        def keep(following):
            text = json.dumps(
                {
                    "seed": options.seed,
                    "next": following,
                    "seconds": before + time.monotonic() - begun,
                    "counts": {": ".join(key): n for key, n in counts.items()},
                }
            )
            options.tally.with_suffix(".new").write_text(text)
            options.tally.with_suffix(".new").replace(options.tally)

        last = options.first + options.files
        watch(folder, options.seed, first, last, report, counts, each)
        if options.tally:
            keep(last)
        for kind in sorted({kind for kind, _ in counts}):
            row = {outcome: n for (k, outcome), n in sorted(counts.items()) if k == kind}
            print(f"{kind:18s}", ", ".join(f"{outcome}: {n}" for outcome, n in row.items()))
        bad = sum(n for (_, outcome), n in counts.items() if outcome not in FINE)
        print(f"{sum(counts.values())} files in {before + time.monotonic() - begun:.0f} s, {bad} findings")
        sys.exit(bad > 0)


if __name__ == "__main__":
    main()
