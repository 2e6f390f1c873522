"""The stimulus of a source, in the forms that people write it, checked and made into events or lines."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.core.dense import first_beyond
from evsim.errors import StimulusError
from evsim.events import Events, as_floats
from evsim.plan import Plan
from evsim.population import Population

#: Largest value of a line by float type, so that a change, and what is made of it, is finite too.
LARGEST = {np.dtype(name): float(np.finfo(name).max) / 4 for name in ("float32", "float64")}


def lane_lengths(lengths: ArrayLike | None, n_steps: int, n_lanes: int) -> NDArray[np.int64]:
    if lengths is None:
        steps = np.empty(n_lanes, np.int64)
        steps.fill(n_steps)
        return steps
    steps = np.asarray(lengths)
    if steps.shape != (n_lanes,) or steps.dtype.kind not in "iu" or steps.min() < 0 or steps.max() > n_steps:
        raise StimulusError(
            "lengths", f"{np.array2string(steps, threshold=8)}", f"give {n_lanes} integers in 0..{n_steps}"
        )
    return np.ascontiguousarray(steps, np.int64)


def one_step(data: ArrayLike) -> NDArray:
    """Input of one step with a time axis, and a lane axis if it had none."""
    array = np.asarray(data)
    if array.dtype.kind in "iu" and array.ndim < 2:
        return array.reshape(1, -1)
    return array[None, None] if array.ndim == 1 else array[None]


def is_tokens(array: NDArray) -> bool:
    return array.dtype.kind in "iu" and array.ndim < 3


def shape_of(name: str, data: Any) -> tuple[int | None, int | None]:
    """(steps, lanes) as far as the data of one source determine them."""
    if isinstance(data, Events):
        return data.n_steps, data.n_lanes
    if isinstance(data, tuple):
        if len(data) != 4:
            raise StimulusError(
                f"source '{name}'",
                f"an event list of {len(data)} columns",
                "give (time in ms, lane, unit, value)",
            )
        return None, None
    try:
        array = np.asarray(data)
    except ValueError:  # rows of unequal length
        raise StimulusError(
            f"source '{name}'", "input is not a regular array", "give rows of equal length"
        ) from None
    least = 1 if array.dtype.kind in "iu" else 2
    if array.dtype.kind not in "iufb" or not least <= array.ndim <= 3:
        raise StimulusError(
            f"source '{name}'",
            f"input has shape {array.shape} and dtype {array.dtype}",
            "give floats (steps, lanes, units) or (steps, units), token ids (steps, lanes) or (steps,), "
            "or (time, lane, unit, value)",
        )
    one_lane = array.ndim == (1 if is_tokens(array) else 2)
    return array.shape[0], 1 if one_lane else array.shape[1]


def encode_source(
    population: Population, data: Any, n_lanes: int, n_steps: int, plan: Plan
) -> Events | NDArray:
    """The events of one source, or the values of its lines if it sends changes, in the plan's float type."""
    where = f"source '{population.name}'"
    lines = population.sends == "changes"
    if lines and not isinstance(data, (Events, tuple)) and not is_tokens(np.asarray(data)):
        return _lines(where, data, (n_steps, n_lanes, population.n_units), plan.dtype)
    events = _events(where, data, population.n_units, n_lanes, n_steps, plan)
    if not lines:
        return events
    dense = events.to_dense()
    return _lines(where, dense, dense.shape, plan.dtype)


def _lines(where: str, data: ArrayLike, shape: tuple[int, int, int], dtype: np.dtype) -> NDArray:
    array = np.asarray(data)
    if array.shape[-1] != shape[-1]:
        raise StimulusError(where, f"input has {array.shape[-1]} units", f"give {shape[-1]}")
    array, largest = as_floats(array.reshape(shape), dtype), LARGEST[dtype]
    wrong = first_beyond(array, largest)
    if wrong >= 0:
        step, lane, unit = (int(i) for i in np.unravel_index(wrong, shape))
        raise StimulusError(
            where,
            f"value {array[step, lane, unit]} at step {step}, lane {lane}, unit {unit}",
            f"give finite values of at most {largest:.3g}",
        )
    return array


def _events(where: str, data: Any, n_units: int, n_lanes: int, n_steps: int, plan: Plan) -> Events:
    """The events of one source, in the plan's float type."""
    if isinstance(data, Events):
        if data.n_units != n_units:
            raise StimulusError(where, f"{data!r}", f"give events of {n_units} units")
        value = as_floats(data.value, plan.dtype)  # check() reports what that cannot hold
        events = Events(n_units, n_lanes, n_steps, data.ptr, data.unit, value)
        events.check(where)
        return events
    if isinstance(data, tuple):
        exact = np.asarray(data[0], np.float64) / plan.dt
        step = np.round(exact)
        with np.errstate(invalid="ignore"):  # infinite times are off the grid
            off = np.nonzero(~(np.abs(exact - step) < 1e-6))[0]
        if off.size:
            raise StimulusError(
                where,
                f"event {off[0]} at {np.ravel(data[0])[off[0]]} ms is off the grid of dt = {plan.dt:g} ms",
                "round it, or use a smaller dt",
            )
        return Events.from_list(
            step.astype(np.int64),
            *data[1:],
            n_units=n_units,
            n_lanes=n_lanes,
            n_steps=n_steps,
            dtype=plan.dtype,
            where=where,
        )
    array = np.asarray(data)
    if is_tokens(array):
        return Events.from_tokens(array.reshape(n_steps, n_lanes), n_units, plan.dtype, where)
    dense = array.reshape(n_steps, n_lanes, array.shape[-1])
    if dense.shape[-1] != n_units:
        raise StimulusError(where, f"input has {dense.shape[-1]} units", f"give {n_units}")
    return Events.from_dense(dense, plan.dtype, where)
