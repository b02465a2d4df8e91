"""Checksums of a zip archive's members, kept while their bytes are read for another purpose.

Every large read is summed as it comes; in the end the stretches of each member are put together. A member that was read in small
or overlapping stretches is read once more; one of which nothing was read is not looked at.
"""

from __future__ import annotations

import threading
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from isomorph.formats.zip.archive import Member
from isomorph.formats.zip.crc import combine_crc

SMALL = 1 << 16
"""Stretches below that are not summed one by one, unless they are a whole member: putting them together costs more than a read."""

PIECE = 1 << 20
THREADS = 2


@dataclass
class _Seen:
    """What was read of a member: {(first byte, end): CRC-32}; `is_whole` until a stretch came that cannot be put together."""

    stretches: dict[tuple[int, int], int] = field(default_factory=dict)
    is_whole: bool = True


class Sums:
    """The members that have a checksum and lie in the file as they are. `seen` may be called from several threads."""

    def __init__(self, members: Sequence[Member]) -> None:
        kept = [member for member in members if member.crc and member.nbytes and not member.is_deflated]
        self._members = sorted(kept, key=lambda member: member.offset)
        self._starts = [member.offset for member in self._members]
        self._seen: dict[int, _Seen] = {}
        self._lock = threading.Lock()

    def seen(self, offset: int, buffer: memoryview) -> None:
        """The bytes of the file from `offset` were read into `buffer`."""
        stop = offset + len(buffer)
        for number in range(max(0, bisect_right(self._starts, offset) - 1), len(self._members)):
            member = self._members[number]
            if member.offset >= stop:
                return
            low, high = max(offset, member.offset), min(stop, member.offset + member.nbytes)
            if low >= high:
                continue
            counts = high - low >= SMALL or high - low == member.nbytes
            with self._lock:
                found = self._seen.setdefault(number, _Seen())
                if not counts:
                    found.is_whole = False
                if not found.is_whole or (low, high) in found.stretches:
                    continue
            crc = zlib.crc32(buffer[low - offset : high - offset])
            with self._lock:
                found.stretches[low, high] = crc

    def damaged(self, fill: Callable[[int, memoryview], None]) -> Iterator[tuple[Member, int]]:
        """(member, the CRC-32 that its bytes have) of each that was read, in part or whole, and is not what was saved."""
        again = [
            self._members[number] for number, found in self._seen.items() if self._put_together(number, found) is None
        ]
        with ThreadPoolExecutor(THREADS) as pool:
            read = dict(zip(again, pool.map(lambda member: _crc_of(member, fill), again), strict=True))
        for number, found in sorted(self._seen.items()):
            member = self._members[number]
            crc = read[member] if member in read else self._put_together(number, found)
            if crc is not None and crc != member.crc:
                yield member, crc

    def _put_together(self, number: int, found: _Seen) -> int | None:
        """The CRC-32 of a member whose stretches follow one another from its first byte to its last; else None."""
        if not found.is_whole:
            return None
        member = self._members[number]
        reached, crc = member.offset, 0
        for (low, high), part in sorted(found.stretches.items()):
            if low != reached:
                return None
            reached, crc = high, combine_crc(crc, part, high - low)
        return crc if reached == member.offset + member.nbytes else None


class Castagnoli(Sums):
    """Stretches whose masked CRC-32C is known: those that were read are read once more and summed, at some 100 MB a second."""

    def seen(self, offset: int, buffer: memoryview) -> None:
        for number in range(max(0, bisect_right(self._starts, offset) - 1), len(self._members)):
            member = self._members[number]
            if member.offset >= offset + len(buffer):
                return
            if member.offset + member.nbytes > offset:
                with self._lock:
                    self._seen.setdefault(number, _Seen())

    def damaged(self, fill: Callable[[int, memoryview], None]) -> Iterator[tuple[Member, int]]:
        from isomorph.formats.tf.crc32c import crc32c, masked

        for number in sorted(self._seen):
            member = self._members[number]
            crc = masked(crc32c(_stretches(member, fill)))
            if crc != member.crc:
                yield member, crc


def _stretches(member: Member, fill: Callable[[int, memoryview], None]) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(min(PIECE, member.nbytes)))
    for at in range(0, member.nbytes, PIECE):
        piece = buffer[: min(PIECE, member.nbytes - at)]
        fill(member.offset + at, piece)
        yield piece


def _crc_of(member: Member, fill: Callable[[int, memoryview], None]) -> int:
    crc = 0
    for piece in _stretches(member, fill):
        crc = zlib.crc32(piece, crc)
    return crc
