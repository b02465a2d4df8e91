"""Layouts by fibres: an axis that both sides carry whole is summed away, what is left is arranged, and then the axis itself.

The sum of the hashes of a row is that row's own number, also where elements repeat (bf16 has few values), and there are as many
fewer numbers as the row is long. The carried axis is then looked at alone, in some rows together: it may be in another order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from isomorph.infer.by_value.arrange.map import KeyBox, boxes, steps_of
from isomorph.infer.by_value.arrange.reading import Side, tiles
from isomorph.infer.by_value.hashing import mix
from isomorph.infer.factor.blocks import Block, NoLayout, Spot, dim_and_step, place_in, within_dims
from isomorph.plan.boxes import row_major
from isomorph.plan.moves import Fill
from isomorph.tensors import DType, TensorSpec

Array = np.ndarray[Any, np.dtype[Any]]

MOST_SIZES = 4
"""Sizes of axes that are tried."""
MOST_SUMS = 1 << 22
"""Sums that are held at a time."""
BYTES_PER_SUM = 96
"""What arranging one of them takes, at its peak; memory bounds them too."""
ROWS, ALL_ROWS, FEWEST_ROWS = 48, 1024, 6
"""Rows that are looked at to see how the carried axis lies: of each block, of all together, and of each at least."""

U64 = DType("u64", 8, "unsigned")


@dataclass(frozen=True)
class Summed:
    """A tensor with one dim summed away: `sums` is flat, of `shape` without that dim."""

    name: str
    shape: tuple[int, ...]
    dim: int
    sums: Array

    @property
    def rest(self) -> tuple[int, ...]:
        return self.shape[: self.dim] + self.shape[self.dim + 1 :]

    def lifted(self, flat: int) -> int:
        """The flat place, in the whole tensor, of entry 0 of the fibre at `flat` of the rest."""
        strides = row_major(self.shape)
        kept = strides[: self.dim] + strides[self.dim + 1 :]
        return sum(digit * stride for digit, stride in zip(place_in(flat, self.rest), kept, strict=True))

    def lifted_stride(self, stride: int) -> int:
        strides = row_major(self.shape)
        kept = strides[: self.dim] + strides[self.dim + 1 :]
        dim, step = dim_and_step(stride, self.rest)
        return step * kept[dim]

    @property
    def stride(self) -> int:
        return row_major(self.shape)[self.dim]


def summed(side: Side, name: str, dims: Sequence[int]) -> list[Summed]:
    """The sums of the hashes over each of these dims, in one pass of tiles."""
    shape = side.spec(name).shape
    strides = row_major(shape)
    outs = [np.zeros(shape[:dim] + shape[dim + 1 :], np.uint64) for dim in dims]
    for start, tile in tiles(shape):
        offset = sum(a * b for a, b in zip(start, strides, strict=True))
        keys = side.keys(name, offset, tile, strides)
        for dim, out in zip(dims, outs, strict=True):
            where = tuple(slice(low, low + size) for low, size in zip(start, tile, strict=True))
            out[where[:dim] + where[dim + 1 :]] += keys.sum(axis=dim, dtype=np.uint64)
    return [Summed(name, shape, dim, out.reshape(-1)) for dim, out in zip(dims, outs, strict=True)]


def by_fibres(
    left: Side, sources: Sequence[str], right: Side, targets: Sequence[str], max_memory: int
) -> Iterator[list[Block]]:
    """Layouts that carry one axis of every tensor whole. They are to be confirmed."""
    target_sizes = [set(right.spec(name).shape) - {1} for name in targets]
    sizes = set.intersection(*target_sizes) if target_sizes else set()
    sizes &= set().union(*(left.spec(name).shape for name in sources)) if sources else set()
    for size in sorted(sizes, reverse=True)[:MOST_SIZES]:
        found = _of_size(left, sources, right, targets, size, min(MOST_SUMS, max_memory // BYTES_PER_SUM))
        if found is not None:
            yield found


def _of_size(
    left: Side, sources: Sequence[str], right: Side, targets: Sequence[str], size: int, most: int
) -> list[Block] | None:
    every = [(left, name) for name in sources if size in left.spec(name).shape]
    every += [(right, name) for name in targets]
    rest = [side.spec(name).numel // size for side, name in every]
    if max(rest) == 1 or sum(rest) > most:
        return None
    options_of_sources = [_options(left, name, size) for name in sources if size in left.spec(name).shape]
    options_of_targets = [_options(right, name, size) for name in targets]
    held = np.unique(np.concatenate([each.sums for options in options_of_sources for each in options]))
    there = [max(options, key=lambda each: _share(each, held)) for options in options_of_targets]
    wanted = np.unique(np.concatenate([each.sums for each in there]))
    here = [max(options, key=lambda each: _share(each, wanted)) for options in options_of_sources]
    here = [each for each in here if _share(each, wanted) > 0]
    if not here or max(_share(each, held) for each in there) == 0:
        return None
    found = boxes([each.sums for each in here], [each.sums for each in there], steps_of([each.rest for each in there]))
    if found is None:
        return None
    try:
        return _whole(found, here, there, left, right, size)
    except NoLayout:
        return None


def _options(side: Side, name: str, size: int) -> list[Summed]:
    shape = side.spec(name).shape
    return summed(side, name, [dim for dim, each in enumerate(shape) if each == size])


def _share(each: Summed, held: Array) -> float:
    """How many of the sums are among those that are held (sorted)."""
    near = np.minimum(np.searchsorted(held, each.sums), held.size - 1)
    return float((held[near] == each.sums).mean())


def _whole(
    found: Sequence[KeyBox], here: Sequence[Summed], there: Sequence[Summed], left: Side, right: Side, size: int
) -> list[Block]:
    """The blocks of whole tensors: those of sums, each times the carried axis."""
    specs: Mapping[str, TensorSpec] = {
        **{f"s{number}": TensorSpec(U64, each.rest) for number, each in enumerate(here)},
        **{f"t{number}": TensorSpec(U64, each.rest) for number, each in enumerate(there)},
    }
    blocks = within_dims([_as_block(box) for box in found], specs)
    most = max(FEWEST_ROWS, min(ROWS, ALL_ROWS // len(blocks)))
    done: list[Block] = []
    for block in blocks:
        target = there[int(block.target.names[0][1:])]
        offset = target.lifted(block.target.offset)
        strides = tuple(target.lifted_stride(stride) for stride in block.target.strides)
        lifted = Spot((target.name,), offset, strides)
        if isinstance(block.source, Fill):
            value = filled_with(right, target.name, offset, (*block.shape, size))
            done.append(Block((*block.shape, size), value, Spot(lifted.names, offset, (*strides, target.stride))))
            continue
        source = here[int(block.source.names[0][1:])]
        origin = source.lifted(block.source.offset)
        steps = tuple(source.lifted_stride(stride) for stride in block.source.strides)
        for box in _carried(
            Block(block.shape, Spot((source.name,), origin, steps), lifted), source, target, left, right, most
        ):
            shape = (*block.shape, *box.shape)
            at = Spot(
                (source.name,),
                origin + box.source_offset * source.stride,
                (*steps, *(k * source.stride for k in box.source_strides)),
            )
            to = Spot(
                lifted.names,
                offset + box.target_offset * target.stride,
                (*strides, *(k * target.stride for k in box.target_strides)),
            )
            done.append(Block(shape, at, to))
    return done


def _as_block(box: KeyBox) -> Block:
    target = Spot((f"t{box.target}",), box.target_offset, box.target_strides)
    if box.source < 0:
        return Block(box.shape, Fill(0, U64, box.shape), target)
    return Block(box.shape, Spot((f"s{box.source}",), box.source_offset, box.source_strides), target)


def _carried(block: Block, source: Summed, target: Summed, left: Side, right: Side, most: int) -> list[KeyBox]:
    """How the carried axis lies: from rows of the block, all together. Raises NoLayout."""
    assert isinstance(block.source, Spot)
    count = math.prod(block.shape)
    rows = sorted({int(k) for k in np.linspace(0, count - 1, min(most, count))})
    size = source.shape[source.dim]
    mine, its = np.zeros(size, np.uint64), np.zeros(size, np.uint64)
    for number, row in enumerate(rows):
        index = place_in(row, block.shape)
        here = block.source.offset + sum(a * b for a, b in zip(index, block.source.strides, strict=True))
        to = block.target.offset + sum(a * b for a, b in zip(index, block.target.strides, strict=True))
        mine += mix(left.keys(source.name, here, (size,), (source.stride,)), number)
        its += mix(right.keys(target.name, to, (size,), (target.stride,)), number)
    if np.array_equal(mine, its):
        return [KeyBox(0, 0, (1,), 0, 0, (1,), (size,))]
    found = boxes([mine], [its], complete=True)
    if found is None:
        raise NoLayout
    return found


def filled_with(side: Side, name: str, offset: int, shape: tuple[int, ...]) -> Fill:
    """A constant of this shape: the value of the element at `offset`. Raises NoLayout for what the notation cannot write."""
    dtype = side.spec(name).dtype
    value = side.bits(name, offset, (1,), (1,)).copy().view(dtype.numpy)[0]
    if dtype.kind not in ("float", "signed", "unsigned") or value != value:
        raise NoLayout
    if dtype.is_float:
        number = float(value)
        if number == 0 and np.signbit(value):
            return Fill(-0.0, dtype, shape)
        return Fill(Fraction(number) if math.isfinite(number) else number, dtype, shape)
    return Fill(Fraction(int(value)), dtype, shape)
