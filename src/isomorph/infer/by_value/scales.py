"""Which number c is it, when w * c was rounded? Those between two bounds, the likeliest first, as texts.

numbers_near(0.1249, 0.1251, f32)     0.125 (a power of two), then others
numbers_near(0.088388, 0.088389, f32)    0.088388346: 1 / sqrt(128)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

from isomorph.infer.texts import number_text
from isomorph.operators.numbers import NumberOverflow, encode
from isomorph.tensors import DType

LARGEST_ROOT = 1 << 20
"""Square roots of whole numbers up to this are thought of, and reciprocals of them."""
MOST_ROOTS = 6
MOST_DIGITS = 17
NEIGHBOURS = 2


def numbers_near(low: float, high: float, dtype: DType) -> list[str]:
    """Texts of numbers from `low` to `high` (0 < low <= high), no two the same in `dtype`, the likeliest first.

    Powers of two; 1 / sqrt(d), sqrt(d), 1 / k for whole d and k (multiples of high powers of two first); short decimals; then the
    numbers of `dtype` about the middle. Roots are written with as many digits as the dtype needs.
    """
    found: dict[int, str] = {}
    for text in _texts(low, high, dtype):
        try:
            found.setdefault(encode(Fraction(text), dtype), text)
        except NumberOverflow:
            continue
    return list(found.values())


def _texts(low: float, high: float, dtype: DType) -> Iterator[str]:
    if not (0 < low <= high < math.inf):
        return
    power = 2.0 ** math.floor(math.log2(high))
    if low <= power <= high:
        yield from _text(power, dtype)
    for value in _roots(low, high):
        yield from _text(value, dtype)
    yield from _decimals(low, high)
    middle = math.sqrt(low) * math.sqrt(high)
    try:
        bits = encode(middle, dtype)
    except NumberOverflow:
        return
    for step in sorted(range(-NEIGHBOURS, NEIGHBOURS + 1), key=abs):
        if bits + step > 0:
            text = number_text(bits + step, dtype)
            if text is not None and text not in ("inf", "0"):
                yield text


def _text(value: float, dtype: DType) -> Iterator[str]:
    try:
        text = number_text(encode(value, dtype), dtype)
    except NumberOverflow:
        return
    if text is not None and text != "0":
        yield text


def _roots(low: float, high: float) -> Iterator[float]:
    """1 / sqrt(d), sqrt(d) and 1 / k between the two; the rounder d and k, the sooner."""
    for first, last, make in (
        (high**-2, low**-2, lambda d: 1 / math.sqrt(d)),
        (low**2, high**2, math.sqrt),
        (1 / high, 1 / low, lambda k: 1 / k),
    ):
        if not (0 < first <= last) or first > LARGEST_ROOT:
            continue
        numbers = range(max(1, math.ceil(first)), min(LARGEST_ROOT, math.floor(last)) + 1)
        for number in sorted(numbers[:4096], key=lambda n: (-(n & -n), n))[:MOST_ROOTS]:
            yield make(number)


def _decimals(low: float, high: float) -> Iterator[str]:
    """The shortest decimals between the two."""
    for digits in range(MOST_DIGITS):
        places = digits - math.floor(math.log10(high))
        scale = Fraction(10) ** places
        first, last = math.ceil(Fraction(low) * scale), math.floor(Fraction(high) * scale)
        if first > last:
            continue
        middle = (first + last) // 2
        for number in sorted({first, middle, last}, key=lambda n: abs(n - middle)):
            text = _plain(number, places)
            if text is not None:
                yield text
        return


def _plain(number: int, places: int) -> str | None:
    """number / 10**places as digits."""
    if number <= 0:
        return None
    if places <= 0:
        return str(number * 10**-places)
    digits = str(number).rjust(places + 1, "0")
    return f"{digits[:-places]}.{digits[-places:]}".rstrip("0").rstrip(".")
