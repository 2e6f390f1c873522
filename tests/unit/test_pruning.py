"""Pruning: masks against a sort in plain Python, optimisers, sparse twins, training, the command."""

import json
import re
import sys
from itertools import islice

import h5py
import numpy as np
import pytest
import scipy.sparse

import evsim
from evsim import cli
from evsim.adjoint import Adjoint
from evsim.checkpoint import Checkpoint
from evsim.continuous_training import ContinuousTrainer, Judgement
from evsim.errors import CheckpointError, NetworkError, ParameterError
from evsim.fixed_point import FixedPoint, quantize
from evsim.models import EGRU, LIF, DeltaLSTM, DeltaReadout, EventSource, LeakyReadout
from evsim.network import Network
from evsim.optimizer import SGD, Adam
from evsim.protocol import Trial
from evsim.protocols.delayed_copy import DelayedCopy
from evsim.pruned_checkpoint import checkpoint_report, prune_checkpoint
from evsim.pruning import CubicSchedule, Pruner, RoundSchedule, magnitude_mask, prune
from evsim.reference import backpropagate, simulate
from evsim.simulation import Simulation
from evsim.sparsity import sparsified, sparsity_report, stored_structure, with_structure
from evsim.training import Tally, Trainer, fit

K, H, C = 5, 12, 3
WEIGHTS = ("cue->hidden.weight", "hidden->hidden.weight")


def network(dtype="float64", **weights):
    """cue -> hidden (EGRU, recurrent) -> answer."""
    net = Network(seed=4, dtype=dtype)
    net.add(EventSource(K, "cue"))
    net.add(EGRU(H, "hidden", threshold=0.05))
    net.add(LeakyReadout(C, "answer", tau=3.0))
    net.connect("cue", "hidden", weights.get("cue", lambda rng, shape: rng.normal(0, 1.5, shape)))
    net.connect("hidden", "hidden", weights.get("hidden", lambda rng, shape: rng.normal(0, 0.5, shape)))
    net.connect("hidden", "answer")
    return net


def dense(net):
    return {p.weight.name: p.to_dense() for p in net.projections.values()}


def values(net):
    return {name: p.values.copy() for name, p in net.parameters().items()}


def smallest(parts, n):
    """The first ``n`` places of matrices by (size, place in the given order), by sorting tuples."""
    entries = [
        (abs(value), order, place)
        for order, part in enumerate(parts)
        for place, value in enumerate(part.ravel())
    ]
    gone = {entry[1:] for entry in sorted(entries)[:n]}
    return [
        np.array([(order, place) not in gone for place in range(part.size)]).reshape(part.shape)
        for order, part in enumerate(parts)
    ]


def refused(call, error, *words):
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.remedy
    assert all(str(word) in message for word in words), message


# -- masks -------------------------------------------------------------------------------------------------


