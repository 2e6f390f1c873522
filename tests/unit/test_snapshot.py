"""Files that were not closed are read as they are at one moment, and no further than they go."""

import gc
import os
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
from fuzz import logs
from fuzz.checksums import checked_blocks

from evsim.errors import LogError
from evsim.eventlog import EventLog
from evsim.log_file import LogFile
from evsim.log_writer import LogWriter
from evsim.snapshot import HEAD, lookup3


@pytest.fixture
def killed(tmp_path):
    """A file as a writer leaves it that is killed."""
    path = tmp_path / "killed.h5"
    logs.streamed(logs.clocked_log(n_lanes=1), path, 3, killed=True)
    return path


def test_the_checksum_is_that_of_hdf5(tmp_path):
    for k in range(3):
        with h5py.File(tmp_path / f"{k}.h5", "w", libver=("v110", "v110")) as file:
            file["x"] = np.arange(10**k)
        head = (tmp_path / f"{k}.h5").read_bytes()[:HEAD]
        assert lookup3(head[:-4]).to_bytes(4, "little") == head[-4:]
    assert lookup3(b"") == 0xDEADBEEF
    assert lookup3(b"Four score and seven years ago") == 0x17770551  # lookup3.c, driver5


LONG = 2**33


def forge(data, start, end, at, value):
    """Another number in a block of HDF5's, and a checksum that fits."""
    data[at : at + 8] = value.to_bytes(8, "little")
    data[end : end + 4] = lookup3(bytes(data[start:end])).to_bytes(4, "little")


def forged_lengths(data):
    """Files, each with another header that claims to go on for 8 GB in another block."""
    for start, end in checked_blocks(data):
        for at in range(start + 4, end - 16):  # an offset and a length, of where a header goes on
            there = int.from_bytes(data[at : at + 8], "little")
            if data[start : start + 4] == b"OHDR" and data[there : there + 4] == b"OCHK":
                forged = bytearray(data)
                forge(forged, start, end, at + 8, LONG)
                yield bytes(forged)


LOOK = """
    import resource, sys, time
    from evsim.errors import LogError
    from evsim.eventlog import EventLog

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    EventLog.open(sys.argv[1])
    before, begun = peak(), time.process_time()
    for path in sys.argv[2:]:
        try:
            EventLog.open(path)
        except LogError as error:
            print("LogError", str(error))
    print(peak() - before, time.process_time() - begun)
"""


