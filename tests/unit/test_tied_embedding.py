"""The tied embedding and its softmax by clusters, against the definition written out."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evsim.errors import ParameterError
from evsim.tied_embedding import TiedEmbedding

CUTS = [(), (3,), (1, 2), (4, 7, 10)]


def made(cuts, n_words=12, n_units=5, seed=0, dtype=np.float64):
    """An embedding with all parameters drawn, as biases are 0 at first."""
    embedding = TiedEmbedding(n_words, n_units, cuts, dtype, seed)
    rng = np.random.default_rng(seed + 1)
    for parameter in embedding.parameters().values():
        parameter.assign(rng.normal(0, 1, parameter.values.shape))
    return embedding


def log_softmax(scores):
    return scores - np.log(np.exp(scores).sum(-1, keepdims=True))


def by_definition(embedding, hidden):
    """Log P of every word: the formulas at the head of the file, a state at a time."""
    p = {name.removeprefix("embedding."): q.values for name, q in embedding.parameters().items()}
    borders = [0, *embedding.cuts, embedding.n_words]
    found = np.zeros((len(hidden), embedding.n_words))
    for row, h in zip(found, hidden, strict=True):
        scores = p["weight"] @ h + p["bias"]
        head = scores[: borders[1]]
        if embedding.cuts:
            head = np.concatenate([head, p["cluster.weight"] @ h + p["cluster.bias"]])
        head = log_softmax(head)
        row[: borders[1]] = head[: borders[1]]
        for k in range(1, len(borders) - 1):
            low, high = borders[k], borders[k + 1]
            row[low:high] = head[borders[1] + k - 1] + log_softmax(scores[low:high])
    return found


@pytest.mark.parametrize("cuts", CUTS)
class TestSoftmax:
    def test_is_the_definition_and_sums_to_one(self, cuts):
        embedding, hidden = made(cuts), np.random.default_rng(2).normal(0, 1, (6, 5))
        found = embedding.log_probabilities(hidden)
        assert found == pytest.approx(by_definition(embedding, hidden), rel=1e-12)
        assert np.exp(found).sum(axis=1) == pytest.approx(1, rel=1e-12)

    def test_nats_and_loss_are_of_the_words_asked_for(self, cuts):
        embedding, rng = made(cuts), np.random.default_rng(3)
        hidden, words = rng.normal(0, 1, (40, 5)), rng.integers(0, 12, 40)
        wanted = -by_definition(embedding, hidden)[np.arange(40), words]
        assert embedding.nats(hidden, words) == pytest.approx(wanted, rel=1e-12)
        assert embedding.loss(hidden, words)[0] == pytest.approx(wanted.mean(), rel=1e-12)

    def test_gradients_are_central_differences(self, cuts):
        embedding, rng = made(cuts), np.random.default_rng(4)
        hidden, words = rng.normal(0, 1, (7, 5)), np.array([0, 11, 3, 3, 8, 1, 5])

        def loss():
            return -by_definition(embedding, hidden)[np.arange(7), words].mean()

        _, dhidden, gradients = embedding.loss(hidden, words)
        assert gradients.keys() == embedding.parameters().keys()
        arrays = {name: p.values for name, p in embedding.parameters().items()}
        for name, array in (arrays | {"hidden": hidden}).items():
            gradient = dhidden if name == "hidden" else gradients[name]
            for at in np.ndindex(array.shape):
                kept, array[at] = array[at], array[at] + 1e-5
                above = loss()
                array[at] = kept - 1e-5
                below = loss()
                array[at] = kept
                assert gradient[at] == pytest.approx((above - below) / 2e-5, abs=1e-9), (name, at)

    def test_clusters_without_a_word_have_no_gradient(self, cuts):
        """Memory of the gradient is used again: what the last call wrote is gone."""
        embedding, hidden = made(cuts), np.random.default_rng(5).normal(0, 1, (12, 5))
        embedding.loss(hidden, np.arange(12))
        gradient = embedding.loss(hidden[:1], np.array([0]))[2]["embedding.weight"]
        first = cuts[0] if cuts else 12
        assert gradient[:first].any()
        assert not gradient[first:].any()

    def test_multiplications_are_counted(self, cuts):
        embedding, words = made(cuts), np.array([0, 2, 5, 11, 11])
        borders = [0, *cuts, 12]
        wanted = 0
        for word in words:
            wanted += borders[1] + len(cuts)
            wanted += sum(b - a for a, b in pairwise(borders[1:]) if a <= word < b)
        assert embedding.macs(words) == 5 * wanted


@settings(deadline=None, max_examples=40)
@given(
    words=st.lists(st.integers(0, 11), min_size=1, max_size=30),
    lanes=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_gradients_of_what_was_looked_up_are_added(words, lanes, seed):
    embedding, rng = made((4,), seed=seed), np.random.default_rng(seed)
    text = np.repeat(np.array(words)[:, None], lanes, axis=1)
    dx = rng.normal(0, 1, (*text.shape, 5))
    gradients = {"embedding.weight": rng.normal(0, 1, (12, 5))}
    wanted = gradients["embedding.weight"].copy()
    np.add.at(wanted, text, np.sqrt(5) * dx)
    embedding.add_looked_up(gradients, text, dx)
    assert gradients["embedding.weight"] == pytest.approx(wanted, rel=1e-12, abs=1e-12)
    assert embedding.look_up(text) == pytest.approx(np.sqrt(5) * embedding.weight.values[text], rel=1e-15)


class TestBadInput:
    @pytest.mark.parametrize("cuts", [(0,), (12,), (5, 5), (7, 3)])
    def test_cuts(self, cuts):
        with pytest.raises(ParameterError, match=r"cuts .* of 12 words"):
            TiedEmbedding(12, 5, cuts)

    @pytest.mark.parametrize("word", [-1, 12])
    def test_words(self, word):
        with pytest.raises(ParameterError, match=f"word {word} is outside"):
            made(()).nats(np.zeros((2, 5)), np.array([0, word]))

    def test_size(self):
        with pytest.raises(ParameterError, match="n_units is 0"):
            TiedEmbedding(12, 0)


def test_equal_for_one_seed():
    one, same, other = (TiedEmbedding(9, 4, (3,), seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.weight.values, same.weight.values)
    assert not np.array_equal(one.weight.values, other.weight.values)
    assert one.dtype == np.float32
