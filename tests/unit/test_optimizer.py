"""Optimisers against a second implementation in plain NumPy, and the promises of a step."""

import numpy as np
import pytest

from evsim.errors import GradientError, ParameterError
from evsim.optimizer import SGD, Adam, global_norm
from evsim.parameter import Parameter


def parameters(dtype="float64"):
    rng = np.random.default_rng(0)
    return {
        "a->b.weight": Parameter("a->b.weight", rng.normal(size=(4, 6)).astype(dtype)),
        "b.bias": Parameter("b.bias", rng.normal(size=6).astype(dtype)),
        "b.threshold": Parameter("b.threshold", rng.uniform(0, 1, 2).astype(dtype), 0.0, 1.0),
    }


def gradients(seed, dtype="float64", scale=1.0):
    rng = np.random.default_rng(seed)
    return {name: (scale * rng.normal(size=p.values.shape)).astype(dtype) for name, p in parameters().items()}


def plain_adam(p, grads, lr, b1=0.9, b2=0.999, eps=1e-8, decay=0.0, lower=-np.inf, upper=np.inf):
    """Kingma & Ba 2015, algorithm 1; the decay of Loshchilov & Hutter 2019, algorithm 2, without schedule."""
    m, v, p = np.zeros_like(p), np.zeros_like(p), p.copy()
    for t, g in enumerate(grads, start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
        p = np.clip(p - lr * (m_hat / (np.sqrt(v_hat) + eps) + decay * p), lower, upper)
    return p


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.999), (0.5, 0.9)])
def test_adam(betas, decay):
    moved, start = parameters(), parameters()
    adam = Adam(moved, lr=0.05, betas=betas, eps=1e-6, weight_decay=decay)
    grads = [gradients(seed) for seed in range(1, 30)]
    for gradient in grads:
        adam.step(gradient)
    assert adam.n_steps == 29
    for name, p in start.items():
        mine = decay if name.endswith(".weight") else 0.0  # neither biases nor thresholds decay
        expected = plain_adam(p.values, [g[name] for g in grads], 0.05, *betas, 1e-6, mine, p.lower, p.upper)
        np.testing.assert_allclose(moved[name].values, expected, rtol=0, atol=1e-13)


def test_the_first_step_of_adam_has_the_size_of_the_learning_rate():
    moved, start = parameters(), parameters()
    gradient = gradients(1)
    Adam(moved, lr=1e-3, eps=1e-30).step(gradient)
    for name in ("a->b.weight", "b.bias"):
        step = moved[name].values - start[name].values
        np.testing.assert_allclose(step, -1e-3 * np.sign(gradient[name]), rtol=1e-9)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd(momentum):
    moved, start = parameters(), parameters()
    sgd = SGD(moved, lr=0.01, momentum=momentum)
    velocity = dict.fromkeys(start, 0.0)
    expected = {name: p.values.copy() for name, p in start.items()}
    for seed in range(10):
        gradient = gradients(seed)
        sgd.step(gradient)
        for name, p in start.items():
            velocity[name] = momentum * velocity[name] + gradient[name]
            expected[name] = np.clip(expected[name] - 0.01 * velocity[name], p.lower, p.upper)
    for name in start:
        np.testing.assert_allclose(moved[name].values, expected[name], rtol=0, atol=1e-14)


@pytest.mark.parametrize("optimizer", [SGD, Adam])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_are_written_in_place_in_their_own_float_type(optimizer, dtype):
    moved = parameters(dtype)
    arrays = {name: p.values for name, p in moved.items()}
    stepper = optimizer(moved, lr=0.1, clip=0.5)
    for seed in range(3):
        stepper.step(gradients(seed, dtype))
    for name, p in moved.items():
        assert p.values is arrays[name]
        assert p.values.dtype == dtype
        assert not np.array_equal(p.values, parameters(dtype)[name].values)
    for name, kept in stepper.state().items():
        assert name in ("lr", "n_steps") or kept.dtype == dtype


