"""Time per token, as `evsim.token_speed.measure` found it, for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def show(found: dict[str, Any], console: Console) -> None:
    """Print what `evsim.token_speed.measure` returned."""
    from evsim.tables import plain_table

    forms = list(dict.fromkeys(row["form"] for row in found["times"].values() if row["form"]))
    columns = [f"x {form}".replace(" ", "\n") for form in forms]
    table: Any = plain_table("one token", "us", "range", *columns, words=("one token",))
    for name, row in found["times"].items():
        ratios = {found["times"][peer]["form"]: r["median"] for peer, r in row["ratios"].items()}
        shown = [f"{ratios[form]:.1f}" if form in ratios else "" for form in forms]
        table.add_row(name, f"{row['median']:.1f}", f"{row['lowest']:.1f}-{row['highest']:.1f}", *shown)
    console.print(table)
    if "checkpoint" in found:
        console.print(f"from {found['checkpoint']}", soft_wrap=True)
    for name, about in found["networks"].items():
        sent = ", ".join(f"{layer} {share:.3f}" for layer, share in about["activity"].items())
        kept = ", ".join(f"{p} {row['density']:.0%}" for p, row in about["projections"].items())
        console.print(f"{name}: activity {sent}; weights not 0: {kept}", soft_wrap=True)
        console.print(f"  MACs per token: {about['macs_per_token']:,.0f}{_dense(found)}", soft_wrap=True)
    busy = [name for name, row in found["times"].items() if (row["cores"] or 0) > 1.1]
    for line in [f"{name}: used more than one core" for name in busy] + found["left_out"]:
        console.print(line, soft_wrap=True)
    machine = found["machine"]
    torch = f"; torch {machine['torch']}, {machine['torch_instruction_set']}" if "torch" in machine else ""
    console.print(
        f"{found['rounds']} windows of {found['tokens']} tokens, one lane, one thread; "
        f"{machine['instruction_set']}{torch}",
        soft_wrap=True,
    )


def _dense(found: dict[str, Any]) -> str:
    """What dense layers compute for a token, in words."""
    return "".join(f"; dense {kind.upper()}: {n:,}" for kind, n in found["dense_macs_per_token"].items())
