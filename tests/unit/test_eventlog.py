"""Event logs in memory and on disk; the files are looked at with plain h5py, not with our code."""

import json
import os
import re
import stat
import zlib

import h5py
import numpy as np
import pytest

from evsim.errors import LogError
from evsim.eventlog import EventLog, PopulationLog
from evsim.events import Events
from evsim.provenance import git_commit, provenance, to_json

STEPS, LANES, UNITS = 7, 2, 3


def make_events(seed=0, n_units=UNITS, n_steps=STEPS, dtype=np.float32, density=0.4):
    rng = np.random.default_rng(seed)
    dense = rng.normal(size=(n_steps, LANES, n_units)) * (rng.random((n_steps, LANES, n_units)) < density)
    return Events.from_dense(dense, dtype)


def make_log(dt=0.5, start_step=10, dtype=np.float32, form="evnn", density=0.4):
    rng = np.random.default_rng(5)

    def array(*shape):
        return rng.normal(size=shape).astype(dtype)

    fields, states = {"evnn": ("zrgqa", ("c",)), "paper": ("uzrpa", ("c", "y"))}[form]
    threshold = np.array([0.0, 0.2, 0.5], dtype)
    cue = PopulationLog(
        "cue",
        "EventSource",
        4,
        dt,
        start_step,
        events=make_events(1, 4, dtype=dtype, density=density),
        carried=Events.empty(4, LANES, 0, dtype),
    )
    hidden = PopulationLog(
        "hidden",
        "EGRU",
        UNITS,
        dt,
        start_step,
        events=make_events(2, dtype=dtype, density=density),
        carried=make_events(3, n_steps=2, dtype=dtype, density=density),
        initial={state: array(LANES, UNITS) for state in states},
        tape=array(STEPS, LANES, 5, UNITS),
        tape_fields=tuple(fields),
        thresholds=threshold,
    )
    answer = PopulationLog(
        "answer",
        "LeakyReadout",
        2,
        dt,
        start_step,
        initial={"v": array(LANES, 2)},
        tape=array(STEPS, LANES, 1, 2),
        tape_fields=("v",),
    )
    return EventLog(
        {"cue": cue, "hidden": hidden, "answer": answer},
        dt=dt,
        start_step=start_step,
        n_steps=STEPS,
        n_lanes=LANES,
        lengths=np.array([7, 4]),
        counters={"lane_steps": 11, "macs": {"cue->hidden": 2**40}},
        network={"dt_ms": dt, "populations": {"hidden": {"type": "EGRU", "form": form}}},
        parameters={
            "hidden.threshold": threshold,
            "cue->hidden.weight": array(4, 9),
            "hidden->answer.weight": array(5),
            "hidden->answer.indptr": np.array([0, 2, 2, 5]),
            "hidden->answer.indices": np.array([0, 1, 0, 1, 1], np.int32),
        },
        provenance={"seed": 3, "arguments": None},
    )


@pytest.fixture
def log():
    return make_log()


@pytest.fixture
def path(log, tmp_path):
    return log.save(tmp_path / "run.h5")


# -- in memory -------------------------------------------------------------------------------------------


def test_columns_of_a_population(log):
    hidden = log["hidden"]
    dense = hidden.events.to_dense()
    step, lane, unit = np.nonzero(dense)
    np.testing.assert_array_equal(hidden.time, (10 + step) * 0.5)
    np.testing.assert_array_equal(hidden.lane, lane)
    np.testing.assert_array_equal(hidden.unit, unit)
    np.testing.assert_array_equal(hidden.value, dense[step, lane, unit])
    assert hidden.time.dtype == np.float64
    assert hidden.n_events == len(step)
    # Lanes of 7 and 4 steps.
    assert hidden.activity == pytest.approx(len(step) / (3 * 11))
    assert log.duration == 3.5
    assert log.names == list(log) == ["cue", "hidden", "answer"]
    assert "hidden" in log


def test_state_of_egru_follows_from_the_tape():
    for form in ("evnn", "paper"):
        hidden = make_log(form=form)["hidden"]
        expected = np.empty((STEPS, LANES, UNITS), np.float32)
        for index in np.ndindex(*expected.shape):
            step, lane, unit = index
            a, theta = hidden.tape[step, lane, 4, unit], hidden.thresholds[unit]
            expected[index] = a - theta if form == "evnn" and a > theta else a
        np.testing.assert_array_equal(hidden.state, expected)
        assert hidden.state.dtype == np.float32


