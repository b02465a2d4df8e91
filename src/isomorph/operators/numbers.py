"""Numbers and bits: what a number is in each dtype (rounded once, to nearest, ties to even), and what number given bits are.

    encode(Fraction(1, 10), f16) -> 0x2e66        decode(0x2e66, f16) -> 0.0999755859375

Exact integer arithmetic on one element; arrays are the business of the kernels.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

from isomorph.tensors import DTYPES, DType


@dataclass(frozen=True, slots=True)
class FloatFormat:
    """How a floating dtype lays out its bits: sign, exponent, fraction. Without infinity only the highest pattern is NaN."""

    exponent_bits: int
    fraction_bits: int
    has_infinity: bool = True

    @property
    def nbits(self) -> int:
        return 1 + self.exponent_bits + self.fraction_bits

    @property
    def bias(self) -> int:
        return (1 << (self.exponent_bits - 1)) - 1

    @property
    def sign_bit(self) -> int:
        return 1 << (self.nbits - 1)

    @property
    def infinity(self) -> int:
        """The magnitude bits of infinity: every magnitude above is NaN. Without infinity: the last finite one."""
        top = ((1 << self.exponent_bits) - 1) << self.fraction_bits
        return top if self.has_infinity else (self.sign_bit - 2)

    @property
    def largest(self) -> int:
        """The magnitude bits of the largest finite number."""
        return self.infinity - 1 if self.has_infinity else self.infinity

    @property
    def quiet(self) -> int:
        """The bit of a NaN that is set where nothing of its payload would stay."""
        return 1 << (self.fraction_bits - 1)


FLOATS: Mapping[str, FloatFormat] = {
    "f64": FloatFormat(11, 52),
    "f32": FloatFormat(8, 23),
    "bf16": FloatFormat(8, 7),
    "f16": FloatFormat(5, 10),
    "f8e5m2": FloatFormat(5, 2),
    "f8e4m3": FloatFormat(4, 3, has_infinity=False),
}
PARTS: Mapping[str, str] = {"c64": "f32", "c128": "f64"}
"""The dtype of the two parts of a complex dtype."""


def integer_range(dtype: DType) -> tuple[int, int]:
    """The least and the greatest number of an integer dtype; bool is 0 and 1."""
    if dtype.kind == "bool":
        return 0, 1
    nbits = 8 * dtype.nbytes
    return (-(1 << (nbits - 1)), (1 << (nbits - 1)) - 1) if dtype.kind == "signed" else (0, (1 << nbits) - 1)


class NumberOverflow(ValueError):
    """A number that the dtype cannot hold: too large, or a fraction, infinity or sign in an integer dtype."""


def encode(value: Fraction | float | int, dtype: DType) -> int:
    """The bits of `value` in `dtype`, as an unsigned integer (little-endian order of its bytes).

    Floating dtypes round to nearest, ties to even; complex dtypes hold the value in the real part, +0 in the other; bool holds
    0 and 1. Raises NumberOverflow where the dtype cannot hold it.
    """
    if dtype.name in PARTS:
        return encode(value, DTYPES[PARTS[dtype.name]])
    if dtype.is_float:
        return _encode_float(value, dtype)
    if dtype.kind == "opaque":
        raise NumberOverflow(f"{dtype} holds no numbers, only bits")
    if isinstance(value, float) and not math.isfinite(value):
        raise NumberOverflow(f"{dtype} has no infinity and no NaN")
    if isinstance(value, float) and value == 0 and math.copysign(1, value) < 0:
        raise NumberOverflow(f"{dtype} has no -0")
    exact = Fraction(value)
    if exact.denominator != 1:
        raise NumberOverflow(f"{dtype} holds no fractions")
    least, greatest = integer_range(dtype)
    if not least <= exact.numerator <= greatest:
        raise NumberOverflow(f"{dtype} holds {least} to {greatest}")
    return exact.numerator & ((1 << (8 * dtype.nbytes)) - 1)


def _encode_float(value: Fraction | float | int, dtype: DType) -> int:
    layout = FLOATS[dtype.name]
    if isinstance(value, float):
        sign = layout.sign_bit if math.copysign(1, value) < 0 else 0
        if math.isnan(value):
            return sign | (layout.infinity + 1 if not layout.has_infinity else layout.infinity | layout.quiet)
        if math.isinf(value):
            if not layout.has_infinity:
                raise NumberOverflow(f"{dtype} has no infinity (its largest number is {decode(layout.largest, dtype)})")
            return sign | layout.infinity
        value = abs(Fraction(value))
    else:
        sign = layout.sign_bit if value < 0 else 0
        value = abs(Fraction(value))
    bits = round_magnitude(value, layout)
    if bits > layout.largest:
        raise NumberOverflow(f"the largest number of {dtype} is {decode(layout.largest, dtype)}")
    return sign | bits


def round_magnitude(value: Fraction, layout: FloatFormat) -> int:
    """The magnitude bits nearest to `value` >= 0, ties to even, as if the format had no largest number."""
    if value == 0:
        return 0
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    if value < Fraction(2) ** exponent:
        exponent -= 1
    exponent = max(exponent, 1 - layout.bias)
    count = round(value / Fraction(2) ** (exponent - layout.fraction_bits))  # Fraction rounds halves to even
    return count + ((exponent + layout.bias - 1) << layout.fraction_bits)


def magnitude(bits: int, layout: FloatFormat) -> Fraction:
    """The number of finite magnitude bits (no sign)."""
    exponent, fraction = bits >> layout.fraction_bits, bits & ((1 << layout.fraction_bits) - 1)
    if exponent == 0:
        return Fraction(fraction) * Fraction(2) ** (1 - layout.bias - layout.fraction_bits)
    significand = fraction | (1 << layout.fraction_bits)
    return Fraction(significand) * Fraction(2) ** (exponent - layout.bias - layout.fraction_bits)


def decode(bits: int, dtype: DType) -> int | float | complex:
    """The number that `bits` are in `dtype`, exact (every finite number of ours fits Python's float)."""
    if dtype.name in PARTS:
        part = DTYPES[PARTS[dtype.name]]
        mask = (1 << (8 * part.nbytes)) - 1
        return complex(float(_real(bits & mask, part)), float(_real(bits >> (8 * part.nbytes), part)))
    return _real(bits, dtype)


def _real(bits: int, dtype: DType) -> int | float:
    if not dtype.is_float:
        nbits = 8 * dtype.nbytes
        return bits - (1 << nbits) if dtype.kind == "signed" and bits >> (nbits - 1) else bits
    if dtype.name == "f64":
        found: float = struct.unpack("<d", bits.to_bytes(8, "little"))[0]
        return found
    layout = FLOATS[dtype.name]
    sign, rest = (-1.0 if bits & layout.sign_bit else 1.0), bits & (layout.sign_bit - 1)
    if rest > layout.infinity:
        return math.copysign(math.nan, sign)
    if layout.has_infinity and rest == layout.infinity:
        return sign * math.inf
    return sign * float(magnitude(rest, layout))


def shown(bits: int, dtype: DType) -> str:
    """The number as a message shows it; a NaN with its bits, since two NaNs may differ."""
    value = decode(bits, dtype)
    text = f"{value.real:g}{value.imag:+g}j" if isinstance(value, complex) else f"{value!r}"
    return f"{text} (0x{bits:0{2 * dtype.nbytes}x})" if value != value else text


@cache
def first_overflow(source: DType, target: DType) -> int:
    """The least magnitude bits of floating `source` whose number rounds to nothing finite in `target`; at most source's infinity.

    Where source has no infinity and nothing overflows: one above its NaN.
    """
    taken, made = FLOATS[source.name], FLOATS[target.name]
    end = taken.infinity if taken.has_infinity else taken.sign_bit
    low, high = 0, end
    while low < high:
        middle = (low + high) // 2
        if middle > taken.largest or round_magnitude(magnitude(middle, taken), made) > made.largest:
            high = middle
        else:
            low = middle + 1
    if not taken.has_infinity and low > taken.largest:
        return end
    return low


@cache
def widens(source: DType, target: DType) -> bool:
    """True when every value of `source` is one of `target`, so that the cast and the cast back are the identity.

    (A bool byte other than 0 and 1 is no value; casts check for it.)
    """
    if source == target:
        return True
    if source.name in PARTS or target.name in PARTS:
        made = DTYPES[PARTS[target.name]] if target.name in PARTS else None
        return made is not None and widens(DTYPES[PARTS[source.name]] if source.name in PARTS else source, made)
    if source.is_float:
        if not target.is_float:
            return False
        taken, wide = FLOATS[source.name], FLOATS[target.name]
        least = 1 - taken.bias - taken.fraction_bits
        return (
            wide.has_infinity
            and wide.fraction_bits >= taken.fraction_bits
            and magnitude(wide.largest, wide) >= magnitude(taken.largest, taken)
            and 1 - wide.bias - wide.fraction_bits <= least
        )
    least_number, greatest = integer_range(source)
    if target.is_float:
        wide = FLOATS[target.name]
        precise = max(-least_number, greatest) <= 1 << (wide.fraction_bits + 1)
        return precise and magnitude(wide.largest, wide) >= greatest
    low, high = integer_range(target)
    return low <= least_number and greatest <= high
