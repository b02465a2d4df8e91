"""What the messages of an HDF5 object say: its shape, its type, where its elements lie, its attributes."""

from __future__ import annotations

from typing import NamedTuple, cast

from isomorph.formats.hdf5.blocks import ATTRIBUTE, DATATYPE, Blocks, Cursor, Message
from isomorph.formats.hdf5.heap import Texts

INTEGER, FLOAT, TIME, STRING, BITS, OPAQUE, COMPOUND, REFERENCE, ENUM, LISTS, ARRAY, COMPLEX = range(12)
"""Classes of types."""

COMPACT, CONTIGUOUS, CHUNKED, VIRTUAL = range(4)
"""Classes of layouts."""

TYPE_DEPTH = 8


class Type(NamedTuple):
    """`numbers`: (offset and precision in bits, and for floats where exponent and mantissa are, and the bias)."""

    kind: int
    nbytes: int
    bits: int
    numbers: tuple[int, ...] = ()
    base: Type | None = None
    members: tuple[tuple[bytes, int, Type | None], ...] = ()
    """(name, offset or value, type) of a record's or an enumeration's members."""

    @property
    def is_big(self) -> bool:
        return bool(self.bits & 1)


class Layout(NamedTuple):
    """`address` is None when nothing was written. `nbytes` is what is stored, 0 when the message does not say."""

    kind: int
    address: int | None
    nbytes: int = 0
    chunk: tuple[int, ...] = ()
    data_at: int = 0


def shape_of(file: Blocks, data: bytes) -> tuple[int, ...] | None:
    """The sizes that a dataspace message says; None when it has no elements at all (an empty dataset)."""
    cursor = Cursor(file, data)
    version, rank, _ = cursor.number(1), cursor.number(1), cursor.number(1)
    if version == 1:
        cursor.take(5)
    elif version == 2:
        if cursor.number(1) == 2:
            return None
    else:
        file.broken("a shape of a version that is not known")
    return tuple(cursor.length() for _ in range(rank))


def type_of(file: Blocks, message: Message) -> Type:
    """The type that a datatype message says, or the named type of the file that it refers to."""
    passed: list[int] = []
    for _ in range(TYPE_DEPTH):
        if not message.is_shared:
            found_type = _type(Cursor(file, message.data), 0)
            file.types.update(dict.fromkeys(passed, found_type))
            return found_type
        cursor = Cursor(file, message.data)
        version, kind = cursor.number(1), cursor.number(1)
        if version == 1:
            cursor.take(6)
        elif version not in (2, 3) or (version == 3 and kind != 2):
            file.broken("a type that is kept elsewhere in a way that is not read")
        address = cursor.address()
        if address is None:
            file.broken("a type that is kept nowhere")
        if address in file.types:
            return cast(Type, file.types[address])
        passed.append(address)
        found = next((each for each in file.messages(address) if each.kind == DATATYPE), None)
        if found is None:
            file.broken(f"no type at byte {address:,}")
        message = found
    return file.broken("a type that refers to itself")


def _type(cursor: Cursor, depth: int) -> Type:
    file = cursor.file
    if depth > TYPE_DEPTH:
        file.broken(f"a type nested deeper than {TYPE_DEPTH}")
    head = cursor.number(1)
    kind, version = head & 15, head >> 4
    bits, nbytes = cursor.number(3), cursor.number(4)
    if kind in (INTEGER, BITS):
        return Type(kind, nbytes, bits, (cursor.number(2), cursor.number(2)))
    if kind == FLOAT:
        numbers = (cursor.number(2), cursor.number(2), *(cursor.number(1) for _ in range(4)), cursor.number(4))
        return Type(kind, nbytes, bits, numbers)
    if kind == COMPLEX:
        return Type(kind, nbytes, bits, base=_type(cursor, depth + 1))
    if kind == COMPOUND:
        return Type(kind, nbytes, bits, members=_members(cursor, version, bits & 0xFFFF, nbytes, depth))
    if kind == ENUM:
        base = _type(cursor, depth + 1)
        names = [_padded(cursor, version) for _ in range(bits & 0xFFFF)]
        return Type(
            kind, nbytes, bits, base=base, members=tuple((name, cursor.number(base.nbytes), None) for name in names)
        )
    if kind == LISTS:
        return Type(kind, nbytes, bits, base=_type(cursor, depth + 1))
    return Type(kind, nbytes, bits)


