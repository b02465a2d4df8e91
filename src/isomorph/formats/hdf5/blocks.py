"""The blocks that an HDF5 file is made of: superblock, object headers, and the trees and heaps that hold the links of a group.

Follows the HDF Group's "HDF5 File Format Specification", versions 0 to 3 of the superblock. Only what leads to names and messages
is read; what a message says is in `hdf5_messages`. Every address and length is checked against the file, no block of an object is
read twice, and the bytes of all blocks together are counted, so that a file which leads in circles ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

from isomorph.errors import FormatError
from isomorph.formats.source import Source

MAGIC = b"\x89HDF\r\n\x1a\n"

MAX_BLOCK = 64 << 20
MAX_LINKS = 200_000
"""Links of one group, and of all together."""

MAX_LINK_BYTES = 64 << 20
"""Names and targets of all links together: of old groups they are ends of one text, so that a little makes much."""

MAX_MESSAGES = 100_000
MAX_ALL_MESSAGES = 4_000_000
"""Messages of one object, and of all together."""
LEAST_MESSAGE = 4
"""Bytes of a message. A header is read twice at most: where a link leads to it, and where it is a type that others refer to."""

MAX_READ = 512 << 20
"""Bytes of blocks, in a file of any size."""
READ_TIMES, READ_BESIDES = 8, 1 << 20
"""All blocks together are at most so many times the file, and so many bytes; each counts for 64 besides its own. (Objects may
share them; files of h5py come to three times.)"""

TREE_DEPTH = 32

DATASPACE, LINK_INFO, DATATYPE, EXTERNAL, LINK, LAYOUT, ATTRIBUTE, CONTINUATION, SYMBOLS, ATTRIBUTE_INFO = (
    0x01, 0x02, 0x03, 0x07, 0x06, 0x08, 0x0C, 0x10, 0x11, 0x15,
)  # fmt: skip
"""Types of messages in an object's header."""


class Message(NamedTuple):
    """`at` is the address of its data."""

    kind: int
    data: bytes
    is_shared: bool
    at: int = 0


class Link(NamedTuple):
    """`address` of a hard link's object; else None, and `target` is the path of a soft link or (file, path) of an external one."""

    name: bytes
    address: int | None
    target: bytes | tuple[bytes, bytes] | None = None


class Cursor:
    """Little-endian numbers and bytes, one after the other."""

    def __init__(self, file: Blocks, data: bytes, at: int = 0) -> None:
        self.file = file
        self.data = data
        self.at = at

    def take(self, nbytes: int) -> bytes:
        if nbytes < 0 or self.at + nbytes > len(self.data):
            self.file.broken("a block that ends in the middle")
        self.at += nbytes
        return self.data[self.at - nbytes : self.at]

    def number(self, nbytes: int) -> int:
        return int.from_bytes(self.take(nbytes), "little")

    def address(self) -> int | None:
        """None for the address of nothing."""
        value = self.number(self.file.offset_bytes)
        return None if value == (1 << 8 * self.file.offset_bytes) - 1 else value

    def length(self) -> int:
        return self.number(self.file.length_bytes)

    def text(self) -> bytes:
        """Up to a zero byte."""
        end = self.data.find(b"\0", self.at)
        if end < 0:
            self.file.broken("a name without an end")
        found = self.data[self.at : end]
        self.at = end + 1
        return found

    @property
    def left(self) -> int:
        return len(self.data) - self.at


