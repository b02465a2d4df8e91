"""Constants of the notation: which dtypes hold them (LANGUAGE.md 3, statement 14)."""

from __future__ import annotations

from fractions import Fraction

from isomorph.language.tree import Constant
from isomorph.tensors import DType

_LARGEST = {
    "f16": Fraction(65504),
    "bf16": Fraction(255, 128) * 2**127,
    "f32": (2 - Fraction(1, 2**23)) * 2**127,
    "f64": (2 - Fraction(1, 2**52)) * Fraction(2) ** 1023,
    "f8e4m3": Fraction(448),
    "f8e5m2": Fraction(57344),
    "c64": (2 - Fraction(1, 2**23)) * 2**127,
    "c128": (2 - Fraction(1, 2**52)) * Fraction(2) ** 1023,
}
_HALF_STEP = {
    "f16": Fraction(16),
    "bf16": Fraction(2) ** 119,
    "f32": Fraction(2) ** 103,
    "f64": Fraction(2) ** 970,
    "f8e4m3": Fraction(16),
    "f8e5m2": Fraction(4096),
    "c64": Fraction(2) ** 103,
    "c128": Fraction(2) ** 970,
}
"""Half the distance from the largest finite number to the next that the format's exponent would give: at it rounding
overflows."""


def constant_dtype_problem(constant: Constant, dtype: DType) -> str | None:
    """Why this dtype cannot hold the constant, or None. A decimal that a floating dtype rounds is no problem."""
    text = constant.text
    if dtype.kind == "opaque":
        return f"{text} cannot be written as {dtype}"
    if constant.is_arange:
        return f"arange makes whole numbers, not {dtype}" if dtype.kind == "bool" else None
    value = constant.value
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        if dtype.kind not in ("float", "complex") or dtype.name == "f8e4m3":
            return f"{text} is no number of {dtype}"
        return None
    return _number_problem(Fraction(value), text, dtype)


def arange_problem(last: int, dtype: DType) -> str | None:
    """Why this dtype cannot hold an arange up to `last`, or None."""
    problem = _number_problem(Fraction(last), str(last), dtype)
    return None if problem is None else f"arange goes up to {last}: {problem}"


def _number_problem(number: Fraction, text: str, dtype: DType) -> str | None:
    if dtype.kind == "bool":
        return None if number in (0, 1) else f"{text} is no bool: 0 or 1"
    if dtype.is_integer:
        if number.denominator != 1:
            return f"{text} is a fraction, and {dtype} holds whole numbers"
        bits = 8 * dtype.nbytes
        low, high = (0, 2**bits - 1) if dtype.kind == "unsigned" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        return None if low <= number <= high else f"{text} is not in the range of {dtype}: {low} to {high}"
    edge = _LARGEST[dtype.name] + _HALF_STEP[dtype.name]
    if abs(number) > edge or (abs(number) == edge and dtype.name != "f8e4m3"):  # 464 ties to 448, whose last bit is 0
        return f"{text} overflows {dtype}"
    return None


def fill_value(constant: Constant, dtype: DType) -> Fraction | float:
    """The exact value (an infinity and -0.0 as float; -0 in an integer dtype is 0)."""
    value = constant.value
    return (
        Fraction(0)
        if isinstance(value, float) and value == 0 and not (dtype.is_float or dtype.kind == "complex")
        else value
    )
