"""README: its Python runs as it stands, and the commands it names exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from evsim import cli

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
#: How often a loop turns here, whatever README says.
TURNS = 4


def shortened(source):
    return re.sub(r"\brange\(([\d_]+)\)", lambda found: f"range({min(int(found[1]), TURNS)})", source)


def test_there_is_a_script_of_thirty_lines_at_most():
    assert BLOCKS
    assert len(BLOCKS[0].splitlines()) <= 30


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_python_runs(number, tmp_path):
    """A block may go on with what those before it left: it runs after them."""
    source = shortened("\n".join(BLOCKS[: number + 1]))
    (tmp_path / "block.py").write_text(source, encoding="utf-8")
    command = [sys.executable, "-W", "error", "block.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    for name in re.findall(r"[\"']([\w/]+\.(?:h5|png|svg|pdf))[\"']", source):
        assert (tmp_path / name).stat().st_size > 1000, f"{name} was promised"


def test_commands_exist():
    commands = {
        command.name or command.callback.__name__.rstrip("_") for command in cli.app.registered_commands
    }
    commands |= {group.name for group in cli.app.registered_groups}
    named = set(re.findall(r"`evsim (\w+)", TEXT))
    assert named
    assert named <= commands


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", TEXT, re.MULTILINE))
    assert {"demo", "test"} <= named <= targets


@pytest.mark.skipif(not (ROOT / ".gitignore").exists(), reason="an sdist holds no pictures")
def test_files_exist():
    links = re.findall(r"\]\((?!https?:|#)([^)]+)\)", TEXT)
    missing = [link for link in links if not (ROOT / link.partition("#")[0]).exists()]
    assert not missing
