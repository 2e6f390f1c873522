"""The file format of event logs of runs in steps: what SONATA readers find, and what damage must be refused.

Files are looked at, and damaged, with plain h5py.
"""

import json
import os
import zlib
from itertools import pairwise

import h5py
import numpy as np
import pytest

from evsim.errors import LogError
from evsim.eventlog import EventLog
from evsim.log_file import LogFile
from evsim.log_writer import LogWriter
from oracles import damaged_files as damaged
from oracles.damaged_files import drop, edit, edit_journal, edit_last, find, lay, put, refuse, set_attribute
from oracles.log_windows import run_in_steps, windows_of

STEPS, LANES, UNITS, CUTS = 12, 2, 5, (0, 5, 6, 12)
HIDDEN, MEMBERS = "spikes/hidden", "evsim/populations"


@pytest.fixture
def log():
    return run_in_steps(gradient=True)


@pytest.fixture
def path(log, tmp_path):
    """The run in three windows, and so in three blocks of each population."""
    with LogWriter(tmp_path / "run.h5", states=True, checkpoints=True) as writer:
        for window in windows_of(log, CUTS):
            writer.append(window)
            writer.flush()
    return tmp_path / "run.h5"


# -- what readers find -----------------------------------------------------------------------------------


def test_the_columns_are_those_of_sonata(log, path):
    with h5py.File(path, "r") as file:
        assert file.attrs["magic"] == 0x0A7A
        assert file.attrs["version"].tolist() == [0, 1]
        assert file.attrs["evsim_log_version"].tolist() == [2, 0]
        assert sorted(file["spikes"]) == ["cue", "hidden"]
        group = file[HIDDEN]
        step, lane, unit = np.nonzero(log["hidden"].events.to_dense())
        assert (group["timestamps"].dtype, group["node_ids"].dtype) == (np.uint32, np.uint16)
        np.testing.assert_array_equal(group["timestamps"], 10 + step)
        np.testing.assert_array_equal(group["node_ids"], lane * UNITS + unit)
        np.testing.assert_array_equal(group["value"], log["hidden"].value)
        np.testing.assert_array_equal(group["gradient"], log["hidden"].gradient)
        assert group["time_gradient"].shape == file["spikes/cue/gradient"].shape == (0,)
        np.testing.assert_array_equal(
            group["index/row_ptr"], [0, *np.cumsum(np.bincount(step, minlength=STEPS))]
        )
        nodes = lane * UNITS + unit
        np.testing.assert_array_equal(group["index/unit_events"], np.bincount(nodes, minlength=10))
        ends = np.searchsorted(step, CUTS)
        counts = [np.bincount(nodes[a:b], minlength=10) for a, b in pairwise(ends)]
        np.testing.assert_array_equal(group["index/counts"], counts)
        assert group.attrs["sorting"] == 2
        assert h5py.check_enum_dtype(group.attrs.get_id("sorting").dtype) == {
            "none": 0,
            "by_id": 1,
            "by_time": 2,
        }
        assert group["node_ids"].attrs["sorting"] == "by_time"
        assert group["timestamps"].attrs["units"] == "step"  # dt is 0.5 ms
        assert (group.attrs["n_units"], group.attrs["n_lanes"], group.attrs["dt_ms"]) == (UNITS, LANES, 0.5)


def test_the_only_filter_is_one_that_all_readers_have(path):
    packed = []

    def look(name, item):
        if isinstance(item, h5py.Dataset):
            made = item.id.get_create_plist()
            filters = [made.get_filter(k)[0] for k in range(made.get_nfilters())]
            assert filters in ([], [h5py.h5z.FILTER_SCALEOFFSET]), name
            packed.extend([name] * bool(filters))

    with h5py.File(path, "r") as file:
        file.visititems(look)
        assert file.id.get_create_plist() is not None
    assert packed == ["spikes/cue/timestamps", "spikes/hidden/timestamps"]


