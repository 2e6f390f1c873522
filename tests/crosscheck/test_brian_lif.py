"""Brian2 runs LIF units in steps as evsim does: the same events, the same states but for rounding."""

import numpy as np
import pytest

from evsim.brian import crosscheck, crosscheck_model, to_brian2
from evsim.brian.library import quiet_brian2
from evsim.errors import NetworkError
from evsim.events import Events
from evsim.examples import lif_example
from evsim.models import EGRU, LIF, EventSource, LeakyReadout
from evsim.network import Network
from evsim.simulation import Simulation

SIZE = {"n_units": 12, "n_inputs": 6, "n_steps": 80, "seed": 1}
pytestmark = pytest.mark.peer


@pytest.mark.parametrize("density", [1.0, 0.3])
@pytest.mark.parametrize("delay", [1, 5])
@pytest.mark.parametrize("layers", [1, 2])
def test_small_networks(brian2, layers, delay, density):
    found = crosscheck_model("lif", delay=delay, density=density, layers=layers, **SIZE)
    assert found.ok(1e-12), str(found)
    assert set(found.states) == {*(f"hidden_{n + 1}" for n in range(layers)), "answer"}
    for number in range(layers):
        assert found.populations[f"hidden_{number + 1}"].n_events > 15


@pytest.mark.parametrize(("delay", "density"), [(1, 0.3), (5, 1.0)])
def test_all_states_at_the_end(brian2, delay, density):
    network, stimulus = lif_example(delay=delay, density=density, layers=2, **SIZE)
    twin = to_brian2(network, stimulus, n_steps=80)
    twin.run("numpy")
    simulation = Simulation(network)
    simulation.run(stimulus)
    end = simulation.run({"cue": np.zeros((1, 1, 6))}, carry=True)  # begins where the other ended
    for name in ("hidden_1", "hidden_2"):
        for state in ("v", "i_e", "i_i"):
            expected = np.asarray(getattr(twin.groups[name], state))
            assert np.abs(end[name].initial[state][0] - expected).max() < 1e-12
            assert expected.any()
        np.testing.assert_array_equal(end[name].initial["hold"][0], np.asarray(twin.groups[name].hold))


def tangle():
    """LIF and EGRU in a loop, parallel projections, delays 0 to 4, graded events into both ports."""
    rng = np.random.default_rng(5)
    net = Network(dt=0.25, seed=4, dtype="float64")
    net.add(EventSource(5, "z_cue"))
    net.add(EventSource(3, "a_cue"))
    net.add(LIF(8, "lif", bias=rng.uniform(0, 0.8, 8), tau_m=4.0, tau_e=4.0, reset=-0.4, refractory=0.6))
    net.add(LIF(6, "behind", threshold=rng.uniform(0.9, 1.8, 6), tau_m=3.0, tau_i=2.0))
    net.add(EGRU(7, "egru", threshold=0.6, bias=rng.normal(0.2, 0.4, 21)))
    net.add(LeakyReadout(2, "answer", tau=3.0))
    for number, (source, target, delay, port) in enumerate(
        (
            ("z_cue", "lif", 0, "excitatory"),
            ("a_cue", "lif", 3, "inhibitory"),
            ("lif", "lif", 1, "inhibitory"),
            ("lif", "lif", 4, "excitatory"),
            ("lif", "behind", 0, "excitatory"),
            ("egru", "behind", 2, "excitatory"),
            ("a_cue", "behind", 0, "inhibitory"),
            ("behind", "lif", 2, "excitatory"),
            ("behind", "egru", 0, "input"),
            ("egru", "lif", 1, "inhibitory"),
            ("egru", "answer", 0, "input"),
            ("lif", "answer", 1, "input"),
        )
    ):
        options = {"port": port, "name": f"p{number}", "density": 0.5 if number % 3 == 0 else 1.0}
        shape = net[source].n_units, len(net[target].ports[port]) * net[target].n_units
        weight = rng.normal(0.25, 0.5, shape)
        if number % 3 == 0:
            weight = "glorot"
        else:
            del options["density"]
        net.connect(source, target, weight=weight, delay=0.25 * delay, **options)
    stimulus = {
        name: rng.normal(0.5, 1.0, (200, 1, n)) * (rng.random((200, 1, n)) < 0.25)
        for name, n in (("z_cue", 5), ("a_cue", 3))
    }
    return net, stimulus


