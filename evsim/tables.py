"""Tables for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from evsim.comparison import Comparison


def _table(*columns: str) -> Table:
    """The first column holds names, the others numbers."""
    table = Table()
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def population_table(rows: list[dict[str, Any]]) -> Table:
    """The rows of `EventLog.summary`."""
    table = _table(
        "population", "type", "units", "events", "alpha", "rate [Hz]", "silent", "most active", "least active"
    )
    for row in rows:
        counts = [f"{row['units']:,}"]
        if row["events"] is None:
            counts += ["-"] * 6
        else:
            counts += [
                f"{row['events']:,}",
                f"{row['alpha']:.4f}",
                f"{row['rate_hz']:,.1f}",
                f"{row['silent_units']:,}",
            ]
            counts += [
                ", ".join(str(unit) for unit, _ in row[key]) for key in ("most_active", "least_active")
            ]
        table.add_row(row["population"], row["type"], *counts)
    return table


def counter_table(counters: dict[str, Any]) -> Table:
    """MACs of the forward run by projection."""
    table = _table("projection", "MACs by event", "MACs dense", "fewer")
    for name, macs in counters["macs"].items():
        dense = counters["dense_macs"][name]
        table.add_row(name, f"{macs:,}", f"{dense:,}", f"{dense / macs:.1f} x" if macs else "-")
    return table


def comparison_table(comparison: Comparison) -> Table:
    """The rows of `Comparison.table`."""
    rows = comparison.table()
    table = _table(*rows[0])
    for row in rows:
        table.add_row(*(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row.values()))
    return table
