"""The ring of buckets is a sorted list of events: all that is pushed is found, for as long as it is kept."""

from bisect import bisect_left, insort

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evsim.core.event_queue import Rings
from evsim.models import EventSource, LinearReadout
from evsim.network import Network
from evsim.simulation import Simulation

DTYPES = {True: np.float64, False: np.float32}


class SortedList:
    """The plain model: (step, number, unit, value) of all events ever sent to one ring."""

    def __init__(self):
        self.now, self.number, self.events = 0, 0, []

    def push(self, units, values):
        for unit, value in zip(units, values, strict=True):
            insort(self.events, (self.now, self.number, int(unit), float(value)))
            self.number += 1

    def peek(self, ago):
        step = self.now - ago
        rows = self.events[bisect_left(self.events, (step,)) : bisect_left(self.events, (step + 1,))]
        return [(unit, value) for _, _, unit, value in rows]


def finite(wide):
    return st.floats(allow_nan=False, allow_infinity=False, width=64 if wide else 32)


@st.composite
def scripts(draw):
    """Float type, depth of every population's rings, lanes, and what is done."""
    wide = draw(st.booleans())
    depths = draw(st.lists(st.one_of(st.integers(1, 6), st.integers(1000, 4000)), min_size=1, max_size=3))
    lanes = draw(st.integers(1, 3))
    ring = st.tuples(st.integers(0, len(depths) - 1), st.integers(0, lanes - 1))
    events = st.lists(st.tuples(st.integers(0, 2**31 - 1), finite(wide)), max_size=12)
    steps = st.one_of(st.integers(1, 3), st.integers(1, 5000))
    action = st.one_of(
        st.tuples(st.just("push"), ring, events),
        st.tuples(st.just("push"), ring, events),
        st.tuples(st.just("advance"), ring, steps),
        st.tuples(st.just("peek"), ring, st.integers(0, 4000)),
        st.tuples(st.just("clear"), ring, st.none()),
    )
    return wide, depths, lanes, draw(st.lists(action, max_size=25))


def found(rings, population, lane, ago, wide):
    units, values = rings.peek(population, lane, ago)
    assert units.dtype == np.int32
    assert values.dtype == DTYPES[wide]
    return list(zip(units.tolist(), values.tolist(), strict=True))


