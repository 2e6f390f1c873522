"""Weights: how they are drawn, stored and used."""

import re
import weakref

import numpy as np
import pytest
import scipy.sparse
import scipy.stats

from evsim.errors import NetworkError, ParameterError
from evsim.models import EGRU, EventSource, LeakyReadout, LinearReadout
from evsim.network import Network
from evsim.projection import glorot, orthogonal, zeros
from evsim.simulation import Simulation


def network(n_source=40, n_target=30, dtype="float64"):
    net = Network(dtype=dtype, seed=5)
    net.add(EventSource(n_source, name="cue"))
    net.add(EGRU(n_target, name="hidden"))
    net.add(LinearReadout(6, name="answer"))
    return net


def test_glorot_has_its_variance_and_is_normal():
    drawn = glorot(np.random.default_rng(0), 300, 500)
    assert drawn.shape == (300, 500)
    assert drawn.var() == pytest.approx(2 / 800, rel=0.02)
    assert abs(drawn.mean()) < 5 * np.sqrt(2 / 800 / drawn.size)
    assert scipy.stats.kstest(drawn.ravel() / np.sqrt(2 / 800), scipy.stats.norm.cdf).pvalue > 1e-3


@pytest.mark.parametrize("shape", [(7, 7), (20, 6), (6, 20), (1, 5)])
def test_orthogonal_rows_or_columns(shape):
    drawn = orthogonal(np.random.default_rng(0), *shape)
    assert drawn.shape == shape
    product = drawn @ drawn.T if shape[0] <= shape[1] else drawn.T @ drawn
    np.testing.assert_allclose(product, np.eye(min(shape)), atol=1e-14)


def test_orthogonal_has_no_preferred_sign():
    """The sign correction makes the draw uniform: the first entry is as often negative as positive."""
    rng = np.random.default_rng(0)
    signs = [orthogonal(rng, 3, 3)[0, 0] > 0 for _ in range(1000)]
    assert abs(np.mean(signs) - 0.5) < 0.08


def test_zeros():
    assert not zeros(np.random.default_rng(0), 3, 4).any()
    net = network()
    assert not net.connect("cue", "answer", "zeros").weight.values.any()


def test_each_gate_is_drawn_by_itself():
    """Glorot's variance and the orthogonality are those of one block, not of the three side by side."""
    net = network(n_source=200, n_target=300)
    weight = net.connect("cue", "hidden").weight.values
    assert weight.shape == (200, 900)
    for k in range(3):
        assert weight[:, 300 * k : 300 * (k + 1)].var() == pytest.approx(2 / 500, rel=0.03)
    recurrent = net.connect("hidden", "hidden", "orthogonal").weight.values
    for k in range(3):
        block = recurrent[:, 300 * k : 300 * (k + 1)]
        np.testing.assert_allclose(block @ block.T, np.eye(300), atol=1e-12)
    assert np.abs(recurrent[:, :300] - recurrent[:, 300:600]).max() > 0.01


def test_a_density_keeps_that_fraction_and_the_variance_of_the_sum():
    net = network(n_source=300, n_target=200)
    projection = net.connect("cue", "hidden", density=0.2)
    assert projection.is_sparse
    size = 300 * 600
    assert projection.n_weights / size == pytest.approx(0.2, abs=5 * np.sqrt(0.2 * 0.8 / size))
    assert projection.weight.values.var() == pytest.approx(2 / 500 / 0.2, rel=0.03)
    assert not net.connect("cue", "answer", density=1.0).is_sparse


def test_weights_given_as_they_are():
    given = np.random.default_rng(0).normal(size=(40, 6))
    net = network()
    dense = net.connect("cue", "answer", given, name="array")
    np.testing.assert_array_equal(dense.to_dense(), given)
    np.testing.assert_array_equal(
        net.connect("cue", "answer", given.T.copy().T, name="fortran").to_dense(), given
    )
    np.testing.assert_array_equal(
        net.connect("cue", "answer", 0.5, name="number").to_dense(), np.full((40, 6), 0.5)
    )
    function = net.connect("cue", "answer", lambda rng, shape: np.full(shape, rng.normal()), name="function")
    assert len(np.unique(function.weight.values)) == 1
    assert all(p.weight.values.flags.c_contiguous for p in net.projections.values())
    given[:] = 0  # they were copied
    assert dense.weight.values.any()


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "lil"])
def test_sparse_weights_of_any_kind(form):
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(40, 90)) * (rng.random((40, 90)) < 0.2)
    projection = network().connect("cue", "hidden", scipy.sparse.coo_array(dense).asformat(form))
    np.testing.assert_array_equal(projection.to_dense(), dense)
    assert projection.is_sparse
    assert projection.n_weights == np.count_nonzero(dense)
    assert (projection.indptr.dtype, projection.indices.dtype) == (np.int64, np.int32)
    expected = scipy.sparse.csr_array(dense)
    np.testing.assert_array_equal(projection.indptr, expected.indptr)
    np.testing.assert_array_equal(projection.indices, expected.indices)
    np.testing.assert_array_equal(projection.weight.values, expected.data)


def test_duplicate_and_unsorted_entries_are_put_in_order():
    rows, columns, values = [1, 0, 1, 1], [2, 1, 0, 2], [1.0, 2.0, 3.0, 4.0]
    net = network(n_source=2)
    weight = scipy.sparse.coo_array((values, (rows, columns)), shape=(2, 6))
    projection = net.connect("cue", "answer", weight)
    assert projection.weight.values.tolist() == [2.0, 3.0, 5.0]
    assert projection.indices.tolist() == [1, 0, 2]


