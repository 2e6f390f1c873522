"""The protocols that come with evsim: their trials, the files a run leaves, and resumed runs."""

import json
import sys
from itertools import islice

import numpy as np
import pytest

from evsim import cli
from evsim.adjoint import Adjoint
from evsim.checkpoint import Checkpoint
from evsim.data.text import Corpus, load_corpus
from evsim.errors import ProtocolError
from evsim.eventlog import EventLog
from evsim.narrow_weights import narrow
from evsim.optimizer import SGD
from evsim.protocol import Protocol, RunFolder, Trial, load, names
from evsim.protocols import CharacterModel, DelayedCopy, character_model, delayed_copy
from evsim.simulation import Simulation
from evsim.training import Trainer

PNG = b"\x89PNG\r\n\x1a\n"
FILES = ["checkpoint.h5", "events.h5", "raster.png", "settings.json", "summary.json"]


def evsim(*words):
    """The command line, in this process; fails unless it says that all went well."""
    before, sys.argv = sys.argv, ["evsim", *map(str, words)]
    try:
        with pytest.raises(SystemExit) as left:
            cli.main()
    finally:
        sys.argv = before
    assert left.value.code in (0, None)


def read(path):
    return json.loads(path.read_text())


def bits(arrays):
    return {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()}


def without_times(epochs):
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in epochs]


def contents(folder):
    """All of a checkpoint that does not depend on the time of day."""
    found = Checkpoint.open(folder / "checkpoint.h5")
    progress = found.progress | {"epochs": without_times(found.progress["epochs"])}
    progress["training"].pop("seconds")
    return bits(found.parameters), bits(found.best), bits(found.optimizer), progress


def same_run(one, other):
    """Whether two logs are equal in all but where they come from."""
    one.provenance, other.provenance = {}, {}
    return one.equal(other)


def nll(state, target):
    """-ln softmax of every target, by definition, in float64."""
    state = np.asarray(state, np.float64)
    odds = np.exp(state - state.max(-1, keepdims=True))
    return -np.log(np.take_along_axis(odds / odds.sum(-1, keepdims=True), target[..., None], -1))[..., 0]


class NoPicture:
    def savefig(self, path, **options):
        path.touch()


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    """Draw only in the runs that several tests look at: fixtures of the module come before this one."""
    monkeypatch.setattr(EventLog, "figure", lambda log: NoPicture())


# -- delayed copy ----------------------------------------------------------------------------------------


class TestDelayedCopyTrials:
    @pytest.mark.parametrize(("cue", "delay", "answer"), [(5, 50, 5), (1, 0, 1), (2, 3, 4), (4, 1, 2)])
    def test_shape_of_a_trial(self, cue, delay, answer):
        task = DelayedCopy(n_symbols=6, delay=delay, batch_size=9, cue=cue, answer=answer)
        assert (task.n_inputs, task.n_outputs, task.n_steps) == (7, 6, cue + delay + answer)
        for trial in islice(task, 3):
            symbol = trial.stimulus[0]
            assert trial.stimulus.shape == trial.target.shape == (cue + delay + answer, 9)
            assert ((symbol >= 0) & (symbol < 6)).all()
            assert (trial.stimulus[:cue] == symbol).all()
            assert (trial.stimulus[cue : cue + delay] == -1).all()
            assert (trial.stimulus[cue + delay :] == 6).all()  # the go signal
            assert (trial.target[: cue + delay] == -1).all()
            assert (trial.target[cue + delay :] == symbol).all()
            assert not trial.carry
            assert trial.lengths is None

    def draw(self, stream=0, number=6, **settings):
        return [trial.stimulus for trial in islice(DelayedCopy(delay=2, **settings).trials(stream), number)]

    def test_same_seed_same_trials(self):
        assert np.array_equal(self.draw(seed=4), self.draw(seed=4))
        task = DelayedCopy(delay=2, seed=4)
        assert np.array_equal(self.draw(seed=4), [trial.stimulus for trial in islice(task, 6)])
        assert np.array_equal(self.draw(seed=4), [trial.stimulus for trial in islice(task, 6)])  # and again

    def test_seeds_streams_and_trials_differ(self):
        all_of_them = [
            trial.tobytes()
            for seed in range(4)
            for stream in (0, 1, 2, 10**6)
            for trial in self.draw(stream, seed=seed)
        ]
        assert len(set(all_of_them)) == len(all_of_them) == 4 * 4 * 6

    def test_symbols_are_equally_likely(self):
        first = np.concatenate([stimulus[0] for stimulus in self.draw(number=250, n_symbols=4)])
        counts = np.bincount(first, minlength=4)
        assert counts.sum() == 8000
        assert np.abs(counts - 2000).max() < 5 * np.sqrt(8000 * 0.25 * 0.75)

    @pytest.mark.parametrize(
        "settings",
        [
            {"n_symbols": 1},
            {"delay": -1},
            {"batch_size": 0},
            {"cue": 0},
            {"answer": 0},
            {"seed": -1},
            {"delay": 1.5},
            {"delay": "5"},
            {"delay": float("nan")},
        ],
    )
    def test_settings_that_cannot_work(self, settings):
        (name, value), *_ = settings.items()
        with pytest.raises(ProtocolError, match=f"{name} is {value!r}; give an integer"):
            DelayedCopy(**settings)


