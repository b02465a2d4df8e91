"""A region cut into tiles that fit into memory and are good to read on both sides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod

from isomorph.verify.regions import Along, End, Leaf, Region, Whole, mapped, part

AT_ONCE = 16 << 20
"""Bytes that an operator along axes computes with at a time."""


def tiles(region: Region, most_elements: int) -> Iterator[Region]:
    """Tiles of at most `most_elements`; together the region, in the order of its axes.

    The axis that steps least is grown first, in turn on each side, so that every side is read in long runs.
    """
    shape = region.shape
    along = next((end for end in ends_of(region) if isinstance(end, Along)), None)
    if along is not None:
        for some in _by_outer(region, along):
            yield from near(some, most_elements)
        return
    if prod(shape) <= most_elements:
        yield region
        return
    yield from _cut(region, _tile_shape(region, most_elements))


def _cut(region: Region, size: Sequence[int]) -> Iterator[Region]:
    shape = region.shape
    for starts in product(*(range(0, whole, step) for whole, step in zip(shape, size, strict=True))):
        tile = region
        for axis, start in enumerate(starts):
            stop = min(shape[axis], start + size[axis])
            if (start, stop) != (0, shape[axis]):
                tile = part(tile, axis, start, stop)
        yield tile


def at_once(whole: Whole) -> int:
    """How many indices of the other axes an operator along axes works on at a time."""
    return max(1, AT_ONCE // (8 * (prod(whole.before) + prod(whole.after))))


def _by_outer(region: Region, along: Along) -> Iterator[Region]:
    """The region cut by the other axes, as many of their indices as the operator works on: so that it is carried out once."""
    made = prod(along.whole.after)
    size = list(region.shape)
    outer = [axis for axis, stride in enumerate(along.strides) if size[axis] > 1 and stride >= made]
    inmost = min(outer, key=lambda axis: along.strides[axis], default=None)
    for axis in outer:
        few = at_once(along.whole) // (along.strides[axis] // made) if axis == inmost else 1
        size[axis] = max(1, min(size[axis], few))
    yield from _cut(region, size)


def near(region: Region, most: int) -> Iterator[Region]:
    """The region in halves of halves, until no leaf of one reaches over more than `most` elements."""
    waiting = [region]
    while waiting:
        region = waiting.pop()
        far = {
            axis: (size - 1) * abs(end.strides[axis])
            for end in ends_of(region)
            if isinstance(end, Leaf)
            and 1 + sum((n - 1) * abs(s) for n, s in zip(region.shape, end.strides, strict=True)) > most
            for axis, size in enumerate(region.shape)
            if size > 1
        }
        if not far:
            yield region
            continue
        axis = max(far, key=lambda axis: far[axis])
        half = region.shape[axis] // 2
        waiting += [part(region, axis, half, region.shape[axis]), part(region, axis, 0, half)]


def ends_of(region: Region) -> list[End]:
    """All ends of both sides."""
    ends: list[End] = []

    def note(end: End) -> End:
        ends.append(end)
        return end

    for side in (region.left, region.right):
        mapped(side, note)
    return ends


def _tile_shape(region: Region, most: int) -> list[int]:
    ends = ends_of(region)
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
