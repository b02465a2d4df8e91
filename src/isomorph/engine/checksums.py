"""CRC-32 of records whose bytes pass in pieces, and of parts that were summed apart."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import numpy as np

from isomorph.engine.journal import Progress
from isomorph.engine.pieces import Piece
from isomorph.formats.crc import combine_crc, zeros_crc

Array = np.ndarray[Any, Any]


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


class Crcs:
    """The CRC-32 of each record, from stretches that come in increasing order; bytes between them are zeros."""

    def __init__(self, records: Sequence[tuple[int, int]], start: Progress) -> None:
        self._records = records
        self._finished = list(start.crcs)
        self._running, self._position = start.running, start.offset
        if len(self._finished) < len(records):
            self._position = max(self._position, records[len(self._finished)][0])

    def add(self, number: int, offset: int, crc: int, nbytes: int) -> None:
        while len(self._finished) < number:
            self._close()
        self._zeros(offset)
        self._running = combine_crc(self._running, crc, nbytes)
        self._position = offset + nbytes

    def _zeros(self, offset: int) -> None:
        gap = offset - self._position
        if gap > 0:
            self._running = combine_crc(self._running, zeros_crc(gap), gap)
            self._position = offset

    def _close(self) -> None:
        offset, nbytes = self._records[len(self._finished)]
        self._zeros(offset + nbytes)
        self._finished.append(self._running)
        self._running = 0
        if len(self._finished) < len(self._records):
            self._position = self._records[len(self._finished)][0]

    def state(self, offset: int) -> tuple[tuple[int, ...], int]:
        """(finished records, the running one) when all bytes before `offset` were seen."""
        while len(self._finished) < len(self._records) and sum(self._records[len(self._finished)]) <= offset:
            self._close()
        if len(self._finished) < len(self._records) and self._records[len(self._finished)][0] < offset:
            self._zeros(offset)
        return tuple(self._finished), self._running

    def finish(self) -> list[int]:
        while len(self._finished) < len(self._records):
            self._close()
        return self._finished