def _members(
    cursor: Cursor, version: int, count: int, nbytes: int, depth: int
) -> tuple[tuple[bytes, int, Type | None], ...]:
    if count > 8:  # no complex number; what else it is does not matter
        return ((b"", 0, None),) * count
    found: list[tuple[bytes, int, Type | None]] = []
    for _ in range(count):
        name = _padded(cursor, version)
        offset = cursor.number(4 if version < 3 else (nbytes.bit_length() + 7) // 8)
        if version == 1:
            cursor.take(28)
        member = _type(cursor, depth + 1)
        if member.kind not in (INTEGER, FLOAT):  # likewise: where the next one begins need not be known
            return ((b"", 0, None),) * count
        found.append((name, offset, member))
    return tuple(found)


def _padded(cursor: Cursor, version: int) -> bytes:
    begin = cursor.at
    name = cursor.text()
    if version < 3:
        cursor.take(-(cursor.at - begin) % 8)
    return name


def layout_of(file: Blocks, data: bytes) -> Layout:
    """Where a layout message says that the elements are."""
    cursor = Cursor(file, data)
    version = cursor.number(1)
    if version in (1, 2):
        rank, kind = cursor.number(1), cursor.number(1)
        cursor.take(5)
        address = cursor.address() if kind != COMPACT else None
        sizes = tuple(cursor.number(4) for _ in range(rank))
        if kind == COMPACT:
            return Layout(kind, 0, cursor.number(4), data_at=cursor.at)
        return Layout(kind, address, 0, sizes if kind == CHUNKED else ())
    if version not in (3, 4, 5):
        file.broken(f"a layout of version {version}")
    kind = cursor.number(1)
    if kind == COMPACT:
        return Layout(kind, 0, cursor.number(2), data_at=cursor.at)
    if kind == CONTIGUOUS:
        return Layout(kind, cursor.address(), cursor.length())
    if kind != CHUNKED:
        return Layout(kind, None)
    if version == 3:
        rank = cursor.number(1)
        address = cursor.address()
        return Layout(kind, address, 0, tuple(cursor.number(4) for _ in range(rank)))
    cursor.take(1)
    rank, width = cursor.number(1), cursor.number(1)
    chunk = tuple(cursor.number(width) for _ in range(rank))
    cursor.at = len(data) - file.offset_bytes  # behind what the kinds of index say about themselves
    return Layout(kind, cursor.address(), 0, chunk)


class Attribute(NamedTuple):
    name: bytes
    kind: Type
    shape: tuple[int, ...] | None
    data: bytes


def attributes_of(file: Blocks, messages: list[Message]) -> dict[bytes, Attribute]:
    """The attributes in an object's header. Those that newer files keep in a heap of their own are not looked for."""
    found: dict[bytes, Attribute] = {}
    for message in messages:
        if message.kind != ATTRIBUTE or message.is_shared:
            continue
        cursor = Cursor(file, message.data)
        version = cursor.number(1)
        flags = cursor.number(1)
        if version not in (1, 2, 3):
            file.broken(f"an attribute of version {version}")
        sizes = [cursor.number(2) for _ in range(3)]
        cursor.take(1 if version == 3 else 0)
        parts = [cursor.take(size + (-size % 8 if version == 1 else 0))[:size] for size in sizes]
        kind = type_of(file, Message(DATATYPE, parts[1], bool(version > 1 and flags & 1)))
        if not (version > 1 and flags & 2):
            name = parts[0].rstrip(b"\0")
            found[name] = Attribute(name, kind, shape_of(file, parts[2]), cursor.data[cursor.at :])
    return found


def texts_of(file: Blocks, texts: Texts, attribute: Attribute, most: int) -> list[bytes] | None:
    """The texts of an attribute, at most `most` of them; None when it holds something else, or more."""
    count = 1
    for size in attribute.shape if attribute.shape is not None else (0,):
        count *= size
    kind = attribute.kind
    if (
        count > most
        or (kind.kind == STRING and not kind.nbytes)
        or not (kind.kind == STRING or (kind.kind == LISTS and kind.bits & 15 == 1))
    ):
        return None
    cursor = Cursor(file, attribute.data)
    if kind.kind == STRING:
        return [cursor.take(kind.nbytes).rstrip(b"\0 ") for _ in range(count)]
    found = []
    for _ in range(count):
        length = cursor.number(4)
        found.append(texts.read(cursor.address(), cursor.number(4), length))
    return found
