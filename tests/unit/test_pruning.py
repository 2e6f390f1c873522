"""Pruning: masks against a sort in plain Python, schedules, and what optimisers hold at 0."""

import numpy as np
import pytest
import scipy.sparse

import evsim
from evsim.errors import NetworkError, ParameterError
from evsim.fixed_point import FixedPoint, quantize
from evsim.models import EGRU, DeltaLSTM, DeltaReadout, EventSource, LeakyReadout
from evsim.network import Network
from evsim.optimizer import SGD, Adam
from evsim.pruning import CubicSchedule, RoundSchedule, magnitude_mask, prune
from oracles.pruning_cases import WEIGHTS, C, H, K, network, refused, smallest, values

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
