"""Pictures and tables of events.

Few events are drawn as marks coloured by their payload; many as a density, the fraction of active units in
cells that cover whole steps and whole units (cells of unequal cover would show stripes that are not in the
data).  Events in continuous time have rates in Hz in place of that.  Both may be coloured by the gradient
that a replay has written beside the events.  Events on file are read in pieces: a picture of any number of
them takes little memory.

Nothing here touches pyplot: figures are made from `matplotlib.figure.Figure` with an Agg canvas, so that
pictures can be made without a screen and from several threads.  Matplotlib is imported when the first picture
is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.density import ValueName
from evsim.errors import LogError, MissingExtraError
from evsim.events import Events
from evsim.selection import Marks, Picture, Selection, TimedSelection, select
from evsim.timed_events import TimedEvents

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Events up to which marks are drawn, and cells of a density picture at most, over and across.
MOST_MARKS = 100_000
MOST_CELLS = (900, 450)
#: Marks up to which SVG and PDF hold each as a shape, beyond that as an image.
MOST_SHAPES = 2000
#: Windows from this many ms on have an axis in seconds.
LONG = 1e4

INK, GREY, PALE, ACCENT = "#1f2933", "#5b6770", "#c9d1d8", "#1f5fa8"
#: Colours of payloads of one sign (dark enough on white from end to end), of both signs, and of a density.
ONE_SIGN = ("#2b1055", "#7a1f7c", "#c43b62", "#ee7748", "#f5b54a")
BOTH_SIGNS = ("#0b4f9e", "#5f8fc4", "#a9a9ad", "#d0745a", "#a8161e")
DENSITY = ("#ffffff", "#d3e3f3", "#86b6dc", "#3a7fbd", "#134a8a", "#071f45")

#: What colours by a column of the events are called.
COLUMN_LABELS: dict[ValueName, str] = {
    "value": "payload",
    "gradient": "dL/d(payload)",
    "time_gradient": "dL/d(time) [1/ms]",
}


def raster(
    events: Any,
    dt: float | None = None,
    start_step: int = 0,
    ax: Axes | None = None,
    lanes: int | Iterable[int] | Literal["all"] | None = None,
    units: slice | Iterable[int] | None = None,
    colour: str | None = "auto",
    colour_bar: bool | Axes = True,
    start: float | None = None,
    stop: float | None = None,
) -> Axes:
    """Draw events over time and units.

    Parameters
    ----------
    events : Events, TimedEvents, EventTable, a population of a log or of a `LogFile`
        Also a whole log of either kind that has one population that sends.
    dt : float
        Length of a step in ms, of `Events`; the others know it, or are in continuous time.
    start_step : int
        Step at which the window of `Events` starts.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure, ``raster(...).figure``.
    lanes : int, sequence of int, "all" or None
        Lanes to show, stacked from below; by default lane 0 only.
    units : slice, sequence of int or None
        Units to show; by default all.
    colour : "auto", "value", "gradient", "time_gradient", None or a colour
        By default marks have the colour of their payload, and a density (more than `MOST_MARKS` events) that
        of the activity or rate.  A column of the events colours marks by it, and the cells of a density by
        its mean.  None and a colour draw all marks alike.
    colour_bar : bool or Axes
        Whether there is a colour bar, or where.
    start, stop : float, optional
        Time to show, in ms; by default all there is.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    LogError
        Lanes, units or a window that do not exist, or a column that the events do not have.
    MissingExtraError
        Matplotlib is not installed.
    """
    chosen = select(_only_member(events), lanes, units, dt, start_step, start, stop)
    if ax is None:
        ax = _new_figure(7.2, 3.6).add_subplot()
    _draw_raster(ax, chosen, colour, colour_bar)
    return ax


def activity_trace(
    events: Any,
    dt: float | None = None,
    start_step: int = 0,
    ax: Axes | None = None,
    lanes: int | Iterable[int] | Literal["all"] | None = None,
    units: slice | Iterable[int] | None = None,
    lengths: ArrayLike | None = None,
    start: float | None = None,
    stop: float | None = None,
) -> Axes:
    """Draw the percentage of units that send an event, step by step; in continuous time, the rate of a unit.

    With more steps than a picture has columns, the line is the mean of a column and the band its range.  The
    rate, in Hz, is 1000 times the events per ms and unit, in bins of time.  The dashed line is the mean of
    all: alpha, or the mean rate.
    Parameters are those of `raster`; ``lengths``, shape (n_lanes,), are the steps of each lane.
    """
    if ax is None:
        ax = _new_figure(7.2, 1.6).add_subplot()
    _draw_trace(ax, select(_only_member(events), lanes, units, dt, start_step, start, stop), lengths)
    return ax


def figure(
    populations: Any,
    dt: float | None = None,
    start_step: int = 0,
    *,
    lanes: int | Iterable[int] | Literal["all"] | None = None,
    units: slice | Iterable[int] | None = None,
    lengths: ArrayLike | None = None,
    colour: str | None = "auto",
    rate: bool = True,
    start: float | None = None,
    stop: float | None = None,
    width: float = 8.0,
    dpi: int = 160,
) -> Figure:
    """Rasters of several populations, one above the other on one time axis, each with its activity below.

    Parameters
    ----------
    populations : mapping of str to events, a log, or a LogFile
        By name, top to bottom; of a log, all that send.
    dt, start_step, lanes, units, colour, start, stop
        See `raster`.
    lengths : array of integers, shape (n_lanes,), optional
        Steps of each lane; by default all are as long as the window.
    rate : bool
        Whether there are traces below the rasters.
    width : float
        In inches.
    dpi : int
        Pixels per inch; more of them give a density more cells.

    Returns
    -------
    matplotlib.figure.Figure
        ``figure(...).savefig("raster.png")``; titles give sizes and alpha = events / (units x lane-steps), in
        continuous time the mean rate.
    """
    shown = {
        name: select(events, lanes, units, dt, start_step, start, stop)
        for name, events in _members(populations).items()
    }
    if not shown:
        raise LogError("raster", "there is no population that sends events", "give at least one")
    parts = 2 if rate else 1
    heights = [ratio for chosen in shown.values() for ratio in (_height(chosen), 0.85)[:parts]]
    made = _new_figure(width, sum(heights) + (0.75 if rate else 0.55) * len(shown), dpi)
    grid = made.add_gridspec(len(heights), 2, height_ratios=heights, width_ratios=(1.0, 0.014))
    shared: Axes | None = None
    panels: list[Axes] = []
    for k, (name, chosen) in enumerate(shown.items()):
        top = made.add_subplot(grid[parts * k, 0], sharex=shared)
        shared = shared or top
        panels.append(top)
        _draw_raster(top, chosen, colour, made.add_subplot(grid[parts * k, 1]))
        if rate:
            panels.append(made.add_subplot(grid[parts * k + 1, 0], sharex=shared))
            _draw_trace(panels[-1], chosen, lengths)
        _title(top, name, chosen, lengths)
    for ax in panels[:-1]:
        ax.tick_params(labelbottom=False)
        ax.set_xlabel("")
    made.align_ylabels()
    return made


def _members(populations: Any) -> Mapping[str, Any]:
    """Populations that send, by name."""
    if isinstance(populations, Mapping):
        return populations
    members = getattr(populations, "populations", None)
    if members is None:
        return {getattr(populations, "name", "events"): populations}
    return {name: member for name, member in members.items() if _sends(member)}


def _sends(member: Any) -> bool:
    return bool(getattr(member, "sends", getattr(member, "events", None) is not None))


def _only_member(events: Any) -> Any:
    """Of a whole log, the one population that sends."""
    if not hasattr(events, "populations"):
        return events
    members = _members(events)
    if len(members) != 1:
        problem = f"{len(members)} populations of the log send events: {list(members)}"
        raise LogError("raster", problem, "give one of them, or make a figure(log)")
    return next(iter(members.values()))


def activity_per_step(
    chosen: Selection, lengths: ArrayLike | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Units that send, in percent of those whose lane has not ended (NaN where none), and the latter.

    Both have shape (n_steps,).
    """
    return chosen.activity(lengths)


