"""Incremental learning: targets, exemplars and nearest means by hand, files of a run."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.special

from evsim.data.speech import load_recordings
from evsim.errors import ProtocolError
from evsim.protocol import RunFolder
from evsim.protocols import incremental_learning
from evsim.protocols.incremental_learning import Learner
from evsim.protocols.keyword_spotting import KeywordSpotting
from evsim.training import Tally, Trainer
from oracles.spoken_words import (
    BANDS,
    N_WORDS,
    PNG,
    UNITS,
    alone,
    command_line,
    network_for,
    numbers_in,
    options,
    read,
    refused,
    values,
)

pytestmark = pytest.mark.usefixtures("nothing_slow")

TINY_TASKS = {
    "cell": "gru",
    "units": UNITS,
    "threshold": 0.1,
    "first-words": 2,
    "new-words": 2,
    "memory": 10,
    "first-epochs": 2,
    "epochs": 2,
    "hop": 20,
}


def feature(network, task, number):
    """The layer's outputs averaged over the frames of a word, scaled to length 1."""
    mean = alone(network, task, number)["layer1"].state[:, 0].astype(float).mean(axis=0)
    return mean / np.sqrt((mean**2).sum())


def herded(network, task, word, number):
    """Greedily, by definition: what brings the mean of the chosen closest to the mean of the word."""
    candidates = [i for i in task.part("train") if task.recordings.label[i] == word]
    features = {i: feature(network, task, i) for i in candidates}
    goal, chosen = np.mean([features[i] for i in candidates], axis=0), []
    while len(chosen) < min(number, len(candidates)):
        distance = {
            i: np.linalg.norm(goal - np.mean([features[j] for j in [*chosen, i]], axis=0))
            for i in candidates
            if i not in chosen
        }
        chosen.append(min(distance, key=distance.get))
    return [int(i) for i in chosen]


class Listener:
    """Takes the place of the trainer: hears all, learns nothing."""

    heard = ()

    def __init__(self, network, readout, optimizer, loss):
        assert readout == "word"
        assert loss is incremental_learning.binary_cross_entropy
        self.optimizer = optimizer

    def learn(self, trials):
        self.heard.append((self.optimizer.lr, list(trials)))
        return Tally(trials=len(self.heard[-1][1]))


@pytest.fixture
def heard(monkeypatch):
    """(rate, trials) of every pass."""
    monkeypatch.setattr(incremental_learning, "Trainer", Listener)
    monkeypatch.setattr(Listener, "heard", [])
    return Listener.heard


@pytest.fixture(scope="module")
def many(recordings):
    """Nearly all recordings are for training: 14 of each word, one is for validation and one for the test."""
    part = np.full(len(recordings), "train", dtype="<U5")
    for word in range(N_WORDS):
        part[np.flatnonzero(recordings.label == word)[[2, 11]]] = ("valid", "test")
    return KeywordSpotting(replace(recordings, part=part), bands=BANDS, hop=20.0, seed=3)


class TestLearnerTargets:
    def test_are_what_the_old_network_says_of_old_words_truth_for_new_ones_and_nothing_for_later_ones(
        self, task, heard
    ):
        network = network_for(task, layers=1)
        learner = Learner(task, network, memory=20)
        learner.learn(np.array([4, 1]), 1, 0.01, 32)
        learner.learn(np.array([2]), 1, 0.01, 3)
        label = task.recordings.label
        (_, first), (_, second) = heard
        for trials, new, old in ((first, [4, 1], []), (second, [2], [4, 1])):
            later = sorted({0, 1, 2, 3, 4} - {*new, *old})
            for trial in trials:
                for lane, number in enumerate(numbers_in(task, trial)):
                    length = len(task.features[number])
                    goal = trial.target[:length, lane]
                    said = scipy.special.expit(alone(network, task, number)["word"].state[:, 0])
                    np.testing.assert_allclose(goal[:, old], said[:, old], rtol=1e-5)
                    assert (goal[:, new] == [word == label[number] for word in new]).all()
                    assert np.isnan(goal[:, later]).all()
                    assert np.isnan(trial.target[length:, lane]).all()

    def test_every_pass_has_all_new_words_and_all_exemplars_in_an_order_of_its_own(self, task, heard):
        learner = Learner(task, network_for(task, layers=1), memory=10)
        learner.learn(np.array([0, 3]), 2, 0.01, 4)
        kept = [int(i) for word in (0, 3) for i in learner.exemplars[word]]
        learner.learn(np.array([1]), 3, 0.01, 1)
        label = task.recordings.label
        for wanted, passes in (((0, 3), heard[:2]), ((1,), heard[2:])):
            train = [int(i) for i in task.part("train") if label[i] in wanted]
            orders = [[i for trial in trials for i in numbers_in(task, trial)] for _, trials in passes]
            assert all(sorted(order) == sorted(train + kept * (wanted == (1,))) for order in orders)
            assert len({tuple(order) for order in orders}) == len(orders)
        assert [len(trials) for _, trials in heard] == [2, 2, 4 + len(kept), 4 + len(kept), 4 + len(kept)]

    def test_the_first_pass_of_a_later_task_goes_in_small_steps(self, task, heard):
        learner = Learner(task, network_for(task, layers=1), memory=10)
        learner.learn(np.array([0, 3]), 2, 0.02, 4)
        learner.learn(np.array([1]), 3, 0.01, 1)
        assert [rate for rate, _ in heard] == pytest.approx([0.02, 0.02, 0.001, 0.01, 0.01])