def test_forged_lengths_are_refused_before_they_are_read(killed, tmp_path):
    """In SWMR mode HDF5 reads 8 GB for each of them, 27 times."""
    paths = []
    for k, data in enumerate(forged_lengths(killed.read_bytes())):
        paths.append(tmp_path / f"forged{k}.h5")
        paths[-1].write_bytes(data)
    assert paths
    command = [sys.executable, "-c", textwrap.dedent(LOOK), str(killed), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    *lines, last = done.stdout.splitlines()
    assert len(lines) > len(paths) // 2  # columns without rows are not looked at
    assert all(line.startswith("LogError") for line in lines)
    assert int(last.split()[0]) < 50_000  # kB


def test_a_system_that_cannot_read_at_a_place(killed, monkeypatch):
    expected = EventLog.open(killed)
    monkeypatch.setattr("evsim.snapshot.PREADV", False)
    assert EventLog.open(killed).equal(expected)


def test_a_file_that_becomes_shorter(killed):
    with LogFile(killed) as file:
        os.truncate(killed, 4096)
        with pytest.raises(LogError):
            file.window()
        with pytest.raises(LogError):
            file.refresh()


def test_a_file_that_becomes_shorter_and_long_again(killed):
    """Where it was cut there are zeros."""
    size = killed.stat().st_size
    with LogFile(killed) as file:
        os.truncate(killed, 4096)
        os.truncate(killed, size)
        with pytest.raises(LogError):
            file.window()


@pytest.mark.parametrize("closed", [False, True])
def test_a_file_that_is_nearly_all_holes(killed, closed):
    """It would make room for lengths that are forged."""
    if closed:
        logs.clocked_log().save(killed, overwrite=True)
    os.truncate(killed, 2**34)
    if killed.stat().st_blocks > 2**23:
        pytest.skip("the file system has no files with holes")
    with pytest.raises(LogError, match=r"of its 17179869184 bytes the disk holds \d+, the rest are holes"):
        LogFile(killed)


@pytest.mark.parametrize("at", [8, 9, 10, 12, 20, 28, 36, 44])
def test_a_damaged_superblock(killed, at):
    data = bytearray(killed.read_bytes())
    data[at] ^= 1
    killed.write_bytes(data)
    with pytest.raises(LogError):
        LogFile(killed)


@pytest.mark.parametrize(
    "use",
    [
        "file = LogFile(path)",
        "file = LogFile(path); population = file['hidden']; del file",
        "file = LogFile(path); file.me = file; data = file._read.at('evsim')['journal']; del file",
        "file = LogFile(path); raise KeyError('some error')",
        "import sys; sys.modules['kept'] = LogFile(path)",
        "import threading; threading.Thread(target=lambda: time.sleep(60), args=(), daemon=True).start(); "
        "file = LogFile(path)",
        "import atexit; file = LogFile(path); atexit.register(lambda: file.window())",
    ],
)
def test_a_process_that_ends_without_closing_it(killed, use):
    """HDF5 closes what is open when the process ends, and Python is no longer there by then."""
    code = f"import time\nfrom evsim.log_file import LogFile\npath = {str(killed)!r}\n{use}"
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if "raise" in use:
        assert done.stderr.endswith("KeyError: 'some error'\n")
    else:
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the system does not list what is open")
def test_a_file_that_nobody_uses_any_more_is_closed(killed):
    def opened():
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    before = opened()
    LogFile(killed)
    with LogFile(killed) as file:
        for _ in range(3):
            file.refresh()
    with pytest.raises(LogError, match="is closed"):
        file.window()
    killed.write_bytes(killed.read_bytes()[:3000])
    with pytest.raises(LogError):
        LogFile(killed)
    assert opened() == before


def test_what_was_opened_stays_as_it_was(tmp_path):
    """Until somebody asks for more; though the chunks that were packed have gone elsewhere meanwhile."""
    log, path = logs.clocked_log(n_lanes=1, n_steps=400, n_units=300), tmp_path / "run.h5"
    windows = list(logs.cut(log, 10))
    with LogWriter(path) as writer:
        writer.append(windows[0])
        writer.flush()
        with LogFile(path) as file:
            population, first = file["hidden"], windows[0]["hidden"]
            for window in windows[1:]:
                writer.append(window)
                writer.flush()
                np.testing.assert_array_equal(population.table().value, first.value)
                np.testing.assert_array_equal(population.table().time, first.table().time)
            assert population.n_events == first.n_events
            assert file.refresh()
            np.testing.assert_array_equal(population.table().value, log["hidden"].value)


def test_a_reader_beside_a_writer_that_never_rests(tmp_path):
    """Blocks that were read while they were written are read again."""
    path, n_steps = tmp_path / "run.h5", 600
    code = f"""
        import sys
        sys.path.insert(0, {str(Path(logs.__file__).parents[1])!r})
        from fuzz import logs
        from evsim.log_writer import LogWriter
        with LogWriter({str(path)!r}) as writer:
            for window in logs.cut(logs.clocked_log(n_steps={n_steps}, n_units=100), 100):
                writer.append(window)
                writer.flush()
    """
    log, file = logs.clocked_log(n_steps=n_steps, n_units=100), None
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)]) as writer:
        while file is None and writer.poll() is None:
            with suppress(LogError):  # there is nothing yet
                file = LogFile(path)
        seen = set()
        while writer.poll() is None:
            file.refresh()
            seen.add(file.stop)
            table = file["hidden"].table()
            assert np.array_equal(table.value, log["hidden"].table(None, file.stop).value)
    assert writer.returncode == 0
    assert len(seen) > 1
    file.refresh()
    assert file.complete
    assert file.window()["hidden"].events.equal(log["hidden"].events)
    file.close()
