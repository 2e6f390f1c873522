"""Networks that do not store their zeros, beside those that do and the reference."""

import numpy as np
import pytest
import scipy.sparse

from evsim.adjoint import Adjoint
from evsim.errors import NetworkError
from evsim.models import LIF, EventSource
from evsim.network import Network
from evsim.pruning import magnitude_mask, prune
from evsim.reference import backpropagate, simulate
from evsim.simulation import Simulation
from evsim.sparsity import sparsified, sparsity_report, stored_structure
from oracles.pruning_cases import WEIGHTS, C, H, K, dense, network, refused, values


def with_zeros(net, masks):
    """The dense network with masked weights 0."""
    twin = net.copy()
    for name, mask in masks.items():
        weight = twin.parameters()[name]
        weight.assign(np.where(mask, weight.values, 0))
    return twin


def random_events(seed=1, n_steps=40, n_lanes=3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_steps, n_lanes, K))
    return np.where(rng.random(x.shape) < 0.3, x, 0)


class TestSparsified:
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_sends_the_same_bits_as_the_network_with_zeros(self, dtype):
        net = network(dtype)
        masks = magnitude_mask(net, 0.8)
        zeros, small = with_zeros(net, masks), prune(net, 0.8)
        x = random_events().astype(dtype)
        one, other = Simulation(zeros).run(x), Simulation(small).run(x)
        assert one["hidden"].n_events > 50
        np.testing.assert_array_equal(one["hidden"].events.unit, other["hidden"].events.unit)
        for name in ("hidden", "answer"):  # sums run over events in one order; a product with 0 adds 0
            np.testing.assert_array_equal(one[name].state, other[name].state)
        assert other.counters["macs"]["hidden->hidden"] < 0.3 * one.counters["macs"]["hidden->hidden"]

    def test_gradients_are_those_of_the_reference_at_stored_weights(self):
        net = prune(network(), 0.8)
        x, rng = random_events(), np.random.default_rng(3)
        losses = {"answer": rng.normal(size=(40, 3, C)), "hidden.o": rng.normal(size=(40, 3, H))}
        simulation = Simulation(net)
        found = Adjoint(simulation.plan, gamma=0.7, eps=2.0).replay(simulation.run(x), losses)
        expected = backpropagate(simulate(net, {"cue": x}, 40, 3), losses, gamma=0.7, eps=2.0)
        for name, p in net.parameters().items():
            assert found[name].shape == p.values.shape
            wanted = np.asarray(expected[name])
            scale = np.abs(wanted).max()
            assert scale > 0
            # Dot products of sparse rows are eight partial sums, those of the reference a matrix product.
            np.testing.assert_allclose(found[name], wanted, rtol=0, atol=1e-12 * scale)

    def test_gradients_are_those_of_the_network_with_zeros(self):
        net = network()
        masks = magnitude_mask(net, 0.9)
        x, losses = random_events(), {"answer": np.random.default_rng(3).normal(size=(40, 3, C))}
        found = []
        for twin in (with_zeros(net, masks), sparsified(net, masks)):
            simulation = Simulation(twin)
            found.append(Adjoint(simulation.plan).replay(simulation.run(x), losses))
        for name, whole in found[0].items():
            wanted = whole[masks[name]] if name in masks else whole
            np.testing.assert_allclose(found[1][name], wanted, rtol=0, atol=1e-12 * np.abs(whole).max())

    def test_the_network_stays_as_it_is(self):
        net = network()
        before = values(net)
        twin = prune(net, 0.8)
        twin.projections["hidden->hidden"].weight.assign(3.0)
        assert all(np.array_equal(before[name], array) for name, array in values(net).items())
        assert not net.projections["hidden->hidden"].is_sparse
        assert twin.projections["hidden->hidden"].is_sparse

    def test_which_become_sparse(self):
        net = with_zeros(network(), magnitude_mask(network(), 0.6, "hidden->hidden"))

        def sparse(twin):
            return [name for name, p in twin.projections.items() if p.is_sparse]

        assert sparse(sparsified(net)) == ["hidden->hidden"]
        assert sparse(sparsified(net, least=0.61)) == []
        assert sparse(sparsified(net, least=0.0)) == list(net.projections)
        assert sparse(sparsified(net, {"cue->hidden.weight": np.ones((K, 3 * H), bool)})) == ["cue->hidden"]
        for twin in (sparsified(net), sparsified(net, least=0.0)):
            assert all(
                np.array_equal(twin.projections[n].to_dense(), p.to_dense())
                for n, p in net.projections.items()
            )

    def test_sparse_weights_lose_some_more(self):
        once, twice = prune(network(), 0.9), prune(prune(network(), 0.5), 0.9)
        for name, matrix in dense(once).items():
            np.testing.assert_array_equal(matrix, dense(twice)[name])
        for name, array in stored_structure(once).items():
            np.testing.assert_array_equal(array, stored_structure(twice)[name])

    def test_nothing_may_be_left(self):
        net = sparsified(
            network(), {name: np.zeros((n, 3 * H), bool) for name, n in zip(WEIGHTS, (K, H), strict=True)}
        )
        simulation = Simulation(net)
        log = simulation.run(random_events())
        assert log.counters["macs"]["cue->hidden"] == 0
        found = Adjoint(simulation.plan).replay(log, {"answer": np.ones((40, 3, C))})
        assert [found[name].shape for name in WEIGHTS] == [(0,), (0,)]

    def test_refusals(self):
        net = network()
        refused(
            lambda: sparsified(net, {"x.weight": np.ones(2, bool)}), NetworkError, "x.weight", "cue->hidden"
        )
        refused(lambda: sparsified(net, {WEIGHTS[0]: np.ones(2, bool)}), NetworkError, "(2,)")
        refused(lambda: sparsified(net, {WEIGHTS[0]: np.ones((K, 3 * H))}), NetworkError, "float64")

    @pytest.mark.parametrize("delay", ["one", "each"])
    def test_in_continuous_time(self, delay):
        """Delays stay with their pairs of units; events are those of the dense network with zeros."""
        rng = np.random.default_rng(2)
        net = Network(dt=None, seed=1, dtype="float64")
        net.add(EventSource(3, "cue"))
        net.add(LIF(8, "hidden"))
        options = {
            "delay": 0.7 if delay == "one" else rng.uniform(0.5, 3.0, (8, 8)),
            "train_delay": delay == "each",
        }
        net.connect("cue", "hidden", weight=lambda rng, shape: rng.normal(3.0, 1.5, shape))
        net.connect("hidden", "hidden", weight=lambda rng, shape: rng.normal(0.4, 0.8, shape), **options)
        masks = magnitude_mask(net, 0.7)
        zeros, small = with_zeros(net, masks), sparsified(net, masks)
        if delay == "each":
            pairs, matrix = small.projections["hidden->hidden"].pairs(), options["delay"]
            source = np.repeat(np.arange(8), np.diff(pairs.ptr))
            np.testing.assert_array_equal(
                small.parameters()["hidden->hidden.delay"].values, matrix[source, pairs.target]
            )
            assert small.parameters()["hidden->hidden.delay"].trainable
            one, other = (
                prune(small, 0.9).projections["hidden->hidden"],
                prune(net, 0.9).projections["hidden->hidden"],
            )
            np.testing.assert_array_equal(one.delay.values, other.delay.values)
        times = np.sort(rng.uniform(0, 60, 90))
        given = {"cue": (times, np.zeros(90, int), rng.integers(0, 3, 90), np.ones(90))}
        logs = [Simulation(twin).run(given, 80.0) for twin in (zeros, small)]
        events = [log["hidden"].events for log in logs]
        assert logs[0]["hidden"].n_events > 20
        np.testing.assert_array_equal(events[0].unit, events[1].unit)
        np.testing.assert_allclose(events[0].time, events[1].time, rtol=0, atol=1e-9)


def test_report():
    matrix = np.zeros((H, 3 * H))
    matrix[1, :5] = matrix[4, 3:8] = 1.0
    for hidden in (matrix, scipy.sparse.csr_array(matrix)):
        rows = {row.projection: row for row in sparsity_report(network(hidden=hidden))}
        found = rows["hidden->hidden"]
        assert (found.places, found.nonzeros) == (H * 3 * H, 10)
        assert found.sparsity == pytest.approx(1 - 10 / (3 * H * H))
        assert found.dead_rows == pytest.approx((H - 2) / H)
        assert found.dead_columns == pytest.approx((3 * H - 8) / (3 * H))
        assert found.sparse == (hidden is not matrix)
        assert (rows["cue->hidden"].nonzeros, rows["cue->hidden"].dead_rows) == (K * 3 * H, 0)