class TestExemplars:
    def test_are_herded(self, many, heard):
        network = network_for(many, layers=1)
        learner = Learner(many, network, memory=13)
        learner.learn(np.array([2, 0]), 1, 0.01, 32)
        for word in (2, 0):
            assert learner.exemplars[word].tolist() == herded(network, many, word, 6)

    def test_of_old_words_are_cut_from_the_end_and_not_chosen_again(self, many, heard):
        network = network_for(many, layers=1)
        learner = Learner(many, network, memory=13)
        before = {}
        for new, share in (([2, 0], 6), ([1], 4), ([3, 4], 2)):
            learner.learn(np.array(new), 1, 0.01, 32)
            assert {word: len(chosen) for word, chosen in learner.exemplars.items()} == dict.fromkeys(
                learner.known, share
            )
            assert sum(map(len, learner.exemplars.values())) <= 13
            for word, chosen in before.items():
                assert learner.exemplars[word].tolist() == chosen[:share]
            before = {word: chosen.tolist() for word, chosen in learner.exemplars.items()}
            for parameter in network.parameters().values():
                if parameter.trainable:
                    parameter.values *= -0.8  # another network by now, which would choose others
        assert learner.known == [2, 0, 1, 3, 4]

    def test_are_all_there_are_if_memory_allows(self, task, heard):
        learner = Learner(task, network_for(task, layers=1), memory=1000)
        learner.learn(np.array([2, 0]), 1, 0.01, 32)
        for word in (2, 0):
            train = [i for i in task.part("train") if task.recordings.label[i] == word]
            assert sorted(learner.exemplars[word]) == train


class TestNearestMean:
    def test_names_the_word_whose_exemplars_are_nearest(self, task, heard):
        network = network_for(task, layers=1)
        learner = Learner(task, network, memory=10)
        learner.learn(np.array([4, 2, 1]), 1, 0.01, 32)
        means = {}
        for word, chosen in learner.exemplars.items():
            mean = np.mean([feature(network, task, i) for i in chosen], axis=0)
            means[word] = mean / np.linalg.norm(mean)
        test = [i for i in task.part("test") if task.recordings.label[i] in (4, 2, 1)]
        right = []
        for number in test:
            distance = {w: np.linalg.norm(feature(network, task, number) - m) for w, m in means.items()}
            right.append(min(distance, key=distance.get) == task.recordings.label[number])
        assert len(test) == 30
        assert learner.accuracy() == np.mean(right)
        assert 1 / 3 < np.mean(right) < 1

    def test_after_one_word_is_always_right(self, task, heard):
        learner = Learner(task, network_for(task, layers=1), memory=5)
        learner.learn(np.array([3]), 1, 0.01, 32)
        assert learner.accuracy() == 1


def test_learning_does_not_depend_on_the_lanes_of_features_and_answers(task):
    found = []
    for lanes in (1, 7, 64):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(incremental_learning, "LANES", lanes)
            network = network_for(task, layers=1)
            learner = Learner(task, network, memory=10)
            learner.learn(np.array([4, 1]), 2, 0.01, 8)
            learner.learn(np.array([2, 3]), 1, 0.01, 1)
            chosen = {word: numbers.tolist() for word, numbers in learner.exemplars.items()}
            found.append((values(network), chosen, learner.accuracy()))
    assert found[0] == found[1] == found[2]


def test_learning_lowers_the_loss(task):
    """The mean over ten passes is below that of the first."""
    losses = [
        Learner(task, network_for(task, layers=1), 10).learn(np.array([4, 1]), epochs, 0.01, 1).mean_loss
        for epochs in (1, 10)
    ]
    assert losses[1] < 0.8 * losses[0]


class TestWhatCannotBeLearned:
    @pytest.mark.parametrize("part", ["train", "test"])
    def test_a_word_without_recordings(self, task, part):
        recordings = task.recordings
        parts = np.where((recordings.label == 3) & (recordings.part == part), "valid", recordings.part)
        without = KeywordSpotting(replace(recordings, part=parts), bands=BANDS, hop=20.0)
        with pytest.raises(ProtocolError, match=f"no {part} recordings of '3'"):
            Learner(without, network_for(without, layers=1), memory=10)

    def test_more_words_than_memory(self, task):
        with pytest.raises(ProtocolError, match="memory is 4, there are 5 words"):
            Learner(task, network_for(task, layers=1), memory=4)


