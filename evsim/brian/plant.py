"""A small error put into Brian2's side on purpose: the self-test of the check."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from evsim.errors import ParameterError
from evsim.network import Network

_FORM = re.compile(r"(?P<name>[A-Za-z0-9_>.-]+?)\[(?P<index>[0-9, ]+)\](?P<change>[+-][0-9.eE+-]+)")


@dataclass(frozen=True)
class Plant:
    """One number of a network, and by how much it is changed.

    Attributes
    ----------
    name : str
        Of the parameter, as in `Network.parameters`.
    index : tuple of int
        Weights: source unit and column (target unit + block x units of the target), sparse ones too; others:
        one number.
    change : float
    """

    name: str
    index: tuple[int, ...]
    change: float

    def __str__(self) -> str:
        return f"{self.name}[{','.join(map(str, self.index))}]{self.change:+g}"

    @classmethod
    def parse(cls, text: str) -> Plant:
        """``hidden_1.threshold[17]+1e-3`` or ``cue->hidden_1.weight[3,17]-1e-3``.

        Raises
        ------
        ParameterError
            It is not of that form.
        """
        match = _FORM.fullmatch(text.strip())
        try:
            if match is None:
                raise ValueError
            index = tuple(int(part) for part in match["index"].split(","))
            change = float(match["change"])
            if not math.isfinite(change) or change == 0:
                raise ValueError
        except ValueError:
            form = "hidden_1.threshold[17]+1e-3 or 'cue->hidden_1.weight[3,17]+1e-3'"
            problem = f"{text!r} is not of the form NAME[INDEX]+SIZE"
            raise ParameterError("planted error", problem, f"give {form}") from None
        return cls(match["name"], index, change)

    def into(self, network: Network) -> Network:
        """A copy of the network with the error in it.

        Raises
        ------
        ParameterError
            No such parameter or index, or the value leaves its range.
        """
        changed = network.copy()
        parameters = changed.parameters()
        where = f"planted error '{self}'"
        if self.name not in parameters:
            names = ", ".join(parameters)
            raise ParameterError(where, f"the network has no parameter '{self.name}'", f"it has {names}")
        values = parameters[self.name].values.copy()
        place = self.index
        projection = changed.projections.get(self.name.removesuffix(".weight"))
        if projection is not None and projection.indptr is not None and len(place) == 2:
            assert projection.indices is not None
            row, column = place
            here = np.zeros(0, np.int64)
            if row < projection.source.n_units:
                begin, end = projection.indptr[row : row + 2]
                here = begin + np.flatnonzero(projection.indices[begin:end] == column)
            if not here.size:
                problem = f"there is no weight from unit {row} to column {column}"
                raise ParameterError(where, problem, "choose one that there is")
            place = (int(here[0]),)
        if len(place) != values.ndim or any(i >= n for i, n in zip(place, values.shape, strict=True)):
            raise ParameterError(where, f"there is no such index in shape {values.shape}", "give one that is")
        values[place] += self.change
        parameters[self.name].assign(values)
        return changed
