"""Run folders of the language model: what is opened, and ``evsim bench tokens FOLDER``."""

import json
import re

import numpy as np
import pytest

from evsim.checkpoint import Checkpoint
from evsim.data.text import load_corpus
from evsim.errors import CheckpointError, DataError, ProtocolError
from evsim.event_stack import build_stack
from evsim.tied_embedding import TiedEmbedding
from evsim.trained_words import open_trained
from evsim.word_speed import reading_speed
from oracles.command_line import command_line, refused

UNITS, VECTOR = 9, 7
SHARES = {"checkpoint.h5": 0.0, "pruned_60.h5": 0.6, "pruned_95.h5": 0.95, "pruned_97.5.h5": 0.975}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder as a run leaves it, with random weights."""
    folder = tmp_path_factory.mktemp("run [of] words")
    rng = np.random.default_rng(0)
    text = folder / "tale.txt"
    text.write_text(" ".join(rng.choice(["cat", "dog", "owl", "sat", "ran"], 1000)))
    options = {"corpus": str(text), "units": UNITS, "layers": 2, "embedding": VECTOR}
    (folder / "settings.json").write_text(json.dumps({"protocol": "language_model", "options": options}))
    n_words = load_corpus(text, "word").n_tokens
    for seed, (file, share) in enumerate(SHARES.items()):
        network, embedding = build_stack(VECTOR, [UNITS, VECTOR], seed=seed), TiedEmbedding(n_words, VECTOR)
        best = {}
        for name, p in (network.parameters() | embedding.parameters()).items():
            values = p.values + np.float32(0.01)
            best[name] = np.where(rng.random(values.shape) < share, 0, values) if "->" in name else values
        best = {name: np.asarray(values, np.float32) for name, values in best.items()}
        last = {name: values + 1 for name, values in best.items() if "threshold" not in name}
        last |= {name: values for name, values in best.items() if "threshold" in name}
        Checkpoint(last, best).save(folder / file)
    return folder


@pytest.fixture
def evsim(monkeypatch, capsys):
    return command_line(monkeypatch, capsys)


@pytest.mark.parametrize("file", [None, *SHARES])
def test_weights_of_the_best_epoch(run, file):
    for given in (open_trained(run, file), open_trained(run / (file or "pruned_97.5.h5"))):
        best = Checkpoint.open(run / (file or "pruned_97.5.h5")).best  # by default that with most zeros
        found = given.network.parameters() | given.embedding.parameters()
        assert found.keys() == best.keys()
        for name, parameter in found.items():
            np.testing.assert_array_equal(parameter.values, best[name])
        assert given.file == run / (file or "pruned_97.5.h5")
        assert given.text.name == "tale.txt"


def test_what_cannot_be_opened(run, tmp_path):
    with pytest.raises(ProtocolError, match="no readable settings"):
        open_trained(tmp_path)
    with pytest.raises(ProtocolError, match=r"holds no pruned_10\.h5"):
        open_trained(run, "pruned_10.h5")
    with pytest.raises(ProtocolError, match=r"as checkpoint\.h5 and as --checkpoint pruned_10\.h5"):
        open_trained(run / "checkpoint.h5", "pruned_10.h5")
    stored = json.loads((run / "settings.json").read_text())
    for changes, error, words in (
        ({"protocol": "credit"}, ProtocolError, "is of the protocol 'credit'"),
        ({"options": {"units": 3}}, ProtocolError, "settings of another version"),
        ({"options": stored["options"] | {"corpus": str(tmp_path / "none.txt")}}, DataError, "no such file"),
        ({"options": stored["options"] | {"units": UNITS + 1}}, CheckpointError, "layer1"),
    ):
        (tmp_path / "settings.json").write_text(json.dumps(stored | changes))
        Checkpoint.open(run / "checkpoint.h5").save(tmp_path / "checkpoint.h5")
        with pytest.raises(error, match=words):
            open_trained(tmp_path)


def test_networks_that_are_timed(run):
    """All read the same text; a short one makes the window shorter."""
    model = open_trained(run)
    text = model.text.valid[:30]
    ways = ("dense", "sparse", "bfloat16", "int8")
    found = reading_speed(model.network, model.embedding, text, (), ways, rounds=2)
    assert list(found["networks"]) == [
        f"{way}, {what}" for what in ("words looked up", "vectors") for way in ways
    ]
    assert (found["tokens"], found["rounds"], found["sizes"]) == (30, 2, [UNITS, VECTOR])
    stored = {name: about["projections"] for name, about in found["networks"].items()}
    for what in ("words looked up", "vectors"):
        for way, form in zip(ways, ("float32", "sparse", "bfloat16", "int8"), strict=True):
            assert stored[f"{way}, {what}"]["layer1->layer1"]["stored"] == form
        places = {"vectors": VECTOR, "words looked up": model.text.n_tokens}[what]
        assert stored[f"dense, {what}"]["words->layer1"]["places"] == places * 3 * UNITS
    exact = [found["networks"][f"{way}, vectors"]["activity"] for way in ("dense", "sparse")]
    assert exact[0] == exact[1]
    alone = reading_speed(model.network, model.embedding, text, (), reads=("vectors",), rounds=1)
    assert list(alone["networks"]) == ["vectors"]
    assert alone["networks"]["vectors"]["activity"] == exact[0]


def test_command(run, evsim):
    result = evsim("bench", "tokens", run, "--peer", "none", "--tokens", 20, "--rounds", 2)
    assert (result.code, result.err) == (0, "")
    rows = re.findall(r"^(sparse, [a-z ]+, \w+) +[\d.]+ +[\d.]+-[\d.]+", result.out, re.MULTILINE)
    assert rows == [
        f"sparse, {what}, {mode}" for what in ("words looked up", "vectors") for mode in ("run", "step")
    ]
    assert f"from {run / 'pruned_97.5.h5'}\n" in result.out
    assert "2 windows of 20 tokens, one lane, one thread" in result.out


def test_command_with_choices(run, evsim):
    choices = [
        "--checkpoint",
        "checkpoint.h5",
        "--storage",
        "int8",
        "--storage",
        "dense",
        "--reads",
        "vectors",
    ]
    words = ["--peer", "none", "--tokens", 20, "--rounds", 1, "--json"]
    found = json.loads(evsim("bench", "tokens", run, *choices, *words).out)
    assert list(found["networks"]) == ["int8, vectors", "dense, vectors"]
    assert found["checkpoint"] == str(run / "checkpoint.h5")
    assert all(row["density"] == 1 for row in found["networks"]["dense, vectors"]["projections"].values())


def test_command_refuses(run, evsim):
    refused(evsim("bench", "tokens", run, "--checkpoint", "other.h5"), "holds no other.h5")
    refused(evsim("bench", "tokens", run / "settings.json"), "settings.json")
    refused(evsim("bench", "tokens", run, "--seed", 3), "--seed is for random layers")
