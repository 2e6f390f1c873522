"""The file format of event logs: what SONATA readers find in it, and what damage must be refused.

Files are looked at, and damaged, with plain h5py.
"""

import os
import zlib

import h5py
import numpy as np
import pytest

from evsim.errors import LogError
from evsim.eventlog import EventLog, PopulationLog
from evsim.events import Events
from oracles.damaged_files import drop, lay, refuse, replace, set_attribute

STEPS, LANES, UNITS = 7, 2, 3


def make_log(dt=0.5, dtype=np.float32):
    rng = np.random.default_rng(5)

    def sent(n_steps):
        dense = rng.normal(size=(n_steps, LANES, UNITS)) * (rng.random((n_steps, LANES, UNITS)) < 0.4)
        return Events.from_dense(dense, dtype)

    hidden = PopulationLog("hidden", "EGRU", UNITS, dt, 10, events=sent(STEPS), carried=sent(2))
    hidden.initial = {"c": rng.normal(size=(LANES, UNITS)).astype(dtype)}
    answer = PopulationLog("answer", "LeakyReadout", 2, dt, 10, tape_fields=("v",))
    answer.tape = rng.normal(size=(STEPS, LANES, 1, 2)).astype(dtype)
    return EventLog(
        {"hidden": hidden, "answer": answer},
        dt=dt,
        start_step=10,
        n_steps=STEPS,
        n_lanes=LANES,
        lengths=np.array([7, 4]),
        network={"dt_ms": dt},
        parameters={"hidden->answer.weight": rng.normal(size=(UNITS, 2)).astype(dtype)},
    )


@pytest.fixture
def log():
    return make_log()


@pytest.fixture
def path(log, tmp_path):
    return log.save(tmp_path / "run.h5")


# -- what readers find -----------------------------------------------------------------------------------


def test_the_columns_are_those_of_sonata(log, path):
    with h5py.File(path, "r") as file:
        assert file.attrs["magic"] == 0x0A7A
        assert file.attrs["version"].tolist() == [0, 1]
        assert file.attrs["evsim_log_version"].tolist() == [1, 0]
        assert sorted(file["spikes"]) == ["hidden"]
        group = file["spikes/hidden"]
        step, lane, unit = np.nonzero(log["hidden"].events.to_dense())
        assert group["timestamps"].dtype == group["node_ids"].dtype == np.uint32
        np.testing.assert_array_equal(group["timestamps"], 10 + step)
        np.testing.assert_array_equal(group["node_ids"], lane * UNITS + unit)
        np.testing.assert_array_equal(group["value"], log["hidden"].value)
        per_step = np.bincount(step, minlength=STEPS)
        np.testing.assert_array_equal(group["index/row_ptr"], [0, *np.cumsum(per_step)])
        assert group.attrs["sorting"] == 2
        assert h5py.check_enum_dtype(group.attrs.get_id("sorting").dtype) == {
            "none": 0,
            "by_id": 1,
            "by_time": 2,
        }
        assert group["node_ids"].attrs["sorting"] == "by_time"
        assert group["timestamps"].attrs["units"] == "step"  # dt is 0.5 ms
        assert (group.attrs["n_units"], group.attrs["n_lanes"], group.attrs["dt_ms"]) == (UNITS, LANES, 0.5)
        for column in ("timestamps", "node_ids"):
            assert group[column].scaleoffset == 0
            assert group[column].compression is None


def test_the_unit_of_time_is_ms_when_a_step_is_one(tmp_path):
    path = make_log(dt=1.0).save(tmp_path / "run.h5")
    with h5py.File(path, "r") as file:
        assert file["spikes/hidden/timestamps"].attrs["units"] == "ms"


def test_states_are_a_sonata_report(log, path):
    with h5py.File(path, "r") as file:
        assert list(file["report"]) == ["answer"]
        group = file["report/answer"]
        np.testing.assert_array_equal(group["data"][...].reshape(STEPS, LANES, 2), log["answer"].state)
        np.testing.assert_array_equal(group["mapping/time"], [5.0, 8.5, 0.5])
        assert group["mapping/time"].attrs["units"] == "ms"
        np.testing.assert_array_equal(group["mapping/node_ids"], np.arange(4))
        assert len(group["mapping/index_pointers"]) == 5


def test_reports_are_of_single_precision_whatever_the_run(tmp_path):
    log = make_log(dtype=np.float64)
    path = log.save(tmp_path / "run.h5")
    with h5py.File(path, "r") as file:  # libsonata refuses anything else
        assert file["report/answer/data"].dtype == np.float32
        np.testing.assert_allclose(
            file["report/answer/data"], log["answer"].state.reshape(STEPS, 4), rtol=1e-6
        )
    np.testing.assert_array_equal(EventLog.open(path)["answer"].state, log["answer"].state)


# -- files that are no logs ------------------------------------------------------------------------------


