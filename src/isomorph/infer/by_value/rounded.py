"""The elements of a tensor rounded to another dtype, tile by tile, and hashed."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np

from isomorph.infer.by_value.hashing import hash_elements
from isomorph.operators.base import ElementError
from isomorph.operators.casting import cast, convert
from isomorph.operators.numbers import widens
from isomorph.tensors import DType

Array = np.ndarray[Any, np.dtype[Any]]


def casts_of(dtype: DType, others: Iterable[DType]) -> tuple[DType, ...]:
    """Those of `others` in which the elements of `dtype` may hash otherwise than in `dtype`."""
    return tuple(other for other in others if _may_differ(dtype, other))


def _may_differ(source: DType, target: DType) -> bool:
    if source == target or "opaque" in (source.kind, target.kind):
        return False
    if (source.kind == "complex") != (target.kind == "complex"):
        return False
    if source.is_integer and target.is_integer:
        return False
    return not (source.kind == target.kind and widens(source, target))


class Rounded:
    """One cast of one tensor. It dies where there is no such cast: a fraction, NaN or overflow in an integer dtype."""

    def __init__(self, source: DType, target: DType) -> None:
        self.source, self.target = source, target
        self.is_alive = True
        self.is_exact = True
        self.saturated = False

    @np.errstate(all="ignore")
    def hashes(self, bits: Array, found: Array) -> Array | None:
        """The hashes of the elements rounded, None once it is dead. `found`: their hashes as they are."""
        if not self.is_alive:
            return None
        if self.source.kind == "complex" or not self.target.is_float:
            return self._checked(bits)
        if self.source.nbytes <= 2:
            return self._looked_up(bits)
        made = np.empty(bits.shape, self.target.bits)
        wrong = convert(bits, self.source, self.target, made, False)
        self.saturated |= wrong is not None
        hashes = hash_elements(made, self.target)
        if self.is_exact:
            self.is_exact = wrong is None and (
                np.array_equal(hashes, found) if self.source.is_float else self._returns(made, bits)
            )
        return hashes

    def _looked_up(self, bits: Array) -> Array | None:
        """Of a dtype of one or two bytes every element is cast once and for all."""
        hashes, is_wrong, is_exact = _table(self.source, self.target)
        places = bits.astype(np.intp)
        if is_wrong is not None and np.take(is_wrong, places, mode="clip").any():
            self.saturated = True
            self.is_alive = self.source.kind != "bool"
        self.is_exact = self.is_exact and bool(np.take(is_exact, places, mode="clip").all())
        return np.take(hashes, places, mode="clip") if self.is_alive else None

    def _returns(self, made: Array, bits: Array) -> bool:
        back = np.empty(bits.shape, self.source.bits)
        wrong = convert(made, self.target, self.source, back, False)
        return wrong is None and np.array_equal(back, bits)

    def _checked(self, bits: Array) -> Array | None:
        """To integers and bool exactly or not at all; complex numbers part by part."""
        is_complex = self.source.kind == "complex"
        try:
            made = cast(bits, self.source, self.target, rounding=is_complex, saturate=is_complex)
        except ElementError:
            self.is_alive = False
            return None
        if is_complex and self.is_exact:
            self.is_exact = np.array_equal(hash_elements(made, self.target), hash_elements(bits, self.source))
        return hash_elements(made, self.target)


@cache
@np.errstate(all="ignore")
def _table(source: DType, target: DType) -> tuple[Array, Array | None, Array]:
    """Of every element of a small dtype: the hash of its cast to a floating one, where it has none (or None), where it is exact."""
    every = np.arange(1 << (8 * source.nbytes), dtype=np.uint32).astype(source.bits)
    made, back = np.empty(every.size, target.bits), np.empty(every.size, source.bits)
    wrong = convert(every, source, target, made, False)
    if source.kind == "bool":
        wrong = every > 1
    beyond = convert(made, target, source, back, False)
    exact = back == every
    for mask in (wrong, beyond):
        if mask is not None:
            exact &= ~mask
    return hash_elements(made, target), wrong, exact
