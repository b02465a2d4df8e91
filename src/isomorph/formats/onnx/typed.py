"""Numbers that a TensorProto holds as numbers of the wire: float_data, int32_data and so on, packed or one field each.

Packed floats are the tensor's own bytes and are a range of the file. Integers are varints (a bf16 is an integer of 16 bits in
int32_data): they are decoded when they are read, by going over the message again (encoding `protobuf`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from isomorph.errors import FormatError
from isomorph.formats.base import Location
from isomorph.formats.protobuf import BYTES, FIXED32, FIXED64, LONGEST_VARINT, VARINT, Field, Wire, packed_varints
from isomorph.formats.source import Source
from isomorph.tensors import TensorSpec

TYPED: Mapping[int, tuple[str, int]] = {
    4: ("float_data", FIXED32),
    5: ("int32_data", VARINT),
    7: ("int64_data", VARINT),
    10: ("double_data", FIXED64),
    11: ("uint64_data", VARINT),
}
"""Field number -> its name, and the wire type of one number."""

FIXED = {FIXED32: 4, FIXED64: 8}
IN_FIELD = {
    **dict.fromkeys(("f32", "c64"), 4),
    **dict.fromkeys(("f64", "c128"), 10),
    "i64": 7,
    **dict.fromkeys(("u32", "u64"), 11),
}
"""dtype -> the field that holds it; all others are in int32_data."""

CHUNK = 1 << 20
MOST_ALONE = 1 << 14
"""Numbers, each a field of its own, that are decoded at a time."""


def where_typed(spec: TensorSpec, chunks: Mapping[int, Sequence[Field]], message: Field) -> Location:
    """Where the elements are, given the typed fields of the TensorProto `message`. ValueError says what does not fit."""
    number = IN_FIELD.get(spec.dtype.name, 5)
    name, one = TYPED[number]
    if set(chunks) != {number}:
        others = ", ".join(TYPED[other][0] for other in chunks if other != number)
        raise ValueError(f"{spec} is held in {name}, and it has {others}")
    parts = chunks[number]
    if any(part.wire not in (BYTES, one) for part in parts):
        raise ValueError(f"its {name} are not numbers of that kind")
    held = sum(part.end - part.begin for part in parts)
    if one in FIXED:
        if held != spec.nbytes:
            raise ValueError(f"{spec} takes {spec.nbytes:,} bytes, its {name} are {held:,}")
        if len(parts) == 1:
            return Location(0, parts[0].begin)
    # A number of the wire is one element; of packed elements it is one byte, however many bytes an item of ours has.
    width = spec.dtype.alignment
    count = spec.nbytes // width
    if one == VARINT and not count <= held <= LONGEST_VARINT * count:
        raise ValueError(f"{spec} has {count:,} elements, its {name} take {held:,} bytes")
    return Location(
        0,
        message.begin,
        encoding="protobuf",
        encoded_nbytes=message.end - message.begin,
        decoded_nbytes=spec.nbytes,
        inside=f"{number} {'bool' if spec.dtype.name == 'bool' else width}",
    )


def decoded(source: Source, where: Location) -> Iterator[bytes]:
    """The elements of the TensorProto at `where`, little-endian, a chunk at a time. FormatError for a number without an end."""
    wire = Wire(source, "ONNX")
    field, _, kind = where.inside.partition(" ")
    held = bytearray()  # numbers may be a field each: they are handed on many at a time
    for piece in _pieces(wire, where, int(field), kind):
        held += piece
        if len(held) >= CHUNK:
            yield bytes(held)
            held.clear()
    yield bytes(held)


def _pieces(wire: Wire, where: Location, number: int, kind: str) -> Iterator[bytes]:
    one = TYPED[number][1]
    alone: list[int] = []
    for found in wire.fields(where.byte_offset, where.byte_offset + where.encoded_nbytes):
        if found.number != number:
            continue
        if found.wire == VARINT:
            alone.append(found.value)
            if len(alone) == MOST_ALONE:
                yield _little(alone, kind)
                alone.clear()
            continue
        yield _little(alone, kind)
        alone.clear()
        if one in FIXED:
            yield from (wire.bytes(at, min(at + CHUNK, found.end)) for at in range(found.begin, found.end, CHUNK))
            continue
        at = found.begin
        while at < found.end:
            data = wire.bytes(at, min(at + CHUNK, found.end))
            try:
                values, taken = packed_varints(data)
            except ValueError as error:
                raise FormatError(wire.source.path, f"{TYPED[number][0]} at byte {at:,}: {error}") from None
            if not taken:
                raise FormatError(wire.source.path, f"{TYPED[number][0]} at byte {at:,}: truncated in a number")
            yield _little(values, kind)
            at += taken
    yield _little(alone, kind)


def _little(values: Any, kind: str) -> bytes:
    """64-bit numbers as little-endian bytes of so many each; `bool` is 1 where the lower 32 bits are not 0, as protobuf has it."""
    import numpy as np

    values = np.asarray(values, np.uint64)
    if kind == "bool":
        return bytes((values.astype(np.uint32) != 0).astype(np.uint8))
    return bytes(values.astype(f"<u{kind}"))
