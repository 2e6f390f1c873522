"""Pictures of a cross-check: events, states, intervals, differences and convergence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evsim.brian.result import Crosscheck

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Colours of evsim, Brian2, ink and grid.
MINE, THEIRS, INK, GRID = "#1f5fa8", "#c8501e", "#1f2933", "#d9dfe5"
#: Events and units of a raster at most: more are not told apart.
MOST_EVENTS, MOST_UNITS = 900, 60
#: ms of a raster where two chaotic runs part.
CHAOTIC_WINDOW = 300.0
#: Where a logarithmic axis ends; differences of exactly 0 are drawn there.
FLOOR = 1e-18
#: A dimensionless quantity, in labels of axes.
NO_UNIT = "(dimensionless)"


def figures(result: Crosscheck) -> dict[str, tuple[Figure, str]]:
    """The pictures that there are for a result, by name, with a caption each."""
    makers: dict[str, Callable[[Crosscheck], tuple[Figure, str] | None]] = {
        "events": _events,
        "states": _states,
        "differences": _differences,
        "convergence": _convergence,
        "intervals": _intervals,
    }
    found = {name: make(result) for name, make in makers.items()}
    return {name: pair for name, pair in found.items() if pair is not None}


def _figure(height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def _tidy(ax: Axes, title: str = "", legend: bool = True) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8, colors=INK)
    ax.set_title(title, loc="left", fontsize=9, color=INK)
    if legend:
        ax.legend(
            loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False, fontsize=8, borderaxespad=0.2
        )


def _columns(events: Any, dt: float | None) -> tuple[NDArray[np.float64], NDArray]:
    """Times in ms, and units."""
    return (events.step * dt if hasattr(events, "step") else events.time), events.unit


def _sides(result: Crosscheck) -> dict[str, tuple[tuple[NDArray, NDArray], tuple[NDArray, NDArray]]]:
    """By population that sends on its own: times and units of evsim and of Brian2."""
    dt = result.subject.network.dt
    mine: Mapping[str, Any]
    theirs: Mapping[str, Any]
    if result.comparison is not None:
        mine, theirs = result.comparison.events, result.comparison.peer.events
    else:
        assert result.convergence is not None
        finest = result.convergence.comparisons[-1]
        mine, theirs = finest.run.events, finest.peer.events
    return {name: (_columns(mine[name], dt), _columns(theirs[name], dt)) for name in mine}


def _window(result: Crosscheck, sides: dict[str, Any]) -> tuple[float, float]:
    """The stretch of time to draw: all, or what holds few enough events, around where the two part."""
    duration = result.subject.duration
    n_events = sum(len(mine[0]) for mine, _ in sides.values())
    if result.subject.chaotic and result.parted is not None:
        return 0.0, min(duration, max(CHAOTIC_WINDOW, 2 * result.parted))
    units = sum(min(1.0, MOST_UNITS / _n_units(result, name)) * len(s[0][0]) for name, s in sides.items())
    if n_events == 0 or units <= MOST_EVENTS:
        return 0.0, duration
    length = duration * MOST_EVENTS / units
    centre = result.located.time if result.located else result.parted
    start = 0.0 if centre is None else max(0.0, min(centre - length / 2, duration - length))
    return start, start + length


def _n_units(result: Crosscheck, name: str) -> int:
    return result.subject.network[name].n_units


def _events(result: Crosscheck) -> tuple[Figure, str] | None:
    sides = _sides(result)
    if not sides:
        return None
    start, stop = _window(result, sides)
    shown = {name: min(MOST_UNITS, _n_units(result, name)) for name in sides}
    heights = [0.35 + n / 40 for n in shown.values()]
    figure, axes = _figure(min(8.5, 1.2 + 1.5 * sum(heights)), len(sides), sharex=True, height_ratios=heights)
    for ax, (name, (mine, theirs)) in zip(axes[:, 0], sides.items(), strict=True):
        first = 0
        if result.located is not None and result.located.population == name:
            first = max(0, min(result.located.unit - MOST_UNITS // 2, _n_units(result, name) - MOST_UNITS))
        last = first + shown[name]
        for label, (time, unit), style in (
            ("evsim", mine, {"marker": "|", "color": MINE, "ms": 5.5, "mew": 1.1}),
            ("Brian2", theirs, {"marker": "o", "color": THEIRS, "ms": 5, "mfc": "none", "mew": 0.7}),
        ):
            inside = (time >= start) & (time <= stop) & (unit >= first) & (unit < last)
            rasterized = int(inside.sum()) > 3000
            text = f"{label}, {int((time < result.subject.duration).sum()):,} events in all"
            ax.plot(time[inside], unit[inside], linestyle="", label=text, rasterized=rasterized, **style)
        mark = result.located.time if result.located is not None else result.parted
        if mark is not None and start <= mark <= stop:
            ax.axvline(mark, color=INK, linewidth=0.7, linestyle=":")
        part = "" if shown[name] == _n_units(result, name) else f", {first} to {last - 1}"
        ax.set(ylabel=f"unit of '{name}'{part}", ylim=(first - 1, last), xlim=(start, stop))
        ax.yaxis.label.set_size(8)
        _tidy(ax)
    axes[-1, 0].set_xlabel("time (ms)", fontsize=9)
    caption = (
        f"Events of both, {start:.4g} to {stop:.4g} ms: a ring without a bar, or a bar without a ring, is"
    )
    caption += " an event that one side only has. "
    if result.located is not None:
        caption += f"Dotted: {result.located.time:.6g} ms, where the difference shows first."
    elif result.parted is not None:
        caption += f"Dotted: {result.parted:.4g} ms, up to which every event has a partner."
    return figure, caption


def worst_unit(result: Crosscheck) -> tuple[str, int] | None:
    """Population and unit whose states are worth drawing: where it differs first, else where it does most."""
    if result.located is not None and result.located.population in result.traces.mine:
        return result.located.population, result.located.unit
    if not result.states:
        return None
    name = max(result.states, key=lambda one: result.states[one].largest)
    return name, result.states[name].unit


def _states(result: Crosscheck) -> tuple[Figure, str] | None:
    worst, times = worst_unit(result), result.traces.times
    if worst is None:
        return None
    name, unit = worst
    mine, theirs = result.traces.mine[name][:, unit], result.traces.theirs[name][:, unit]
    centre = result.located.time if result.located else result.states[name].time
    span = 40 * result.subject.network.step if not result.subject.network.continuous else 15.0
    shown = np.abs(times - centre) <= span
    figure, axes = _figure(4.2, 2, sharex=True, height_ratios=(3, 2))
    top, bottom = axes[:, 0]
    when = times[shown]
    top.plot(when, mine[shown], color=MINE, linewidth=1.2, label="evsim")
    top.plot(when, theirs[shown], "o", color=THEIRS, markersize=2.6, mfc="none", mew=0.6, label="Brian2")
    state = _state_name(result, name)
    top.set_ylabel(f"{state} of '{name}' unit {unit}\n{NO_UNIT}", fontsize=9)
    bottom.plot(when, theirs[shown] - mine[shown], color=INK, linewidth=0.9, label="Brian2 minus evsim")
    bottom.axhline(0, color=GRID, linewidth=0.8, zorder=0)
    bottom.set_xlabel("time (ms)", fontsize=9)
    bottom.set_ylabel(f"difference\n{NO_UNIT}", fontsize=9)
    for ax in (top, bottom):
        if result.located is not None:
            ax.axvline(result.located.time, color=INK, linewidth=0.7, linestyle=":")
        _tidy(ax)
    why = "where a difference shows first" if result.located else "whose states are furthest apart"
    caption = f"State of unit {unit} of '{name}', {why}, around {centre:.6g} ms; below, the difference."
    if result.subject.network.continuous:
        caption += " Spikes of the difference lie between the two times of one event."
    return figure, caption


def _state_name(result: Crosscheck, name: str) -> str:
    member = result.log[name] if result.log is not None else None
    found = None if member is None else member.state_name
    return f"state {found}" if found else "state"


def _differences(result: Crosscheck) -> tuple[Figure, str] | None:
    if result.comparison is None or not result.traces.mine:
        return None
    tolerance = next(c.limit for c in result.criteria if c.name.startswith("Largest difference of states"))
    figure, axes = _figure(2.6)
    ax = axes[0, 0]
    for name, mine in result.traces.mine.items():
        error = np.abs(mine - result.traces.theirs[name]).max(axis=1)
        ax.plot(result.traces.times, np.maximum(error, FLOOR), linewidth=0.8, label=name)
    ax.axhline(tolerance, color=INK, linestyle="--", linewidth=0.8, label=f"tolerance {tolerance:g}")
    ax.set_yscale("log")
    ax.set_xlabel("time (ms)", fontsize=9)
    ax.set_ylabel(f"max |difference|\n{NO_UNIT}", fontsize=9)
    ax.set_ylim(FLOOR / 3, None)
    _tidy(ax)
    caption = "Largest difference of states over the units of each population, step by step; differences of"
    return figure, f"{caption} exactly 0 are drawn at {FLOOR:g}."


def _convergence(result: Crosscheck) -> tuple[Figure, str] | None:
    found = result.convergence
    if found is None or len(found.comparisons) < 2:
        return None
    figure, axes = _figure(3.0)
    ax = axes[0, 0]
    dt = np.array([c.dt for c in found.comparisons])
    mean = np.array([c.mean_error for c in found.comparisons])
    largest = np.array([c.max_error for c in found.comparisons])
    ax.plot(dt, mean, "o-", color=MINE, markersize=4, linewidth=1.1, label="mean")
    ax.plot(dt, largest, "s-", color=THEIRS, markersize=4, linewidth=1.1, label="largest")
    ax.plot(dt, mean[0] * dt / dt[0], color=INK, linestyle="--", linewidth=0.8, label="order 1")
    ax.set(xscale="log", yscale="log")
    ax.set_xlabel("time step of Brian2 (ms)", fontsize=9)
    ax.set_ylabel("|difference of event times|\n(ms)", fontsize=9)
    ax.grid(color=GRID, linewidth=0.5)
    _tidy(ax)
    caption = f"Differences of the times of {found.comparisons[0].n_events:,} events: fitted order"
    return figure, f"{caption} {found.order:.3f}."


def _intervals(result: Crosscheck) -> tuple[Figure, str] | None:
    shown = {name: s for name, s in result.statistics.items() if min(s.n_intervals) > 1}
    if not shown:
        return None
    figure, axes = _figure(0.4 + 2.0 * len(shown), len(shown))
    for ax, (name, found) in zip(axes[:, 0], shown.items(), strict=True):
        mine, theirs = found.intervals
        top = max(float(np.quantile(mine, 0.99)), float(np.quantile(theirs, 0.99)))
        dt = result.subject.network.dt
        width = max(top / 60, dt or 0.0)
        if dt is not None:  # whole steps in each bin
            width = dt * max(1, round(width / dt))
        edges = np.arange(0.5 * (dt or 0.0), top + 2 * width, width)
        ax.hist(mine, edges, histtype="stepfilled", color=MINE, alpha=0.25, label=None)
        ax.hist(
            mine, edges, histtype="step", color=MINE, linewidth=1.1, label=f"evsim, {len(mine):,} intervals"
        )
        theirs_label = f"Brian2, {len(theirs):,} intervals"
        ax.hist(
            theirs, edges, histtype="step", color=THEIRS, linewidth=1.1, linestyle="--", label=theirs_label
        )
        ax.set_xlabel("interval between events of a unit (ms)", fontsize=9)
        ax.set_ylabel(f"intervals in {width:.3g} ms\n(count)", fontsize=9)
        ax.set_xlim(0, edges[-1])
        _tidy(ax, f"'{name}'")
    caption = "Intervals between consecutive events of each unit (the longest 1 % are not drawn)."
    return figure, caption
