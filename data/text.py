"""Text as a stream of tokens: the corpora of the language-modelling protocols and their training windows."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.errors import DataError

LEVELS = ("char", "word")
SPLITS = ("train", "valid", "test")
SUFFIXES = (".txt", ".tokens", ".raw")
EOS = "<eos>"
UNKNOWN = "<unk>"

# The embedded corpus: every HELD_OUT-th block of about BLOCK characters is validation text.
BLOCK = 4096
HELD_OUT = 10


@dataclass(frozen=True, eq=False, repr=False)
class Corpus:
    """A text as integer tokens, in three parts.

    Attributes
    ----------
    name : str
        What the corpus is called in logs and errors.
    level : str
        ``"char"``: a token is one Unicode character. ``"word"``: a token is a run of non-blank characters,
        and every newline, also of a blank line, is the token ``<eos>`` (the rule of Penn Treebank and
        WikiText-2 in the language-model literature).
    vocabulary : tuple of str
        The tokens in code point order; the id of a token is its place here. It covers all three parts, as
        is customary for these sets, so no held-out token is unknown and perplexities are comparable with
        those of the literature; what it gives away is which tokens exist, never how often.
    train, valid, test : ndarray of int32, shape (length of the part,)
        Token ids in reading order. `test` has size 0 when the corpus has no such part.
    """

    name: str
    level: str
    vocabulary: tuple[str, ...]
    train: NDArray[np.int32]
    valid: NDArray[np.int32]
    test: NDArray[np.int32]

    @property
    def n_tokens(self) -> int:
        """Size of the vocabulary."""
        return len(self.vocabulary)

    @property
    def checksum(self) -> int:
        """CRC-32 of vocabulary and tokens."""
        total = zlib.crc32("\0".join(self.vocabulary).encode("utf-8", "surrogatepass"))
        for part in (self.train, self.valid, self.test):
            total = zlib.crc32(part.tobytes(), total)
        return total

    def encode(self, text: str) -> NDArray[np.int32]:
        """Token ids of a text.

        Parameters
        ----------
        text : str
            Any text. At word level an unknown word becomes ``<unk>`` if the vocabulary has that token.

        Returns
        -------
        ndarray of int32, shape (number of tokens,)

        Raises
        ------
        DataError
            If the text has a token that the vocabulary lacks.
        """
        if self.level == "char":
            return _char_ids(_code_points(text), self.vocabulary, self.name)
        return _word_ids(_words(text), self.vocabulary, self.name)

    def decode(self, ids: ArrayLike) -> str:
        """Text of a row of token ids; the inverse of `encode`.

        Words are joined by one blank and ``<eos>`` is a newline, so ``encode(decode(ids))`` gives `ids` back;
        the original spacing between words is not kept.

        Parameters
        ----------
        ids : array_like of int, shape (number of tokens,)

        Returns
        -------
        str

        Raises
        ------
        DataError
            If an id is outside the vocabulary.
        """
        array = token_ids(ids, self.n_tokens, f"corpus '{self.name}'")
        tokens = [self.vocabulary[i] for i in array.tolist()]
        if self.level == "char":
            return "".join(tokens)
        return " ".join("\n" if token == EOS else token for token in tokens)

    def by_frequency(self) -> Corpus:
        """The same corpus with its vocabulary in order of frequency in the training part, ties as before.

        Then the id of a token is its rank: 0 is the most frequent one.
        """
        count = np.bincount(self.train, minlength=self.n_tokens)
        order = np.argsort(-count, kind="stable")
        rank = np.empty(self.n_tokens, np.int32)
        rank[order] = np.arange(self.n_tokens, dtype=np.int32)
        vocabulary = tuple(self.vocabulary[i] for i in order.tolist())
        return Corpus(self.name, self.level, vocabulary, rank[self.train], rank[self.valid], rank[self.test])

    def __repr__(self) -> str:
        return (
            f"Corpus('{self.name}', level='{self.level}', n_tokens={self.n_tokens}, "
            f"train={self.train.size}, valid={self.valid.size}, test={self.test.size})"
        )


def load_corpus(path: str | Path | None = None, level: str = "char") -> Corpus:
    """Read a corpus.

    Parameters
    ----------
    path : str or Path, optional
        A folder: its files (``.txt``, ``.tokens`` or ``.raw``) with ``train``, ``valid`` and ``test`` in
        their names are the three parts, one file each, as in ``wiki.train.tokens`` or ``ptb.valid.txt``.
        A file: its tokens are cut into contiguous parts of 90, 5 and 5 %.
        None: the embedded corpus, the reference text that ships with Python (see `_topics`), about 400 kB of
        English and program code with train and validation parts and an empty test part. It needs no download
        and is the same for everyone on one version of Python; between versions it differs (373 thousand
        characters in 3.11, 414 in 3.13), so results name the version.
    level : {"char", "word"}
        What a token is, see `Corpus`.

    Returns
    -------
    Corpus

    Raises
    ------
    DataError
        If the level is unknown, the path does not exist, a part is missing, ambiguous or empty, or a file
        is not UTF-8.

    Notes
    -----
    A byte order mark is dropped and Windows line ends count as newlines.
    """
    if level not in LEVELS:
        raise DataError("load_corpus", f"level is {level!r}", "use 'char' or 'word'")
    if path is None:
        name = "pydoc-topics"
        texts: tuple[str, ...] = (*_topics(), "")
    else:
        path = Path(path)
        name = path.resolve().name
        if path.is_dir():
            texts = tuple(_read(file) for file in _part_files(path))
        elif path.is_file():
            texts = (_read(path),)
        else:
            raise DataError(
                f"corpus '{path}'",
                "no such file or folder",
                "give a text file, a folder with train, valid and test files, or None for the embedded text",
            )
    vocabulary, parts = _tokenize(texts, level, name)
    train, valid, test = parts if len(parts) == 3 else _cut(parts[0], name)
    return Corpus(name, level, vocabulary, train, valid, test)


def windows(ids: ArrayLike, lanes: int, length: int) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:
    """Windows for truncated backpropagation through time.

    The stream is cut into `lanes` contiguous streams of equal length that run side by side; lane k reads on
    in each window where it stopped in the one before, so state can be carried over. With n ids every lane
    makes ``(n - 1) // lanes`` predictions. The last target of a lane is the first input of the next lane, so
    each id but the first is predicted exactly once; only the ``(n - 1) % lanes`` ids at the very end are
    dropped.

    Parameters
    ----------
    ids : array_like of int, shape (n,)
        Token ids in reading order.
    lanes : int
        Number of parallel streams (the batch size).
    length : int
        Time steps per window; the last window may be shorter.

    Yields
    ------
    inputs : ndarray of int32, shape (time, lanes)
    targets : ndarray of int32, shape (time, lanes)
        The token that follows each input. Both arrays are C-contiguous and the caller's own.

    Raises
    ------
    DataError
        At the call, not at the first window: if `lanes` or `length` is below 1, or the stream is shorter than
        ``lanes + 1``.
    """
    stream = _row(ids, "windows")
    if lanes < 1 or length < 1:
        raise DataError("windows", f"lanes = {lanes}, length = {length}", "both must be at least 1")
    if stream.size < lanes + 1:
        raise DataError(
            "windows",
            f"a stream of {stream.size} tokens is too short for {lanes} lanes, which need {lanes + 1}",
            "use fewer lanes or a longer text",
        )
    return _windows(stream.astype(np.int32, copy=False), lanes, length)


def _windows(
    stream: NDArray[np.int32], lanes: int, length: int
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:
    steps = (stream.size - 1) // lanes
    inputs = stream[: steps * lanes].reshape(lanes, steps).T
    targets = stream[1 : steps * lanes + 1].reshape(lanes, steps).T
    for start in range(0, steps, length):
        # Copies: the two overlap in the stream, and the core wants contiguous rows.
        here = slice(start, start + length)
        yield inputs[here].copy(order="C"), targets[here].copy(order="C")


def token_ids(ids: ArrayLike, n_tokens: int, where: str) -> NDArray[np.int64]:
    """Check a row of token ids.

    Parameters
    ----------
    ids : array_like of int, shape (n,)
    n_tokens : int
        Size of the vocabulary; every id must be in ``[0, n_tokens)``.
    where : str
        The object that asks, for the error.

    Returns
    -------
    ndarray of int64, shape (n,)

    Raises
    ------
    DataError
        If `ids` is not one row of integers in range.
    """
    array = _row(ids, where)
    if array.size and (array.min() < 0 or array.max() >= n_tokens):
        wrong = array[(array < 0) | (array >= n_tokens)][0]
        raise DataError(
            where, f"token id {wrong} is outside [0, {n_tokens})", "encode the text with its vocabulary"
        )
    return array.astype(np.int64)


def _row(ids: ArrayLike, where: str) -> NDArray[np.integer]:
    array = np.asarray(ids)
    if array.ndim == 1 and array.size == 0:
        return array.astype(np.int32)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise DataError(
            where, f"token ids have shape {array.shape} and dtype {array.dtype}", "give one row of integers"
        )
    return array


# Where text comes from


def _topics() -> tuple[str, str]:
    """Train and validation text of the embedded corpus, the help topics of Python's `pydoc`.

    Repeated paragraphs are dropped first: a fifth of the text is there twice (the topic "class" is a section
    of the topic "compound"), and a split of the raw text puts 15 to 50 % of the validation characters, in
    runs of 40 or more, word for word into the training part. That would reward memory, and most of all
    flatter n-grams of high order. 5 to 7 % remain, the phrases every manual repeats.
    Then every tenth block is held out, not the last tenth: the topics are in alphabetical order and differ in
    style, and the tail would be little but the methods of strings, lists and dicts.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise DataError(
            "corpus 'pydoc-topics'",
            "this Python has a reduced standard library, without pydoc_data",
            "give load_corpus the path of a text",
        ) from error
    paragraphs: dict[str, str] = {}
    for key in sorted(topics):
        for paragraph in re.split(r"\n\s*\n", topics[key].strip("\n")):
            # Indentation differs between the copies, so blanks do not count.
            paragraphs.setdefault(" ".join(paragraph.split()), paragraph + "\n\n")
    # Blocks are made of whole paragraphs, so that neither part begins in the middle of a word.
    parts: tuple[list[str], list[str]] = ([], [])
    position = 0
    for paragraph in paragraphs.values():
        held_out = position // BLOCK % HELD_OUT == HELD_OUT - 1
        parts[held_out].append(paragraph)
        position += len(paragraph)
    return "".join(parts[0]), "".join(parts[1])


