"""A projection: weight rows from the units of one population to a port of another, with one delay."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.errors import NetworkError, ParameterError
from evsim.memory import aligned
from evsim.parameter import Parameter
from evsim.population import Population, Rng

if TYPE_CHECKING:
    import scipy.sparse

    from evsim.narrow_weights import NarrowRows

#: What weights may be made from: the name of an initialiser, a number, an array, a SciPy sparse array (which
#: is not named here, because SciPy takes longer to import than all else), or a function of (generator,
#: shape).
Weight = str | float | ArrayLike | Callable[["np.random.Generator", tuple[int, ...]], Any] | Any
#: What delays in continuous time may be made from, in ms; see `Projection.make_delay`.
Delay = float | ArrayLike | Callable[["np.random.Generator", tuple[int, ...]], ArrayLike] | Any


class Pairs(NamedTuple):
    """The pairs of units that a projection connects, by source unit, then target unit.

    Attributes
    ----------
    ptr : ndarray of int64, shape (n_source + 1,)
        The pairs of source unit i are those from ptr[i] up to ptr[i + 1].
    target : ndarray of int32, shape (n_pairs,)
        Their target units, increasing for each source unit.
    where : ndarray of int64, shape (n_pairs, n_blocks)
        The place of the weight of each block in ``weight.values.ravel()``; -1 where there is none.
    """

    ptr: NDArray[np.int64]
    target: NDArray[np.int32]
    where: NDArray[np.int64]


def glorot(rng: np.random.Generator, n_rows: int, n_columns: int) -> NDArray:
    """Normal with variance 2 / (rows + columns) (Glorot & Bengio 2010, eq. 16)."""
    return rng.normal(0.0, np.sqrt(2.0 / (n_rows + n_columns)), (n_rows, n_columns))


def orthogonal(rng: np.random.Generator, n_rows: int, n_columns: int) -> NDArray:
    """Orthonormal rows or columns, whichever are fewer (Saxe, McClelland & Ganguli 2014)."""
    tall = rng.normal(size=(max(n_rows, n_columns), min(n_rows, n_columns)))
    q, r = np.linalg.qr(tall)
    q = q * np.sign(np.diag(r))
    return q if n_rows >= n_columns else q.T


def zeros(rng: np.random.Generator, n_rows: int, n_columns: int) -> NDArray:
    """All zero."""
    return np.zeros((n_rows, n_columns))


#: Initialisers by name; each block of a port (one gate) is drawn by itself.
INITIALISERS = {"glorot": glorot, "orthogonal": orthogonal, "zeros": zeros}


def _checksum(*arrays: NDArray) -> int:
    """CRC-32 over the bytes of some arrays."""
    total = 0
    for array in arrays:
        total = zlib.crc32(array.tobytes(), total)
    return total


class Projection:
    """Weights from ``source`` to a port of ``target``, one row per source unit, and delays.

    Parameters
    ----------
    source, target : Population
    port : str
        One of ``target.ports``.
    delay_steps : int
        Whole steps between an event and its arrival; 0 arrives within the same step.  0 in continuous time.

    Attributes
    ----------
    delay : Parameter or None
        Shape (1,), one for all; or one for each pair: (source.n_units, target.n_units), of sparse weights
        (n_pairs,) in the order of `pairs`.  None in steps.
    weight : Parameter
        Dense: shape (rows, columns).  CSR: the stored values, in row order, shape (nnz,).
    indptr, indices : ndarray of int64 and int32, or None
        The CSR structure; None when dense.
    narrow : NarrowRows or None
        What the core reads instead of ``weight`` in a network that `evsim.narrow` made; never changes, so
        copies share it.
    """

    def __init__(
        self,
        source: Population,
        target: Population,
        *,
        port: str,
        delay_steps: int,
        name: str,
    ):
        self.source, self.target, self.port = source, target, port
        self.delay_steps, self.name = delay_steps, name
        self.n_blocks = len(target.ports[port])
        self.shape = (source.n_units, self.n_blocks * target.n_units)
        self.indptr: NDArray[np.int64] | None = None
        self.indices: NDArray[np.int32] | None = None
        self.weight: Parameter
        self.delay: Parameter | None = None
        self.narrow: NarrowRows | None = None

    def __repr__(self) -> str:
        form = "dense" if self.indptr is None else f"CSR, {self.n_weights} weights"
        rows, columns = self.shape
        return f"Projection('{self.name}', {rows} x {columns}, {form}, {self._delay_text()})"

    def _delay_text(self) -> str:
        if self.delay is None:
            return f"delay {self.delay_steps} steps"
        ends = np.unique([self.delay.values.min(initial=np.inf), self.delay.values.max(initial=0.0)])
        return "delay " + " to ".join(f"{end:g}" for end in ends) + " ms"

    @property
    def is_sparse(self) -> bool:
        """Whether the weights are stored as CSR."""
        return self.indptr is not None

    @property
    def n_weights(self) -> int:
        """Stored weights."""
        return self.weight.values.size

    def pairs(self) -> Pairs:
        """The pairs of units that have a weight in some block, and where their weights are."""
        n_source, n_target, n_blocks = self.source.n_units, self.target.n_units, self.n_blocks
        place = np.arange(self.n_weights)
        if self.indptr is None or self.indices is None:
            ptr, target = np.arange(n_source + 1) * n_target, np.arange(n_target, dtype=np.int32)
            by_row = place.reshape(n_source, n_blocks, n_target).swapaxes(1, 2)
            return Pairs(ptr, np.tile(target, n_source), by_row.reshape(-1, n_blocks))
        if n_blocks == 1:
            return Pairs(self.indptr, self.indices, place[:, None])
        row = np.repeat(np.arange(n_source), np.diff(self.indptr))
        block, column = np.divmod(self.indices, n_target)
        pair, index = np.unique(row * n_target + column, return_inverse=True)
        where = np.full((len(pair), n_blocks), -1)
        where[index, block] = place
        ptr = np.searchsorted(pair, np.arange(n_source + 1) * n_target)
        return Pairs(ptr, (pair % n_target).astype(np.int32), where)

    def make_weight(self, weight: Any, density: float, copy: bool, dtype: np.dtype, rng: Rng) -> None:
        """Make the array of weights; called once, by the network.

        Parameters
        ----------
        weight : Weight
            Dense weights have shape (source.n_units, n_blocks * target.n_units), the blocks side by side in
            the order of ``target.ports[port]``.  A SciPy sparse array of that shape is stored as CSR.  Names
            are those of `INITIALISERS`, applied to each block.
        density : float
            Fraction of weights kept, at random, when an initialiser is named; below 1 they are stored as CSR.
        copy : bool
            False: take the given array itself.
        dtype : dtype
        rng : Rng
        """
        if density != 1 and not isinstance(weight, str):
            raise NetworkError(
                f"projection '{self.name}'",
                f"density is {density} with weights that are given",
                "use density with a named initialiser, or give a SciPy sparse array",
            )
        if not copy:
            self._check_usable(weight, dtype)
        if isinstance(weight, str):
            weight = self._draw(weight, density, rng())
        elif callable(weight):
            weight = weight(rng(), self.shape)
        sparse = hasattr(weight, "tocsr")
        if not sparse:
            weight = np.asarray(weight, dtype=dtype)
            if weight.ndim == 0:
                weight = np.broadcast_to(weight, self.shape)
        if weight.shape != self.shape:
            blocks = ", ".join(self.target.ports[self.port])
            raise ParameterError(
                f"projection '{self.name}'",
                f"weights have shape {weight.shape}",
                f"give {self.shape}: a row per unit of '{self.source.name}', "
                f"the blocks ({blocks}) side by side",
            )
        if sparse:
            csr = weight.tocsr().astype(dtype)
            csr.sum_duplicates()
            csr.sort_indices()
            self.indptr = np.ascontiguousarray(csr.indptr, dtype=np.int64)
            self.indices = np.ascontiguousarray(csr.indices, dtype=np.int32)
            weight = csr.data
        self.weight = Parameter(f"{self.name}.weight", aligned(weight, dtype) if copy else weight)

    def _check_usable(self, weight: Any, dtype: np.dtype) -> None:
        """Raise NetworkError if ``weight`` cannot become the weights without a copy."""
        reason = ""
        if not isinstance(weight, np.ndarray) or weight.ndim == 0:
            reason = f"of type {type(weight).__name__}"
        elif weight.dtype != dtype:
            reason = f"in {weight.dtype}"
        elif not weight.flags.carray:
            reason = "not C-contiguous, aligned and writeable"
        if reason:
            raise NetworkError(
                f"projection '{self.name}'",
                f"the weights are {reason}, and copy is False",
                f"give a C-contiguous, writeable array in {dtype}, or leave out copy",
            )

    def make_delay(self, delay: Any, trainable: bool, dtype: np.dtype, rng: Rng) -> None:
        """Make the array of delays in continuous time; called once, by the network, after the weights.

        Parameters
        ----------
        delay : Delay
            ms between an event and its arrival, 0 or more.  One number, or one for each pair of units,
            whatever the number of blocks: shape (source.n_units, target.n_units), which may be a SciPy sparse
            array of just the pairs that sparse weights connect, or an array of shape (n_pairs,) in their
            order (`pairs`); or a callable (generator, shape) -> array.
        trainable : bool
            Whether optimisers move it.
        dtype : dtype
        rng : Rng
        """
        values = np.array(self._delays(delay, dtype, rng), dtype=dtype, order="C")
        options: dict[str, Any] = {"lower": 0.0, "reason": "a delay in ms"}
        self.delay = Parameter(f"{self.name}.delay", values, trainable=bool(trainable), **options)

    def _delays(self, delay: Any, dtype: np.dtype, rng: Rng) -> NDArray:
        """The delays that were given, in the shape of ``delay``."""
        if isinstance(delay, (int, float, np.number)):  # then no need of pairs
            return np.array([delay], dtype=dtype)
        where, matrix = f"projection '{self.name}'", (self.source.n_units, self.target.n_units)
        pairs = self.pairs() if self.is_sparse else None
        shape = matrix if pairs is None else pairs.target.shape
        if callable(delay):
            delay = delay(rng(), shape)
        if hasattr(delay, "tocsr"):
            csr = delay.tocsr().astype(dtype)
            csr.sum_duplicates()
            csr.sort_indices()
            if pairs is None:
                raise NetworkError(where, "delays are sparse and weights are not", "give delay.toarray()")
            same = np.array_equal(csr.indptr, pairs.ptr) and np.array_equal(csr.indices, pairs.target)
            if csr.shape == matrix and not same:
                raise NetworkError(
                    where,
                    f"delays are stored for {csr.nnz} pairs of units, but not for just those "
                    f"{len(pairs.target)} that have weights",
                    "give one for each pair that Projection.pairs() lists, also where it is 0",
                )
            delay = csr.data if csr.shape == matrix else csr
        else:
            try:
                delay = np.asarray(delay, dtype=dtype)
            except (TypeError, ValueError):
                raise NetworkError(where, f"delay is {delay!r}", "give ms: a number or an array") from None
        if delay.shape in ((), (1,)):
            return delay.reshape(1)
        if delay.shape == shape:
            return delay
        if delay.shape == matrix and pairs is not None:
            return delay[np.repeat(np.arange(matrix[0]), np.diff(pairs.ptr)), pairs.target]
        raise ParameterError(
            where, f"delays have shape {delay.shape}", f"give a number, or one per pair of units: {matrix}"
        )

    def _draw(self, name: str, density: float, rng: np.random.Generator) -> NDArray | scipy.sparse.csr_array:
        if name not in INITIALISERS:
            raise NetworkError(
                f"projection '{self.name}'",
                f"unknown initialiser {name!r}",
                f"use one of {sorted(INITIALISERS)}",
            )
        if not 0 < density <= 1:
            raise NetworkError(
                f"projection '{self.name}'", f"density is {density}", "give a fraction in (0, 1]"
            )
        drawn = [INITIALISERS[name](rng, self.shape[0], self.target.n_units) for _ in range(self.n_blocks)]
        weight = np.concatenate(drawn, axis=1)
        if density == 1:
            return weight
        from scipy.sparse import csr_array

        kept = rng.random(self.shape) < density
        return csr_array(np.where(kept, weight / np.sqrt(density), 0.0))

    def copy(self, source: Population, target: Population, dtype: np.dtype) -> Projection:
        """The same between two other populations, with arrays of its own."""
        own = copy.copy(self)
        own.source, own.target, own.weight = source, target, self.weight.copy(dtype)
        own.delay = None if self.delay is None else self.delay.copy(dtype)
        if self.indptr is not None and self.indices is not None:
            own.indptr, own.indices = self.indptr.copy(), self.indices.copy()
        return own

    def to_dense(self) -> NDArray:
        """The weights as an array of shape (rows, columns)."""
        if self.indptr is None:
            return self.weight.values.copy()
        return self.to_scipy().toarray()

    def to_scipy(self) -> scipy.sparse.csr_array:
        """The weights as a SciPy CSR array (a copy)."""
        from scipy.sparse import csr_array

        if self.indptr is None:
            return csr_array(self.weight.values)
        return csr_array((self.weight.values.copy(), self.indices, self.indptr), shape=self.shape)

    def describe(self) -> dict:
        """Everything but the values, as JSON can hold it."""
        timing: dict[str, Any] = {"delay_steps": self.delay_steps}
        if self.delay is not None:
            timing = {"delays": list(self.delay.values.shape)}
        return {
            "source": self.source.name,
            "target": self.target.name,
            "port": self.port,
            **timing,
            "shape": list(self.shape),
            "weights": self.n_weights,
            "format": "csr" if self.is_sparse else "dense" if self.narrow is None else self.narrow.kind,
        } | (
            {}
            if self.indptr is None or self.indices is None
            else {"structure": _checksum(self.indptr, self.indices)}
        )
