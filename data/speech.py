"""Spoken words: recordings with word, speaker and part, from a folder of WAV files or made by us.

References
----------
.. [1] Z. Jackson et al., "Free Spoken Digit Dataset", v1.0.10, 2020, doi:10.5281/zenodo.1342401 (its README
   has the split: recordings 0 to 4 of a digit by a speaker are the test part).
.. [2] P. Warden, "Speech Commands: a dataset for limited-vocabulary speech recognition", arXiv:1804.03209,
   2018 (section 7 and the README of the data set have the rule that puts a speaker into a part).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.data.wav import read_wav
from evsim.errors import DataError

PARTS = ("train", "valid", "test")
DIGIT_FILE = re.compile(r"(?P<digit>[0-9])_(?P<speaker>.+)_(?P<index>[0-9]+)\.wav", re.IGNORECASE)
#: Recordings of one digit by one speaker that the Free Spoken Digit Dataset keeps for the test.
DIGIT_TEST = 5
NOISE = "_background_noise_"
LISTS = {"valid": "validation_list.txt", "test": "testing_list.txt"}
#: Speech Commands: a hash is taken modulo this, see `speaker_part`.
HASH_RANGE = 2**27


@dataclass(frozen=True, eq=False, repr=False)
class Recordings:
    """Spoken words with their labels.

    Attributes
    ----------
    name : str
        What the set is called in logs and errors.
    words : tuple of str
        Class names, sorted; a label is a place in it.
    waves : list of ndarray of float32, each of shape (n_samples,)
        Full scale is 1.
    label : ndarray of int64, shape (n,)
    speaker : ndarray of str, shape (n,)
        Empty where the speaker is not known.
    part : ndarray of str, shape (n,)
        ``"train"``, ``"valid"`` or ``"test"``.
    rate : int
        Hz, of all waves.
    """

    name: str
    words: tuple[str, ...]
    waves: list[NDArray[np.float32]]
    label: NDArray[np.int64]
    speaker: NDArray[np.str_]
    part: NDArray[np.str_]
    rate: int

    def __post_init__(self) -> None:
        sizes = [len(self.waves), len(self.label), len(self.speaker), len(self.part)]
        if len(set(sizes)) > 1:
            raise DataError(
                f"recordings '{self.name}'",
                "there are {} waves, {} labels, {} speakers and {} parts".format(*sizes),
                "give one of each per recording",
            )
        unknown = sorted(set(np.unique(self.part).tolist()) - set(PARTS))
        if unknown:
            raise DataError(f"recordings '{self.name}'", f"part is {unknown[0]!r}", f"use {', '.join(PARTS)}")
        if sizes[0] and not 0 <= self.label.min() <= self.label.max() < len(self.words):
            raise DataError(
                f"recordings '{self.name}'",
                f"labels reach from {self.label.min()} to {self.label.max()}",
                f"a label is a place among the {len(self.words)} words",
            )

    def __len__(self) -> int:
        return len(self.waves)

    def select(self, mask: ArrayLike) -> Recordings:
        """The recordings where `mask`, bool of shape (n,), is true, as in ``select(r.part == "train")``.

        Raises
        ------
        DataError
            If the mask has another shape or type.
        """
        chosen = np.asarray(mask)
        if chosen.dtype != bool or chosen.shape != self.label.shape:
            raise DataError(
                f"recordings '{self.name}'",
                f"the mask has shape {chosen.shape} and dtype {chosen.dtype}",
                f"give {len(self)} times True or False",
            )
        waves = [self.waves[i] for i in np.flatnonzero(chosen)]
        return replace(
            self, waves=waves, label=self.label[chosen], speaker=self.speaker[chosen], part=self.part[chosen]
        )

    def hold_out(self, speakers: str | Iterable[str]) -> Recordings:
        """Test with voices that were never heard in training.

        All recordings of these speakers become the test part. Those of all others are for learning: what was
        train or valid stays so, and what was test joins train. No recording is dropped.

        Raises
        ------
        DataError
            If a speaker is not in the set, or nobody is left to train with.
        """
        names = [speakers] if isinstance(speakers, str) else list(speakers)
        known = np.unique(self.speaker).tolist()
        for name in names:
            if name not in known or name == "":
                listing = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
                raise DataError(f"recordings '{self.name}'", f"no speaker {name!r}", f"there are: {listing}")
        held_out = np.isin(self.speaker, names)
        part = np.where(held_out, "test", np.where(self.part == "test", "train", self.part))
        if not (part == "train").any():
            raise DataError(
                f"recordings '{self.name}'",
                f"without {', '.join(names)} no training recordings are left",
                "hold out fewer speakers",
            )
        return replace(self, part=part)

    def only(self, words: str | Iterable[str]) -> Recordings:
        """The recordings of some of the words. `words` and the numbers of the labels stay as they are.

        Raises
        ------
        DataError
            If a word is not in the set.
        """
        names = [words] if isinstance(words, str) else list(words)
        for name in names:
            if name not in self.words:
                raise DataError(
                    f"recordings '{self.name}'", f"no word {name!r}", f"there are: {', '.join(self.words)}"
                )
        return self.select(np.isin(self.label, [self.words.index(name) for name in names]))

    def __repr__(self) -> str:
        counts = ", ".join(f"{part}={int((self.part == part).sum())}" for part in PARTS)
        return (
            f"Recordings('{self.name}', n_words={len(self.words)}, "
            f"n_speakers={len(np.unique(self.speaker))}, {counts}, rate={self.rate})"
        )


def load_recordings(
    path: str | Path | None = None, rate: int = 8000, seed: int = 0, valid: float = 0.1
) -> Recordings:
    """Read a folder of spoken words.

    Parameters
    ----------
    path : str or Path, optional
        A folder, in one of two layouts.
        Free Spoken Digit Dataset [1]_: files ``{digit}_{speaker}_{index}.wav`` in it, or in its folder
        ``recordings``. Index 0 to 4 is the test part; of the others, `valid` of each digit by each speaker,
        spread evenly over the indices, is the validation part.
        Speech Commands [2]_: ``{word}/*.wav``. The parts are those of ``validation_list.txt`` and
        ``testing_list.txt`` where both are there, else those of `speaker_part`. The speaker is what stands
        before ``_nohash_`` in the name of a file. ``_background_noise_`` and folders without WAV files are
        not read.
        None: words synthesised from `seed`, see `evsim.data.formants`.
    rate : int
        Hz. Files with other rates are resampled, see `read_wav`.
    seed : int
        Of the synthetic words; folders do not depend on it.
    valid : float
        Share of the training recordings that is taken for validation, in [0, 1); a share above 0 is at least
        one per word and speaker, if two are there. Under the hash rule of Speech Commands it is the share of
        all; where there are lists it has no effect.

    Returns
    -------
    Recordings
        In the order of the file names; all are held in memory.

    Raises
    ------
    DataError
        If the path does not exist, has neither layout, fewer than two words or nothing to train with, or a
        file cannot be read.
    """
    if not 0 <= valid < 1:
        raise DataError("load_recordings", f"valid is {valid}", "give a share in [0, 1), such as 0.1")
    if path is None:
        from evsim.data.formants import synthetic_words

        return synthetic_words(seed=seed, rate=rate, valid=valid)
    folder = Path(path)
    where = f"recordings '{path}'"
    if not folder.is_dir():
        raise DataError(
            where,
            "is a file" if folder.exists() else "no such folder",
            "give a folder of WAV files, or None for synthetic words",
        )
    found = _digits(folder, where, valid) or _commands(folder, where, valid)
    if not found:
        entries = sorted(entry.name for entry in folder.iterdir())
        listing = ", ".join(entries[:8]) + (", ..." if len(entries) > 8 else "")
        raise DataError(
            where,
            "has no files {digit}_{speaker}_{index}.wav, in it or in recordings/, and no folders {word}/ "
            f"with WAV files; found: {listing or 'nothing'}",
            "arrange it as the Free Spoken Digit Dataset or Speech Commands",
        )
    files, word, speaker, part = (list(column) for column in zip(*found, strict=True))
    words = tuple(sorted(set(word)))
    if len(words) < 2:
        raise DataError(where, f"has one word only, '{words[0]}'", "give at least two to tell apart")
    if "train" not in part:
        raise DataError(where, f"none of its {len(files)} recordings is for training", "add recordings")
    with ThreadPoolExecutor() as pool:
        waves = list(pool.map(partial(read_wav, rate=rate), files))
    index = {name: i for i, name in enumerate(words)}
    label = np.array([index[name] for name in word], dtype=np.int64)
    return Recordings(folder.resolve().name, words, waves, label, np.array(speaker), np.array(part), rate)


def _wav_files(folder: Path) -> list[Path]:
    """By name. Hidden files are skipped: macOS puts a ._x.wav, which is no sound, beside an x.wav."""
    files = (file for file in folder.iterdir() if file.suffix.lower() == ".wav" and file.name[0] != ".")
    return sorted(file for file in files if file.is_file())


# Free Spoken Digit Dataset


def _digits(folder: Path, where: str, valid: float) -> list[tuple[Path, str, str, str]]:
    """File, word, speaker and part of each recording; nothing if the folder has another layout."""
    for place in (folder, folder / "recordings"):
        files = _wav_files(place) if place.is_dir() else []
        matches = [DIGIT_FILE.fullmatch(file.name) for file in files]
        if any(matches):
            break
    else:
        return []
    rows = []
    for file, match in zip(files, matches, strict=True):
        if match is None:
            raise DataError(where, f"{file.name} is not {{digit}}_{{speaker}}_{{index}}.wav", "move it away")
        rows.append((file, match["digit"], match["speaker"], int(match["index"])))
    parts = split([row[1:] for row in rows], DIGIT_TEST, valid)
    return [(file, word, speaker, part) for (file, word, speaker, _), part in zip(rows, parts, strict=True)]


def split(rows: list[tuple[str, str, int]], n_test: float, valid: float) -> list[str]:
    """Part of each recording (word, speaker, index), the same for every word and speaker.

    Test has the indices below `n_test`. Of the n others of a word by a speaker, m = `valid` n rounded (at
    least one if two are there and `valid` is above 0) are for validation: in order of their indices, the
    places ``floor((k + 1/2) n / m)``, so that the early and the late of a session are in both parts.
    """
    groups: dict[tuple[str, str], list[int]] = {}
    for place in sorted(range(len(rows)), key=lambda place: rows[place][2]):
        word, speaker, index = rows[place]
        if index >= n_test:
            groups.setdefault((word, speaker), []).append(place)
    parts = ["test" if index < n_test else "train" for _, _, index in rows]
    for places in groups.values():
        n = len(places)
        m = min(max(round(valid * n), 1), n - 1) if valid else 0
        for k in range(m):
            parts[places[(2 * k + 1) * n // (2 * m)]] = "valid"
    return parts


# Speech Commands


def _commands(folder: Path, where: str, valid: float) -> list[tuple[Path, str, str, str]]:
    """File, word, speaker and part of each recording; nothing if the folder has another layout."""
    words = sorted(entry for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != ".")
    files = [file for word in words if word.name != NOISE for file in _wav_files(word)]
    listed = _lists(folder, where) if files else None
    rows = []
    for file in files:
        word = file.parent.name
        if listed is None:
            part = speaker_part(file.name, valid)
        else:
            part = listed.get(f"{word}/{file.name}", "train")
        before, nohash, _ = file.name.partition("_nohash_")
        rows.append((file, word, before if nohash else "", part))
    if listed is not None and all(part == "train" for *_, part in rows):
        raise DataError(
            where,
            f"{LISTS['valid']} and {LISTS['test']} name none of its {len(files)} files",
            "write lines such as yes/0a7c2a8d_nohash_0.wav, or remove both lists",
        )
    return rows


def _lists(folder: Path, where: str) -> dict[str, str] | None:
    """Part of each listed file, by ``word/file.wav``; None if there are no lists."""
    there = [name for name in LISTS.values() if (folder / name).is_file()]
    if not there:
        return None
    if len(there) == 1:
        raise DataError(
            where, f"has {there[0]} but not the other list", f"keep both of {', '.join(LISTS.values())}"
        )
    listed: dict[str, str] = {}
    for part, name in LISTS.items():
        try:
            lines = (folder / name).read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise DataError(where, f"{name} is not UTF-8 text", "write one word/file.wav per line") from error
        for line in filter(None, map(str.strip, lines)):
            if listed.setdefault(line, part) != part:
                raise DataError(where, f"{line} is in both lists", "keep it in one")
    return listed


def speaker_part(file_name: str, valid: float = 0.1, test: float = 0.1) -> str:
    """Part of a recording by the rule of Speech Commands [2]_.

    The name up to ``_nohash_``, which stands for the speaker, or else the whole name with its ``.wav``, is
    hashed (SHA-1); the hash modulo 2^27, over 2^27 - 1, is a number from 0 to 1: below `valid` it is "valid",
    below ``valid + test`` "test", else "train". So all recordings of a speaker are in one part, and stay
    there when the set grows.
    """
    speaker = file_name.partition("_nohash_")[0]
    hashed = int(hashlib.sha1(speaker.encode(), usedforsecurity=False).hexdigest(), 16)
    # In percent, in the order of operations of the published code, which decides at the borders.
    percentage = (hashed % HASH_RANGE) * (100.0 / (HASH_RANGE - 1))
    if percentage < 100.0 * valid:
        return "valid"
    return "test" if percentage < 100.0 * valid + 100.0 * test else "train"
