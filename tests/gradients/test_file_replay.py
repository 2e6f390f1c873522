"""A replay of a log on disk, window by window, gives the gradients of one in memory."""

import numpy as np
import pytest

from evsim.adjoint import Adjoint
from evsim.errors import GradientError, LogError
from evsim.log_file import LogFile
from evsim.log_writer import LogWriter
from evsim.models import EGRU, LIF, DeltaGRU, DeltaReadout, EventSource, LeakyReadout
from evsim.network import Network
from evsim.simulation import Simulation

STEPS, LANES = 60, 3
rng = np.random.default_rng(3)


def make_network(kind, dtype="float64"):
    net = Network(dt=1.0, seed=1, dtype=dtype)
    cue = net.add(EventSource(5, name="cue"))
    if kind == "egru":
        first = net.add(EGRU(7, threshold=0.1, name="first"))
        hidden = net.add(EGRU(6, threshold=0.05, form="paper", name="hidden"))
        answer = net.add(LeakyReadout(3, tau=5.0, name="answer"))
    elif kind == "lif":
        first = net.add(LIF(7, "first", threshold=0.3, bias=0.2, tau_m=4.0))
        hidden = net.add(LIF(6, "hidden", threshold=0.3, bias=0.1, tau_m=4.0, reset=-0.1, refractory=2.0))
        answer = net.add(LeakyReadout(3, tau=5.0, name="answer"))
    else:
        first = net.add(DeltaGRU(7, threshold=0.05, name="first"))
        hidden = net.add(DeltaGRU(6, threshold=0.1, name="hidden"))
        answer = net.add(DeltaReadout(3, name="answer"))
    net.connect(cue, first, weight="glorot", delay=3.0)
    net.connect(first, first, weight="orthogonal", delay=1.0)
    net.connect(first, hidden, weight="glorot", delay=4.0)
    net.connect(hidden, hidden, weight="orthogonal", delay=2.0)
    net.connect(hidden, answer, weight="glorot")
    return net


def recorded(sim, path, stimulus, cuts, **options):
    """The log of a run in one piece, and a file of the same in windows."""
    whole = sim.run(stimulus, lengths=None)
    sim.reset()
    with LogWriter(path, **options) as writer:
        for start, stop in zip([0, *cuts], [*cuts, len(stimulus)], strict=True):
            writer.append(sim.run(stimulus[start:stop], carry=True, tape=False))
    return whole


def close(found, expected):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = np.abs(gradient).max()
        np.testing.assert_allclose(found[name], gradient, atol=1e-12 * max(scale, 1e-300), err_msg=name)


@pytest.mark.parametrize("kind", ["egru", "lif", "delta"])
@pytest.mark.parametrize("cuts", [(20, 40), (1, 2, 9, 30, 31, 59), ()])
def test_window_by_window(kind, cuts, tmp_path, monkeypatch):
    monkeypatch.setattr("evsim.recorded.PIECE_BYTES", 1)  # pieces as short as the longest delay allows
    sim = Simulation(make_network(kind))
    stimulus = rng.normal(size=(STEPS, LANES, 5)) * (rng.random((STEPS, LANES, 5)) < 0.3)
    whole = recorded(sim, tmp_path / "run.h5", stimulus, cuts, checkpoints=True)
    assert whole["hidden"].n_events > 50
    losses = {"answer": rng.normal(size=(STEPS, LANES, 3)), "first.y": rng.normal(size=(STEPS, LANES, 7))}
    options = {"inputs": True, "initial": True, "events": True}
    expected = Adjoint(sim.plan).replay(whole, losses, **options)
    with LogFile(tmp_path / "run.h5") as file:
        assert file.checkpoints.tolist() == [0, *cuts]
        asked = []

        def of_window(window):
            asked.append((window.start_step, window.n_steps))
            steps = slice(window.start_step, window.start_step + window.n_steps)
            return {name: loss[steps] for name, loss in losses.items()}

        for given in (losses, of_window):
            found = Adjoint(sim.plan).replay(file, given, **options)
            close(found.parameters, expected.parameters)
            close(found.inputs, expected.inputs)
            for name, states in expected.initial.items():
                close(found.initial[name], states)
            for name, sent in expected.events.items():
                close(found.events[name], sent)
    # every step is asked for once, from the last to the first
    assert [start + n for start, n in asked[1:]] == [start for start, _ in asked[:-1]]
    assert (asked[-1][0], sum(n for _, n in asked)) == (0, STEPS)
    if len(cuts) == 2:
        assert len(asked) == 3


