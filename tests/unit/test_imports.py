"""What the package imports: nothing that runs what it reads, and nothing heavy before it is needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("evsim", "models", "protocols", "data")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
CORE = sorted((ROOT / "cython_core").glob("*.py[xd]"))

#: Modules that make objects, and so run code, from bytes; and functions that run text.
UNSAFE_MODULES = {
    "pickle",
    "_pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "shelve",
    "joblib",
    "marshal",
    "runpy",
    "code",
}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__", "execfile"}


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def called(tree):
    """Names of what is called or handed on, ``f`` or the last of ``a.b.f``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            value = node.func.value
            yield f"{value.id}.{node.func.attr}" if isinstance(value, ast.Name) else f".{node.func.attr}"


def test_there_are_files():
    assert len(FILES) > 20
    assert CORE


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
class TestSources:
    def test_no_unsafe_module(self, path):
        names = set(imported(ast.parse(path.read_text(encoding="utf-8"))))
        assert not {name for name in names if name.partition(".")[0] in UNSAFE_MODULES}

    def test_nothing_runs_text(self, path):
        names = set(called(ast.parse(path.read_text(encoding="utf-8"))))
        assert not names & (UNSAFE_CALLS | {f"builtins.{name}" for name in UNSAFE_CALLS})
        assert not {name for name in names if name in ("np.load", "numpy.load", "np.fromregex")}
        assert "allow_pickle" not in path.read_text(encoding="utf-8")

    def test_only_protocols_are_run_from_files(self, path):
        """The user's own file, named on the command line, is all that is imported by path."""
        names = set(called(ast.parse(path.read_text(encoding="utf-8"))))
        by_path = {name for name in names if name.endswith((".exec_module", ".spec_from_file_location"))}
        assert not by_path or path.relative_to(ROOT) == Path("evsim/protocol.py")


def test_the_core_imports_nothing_unsafe():
    for path in CORE:
        words = set(path.read_text(encoding="utf-8").replace("(", " ").replace(".", " ").split())
        assert not words & (UNSAFE_MODULES - {"code"} | {"eval", "exec"}), path


def python(program):
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


HEAVY = {
    "matplotlib",
    "h5py",
    "scipy",
    "rich",
    "typer",
    "brian2",
    "torch",
    "pandas",
    "IPython",
    "importlib.metadata",
}
SHOW = "import sys; print(*{name for name in sys.modules})"
HELP = """
import sys
sys.argv = ["evsim", "--help"]
from evsim.cli import main
sys.stdout, kept = open(__import__("os").devnull, "w"), sys.stdout
try:
    main()
except SystemExit:
    sys.stdout = kept
"""


def test_import_evsim_is_light():
    assert not HEAVY & set(python(f"import evsim; {SHOW}"))


GIVEN = """
import numpy as np
from evsim import Network, Simulation
from evsim.models import EGRU, EventSource
for dt in (1.0, None):
    net = Network(dt=dt)
    net.connect(net.add(EventSource(2, "cue")), net.add(EGRU(3, "hidden")), weight=np.ones((2, 9)))
    columns = [np.array([0.0]), np.array([0]), np.array([1]), np.array([1.0])]
    Simulation(net).run(np.ones((4, 1, 2)) if dt else tuple(columns), *([] if dt else [4.0]))
"""


def test_a_network_of_given_values_needs_no_random_numbers():
    assert "numpy.random" not in python(GIVEN + SHOW)


def test_help_is_light():
    assert not HEAVY - {"rich", "typer", "importlib.metadata"} & set(python(HELP + SHOW))
