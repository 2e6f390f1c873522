"""Dense layers of PyTorch as a stack: against NumPy, cells written out step by step, and differences."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from evsim.dense_stack import DenseStack
from evsim.errors import GradientError, MissingExtraError, NetworkError, ParameterError, StimulusError
from evsim.optimizer import Adam

T, B, K = 6, 3, 4
SIZES = [5, 3, 4]
GATES = {"gru": 3, "lstm": 4}
kinds = pytest.mark.parametrize("kind", list(GATES))


def stack_of(kind, dtype="float64", sizes=SIZES, seed=7, **options):
    """A stack whose biases are not 0."""
    stack = DenseStack(kind, sizes, K, seed=seed, threads=1, dtype=dtype, **options)
    rng = np.random.default_rng(seed)
    for name, parameter in stack.parameters().items():
        if name.endswith("bias"):
            parameter.assign(rng.normal(0, 0.3, parameter.values.shape))
    return stack


def masks_of(kind, rng, n_lanes=B, sizes=SIZES):
    """Masks as training draws them: 0 or 1 / (1 - p)."""
    layers = [(rng.random((n_lanes, n)) < 0.7) / 0.7 for n in sizes[:-1]]
    recurrent = [(rng.random((n, GATES[kind] * n)) < 0.6) / 0.6 for n in sizes]
    return SimpleNamespace(layers=layers, recurrent=recurrent)


def no_masks(kind, sizes=SIZES):
    return SimpleNamespace(
        layers=[np.ones((1, n)) for n in sizes[:-1]],
        recurrent=[np.ones((n, GATES[kind] * n)) for n in sizes],
    )


def cells(kind, x, parameters, masks, states, np):
    """All layers, step by step; ``np`` is NumPy, or torch for its autograd.  Returns h and the new states."""

    def logistic(v):
        return 1 / (1 + np.exp(-v))

    end = []
    for k, state in enumerate(states):
        wi, wh, bi, bh = (
            parameters[f"layer{k + 1}.{part}"]
            for part in ("input.weight", "recurrent.weight", "input.bias", "recurrent.bias")
        )
        n = len(wh[0])
        wh = wh * masks.recurrent[k].T
        out = []
        for t in range(len(x)):
            h = state[0]
            p, q = x[t] @ wi.T + bi, h @ wh.T + bh
            gates = [(p[:, g * n : (g + 1) * n], q[:, g * n : (g + 1) * n]) for g in range(GATES[kind])]
            if kind == "gru":
                r, z = (logistic(a + b) for a, b in gates[:2])
                candidate = np.tanh(gates[2][0] + r * gates[2][1])
                state = ((1 - z) * candidate + z * h,)
            else:
                i, f, o = (logistic(gates[g][0] + gates[g][1]) for g in (0, 1, 3))
                c = f * state[1] + i * np.tanh(gates[2][0] + gates[2][1])
                state = (o * np.tanh(c), c)
            out.append(state[0])
        end.append(state)
        x = np.stack(out)
        if k < len(states) - 1:
            x = x * masks.layers[k]
    return x, end


def rest(kind, n_lanes=B, sizes=SIZES):
    return [(np.zeros((n_lanes, n)),) * (2 if kind == "lstm" else 1) for n in sizes]


def values_of(stack):
    return {name: p.values for name, p in stack.parameters().items()}


@pytest.mark.peer
@kinds
@pytest.mark.parametrize("masked", [False, True])
def test_forward_is_that_of_the_equations(kind, masked):
    pytest.importorskip("torch")
    stack, rng = stack_of(kind), np.random.default_rng(0)
    states = rest(kind)
    for _ in range(2):  # the second window goes on from the first
        masks = masks_of(kind, rng) if masked else None
        x = rng.normal(size=(T, B, K))
        expected, states = cells(kind, x, values_of(stack), masks or no_masks(kind), states, np)
        np.testing.assert_allclose(stack.forward(x, masks, carry=True), expected, rtol=0, atol=1e-13)
    for k, parts in enumerate(states, start=1):
        for name, part in zip("hc", parts, strict=False):
            np.testing.assert_allclose(stack.states()[f"layer{k}.{name}"], part, rtol=0, atol=1e-13)


@pytest.mark.peer
@kinds
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_are_those_of_cells_written_out(kind, masked):
    torch = pytest.importorskip("torch")
    stack, rng = stack_of(kind), np.random.default_rng(1)
    stack.forward(rng.normal(size=(2, B, K)))  # so that the window starts from states that are not 0
    masks = masks_of(kind, rng) if masked else no_masks(kind)
    states = [
        tuple(torch.tensor(stack.states()[f"layer{k}.{name}"]) for name in ("hc" if kind == "lstm" else "h"))
        for k in range(1, 4)
    ]
    x, dy = rng.normal(size=(T, B, K)), rng.normal(size=(T, B, SIZES[-1]))
    leaves = {name: torch.tensor(v, requires_grad=True) for name, v in values_of(stack).items()}
    line = torch.tensor(x, requires_grad=True)
    tensors = SimpleNamespace(
        layers=[torch.tensor(m) for m in masks.layers], recurrent=[torch.tensor(m) for m in masks.recurrent]
    )
    y, _ = cells(kind, line, leaves, tensors, states, torch)
    expected = torch.autograd.grad(y, [line, *leaves.values()], torch.tensor(dy))

    stack.forward(x, masks if masked else None, carry=True)
    dx, gradients = stack.backward(dy)
    np.testing.assert_allclose(dx, expected[0].numpy(), rtol=0, atol=1e-12)
    assert list(gradients) == list(stack.parameters())
    for name, found in zip(leaves, expected[1:], strict=True):
        np.testing.assert_allclose(gradients[name], found.numpy(), rtol=0, atol=1e-12)
    if masked:
        zero = masks.recurrent[0].T == 0
        assert zero.any()
        assert not gradients["layer1.recurrent.weight"][zero].any()


@pytest.mark.peer
@kinds
def test_gradients_are_those_of_finite_differences(kind):
    pytest.importorskip("torch")
    stack, rng = stack_of(kind), np.random.default_rng(2)
    masks, x = masks_of(kind, rng), rng.normal(size=(T, B, K))
    dy = rng.normal(size=(T, B, SIZES[-1]))
    stack.forward(x, masks)
    dx, gradients = stack.backward(dy)

    def loss(x):
        return float(np.sum(dy * stack.forward(x, masks)))

    def slope(change, undo):
        change()
        above = loss(x)
        undo()
        undo()
        below = loss(x)
        change()
        return (above - below) / 2e-6

    for name, parameter in stack.parameters().items():
        way = rng.normal(size=parameter.values.shape) * 1e-6

        def change(values=parameter.values, way=way):
            values += way

        def undo(values=parameter.values, way=way):
            values -= way

        expected = np.sum(gradients[name] * way) / 1e-6
        assert abs(slope(change, undo) - expected) < 1e-6 * max(1, abs(expected)), name
    way = rng.normal(size=x.shape) * 1e-6
    assert abs((loss(x + way) - loss(x - way)) / 2e-6 - np.sum(dx * way) / 1e-6) < 1e-6


@pytest.mark.peer
@kinds
def test_all_layers_are_read_as_the_sum_of_stacks_of_the_lower_ones(kind):
    """A state of a layer does not depend on the layers above it; of wider ones the first units are read."""
    pytest.importorskip("torch")
    sizes, rng = [6, 4, 4], np.random.default_rng(5)
    stack = stack_of(kind, sizes=sizes, all_layers=True)
    masks, x = masks_of(kind, rng, sizes=sizes), rng.normal(size=(T, B, K))
    dy = rng.normal(size=(T, B, 4))
    y, (dx, gradients) = stack.forward(x, masks), stack.backward(dy)
    sums = {"y": 0, "dx": 0} | dict.fromkeys(gradients, 0)
    for n in (1, 2, 3):
        lower = stack_of(kind, sizes=sizes[:n])
        for name, parameter in lower.parameters().items():
            parameter.assign(stack.parameters()[name].values)
        left = SimpleNamespace(layers=masks.layers[: n - 1], recurrent=masks.recurrent[:n])
        sums["y"] += lower.forward(x, left)[..., :4]
        more, of_weights = lower.backward(np.pad(dy, ((0, 0), (0, 0), (0, sizes[n - 1] - 4))))
        for name, gradient in (of_weights | {"dx": more}).items():
            sums[name] = sums[name] + gradient
    for name, found in (gradients | {"y": y, "dx": dx}).items():
        np.testing.assert_allclose(found, sums[name], rtol=0, atol=1e-13, err_msg=name)
    np.testing.assert_array_equal(stack_of(kind, sizes=sizes, all_layers=True).read(x), stack.read(x))


@pytest.mark.peer
@kinds
def test_windows_are_one_long_run(kind):
    pytest.importorskip("torch")
    stack, rng = stack_of(kind), np.random.default_rng(3)
    x = rng.normal(size=(12, B, K))
    whole = stack.read(x)
    stack.reset()
    parts = [stack.read(x[:5], carry=True), stack.forward(x[5:6], carry=True), stack.read(x[6:], carry=True)]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=0, atol=1e-14)
    again = stack.read(x)  # without carry, from zeros
    np.testing.assert_array_equal(again, whole)


@pytest.mark.peer
@kinds
def test_states_can_be_put_aside(kind):
    pytest.importorskip("torch")
    stack, rng = stack_of(kind, "float32"), np.random.default_rng(4)
    first, second = rng.normal(size=(2, T, B, K))
    stack.forward(first)
    kept = stack.states()
    expected = stack.forward(second, carry=True)
    stack.reset()
    assert stack.states() == {}
    assert stack.n_lanes == 0
    stack.read(rng.normal(size=(2, B + 2, K)))
    stack.restore(kept)
    assert stack.n_lanes == B
    np.testing.assert_array_equal(stack.forward(second, carry=True), expected)
    stack.restore({})
    np.testing.assert_array_equal(stack.read(first, carry=True), stack.read(first))


@pytest.mark.peer
@kinds
def test_equal_stacks_give_equal_bits(kind):
    pytest.importorskip("torch")
    rng, found = np.random.default_rng(5), []
    x, dy = rng.normal(size=(9, 8, K)), rng.normal(size=(9, 8, 33))
    sizes = [40, 33]
    masks = masks_of(kind, rng, 8, sizes)
    for offset in (0, 1, 3):  # memory that begins anywhere
        stack = stack_of(kind, "float32", sizes)
        room = np.empty(x.size + 4, np.float32)[offset : offset + x.size].reshape(x.shape)
        room[...] = x
        found.append([stack.forward(room, masks), *(p for p in stack.backward(dy)[1].values())])
    for other in found[1:]:
        for mine, first in zip(other, found[0], strict=True):
            np.testing.assert_array_equal(mine, first)


@pytest.mark.peer
@kinds
def test_what_callers_write_into_does_not_matter(kind):
    pytest.importorskip("torch")
    stack, rng = stack_of(kind), np.random.default_rng(6)
    x, dy = rng.normal(size=(T, B, K)), rng.normal(size=(T, B, SIZES[-1]))
    masks = masks_of(kind, rng)
    stack.forward(x, masks)
    expected = stack.backward(dy)
    room = x.copy()
    y = stack.forward(room, masks)
    y[...] = room[...] = np.nan
    for mask in (*masks.layers, *masks.recurrent):
        mask[...] = np.nan
    stack.read(rng.normal(size=(2, B, K)), carry=True)
    found = stack.backward(dy)
    np.testing.assert_array_equal(found[0], expected[0])
    for name, gradient in found[1].items():
        np.testing.assert_array_equal(gradient, expected[1][name])
    x.setflags(write=False)
    stack.read(x)


@pytest.mark.peer
@kinds
def test_our_optimiser_trains_it(kind):
    torch = pytest.importorskip("torch")
    stack, rng = stack_of(kind, "float32"), np.random.default_rng(7)
    x, target = rng.normal(size=(T, B, K)), rng.uniform(-0.5, 0.5, (T, B, SIZES[-1]))
    adam = Adam(stack.parameters(), lr=0.03, weight_decay=1e-6)
    before, threads = {name: v.copy() for name, v in values_of(stack).items()}, torch.get_num_threads()
    losses = []
    for _ in range(150):
        error = stack.forward(x) - target
        losses.append(float(np.mean(error**2)))
        adam.step(stack.backward(error)[1])
    assert losses[-1] < 0.2 * losses[0]
    assert all((before[name] != v).any() for name, v in values_of(stack).items())
    assert torch.get_num_threads() == threads


@pytest.mark.peer
@kinds
def test_initial_weights(kind):
    pytest.importorskip("torch")
    stack = DenseStack(kind, [60, 50], 70, seed=1)
    values = values_of(stack)
    assert list(values)[:5] == [
        *(f"layer1.{port}.{what}" for what in ("weight", "bias") for port in ("input", "recurrent")),
        "layer2.input.weight",
    ]
    for g in range(GATES[kind]):
        gate = values["layer1.recurrent.weight"][60 * g : 60 * (g + 1)]
        np.testing.assert_allclose(gate @ gate.T, np.eye(60), atol=1e-5)
        spread = values["layer1.input.weight"][60 * g : 60 * (g + 1)].std()
        assert abs(spread / np.sqrt(2 / (60 + 70)) - 1) < 0.1
    bias = np.zeros(GATES[kind] * 60)
    if kind == "lstm":
        bias[60:120] = 1
    np.testing.assert_array_equal(values["layer1.input.bias"], bias)
    assert not values["layer1.recurrent.bias"].any()
    other = values_of(DenseStack(kind, [60, 50], 70, seed=2))
    assert (other["layer2.input.weight"] != values["layer2.input.weight"]).any()
    assert stack.n_units == 50
    assert stack.n_layers == 2
    matrices = sum(v.size for name, v in values.items() if name.endswith("weight"))
    assert stack.macs_per_token() == matrices == GATES[kind] * (60 * 130 + 50 * 110)


BAD_STACKS = {
    "kind": ({"kind": "rnn"}, "'rnn'"),
    "no units": ({"sizes": [3, 0]}, "0 units"),
    "no layers": ({"sizes": []}, "no layers"),
    "inputs": ({"n_inputs": 2.5}, "2.5 units"),
    "seed": ({"seed": -1}, "seed is -1"),
    "dtype": ({"dtype": "float16"}, "'float16'"),
}


@pytest.mark.parametrize("case", list(BAD_STACKS))
def test_stacks_that_cannot_be(case):
    options, words = BAD_STACKS[case]
    with pytest.raises(NetworkError, match=words):
        DenseStack(**({"kind": "gru", "sizes": [3], "n_inputs": 2} | options))


def test_without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r'pip install "evsim\[torch\]"'):
        DenseStack("gru", [3], 2)


@pytest.mark.peer
def test_bad_windows():
    pytest.importorskip("torch")
    stack, x = stack_of("gru"), np.zeros((T, B, K))
    with pytest.raises(GradientError, match="no window"):
        stack.backward(np.zeros((T, B, 4)))
    with pytest.raises(StimulusError, match=r"\(6, 3, 5\).*\(steps, lanes, 4\)"):
        stack.forward(np.zeros((T, B, 5)))
    with pytest.raises(StimulusError, match="not finite"):
        stack.read(np.full((T, B, K), np.nan))
    stack.forward(x)
    with pytest.raises(StimulusError, match=r"2 lanes, the carried state has 3"):
        stack.forward(x[:, :2], carry=True)
    with pytest.raises(GradientError, match=r"\(6, 3, 3\)"):
        stack.backward(np.zeros((T, B, 3)))
    stack.backward(np.zeros((T, B, 4)))
    with pytest.raises(GradientError, match="no window"):
        stack.backward(np.zeros((T, B, 4)))
    masks = masks_of("gru", np.random.default_rng(0))
    with pytest.raises(ParameterError, match=r"masks.layers has 1 entries|masks.layers: has 1 entries"):
        stack.forward(x, SimpleNamespace(layers=masks.layers[:1], recurrent=None))
    masks.recurrent[1] = masks.recurrent[1].T
    with pytest.raises(ParameterError, match=r"masks.recurrent\[1\]: has shape \(9, 3\); give \(3, 9\)"):
        stack.forward(x, masks)
    with pytest.raises(StimulusError, match="states"):
        stack.restore({"layer1.h": np.zeros((B, 5))})
    one = masks_of("gru", np.random.default_rng(0))  # single masks may be off
    one.recurrent[0] = one.layers[1] = None
    assert np.isfinite(stack.forward(x, one)).all()
