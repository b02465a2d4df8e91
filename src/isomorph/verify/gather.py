"""Boxes of a checkpoint's elements into memory: few reads, bounded, into buffers that are used again.

A box with gaps is read either whole (its hull, gaps included) or run by run, whichever is less work; a row of runs is laid
down with a little padding, so that walking it the other way does not fall on one set of cache lines.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from isomorph.formats.base import Checkpoint
from isomorph.tensors import DType
from isomorph.verify.regions import Leaf

Bits = np.ndarray[Any, np.dtype[Any]]

READ_COST = 1 << 14
"""One read costs about as much as so many bytes."""
PAD_NBYTES = 64


class Buffer:
    """Memory that is used again, box after box; it grows to the largest one asked for."""

    def __init__(self) -> None:
        self._bytes: Bits = np.empty(0, dtype=np.uint8)

    def take(self, nbytes: int) -> Bits:
        if len(self._bytes) < nbytes:
            self._bytes = np.empty(nbytes, dtype=np.uint8)
        return self._bytes[:nbytes]


def gather(checkpoint: Checkpoint, leaf: Leaf, kind: DType, shape: tuple[int, ...], buffer: Buffer) -> Bits:
    """The bits of a box, as an array of `shape`. It may lie in `buffer`, and is good until that is used again."""
    run = checkpoint.run(leaf.name)
    if run is None or any(stride < 0 for stride in leaf.strides):
        return checkpoint.fetch(leaf.name, leaf.offset, shape, leaf.strides)
    file, base = run
    width = kind.nbytes
    axes = [axis for axis in range(len(shape)) if shape[axis] > 1]
    axes.sort(key=lambda axis: -leaf.strides[axis])
    single, hull, slot = _plan(leaf, shape, axes, width)
    steps = [0] * len(shape)
    step = slot
    for axis in reversed(axes[:single]):
        steps[axis] = step
        step *= shape[axis]
    for axis in axes[single:]:
        steps[axis] = leaf.strides[axis] * width
    space = buffer.take(step)
    view = space.data
    start = base + leaf.offset * width
    for place, offset in enumerate(_offsets(leaf, shape, axes[:single])):
        checkpoint.pread(file, start + offset * width, view[place * slot : place * slot + hull])
    return np.ndarray(shape, dtype=kind.bits, buffer=space, strides=steps)


def _plan(leaf: Leaf, shape: tuple[int, ...], axes: list[int], width: int) -> tuple[int, int, int]:
    """(how many axes are walked read by read, bytes of one read, bytes between the starts of two in memory)."""
    best: tuple[int, int, int, int] | None = None
    reads = 1
    for single in range(len(axes) + 1):
        hull = (1 + sum((shape[axis] - 1) * leaf.strides[axis] for axis in axes[single:])) * width
        cost = reads * (READ_COST + hull)
        if best is None or cost < best[0]:
            slot = hull if single == 0 else -(-hull // PAD_NBYTES) * PAD_NBYTES + (PAD_NBYTES if hull >= 1024 else 0)
            best = (cost, single, hull, slot if single else hull)
        if single < len(axes):
            reads *= shape[axes[single]]
    assert best is not None
    return best[1:]


def _offsets(leaf: Leaf, shape: tuple[int, ...], axes: list[int]) -> list[int]:
    offsets = [0]
    for axis in axes:
        offsets = [offset + at * leaf.strides[axis] for offset in offsets for at in range(shape[axis])]
    return offsets
