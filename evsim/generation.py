"""Text from a word-level language model, a word at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evsim.errors import StimulusError
from evsim.event_stack import EventStack, tabulated
from evsim.simulation import Simulation
from evsim.tied_embedding import TiedEmbedding

#: Words of one line.
LINE = 12


class Line(NamedTuple):
    """Some words in a row.

    Attributes
    ----------
    words : ndarray of int64
    activity : float
        Events per unit and step of all layers.
    microseconds : float
        Of the recurrent layers, per word.
    microseconds_softmax : float
        Of the choice of the next word.
    """

    words: NDArray[np.int64]
    activity: float
    microseconds: float
    microseconds_softmax: float


def generate_lines(
    embedding: TiedEmbedding,
    stack: EventStack,
    start: NDArray,
    number: int,
    temperature: float = 1.0,
    seed: int = 0,
) -> Iterator[Line]:
    """Words drawn from what a model expects after those before, in lines of at most `LINE` words.

    A word is a step of the network, which looks up what its first layer receives (`tabulated`).

    Parameters
    ----------
    embedding, stack
        Of one model.
    start : array of int, shape (n,)
        What has been said, at least one word; the states begin at rest.
    number : int
        Words to draw.
    temperature : float
        Log probabilities are divided by it; towards 0 the most likely word is taken.
    seed : int
    """
    if len(start) == 0:
        raise StimulusError("generation", "starts with no word", "give a prompt")
    rng = np.random.default_rng(seed)
    simulation = Simulation(tabulated(stack.network, embedding), threads=1)
    heard = np.asarray(start)
    said: list[int] = []
    seconds, choosing, events, steps = 0.0, 0.0, 0, 0
    units = sum(stack.sizes)
    for count in range(1, number + 1):
        begin = time.perf_counter()
        sent = [simulation.step(word) for word in heard]
        y = stack.output_of(simulation, sent[-1])
        end = time.perf_counter()
        word = _draw(embedding.log_probabilities(y)[0], temperature, rng)
        choosing += time.perf_counter() - end
        seconds, steps = seconds + end - begin, steps + len(heard)
        events += sum(int(np.count_nonzero(one[name])) for one in sent for name in stack.layers)
        heard = np.array([word])
        said.append(word)
        if len(said) == LINE or count == number:
            yield Line(
                np.array(said), events / (steps * units), 1e6 * seconds / steps, 1e6 * choosing / len(said)
            )
            said, seconds, choosing, events, steps = [], 0.0, 0.0, 0, 0


def _draw(log_probabilities: NDArray, temperature: float, rng: np.random.Generator) -> int:
    """The word with the largest log probability plus Gumbel noise, which draws from the distribution."""
    noise = rng.gumbel(size=log_probabilities.size)
    return int(np.argmax(log_probabilities / temperature + noise))
