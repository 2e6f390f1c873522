"""Files of logs in continuous time: what SONATA readers find in them, and what damage must be refused.

Files are looked at, and damaged, with plain h5py.
"""

import os
import zlib

import h5py
import numpy as np
import pytest

from evsim.continuous_log import ContinuousLog
from evsim.errors import LogError
from evsim.eventlog import EventLog
from evsim.hdf5 import CHUNK
from evsim.sonata_continuous import equal_step
from oracles.continuous_logs import DURATION, EQUAL, LANES, START, UNEQUAL, UNITS, make_events, make_log
from oracles.damaged_files import drop, lay, refuse, replace, set_attribute


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
        assert file.attrs["evsim_log_version"].tolist() == [1, 1]
        assert sorted(file["spikes"]) == ["cue", "hidden"]
        group = file["spikes/hidden"]
        np.testing.assert_array_equal(group["timestamps"], hidden.time)
        np.testing.assert_array_equal(group["node_ids"], hidden.lane * UNITS + hidden.unit)
        np.testing.assert_array_equal(group["value"], hidden.value)
        assert (group["timestamps"].dtype, group["value"].dtype) == (np.float64, np.float64)
        assert group["timestamps"].attrs["units"] == "ms"
        assert (np.diff(group["timestamps"]) >= 0).all()
        assert group.attrs["sorting"] == 2
        assert h5py.check_enum_dtype(group.attrs.get_id("sorting").dtype) == {
            "none": 0,
            "by_id": 1,
            "by_time": 2,
        }
        assert group["node_ids"].attrs["sorting"] == "by_time"
        assert (group.attrs["n_units"], group.attrs["n_lanes"]) == (UNITS, LANES)
        np.testing.assert_array_equal(group["index/first_time"], hidden.time[:1])
        np.testing.assert_array_equal(group["index/lane_count"], np.bincount(hidden.lane))
        # libsonata knows no gzip.
        filters = [group[column].id.get_create_plist() for column in ("timestamps", "node_ids")]
        assert filters[0].get_nfilters() == 0
        assert [filters[1].get_filter(k)[0] for k in range(filters[1].get_nfilters())] == [
            h5py.h5z.FILTER_SCALEOFFSET
        ]


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


def test_the_index_has_a_time_for_each_chunk(tmp_path):
    log = make_log()
    log["cue"].events = make_events(0, 4, 2 * CHUNK + 5)
    path = log.save(tmp_path / "run.h5")
    with h5py.File(path, "r") as file:
        np.testing.assert_array_equal(file["spikes/cue/index/first_time"], log["cue"].time[::CHUNK])
    assert EventLog.open(path).equal(log)


def test_runs_in_steps_are_not_mistaken(tmp_path):
    clocked = EventLog({}, dt=1.0, start_step=0, n_steps=1, n_lanes=1, lengths=[1])
    path = clocked.save(tmp_path / "run.h5")
    assert isinstance(EventLog.open(path), EventLog)
    with pytest.raises(LogError, match=r"is of a run in steps; open it with EventLog\.open"):
        ContinuousLog.open(path)


# -- files that are no logs ------------------------------------------------------------------------------


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
    for position in rng.integers(0, len(whole), 60):
        damaged = whole.copy()
        damaged[position] ^= 1 << int(rng.integers(8))
        changed.write_bytes(damaged)
        try:
            opened = EventLog.open(changed)
        except LogError:
            refused += 1
        else:
            assert opened.equal(log), f"byte {position}"
    assert refused > 10


def put(name, row, value):
    """A damage: one number changed, checksum included."""

    def damage(file):
        values = file[name][...]
        values[row] = value
        replace(file, name, values)

    return damage


def with_swapped_rows(file):
    for column in ("timestamps", "node_ids", "value"):
        values = file[f"spikes/hidden/{column}"][...]
        values[[3, 4]] = values[[4, 3]]
        replace(file, f"spikes/hidden/{column}", values)


def with_repeated_row(file):
    for column in ("timestamps", "node_ids"):
        values = file[f"spikes/hidden/{column}"][...]
        values[4] = values[3]
        replace(file, f"spikes/hidden/{column}", values)


