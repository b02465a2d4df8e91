"""TensorFlow's checkpoints (`Saver`, `tf.train.Checkpoint`, the variables of a SavedModel): an index beside shards of data.

    model.ckpt-7.index                  key -> BundleEntryProto: dtype, shape, shard, offset, size, CRC-32C, slices
    model.ckpt-7.data-00000-of-00002    the bytes, row-major

Names are the keys as they are saved: `layer/kernel`, or in an object-based checkpoint `layer/kernel/.ATTRIBUTES/VARIABLE_VALUE`.
A partitioned variable has slices, each with an entry of its own (the key says which box it is): tiles. Texts, and the graph of
objects, are leaves. The index's own checksums are checked at once, those of the tensors when what was carried is verified.

Source: tensorflow/core/protobuf/tensor_bundle.proto, core/util/tensor_bundle, core/util/saved_tensor_slice_util.cc,
core/lib/strings/ordered_code.cc.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from isomorph.errors import FormatError, printable
from isomorph.formats.base import Contents, Location, Tile
from isomorph.formats.links import require_beside
from isomorph.formats.protobuf import BYTES, FIXED32, VARINT, Field, Wire
from isomorph.formats.shelf import open_all
from isomorph.formats.source import Source
from isomorph.formats.tf.table import MAGIC, SAVE_AGAIN, Table
from isomorph.formats.zip.archive import Member
from isomorph.tensors import DTYPES, OPAQUE_DTYPES, TensorSpec

SUFFIX = ".index"
MOST_SHARDS = 10_000
MOST_DIMS = 64

DTYPE_OF = {
    1: "f32", 2: "f64", 3: "i32", 4: "u8", 5: "i16", 6: "i8", 8: "c64", 9: "i64", 10: "bool", 14: "bf16", 17: "u16", 18: "c128",
    19: "f16", 22: "u32", 23: "u64", 24: "f8e5m2", 25: "f8e4m3", 26: "f8e4m3fnuz", 28: "f8e5m2fnuz",
}  # fmt: skip
"""tensorflow/core/framework/types.proto."""

FIRST_FORMAT = "a checkpoint of TensorFlow's first format (V1, which `Saver` wrote before 2017), which is not read"

NO_NUMBERS = {7: "text", 20: "a resource", 21: "a variant"}


class _Entry(NamedTuple):
    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    nbytes: int
    crc: int
    slices: tuple[tuple[tuple[int, int], ...], ...]
    """Of a partitioned variable: for each slice (start, length) along each axis; length -1 is the whole axis."""


def looks_like(source: Source, head: bytes) -> bool:
    """True for a LevelDB table whose first key is empty, as that of the header is."""
    return head[:2] == b"\0\0" and source.size > 48 and source.read(source.size - len(MAGIC), len(MAGIC)) == MAGIC


def index_of(path: Path) -> Path | None:
    """The index of a checkpoint that is named as TensorFlow names it, without a suffix."""
    index = path.with_name(path.name + SUFFIX)
    return index if not os.path.lexists(path) and os.path.isfile(index) else None  # noqa: PTH113  (False where one may not look)


def read(source: Source) -> tuple[Contents, list[Source]]:
    """What an index says, and the opened shards. FormatError when it is broken, a shard is missing, or a dtype is not known."""
    path = source.path
    table = Table(source)
    wire = Wire(source, "index of a TensorFlow checkpoint")
    shards, big = 0, False
    entries: dict[bytes, _Entry] = {}
    for key, begin, end in table.entries():
        if key == b"":
            shards, big = _header(wire, begin, end)
        else:
            entries[key] = _entry(wire, begin, end)
    if not shards:
        raise table.broken("it has no header that says how many shards there are")
    stem = path.name.removesuffix(SUFFIX)
    names = [f"{stem}.data-{number:05d}-of-{shards:05d}" for number in range(shards)]
    sources = _open(path, names, {entry.shard for entry in entries.values() if entry.nbytes})
    try:
        contents = _contents(path, sources, entries, big)
        source.close()
    except BaseException:
        for opened in sources:
            opened.close()
        raise
    return contents, sources


def _header(wire: Wire, begin: int, end: int) -> tuple[int, bool]:
    shards, big = 0, False
    for field in wire.fields(begin, end):
        if field.number == 1 and field.wire == BYTES:
            raise FormatError(wire.source.path, FIRST_FORMAT, SAVE_AGAIN)
        if field.number == 1:
            shards = wire.signed(field)
        elif field.number == 2:
            big = wire.signed(field) == 1
    if not 0 < shards <= MOST_SHARDS:
        wire.broken(f"{shards:,} shards; 1 to {MOST_SHARDS:,} are read", begin)
    return shards, big


def _entry(wire: Wire, begin: int, end: int) -> _Entry:
    dtype = shard = offset = nbytes = crc = 0
    shape: tuple[int, ...] = ()
    slices = []
    for field in wire.fields(begin, end):
        if field.number == 1:
            dtype = wire.signed(field)
        elif field.number == 2:
            shape = _shape(wire, field)
        elif field.number == 3:
            shard = wire.signed(field)
        elif field.number == 4:
            offset = wire.signed(field)
        elif field.number == 5:
            nbytes = wire.signed(field)
        elif field.number == 6:
            wire.require(field, FIXED32)
            crc = int.from_bytes(wire.bytes(field.begin, field.end), "little")
        elif field.number == 7:
            slices.append(_slice(wire, field))
    if min(shard, offset, nbytes) < 0:
        wire.broken("a tensor at a negative place", begin)
    return _Entry(dtype, shape, shard, offset, nbytes, crc, tuple(slices))


def _shape(wire: Wire, field: Field) -> tuple[int, ...]:
    wire.require(field, BYTES)
    shape: list[int] = []
    for dim in wire.fields(field.begin, field.end):
        if dim.number == 2:
            wire.require(dim, BYTES)
            size = [wire.signed(part) for part in wire.fields(dim.begin, dim.end) if part.number == 1]
            shape.append(size[-1] if size else 0)
        elif dim.number == 3 and dim.value:
            wire.broken("a tensor of unknown rank", field.begin)
    if len(shape) > MOST_DIMS or min(shape, default=0) < 0:
        wire.broken("a shape that is none", field.begin)
    return tuple(shape)


def _slice(wire: Wire, field: Field) -> tuple[tuple[int, int], ...]:
    """(start, length) along each axis; a length that is not said is -1, the whole axis."""
    wire.require(field, BYTES)
    found = []
    for extent in wire.fields(field.begin, field.end):
        wire.require(extent, BYTES)
        start, length = 0, -1
        for part in wire.fields(extent.begin, extent.end):
            wire.require(part, VARINT)
            start, length = (wire.signed(part), length) if part.number == 1 else (start, wire.signed(part))
        found.append((start, length))
        if len(found) > MOST_DIMS or start < 0 or length < -1:
            wire.broken("a slice that is none", field.begin)
    return tuple(found)


def _open(path: Path, names: list[str], used: set[int]) -> list[Source]:
    beyond = [number for number in used if number >= len(names)]
    if beyond:
        raise FormatError(path, f"a tensor lies in shard {beyond[0]:,}; there are {len(names):,}")
    require_beside(path, names, f"its {len(names):,} shards")
    kept = [
        name for number, name in enumerate(names) if number in used
    ]  # a shard may be empty, and then has no bytes to read
    return open_all(path.parent, kept)


def _contents(path: Path, sources: list[Source], entries: Mapping[bytes, _Entry], big: bool) -> Contents:
    numbers = sorted({entry.shard for entry in entries.values() if entry.nbytes})
    file_of = {shard: file for file, shard in enumerate(numbers)}
    summed: dict[int, list[Member]] = {}
    tensors: dict[str, TensorSpec] = {}
    locations: dict[str, Location] = {}
    leaves: dict[str, str] = {}
    unknown: list[str] = []
    slices: set[bytes] = set()

    def place(name: str, entry: _Entry, spec: TensorSpec) -> Location:
        if entry.nbytes != spec.nbytes:
            raise FormatError(
                path, f"tensor `{printable(name)}` {spec} takes {spec.nbytes:,} bytes, its index says {entry.nbytes:,}"
            )
        if not entry.nbytes:
            return Location(0, 0)
        file = file_of[entry.shard]
        member = Member(name, entry.offset, entry.nbytes, entry.nbytes, entry.crc, False, entry.offset, False)
        summed.setdefault(file, []).append(member)
        return Location(file, entry.offset, None, "big" if big and spec.dtype.nbytes > 1 else None)

    for key, entry in entries.items():
        if key.startswith(b"\0"):  # a slice: it is looked up by the variable that it is of
            continue
        try:
            name = key.decode()
        except UnicodeDecodeError:
            raise FormatError(path, f"the name of a tensor is not UTF-8: {key[:40]!r}") from None
        if entry.dtype in NO_NUMBERS:
            leaves[name] = f"{NO_NUMBERS[entry.dtype]} {list(entry.shape)}"
            continue
        if entry.dtype not in DTYPE_OF:
            unknown.append(f"`{printable(name)}` (type {entry.dtype})")
            continue
        element = DTYPE_OF[entry.dtype]
        kind = DTYPES.get(element) or OPAQUE_DTYPES[element]
        tensors[name] = spec = TensorSpec(kind, entry.shape)
        if not entry.slices:
            locations[name] = place(name, entry, spec)
            continue
        if len(set(entry.slices)) != len(entry.slices):
            raise FormatError(path, f"tensor `{printable(name)}`: its index lists one slice of it twice")
        tiles = []
        for extents in entry.slices:
            inner = slice_key(key, extents)
            part = entries.get(inner)
            if part is None or len(extents) != len(entry.shape) or part.dtype != entry.dtype:
                raise FormatError(path, f"tensor `{printable(name)}`: its slice {_shown(extents)} is not in the index")
            slices.add(inner)
            start = tuple(at for at, _ in extents)
            shape = tuple(
                size if length < 0 else length for (_, length), size in zip(extents, entry.shape, strict=True)
            )
            tiles.append(Tile(start, shape, place(name, part, TensorSpec(kind, shape))))
        locations[name] = Location(0, 0, tiles=tuple(tiles))
    if unknown:
        raise FormatError(
            path,
            f"{len(unknown):,} tensors have a dtype that is not read: {', '.join(unknown[:8])}",
            "Save without them",
        )
    notes = []
    left = sum(key.startswith(b"\0") for key in entries) - len(slices)
    if left:
        notes.append(f"{left:,} slices in the index belong to no variable")
    partitioned = sum(bool(where.tiles) for where in locations.values())
    if partitioned:
        notes.append(f"{partitioned:,} variables are put together from their partitions")
    for file, members in summed.items():
        sources[file].castagnoli = tuple(members)
    if not sources:
        raise FormatError(path, "a TensorFlow checkpoint without a tensor")
    return Contents(
        tuple(opened.path for opened in sources),
        tensors,
        locations,
        leaves=leaves,
        notes=tuple(notes),
        format="tf_checkpoint",
    )


def _shown(extents: tuple[tuple[int, int], ...]) -> str:
    return ":".join("-" if length < 0 else f"{start},{length}" for start, length in extents)


def slice_key(name: bytes, extents: tuple[tuple[int, int], ...]) -> bytes:
    """The key of a slice's entry: 0, name, rank, start and length of each axis, in the order-preserving code."""
    text = b"\xff\0".join(part.replace(b"\0", b"\0\xff") for part in name.split(b"\xff"))
    parts = [b"\0", text, b"\0\1", _number(len(extents))]
    for start, length in extents:
        parts += [_signed(start), _signed(length)]
    return b"".join(parts)


def _number(value: int) -> bytes:
    """A length, and so many bytes, the most significant first; none for 0."""
    nbytes = (value.bit_length() + 7) // 8
    return bytes([nbytes]) + value.to_bytes(nbytes, "big")


def _signed(value: int) -> bytes:
    """A sign bit that is set for numbers from 0, as many bits as there are bytes beyond the first, then the number.

    >>> _signed(0).hex(), _signed(-1).hex(), _signed(63).hex(), _signed(64).hex(), _signed(-65).hex()
    ('80', '7f', 'bf', 'c040', '3fbf')
    """
    nbytes = (value ^ (value >> 63)).bit_length() // 7 + 1
    header = ((1 << nbytes) - 1) << 7 * nbytes
    return ((value & ((1 << 8 * nbytes) - 1)) ^ header).to_bytes(nbytes, "big")


__all__ = ["index_of", "looks_like", "read", "slice_key"]
