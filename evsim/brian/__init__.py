"""The same network in Brian2, and the comparison of both runs.

``clocked`` and ``continuous`` write a network down in Brian2's terms, a `Description`; ``objects`` makes
Brian2 objects of it, ``twin`` runs them, ``script`` writes a file that does the same without evsim, and
``comparisons`` compares.  ``reading`` goes the other way, from Brian2 to evsim.  ``library`` imports Brian2.
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
from evsim.brian.imported import Imported
from evsim.brian.reading import from_brian2
from evsim.brian.script import brian2_script
from evsim.brian.twin import BrianRun, BrianTwin, ContinuousTwin, to_brian2, to_brian2_continuous

__all__ = [
    "BrianRun",
    "BrianTwin",
    "ContinuousTwin",
    "Imported",
    "brian2_script",
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
