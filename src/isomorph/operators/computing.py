"""The kernels of neg, add, mul, exp, log and sum, tile by tile.

f32 and f64 add and multiply as they are; the narrower dtypes are computed in f64 and rounded once more, which for one of
+ - * / gives the number that one rounding gives (53 bits are more than twice as many as theirs, and two).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from isomorph.operators.base import TILE, ElementError
from isomorph.operators.casting import convert, largest_shown, to_f64
from isomorph.operators.numbers import FLOATS, PARTS, integer_range, shown
from isomorph.tensors import DTYPES, DType

Array = np.ndarray[Any, Any]
F64 = DTYPES["f64"]
BINARY = {"add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide}


def _parts(dtype: DType) -> tuple[DType, int]:
    """The dtype of the parts of an element, and how many there are."""
    return (DTYPES[PARTS[dtype.name]], 2) if dtype.name in PARTS else (dtype, 1)


def negate(array: Array, dtype: DType, out: Array | None) -> Array:
    """-x, as bits: the sign turned; of integers, two's complement, and an ElementError for the one number that has no negative."""
    flat = np.ascontiguousarray(array).reshape(-1)
    out = np.empty(array.shape, dtype.bits) if out is None else out
    part, _ = _parts(dtype)
    bits, made = flat.view(part.bits), out.reshape(-1).view(part.bits)
    sign = bits.dtype.type(1 << (8 * part.nbytes - 1))
    if part.is_float:
        np.bitwise_xor(bits, sign, out=made)
        return out
    least = bits == sign
    if least.any():
        index = int(np.argmax(least))
        raise ElementError(index, f"-({shown(int(sign), part)}) overflows {dtype} (`neg`)")
    np.negative(bits, out=made)
    return out


def compute(kind: str, array: Array, dtype: DType, number: int | None, text: str, out: Array | None) -> Array:
    """`kind` is a name in BINARY (with the bits of the number), `exp` or `log`. Bits of `dtype`, in the array's shape."""
    flat = np.ascontiguousarray(array).reshape(-1)
    out = np.empty(array.shape, dtype.bits) if out is None else out
    part, count = _parts(dtype)
    bits, made = flat.view(part.bits), out.reshape(-1).view(part.bits)
    if count == 2 and kind in ("add", "subtract"):
        made[1::2] = bits[1::2]
        made[0::2] = compute(kind, bits[0::2], part, number, text, None)
        return out
    for start in range(0, bits.size, TILE):
        tile, result = bits[start : start + TILE], made[start : start + TILE]
        try:
            _compute_tile(kind, tile, part, number, text, result)
        except ElementError as error:
            raise ElementError((start + error.index) // count, error.problem, error.hint) from None
    return out


@np.errstate(all="ignore")
def _compute_tile(kind: str, bits: Array, dtype: DType, number: int | None, text: str, out: Array) -> None:
    native = dtype.name == "f64" or (dtype.name == "f32" and kind in BINARY)
    values = bits.view(dtype.numpy) if native else to_f64(bits, dtype)
    if kind in BINARY:
        other = np.array([number], dtype.bits)
        found = BINARY[kind](values, other.view(dtype.numpy) if native else to_f64(other, dtype))
    else:
        found = np.exp(values) if kind == "exp" else np.log(values)
    _store(found, values, bits, dtype, kind, text, out, native)


def _store(
    found: Array, values: Array, bits: Array, dtype: DType, kind: str, text: str, out: Array, native: bool
) -> None:
    """Round `found` into `out`; NaN elements stay as they were; a NaN or an overflow that was made is an ElementError."""
    wrong = None
    if native:
        out[...] = np.ascontiguousarray(found).view(dtype.bits)
    else:
        wrong = convert(np.ascontiguousarray(found).view(np.uint64), F64, dtype, out, False)
    if wrong is None and bool(np.isfinite(found).all()):
        return
    nan = np.isnan(values)
    out[nan] = bits[nan]
    made_nan = np.isnan(found) & ~nan
    if made_nan.any():
        index = int(np.argmax(made_nan))
        raise ElementError(index, f"`{text}` of {shown(int(bits[index]), dtype)} is no number")
    overflow = np.isinf(found) & np.isfinite(values) if kind != "log" else np.zeros(found.shape, np.bool_)
    if wrong is not None:
        overflow |= wrong & ~nan
    if overflow.any():
        index = int(np.argmax(overflow))
        raise ElementError(
            index,
            f"`{text}` of {shown(int(bits[index]), dtype)} overflows {dtype}, whose largest number is {largest_shown(dtype)}",
        )


def add_arrays(left: Array, right: Array, dtype: DType) -> Array:
    """left + right, element by element, rounded once in `dtype`: what `sum` does. Integers that overflow are an ElementError.

    A NaN stays the NaN it was (the left one, where both are). Bits of `dtype`, in the shape of `left`.
    """
    out = np.empty(left.shape, dtype.bits)
    part, count = _parts(dtype)
    first = np.ascontiguousarray(left).reshape(-1).view(part.bits)
    second = np.ascontiguousarray(right).reshape(-1).view(part.bits)
    made = out.reshape(-1).view(part.bits)
    for start in range(0, first.size, TILE):
        tiles = first[start : start + TILE], second[start : start + TILE], made[start : start + TILE]
        try:
            (_add_floats if part.is_float else _add_integers)(*tiles, part)
        except ElementError as error:
            raise ElementError((start + error.index) // count, error.problem) from None
    return out


def _add_integers(first: Array, second: Array, out: Array, dtype: DType) -> None:
    np.add(first, second, out=out)
    a, b, c = (bits.view(dtype.numpy) for bits in (first, second, out))
    wrong = ((a < 0) == (b < 0)) & ((a < 0) != (c < 0)) if dtype.kind == "signed" else c < a
    if wrong.any():
        index = int(np.argmax(wrong))
        total = f"{int(a[index])} + {int(b[index])}"
        raise ElementError(
            index, f"{total} overflows {dtype}, whose largest number is {integer_range(dtype)[1]} (`sum`)"
        )


@np.errstate(all="ignore")
def _add_floats(first: Array, second: Array, out: Array, dtype: DType) -> None:
    native = dtype.nbytes >= 4
    a = first.view(dtype.numpy) if native else to_f64(first, dtype)
    b = second.view(dtype.numpy) if native else to_f64(second, dtype)
    found = np.add(a, b)
    wrong = None
    if native:
        out[...] = found.view(dtype.bits)
    else:
        wrong = convert(found.view(np.uint64), F64, dtype, out, False)
    if wrong is None and bool(np.isfinite(found).all()):
        return
    nan_a, nan_b = np.isnan(a), np.isnan(b)
    out[nan_b] = second[nan_b]
    out[nan_a] = first[nan_a]
    refused = np.isnan(found) & ~nan_a & ~nan_b
    refused |= np.isinf(found) & np.isfinite(a) & np.isfinite(b)
    if wrong is not None:
        refused |= wrong & ~nan_a & ~nan_b
    if refused.any():
        index = int(np.argmax(refused))
        total = f"{shown(int(first[index]), dtype)} + {shown(int(second[index]), dtype)}"
        verdict = "is no number" if np.isnan(found[index]) else f"overflows {dtype}"
        raise ElementError(index, f"{total} {verdict} (`sum`)")


__all__ = ["FLOATS", "add_arrays", "compute", "negate"]
