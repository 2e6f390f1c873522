"""The states of a population by name, in the array in which the core holds them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from numpy.typing import NDArray


class States(Mapping[str, NDArray]):
    """States of all units of a population at one moment.

    Parameters
    ----------
    array : ndarray of float, shape (n_lanes, k n_units)
        One state behind the other in each lane; not copied.
    names : tuple of str
        Their k names, in that order.
    """

    __slots__ = ("array", "names")

    def __init__(self, array: NDArray, names: tuple[str, ...]):
        self.array, self.names = array, names

    def __getitem__(self, name: str) -> NDArray:
        """A state, shape (n_lanes, n_units); part of the array."""
        if name not in self.names:
            raise KeyError(name)
        n_units, place = self.array.shape[1] // len(self.names), self.names.index(name)
        return self.array[:, place * n_units : (place + 1) * n_units]

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"States({', '.join(self.names)}; {len(self.array)} lanes)"
