"""Contestants in processes and environments of their own, which are asked in turn.

Motivation: simulators want packages that exclude each other, leave memory behind, and print where they
like.  So each runs as a script in its own process, with its own packages where it needs any, and answers
requests: one line of JSON in, one line of JSON out, by a pipe of its own.  Only one computes at a time,
all on the same core, so that they share its good and bad moments.

This file needs nothing but Python itself, because the peers' environments import it too.
"""

from __future__ import annotations

import json
import os
import resource
import select
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parent
#: Environments, compiled peers and the arrays that go to them; made by the build, like everything there.
BUILD = BENCHMARKS.parent / "build"
#: One thread for whatever reads these.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false --xla_force_host_platform_device_count=1",
}
#: The variable that tells a contestant where its answers go: a file descriptor.
ANSWERS = "CONTESTANT_ANSWERS"


class TimeLimit(Exception):
    """A contestant did not answer in time and was ended."""


class Failure(Exception):
    """A contestant answered with an error, or ended; the text is its own."""


def one_core() -> int | None:
    """Let this process, and those it starts from now on, use one core; its number where that is possible."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    core = max(os.sched_getaffinity(0))
    for task in os.listdir("/proc/self/task"):  # threads of NumPy's BLAS exist already
        os.sched_setaffinity(int(task), {core})
    return core


def environment(name: str, packages: Sequence[str]) -> str:
    """The Python of an environment under build/, made if it is not there or has other packages.

    Parameters
    ----------
    name : str
        Of the folder.
    packages : sequence of str
        Requirements, as pip reads them.
    """
    folder = BUILD / name
    python, installed = folder / "bin" / "python", folder / "installed"
    if not (python.exists() and installed.exists() and installed.read_text() == "\n".join(packages)):
        print(f"making {folder} with {', '.join(packages)}", file=sys.stderr, flush=True)
        venv.create(folder, clear=True, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        installed.write_text("\n".join(packages))
    return str(python)


class Contestant:
    """A script in a process of its own; used with ``with``, so that it ends.

    Parameters
    ----------
    name : str
        For tables and messages.
    command : sequence of str
        Python and script, which calls `serve`.
    """

    def __init__(self, name: str, *command: str):
        self.name, self.started = name, time.perf_counter()
        variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | ONE_THREAD
        # Answers come by a pipe of their own: libraries print to standard output, some on import.
        answers, theirs = os.pipe()
        variables[ANSWERS] = str(theirs)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=sys.stderr, env=variables, text=True, pass_fds=[theirs]
        )
        os.close(theirs)
        self._answers = os.fdopen(answers)

    def __enter__(self) -> Contestant:
        return self

    def __exit__(self, *exception: object) -> None:
        self.end()

    @property
    def alive(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    @property
    def age(self) -> float:
        """Seconds since the process was started."""
        return time.perf_counter() - self.started

    def ask(self, call: str, limit: float | None = None, /, **arguments: Any) -> Any:
        """The answer to a request.

        Parameters
        ----------
        call : str
            One of those that the script serves.
        limit : float, optional
            Seconds to wait.
        **arguments
            Of the call; whatever JSON can carry.

        Raises
        ------
        TimeLimit
            No answer in time; the process has been killed.
        Failure
            The call failed there.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"call": call, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Failure(f"{self.name} has ended with {self._process.wait()}") from None
        if limit is not None and not select.select([self._answers], [], [], limit)[0]:
            held = peak(self._process.pid)
            self._process.kill()
            self._process.wait()
            raise TimeLimit(f"{self.name}: {call} killed at {limit:g} s, {held / 1e6:,.0f} MB")
        line = self._answers.readline()
        if not line:
            raise Failure(f"{self.name} ended with {self._process.wait()} in {call}")
        answer = json.loads(line)
        if "error" in answer:
            raise Failure(f"{self.name}: {call}: {answer['error']}")
        return answer["result"]

    def end(self) -> None:
        """Let the process end; kill it if it does not."""
        if self._process.stdin is not None and self._process.poll() is None:
            self._process.stdin.close()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        self._answers.close()


def serve(**calls: Callable[..., Any]) -> None:
    """Answer requests until standard input is closed; for processes that `Contestant` starts."""
    answers = os.fdopen(int(os.environ[ANSWERS]), "w")
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"result": calls[request.pop("call")](**request)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def seconds(call: Callable[[], object]) -> float:
    """Processor time of a call, of all threads of this process."""
    start = time.process_time()
    call()
    return time.process_time() - start


def peak(process: int | str = "self") -> int:
    """Bytes: the largest resident memory of this process so far, on Linux also of another one.

    What Linux tells by getrusage begins with that of the process which started this one.
    """
    try:
        status = Path(f"/proc/{process}/status").read_text()
        return 1024 * int(status.split("VmHWM:")[1].split()[0])
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def race(
    calls: Mapping[str, Callable[[], float]], budget: float, rounds: tuple[int, int] = (3, 25)
) -> dict[str, list[float]]:
    """Ask contestants in turn, round after round.

    Parameters
    ----------
    calls : mapping of str to callable
        Each returns its seconds; one that raises `TimeLimit` or `Failure` drops out (the reason is printed).
    budget : float
        Seconds of wall time ...
    rounds : (int, int)
        but at least and at most so many rounds.
    """
    found: dict[str, list[float]] = {name: [] for name in calls}
    start, out = time.perf_counter(), set()
    for done in range(1, rounds[1] + 1):
        for name, call in calls.items():
            if name in out:
                continue
            try:
                found[name].append(call())
            except (TimeLimit, Failure) as reason:
                print(f"  {reason}", flush=True)
                out.add(name)
        elapsed = time.perf_counter() - start
        if done >= rounds[0] and elapsed * (done + 1) / done > budget:
            break
    return {name: times for name, times in found.items() if times}


def best_and_median(times: Sequence[float]) -> tuple[float, float]:
    """Of the seconds of several rounds."""
    return min(times), statistics.median(times)


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """How many times ``slow`` takes longer: median over rounds of the ratio within each."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=False))


def verdict(value: float, aim: float, at_most: bool = False) -> str:
    """A number beside its aim."""
    met = value <= aim if at_most else value >= aim
    return f"{value:.3g} (aim {'at most ' if at_most else ''}{aim:g}: {'yes' if met else 'NO'})"
