"""The bits of one constant, exactly as LANGUAGE.md 3 (14) says: nothing may be lost but the rounding of a decimal, once."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np

from isomorph.tensors import DType, dtype

Bits = np.ndarray[Any, np.dtype[Any]]


class BadConstant(Exception):
    """A constant that its dtype cannot hold: one sentence."""


def constant_bits(value: Fraction | float, kind: DType) -> Bits:
    """The bits of a constant, as an array of shape (). BadConstant for what the dtype cannot hold."""
    if kind.kind in ("signed", "unsigned", "bool"):
        if isinstance(value, float) and math.isinf(value):
            raise BadConstant(f"{value} is no {kind}")
        number = Fraction(value)
        low, high = bounds(kind)
        if number.denominator != 1 or not low <= number <= high:
            shown = number.numerator if number.denominator == 1 else float(number)
            raise BadConstant(f"{shown} is no {kind}")
        return np.array(int(number), dtype=kind.numpy).view(kind.bits)
    if kind.kind == "float":
        return _nearest(value, kind)
    if kind.kind == "complex":
        half = dtype("f32" if kind.nbytes == 8 else "f64")
        real = _nearest(value, half).view(half.numpy)
        return np.array(complex(float(real), 0.0), dtype=kind.numpy).view(kind.bits)
    raise BadConstant(f"a constant cannot be made as {kind}")


def bounds(kind: DType) -> tuple[int, int]:
    """The least and the largest value of an integer (or bool) dtype."""
    if kind.kind == "bool":
        return 0, 1
    bits = 8 * kind.nbytes
    return (0, (1 << bits) - 1) if kind.kind == "unsigned" else (-(1 << bits - 1), (1 << bits - 1) - 1)


def _nearest(value: Fraction | float, kind: DType) -> Bits:
    """The nearest of a floating dtype, ties to even: found among the neighbours of a first guess, compared as fractions."""
    if isinstance(value, float) and (math.isinf(value) or value == 0):
        with np.errstate(all="ignore"):
            found = np.array(value).astype(kind.numpy)
        if math.isinf(value) and not np.isinf(found.astype(np.float64)):
            raise BadConstant(f"{kind} has no infinity")
        return found.view(kind.bits)
    exact = Fraction(value)
    sign, size = (exact < 0), abs(exact)
    largest = largest_of(kind)
    last = int(np.array(largest).astype(kind.numpy).view(kind.bits))
    try:
        guess = min(float(size), largest)
    except OverflowError:
        guess = largest
    with np.errstate(all="ignore"):
        middle = int(np.array(guess).astype(kind.numpy).view(kind.bits))
    best: tuple[Fraction, int, int] | None = None
    for bits in range(max(0, middle - 2), min(last, middle + 2) + 1):
        distance = abs(_exactly(bits, kind) - size)
        candidate = (distance, bits & 1, bits)
        best = candidate if best is None else min(best, candidate)
    assert best is not None
    beyond = _exactly(last, kind) + (_exactly(last, kind) - _exactly(last - 1, kind)) / 2
    if size > beyond or (
        size == beyond and last & 1
    ):  # at the middle the even one is taken: the largest, if it is even
        raise BadConstant(f"{value} overflows {kind}")
    bits = best[2] | (1 << (8 * kind.nbytes - 1) if sign else 0)
    return np.array(bits, dtype=kind.bits)


def _exactly(bits: int, kind: DType) -> Fraction:
    return Fraction(float(np.array(bits, dtype=kind.bits).view(kind.numpy).astype(np.float64)))


def largest_of(kind: DType) -> float:
    """The largest finite value of a floating dtype."""
    return {"f8e4m3": 448.0, "f8e5m2": 57344.0, "f16": 65504.0, "bf16": (2 - 2**-7) * 2.0**127}.get(
        kind.name, float(np.finfo(np.float32 if kind.name == "f32" else np.float64).max)
    )
