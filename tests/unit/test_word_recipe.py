"""The recipe of word-level models: windows cover the text, masks are what they are said to be."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evsim.errors import ParameterError
from evsim.word_recipe import Recipe, Window, draw_masks, reading_windows, training_windows

TEXT = np.arange(4000, dtype=np.int32)


@settings(deadline=None, max_examples=60)
@given(
    length=st.integers(20, 900), lanes=st.integers(1, 9), window=st.integers(1, 40), epoch=st.integers(0, 3)
)
def test_windows_give_every_word_of_all_full_lanes_once(length, lanes, window, epoch):
    text = np.arange(length, dtype=np.int32)
    n_steps = (length - 1) // lanes
    recipe = Recipe(lanes=lanes, window=window, rests=0)
    for windows in (
        list(training_windows(text, recipe, epoch)),
        list(reading_windows(text, lanes, window)),
    ):
        words = np.concatenate([w.words for w in windows])
        targets = np.concatenate([w.targets for w in windows])
        assert np.array_equal(words, np.arange(n_steps)[:, None] + np.arange(lanes) * n_steps)
        assert np.array_equal(targets, words + 1)
        assert [w.carry for w in windows] == [k > 0 for k in range(len(windows))]


def test_lengths_are_random_about_the_window():
    windows = list(training_windows(np.zeros(400_000, np.int32), Recipe(lanes=4, window=70), 0))
    lengths = np.array([len(w.words) for w in windows[:-1]])
    short = lengths < 52
    assert 0.03 < short.mean() < 0.07
    assert lengths[~short].mean() == pytest.approx(70, abs=0.6)
    assert lengths[~short].std() == pytest.approx(5, abs=0.5)
    assert lengths[short].mean() == pytest.approx(35, abs=2)
    again = [
        len(w.words) for w in training_windows(np.zeros(400_000, np.int32), Recipe(lanes=4, window=70), 0)
    ]
    other = [
        len(w.words) for w in training_windows(np.zeros(400_000, np.int32), Recipe(lanes=4, window=70), 1)
    ]
    assert again == [len(w.words) for w in windows] != other


def test_some_windows_begin_at_rest_and_all_else_is_the_same():
    text = np.zeros(600_000, np.int32)
    recipe = Recipe(lanes=4, window=30, rests=0.1)
    windows = list(training_windows(text, recipe, 0))
    carried = np.array([w.carry for w in windows])
    assert not carried[0]
    assert 1 - carried[1:].mean() == pytest.approx(0.1, abs=4 * np.sqrt(0.09 / len(windows)))
    assert [w.carry for w in training_windows(text, recipe, 0)] == carried.tolist()
    assert [w.carry for w in training_windows(text, recipe, 1)] != carried.tolist()
    plain = list(training_windows(text, Recipe(lanes=4, window=30, rests=0), 0))
    assert [len(w.words) for w in windows] == [len(w.words) for w in plain]


def test_rate_rises_then_falls_along_a_cosine():
    recipe = Recipe(epochs=10, lr=1.0, final_lr=0.1, warm_up=0.5)
    assert recipe.rate(0) == 0
    assert recipe.rate(0.25) == pytest.approx(0.5)
    assert recipe.rate(5) == pytest.approx(0.1 + 0.9 / 2)
    assert recipe.rate(10) == pytest.approx(0.1)


class TestMasks:
    recipe = Recipe(
        dropout_words=0.1, dropout_embedding=0.5, dropout_layers=0.25, dropout_output=0.4, dropconnect=0.3
    )

    def draw(self, recipe=recipe, epoch=0, number=0, lanes=50):
        text = np.zeros((3, lanes), np.int32)
        window = Window(text, text, False, epoch, number)
        sizes, shapes = [40, 30, 20], [(40, 120), (30, 90), (20, 60)]
        return draw_masks(recipe, window, 9000, 16, sizes, shapes, np.dtype(np.float32))

    def test_shapes_shares_and_sizes(self):
        masks = self.draw()
        assert [m.shape for m in masks.layers] == [(50, 40), (50, 30)]
        assert [m.shape for m in masks.recurrent] == [(40, 120), (30, 90), (20, 60)]
        for mask, shape, share in (
            (masks.words, (9000,), 0.1),
            (masks.embedding, (50, 16), 0.5),
            (masks.layers[0], (50, 40), 0.25),
            (masks.output, (50, 20), 0.4),
            (masks.recurrent[0], (40, 120), 0.3),
        ):
            assert mask.shape == shape
            assert mask.dtype == np.float32
            kept = mask[mask != 0]
            assert kept == pytest.approx(1 / (1 - share))
            assert abs(1 - kept.size / mask.size - share) < 5 * np.sqrt(share / mask.size)

    def test_depend_on_seed_epoch_and_number_only(self):
        one = self.draw()
        assert np.array_equal(one.recurrent[2], self.draw().recurrent[2])
        for other in (self.draw(epoch=1), self.draw(number=1), self.draw(Recipe(seed=1))):
            assert not np.array_equal(one.embedding, other.embedding)

    def test_one_kind_does_not_change_the_others(self):
        """So a network that drops nothing between layers sees the same other masks."""
        without = Recipe(
            dropout_words=0, dropout_embedding=0.5, dropout_layers=0, dropout_output=0.4, dropconnect=0.3
        )
        masks = self.draw(without)
        assert masks.words is None
        assert masks.layers == [None, None]
        assert np.array_equal(masks.output, self.draw().output)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("lanes", 0),
        ("window", 0),
        ("epochs", 0),
        ("dropconnect", 1.0),
        ("dropout_words", -0.1),
        ("lr", float("nan")),
        ("weight_decay", -1.0),
    ],
)
def test_bad_settings(setting, value):
    with pytest.raises(ParameterError, match=f"{setting} is {value}"):
        Recipe(**{setting: value})


def test_too_many_lanes():
    with pytest.raises(ParameterError, match="5 words cannot fill 5 lanes"):
        list(reading_windows(TEXT[:5], 5, 3))
