"""What came of running a network in evsim and in Brian2: numbers, and stated tolerances that hold or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evsim.brian.audit import Entry
from evsim.brian.plant import Plant
from evsim.brian.prediction import Finding, Prediction
from evsim.brian.subject import Subject
from evsim.comparison import Comparison
from evsim.continuous_comparison import Convergence
from evsim.interval_comparison import Spread, Statistics
from evsim.state_comparison import Parting, StateErrors, state_errors


@dataclass(frozen=True)
class Criterion:
    """One stated tolerance, and what was measured.

    Attributes
    ----------
    name : str
        What is asked, in plain words.
    measured, allowed : str
        With units.
    value, limit : float
    ok : bool
    """

    name: str
    measured: str
    allowed: str
    value: float
    limit: float
    ok: bool


@dataclass(frozen=True, eq=False)
class Traces:
    """States of both sides at the same times; arrays of shape (n_times, n_units), times in ms."""

    times: NDArray[np.float64]
    mine: Mapping[str, NDArray[np.float64]]
    theirs: Mapping[str, NDArray[np.float64]]


@dataclass(eq=False)
class Crosscheck:
    """What came of running a subject in both.

    Attributes
    ----------
    subject : Subject
    planted : Plant or None
        The error that was put into Brian2's side.
    criteria : list of Criterion
    comparison, convergence : Comparison or None, Convergence or None
        In steps, and in continuous time.
    prediction : Prediction or None
        Of Brian2's single steps, in continuous time.
    entries : list of Entry
        The parameters, read back from Brian2.
    statistics : dict of Statistics
        Of populations that send, by name.
    own : dict of Spread
        Chaotic subjects: Brian2's run among runs of evsim from other initial states.
    states : dict of StateErrors
    traces : Traces
    located : Parting or Finding or None
        Where the difference shows first, found from what the two did alone.
    parted : float or None
        ms up to which every event has a partner; None if all have.
    log, peer_log : EventLog or ContinuousLog
    version : str
        Of Brian2, and how it ran.
    seconds : dict of float
        Wall times: ``evsim``, ``Brian2``, ``Brian2, preparing``, ``all``.
    """

    subject: Subject
    planted: Plant | None = None
    criteria: list[Criterion] = field(default_factory=list)
    comparison: Comparison | None = None
    convergence: Convergence | None = None
    prediction: Prediction | None = None
    entries: list[Entry] = field(default_factory=list)
    statistics: dict[str, Statistics] = field(default_factory=dict)
    own: dict[str, Spread] = field(default_factory=dict)
    states: dict[str, StateErrors] = field(default_factory=dict)
    traces: Traces = field(default_factory=lambda: Traces(np.zeros(0), {}, {}))
    located: Parting | Finding | None = None
    parted: float | None = None
    log: Any = None
    peer_log: Any = None
    version: str = ""
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether all tolerances hold."""
        return bool(self.criteria) and all(one.ok for one in self.criteria)

    @property
    def reasons(self) -> list[str]:
        """The tolerances that do not."""
        failed = (one for one in self.criteria if not one.ok)
        return [f"{one.name}: {one.measured}, allowed {one.allowed}" for one in failed]

    def measure_states(self) -> None:
        """Set ``states`` from ``traces``."""
        for name, mine in self.traces.mine.items():
            found = state_errors(mine, self.traces.theirs[name], self.traces.times)
            if found is not None:
                self.states[name] = found


def at_most(name: str, value: float, limit: float, unit: str = "") -> Criterion:
    """That a number is no larger than a limit; NaN is.  A limit of 0 is for counts."""
    shown = f"{value:.3g}{unit}" if limit else f"{value:,.0f}"
    shown = shown if value == value else "not a number"
    allowed = f"{limit:g}{unit} or less" if limit else "none"
    return Criterion(name, shown, allowed, value, limit, bool(value <= limit))
