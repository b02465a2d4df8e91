"""The plain second reading of operators along axes, for verify: by their definitions, in fractions, one index after the other.

    along(op, values, dtype, after) -> (values, dtype)      [others, *before] -> [others, *after], arrays of `dtype.numpy`

It shares no code with the kernels; what both keep to is written in `resize.py` and `pad.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

from isomorph.errors import CheckError, Gap, MorphError
from isomorph.operators.base import OpLike
from isomorph.tensors import DType

Array = np.ndarray[Any, Any]
Round = Callable[[Array, DType], tuple[Array, Array]]
"""(f64 numbers, dtype) -> (rounded once, where they overflow)."""


def resize(op: OpLike, array: Array, dtype: DType, after: Sequence[int], rounded: Round) -> Array:
    before = array.shape[1:]
    if tuple(before) == tuple(after):
        return array
    old, new = _grid(before), _grid(after)
    numbers = _numbers(op, array).reshape(array.shape[0], *old)
    for axis in (2, 1):
        rows = np.moveaxis(numbers, axis, 0)
        made = []
        for index in range(new[axis - 1]):
            total = np.zeros(rows.shape[1:])
            for at, weight in sorted(_taps(index, old[axis - 1], new[axis - 1], op.arguments == ("timm",)).items()):
                total = total + rows[at] * float(weight)
            made.append(total)
        numbers = np.moveaxis(np.stack(made), 0, axis)
    return _back(op, numbers, dtype, rounded).reshape(array.shape[0], *after)


def pad(op: OpLike, array: Array, dtype: DType, after: Sequence[int], rounded: Round) -> Array:
    total = np.zeros(array.shape[0])
    for row in _numbers(op, array).T:
        total = total + row
    mean = _back(op, total / array.shape[1], dtype, rounded)
    new = np.repeat(mean.reshape(-1, 1), after[0] - array.shape[1], axis=1)
    return np.concatenate([array, new], axis=1)


def copied(op: OpLike, before: Sequence[int], after: Sequence[int]) -> int:
    """How many leading indices of the first axis come out as they went in."""
    if op.name == "pad":
        return before[0]
    return before[0] if op.name == "resize" and tuple(before) == tuple(after) else 0


def problem(op: OpLike, before: Sequence[int], after: Sequence[int]) -> str | None:
    """Why these sizes have no meaning, in one sentence; None where they have."""
    if op.name == "pad":
        return None if after[0] >= before[0] > 0 else f"`pad` cannot make {after[0]} rows of {before[0]}"
    if op.name != "resize" or tuple(before) == tuple(after):
        return None
    for sizes in (before, after):
        if 0 in sizes or (len(sizes) == 1 and math.isqrt(sizes[0]) ** 2 != sizes[0]):
            return f"`resize`: {' × '.join(map(str, sizes))} positions are no grid"
    return None


def _grid(sizes: Sequence[int]) -> tuple[int, int]:
    return (math.isqrt(sizes[0]), math.isqrt(sizes[0])) if len(sizes) == 1 else (sizes[0], sizes[1])


@lru_cache(maxsize=1 << 15)
def _taps(index: int, before: int, after: int, antialias: bool) -> dict[int, Fraction]:
    """index that is read -> weight, for one index that is made."""
    scale = Fraction(before, after)
    middle = (index + Fraction(1, 2)) * scale - Fraction(1, 2)
    if not antialias:
        taps: dict[int, Fraction] = {}
        for at in range(math.floor(middle) - 1, math.floor(middle) + 3):
            inside = max(0, min(before - 1, at))
            taps[inside] = taps.get(inside, Fraction(0)) + _kernel(at - middle, Fraction(-3, 4))
        return taps
    stretch = max(Fraction(1), scale)
    reach = range(max(0, math.floor(middle - 2 * stretch)), min(before, math.ceil(middle + 2 * stretch) + 1))
    found = {at: _kernel((at - middle) / stretch, Fraction(-1, 2)) for at in reach}
    total = sum(found.values())
    return {at: weight / total for at, weight in found.items() if weight}


def _kernel(x: Fraction, a: Fraction) -> Fraction:
    """Keys' cubic convolution kernel."""
    x = abs(x)
    if x >= 2:
        return Fraction(0)
    if x >= 1:
        return a * (x - 2) ** 2 * (x - 1)
    return (x - 1) * ((a + 2) * x**2 - x - 1)


def _numbers(op: OpLike, array: Array) -> Array:
    numbers = array.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise CheckError([Gap("cast", f"`{op.name}` meets what is no finite number")])
    return numbers


def _back(op: OpLike, numbers: Array, dtype: DType, rounded: Round) -> Array:
    flat = np.ascontiguousarray(numbers).reshape(-1)
    found, wrong = rounded(flat, dtype)
    if wrong.any() or not np.isfinite(flat).all():
        raise CheckError([Gap("cast", f"`{op.name}` overflows {dtype}")])
    return found.reshape(numbers.shape)


KNOWN = {"resize": resize, "pad": pad}


def no_reference(name: str) -> MorphError:
    hint = "its package gives it a `reference`: a plain second reading, by other means than its kernel"
    return MorphError([Gap("cast", f"`{name}` has no plain reference, so that verify cannot check it", hint=hint)])