class TestMasks:
    @pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.8, 0.99])
    def test_within_projections(self, share):
        net = network()
        masks = magnitude_mask(net, share)
        assert set(masks) == set(WEIGHTS)  # hidden units' input and recurrent weights, not the readout's
        for name in WEIGHTS:
            matrix = net.parameters()[name].values
            (expected,) = smallest([matrix], round(share * matrix.size))
            np.testing.assert_array_equal(masks[name], expected)

    @pytest.mark.parametrize("share", [0.3, 0.8])
    def test_all_together(self, share):
        net = network()
        masks = magnitude_mask(net, share, scope="global")
        parts = [net.parameters()[name].values for name in WEIGHTS]
        for name, expected in zip(WEIGHTS, smallest(parts, round(share * (K + H) * 3 * H)), strict=True):
            np.testing.assert_array_equal(masks[name], expected)
        counts = [int((~mask).sum()) for mask in masks.values()]
        assert counts[0] / (K * 3 * H) < counts[1] / (H * 3 * H)  # the wider weights keep more

    def test_within_blocks(self):
        net = network(hidden=lambda rng, shape: rng.normal(size=shape) * np.repeat([1.0, 5.0, 0.1], H))
        mask = magnitude_mask(net, 0.75, "hidden->hidden", scope="block")["hidden->hidden.weight"]
        matrix = net.parameters()["hidden->hidden.weight"].values
        for block in np.split(np.arange(3 * H), 3):
            (expected,) = smallest([matrix[:, block]], round(0.75 * H * H))
            np.testing.assert_array_equal(mask[:, block], expected)
        together = magnitude_mask(net, 0.75, "hidden->hidden")["hidden->hidden.weight"]
        assert not together[:, 2 * H :].any()  # what scope="block" is for

    @pytest.mark.parametrize("scope", ["projection", "block", "global"])
    def test_ties_go_in_the_order_of_names_rows_and_columns(self, scope):
        net = network(cue=1.0, hidden=1.0)
        masks = magnitude_mask(net, 0.5, scope=scope)
        if scope == "global":
            n = round(0.5 * (K + H) * 3 * H)
            found = np.concatenate([masks[name].ravel() for name in WEIGHTS])
            np.testing.assert_array_equal(found, np.arange(found.size) >= n)
            return
        for name, rows in zip(WEIGHTS, (K, H), strict=True):
            if scope == "projection":
                np.testing.assert_array_equal(
                    masks[name].ravel(), np.arange(rows * 3 * H) >= rows * 3 * H / 2
                )
            else:
                one = (np.arange(rows * H) >= round(rows * H / 2)).reshape(rows, H)
                np.testing.assert_array_equal(masks[name], np.tile(one, 3))

    def test_signs_do_not_matter(self):
        net, other = network(), network()
        for p in other.projections.values():
            p.weight.assign(-p.weight.values)
        for name, mask in magnitude_mask(net, 0.6).items():
            np.testing.assert_array_equal(mask, magnitude_mask(other, 0.6)[name])

    @pytest.mark.parametrize("scope", ["projection", "block", "global"])
    def test_places_that_are_not_stored_are_zeros_already(self, scope):
        rng = np.random.default_rng(0)
        matrix = np.where(rng.random((H, 3 * H)) < 0.4, rng.normal(size=(H, 3 * H)), 0)
        stored, full = network(hidden=scipy.sparse.csr_array(matrix)), network(hidden=matrix)
        for share in (0.2, 0.7, 0.9):
            mask = magnitude_mask(stored, share, scope=scope)["hidden->hidden.weight"]
            expected = magnitude_mask(full, share, scope=scope)["hidden->hidden.weight"]
            found = np.zeros(matrix.shape, bool)
            found[np.nonzero(matrix)] = mask
            np.testing.assert_array_equal(found, expected & (matrix != 0))

    def test_what_is_gone_stays_away(self):
        net = network()
        first = magnitude_mask(net, 0.5)
        for p in net.projections.values():  # the small ones are the large ones now
            p.weight.assign(1 / p.weight.values)
        second = magnitude_mask(net, 0.7, before=first)
        for name in WEIGHTS:
            assert not (second[name] & ~first[name]).any()
            assert (~second[name]).sum() == round(0.7 * second[name].size)
            fewer = magnitude_mask(net, 0.2, before=first)[name]
            np.testing.assert_array_equal(fewer, first[name])

    def test_chosen_by_name(self):
        net = network()
        assert set(magnitude_mask(net, 0.5, "hidden->*")) == {
            "hidden->hidden.weight",
            "hidden->answer.weight",
        }
        assert set(magnitude_mask(net, 0.5, ["cue->hidden"])) == {"cue->hidden.weight"}

    def test_rows_of_tokens_are_left_alone_unless_named(self):
        net = Network()
        net.add(EventSource(4, "tokens"))
        net.add(EGRU(5, "layer1"))
        net.connect("tokens", "layer1")
        net.connect("layer1", "layer1")
        assert list(magnitude_mask(net, 0.5)) == ["layer1->layer1.weight"]
        assert list(magnitude_mask(net, 0.5, "tokens->layer1")) == ["tokens->layer1.weight"]

    def test_refusals(self):
        net = network("float32")
        for share in (-0.1, 1.0, 1, np.nan, "0.5", True, None):
            refused(lambda s=share: magnitude_mask(net, s), ParameterError, "sparsity", repr(share))
        refused(lambda: magnitude_mask(net, 0.5, scope="all"), ParameterError, "'all'", "global")
        refused(lambda: magnitude_mask(net, 0.5, "hiden->*"), NetworkError, "hiden->*", "cue->hidden")
        refused(lambda: magnitude_mask(net, 0.5, []), NetworkError, "[]")
        refused(lambda: prune(evsim.narrow(net, "int8"), 0.5), NetworkError, "int8")
        readout = Network()
        readout.add(EventSource(2, "cue"))
        readout.add(LeakyReadout(2, "answer"))
        readout.connect("cue", "answer")
        refused(lambda: prune(readout, 0.5), NetworkError, "cue->answer")
        assert list(magnitude_mask(readout, 0.5, "cue->answer")) == ["cue->answer.weight"]

    def test_fixed_point_is_refused(self):
        net = Network()
        for population in (
            EventSource(2, "in", threshold=0.1),
            DeltaLSTM(3, "hidden"),
            DeltaReadout(2, "out"),
        ):
            net.add(population)
        net.connect("in", "hidden")
        net.connect("hidden", "out")
        refused(lambda: prune(quantize(net, FixedPoint("Q8.8", "Q4.4", "Q2.4")), 0.5), NetworkError, "Q8.8")


