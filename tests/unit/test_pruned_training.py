"""Training while weights are pruned, checkpoints without them, and ``evsim prune``."""

import json
import re
import sys

import h5py
import numpy as np
import pytest

from evsim import cli
from evsim.checkpoint import Checkpoint
from evsim.continuous_training import ContinuousTrainer, Judgement
from evsim.errors import CheckpointError, NetworkError, ParameterError
from evsim.models import LIF, EventSource
from evsim.network import Network
from evsim.optimizer import SGD, Adam
from evsim.protocol import Trial
from evsim.pruned_checkpoint import checkpoint_report, prune_checkpoint
from evsim.pruning import CubicSchedule, Pruner, RoundSchedule, prune
from evsim.sparsity import sparsified, sparsity_report, stored_structure, with_structure
from evsim.training import Tally, Trainer, fit
from oracles.pruning_cases import (
    WEIGHTS,
    copy_network,
    copy_trials,
    network,
    pruned_run,
    refused,
    smallest,
    trained,
    values,
)


class TestTraining:
    @pytest.mark.parametrize(
        "schedule",
        [
            CubicSchedule(begin=101, end=200, final=0.8, every=20),
            RoundSchedule(begin=101, every=33, rounds=4, final=0.8),
        ],
        ids=["cubic", "rounds"],
    )
    def test_the_loss_recovers(self, schedule):
        """Four epochs dense, four in which 80 % go, four of fine-tuning with the zeros not stored."""
        net = copy_network()
        trainer = Trainer(net, "answer", Adam(net.parameters(), lr=0.01, clip=1.0), threads=1)
        Pruner(net, schedule).attach(trainer.optimizer)
        unpruned = []

        def remember(entry):
            if entry["epoch"] == 3:
                unpruned.append(net.copy())

        history = fit(trainer, copy_trials, epochs=8, on_epoch=remember)
        masks = trainer.optimizer.masks
        assert set(masks) == set(WEIGHTS)
        for name, mask in masks.items():
            assert (~mask).sum() == round(0.8 * mask.size)
            assert np.array_equal(net.parameters()[name].values != 0, mask)
        small = sparsified(net)
        assert [row.sparse for row in sparsity_report(small)] == [True, True, False]
        tuned = Trainer(small, "answer", Adam(small.parameters(), lr=0.01, clip=1.0), threads=1)
        later = fit(tuned, lambda epoch: copy_trials(100 + epoch), epochs=4)

        def judged(network):
            return Trainer(network, "answer", Adam(network.parameters()), threads=1).evaluate(
                copy_trials(999, 5)
            )

        dense_loss, cut_loss = judged(unpruned[0]).mean_loss, judged(prune(unpruned[0], 0.8)).mean_loss
        print(
            dense_loss,
            cut_loss,
            judged(small).mean_loss,
            history.epochs[-1]["loss"],
            later.epochs[-1]["loss"],
        )
        assert dense_loss < 0.05
        assert cut_loss > 0.3  # at once, without training
        assert judged(small).mean_loss < 0.05
        assert judged(small).accuracy == 1
        assert later.epochs[-1]["loss"] < history.epochs[-1]["loss"]

    @pytest.mark.parametrize("epochs", [1, 3, 5, 6])
    @pytest.mark.parametrize("optimizer", [Adam, lambda p, lr: SGD(p, lr, momentum=0.9)], ids=["adam", "sgd"])
    def test_a_resumed_run_has_the_same_bits(self, tmp_path, epochs, optimizer):
        """Stopped before, amid and after pruning."""
        through = pruned_run(tmp_path / "through.h5", 7, optimizer=optimizer)
        pruned_run(tmp_path / "c.h5", epochs, optimizer=optimizer)
        resumed = pruned_run(tmp_path / "c.h5", 7, resume=True, optimizer=optimizer)
        assert resumed.optimizer.n_pruned == round(0.8 * (5 + 12) * 36)
        for name, array in through.optimizer.state().items():
            assert array.tobytes() == resumed.optimizer.state()[name].tobytes(), name
        for name, array in values(through.network).items():
            assert array.tobytes() == resumed.network.parameters()[name].values.tobytes(), name

    def test_the_best_epoch_is_one_with_all_zeros(self, tmp_path, monkeypatch):
        """Losses grow from epoch to epoch, so that without pruning the first one would be the best."""
        net = copy_network(12)
        trainer = Trainer(net, "answer", SGD(net.parameters(), lr=0.001), threads=1)
        Pruner(net, CubicSchedule(6, 18, 0.8, initial=0.3, every=6)).attach(trainer.optimizer)
        losses = iter(range(1, 9))
        monkeypatch.setattr(trainer, "evaluate", lambda of: Tally(loss=next(losses), targets=1))
        options = {"validation": tuple, "patience": 1, "checkpoint": tmp_path / "c.h5"}
        history = fit(trainer, lambda e: copy_trials(e, 5), epochs=2, **options)
        assert history.best_epoch == 1
        history = fit(trainer, lambda e: copy_trials(e, 5), epochs=8, resume=True, **options)
        assert history.best_epoch == 3  # steps 16 to 20, the last in which weights went
        assert history.stopped_early
        assert len(history.epochs) == 5
        best = Checkpoint.open(tmp_path / "c.h5").best
        for name in WEIGHTS:
            assert (best[name] == 0).sum() == round(0.8 * best[name].size)
            np.testing.assert_array_equal(net.parameters()[name].values, best[name])

    def test_patience_waits_for_the_schedule(self, monkeypatch):
        net = copy_network(12)
        trainer = Trainer(net, "answer", SGD(net.parameters(), lr=0.001), threads=1)
        Pruner(net, CubicSchedule(11, 11, 0.5)).attach(trainer.optimizer)
        losses = iter(range(1, 20))
        monkeypatch.setattr(trainer, "evaluate", lambda of: Tally(loss=next(losses), targets=1))
        history = fit(trainer, lambda e: copy_trials(e, 2), epochs=12, validation=tuple, patience=0)
        assert (history.best_epoch, len(history.epochs)) == (5, 6)  # steps 11 and 12 are of epoch 5

    def test_in_continuous_time(self):
        net = Network(dt=None, seed=0)
        net.add(EventSource(3, "cue"))
        net.add(LIF(6, "hidden"))
        net.connect("cue", "hidden", weight=4.0)
        net.connect("hidden", "hidden", weight=lambda rng, shape: rng.normal(0, 0.3, shape), delay=1.0)

        def loss(log, target):
            time = np.ones(log["hidden"].n_events)
            return Judgement(1.0, {"hidden.time": time}, np.zeros(target.shape, int))

        trainer = ContinuousTrainer(net, Adam(net.parameters(), lr=1e-3), loss)
        Pruner(net, CubicSchedule(1, 2, 0.5, every=1)).attach(trainer.optimizer)
        events = (np.array([0.5, 1.0, 1.5]), np.zeros(3, int), np.arange(3), np.ones(3))
        trainer.learn([Trial({"cue": events}, np.zeros(1, int), duration=20.0)] * 3)
        for name in WEIGHTS:
            array = net.parameters()[name].values
            assert (array == 0).sum() == array.size // 2

    def test_a_pruner_that_does_not_fit(self):
        net = network()
        schedule = CubicSchedule(1, 5, 0.5)
        pruner = Pruner(net, schedule)
        refused(lambda: pruner.attach(Adam(network().parameters())), ParameterError, "cue->hidden.weight")
        net.parameters()["hidden->hidden.weight"].trainable = False
        refused(lambda: pruner.attach(Adam(net.parameters())), ParameterError, "hidden->hidden.weight")
        adam = Adam(net.parameters())
        assert Pruner(net, schedule, "cue->*").attach(adam) is adam.pruning
        refused(lambda: Pruner(net, schedule, "cue->*").attach(adam), ParameterError, "already")
        old = Adam(net.parameters())
        old.n_steps = 5
        refused(lambda: Pruner(net, schedule, "cue->*").attach(old), ParameterError, "step 5")
        refused(lambda: Pruner(net, schedule, scope="gates"), ParameterError, "gates")
        refused(lambda: Pruner(net, schedule, "nothing"), NetworkError, "nothing")


