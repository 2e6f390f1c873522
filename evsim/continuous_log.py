"""The record of a run in continuous time: what every population sent and when, and its states at samples.

A log lives in memory; `ContinuousLog.save` and `ContinuousLog.open` go through `evsim.log_writer` and
`evsim.log_file`.  Times are in ms from the start of the simulation; arrays are in the order (sample, lane,
unit).
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evsim.errors import LogError
from evsim.log import Log, PopulationRecord, same, same_arrays
from evsim.timed_events import TimedEvents

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: The state of each type of unit that is sampled; of other types, the first of these that it has.
SAMPLED_STATE = {
    "EGRU": "c",
    "LIF": "v",
    "LeakyReadout": "v",
    "DeltaReadout": "v",
    "DeltaGRU": "h",
    "DeltaLSTM": "h",
}
#: Arrays that have a row for each sample.
SAMPLED = ("state", "integral", "square")
#: Columns that `Gradients.mark` writes beside the events.
MARKED = ("gradient", "time_gradient")


@dataclass(eq=False, repr=False)
class ContinuousPopulationLog(PopulationRecord):
    """What one population did in the window of a run in continuous time.

    Attributes
    ----------
    name, kind : str
        Name, and type, such as ``"EventSource"``, ``"EGRU"`` or ``"LIF"``.
    n_units : int
    events : TimedEvents or None
        What it sent within the window; None for populations that send nothing (readouts).
    initial : dict of str to ndarray of float64, shape (n_lanes, n_units)
        States at the start of the window, by the names of `Population.states`.
    state : ndarray of float64, shape (n_samples, n_lanes, n_units), or None
        The state `state_name` at each sample time, just before the events of that instant; None for
        populations without a state, and where no samples were asked for.
    integral, square : ndarray of float64, shape (n_samples, n_lanes, n_units), or None
        Integral over time of that state (times ms), and of its square, from the sample before, or the start
        of the window, to each sample.
    thresholds : ndarray of float, shape (n_units,), or None
        Live, like all parameters of a log that was not read from a file.
    gradient : ndarray of float64, shape (n_events,), or None
        dL/d(payload) of each event, where `Gradients.mark` has written it.
    time_gradient : ndarray of float64, shape (n_events,), or None
        dL/d(time) in 1/ms, likewise.
    """

    name: str
    kind: str
    n_units: int
    events: TimedEvents | None = None
    initial: dict[str, NDArray] = field(default_factory=dict)
    state: NDArray[np.float64] | None = None
    integral: NDArray[np.float64] | None = None
    square: NDArray[np.float64] | None = None
    thresholds: NDArray | None = None
    gradient: NDArray[np.float64] | None = None
    time_gradient: NDArray[np.float64] | None = None

    def __repr__(self) -> str:
        what = "no events" if self.events is None else repr(self.events)
        samples = 0 if self.state is None else len(self.state)
        return f"ContinuousPopulationLog('{self.name}', {self.kind}, {what}, {samples} samples)"

    @property
    def state_name(self) -> str | None:
        """``"v"``, ``"h"`` or ``"c"``, whichever `state` holds; None when there are no samples."""
        if self.state is None:
            return None
        known = (name for name in ("v", "h", "c") if name in self.initial)
        return SAMPLED_STATE.get(self.kind) or next(known, "v")

    @property
    def time(self) -> NDArray[np.float64]:
        """Time of every event in ms, counted from the start of the simulation; shape (n_events,)."""
        return self._sent.time

    @property
    def rate(self) -> float:
        """Events per unit, lane and second (Hz); 0 for populations that send nothing."""
        return 0.0 if self.events is None else self.events.rate

    @property
    def activity(self) -> None:
        """None: events per unit and step mean nothing without steps; see `rate`."""
        return None

    def plot_raster(self, ax: Axes | None = None, **options: Any) -> Axes:
        """Raster of the events; options are those of `evsim.raster.raster`."""
        from evsim.raster import raster

        return raster(self._sent, ax=ax, **options)

    def summary(self) -> dict:
        """One row of `ContinuousLog.summary`."""
        from evsim.raster import timed_summary_row

        row = {"population": self.name, "type": self.kind, "units": self.n_units}
        return row | timed_summary_row(self.events)

    def equal(self, other: ContinuousPopulationLog) -> bool:
        """Whether events, initial states, thresholds, samples and gradients have the same bits."""
        mine, theirs = self.events, other.events
        return (
            (self.name, self.kind, self.n_units) == (other.name, other.kind, other.n_units)
            and (mine is theirs if mine is None or theirs is None else mine.equal(theirs))
            and same_arrays(self.initial, other.initial)
            and same(self.thresholds, other.thresholds)
            and all(same(getattr(self, name), getattr(other, name)) for name in (*SAMPLED, *MARKED))
        )


@dataclass(eq=False, repr=False)
class ContinuousLog(Log[ContinuousPopulationLog]):
    """Everything a run in continuous time leaves behind.

    Attributes
    ----------
    populations : dict of str to ContinuousPopulationLog
        In the order of the network.
    start, duration : float
        The window in ms: [start, start + duration).
    n_lanes : int
    samples : ndarray of float64, shape (n_samples,)
        Increasing times in [start, start + duration] of samples of states; None is taken for none.
    counters : dict
        Operation counts of the forward run.
    network : dict
        ``Network.describe()``, one dict for all logs of a plan: not to be written into.
    parameters : dict of str to ndarray
        By name, ``"cue->hidden.weight"``; after a run the network's live arrays: save a log before an
        optimiser writes into them.
    provenance : dict
        As made by `evsim.provenance.provenance`.
    tape : object or None
        What the core needs to replay the run; not kept in files.

    Raises
    ------
    LogError
        Sizes that contradict each other.
    """

    populations: dict[str, ContinuousPopulationLog]
    _: KW_ONLY
    start: float
    duration: float
    n_lanes: int
    samples: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    counters: dict[str, Any] = field(default_factory=dict)
    network: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, NDArray] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    tape: Any = None

    def __post_init__(self) -> None:
        self.start, self.duration = float(self.start), float(self.duration)
        if not (self.n_lanes >= 1 and self.start >= 0 and self.duration >= 0 and math.isfinite(self.stop)):
            sizes = f"{self.n_lanes} lanes x {self.duration} ms from {self.start} ms"
            raise LogError("log", sizes, "a log has lanes, and times counted from 0 up")
        self.samples = np.zeros(0) if self.samples is None else np.ascontiguousarray(self.samples, np.float64)
        _check_samples(self.samples, self.start, self.stop)
        for name, population in self.populations.items():
            self._check_population(name, population)

    def _check_population(self, name: str, population: ContinuousPopulationLog) -> None:
        where, events = f"population '{name}'", population.events
        window = (population.n_units, self.n_lanes, self.start, self.stop)
        if events is not None and (events.n_units, events.n_lanes, events.start, events.stop) != window:
            raise LogError(where, f"{events!r}", "its window is not that of the log")
        shape = (len(self.samples), self.n_lanes, population.n_units)
        for what in SAMPLED:
            array = getattr(population, what)
            if array is not None and (array.shape != shape or array.dtype != np.float64):
                raise LogError(
                    where, f"its {what} has shape {array.shape}, {array.dtype}", f"give {shape}, float64"
                )

    def __repr__(self) -> str:
        kinds = ", ".join(f"{p.name}:{p.kind}({p.n_units})" for p in self.populations.values())
        return f"ContinuousLog({kinds}; {self.n_lanes} lanes, {self.start:g} to {self.stop:g} ms)"

    @property
    def stop(self) -> float:
        """End of the window in ms; an event there belongs to the next one."""
        return self.start + self.duration

    @property
    def dt(self) -> None:
        """None: there are no steps."""
        return None

    def figure(self, **options: Any) -> Figure:
        """Draw all populations that send events, stacked; options are those of `evsim.raster.figure`."""
        from evsim.raster import figure

        return figure(
            {name: p.events for name, p in self.populations.items() if p.events is not None}, **options
        )

    def save(self, path: str | Path, overwrite: bool = False) -> Path:
        """Write the log as a SONATA HDF5 file and return its path.

        It is written beside the target under a hidden name and renamed when whole, so that the name ``path``
        never stands for half a log.  Everything is kept but `tape`.

        Parameters
        ----------
        path : str or Path
        overwrite : bool
            Whether an existing file may be replaced.

        Raises
        ------
        LogError
            The file exists, or cannot be written.
        """
        from evsim.log_writer import write_whole

        return write_whole(self, path, overwrite=overwrite)

    @classmethod
    def open(cls, path: str | Path) -> ContinuousLog:
        """Read a file made by `save`; `EventLog.open` does that for logs of both kinds.

        Raises
        ------
        LogError
            The file is missing, foreign, damaged or inconsistent, or of a run in steps.
        """
        from evsim.log_file import LogFile

        with LogFile(path) as file:
            if not file.continuous:
                raise LogError(f"log {str(path)!r}", "is of a run in steps", "open it with EventLog.open")
            log = file.window()
        assert isinstance(log, ContinuousLog)
        return log

    def equal(self, other: ContinuousLog) -> bool:
        """Whether two logs hold the same run: the same bits in all that a file keeps."""
        return (
            (self.start, self.duration, self.n_lanes) == (other.start, other.duration, other.n_lanes)
            and same(self.samples, other.samples)
            and self.names == other.names
            and all(self[name].equal(other[name]) for name in self)
            and self.equal_about(other)
        )


def _check_samples(samples: NDArray[np.float64], start: float, stop: float) -> None:
    inside = (samples >= start) & (samples <= stop)  # NaN is not
    if samples.ndim != 1 or not inside.all():
        outside = samples[~inside]
        problem = f"a sample at {outside[0]} ms" if outside.size else f"samples have shape {samples.shape}"
        raise LogError("log", problem, f"give times from {start} to {stop} ms in one dimension")
    if (samples[1:] <= samples[:-1]).any():
        late = int(np.flatnonzero(samples[1:] <= samples[:-1])[0])
        problem = f"a sample at {samples[late + 1]} ms follows one at {samples[late]} ms"
        raise LogError("log", problem, "sample times increase")
