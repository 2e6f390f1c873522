"""The kernels of sparse weight rows against dense matrices, and how a plan stores them."""

import sys

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from evsim.adjoint import Adjoint
from evsim.core import kernels
from evsim.models import EGRU, EventSource, LeakyReadout
from evsim.network import Network
from evsim.plan import Plan
from evsim.simulation import Simulation

#: Largest error relative to the sum of the absolute values of what is added.
BOUND = {"float32": 2e-6, "float64": 4e-15}


@pytest.fixture(params=kernels.available())
def isa(request):
    before = kernels.in_use()
    kernels.use(request.param)
    yield request.param
    kernels.use(before)


def store(dense, n_blocks, width, dtype, column_type, first=0, stop=None):
    """A matrix as CSR cut into blocks: its kernel object, its stored values."""
    csr = scipy.sparse.csr_array(dense)
    csr.sort_indices()
    edges = np.arange(n_blocks) * width
    ptr = [csr.indptr[u] + np.searchsorted(csr[[u]].indices, edges) for u in range(len(dense))]
    ptr = np.append(np.concatenate(ptr), csr.nnz).astype(np.int64)
    column = csr.indices.astype(column_type)
    rows = kernels.Sparse(ptr, column, n_blocks, first, n_blocks if stop is None else stop)
    return rows, np.append(csr.data, 1).astype(dtype), (ptr, column)  # one more value than is stored


@st.composite
def matrices(draw):
    """Block-wise matrices with all kinds of masks: empty, full, empty rows and columns, anything."""
    n_rows, n_blocks, width = draw(st.integers(1, 7)), draw(st.integers(1, 4)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    density = draw(st.sampled_from([0.0, 0.02, 0.1, 0.3, 0.7, 1.0]))
    mask = rng.random((n_rows, n_blocks * width)) < density
    mask[rng.random(n_rows) < draw(st.sampled_from([0.0, 0.4]))] = False
    first = draw(st.integers(0, n_blocks - 1))
    stop = draw(st.integers(first + 1, n_blocks))
    values = rng.normal(size=mask.shape)
    return np.where(mask, np.where(values == 0, 1, values), 0), n_blocks, width, first, stop, rng


def wanted(dense, width, first, stop):
    """The matrix with only the blocks first:stop."""
    kept = np.zeros_like(dense)
    kept[:, first * width : stop * width] = dense[:, first * width : stop * width]
    return kept


def on_each_path(run):
    """What ``run`` returns, which must be the same bits on every instruction set."""
    before, results = kernels.in_use(), []
    for name in kernels.available():
        kernels.use(name)
        results.append(run())
    kernels.use(before)
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)
    return results[0]


@given(
    matrices(),
    st.integers(1, 9),
    st.sampled_from(["uint16", "int32"]),
    st.sampled_from(["float32", "float64"]),
)
def test_add(matrix, n_events, column_type, dtype):
    dense, n_blocks, width, first, stop, rng = matrix
    rows, weight, _keep = store(dense, n_blocks, width, dtype, column_type, first, stop)
    unit = rng.integers(len(dense), size=n_events).astype(np.int32)
    value = rng.normal(size=n_events).astype(dtype)
    start = rng.normal(size=dense.shape[1]).astype(dtype)
    part = wanted(dense, width, first, stop).astype(dtype)

    def run():
        target = start.copy()
        assert rows.add(unit, value, weight, target) == np.count_nonzero(part[unit])
        return target

    expected = start.copy()
    for u, v in zip(unit, value, strict=True):  # in this order, each product and each sum rounded
        expected += np.where(part[u] != 0, v * part[u], 0)
    np.testing.assert_array_equal(on_each_path(run), expected)


@given(
    matrices(),
    st.integers(1, 9),
    st.sampled_from(["uint16", "int32"]),
    st.sampled_from(["float32", "float64"]),
)
def test_dot(matrix, n_units, column_type, dtype):
    dense, n_blocks, width, first, stop, rng = matrix
    rows, weight, _keep = store(dense, n_blocks, width, dtype, column_type, first, stop)
    unit = rng.integers(len(dense), size=n_units).astype(np.int32)
    vector = rng.normal(size=dense.shape[1]).astype(dtype)
    start = rng.normal(size=n_units).astype(dtype)
    part = wanted(dense, width, first, stop).astype(dtype)

    def run():
        out = start.copy()
        assert rows.dot(unit, weight, vector, out) == np.count_nonzero(part[unit])
        return out

    exact = part[unit].astype(np.float64) @ vector.astype(np.float64) + start
    size = np.abs(part[unit]).astype(np.float64) @ np.abs(vector) + np.abs(start)
    assert (np.abs(on_each_path(run) - exact) <= BOUND[dtype] * size).all()


