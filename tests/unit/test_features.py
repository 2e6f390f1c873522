"""Log-mel energies against the definitions, written as loops."""

import math

import numpy as np
import pytest

from evsim.data.features import FLOOR, Normaliser, log_mel
from evsim.errors import DataError

RATE = 8000


def noise(n, seed=0):
    return np.random.default_rng(seed).standard_normal(n) * 0.1


def refused(call, *fragments):
    with pytest.raises(DataError) as caught:
        call()
    assert "\n" not in str(caught.value)
    for fragment in fragments:
        assert fragment in str(caught.value)


def to_mel(hz):
    return 2595 * math.log10(1 + hz / 700)


def to_hz(mel):
    return 700 * (10 ** (mel / 2595) - 1)


def centres(n_bands, low, high):
    step = (to_mel(high) - to_mel(low)) / (n_bands + 1)
    return [to_hz(to_mel(low) + (b + 1) * step) for b in range(n_bands)]


def by_definition(wave, rate, n_bands, frame, hop, low, high):
    """One number after the other: Hann window, sum of the DFT, weights from the corners of the triangles."""
    n, step = round(frame * rate), round(hop * rate)
    window = [math.sin(math.pi * i / n) ** 2 for i in range(n)]
    corners = [low, *centres(n_bands, low, high), high]
    rows = []
    for start in range(0, max(len(wave) - n, 0) + 1, step):
        piece = [wave[start + i] if start + i < len(wave) else 0.0 for i in range(n)]
        row = []
        powers = []
        for k in range(n // 2 + 1):
            total = sum(
                w * x * complex(math.cos(2 * math.pi * k * i / n), -math.sin(2 * math.pi * k * i / n))
                for i, (w, x) in enumerate(zip(window, piece, strict=True))
            )
            powers.append(abs(total) ** 2 / sum(w * w for w in window))
        for left, middle, right in zip(corners, corners[1:], corners[2:], strict=False):
            energy = 0.0
            for k, power in enumerate(powers):
                hz = k * rate / n
                if left < hz <= middle:
                    energy += power * (to_mel(hz) - to_mel(left)) / (to_mel(middle) - to_mel(left))
                elif middle < hz < right:
                    energy += power * (to_mel(right) - to_mel(hz)) / (to_mel(right) - to_mel(middle))
            row.append(math.log(FLOOR + energy))
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize(
    ("n_samples", "rate", "n_bands", "frame", "hop", "low", "high"),
    [
        (400, 8000, 4, 0.016, 0.008, 100.0, None),
        (150, 4000, 3, 0.0151, 0.011, 0.0, 1500.0),  # an odd number of samples per frame
        (40, 8000, 4, 0.016, 0.008, 100.0, None),  # shorter than one frame
    ],
)
def test_against_the_definition(n_samples, rate, n_bands, frame, hop, low, high):
    wave = noise(n_samples)
    result = log_mel(wave, rate, n_bands, frame, hop, low, high)
    assert result.dtype == np.float32
    expected = by_definition(wave, rate, n_bands, frame, hop, low, rate / 2 if high is None else high)
    np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("n_samples", "n_frames"), [(1, 1), (256, 1), (383, 1), (384, 2), (512, 3), (8000, 61)]
)
def test_number_of_frames(n_samples, n_frames):
    assert log_mel(noise(n_samples), RATE).shape == (n_frames, 16)


def test_a_short_wave_is_padded_at_its_end():
    wave = noise(100)
    np.testing.assert_array_equal(log_mel(wave, RATE), log_mel(np.pad(wave, (0, 156)), RATE))


@pytest.mark.parametrize("band", range(16))
def test_a_tone_peaks_in_its_band(band):
    hz = centres(16, 100.0, RATE / 2)[band]
    result = log_mel(0.5 * np.sin(2 * np.pi * hz * np.arange(RATE) / RATE), RATE)
    assert (result.argmax(axis=1) == band).all()


