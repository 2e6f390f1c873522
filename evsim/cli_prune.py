"""The command ``evsim prune``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from evsim.sparsity import Sparsity

#: Of a run folder, what a checkpoint needs to be gone on with.
SETTINGS = "settings.json"


def prune(
    checkpoint: Annotated[
        Path, typer.Argument(help="A checkpoint.h5, or the folder of a run.", show_default=False)
    ],
    sparsity: Annotated[
        float, typer.Option(help="Share of weights to become 0, from 0 to below 1.", show_default=False)
    ],
    out: Annotated[
        Path,
        typer.Option("-o", "--out", help="The new checkpoint, or a new run folder.", show_default=False),
    ],
    scope: Annotated[
        Literal["projection", "block", "global"],
        typer.Option(
            help="Compare weights within each projection, each block (gate) of each, or all together."
        ),
    ] = "projection",
    projections: Annotated[
        list[str] | None,
        typer.Option(
            help="Name or pattern, such as 'layer*->layer*'; may be given again.  [default: all into units "
            "that send events, but from tokens or embedding]",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a checkpoint that is there.")] = False,
) -> None:
    """Take the smallest weights out of a trained network.

    The weights are those of the best epoch; pruned projections are stored as sparse rows.  A run folder of
    character_model or delayed_copy becomes one that can be trained further: evsim run PROTOCOL --resume
    FOLDER --epochs N, N more than before; language_model prunes by itself.  In the table a dead row is a
    unit from which no weight is left, a dead column an input of a unit to which none is.
    """
    from evsim.checkpoint import Checkpoint
    from evsim.errors import CheckpointError
    from evsim.protocol import RunFolder
    from evsim.pruned_checkpoint import checkpoint_report, prune_checkpoint

    folder = checkpoint if checkpoint.is_dir() else None
    source = checkpoint / "checkpoint.h5" if folder else checkpoint
    target = out / "checkpoint.h5" if folder else out
    if target.exists() and target.resolve() == source.resolve():
        raise CheckpointError(f"checkpoint '{target}'", "is the one to prune", "give another --out")
    if target.exists() and not force:
        raise CheckpointError(f"checkpoint '{target}'", "exists already", "give another --out, or --force")
    found = prune_checkpoint(Checkpoint.open(source), sparsity, projections, scope)
    made = RunFolder(out, force=force) if folder else None
    found.save(target)
    if made and folder and (folder / SETTINGS).exists():
        made.write(SETTINGS, (folder / SETTINGS).read_bytes())
    _print(checkpoint_report(found))
    print(target)


def _print(rows: Iterable[Sparsity]) -> None:
    from rich.console import Console

    from evsim.tables import plain_table

    columns = ("places", "nonzeros", "zeros\n[%]", "dead rows\n[%]", "dead columns\n[%]")
    table: Any = plain_table("projection", "stored", *columns, words=("projection", "stored"))
    for row in rows:
        counts = f"{row.places:,}", f"{row.nonzeros:,}"
        shares = (f"{100 * share:.1f}" for share in (row.sparsity, row.dead_rows, row.dead_columns))
        table.add_row(row.projection, "sparse" if row.sparse else "dense", *counts, *shares)
    Console(highlight=False, markup=False).print(table)
