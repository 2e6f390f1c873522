"""The derivative wherever the raster does not change: with gamma = 0, and of delta units always."""

import numpy as np
import pytest

from evsim.reference import backpropagate, simulate
from gradients.cases import N_LANES, N_STEPS, Case, check_differences, deciding, state_of

CASES = [
    Case("evnn"),
    Case("paper"),
    Case("evnn", "csr", (1, 3), graph="tangle"),
    Case("paper", "csr", (1, 3), graph="tangle"),
    Case("mixed", "dense", (3,), graph="tangle", lengths=(N_STEPS, 3, 8)),
    Case("lif"),
    Case("lif", "csr", (1, 3), graph="tangle"),
    Case("lif+evnn", "dense", (2,), graph="tangle", lengths=(N_STEPS, 3, 8)),
    Case("gru"),
    Case("lstm"),
    Case("gru+lstm", "csr", (1, 3), graph="tangle"),
    Case("gru+lstm", "dense", (3,), "y", graph="tangle", lengths=(N_STEPS, 3, 8)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference_agrees_with_central_differences(case):
    net = case.network()
    stimulus, initial, losses = case.stimulus(net), case.initial(net), case.losses(net)

    def run():
        return simulate(net, stimulus, N_STEPS, N_LANES, initial, case.lengths)

    def loss_and_raster():
        now, total = run(), 0.0
        for key, weights in losses.items():
            name, _, quantity = key.partition(".")
            total += (weights * now[name][quantity or state_of(net[name])]).sum()
        return total, np.concatenate([now[name]["y"].ravel() != 0 for name in deciding(net)])

    gradients = backpropagate(run(), losses, gamma=0.0)
    arrays = {name: p.values for name, p in net.parameters().items() if name in gradients}
    for name in stimulus:
        arrays[f"inputs {name}"], gradients[f"inputs {name}"] = stimulus[name], gradients["inputs"][name]
    for name, states in initial.items():
        for key in states.keys() - {"hold"}:  # whole steps
            start = states[key]
            arrays[f"initial {name} {key}"] = start
            gradients[f"initial {name} {key}"] = gradients["initial"][name][key]
    # Delta units have many states, and are exact to more digits.
    options = {"tolerance": 1e-7, "entries": 3} if case.is_delta else {}
    check_differences(loss_and_raster, arrays, gradients, **options)
