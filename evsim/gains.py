"""Gains: what payloads are multiplied by on their way through a projection, by lane and sender, for a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evsim.core.dense import first_beyond
from evsim.errors import StimulusError
from evsim.events import as_floats
from evsim.plan import Plan


def gains_by_index(plan: Plan, gains: Mapping[str, Any] | None, n_lanes: int) -> dict[int, NDArray]:
    """Gains as the core takes them, copies in the plan's float type, by index of the projection.

    Raises
    ------
    StimulusError
        Names that are no projections, arrays of other shapes, numbers that are not finite; gains where events
        meet more than a weight (the recurrent port of EGRU in the paper's form), or, in fixed point, other
        than 0 and 1.
    """
    if gains is None or (type(gains) is dict and not gains):
        return {}
    names = [p.name for p in plan.projections]
    if not isinstance(gains, Mapping):
        raise StimulusError("gains", f"{gains!r}", f"give a mapping from some of {names} to arrays")
    return {_index(names, name): _checked(plan, name, given, n_lanes) for name, given in gains.items()}


def _index(names: list[str], name: Any) -> int:
    if name not in names:
        raise StimulusError(f"gains of {name!r}", "no such projection", f"give gains of some of {names}")
    return names.index(name)


def _checked(plan: Plan, name: str, given: Any, n_lanes: int) -> NDArray:
    projection, where = plan.network.projections[name], f"gains of '{name}'"
    if projection.target.kernel == "egru_paper" and projection.port == "recurrent":
        raise StimulusError(
            where,
            "in the paper's form of EGRU recurrent events go through the reset gates of their senders",
            "leave them out, or use form='evnn'",
        )
    shape = n_lanes, projection.source.n_units
    try:
        array = np.asarray(given)
        numbers = array.dtype.kind in "iufb"
    except ValueError:  # rows of unequal length
        numbers = False
    if not numbers or array.shape != shape:
        problem = f"shape {array.shape} and dtype {array.dtype}" if numbers else "are not an array of numbers"
        raise StimulusError(where, problem, f"give floats of shape {shape}: lanes, units of the source")
    array = as_floats(array, plan.dtype).copy()
    wrong = first_beyond(array)
    if wrong >= 0:
        lane, unit = (int(i) for i in np.unravel_index(wrong, shape))
        raise StimulusError(where, f"{array[lane, unit]} of lane {lane}, unit {unit}", "give finite numbers")
    if plan.network.fixed_point is not None and not np.isin(array, (0, 1)).all():
        raise StimulusError(where, "payloads in fixed point cannot be anything", "give gains 0 and 1")
    return array
