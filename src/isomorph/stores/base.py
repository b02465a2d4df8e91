"""What a store does. `stat` pins a version; every range is then read of that version, or the answer is an error."""

from __future__ import annotations

import hashlib
import threading
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple

from isomorph.errors import FormatError, RefusedError, near_misses, printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from isomorph.stores.url import Url

SHORT_WHILE = 5.0
"""Seconds for which an answer to `look` is believed. What is read is pinned, and what is written is asked for anew."""

MOST_ENTRIES = 10_000
LARGEST_WHOLE = 64 << 20


class Stat(NamedTuple):
    """An object as it is now. `version` changes with its bytes: an ETag, a generation, a commit."""

    nbytes: int
    version: str
    modified_ns: int = 0

    @property
    def inode(self) -> int:
        return int.from_bytes(hashlib.blake2b(self.version.encode(), digest_size=7).digest(), "little")


class Entry(NamedTuple):
    """A name below a URL: an object, or the beginning of several keys."""

    name: str
    is_folder: bool


class Upload(ABC):
    """One object being written. It appears at `finish`, whole; after `abort` nothing is left of it."""

    in_order = False
    """True where parts must come one after the other."""

    @abstractmethod
    def put(self, number: int, offset: int, data: bytes | bytearray) -> None:
        """Part `number` (from 0), whose bytes lie at `offset`. May be called from several threads. RefusedError."""

    def copy(self, number: int, source: Url, stat: Stat, offset: int, nbytes: int) -> None:
        """Part `number`: bytes of another object of this store, which never pass through here. SourceChanged, RefusedError."""
        raise NotImplementedError

    @abstractmethod
    def finish(self) -> None:
        """Make the object appear. RefusedError where there is one and it is not to be replaced."""

    @abstractmethod
    def abort(self) -> None:
        """Throw away what was sent."""


class Store(ABC):
    """One kind of store. Safe to use from several threads."""

    writes = True
    """Objects can be uploaded part by part."""
    copies_ranges = False
    """Parts of an upload can be copied from objects that are there."""
    is_staged = False
    """Files are written here first, and then given to `commit` all at once; there is no `begin`."""

    def __init__(self) -> None:
        self._looked: dict[str, tuple[float, Stat | None]] = {}
        self._folders: dict[str, tuple[float, list[Entry]]] = {}
        self._lock = threading.Lock()

    @abstractmethod
    def stat(self, url: Url) -> Stat | None:
        """The object as it is now; None when there is none. FormatError when the store may not or cannot be asked."""

    @abstractmethod
    def list(self, url: Url, most: int) -> Sequence[Entry]:
        """At most about `most` names one level below. FormatError as for `stat`."""

    @abstractmethod
    def fill(self, url: Url, stat: Stat, offset: int, buffer: memoryview) -> None:
        """Bytes from `offset` of that version. SourceChanged when it is no longer there; FormatError for every other failure."""

    def begin(self, url: Url, nbytes: int, *, replace: bool) -> Upload:
        """Start to write an object of so many bytes; `replace`: one that is there is replaced when this one is finished."""
        raise self.read_only(url)

    def put(self, url: Url, data: bytes, *, replace: bool) -> None:
        """Write a small object. RefusedError where there is one and it is not to be replaced."""
        raise self.read_only(url)

    def copy(self, url: Url, stat: Stat, to: Url, *, replace: bool) -> None:
        """Copy an object inside the store, if it still is that version."""
        raise self.read_only(to)

    def commit(self, url: Url, files: Sequence[tuple[Path, Url]]) -> None:
        """Write finished files of this machine, all at once or none. RefusedError."""
        raise self.read_only(url)

    def remove(self, url: Url) -> None:
        """Remove an object; nothing happens when it is not there."""
        raise self.read_only(url)

    def read_only(self, url: Url) -> RefusedError:
        return RefusedError(url, f"cannot be written: {url.scheme}:// is only read", "Write a file, and upload that")

    def look(self, url: Url) -> Stat | None:
        """`stat`, as it was at most a short while ago."""
        now = time.monotonic()
        with self._lock:
            found = self._looked.get(str(url))
        if found is not None and now - found[0] < SHORT_WHILE:
            return found[1]
        stat = self.stat(url)
        with self._lock:
            self._looked[str(url)] = (now, stat)
        return stat

    def entries(self, url: Url) -> Sequence[Entry]:
        """The names one level below, sorted, as they were at most a short while ago. FormatError when they are too many."""
        now = time.monotonic()
        with self._lock:
            known = self._folders.get(str(url))
        if known is not None and now - known[0] < SHORT_WHILE:
            return known[1]
        found = sorted(self.list(url, MOST_ENTRIES + 1))
        if len(found) > MOST_ENTRIES:
            raise FormatError(url, f"holds more than {MOST_ENTRIES:,} names", "Name the file of weights itself")
        with self._lock:
            self._folders[str(url)] = (now, found)
        return found

    def is_folder(self, url: Url) -> bool:
        return self.look(url) is None and bool(self.list(url, 1))

    def close(self) -> None:  # noqa: B027  (most stores keep none)
        """Close the connections that are kept open."""

    def forget(self) -> None:
        """What was looked at is asked for again: something was written."""
        with self._lock:
            self._looked.clear()
            self._folders.clear()

    def missing(self, url: Url) -> FormatError:
        """The error of an object that is not there, with names like it."""
        names = [entry.name for entry in self.list(url.parent, 1000)] if url.parent != url else []
        near = near_misses(url.name, names)
        advice = f"Did you mean {' or '.join(printable(name) for name in near)}?" if near else None
        return FormatError(url, "no such object", advice)


def read_whole(url: Url, most: int = LARGEST_WHOLE) -> bytes:
    """The bytes of a small object. FileNotFoundError, FormatError."""
    found = url.store.stat(url)
    if found is None:
        raise FileNotFoundError(2, "no such object", str(url))
    if found.nbytes > most:
        raise FormatError(url, f"{found.nbytes:,} bytes, where at most {most:,} are read")
    buffer = bytearray(found.nbytes)
    if buffer:
        url.store.fill(url, found, 0, memoryview(buffer))
    return bytes(buffer)