def test_many_nodes_are_32_bits_wide_and_packed(tmp_path):
    log = run_in_steps(n_units=40000, n_steps=2, density=0.001)
    with h5py.File(log.save(tmp_path / "run.h5"), "r") as file:
        assert file["spikes/hidden/node_ids"].dtype == np.uint32
        assert file["spikes/hidden/node_ids"].scaleoffset == 0
        assert file["spikes/hidden/index/counts"].shape == (1, 157)  # 80000 nodes in groups of 512
    assert EventLog.open(tmp_path / "run.h5").equal(log)


def test_the_unit_of_time_is_ms_when_a_step_is_one(tmp_path):
    path = run_in_steps(dt=1.0).save(tmp_path / "run.h5")
    with h5py.File(path, "r") as file:
        assert file["spikes/hidden/timestamps"].attrs["units"] == "ms"


def test_states_are_a_sonata_report(log, path):
    with h5py.File(path, "r") as file:
        assert sorted(file["report"]) == ["answer", "hidden"]
        group = file["report/answer"]
        np.testing.assert_array_equal(group["data"][...].reshape(STEPS, LANES, 2), log["answer"].state)
        np.testing.assert_array_equal(group["mapping/time"], [5.0, 11.0, 0.5])
        assert group["mapping/time"].attrs["units"] == "ms"
        np.testing.assert_array_equal(group["mapping/node_ids"], np.arange(4))
        for name in ("index_pointers", "index_pointer"):
            np.testing.assert_array_equal(group["mapping"][name], np.arange(5))


def test_reports_are_of_single_precision_whatever_the_run(tmp_path):
    log = run_in_steps(dtype=np.float64)
    path = log.save(tmp_path / "run.h5")
    with h5py.File(path, "r") as file:  # libsonata refuses anything else
        assert file["report/answer/data"].dtype == np.float32
        np.testing.assert_allclose(
            file["report/answer/data"], log["answer"].state.reshape(STEPS, 4), rtol=1e-6
        )
    np.testing.assert_array_equal(EventLog.open(path)["answer"].state, log["answer"].state)


def test_the_journal_is_lines_of_json_with_checksums(log, path):
    with h5py.File(path, "r") as file:
        entries = damaged.journal(file)
        values = file[f"{HIDDEN}/value"][...]
    assert [entry["entry"] for entry in entries] == [0, 1, 2, 3]
    assert [entry["stop_step"] for entry in entries] == [15, 16, 22, 22]
    assert [entry["closed"] for entry in entries] == [False, False, False, True]
    assert [entry["lengths"] for entry in entries] == [[5, 5], [6, 6], [12, 12], [12, 12]]
    assert entries[-1]["counters"] == log.counters
    start = 0
    for entry in entries[:3]:
        ((end, when, _, _, crc),) = entry["pieces"][HIDDEN]
        assert crc == zlib.crc32(values[start:end].tobytes())
        assert when == 10 + log["hidden"].events.step[start]
        start = end
    assert set(entries[-1]["pieces"]) == {f"spikes/{name}/index/unit_events" for name in ("cue", "hidden")}


def test_the_journal_may_end_in_half_a_line(log, path):
    """A process was killed as it wrote; what its journal does not speak of is not there."""
    with h5py.File(path, "r") as file:
        lines = damaged.journal_lines(file)
    for end in (b"", lines[2][:30], lines[2][:-1], lines[2], b"\0" * 50, b"\0" * 40 + lines[2][40:] + b"\n"):
        with h5py.File(path, "r+") as file:
            text = lines[0] + b"\n" + lines[1] + b"\n" + end
            damaged.grown(file, "evsim/journal", np.frombuffer(text, np.uint8))
        with LogFile(path) as file:
            assert not file.complete
            assert (file.n_steps, file.stop) == (6, 8.0)
            assert file.check() == []
            assert file.window()["hidden"].events.equal(log["hidden"].events.window(0, 6))
            assert file["hidden"].unit_events.sum() == file["hidden"].n_events


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
    for size in [*range(8, len(whole) - 1, 1997), len(whole) - 1]:
        short = tmp_path / "short.h5"
        short.write_bytes(whole[:size])
        refuse(short, "is not an HDF5 file|cannot be opened")


