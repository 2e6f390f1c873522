"""Training: best epochs, early stopping, and resumed runs that equal uninterrupted ones bit for bit."""

from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
import pytest

from evsim.adjoint import Adjoint
from evsim.checkpoint import Checkpoint
from evsim.errors import CheckpointError, EvsimError, ParameterError, StimulusError
from evsim.loss import cross_entropy
from evsim.optimizer import SGD, Adam
from evsim.protocol import Trial
from evsim.simulation import Simulation
from evsim.training import Tally, Trainer, fit
from oracles.small_trainers import (
    B,
    Capture,
    H,
    T,
    bits,
    delta_network,
    line_trials,
    make,
    make_sgd,
    network,
    trials,
    values,
    without_times,
)


class TestFit:
    def test_learns(self):
        trainer = make()
        history = fit(
            trainer,
            lambda epoch: trials(epoch, 20, "never"),
            epochs=12,
            validation=lambda: trials(1000, 5, "never"),
        )
        losses = [entry["validation"] for entry in history.epochs]
        assert losses[0] > 0.3
        assert min(losses) < 0.1
        assert history.epochs[history.best_epoch]["accuracy"] == 1
        assert trainer.evaluate(trials(2000, 5, "never")).accuracy == 1

    def stub(self, monkeypatch, trainer, losses):
        """Give the validation losses, and keep the parameters at each validation."""
        seen, given = [], iter(losses)

        def evaluate(of):
            assert list(of) == []
            seen.append(values(trainer))
            return Tally(loss=next(given), targets=1)

        monkeypatch.setattr(trainer, "evaluate", evaluate)
        return seen

    def test_the_best_epoch_is_restored(self, monkeypatch):
        trainer = make()
        seen = self.stub(monkeypatch, trainer, [3.0, 1.0, 2.0, 1.0])
        history = fit(trainer, trials, epochs=4, validation=lambda: [])
        assert history.best_epoch == 1
        assert bits(values(trainer)) == bits(seen[1]) != bits(seen[3])
        assert [entry["validation"] for entry in history.epochs] == [3.0, 1.0, 2.0, 1.0]
        assert not history.stopped_early

    def test_without_validation_the_last_epoch_stays(self):
        trainer, seen = make(), []
        history = fit(
            trainer, trials, epochs=3, patience=1, on_epoch=lambda entry: seen.append(values(trainer))
        )
        assert history.best_epoch == 2
        assert bits(values(trainer)) == bits(seen[2])
        assert [entry["validation"] for entry in history.epochs] == [None] * 3

    @pytest.mark.parametrize(
        ("patience", "n_epochs", "early"), [(1, 3, True), (2, 6, True), (3, 7, True), (4, 8, False)]
    )
    def test_patience(self, monkeypatch, patience, n_epochs, early):
        """The best is at 1, an equal one at 2 is no better, the one at 3 is by a hair, and then none."""
        trainer = make()
        seen = self.stub(monkeypatch, trainer, [3.0, 1.0, 1.0, 0.99, 5.0, 0.99, 1.0, 2.0])
        history = fit(trainer, trials, epochs=8, validation=lambda: [], patience=patience)
        assert len(history.epochs) == n_epochs == len(seen)
        assert history.stopped_early is early
        assert history.best_epoch == (1 if patience == 1 else 3)
        assert bits(values(trainer)) == bits(seen[history.best_epoch])

    def test_schedule(self):
        trainer, seen = make(SGD), []
        seen.append(values(trainer))
        rates = [0.1, 0.0, 0.3]
        history = fit(
            trainer,
            trials,
            epochs=3,
            schedule=rates.__getitem__,
            on_epoch=lambda entry: seen.append(values(trainer)),
        )
        assert [entry["lr"] for entry in history.epochs] == rates
        assert [bits(a) == bits(b) for a, b in pairwise(seen)] == [False, True, False]

    def test_the_rate_of_an_epoch_is_that_of_its_steps(self):
        """One step of plain gradient descent: twice the rate, twice the way."""
        ways = []
        for rate in (1.0, 2.0):
            trainer = make(SGD, dtype="float64")
            before = values(trainer)["answer.bias"]
            fit(trainer, lambda epoch: trials(0, 1), epochs=1, schedule=lambda epoch, rate=rate: rate)
            ways.append(values(trainer)["answer.bias"] - before)
        assert np.allclose(2 * ways[0], ways[1], rtol=1e-12, atol=0)
        assert np.abs(ways[0]).max() > 0

    def test_on_trial_and_on_epoch(self):
        calls = []
        fit(
            make(),
            trials,
            epochs=2,
            on_trial=lambda: calls.append("trial"),
            on_epoch=lambda entry: calls.append(entry["epoch"]),
        )
        assert calls == [*["trial"] * 5, 0, *["trial"] * 5, 1]

    def test_no_epochs(self):
        trainer = make()
        before = bits(values(trainer))
        history = fit(trainer, trials, epochs=0)
        assert history.epochs == []
        assert bits(values(trainer)) == before


