"""docs/logs.md: its Python runs as it stands; what needs other tools is run by `make test-peers`."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[2] / "docs" / "logs.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
#: Tools, and methods that need one.
PEERS = re.compile(r"elephant|neo\b|pandas|pynapple|pynwb|libsonata")
#: Run by hand.
BY_HAND = "datashader"


def run(blocks, folder):
    source = "\n".join(blocks)
    (folder / "page.py").write_text(source, encoding="utf-8")
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "page.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def needs_peer(block):
    return PEERS.search(block) is not None


def test_python_runs(tmp_path):
    blocks = [block for block in BLOCKS if not needs_peer(block) and BY_HAND not in block]
    assert len(blocks) >= 5
    run(["import numpy as np", *blocks], tmp_path)


@pytest.mark.peer
def test_python_with_other_tools_runs(tmp_path):
    blocks = [block for block in BLOCKS if BY_HAND not in block]
    assert sum(map(needs_peer, blocks)) >= 6
    run(blocks, tmp_path)


def test_commands_and_files_exist():
    from evsim import cli

    commands = {
        command.name or command.callback.__name__.rstrip("_") for command in cli.app.registered_commands
    }
    assert set(re.findall(r"`evsim (\w+)", TEXT)) <= commands
    root = Path(__file__).parents[2]
    assert all((root / name).exists() for name in re.findall(r"`((?:evsim|tests)/\w+\.py)`", TEXT))
