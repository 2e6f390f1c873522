"""Word vectors for the way in and the way out, with an exact softmax by clusters of frequency.

The same matrix E (n_words, n_units) embeds a word and scores it (Press & Wolf 2017; Inan, Khosravi & Socher
2017)::

    x = sqrt(n_units) E[word]           score_w(h) = E[w] . h + b[w]

with the factor of Vaswani et al. (2017): scores ask for short vectors, layers for inputs of size 1.

A softmax over all words costs ``n_words`` scores for each word of text.  Words are numbered by frequency,
most frequent first, and cut into a head and clusters; a cluster has a vector g and a number a of its own::

    P(w | h) = softmax over head words and clusters, [E_head h + b_head, G h + a]_w          w in the head
    P(w | h) = P(cluster of w | h) softmax over its words [E_cluster h + b_cluster]_w        else

It is normalised over all words, so it is a probability like any other and perplexities are exact; it is
another model than one softmax over all words.  Scores of a cluster are computed only where its words come
up: with cuts (1000, 4000, 10000, 20000), WikiText-2 takes 2,700 scores a word on average instead of 33,278.
The clusters are those of Grave, Joulin, Cisse, Grangier & Jegou, "Efficient softmax approximation for GPUs",
ICML 2017; the vectors of rare words keep their full length here, so that they can be tied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from evsim.errors import ParameterError
from evsim.loss import cross_entropy
from evsim.parameter import Parameter

#: Embeddings are drawn from a uniform distribution of this half-width.
RANGE = 0.1


class Part(NamedTuple):
    """Some rows of hidden states that a softmax over some words is for."""

    rows: NDArray[np.int64] | slice
    first: int  # words first:stop
    stop: int
    wanted: NDArray[
        np.int64
    ]  # by row: the class, counted from `first`; behind the head's words come clusters


class TiedEmbedding:
    """An embedding that is also the output layer.

    Parameters
    ----------
    n_words : int
    n_units : int
        Length of a word's vector, and of the hidden state that words are predicted from.
    cuts : sequence of int
        Increasing: words below the first are the head, the others clusters up to the next cut.  Without, one
        softmax over all words.
    dtype : float type
    seed : int

    Attributes
    ----------
    weight : Parameter, shape (n_words, n_units)
    bias : Parameter, shape (n_words,)
    cluster_weight, cluster_bias : Parameter, shapes (n_clusters, n_units), (n_clusters,)
    """

    def __init__(
        self,
        n_words: int,
        n_units: int,
        cuts: Sequence[int] = (),
        dtype: DTypeLike = np.float32,
        seed: int = 0,
    ):
        borders = [0, *cuts, n_words]
        if any(low >= high for low, high in pairwise(borders)):
            raise ParameterError(
                "embedding", f"cuts {tuple(cuts)} of {n_words} words", "give increasing numbers below that"
            )
        if n_units < 1:
            raise ParameterError("embedding", f"n_units is {n_units}", "give 1 or more")
        self.n_words, self.n_units, self.cuts = n_words, n_units, tuple(int(cut) for cut in cuts)
        self._borders = borders
        rng, kind = np.random.default_rng([seed, 0xE3BED]), np.dtype(dtype)
        shapes = {
            "weight": (n_words, n_units),
            "bias": (n_words,),
            "cluster.weight": (len(cuts), n_units),
            "cluster.bias": (len(cuts),),
        }
        values = {
            name: rng.uniform(-RANGE, RANGE, shape) if name.endswith("weight") else np.zeros(shape)
            for name, shape in shapes.items()
        }
        made = {
            name: Parameter(f"embedding.{name}", array.astype(kind))
            for name, array in values.items()
            if array.size
        }
        self._parameters = made
        self._gradient = np.zeros((n_words, n_units), kind)  # written anew each time: pages stay mapped

    def __repr__(self) -> str:
        return f"TiedEmbedding({self.n_words} words, {self.n_units} units, cuts {self.cuts})"

    @property
    def weight(self) -> Parameter:
        """The vector of each word."""
        return self._parameters["weight"]

    @property
    def dtype(self) -> np.dtype:
        """Float type of all that goes in and out."""
        return self.weight.values.dtype

    def parameters(self) -> dict[str, Parameter]:
        """By name; each begins with ``embedding.``."""
        return {p.name: p for p in self._parameters.values()}

    def look_up(self, words: NDArray) -> NDArray:
        """Inputs that stand for words, shape (..., n_units): their vectors times sqrt(n_units), a copy."""
        vectors = self.weight.values[words]
        vectors *= self.weight.values.dtype.type(self.n_units**0.5)
        return vectors

    # -- the softmax ---------------------------------------------------------------------------------------

    def loss(self, hidden: NDArray, words: NDArray) -> tuple[float, NDArray, dict[str, NDArray]]:
        """Mean cross-entropy of words given hidden states, with its gradients.

        Parameters
        ----------
        hidden : float array, shape (n, n_units)
        words : array of int, shape (n,)

        Returns
        -------
        loss : float
            In nats per word.
        gradient : ndarray, shape (n, n_units)
            dloss/dhidden.
        gradients : dict of str to ndarray
            By name of `parameters`; that of the weights lacks what comes from looking them up
            (`add_looked_up`), and its memory is written over by the next call.
        """
        values = {name: p.values for name, p in self._parameters.items()}
        dhidden, total = np.zeros_like(hidden), 0.0
        gradients = {name: np.zeros_like(v) for name, v in values.items() if name != "weight"}
        gradients["weight"] = self._gradient
        written = np.zeros(len(self._borders) - 1, bool)
        for k, part in enumerate(self._parts(words)):
            if part.wanted.size == 0:
                continue
            written[k] = True
            h, block = hidden[part.rows], slice(part.first, part.stop)
            logits = self._scores(h, k)
            value, dlogits = cross_entropy(logits, part.wanted)
            share = part.wanted.size / len(words)
            total += share * value
            dlogits *= dlogits.dtype.type(share)
            n = part.stop - part.first
            np.matmul(dlogits[:, :n].T, h, out=self._gradient[block])
            gradients["bias"][block] = dlogits[:, :n].sum(axis=0)
            dh = dlogits[:, :n] @ values["weight"][block]
            if k == 0 and self.cuts:
                gradients["cluster.weight"][...] = dlogits[:, n:].T @ h
                gradients["cluster.bias"][...] = dlogits[:, n:].sum(axis=0)
                dh += dlogits[:, n:] @ values["cluster.weight"]
            dhidden[part.rows] += dh
        for k in np.flatnonzero(~written):
            self._gradient[self._borders[k] : self._borders[k + 1]] = 0
        return total, dhidden, {f"embedding.{name}": gradient for name, gradient in gradients.items()}

    def add_looked_up(self, gradients: Mapping[str, NDArray], words: NDArray, dx: NDArray) -> None:
        """Add to the gradient of the weights what comes through the inputs that were looked up.

        Parameters
        ----------
        gradients : mapping
            As `loss` gave them; changed in place.
        words : array of int, shape (...)
        dx : float array, shape (..., n_units)
            Gradient at what was looked up.
        """
        flat, vectors = words.ravel(), dx.reshape(-1, self.n_units)
        order = np.argsort(flat, kind="stable")
        ordered = flat[order]
        starts = np.flatnonzero(np.diff(ordered, prepend=-1))
        sums = np.add.reduceat(vectors[order], starts, axis=0)
        gradients["embedding.weight"][ordered[starts]] += sums * sums.dtype.type(self.n_units**0.5)

    def nats(self, hidden: NDArray, words: NDArray) -> NDArray[np.float64]:
        """-log P of each word given its hidden state, shape (n,)."""
        found = np.zeros(len(words))
        for k, part in enumerate(self._parts(words)):
            if part.wanted.size:
                scores = self._scores(hidden[part.rows], k)
                at = scores[np.arange(len(scores)), part.wanted].astype(np.float64)
                found[part.rows] += _log_sum_exp(scores) - at
        return found

    def log_probabilities(self, hidden: NDArray) -> NDArray[np.float64]:
        """Log P of every word, shape (n, n_words), given hidden states, shape (n, n_units).

        For few states: they take ``8 n n_words`` bytes.
        """
        head = self._scores(hidden, 0).astype(np.float64)
        head -= _log_sum_exp(head)[:, None]
        first = self._borders[1]
        found = np.empty((len(hidden), self.n_words))
        found[:, :first] = head[:, :first]
        for k in range(1, len(self._borders) - 1):
            scores = self._scores(hidden, k).astype(np.float64)
            scores += (head[:, first + k - 1] - _log_sum_exp(scores))[:, None]
            found[:, self._borders[k] : self._borders[k + 1]] = scores
        return found

    def macs(self, words: NDArray) -> int:
        """Multiplications of vectors with states that `nats` of these words takes."""
        sizes = [
            part.wanted.size * (part.stop - part.first + (len(self.cuts) if k == 0 else 0))
            for k, part in enumerate(self._parts(words))
        ]
        return self.n_units * sum(sizes)

    def _scores(self, hidden: NDArray, part: int) -> NDArray:
        """Scores of the words of one part; for the head, those of the clusters behind them."""
        block = slice(self._borders[part], self._borders[part + 1])
        weight, bias = self.weight.values[block], self._parameters["bias"].values[block]
        if part or not self.cuts:
            return hidden @ weight.T + bias
        n = block.stop
        scores = np.empty((len(hidden), n + len(self.cuts)), hidden.dtype)
        np.matmul(hidden, weight.T, out=scores[:, :n])
        np.matmul(hidden, self._parameters["cluster.weight"].values.T, out=scores[:, n:])
        scores[:, :n] += bias
        scores[:, n:] += self._parameters["cluster.bias"].values
        return scores

    def _parts(self, words: NDArray) -> list[Part]:
        """The head for all words, then each cluster for its own."""
        wanted = np.asarray(words, np.int64)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= self.n_words):
            raise ParameterError(
                "embedding",
                f"word {wanted.min() if wanted.min() < 0 else wanted.max()} is outside 0..{self.n_words - 1}",
                "give numbers of words",
            )
        first = self._borders[1]
        cluster = np.searchsorted(self._borders[1:-1], wanted, side="right")  # 0: the head
        parts = [Part(slice(None), 0, first, np.where(cluster == 0, wanted, first + cluster - 1))]
        for k in range(1, len(self._borders) - 1):
            rows = np.flatnonzero(cluster == k)
            low, high = self._borders[k], self._borders[k + 1]
            parts.append(Part(rows, low, high, wanted[rows] - low))
        return parts


def _log_sum_exp(scores: NDArray) -> NDArray[np.float64]:
    largest = scores.max(axis=1, keepdims=True)
    total = np.exp(scores - largest).sum(axis=1, dtype=np.float64)
    return np.log(total) + largest[:, 0]
