"""Unit types: parameters, defaults, and one step of each against its equations."""

import math

import numpy as np
import pytest
from scipy.special import expit

from evsim.models import EGRU, EventSource, LeakyReadout, LinearReadout, beta_threshold
from evsim.network import Network
from evsim.simulation import Simulation


@pytest.mark.parametrize("mean", [0.01, 0.3, 0.8])
def test_mean_of_beta_thresholds(mean):
    """Beta(a, 3) has mean a / (a + 3), which is ``mean`` for a = 3 mean / (1 - mean)."""
    a = 3 * mean / (1 - mean)
    drawn = beta_threshold(mean)(np.random.default_rng(0), (200_000,))
    deviation = math.sqrt(a * 3 / ((a + 3) ** 2 * (a + 4)))
    assert abs(drawn.mean() - mean) < 5 * deviation / math.sqrt(drawn.size)
    assert drawn.std() == pytest.approx(deviation, rel=0.05)
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    if mean == 0.01:
        assert (drawn < 1e-6).mean() == pytest.approx(2 / 3, abs=0.05)


def test_parameters_of_each_type():
    net = Network()
    net.add(EventSource(2, name="cue"))
    net.add(EGRU(3, name="evnn"))
    net.add(EGRU(3, name="paper", form="paper", train_threshold=False))
    net.add(LeakyReadout(4, name="leaky"))
    net.add(LinearReadout(5, name="linear"))
    shapes = {name: p.values.shape for name, p in net.parameters().items()}
    assert shapes == {
        "evnn.bias": (9,),
        "evnn.recurrent_bias": (9,),
        "evnn.threshold": (3,),
        "paper.bias": (9,),
        "paper.threshold": (3,),
        "leaky.bias": (4,),
        "linear.bias": (5,),
    }
    for name, parameter in net.parameters().items():
        assert parameter.values.dtype == np.float32
        assert parameter.trainable == (name != "paper.threshold")
        assert (parameter.lower, parameter.upper) == (
            (0, 1) if name.endswith("threshold") else (-np.inf, np.inf)
        )
    assert net["evnn"].parameters["threshold"].values.tolist() == pytest.approx([0.3] * 3)


def test_initial_values_may_be_numbers_arrays_or_functions():
    net = Network(dtype="float64")
    given = np.arange(9.0)
    population = net.add(EGRU(3, name="a", threshold=[0.1, 0.2, 0.3], bias=given))
    drawn = net.add(EGRU(3, name="b", threshold=0.5, bias=lambda rng, shape: rng.normal(size=shape)))
    np.testing.assert_array_equal(population.parameters["bias"].values, given)
    np.testing.assert_array_equal(population.parameters["threshold"].values, [0.1, 0.2, 0.3])
    assert drawn.parameters["bias"].values.std() > 0
    given[0] = 99  # values were copied
    assert population.parameters["bias"].values[0] == 0


def test_thresholds_at_the_ends_of_their_range():
    net = Network()
    net.add(EGRU(2, name="a", threshold=[0.0, 1.0]))
    np.testing.assert_array_equal(net["a"].parameters["threshold"].values, [0, 1])


def test_descriptions_are_complete():
    assert EGRU(3, name="x", form="paper").describe() == {"type": "EGRU", "n_units": 3, "form": "paper"}
    assert LeakyReadout(3, name="x", tau=2).describe() == {
        "type": "LeakyReadout",
        "n_units": 3,
        "tau_ms": 2.0,
    }
    assert LinearReadout(3, name="x").describe() == {"type": "LinearReadout", "n_units": 3, "tau_ms": 0.0}
    assert EventSource(3, name="x").describe() == {"type": "EventSource", "n_units": 3}
    assert repr(EGRU(3, name="x")) == "EGRU(3, name='x')"


def test_a_leaky_readout_by_hand():
    """v_t = k v_{t-1} + (1 - k)(w x_t + b): a constant input is approached exponentially."""
    tau, dt, w, b, n_steps = 7.0, 0.5, 1.5, 0.25, 60
    net = Network(dt=dt, dtype="float64")
    net.add(EventSource(1, name="cue"))
    net.add(LeakyReadout(1, name="answer", tau=tau, bias=b))
    net.connect("cue", "answer", w)
    v = Simulation(net).run(np.full((n_steps, 1, 1), 2.0))["answer"].state[:, 0, 0]
    t = dt * np.arange(1, n_steps + 1)
    np.testing.assert_allclose(v, (2 * w + b) * (1 - np.exp(-t / tau)), rtol=1e-13)


