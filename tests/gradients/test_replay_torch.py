"""Adjoint event replay against torch autograd."""

import numpy as np
import pytest

from evsim.adjoint import Adjoint
from evsim.simulation import Simulation
from gradients.cases import ALL, gradient_errors, relative_error, state_of, with_states

pytestmark = pytest.mark.peer


@pytest.mark.parametrize("case", ALL, ids=str)
def test_replay_agrees_with_autograd(case):
    from oracles import torch_network  # here, because tests without peers collect this file too

    net = case.network()
    stimulus, losses, alive = case.stimulus(net), case.losses(net), case.alive()
    simulation = Simulation(net)
    log = simulation.run(stimulus, lengths=case.lengths)
    replayed = Adjoint(simulation.plan, **case.surrogate).replay(log, losses, inputs=True)
    got = dict(replayed) | {"inputs": replayed.inputs}
    at_rest = {
        name: {key: np.full_like(start, net[name].rest.get(key, 0)) for key, start in states.items()}
        for name, states in case.initial(net).items()
    }
    twin = torch_network.TorchNetwork(net, stimulus, at_rest, case.lengths, *case.surrogate.values())
    for population in with_states(net):
        name, expected = population.name, twin.trace(population.name, state_of(population))
        assert relative_error(log[name].state * alive, expected * alive) < 1e-12
    expected = twin.gradients(losses)
    del expected["initial"]
    errors = gradient_errors(got, expected)
    assert max(errors.values()) < 1e-10, {k: e for k, e in errors.items() if not e < 1e-10}