class Interrupted(Exception):
    pass


def fit_with(trainer, path, epochs, resume=False, carry="within", stop=None):
    """Validated training in which the rate falls; ``stop`` breaks it off in the middle of that epoch."""

    def of_epoch(epoch):
        for index, trial in enumerate(trials(epoch, 5, carry)):
            if epoch == stop and index == 2:
                raise Interrupted
            yield trial

    return fit(
        trainer,
        of_epoch,
        epochs=epochs,
        validation=lambda: trials(1000, 3, carry),
        schedule=lambda epoch: 0.05 / (1 + epoch),
        checkpoint=path,
        resume=resume,
    )


def contents(path):
    found = Checkpoint.open(path)
    progress = found.progress | {"epochs": without_times(found.progress["epochs"])}
    progress["training"].pop("seconds")
    return bits(found.parameters), bits(found.best), bits(found.optimizer), progress


class TestResume:
    @pytest.mark.parametrize("carry", ["within", "always"])
    @pytest.mark.parametrize(("dtype", "after"), [("float32", 3), ("float64", 1)])
    @pytest.mark.parametrize("optimizer", [make_sgd, Adam])
    def test_equals_an_uninterrupted_run(self, tmp_path, optimizer, dtype, after, carry):
        whole, first, second = (make(optimizer, dtype=dtype) for _ in range(3))
        history = fit_with(whole, tmp_path / "whole.h5", 5, carry=carry)
        fit_with(first, tmp_path / "parts.h5", after, carry=carry)
        second.network.parameters()["one.bias"].values += 0.5  # resuming must not care what was there
        resumed = fit_with(second, tmp_path / "parts.h5", 5, resume=True, carry=carry)
        assert bits(values(second)) == bits(values(whole))
        assert contents(tmp_path / "parts.h5") == contents(tmp_path / "whole.h5")
        assert without_times(resumed.epochs) == without_times(history.epochs)
        assert resumed.best_epoch == history.best_epoch
        assert bits(second.optimizer.state()) == bits(whole.optimizer.state())

    @pytest.mark.parametrize("stop", [0, 2])
    def test_after_a_break_within_an_epoch(self, tmp_path, stop):
        whole = make()
        fit_with(whole, tmp_path / "whole.h5", 4)
        with pytest.raises(Interrupted):
            fit_with(make(), tmp_path / "parts.h5", 4, stop=stop)
        assert len(Checkpoint.open(tmp_path / "parts.h5").progress["epochs"]) == stop
        resumed = make()
        fit_with(resumed, tmp_path / "parts.h5", 4, resume=True)
        assert contents(tmp_path / "parts.h5") == contents(tmp_path / "whole.h5")
        assert bits(values(resumed)) == bits(values(whole))

    @pytest.mark.parametrize("epochs", [3, 1])
    def test_of_a_finished_run_runs_nothing(self, tmp_path, epochs):
        whole, again = make(), make()
        history = fit_with(whole, tmp_path / "c.h5", 3)
        before = (tmp_path / "c.h5").read_bytes()

        def nothing(*epoch):
            raise AssertionError("nothing was left to run")

        found = fit(
            again, nothing, epochs=epochs, validation=nothing, checkpoint=tmp_path / "c.h5", resume=True
        )
        assert bits(values(again)) == bits(values(whole)) == bits(Checkpoint.open(tmp_path / "c.h5").best)
        assert found.epochs == history.epochs
        assert found.best_epoch == history.best_epoch
        assert found.training == history.training
        assert (tmp_path / "c.h5").read_bytes() == before

    def test_of_a_run_that_stopped_early(self, tmp_path, monkeypatch):
        def patient(resume):
            trainer, losses = make(), iter([1.0, 2.0, 3.0])
            monkeypatch.setattr(trainer, "evaluate", lambda of: Tally(loss=next(losses), targets=1))
            path = tmp_path / "c.h5"
            return fit(
                trainer, trials, epochs=9, validation=list, patience=2, checkpoint=path, resume=resume
            ), values(trainer)

        (history, mine), (again, theirs) = patient(False), patient(True)
        assert len(history.epochs) == 3
        assert history.epochs == again.epochs
        assert history.stopped_early
        assert again.stopped_early
        assert bits(mine) == bits(theirs)

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda c: replace(c, progress={}),
            lambda c: replace(c, progress={"epochs": 3, "best_epoch": 0, "best_loss": 1.0}),
            lambda c: replace(c, progress=c.progress | {"best_loss": "low"}),
            lambda c: replace(c, best={}),
            lambda c: replace(c, parameters={}),
            lambda c: replace(c, optimizer={}),
        ],
    )
    def test_a_checkpoint_without_all_parts_changes_nothing(self, tmp_path, spoil):
        fit_with(make(), tmp_path / "c.h5", 1)
        spoil(Checkpoint.open(tmp_path / "c.h5")).save(tmp_path / "c.h5")
        self.refused(make(), tmp_path / "c.h5")

    @pytest.mark.parametrize("other", [lambda: make(make_sgd), lambda: make(units=H + 1)])
    def test_of_another_run_changes_nothing(self, tmp_path, other):
        fit_with(make(), tmp_path / "c.h5", 1)
        self.refused(other(), tmp_path / "c.h5")

    def refused(self, trainer, path):
        before = bits(values(trainer)), bits(trainer.optimizer.state())
        with pytest.raises(EvsimError) as caught:
            fit_with(trainer, path, 2, resume=True)
        assert "\n" not in str(caught.value)
        assert caught.value.remedy
        assert (bits(values(trainer)), bits(trainer.optimizer.state())) == before

    def test_from_nothing(self, tmp_path):
        for path in (None, tmp_path / "none.h5"):
            with pytest.raises(CheckpointError):
                fit_with(make(), path, 2, resume=True)

    def test_a_place_that_cannot_be_written_is_found_at_once(self, tmp_path):
        ticks = []
        with pytest.raises(CheckpointError, match="does not exist"):
            fit(
                make(),
                trials,
                epochs=1,
                checkpoint=tmp_path / "none" / "c.h5",
                on_trial=lambda: ticks.append(1),
            )
        assert ticks == []


