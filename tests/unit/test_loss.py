"""Losses against SciPy, and their gradients against central differences."""

import numpy as np
import pytest
import scipy.special

from evsim.errors import GradientError
from evsim.loss import (
    IGNORED,
    binary_cross_entropy,
    cross_entropy,
    first_event_cross_entropy,
    first_events,
    mean_squared_error,
    silence,
)
from evsim.timed_events import TimedEvents


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


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int32", "uint64"])
def test_any_integers_and_any_strides(dtype):
    wide, target = state(shape=(5, 3, 8)), np.arange(15).reshape(5, 3) % 4
    loss, gradient = cross_entropy(wide[..., ::2], target.T.copy().T.astype(dtype))
    expected, same = cross_entropy(wide[..., ::2].copy(), target)
    assert loss == expected
    np.testing.assert_array_equal(gradient, same)


def test_the_first_wrong_target_is_named():
    target = np.zeros((5, 3), int)
    target[1, 2], target[3, 0] = -2, 4
    with pytest.raises(GradientError, match=r"target -2 is outside 0\.\.3; or -1"):
        cross_entropy(state(), target)


def test_of_no_steps_costs_nothing():
    loss, gradient = cross_entropy(np.zeros((0, 2, 3)), np.zeros((0, 2), int))
    assert (loss, gradient.shape) == (0, (0, 2, 3))


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


def probabilities(seed=3, ignored=0.3, dtype="float64"):
    """0, 1 and what lies between, and NaN."""
    rng = np.random.default_rng(seed)
    goal = np.clip(rng.uniform(-0.5, 1.5, (5, 3, 4)), 0, 1).astype(dtype)
    goal[rng.random(goal.shape) < ignored] = np.nan
    return goal


class TestBinaryCrossEntropy:
    @pytest.mark.parametrize("ignored", [0.0, 0.4])
    def test_is_that_of_the_logistic_function(self, ignored):
        logits, goal = state(), probabilities(ignored=ignored)
        assert {0.0, 1.0} < set(goal[~np.isnan(goal)].tolist())
        there = ~np.isnan(goal)
        x, t = logits[there], goal[there]
        expected = -np.mean(t * scipy.special.log_expit(x) + (1 - t) * scipy.special.log_expit(-x))
        loss, gradient = binary_cross_entropy(logits, goal)
        assert isinstance(loss, float)
        assert loss == pytest.approx(expected, rel=1e-13)
        np.testing.assert_allclose(
            gradient, differences(lambda values: binary_cross_entropy(values, goal), logits), atol=1e-9
        )
        assert not gradient[~there].any()
        assert there.all() == (ignored == 0)

    def test_is_least_at_the_target(self):
        goal = np.random.default_rng(0).uniform(0.1, 0.9, (2, 3, 4))
        _, gradient = binary_cross_entropy(scipy.special.logit(goal), goal)
        np.testing.assert_allclose(gradient, 0, atol=1e-16)

    def test_what_is_ignored_does_not_matter(self):
        logits, goal = state(), probabilities()
        loss, gradient = binary_cross_entropy(logits, goal)
        logits[np.isnan(goal)] = 1e30
        again, same = binary_cross_entropy(logits, goal)
        assert again == loss
        np.testing.assert_array_equal(same, gradient)

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_huge_logits_do_not_overflow(self, dtype):
        """Far out the loss is |x| on the wrong side and 0 on the right one."""
        logits = np.array([[[1e4, -1e4, 1e4, -1e4, 1e30]]], dtype)
        for goal, cost in ((1, [0, 1e4, 0, 1e4, 0]), (0, [1e4, 0, 1e4, 0, 1e30])):
            loss, gradient = binary_cross_entropy(logits, np.full(logits.shape, goal))
            assert loss == pytest.approx(np.mean(cost), rel=1e-6)
            np.testing.assert_allclose(gradient[0, 0], (np.array([1, 0, 1, 0, 1]) - goal) / 5, rtol=1e-6)

    def test_float32_stays_float32(self):
        logits, goal = state(dtype="float32"), probabilities(dtype="float32")
        loss, gradient = binary_cross_entropy(logits, goal.astype("float64"))
        wide_loss, wide = binary_cross_entropy(logits.astype("float64"), goal.astype("float64"))
        assert gradient.dtype == np.float32
        assert loss == pytest.approx(wide_loss, rel=1e-6)
        np.testing.assert_allclose(gradient, wide, atol=1e-7)

    def test_of_nothing_costs_nothing(self):
        for logits, goal in (
            (state(), np.full((5, 3, 4), np.nan)),
            (np.zeros((0, 3, 4)), np.zeros((0, 3, 4))),
        ):
            loss, gradient = binary_cross_entropy(logits, goal)
            assert loss == 0
            assert gradient.shape == logits.shape
            assert not gradient.any()

    def test_leaves_what_it_is_given_alone(self):
        logits, goal = state(), probabilities()
        binary_cross_entropy(logits, goal)
        np.testing.assert_array_equal(logits, state())
        np.testing.assert_array_equal(goal, probabilities())

    @pytest.mark.parametrize(
        ("goal", "message"),
        [
            (np.zeros((5, 3)), r"targets have shape \(5, 3\); give \(5, 3, 4\)"),
            (np.full((5, 3, 4), 1.5), r"target 1.5 is outside \[0, 1\]; or NaN"),
            (np.where(np.arange(60).reshape(5, 3, 4) == 7, -0.25, np.nan), "target -0.25 is outside"),
            (np.full((5, 3, 4), np.inf), "target inf is outside"),
        ],
    )
    def test_refuses_targets_that_are_no_probabilities(self, goal, message):
        with pytest.raises(GradientError, match=message):
            binary_cross_entropy(state(), goal)


