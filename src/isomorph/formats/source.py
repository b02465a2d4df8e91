"""One opened file: checked once, read with pread only, never mapped. (`formats.remote`: an object of a store, read alike.)

The descriptor that the header was read from is the one all tensors are read from, so a file that is replaced meanwhile
is still read whole; one that is cut or rewritten is noticed (`changed`, and a short read).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import weakref
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from isomorph.errors import FormatError, SourceChanged, near_misses, printable
from isomorph.formats.ahead import Ahead
from isomorph.formats.allowance import look, require
from isomorph.stores.url import Url

if TYPE_CHECKING:
    from isomorph.formats.zip.archive import Member
    from isomorph.formats.zip.sums import Sums

SMALL_READ = 1 << 20
LARGEST_READ = 1 << 30
"""One system call reads less than 2 GiB; larger reads are made of several."""


LOOK_EVERY = 1 << 16
"""Bytes of headers after which the memory that they take is looked at."""
LARGE_READ = 1 << 16
"""Bytes from which it pays to look where a buffer begins."""


def _to_cache_line(buffer: memoryview) -> int:
    """Bytes up to the next cache line: the kernel copies into memory that begins on one several times faster."""
    import numpy as np

    return int(-np.frombuffer(buffer, np.uint8).ctypes.data % 64)


class Source:
    """A regular file, open for reading. `size` is its length in bytes when it was opened; `stored` what the disk holds of it."""

    is_local = True
    """It is a file of this machine, and has a descriptor."""

    _ahead: Ahead | None = None

    def __init__(self, path: Path, *, follow_links: bool = True) -> None:
        """Open `path`. FormatError when it is missing, unreadable, empty, or anything but a regular file."""
        self._begin(path)
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            self._fd = os.open(path, flags if follow_links else flags | os.O_NOFOLLOW)
        except OSError as error:
            raise open_error(path, error) from None
        except ValueError:  # a NUL in the name
            raise FormatError(printable(str(path)), "not a file name") from None
        self._close = weakref.finalize(
            self, os.close, self._fd
        )  # a file that nobody closed closes with the last to hold it
        try:
            found = os.fstat(self._fd)
            _require_regular(path, found)
        except BaseException:
            self.close()
            raise
        self.size = found.st_size
        self._ahead = Ahead(self._fd, self.size)
        self.stored = found.st_blocks * 512
        self._identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)

    def _begin(self, path: Path) -> None:
        self.path = path
        self.members: Mapping[str, Member] | None = None  # of a zip archive, once its directory was read
        self.castagnoli: Sequence[Member] = ()  # stretches of which a masked CRC-32C is kept elsewhere
        self.sums: Sums | None = None  # of what `fill` reads, where somebody wants to know
        self._unlooked = 0

    def _before_reading(self, nbytes: int) -> None:
        """FormatError when what was read has taken more memory than it may, or when these bytes would."""
        if nbytes > SMALL_READ:
            require(self.path, f"what it says of itself, {nbytes:,} bytes,", 2 * nbytes)
        self._unlooked += nbytes
        if self._unlooked >= LOOK_EVERY:
            self._unlooked = 0
            look(self.path)

    def expect(self, ranges: Iterable[tuple[int, int]]) -> None:
        """These (byte offset, nbytes) are read next: a store that is far away sends them all at once, a disk need not know."""

    def read(self, offset: int, nbytes: int) -> bytes:
        """Exactly the `nbytes` bytes from `offset`.

        FormatError, before anything is allocated, when they are not all in the file.
        """
        if offset < 0 or nbytes < 0 or offset + nbytes > self.size:
            raise FormatError(
                self.path, f"truncated: bytes {offset} to {offset + nbytes} are needed, the file has {self.size}"
            )
        self._before_reading(nbytes)
        if nbytes <= SMALL_READ:
            with contextlib.suppress(OSError):  # the error is raised again, and explained, below
                found = os.pread(self._fd, nbytes, offset)
                if len(found) == nbytes:
                    return found
        buffer = bytearray(nbytes)
        self.fill(offset, memoryview(buffer))
        return bytes(buffer)

    def fill(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` (contiguous, writable) with the bytes from `offset`. SourceChanged when the file ends before that."""
        whole = buffer.cast("B") if buffer.ndim != 1 or buffer.format != "B" else buffer
        if self._ahead is not None:
            self._ahead.read(offset, len(whole))
        done = 0
        while done < len(whole):
            try:
                head = _to_cache_line(whole) if len(whole) >= LARGE_READ and done == 0 else 0
                buffers = [whole[done : done + head], whole[done + head : done + LARGEST_READ]]
                count = os.preadv(self._fd, buffers, offset + done)
            except OSError as error:
                if self._fd < 0:
                    raise FormatError(self.path, "was closed, and cannot be read any more", "Open it again") from None
                raise FormatError(self.path, f"cannot be read at byte {offset + done}: {error.strerror}") from None
            if count == 0:
                raise SourceChanged(self.path, f"truncated while reading (byte {offset + done} is no longer there)")
            done += count
        if self.sums is not None:
            self.sums.seen(offset, whole)

    def changed(self) -> str | None:
        """What differs from when the file was opened, in words; None when nothing does."""
        device, inode, size, mtime = self._identity
        now = os.fstat(self._fd)
        if now.st_size != size:
            return f"changed while it was read: {size} bytes when opened, {now.st_size} now"
        if now.st_mtime_ns != mtime:
            return "changed while it was read: it was written to since it was opened"
        try:
            named = self.path.stat()
        except OSError:
            return "changed while it was read: it was removed or renamed"
        if (named.st_dev, named.st_ino) != (device, inode):
            return "changed while it was read: another file took its name"
        return None

    def close(self) -> None:
        self._fd = -1
        with contextlib.suppress(OSError):
            self._close()

    def fileno(self) -> int:
        return self._fd


