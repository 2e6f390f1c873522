"""Weights by the names of PyTorch, without PyTorch (with it: tests/gradients/test_delta_torch.py)."""

import numpy as np
import pytest

from evsim.errors import NetworkError, ParameterError
from evsim.models import EGRU, DeltaEncoder, DeltaGRU, DeltaLSTM, DeltaReadout, EventSource
from evsim.network import Network
from evsim.torch_weights import load_rnn, to_rnn

K, H = 3, 4
UNITS = {"gru": DeltaGRU, "lstm": DeltaLSTM}
GATES = {"gru": 3, "lstm": 4}
LAYERS = ["first", "second"]

all_units = pytest.mark.parametrize("units", UNITS)


def network(units, dtype="float64", **options):
    net = Network(seed=1, dtype=dtype)
    below = net.add(EventSource(K, "lines", threshold=0.0))
    for name in LAYERS:
        layer = net.add(UNITS[units](H, name, bias=7.0))
        net.connect(below, layer, **options)
        net.connect(layer, layer)
        below = layer
    return net


def state(units, bias=True, prefix="", seed=0):
    rng = np.random.default_rng(seed)
    rows = GATES[units] * H
    made = {}
    for k, n_in in enumerate((K, H)):
        shapes = {"weight_ih": (rows, n_in), "weight_hh": (rows, H)}
        shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)} if bias else {}
        made |= {f"{prefix}{name}_l{k}": rng.normal(size=shape) for name, shape in shapes.items()}
    return made


def values(net):
    return {name: p.values.copy() for name, p in net.parameters().items()}


@all_units
@pytest.mark.parametrize("prefix", ["", "model.rnn."])
def test_weights_are_transposed_and_biases_go_to_their_blocks(units, prefix):
    net, given = network(units), state(units, prefix=prefix)
    load_rnn(net, given | {"fc.weight": np.zeros((2, H))}, LAYERS, prefix)
    got = values(net)
    for k, (below, name) in enumerate((("lines", "first"), ("first", "second"))):
        np.testing.assert_array_equal(got[f"{below}->{name}.weight"], given[f"{prefix}weight_ih_l{k}"].T)
        np.testing.assert_array_equal(got[f"{name}->{name}.weight"], given[f"{prefix}weight_hh_l{k}"].T)
        ih, hh = given[f"{prefix}bias_ih_l{k}"], given[f"{prefix}bias_hh_l{k}"]
        blocks = [*np.split(ih + hh, GATES[units])]
        if units == "gru":
            blocks[2:] = ih[2 * H :], hh[2 * H :]
        np.testing.assert_array_equal(got[f"{name}.bias"], np.concatenate(blocks))
        np.testing.assert_array_equal(got[f"{name}.threshold"], 0.1)


@all_units
def test_a_module_without_biases_sets_them_to_zero(units):
    net = network(units)
    load_rnn(net, state(units, bias=False), LAYERS)
    assert not any(net.parameters()[f"{name}.bias"].values.any() for name in LAYERS)


@all_units
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_there_and_back(units, dtype):
    net, other = network(units, dtype), network(units, dtype)
    load_rnn(net, state(units), LAYERS)
    arrays = to_rnn(net, LAYERS, prefix="rnn.")
    assert {key: a.shape for key, a in arrays.items()} == {
        key: a.shape for key, a in state(units, prefix="rnn.").items()
    }
    assert all(a.dtype == dtype and a.flags.c_contiguous for a in arrays.values())
    load_rnn(other, arrays, LAYERS, prefix="rnn.")
    for name, expected in values(net).items():
        np.testing.assert_array_equal(values(other)[name], expected)
    arrays["rnn.bias_ih_l0"][:] = 9.0  # copies
    assert not (net.parameters()["first.bias"].values == 9.0).any()


def test_one_layer_may_be_named_alone_and_lists_are_arrays():
    net, given = network("gru"), state("gru")
    load_rnn(net, {key: array.tolist() for key, array in given.items() if key.endswith("l0")}, "first")
    np.testing.assert_array_equal(values(net)["lines->first.weight"], given["weight_ih_l0"].T)
    assert set(to_rnn(net, "first")) == {key for key in given if key.endswith("l0")}


def test_recurrence_may_go_through_an_encoder():
    net = Network()
    net.add(EventSource(K, "lines", threshold=0.0))
    net.add(DeltaGRU(H, "first"))
    net.add(DeltaEncoder(net["first"], "again"))
    net.connect("lines", "first")
    net.connect("again", "first")
    load_rnn(net, {key: array for key, array in state("gru").items() if key.endswith("l0")}, ["first"])
    assert np.abs(net.projections["again->first"].weight.values - state("gru")["weight_hh_l0"].T).max() < 1e-6


class Unreadable:
    """As a tensor that is on a GPU, or asks for its gradient."""

    def __array__(self, *args, **options):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.\nUse detach()")


def without(*keys, units="gru"):
    return {key: array for key, array in state(units).items() if key not in keys}


def with_(units="gru", **changes):
    return state(units) | changes


