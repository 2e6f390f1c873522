"""Sly damage: what HDF5 knows about the data is changed, and its checksums are made right."""

import numpy as np

from fuzz.bytes import WORDS


def lookup3(data, lengths):
    """Bob Jenkins's hash of the first so many bytes of ``data``, for an array of lengths, as HDF5 has it."""
    lengths = np.asarray(lengths, np.int64)
    padded = np.frombuffer(data.ljust((len(data) // 12 + 2) * 12, b"\0"), "<u4").reshape(-1, 3)
    a = b = c = (0xDEADBEEF + lengths).astype(np.uint32)

    def turned(x, k):
        return (x << np.uint32(k)) | (x >> np.uint32(32 - k))

    rounds = np.maximum((lengths - 1) // 12, 0)
    for k in range(int(rounds.max(initial=0))):
        going = rounds > k
        x, y, z = a + padded[k, 0], b + padded[k, 1], c + padded[k, 2]
        x = (x - z) ^ turned(z, 4)
        z = z + y
        y = (y - x) ^ turned(x, 6)
        x = x + z
        z = (z - y) ^ turned(y, 8)
        y = y + x
        x = (x - z) ^ turned(z, 16)
        z = z + y
        y = (y - x) ^ turned(x, 19)
        x = x + z
        z = (z - y) ^ turned(y, 4)
        y = y + x
        a, b, c = np.where(going, x, a), np.where(going, y, b), np.where(going, z, c)
    left = lengths - 12 * rounds
    words = padded[rounds]
    for k in range(3):  # bytes behind the end count as zeros
        kept = np.clip(left - 4 * k, 0, 4)
        mask = np.where(kept == 4, 2**32 - 1, (np.int64(1) << (8 * np.minimum(kept, 3))) - 1).astype(
            np.uint32
        )
        words[:, k] &= mask
    x, y, z = a + words[:, 0], b + words[:, 1], c + words[:, 2]
    z = (z ^ y) - turned(y, 14)
    x = (x ^ z) - turned(z, 11)
    y = (y ^ x) - turned(x, 25)
    z = (z ^ y) - turned(y, 16)
    x = (x ^ z) - turned(z, 4)
    y = (y ^ x) - turned(x, 14)
    z = (z ^ y) - turned(y, 24)
    return np.where(lengths > 0, z, c)


def checked_blocks(data, longest=340):
    """(start, end) of each stretch of a file behind which its checksum stands, found by trying."""
    marks = (b"OHDR", b"OCHK", b"FRHP", b"FHDB", b"FHIB", b"BTHD", b"BTLF", b"BTIN")
    marks += (b"EAHD", b"EAIB", b"EASB", b"EADB", b"FAHD", b"FADB", b"\x89HDF", b"FSHD", b"SMTB")
    found = []
    for mark in marks:
        at = data.find(mark)
        while at >= 0:
            stretch = bytes(data[at : at + longest])
            lengths = np.arange(8, max(len(stretch) - 4, 8))
            ends = np.array([int.from_bytes(stretch[n : n + 4], "little") for n in lengths], np.uint32)
            right = lengths[lookup3(stretch, lengths) == ends] if len(lengths) else lengths
            if len(right):
                found.append((at, at + int(right[0])))
            at = data.find(mark, at + 1)
    return found


def lie(data, rng, blocks):
    """Change what HDF5 knows about the data, and make its checksum right."""
    for _ in range(rng.integers(1, 4)):
        start, end = blocks[rng.integers(len(blocks))]
        at = int(rng.integers(start + 4, end))
        what = rng.integers(4)
        if what == 0:
            data[at] ^= 1 << int(rng.integers(8))
        elif what == 1:
            data[at] = int(rng.integers(256))
        else:
            size = min(int(rng.choice([2, 4, 8])), end - at)
            word = WORDS[rng.integers(len(WORDS))] if what == 2 else int(rng.integers(len(data)))
            data[at : at + size] = word.to_bytes(8, "little")[:size]
        sum_ = int(lookup3(bytes(data[start:end]), [end - start])[0])
        data[end : end + 4] = sum_.to_bytes(4, "little")
