"""Brian2 itself, for the tests that ask for it."""

import gc
import sys

import pytest

from evsim.brian import to_brian2
from evsim.examples import egru_example


@pytest.fixture(scope="session")
def brian2():
    """Brian2; without it the tests that were asked for fail: an oracle is never skipped in silence."""
    to_brian2(*egru_example(n_units=1, n_inputs=1, n_steps=1), n_steps=1)
    gc.freeze()  # Brian2 collects garbage before each run, and would look at all that was imported
    return sys.modules["brian2"]