BAD = {
    "a matrix is missing": ("gru", without("weight_hh_l1"), ["'weight_hh_l1' is missing", "weight_ih_l0"]),
    "one bias is missing": ("lstm", without("bias_hh_l0", units="lstm"), ["'bias_hh_l0' is missing"]),
    "other names": (
        "gru",
        state("gru", prefix="rnn."),
        ["'weight_ih_l0' is missing", "'rnn.weight_ih"],
    ),
    "nothing": ("gru", {}, ["'weight_ih_l0' is missing", "nothing"]),
    "input size": ("gru", with_(weight_ih_l0=np.zeros((12, 9))), ["weight_ih_l0", "(12, 9)", "(12, 3)"]),
    "not transposed": ("gru", with_(weight_ih_l1=np.zeros((4, 12))), ["weight_ih_l1", "(4, 12)", "(12, 4)"]),
    "size of a bias": ("gru", with_(bias_hh_l1=np.zeros(13)), ["bias_hh_l1", "(13,)", "(12,)"]),
    "a number": ("gru", with_(bias_hh_l1=3.0), ["bias_hh_l1", "()", "(12,)"]),
    "LSTM to GRU": ("gru", state("lstm"), ["weight_ih_l0", "(16, 3)", "(12, 3)", "torch.nn.LSTM"]),
    "GRU to LSTM": ("lstm", state("gru"), ["weight_ih_l0", "(12, 3)", "(16, 3)", "torch.nn.GRU"]),
    "bidirectional": (
        "gru",
        with_(weight_ih_l0_reverse=np.zeros((12, 3))),
        ["_l0_reverse", "bidirectional"],
    ),
    "proj_size": ("lstm", with_("lstm", weight_hr_l1=np.zeros((2, 4))), ["weight_hr_l1", "proj_size"]),
    "three layers": ("gru", with_(weight_ih_l2=np.zeros((12, 4))), ["weight_ih_l2", "layer 2", "for 2"]),
    "NaN": ("gru", with_(weight_hh_l1=np.full((12, 4), np.nan)), ["second->second.weight", "nan"]),
    "text": ("gru", with_(weight_hh_l1="random"), ["'weight_hh_l1'", "state_dict()"]),
    "unreadable": ("gru", with_(bias_ih_l1=Unreadable()), ["'bias_ih_l1'", "state_dict()"]),
}


@pytest.mark.parametrize(("units", "given", "words"), BAD.values(), ids=BAD)
def test_a_state_dict_that_does_not_fit_changes_nothing(units, given, words):
    net = network(units)
    before = values(net)
    with pytest.raises(ParameterError) as caught:
        load_rnn(net, given, LAYERS)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 300
    for word in words:
        assert word in message, message
    for name, kept in before.items():
        np.testing.assert_array_equal(values(net)[name], kept)


def test_what_float32_cannot_hold_changes_nothing():
    net = network("gru", dtype="float32")
    before = values(net)
    with pytest.raises(ParameterError, match=r"second\.bias.*inf"):
        load_rnn(net, with_(bias_ih_l1=np.full(12, 1e300)), LAYERS)
    assert all((values(net)[name] == before[name]).all() for name in before)


def test_populations_that_do_not_fit():
    net = network("gru")
    net.add(EGRU(H, "spikes"))
    net.add(DeltaReadout(2, "answer"))
    for populations, error, words in (
        (["first"], ParameterError, "layer 1, there are populations for 1"),
        (["first", "first"], ParameterError, r"populations are \['first', 'first'\]"),
        ([], ParameterError, r"populations are \[\]"),
        (["first", "third"], NetworkError, "'third'"),
        (["first", "spikes"], ParameterError, r"EGRU\(4, name='spikes'\) has no such weights; give DeltaGRU"),
        (["first", "answer"], ParameterError, "DeltaReadout"),
    ):
        with pytest.raises(error, match=words):
            load_rnn(net, state("gru"), populations)
    with pytest.raises(ParameterError, match="EGRU"):
        to_rnn(net, ["spikes"])
    net.add(DeltaLSTM(H, "other"))
    with pytest.raises(ParameterError, match=r"\['GRU', 'LSTM'\]; give"):
        to_rnn(net, ["first", "other"])


def test_projections_that_do_not_fit():
    net = network("gru")
    net.connect("lines", "first", name="twice")
    with pytest.raises(ParameterError, match=r"'first'.*\['lines->first', 'twice'\]; there must be one"):
        load_rnn(net, state("gru"), LAYERS)
    lonely = Network()
    lonely.add(EventSource(K, "lines", threshold=0.0))
    lonely.add(DeltaGRU(H, "first"))
    lonely.connect("lines", "first")
    for call in (lambda: load_rnn(lonely, {}, ["first"]), lambda: to_rnn(lonely, ["first"])):
        with pytest.raises(ParameterError, match=r"missing|port 'recurrent' are none"):
            call()
    sparse = network("gru", density=0.5)
    for call in (lambda: load_rnn(sparse, state("gru"), LAYERS), lambda: to_rnn(sparse, LAYERS)):
        with pytest.raises(ParameterError, match=r"'lines->first': its weights are sparse"):
            call()
