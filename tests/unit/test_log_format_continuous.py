"""Files of logs in continuous time: what SONATA readers find in them, and what damage must be refused.

Files are looked at, and damaged, with plain h5py.
"""

import os

import h5py
import numpy as np
import pytest

from evsim.continuous_log import ContinuousLog
from evsim.errors import LogError
from evsim.eventlog import EventLog
from evsim.growing_log import equal_step
from evsim.log_file import LogFile
from evsim.log_writer import LogWriter
from oracles import damaged_files as damaged
from oracles.continuous_logs import EQUAL, LANES, START, UNEQUAL, UNITS, make_events, make_log
from oracles.damaged_files import drop, edit, edit_journal, edit_last, find, lay, put, refuse, set_attribute
from oracles.log_windows import run_in_time, windows_of

HIDDEN, MEMBERS, BLOCK = "spikes/hidden", "evsim/populations", 65536


@pytest.fixture
def log():
    return make_log()


@pytest.fixture
def path(log, tmp_path):
    return log.save(tmp_path / "run.h5")


# -- round trips -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [EQUAL, UNEQUAL, (15.0,), ()])
@pytest.mark.parametrize("n_events", [0, 20])
def test_round_trip(tmp_path, samples, n_events):
    log = make_log(samples, n_events)
    path = log.save(tmp_path / "run.h5")
    opened = EventLog.open(path)
    assert isinstance(opened, ContinuousLog)
    assert opened.equal(log)
    assert log.equal(opened)
    assert ContinuousLog.open(path).equal(log)
    assert opened.tape is None
    assert [opened[name].state_name for name in opened] == [log[name].state_name for name in log]
    # And once more from the file's own log.
    assert EventLog.open(opened.save(tmp_path / "again.h5")).equal(log)
    for array in (opened["hidden"].initial["c"], opened.parameters["cue->hidden.weight"], opened.samples):
        assert array.flags.writeable


def test_nothing_is_overwritten_unasked(log, path):
    before = path.read_bytes()
    with pytest.raises(LogError, match=r"run\.h5': exists already; give another name or overwrite=True"):
        log.save(path)
    log.provenance["module"] = os
    with pytest.raises(LogError, match="provenance cannot be kept"):
        log.save(path, overwrite=True)
    assert path.read_bytes() == before
    log.provenance["module"] = 99
    log.save(path, overwrite=True)
    assert EventLog.open(path).provenance["module"] == 99
    assert os.listdir(path.parent) == ["run.h5"]


def test_provenance_is_completed(path):
    assert set(EventLog.open(path).provenance) >= {"evsim", "numpy", "seed"}


def test_what_cannot_be_written_leaves_nothing_behind(log, tmp_path):
    log["hidden"].initial["c"] = np.zeros(3)
    with pytest.raises(LogError, match=r"initial c of 'hidden' has shape \(3,\); give \(2, 3\)"):
        log.save(tmp_path / "run.h5")
    log = make_log()
    log.parameters["a/b"] = np.zeros(3)
    with pytest.raises(LogError, match="cannot name an entry 'a/b'"):
        log.save(tmp_path / "run.h5")
    assert os.listdir(tmp_path) == []


# -- what readers find -----------------------------------------------------------------------------------


def test_the_columns_are_those_of_sonata(log, path):
    hidden = log["hidden"]
    with h5py.File(path, "r") as file:
        assert file.attrs["magic"] == 0x0A7A
        assert file.attrs["version"].tolist() == [0, 1]
        assert file.attrs["evsim_log_version"].tolist() == [2, 0]
        assert sorted(file["spikes"]) == ["cue", "hidden"]
        group = file["spikes/hidden"]
        np.testing.assert_array_equal(group["timestamps"], hidden.time)
        np.testing.assert_array_equal(group["node_ids"], hidden.lane * UNITS + hidden.unit)
        np.testing.assert_array_equal(group["value"], hidden.value)
        assert (group["timestamps"].dtype, group["value"].dtype) == (np.float64, np.float64)
        assert group["timestamps"].attrs["units"] == "ms"
        assert (np.diff(group["timestamps"]) >= 0).all()
        assert group.attrs["sorting"] == 2
        assert group["node_ids"].attrs["sorting"] == "by_time"
        assert (group.attrs["n_units"], group.attrs["n_lanes"]) == (UNITS, LANES)
        assert sorted(group["index"]) == ["counts", "unit_events"]
        for column in ("timestamps", "node_ids", "value"):  # none: libsonata knows no gzip
            assert group[column].id.get_create_plist().get_nfilters() == 0


