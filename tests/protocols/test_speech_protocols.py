"""The protocols of spoken words: trials, accuracy and work by hand, files of a run, runs stopped anywhere."""

import json
import re
import sys
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.special
from scipy.io import wavfile

from evsim import cli
from evsim.checkpoint import Checkpoint
from evsim.data.features import log_mel
from evsim.data.formants import synthetic_words
from evsim.data.speech import load_recordings
from evsim.errors import DataError, ProtocolError
from evsim.eventlog import EventLog
from evsim.fixed_point import FixedPoint, quantize
from evsim.optimizer import SGD
from evsim.protocol import RunFolder, Trial
from evsim.protocols import incremental_learning, keyword_spotting
from evsim.protocols.incremental_learning import Learner
from evsim.protocols.keyword_spotting import (
    KeywordSpotting,
    accuracy,
    build,
    open_recordings,
    set_thresholds,
    silence,
    summarise,
    torch_step_seconds,
    work,
)
from evsim.simulation import Simulation
from evsim.training import Tally, Trainer

PNG = b"\x89PNG\r\n\x1a\n"
N_WORDS, BANDS, UNITS = 5, 6, 8
TINY = {"units": UNITS, "epochs": 2, "thresholds": "0,0.2", "lanes": 8, "bands": BANDS, "hop": 20}
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


def command_line(*words):
    """The exit code of ``evsim run``, in this process."""
    before, sys.argv = sys.argv, ["evsim", "run", *map(str, words)]
    try:
        with pytest.raises(SystemExit) as left:
            cli.main()
    finally:
        sys.argv = before
    return left.value.code or 0


def options(**settings):
    return [word for key, value in settings.items() for word in (f"--{key.replace('_', '-')}", value)]


def refused(capsys, *words):
    """Exit code 2 and one line on stderr, which is returned."""
    assert command_line(*words) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(r"evsim: [^\n]+\n", said), said
    return said


def read(path):
    return json.loads(path.read_text())


def bits(arrays):
    return {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()}


def values(network):
    return bits({name: parameter.values for name, parameter in network.parameters().items()})


def without_times(item):
    if isinstance(item, dict):
        return {key: without_times(value) for key, value in item.items() if "seconds" not in key}
    return [without_times(part) for part in item] if isinstance(item, list) else item


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Digits by two voices, named as in the Free Spoken Digit Dataset; 20 train, 10 valid, 50 test."""
    folder = tmp_path_factory.mktemp("digits")
    words = synthetic_words(seed=0, n_words=N_WORDS, n_speakers=2, n_each=8)
    index = Counter()
    for wave, label, speaker in zip(words.waves, words.label, words.speaker, strict=True):
        name = f"{label}_{speaker}"
        wavfile.write(
            folder / f"{name}_{index[name]}.wav", words.rate, np.round(wave * 32767).astype(np.int16)
        )
        index[name] += 1
    return folder


@pytest.fixture(scope="module")
def recordings(data):
    return load_recordings(data)


@pytest.fixture(scope="module")
def task(recordings):
    return KeywordSpotting(recordings, lanes=7, bands=BANDS, hop=20.0, seed=3)


class NoPicture:
    def savefig(self, path, **options):
        path.touch()


@pytest.fixture(scope="module", autouse=True)
def _nothing_slow():
    """Neither PyTorch's time, which a test of its own measures, nor rasters, which have their own tests."""
    with pytest.MonkeyPatch.context() as patch:
        for protocol in (keyword_spotting, incremental_learning):
            patch.setattr(protocol, "torch_step_seconds", lambda *args, **options: None)
        patch.setattr(EventLog, "figure", lambda log: NoPicture())
        yield


@pytest.fixture
def no_pictures(monkeypatch):
    monkeypatch.setattr(keyword_spotting, "_draw", lambda *args: None)
    monkeypatch.setattr(incremental_learning, "_draw", lambda *args: None)


# -- trials ----------------------------------------------------------------------------------------------


