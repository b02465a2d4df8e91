"""place: a strided array into a strided place, at the speed of memory.

A transposed copy is slow because the rows that it reads or writes in turn lie a power of two apart and push each other out of the
cache. So a strip of rows is first copied, as it lies, into a scratch whose rows are padded to an odd pitch, and from there column
by column to where it belongs.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

SCRATCH = 4 << 20
"""Bytes of the scratch: it stays in the last-level cache, if not nearer."""
PAD = 64
"""Bytes added to each row of the scratch."""
SMALL = 1 << 12
"""Arrays of fewer elements are copied as they come."""
WIDE = 16
"""Bytes: wider elements (blocks of quantised numbers) fill cache lines by themselves, and are copied as they come too."""
FEW = 16
"""Innermost axes of fewer elements, of the target or the source, are taken one index at a time."""


class _Scratch(threading.local):
    def __init__(self) -> None:
        self.bytes = np.empty(SCRATCH, np.uint8)


_scratch = _Scratch()


def place(array: Array, flat: Array, offset: int, strides: Sequence[int]) -> None:
    """flat[offset + Σ ik*strides_k] = array[i], for every index i of `array`. Strides in elements."""
    nbytes = flat.dtype.itemsize
    target = np.lib.stride_tricks.as_strided(flat[offset:], array.shape, [step * nbytes for step in strides])
    copy_into(target, array)


def copy_into(target: Array, source: Array) -> None:
    """target[...] = source, whatever their layouts. Same shape, same itemsize."""
    axes = sorted(
        (axis for axis, size in enumerate(source.shape) if size > 1), key=lambda axis: -abs(target.strides[axis])
    )
    if source.size < SMALL or not axes or source.dtype.itemsize > WIDE:
        target[...] = source
        return
    singles = tuple(axis for axis, size in enumerate(source.shape) if size == 1)
    target = np.squeeze(target.transpose(*axes, *singles), tuple(range(len(axes), source.ndim)))
    source = np.squeeze(source.transpose(*axes, *singles), tuple(range(len(axes), source.ndim)))
    steps = [abs(step) or source.nbytes for step in source.strides]
    inner = min(range(source.ndim), key=lambda axis: steps[axis])
    next_to_inner = steps[-1] == steps[inner] * source.shape[inner]
    narrow = inner if next_to_inner and source.shape[inner] < FEW else source.ndim - 1
    if steps[-1] == steps[inner]:
        target[...] = source  # both are read and written along the same axis
    elif source.shape[narrow] >= FEW:
        _through_scratch(target, source)
    elif source.size // source.shape[narrow] < 16 * SMALL:
        target[...] = source
    else:
        for index in range(source.shape[narrow]):
            where: tuple[Any, ...] = (*[slice(None)] * narrow, index)
            copy_into(target[where], source[where])


def _through_scratch(target: Array, source: Array) -> None:
    """The target is contiguous, or nearly, along its last axis; the source is not."""
    others = sorted(range(source.ndim - 1), key=lambda axis: -abs(source.strides[axis]))
    rows = source.transpose(source.ndim - 1, *others)  # the last axis outermost, then as the source lies
    columns = target.transpose(target.ndim - 1, *others)
    _strips(columns, rows)


def _strips(columns: Array, rows: Array) -> None:
    itemsize = rows.dtype.itemsize
    height = min(rows.shape[0], 256 if itemsize == 1 else 128)
    pitch = rows[0].size * itemsize + PAD
    if height * pitch > SCRATCH:
        axis = next(axis for axis in range(1, rows.ndim) if rows.shape[axis] > 1)
        inner = pitch // rows.shape[axis]
        size = max(1, (SCRATCH // height - PAD) // inner - 1)
        size = min(size, rows.shape[axis] - 1)
        where: list[slice] = [slice(None)] * rows.ndim
        for start in range(0, rows.shape[axis], size):
            where[axis] = slice(start, start + size)
            _strips(columns[tuple(where)], rows[tuple(where)])
        return
    pitch -= pitch % itemsize
    steps = [itemsize] * (rows.ndim - 1)
    for axis in range(rows.ndim - 2, 0, -1):
        steps[axis - 1] = steps[axis] * rows.shape[axis + 1]
    scratch = np.ndarray((height, *rows.shape[1:]), rows.dtype, _scratch.bytes.data, 0, (pitch, *steps))
    last = (*range(1, rows.ndim), 0)
    for start in range(0, rows.shape[0], height):
        strip = rows[start : start + height]
        staged = scratch[: len(strip)]
        staged[...] = strip
        columns[start : start + height].transpose(last)[...] = staged.transpose(last)