class TestActivityCost:
    @pytest.mark.parametrize("cost", [0.0, 0.7])
    @pytest.mark.parametrize("lengths", [None, np.array([T, 3, T, 1])])
    def test_gradient(self, cost, lengths):
        """d(cost * mean(o)) / do is cost over the number of all units, lanes and steps."""
        net, capture = network(), Capture()
        options = {"gamma": 0.9, "eps": 1.5}
        trial = replace(next(trials(0)), lengths=lengths)
        if lengths is not None:
            trial.target[np.arange(T)[:, None] >= lengths] = -1
        Trainer(net, "answer", capture, activity_cost=cost, **options).learn([trial])
        simulation = Simulation(net)
        log = simulation.run(trial.stimulus, lengths=lengths)
        losses = {"answer": cross_entropy(log["answer"].state, trial.target)[1]}
        if cost:
            share = cost / ((T * B if lengths is None else lengths.sum()) * (H + 5))
            losses |= {
                f"{name}.o": np.full((T, B, n), share, "float32") for name, n in (("one", H), ("two", 5))
            }
        wanted = Adjoint(simulation.plan, **options).replay(log, losses)
        assert set(capture.gradients[0]) == set(wanted)
        for name in wanted:
            assert np.array_equal(capture.gradients[0][name], wanted[name]), name

    def test_quiets_the_network(self):
        activity = []
        for cost in (0.0, 5.0):
            trainer = make(activity_cost=cost)
            fit(trainer, lambda epoch: trials(epoch, 10), epochs=3)
            activity.append(trainer.evaluate(trials(99)).activity(["one", "two"]))
        assert activity[1] < 0.7 * activity[0]


