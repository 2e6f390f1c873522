"""Losses against SciPy, and their gradients against central differences."""

import numpy as np
import pytest
import scipy.special

from evsim.loss import IGNORED, cross_entropy, mean_squared_error


def state(seed=0, shape=(5, 3, 4), scale=2.0, dtype="float64"):
    return np.random.default_rng(seed).normal(0, scale, shape).astype(dtype)


def differences(loss, values, step=1e-6):
    gradient = np.zeros_like(values)
    for index in np.ndindex(values.shape):
        up, down = values.copy(), values.copy()
        up[index] += step
        down[index] -= step
        gradient[index] = (loss(up)[0] - loss(down)[0]) / (2 * step)
    return gradient


@pytest.mark.parametrize("ignored", [0.0, 0.4])
def test_cross_entropy(ignored):
    rng = np.random.default_rng(1)
    logits, target = state(), rng.integers(0, 4, (5, 3))
    target[rng.random((5, 3)) < ignored] = IGNORED
    there = target >= 0
    log_p = scipy.special.log_softmax(logits, axis=-1)
    expected = -np.take_along_axis(log_p, np.maximum(target, 0)[..., None], axis=-1)[..., 0][there].mean()
    loss, gradient = cross_entropy(logits, target)
    assert isinstance(loss, float)
    assert loss == pytest.approx(expected, rel=1e-14)
    np.testing.assert_allclose(gradient, differences(lambda x: cross_entropy(x, target), logits), atol=1e-9)
    assert not gradient[~there].any()
    np.testing.assert_allclose(gradient.sum(axis=-1), 0, atol=1e-16)


def test_equal_logits_cost_the_logarithm_of_the_classes():
    loss, gradient = cross_entropy(np.zeros((2, 3, 50)), np.full((2, 3), 7))
    assert loss == pytest.approx(np.log(50), rel=1e-15)
    np.testing.assert_allclose(gradient[..., 0], 1 / 50 / 6, rtol=1e-14)
    np.testing.assert_allclose(gradient[..., 7], (1 / 50 - 1) / 6, rtol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_huge_logits_do_not_overflow(dtype):
    logits = np.array([[[1e4, -1e4, 0.0]], [[1e38, 0.0, -1e38]]], dtype)
    loss, gradient = cross_entropy(logits, np.array([[0], [0]]))
    assert loss == 0
    assert gradient.dtype == dtype
    assert np.isfinite(gradient).all()


def test_float32_stays_float32():
    logits = state(dtype="float32")
    target = np.ones((5, 3), np.int32)
    loss, gradient = cross_entropy(logits, target)
    wide_loss, wide = cross_entropy(logits.astype("float64"), target)
    assert gradient.dtype == np.float32
    assert loss == pytest.approx(wide_loss, rel=1e-6)
    np.testing.assert_allclose(gradient, wide, atol=1e-7)


def test_nothing_to_predict_costs_nothing():
    loss, gradient = cross_entropy(state(), np.full((5, 3), IGNORED))
    assert loss == 0
    assert gradient.shape == (5, 3, 4)
    assert not gradient.any()


def test_the_input_is_left_alone():
    logits, target = state(), np.zeros((5, 3), int)
    cross_entropy(logits, target)
    np.testing.assert_array_equal(logits, state())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_mean_squared_error(dtype):
    values, goal = state(dtype=dtype), state(3, dtype=dtype)
    goal[2, 1] = np.nan  # ignored
    there = ~np.isnan(goal)
    loss, gradient = mean_squared_error(values, goal)
    assert loss == pytest.approx(
        np.mean((values[there] - goal[there]) ** 2), rel=1e-6 if dtype == "float32" else 1e-14
    )
    assert gradient.dtype == dtype
    assert not gradient[~there].any()
    if dtype == "float64":
        np.testing.assert_allclose(
            gradient, differences(lambda x: mean_squared_error(x, goal), values), atol=1e-8
        )
