"""Bad calls, and what the error of each must be and say."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse

from evsim.adjoint import Adjoint
from evsim.errors import EvsimError, GradientError, LogError, NetworkError, ParameterError, StimulusError
from evsim.eventlog import EventLog
from evsim.events import Events
from evsim.loss import cross_entropy, mean_squared_error
from evsim.models import (
    EGRU,
    DeltaEncoder,
    DeltaGRU,
    DeltaLSTM,
    EventSource,
    LeakyReadout,
    beta_threshold,
)
from evsim.network import Network
from evsim.optimizer import SGD, Adam
from evsim.plan import Plan
from evsim.simulation import Simulation
from oracles.scene import B, C, H, K, T, make_network

NAN = float("nan")


@dataclass
class Case:
    """A bad call and what its error must say: words that name the object, and the offending value."""

    name: str
    error: type[EvsimError]
    call: object
    words: tuple[str, ...]


def dense(step=0, lane=0, unit=0, value=1.0, shape=(T, B, K)):
    array = np.zeros(shape)
    array[step, lane, unit] = value
    return array


def events_with(units=(0,), values=(1.0,)):
    """Events that nobody checked."""
    ptr = np.zeros(T * B + 1, np.int64)
    ptr[1:] = len(units)
    return Events(K, B, T, ptr, np.array(units, np.int32), np.array(values, np.float32))


def other_log():
    net = make_network(hidden=H + 1)
    return Simulation(net).run(np.zeros((T, B, K)))


def changed(scene):
    """A replay of a log without tape after the parameters moved."""
    bias = scene.net.parameters()["hidden.bias"]
    kept = bias.values.copy()
    try:
        bias.assign(kept + 0.5)
        scene.replay({"answer": scene.loss}, scene.tapeless)
    finally:
        bias.assign(kept)


class Silent(EGRU):
    """A population whose thresholds are not what its network can hold."""

    def __init__(self, name):
        super().__init__(2, name=name, threshold=np.array([0.1, 2.0]))


STIMULUS = [
    Case("shape", StimulusError, lambda s: s.run(np.zeros((T, B, K, 1))), ("cue", f"({T}, {B}, {K}, 1)")),
    Case("shape of floats", StimulusError, lambda s: s.run(np.zeros(T)), ("cue", f"({T},)")),
    Case("a number", StimulusError, lambda s: s.run(3.0), ("cue", "()")),
    Case("units", StimulusError, lambda s: s.run(np.zeros((T, B, K + 1))), ("cue", str(K + 1), str(K))),
    Case("dtype", StimulusError, lambda s: s.run(np.zeros((T, B, K), complex)), ("cue", "complex")),
    Case("text", StimulusError, lambda s: s.run("cue"), ("cue", "<U3")),
    Case("ragged", StimulusError, lambda s: s.run([[1.0, 2.0], [1.0]]), ("cue",)),
    Case(
        "NaN",
        StimulusError,
        lambda s: s.run(dense(2, 1, 3, NAN)),
        ("cue", "nan", "step 2", "lane 1", "unit 3"),
    ),
    Case("inf", StimulusError, lambda s: s.run(dense(value=-np.inf)), ("cue", "-inf")),
    Case("beyond float32", StimulusError, lambda s: s.run(dense(value=1e300)), ("cue", "inf")),
    Case(
        "token too large",
        StimulusError,
        lambda s: s.run(np.full((T, B), K)),
        ("cue", f"token id {K}", "lane 0"),
    ),
    Case("token too small", StimulusError, lambda s: s.run(np.full((T, B), -2)), ("cue", "token id -2")),
    Case("unknown source", StimulusError, lambda s: s.run({"clue": s.cue}), ("clue", "cue")),
    Case("missing source", StimulusError, lambda s: s.run({}, 1.0), ("stimulus", "cue")),
    Case(
        "one source too many",
        StimulusError,
        lambda s: s.run({"cue": s.cue, "hidden": s.cue}),
        ("hidden", "cue"),
    ),
    Case("no source named", StimulusError, lambda s: s.run({}), ("stimulus",)),
    Case(
        "lanes on carry", StimulusError, lambda s: s.run(np.zeros((T, B + 1, K))), (f"{B + 1} lanes", str(B))
    ),
    Case(
        "lanes of a step",
        StimulusError,
        lambda s: s.simulation.step(np.zeros((B + 1, K))),
        (f"{B + 1} lanes",),
    ),
    Case("no lanes", StimulusError, lambda s: s.simulation.run(np.zeros((T, 0, K))), ("stimulus", "0")),
    Case("duration off the grid", StimulusError, lambda s: s.run(s.cue, 2.75), ("2.75", "0.5")),
    Case("negative duration", StimulusError, lambda s: s.run(s.cue, -1.0), ("-1.0",)),
    Case("NaN duration", StimulusError, lambda s: s.run(s.cue, NAN), ("duration", "nan")),
    Case("text as duration", StimulusError, lambda s: s.run(s.cue, "3"), ("duration", "'3'")),
    Case(
        "duration of another length", StimulusError, lambda s: s.run(s.cue, 1.0), ("steps", "[2, 6]", "1.0")
    ),
    Case(
        "event list without duration",
        StimulusError,
        lambda s: s.run(([0.0], [0], [0], [1.0])),
        ("steps", "duration="),
    ),
    Case(
        "event off the grid",
        StimulusError,
        lambda s: s.run(([0.2], [0], [0], [1.0]), 2.0),
        ("cue", "0.2", "0.5"),
    ),
    Case("event at NaN", StimulusError, lambda s: s.run(([NAN], [0], [0], [1.0]), 2.0), ("cue", "nan")),
    Case(
        "event at infinity", StimulusError, lambda s: s.run(([np.inf], [0], [0], [1.0]), 2.0), ("cue", "inf")
    ),
    Case(
        "event after the end",
        StimulusError,
        lambda s: s.run(([2.0], [0], [0], [1.0]), 2.0),
        ("cue", "4", "0..3"),
    ),
    Case(
        "event before the start",
        StimulusError,
        lambda s: s.run(([-0.5], [0], [0], [1.0]), 2.0),
        ("cue", "-1"),
    ),
    Case(
        "unit of an event",
        StimulusError,
        lambda s: s.run(([0.0], [0], [K], [1.0]), 2.0),
        ("cue", f"unit {K}", "0..3"),
    ),
    Case(
        "lane of an event",
        StimulusError,
        lambda s: s.run(([0.0], [B], [0], [1.0]), 2.0),
        ("cue", f"lane {B}"),
    ),
    Case("negative lane", StimulusError, lambda s: s.run(([0.0], [-1], [0], [1.0]), 2.0), ("cue", "lane -1")),
    Case(
        "fractional unit",
        StimulusError,
        lambda s: s.run(([0.0], [0], [0.5], [1.0]), 2.0),
        ("cue", "unit", "float64"),
    ),
    Case(
        "fractional lane",
        StimulusError,
        lambda s: s.run(([0.0], [0.5], [0], [1.0]), 2.0),
        ("cue", "lane", "float64"),
    ),
    Case(
        "value of an event",
        StimulusError,
        lambda s: s.run(([0.0], [0], [0], [NAN]), 2.0),
        ("cue", "event 0", "nan"),
    ),
    Case(
        "unequal columns",
        StimulusError,
        lambda s: s.run(([0.0], [0, 1], [0], [1.0]), 2.0),
        ("cue", "2 lanes", "1 val"),
    ),
    Case("three columns", StimulusError, lambda s: s.run(([0.0], [0], [0]), 2.0), ("cue", "3 columns")),
    Case("one column", StimulusError, lambda s: s.run(([0.0],), 2.0), ("cue", "1 columns")),
    Case(
        "duplicate events",
        StimulusError,
        lambda s: s.run(([0.5, 0.0, 0.5], [1, 1, 1], [2, 2, 2], [1.0, 1.0, 3.0]), 2.0),
        ("cue", "unit 2", "step 1", "lane 1"),
    ),
    Case(
        "events of other units",
        StimulusError,
        lambda s: s.run(Events.empty(K + 1, B, T)),
        ("cue", str(K + 1), str(K)),
    ),
    Case(
        "unchecked unit",
        StimulusError,
        lambda s: s.run(events_with((0, 10**6), (1.0, 1.0))),
        ("cue", "1000000"),
    ),
    Case("unchecked value", StimulusError, lambda s: s.run(events_with((0,), (NAN,))), ("cue", "nan")),
    Case(
        "lengths of other lanes",
        StimulusError,
        lambda s: s.run(s.cue, lengths=[1, 2, 3]),
        ("lanes", "[2, 3]"),
    ),
    Case(
        "length too long",
        StimulusError,
        lambda s: s.run(s.cue, lengths=[1, T + 1]),
        ("lengths", str(T + 1), "0..6"),
    ),
    Case(
        "length too long, afresh",
        StimulusError,
        lambda s: s.simulation.run(s.cue, lengths=[1, 9]),
        ("lengths", "9"),
    ),
    Case("negative length", StimulusError, lambda s: s.run(s.cue, lengths=[1, -1]), ("lengths", "-1")),
    Case(
        "fractional length",
        StimulusError,
        lambda s: s.run(s.cue, lengths=[1.0, 2.0]),
        ("lengths", "1.", "2."),
    ),
]

NETWORK = [
    Case("dt zero", NetworkError, lambda s: Network(dt=0.0), ("dt is 0.0",)),
    Case("dt NaN", NetworkError, lambda s: Network(dt=NAN), ("dt is nan",)),
    Case("dt text", NetworkError, lambda s: Network(dt="1 ms"), ("dt is '1 ms'",)),
    Case("negative seed", NetworkError, lambda s: Network(seed=-1), ("seed is -1",)),
    Case("fractional seed", NetworkError, lambda s: Network(seed=0.5), ("seed is 0.5",)),
    Case("no seed", NetworkError, lambda s: Network(seed=None), ("seed is None",)),
    Case("half precision", NetworkError, lambda s: Network(dtype="float16"), ("float16", "float32")),
    Case("unknown dtype", NetworkError, lambda s: Network(dtype="real"), ("'real'", "float32")),
    Case("empty network", NetworkError, lambda s: Plan(Network()), ("no populations",)),
    Case("no units", NetworkError, lambda s: EGRU(0, name="x"), ("'x'", "n_units is 0")),
    Case("fractional units", NetworkError, lambda s: EGRU(2.0, name="x"), ("'x'", "2.0")),
    Case("name of two words", NetworkError, lambda s: EGRU(2, name="my layer"), ("'my layer'",)),
    Case("name of two lines", NetworkError, lambda s: EGRU(2, name="my\nlayer"), ("layer",)),
    Case("unknown form", NetworkError, lambda s: EGRU(2, name="x", form="lstm"), ("'x'", "'lstm'", "evnn")),
    Case("negative tau", NetworkError, lambda s: LeakyReadout(2, name="x", tau=-1.0), ("'x'", "tau is -1.0")),
    Case("mean threshold", NetworkError, lambda s: beta_threshold(1.0), ("mean is 1.0",)),
    Case("name twice", NetworkError, lambda s: s.net.add(EGRU(2, name="hidden")), ("'hidden'",)),
    Case("not a population", NetworkError, lambda s: s.net.add("hidden"), ("'hidden'", "Population")),
    Case(
        "added twice", NetworkError, lambda s: Network().add(s.net["hidden"]), ("'hidden'", "another network")
    ),
    Case(
        "threshold too high",
        ParameterError,
        lambda s: s.net.add(EGRU(2, name="x", threshold=1.5)),
        ("x.threshold", "1.5"),
    ),
    Case(
        "one threshold too high",
        ParameterError,
        lambda s: s.net.add(Silent("x")),
        ("x.threshold", "2.0", "(1,)"),
    ),
    Case(
        "threshold too low",
        ParameterError,
        lambda s: s.net.add(EGRU(2, name="x", threshold=-0.1)),
        ("x.thr", "-0.1"),
    ),
    Case(
        "threshold NaN",
        ParameterError,
        lambda s: s.net.add(EGRU(2, name="x", threshold=NAN)),
        ("x.threshold", "nan"),
    ),
    Case(
        "thresholds",
        ParameterError,
        lambda s: s.net.add(EGRU(2, name="x", threshold=[0.1] * 3)),
        ("x.thr", "(3,)", "(2,)"),
    ),
    Case(
        "bias",
        ParameterError,
        lambda s: s.net.add(EGRU(2, name="x", bias=[0.1] * 2)),
        ("x.bias", "(2,)", "(6,)"),
    ),
    Case(
        "assign NaN",
        ParameterError,
        lambda s: s.net.parameters()["answer.bias"].assign(NAN),
        ("answer.bias", "nan"),
    ),
    Case(
        "assign shape",
        ParameterError,
        lambda s: s.net.parameters()["answer.bias"].assign([1, 2]),
        ("answer.bias", "(2,)"),
    ),
    Case(
        "assign range",
        ParameterError,
        lambda s: s.net.parameters()["hidden.threshold"].assign(7),
        ("hidden.thr", "7"),
    ),
    Case("unknown population", NetworkError, lambda s: s.net["hiden"], ("'hiden'", "'hidden'")),
    Case("unknown target", NetworkError, lambda s: s.net.connect("cue", "hiden"), ("'hiden'", "'hidden'")),
    Case(
        "stranger",
        NetworkError,
        lambda s: s.net.connect("cue", EGRU(2, name="y")),
        ("EGRU(2, name='y')", "add()"),
    ),
    Case(
        "projection twice", NetworkError, lambda s: s.net.connect("cue", "hidden"), ("'cue->hidden'", "name=")
    ),
    Case("separator", NetworkError, lambda s: s.net.connect("cue", "hidden", name="a/b"), ("'a/b'",)),
    Case(
        "readout as source",
        NetworkError,
        lambda s: s.net.connect("answer", "hidden"),
        ("answer->hidden", "no events"),
    ),
    Case(
        "source as target",
        NetworkError,
        lambda s: s.net.connect("hidden", "cue", delay=1.0),
        ("hidden->cue", "port"),
    ),
    Case(
        "unknown port",
        NetworkError,
        lambda s: s.net.connect("cue", "answer", port="gate"),
        ("'gate'", "input"),
    ),
    Case(
        "delay off the grid",
        NetworkError,
        lambda s: s.net.connect("cue", "answer", delay=0.7),
        ("cue->answer", "0.7", "0.5"),
    ),
    Case(
        "negative delay",
        NetworkError,
        lambda s: s.net.connect("cue", "answer", delay=-0.5),
        ("cue->answer", "-0.5"),
    ),
    Case(
        "NaN delay", NetworkError, lambda s: s.net.connect("cue", "answer", delay=NAN), ("cue->answer", "nan")
    ),
    Case(
        "text as delay",
        NetworkError,
        lambda s: s.net.connect("cue", "answer", delay="1 ms"),
        ("cue->answer", "'1 ms'"),
    ),
    Case(
        "cycle",
        NetworkError,
        lambda s: s.net.connect("hidden", "hidden", delay=0, name="x"),
        ("'x'", "cycle", "delay="),
    ),
    Case(
        "weight shape",
        ParameterError,
        lambda s: s.net.connect("cue", "answer", np.ones((2, 2))),
        ("(2, 2)", "(4, 3)"),
    ),
    Case(
        "weight NaN",
        ParameterError,
        lambda s: s.net.connect("cue", "answer", NAN),
        ("cue->answer.weight", "nan"),
    ),
    Case(
        "initialiser",
        NetworkError,
        lambda s: s.net.connect("cue", "answer", "he"),
        ("cue->answer", "'he'", "glorot"),
    ),
    Case(
        "density", NetworkError, lambda s: s.net.connect("cue", "answer", density=0.0), ("cue->answer", "0.0")
    ),
    Case(
        "sparse weight NaN",
        ParameterError,
        lambda s: s.net.connect("cue", "answer", scipy.sparse.csr_array(np.full((K, C), NAN))),
        ("cue->answer.weight", "nan"),
    ),
    Case(
        "sparse weight shape",
        ParameterError,
        lambda s: s.net.connect("cue", "answer", scipy.sparse.eye_array(3, format="csr")),
        ("cue->answer", "(3, 3)", "(4, 3)"),
    ),
    Case("threads", ParameterError, lambda s: Simulation(s.plan, threads=0), ("threads", "0")),
    Case("fractional threads", ParameterError, lambda s: Adjoint(s.plan, threads=1.5), ("threads", "1.5")),
]

REPLAY = [
    Case(
        "loss shape",
        GradientError,
        lambda s: s.replay({"answer": s.loss[1:]}),
        ("answer", f"({T - 1}, {B}, {C})"),
    ),
    Case("loss dtype", GradientError, lambda s: s.replay({"answer": [["x"]]}), ("answer",)),
    Case(
        "loss NaN",
        GradientError,
        lambda s: s.replay({"answer": s.loss * NAN}),
        ("answer", "nan", "(0, 0, 0)"),
    ),
    Case("loss name", GradientError, lambda s: s.replay({"anwser": s.loss}), ("anwser", "answer")),
    Case(
        "loss kind",
        GradientError,
        lambda s: s.replay({"hidden.z": np.zeros((T, B, H))}),
        ("hidden.z", "name.y"),
    ),
    Case(
        "loss at values of a readout", GradientError, lambda s: s.replay({"answer.y": s.loss}), ("answer.y",)
    ),
    Case("loss at a source", GradientError, lambda s: s.replay({"cue": np.zeros((T, B, K))}), ("cue",)),
    Case("no loss", GradientError, lambda s: s.replay({}), ("losses",)),
    Case(
        "log of another plan",
        GradientError,
        lambda s: s.replay({"answer": s.loss}, other_log()),
        ("log", "populations"),
    ),
    Case("parameters changed", GradientError, changed, ("hidden", "parameters")),
    Case("pseudo-derivative", GradientError, lambda s: Adjoint(s.plan, "gauss"), ("'gauss'", "triangle")),
    Case("gamma", GradientError, lambda s: Adjoint(s.plan, gamma=-1.0), ("gamma = -1.0",)),
    Case("eps", GradientError, lambda s: Adjoint(s.plan, eps=0.0), ("eps = 0.0",)),
    Case(
        "target shape",
        GradientError,
        lambda s: cross_entropy(s.loss, np.zeros(T, int)),
        ("cross_entropy", f"({T},)"),
    ),
    Case(
        "target dtype",
        GradientError,
        lambda s: cross_entropy(s.loss, np.zeros((T, B))),
        ("cross_entropy", "float64"),
    ),
    Case(
        "class",
        GradientError,
        lambda s: cross_entropy(s.loss, np.full((T, B), C)),
        ("cross_entropy", "target 3"),
    ),
    Case(
        "value shape",
        GradientError,
        lambda s: mean_squared_error(s.loss, s.loss[1:]),
        ("mean_squared_error", "(5, 2, 3)"),
    ),
    Case("population of a log", LogError, lambda s: s.log["hiden"], ("'hiden'", "'hidden'")),
    Case("log that is not there", LogError, lambda s: EventLog.open("no such file.h5"), ("no such file.h5",)),
]

OPTIMIZER = [
    Case(
        "missing gradient",
        GradientError,
        lambda s: s.optimizer.step({k: v for k, v in s.gradients.items() if k != "answer.bias"}),
        ("answer.bias", "no gradient"),
    ),
    *(
        Case(
            f"gradient {value}",
            GradientError,
            lambda s, value=value: s.optimizer.step(
                s.with_gradient("answer.bias", np.array([0, value, 0], "float32"))
            ),
            ("answer.bias", "not finite"),
        )
        for value in (NAN, np.inf, -np.inf)
    ),
    Case(
        "gradient shape",
        GradientError,
        lambda s: s.optimizer.step(s.with_gradient("answer.bias", np.zeros(C + 1, "float32"))),
        ("answer.bias", "(4,)", "(3,)"),
    ),
    Case("learning rate", ParameterError, lambda s: Adam(s.net.parameters(), lr=-1.0), ("lr is -1.0",)),
    Case("learning rate NaN", ParameterError, lambda s: SGD(s.net.parameters(), lr=NAN), ("lr is nan",)),
    Case("clip", ParameterError, lambda s: SGD(s.net.parameters(), lr=1.0, clip=0.0), ("clip is 0.0",)),
    Case(
        "state of another", ParameterError, lambda s: s.optimizer.load({"lr": np.array(1.0)}), ("optimizer",)
    ),
]

DELTA = [
    Case(
        "NaN",
        StimulusError,
        lambda s: s.delta.run(dense(2, 1, 3, NAN)),
        ("lines", "nan", "step 2", "lane 1", "unit 3"),
    ),
    Case("inf", StimulusError, lambda s: s.delta.run(dense(value=-np.inf)), ("lines", "-inf")),
    Case("beyond float32", StimulusError, lambda s: s.delta.run(dense(value=1e300)), ("lines", "inf")),
    Case(
        "units", StimulusError, lambda s: s.delta.run(np.zeros((T, B, K + 1))), ("lines", str(K + 1), str(K))
    ),
    Case("shape", StimulusError, lambda s: s.delta.run(np.zeros(T)), ("lines", f"({T},)")),
    Case("lanes", StimulusError, lambda s: s.delta.run(np.zeros((T, B + 1, K))), (f"{B + 1} lanes", str(B))),
    Case("token", StimulusError, lambda s: s.delta.run(np.full((T, B), K)), ("lines", f"token id {K}")),
    Case(
        "value of an event",
        StimulusError,
        lambda s: s.delta.run(([0.0], [0], [0], [NAN]), duration=1.0),
        ("lines", "event 0", "nan"),
    ),
    *(
        Case(
            f"threshold {value} of {kind}",
            ParameterError,
            lambda s, make=make, value=value: s.delta.net.add(make(s, value)),
            ("x.threshold", str(value), "inf]"),
        )
        for value in (-0.1, NAN)
        for kind, make in {
            "a source": lambda s, value: EventSource(2, "x", threshold=value),
            "units": lambda s, value: DeltaLSTM(2, "x", threshold=[0.0, value]),
            "an encoder": lambda s, value: DeltaEncoder(s.delta.net["hidden"], "x", threshold=value),
        }.items()
    ),
    Case(
        "threshold assigned",
        ParameterError,
        lambda s: s.delta.net.parameters()["hidden.threshold"].assign(-1.0),
        ("hidden.threshold", "-1.0"),
    ),
    Case(
        "thresholds",
        ParameterError,
        lambda s: s.delta.net.add(DeltaGRU(2, "x", threshold=[0.1] * 3)),
        ("x.threshold", "(3,)", "(2,)"),
    ),
    Case(
        "bias",
        ParameterError,
        lambda s: s.delta.net.add(DeltaGRU(2, "x", bias=np.zeros(6))),
        ("x.bias", "(6,)", "(8,)"),
    ),
    Case(
        "weight shape",
        ParameterError,
        lambda s: s.delta.net.connect("lines", "hidden", np.ones((K, 4 * H)), name="x"),
        ("'x'", f"({K}, {4 * H})", f"({K}, {3 * H})", "(r, z, n)"),
    ),
    *(
        Case(
            f"{source} to {target}",
            NetworkError,
            lambda s, source=source, target=target: s.delta.net.connect(source, target),
            (f"{source}->{target}", f"sends {sends}", f"takes {takes}"),
        )
        for source, target, sends, takes in (
            ("lines", "spikes", "changes", "values"),
            ("hidden", "spikes", "changes", "values"),
            ("hidden", "leaky", "changes", "values"),
            ("again", "leaky", "changes", "values"),
            ("spikes", "hidden", "values", "changes"),
            ("spikes", "answer", "values", "changes"),
        )
    ),
    Case(
        "encoder as target", NetworkError, lambda s: s.delta.net.connect("lines", "again"), ("again", "port")
    ),
    Case(
        "encoder of EGRU",
        NetworkError,
        lambda s: DeltaEncoder(s.delta.net["spikes"], "x"),
        ("'x'", "EGRU(2, name='spikes')", "DeltaGRU"),
    ),
    Case(
        "encoder of an encoder",
        NetworkError,
        lambda s: DeltaEncoder(s.delta.net["again"], "x"),
        ("'x'", "'again'", "DeltaGRU"),
    ),
    Case(
        "encoder of a stranger",
        NetworkError,
        lambda s: s.delta.net.add(DeltaEncoder(DeltaGRU(2, "other"), "x")),
        ("DeltaGRU(2, name='other')", "add()"),
    ),
    Case(
        "encoder of a name",
        NetworkError,
        lambda s: DeltaEncoder("hidden", "x"),
        ("'x'", "'hidden'", "DeltaGRU"),
    ),
    Case(
        "cycle",
        NetworkError,
        lambda s: s.delta.net.connect("hidden", "hidden", delay=0, name="x"),
        ("'x'", "cycle", "delay="),
    ),
    Case(
        "cycle through an encoder",
        NetworkError,
        lambda s: s.delta.net.connect("again", "hidden", delay=0),
        ("again->hidden", "cycle", "delay="),
    ),
    Case(
        "loss of whether it sent",
        GradientError,
        lambda s: s.delta.replay({"hidden.o": np.zeros((T, B, H))}),
        ("hidden.o", "delta units"),
    ),
    Case(
        "loss of an encoder",
        GradientError,
        lambda s: s.delta.replay({"again": np.zeros((T, B, H))}),
        ("again",),
    ),
    Case(
        "loss of a source",
        GradientError,
        lambda s: s.delta.replay({"lines.y": np.zeros((T, B, K))}),
        ("lines.y",),
    ),
    Case(
        "loss by event",
        GradientError,
        lambda s: s.delta.replay({"hidden.y": np.zeros(s.delta.log["hidden"].n_events + 1)}),
        ("hidden.y", "one for each event"),
    ),
    Case(
        "loss by event at a state",
        GradientError,
        lambda s: s.delta.replay({"hidden": np.zeros(s.delta.log["hidden"].n_events)}),
        ("'hidden'", f"({T}, {B}, {H})"),
    ),
    Case(
        "NaN loss by event",
        GradientError,
        lambda s: s.delta.replay({"hidden.y": np.full(s.delta.log["hidden"].n_events, NAN)}),
        ("hidden.y", "nan"),
    ),
]

GROUPS = {
    "stimulus": STIMULUS,
    "network": NETWORK,
    "replay": REPLAY,
    "optimizer": OPTIMIZER,
    "delta": DELTA,
}
CASES = {f"{group}: {case.name}": case for group, cases in GROUPS.items() for case in cases}
