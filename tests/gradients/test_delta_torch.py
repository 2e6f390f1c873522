"""With threshold 0, delta networks are the recurrent networks of PyTorch."""

import numpy as np
import pytest

from evsim.adjoint import Adjoint
from evsim.errors import ParameterError
from evsim.models import DeltaEncoder, DeltaGRU, DeltaLSTM, DeltaReadout, EventSource
from evsim.network import Network
from evsim.simulation import Simulation
from evsim.torch_weights import load_rnn, to_rnn
from gradients.cases import relative_error

pytestmark = pytest.mark.peer

T, B, K, H, C = 40, 3, 5, 8, 4
UNITS = {"gru": DeltaGRU, "lstm": DeltaLSTM}


def network(units, n_layers, threshold=0.0):
    """Lines, layers one above the other, and a linear readout of the h of the last."""
    net = Network(seed=2, dtype="float64")
    below = net.add(EventSource(K, "lines", threshold=threshold))
    for k in range(n_layers):
        layer = net.add(UNITS[units](H, f"layer{k}", threshold, lambda rng, shape: rng.normal(0, 0.3, shape)))
        net.connect(below, layer, name=f"ih{k}")
        net.connect(layer, layer, "orthogonal", name=f"hh{k}")
        below = layer
    exact = net.add(DeltaEncoder(below, "exact", threshold=0.0))
    net.connect(exact, net.add(DeltaReadout(C, "answer", bias=0.1)), name="out")
    return net


def as_torch(units, net, n_layers):
    """The same network in torch, and (its parameter, ours, which part of ours) for each parameter."""
    import torch  # here, because tests without peers collect this file too

    twin = (torch.nn.GRU if units == "gru" else torch.nn.LSTM)(K, H, n_layers).double()
    linear = torch.nn.Linear(H, C).double()
    ours = {name: p.values for name, p in net.parameters().items()}
    pairs = [(linear.weight, "out.weight", np.transpose), (linear.bias, "answer.bias", np.copy)]
    for k in range(n_layers):
        bias = f"layer{k}.bias"
        pairs.append((getattr(twin, f"weight_ih_l{k}"), f"ih{k}.weight", np.transpose))
        pairs.append((getattr(twin, f"weight_hh_l{k}"), f"hh{k}.weight", np.transpose))
        if units == "gru":  # r and z have one bias, which both of torch's see
            pairs.append((getattr(twin, f"bias_ih_l{k}"), bias, lambda b: b[: 3 * H]))
            hidden = lambda b: np.concatenate([b[: 2 * H], b[3 * H :]])  # noqa: E731
            pairs.append((getattr(twin, f"bias_hh_l{k}"), bias, hidden))
        else:
            pairs.append((getattr(twin, f"bias_ih_l{k}"), bias, np.copy))
            pairs.append((getattr(twin, f"bias_hh_l{k}"), bias, np.copy))
    with torch.no_grad():
        for parameter, name, part in pairs:
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(part(ours[name]))))
        for k in range(n_layers):
            shared = 2 * H if units == "gru" else 4 * H
            getattr(twin, f"bias_hh_l{k}")[:shared] = 0.0
    return twin, linear, pairs


@pytest.mark.parametrize("n_layers", [1, 3])
@pytest.mark.parametrize("units", UNITS)
def test_threshold_zero_equals_torch(units, n_layers):
    import torch

    net = network(units, n_layers)
    twin, linear, pairs = as_torch(units, net, n_layers)
    rng = np.random.default_rng(0)
    x = np.cumsum(rng.normal(0, 0.3, (T, B, K)), axis=0)
    top = f"layer{n_layers - 1}"
    losses = {"answer": rng.normal(size=(T, B, C)), top: rng.normal(size=(T, B, H))}

    simulation = Simulation(net)
    log = simulation.run(x)
    gradients = Adjoint(simulation.plan).replay(log, losses, inputs=True)

    line = torch.tensor(x, requires_grad=True)
    h, _ = twin(line)
    answer = linear(h)
    (
        (answer * torch.from_numpy(losses["answer"])).sum() + (h * torch.from_numpy(losses[top])).sum()
    ).backward()

    assert np.abs(log[top].state - h.detach().numpy()).max() < 1e-12
    assert np.abs(log["answer"].state - answer.detach().numpy()).max() < 1e-12
    assert relative_error(gradients.inputs["lines"], line.grad.numpy()) < 1e-10
    for parameter, name, part in pairs:
        assert relative_error(part(gradients[name]), parameter.grad.numpy()) < 1e-10, name


def trained(units, bias=True):
    """A torch module that has learned to smooth its input for a few steps, and new input."""
    import torch

    torch.manual_seed(0)
    module = (torch.nn.GRU if units == "gru" else torch.nn.LSTM)(K, H, 2, bias=bias).double()
    adam = torch.optim.Adam(module.parameters(), lr=0.01)
    x = torch.cumsum(0.1 * torch.randn(T, 16, K).double(), dim=0)
    target = torch.tanh(x.mean(dim=2, keepdim=True))
    for _ in range(30):
        adam.zero_grad()
        loss = ((module(x)[0][..., :1] - target) ** 2).mean()
        loss.backward()
        adam.step()
    return module, torch.cumsum(0.1 * torch.randn(T, B, K).double(), dim=0)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("units", UNITS)
def test_a_trained_module_runs_as_a_delta_network(units, bias):
    import torch

    module, x = trained(units, bias)
    layers = ["layer0", "layer1"]
    logs = []
    for threshold in (0.0, 0.05):
        net = network(units, 2, threshold)
        load_rnn(net, module.state_dict(), layers)
        logs.append(Simulation(net).run(x.numpy()))
    with torch.no_grad():
        expected = module(x)[0].numpy()
    exact, sparse = logs
    assert np.abs(exact["layer1"].state - expected).max() < 1e-12
    assert 0 < np.abs(sparse["layer1"].state - expected).max() < 0.1
    for name in ("lines", *layers):
        assert 0 < sparse[name].n_events < 0.9 * exact[name].n_events
    assert sum(sparse.counters["macs"].values()) < 0.8 * sum(exact.counters["macs"].values())

    again = (torch.nn.GRU if units == "gru" else torch.nn.LSTM)(K, H, 2).double()
    again.load_state_dict({name: torch.from_numpy(array) for name, array in to_rnn(net, layers).items()})
    with torch.no_grad():
        assert np.abs(again(x)[0].numpy() - expected).max() < 1e-14


def test_modules_of_other_kinds_are_refused():
    import torch

    net = network("lstm", 1)
    for module, word in (
        (torch.nn.LSTM(K, H, bidirectional=True), "bidirectional"),
        (torch.nn.LSTM(K, H, proj_size=2), "proj_size"),
        (torch.nn.LSTM(K, H, 2), "layer 1"),
        (torch.nn.GRU(K, H), r"torch\.nn\.GRU"),
        (torch.nn.RNN(K, H), r"\(8, 5\)"),
    ):
        with pytest.raises(ParameterError, match=word):
            load_rnn(net, module.state_dict(), ["layer0"])
    live = dict(torch.nn.LSTM(K, H).named_parameters())  # tensors that ask for their gradient
    with pytest.raises(ParameterError, match=r"state_dict\(\)"):
        load_rnn(net, live, ["layer0"])
