"""Ways to damage an event log with plain h5py, and what must be said of such a file."""

import zlib

import numpy as np
import pytest

from evsim.errors import LogError
from evsim.eventlog import EventLog


def refuse(path, match):
    """Opening the file must fail with one line that names it."""
    with pytest.raises(LogError, match=match) as caught:
        EventLog.open(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"log '{path}': ")
    assert len(message) < 600


def replace(file, name, values, **options):
    """Put other values in place of a data set, with a valid checksum."""
    del file[name]
    values = np.asarray(values)
    file.create_dataset(name, data=values, **options).attrs["crc32"] = np.uint32(zlib.crc32(values.tobytes()))


def lay(name, values, **options):
    """A damage: other values, checksum included."""

    def damage(file):
        replace(file, name, values(file[name][...]), **options)

    return damage


def drop(name):
    """A damage: an entry taken away."""
    return lambda file: file.__delitem__(name)


def set_attribute(name, key, value):
    """A damage: another attribute."""
    return lambda file: file[name].attrs.__setitem__(key, value)
