"""Thresholds from data, against the mean square changes of the lines taken by NumPy."""

import numpy as np
import pytest

from evsim.calibration import calibrate
from evsim.errors import ParameterError
from evsim.models import DeltaEncoder, DeltaGRU, DeltaReadout, EventSource
from evsim.network import Network
from evsim.protocol import Trial
from evsim.simulation import Simulation


def network():
    net = Network(dtype="float64", seed=3)
    line = net.add(EventSource(4, "line", threshold=0.5))
    hidden = net.add(DeltaGRU(6, "hidden", threshold=0.25))
    finer = net.add(DeltaEncoder(hidden, "finer", threshold=0.125))
    net.connect(line, hidden)
    net.connect(hidden, hidden, weight="orthogonal")
    net.connect(finer, net.add(DeltaReadout(2, "answer")))
    return net


def walks(seed, n_steps=40, lanes=3):
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.normal(0, [0.1, 0.3, 1.0, 0.0], (n_steps, lanes, 4)), axis=0)


def thresholds(net):
    return {n: p.values.copy() for n, p in net.parameters().items() if n.endswith("threshold")}


def assign(net, theta):
    for name, parameter in net.parameters().items():
        if name.endswith("threshold"):
            parameter.assign(theta)


def sizes(signals):
    """Root mean square of the changes of each line, without the first step of each trial."""
    changes = np.concatenate([np.diff(s, axis=0).reshape(-1, s.shape[-1]) for s in signals])
    return np.sqrt((changes**2).mean(axis=0))


class TestThresholds:
    def test_are_k_times_the_size_of_the_changes_of_each_line(self):
        net, data = network(), [walks(0), walks(1, 25)]
        dense = network()
        assign(dense, 0.0)
        h = [Simulation(dense).run(x)["hidden"].state for x in data]
        found = calibrate(net, [Trial(x, None) for x in data], 0.7)
        assert set(found) == {"line", "hidden", "finer"}
        np.testing.assert_allclose(found["line"], 0.7 * sizes(data), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found["hidden"], 0.7 * sizes(h), rtol=1e-9)
        np.testing.assert_array_equal(found["finer"], found["hidden"])
        np.testing.assert_array_equal(net["hidden"].parameters["threshold"].values, found["hidden"])

    def test_of_a_population_are_one(self):
        net, data = network(), [walks(2)]
        found = calibrate(net, [Trial(data[0], None)], {"line": 2.0}, per="population")
        assert set(found) == {"line"}
        np.testing.assert_allclose(
            found["line"], np.full(4, 2 * np.sqrt((sizes(data) ** 2).mean())), rtol=1e-9
        )
        np.testing.assert_array_equal(net["hidden"].parameters["threshold"].values, np.full(6, 0.25))

    def test_of_a_line_that_never_changes_is_0(self):
        assert calibrate(network(), [Trial(walks(4), None)], 1.0)["line"][3] == 0

    def test_do_not_depend_on_how_a_sequence_is_cut(self):
        x = walks(5)
        whole = calibrate(network(), [Trial(x, None)], 1.0)
        parts = calibrate(network(), [Trial(x[:15], None), Trial(x[15:], None, carry=True)], 1.0)
        for name in whole:
            np.testing.assert_allclose(parts[name], whole[name], rtol=1e-12)

    def test_look_only_at_the_steps_of_a_lane(self):
        x = walks(6, 30, 2)
        cut = calibrate(network(), [Trial(x, None, lengths=[30, 12])], 1.0)
        alone = calibrate(network(), [Trial(x[:, :1], None), Trial(x[:12, 1:], None)], 1.0)
        for name in cut:
            np.testing.assert_allclose(cut[name], alone[name], rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": -1.0}, "k of 'line': is -1.0"),
        ({"k": float("nan")}, "is nan"),
        ({"k": "0.5"}, "is '0.5'"),
        ({"k": None}, "is None"),
        ({"k": {"hidden": 1.0, "line": 1e308}, "trials": [Trial(1e3 * walks(0), None)]}, "value inf"),
        ({"k": {"answer": 1.0}}, "'answer': it sends no changes"),
        ({"k": 1.0, "per": "layer"}, "per is 'layer'"),
        ({"k": 1.0, "trials": []}, "no steps"),
        ({"k": 1.0, "trials": [Trial(np.zeros((1, 1, 4)), None)]}, "no steps"),
        ({"k": 1.0, "trials": [Trial(np.full((3, 1, 4), np.inf), None)]}, "value inf"),
    ],
)
def test_what_cannot_be_calibrated_changes_nothing(options, message):
    net = network()
    before = thresholds(net)
    with pytest.raises((ParameterError, ValueError), match=message):
        calibrate(net, **({"trials": [Trial(walks(0), None)]} | options))
    for name, values in thresholds(net).items():
        np.testing.assert_array_equal(values, before[name])
