"""The word-level language model: what a run leaves, perplexity by hand, stopped runs, text, bad options."""

import re
import shutil
import signal
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from scipy.special import expit, log_softmax

from evsim.checkpoint import Checkpoint
from evsim.data.text import load_corpus
from evsim.eventlog import EventLog
from oracles.command_line import command_line, refused
from oracles.word_runs import (
    UNITS,
    VECTOR,
    contents,
    read,
    sentences,
    without_seconds,
    words_of,
    write_corpus,
)

PNG = b"\x89PNG\r\n\x1a\n"
STAGES = {"checkpoint.h5": 0.0, "pruned_60.h5": 0.6, "pruned_80.h5": 0.8}
LINE = r"(.+\S) +alpha (\d\.\d{3}), (\d+) us a word in the layers, (\d+) to choose it"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("ptb"), "ptb.{}.txt")


@pytest.fixture
def evsim(monkeypatch, capsys):
    """The command line in this process."""
    return command_line(monkeypatch, capsys)


@pytest.fixture
def no_pictures(monkeypatch):
    class NoPicture:
        def savefig(self, path, **options):
            path.touch()

    monkeypatch.setattr(EventLog, "figure", lambda log: NoPicture())


@pytest.fixture(scope="module")
def done(tmp_path_factory, corpus):
    """A run in one go, in a process of its own; with what it printed."""
    folder = tmp_path_factory.mktemp("done") / "run"
    command = [sys.executable, "-W", "error", "-m", "evsim", *words_of(corpus), "--out", str(folder)]
    command += ["--generate", "5", "--prompt", "the cat"]
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert (said.returncode, said.stderr) == (0, "")
    return folder, said.stdout


# -- by hand -----------------------------------------------------------------------------------------------


def perplexity(values, ids, read=(False, True)):
    """exp(mean -log P) of a text in one lane from rest, and events per unit and step: the equations of EGRU
    (form "evnn") with a threshold of 0, one softmax over all words, in float64; states of which layers it
    reads."""
    p = {name: np.asarray(value, np.float64) for name, value in values.items()}
    layers = ["layer1", "layer2"]
    weights = [
        (p[f"{a}->{b}.weight"], p[f"{b}->{b}.weight"]) for a, b in (("words", layers[0]), tuple(layers))
    ]
    states = [np.zeros(len(recurrent)) for _, recurrent in weights]
    values_sent = [np.zeros_like(c) for c in states]
    embedding, bias = p["embedding.weight"], p["embedding.bias"]
    nats, events = [], np.zeros(2)
    for word, target in pairwise(ids):
        x = embedding[word] * np.sqrt(embedding.shape[1])
        for k, (name, (inward, recurrent)) in enumerate(zip(layers, weights, strict=True)):
            n = len(recurrent)
            drive = x @ inward + p[f"{name}.bias"]
            back = values_sent[k] @ recurrent + p[f"{name}.recurrent_bias"]
            z = expit(drive[:n] + back[:n])
            r = expit(drive[n : 2 * n] + back[n : 2 * n])
            g = np.tanh(drive[2 * n :] + r * back[2 * n :])
            states[k] = z * states[k] + (1 - z) * g
            x = values_sent[k] = np.where(states[k] > 0, states[k], 0.0)
            events[k] += (states[k] > 0).sum()
        held = sum(state[: embedding.shape[1]] for state, one in zip(states, read, strict=True) if one)
        nats.append(-log_softmax(embedding @ held + bias)[target])
    return float(np.exp(np.mean(nats))), events / len(nats) / [len(c) for c in states]


