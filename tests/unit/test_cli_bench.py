"""``evsim bench``: its table, its JSON, and what it refuses."""

import json
import re
import sys

import pytest
from rich.console import Console

from evsim import cli, cli_bench
from evsim.speed_table import show

SMALL = ("--units", 12, "--tokens", 10, "--rounds", 2)


@pytest.fixture
def evsim(monkeypatch, capsys):
    """The command line in this process: exit code, stdout, stderr."""
    monkeypatch.setenv("COLUMNS", "80")

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["evsim", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return left.value.code or 0, *capsys.readouterr()

    return call


def test_help(evsim):
    code, out, _ = evsim("bench")
    assert code == 2
    assert "tokens" in out
    code, out, _ = evsim("bench", "tokens", "--help")
    assert code == 0
    for option in ("units", "layers", "activity", "weight-sparsity", "storage", "reads", "tokens", "rounds"):
        assert f"--{option}" in out


def test_json(evsim):
    code, out, err = evsim("bench", "tokens", *SMALL, "--peer", "none", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    ways = [f"{way}, {reads}" for reads in ("vectors", "ids") for way in ("dense", "sparse")]
    assert list(found["networks"]) == ways
    assert list(found["times"]) == [f"{way}, {mode}" for way in ways for mode in ("run", "step")]
    assert found["sizes"] == [12, 12]
    sparse = found["networks"]["sparse, ids"]["projections"]
    assert {name: row["stored"] for name, row in sparse.items()} == {
        "tokens->layer1": "float32",
        "layer1->layer1": "sparse",
        "layer1->layer2": "sparse",
        "layer2->layer2": "sparse",
    }
    assert all(row["density"] == pytest.approx(0.2, abs=0.01) for row in list(sparse.values())[1:])


def test_table_without_torch(evsim, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    options = ("--reads", "ids", "--storage", "int8", "--storage", "bfloat16", "--weight-sparsity", 0)
    code, out, err = evsim("bench", "tokens", *SMALL, *options, "--layers", 1)
    assert (code, err) == (0, "")
    rows = re.findall(r"^(\w+, \w+, \w+) +[\d.]+ +[\d.]+-[\d.]+", out, re.MULTILINE)
    assert rows == [f"{way}, ids, {mode}" for way in ("int8", "bfloat16") for mode in ("run", "step")]
    assert len(re.findall(r"^PyTorch.*pip install \"evsim\[torch\]\"$", out, re.MULTILINE)) == 1
    assert "2 windows of 10 tokens, one lane, one thread" in out


def test_table_beside_dense_layers(capsys):
    def row(median, mode, form=None, cores=None, **ratios):
        kept = {"network": None if form else "evsim", "form": form, "mode": mode, "cores": cores}
        found = {
            f"torch GRU {f}, {mode}": {"median": r, "lowest": r, "highest": r} for f, r in ratios.items()
        }
        return {"median": median, "lowest": median - 1, "highest": median + 2, "ratios": found} | kept

    times = {
        "evsim, run": row(10, "run", float32=9.04, int8=4.5),
        "evsim, step": row(40, "step", float32=3.0, int8=2.0),
    }
    for form, us in (("float32", 90.4), ("int8", 45)):
        for mode in ("run", "step"):
            times[f"torch GRU {form}, {mode}"] = row(us, mode, f"torch GRU {form}", 1.9 if us == 45 else 1.0)
    projection = {"density": 0.204}
    about = {"activity": {"layer1": 0.1012}, "macs_per_token": 1234.4, "projections": {"a->b": projection}}
    machine = {"instruction_set": "avx2", "torch": "2.9", "torch_instruction_set": "AVX2"}
    show(
        {
            "times": times,
            "networks": {"evsim": about},
            "dense_macs_per_token": {"gru": 56789},
            "left_out": ["something was left out"],
            "machine": machine,
            "rounds": 15,
            "tokens": 200,
        },
        Console(highlight=False, markup=False),
    )
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "evsim, run 10.0 9.0-12.0 9.0 4.5" in lines
    assert "evsim, step 40.0 39.0-42.0 3.0 2.0" in lines
    assert "torch GRU float32, run 90.4 89.4-92.4" in lines
    assert "evsim: activity layer1 0.101; weights not 0: a->b 20%" in lines
    assert "MACs per token: 1,234; dense GRU: 56,789" in lines
    assert "torch GRU int8, run: used more than one core" in lines
    assert "something was left out" in lines
    assert lines[-1] == "15 windows of 200 tokens, one lane, one thread; avx2; torch 2.9, AVX2"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--units", "0"), "--units"),
        (("--activity", "0.9"), "--activity"),
        (("--weight-sparsity", "1"), "--weight-sparsity"),
        (("--storage", "int4"), "int4"),
        (("--peer", "rnn"), "rnn"),
        (("--tokens", "x"), "x"),
        (("--rounds", "0"), "--rounds"),
        (("somewhere",), "somewhere"),
        (("--checkpoint", "pruned_80.h5"), "give a run folder"),
        (("somewhere", "--units", "3"), "--units is for random layers"),
    ],
)
def test_bad_values_are_one_line(evsim, words, said):
    code, out, err = evsim("bench", "tokens", *words)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"evsim: [^\n]+\n", err)
    assert said in err


def test_storage_has_each_form_once():
    assert [way.value for way in cli_bench.Storage] == ["dense", "sparse", "bfloat16", "int8"]
