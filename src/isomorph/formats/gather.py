"""Strided boxes: which bytes of a file hold them, read in few calls and little more memory than the box itself.

Worked example: of a row-major f32 tensor [1000 4096] the box "column 5" is shape (1000,), strides (4096,), offset 5. It spans
16 MB and holds 4 kB, so it is read row by row into 1000 places; the box "rows 5 to 9, columns 0 to 4000" is read in one call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from isomorph.formats.room import room

Array = np.ndarray[Any, np.dtype[Any]]
Fill = Callable[[int, memoryview], None]
"""fill(byte_offset, buffer): the bytes of the file from there."""

SCRATCH = 1 << 20
"""Covering spans that hold less than half of what is wanted are read in pieces of at most so many bytes."""

GAP = 1 << 14
"""Two wanted runs further apart than this many bytes are read by two calls rather than one."""

AT_ONCE = 1 << 16
"""Elements looked up by number (the last resort) are looked up so many at a time."""


def read_box(fill: Fill, base: int, bits: np.dtype[Any], shape: Sequence[int], strides: Sequence[int]) -> Array:
    """The elements at bytes `base + itemsize * Σ i_k*strides_k`, as an array of `shape`. Strides in elements, of any sign."""
    shape, strides = tuple(shape), tuple(strides)
    if 0 in shape:
        return np.empty(shape, bits)
    # Repeated (stride 0) and single axes are left out and come back by broadcasting; backward axes are read forward.
    kept = [axis for axis in range(len(shape)) if shape[axis] > 1 and strides[axis] != 0]
    backward = [axis for axis in kept if strides[axis] < 0]
    base += bits.itemsize * sum((shape[axis] - 1) * strides[axis] for axis in backward)
    order = sorted(kept, key=lambda axis: -abs(strides[axis]))
    array = _read_sorted(fill, base, bits, [shape[axis] for axis in order], [abs(strides[axis]) for axis in order])
    array = array.transpose([order.index(axis) for axis in kept])
    if backward:
        array = array[tuple(slice(None, None, -1) if axis in backward else slice(None) for axis in kept)]
    full = (
        array.reshape([size if axis in kept else 1 for axis, size in enumerate(shape)])
        if len(kept) < len(shape)
        else array
    )
    return np.broadcast_to(full, shape) if full.shape != shape else full


def _read_sorted(fill: Fill, base: int, bits: np.dtype[Any], shape: list[int], strides: list[int]) -> Array:
    """`read_box` for positive strides in falling order and no axis of size 1."""
    numel, reach = math.prod(shape), span(shape, strides)
    if reach <= 2 * numel or reach * bits.itemsize <= GAP:
        return _covering(fill, base, bits, shape, strides)
    result = room(numel, bits).reshape(shape)
    _scatter(fill, base, result, shape, strides)
    return result


def _covering(fill: Fill, base: int, bits: np.dtype[Any], shape: list[int], strides: list[int]) -> Array:
    whole = room(span(shape, strides), bits)
    fill(base, whole.view("u1").data)
    return np.lib.stride_tricks.as_strided(whole, shape, [step * bits.itemsize for step in strides])


def _scatter(fill: Fill, base: int, result: Array, shape: list[int], strides: list[int]) -> None:
    """Fill `result` (of `shape`, contiguous) by splitting the outermost axis."""
    nbytes = result.dtype.itemsize
    inner_reach = span(shape[1:], strides[1:])
    together = 1
    if (strides[0] - inner_reach) * nbytes <= GAP and inner_reach <= 2 * math.prod(shape[1:]):
        together = max(
            1, SCRATCH // (strides[0] * nbytes)
        )  # rows are near each other: read several with what lies between
    step = strides[0] * nbytes
    for start in range(0, shape[0], together):
        count = min(together, shape[0] - start)
        part = result[start : start + count]
        if count > 1:
            part[...] = _covering(fill, base + start * step, result.dtype, [count, *shape[1:]], strides)
        elif inner_reach == math.prod(shape[1:]) and is_row_major(shape[1:], strides[1:]):
            fill(base + start * step, part.reshape(-1).view("u1").data)
        elif inner_reach <= 2 * math.prod(shape[1:]) or inner_reach * nbytes <= GAP:
            part[0] = _covering(fill, base + start * step, result.dtype, shape[1:], strides[1:])
        else:
            _scatter(fill, base + start * step, part[0], shape[1:], strides[1:])


def span(shape: Sequence[int], strides: Sequence[int]) -> int:
    """How many elements lie from the first to the last of a box with no negative stride (0 for an empty box)."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of a row-major tensor, in elements.

    >>> row_major((2, 3, 4))
    (12, 4, 1)
    """
    steps = [1]
    for size in reversed(shape[1:]):
        steps.append(steps[-1] * size)
    return tuple(reversed(steps))[: len(shape)]


def is_row_major(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """True when elements taken in row-major order follow each other without a gap."""
    step = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size == 0:
            return True
        if size != 1 and stride != step:
            return False
        step *= size
    return step <= 1 or 0 not in shape


def compose(
    own_shape: Sequence[int], own_strides: Sequence[int], offset: int, shape: Sequence[int], strides: Sequence[int]
) -> tuple[int, tuple[int, ...]] | None:
    """Where the box (`offset`, `shape`, `strides` in flat row-major elements) lies in the storage of a strided tensor.

    Returns (storage offset, storage strides), or None when no single set of strides describes it: the box goes over the edge
    of one of the tensor's own axes.

    >>> compose((3, 4), (1, 3), 4, (2,), (4,))     # rows 1 and 2 of column 0, of a transposed tensor
    (1, (1,))
    """
    rows = row_major(own_shape)
    first = _digits(offset, own_shape, rows)
    moves = [_digits(abs(stride), own_shape, rows) for stride in strides]
    for axis, size in enumerate(own_shape):
        low = high = first[axis]
        for count, stride, move in zip(shape, strides, moves, strict=True):
            reach = (count - 1) * move[axis]
            low, high = (low - reach, high) if stride < 0 else (low, high + reach)
        if low < 0 or high >= size:
            return None
    steps = tuple(
        (-1 if stride < 0 else 1) * sum(digit * own for digit, own in zip(move, own_strides, strict=True))
        for stride, move in zip(strides, moves, strict=True)
    )
    return sum(digit * own for digit, own in zip(first, own_strides, strict=True)), steps


def _digits(flat: int, shape: Sequence[int], rows: Sequence[int]) -> list[int]:
    digits = []
    for size, row in zip(shape, rows, strict=True):
        digit = flat // row
        if digit >= size > 0 and row * size == 0:
            digit = 0
        digits.append(digit)
        flat -= digit * row
    return digits


def read_strided(
    fill: Fill,
    base: int,
    bits: np.dtype[Any],
    own_shape: Sequence[int],
    own_strides: Sequence[int],
    offset: int,
    shape: Sequence[int],
    strides: Sequence[int],
) -> Array:
    """`read_box` of a box in flat row-major elements, of a tensor whose own elements are strided."""
    if 0 in shape:
        return np.empty(tuple(shape), bits)
    own_shape, own_strides = _merged(own_shape, own_strides)
    found = compose(own_shape, own_strides, offset, shape, strides)
    if found is not None:
        return read_box(fill, base + found[0] * bits.itemsize, bits, shape, found[1])
    result = np.empty(tuple(shape), bits)
    _split(fill, base, result, own_shape, own_strides, offset, tuple(shape), tuple(strides))
    return result


def _merged(shape: Sequence[int], strides: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The same elements in the same order with as few axes as possible."""
    sizes: list[int] = []
    steps: list[int] = []
    for size, step in zip(shape, strides, strict=True):
        if size == 1:
            continue
        if sizes and steps[-1] == step * size:
            sizes[-1] *= size
            steps[-1] = step
        else:
            sizes.append(size)
            steps.append(step)
    return tuple(sizes), tuple(steps)


