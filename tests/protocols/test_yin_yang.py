"""Yin-Yang: what is presented, gradients through both networks, the files a run leaves, resumed runs."""

import json

import numpy as np
import pytest

from evsim.checkpoint import Checkpoint
from evsim.continuous_training import ContinuousTrainer, Judgement
from evsim.data.yin_yang import Points, classify
from evsim.errors import ParameterError, ProtocolError
from evsim.eventlog import EventLog
from evsim.network import Network
from evsim.optimizer import SGD, Adam
from evsim.protocol import RunFolder
from evsim.protocols import yin_yang
from evsim.protocols.yin_yang import (
    BIAS,
    FIRST,
    SPAN,
    WINDOW,
    FirstEventLoss,
    MeanStateLoss,
    Outcome,
    YinYang,
    build,
    encode,
)
from evsim.simulation import Simulation

PNG = b"\x89PNG\r\n\x1a\n"
FILES = ["checkpoint.h5", "decisions.png", "events.h5", "raster.png", "summary.json"]
TINY = {"units": 12, "points": 40, "batch_size": 15, "epochs": 2, "grid": 5, "seed": 3}
LOSSES = {"lif": FirstEventLoss(tau=2.0, early=0.05, help=3.0), "egru": MeanStateLoss(gain=3.0, help=2.0)}


def rows(stimulus):
    return sorted(zip(*(column.tolist() for column in stimulus), strict=True))


class TestPresentation:
    def test_events_of_a_point(self):
        stimulus = encode(np.array([[0.0, 1.0, 0.25, 0.5], [0.1, 0.2, 0.9, 0.8]]))
        expected = [
            (FIRST + SPAN * x, lane, unit, 1.0)
            for lane, point in enumerate([[0.0, 1.0, 0.25, 0.5], [0.1, 0.2, 0.9, 0.8]])
            for unit, x in enumerate(point)
        ]
        expected += [(FIRST + BIAS, lane, 4, 1.0) for lane in range(2)]
        assert rows(stimulus) == sorted(expected)
        assert all(FIRST <= time < WINDOW for time in stimulus[0])

    def shown(self, trials):
        """(x, y, class) of all points."""
        found = []
        for trial in trials:
            time, lane, unit, _ = trial.stimulus["point"]
            assert trial.duration == WINDOW
            place = {(la, u): (t - FIRST) / SPAN for t, la, u in zip(time, lane, unit, strict=True)}
            assert len(place) == 5 * len(trial.target)
            for k, label in enumerate(trial.target):
                x, y = place[k, 0], place[k, 1]
                assert (place[k, 2], place[k, 3]) == pytest.approx((1 - x, 1 - y), abs=1e-12)
                found.append((round(x, 12), round(y, 12), int(label)))
        return found

    def test_a_pass_shows_each_point_once(self):
        task = YinYang(40, 15, seed=1)
        assert [len(trial.target) for trial in task.trials(0)] == [15, 15, 10]
        assert len(task) == 3
        first, second = self.shown(task.trials(0)), self.shown(task.trials(1))
        assert len(set(first)) == 40
        assert first != second
        assert set(first) == set(second)
        assert self.shown(task.trials(0)) == first
        points = np.array(first)
        assert (classify(points[:, :2]) == points[:, 2]).all()

    def test_parts_share_no_point(self):
        parts = [set(self.shown(YinYang(40, 15).check(part))) for part in ("train", "valid", "test")]
        assert [len(part) for part in parts] == [40, 8, 8]
        assert len(set.union(*parts)) == 56
        assert not parts[0] & set(self.shown(YinYang(40, 15, seed=1).trials(0)))

    @pytest.mark.parametrize("settings", [{"n_points": 0}, {"batch_size": 0}, {"seed": -1}])
    def test_settings_that_cannot_work(self, settings):
        with pytest.raises(ProtocolError, match=r"is (0|-1)"):
            YinYang(**settings)


