"""Damaged event logs end in an error, at once: a few files of `tests/fuzz_logs.py`, and what it has found."""

import subprocess
import sys
import zlib

import h5py
import numpy as np
import pytest
from fuzz.checksums import checked_blocks
from fuzz.entries import rewrite_journal
from fuzz.judging import FINE
from fuzz.logs import clocked_log, streamed
from fuzz.running import prepare, watch
from fuzz.tally import Tally

from evsim.errors import LogError
from evsim.log_file import LogFile
from evsim.log_writer import LogWriter


@pytest.fixture
def killed(tmp_path):
    """A file as a writer leaves it that is killed."""
    path = tmp_path / "killed.h5"
    streamed(clocked_log(n_lanes=1), path, 3, killed=True)
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
    log, path = clocked_log(), tmp_path / "run.h5"
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
    log = clocked_log()
    with LogFile(log.save(tmp_path / "run.h5")) as file:
        table, expected = (x["hidden"].table(units=[1, 4], lanes=1) for x in (file, log))
    assert table.units.tolist() == [1, 4]
    assert table.lanes.tolist() == [1]
    np.testing.assert_array_equal(table.time, expected.time)


@pytest.mark.slow
def test_a_few_hundred_damaged_files(tmp_path):
    """As `python tests/fuzz_logs.py` makes them."""
    prepare(tmp_path, ("whole", "timed killed"))
    found = []
    tally = Tally(7, 0, tmp_path / "counts.json")
    watch(tmp_path, tally, 200, found.append)
    assert not found
    assert sum(tally.counts.values()) == 200
    outcomes = {outcome for _, outcome in tally.counts}
    assert {"refused", "equal", "harmless"} <= outcomes <= set(FINE)
    again = Tally(0, 0, tally.path)
    assert (again.counts, again.next, again.seed) == (tally.counts, 200, 7)


def test_hdf5_hashes_as_we_do(tmp_path):
    """Only then does the sly damage get past HDF5's checksums."""
    with h5py.File(tmp_path / "any.h5", "w", libver=("v110", "v110")) as file:
        file["x/y"] = np.arange(10)
    data = (tmp_path / "any.h5").read_bytes()
    found = {data[start : start + 4] for start, _ in checked_blocks(data)}
    assert found == {b"\x89HDF", b"OHDR"}


# -- findings --------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    return clocked_log().save(tmp_path / "run.h5")


def change(path, damage):
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        damage(file)


def claim_rows(file):
    """Blocks of rows that were never written, with the checksum that zeros have."""

    def add(entries):
        zeros = [zlib.crc32(bytes(65536 * size)) for size in (4, 2, 4)]
        blocks = entries[-1]["pieces"]["spikes/hidden"]
        blocks += [[65536 * (k + 1), 64, *zeros] for k in range(1000)]

    rewrite_journal(file, add)
    for column in ("timestamps", "node_ids", "value"):
        file["spikes/hidden"][column].resize(65536 * 1000, axis=0)


def claim_rows_in_tiny_chunks(file):
    """Of what was saved whole and is short, one chunk holds all."""
    for column in ("timestamps", "node_ids", "value"):
        file["spikes/cue"][column].resize(10**6, axis=0)
    assert file["spikes/cue/value"].chunks[0] < 1000


def claim_steps(file):
    rewrite_journal(file, lambda entries: entries[-1].update(stop_step=2**61))


def claim_ragged_blocks(file):
    rewrite_journal(file, lambda entries: entries[-1]["pieces"].update({"spikes/hidden": [[1], 2]}))


def claim_units(file):
    for group in ("spikes/hidden", "evsim/populations/hidden"):
        file[group].attrs["n_units"] = np.int64(2**30)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (claim_rows, "claims 65536000 rows of /spikes/hidden/value, which the file does not hold"),
        (claim_rows_in_tiny_chunks, r"/spikes/cue/\w+ is stored in chunks of \d+ rows"),
        (claim_steps, f"/spikes/cue/index/row_ptr has 61 rows in {2**61 - 5} steps"),
        (claim_ragged_blocks, "its journal is damaged where it speaks of /spikes/hidden"),
        (claim_units, "claims 1073741824 units x 2 lanes of 'hidden', which the file does not hold"),
    ],
)
def test_claims_that_a_file_is_too_small_for(path, damage, message):
    change(path, damage)
    with pytest.raises(LogError, match=message) as caught, LogFile(path) as file:
        [file[name].table() for name in ("cue", "hidden")]
    assert "\n" not in str(caught.value)


def test_text_that_is_no_text(path):
    change(path, lambda file: file["report/answer"].attrs.create("state", np.bytes_(b"\xff\xfe")))
    with LogFile(path) as file:
        answer = file["answer"]
        with pytest.raises(LogError, match="cannot be read: 'utf-8' codec can't decode"):
            answer.state_name  # noqa: B018


def test_what_hdf5_raises_becomes_one_error(path):
    """Wherever it is asked: a population is asked for its state, which lies in a file that is closed."""
    with LogFile(path) as file:
        answer = file["answer"]
    for ask in (lambda: answer.state_name, answer.state, lambda: file["hidden"].table(), file.check):
        found = None
        try:
            found = ask()
        except LogError as error:
            found = [str(error)]
        assert all("is closed" in line for line in found)
