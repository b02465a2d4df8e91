"""Numbers as the notation writes them: plain decimals, as short as they can be and still be that number in its dtype."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np

from isomorph.operators.numbers import FLOATS, PARTS, NumberOverflow, decode, encode
from isomorph.tensors import DTYPES, DType

MOST_DIGITS = 17
"""So many significant digits tell any two f64 apart."""


def number_text(bits: int, dtype: DType) -> str | None:
    """The shortest text that is the number with these bits in `dtype`; None for NaN, imaginary numbers and opaque bits.

    >>> number_text(0x2E66, DTYPES["f16"]), number_text(0x80000000, DTYPES["f32"]), number_text(255, DTYPES["i8"])
    ('0.1', '-0', '-1')
    """
    if dtype.name in PARTS:
        part = DTYPES[PARTS[dtype.name]]
        nbits = 8 * part.nbytes
        return number_text(bits & ((1 << nbits) - 1), part) if bits >> nbits == 0 else None
    if dtype.kind == "opaque" or (dtype.kind == "bool" and bits > 1):
        return None
    value = decode(bits, dtype)
    if dtype.name not in FLOATS:
        return str(value)
    assert isinstance(value, float)
    if math.isnan(value):
        return None
    if math.isinf(value) or value == 0:
        return ("-" if math.copysign(1, value) < 0 else "") + ("inf" if value else "0")
    for digits in range(_digits(value, dtype), MOST_DIGITS):
        text = f"{Decimal(f'{value:.{digits}e}'):f}"
        if _is(text, bits, dtype):
            return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{Decimal(value):f}"


def _digits(value: float, dtype: DType) -> int:
    """After the first, so many digits are needed: known at once where numpy has the dtype."""
    if dtype.name not in ("f16", "f32", "f64"):
        return 0
    shortest = np.format_float_scientific(dtype.numpy.type(abs(value)), trim="-")
    return max(len(shortest.partition("e")[0].replace(".", "")) - 1, 0)


def _is(text: str, bits: int, dtype: DType) -> bool:
    try:
        return encode(Fraction(text), dtype) == bits
    except NumberOverflow:
        return False