def numbers_in(task, trial):
    """The recordings of a trial, found by their frames."""
    place = {frames.tobytes(): number for number, frames in enumerate(task.features)}
    return [
        place[np.ascontiguousarray(trial.stimulus[:length, lane]).tobytes()]
        for lane, length in enumerate(trial.lengths)
    ]


def draw(task, stream=0):
    return [number for trial in task.trials(stream) for number in numbers_in(task, trial)]


class TestTrials:
    def test_a_lane_is_a_word_padded_with_zeros_that_nothing_is_asked_of(self, task):
        numbers = np.array([3, 70, 41])
        trial = task.trial(numbers)
        frames = [task.features[number] for number in numbers]
        assert len({len(f) for f in frames}) > 1
        assert trial.lengths.tolist() == [len(f) for f in frames]
        assert trial.stimulus.shape == (max(trial.lengths), 3, BANDS)
        assert trial.stimulus.dtype == np.float32
        assert trial.target.shape == (max(trial.lengths), 3)
        for lane, (number, f) in enumerate(zip(numbers, frames, strict=True)):
            assert np.array_equal(trial.stimulus[: len(f), lane], f)
            assert not trial.stimulus[len(f) :, lane].any()
            assert (trial.target[: len(f), lane] == task.recordings.label[number]).all()
            assert (trial.target[len(f) :, lane] == -1).all()
        assert not trial.carry

    def test_ends_fit_the_data(self, task):
        assert (task.n_inputs, task.n_outputs) == (BANDS, N_WORDS)

    def test_a_pass_has_every_training_word_once(self, task):
        trials = list(task.trials(0))
        assert len(trials) == len(task) == 3
        assert [len(trial.lengths) for trial in trials] == [7, 7, 6]
        train = [i for i, part in enumerate(task.recordings.part) if part == "train"]
        assert sorted(draw(task)) == train
        assert len(train) == 20

    def test_order_is_that_of_seed_and_stream(self, recordings, task):
        again = KeywordSpotting(recordings, lanes=7, bands=BANDS, hop=20.0, seed=3)
        other = KeywordSpotting(recordings, lanes=7, bands=BANDS, hop=20.0, seed=4)
        orders = [draw(task, 0), draw(task, 1), draw(other, 0), draw(other, 1)]
        assert len({tuple(order) for order in orders}) == 4
        assert [draw(again, 0), draw(again, 1)] == orders[:2]

    def test_order_does_not_depend_on_the_lanes(self, recordings, task):
        wide = KeywordSpotting(recordings, lanes=100, bands=BANDS, hop=20.0, seed=3)
        assert draw(wide) == draw(task)
        assert len(wide) == 1

    @pytest.mark.parametrize(("part", "number"), [("train", 20), ("valid", 10), ("test", 50)])
    @pytest.mark.parametrize("lanes", [3, 64])
    def test_a_check_covers_a_part_once(self, task, monkeypatch, part, number, lanes):
        monkeypatch.setattr(keyword_spotting, "CHECK_LANES", lanes)
        found = [n for trial in task.check(part) for n in numbers_in(task, trial)]
        assert found == [i for i, p in enumerate(task.recordings.part) if p == part]
        assert len(found) == number

    def test_features_are_normalised_by_the_training_words(self, recordings, task):
        """By definition, in float64."""
        heard = [log_mel(wave, 8000, BANDS, frame=0.04, hop=0.02).astype(float) for wave in recordings.waves]
        train = np.concatenate([heard[i] for i in np.flatnonzero(recordings.part == "train")])
        for mine, theirs in zip(task.features, heard, strict=True):
            np.testing.assert_allclose(mine, (theirs - train.mean(axis=0)) / train.std(axis=0), atol=2e-5)

    def test_other_words_have_no_part_in_the_normalisation(self, recordings, task):
        rng = np.random.default_rng(0)
        waves = [
            wave if part == "train" else rng.normal(size=4000).astype(np.float32)
            for wave, part in zip(recordings.waves, recordings.part, strict=True)
        ]
        noisy = KeywordSpotting(replace(recordings, waves=waves), bands=BANDS, hop=20.0)
        for number in task.part("train"):
            assert np.array_equal(noisy.features[number], task.features[number])

    @pytest.mark.parametrize(("hop", "frame"), [(10.0, 0.032), (20.0, 0.04)])
    def test_a_frame_is_two_hops_and_32_ms_at_least(self, recordings, hop, frame):
        frames = KeywordSpotting(recordings, bands=BANDS, hop=hop).features
        for found, wave in zip(frames, recordings.waves, strict=True):
            assert len(found) == 1 + (len(wave) - round(frame * 8000)) // round(8 * hop)

    @pytest.mark.parametrize("setting", [{"lanes": 0}, {"bands": 0}, {"seed": -1}])
    def test_settings_that_cannot_work(self, recordings, setting):
        (name, value), *_ = setting.items()
        with pytest.raises(ProtocolError, match=f"{name} is {value}"):
            KeywordSpotting(recordings, **setting)


