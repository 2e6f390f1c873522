"""Dense weights with many zeros as sparse rows, and what sparse weights look like.

A network whose zeros are not stored sends the same events as the dense one: forwards every sum runs over
events in the same order, and what is left out is 0.  Dot products of the replay are eight partial sums over
the stored weights of a row, so gradients agree to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.errors import NetworkError, ParameterError
from evsim.network import Network
from evsim.projection import Projection

#: Projections with fewer zeros than this share stay dense unless a mask names them.
LEAST = 0.5


@dataclass(frozen=True)
class Sparsity:
    """The weights of one projection, counted.

    Attributes
    ----------
    projection : str
    places : int
        Rows x columns: the weights of a dense projection.
    nonzeros : int
        Those that are not 0.
    dead_rows, dead_columns : float
        Share of rows (units that send) and of columns (inputs of units, one for each block) with no weight
        but 0.
    sparse : bool
        Whether zeros are left out where it is stored.
    """

    projection: str
    places: int
    nonzeros: int
    dead_rows: float
    dead_columns: float
    sparse: bool

    @property
    def sparsity(self) -> float:
        """Share of zeros."""
        return 1 - self.nonzeros / self.places


def count_zeros(
    name: str, values: NDArray, shape: tuple[int, int], structure: tuple[NDArray, NDArray] | None
) -> Sparsity:
    """Count the weights of a projection.

    Parameters
    ----------
    name : str
    values : ndarray, shape (rows, columns) or (nnz,)
    shape : (int, int)
    structure : (indptr, indices), optional
        Of sparse weights.
    """
    if structure is None:
        row, column = np.nonzero(values)
    else:
        filled = values != 0
        row = np.repeat(np.arange(shape[0]), np.diff(structure[0]))[filled]
        column = structure[1][filled]
    dead = [
        1 - np.count_nonzero(np.bincount(i, minlength=n)) / n
        for i, n in zip((row, column), shape, strict=True)
    ]
    return Sparsity(name, shape[0] * shape[1], len(row), *dead, sparse=structure is not None)


def sparsity_report(network: Network) -> list[Sparsity]:
    """The weights of all projections of a network, counted; in the order of addition."""
    return [
        count_zeros(p.name, p.weight.values, p.shape, _structure(p)) for p in network.projections.values()
    ]


def sparsified(
    network: Network, masks: Mapping[str, ArrayLike] | None = None, least: float = LEAST
) -> Network:
    """A copy of a network that does not store its zeros.

    Everything that takes a network takes it: runs, replays (with gradients of the stored weights only) and
    optimisers, for which the places left out stay 0.

    Parameters
    ----------
    network : Network
        It stays as it is.
    masks : mapping of str to array of bool, optional
        By parameter name, in its shape: which weights to store.  Other projections stay as they are.  By
        default all that are not 0, of dense projections with enough zeros.
    least : float
        The share of zeros from which on a dense projection becomes sparse, without ``masks``.

    Returns
    -------
    Network
        With the same names.

    Raises
    ------
    NetworkError
        A network in fixed point or with narrow weights; a mask of no projection, of another shape or type.
    """
    check_plain(network)
    by_name = {p.weight.name: p for p in network.projections.values()}
    chosen: dict[str, NDArray] = {}
    if masks is None:
        for name, p in by_name.items():
            zeros = p.weight.values == 0
            if not p.is_sparse and zeros.mean() >= least:
                chosen[name] = ~zeros
    else:
        chosen = {name: np.asarray(mask) for name, mask in masks.items()}
    for name, mask in chosen.items():
        shape = by_name[name].weight.values.shape if name in by_name else None
        if shape is None:
            raise NetworkError(f"mask of '{name}'", "is of no projection", f"give some of {list(by_name)}")
        if mask.dtype != bool or mask.shape != shape:
            raise NetworkError(
                f"mask of '{name}'", f"has shape {mask.shape} of {mask.dtype}", f"give {shape} of bool"
            )
    twin = network.copy()
    for projection in twin.projections.values():
        if projection.weight.name in chosen:
            _store(projection, chosen[projection.weight.name])
    return twin


def stored_structure(network: Network) -> dict[str, NDArray]:
    """Where the weights of sparse projections are, as arrays by name.

    Returns
    -------
    dict of str to ndarray
        For each sparse projection ``name.indptr`` (int64), ``name.indices`` (int32) and ``name.shape``.
    """
    arrays: dict[str, NDArray] = {}
    for p in network.projections.values():
        if (structure := _structure(p)) is not None:
            arrays |= structure_arrays(p.name, *structure, p.shape)
    return arrays


def structure_arrays(
    name: str, indptr: NDArray, indices: NDArray, shape: tuple[int, int]
) -> dict[str, NDArray]:
    """The entries of one projection in what `stored_structure` returns."""
    return {f"{name}.indptr": indptr, f"{name}.indices": indices, f"{name}.shape": np.array(shape)}


def with_structure(network: Network, structure: Mapping[str, NDArray]) -> Network:
    """A copy of a network that stores the weights in given places only.

    Parameters
    ----------
    network : Network
    structure : mapping of str to ndarray
        As `stored_structure` gives it.

    Raises
    ------
    NetworkError
        Projections that the network does not have, or in other shapes; a sparse projection that stores other
        places; a structure that is damaged.
    """
    names = {name.rpartition(".")[0] for name in structure}
    masks: dict[str, NDArray] = {}
    for name in sorted(names):
        where, p = f"sparse projection '{name}'", network.projections.get(name)
        indptr, indices, shape = (structure.get(f"{name}.{part}") for part in ("indptr", "indices", "shape"))
        if p is None or indptr is None or indices is None or shape is None:
            raise NetworkError(where, "is not whole, or not in the network", "give one of that network")
        check_structure(where, indptr, indices, shape)
        if tuple(shape) != p.shape:
            raise NetworkError(
                where,
                f"has shape {tuple(int(n) for n in shape)}, that of the network {p.shape}",
                "build the network with the settings of the run that wrote it",
            )
        if p.is_sparse:
            if not (np.array_equal(p.indptr, indptr) and np.array_equal(p.indices, indices)):
                raise NetworkError(where, "stores other places than the network's", "build it dense")
            continue
        mask = np.zeros(p.shape, bool)
        mask[np.repeat(np.arange(p.shape[0]), np.diff(indptr)), indices] = True
        masks[p.weight.name] = mask
    return sparsified(network, masks)


def check_structure(where: str, indptr: NDArray, indices: NDArray, shape: NDArray) -> None:
    """Raise NetworkError unless these are rows of increasing columns."""
    sound = (
        shape.shape == (2,)
        and indptr.shape == (shape[0] + 1,)
        and indptr[0] == 0
        and indptr[-1] == len(indices)
        and (np.diff(indptr) >= 0).all()
        and ((indices >= 0) & (indices < shape[1])).all()
    )
    if sound:
        row = np.repeat(np.arange(shape[0]), np.diff(indptr))
        sound = bool((np.diff(row * shape[1] + indices) > 0).all())
    if not sound:
        raise NetworkError(where, "has rows that make no sense: the file is damaged", "use another copy")


def check_plain(network: Network) -> None:
    """Raise NetworkError if the weights of a network are not floating-point numbers that can be changed."""
    form = network.fixed_point if network.narrow is None else f"{network.narrow} weights"
    if form is not None:
        raise NetworkError("network", f"is in {form}", "prune the network it was made from, and convert that")


def _structure(projection: Projection) -> tuple[NDArray, NDArray] | None:
    """indptr and indices of a sparse projection."""
    if projection.indptr is None or projection.indices is None:
        return None
    return projection.indptr, projection.indices


def _store(projection: Projection, mask: NDArray[np.bool_]) -> None:
    """Store the weights in a mask only, and the delays of those pairs of units that still have one."""
    before = projection.pairs() if projection.delay is not None else None
    if projection.indptr is None or projection.indices is None:
        row, column = np.nonzero(mask)
    else:
        row = np.repeat(np.arange(projection.shape[0]), np.diff(projection.indptr))[mask]
        column = projection.indices[mask]
    projection.indptr = np.searchsorted(row, np.arange(projection.shape[0] + 1)).astype(np.int64)
    projection.indices = np.ascontiguousarray(column, dtype=np.int32)
    projection.weight = replace(projection.weight, values=projection.weight.values[mask])
    delay = projection.delay
    if before is not None and delay is not None and delay.values.shape != (1,):
        n_target, after = projection.target.n_units, projection.pairs()
        source = np.arange(projection.source.n_units)
        places = [np.repeat(source, np.diff(p.ptr)) * n_target + p.target for p in (before, after)]
        projection.delay = replace(delay, values=delay.values.ravel()[np.searchsorted(*places)])


def check_share(where: str, share: float, what: str) -> float:
    """A share of weights from 0 to below 1."""
    if isinstance(share, bool) or not isinstance(share, (int, float, np.number)) or not 0 <= share < 1:
        raise ParameterError(where, f"{what} is {share!r}", "give a number from 0 to below 1, such as 0.8")
    return float(share)
