"""Pictures of what sparsity saves: perplexity against work, activity over training, factors, and time.

Each takes plain dicts, as `evsim.composition.composition` and JSON files hold them, and returns a Matplotlib
figure of 7.2 inches: at its 100 dots per inch texts can be read on a page 700 pixels wide.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from evsim.errors import ParameterError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

#: Colours of dense networks, of event-based ones, ink and grid; of layers, in order.
DENSE, EVENTS, INK, GRID = "#c8501e", "#1f5fa8", "#1f2933", "#d9dfe5"
LAYERS = ("#1f5fa8", "#2a9d8f", "#8d5fb0", "#b8860b", "#c8501e", "#5b6770")
#: Where a label may stand: directions from its point, the preferred ones first, and distances in points.
DIRECTIONS: tuple[tuple[int, int], ...] = (
    (1, 0),
    (-1, 0),
    (0, 1),
    (0, -1),
    (1, 1),
    (1, -1),
    (-1, 1),
    (-1, -1),
)
DIRECTIONS += ((1, 2), (1, -2), (-1, 2), (-1, -2), (2, 1), (2, -1), (-2, 1), (-2, -1))
DISTANCES = (7, 12, 18, 24, 32, 40, 50, 60, 75, 90)
#: Labels further away than this have a line that leads to their point.
NEAR = 12


def perplexity_figure(rows: Iterable[Mapping[str, Any]]) -> Figure:
    """Perplexity against MACs per token, one point per network: better is lower and to the left.

    Parameters
    ----------
    rows : iterable of dict
        ``label``, ``macs`` (per token), ``perplexity``, and ``factor``, how many times as many MACs the dense
        network does; others are not looked at.  Those without perplexity are left out.

    Raises
    ------
    ParameterError
        Nothing to draw.
    """
    shown = _those_with(rows, "perplexity figure", "macs", "perplexity")
    made, ax = _figure(4.3)
    texts = []
    for marker, colour, label, chosen in _kinds(shown):
        x, y = [row["macs"] for row in chosen], [row["perplexity"] for row in chosen]
        ax.plot(x, y, marker, color=colour, markersize=7, label=label)
    for row in shown:
        fewer = "" if not _sparse(row) else f"\n{row['factor']:.3g} x fewer"
        texts.append(f"{row['label']}{fewer}")
    macs = [row["macs"] for row in shown]
    ax.set_xscale("log")
    ax.set_xlim(min(macs) / 2.2, max(macs) * 2.2)
    _plain_ticks(ax.xaxis)
    _widen(ax, [row["perplexity"] for row in shown])
    ax.set_xlabel("multiply-accumulates per token (recurrent layers)", fontsize=9)
    ax.set_ylabel("perplexity (dimensionless)", fontsize=9)
    _tidy(ax)
    _label(ax, [(row["macs"], row["perplexity"]) for row in shown], texts)
    return made


def activity_figure(epochs: Sequence[Mapping[str, Any]]) -> Figure:
    """Activity of each layer over the epochs of training.

    Parameters
    ----------
    epochs : sequence of dict
        ``epoch`` (counted from 0), ``activity`` (by layer: events per unit and step, alpha) and, where it was
        measured, ``backward_activity`` (by layer, too: beta).

    Raises
    ------
    ParameterError
        Nothing to draw.
    """
    shown = [entry for entry in epochs if entry.get("activity")]
    if not shown:
        raise ParameterError("activity figure", "no epochs with activity", "give what a training recorded")
    made, ax = _figure(3.6)
    for key, style, sign in (("activity", "o-", "alpha"), ("backward_activity", "s--", "beta")):
        names = list(dict.fromkeys(name for entry in shown for name in entry.get(key) or {}))
        layers = list(shown[0]["activity"])
        for name in names:
            there = [entry for entry in shown if name in (entry.get(key) or {})]
            colour = LAYERS[(layers.index(name) if name in layers else len(layers)) % len(LAYERS)]
            x, y = [entry["epoch"] + 1 for entry in there], [entry[key][name] for entry in there]
            size = 3.5 if len(there) < 60 else 0.0
            ax.plot(x, y, style, color=colour, markersize=size, linewidth=1.2, label=f"{name}, {sign}")
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylim(0, None)
    ax.set_xlabel("epochs of training", fontsize=9)
    ax.set_ylabel("active units (share of all)", fontsize=9)
    _tidy(ax, outside=True)
    return made


def composition_figure(rows: Iterable[Mapping[str, Any]]) -> Figure:
    """Measured factor against the product of the two: on the diagonal, activity and weights multiply.

    Parameters
    ----------
    rows : iterable of dict
        As `evsim.composition.composition` gives them.  Dense networks, and those without ``product`` or
        ``factor``, are left out.

    Raises
    ------
    ParameterError
        Nothing to draw.
    """
    sparse = [row for row in rows if _sparse(row)]
    shown = _those_with(sparse, "composition figure", "product", "factor")
    made, ax = _figure(4.6)
    ends = [value for row in shown for value in (row["product"], row["factor"])]
    low, high = min(ends) / 1.4, max(ends) * 1.7
    ax.plot([low, high], [low, high], color=INK, linestyle="--", linewidth=0.8, label="they multiply")
    products, factors = [row["product"] for row in shown], [row["factor"] for row in shown]
    ax.plot(products, factors, "o", color=EVENTS, markersize=7, label="event-based")
    ax.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    _plain_ticks(ax.xaxis)
    _plain_ticks(ax.yaxis)
    ax.set_xlabel("activity alone x weights alone (times fewer MACs)", fontsize=9)
    ax.set_ylabel("measured (times fewer MACs)", fontsize=9)
    _tidy(ax)
    texts = [f"{row['label']}\n{100 * (row['factor'] / row['product'] - 1):+.1f} %" for row in shown]
    _label(ax, [(row["product"], row["factor"]) for row in shown], texts, diagonal=True)
    return made


def seconds_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Time per token, one bar per program.

    Parameters
    ----------
    rows : sequence of dict
        ``label``, ``seconds`` (per token), ``group`` (those of one name are of one colour: ``"evsim"``,
        ``"PyTorch"``), and ``range``, the least and the most that were measured, if known.

    Raises
    ------
    ParameterError
        Nothing to draw.
    """
    shown = _those_with(rows, "seconds figure", "seconds")
    made, ax = _figure(0.9 + 0.42 * len(shown))
    largest = max(max(row.get("range") or (0, row["seconds"])) for row in shown)
    scale, unit = next(
        (pair for pair in ((1.0, "s"), (1e3, "ms")) if largest * pair[0] >= 1), (1e6, "microseconds")
    )
    groups = list(dict.fromkeys(row.get("group", "") for row in shown))
    colours = dict(zip(groups, (EVENTS, DENSE, *LAYERS[1:4]) * len(groups), strict=False))
    for group in groups:
        places = [k for k, row in enumerate(shown) if row.get("group", "") == group]
        widths = [scale * shown[k]["seconds"] for k in places]
        ax.barh(places, widths, color=colours[group], height=0.62, label=group or None)
    for k, row in enumerate(shown):
        ends = [scale * value for value in row.get("range") or (row["seconds"], row["seconds"])]
        if ends[0] < ends[1]:
            ax.plot(ends, [k, k], "|-", color=INK, linewidth=0.9, markersize=6)
        ax.annotate(
            f"{scale * row['seconds']:.3g}",
            (max(ends[1], scale * row["seconds"]), k),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=INK,
        )
    ax.set_yticks(range(len(shown)), [row["label"] for row in shown])
    ax.invert_yaxis()
    ax.set_xlim(0, 1.12 * scale * largest)
    ax.set_xlabel(f"time per token ({unit})", fontsize=9)
    _tidy(ax, legend=any(groups), grid="x")
    return made


