"""Files are damaged in the ways that disks, networks and people damage them."""

from __future__ import annotations

import gzip
import io
import re
import zipfile

import numpy as np

from dimlab.io.files import DAMAGED

NUMBERS = (0, 1, 2, 7, 0x7F, 0xFF, 0xFFFF, 2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)
WORDS = (
    *("", "0", "-1", "1e400", "nan", "inf", "null", "true", "9" * 30, "9" * 5000, "1.5", "é", "\0"),
    *("[" * 3000, "{}", "[]", '"', "'", "F32", "BOOL", "<f8", "|O", "<U999999999", "(10, 10, 10)"),
    *("1000000000000", "features", "labels", "row", "\r", "\t", ",,", "../../x", "/etc/hostname"),
)


def cut(data, rng):
    return data[: rng.integers(len(data) + 1)]


def flip(data, rng):
    noisy = bytearray(data)
    for place in rng.integers(len(data), size=rng.integers(1, 4)):
        noisy[place] ^= 1 << rng.integers(8)
    return bytes(noisy)


def overwrite(data, rng):
    start, length = rng.integers(len(data)), rng.integers(1, 40)
    filling = (rng.bytes(length), bytes(length), b"\xff" * length)[rng.integers(3)]
    return data[:start] + filling + data[start + length :]


def insert(data, rng):
    start = rng.integers(len(data) + 1)
    return data[:start] + rng.bytes(rng.integers(1, 40)) + data[start:]


def remove(data, rng):
    start = rng.integers(len(data))
    return data[:start] + data[start + rng.integers(1, 40) :]


def swap(data, rng):
    a, b, c = np.sort(rng.integers(len(data) + 1, size=3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def repeat(data, rng):
    a, b = np.sort(rng.integers(len(data) + 1, size=2))
    return data[:b] + data[a:]


def number(data, rng):
    """A binary number, of which headers, directories and trailers are full."""
    width, order = (1, 2, 4, 8)[rng.integers(4)], ("little", "big")[rng.integers(2)]
    span = min(len(data), 400)
    start = int(rng.integers(span))
    start = start if rng.random() < 0.6 else len(data) - 1 - start
    value = int(NUMBERS[rng.integers(len(NUMBERS))]) % 256**width
    return data[:start] + value.to_bytes(width, order) + data[start + width :]


def directory(data, rng):
    """A field of a zip's headers, of its central directory or of its end."""
    places = [found.start() for found in re.finditer(b"PK(\x01\x02|\x03\x04|\x05\x06)", data)]
    if not places:
        return flip(data, rng)
    start = places[rng.integers(len(places))] + int(rng.integers(2, 46))
    value = int(NUMBERS[rng.integers(len(NUMBERS))]) % 256**2
    return data[:start] + value.to_bytes(2, "little") + data[start + 2 :]


def token(data, rng):
    """A word or a number of a text, or of the text in a binary file's header."""
    tokens = list(re.finditer(rb"[A-Za-z0-9_.+-]+|[\[\]{}(),:;\"'\n]", data[:4000]))
    if not tokens:
        return flip(data, rng)
    one, other = (tokens[rng.integers(len(tokens))] for _ in range(2))
    word = WORDS[rng.integers(len(WORDS))].encode()
    new = (word, other[0], one[0] + word, b"", one[0] + other[0])[rng.integers(5)]
    return data[: one.start()] + new + data[one.end() :]


def same_length(data, rng):
    """Digits, replaced by as many others: lengths that are written elsewhere still fit."""
    digits = list(re.finditer(rb"\d+", data[:4000]))
    if not digits:
        return flip(data, rng)
    one = digits[rng.integers(len(digits))]
    new = bytes(rng.integers(48, 58, size=len(one[0]), dtype=np.uint8))
    return data[: one.start()] + new + data[one.end() :]


def inside(data, rng):
    """What is packed, with checksums that fit: a member of a zip, or what a gzip file holds."""
    plain = (flip, overwrite, number, token, same_length, cut, insert)
    change = plain[rng.integers(len(plain))]
    try:
        if data[:2] == b"\x1f\x8b":
            return gzip.compress(change(gzip.decompress(data), rng), 1)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            kind = archive.infolist()[0].compress_type
            members = {name: archive.read(name) for name in archive.namelist()}
    except DAMAGED:
        return change(data, rng)
    name = list(members)[rng.integers(len(members))]
    members[name] = change(members[name], rng) if members[name] else b"?"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", kind) as archive:
        for each, content in members.items():
            archive.writestr(each, content)
    return packed.getvalue()


DAMAGES = (
    *(cut, flip, overwrite, insert, remove, swap, repeat),
    *(number, number, directory, token, token, same_length, inside, inside),
)


def damaged(data, rng):
    """One to three kinds of damage."""
    for _ in range(rng.integers(1, 4)):
        data = DAMAGES[rng.integers(len(DAMAGES))](data or b"?", rng)
    return data