def _part_files(folder: Path) -> list[Path]:
    """Find the train, valid and test file of a folder, in this order."""
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise _unreadable(folder, error) from error
    texts = [entry for entry in entries if entry.is_file() and entry.suffix.lower() in SUFFIXES]
    listing = ", ".join(entry.name for entry in entries[:12]) + (", ..." if len(entries) > 12 else "")
    chosen: list[Path] = []
    for split in SPLITS:
        matches = [file for file in texts if split in file.name.lower()]
        if len(matches) != 1 or matches[0] in chosen:
            count = "no file is" if not matches else "the choice is ambiguous for"
            raise DataError(
                f"corpus '{folder}'",
                f"{count} '*{split}*' with suffix {', '.join(SUFFIXES)}, found: {listing or 'nothing'}",
                "keep exactly one such file for each of train, valid and test",
            )
        chosen.append(matches[0])
    return chosen


def _read(file: Path) -> str:
    """Read one UTF-8 file, without byte order mark and carriage returns at line ends."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise _unreadable(file, error) from error
    try:
        text = raw.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise DataError(
            f"corpus file '{file}'",
            f"byte 0x{raw[error.start]:02x} at offset {error.start} is not UTF-8",
            "convert the file to UTF-8",
        ) from error
    if not text.strip():
        raise DataError(f"corpus file '{file}'", f"no text in its {len(raw)} bytes", "give a file with text")
    return text


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"corpus '{path}'", f"cannot be read: {error.strerror}", "give one that can")


def _cut(ids: NDArray[np.int32], name: str) -> tuple[NDArray[np.int32], ...]:
    """Contiguous parts of 90, 5 and 5 % (each rounded down to a border)."""
    train, valid, test = np.split(ids, [ids.size * 18 // 20, ids.size * 19 // 20])
    if not (train.size and valid.size and test.size):
        raise DataError(
            f"corpus '{name}'",
            f"{ids.size} tokens cannot be cut into 90, 5 and 5 %",
            "give at least 20 tokens, or a folder with train, valid and test files",
        )
    return train, valid, test


# From text to ids: characters through a table over all code points, words through a dict, so that 13 MB take
# 0.3 s and 2 s.


def _tokenize(texts: Sequence[str], level: str, name: str) -> tuple[tuple[str, ...], list[NDArray[np.int32]]]:
    """Build the common vocabulary of some texts and the ids of each."""
    if level == "char":
        points = [_code_points(text) for text in texts]
        present = np.zeros(0x110000, dtype=bool)
        for part in points:
            present[part] = True
        vocabulary = tuple(map(chr, np.flatnonzero(present)))
        return vocabulary, [_char_ids(part, vocabulary, name) for part in points]
    words = [_words(text) for text in texts]
    vocabulary = tuple(sorted(set().union(*words)))
    return vocabulary, [_word_ids(part, vocabulary, name) for part in words]


def _code_points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def _words(text: str) -> list[str]:
    return text.replace("\n", f" {EOS} ").split()


def _char_ids(points: NDArray[np.uint32], vocabulary: tuple[str, ...], name: str) -> NDArray[np.int32]:
    known = [ord(char) for char in vocabulary]
    table = np.full(0x110000, -1, dtype=np.int32)
    table[known] = np.arange(len(known), dtype=np.int32)
    ids = table[points]
    if ids.size and ids.min() < 0:
        missing = chr(points[ids.argmin()])
        raise DataError(
            f"corpus '{name}'",
            f"character {missing!r} is not among the {len(known)} of its vocabulary",
            "remove or replace it",
        )
    return ids


def _word_ids(words: list[str], vocabulary: tuple[str, ...], name: str) -> NDArray[np.int32]:
    index = {word: i for i, word in enumerate(vocabulary)}
    unknown = index.get(UNKNOWN, -1)
    ids = np.fromiter((index.get(word, unknown) for word in words), dtype=np.int32, count=len(words))
    if ids.size and ids.min() < 0:
        missing = words[int(ids.argmin())]
        raise DataError(
            f"corpus '{name}'",
            f"word {missing!r} is not among the {len(vocabulary)} of its vocabulary, which has no {UNKNOWN}",
            "remove or replace it",
        )
    return ids
