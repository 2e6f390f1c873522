"""Pruning by magnitude: which weights go, when, and how those that went stay away.

Weights are taken away while they are stored densely: a `Pruner` beside an optimiser sets masks by a
schedule, and the optimiser holds what is masked at 0.  `evsim.sparsified` then gives the network whose zeros
are not stored, which is what saves time; `prune` is both at once, without training.

Mukherji et al. (arXiv 2311.07625) prune input and recurrent weights of EGRUs by magnitude.  Schedules are
those of Zhu & Gupta 2017 (arXiv 1710.01878, eq. 1) and of rounds that each take the same share of what is
left (Han et al. 2015; Frankle & Carbin 2019).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from evsim.errors import NetworkError, ParameterError
from evsim.network import Network
from evsim.optimizer import Optimizer
from evsim.sparsity import check_plain, check_share, sparsified

#: Within what weights compete for being kept.
Scope = Literal["projection", "block", "global"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
#: Look-up tables, by custom of name: one row of them is read for each token.  Pruned only when named.
LOOKED_UP = ("tokens->*", "embedding->*")


class Weights(NamedTuple):
    """The weights of one projection, as pruning sees them.

    Attributes
    ----------
    name : str
        Of the projection.
    values : ndarray, shape (rows, columns) or (nnz,)
    shape : (int, int)
    indices : ndarray of int32, shape (nnz,), or None
        Columns of sparse weights.
    n_blocks : int
        Blocks of columns (gates), side by side.
    into_hidden : bool
        Whether the units they lead to send events.
    """

    name: str
    values: NDArray
    shape: tuple[int, int]
    indices: NDArray | None
    n_blocks: int
    into_hidden: bool


def weights_of(network: Network) -> list[Weights]:
    """The weights of all projections of a network."""
    check_plain(network)
    return [
        Weights(p.name, p.weight.values, p.shape, p.indices, p.n_blocks, p.target.emits)
        for p in network.projections.values()
    ]


def choose(weights: Iterable[Weights], projections: str | Sequence[str] | None) -> list[Weights]:
    """Those that are to be pruned, by name.

    Raises
    ------
    NetworkError
        A pattern that fits no name; nothing to prune.
    """
    given = sorted(weights, key=lambda w: w.name)
    names = [w.name for w in given]
    if projections is None:
        chosen = [w for w in given if w.into_hidden and not _fits(w.name, LOOKED_UP)]
        if not chosen:
            raise NetworkError(
                "pruning", "no weights lead to units that send events", f"name projections, of {names}"
            )
        return chosen
    patterns = [projections] if isinstance(projections, str) else list(projections)
    idle = [pattern for pattern in patterns if not any(_fits(name, [pattern]) for name in names)]
    if idle or not patterns:
        raise NetworkError("pruning", f"no projection is called {idle or patterns}", f"there are {names}")
    return [w for w in given if _fits(w.name, patterns)]


def magnitude_mask(
    network: Network,
    sparsity: float,
    projections: str | Sequence[str] | None = None,
    scope: Scope = "projection",
    before: Mapping[str, NDArray[np.bool_]] | None = None,
) -> dict[str, NDArray[np.bool_]]:
    """Which weights to keep so that a share of them is 0, the smallest in magnitude.

    Parameters
    ----------
    network : Network
        It stays as it is.
    sparsity : float
        The share of all places of the chosen matrices that is to be 0, from 0 to below 1; the number of
        zeros is the nearest whole one.  Places that sparse weights do not store are zeros already.
    projections : str or sequence of str, optional
        Names or patterns (``"layer*->layer*"``).  By default all that lead to units that send events, but
        look-up tables (`LOOKED_UP`): recurrent and input weights of hidden units, no readouts.
    scope : {"projection", "block", "global"}
        Where weights are compared and counted: within each projection (all its blocks of columns together,
        so that gates may end up with different shares), within each block of each projection (all gates
        alike), or over all chosen projections together.
    before : mapping of str to array of bool, optional
        Earlier masks by parameter name: what they took stays away, and there are never fewer zeros than that.

    Returns
    -------
    dict of str to ndarray of bool
        By parameter name (``"hidden->hidden.weight"``), in the shape of its values; True where it is kept.
        Of equal magnitudes the first goes first, in the order of names, rows and columns.

    Raises
    ------
    ParameterError
        A share out of its range, another scope.
    NetworkError
        Names that fit nothing; a network in fixed point or with narrow weights.
    """
    return masks_of(choose(weights_of(network), projections), sparsity, scope, before or {})


def masks_of(
    weights: Sequence[Weights], sparsity: float, scope: Scope, before: Mapping[str, NDArray[np.bool_]]
) -> dict[str, NDArray[np.bool_]]:
    """What `magnitude_mask` returns, of weights that were chosen."""
    share = check_share("pruning", sparsity, "sparsity")
    _check_scope(scope)
    masks = {f"{w.name}.weight": np.ones(w.values.shape, bool) for w in weights}
    kept = {name: before.get(name, mask) for name, mask in masks.items()}
    for group in _groups(weights, scope):
        sizes, places = [], 0
        for w, part in group:
            name = f"{w.name}.weight"
            sizes.append(np.where(kept[name], np.abs(w.values), -1.0)[part].ravel())
            places += w.shape[0] * w.shape[1] // (w.n_blocks if scope == "block" else 1)
        size = np.concatenate(sizes)
        gone = int(np.count_nonzero(size < 0))
        n_zeros = max(round(share * places) - (places - size.size), gone)
        keep = _without_smallest(size, n_zeros)
        for (w, part), one in zip(
            group, np.split(keep, np.cumsum([len(s) for s in sizes])[:-1]), strict=True
        ):
            mask = masks[f"{w.name}.weight"]
            mask[part] = one.reshape(mask[part].shape)
    return masks


def _groups(weights: Sequence[Weights], scope: Scope) -> list[list[tuple[Weights, Any]]]:
    """Weights that compete with each other: of each projection the index of its part."""
    if scope == "global":
        return [[(w, np.s_[...]) for w in weights]]
    if scope == "projection":
        return [[(w, np.s_[...])] for w in weights]
    groups: list[list[tuple[Weights, Any]]] = []
    for w in weights:
        width = w.shape[1] // w.n_blocks
        for block in range(w.n_blocks):
            columns = slice(block * width, (block + 1) * width)
            part = np.s_[:, columns] if w.indices is None else w.indices // width == block
            groups.append([(w, part)])
    return groups


def _without_smallest(size: NDArray, n: int) -> NDArray[np.bool_]:
    """True but for the ``n`` smallest; of equal ones the first are taken."""
    keep = np.ones(size.shape, bool)
    if n <= 0:
        return keep
    edge = np.partition(size, n - 1)[n - 1]
    keep[size < edge] = False
    ties = np.flatnonzero(size == edge)
    keep[ties[: n - np.count_nonzero(~keep)]] = False
    return keep


def prune(
    network: Network,
    sparsity: float,
    projections: str | Sequence[str] | None = None,
    scope: Scope = "projection",
) -> Network:
    """A copy of a network with a share of its weights taken away, which stores the others only.

    The same as ``sparsified(network, magnitude_mask(network, ...))``; see there.
    """
    return sparsified(network, magnitude_mask(network, sparsity, projections, scope))


# -- when -------------------------------------------------------------------------------------------------


class Schedule(ABC):
    """The share of zeros by optimiser steps, from one step to another."""

    begin: int
    every: int

    @property
    @abstractmethod
    def last(self) -> int:
        """The step after which nothing more is taken."""

    @abstractmethod
    def __call__(self, step: int) -> float:
        """The share of zeros that is asked for after ``step`` steps."""

    def due(self, step: int) -> bool:
        """Whether weights are taken after just so many steps."""
        regular = self.begin <= step < self.last and (step - self.begin) % self.every == 0
        return regular or step == self.last

    def _check(self, **counts: int) -> None:
        for name, lowest in counts.items():
            n = getattr(self, name)
            if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < lowest:
                raise ParameterError("schedule", f"{name} is {n!r}", f"give an integer of {lowest} or more")


@dataclass(frozen=True)
class CubicSchedule(Schedule):
    """Gradual pruning (Zhu & Gupta 2017, eq. 1): fast at first, while there is much to spare::

        s(t) = final + (initial - final) (1 - (t - begin) / (end - begin))^3

    Parameters
    ----------
    begin, end : int
        Optimiser steps, counted from 1: the first and the last at which weights are taken.
    final : float
        The share of zeros from ``end`` on.
    initial : float
        That at ``begin``.
    every : int
        Steps from one time to the next; ``end`` is one too.
    """

    begin: int
    end: int
    final: float
    initial: float = 0.0
    every: int = 100

    def __post_init__(self) -> None:
        self._check(begin=1, end=self.begin, every=1)
        check_share("schedule", self.final, "final")
        check_share("schedule", self.initial, "initial")
        if self.initial > self.final:
            raise ParameterError(
                "schedule", f"initial is {self.initial}, final {self.final}", "let it grow: initial <= final"
            )

    @property
    def last(self) -> int:
        """The step after which nothing more is taken: ``end``."""
        return self.end

    def __call__(self, step: int) -> float:
        """The share of zeros that is asked for after ``step`` steps."""
        if step < self.begin:
            return 0.0
        if step >= self.end:
            return self.final
        left = 1 - (step - self.begin) / (self.end - self.begin)
        return self.final + (self.initial - self.final) * left**3


@dataclass(frozen=True)
class RoundSchedule(Schedule):
    """Prune and fine-tune in rounds: each takes the same share of what is left::

        1 - s = (1 - final)^(k / rounds)   after k rounds

    Parameters
    ----------
    begin : int
        The optimiser step of the first round, counted from 1.
    every : int
        Steps of a round: so long is the network trained before the next.
    rounds : int
    final : float
        The share of zeros after the last round.
    """

    begin: int
    every: int
    rounds: int
    final: float

    def __post_init__(self) -> None:
        self._check(begin=1, every=1, rounds=1)
        check_share("schedule", self.final, "final")

    @property
    def last(self) -> int:
        """The step of the last round."""
        return self.begin + (self.rounds - 1) * self.every

    def __call__(self, step: int) -> float:
        """The share of zeros that is asked for after ``step`` steps."""
        if step >= self.last:
            return self.final
        done = 0 if step < self.begin else 1 + (step - self.begin) // self.every
        return 1 - (1 - self.final) ** (done / self.rounds)


class Pruner:
    """Takes weights away while a network is trained.

    It has no memory of its own: how far it is follows from the optimiser's number of steps, and what is gone
    from its masks, both of which are in checkpoints.  So a resumed run goes on with the same bits.

    ::

        adam = evsim.Adam(net.parameters(), lr=1e-3)
        evsim.Pruner(net, evsim.CubicSchedule(begin=100, end=2000, final=0.8)).attach(adam)
        ...  # any loop that calls adam.step, or fit(Trainer(net, "answer", adam), ...)
        small = evsim.sparsified(net)  # the zeros not stored; an Adam of its own goes on training it

    Parameters
    ----------
    network : Network
    schedule : Schedule
        `CubicSchedule` or `RoundSchedule`.
    projections, scope
        See `magnitude_mask`.

    Raises
    ------
    NetworkError
        Names that fit nothing; a network in fixed point or with narrow weights.
    ParameterError
        Another scope.
    """

    def __init__(
        self,
        network: Network,
        schedule: Schedule,
        projections: str | Sequence[str] | None = None,
        scope: Scope = "projection",
    ):
        self.network, self.schedule, self.scope = network, schedule, scope
        self.projections = [w.name for w in choose(weights_of(network), projections)]
        _check_scope(scope)

    def __repr__(self) -> str:
        return f"Pruner({self.schedule}, {self.projections}, {self.scope!r})"

    def attach(self, optimizer: Optimizer) -> Pruner:
        """Have the optimiser call this after each of its steps; returns this.

        Raises
        ------
        ParameterError
            It has another pruner, does not train these weights, or is past the end of the schedule.
        """
        if optimizer.pruning is not None:
            raise ParameterError("pruner", "the optimiser has one already", "make another optimiser")
        for name in self.projections:
            weight = self.network.projections[name].weight
            if optimizer.parameters.get(weight.name) is not weight:
                raise ParameterError(
                    "pruner",
                    f"'{weight.name}' is not trained by that optimiser",
                    "make it of the same network's parameters(), or name other projections",
                )
        if optimizer.n_steps >= self.schedule.last:
            raise ParameterError(
                "pruner",
                f"the schedule ends at step {self.schedule.last}, the optimiser is at {optimizer.n_steps}",
                "let it end later",
            )
        optimizer.pruning = self
        return self

    def update(self, optimizer: Optimizer) -> None:
        """Take away what is due after the optimiser's last step."""
        step = optimizer.n_steps
        if self.schedule.due(step):
            share = self.schedule(step)
            optimizer.keep(magnitude_mask(self.network, share, self.projections, self.scope, optimizer.masks))

    def finished(self, n_steps: int) -> bool:
        """Whether nothing more is taken away after so many steps."""
        return n_steps >= self.schedule.last


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _check_scope(scope: object) -> None:
    if scope not in SCOPES:
        raise ParameterError("pruning", f"unknown scope {scope!r}", f"use one of {SCOPES}")
