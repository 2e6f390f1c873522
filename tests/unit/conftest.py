"""The command line, and logs for it to read."""

import pytest

from oracles import continuous_logs
from oracles.command_line import command_line, make_log


@pytest.fixture
def evsim(monkeypatch, capsys, tmp_path):
    """The command line, in this process and a folder of its own."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    return command_line(monkeypatch, capsys)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return make_log().save(tmp_path_factory.mktemp("log [of] a run") / "events.h5")


@pytest.fixture(scope="module")
def continuous(tmp_path_factory):
    return continuous_logs.make_log().save(tmp_path_factory.mktemp("continuous") / "events.h5")
