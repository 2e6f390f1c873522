"""One network, run by evsim and by Brian2: are the events the same, and how far apart are the states?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.errors import LogError
from evsim.events import Events

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from evsim.brian.twin import BrianRun

#: Steps of the raster and the trace in a picture, unless told otherwise.
DRAWN_STEPS = 80
#: Where the logarithmic axis ends; differences of exactly zero are drawn here.
FLOOR = 1e-18


@dataclass(frozen=True, eq=False)
class FirstDifference:
    """The first event that only one side has.

    Attributes
    ----------
    step, unit : int
    value, peer_value : float or None
        What evsim and Brian2 sent there; None for no event.
    steps : ndarray of int
        The steps around it,
    state, peer_state : ndarray of float64, or None
        and the state of the unit after them; None for populations without a state.
    """

    step: int
    unit: int
    value: float | None
    peer_value: float | None
    steps: NDArray[np.int64]
    state: NDArray | None
    peer_state: NDArray | None

    def __str__(self) -> str:
        who, value = ("only Brian2", self.peer_value) if self.value is None else ("only evsim", self.value)
        text = f"step {self.step}, unit {self.unit}: {who} sent {value:.6g}"
        if self.state is None or self.peer_state is None:
            return text
        pairs = ", ".join(f"{a:.6g} | {b:.6g}" for a, b in zip(self.state, self.peer_state, strict=True))
        return f"{text}; states (evsim | Brian2) after steps {self.steps[0]}..{self.steps[-1]}: {pairs}"


@dataclass(frozen=True, eq=False)
class PopulationComparison:
    """Both runs of one population.

    Attributes
    ----------
    name : str
    n_units : int
    n_events, n_peer_events : int or None
        None for populations that send none.
    first : FirstDifference or None
        None if both sent events at the same steps from the same units.
    value_error : float
        Largest |difference| of the values of the events that both sent; 0 if there are none.
    state_error : float or None
        Largest |difference| of the states; None for populations without a state.
    """

    name: str
    n_units: int
    n_events: int | None
    n_peer_events: int | None
    first: FirstDifference | None
    value_error: float
    state_error: float | None

    def ok(self, tolerance: float) -> bool:
        """Same events, values and states within the tolerance (NaN is not)."""
        states = self.state_error is None or self.state_error <= tolerance
        return self.first is None and self.value_error <= tolerance and states


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `compare` found.

    Attributes
    ----------
    populations : dict of PopulationComparison
    events, states : dict of Events, dict of ndarray of shape (n_steps, n_units)
        evsim's side.
    peer : BrianRun
    seconds : float
        Wall time of evsim's run, nan if not known; Brian2's is ``peer.seconds``.
    """

    populations: dict[str, PopulationComparison]
    events: Mapping[str, Events] = field(repr=False)
    states: Mapping[str, NDArray] = field(repr=False)
    peer: BrianRun = field(repr=False)
    seconds: float

    def ok(self, tolerance: float = 1e-12) -> bool:
        """Whether all events are equal, and all values and states within ``tolerance``."""
        return bool(self.populations) and all(p.ok(tolerance) for p in self.populations.values())

    def table(self) -> list[dict[str, object]]:
        """A row for each population; entries that mean nothing for it are None."""
        return [
            {
                "population": p.name,
                "units": p.n_units,
                "events evsim": p.n_events,
                "events Brian2": p.n_peer_events,
                "first difference": None if p.first is None else f"step {p.first.step}, unit {p.first.unit}",
                "max |value difference|": None if p.n_events is None else p.value_error,
                "max |state difference|": p.state_error,
            }
            for p in self.populations.values()
        ]

    def __str__(self) -> str:
        lines = []
        for p in self.populations.values():
            line = f"{p.name}: {p.n_units} units"
            if p.n_events is not None:
                line += f", {p.n_events} | {p.n_peer_events} events, values within {p.value_error:.1e}"
            line += "" if p.state_error is None else f", states within {p.state_error:.1e}"
            lines.append(line if p.first is None else f"{line}; first difference at {p.first}")
        peer = self.peer
        times = f"wall time: evsim {self.seconds:.3g} s, {peer.version} {peer.seconds:.3g} s"
        return "\n".join([*lines, f"{times} (and {peer.prepare_seconds:.3g} s to generate code)"])

    def draw(
        self,
        path: str | Path,
        population: str | None = None,
        unit: int | None = None,
        steps: tuple[int, int] | None = None,
        tolerance: float = 1e-12,
    ) -> None:
        """Draw both rasters, the state of one unit of both, and the differences of all states.

        Of a population without a state, what the unit sent is drawn instead.

        Parameters
        ----------
        path : str or Path
            The ending chooses the format.
        population : str, optional
            One that sends events; by default the first with a difference in them, else the last with a state.
        unit : int, optional
            Of the trace; by default that of the first difference, else the busiest.
        steps : (start, stop), optional
            Of raster and trace; by default those around the first difference, else the last ones.
        tolerance : float
            Drawn as a line.
        """
        from matplotlib.figure import Figure

        name = self._worth_drawing() if population is None else population
        if name is None or name not in self.events:
            raise LogError(f"population '{name}'", "has no events to draw", f"draw one of {[*self.events]}")
        first = self.populations[name].first
        n_steps = self.events[name].n_steps
        if steps is None:
            stop = n_steps if first is None else min(n_steps, first.step + DRAWN_STEPS // 2)
            steps = max(0, stop - DRAWN_STEPS), stop
        if unit is None:
            inside = self.events[name].window(*steps)
            unit = first.unit if first else int(np.bincount(inside.unit, minlength=inside.n_units).argmax())
        figure = Figure(figsize=(10, 10), layout="constrained")
        raster, trace, error = figure.subplots(3, 1, height_ratios=(3, 2, 2))
        verdict = "equal" if self.ok(tolerance) else "not equal"
        figure.suptitle(f"evsim and {self.peer.version}: {verdict} within {tolerance:g}")
        self._draw_raster(raster, name, steps)
        self._draw_trace(trace, name, unit, steps)
        trace.sharex(raster)
        self._draw_error(error, tolerance)
        figure.savefig(path, dpi=120)

    def _worth_drawing(self) -> str | None:
        senders = [p for p in self.populations.values() if p.n_events is not None]
        best = [p for p in senders if p.state_error is not None] or senders
        return next((p.name for p in senders if p.first), best[-1].name if best else None)

    def _draw_raster(self, ax: Axes, name: str, steps: tuple[int, int]) -> None:
        mine, theirs = self.events[name], self.peer.events[name]
        marks: dict[str, Any] = {"marker": "|", "color": "C0", "markersize": 5}
        rings = {"marker": "o", "color": "C3", "markersize": 6, "mfc": "none", "markeredgewidth": 0.6}
        for side, events, style in (("evsim", mine, marks), ("Brian2", theirs, rings)):
            drawn = events.window(*steps)
            when = (drawn.step + steps[0]) * self.peer.dt
            ax.plot(when, drawn.unit, linestyle="", label=f"{side}, {len(events)} events in all", **style)
        ax.set(ylabel="unit", ylim=(-1, mine.n_units))
        ax.tick_params(labelbottom=False)
        _head(ax, f"Events of '{name}'")

    def _draw_trace(self, ax: Axes, name: str, unit: int, steps: tuple[int, int]) -> None:
        when = np.arange(*steps) * self.peer.dt
        if name in self.states:
            what, label = "State", "state after the step (dimensionless)"
            mine, theirs = (side[name][slice(*steps), unit] for side in (self.states, self.peer.states))
        else:
            what, label = "Events", "value sent (dimensionless)"
            sent = (side[name].window(*steps) for side in (self.events, self.peer.events))
            mine, theirs = (events.to_dense()[:, 0, unit] for events in sent)
        ax.plot(when, mine, color="C0", label="evsim")
        ax.plot(when, theirs, "o", color="C3", markersize=4, markerfacecolor="none", label="Brian2")
        ax.set(xlabel="time (ms)", ylabel=label)
        _head(ax, f"{what} of unit {unit} of '{name}'")

    def _draw_error(self, ax: Axes, tolerance: float) -> None:
        for name, theirs in self.peer.states.items():
            error = np.abs(self.states[name] - theirs).max(axis=1)
            ax.plot(np.arange(len(error)) * self.peer.dt, np.maximum(error, FLOOR), linewidth=0.8, label=name)
        ax.axhline(tolerance, color="black", linestyle="--", linewidth=0.8, label=f"tolerance {tolerance:g}")
        ax.set(yscale="log", ylabel="max |difference| (dimensionless)")
        ax.set_xlabel(f"time (ms), whole run; differences of exactly 0 are drawn at {FLOOR:g}")
        ax.set_ylim(FLOOR / 3, None)
        _head(ax, "Differences of states")


def _head(ax: Axes, title: str) -> None:
    """Title on the left, legend on the right, both above the axes."""
    ax.set_title(title, loc="left")
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=6, frameon=False, fontsize="small")