def test_clipping_scales_all_gradients_together():
    clipped, plain = parameters(), parameters()
    gradient = gradients(1)
    flat = np.concatenate([g.ravel() for g in gradient.values()])
    norm = np.linalg.norm(flat)
    assert SGD(clipped, lr=0.1, clip=norm / 4).step(gradient) == pytest.approx(norm, rel=1e-14)
    SGD(plain, lr=0.1).step({name: g / 4 for name, g in gradient.items()})
    for name in plain:
        np.testing.assert_allclose(clipped[name].values, plain[name].values, rtol=1e-13)
    untouched = parameters()
    SGD(untouched, lr=0.1, clip=norm * 2).step(gradient)
    for name, p in parameters().items():
        expected = np.clip(p.values - 0.1 * gradient[name], p.lower, p.upper)
        np.testing.assert_array_equal(untouched[name].values, expected)
    assert all(np.array_equal(gradient[name], gradients(1)[name]) for name in gradient)


@pytest.mark.parametrize("size", [0, 1, 63, 64, 200, 10_000])
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-18, 1.0, 1e15, 1e19, 1e30])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_norm(dtype, scale, size):
    """Of floats in double: their squares may be beyond what a float can hold."""
    arrays = [scale * np.random.default_rng(size + k).standard_normal(size).astype(dtype) for k in range(2)]
    arrays = [array.astype(dtype) for array in arrays]
    expected = np.linalg.norm(np.concatenate(arrays).astype(float))
    assert global_norm(arrays) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 70, 4999])
def test_norm_of_what_is_not_finite_is_not(place, wrong):
    array = np.ones(5000, np.float32)
    array[place] = wrong
    assert not np.isfinite(global_norm([array]))


def test_parameters_stay_in_their_range():
    moved = parameters()
    for seed in range(20):
        SGD(moved, lr=5.0).step(gradients(seed))
        assert moved["b.threshold"].values.min() >= 0
        assert moved["b.threshold"].values.max() <= 1
    assert np.abs(moved["b.bias"].values).max() > 1


def test_what_is_not_trainable_needs_no_gradient_and_stays():
    moved = parameters()
    moved["b.threshold"].trainable = False
    gradient = gradients(1)
    del gradient["b.threshold"]
    Adam(moved, lr=0.1, weight_decay=0.1).step(gradient)
    np.testing.assert_array_equal(moved["b.threshold"].values, parameters()["b.threshold"].values)
    assert not np.array_equal(moved["b.bias"].values, parameters()["b.bias"].values)


@pytest.mark.parametrize(
    "make",
    [lambda p: Adam(p, lr=0.02, weight_decay=0.01), lambda p: SGD(p, lr=0.02, momentum=0.9)],
    ids=["adam", "sgd"],
)
def test_a_stored_state_goes_on_bit_for_bit(make):
    through, stopped = parameters("float32"), parameters("float32")
    one, two = make(through), make(stopped)
    for seed in range(5):
        one.step(gradients(seed, "float32"))
        two.step(gradients(seed, "float32"))
    state = {name: np.array(array) for name, array in two.state().items()}
    three = make(stopped)
    three.load(state)
    for seed in range(5, 10):
        one.step(gradients(seed, "float32"))
        three.step(gradients(seed, "float32"))
    for name in through:
        np.testing.assert_array_equal(stopped[name].values, through[name].values)
    assert three.n_steps == 10


def test_a_failed_step_changes_nothing_and_is_not_counted():
    moved = parameters()
    adam = Adam(moved, lr=0.1)
    adam.step(gradients(1))
    before = {name: p.values.copy() for name, p in moved.items()}
    state = {name: np.array(array) for name, array in adam.state().items()}
    bad = gradients(2)
    bad["b.threshold"] = np.array([1.0, np.nan])
    with pytest.raises(GradientError, match=r"b\.threshold"):
        adam.step(bad)
    for name, p in moved.items():
        np.testing.assert_array_equal(p.values, before[name])
    for name, array in adam.state().items():
        np.testing.assert_array_equal(array, state[name])


def test_adam_finds_the_bottom_of_a_bowl():
    moved = {"x.bias": Parameter("x.bias", np.array([3.0, -2.0]))}
    adam = Adam(moved, lr=0.1)
    for _ in range(500):
        adam.step({"x.bias": 2 * (moved["x.bias"].values - np.array([0.5, 0.25]))})
    np.testing.assert_allclose(moved["x.bias"].values, [0.5, 0.25], atol=1e-6)


@pytest.mark.parametrize("decay", [-0.1, np.nan, np.inf])
def test_a_weight_decay_is_a_number(decay):
    with pytest.raises(ParameterError, match="weight_decay is"):
        Adam({}, weight_decay=decay)