@pytest.mark.parametrize(("number", "file"), list(enumerate(STAGES)))
def test_perplexity_and_activity_by_hand(done, corpus, number, file):
    folder, _ = done
    result, found = read(folder / "summary.json")["results"][number], Checkpoint.open(folder / file)
    text = load_corpus(corpus, "word").by_frequency()
    for part in ("valid", "test"):
        expected, activity = perplexity(found.best, getattr(text, part))
        assert result[f"{part}_perplexity"] == pytest.approx(expected, rel=1e-4)
    # Where a state is 0 but for rounding, one arithmetic has an event and another has none.
    steps = len(text.test) - 1
    assert result["activity"] == pytest.approx(
        {"layer1": activity[0], "layer2": activity[1]}, abs=3 / steps / VECTOR
    )
    assert result["alpha"] == pytest.approx((UNITS * activity[0] + VECTOR * activity[1]) / 26, abs=1e-3)


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("units", [VECTOR, UNITS])
def test_perplexity_by_hand_where_states_of_all_layers_are_read(corpus, tmp_path, evsim, units):
    """Of wider layers than the last one those of as many units as that has."""
    words = words_of(corpus, units=units, reads="states", prune="none", epochs=1, speed=False)
    assert evsim(*words, "--out", tmp_path / "run", "--quiet").code == 0
    found = Checkpoint.open(tmp_path / "run" / "checkpoint.h5").best
    text = load_corpus(corpus, "word").by_frequency()
    expected, _ = perplexity(found, text.test, (True, True))
    result = read(tmp_path / "run" / "summary.json")["results"][0]
    assert result["test_perplexity"] == pytest.approx(expected, rel=1e-4)


# -- what a run leaves -------------------------------------------------------------------------------------


def test_files(done):
    folder, _ = done
    expected = [*STAGES, "events.h5", "raster.png", "settings.json", "summary.json"]
    assert set(expected) <= {path.name for path in folder.iterdir()}
    assert (folder / "raster.png").read_bytes().startswith(PNG)
    log = EventLog.open(folder / "events.h5")
    assert log.names == ["words", "layer1", "layer2"]
    assert log.provenance["protocol"] == "language_model"
    assert log.provenance["settings"] == read(folder / "settings.json")["options"]


def test_summary(done):
    folder, _ = done
    summary = read(folder / "summary.json")
    assert summary["sizes"] == [UNITS, VECTOR]
    assert summary["recipe"]["lanes"] == 4
    results = summary["results"]
    assert [one["name"] for one in results] == ["EGRU", "EGRU, 60% pruned", "EGRU, 80% pruned"]
    n = load_corpus(read(folder / "settings.json")["options"]["corpus"], "word").n_tokens
    weights = 3 * UNITS * (VECTOR + UNITS) + 3 * VECTOR * (UNITS + VECTOR)
    for one, share in zip(results, STAGES.values(), strict=True):
        assert one["weight_sparsity"] == share
        assert len(one["epochs"]) == 2
        reading = one["reading"]
        assert one["test_perplexity"] == pytest.approx(
            np.exp(reading["loss"] / reading["targets"]), rel=1e-12
        )
        assert 1 < one["test_perplexity"] < n  # it has learned something
        sent = {layer: reading["events"][layer] for layer in ("layer1", "layer2")}
        assert one["activity"] == {k: sent[k] / reading["unit_steps"][k] for k in sent}
        assert one["alpha"] == sum(sent.values()) / (reading["lane_steps"] * (UNITS + VECTOR))
        assert one["parameters"]["embedding"] == n * VECTOR + n
        biases_and_thresholds = 7 * (UNITS + VECTOR)
        kept = one["parameters"]["layers"] - biases_and_thresholds
        assert kept == pytest.approx((1 - share) * weights, abs=4)


@pytest.mark.parametrize(("file", "share"), list(STAGES.items()))
def test_pruned_networks_have_so_many_zeros(done, file, share):
    found = Checkpoint.open(done[0] / file).best
    weights = {name: values for name, values in found.items() if "->" in name}
    assert len(weights) == 4
    zeros = sum((values == 0).sum() for values in weights.values())
    assert zeros / sum(values.size for values in weights.values()) == pytest.approx(share, abs=2e-3)
    assert not any((values == 0).all() for values in weights.values())
    assert (found["embedding.weight"] != 0).all()  # what is not pruned


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("scope", ["projection", "block", "global"])
def test_scopes_of_pruning(corpus, tmp_path, evsim, scope):
    """Each matrix, each gate of it, or all of them together have that share of zeros."""
    words = words_of(corpus, **{"prune": "0.6", "epochs": 1, "tune": 1, "speed": False, "prune-scope": scope})
    assert evsim(*words, "--out", tmp_path / "run", "--quiet").code == 0
    best = Checkpoint.open(tmp_path / "run" / "pruned_60.h5").best
    zeros = [values == 0 for name, values in sorted(best.items()) if "->" in name]
    if scope == "block":
        zeros = [part for one in zeros for part in np.hsplit(one, 3)]
    if scope == "global":
        assert np.std([one.mean() for one in zeros]) > 0.01
        zeros = [np.concatenate([one.ravel() for one in zeros])]
    assert [one.mean() for one in zeros] == pytest.approx([0.6] * len(zeros), abs=1 / 12 / 14)
    # What is counted is what is not 0, also of matrices with few zeros.
    rows = read(tmp_path / "run" / "summary.json")["results"][1]["operations"]
    stored = {name.removesuffix(".weight"): np.mean(w != 0) for name, w in best.items() if "->" in name}
    assert {row["projection"]: row["density"] for row in rows} == pytest.approx(stored)