def summary_row(
    events: Events | None, dt: float, lengths: ArrayLike | None = None, n_extreme: int = 3
) -> dict:
    """Numbers about one population's events, for a table.

    Parameters
    ----------
    events : Events or None
        None for a population that sends nothing: only sizes known from ``lengths`` are given.
    dt : float
        Length of a step in ms.
    lengths : array of integers, shape (n_lanes,), optional
        Steps of each lane; by default all are as long as the window.
    n_extreme : int
        How many of the most and least active units are named.

    Returns
    -------
    dict
        ``lanes``, ``steps`` (of the longest lane), ``lane_steps``, ``events``, ``alpha`` (events per unit and
        lane-step), ``rate_hz`` (of a unit, on average), ``silent_units``, and ``most_active`` and
        ``least_active``: lists of (unit, rate in Hz); None where there are no events to speak of.
    """
    steps = np.asarray([] if lengths is None else lengths, np.int64)
    if lengths is None and events is not None:
        steps = np.full(events.n_lanes, events.n_steps)
    lane_steps = int(steps.sum())
    row: dict[str, Any] = {"lanes": len(steps), "steps": int(steps.max(initial=0)), "lane_steps": lane_steps}
    if events is None:
        names = ("events", "alpha", "rate_hz", "silent_units", "most_active", "least_active")
        return row | dict.fromkeys(names)
    count = np.bincount(events.unit, minlength=events.n_units)
    return row | counted_row(count, lane_steps * dt, lane_steps, n_extreme)


