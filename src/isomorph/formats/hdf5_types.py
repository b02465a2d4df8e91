"""HDF5's types and ours, by what their bits are: byte order, exponent and mantissa, not by their names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from isomorph.tensors import DType, dtype

FLOATS = {
    (2, 15, 10, 5, 0, 10, 15): "f16",
    (2, 15, 7, 8, 0, 7, 127): "bf16",
    (4, 31, 23, 8, 0, 23, 127): "f32",
    (8, 63, 52, 11, 0, 52, 1023): "f64",
}
"""(bytes, sign bit, exponent's bit, exponent's bits, mantissa's bit, mantissa's bits, bias)."""


def dtype_of(stored: Any, said: Callable[[], str | None]) -> tuple[DType | None, bool]:
    """(the dtype, True when it is big-endian); (None, False) for what is no number that we have. `said`: its `dtype` attribute."""
    from h5py import h5t

    kind, size = stored.get_class(), stored.get_size()
    if kind in (h5t.INTEGER, h5t.FLOAT):
        name = _number(stored, kind, size)
        return (dtype(name), stored.get_order() == h5t.ORDER_BE and size > 1) if name else (None, False)
    if kind == h5t.ENUM and size == 1 and stored.get_nmembers() == 2:
        members = {stored.get_member_name(index): stored.get_member_value(index) for index in range(2)}
        if members == {b"FALSE": 0, b"TRUE": 1}:
            return dtype("bool"), False
    if kind == h5t.COMPOUND and stored.get_nmembers() == 2 and size in (8, 16):
        names = (stored.get_member_name(0), stored.get_member_name(1))
        parts = [stored.get_member_type(index) for index in range(2)]
        offsets = (stored.get_member_offset(0), stored.get_member_offset(1))
        if names in ((b"r", b"i"), (b"real", b"imag")) and offsets == (0, size // 2) and parts[0] == parts[1]:
            name = _number(parts[0], parts[0].get_class(), size // 2)
            if name in ("f32", "f64"):
                return dtype("c64" if name == "f32" else "c128"), parts[0].get_order() == h5t.ORDER_BE
    if kind == h5t.OPAQUE and size == 2 and said() == "bfloat16":  # Keras 3 marks bfloat16 so
        return dtype("bf16"), False
    return None, False


def _number(stored: Any, kind: int, size: int) -> str | None:
    from h5py import h5t

    if stored.get_order() not in (h5t.ORDER_LE, h5t.ORDER_BE) and size > 1:
        return None
    if kind == h5t.FLOAT:
        return FLOATS.get((size, *stored.get_fields(), stored.get_ebias()))
    if kind != h5t.INTEGER or stored.get_precision() != 8 * size or stored.get_offset() or size not in (1, 2, 4, 8):
        return None
    return ("i" if stored.get_sign() == h5t.SGN_2 else "u") + str(8 * size)


def kind_of(stored: Any) -> str | None:
    """What a type is that no tensor has, in words; None for numbers."""
    from h5py import h5t

    kind = stored.get_class()
    if kind == h5t.STRING:
        return "text"
    if kind == h5t.OPAQUE:
        return f"pieces of {stored.get_size():,} bytes without a type"
    names = {
        h5t.COMPOUND: "records", h5t.VLEN: "lists of different lengths", h5t.REFERENCE: "references", h5t.ENUM: "named values",
        h5t.ARRAY: "arrays of arrays", h5t.TIME: "times", h5t.BITFIELD: "bits",
    }  # fmt: skip
    found: str | None = names.get(kind)
    return found


def stored_type(kind: DType) -> Any:
    """The HDF5 type of a dtype, little-endian, as h5py writes it (bool and complex too); bfloat16 as the float it is."""
    from h5py import h5t

    if kind.name != "bf16":
        return h5t.py_create(kind.numpy, logical=True)
    made = h5t.IEEE_F16LE.copy()
    made.set_fields(15, 7, 8, 0, 7)
    made.set_ebias(127)
    return made
