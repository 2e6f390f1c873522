"""Continuous-time EGRU beside eventax, which integrates every unit at every step: forward and gradient.

Motivation: an exact event-driven run touches a unit when something reaches it, needs no compilation, and
its replay costs per event what the run did.  What is that worth on the same network, and do both find the
same events?

The network is all-to-all, in eventax's variant of the EGRU (gate="post", transmit="unit", threshold 0.5,
tau_m 20 ms, tau_s 5 ms, all states 0 at the start).  Units are slow until input opens the update gates of
the assembly they belong to, so that events come in bursts over a background, as in trained networks; about
1000 of them at every size.  Recurrent weights are weak enough for both to find the same events, which is
checked: a chaotic network would amplify the errors of Euler's method.

Both run in processes of their own on one core, in turn; times are processor time.  evsim: tolerance 1e-8,
no tape forward, run and replay for the gradient of the sum of c at the end.  eventax: Euler, 0.1 ms,
Newton with its default tolerances; compilation not counted but shown.  Its gradients are those of its
discretised run: at 0.1 ms they differ from the exact ones, and between its two adjoints, by tens of
percent; at 0.01 ms by less.

    python benchmarks/continuous.py                                     # 100, 1000 and 4000 units
    python benchmarks/continuous.py --units 100 --eventprop             # and eventax's other adjoint
    python benchmarks/continuous.py --units 4000 --gradient-limit 420   # eventax's gradient there, if it ends
    python benchmarks/continuous.py --only eventax --units 10 100

Two files are handed to both, with n units and k input lines: an .npy of the recurrent weights, float32,
(n, 3n), rows by sender, columns in blocks u, r, z; and an .npz of input, the same (k, 3n); bias (3n,),
float32; threshold, tau_s, tau_m, horizon (ms); time (ms) and line of the input events, sorted by time.

So evsim's recurrent weights stay in their file, which it maps (`np.load(mmap_mode="c")`, `copy=False`):
a row is taken into memory when its unit first sends, and stays there.  eventax makes its own arrays of
them, and is given them a stretch of rows at a time, so that its memory is its own.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from processes import (
    BENCHMARKS,
    Contestant,
    Failure,
    TimeLimit,
    best_and_median,
    environment,
    one_core,
    peak,
    race,
    ratio,
    seconds,
    serve,
    verdict,
)

PACKAGES = ["eventax==0.1.0"]
TOLERANCE, STEP = 1e-8, 0.1


class Size(NamedTuple):
    """What makes about 1000 events (100 of ten units): ms, and the mean bias of the update gates."""

    horizon: float
    drive: float


SIZES = {
    10: Size(400.0, -0.5),
    100: Size(400.0, -0.35),
    500: Size(100.0, -0.4),
    1000: Size(100.0, -1.55),
    2000: Size(50.0, -1.1),
    4000: Size(50.0, -1.63),
}
#: units: (forward, gradient), at least so many times eventax's events per second.
AIMS = {100: (5.0, 40.0), 1000: (3.0, 100.0)}
#: Seconds of a gradient of 4000 units, and share of eventax's memory, at most.
AIM_4000, AIM_MEMORY = 5.0, 0.1
#: Seconds from the start of the process to the first result of 100 units, at most.
AIM_COLD = 1.0


# -- the network -------------------------------------------------------------------------------------------


def network(units: int, seed: int = 0, n_lines: int = 16) -> dict[str, NDArray]:
    """The arrays of the files.

    Each line opens the update gates of a quarter of the units; eight lines send one event each in a burst
    of 4 ms every 20 ms.  Recurrent weights are scaled so that what the events of one tau_s add up to has
    the same spread at every size.
    """
    rng = np.random.default_rng(seed)
    horizon, drive = SIZES[units]
    within = 1000 * 5.0 / horizon  # events in one tau_s
    recurrent = rng.normal(-0.2 / within, 0.14 / np.sqrt(within), (units, 3, units))
    lines = rng.normal(0.0, 0.2, (n_lines, 3, units))
    lines[:, 0] += 2.0 * (rng.random((n_lines, units)) < 0.25)
    bias = rng.normal([[drive], [1.0], [1.2]], [[0.4], [0.5], [0.2]], (3, units))
    times, senders = [], []
    for start in np.arange(2.0, horizon - 5.0, 20.0):
        for line in rng.permutation(n_lines)[:8]:
            times.append(start + 4.0 * rng.random())
            senders.append(line)
    # Times that float32 can hold: eventax knows no others.
    time = np.array(times, np.float32).astype(float)
    order = np.argsort(time, kind="stable")
    return {
        "recurrent": recurrent.reshape(units, -1).astype(np.float32),
        "input": lines.reshape(n_lines, -1).astype(np.float32),
        "bias": bias.ravel().astype(np.float32),
        "threshold": np.array(0.5),
        "tau_s": np.array(5.0),
        "tau_m": np.array(20.0),
        "horizon": np.array(horizon),
        "time": time[order],
        "line": np.array(senders)[order],
    }


class Evsim:
    """The same network in evsim; answers the same requests as eventax_peer.py."""

    def load(self, path: str, tolerance: float) -> dict[str, Any]:
        """Build the network of an .npz, and of the .npy of the same name."""
        import evsim
        from evsim.core import kernels
        from evsim.models import EGRU, EventSource

        case, recurrent = load(Path(path)), np.load(Path(path).with_suffix(".npy"), mmap_mode="c")
        n, k = len(recurrent), len(case["input"])
        net = evsim.Network(dt=None)
        source = net.add(EventSource(k, "input"))
        hidden = net.add(
            EGRU(
                n,
                "hidden",
                threshold=float(case["threshold"]),
                bias=case["bias"],
                gate="post",
                transmit="unit",
                tau_m=float(case["tau_m"]),
                tau_s=float(case["tau_s"]),
            )
        )
        net.connect(source, hidden, weight=case["input"], port="recurrent")
        net.connect(hidden, hidden, weight=recurrent, copy=False)
        self.simulation = evsim.Simulation(net, threads=1, tolerance=tolerance)
        self.adjoint = evsim.Adjoint(self.simulation.plan, threads=1, tolerance=tolerance)
        zeros = np.zeros(len(case["time"]), int)
        self.stimulus = {"input": (case["time"], zeros, case["line"], zeros + 1.0)}
        self.horizon, self.n = float(case["horizon"]), n
        self.initial = {"hidden": dict.fromkeys(("c", "a_u", "a_r", "a_z"), 0.0)}
        return {"versions": f"evsim {evsim.__version__}, kernels {kernels.in_use()}"}

    def compile(self, mode: str) -> float:
        """Nothing to be done."""
        return 0.0

    def forward(self) -> float:
        """Seconds of one run without tape."""
        return seconds(lambda: self._run(tape=False))

    def gradient(self) -> float:
        """Seconds of one run and its replay, from the sum of c at the horizon."""
        return seconds(self._gradient)

    def _run(self, tape: bool) -> None:
        self.log = self.simulation.run(
            self.stimulus, self.horizon, samples=[self.horizon], initial=self.initial, tape=tape
        )

    def _gradient(self) -> None:
        self.last = None  # so that there is never a second one
        self._run(tape=True)
        self.last = self.adjoint.replay(self.log, {"hidden": np.ones((1, 1, self.n))})

    def events(self, path: str) -> int:
        """Write time and unit of the events of the last run; their number."""
        hidden = self.log["hidden"]
        np.savez(path, time=hidden.time, unit=hidden.unit)
        return len(hidden.time)

    def gradients(self, path: str) -> float:
        """Write the last gradient; the loss."""
        names = {"recurrent": "hidden->hidden.weight", "input": "input->hidden.weight", "bias": "hidden.bias"}
        np.savez(path, **{key: self.last[name] for key, name in names.items()})
        return float(self.log["hidden"].state[-1].sum())

    def counters(self) -> dict[str, Any]:
        """Of the last run."""
        return self.log.counters


# -- what they found ---------------------------------------------------------------------------------------


def matched(one: dict[str, NDArray], other: dict[str, NDArray], within: float = 2.0) -> NDArray:
    """Differences in time, ms, of the events that both found: of one unit, at most ``within`` apart."""
    found = []
    for unit in np.union1d(one["unit"], other["unit"]):
        mine, theirs = (np.sort(e["time"][e["unit"] == unit]).tolist() for e in (one, other))
        while mine and theirs:
            if abs(mine[0] - theirs[0]) <= within:
                found.append(mine.pop(0) - theirs.pop(0))
            else:
                (mine if mine[0] < theirs[0] else theirs).pop(0)
    return np.array(found)


def angle(one: dict[str, NDArray], other: dict[str, NDArray]) -> str:
    """How alike two gradients are: cosine, and the relative size of the difference, for each array."""
    parts = []
    for key, mine in one.items():
        a, b = mine.astype(float).ravel(), other[key].astype(float).ravel()
        cosine = a @ b / np.sqrt((a @ a) * (b @ b))
        parts.append(f"{key} {cosine:.5f}, {np.linalg.norm(a - b) / np.linalg.norm(a):.1e}")
    return "; ".join(parts)


def load(path: Path) -> dict[str, NDArray]:
    """All arrays of a file."""
    with np.load(path) as file:
        return dict(file)


# -- the race ----------------------------------------------------------------------------------------------


def start(name: str) -> Contestant:
    """A contestant's process."""
    if name == "evsim":
        return Contestant(name, sys.executable, __file__, "--serve")
    return Contestant(name, environment("eventax-venv", PACKAGES), str(BENCHMARKS / "eventax_peer.py"))


