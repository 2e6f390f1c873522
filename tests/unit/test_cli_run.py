"""evsim run: options made from signatures, protocols of one's own, folders, and going on."""

import json
import re
import sys
from pathlib import Path

import pytest

from evsim import cli
from evsim.checkpoint import Checkpoint
from evsim.eventlog import EventLog
from oracles.command_line import KINDS, flat, refused

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

    def test_a_missing_option(self, evsim, mine):
        refused(evsim("run", mine), "--size")


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

    @pytest.mark.parametrize("there", [False, True])
    def test_a_refused_run_leaves_nothing_in_the_way_of_the_next(self, evsim, tmp_path, there):
        (tmp_path / "picky.py").write_text(
            "from evsim.errors import ProtocolError\n"
            "def run(folder, size: int = 0):\n"
            "    if size < 1: raise ProtocolError('size', 'is small', 'give 1 or more')"
        )
        if there:
            (tmp_path / "out").mkdir()
        refused(evsim("run", "picky.py", "--size", 0, "--out", "out"), "size")
        assert (tmp_path / "out").exists() == there
        assert evsim("run", "picky.py", "--size", 1, "--out", "out").code == 0

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


STOPPING = """
from evsim.errors import ProtocolError

def run(folder, size: int = 1, stop: str = ""):
    folder.console.print(f"resumed: {folder.resume}")
    for place in ("early", "late"):
        if stop == f"{place} refusal":
            raise ProtocolError("here", "is wrong", "mend it")
        if stop == f"{place} key":
            raise KeyboardInterrupt
        (folder / "checkpoint.h5").write_text(str(size))
"""


@pytest.mark.parametrize("again", [("--out", "out", "--force"), ("--resume", "out")])
@pytest.mark.parametrize("stop", ["early refusal", "early key", "late refusal", "late key"])
def test_settings_are_those_of_what_is_there(evsim, tmp_path, again, stop):
    """Of a run that trained nothing the settings before it stay; of one that did, its own."""
    (tmp_path / "stopping.py").write_text(STOPPING)
    settings = tmp_path / "out" / "settings.json"
    assert evsim("run", "stopping.py", "--out", "out").code == 0
    before = settings.read_bytes()
    result = evsim("run", "stopping.py", "--size", 2, "--stop", stop, *again)
    assert result.code == (1 if "key" in stop else 2)
    trained = "late" in stop
    assert (settings.read_bytes() == before) is not trained
    if trained:
        assert json.loads(settings.read_text())["options"]["size"] == 2
    if "key" in stop:
        assert ("--resume" in result.err) is (trained or "--resume" in again)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["character_model", "--lanes", 5000, "--corpus", "tale.txt"], "5000"),
        (["credit", "--activity-cost", "nan"], "activity_cost is nan"),
        (["keyword_spotting", "--weight-decay", "nan"], "weight_decay is nan"),
    ],
)
def test_bad_options_are_found_before_training(evsim, tmp_path, words, said):
    """What is in the folder stays as it is."""
    (tmp_path / "tale.txt").write_text("the cat sat on the mat\n" * 50)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "checkpoint.h5").write_text("dear")
    refused(evsim("run", *words, "--out", "out", "--force", "--quiet"), said)
    assert (tmp_path / "out" / "checkpoint.h5").read_text() == "dear"


@pytest.mark.usefixtures("no_picture")
def test_a_text_that_was_moved(evsim, tmp_path):
    """A run goes on with it, but not with another of the same characters or words."""
    for name, words in (("a.txt", "the cat sat on the mat\n"), ("b.txt", "a mat sat on the cat the\n")):
        (tmp_path / name).write_text(words * 40)
    tiny = ["--units", 4, "--lanes", 2, "--window", 20, "--epochs", 1, "--quiet"]
    assert evsim("run", "character_model", *tiny, "--corpus", "a.txt", "--out", "out").code == 0
    again = ["run", "character_model", "--resume", "out", "--quiet", "--corpus"]
    refused(evsim(*again, "b.txt"), "corpus 'b.txt'", "begun with")
    (tmp_path / "a.txt").rename(tmp_path / "c.txt")
    refused(evsim(*again, "b.txt"), "corpus 'b.txt'", "begun with")
    assert evsim(*again, "c.txt").code == 0
    (tmp_path / "out" / "data.json").write_text("{")
    refused(evsim(*again, "c.txt"), "corpus 'c.txt'", "begun with")


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

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("number", "four"),
            ("number", True),
            ("rate", None),
            ("rate", "fast"),
            ("loud", 1),
            ("kind", "c"),
            ("colour", "green"),
            ("sizes", "a"),
            ("where", 3),
        ],
    )
    def test_settings_of_another_type(self, evsim, mine, tmp_path, key, value):
        settings = tmp_path / "old" / "settings.json"
        stored = json.loads(settings.read_text())
        stored["options"][key] = value
        settings.write_text(json.dumps(stored))
        refused(evsim("run", mine, "--size", 1, "--resume", "old"), "settings.json", f"{key} as {value!r}")

    def test_of_another_protocol(self, evsim):
        refused(evsim("run", "delayed_copy", "--resume", "old"), "mine.py", "evsim run ")

    def test_without_checkpoint(self, evsim, mine, tmp_path):
        (tmp_path / "old" / "checkpoint.h5").unlink()
        refused(evsim("run", mine, "--size", 1, "--resume", "old"), "no checkpoint")

    def test_only_protocols_that_ask_for_it_can_go_on(self, evsim, tmp_path):
        (tmp_path / "anew.py").write_text('def run(folder, size: int = 1):\n    """Anew every time."""\n')
        for protocol in ("anew.py", "cuba", "incremental_learning"):
            assert "--out" in evsim("run", protocol, "--help").out
            assert "--resume" not in evsim("run", protocol, "--help").out
            refused(evsim("run", protocol, "--resume", "old"), "--resume", "--help")
        assert "--resume" in evsim("run", "delayed_copy", "--help").out
        assert evsim("run", "anew.py", "--out", "out").code == 0

    def test_beside_out(self, evsim, mine):
        refused(
            evsim("run", mine, "--size", 1, "--resume", "old", "--out", "new"), "--out new", "--resume old"
        )

    def test_spoilt_or_foreign_checkpoint(self, evsim, tmp_path):
        evsim("run", "delayed_copy", *TINY, "--out", "out")
        path, settings = tmp_path / "out" / "checkpoint.h5", tmp_path / "out" / "settings.json"
        before = settings.read_bytes()
        refused(evsim("run", "delayed_copy", "--resume", "out", "--units", 7), "units is 7", "begun with 4")
        assert settings.read_bytes() == before  # the next one need not say how many units there are
        whole = path.read_bytes()
        for content in (whole[:-100], whole[:2000], b"", (tmp_path / "out" / "events.h5").read_bytes()):
            path.write_bytes(content)
            refused(evsim("run", "delayed_copy", "--resume", "out"), "checkpoint.h5")