def test_equally_spaced_samples_are_a_sonata_report(log, path):
    with h5py.File(path, "r") as file:
        assert sorted(file["report"]) == ["answer", "hidden"]
        for name, state in (("answer", "v"), ("hidden", "c")):
            group = file[f"report/{name}"]
            n_nodes = LANES * log[name].n_units
            assert group.attrs["state"] == state.encode()
            assert group["data"].dtype == np.float32
            np.testing.assert_array_equal(
                group["data64"][...].reshape(log[name].state.shape), log[name].state
            )
            np.testing.assert_allclose(group["data"], group["data64"], rtol=1e-6)
            np.testing.assert_array_equal(group["mapping/time"], [13.0, 21.0, 2.0])
            assert group["mapping/time"].attrs["units"] == "ms"
            np.testing.assert_array_equal(group["mapping/node_ids"], np.arange(n_nodes))
            assert len(group["mapping/index_pointers"]) == n_nodes + 1
            assert "state" not in file[f"evsim/populations/{name}"]
        np.testing.assert_array_equal(file["evsim/samples"], EQUAL)


@pytest.mark.parametrize("samples", [UNEQUAL, (15.0,)])
def test_other_samples_are_a_data_set_of_our_own(tmp_path, samples):
    log = make_log(samples)
    with h5py.File(log.save(tmp_path / "run.h5"), "r") as file:
        assert "report" not in file
        np.testing.assert_array_equal(file["evsim/samples"], samples)
        for what in ("state", "integral", "square"):
            found = file[f"evsim/populations/answer/{what}"]
            np.testing.assert_array_equal(found, getattr(log["answer"], what))


def test_what_equally_spaced_means():
    assert equal_step(np.arange(5) * 0.1 + 3.3) == pytest.approx(0.1)
    assert equal_step(1e6 + np.arange(1000) * 0.01) == pytest.approx(0.01)
    assert equal_step(np.array([0.0, 1.0, 2.00001])) is None
    assert equal_step(np.array([1.0])) is None
    assert equal_step(np.zeros(0)) is None


def test_the_journal_has_the_time_of_each_block(tmp_path):
    log = make_log()
    log["cue"].events = make_events(0, 4, 2 * BLOCK + 5)
    path = log.save(tmp_path / "run.h5")
    with h5py.File(path, "r") as file:
        (entry,) = damaged.journal(file)
        pieces = entry["pieces"]["spikes/cue"]
        assert [piece[1] for piece in pieces] == log["cue"].time[::BLOCK].tolist()
        assert [piece[0] for piece in pieces] == [BLOCK, 2 * BLOCK, 2 * BLOCK + 5]
        assert (entry["stop_ms"], entry["duration_ms"]) == (20.0, 7.5)
    assert EventLog.open(path).equal(log)


def test_runs_in_steps_are_not_mistaken(tmp_path):
    clocked = EventLog({}, dt=1.0, start_step=0, n_steps=1, n_lanes=1, lengths=[1])
    path = clocked.save(tmp_path / "run.h5")
    assert isinstance(EventLog.open(path), EventLog)
    with pytest.raises(LogError, match=r"is of a run in steps; open it with EventLog\.open"):
        ContinuousLog.open(path)


# -- damage ----------------------------------------------------------------------------------------------


def test_a_file_cut_short(path, tmp_path):
    whole = path.read_bytes()
    for size in [*range(8, len(whole) - 1, 1997), len(whole) - 1]:
        short = tmp_path / "short.h5"
        short.write_bytes(whole[:size])
        refuse(short, "is not an HDF5 file|cannot be opened")


