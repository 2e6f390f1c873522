"""The event queue, seen from outside: an event arrives exactly its delay later, in this window or another."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from evsim.models import EGRU, EventSource, LinearReadout
from evsim.network import Network
from evsim.simulation import Simulation

DELAYS = st.lists(st.one_of(st.integers(0, 20), st.integers(1000, 3500)), min_size=1, max_size=3, unique=True)


def delay_lines(delays, dtype):
    """Readouts without memory, each fed one to one with another delay."""
    net = Network(dt=0.1, dtype=dtype)
    net.add(EventSource(2, name="cue"))
    for delay in delays:
        net.add(LinearReadout(2, name=f"after_{delay}"))
        net.connect("cue", f"after_{delay}", np.eye(2), delay=delay * 0.1)
    return net


def stimulus(rng, n_steps, lanes, dtype, density=0.3):
    shape = (n_steps, lanes, 2)
    return (rng.normal(size=shape) * (rng.random(shape) < density)).astype(dtype)


@given(DELAYS, st.sampled_from(["float32", "float64"]), st.integers(1, 3), st.integers(0, 2**16))
@settings(max_examples=15)
def test_in_a_run_an_event_arrives_exactly_its_delay_later(delays, dtype, lanes, seed):
    """A readout without memory, fed one to one, holds what was sent ``delay`` steps ago."""
    rng = np.random.default_rng(seed)
    n_steps = max(delays) + 30
    sent = stimulus(rng, n_steps, lanes, dtype)
    log = Simulation(delay_lines(delays, dtype)).run(sent)
    for delay in delays:
        expected = np.zeros_like(sent)
        expected[delay:] = sent[: n_steps - delay]
        np.testing.assert_array_equal(log[f"after_{delay}"].state, expected)


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=3, unique=True),
    st.lists(st.integers(0, 9), min_size=1, max_size=8),
    st.integers(1, 3),
    st.integers(0, 2**16),
)
@settings(max_examples=50)
def test_events_in_flight_cross_any_cut_into_windows(delays, windows, lanes, seed):
    """Also windows shorter than the delay, and of no steps at all."""
    rng = np.random.default_rng(seed)
    sent = stimulus(rng, sum(windows), lanes, "float64")
    sim, start, states = Simulation(delay_lines(delays, "float64")), 0, {delay: [] for delay in delays}
    for length in windows:
        log = sim.run(sent[start : start + length], carry=True)
        start += length
        for delay in delays:
            states[delay].append(log[f"after_{delay}"].state)
    for delay in delays:
        expected = np.concatenate([np.zeros((delay, lanes, 2)), sent])[: len(sent)]
        np.testing.assert_array_equal(np.concatenate(states[delay]), expected)


@given(
    st.lists(st.integers(0, 12), min_size=2, max_size=4),
    st.integers(1, 8),
    st.integers(0, 2**16),
)
@settings(max_examples=50)
def test_events_in_flight_are_those_of_each_lane_when_lanes_end_early(lengths, delay, seed):
    """A lane that ends early goes on, in the next window, where it stopped."""
    rng = np.random.default_rng(seed)
    lanes, first, second = len(lengths), max(lengths), delay + 2
    sent = stimulus(rng, first + second, lanes, "float64")
    sim = Simulation(delay_lines([delay], "float64"))
    sim.run(sent[:first], lengths=lengths)
    log = sim.run(sent[first:], carry=True)
    for lane, length in enumerate(lengths):
        own = np.concatenate([np.zeros((delay, 2)), sent[:length, lane], sent[first:, lane]])
        np.testing.assert_array_equal(log[f"after_{delay}"].state[:, lane], own[length : length + second])


@given(st.integers(1, 40), st.integers(1, 4), st.integers(0, 2**16))
@settings(max_examples=25)
def test_a_queue_grows_without_losing_events(n_steps, lanes, seed):
    """Every unit fires at every step, more than there is room for at first; none is lost or changed."""
    net = Network(dtype="float64")
    net.add(EventSource(1, name="cue"))
    net.add(EGRU(50, name="hidden", threshold=0.0))
    net.connect("cue", "hidden", np.repeat([[-2.0, 0.0, 5.0]], 50, axis=1))
    rng = np.random.default_rng(seed)
    log = Simulation(net).run(rng.uniform(0.5, 1.0, size=(n_steps, lanes, 1)))
    a = log["hidden"].tape[:, :, -1]
    assert (a > 0).all()
    np.testing.assert_array_equal(log["hidden"].events.to_dense(), a)