def test_bands_together_hold_the_energy_between_their_outer_centres():
    """Parseval: between the centres of the outer bands the triangles add up to 1 everywhere."""
    lowest, *_, highest = centres(16, 100.0, RATE / 2)
    t = np.arange(256) / RATE
    wave = sum(np.sin(2 * np.pi * hz * t + hz) for hz in np.arange(10, 90) * RATE / 256)
    assert lowest < 10 * RATE / 256 - 2 * RATE / 256
    assert highest > 90 * RATE / 256 + 2 * RATE / 256
    window = np.sin(np.pi * np.arange(256) / 256) ** 2
    # Half of the spectrum: the other half mirrors it.
    expected = 256 * np.sum((window * wave) ** 2) / np.sum(window**2) / 2
    assert np.exp(log_mel(wave, RATE).astype(float)).sum() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("gain", [0.1, 3.0])
def test_gain_adds_twice_its_logarithm(gain):
    quiet, loud = (log_mel(g * 100 * noise(4000), RATE) for g in (1.0, gain))
    np.testing.assert_allclose(loud - quiet, 2 * math.log(gain), atol=1e-4)


def test_silence_is_the_floor():
    np.testing.assert_allclose(log_mel(np.zeros(1000), RATE), math.log(FLOOR), rtol=1e-6)


def test_a_delay_of_one_hop_moves_the_frames():
    wave = noise(2000)
    np.testing.assert_array_equal(log_mel(wave, RATE)[1:], log_mel(wave[128:], RATE))


def test_float32_and_lists_are_taken():
    wave = noise(600).astype(np.float32)
    np.testing.assert_array_equal(log_mel(wave, RATE), log_mel(wave.tolist(), RATE))


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        ({"wave": []}, ["(0,)"]),
        ({"wave": np.zeros((10, 2))}, ["(10, 2)"]),
        ({"wave": [0.0, math.nan]}, ["sample 1", "nan"]),
        ({"rate": 0}, ["rate = 0"]),
        ({"n_bands": 0}, ["n_bands = 0"]),
        ({"low": 4000.0}, ["low = 4000"]),
        ({"low": -1.0}, ["low = -1"]),
        ({"low": math.nan}, ["low = nan"]),
        ({"high": 5000.0}, ["high = 5000", "rate / 2"]),
        ({"frame": 0.0}, ["frame = 0.0"]),
        ({"hop": 0.0}, ["hop = 0.0"]),
        ({"hop": -0.01}, ["hop = -0.01"]),
        ({"hop": math.nan}, ["hop = nan"]),
        ({"frame": math.inf}, ["frame = inf"]),
        ({"n_bands": 200}, ["band 0 of 200", "256 samples"]),
    ],
)
def test_bad_settings_are_refused(arguments, fragments):
    refused(lambda: log_mel(**({"wave": noise(1000), "rate": RATE} | arguments)), "log_mel", *fragments)


# Normaliser


def test_normaliser_gives_mean_0_and_deviation_1():
    rng = np.random.default_rng(1)
    features = [(5.0 + 3.0 * rng.standard_normal((n, 4))).astype(np.float32) for n in (7, 30, 1, 12)]
    normaliser = Normaliser.fit(iter(features))
    assert normaliser.mean.dtype == normaliser.std.dtype == np.float32
    result = np.concatenate([normaliser.apply(x) for x in features])
    assert result.dtype == np.float32
    np.testing.assert_allclose(result.mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(result.std(axis=0), 1.0, atol=1e-5)


def test_normaliser_applies_what_it_was_fitted_to():
    normaliser = Normaliser.fit([np.array([[0.0, 10.0], [2.0, 30.0]])])
    np.testing.assert_allclose(normaliser.apply(np.array([[[4.0, 0.0]]])), [[[3.0, -2.0]]])


def test_a_band_without_change_becomes_zero():
    normaliser = Normaliser.fit([np.full((1000, 1), -18.420681, np.float32)])
    np.testing.assert_allclose(normaliser.apply(np.full((3, 1), -18.420681, np.float32)), 0.0, atol=1e-5)
    np.testing.assert_allclose(normaliser.apply(np.array([[-17.420681]])), 1.0, atol=1e-5)


def test_normaliser_refuses():
    refused(lambda: Normaliser.fit([]), "no frames")
    refused(lambda: Normaliser.fit([np.zeros((0, 4))]), "no frames")
    refused(lambda: Normaliser.fit([np.zeros((2, 4)), np.zeros((2, 5))]), "(4,)", "(5,)")
    refused(lambda: Normaliser.fit([np.zeros(4)]), "()")
    refused(lambda: Normaliser.fit([np.zeros((2, 4))]).apply(np.zeros((2, 3))), "(2, 3)", "4 bands")
