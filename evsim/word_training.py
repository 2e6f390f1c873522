"""Training and testing of word-level language models: embedding, a body of recurrent layers, softmax."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from evsim.network import Network
from evsim.optimizer import Optimizer
from evsim.parameter import Parameter
from evsim.tied_embedding import TiedEmbedding
from evsim.training import Tally, add
from evsim.word_recipe import Masks, Recipe, Window, draw_masks


class Stack(Protocol):
    """Recurrent layers between embedded words and what words are predicted from.

    `evsim.event_stack.EventStack`, and `evsim.dense_stack.DenseStack`, its dense twin.
    """

    @property
    def network(self) -> Network | None:
        """The network of event-based layers; None of dense ones."""

    @property
    def n_inputs(self) -> int:
        """Length of the vectors that go in."""

    @property
    def n_units(self) -> int:
        """Length of the vectors that come out."""

    @property
    def sizes(self) -> list[int]:
        """Units of each layer."""

    @property
    def recurrent_shapes(self) -> list[tuple[int, int]]:
        """Of each layer's recurrent weights: a row per unit, blocks of gates side by side."""

    def parameters(self) -> dict[str, Parameter]:
        """By name."""

    def reset(self) -> None:
        """Begin at rest."""

    def states(self) -> Any:
        """The states in which the last window ended, for `restore`."""

    def restore(self, states: Any) -> None:
        """Go on from there."""

    def read(self, x: NDArray, carry: bool) -> NDArray:
        """(n_steps, n_lanes, n_inputs) -> (n_steps, n_lanes, n_units), with nothing dropped."""

    def forward(self, x: NDArray, masks: Masks, carry: bool) -> NDArray:
        """As `read`, with dropout, keeping what `backward` needs."""

    def backward(self, dy: NDArray) -> tuple[NDArray, dict[str, NDArray]]:
        """Gradients at the input and of the parameters."""

    def count(self, tally: Tally, backward: bool = False) -> None:
        """Add events and MACs of the last run, or of the last `backward`."""


class WordTrainer:
    """A language model with all that is needed to train it; what `evsim.training.fit` calls a learner.

    Parameters
    ----------
    embedding : TiedEmbedding
    stack : Stack
        From vectors of the embedding's length to vectors of that length.
    recipe : Recipe
    optimizer : Optimizer
        Of `parameters` of both.  Its learning rate is set before every step (`Recipe.rate`).

    Attributes
    ----------
    running : Tally
        Of the present or last pass of `learn`, up to now.
    """

    def __init__(self, embedding: TiedEmbedding, stack: Stack, recipe: Recipe, optimizer: Optimizer):
        self.embedding, self.stack, self.recipe, self.optimizer = embedding, stack, recipe, optimizer
        self.network = stack.network
        self.running = Tally()

    def parameters(self) -> dict[str, Parameter]:
        """Those of the embedding and of the layers."""
        return self.embedding.parameters() | self.stack.parameters()

    def reset(self) -> None:
        """Forget the states in which the last window ended."""
        self.stack.reset()

    def learn(self, windows: Iterable[Window], tick: Callable[[], None] = lambda: None) -> Tally:
        """One pass over windows of text with an optimiser step after each.

        The loss of the tally is that of the model with dropout.
        """
        tally = self.running = Tally()
        for window in windows:
            masks = self._draw(window)
            start = time.perf_counter()
            x = self.embedding.look_up(window.words)
            seen = _both(masks.words, masks.embedding, window.words)
            if seen is not None:
                x *= seen
            y = self.stack.forward(x, masks, window.carry)
            forward = time.perf_counter()
            hidden = y if masks.output is None else y * masks.output
            flat = hidden.reshape(-1, self.stack.n_units)
            loss, dhidden, gradients = self.embedding.loss(flat, window.targets.ravel())
            dy = dhidden.reshape(y.shape)
            if masks.output is not None:
                dy *= masks.output
            softmax = time.perf_counter()
            dx, more = self.stack.backward(dy)
            backward = time.perf_counter()
            if seen is not None:
                dx *= seen
            self.embedding.add_looked_up(gradients, window.words, dx)
            n_steps = len(window.words)
            self.optimizer.lr = self.recipe.rate(window.progress) * n_steps / self.recipe.window
            self.optimizer.step(gradients | more)
            end = time.perf_counter()
            tally.trials += 1
            tally.targets += window.targets.size
            tally.loss += loss * window.targets.size
            self.stack.count(tally)
            self.stack.count(tally, backward=True)
            seconds = {
                "forward": forward - start,
                "softmax": softmax - forward,
                "backward": backward - softmax,
                "other": end - backward,
            }
            add(tally.seconds, seconds)
            tick()
        return tally

    def evaluate(self, windows: Iterable[Window]) -> Tally:
        """One pass over windows of text without learning: the exact loss, from rest.

        The states of training are left as they are.
        """
        tally, states = Tally(), self.stack.states()
        self.stack.reset()
        try:
            for window in windows:
                start = time.perf_counter()
                y = self.stack.read(self.embedding.look_up(window.words), window.carry)
                forward = time.perf_counter()
                nats = self.embedding.nats(y.reshape(-1, self.stack.n_units), window.targets.ravel())
                end = time.perf_counter()
                add(tally.seconds, {"forward": forward - start, "softmax": end - forward})
                tally.trials += 1
                tally.targets += nats.size
                tally.loss += float(nats.sum())
                self.stack.count(tally)
        finally:
            self.stack.restore(states)
        return tally

    def _draw(self, window: Window) -> Masks:
        return draw_masks(
            self.recipe,
            window,
            self.embedding.n_words,
            self.embedding.n_units,
            self.stack.sizes,
            self.stack.recurrent_shapes,
            self.embedding.dtype,
        )


def _both(words: NDArray | None, units: NDArray | None, text: NDArray) -> NDArray | None:
    """Factors of the vectors of a text, (n_steps, n_lanes, n_units or 1): dropped words, dropped units."""
    if words is None:
        return None if units is None else units[None]
    by_word = words[text][..., None]
    return by_word if units is None else by_word * units


def perplexity(tally: Tally) -> float:
    """exp(mean loss)."""
    return float(np.exp(min(tally.mean_loss, 700.0)))
