"""Checkpoints: what goes in comes out bit for bit, bad files are refused, and no kill leaves half of one."""

import json
import random
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

from evsim.checkpoint import Checkpoint
from evsim.errors import CheckpointError, EvsimError
from evsim.models import EGRU, EventSource, LeakyReadout
from evsim.network import Network
from evsim.simulation import Simulation

NAMES = ("hidden.bias", "cue->hidden.weight", "mean/cue->hidden.weight", "hidden.recurrent_bias", "a-b_c>d")


def tricky(dtype, shape):
    """Numbers whose bits are easily lost."""
    special = [0.1, -0.0, np.nan, np.inf, -np.inf, np.finfo(dtype).tiny / 4, np.finfo(dtype).max, 1 / 3]
    return np.resize(np.array(special, dtype), shape)


def same_bits(left, right):
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def example():
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=(3, 4)).astype("float32") for name in NAMES}
    return Checkpoint(arrays, arrays, arrays | {"n_steps": np.array(7)}, {"epochs": [{"loss": 0.1}]})


def network(units=5):
    net = Network(seed=3)
    net.add(EventSource(2, name="cue"))
    net.add(EGRU(units, name="hidden"))
    net.add(LeakyReadout(2, name="answer"))
    net.connect("cue", "hidden")
    net.connect("hidden", "hidden")
    net.connect("hidden", "answer")
    return net


def values(net):
    return {name: p.values.copy() for name, p in net.parameters().items()}


def bits(net):
    return {name: p.values.tobytes() for name, p in net.parameters().items()}


def refused(caught, *words):
    """One line that names the object and the remedy."""
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.remedy
    for word in words:
        assert str(word) in message, message


class TestRoundTrip:
    @pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 4), (0,), (2, 0, 3)])
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_every_bit_returns(self, tmp_path, dtype, shape):
        arrays = {name: tricky(dtype, shape) for name in NAMES}
        Checkpoint(arrays, arrays, arrays).save(tmp_path / "c.h5")
        found = Checkpoint.open(tmp_path / "c.h5")
        for part in (found.parameters, found.best, found.optimizer):
            assert set(part) == set(NAMES)
            assert all(same_bits(part[name], arrays[name]) for name in NAMES)
            assert all(array.flags.writeable and array.flags.c_contiguous for array in part.values())

    def test_integers_and_strided_arrays(self, tmp_path):
        array = np.arange(12.0).reshape(3, 4)
        parameters = {
            "n_steps": np.array(2**53 + 1),
            "t": array.T,
            "s": array[::2, ::-1],
            "b": array.astype(">f8"),
        }
        Checkpoint(parameters).save(tmp_path / "c.h5")
        found = Checkpoint.open(tmp_path / "c.h5").parameters
        for name, given in parameters.items():
            assert np.array_equal(found[name], given)
            assert found[name].dtype == given.dtype.newbyteorder("=")

    def test_progress(self, tmp_path):
        progress = {"epochs": [{"loss": 0.1 + 0.2, "validation": None}], "best_epoch": 0, "note": "Größe\n"}
        Checkpoint({}, progress=progress).save(tmp_path / "c.h5")
        found = Checkpoint.open(tmp_path / "c.h5")
        assert found == Checkpoint({}, progress=progress)

    def test_any_hdf5_program_can_read_it(self, tmp_path):
        example().save(tmp_path / "c.h5")
        with h5py.File(tmp_path / "c.h5") as file:
            for name, array in example().parameters.items():
                assert same_bits(file["parameters"][name.replace("/", "|")][()], array)
            assert json.loads(file["progress"][()]) == example().progress

    def test_a_later_save_replaces_the_file(self, tmp_path):
        example().save(tmp_path / "c.h5")
        Checkpoint({"x": np.ones(1)}).save(tmp_path / "c.h5")
        assert list(Checkpoint.open(tmp_path / "c.h5").parameters) == ["x"]
        assert [path.name for path in tmp_path.iterdir()] == ["c.h5"]


