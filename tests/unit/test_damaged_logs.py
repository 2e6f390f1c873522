"""Damaged event logs end in an error, at once: a few of the files of `tests/fuzz_logs.py`, and single findings of it."""

import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

import fuzz_logs
from evsim.errors import LogError
from evsim.eventlog import EventLog
from evsim.log_file import LogFile
from evsim.log_writer import LogWriter


@pytest.fixture
def killed(tmp_path):
    """A file as a writer leaves it that is killed."""
    path = tmp_path / "killed.h5"
    fuzz_logs.streamed(fuzz_logs.clocked_log(n_lanes=1), path, 3, killed=True)
    return path


def test_a_killed_file_with_a_wrong_byte_is_refused_at_once(killed):
    """HDF5 would read a block with a wrong checksum a hundred times, and sleep longer each time."""
    data = bytearray(killed.read_bytes())
    for at in (position for position in range(0, len(data), 8) if data[position : position + 4] == b"OHDR"):
        data[at + 12] ^= 1
    killed.write_bytes(data)
    program = f"from evsim.eventlog import EventLog; EventLog.open({str(killed)!r})"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert "LogError" in done.stderr


def test_a_file_that_is_being_written_opens(tmp_path):
    log, path = fuzz_logs.clocked_log(), tmp_path / "run.h5"
    with LogWriter(path) as writer:
        writer.append(log)
        writer.flush()
        with LogFile(path) as file:
            assert not file.complete
            assert len(file["hidden"].table()) == log["hidden"].n_events
    with LogFile(path) as file:
        assert file.complete


def test_a_table_of_several_reads_knows_whom_it_is_of(monkeypatch, tmp_path):
    monkeypatch.setattr("evsim.file_population.ROWS", 50)
    log = fuzz_logs.clocked_log()
    with LogFile(log.save(tmp_path / "run.h5")) as file:
        table, expected = (x["hidden"].table(units=[1, 4], lanes=1) for x in (file, log))
    assert table.units.tolist() == [1, 4]
    assert table.lanes.tolist() == [1]
    np.testing.assert_array_equal(table.time, expected.time)
