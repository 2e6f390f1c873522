"""Whether two kinds of sparsity multiply: silent units and pruned weights, over several networks.

Subramoney et al. (arXiv 2311.07625) report that they do.  Here the product of the two factors stands beside
what was counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from rich.table import Table

from evsim.operations import Operations, number, ratio, total
from evsim.tables import plain_table


class Case(NamedTuple):
    """One network in a comparison: what to call it, its work, and its perplexity if known."""

    label: str
    operations: Sequence[Operations]
    perplexity: float | None = None


def composition(cases: Iterable[Case]) -> list[dict[str, Any]]:
    """What activity and weight sparsity save, alone and together.

    All factors are the dense network's MACs per token over fewer.  ``factor_activity`` is with the activity
    that this very network showed, and dense weights; ``factor_weights`` with its weights, all units active.

    Returns
    -------
    list of dict
        One per case, as JSON can hold it: ``label``, ``tabulated`` (names of projections that are looked up),
        ``weight_sparsity``, ``activity``, ``perplexity``, ``macs``, ``dense_macs`` (per token),
        ``factor_activity``, ``factor_weights``, ``product`` of these two, ``product_by_projection`` (the
        factor if they multiplied within each projection), ``factor`` that was measured, and ``deviation`` of
        ``factor`` from ``product`` in percent, below 0 where more MACs were done than the product says.
        Factors are None where nothing at all was done.
    """
    table = []
    for case in cases:
        whole = total(case.operations, case.label)
        by_activity, by_weights = (
            ratio(whole.dense_macs, part) for part in (whole.by_activity, whole.by_weights)
        )
        both = None if by_activity is None or by_weights is None else by_activity * by_weights
        off = None if both is None or whole.factor is None else 100 * (whole.factor / both - 1)
        table.append(
            {
                "label": case.label,
                "tabulated": [row.projection for row in case.operations if row.looked_up],
                "weight_sparsity": 1 - whole.density,
                "activity": whole.activity,
                "perplexity": case.perplexity,
                "macs": whole.macs,
                "dense_macs": whole.dense_macs,
                "factor_activity": by_activity,
                "factor_weights": by_weights,
                "product": both,
                "product_by_projection": ratio(whole.dense_macs, whole.predicted),
                "factor": whole.factor,
                "deviation": off,
            }
        )
    return table


def composition_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """What `composition` returns, for the terminal."""
    table = plain_table(
        "network",
        "zeros\n[%]",
        "rows\n[%]",
        "ppl",
        "kMACs",
        "dense",
        "events\nalone",
        "zeros\nalone",
        "both",
        "found",
        "off\n[%]",
        words=("network",),
    )
    notes = [
        "rows of weights read for a token, those of inputs too; kMACs per token; how many times as many the "
        "dense network does: with events alone, with zero weights alone, the product of both, as found"
    ]
    for row in rows:
        if row["tabulated"]:
            notes.append(
                f"{row['label']}: {', '.join(row['tabulated'])} tabulated, one row looked up per token"
            )
        factors = ("factor_activity", "factor_weights", "product", "factor")
        table.add_row(
            row["label"],
            f"{100 * row['weight_sparsity']:.1f}",
            f"{100 * row['activity']:.1f}",
            number(row["perplexity"], ".1f"),
            *(_thousands(row[name]) for name in ("macs", "dense_macs")),
            *(number(row[name], ".1f") for name in factors),
            number(row["deviation"], "+.1f"),
        )
    table.caption, table.caption_justify = "\n".join(notes), "left"
    return table


def _thousands(macs: float) -> str:
    return f"{macs / 1000:,.0f}" if macs >= 1e5 else f"{macs / 1000:,.1f}"
