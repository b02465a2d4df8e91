"""Zip archives laid out before a tensor is read: stored members, each tensor's CRC in the descriptor that follows it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from isomorph.errors import FormatError
from isomorph.formats.base import FileLayout, Literal, Sharing
from isomorph.tensors import TensorSpec

LIMIT = 0xFFFFFFFF
MOST_IN_SMALL = 0xFFFF
TIME, DATE = 0, 0x21  # 1980-01-01 00:00: the earliest a zip archive can say, so that equal tensors make equal files
UTF8, WITH_DESCRIPTOR = 0x800, 0x808
MOST_PADDING = 1 << 15
"""Bytes: the fields of a member's header hold twice as much."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One member: `data`, and after it, when `tensor` is a name, the `nbytes` bytes of that tensor.

    The first byte after `data` lies at a multiple of `align` (at most 16384) in the archive, or, where `residue` is given, at that
    residue modulo `align`; a field of padding in the member's header, as torch writes it, sees to that.
    """

    name: str
    data: bytes = b""
    tensor: str | None = None
    nbytes: int = 0
    align: int = 1
    residue: int = 0

    @property
    def payload_nbytes(self) -> int:
        return len(self.data) + (self.nbytes if self.tensor is not None else 0)


@dataclass(frozen=True, slots=True)
class _Placed:
    entry: Entry
    header_offset: int
    payload_offset: int

    @property
    def streams(self) -> bool:
        """True when the CRC is only known once the tensor has been read."""
        return self.entry.tensor is not None and self.entry.nbytes > 0

    @property
    def is_large(self) -> bool:
        return self.entry.payload_nbytes >= LIMIT

    @property
    def descriptor_offset(self) -> int:
        return self.payload_offset + self.entry.payload_nbytes

    @property
    def end(self) -> int:
        return self.descriptor_offset + (0 if not self.streams else 24 if self.is_large else 16)

    @property
    def flags(self) -> int:
        return WITH_DESCRIPTOR if self.streams else UTF8

    @property
    def version(self) -> int:
        return 45 if self.is_large or self.header_offset >= LIMIT else 20


def placed_at(tensor: str, spec: TensorSpec, align: int, sharing: Sharing | None) -> tuple[int, int]:
    """(align, residue) of a tensor's first byte: where its blocks can be shared with the source, else a multiple of `align`.

    A wish for a place that no element of its width may have is not granted, nor one that takes more padding than a header holds.
    """
    wish = None if sharing is None else sharing.wishes.get(tensor)
    if sharing is None or wish is None or sharing.block > MOST_PADDING or wish.residue % spec.dtype.alignment:
        return align, 0
    return sharing.block, wish.residue % sharing.block


def lay_out_zip(name: str, entries: Iterable[Entry]) -> FileLayout:
    """The archive of these members, in this order.

    `records` are the whole payloads that hold a tensor (`data` included): one CRC-32 each, in order, go to `trailer`.
    """
    placed: list[_Placed] = []
    literals: list[Literal] = []
    tensors: dict[str, int] = {}
    at = 0
    seen: set[str] = set()
    for entry in entries:
        if entry.name in seen:
            raise FormatError(name, f"two zip members would be called {entry.name}")
        seen.add(entry.name)
        one, header = _place(entry, at, name)
        placed.append(one)
        literals.append(Literal(at, header + entry.data))
        if entry.tensor is not None:
            tensors[entry.tensor] = one.payload_offset + len(entry.data)
        at = one.end
    streaming = [one for one in placed if one.streams]

    def descriptor(number: int, crc: int) -> Literal:
        return Literal(streaming[number].descriptor_offset, _descriptor(streaming[number], crc))

    def trailer(crcs: Sequence[int]) -> tuple[Literal, ...]:
        known = dict(zip((one.header_offset for one in streaming), crcs, strict=True))
        descriptors = [Literal(one.descriptor_offset, _descriptor(one, known[one.header_offset])) for one in streaming]
        tail = _directory(placed, [known.get(one.header_offset, zlib.crc32(one.entry.data)) for one in placed], at)
        return (*descriptors, Literal(at, tail))

    nbytes = at + len(_directory(placed, [0] * len(placed), at))
    records = tuple((one.payload_offset, one.entry.payload_nbytes) for one in streaming)
    return FileLayout(name, nbytes, tensors, tuple(literals), records, trailer, descriptor)


def _place(entry: Entry, at: int, archive: str) -> tuple[_Placed, bytes]:
    """The member whose local header begins at `at`, and that header."""
    raw_name = entry.name.encode()
    if len(raw_name) > 0xFFFF - 64:
        raise FormatError(archive, f"a name of {len(raw_name):,} bytes is too long for a zip archive")
    large = entry.payload_nbytes >= LIMIT
    extra = struct.pack("<2H2Q", 1, 16, 0, 0) if large else b""
    begin = at + 30 + len(raw_name) + len(extra) + len(entry.data)
    if (begin - entry.residue) % entry.align:
        padding = (entry.residue - begin - 4) % entry.align
        extra += struct.pack("<2s H", b"FB", padding) + b"Z" * padding
    one = _Placed(entry, at, at + 30 + len(raw_name) + len(extra))
    if one.streams:
        crc, sizes = 0, (LIMIT, LIMIT) if large else (0, 0)
    else:
        crc, sizes = zlib.crc32(entry.data), (len(entry.data), len(entry.data))
    header = struct.pack(
        "<4s5H3I2H", b"PK\3\4", one.version, one.flags, 0, TIME, DATE, crc, *sizes, len(raw_name), len(extra)
    )
    return one, header + raw_name + extra


def _descriptor(one: _Placed, crc: int) -> bytes:
    nbytes = one.entry.payload_nbytes
    return struct.pack("<4sI2Q" if one.is_large else "<4s3I", b"PK\7\x08", crc, nbytes, nbytes)


def _directory(placed: Sequence[_Placed], crcs: Sequence[int], begin: int) -> bytes:
    """The directory at the end, its zip64 records where numbers are too large, and the end of the archive."""
    parts: list[bytes] = []
    for one, crc in zip(placed, crcs, strict=True):
        raw_name, nbytes = one.entry.name.encode(), one.entry.payload_nbytes
        wide = [nbytes, nbytes] if one.is_large else []
        if one.header_offset >= LIMIT:
            wide.append(one.header_offset)
        extra = struct.pack(f"<2H{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
        size = LIMIT if one.is_large else nbytes
        parts.append(
            struct.pack(
                "<4s6H3I5H2I", b"PK\1\2", one.version, one.version, one.flags, 0, TIME, DATE, crc, size, size,
                len(raw_name), len(extra), 0, 0, 0, 0, min(one.header_offset, LIMIT),
            )
            + raw_name + extra
        )  # fmt: skip
    raw = b"".join(parts)
    count, tail = len(placed), b""
    if count >= MOST_IN_SMALL or len(raw) >= LIMIT or begin >= LIMIT:
        tail = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(raw), begin)
        tail += struct.pack("<4sIQI", b"PK\6\7", 0, begin + len(raw), 1)
    small = min(count, MOST_IN_SMALL)
    tail += struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, small, small, min(len(raw), LIMIT), min(begin, LIMIT), 0)
    return raw + tail
