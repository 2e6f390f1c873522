"""Time per step of an event-driven EGRU layer beside dense recurrent layers, forward and training.

Motivation: operations saved are not time saved.  A dense layer streams its weights whatever happens; an
event-driven one touches the rows of units that sent something, but touches them one by one.  Where is it
faster, by how much, and how far from what the memory can deliver?

All contestants of one line of a table run in turn, in one process, on equally many cores, with fresh input at
every call (`timing.compare`); what each is stands in peers.py.  With one thread the clock is the processor's
time: the wall time of a quiet machine.  "Dense peer" is the fastest of those in float32.  Forward: 64 steps
per call, states carried, no tape.  Training: forward, and gradients of all weights and biases from a given
gradient at every output.  Activity is that of the input and of the layer; three times as many units are
backward-active.  Calls that would last many seconds are shorter.

    python benchmarks/speed.py                                        # everything, one thread
    python benchmarks/speed.py --units 256 1024 --lanes 1 --modes training --activities 0.1
    python benchmarks/speed.py --threads 2 --no-more
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from peers import (
    Evsim,
    EvsimDelta,
    JaxEGRU,
    Layer,
    TorchEGRU,
    TorchInt8,
    TorchLayer,
    Walk,
    check,
    int8_layer,
    stimulus,
)
from timing import CLOCKS, Task, Times, bandwidth, break_even, compare, describe, pin, quiet_warnings

#: The activity of the tables with aims.
ACTIVITY = 0.1
MODES = ("forward", "training")
#: Dense layers in float32: the peers that the aims are about.
DENSE = ("nn.GRU", "nn.LSTM", "JAX EGRU")
#: Shown beside them.
OTHERS = ("JAX plain", "torch EGRU", "GRU bf16", "GRU int8")
#: (mode, lanes, units): times faster than the fastest dense peer, than nn.GRU; one thread.
AIMS = {
    ("forward", 1, 256): (4.0, 8.0),
    ("forward", 1, 512): (8.0, 10.0),
    ("forward", 1, 1024): (5.5, 6.0),
    ("forward", 1, 2048): (6.0, 6.0),
    ("training", 1, 256): (4.0, 12.0),
    ("training", 1, 512): (6.0, 10.0),
    ("training", 1, 1024): (5.0, 8.0),
    ("training", 1, 2048): (12.0, 12.0),
    ("training", 32, 256): (3.0, 3.0),
    ("training", 32, 512): (2.0, 2.0),
    ("training", 32, 1024): (1.3, 1.3),
}
#: Dense multiply-accumulates (times activity, for events) of the longest call.
LONGEST_CALL = 1e9


@dataclass
class Cell:
    """All contestants of one size, number of lanes and mode.

    Attributes
    ----------
    alpha, beta : dict of float to float
        Measured activity of the layer, and share of backward-active units, by activity asked for.
    roofline : dict of float to float
        Bytes of touched rows per second / bandwidth, by activity.
    """

    mode: str
    lanes: int
    units: int
    times: Times
    alpha: dict[float, float]
    beta: dict[float, float]
    roofline: dict[float, float]

    @property
    def dense(self) -> str:
        """The fastest dense peer."""
        return self.times.fastest([name for name in DENSE if name in self.times.rounds])


def measure(layer: Layer, mode: str, lanes: int, options: argparse.Namespace) -> Cell:
    """Time one cell."""
    units, training = layer.units, mode == "training"
    with_aim = (mode, lanes, units) in AIMS
    events = {f"evsim {a:g}": Evsim(layer, a, options.threads) for a in options.activities}
    level = layer.level(min(options.activities, key=lambda a: abs(a - ACTIVITY)))
    peers: dict[str, Any] = {
        "nn.GRU": TorchLayer(torch.nn.GRU, units),
        "nn.LSTM": TorchLayer(torch.nn.LSTM, units),
        "JAX EGRU": JaxEGRU(layer, level.eps),
    }
    if with_aim and lanes == 1 and options.others:
        peers["torch EGRU"] = TorchEGRU(layer, level.eps)
        if training:
            peers["JAX plain"] = JaxEGRU(layer, level.eps, plain=True)
        else:
            peers["GRU bf16"] = TorchLayer(torch.nn.GRU, units, torch.bfloat16)
            peers["GRU int8"] = TorchInt8(units)
    activity = dict.fromkeys(peers, ACTIVITY) | dict(zip(events, options.activities, strict=True))
    steps = {}
    for name, share in activity.items():
        macs = 6 * units**2 * lanes * (3 if training else 1) * (share if name in events else 1)
        same = with_aim and (name in peers or share <= ACTIVITY)  # the aims are about calls of equal length
        steps[name] = options.steps if same else int(np.clip(LONGEST_CALL / macs, 2, options.steps))
    rng = np.random.default_rng(1)
    g = rng.standard_normal((options.steps, lanes, units), dtype=np.float32)
    tasks = {
        name: _task(
            contestant, _draw(rng, units, activity[name], steps[name], lanes), g if training else None
        )
        for name, contestant in (events | peers).items()
    }
    clock = CLOCKS[options.clock]
    before = bandwidth(layer.weight_bytes, clock)
    times = compare(tasks, steps, options.seconds, clock)
    stream = max(before, bandwidth(layer.weight_bytes, clock))
    contestants = dict(zip(options.activities, events.items(), strict=True))
    return Cell(
        mode,
        lanes,
        units,
        times,
        {a: one.alpha for a, (_, one) in contestants.items()},
        {a: one.beta for a, (_, one) in contestants.items()},
        {a: one.bytes / steps[name] / times[name] / stream for a, (name, one) in contestants.items()},
    )


def _draw(
    rng: np.random.Generator, units: int, activity: float, steps: int, lanes: int
) -> Callable[[], NDArray]:
    return lambda: stimulus(rng, units, activity, steps, lanes)


def _task(contestant: Any, draw: Callable[[], NDArray], g: NDArray | None) -> Task:
    """Forward, or training if there is a gradient."""

    def fresh() -> Callable[[], object]:
        x = draw()
        taken = contestant.take(x)
        if g is None:
            return lambda: contestant.forward(taken)
        given = contestant.take(g[: len(x)])
        return lambda: contestant.train(taken, given)

    return fresh


# -- the tables --------------------------------------------------------------------------------------------


def print_aims(cells: Iterable[Cell], options: argparse.Namespace) -> None:
    """Times at activity 0.1, and how many times faster, with the aims."""
    ours, shown = f"evsim {ACTIVITY:g}", (*DENSE, *OTHERS)
    titles = "".join(f"{name:>11}" for name in ("evsim", *shown))
    print(f"\nActivity {ACTIVITY:g}, {options.steps} steps per call; us per step of all lanes, medians")
    print(f"{'':105}x dense peer{'':19}x nn.GRU")
    print(
        f"mode     lanes units alpha beta{titles}  (10-90 %)             aim      (10-90 %)             aim"
    )
    for cell in (cell for cell in cells if ours in cell.times.rounds):
        times, beta = cell.times, cell.beta[ACTIVITY]
        micro = (f"{1e6 * times[n]:.1f}" if n in times.rounds else "-" for n in (ours, *shown))
        aims = AIMS.get((cell.mode, cell.lanes, cell.units)) if options.threads == 1 else None
        ratios = times.ratio(cell.dense, ours), times.ratio("nn.GRU", ours)
        print(
            f"{cell.mode:8} {cell.lanes:5d} {cell.units:5d} {cell.alpha[ACTIVITY]:5.3f} "
            + (f"{'-':>4}" if np.isnan(beta) else f"{beta:4.2f}")
            + "".join(f"{entry:>11}" for entry in micro)
            + "".join(
                f"  {_aim(ratio, aim)}" for ratio, aim in zip(ratios, aims or (None, None), strict=True)
            )
        )


def print_activities(cells: Iterable[Cell], options: argparse.Namespace) -> None:
    """Speed-up against activity, where it ends, and the share of the memory's bandwidth."""
    each = "".join(f"{a:>8g}" for a in options.activities)
    print(
        "\nTimes faster than the fastest dense peer, by activity; activity up to which evsim is faster than"
    )
    print("torch's faster layer; bytes of touched rows / bandwidth at each activity (forward, one lane)")
    print(f"mode      lanes units   dense peer  us/step {each}   break-even   share of bandwidth")
    for cell in cells:
        times = cell.times
        names = [f"evsim {a:g}" for a in options.activities]
        faster = "".join(f"{times.ratio(cell.dense, name)[0]:8.2f}" for name in names)
        torch_best = times[times.fastest(DENSE[:2])]
        end = break_even(list(cell.alpha.values()), [times[name] for name in names], torch_best)
        end_text = f"above {max(cell.alpha.values()):.2f}" if np.isinf(end) else f"{end:.3f}"
        roof = " ".join(f"{share:4.0%}" for share in cell.roofline.values())
        print(
            f"{cell.mode:9} {cell.lanes:5d} {cell.units:5d} {cell.dense:>12} {1e6 * times[cell.dense]:8.1f} "
            f"{faster} {end_text:>12}   {roof if cell.mode == 'forward' and cell.lanes == 1 else ''}"
        )