def _split(
    fill: Fill,
    base: int,
    result: Array,
    own_shape: tuple[int, ...],
    own_strides: tuple[int, ...],
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
) -> None:
    """Fill `result` from a box that goes over edges of the tensor's axes: cut it at those edges, or look elements up."""

    def part(low: int, high: int, *axes: tuple[int, int]) -> Array:
        """Entries low to high of the box's first axis, that axis taken as `axes` (size, stride)."""
        sizes = (*(size for size, _ in axes), *shape[1:])
        steps = (*(step for _, step in axes), *strides[1:])
        box = read_strided(fill, base, result.dtype, own_shape, own_strides, offset + low * strides[0], sizes, steps)
        return box.reshape(high - low, *shape[1:])

    step = strides[0] if shape else 0
    for axis in range(len(own_shape) - 1, 0, -1):
        block = math.prod(own_shape[axis:])  # every `block` elements axis `axis - 1` moves by one
        if step <= 0 or step >= block or block % step or offset // block == (offset + (shape[0] - 1) * step) // block:
            continue
        period = block // step
        head = -(-(-offset % block) // step)
        tail = head + (shape[0] - head) // period * period
        if head:
            result[:head] = part(0, head, (head, step))
        if tail > head:
            result[head:tail] = part(head, tail, ((tail - head) // period, block), (period, step))
        if tail < shape[0]:
            result[tail:] = part(tail, shape[0], (shape[0] - tail, step))
        return
    if shape and result.size > AT_ONCE:
        axis = max(range(len(shape)), key=lambda k: abs(strides[k]) if shape[k] > 1 else -1)
        for low, high in ((0, shape[axis] // 2), (shape[axis] // 2, shape[axis])):
            where = tuple(slice(low, high) if k == axis else slice(None) for k in range(len(shape)))
            sizes = tuple(high - low if k == axis else size for k, size in enumerate(shape))
            at = offset + low * strides[axis]
            result[where] = read_strided(fill, base, result.dtype, own_shape, own_strides, at, sizes, strides)
        return
    flat = np.full(shape, offset, np.int64)
    for axis, (size, step) in enumerate(zip(shape, strides, strict=True)):
        flat += (np.arange(size, dtype=np.int64) * step).reshape([-1 if k == axis else 1 for k in range(len(shape))])
    places = np.zeros(shape, np.int64)
    for digits, step in zip(np.unravel_index(flat, own_shape), own_strides, strict=True):
        places += digits * step
    result[...] = _look_up(fill, base, result.dtype, places)


def _look_up(fill: Fill, base: int, bits: np.dtype[Any], places: Array) -> Array:
    """The elements at these storage indices: read in runs, wherever they lie."""
    wanted, back = np.unique(places, return_inverse=True)
    values = np.empty(len(wanted), bits)
    edges = np.flatnonzero(np.diff(wanted) * bits.itemsize > GAP) + 1
    for run in np.split(np.arange(len(wanted)), edges):
        low, high = int(wanted[run[0]]), int(wanted[run[-1]])
        for part in np.array_split(run, max(1, (high - low) * bits.itemsize // SCRATCH)):
            low, high = int(wanted[part[0]]), int(wanted[part[-1]])
            covering = np.empty(high - low + 1, bits)
            fill(base + low * bits.itemsize, covering.view("u1").data)
            values[part] = covering[wanted[part] - low]
    return values[back].reshape(places.shape)
