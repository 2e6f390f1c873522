"""Corpora: what is a token, where the parts come from, and what is refused."""

import numpy as np
import pytest

from evsim.data.text import Corpus, load_corpus, windows
from evsim.errors import DataError

PARTS = {
    "wiki.train.tokens": " \n = Lobster = \n \n a blue <unk> lobster \n",
    "wiki.valid.tokens": " a red lobster \n",
    "wiki.test.tokens": " no lobster \n",
}


@pytest.fixture
def folder(tmp_path):
    for name, text in PARTS.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "README.md").write_text("train, valid and test", encoding="utf-8")
    return tmp_path


def write(path, text):
    path.write_text(text, encoding="utf-8", newline="")
    return path


def refused(call, *fragments):
    """Check the message of a DataError: one line with all the fragments."""
    with pytest.raises(DataError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message


# Tokens


def test_every_newline_is_one_eos(folder):
    corpus = load_corpus(folder, level="word")
    words = " ".join(corpus.vocabulary[i] for i in corpus.train)
    assert words == "<eos> = Lobster = <eos> <eos> a blue <unk> lobster <eos>"
    assert (corpus.train.size, corpus.valid.size, corpus.test.size) == (11, 4, 3)


def test_vocabulary_is_sorted_and_covers_all_parts(folder):
    corpus = load_corpus(folder, level="word")
    assert corpus.vocabulary == ("<eos>", "<unk>", "=", "Lobster", "a", "blue", "lobster", "no", "red")
    assert corpus.n_tokens == 9
    chars = load_corpus(folder)
    assert chars.vocabulary == tuple(sorted(set("".join(PARTS.values()))))


@pytest.mark.parametrize("level", ["char", "word"])
def test_ids_are_int32_and_decode_to_the_text(folder, level):
    corpus = load_corpus(folder, level)
    for ids, text in zip((corpus.train, corpus.valid, corpus.test), PARTS.values(), strict=True):
        assert ids.dtype == np.int32
        assert corpus.decode(ids) == (text if level == "char" else text.strip(" "))
        np.testing.assert_array_equal(corpus.encode(corpus.decode(ids)), ids)
        np.testing.assert_array_equal(corpus.encode(text), ids)


def test_characters_beyond_the_basic_plane_are_one_token(tmp_path):
    text = "é😀\u2028a" * 10
    corpus = load_corpus(write(tmp_path / "text.txt", text))
    assert corpus.vocabulary == ("a", "é", "\u2028", "😀")
    assert corpus.train.size == 36
    assert corpus.decode(corpus.train) == text[:36]


def test_byte_order_mark_and_windows_line_ends_are_dropped(tmp_path):
    corpus = load_corpus(write(tmp_path / "text.txt", "\ufeff" + "ab\r\n" * 10))
    assert corpus.vocabulary == ("\n", "a", "b")


def test_unknown_word_becomes_unk_where_there_is_one(folder, tmp_path):
    corpus = load_corpus(folder, level="word")
    assert corpus.decode(corpus.encode("a purple lobster\n")) == "a <unk> lobster \n"
    bare = load_corpus(write(tmp_path / "bare.text", "b a " * 10), level="word")
    refused(lambda: bare.encode("a c"), "bare.text", "'c'", "<unk>")


def test_empty_text_and_empty_ids(folder):
    for level in ("char", "word"):
        corpus = load_corpus(folder, level)
        assert corpus.encode("").size == 0
        assert corpus.decode([]) == ""


def test_what_is_outside_the_vocabulary_is_refused(folder):
    corpus = load_corpus(folder)
    refused(lambda: corpus.encode("a Ω"), corpus.name, "'Ω'")
    refused(lambda: corpus.decode([0, corpus.n_tokens]), str(corpus.n_tokens), corpus.name)
    refused(lambda: corpus.decode([-1]), "-1")
    refused(lambda: corpus.decode([[1]]), "(1, 1)")
    refused(lambda: corpus.decode([0.5]), "float64")


def test_repr_is_short_and_the_corpus_frozen(folder):
    corpus = load_corpus(folder, level="word")
    assert repr(corpus).endswith("level='word', n_tokens=9, train=11, valid=4, test=3)")
    with pytest.raises(AttributeError):
        corpus.name = "other"


# Parts


def test_one_file_is_cut_90_5_5(tmp_path):
    words = [f"w{i:03d}" for i in range(200)]
    corpus = load_corpus(write(tmp_path / "book.txt", " ".join(words)), level="word")
    assert corpus.name == "book.txt"
    assert (corpus.train.size, corpus.valid.size, corpus.test.size) == (180, 10, 10)
    np.testing.assert_array_equal(np.concatenate([corpus.train, corpus.valid, corpus.test]), np.arange(200))


@pytest.mark.parametrize(
    "names", [("ptb.train.txt", "ptb.valid.txt", "ptb.test.txt"), ("TRAIN.raw", "Validation.RAW", "test.txt")]
)
def test_parts_are_found_by_name(tmp_path, names):
    for name, text in zip(names, ("abc", "ab", "c"), strict=True):
        write(tmp_path / name, text)
    corpus = load_corpus(str(tmp_path))
    assert (corpus.train.tolist(), corpus.valid.tolist(), corpus.test.tolist()) == ([0, 1, 2], [0, 1], [2])


def test_missing_part_lists_what_was_found(folder):
    (folder / "wiki.valid.tokens").unlink()
    refused(
        lambda: load_corpus(folder), "no file is '*valid*'", "wiki.train.tokens", "README.md", "exactly one"
    )


def test_ambiguous_part_lists_what_was_found(folder):
    write(folder / "wiki.train.raw", "a")
    refused(lambda: load_corpus(folder), "ambiguous", "*train*", "wiki.train.tokens", "wiki.train.raw")


def test_one_file_cannot_be_two_parts(tmp_path):
    write(tmp_path / "train_valid.txt", "a")
    write(tmp_path / "test.txt", "a")
    refused(lambda: load_corpus(tmp_path), "ambiguous", "train_valid.txt")


def test_empty_folder_and_missing_path(tmp_path):
    refused(lambda: load_corpus(tmp_path), "found: nothing")
    refused(lambda: load_corpus(tmp_path / "none.txt"), "none.txt", "no such file or folder")


def test_bad_files_are_refused(tmp_path, folder):
    latin = tmp_path / "latin.txt"
    latin.write_bytes("na\u00efve".encode("latin-1"))
    refused(lambda: load_corpus(latin), "latin.txt", "0xef", "offset 2", "UTF-8")
    refused(lambda: load_corpus(write(tmp_path / "empty.txt", "")), "empty.txt", "no text")
    refused(lambda: load_corpus(write(tmp_path / "blank.txt", "\ufeff \n")), "blank.txt", "no text")
    refused(lambda: load_corpus(write(tmp_path / "short.txt", "ab")), "short.txt", "2 tokens", "at least 20")
    write(folder / "wiki.test.tokens", "")
    refused(lambda: load_corpus(folder), "wiki.test.tokens", "no text")


def test_unknown_level_is_refused():
    refused(lambda: load_corpus(level="byte"), "'byte'", "'char' or 'word'")


# The embedded corpus: its text depends on the version of Python, so only its make-up is tested.


@pytest.mark.parametrize("level", ["char", "word"])
def test_embedded_corpus(level):
    corpus = load_corpus(level=level)
    assert isinstance(corpus, Corpus)
    assert corpus.name == "pydoc-topics"
    assert corpus.test.size == 0
    held_out = corpus.valid.size / (corpus.train.size + corpus.valid.size)
    assert 0.08 < held_out < 0.12
    np.testing.assert_array_equal(corpus.train, load_corpus(level=level).train)


def test_embedded_corpus_repeats_no_paragraph():
    corpus = load_corpus()
    assert corpus.train.size > 200_000
    train, valid = (
        {" ".join(paragraph.split()) for paragraph in corpus.decode(ids).split("\n\n")} - {""}
        for ids in (corpus.train, corpus.valid)
    )
    assert not train & valid


# Windows; that nothing is skipped or repeated is in properties/test_windows.py.


def test_windows_by_hand():
    pairs = list(windows(np.arange(10), lanes=2, length=3))
    assert [inputs.tolist() for inputs, _ in pairs] == [[[0, 4], [1, 5], [2, 6]], [[3, 7]]]
    assert [targets.tolist() for _, targets in pairs] == [[[1, 5], [2, 6], [3, 7]], [[4, 8]]]


def test_windows_belong_to_the_caller():
    ids = np.arange(9, dtype=np.int32)
    for inputs, targets in windows(ids, lanes=2, length=3):
        assert inputs.dtype == targets.dtype == np.int32
        assert inputs.flags.c_contiguous
        assert targets.flags.c_contiguous
        inputs[:] = targets[:] = -1
    np.testing.assert_array_equal(ids, np.arange(9))


def test_windows_refuse_at_the_call():
    refused(lambda: windows([1, 2, 3], lanes=3, length=5), "3 tokens", "3 lanes", "need 4")
    refused(lambda: windows([], lanes=1, length=1), "0 tokens")
    refused(lambda: windows([1, 2, 3], lanes=0, length=5), "lanes = 0")
    refused(lambda: windows([1, 2, 3], lanes=1, length=0), "length = 0")
    refused(lambda: windows([[1, 2]], lanes=1, length=1), "(1, 2)")
    refused(lambda: windows([0.5, 2.0], lanes=1, length=1), "float64")


@pytest.mark.parametrize("method", ["read_bytes", "iterdir"])
def test_what_may_not_be_read(folder, monkeypatch, method):
    """Root may read everything, so permissions alone would not do here."""

    def denied(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path." + method, denied)
    refused(lambda: load_corpus(folder, "word"), "corpus '", "cannot be read: Permission denied")
