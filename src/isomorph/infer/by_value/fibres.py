"""Sums of hashes along every axis of a tensor that streams by in row-major order.

A fibre of an axis is all elements with one index on it; its sum is that of their hashes, modulo 2**64. The sums of all fibres of an
axis are a vector, of which two numbers are kept: one of the entries in their order, one of the entries as a multiset.

Trailing axes are taken together while their product is small. [64 3 16 16] is two levels, 64 and 3*16*16 = 768: rows of 768 hashes
are added up to one vector of 768, whose axes are told apart at the end; the sum of each row goes on to the level of 64.
The outermost level keeps no vector, however long it is: its entries are digested as they come.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from isomorph.infer.by_value.hashing import MASK, TILE, U64, mix, total

Array = np.ndarray[Any, np.dtype[Any]]

TOGETHER = 1 << 15
"""Trailing axes are one level while they have no more entries than this."""
NARROW = 256
"""Shorter rows are added several at a time: numpy is slow on short ones."""


class AxisDigest(NamedTuple):
    """The fibre sums of one axis: `ordered` as they stand, `multiset` whatever their order. Both modulo 2**64."""

    ordered: int
    multiset: int


NOTHING = AxisDigest(0, 0)
"""The digest of an axis of an empty tensor."""


def digest(sums: Array, start: int = 0) -> AxisDigest:
    """The digest of consecutive fibre sums, the first of which is entry `start`. Digests of parts of one axis add up.

    In order: each sum times the number of its place, which is a product of two mixed odd numbers. As a multiset: each sum times
    itself, folded (sums of hashes are mixed already).
    """
    ordered = multiset = low = 0
    while low < len(sums):
        block, place = divmod(start + low, TILE)
        part = sums[low : low + TILE - place]
        outer = _block(block)
        ordered += outer * total(part * _places()[place : place + len(part)])
        folded = np.right_shift(part, U64(32))
        folded ^= part
        folded *= part
        multiset += total(folded)
        low += len(part)
    return AxisDigest(ordered & MASK, multiset & MASK)


def _block(number: int) -> int:
    mixed = number * 0xD6E8FEB86659FD93 + 0xA5CB9243F0AEF993 & MASK  # in Python: numpy takes longer for one number
    mixed = (mixed ^ mixed >> 32) * 0xD6E8FEB86659FD93 & MASK
    return (mixed ^ mixed >> 32) | 1


@cache
def _places() -> Array:
    return np.asarray(mix(np.arange(TILE, dtype=U64), 0) | U64(1))


def levels(shape: Sequence[int]) -> list[tuple[int, ...]]:
    """The axes of a shape in levels, outermost first; each is one axis, or several that are short together.

    >>> levels((64, 3, 16, 16)), levels((4096, 4096)), levels((2, 3))
    ([(64,), (3, 16, 16)], [(4096,), (4096,)], [(2, 3)])
    """
    found: list[tuple[int, ...]] = []
    for size in reversed(shape):
        if found and size * math.prod(found[0]) <= TOGETHER:
            found[0] = (size, *found[0])
        else:
            found.insert(0, (size,))
    return found


class FibreSums:
    """Fed the hashes of a tensor in row-major order, in parts of any length; gives the sum of all and a digest for each axis.

    `left_out`: axes of more than one entry whose digest is not wanted (`NOTHING` stands in its place).
    """

    def __init__(self, shape: Sequence[int], left_out: Sequence[int] = ()) -> None:
        self.shape = tuple(shape)
        self.left_out = frozenset(left_out)
        self._levels: list[_Outer | _Inner] = []
        kept = [axis for axis, size in enumerate(self.shape) if size != 1 and 0 not in self.shape]
        first = 0
        outer: _Outer | _Inner | None = None
        for sizes in levels([self.shape[axis] for axis in kept]):
            axes = tuple(kept[first : first + len(sizes)])
            first += len(sizes)
            is_wanted = not self.left_out.issuperset(axes)
            outer = _Outer(sizes, axes) if outer is None else _Inner(sizes, axes, outer, is_wanted)
            self._levels.append(outer)
        self._inmost = outer if outer is not None else _Outer((), ())

    def feed(self, hashes: Array) -> None:
        """The next hashes, 1-D u64."""
        self._inmost.feed(hashes)

    def finish(self) -> tuple[int, tuple[AxisDigest, ...]]:
        """(sum of all hashes, digest of each axis)."""
        if 0 in self.shape:
            return 0, (NOTHING,) * len(self.shape)
        found: dict[int, AxisDigest] = {}
        for level in reversed(self._levels or [self._inmost]):
            found.update(level.finish())
        first = (self._levels or [self._inmost])[0]
        assert isinstance(first, _Outer)
        unit = digest(np.array([first.total], U64)) if 1 in self.shape else NOTHING
        axes = (
            NOTHING if axis in self.left_out else found.get(axis, unit) if size == 1 else found[axis]
            for axis, size in enumerate(self.shape)
        )
        return first.total, tuple(axes)


class _Outer:
    """The outermost level: several short axes, whose entries are all kept; or one axis, digested as it comes."""

    def __init__(self, sizes: tuple[int, ...], axes: tuple[int, ...]) -> None:
        self.sizes, self.axes = sizes, axes
        self.total = 0
        self.entries: list[Array] = []
        self.waiting = 0
        self.done = 0
        self.digest = NOTHING

    def feed(self, values: Array) -> None:
        self.entries.append(values.copy() if values.base is not None else values)
        self.waiting += len(values)
        if self.waiting >= TOGETHER and len(self.sizes) == 1:
            self._flush()

    def _flush(self) -> None:
        values = np.concatenate(self.entries) if self.entries else np.empty(0, U64)
        part = digest(values, self.done)
        self.digest = AxisDigest(
            (self.digest.ordered + part.ordered) % 2**64, (self.digest.multiset + part.multiset) % 2**64
        )
        self.total = (self.total + total(values)) % 2**64
        self.done += len(values)
        self.entries, self.waiting = [], 0

    def finish(self) -> dict[int, AxisDigest]:
        if len(self.sizes) == 1:
            self._flush()
            return {self.axes[0]: self.digest}
        values = np.concatenate(self.entries) if self.entries else np.empty(0, U64)
        self.total = total(values)
        return dict(zip(self.axes, _digests(values, self.sizes), strict=True))


class _Inner:
    """A level within others: the sums of its entries over all rows, and of its rows, which go on to the next level."""

    def __init__(self, sizes: tuple[int, ...], axes: tuple[int, ...], outer: _Outer | _Inner, is_wanted: bool) -> None:
        self.sizes, self.axes, self.outer = sizes, axes, outer
        self.size = math.prod(sizes)
        self.sums = np.zeros(self.size, U64) if is_wanted else None
        self.place = 0
        self.row = 0

    def feed(self, values: Array) -> None:
        start = 0
        if self.place:
            start = min(len(values), self.size - self.place)
            self._part(values[:start])
        rows = (len(values) - start) // self.size
        if rows:
            block = values[start : start + rows * self.size].reshape(rows, self.size)
            if self.sums is not None:
                self.sums += column_sums(block)
            self.outer.feed(row_sums(block))
            start += rows * self.size
        if start < len(values):
            self._part(values[start:])

    def _part(self, values: Array) -> None:
        """Some of the entries of one row."""
        if self.sums is not None:
            self.sums[self.place : self.place + len(values)] += values
        self.row += total(values)
        self.place += len(values)
        if self.place == self.size:
            self.outer.feed(np.array([self.row % 2**64], U64))
            self.place = self.row = 0

    def finish(self) -> dict[int, AxisDigest]:
        if self.sums is None:
            return {}
        return dict(zip(self.axes, _digests(self.sums, self.sizes), strict=True))


def _digests(sums: Array, sizes: tuple[int, ...]) -> list[AxisDigest]:
    """The digest of each axis of an array of sums."""
    if len(sizes) == 1:
        return [digest(sums)]
    block = sums.reshape(sizes)
    return [
        digest(np.add.reduce(block, axis=tuple(other for other in range(len(sizes)) if other != axis)))
        for axis in range(len(sizes))
    ]


def row_sums(block: Array) -> Array:
    """The sum of each row of a 2-D u64 array."""
    if block.shape[1] > 8:
        return np.asarray(np.add.reduce(block, axis=1))
    found = block[:, 0].copy()
    for column in range(1, block.shape[1]):
        found += block[:, column]
    return found


def column_sums(block: Array) -> Array:
    """The sum of each column of a contiguous 2-D u64 array."""
    rows, width = block.shape
    fold = NARROW // width
    if fold < 2 or rows < 2 * fold:
        return np.asarray(np.add.reduce(block, axis=0))
    even = rows // fold * fold
    found = np.add.reduce(block[:even].reshape(-1, fold * width), axis=0).reshape(fold, width)
    return np.asarray(np.add.reduce(found, axis=0) + np.add.reduce(block[even:], axis=0))