class TestHeldOut:
    def parts(self, recordings):
        return {
            speaker: sorted(set(recordings.part[recordings.speaker == speaker].tolist()))
            for speaker in np.unique(recordings.speaker).tolist()
        }

    def test_no_name_leaves_the_split_of_the_data(self, data):
        assert set(map(tuple, self.parts(open_recordings(data)).values())) == {("test", "train", "valid")}

    @pytest.mark.parametrize("names", ["voice1", " voice1 "])
    def test_voices_are_in_the_test_only(self, data, names):
        assert self.parts(open_recordings(data, names)) == {"voice0": ["train", "valid"], "voice1": ["test"]}

    def test_several_voices(self):
        """Of synthetic words, because the folder has two."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                keyword_spotting,
                "load_recordings",
                lambda path: synthetic_words(n_words=2, n_speakers=4, n_each=4),
            )
            found = self.parts(open_recordings(None, "voice3, voice0"))
        learned = ["train", "valid"]
        assert found == {"voice0": ["test"], "voice1": learned, "voice2": learned, "voice3": ["test"]}

    @pytest.mark.parametrize("names", ["voice9", "voice0,,voice1", "", "voice0,voice1"])
    def test_voices_that_cannot_be_held_out(self, data, names):
        with pytest.raises(DataError):
            open_recordings(data, names)


# -- accuracy and work -----------------------------------------------------------------------------------


def network_for(task, cell="lstm", layers=2, theta=0.1, seed=1):
    """Weights large enough that the words are told apart at all."""
    network = build(task, cell, UNITS, layers, theta, seed)
    for name, parameter in network.parameters().items():
        if name.endswith(".weight"):
            parameter.values *= 2
    return network


def alone(network, task, number):
    """The log of one word in a lane of its own."""
    return Simulation(network).run(task.features[number])


def named(network, task, number):
    """The word that a network names, alone in its lane: the most likely one, all frames being independent."""
    state = alone(network, task, number)["word"].state[:, 0].astype(float)
    return int(scipy.special.log_softmax(state, axis=-1).sum(axis=0).argmax())


def accuracy_by_hand(network, task, part):
    numbers = np.flatnonzero(task.recordings.part == part)
    return np.mean([named(network, task, number) == task.recordings.label[number] for number in numbers])


class TestAccuracy:
    @pytest.mark.parametrize("cell", ["lstm", "gru"])
    def test_is_that_of_each_word_alone(self, task, cell):
        network = network_for(task, cell)
        found = accuracy(Simulation(network), task.check("test"))
        assert found == accuracy_by_hand(network, task, "test")
        assert 0 < found < 1
        assert len({named(network, task, number) for number in task.part("test")}) > 1

    def test_by_hand(self):
        """Three words of two classes: right, wrong, and right because nothing behind its end is heard."""
        state = np.zeros((3, 3, 2), np.float32)
        state[:, 0] = [[1, 0], [0, 3], [0, 0]]  # 1 by 3 to 1
        state[:, 1] = [[1, 0], [1, 0], [0, 1.5]]  # 0 by 2 to 1.5
        state[:, 2] = [[1, 0], [0, 9], [0, 9]]  # 0 in its one frame
        target = np.array([[1, 1, 0], [1, 1, -1], [1, 1, -1]])
        log = {"word": SimpleNamespace(state=state)}
        simulation = SimpleNamespace(run=lambda stimulus, lengths, tape: log)
        trial = Trial(np.zeros((3, 3, 1)), target, lengths=np.array([3, 3, 1]))
        assert accuracy(simulation, iter([trial, trial])) == 2 / 3

    def test_of_no_words(self):
        assert accuracy(None, iter([])) == 0


def silence_by_hand(network, task):
    """Of the layers, in the test words, one word at a time."""
    logs = [alone(network, task, number) for number in task.part("test")]
    sent = [len(log[name].events) for log in logs for name in ("layer1", "layer2")]
    return 1 - sum(sent) / sum(2 * UNITS * log.n_steps for log in logs)


def test_silence_is_that_of_each_word_alone(task):
    network = network_for(task, theta=0.2)
    found = silence(Simulation(network), task.check("test"))
    assert found == pytest.approx(silence_by_hand(network, task), rel=1e-12)
    assert 0.1 < found < 1


def count(log, name, last=True):
    """Events of a population, or of all steps of a lane but its last."""
    events = log[name].events
    return int((events.step < log.lengths[events.lane] - (not last)).sum())


class TestWork:
    @pytest.mark.parametrize("layers", [1, 2])
    @pytest.mark.parametrize(("cell", "gates"), [("lstm", 4), ("gru", 3)])
    def test_is_gates_h_n_x_plus_n_h_in_every_frame_and_of_the_events_if_they_are_fewer(
        self, task, cell, gates, layers
    ):
        network = network_for(task, cell, layers)
        trainer = Trainer(network, "word", SGD(network.parameters(), lr=0.0))
        found = work(network, trainer.learn(task.trials(0)))
        frames = sum(len(task.features[i]) for i in task.part("train"))
        sizes = [BANDS, *[UNITS] * layers]
        forward = sum(gates * UNITS * (n_x + UNITS) for n_x in sizes[:-1]) + UNITS * N_WORDS
        into_input = forward - gates * UNITS * BANDS
        dense = {"forward": forward, "state": into_input, "weight": forward}
        names = ["mel", *[f"layer{number}" for number in range(1, layers + 1)]]
        event = Counter()
        for trial in task.trials(0):
            log = Simulation(network).run(trial.stimulus, lengths=trial.lengths)
            sent = [count(log, name) for name in names]
            # What a layer sends in the last frame of a word does not come back to it.
            arrived = [count(log, name, last=False) for name in names[1:]]
            within = gates * UNITS * (sum(sent[1:-1]) + sum(arrived)) + N_WORDS * count(log, "output")
            event["state"] += within
            event["forward"] += within + gates * UNITS * sent[0]
        event["weight"] = event["forward"]
        assert set(found) == {"forward", "state", "weight"}
        for kind in found:
            assert found[kind]["dense"] == dense[kind], kind
            assert found[kind]["event"] * frames == pytest.approx(event[kind], rel=1e-12), kind
            assert found[kind]["event"] < found[kind]["dense"]

    def test_of_a_network_with_threshold_0_is_nearly_dense(self, task):
        """All that is missing is what the last frames send back, and a band that stood still."""
        network = network_for(task, theta=0.0)
        trainer = Trainer(network, "word", SGD(network.parameters(), lr=0.0))
        for macs in work(network, trainer.learn(task.trials(0))).values():
            assert 0.95 < macs["event"] / macs["dense"] < 1


def test_set_thresholds(task):
    network = network_for(task, theta=0.1)
    before = values(network)
    set_thresholds(network, 0.3)
    after = values(network)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"mel.threshold", "layer1.threshold", "layer2.threshold"}
    for name in changed:
        assert (network.parameters()[name].values == np.float32(0.3)).all()
    assert not network.parameters()["output.threshold"].values.any()
    set_thresholds(network, 0.1)
    assert values(network) == before


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_networks_of_one_seed_differ_in_their_thresholds_only(task, cell):
    one, other = (build(task, cell, UNITS, 2, theta, 5) for theta in (0.0, 0.4))
    set_thresholds(one, 0.4)
    assert values(one) == values(other)
    assert values(build(task, cell, UNITS, 2, 0.4, 6)) != values(other)


def result(theta, seed, valid, test, mel, layers, forward, state, seconds):
    return {
        "theta": theta,
        "seed": seed,
        "accuracy": {"valid": valid, "test": test},
        "activity": {"mel": mel, "layer1": layers[0], "layer2": layers[1]},
        "work": {
            "forward": {"event": forward, "dense": 100.0},
            "state": {"event": state, "dense": 50.0},
            "weight": {"event": forward, "dense": 100.0},
        },
        "seconds_per_step": seconds,
    }


def test_summary_of_several_seeds_has_their_means():
    rows = summarise(
        [
            result(0.0, 0, 0.8, 1.0, 1.0, (1.0, 0.5), 100.0, 50.0, 0.1),
            result(0.2, 0, 0.5, 0.75, 0.5, (0.25, 0.75), 40.0, 20.0, 0.2),
            result(0.2, 1, 0.7, 0.25, 0.3, (0.1, 0.3), 60.0, 10.0, 0.4),
        ],
        [0.2, 0.0],
    )
    assert [row["theta"] for row in rows] == [0.2, 0.0]
    both, alone = rows
    assert both["accuracy_by_seed"] == [0.75, 0.25]
    assert both["accuracy"] == 0.5
    assert both["validation"] == pytest.approx(0.6)
    assert both["sparsity_input"] == pytest.approx(0.6)
    assert both["sparsity_hidden"] == pytest.approx(1 - (0.25 + 0.75 + 0.1 + 0.3) / 4)
    assert both["work"] == {
        "forward": {"event": 50.0, "dense": 100.0},
        "state": {"event": 15.0, "dense": 50.0},
        "weight": {"event": 50.0, "dense": 100.0},
    }
    assert both["saved"] == pytest.approx(1 - (50 + 15 + 50) / 250)
    assert both["seconds_per_step"] == pytest.approx(0.3)
    assert (alone["accuracy"], alone["saved"]) == (1.0, 0.0)


class TestPeer:
    def test_is_left_out_without_pytorch(self, task, monkeypatch):
        monkeypatch.setitem(sys.modules, "torch", None)
        assert torch_step_seconds(task, "lstm", UNITS, 2, 4) is None

    @pytest.mark.peer
    @pytest.mark.parametrize("cell", ["lstm", "gru"])
    def test_takes_time_where_there_is_pytorch(self, task, cell):
        pytest.importorskip("torch")
        assert torch_step_seconds(task, cell, UNITS, 2, 4) > 0


# -- runs of keyword_spotting ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spotted(tmp_path_factory, data):
    """A run in one go, with its picture."""
    folder = tmp_path_factory.mktemp("spotted") / "run"
    assert command_line("keyword_spotting", *options(data=data, **TINY), "--out", folder, "--quiet") == 0
    return folder


def trained(folder, task, theta):
    """The network of a run with the parameters that were kept."""
    network = build(task, "lstm", UNITS, 2, theta, 0)
    Checkpoint.open(folder / f"network-theta{float(theta)!r}-seed0.h5").restore(network.parameters(), best=True)
    return network


def outcome(folder):
    """All that a run leaves and that does not depend on the time of day."""
    networks = {}
    for path in sorted(folder.glob("*.h5")):
        if path.name != "events.h5":
            found = Checkpoint.open(path)
            networks[path.name] = (
                bits(found.parameters),
                bits(found.best),
                bits(found.optimizer),
                without_times(found.progress),
            )
    jsons = {name: without_times(read(folder / name)) for name in ("summary.json", "results.json")}
    return networks, jsons, sorted(path.name for path in folder.iterdir() if path.suffix != ".png")


class TestKeywordSpottingRun:
    def test_files(self, spotted):
        assert {path.name for path in spotted.iterdir()} == {
            "checkpoint.h5",
            "events.h5",
            "keyword_spotting.png",
            "network-theta0.0-seed0.h5",
            "network-theta0.2-seed0.h5",
            "raster.png",
            "results.json",
            "settings.json",
            "summary.json",
        }
        assert (spotted / "keyword_spotting.png").read_bytes().startswith(PNG)

    def test_summary(self, spotted, task):
        summary = read(spotted / "summary.json")
        assert summary["torch_seconds_per_step"] is None
        assert "train=20, valid=10, test=50" in summary["data"]
        assert [row["theta"] for row in summary["rows"]] == [0.0, 0.2]
        for row in summary["rows"]:
            network = trained(spotted, task, row["theta"])
            assert row["accuracy"] == accuracy_by_hand(network, task, "test")
            assert row["validation"] == accuracy_by_hand(network, task, "valid")
            assert row["accuracy_by_seed"] == [row["accuracy"]]
            assert row["work"]["forward"]["dense"] == 4 * UNITS * (BANDS + 3 * UNITS) + UNITS * N_WORDS
            assert row["seconds_per_step"] > 0
        dense, delta = summary["rows"]
        for place in ("sparsity_input", "sparsity_hidden", "saved"):
            assert 0 <= dense[place] < 0.05 < delta[place] < 1, place

    def test_set_after_training(self, spotted, task):
        dense, delta = read(spotted / "summary.json")["rows"]
        assert dense["after_training"] == dense["accuracy"]
        network = trained(spotted, task, 0.0)
        for name in ("mel", "layer1", "layer2"):
            network[name].parameters["threshold"].assign(0.2)
        assert delta["after_training"] == accuracy_by_hand(network, task, "test")

    def test_activity_is_that_of_the_last_epoch(self, spotted):
        """The sums in the checkpoint, and the results made of them."""
        for kept in read(spotted / "results.json")["done"]:
            path = spotted / f"network-theta{kept['theta']!r}-seed0.h5"
            tally = Tally(**Checkpoint.open(path).progress["training"])
            assert tally.trials == 3
            assert kept["activity"] == {
                name: tally.events[name] / tally.unit_steps[name] for name in ("mel", "layer1", "layer2")
            }

    def test_log_is_of_the_longest_test_word_in_the_middle_threshold(self, spotted, task):
        log, network = EventLog.open(spotted / "events.h5"), trained(spotted, task, 0.2)
        assert log.provenance["protocol"] == "keyword_spotting"
        assert log.provenance["settings"] == read(spotted / "settings.json")["options"]
        assert log.names == ["mel", "layer1", "layer2", "output", "word"]
        test = task.part("test")
        word = alone(network, task, test[np.argmax([len(task.features[i]) for i in test])])
        for name in ("mel", "layer1", "layer2", "output"):
            assert log[name].events.equal(word[name].events)
            assert log[name].n_events > 0

    def test_fixed_point(self, spotted, task):
        """The trained networks once more, with rounded numbers: Q2.6 ends at 2 - 1/64."""
        summary = read(spotted / "summary.json")
        assert list(summary["formats"].values())[:3] == ["Q8.8", "Q2.6", "Q2.4"]
        for row in summary["rows"]:
            found, network = row["fixed_point"], trained(spotted, task, row["theta"])
            rounded = quantize(network, FixedPoint("Q8.8", "Q2.6", "Q2.4"))
            assert found["accuracy_float"] == row["accuracy"]
            assert found["accuracy_fixed"] == accuracy_by_hand(rounded, task, "test")
            assert found["sparsity_float"] == pytest.approx(silence_by_hand(network, task), rel=1e-12)
            assert found["sparsity_fixed"] == pytest.approx(silence_by_hand(rounded, task), rel=1e-12)
            assert found["cut"] == 0

    def test_seeds(self, tmp_path, data, task, no_pictures):
        settings = TINY | {"seeds": 2, "epochs": 1, "cell": "gru", "layers": 1}
        summary = keyword_spotting.run(RunFolder(tmp_path, quiet=True), data=data, **settings)
        kept = [(r["theta"], r["seed"]) for r in read(tmp_path / "results.json")["done"]]
        assert sorted(kept) == [(0.0, 0), (0.0, 1), (0.2, 0), (0.2, 1)]
        for row in summary["rows"]:
            assert len(row["accuracy_by_seed"]) == 2
            assert row["accuracy"] == pytest.approx(np.mean(row["accuracy_by_seed"]))
        assert summary["rows"][0]["after_training"] == pytest.approx(summary["rows"][0]["accuracy"])

    def test_without_a_dense_network_nothing_is_set_after_training(self, tmp_path, data, no_pictures):
        folder = RunFolder(tmp_path, quiet=True)
        summary = keyword_spotting.run(folder, data=data, **TINY | {"thresholds": "0.1", "epochs": 1})
        assert "after_training" not in summary["rows"][0]

    def test_change_cost_quiets_the_units(self, tmp_path, data, no_pictures):
        silent = []
        for cost in (0.0, 20.0):
            folder = RunFolder(tmp_path / str(cost), quiet=True)
            settings = TINY | {"thresholds": "0.1", "epochs": 4, "layers": 1, "lr": 0.01}
            summary = keyword_spotting.run(folder, data=data, change_cost=cost, **settings)
            silent.append(summary["rows"][0]["sparsity_hidden"])
        assert silent[1] > silent[0] + 0.05


def stop_at(monkeypatch, place):
    """Make the next run of keyword_spotting be stopped by the keyboard at some point."""
    calls = Counter()

    def stopping(of, name, at):
        original = getattr(of, name)

        def wrapped(*args, **options):
            calls[name] += 1
            if calls[name] == at:
                raise KeyboardInterrupt
            return original(*args, **options)

        monkeypatch.setattr(of, name, wrapped)

    if place == "within the first epoch of all":
        stopping(KeywordSpotting, "trial", 2)
    elif place == "between two trainings":
        stopping(keyword_spotting, "build", 3)  # the first is for the formats
    elif place == "when a training begins":
        stopping(keyword_spotting, "fit", 2)
    elif place == "within a training":
        # Of the first network: 2 x (3 trials and 1 check) and 2 checks; of the second, into its second epoch.
        stopping(KeywordSpotting, "trial", 10 + 4 + 2)
    elif place == "when a network is trained and not yet tested":
        stopping(keyword_spotting, "accuracy", 3)
    elif place == "when all are trained":
        stopping(keyword_spotting, "summarise", 1)


class TestResume:
    @pytest.mark.parametrize(
        "place",
        [
            "within the first epoch of all",
            "between two trainings",
            "when a training begins",
            "within a training",
            "when a network is trained and not yet tested",
            "when all are trained",
        ],
    )
    def test_equals_a_run_in_one_go(self, spotted, data, tmp_path, no_pictures, capsys, place):
        folder = tmp_path / "run"
        with pytest.MonkeyPatch.context() as patch:
            stop_at(patch, place)
            assert (
                command_line("keyword_spotting", *options(data=data, **TINY), "--out", folder, "--quiet") == 1
            )
        assert f"go on with: evsim run keyword_spotting --resume {folder}" in capsys.readouterr().err
        assert not (folder / "summary.json").exists()
        assert command_line("keyword_spotting", "--resume", folder, "--quiet") == 0
        assert outcome(folder) == outcome(spotted)
        log, whole = EventLog.open(folder / "events.h5"), EventLog.open(spotted / "events.h5")
        log.provenance, whole.provenance = {}, {}
        assert log.equal(whole)

    def test_trains_nothing_twice(self, data, tmp_path, no_pictures, monkeypatch):
        folder = tmp_path / "run"
        first = TINY | {"thresholds": "0.2", "epochs": 1}
        command_line("keyword_spotting", *options(data=data, **first), "--out", folder, "--quiet")
        trained_now = []
        original = keyword_spotting._train

        def train(*args):
            trained_now.append(args[4])
            return original(*args)

        monkeypatch.setattr(keyword_spotting, "_train", train)
        more = ["--resume", folder, "--thresholds", "0.2,0", "--quiet"]
        assert command_line("keyword_spotting", *more) == 0
        assert trained_now == [0.0]
        assert [row["theta"] for row in read(folder / "summary.json")["rows"]] == [0.2, 0.0]

    @pytest.mark.parametrize(
        ("name", "value"), [("epochs", 3), ("units", 9), ("seed", 1), ("lr", 0.1), ("held-out", "voice1")]
    )
    def test_with_another_recipe_is_refused(self, spotted, capsys, name, value):
        """Else one table would show networks that were trained in different ways."""
        before = {path: path.read_bytes() for path in spotted.iterdir()}
        said = refused(capsys, "keyword_spotting", "--resume", spotted, f"--{name}", value, "--quiet")
        # Held out voices also change the data, which are looked at first.
        assert ("data" if name == "held-out" else f"{name} is {value}") in said
        assert {path: path.read_bytes() for path in spotted.iterdir()} == before


class TestBadOptions:
    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--thresholds", "0,x"], "thresholds are '0,x'"),
            (["--thresholds=-1"], "thresholds are '-1'"),
            (["--thresholds", "0,0"], "thresholds are '0,0'"),
            (["--thresholds", "0,inf"], "thresholds are '0,inf'"),
            (["--thresholds", "0,,1"], "thresholds are '0,,1'"),
            (["--thresholds", ""], "thresholds are ''"),
            (["--fixed-point", "Q8.8"], "fixed_point is 'Q8.8'"),
            (["--fixed-point", "Q8.8,Q2.6,Q2"], "'Q2'"),
            (["--held-out", "nobody"], "no speaker 'nobody'"),
            (["--held-out", "voice0,voice1"], "no training recordings"),
            (["--epochs", "0"], "epochs is 0"),
            (["--seeds", "0"], "seeds is 0"),
            (["--lanes", "-1"], "lanes is -1"),
            (["--seed", "-1"], "seed is -1"),
            (["--lr", "-1"], "lr is -1"),
            (["--bands", "300"], "of 300 holds no frequency"),
            (["--hop", "0"], "hop = 0.0"),
            (["--cell", "rnn"], "'rnn'"),
            (["--data", "nowhere"], "'nowhere': no such folder"),
        ],
    )
    def test_are_one_line(self, data, tmp_path, capsys, monkeypatch, words, said):
        monkeypatch.chdir(tmp_path)
        words = [*options(data=data, **TINY), *words]  # the last one given counts
        assert said in refused(capsys, "keyword_spotting", *words, "--quiet", "--out", "out")
        assert not (tmp_path / "out" / "checkpoint.h5").exists()

    @pytest.mark.parametrize("part", ["valid", "test"])
    def test_data_without_a_part_are_refused_before_anything_is_trained(
        self, recordings, tmp_path, monkeypatch, part
    ):
        """Without validation the first epoch would count as the best; without test there is no result."""
        all_but = recordings.select(recordings.part != part)
        monkeypatch.setattr(keyword_spotting, "load_recordings", lambda path: all_but)
        with pytest.raises(ProtocolError, match=f"no {part} recordings"):
            keyword_spotting.run(RunFolder(tmp_path, quiet=True), **TINY)
        assert not (tmp_path / "checkpoint.h5").exists()


# -- incremental learning --------------------------------------------------------------------------------


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