def compare(
    events: Mapping[str, Events],
    states: Mapping[str, ArrayLike],
    peer: BrianRun,
    seconds: float = float("nan"),
) -> Comparison:
    """Compare a run of evsim with one of Brian2.

    Parameters
    ----------
    events : dict of Events
        By population, one lane; every population that sends events.
    states : dict of array, shape (n_steps, n_units) or (n_steps, 1, n_units)
        By population, those of ``peer.states``.
    peer : BrianRun
    seconds : float
        Wall time of evsim's run.

    Raises
    ------
    LogError
        The two runs are not of the same populations, units, lanes and steps.
    """
    for what, ours, peers in (("events", [*events], [*peer.events]), ("states", [*states], [*peer.states])):
        if set(ours) != set(peers):
            problem = f"evsim has {what} of {sorted(ours)}, Brian2 of {sorted(peers)}"
            raise LogError("comparison", problem, "give the same")
    plain = {name: _plain(name, state, peer.states[name].shape) for name, state in states.items()}
    found = {}
    for name in dict.fromkeys([*peer.events, *peer.states]):
        state, peer_state = plain.get(name), peer.states.get(name)
        state_error = None
        if state is not None and peer_state is not None:
            state_error = float(np.abs(state - peer_state).max())
            n_units = state.shape[1]
        if name in events:
            mine, theirs = events[name], peer.events[name]
            first, value_error = _compare_events(name, mine, theirs, state, peer_state)
            counts: tuple[int | None, int | None] = len(mine), len(theirs)
            n_units = mine.n_units
        else:
            first, value_error, counts = None, 0.0, (None, None)
        found[name] = PopulationComparison(name, n_units, *counts, first, value_error, state_error)
    return Comparison(found, events, plain, peer, seconds)


