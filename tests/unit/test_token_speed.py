"""Time per token: the arithmetic with clocks that are told what to show; what is measured, and refused."""

import json
import sys

import numpy as np
import pytest

from evsim import token_speed
from evsim.errors import NetworkError, ParameterError, StimulusError
from evsim.models import EGRU, EventSource, LeakyReadout
from evsim.network import Network
from evsim.random_stack import random_stack
from evsim.simulation import Simulation
from evsim.sparsity import sparsified
from evsim.token_speed import describe, measure, race

UNITS, WORDS, STEPS = 12, 30, 40


class Clock:
    """Shows the time it was moved to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_race_times_every_second_call_and_takes_turns():
    clock, calls = Clock(), []

    def contestant(name, seconds):
        def go(start, stop):
            calls.append((name, start, stop))
            clock.now += seconds[len([c for c in calls if c[0] == name]) - 1]

        return go

    # warm-up, counted, warm-up, counted, ...
    a, b = [9.0, 0.010, 9.0, 0.030, 9.0, 0.020], [7.0, 0.1, 7.0, 0.1, 7.0, 0.4]
    found = race({"a": contestant("a", a), "b": contestant("b", b)}, 34, 10, 3, clock)
    np.testing.assert_allclose(found["a"]["rounds"], [1000, 3000, 2000])
    np.testing.assert_allclose(found["b"]["rounds"], [10_000, 10_000, 40_000])
    for name, expected in (("a", (2000, 1000, 3000)), ("b", (10_000, 10_000, 40_000))):
        row = found[name]
        np.testing.assert_allclose([row["median"], row["lowest"], row["highest"]], expected)
    assert [name for name, *_ in calls] == list("aabb" + "bbaa" + "aabb")
    # The windows of 34 steps are three; both read the same ones.
    assert [c[1:] for c in calls if c[0] == "a"] == [c[1:] for c in calls if c[0] == "b"]
    assert [c[1] for c in calls if c[0] == "a"] == [0, 10, 10, 20, 20, 0]
    assert all(stop - start == 10 for _, start, stop in calls)


def small(sparsity=0.5, n_steps=STEPS):
    return random_stack(UNITS, 2, activity=0.2, sparsity=sparsity, n_words=WORDS, n_steps=n_steps)


def test_describe_counts_what_a_run_did():
    stack = small()
    text = stack.vectors[stack.text]
    about = describe(sparsified(stack.network, least=0.4), text)
    log = Simulation(stack.network).run(text)
    y = {name: log[name].events.to_dense()[:, 0] for name in ("layer1", "layer2")}
    assert about["activity"] == pytest.approx({name: np.mean(v != 0) for name, v in y.items()})
    kept = {name: np.count_nonzero(p.to_dense(), axis=1) for name, p in stack.network.projections.items()}
    before = {"layer1->layer1": "layer1", "layer2->layer2": "layer2"}
    for name, row in about["projections"].items():
        assert row["stored"] == "sparse"
        assert row["places"] == row["dense_macs_per_token"] == 3 * UNITS**2
        assert row["nonzeros"] == kept[name].sum()
        assert row["density"] == pytest.approx(0.5)
        if name == "words->layer1":
            sent = np.ones((STEPS, UNITS))
        elif name in before:  # events arrive a step later
            sent = np.vstack([np.zeros(UNITS), y[before[name]][:-1]])
        else:
            sent = y["layer1"]
        assert row["macs_per_token"] == pytest.approx(np.sum((sent != 0) @ kept[name]) / STEPS)
    assert about["macs_per_token"] == pytest.approx(
        sum(row["macs_per_token"] for row in about["projections"].values())
    )
    dense = describe(stack.network, text)
    assert {row["stored"] for row in dense["projections"].values()} == {"float32"}
    assert dense["activity"] == about["activity"]


def test_measure_without_peers():
    stack = small()
    networks = {"dense": stack.network, "ids": stack.by_token()}
    inputs = {"dense": stack.vectors[stack.text], "ids": stack.text}
    found = measure(networks, inputs, kinds=(), tokens=10, rounds=3)
    assert json.loads(json.dumps(found)) == found
    assert (found["lanes"], found["threads"], found["tokens"], found["rounds"]) == (1, 1, 10, 3)
    assert found["sizes"] == [UNITS, UNITS]
    assert list(found["times"]) == ["dense, run", "dense, step", "ids, run", "ids, step"]
    for row in found["times"].values():
        assert len(row["rounds"]) == 3
        assert 0 < row["lowest"] <= row["median"] <= row["highest"]
        assert row["ratios"] == {}
    assert found["left_out"] == []
    assert "torch" not in found["machine"]


@pytest.mark.peer
@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_measure_beside_torch(kind):
    torch = pytest.importorskip("torch")
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    stack = small()
    formats = ("float32", "int8", "bfloat16")
    found = measure(
        stack.by_token(),
        stack.text,
        [8, 6],
        [kind],
        peer_inputs=stack.vectors[stack.text],
        formats=formats,
        tokens=10,
        rounds=3,
    )
    assert json.loads(json.dumps(found)) == found
    forms = [f"torch {kind.upper()} {form}" for form in formats]
    if not found["left_out"]:
        assert list(found["times"])[2:] == [f"{form}, {mode}" for form in forms for mode in ("run", "step")]
    for mode in ("run", "step"):
        ours = found["times"][f"evsim, {mode}"]
        assert ours["ratios"].keys() == {
            name for name in found["times"] if name.startswith("torch") and name.endswith(mode)
        }
        for name, ratio in ours["ratios"].items():
            each = np.array(found["times"][name]["rounds"]) / ours["rounds"]
            expected = {"median": np.median(each), "lowest": each.min(), "highest": each.max()}
            assert ratio == pytest.approx(expected)
    n_gates = {"gru": 3, "lstm": 4}[kind]
    assert found["dense_macs_per_token"] == {kind: n_gates * (8 * (UNITS + 8) + 6 * (8 + 6))}
    assert found["machine"]["torch"] == torch.__version__
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.peer
@pytest.mark.parametrize("mode", ["run", "step"])
def test_dense_contestants_carry_their_states(mode):
    torch = pytest.importorskip("torch")
    text = torch.randn(12, 1, 5)
    layers = torch.nn.ModuleList([torch.nn.GRU(5, 4), torch.nn.GRU(4, 3)])
    seen = []
    layers[1].register_forward_hook(lambda layer, given, out: seen.append(out[0].detach()))
    go = token_speed._dense(torch, layers, text, mode)
    go(1, 7)
    go(7, 12)
    whole, _ = layers[1](layers[0](text)[0])
    torch.testing.assert_close(torch.cat(seen[:-1]), whole)


def test_without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    stack = small()
    found = measure(stack.network, stack.vectors[stack.text], tokens=10, rounds=2)
    assert list(found["times"]) == ["evsim, run", "evsim, step"]
    assert len(found["left_out"]) == 1
    assert 'pip install "evsim[torch]"' in found["left_out"][0]


@pytest.mark.peer
def test_a_torch_without_quantization(monkeypatch):
    torch = pytest.importorskip("torch")

    def refuse(*arguments, **options):
        raise AttributeError("no such thing\nhere")

    monkeypatch.setattr(torch.ao.quantization, "quantize_dynamic", refuse)
    stack = small()
    found = measure(stack.network, stack.vectors[stack.text], tokens=10, rounds=1)
    assert list(found["times"])[2:] == ["torch GRU float32, run", "torch GRU float32, step"]
    version = torch.__version__
    assert found["left_out"] == [f"torch GRU int8: PyTorch {version} cannot do it (no such thing here)"]


def two_sources():
    net = Network()
    hidden = net.add(EGRU(3, "hidden"))
    for name in ("a", "b"):
        net.connect(net.add(EventSource(2, name)), hidden)
    return net


def continuous():
    net = Network(dt=None)
    net.connect(net.add(EventSource(2, "a")), net.add(EGRU(3, "hidden")))
    return net


BAD = {
    "two sources": (lambda: measure(two_sources(), np.zeros((9, 2))), NetworkError, r"sources \['a', 'b'\]"),
    "continuous": (lambda: measure(continuous(), np.zeros((9, 2))), NetworkError, "continuous time"),
    "nothing": (lambda: measure({}, np.zeros((9, 2))), NetworkError, "no network"),
    "lanes": (lambda: asked(np.zeros((9, 2, 3))), StimulusError, r"\(9, 2, 3\)"),
    "short": (lambda: asked(tokens=STEPS + 1), StimulusError, f"have {STEPS} steps"),
    "tokens": (lambda: asked(tokens=0), ParameterError, "tokens is 0"),
    "rounds": (lambda: asked(rounds=1.5), ParameterError, "rounds is 1.5"),
    "kind": (lambda: asked(kinds=["rnn"]), ParameterError, "'rnn'"),
    "format": (lambda: asked(formats=["int4"]), ParameterError, "'int4'"),
    "peer inputs": (lambda: asked(np.zeros(STEPS, int)), StimulusError, "vectors of the tokens"),
    "peer shape": (lambda: asked(peer_inputs=np.zeros(STEPS)), StimulusError, r"\(40,\)"),
}


def asked(inputs=None, **options):
    stack = small()
    inputs = stack.vectors[stack.text] if inputs is None else inputs
    return measure(stack.network, inputs, **({"tokens": 5, "rounds": 1} | options))


@pytest.mark.parametrize("case", list(BAD))
def test_what_cannot_be_measured(case):
    call, error, words = BAD[case]
    with pytest.raises(error, match=words):
        call()


# -- random layers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("activity", "sparsity"), [(0.1, 0.0), (0.15, 0.8), (0.3, 0.9)])
def test_random_layers_are_as_asked(activity, sparsity):
    stack = random_stack(100, 2, activity, sparsity, n_words=500, n_steps=2000, seed=3)
    assert list(stack.network.projections) == [
        "words->layer1",
        "layer1->layer1",
        "layer1->layer2",
        "layer2->layer2",
    ]
    log = Simulation(stack.network).run(stack.vectors[stack.text], tape=False)
    for name in ("layer1", "layer2"):
        assert abs(log[name].activity - activity) < 0.25 * activity
    for p in stack.network.projections.values():
        assert np.mean(p.to_dense() == 0) == pytest.approx(sparsity, abs=1e-4)
    orthogonal = np.linalg.norm(stack.network.projections["layer1->layer1"].to_dense())
    assert orthogonal == pytest.approx(np.sqrt(3 * 100), rel=1e-4)
    counts = np.bincount(stack.text, minlength=500)
    assert abs(counts[0] / counts[3] / 4 - 1) < 0.35
    assert (stack.text != random_stack(9, n_words=500, n_steps=2000, seed=4).text).any()


def test_tokens_are_looked_up_instead_of_vectors():
    stack = small()
    every = np.arange(WORDS)[None]  # each word in a lane of its own, one step
    vectors = Simulation(stack.network).run(stack.vectors[every])
    ids = Simulation(stack.by_token()).run(every)
    for name in ("layer1", "layer2"):
        found, expected = (log[name].events.to_dense() for log in (ids, vectors))
        assert expected.any()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        states = [log[name].tape[:, :, log[name].tape_fields.index("a")] for log in (ids, vectors)]
        np.testing.assert_allclose(states[0], states[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"units": 0}, "units is 0"),
        ({"layers": 1.5}, "layers is 1.5"),
        ({"activity": 0.0}, "activity is 0.0"),
        ({"activity": 1.0}, "activity is 1.0"),
        ({"sparsity": -0.1}, "sparsity is -0.1"),
        ({"n_words": True}, "n_words is True"),
    ],
)
def test_random_layers_that_cannot_be(options, words):
    with pytest.raises(ParameterError, match=words):
        random_stack(**({"units": 5} | options))


def test_readouts_are_no_layers():
    stack = small()
    net = stack.network
    net.connect(net["layer2"], net.add(LeakyReadout(3, "answer", tau=10.0)))
    found = measure(net, stack.vectors[stack.text], kinds=(), tokens=5, rounds=1)
    assert found["sizes"] == [UNITS, UNITS]
    assert list(found["networks"]["evsim"]["activity"]) == ["layer1", "layer2"]