@given(
    matrices(),
    st.integers(1, 9),
    st.sampled_from(["uint16", "int32"]),
    st.sampled_from(["float32", "float64"]),
)
def test_add_outer(matrix, n_events, column_type, dtype):
    dense, n_blocks, width, first, stop, rng = matrix
    rows, weight, (ptr, column) = store(dense, n_blocks, width, dtype, column_type, first, stop)
    unit = int(rng.integers(len(dense)))
    vectors = rng.normal(size=(6, dense.shape[1] + 3)).astype(dtype)  # rows of other accumulators between
    arrival = rng.integers(6, size=n_events).astype(np.int32)
    value = rng.normal(size=n_events).astype(dtype)
    start = rng.normal(size=weight.size).astype(dtype)
    begin, end = ptr[unit * n_blocks + first], ptr[unit * n_blocks + stop]

    def run():
        gradient = start.copy()
        assert rows.add_outer(unit, arrival, value, vectors, gradient) == n_events * (end - begin)
        return gradient

    expected = start.copy()
    for a, v in zip(arrival, value, strict=True):
        expected[begin:end] += v * vectors[a, column[begin:end].astype(int)]
    np.testing.assert_array_equal(on_each_path(run), expected)


def test_last_column_of_either_width(isa):
    for n, column_type in [(2**16, "uint16"), (2**16 + 1, "int32")]:
        ptr, column = np.array([0, 9]), np.arange(n - 9, n).astype(column_type)
        rows, ones = kernels.Sparse(ptr, column, 1, 0, 1), np.ones(9, "f4")
        target, unit = np.zeros(n, "f4"), np.zeros(1, "i4")
        assert rows.add(unit, np.ones(1, "f4"), ones, target) == 9
        np.testing.assert_array_equal(np.flatnonzero(target), column)
        out = np.zeros(1, "f4")
        rows.dot(unit, ones, np.arange(n, dtype="f4"), out)
        assert out[0] == column.astype(int).sum()


def network_of(form, kind, n_outputs=3, n_hidden=21):
    """A network whose weights have many zeros and an empty row, as arrays of some kind."""
    rng = np.random.default_rng(3)

    def weights(n_rows, n_columns):
        weight = np.where(rng.random((n_rows, n_columns)) < 0.5, rng.normal(size=(n_rows, n_columns)), 0)
        weight[0] = 0
        return kind(weight)

    net = Network(dtype="float64")
    net.add(EventSource(6, "cue"))
    net.add(EGRU(n_hidden, "hidden", form=form, threshold=0.1, bias=rng.normal(0.2, 0.5, 3 * n_hidden)))
    net.add(LeakyReadout(n_outputs, name="answer"))
    net.connect("cue", "hidden", weights(6, 3 * n_hidden))
    net.connect("hidden", "hidden", weights(n_hidden, 3 * n_hidden), delay=1.0)
    net.connect("hidden", "answer", weights(n_hidden, n_outputs))
    return net


def run_and_replay(net):
    """Events of the hidden units, output, gradients, all as dense arrays; and the plan."""
    rng = np.random.default_rng(4)
    n_outputs = net["answer"].n_units
    simulation = Simulation(net)
    log = simulation.run(rng.normal(size=(15, 2, 6)) * (rng.random((15, 2, 6)) < 0.5))
    gradients = Adjoint(simulation.plan, eps=1.3).replay(log, {"answer": rng.normal(size=(15, 2, n_outputs))})
    assert log["hidden"].n_events > 100
    found = {"events": log["hidden"].events.to_dense(), "output": log["answer"].tape}
    for name, projection in net.projections.items():
        gradient = gradients[projection.weight.name]
        if projection.indptr is not None:
            csr = (gradient, projection.indices, projection.indptr)
            gradient = scipy.sparse.csr_array(csr, projection.shape).toarray()
        found[name] = gradient * (projection.to_dense() != 0)
    return found, simulation.plan


@pytest.mark.parametrize("form", ["evnn", "paper"])
@pytest.mark.parametrize("n_outputs", [3, 2**16 + 5])
def test_sparse_and_dense_weights_do_the_same(isa, form, n_outputs):
    dense, _ = run_and_replay(network_of(form, np.asarray, n_outputs))
    sparse, plan = run_and_replay(network_of(form, scipy.sparse.csr_array, n_outputs))
    assert [bool(row["wide"]) for row in plan.projection_rows] == [
        p.target.name == "answer" and n_outputs > 2**16 for p in plan.projections
    ]
    for name, expected in dense.items():
        np.testing.assert_allclose(sparse[name], expected, rtol=1e-9, atol=1e-11, err_msg=name)


@pytest.mark.parametrize("form", ["evnn", "paper"])
def test_columns_of_either_width_give_the_same_bits(monkeypatch, form):
    short, _ = run_and_replay(network_of(form, scipy.sparse.csr_array))
    monkeypatch.setattr(sys.modules[Plan.__module__], "FEW_ACCUMULATORS", 0)
    wide, plan = run_and_replay(network_of(form, scipy.sparse.csr_array))
    assert plan.projection_rows["wide"].all()
    for name, expected in short.items():
        np.testing.assert_array_equal(wide[name], expected, err_msg=name)


def test_values_are_live():
    net = network_of("evnn", scipy.sparse.csr_array)
    simulation = Simulation(net)
    stimulus = np.ones((5, 1, 6))
    before = simulation.run(stimulus)["answer"].tape.copy()
    for projection in net.projections.values():
        projection.weight.values[:] *= 0.5
    after = simulation.run(stimulus)["answer"].tape
    assert (before != after).any()
    np.testing.assert_array_equal(after, Simulation(net).run(stimulus)["answer"].tape)
