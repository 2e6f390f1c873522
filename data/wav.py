"""WAV files as waves: every file is either read whole and right, or refused."""

from __future__ import annotations

import io
import math
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from evsim.errors import DataError

#: Format tags of the fmt chunk, and bits per sample that each may have.
PCM, FLOAT, EXTENSIBLE = 0x0001, 0x0003, 0xFFFE
BITS = {PCM: (8, 16, 24, 32), FLOAT: (32, 64)}
COMPRESSED = {
    0x0002: "Microsoft ADPCM",
    0x0006: "A-law",
    0x0007: "mu-law",
    0x0011: "IMA ADPCM",
    0x0055: "MP3",
}
#: What follows the tag in the sub-format of an extensible header (KSDATAFORMAT_SUBTYPE).
SUBFORMAT = bytes.fromhex("000000001000800000aa00389b71")

#: Hz. Outside of them a header is damaged, or the file holds no sound that a word could be heard in.
LOWEST_RATE, HIGHEST_RATE = 1_000, 384_000
#: Float files may go beyond full scale, 1.0; this far beyond they hold other units, such as 16-bit integers.
LOUDEST = 8.0

CONVERT = "convert it, as in `ffmpeg -i old.wav -c:a pcm_s16le new.wav`"
AGAIN = "copy or record it again"


