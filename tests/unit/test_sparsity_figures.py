"""Pictures of sparsity: what they show is what they were given, and no label covers another."""

import warnings
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evsim.errors import ParameterError
from evsim.sparsity_figures import activity_figure, composition_figure, perplexity_figure, seconds_figure
from oracles.pruning_cases import refused

DENSE = {"label": "GRU", "macs": 24.2e6, "perplexity": 72.1, "factor": 1.0, "product": 1.0}
EGRU = {"label": "EGRU", "macs": 7.3e6, "perplexity": 71.2, "factor": 3.3, "product": 3.3}
SMALL = {"label": "EGRU, 80 % pruned", "macs": 1.5e6, "perplexity": 71.9, "factor": 15.8, "product": 16.6}
ROWS = [DENSE, EGRU, SMALL]


def drawn(figure):
    """Its axes and its texts with their boxes in pixels, after it was drawn as it would be saved."""
    figure.canvas.draw()
    ax = figure.axes[0]
    return ax, {t.get_text(): t.get_window_extent() for t in ax.texts if t.get_text()}


def points(ax):
    """All points of markers, by legend entry."""
    lines = [line for line in ax.lines if line.get_marker() in ("o", "s")]
    return {line.get_label(): set(zip(*line.get_data(), strict=True)) for line in lines}


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def assert_readable(figure):
    """Labels are inside the axes, cover no other and no point; letters have 8 points at 100 dots per inch."""
    ax, boxes = drawn(figure)
    inside, width = ax.get_window_extent(), figure.get_size_inches()[0] * figure.dpi
    assert 700 <= width <= 760
    for text, box in boxes.items():
        assert inside.x0 - 1 <= box.x0, text
        assert box.x1 <= inside.x1 + 1, text
    for one, other in combinations(boxes.values(), 2):
        assert not one.overlaps(other)
    texts = [*ax.texts, *ax.get_xticklabels(), *ax.get_yticklabels(), ax.xaxis.label, ax.yaxis.label]
    assert all(text.get_fontsize() >= 8 for text in texts if text.get_text())
    assert "(" in ax.get_xlabel() + ax.get_ylabel()  # units


class TestPerplexity:
    def test_points_and_labels(self):
        figure = perplexity_figure([*ROWS, DENSE | {"label": "no perplexity", "perplexity": None}])
        assert_readable(figure)
        ax, boxes = drawn(figure)
        assert points(ax) == {"dense": {(24.2e6, 72.1)}, "event-based": {(7.3e6, 71.2), (1.5e6, 71.9)}}
        assert set(boxes) == {"GRU", "EGRU\n3.3 x fewer", "EGRU, 80 % pruned\n15.8 x fewer"}
        assert ax.get_xscale() == "log"
        assert legend(ax) == ["dense", "event-based"]

    @given(
        st.lists(
            st.tuples(
                st.sampled_from([1e6, 1.1e6, 1.2e6, 3e6, 2e7]), st.sampled_from([70.0, 70.5, 71.0, 90.0])
            ),
            min_size=1,
            max_size=6,
        )
    )
    @settings(max_examples=8, deadline=None)
    def test_labels_never_cover_each_other(self, places):
        rows = [
            {"label": f"EGRU {k}", "macs": x, "perplexity": y, "factor": 2.0}
            for k, (x, y) in enumerate(places)
        ]
        assert_readable(perplexity_figure(rows))


class TestComposition:
    def test_points_and_the_diagonal(self):
        figure = composition_figure([*ROWS, {"label": "silent", "factor": None, "product": None}])
        assert_readable(figure)
        ax, boxes = drawn(figure)
        assert points(ax) == {"event-based": {(3.3, 3.3), (16.6, 15.8)}}  # a dense network composes nothing
        assert set(boxes) == {"EGRU\n+0.0 %", "EGRU, 80 % pruned\n-4.8 %"}
        x, y = ax.lines[0].get_data()
        np.testing.assert_array_equal(x, y)
        assert ax.get_xlim() == ax.get_ylim()
        assert min(x) < 3.3 < 16.6 < max(x)

    def test_points_on_top_of_each_other(self):
        rows = [SMALL | {"label": f"seed {k}", "product": 20 + k / 3, "factor": 20 + k / 5} for k in range(6)]
        assert_readable(composition_figure(rows))


class TestActivity:
    def test_lines_by_layer(self):
        epochs = [
            {"epoch": k, "activity": {"layer1": 0.3 / (k + 1), "layer2": 0.1}, "backward_activity": beta}
            for k, beta in enumerate([None, {"layer1": 0.5, "layer2": 0.6}, {"layer1": 0.4, "layer2": 0.5}])
        ]
        figure = activity_figure([*epochs, {"epoch": 3, "activity": None}])
        assert_readable(figure)
        ax, _ = drawn(figure)
        assert points(ax) == {
            "layer1, alpha": {(1, 0.3), (2, 0.15), (3, 0.3 / 3)},
            "layer2, alpha": {(1, 0.1), (2, 0.1), (3, 0.1)},
            "layer1, beta": {(2, 0.5), (3, 0.4)},
            "layer2, beta": {(2, 0.6), (3, 0.5)},
        }
        colours = [line.get_color() for line in ax.lines]
        assert colours[:2] == colours[2:]
        assert colours[0] != colours[1]
        assert legend(ax) == list(points(ax))
        assert ax.get_ylim()[0] == 0


class TestSeconds:
    @pytest.mark.parametrize(
        ("scale", "unit"), [(1, "s"), (1e-3, "ms"), (1e-6, "microseconds"), (1e-8, "microseconds")]
    )
    def test_bars_and_units(self, scale, unit):
        rows = [
            {
                "label": "evsim",
                "seconds": 1.25 * scale,
                "group": "evsim",
                "range": (1.1 * scale, 2.5 * scale),
            },
            {"label": "evsim, 80 %", "seconds": 0.5 * scale, "group": "evsim"},
            {"label": "torch int8", "seconds": 4 * scale, "group": "PyTorch"},
        ]
        figure = seconds_figure(rows)
        assert_readable(figure)
        ax, boxes = drawn(figure)
        assert ax.get_xlabel() == f"time per token ({unit})"
        shown = {"s": 1, "ms": 1e3, "microseconds": 1e6}[unit] * scale
        by_row = sorted(ax.patches, key=lambda bar: bar.get_y())
        assert [bar.get_width() for bar in by_row] == pytest.approx([1.25 * shown, 0.5 * shown, 4 * shown])
        assert list(boxes) == [f"{value * shown:.3g}" for value in (1.25, 0.5, 4)]
        assert legend(ax) == ["evsim", "PyTorch"]
        assert [label.get_text() for label in ax.get_yticklabels()] == ["evsim", "evsim, 80 %", "torch int8"]

    def test_without_groups_there_is_no_legend(self):
        assert seconds_figure([{"label": "evsim", "seconds": 1.0}]).axes[0].get_legend() is None


def test_nothing_to_draw():
    refused(lambda: perplexity_figure([DENSE | {"perplexity": None}]), ParameterError, "perplexity")
    refused(lambda: composition_figure([DENSE]), ParameterError, "product", "factor")
    refused(lambda: activity_figure([{"epoch": 0}]), ParameterError, "epochs")
    refused(lambda: seconds_figure([]), ParameterError, "seconds")


def test_they_are_saved_without_a_warning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        perplexity_figure(ROWS).savefig(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 5000