def counted_row(
    count: NDArray[np.int64], span: float, lane_steps: int | None = None, n_extreme: int = 3
) -> dict:
    """The same about a population of which the events of each unit are known, in ``span`` ms of all lanes."""
    row: dict[str, Any] = {"events": int(count.sum())}
    if lane_steps is not None:
        row["alpha"] = row["events"] / max(len(count) * lane_steps, 1)
    return row | _rates(count, span, n_extreme)


def timed_summary_row(events: TimedEvents | None, n_extreme: int = 3) -> dict:
    """Numbers about one population's events in continuous time, for a table.

    Returns
    -------
    dict
        ``events``, and ``rate_hz`` (of a unit, on average), ``silent_units``, ``most_active`` and
        ``least_active`` as in `summary_row`; None for a population that sends nothing.
    """
    if events is None:
        return dict.fromkeys(("events", "rate_hz", "silent_units", "most_active", "least_active"))
    count = np.bincount(events.unit, minlength=events.n_units)
    return counted_row(count, events.n_lanes * events.duration, None, n_extreme)


def _rates(count: NDArray[np.int64], span: float, n_extreme: int) -> dict[str, Any]:
    """Rates from the events of each unit in ``span`` ms."""
    rate = count / max(span * 1e-3, 1e-300)
    order = np.argsort(-count, kind="stable")  # equal units in order of their number
    quiet = np.argsort(count, kind="stable")
    return {
        "rate_hz": float(rate.mean()),
        "silent_units": int((count == 0).sum()),
        "most_active": [(int(unit), float(rate[unit])) for unit in order[:n_extreme]],
        "least_active": [(int(unit), float(rate[unit])) for unit in quiet[:n_extreme]],
    }


# -- drawing ---------------------------------------------------------------------------------------------


def _new_figure(width: float, height: float, dpi: int = 160) -> Figure:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("raster", "matplotlib is not installed", "pip install matplotlib") from error
    made = Figure(figsize=(width, height), dpi=dpi, layout="constrained", facecolor="white")
    FigureCanvasAgg(made)
    return made


def _right(chosen: Picture) -> float:
    """Right end of the axis; a window without extent is drawn 1 ms wide."""
    return chosen.right if chosen.right > chosen.left else chosen.left + 1.0


def _draw_raster(ax: Axes, chosen: Selection | TimedSelection, colour: str | None, bar: bool | Axes) -> None:
    bottom = chosen.first_row - 0.5
    ax.set_xlim(chosen.left, _right(chosen))
    ax.set_ylim(bottom, bottom + chosen.n_rows)
    column = _column(colour)
    marks = chosen.marks(MOST_MARKS, column or ("value" if colour == "auto" else None))
    if marks is None:
        _draw_density(ax, chosen, bottom, column, bar)
    else:
        _draw_marks(ax, chosen, marks, column or "value", colour, bar)
    _label_rows(ax, chosen)
    _label_time(ax, chosen)
    _tidy(ax)