def open_source(path: Path, *, follow_links: bool = True) -> Source:
    """A file, or an object of a store. FormatError as for both."""
    if isinstance(path, Url):
        from isomorph.formats.remote import RemoteSource

        return RemoteSource(path)
    return Source(path, follow_links=follow_links)


def _require_regular(path: Path, found: os.stat_result) -> None:
    mode = found.st_mode
    if stat.S_ISREG(mode):
        if found.st_size == 0:
            raise FormatError(path, "an empty file (0 bytes)", "Was a download or a copy interrupted?")
        return
    kinds = [
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
        (stat.S_ISSOCK, "a socket"),
    ]
    kind = next((name for is_kind, name in kinds if is_kind(mode)), "not a regular file")
    raise FormatError(path, f"{kind}, not a file of weights", "Only regular files are read")


def open_error(path: Path, error: OSError) -> FormatError:
    """The FormatError that says why `path` could not be opened, and what to do."""
    where = printable(str(path))
    if error.errno == errno.ENOENT:
        if path.is_symlink():
            return FormatError(where, f"a link to {printable(str(path.readlink()))}, which does not exist")
        folder = path.parent
        if not is_folder(folder):
            return FormatError(where, f"no such file: there is no folder {printable(str(folder))}")
        names = near_misses(path.name, _names_in(folder))
        if names:
            return FormatError(where, "no such file", f"Did you mean {' or '.join(printable(name) for name in names)}?")
        return FormatError(where, "no such file")
    if error.errno == errno.ELOOP:
        if path.is_symlink() and is_loop(path):
            return FormatError(where, "a link that leads back to itself")
        return FormatError(where, "a symbolic link, which is not followed here")
    if error.errno == errno.ENOTDIR:
        return FormatError(where, "no such file: a part of the path is a file, not a folder")
    if error.errno in (errno.EACCES, errno.EPERM):
        return FormatError(where, "may not be read (permission denied)", f"Ask its owner, or: chmod +r {where}")
    if error.errno == errno.ENXIO:
        return FormatError(where, "a device or socket, not a file of weights")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return FormatError(where, "cannot be opened: too many files are open", "Raise the limit first: ulimit -n 65536")
    return FormatError(where, f"cannot be opened: {error.strerror}")


def is_loop(path: Path) -> bool:
    """True when following the link never ends."""
    try:
        path.stat()
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


def is_folder(path: Path) -> bool:
    """True when `path` is a folder as far as one may see."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _names_in(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(folder))
    except OSError:
        return []