# -- pieces ------------------------------------------------------------------------------------------------


def _figure(height: float) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(7.2, height), dpi=100, layout="constrained", facecolor="white")
    FigureCanvasAgg(made)
    return made, made.add_subplot()


def _tidy(ax: Axes, legend: bool = True, outside: bool = False, grid: Any = "both") -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8, colors=INK)
    ax.grid(axis=grid, color=GRID, linewidth=0.5)
    ax.set_axisbelow(True)
    if legend:
        place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": 3}
        if outside:
            place = {"loc": "upper left", "bbox_to_anchor": (1.01, 1)}
        ax.legend(**place, frameon=False, fontsize=8, borderaxespad=0.2)


def _those_with(rows: Iterable[Mapping[str, Any]], where: str, *keys: str) -> list[Mapping[str, Any]]:
    shown = [row for row in rows if all(row.get(key) is not None for key in keys)]
    if not shown:
        raise ParameterError(where, f"nothing that has {' and '.join(keys)}", "give rows that do")
    return shown


def _sparse(row: Mapping[str, Any]) -> bool:
    """Whether a network does fewer MACs than its dense twin."""
    return (row.get("factor") or 1.0) > 1.0


def _kinds(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str, list[Mapping[str, Any]]]]:
    """Dense networks and sparse ones, each with marker, colour and name."""
    dense = [row for row in rows if not _sparse(row)]
    fewer = [row for row in rows if _sparse(row)]
    kinds = [("s", DENSE, "dense", dense), ("o", EVENTS, "event-based", fewer)]
    return [kind for kind in kinds if kind[-1]]


