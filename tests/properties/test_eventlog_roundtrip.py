"""Any small log that is saved and opened again is equal."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from evsim.eventlog import EventLog, PopulationLog
from evsim.events import Events

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
#: Parameter names hold arrows and dots; anything but a slash or a zero is allowed.
KEYS = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12
).filter(lambda key: key != ".")
JSON = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


#: States and tape, by type (of EGRU: by form).
RECORDED = {
    "EventSource": ((), ()),
    "evnn": (("c",), tuple("zrgqa")),
    "paper": (("c", "y"), tuple("uzrpa")),
    "DeltaGRU": (("m_r", "m_z", "m_n", "m_q", "h", "sent"), tuple("rznqh")),
    "DeltaLSTM": (("m_i", "m_f", "m_g", "m_o", "c", "h", "sent"), tuple("ifgoch")),
    "DeltaEncoder": (("sent",), ()),
    "LeakyReadout": (("v",), ("v",)),
    "DeltaReadout": (("m",), ("v",)),
}


def floats(dtype, shape):
    """Arrays of any floats, NaN, infinities and negative zero included."""
    return hnp.arrays(dtype, shape, elements=st.floats(width=8 * np.dtype(dtype).itemsize))


@st.composite
def events(draw, n_units, n_lanes, n_steps, dtype):
    """Any events; zeros are none."""
    width = 8 * np.dtype(dtype).itemsize
    values = st.just(0.0) | st.floats(width=width, allow_nan=False, allow_infinity=False)
    return Events.from_dense(draw(hnp.arrays(dtype, (n_steps, n_lanes, n_units), elements=values)), dtype)


@st.composite
def populations(draw, name, dt, start_step, n_steps, n_lanes, dtype):
    """A source, units of some type, an encoder, or a readout."""
    kind = draw(st.sampled_from(list(RECORDED)))
    n_units = draw(st.integers(1, 4))
    window = (n_units, n_lanes)
    log = PopulationLog(name, "EGRU" if kind in ("evnn", "paper") else kind, n_units, dt, start_step)
    if not kind.endswith("Readout"):
        log.events = draw(events(*window, n_steps, dtype))
        log.carried = draw(
            st.none() | st.integers(0, 3).flatmap(lambda history: events(*window, history, dtype))
        )
    states, fields = RECORDED[kind]
    log.initial = {state: draw(floats(dtype, (n_lanes, n_units))) for state in states}
    if fields and (kind.endswith("Readout") or draw(st.booleans())):
        log.tape, log.tape_fields = draw(floats(dtype, (n_steps, n_lanes, len(fields), n_units))), fields
    if log.kind == "EGRU" or "sent" in states:
        log.thresholds = draw(hnp.arrays(dtype, (n_units,), elements=st.floats(0, 1, width=32)))
    return log


@st.composite
def logs(draw):
    """Any log of a few steps, lanes and units."""
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    dt = draw(st.sampled_from([1.0, 0.1, 0.5, 3.7]))
    start_step = draw(st.integers(0, 2**33))
    n_steps, n_lanes = draw(st.integers(0, 5)), draw(st.integers(1, 3))
    names = draw(st.lists(NAMES, max_size=4, unique=True))
    members = {name: draw(populations(name, dt, start_step, n_steps, n_lanes, dtype)) for name in names}
    shapes = hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4)
    integers = hnp.arrays(st.sampled_from([np.int32, np.int64]), shapes)
    return EventLog(
        members,
        dt=dt,
        start_step=start_step,
        n_steps=n_steps,
        n_lanes=n_lanes,
        lengths=draw(hnp.arrays(np.int64, (n_lanes,), elements=st.integers(0, n_steps))),
        counters=draw(JSON),
        network=draw(JSON),
        parameters=draw(
            st.dictionaries(KEYS, shapes.flatmap(lambda s: floats(dtype, s)) | integers, max_size=4)
        ),
        provenance=draw(JSON),
    )


@settings(deadline=None, max_examples=150)
@given(logs(), st.booleans())
def test_saved_and_opened_logs_are_equal(log, states):
    with tempfile.TemporaryDirectory() as folder, np.errstate(invalid="ignore", over="ignore"):
        path = log.save(Path(folder) / "run.h5", states=states)
        opened = EventLog.open(path)
        assert opened.equal(log)
        assert log.equal(opened)
        assert opened.names == log.names
        for name in log:
            recorded = log[name].tape is not None and (states or log[name].events is None)
            assert (opened[name].tape is not None) == recorded
            if recorded and opened[name].state_name != "c":  # that one is made anew from a tape
                np.testing.assert_array_equal(opened[name].state, log[name].state)
            if log[name].events is not None:
                np.testing.assert_array_equal(opened[name].time, log[name].time)