def drive(form, threshold, x, weight, bias, recurrent=None, recurrent_bias=None):
    net = Network(dtype="float64")
    net.add(EventSource(x.shape[-1], name="cue"))
    n = weight.shape[1] // 3
    net.add(EGRU(n, name="hidden", form=form, threshold=threshold, bias=bias))
    net.connect("cue", "hidden", weight)
    if recurrent is not None:
        net.connect("hidden", "hidden", recurrent)
    if recurrent_bias is not None:
        net.parameters()["hidden.recurrent_bias"].assign(recurrent_bias)
    return Simulation(net).run(x)


def test_egru_evnn_by_its_equations():
    rng = np.random.default_rng(0)
    n, x = 5, rng.normal(size=(30, 1, 3))
    weight, recurrent = rng.normal(size=(3, 3 * n)), rng.normal(size=(n, 3 * n))
    bias, b_r, theta = rng.normal(size=3 * n), rng.normal(size=3 * n), rng.uniform(0, 0.4, n)
    log = drive("evnn", theta, x, weight, bias, recurrent, b_r)
    c = y = np.zeros(n)
    for t in range(len(x)):
        p, q = x[t, 0] @ weight + bias, y @ recurrent + b_r
        z, r = expit(p[:n] + q[:n]), expit(p[n : 2 * n] + q[n : 2 * n])
        a = z * c + (1 - z) * np.tanh(p[2 * n :] + r * q[2 * n :])
        o = a > theta
        y, c = o * a, a - o * theta
        np.testing.assert_allclose(log["hidden"].events.to_dense()[t, 0], y, atol=1e-12)
        np.testing.assert_allclose(log["hidden"].state[t, 0], c, atol=1e-12)
    assert log["hidden"].n_events > 10


def test_egru_paper_by_its_equations():
    rng = np.random.default_rng(0)
    n, x = 5, rng.normal(size=(30, 1, 3))
    weight, recurrent = rng.normal(size=(3, 3 * n)), rng.normal(size=(n, 3 * n))
    bias, theta = rng.normal(size=3 * n), rng.uniform(0, 0.4, n)
    log = drive("paper", theta, x, weight, bias, recurrent)
    c = y = np.zeros(n)
    for t in range(len(x)):
        p = x[t, 0] @ weight + bias
        u = expit(p[:n] + y @ recurrent[:, :n])
        r = expit(p[n : 2 * n] + y @ recurrent[:, n : 2 * n])
        z = np.tanh(p[2 * n :] + (r * y) @ recurrent[:, 2 * n :])
        c = u * z + (1 - u) * c - y
        y = c * (c > theta)
        np.testing.assert_allclose(log["hidden"].events.to_dense()[t, 0], y, atol=1e-12)
        np.testing.assert_allclose(log["hidden"].state[t, 0], c, atol=1e-12)
    assert log["hidden"].n_events > 10


@pytest.mark.parametrize("form", ["evnn", "paper"])
def test_a_state_at_its_threshold_is_no_event(form):
    """H(0) = 0: without input and bias the state stays at 0, the threshold, and says nothing."""
    log = drive(form, 0.0, np.zeros((10, 1, 1)), np.zeros((1, 3)), 0.0)
    assert log["hidden"].n_events == 0
    assert not log["hidden"].state.any()


def test_a_silent_paper_unit_approaches_its_candidate():
    """c_{t+k} = z + (c_t - z)(1 - u)^k, and the first event is where that passes the threshold."""
    b_u, b_z, theta = -1.5, 1.0, 0.6
    u, z = expit(b_u), np.tanh(b_z)
    first = math.floor(math.log((z - theta) / z) / math.log(1 - u)) + 1
    log = drive("paper", theta, np.zeros((first + 3, 1, 1)), np.zeros((1, 3)), [b_u, 0.0, b_z])
    k = np.arange(1, first + 1)
    np.testing.assert_allclose(log["hidden"].state[:first, 0, 0], z - z * (1 - u) ** k, rtol=1e-12)
    assert log["hidden"].events.step[0] == first - 1
    # Then it begins again from nothing: a = u z + (1 - u) c - c.
    expected = u * z - u * log["hidden"].state[first - 1, 0, 0]
    assert log["hidden"].state[first, 0, 0] == pytest.approx(expected, rel=1e-12)
