"""``make validate``: runs the validation matrix and writes what came of it as a page in Markdown."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from evsim.brian.validation import MORE_HALVINGS, ORDER_TOLERANCE, TOLERANCE, Outcome, Size, cells, matrix

PAGE = """\
# The validation matrix

Every unit type, in both kinds of time, with short and long delays, dense and sparse weights, one layer
and several, run by evsim and by Brian2 and compared: {count} networks, {verdict}. Made by `make
validate`; [crosscheck.md](crosscheck.md) tells how one network is compared, and how to do it with yours.

{facts}.

## In steps

{size.units} units a layer, {size.steps:,} steps of 1 ms, float64, 20 inputs, recurrent delays in steps. A
cell tells the number of events, the same ones in both simulators, and the largest difference of any value
or state at any step; the limit is {tolerance:g}.

{steps}

## In continuous time

{size.timed_units} units a layer, {size.duration:g} ms, events of 5 inputs. Brian2 steps with dt {dts} ms
and has an event at the end of the step in which it happens, so that its event times tend to the exact
ones with order 1. A cell tells the number of events; the order found, by the median difference of event
times and, in brackets, by the mean (least squares over all dt; the limits are {low:g} and {high:g} for
the median); and the median difference at the finest dt. Single events, of units that all but touch their
threshold, move the mean, and not the median: `evsim crosscheck`, which judges a network by the mean,
would not pass {beyond} of these {timed_count}. Where an event of one simulator had no partner in the other
at the finest dt, dt was halved up to {more} times more; such cells tell their dt. Recurrent delays: the
shortest there is (0, of DeltaLSTM 1 ms), 2.5 ms, and one for each synapse between 0.5 and 5 ms.

{timed}
"""


def page(outcomes: Iterable[Outcome], size: Size, facts: dict[str, Any]) -> str:
    """The outcomes as a page; ``facts`` are told at its head."""
    done = list(outcomes)
    means = [o.mean_order for o in done if o.cell.continuous]
    failed = sum(not o.ok for o in done)
    return PAGE.format(
        count=len(done),
        verdict=f"**{failed} of them fail**" if failed else "every one holds",
        facts=", ".join(f"{name} {value}" for name, value in facts.items()),
        size=size,
        dts=", ".join(f"{dt:g}" for dt in size.dts),
        tolerance=TOLERANCE,
        low=1 - ORDER_TOLERANCE,
        high=1 + ORDER_TOLERANCE,
        beyond=sum(not abs(round(mean, 2) - 1) <= ORDER_TOLERANCE + 1e-9 for mean in means),
        timed_count=len(means),
        more=MORE_HALVINGS,
        steps=_table([o for o in done if not o.cell.continuous], "delay {} steps", _steps_text),
        timed=_table([o for o in done if o.cell.continuous], "delay {}", _timed_text(min(size.dts))),
    )


def _table(outcomes: Sequence[Outcome], heading: str, text: Callable[[Outcome], str]) -> str:
    delays = list(dict.fromkeys(o.cell.delay for o in outcomes))
    rows: dict[tuple[str, int, float], dict[str, str]] = {}
    for o in outcomes:
        row = rows.setdefault((o.cell.title, o.cell.layers, o.cell.density), {})
        row[o.cell.delay] = text(o) if o.ok else f"**{text(o)}**"
    named = {"2.5": "2.5 ms", "spread": "0.5 to 5 ms"}
    lines = [
        " | ".join(["| unit | layers | weights", *(heading.format(named.get(d, d)) for d in delays)]) + " |",
        "|---|---|---|" + "---|" * len(delays),
    ]
    for (title, layers, density), found in rows.items():
        weights = "dense" if density == 1 else f"{density:.0%}"
        entries = [title, str(layers), weights, *(found.get(d, "") for d in delays)]
        lines.append(f"| {' | '.join(entries)} |")
    return "\n".join(lines)


def _steps_text(outcome: Outcome) -> str:
    different = "" if not outcome.n_different else f", {outcome.n_different:,} differ"
    return f"{outcome.n_events:,}{different}; {outcome.state_error:.1e}"


def _timed_text(usual: float) -> Callable[[Outcome], str]:
    def text(outcome: Outcome) -> str:
        different = f", {outcome.n_different:,} unmatched" if outcome.n_different else ""
        at = "" if outcome.finest == usual else f" at dt {outcome.finest:g} ms"
        orders = f"{outcome.order:.2f} ({outcome.mean_order:.2f})"
        return f"{outcome.n_events:,}{different}; {orders}; {outcome.time_error:.1e} ms{at}"

    return text


def main(
    out: Annotated[Path, typer.Option(help="Page to write, in Markdown.")] = Path("docs/validation.md"),
    numbers: Annotated[Path, typer.Option(help="Numbers of every cell, as JSON.")] = Path(
        "build/validation.json"
    ),
    processes: Annotated[
        int, typer.Option(help="Cells that run at a time; 0: one for each core.", min=0)
    ] = 0,
) -> None:
    """Run the validation matrix and write its page; the exit code is 1 if a cell does not hold."""
    from rich.progress import Progress

    from evsim.brian.library import quiet_brian2
    from evsim.provenance import provenance

    size = Size()
    wanted, start = cells(size), time.perf_counter()
    processes = processes or len(os.sched_getaffinity(0))
    done = []
    with Progress() as progress:
        task = progress.add_task("cells", total=len(wanted))
        for outcome in matrix(wanted, processes):
            done.append(outcome)
            progress.advance(task)
            if not outcome.ok:
                progress.console.print(f"does not hold: {outcome}")
    with quiet_brian2("numpy") as brian2:
        peer = brian2.__version__
    origin = provenance()
    facts = {"evsim": origin["evsim"], "Brian2": peer, "Python": origin["python"], "NumPy": origin["numpy"]}
    out.parent.mkdir(parents=True, exist_ok=True)
    numbers.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page(done, size, facts))
    numbers.write_text(json.dumps({"versions": facts, "cells": [asdict(o) for o in done]}, indent=1) + "\n")
    failed = sum(not o.ok for o in done)
    minutes = (time.perf_counter() - start) / 60
    told = f"{len(done) - failed} of {len(done)} cells hold, {minutes:.1f} min"
    print(f"{told}; page in {out}, numbers in {numbers}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    typer.run(main)