TINY_COPY = {"n_symbols": 2, "delay": 2, "units": 10, "batch_size": 6, "trials": 3, "epochs": 2}


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copy") / "run"
    options = [word for key, value in TINY_COPY.items() for word in (f"--{key.replace('_', '-')}", value)]
    evsim("run", "delayed_copy", *options, "--out", folder, "--quiet")
    return folder


class TestDelayedCopyRun:
    def test_files(self, copied):
        assert sorted(path.name for path in copied.iterdir()) == FILES
        assert (copied / "raster.png").read_bytes().startswith(PNG)
        settings = read(copied / "settings.json")
        assert settings["protocol"] == "delayed_copy"
        assert TINY_COPY.items() <= settings["options"].items()

    def test_summary(self, copied):
        """The network that was kept, asked again."""
        summary = read(copied / "summary.json")
        task = DelayedCopy(2, 2, 6)
        network = delayed_copy.build(task, 10, 0.3, seed=0)
        Checkpoint.open(copied / "checkpoint.h5").restore(network.parameters(), best=True)
        simulation, right, sent = Simulation(network), [], []
        for trial in islice(task.trials(10**6 + 1), 8):
            log = simulation.run(trial.stimulus)
            right += [log["answer"].state[-5:].argmax(-1) == trial.target[-5:]]
            sent += [log["hidden"].n_events]
        assert summary["accuracy"] == np.mean(right)
        assert summary["activity"] == pytest.approx(sum(sent) / (8 * 6 * 12 * 10), rel=1e-12)
        assert summary["chance"] == 0.5
        assert [entry["epoch"] for entry in summary["epochs"]] == [0, 1]
        losses = [entry["validation"] for entry in summary["epochs"]]
        assert summary["best_epoch"] == losses.index(min(losses))

    def test_log(self, copied):
        log = EventLog.open(copied / "events.h5")
        assert log.names == ["cue", "hidden", "answer"]
        assert log.provenance["protocol"] == "delayed_copy"
        assert log.provenance["settings"] == read(copied / "settings.json")["options"]
        task = DelayedCopy(2, 2, 6)
        network = delayed_copy.build(task, 10, 0.3, seed=0)
        Checkpoint.open(copied / "checkpoint.h5").restore(network.parameters(), best=True)
        again = Simulation(network).run(next(task.trials(10**6 + 1)).stimulus)
        assert same_run(log, again)

    def test_resumed_run_equals_one_in_one_go(self, copied, tmp_path):
        options = TINY_COPY | {"epochs": 1}
        delayed_copy.run(RunFolder(tmp_path, quiet=True), **options)
        summary = delayed_copy.run(RunFolder(tmp_path, quiet=True, resume=True), **TINY_COPY)
        assert contents(tmp_path) == contents(copied)
        assert same_run(EventLog.open(tmp_path / "events.h5"), EventLog.open(copied / "events.h5"))
        assert without_times(summary["epochs"]) == without_times(read(copied / "summary.json")["epochs"])

    def test_a_resumed_run_heeds_a_new_rate(self, tmp_path):
        delayed_copy.run(RunFolder(tmp_path, quiet=True), **TINY_COPY | {"epochs": 1})
        summary = delayed_copy.run(RunFolder(tmp_path, quiet=True, resume=True), **TINY_COPY, lr=1e-5)
        assert [entry["lr"] for entry in summary["epochs"]] == [3e-3, 1e-5]

    @pytest.mark.parametrize("setting", ["trials", "epochs", "patience", "n_symbols", "batch_size"])
    def test_settings_that_cannot_work(self, tmp_path, setting):
        with pytest.raises(ProtocolError, match=f"{setting} is -1"):
            delayed_copy.run(RunFolder(tmp_path, quiet=True), **TINY_COPY | {setting: -1})


