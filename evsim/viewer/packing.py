"""Answers to the page: JSON, or JSON followed by arrays."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Answer:
    """The body of a response.

    Attributes
    ----------
    kind : str
        Its content type.
    body : bytes
    file_name : str or None
        Under which the browser is to keep it; None to show it.
    """

    kind: str
    body: bytes
    file_name: str | None = None


def words(facts: Any) -> Answer:
    """Facts as JSON; what is not finite becomes null."""
    return Answer("application/json", json.dumps(_finite(facts), allow_nan=False).encode())


def packed(facts: dict[str, Any], arrays: dict[str, NDArray]) -> Answer:
    """Facts, and arrays as they lie in memory.

    Four bytes with the length of the JSON that follows, which lists the arrays as (name, dtype, shape); each
    array begins at a multiple of eight bytes.
    """
    ordered = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    listed = [[name, array.dtype.name, list(array.shape)] for name, array in ordered.items()]
    head = words(facts | {"arrays": listed}).body
    parts = [len(head).to_bytes(4, "little"), head]
    size = 4 + len(head)
    for array in ordered.values():
        gap = -size % 8
        parts += [bytes(gap), array.tobytes()]
        size += gap + array.nbytes
    return Answer("application/octet-stream", b"".join(parts))


def _finite(facts: Any) -> Any:
    if isinstance(facts, dict):
        return {str(name): _finite(value) for name, value in facts.items()}
    if isinstance(facts, (list, tuple)):
        return [_finite(value) for value in facts]
    if isinstance(facts, np.generic):
        facts = facts.item()
    return None if isinstance(facts, float) and not math.isfinite(facts) else facts