class TestRestore:
    def test_writes_into_the_live_arrays(self):
        source, target = network(), network()
        for p in source.parameters().values():
            p.values *= 0.5
        arrays = {name: p.values for name, p in target.parameters().items()}
        Checkpoint(values(source), best=values(network())).restore(target.parameters())
        assert all(same_bits(arrays[name], source.parameters()[name].values) for name in arrays)
        Checkpoint(values(source), best=values(network())).restore(target.parameters(), best=True)
        assert bits(target) == bits(network())

    @pytest.mark.parametrize(
        ("change", "word"),
        [
            (lambda arrays: arrays.pop("answer.bias"), "answer.bias"),
            (lambda arrays: arrays.update({"other.bias": np.zeros(3, "float32")}), "other.bias"),
            (lambda arrays: arrays.update({"answer.bias": np.zeros(3, "float32")}), "(3,)"),
            (lambda arrays: arrays.update({"answer.bias": np.zeros((), "float32")}), "answer.bias"),
            (lambda arrays: arrays["hidden.threshold"].fill(1.5), "1.5"),
            (lambda arrays: arrays["hidden->answer.weight"].fill(np.nan), "nan"),
            (lambda arrays: arrays.update({"answer.bias": np.full(2, 1e300)}), "inf"),
        ],
    )
    @pytest.mark.parametrize("best", [False, True])
    def test_what_does_not_fit_changes_nothing(self, change, word, best):
        net, arrays = network(), values(network())
        for name in arrays:
            arrays[name] *= 0.5
        change(arrays)
        checkpoint = Checkpoint(values(net), best=arrays) if best else Checkpoint(arrays, best=values(net))
        before = bits(net)
        with pytest.raises(EvsimError) as caught:
            checkpoint.restore(net.parameters(), best=best)
        refused(caught, word)
        assert bits(net) == before

    def test_a_network_of_another_size(self):
        with pytest.raises(CheckpointError) as caught:
            Checkpoint(values(network(6))).restore(network(5).parameters())
        refused(caught, "(2, 18)", "(2, 15)", "cue->hidden.weight")