def test_operations_of_pruned_networks_are_those_of_sparse_rows(done):
    """Stored weights of the rows of units that sent an event."""
    folder, _ = done
    result = read(folder / "summary.json")["results"][2]
    best = Checkpoint.open(folder / "pruned_80.h5").best
    rows = {row["projection"]: row for row in result["operations"]}
    assert rows["words->layer1"]["macs"] == pytest.approx((best["words->layer1.weight"] != 0).sum())
    for name in ("layer1->layer1", "layer1->layer2", "layer2->layer2"):
        stored = (best[f"{name}.weight"] != 0).sum()
        assert rows[name]["density"] == pytest.approx(stored / best[f"{name}.weight"].size)
        assert 0 < rows[name]["macs"] <= stored


def test_composition(done):
    folder, out = done
    rows = read(folder / "summary.json")["composition"]
    plain = [row for row in rows if not row["tabulated"]]
    assert [row["label"] for row in plain] == ["EGRU", "EGRU, 60% pruned", "EGRU, 80% pruned"]
    for row, share in zip(plain, STAGES.values(), strict=True):
        assert row["weight_sparsity"] == pytest.approx(share, abs=3e-3)
        assert row["product"] == pytest.approx(row["factor_activity"] * row["factor_weights"])
        assert row["deviation"] == pytest.approx(100 * (row["factor"] / row["product"] - 1))
        assert row["factor"] == pytest.approx(row["dense_macs"] / row["macs"])
    assert plain[0]["factor_weights"] == pytest.approx(1, abs=1e-3)
    assert {tuple(row["tabulated"]) for row in rows} == {(), ("words->layer1",)}
    assert set(read(folder / "summary.json")["energy_nj"]) > {row["label"] for row in rows}
    assert "perplexity" in out


def test_time_of_a_word(done):
    found = read(done[0] / "summary.json")["speed"]
    assert {row["network"] for row in found["times"].values()} == {"words looked up", "vectors"}
    assert found["tokens"] == 200
    assert found["networks"]["vectors"]["projections"]["layer1->layer1"]["stored"] == "sparse"
    assert all(row["median"] > 0 for row in found["times"].values())


@pytest.mark.usefixtures("no_pictures")
def test_names_of_files_as_in_wikitext(tmp_path, evsim):
    folder = write_corpus(tmp_path, "wiki.{}.tokens")
    words = words_of(folder, prune="none", epochs=1, speed=False)
    result = evsim(*words, "--out", tmp_path / "run", "--quiet")
    assert (result.code, result.out, result.err) == (0, "", "")
    summary = read(tmp_path / "run" / "summary.json")
    assert [one["name"] for one in summary["results"]] == ["EGRU"]
    assert summary["speed"] is None
    assert not list((tmp_path / "run").glob("pruned*"))