# -- schedules ---------------------------------------------------------------------------------------------


class TestSchedules:
    def test_cubic(self):
        """Zhu & Gupta 2017, eq. 1, with t0 = 10, n dt = 40."""
        cubic = CubicSchedule(begin=10, end=50, final=0.8, initial=0.2, every=7)
        assert [cubic(step) for step in (1, 9)] == [0, 0]
        for step in range(10, 51):
            assert cubic(step) == pytest.approx(0.8 + (0.2 - 0.8) * (1 - (step - 10) / 40) ** 3, abs=1e-15)
        assert cubic(10**6) == 0.8
        assert [step for step in range(1, 100) if cubic.due(step)] == [10, 17, 24, 31, 38, 45, 50]

    def test_rounds(self):
        rounds = RoundSchedule(begin=5, every=10, rounds=3, final=0.875)
        assert [step for step in range(1, 100) if rounds.due(step)] == [5, 15, 25]
        for step, share in ((4, 0), (5, 0.5), (14, 0.5), (15, 0.75), (25, 0.875), (99, 0.875)):
            assert rounds(step) == pytest.approx(share, abs=1e-15)  # half of what is left, each time

    def test_at_once(self):
        for schedule in (CubicSchedule(3, 3, 0.8), RoundSchedule(3, 1, 1, 0.8)):
            assert [step for step in range(1, 9) if schedule.due(step)] == [3]
            assert schedule(3) == 0.8

    @pytest.mark.parametrize(
        ("make", "word"),
        [
            (lambda: CubicSchedule(0, 5, 0.8), "begin"),
            (lambda: CubicSchedule(5, 4, 0.8), "end"),
            (lambda: CubicSchedule(1, 5, 1.0), "final"),
            (lambda: CubicSchedule(1, 5, 0.8, initial=0.9), "initial"),
            (lambda: CubicSchedule(1, 5, 0.8, every=0), "every"),
            (lambda: CubicSchedule(1.5, 5, 0.8), "begin"),
            (lambda: RoundSchedule(1, 5, 0, 0.8), "rounds"),
            (lambda: RoundSchedule(1, 5, 2, -0.1), "final"),
        ],
    )
    def test_refusals(self, make, word):
        refused(make, ParameterError, word)


# -- what optimisers hold at 0 -----------------------------------------------------------------------------


def random_gradients(net, seed):
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(size=p.values.shape).astype(p.values.dtype) for name, p in net.parameters().items()
    }


MAKES = {
    "adam": lambda p: Adam(p, lr=0.05, weight_decay=0.1, clip=2.0),
    "sgd": lambda p: SGD(p, lr=0.05, momentum=0.9, clip=2.0),
}
by_optimizer = pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)


