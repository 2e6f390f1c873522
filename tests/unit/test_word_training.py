"""Training of word-level models: the body of event-based layers, the trainer, text that is generated."""

import numpy as np
import pytest

from evsim.adjoint import Adjoint
from evsim.checkpoint import Checkpoint
from evsim.errors import NetworkError, StimulusError
from evsim.event_stack import EventStack, build_stack, tabulated
from evsim.generation import LINE, generate_lines
from evsim.models import EventSource
from evsim.network import Network
from evsim.optimizer import SGD, Adam
from evsim.pruning import magnitude_mask, prune
from evsim.simulation import Simulation
from evsim.sparsity import sparsified
from evsim.tied_embedding import TiedEmbedding
from evsim.training import fit
from evsim.word_recipe import Masks, Recipe, Window, draw_masks, reading_windows, training_windows
from evsim.word_training import WordTrainer, perplexity

SIZES, UNITS, WORDS, LANES = [7, 5], 5, 30, 3
TEXT = np.random.default_rng(8).integers(0, WORDS, 400).astype(np.int32)
RECIPE = Recipe(
    lanes=LANES,
    window=9,
    epochs=2,
    lr=1e-2,
    dropout_words=0.2,
    dropout_embedding=0.3,
    dropout_layers=0.25,
    dropout_output=0.2,
    dropconnect=0.3,
)


@pytest.fixture(params=["state", "events", "states"])
def reads(request):
    return request.param


def stack(seed=0, dtype=np.float64, **options):
    return EventStack(
        build_stack(UNITS, SIZES, 0.02, train_threshold=True, seed=seed, dtype=np.dtype(dtype).name),
        **options,
    )


def trainer(recipe=RECIPE, dtype=np.float32, seed=0, optimizer=Adam, **options):
    body, words = stack(seed, dtype, **options), TiedEmbedding(WORDS, UNITS, (8, 20), dtype, seed)
    return WordTrainer(words, body, recipe, optimizer(words.parameters() | body.parameters(), 1e-2))


def masks(lanes=LANES, seed=3, dtype=np.float64):
    text = np.zeros((2, lanes), np.int32)
    window = Window(text, text, False, 0, seed)
    shapes = [(7, 21), (5, 15)]
    return draw_masks(RECIPE, window, WORDS, UNITS, SIZES, shapes, np.dtype(dtype))


def inputs(steps=6, lanes=LANES, seed=1):
    return np.random.default_rng(seed).normal(0, 1, (steps, lanes, UNITS))


