"""What a comparison of word-level language models prints and draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evsim.composition import Case, composition, composition_table
from evsim.energy import HOROWITZ_45NM_FLOAT32, dense_twin, energy, energy_table
from evsim.protocol import RunFolder
from evsim.tables import plain_table


def report(folder: RunFolder, summary: dict[str, Any], cases: Sequence[Case]) -> None:
    """Print all tables, add them to the summary, and draw the figures."""
    console = folder.console
    console.print()
    console.print(_models(summary["results"]))
    console.print()
    rows = composition(cases)
    console.print(composition_table(rows))
    console.print()
    console.print(f"energy per word, one lane, weights in 1 MB of SRAM: {HOROWITZ_45NM_FLOAT32.name}")
    estimates = [("dense GRU", energy(dense_twin(cases[0].operations)))]
    estimates += [(case.label, energy(case.operations)) for case in cases]
    console.print(energy_table(estimates))
    summary["composition"] = rows
    summary["energy_nj"] = {label: one.total for label, one in estimates}
    folder.write_json("summary.json", summary)


def _models(results: Sequence[Mapping[str, Any]]) -> Any:
    table = plain_table(
        "model",
        "perplexity\nvalidation",
        "\ntest",
        "\nalpha",
        "parameters\nlayers",
        "\nembedding",
        "words/s\ntraining",
        "\nepochs",
        words=("model",),
    )
    for one in results:
        seconds = sum(one["training"]["seconds"].values())
        rate = f"{one['training']['lane_steps'] / seconds:,.0f}" if seconds else "-"
        table.add_row(
            one["name"],
            f"{one['valid_perplexity']:.2f}",
            f"{one['test_perplexity']:.2f}",
            f"{one['alpha']:.3f}",
            f"{one['parameters']['layers']:,}",
            f"{one['parameters']['embedding']:,}",
            rate,
            str(len(one["epochs"])),
        )
    return table