class TestOptimizer:
    @by_optimizer
    def test_it_is_an_optimiser_of_the_weights_that_are_left(self, make):
        """Against one whose parameters are only those, with clipping and decay."""
        net = network()
        masks = magnitude_mask(net, 0.8)
        whole, part = make(net.parameters()), network().parameters()
        whole.keep(masks)
        for name, mask in masks.items():
            part[name].values = part[name].values[mask]
        left = make(part)
        for seed in range(6):
            gradient = random_gradients(net, seed)
            norm = whole.step(gradient)
            fewer = {name: g[masks[name]] if name in masks else g for name, g in gradient.items()}
            assert norm == pytest.approx(left.step(fewer), rel=1e-13)
            for name, p in net.parameters().items():
                found = p.values[masks[name]] if name in masks else p.values
                np.testing.assert_allclose(found, part[name].values, rtol=1e-12, atol=1e-15)
                if name in masks:
                    assert not p.values[~masks[name]].any()

    @by_optimizer
    def test_values_and_moments_become_zero_at_once_and_stay(self, make):
        net = network("float32")
        optimizer = make(net.parameters())
        arrays = {name: p.values for name, p in net.parameters().items()}
        for seed in range(3):
            optimizer.step(random_gradients(net, seed))
        assert optimizer.n_pruned == 0
        masks = magnitude_mask(net, 0.6)
        optimizer.keep(masks)
        assert optimizer.n_pruned == sum((~mask).sum() for mask in masks.values())
        for seed in range(3):
            for name, mask in masks.items():
                assert net.parameters()[name].values is arrays[name]  # the plan holds its address
                assert not arrays[name][~mask].any()
                assert arrays[name][mask].all()
                for slot in optimizer.slots:
                    assert not optimizer.state()[f"{slot}/{name}"][~mask].any()
            gradient = random_gradients(net, 10 + seed)
            before = {name: g.copy() for name, g in gradient.items()}
            optimizer.step(gradient)
            assert all(np.array_equal(gradient[name], before[name]) for name in gradient)
            net.parameters()["hidden->answer.weight"].assign(1.0)

    def test_what_others_write_is_taken_away_with_the_next_step(self):
        net = network()
        adam = Adam(net.parameters(), eps=0.0)
        masks = magnitude_mask(net, 0.5)
        adam.keep(masks)
        net.parameters()[WEIGHTS[0]].assign(7.0)
        adam.step(random_gradients(net, 0))  # eps = 0 makes 0 / 0 of a moment that is 0
        assert not net.parameters()[WEIGHTS[0]].values[~masks[WEIGHTS[0]]].any()
        assert np.isfinite(net.parameters()[WEIGHTS[0]].values).all()

    @by_optimizer
    def test_a_stored_state_goes_on_bit_for_bit(self, make):
        through, stopped = network("float32"), network("float32")
        one, two = make(through.parameters()), make(stopped.parameters())
        for optimizer, net in ((one, through), (two, stopped)):
            optimizer.step(random_gradients(net, 0))
            optimizer.keep(magnitude_mask(net, 0.7))
        state = {name: np.array(array) for name, array in two.state().items()}
        three = make(stopped.parameters())
        three.load(state)
        assert three.n_pruned == one.n_pruned > 0
        for seed in range(1, 5):
            one.step(random_gradients(through, seed))
            three.step(random_gradients(stopped, seed))
        for name, array in values(through).items():
            assert array.tobytes() == stopped.parameters()[name].values.tobytes()

    def test_a_state_without_masks_ends_them(self):
        net = network()
        adam = Adam(net.parameters())
        state = adam.state()
        adam.keep(magnitude_mask(net, 0.5))
        adam.load({name: np.array(array) for name, array in state.items()})
        assert adam.masks == {}

    def test_refusals(self):
        net = network()
        adam = Adam(net.parameters())
        before = values(net)
        good = magnitude_mask(net, 0.5)
        refused(lambda: adam.keep(good | {"x.weight": np.ones(3, bool)}), ParameterError, "x.weight")
        refused(
            lambda: adam.keep(good | {WEIGHTS[0]: np.ones((2, 2), bool)}),
            ParameterError,
            WEIGHTS[0],
            "(2, 2)",
        )
        refused(lambda: adam.keep({WEIGHTS[0]: np.ones((K, 3 * H))}), ParameterError, "float64")
        net.parameters()["answer.bias"].lower = 0.5
        refused(lambda: adam.keep({"answer.bias": np.zeros(C, bool)}), ParameterError, "answer.bias", "0.5")
        assert all(np.array_equal(before[name], array) for name, array in values(net).items())
        assert adam.masks == {}
        adam.keep(good)
        state = adam.state()
        state["mask/" + WEIGHTS[0]] = np.ones((2, 2), np.uint8)
        refused(lambda: Adam(net.parameters()).load(state), ParameterError, "another optimiser")
        state = Adam(net.parameters()).state() | {"mask/nothing": np.ones(2, np.uint8)}
        refused(lambda: Adam(net.parameters()).load(state), ParameterError, "another optimiser")


# -- zeros that are not stored -----------------------------------------------------------------------------


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


# -- training ----------------------------------------------------------------------------------------------

TASK = DelayedCopy(n_symbols=4, delay=6, batch_size=16, cue=2, answer=2, seed=3)


def copy_network(units=32):
    net = Network(seed=1)
    net.add(EventSource(TASK.n_inputs, "cue"))
    net.add(EGRU(units, "hidden", threshold=0.1))
    net.add(LeakyReadout(TASK.n_outputs, "answer", tau=4.0))
    net.connect("cue", "hidden", weight=lambda rng, shape: rng.normal(0, 1.0, shape))
    net.connect("hidden", "hidden", weight="orthogonal")
    net.connect("hidden", "answer")
    return net


def copy_trials(stream, number=25):
    return islice(TASK.trials(stream), number)