# -- stopped and resumed -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_pictures")
def test_a_run_that_is_done_trains_nothing(done, evsim):
    folder, _ = done
    before = {file: (folder / file).read_bytes() for file in STAGES}
    summary = without_seconds(read(folder / "summary.json"))
    result = evsim("run", "language_model", "--resume", folder, "--generate", 0)
    assert (result.code, result.err) == (0, "")
    assert "epoch " not in result.out
    assert {file: (folder / file).read_bytes() for file in STAGES} == before
    assert without_seconds(read(folder / "summary.json")) == summary


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("killed_in", ["checkpoint.h5", "pruned_80.h5"])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(done, corpus, tmp_path, evsim, killed_in):
    """SIGKILL within the second epoch of a stage; its file was written before and after the first one."""
    whole, _ = done
    stopper = (
        "import sys, time\n"
        "from evsim import word_training\n"
        "from evsim.checkpoint import Checkpoint\n"
        "save = Checkpoint.save\n"
        "step = word_training.WordTrainer._draw\n"
        "seen = []\n"
        "def saved(self, path):\n"
        "    save(self, path)\n"
        f"    if str(path).endswith({killed_in!r}): seen.append(path)\n"
        "    return path\n"
        "def drawn(self, window):\n"
        "    if len(seen) == 2 and window.number == 5:\n"
        "        print('within an epoch', flush=True)\n"
        "        time.sleep(60)\n"
        "    return step(self, window)\n"
        "Checkpoint.save, word_training.WordTrainer._draw = saved, drawn\n"
        "from evsim.cli import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", stopper, *words_of(corpus), "--generate", "5", "--prompt", "the cat"]
    with subprocess.Popen(
        [*command, "--out", str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert any("within an epoch" in line for line in child.stdout)
        finally:
            child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    assert len(Checkpoint.open(tmp_path / "run" / killed_in).progress["epochs"]) == 1
    result = evsim("run", "language_model", "--resume", tmp_path / "run")
    assert (result.code, result.err) == (0, "")
    for file in STAGES:
        assert contents(tmp_path / "run" / file) == contents(whole / file), file
    mine, other = (without_seconds(read(path / "summary.json")) for path in (tmp_path / "run", whole))
    assert mine == other


@pytest.fixture
def copied(done, tmp_path):
    """A finished run, to be tampered with."""
    shutil.copytree(done[0], tmp_path / "run")
    return tmp_path / "run"


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_another_text_of_the_same_words_is_not_gone_on_with(copied, corpus, tmp_path, evsim):
    shutil.copytree(corpus, tmp_path / "other")
    train = next((tmp_path / "other").glob("*train*"))
    train.write_text("".join(reversed(train.read_text().splitlines(keepends=True))))
    before = files(copied)
    for generate in (0, 5):
        again = ["--corpus", tmp_path / "other", "--generate", generate]
        refused(evsim("run", "language_model", "--resume", copied, *again), "corpus", "begun with")
    assert files(copied) == before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["--lr", 0.5], ["lr is 0.5", "begun with 0.02"]),
        (["--epochs", 3], ["epochs is 3", "begun with 2"]),
        (["--reads", "events"], ["reads is events", "begun with state"]),
        (["--seed", 7], ["seed is 7"]),
        (["--tune-lr", 0.5], ["tune_lr is 0.5"]),
        (["--prune-scope", "global"], ["prune_scope is global"]),
        (["--prune", "0.8"], ["prune is '0.8'", "has '0.6,0.8'", "append"]),
        (["--prune", "0.5,0.6,0.8"], ["prune is '0.5,0.6,0.8'"]),
    ],
)
def test_what_was_trained_otherwise_is_not_gone_on_with(copied, evsim, changes, said):
    """Else tables would tell of settings with which nothing was trained."""
    before = files(copied)
    refused(evsim("run", "language_model", "--resume", copied, *changes), *said)
    assert files(copied) == before


@pytest.mark.parametrize("bad", [["--threads", 0], ["--lanes", 3000], ["--units", 0]])
def test_a_refused_run_spares_the_one_that_is_written_over(copied, corpus, evsim, bad):
    before = files(copied)
    refused(evsim(*words_of(corpus), "--reads", "events", "--out", copied, "--force", "--quiet", *bad))
    assert files(copied) == before


@pytest.mark.usefixtures("no_pictures")
def test_quiet(copied, evsim):
    """Also where the time of a word is measured."""
    (copied / "summary.json").unlink()
    result = evsim("run", "language_model", "--resume", copied, "--quiet", "--generate", 0)
    assert (result.code, result.out, result.err) == (0, "", "")
    assert read(copied / "summary.json")["speed"]["times"]


@pytest.mark.usefixtures("no_pictures")
def test_a_run_that_is_done_can_be_pruned_further(copied, evsim):
    """A share need not be a whole number of percent."""
    before = {file: (copied / file).read_bytes() for file in STAGES}
    more = ["--resume", copied, "--prune", "0.6,0.8,0.975", "--generate", 0, "--no-speed"]
    result = evsim("run", "language_model", *more)
    assert (result.code, result.err) == (0, "")
    assert {file: (copied / file).read_bytes() for file in STAGES} == before
    results = read(copied / "summary.json")["results"]
    assert [one["name"] for one in results[2:]] == ["EGRU, 80% pruned", "EGRU, 97.5% pruned"]
    assert [one["epochs_before"] for one in results] == [0, 2, 4, 6]
    assert (copied / "pruned_97.5.h5").exists()


