"""The command line: help, one-line errors, exit codes of the process."""

import inspect
import re
import subprocess
import sys
import typing

import pytest

from evsim.protocol import load, names
from oracles.command_line import KINDS, flat, refused

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


def has_option(page, name, hint, default):
    """Whether a page of help shows an option with its type and default."""
    described = hint
    if typing.get_origin(hint) is typing.Annotated:
        described, words = typing.get_args(hint)
        assert words.lower().split(":")[0].split()[0] in page.lower()
    kinds = [kind for kind in typing.get_args(described) if kind is not type(None)] or [described]
    if typing.get_origin(described) is typing.Literal:
        kind = r"[\[<]" + r"\|".join(kinds) + r"[\]>]"
    elif kinds == [bool]:
        kind = f"/ --no-{name.replace('_', '-')}"
        default = name.replace("_", "-") if default else f"no-{name.replace('_', '-')}"
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
        goes_on = () if name in ("cuba", "incremental_learning") else ("--resume",)
        for option in ("--out", *goes_on, "--force", "--quiet"):
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
            (["run", "language_model", "--reads", "letters"], ["--reads", "'letters'", "state", "events"]),
            (["run", "character_model", "--level", "word"], ["--level", "see evsim run character_model"]),
        ],
    )
    def test_one_line(self, evsim, words, said):
        refused(evsim(*words), *said)

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

    @pytest.mark.parametrize("protocol", ["character_model", "language_model"])
    def test_a_corpus_that_is_not_there(self, evsim, protocol):
        refused(evsim("run", protocol, "--corpus", "none.txt", "--out", "out"), "none.txt")


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
