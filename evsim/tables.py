"""Tables for the terminal, made to be read on 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

if TYPE_CHECKING:
    from evsim.comparison import Comparison
    from evsim.continuous_comparison import Convergence
    from evsim.log_comparison import LogComparison


def plain_table(*columns: str, words: Sequence[str] = ()) -> Table:
    """A table without frame; the columns named in ``words`` are set flush left, the others are numbers."""
    table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        word = column in words
        table.add_column(column, justify="left" if word else "right", no_wrap=not word, overflow="fold")
    return table


def population_table(rows: list[dict[str, Any]]) -> Table:
    """The rows of a log's summary, but for what follows from the rest; alpha where there are steps."""
    clocked = all("alpha" in row for row in rows)
    table = plain_table(
        "population",
        "type",
        "units",
        "silent",
        "events",
        *(["alpha"] if clocked else []),
        "rate\n[Hz]",
        "most\nactive",
        words=("population", "type"),
    )
    for row in rows:
        counts = [f"{row['units']:,}"]
        if row["events"] is None:
            counts += ["-"] * (5 if clocked else 4)
        else:
            counts += [
                f"{row['silent_units']:,}",
                f"{row['events']:,}",
                *([f"{row['alpha']:.4f}"] if clocked else []),
                f"{row['rate_hz']:,.1f}",
                " ".join(str(unit) for unit, _ in row["most_active"]),
            ]
        table.add_row(row["population"], row["type"], *counts)
    return table


def counter_table(counters: dict[str, Any]) -> Table:
    """MACs of the forward run by projection; dense ones where there are steps to count them for."""
    if "dense_macs" not in counters:
        table = plain_table("projection", "MACs by event", words=("projection",))
        for name, macs in counters["macs"].items():
            table.add_row(name, f"{macs:,}")
        return table
    table = plain_table("projection", "MACs by event", "MACs dense", "fewer", words=("projection",))
    for name, macs in counters["macs"].items():
        dense = counters["dense_macs"][name]
        table.add_row(name, f"{macs:,}", f"{dense:,}", f"{dense / macs:.1f} x" if macs else "-")
    return table


def comparison_table(comparison: Comparison) -> Table:
    """What `Comparison.table` has, in narrow columns."""
    table = plain_table(
        "population",
        "units",
        "events\nevsim",
        "events\nBrian2",
        "first difference",
        "values\nwithin",
        "states\nwithin",
        words=("population",),
    )
    for p in comparison.populations.values():
        events = ["-" if n is None else f"{n:,}" for n in (p.n_events, p.n_peer_events)]
        first = "none" if p.first is None else f"step {p.first.step}, unit {p.first.unit}"
        values = "-" if p.n_events is None else f"{p.value_error:.1e}"
        states = "-" if p.state_error is None else f"{p.state_error:.1e}"
        table.add_row(p.name, f"{p.n_units:,}", *events, first, values, states)
    return table


def convergence_table(convergence: Convergence) -> Table:
    """What `Convergence.table` has, in narrow columns."""
    table = plain_table(
        "dt of Brian2\n[ms]",
        "events\nevsim",
        "events\nBrian2",
        "without\npartner",
        "times: mean\ndifference\n[ms]",
        "largest\n\n[ms]",
        "states:\nmean",
        "Brian2\n\n[s]",
    )
    for c in convergence.comparisons:
        events = [f"{n:,}" for n in (c.n_events, c.n_peer_events, c.n_unmatched)]
        errors = [f"{error:.2e}" for error in (c.mean_error, c.max_error, c.mean_state_error)]
        table.add_row(f"{c.dt:g}", *events, *errors, f"{c.peer.seconds:.1f}")
    return table


def log_comparison_table(comparison: LogComparison) -> Table:
    """How far two logs agree, by population; first and second are the logs in the order given."""
    table = plain_table(
        "population",
        "units",
        "events\nfirst",
        "events\nsecond",
        "unequal",
        "times within\n[ms]",
        "values\nwithin",
        "states\nwithin",
        words=("population",),
    )
    for p in comparison.populations.values():
        events = ["-" if n is None else f"{n:,}" for n in (*p.n_events, p.n_unequal)]
        errors = ("-" if e is None else f"{e:.1e}" for e in (p.time_error, p.value_error, p.state_error))
        table.add_row(p.name, f"{p.n_units:,}", *events, *errors)
    return table
