"""Many files of which few are open at a time: a checkpoint of ten thousand chunks does not take ten thousand descriptors.

A file is opened once to be checked, put away when others are read, and must be the very same file when it is opened again.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path

from isomorph.errors import SourceChanged
from isomorph.formats.links import open_beside
from isomorph.formats.source import Source
from isomorph.stores.url import Url

MOST_OPEN = 128


class Shelf:
    """At most `MOST_OPEN` of its files are open, those that were read last, besides those that are being read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[ShelvedSource, int] = OrderedDict()  # and how many are reading it

    @contextlib.contextmanager
    def lent(self, source: ShelvedSource) -> Iterator[None]:
        """`source` is open for as long as the block runs."""
        with self._lock:
            if source not in self._open:
                source.reopen()
                self._open[source] = 0
            self._open[source] += 1
            self._open.move_to_end(source)
            idle = [each for each, readers in self._open.items() if not readers]
            for each in idle[: max(0, len(self._open) - MOST_OPEN)]:
                del self._open[each]
                each.put_away()
        try:
            yield
        finally:
            with self._lock:
                if source in self._open:
                    self._open[source] -= 1

    def opened(self, source: ShelvedSource) -> None:
        """A file that has just been opened."""
        with self._lock:
            self._open[source] = 0
        with self.lent(source):
            pass

    def forget(self, source: ShelvedSource) -> None:
        with self._lock:
            self._open.pop(source, None)


class ShelvedSource(Source):
    """A Source whose file is closed while others of its shelf are read."""

    def __init__(self, path: Path, shelf: Shelf) -> None:
        """Open `path`, which is no link. FormatError as for any file."""
        super().__init__(path, follow_links=False)
        self._shelf = shelf
        self._is_over = False
        shelf.opened(self)

    def reopen(self) -> None:
        """Open the file again. SourceChanged when it is not the one that it was."""
        if self._is_over:
            return  # what is read then says so
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError as error:
            raise SourceChanged(self.path, f"cannot be opened again while reading: {error.strerror}") from None
        found = os.fstat(descriptor)
        if (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns) != self._identity:
            os.close(descriptor)
            raise SourceChanged(
                self.path, "changed while it was read: another file took its name, or it was written to"
            )
        self._fd = descriptor
        self._close = weakref.finalize(self, os.close, descriptor)

    def put_away(self) -> None:
        super().close()

    def read(self, offset: int, nbytes: int) -> bytes:
        with self._shelf.lent(self):
            return super().read(offset, nbytes)

    def fill(self, offset: int, buffer: memoryview) -> None:
        with self._shelf.lent(self):
            super().fill(offset, buffer)

    def changed(self) -> str | None:
        try:
            with self._shelf.lent(self):
                return super().changed()
        except SourceChanged as error:
            return error.problem

    def close(self) -> None:
        self._is_over = True
        self._shelf.forget(self)
        super().close()

    def fileno(self) -> int:
        return -1  # it may be closed at any time


def open_all(folder: Path, names: Sequence[str]) -> list[Source]:
    """Open these files of a folder. Where they are more than may well be open at a time, those that are no links are shelved."""
    shelf = Shelf() if len(names) > MOST_OPEN and not isinstance(folder, Url) else None
    opened: list[Source] = []
    try:
        for name in names:
            if shelf is None or (folder / name).is_symlink():
                opened.append(open_beside(folder, name))
            else:
                opened.append(ShelvedSource(folder / name, shelf))
    except BaseException:
        for source in opened:
            source.close()
        raise
    return opened
