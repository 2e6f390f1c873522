"""With gamma = 0 a gradient is the exact derivative wherever the raster does not change."""

import numpy as np
import pytest

from evsim.events import Events
from evsim.models import EGRU
from evsim.reference import backpropagate, simulate
from gradients.cases import N_LANES, N_STEPS, Case, check_differences

CASES = [
    Case("evnn"),
    Case("paper"),
    Case("evnn", "csr", (1, 3), graph="tangle"),
    Case("paper", "csr", (1, 3), graph="tangle"),
    Case("mixed", "dense", (3,), graph="tangle", lengths=(N_STEPS, 3, 8)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference_agrees_with_central_differences(case):
    net = case.network()
    stimulus = {name: events.to_dense() for name, events in case.stimulus(net).items()}
    initial, losses = case.initial(net), case.losses(net)

    def run():
        events = {name: Events.from_dense(dense, np.float64) for name, dense in stimulus.items()}
        return simulate(net, events, N_STEPS, N_LANES, initial, case.lengths)

    def loss_and_raster():
        now, total, rasters = run(), 0.0, []
        for key, weights in losses.items():
            name, _, quantity = key.partition(".")
            total += (weights * now[name][quantity or net[name].states[0]]).sum()
        rasters = [now[name]["o"].ravel() for name, p in net.populations.items() if isinstance(p, EGRU)]
        return total, np.concatenate(rasters)

    gradients = backpropagate(run(), losses, gamma=0.0)
    arrays = {name: p.values for name, p in net.parameters().items()}
    for name in stimulus:
        arrays[f"inputs {name}"], gradients[f"inputs {name}"] = stimulus[name], gradients["inputs"][name]
    for name, states in initial.items():
        for key, start in states.items():
            arrays[f"initial {name} {key}"] = start
            gradients[f"initial {name} {key}"] = gradients["initial"][name][key]
    assert check_differences(loss_and_raster, arrays, gradients) < 1e-6