class TestBadFiles:
    @pytest.mark.parametrize(
        "content", [b"", b"\n", b"not HDF5", b"\x80\x04\x95pickle", b"\x89HDF\r\n\x1a\n" * 9]
    )
    def test_not_hdf5(self, tmp_path, content):
        path = tmp_path / "c.h5"
        path.write_bytes(content)
        with pytest.raises(CheckpointError) as caught:
            Checkpoint.open(path)
        refused(caught, path)

    def test_missing_or_a_folder(self, tmp_path):
        for path in (tmp_path / "none.h5", tmp_path, tmp_path / "none" / "c.h5"):
            with pytest.raises(CheckpointError) as caught:
                Checkpoint.open(path)
            refused(caught, path, "no such file")

    def test_foreign_hdf5(self, tmp_path):
        with h5py.File(tmp_path / "other.h5", "w") as file:
            file["parameters/x"] = np.ones(3)
        log = Simulation(network()).run(np.zeros((2, 1, 2)))
        for path in (tmp_path / "other.h5", log.save(tmp_path / "log.h5")):
            with pytest.raises(CheckpointError) as caught:
                Checkpoint.open(path)
            refused(caught, path, "not a checkpoint")

    def test_another_version(self, tmp_path):
        example().save(tmp_path / "c.h5")
        with h5py.File(tmp_path / "c.h5", "a") as file:
            file.attrs["evsim_checkpoint_version"] = 99
        with pytest.raises(CheckpointError) as caught:
            Checkpoint.open(tmp_path / "c.h5")
        refused(caught, "99")

    def test_cut_short_anywhere(self, tmp_path):
        whole = example().save(tmp_path / "c.h5").read_bytes()
        cut = tmp_path / "cut.h5"
        for length in range(0, len(whole), max(len(whole) // 60, 1)):
            cut.write_bytes(whole[:length])
            with pytest.raises(CheckpointError) as caught:
                Checkpoint.open(cut)
            refused(caught, cut)

    def test_one_wrong_byte_is_found_or_does_not_matter(self, tmp_path):
        whole = example().save(tmp_path / "c.h5").read_bytes()
        broken, rng = tmp_path / "broken.h5", random.Random(0)
        start = whole.index(example().parameters["hidden.bias"].tobytes())
        places = [rng.randrange(len(whole)) for _ in range(150)]
        lines, n_right = [], 0
        for place in [start, start + 47, *places]:
            content = bytearray(whole)
            content[place] ^= 1 << rng.randrange(8)
            broken.write_bytes(content)
            try:
                found = Checkpoint.open(broken)
            except CheckpointError as error:
                lines += str(error).splitlines()
                continue
            assert place not in (start, start + 47)
            for part in ("parameters", "best", "optimizer"):
                mine, theirs = getattr(example(), part), getattr(found, part)
                assert all(same_bits(mine[name], theirs[name]) for name in mine)
            assert found.progress == example().progress
            n_right += 1
        assert n_right + len(lines) == len(places) + 2
        assert n_right > 0

    def test_no_other_file_is_read(self, tmp_path):
        example().save(tmp_path / "secret.h5")
        Checkpoint({}).save(tmp_path / "c.h5")
        with h5py.File(tmp_path / "c.h5", "a") as file:
            file["parameters"]["x"] = h5py.ExternalLink(
                str(tmp_path / "secret.h5"), "/parameters/hidden.bias"
            )
        with pytest.raises(CheckpointError) as caught:
            Checkpoint.open(tmp_path / "c.h5")
        refused(caught, "link")


class TestBadPlaces:
    def test_no_place_to_write_to(self, tmp_path):
        (tmp_path / "file").write_text("x")
        for path in (
            tmp_path / "none" / "c.h5",
            tmp_path / "file" / "c.h5",
            tmp_path,
            tmp_path / ("x" * 300),
        ):
            with pytest.raises(CheckpointError) as caught:
                example().save(path)
            refused(caught, path)
        assert [path.name for path in tmp_path.iterdir()] == ["file"]

    def test_a_save_that_fails_leaves_the_old_file(self, tmp_path):
        path = example().save(tmp_path / "c.h5")
        before = path.read_bytes()
        for wrong in (
            Checkpoint({"x": np.ones(3)}, progress={"x": object()}),
            Checkpoint({"x": np.array("x")}),
        ):
            with pytest.raises((TypeError, CheckpointError)):
                wrong.save(path)
        assert path.read_bytes() == before
        assert [path.name for path in tmp_path.iterdir()] == ["c.h5"]


#: Saves checkpoints whose every number is the number of the save, and says so after each.
WRITER = """
import sys, numpy as np
from evsim.checkpoint import Checkpoint
for n in range(10**9):
    arrays = {f"a->b{i}.weight": np.full(20_000, float(n)) for i in range(3)}
    Checkpoint(arrays, arrays, arrays, {"n": n}).save(sys.argv[1])
    print(n, flush=True)
"""


def test_no_kill_leaves_half_a_checkpoint(tmp_path):
    rng, writers = random.Random(1), []
    for number in range(10):
        folder = tmp_path / str(number)
        folder.mkdir()
        with open(folder / "said", "wb") as said:
            command = [sys.executable, "-c", WRITER, str(folder / "c.h5")]
            writers.append((folder, subprocess.Popen(command, stdout=said)))
    n_saves = 0
    for folder, writer in writers:
        while not (folder / "said").stat().st_size and writer.poll() is None:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.03))
        writer.send_signal(signal.SIGKILL)
        assert writer.wait(timeout=30) == -signal.SIGKILL
        last = int((folder / "said").read_text().split("\n")[-2])
        n_saves += last + 1
        found = Checkpoint.open(folder / "c.h5")
        n = found.progress["n"]
        assert n in (last, last + 1)  # the kill may come between the rename and the report of it
        for part in (found.parameters, found.best, found.optimizer):
            assert sorted(part) == [f"a->b{i}.weight" for i in range(3)]
            assert all((array == n).all() and array.shape == (20_000,) for array in part.values())
        Checkpoint({}).save(folder / "c.h5")  # what a killed writer left behind is in nobody's way
    assert n_saves > 20
