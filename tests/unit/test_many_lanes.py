"""Layers whose weights are far from fitting a cache: rows are then taken in order, for many lanes at once."""

import numpy as np
import pytest

from evsim import Adjoint, Network, Simulation
from evsim.models import EGRU, EventSource

# Recurrent rows of 15 or 29 MB; more lanes than go side by side.
UNITS, LINES, STEPS, LANES = 1100, 320, 5, 70


def network(dtype):
    net = Network(seed=3, dtype=dtype)
    source, hidden = net.add(EventSource(LINES, "source")), net.add(EGRU(UNITS, "hidden", threshold=0.05))
    net.connect(source, hidden, name="in")
    net.connect(hidden, hidden, name="back")
    return net


@pytest.fixture(scope="module", params=["float32", "float64"])
def case(request):
    """A network, its log of all lanes together, and their stimulus."""
    net, rng = network(request.param), np.random.default_rng(0)
    stimulus = rng.normal(size=(STEPS, LANES, LINES)) * (rng.random((STEPS, LANES, LINES)) < 0.3)
    simulation = Simulation(net, threads=1)
    return simulation, simulation.run(stimulus), stimulus


def test_lanes_send_what_each_sends_alone(case):
    simulation, log, stimulus = case
    events = log["hidden"].events
    assert 0.05 < log["hidden"].activity < 0.6
    for lane in (0, 31, 32, 69):
        alone = Simulation(simulation.plan, threads=1).run(stimulus[:, lane : lane + 1])["hidden"].events
        mine = [k for k, (_, of_lane, _, _) in enumerate(events) if of_lane == lane]
        np.testing.assert_array_equal(events.unit[mine], alone.unit)
        np.testing.assert_array_equal(events.value[mine], alone.value)


def test_weight_gradients_are_the_sum_over_lanes(case):
    simulation, log, stimulus = case
    adjoint = Adjoint(simulation.plan, threads=1)
    dy = np.random.default_rng(1).normal(size=(STEPS, LANES, UNITS))
    together = adjoint.replay(log, {"hidden.y": dy})
    total = dict.fromkeys(together, 0.0)
    for lane in range(LANES):
        alone = Simulation(simulation.plan, threads=1).run(stimulus[:, lane : lane + 1])
        for name, gradient in adjoint.replay(alone, {"hidden.y": dy[:, lane : lane + 1]}).items():
            total[name] = total[name] + gradient.astype(np.float64)
    tolerance = 1e-12 if simulation.plan.dtype == np.float64 else 2e-5
    for name, gradient in together.items():
        assert np.abs(gradient - total[name]).max() <= tolerance * np.abs(total[name]).max(), name
