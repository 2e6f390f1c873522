"""Linear equations with constant coefficients, from SymPy expressions to time constants.

SymPy comes with Brian2, and is imported when it is first needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evsim.errors import NetworkError


@dataclass(frozen=True)
class LinearEquation:
    """An equation in the form ``tau dx/dt = -x + rest + sum of gain y``.

    Attributes
    ----------
    name : str
        Of x.
    tau, rest : sympy.Expr
        They hold parameters and constants only.
    gains : dict of str to sympy.Expr
        By the name of y, of the other variables that it reads.
    """

    name: str
    tau: Any
    rest: Any
    gains: dict[str, Any]


def linear_equations(
    right_sides: Mapping[str, Any], texts: Mapping[str, str], where: str
) -> dict[str, LinearEquation]:
    """Bring differential equations into the form of `LinearEquation`.

    Parameters
    ----------
    right_sides : mapping of str to sympy.Expr
        dx/dt by the name of x; what is not a name of this mapping is a constant.
    texts : mapping of str to str
        The equations as they were written, for errors.
    where : str
        What errors are about.

    Raises
    ------
    NetworkError
        An equation that is not linear, or in which x does not decay by itself.
    """
    free = {symbol.name: symbol for side in right_sides.values() for symbol in side.free_symbols}
    symbols = {name: free[name] for name in right_sides if name in free}
    found = {}
    for name, side in right_sides.items():
        coefficients, constant = _coefficients(side, symbols, texts[name], where)
        own = coefficients.pop(name, None)
        if own is None:
            raise NetworkError(
                where,
                f"in '{texts[name]}' {name} does not decay by itself",
                f"evsim's LIF units need a term -{name}/tau",
            )
        tau = _tidy(-1 / own)
        gains = {other: _tidy(c * tau) for other, c in coefficients.items()}
        found[name] = LinearEquation(name, tau, _tidy(constant * tau), gains)
    return found


def _coefficients(side: Any, symbols: Mapping[str, Any], text: str, where: str) -> tuple[dict[str, Any], Any]:
    """Those of each variable that has one, and what is left without variables."""
    import sympy

    expanded = sympy.expand(side)
    coefficients = {}
    for name, symbol in symbols.items():
        try:
            slope = sympy.diff(expanded, symbol)
            if slope.free_symbols.intersection(symbols.values()):
                slope = sympy.simplify(slope)
        except AttributeError:  # of a comparison, as in int(v > 1)
            slope = symbol
        if slope.free_symbols.intersection(symbols.values()):
            raise NetworkError(
                where,
                f"'{text}' is not linear in {name}",
                "only linear equations with constant coefficients can be taken over",
            )
        if slope != 0:
            coefficients[name] = slope
    rest = sympy.expand(expanded - sum(c * symbols[name] for name, c in coefficients.items()))
    if rest.free_symbols.intersection(symbols.values()):
        rest = sympy.simplify(rest)
    if rest.free_symbols.intersection(symbols.values()):
        raise NetworkError(
            where,
            f"'{text}' is not linear",
            "only linear equations with constant coefficients can be taken over",
        )
    return coefficients, rest


def _tidy(expression: Any) -> Any:
    """The same with common factors cancelled, so that 20 ms stays 20 ms to the last bit."""
    import sympy

    try:
        return sympy.cancel(expression)
    except sympy.PolynomialError:
        return expression
