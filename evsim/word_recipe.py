"""How a word-level language model is trained: one recipe for event-based layers and for their dense twins.

It is that of regularised LSTM language models (Merity, Keskar & Socher, "Regularizing and optimizing LSTM
language models", ICLR 2018), which the EGRU papers follow.  All that is random in it (lengths of windows,
masks) depends on the seed, the epoch and the number of the window only, so a resumed run equals an
uninterrupted one, and two models trained with one recipe see the same windows and masks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evsim.errors import ParameterError

#: A window is half as long with this probability; lengths vary by a standard deviation of so many steps,
#: and are so many at least.
HALVED, SPREAD, SHORTEST = 0.05, 5.0, 5


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of training.

    Attributes
    ----------
    lanes : int
        Streams of text learned from at once.
    window : int
        Steps of truncated backpropagation; single windows differ, and states are carried from one to the
        next.
    rests : float
        Share of windows that begin at rest instead.  Else slow units come to hold values that only a long
        text brings about, and a text is read badly from its start, for thousands of words.
    epochs : int
    lr : float
        Learning rate of AdamW; it falls to ``final_lr`` times that along a cosine over all epochs, and is
        proportional to the length of each window.
    final_lr : float
    warm_up : float
        Epochs in which the rate rises to ``lr``.
    betas : tuple of float
    weight_decay : float
        Of weights, not of biases and thresholds.  It makes units more silent: mean inputs become negative.
    clip : float
        Largest norm of the gradient.
    dropout_words : float
        Share of the vocabulary whose vectors are 0 for a window (Gal & Ghahramani 2016).
    dropout_embedding, dropout_layers, dropout_output : float
        Share of units that are 0 for a lane and window: of the vectors looked up, of what goes from one
        layer to the next, and of what words are predicted from.  Masks are drawn for each lane and stay the
        same over the steps of a window (variational dropout).
    dropconnect : float
        Share of recurrent weights that are 0 for a window.
    activity_cost, activity_target : float
        Of event-based layers: see `evsim.event_stack.EventStack`.
    seed : int
    """

    lanes: int = 32
    window: int = 35
    rests: float = 0.02
    epochs: int = 10
    lr: float = 6e-3
    final_lr: float = 0.02
    warm_up: float = 0.25
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.05
    clip: float = 0.5
    dropout_words: float = 0.03
    dropout_embedding: float = 0.2
    dropout_layers: float = 0.15
    dropout_output: float = 0.2
    dropconnect: float = 0.1
    activity_cost: float = 0.0
    activity_target: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("lanes", "window", "epochs"):
            if getattr(self, name) < 1:
                raise ParameterError("recipe", f"{name} is {getattr(self, name)}", "give 1 or more")
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name.startswith(("drop", "rests")) and not 0 <= value < 1:
                raise ParameterError("recipe", f"{one.name} is {value}", "give a share from 0 to below 1")
        for name in ("lr", "weight_decay", "activity_cost", "activity_target", "warm_up", "final_lr"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ParameterError("recipe", f"{name} is {getattr(self, name)}", "give 0 or more")

    def rate(self, progress: float) -> float:
        """The learning rate after so many epochs."""
        if progress < self.warm_up:
            return self.lr * progress / self.warm_up
        turn = (1 + math.cos(math.pi * min(progress / self.epochs, 1.0))) / 2
        return self.lr * (self.final_lr + (1 - self.final_lr) * turn)


class Window(NamedTuple):
    """Some steps of text in parallel lanes.

    Attributes
    ----------
    words, targets : ndarray of int32, shape (n_steps, n_lanes)
        A target is the word after.
    carry : bool
        Whether the text goes on from the window before.
    epoch, number : int
        What masks are drawn for.
    progress : float
        Epochs done before this window.
    """

    words: NDArray[np.int32]
    targets: NDArray[np.int32]
    carry: bool
    epoch: int = 0
    number: int = 0
    progress: float = 0.0


@dataclass
class Masks:
    """Factors of one window, 0 or 1 / (1 - share); None where nothing is dropped.

    Attributes
    ----------
    words : (n_words,)
    embedding : (n_lanes, n_units of the embedding)
    layers : for each layer but the last, (n_lanes, its units): of what goes to the next layer
    output : (n_lanes, units of the last layer)
    recurrent : for each layer, the shape of its recurrent weights
    """

    words: NDArray | None = None
    embedding: NDArray | None = None
    layers: list[NDArray | None] = field(default_factory=list)
    output: NDArray | None = None
    recurrent: list[NDArray | None] = field(default_factory=list)


def training_windows(words: NDArray[np.int32], recipe: Recipe, epoch: int) -> Iterator[Window]:
    """One pass over a text in windows of random length: half as long now and then, and by some steps.

    A window goes on from the one before, but for some that begin at rest.
    """
    text = lanes_of(words, recipe.lanes)
    rng, rests = (np.random.default_rng([recipe.seed, kind, epoch]) for kind in (1, 3))
    n_steps, at, number = len(text) - 1, 0, 0
    while at < n_steps:
        mean = recipe.window if rng.random() >= HALVED else recipe.window / 2
        length = max(round(rng.normal(mean, SPREAD)), min(SHORTEST, recipe.window))
        stop = min(at + length, n_steps)
        inputs, targets = text[at:stop], text[at + 1 : stop + 1]
        carry = bool(rests.random() >= recipe.rests) and number > 0
        yield Window(inputs, targets, carry, epoch, number, epoch + at / n_steps)
        at, number = stop, number + 1


def reading_windows(words: NDArray[np.int32], lanes: int, window: int) -> Iterator[Window]:
    """One pass over a text in windows of one length, the last one shorter."""
    text = lanes_of(words, lanes)
    for at in range(0, len(text) - 1, window):
        stop = min(at + window, len(text) - 1)
        yield Window(text[at:stop], text[at + 1 : stop + 1], at > 0)


def lanes_of(words: NDArray[np.int32], lanes: int) -> NDArray[np.int32]:
    """A text cut into lanes, shape (n_steps + 1, lanes): the first word of a lane is the last one before it.

    Every word but the first of the text is a target once; what does not fill all lanes is left out.
    """
    n_steps = (len(words) - 1) // lanes
    if n_steps < 1:
        raise ParameterError("text", f"{len(words)} words cannot fill {lanes} lanes", "use fewer lanes")
    starts = np.arange(lanes) * n_steps
    return words[starts + np.arange(n_steps + 1)[:, None]]


def draw_masks(
    recipe: Recipe,
    window: Window,
    n_words: int,
    n_inputs: int,
    sizes: Sequence[int],
    recurrent: Sequence[tuple[int, int]],
    dtype: np.dtype,
) -> Masks:
    """The masks of one window.

    Parameters
    ----------
    recipe, window
    n_words, n_inputs : int
        Of the embedding.
    sizes : sequence of int
        Units of each layer.
    recurrent : sequence of (int, int)
        Shape of each layer's recurrent weights.
    dtype : float type
    """
    streams = [
        np.random.default_rng([recipe.seed, 2, window.epoch, window.number, kind]) for kind in range(5)
    ]
    lanes = window.words.shape[1]

    def kept(kind: int, share: float, shape: tuple[int, ...]) -> NDArray | None:
        if share == 0:
            return None
        draw = streams[kind].random(shape, np.float32) >= share
        return draw.astype(dtype) * dtype.type(1 / (1 - share))

    return Masks(
        words=kept(0, recipe.dropout_words, (n_words,)),
        embedding=kept(1, recipe.dropout_embedding, (lanes, n_inputs)),
        layers=[kept(2, recipe.dropout_layers, (lanes, n)) for n in sizes[:-1]],
        output=kept(3, recipe.dropout_output, (lanes, sizes[-1])),
        recurrent=[kept(4, recipe.dropconnect, shape) for shape in recurrent],
    )