def test_a_changed_byte_is_seen_or_does_not_matter(log, path, tmp_path):
    """Or else the end of the journal is gone, and with it what it spoke of: the file says so."""
    whole = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    changed, refused, shorter = tmp_path / "changed.h5", 0, 0
    with h5py.File(path, "r") as file:
        place = file["evsim/journal"].id.get_chunk_info(0)
        end = len(file["evsim/journal"])
    positions = [
        *rng.integers(0, len(whole), 150),
        *(place.byte_offset + rng.integers(0, end, 10)),
        *(place.byte_offset + end - rng.integers(1, 40, 5)),
    ]
    for position in positions:
        bad = whole.copy()
        bad[position] ^= 1 << int(rng.integers(8))
        changed.write_bytes(bad)
        try:
            with LogFile(changed) as file:
                opened, complete = file.window(), file.complete
        except LogError:
            refused += 1
            continue
        if opened.equal(log):
            continue
        assert not complete, f"byte {position}"
        shorter += 1
        n = opened.n_steps
        for name in ("cue", "hidden"):
            assert opened[name].events.equal(log[name].events.window(0, n)), f"byte {position}"
    assert refused > 10
    # the last line says only that there is no other; a byte before that is refused
    assert shorter == 0


def test_damage_within_a_journal_is_no_shorter_run(path):
    with h5py.File(path, "r+") as file:
        lines = damaged.journal_lines(file)
        damaged.write_journal(file, [lines[0], lines[1].replace(b"stop", b"step"), *lines[2:]])
    refuse(path, "line 2 of its journal is damaged")


# -- damage ----------------------------------------------------------------------------------------------


def drop_piece(entries):
    entries[1]["pieces"].pop(HIDDEN)


def other_when(entries):
    entries[1]["pieces"][HIDDEN][0][1] += 1


def exchange_ends(entries):
    entries[1]["pieces"][HIDDEN][0][0] = 1


def with_repeated_row(file):
    """The last row of the first block, and again as the first of the second, in the same step."""
    ends = [entry["pieces"][HIDDEN][0][0] for entry in damaged.journal(file)[:2]]
    nodes, ticks = file[f"{HIDDEN}/node_ids"][...], file[f"{HIDDEN}/timestamps"][...]
    ptr = file[f"{HIDDEN}/index/row_ptr"][...]
    nodes[ends[0]], ticks[ends[0]] = nodes[ends[0] - 1], ticks[ends[0] - 1]
    ptr[5] += 1
    damaged.replace(file, f"{HIDDEN}/node_ids", nodes)
    damaged.replace(file, f"{HIDDEN}/timestamps", ticks)
    damaged.replace(file, f"{HIDDEN}/index/row_ptr", ptr)
    edit_journal(lambda entries: entries[1]["pieces"][HIDDEN][0].__setitem__(1, int(ticks[ends[0]])))(file)


def group_for_data(file):
    del file["evsim/journal"]
    file.create_group("evsim/journal")