def compare(units: int, names: list[str], options: argparse.Namespace, folder: Path) -> None:
    """Print what is to be known about one size."""
    case, path = network(units, options.seed), folder / f"egru-{units}.npz"
    np.save(path.with_suffix(".npy"), case.pop("recurrent"))
    np.savez(path, **case)
    horizon, n_inputs = float(case["horizon"]), len(case["time"])
    print(f"\n{units} units, {horizon:g} ms, {n_inputs} input events on {len(case['input'])} lines")
    with ExitStack() as stack:
        all_of_them = {}
        for name in names:
            one = all_of_them[name] = stack.enter_context(start(name))
            told = one.ask("load", None, **load_arguments(name, path, n_inputs, options))
            if name == "eventprop":  # it runs forward as eventax does
                continue
            compiled = one.ask("compile", mode="forward")
            one.ask("forward")
            one.ask("events", path=str(folder / f"{name}-events.npz"))
            print(
                f"  {name:10} {told['versions']}; compiled in {compiled:.1f} s; first result {one.age:.2f} s"
            )
            if name == "evsim" and units == 100:
                print(f"  {name:10} first result, s: {verdict(one.age, AIM_COLD, at_most=True)}")
        runners = {n: one for n, one in all_of_them.items() if n != "eventprop"}
        print_events({name: load(folder / f"{name}-events.npz") for name in runners})
        times = race({n: asker(one, "forward") for n, one in runners.items()}, options.seconds)
        report("forward", units, times, folder)
        print_memory(runners, "forward")
        gradients(units, all_of_them, options, folder)


