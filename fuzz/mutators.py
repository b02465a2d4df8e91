"""Mutations that know what an input is made of: it is cut into pieces, they are changed, moved and put in, and joined again."""

from __future__ import annotations

import pickletools
import random
import re
import struct
from collections.abc import Callable, Sequence

from fuzz.harness import Mutator, Raw

Split = Callable[[bytes], list[bytes]]


def pieces(split: Split, atoms: Sequence[bytes], *, raw_share: float = 0.4) -> Mutator:
    """A mutator of inputs that `split` cuts up (joined, the pieces are the input); `atoms` are pieces worth putting in."""

    def mutate(data: bytes, most: int, rng: random.Random, raw: Raw) -> bytes:
        if rng.random() < raw_share:
            return raw(data, most)
        parts = split(data)
        for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
            change(parts, atoms, rng, raw)
        return b"".join(parts)[:most]

    return mutate


def change(parts: list[bytes], atoms: Sequence[bytes], rng: random.Random, raw: Raw) -> None:
    """One change of a list of pieces, in place."""
    kind = rng.randrange(7)
    if not parts or kind == 0:
        parts.insert(rng.randint(0, len(parts)), rng.choice(atoms))
        return
    at = rng.randrange(len(parts))
    if kind == 1:
        parts[at] = rng.choice(atoms)
    elif kind == 2:
        del parts[at : at + rng.choice((1, 1, 2, 4))]
    elif kind == 3:
        parts.insert(rng.randint(0, len(parts)), parts[at])
    elif kind == 4:
        other = rng.randrange(len(parts))
        parts[at], parts[other] = parts[other], parts[at]
    elif kind == 5:
        end = min(len(parts), at + rng.randint(1, 8))
        parts[end:end] = parts[at:end] * rng.choice((1, 1, 2, 20))
    else:
        parts[at] = raw(parts[at] or b"0", len(parts[at]) + 8)


def by_pattern(pattern: bytes) -> Split:
    """Cut where a pattern says; what it does not match is a piece too."""
    compiled = re.compile(b"(" + pattern + b")", re.DOTALL)
    return lambda data: [part for part in compiled.split(data) if part]


JSON_SPLIT = by_pattern(rb'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|[\[\]{},:]|[a-z]+')
JSON_ATOMS = (
    b"{", b"}", b"[", b"]", b",", b":", b'"a"', b'""', b"0", b"1", b"-1", b"-0", b"2", b"1.5", b"1e5", b"4294967296",
    b"9223372036854775807", b"9223372036854775808", b"18446744073709551615", b"18446744073709551616", b"true", b"false",
    b"null", b"NaN", b"Infinity", b"[]", b"{}", rb'"\u0000"', rb'"\ud800"', rb'"\udc00\ud800"', rb'"\u001b[31m"',
    '"\u202e"'.encode(), b"\xff", b'"a":', b" ", b"\n", rb'"\u0061"', b'"__metadata__"',
)  # fmt: skip


def opcodes(data: bytes) -> list[bytes]:
    """The opcodes of a pickle, each with its argument; from where it is broken, the rest."""
    starts = []
    try:
        for _, _, at in pickletools.genops(data):
            starts.append(at)
            if len(starts) > 2000:
                break
    except Exception:  # whatever pickletools raises for what is no pickle
        starts.append(len(data) if not starts else min(len(data), starts[-1] + 1))
    if not starts or starts[0] != 0:
        starts.insert(0, 0)
    end_of_last = len(data)
    return [data[a:b] for a, b in zip(starts, [*starts[1:], end_of_last], strict=True) if b > a]


def short_text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def pickle_atoms(globals_: Sequence[tuple[str, str]]) -> tuple[bytes, ...]:
    """Opcodes with arguments: numbers, texts, marks, the memo, and the names that are known (and some that are not)."""
    found = [
        bytes([code]) for code in b"()}]NRQ0123abdeijlostu.\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94\x97\x98"
    ]
    for value in (0, 1, 2, 3, 5, 6, 255):
        found += [b"K" + bytes([value]), b"q" + bytes([value]), b"h" + bytes([value])]
    for wide in (0, 1, 6, -1, 65536, 2**31 - 1, -(2**31)):
        found.append(b"J" + struct.pack("<i", wide))
    for memo in (0, 1, 255, 2**32 - 1):
        found += [b"r" + struct.pack("<I", memo), b"j" + struct.pack("<I", memo)]
    for huge in (0, -1, 2**31, 2**63 - 1, 2**64, 2**70, -(2**80)):
        raw = huge.to_bytes(huge.bit_length() // 8 + 1, "little", signed=True)
        found += [
            b"\x8a" + bytes([len(raw)]) + raw,
            b"\x8b" + struct.pack("<i", len(raw)) + raw,
            b"I%d\n" % huge,
            b"L%dL\n" % huge,
        ]
    for word in (
        "",
        "a",
        "b",
        "w",
        "0",
        "storage",
        "cpu",
        "latin1",
        "f4",
        "<f4",
        "O8",
        "V4",
        "\x1b[31m",
        "a/b",
        "é",
        "\udc00",
        "data",
        "<",
        ">",
        "|",
    ):
        found.append(short_text(word))
    found += [
        b"G" + struct.pack(">d", 1.5),
        b"F1.5\n",
        b"Fnan\n",
        b"I01\n",
        b"I00\n",
        b"S'a'\n",
        b"V\\u0041\n",
        b"P0\n",
        b"p0\n",
        b"g0\n",
    ]
    found += [
        b"C\x04abcd",
        b"B\4\0\0\0abcd",
        b"\x8e\4\0\0\0\0\0\0\0abcd",
        b"\x96\4\0\0\0\0\0\0\0abcd",
        b"U\1a",
        b"T\1\0\0\0a",
    ]
    found += [
        b"\x8d\1\0\0\0\0\0\0\0a",
        b"\x8c\1a",
        b"\x95\4\0\0\0\0\0\0\0",
        b"\x80\2",
        b"\x80\4",
        b"\x82\1",
        b"\x83\1\0",
    ]
    found += [name(*each) for each in globals_]
    found += [
        name("os", "system"),
        name("builtins", "eval"),
        name("numpy", "load"),
        b"ios\nsystem\n",
        name("a.b", "c\x1b"),
    ]
    return tuple(found)