def test_state_of_a_readout_is_its_tape(log):
    assert log["answer"].state.shape == (STEPS, LANES, 2)
    np.testing.assert_array_equal(log["answer"].state, log["answer"].tape[:, :, 0])


def test_what_is_not_there_is_said(log):
    with pytest.raises(LogError, match="no states of this EventSource"):
        _ = log["cue"].state
    with pytest.raises(LogError, match="LeakyReadout sends no events"):
        _ = log["answer"].time
    with pytest.raises(LogError, match=r"no population 'x'; it has \['cue'"):
        log["x"]


def test_sizes_must_agree(log):
    with pytest.raises(LogError, match="window is not that of the log"):
        EventLog(log.populations, dt=0.5, start_step=0, n_steps=6, n_lanes=2, lengths=[6, 6])
    with pytest.raises(LogError, match=r"lengths \[7 8\]; give 2 numbers in 0\.\.7"):
        EventLog({}, dt=0.5, start_step=0, n_steps=7, n_lanes=2, lengths=[7, 8])
    with pytest.raises(LogError, match="0 lanes"):
        EventLog({}, dt=0.5, start_step=0, n_steps=7, n_lanes=0, lengths=[])


def test_equal_sees_every_difference(log):
    assert log.equal(make_log())

    def change(what):
        other = make_log()
        what(other)
        return not log.equal(other)

    assert change(lambda o: o["hidden"].value.__setitem__(0, 9))
    assert change(lambda o: o["hidden"].carried.value.__setitem__(0, 9))
    assert change(lambda o: o["hidden"].initial["c"].__setitem__((0, 0), 9))
    assert change(lambda o: o["answer"].tape.__setitem__((0, 0, 0, 0), 9))
    assert change(lambda o: o["hidden"].tape.__setitem__((0, 0, 4, 0), 9))
    assert change(lambda o: o.parameters["cue->hidden.weight"].__setitem__((0, 0), 9))
    assert change(lambda o: o.counters.update(lane_steps=12))
    assert change(lambda o: o.network.update(dt_ms=1))
    assert change(lambda o: o.provenance.update(seed=4))
    assert change(lambda o: o.lengths.__setitem__(0, 6))
    assert change(lambda o: setattr(o, "start_step", 11))
    assert change(lambda o: setattr(o["hidden"], "kind", "LIF"))
    assert change(lambda o: setattr(o["answer"], "tape", None))
    assert not log.equal(make_log(dtype=np.float64))


def test_equal_means_the_same_bits(log):
    log.parameters["cue->hidden.weight"][0, 0] = 0.0
    other = make_log()
    other.parameters["cue->hidden.weight"][0, 0] = -0.0
    assert not log.equal(other)
    log.parameters["cue->hidden.weight"][0, 0] = other.parameters["cue->hidden.weight"][0, 0] = np.nan
    assert log.equal(other)


# -- saving ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("form", ["evnn", "paper"])
@pytest.mark.parametrize("density", [0.0, 0.4, 1.0])
def test_round_trip(tmp_path, dtype, form, density):
    log = make_log(dtype=dtype, form=form, density=density)
    opened = EventLog.open(log.save(tmp_path / "run.h5"))
    assert opened.equal(log)
    assert log.equal(opened)
    assert opened["hidden"].value.dtype == dtype
    assert opened["hidden"].tape is None
    assert opened["answer"].tape.shape == (STEPS, LANES, 1, 2)
    with pytest.raises(LogError, match=r"save\(states=True\)"):
        _ = opened["hidden"].state


def test_states_are_kept_on_demand(log, tmp_path):
    opened = EventLog.open(log.save(tmp_path / "run.h5", states=True))
    np.testing.assert_array_equal(opened["hidden"].state, log["hidden"].state)
    assert opened.equal(log)
    # And once more from the file's own log, which has no full tape any longer.
    again = EventLog.open(opened.save(tmp_path / "again.h5", states=True))
    np.testing.assert_array_equal(again["hidden"].state, log["hidden"].state)


def test_arrays_that_were_read_can_be_written_into(path):
    opened = EventLog.open(path)
    for array in (*opened.parameters.values(), opened["hidden"].initial["c"], opened["answer"].tape):
        assert array.flags.writeable
        assert array.flags.c_contiguous


def test_the_columns_are_those_of_sonata(log, path):
    with h5py.File(path, "r") as file:
        assert file.attrs["magic"] == 0x0A7A
        assert file.attrs["version"].tolist() == [0, 1]
        assert file.attrs["evsim_log_version"].tolist() == [1, 0]
        assert sorted(file["spikes"]) == ["cue", "hidden"]
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