@pytest.mark.parametrize("model", ["lif", "egru"])
def test_the_gradient_is_that_of_the_loss(model):
    """Central differences by single parameters, where no event appears or vanishes."""
    task = YinYang(12, 12, seed=5)
    (trial,) = task.trials(0)
    network = build(model, 16, seed=1).copy("float64")
    network.parameters()["point->hidden.weight"].values[:, 3] = -1.0  # a unit that never sends
    trainer = ContinuousTrainer(network, SGD(network.parameters(), lr=0.0), LOSSES[model], samples=[WINDOW])

    def present():
        log, judged = trainer._present(trial, tape=True)
        return log, judged

    log, judged = present()
    if model == "lif":
        assert "hidden.integral" in judged.losses  # some are silent
    gradients = trainer.adjoint.replay(log, judged.losses)
    rng, checked = np.random.default_rng(0), 0
    for name in ("point->hidden.weight", "hidden->answer.weight", "hidden.bias", "answer.bias"):
        values, gradient = network.parameters()[name].values, gradients[name]
        for index in rng.permutation(values.size)[:6]:
            place, found = np.unravel_index(index, values.shape), []
            before = values[place]
            for step in (1e-6, -1e-6):
                values[place] = before + step
                moved, there = present()
                found.append(there.value)
                same = all(moved[p].n_events == log[p].n_events for p in ("hidden", "answer"))
            values[place] = before
            if same:
                expected = (found[0] - found[1]) / 2e-6
                assert gradient[place] == pytest.approx(expected, rel=1e-4, abs=1e-7), (name, place)
                checked += expected != 0
    assert checked > 8


class TestTrainer:
    def test_a_clocked_network_is_refused(self):
        network = Network(dt=1.0)
        with pytest.raises(ParameterError, match=r"is not in continuous time; use Trainer"):
            ContinuousTrainer(network, SGD({}, lr=0.1), LOSSES["lif"])

    def test_tally(self):
        network, task = build("lif", 12, 0), YinYang(40, 15)
        targets = []

        def loss(log, target):
            targets.append(target)
            zero = {"answer.time": np.zeros(log["answer"].n_events)}
            return Judgement(0.5 * len(targets), zero, np.zeros(len(target), np.int64))

        before = {name: p.values.copy() for name, p in network.parameters().items()}
        trainer = ContinuousTrainer(network, SGD(network.parameters(), lr=1.0), loss, samples=[WINDOW])
        ticks = []
        for tally in (
            trainer.learn(task.trials(0), lambda: ticks.append(1)),
            trainer.evaluate(task.trials(0)),
        ):
            assert (tally.trials, tally.targets) == (3, 40)
            assert tally.events["point"] == 5 * 40
            assert tally.correct == np.bincount(task.parts["train"].label)[0]
        assert len(ticks) == 3
        first = trainer.evaluate(task.trials(0))
        assert first.loss == pytest.approx(0.5 * (7 * 15 + 8 * 15 + 9 * 10))
        assert all(np.array_equal(before[name], p.values) for name, p in network.parameters().items())


class TestLosses:
    def test_who_is_first_wins_and_nobody_is_no_answer(self):
        network = build("lif", 8, 0)
        parameters = network.parameters()
        parameters["point->hidden.weight"].values[...] = 3.0
        parameters["hidden->answer.weight"].values[...] = [0.7, 0.5, 0.3]
        points = Points(np.array([[0.4, 0.6], [0.5, 0.5]]), np.array([0, 2]))
        trainer = ContinuousTrainer(network, SGD(parameters, lr=0.0), FirstEventLoss(), samples=[WINDOW])
        outcome = Outcome(trainer, points)
        assert outcome.answer.tolist() == [0, 0]
        assert outcome.correct.tolist() == [True, False]
        assert outcome.sent["answer"].max() == 2  # once a point at most
        parameters["hidden->answer.weight"].values[...] = -1.0
        assert Outcome(trainer, points).answer.tolist() == [-1, -1]

    @pytest.mark.parametrize("model", ["lif", "egru"])
    def test_help_makes_silent_units_send(self, model):
        network = build(model, 8, 0)
        parameters = network.parameters()
        parameters["point->hidden.weight"].values[...] = 0.01
        kind = replace_help(LOSSES[model], 1.0)
        trainer = ContinuousTrainer(network, Adam(parameters, lr=0.05), kind, samples=[WINDOW])
        task = YinYang(20, 20)
        assert trainer.evaluate(task.trials(0)).events["hidden"] == 0
        for _ in range(40):
            trainer.learn(task.trials(0))
        assert trainer.evaluate(task.trials(0)).events["hidden"] > 20


def replace_help(loss, help):
    made = type(loss)()
    vars(made).update(vars(loss), help=help)
    return made


