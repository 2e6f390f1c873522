"""Keyword spotting: trials, accuracy and work by hand, files of a run, runs stopped anywhere."""

import sys
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.special

from evsim.checkpoint import Checkpoint
from evsim.data.features import log_mel
from evsim.data.formants import synthetic_words
from evsim.errors import DataError, ProtocolError
from evsim.eventlog import EventLog
from evsim.fixed_point import FixedPoint, quantize
from evsim.narrow_weights import narrow
from evsim.optimizer import SGD
from evsim.protocol import RunFolder, Trial
from evsim.protocols import keyword_spotting
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
from oracles.spoken_words import (
    BANDS,
    N_WORDS,
    PNG,
    UNITS,
    alone,
    bits,
    command_line,
    network_for,
    numbers_in,
    options,
    read,
    refused,
    values,
)

pytestmark = pytest.mark.usefixtures("nothing_slow")

TINY = {"units": UNITS, "epochs": 2, "thresholds": "0,0.2", "lanes": 8, "bands": BANDS, "hop": 20}


def without_times(item):
    if isinstance(item, dict):
        return {key: without_times(value) for key, value in item.items() if "seconds" not in key}
    return [without_times(part) for part in item] if isinstance(item, list) else item


@pytest.fixture
def no_pictures(monkeypatch):
    monkeypatch.setattr(keyword_spotting, "_draw", lambda *args: None)


# -- trials ----------------------------------------------------------------------------------------------


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
    Checkpoint.open(folder / f"network-theta{float(theta)!r}-seed0.h5").restore(
        network.parameters(), best=True
    )
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

    def test_narrow_weights(self, spotted, task):
        """The trained networks once more, with weights of 16 and 8 bits."""
        for row in read(spotted / "summary.json")["rows"]:
            network = trained(spotted, task, row["theta"])
            assert set(row["narrow"]) == {"bfloat16", "int8"}
            for kind, found in row["narrow"].items():
                assert found == accuracy_by_hand(narrow(network, kind), task, "test")

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

    def test_goes_on_with_no_network_of_a_run_before(self, spotted, data, tmp_path, no_pictures):
        """One is stopped in its second training, another one takes its place and is stopped in its first."""
        folder = tmp_path / "run"
        begun = ["keyword_spotting", *options(data=data, **TINY), "--out", folder, "--quiet"]
        for place, more in (("within a training", []), ("within the first epoch of all", ["--force"])):
            with pytest.MonkeyPatch.context() as patch:
                stop_at(patch, place)
                assert command_line(*begun, *more) == 1
        assert command_line("keyword_spotting", "--resume", folder, "--quiet") == 0
        assert outcome(folder) == outcome(spotted)

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
