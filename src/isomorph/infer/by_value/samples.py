"""A few thousand elements of a tensor, on a grid: the same places of any two tensors of one shape, transposed ones too."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import Any

import numpy as np

from isomorph.formats.base import Checkpoint
from isomorph.operators.casting import to_f64

Array = np.ndarray[Any, np.dtype[Any]]

ELEMENTS = 4096
"""About so many elements of a tensor are looked at."""
MOST_AXES = 4
"""Tensors of more axes than this (unit axes aside) are compared in the order of their axes only."""


def sample(checkpoint: Checkpoint, name: str) -> Array:
    """Elements on a grid, f64, without unit axes; what is not finite is 0.

    An axis of n entries has min(n, c) places, c the same for all axes: the sample of a transposed tensor is the sample, transposed.
    """
    spec = checkpoint.manifest[name]
    sizes = [size for size in spec.shape if size != 1]
    counts = counts_of(sizes)
    strides = [math.prod(sizes[axis + 1 :]) * (sizes[axis] // counts[axis]) for axis in range(len(sizes))]
    bits = np.ascontiguousarray(checkpoint.fetch(name, 0, counts, strides)).view(spec.dtype.bits)
    if spec.dtype.is_float:
        values = to_f64(bits.reshape(-1), spec.dtype)
    else:
        values = bits.reshape(-1).view("u1" if spec.dtype.kind == "bool" else spec.dtype.numpy).astype(np.float64)
    return np.where(np.isfinite(values), values, 0.0).reshape(counts)


def counts_of(sizes: Sequence[int]) -> list[int]:
    """How many entries of each axis are looked at.

    >>> counts_of([4096, 1024]), counts_of([100]), counts_of([1024, 3, 16, 16])
    ([64, 64], [100], [11, 3, 11, 11])
    """
    if 0 in sizes:
        return [0] * len(sizes)
    low, high = 1, max([1, *sizes])
    while low < high:
        middle = (low + high + 1) // 2
        if math.prod(min(size, middle) for size in sizes) <= ELEMENTS:
            low = middle
        else:
            high = middle - 1
    return [min(size, low) for size in sizes]


def orders(mine: Sequence[int], its: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """The orders of axes in which a tensor of sizes `mine` has the sizes `its` (no unit axes), the given order first."""
    if tuple(mine) == tuple(its):
        yield tuple(range(len(mine)))
    if 1 < len(mine) <= MOST_AXES:
        for order in permutations(range(len(mine))):
            if order != tuple(range(len(mine))) and all(mine[a] == size for a, size in zip(order, its, strict=True)):
                yield order
