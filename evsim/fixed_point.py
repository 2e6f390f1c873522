"""Fixed point: delta networks as integer hardware runs them, for inference.

A number of format Qm.n is a multiple of 2^-n from -2^(m-1) to 2^(m-1) - 2^-n: m integer bits, the sign
included, and n bits of fraction.  To round to a format is to take the nearest such number, halves to even;
what lies outside becomes the smallest or the largest.  Three formats describe a network: A of activations, W
of weights and T of what the look-up tables of the logistic function and tanh give.  With d, m, M, h, c and
the gates as in `evsim.models.delta`, s the logistic function and A(x), W(x), T(x) for rounding::

    weights          W(w)
    thresholds       A(threshold); one that becomes 0 sends whatever changed
    biases           to n_A + n_W bits of fraction, as M has them, and the range of A

    lines            x = A(stimulus); h is in format A already
    d                x - sent, in the range of A: what is cut off goes out with later events
    event            if |d| >= threshold and d != 0; then sent += d
    m += d W         exact, and so is M = m + bias

    DeltaGRU         r = T(s(A(M_r)))    z = T(s(A(M_z)))    q = A(M_q)
                     n = T(tanh(A(M_n + r q)))
                     h = A((1 - z) n + z h)
    DeltaLSTM        i = T(s(A(M_i)))    f, o likewise    g = T(tanh(A(M_g)))
                     c = A(f c + i g)
                     h = A(o T(tanh(c)))
    DeltaReadout     v = M, exact

Nothing else is rounded, and there is no scale per layer: a weight outside W is cut.  All numbers are carried
as float64, in which sums and products of such multiples are exact below 2^53 of the smallest step; `quantize`
refuses a network that might come there.  So results are those of integer arithmetic to the last bit, in
whatever order sums are taken, and ``sent`` is exactly the sum of what was sent.

The default, Q8.8 with Q1.7 and Q2.4, is usual on small hardware, as is Q3.5 with Q1.7 and Q2.6.  Trained
recurrent weights may lie beyond 1 (`FixedPoint.report` tells): ``weights="Q2.6"`` then cuts fewer of them.
"""

from __future__ import annotations

import re
import warnings
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.errors import NetworkError, ParameterError
from evsim.network import Network
from evsim.parameter import Parameter
from evsim.population import Population

#: Kernels that can run in fixed point.
KERNELS = ("delta_source", "delta_encoder", "delta_gru", "delta_lstm", "delta_readout")
#: Bits of whole numbers that float64 holds exactly.
EXACT_BITS = 53
#: Largest format, and the longest table.
MAX_BITS, MAX_TABLE = 32, 2**22


@dataclass(frozen=True)
class Format:
    """Qm.n: m integer bits, the sign included, and n bits of fraction."""

    integer: int
    fraction: int

    @classmethod
    def parse(cls, name: str, where: str = "format") -> Format:
        """The format that ``"Q8.8"`` names."""
        found = re.fullmatch(r"Q(\d{1,2})\.(\d{1,2})", name) if isinstance(name, str) else None
        if found is None:
            raise ParameterError(where, f"{name!r} is not a format", "write Qm.n, such as 'Q8.8'")
        integer, fraction = int(found[1]), int(found[2])
        if integer < 1 or integer + fraction > MAX_BITS:
            raise ParameterError(
                where,
                f"{name} has {integer} integer bits and {integer + fraction} bits in all",
                f"give at least 1, the sign, and at most {MAX_BITS} in all",
            )
        return cls(integer, fraction)

    def __str__(self) -> str:
        return f"Q{self.integer}.{self.fraction}"

    @property
    def step(self) -> float:
        """Distance of neighbours."""
        return 2.0**-self.fraction

    @property
    def low(self) -> float:
        """Smallest number."""
        return -(2.0 ** (self.integer - 1))

    @property
    def high(self) -> float:
        """Largest number."""
        return -self.low - self.step

    def round(self, values: ArrayLike) -> NDArray[np.float64]:
        """The nearest numbers of the format, halves to even; those outside become the ends of its range."""
        inside = np.clip(np.asarray(values, np.float64), self.low, self.high)
        return np.rint(inside / self.step) * self.step + 0.0  # no negative zero

    def is_outside(self, values: ArrayLike) -> NDArray[np.bool_]:
        """Whether `round` cuts them."""
        array = np.asarray(values, np.float64)
        with np.errstate(over="ignore"):
            nearest = np.rint(array / self.step) * self.step
        return (nearest < self.low) | (nearest > self.high)


