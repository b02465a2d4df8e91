"""Cutting boxes: into rectangles of at most so many elements, and at a range of the target's flat elements.

clip(move, 10, 20)      the moves that fill target elements 10 … 19 of what `move` fills, and nothing else
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from isomorph.plan.moves import Along, Box, Fill, Mix, Move, Source

Part = tuple[tuple[int, int], ...]
"""For each axis the indices from … to (exclusive)."""

AnySource = TypeVar("AnySource", Box, Fill, Source)


def fractions_of(shape: Sequence[int], most: int) -> Iterator[Part]:
    """Rectangles of at most `most` (>= 1) elements that make up `shape`, in row-major order. Nothing for an empty shape.

    >>> list(fractions_of((3, 2), 4))
    [((0, 2), (0, 2)), ((2, 3), (0, 2))]
    """
    if 0 in shape:
        return
    inner = math.prod(shape[1:])
    if not shape or inner * shape[0] <= most:
        yield tuple((0, size) for size in shape)
    elif inner <= most:
        rows = most // inner
        for start in range(0, shape[0], rows):
            yield ((start, min(start + rows, shape[0])), *((0, size) for size in shape[1:]))
    else:
        for index in range(shape[0]):
            for rest in fractions_of(shape[1:], most):
                yield ((index, index + 1), *rest)


def clip_source(source: AnySource, part: Part) -> AnySource:
    """The elements of `source` inside `part`; axes are kept, with the sizes of the part."""
    shape = tuple(stop - start for start, stop in part)
    if isinstance(source, Box):
        offset = source.offset + sum(start * step for (start, _), step in zip(part, source.strides, strict=True))
        return Box(source.tensor, offset, shape, source.strides)
    if isinstance(source, Fill):
        value = source.value
        if source.arange_strides is not None:
            value += sum(start * step for (start, _), step in zip(part, source.arange_strides, strict=True))
        return Fill(value, source.dtype, shape, source.arange_strides)
    if isinstance(source, Along):
        offset = source.offset + sum(start * step for (start, _), step in zip(part, source.strides, strict=True))
        return replace(source, offset=offset, shape=shape)
    if isinstance(source, Mix):
        return replace(source, sources=tuple(clip_source(each, part) for each in source.sources))
    raise TypeError(source)


def transpose_source(source: Source, order: Sequence[int]) -> Source:
    """The same elements with the axes in another order."""
    if isinstance(source, Box):
        return Box(
            source.tensor,
            source.offset,
            tuple(source.shape[axis] for axis in order),
            tuple(source.strides[axis] for axis in order),
        )
    if isinstance(source, Fill):
        steps = source.arange_strides
        return Fill(
            source.value,
            source.dtype,
            tuple(source.shape[axis] for axis in order),
            None if steps is None else tuple(steps[axis] for axis in order),
        )
    if isinstance(source, Along):
        shape, strides = (tuple(each[axis] for axis in order) for each in (source.shape, source.strides))
        return replace(source, shape=shape, strides=strides)
    return replace(source, sources=tuple(transpose_source(each, order) for each in source.sources))


def outermost_first(move: Move) -> Move:
    """The same move with its axes sorted by target stride, the largest first."""
    strides = move.target.strides
    order = sorted(range(len(strides)), key=lambda axis: -abs(strides[axis]))
    if order == list(range(len(strides))):
        return move
    target = transpose_source(move.target, order)
    assert isinstance(target, Box)  # a Box stays one
    return Move(target, transpose_source(move.source, order), move.operators)


def extent(box: Box) -> tuple[int, int]:
    """The flat elements from … to (exclusive) between which all of `box` lies; an empty range for an empty box."""
    if 0 in box.shape:
        return box.offset, box.offset
    low = box.offset + sum(min(0, (size - 1) * step) for size, step in zip(box.shape, box.strides, strict=True))
    high = box.offset + sum(max(0, (size - 1) * step) for size, step in zip(box.shape, box.strides, strict=True))
    return low, high + 1


def clip(move: Move, start: int, stop: int) -> list[Move]:
    """The parts of `move` whose target elements (flat, in the tensor) lie in `start` … `stop` (exclusive).

    Few boxes where the target's axes are nested, as those of a row-major tensor are: at most two for every axis, and one.
    """
    low, high = extent(move.target)
    if high <= start or stop <= low:
        return []
    if start <= low and high <= stop:
        return [move]
    move = outermost_first(move)
    parts = _inside(move.target.offset, move.target.shape, move.target.strides, start, stop)
    found = []
    for part in parts:
        target = clip_source(move.target, part)
        found.append(Move(target, clip_source(move.source, part), move.operators))
    return found


def _inside(offset: int, shape: tuple[int, ...], strides: tuple[int, ...], start: int, stop: int) -> list[Part]:
    """The rectangles whose elements `offset + Σ i*stride` lie in `start` … `stop`, in rising order of the first axis."""
    if not shape:
        return [()] if start <= offset < stop else []
    size, step, rest, steps = shape[0], strides[0], shape[1:], strides[1:]
    low = sum(min(0, (count - 1) * each) for count, each in zip(rest, steps, strict=True))
    high = sum(max(0, (count - 1) * each) for count, each in zip(rest, steps, strict=True))
    # Row i lies in offset + i*step + [low, high]: `some` rows touch the range, `whole` rows lie in it.
    some = _rows(size, step, start - offset - high, stop - 1 - offset - low)
    whole = _rows(size, step, start - offset - low, stop - 1 - offset - high)
    if whole[0] >= whole[1]:
        whole = (some[1], some[1])
    full: Part = tuple((0, count) for count in rest)
    found: list[Part] = []
    for index in range(some[0], whole[0]):
        found.extend(((index, index + 1), *part) for part in _inside(offset + index * step, rest, steps, start, stop))
    if whole[0] < whole[1]:
        found.append(((whole[0], whole[1]), *full))
    for index in range(whole[1], some[1]):
        found.extend(((index, index + 1), *part) for part in _inside(offset + index * step, rest, steps, start, stop))
    return found


def _rows(size: int, step: int, low: int, high: int) -> tuple[int, int]:
    """The indices i in 0 … size (exclusive) with low <= i*step <= high, as a range."""
    if step == 0:
        return (0, size) if low <= 0 <= high else (0, 0)
    if step < 0:
        step, low, high = -step, -high, -low
    first, last = max(0, -(-low // step)), min(size - 1, high // step)
    return (first, last + 1) if first <= last else (0, 0)