class TestChangeCost:
    @pytest.mark.parametrize("cost", [0.0, 0.7])
    @pytest.mark.parametrize("lengths", [None, np.array([T, 3, T, 1])])
    def test_gradient(self, cost, lengths):
        """d(cost * mean |d|) / dd is cost sign(d) over the number of all delta units, lanes and steps."""
        net, capture = delta_network(), Capture()
        trial = replace(next(line_trials(0)), lengths=lengths)
        if lengths is not None:
            trial = replace(trial, target=np.where(np.arange(T)[:, None] < lengths, trial.target, -1))
        Trainer(net, "answer", capture, change_cost=cost).learn([trial])
        simulation = Simulation(net)
        log = simulation.run(trial.stimulus, lengths=lengths)
        losses = {"answer": cross_entropy(log["answer"].state, trial.target)[1]}
        share = cost / ((T * B if lengths is None else lengths.sum()) * (H + 5))
        signs = set()
        for name, units in (("one", H), ("two", 5)) if cost else ():
            sent = log[name].events
            dense = np.zeros((T, B, units), "float32")
            for step, lane, unit, value in zip(sent.step, sent.lane, sent.unit, sent.value, strict=True):
                dense[step, lane, unit] = share * (1 if value > 0 else -1)
                signs.add(value > 0)
            losses[f"{name}.y"] = dense
        assert len(signs) == (2 if cost else 0)
        wanted = Adjoint(simulation.plan).replay(log, losses)
        assert set(capture.gradients[0]) == set(wanted)
        for name in wanted:
            assert np.array_equal(capture.gradients[0][name], wanted[name]), name

    def test_is_the_slope_of_the_mean_size_of_the_events(self):
        """By central differences, as long as the same events are sent: all of them, at threshold 0."""
        net, capture = delta_network("float64"), Capture()
        for name, parameter in net.parameters().items():
            if name.endswith(".threshold"):
                parameter.assign(0.0)
        trial = replace(next(line_trials(0)), target=np.full((T, B), -1))  # the loss is the cost alone
        Trainer(net, "answer", capture, change_cost=0.7).learn([trial])
        simulation = Simulation(net)

        def cost():
            log = simulation.run(trial.stimulus)
            return 0.7 * sum(np.abs(log[name].value).sum() for name in ("one", "two")) / (T * B * (H + 5))

        for name in ("line->one.weight", "one->one.weight", "two.bias"):
            values = net.parameters()[name].values
            for place in [(0,) * values.ndim, tuple(n // 2 for n in values.shape)]:
                before = values[place]
                sides = []
                for step in (1e-6, -1e-6):
                    values[place] = before + step
                    sides.append(cost())
                values[place] = before
                slope = (sides[0] - sides[1]) / 2e-6
                assert capture.gradients[0][name][place] == pytest.approx(slope, rel=1e-5, abs=1e-9)

    def test_quiets_the_network(self):
        activity = []
        for cost in (0.0, 5.0):
            net = delta_network()
            trainer = Trainer(net, "answer", Adam(net.parameters(), lr=0.02), change_cost=cost)
            fit(trainer, lambda epoch, trainer=trainer: line_trials(epoch, 10), epochs=3)
            activity.append(trainer.evaluate(line_trials(99)).activity(["one", "two"]))
        assert activity[1] < 0.7 * activity[0]


class TestCostsOfUnitsThatAreNotThere:
    @pytest.mark.parametrize(
        ("make_network", "name"), [(network, "change_cost"), (delta_network, "activity_cost")]
    )
    def test_are_refused(self, make_network, name):
        """Else they would be left out of the loss without a word."""
        net = make_network()
        with pytest.raises(ParameterError, match=f"{name} is 0.1, and the network has no"):
            Trainer(net, "answer", SGD(net.parameters(), lr=0.1), **{name: 0.1})
        Trainer(net, "answer", SGD(net.parameters(), lr=0.1), **{name: 0.0})

    @pytest.mark.parametrize("name", ["change_cost", "activity_cost"])
    @pytest.mark.parametrize("cost", [np.nan, np.inf])
    def test_must_be_numbers(self, name, cost):
        with pytest.raises(ParameterError, match=f"{name} is {cost}"):
            make(**{name: cost})


def test_a_delta_network_learns():
    net = delta_network()
    trainer = Trainer(net, "answer", Adam(net.parameters(), lr=0.02))
    untrained = trainer.evaluate(line_trials(1000, 10)).mean_loss
    history = fit(
        trainer, lambda epoch: line_trials(epoch, 20), epochs=3, validation=lambda: line_trials(1000, 10)
    )
    best = history.epochs[history.best_epoch]
    assert best["validation"] < 0.3 * untrained
    assert best["accuracy"] > 0.9
    assert history.epochs[-1]["loss"] < history.epochs[0]["loss"]
    tally = trainer.evaluate(line_trials(2000))
    assert 0 < tally.activity(["one", "two"]) < 1


def test_evaluation_disturbs_nothing():
    plain, checked = make(), make()
    plain.learn(trials(0))
    before = values(checked)
    checked.evaluate(trials(3))
    assert bits(values(checked)) == bits(before)
    for trial in trials(0):
        checked.learn([trial])
        checked.evaluate(trials(3, 2))
    assert bits(values(checked)) == bits(values(plain))


def test_carried_trials_follow_each_other():
    """Two windows are one run cut in two, also in the eyes of the loss."""
    long = list(islice(trials(0, 2), 2))
    whole = Trial(
        np.concatenate([trial.stimulus for trial in long]), np.concatenate([trial.target for trial in long])
    )
    parts, one = make().evaluate(long), make().evaluate([whole])
    assert (parts.events, parts.macs, parts.targets) == (one.events, one.macs, one.targets)
    assert parts.loss == pytest.approx(one.loss, rel=1e-6)


@pytest.mark.parametrize("every", [1, 4, 100])
def test_learning_with_checkpoints_has_the_same_gradients(every):
    """Up to the order of sums."""
    plain, sparing = (make(dtype="float64", activity_cost=0.1, checkpoint=n) for n in (None, every))
    for trainer in (plain, sparing):
        trainer.optimizer = Capture()
        trainer.learn(trials(0))
    for wanted, found in zip(plain.optimizer.gradients, sparing.optimizer.gradients, strict=True):
        assert found.keys() == wanted.keys()
        for name, gradient in found.items():
            np.testing.assert_allclose(gradient, wanted[name], rtol=1e-12, atol=1e-15, err_msg=name)


def test_a_checkpoint_is_a_number_of_steps():
    with pytest.raises(StimulusError, match="checkpoint 0"):
        make(checkpoint=0).learn(trials(0))