def test_a_changed_byte_is_seen_or_does_not_matter(log, path, tmp_path):
    whole = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    changed, refused = tmp_path / "changed.h5", 0
    for position in rng.integers(0, len(whole), 120):
        bad = whole.copy()
        bad[position] ^= 1 << int(rng.integers(8))
        changed.write_bytes(bad)
        try:
            opened = EventLog.open(changed)
        except LogError:
            refused += 1
        else:
            assert opened.equal(log), f"byte {position}"
    assert refused > 10


def with_repeated_row(file):
    for column in ("timestamps", "node_ids"):
        values = file[f"{HIDDEN}/{column}"][...]
        values[4] = values[3]
        damaged.replace(file, f"{HIDDEN}/{column}", values)


def huge_lanes(file):
    file["evsim"].attrs["n_lanes"] = np.int64(2**30)
    for name in ("cue", "hidden"):
        file[f"spikes/{name}"].attrs["n_lanes"] = np.uint32(2**30)


DAMAGES = {
    "columns of unequal length": (
        lay(f"{HIDDEN}/node_ids", lambda x: x[:-1]),
        r"/spikes/hidden/node_ids has shape \(19,\), not \(20,\)",
    ),
    "fewer times": (lay(f"{HIDDEN}/timestamps", lambda x: x[:-1]), r"timestamps has shape \(19,\)"),
    "column with two dimensions": (lay(f"{HIDDEN}/value", lambda x: x[:, None]), r"has shape \(20, 1\), not"),
    "node id out of range": (
        lay(f"{HIDDEN}/node_ids", lambda x: np.where(x == x.max(), 6, x).astype("u2")),
        "'hidden' has an event of node 6, but only 6 nodes",
    ),
    "time before": (put(f"{HIDDEN}/timestamps", 0, START - 1e-9), "'hidden'.*: an event of unit"),
    "time at the end": (put(f"{HIDDEN}/timestamps", -1, 20.0), r"at 20\.0 ms"),
    "time is NaN": (put(f"{HIDDEN}/timestamps", 3, np.nan), "at nan ms"),
    "zero value": (put(f"{HIDDEN}/value", 3, 0.0), r"with value 0\.0"),
    "infinite value": (put(f"{HIDDEN}/value", 3, np.inf), "with value inf"),
    "times in single precision": (
        lay(f"{HIDDEN}/timestamps", lambda x: x.astype("f4")),
        "times of float32|dtype float32|comes after|at [0-9.]+ ms",
    ),
    "whole times": (lay(f"{HIDDEN}/timestamps", lambda x: x.astype("u4")), "is of dtype uint32"),
    "text for numbers": (lay(f"{HIDDEN}/value", lambda x: x.astype("S8")), r"is of dtype \|S8"),
    "rows out of order": (
        damaged.swap(HIDDEN, damaged.EVENTS, 3, 4),
        r"'hidden'.*: event \(time, lane, unit\) = .* comes after",
    ),
    "repeated row": (with_repeated_row, r"'hidden'.*: event \(time, lane, unit\) = .* comes after"),
    "edited times": (edit(f"{HIDDEN}/timestamps", 0, 13), "rows 0 to 20 of /spikes/hidden/timestamps do not"),
    "edited values": (edit(f"{HIDDEN}/value", 0, 13), "rows 0 to 20 of /spikes/hidden/value do not match"),
    "samples do not increase": (lay("evsim/samples", lambda x: x[::-1]), "samples that do not increase"),
    "samples outside": (lay("evsim/samples", lambda x: x + 5), "or lie outside its window"),
    "sample is NaN": (put("evsim/samples", 1, np.nan), "samples that do not increase"),
    "samples in single precision": (lay("evsim/samples", lambda x: x.astype("f4")), "samples that do not"),
    "fewer samples": (lay("evsim/samples", lambda x: x[:-1]), r"/evsim/samples has shape \(3,\), not \(4,\)"),
    "edited samples": (edit("evsim/samples", 1, 14), "rows 0 to 4 of /evsim/samples do not match"),
    "report shape": (lay("report/answer/data64", lambda x: x[:-1]), r"has shape \(3, 4\), not \(4, 4\)"),
    "edited report": (edit("report/answer/data64", (1, 1), 3), "rows 0 to 4 of /report/answer/data64 do not"),
    "integral shape": (
        lay(f"{MEMBERS}/answer/integral", lambda x: x[:, :, :1]),
        r"has shape \(4, 2, 1\), not",
    ),
    "square in single precision": (
        lay(f"{MEMBERS}/answer/square", lambda x: x.astype("f4")),
        "dtype float32",
    ),
    "edited integral": (edit(f"{MEMBERS}/answer/integral", 0, 3), "answer/integral do not match"),
    "initial shape": (
        lay(f"{MEMBERS}/hidden/initial/c", lambda x: x.T),
        r"has shape \(3, 2\), not \(2, 3\)",
    ),
    "no events": (drop(HIDDEN), "population 'hidden' lacks its events"),
    "no index": (drop(f"{HIDDEN}/index"), "lacks /spikes/hidden/index"),
    "not described": (drop("evsim/populations/hidden"), "events or states of 'hidden', but does not"),
    "readout with events": (lambda file: file.create_group("spikes/answer"), "'answer' must not have events"),
    "no clock": (damaged.drop_attribute("evsim", "clock"), "lacks the text 'clock'"),
    "other clock": (set_attribute("evsim", "clock", np.bytes_(b"sun")), "has the clock 'sun'"),
    "clock is an array": (set_attribute("evsim", "clock", np.zeros(3)), "lacks the text 'clock'"),
    "no start": (damaged.drop_attribute("evsim", "start_ms"), "lacks the number 'start_ms'"),
    "negative start": (set_attribute("evsim", "start_ms", -1.0), r"from -1\.0, in steps of None"),
    "start is NaN": (set_attribute("evsim", "start_ms", np.nan), "from nan, in steps of None"),
    "negative duration": (edit_last(duration_ms=-1.0), "claims a duration of -1.0 ms"),
    "endless": (edit_last(duration_ms=float("inf")), "claims a duration of inf ms"),
    "no number": (edit_last(duration_ms=float("nan")), "claims a duration of nan ms"),
    "duration is text": (edit_last(duration_ms="long"), "claims a duration of 'long' ms"),
    "stop is text": (edit_last(stop_ms="late"), "does not follow on the one before|cannot be read"),
    "stop is NaN": (edit_last(stop_ms=float("nan")), "does not follow on the one before"),
    "stops before it starts": (edit_last(stop_ms=3.0), "does not follow on the one before"),
    "stops early": (edit_last(stop_ms=14.0, duration_ms=1.5), "samples that|an event of unit"),
    "other start": (
        set_attribute("evsim", "start_ms", START + 1),
        "in order of time|an event of|samples that",
    ),
    "no lanes": (set_attribute("evsim", "n_lanes", np.int64(0)), "claims 0 lanes"),
    "other lanes": (set_attribute("evsim", "n_lanes", np.int64(3)), "disagree about units, lanes"),
    "absurd lanes": (set_attribute("evsim", "n_lanes", np.int64(2**62)), "claims 4611686018427387904 lanes"),
    "many lanes": (
        set_attribute("evsim", "n_lanes", np.int64(2**30)),
        "claims 4 units x 1073741824 lanes of 'cue'",
    ),
    "very many lanes": (huge_lanes, "claims 4 units x 1073741824 lanes of 'cue'"),
    "newer version": (set_attribute("/", "evsim_log_version", [3, 0]), r"has log version 3\.0, not 2\.x"),
    "absurd column": (damaged.absurd(f"{HIDDEN}/value", (10**15,), "f8", (65536,)), "checksum|not hold"),
    "absurd times": (damaged.absurd(f"{HIDDEN}/timestamps", (10**12,), "f8", (65536,)), "checksum|not hold"),
    "times that are not chunked": (
        damaged.absurd(f"{HIDDEN}/timestamps", (10**12,), "f8"),
        "in chunks of None",
    ),
    "absurd samples": (damaged.absurd("evsim/samples", (10**14,), "f8"), "in chunks of None|not hold"),
    "external samples": (damaged.external_link("evsim/samples"), "/evsim/samples is a link"),
    "virtual samples": (damaged.virtual_storage("evsim/samples"), "keeps its data in another file"),
    "report without all bits": (drop("report/answer/data64"), "state of 'answer' is of dtype float32"),
}