def test_lif_and_egru_in_one_network(brian2):
    net, stimulus = tangle()
    found = crosscheck(net, stimulus, 200)
    assert found.ok(1e-12), str(found)
    for name in ("lif", "behind", "egru"):
        assert 100 < found.populations[name].n_events < 0.8 * 200 * net[name].n_units


def test_fifty_units_five_hundred_steps(brian2):
    found = crosscheck_model("lif", layers=2, delay=5, density=0.3)
    assert found.ok(1e-12), str(found)
    assert 0.02 < found.events["hidden_2"].activity < 0.1


def test_differential_equations_that_a_user_of_brian2_would_write(brian2):
    """Brian2's own exact integration, refractory periods and delays; only its slots stand in another order.

    With ``synapses`` before ``groups`` they see the events of the step before: delays are one step shorter.
    """
    dt, n_steps, n, n_cues = 0.5, 400, 10, 4
    rng = np.random.default_rng(8)
    net = Network(dt=dt, seed=0, dtype="float64")
    net.add(EventSource(n_cues, "cue"))
    options = {"tau_m": 8.0, "tau_e": 3.0, "tau_i": 6.0, "reset": -0.1, "refractory": 1.5}
    net.add(LIF(n, "cells", threshold=0.9, bias=rng.uniform(0.8, 1.5, n), **options))
    weights = {
        ("cue", "excitatory", 2): rng.uniform(0, 0.8, (n_cues, n)),
        ("cells", "excitatory", 1): rng.uniform(0, 0.2, (n, n)),
        ("cells", "inhibitory", 4): rng.uniform(-0.3, 0, (n, n)),
    }
    for (source, port, delay), weight in weights.items():
        net.connect(source, "cells", weight=weight, delay=delay * dt, port=port, name=f"{source}-{port}")
    sent = (rng.random((n_steps, 1, n_cues)) < 0.1).astype(float)
    log = Simulation(net).run({"cue": sent})

    with quiet_brian2("numpy") as brian:
        ms = brian.ms
        clock = brian.Clock(dt * ms)
        cells = brian.NeuronGroup(
            n,
            """
            dv/dt = (i_e + i_i + bias - v)/(8*ms) : 1 (unless refractory)
            di_e/dt = -i_e/(3*ms) : 1
            di_i/dt = -i_i/(6*ms) : 1
            bias : 1 (constant)""",
            threshold="v >= 0.9",
            reset="v = -0.1",
            refractory=(3 + 1) * clock.dt,  # Brian2 counts the step of the event
            method="exact",
            clock=clock,
            namespace={"ms": ms},
        )
        cells.bias, cells.v = net["cells"].parameters["bias"].values, -0.1
        step, _, unit = np.nonzero(sent)
        cue = brian.SpikeGeneratorGroup(n_cues, unit, (step + 0.5) * clock.dt, clock=clock)
        parts = [cells, cue]
        for (source, port, delay), weight in weights.items():
            target = {"excitatory": "i_e", "inhibitory": "i_i"}[port]
            synapses = brian.Synapses(
                {"cue": cue, "cells": cells}[source],
                cells,
                "w : 1 (constant)",
                on_pre=f"{target}_post += w",
                delay=(delay - 1) * clock.dt,
                clock=clock,
                namespace={},
            )
            synapses.connect()
            synapses.w = weight.ravel()
            parts.append(synapses)
        spikes = brian.SpikeMonitor(cells)
        v = brian.StateMonitor(cells, "v", record=True, when="end", clock=clock)
        network = brian.Network(*parts, spikes, v)
        network.schedule = ["start", "synapses", "groups", "thresholds", "resets", "end"]
        network.run(n_steps * clock.dt, namespace={})
        steps = np.rint(np.asarray(spikes.t_) / clock.dt_).astype(np.int64)
        theirs = set(zip(steps.tolist(), np.asarray(spikes.i).tolist(), strict=True))
        states = np.array(v.v).T
    events = log["cells"].events
    assert set(zip(events.step.tolist(), events.unit.tolist(), strict=True)) == theirs
    assert len(events) > 150
    assert np.abs(log["cells"].state[:, 0] - states).max() < 1e-12


def test_what_is_refused(brian2):
    class Odd(LIF):
        pass

    net = Network(dt=1.0, dtype="float64")
    net.add(EventSource(1, "cue"))
    net.add(Odd(1, "odd"))
    with pytest.raises(NetworkError, match=r"no Brian2 equations for Odd"):
        to_brian2(net, {"cue": Events.empty(1, 1, 5, np.float64)}, n_steps=5)
