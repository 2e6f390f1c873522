"""Log-mel energies: what of a wave a small network is given to hear.

References
----------
.. [1] S. Young et al., "The HTK Book" (3.4), Cambridge University Engineering Department 2006, section 5.4
   (mel scale and filter bank; here on the power spectrum, its option USEPOWER, and without pre-emphasis).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.errors import DataError

#: Added to each energy before the logarithm: digital silence gives ln(FLOOR) = -18.4 in every band. It lies
#: some 10 dB above the rounding noise of 16 bits and far below the noise of a room.
FLOOR = 1e-8


def log_mel(
    wave: ArrayLike,
    rate: int,
    n_bands: int = 16,
    frame: float = 0.032,
    hop: float = 0.016,
    low: float = 100.0,
    high: float | None = None,
) -> NDArray[np.float32]:
    """Logarithm of the energy in mel bands.

    Parameters
    ----------
    wave : array_like, shape (n_samples,)
        Full scale is 1. A wave shorter than one frame is zero-padded to one frame at its end.
    rate : int
        Hz.
    n_bands : int
        Triangles of height 1, spaced evenly on the mel scale from `low` to `high`, each reaching to the
        centres of its neighbours.
    frame, hop : float
        Seconds; rounded to whole samples, ``N = round(frame * rate)`` and ``H = round(hop * rate)``.
    low, high : float
        Hz. None is half the rate.

    Returns
    -------
    ndarray of float32, shape (n_frames, n_bands)
        ``ln(FLOOR + sum_k triangle[k] |X[k]|^2 / sum(window^2))``, X the DFT of a frame under a (periodic)
        Hann window; white noise of variance s^2 thus has s^2 in each bin, whatever the frame.
        ``n_frames = 1 + max(0, n_samples - N) // H``: samples behind the last whole frame are not used.

    Raises
    ------
    DataError
        If the wave is empty, not one row or not finite, a setting is out of range, or a band so narrow that
        no frequency of the DFT lies in it.
    """
    samples = np.asarray(wave, dtype=np.float64)
    if samples.ndim != 1 or samples.size == 0:
        raise DataError("log_mel", f"the wave has shape {samples.shape}", "give one row of samples")
    if not np.isfinite(samples).all():
        wrong = int(np.flatnonzero(~np.isfinite(samples))[0])
        raise DataError("log_mel", f"sample {wrong} is {samples[wrong]}", "remove what is not finite")
    high = rate / 2 if high is None else high
    if not (rate > 0 and n_bands >= 1 and 0 <= low < high <= rate / 2):
        raise DataError(
            "log_mel",
            f"rate = {rate}, n_bands = {n_bands}, low = {low}, high = {high}",
            "use at least one band and 0 <= low < high <= rate / 2",
        )
    if not (1.5 < frame * rate < 1e9 and 0.5 < hop * rate < 1e9):
        raise DataError(
            "log_mel",
            f"frame = {frame} s and hop = {hop} s at {rate} Hz",
            "use a frame of at least two samples and a hop of at least one",
        )
    length, step = round(frame * rate), round(hop * rate)
    if samples.size < length:
        samples = np.pad(samples, (0, length - samples.size))
    window, triangles = _filters(length, rate, n_bands, float(low), float(high))
    frames = np.lib.stride_tricks.sliding_window_view(samples, length)[::step] * window
    spectrum = np.fft.rfft(frames, axis=1)
    power = (spectrum.real**2 + spectrum.imag**2) / (window @ window)
    return np.log(power @ triangles + FLOOR).astype(np.float32)


def mel(frequency: ArrayLike) -> NDArray[np.float64]:
    """Mel of frequencies in Hz: ``2595 log10(1 + f / 700)``."""
    return 2595.0 * np.log10(1.0 + np.asarray(frequency, dtype=np.float64) / 700.0)


@lru_cache(maxsize=8)
def _filters(
    length: int, rate: int, n_bands: int, low: float, high: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Hann window (length,) and triangles (length // 2 + 1, n_bands), straight in mel."""
    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(length) / length)
    edges = np.linspace(mel(low), mel(high), n_bands + 2)
    bins = mel(np.arange(length // 2 + 1) * rate / length)[:, None]
    width = edges[1] - edges[0]
    triangles = np.maximum(0.0, 1.0 - np.abs(bins - edges[1:-1]) / width)
    empty = np.flatnonzero(triangles.sum(axis=0) == 0)
    if empty.size:
        raise DataError(
            "log_mel",
            f"band {empty[0]} of {n_bands} holds no frequency of a frame of {length} samples at {rate} Hz",
            "use fewer bands or a longer frame",
        )
    # The cache hands out the same arrays again.
    window.flags.writeable = triangles.flags.writeable = False
    return window, triangles


@dataclass(frozen=True, eq=False)
class Normaliser:
    """Mean 0 and standard deviation 1 in every band, by the statistics of the training recordings.

    Attributes
    ----------
    mean, std : ndarray of float32, shape (n_bands,)
        Over all frames; `std` is 1 for a band that never changes.
    """

    mean: NDArray[np.float32]
    std: NDArray[np.float32]

    @classmethod
    def fit(cls, features: Iterable[NDArray[np.floating]]) -> Normaliser:
        """Statistics over the frames of training features, each of shape (n_frames, n_bands).

        Raises
        ------
        DataError
            If there are no frames, or the number of bands differs.
        """
        rows = list(features)
        if not sum(len(row) for row in rows):
            raise DataError("Normaliser.fit", "there are no frames", "give the training features")
        if len({row.shape[1:] for row in rows}) > 1 or rows[0].ndim != 2:
            shapes = ", ".join(sorted({str(row.shape[1:]) for row in rows}))
            raise DataError(
                "Normaliser.fit", f"frames have shapes {shapes}", "give arrays of shape (n_frames, n_bands)"
            )
        frames = np.concatenate(rows).astype(np.float64)
        std = frames.std(axis=0)
        # A constant of float32 leaves a spread of rounding errors.
        std[std <= 1e-6 * (1.0 + np.abs(frames.mean(axis=0)))] = 1.0
        return cls(frames.mean(axis=0).astype(np.float32), std.astype(np.float32))

    def apply(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """``(features - mean) / std``, for features of shape (..., n_bands).

        Raises
        ------
        DataError
            If the number of bands differs.
        """
        features = np.asarray(features, dtype=np.float32)
        if features.shape[-1:] != self.mean.shape:
            raise DataError(
                "Normaliser.apply",
                f"features have shape {features.shape}",
                f"give {self.mean.size} bands, as in fit",
            )
        return (features - self.mean) / self.std
