"""Tables for the terminal, made to be read on 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

if TYPE_CHECKING:
    from evsim.brian.result import Criterion
    from evsim.log_comparison import LogComparison


def plain_table(*columns: str, words: Sequence[str] = ()) -> Table:
    """A table without frame; the columns named in ``words`` are set flush left, the others are numbers."""
    table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        word = column in words
        table.add_column(column, justify="left" if word else "right", no_wrap=not word, overflow="fold")
    return table


def population_table(rows: list[dict[str, Any]]) -> Table:
    """The rows of `evsim.inspection.describe`: sizes, and alpha where there are steps."""
    clocked = all("alpha" in row for row in rows)
    words = ("population", "type", "on file")
    alpha = ["alpha"] if clocked else []
    table = plain_table("population", "type", "units", "events", *alpha, "on file", words=words)
    for row in rows:
        kept = [name for name in row["columns"] if name.endswith("gradient")]
        kept += [] if row["states"] is None else [f"state {row['states']}"]
        counts = [f"{row['units']:,}", "-" if row["events"] is None else f"{row['events']:,}"]
        if clocked:
            counts.append("-" if row["events"] is None else f"{row['alpha']:.4f}")
        events = [] if row["events"] is None else ["events"]
        table.add_row(row["population"], row["type"], *counts, ", ".join(events + kept))
    return table


def statistics_table(rows: list[dict[str, Any]]) -> Table:
    """Rates, synchrony and regularity of the populations that send."""
    table = plain_table(
        "population",
        "rate\n[Hz]",
        "lowest\n[Hz]",
        "highest\n[Hz]",
        "silent\n[%]",
        "chi",
        "CV",
        "most\nactive",
        "least\nactive",
        words=("population",),
    )
    for row in rows:
        if row["events"] is None:
            continue
        rates = (row["rate_hz"], row["rate_min_hz"], row["rate_max_hz"])
        synchrony, regularity = row["synchrony"], row["regularity"]
        table.add_row(
            row["population"],
            *(_rate(rate) for rate in rates),
            f"{100 * row['silent']:.1f}",
            "-" if synchrony is None else f"{synchrony['chi']:.3f}",
            "-" if regularity is None else f"{regularity['cv']:.2f}",
            *(" ".join(str(unit) for unit, _ in row[w][:2]) for w in ("most_active", "least_active")),
        )
    return table


def statistics_notes(rows: list[dict[str, Any]]) -> list[str]:
    """What chi and CV were made from, where that is not all events, step by step."""
    notes = []
    for row in rows:
        of = {"chi": row["synchrony"], "CV": row["regularity"]}
        part = {word: found["events"] for word, found in of.items() if found and not found["whole"]}
        if part:
            words, events = " and ".join(part), max(part.values())
            of_all = f"{events:,} events of {row['events']:,}, in windows spread over the run"
            notes.append(f"{row['population']}: {words} from {of_all}")
    bins = {row["synchrony"]["bin_ms"] for row in rows if row["synchrony"]}
    clocked = all("alpha" in row for row in rows)
    return notes + ([] if clocked else [f"chi: in bins of {width:g} ms" for width in sorted(bins)])


def _rate(hz: float) -> str:
    return f"{hz:,.1f}" if hz >= 1 or hz == 0 else f"{hz:.3g}"


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


def criteria_table(criteria: Sequence[Criterion]) -> Table:
    """Stated tolerances and what was measured."""
    table = plain_table("what is asked", "measured", "allowed", "", words=("what is asked",))
    for one in criteria:
        table.add_row(one.name, one.measured, one.allowed, "holds" if one.ok else "does NOT hold")
    return table


def matching_table(comparison: LogComparison) -> Table:
    """Events of two logs by population; first and second are the logs in the order given."""
    columns = ("events\nfirst", "events\nsecond", "equal", "moved", "alone\nfirst", "alone\nsecond")
    table = plain_table("population", *columns, words=("population",))
    for p in comparison.populations.values():
        if p.n_alone is not None:
            table.add_row(p.name, *(f"{n:,}" for n in (*p.n_events, p.n_equal, p.n_moved, *p.n_alone)))
    return table


def distance_table(comparison: LogComparison) -> Table:
    """How far two logs are apart, by population."""
    columns = ("units", "times within\n[ms]", "values within", "states within", "distance")
    table = plain_table("population", *columns, words=("population",))
    for p in comparison.populations.values():
        errors = ("-" if e is None else f"{e:.1e}" for e in (p.time_error, p.value_error, p.state_error))
        distance = "-" if p.distance is None else f"{p.distance:.3g}"
        table.add_row(p.name, f"{p.n_units:,}", *errors, distance)
    return table