def test_missing_foreign_and_empty_files(tmp_path):
    refuse(tmp_path / "none.h5", "there is no such file")
    refuse(tmp_path, "there is no such file")
    (tmp_path / "text.h5").write_text("time,unit\n1,2\n")
    refuse(tmp_path / "text.h5", "is not an HDF5 file")
    (tmp_path / "empty.h5").write_bytes(b"")
    refuse(tmp_path / "empty.h5", "is not an HDF5 file")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = np.arange(3)
    refuse(tmp_path / "other.h5", "is HDF5, but not an event log of evsim")
    with h5py.File(tmp_path / "sonata.h5", "w") as file:
        file.attrs["magic"], file.attrs["version"] = np.uint32(0x0A7A), np.array([0, 1], "u4")
        file["spikes/v1/node_ids"] = np.arange(3)
        file["spikes/v1/timestamps"] = np.arange(3.0)
    refuse(tmp_path / "sonata.h5", "is SONATA, but not an event log of evsim")


def test_a_file_cut_short(path, tmp_path):
    whole = path.read_bytes()
    for size in [*range(8, len(whole) - 1, 997), len(whole) - 1]:
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


def with_zero_value(file):
    values = file["spikes/hidden/value"][...]
    values[0] = 0
    replace(file, "spikes/hidden/value", values)


def with_swapped_rows(file):
    nodes = file["spikes/hidden/node_ids"][...]
    ticks = file["spikes/hidden/timestamps"][...]
    first = np.flatnonzero(np.diff(ticks) == 0)[0]
    nodes[[first, first + 1]] = nodes[[first + 1, first]]
    replace(file, "spikes/hidden/node_ids", nodes)


def with_edited_values(file):
    file["spikes/hidden/value"][0] += 1


def with_soft_link(file):
    file["elsewhere"] = file["spikes/hidden"]
    del file["spikes/hidden"]
    file["spikes/hidden"] = h5py.SoftLink("/elsewhere")


def with_external_link(file):
    del file["evsim/lengths"]
    file["evsim/lengths"] = h5py.ExternalLink("other.h5", "/lengths")


def with_external_report(file):
    del file["report"]
    file["report"] = h5py.ExternalLink("other.h5", "/report")


def with_external_storage(file):
    crc = file["evsim/lengths"].attrs["crc32"]
    del file["evsim/lengths"]
    file.create_dataset("evsim/lengths", (LANES,), "i8", external=[("raw", 0, 16)]).attrs["crc32"] = crc


def with_virtual_data(file):
    crc = file["evsim/lengths"].attrs["crc32"]
    del file["evsim/lengths"]
    layout = h5py.VirtualLayout((LANES,), "i8")
    layout[:] = h5py.VirtualSource("other.h5", "lengths", (LANES,))
    file.create_virtual_dataset("evsim/lengths", layout).attrs["crc32"] = crc


def with_absurd_column(file):
    del file["spikes/hidden/value"]
    file.create_dataset("spikes/hidden/value", (10**15,), "f4", chunks=(65536,)).attrs["crc32"] = np.uint32(0)


def with_absurd_chunks(file):
    del file["spikes/hidden/value"]
    file.create_dataset("spikes/hidden/value", (2**31,), "f4", chunks=(2**29,)).attrs["crc32"] = np.uint32(0)


def with_absurd_parameter(file):
    file.create_dataset("evsim/parameters/huge", (10**7, 10**7), "f4").attrs["crc32"] = np.uint32(0)


def with_absurd_lanes(file):
    file["evsim"].attrs["n_lanes"] = np.int64(2**62)


def with_absurd_carry(file):
    file["evsim/populations/hidden/carried"].attrs["n_steps"] = np.int64(2**61)


def with_deep_json(file):
    text = b'{"a":' * 10**5 + b"1" + b"}" * 10**5
    del file["evsim/network"]
    file.create_dataset("evsim/network", data=np.bytes_(text)).attrs["crc32"] = np.uint32(zlib.crc32(text))


def with_json_list(file):
    del file["evsim/network"]
    file.create_dataset("evsim/network", data=np.bytes_(b"[1]")).attrs["crc32"] = np.uint32(
        zlib.crc32(b"[1]")
    )


