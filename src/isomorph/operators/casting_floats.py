"""Floating dtypes to floating dtypes: bits to bits, each number rounded once (see casting.py for how).

A function that gives a mask says where it cannot be done; None where nothing is wrong.
"""

from __future__ import annotations

import math
import threading
from functools import cache
from typing import Any

import numpy as np

from isomorph.operators.base import TILE, Changes
from isomorph.operators.numbers import FLOATS, first_overflow
from isomorph.tensors import DTYPES, DType

Array = np.ndarray[Any, Any]
F32, BF16 = DTYPES["f32"], DTYPES["bf16"]


class _Scratch(threading.local):
    """Each thread's own space for a tile: fresh memory for every step costs as much as the step."""

    def __init__(self) -> None:
        self.words = np.empty(TILE, np.uint32)
        self.flags = np.empty(TILE, np.bool_)


_scratch = _Scratch()


def f32_to_bf16(bits: Array, out: Array, changes: Changes | None) -> bool:
    """The commonest cast, in as few steps as there are; False, and nothing done, where a number is too large, infinite or NaN.

    Half a unit is added and the rest cut off: right but for ties, which then lose their last bit. Changes are counted, and bounded
    by half a unit in the last place of the largest number.
    """
    words, flags = _scratch.words[: bits.size], _scratch.flags[: bits.size]
    np.bitwise_and(bits, np.uint32(0x7FFFFFFF), out=words)
    top = int(words.max(initial=0))
    if top >= first_overflow(F32, BF16):
        return False
    np.bitwise_and(bits, np.uint32(0xFFFF), out=words)
    if changes is not None:
        changed = int(np.count_nonzero(words))
        changes.elements += bits.size
        changes.changed += changed
        if changed:
            changes.largest = max(changes.largest, math.ldexp(1.0, max(top >> 23, 1) - 127 - 8))
    np.equal(words, np.uint32(0x8000), out=flags)
    np.add(bits, np.uint32(0x8000), out=words)
    np.copyto(out, words.view(np.uint16)[1::2])
    if flags.any():
        out[np.flatnonzero(flags)] &= np.uint16(0xFFFE)
    return True


def float_to_float(bits: Array, source: DType, target: DType, out: Array, saturate: bool) -> Array | None:
    if source.nbytes <= 2 and (source.name, target.name) != ("bf16", "f32"):
        np.take(_table(source, target), bits, out=out, mode="clip")
        return None if saturate else _overflows(bits, source, target)
    if source.name == "bf16":
        np.left_shift(bits, np.uint32(16), out=out, dtype=np.uint32, casting="unsafe")
        return None
    _fast(bits, source, target, out)
    layout = FLOATS[source.name]
    least = min(first_overflow(source, target), layout.infinity)
    highest = int((bits & bits.dtype.type(layout.sign_bit - 1)).max()) if bits.size else 0
    if highest < least:
        return None
    _mend(bits, source, target, out)
    return None if saturate else _overflows(bits, source, target)


def _fast(bits: Array, source: DType, target: DType, out: Array) -> None:
    """f32 or f64 to any floating dtype, right for every number that does not overflow."""
    match source.name, target.name:
        case "f32", "bf16":
            rounded = np.right_shift(bits, np.uint32(16))
            rounded &= np.uint32(1)
            rounded += bits
            rounded += np.uint32(0x7FFF)
            np.right_shift(rounded, np.uint32(16), out=out, casting="unsafe")
        case "f32", _ if target.nbytes == 1:
            np.take(_table(BF16, target), _odd_bf16(bits), out=out, mode="clip")
        case "f64", ("bf16" | "f8e4m3" | "f8e5m2"):
            _fast(_odd_f32(bits), F32, target, out)
        case _:
            out[...] = bits.view(source.numpy).astype(target.numpy).view(target.bits)


def _odd_bf16(bits: Array) -> Array:
    """f32 bits -> their leading 16, the last one set where anything was cut."""
    sticky = (bits & np.uint32(0xFFFF)) != 0
    leading = np.right_shift(bits, np.uint32(16)).astype(np.uint16)
    leading |= sticky
    return leading


