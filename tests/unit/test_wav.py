"""WAV files: what is read is right, to the last bit where nothing is resampled; the rest is refused."""

import math
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evsim.data.wav import read_wav
from evsim.errors import DataError

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
RATE = 8000


def chunk(name, body):
    return name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def fmt(tag, bits, channels=1, rate=RATE, extra=b""):
    frame = channels * bits // 8
    return struct.pack("<HHIIHH", tag, channels, rate, rate * frame, frame, bits) + extra


def riff(header, data, before=b"", after=b""):
    body = b"WAVE" + chunk(b"fmt ", header) + before + chunk(b"data", data) + after
    return b"RIFF" + struct.pack("<I", len(body)) + body


def wav16(samples, rate=RATE):
    return riff(fmt(PCM, 16, rate=rate), np.asarray(samples, "<i2").tobytes())


@pytest.fixture
def put(tmp_path):
    """Writes bytes to a file and gives its path."""

    def write(raw):
        path = tmp_path / "sound.wav"
        path.write_bytes(raw)
        return path

    return write


def refused(call, *fragments):
    """Check the message of a DataError: one line with all the fragments."""
    with pytest.raises(DataError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message


# Formats. The oracle is the definition: integers over the largest magnitude, little-endian.


@pytest.mark.parametrize(
    ("tag", "bits", "data", "expected"),
    [
        (PCM, 8, bytes([0, 64, 128, 192, 255]), [-1.0, -0.5, 0.0, 0.5, 127 / 128]),
        (PCM, 16, struct.pack("<4h", -32768, -1, 0, 32767), [-1.0, -1 / 32768, 0.0, 32767 / 32768]),
        (PCM, 24, b"\x00\x00\x80\xff\xff\xff\x01\x00\x00\xff\xff\x7f", [-1.0, -(2**-23), 2**-23, 1 - 2**-23]),
        (PCM, 32, struct.pack("<3i", -(2**31), 2**30, 2**8), [-1.0, 0.5, 2**-23]),
        (FLOAT, 32, struct.pack("<3f", -1.0, 0.25, 1.5), [-1.0, 0.25, 1.5]),
        (FLOAT, 64, struct.pack("<3d", -1.0, 0.25, 1e-3), [-1.0, 0.25, 1e-3]),
    ],
)
def test_every_format_has_full_scale_one(put, tag, bits, data, expected):
    guid = struct.pack("<H", tag) + bytes.fromhex("000000001000800000aa00389b71")
    for header in (fmt(tag, bits), fmt(EXTENSIBLE, bits, extra=struct.pack("<HHI", 22, bits, 4) + guid)):
        wave = read_wav(put(riff(header, data)), RATE)
        assert wave.dtype == np.float32
        np.testing.assert_array_equal(wave, np.array(expected, np.float32))


@pytest.mark.parametrize("channels", [2, 3, 6])
def test_channels_are_averaged(put, rng_samples, channels):
    samples = rng_samples.reshape(-1, channels)
    wave = read_wav(put(riff(fmt(PCM, 16, channels), samples.astype("<i2").tobytes())), RATE)
    np.testing.assert_allclose(wave, samples.mean(axis=1) / 32768, atol=1e-7)


@pytest.fixture
def rng_samples():
    return np.random.default_rng(3).integers(-(2**15), 2**15, 600)


def test_other_chunks_are_skipped_in_silence(put):
    data = struct.pack("<3h", 1, 2, 3)
    odd = chunk(b"LIST", b"INFOISFT\x05\x00\x00\x00evsim") + chunk(b"odd ", b"x")
    wave = read_wav(put(riff(fmt(PCM, 16), data, before=odd, after=odd) + b"TAG behind the RIFF chunk"), RATE)
    np.testing.assert_array_equal(wave * 32768, [1, 2, 3])


def test_last_byte_of_padding_may_be_missing(put):
    raw = riff(fmt(PCM, 8), b"\x00\x80\xff")
    np.testing.assert_array_equal(read_wav(put(raw[:-1]), RATE), np.float32([-1, 0, 127 / 128]))


# Resampling


@pytest.mark.parametrize("file_rate", [4000, 6000, 11025, 16000, 22050, 44100, 48000])
def test_a_tone_keeps_frequency_amplitude_and_phase(put, file_rate):
    hz, n = 440.0, file_rate // 2
    tone = np.round(16384 * np.sin(2 * np.pi * hz * np.arange(n) / file_rate))
    wave = read_wav(put(wav16(tone, file_rate)), RATE)
    assert wave.size == math.ceil(n * RATE / file_rate)
    expected = 0.5 * np.sin(2 * np.pi * hz * np.arange(wave.size) / RATE)
    inner = slice(200, -200)  # the filter knows nothing of the sound before and after
    np.testing.assert_allclose(wave[inner], expected[inner], atol=0.003)


def test_what_the_new_rate_cannot_carry_is_removed(put):
    tone = 16384 * np.sin(2 * np.pi * 6000 * np.arange(16000) / 16000)  # would be heard at 2000 Hz
    wave = read_wav(put(wav16(tone, 16000)), RATE)
    assert np.abs(wave[200:-200]).max() < 0.002


def test_same_rate_is_not_filtered(put, rng_samples):
    np.testing.assert_array_equal(read_wav(put(wav16(rng_samples)), RATE) * 32768, rng_samples)


# Bad input


def test_paths_that_are_no_file(tmp_path):
    refused(lambda: read_wav(tmp_path / "none.wav", RATE), "none.wav", "no such file")
    refused(lambda: read_wav(tmp_path, RATE), str(tmp_path), "folder")


PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489")
GOOD = wav16(range(1, 101))


@pytest.mark.parametrize(
    ("raw", "fragments"),
    [
        (b"", ["empty", "0 bytes"]),
        (b"RIFF", ["b'RIFF'", "RIFF....WAVE"]),
        (b"a poem, not a sound\n" * 9, ["a poem"]),
        (PNG, ["PNG"]),
        (np.random.default_rng(0).bytes(1000), ["not RIFF"]),
        (b"RIFX" + GOOD[4:], ["RIFX"]),
        (b"RIFF\x04\x00\x00\x00WAVE", ["no fmt and no data chunk"]),
        (GOOD[:36], ["no data chunk"]),
        (b"RIFF\xff\x00\x00\x00WAVE" + chunk(b"data", b"1234"), ["no fmt chunk"]),
        (GOOD[:20] + GOOD[24:36], ["fmt chunk", "cut off"]),
        (b"RIFF\xff\x00\x00\x00WAVE" + chunk(b"fmt ", b"12") + chunk(b"data", b"12"), ["2 of 16"]),
        (wav16([]), ["no samples"]),
        (GOOD[:-50], ["cut off", "150 of 200 bytes"]),
        (GOOD[:-1], ["199 of 200 bytes"]),
        (GOOD[:44], ["0 of 200 bytes"]),
        (riff(fmt(PCM, 16), b"123"), ["3 bytes", "2"]),
        (riff(fmt(PCM, 16), b"12", after=chunk(b"data", b"34")), ["two data chunks"]),
        (riff(fmt(PCM, 16), b"12", after=chunk(b"\x01\x02\x03\x04", b"34")), ["damaged", "\\x01"]),
        (wav16([1, 2], rate=0), ["0 Hz"]),
        (wav16([1, 2], rate=999), ["999 Hz"]),
        (wav16([1, 2], rate=10**9), ["1000000000 Hz"]),
        (riff(fmt(PCM, 16, channels=0), b"1234"), ["0 channels"]),
        (riff(struct.pack("<HHIIHH", PCM, 1, RATE, RATE, 1, 16), b"1234"), ["contradicts itself", "1 bytes"]),
        (riff(struct.pack("<HHIIHH", PCM, 1, RATE, 1, 2, 16), b"1234"), ["contradicts itself", "1 bytes"]),
        (riff(fmt(PCM, 12), b"1234"), ["PCM with 12 bits"]),
        (riff(fmt(PCM, 64), b"12345678"), ["PCM with 64 bits"]),
        (riff(fmt(FLOAT, 16), b"1234"), ["float with 16 bits"]),
        (riff(fmt(2, 4), b"1234"), ["Microsoft ADPCM", "ffmpeg"]),
        (riff(fmt(6, 8), b"1234"), ["A-law", "ffmpeg"]),
        (riff(fmt(7, 8), b"1234"), ["mu-law", "ffmpeg"]),
        (riff(fmt(0x11, 4), b"1234"), ["IMA ADPCM", "ffmpeg"]),
        (riff(fmt(0x1234, 16), b"1234"), ["0x1234", "ffmpeg"]),
        (riff(fmt(EXTENSIBLE, 16), b"1234"), ["0xfffe"]),
        (riff(fmt(FLOAT, 32), struct.pack("<2f", 0, math.nan)), ["sample 1", "nan"]),
        (riff(fmt(FLOAT, 32), struct.pack("<fI", 0, 0x7F800001)), ["sample 1", "nan"]),  # signalling
        (riff(fmt(FLOAT, 32), struct.pack("<2f", -math.inf, 0)), ["sample 0", "-inf"]),
        (riff(fmt(FLOAT, 64), struct.pack("<2d", 1e300, 0)), ["sample 0", "1e+300"]),
        (riff(fmt(FLOAT, 32), struct.pack("<2f", 0.5, 12000)), ["sample 1", "12000", "full scale"]),
    ],
)
def test_bad_files_are_refused(put, raw, fragments):
    path = put(raw)
    refused(lambda: read_wav(path, RATE), str(path), *fragments)


def test_rate_wanted(put):
    path = put(GOOD)
    for rate in (0, -8000, 8000.5, math.nan, 10**9):
        refused(lambda rate=rate: read_wav(path, rate), "read_wav", "rate", str(rate))


@pytest.mark.parametrize("keep", range(0, len(GOOD), 7))
def test_no_cut_goes_unnoticed(put, keep):
    refused(lambda: read_wav(put(GOOD[:keep]), RATE), "sound.wav")


FILES = (
    GOOD,
    riff(fmt(FLOAT, 32), np.linspace(-1, 1, 40, dtype="<f4").tobytes()),
    riff(fmt(PCM, 24, 2), bytes(range(240)), before=chunk(b"LIST", b"INFO")),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    raw=st.sampled_from(FILES),
    changes=st.lists(st.tuples(st.integers(0, 79), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, 60),
)
def test_damaged_files_are_read_or_refused(put, raw, changes, cut):
    damaged = bytearray(raw)
    for place, value in changes:
        damaged[place] = value
    path = put(bytes(damaged[: len(damaged) - cut]))
    try:
        wave = read_wav(path, RATE)
    except DataError:
        return
    assert wave.ndim == 1
    assert wave.size > 0
    assert wave.dtype == np.float32
    assert np.isfinite(wave).all()
