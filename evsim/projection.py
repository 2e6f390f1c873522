"""A projection: weight rows from the units of one population to a port of another, with one delay."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.errors import NetworkError, ParameterError
from evsim.parameter import Parameter
from evsim.population import Population

if TYPE_CHECKING:
    import scipy.sparse

    from evsim.narrow_weights import NarrowRows

#: What weights may be made from: the name of an initialiser, a number, an array, a SciPy sparse array (which
#: is not named here, because SciPy takes longer to import than all else), or a function of (generator,
#: shape).
Weight = str | float | ArrayLike | Callable[[np.random.Generator, tuple[int, ...]], Any] | Any


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
    """Weights from ``source`` to a port of ``target``, one row per source unit.

    Parameters
    ----------
    source, target : Population
    port : str
        One of ``target.ports``.
    delay_steps : int
        Whole steps between an event and its arrival; 0 arrives within the same step.
    weight : str, number, array, sparse array or callable
        Dense weights have shape (source.n_units, n_blocks * target.n_units), the blocks side by side in the
        order of ``target.ports[port]``.  A SciPy sparse array of that shape is stored as CSR.  Names are
        those of `INITIALISERS`, applied to each block.
    density : float
        Fraction of weights kept, at random, when an initialiser is named; below 1 they are stored as CSR.

    Attributes
    ----------
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
        weight: Weight,
        density: float,
        name: str,
    ):
        self.source, self.target, self.port, self.delay_steps, self.name = (
            source,
            target,
            port,
            delay_steps,
            name,
        )
        self.n_blocks = len(target.ports[port])
        self.shape = (source.n_units, self.n_blocks * target.n_units)
        self.indptr: NDArray[np.int64] | None = None
        self.indices: NDArray[np.int32] | None = None
        self._initial, self._density = weight, density
        self.weight: Parameter
        self.narrow: NarrowRows | None = None

    def __repr__(self) -> str:
        form = "dense" if self.indptr is None else f"CSR, {self.n_weights} weights"
        rows, columns = self.shape
        return f"Projection('{self.name}', {rows} x {columns}, {form}, delay {self.delay_steps} steps)"

    @property
    def is_sparse(self) -> bool:
        """Whether the weights are stored as CSR."""
        return self.indptr is not None

    @property
    def n_weights(self) -> int:
        """Stored weights."""
        return self.weight.values.size

    def build(self, dtype: np.dtype, rng: np.random.Generator) -> None:
        """Make the weight arrays; called once, by the network."""
        weight: Any = self._initial
        if self._density != 1 and not isinstance(weight, str):
            raise NetworkError(
                f"projection '{self.name}'",
                f"density is {self._density} with weights that are given",
                "use density with a named initialiser, or give a SciPy sparse array",
            )
        if isinstance(weight, str):
            weight = self._draw(weight, rng)
        elif callable(weight):
            weight = weight(rng, self.shape)
        sparse = hasattr(weight, "tocsr")
        if not sparse:
            weight = np.asarray(weight, dtype=dtype)
            if weight.ndim == 0:
                weight = np.full(self.shape, weight)
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
        self.weight = Parameter(f"{self.name}.weight", np.array(weight, dtype=dtype, order="C"))

    def _draw(self, name: str, rng: np.random.Generator) -> NDArray | scipy.sparse.csr_array:
        if name not in INITIALISERS:
            raise NetworkError(
                f"projection '{self.name}'",
                f"unknown initialiser {name!r}",
                f"use one of {sorted(INITIALISERS)}",
            )
        if not 0 < self._density <= 1:
            raise NetworkError(
                f"projection '{self.name}'", f"density is {self._density}", "give a fraction in (0, 1]"
            )
        drawn = [INITIALISERS[name](rng, self.shape[0], self.target.n_units) for _ in range(self.n_blocks)]
        weight = np.concatenate(drawn, axis=1)
        if self._density == 1:
            return weight
        from scipy.sparse import csr_array

        kept = rng.random(self.shape) < self._density
        return csr_array(np.where(kept, weight / np.sqrt(self._density), 0.0))

    def copy(self, source: Population, target: Population, dtype: np.dtype) -> Projection:
        """The same between two other populations, with arrays of its own."""
        own = copy.copy(self)
        own.source, own.target, own.weight = source, target, self.weight.copy(dtype)
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
        return {
            "source": self.source.name,
            "target": self.target.name,
            "port": self.port,
            "delay_steps": self.delay_steps,
            "shape": list(self.shape),
            "weights": self.n_weights,
            "format": "csr" if self.is_sparse else "dense" if self.narrow is None else self.narrow.kind,
        } | (
            {}
            if self.indptr is None or self.indices is None
            else {"structure": _checksum(self.indptr, self.indices)}
        )
