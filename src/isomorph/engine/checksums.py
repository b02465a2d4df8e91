"""CRC-32 of records whose bytes pass in pieces, of parts that were summed apart, and of those that the source has summed."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from isomorph.engine.journal import Progress
from isomorph.engine.pieces import Copy, Groups, Piece, as_copy
from isomorph.formats.base import Checkpoint, FileLayout
from isomorph.formats.zip.crc import combine_crc, zeros_crc
from isomorph.plan.plan import Plan

Array = np.ndarray[Any, Any]


def known_crcs(plan: Plan, groups: Groups, layout: FileLayout, source: Checkpoint) -> dict[int, int]:
    """Record number -> CRC-32, for records made of whole records of the source, whose sums the source keeps: nothing is read.

    A sum is carried over, not checked: where the source's bytes are not those that were saved, the target's sum says so too.
    """
    names = {offset: name for name, offset in layout.tensors.items()}
    found: dict[int, int] = {}
    for number, (offset, nbytes) in enumerate(layout.records):
        name = names.get(offset)
        if name is None or plan.targets[name].spec.nbytes != nbytes:
            continue  # the record holds more than the tensor
        itemsize = plan.targets[name].spec.dtype.nbytes
        runs = [as_copy(move, offset, itemsize, source) for move in groups.get(name, ()) if 0 not in move.target.shape]
        crc = _combined([run for run in runs if run is not None], source)
        if crc is not None and None not in runs:
            found[number] = crc
    return found


def _combined(runs: Sequence[Copy], source: Checkpoint) -> int | None:
    whole: int | None = None
    for run in sorted(runs, key=lambda run: run.offset):
        crc = source.crc(run.file, run.source_offset, run.nbytes)
        if crc is None:
            return None
        whole = crc if whole is None else combine_crc(whole, crc, run.nbytes)
    return whole


def record_crcs(
    piece: Piece, buffer: Array, records: Sequence[tuple[int, int]], known: Mapping[int, int]
) -> list[tuple[int, int, int, int]]:
    """(record number, offset, CRC-32, nbytes) of each stretch of the piece that lies in a record; records by increasing offset.

    Records whose sum is `known` are left out.
    """
    found = []
    stop = piece.offset + piece.nbytes
    first = max(0, bisect_right(records, (piece.offset, 1 << 62)) - 1)
    for number in range(first, len(records)):
        offset, nbytes = records[number]
        if offset >= stop:
            break
        low, high = max(offset, piece.offset), min(offset + nbytes, stop)
        if low < high and number not in known:
            stretch = buffer[low - piece.offset : high - piece.offset]
            found.append((number, low, zlib.crc32(stretch.data), high - low))
    return found


class Crcs:
    """The CRC-32 of each record, from stretches that come in increasing order; bytes between them are zeros.

    No stretches come of records whose sum is `known`.
    """

    def __init__(self, records: Sequence[tuple[int, int]], start: Progress, known: Mapping[int, int]) -> None:
        self._records, self._known = records, known
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
        known = self._known.get(len(self._finished))
        if known is None:
            self._zeros(offset + nbytes)
        self._finished.append(self._running if known is None else known)
        self._running = 0
        if len(self._finished) < len(self._records):
            self._position = self._records[len(self._finished)][0]

    def state(self, offset: int) -> tuple[tuple[int, ...], int]:
        """(finished records, the running one) when all bytes before `offset` were seen."""
        while len(self._finished) < len(self._records) and sum(self._records[len(self._finished)]) <= offset:
            self._close()
        number = len(self._finished)
        if number < len(self._records) and number not in self._known and self._records[number][0] < offset:
            self._zeros(offset)
        return tuple(self._finished), self._running

    def finish(self) -> list[int]:
        while len(self._finished) < len(self._records):
            self._close()
        return self._finished
