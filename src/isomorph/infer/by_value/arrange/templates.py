"""Layouts of vectors that hold few different values, where nothing tells one element from another: the usual ones, tried in turn.

parts one after the other, or in turn within each of g groups     (q k v), (g (q + k + v))
one vector with two of its factors exchanged                      (x y) -> (y x), (x y z) -> (x z y), (y x z)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from isomorph.infer.by_value.arrange.reading import Side
from isomorph.infer.factor.blocks import Block, Spot
from isomorph.plan.boxes import row_major

Array = np.ndarray[Any, np.dtype[Any]]

MOST_ELEMENTS = 1 << 17
MOST_ORDERED = 3
"""So many parts are tried in every order, more in the order given alone."""


def by_templates(left: Side, sources: Sequence[str], right: Side, targets: Sequence[str]) -> Iterator[list[Block]]:
    """The usual layouts that the values allow, the plainest first. One side must be a single tensor, the other one's be vectors."""
    if min(len(sources), len(targets)) != 1:
        return
    is_split = len(targets) > 1
    parts, side, whole, other = (targets, right, sources[0], left) if is_split else (sources, left, targets[0], right)
    sizes = [side.spec(name).numel for name in parts]
    if any(len([size for size in side.spec(name).shape if size > 1]) > 1 for name in parts):
        return
    if sum(sizes) != other.spec(whole).numel or not 0 < sum(sizes) <= MOST_ELEMENTS:
        return
    held = {name: _bits(side, name) for name in parts}
    all_of = _bits(other, whole)
    for found in _exchanged(parts[0], whole, sizes[0]) if len(parts) == 1 else _grouped(parts, whole, sizes):
        if all(
            np.array_equal(_view(held, part, shape), _view({whole: all_of}, there, shape))
            for shape, part, there in found
        ):
            yield [Block(shape, *((there, part) if is_split else (part, there))) for shape, part, there in found]


Found = tuple[tuple[int, ...], Spot, Spot]
"""(shape, where in a part, where in the whole)."""


def _grouped(parts: Sequence[str], whole: str, sizes: Sequence[int]) -> Iterator[list[Found]]:
    common = math.gcd(*sizes)
    numbers = range(len(parts))
    orders = list(itertools.permutations(numbers)) if len(parts) <= MOST_ORDERED else [tuple(numbers)]
    for groups in (k for k in range(1, common + 1) if common % k == 0):
        for order in orders:
            found: list[Found] = []
            offset = 0
            for number in order:
                width = sizes[number] // groups
                at = Spot((parts[number],), 0, (width, 1))
                found.append(((groups, width), at, Spot((whole,), offset, (sum(sizes) // groups, 1))))
                offset += width
            yield found


def _exchanged(part: str, whole: str, size: int) -> Iterator[list[Found]]:
    divisors = [k for k in range(1, size + 1) if size % k == 0]
    for outer in divisors:
        for inner in (k for k in divisors if 1 < k < size // outer and size // outer % k == 0):
            shape = (outer, inner, size // outer // inner)
            strides = row_major(shape)
            for order in ((0, 2, 1), (1, 0, 2)) if outer > 1 else ((0, 2, 1),):
                steps = row_major(tuple(shape[axis] for axis in order))
                there = tuple(steps[order.index(axis)] for axis in range(3))
                yield [(shape, Spot((part,), 0, strides), Spot((whole,), 0, there))]


def _bits(side: Side, name: str) -> Array:
    spec = side.spec(name)
    return np.ascontiguousarray(side.bits(name, 0, spec.shape, row_major(spec.shape))).reshape(-1)


def _view(held: Mapping[str, Array], spot: Spot, shape: tuple[int, ...]) -> Array:
    flat = held[spot.names[0]][spot.offset :]
    return np.lib.stride_tricks.as_strided(
        flat, shape, tuple(step * flat.itemsize for step in spot.strides), writeable=False
    )
