"""The same network in Brian2, and the comparison of both runs.

``clocked`` and ``continuous`` write a network down in Brian2's terms, a `Description`; ``objects`` makes
Brian2 objects of it, ``twin`` runs them, ``comparisons`` compares; ``library`` imports Brian2.
"""

from evsim.brian.comparisons import (
    crosscheck,
    crosscheck_continuous,
    crosscheck_continuous_model,
    crosscheck_model,
    order_of_convergence,
    run_brian2,
    run_evsim,
)
from evsim.brian.twin import BrianRun, BrianTwin, ContinuousTwin, to_brian2, to_brian2_continuous

__all__ = [
    "BrianRun",
    "BrianTwin",
    "ContinuousTwin",
    "crosscheck",
    "crosscheck_continuous",
    "crosscheck_continuous_model",
    "crosscheck_model",
    "order_of_convergence",
    "run_brian2",
    "run_evsim",
    "to_brian2",
    "to_brian2_continuous",
]