def test_what_cannot_be_replayed(tmp_path):
    sim = Simulation(make_network("egru"))
    stimulus = rng.normal(size=(STEPS, LANES, 5)) * (rng.random((STEPS, LANES, 5)) < 0.3)
    recorded(sim, tmp_path / "run.h5", stimulus, (30,), checkpoints=True)
    adjoint, good = Adjoint(sim.plan), np.ones((STEPS, LANES, 3))
    with LogFile(tmp_path / "run.h5") as file:
        with pytest.raises(GradientError, match=r"loss 'answer': has 59 steps; give 60, or a function"):
            adjoint.replay(file, {"answer": good[1:]})
        with pytest.raises(GradientError, match="none given"):
            adjoint.replay(file, lambda window: {})
        with pytest.raises(GradientError, match=r"its populations are not those of the plan"):
            Adjoint(Simulation(make_network("delta")).plan).replay(file, {"answer": good})
        sim.plan.parameters["first->hidden.weight"][:] *= 2
        with pytest.raises(GradientError, match="its events do not follow from the present parameters"):
            adjoint.replay(file, {"answer": good})


def test_gradients_beside_the_events_on_disk(tmp_path, monkeypatch):
    sim = Simulation(make_network("egru"))
    stimulus = rng.normal(size=(STEPS, LANES, 5)) * (rng.random((STEPS, LANES, 5)) < 0.3)
    whole = recorded(sim, tmp_path / "run.h5", stimulus, (20, 40), checkpoints=True)
    losses = {"answer": rng.normal(size=(STEPS, LANES, 3))}
    adjoint = Adjoint(sim.plan)
    marked = adjoint.replay(whole, losses, events=True).mark(whole)
    with LogFile(tmp_path / "run.h5") as file:
        before = file["hidden"]
        adjoint.replay(file, losses, events=True).mark(file)
        assert file.complete
        np.testing.assert_array_equal(before.table().gradient, marked["hidden"].gradient)
        assert file["hidden"].columns == ("time", "lane", "unit", "value", "gradient")
        assert file.check() == []
        for name in ("cue", "first", "hidden"):
            table = file[name].table()
            np.testing.assert_array_equal(table.gradient, marked[name].gradient)
            np.testing.assert_array_equal(file.window()[name].gradient, marked[name].gradient)
        with pytest.raises(LogError, match="'cue' has a gradient already"):
            file.write_gradients({"cue": {"value": marked["cue"].gradient}})
    assert LogFile(tmp_path / "run.h5").check() == []


def test_gradients_need_a_complete_file_of_these_events(tmp_path):
    sim = Simulation(make_network("egru"))
    stimulus = rng.normal(size=(STEPS, LANES, 5)) * (rng.random((STEPS, LANES, 5)) < 0.3)
    with LogWriter(tmp_path / "run.h5") as writer:
        writer.append(sim.run(stimulus))
        writer.flush()
        with LogFile(tmp_path / "run.h5") as file, pytest.raises(LogError, match="still being written"):
            file.write_gradients({"cue": {"value": np.zeros(3)}})
    with LogFile(tmp_path / "run.h5") as file, pytest.raises(LogError, match=r"has \d+ events, not 3"):
        file.write_gradients({"cue": {"value": np.zeros(3)}})