def _odd_f32(bits: Array) -> Array:
    """f64 bits -> f32 bits, rounded to odd; beyond the largest f32 that one (with an odd fraction), infinity and NaN stay."""
    values = bits.view(np.float64)
    near = values.astype(np.float32)
    wide = near.astype(np.float64)
    found = near.view(np.uint32).copy()
    cut = wide != values
    cut &= ~np.isnan(values)
    found -= cut & (np.abs(wide) > np.abs(values))
    found |= cut
    return found


def _overflows(bits: Array, source: DType, target: DType) -> Array | None:
    """Where a finite number, or an infinity that the target lacks, overflows."""
    layout, made = FLOATS[source.name], FLOATS[target.name]
    least = first_overflow(source, target)
    end = layout.infinity
    if not layout.has_infinity or made.has_infinity:
        end -= layout.has_infinity
    if least > end:
        return None
    kind = bits.dtype.type
    rest = bits & kind(layout.sign_bit - 1)
    wrong = rest >= kind(least)
    wrong &= rest <= kind(end)
    return wrong if wrong.any() else None


def _mend(bits: Array, source: DType, target: DType, out: Array) -> None:
    """Put right what `_fast` does not promise: numbers that overflow, infinities, NaN."""
    layout, made = FLOATS[source.name], FLOATS[target.name]
    kind = bits.dtype.type
    special = np.flatnonzero(
        (bits & kind(layout.sign_bit - 1)) >= kind(min(first_overflow(source, target), layout.infinity))
    )
    some = bits[special].astype(np.uint64)
    rest = some & np.uint64(layout.sign_bit - 1)
    sign = np.where(some & np.uint64(layout.sign_bit), np.uint64(made.sign_bit), np.uint64(0))
    found = np.full(rest.shape, made.largest, np.uint64)
    if layout.has_infinity:
        found[rest == layout.infinity] = made.infinity
    nan = rest > layout.infinity
    found[nan] = _nan(rest[nan], source, target)
    out[special] = (found | sign).astype(out.dtype)


def _nan(rest: Array, source: DType, target: DType) -> Array:
    """The magnitude bits of NaNs, as u64."""
    layout, made = FLOATS[source.name], FLOATS[target.name]
    if not made.has_infinity:
        return np.full(rest.shape, made.infinity + 1, np.uint64)
    if not layout.has_infinity:
        return np.full(rest.shape, made.infinity | made.quiet, np.uint64)
    payload = rest & np.uint64((1 << layout.fraction_bits) - 1)
    shift = made.fraction_bits - layout.fraction_bits
    payload = payload << np.uint64(shift) if shift >= 0 else payload >> np.uint64(-shift)
    payload[payload == 0] = made.quiet
    return payload | np.uint64(made.infinity)


@cache
def _table(source: DType, target: DType) -> Array:
    """Every pattern of an 8 or 16 bit float in `target`, what overflows as its largest number."""
    layout, made = FLOATS[source.name], FLOATS[target.name]
    patterns = np.arange(1 << layout.nbits, dtype=np.uint64)
    rest = patterns & np.uint64(layout.sign_bit - 1)
    fraction = (rest & np.uint64((1 << layout.fraction_bits) - 1)).astype(np.float64)
    exponent = (rest >> np.uint64(layout.fraction_bits)).astype(np.int64)
    fraction += np.where(exponent > 0, float(1 << layout.fraction_bits), 0.0)
    values = np.ldexp(fraction, np.maximum(exponent, 1) - layout.bias - layout.fraction_bits)
    leading = np.where(values > 0, np.frexp(values)[1] - 1, 1 - made.bias)
    leading = np.maximum(leading, 1 - made.bias).astype(np.int64)
    counts = np.rint(np.ldexp(values, made.fraction_bits - leading)).astype(np.int64)  # both exact but for the rounding
    found = np.minimum(counts + ((leading + made.bias - 1) << made.fraction_bits), made.largest).astype(np.uint64)
    if layout.has_infinity:
        found[rest == layout.infinity] = made.infinity
    nan = rest > layout.infinity
    found[nan] = _nan(rest[nan], source, target)
    found[patterns >= layout.sign_bit] |= np.uint64(made.sign_bit)
    out: Array = found.astype(target.bits)
    out.flags.writeable = False
    return out