@pytest.mark.usefixtures("no_pictures")
def test_a_folder_written_over_keeps_nothing_to_go_on_from(corpus, tmp_path, evsim):
    """Else a run that is killed and resumed would take the pruned network of the run before for its own."""
    run = tmp_path / "run"
    words = [*words_of(corpus, prune="0.8", epochs=1, tune=1, speed=False), "--out", run, "--quiet"]
    assert evsim(*words).code == 0
    first = contents(run / "pruned_80.h5")
    again = [*words_of(corpus, prune="none", epochs=1, speed=False), "--seed", 1, "--out", run, "--quiet"]
    assert evsim(*again, "--force").code == 0
    assert not list(run.glob("pruned*"))
    more = ["--resume", run, "--prune", "0.8", "--tune", 1, "--quiet"]
    assert evsim("run", "language_model", *more).code == 0
    assert contents(run / "pruned_80.h5") != first


# -- text --------------------------------------------------------------------------------------------------


def test_text_of_a_finished_run(done):
    """Of the pruned network, without training, without PyTorch, and the same for the same seed."""
    folder, out = done
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "settings.json"}
    program = "import sys; sys.modules['torch'] = None; from evsim.cli import main; main()"
    options = ["--generate", "30", "--prompt", "the dog ran", "--temperature", "0.5"]
    command = [sys.executable, "-c", program, "run", "language_model", "--resume", str(folder), *options]
    said = [
        subprocess.run([*command, *more], capture_output=True, text=True, check=True, timeout=60).stdout
        for more in ([], [], ["--text-seed", "1"])
    ]
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name in before} == before
    found = [re.findall(f"^{LINE}$", text, re.MULTILINE) for text in said]
    assert len(found[0]) == 3
    assert [line[:2] for line in found[0]] == [line[:2] for line in found[1]]
    assert [line[0] for line in found[0]] != [line[0] for line in found[2]]
    words = [word for line in found[0] for word in line[0].split()]
    assert 15 <= len(words) <= 30  # ends of lines are not printed
    assert set(words) <= set(sentences(0, 2500).split())
    assert all(0 < float(alpha) < 1 and int(us) > 0 and int(more) > 0 for _, alpha, us, more in found[0])
    assert "from pruned_80.h5" in said[0]
    assert "after 'the dog ran':" in said[0]
    assert "epoch " not in said[0]
    assert len(re.findall(f"^{LINE}$", out, re.MULTILINE)) == 1  # of the run itself


# -- what cannot be ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prune": "0.9,0.8"}, ["prune is '0.9,0.8'", "increasing"]),
        ({"prune": "x"}, ["prune is 'x'"]),
        ({"prune": "1"}, ["prune is '1'"]),
        ({"twins": "rnn"}, ["twins is 'rnn'", "gru, lstm"]),
        ({"twins": "gru,gru"}, ["twins is 'gru,gru'"]),
        ({"generate": -1}, ["generate -1"]),
        ({"temperature": 0}, ["temperature 0"]),
        ({"text-seed": -1}, ["text_seed -1"]),
        ({"temperature": "nan"}, ["temperature nan"]),
        ({"tune-lr": -1}, ["tune_lr is -1"]),
        ({"epochs": 0}, ["epochs is 0"]),
        ({"tune": 0}, ["tune is 0"]),
        ({"units": 0}, ["units is 0"]),
        ({"reads": "states", "units": 10}, ["units 10, embedding 12", "--reads state"]),
        ({"threads": 0}, ["threads: is 0"]),
        ({"lanes": 0}, ["lanes is 0"]),
        ({"lanes": 3000}, ["3000 lanes"]),
        ({"dropconnect": 1}, ["dropconnect is 1"]),
        ({"lr": "nan"}, ["lr is nan"]),
        ({"threshold": 2}, ["threshold", "2"]),
        ({"generate": 3, "prompt": "the zebra"}, ["zebra"]),
        ({"generate": 3, "prompt": " "}, ["prompt"]),
    ],
)
def test_bad_options_are_one_line(corpus, tmp_path, evsim, options, said):
    """Said before anything is trained."""
    refused(evsim(*words_of(corpus, **options), "--out", tmp_path / "run", "--quiet"), *said)
    assert not (tmp_path / "run" / "checkpoint.h5").exists()