class More(NamedTuple):
    """A line of the last table: what is compared, the ratio with its spread, and the aim."""

    what: str
    ratio: tuple[float, float, float] | None
    aim: float
    note: str = ""


def more(options: argparse.Namespace) -> Iterable[More]:
    """Narrow and sparse weights, and a delta network; forward, one lane."""
    rng = np.random.default_rng(2)
    draw, steps = _draw(rng, 1024, ACTIVITY, options.steps, 1), options.steps

    def race(tasks: dict[str, Task]) -> Times:
        return compare(tasks, dict.fromkeys(tasks, steps), options.seconds, CLOCKS[options.clock])

    delta, walk = EvsimDelta(256, ACTIVITY, options.threads), Walk(256, ACTIVITY, seed=1)
    lstm = TorchLayer(torch.nn.LSTM, 256)
    times = race({n: _task(c, lambda: walk(steps), None) for n, c in (("evsim", delta), ("torch", lstm))})
    note = f"{1e6 * times['evsim']:.1f} us; {1 - delta.alpha:.1%} of the MACs saved"
    yield More("DeltaLSTM, 256 units, beside nn.LSTM", times.ratio("torch", "evsim"), 4.0, note)

    dense = Layer(1024)
    for share, aim, memory in ((0.95, 2.0, 0.2), (0.9, 1.3, 0.3)):
        sparse = Layer(1024, density=1 - share)
        pair = {
            "dense": Evsim(dense, ACTIVITY, options.threads),
            "sparse": Evsim(sparse, ACTIVITY, options.threads),
        }
        times = race({name: _task(one, draw, None) for name, one in pair.items()})
        note = (
            f"{1e6 * times['sparse']:.1f} us; weights {sparse.weight_bytes / dense.weight_bytes:.1%} of the "
            f"memory (aim {memory:.0%}); alpha {pair['sparse'].alpha:.3f}"
        )
        name = f"{share:.0%} zero weights, 1024 units, beside evsim's dense rows"
        yield More(name, times.ratio("dense", "sparse"), aim, note)

    narrow = int8_layer(dense)
    pair = {"evsim": Evsim(narrow, ACTIVITY, options.threads), "torch": TorchInt8(1024)}
    times = race({name: _task(one, draw, None) for name, one in pair.items()})
    share = narrow.weight_bytes / dense.weight_bytes
    note = (
        f"{1e6 * times['evsim']:.1f} us; weights {share:.1%} of the memory; alpha {pair['evsim'].alpha:.3f}"
    )
    name = "8-bit weights, 1024 units, beside torch's dynamic int8 GRU"
    yield More(name, times.ratio("torch", "evsim"), 4.0, note)