class Blocks:
    """The blocks of the HDF5 file of `nbytes` bytes at byte `base` of `source`. `root` is the address of its first group."""

    def __init__(self, source: Source, base: int, nbytes: int) -> None:
        self.source = source
        self.base = base
        self.nbytes = nbytes
        self.offset_bytes = self.length_bytes = 8
        self.budget = min(READ_TIMES * nbytes, MAX_READ) + READ_BESIDES
        self.parsed = 0
        self.most_parsed = min(2 * nbytes // LEAST_MESSAGE, MAX_ALL_MESSAGES)
        self.links = self.link_bytes = 0
        self.types: dict[int, Any] = {}
        """Types that have been read, by where they lie: any number of attributes may refer to one."""
        self.root = self._superblock()

    def broken(self, problem: str) -> NoReturn:
        raise FormatError(self.source.path, f"a broken HDF5 file: {problem}")

    def block(self, address: int | None, nbytes: int, magic: bytes = b"") -> Cursor:
        """The bytes at an address, behind the letters that they begin with."""
        if address is None or address < 0 or nbytes < 0 or nbytes > MAX_BLOCK:
            self.broken(
                f"a block of {nbytes:,} bytes at no place" if address is None else f"a block of {nbytes:,} bytes"
            )
        if address + nbytes > self.nbytes:
            self.broken(f"bytes {address:,} to {address + nbytes:,} are needed, it has {self.nbytes:,}")
        self.budget -= nbytes + 64
        if self.budget < 0:
            self.broken("its structure leads through the same bytes again and again")
        data = self.source.read(self.base + address, nbytes)
        if not data.startswith(magic):
            self.broken(f"no {magic.decode()} at byte {address:,}")
        return Cursor(self, data, len(magic))

    def _superblock(self) -> int:
        head = Cursor(self, self.source.read(self.base, min(self.nbytes, 200)), 8)
        version = head.number(1)
        if version > 3:
            raise FormatError(self.source.path, f"an HDF5 file of version {version}; 0 to 3 are read")
        if version < 2:
            head.take(4)
            self.offset_bytes, self.length_bytes = head.number(1), head.number(1)
            head.take(9 if version == 0 else 13)
        else:
            self.offset_bytes, self.length_bytes = head.number(1), head.number(1)
            head.take(1)
        if self.offset_bytes not in (2, 4, 8) or self.length_bytes not in (2, 4, 8):
            self.broken(f"addresses of {self.offset_bytes} bytes and lengths of {self.length_bytes}")
        first = head.address()
        head.address()
        end = head.address()
        if first != 0:
            self.broken("its addresses do not count from its beginning")
        if end is None or end > self.nbytes:
            self.broken(f"truncated: it should have {end or 0:,} bytes, and has {self.nbytes:,}")
        if version < 2:
            head.address()
            head.take(self.offset_bytes)
        root = head.address()
        if root is None:
            self.broken("it has no first group")
        return root

    # --- object headers

    def messages(self, address: int) -> list[Message]:
        """What the header of the object at `address` says, its continuations included."""
        if self.block(address, 4).data == b"OHDR":
            return self._messages_2(address)
        head = self.block(address, 16)
        if head.number(1) != 1:
            self.broken(f"no object at byte {address:,}")
        head.take(7)
        found: list[Message] = []
        waiting = [(address + 16, head.number(4))]
        self._follow(found, waiting, 2, 3, is_second=False)
        return found

    def _messages_2(self, address: int) -> list[Message]:
        head = self.block(address, min(64, self.nbytes - address), b"OHDR")
        if head.number(1) != 2:
            self.broken(f"an object's header of a version that is not known, at byte {address:,}")
        flags = head.number(1)
        head.take((16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0))
        nbytes = head.number(1 << (flags & 3))
        found: list[Message] = []
        waiting = [(address + head.at, nbytes)]
        self._follow(found, waiting, 1, 2 if flags & 4 else 0, is_second=True)
        return found

    def _follow(
        self, found: list[Message], waiting: list[tuple[int, int]], kind_bytes: int, more: int, *, is_second: bool
    ) -> None:
        """Read the messages of the `waiting` blocks, and of those they go on in, which have a name and a checksum in version 2."""
        seen: set[int] = set()
        first = True
        while waiting:
            begin, nbytes = waiting.pop(0)
            if begin in seen:
                self.broken(f"an object's header that goes on in itself, at byte {begin:,}")
            seen.add(begin)
            cursor = self.block(begin, nbytes)
            end = nbytes
            if is_second and not first:
                if cursor.take(4) != b"OCHK":
                    self.broken(f"no OCHK at byte {begin:,}")
                end -= 4
            first = False
            while end - cursor.at >= kind_bytes + 3 + more:
                kind, size, flags = cursor.number(kind_bytes), cursor.number(2), cursor.number(1)
                cursor.take(more)
                if cursor.at + size > end:
                    self.broken(f"a message that is longer than its header, at byte {begin + cursor.at:,}")
                data = cursor.take(size)
                if kind == CONTINUATION:
                    inner = Cursor(self, data)
                    where = inner.address()
                    if where is None:
                        self.broken("an object's header that goes on nowhere")
                    waiting.append((where, inner.length()))
                elif kind:
                    found.append(Message(kind, data, bool(flags & 2), begin + cursor.at - size))
                self.parsed += 1
                if len(found) > MAX_MESSAGES or self.parsed > self.most_parsed:
                    self.broken(f"an object of more than {MAX_MESSAGES:,} messages, or {self.most_parsed:,} in all")

    # --- the links of a group

    def links_of(self, messages: list[Message]) -> Iterator[Link]:
        """What a group holds, in the order of its names (or as it lies there)."""
        for message in messages:
            if message.kind == SYMBOLS:
                cursor = Cursor(self, message.data)
                yield from self._counted(self._symbols(cursor.address(), cursor.address()))
            elif message.kind == LINK:
                yield from self._counted(iter([self._link(Cursor(self, message.data))]))
            elif message.kind == LINK_INFO:
                cursor = Cursor(self, message.data)
                cursor.take(1)
                flags = cursor.number(1)
                cursor.take(8 if flags & 1 else 0)
                heap, names = cursor.address(), cursor.address()
                if heap is not None and names is not None:
                    yield from self._counted(self._dense(heap, names))

    def _counted(self, links: Iterator[Link]) -> Iterator[Link]:
        for link in links:
            self.links += 1
            self.link_bytes += len(link.name) + (len(link.target) if isinstance(link.target, bytes) else 0)
            if self.links > MAX_LINKS or self.link_bytes > MAX_LINK_BYTES:
                raise FormatError(
                    self.source.path,
                    f"an HDF5 file of more than {MAX_LINKS:,} links, or {MAX_LINK_BYTES:,} bytes of them",
                )
            yield link

    def _link(self, cursor: Cursor) -> Link:
        if cursor.number(1) != 1:
            self.broken("a link of a version that is not known")
        flags = cursor.number(1)
        kind = cursor.number(1) if flags & 8 else 0
        cursor.take((8 if flags & 4 else 0) + (1 if flags & 0x10 else 0))
        name = cursor.take(cursor.number(1 << (flags & 3)))
        if kind == 0:
            return Link(name, cursor.address())
        value = cursor.take(cursor.number(2))
        if kind == 1:
            return Link(name, None, value)
        inner = Cursor(self, value + b"\0\0", 1)
        return Link(name, None, (inner.text(), inner.text()))

    def _symbols(self, tree: int | None, heap: int | None) -> Iterator[Link]:
        """Groups of the first kind: a tree of nodes of names, which are in a heap of texts."""
        head = self.block(heap, 8 + 2 * self.length_bytes + self.offset_bytes, b"HEAP")
        head.take(4)
        nbytes = head.length()
        head.length()
        names = self.block(head.address(), nbytes)
        seen: set[int] = set()
        waiting: list[tuple[int | None, int | None]] = [(tree, None)]
        entry = 2 * self.offset_bytes + 24
        while waiting:
            address, level = waiting.pop()
            if address is None or address in seen:
                self.broken("a tree of names that leads to itself")
            seen.add(address)
            if level == 0:
                nodes = self.block(address, 8, b"SNOD")
                nodes.take(2)
                count = nodes.number(2)
                cursor = self.block(address + 8, count * entry)
                for _ in range(count):
                    yield self._symbol(cursor, names)
                continue
            node = self.block(address, 8 + 2 * self.offset_bytes, b"TREE")
            kind, found, count = node.number(1), node.number(1), node.number(2)
            if kind != 0 or found >= TREE_DEPTH or (level is not None and found != level - 1):
                self.broken(f"no tree of names at byte {address:,}")
            cursor = self.block(
                address + node.at + 2 * self.offset_bytes, count * (self.length_bytes + self.offset_bytes)
            )
            children: list[tuple[int | None, int | None]] = []
            for _ in range(count):
                cursor.length()
                children.append((cursor.address(), found))
            waiting += reversed(children)

    def _symbol(self, cursor: Cursor, names: Cursor) -> Link:
        where = cursor.number(self.offset_bytes)
        address = cursor.address()
        cached = cursor.number(4)
        cursor.take(4)
        scratch = cursor.take(16)
        if where >= len(names.data):
            self.broken("a name outside of its heap")
        name = Cursor(self, names.data, where).text()
        if cached != 2:
            return Link(name, address)
        target = int.from_bytes(scratch[:4], "little")
        if target >= len(names.data):
            self.broken("a link outside of its heap")
        return Link(name, None, Cursor(self, names.data, target).text())

    def _dense(self, heap: int, tree: int) -> Iterator[Link]:
        """Groups of many names in newer files: a tree of places in a heap of links."""
        from isomorph.formats.hdf5.heap import Heap, records

        found = Heap(self, heap)
        for record in records(self, tree):
            yield self._link(Cursor(self, found.read(record[4:] if len(record) < 15 else record[8:])))
