"""What arranging reads: elements of one side as the target holds them (changed by operators), as bits or as hashes, in tiles.

`Side` is a checkpoint with the operators that act on its tensors; `confirmed` compares moves with what is there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from isomorph.errors import CheckError, MorphError
from isomorph.formats.base import Checkpoint
from isomorph.infer.by_value.changes import Change, apply, result
from isomorph.infer.by_value.hashing import hash_elements
from isomorph.operators.reference import constant
from isomorph.plan.boxes import row_major
from isomorph.plan.moves import Box, Fill, Move
from isomorph.tensors import DType, TensorSpec

Array = np.ndarray[Any, np.dtype[Any]]
Changes = Change | Mapping[str, Change] | None
"""One change for all sources, or one for each of some."""

TILE = 1 << 20
"""Elements compared or hashed at a time."""
NONE = Change((), "")


def change_of(changes: Changes, name: str) -> Change:
    if isinstance(changes, Change):
        return changes
    return NONE if changes is None else changes.get(name, NONE)


@dataclass(frozen=True)
class Side:
    """Tensors of a checkpoint, changed. What an operator refuses raises MorphError, CheckError."""

    checkpoint: Checkpoint
    changes: Changes = None
    _specs: dict[str, TensorSpec] = field(default_factory=dict)

    def spec(self, name: str) -> TensorSpec:
        """The shape, and the dtype after the change."""
        if name not in self._specs:
            given = self.checkpoint.manifest[name]
            self._specs[name] = TensorSpec(result(change_of(self.changes, name), given.dtype), given.shape)
        return self._specs[name]

    def bits(self, name: str, offset: int, shape: Sequence[int], strides: Sequence[int]) -> Array:
        """Elements as `Checkpoint.fetch` gives them, after the change."""
        found = self.checkpoint.fetch(name, offset, shape, strides)
        change = change_of(self.changes, name)
        if not change.operators:
            return found
        values = np.ascontiguousarray(found)
        made = apply(values.reshape(-1), change, self.checkpoint.manifest[name].dtype)
        return made.view(self.spec(name).dtype.bits).reshape(tuple(shape))

    def keys(self, name: str, offset: int, shape: Sequence[int], strides: Sequence[int]) -> Array:
        """The hash of each of these elements, u64."""
        return hash_elements(self.bits(name, offset, shape, strides), self.spec(name).dtype)

    def whole(self, name: str) -> Array:
        """The hashes of a tensor, flat."""
        spec = self.spec(name)
        return self.keys(name, 0, spec.shape, row_major(spec.shape)).reshape(-1)


def confirmed(moves: Sequence[Move], source: Checkpoint, target: Checkpoint, change: Changes = None) -> bool:
    """True when the moves fill every target they name, and the values there are what they make, bit for bit.

    Streams in tiles, ends at the first difference. Each move's own operators are not looked at: `change` says them.
    """
    left, right = Side(source, change), Side(target)
    filled: dict[str, int] = {}
    for move in moves:
        filled[move.target.tensor] = filled.get(move.target.tensor, 0) + move.target.numel
    if any(right.spec(name).numel != count for name, count in filled.items()):
        return False
    try:
        return all(holds(move, left, right) for move in moves)
    except (MorphError, CheckError):
        return False


def holds(move: Move, left: Side, right: Side) -> bool:
    """True when this move makes what is there, bit for bit."""
    source, target = move.source, move.target
    if not isinstance(source, Box | Fill) or (
        isinstance(source, Box) and left.spec(source.tensor).dtype != right.spec(target.tensor).dtype
    ):
        return False
    for start, shape in tiles(target.shape):
        there = target.offset + sum(a * b for a, b in zip(start, target.strides, strict=True))
        found = right.bits(target.tensor, there, shape, target.strides)
        if isinstance(source, Box):
            here = source.offset + sum(a * b for a, b in zip(start, source.strides, strict=True))
            made = left.bits(source.tensor, here, shape, source.strides)
        else:
            made = _filled(source, start, shape, right.spec(target.tensor).dtype)
        if not np.array_equal(made, found):
            return False
    return True


def _filled(fill: Fill, start: Sequence[int], shape: Sequence[int], dtype: DType) -> Array:
    if fill.arange_strides is None:
        return np.broadcast_to(constant(fill.value, dtype).view(dtype.bits), tuple(shape))
    values = np.full(tuple(shape), int(fill.value), np.int64)
    for axis, (first, size, step) in enumerate(zip(start, shape, fill.arange_strides, strict=True)):
        run = (first + np.arange(size)) * step
        values += run.reshape([-1 if k == axis else 1 for k in range(len(shape))])
    return values.astype(dtype.numpy).view(dtype.bits)


def tiles(shape: Sequence[int], most: int = TILE) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(start, shape) of tiles of at most so many elements that cover an array, cut along its outermost axes."""
    if math.prod(shape) <= most:
        if 0 not in shape:
            yield (0,) * len(shape), tuple(shape)
        return
    inner = math.prod(shape[1:])
    step = max(1, most // max(1, inner))
    for first in range(0, shape[0], step):
        count = min(step, shape[0] - first)
        if inner <= most:
            yield (first, *(0,) * (len(shape) - 1)), (count, *shape[1:])
        else:
            for start, within in tiles(shape[1:], most):
                yield (first, *start), (1, *within)
