"""Blind damage: bytes of a file are changed, whatever they mean."""

WORDS = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)


def _place(data, rng, length=1):
    """Where to damage: anywhere, or near where HDF5 keeps something about the data."""
    if rng.random() < 0.5:
        marks = [
            b"OHDR",
            b"OCHK",
            b"FRHP",
            b"FHDB",
            b"FSHD",
            b"BTHD",
            b"BTLF",
            b"EAHD",
            b"EAIB",
            b"EADB",
            b"FAHD",
        ]
        mark = marks[rng.integers(len(marks))]
        start = data.find(mark, int(rng.integers(len(data))))
        if start >= 0:
            return min(start + int(rng.integers(4, 300)), len(data) - length)
    return int(rng.integers(max(len(data) - length, 1)))


def flip_bits(data, rng):
    for _ in range(rng.integers(1, 9)):
        data[_place(data, rng)] ^= 1 << int(rng.integers(8))


def set_bytes(data, rng):
    for _ in range(rng.integers(1, 5)):
        data[_place(data, rng)] = int(rng.integers(256))


def set_word(data, rng):
    at = _place(data, rng, 8)
    word = WORDS[rng.integers(len(WORDS))] if rng.random() < 0.8 else int(rng.integers(2**63))
    data[at : at + 8] = word.to_bytes(8, "little")


def fill_range(data, rng):
    length = int(2 ** rng.uniform(1, 13))
    at = _place(data, rng, length)
    length = min(length, len(data) - at)
    fill = rng.integers(3)
    data[at : at + length] = (
        bytes(length) if fill == 0 else b"\xff" * length if fill == 1 else rng.bytes(length)
    )


def cut_short(data, rng):
    del data[int(rng.integers(len(data))) :]


def lengthen(data, rng):
    data += rng.bytes(int(2 ** rng.uniform(0, 14)))


def insert_or_remove(data, rng):
    length = int(2 ** rng.uniform(0, 10))
    at = _place(data, rng, length)
    if rng.random() < 0.5:
        del data[at : at + length]
    else:
        data[at:at] = data[at : at + length]


def swap_blocks(data, rng):
    length = int(2 ** rng.uniform(3, 12))
    a, b = sorted(_place(data, rng, length) for _ in range(2))
    if a + length <= b:
        data[a : a + length], data[b : b + length] = data[b : b + length], data[a : a + length]


def copy_block(data, rng):
    length = int(2 ** rng.uniform(3, 12))
    a, b = (_place(data, rng, length) for _ in range(2))
    data[b : b + length] = data[a : a + length]


BLIND = (
    flip_bits,
    set_bytes,
    set_word,
    fill_range,
    cut_short,
    lengthen,
    insert_or_remove,
    swap_blocks,
    copy_block,
)
