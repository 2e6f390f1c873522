"""An estimate of the energy per token, from counted operations and stated costs of each.

What is counted: every multiply-accumulate; every weight that is read, once, with the number of its column if
zeros are not stored; every event, written once and read by each projection it goes along; and for each unit,
silent or not, its state and the arithmetic of its gates.  So sparsity saves the first three, not the last.

The costs are those of M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014,
pp. 10-14, fig. 1.1.9: 45 nm, 0.9 V.  Newer processes need less of all of it; ratios change little.

What is left out: instructions (fetch, decode and control of a processor cost some 70 pJ each by the same
source, which hides the arithmetic of any program that is not vectorised), leakage and clocks, caches that
miss, addresses of rows, whatever is moved in units larger than asked for (a DRAM gives a burst, so single
short rows cost more), the embedding's and the readout's own tables unless they are among the projections.
So this ranks algorithms on equal terms; it is not what a machine draws from the wall.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

from rich.table import Table

from evsim.errors import ParameterError
from evsim.operations import Operations
from evsim.tables import plain_table

#: Where something is kept.
Memory = Literal["cache_8kb", "cache_32kb", "sram_1mb", "dram", "dram_high"]
#: pJ per access of 64 bits.  A DRAM's is stated as 1.3 to 2.6 nJ: its two ends are two levels here.
ACCESS: Mapping[str, float] = {
    "cache_8kb": 10.0,
    "cache_32kb": 20.0,
    "sram_1mb": 100.0,
    "dram": 1300.0,
    "dram_high": 2600.0,
}
#: Bytes of such an access.
ACCESS_BYTES = 8


@dataclass(frozen=True)
class Costs:
    """What one operation costs, in pJ, and what is moved, in bytes.

    Attributes
    ----------
    name : str
    multiply, add : float
        pJ, of a multiply-accumulate.
    gate_multiply, gate_add : float
        pJ, of the arithmetic within a unit.
    weight_bytes, index_bytes : float
        Of a weight, and of the number of its column if zeros are not stored.
    event_bytes, value_bytes : float
        Of an event (unit and value); of a value where all units send, and none needs a number.
    state_bytes : float
        Of one state variable of a unit.
    """

    name: str
    multiply: float
    add: float
    gate_multiply: float
    gate_add: float
    weight_bytes: float
    index_bytes: float
    event_bytes: float = 8.0
    value_bytes: float = 4.0
    state_bytes: float = 4.0


#: All in 32-bit floats; columns as evsim numbers them, in int32.
HOROWITZ_45NM_FLOAT32 = Costs(
    "float32", multiply=3.7, add=0.9, gate_multiply=3.7, gate_add=0.9, weight_bytes=4, index_bytes=4
)
#: Weights in 16-bit floats, and products and sums too; 16 bits number 65,536 columns.
HOROWITZ_45NM_FLOAT16 = Costs(
    "float16", multiply=1.1, add=0.4, gate_multiply=3.7, gate_add=0.9, weight_bytes=2, index_bytes=2
)
#: Weights and values in int8, summed in int32 (an int8 addition would be 0.03 pJ, and overflow); gates float.
HOROWITZ_45NM_INT8 = Costs(
    "int8",
    multiply=0.2,
    add=0.1,
    gate_multiply=3.7,
    gate_add=0.9,
    weight_bytes=1,
    index_bytes=2,
    value_bytes=1,
)


class Update(NamedTuple):
    """What one unit does in every step, whether it sends or not.

    Attributes
    ----------
    multiplications, additions : int
        Comparisons count as additions.
    functions : int
        Sigmoids and hyperbolic tangents; see `FUNCTION`.
    states : int
        State variables, read and written once.
    """

    multiplications: int
    additions: int
    functions: int
    states: int


#: Multiplications and additions of one sigmoid or hyperbolic tangent: a polynomial of degree 8.
FUNCTION = 8
#: By type of unit, from its equations, with a bias for each gate.
#: EGRU (form evnn): GRU's, threshold - a compared, and a reset by subtraction.
#: GRU: three biases and one of the recurrent candidate, r * (.) + (.), h + z (g - h).
#: LSTM: four biases, f c + i g, o tanh(c); state c, while h is what it sends.
UPDATES: Mapping[str, Update] = {
    "EGRU": Update(2, 9, 3, 1),
    "GRU": Update(2, 7, 3, 1),
    "LSTM": Update(3, 5, 5, 1),
}


@dataclass(frozen=True)
class Energy:
    """nJ per token, by what it goes into.

    Attributes
    ----------
    arithmetic : float
        Multiply-accumulates.
    weights : float
        Reading weights, and the numbers of their columns.
    events : float
        Writing and reading what units send.
    states : float
        States and gates of all units.
    """

    arithmetic: float
    weights: float
    events: float
    states: float

    @property
    def total(self) -> float:
        """nJ per token."""
        return self.arithmetic + self.weights + self.events + self.states

    def summary(self) -> dict[str, float]:
        """All of it, as JSON can hold it."""
        return {**asdict(self), "total": self.total}


def energy(
    operations: Sequence[Operations],
    costs: Costs = HOROWITZ_45NM_FLOAT32,
    memory: Memory = "sram_1mb",
    near: Memory = "cache_32kb",
    updates: Mapping[str, Update] | None = None,
) -> Energy:
    """The energy per token of a network at one lane, forward: no weight that was read serves a second one.

    Parameters
    ----------
    operations : sequence of Operations
        Of the pass ``"forward"``, one per projection, without a total; `dense_twin` makes those of the dense
        network.  A row that is looked up is read from the same memory, and only added.
    costs : Costs
    memory : {"cache_8kb", "cache_32kb", "sram_1mb", "dram", "dram_high"}
        Where weights are.
    near : the same
        Where events and states are.
    updates : mapping of str to Update, optional
        By type of unit, beside and before `UPDATES`.

    Raises
    ------
    ParameterError
        Another memory; a unit whose update is not known; a total; nothing to count.
    """
    for level in (memory, near):
        if level not in ACCESS:
            raise ParameterError("energy", f"unknown memory {level!r}", f"use one of {get_args(Memory)}")
    if not operations:
        raise ParameterError("energy", "no projections to count", "give the rows of operations()")
    far_byte, near_byte = (ACCESS[level] / ACCESS_BYTES for level in (memory, near))
    arithmetic = weights = events = states = 0.0
    for row in operations:
        product = 0.0 if row.looked_up else costs.multiply
        arithmetic += row.macs * (product + costs.add)
        weights += row.macs * (costs.weight_bytes + costs.index_bytes * row.sparse) * far_byte
        if not row.looked_up:  # one number of a word is nothing
            events += _sent(row, costs) * near_byte  # read once by each projection
    for row in {row.source: row for row in operations if not row.looked_up}.values():
        events += _sent(row, costs) * near_byte  # written once
    known = {**UPDATES, **(updates or {})}
    for row in {row.target: row for row in operations}.values():
        if row.unit not in known:
            raise ParameterError(
                "energy",
                f"it is not known what a unit of type '{row.unit}' ('{row.projection}') does in a step",
                f"leave that projection out, or give updates={{'{row.unit}': Update(...)}}",
            )
        one = known[row.unit]
        work = (one.multiplications + FUNCTION * one.functions) * costs.gate_multiply
        work += (one.additions + FUNCTION * one.functions) * costs.gate_add
        states += row.n_target * (work + 2 * one.states * costs.state_bytes * near_byte)
    return Energy(arithmetic / 1000, weights / 1000, events / 1000, states / 1000)


def _sent(row: Operations, costs: Costs) -> float:
    """Bytes per token that the units of a source send."""
    if row.activity >= 1:
        return row.n_source * costs.value_bytes
    return row.n_source * row.activity * costs.event_bytes


def dense_twin(operations: Iterable[Operations], unit: str = "GRU") -> list[Operations]:
    """The same projections with a weight in every place and all units active.

    Parameters
    ----------
    operations : iterable of Operations
    unit : str
        Type of its units, where those of the network are EGRUs.
    """
    rows = []
    for row in operations:
        kind = unit if row.unit == "EGRU" else row.unit
        facts: dict[str, Any] = {"nonzeros": row.places, "sparse": False, "activity": 1.0, "unit": kind}
        for name in ("macs", "by_activity", "by_weights", "predicted"):
            facts[name] = row.dense_macs
        rows.append(replace(row, **facts, correlation=None))
    return rows


def energy_table(rows: Sequence[tuple[str, Energy]]) -> Table:
    """Estimates by name, for the terminal; the last column compares each with the first."""
    table = plain_table(
        "nJ per token", "arithmetic", "weights", "events", "states", "total", "less", words=("nJ per token",)
    )
    for label, one in rows:
        parts = (one.arithmetic, one.weights, one.events, one.states, one.total)
        table.add_row(label, *(_short(part) for part in parts), f"{rows[0][1].total / one.total:.1f} x")
    return table


def _short(value: float) -> str:
    """Three digits at least, and all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
