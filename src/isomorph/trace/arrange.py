"""Two shapes of one content -> how their axes correspond: moved, merged, repeated. Found by sizes; nothing knows a tensor's values.

>>> [found.signature for found in arrangements((2, 5, 16), (5, 2, 16))]
[((1,), (0,), (2,))]
>>> [found.signature for found in arrangements((2, 5, 16), (10, 16))]
[((0, 1), (2,)), ((1, 0), (2,))]
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, permutations

import numpy as np

from isomorph.trace.nouns import Array

MOST = 24
"""Arrangements that are listed at most, where sizes leave a choice."""

Groups = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Arrangement:
    """How the axes of shape `left` are those of shape `right`, axes of size 1 left out.

    `groups[k]` are the axes of the finer shape that, one after the other, are axis k of the coarser; `is_left_finer` says which is
    which. `repeated`: this axis of `left` (or, where `repeats_left`, of `right`) is not in the other: there it is repeated.
    """

    left: tuple[int, ...]
    right: tuple[int, ...]
    groups: Groups
    is_left_finer: bool = True
    repeated: int | None = None
    repeats_left: bool = False

    @property
    def signature(self) -> Groups:
        """What stays the same when sizes change."""
        return self.groups

    def to_left(self, right: Array) -> Array:
        """An array of shape `right`, as one of shape `left`; where `left` lacks an axis, with that in front."""
        if self.repeats_left:
            assert self.repeated is not None, "it says which"
            axes = [axis for axis, size in enumerate(self.right) if size != 1]
            kept = [size for axis, size in enumerate(self.right) if size != 1 and axis != axes[self.repeated]]
            front = np.moveaxis(_squeezed(right), self.repeated, 0)
            inner = Arrangement(self.left, tuple(kept), self.groups, self.is_left_finer)
            return np.stack([inner.to_left(one) for one in front])
        left = [size for size in self.left if size != 1]
        if self.repeated is not None:
            size = left.pop(self.repeated)
            made = _moved(_squeezed(right), left, self.groups, self.is_left_finer)
            return np.repeat(np.expand_dims(made, self.repeated), size, self.repeated).reshape(self.left)
        return _moved(_squeezed(right), left, self.groups, self.is_left_finer).reshape(self.left)

    def to_right(self, left: Array) -> Array:
        """An array of shape `left` as one of shape `right`. Raises ValueError where values differ that are one there."""
        right = [size for size in self.right if size != 1]
        if self.repeats_left:
            assert self.repeated is not None, "it says which"
            size = right.pop(self.repeated)
            made = _moved(_squeezed(left), right, self.groups, not self.is_left_finer)
            return np.repeat(np.expand_dims(made, self.repeated), size, self.repeated).reshape(self.right)
        held = _squeezed(left)
        if self.repeated is not None:
            first = np.take(held, [0], self.repeated)
            if not np.array_equal(np.broadcast_to(first, held.shape), held):
                raise ValueError(
                    "the candidate has one tensor for all of an axis, along which the reference's values differ"
                )
            held = np.squeeze(first, self.repeated)
        return _moved(held, right, self.groups, not self.is_left_finer).reshape(self.right)

    def shared(self, left: Array) -> Array:
        """The array of shape `left` in the shape that `to_left` gives."""
        if not self.repeats_left:
            return left
        assert self.repeated is not None, "it says which"
        size = [size for size in self.right if size != 1][self.repeated]
        return np.broadcast_to(left, (size, *left.shape))


def arrangements(left: Sequence[int], right: Sequence[int], *, may_repeat: bool = False) -> list[Arrangement]:
    """Every way in which sizes let the axes correspond; those that keep the order come first. Empty: they are no one content."""
    return list(_arrangements(tuple(left), tuple(right), may_repeat))


@lru_cache(maxsize=4096)
def _arrangements(left: tuple[int, ...], right: tuple[int, ...], may_repeat: bool) -> list[Arrangement]:
    fine, coarse = [size for size in left if size != 1], [size for size in right if size != 1]
    if math.prod(left) == math.prod(right):
        is_left_finer = len(fine) >= len(coarse)
        if not is_left_finer:
            fine, coarse = coarse, fine
        return [Arrangement(left, right, groups, is_left_finer) for groups in islice(_groups(fine, coarse), MOST)]
    if not may_repeat or 0 in left or 0 in right:
        return []
    found: list[Arrangement] = []
    for long, short, repeats_left in ((fine, coarse, False), (coarse, fine, True)):
        if short and len(long) == len(short) + 1:
            for axis in range(len(long)):
                rest = long[:axis] + long[axis + 1 :]
                if sorted(rest) != sorted(short):
                    continue
                first, second = (short, rest) if repeats_left else (rest, short)
                found.extend(
                    Arrangement(left, right, groups, True, axis, repeats_left)
                    for groups in islice(_groups(first, second), MOST)
                )
    return found


def chosen(found: Sequence[Arrangement], order: Groups | None) -> Arrangement | None:
    """The arrangement with that signature where there is one, else the first."""
    for one in found:
        if one.signature == order:
            return one
    return found[0] if found else None


def _groups(fine: Sequence[int], coarse: Sequence[int]) -> Iterator[Groups]:
    """Every way to share out the axes of the finer shape among those of the coarser, in order where possible."""
    if list(fine) == list(coarse):
        yield tuple((axis,) for axis in range(len(fine)))
        if len(set(fine)) == len(fine):
            return
    seen = {tuple((axis,) for axis in range(len(fine)))} if list(fine) == list(coarse) else set()
    for groups in _shared_out(fine, coarse, frozenset(range(len(fine)))):
        if groups not in seen:
            yield groups


def _shared_out(fine: Sequence[int], coarse: Sequence[int], free: frozenset[int]) -> Iterator[Groups]:
    if not coarse:
        if not free:
            yield ()
        return
    for length in range(1, len(free) - len(coarse) + 2):
        for group in permutations(sorted(free), length):
            if math.prod(fine[axis] for axis in group) == coarse[0]:
                for rest in _shared_out(fine, coarse[1:], free - set(group)):
                    yield (group, *rest)


def _squeezed(array: Array) -> Array:
    return array.reshape([size for size in array.shape if size != 1])


def _moved(array: Array, shape: Sequence[int], groups: Groups, is_target_finer: bool) -> Array:
    """An array with no axis of size 1, as one of `shape`, which is finer or coarser."""
    order = [axis for group in groups for axis in group]
    if is_target_finer:
        split = array.reshape([shape[axis] for axis in order])
        return np.transpose(split, np.argsort(order)) if order else split
    return (np.transpose(array, order) if order else array).reshape(shape)
