"""Sizes and values of inputs: all axis sizes distinct, special tokens where models look for them, padding on either side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isomorph.trace.facts import Facts
from isomorph.trace.nouns import Array

Generator = np.random.Generator
FEW = 8
"""A vocabulary that is smaller is used whole, special tokens too."""


def distinct(start: int, taken: Iterable[int], *, most: int | None = None, times: Sequence[int] = ()) -> int:
    """The first prime from `start` on that is not in `taken`, and whose products with `times` are not; at most `most`.

    Where `most` leaves none, the largest number that is not in `taken`, and else `most`.

    >>> distinct(10, {11, 26}, times=[2])
    17
    """
    held = set(taken)

    def is_free(number: int) -> bool:
        return number not in held and not any(number * other in held for other in times)

    def is_prime(number: int) -> bool:
        return all(number % divisor for divisor in range(2, int(number**0.5) + 1))

    high = start + 400 if most is None else most
    for number in range(start, high + 1):
        if is_prime(number) and is_free(number):
            return number
    return next((number for number in range(min(start, high), 1, -1) if is_free(number)), max(1, min(start, high)))


@dataclass(frozen=True)
class Vocabulary:
    """Tokens to draw from, and those that have a meaning."""

    ordinary: Array
    end: int | None
    pad: int
    start: int

    @classmethod
    def of(cls, facts: Facts) -> Vocabulary:
        """The vocabulary of a model. Without a known end token its last is taken for one, as CLIP's is; others do not mind."""
        assert facts.vocab is not None
        size = facts.vocab
        end = (
            facts.eos if facts.eos is not None and facts.eos != 2 else size - 1
        )  # 2: written before CLIP's configs were right
        pad = facts.pad if facts.pad is not None else 0
        start = facts.start if facts.start is not None else pad
        special = {end, facts.eos, pad, start, size - 1}
        ordinary = np.array([token for token in range(size) if token not in special or size < FEW], dtype=np.int64)
        return cls(ordinary if len(ordinary) else np.arange(size, dtype=np.int64), end, pad, start)

    def rows(self, rng: Generator, batch: int, length: int, *, decoder: bool = False) -> Array:
        """Tokens [batch, length], whole numbers. Each row has one end token, in different places (a decoder's begins with the start
        token and has none)."""
        made = rng.choice(self.ordinary, size=(batch, length))
        if decoder:
            made[:, 0] = self.start
        elif self.end is not None and length > 1:
            for row in range(batch):
                made[row, length - 1 - (row * max(1, length // (batch + 1))) % length] = self.end
        return np.asarray(made, dtype=np.int64)

    def padded(self, rows: Array, real: Array) -> Array:
        """The rows with padding where `real` is false; each row's end token at its last real position."""
        made = rows.copy()
        if self.end is not None:
            made[made == self.end] = self.ordinary[0]
            for row in range(len(made)):
                made[row, np.flatnonzero(real[row])[-1]] = self.end
        made[~real] = self.pad
        return made


def ragged(batch: int, length: int, side: str) -> Array:
    """Which positions are real, [batch, length]: rows of different lengths, the first whole; padded on the `right` or `left`."""
    real = np.zeros((batch, length), dtype=bool)
    for row in range(batch):
        kept = max(1, length - (row * max(1, length // (batch + 1))))
        real[row, :kept] = True
        if side == "left":
            real[row] = real[row, ::-1]
    return real


def numbers(rng: Generator, shape: Sequence[int]) -> Array:
    """Standard normal numbers that float32 holds, as float64."""
    return np.asarray(rng.standard_normal(tuple(shape)).astype(np.float32).astype(np.float64))


def drawn_like(given: Array, rng: Generator, *, fixed: Array | None = None) -> Array:
    """Other values of the same kind: floats with the same mean and spread, whole numbers among those that were seen; truths stay.

    `fixed` is true where values stay: padding.
    """
    kind = given.dtype.kind
    if kind == "f" or given.dtype.name == "bfloat16":
        wide = given.astype(np.float64)
        spread = float(wide.std()) or 0.1 * (abs(float(wide.mean())) or 1.0)
        moved = np.asarray(float(wide.mean()) + spread * rng.standard_normal(given.shape))
        made: Any = moved.astype(np.float32).astype(given.dtype)
    elif kind in "iu":
        made = rng.permutation(given.reshape(-1)).reshape(given.shape)
    else:
        return given
    if fixed is not None and fixed.shape == given.shape:
        if kind in "iu":
            made = given.copy()
            made[~fixed] = rng.permutation(given[~fixed])
        made = np.where(fixed, given, made)
    return np.asarray(made, dtype=given.dtype)