@given(scripts())
@settings(max_examples=200)
def test_rings_equal_a_sorted_list(script):
    wide, depths, lanes, actions = script
    rings = Rings(depths, lanes, wide)
    model = {(p, lane): SortedList() for p in range(len(depths)) for lane in range(lanes)}
    for action, (population, lane), argument in actions:
        mine = model[population, lane]
        if action == "push":
            units = np.array([unit for unit, _ in argument], np.int32)
            values = np.array([value for _, value in argument], DTYPES[wide])
            rings.push(population, lane, units, values)
            mine.push(units, values)
        elif action == "advance":
            for _ in range(argument):
                rings.advance(population, lane)
            mine.now += argument
        elif action == "clear":
            rings.clear()
            for one in model.values():
                one.events = []
        else:
            ago = argument % depths[population]
            assert found(rings, population, lane, ago, wide) == mine.peek(ago)
    for (population, lane), mine in model.items():
        depth = depths[population]
        agos = {0, depth - 1, depth // 2} | {mine.now - event[0] for event in mine.events}
        for ago in sorted(a for a in agos if 0 <= a < depth):
            assert found(rings, population, lane, ago, wide) == mine.peek(ago)


@given(st.integers(1, 3000), st.booleans(), st.integers(0, 100))
@settings(max_examples=25)
def test_an_event_is_kept_for_depth_steps_and_not_one_longer(depth, wide, before):
    rings = Rings([depth], 1, wide)
    for _ in range(before):
        rings.advance(0, 0)
    rings.push(0, 0, np.array([3], np.int32), np.array([0.5], DTYPES[wide]))
    for _ in range(depth - 1):
        rings.advance(0, 0)
    assert found(rings, 0, 0, depth - 1, wide) == [(3, 0.5)]
    rings.advance(0, 0)
    for ago in range(depth):
        assert found(rings, 0, 0, ago, wide) == []


@pytest.mark.parametrize("wide", [True, False])
def test_a_bucket_grows_without_losing_events(wide):
    rng = np.random.default_rng(0)
    rings, expected = Rings([2], 1, wide), []
    for size in (1, 0, 7, 100, 3, 5000, 20_000):
        units = rng.integers(0, 2**31, size).astype(np.int32)
        values = rng.normal(size=size).astype(DTYPES[wide])
        rings.push(0, 0, units, values)
        expected += zip(units.tolist(), values.tolist(), strict=True)
    assert found(rings, 0, 0, 0, wide) == expected


def test_peeked_events_are_copies():
    rings = Rings([1], 1, True)
    rings.push(0, 0, np.array([1], np.int32), np.array([2.0]))
    units, values = rings.peek(0, 0, 0)
    units[0], values[0] = 9, 9.0
    assert found(rings, 0, 0, 0, True) == [(1, 2.0)]


@pytest.mark.parametrize(
    ("population", "lane", "ago"), [(1, 0, 0), (-1, 0, 0), (0, 2, 0), (0, -1, 0), (0, 0, 3), (0, 0, -1)]
)
def test_places_that_do_not_exist(population, lane, ago):
    with pytest.raises(IndexError, match="event queue"):
        Rings([3], 2, True).peek(population, lane, ago)


def test_units_and_values_must_pair_up():
    rings = Rings([3], 1, True)
    with pytest.raises(ValueError, match="2 units for 1 values"):
        rings.push(0, 0, np.array([1, 2], np.int32), np.array([1.0]))
    assert found(rings, 0, 0, 0, True) == []


@given(
    st.lists(st.one_of(st.integers(0, 20), st.integers(1000, 3500)), min_size=1, max_size=3, unique=True),
    st.sampled_from(["float32", "float64"]),
    st.integers(1, 3),
    st.integers(0, 2**16),
)
@settings(max_examples=15)
def test_in_a_run_an_event_arrives_exactly_its_delay_later(delays, dtype, lanes, seed):
    """A readout without memory, fed one to one, holds what was sent ``delay`` steps ago."""
    rng = np.random.default_rng(seed)
    n_steps = max(delays) + 30
    sent = (rng.normal(size=(n_steps, lanes, 2)) * (rng.random((n_steps, lanes, 2)) < 0.3)).astype(dtype)
    net = Network(dt=0.1, dtype=dtype)
    net.add(EventSource(2, name="cue"))
    for delay in delays:
        net.add(LinearReadout(2, name=f"after_{delay}"))
        net.connect("cue", f"after_{delay}", np.eye(2), delay=delay * 0.1)
    log = Simulation(net).run(sent)
    for delay in delays:
        expected = np.zeros_like(sent)
        expected[delay:] = sent[: n_steps - delay]
        np.testing.assert_array_equal(log[f"after_{delay}"].state, expected)


@given(
    st.lists(st.lists(st.integers(0, 30), max_size=6, unique=True), min_size=1, max_size=40),
    st.integers(1, 12),
)
def test_past_is_every_earlier_bucket_oldest_first(steps, depth):
    rings = Rings([depth], 1, True)
    for units in steps:
        rings.push(0, 0, np.array(units, np.int32), np.arange(1.0, len(units) + 1))
        rings.advance(0, 0)
    ptr, unit, value = rings.past(0)
    kept = ([[]] * depth + steps)[-(depth - 1) :] if depth > 1 else []
    assert ptr.tolist() == np.cumsum([0] + [len(units) for units in kept]).tolist()
    assert unit.tolist() == [u for units in kept for u in units]
    assert value.tolist() == [i + 1.0 for units in kept for i in range(len(units))]