def _plain(name: str, state: ArrayLike, shape: tuple[int, ...]) -> NDArray:
    array = np.asarray(state)
    if array.shape not in (shape, (shape[0], 1, *shape[1:])):
        problem = f"its states have shape {array.shape}, Brian2's {shape}"
        raise LogError(f"population '{name}'", problem, "compare one lane, same steps")
    return array.reshape(shape)


def _compare_events(
    name: str, mine: Events, theirs: Events, state: NDArray | None, peer_state: NDArray | None
) -> tuple[FirstDifference | None, float]:
    """The first event that only one side has, and the largest difference of values of the others."""
    sizes = [(e.n_steps, e.n_lanes, e.n_units) for e in (mine, theirs)]
    if sizes[0] != sizes[1] or mine.n_lanes != 1:
        problem = f"{mine!r} against {theirs!r}"
        raise LogError(f"population '{name}'", problem, "compare one lane, same steps and units")
    # one number for each (step, unit), in the order of the events
    key, peer_key = (e.step * e.n_units + e.unit for e in (mine, theirs))
    _, here, there = np.intersect1d(key, peer_key, assume_unique=True, return_indices=True)
    value_error = float(np.abs(mine.value[here] - theirs.value[there]).max(initial=0.0))
    only = np.setxor1d(key, peer_key, assume_unique=True)
    if not only.size:
        return None, value_error
    step, unit = divmod(int(only[0]), mine.n_units)
    value, peer_value = (_value_at(e, step, unit) for e in (mine, theirs))
    steps = np.arange(max(0, step - 2), min(mine.n_steps, step + 3))
    around, peer_around = (None if s is None else s[steps, unit] for s in (state, peer_state))
    return FirstDifference(step, unit, value, peer_value, steps, around, peer_around), value_error


def _value_at(events: Events, step: int, unit: int) -> float | None:
    units, values = events.at(step, 0)
    there = np.nonzero(units == unit)[0]
    return float(values[there[0]]) if there.size else None