#: What no reading of a log would notice, because it is for others, or for `rows`.
UNNOTICED = {
    "other time of a block": (
        edit_journal(lambda entries: entries[0]["pieces"][HIDDEN][0].__setitem__(1, START)),
        "rows 0 to 20 of 'hidden': the journal has another time for the first of them",
    ),
    "tally": (
        lay(f"{HIDDEN}/index/unit_events", lambda x: np.roll(x, 1)),
        "index/unit_events of 'hidden' are not the counts of its events",
    ),
    "edited single precision": (edit("report/answer/data", (1, 1), 3), "/report/answer/data do not match"),
    "time of a report": (edit("report/answer/mapping/time", 0, 3.0), "mapping/time has"),
}


@pytest.mark.parametrize("name", list(DAMAGES))
def test_damage_is_refused(name, path):
    damage, match = DAMAGES[name]
    with h5py.File(path, "r+") as file:
        damage(file)
    refuse(path, match)
    find(path, match)


@pytest.mark.parametrize("name", list(UNNOTICED))
def test_a_check_finds_what_reading_does_not_notice(name, log, path):
    damage, match = UNNOTICED[name]
    with h5py.File(path, "r+") as file:
        damage(file)
    assert EventLog.open(path).equal(log)
    find(path, match)


def test_states_without_samples(path):
    with h5py.File(path, "r+") as file:
        edit_journal(lambda entries: entries[0]["pieces"].pop("evsim/samples") and None)(file)
    find(path, "has 4 rows of /report/answer/data for 0 samples")