class TestEventStack:
    def test_dropout_is_a_network_with_other_weights(self, reads):
        """Of one lane: what a layer sends times a mask is a mask times the rows of its weights."""
        body, given, x = stack(reads=reads), masks(1), inputs(lanes=1)
        other = build_stack(UNITS, SIZES, 0.02, dtype="float64")
        weights = {name: p.weight.values for name, p in other.projections.items()}
        weights["layer1->layer2"] *= given.layers[0][0][:, None]
        weights["layer1->layer1"] *= given.recurrent[0]
        weights["layer2->layer2"] *= given.recurrent[1]
        dy = np.random.default_rng(2).normal(0, 1, (6, 1, UNITS))
        twin = EventStack(other, reads=reads)
        nothing = Masks(layers=[None], recurrent=[None, None])
        wanted_y = twin.forward(x, nothing, False)
        assert body.forward(x, given, False) == pytest.approx(wanted_y, rel=1e-12, abs=1e-15)
        dx, gradients = body.backward(dy)
        wanted_dx, wanted = twin.backward(dy)
        assert dx == pytest.approx(wanted_dx, rel=1e-10, abs=1e-14)
        factor = {
            "layer1->layer2.weight": given.layers[0][0][:, None],
            "layer1->layer1.weight": given.recurrent[0],
            "layer2->layer2.weight": given.recurrent[1],
        }
        for name, gradient in gradients.items():
            assert gradient == pytest.approx(wanted[name] * factor.get(name, 1), rel=1e-10, abs=1e-14), name

    @pytest.mark.parametrize("sizes", [[5, 5], [7, 5]])
    def test_states_of_all_layers_are_those_of_the_last_and_of_a_stack_without_it(self, sizes):
        """What layer 1 does not depend on layer 2; their sum and its gradient are sums of both."""
        x, dy = inputs(), np.random.default_rng(2).normal(0, 1, (6, LANES, 5))
        network = build_stack(UNITS, sizes, 0.02, dtype="float64")
        small = build_stack(UNITS, sizes[:1], 0.02, dtype="float64")
        for name, parameter in small.parameters().items():
            parameter.assign(network.parameters()[name].values)
        given = draw_masks(
            RECIPE,
            Window(*2 * [np.zeros((2, LANES), np.int32)], False),
            WORDS,
            5,
            sizes,
            [(n, 3 * n) for n in sizes],
            dy.dtype,
        )
        lower = Masks(layers=[], recurrent=given.recurrent[:1])
        both, last, first = (
            EventStack(network, reads="states"),
            EventStack(network, reads="state"),
            EventStack(small, reads="state"),
        )
        y = both.forward(x, given, False)
        of_first = first.forward(x, lower, False)[..., :5]
        assert y == pytest.approx(last.forward(x, given, False) + of_first, rel=1e-12)
        of_first = first.read(x, False)[..., :5]
        assert both.read(x, False) == pytest.approx(last.read(x, False) + of_first, rel=1e-12)
        for one, masks_of_one in ((both, given), (last, given), (first, lower)):
            one.forward(x, masks_of_one, False)
        dx, gradients = both.backward(dy)
        padded = np.concatenate([dy, np.zeros((6, LANES, sizes[0] - 5))], axis=2)
        (dx_last, of_last), (dx_first, of_first) = last.backward(dy), first.backward(padded)
        assert dx == pytest.approx(dx_last + dx_first, rel=1e-10, abs=1e-14)
        for name, gradient in gradients.items():
            wanted = of_last[name] + of_first.get(name, 0)
            assert gradient == pytest.approx(wanted, rel=1e-10, abs=1e-14), name

    def test_states_of_layers_narrower_than_the_last_have_no_sum(self):
        with pytest.raises(NetworkError, match=r"\[7, 4, 5\]"):
            EventStack(build_stack(UNITS, [7, 4, 5]), reads="states")

    def test_weights_are_left_as_they_were(self):
        body = stack()
        before = {name: p.values.copy() for name, p in body.parameters().items()}
        body.forward(inputs(), masks(), False)
        body.backward(np.ones((6, LANES, UNITS)))
        assert all(np.array_equal(before[name], p.values) for name, p in body.parameters().items())

    def test_pruned_and_stored_without_zeros_it_is_the_same(self):
        dense = build_stack(UNITS, SIZES, 0.02, dtype="float64")
        masks_of = magnitude_mask(dense, 0.6, "*->layer*")
        for name, mask in masks_of.items():
            dense.parameters()[name].values[~mask] = 0
        one, other = EventStack(dense), EventStack(sparsified(dense))
        x, given, dy = inputs(), masks(), np.random.default_rng(2).normal(0, 1, (6, LANES, UNITS))
        assert one.forward(x, given, False) == pytest.approx(other.forward(x, given, False), rel=1e-12)
        (dx, gradients), (dx_sparse, sparse) = one.backward(dy), other.backward(dy)
        assert dx == pytest.approx(dx_sparse, rel=1e-10, abs=1e-14)
        for name, p in other.network.projections.items():
            kept = dense.projections[name].weight.values != 0
            assert gradients[f"{name}.weight"][kept] == pytest.approx(
                sparse[f"{name}.weight"], rel=1e-9, abs=1e-14
            ), p

    def test_reading_in_windows_is_reading_at_once(self, reads):
        body, x = stack(reads=reads), inputs(9)
        whole = body.read(x, carry=False)
        body.reset()
        parts = [body.read(x[:4], carry=False), body.read(x[4:], carry=True)]
        assert np.concatenate(parts) == pytest.approx(whole, rel=1e-12)

    def test_states_are_kept_for_later(self):
        body, x = stack(), inputs(9)
        whole = body.read(x, carry=False)
        body.reset()
        body.read(x[:4], carry=False)
        kept = body.states()
        body.reset()
        body.read(3 * x, carry=True)
        body.restore(kept)
        assert body.read(x[4:], carry=True) == pytest.approx(whole[4:], rel=1e-12)

    @pytest.mark.parametrize("target", [0.0, 0.3])
    def test_activity_cost_draws_units_to_a_target(self, target):
        distances = []
        for cost in (0.0, 200.0):
            learner = trainer(RECIPE, activity_cost=cost, activity_target=target)
            for epoch in range(4):
                learner.learn(training_windows(TEXT, RECIPE, epoch))
            log = Simulation(learner.stack.network).run({"words": learner.embedding.look_up(TEXT)[:, None]})
            active = [log[name].events.to_dense()[:, 0] > 0 for name in learner.stack.layers]
            distances.append(np.mean((np.concatenate(active, axis=1).mean(axis=0) - target) ** 2))
        assert distances[1] < 0.5 * distances[0]

    def test_activity_cost_is_a_loss_of_every_event(self):
        """Adjoint events beside: with the derivatives of cost mean_i (a_i - target)^2 by each event."""
        x, dy = inputs(steps=7), np.random.default_rng(2).normal(0, 1, (7, LANES, 5))
        given = Masks(layers=[None], recurrent=[None, None])
        bodies = [stack(activity_cost=cost, activity_target=0.2) for cost in (0.0, 12.0)]
        for body in bodies:
            body.forward(x, given, False)
        (dx, plain), (dx_cost, cost) = (body.backward(dy) for body in bodies)
        log = Simulation(bodies[0].network).run({"words": x})
        losses = {}
        for name, n in zip(("layer1", "layer2"), SIZES, strict=True):
            activity = (log[name].events.to_dense() > 0).mean(axis=(0, 1))
            each = 2 * 12.0 * (activity - 0.2) / sum(SIZES) / (7 * LANES)
            losses[f"{name}.o"] = np.broadcast_to(each, (7, LANES, n)).copy()
        more = Adjoint(Simulation(bodies[0].network).plan).replay(log, losses, inputs=True)
        assert dx_cost - dx == pytest.approx(more.inputs["words"], rel=1e-9, abs=1e-14)
        for name, gradient in dict(more).items():
            assert cost[name] - plain[name] == pytest.approx(gradient, rel=1e-9, abs=1e-14), name
        assert np.abs(dx_cost - dx).max() > 0

    def test_another_network(self):
        network = Network(dt=1.0)
        network.add(EventSource(5, "cue"))
        with pytest.raises(NetworkError, match=r"sources .'cue'."):
            EventStack(network)

    def test_backward_first(self):
        with pytest.raises(StimulusError, match="backward without forward"):
            stack().backward(np.ones((1, 1, 5)))


