"""Distances and regularity of spike trains, as Elephant computes them."""

import numpy as np
import pytest

from evsim.core.matching import VanRossum
from evsim.inspection import regularity
from oracles.block_population import BlockPopulation

pytestmark = [
    pytest.mark.peer,
    pytest.mark.filterwarnings("ignore"),  # what Elephant and Neo warn of is not ours
]


def trains(seed, n_units=6, stop=200.0):
    rng = np.random.default_rng(seed)
    return [np.sort(rng.uniform(0, stop, rng.integers(0, 40))) for _ in range(n_units)]


def sorted_rows(units):
    node = np.repeat(np.arange(len(units)), [len(unit) for unit in units])
    return node, np.concatenate(units)


@pytest.mark.parametrize("tau", [1.0, 10.0, 80.0])
def test_van_rossum_distance(tau):
    import neo
    import quantities as pq
    from elephant.spike_train_dissimilarity import van_rossum_distance

    first, second = trains(0), trains(1)
    second[2] = first[2]
    sums = VanRossum(6, tau)
    sums.add(*sorted_rows(first), *sorted_rows(second))
    for unit, distance in enumerate(sums.distances()):
        pair = [neo.SpikeTrain(side[unit], units="ms", t_stop=200.0) for side in (first, second)]
        assert distance == pytest.approx(van_rossum_distance(pair, tau * pq.ms)[0, 1], abs=1e-6)
    assert sums.distances()[2] == 0.0


def test_coefficient_of_variation():
    from elephant.statistics import cv, isi

    units = trains(2)
    node, time = sorted_rows(units)
    order = np.argsort(time)
    population = BlockPopulation(time[order], node[order], np.ones(len(time)), n_units=6, n_lanes=1)
    expected = [cv(isi(unit)) for unit in units if len(unit) > 5]
    found = regularity(population)
    assert found["units"] == len(expected)
    assert found["cv"] == pytest.approx(np.mean(expected))
