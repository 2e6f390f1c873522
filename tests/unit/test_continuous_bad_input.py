"""Bad calls of runs and replays in continuous time: what the error must say, and that nothing has changed."""

import numpy as np
import pytest

from evsim.adjoint import Adjoint
from evsim.errors import GradientError, NetworkError, ParameterError, StimulusError
from evsim.models import EGRU, EventSource, LeakyReadout
from evsim.network import Network
from evsim.simulation import Simulation
from evsim.timed_events import TimedEvents
from oracles.bad_input import Case

NAN, INF = float("nan"), float("inf")
DURATION, SAMPLES = 20.0, [5.0, 20.0]


def make_network(n=3):
    net = Network(dt=None, seed=1)
    net.add(EventSource(2, "cue"))
    net.add(EGRU(n, "hidden", threshold=0.2, bias=np.repeat([0.5, 0.0, 0.7], n)))
    net.add(LeakyReadout(2, "answer"))
    net.connect("cue", "hidden", weight="glorot")
    net.connect("hidden", "hidden", weight="glorot", delay=0.5)
    net.connect("hidden", "answer", weight="glorot")
    return net


def columns(time=1.0, lane=0, unit=0, value=1.0):
    return ([2.0, time], [0, lane], [1, unit], [1.0, value])


def timed(n_units=2, n_lanes=1, start=0.0, stop=DURATION, time=(1.0,)):
    """Events that nobody checked."""
    n = len(time)
    zeros, values = np.zeros(n, np.int32), np.ones(n)
    return TimedEvents(n_units, n_lanes, start, stop, np.array(time, float), zeros, zeros, values)


class Scene:
    """A simulation that has run, and one that has not met the bad call."""

    def __init__(self):
        self.net = make_network()
        self.sim = Simulation(self.net)
        self.adjoint = Adjoint(self.sim.plan)
        self.log = self.sim.run(columns(), DURATION, samples=SAMPLES)
        self.losses = {"answer": np.ones((2, 1, 2))}

    def run(self, stimulus=None, duration=DURATION, **options):
        return self.sim.run(columns() if stimulus is None else stimulus, duration, **options)

    def replay(self, losses, log=None):
        return self.adjoint.replay(self.log if log is None else log, losses)

    def finish(self):
        """What follows: the next window, and the gradient of the first."""
        gradients = self.replay(self.losses)
        log = self.sim.run(duration=DURATION, samples=[25.0, 40.0], carry=True)
        arrays = [log["answer"].state, log["hidden"].time, *gradients.values()]
        return self.sim.time, self.sim.n_lanes, [array.tobytes() for array in arrays]


def changed(scene):
    """A replay of a log without tape after the parameters moved."""
    bias = scene.net.parameters()["hidden.bias"]
    kept = bias.values.copy()
    log = Simulation(scene.net).run(columns(), DURATION, samples=SAMPLES, tape=False)
    try:
        bias.assign(kept + 3.0)
        scene.replay(scene.losses, log)
    finally:
        bias.assign(kept)


def other_log():
    return Simulation(make_network(4)).run(columns(), DURATION, samples=SAMPLES)


def clocked_log():
    net = Network(dt=1.0)
    net.add(EventSource(2, "cue"))
    net.add(LeakyReadout(2, "answer"))
    net.connect("cue", "answer")
    return Simulation(net).run(np.zeros((3, 1, 2)))