def _column(colour: str | None) -> ValueName | None:
    """The column that a colour stands for."""
    return colour if colour in COLUMN_LABELS else None


def _draw_trace(ax: Axes, chosen: Selection | TimedSelection, lengths: ArrayLike | None) -> None:
    if isinstance(chosen, TimedSelection):
        ax.set_ylabel("rate [Hz]")
        _draw_rate(ax, chosen)
    else:
        ax.set_ylabel("active\nunits [%]")
        _draw_activity(ax, chosen, lengths)
    ax.set_xlim(chosen.left, _right(chosen))
    _label_time(ax, chosen)
    _tidy(ax)


def _draw_activity(ax: Axes, chosen: Selection, lengths: ArrayLike | None) -> None:
    percent, present = chosen.activity(lengths)
    n_bins = len(percent)
    cuts = np.minimum(np.arange(n_bins + 1) * chosen.steps_of_bin, chosen.n_steps)
    time = (chosen.start_step + cuts) * chosen.mark
    per_column = max(-(-n_bins // MOST_CELLS[0]), 1)
    if per_column > 1:
        starts = np.arange(0, n_bins, per_column)
        low, high = np.fmin.reduceat(percent, starts), np.fmax.reduceat(percent, starts)
        weight = np.add.reduceat(present, starts)
        summed = np.add.reduceat(np.nan_to_num(percent) * present, starts)
        mean = np.divide(summed, weight, out=np.full(len(starts), np.nan), where=weight > 0)
        centre = 0.5 * (time[starts] + time[np.append(starts[1:], n_bins)])
        ax.fill_between(centre, low, high, color=ACCENT, alpha=0.22, linewidth=0)
        ax.plot(centre, mean, color=ACCENT, linewidth=0.9)
        n_steps = per_column * chosen.steps_of_bin
        each = f"range of means of {chosen.steps_of_bin} steps" if chosen.steps_of_bin > 1 else "their range"
        _explain(ax, f"line: mean of {n_steps:,} steps, band: {each}, dashed: mean of all")
    elif n_bins:
        _draw_stairs(ax, percent, time)
        _explain(ax, "dashed: mean of all")
    if present.any():
        _draw_mean(ax, percent, float(np.average(np.nan_to_num(percent), weights=present)))


def _draw_rate(ax: Axes, chosen: TimedSelection) -> None:
    rates, edges = chosen.rates()
    if len(rates):
        _draw_stairs(ax, rates, edges)
        _draw_mean(ax, rates, chosen.rate)
        _explain(ax, "dashed: mean of all")
        ax.set_ylabel(f"rate [Hz]\n{_span(edges[1] - edges[0])} bins")


def _draw_stairs(ax: Axes, values: NDArray[np.float64], edges: NDArray[np.float64]) -> None:
    ax.stairs(values, edges, baseline=0.0, fill=True, color=ACCENT, alpha=0.22, linewidth=0)
    ax.stairs(values, edges, baseline=None, color=ACCENT, linewidth=0.9)


def _explain(ax: Axes, words: str) -> None:
    """A line above a trace that says what its lines are."""
    ax.set_title(words, loc="right", fontsize=6.5, color=GREY, pad=3)


def _draw_mean(ax: Axes, values: NDArray[np.float64], mean: float) -> None:
    """A line at the mean, and an axis from 0 that holds all values."""
    ax.axhline(mean, color=INK, linewidth=0.7, linestyle=(0, (4, 3)))
    ax.set_ylim(0.0, 1.1 * float(np.nanmax(values)) or 1.0)


def _draw_marks(
    ax: Axes, chosen: Picture, marks: Marks, column: ValueName, colour: str | None, bar: bool | Axes
) -> None:
    width, height = _mark_size(ax, chosen, len(marks))
    # Matplotlib scales a marker's longer side to sqrt(s).
    corners = [(-width, -height), (width, -height), (width, height), (-width, height), (-width, -height)]
    options: dict[str, Any] = {
        "marker": corners,
        "s": max(width, height) ** 2,
        "linewidths": 0,
        "rasterized": len(marks) > MOST_SHAPES,
        # Snapped to pixels, marks look crisp, but very small ones get stripes of unequal height.
        "snap": None if min(width, height) >= 1.0 else False,
    }
    x, y, value = marks.time, marks.row + chosen.first_row, marks.value
    if value is None or _is_flat(value):
        plain = INK if value is not None or colour in (None, "none") else colour
        ax.scatter(x, y, color=plain, **options)
        if not isinstance(bar, bool):
            bar.set_axis_off()
        return
    low, high, extend = _limits(value) if column == "value" else _even_limits(value)
    order = np.argsort(np.abs(value), kind="stable")  # large ones on top
    drawn = ax.scatter(
        x[order],
        y[order],
        c=value[order].astype(np.float64),
        cmap=_colour_map(BOTH_SIGNS if low < 0 < high else ONE_SIGN),
        vmin=low,
        vmax=high,
        **options,
    )
    _add_bar(ax, drawn, bar, COLUMN_LABELS[column], extend)


def _draw_density(
    ax: Axes,
    chosen: Selection | TimedSelection,
    bottom: float,
    column: ValueName | None,
    bar: bool | Axes,
) -> None:
    cells = chosen.cells(_most_cells(ax), column)
    width, per_row = float(cells.edges[1] - cells.edges[0]), int(cells.nodes[0])
    n_rows, n_columns = cells.counts.shape
    extent = (chosen.left, chosen.left + n_columns * width, bottom, bottom + n_rows * per_row)
    if column is None:
        shown, label = chosen.density(cells), chosen.density_label
        high = float(np.quantile(shown, 0.998)) or float(shown.max())
        low, extend, colours = 0.0, "max" if shown.max() > high else "neither", _colour_map(DENSITY)
    else:
        shown, label = cells.mean, f"mean {COLUMN_LABELS[column]}"
        some = shown[np.isfinite(shown)]
        low, high, extend = _limits(some) if column == "value" else _even_limits(some)
        colours = _colour_map(BOTH_SIGNS if low < 0 < high else ONE_SIGN)
    limits = ax.get_xlim(), ax.get_ylim()
    image = ax.imshow(shown, origin="lower", extent=extent, aspect="auto", cmap=colours, vmin=low, vmax=high)
    ax.set_xlim(limits[0])  # the last cells may reach past the window
    ax.set_ylim(limits[1])
    units = "1 unit" if per_row == 1 else f"{per_row} units"
    _add_bar(ax, image, bar, f"{label}\nin cells of {units}, {_span(width)}", extend)


def _most_cells(ax: Axes) -> tuple[int, int]:
    """Cells over and across: more where a figure has more pixels than is usual."""
    finer = max(ax.figure.bbox.width / 1280, 1.0)
    return int(MOST_CELLS[0] * finer), int(MOST_CELLS[1] * finer)


def _add_bar(ax: Axes, drawn: Any, colour_bar: bool | Axes, label: str, extend: str) -> None:
    if colour_bar is False:
        return
    made: Figure = ax.figure  # type: ignore[assignment]
    if colour_bar is True:
        bar = made.colorbar(drawn, ax=ax, extend=extend, pad=0.015, fraction=0.03, aspect=28)
    else:
        bar = made.colorbar(drawn, cax=colour_bar, extend=extend)
    bar.outline.set_visible(False)
    bar.set_label(label, fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=7, color=GREY, labelcolor=INK, length=2.5, width=0.6)


def _colour_map(colours: tuple[str, ...]) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("evsim", colours)


def _is_flat(values: NDArray) -> bool:
    """Whether colours would say nothing: no values, or all alike."""
    return not len(values) or bool(values.min() == values.max())


def _limits(values: NDArray) -> tuple[float, float, str]:
    """Range of colours, cut at the outermost 0.5 % if they lie far out, and which ends are arrows."""
    low, high = float(values.min()), float(values.max())
    inner_low, inner_high = (float(q) for q in np.quantile(values, (0.005, 0.995)))
    spread = inner_high - inner_low
    cut_low, cut_high = inner_low - low > 0.5 * spread > 0, high - inner_high > 0.5 * spread > 0
    low, high = inner_low if cut_low else low, inner_high if cut_high else high
    if low < 0 < high:
        low, high = -max(-low, high), max(-low, high)
    ends = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}
    return low, high, ends[cut_low, cut_high]


def _even_limits(values: NDArray) -> tuple[float, float, str]:
    """The same range on both sides of 0, which leaves out the outermost 1 % of what is not 0."""
    size = np.abs(values[values != 0])
    if not size.size:
        return -1.0, 1.0, "neither"
    most = float(np.quantile(size, 0.99))
    return -most, most, "both" if size.max() > most else "neither"


def _mark_size(ax: Axes, chosen: Picture, n_marks: int) -> tuple[float, float]:
    """Width and height of a mark in points: a cell of one step and one unit, but visible and no slab.

    In continuous time, where a cell has no width, it is as narrow as can be seen.
    """
    points = 72 / ax.figure.dpi
    width, height = points * ax.bbox.width, points * ax.bbox.height
    # Marks larger than their cells are easier to see, but together they must not feign more activity.
    least = float(np.clip(np.sqrt(0.25 * width * height / max(n_marks, 1)), 0.6, 1.3))
    cell_width = width * chosen.mark / (_right(chosen) - chosen.left)
    cell_height = height / max(chosen.n_rows, 1)
    return float(np.clip(cell_width, least, 4.0)), float(np.clip(0.85 * cell_height, least, 7.0))


def _label_time(ax: Axes, chosen: Picture) -> None:
    """The axis of time; what is drawn is in ms, but long windows read better in s."""
    if chosen.right - chosen.left < LONG:
        ax.set_xlabel("time [ms]")
        return
    from matplotlib.ticker import FuncFormatter

    ax.xaxis.set_major_formatter(FuncFormatter(lambda ms, _: f"{1e-3 * ms:.12g}"))
    ax.set_xlabel("time [s]")


def _span(ms: float) -> str:
    """A length of time in the unit that fits it."""
    return f"{1e-3 * ms:.3g} s" if ms >= 1000 else f"{ms:.3g} ms"


def _label_rows(ax: Axes, chosen: Picture) -> None:
    """Unit numbers for one lane, lane numbers for several."""
    from matplotlib.ticker import FixedLocator, MaxNLocator

    n_units = len(chosen.units)
    if len(chosen.lanes) > 1:
        for boundary in range(1, len(chosen.lanes)):
            ax.axhline(boundary * n_units - 0.5, color=PALE, linewidth=0.6, zorder=0)
        shown = range(0, len(chosen.lanes), max(-(-len(chosen.lanes) // 12), 1))
        ax.yaxis.set_major_locator(FixedLocator([(k + 0.5) * n_units - 0.5 for k in shown]))
        ax.set_yticklabels([str(chosen.lanes[k]) for k in shown])
        ax.set_ylabel(f"lane ({n_units} unit{'s' if n_units > 1 else ''} each)")
        return
    ax.set_ylabel("unit")
    if chosen.is_consecutive:
        ax.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
        return
    shown = range(0, n_units, max(-(-n_units // 8), 1))
    ax.yaxis.set_major_locator(FixedLocator(list(shown)))
    ax.set_yticklabels([str(chosen.units[k]) for k in shown])


def _title(ax: Axes, name: str, chosen: Selection | TimedSelection, lengths: ArrayLike | None) -> None:
    lanes = f"lane {chosen.lanes[0]}" if len(chosen.lanes) == 1 else f"{len(chosen.lanes)} lanes"
    facts = f"{len(chosen.units):,} units, {lanes}, {len(chosen):,} events, {chosen.about(lengths)}"
    ax.set_title(name, loc="left", fontsize=10, fontweight="bold", color=INK, pad=5)
    ax.set_title(facts, loc="right", fontsize=8, color=GREY, pad=5)


def _height(chosen: Picture) -> float:
    """Inches for a population's raster: a small population needs less."""
    return float(np.clip(0.75 + 0.03 * len(chosen.units), 0.8, 2.7))


def _tidy(ax: Axes) -> None:
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(GREY)
        ax.spines[side].set_linewidth(0.7)
    ax.tick_params(labelsize=8, color=GREY, labelcolor=INK, length=3, width=0.7)
    for label in (ax.xaxis.label, ax.yaxis.label):
        label.set_fontsize(9)
        label.set_color(INK)