DAMAGES = {
    "columns of unequal length": (
        lay(f"{HIDDEN}/node_ids", lambda x: x[:-1]),
        r"/spikes/hidden/node_ids has shape \(\d+,\), not",
    ),
    "column with two dimensions": (
        lay(f"{HIDDEN}/value", lambda x: x[:, None]),
        r"has shape \(\d+, 1\), not",
    ),
    "node id out of range": (
        lay(f"{HIDDEN}/node_ids", lambda x: np.where(x == x.max(), 10, x).astype("u2")),
        "'hidden' has an event of node 10, but only 10 nodes",
    ),
    "wide node ids": (lay(f"{HIDDEN}/node_ids", lambda x: x.astype("u4")), "are of dtype uint32"),
    "half precision": (lay(f"{HIDDEN}/value", lambda x: x.astype("f2")), "is of dtype float16"),
    "text for numbers": (lay(f"{HIDDEN}/value", lambda x: x.astype("S8")), r"is of dtype \|S8"),
    "row pointer": (lay(f"{HIDDEN}/index/row_ptr", lambda x: x[::-1]), "index/row_ptr of 'hidden' does not"),
    "row pointer too short": (lay(f"{HIDDEN}/index/row_ptr", lambda x: x[:-1]), r"has shape \(12,\), not"),
    "zero value": (put(f"{HIDDEN}/value", 3, 0), "whose value is 0 or not finite"),
    "infinite value": (put(f"{HIDDEN}/value", 3, np.inf), "whose value is 0 or not finite"),
    "rows out of order": (
        damaged.swap(HIDDEN, ["node_ids"], 0, 1),
        r"in step 10 are not in the order \(lane, unit\)",
    ),
    "repeated row": (with_repeated_row, "not in the order|does not come after the row before it"),
    "edited values": (edit(f"{HIDDEN}/value", 1, 7), r"rows 0 to \d+ of /spikes/hidden/value do not match"),
    "edited later": (edit(f"{HIDDEN}/value", -1, 7), r"rows \d\d+ to \d+ of /spikes/hidden/value do not"),
    "edited nodes": (edit(f"{HIDDEN}/node_ids", 1, 9), r"rows 0 to \d+ of /spikes/hidden/node_ids do not"),
    "edited pointer": (edit(f"{HIDDEN}/index/row_ptr", 3, 0), r"/spikes/hidden/index/row_ptr do not match"),
    "edited gradient": (edit(f"{HIDDEN}/gradient", 3, 0), r"rows 0 to \d+ of /spikes/hidden/gradient do"),
    "edited state": (edit("report/answer/data", (7, 1), 0), "rows 6 to 12 of /report/answer/data do not"),
    "edited initial": (edit(f"{MEMBERS}/hidden/initial/h", 0, 0), "does not match its checksum"),
    "edited weight": (edit("evsim/parameters/cue->hidden.weight", 0, 0), "does not match its checksum"),
    "carried pointer": (
        lay(f"{MEMBERS}/hidden/carried/ptr", lambda x: x + 1),
        "row pointer of what 'hidden' carries",
    ),
    "carried unit": (lay(f"{MEMBERS}/hidden/carried/unit", lambda x: x + 5), "what 'hidden' carries: "),
    "lengths": (edit_last(lengths=[17, 12]), "has lengths from 12 to 17 in 12 steps"),
    "lengths of other lanes": (edit_last(lengths=[12]), "has no lengths of 2 lanes"),
    "lengths are no numbers": (edit_last(lengths=["a", "b"]), "has no lengths of 2 lanes"),
    "initial shape": (
        lay(f"{MEMBERS}/hidden/initial/h", lambda x: x.T),
        r"has shape \(5, 2\), not \(2, 5\)",
    ),
    "report shape": (lay("report/answer/data", lambda x: x[:-1]), r"has shape \(11, 4\), not \(12, 4\)"),
    "report of what": (set_attribute("report/answer", "state", np.bytes_(b"w")), "is of state 'w'"),
    "no row pointer": (drop(f"{HIDDEN}/index/row_ptr"), "lacks /spikes/hidden/index/row_ptr"),
    "no index": (drop(f"{HIDDEN}/index"), "lacks /spikes/hidden/index"),
    "no values": (drop(f"{HIDDEN}/value"), "lacks /spikes/hidden/value"),
    "no events": (drop(HIDDEN), "population 'hidden' lacks its events"),
    "no spikes": (drop("spikes"), "lacks /spikes"),
    "no evsim": (drop("evsim"), "lacks /evsim"),
    "no network": (drop("evsim/network"), "lacks /evsim/network"),
    "no journal": (drop("evsim/journal"), "lacks /evsim/journal"),
    "not described": (drop(f"{MEMBERS}/hidden"), "events or states of 'hidden', but does not describe"),
    "more events": (lambda file: file.create_group("spikes/alien"), "of 'alien'"),
    "readout with events": (lambda file: file.create_group("spikes/answer"), "'answer' must not have events"),
    "group for data": (group_for_data, "is a Group"),
    "no checksum": (
        damaged.drop_attribute(f"{MEMBERS}/hidden/initial/h", "crc32"),
        "lacks the number 'crc32'",
    ),
    "no dt": (damaged.drop_attribute("evsim", "dt_ms"), "lacks the number 'dt_ms'"),
    "negative dt": (set_attribute("evsim", "dt_ms", -1.0), "steps of -1.0 ms"),
    "dt is text": (set_attribute("evsim", "dt_ms", "1"), "lacks the number 'dt_ms'"),
    "other dt": (set_attribute("evsim", "dt_ms", 0.25), "disagree about units, lanes and dt"),
    "no clock": (damaged.drop_attribute("evsim", "clock"), "lacks the text 'clock'"),
    "other clock": (set_attribute("evsim", "clock", np.bytes_(b"sun")), "has the clock 'sun'"),
    "negative start": (set_attribute("evsim", "start_step", np.int64(-1)), "from -1, in steps"),
    "other start": (
        set_attribute("evsim", "start_step", np.int64(2**40)),
        "does not follow on the one before",
    ),
    "kind is a number": (set_attribute(f"{MEMBERS}/hidden", "kind", 3), "lacks the text 'kind'"),
    "kind of variable length": (set_attribute(f"{MEMBERS}/hidden", "kind", "EGRU"), "lacks the text 'kind'"),
    "kind is not UTF-8": (set_attribute(f"{MEMBERS}/hidden", "kind", np.bytes_(b"\xff")), "cannot be read"),
    "no units": (set_attribute(f"{MEMBERS}/hidden", "n_units", np.int64(0)), "claims 0 units"),
    "newer version": (set_attribute("/", "evsim_log_version", [3, 0]), r"has log version 3\.0, not 2\.x"),
    "older version": (set_attribute("/", "evsim_log_version", [1, 1]), r"has log version 1\.1, not 2\.x"),
    "version is text": (set_attribute("/", "evsim_log_version", "x"), "is SONATA, but not an event log"),
    "soft link": (damaged.soft_link(HIDDEN), "/spikes/hidden is a link"),
    "soft link to the journal": (damaged.soft_link("evsim/journal"), "/evsim/journal is a link"),
    "external link": (damaged.external_link("evsim/journal"), "/evsim/journal is a link"),
    "external values": (damaged.external_link(f"{HIDDEN}/value"), "/spikes/hidden/value is a link"),
    "external report": (damaged.external_link("report"), "/report is a link"),
    "external storage": (
        damaged.external_storage(f"{MEMBERS}/hidden/initial/h"),
        "keeps its data in another file",
    ),
    "external column": (damaged.external_storage(f"{HIDDEN}/value"), "keeps its data in another file"),
    "virtual data": (
        damaged.virtual_storage(f"{MEMBERS}/hidden/initial/h"),
        "keeps its data in another file",
    ),
    "virtual column": (damaged.virtual_storage(f"{HIDDEN}/value"), "keeps its data in another file"),
    "absurd column": (damaged.absurd(f"{HIDDEN}/value", (10**15,), "f4", (65536,)), "checksum|not hold"),
    "absurd chunks": (
        damaged.absurd(f"{HIDDEN}/value", (2**31,), "f4", (2**29,)),
        "is stored in chunks of|does not hold",
    ),
    "absurd journal": (damaged.absurd("evsim/journal", (10**15,), "u1", (65536,)), "claims 1000000000000000"),
    "absurd parameter": (
        damaged.absurd("evsim/parameters/huge", (10**7, 10**7), "f4"),
        "bytes, which the file does not hold",
    ),
    "absurd lanes": (
        set_attribute("evsim", "n_lanes", np.int64(2**62)),
        "claims 4611686018427387904 lanes",
    ),
    "many lanes": (set_attribute("evsim", "n_lanes", np.int64(2**30)), "has no lengths of"),
    "absurd carry": (
        set_attribute(f"{MEMBERS}/hidden/carried", "n_steps", np.int64(2**61)),
        "more than the memory of this machine|does not hold",
    ),
    "negative carry": (
        set_attribute(f"{MEMBERS}/hidden/carried", "n_steps", np.int64(-1)),
        "carries -1 steps",
    ),
    "deep JSON": (damaged.text("evsim/network", b'{"a":' * 10**5 + b"1" + b"}" * 10**5), "recursion"),
    "JSON list": (damaged.text("evsim/network", b"[1]"), "is no JSON object"),
    "JSON is an array": (lay("evsim/network", lambda x: np.zeros(3)), "is no text"),
    "parameter is a group": (lambda file: file.create_group("evsim/parameters/x"), "is a Group"),
    # of the journal
    "a line is missing": (edit_journal(lambda entries: [entries[0], *entries[2:]]), "is entry 2"),
    "a line twice": (edit_journal(lambda entries: [*entries[:2], *entries[1:]]), "is entry 1"),
    "lines exchanged": (edit_journal(lambda entries: [entries[1], entries[0]]), "is entry 1"),
    "a line is no object": (
        edit_journal(lambda entries: [*entries, [1]]),
        "a line of its journal is no entry",
    ),
    "no lines": (lambda file: damaged.grown(file, "evsim/journal", np.zeros(0, "u1")), "holds nothing yet"),
    "deep line": (
        lambda file: damaged.write_journal(
            file, [b"%08x " % zlib.crc32(deep := b"[" * 10**5 + b"]" * 10**5) + deep]
        ),
        "recursion",
    ),
    "backwards": (edit_last(stop_step=14), "line 4 of its journal does not follow on the one before"),
    "stop is a float": (edit_last(stop_step=22.5), "does not follow on the one before"),
    "stop is missing": (edit_journal(lambda entries: entries[0].pop("stop_step") and None), "cannot be read"),
    "beyond its rows": (edit_last(stop_step=40, lengths=[12, 12]), "row_ptr has 13 rows in 30 steps"),
    "counters are a list": (edit_last(counters=[]), "does not follow on the one before"),
    "pieces are a list": (edit_last(pieces=[]), "does not follow on the one before"),
    "pieces are numbers": (edit_last(pieces={HIDDEN: 3}), "line 4 of its journal is damaged"),
    "pieces of no length": (edit_last(pieces={HIDDEN: [[1]]}), "cannot be read|damaged where it speaks of"),
    "pieces are words": (edit_last(pieces={HIDDEN: [["a", 1, 2, 3, 4]]}), "cannot be read|damaged where"),
    "endless piece": (edit_last(pieces={HIDDEN: [[10**400, 1, 2, 3, 4]]}), "cannot be read|damaged where"),
    "huge piece": (
        edit_last(pieces={HIDDEN: [[10**14, 21, 2, 3, 4]]}),
        "blocks of /spikes/hidden do not fit",
    ),
    "a piece is missing": (edit_journal(drop_piece), "do not match their checksum|do not fit|does not fit"),
    "ends exchanged": (edit_journal(exchange_ends), "pieces of /spikes/hidden do not follow on one another"),
    "blocks out of order": (
        edit_journal(lambda entries: entries[1]["pieces"][HIDDEN][0].__setitem__(1, 30)),
        "blocks of /spikes/hidden are not in order of time",
    ),
}

