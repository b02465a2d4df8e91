"""The cast kernels: bits of one dtype -> bits of another, tile by tile, each number rounded once.

    f32 -> bf16     integer steps                          f64 -> bf16, f8    to f32 by rounding to odd, then as f32
    f32 -> f8       the leading 16 bits, rounded to odd, looked up    8 and 16 bit sources    looked up
    f32 -> f16, f64 -> f32, f16    numpy                   integers           through f64, rounded to odd where it is too narrow

Rounding to odd (cut, then set the last bit where anything was cut) loses nothing that a second rounding, to at least two bits
fewer, needs: the result is that of one rounding.

NaN: sign and leading payload bits stay, aligned at the quiet bit; where nothing would stay, the quiet bit is set. `f8e4m3` has
one NaN of each sign: it widens to the quiet NaN without further payload, and every NaN becomes it. Widening a NaN and casting
back gives the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from isomorph.operators.base import TILE, Changes, ElementError
from isomorph.operators.casting_floats import f32_to_bf16, float_to_float
from isomorph.operators.numbers import FLOATS, PARTS, integer_range, shown, widens
from isomorph.tensors import DTYPES, DType

Array = np.ndarray[Any, Any]
F32, F64, BF16 = DTYPES["f32"], DTYPES["f64"], DTYPES["bf16"]


def cast(
    array: Array,
    source: DType,
    target: DType,
    *,
    rounding: bool,
    saturate: bool = False,
    out: Array | None = None,
    changes: Changes | None = None,
) -> Array:
    """The elements of `array` (bits or values of `source`, any layout) as `target.bits`, C-contiguous, in the same shape.

    Not `rounding`: every element is cast back, and one whose bits differ is an ElementError. `rounding`: a finite number beyond
    the target's largest is an ElementError, or with `saturate` becomes it; NaN to an integer is one always.
    """
    flat = np.ascontiguousarray(array).reshape(-1).view(source.bits)
    if out is None:
        out = np.empty(array.shape, target.bits)
    made = out.reshape(-1)
    if source == target:
        made[...] = flat
        return out
    if "complex" in (source.kind, target.kind):
        _complex(flat, source, target, made, rounding, saturate, changes)
        return out
    for start in range(0, flat.size, TILE):
        bits, result = flat[start : start + TILE], made[start : start + TILE]
        try:
            _tile(bits, source, target, result, rounding, saturate, changes)
        except ElementError as error:
            raise ElementError(start + error.index, error.problem, error.hint) from None
    return out


@np.errstate(all="ignore")
def _tile(
    bits: Array, source: DType, target: DType, out: Array, rounding: bool, saturate: bool, changes: Changes | None
) -> None:
    if source.kind == "bool" and bits.size and int(bits.max()) > 1:
        index = int(np.argmax(bits > 1))
        raise ElementError(index, f"the byte {int(bits[index])} is no bool ({source} -> {target})")
    if not rounding:
        if widens(source, target):
            convert(bits, source, target, out, True)
            return
        if (source.name, target.name) == ("f32", "bf16") and int(np.bitwise_or.reduce(bits)) & 0xFFFF == 0:
            np.right_shift(bits, np.uint32(16), out=out, casting="unsafe")
            return
        _exact(bits, source, target, out)
        return
    if (source.name, target.name) == ("f32", "bf16") and f32_to_bf16(bits, out, changes):
        return
    wrong = convert(bits, source, target, out, saturate)
    if wrong is not None:
        index = int(np.argmax(wrong))
        text = shown(int(bits[index]), source)
        if text.startswith(("nan", "-nan")):
            raise ElementError(index, f"NaN has no value in {target} (`{source} ~> {target}`)")
        raise ElementError(
            index,
            f"{text} overflows {target}, whose largest number is {largest_shown(target)} (`{source} ~> {target}`)",
            f"write `{source} ~> {target} saturate` to take the largest number instead",
        )
    if changes is not None:
        _count(bits, source, target, out, changes)


def largest_shown(dtype: DType) -> str:
    return shown(FLOATS[dtype.name].largest, dtype) if dtype.is_float else str(integer_range(dtype)[1])


def _exact(bits: Array, source: DType, target: DType, out: Array) -> None:
    """Cast and cast back; the first element whose bits differ is an error."""
    beyond = convert(bits, source, target, out, False)
    back = np.empty(bits.shape, source.bits)
    beyond_back = convert(out, target, source, back, False)
    differs = back != bits
    for mask in (beyond, beyond_back):
        if mask is not None:
            differs |= mask
    if differs.any():
        index = int(np.argmax(differs))
        raise ElementError(
            index,
            f"{shown(int(bits[index]), source)} is not exactly a {target} (`{source} -> {target}` does not round)",
            f"write `{source} ~> {target}` to round to nearest",
        )


def convert(bits: Array, source: DType, target: DType, out: Array, saturate: bool) -> Array | None:
    """Fill `out` with the elements cast and rounded. Returns where it cannot be done (a mask), or None where nothing is wrong.

    Numbers too large become the largest of the target; they are wrong unless `saturate`. NaN to an integer is wrong always.
    """
    if source == target:
        out[...] = bits
        return None
    if source.is_float and target.is_float:
        return float_to_float(bits, source, target, out, saturate)
    if source.is_float:
        return _float_to_integer(bits, source, target, out, saturate)
    if target.is_float:
        return _integer_to_float(bits, source, target, out, saturate)
    return _integer_to_integer(bits, source, target, out, saturate)


# ── integers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _float_to_integer(bits: Array, source: DType, target: DType, out: Array, saturate: bool) -> Array | None:
    values = np.rint(to_f64(bits, source))
    least, greatest = integer_range(target)
    low, beyond = float(least), float(greatest + 1)  # powers of two, or 0: exact
    inside = (values >= low) & (values < beyond)
    out[...] = np.where(inside, values, 0.0).astype(_integer(target)).view(target.bits)
    if inside.all():
        return None
    out[values >= beyond] = greatest & ((1 << 8 * target.nbytes) - 1)
    out[values < low] = least & ((1 << 8 * target.nbytes) - 1)
    wrong = np.isnan(values) if saturate else ~inside
    return wrong if wrong.any() else None


def _integer_to_float(bits: Array, source: DType, target: DType, out: Array, saturate: bool) -> Array | None:
    values = bits.view(_integer(source))
    if target.name == "f64":
        out[...] = values.astype(np.float64).view(np.uint64)
        return None
    wide = values.astype(np.float64)
    if source.nbytes == 8:
        huge = np.abs(wide) >= 2.0**53
        if huge.any():
            cut = values >> values.dtype.type(11)  # down: with the last bit set, the odd neighbour
            sticky = (values & values.dtype.type(0x7FF)) != 0
            wide[huge] = ((cut | sticky).astype(np.float64) * 2048.0)[huge]
    return convert(np.ascontiguousarray(wide).view(np.uint64), F64, target, out, saturate)


def _integer_to_integer(bits: Array, source: DType, target: DType, out: Array, saturate: bool) -> Array | None:
    values = bits.view(_integer(source))
    least, greatest = integer_range(target)
    low, high = integer_range(source)
    kind = values.dtype.type
    under = values < kind(least) if low < least else np.zeros(values.shape, np.bool_)
    over = values > kind(greatest) if high > greatest else np.zeros(values.shape, np.bool_)
    out[...] = values.astype(_integer(target)).view(target.bits)
    out[under] = least & ((1 << 8 * target.nbytes) - 1)
    out[over] = greatest & ((1 << 8 * target.nbytes) - 1)
    wrong = under | over
    return wrong if not saturate and wrong.any() else None


def _integer(dtype: DType) -> np.dtype[Any]:
    return np.dtype("u1") if dtype.kind == "bool" else dtype.numpy


# ── complex numbers, and what a cast changed ─────────────────────────────────────────────────────────────────────────


def _complex(
    flat: Array, source: DType, target: DType, out: Array, rounding: bool, saturate: bool, changes: Changes | None
) -> None:
    """Part by part; a real number becomes one with imaginary part +0, and back only (exact) where that is so."""
    part = DTYPES[PARTS[source.name]] if source.name in PARTS else source
    made = DTYPES[PARTS[target.name]] if target.name in PARTS else target
    sides = flat.view(part.bits).reshape(flat.size, -1)
    results = out.view(made.bits).reshape(flat.size, -1)
    if sides.shape[1] == 2 and results.shape[1] == 1:
        wrong = sides[:, 1] != 0
        if wrong.any():
            index = int(np.argmax(wrong))
            problem = f"the imaginary part of {shown(int.from_bytes(flat[index].tobytes(), 'little'), source)} is not 0"
            raise ElementError(index, f"{problem} (`{source} -> {target}`)")
        sides = sides[:, :1]
    if results.shape[1] == 2 and sides.shape[1] == 1:
        results[:, 1] = 0
    for column in range(sides.shape[1]):
        results[:, column] = cast(sides[:, column], part, made, rounding=rounding, saturate=saturate, changes=changes)


def to_f64(bits: Array, dtype: DType) -> Array:
    """Floating elements as f64, exact."""
    if dtype == F64:
        return bits.view(np.float64)
    wide = np.empty(bits.shape, F64.bits)
    convert(bits, dtype, F64, wide, True)
    return wide.view(np.float64)


def _count(bits: Array, source: DType, target: DType, out: Array, changes: Changes) -> None:
    """Add to `changes` how many numbers of this tile another number became, and by how much. NaN counts where it was made."""
    changes.elements += bits.size
    if widens(source, target):
        return
    if source.name == "f32" and target.is_float:
        back = np.empty(bits.shape, F32.bits)
        convert(out, target, F32, back, True)
        _tally(bits.view(np.float32), back.view(np.float32), changes)
    elif source.is_float and target.is_float:
        _tally(to_f64(bits, source), to_f64(out, target), changes)
    elif source.is_float:
        _tally(to_f64(bits, source), out.view(_integer(target)).astype(np.float64), changes)
    elif target.is_float:
        _tally(bits.view(_integer(source)).astype(np.longdouble), to_f64(out, target), changes)
    else:
        _tally(
            bits.view(_integer(source)).astype(np.longdouble),
            out.view(_integer(target)).astype(np.longdouble),
            changes,
        )


def _tally(before: Array, after: Array, changes: Changes) -> None:
    step = np.subtract(before, after)
    np.abs(step, out=step)
    largest = step.max()
    if not np.isfinite(largest):  # NaN - NaN, inf - inf: unchanged; inf - largest: changed, by no finite amount
        changed = (before != after) & ~(np.isnan(before) & np.isnan(after))
        changes.changed += int(np.count_nonzero(changed))
        step = step[np.isfinite(step)]
        largest = step.max() if step.size else 0.0
    elif largest:
        changes.changed += int(np.count_nonzero(step))
    changes.largest = max(changes.largest, float(largest))
