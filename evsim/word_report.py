"""What a comparison of word-level language models prints and draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from evsim.composition import Case, composition, composition_table
from evsim.energy import HOROWITZ_45NM_FLOAT32, dense_twin, energy, energy_table
from evsim.operations import number
from evsim.protocol import RunFolder
from evsim.sparsity_figures import activity_figure, composition_figure, perplexity_figure, seconds_figure
from evsim.speed_table import show
from evsim.tables import plain_table


def report(folder: RunFolder, summary: dict[str, Any], cases: Sequence[Case]) -> None:
    """Print all tables, add what they show to the summary, and draw the figures.

    Parameters
    ----------
    folder : RunFolder
    summary : dict
        With ``results`` of all models, the event-based one without pruning first, and ``speed``, what
        `evsim.token_speed.measure` gave, or None.
    cases : sequence of Case
        Operations of each model, the event-based one without pruning first.
    """
    console, rows = folder.console, composition(cases)
    dense = energy(dense_twin(cases[0].operations))
    others = [case for case in cases if case.label != "GRU"]  # a trained one does what any dense one does
    estimates = [("dense GRU", dense), *((case.label, energy(case.operations)) for case in others)]
    for title, table in (
        ("Perplexity, by reading in one lane", models_table(summary["results"])),
        ("Operations of the recurrent layers per word", composition_table(rows)),
        (
            f"Energy of the recurrent layers, weights in 1 MB SRAM, estimated: {HOROWITZ_45NM_FLOAT32.name}",
            energy_table(estimates),
        ),
    ):
        console.print(f"\n{title}", soft_wrap=True)
        console.print(table)
    if summary["speed"] is not None:
        console.print("\nTime of the recurrent layers")
        show(summary["speed"], console)
    summary["composition"] = rows
    summary["energy_nj"] = {label: one.total for label, one in estimates}
    folder.write_json("summary.json", summary)
    _draw(folder, summary, rows)


def _draw(folder: RunFolder, summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    drawn = {
        "perplexity.png": perplexity_figure(rows),
        "activity.png": activity_figure([_of_layers(one) for one in summary["results"][0]["epochs"]]),
        "composition.png": composition_figure(rows),
    }
    if summary["speed"] is not None:
        times = summary["speed"]["times"].items()
        drawn["seconds.png"] = seconds_figure([_bar(label, time) for label, time in times])
    for name, figure in drawn.items():
        figure.savefig(folder / name, dpi=200)
    folder.console.print(
        f"\nin {folder.path}: {', '.join(drawn)}, summary.json, events.h5, raster.png", soft_wrap=True
    )


def _of_layers(epoch: Mapping[str, Any]) -> dict[str, Any]:
    """An epoch without the activity of the words' vectors, which is always 1."""
    activity = {name: share for name, share in epoch["activity"].items() if name != "words"}
    return {**epoch, "activity": activity}


def _bar(label: str, time: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "label": label,
        "seconds": 1e-6 * time["median"],
        "range": (1e-6 * time["lowest"], 1e-6 * time["highest"]),
        "group": "PyTorch" if time["form"] else "evsim",
    }


def models_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """Perplexity, activity and size of each model."""
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
            number(one["test_perplexity"], ".2f"),
            f"{one['alpha']:.3f}",
            f"{one['parameters']['layers']:,}",
            f"{one['parameters']['embedding']:,}",
            rate,
            f"{one['epochs_before'] or ''}+{len(one['epochs'])}".removeprefix("+"),
        )
    return table