DAMAGES = {
    "columns of unequal length": (
        lay("spikes/hidden/node_ids", lambda x: x[:-1]),
        r"/spikes/hidden/node_ids has shape \(\d+,\), not",
    ),
    "column with two dimensions": (lay("spikes/hidden/value", lambda x: x[:, None]), "not one dimension"),
    "node id out of range": (
        lay("spikes/hidden/node_ids", lambda x: np.where(x == x.max(), 6, x).astype("u4")),
        "'hidden' has an event of node 6, but only 6 nodes",
    ),
    "step out of range": (lay("spikes/hidden/timestamps", lambda x: x + np.uint32(7)), "outside the window"),
    "float times": (lay("spikes/hidden/timestamps", lambda x: x.astype("f8")), "is of dtype float64"),
    "half precision": (lay("spikes/hidden/value", lambda x: x.astype("f2")), "is of dtype float16"),
    "text for numbers": (lay("spikes/hidden/value", lambda x: x.astype("S8")), r"is of dtype \|S8"),
    "row pointer": (
        lay("spikes/hidden/index/row_ptr", lambda x: np.where(x == x[3], x[2], x)),
        "does not fit its",
    ),
    "zero value": (with_zero_value, "whose value is 0 or not finite"),
    "rows out of order": (with_swapped_rows, r"not in the order \(step, lane, unit\)"),
    "edited values": (with_edited_values, "does not match its checksum"),
    "carried pointer": (
        lay("evsim/populations/hidden/carried/ptr", lambda x: x + 1),
        "row pointer of the events",
    ),
    "carried unit": (
        lay("evsim/populations/hidden/carried/unit", lambda x: x + 3),
        "carries events of units",
    ),
    "lengths": (lay("evsim/lengths", lambda x: x + 5), "has lengths from 9 to 12 in 7 steps"),
    "lengths of other lanes": (lay("evsim/lengths", lambda x: x[:1]), r"has shape \(1,\), not \(2,\)"),
    "initial shape": (
        lay("evsim/populations/hidden/initial/c", lambda x: x.T),
        r"has shape \(3, 2\), not \(2, 3\)",
    ),
    "report shape": (lay("report/answer/data", lambda x: x[:-1]), r"has shape \(6, 4\), not \(7, 4\)"),
    "report of what": (set_attribute("report/answer", "state", np.bytes_(b"w")), "is of state 'w'"),
    "no row pointer": (drop("spikes/hidden/index"), "lacks /spikes/hidden/index"),
    "no events": (drop("spikes/hidden"), "population 'hidden' lacks its events"),
    "no spikes": (drop("spikes"), "lacks /spikes"),
    "no evsim": (drop("evsim"), "lacks /evsim"),
    "no network": (drop("evsim/network"), "lacks /evsim/network"),
    "not described": (
        drop("evsim/populations/hidden"),
        "events or states of 'hidden', but does not describe",
    ),
    "more events": (lambda file: file.create_group("spikes/alien"), "of 'alien'"),
    "readout with events": (lambda file: file.create_group("spikes/answer"), "'answer' must not have events"),
    "group for data": (
        lambda file: (drop("evsim/lengths")(file), file.create_group("evsim/lengths")),
        "is a Group",
    ),
    "no checksum": (
        lambda file: file["evsim/lengths"].attrs.__delitem__("crc32"),
        "lacks the number 'crc32'",
    ),
    "no dt": (lambda file: file["evsim"].attrs.__delitem__("dt_ms"), "lacks the number 'dt_ms'"),
    "negative dt": (set_attribute("evsim", "dt_ms", -1.0), "steps of -1.0 ms"),
    "dt is text": (set_attribute("evsim", "dt_ms", "1"), "lacks the number 'dt_ms'"),
    "other dt": (set_attribute("evsim", "dt_ms", 0.25), "disagree about units, lanes and dt"),
    "negative start": (set_attribute("evsim", "start_step", np.int64(-1)), "from step -1"),
    "other start": (set_attribute("evsim", "start_step", np.int64(2**40)), "outside the window"),
    "kind is a number": (set_attribute("evsim/populations/hidden", "kind", 3), "lacks the text 'kind'"),
    "kind of variable length": (
        set_attribute("evsim/populations/hidden", "kind", "EGRU"),
        "lacks the text 'kind'",
    ),
    "kind is not UTF-8": (
        set_attribute("evsim/populations/hidden", "kind", np.bytes_(b"\xff")),
        "cannot be read",
    ),
    "no units": (set_attribute("evsim/populations/hidden", "n_units", np.int64(0)), "claims 0 units"),
    "newer version": (set_attribute("/", "evsim_log_version", [2, 0]), r"has log version 2\.0, not 1\.x"),
    "version is text": (set_attribute("/", "evsim_log_version", "x"), "is SONATA, but not an event log"),
    "soft link": (with_soft_link, "/spikes/hidden is a link"),
    "external link": (with_external_link, "/evsim/lengths is a link"),
    "external report": (with_external_report, "/report is a link"),
    "external storage": (with_external_storage, "keeps its data in another file"),
    "virtual data": (with_virtual_data, "keeps its data in another file"),
    "absurd column": (with_absurd_column, "bytes, which the file does not hold"),
    "absurd chunks": (with_absurd_chunks, "bytes, which the file does not hold"),
    "absurd parameter": (with_absurd_parameter, "bytes, which the file does not hold"),
    "absurd lanes": (with_absurd_lanes, r"has shape \(2,\), not \(4611686018427387904,\)"),
    "absurd carry": (with_absurd_carry, "more than the memory of this machine"),
    "deep JSON": (with_deep_json, "recursion"),
    "JSON list": (with_json_list, "is no JSON object"),
    "JSON is an array": (lay("evsim/network", lambda x: np.zeros(3)), "is no text"),
    "parameter is a group": (lambda file: file.create_group("evsim/parameters/x"), "is a Group"),
}


@pytest.mark.parametrize("name", list(DAMAGES))
def test_damage_is_refused(name, path):
    damage, match = DAMAGES[name]
    with h5py.File(path, "r+") as file:
        damage(file)
    refuse(path, match)


def test_a_file_that_may_not_be_read(path):
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("permissions do not bind this user")
    refuse(path, "cannot be read")