def with_edited_times(file):
    file["spikes/hidden/timestamps"][0] += 1e-6


def with_two_states(file):
    replaced = np.zeros((4, LANES, 2))
    group = file["evsim/populations/answer"]
    group.create_dataset("state", data=replaced).attrs["crc32"] = np.uint32(zlib.crc32(replaced.tobytes()))


def with_absurd_column(file):
    del file["spikes/hidden/value"]
    file.create_dataset("spikes/hidden/value", (10**15,), "f8", chunks=(65536,)).attrs["crc32"] = np.uint32(0)


def with_absurd_times(file):
    del file["spikes/hidden/timestamps"]
    huge = file.create_dataset("spikes/hidden/timestamps", (10**12,), "f8", chunks=(65536,))
    huge.attrs["crc32"] = np.uint32(0)


def with_absurd_samples(file):
    del file["evsim/samples"]
    file.create_dataset("evsim/samples", (10**14,), "f8").attrs["crc32"] = np.uint32(0)


def with_external_samples(file):
    del file["evsim/samples"]
    file["evsim/samples"] = h5py.ExternalLink("other.h5", "/samples")


HIDDEN, SAMPLED = "spikes/hidden", "evsim/populations/answer"
DAMAGES = {
    "columns of unequal length": (
        lay(f"{HIDDEN}/node_ids", lambda x: x[:-1]),
        r"/spikes/hidden/node_ids has shape \(19,\), not \(20,\)",
    ),
    "fewer times": (lay(f"{HIDDEN}/timestamps", lambda x: x[:-1]), r"timestamps has shape \(19,\)"),
    "column with two dimensions": (lay(f"{HIDDEN}/value", lambda x: x[:, None]), "not one dimension"),
    "node id out of range": (
        lay(f"{HIDDEN}/node_ids", lambda x: np.where(x == x.max(), 6, x).astype("u4")),
        "'hidden' has an event of node 6, but only 6 nodes",
    ),
    "time before": (put(f"{HIDDEN}/timestamps", 0, START - 1e-9), "'hidden': an event of unit"),
    "time at the end": (put(f"{HIDDEN}/timestamps", -1, START + DURATION), r"at 20\.0 ms"),
    "time is NaN": (put(f"{HIDDEN}/timestamps", 3, np.nan), "at nan ms"),
    "zero value": (put(f"{HIDDEN}/value", 3, 0.0), r"with value 0\.0"),
    "infinite value": (put(f"{HIDDEN}/value", 3, np.inf), "with value inf"),
    "times in single precision": (lay(f"{HIDDEN}/timestamps", lambda x: x.astype("f4")), "times of float32"),
    "values in single precision": (lay(f"{HIDDEN}/value", lambda x: x.astype("f4")), "values of float32"),
    "whole times": (lay(f"{HIDDEN}/timestamps", lambda x: x.astype("u4")), "is of dtype uint32"),
    "text for numbers": (lay(f"{HIDDEN}/value", lambda x: x.astype("S8")), r"is of dtype \|S8"),
    "rows out of order": (with_swapped_rows, r"'hidden': event \(time, lane, unit\) = .* comes after"),
    "repeated row": (with_repeated_row, r"'hidden': event \(time, lane, unit\) = .* comes after"),
    "edited times": (with_edited_times, "does not match its checksum"),
    "index of times": (lay(f"{HIDDEN}/index/first_time", lambda x: x + 1), "index of 'hidden' does not fit"),
    "index too long": (lay(f"{HIDDEN}/index/first_time", lambda x: np.tile(x, 2)), "does not fit its events"),
    "index of lanes": (
        lay(f"{HIDDEN}/index/lane_count", lambda x: x + np.array([1, -1])),
        "does not fit its",
    ),
    "index of more lanes": (lay(f"{HIDDEN}/index/lane_count", lambda x: np.tile(x, 2)), r"has shape \(4,\)"),
    "no index": (drop(f"{HIDDEN}/index"), "lacks /spikes/hidden/index"),
    "samples do not increase": (lay("evsim/samples", lambda x: x[::-1]), "samples that do not increase"),
    "samples outside": (lay("evsim/samples", lambda x: x + 5), "or lie outside its window"),
    "sample is NaN": (put("evsim/samples", 1, np.nan), "samples that do not increase"),
    "samples in single precision": (lay("evsim/samples", lambda x: x.astype("f4")), "samples that do not"),
    "fewer samples": (lay("evsim/samples", lambda x: x[:-1]), r"has shape \(4, .*\), not \(3, "),
    "report shape": (lay("report/answer/data64", lambda x: x[:-1]), r"has shape \(3, 4\), not \(4, 4\)"),
    "report without all bits": (drop("report/answer/data64"), "/report/answer lacks data64"),
    "two states": (with_two_states, "is not the only place of its states"),
    "integral shape": (lay(f"{SAMPLED}/integral", lambda x: x[:, :, :1]), r"has shape \(4, 2, 1\), not"),
    "integral in single precision": (lay(f"{SAMPLED}/square", lambda x: x.astype("f4")), "dtype float32"),
    "initial shape": (
        lay("evsim/populations/hidden/initial/c", lambda x: x.T),
        r"has shape \(3, 2\), not \(2, 3\)",
    ),
    "no events": (drop(HIDDEN), "population 'hidden' lacks its events"),
    "not described": (drop("evsim/populations/hidden"), "events or states of 'hidden', but does not"),
    "readout with events": (lambda file: file.create_group("spikes/answer"), "'answer' must not have events"),
    "no clock": (lambda file: file["evsim"].attrs.__delitem__("clock"), "lacks the number 'dt_ms'"),
    "other clock": (set_attribute("evsim", "clock", np.bytes_(b"sun")), "lacks the number 'dt_ms'"),
    "clock is an array": (set_attribute("evsim", "clock", np.zeros(3)), "lacks the number 'dt_ms'"),
    "no start": (lambda file: file["evsim"].attrs.__delitem__("start_ms"), "lacks the number 'start_ms'"),
    "negative start": (set_attribute("evsim", "start_ms", -1.0), r"from -1\.0 ms"),
    "negative duration": (set_attribute("evsim", "duration_ms", -1.0), r"x -1\.0 ms"),
    "endless": (set_attribute("evsim", "duration_ms", np.inf), "x inf ms"),
    "no number": (set_attribute("evsim", "duration_ms", np.nan), "x nan ms"),
    "other start": (set_attribute("evsim", "start_ms", START + 1), "outside its window|an event of unit"),
    "no lanes": (set_attribute("evsim", "n_lanes", np.int64(0)), "claims 0 lanes"),
    "other lanes": (set_attribute("evsim", "n_lanes", np.int64(3)), "disagree about units and lanes"),
    "absurd lanes": (set_attribute("evsim", "n_lanes", np.int64(2**62)), "claims 4611686018427387904 lanes"),
    "many lanes": (set_attribute("evsim", "n_lanes", np.int64(2**30)), "has shape|disagree about"),
    "newer version": (set_attribute("/", "evsim_log_version", [2, 0]), r"has log version 2\.0, not 1\.x"),
    "absurd column": (with_absurd_column, "bytes, which the file does not hold"),
    "absurd times": (with_absurd_times, r"has shape \(1000000000000,\), not"),
    "absurd samples": (with_absurd_samples, "bytes, which the file does not hold"),
    "external samples": (with_external_samples, "/evsim/samples is a link"),
}


@pytest.mark.parametrize("name", list(DAMAGES))
def test_damage_is_refused(name, path):
    damage, match = DAMAGES[name]
    with h5py.File(path, "r+") as file:
        damage(file)
    refuse(path, match)


def test_many_lanes_are_bounded_by_the_file(path):
    """Nothing of the size of all lanes is made before an array of that size was found."""
    with h5py.File(path, "r+") as file:
        file["evsim"].attrs["n_lanes"] = np.int64(2**30)
        for name in ("cue", "hidden"):
            file[f"spikes/{name}"].attrs["n_lanes"] = np.uint32(2**30)
    refuse(path, r"has shape \(2, 2?.*\), not \(1073741824|has shape \(2,\), not \(1073741824,\)")