def print_more(options: argparse.Namespace) -> None:
    """The lines of `more`."""
    print(f"\nForward, one lane, activity {ACTIVITY:g}")
    print(f"{'':60} times faster (10-90 %)  aim")
    for line in more(options):
        print(f"{line.what:60} {_aim(line.ratio, line.aim)}   {line.note}", flush=True)


def _aim(ratio: tuple[float, float, float] | None, aim: float | None) -> str:
    """A ratio with its spread, the aim, and whether it is reached."""
    if ratio is None:
        return f"{'-':>20} {aim:5.1f} {'-':4}"
    spread = f"{ratio[0]:6.2f} ({ratio[1]:.2f}-{ratio[2]:.2f})"
    return f"{spread:20} " + (f"{aim:5.1f} {'yes' if ratio[0] >= aim else 'NO':4}" if aim else " " * 10)


# -- the picture -------------------------------------------------------------------------------------------


def draw_picture(cells: list[Cell], options: argparse.Namespace) -> None:
    """Time per step at the smallest number of lanes, and speed-up at the smallest and the largest."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    modes = [mode for mode in MODES if any(cell.mode == mode for cell in cells)]
    few, many = min(options.lanes), max(options.lanes)
    figure, axes = plt.subplots(
        len(modes), 3, figsize=(13, 4.2 * len(modes)), squeeze=False, layout="constrained"
    )
    colours = dict(
        zip(sorted({c.units for c in cells}), plt.get_cmap("viridis")(np.linspace(0, 0.9, 8)), strict=False)
    )
    for row, mode in zip(axes, modes, strict=True):
        for cell in (c for c in cells if c.mode == mode):
            alpha = list(cell.alpha.values())
            ours = np.array([cell.times[f"evsim {a:g}"] for a in cell.alpha])
            dense, style = cell.times[cell.dense], {"color": colours[cell.units]}
            if cell.lanes == few:
                row[0].loglog(alpha, 1e6 * ours, "o-", **style)
                row[0].axhline(1e6 * dense, linestyle="--", linewidth=1, **style)
                row[1].loglog(alpha, dense / ours, "o-", label=f"{cell.units} units", **style)
            if cell.lanes == many:
                row[2].loglog(alpha, dense / ours, "o-", label=f"{cell.units} units", **style)
        row[0].set(title=f"{mode}, {_lanes(few)}", ylabel="time per step of all lanes (us)")
        row[0].plot([], [], "ko-", label="evsim")
        row[0].plot([], [], "k--", linewidth=1, label="fastest dense peer, float32")
        for axis, lanes in zip(row[1:], (few, many), strict=True):
            axis.axhline(1, color="black", linewidth=1)
            axis.set(title=f"{mode}, {_lanes(lanes)}", ylabel="times faster than the fastest dense peer")
        for axis in row:
            axis.set_xlabel("activity: events per unit and step")
            axis.grid(alpha=0.3)
            axis.legend(fontsize="small", loc="lower right" if axis is row[0] else "best")
    figure.suptitle(f"EGRU layer, input as wide as the layer, {options.threads} thread(s)")
    options.plot.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.plot, dpi=80)


def _lanes(number: int) -> str:
    return f"{number} lane{'s' * (number > 1)}"


def main() -> None:
    """Measure the cells asked for and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, nargs="+", default=[128, 256, 512, 1024, 2048])
    parser.add_argument("--lanes", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=MODES)
    parser.add_argument("--activities", type=float, nargs="+", default=[0.01, 0.03, 0.1, 0.3, 1.0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=list(CLOCKS), help="processor time for one thread, else wall time")
    parser.add_argument("--steps", type=int, default=64, help="per call: a call has a fixed cost")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each line, as far as 3 rounds allow")
    parser.add_argument(
        "--no-others",
        dest="others",
        action="store_false",
        help="leave out the peers that no aim is about (one lane)",
    )
    parser.add_argument("--no-more", dest="more", action="store_false", help="leave out the last table")
    parser.add_argument("--plot", type=Path, help="a PNG to draw")
    options = parser.parse_args()
    options.clock = options.clock or ("processor" if options.threads == 1 else "wall")
    pin(options.threads)
    quiet_warnings()
    print(f"{describe(options.threads)}; {options.clock} time")
    print(f"dense EGRUs compute what evsim does, gradients too, within {check():.0e}", flush=True)
    cells = []
    for units in options.units:
        layer = Layer(units)
        for mode in options.modes:
            for lanes in options.lanes:
                print(f"... {units} units, {mode}, {_lanes(lanes)}", file=sys.stderr, flush=True)
                cells.append(measure(layer, mode, lanes, options))
    cells.sort(key=lambda cell: (cell.mode, cell.lanes, cell.units))
    if ACTIVITY in options.activities:
        print_aims(cells, options)
    print_activities(cells, options)
    if options.more:
        print_more(options)
    busy = max(cell.times.cores for cell in cells)
    print(f"\ncores kept busy, processor time / wall time of a call: at most {busy:.2f}")
    if options.plot:
        draw_picture(cells, options)


if __name__ == "__main__":
    main()
