"""Damages and reads one file after the other, in a process of its own that may die of it."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np

from fuzz.bytes import BLIND
from fuzz.checksums import checked_blocks, lie
from fuzz.entries import SLY
from fuzz.judging import FINE, Truth, harmless, judge, look
from fuzz.logs import make_good_files

#: Computing time and time for one file, and memory beyond what the process starts with.
SECONDS, WALL_SECONDS, BYTES = 2.0, 60.0, 2**30
COMMAND = Path(__file__).parents[1] / "fuzz_logs.py"


def is_killed(name):
    return "killed" in name


def damage(good, blocks, number, seed, path):
    """Make file ``number`` at ``path``; (name of the good one, kind of damage, whether it is sly)."""
    rng = np.random.default_rng([seed, number])
    names = [name for name in good for _ in range(8 if "tiny" in name else 1 if name == "many nodes" else 3)]
    name = names[rng.integers(len(names))]
    kind = rng.random()
    if kind < 0.45:
        data = bytearray(good[name])
        how = BLIND[rng.integers(len(BLIND))]
        how(data, rng)
        path.write_bytes(data)
        return name, how.__name__, False
    if kind < 0.7:
        data = bytearray(good[name])
        lie(data, rng, blocks[name])
        path.write_bytes(data)
        return name, "lie", True
    if is_killed(name):  # h5py does not change such a file
        names = [other for other in names if not is_killed(other)]
        name = names[rng.integers(len(names))]
    how = SLY[rng.integers(len(SLY))]
    path.write_bytes(good[name])
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        how(file, rng)
    return name, how.__name__, True


def work(folder, seed, numbers):
    """Lines "number start name kind" and "number outcome message", for whoever watches."""
    folder = Path(folder)
    good_paths = {path.stem.replace("_", " "): path for path in sorted((folder / "good").glob("*.h5"))}
    good = {name: path.read_bytes() for name, path in good_paths.items()}
    blocks = {
        k: [tuple(pair) for pair in v] for k, v in json.loads((folder / "blocks.json").read_text()).items()
    }
    truths = {name: Truth(path) for name, path in good_paths.items()}
    look(next(iter(good_paths.values())), np.random.default_rng(0))
    start = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (start + BYTES, start + BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for kind in (signal.SIGPROF, signal.SIGALRM):  # the process ends: a loop in C hears no handler
        signal.signal(kind, signal.SIG_DFL)
    path = folder / f"damaged-{os.getpid()}.h5"
    for number in numbers:
        print(number, "making", flush=True)
        signal.setitimer(signal.ITIMER_PROF, 20 * SECONDS)
        try:
            name, kind, sly = damage(good, blocks, number, seed, path)
        except Exception as error:  # h5py may refuse to make something so bad
            print(
                number,
                "done",
                "not made",
                f"{type(error).__name__}: {error}".replace("\n", " ")[:100],
                flush=True,
            )
            continue
        os.utime(path, (0, 0))  # nobody waits for a file that was not changed just now
        print(number, "reading", name.replace(" ", "_"), kind, flush=True)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS)
        message = ""
        try:
            answers, _ = look(path, np.random.default_rng([seed, number, 1]))
            signal.setitimer(signal.ITIMER_PROF, 20 * SECONDS)
            outcome = harmless(answers) if sly else judge(answers, truths[name])
        except Exception as error:
            outcome = "memory" if isinstance(error, MemoryError) else "WRONG"
            message = f"{type(error).__name__}: {error}"
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(number, "done", outcome, message.replace("\n", " ")[:300], flush=True)
    for left in folder.glob(f"{path.stem}.*"):
        left.unlink()


def prepare(folder, names=None):
    """The good files, where HDF5's checksums are in them, and a pipe that nobody must open."""
    folder = Path(folder)
    (folder / "good").mkdir()
    files = make_good_files(folder / "good", names)
    blocks = {name: checked_blocks(path.read_bytes()) for name, path in files.items()}
    (folder / "blocks.json").write_text(json.dumps(blocks))
    os.mkfifo(folder / "pipe.h5")


def watch(folder, tally, last, report):
    """Have files from the next of a tally up to ``last`` made and read, and report what is wrong."""
    at, name, kind = tally.next, "", ""
    while at < last:
        numbers = [str(at), str(last)]
        command = [sys.executable, str(COMMAND), "--work", str(folder), *numbers, "--seed", str(tally.seed)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as worker:
            state = "starting"
            for line in worker.stdout:
                number, state, *rest = line.rstrip("\n").split(" ", 3)
                at = int(number)
                if state == "making":
                    name, kind = "", "made"
                elif state == "reading":
                    name, kind = rest[0], rest[1]
                else:
                    text = line.split(" ", 2)[2].strip()
                    outcome = next((o for o in (*FINE, "memory", "WRONG") if text.startswith(o)), text)
                    if outcome not in FINE:
                        report(f"file {at} (seed {tally.seed}): {name}, {kind}: {text}")
                    tally.add(at, kind, outcome)
            stderr = worker.stderr.read()
        if worker.returncode == 0:
            break
        if state == "starting":
            raise RuntimeError(f"the worker does not start: {stderr[-2000:]}")
        if state == "done":
            raise RuntimeError(f"the worker ended between two files: {stderr[-2000:]}")
        code = worker.returncode
        died = signal.Signals(-code).name if code < 0 else f"exit {code}"
        outcome = {"SIGPROF": "hang", "SIGALRM": "waits"}.get(died, f"crash ({died})")
        if state == "making":
            outcome = "not made"
        else:
            report(f"file {at} (seed {tally.seed}): {name}, {kind}: {outcome} {stderr[-300:].strip()}")
        tally.add(at, kind, outcome)
        at += 1
    tally.keep()
