"""Fair timing: equal threads, contestants in turn, fresh input, medians, and what the memory can deliver."""

from __future__ import annotations

import os
import platform
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from evsim.core import kernels

#: Draws fresh input and returns what is to be timed.
Task = Callable[[], Callable[[], object]]
Clock = Callable[[], float]
#: Processor time is the time of all threads of this process: on one core the wall time of a quiet machine,
#: also where others take the core from time to time.  With more threads only wall time means something.
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "processor": time.process_time}


def pin(threads: int) -> None:
    """Let this process use ``threads`` cores and as many threads.  To be called before JAX computes anything.

    JAX and OpenMP take as many threads as there are cores to use; the pools that exist already (those of
    NumPy's BLAS) are pinned too, and made smaller where threadpoolctl is installed.
    """
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < threads:
            raise SystemExit(f"{threads} threads asked for, this process may use {len(cores)} cores")
        for task in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(task), cores[-threads:])
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=1"
    torch.set_num_threads(threads)
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return
    threadpool_limits(threads)


def describe(threads: int) -> str:
    """The machine, the versions, and which kernels compute."""
    lines = [
        f"{processor()}; Python {platform.python_version()}, NumPy {np.__version__}, "
        f"torch {torch.__version__}",
        f"evsim kernels: {kernels.in_use()}; torch kernels: {torch.backends.cpu.get_cpu_capability()}"
        f"{', MKL' if torch.backends.mkl.is_available() else ''}; {threads} thread{'s' * (threads > 1)}",
    ]
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return "\n".join([*lines, "(threadpoolctl is not installed: BLAS kernels unknown)"])
    pools = [
        f"{Path(pool['filepath']).name.split('-')[0].split('.')[0]} {pool.get('architecture', '')}".strip()
        + f" x{pool['num_threads']}"
        for pool in threadpool_info()
    ]
    return "\n".join([*lines, f"pools: {', '.join(pools)}"])


def processor() -> str:
    """Its name, as Linux gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "processor")


# -- contestants in turn -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Times:
    """Seconds per step: of every contestant the median of each round's block.

    Attributes
    ----------
    rounds : dict of str to ndarray, shape (n_rounds,)
    cores : float
        The most cores that any contestant kept busy: processor time / wall time.
    """

    rounds: dict[str, NDArray]
    cores: float = 1.0

    def __getitem__(self, name: str) -> float:
        """Median over rounds."""
        return float(np.median(self.rounds[name]))

    def fastest(self, names: ArrayLike) -> str:
        """Which of some contestants has the smallest median."""
        return min((str(name) for name in np.ravel(names)), key=self.__getitem__)

    def ratio(self, slow: str, fast: str) -> tuple[float, float, float]:
        """How many times ``slow`` takes longer than ``fast``: median, 10 % and 90 % quantile over rounds."""
        each = self.rounds[slow] / self.rounds[fast]
        middle, low, high = np.quantile(each, [0.5, 0.1, 0.9])
        return float(middle), float(low), float(high)


def compare(
    tasks: Mapping[str, Task],
    steps: Mapping[str, int],
    seconds: float,
    clock: Clock = time.perf_counter,
    block: float = 0.1,
    rounds: tuple[int, int] = (3, 15),
) -> Times:
    """Time contestants in turn.

    A round is a block of calls of each contestant: one warm-up call, which is not counted, because the others
    have used the caches, then calls until ``block`` seconds have passed (2 to 20).  Where one call is
    longer than ``block`` there is no warm-up and one call.

    Parameters
    ----------
    tasks : mapping of str to Task
    steps : mapping of str to int
        How many steps one call of each contestant makes.
    seconds : float
        Rounds go on for so long, warm-up and drawing of input included ...
    clock : callable
        See `CLOCKS`.
    block : float
        Seconds of a block.
    rounds : (int, int)
        At least and at most so many rounds, whatever ``seconds`` says.
    """
    start = time.perf_counter()
    expected = {name: _once(draw(), clock) for name, draw in tasks.items()}  # compiles, allocates
    expected = {name: min(_once(draw(), clock), expected[name]) for name, draw in tasks.items()}
    found: dict[str, list[float]] = {name: [] for name in tasks}
    cores = 0.0
    for done in range(1, rounds[1] + 1):
        for name, draw in tasks.items():
            repetitions = int(np.clip(block / expected[name], 2, 20)) if expected[name] < block else 1
            if repetitions > 1:
                draw()()
            calls = []
            for _ in range(repetitions):
                call, busy, begin = draw(), time.process_time(), time.perf_counter()
                calls.append(_once(call, clock))
                wall = time.perf_counter() - begin
                if wall > 0.02:  # of shorter ones the two clocks say little
                    cores = max(cores, (time.process_time() - busy) / wall)
            found[name].append(float(np.median(calls)) / steps[name])
        elapsed = time.perf_counter() - start
        if done >= rounds[0] and elapsed * (done + 1) / done > seconds:
            break
    return Times({name: np.array(values) for name, values in found.items()}, cores)


def _once(call: Callable[[], object], clock: Clock) -> float:
    start = clock()
    call()
    return clock() - start


# -- limits and laws ---------------------------------------------------------------------------------------


def bandwidth(n_bytes: int, clock: Clock = time.perf_counter, repetitions: int = 20) -> float:
    """Bytes per second that one thread reads from a buffer of that size, again and again.

    The reader is ``torch.sum`` of float32, the fastest of those tried (NumPy's sum and max, BLAS's dot); the
    repetitions, of at least 5 ms each, are a limit, so the fastest tenth counts.  A buffer as large as the
    weights lies where they lie: in the second or third cache, or in memory.  Near the size of a cache the
    rows of a few units may still be found in it when the whole buffer no longer is; then more than this
    bandwidth can be reached.
    """
    values = torch.ones(max(n_bytes // 4, 1), dtype=torch.float32)
    passes = max(1, round(5e-3 * 2e10 / n_bytes))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = [_once(lambda: [values.sum() for _ in range(passes)], clock) for _ in range(repetitions)]
    finally:
        torch.set_num_threads(threads)
    return passes * values.numel() * 4 / float(np.quantile(times, 0.1))


def exponent(x: ArrayLike, cost: ArrayLike) -> float:
    """The p of the power law cost ~ x ** p that fits best (least squares of logarithms)."""
    return float(np.polyfit(np.log(np.asarray(x)), np.log(np.asarray(cost)), 1)[0])


def break_even(activity: ArrayLike, cost: ArrayLike, other: float) -> float:
    """Activity at which ``cost`` reaches ``other``, straight lines between points on logarithmic axes.

    Infinity if it never does, 0 if it always has.
    """
    x, y = np.log(np.asarray(activity, float)), np.log(np.asarray(cost, float) / other)
    if y[0] > 0:
        return 0.0
    above = np.nonzero(y > 0)[0]
    if not above.size:
        return float("inf")
    i = int(above[0])
    return float(np.exp(x[i - 1] - y[i - 1] * (x[i] - x[i - 1]) / (y[i] - y[i - 1])))


def quiet_warnings() -> None:
    """Torch calls its own quantization and sparse tensors deprecated or in beta; no news here."""
    warnings.filterwarnings("ignore", module=r"torch\..*")
    warnings.filterwarnings("ignore", message=".*torch.ao.quantization is deprecated.*")
