"""What names in the code of a Brian2 object mean, and their values at this moment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evsim.errors import NetworkError

#: Functions of Brian2 that give another number with each call, or with each step.
RANDOM = ("rand", "randn", "poisson")
#: Names that move with time.
TIMES = ("t", "t_in_timesteps", "dt")
#: Variables that Brian2 itself keeps up to date.
KEPT = ("not_refractory", "lastspike", "lastupdate")
CONSTANTS_ONLY = "only parameters and constants can be taken over"


def one_line(text: object) -> str:
    """Code or a message without line breaks, for errors."""
    return " ".join(str(text).split())


class Scope:
    """The names that code of one Brian2 object may use.

    Parameters
    ----------
    group : brian2 NeuronGroup, Subgroup, PoissonGroup or Synapses
    namespace : mapping of str to object
        What Brian2 calls the run namespace: names that the group itself does not know.
    where : str
        What errors are about.
    """

    def __init__(self, group: Any, namespace: Mapping[str, Any], where: str):
        self.group, self.namespace, self.where = group, namespace, where
        self._variables: dict[str, Any] = {}

    def resolve(self, code: str, text: str) -> dict[str, Any]:
        """Brian2's variables and functions by the names in some code.

        Raises
        ------
        NetworkError
            A name that is not defined, a random or time-dependent function, or a time.
        """
        from brian2 import Function
        from brian2.core.functions import DEFAULT_FUNCTIONS
        from brian2.utils.stringtools import get_identifiers

        text = one_line(text)
        found: dict[str, Any] = {}
        for name in sorted(get_identifiers(code)):
            try:
                found |= self.group.resolve_all([name], self.namespace, user_identifiers=set())
            except (KeyError, TypeError) as error:
                problem = f"'{text}' names '{name}': {one_line(error.args[0])}"
                raise NetworkError(self.where, problem, "define it, or give namespace=") from None
            if name in RANDOM:
                problem = f"'{text}' is random, by its {name}()"
                raise NetworkError(self.where, problem, "evsim's units and synapses draw no random numbers")
            if name in TIMES:
                problem = f"'{text}' depends on time, by its '{name}'"
                raise NetworkError(self.where, problem, CONSTANTS_ONLY)
            if isinstance(found[name], Function) and name not in DEFAULT_FUNCTIONS:
                problem = f"'{text}' calls '{name}', a TimedArray or a function of your own"
                raise NetworkError(self.where, problem, CONSTANTS_ONLY)
        self._variables |= found
        return found

    def parse(self, code: str, text: str | None = None) -> Any:
        """Code as a SymPy expression, subexpressions written out.

        Parameters
        ----------
        code : str
        text : str, optional
            What it is part of, for errors.
        """
        from brian2.core.variables import Subexpression
        from brian2.parsing.sympytools import str_to_sympy

        text = one_line(code if text is None else text)
        variables = self.resolve(code, text)
        try:
            expression = str_to_sympy(code, variables)
        except (SyntaxError, TypeError, ValueError, AttributeError) as error:
            problem = f"'{text}' is no expression: {one_line(error)}"
            raise NetworkError(self.where, problem, "mend it") from None
        inner = {
            name: variable
            for name, variable in variables.items()
            if isinstance(variable, Subexpression) and not self._is_index(name)
        }
        by_name = {symbol.name: symbol for symbol in expression.free_symbols}
        replaced = {}
        for name, variable in inner.items():
            if getattr(variable.owner, "name", None) != self.group.name:
                problem = f"'{text}' reads '{name}', a subexpression of another group"
                raise NetworkError(self.where, problem, CONSTANTS_ONLY)
            if name in by_name:
                replaced[by_name[name]] = self.parse(str(variable.expr), text)
        return expression.xreplace(replaced)

    def check_units(self, code: str, expected: Any, text: str | None = None) -> None:
        """Raise NetworkError unless code has the dimensions that are expected."""
        from brian2.parsing.expressions import parse_expression_dimensions
        from brian2.units.fundamentalunits import DimensionMismatchError, get_dimensions, get_unit

        text = one_line(code if text is None else text)
        try:
            dimensions = parse_expression_dimensions(code, self.resolve(code, text))
        except (DimensionMismatchError, SyntaxError, TypeError, ValueError) as error:
            raise NetworkError(self.where, f"'{text}': {one_line(error)}", "mend the units") from None
        literal_zero = code.strip() in ("0", "0.0", "0.")
        if dimensions is not get_dimensions(expected) and not literal_zero:
            units = repr(get_unit(dimensions)), repr(get_unit(get_dimensions(expected)))
            raise NetworkError(
                self.where, f"'{text}' is in units of {units[0]}, not {units[1]}", "mend the units"
            )

    def values(self, expression: Any, text: str) -> NDArray[np.float64]:
        """Numbers in SI units, shape () or one for each unit or synapse.

        Parameters
        ----------
        expression : sympy.Expr
            Made by `parse`, or from what that has made.
        text : str
            What it comes from, for errors.

        Raises
        ------
        NetworkError
            It reads a variable that moves, or is not finite.
        """
        import sympy

        text = one_line(text)
        symbols = sorted(expression.free_symbols, key=lambda symbol: symbol.name)
        given = [self._value(symbol.name, text) for symbol in symbols]
        extra: dict[str, Any] = {"clip": np.clip, "int_": lambda x: np.asarray(x).astype(int)}
        try:
            with np.errstate(all="ignore"):
                found = sympy.lambdify(symbols, expression, modules=[extra, "numpy"])(*given)
                found = np.asarray(found, np.float64)
        except (NameError, TypeError, ValueError) as error:
            problem = f"'{text}' cannot be evaluated: {one_line(error)}"
            raise NetworkError(self.where, problem, CONSTANTS_ONLY) from None
        if not np.isfinite(found).all():
            wrong = found[~np.isfinite(found)].ravel()[0]
            raise NetworkError(self.where, f"'{text}' has a value {wrong}", "give finite values")
        return found

    def number(self, expression: Any, text: str, what: str, remedy: str) -> float:
        """The value of an expression that must be one for all units."""
        found = np.unique(self.values(expression, text))
        if found.size != 1:
            low, high = found[0], found[-1]
            problem = f"in '{text}' {what} differs between units, from {low:g} to {high:g} in SI units"
            raise NetworkError(self.where, problem, remedy)
        return float(found[0])

    def _is_index(self, name: str) -> bool:
        return name in ("i", "j")

    def _value(self, name: str, text: str) -> NDArray[np.float64]:
        from brian2.core.variables import Constant

        variable = self._variables[name]
        if isinstance(variable, Constant):
            return np.asarray(variable.get_value(), np.float64)
        owner = getattr(variable, "owner", None)
        equations = getattr(owner, "equations", None)
        moving = getattr(equations, "diff_eq_names", ())
        if variable.name in moving or variable.name in KEPT:
            problem = f"'{text}' reads '{name}', which changes with time"
            raise NetworkError(self.where, problem, CONSTANTS_ONLY)
        if self._is_index(name):
            return np.asarray(getattr(self.group, name)[:], np.float64)
        return np.squeeze(np.asarray(self.group.state(name, use_units=False)[:], np.float64))
