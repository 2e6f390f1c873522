"""``evsim info``, and EVSIM_ISA with a name that means nothing."""

import json
import os
import re
import subprocess
import sys

import pytest

from evsim.core import kernels
from evsim.threads import usable_threads

#: What starts the command; the program that pip installs does what the second line does.
COMMANDS = {
    "module": [sys.executable, "-P", "-m", "evsim"],
    "program": [sys.executable, "-P", "-c", "import sys; sys.argv[0] = '/bin/evsim'; import evsim.__main__"],
}


def start(*words, isa=None):
    environment = {name: value for name, value in os.environ.items() if name != "EVSIM_ISA"}
    environment |= {} if isa is None else {"EVSIM_ISA": isa}
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False)


def test_info_as_json():
    facts = json.loads(start(*COMMANDS["module"], "info", "--json").stdout)
    assert facts["instruction_sets"] == kernels.available()
    assert facts["instruction_set"] == kernels.available()[0]
    assert re.match(r"(gcc|clang) \d+\.|unknown", facts["compiler"])
    assert facts["threads"] == (usable_threads(None) if facts["openmp"] else 1)
    assert set(facts["peers"]) == {"brian2", "torch"}
    assert {"evsim", "python", "numpy", "h5py", "platform"} < set(facts)


def test_info_in_words():
    done = start(*COMMANDS["module"], "info", isa="baseline")
    assert done.returncode == 0
    facts = dict(
        re.split(r" +", line, maxsplit=1) for line in re.sub("n set", "n_set", done.stdout).splitlines()
    )
    assert facts["instruction_set"] == "baseline (EVSIM_ISA chooses)"
    assert facts["instruction_sets"] == ", ".join(kernels.available())
    assert facts["openmp"] in ("yes", "no")
    assert {"compiler", "threads", "brian2", "torch"} < set(facts)


@pytest.mark.parametrize("isa", kernels.available())
def test_the_variable_chooses(isa):
    assert json.loads(start(*COMMANDS["module"], "info", "--json", isa=isa).stdout)["instruction_set"] == isa


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("isa", ["abacus", "AVX2", "baseline "])
def test_a_wrong_variable_is_one_line_of_the_command(command, isa):
    done = start(*command, "info", isa=isa)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"evsim: [^\n]+\n", done.stderr)
    for word in ("EVSIM_ISA", repr(isa), str(kernels.available())):
        assert word in done.stderr


def test_a_wrong_variable_is_an_error_of_the_import():
    program = "try:\n    import evsim\nexcept Exception as e:\n    print(type(e).__name__, e.where, e.remedy)"
    done = start(sys.executable, "-P", "-c", program, isa="abacus")
    assert done.stdout == f"EvsimError environment variable EVSIM_ISA use one of {kernels.available()}\n"
    assert "EvsimError" in start(sys.executable, "-P", "-c", "import evsim", isa="abacus").stderr
