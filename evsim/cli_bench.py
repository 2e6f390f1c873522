"""The commands ``evsim bench``: how fast it is on this machine."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from evsim.errors import ProtocolError

benches = typer.Typer(help="Measure how fast it is here.", rich_markup_mode=None)


class Storage(StrEnum):
    """How the weights of a network are stored in memory."""

    dense = "dense"
    sparse = "sparse"
    bfloat16 = "bfloat16"
    int8 = "int8"


@benches.callback(invoke_without_command=True)
def _benches(ctx: typer.Context) -> None:
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())
        raise typer.Exit(2)


@benches.command()
def tokens(
    ctx: typer.Context,
    run: Annotated[
        Path | None,
        typer.Argument(
            help="A run folder of language_model, or a checkpoint in it: its network reading held-out text.  "
            "[default: a random one]",
            show_default=False,
        ),
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="A file in the run folder; by default the network with most zeros.")
    ] = None,
    units: Annotated[int, typer.Option(help="Units of each layer.", min=1)] = 400,
    layers: Annotated[int, typer.Option(help="Layers.", min=1)] = 2,
    activity: Annotated[
        float, typer.Option(help="Events per unit and token, about.", min=0.001, max=0.5)
    ] = 0.1,
    weight_sparsity: Annotated[
        float, typer.Option(help="Share of weights that are 0, from 0 to below 1.", min=0.0, max=0.999)
    ] = 0.8,
    storage: Annotated[
        list[Storage] | None,
        typer.Option(
            help="How weights are stored: with their zeros, without, or in few bits; may be given again.  "
            "[default: dense, and sparse if there are zeros; for a run folder sparse]",
            show_default=False,
        ),
    ] = None,
    reads: Annotated[
        Literal["both", "vectors", "ids"],
        typer.Option(
            help="What the first layer reads: the vectors of words, or token ids, by which rows of the "
            "product of vectors and weights are looked up."
        ),
    ] = "both",
    window: Annotated[int, typer.Option("--tokens", help="Tokens of a window.", min=1)] = 200,
    rounds: Annotated[int, typer.Option(help="Windows for each contestant.", min=1)] = 20,
    peer: Annotated[
        Literal["gru", "lstm", "none"], typer.Option(help="Layers of PyTorch to compare with.")
    ] = "gru",
    seed: Annotated[int, typer.Option(help="Seed of weights and text.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with all rounds.")] = False,
) -> None:
    """Time one token through layers of EGRU, and of PyTorch, at one lane and one thread.

    The layers are those of a run folder, or random: weights pruned by magnitude, biases such that as many
    units send as is asked.  They and PyTorch's dense layers of the same sizes, in float32 and with 8 bits
    (dynamic quantization), run in turn on the same text.  "run" is a window at once, "step" is token by
    token, as text is generated.  The last columns say how many times as long PyTorch takes, in the same way.
    """
    kinds: tuple[Any, ...] = () if peer == "none" else (peer,)
    if run is None and checkpoint is None:
        found = _random(units, layers, activity, weight_sparsity, storage, reads, window, rounds, kinds, seed)
    else:
        _only_with_random_layers(ctx)
        if run is None:
            raise ProtocolError("bench", f"--checkpoint {checkpoint} is in no folder", "give a run folder")
        found = _trained(run, checkpoint, storage or [], reads, window, rounds, kinds)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    from rich.console import Console

    from evsim.speed_table import show

    show(found, Console(highlight=False, markup=False))


def _only_with_random_layers(ctx: typer.Context) -> None:
    """Raise ProtocolError at an option that says nothing about a trained network."""
    for name in ("units", "layers", "activity", "weight_sparsity", "seed"):
        if getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE":
            option = f"--{name.replace('_', '-')}"
            raise ProtocolError("bench", f"{option} is for random layers", "leave it away with a run folder")


def _trained(
    run: Path,
    checkpoint: str | None,
    storage: list[Storage],
    reads: str,
    window: int,
    rounds: int,
    kinds: tuple[Any, ...],
) -> dict[str, Any]:
    """The network of a run folder, reading the start of its held-out text."""
    from evsim.trained_words import open_trained
    from evsim.word_speed import READS, reading_speed

    model = open_trained(run, checkpoint)
    chosen = {"both": READS, "vectors": READS[1:], "ids": READS[:1]}[reads]
    ways: list[Any] = [way.value for way in storage] or ["sparse"]
    text = model.text.valid[: 5 * window]
    found = reading_speed(model.network, model.embedding, text, kinds, ways, chosen, window, rounds)
    return found | {"checkpoint": str(model.file)}


def _random(
    units: int,
    layers: int,
    activity: float,
    weight_sparsity: float,
    storage: list[Storage] | None,
    reads: str,
    window: int,
    rounds: int,
    kinds: tuple[Any, ...],
    seed: int,
) -> dict[str, Any]:
    """Random layers reading random text."""
    from evsim.random_stack import random_stack
    from evsim.token_speed import measure

    stack = random_stack(units, layers, activity, weight_sparsity, n_steps=max(2_000, 5 * window), seed=seed)
    ways = storage or [Storage.dense, *([Storage.sparse] if weight_sparsity else [])]
    vectors = stack.vectors[stack.text]
    networks, inputs = {}, {}
    for what, text in (("vectors", vectors), ("ids", stack.text)):
        if reads in ("both", what):
            network = stack.network if what == "vectors" else stack.by_token()
            for way in dict.fromkeys(ways):
                name = f"{way.value}, {what}"
                networks[name], inputs[name] = _stored(network, way), text
    return measure(
        networks, inputs, [units] * layers, kinds, peer_inputs=vectors, tokens=window, rounds=rounds
    )


def _stored(network: Any, way: Storage) -> Any:
    """A network with its weights in another form."""
    from evsim.narrow_weights import narrow
    from evsim.sparsity import sparsified

    if way is Storage.dense:
        return network
    if way is not Storage.sparse:
        return narrow(network, way.value)
    masks = {
        p.weight.name: p.weight.values != 0
        for p in network.projections.values()
        if p.source.name != "tokens"  # whose rows are read one at a time
    }
    return sparsified(network, masks)
