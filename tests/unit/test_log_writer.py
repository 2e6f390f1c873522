"""Writing event logs window by window, and reading them meanwhile; full disks and killed processes."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import h5py
import kill_writers
import numpy as np
import pytest

from evsim.errors import LogError
from evsim.eventlog import EventLog
from evsim.log_file import LogFile
from evsim.log_writer import LogWriter
from oracles.log_windows import run_in_steps, run_in_time, small_blocks, steps_of, times_of, windows_of

TESTS = Path(__file__).parents[1]
IN_STEPS, IN_TIME = (0, 3, 3, 7, 12), (4.0, 8.0, 8.0, 13.5, 20.0)


def run_of(kind, **options):
    return (run_in_steps if kind == "steps" else run_in_time)(**options)


def cut(log):
    return windows_of(log, IN_STEPS if isinstance(log, EventLog) else IN_TIME)


@pytest.fixture(params=["steps", "time"])
def log(request):
    return run_of(request.param)


# -- what is written -------------------------------------------------------------------------------------


def test_nothing_is_there_before_the_first_window(log, tmp_path):
    path = tmp_path / "run.h5"
    writer = LogWriter(path)
    assert not path.exists()
    writer.flush()
    writer.close()
    writer.close()
    assert os.listdir(tmp_path) == []
    with pytest.raises(LogError, match=r"run\.h5': is closed; open another one"):
        writer.append(log)


def test_a_closed_writer_takes_no_more(log, tmp_path):
    first, *others = cut(log)
    with LogWriter(tmp_path / "run.h5") as writer:
        writer.append(first)
    writer.close()
    writer.flush()
    with pytest.raises(LogError, match="is closed"):
        writer.append(others[0])
    assert writer.n_events == sum(first[name].n_events for name in first)
    with LogFile(tmp_path / "run.h5") as file:
        assert file.complete
        assert file.check() == []
        assert file.window()["hidden"].events.equal(first["hidden"].events)


def test_an_exception_keeps_what_was_appended(log, tmp_path):
    def simulate():
        with LogWriter(tmp_path / "run.h5") as writer:
            for window in cut(log)[:3]:
                writer.append(window)
            raise KeyError("of the simulation")

    with pytest.raises(KeyError):
        simulate()
    with LogFile(tmp_path / "run.h5") as file:
        assert file.stop == (log.dt * 17 if log.dt else 13.5)
        assert file.check() == []


def test_what_was_appended_may_change_later(tmp_path):
    """Nothing of a log is kept: its arrays may be those that the next window is computed in."""
    for kind in ("steps", "time"):
        log, path = run_of(kind, gradient=True), tmp_path / f"{kind}.h5"
        with LogWriter(path, checkpoints=True) as writer:
            for window in cut(log):
                copied = window["hidden"].events
                for column in ("value", "unit"):
                    object.__setattr__(copied, column, getattr(copied, column).copy())
                writer.append(window)
                copied.value[:] = 7
                copied.unit[:] = 0
                for array in (window["hidden"].gradient, *window["hidden"].initial.values()):
                    array[:] = 7
        with LogFile(path) as file:
            assert file["hidden"].values(slice(0, 5)).tolist() == log["hidden"].value[:5].tolist()
            np.testing.assert_array_equal(file["hidden"].gradients(slice(0, 5)), log["hidden"].gradient[:5])
            assert file.check() == []


def test_an_existing_file_is_replaced_only_if_allowed(log, tmp_path):
    path = tmp_path / "run.h5"
    path.write_text("mine")
    with pytest.raises(LogError, match="exists already; give another name or overwrite=True"):
        LogWriter(path)
    with pytest.raises(LogError, match="does not exist; make it first"):
        LogWriter(tmp_path / "none" / "run.h5")
    with LogWriter(path, overwrite=True) as writer:
        assert path.read_text() == "mine"  # until there is something else
        writer.append(cut(log)[0])
    with LogFile(path) as file:
        assert file.complete
    assert os.listdir(tmp_path) == ["run.h5"]


def test_a_file_that_appears_meanwhile_is_not_replaced(log, tmp_path):
    path = tmp_path / "run.h5"
    writer = LogWriter(path)
    path.write_text("mine")
    with pytest.raises(LogError) as caught:
        writer.append(cut(log)[0])
    assert str(caught.value) == f"log '{path}': exists already; give another name or overwrite=True"
    assert path.read_text() == "mine"
    assert os.listdir(tmp_path) == ["run.h5"]


def test_what_cannot_be_described_leaves_nothing_behind(tmp_path):
    log = run_in_steps()
    log.network["module"] = os
    with pytest.raises(LogError, match=r"^log '.*run\.h5': network cannot be kept"), small_blocks():
        LogWriter(tmp_path / "run.h5").append(log)
    assert os.listdir(tmp_path) == []


def refusals(log):
    """Windows that do not follow on the first of `cut`, and what is said of them."""
    third = cut(log)[2]
    other = run_of("time" if isinstance(log, EventLog) else "steps")
    fewer = run_of("steps" if isinstance(log, EventLog) else "time", n_units=4)
    lanes = run_of("steps" if isinstance(log, EventLog) else "time", n_lanes=3)
    yield cut(other)[1], "does not fit it; append windows of one run"
    yield cut(lanes)[1], "does not fit it; append windows of one run"
    yield cut(fewer)[1], r"holds .*'hidden': .*, not .*; append windows of one run"
    yield cut(log)[3], "the window starts at .*, the one before ended at .*; run with carry=True"
    yield cut(log)[0], "the window starts at .*, the one before ended at"
    third["answer"].tape = None
    if isinstance(log, EventLog):
        yield third, r"the window has no states of 'answer', the first had \['state'\]; record them"
        yield cut(run_in_steps(dtype=np.float64))[1], "sends float64, before it was float32"
    else:
        for name in ("hidden", "answer"):
            third[name].state = None
        yield third, r"the window has \['integral', 'square'\] of '\w+', the first had \['integral', 'sq"
        off = run_in_time(samples=(*np.arange(4.5, 8.1, 0.5), 8.7, 9.2))
        yield times_of(off, 8.0, 13.5), "a sample at 8.7 ms does not go on with the spacing of 0.5 ms"
    marked = run_of("steps" if isinstance(log, EventLog) else "time", gradient=True)
    yield cut(marked)[2], "some windows of 'hidden' have a gradient and others do not"


def test_windows_that_do_not_follow_are_refused_and_nothing_is_lost(log, tmp_path):
    path, windows = tmp_path / "run.h5", cut(log)
    with LogWriter(path) as writer:
        writer.append(windows[0])
        for window, match in refusals(log):
            with pytest.raises(LogError, match=match) as caught:
                writer.append(window)
            assert str(caught.value).startswith(f"log '{path}': ")
            assert "\n" not in str(caught.value)
        for window in windows[1:]:
            writer.append(window)
    assert EventLog.open(path).equal(log)


def test_lanes_that_have_ended_get_no_more_steps(tmp_path):
    log = run_in_steps(lengths=[12, 5])
    with LogWriter(tmp_path / "run.h5") as writer:
        writer.append(steps_of(log, 0, 7))
        with pytest.raises(LogError, match="lane 1 ended after 5 steps, but has more in the window"):
            writer.append(steps_of(run_in_steps(), 7, 12))
        writer.append(steps_of(log, 7, 12))
    assert EventLog.open(tmp_path / "run.h5").equal(log)


def test_a_window_may_be_without_samples(tmp_path):
    log = run_in_time(samples=(4.5, 5.0, 5.5))
    with LogWriter(tmp_path / "run.h5") as writer:
        for window in windows_of(log, [4.0, 6.0, 9.0, 20.0]):
            assert (window["hidden"].state is None) == (window.start > 4.0)
            writer.append(window)
    assert EventLog.open(tmp_path / "run.h5").equal(log)


def test_a_long_run_stays_on_its_grid(tmp_path):
    """Samples a ms apart after 1000 s: their spacing as the first two have it is off by what is rounded."""
    samples = 1e6 + np.arange(1, 30001) / 3
    log = run_in_time(start=1e6, stop=1.02e6, samples=samples, n_lanes=1, n_units=1)
    with LogWriter(tmp_path / "run.h5") as writer:
        for window in windows_of(log, [1e6, 1e6 + 0.7, 1e6 + 1000.0, 1e6 + 9000.0, 1.02e6]):
            writer.append(window)
    with LogFile(tmp_path / "run.h5") as file:
        assert file["answer"].state()[2].shape == (30000, 1, 2)
        assert file.check() == []


def test_all_is_on_file_every_so_many_rows(log, tmp_path):
    with small_blocks(flush_rows=20), LogWriter(tmp_path / "run.h5") as writer:
        on_file = []
        for window in cut(log):
            writer.append(window)
            on_file.append(writer.n_events)
    assert 0 < on_file[2] <= on_file[3]
    assert EventLog.open(tmp_path / "run.h5").equal(log)


# -- looking on ------------------------------------------------------------------------------------------


def test_a_file_that_is_being_written(log, tmp_path):
    path, windows = tmp_path / "run.h5", cut(log)
    with LogWriter(path, states=True) as writer:
        writer.append(windows[0])
        with pytest.raises(LogError, match=r"holds nothing yet: .*; wait for what writes it"):
            LogFile(path)
        writer.flush()
        with LogFile(path) as one, LogFile(path) as other:
            assert not one.complete
            assert not one.refresh()
            writer.append(windows[2])
            assert not one.refresh()
            writer.flush()
            stop = windows[2].start_step + windows[2].n_steps if log.dt else windows[2].stop
            assert one.refresh()
            assert one.stop == stop * (log.dt or 1)
            assert other.stop < one.stop  # it has not looked
            np.testing.assert_array_equal(other.window()["hidden"].value, windows[0]["hidden"].value)
            assert EventLog.open(path)["hidden"].n_events == one["hidden"].n_events
            assert one.check() == other.check() == []
            writer.append(windows[3])
            writer.close()
            assert one.refresh()
            assert one.complete
            assert one.window().equal(log)
            assert other.refresh()
            assert other.window().equal(log)
            assert one["hidden"].unit_events.sum() == log["hidden"].n_events
    with LogFile(path) as file:
        assert file.complete
        assert file.window().equal(log)


def test_a_population_that_sends_later(tmp_path):
    log = run_in_steps()
    quiet = log["cue"].events.to_dense()
    quiet[:7] = 0
    log["cue"].events = type(log["cue"].events).from_dense(quiet, np.float32)
    with LogWriter(tmp_path / "run.h5") as writer:
        writer.append(steps_of(log, 0, 7))
        writer.flush()
        with LogFile(tmp_path / "run.h5") as file:
            assert file["cue"].n_events == 0
            assert len(file["cue"].table()) == 0
            writer.append(steps_of(log, 7, 12))
            writer.flush()
            assert file.refresh()
            np.testing.assert_array_equal(file["cue"].table().value, log["cue"].value)
            assert file.window()["cue"].events.equal(log["cue"].events)


def test_a_file_that_is_replaced_meanwhile(log, tmp_path):
    path, windows = tmp_path / "run.h5", cut(log)
    with LogWriter(path) as writer:
        writer.append(windows[0])
        writer.flush()
        with LogFile(path) as file:
            with LogWriter(path, overwrite=True) as another:
                another.append(windows[0])
                another.append(windows[2])
            writer.append(windows[2])
            writer.append(windows[3])
            writer.flush()
            assert file.refresh()  # that of the first writer, which nobody else can find any more
            np.testing.assert_array_equal(file["hidden"].table().value, log["hidden"].value)
    with LogFile(path) as file:
        assert file.n_steps == 7 or file.stop == 13.5
        assert file.check() == []


CHILD = """
    import sys
    sys.path.insert(0, {tests!r})
    from evsim.log_writer import LogWriter
    from oracles.log_windows import run_in_steps, run_in_time, windows_of
    log = run_in_{kind}(seed=5)
    with LogWriter({path!r}) as writer:
        for window in windows_of(log, {marks}):
            writer.append(window)
            writer.flush()
            print("on file", flush=True)
            sys.stdin.readline()
