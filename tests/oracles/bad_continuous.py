"""Bad calls on a network in continuous time, and what the error of each must be and say."""

import numpy as np
import scipy.sparse

from evsim.calibration import calibrate
from evsim.errors import NetworkError, ParameterError
from evsim.fixed_point import quantize
from evsim.models import (
    EGRU,
    LIF,
    DeltaEncoder,
    DeltaGRU,
    DeltaLSTM,
    DeltaReadout,
    EventSource,
    LeakyReadout,
    LinearReadout,
)
from evsim.narrow_weights import narrow
from evsim.network import Network
from oracles.bad_input import Case

NAN, INF = float("nan"), float("inf")


def make_network():
    net = Network(dt=None, seed=1)
    net.add(EventSource(3, "cue"))
    net.add(EGRU(4, "hidden"))
    net.add(EGRU(4, "after", gate="post"))
    net.add(LIF(5, "spikes", reset=-1.0))
    net.add(LeakyReadout(2, "answer"))
    net.add(DeltaGRU(4, "gru"))
    net.add(DeltaLSTM(4, "lstm"))
    net.add(DeltaReadout(2, "sum"))
    net.connect("cue", "hidden")
    net.connect("hidden", "hidden", delay=0.5, train_delay=True)
    net.connect("hidden", "answer", sparse(4, 2))
    net.connect("lstm", "gru")
    return net


def sparse(n_rows, n_columns, corner=1.0):
    """Two entries, the first one at the corner."""
    return scipy.sparse.csr_array(
        ([corner, 2.0], [0, n_columns - 1], [0, 1, *[2] * (n_rows - 1)]), shape=(n_rows, n_columns)
    )


def clocked(population):
    return Network().add(population)


