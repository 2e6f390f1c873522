"""The NumPy reference against torch autograd on the same equations."""

import numpy as np
import pytest

from evsim.models import EGRU, LIF
from evsim.reference import backpropagate, simulate
from gradients.cases import ALL, N_LANES, N_STEPS, deciding, gradient_errors, relative_error

pytestmark = pytest.mark.peer


@pytest.mark.parametrize("case", ALL, ids=str)
def test_reference_agrees_with_autograd(case):
    from oracles import torch_network  # here, because tests without peers collect this file too

    net = case.network()
    stimulus, initial, losses = case.stimulus(net), case.initial(net), case.losses(net)
    run = simulate(net, stimulus, N_STEPS, N_LANES, initial, case.lengths)
    twin = torch_network.TorchNetwork(
        net, stimulus, initial, case.lengths, case.pseudo_derivative, case.gamma, case.eps
    )
    alive = case.alive()
    for name, population in net.populations.items():
        own = ("a", "o", "y") if isinstance(population, (EGRU, LIF)) else ("v",) * (not population.emits)
        for quantity in (*own, *population.states):
            assert relative_error(run[name][quantity] * alive, twin.trace(name, quantity) * alive) < 1e-12
    for name in deciding(net):
        sent = (run[name]["y"] != 0)[alive[..., 0]].mean()
        assert sent > 0.05  # the case says something
        assert sent < 0.95 or (case.is_delta and case.threshold == "zero")
    gradients = backpropagate(run, losses, **case.surrogate)
    active = gradients.pop("backward_active")
    errors = gradient_errors(gradients, twin.gradients(losses))
    assert max(errors.values()) < 1e-10, {k: e for k, e in errors.items() if not e < 1e-10}
    if case.loss == "all":
        assert all(np.any(gradients[name]) for name in net.parameters() if name in gradients)
    for name, units in active.items():
        assert units.sum() >= np.count_nonzero(run[name]["y"])


def test_losses_after_the_end_of_a_lane_do_not_count():
    case = next(c for c in ALL if c.lengths)
    net = case.network()
    run = simulate(net, case.stimulus(net), N_STEPS, N_LANES, case.initial(net), case.lengths)
    losses = case.losses(net)
    garbage = {key: np.where(case.alive(), loss, 7.0) for key, loss in losses.items()}
    clean, dirty = (backpropagate(run, some, **case.surrogate) for some in (losses, garbage))
    del clean["backward_active"], dirty["backward_active"]
    assert max(gradient_errors(dirty, clean).values()) == 0