# -- runs of incremental_learning ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def incremented(tmp_path_factory, data):
    """A run's folder, and the trials of each pass that a network learned from, by the network's threshold."""
    folder, frames = tmp_path_factory.mktemp("incremented") / "run", {}

    class Overheard(Trainer):
        def learn(self, trials):
            theta = float(self.network["mel"].parameters["threshold"].values[0])
            passes = frames.setdefault(round(theta, 6), [])
            passes.append([])

            def listen():
                for trial in trials:
                    passes[-1].append(trial)
                    yield trial

            return super().learn(listen())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(incremental_learning, "Trainer", Overheard)
        words = options(data=data, **TINY_TASKS)
        assert command_line("incremental_learning", *words, "--out", folder, "--quiet") == 0
    return folder, frames


class TestIncrementalLearningRun:
    def test_files(self, incremented):
        folder, _ = incremented
        assert sorted(path.name for path in folder.iterdir()) == [
            "incremental_learning.png",
            "settings.json",
            "summary.json",
        ]
        assert (folder / "incremental_learning.png").read_bytes().startswith(PNG)

    def test_every_word_is_in_one_task(self, incremented):
        words = read(incremented[0] / "summary.json")["words"]
        assert [len(task) for task in words] == [2, 2, 1]
        assert sorted(word for task in words for word in task) == ["0", "1", "2", "3", "4"]

    def test_curves(self, incremented):
        summary = read(incremented[0] / "summary.json")
        assert summary["torch_seconds_per_step"] is None
        assert set(summary["curves"]) == {"dense", "delta"}
        for curve in summary["curves"].values():
            assert [entry["task"] for entry in curve] == [0, 1, 2]
            assert [entry["words"] for entry in curve] == [2, 4, 5]
            # 8 recordings at a time; then 8 + 8 and 4 + 8 (two exemplars of each known word), two passes.
            assert [entry["steps"] for entry in curve] == [2, 2 * (8 + 8), 2 * (4 + 8)]
            for entry in curve:
                assert 0 < entry["accuracy"] <= 1
                assert entry["seconds"] >= entry["steps"] * entry["seconds_per_step"] > 0
                assert set(entry["macs"]) == {"forward", "state", "weight"}
        for dense, delta in zip(*(summary["curves"][name] for name in ("dense", "delta")), strict=True):
            for kind in dense["macs"]:
                assert delta["macs"][kind] < dense["macs"][kind]
                assert delta["work_per_frame"][kind]["dense"] == dense["work_per_frame"][kind]["dense"]
        wide = 3 * UNITS * (16 + UNITS) + UNITS * N_WORDS
        assert dense["work_per_frame"]["forward"]["dense"] == wide

    def test_both_networks_hear_the_same_new_words_in_the_same_places(self, incremented, data):
        folder, frames = incremented
        task = KeywordSpotting(load_recordings(data), 32, 16, 20.0)
        tasks = [[int(word) for word in words] for words in read(folder / "summary.json")["words"]]
        dense, delta = (
            [[i for trial in trials for i in numbers_in(task, trial)] for trials in frames[theta]]
            for theta in (0.0, 0.1)
        )
        assert len(dense) == len(delta) == 6
        for number, (mine, theirs) in enumerate(zip(dense, delta, strict=True)):
            label, new = task.recordings.label, tasks[number // 2]
            train = [i for i in task.part("train") if label[i] in new]
            assert sorted(i for i in mine if label[i] in new) == train
            old = {int(label[i]) for i in mine} - set(new)
            assert old == {word for words in tasks[: number // 2] for word in words}
            assert [label[i] for i in mine] == [label[i] for i in theirs]
            for one, other in zip(mine, theirs, strict=True):
                assert one == other or label[one] in old

    def test_all_words_at_once(self, data, tmp_path):
        settings = {"first_words": 5, "memory": 10, "first_epochs": 1, "units": UNITS, "hop": 20.0}
        summary = incremental_learning.run(RunFolder(tmp_path, quiet=True), data=data, **settings)
        assert [len(words) for words in summary["words"]] == [5]
        assert (tmp_path / "incremental_learning.png").read_bytes().startswith(PNG)

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--first-words", "6"], "first_words is 6, there are 5 words"),
            (["--first-words", "0"], "first_words is 0"),
            (["--new-words", "0"], "new_words is 0"),
            (["--memory", "4"], "memory is 4"),
            (["--threshold", "-0.1"], "threshold is -0.1"),
            (["--threshold", "nan"], "threshold is nan"),
            (["--lr", "-1"], "lr is -1"),
            (["--first-lr", "inf"], "first_lr is inf"),
            (["--first-epochs", "0"], "first_epochs is 0"),
            (["--epochs", "0"], "epochs is 0"),
            (["--units", "0"], "units is 0"),
            (["--seed", "-1"], "seed is -1"),
            (["--data", "nowhere"], "'nowhere': no such folder"),
        ],
    )
    def test_bad_options_are_one_line(self, data, tmp_path, capsys, monkeypatch, words, said):
        def learn(*args):
            raise AssertionError("found only after something was learned")

        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(Learner, "learn", learn)
        words = [*options(data=data, **TINY_TASKS), *words]
        assert said in refused(capsys, "incremental_learning", *words, "--quiet", "--out", "out")
