"""Recordings: both folder layouts, their official splits, voices held out, and the synthetic words."""

import struct
from collections import Counter

import numpy as np
import pytest
from scipy.signal import lfilter

from evsim.data import formants
from evsim.data.features import log_mel
from evsim.data.formants import LEXICON, synthetic_words
from evsim.data.speech import Recordings, load_recordings, speaker_part, split
from evsim.errors import DataError


def put(path, samples=(1, 2, 3), rate=8000):
    """A WAV file of 16 bits."""
    data = struct.pack(f"<{len(samples)}h", *samples)
    header = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16)
    body = b"WAVE" + header + struct.pack("<4sI", b"data", len(data)) + data
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)


def refused(call, *fragments):
    """Check the message of a DataError: one line with all the fragments."""
    with pytest.raises(DataError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message


# Free Spoken Digit Dataset


def digits(folder, n_digits=3, speakers=("ann", "bob_smith"), n_each=25):
    for digit in range(n_digits):
        for s, speaker in enumerate(speakers):
            for index in range(n_each):
                put(folder / f"{digit}_{speaker}_{index}.wav", [digit, s, index])


@pytest.mark.parametrize("place", [".", "recordings"])
def test_digits(tmp_path, place):
    digits(tmp_path / place)
    (tmp_path / "README.md").write_text("digits")
    (tmp_path / place / "._0_ann_0.wav").write_bytes(b"what macOS leaves behind")
    recordings = load_recordings(str(tmp_path))
    assert recordings.name == tmp_path.name
    assert recordings.words == ("0", "1", "2")
    assert recordings.rate == 8000
    assert len(recordings) == 150
    for i, wave in enumerate(recordings.waves):
        digit, speaker, index = np.rint(wave * 32768)
        assert recordings.label[i] == digit
        assert recordings.speaker[i] == ("ann", "bob_smith")[int(speaker)]
        assert (recordings.part[i] == "test") == (index < 5)
    # Of each digit by each speaker, a tenth of 20.
    groups = Counter(zip(recordings.label, recordings.speaker, recordings.part, strict=True))
    assert set(groups.values()) == {5, 2, 18}
    assert len(groups) == 18


def test_validation_share():
    rows = [("1", "ann", index) for index in range(50)]
    for valid, n in ((0.0, 0), (0.1, 4), (0.2, 9), (0.5, 22), (0.001, 1), (0.999, 44)):
        assert Counter(split(rows, 5, valid))["valid"] == n
    chosen = [index for index, part in enumerate(split(rows, 5, 0.1)) if part == "valid"]
    assert chosen == [10, 21, 33, 44]
    assert split(rows[:6], 5, 0.5) == ["test"] * 5 + ["train"]
    assert split(rows[::-1], 5, 0.1) == split(rows, 5, 0.1)[::-1]


def test_other_rates_are_resampled(tmp_path):
    digits(tmp_path, n_each=7)
    put(tmp_path / "0_ann_5.wav", [100] * 1600, rate=16000)
    recordings = load_recordings(tmp_path, rate=8000)
    sizes = Counter(wave.size for wave in recordings.waves)
    assert sizes == {3: 41, 800: 1}


def test_foreign_file_among_the_digits(tmp_path):
    digits(tmp_path, n_each=7)
    put(tmp_path / "seven_ann_1.wav")
    refused(lambda: load_recordings(tmp_path), "seven_ann_1.wav", "{digit}_{speaker}_{index}.wav")


def test_one_digit_or_nothing_to_train_with(tmp_path):
    digits(tmp_path / "one", n_digits=1)
    refused(lambda: load_recordings(tmp_path / "one"), "one word only", "'0'")
    digits(tmp_path / "test", n_each=5)
    refused(lambda: load_recordings(tmp_path / "test"), "none of its 30 recordings", "training")


def test_damaged_file_is_named(tmp_path):
    digits(tmp_path, n_each=7)
    (tmp_path / "1_ann_3.wav").write_bytes(b"")
    refused(lambda: load_recordings(tmp_path), "1_ann_3.wav", "0 bytes")


# Speech Commands

# From validation_list.txt and testing_list.txt of the data set itself.
VALIDATION = ["5fadb538", "471a0925", "b5d1e505", "eee9b9e2", "66774579", "1a9afd33", "9db2bfe9"]
TESTING = ["2aa787cf", "ffa76c4a", "24ad3ebe", "d7467392", "5828dfa2", "7e1054e7", "b97c9f77"]
TRAINING = ["0132a06d", "0227998e", "00176480", "590750e8", "004ae714"]


def commands(folder):
    put(folder / "_background_noise_" / "tap.wav")
    (folder / "docs").mkdir()
    (folder / ".git").mkdir()
    put(folder / ".git" / "x.wav")
    (folder / "LICENSE").write_text("free")
    for w, word in enumerate(("yes", "no")):
        (folder / word).mkdir()
        (folder / word / "notes.txt").write_text("no sound")
        for s, speaker in enumerate(VALIDATION + TESTING + TRAINING):
            put(folder / word / f"{speaker}_nohash_{w}.wav", [w, s])


def test_hash_rule_is_that_of_the_official_lists(tmp_path):
    commands(tmp_path)
    recordings = load_recordings(tmp_path)
    assert recordings.words == ("no", "yes")
    assert len(recordings) == 38
    speakers = VALIDATION + TESTING + TRAINING
    for i, wave in enumerate(recordings.waves):
        word, speaker = np.rint(wave * 32768).astype(int)
        assert recordings.words[recordings.label[i]] == ("yes", "no")[word]
        assert recordings.speaker[i] == speakers[speaker]
        expected = "valid" if speaker < 7 else "test" if speaker < 14 else "train"
        assert recordings.part[i] == expected


def test_hash_rule_spreads_names_as_it_should():
    names = [f"{i:08x}_nohash_0.wav" for i in range(10_000)]
    counts = Counter(map(speaker_part, names))
    # Six standard deviations of a binomial of 10 %.
    assert abs(counts["valid"] - 1000) < 180
    assert abs(counts["test"] - 1000) < 180
    assert Counter(speaker_part(name, valid=0.0) for name in names)["valid"] == 0
    assert {speaker_part(f"abc_nohash_{i}.wav") for i in range(50)} == {
        speaker_part("abc_nohash_0_nohash_.wav")
    }


def test_lists_go_before_the_hash_rule(tmp_path):
    commands(tmp_path)
    test = f"yes/{TRAINING[0]}_nohash_0.wav"
    (tmp_path / "testing_list.txt").write_text(f"{test}\nbird/not_here.wav\n\n")
    (tmp_path / "validation_list.txt").write_text(f"no/{TESTING[0]}_nohash_1.wav\r\n", newline="")
    recordings = load_recordings(tmp_path)
    assert Counter(recordings.part) == {"train": 36, "valid": 1, "test": 1}
    (i,) = np.flatnonzero(recordings.part == "test")
    assert (recordings.speaker[i], recordings.words[recordings.label[i]]) == (TRAINING[0], "yes")


def test_bad_lists(tmp_path):
    commands(tmp_path)
    testing, validation = tmp_path / "testing_list.txt", tmp_path / "validation_list.txt"
    testing.write_text("yes/x.wav\n")
    refused(lambda: load_recordings(tmp_path), "testing_list.txt", "not the other", "validation_list.txt")
    validation.write_text("yes/y.wav\n")
    refused(lambda: load_recordings(tmp_path), "none of its 38 files")
    validation.write_text("yes/x.wav\n")
    refused(lambda: load_recordings(tmp_path), "yes/x.wav", "both lists")
    validation.write_bytes(b"\xff\xfe")
    refused(lambda: load_recordings(tmp_path), "validation_list.txt", "UTF-8")


def test_files_without_speaker(tmp_path):
    for word in ("left", "right"):
        for i in range(40):
            put(tmp_path / word / f"{i}.WAV")
    recordings = load_recordings(tmp_path)
    assert set(recordings.speaker) == {""}
    assert set(recordings.part) == {"train", "valid", "test"}
    refused(lambda: recordings.hold_out(""), "no speaker ''")


def test_folders_without_a_layout(tmp_path):
    refused(lambda: load_recordings(tmp_path / "none"), "none", "no such folder")
    put(tmp_path / "a.wav")
    refused(lambda: load_recordings(tmp_path / "a.wav"), "a.wav", "is a file")
    refused(lambda: load_recordings(tmp_path), "{digit}_{speaker}_{index}.wav", "{word}/", "found: a.wav")
    (tmp_path / "empty").mkdir()
    refused(lambda: load_recordings(tmp_path / "empty"), "found: nothing")
    put(tmp_path / "one" / "yes" / "a.wav")
    refused(lambda: load_recordings(tmp_path / "one"), "one word only", "'yes'")
    for valid in (-0.1, 1.0, float("nan")):
        refused(lambda valid=valid: load_recordings(tmp_path, valid=valid), "valid", str(valid))


# Recordings


@pytest.fixture
def recordings():
    """Two words by three speakers; in test, valid and train."""
    speaker = np.repeat(["ann", "bob", "cid"], 6)
    return Recordings(
        "little",
        ("no", "yes"),
        [np.full(i + 1, i, np.float32) for i in range(18)],
        np.tile(np.repeat([0, 1], 3), 3),
        speaker,
        np.tile(["test", "valid", "train"], 6),
        8000,
    )


def test_select(recordings):
    mask = (recordings.label == 1) & (recordings.part == "train")
    chosen = recordings.select(mask)
    assert [wave.size for wave in chosen.waves] == [6, 12, 18]
    assert chosen.label.tolist() == [1, 1, 1]
    assert chosen.speaker.tolist() == ["ann", "bob", "cid"]
    assert set(chosen.part) == {"train"}
    assert len(recordings.select(mask & False)) == 0
    refused(lambda: recordings.select([True]), "little", "(1,)", "18")
    refused(lambda: recordings.select(np.arange(18)), "int64")


@pytest.mark.parametrize("speakers", [["bob"], "bob", ("ann", "cid")])
def test_hold_out(recordings, speakers):
    held_out = recordings.hold_out(speakers)
    names = {speakers} if isinstance(speakers, str) else set(speakers)
    assert len(held_out) == len(recordings)
    for speaker, before, after in zip(recordings.speaker, recordings.part, held_out.part, strict=True):
        if speaker in names:
            assert after == "test"
        else:
            assert after == ("train" if before == "test" else before)
    assert recordings.part[0] == "test"


def test_hold_out_refuses(recordings):
    refused(lambda: recordings.hold_out(["ann", "dan"]), "'dan'", "ann, bob, cid")
    refused(lambda: recordings.hold_out(["ann", "bob", "cid"]), "no training recordings")


def test_only(recordings):
    yes = recordings.only("yes")
    assert yes.words == recordings.words
    assert set(yes.label) == {1}
    assert len(yes) == 9
    assert len(recordings.only(["yes", "no"])) == 18
    refused(lambda: recordings.only(["maybe"]), "'maybe'", "no, yes")


def test_repr_and_frozen(recordings):
    text = "Recordings('little', n_words=2, n_speakers=3, train=6, valid=6, test=6, rate=8000)"
    assert repr(recordings) == text
    with pytest.raises(AttributeError):
        recordings.rate = 1


def test_columns_must_fit():
    def make(label=(0, 1), part=("train", "test")):
        waves = [np.zeros(1, np.float32)] * 2
        return Recordings("x", ("a", "b"), waves, np.array(label), np.array(["", ""]), np.array(part), 8000)

    assert len(make()) == 2
    refused(lambda: make(label=(0,)), "'x'", "2 waves, 1 labels")
    refused(lambda: make(label=(0, 2)), "0 to 2", "2 words")
    refused(lambda: make(label=(-1, 0)), "-1 to 0")
    refused(lambda: make(part=("train", "dev")), "'dev'", "valid")


# Synthetic words


@pytest.fixture(scope="module")
def words():
    return load_recordings()


def test_synthetic_words(words):
    assert repr(words) == (
        "Recordings('synthetic-words-0', n_words=10, n_speakers=8, train=720, valid=80, test=160, rate=8000)"
    )
    assert words.words == tuple(sorted(LEXICON[:10]))
    groups = Counter(zip(words.label, words.speaker, words.part, strict=True))
    assert set(groups.values()) == {2, 1, 9}
    for wave in words.waves:
        assert wave.dtype == np.float32
        assert 0.3 <= wave.size / words.rate <= 0.9
        assert 0.05 < np.abs(wave).max() <= 1.0
        assert np.isfinite(wave).all()


def test_every_word_of_the_lexicon_has_its_reverse():
    assert len(set(LEXICON)) == len(LEXICON)
    assert {word[::-1] for word in LEXICON} == set(LEXICON)
    assert sum(word[::-1] in LEXICON[:10] for word in LEXICON[:10]) == 6
    assert all(2 <= len(word) <= 4 and set(word) <= set(formants.PHONES) for word in LEXICON)


def test_the_seed_decides():
    one, again, other = (synthetic_words(seed=seed, n_speakers=2, n_each=3) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one.waves, again.waves, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(one.waves, other.waves, strict=True))
    assert (one.name, other.name) == ("synthetic-words-1", "synthetic-words-2")


def test_a_smaller_set_is_part_of_a_larger_one(words):
    small = synthetic_words(n_words=3, n_speakers=2, n_each=4)
    assert len(small) == 24
    for w, word in enumerate(small.words):
        for speaker in ("voice0", "voice1"):
            few, many = (
                [r.waves[i] for i in np.flatnonzero((r.label == number) & (r.speaker == speaker))]
                for r, number in ((small, w), (words, words.words.index(word)))
            )
            for a, b in zip(few, many[:4], strict=True):
                np.testing.assert_allclose(a, b, atol=1e-6)


def test_order_is_all_that_tells_a_pair_apart(words):
    """By the nearest mean of training, whole words are confused with their reverses, halves are not."""
    accuracy = {}
    pair = words.only(["foxe", "exof"])
    train, test = pair.part != "test", pair.part == "test"
    for halves in (1, 2):
        features = np.stack(
            [
                np.concatenate([half.mean(axis=0) for half in np.array_split(log_mel(wave, 8000), halves)])
                for wave in pair.waves
            ]
        )
        means = np.stack([features[train & (pair.label == k)].mean(axis=0) for k in np.unique(pair.label)])
        nearest = ((features[test, None] - means) ** 2).sum(axis=-1).argmin(axis=1)
        accuracy[halves] = np.mean(np.unique(pair.label)[nearest] == pair.label[test])
    assert accuracy[1] < 0.75
    assert accuracy[2] > 0.9


@pytest.mark.parametrize("rate", [4000, 16000])
def test_other_rates(rate):
    recordings = synthetic_words(n_words=2, n_speakers=1, n_each=3, rate=rate)
    assert recordings.rate == rate
    assert all(0.3 <= wave.size / rate <= 0.9 for wave in recordings.waves)
    assert Counter(recordings.part) == {"train": 2, "valid": 2, "test": 2}


def test_synthetic_words_refuse():
    for name, value in (
        ("seed", -1),
        ("seed", 0.5),
        ("n_words", 1),
        ("n_words", 21),
        ("n_speakers", 0),
        ("n_each", 2),
        ("rate", 100),
        ("rate", float("nan")),
        ("valid", 1.0),
    ):
        refused(lambda name=name, value=value: synthetic_words(**{name: value}), name, str(value))


# The synthesiser, against SciPy and closed forms


def test_cascade_is_that_of_scipy():
    rng = np.random.default_rng(0)
    source = rng.standard_normal((200, 3, 2))
    tilt = np.array([0.85, 0.0])
    a, b, c = formants._resonator(rng.uniform(200, 3500, (3, 3, 2)), rng.uniform(50, 500, (3, 3, 2)), 8000)
    tracks = (np.repeat(x[None], 5, axis=0) for x in (a, b, c))
    result = formants._filter(source, tilt, *tracks, 40)
    for i in range(3):
        for kind in range(2):
            expected = lfilter([1.0], [1.0, -tilt[kind]], source[:, i, kind])
            for k in range(3):
                poles = [1.0, -b[k, i, kind], -c[k, i, kind]]
                expected = lfilter([a[k, i, kind]], poles, expected)
            np.testing.assert_allclose(result[:, i, kind], expected, rtol=1e-9, atol=1e-12)


def test_a_resonator_resonates_where_it_should():
    a, b, c = formants._resonator(np.array(1000.0), np.array(50.0), 8000)
    impulse = np.zeros(8000)
    impulse[0] = 1.0
    power = np.abs(np.fft.rfft(lfilter([a], [1.0, -b, -c], impulse))) ** 2
    assert power[0] == pytest.approx(1.0)
    assert abs(power.argmax() - 1000) <= 1
    assert abs(np.ptp(np.flatnonzero(power > power.max() / 2)) - 50) <= 2


def test_a_phone_is_as_loud_as_its_level():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(200_000)
    tilt = np.array([0.85, 0.0])
    frequencies = np.array([[[600.0, 1200.0, 2500.0], [1900.0, 2600.0, 3300.0]]])
    widths = np.full((1, 2, 3), 400.0)
    a, b, c = formants._resonator(frequencies, widths, 8000)
    gains = formants._gains(a, b, c, tilt)
    for kind in range(2):
        sound = lfilter([1.0], [1.0, -tilt[kind]], noise)
        for k in range(3):
            sound = lfilter([a[0, kind, k]], [1.0, -b[0, kind, k], -c[0, kind, k]], sound)
        assert gains[0, kind] == pytest.approx(np.sqrt(np.mean(sound**2)), rel=0.03)


@pytest.mark.parametrize("hz", [80.0, 171.3, 320.0])
def test_pulses_come_at_the_pitch(hz):
    train = formants._pulses(np.full(8000, hz / 8000))
    spectrum = np.abs(np.fft.rfft(train * np.hanning(8000)))
    assert abs(spectrum[40:480].argmax() + 40 - hz) <= 1
    assert train.sum() / np.sqrt(8000 / hz) == pytest.approx(hz, abs=1)  # pulses per second
