"""Work in a second process: its end, its log, and its end with the first."""

import os
import signal
import subprocess
import sys
import time

import pytest

from evsim.errors import ProtocolError
from evsim.protocol import import_file
from evsim.second_process import SecondProcess


def test_it_returns_and_what_it_prints_is_in_the_log(tmp_path):
    log = tmp_path / "log"
    log.write_text("before\n")
    assert SecondProcess(print, "one", "two", log=log).join()
    assert log.read_text() == "before\none two\n"


@pytest.mark.parametrize(
    ("function", "argument", "said"),
    [
        (int, "x", "invalid literal for int()"),
        (ProtocolError, "not raised", None),
        (os._exit, 3, None),
    ],
)
def test_whether_it_returned(tmp_path, function, argument, said):
    arguments = (argument,) * (3 if function is ProtocolError else 1)
    done = SecondProcess(function, *arguments, log=tmp_path / "log").join()
    assert done == (function is ProtocolError)
    if said:
        assert said in (tmp_path / "log").read_text()


def test_a_function_of_a_protocol_in_a_file_of_its_own(tmp_path):
    """Also with arguments of its classes, and with what lies beside it."""
    (tmp_path / "helper_of_mine.py").write_text("WORD = 'helped'\n")
    (tmp_path / "mine too.py").write_text(
        "from dataclasses import dataclass\n"
        "from helper_of_mine import WORD\n"
        "@dataclass\n"
        "class Size:\n"
        "    units: int\n"
        "def run(folder): ...\n"
        "def work(size):\n"
        "    print(WORD, size)\n"
    )
    module = import_file(tmp_path / "mine too.py")
    assert SecondProcess(module.work, module.Size(3), log=tmp_path / "log").join()
    assert (tmp_path / "log").read_text() == "helped Size(units=3)\n"


def test_errors_of_evsim_are_one_line(tmp_path):
    from evsim.data.text import load_corpus

    assert not SecondProcess(load_corpus, tmp_path / "nothing", log=tmp_path / "log").join()
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("evsim: ")


def test_a_log_that_cannot_be_written(tmp_path):
    with pytest.raises(ProtocolError, match="cannot be written"):
        SecondProcess(print, log=tmp_path / "nowhere" / "log")


def test_it_ends_where_the_first_is_killed(tmp_path):
    log = tmp_path / "log"
    program = (
        "import sys, time\n"
        "from evsim.second_process import SecondProcess\n"
        "if __name__ == '__main__':\n"
        f"    SecondProcess(exec, 'import os, time; print(os.getpid()); time.sleep(120)', log={str(log)!r})\n"
        "    time.sleep(120)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program]) as first:
        _wait(lambda: log.exists() and log.read_text().strip())
        second = int(log.read_text())
        os.kill(second, 0)
        first.send_signal(signal.SIGKILL)
    _wait(lambda: not _runs(second))


def _wait(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def _runs(number):
    try:
        with open(f"/proc/{number}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
