"""Statistics of a log, against NumPy on dense arrays; how they are estimated from a part of the events."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evsim import density
from evsim.event_rows import as_rows
from evsim.events import Events
from evsim.inspection import regularity, synchrony, windows
from oracles.block_population import BlockPopulation


def make_steps(n_steps=200, n_lanes=1, n_units=12, seed=0):
    rng = np.random.default_rng(seed)
    together = rng.random((n_steps, n_lanes, 1)) < 0.2
    return (rng.random((n_steps, n_lanes, n_units)) < np.where(together, 0.6, 0.05)).astype(float)


def chi_of(x):
    """Golomb's chi of counts (n_bins, n_units)."""
    return np.sqrt(x.mean(axis=1).var() / x.var(axis=0).mean())


def from_rows(time, node, n_lanes, n_units, **options):
    order = np.argsort(time, kind="stable")
    columns = np.asarray(time)[order], np.asarray(node)[order], np.ones(len(order))
    return BlockPopulation(*columns, n_units=n_units, n_lanes=n_lanes, **options)


@pytest.fixture(params=[5, 2**20])
def size(request, monkeypatch):
    """Rows read at a time."""
    monkeypatch.setattr(density.pieces, "__defaults__", (request.param,))


@pytest.mark.parametrize("n_lanes", [1, 3])
def test_synchrony_in_steps(size, n_lanes):
    x = make_steps(n_lanes=n_lanes)
    found = synchrony(as_rows(Events.from_dense(x), 0.5))
    assert found["chi"] == pytest.approx(np.mean([chi_of(x[:, lane]) for lane in range(n_lanes)]))
    assert (found["bins"], found["bin_ms"], found["events"]) == (200, 0.5, int(x.sum()))


def test_lanes_that_have_ended_are_not_silent():
    lengths = [200, 80, 1]
    x = make_steps(n_lanes=3)
    for lane, length in enumerate(lengths):
        x[length:, lane] = 0
    events = as_rows(Events.from_dense(x), 1.0)
    events.lengths = np.array(lengths)
    expected = np.mean([chi_of(x[:length, lane]) for lane, length in enumerate(lengths[:2])])
    assert synchrony(events)["chi"] == pytest.approx(expected)


@given(st.integers(0, 99), st.integers(1, 3), st.integers(1, 40))
def test_synchrony_in_bins(seed, n_lanes, n):
    rng = np.random.default_rng(seed)
    time, node = rng.uniform(0, 40, n), rng.integers(0, 4 * n_lanes, n)
    found = synchrony(from_rows(time, node, n_lanes, 4), bin_ms=3.0)
    # 13 whole bins; what is left at the end is not a bin.
    x = np.zeros((14, 4 * n_lanes))
    np.add.at(x, ((time // 3).astype(int), node), 1)
    lanes = x[:13].reshape(13, n_lanes, 4).transpose(1, 0, 2)
    chis = [chi_of(lane) for lane in lanes if lane.var(axis=0).any()]
    if not chis:
        assert found is None
        return
    assert found["chi"] == pytest.approx(np.mean(chis), abs=1e-9)
    assert (found["bins"], found["bin_ms"]) == (13, 3.0)


def test_all_alike_is_1_and_nothing_is_none():
    x = np.repeat(make_steps(n_units=1), 7, axis=2)
    assert synchrony(as_rows(Events.from_dense(x), 1.0))["chi"] == pytest.approx(1.0)
    for x in (np.zeros((5, 1, 3)), np.ones((5, 2, 3)), np.ones((1, 1, 2)), np.zeros((0, 1, 2))):
        assert synchrony(as_rows(Events.from_dense(x), 1.0)) is None
        assert regularity(as_rows(Events.from_dense(x), 1.0)) is None or x.any()
    nothing = from_rows([], [], 2, 3)
    assert synchrony(nothing) is None
    assert regularity(nothing) is None


@pytest.mark.parametrize("dt", [None, 0.5])
def test_regularity_is_that_of_each_unit(size, dt):
    rng = np.random.default_rng(0)
    time = np.sort(rng.uniform(0, 40, 300))
    node = (rng.beta(1, 2, 300) * 20).astype(int)
    if dt is not None:
        _, one = np.unique(np.floor(time / dt) * 100 + node, return_index=True)
        time, node = np.floor(time[one] / dt) * dt, node[one]
    found = regularity(from_rows(time, node, 2, 10, dt=dt, n_steps=80 if dt else 0))
    gaps = [np.diff(np.sort(time[node == k])) for k in range(20)]
    cvs = [gap.std() / gap.mean() for gap in gaps if len(gap) >= 5]
    assert found == {"cv": pytest.approx(np.mean(cvs)), "units": len(cvs), "events": len(time), "whole": True}


def test_a_clock_is_regular_and_a_poisson_process_is_not():
    clock = from_rows(np.arange(50.0), np.zeros(50, int), 1, 1)
    assert regularity(clock)["cv"] == pytest.approx(0.0, abs=1e-7)
    random = np.cumsum(np.random.default_rng(0).exponential(1.0, 4000))
    assert regularity(from_rows(random, np.zeros(4000, int), 1, 1))["cv"] == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("dt", [None, 0.5])
def test_of_many_events_a_part_is_read(dt):
    rng = np.random.default_rng(1)
    n = 40_000
    time, node = np.sort(rng.uniform(0, 4000, n)), rng.integers(0, 20, n)
    busy = (time % 100 < 20) | (rng.random(n) < 0.3)
    time, node = time[busy], node[busy]
    if dt is not None:
        _, one = np.unique(np.floor(time / dt) * 100 + node, return_index=True)
        time, node = np.floor(time[one] / dt) * dt, node[one]
    population = from_rows(time, node, 2, 10, dt=dt, n_steps=8000 if dt else 0, block=100)
    population.stop = 4000.0
    whole, part = synchrony(population), synchrony(population, most=4000)
    assert (whole["whole"], part["whole"]) == (True, False)
    assert whole["events"] > 3 * part["events"] > 10_000
    assert part["chi"] == pytest.approx(whole["chi"], rel=0.1)
    whole, part = regularity(population), regularity(population, most=4000)
    assert (whole["events"], part["events"]) == (len(time), 4000)
    assert part["cv"] == pytest.approx(whole["cv"], rel=0.15)


def test_windows_are_spread_over_the_run():
    population = from_rows(np.arange(100.0), np.zeros(100, int), 1, 1)
    assert windows(population, 100) == [slice(0, 100)]
    cuts = [(rows.start, rows.stop) for rows in windows(population, 40)]
    assert cuts == [(0, 10), (30, 40), (60, 70), (90, 100)]
