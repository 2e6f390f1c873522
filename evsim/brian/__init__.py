"""The same network in Brian2, and the comparison of both runs.

``library`` imports Brian2; ``clocked`` and ``continuous`` write a network down in its terms; ``reading`` goes
the other way.
"""

from evsim.brian.clocked import BrianRun, BrianTwin, crosscheck, crosscheck_model, to_brian2
from evsim.brian.continuous import (
    ContinuousTwin,
    crosscheck_continuous,
    crosscheck_continuous_model,
    order_of_convergence,
    run_brian2,
    run_evsim,
    to_brian2_continuous,
)
from evsim.brian.imported import Imported
from evsim.brian.reading import from_brian2

__all__ = [
    "BrianRun",
    "BrianTwin",
    "ContinuousTwin",
    "Imported",
    "crosscheck",
    "crosscheck_continuous",
    "crosscheck_continuous_model",
    "crosscheck_model",
    "from_brian2",
    "order_of_convergence",
    "run_brian2",
    "run_evsim",
    "to_brian2",
    "to_brian2_continuous",
]