class TestTrainer:
    def test_gradient_is_that_of_the_whole_model(self, reads):
        """A step of plain descent of size lr lowers the loss by lr |gradient|^2, in the limit.

        With gamma 0 and no event appearing or vanishing the gradient is exact.
        """
        recipe = Recipe(lanes=LANES, window=400, epochs=1, warm_up=0, dropconnect=0.3, seed=5)
        learner = trainer(recipe, np.float64, optimizer=SGD, gamma=0.0, reads=reads)
        windows = [Window(TEXT[:24].reshape(8, 3), TEXT[1:25].reshape(8, 3), False)]
        values = {name: p.values for name, p in learner.parameters().items()}
        before = {name: v.copy() for name, v in values.items()}
        losses = []
        for lr in (0.0, 1e-6):
            for name, v in values.items():
                v[...] = before[name]
            object.__setattr__(recipe, "lr", lr * 400 / 8)
            first = learner.learn(windows).loss / 24
            moved = sum(float(((values[n] - before[n]) ** 2).sum()) for n in values)
            object.__setattr__(recipe, "lr", 0.0)
            losses.append((first, learner.learn(windows).loss / 24, moved))
        lowered = losses[1][0] - losses[1][1]
        assert lowered == pytest.approx(losses[1][2] / 1e-6, rel=1e-4)

    def test_learns_a_text_that_repeats(self):
        text = np.tile(np.arange(10, dtype=np.int32), 60)
        recipe = Recipe(
            lanes=4,
            window=20,
            epochs=40,
            lr=2e-2,
            dropout_embedding=0.0,
            dropout_output=0.0,
            dropout_layers=0.0,
        )
        body = EventStack(build_stack(16, [24, 16], 0.02))
        words = TiedEmbedding(10, 16, (4,))
        learner = WordTrainer(
            words, body, recipe, Adam(words.parameters() | body.parameters(), 2e-2, clip=1.0)
        )
        fit(learner, lambda epoch: training_windows(text, recipe, epoch), epochs=40)
        assert perplexity(learner.evaluate(reading_windows(text, 1, 50))) < 1.3

    def test_evaluation_is_the_sum_over_words_and_keeps_states(self):
        learner = trainer(dtype="float64")
        learner.learn(training_windows(TEXT, RECIPE, 0))
        x = learner.embedding.look_up(TEXT[:6])[:, None].repeat(LANES, 1)
        kept = learner.stack.states()
        tally = learner.evaluate(reading_windows(TEXT, 1, 7))
        assert learner.stack.states() is kept
        learner.stack.reset()
        hidden = learner.stack.read(learner.embedding.look_up(TEXT[:-1])[:, None], carry=False)[:, 0]
        table = learner.embedding.log_probabilities(hidden)
        assert tally.mean_loss == pytest.approx(-table[np.arange(399), TEXT[1:]].mean(), rel=1e-10)
        assert tally.targets == tally.lane_steps == 399
        assert x.shape == (6, LANES, UNITS)

    def test_a_resumed_run_has_the_same_bits(self, tmp_path):
        def run(path, **options):
            learner = trainer(RECIPE)
            fit(
                learner,
                lambda epoch: training_windows(TEXT, RECIPE, epoch),
                validation=lambda: reading_windows(TEXT[:90], 2, 8),
                checkpoint=path,
                **options,
            )
            return learner

        run(tmp_path / "whole.h5", epochs=3)
        run(tmp_path / "parts.h5", epochs=1)
        run(tmp_path / "parts.h5", epochs=3, resume=True)
        whole, parts = (Checkpoint.open(tmp_path / name) for name in ("whole.h5", "parts.h5"))
        for part in ("parameters", "best", "optimizer"):
            one, other = getattr(whole, part), getattr(parts, part)
            assert one.keys() == other.keys()
            assert all(np.array_equal(one[name], other[name]) for name in one), part
        assert any(name.startswith("embedding.cluster") for name in whole.parameters)


