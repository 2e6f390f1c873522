"""The protocol of credit: its trials, the files of a run, and that its gradients tell what mattered."""

import json
from itertools import islice

import numpy as np
import pytest

from evsim.errors import ProtocolError
from evsim.eventlog import EventLog
from evsim.events import Events
from evsim.loss import cross_entropy
from evsim.protocol import RunFolder
from evsim.protocols import MarkedCue, credit
from evsim.simulation import Simulation

TINY = {
    "n_symbols": 3,
    "delay": 5,
    "units": 9,
    "trials": 3,
    "epochs": 2,
    "tests": 7,
    "draws": 2,
    "batch_size": 4,
}
PNG = b"\x89PNG"


def read(path):
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("credit")
    credit.run(RunFolder(path, quiet=True), **TINY)
    return path


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    """Of a network that has learned the task."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(credit, "_draw", lambda *arguments: None)
        return credit.run(
            RunFolder(tmp_path_factory.mktemp("trained"), quiet=True), epochs=12, tests=64, draws=3
        )


class TestTrials:
    def test_one_cue_among_distractors(self):
        task = MarkedCue(n_symbols=4, onset=6, delay=20, answer=3, rate=0.3, batch_size=50, seed=3)
        seen = set()
        for trial in islice(task.trials(0), 3):
            stimulus, target = trial.stimulus, trial.target
            assert stimulus.shape == (task.n_steps, 50, 6) == (30, 50, 6)
            assert (stimulus[:, :, task.marker].sum(axis=0) == 1).all()
            cue = stimulus[:, :, task.marker].argmax(axis=0)
            assert cue.max() <= 6
            seen |= set(cue)
            at_cue = stimulus[cue, np.arange(50), :4]
            assert (at_cue.sum(axis=1) == 1).all()
            assert (at_cue.argmax(axis=1) == target[-1]).all()
            assert (target[:-3] == -1).all()
            assert (target[-3:] == target[-1]).all()
            assert (stimulus[-3:, :, task.go] == 1).all()
            assert not stimulus[:-3, :, task.go].any()
            assert not stimulus[-3:, :, : task.go].any()
            assert stimulus[7:-3, :, :4].mean() == pytest.approx(0.3, abs=0.02)
        assert seen == set(range(7))

    def test_streams(self):
        task = MarkedCue(seed=1)
        one, again, other = (next(task.trials(stream)).stimulus for stream in (0, 0, 1))
        assert (one == again).all()
        assert (one != other).any()

    def test_kinds(self):
        task = MarkedCue(n_symbols=2, onset=3, delay=4, answer=1, rate=0.5, batch_size=20)
        trial = next(task.trials(0))
        events = Events.from_dense(trial.stimulus, np.float64)
        kinds = task.kinds(events)
        assert (sum(mask.astype(int) for mask in kinds.values()) == 1).all()
        assert kinds["cue"].sum() == 40
        assert kinds["go"].sum() == 20
        marked = trial.stimulus[events.step, events.lane, task.marker] == 1
        assert (marked == kinds["cue"]).all()

    @pytest.mark.parametrize(
        ("name", "value"),
        [("n_symbols", 1), ("delay", -1), ("answer", 0), ("rate", 1.5), ("batch_size", 2.5)],
    )
    def test_settings_that_cannot_work(self, name, value):
        with pytest.raises(ProtocolError, match=f"{name} is {value}"):
            MarkedCue(**{name: value})


def test_highest():
    events = Events.from_dense(np.ones((2, 3, 2)) * [[[1], [1], [0]], [[1], [0], [0]]], np.float64)
    assert events.lane.tolist() == [0, 0, 1, 1, 0, 0]
    score = np.array([3.0, 1.0, 5.0, 6.0, 2.0, 4.0])
    assert sorted(credit.highest(events, score, 1)) == [3, 5]
    assert sorted(credit.highest(events, score, 3)) == [0, 2, 3, 4, 5]


def test_loss_by_lane():
    rng = np.random.default_rng(0)
    state, target = rng.normal(size=(5, 3, 4)), np.full((5, 3), -1)
    target[3:] = rng.integers(0, 4, 3)
    loss, gradient = credit.loss_by_lane(state, target)
    for lane in range(3):
        alone = slice(lane, lane + 1)
        expected, at_state = cross_entropy(state[:, alone], target[:, alone])
        assert loss[lane] == pytest.approx(expected, rel=1e-12)
        np.testing.assert_allclose(gradient[:, alone], at_state, rtol=1e-12, atol=1e-15)


class TestFiles:
    def test_files(self, folder):
        names = ["checkpoint.h5", "credit.png", "events.h5", "summary.json"]
        assert sorted(path.name for path in folder.iterdir()) == names
        assert (folder / "credit.png").read_bytes().startswith(PNG)
        summary = read(folder / "summary.json")
        assert set(summary["taken_out"]["hidden"]) == {"1", "2", "4", "8", "16"}
        assert set(summary["first_order"]["source"]["0.001"]) == {"median_error", "changed_raster"}
        for shares in summary["share"].values():
            assert sum(shares.values()) == pytest.approx(1)

    def test_the_log_has_the_gradients(self, folder):
        log = EventLog.open(folder / "events.h5")
        task = MarkedCue(3, delay=5, batch_size=7)
        trial = next(task.trials(10**6))
        assert (log["source"].events.to_dense() == trial.stimulus).all()
        network = credit.build(task, 9, 0.1, 0)
        for name, parameter in network.parameters().items():
            parameter.assign(log.parameters[name])
        study = credit.Study(Simulation(network).plan, trial, 0)
        for name, found in study.replay(0.7).events.items():
            np.testing.assert_array_equal(log[name].gradient, found["value"])

    def test_resuming_a_finished_run(self, folder, tmp_path):
        before = read(folder / "summary.json")
        credit.run(RunFolder(folder, quiet=True, resume=True), **TINY)
        after = read(folder / "summary.json")
        for key in before.keys() - {"seconds", "seconds_training"}:
            assert after[key] == before[key]

    @pytest.mark.parametrize("setting", ["units", "trials", "epochs", "tests", "draws", "n_symbols"])
    def test_settings_that_cannot_work(self, tmp_path, setting):
        with pytest.raises(ProtocolError, match=f"{setting} is -1"):
            credit.run(RunFolder(tmp_path, quiet=True), **TINY | {setting: -1})


def test_hidden_units_that_are_silent(tmp_path):
    summary = credit.run(RunFolder(tmp_path, quiet=True), **TINY | {"threshold": 1.0})
    assert summary["events_per_trial"]["hidden"] == 0
    assert all(share == 0 for share in summary["share"]["credit_with_events_fixed"].values())
    assert (tmp_path / "credit.png").read_bytes().startswith(PNG)


class TestCredit:
    """What the documentation says of a trained network, with room to spare."""

    def test_it_is_learned(self, summary):
        assert summary["accuracy"] > 0.95

    @pytest.mark.parametrize("kind", ["credit", "credit_with_events_fixed"])
    def test_the_cue_has_the_credit(self, summary, kind):
        assert summary["share"][kind]["cue"] > 3 * summary["share"]["events"]["cue"]

    @pytest.mark.parametrize("name", ["source", "hidden"])
    def test_events_of_highest_credit_matter_more_than_random_ones(self, summary, name):
        for count in ("2", "4", "8") if name == "source" else ("8", "16"):
            change = summary["taken_out"][name][count]
            assert change["highest"]["mean"] > 1.5 * change["random"]["mean"]
            error = np.hypot(change["highest"]["error"], change["random"]["error"])
            assert change["highest"]["mean"] - change["random"]["mean"] > 2 * error

    @pytest.mark.parametrize("name", ["source", "hidden"])
    def test_small_changes_are_predicted(self, summary, name):
        by_size = summary["first_order"][name]
        assert by_size["0.001"]["median_error"] < 5e-3
        assert by_size["0.0001"]["median_error"] < 5e-4
        assert by_size["0.0001"]["changed_raster"] < 0.05