"""


@pytest.mark.parametrize("kind", ["steps", "time"])
@pytest.mark.parametrize("killed", [False, True])
def test_a_file_that_another_process_writes(kind, killed, tmp_path):
    log, path = run_of(kind, seed=5), tmp_path / "run.h5"
    marks = IN_STEPS if kind == "steps" else IN_TIME
    code = textwrap.dedent(CHILD.format(tests=str(TESTS), kind=kind, path=str(path), marks=marks))
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    file = None
    for k in range(4):
        assert child.stdout.readline() == "on file\n"
        file = file or LogFile(path)
        assert file.refresh() == (k > 0)
        expected = (steps_of if kind == "steps" else times_of)(log, marks[0], marks[k + 1])
        for name in ("cue", "hidden"):
            assert file.window()[name].events.equal(expected[name].events)
            assert EventLog.open(path)[name].events.equal(expected[name].events)
        if killed and k == 2:
            child.kill()
            break
        child.stdin.write("\n")
        child.stdin.flush()
    child.communicate(timeout=60)
    assert child.returncode == (-signal.SIGKILL if killed else 0)
    assert file.refresh() != killed
    assert file.complete != killed
    file.close()
    with LogFile(path) as file:
        assert file.check() == []
        assert file.complete != killed
        with pytest.raises(LogError, match="exists already"):
            file.copy(path)
        file.copy(path, overwrite=True)
    with LogFile(path) as file:
        assert file.complete
        assert file.check() == []
        assert file.window()["hidden"].events.equal(expected["hidden"].events)
    assert os.listdir(tmp_path) == ["run.h5"]


# -- copies ----------------------------------------------------------------------------------------------


def test_a_copy_keeps_everything(tmp_path):
    for kind in ("steps", "time"):
        log, path = run_of(kind, gradient=True), tmp_path / f"{kind}.h5"
        options = {"states": True, "checkpoints": True} if kind == "steps" else {}
        with LogWriter(path, **options) as writer:
            for window in cut(log):
                writer.append(window)
        with LogFile(path) as file, small_blocks():
            assert file.copy(tmp_path / "copy.h5", overwrite=True) == tmp_path / "copy.h5"
            with LogFile(tmp_path / "copy.h5") as copied:
                assert copied.window().equal(log)
                assert copied.check() == []
                np.testing.assert_array_equal(copied.checkpoints, file.checkpoints)
                np.testing.assert_array_equal(copied["hidden"].state()[2], file["hidden"].state()[2])
                if kind == "steps":
                    part, mine = copied.steps(3, 7), file.steps(3, 7)
                    np.testing.assert_array_equal(part["hidden"].initial["h"], mine["hidden"].initial["h"])
            file.copy(tmp_path / "bare.h5", overwrite=True, gradients=False)
            with LogFile(tmp_path / "bare.h5") as copied:
                assert copied["hidden"].columns == ("time", "lane", "unit", "value")
    assert sorted(os.listdir(tmp_path)) == ["bare.h5", "copy.h5", "steps.h5", "time.h5"]


def test_a_damaged_file_is_not_copied(log, tmp_path):
    path = log.save(tmp_path / "run.h5")
    with h5py.File(path, "r+") as file:
        file["spikes/hidden/value"][3] = 9
    with LogFile(path) as file, pytest.raises(LogError, match="do not match their checksum"):
        file.copy(tmp_path / "copy.h5")
    assert os.listdir(tmp_path) == ["run.h5"]


def killed_file(path):
    """What a killed writer has left."""
    log = run_in_steps(dt=1.0)
    child = os.fork()
    if child == 0:
        writer = LogWriter(path)
        writer.append(steps_of(log, 0, 7))
        writer.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    return steps_of(log, 0, 7)


def test_evsim_repair(tmp_path):
    path, out = tmp_path / "run.h5", tmp_path / "whole.h5"
    killed_file(path)
    before = path.read_bytes()
    command = [sys.executable, "-m", "evsim", "repair", str(path), "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    with LogFile(out) as file:
        assert file.complete
        n_events = sum(p.n_events for p in file.populations.values())
    assert done.stdout == f"{out}: 10 to 17 ms, {n_events} events\n"
    assert path.read_bytes() == before
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert again.stderr.startswith(f"evsim: log '{out}': exists already")


def test_libsonata_reads_a_repaired_file(tmp_path):
    libsonata = pytest.importorskip("libsonata")
    path, out = tmp_path / "run.h5", tmp_path / "whole.h5"
    log = killed_file(path)
    with pytest.raises(Exception, match=r"."):
        libsonata.SpikeReader(str(path))["hidden"].get()
    with LogFile(path) as file:
        file.copy(out)
    spikes = libsonata.SpikeReader(str(out))
    assert sorted(spikes.get_population_names()) == ["cue", "hidden"]
    read = spikes["hidden"].get_dict()
    hidden = log["hidden"]
    np.testing.assert_array_equal(read["timestamps"], hidden.time)
    np.testing.assert_array_equal(read["node_ids"], hidden.lane * 5 + hidden.unit)
    report = libsonata.SomaReportReader(str(out))["answer"].get()
    np.testing.assert_array_equal(report.data.reshape(7, 2, 2), log["answer"].state)
    np.testing.assert_allclose(report.times, np.arange(10, 17))


# -- full disks, kills -----------------------------------------------------------------------------------

FULL = """
    import resource, sys
    sys.path.insert(0, {tests!r})
    import evsim.growing_log
    from evsim.errors import LogError
    from evsim.log_writer import LogWriter
    import kill_writers
    {before}
    windows = kill_writers.{kind}(0, 3000, 0.5)
    writer = LogWriter({path!r})
    try:
        for k in range(10000):
            writer.append(windows.window(k))
            writer.flush()
    except LogError as error:
        print(k, error)
    else:
        raise SystemExit("all of it fitted")
    try:
        writer.append(windows.window(k))
    except LogError as error:
        print(error)
    writer.close()
