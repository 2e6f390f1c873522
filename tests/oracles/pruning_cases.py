"""Small networks to prune, trials to train them on, and pruning by sorting tuples."""

from itertools import islice

import numpy as np
import pytest

from evsim.models import EGRU, EventSource, LeakyReadout
from evsim.network import Network
from evsim.optimizer import Adam
from evsim.protocols.delayed_copy import DelayedCopy
from evsim.pruning import CubicSchedule, Pruner
from evsim.training import Trainer, fit

K, H, C = 5, 12, 3
WEIGHTS = ("cue->hidden.weight", "hidden->hidden.weight")


def network(dtype="float64", **weights):
    """cue -> hidden (EGRU, recurrent) -> answer."""
    net = Network(seed=4, dtype=dtype)
    net.add(EventSource(K, "cue"))
    net.add(EGRU(H, "hidden", threshold=0.05))
    net.add(LeakyReadout(C, "answer", tau=3.0))
    net.connect("cue", "hidden", weights.get("cue", lambda rng, shape: rng.normal(0, 1.5, shape)))
    net.connect("hidden", "hidden", weights.get("hidden", lambda rng, shape: rng.normal(0, 0.5, shape)))
    net.connect("hidden", "answer")
    return net


def dense(net):
    return {p.weight.name: p.to_dense() for p in net.projections.values()}


def values(net):
    return {name: p.values.copy() for name, p in net.parameters().items()}


def smallest(parts, n):
    """The first ``n`` places of matrices by (size, place in the given order), by sorting tuples."""
    entries = [
        (abs(value), order, place)
        for order, part in enumerate(parts)
        for place, value in enumerate(part.ravel())
    ]
    gone = {entry[1:] for entry in sorted(entries)[:n]}
    return [
        np.array([(order, place) not in gone for place in range(part.size)]).reshape(part.shape)
        for order, part in enumerate(parts)
    ]


def refused(call, error, *words):
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.remedy
    assert all(str(word) in message for word in words), message


TASK = DelayedCopy(n_symbols=4, delay=6, batch_size=16, cue=2, answer=2, seed=3)


def copy_network(units=32):
    net = Network(seed=1)
    net.add(EventSource(TASK.n_inputs, "cue"))
    net.add(EGRU(units, "hidden", threshold=0.1))
    net.add(LeakyReadout(TASK.n_outputs, "answer", tau=4.0))
    net.connect("cue", "hidden", weight=lambda rng, shape: rng.normal(0, 1.0, shape))
    net.connect("hidden", "hidden", weight="orthogonal")
    net.connect("hidden", "answer")
    return net


def copy_trials(stream, number=25):
    return islice(TASK.trials(stream), number)


def trained(path, epochs=2, net=None):
    net = copy_network(12) if net is None else net
    trainer = Trainer(net, "answer", Adam(net.parameters(), lr=0.02), threads=1)
    fit(trainer, lambda e: copy_trials(e, 5), epochs=epochs, checkpoint=path)
    return net


def pruned_run(path, epochs, resume=False, begin=31, optimizer=Adam):
    net = copy_network(12)
    trainer = Trainer(net, "answer", optimizer(net.parameters(), lr=0.02), threads=1)
    Pruner(net, CubicSchedule(begin, 80, 0.8, every=7), scope="global").attach(trainer.optimizer)
    fit(trainer, lambda e: copy_trials(e, 15), epochs=epochs, checkpoint=path, resume=resume)
    return trainer
