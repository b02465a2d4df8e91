"""HDF5's types and ours, by what their bits are: byte order, exponent and mantissa, not by their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isomorph.formats.hdf5.messages import (
    ARRAY,
    BITS,
    COMPLEX,
    COMPOUND,
    ENUM,
    FLOAT,
    INTEGER,
    LISTS,
    OPAQUE,
    REFERENCE,
    STRING,
    TIME,
    Type,
)
from isomorph.tensors import DType, dtype

FLOATS: Mapping[tuple[int, ...], str] = {
    (2, 15, 10, 5, 0, 10, 15): "f16",
    (2, 15, 7, 8, 0, 7, 127): "bf16",
    (4, 31, 23, 8, 0, 23, 127): "f32",
    (8, 63, 52, 11, 0, 52, 1023): "f64",
}
"""(bytes, sign bit, exponent's bit, exponent's bits, mantissa's bit, mantissa's bits, bias)."""

WORDS = {
    TIME: "times", STRING: "text", BITS: "bits", COMPOUND: "records", REFERENCE: "references", ENUM: "named values",
    LISTS: "lists of different lengths", ARRAY: "arrays of arrays",
}  # fmt: skip


def dtype_of(stored: Type, said: str | None) -> tuple[DType | None, bool]:
    """(the dtype, True when it is big-endian); (None, False) for what is no number that we have. `said`: its `dtype` attribute."""
    name = _number(stored)
    if name is not None:
        return dtype(name), stored.is_big and stored.nbytes > 1
    size = stored.nbytes
    if (
        stored.kind == ENUM
        and size == 1
        and {(key, value) for key, value, _ in stored.members}
        == {
            (b"FALSE", 0),
            (b"TRUE", 1),
        }
    ):
        return dtype("bool"), False
    part: Type | None = None
    if stored.kind == COMPLEX:
        part = stored.base
    elif stored.kind == COMPOUND and len(stored.members) == 2:
        (first, begin, part), (second, half, other) = stored.members
        if (
            (first, second) not in ((b"r", b"i"), (b"real", b"imag"))
            or (begin, half) != (0, size // 2)
            or part != other
        ):
            part = None
    if part is not None and part.nbytes * 2 == size and _number(part) in ("f32", "f64"):
        return dtype("c64" if size == 8 else "c128"), part.is_big
    if stored.kind == OPAQUE and size == 2 and said == "bfloat16":  # Keras 3 marks bfloat16 so
        return dtype("bf16"), False
    return None, False


def _number(stored: Type) -> str | None:
    if stored.kind == FLOAT and stored.numbers[:2] == (0, 8 * stored.nbytes) and not stored.bits & 0x40:
        return FLOATS.get((stored.nbytes, stored.bits >> 8 & 0xFF, *stored.numbers[2:]))
    if stored.kind == INTEGER and stored.numbers == (0, 8 * stored.nbytes) and stored.nbytes in (1, 2, 4, 8):
        return ("i" if stored.bits & 8 else "u") + str(8 * stored.nbytes)
    return None


def kind_of(stored: Type) -> str | None:
    """What a type is that no tensor has, in words; None for numbers."""
    if stored.kind == OPAQUE:
        return f"pieces of {stored.nbytes:,} bytes without a type"
    if stored.kind == LISTS and stored.bits & 15 == 1:
        return WORDS[STRING]
    return WORDS.get(stored.kind)


def stored_type(kind: DType) -> Any:
    """h5py's type for a dtype, little-endian, as h5py writes it (bool and complex too); bfloat16 as the float it is."""
    from h5py import h5t

    if kind.name != "bf16":
        return h5t.py_create(kind.numpy, logical=True)
    made = h5t.IEEE_F16LE.copy()
    made.set_fields(15, 7, 8, 0, 7)
    made.set_ebias(127)
    return made
