"""Sly damage: what an event log holds is changed with h5py."""

import collections
import json
import zlib
from pathlib import Path

import h5py
import numpy as np


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