class TestTraining:
    @pytest.mark.parametrize(
        "schedule",
        [
            CubicSchedule(begin=101, end=200, final=0.8, every=20),
            RoundSchedule(begin=101, every=33, rounds=4, final=0.8),
        ],
        ids=["cubic", "rounds"],
    )
    def test_the_loss_recovers(self, schedule):
        """Four epochs dense, four in which 80 % go, four of fine-tuning with the zeros not stored."""
        net = copy_network()
        trainer = Trainer(net, "answer", Adam(net.parameters(), lr=0.01, clip=1.0), threads=1)
        Pruner(net, schedule).attach(trainer.optimizer)
        unpruned = []

        def remember(entry):
            if entry["epoch"] == 3:
                unpruned.append(net.copy())

        history = fit(trainer, copy_trials, epochs=8, on_epoch=remember)
        masks = trainer.optimizer.masks
        assert set(masks) == set(WEIGHTS)
        for name, mask in masks.items():
            assert (~mask).sum() == round(0.8 * mask.size)
            assert np.array_equal(net.parameters()[name].values != 0, mask)
        small = sparsified(net)
        assert [row.sparse for row in sparsity_report(small)] == [True, True, False]
        tuned = Trainer(small, "answer", Adam(small.parameters(), lr=0.01, clip=1.0), threads=1)
        later = fit(tuned, lambda epoch: copy_trials(100 + epoch), epochs=4)

        def judged(network):
            return Trainer(network, "answer", Adam(network.parameters()), threads=1).evaluate(
                copy_trials(999, 5)
            )

        dense_loss, cut_loss = judged(unpruned[0]).mean_loss, judged(prune(unpruned[0], 0.8)).mean_loss
        print(
            dense_loss,
            cut_loss,
            judged(small).mean_loss,
            history.epochs[-1]["loss"],
            later.epochs[-1]["loss"],
        )
        assert dense_loss < 0.05
        assert cut_loss > 0.3  # at once, without training
        assert judged(small).mean_loss < 0.05
        assert judged(small).accuracy == 1
        assert later.epochs[-1]["loss"] < history.epochs[-1]["loss"]

    def pruned_run(self, path, epochs, resume=False, begin=31, optimizer=Adam):
        net = copy_network(12)
        trainer = Trainer(net, "answer", optimizer(net.parameters(), lr=0.02), threads=1)
        Pruner(net, CubicSchedule(begin, 80, 0.8, every=7), scope="global").attach(trainer.optimizer)
        fit(trainer, lambda e: copy_trials(e, 15), epochs=epochs, checkpoint=path, resume=resume)
        return trainer

    @pytest.mark.parametrize("epochs", [1, 3, 5, 6])
    @pytest.mark.parametrize("optimizer", [Adam, lambda p, lr: SGD(p, lr, momentum=0.9)], ids=["adam", "sgd"])
    def test_a_resumed_run_has_the_same_bits(self, tmp_path, epochs, optimizer):
        """Stopped before, amid and after pruning."""
        through = self.pruned_run(tmp_path / "through.h5", 7, optimizer=optimizer)
        self.pruned_run(tmp_path / "c.h5", epochs, optimizer=optimizer)
        resumed = self.pruned_run(tmp_path / "c.h5", 7, resume=True, optimizer=optimizer)
        assert resumed.optimizer.n_pruned == round(0.8 * (5 + 12) * 36)
        for name, array in through.optimizer.state().items():
            assert array.tobytes() == resumed.optimizer.state()[name].tobytes(), name
        for name, array in values(through.network).items():
            assert array.tobytes() == resumed.network.parameters()[name].values.tobytes(), name

    def test_the_best_epoch_is_one_with_all_zeros(self, tmp_path, monkeypatch):
        """Losses grow from epoch to epoch, so that without pruning the first one would be the best."""
        net = copy_network(12)
        trainer = Trainer(net, "answer", SGD(net.parameters(), lr=0.001), threads=1)
        Pruner(net, CubicSchedule(6, 18, 0.8, initial=0.3, every=6)).attach(trainer.optimizer)
        losses = iter(range(1, 9))
        monkeypatch.setattr(trainer, "evaluate", lambda of: Tally(loss=next(losses), targets=1))
        options = {"validation": tuple, "patience": 1, "checkpoint": tmp_path / "c.h5"}
        history = fit(trainer, lambda e: copy_trials(e, 5), epochs=2, **options)
        assert history.best_epoch == 1
        history = fit(trainer, lambda e: copy_trials(e, 5), epochs=8, resume=True, **options)
        assert history.best_epoch == 3  # steps 16 to 20, the last in which weights went
        assert history.stopped_early
        assert len(history.epochs) == 5
        best = Checkpoint.open(tmp_path / "c.h5").best
        for name in WEIGHTS:
            assert (best[name] == 0).sum() == round(0.8 * best[name].size)
            np.testing.assert_array_equal(net.parameters()[name].values, best[name])

    def test_patience_waits_for_the_schedule(self, monkeypatch):
        net = copy_network(12)
        trainer = Trainer(net, "answer", SGD(net.parameters(), lr=0.001), threads=1)
        Pruner(net, CubicSchedule(11, 11, 0.5)).attach(trainer.optimizer)
        losses = iter(range(1, 20))
        monkeypatch.setattr(trainer, "evaluate", lambda of: Tally(loss=next(losses), targets=1))
        history = fit(trainer, lambda e: copy_trials(e, 2), epochs=12, validation=tuple, patience=0)
        assert (history.best_epoch, len(history.epochs)) == (5, 6)  # steps 11 and 12 are of epoch 5

    def test_in_continuous_time(self):
        net = Network(dt=None, seed=0)
        net.add(EventSource(3, "cue"))
        net.add(LIF(6, "hidden"))
        net.connect("cue", "hidden", weight=4.0)
        net.connect("hidden", "hidden", weight=lambda rng, shape: rng.normal(0, 0.3, shape), delay=1.0)

        def loss(log, target):
            time = np.ones(log["hidden"].n_events)
            return Judgement(1.0, {"hidden.time": time}, np.zeros(target.shape, int))

        trainer = ContinuousTrainer(net, Adam(net.parameters(), lr=1e-3), loss)
        Pruner(net, CubicSchedule(1, 2, 0.5, every=1)).attach(trainer.optimizer)
        events = (np.array([0.5, 1.0, 1.5]), np.zeros(3, int), np.arange(3), np.ones(3))
        trainer.learn([Trial({"cue": events}, np.zeros(1, int), duration=20.0)] * 3)
        for name in WEIGHTS:
            array = net.parameters()[name].values
            assert (array == 0).sum() == array.size // 2

    def test_a_pruner_that_does_not_fit(self):
        net = network()
        schedule = CubicSchedule(1, 5, 0.5)
        pruner = Pruner(net, schedule)
        refused(lambda: pruner.attach(Adam(network().parameters())), ParameterError, "cue->hidden.weight")
        net.parameters()["hidden->hidden.weight"].trainable = False
        refused(lambda: pruner.attach(Adam(net.parameters())), ParameterError, "hidden->hidden.weight")
        adam = Adam(net.parameters())
        assert Pruner(net, schedule, "cue->*").attach(adam) is adam.pruning
        refused(lambda: Pruner(net, schedule, "cue->*").attach(adam), ParameterError, "already")
        old = Adam(net.parameters())
        old.n_steps = 5
        refused(lambda: Pruner(net, schedule, "cue->*").attach(old), ParameterError, "step 5")
        refused(lambda: Pruner(net, schedule, scope="gates"), ParameterError, "gates")
        refused(lambda: Pruner(net, schedule, "nothing"), NetworkError, "nothing")


