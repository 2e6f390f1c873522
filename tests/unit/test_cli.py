"""The command line: help, options made from signatures, one-line errors, exit codes."""

import contextlib
import inspect
import json
import re
import subprocess
import sys
import typing
from pathlib import Path

import h5py
import numpy as np
import pytest

from evsim import cli
from evsim.brian import checking, library, report
from evsim.brian.result import Criterion, Crosscheck
from evsim.checkpoint import Checkpoint
from evsim.eventlog import EventLog
from evsim.models import EGRU, LIF, DeltaGRU, DeltaLSTM, EventSource, LeakyReadout
from evsim.network import Network
from evsim.protocol import load, names
from evsim.simulation import Simulation
from oracles import continuous_logs

COMMANDS = [
    "run",
    "list",
    "inspect",
    "raster",
    "view",
    "compare",
    "repair",
    "crosscheck",
    "prune",
    "info",
    "export",
    "bench",
]


class Result(typing.NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def evsim(monkeypatch, capsys, tmp_path):
    """The command line, in this process and a folder of its own."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["evsim", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return Result(left.value.code or 0, *capsys.readouterr())

    return call


def refused(result, *words):
    """Exit code 2, nothing on stdout, one line on stderr."""
    assert result.code == 2
    assert result.out == ""
    assert re.fullmatch(r"evsim: [^\n]+\n", result.err), result.err
    for word in words:
        assert str(word).lower() in result.err.lower(), result.err


def make_log():
    net = Network(seed=0)
    net.add(EventSource(3, name="cue"))
    net.add(EGRU(6, name="hidden", threshold=0.05))
    net.add(LeakyReadout(2, name="answer"))
    net.connect("cue", "hidden", weight=lambda rng, shape: rng.normal(0, 2, shape))
    net.connect("hidden", "hidden", delay=2.0)
    net.connect("hidden", "answer")
    rng = np.random.default_rng(0)
    return Simulation(net).run(rng.integers(-1, 3, (40, 2)))


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return make_log().save(tmp_path_factory.mktemp("log [of] a run") / "events.h5")


@pytest.fixture(scope="module")
def continuous(tmp_path_factory):
    return continuous_logs.make_log().save(tmp_path_factory.mktemp("continuous") / "events.h5")


# -- help ------------------------------------------------------------------------------------------------


KINDS = {int: r"<int>|INTEGER", float: r"<float>|FLOAT", str: r"<str>|TEXT", Path: r"<path>|PATH"}


def flat(text):
    """On one line, and without the backslashes that Typer before 0.22 leaves in front of brackets."""
    return re.sub(r"\s+", " ", text).replace("\\[", "[")


def has_option(page, name, hint, default):
    """Whether a page of help shows an option with its type and default."""
    described = hint
    if typing.get_origin(hint) is typing.Annotated:
        described, words = typing.get_args(hint)
        assert words.lower().split(":")[0].split()[0] in page.lower()
    kinds = [kind for kind in typing.get_args(described) if kind is not type(None)] or [described]
    if typing.get_origin(described) is typing.Literal:
        kind = r"[\[<]" + r"\|".join(kinds) + r"[\]>]"
    else:
        kind = KINDS[kinds[0]]
    shown = re.search(rf"--{name.replace('_', '-')} +({kind}) (.*?)(?= --|$)", flat(page))
    return shown and (default is None or f"[default: {default}]" in shown[2])


class TestHelp:
    def test_of_all(self, evsim):
        result = evsim("--help")
        assert result.code == 0
        listed = re.findall(r"^  (\w+)  +\S", result.out.split("Commands:")[1], re.MULTILINE)
        assert listed == COMMANDS
        assert "..." not in result.out.split("Commands:")[1]  # no sentence is cut short

    @pytest.mark.parametrize("command", COMMANDS)
    def test_of_commands(self, evsim, command):
        result = evsim(command, "--help")
        assert result.code == 0
        assert result.err == ""
        assert result.out.startswith("Usage: evsim " + command)
        assert all(len(line) <= 80 for line in result.out.splitlines())

    def test_of_run_names_the_protocols(self, evsim):
        page = evsim("run", "--help").out
        for name in names():
            assert f"  {name}  " in page
        assert "my.py" in page

    @pytest.mark.parametrize("name", names())
    def test_of_protocols(self, evsim, name):
        run = load(name)
        result = evsim("run", name, "--help")
        assert result.code == 0
        assert flat(inspect.getdoc(run)).replace("  ", " ") in flat(result.out)
        hints = typing.get_type_hints(run, include_extras=True)
        for parameter in list(inspect.signature(run).parameters.values())[1:]:
            assert has_option(result.out, parameter.name, hints[parameter.name], parameter.default)
        for option in ("--out", "--resume", "--force", "--quiet"):
            assert f"  {option} " in result.out
        assert all(len(line) <= 80 for line in result.out.splitlines())

    @pytest.mark.parametrize("words", [[], ["run"]])
    def test_alone_shows_help_as_bad_use(self, evsim, words):
        result = evsim(*words)
        assert result.code == 2
        assert result.out.startswith("Usage: evsim")
        assert "Commands:" in result.out

    def test_list(self, evsim):
        lines = evsim("list").out.splitlines()
        assert [line.split()[0] for line in lines] == names()
        assert all(30 < len(line) <= 80 for line in lines)

    def test_info_and_version(self, evsim):
        result = evsim("info")
        assert result.code == 0
        assert re.search(r"^evsim +\d+\.\d+", result.out)
        assert {"python", "numpy", "h5py", "instruction", "threads"} <= {
            line.split()[0] for line in result.out.splitlines()
        }
        assert re.fullmatch(r"\d+\.\d+\S*\n", evsim("--version").out)


# -- a protocol of one's own -----------------------------------------------------------------------------


MINE = '''
from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

if TYPE_CHECKING:
    from evsim.protocol import RunFolder


class Colour(str, Enum):
    RED = "red"
    BLUE = "blue"


def run(
    folder: RunFolder,
    size: Annotated[int, "how large"],
    rate: Annotated[float, "how fast, in Hz."] = 1.5,
    loud: Annotated[bool, "whether one hears it"] = False,
    where: Annotated[Path, "a file"] = Path("here"),
    kind: Literal["a", "b"] = "a",
    note: Optional[str] = None,
    number: Annotated[int | None, ""] = None,
    other: Path | None = None,
    colour: Colour = Colour.RED,
    sizes: Annotated[list[Path], "several"] = [],
    pair: tuple[int, float] = (1, 2.5),
):
    """Try everything.

    At length.
    """
    found = {key: repr(value) for key, value in locals().items() if key != "folder"}
    folder.write_json("found.json", {"found": found, "resumed": folder.resume, "settings": folder.settings})
    folder.console.print("done [loudly]")
'''

DEFAULTS = {
    "rate": "1.5",
    "loud": "False",
    "where": "PosixPath('here')",
    "kind": "'a'",
    "note": "None",
    "number": "None",
    "other": "None",
    "colour": "<Colour.RED: 'red'>",
    "sizes": "[]",
    "pair": "(1, 2.5)",
}
TYPED = {
    "size": "-3",
    "rate": "0.25",
    "loud": "True",
    "where": "PosixPath('there')",
    "kind": "'b'",
    "note": "'--x'",
    "number": "4",
    "other": "PosixPath('b')",
    "colour": "<Colour.BLUE: 'blue'>",
    "sizes": "[PosixPath('x'), PosixPath('y')]",
    "pair": "(7, 0.5)",
}
WORDS = [
    *(
        "--size",
        "-3",
        "--rate",
        "0.25",
        "--loud",
        "--where",
        "there",
        "--kind",
        "b",
        "--note=--x",
        "--number",
        "4",
    ),
    *("--other", "b", "--colour", "blue", "--sizes", "x", "--sizes", "y", "--pair", "7", "0.5"),
]


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


def found(folder):
    return json.loads((folder / "found.json").read_text())


class TestOwnFile:
    def test_help(self, evsim, mine):
        page = evsim("run", mine, "--help").out
        assert "Try everything." in page
        assert "At length." in page
        for option, kind in {"size": int, "rate": float, "where": Path, "note": str, "number": int}.items():
            assert re.search(rf"--{option} +({KINDS[kind]})", page), option
        assert "[required]" in flat(page)
        assert re.search(r"--loud *[/|] *--no-loud", page)
        assert "How fast, in Hz. [default: 1.5]" in flat(page)
        assert re.search(r"--kind +[\[<]a\|b[\]>]", page)

    def test_options_become_values(self, evsim, mine, tmp_path):
        result = evsim("run", mine, *WORDS, "--out", tmp_path / "out")
        assert (result.code, result.out) == (0, "done [loudly]\n")
        assert found(tmp_path / "out")["found"] == TYPED

    def test_defaults(self, evsim, mine, tmp_path):
        assert evsim("run", "mine.py", "--size", 1).code == 0
        (folder,) = (tmp_path / "runs").iterdir()
        assert re.fullmatch(r"mine-\d{8}-\d{6}", folder.name)
        assert found(folder)["found"] == DEFAULTS | {"size": "1"}
        assert found(folder)["resumed"] is False

    def test_settings_are_kept_and_come_back(self, evsim, mine, tmp_path):
        evsim("run", mine, *WORDS, "--out", "out")
        settings = json.loads((tmp_path / "out" / "settings.json").read_text())
        assert settings["protocol"] == str(mine)
        assert settings["options"] == found(tmp_path / "out")["settings"]
        assert settings["options"]["sizes"] == ["x", "y"]
        Checkpoint({}).save(tmp_path / "out" / "checkpoint.h5")
        assert evsim("run", mine, "--size", 9, "--kind", "a", "--no-loud", "--resume", "out").code == 0
        again = found(tmp_path / "out")
        assert again["resumed"] is True
        assert again["found"] == TYPED | {"size": "9", "kind": "'a'", "loud": "False"}

    def test_quiet(self, evsim, mine):
        assert evsim("run", mine, "--size", 1, "--quiet", "--out", "out") == (0, "", "")

    def test_what_lies_beside_it_can_be_imported(self, evsim, tmp_path, monkeypatch):
        monkeypatch.setattr(sys, "path", list(sys.path))
        folder = tmp_path / "elsewhere"
        folder.mkdir()
        (folder / "my_helper_of_this_test.py").write_text("VALUE = 5")
        (folder / "json.py").write_text(
            "from my_helper_of_this_test import VALUE\n"
            "def run(folder, n: int = VALUE): folder.write_json('n', {'n': n})"
        )
        assert evsim("run", folder / "json.py", "--out", "out").code == 0
        assert json.loads((tmp_path / "out" / "n").read_text()) == {"n": 5}
        assert sys.modules["json"] is json

    def test_its_own_errors_keep_their_trace(self, tmp_path, monkeypatch):
        (tmp_path / "bug.py").write_text("def run(folder): 1 / 0")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["evsim", "run", "bug.py"])
        with pytest.raises(ZeroDivisionError):
            cli.main()

    def test_stopped_by_hand(self, evsim, tmp_path):
        (tmp_path / "stop.py").write_text(
            "def run(folder, save: bool = False):\n"
            "    if save: (folder / 'checkpoint.h5').touch()\n"
            "    raise KeyboardInterrupt"
        )
        assert evsim("run", "stop.py", "--out", "a") == (1, "", "evsim: stopped\n")
        result = evsim("run", "stop.py", "--out", "b c", "--save")
        assert result == (1, "", "evsim: stopped; go on with: evsim run stop.py --resume 'b c'\n")


class TestFilesThatCannotRun:
    @pytest.mark.parametrize(
        ("source", "words"),
        [
            ("def run(folder, size=3): ...", ["size", "no type"]),
            ("def run(folder, size): ...", ["size", "no type"]),
            ("def run(folder, size: dict = {}): ...", ["size", "dict"]),
            ("def run(folder, size: object = 1): ...", ["size", "object"]),
            ("def run(folder, size: int | str = 1): ...", ["size", "int | str"]),
            ("def run(folder, size: tuple[int, ...] = ()): ...", ["size", "..."]),
            ("def run(folder, size: 'Missing' = 1): ...", ["Missing", "not defined"]),
            ("def run(folder, size: 'in t' = 1): ...", ["mean", "in t"]),
            ("def run(folder, out: int = 1): ...", ["'out'", "taken"]),
            ("def run(folder, help: int = 1): ...", ["'help'", "taken"]),
            ("def run(folder, ctx: int = 1): ...", ["'ctx'", "taken"]),
            ("def run(folder, **options: int): ...", ["options"]),
            ("def run(folder, *sizes: int): ...", ["sizes"]),
            ("def run(folder, size: int = 1, /): ...", ["size"]),
            ("def run(): ...", ["takes nothing"]),
            ("def train(folder): ...", ["no function run"]),
            ("run = 3", ["no function run"]),
            ("def run(folder:", ["SyntaxError", "line 1"]),
            ("import no_such_module_at_all", ["ModuleNotFoundError", "no_such_module_at_all"]),
            ("raise ValueError('two\\nlines')", ["ValueError: two"]),
            ("raise ValueError", ["ValueError"]),
            ("\0", []),
        ],
    )
    def test_one_line_says_why(self, evsim, tmp_path, source, words):
        (tmp_path / "mine.py").write_text(source)
        refused(evsim("run", "mine.py"), "protocol 'mine.py'", *words)
        assert [path.name for path in tmp_path.iterdir() if path.suffix != ".pyc"] in (
            ["mine.py"],
            ["__pycache__", "mine.py"],
            ["mine.py", "__pycache__"],
        )

    def test_no_such_protocol(self, evsim, tmp_path):
        refused(evsim("run", "delayed_cpoy"), "delayed_cpoy", "delayed_copy", ".py")
        refused(evsim("run", "none.py"), "none.py", "no such file")
        (tmp_path / "folder.py").mkdir()
        refused(evsim("run", "folder.py"), "folder.py", "no such file")


class TestUsage:
    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["bogus"], ["bogus", "see evsim --help"]),
            (["--bogus"], ["--bogus"]),
            (["inspect"], ["file", "see evsim inspect --help"]),
            (["inspect", "a", "b"], ["b"]),
            (["raster", "a", "--lane", "x"], ["--lane", "'x'", "0:100"]),
            (["crosscheck", "gru"], ["gru", "egru", "lif", "delta_gru", "delta_lstm"]),
            (["crosscheck", "lif", "--continuous", "--steps", "5"], ["--steps", "'5'", "in steps only"]),
            (["crosscheck", "egru", "--continuous", "--form", "evnn"], ["--form", "in steps only"]),
            (["crosscheck", "egru", "--gate", "post"], ["--gate", "'post'", "with --continuous only"]),
            (["crosscheck", "egru", "--dt", "0.1"], ["--dt", "with --continuous only"]),
            (["crosscheck", "lif", "--continuous", "--gate", "post"], ["--gate", "'post'", "egru", "lif"]),
            (["crosscheck", "lif", "--dt", "0"], ["--dt", "0"]),
            (["crosscheck", "lif", "--delay", "-1"], ["--delay", "-1"]),
            (["crosscheck", "lif", "--halvings", "0"], ["--halvings", "0"]),
            (["crosscheck", "egru", "--delay", "1.5"], ["--delay", "1.5", "steps"]),
            (["crosscheck", "egru", "--units", "0"], ["--units", "0"]),
            (["crosscheck", "egru", "--form", "other"], ["--form", "'other'", "evnn"]),
            (["crosscheck", "delta_gru", "--form", "paper"], ["--form", "'paper'", "egru", "delta_gru"]),
            (["crosscheck", "delta_lstm", "--delay", "0"], ["--delay", "0"]),
            (["run", "delayed_copy", "--bogus", "3"], ["--bogus", "see evsim run delayed_copy --help"]),
            (["run", "delayed_copy", "--units", "many"], ["--units", "'many'", "integer"]),
            (["run", "delayed_copy", "--units"], ["--units"]),
            (["run", "delayed_copy", "--lr", "fast"], ["--lr", "'fast'"]),
            (["run", "delayed_copy", "stray"], ["stray"]),
            (["run", "language_model", "--level", "letter"], ["--level", "'letter'", "char", "word"]),
        ],
    )
    def test_one_line(self, evsim, words, said):
        refused(evsim(*words), *said)

    def test_a_missing_option(self, evsim, mine):
        refused(evsim("run", mine), "--size")

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--units", "0"], ["hidden", "n_units is 0"]),
            (["--threshold", "2"], ["hidden.threshold", "2.0"]),
            (["--trials", "-5"], ["trials is -5"]),
            (["--n-symbols", "1"], ["n_symbols is 1"]),
            (["--lr", "-1"], ["lr is -1.0"]),
            (["--seed", "-1"], ["seed is -1"]),
        ],
    )
    def test_values_that_cannot_work(self, evsim, words, said):
        refused(evsim("run", "delayed_copy", *words, "--out", "out"), *said)

    def test_a_corpus_that_is_not_there(self, evsim):
        refused(evsim("run", "language_model", "--corpus", "none.txt", "--out", "out"), "none.txt")


# -- the folder of a run ---------------------------------------------------------------------------------


TINY = ["--n-symbols=2", "--delay=1", "--units=4", "--batch-size=2", "--trials=1", "--epochs=1"]


class NoPicture:
    def savefig(self, path, **options):
        path.touch()


@pytest.fixture
def no_picture(monkeypatch):
    """Drawing takes longer than all else in a tiny run."""
    monkeypatch.setattr(EventLog, "figure", lambda log: NoPicture())


@pytest.mark.usefixtures("no_picture")
class TestFolder:
    def test_what_is_there_is_not_overwritten(self, evsim, mine, tmp_path):
        evsim("run", mine, "--size", 1, "--out", "out")
        refused(evsim("run", mine, "--size", 2, "--out", "out"), "'out'", "not empty", "--force")
        assert found(tmp_path / "out")["found"]["size"] == "1"
        assert evsim("run", mine, "--size", 2, "--out", "out", "--force").code == 0
        assert found(tmp_path / "out")["found"]["size"] == "2"

    def test_an_empty_folder_will_do(self, evsim, mine, tmp_path):
        (tmp_path / "out").mkdir()
        assert evsim("run", mine, "--size", 1, "--out", "out").code == 0

    @pytest.mark.parametrize("force", [[], ["--force"]])
    def test_a_place_that_cannot_be_written_to(self, evsim, mine, force):
        for out in ("mine.py", "mine.py/out", "x" * 300, "/proc/none"):
            refused(evsim("run", mine, "--size", 1, "--out", out, *force), f"'{out}'", "--out")

    def test_a_file_in_the_way(self, evsim, mine, tmp_path):
        (tmp_path / "out" / "settings.json").mkdir(parents=True)
        refused(evsim("run", mine, "--size", 1, "--out", "out", "--force"), "settings.json")

    def test_force_does_not_go_on_with_what_was_there(self, evsim, tmp_path):
        evsim("run", "delayed_copy", *TINY, "--out", "out")
        result = evsim("run", "delayed_copy", *TINY, "--units", 5, "--out", "out", "--force")
        assert result.code == 0
        best = Checkpoint.open(tmp_path / "out" / "checkpoint.h5").best
        assert best["hidden.threshold"].shape == (5,)

    def test_output_and_quiet(self, evsim):
        result = evsim("run", "delayed_copy", *TINY, "--out", "a")
        assert result.code == 0
        assert result.err == ""
        assert re.match(r"epoch 1/1: .*\naccuracy .*\nresults in a: ", result.out)
        assert evsim("run", "delayed_copy", *TINY, "--out", "b", "--quiet") == (0, "", "")


@pytest.mark.usefixtures("no_picture")
class TestResume:
    @pytest.fixture(autouse=True)
    def run(self, evsim, mine, tmp_path):
        evsim("run", mine, "--size", 1, "--out", "old")
        Checkpoint({}).save(tmp_path / "old" / "checkpoint.h5")

    def test_works(self, evsim, mine):
        assert evsim("run", mine, "--size", 1, "--resume", "old").code == 0

    def test_missing_folder(self, evsim, mine):
        refused(evsim("run", mine, "--size", 1, "--resume", "none"), "'none'", "--resume")

    def test_not_a_run(self, evsim, mine, tmp_path):
        for number, text in enumerate(("", "{", "[]", "{}", '{"protocol": 3, "options": 4}', "\xff")):
            folder = tmp_path / str(number)
            folder.mkdir()
            (folder / "settings.json").write_text(text, encoding="latin-1")
            refused(evsim("run", mine, "--size", 1, "--resume", folder), "settings.json")

    def test_of_another_protocol(self, evsim):
        refused(evsim("run", "delayed_copy", "--resume", "old"), "mine.py", "evsim run ")

    def test_without_checkpoint(self, evsim, mine, tmp_path):
        (tmp_path / "old" / "checkpoint.h5").unlink()
        refused(evsim("run", mine, "--size", 1, "--resume", "old"), "no checkpoint")

    def test_beside_out(self, evsim, mine):
        refused(
            evsim("run", mine, "--size", 1, "--resume", "old", "--out", "new"), "--out new", "--resume old"
        )

    def test_spoilt_or_foreign_checkpoint(self, evsim, tmp_path):
        evsim("run", "delayed_copy", *TINY, "--out", "out")
        path, settings = tmp_path / "out" / "checkpoint.h5", tmp_path / "out" / "settings.json"
        before = settings.read_bytes()
        refused(evsim("run", "delayed_copy", "--resume", "out", "--units", 7), "network")
        assert settings.read_bytes() == before  # the next one need not say how many units there are
        whole = path.read_bytes()
        for content in (whole[:-100], whole[:2000], b"", (tmp_path / "out" / "events.h5").read_bytes()):
            path.write_bytes(content)
            refused(evsim("run", "delayed_copy", "--resume", "out"), "checkpoint.h5")


# -- logs ------------------------------------------------------------------------------------------------


class TestInspect:
    def test_says_what_is_there(self, evsim, log):
        result = evsim("inspect", log)
        assert (result.code, result.err) == (0, "")
        lines = result.out.splitlines()
        assert lines[0] == f"{log}: 40 ms in steps of 1 ms, 2 lanes"
        assert all(len(line) <= 80 for line in lines[1:] if not line.startswith("platform"))
        truth = make_log()
        counts = np.bincount(truth["hidden"].unit, minlength=6)
        first, second = (
            [line.split() for line in lines if line.startswith(f"{name} ")] for name in ("hidden", "answer")
        )
        events = truth["hidden"].n_events
        assert first[0] == ["hidden", "EGRU", "6", f"{events:,}", f"{events / 480:.4f}", "events"]
        assert second == [["answer", "LeakyReadout", "2", "-", "-", "state", "v"]]
        rates = [1000 * n / 80 for n in (counts.mean(), counts.min(), counts.max())]
        dense = truth["hidden"].events.to_dense() != 0
        chi = np.mean(
            [np.sqrt(x.mean(axis=1).var() / x.var(axis=0).mean()) for x in np.swapaxes(dense, 0, 1)]
        )
        statistics = [*(f"{rate:,.1f}" for rate in rates), f"{100 * (counts == 0).mean():.1f}", f"{chi:.3f}"]
        assert first[1][:6] == ["hidden", *statistics]
        most, least = np.argsort(-counts, kind="stable")[:2], np.argsort(counts, kind="stable")[:2]
        assert first[1][7:] == [str(unit) for unit in (*most, *least)]
        weights = {"cue->hidden": 3 * 18, "hidden->hidden": 6 * 18, "hidden->answer": 6 * 2}
        for name, macs in truth.counters["macs"].items():
            row = next(line.split() for line in lines if line.startswith(name))
            assert row[1:3] == [f"{macs:,}", f"{weights[name] * 80:,}"]
        assert any(line.split()[:1] == ["seed"] for line in lines)

    def test_json(self, evsim, log):
        result = evsim("inspect", log, "--json")
        assert (result.code, result.err) == (0, "")

        def no_constants(word):
            raise AssertionError(f"{word} is not JSON")

        facts = json.loads(result.out, parse_constant=no_constants)
        assert (facts["duration_ms"], facts["dt_ms"], facts["lanes"]) == (40, 1, 2)
        assert [row["population"] for row in facts["populations"]] == ["cue", "hidden", "answer"]
        assert facts["counters"] == EventLog.open(log).counters

    def test_a_run_in_continuous_time(self, evsim, continuous):
        result = evsim("inspect", continuous)
        assert (result.code, result.err) == (0, "")
        lines = result.out.splitlines()
        assert lines[0] == f"{continuous}: 7.5 ms in continuous time, 2 lanes"
        assert all(len(line) <= 80 for line in lines[1:] if not line.startswith("platform"))
        truth = continuous_logs.make_log()
        first, second = (
            [line.split() for line in lines if line.startswith(f"{name} ")] for name in ("hidden", "answer")
        )
        assert first[0][:5] == ["hidden", "EGRU", "3", "20", "events,"]
        assert first[1][:2] == ["hidden", f"{truth['hidden'].rate:,.1f}"]
        assert second == [["answer", "LeakyReadout", "2", "-", "state", "v"]]
        assert "chi: in bins of 1 ms" in evsim("inspect", continuous, "--bin", 1).out.splitlines()
        assert ["cue->hidden", f"{2**40:,}"] in [line.split() for line in lines]
        assert ["crossings", "20"] in [line.split() for line in lines]
        facts = json.loads(evsim("inspect", continuous, "--json").out)
        assert (facts["duration_ms"], facts["dt_ms"], facts["lanes"]) == (7.5, None, 2)
        assert (facts["start_ms"], facts["samples"]) == (12.5, 4)
        for row, expected in zip(facts["populations"], json.loads(json.dumps(truth.summary())), strict=True):
            assert {key: row[key] for key in expected} == expected

    def test_check(self, evsim, log, continuous, tmp_path):
        for path in (log, continuous):
            result = evsim("inspect", path, "--check")
            assert (result.code, result.err) == (0, "")
            assert re.fullmatch(r".*: sound, \d+ events read\n", result.out)
        assert json.loads(evsim("inspect", log, "--check", "--json").out) == {
            "sound": True,
            "complete": True,
            "damage": [],
        }
        (tmp_path / "broken.h5").write_bytes(log.read_bytes())
        with h5py.File(tmp_path / "broken.h5", "r+") as file:
            file["spikes/cue/node_ids"][3] += 1
            file["spikes/hidden/value"][0] = 77.0
        result = evsim("inspect", "broken.h5", "--check")
        assert (result.code, result.err) == (1, "")
        lines = result.out.splitlines()
        assert len(lines) >= 2
        assert all(line.startswith("broken.h5: ") for line in lines)
        assert any("cue" in line for line in lines)
        assert any("hidden" in line for line in lines)
        assert json.loads(evsim("inspect", "broken.h5", "--check", "--json").out)["sound"] is False
        (tmp_path / "text.h5").write_text("text")
        result = evsim("inspect", "text.h5", "--check")
        assert (result.code, result.err) == (1, "")
        assert result.out.startswith("text.h5: ")
        refused(evsim("inspect", "none.h5", "--check"), "none.h5")

    @pytest.mark.parametrize("command", ["inspect", "raster"])
    def test_files_that_are_no_logs(self, evsim, log, tmp_path, command):
        whole = log.read_bytes()
        (tmp_path / "text").write_text("text")
        (tmp_path / "empty").touch()
        (tmp_path / "folder").mkdir()
        (tmp_path / "short").write_bytes(whole[: len(whole) // 2])
        Checkpoint({}).save(tmp_path / "checkpoint.h5")
        h5py.File(tmp_path / "other.h5", "w").close()
        for name in (
            "text",
            "empty",
            "folder",
            "short",
            "checkpoint.h5",
            "other.h5",
            "none.h5",
            "none/none.h5",
        ):
            refused(evsim(command, name), f"'{name}'")
        assert not (tmp_path / "raster.png").exists()


class TestRaster:
    @pytest.mark.parametrize(
        ("name", "start"),
        [("a.png", b"\x89PNG"), ("a b.svg", b"<?xml"), ("a.pdf", b"%PDF"), ("A.PNG", b"\x89PNG")],
    )
    def test_formats(self, evsim, log, tmp_path, name, start):
        assert evsim("raster", log, "-o", name) == (0, f"{name}\n", "")
        assert (tmp_path / name).read_bytes().startswith(start)

    def test_a_run_in_continuous_time(self, evsim, continuous, tmp_path):
        assert evsim("raster", continuous, "-o", "a.png", "--lane", 1) == (0, "a.png\n", "")
        assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
        refused(evsim("raster", continuous, "--lane", 2), "lane 2", "0..1")

    def test_what_is_drawn_can_be_chosen(self, evsim, log, tmp_path, monkeypatch):
        from evsim import raster

        asked = {}
        true = raster.figure
        monkeypatch.setattr(
            raster, "figure", lambda members, **o: asked.update(o, of=members) or true(members, **o)
        )
        window = ["--start", "5", "--stop", "20.5", "--units", "1:3,0", "--lanes", "1,0", "--no-rate"]
        look = ["--colour", "none", "--width", "4", "--dpi", "80", "--population", "hidden"]
        assert evsim("raster", log, *window, *look).code == 0
        assert list(asked.pop("of")) == ["hidden"]
        assert asked == {
            "start": 5.0,
            "stop": 20.5,
            "units": [1, 2, 0],
            "lanes": [1, 0],
            "rate": False,
            "colour": None,
            "width": 4.0,
            "dpi": 80,
        }
        assert evsim("raster", log, "--force", "--lanes", "all").code == 0
        assert (asked["lanes"], asked["units"], asked["colour"], asked["rate"]) == ("all", None, "auto", True)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--units", "1:x"], ["--units", "'1:x'", "0:100"]),
            (["--units", "3:3"], ["--units", "'3:3'", "empty"]),
            (["--lanes", ""], ["--lanes", "''"]),
            (["--units", "0:20000000"], ["too long"]),
            (["--units", "5:7"], ["there is no unit 5", "0..2"]),
            (["--units", "1,1"], ["repeat"]),
            (["--start", "50"], ["from 50.0 to None ms", "start < stop within 0 to 40"]),
            (["--population", "none"], ["'none'"]),
            (["--population", "answer"], ["sends no events"]),
            (["--colour", "gradient"], ["no gradient", "replay"]),
            (["--colour", "red"], ["--colour", "'red'"]),
            (["--dpi", "1"], ["--dpi"]),
        ],
    )
    def test_what_cannot_be_drawn(self, evsim, log, tmp_path, options, words):
        refused(evsim("raster", log, *options), *words)
        assert list(tmp_path.iterdir()) == []

    def test_wrong_suffix(self, evsim, log, tmp_path):
        for name in ("a.jpg", "a", ".png"):
            refused(evsim("raster", log, "-o", name), f"'{name}'", ".svg")
        assert list(tmp_path.iterdir()) == []

    def test_what_is_there_is_not_overwritten(self, evsim, log, tmp_path):
        (tmp_path / "raster.png").write_text("mine")
        refused(evsim("raster", log), "raster.png", "--force")
        assert (tmp_path / "raster.png").read_text() == "mine"
        assert evsim("raster", log, "--force", "--lane", 1).code == 0
        assert (tmp_path / "raster.png").read_bytes().startswith(b"\x89PNG")

    def test_no_place_to_write_to(self, evsim, log, tmp_path):
        refused(evsim("raster", log, "-o", "none/a.png"), "none/a.png")
        (tmp_path / "a.png").mkdir()
        refused(evsim("raster", log, "-o", "a.png", "--force"), "a.png")

    @pytest.mark.parametrize("lane", [2, -1])
    def test_no_such_lane(self, evsim, log, lane):
        refused(evsim("raster", log, "--lane", lane), f"lane {lane}", "0..1")


class TestCompare:
    def test_equal_logs(self, evsim, log, continuous):
        for path in (log, continuous):
            result = evsim("compare", path, path)
            assert (result.code, result.err) == (0, "")
            assert result.out.splitlines()[-1] == "equal within 1e-09 ms and 1e-09"
            assert all(len(line) <= 80 for line in result.out.splitlines())

    def test_tolerances(self, evsim, continuous, tmp_path):
        other = continuous_logs.make_log()
        other["hidden"].time[:] += 1e-6
        other["answer"].state[0, 0, 0] += 1e-3
        other.save(tmp_path / "other.h5")
        result = evsim("compare", continuous, "other.h5")
        assert (result.code, result.err) == (1, "")
        lines = result.out.splitlines()
        counts, errors = (line.split() for line in lines if line.startswith("hidden "))
        assert counts == ["hidden", "20", "20", "0", "20", "0", "0"]
        assert errors[:5] == ["hidden", "3", "1.0e-06", "0.0e+00", "0.0e+00"]
        assert 0 < float(errors[5]) < 1e-2
        (row,) = (line.split() for line in lines if line.startswith("answer "))
        assert row == ["answer", "2", "-", "-", "1.0e-03", "-"]
        found = json.loads(evsim("compare", continuous, "other.h5", "--json").out)
        assert (found["equal"], found["tau_ms"]) == (False, 10.0)
        assert found["populations"]["hidden"]["n_moved"] == 20
        assert evsim("compare", continuous, "other.h5", "--start", "13.2", "--stop", "13.2").code == 0
        assert any(line.startswith("hidden: unit ") and line.endswith("1e-06 ms apart") for line in lines)
        assert lines[-1] == "NOT equal within 1e-09 ms and 1e-09"
        assert evsim("compare", continuous, "other.h5", "--time-tolerance", "2e-6").code == 1
        allowed = ["--time-tolerance", "2e-6", "--tolerance", "2e-3"]
        assert evsim("compare", continuous, "other.h5", *allowed).code == 0

    def test_what_cannot_be_compared(self, evsim, log, continuous, tmp_path):
        refused(evsim("compare", log, continuous), "units", "compare runs of one network")
        refused(evsim("compare", log, "none.h5"), "none.h5")
        refused(evsim("compare", log), "second", "see evsim compare --help")
        refused(evsim("compare", log, log, "--time-tolerance", "-1"), "--time-tolerance")


# -- checks ----------------------------------------------------------------------------------------------


class TestCrosscheck:
    @pytest.fixture
    def asked(self, monkeypatch):
        """What would have been compared; ``asked["good"]`` is the answer to give."""
        asked = {"good": True}

        def check(subject, **options):
            asked.update(options, subject=subject)
            criterion = Criterion("What is asked", "0.2", "0.1 or less", 0.2, 0.1, asked["good"])
            return Crosscheck(subject, options["plant"], [criterion])

        def write_report(result, folder, arguments):
            (folder / "report.html").write_text(" ".join(arguments))

        monkeypatch.setattr(checking, "check", check)
        monkeypatch.setattr(report, "write_report", write_report)
        monkeypatch.setattr(library, "quiet_brian2", contextlib.nullcontext)
        return asked

    @pytest.mark.parametrize(("good", "code"), [(True, 0), (False, 1)])
    def test_exit_code_is_the_answer(self, evsim, asked, tmp_path, good, code):
        asked["good"] = good
        result = evsim("crosscheck", "egru", "--tolerance", "1e-9", "--out", "out", "--target", "cython")
        assert (result.code, result.err) == (code, "")
        assert ("NOT all tolerances hold" in result.out) is not good
        assert (asked["tolerance"], asked["target"], asked["plant"]) == (1e-9, "cython", None)
        words = (tmp_path / "out" / "report.html").read_text()
        assert words == "crosscheck egru --tolerance 1e-9 --out out --target cython"

    @pytest.mark.parametrize(
        ("words", "kind"),
        [
            (["egru", "--form", "paper"], EGRU),
            (["lif"], LIF),
            (["delta_gru"], DeltaGRU),
            (["delta_lstm"], DeltaLSTM),
        ],
    )
    def test_all_models_take_the_same_options(self, evsim, asked, words, kind):
        options = ["--units", 3, "--steps", 40, "--layers", 2, "--delay", 4, "--seed", 5, "--out", "out"]
        assert evsim("crosscheck", *words, *options).code == 0
        subject = asked["subject"]
        network = subject.network
        assert (subject.n_steps, network.seed, network["hidden_2"].n_units) == (40, 5, 3)
        assert type(network["hidden_2"]) is kind
        assert network.projections["hidden_2->hidden_2"].delay_steps == 4

    @pytest.mark.parametrize("words", [["lif"], ["egru", "--gate", "post"]])
    def test_continuous(self, evsim, asked, words):
        assert evsim("crosscheck", *words, "--continuous", "--out", "out").code == 0
        assert asked["dts"] == [0.1, 0.05, 0.025, 0.0125, 0.00625]
        assert asked["subject"].network.continuous
        assert asked["subject"].duration == 50.0
        options = [
            "--units",
            3,
            "--duration",
            40,
            "--layers",
            2,
            "--delay",
            0.5,
            "--seed",
            5,
            "--out",
            "other",
        ]
        options += ["--dt", 0.4, "--halvings", 1]
        assert evsim("crosscheck", *words, "--continuous", *options).code == 0
        subject = asked["subject"]
        assert (asked["dts"], subject.duration, subject.network.seed) == ([0.4, 0.2], 40.0, 5)
        assert subject.network["hidden_2"].n_units == 3
        assert subject.network.projections["hidden_2->hidden_2"].delay.values == 0.5

    def test_protocols_and_planted_errors(self, evsim, asked):
        words = ["crosscheck", "credit", "--units", 4, "--plant", "hidden.threshold[1]+1e-3", "--out", "out"]
        assert evsim(*words).code == 0
        assert asked["subject"].network["hidden"].n_units == 4
        assert str(asked["plant"]) == "hidden.threshold[1]+0.001"

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["incremental_learning"], ["defines no subject", "cuba", "yin_yang"]),
            (["credit", "--continuous"], ["--continuous", "'credit' has its own kind of time"]),
            (["credit", "--layers", "2"], ["'credit'", "'layers'"]),
            (["credit", "--dt", "0.1"], ["--dt", "in steps"]),
            (["egru", "--plant", "nonsense"], ["'nonsense'", "NAME[INDEX]+SIZE"]),
            (["none.py:net"], ["none.py", "no such file"]),
            (["none.py"], ["none.py:NAME"]),
        ],
    )
    def test_what_is_refused(self, evsim, asked, words, said):
        refused(evsim("crosscheck", *words, "--out", "out"), *said)
        assert "subject" not in asked

    def test_without_brian2(self, evsim, monkeypatch, tmp_path):
        monkeypatch.setitem(sys.modules, "brian2", None)
        for model in (["egru"], ["delta_gru"], ["lif"], ["credit"], ["egru", "--continuous"]):
            refused(evsim("crosscheck", *model, "--out", "out"), "Brian2", 'pip install "evsim[brian2]"')
        assert not (tmp_path / "out").exists()


# -- the program itself ----------------------------------------------------------------------------------


@pytest.mark.parametrize("program", [["-m", "evsim"], ["-c", "from evsim.cli import main; main()"]])
def test_exit_codes_of_the_process(program, tmp_path):
    def call(*words):
        command = [sys.executable, "-W", "error", *program, *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert call("--version").returncode == 0
    done = call("inspect", "none.h5")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch("evsim: log 'none.h5': .+\n", done.stderr)


def test_a_reader_that_has_seen_enough(log):
    """As in ``evsim inspect FILE | head -1``."""
    command = [sys.executable, "-m", "evsim", "inspect", str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        program.stdout.close()
        assert program.stderr.read() == ""
    assert program.returncode in (0, 1)
