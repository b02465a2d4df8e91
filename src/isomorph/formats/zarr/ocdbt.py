"""OCDBT, the key-value store in which Orbax keeps its arrays: a manifest, and B+tree nodes and values in files of data.

    manifest.ocdbt          -> the newest root, a node in a data file
    d/<hex>                    nodes (keys -> values inline, or a range of a data file; or keys -> further nodes) and values
    ocdbt.process_0/d/<hex>    what each process wrote; nodes refer to them by paths below the manifest's folder

All numbers are varints unless said, arrays come column by column. Nodes are checked (CRC-32C) and followed with bounds on how many
there are; a path that is not plainly below the folder is refused, and values stay where they lie.

Source: the storage format in tensorstore/kvstore/ocdbt/index.rst, codec by codec.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, NoReturn

from isomorph.errors import FormatError, UnsafeError, printable
from isomorph.formats.allowance import require
from isomorph.formats.source import Source
from isomorph.formats.tf.crc32c import crc32c
from isomorph.formats.zarr.zstd import unpacked

MANIFEST = "manifest.ocdbt"
MANIFEST_MAGIC = 0x0CDB3A2A
NODE_MAGIC = 0x0CDB20DE
HEAD = 12
MOST_NODE = 32 << 20
"""Bytes of a node, decoded: writers begin another one at 8 MiB."""
MOST_NODES = 100_000
MOST_ENTRIES = 4_000_000
EACH_KEY = 500
"""Bytes that a key takes while its node is read, in columns."""
MOST_HEIGHT = 32
LONGEST_PATH = 1 << 12
MOST_UNPACKED, UNPACKED_BESIDES = 64, 64 << 20
"""Times their bytes that compressed nodes may become, all together, and so many bytes besides."""
MOST_KEY_BYTES = 64 << 20
"""Of all keys and of all paths: each may begin as the one before did, so that a few bytes can stand for a long one."""


class Value(NamedTuple):
    """Where the value of a key lies: `nbytes` bytes at `offset` of the file at `path`, or inline."""

    path: str
    offset: int
    nbytes: int
    inline: bytes | None = None


class _Reference(NamedTuple):
    path: str
    base: str
    offset: int
    nbytes: int


class _Cursor:
    """The decoded body of a manifest or a node."""

    def __init__(self, data: bytes, broken: Callable[[str], NoReturn]) -> None:
        self.data, self.at, self.broken = data, 0, broken

    def take(self, nbytes: int) -> bytes:
        found = self.data[self.at : self.at + nbytes]
        if len(found) != nbytes:
            self.broken("truncated")
        self.at += nbytes
        return found

    def number(self) -> int:
        value = 0
        for place in range(10):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                return value
        return self.broken("a number without an end")

    def numbers(self, count: int) -> list[int]:
        if count > len(self.data) - self.at:
            self.broken("more entries than it has bytes")
        return [self.number() for _ in range(count)]

    def texts(self, count: int, most: int, with_shared: bool = False) -> tuple[list[bytes], list[int]]:
        """Prefix-compressed byte strings, of at most `most` bytes in all, and the column of numbers that stands before their bytes
        (where there is one)."""
        prefixes = [0, *self.numbers(count - 1)] if count else []
        suffixes = self.numbers(count)
        column = self.numbers(count) if with_shared else []
        texts: list[bytes] = []
        total = 0
        for prefix, suffix in zip(prefixes, suffixes, strict=True):
            before = texts[-1] if texts else b""
            total += prefix + suffix
            if prefix > len(before):
                self.broken("a key that shares more than there is")
            if total > most:
                self.broken(f"its keys take more than {MOST_KEY_BYTES:,} bytes in all")
            texts.append(before[:prefix] + self.take(suffix))
        return texts, column


class Reader:
    """The values of the newest version. `open_file(path)` opens a data file below the manifest's folder."""

    def __init__(self, manifest: Source, open_file: Callable[[str], Source]) -> None:
        self.manifest, self.open_file = manifest, open_file
        self.values: dict[str, Value] = {}
        self.nodes = self.entries = self.texts = self.packed = self.unpacked = 0
        self.seen: set[tuple[str, int]] = set()

    def read(self) -> dict[str, Value]:
        """Key -> Value. FormatError when anything is broken; UnsafeError for a path out of the folder."""
        source = self.manifest

        def broken(problem: str) -> NoReturn:
            raise FormatError(source.path, f"a broken OCDBT manifest: {problem}")

        if source.size > MOST_NODE:
            broken(f"{source.size:,} bytes")
        cursor = _Cursor(self._body(source.read(0, source.size), MANIFEST_MAGIC, source.path, broken), broken)
        cursor.take(16)
        if cursor.number() != 0:
            raise FormatError(source.path, "an OCDBT database whose manifests are numbered, which is not read")
        cursor.numbers(2)
        cursor.take(1)
        if cursor.number():
            cursor.take(4)
        files = self._files(cursor, "")
        count = cursor.number()
        if not count:
            broken("it has no version")
        cursor.numbers(count)
        heights = cursor.take(count)
        roots = self._references(cursor, count, files)
        if roots[-1].nbytes:
            self._node(roots[-1], heights[-1], b"")
        return self.values

    def _body(self, data: bytes, magic: int, path: Path, broken: Callable[[str], NoReturn]) -> bytes:
        if len(data) < HEAD + 6 or int.from_bytes(data[:4], "big") != magic:
            broken("it does not begin as one")
        if int.from_bytes(data[4:HEAD], "little") != len(data):
            broken("its length is not what it says (truncated?)")
        said = int.from_bytes(data[-4:], "little")
        crc = crc32c([memoryview(data)[:-4]])
        if crc != said:
            broken(f"damaged: checksum {crc:08x}, not {said:08x}")
        version, packed = data[HEAD], data[HEAD + 1]
        if version != 0 or packed > 1:
            broken(f"version {version}, compression {packed}: only version 0, plain or zstd, is read")
        body = data[HEAD + 2 : -4]
        if not packed:
            return body
        found = unpacked(body, path, MOST_NODE)
        self.packed += len(body)
        self.unpacked += len(found)
        if self.unpacked > MOST_UNPACKED * self.packed + UNPACKED_BESIDES:
            broken(f"{self.packed:,} bytes of nodes unfold to more than {self.unpacked:,}")
        return found

    def _files(self, cursor: _Cursor, transitive: str) -> list[tuple[str, str]]:
        """(path below the folder, what paths of nodes in that file are relative to) of each file of the table."""
        count = cursor.number()
        prefixes = [0, *cursor.numbers(count - 1)] if count else []
        suffixes, bases = cursor.numbers(count), cursor.numbers(count)
        found: list[tuple[str, str]] = []
        before = b""
        for prefix, suffix, base in zip(prefixes, suffixes, bases, strict=True):
            if prefix > len(before) or prefix + suffix > LONGEST_PATH:
                cursor.broken("a path that shares more than there is")
            self.texts += len(transitive) + prefix + suffix
            if self.texts > MOST_KEY_BYTES:
                cursor.broken(f"its keys and paths take more than {MOST_KEY_BYTES:,} bytes in all")
            before = before[:prefix] + cursor.take(suffix)
            whole = transitive + before.decode("utf-8", "replace")
            self._require_inside(whole)
            found.append((whole, transitive + before[:base].decode("utf-8", "replace")))
        return found

    def _require_inside(self, path: str) -> None:
        if (
            any(part in ("", ".", "..") for part in path.split("/"))
            or any(letter in path for letter in "\\:\0")
            or not path.isprintable()
        ):
            raise UnsafeError(
                self.manifest.path,
                f"it names the file {printable(path, 200)!r}, which is not one below its folder",
                "Nothing was read from there",
            )

    def _references(self, cursor: _Cursor, count: int, files: list[tuple[str, str]]) -> list[_Reference]:
        numbers, offsets, lengths = cursor.numbers(count), cursor.numbers(count), cursor.numbers(count)
        found = []
        for number, offset, nbytes in zip(numbers, offsets, lengths, strict=True):
            if number >= len(files):
                if nbytes == 0 or offset == (1 << 64) - 1:
                    found.append(_Reference("", "", 0, 0))
                    continue
                cursor.broken(f"file number {number} of {len(files)}")
            found.append(_Reference(*files[number], offset, nbytes))
        return found

    def _node(self, where: _Reference, height: int, prefix: bytes) -> None:
        source = self.open_file(where.path)

        def broken(problem: str) -> NoReturn:
            raise FormatError(source.path, f"a broken OCDBT node at byte {where.offset:,}: {problem}")

        self.nodes += 1
        if self.nodes > MOST_NODES or height > MOST_HEIGHT or where.nbytes > MOST_NODE:
            broken("the tree is larger than any that is read")
        if (where.path, where.offset) in self.seen:
            broken("it is reached twice")
        self.seen.add((where.path, where.offset))
        body = self._body(source.read(where.offset, where.nbytes), NODE_MAGIC, source.path, broken)
        cursor = _Cursor(body, broken)
        if cursor.take(1)[0] != height:
            broken("it has another height than its parent says")
        files = self._files(cursor, where.base)
        count = cursor.number()
        self.entries += count
        if self.entries > MOST_ENTRIES:
            broken(f"more than {MOST_ENTRIES:,} keys")
        require(source.path, f"a node of {count:,} keys", EACH_KEY * min(count, len(body)))
        keys, shared = cursor.texts(count, MOST_KEY_BYTES - self.texts, with_shared=height > 0)
        self.texts += sum(map(len, keys)) + count * len(prefix)
        if self.texts > MOST_KEY_BYTES:
            broken(f"its keys and paths take more than {MOST_KEY_BYTES:,} bytes in all")
        if height:
            children = self._references(cursor, count, files)
            for key, common, child in zip(keys, shared, children, strict=True):
                self._node(child, height - 1, prefix + key[:common])
            return
        lengths, kinds = cursor.numbers(count), cursor.numbers(count)
        outside = [number for number, kind in enumerate(kinds) if kind]
        numbers, offsets = cursor.numbers(len(outside)), cursor.numbers(len(outside))
        places = dict(zip(outside, zip(numbers, offsets, strict=True), strict=True))
        for number, (key, nbytes) in enumerate(zip(keys, lengths, strict=True)):
            name = (prefix + key).decode("utf-8", "replace")
            if name in self.values:
                broken(f"the key {printable(name, 120)} is there twice")
            if number in places:
                file, offset = places[number]
                if file >= len(files):
                    broken(f"file number {file} of {len(files)}")
                self.values[name] = Value(files[file][0], offset, nbytes)
            else:
                self.values[name] = Value("", 0, nbytes, cursor.take(nbytes))