@pytest.mark.usefixtures("no_pictures")
def test_unknown_words_of_a_corpus_with_a_word_for_them(tmp_path, evsim):
    for part, n_words in (("train", 600), ("valid", 200), ("test", 200)):
        text = sentences(0, n_words).replace("owl", "<unk>")
        (tmp_path / f"ptb.{part}.txt").write_text(text)
    words = words_of(tmp_path, prune="none", epochs=1, speed=False, generate=3, prompt="the zebra")
    assert evsim(*words, "--out", tmp_path / "run").code == 0


@pytest.mark.parametrize("part", ["valid", "test"])
def test_a_part_of_one_word_is_found_before_training(corpus, tmp_path, evsim, part):
    shutil.copytree(corpus, tmp_path / "short")
    (tmp_path / "short" / f"ptb.{part}.txt").write_text("the")
    words = words_of(tmp_path / "short")
    refused(evsim(*words, "--out", tmp_path / "run", "--quiet"), f"the {part} part", "1 words")
    assert not (tmp_path / "run" / "checkpoint.h5").exists()


def test_without_torch(corpus, tmp_path, evsim, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    words = words_of(corpus, twins="lstm")
    refused(
        evsim(*words, "--out", tmp_path / "run", "--quiet"), "PyTorch", 'pip install "evsim[torch]"', "none"
    )


def test_importing_the_protocol_does_not_load_torch():
    program = "import sys, evsim.protocols.language_model; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"


@pytest.mark.peer
@pytest.mark.usefixtures("no_pictures")
def test_twins(corpus, tmp_path, evsim):
    pytest.importorskip("torch")
    words = words_of(corpus, twins="gru,lstm", prune="0.8", epochs=1, tune=1, speed=False)
    assert evsim(*words, "--out", tmp_path / "run", "--quiet").code == 0
    summary = read(tmp_path / "run" / "summary.json")
    assert [one["name"] for one in summary["results"]] == ["EGRU", "EGRU, 80% pruned", "GRU", "LSTM"]
    for one, gates in zip(summary["results"][2:], (3, 4), strict=True):
        assert one["alpha"] == 1.0
        assert one["activity"] == {}
        assert 1 < one["test_perplexity"] < 100
        macs = gates * (UNITS * (VECTOR + UNITS) + VECTOR * (UNITS + VECTOR))
        assert one["parameters"]["layers"] == macs + 2 * gates * (UNITS + VECTOR)
        assert sum(row["macs"] for row in one["operations"]) == macs
    labels = [row["label"] for row in summary["composition"]]
    assert {"GRU", "LSTM"} <= set(labels)
    assert set(summary["energy_nj"]) == {*labels, "dense GRU"} - {"GRU"}
    before = {file: (tmp_path / "run" / file).read_bytes() for file in ("gru.h5", "lstm.h5")}
    assert evsim("run", "language_model", "--resume", tmp_path / "run", "--quiet").code == 0
    assert {file: (tmp_path / "run" / file).read_bytes() for file in before} == before
    assert without_seconds(read(tmp_path / "run" / "summary.json")) == without_seconds(summary)


@pytest.mark.peer
@pytest.mark.usefixtures("no_pictures")
def test_twins_that_are_trained_at_the_same_time_are_the_same(corpus, tmp_path, evsim):
    """In a second process, with as many threads, also where it is only there that they are trained."""
    pytest.importorskip("torch")
    words = words_of(corpus, twins="gru,lstm", prune="none", epochs=2, speed=False, threads=1)
    assert evsim(*words, "--out", tmp_path / "one", "--quiet").code == 0
    result = evsim(*words, "--side-by-side", "--out", tmp_path / "two")
    assert (result.code, result.err) == (0, "")
    assert "GRU: perplexity" not in result.out.replace("EGRU: perplexity", "")
    said = (tmp_path / "two" / "twins.log").read_text()
    assert [line.split(" of ")[0] for line in re.findall(r"epoch (\d/2: [A-Z]+)", said)] == [
        "1/2: GRU",
        "2/2: GRU",
        "1/2: LSTM",
        "2/2: LSTM",
    ]
    for file in ("checkpoint.h5", "gru.h5", "lstm.h5"):
        assert contents(tmp_path / "two" / file) == contents(tmp_path / "one" / file), file
    one, two = (without_seconds(read(tmp_path / name / "summary.json")) for name in ("one", "two"))
    assert one == two
