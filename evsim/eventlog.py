"""The record of a run: what every population sent, what its readouts held, and what is needed to replay it.

A log lives in memory; `EventLog.save` and `EventLog.open` go through `evsim.log_writer` and
`evsim.log_file`.  Arrays are time-major: (step, lane, unit).  Times are in ms from the start of the
simulation: step ``s`` of the window is at ``(start_step + s) * dt``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evsim.continuous_log import ContinuousLog
from evsim.errors import LogError
from evsim.events import Events
from evsim.log import Log, PopulationRecord, same, same_arrays

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(eq=False, repr=False)
class PopulationLog(PopulationRecord):
    """What one population did in the window of a run.

    Attributes
    ----------
    name, kind : str
        Name, and type, such as ``"EventSource"``, ``"EGRU"`` or ``"DeltaLSTM"``.
    n_units : int
    dt : float
        Length of a step in ms.
    start_step : int
        Step of the simulation at which the window starts.
    events : Events or None
        What it sent within the window; None for populations that send nothing (readouts).
    carried : Events or None
        What it sent in the steps just before the window and may still be in flight; ``carried.n_steps`` is
        the longest delay.
    initial : mapping of str to ndarray, shape (n_lanes, n_units)
        States at the start of the window, by the names of `Population.states`; after a run not to be written
        into.
    tape : ndarray of float, shape (n_steps, n_lanes, k, n_units), or None
        What was recorded at every step, ``k = len(tape_fields)``.
    tape_fields : tuple of str
        EGRU: ``z r g q a`` (form evnn) or ``u z r p a`` (form paper); LIF: ``v a e i held``;
        DeltaGRU: ``r z n q h``; DeltaLSTM: ``i f g o c h``; readouts: ``v``; units opened from a file that
        holds their states: ``c``, ``h`` or ``v`` alone, which is not enough to replay from.
    checkpoints : ndarray of float, shape (ceil(n_steps / checkpoint), n_lanes, n_state), or None
        All states before every `EventLog.checkpoint` steps, as the core holds them; not kept in files.
    thresholds : ndarray of float, shape (n_units,), or None
        Live, like all parameters of a log that was not read from a file.
    lengths : ndarray of int64, shape (n_lanes,), or None
        Steps of each lane; set by the `EventLog`.  None: all lanes are as long as the window.
    gradient : ndarray of float, shape (n_events,), or None
        dL/d(payload) of each event, where `Gradients.mark` has written it.
    time_gradient
        None: on a grid there is none.
    """

    name: str
    kind: str
    n_units: int
    dt: float
    start_step: int
    events: Events | None = None
    carried: Events | None = None
    initial: Mapping[str, NDArray] = field(default_factory=dict)
    tape: NDArray | None = None
    tape_fields: tuple[str, ...] = ()
    checkpoints: NDArray | None = None
    thresholds: NDArray | None = None
    lengths: NDArray[np.int64] | None = None
    gradient: NDArray | None = None
    time_gradient: ClassVar[None] = None

    def __repr__(self) -> str:
        what = "no events" if self.events is None else repr(self.events)
        return f"PopulationLog('{self.name}', {self.kind}, {what}, tape of {self.tape_fields or 'nothing'})"

    # -- states ------------------------------------------------------------------------------------------

    @property
    def state_name(self) -> str | None:
        """``"v"``, ``"h"`` or ``"c"``, whichever `state` gives; None when no states were recorded."""
        if self.tape is None:
            return None
        return next((name for name in ("v", "h") if name in self.tape_fields), "c")

    @property
    def state(self) -> NDArray:
        """State after each step, shape (n_steps, n_lanes, n_units).

        That is v of a readout, and of LIF after reset, a delta unit's h, or EGRU's c after reset.

        For EGRU it is made from the tape with the present thresholds: c = a - o theta with o = [a > theta] in
        EvNN's form, c = a in the paper's (see `evsim.models.egru`).  Beyond the end of a shorter lane it
        means nothing.

        Raises
        ------
        LogError
            No states were recorded.
        """
        if self.tape is None:
            raise LogError(
                f"population '{self.name}'",
                f"no states of this {self.kind} were recorded",
                "run with tape=True; a file holds those of units that send only after save(states=True)",
            )
        for recorded in ("v", "h", "c"):
            if recorded in self.tape_fields:
                return self.tape[:, :, self.tape_fields.index(recorded)]
        before_reset = self.tape[:, :, self.tape_fields.index("a")]
        if "u" in self.tape_fields:  # the paper's form resets by subtracting the event in the next step
            return before_reset
        return np.where(before_reset > self.thresholds, before_reset - self.thresholds, before_reset)

    # -- events ------------------------------------------------------------------------------------------

    @property
    def time(self) -> NDArray[np.float64]:
        """Time of every event in ms, counted from the start of the simulation; shape (n_events,)."""
        return (self._sent.step + self.start_step) * np.float64(self.dt)

    @property
    def lane_steps(self) -> int:
        """Steps summed over lanes."""
        if self.lengths is not None:
            return int(self.lengths.sum())
        return 0 if self.events is None else self.events.n_steps * self.events.n_lanes

    @property
    def activity(self) -> float:
        """Events / (units x lane-steps), the alpha of the EGRU papers."""
        return self.n_events / max(self.n_units * self.lane_steps, 1)

    # -- pictures and comparison -------------------------------------------------------------------------

    def plot_raster(self, ax: Axes | None = None, **options: Any) -> Axes:
        """Raster of the events; options are those of `evsim.raster.raster`."""
        from evsim.raster import raster

        return raster(self._sent, self.dt, self.start_step, ax=ax, **options)

    def summary(self) -> dict:
        """One row of `EventLog.summary`."""
        from evsim.raster import summary_row

        return {"population": self.name, "type": self.kind, "units": self.n_units} | summary_row(
            self.events, self.dt, self.lengths
        )

    def equal(self, other: PopulationLog) -> bool:
        """Whether events, what was carried, initial states, thresholds, gradients and readouts' states agree.

        To the last bit.
        States of units that send count only when both logs hold them: they follow from the events.
        """
        mine, theirs = self.state_name, other.state_name
        reads = self.events is None or other.events is None
        return (
            _facts(self) == _facts(other)
            and _same_events(self.events, other.events)
            and _same_events(self.carried, other.carried)
            and same_arrays(self.initial, other.initial)
            and same(self.thresholds, other.thresholds)
            and same(self.gradient, other.gradient)
            and (mine == theirs if reads else True)
            and (mine is None or theirs is None or same(self.state, other.state))
        )


@dataclass(eq=False, repr=False)
class EventLog(Log[PopulationLog]):
    """Everything a run leaves behind, and everything `Adjoint` needs to replay it.

    Attributes
    ----------
    populations : dict of str to PopulationLog
        In the order of the network.
    dt : float
        Length of a step in ms.
    start_step, n_steps, n_lanes : int
        The window: steps ``start_step`` to ``start_step + n_steps`` (exclusive) of ``n_lanes`` replicas.
    lengths : ndarray of int64, shape (n_lanes,)
        Steps of each lane, at most ``n_steps``.
    counters : dict
        Operation counts of the forward run: ``lane_steps``, ``events`` per population, ``macs`` and
        ``dense_macs`` per projection.
    network : dict
        ``Network.describe()``, one dict for all logs of a plan: not to be written into.
    parameters : dict of str to ndarray
        By name, ``"cue->hidden.weight"``; float, or integer for the structure of sparse weights.  After a run
        these are the network's live arrays, which an optimiser writes into: save a log before that.
    provenance : dict
        As made by `evsim.provenance.provenance`.
    checkpoint : int or None
        Steps from one checkpoint to the next.
    gains : dict of str to ndarray, shape (n_lanes, units of the source)
        What payloads were multiplied by on their way through some projections, by name; not kept in files.

    Raises
    ------
    LogError
        Sizes that contradict each other.
    """

    populations: dict[str, PopulationLog]
    _: KW_ONLY
    dt: float
    start_step: int
    n_steps: int
    n_lanes: int
    lengths: NDArray[np.int64]
    counters: dict[str, Any] = field(default_factory=dict)
    network: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, NDArray] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    checkpoint: int | None = None
    gains: dict[str, NDArray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.n_lanes < 1 or self.n_steps < 0 or self.start_step < 0 or not self.dt > 0:
            sizes = f"{self.n_lanes} lanes x {self.n_steps} steps of {self.dt} ms from step {self.start_step}"
            raise LogError("log", sizes, "a log has lanes, and steps counted from 0 up")
        lengths = self.lengths = np.ascontiguousarray(self.lengths, np.int64)
        steps, n_lanes, n_steps = lengths.tolist(), self.n_lanes, self.n_steps
        if lengths.shape != (n_lanes,) or min(steps) < 0 or max(steps) > n_steps:
            raise LogError(
                "log",
                f"lengths {np.array2string(lengths, threshold=8)}",
                f"give {n_lanes} numbers in 0..{n_steps}",
            )
        for name, population in self.populations.items():
            population.lengths = lengths
            events = population.events
            if events is None:
                continue
            if not (
                events.n_steps == n_steps
                and events.n_lanes == n_lanes
                and events.n_units == population.n_units
            ):
                raise LogError(f"population '{name}'", f"{events!r}", "its window is not that of the log")

    def __repr__(self) -> str:
        kinds = ", ".join(f"{p.name}:{p.kind}({p.n_units})" for p in self.populations.values())
        return f"EventLog({kinds}; {self.n_lanes} lanes x {self.n_steps} steps of {self.dt:g} ms)"

    @property
    def duration(self) -> float:
        """Length of the window in ms."""
        return self.n_steps * self.dt

    def save(self, path: str | Path, overwrite: bool = False, states: bool = False) -> Path:
        """Write the log as a SONATA HDF5 file and return its path.

        It is written beside the target under a hidden name and renamed when whole, so that the name ``path``
        never stands for half a log.  The tape of units that send is not kept: events and initial states
        determine it.

        Parameters
        ----------
        path : str or Path
        overwrite : bool
            Whether an existing file may be replaced.
        states : bool
            Whether to keep the states of units that send too (readouts' always are).

        Raises
        ------
        LogError
            The file exists, or cannot be written.
        """
        from evsim.log_writer import write_whole

        return write_whole(self, path, overwrite=overwrite, states=states)

    @classmethod
    def open(cls, path: str | Path) -> EventLog | ContinuousLog:
        """Read a file made by `save` or a `LogWriter`; that of a run in continuous time becomes a
        `ContinuousLog`.

        A file that is still being written, or whose writer was killed, is read as far as it is on disk; see
        `LogFile` for files larger than memory.

        Raises
        ------
        LogError
            The file is missing, foreign, damaged or inconsistent.
        """
        from evsim.log_file import LogFile

        with LogFile(path) as file:
            return file.window()

    def figure(self, **options: Any) -> Figure:
        """Draw all populations that send events, stacked; options are those of `evsim.raster.figure`."""
        from evsim.raster import figure

        sent = {name: p.events for name, p in self.populations.items() if p.events is not None}
        return figure(sent, self.dt, self.start_step, lengths=self.lengths, **options)

    def equal(self, other: EventLog) -> bool:
        """Whether two logs hold the same run: the same bits in all that a file keeps."""
        return (
            (self.dt, self.start_step, self.n_steps, self.n_lanes)
            == (other.dt, other.start_step, other.n_steps, other.n_lanes)
            and np.array_equal(self.lengths, other.lengths)
            and self.names == other.names
            and all(self[name].equal(other[name]) for name in self)
            and self.equal_about(other)
        )


def _facts(log: PopulationLog) -> tuple:
    return log.name, log.kind, log.n_units, log.dt, log.start_step


def _same_events(mine: Events | None, theirs: Events | None) -> bool:
    if mine is None or theirs is None:
        return mine is theirs
    return mine.equal(theirs) and same(mine.value, theirs.value)