def test_disorder_between_blocks(tmp_path):
    """Each block is in order, but an event of the second is before the last of the first."""
    run = run_in_time(n_events=60)
    with LogWriter(tmp_path / "run.h5") as writer:
        for window in windows_of(run, [4.0, 10.0, 20.0]):
            writer.append(window)
            writer.flush()
    with h5py.File(tmp_path / "run.h5", "r+") as file:
        end = damaged.journal(file)[0]["pieces"][HIDDEN][0][0]
        put(f"{HIDDEN}/timestamps", end - 1, 19.0)(file)
        times = file[f"{HIDDEN}/timestamps"][...]
        assert times[end] < 19.0
    refuse(tmp_path / "run.h5", r"event \(time, lane, unit\) = .* comes after")
    find(tmp_path / "run.h5", f"rows {end} to .*: the first of them does not come after the row before it")


def test_a_window_reads_only_its_blocks(tmp_path):
    run = run_in_time(n_events=60)
    with LogWriter(tmp_path / "run.h5") as writer:
        for window in windows_of(run, [4.0, 10.0, 20.0]):
            writer.append(window)
            writer.flush()
    with h5py.File(tmp_path / "run.h5", "r+") as file:
        file[f"{HIDDEN}/value"][-1] = 7
    with LogFile(tmp_path / "run.h5") as file:
        assert file.window(5.0, 9.0)["hidden"].events.equal(run["hidden"].events.window(5.0, 9.0))
        with pytest.raises(LogError, match="do not match their checksum"):
            file.window(10.0, 11.0)


def test_many_lanes_are_bounded_by_the_file(path):
    """Nothing of the size of all lanes is made before an array of that size was found."""
    with h5py.File(path, "r+") as file:
        huge_lanes(file)
    refuse(path, "claims 4 units x 1073741824 lanes of 'cue'")
