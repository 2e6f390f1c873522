"""A checkpoint with weights taken away: the state of a training run that goes on with a sparse network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evsim.checkpoint import Checkpoint
from evsim.errors import CheckpointError, NetworkError
from evsim.optimizer import MASK
from evsim.pruning import Scope, Weights, choose, masks_of
from evsim.sparsity import Sparsity, check_structure, count_zeros, structure_arrays

WEIGHT = ".weight"


def prune_checkpoint(
    checkpoint: Checkpoint,
    sparsity: float,
    projections: str | Sequence[str] | None = None,
    scope: Scope = "projection",
) -> Checkpoint:
    """A checkpoint whose chosen projections are sparse, for going on with training.

    The parameters are those of the best epoch.  Of what the optimiser keeps, the part that belongs to weights
    that are left is kept.  Earlier losses do not count as something to reach: the best epoch is looked for
    anew.

    Parameters
    ----------
    checkpoint : Checkpoint
        It stays as it is.
    sparsity, projections, scope
        See `evsim.magnitude_mask`.

    Returns
    -------
    Checkpoint
        ``Checkpoint.in_form(network)`` makes a network as it was trained the one that it is of.

    Raises
    ------
    CheckpointError
        No weights in it, or values that are not finite, or sparse weights without their structure.
    NetworkError, ParameterError
        As of `evsim.magnitude_mask`.
    """
    values = dict(checkpoint.best or checkpoint.parameters)
    optimizer, structure = dict(checkpoint.optimizer), dict(checkpoint.structure)
    chosen = choose(weights_in(checkpoint), projections)
    before = {
        w.name + WEIGHT: optimizer[MASK + w.name + WEIGHT] != 0
        for w in chosen
        if MASK + w.name + WEIGHT in optimizer
    }
    masks = masks_of(chosen, sparsity, scope, before)
    for w in chosen:
        name = w.name + WEIGHT
        mask = masks[name]
        structure |= structure_arrays(w.name, *_kept(w, mask, structure), w.shape)
        values[name] = values[name][mask]
        optimizer.pop(MASK + name, None)
        for slot in [key for key in optimizer if key.endswith("/" + name)]:
            if optimizer[slot].shape != mask.shape:
                raise CheckpointError(
                    "checkpoint", f"'{slot}' is not in the shape of its weights", "use another"
                )
            optimizer[slot] = optimizer[slot][mask]
    epochs = checkpoint.progress.get("epochs", [])
    # What was counted in training is of the network that was.
    now: dict[str, Any] = {"best_loss": None, "best_epoch": max(len(epochs) - 1, 0), "training": {}}
    progress = checkpoint.progress | now
    return Checkpoint(values, dict(values), optimizer, progress, structure)


def weights_in(checkpoint: Checkpoint) -> list[Weights]:
    """The weights of all projections of a checkpoint, of its best epoch.

    What is known of a projection's target comes from its name, ``source->target``: units send events if they
    have thresholds, and there are as many blocks of columns as its thresholds fit in.
    """
    values, found = checkpoint.best or checkpoint.parameters, []
    for name in (key.removesuffix(WEIGHT) for key in values if key.endswith(WEIGHT)):
        array, shape = values[name + WEIGHT], _shape(checkpoint, name)
        if not np.isfinite(array).all():
            raise CheckpointError(
                "checkpoint", f"'{name}{WEIGHT}' is not finite", "use one of an earlier epoch"
            )
        threshold = values.get(f"{name.rpartition('->')[2]}.threshold")
        n_units = 0 if threshold is None else threshold.size
        n_blocks = shape[1] // n_units if n_units and shape[1] % n_units == 0 else 1
        indices = checkpoint.structure.get(f"{name}.indices")
        found.append(Weights(name, array, shape, indices, n_blocks, threshold is not None))
    if not found:
        raise CheckpointError("checkpoint", "holds no weights", "give the checkpoint.h5 of a run")
    return found


def checkpoint_report(checkpoint: Checkpoint) -> list[Sparsity]:
    """The weights of all projections of a checkpoint, counted."""
    report = []
    for w in weights_in(checkpoint):
        structure = None if w.indices is None else (checkpoint.structure[f"{w.name}.indptr"], w.indices)
        report.append(count_zeros(w.name, w.values, w.shape, structure))
    return report


def _shape(checkpoint: Checkpoint, name: str) -> tuple[int, int]:
    """Rows and columns of a projection's weights, after making sure that there are such."""
    values, where = (checkpoint.best or checkpoint.parameters)[name + WEIGHT], f"projection '{name}'"
    parts = [checkpoint.structure.get(f"{name}.{part}") for part in ("indptr", "indices", "shape")]
    indptr, indices, shape = parts
    if indptr is None or indices is None or shape is None:
        if values.ndim != 2 or not values.size:
            raise CheckpointError(
                where,
                f"has weights of shape {values.shape} and nothing says which they are",
                "go on with that run for an epoch: checkpoints of today say it",
            )
        return values.shape[0], values.shape[1]
    try:
        check_structure(where, indptr, indices, shape)
    except NetworkError as error:
        raise CheckpointError(error.where, error.problem, error.remedy) from None
    if values.shape != indices.shape:
        raise CheckpointError(
            where, f"has {values.shape} weights at {indices.shape} places", "use another copy"
        )
    return int(shape[0]), int(shape[1])


def _kept(w: Weights, mask: NDArray[np.bool_], structure: dict[str, NDArray]) -> tuple[NDArray, NDArray]:
    """indptr and indices of the weights in a mask."""
    if w.indices is None:
        row, column = np.nonzero(mask)
    else:
        row = np.repeat(np.arange(w.shape[0]), np.diff(structure[f"{w.name}.indptr"]))[mask]
        column = w.indices[mask]
    indptr = np.searchsorted(row, np.arange(w.shape[0] + 1))
    return indptr.astype(np.int64), column.astype(np.int32)
