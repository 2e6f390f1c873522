"""What a request asks for, checked: it comes from outside."""

from __future__ import annotations

import math
from urllib.parse import parse_qsl

from evsim.errors import EvsimError


class QueryError(EvsimError, ValueError):
    """A request that makes no sense."""


class Query:
    """Names and values from the address of a request, each to be read once; `finish` complains about others.

    Parameters
    ----------
    text : str
        What follows the question mark.
    """

    def __init__(self, text: str):
        try:
            pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text), max_num_fields=32)
        except ValueError as error:
            raise QueryError("request", "cannot be understood", "reload the page") from error
        self._values = dict(pairs)
        if len(self._values) < len(pairs):
            raise QueryError("request", "gives a value twice", "reload the page")

    def text(self, name: str, default: str | None = None) -> str:
        """A value as it is."""
        found = self._values.pop(name, default)
        if found is None:
            raise QueryError("request", f"lacks '{name}'", "reload the page")
        return found

    def number(self, name: str, low: float, high: float, default: str | None = None) -> float:
        """A number, finite, and put into its range."""
        text = self.text(name, default)
        try:
            value = float(text) if len(text) <= 64 else math.nan
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise QueryError("request", f"'{name}' is {text[:64]!r}", "give a finite number")
        return min(max(value, low), high)

    def whole(self, name: str, low: int, high: int, default: str | None = None) -> int:
        """A whole number, put into its range."""
        value = self.number(name, low, high, default)
        if value != int(value):
            raise QueryError("request", f"'{name}' is {value}", "give a whole number")
        return int(value)

    def wholes(self, name: str, most: int, below: int) -> list[int]:
        """Whole numbers with commas between them, all less than ``below``."""
        parts = [part for part in self.text(name).split(",") if part]
        if len(parts) > most or any(not (part.isdecimal() and len(part) <= 18) for part in parts):
            raise QueryError("request", f"'{name}' is not up to {most} whole numbers", "such as 0,1,2")
        numbers = [int(part) for part in parts]
        for number in numbers:
            if number >= below:
                raise QueryError("request", f"there is no {name} {number}", f"they are 0 to {below - 1}")
        return numbers

    def choice(self, name: str, among: tuple[str, ...], default: str | None = None) -> str:
        """One of several words."""
        word = self.text(name, default)
        if word not in among:
            raise QueryError("request", f"'{name}' is {word[:64]!r}", f"it is one of {', '.join(among)}")
        return word

    def finish(self) -> None:
        """Raise if anything was asked that nobody has read."""
        if self._values:
            name = next(iter(self._values))[:64]
            raise QueryError("request", f"has an unknown part {name!r}", "reload the page")