def _widen(ax: Axes, values: Sequence[float]) -> None:
    """Room above and below for labels."""
    low, high = min(values), max(values)
    room = 0.18 * ((high - low) or abs(high) or 1.0)
    ax.set_ylim(low - room, high + room)


def _plain_ticks(axis: Axis) -> None:
    """1, 2, 5, 10, ... 1 k, ... 1 M on a logarithmic axis: powers of ten are set in another font."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(10, (1, 2, 5)))
    axis.set_major_formatter(EngFormatter())
    axis.set_minor_formatter(NullFormatter())


def _label(
    ax: Axes,
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    diagonal: bool = False,
) -> None:
    """Write beside each point, where it covers no other label, no point and no part of a diagonal."""
    from matplotlib.transforms import Bbox

    figure: Any = ax.figure
    figure.draw_without_rendering()  # before that, nothing has its place
    pixel, inside = figure.dpi / 72, ax.get_window_extent()
    dots = ax.transData.transform(points)
    way = ax.transAxes.transform(np.linspace((0, 0), (1, 1), 200 if diagonal else 0))
    half = 5 * pixel
    written: list[Bbox] = []
    marks = [Bbox.from_bounds(x - half, y - half, 2 * half, 2 * half) for x, y in dots]
    for (x, y), dot, text in zip(points, dots, texts, strict=True):
        style: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8, "color": INK}
        note = ax.annotate(text, (x, y), xytext=(0, 0), linespacing=1.15, **style)
        size = note.get_window_extent()
        others = [mark for mark in marks if not mark.contains(*dot)]

        def box_at(offset: tuple[float, float], dot: Any = dot, size: Any = size) -> Bbox:
            # on the side of the offset it begins there, on the other it ends there, else it is in the middle
            left, low = dot + pixel * np.array(offset) + (np.sign(offset) - 1) / 2 * size.size
            return Bbox.from_bounds(left, low, *size.size)

        def cost(
            offset: tuple[float, float], dot: Any = dot, others: Any = others, at: Any = box_at
        ) -> float:
            box = at(offset)
            out = box.x0 < inside.x0 or box.x1 > inside.x1 or box.y0 < inside.y0 or box.y1 > inside.y1
            line = dot + pixel * np.outer(np.linspace(0, 1, 20 if _far(offset) else 0), offset)
            return (
                100 * out
                + 20 * sum(box.overlaps(other) for other in written)
                + 5 * sum(box.overlaps(mark) for mark in marks)
                + 5 * sum(other.contains(*place) for place in line for other in [*written, *others])
                + any(box.contains(*place) for place in way)
                + max(map(abs, offset)) / 40
            )

        offsets = [_offset(distance, *direction) for distance in DISTANCES for direction in DIRECTIONS]
        best = min(offsets, key=cost)  # of equals the first
        across, up = (int(np.sign(part)) + 1 for part in best)
        note.set(ha=("right", "center", "left")[across], va=("top", "center", "bottom")[up])
        note.set_position(best)
        written.append(box_at(best))
        if _far(best):
            lead = {"arrowstyle": "-", "color": INK, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 4}
            ax.annotate("", (x, y), xytext=best, textcoords="offset points", arrowprops=lead)


def _offset(distance: float, dx: float, dy: float) -> tuple[float, float]:
    """So far in a direction, in points."""
    largest = max(abs(dx), abs(dy))
    return distance * dx / largest, distance * dy / largest


def _far(offset: tuple[float, float]) -> bool:
    """Whether a line has to lead to a label."""
    return max(map(abs, offset)) > NEAR
