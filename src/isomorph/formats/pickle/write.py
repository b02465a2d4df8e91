"""The opcodes of the few values that torch's and Paddle's pickles need."""

from __future__ import annotations

import struct
from collections.abc import Sequence


def text(value: str) -> bytes:
    """BINUNICODE."""
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value: int) -> bytes:
    """The shortest opcode of a number of at least 0."""
    if value < 1 << 8:
        return b"K" + bytes([value])
    if value < 1 << 16:
        return b"M" + struct.pack("<H", value)
    if value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little")
    return b"\x8a" + bytes([len(raw)]) + raw


def integers(values: Sequence[int]) -> bytes:
    """A tuple of numbers."""
    inner = b"".join(integer(value) for value in values)
    if len(values) > 3:
        return b"(" + inner + b"t"
    return inner + (b")", b"\x85", b"\x86", b"\x87")[len(values)]


class Memo:
    """Values that are written once and referred to afterwards; at most 256 of them."""

    def __init__(self) -> None:
        self._known: dict[bytes, bytes] = {}

    def once(self, code: bytes) -> bytes:
        """`code`, which pushes a value, when first used; from then on a reference to that value."""
        if code in self._known:
            return self._known[code]
        slot = bytes([len(self._known)])
        self._known[code] = b"h" + slot
        return code + b"q" + slot
