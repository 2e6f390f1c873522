"""Small logs in continuous time made by hand, and the same as strategies of Hypothesis."""

import numpy as np
from hypothesis import strategies as st

from evsim.continuous_log import ContinuousLog, ContinuousPopulationLog
from evsim.timed_events import TimedEvents

START, DURATION, LANES, UNITS = 12.5, 7.5, 2, 3
EQUAL, UNEQUAL = (13.0, 15.0, 17.0, 19.0), (13.0, 15.0, 18.5, 20.0)


def make_events(seed, n_units=UNITS, n_events=20, n_lanes=LANES, start=START, stop=START + DURATION):
    """Events at random times, of random units."""
    rng = np.random.default_rng(seed)
    columns = (
        rng.uniform(start, stop, n_events),
        rng.integers(0, n_lanes, n_events),
        rng.integers(0, n_units, n_events),
        rng.normal(size=n_events),
    )
    return TimedEvents.from_list(*columns, n_units=n_units, n_lanes=n_lanes, start=start, stop=stop)


def make_log(samples=EQUAL, n_events=20, seed=0):
    """A source, units and a readout."""
    rng = np.random.default_rng(seed)

    def sampled(n_units):
        return rng.normal(size=(len(samples), LANES, n_units))

    threshold = np.array([0.3, 0.2, 0.5], np.float32)
    cue = ContinuousPopulationLog("cue", "EventSource", 4, make_events(1, 4, n_events))
    hidden = ContinuousPopulationLog(
        "hidden",
        "EGRU",
        UNITS,
        make_events(2, n_events=n_events),
        {state: rng.normal(size=(LANES, UNITS)) for state in ("c", "a_u", "a_r", "a_z")},
        thresholds=threshold,
    )
    answer = ContinuousPopulationLog("answer", "LeakyReadout", 2, initial={"v": rng.normal(size=(LANES, 2))})
    for population in (hidden, answer):
        if len(samples):
            population.state = sampled(population.n_units)
            population.integral, population.square = sampled(population.n_units), sampled(population.n_units)
    return ContinuousLog(
        {"cue": cue, "hidden": hidden, "answer": answer},
        start=START,
        duration=DURATION,
        n_lanes=LANES,
        samples=np.array(samples),
        counters={"crossings": 20, "macs": {"cue->hidden": 2**40}},
        network={"dt_ms": None},
        parameters={
            "hidden.threshold": threshold,
            "cue->hidden.weight": rng.normal(size=(4, 9)).astype(np.float32),
            "cue->hidden.delay": np.zeros(1),
        },
        provenance={"seed": 3, "arguments": None},
        tape=object(),
    )


@st.composite
def windows(draw):
    """Start and stop of a window in ms."""
    start = draw(st.just(0.0) | st.floats(0, 1e6))
    return start, start + draw(st.floats(0, 1e3))


@st.composite
def rows(draw, n_units, n_lanes, start, stop, max_size=12):
    """(time, lane, unit, value) in any order, one for each time, lane and unit; zeros among the values."""
    if not start < stop:
        return []
    times = st.floats(start, stop, exclude_max=True)
    if max_size > 1:  # many at one time
        few = draw(st.lists(times, min_size=1, max_size=3))
        times = st.sampled_from(few) | times
    keys = st.tuples(times, st.integers(0, n_lanes - 1), st.integers(0, n_units - 1))
    listed = draw(st.lists(keys, max_size=max_size, unique=True))
    values = st.just(0.0) | st.floats(allow_nan=False, allow_infinity=False)
    return [(*key, draw(values)) for key in listed]


def from_rows(listed, **sizes):
    """Events from a list of rows."""
    columns = list(zip(*listed, strict=True)) if listed else [[], [], [], []]
    return TimedEvents.from_list(*columns, **sizes)
