"""docs/brian2.md: its Python runs as it stands, one block after the other."""

import re
from pathlib import Path

import numpy as np
import pytest

TEXT = (Path(__file__).parents[2] / "docs" / "brian2.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.peer
def test_python_runs(brian2, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in BLOCKS[:2]:  # the third is a part of a script
        exec(block, names)
    assert float(capsys.readouterr().out.splitlines()[0]) < 1e-12
    assert names["run"].states["hidden"].shape == (2, 64)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["script.npz", "script.py"]
    assert np.load("script.npz")


def test_the_part_of_a_script_is_one(tmp_path):
    from evsim.cli import app

    app(["export", "brian2", "cuba", "-o", str(tmp_path / "cuba.py")], standalone_mode=False)
    assert BLOCKS[2] in (tmp_path / "cuba.py").read_text(encoding="ascii")
