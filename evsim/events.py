"""Events of one population: who sent what, when, in which lane."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from evsim.core.dense import first_beyond, from_events, from_tokens, joined, to_events
from evsim.errors import StimulusError


@dataclass(eq=False, slots=True)
class Events:
    """Events of one population over a window of steps, sorted by (step, lane, unit).  Not to be changed.

    An event list is stored bucket by bucket: bucket ``step * n_lanes + lane`` holds the events that one
    lane sent in one step, in order of unit.  A zero is no event: every value is non-zero and finite, and a
    unit sends at most one event per step.

    Attributes
    ----------
    n_units, n_lanes, n_steps : int
    ptr : ndarray of int64, shape (n_steps * n_lanes + 1,)
        Events of bucket k are rows ``ptr[k]:ptr[k + 1]``.
    unit : ndarray of int32, shape (n_events,)
    value : ndarray of float32 or float64, shape (n_events,)
        The payload; dimensionless.
    """

    n_units: int
    n_lanes: int
    n_steps: int
    ptr: NDArray[np.int64]
    unit: NDArray[np.int32]
    value: NDArray

    def __len__(self) -> int:
        return len(self.unit)

    def __repr__(self) -> str:
        return f"Events({len(self)} of {self.n_units} units x {self.n_lanes} lanes x {self.n_steps} steps)"

    # -- construction ------------------------------------------------------------------------------------

    @classmethod
    def empty(cls, n_units: int, n_lanes: int, n_steps: int, dtype: DTypeLike = np.float32) -> Events:
        """No events at all."""
        ptr = np.zeros(n_steps * n_lanes + 1, np.int64)
        return cls(n_units, n_lanes, n_steps, ptr, np.zeros(0, np.int32), np.zeros(0, dtype))

    @classmethod
    def from_dense(cls, array: ArrayLike, dtype: DTypeLike = np.float32, where: str = "events") -> Events:
        """Every non-zero entry of ``array``, shape (n_steps, n_lanes, n_units), is one event."""
        dense = np.asarray(array)
        if dense.ndim != 3:
            raise StimulusError(where, f"dense input has shape {dense.shape}", "give (steps, lanes, units)")
        dense = as_floats(dense, dtype)
        n_steps, n_lanes, n_units = dense.shape
        found = to_events(dense)
        if found is None:
            wrong = first_beyond(dense)
            step, lane, unit = (int(i) for i in np.unravel_index(wrong, dense.shape))
            raise StimulusError(
                where,
                f"value {dense[step, lane, unit]} at step {step}, lane {lane}, unit {unit}",
                "give finite values",
            )
        return cls(n_units, n_lanes, n_steps, *found)

    @classmethod
    def from_tokens(
        cls, tokens: ArrayLike, n_units: int, dtype: DTypeLike = np.float32, where: str = "events"
    ) -> Events:
        """One event of value 1 per step and lane, from unit ``tokens[step, lane]``; -1 means no event.

        Parameters
        ----------
        tokens : array of integers, shape (n_steps, n_lanes)
        """
        ids = np.asarray(tokens)
        if ids.ndim != 2 or ids.dtype.kind not in "iu":
            raise StimulusError(
                where,
                f"token ids have shape {ids.shape} and dtype {ids.dtype}",
                "give integers (steps, lanes)",
            )
        # An unsigned integer may be larger than an int64 can be.
        signed = ids.astype(np.int64, order="C", copy=False)
        found = from_tokens(signed, n_units, dtype)
        if found is None or (ids.dtype == np.uint64 and (signed < 0).any()):
            wrong = (ids < -1) | (ids >= n_units)
            step, lane = (int(i[0]) for i in np.nonzero(wrong))
            raise StimulusError(
                where,
                f"token id {ids[step, lane]} at step {step}, lane {lane} is outside 0..{n_units - 1}",
                f"give ids below {n_units}, or -1 for no event",
            )
        return cls(n_units, ids.shape[1], ids.shape[0], *found)

    @classmethod
    def from_list(
        cls,
        step: ArrayLike,
        lane: ArrayLike,
        unit: ArrayLike,
        value: ArrayLike,
        *,
        n_units: int,
        n_lanes: int,
        n_steps: int,
        dtype: DTypeLike = np.float32,
        where: str = "events",
    ) -> Events:
        """Events given one by one, in any order.

        Parameters
        ----------
        step, lane, unit : array of integers, shape (n_events,)
        value : array, shape (n_events,)
            Zeros are dropped.

        Raises
        ------
        StimulusError
            Indices out of range, values that are not finite, or two events of one unit in one step.
        """
        columns = {"step": step, "lane": lane, "unit": unit}
        index = {name: np.asarray(column).ravel() for name, column in columns.items()}
        try:
            with np.errstate(over="ignore"):
                payload = np.asarray(value, dtype=dtype).ravel()
        except (TypeError, ValueError):
            raise StimulusError(where, "values are not numbers", "give floats") from None
        for (name, column), limit in zip(index.items(), (n_steps, n_lanes, n_units), strict=True):
            if column.size != payload.size:
                raise StimulusError(
                    where, f"{column.size} {name}s for {payload.size} values", "give equal lengths"
                )
            if column.size == 0:  # an empty list has no dtype worth speaking of
                index[name] = column = column.astype(np.int64)
            if column.dtype.kind not in "iu":
                raise StimulusError(where, f"{name}s are of dtype {column.dtype}", "give integers")
            wrong = np.nonzero((column < 0) | (column >= limit))[0]
            if wrong.size:
                raise StimulusError(
                    where, f"event {wrong[0]} has {name} {column[wrong[0]]}", f"{name}s lie in 0..{limit - 1}"
                )
        if not np.isfinite(payload).all():
            row = int(np.nonzero(~np.isfinite(payload))[0][0])
            raise StimulusError(where, f"event {row} has value {payload[row]}", "give finite values")
        keep = payload != 0
        bucket = index["step"][keep].astype(np.int64) * n_lanes + index["lane"][keep].astype(np.int64)
        units, payload = index["unit"][keep].astype(np.int32), payload[keep]
        order = np.lexsort((units, bucket))
        bucket, units, payload = bucket[order], units[order], payload[order]
        twice = np.nonzero((np.diff(bucket) == 0) & (np.diff(units) == 0))[0]
        if twice.size:
            step_, lane_ = divmod(int(bucket[twice[0]]), n_lanes)
            raise StimulusError(
                where,
                f"two events of unit {units[twice[0]]} in step {step_}, lane {lane_}",
                "sum or drop one",
            )
        ptr = np.zeros(n_steps * n_lanes + 1, np.int64)
        np.cumsum(np.bincount(bucket, minlength=n_steps * n_lanes), out=ptr[1:])
        return cls(n_units, n_lanes, n_steps, ptr, units, payload)

    def check(self, where: str = "events") -> None:
        """Raise StimulusError unless all is as the head of this class says.

        `from_dense` and its kin guarantee it.
        """
        n, ptr = len(self.unit), self.ptr
        if (
            (self.ptr.dtype, self.unit.dtype) != (np.int64, np.int32)
            or ptr.shape != (self.n_steps * self.n_lanes + 1,)
            or (ptr[0], ptr[-1], len(self.value)) != (0, n, n)
            or (np.diff(ptr) < 0).any()
        ):
            raise StimulusError(
                where, f"{self!r} has pointers or types that do not fit", "make events with Events.from_list"
            )
        wrong = (self.unit < 0) | (self.unit >= self.n_units) | ~np.isfinite(self.value) | (self.value == 0)
        if wrong.any():
            row = int(np.nonzero(wrong)[0][0])
            raise StimulusError(
                where,
                f"event {row} is of unit {self.unit[row]} with value {self.value[row]}",
                f"units lie in 0..{self.n_units - 1}, values are finite and not zero",
            )
        disorder = np.diff(self.unit) <= 0
        first = ptr[(ptr > 0) & (ptr < n)]  # an event that begins a bucket may be of any unit
        disorder[first - 1] = False
        if disorder.any():
            row = int(np.nonzero(disorder)[0][0])
            raise StimulusError(
                where,
                f"event {row + 1} of unit {self.unit[row + 1]} comes after one of unit {self.unit[row]}",
                "units increase within a step and lane; Events.from_list sorts",
            )

    # -- columns and views -------------------------------------------------------------------------------

    @property
    def bucket(self) -> NDArray[np.int64]:
        """``step * n_lanes + lane`` of every event, shape (n_events,)."""
        return np.repeat(np.arange(self.n_steps * self.n_lanes), np.diff(self.ptr))

    @property
    def step(self) -> NDArray[np.int64]:
        """Step of every event within the window, shape (n_events,)."""
        return self.bucket // max(self.n_lanes, 1)

    @property
    def lane(self) -> NDArray[np.int64]:
        """Lane of every event, shape (n_events,)."""
        return self.bucket % max(self.n_lanes, 1)

    @property
    def activity(self) -> float:
        """Events per unit and step, the alpha of the EGRU papers."""
        return len(self) / max(self.n_units * self.n_lanes * self.n_steps, 1)

    def at(self, step: int, lane: int) -> tuple[NDArray[np.int32], NDArray]:
        """Units and values of one bucket."""
        rows = slice(*self.ptr[step * self.n_lanes + lane :][:2])
        return self.unit[rows], self.value[rows]

    def window(self, start: int, stop: int) -> Events:
        """The events of steps ``start`` to ``stop`` (exclusive), renumbered from 0; no columns are copied."""
        ptr = self.ptr[start * self.n_lanes : stop * self.n_lanes + 1]
        rows = slice(ptr[0], ptr[-1])
        return Events(
            self.n_units, self.n_lanes, stop - start, ptr - ptr[0], self.unit[rows], self.value[rows]
        )

    def then(self, later: Events) -> Events:
        """These events followed by those of a later window."""
        if (self.n_units, self.n_lanes) != (later.n_units, later.n_lanes):
            raise StimulusError(
                "events", f"{self!r} cannot be followed by {later!r}", "units and lanes must agree"
            )
        if self.n_steps == 0:
            return later
        columns = joined(self.ptr, self.unit, self.value, later.ptr, later.unit, later.value)
        return Events(self.n_units, self.n_lanes, self.n_steps + later.n_steps, *columns)

    def to_dense(self) -> NDArray:
        """Values as an array of shape (n_steps, n_lanes, n_units), zero where there was no event."""
        return from_events((self.n_steps, self.n_lanes, self.n_units), self.ptr, self.unit, self.value)

    def __iter__(self) -> Iterator[tuple[int, int, int, float]]:
        """(step, lane, unit, value) of every event, in order."""
        columns = (self.step, self.lane, self.unit, self.value)
        return zip(*(column.tolist() for column in columns), strict=True)

    def equal(self, other: Events) -> bool:
        """Same window, same events, same bits."""
        return (
            (self.n_units, self.n_lanes, self.n_steps) == (other.n_units, other.n_lanes, other.n_steps)
            and np.array_equal(self.ptr, other.ptr)
            and np.array_equal(self.unit, other.unit)
            and np.array_equal(self.value, other.value)
        )


def as_floats(array: NDArray, dtype: DTypeLike) -> NDArray:
    """``array`` contiguous in a float type, copied if need be; what that cannot hold becomes infinite."""
    if array.dtype == dtype and array.flags.c_contiguous:
        return array
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype)
