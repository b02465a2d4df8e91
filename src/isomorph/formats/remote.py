"""An object of a store, opened: every format reads it as it reads a file. Its version is pinned, every range is of that version."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from isomorph.errors import FormatError
from isomorph.formats.source import Source

if TYPE_CHECKING:
    from isomorph.stores.url import Url


class RemoteSource(Source):
    """`size` is the object's length. Nothing of it lies on this machine, save what was read a moment ago or will be read next."""

    is_local = False

    def __init__(self, url: Url) -> None:
        """Ask for the object once. FormatError when there is none, it may not be read, or it is empty."""
        from isomorph.stores.blocks import Blocks

        self._begin(url)
        self._url, self._store = url, url.store
        found = self._store.look(url)
        if found is None:
            if self._store.is_folder(url):
                raise FormatError(url, "a folder, not a file of weights", "Name the file in it")
            raise self._store.missing(url)
        if found.nbytes == 0:
            raise FormatError(url, "an empty object (0 bytes)", "Was an upload interrupted?")
        self.stat = found
        self.size = self.stored = found.nbytes
        self._is_open = True
        self._blocks = Blocks(self.size, lambda offset, buffer: self._store.fill(url, found, offset, buffer))

    def fill(self, offset: int, buffer: memoryview) -> None:
        whole = buffer.cast("B") if buffer.ndim != 1 or buffer.format != "B" else buffer
        if not self._is_open:
            raise FormatError(self.path, "was closed, and cannot be read any more", "Open it again")
        if offset < 0 or offset + len(whole) > self.size:
            raise FormatError(
                self.path, f"truncated: bytes {offset} to {offset + len(whole)} are needed, the object has {self.size}"
            )
        self._blocks.read_into(offset, whole)
        if self.sums is not None:
            self.sums.seen(offset, whole)

    def read(self, offset: int, nbytes: int) -> bytes:
        if offset < 0 or nbytes < 0 or offset + nbytes > self.size:
            raise FormatError(
                self.path, f"truncated: bytes {offset} to {offset + nbytes} are needed, the object has {self.size}"
            )
        self._before_reading(nbytes)
        buffer = bytearray(nbytes)
        self.fill(offset, memoryview(buffer))
        return bytes(buffer)

    def expect(self, ranges: Iterable[tuple[int, int]]) -> None:
        self._blocks.expect(ranges)

    def changed(self) -> str | None:
        now = self._store.stat(self._url)
        if now is None:
            return "changed while it was read: it was removed"
        if now.nbytes != self.size:
            return f"changed while it was read: {self.size} bytes when opened, {now.nbytes} now"
        if now.version != self.stat.version:
            return "changed while it was read: it is another version now"
        return None

    def close(self) -> None:
        self._is_open = False
        self._blocks.close()

    def fileno(self) -> int:
        """FormatError: no file of this machine has these bytes."""
        raise FormatError(
            self.path, "is read where it lies, and this part of it only as a file of this machine", "Download it first"
        )
