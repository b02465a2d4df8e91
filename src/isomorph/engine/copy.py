"""A Piece -> its bytes in a buffer: ranges are read straight into it, elements made in place. And CRC-32, also in parts."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from isomorph.engine.arrays import fill_from
from isomorph.engine.pieces import Bytes, Copy, Piece
from isomorph.formats.base import Checkpoint
from isomorph.operators.base import Changes
from isomorph.plan.plan import Plan

Array = np.ndarray[Any, Any]


def produce(plan: Plan, source: Checkpoint, piece: Piece, buffer: Array, changes: dict[str, Changes]) -> None:
    """Fill `buffer` (u1, as long as the piece). What rounding casts change is counted in `changes`, by target."""
    for part in piece.parts:
        place = buffer[part.offset - piece.offset :][: part.nbytes]
        if isinstance(part, Bytes):
            place[...] = np.frombuffer(part.data, np.uint8)
        elif isinstance(part, Copy):
            source.pread(part.file, part.source_offset, place.data)
        elif part.nbytes:
            bits = plan.targets[part.name].spec.dtype.bits
            # A tensor may lie at any byte of the file: then it is made elsewhere and copied.
            aligned = place.ctypes.data % min(part.itemsize, 8) == 0
            flat = place.view(bits) if aligned else np.empty(part.stop - part.start, bits)
            counted = Changes()
            for move in part.moves:
                fill_from(plan, move, source, flat, part.start, counted)
            if not aligned:
                place[...] = flat.view(np.uint8)
            if counted.elements:
                changes.setdefault(part.name, Changes()).add(counted)


def record_crcs(piece: Piece, buffer: Array, records: Sequence[tuple[int, int]]) -> list[tuple[int, int, int, int]]:
    """(record number, offset, CRC-32, nbytes) of each stretch of the piece that lies in a record; records by increasing offset."""
    found = []
    stop = piece.offset + piece.nbytes
    first = max(0, bisect_right(records, (piece.offset, 1 << 62)) - 1)
    for number in range(first, len(records)):
        offset, nbytes = records[number]
        if offset >= stop:
            break
        low, high = max(offset, piece.offset), min(offset + nbytes, stop)
        if low < high:
            stretch = buffer[low - piece.offset : high - piece.offset]
            found.append((number, low, zlib.crc32(stretch.data), high - low))
    return found


def zeros_crc(nbytes: int) -> int:
    """The CRC-32 of so many zero bytes."""
    crc, zeros = 0, bytes(min(nbytes, 1 << 16))
    while nbytes > 0:
        crc = zlib.crc32(zeros[:nbytes], crc)
        nbytes -= len(zeros)
    return crc


# ── the CRC-32 of a whole from those of its parts: crc(a + b) = crc(a)·x^(8·len b) + crc(b), modulo the CRC's polynomial ──

POLYNOMIAL = 0xEDB88320
ONE = 1 << 31  # bit-reversed, as CRC-32 keeps its polynomials


def combine_crc(first: int, second: int, second_nbytes: int) -> int:
    """The CRC-32 of two runs of bytes, one after the other, from the CRC-32 of each.

    >>> combine_crc(zlib.crc32(b"ab"), zlib.crc32(b"c"), 1) == zlib.crc32(b"abc")
    True
    """
    return _times(_power(8 * second_nbytes), first) ^ second


@lru_cache(maxsize=4096)
def _power(exponent: int) -> int:
    """x^exponent."""
    result, square = ONE, ONE >> 1
    while exponent:
        if exponent & 1:
            result = _times(square, result)
        square = _times(square, square)
        exponent >>= 1
    return result


def _times(left: int, right: int) -> int:
    product = 0
    for bit in range(31, -1, -1):
        if left >> bit & 1:
            product ^= right
        right = right >> 1 ^ (POLYNOMIAL if right & 1 else 0)
    return product
