"""Event logs in memory and on disk; the files are looked at with plain h5py, not with our code."""

import json
import os
import re
import stat

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
