"""The bits of a region's side: leaves are read, constants made, operators carried out. And two sides compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np

from isomorph.formats.base import Checkpoint
from isomorph.tensors import DType
from isomorph.verify.gather import Buffer, gather
from isomorph.verify.operators import add, along, carry_out
from isomorph.verify.regions import SCRATCH, Along, Constant, Leaf, Node, Region, Whole, coalesced, trace
from isomorph.verify.tiles import AT_ONCE, at_once, near
from isomorph.verify.values import BadConstant, bounds, constant_bits, largest_of

Bits = np.ndarray[Any, np.dtype[Any]]

BLOCK = 1 << 16
"""Elements compared at a time where the two sides lie in different orders: with both sides they stay in the second-level cache."""


MOST_KEPT = 4
WHOLE = 1 << 30
"""The level of what an operator along axes takes, while it is traced to the source."""

Pieces = Callable[[int, str], list[Region]]


def _unmade(level: int, name: str) -> list[Region]:
    raise AssertionError(f"nothing makes `{name}`")


class Bench:
    """One thread's place to work: its buffers, the checkpoints by level, and what the tensors in between are made of."""

    def __init__(self, checkpoints: Mapping[int, Checkpoint], pieces: Pieces = _unmade) -> None:
        self._checkpoints = checkpoints
        self._pieces = pieces
        self._kept: dict[tuple[int, int], tuple[Whole, Bits]] = {}
        self._buffers: list[Buffer] = []
        self._used = 0
        self._scratch = Buffer()

    def sides(self, left: Node, right: Node, shape: tuple[int, ...]) -> tuple[Bits, Bits]:
        """The bits of both sides; good until the next call."""
        self._used = 0
        return self._bits(left, shape), self._bits(right, shape)

    def differing(self, left: Bits, right: Bits) -> tuple[int, int] | None:
        """(how many elements differ, flat row-major index of the first in their shape); None when all are equal."""
        width = left.dtype.itemsize
        if width not in (1, 2, 4, 8):
            left, right = _words(left), _words(right)
            return None if np.array_equal(left, right) else _count((left != right).any(axis=-1))
        if left.flags.c_contiguous and right.flags.c_contiguous:
            if np.array_equal(_wide(left), _wide(right)):
                return None
        elif self._equal_in_blocks(left, right):
            return None
        return _count(left != right)

    def _equal_in_blocks(self, left: Bits, right: Bits) -> bool:
        right = self._spread_out(right)
        left = self._spread_out(left)
        rows = left.shape[0] if left.ndim else 1
        if left.ndim < 2:
            return bool(np.array_equal(left, right))
        inner = left.size // rows
        if inner > BLOCK:
            return all(self._equal_in_blocks(left[row], right[row]) for row in range(rows))
        step = max(1, BLOCK // inner)
        return all(np.array_equal(left[row : row + step], right[row : row + step]) for row in range(0, rows, step))

    def _spread_out(self, array: Bits) -> Bits:
        """The array, copied so that no long power of two lies between its elements, where it is walked across."""
        order = sorted(range(array.ndim), key=lambda axis: -array.strides[axis])
        if array.ndim != 2 or order == [0, 1] or array.strides[order[0]] % 512:
            return array
        straight = array.transpose(order)
        width = straight.shape[1] + 64 // array.itemsize
        space = self._scratch.take(straight.shape[0] * width * array.itemsize).view(array.dtype)
        copy = space.reshape(straight.shape[0], width)[:, : straight.shape[1]]
        np.copyto(copy, straight)
        return copy.transpose(np.argsort(order))

    def _bits(self, node: Node, shape: tuple[int, ...]) -> Bits:
        if isinstance(node, Leaf):
            if self._used == len(self._buffers):
                self._buffers.append(Buffer())
            self._used += 1
            checkpoint = self._checkpoints[node.level]
            return gather(checkpoint, node, checkpoint.manifest[node.name].dtype, shape, self._buffers[self._used - 1])
        if isinstance(node, Constant):
            return _constant(node, shape)
        if isinstance(node, Along):
            return self._along(node, shape)
        kind = node.parts[0].dtype
        bits = self._bits(node.parts[0], shape)
        for part in node.parts[1:]:
            bits = add(bits, self._bits(part, shape), kind)
        for op in node.operators:
            bits, kind = carry_out(op, bits, kind)
        return bits

    def _along(self, node: Along, shape: tuple[int, ...]) -> Bits:
        """A box of what an operator along axes makes: as many of the other axes' indices at a time as AT_ONCE allows."""
        whole = node.whole
        made = prod(whole.after)
        flat = np.full(shape, node.offset, dtype=np.int64)
        for axis, (size, stride) in enumerate(zip(shape, node.strides, strict=True)):
            flat += (np.arange(size, dtype=np.int64) * stride).reshape(-1, *[1] * (len(shape) - axis - 1))
        found = np.empty(shape, dtype=node.dtype.bits)
        if not found.size:
            return found
        step = at_once(whole)
        least, most = int(flat.min()) // made, int(flat.max()) // made
        for start in range(least // step * step, most + 1, step):
            stop = min(start + step, whole.outer)
            here = (flat >= start * made) & (flat < stop * made)
            if here.any():
                found[here] = self._whole(whole, start, stop).reshape(-1)[flat[here] - start * made]
        return found

    def _whole(self, whole: Whole, start: int, stop: int) -> Bits:
        """What the operator makes of indices `start` to `stop`; the last few are kept, for the tiles of one tensor."""
        key = (id(whole), start)
        if key in self._kept:
            return self._kept[key][1]
        taken = prod(whole.before)
        array = np.empty((stop - start) * taken, dtype=whole.kind.bits)
        left = Leaf(SCRATCH, "", start * taken, (1,), whole.kind)
        region = Region((len(array),), left, Leaf(WHOLE, "", start * taken, (1,), whole.kind))
        used = self._used
        for each in trace(region, self._pieces_of(whole)):
            for tile in near(coalesced(each), AT_ONCE // 8):
                place = tile.left
                assert isinstance(place, Leaf)
                steps = tuple(stride * array.itemsize for stride in place.strides)
                bits = self._bits(tile.right, tile.shape)
                view = np.ndarray(
                    tile.shape, array.dtype, array, (place.offset - start * taken) * array.itemsize, steps
                )
                view[...] = bits
                self._used = used
        result = along(whole.operator, array.reshape(stop - start, *whole.before), whole.kind, whole.after)
        if len(self._kept) >= MOST_KEPT:
            self._kept.pop(next(iter(self._kept)))
        self._kept[key] = (whole, result)
        return result

    def _pieces_of(self, whole: Whole) -> Pieces:
        return lambda level, name: list(whole.regions) if level == WHOLE else self._pieces(level, name)


def _count(wrong: Bits) -> tuple[int, int] | None:
    count = int(np.count_nonzero(wrong))
    return (count, int(np.argmax(wrong))) if count else None


def _words(bits: Bits) -> Bits:
    """Elements that no integer is as wide as, each as a row of integers (pairs of u8 for c128)."""
    width = bits.dtype.itemsize
    word = next(size for size in (8, 4, 2, 1) if width % size == 0)
    return np.ascontiguousarray(bits).reshape(-1).view(f"u{word}").reshape(*bits.shape, width // word)


def _wide(bits: Bits) -> Bits:
    """Contiguous bits as the widest words that fit."""
    flat = bits.reshape(-1).view(np.uint8)
    return flat.view(np.uint64) if flat.size % 8 == 0 else flat


def _constant(node: Constant, shape: tuple[int, ...]) -> Bits:
    if not node.counts:
        return np.broadcast_to(constant_bits(node.value, node.dtype), shape)
    numbers = np.full(shape, node.offset, dtype=np.int64)
    for axis, (size, stride) in enumerate(zip(shape, node.strides, strict=True)):
        numbers += (np.arange(size, dtype=np.int64) * stride).reshape(-1, *[1] * (len(shape) - axis - 1))
    kind: DType = node.dtype
    if numbers.size:
        most = int(numbers.max())
        high = bounds(kind)[1] if kind.kind != "float" and kind.kind != "complex" else None
        if most > (high if high is not None else largest_of(kind)):
            raise BadConstant(f"arange reaches {most}, which {kind} cannot hold")
    if kind.kind == "float" and kind.nbytes <= 2:
        return numbers.astype(np.float64).astype(kind.numpy).view(kind.bits)
    return numbers.astype(kind.numpy).view(kind.bits)
