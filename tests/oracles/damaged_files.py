"""Ways to damage an event log with plain h5py and JSON, and what must be said of such a file.

The journal is read and written here without evsim's code: lines of JSON, each behind its CRC-32 as eight
hexadecimal digits and a space.
"""

import json
import re
import zlib

import h5py
import numpy as np
import pytest

from evsim.errors import LogError
from evsim.eventlog import EventLog
from evsim.log_file import LogFile

#: The columns of events, in the order of their checksums in a line of the journal.
EVENTS = ("timestamps", "node_ids", "value")


def refuse(path, match):
    """Opening the file must fail with one line that names it."""
    with pytest.raises(LogError, match=match) as caught:
        EventLog.open(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"log '{path}': ")
    assert len(message) < 600


def find(path, match):
    """The check must say so in one of its lines, or the file cannot be opened for it."""
    try:
        with LogFile(path) as file:
            found = file.check()
    except LogError as error:
        found = [error.problem]
    assert found
    assert all("\n" not in line and len(line) < 600 for line in found)
    assert any(re.search(match, line) for line in found), found


# -- the journal -----------------------------------------------------------------------------------------


def journal_lines(file):
    """The lines of the journal, as bytes without their ends."""
    text = file["evsim/journal"][...].tobytes()
    assert text.endswith(b"\n")
    return text[:-1].split(b"\n")


def journal(file):
    """The entries of the journal, whose checksums must be right."""
    entries = []
    for line in journal_lines(file):
        assert line[:9] == b"%08x " % zlib.crc32(line[9:])
        entries.append(json.loads(line[9:]))
    return entries


def line_of(entry):
    """An entry as a line."""
    text = json.dumps(entry).encode()
    return b"%08x " % zlib.crc32(text) + text


def write_journal(file, lines):
    """Put other lines in place of the journal."""
    text = b"".join(line + b"\n" for line in lines)
    grown(file, "evsim/journal", np.frombuffer(text, np.uint8))


def edit_journal(change):
    """A damage: entries changed by a function of their list, with valid checksums."""

    def damage(file):
        entries = journal(file)
        entries = change(entries) or entries
        write_journal(file, [line_of(entry) for entry in entries])

    return damage


def edit_last(**changes):
    """A damage: other values in the last line of the journal."""
    return edit_journal(lambda entries: entries[-1].update(changes))


# -- data sets -------------------------------------------------------------------------------------------


def grown(file, name, values):
    """A data set as LogWriter makes them, in place of another."""
    del file[name]
    values = np.asarray(values)
    file.create_dataset(name, data=values, maxshape=(None, *values.shape[1:]), chunks=(64, *values.shape[1:]))


def replace(file, name, values):
    """Put other values in place of a data set, with valid checksums of the rows that there were."""
    values = np.asarray(values)
    if "crc32" in file[name].attrs:
        del file[name]
        file.create_dataset(name, data=values).attrs["crc32"] = np.uint32(zlib.crc32(values.tobytes()))
        return
    grown(file, name, values)
    path, _, column = name.rpartition("/")
    events = path.startswith("spikes/") and path.count("/") == 1 and column in EVENTS
    entries, start = journal(file), 0
    for entry in entries:
        for piece in entry["pieces"].get(path if events else name, []):
            rows = values[start : piece[0]]
            piece[2 + EVENTS.index(column) if events else 1] = zlib.crc32(
                np.ascontiguousarray(rows).tobytes()
            )
            start = piece[0]
    write_journal(file, [line_of(entry) for entry in entries])


def lay(name, values):
    """A damage: other values, checksums included."""
    return lambda file: replace(file, name, values(file[name][...]))


def put(name, row, value):
    """A damage: one number changed, checksums included."""

    def damage(file):
        values = file[name][...]
        values[row] = value
        replace(file, name, values)

    return damage


def swap(name, columns, first, second):
    """A damage: two rows of some columns exchanged, checksums included."""

    def damage(file):
        for column in columns:
            values = file[f"{name}/{column}"][...]
            values[[first, second]] = values[[second, first]]
            replace(file, f"{name}/{column}", values)

    return damage


def edit(name, row, value):
    """A damage: one number changed, and no checksum."""
    return lambda file: file[name].__setitem__(row, value)


def drop(name):
    """A damage: an entry taken away."""
    return lambda file: file.__delitem__(name)


def set_attribute(name, key, value):
    """A damage: another attribute."""
    return lambda file: file[name].attrs.__setitem__(key, value)


def drop_attribute(name, key):
    """A damage: no such attribute."""
    return lambda file: file[name].attrs.__delitem__(key)


def soft_link(name):
    """A damage: what was there is elsewhere in the file."""

    def damage(file):
        file["elsewhere"] = file[name]
        del file[name]
        file[name] = h5py.SoftLink("/elsewhere")

    return damage


def external_link(name):
    """A damage: what was there is said to be in another file."""

    def damage(file):
        del file[name]
        file[name] = h5py.ExternalLink("other.h5", "/x")

    return damage


def _anew(name, make):
    """A damage: a data set of the same shape and type made in another way, its attributes kept."""

    def damage(file):
        old, attributes = file[name], dict(file[name].attrs)
        shape, dtype = old.shape, old.dtype
        del file[name]
        make(file, shape, dtype)
        file[name].attrs.update(attributes)

    return damage


def external_storage(name):
    """A damage: the bytes of a data set are said to be in another file."""

    def make(file, shape, dtype):
        n_bytes = int(np.prod(shape)) * dtype.itemsize
        file.create_dataset(name, shape, dtype, external=[("raw", 0, n_bytes)])

    return _anew(name, make)


def virtual_storage(name):
    """A damage: a data set is said to be made of those in other files."""

    def make(file, shape, dtype):
        layout = h5py.VirtualLayout(shape, dtype)
        layout[:] = h5py.VirtualSource("other.h5", "x", shape)
        file.create_virtual_dataset(name, layout)

    return _anew(name, make)


def absurd(name, shape, dtype, chunks=None):
    """A damage: a data set that claims more than there is."""

    def damage(file):
        if name in file:
            del file[name]
        maxshape = (None, *shape[1:]) if chunks else None
        file.create_dataset(name, shape, dtype, chunks=chunks, maxshape=maxshape).attrs["crc32"] = np.uint32(
            0
        )

    return damage


def text(name, content):
    """A damage: another text, its checksum included."""

    def damage(file):
        del file[name]
        file.create_dataset(name, data=np.bytes_(content)).attrs["crc32"] = np.uint32(zlib.crc32(content))

    return damage