def read_wav(path: str | Path, rate: int) -> NDArray[np.float32]:
    """Read a WAV file as one channel at a sampling rate.

    Parameters
    ----------
    path : str or Path
        A RIFF WAVE file: PCM of 8 (unsigned), 16, 24 or 32 bits, or float of 32 or 64 bits.
    rate : int
        Hz wanted. A file with another rate is resampled by the reduced ratio of the two, behind the low-pass
        filter of `scipy.signal.resample_poly`.

    Returns
    -------
    ndarray of float32, shape (n_samples,)
        Full scale is -1 to 1; float files and the overshoot of resampling may exceed it. Several channels
        are averaged. ``n_samples = ceil(samples of the file * rate / rate of the file)``.

    Raises
    ------
    DataError
        If there is no such file, or it is not WAV, compressed, damaged, shorter than its header says, without
        samples, or has samples that are not finite.
    """
    if not LOWEST_RATE <= rate <= HIGHEST_RATE or rate != int(rate):
        raise DataError("read_wav", f"rate is {rate!r}", f"give whole Hz in {LOWEST_RATE}..{HIGHEST_RATE}")
    where = f"sound file '{path}'"
    path = Path(path)
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "no such file"
        raise DataError(where, problem, "give the path of a WAV file")
    try:
        with path.open("rb") as file:
            header, data = _chunks(file, where)
    except OSError as error:
        raise DataError(where, f"cannot be read ({error.strerror or error})", "check the file") from error
    file_rate = _check(header, data, where)
    wave = _decode(header, data, where)
    if file_rate != rate:
        from scipy.signal import resample_poly

        common = math.gcd(file_rate, int(rate))
        wave = resample_poly(wave, int(rate) // common, file_rate // common)
    return wave.astype(np.float32)


def _chunks(file: BinaryIO, where: str) -> tuple[bytes, bytes]:
    """The bodies of the fmt and the data chunk. Others, such as LIST, are skipped."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if size == 0:
        raise DataError(where, "is empty (0 bytes)", AGAIN)
    start = file.read(12)
    if len(start) < 12 or start[:4] != b"RIFF" or start[8:] != b"WAVE":
        raise DataError(where, f"begins with {start!r}, which is not RIFF....WAVE", "give a WAV file")
    # What comes after the RIFF chunk, such as an ID3 tag, is none of ours; a wrong length hides no data.
    riff_end = 8 + struct.unpack("<I", start[4:8])[0]
    found: dict[bytes, bytes] = {}
    position = 12
    while position + 8 <= size and (b"data" not in found or position + 8 <= riff_end):
        file.seek(position)
        name, length = struct.unpack("<4sI", file.read(8))
        position += 8
        if not all(32 <= char < 127 for char in name):
            raise DataError(where, f"is damaged: a chunk at byte {position - 8} is called {name!r}", AGAIN)
        if name in (b"fmt ", b"data"):
            if name in found:
                raise DataError(where, f"has two {name.decode()} chunks", CONVERT)
            if length > size - position:
                raise DataError(
                    where,
                    f"is cut off: its {name.decode().strip()} chunk has {size - position} of {length} bytes",
                    AGAIN,
                )
            found[name] = file.read(length)
        position += length + length % 2
    missing = [name.decode().strip() for name in (b"fmt ", b"data") if name not in found]
    if missing:
        raise DataError(where, f"has no {' and no '.join(missing)} chunk in its {size} bytes", AGAIN)
    return found[b"fmt "], found[b"data"]


def _check(header: bytes, data: bytes, where: str) -> int:
    """Refuse a header that cannot be decoded or contradicts itself or the data. Returns the rate in Hz."""
    if len(header) < 16:
        raise DataError(where, f"is damaged: its fmt chunk has {len(header)} of 16 bytes", AGAIN)
    tag, channels, rate, byte_rate, frame, bits = struct.unpack("<HHIIHH", header[:16])
    if tag == EXTENSIBLE and header[26:40] == SUBFORMAT:
        (tag,) = struct.unpack("<H", header[24:26])
    if bits not in BITS.get(tag, ()):
        kind = {PCM: "PCM", FLOAT: "float"} | COMPRESSED
        name = kind.get(tag, f"format 0x{tag:04x}") + f" with {bits} bits per sample"
        raise DataError(where, f"holds {name}, not PCM of 8, 16, 24, 32 or float of 32, 64 bits", CONVERT)
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise DataError(
            where, f"has a sampling rate of {rate} Hz, outside {LOWEST_RATE}..{HIGHEST_RATE}", CONVERT
        )
    if channels == 0 or frame != channels * bits // 8 or byte_rate != rate * frame:
        raise DataError(
            where,
            f"has a header that contradicts itself: {channels} channels of {bits} bits at {rate} Hz, "
            f"yet {frame} bytes per sample of all channels and {byte_rate} bytes per second",
            CONVERT,
        )
    if not data:
        raise DataError(where, "has no samples", AGAIN)
    if len(data) % frame:
        raise DataError(where, f"is damaged: {len(data)} bytes are no whole number of {frame}", AGAIN)
    return rate


def _decode(header: bytes, data: bytes, where: str) -> NDArray[np.float64]:
    """The samples as float64, shape (n,), full scale 1, channels averaged."""
    from scipy.io import wavfile

    # SciPy sees the two checked chunks and nothing else: some damaged files it reads with a warning or none.
    body = b"WAVE"
    for name, chunk in ((b"fmt ", header), (b"data", data)):
        body += name + struct.pack("<I", len(chunk)) + chunk + bytes(len(chunk) % 2)
    try:
        _, samples = wavfile.read(io.BytesIO(b"RIFF" + struct.pack("<I", len(body)) + body))
    except (ValueError, struct.error) as error:
        raise DataError(where, f"cannot be decoded ({error})", CONVERT) from error
    if samples.dtype == np.uint8:
        wave = (samples - 128.0) / 128.0
    elif samples.dtype.kind == "i":
        wave = samples / -float(np.iinfo(samples.dtype).min)  # 24 bits come as the upper bits of 32
    else:
        with np.errstate(invalid="ignore"):  # a signalling NaN warns as it is copied; it is refused below
            wave = samples.astype(np.float64)
        wrong = np.flatnonzero(~(np.abs(wave) <= LOUDEST))
        if wrong.size:
            raise DataError(
                where,
                f"sample {wrong[0]} is {wave.flat[wrong[0]]:g}, where full scale is 1",
                f"scale the samples to -1..1 (at most {LOUDEST:g})",
            )
    return wave if wave.ndim == 1 else wave.mean(axis=1)
