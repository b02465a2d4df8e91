"""A part of a file, as a file of its own: an item of a `.distcp`, a member of a tar."""

from __future__ import annotations

from isomorph.errors import FormatError
from isomorph.formats.source import Source

EDGE = 1 << 12
"""Bytes at both ends of an item that are read at once: its directory and all but large pickles lie there."""


class Window(Source):
    """`nbytes` bytes of a file from `offset` on, as a file of their own; closing it closes nothing."""

    def __init__(self, file: Source, offset: int, nbytes: int) -> None:
        """FormatError when they are not all in the file."""
        self._begin(file.path)
        self.file, self.offset, self.size, self.stored = file, offset, nbytes, nbytes
        if offset + nbytes > file.size:
            raise FormatError(
                file.path, f"truncated: bytes {offset:,} to {offset + nbytes:,} are needed, the file has {file.size:,}"
            )
        self._head = file.read(offset, min(EDGE, nbytes))
        self._tail = self._head if nbytes <= EDGE else file.read(offset + nbytes - EDGE, EDGE)
        self.edges = self._head if nbytes <= EDGE else self._head + self._tail

    def at_edges(self, begin: int, end: int) -> tuple[int, int]:
        """Where bytes `begin` to `end` of the item are in `edges`. ValueError when they are not in one of them."""
        if end <= len(self._head):
            return begin, end
        low = begin - (self.size - EDGE)
        if low < 0:
            raise ValueError(f"bytes {begin} to {end} lie amid the item")
        return EDGE + low, EDGE + low + end - begin

    def read(self, offset: int, nbytes: int) -> bytes:
        end = offset + nbytes
        if offset < 0 or nbytes < 0 or end > self.size:
            raise FormatError(
                self.path, f"truncated: bytes {offset} to {end} of an item are needed, it has {self.size}"
            )
        if end <= len(self._head):
            return self._head[offset:end]
        low = offset - (self.size - len(self._tail))
        if low >= 0:
            return self._tail[low : low + nbytes]
        return self.file.read(self.offset + offset, nbytes)

    def fill(self, offset: int, buffer: memoryview) -> None:
        self.file.fill(self.offset + offset, buffer)

    def changed(self) -> str | None:
        return self.file.changed()

    def close(self) -> None:
        pass

    def fileno(self) -> int:
        return -1