class Table(NamedTuple):
    """A function of activations: its values at -reach to +reach steps.

    From ``reach`` steps on, in both directions, the rounded function no longer changes.
    """

    values: NDArray[np.float64]
    reach: int

    def __call__(self, steps: ArrayLike) -> NDArray[np.float64]:
        """The values at whole numbers of steps."""
        return self.values[np.clip(steps, -self.reach, self.reach) + self.reach]


class FixedPoint:
    """The formats of a network in fixed point, and its look-up tables.

    Parameters
    ----------
    activations, weights, tables : str
        Formats such as ``"Q8.8"``; see the head of this file.

    Attributes
    ----------
    activations, weights, tables, biases : Format
    logistic, hyperbolic_tangent : Table
        Of an activation, in the format of tables; the same on every machine.

    Raises
    ------
    ParameterError
        What is not a format, and formats whose products float64 cannot hold.
    """

    def __init__(self, activations: str = "Q8.8", weights: str = "Q1.7", tables: str = "Q2.4"):
        where = "FixedPoint"
        self.activations = Format.parse(activations, f"{where} activations")
        self.weights = Format.parse(weights, f"{where} weights")
        self.tables = Format.parse(tables, f"{where} tables")
        self.biases = Format(self.activations.integer, self.activations.fraction + self.weights.fraction)
        finest = self.tables.fraction + max(self.activations.fraction, self.tables.fraction)
        if self.activations.integer + finest > EXACT_BITS:
            raise ParameterError(
                where,
                f"products of {tables} and {activations} take {self.activations.integer + finest} bits",
                f"float64 holds {EXACT_BITS}: give fewer bits of fraction",
            )
        self.logistic = _table(_logistic, self.activations, self.tables)
        self.hyperbolic_tangent = _table(_hyperbolic_tangent, self.activations, self.tables)

    def __repr__(self) -> str:
        names = (f"{key}={str(name)!r}" for key, name in self.describe().items())
        return f"FixedPoint({', '.join(names)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FixedPoint) and self.describe() == other.describe()

    def __hash__(self) -> int:
        return hash(tuple(self.describe().values()))

    def describe(self) -> dict[str, str]:
        """The three formats by name, as JSON can hold them."""
        return {key: str(getattr(self, key)) for key in ("activations", "weights", "tables")}

    def format_of(self, parameter: Parameter) -> Format:
        """The format of a parameter of a network."""
        by_kind = {"weight": self.weights, "bias": self.biases, "threshold": self.activations}
        return by_kind[parameter.name.rpartition(".")[2]]

    def report(self, network: Network) -> list[dict]:
        """What rounding does to each parameter of a network.

        Returns
        -------
        list of dict
            A row per parameter: its name and format, how many values it has, how many of these are ``cut``
            because they lie outside the format, and ``largest_error``, the largest change of a value.
        """
        _check_units(network)
        rows = []
        for parameter in network.parameters().values():
            form, values = self.format_of(parameter), parameter.values.astype(np.float64)
            rows.append(
                {
                    "parameter": parameter.name,
                    "format": str(form),
                    "values": values.size,
                    "cut": int(form.is_outside(values).sum()),
                    "largest_error": float(np.abs(form.round(values) - values).max(initial=0.0)),
                }
            )
        return rows


def quantize(network: Network, fixed_point: FixedPoint | None = None) -> Network:
    """A copy of a delta network that runs in fixed point.

    Everything that takes a network takes it, but `Adjoint`.  Values that are assigned to its parameters later
    are rounded too; what is written past `Parameter.assign` is not.

    Parameters
    ----------
    network : Network
        Of `DeltaGRU`, `DeltaLSTM`, `DeltaEncoder`, `DeltaReadout` and sources with a threshold; it stays as
        it is.
    fixed_point : FixedPoint, optional

    Returns
    -------
    Network
        With the same names, in float64.

    Warns
    -----
    UserWarning
        Weights or biases lie outside their format and were cut.

    Raises
    ------
    NetworkError
        Units of other types, a network in fixed point, sums that float64 might not hold exactly.
    """
    fixed_point = FixedPoint() if fixed_point is None else fixed_point
    if not isinstance(fixed_point, FixedPoint):
        raise NetworkError("quantize", f"{fixed_point!r} holds no formats", "give a FixedPoint")
    if network.continuous:
        raise NetworkError("network", "in continuous time has no fixed point", "quantize one with dt in ms")
    if network.fixed_point is not None:
        raise NetworkError("network", f"is in {network.fixed_point!r}", "quantize the one it was made from")
    if network.narrow is not None:
        raise NetworkError("network", f"has {network.narrow} weights", "quantize the one it was made from")
    _check_units(network)
    for population in network.populations.values():
        _check_sums(network, population, fixed_point)
    twin = network.copy("float64")
    for parameter in twin.parameters().values():
        parameter.rounded = fixed_point.format_of(parameter).round
        parameter.assign(parameter.values)
    twin.fixed_point = fixed_point
    _warn(fixed_point.report(network))
    return twin