"""


def fill(kind, path, before):
    """Write in a process of its own until the disk is full; what was left must be right."""
    code = textwrap.dedent(FULL.format(tests=str(TESTS), kind=kind, path=str(path), before=before))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    k, _, problem = first.partition(" ")
    assert problem.startswith(f"log '{path}': cannot be written: ")
    assert problem.endswith("; give another place")
    assert second == f"log '{path}': is closed; open another one"
    assert int(k) > 3
    windows = getattr(kill_writers, kind)(0, 3000, 0.5)
    with LogFile(path) as file:
        assert not file.complete
        assert windows.check(file) == int(k)
        assert file.check() == []
        n_events = sum(p.n_events for p in file.populations.values())
        assert f"its first {n_events} events are on file" in problem
    assert os.listdir(path.parent) == ["run.h5"]


@pytest.mark.parametrize("kind", ["Steps", "Timed"])
def test_a_limit_of_the_size_of_files(kind, tmp_path):
    pytest.importorskip("resource")
    fill(kind, tmp_path / "run.h5", "resource.setrlimit(resource.RLIMIT_FSIZE, (2 * 10**7, 2 * 10**7))")


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 12 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    made = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if not made or made.returncode:
        pytest.skip("this user may not mount a small disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("kind", ["Steps", "Timed"])
def test_a_full_disk(kind, small_disk):
    fill(kind, small_disk / "run.h5", "")


@pytest.mark.parametrize("kind", ["Steps", "Timed"])
def test_a_full_disk_that_is_noticed_too_late(kind, small_disk):
    """The place that was set aside is not there after all, and a write of HDF5 fails."""
    fill(kind, small_disk / "run.h5", "evsim.growing_log.reserve = lambda file, n_bytes: None")


def test_a_disk_without_any_room(small_disk):
    log = run_in_steps()
    (small_disk / "rest").write_bytes(bytes(int(11.5 * 2**20)))
    for write in (LogWriter(small_disk / "run.h5").append, lambda log: log.save(small_disk / "run.h5")):
        with pytest.raises(LogError, match=r"^log '.*run\.h5': cannot be written: .*No space left"):
            write(log)
        assert os.listdir(small_disk) == ["rest"]


@pytest.mark.parametrize("replaced", [False, True])
def test_a_disk_with_room_for_the_description_only(replaced, tmp_path, monkeypatch):
    """The first window does not fit: no file is left that could not be read."""
    log, path = run_in_steps(), tmp_path / "run.h5"

    def no_room(file, n_bytes):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    writer = LogWriter(path)
    writer.append(log)
    assert path.exists()
    if replaced:
        path.unlink()
        path.write_text("of somebody else")
    monkeypatch.setattr("evsim.growing_log.reserve", no_room)
    with pytest.raises(LogError, match=r"run\.h5': cannot be written: .*No space left"):
        writer.flush()
    assert path.exists() == replaced
    with pytest.raises(LogError, match="is closed"):
        writer.append(log)
    writer.close()
    assert path.exists() == replaced


def test_killed_writers(tmp_path):
    """A few; ``python tests/kill_writers.py`` kills more."""
    for k, (name, (kind, *sizes)) in enumerate(kill_writers.RUNS.items()):
        windows, longest = kind(0, *sizes), 0.4
        path = tmp_path / f"{name}.h5"
        told, found = kill_writers.kill_one(windows, path, random.Random(k).randrange(10**6), longest)
        assert found >= told
        path.with_name("copy.h5").unlink(missing_ok=True)