# -- runs ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["lif", "egru"])
def trained(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("yin_yang")
    summary = yin_yang.run(RunFolder(path, quiet=True), model=request.param, **TINY)
    return request.param, path, summary


def kept(path):
    found = Checkpoint.open(path / "checkpoint.h5")
    return {
        part: {name: array.tobytes() for name, array in getattr(found, part).items()}
        for part in ("parameters", "best", "optimizer")
    }


class TestRun:
    def test_files(self, trained):
        _, path, summary = trained
        assert sorted(p.name for p in path.iterdir()) == FILES
        assert json.loads((path / "summary.json").read_text())["test"] == summary["test"]
        for name in ("decisions.png", "raster.png"):
            assert (path / name).read_bytes().startswith(PNG)

    def test_summary(self, trained):
        """The network that was kept, asked again, a point at a time."""
        model, path, summary = trained
        network = build(model, TINY["units"], TINY["seed"])
        Checkpoint.open(path / "checkpoint.h5").restore(network.parameters(), best=True)
        simulation = Simulation(network)
        points = YinYang(TINY["points"], seed=TINY["seed"]).parts["test"]
        right, sent = [], []
        for k in range(len(points)):
            log = simulation.run({"point": encode(points.coordinates[k : k + 1])}, WINDOW, samples=[WINDOW])
            if model == "lif":
                answer = log["answer"].unit[0] if log["answer"].n_events else -1
            else:
                answer = log["answer"].integral[0, 0].argmax()
            right.append(answer == points.label[k])
            sent.append(log["hidden"].n_events)
        assert summary["test"]["accuracy"] == np.mean(right)
        assert summary["test"]["events_per_point"]["hidden"] == pytest.approx(np.mean(sent))
        assert summary["test"]["events_per_unit"]["hidden"] == pytest.approx(np.mean(sent) / TINY["units"])
        losses = [entry["validation"] for entry in summary["epochs"]]
        assert len(losses) == 2
        assert summary["best_epoch"] == losses.index(min(losses))

    def test_log(self, trained):
        model, path, _ = trained
        log = EventLog.open(path / "events.h5")
        assert set(log.names) == {"point", "hidden", "answer"}
        assert (log.n_lanes, log.duration) == (3, WINDOW)
        assert log["hidden"].kind == {"lif": "LIF", "egru": "EGRU"}[model]

    def test_resumed_run_equals_one_in_one_go(self, trained, tmp_path, monkeypatch):
        model, path, _ = trained
        # The rate of an epoch depends on how many there will be: stop the run in its second one.
        report = yin_yang.ContinuousTrainer.learn

        def stopped(trainer, trials, tick):
            if trainer.optimizer.n_steps > 2:
                raise KeyboardInterrupt
            return report(trainer, trials, tick)

        with monkeypatch.context() as patch:
            patch.setattr(yin_yang.ContinuousTrainer, "learn", stopped)
            with pytest.raises(KeyboardInterrupt):
                yin_yang.run(RunFolder(tmp_path, quiet=True), model=model, **TINY)
        yin_yang.run(RunFolder(tmp_path, quiet=True, resume=True), model=model, **TINY)
        assert kept(tmp_path) == kept(path)

    def test_prints(self, trained, tmp_path, capsys):
        model, *_ = trained
        yin_yang.run(RunFolder(tmp_path), model=model, **TINY | {"epochs": 1})
        out = capsys.readouterr().out
        assert "accuracy" in out
        assert "events per point, hidden" in out
        assert "grazing" in out

    @pytest.mark.parametrize("setting", ["units", "points", "batch_size", "epochs", "grid", "seed"])
    def test_counts_that_cannot_work(self, tmp_path, setting):
        with pytest.raises(ProtocolError, match=f"{setting} is -1"):
            yin_yang.run(RunFolder(tmp_path, quiet=True), **TINY | {setting: -1})

    @pytest.mark.parametrize("setting", ["lr", "silent_cost"])
    @pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
    def test_numbers_that_cannot_work(self, tmp_path, setting, value):
        with pytest.raises(ProtocolError, match=f"{setting} is"):
            yin_yang.run(RunFolder(tmp_path, quiet=True), **TINY, **{setting: value})


@pytest.mark.parametrize("model", ["lif", "egru"])
def test_learns(tmp_path, model):
    """Nearly as much as a linear classifier, which is right for two thirds, from few points and few units."""
    summary = yin_yang.run(
        RunFolder(tmp_path, quiet=True),
        model=model,
        units=30,
        points=400,
        batch_size=10,
        epochs=4,
        grid=2,
        lr=0.01,
    )
    assert summary["test"]["accuracy"] > 0.5
