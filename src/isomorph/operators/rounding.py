"""Bits of a floating dtype to f64 and back, rounded once: for operators that compute on numbers, and refuse what is none."""

from __future__ import annotations

from typing import Any

import numpy as np

from isomorph.operators.base import ElementError
from isomorph.operators.casting import convert, largest_shown, to_f64
from isomorph.tensors import DTYPES, DType

Array = np.ndarray[Any, Any]
F64 = DTYPES["f64"]


def in_f64(array: Array, dtype: DType, text: str) -> Array:
    """The elements, bits of `dtype`, as f64, in the array's shape. ElementError at one that is infinite or no number."""
    flat = np.ascontiguousarray(array).reshape(-1)
    values = to_f64(flat.view(dtype.bits), dtype)
    finite = np.isfinite(values)
    if not finite.all():
        index = int(np.argmin(finite))
        raise ElementError(index, f"`{text}` meets {values[index]}, which is no number to compute with")
    return values.reshape(array.shape)


@np.errstate(all="ignore")
def from_f64(values: Array, dtype: DType, text: str) -> Array:
    """f64 numbers as bits of `dtype`, rounded once. ElementError at one that is larger than the dtype's largest."""
    flat = np.ascontiguousarray(values).reshape(-1)
    made = np.empty(flat.shape, dtype.bits)
    wrong = ~np.isfinite(flat)
    if dtype == F64:
        made[...] = flat.view(dtype.bits)
    else:
        overflow = convert(flat.view(np.uint64), F64, dtype, made, False)
        if overflow is not None:
            wrong |= overflow
    if wrong.any():
        index = int(np.argmax(wrong))
        raise ElementError(
            index, f"`{text}` makes {flat[index]:.6g}, which overflows {dtype}: its largest is {largest_shown(dtype)}"
        )
    return made.reshape(values.shape)
