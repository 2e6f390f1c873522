"""Bad input: one error of the right type, in one line with object, value and remedy, and nothing is lost.

Every case is a call on a scene, a network with everything that works on it.  After the call the scene must
go on exactly as one that never saw it.
"""

import inspect
import pickle

import numpy as np
import pytest

import evsim.errors
from evsim.errors import EvsimError, GradientError, NetworkError, StimulusError
from evsim.events import Events
from evsim.models import EGRU, EventSource, LinearReadout
from evsim.network import Network
from evsim.simulation import Simulation
from oracles.bad_input import CASES, GROUPS
from oracles.scene import C, Scene


@pytest.fixture(scope="module")
def undisturbed():
    return Scene().finish()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_bad_input(case, undisturbed):
    scene = Scene()
    with pytest.raises(case.error) as caught:
        case.call(scene)
    error = caught.value
    message = str(error)
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
    assert len(CASES) == sum(map(len, GROUPS.values()))


def test_a_cycle_over_several_populations():
    net = Network()
    for name in ("a", "b", "c"):
        net.add(EGRU(2, name=name))
    net.connect("a", "b")
    net.connect("b", "c")
    with pytest.raises(NetworkError, match="cycle without delay"):
        net.connect("c", "a")
    assert list(net.projections) == ["a->b", "b->c"]
    net.connect("c", "a", delay=1.0)
    assert Simulation(net).run({}, 3.0).n_steps == 3


def test_the_papers_form_takes_its_own_events_only():
    net = Network()
    net.add(EventSource(2, name="cue"))
    net.add(EGRU(2, name="hidden", form="paper"))
    with pytest.raises(NetworkError, match="own events only; use port='input'"):
        net.connect("cue", "hidden", port="recurrent")


def test_several_sources_need_names():
    net = Network()
    net.add(EventSource(2, name="one"))
    net.add(EventSource(2, name="two"))
    with pytest.raises(StimulusError, match=r"\['one', 'two'\]"):
        Simulation(net).run(np.zeros((3, 1, 2)))


def test_no_parameter_moves_before_all_gradients_were_looked_at():
    for bad in (np.full(C, np.nan, "float32"), np.zeros(C + 1, "float32")):
        scene = Scene()
        before = {name: p.values.copy() for name, p in scene.net.parameters().items()}
        with pytest.raises(GradientError):
            scene.optimizer.step(scene.with_gradient("answer.bias", bad))
        for name, parameter in scene.net.parameters().items():
            np.testing.assert_array_equal(parameter.values, before[name])
        assert scene.optimizer.n_steps == 1


def test_errors_survive_being_sent_to_another_process():
    error = NetworkError("network", "dt is 0", "give ms")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is NetworkError
    assert (str(again), again.remedy) == ("network: dt is 0; give ms", "give ms")


def test_all_errors_have_one_base():
    for _, member in inspect.getmembers(evsim.errors, inspect.isclass):
        if issubclass(member, Exception):
            assert issubclass(member, EvsimError)


def test_a_linear_readout_has_no_time_constant_to_get_wrong():
    with pytest.raises(TypeError):
        LinearReadout(2, name="x", tau=1.0)


@pytest.mark.parametrize(
    ("ptr", "unit", "value", "word"),
    [
        ([0, 1], [0], [1.0], "pointers"),
        ([0, 2, 1], [0, 1], [1.0, 1.0], "pointers"),
        ([0, 1, 2], [0], [1.0], "pointers"),
        ([1, 1, 2], [0, 1], [1.0, 1.0], "pointers"),
        ([0, 1, 2], [0, 3], [1.0, 1.0], "unit 3"),
        ([0, 1, 2], [0, -1], [1.0, 1.0], "unit -1"),
        ([0, 1, 2], [0, 1], [1.0, 0.0], "value 0.0"),
        ([0, 2, 2], [1, 0], [1.0, 1.0], "event 1 of unit 0"),
        ([0, 2, 2], [1, 1], [1.0, 1.0], "event 1 of unit 1"),
    ],
)
def test_events_that_nobody_checked(ptr, unit, value, word):
    events = Events(3, 1, 2, np.array(ptr), np.array(unit, np.int32), np.array(value))
    with pytest.raises(StimulusError, match=word):
        events.check()


def test_events_in_order_pass_the_check():
    for ptr in ([0, 0, 0, 2], [0, 1, 1, 2], [0, 2, 2, 2], [0, 1, 2, 2]):
        units = np.array([0, 2] if 2 in np.diff(ptr) else [2, 0], np.int32)
        Events(3, 1, 3, np.array(ptr), units, np.array([1.0, -1.0])).check()
    Events.empty(3, 2, 4).check()