def gradients(
    units: int, contestants: dict[str, Contestant], options: argparse.Namespace, folder: Path
) -> None:
    """The second half: gradients, as far as they get done."""
    able = {}
    for name, one in contestants.items():
        if name != "evsim" and units >= 4000 and not options.gradient_limit:
            print(f"  {name:10} gradient left out at {units} units; --gradient-limit SECONDS tries it")
            continue
        try:
            compiled = one.ask("compile", options.gradient_limit, mode="gradient")
            one.ask("gradient", options.gradient_limit)
            loss = one.ask("gradients", path=str(folder / f"{name}-gradients.npz"))
        except (TimeLimit, Failure) as reason:
            print(f"  {reason}", flush=True)
            continue
        print(f"  {name:10} gradient compiled in {compiled:.1f} s; loss {loss:.6f}")
        able[name] = one
    if not able:
        return
    first = next(iter(able))
    for name in list(able)[1:]:
        files = (load(folder / f"{n}-gradients.npz") for n in (first, name))
        print(f"  gradients of {first} and {name}: cosine, relative difference: {angle(*files)}")
    calls = {name: asker(one, "gradient", options.gradient_limit) for name, one in able.items()}
    report("gradient", units, race(calls, options.seconds), folder)
    print_memory(able, "gradient")


