"""The language model of a run folder: its network, its embedding and its text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from evsim.checkpoint import Checkpoint
from evsim.data.text import Corpus, load_corpus
from evsim.errors import ProtocolError
from evsim.event_stack import build_stack
from evsim.network import Network
from evsim.protocols.language_model import cuts
from evsim.tied_embedding import TiedEmbedding


class TrainedWords(NamedTuple):
    """What `open_trained` found; weights are those of the best epoch, and zeros are stored."""

    network: Network
    embedding: TiedEmbedding
    text: Corpus
    file: Path


def open_trained(path: str | Path, checkpoint: str | None = None) -> TrainedWords:
    """Open a run of the protocol ``language_model``.

    Parameters
    ----------
    path : str or Path
        The run folder, or one of the checkpoints in it.
    checkpoint : str, optional
        The name of a file in the folder; by default that of the network with the most zeros.

    Raises
    ------
    ProtocolError
        No folder of such a run, or it holds no such checkpoint.
    CheckpointError
        A checkpoint of something else.
    DataError
        The text is not where it was; a relative path counts from where the run was started.
    """
    given = Path(path)
    folder = given.parent if given.is_file() else given
    where = f"run folder '{folder}'"
    try:
        stored = json.loads((folder / "settings.json").read_text())
        protocol, options = stored["protocol"], stored["options"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProtocolError(
            where, "has no readable settings.json", "give that of evsim run language_model"
        ) from error
    if protocol != "language_model":
        raise ProtocolError(where, f"is of the protocol '{protocol}'", "give one of language_model")
    if given != folder and checkpoint:
        raise ProtocolError(
            where, f"is given as {given.name} and as --checkpoint {checkpoint}", "give one of them"
        )
    file = given if given != folder else folder / (checkpoint or _sparsest(folder))
    if not file.exists():
        raise ProtocolError(where, f"holds no {file.name}", "give the name of a checkpoint in it")
    try:
        sizes = [options["units"]] * (options["layers"] - 1) + [options["embedding"]]
        corpus, n_units = options["corpus"], options["embedding"]
    except (KeyError, TypeError) as error:
        raise ProtocolError(
            where, "has settings of another version", "train it again, or run it with that"
        ) from error
    text = load_corpus(corpus, "word").by_frequency()
    embedding = TiedEmbedding(text.n_tokens, n_units, cuts(text.n_tokens))
    network = build_stack(n_units, sizes)
    Checkpoint.open(file).restore(embedding.parameters() | network.parameters(), best=True)
    return TrainedWords(network, embedding, text, file)


def _sparsest(folder: Path) -> str:
    """The checkpoint of the network of which most was pruned."""
    found = {}
    for path in folder.glob("pruned_*.h5"):
        try:
            found[float(path.stem.removeprefix("pruned_"))] = path.name
        except ValueError:
            continue
    return found[max(found)] if found else "checkpoint.h5"
