"""Statements of resets and synapses, taken apart."""

from __future__ import annotations

import ast
import textwrap
from dataclasses import dataclass

from evsim.errors import NetworkError


@dataclass(frozen=True)
class Statement:
    """An assignment.

    Attributes
    ----------
    text : str
        As one would write it.
    variable, operator, value : str
        ``"ge"``, ``"+="`` and ``"w*mV"`` of ``ge += w*mV``.
    """

    text: str
    variable: str
    operator: str
    value: str


#: Operators of assignments, by their class.
_OPERATORS = {ast.Add: "+=", ast.Sub: "-=", ast.Mult: "*=", ast.Div: "/=", ast.Pow: "**="}


def statements(code: str, where: str) -> list[Statement]:
    """The statements of some code, in order; comments are dropped.

    Raises
    ------
    NetworkError
        Something else than an assignment to one variable.
    """
    try:
        lines = ast.parse(textwrap.dedent(code).strip()).body
    except SyntaxError as error:
        raise NetworkError(
            where, f"'{' '.join(code.split())}' cannot be read: {error.msg}", "mend it"
        ) from None
    found = []
    for line in lines:
        text = ast.unparse(line)
        if isinstance(line, ast.AugAssign) and isinstance(line.target, ast.Name):
            operator = _OPERATORS.get(type(line.op), "?=")
            found.append(Statement(text, line.target.id, operator, ast.unparse(line.value)))
        elif (
            isinstance(line, ast.Assign) and len(line.targets) == 1 and isinstance(line.targets[0], ast.Name)
        ):
            found.append(Statement(text, line.targets[0].id, "=", ast.unparse(line.value)))
        else:
            raise NetworkError(where, f"'{text}' is no assignment", "write 'variable += value'")
    return found
