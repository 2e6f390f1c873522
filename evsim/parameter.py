"""One named array of a network that can be trained, with its meaning and its range."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.errors import ParameterError
from evsim.memory import aligned, ends


@dataclass(eq=False)
class Parameter:
    """A trainable array; simulations, gradients and optimisers all work on this one piece of memory.

    Attributes
    ----------
    name : str
        ``"hidden.threshold"``, ``"cue->hidden.weight"``.
    values : ndarray of float32 or float64, C-contiguous
        Never replaced, only written into (a plan holds its address).
    lower, upper : float
        Closed range; optimisers clip into it.
    trainable : bool
        Whether optimisers move it.
    rounded : callable or None
        What becomes of the values that are assigned: in fixed point they are rounded.
    read_only : bool
        Whether ``values`` are never to change, as those of which a narrowed network holds another copy.
    reason : str
        Why the range ends where it does: said when a value is refused.
    """

    name: str
    values: NDArray
    lower: float = -np.inf
    upper: float = np.inf
    trainable: bool = True
    rounded: Callable[[NDArray], NDArray] | None = None
    read_only: bool = False
    reason: str = ""

    def __post_init__(self) -> None:
        self.check(self.values)
        if self.read_only:
            self.values.setflags(write=False)

    def assign(self, values: ArrayLike) -> None:
        """Write ``values`` (broadcast to the shape) into the array, after checking them."""
        if self.read_only:
            raise ParameterError(
                f"parameter '{self.name}'",
                "is read-only, as dense weights of a narrowed network are",
                "change the network it was made from, and narrow that again",
            )
        new = np.asarray(values, dtype=self.values.dtype)
        try:
            new = np.broadcast_to(new, self.values.shape)
        except ValueError:
            raise ParameterError(
                f"parameter '{self.name}'",
                f"values have shape {new.shape}",
                f"give shape {self.values.shape}",
            ) from None
        self.check(new)
        self.values[...] = new if self.rounded is None else self.rounded(new)

    def copy(self, dtype: np.dtype) -> Parameter:
        """The same in an array of its own, of the given float type."""
        return replace(self, values=aligned(self.values, dtype))

    def check(self, values: NDArray) -> None:
        """Raise ParameterError at the first value that is not finite or out of range."""
        if values.size == 0:
            return
        least, most = ends(values)  # NaN if any is NaN
        if not (-np.inf < least >= self.lower and np.inf > most <= self.upper):
            wrong = ~np.isfinite(values) | (values < self.lower) | (values > self.upper)
            where = tuple(int(i[0]) for i in np.nonzero(wrong))
            raise ParameterError(
                f"parameter '{self.name}'",
                f"value {values[where]} at index {where} is outside [{self.lower:g}, {self.upper:g}]"
                + (f" ({self.reason})" if self.reason else ""),
                "give finite values in that range",
            )
