"""Edits: single events of a run changed, or taken out, on their way from the sender to its targets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from evsim.errors import StimulusError
from evsim.events import Events


@dataclass(frozen=True, eq=False)
class Edits:
    """What targets receive instead of some events: ``factor * payload + shift``; by default nothing.

    All targets receive the same.  The sender is left as it is: it has sent the event, and its reset follows.
    An event that becomes 0 does not arrive.  Where the unit sends nothing at that step, nothing happens.

    Attributes
    ----------
    step, lane, unit : ndarray of int64, shape (n_edits,)
        Which events; steps count from the start of the window, as in `Events`.
    factor, shift : ndarray of float64, shape (n_edits,)
        One number stands for all.

    Raises
    ------
    StimulusError
        Columns of different lengths, or numbers that are not integers, or not finite.
    """

    step: NDArray[np.int64]
    lane: NDArray[np.int64]
    unit: NDArray[np.int64]
    factor: NDArray[np.float64] = 0.0  # type: ignore[assignment]
    shift: NDArray[np.float64] = 0.0  # type: ignore[assignment]

    def __post_init__(self) -> None:
        size = np.size(self.step)
        for name in ("step", "lane", "unit"):
            column = np.asarray(getattr(self, name)).ravel()
            if column.size != size or (size and column.dtype.kind not in "iu"):
                raise StimulusError(
                    "edits",
                    f"{column.size} {name}s of dtype {column.dtype} for {size} steps",
                    "give one integer for each edit",
                )
            object.__setattr__(self, name, column.astype(np.int64))
        for name in ("factor", "shift"):
            try:
                column = np.broadcast_to(np.asarray(getattr(self, name), np.float64), (size,))
            except (TypeError, ValueError):
                raise StimulusError(
                    "edits", f"their {name} is {getattr(self, name)!r}", f"give a number, or {size} of them"
                ) from None
            if not np.isfinite(column).all():
                row = int(np.flatnonzero(~np.isfinite(column))[0])
                raise StimulusError("edits", f"{name} {row} is {column[row]}", "give finite numbers")
            object.__setattr__(self, name, column)

    @classmethod
    def at(cls, events: Events, rows: ArrayLike, factor: ArrayLike = 0.0, shift: ArrayLike = 0.0) -> Edits:
        """Edits of some events of a log, by their row numbers or as a mask of all of them."""
        chosen = np.asarray(rows)
        if chosen.size == 0 and chosen.dtype != np.bool_:
            chosen = chosen.astype(np.int64)
        bucket = events.bucket[chosen]
        return cls(bucket // events.n_lanes, bucket % events.n_lanes, events.unit[chosen], factor, shift)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.step)

    def table(
        self, n_units: int, n_lanes: int, n_steps: int, dtype: DTypeLike, where: str
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray, NDArray]:
        """In the form of `Events`: bucket pointer, unit, factor, shift.

        Raises
        ------
        StimulusError
            Edits outside of the window, or two of one event.
        """
        for name, limit in (("step", n_steps), ("lane", n_lanes), ("unit", n_units)):
            column = getattr(self, name)
            wrong = np.flatnonzero((column < 0) | (column >= limit))
            if wrong.size:
                raise StimulusError(
                    where, f"edit {wrong[0]} has {name} {column[wrong[0]]}", f"{name}s lie in 0..{limit - 1}"
                )
        bucket = self.step * n_lanes + self.lane
        order = np.lexsort((self.unit, bucket))
        bucket, unit = bucket[order], self.unit[order]
        twice = np.flatnonzero((np.diff(bucket) == 0) & (np.diff(unit) == 0))
        if twice.size:
            step, lane = divmod(int(bucket[twice[0]]), n_lanes)
            raise StimulusError(
                where, f"two edits of unit {unit[twice[0]]} in step {step}, lane {lane}", "give one of them"
            )
        ptr = np.zeros(n_steps * n_lanes + 1, np.int64)
        np.cumsum(np.bincount(bucket, minlength=n_steps * n_lanes), out=ptr[1:])
        return ptr, unit.astype(np.int32), self.factor[order].astype(dtype), self.shift[order].astype(dtype)

    def apply(self, events: Events, where: str = "events") -> tuple[Events, int]:
        """Events as they arrive, and how many of them were edited.

        Raises
        ------
        StimulusError
            As `table`.
        """
        shape = events.n_units, events.n_lanes, events.n_steps
        ptr, unit, factor, shift = self.table(*shape, events.value.dtype, where)
        edited = Events(*shape, ptr, unit, factor)
        key = events.bucket * events.n_units + events.unit
        wanted = edited.bucket * events.n_units + unit
        place = np.searchsorted(key, wanted)
        there = key[np.minimum(place, len(key) - 1)] == wanted if len(key) else np.zeros(len(wanted), bool)
        value, rows = events.value.copy(), place[there]
        value[rows] = factor[there] * value[rows] + shift[there]
        keep = value != 0
        ptr = np.concatenate([[0], np.cumsum(keep)])[events.ptr]
        return Events(*shape, ptr, events.unit[keep], value[keep]), len(rows)
