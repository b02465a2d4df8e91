"""A region cut into tiles that fit into memory and are good to read on both sides."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod

from isomorph.verify.regions import End, Leaf, Region, mapped, part


def tiles(region: Region, most_elements: int) -> Iterator[Region]:
    """Tiles of at most `most_elements`; together the region, in the order of its axes.

    The axis that steps least is grown first, in turn on each side, so that every side is read in long runs.
    """
    shape = region.shape
    if prod(shape) <= most_elements:
        yield region
        return
    size = _tile_shape(region, most_elements)
    for starts in product(*(range(0, whole, step) for whole, step in zip(shape, size, strict=True))):
        tile = region
        for axis, start in enumerate(starts):
            stop = min(shape[axis], start + size[axis])
            if (start, stop) != (0, shape[axis]):
                tile = part(tile, axis, start, stop)
        yield tile


def _tile_shape(region: Region, most: int) -> list[int]:
    ends: list[End] = []

    def note(end: End) -> End:
        ends.append(end)
        return end

    for side in (region.left, region.right):
        mapped(side, note)
    shape = region.shape
    orders = {
        tuple(sorted(range(len(shape)), key=lambda axis: abs(end.strides[axis])))
        for end in ends
        if isinstance(end, Leaf)
    }
    size = [1] * len(shape)
    grown = True
    while grown:
        grown = False
        for order in sorted(orders):
            axis = next((axis for axis in order if size[axis] < shape[axis]), None)
            if axis is None:
                continue
            wider = min(shape[axis], size[axis] * 2)
            if prod(size) // size[axis] * wider <= most:
                size[axis] = wider
                grown = True
    if len(orders) <= 1:
        order = next(iter(orders), tuple(reversed(range(len(shape)))))
        axis = next(axis for axis in order if size[axis] < shape[axis])
        size[axis] = max(size[axis], min(shape[axis], most // (prod(size) // size[axis])))
    return size
