"""What tests of the speech protocols share: the command line, files of a run, networks, words alone."""

import json
import re
import sys

import numpy as np
import pytest

from evsim import cli
from evsim.protocols.keyword_spotting import build
from evsim.simulation import Simulation

PNG = b"\x89PNG\r\n\x1a\n"
N_WORDS, BANDS, UNITS = 5, 6, 8


def command_line(*words):
    """The exit code of ``evsim run``, in this process."""
    before, sys.argv = sys.argv, ["evsim", "run", *map(str, words)]
    try:
        with pytest.raises(SystemExit) as left:
            cli.main()
    finally:
        sys.argv = before
    return left.value.code or 0


def options(**settings):
    return [word for key, value in settings.items() for word in (f"--{key.replace('_', '-')}", value)]


def refused(capsys, *words):
    """Exit code 2 and one line on stderr, which is returned."""
    assert command_line(*words) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(r"evsim: [^\n]+\n", said), said
    return said


def read(path):
    return json.loads(path.read_text())


def bits(arrays):
    return {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()}


def values(network):
    return bits({name: parameter.values for name, parameter in network.parameters().items()})


def numbers_in(task, trial):
    """The recordings of a trial, found by their frames."""
    place = {frames.tobytes(): number for number, frames in enumerate(task.features)}
    return [
        place[np.ascontiguousarray(trial.stimulus[:length, lane]).tobytes()]
        for lane, length in enumerate(trial.lengths)
    ]


def network_for(task, cell="lstm", layers=2, theta=0.1, seed=1):
    """Weights large enough that the words are told apart at all."""
    network = build(task, cell, UNITS, layers, theta, seed)
    for name, parameter in network.parameters().items():
        if name.endswith(".weight"):
            parameter.values *= 2
    return network


def alone(network, task, number):
    """The log of one word in a lane of its own."""
    return Simulation(network).run(task.features[number])