def test_stored_zeros_are_weights():
    weight = scipy.sparse.csr_array(([0.0, 1.0], [0, 1], [0, 2, 2]), shape=(2, 6))
    projection = network(n_source=2).connect("cue", "answer", weight)
    assert projection.n_weights == 2


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("density", [0.0, 0.1, 0.6])
def test_sparse_and_dense_weights_deliver_the_same(dtype, density):
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(40, 90)) * (rng.random((40, 90)) < density)
    states = []
    for weight in (dense, scipy.sparse.csr_array(dense)):
        net = network(dtype=dtype)
        net.connect("cue", "hidden", weight)
        states.append(
            Simulation(net).run(rng.integers(0, 40, (20, 1)) * 0 + np.arange(20)[:, None])["hidden"].state
        )
    np.testing.assert_allclose(states[1], states[0], atol=1e-12 if dtype == "float64" else 1e-6)


def test_delivery_against_a_matrix_product():
    """A readout without memory holds x W + b."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(9, 4, 40)) * (rng.random((9, 4, 40)) < 0.3)
    for sparse in (False, True):
        weight, bias = rng.normal(size=(40, 6)) * (rng.random((40, 6)) < 0.5), rng.normal(size=6)
        net = Network(dtype="float64")
        net.add(EventSource(40, name="cue"))
        net.add(LinearReadout(6, name="answer", bias=bias))
        net.connect("cue", "answer", scipy.sparse.csr_array(weight) if sparse else weight)
        state = Simulation(net).run(x)["answer"].state
        np.testing.assert_allclose(state, x @ weight + bias, atol=1e-13)


def test_description():
    net = network()
    net.connect("cue", "hidden", density=0.5, delay=2.0, name="in")
    projection = net.projections["in"]
    described = projection.describe()
    assert isinstance(described.pop("structure"), int)
    assert described == {
        "source": "cue",
        "target": "hidden",
        "port": "input",
        "delay_steps": 2,
        "shape": [40, 90],
        "weights": projection.n_weights,
        "format": "csr",
    }
    assert (
        repr(projection) == f"Projection('in', 40 x 90, CSR, {projection.n_weights} weights, delay 2 steps)"
    )
    assert "dense" in repr(net.connect("cue", "answer"))


def test_descriptions_tell_one_sparse_structure_from_another():
    """As many weights in other places make another network, on which no log of the first may be replayed."""
    first = np.zeros((2, 6))
    first[0, 1] = first[1, 4] = 1.0
    moved_column, moved_row = first[:, ::-1], first[::-1]
    described = [
        network(n_source=2).connect("cue", "answer", scipy.sparse.csr_array(weight)).describe()
        for weight in (first, 2 * first, moved_column, moved_row)
    ]
    assert described[0] == described[1]  # values do not count
    assert described[0] != described[2]
    assert described[0] != described[3]


def test_ports_by_default():
    net = network()
    net.add(EGRU(3, name="other"))
    net.add(LeakyReadout(2, name="leaky"))
    assert net.connect("cue", "hidden").port == "input"
    assert net.connect("hidden", "hidden").port == "recurrent"
    assert net.connect("hidden", "other").port == "input"
    assert net.connect("hidden", "leaky").port == "input"


def without_copy(weight, dtype="float32"):
    net = network(dtype=dtype)
    return net, net.connect("cue", "hidden", weight=weight, copy=False)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_without_a_copy_are_the_array_itself(dtype):
    room = np.random.default_rng(0).normal(size=40 * 90 + 1).astype(dtype)
    for weight in (room[:-1].reshape(40, 90), room[1:].reshape(40, 90)):  # begins at any number
        net, projection = without_copy(weight, dtype)
        assert projection.weight.values is weight
        copied = network(dtype=dtype)
        copied.connect("cue", "hidden", weight=weight)
        stimulus = np.ones((5, 2, 40))
        for one in (net, copied):
            one.connect("hidden", "answer", weight=0.1)
        logs = [Simulation(one).run(stimulus) for one in (net, copied)]
        np.testing.assert_array_equal(logs[0]["answer"].state, logs[1]["answer"].state)
        assert not np.shares_memory(copied.projections["cue->hidden"].weight.values, weight)
        projection.weight.assign(0.0)
        assert not weight.any()
        assert not np.shares_memory(net.copy().projections["cue->hidden"].weight.values, weight)


def test_weights_that_need_a_copy_are_refused_without_one():
    good = np.ones((40, 90), np.float32)
    read_only = good.copy()
    read_only.setflags(write=False)
    cases = {
        "float64": good.astype("f8"),
        "C-contiguous": np.asfortranarray(good),
        "writeable": read_only,
        "list": good.tolist(),
        "str": "glorot",
        "type float,": 0.5,
        "csr_array": scipy.sparse.csr_array(good),
        "function": lambda rng, shape: np.ones(shape, np.float32),
        "shape (90, 40)": good.reshape(90, 40),
    }
    for word, weight in cases.items():
        with pytest.raises((NetworkError, ParameterError), match=re.escape(word)) as caught:
            without_copy(weight)
        assert caught.value.remedy
    wrong = good.copy()
    wrong[3, 4] = np.nan
    with pytest.raises(ParameterError, match="nan"):
        without_copy(wrong)


def test_what_was_given_is_not_kept():
    weight = np.ones((40, 90), np.float32)
    kept = weakref.ref(weight)
    net = network(dtype="float32")
    net.connect("cue", "hidden", weight=weight)
    del weight
    assert kept() is None
