"""evsim: event-driven simulation and training of event-based recurrent networks.

::

    protocols/ -> network -> plan -> simulation -> eventlog -> adjoint -> optimizer
    stimulus,     populations, flat     core/forward   events      core/backward  step on named
    target        projections  arrays                  (HDF5)                     parameters

Description (`Network`), execution (`Plan`, `Simulation`) and record (`EventLog`) are three different objects.
`Simulation` and `Adjoint` never meet but in an `EventLog`: the log is the tape.
"""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from evsim.errors import EvsimError

try:
    from evsim.core import kernels as _kernels  # noqa: F401
except EvsimError as error:  # EVSIM_ISA is wrong, and evsim.cli is not there yet to say so in one line
    if os.path.basename("".join(sys.argv[:1])) not in ("evsim", "-m"):
        raise
    print(f"evsim: {error}", file=sys.stderr)
    sys.exit(2)

from evsim.adjoint import Adjoint
from evsim.calibration import calibrate
from evsim.checkpoint import Checkpoint
from evsim.continuous_adjoint import ContinuousAdjoint
from evsim.continuous_log import ContinuousLog
from evsim.continuous_simulation import ContinuousSimulation
from evsim.continuous_training import ContinuousTrainer, Judgement
from evsim.edits import Edits
from evsim.event_table import EventTable
from evsim.eventlog import EventLog
from evsim.events import Events
from evsim.fixed_point import FixedPoint, quantize
from evsim.gradients import Gradients
from evsim.loss import (
    binary_cross_entropy,
    cross_entropy,
    first_event_cross_entropy,
    mean_squared_error,
    silence,
)
from evsim.narrow_weights import narrow
from evsim.network import Network
from evsim.optimizer import SGD, Adam
from evsim.parameter import Parameter
from evsim.plan import Plan
from evsim.population import Population
from evsim.projection import Projection
from evsim.protocol import Protocol, Trial
from evsim.pruning import CubicSchedule, Pruner, RoundSchedule, magnitude_mask, prune
from evsim.simulation import Simulation
from evsim.sparsity import sparsified, sparsity_report
from evsim.timed_events import TimedEvents
from evsim.training import Trainer, fit

if TYPE_CHECKING:
    from evsim.brian import from_brian2, to_brian2
    from evsim.log_file import LogFile
    from evsim.log_writer import LogWriter

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Adam",
    "Adjoint",
    "Checkpoint",
    "ContinuousAdjoint",
    "ContinuousLog",
    "ContinuousSimulation",
    "ContinuousTrainer",
    "CubicSchedule",
    "Edits",
    "EventLog",
    "EventTable",
    "Events",
    "EvsimError",
    "FixedPoint",
    "Gradients",
    "Judgement",
    "LogFile",
    "LogWriter",
    "Network",
    "Parameter",
    "Plan",
    "Population",
    "Projection",
    "Protocol",
    "Pruner",
    "RoundSchedule",
    "Simulation",
    "TimedEvents",
    "Trainer",
    "Trial",
    "binary_cross_entropy",
    "calibrate",
    "cross_entropy",
    "first_event_cross_entropy",
    "fit",
    "from_brian2",
    "magnitude_mask",
    "mean_squared_error",
    "narrow",
    "prune",
    "quantize",
    "silence",
    "sparsified",
    "sparsity_report",
    "to_brian2",
]


#: Logs on disk and the doors to Brian2, whose libraries are loaded when they are used.
_LAZY = {
    "LogFile": "evsim.log_file",
    "LogWriter": "evsim.log_writer",
    "from_brian2": "evsim.brian",
    "to_brian2": "evsim.brian",
}


def __getattr__(name: str) -> Any:
    """What is in _LAZY."""
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'evsim' has no attribute '{name}'")
