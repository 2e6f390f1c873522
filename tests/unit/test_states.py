"""States of a population by name, as a log keeps them."""

import numpy as np
import pytest

from evsim import Network, Simulation
from evsim.models import LIF, DeltaLSTM, EventSource
from evsim.states import States


def test_they_are_parts_of_one_array_in_order():
    array = np.arange(24.0).reshape(2, 12)
    states = States(array, ("m", "c", "h"))
    assert list(states) == ["m", "c", "h"]
    assert len(states) == 3
    np.testing.assert_array_equal(states["c"], array[:, 4:8])
    assert np.shares_memory(states["h"], array)
    assert "c" in states
    assert "sent" not in states
    with pytest.raises(KeyError, match="sent"):
        states["sent"]
    assert repr(states) == "States(m, c, h; 2 lanes)"


@pytest.mark.parametrize("carry", [False, True])
def test_a_log_keeps_those_from_which_its_run_began(carry):
    """The next run goes on in arrays of its own, and rest, which logs share, cannot be written into."""
    net = Network(dt=1.0, seed=0)
    source, hidden = net.add(EventSource(3, "source", threshold=0.1)), net.add(DeltaLSTM(4, "hidden"))
    net.connect(source, hidden)
    simulation, x = Simulation(net), np.random.default_rng(0).random((5, 2, 3), np.float32)
    first = simulation.run(x)
    assert not any(values.any() for values in first["hidden"].initial.values())
    with pytest.raises(ValueError, match="read-only"):
        first["hidden"].initial["c"][0, 0] = 1
    end = simulation.states("hidden")
    second = simulation.run(x, carry=carry)
    for name, values in second["hidden"].initial.items():
        np.testing.assert_array_equal(values, end[name] if carry else 0 * end[name])
    simulation.run(x, carry=True)
    simulation.step(x[0])
    for name, values in second["hidden"].initial.items():
        np.testing.assert_array_equal(values, end[name] if carry else 0 * end[name])


def test_rest_of_lif_units_is_their_reset_for_any_number_of_lanes():
    net = Network(dt=1.0, seed=0)
    net.add(LIF(2, "unit", reset=-0.5))
    simulation = Simulation(net)
    for n_lanes in (1, 3, 1):
        log = simulation.run({}, 2.0, lengths=[2] * n_lanes)
        np.testing.assert_array_equal(log["unit"].initial["v"], np.full((n_lanes, 2), -0.5, np.float32))