# -- character model -------------------------------------------------------------------------------------


WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "dog", "ran", "to", "log", "but", "no", "fox", "saw"]
TINY_MODEL = {"units": 9, "lanes": 3, "window": 16, "threshold": 0.1, "lr": 0.03, "activity_cost": 0.05}


def text(seed, n_words):
    rng = np.random.default_rng(seed)
    words = rng.choice(WORDS, n_words)
    return " ".join(word + "\n" * (rng.random() < 0.1) for word in words)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "tale [of] a cat.txt"
    path.write_text(text(0, 700))
    return path


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A corpus in three files."""
    folder = tmp_path_factory.mktemp("parts")
    for seed, (part, n_words) in enumerate({"train": 300, "valid": 60, "test": 80}.items()):
        (folder / f"tale.{part}.txt").write_text(text(seed, n_words))
    return folder


def model_options(**options):
    return [
        word
        for key, value in (TINY_MODEL | options).items()
        for word in (f"--{key.replace('_', '-')}", value)
    ]


@pytest.fixture(scope="module", params=[1, 2], ids=["one layer", "two layers"])
def modelled(request, tmp_path_factory, file):
    folder = tmp_path_factory.mktemp("model") / "run"
    options = model_options(corpus=file, epochs=2, layers=request.param)
    evsim("run", "character_model", *options, "--out", folder, "--quiet")
    return folder


def rebuilt(folder):
    """The task and the network with the parameters that were kept."""
    options = read(folder / "settings.json")["options"]
    task = CharacterModel(load_corpus(options["corpus"]), options["lanes"], options["window"])
    network = character_model.build(
        task, options["units"], options["layers"], options["threshold"], options["seed"]
    )
    Checkpoint.open(folder / "checkpoint.h5").restore(network.parameters(), best=True)
    return task, network


def bits_per_character(network, ids):
    """Read a text in up to 8 lanes of 64 tokens or more, each from rest, in one long run."""
    lanes = max(1, min(8, (ids.size - 1) // 64))
    steps = (ids.size - 1) // lanes
    inputs = ids[: steps * lanes].reshape(lanes, steps).T
    targets = ids[1 : steps * lanes + 1].reshape(lanes, steps).T.astype(int)
    state = Simulation(network).run(inputs)["next"].state
    return nll(state, targets).mean() / np.log(2)


class TestCharacterModelTrials:
    def test_a_pass_reads_the_text_once(self, file):
        corpus = load_corpus(file)
        task = CharacterModel(corpus, lanes=3, window=8)
        trials = list(task.trials(0))
        assert len(trials) == len(task)
        steps = (corpus.train.size - 1) // 3
        stimulus = np.concatenate([trial.stimulus for trial in trials])
        target = np.concatenate([trial.target for trial in trials])
        for lane in range(3):
            assert np.array_equal(stimulus[:, lane], corpus.train[lane * steps : (lane + 1) * steps])
            assert np.array_equal(target[:, lane], corpus.train[lane * steps + 1 : (lane + 1) * steps + 1])
        assert [trial.carry for trial in trials] == [False] + [True] * (len(trials) - 1)
        assert {len(trial.stimulus) for trial in trials[:-1]} == {8}

    def test_every_stream_is_the_same_pass(self, file):
        task = CharacterModel(load_corpus(file), lanes=3, window=8)
        for one, other in zip(task.trials(0), task.trials(5), strict=True):
            assert np.array_equal(one.stimulus, other.stimulus)


class TestCharacterModelRun:
    def test_files(self, modelled):
        assert sorted(path.name for path in modelled.iterdir()) == sorted([*FILES, "data.json"])
        assert (modelled / "raster.png").read_bytes().startswith(PNG)

    def test_summary(self, modelled):
        summary = read(modelled / "summary.json")
        task, network = rebuilt(modelled)
        assert summary["bits_per_character"] == pytest.approx(
            bits_per_character(network, task.corpus.valid), rel=1e-5
        )
        assert summary["perplexity"] == pytest.approx(2 ** summary["bits_per_character"], rel=1e-9)
        assert set(summary["narrow_bits"]) == {"bfloat16", "int8"}
        for kind, found in summary["narrow_bits"].items():
            expected = bits_per_character(narrow(network, kind), task.corpus.valid)
            assert found == pytest.approx(expected, rel=1e-5)
        assert set(summary["ngram_bits"]) == {"3", "5"}
        assert 0 < summary["alpha"] < 1
        assert 0 < summary["beta"] <= 1
        assert [entry["epoch"] for entry in summary["epochs"]] == [0, 1]
        validation = summary["validation"]
        layers = [name for name in validation["events"] if name != "tokens"]
        events = sum(validation["events"][name] for name in layers)
        assert summary["alpha"] == events / (len(layers) * 9 * validation["lane_steps"])
        assert validation["events"]["tokens"] == validation["lane_steps"] == validation["targets"]

    def test_learns_more_than_nothing(self, modelled):
        summary = read(modelled / "summary.json")
        task, _ = rebuilt(modelled)
        assert summary["bits_per_character"] < np.log2(task.corpus.n_tokens)

    def test_log_opens_equal_and_replays(self, modelled):
        log, (task, network) = EventLog.open(modelled / "events.h5"), rebuilt(modelled)
        stretch = task.corpus.valid[:400]
        steps = min(stretch.size, task.corpus.valid.size - 1)
        simulation = Simulation(network)
        again = simulation.run(task.corpus.valid[:steps])
        assert again.n_steps == log.n_steps
        losses = {"next": np.random.default_rng(0).normal(size=log["next"].state.shape)}
        adjoint = Adjoint(simulation.plan)
        assert bits(adjoint.replay(log, losses)) == bits(adjoint.replay(again, losses))
        assert same_run(log, again)

    def test_test_text(self, modelled):
        """A single file has five per cent of it for the test."""
        summary, (task, network) = read(modelled / "summary.json"), rebuilt(modelled)
        ids = task.corpus.test
        assert ids.size > 1
        assert summary["test_bits_per_character"] == pytest.approx(bits_per_character(network, ids), rel=1e-5)

    def test_resumed_run_equals_one_in_one_go(self, modelled, tmp_path):
        options = read(modelled / "settings.json")["options"] | {"epochs": 1}
        words = [word for key, value in options.items() for word in (f"--{key.replace('_', '-')}", value)]
        evsim("run", "character_model", *words, "--out", tmp_path / "run", "--quiet")
        evsim("run", "character_model", "--resume", tmp_path / "run", "--epochs", 2, "--quiet")
        assert read(tmp_path / "run" / "settings.json") == read(modelled / "settings.json")
        assert contents(tmp_path / "run") == contents(modelled)
        assert same_run(EventLog.open(tmp_path / "run" / "events.h5"), EventLog.open(modelled / "events.h5"))
        mine, theirs = read(tmp_path / "run" / "summary.json"), read(modelled / "summary.json")
        for key in (
            "bits_per_character",
            "test_bits_per_character",
            "alpha",
            "beta",
            "work_per_character",
            "ngram_bits",
        ):
            assert mine[key] == theirs[key]
        for part in ("training", "validation"):
            mine[part].pop("seconds")
            theirs[part].pop("seconds")
            assert mine[part] == theirs[part]

    def test_resuming_a_finished_run_changes_nothing(self, modelled, capsys):
        before = contents(modelled), (modelled / "checkpoint.h5").read_bytes()
        bits_before = read(modelled / "summary.json")["bits_per_character"]
        evsim("run", "character_model", "--resume", modelled)
        assert (contents(modelled), (modelled / "checkpoint.h5").read_bytes()) == before
        assert read(modelled / "summary.json")["bits_per_character"] == bits_before
        assert all(
            len(line) <= 80 for line in capsys.readouterr().out.splitlines() if "|" in line or "  " in line
        )


class TestParts:
    def test_three_files(self, tmp_path, parts, capsys):
        folder = RunFolder(tmp_path)
        summary = character_model.run(folder, corpus=parts, epochs=1, **TINY_MODEL)
        corpus = load_corpus(parts)
        network = character_model.build(CharacterModel(corpus), 9, 1, 0.1, 0)
        Checkpoint.open(tmp_path / "checkpoint.h5").restore(network.parameters(), best=True)
        assert summary["test_bits_per_character"] == pytest.approx(
            bits_per_character(network, corpus.test), rel=1e-5
        )
        assert "test text" in capsys.readouterr().out

    def test_no_test_text(self, tmp_path, parts, monkeypatch, capsys):
        corpus = load_corpus(parts)
        short = Corpus("short", "char", corpus.vocabulary, corpus.train, corpus.valid, corpus.test[:0])
        monkeypatch.setattr(character_model, "load_corpus", lambda path, level: short)
        summary = character_model.run(RunFolder(tmp_path), epochs=1, **TINY_MODEL)
        assert "test_bits_per_character" not in summary
        assert "test" not in capsys.readouterr().out.replace(str(tmp_path), "")

    def test_a_network_that_diverges_still_ends(self, tmp_path, parts):
        character_model.run(
            RunFolder(tmp_path, quiet=True), corpus=parts, epochs=1, **TINY_MODEL | {"lr": 1e4}
        )
        assert read(tmp_path / "summary.json")["bits_per_character"] > 10

    @pytest.mark.parametrize("setting", ["units", "layers", "epochs", "patience", "lanes", "window"])
    def test_settings_that_cannot_work(self, tmp_path, parts, setting):
        with pytest.raises(ProtocolError, match=f"{setting} is 0"):
            character_model.run(RunFolder(tmp_path, quiet=True), corpus=parts, **TINY_MODEL | {setting: 0})


def test_work_is_what_can_be_counted(parts):
    """MACs: a row of weights for every event that arrives, forward and for dL/dW, and for dL/dy of every unit
    that fired or might have."""
    u, gamma, eps = 9, 0.8, 2.0
    task = CharacterModel(load_corpus(parts), lanes=3, window=8)
    n = task.corpus.n_tokens
    network = character_model.build(task, u, 1, 0.1, 0)
    trainer = Trainer(network, "next", SGD(network.parameters(), lr=0.0), gamma=gamma, eps=eps)
    passes = character_model.work(network, trainer.learn(task.trials(0)))
    threshold = network.parameters()["layer1.threshold"].values
    simulation = Simulation(network)
    tokens = arrived = sent = active = active_inside = 0
    before = 0  # events of the last step of the window before, which arrive in this one
    for trial in task.trials(0):
        log = simulation.run(trial.stimulus, carry=trial.carry)
        layer = log["layer1"]
        per_step = np.bincount(layer.events.step, minlength=log.n_steps)
        arrived += before + per_step[:-1].sum()
        before = per_step[-1]
        tokens, sent = tokens + trial.stimulus.size, sent + per_step.sum()
        over = layer.tape[:, :, layer.tape_fields.index("a")] - threshold
        may_fire = (over > 0) | (np.abs(over) < 1 / eps)
        active, active_inside = active + may_fire.sum(), active_inside + may_fire[:-1].sum()
    wide = 3 * u
    by_event = {
        "forward": tokens * wide + arrived * wide + sent * n,
        "state": active_inside * wide + active * n,
        "weight": tokens * wide + arrived * wide + sent * n,
    }
    dense = {
        "forward": tokens * (wide + u * wide + u * n),
        "state": tokens * (u * wide + u * n),
        "weight": tokens * (wide + u * wide + u * n),
    }
    assert set(passes) == set(by_event)
    for kind, macs in passes.items():
        assert macs["event"] * tokens == pytest.approx(by_event[kind], rel=1e-12), kind
        assert macs["dense"] * tokens == pytest.approx(dense[kind], rel=1e-12), kind


# -- all of them -----------------------------------------------------------------------------------------


def test_names():
    assert names() == [
        "character_model",
        "credit",
        "cuba",
        "delayed_copy",
        "incremental_learning",
        "keyword_spotting",
        "language_model",
        "yin_yang",
    ]
    assert all(load(name).__doc__ for name in names())


def test_a_protocol_of_ones_own():
    class Echo(Protocol):
        n_inputs = n_outputs = 2

        def trials(self, stream):
            yield Trial(np.full((3, 1), stream), np.full((3, 1), stream))

    assert [trial.target[0, 0] for trial in Echo()] == [0]
    with pytest.raises(TypeError):
        Protocol()