# -- checkpoints -------------------------------------------------------------------------------------------


def trained(path, epochs=2, net=None):
    net = copy_network(12) if net is None else net
    trainer = Trainer(net, "answer", Adam(net.parameters(), lr=0.02), threads=1)
    fit(trainer, lambda e: copy_trials(e, 5), epochs=epochs, checkpoint=path)
    return net


class TestCheckpoint:
    def test_opens_as_sparse_and_can_be_trained(self, tmp_path):
        net = trained(tmp_path / "c.h5")
        before = Checkpoint.open(tmp_path / "c.h5")
        prune_checkpoint(before, 0.8).save(tmp_path / "p.h5")
        small = Checkpoint.open(tmp_path / "p.h5").in_form(copy_network(12))
        expected = prune(net, 0.8)
        for name, array in values(expected).items():
            assert array.tobytes() == small.parameters()[name].values.tobytes()
        for name, array in stored_structure(expected).items():
            np.testing.assert_array_equal(array, stored_structure(small)[name])
        trainer = Trainer(small, "answer", Adam(small.parameters(), lr=0.02), threads=1)
        history = fit(
            trainer, lambda e: copy_trials(e, 5), epochs=4, checkpoint=tmp_path / "p.h5", resume=True
        )
        assert len(history.epochs) == 4
        assert history.best_epoch == 3
        assert trainer.optimizer.n_steps == 20
        # ... and stored again, it is still what it was.
        again = Checkpoint.open(tmp_path / "p.h5").in_form(copy_network(12))
        assert sparsity_report(again) == sparsity_report(small)
        assert checkpoint_report(Checkpoint.open(tmp_path / "p.h5")) == sorted(
            sparsity_report(small), key=lambda row: list(before.parameters).index(row.projection + ".weight")
        )

    def test_moments_of_the_weights_that_are_left(self, tmp_path):
        trained(tmp_path / "c.h5")
        before = Checkpoint.open(tmp_path / "c.h5")
        after = prune_checkpoint(before, 0.8)
        for name in WEIGHTS:
            matrix = before.best[name]
            (mask,) = smallest([matrix], round(0.8 * matrix.size))
            for slot in ("mean", "square"):
                np.testing.assert_array_equal(
                    after.optimizer[f"{slot}/{name}"], before.optimizer[f"{slot}/{name}"][mask]
                )
        assert after.optimizer["n_steps"] == before.optimizer["n_steps"]

    @pytest.mark.parametrize("scope", ["projection", "block", "global"])
    def test_scopes_are_those_of_networks(self, tmp_path, scope):
        net = trained(tmp_path / "c.h5")
        found = prune_checkpoint(Checkpoint.open(tmp_path / "c.h5"), 0.7, scope=scope)
        for name, array in values(prune(net, 0.7, scope=scope)).items():
            np.testing.assert_array_equal(found.parameters[name], array)

    def test_twice_is_as_once(self, tmp_path):
        trained(tmp_path / "c.h5")
        start = Checkpoint.open(tmp_path / "c.h5")
        once, twice = prune_checkpoint(start, 0.9), prune_checkpoint(prune_checkpoint(start, 0.4), 0.9)
        for part in ("parameters", "best", "optimizer", "structure"):
            one, other = getattr(once, part), getattr(twice, part)
            assert set(one) == set(other)
            assert all(np.array_equal(one[name], other[name]) for name in one)

    def test_masks_of_a_run_that_prunes_gradually_count(self, tmp_path):
        TestTraining().pruned_run(tmp_path / "c.h5", 7)
        found = Checkpoint.open(tmp_path / "c.h5")
        assert "mask/hidden->hidden.weight" in found.optimizer
        after = prune_checkpoint(found, 0.5, scope="global")  # there are more zeros than that
        assert sum(row.nonzeros for row in checkpoint_report(after) if row.sparse) == 17 * 36 - round(
            0.8 * 17 * 36
        )
        assert not any(name.startswith("mask/") for name in after.optimizer)
        small = after.in_form(copy_network(12))
        trainer = Trainer(small, "answer", Adam(small.parameters(), lr=0.02), threads=1)
        after.save(tmp_path / "p.h5")
        fit(trainer, lambda e: copy_trials(e, 5), epochs=8, checkpoint=tmp_path / "p.h5", resume=True)

    def test_sparse_networks_of_other_pairs_are_told_apart(self, tmp_path):
        trained(tmp_path / "c.h5", net=prune(copy_network(12), 0.8))
        other = copy_network(12)
        other.projections["hidden->hidden"].weight.assign(
            1 / other.projections["hidden->hidden"].weight.values
        )
        other = prune(other, 0.8)
        trainer = Trainer(other, "answer", Adam(other.parameters(), lr=0.02), threads=1)
        before = values(other)
        refused(
            lambda: fit(trainer, copy_trials, epochs=3, checkpoint=tmp_path / "c.h5", resume=True),
            CheckpointError,
            "hidden->hidden.indices",
        )
        assert all(np.array_equal(before[name], array) for name, array in values(other).items())
        whole = copy_network(12)
        trainer = Trainer(whole, "answer", Adam(whole.parameters(), lr=0.02), threads=1)
        refused(
            lambda: fit(trainer, copy_trials, epochs=3, checkpoint=tmp_path / "c.h5", resume=True),
            CheckpointError,
            "in_form",
        )

    def test_a_file_without_structure_is_read_as_before(self, tmp_path):
        small = prune(copy_network(12), 0.8)
        trained(tmp_path / "c.h5", net=small)
        with h5py.File(tmp_path / "c.h5", "r+") as file:
            del file["structure"]
        old = Checkpoint.open(tmp_path / "c.h5")
        assert old.structure == {}
        old.restore(prune(copy_network(12), 0.8).parameters())
        refused(lambda: prune_checkpoint(old, 0.9), CheckpointError, "cue->hidden", "epoch")

    def test_refusals(self, tmp_path):
        trained(tmp_path / "c.h5")
        start = Checkpoint.open(tmp_path / "c.h5")
        refused(lambda: prune_checkpoint(start, 0.5, "x"), NetworkError, "'x'", "hidden->hidden")
        refused(lambda: prune_checkpoint(start, 1.5), ParameterError, "1.5")
        refused(lambda: prune_checkpoint(Checkpoint({}), 0.5), CheckpointError, "no weights")
        start.best[WEIGHTS[0]][0, 0] = np.nan
        refused(lambda: prune_checkpoint(start, 0.5), CheckpointError, WEIGHTS[0], "finite")
        small = prune_checkpoint(Checkpoint.open(tmp_path / "c.h5"), 0.5)
        refused(lambda: small.in_form(copy_network(13)), CheckpointError, "cue->hidden", "(5, 36)", "(5, 39)")
        small.structure["hidden->hidden.indices"][0] = 99
        refused(lambda: small.in_form(copy_network(12)), CheckpointError, "damaged")
        refused(lambda: prune_checkpoint(small, 0.9), CheckpointError, "damaged")
        del small.structure["hidden->hidden.indptr"]
        refused(lambda: small.in_form(copy_network(12)), CheckpointError, "hidden->hidden")

    def test_another_structure_in_the_network(self):
        one, other = prune(network(), 0.8), prune(network(), 0.5)
        refused(lambda: with_structure(one, stored_structure(other)), NetworkError, "other places")
        assert with_structure(one, stored_structure(one)) is not one