CASES = [
    Case("dt zero", NetworkError, lambda n: Network(dt=0), ("dt is 0", "None for continuous")),
    # Units of the other kind of time
    Case(
        "form of steps", NetworkError, lambda n: n.add(EGRU(2, "x", form="evnn")), ("'x'", "'evnn'", "steps")
    ),
    Case("paper's form", NetworkError, lambda n: n.add(EGRU(2, "x", form="paper")), ("'paper'", "steps")),
    Case(
        "form of continuous time",
        NetworkError,
        lambda n: clocked(EGRU(2, "x", form="continuous")),
        ("'x'", "'continuous'", "dt=None"),
    ),
    Case("unknown form", NetworkError, lambda n: EGRU(2, "x", form="gru"), ("'gru'", "'evnn'", "'paper'")),
    Case("gate in steps", NetworkError, lambda n: clocked(EGRU(2, "x", gate="none")), ("gate='none'",)),
    Case("payload in steps", NetworkError, lambda n: clocked(EGRU(2, "x", transmit="unit")), ("'unit'",)),
    Case("tau_m in steps", NetworkError, lambda n: clocked(EGRU(2, "x", tau_m=[3.0])), ("tau_m=[3.0]",)),
    Case("tau in steps", NetworkError, lambda n: clocked(DeltaLSTM(2, "x", tau=3.0)), ("tau=3.0", "dt=None")),
    Case(
        "trained tau in steps",
        NetworkError,
        lambda n: clocked(LeakyReadout(2, "x", train_time_constants=True)),
        ("train_time_constants=True", "'x'"),
    ),
    Case("source of lines", NetworkError, lambda n: n.add(EventSource(2, "x", 0.0)), ("'x'", "threshold")),
    Case("encoder", NetworkError, lambda n: n.add(DeltaEncoder(n["gru"], "x")), ("'x'", "Encoder", "'gru'")),
    Case("linear readout", NetworkError, lambda n: n.add(LinearReadout(2, "x")), ("'x'", "LeakyReadout")),
    Case("fixed point", NetworkError, lambda n: quantize(n), ("continuous time", "dt")),
    Case("narrow weights", NetworkError, lambda n: narrow(n, "int8"), ("continuous time", "int8")),
    Case("calibration", ParameterError, lambda n: calibrate(n, [], 1.0), ("continuous time", "dt")),
    # Their arguments
    Case("gate", NetworkError, lambda n: EGRU(2, "x", gate="both"), ("'x'", "'both'", "'pre'", "'post'")),
    Case("transmit", NetworkError, lambda n: EGRU(2, "x", transmit=1), ("transmit is 1", "'unit'")),
    Case("reset", NetworkError, lambda n: LIF(2, "x", reset=NAN), ("'x'", "reset is nan")),
    Case("refractory", NetworkError, lambda n: LIF(2, "x", refractory=-1), ("'x'", "refractory is -1")),
    *(
        Case(
            f"EGRU threshold {value}",
            ParameterError,
            lambda n, value=value: n.add(EGRU(2, "x", threshold=[0.5, value])),
            ("x.threshold", "(1,)", str(value), "without end", "never"),
        )
        for value in (0.0, 1.0, -0.5, 1.5, NAN)
    ),
    Case("LIF threshold", ParameterError, lambda n: n.add(LIF(2, "x", 0.5, reset=0.5)), ("x.thr", "reset")),
    Case("delta threshold", ParameterError, lambda n: n.add(DeltaGRU(2, "x", 0)), ("x.thr", "without end")),
    Case("LSTM threshold", ParameterError, lambda n: n.add(DeltaLSTM(2, "x", -1)), ("x.thr", "-1.0")),
    *(
        Case(
            f"{name} = {value} of {unit.__name__}",
            ParameterError,
            lambda n, unit=unit, name=name, value=value: n.add(unit(2, "x", **{name: value})),
            (f"x.{name}", str(value), "time constant"),
        )
        for unit, names in (
            (EGRU, ("tau_m", "tau_s")),
            (LIF, ("tau_m", "tau_e", "tau_i")),
            (DeltaGRU, ("tau",)),
        )
        for name in names
        for value in (0.0, -2.0, INF)
    ),
    Case("readout tau", ParameterError, lambda n: n.add(LeakyReadout(2, "x", tau=0.0)), ("x.tau", "0.001")),
    Case("two taus", ParameterError, lambda n: n.add(EGRU(2, "x", tau_m=[1.0, 2.0])), ("x.tau_m", "(2,)")),
    Case("bias", ParameterError, lambda n: n.add(EGRU(2, "x", bias=[0.1] * 2)), ("x.bias", "(2,)", "(6,)")),
    # What is assigned later
    *(
        Case(
            f"{name} assigned",
            ParameterError,
            lambda n, name=name, value=value: n.parameters()[name].assign(value),
            (name, str(value)),
        )
        for name, value in (
            ("hidden.threshold", 1.0),
            ("spikes.threshold", -1.0),
            ("gru.threshold", 0.0),
            ("answer.tau", 0.0),
            ("hidden->hidden.delay", -0.5),
            ("hidden->answer.delay", NAN),
        )
    ),
    # Projections
    Case(
        "recurrent from a source",
        NetworkError,
        lambda n: n.connect("cue", "hidden", name="x", port="recurrent"),
        ("'x'", "'hidden'", "gate 'pre'", "gate='post'"),
    ),
    Case(
        "recurrent from LIF",
        NetworkError,
        lambda n: n.connect("spikes", "hidden", port="recurrent"),
        ("spikes->hidden", "LIF(5", "reset gate"),
    ),
    Case("values to changes", NetworkError, lambda n: n.connect("hidden", "sum"), ("values", "changes")),
    Case("changes to values", NetworkError, lambda n: n.connect("gru", "spikes"), ("values", "changes")),
    Case("port", NetworkError, lambda n: n.connect("cue", "spikes", port="input"), ("'input'", "excit")),
    *(
        Case(
            f"delay {value}",
            ParameterError,
            lambda n, value=value: n.connect("cue", "answer", delay=value),
            ("cue->answer.delay", str(value), "ms"),
        )
        for value in (-0.5, NAN, INF)
    ),
    Case("text as delay", NetworkError, lambda n: n.connect("cue", "answer", delay="1 ms"), ("'1 ms'",)),
    Case(
        "ragged delays", NetworkError, lambda n: n.connect("cue", "answer", delay=[[1], [1, 2]]), ("[[1],",)
    ),
    Case(
        "delay of a pair",
        ParameterError,
        lambda n: n.connect("cue", "answer", delay=[[1, 2], [3, NAN], [5, 6]]),
        ("cue->answer.delay", "nan", "(1, 1)"),
    ),
    Case(
        "delays of weights",
        ParameterError,
        lambda n: n.connect("cue", "after", delay=np.ones((3, 12))),
        ("cue->after", "(3, 12)", "(3, 4)"),
    ),
    Case(
        "delays of sparse weights",
        ParameterError,
        lambda n: n.connect("cue", "answer", sparse(3, 2), delay=np.ones(3)),
        ("cue->answer", "(3,)", "(3, 2)"),
    ),
    Case(
        "sparse delays of another shape",
        ParameterError,
        lambda n: n.connect("cue", "answer", sparse(3, 2), delay=sparse(3, 3)),
        ("cue->answer", "(3, 3)", "(3, 2)"),
    ),
    Case(
        "sparse delays of dense weights",
        NetworkError,
        lambda n: n.connect("cue", "answer", delay=sparse(3, 2)),
        ("cue->answer", "sparse", "toarray()"),
    ),
    Case(
        "sparse delays of other pairs",
        NetworkError,
        lambda n: n.connect("cue", "answer", sparse(3, 2), delay=sparse(3, 2)[::-1]),
        ("cue->answer", "2 pairs", "pairs()"),
    ),
    Case(
        "sparse delay below 0",
        ParameterError,
        lambda n: n.connect("cue", "answer", sparse(3, 2), delay=sparse(3, 2, corner=-1.0)),
        ("cue->answer.delay", "-1.0", "(0,)"),
    ),
    Case(
        "delay trained in steps",
        NetworkError,
        lambda n: _in_steps().connect("cue", "answer", train_delay=True),
        ("cue->answer", "train_delay=True"),
    ),
    Case(
        "delays of pairs in steps",
        NetworkError,
        lambda n: _in_steps().connect("cue", "answer", delay=[[1.0], [2.0]]),
        ("cue->answer", "pair to pair", "dt=None"),
    ),
    # Cascades
    Case(
        "LSTM to itself",
        NetworkError,
        lambda n: n.connect("lstm", "lstm"),
        ("'lstm'", "0.001", "without end"),
    ),
    Case(
        "cycle through an LSTM",
        NetworkError,
        lambda n: n.connect("gru", "lstm", name="x", delay=1e-4),
        ("'x'", "DeltaLSTM(4, name='lstm')", "0.001 ms"),
    ),
    Case(
        "trained delays into an LSTM",
        NetworkError,
        lambda n: n.connect("gru", "lstm", name="x", delay=1.0, train_delay=True),
        ("'x'", "DeltaLSTM(4, name='lstm')", "leave out train_delay"),
    ),
    Case(
        "one pair without delay",
        NetworkError,
        lambda n: n.connect("gru", "lstm", delay=1.0 - np.eye(4)),
        ("gru->lstm", "'lstm'"),
    ),
]


def _in_steps():
    net = Network(dt=1.0)
    net.add(EventSource(2, "cue"))
    net.add(LeakyReadout(1, "answer"))
    return net
