"""Witten-Bell n-grams against hand calculation and against a plain dictionary implementation."""

from collections import Counter, defaultdict

import numpy as np
import pytest

from evsim.data.ngram import WittenBell
from evsim.errors import DataError, EvsimError


class Dictionary:
    """The recursion as it is written in the paper, one token at a time."""

    def __init__(self, order, n_tokens, ids):
        self.order, self.n_tokens = order, n_tokens
        self.followers = defaultdict(Counter)
        for t in range(len(ids)):
            for n in range(min(order, t + 1)):
                self.followers[tuple(ids[t - n : t])][ids[t]] += 1

    def probability(self, token, past):
        past = tuple(past[max(0, len(past) - self.order + 1) :])
        lower = self.probability(token, past[1:]) if past else 1 / self.n_tokens
        counts = self.followers.get(past)
        if counts is None:
            return lower
        return (counts[token] + len(counts) * lower) / (counts.total() + len(counts))


def stream(size, n_tokens, seed):
    """Skewed and repetitive ids, so that all orders have seen and unseen contexts."""
    rng = np.random.default_rng(seed)
    phrases = [rng.integers(0, max(1, n_tokens - 1), size=5) for _ in range(6)]
    text = np.concatenate([phrases[i] for i in rng.integers(0, 6, size=size // 5 + 1)])[:size]
    noise = rng.random(size) < 0.2
    return np.where(noise, rng.integers(0, n_tokens, size=size), text)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("n_tokens", [1, 2, 7, 50])
def test_matches_the_dictionary(order, n_tokens):
    train, valid = stream(400, n_tokens, seed=1), stream(100, n_tokens, seed=2)
    model = WittenBell(order, n_tokens).fit(train)
    slow = Dictionary(order, n_tokens, train.tolist())
    past = valid.tolist()
    expected = [slow.probability(past[t], past[:t]) for t in range(len(past))]
    np.testing.assert_allclose(model.probabilities(valid), expected, rtol=1e-12)
    assert model.bits_per_token(valid) == pytest.approx(-np.log2(expected).mean(), rel=1e-12)


@pytest.mark.parametrize("past", [[], [0], [3, 1, 4], [6, 6, 6, 6]])
def test_probabilities_sum_to_one(past):
    train = stream(300, 7, seed=3) % 6  # token 6 never occurs
    model = WittenBell(3, 7).fit(train)
    total = sum(model.probabilities([token], context=past).item() for token in range(7))
    assert total == pytest.approx(1.0, rel=1e-12)


def test_closed_form():
    # Training text "abab" over {a, b, c}. Empty context: c = 4, T = 2, so p(a) = (2 + 2/3) / 6 = 4/9 and
    # p(c) = (2/3) / 6 = 1/9. Context a: c = 2, T = 1, p(b | a) = (2 + 4/9) / 3 = 22/27, p(c | a) = 1/27.
    # Context b: c = T = 1, p(a | b) = (1 + 4/9) / 2 = 13/18.
    model = WittenBell(2, 3).fit([0, 1, 0, 1])
    np.testing.assert_allclose(model.probabilities([0, 1, 0]), [4 / 9, 22 / 27, 13 / 18], rtol=1e-14)
    np.testing.assert_allclose(model.probabilities([2], context=[0]), [1 / 27], rtol=1e-14)
    np.testing.assert_allclose(model.probabilities([0], context=[2]), [4 / 9], rtol=1e-14)


def test_context_continues_a_stream():
    text = stream(200, 7, seed=4)
    model = WittenBell(4, 7).fit(stream(300, 7, seed=5))
    whole = model.probabilities(text)
    np.testing.assert_array_equal(model.probabilities(text[50:], context=text[:50]), whole[50:])
    np.testing.assert_array_equal(model.probabilities(text[50:], context=text[47:50]), whole[50:])
    assert model.bits_per_token(text[50:], context=text[:50]) == pytest.approx(-np.log2(whole[50:]).mean())


def test_context_seen_only_at_the_end_falls_back():
    model = WittenBell(2, 3).fit([0, 1, 0, 2])
    np.testing.assert_array_equal(model.probabilities([1], context=[2]), model.probabilities([1]))


def test_order_beyond_the_stream_changes_nothing():
    np.testing.assert_array_equal(
        WittenBell(9, 3).fit([0, 1]).probabilities([0, 1, 1]),
        WittenBell(2, 3).fit([0, 1]).probabilities([0, 1, 1]),
    )


def test_fit_again_forgets():
    model = WittenBell(3, 4).fit([0, 0, 0]).fit([1, 2, 3, 1])
    np.testing.assert_array_equal(
        model.probabilities([0, 1, 2]), WittenBell(3, 4).fit([1, 2, 3, 1]).probabilities([0, 1, 2])
    )


def test_codes_do_not_overflow_with_large_vocabularies():
    # 10**6 tokens to the power of 5 would not fit 64 bits.
    n_tokens = 10**6
    train = n_tokens - 1 - stream(300, 50, seed=6)
    slow = Dictionary(5, n_tokens, train.tolist())
    past = train[:40].tolist()
    expected = [slow.probability(past[t], past[:t]) for t in range(len(past))]
    np.testing.assert_allclose(WittenBell(5, n_tokens).fit(train).probabilities(past), expected, rtol=1e-12)


def test_longer_contexts_help_on_repetitive_text():
    train, valid = stream(4000, 20, seed=7), stream(1000, 20, seed=7)
    bits = [WittenBell(order, 20).fit(train).bits_per_token(valid) for order in (1, 2, 3)]
    assert np.log2(20) > bits[0] > bits[1] > bits[2] > 0


def test_what_is_refused():
    with pytest.raises(DataError, match="order = 0"):
        WittenBell(0, 3)
    with pytest.raises(DataError, match="n_tokens = 0"):
        WittenBell(1, 0)
    model = WittenBell(2, 3)
    with pytest.raises(EvsimError, match="call fit first"):
        model.bits_per_token([0])
    with pytest.raises(DataError, match="empty"):
        model.fit([])
    with pytest.raises(DataError, match=r"token id 3 is outside \[0, 3\)"):
        model.fit([0, 3])
    with pytest.raises(DataError, match="float64"):
        model.fit([0.0, 1.0])
    model.fit([0, 1])
    assert model.probabilities([]).size == 0
    with pytest.raises(DataError, match="empty"):
        model.bits_per_token([])
    with pytest.raises(DataError, match="token id -1"):
        model.bits_per_token([0], context=[-1])
