"""Time per word of a language model's recurrent layers, stored in several ways, beside dense layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from numpy.typing import NDArray

from evsim.event_stack import tabulated
from evsim.narrow_weights import narrow
from evsim.network import Network
from evsim.sparsity import sparsified
from evsim.tied_embedding import TiedEmbedding
from evsim.token_speed import Kind, measure

#: How weights are stored: as they are, without their zeros where half of them or more are 0, in few bits.
Storage = Literal["dense", "sparse", "bfloat16", "int8"]
#: What the first layer reads: words, by which rows of a table are looked up, or their vectors.
Reads = Literal["words looked up", "vectors"]
READS: tuple[Reads, ...] = ("words looked up", "vectors")
#: Words of a window at most.
SPOKEN = 200


def reading_speed(
    network: Network,
    embedding: TiedEmbedding,
    text: NDArray,
    kinds: Sequence[Kind] = ("gru",),
    storage: Sequence[Storage] = (),
    reads: Sequence[Reads] = READS,
    tokens: int = SPOKEN,
    rounds: int = 20,
) -> dict[str, Any]:
    """Time a trained network reading, and dense layers of its sizes; see `evsim.token_speed.measure`.

    Parameters
    ----------
    network : Network
        As `evsim.event_stack.build_stack` makes it; for ``storage`` with all its zeros.
    embedding : TiedEmbedding
    text : array of int, shape (n_words,)
        A shorter one than a window makes the window shorter.
    kinds : sequence of {"gru", "lstm"}
    storage : sequence of {"dense", "sparse", "bfloat16", "int8"}
        Without, the network as it is.
    reads : sequence of {"words looked up", "vectors"}
    tokens, rounds : int

    Returns
    -------
    dict
        Of `measure`.  Networks are named by what they read, as in "vectors", after how they are stored if
        that was asked for, as in "sparse, vectors".
    """
    x = embedding.look_up(text)
    networks: dict[str, Network] = {}
    inputs: dict[str, NDArray] = {}
    for what in reads:
        for way in dict.fromkeys(storage or (None,)):
            name = what if way is None else f"{way}, {what}"
            networks[name] = _stored(network, embedding, what, way)
            inputs[name] = x if what == "vectors" else text
    sizes = [p.n_units for name, p in network.populations.items() if name != "words"]
    window = min(tokens, len(text))
    return measure(networks, inputs, sizes, kinds, peer_inputs=x, tokens=window, rounds=rounds)


def _stored(network: Network, embedding: TiedEmbedding, what: Reads, way: Storage | None) -> Network:
    stored = sparsified(network) if way == "sparse" else network
    if what == "words looked up":
        stored = tabulated(stored, embedding)  # before it is narrowed: the table is narrow, too
    return narrow(stored, way) if way in ("bfloat16", "int8") else stored
