"""The Yin-Yang data set: points of a disc in three classes that no straight line separates.

References
----------
.. [1] L. Kriener, J. Goeltz & M. A. Petrovici, "The Yin-Yang dataset", NICE 2022 (arXiv 2102.08211).

The disc fills the unit square.  A curve of two half circles halves it; in the middle of each lobe is a dot.
A linear classifier is right for about two thirds of the points ([1]: 64 %).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.errors import DataError

#: Names of the classes 0, 1 and 2.
CLASSES = ("yin", "yang", "dot")
#: Radii of the disc, of a dot, and of the half circles that make the curve.
DISC, DOT, LOBE = 0.5, 0.1, 0.25
#: Centres of the left and the right lobe, which are those of the dots.
LEFT, RIGHT = (0.25, 0.5), (0.75, 0.5)


@dataclass(frozen=True)
class Points:
    """Points of the disc and their classes.

    Attributes
    ----------
    xy : ndarray of float64, shape (n_points, 2)
    label : ndarray of int64, shape (n_points,)
        Index of `CLASSES`.
    """

    xy: NDArray[np.float64]
    label: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.label)

    @property
    def coordinates(self) -> NDArray[np.float64]:
        """(x, y, 1 - x, 1 - y), shape (n_points, 4): what a network is given, all within [0, 1].

        With the mirrored ones, early and late events of inputs say as much about small coordinates as about
        large ones.
        """
        return np.concatenate([self.xy, 1 - self.xy], axis=1)


def classify(xy: ArrayLike) -> NDArray[np.int64]:
    """The class of each point of the plane; outside the disc -1.

    Parameters
    ----------
    xy : array, shape (n_points, 2)

    Returns
    -------
    ndarray of int64, shape (n_points,)
    """
    points = np.asarray(xy, np.float64)
    left, right = (np.linalg.norm(points - centre, axis=1) for centre in (LEFT, RIGHT))
    # The lower half with the right lobe is yin, the upper half with the left lobe is yang.
    yang = (left <= LOBE) | ((points[:, 1] > DISC) & (right > LOBE))
    label = np.where((left <= DOT) | (right <= DOT), 2, yang)
    return np.where(np.linalg.norm(points - DISC, axis=1) <= DISC, label, -1)


def yin_yang(n: int, seed: int = 0) -> Points:
    """Points drawn evenly from each class, as many of one as of another, in random order.

    Parameters
    ----------
    n : int
        Points; if that is no multiple of 3, the first classes get one more.
    seed : int
        Different seeds give independent sets.

    Raises
    ------
    DataError
        Fewer than one point, or a negative seed.
    """
    if n < 1 or seed < 0:
        raise DataError("yin_yang", f"{n} points with seed {seed}", "give 1 or more, and a seed of 0 or more")
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 2102])))
    wanted = [len(range(k, n, len(CLASSES))) for k in range(len(CLASSES))]
    found: list[list[NDArray]] = [[] for _ in CLASSES]
    while any(sum(map(len, parts)) < count for parts, count in zip(found, wanted, strict=True)):
        xy = rng.random((1024, 2))
        label = classify(xy)
        for k, parts in enumerate(found):
            parts.append(xy[label == k])
    kept = [np.concatenate(parts)[:count] for parts, count in zip(found, wanted, strict=True)]
    order = rng.permutation(n)
    return Points(np.concatenate(kept)[order], np.repeat(np.arange(len(CLASSES)), wanted)[order])
