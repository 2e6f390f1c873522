"""What tests of the command line share; its fixtures are those of ``tests/unit``."""

import re
import sys
import typing
from pathlib import Path

import numpy as np
import pytest

from evsim import cli
from evsim.models import EGRU, EventSource, LeakyReadout
from evsim.network import Network
from evsim.simulation import Simulation

KINDS = {int: r"<int>|INTEGER", float: r"<float>|FLOAT", str: r"<str>|TEXT", Path: r"<path>|PATH"}


class Result(typing.NamedTuple):
    code: int
    out: str
    err: str


def command_line(monkeypatch, capsys):
    """A function that calls the command in this process with some words, and gives its `Result`."""

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


def flat(text):
    """On one line, and without the backslashes that Typer before 0.22 leaves in front of brackets."""
    return re.sub(r"\s+", " ", text).replace("\\[", "[")


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
