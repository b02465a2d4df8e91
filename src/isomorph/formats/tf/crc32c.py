"""CRC-32C (Castagnoli), which TensorFlow and LevelDB keep of what they store, and which no standard library computes.

Plain Python takes a second for 10 MB. Here a run of bytes is cut into up to 4,096 lanes that numpy sums side by side, four bytes of
each at a step; since a CRC is linear, the sums of neighbouring lanes are then put together two by two.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from isomorph.formats.zip.crc import power, times

if TYPE_CHECKING:
    import numpy as np

    Words = np.ndarray[Any, np.dtype[np.uint32]]

POLYNOMIAL = 0x82F63B78
FULL = 0xFFFFFFFF
LANE = 256
"""Bytes of a lane."""
MOST_LANES = 4096
AT_ONCE = LANE * MOST_LANES
MASK_DELTA = 0xA282EAD8


def crc32c(pieces: Iterable[bytes | memoryview]) -> int:
    """The CRC-32C of these pieces, one after the other.

    >>> hex(crc32c([b"1234", b"56789"]))
    '0xe3069283'
    """
    crc = 0
    for piece in pieces:
        view = memoryview(piece).cast("B")
        for at in range(0, len(view), AT_ONCE):
            part = view[at : at + AT_ONCE]
            first = crc ^ FULL  # what went before counts as if it stood before these bytes, moved past them
            crc = times(power(8 * len(part), POLYNOMIAL), first, POLYNOMIAL) ^ _remainder(part) ^ FULL
    return crc


def masked(crc: int) -> int:
    """How LevelDB and TensorFlow store a CRC-32C."""
    return ((crc >> 15 | crc << 17) + MASK_DELTA) & FULL


def _remainder(part: memoryview) -> int:
    """The bytes as a polynomial, modulo the CRC's: zeros before them change nothing."""
    import numpy as np

    if len(part) <= LANE:
        crc, table = 0, _byte_table()
        for byte in part:
            crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
        return crc
    lanes = 1 << (-(-len(part) // LANE) - 1).bit_length()
    whole = np.zeros(lanes * LANE, np.uint8)
    whole[len(whole) - len(part) :] = np.frombuffer(part, np.uint8)
    words = np.ascontiguousarray(whole.view("<u4").reshape(lanes, LANE // 4).T)
    low, high = _word_tables()
    crcs = np.zeros(lanes, np.uint32)
    for row in words:
        crcs ^= row
        halves = crcs.view("<u2")
        crcs = low.take(halves[0::2]) ^ high.take(halves[1::2])
    moved = LANE
    while len(crcs) > 1:
        low, high = _moving_tables(moved)
        left, right = crcs[0::2], crcs[1::2]
        crcs = low[left & 0xFFFF] ^ high[left >> 16] ^ right
        moved *= 2
    return int(crcs[0])


@lru_cache(maxsize=1)
def _byte_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (POLYNOMIAL if byte & 1 else 0)
        table.append(byte)
    return table


def _word_tables() -> tuple[Words, Words]:
    """What the lower and the upper 16 bits of a state become when 32 bits have passed."""
    return _moving_tables(4)


@lru_cache(maxsize=32)
def _moving_tables(nbytes: int) -> tuple[Words, Words]:
    """What the lower and the upper 16 bits of a CRC become when `nbytes` zero bytes follow."""
    import numpy as np

    factor = power(8 * nbytes, POLYNOMIAL)
    tables = []
    for shift in (0, 16):
        table = np.zeros(1 << 16, np.uint32)
        for bit in range(16):
            table[1 << bit : 2 << bit] = table[: 1 << bit] ^ np.uint32(times(1 << bit + shift, factor, POLYNOMIAL))
        tables.append(table)
    return tables[0], tables[1]