def test_nothing_is_overwritten_unasked(log, path):
    before = path.read_bytes()
    with pytest.raises(LogError, match=r"run\.h5': exists already; give another name or overwrite=True"):
        log.save(path)
    assert path.read_bytes() == before
    log.provenance["seed"] = 99
    log.save(path, overwrite=True)
    assert EventLog.open(path).provenance["seed"] == 99
    assert os.listdir(path.parent) == ["run.h5"]


def test_what_cannot_be_written_leaves_nothing_behind(log, tmp_path):
    log.provenance["module"] = json
    with pytest.raises(LogError, match="provenance cannot be kept: module has no form in JSON"):
        log.save(tmp_path / "run.h5")
    log.provenance.clear()
    log.parameters["bad"] = np.zeros(3, complex)
    with pytest.raises(LogError, match="'bad' is of dtype complex128"):
        log.save(tmp_path / "run.h5")
    log.parameters.pop("bad")
    log.parameters["a/b"] = np.zeros(3)
    with pytest.raises(LogError, match="cannot name an entry 'a/b'"):
        log.save(tmp_path / "run.h5")
    log.parameters.pop("a/b")
    log["hidden"].initial["c"] = np.zeros(3)
    with pytest.raises(LogError, match=r"initial c of 'hidden' has shape \(3,\); give \(2, 3\)"):
        log.save(tmp_path / "run.h5")
    assert os.listdir(tmp_path) == []


def test_a_failed_overwrite_keeps_the_old_file(log, path):
    before = path.read_bytes()
    log.provenance["module"] = json
    with pytest.raises(LogError):
        log.save(path, overwrite=True)
    assert path.read_bytes() == before


def test_places_that_cannot_be_written_to(log, tmp_path):
    with pytest.raises(LogError, match="is a folder"):
        log.save(tmp_path, overwrite=True)
    with pytest.raises(LogError, match="nowhere' does not exist; make it first"):
        log.save(tmp_path / "nowhere" / "run.h5")
    with pytest.raises(LogError, match="cannot be written"):
        log.save(tmp_path / ("x" * 300 + ".h5"))
    with pytest.raises(LogError, match="the name holds a zero byte"):
        log.save(f"{tmp_path}/a\0b.h5")
    with pytest.raises(LogError, match="does not exist") as caught:
        log.save(tmp_path / "a\nb" / "run.h5")
    assert "\n" not in str(caught.value).split(": ")[0]
    if os.path.isdir("/proc/self"):  # a folder that refuses files even to root
        with pytest.raises(LogError, match="cannot be written"):
            log.save("/proc/self/run.h5")


def test_permissions_are_those_of_an_ordinary_file(path):
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_large_descriptions_fit(log, tmp_path):
    log.network["notes"] = "x" * 200_000
    assert EventLog.open(log.save(tmp_path / "run.h5")).equal(log)


def test_steps_beyond_32_bit(tmp_path):
    log = make_log(start_step=2**32 - 3)
    assert EventLog.open(log.save(tmp_path / "run.h5")).equal(log)


# -- files that are no logs ------------------------------------------------------------------------------


def refuse(path, match):
    with pytest.raises(LogError, match=match) as caught:
        EventLog.open(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"log '{path}': ")
    assert len(message) < 600


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


def replace(file, name, values, **options):
    """Put other values in place of a data set, with a valid checksum."""
    del file[name]
    values = np.asarray(values)
    file.create_dataset(name, data=values, **options).attrs["crc32"] = np.uint32(zlib.crc32(values.tobytes()))


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


# -- provenance ------------------------------------------------------------------------------------------


def test_provenance_is_json(tmp_path):
    facts = provenance(["run", "x", 3], tmp_path, seed=7)
    assert json.loads(to_json(facts)) == facts
    assert facts["arguments"] == ["run", "x", "3"]
    assert facts["seed"] == 7
    assert facts["git_commit"] is None  # no repository there
    assert facts["numpy"] == np.__version__
    assert facts["h5py"] == h5py.__version__
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", facts["time_utc"])
    assert provenance()["arguments"] is None


def test_git_commit_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit() is None


def test_numpy_numbers_become_plain_ones():
    assert (
        to_json({"a": np.int64(3), "b": np.arange(2), "c": np.float32(0.5)})
        == '{"a": 3, "b": [0, 1], "c": 0.5}'
    )
    with pytest.raises(TypeError, match="set has no form in JSON"):
        to_json({1, 2})