class TestTabulated:
    def test_rows_of_words_are_what_the_first_layer_receives(self):
        body, words = stack(), TiedEmbedding(WORDS, UNITS, (8,), np.float64)
        table = tabulated(body.network, words)
        read = Simulation(body.network).run({"words": words.look_up(TEXT[:50])[:, None]})
        looked_up = Simulation(table).run(TEXT[:50])
        for layer in ("layer1", "layer2"):
            one, other = read[layer].events, looked_up[layer].events
            assert np.array_equal(one.ptr, other.ptr)
            assert np.array_equal(one.unit, other.unit)
            assert one.value == pytest.approx(other.value, rel=1e-12)
        assert looked_up.counters["macs"]["words->layer1"] == 50 * 21

    def test_pruned_networks_too(self):
        network, words = (
            build_stack(UNITS, SIZES, 0.02, dtype="float64"),
            TiedEmbedding(WORDS, UNITS, (8,), np.float64),
        )
        other = tabulated(prune(network, 0.6, "*->layer*"), words)
        kept = magnitude_mask(network, 0.6, "*->layer*")["words->layer1.weight"]
        table = words.look_up(np.arange(WORDS)) @ (network.projections["words->layer1"].weight.values * kept)
        assert other.projections["words->layer1"].weight.values == pytest.approx(table, rel=1e-12, abs=1e-14)
        assert other.projections["layer1->layer1"].is_sparse