# -- checkpoints -------------------------------------------------------------------------------------------


class TestCheckpoint:
    def test_opens_as_sparse_and_can_be_trained(self, tmp_path):
        net = trained(tmp_path / "c.h5")
        before = Checkpoint.open(tmp_path / "c.h5")
        prune_checkpoint(before, 0.8).save(tmp_path / "p.h5")
        small = Checkpoint.open(tmp_path / "p.h5").in_form(copy_network(12))
        expected = prune(net, 0.8)
        for name, array in values(expected).items():
            assert array.tobytes() == small.parameters()[name].values.tobytes()
        for name, array in stored_structure(expected).items():
            np.testing.assert_array_equal(array, stored_structure(small)[name])
        trainer = Trainer(small, "answer", Adam(small.parameters(), lr=0.02), threads=1)
        history = fit(
            trainer, lambda e: copy_trials(e, 5), epochs=4, checkpoint=tmp_path / "p.h5", resume=True
        )
        assert len(history.epochs) == 4
        assert history.best_epoch == 3
        assert trainer.optimizer.n_steps == 20
        # ... and stored again, it is still what it was.
        again = Checkpoint.open(tmp_path / "p.h5").in_form(copy_network(12))
        assert sparsity_report(again) == sparsity_report(small)
        assert checkpoint_report(Checkpoint.open(tmp_path / "p.h5")) == sorted(
            sparsity_report(small), key=lambda row: list(before.parameters).index(row.projection + ".weight")
        )

    def test_moments_of_the_weights_that_are_left(self, tmp_path):
        trained(tmp_path / "c.h5")
        before = Checkpoint.open(tmp_path / "c.h5")
        after = prune_checkpoint(before, 0.8)
        for name in WEIGHTS:
            matrix = before.best[name]
            (mask,) = smallest([matrix], round(0.8 * matrix.size))
            for slot in ("mean", "square"):
                np.testing.assert_array_equal(
                    after.optimizer[f"{slot}/{name}"], before.optimizer[f"{slot}/{name}"][mask]
                )
        assert after.optimizer["n_steps"] == before.optimizer["n_steps"]

    @pytest.mark.parametrize("scope", ["projection", "block", "global"])
    def test_scopes_are_those_of_networks(self, tmp_path, scope):
        net = trained(tmp_path / "c.h5")
        found = prune_checkpoint(Checkpoint.open(tmp_path / "c.h5"), 0.7, scope=scope)
        for name, array in values(prune(net, 0.7, scope=scope)).items():
            np.testing.assert_array_equal(found.parameters[name], array)

    def test_twice_is_as_once(self, tmp_path):
        trained(tmp_path / "c.h5")
        start = Checkpoint.open(tmp_path / "c.h5")
        once, twice = prune_checkpoint(start, 0.9), prune_checkpoint(prune_checkpoint(start, 0.4), 0.9)
        for part in ("parameters", "best", "optimizer", "structure"):
            one, other = getattr(once, part), getattr(twice, part)
            assert set(one) == set(other)
            assert all(np.array_equal(one[name], other[name]) for name in one)

    def test_masks_of_a_run_that_prunes_gradually_count(self, tmp_path):
        pruned_run(tmp_path / "c.h5", 7)
        found = Checkpoint.open(tmp_path / "c.h5")
        assert "mask/hidden->hidden.weight" in found.optimizer
        after = prune_checkpoint(found, 0.5, scope="global")  # there are more zeros than that
        assert sum(row.nonzeros for row in checkpoint_report(after) if row.sparse) == 17 * 36 - round(
            0.8 * 17 * 36
        )
        assert not any(name.startswith("mask/") for name in after.optimizer)
        small = after.in_form(copy_network(12))
        trainer = Trainer(small, "answer", Adam(small.parameters(), lr=0.02), threads=1)
        after.save(tmp_path / "p.h5")
        fit(trainer, lambda e: copy_trials(e, 5), epochs=8, checkpoint=tmp_path / "p.h5", resume=True)

    def test_sparse_networks_of_other_pairs_are_told_apart(self, tmp_path):
        trained(tmp_path / "c.h5", net=prune(copy_network(12), 0.8))
        other = copy_network(12)
        other.projections["hidden->hidden"].weight.assign(
            1 / other.projections["hidden->hidden"].weight.values
        )
        other = prune(other, 0.8)
        trainer = Trainer(other, "answer", Adam(other.parameters(), lr=0.02), threads=1)
        before = values(other)
        refused(
            lambda: fit(trainer, copy_trials, epochs=3, checkpoint=tmp_path / "c.h5", resume=True),
            CheckpointError,
            "hidden->hidden.indices",
        )
        assert all(np.array_equal(before[name], array) for name, array in values(other).items())
        whole = copy_network(12)
        trainer = Trainer(whole, "answer", Adam(whole.parameters(), lr=0.02), threads=1)
        refused(
            lambda: fit(trainer, copy_trials, epochs=3, checkpoint=tmp_path / "c.h5", resume=True),
            CheckpointError,
            "in_form",
        )

    def test_a_file_without_structure_is_read_as_before(self, tmp_path):
        small = prune(copy_network(12), 0.8)
        trained(tmp_path / "c.h5", net=small)
        with h5py.File(tmp_path / "c.h5", "r+") as file:
            del file["structure"]
        old = Checkpoint.open(tmp_path / "c.h5")
        assert old.structure == {}
        old.restore(prune(copy_network(12), 0.8).parameters())
        refused(lambda: prune_checkpoint(old, 0.9), CheckpointError, "cue->hidden", "epoch")

    def test_refusals(self, tmp_path):
        trained(tmp_path / "c.h5")
        start = Checkpoint.open(tmp_path / "c.h5")
        refused(lambda: prune_checkpoint(start, 0.5, "x"), NetworkError, "'x'", "hidden->hidden")
        refused(lambda: prune_checkpoint(start, 1.5), ParameterError, "1.5")
        refused(lambda: prune_checkpoint(Checkpoint({}), 0.5), CheckpointError, "no weights")
        start.best[WEIGHTS[0]][0, 0] = np.nan
        refused(lambda: prune_checkpoint(start, 0.5), CheckpointError, WEIGHTS[0], "finite")
        small = prune_checkpoint(Checkpoint.open(tmp_path / "c.h5"), 0.5)
        refused(lambda: small.in_form(copy_network(13)), CheckpointError, "cue->hidden", "(5, 36)", "(5, 39)")
        small.structure["hidden->hidden.indices"][0] = 99
        refused(lambda: small.in_form(copy_network(12)), CheckpointError, "damaged")
        refused(lambda: prune_checkpoint(small, 0.9), CheckpointError, "damaged")
        del small.structure["hidden->hidden.indptr"]
        refused(lambda: small.in_form(copy_network(12)), CheckpointError, "hidden->hidden")

    def test_another_structure_in_the_network(self):
        one, other = prune(network(), 0.8), prune(network(), 0.5)
        refused(lambda: with_structure(one, stored_structure(other)), NetworkError, "other places")
        assert with_structure(one, stored_structure(one)) is not one


