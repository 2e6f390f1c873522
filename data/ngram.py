"""Interpolated n-grams: the count-based baseline beside which a recurrent network is judged.

References
----------
.. [1] I. H. Witten, T. C. Bell, "The zero-frequency problem: estimating the probabilities of novel events in
   adaptive text compression", IEEE Transactions on Information Theory 37 (1991) 1085-1094 (method C).
.. [2] S. F. Chen, J. Goodman, "An empirical study of smoothing techniques for language modeling", Computer
   Speech and Language 13 (1999) 359-394 (Witten-Bell smoothing in its interpolated form).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.data.text import token_ids
from evsim.errors import DataError, EvsimError


@dataclass(frozen=True)
class _Counts:
    """Counts of all n-grams of one length. A context is named by its row in the table one shorter.

    codes: (n-grams,) int64, sorted, context * n_tokens + token; grams: (n-grams,) int64, c(h w);
    total: (contexts,) int64, c(h); types: (contexts,) int64, T(h).
    """

    codes: NDArray[np.int64]
    grams: NDArray[np.int64]
    total: NDArray[np.int64]
    types: NDArray[np.int64]


class WittenBell:
    """Interpolated Witten-Bell n-gram model.

    With h the last ``order - 1`` tokens, h' the same without its oldest token, c(h w) the number of times
    token w followed h in the training stream, c(h) = sum over w of c(h w) and T(h) the number of different w
    among them::

        p(w | h) = (c(h w) + T(h) p(w | h')) / (c(h) + T(h))

    down to the uniform distribution 1 / n_tokens below the empty context [1]_ [2]_. A context never followed
    by anything in training, or longer than the past that is there, passes p(w | h') on unchanged. There is no
    parameter to tune.

    Parameters
    ----------
    order : int
        Length of the longest n-gram; 1 counts single tokens only.
    n_tokens : int
        Size of the vocabulary.

    Raises
    ------
    DataError
        If `order` or `n_tokens` is below 1.
    """

    def __init__(self, order: int, n_tokens: int) -> None:
        if order < 1 or n_tokens < 1:
            raise DataError(
                "WittenBell", f"order = {order}, n_tokens = {n_tokens}", "both must be at least 1"
            )
        self.order = order
        self.n_tokens = n_tokens
        self._tables: list[_Counts] = []

    def fit(self, ids: ArrayLike) -> WittenBell:
        """Count the n-grams of a stream; counts of an earlier call are forgotten.

        Parameters
        ----------
        ids : array_like of int, shape (n,)
            Training tokens in reading order.

        Returns
        -------
        WittenBell
            Itself.

        Raises
        ------
        DataError
            If `ids` is empty, not one row of integers, or outside the vocabulary.
        """
        stream = token_ids(ids, self.n_tokens, "WittenBell.fit")
        if not stream.size:
            raise DataError("WittenBell.fit", "the stream is empty", "give at least one token")
        tables: list[_Counts] = []
        # context[t] names the n tokens just before stream[n + t]; the empty context is 0. Naming by row
        # number keeps codes below stream.size * n_tokens, where n_tokens ** order would overflow.
        context = np.zeros(stream.size, dtype=np.int64)
        n_contexts = 1
        for n in range(min(self.order, stream.size)):
            code = context * self.n_tokens + stream[n:]
            codes, grams = np.unique(code, return_counts=True)
            parent = codes // self.n_tokens
            total = np.bincount(parent, weights=grams, minlength=n_contexts).astype(np.int64)
            types = np.bincount(parent, minlength=n_contexts)
            tables.append(_Counts(codes, grams, total, types))
            if n + 1 < self.order:
                # On text several times as fast as the inverse of np.unique, which needs an argsort.
                context = np.searchsorted(codes, code[:-1])
                n_contexts = codes.size
        self._tables = tables
        return self

    def probabilities(self, ids: ArrayLike, context: ArrayLike | None = None) -> NDArray[np.float64]:
        """Probability of each token of a stream given the tokens before it.

        Parameters
        ----------
        ids : array_like of int, shape (n,)
            Tokens in reading order.
        context : array_like of int, shape (m,), optional
            Tokens that came before ``ids[0]``; without them the first tokens are predicted from shorter
            contexts.

        Returns
        -------
        ndarray of float64, shape (n,)

        Raises
        ------
        DataError
            If `ids` or `context` is not one row of integers inside the vocabulary.
        EvsimError
            If `fit` was not called.
        """
        if not self._tables:
            raise EvsimError("WittenBell.probabilities", "the model has no counts", "call fit first")
        past = token_ids([] if context is None else context, self.n_tokens, "WittenBell context")
        past = past[max(0, past.size - self.order + 1) :]
        stream = np.concatenate([past, token_ids(ids, self.n_tokens, "WittenBell ids")])
        probability = np.full(stream.size, 1.0 / self.n_tokens)
        name = np.zeros(stream.size, dtype=np.int64)  # of each token's context, -1 if never seen
        for table in self._tables:
            code = name * self.n_tokens + stream
            row = np.searchsorted(table.codes, code)
            row[row == table.codes.size] = 0
            seen = table.codes[row] == code  # never for name -1, whose codes are negative
            grams = np.where(seen, table.grams[row], 0)
            # An unseen name indexes the last row here; its zero weight is set by the mask.
            types = np.where(name >= 0, table.types[name], 0)
            weight = np.where(name >= 0, table.total[name], 0) + types
            probability = np.divide(
                grams + types * probability, weight, out=probability.copy(), where=weight > 0
            )
            # The n-gram that ends at t - 1 is the context of t one order up.
            name = np.concatenate([[-1], np.where(seen, row, -1)[:-1]])[: stream.size]
        return probability[past.size :]

    def bits_per_token(self, ids: ArrayLike, context: ArrayLike | None = None) -> float:
        """Mean of -log2 p over a stream: bits per character, or log2 of the perplexity per word.

        Parameters
        ----------
        ids : array_like of int, shape (n,)
            Tokens in reading order; every one of them is scored.
        context : array_like of int, shape (m,), optional
            Tokens that came before ``ids[0]``; read but not scored.

        Returns
        -------
        float

        Raises
        ------
        DataError
            If `ids` is empty, or as in `probabilities`.
        EvsimError
            If `fit` was not called.
        """
        probability = self.probabilities(ids, context)
        if not probability.size:
            raise DataError("WittenBell.bits_per_token", "the stream is empty", "give at least one token")
        return float(-np.log2(probability).mean())