#: What no reading of a log would notice, because it is for others, or for `rows`.
UNNOTICED = {
    "step out of range": (
        lay(f"{HIDDEN}/timestamps", lambda x: x + np.uint32(7)),
        "rows 0 to .* of 'hidden': timestamps and index/row_ptr do not fit",
    ),
    "float times": (lay(f"{HIDDEN}/timestamps", lambda x: x.astype("f8")), "is of dtype float64"),
    "edited times": (edit(f"{HIDDEN}/timestamps", 3, 99), "rows 0 to .* of /spikes/hidden/timestamps do not"),
    "no times": (drop(f"{HIDDEN}/timestamps"), "lacks /spikes/hidden/timestamps"),
    "other time of a block": (edit_journal(other_when), "the journal has another time for the first of them"),
    "counts": (
        lay(f"{HIDDEN}/index/counts", lambda x: x[::-1]),
        "rows 0 to .* of 'hidden': index/counts does",
    ),
    "edited counts": (edit(f"{HIDDEN}/index/counts", 0, 0), "/spikes/hidden/index/counts do not match"),
    "fewer counts": (lay(f"{HIDDEN}/index/counts", lambda x: x[:-1]), r"counts has shape \(2, 10\), not"),
    "tally": (
        lay(f"{HIDDEN}/index/unit_events", lambda x: np.roll(x, 1)),
        "index/unit_events of 'hidden' are not the counts of its events",
    ),
    "edited tally": (edit(f"{HIDDEN}/index/unit_events", 0, 99), "unit_events do not match"),
    "no tally": (drop(f"{HIDDEN}/index/unit_events"), "lacks /spikes/hidden/index/unit_events"),
    "edited checkpoint": (
        edit("evsim/checkpoints/hidden/h", 1, 0),
        "/evsim/checkpoints/hidden/h do not match",
    ),
    "checkpoints out of order": (lay("evsim/checkpoints/step", lambda x: x[::-1]), "checkpoints that do not"),
    "nodes of a report": (edit("report/answer/mapping/node_ids", 1, 3), "node_ids does not list the nodes"),
    "pointers of a report": (edit("report/answer/mapping/index_pointers", 1, 3), "does not list the nodes"),
    "time of a report": (edit("report/answer/mapping/time", 2, 3.0), "mapping/time has"),
    "end of a report": (edit("report/answer/mapping/time", 1, 3.0), "mapping/time has"),
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
    if "checkpoint" not in name:
        assert EventLog.open(path).equal(log)
    find(path, match)


@pytest.mark.parametrize("column", ["value", "node_ids"])
def test_a_check_finds_wrong_counts_beside_a_damaged_block(column, path):
    """Of a block whose nodes cannot be read the index still knows the events of each group of nodes."""
    problem = "index/unit_events of 'hidden' are not the counts of its events"
    with h5py.File(path, "r+") as file:
        file[f"{HIDDEN}/{column}"][-1] += 1
    with LogFile(path) as file:
        assert problem not in file.check()
        counts = file["hidden"].unit_events.ravel().copy()
    full, empty = counts.argmax(), (counts + 1).argmin()
    counts[[full, empty]] += [-1, 1]
    with h5py.File(path, "r+") as file:
        lay(f"{HIDDEN}/index/unit_events", lambda x: counts)(file)
    with LogFile(path) as file:
        found = file.check()
    assert problem in found
    assert len(found) == 2


def test_a_check_lists_all_that_is_wrong(path):
    with h5py.File(path, "r+") as file:
        file[f"{HIDDEN}/value"][0] = 7
        file[f"{HIDDEN}/value"][-1] = 7
        file["spikes/cue/node_ids"][0] += 1
        file["report/answer/data"][0] = 7
        del file["evsim/network"]
    with LogFile(path) as file:
        found = file.check()
        n = file["hidden"].n_events
        ends = {name: file[name].block_ends for name in ("cue", "hidden")}
    assert found == [
        "lacks /evsim/network",
        f"rows 0 to {ends['cue'][0]} of /spikes/cue/node_ids do not match their checksum",
        f"rows 0 to {ends['hidden'][0]} of /spikes/hidden/value do not match their checksum",
        f"rows {ends['hidden'][1]} to {n} of /spikes/hidden/value do not match their checksum",
        "rows 0 to 5 of /report/answer/data do not match their checksum",
    ]


def test_copies_of_states_in_two_precisions_must_agree(tmp_path):
    path = run_in_steps(dtype=np.float64).save(tmp_path / "run.h5")
    with h5py.File(path, "r+") as file:
        put("report/answer/data", (3, 1), 1.5)(file)
    find(path, "samples 0 to 12 of 'answer': /report/answer/data is not data64 in single precision")


def test_a_window_does_not_read_what_is_damaged_elsewhere(log, path):
    with h5py.File(path, "r+") as file:
        file[f"{HIDDEN}/value"][-1] = 7
    with LogFile(path) as file:
        assert file.steps(0, 6)["hidden"].events.equal(log["hidden"].events.window(0, 6))
        with pytest.raises(LogError, match="do not match their checksum"):
            file.steps(0, 7)


def test_a_file_that_may_not_be_read(path):
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("permissions do not bind this user")
    refuse(path, "cannot be read")


def test_the_description_is_json(log, path):
    with h5py.File(path, "r") as file:
        for name in ("network", "provenance"):
            text = file[f"evsim/{name}"][()]
            assert json.loads(text) == getattr(log, name)
            assert file[f"evsim/{name}"].attrs["crc32"] == zlib.crc32(text)