# -- evsim prune -------------------------------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["evsim", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return left.value.code or 0, *capsys.readouterr()

    return call


SETTINGS = ("--n-symbols", 3, "--delay", 2, "--units", 10, "--trials", 3, "--batch-size", 4, "--quiet")


class TestCommand:
    def test_a_checkpoint(self, command, tmp_path):
        trained(tmp_path / "c.h5")
        code, out, err = command("prune", "c.h5", "--sparsity", 0.8, "-o", "p.h5")
        assert (code, err) == (0, "")
        assert re.search(r"^cue->hidden +sparse +180 +36 +80.0 ", out, re.MULTILINE)
        assert re.search(r"^hidden->hidden +sparse +432 +86 +80.1 ", out, re.MULTILINE)
        assert re.search(r"^hidden->answer +dense +48 +48 +0.0 ", out, re.MULTILINE)
        assert out.endswith("p.h5\n")
        assert Checkpoint.open(tmp_path / "p.h5").structure

    def test_a_run_folder_is_trained_further(self, command, tmp_path):
        assert command("run", "delayed_copy", "--out", "run", "--epochs", 1, *SETTINGS)[0] == 0
        code, _, err = command(
            "prune",
            "run",
            "--sparsity",
            0.9,
            "--scope",
            "global",
            "--projections",
            "hidden->hidden",
            "-o",
            "small",
        )
        assert (code, err) == (0, ""), err
        progress = Checkpoint.open(tmp_path / "small" / "checkpoint.h5").progress
        assert progress["training"] == {}  # what was counted was of another network
        assert command("run", "delayed_copy", "--resume", "small", "--epochs", 3, "--quiet") == (0, "", "")
        summary = json.loads((tmp_path / "small" / "summary.json").read_text())
        assert len(summary["epochs"]) == 3
        rows = {
            row.projection: row
            for row in checkpoint_report(Checkpoint.open(tmp_path / "small" / "checkpoint.h5"))
        }
        assert rows["hidden->hidden"].nonzeros == 30
        assert rows["hidden->hidden"].sparse
        assert not rows["cue->hidden"].sparse
        # ... and once more
        code, _, err = command("prune", "small", "--sparsity", 0.95, "-o", "smaller")
        assert (code, err) == (0, "")
        assert command("run", "delayed_copy", "--resume", "smaller", "--epochs", 4, "--quiet") == (0, "", "")

    def test_another_run_is_spared(self, command, tmp_path):
        """Also one that has no checkpoint."""
        assert command("run", "delayed_copy", "--out", "run", "--epochs", 1, *SETTINGS)[0] == 0
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "settings.json").write_text("dear")
        for out, said in (("other", "not empty"), ("other/settings.json/new", "cannot be used")):
            code, _, err = command("prune", "run", "--sparsity", 0.9, "-o", out)
            assert code == 2
            assert said in err
        assert (tmp_path / "other" / "settings.json").read_text() == "dear"

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("c.h5", "--sparsity", 1, "-o", "p.h5"), "sparsity is 1.0"),
            (("c.h5", "--sparsity", "nan", "-o", "p.h5"), "sparsity is nan"),
            (("c.h5", "--sparsity", "x", "-o", "p.h5"), "'x'"),
            (("c.h5", "-o", "p.h5"), "--sparsity"),
            (("c.h5", "--sparsity", 0.5), "--out"),
            (("nothing.h5", "--sparsity", 0.5, "-o", "p.h5"), "nothing.h5"),
            ((".", "--sparsity", 0.5, "-o", "p"), "checkpoint.h5"),
            (("c.h5", "--sparsity", 0.5, "-o", "c.h5"), "is the one to prune"),
            (("c.h5", "--sparsity", 0.5, "-o", "c.h5", "--force"), "is the one to prune"),
            (("c.h5", "--sparsity", 0.5, "-o", "there.h5"), "exists already"),
            (("c.h5", "--sparsity", 0.5, "-o", "no/where.h5"), "no"),
            (("c.h5", "--sparsity", 0.5, "--scope", "all", "-o", "p.h5"), "all"),
            (("c.h5", "--sparsity", 0.5, "--projections", "hiden", "-o", "p.h5"), "hiden"),
            (("there.h5", "--sparsity", 0.5, "-o", "p.h5"), "there.h5"),
        ],
    )
    def test_refusals(self, command, tmp_path, words, said):
        trained(tmp_path / "c.h5", epochs=1)
        (tmp_path / "there.h5").write_text("x")
        before = (tmp_path / "c.h5").read_bytes()
        code, out, err = command("prune", *words)
        assert (code, out) == (2, "")
        assert re.fullmatch(r"evsim: [^\n]+\n", err), err
        assert said in err, err
        assert (tmp_path / "c.h5").read_bytes() == before
        assert not (tmp_path / "p.h5").exists()
