"""Fractal heaps and version 2 trees, where newer HDF5 files keep the links of large groups; and the texts of attributes."""

from __future__ import annotations

from collections.abc import Iterator

from isomorph.formats.hdf5.blocks import TREE_DEPTH, Blocks, Cursor

NAMES, ORDER = 5, 6
"""Types of trees: links by the hash of their names, and by their age."""


class Heap:
    """Objects in blocks that double in size from row to row; an object is known by where it lies in all of them together."""

    def __init__(self, file: Blocks, address: int) -> None:
        self.file = file
        head = file.block(address, 22 + 12 * file.length_bytes + 3 * file.offset_bytes, b"FRHP")
        head.take(1)
        head.take(2)
        filtered = head.number(2)
        head.take(1)
        largest = head.number(4)
        head.length(), head.address(), head.length(), head.address()
        for _ in range(8):
            head.length()
        self.width = head.number(2)
        self.start = head.length()
        self.most = head.length()
        bits = head.number(2)
        head.take(2)
        self.root = head.address()
        self.rows = head.number(2)
        if filtered:
            file.broken("a heap of packed links, which is not read")
        if (
            not self.width
            or not self.start
            or self.start & (self.start - 1)
            or self.most < self.start
            or not 1 <= bits <= 64
        ):
            file.broken(f"a heap with impossible sizes at byte {address:,}")
        if self.rows > 64 or self.width > 1024:
            file.broken(f"a heap of {self.rows} rows of {self.width} blocks at byte {address:,}")
        self.offset_nbytes = (bits + 7) // 8
        self.length_nbytes = min((self.most.bit_length() + 6) // 8, _bytes(max(largest, 1)))
        self.direct_rows = (self.most // self.start).bit_length() + 1
        self._indirect: dict[int, list[int | None]] = {}

    def read(self, key: bytes) -> bytes:
        """The object that a tree's record names."""
        cursor = Cursor(self.file, key)
        kind = cursor.number(1) >> 4 & 3
        if kind == 2:  # a tiny object lies in its own name
            return cursor.take((key[0] & 15) + 1)
        if kind:
            self.file.broken("a link too large for its heap, which is not read")
        offset, length = cursor.number(self.offset_nbytes), cursor.number(self.length_nbytes)
        address, inside, nbytes = self._find(offset)
        if inside + length > nbytes:
            self.file.broken("a link outside of its heap")
        return self.file.block(address + inside, length).data

    def _size(self, row: int) -> int:
        return self.start << max(0, row - 1)

    def _find(self, offset: int) -> tuple[int, int, int]:
        """(address, offset in it, bytes) of the block that holds byte `offset` of the heap."""
        address, rows = self.root, self.rows
        if rows == 0:
            if address is None or offset >= self.start:
                self.file.broken("a link outside of its heap")
            return address, offset, self.start
        for _ in range(TREE_DEPTH):
            if address is None:
                break
            row = 0
            while row < rows and offset >= self._size(row) * self.width:
                offset -= self._size(row) * self.width
                row += 1
            if row == rows:
                break
            column, inside = divmod(offset, self._size(row))
            children = self._children(address, rows)
            address, offset = children[row * self.width + column], inside
            if row < self.direct_rows:
                if address is None:
                    break
                return address, inside, self._size(row)
            rows = (self._size(row) // (self.start * self.width)).bit_length()
        return self.file.broken("a link outside of its heap")

    def _children(self, address: int, rows: int) -> list[int | None]:
        if address not in self._indirect:
            file = self.file
            head = 5 + file.offset_bytes + self.offset_nbytes
            cursor = file.block(address, head + rows * self.width * file.offset_bytes, b"FHIB")
            cursor.at = head
            self._indirect[address] = [cursor.address() for _ in range(rows * self.width)]
        return self._indirect[address]


def records(file: Blocks, address: int) -> Iterator[bytes]:
    """The records of a version 2 tree, in their order."""
    head = file.block(address, 16 + file.offset_bytes + 2 + file.length_bytes, b"BTHD")
    head.take(1)
    kind = head.number(1)
    node, record, depth = head.number(4), head.number(2), head.number(2)
    head.take(2)
    root, count = head.address(), head.number(2)
    if kind not in (NAMES, ORDER) or depth >= TREE_DEPTH or record not in (11, 15) or node < 64:
        file.broken(f"no tree of links at byte {address:,}")
    most = [(node - 10) // record]  # records of a node at each depth, counted from the leaves
    total = [most[0]]
    pointer = [0]
    for level in range(1, depth + 1):
        pointer.append(file.offset_bytes + _bytes(most[0]) + (_bytes(total[level - 1]) if level > 1 else 0))
        most.append((node - 10 - pointer[level]) // (record + pointer[level]))
        total.append((most[level] + 1) * total[level - 1] + most[level])
    seen: set[int] = set()

    def walk(where: int | None, count: int, level: int) -> Iterator[bytes]:
        if count == 0 and level == 0:
            return
        if where is None or where in seen or count > most[level]:
            file.broken("a tree of links that leads to itself, or whose nodes are too full")
        seen.add(where)
        cursor = file.block(where, node, b"BTIN" if level else b"BTLF")
        cursor.take(2)
        found = [cursor.take(record) for _ in range(count)]
        if not level:
            yield from found
            return
        for index in range(count + 1):
            child, inside = cursor.address(), cursor.number(_bytes(most[0]))
            if level > 1:
                cursor.take(_bytes(total[level - 1]))
            yield from walk(child, inside, level - 1)
            if index < count:
                yield found[index]

    if root is not None:
        yield from walk(root, count, depth)


def _bytes(number: int) -> int:
    return (number.bit_length() + 7) // 8


class Texts:
    """Texts of any length, which attributes refer to by (collection, number). Each is bounded, and so are all together."""

    MOST = 1 << 16
    TOGETHER = 32 << 20

    def __init__(self, file: Blocks) -> None:
        self.file = file
        self.left = self.TOGETHER
        self._collections: dict[int, dict[int, bytes]] = {}

    def read(self, address: int | None, number: int, length: int) -> bytes:
        if address is None or length == 0:
            return b""
        if address not in self._collections:
            self._collections[address] = self._collection(address)
        found = self._collections[address].get(number, b"")[:length]
        self.left -= len(found) + 64
        if len(found) > self.MOST or self.left < 0:
            self.file.broken(f"its lists of names take more than {self.TOGETHER:,} bytes")
        return found

    def _collection(self, address: int) -> dict[int, bytes]:
        file = self.file
        head = file.block(address, 8 + file.length_bytes, b"GCOL")
        head.take(4)
        nbytes = head.length()
        cursor = file.block(address, nbytes)
        cursor.at = head.at
        found: dict[int, bytes] = {}
        while cursor.left >= 8 + file.length_bytes:
            number = cursor.number(2)
            cursor.take(6)
            size = cursor.length()
            if number == 0:
                break
            found[number] = cursor.take(size)
            cursor.take(min(-size % 8, cursor.left))
        return found
