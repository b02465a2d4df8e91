"""The URL of an object, as a path: `Url` has a path's name, suffix and parent, and asks the store where a path asks the disk.

>>> path_of("s3://weights/vit/model.safetensors").parent / "config.json"
Url('s3://weights/vit/config.json')
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Generator
from pathlib import Path, PosixPath, PurePosixPath
from typing import TYPE_CHECKING, Any

from isomorph.errors import UnsafeError, UsageError, printable

if TYPE_CHECKING:
    from isomorph.stores.base import Stat, Store

SCHEMES = {
    "s3": "s3://bucket/key",
    "gs": "gs://bucket/key",
    "hf": "hf://owner/repo[@revision][/file]",
    "https": "https://host/file (read only)",
    "http": "http://host/file (read only)",
}
"""What is known, and how it is written."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
MOST_CHARACTERS = 2048


class Url(PosixPath):
    """An object, or what others call a folder: a beginning that several keys have in common.

    Made by `path_of`; `/` refuses what would lead elsewhere. `stat` gives the size, the time, and as inode a number made from the
    version (S3's ETag, the generation of Google's store): another version is another file.
    """

    _written: str | None = None
    _is_folder: bool | None = None

    @property
    def scheme(self) -> str:
        return self.parts[0].removesuffix(":")

    @property
    def bucket(self) -> str:
        return self.parts[1]

    @property
    def key(self) -> str:
        return "/".join(self.parts[2:])

    @property
    def store(self) -> Store:
        from isomorph.stores.table import store_of

        return store_of(self.scheme)

    def __str__(self) -> str:
        return self._written or f"{self.parts[0]}//{'/'.join(self.parts[1:])}"

    def __fspath__(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return f"Url({str(self)!r})"

    def __truediv__(self, key: str | os.PathLike[str]) -> Url:
        """What lies below. UnsafeError for `..`, for an absolute path and for another URL."""
        below = os.fspath(key)
        if not below or below.startswith("/") or _URL.match(below) or not _is_plain(below.split("/")):
            raise UnsafeError(self, f"{printable(below)!r} is no name below it", "Nothing was read from there")
        return _made(f"{self.parts[0]}//{'/'.join(self.parts[1:])}/{below}")

    def joinpath(self, *others: str | os.PathLike[str]) -> Url:
        found = self
        for other in others:
            found = found / other
        return found

    @property
    def name(self) -> str:
        last = super().name
        return last.partition("?")[0] if self.scheme in ("http", "https") else last

    @property
    def parent(self) -> Url:
        return _made(f"{self.parts[0]}//{'/'.join(self.parts[1:-1])}") if len(self.parts) > 2 else self

    def with_name(self, name: str) -> Url:
        return self.parent / name

    def with_suffix(self, suffix: str) -> Url:
        return self.parent / (self.stem + suffix)

    def relative_to(self, *other: str | os.PathLike[str]) -> PurePosixPath:  # type: ignore[override]  # what is left is no URL
        return PurePosixPath(*super().relative_to(*other).parts)

    def absolute(self) -> Url:
        return self

    def resolve(self, strict: bool = False) -> Url:
        return self

    def is_symlink(self) -> bool:
        return False

    def is_mount(self) -> bool:
        return False

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        if self._is_folder is not None:
            return not self._is_folder
        return self.store.look(self) is not None

    def is_dir(self) -> bool:
        """True where other keys begin with this one and a slash, and no object has it for its whole key."""
        if self._is_folder is not None:
            return self._is_folder
        return self.store.is_folder(self)

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        found = self.store.stat(self)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "no such object", str(self))
        return _as_status(found)

    def state(self) -> dict[str, Any]:
        """Size, time and version, as they are written down."""
        found = self.store.stat(self)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "no such object", str(self))
        return {"size": found.nbytes, "mtime_ns": found.modified_ns, "version": found.version}

    def lstat(self) -> os.stat_result:
        return self.stat()

    def samefile(self, other_path: str | os.PathLike[str]) -> bool:
        return str(self) == os.fspath(other_path)

    def iterdir(self) -> Generator[Url, None, None]:
        """What lies below, one level deep, by name. FormatError where the store may not be asked."""
        for entry in self.store.entries(self):
            if _is_plain([entry.name]):
                below = self / entry.name
                below._is_folder = entry.is_folder
                yield below

    def read_bytes(self) -> bytes:
        """A small object, whole. FileNotFoundError; FormatError as for every read."""
        from isomorph.stores.base import read_whole

        return read_whole(self)

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def write_bytes(self, data: Any) -> int:
        self.store.put(self, bytes(data), replace=True)
        return len(data)

    def write_text(
        self, data: str, encoding: str | None = None, errors: str | None = None, newline: str | None = None
    ) -> int:
        return self.write_bytes(data.encode(encoding or "utf-8", errors or "strict"))

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: a store has no folders."""

    def __reduce__(self) -> tuple[Any, ...]:
        return path_of, (str(self),)


def path_of(text: str | os.PathLike[str]) -> Path:
    """A Url for `scheme://…`, else a Path. UsageError for a scheme that is not known, and for what is no URL of an object."""
    if isinstance(text, Path):
        return text
    written = os.fspath(text)
    match = _URL.fullmatch(written)
    if match is None or os.path.lexists(written):
        return Path(written)
    scheme, rest = match[1].lower(), match[2]
    if scheme == "file":
        return Path(rest)
    if scheme not in SCHEMES:
        known = ", ".join(SCHEMES.values())
        raise UsageError(f"{printable(written)}: {printable(scheme)}:// is not known; known are {known}")
    is_web = scheme in ("http", "https")
    plain = rest.partition("?")[0] if is_web else rest
    parts = plain.removesuffix("/").split("/")
    if len(written) > MOST_CHARACTERS or not written.isprintable() or not _is_plain(parts):
        raise UsageError(
            f"{printable(written)}: no URL of an object; it is written {SCHEMES[scheme]}, without empty parts, `.` and `..`"
        )
    if scheme == "hf" and len(parts) < 2:
        raise UsageError(f"{written}: a repository is written {SCHEMES[scheme]}")
    found = _made(f"{scheme}://{plain.removesuffix('/')}")
    if plain != rest:
        found._written = f"{scheme}://{rest}"
    return found


def is_remote(path: object) -> bool:
    return isinstance(path, Url)


def is_url(text: str) -> bool:
    """True for a text of the form `scheme://…`."""
    return _URL.fullmatch(text) is not None


def _made(text: str) -> Url:
    return Url(text)


def _is_plain(parts: list[str]) -> bool:
    return all(part not in ("", ".", "..") and part.isprintable() and "\\" not in part for part in parts)


def _as_status(found: Stat) -> os.stat_result:
    seconds = found.modified_ns // 10**9
    times = {"st_mtime_ns": found.modified_ns, "st_blocks": -(-found.nbytes // 512), "st_blksize": 4096}
    regular = stat.S_IFREG | 0o444
    return os.stat_result((regular, found.inode, 0, 1, 0, 0, found.nbytes, seconds, seconds, seconds), times)