# -- evsim prune -------------------------------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["evsim", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return left.value.code or 0, *capsys.readouterr()

    return call


SETTINGS = ("--n-symbols", 3, "--delay", 2, "--units", 10, "--trials", 3, "--batch-size", 4, "--quiet")


class TestCommand:
    def test_a_checkpoint(self, command, tmp_path):
        trained(tmp_path / "c.h5")
        code, out, err = command("prune", "c.h5", "--sparsity", 0.8, "-o", "p.h5")
        assert (code, err) == (0, "")
        assert re.search(r"^cue->hidden +sparse +180 +36 +80.0 ", out, re.MULTILINE)
        assert re.search(r"^hidden->hidden +sparse +432 +86 +80.1 ", out, re.MULTILINE)
        assert re.search(r"^hidden->answer +dense +48 +48 +0.0 ", out, re.MULTILINE)
        assert out.endswith("p.h5\n")
        assert Checkpoint.open(tmp_path / "p.h5").structure

    def test_a_run_folder_is_trained_further(self, command, tmp_path):
        assert command("run", "delayed_copy", "--out", "run", "--epochs", 1, *SETTINGS)[0] == 0
        code, _, err = command(
            "prune",
            "run",
            "--sparsity",
            0.9,
            "--scope",
            "global",
            "--projections",
            "hidden->hidden",
            "-o",
            "small",
        )
        assert (code, err) == (0, ""), err
        assert command("run", "delayed_copy", "--resume", "small", "--epochs", 3, "--quiet") == (0, "", "")
        summary = json.loads((tmp_path / "small" / "summary.json").read_text())
        assert len(summary["epochs"]) == 3
        rows = {
            row.projection: row
            for row in checkpoint_report(Checkpoint.open(tmp_path / "small" / "checkpoint.h5"))
        }
        assert rows["hidden->hidden"].nonzeros == 30
        assert rows["hidden->hidden"].sparse
        assert not rows["cue->hidden"].sparse
        # ... and once more
        code, _, err = command("prune", "small", "--sparsity", 0.95, "-o", "smaller")
        assert (code, err) == (0, "")
        assert command("run", "delayed_copy", "--resume", "smaller", "--epochs", 4, "--quiet") == (0, "", "")

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("c.h5", "--sparsity", 1, "-o", "p.h5"), "sparsity is 1.0"),
            (("c.h5", "--sparsity", "nan", "-o", "p.h5"), "sparsity is nan"),
            (("c.h5", "--sparsity", "x", "-o", "p.h5"), "'x'"),
            (("c.h5", "-o", "p.h5"), "--sparsity"),
            (("c.h5", "--sparsity", 0.5), "--out"),
            (("nothing.h5", "--sparsity", 0.5, "-o", "p.h5"), "nothing.h5"),
            ((".", "--sparsity", 0.5, "-o", "p"), "checkpoint.h5"),
            (("c.h5", "--sparsity", 0.5, "-o", "c.h5"), "is the one to prune"),
            (("c.h5", "--sparsity", 0.5, "-o", "c.h5", "--force"), "is the one to prune"),
            (("c.h5", "--sparsity", 0.5, "-o", "there.h5"), "exists already"),
            (("c.h5", "--sparsity", 0.5, "-o", "no/where.h5"), "no"),
            (("c.h5", "--sparsity", 0.5, "--scope", "all", "-o", "p.h5"), "all"),
            (("c.h5", "--sparsity", 0.5, "--projections", "hiden", "-o", "p.h5"), "hiden"),
            (("there.h5", "--sparsity", 0.5, "-o", "p.h5"), "there.h5"),
        ],
    )
    def test_refusals(self, command, tmp_path, words, said):
        trained(tmp_path / "c.h5", epochs=1)
        (tmp_path / "there.h5").write_text("x")
        before = (tmp_path / "c.h5").read_bytes()
        code, out, err = command("prune", *words)
        assert (code, out) == (2, "")
        assert re.fullmatch(r"evsim: [^\n]+\n", err), err
        assert said in err, err
        assert (tmp_path / "c.h5").read_bytes() == before
        assert not (tmp_path / "p.h5").exists()