# -- continuous time -------------------------------------------------------------------------------------


def timed(times, n_lanes=3, n_units=4, stop=30.0):
    """Events from {(lane, unit): times}."""
    rows = [(t, lane, unit) for (lane, unit), sent in times.items() for t in sent]
    time, lane, unit = zip(*rows, strict=True) if rows else ((), (), ())
    size = {"n_lanes": n_lanes, "n_units": n_units, "start": 0.0, "stop": stop}
    return TimedEvents.from_list(time, lane, unit, [0.7] * len(rows), **size)


SENT = {(0, 0): [3.0, 9.0], (0, 1): [2.0], (0, 3): [2.5, 2.75, 28.0], (1, 2): [11.0], (1, 0): [12.0]}


class TestFirstEvents:
    def test_rows_of_the_earliest(self):
        events, first = timed(SENT), first_events(timed(SENT))
        assert first.shape == (3, 4)
        for lane in range(3):
            for unit in range(4):
                row = first[lane, unit]
                if (lane, unit) not in SENT:
                    assert row == -1
                else:
                    assert (events.time[row], events.lane[row], events.unit[row]) == (
                        SENT[lane, unit][0],
                        lane,
                        unit,
                    )

    def test_no_events_at_all(self):
        assert (first_events(timed({})) == -1).all()


class TestFirstEventCrossEntropy:
    target = np.array([3, 1, 0])  # sends second; is silent; all are silent

    def test_value_by_definition(self):
        expected = 0.0
        for lane, unit in enumerate(self.target):
            times = [SENT.get((lane, k), [30.0])[0] for k in range(4)]
            expected += times[unit] / 4.0 + np.log(sum(np.exp(-t / 4.0) for t in times))
        loss, _ = first_event_cross_entropy(timed(SENT), self.target, 4.0)
        assert loss == pytest.approx(expected / 3, rel=1e-13)

    def test_gradient(self):
        events = timed(SENT)
        _, gradient = first_event_cross_entropy(events, self.target, 4.0)
        assert gradient.shape == (8,)
        for row in range(len(events)):
            moved = []
            for step in (1e-5, -1e-5):
                time = events.time.copy()
                time[row] += step
                columns = (time, events.lane, events.unit, events.value)
                moved.append(
                    first_event_cross_entropy(TimedEvents(4, 3, 0.0, 30.0, *columns), self.target, 4.0)[0]
                )
            assert gradient[row] == pytest.approx((moved[0] - moved[1]) / 2e-5, abs=1e-9)
        later = [row for row in range(len(events)) if events.time[row] in (9.0, 2.75, 28.0)]
        assert not gradient[later].any()
        assert np.count_nonzero(gradient) == 5

    def test_ignored_lanes(self):
        both, gradient = first_event_cross_entropy(timed(SENT), np.array([3, -1, -1]), 4.0)
        alone, _ = first_event_cross_entropy(
            timed({k: t for k, t in SENT.items() if k[0] == 0}, n_lanes=1), np.array([3]), 4.0
        )
        assert both == pytest.approx(alone, rel=1e-14)
        assert not gradient[timed(SENT).lane == 1].any()

    def test_nothing_sent(self):
        loss, gradient = first_event_cross_entropy(timed({}), self.target, 4.0)
        assert loss == pytest.approx(np.log(4), rel=1e-14)
        assert gradient.shape == (0,)

    @pytest.mark.parametrize("tau", [0.0, -1.0, np.nan, np.inf])
    def test_tau(self, tau):
        with pytest.raises(GradientError, match=r"tau is .*; give a positive number of ms"):
            first_event_cross_entropy(timed(SENT), self.target, tau)

    @pytest.mark.parametrize("target", [[0, 1], [[0, 1, 2]], [0, 1, 4], [0.0, 1.0, 2.0]])
    def test_targets(self, target):
        with pytest.raises(GradientError, match="target"):
            first_event_cross_entropy(timed(SENT), target, 4.0)


class TestSilence:
    silent = np.array([[True, False, True], [False, False, True]])

    def test_value_by_definition(self):
        integral = np.random.default_rng(0).normal(size=(4, 2, 3))
        loss, _ = silence(integral, self.silent, 0.5, 40.0)
        lacks = [(0.5 - integral[:, lane, unit].sum() / 40) / 0.5 for lane, unit in ((0, 0), (0, 2), (1, 2))]
        assert loss == pytest.approx(sum(lacks) / 6, rel=1e-13)

    def test_gradient(self):
        integral = np.random.default_rng(1).normal(size=(2, 2, 3))
        _, gradient = silence(integral, self.silent, 0.5, 40.0)
        np.testing.assert_allclose(
            gradient, differences(lambda x: silence(x, self.silent, 0.5, 40.0), integral), atol=1e-9
        )
        assert not gradient[:, ~self.silent].any()
        assert (gradient[:, self.silent] < 0).all()  # more state costs less

    def test_nobody_is_silent(self):
        loss, gradient = silence(np.ones((1, 2, 3)), np.zeros((2, 3), bool), 1.0, 1.0)
        assert loss == 0
        assert not gradient.any()

    @pytest.mark.parametrize("name", ["level", "duration"])
    @pytest.mark.parametrize("value", [0.0, -1.0, np.nan])
    def test_numbers(self, name, value):
        with pytest.raises(GradientError, match=f"{name} is"):
            silence(np.ones((1, 2, 3)), self.silent, **{"level": 1.0, "duration": 1.0, name: value})

    def test_shapes(self):
        with pytest.raises(GradientError, match=r"silent has shape \(2, 3\), integral \(1, 3, 2\)"):
            silence(np.ones((1, 3, 2)), self.silent, 1.0, 1.0)