class TestGeneration:
    def lines(self, number, **options):
        learner = trainer(seed=2)
        return list(generate_lines(learner.embedding, learner.stack, np.array([1, 2, 3]), number, **options))

    def test_as_many_words_as_asked_in_lines(self):
        lines = self.lines(2 * LINE + 3)
        assert [line.words.size for line in lines] == [LINE, LINE, 3]
        words = np.concatenate([line.words for line in lines])
        assert ((words >= 0) & (words < WORDS)).all()
        assert all(0 <= line.activity <= 1 and line.microseconds > 0 for line in lines)

    @pytest.mark.parametrize("reads", ["state", "events", "states"])
    def test_words_are_drawn_from_what_reading_all_that_was_said_gives(self, reads):
        """In vectors and at once; the largest of log P plus Gumbel noise."""
        words = TiedEmbedding(WORDS, UNITS, (8, 20), np.float64)
        for parameter in words.parameters().values():  # as drawn, next to nothing would happen
            parameter.values *= 30
        body = EventStack(build_stack(UNITS, SIZES, dtype="float64"), reads=reads)
        said = np.concatenate([line.words for line in generate_lines(words, body, TEXT[:4], 20, 0.7, 6)])
        y = body.read(words.look_up(np.concatenate([TEXT[:4], said]))[:, None], carry=False)[:, 0]
        noise = np.random.default_rng(6).gumbel(size=(20, WORDS))
        expected = (words.log_probabilities(y)[3:-1] / 0.7 + noise).argmax(axis=1)
        assert np.array_equal(said, expected)
        assert len(set(said)) > 2

    def test_activity_is_that_of_the_words_heard(self):
        learner = trainer(seed=2)
        lines = list(generate_lines(learner.embedding, learner.stack, TEXT[:4], LINE))
        heard = np.concatenate([TEXT[:4], lines[0].words[:-1]])
        log = Simulation(learner.stack.network).run({"words": learner.embedding.look_up(heard)[:, None]})
        events = sum(log[name].n_events for name in learner.stack.layers)
        assert lines[0].activity == pytest.approx(events / (len(heard) * sum(SIZES)))

    def test_the_same_for_a_seed(self):
        one, same, other = (
            np.concatenate([line.words for line in self.lines(40, seed=seed)]) for seed in (1, 1, 2)
        )
        assert np.array_equal(one, same)
        assert not np.array_equal(one, other)

    def test_cold_it_takes_the_most_likely_word(self):
        learner = trainer(seed=2)
        for parameter in learner.embedding.parameters().values():
            parameter.assign(np.random.default_rng(1).normal(0, 1, parameter.values.shape))
        (line,) = generate_lines(learner.embedding, learner.stack, np.array([4]), 5, temperature=1e-6)
        heard = [4]
        for _ in range(5):
            learner.stack.reset()
            y = learner.stack.read(learner.embedding.look_up(np.array(heard))[:, None], carry=False)
            heard.append(int(learner.embedding.log_probabilities(y[-1]).argmax()))
        assert line.words.tolist() == heard[1:]

    def test_nothing_to_begin_with(self):
        learner = trainer()
        with pytest.raises(StimulusError, match="no word"):
            list(generate_lines(learner.embedding, learner.stack, np.array([], np.int64), 3))