def load_arguments(name: str, path: Path, n_inputs: int, options: argparse.Namespace) -> dict[str, Any]:
    """What a contestant is told besides the file."""
    if name == "evsim":
        return {"path": str(path), "tolerance": options.tolerance}
    adjoint = "eventprop" if name == "eventprop" else "checkpoint"
    return {"path": str(path), "step": options.step, "max_events": 1300 + n_inputs, "adjoint": adjoint}


def asker(one: Contestant, call: str, limit: float | None = None) -> Any:
    """Ask it once."""
    return lambda: one.ask(call, limit)


def print_events(found: dict[str, dict[str, NDArray]]) -> None:
    """How many each found, and how far apart they are."""
    for name, events in found.items():
        n_units, bins = len(np.unique(events["unit"])), np.histogram(events["time"], 20)[0].tolist()
        print(f"  {name:10} {len(events['time'])} events of {n_units} units; in 20 bins {bins}")
    if {"evsim", "eventax"} <= set(found):
        apart = np.abs(matched(found["evsim"], found["eventax"]))
        text = f"at most {apart.max():.3f} ms apart, median {np.median(apart):.4f} ms"
        print(f"  found by both: {len(apart)}, {text}")


def report(mode: str, units: int, times: dict[str, list[float]], folder: Path) -> None:
    """Print times, events per second and ratios to eventax."""
    for name, each in times.items():
        events = "eventax" if name == "eventprop" else name
        n_events = len(load(folder / f"{events}-events.npz")["time"])
        best, middle = best_and_median(each)
        text = f"{1e3 * best:9.2f} ms best, {1e3 * middle:9.2f} median of {len(each)}"
        text += f"; {n_events / best:10,.0f} events/s best, {n_events / middle:10,.0f} median"
        print(f"  {name:10} {mode:8} {text}")
    if "evsim" not in times:
        return
    for name in [n for n in times if n != "evsim"]:
        times_faster = ratio(times[name], times["evsim"])
        aim = AIMS.get(units, (None, None))[mode == "gradient"] if name == "eventax" else None
        text = verdict(times_faster, aim) if aim else f"{times_faster:.3g}"
        print(f"  {mode}: evsim faster than {name}, times: {text}")
    if mode == "gradient" and units == 4000:
        print(f"  gradient, s: {verdict(statistics.median(times['evsim']), AIM_4000, at_most=True)}")


def print_memory(contestants: dict[str, Contestant], mode: str) -> None:
    """Peak resident memory of each process until now."""
    peaks = {name: one.ask("peak") for name, one in contestants.items() if one.alive}
    text = ", ".join(f"{name} {value / 1e6:,.0f} MB" for name, value in peaks.items())
    if {"evsim", "eventax"} <= set(peaks):
        text += f"; evsim / eventax {verdict(peaks['evsim'] / peaks['eventax'], AIM_MEMORY, at_most=True)}"
    print(f"  memory, peak up to {mode}: {text}")


def main() -> None:
    """Print the comparison for each size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, nargs="+", default=[100, 1000, 4000], choices=SIZES)
    parser.add_argument("--only", nargs="+", default=["evsim", "eventax"], choices=["evsim", "eventax"])
    parser.add_argument("--eventprop", action="store_true", help="time eventax's EventPropAdjoint too")
    parser.add_argument(
        "--gradient-limit", type=float, help="seconds; also tries eventax's gradient at 4000 units"
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="for each race, as far as 3 rounds allow")
    parser.add_argument("--step", type=float, default=STEP, help="of eventax's Euler, ms")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="of evsim")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        own = Evsim()
        calls = ("load", "compile", "forward", "gradient", "events", "gradients", "counters")
        serve(peak=peak, **{name: getattr(own, name) for name in calls})
        return
    names = [*options.only, *(["eventprop"] if options.eventprop and "eventax" in options.only else [])]
    if set(names) - {"evsim"}:
        environment("eventax-venv", PACKAGES)
    core = one_core()
    accuracy = f"evsim tolerance {options.tolerance:g}, Euler {options.step:g} ms"
    print(f"one thread, core {core}; processor time; {accuracy}")
    with tempfile.TemporaryDirectory() as folder:
        for units in options.units:
            compare(units, names, options, Path(folder))


if __name__ == "__main__":
    main()
