"""Tensors made of tiles: boxes that lie apart, in any files, and together cover every element once.

    shape (4, 6), tiles at (0, 0) (2, 6)  and  (2, 0) (2, 6)      two bands: one axis of 24 elements, cut at 12
    shape (4, 6), tiles of (2, 3) at (0, 0) (0, 3) (2, 0) (2, 3)  a grid

Axes that no tile cuts are joined to the axis outside of them, so that bands along the first axis, the commonest case, are stretches
of one axis. A wanted box is cut at the borders of the tiles until each part lies in one tile; only those tiles are read.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

from isomorph.formats.base import Tile

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

MOST_CORNERS = 1 << 24
"""Of all tiles of a tensor: its work is in proportion to them, and a tile that n axes are cut at has 2**n."""

LEAF = 1 << 20
"""Bytes read of one tile at a time where several make up what is wanted."""

Sizes = tuple[int, ...]
ReadTile = Callable[[Tile, int, Sequence[int], Sequence[int]], "Array"]
"""read(tile, offset, shape, strides): a box in flat row-major elements of the tile."""


def flaw(shape: Sequence[int], tiles: Sequence[Tile]) -> str | None:
    """What is wrong with the tiles of a tensor, in words; None when they cover every element of it exactly once.

    Proved without looking at elements: count +1 and -1 at the corners of each tile (-1 where an odd number of coordinates is a
    stop). Tiles cover the tensor once if and only if the counts add up to those of the tensor as one tile. Where they do not, the
    first corner in row-major order at which they differ is an element that lies in another number of tiles than one.
    """
    import numpy as np

    rank = len(shape)
    odd = next((tile for tile in tiles if len(tile.start) != rank or len(tile.shape) != rank), None)
    if odd is not None:
        return f"a tile has {max(len(odd.start), len(odd.shape))} axes, the tensor {rank}"
    try:
        starts = np.array([tile.start for tile in tiles], np.int64).reshape(len(tiles), rank)
        sizes = np.array([tile.shape for tile in tiles], np.int64).reshape(len(tiles), rank)
        whole = np.array(shape, np.int64).reshape(rank)
    except OverflowError:
        return "its tiles are larger than a file can be"
    outside = ((starts < 0) | (sizes < 0) | (starts > whole) | (sizes > whole - starts)).any(axis=1)
    if outside.any():
        tile = tiles[int(outside.argmax())]
        return f"a tile of {list(tile.shape)} at {list(tile.start)} reaches out of the tensor"
    if 0 in shape:
        return None
    starts, sizes = starts[(sizes > 0).all(axis=1)], sizes[(sizes > 0).all(axis=1)]
    cut = [axis for axis in range(rank) if (starts[:, axis] > 0).any() or (sizes[:, axis] < whole[axis]).any()]
    if len(starts) << len(cut) > MOST_CORNERS:
        return f"{len(starts):,} tiles that are cut along {len(cut)} axes are more than are read"
    low = np.vstack(
        [np.zeros((1, rank), np.int64), starts]
    )  # the tensor itself comes first, and counts the other way round
    high = np.vstack([whole[None], starts + sizes])
    keys, signs = np.zeros((1, len(low)), np.int64), np.ones((1, len(low)))
    signs[0, 0] = -1
    for axis in cut:  # a corner's key is its coordinates' ranks, so that keys sort as corners do
        places, ranks = np.unique(np.concatenate([low[:, axis], high[:, axis]]), return_inverse=True)
        if int(keys.max(initial=0) + 1) * len(places) >= 1 << 62:
            keys = np.unique(keys, return_inverse=True)[1].reshape(keys.shape)
        keys = np.vstack([keys * len(places) + ranks[: len(low)], keys * len(places) + ranks[len(low) :]])
        signs = np.vstack([signs, -signs])
    _, first, where = np.unique(keys, return_index=True, return_inverse=True)
    counts = np.bincount(where.reshape(-1), weights=signs.reshape(-1))
    wrong = np.flatnonzero(counts)
    if not len(wrong):
        return None
    corner, box = divmod(int(first[wrong[0]]), len(low))
    element = [0] * rank
    for bit, axis in enumerate(reversed(cut)):  # the last axis was stacked last, and is the highest bit
        stops = corner >> (len(cut) - 1 - bit) & 1
        element[axis] = int((high if stops else low)[box, axis])
    times = int(counts[wrong[0]]) + 1
    return f"its element {element} lies in {'no tile' if times == 0 else f'{times} tiles'}"


def _joined(shape: Sequence[int], tiles: Sequence[Tile]) -> tuple[Sizes, list[tuple[Sizes, Sizes]]]:
    """Shape, and (start, shape) of each tile, with the axes that no tile cuts joined to the axis outside of them."""
    cut = [
        any(tile.shape[axis] != size for tile in tiles) or any(tile.start[axis] for tile in tiles)
        for axis, size in enumerate(shape)
    ]
    outer = [axis for axis, is_cut in enumerate(cut) if is_cut]
    if not outer or outer[0] != 0:
        outer = [0, *outer] if shape else []
    scales = [math.prod(shape[axis + 1 : stop]) for axis, stop in pairwise([*outer, len(shape)])]
    whole = tuple(shape[axis] * scale for axis, scale in zip(outer, scales, strict=True))
    boxes = [
        (
            tuple(tile.start[axis] * scale for axis, scale in zip(outer, scales, strict=True)),
            tuple(tile.shape[axis] * scale for axis, scale in zip(outer, scales, strict=True)),
        )
        for tile in tiles
    ]
    return whole, boxes


class Tiling:
    """The tiles of a tensor (proved by `flaw` to cover it once), by where they lie."""

    def __init__(self, shape: Sequence[int], tiles: Sequence[Tile]) -> None:
        kept = [tile for tile in tiles if 0 not in tile.shape]
        self.shape, self.boxes = _joined(shape, kept)
        self.tiles = kept
        self.rows = _row_major(self.shape)
        # In a grid there is a tile for every combination of where tiles start along each axis.
        self.starts = [sorted({start[axis] for start, _ in self.boxes}) for axis in range(len(self.shape))]
        self.is_grid = math.prod(map(len, self.starts)) == len(kept)
        self.by_start = {start: number for number, (start, _) in enumerate(self.boxes)} if self.is_grid else {}

    def bands(self) -> Iterator[tuple[int, int, Tile]] | None:
        """(first flat element, number of elements, tile), in order, where every tile is one stretch of the flat tensor."""
        if len(self.shape) > 1:
            return None
        order = sorted(range(len(self.tiles)), key=lambda number: self.boxes[number][0])
        return ((sum(self.boxes[each][0]), math.prod(self.boxes[each][1]), self.tiles[each]) for each in order)

    def touching(self, low: Sequence[int], high: Sequence[int]) -> list[int]:
        """The tiles that have an element between `low` and `high`, both among them."""
        if self.is_grid:
            spans = [
                starts[bisect_right(starts, first) - 1 : bisect_right(starts, last)]
                for starts, first, last in zip(self.starts, low, high, strict=True)
            ]
            return [self.by_start[start] for start in product(*spans)]
        return self.among(range(len(self.tiles)), low, high)

    def among(self, numbers: Sequence[int], low: Sequence[int], high: Sequence[int]) -> list[int]:
        """Those of `numbers` that have an element between `low` and `high`."""
        return [
            number
            for number in numbers
            if all(
                at <= last and first < at + size
                for at, size, first, last in zip(*self.boxes[number], low, high, strict=True)
            )
        ]

    def read(
        self, bits: np.dtype[Any], offset: int, shape: Sequence[int], strides: Sequence[int], read: ReadTile
    ) -> Array:
        """The elements `offset + Σ i_k*strides_k` of the flat tensor, as an array of `shape`."""
        import numpy as np

        from isomorph.formats.room import room

        if 0 in shape:
            return np.empty(tuple(shape), bits)
        kept = [axis for axis in range(len(shape)) if shape[axis] > 1 and strides[axis]]
        base = offset + sum((shape[axis] - 1) * strides[axis] for axis in kept if strides[axis] < 0)
        sizes, steps = [shape[axis] for axis in kept], [abs(strides[axis]) for axis in kept]
        first, moves = self._digits(base), [self._digits(step) for step in steps]
        last = self._last(first, sizes, moves)
        if all(at < size for at, size in zip(last, self.shape, strict=True)):
            found = self.touching(first, last)
            if len(found) == 1:
                array = self._from_tile(found[0], first, sizes, moves, read)
                return _dressed(array, shape, strides, kept)
        result = room(math.prod(sizes), bits).reshape(sizes)
        self._into(result, base, steps, read)
        return _dressed(result, shape, strides, kept)

    def _digits(self, flat: int) -> list[int]:
        digits = []
        for row in self.rows:
            digit, flat = divmod(flat, row)
            digits.append(digit)
        return digits

    def _last(self, first: Sequence[int], sizes: Sequence[int], moves: Sequence[Sequence[int]]) -> list[int]:
        return [
            at + sum((size - 1) * move[axis] for size, move in zip(sizes, moves, strict=True))
            for axis, at in enumerate(first)
        ]

    def _into(self, view: Array, offset: int, steps: Sequence[int], read: ReadTile) -> None:
        """Fill `view` with the box, cut so that no part of it goes over the edge of an axis."""
        first, moves = self._digits(offset), [self._digits(step) for step in steps]
        last = self._last(first, view.shape, moves)
        if all(at < size for at, size in zip(last, self.shape, strict=True)):
            self._rectangle(view, first, moves, self.touching(first, last), read)
            return
        for axis, (size, step) in enumerate(zip(view.shape, steps, strict=True)):
            for block in reversed(self.rows[:-1]):  # every `block` elements an outer axis moves by one
                if step >= block or block % step or offset // block == (offset + (size - 1) * step) // block:
                    continue
                period = block // step
                head = -(-(-offset % block) // step)
                tail = head + (size - head) // period * period
                for low, high in ((0, head), (tail, size)):
                    if low < high:
                        self._into(view[_along(axis, low, high)], offset + low * step, steps, read)
                if head < tail:
                    part = view[_along(axis, head, tail)]
                    count = (tail - head) // period
                    part = part.reshape(*part.shape[:axis], count, period, *part.shape[axis + 1 :])
                    self._into(part, offset + head * step, [*steps[:axis], block, *steps[axis:]], read)
                return
        axis = max((axis for axis, size in enumerate(view.shape) if size > 1), key=lambda axis: steps[axis])
        middle = view.shape[axis] // 2
        for low, high in ((0, middle), (middle, view.shape[axis])):
            self._into(view[_along(axis, low, high)], offset + low * steps[axis], steps, read)

    def _rectangle(
        self,
        view: Array,
        first: Sequence[int],
        moves: Sequence[Sequence[int]],
        near: Sequence[int],
        read: ReadTile,
    ) -> None:
        """Fill `view`, whose element (i, j, …) is element `first + i*moves[0] + j*moves[1] + …`, from the tiles `near`."""
        last = self._last(first, view.shape, moves)
        near = self.among(near, first, last)
        if len(near) == 1:
            self._leaf(view, near[0], first, moves, read)
            return
        borders = [
            sorted({start for number in near if (start := self.boxes[number][0][axis]) > first[axis]})
            for axis in range(len(first))
        ]
        axis = max(range(len(first)), key=lambda each: len(borders[each]))
        border = borders[axis][len(borders[axis]) // 2]
        k = max((k for k, size in enumerate(view.shape) if size > 1), key=lambda k: moves[k][axis])
        size, move = view.shape[k], moves[k][axis]
        rest = last[axis] - first[axis] - (size - 1) * move
        below = max(0, -((first[axis] + rest - border) // move))  # entries that lie before the border, whole
        above = min(size, -((first[axis] - border) // move))  # and the first that lies behind it, whole
        cuts = sorted({0, min(below, size), above, size})
        if len(cuts) == 2:  # every entry goes over the border
            cuts = [0, size // 2, size]
        for low, high in pairwise(cuts):
            begin = [at + low * step for at, step in zip(first, moves[k], strict=True)]
            self._rectangle(view[_along(k, low, high)], begin, moves, near, read)

    def _leaf(
        self, view: Array, number: int, first: Sequence[int], moves: Sequence[Sequence[int]], read: ReadTile
    ) -> None:
        if view.nbytes > LEAF and view.size > 1:
            k = max((k for k, size in enumerate(view.shape) if size > 1), key=lambda k: self._reach(moves[k]))
            rows = max(1, view.shape[k] * LEAF // view.nbytes)
            if rows < view.shape[k]:
                for low in range(0, view.shape[k], rows):
                    begin = [at + low * step for at, step in zip(first, moves[k], strict=True)]
                    self._leaf(view[_along(k, low, min(low + rows, view.shape[k]))], number, begin, moves, read)
                return
        view[...] = self._from_tile(number, first, view.shape, moves, read)

    def _reach(self, move: Sequence[int]) -> int:
        return sum(digit * row for digit, row in zip(move, self.rows, strict=True))

    def _from_tile(
        self, number: int, first: Sequence[int], sizes: Sequence[int], moves: Sequence[Sequence[int]], read: ReadTile
    ) -> Array:
        start, shape = self.boxes[number]
        rows = _row_major(shape)
        offset = sum((at - begin) * row for at, begin, row in zip(first, start, rows, strict=True))
        steps = [sum(digit * row for digit, row in zip(move, rows, strict=True)) for move in moves]
        return read(self.tiles[number], offset, sizes, steps)


def _row_major(shape: Sequence[int]) -> Sizes:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _along(axis: int, low: int, high: int) -> tuple[slice, ...]:
    return (*(slice(None) for _ in range(axis)), slice(low, high))


def _dressed(array: Array, shape: Sequence[int], strides: Sequence[int], kept: Sequence[int]) -> Array:
    """`array` of the axes `kept`, with backward axes turned, and single and repeated axes put back."""
    import numpy as np

    array = array[tuple(slice(None, None, -1 if strides[axis] < 0 else 1) for axis in kept)]
    full = array.reshape([size if axis in kept else 1 for axis, size in enumerate(shape)])
    return full if full.shape == tuple(shape) else np.broadcast_to(full, tuple(shape))


__all__ = ["Tiling", "flaw"]