def _check_units(network: Network) -> None:
    """Raise NetworkError at the first population that cannot run in fixed point."""
    for population in network.populations.values():
        if population.kernel not in KERNELS:
            raise NetworkError(
                f"population '{population.name}'",
                f"{population!r} does not run in fixed point",
                "use delta units, encoders and readouts, and sources with a threshold",
            )


def _check_sums(network: Network, population: Population, fixed_point: FixedPoint) -> None:
    """Raise NetworkError if a sum in M might take more bits than float64 has."""
    activations, weights, tables = fixed_point.activations, fixed_point.weights, fixed_point.tables
    # |M| + |r q|.  Whatever was received of a line is within the range of the line; |h| is at most 1, for it
    # is a mean or a product of numbers that are.
    largest = 2 * -activations.low
    for projection in network.projections.values():
        if projection.target is population:
            line = -activations.low if projection.source.kernel == "delta_source" else 1.0
            largest += projection.source.n_units * line * -weights.low
    fraction = activations.fraction + max(weights.fraction, tables.fraction)
    bits = int(np.ceil(np.log2(largest))) + fraction
    if bits > EXACT_BITS:
        raise NetworkError(
            f"population '{population.name}'",
            f"its sums may take {bits} bits in {fixed_point!r}",
            f"float64 holds {EXACT_BITS}: give fewer bits of fraction",
        )


def _warn(report: list[dict]) -> None:
    cut = [row for row in report if row["cut"]]
    if cut:
        worst = max(cut, key=lambda row: row["largest_error"])
        warnings.warn(
            f"quantize: {sum(row['cut'] for row in cut)} values lie outside their format and were cut, "
            f"in '{worst['parameter']}' ({worst['format']}) by up to {worst['largest_error']:.3g}; "
            "FixedPoint.report() tells more, and weights='Q2.6' reaches further than 'Q1.7'",
            stacklevel=3,
        )


# -- tables ------------------------------------------------------------------------------------------------

#: A function of an array, in float64, and of one number, in many digits.
_Function = tuple[Callable[[NDArray], NDArray], Callable[[Decimal], Decimal]]

_logistic: _Function = (lambda x: 0.5 + 0.5 * np.tanh(0.5 * x), lambda x: 1 / (1 + (-x).exp()))
_hyperbolic_tangent: _Function = (np.tanh, lambda x: 1 - 2 / ((2 * x).exp() + 1))


def _table(function: _Function, inputs: Format, outputs: Format) -> Table:
    """The table of a function that rises."""
    end = 2 ** (inputs.integer + inputs.fraction - 1)
    bottom, top = _at(function, inputs, outputs, np.array([-end, end - 1]))

    def is_flat(step: int) -> bool:
        low, high = _at(function, inputs, outputs, np.array([-step, step]))
        return bool(low == bottom and high == top)

    reach = bisect_left(range(end), True, key=is_flat)
    if 2 * reach + 1 > MAX_TABLE:
        raise ParameterError(
            "FixedPoint",
            f"a table of {outputs} for {inputs} has {2 * reach + 1} entries",
            f"give fewer bits of fraction: {MAX_TABLE} are the most",
        )
    values = _at(function, inputs, outputs, np.arange(-reach, reach + 1))
    values.setflags(write=False)
    return Table(values, reach)


def _at(function: _Function, inputs: Format, outputs: Format, steps: NDArray) -> NDArray[np.float64]:
    """The function, rounded to ``outputs``, at whole numbers of steps of ``inputs``.

    float64 decides, but where it comes close to a half: there its last bits would differ between machines.
    """
    fast, exact = function
    result = np.asarray(fast(steps * inputs.step)) / outputs.step
    close = np.abs(result - np.floor(result) - 0.5) < 1e-6
    with localcontext(prec=60):
        for i in np.nonzero(close)[0]:
            units = exact(int(steps[i]) * Decimal(inputs.step)) / Decimal(outputs.step)
            result[i] = float(units.to_integral_value())  # halves to even
    return outputs.round(result * outputs.step)
