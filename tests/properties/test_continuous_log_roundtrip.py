"""Any small log in continuous time that is saved and opened again is equal."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from evsim.continuous_log import ContinuousLog, ContinuousPopulationLog
from evsim.eventlog import EventLog
from oracles.continuous_logs import from_rows, rows, windows

#: States by type.
STATES = {
    "EventSource": (),
    "EGRU": ("c", "a_u", "a_r", "a_z"),
    "LIF": ("v", "i_e", "i_i"),
    "DeltaGRU": ("m_r", "m_z", "m_n", "m_q", "h", "sent"),
    "DeltaLSTM": ("m_i", "m_f", "m_g", "m_o", "c", "h", "sent"),
    "LeakyReadout": ("v",),
    "DeltaReadout": ("v",),
}


def floats(*shape):
    """Arrays of any floats, NaN, infinities and negative zero included."""
    return hnp.arrays(np.float64, shape, elements=st.floats())


@st.composite
def populations(draw, name, start, stop, n_lanes, n_samples):
    """A source, units of some type, or a readout."""
    kind, n_units = draw(st.sampled_from(list(STATES))), draw(st.integers(1, 4))
    log = ContinuousPopulationLog(name, kind, n_units)
    if not kind.endswith("Readout"):
        sizes = {"n_units": n_units, "n_lanes": n_lanes, "start": start, "stop": stop}
        log.events = from_rows(draw(rows(**sizes)), **sizes)
    log.initial = {state: draw(floats(n_lanes, n_units)) for state in STATES[kind]}
    if STATES[kind]:
        for what in ("state", "integral", "square"):
            if draw(st.booleans()):
                setattr(log, what, draw(floats(n_samples, n_lanes, n_units)))
    if draw(st.booleans()):
        log.thresholds = draw(floats(n_units))
    return log


@st.composite
def logs(draw):
    """Any log of a few events, samples, lanes and units."""
    start, stop = draw(windows())
    duration = stop - start
    stop = start + duration  # as the log has it
    if draw(st.booleans()):
        samples = np.linspace(start, stop, draw(st.integers(2, 5)))
    else:
        samples = np.array(draw(st.lists(st.floats(start, stop), max_size=4)))
    samples = np.unique(samples.clip(start, stop))
    n_lanes = draw(st.integers(1, 3))
    names = draw(
        st.lists(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True), max_size=3, unique=True)
    )
    return ContinuousLog(
        {name: draw(populations(name, start, stop, n_lanes, len(samples))) for name in names},
        start=start,
        duration=duration,
        n_lanes=n_lanes,
        samples=samples,
        counters=draw(st.dictionaries(st.text(max_size=5), st.integers(0, 2**70), max_size=2)),
        parameters=draw(st.dictionaries(st.sampled_from(["a->b.weight", "b.delay"]), floats(2), max_size=2)),
    )


@settings(deadline=None, max_examples=60)
@given(logs())
def test_saved_and_opened_logs_are_equal(log):
    with tempfile.TemporaryDirectory() as folder, np.errstate(invalid="ignore", over="ignore"):
        opened = EventLog.open(log.save(Path(folder) / "run.h5"))
        assert opened.equal(log)
        assert log.equal(opened)
        assert opened.names == log.names
        for name in log:
            assert opened[name].state_name == log[name].state_name
            if log[name].events is not None:
                opened[name].events.check()
                assert list(opened[name].events) == list(log[name].events)
