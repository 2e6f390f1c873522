"""The command line, and logs for it to read."""

import sys

import pytest

from evsim import cli
from oracles import continuous_logs
from oracles.command_line import Result, make_log


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


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return make_log().save(tmp_path_factory.mktemp("log [of] a run") / "events.h5")


@pytest.fixture(scope="module")
def continuous(tmp_path_factory):
    return continuous_logs.make_log().save(tmp_path_factory.mktemp("continuous") / "events.h5")