CASES = [
    *(
        Case(f"duration {value}", StimulusError, lambda s, v=value: s.run(None, v), ("duration", str(value)))
        for value in (-1.0, NAN, INF, None, "5")
    ),
    *(
        Case(f"most_events {value}", StimulusError, lambda s, v=value: s.run(most_events=v), ("most_events",))
        for value in (0, 2.5, True)
    ),
    Case("too many", StimulusError, lambda s: s.run(most_events=1), ("lane 0", "1 events", "most_events")),
    Case("source", StimulusError, lambda s: s.run({"cues": columns()}), ("['cues']", "['cue']")),
    Case("time after the end", StimulusError, lambda s: s.run(columns(20.0)), ("'cue'", "20.0", "event 1")),
    Case("time before the start", StimulusError, lambda s: s.run(columns(-1.0)), ("'cue'", "-1.0")),
    Case("time nan", StimulusError, lambda s: s.run(columns(NAN)), ("'cue'", "time nan", "event 1")),
    Case("value inf", StimulusError, lambda s: s.run(columns(value=INF)), ("'cue'", "value inf")),
    Case("unit", StimulusError, lambda s: s.run(columns(unit=2)), ("'cue'", "unit 2", "0..1")),
    Case("negative lane", StimulusError, lambda s: s.run(columns(lane=-1)), ("'cue'", "lane -1")),
    Case(
        "lane",
        StimulusError,
        lambda s: s.run(columns(lane=3), n_lanes=2),
        ("'cue'", "lane 3", "0..1"),
    ),
    Case("lanes as floats", StimulusError, lambda s: s.run(columns(lane=0.5)), ("'cue'", "lanes", "float64")),
    Case("twice", StimulusError, lambda s: s.run(columns(2.0, 0, 1)), ("'cue'", "unit 1", "2.0", "lane 0")),
    Case("lengths", StimulusError, lambda s: s.run(([1.0], [0, 0], [0], [1.0])), ("'cue'", "2 lanes")),
    Case("columns", StimulusError, lambda s: s.run(([1.0], [0], [0])), ("'cue'", "3 columns")),
    Case("dense array", StimulusError, lambda s: s.run(np.zeros((5, 1, 2))), ("'cue'", "ndarray")),
    Case("text", StimulusError, lambda s: s.run((["a"], [0], [0], [1.0])), ("'cue'", "times")),
    Case("units of events", StimulusError, lambda s: s.run(timed(3)), ("'cue'", "3 units", "2 units")),
    Case("window of events", StimulusError, lambda s: s.run(timed(stop=5.0)), ("'cue'", "0 to 5", "0 to 20")),
    Case("unchecked events", StimulusError, lambda s: s.run(timed(time=[2.0, 1.0])), ("'cue'", "1.0")),
    Case("lanes of events", StimulusError, lambda s: s.run(timed(n_lanes=2), n_lanes=3), ("[2, 3]",)),
    *(
        Case(f"n_lanes {value}", StimulusError, lambda s, v=value: s.run(n_lanes=v), ("n_lanes", str(value)))
        for value in (0, -1, 1.0, True)
    ),
    Case("carried lanes", StimulusError, lambda s: s.sim.run(None, 1.0, n_lanes=2, carry=True), ("[1, 2]",)),
    *(
        Case(f"samples {value}", StimulusError, lambda s, v=value: s.run(samples=v), ("samples", "0 to 20"))
        for value in ([-1.0], [20.5], [3.0, 2.0], [1.0, 1.0], [NAN], [[1.0]], 3.0)
    ),
    Case("samples of text", StimulusError, lambda s: s.run(samples=["a"]), ("samples", "'a'")),
    Case("state", StimulusError, lambda s: s.run(initial={"hidden": {"v": 1}}), ("'hidden.v'", "'a_u'")),
    Case("shape", StimulusError, lambda s: s.run(initial={"hidden": {"c": [1, 2]}}), ("(2,)", "(1, 3)")),
    Case("not finite", StimulusError, lambda s: s.run(initial={"hidden": {"c": NAN}}), ("'hidden.c'", "nan")),
    Case("population", NetworkError, lambda s: s.run(initial={"hide": {"c": 0}}), ("'hide'", "'hidden'")),
    Case("tolerance", ParameterError, lambda s: Simulation(s.net, tolerance=0), ("tolerance is 0", "1e-14")),
    # Replays
    Case("no losses", GradientError, lambda s: s.replay({}), ("losses",)),
    Case("unknown loss", GradientError, lambda s: s.replay({"answers": 0}), ("'answers'", "'answer'")),
    Case(
        "kind of loss", GradientError, lambda s: s.replay({"answer.time": 0}), ("'answer.time'", "integral")
    ),
    Case("loss of a source", GradientError, lambda s: s.replay({"cue": 0}), ("'cue'",)),
    Case("shape of a loss", GradientError, lambda s: s.replay({"answer": np.ones(2)}), ("(2,)", "(2, 1, 2)")),
    Case("events", GradientError, lambda s: s.replay({"hidden.time": np.ones(99)}), ("(99,)", "events")),
    Case("nan", GradientError, lambda s: s.replay({"answer": np.full((2, 1, 2), NAN)}), ("nan", "(0, 0, 0)")),
    Case("strings", GradientError, lambda s: s.replay({"answer": "x"}), ("'answer'", "str")),
    Case("another plan", GradientError, lambda s: s.replay(s.losses, other_log()), ("populations", "plan")),
    Case("clocked log", GradientError, lambda s: s.replay(s.losses, clocked_log()), ("continuous time",)),
    Case("changed since", GradientError, changed, ("'hidden'", "parameters")),
    *(
        Case(
            f"min_slope {value}",
            GradientError,
            lambda s, v=value: Adjoint(s.sim.plan, min_slope=v),
            ("min_slope", str(value)),
        )
        for value in (0, -1.0, NAN, "1")
    ),
]


@pytest.fixture(scope="module")
def undisturbed():
    return Scene().finish()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input(case, undisturbed):
    scene = Scene()
    with pytest.raises(case.error) as caught:
        case.call(scene)
    error, message = caught.value, str(caught.value)
    assert type(error) is case.error
    assert "\n" not in message
    assert len(message) < 400
    for word in case.words:
        assert word in message, message
    assert error.where
    assert error.problem
    assert error.remedy, message
    assert scene.finish() == undisturbed


def test_names_of_cases_are_distinct():
    assert len({case.name for case in CASES}) == len(CASES)
