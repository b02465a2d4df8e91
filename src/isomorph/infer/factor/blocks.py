"""Moves -> blocks: strided boxes of stacks of tensors, as few as there can be, each axis within one dim of both sides.

A stack is tensors of one shape, one behind the other, as one tensor with a first dim that counts them: so an axis that runs over
tensors (`x.{e}.w [o i] <-> x.w [e o i]`) is an axis like any other, of the first dim.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from isomorph.plan.boxes import row_major, simplify
from isomorph.plan.moves import Box, Fill, Move
from isomorph.tensors import TensorSpec

MOST_BLOCKS = 4096
"""More cannot be meant, and would take long."""

Names = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Spot:
    """Strided elements of the stack of `names`: element (i0, i1, …) at `offset + Σ ik * strides[k]` of the stack's flat order."""

    names: Names
    offset: int
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """Elements of `target` that come, index by index, from those of `source`. A Fill: from a constant."""

    shape: tuple[int, ...]
    source: Spot | Fill
    target: Spot


class NoLayout(Exception):
    """The moves are no sums of products of axes."""


def blocks_of(moves: Sequence[Move]) -> list[Block]:
    """The blocks of moves from boxes and constants. Raises NoLayout for other moves."""
    return [_block(move) for move in moves if 0 not in move.target.shape]


def _block(move: Move) -> Block:
    source = move.source
    if isinstance(source, Box):
        shape, (left, right) = simplify(move.target.shape, (source.strides, move.target.strides))
        return Block(
            shape, Spot((source.tensor,), source.offset, left), Spot((move.target.tensor,), move.target.offset, right)
        )
    if not isinstance(source, Fill):
        raise NoLayout
    counts = source.arange_strides or (0,) * len(source.shape)
    shape, (count, right) = simplify(move.target.shape, (counts, move.target.strides))
    constant = replace(source, shape=shape, arange_strides=None if source.arange_strides is None else count)
    return Block(shape, constant, Spot((move.target.tensor,), move.target.offset, right))


# ── gathering ────────────────────────────────────────────────────────────────────────────────────────────────────────


def gathered(found: list[Block], specs: Mapping[str, TensorSpec]) -> list[Block]:
    """The same elements in fewer blocks: equal ones at equal distances become one with an axis more; neighbours become one."""
    number = {name: k for k, name in enumerate(specs)}

    def by_target(block: Block) -> tuple[object, ...]:
        return tuple(number[name] for name in block.target.names), block.target.offset

    def by_source(block: Block) -> tuple[object, ...]:
        if isinstance(block.source, Fill):
            return (0, (), 0, *by_target(block))
        return 1, tuple(number[name] for name in block.source.names), block.source.offset, *by_target(block)

    count = len(found) + 1
    while len(found) < count:
        count = len(found)
        for key in (by_target, by_source):
            found = _joined(sorted(found, key=key))
            alike: dict[object, list[Block]] = {}
            for block in found:
                alike.setdefault(_likeness(block, specs), []).append(block)
            is_apart = (
                key is by_source
            )  # a stack of targets is looked for in the order of the source, and the other way round
            found = [merged for group in alike.values() for merged in _progressions(group, specs, is_apart)]
    return sorted(found, key=by_target)


def _likeness(block: Block, specs: Mapping[str, TensorSpec]) -> object:
    """Blocks that differ in this are never one progression."""
    target = block.target
    there = (block.shape, target.strides, len(target.names), specs[target.names[0]].shape)
    if isinstance(block.source, Fill):
        return *there, block.source
    return *there, block.source.strides, len(block.source.names), specs[block.source.names[0]].shape


def _joined(found: list[Block]) -> list[Block]:
    """Neighbours in both tensors, equal but for the size of one axis, become one block."""
    done: list[Block] = []
    for block in found:
        joined = _join(done[-1], block) if done else None
        if joined is None:
            done.append(block)
        else:
            done[-1] = joined
    return done


def _join(first: Block, second: Block) -> Block | None:
    if len(first.shape) != len(second.shape) or not first.shape or first.target.names != second.target.names:
        return None
    differing = [k for k, (a, b) in enumerate(zip(first.shape, second.shape, strict=True)) if a != b]
    if len(differing) > 1 or first.target.strides != second.target.strides:
        return None
    for axis in differing or range(len(first.shape)):
        if second.target.offset - first.target.offset != first.shape[axis] * first.target.strides[axis]:
            continue
        shape = tuple(a + b if k == axis else a for k, (a, b) in enumerate(zip(first.shape, second.shape, strict=True)))
        if isinstance(first.source, Fill) or isinstance(second.source, Fill):
            if not _same_constant(first.source, second.source):
                return None
            assert isinstance(first.source, Fill)
            return Block(shape, replace(first.source, shape=shape), first.target)
        if first.source.names != second.source.names or first.source.strides != second.source.strides:
            return None
        if second.source.offset - first.source.offset == first.shape[axis] * first.source.strides[axis]:
            return Block(shape, first.source, first.target)
    return None


def _same_constant(first: Spot | Fill, second: Spot | Fill) -> bool:
    return (
        isinstance(first, Fill)
        and isinstance(second, Fill)
        and (first.arange_strides, second.arange_strides) == (None, None)
        and (repr(first.value), first.dtype) == (repr(second.value), second.dtype)
    )


def _progressions(group: list[Block], specs: Mapping[str, TensorSpec], is_apart: bool) -> Iterator[Block]:
    """Runs of equal steps become one block each, with an outermost axis more. `is_apart`: over targets, else over sources."""
    start = 0
    while start < len(group):
        end = start + 1
        step = _step(group[start], group[end], is_apart) if end < len(group) else None
        if step is not None and end + 1 < len(group):
            after = _step(group[end], group[end + 1], is_apart)
            if after is not None and after[0] == step[0] and after[1:] < step[1:]:
                step = None  # the next ones are nearer to each other
        while step is not None and end < len(group) and _step(group[end - 1], group[end], is_apart) == step:
            end += 1
        run = _progression(group[start:end], specs)
        if run is None:
            yield from group[start:end]
        else:
            yield run
        start = end


def _step(first: Block, second: Block, is_apart: bool) -> tuple[tuple[bool, bool], int, int] | None:
    """((another target, another source), distance in the target, in the source); None when they cannot follow each other."""
    if isinstance(first.source, Fill) or isinstance(second.source, Fill):
        if not _same_constant(first.source, second.source):
            return None
        other_source, source_step = False, 1
    else:
        other_source, source_step = _side_step(first.source, second.source)
    other_target, target_step = _side_step(first.target, second.target)
    if (
        (other_source if is_apart else other_target)
        or source_step < (not other_source)
        or target_step < (not other_target)
    ):
        return None
    if (other_source and source_step) or (other_target and target_step):
        return None
    return (other_target, other_source), target_step, source_step


def _side_step(first: Spot, second: Spot) -> tuple[bool, int]:
    return first.names != second.names, second.offset - first.offset


def _progression(run: list[Block], specs: Mapping[str, TensorSpec]) -> Block | None:
    """One block for a run of them; None where its axes would not nest."""
    first = run[0]
    if len(run) == 1:
        return first
    sides: list[tuple[Fill | Spot, tuple[int, ...]]] = []
    for spots in ([block.source for block in run], [block.target for block in run]):
        spot = spots[0]
        if isinstance(spot, Fill):
            shape = (len(run), *first.shape)
            sides.append((spot, (0,) * len(shape)))
            continue
        second = spots[1]
        assert isinstance(second, Spot)
        if spot.names == second.names:
            sides.append((spot, (second.offset - spot.offset, *spot.strides)))
        else:
            names = tuple(name for each in spots if isinstance(each, Spot) for name in each.names)
            if len(set(names)) < len(names):
                raise NoLayout
            stride = len(spot.names) * specs[spot.names[0]].numel
            sides.append((replace(spot, names=names), (stride, *spot.strides)))
    sizes = (len(run), *first.shape)
    if not all(isinstance(spot, Fill) or _nests(sizes, strides) for spot, strides in sides):
        return None
    shape, (left, right) = simplify(sizes, [strides for _, strides in sides])
    source, target = sides[0][0], sides[1][0]
    assert isinstance(target, Spot)
    kept = replace(source, shape=shape) if isinstance(source, Fill) else replace(source, strides=left)
    return Block(shape, kept, replace(target, strides=right))


def _nests(sizes: Sequence[int], strides: Sequence[int]) -> bool:
    """True when each step is at least as long as the whole of the next smaller axis."""
    axes = sorted(zip(strides, sizes, strict=True))
    return all(outer[0] >= inner[0] * inner[1] for inner, outer in itertools.pairwise(axes))


# ── stacks ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def in_stacks(found: list[Block], specs: Mapping[str, TensorSpec], apart: frozenset[str]) -> list[Block]:
    """The same blocks, those whose stacks overlap with others, or hold a name of `apart`, told tensor by tensor."""
    for is_target in (False, True):
        of: dict[str, set[Names]] = {}
        for block in found:
            spot = block.target if is_target else block.source
            if isinstance(spot, Spot):
                for name in spot.names:
                    of.setdefault(name, set()).add(spot.names)
        singled = {name for name, stacks in of.items() if len(stacks) > 1 or name in apart}
        while True:
            wider = {name for stacks in of.values() for names in stacks if singled & set(names) for name in names}
            if wider <= singled:
                break
            singled |= wider
        found = [single for block in found for single in _single(block, is_target, singled, specs)]
    if len(found) > MOST_BLOCKS:
        raise NoLayout
    return found


def _single(block: Block, is_target: bool, singled: set[str], specs: Mapping[str, TensorSpec]) -> Iterator[Block]:
    spot = block.target if is_target else block.source
    if isinstance(spot, Fill) or len(spot.names) == 1 or spot.names[0] not in singled:
        yield block
        return
    numel = specs[spot.names[0]].numel
    over = [axis for axis, stride in enumerate(spot.strides) if stride >= numel]
    if not over:
        number, offset = divmod(spot.offset, numel)
        alone = replace(spot, names=(spot.names[number],), offset=offset)
        yield replace(block, target=alone) if is_target else replace(block, source=alone)
        return
    for index in range(block.shape[over[0]]):
        yield from _single(taken(block, over[0], index, index + 1), is_target, singled, specs)


# ── cutting ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def taken(block: Block, axis: int, start: int, end: int) -> Block:
    """The part of a block from `start` to `end` of an axis; the axis goes when one is left."""
    gone = end - start == 1

    def row(values: tuple[int, ...]) -> tuple[int, ...]:
        return values[:axis] + values[axis + 1 :] if gone else values

    def spot(each: Spot) -> Spot:
        return replace(each, offset=each.offset + start * each.strides[axis], strides=row(each.strides))

    shape = row((*block.shape[:axis], end - start, *block.shape[axis + 1 :]))
    if isinstance(block.source, Spot):
        return Block(shape, spot(block.source), spot(block.target))
    constant = block.source
    if constant.arange_strides is not None:
        value = constant.value + start * constant.arange_strides[axis]
        constant = replace(constant, value=value, arange_strides=row(constant.arange_strides))
    return Block(shape, replace(constant, shape=shape), spot(block.target))


def split(block: Block, axis: int, inner: int) -> Block:
    """The same block with an axis told as two, the inner one of size `inner`."""

    def row(values: tuple[int, ...]) -> tuple[int, ...]:
        return (*values[:axis], values[axis] * inner, *values[axis:])

    shape = (*block.shape[:axis], block.shape[axis] // inner, inner, *block.shape[axis + 1 :])
    target = replace(block.target, strides=row(block.target.strides))
    if isinstance(block.source, Spot):
        return Block(shape, replace(block.source, strides=row(block.source.strides)), target)
    counts = block.source.arange_strides
    constant = replace(block.source, shape=shape, arange_strides=None if counts is None else row(counts))
    return Block(shape, constant, target)


def shape_of(spot: Spot, specs: Mapping[str, TensorSpec]) -> tuple[int, ...]:
    """The shape of a stack: how many tensors, then their dims."""
    return len(spot.names), *specs[spot.names[0]].shape


def within_dims(found: list[Block], specs: Mapping[str, TensorSpec]) -> list[Block]:
    """The same elements, every axis within one dim of the source and one of the target: axes are told as two, blocks are cut."""
    done: list[Block] = []
    pending = list(reversed(found))
    while pending:
        block = pending.pop()
        if len(pending) + len(done) > MOST_BLOCKS:
            raise NoLayout
        for spot in (block.source, block.target):
            if isinstance(spot, Spot):
                pieces = _crossing(block, spot, shape_of(spot, specs))
                if pieces is not None:
                    pending.extend(reversed(pieces))
                    break
        else:
            done.append(block)
    return done


def _crossing(block: Block, spot: Spot, shape: tuple[int, ...]) -> list[Block] | None:
    """None when every axis is within one dim; else the block with one axis split, or cut in two."""
    digits = place_in(spot.offset, shape)
    reach = list(digits)
    for axis in sorted(range(len(block.shape)), key=lambda k: spot.strides[k]):
        dim, step = dim_and_step(spot.strides[axis], shape)
        size = block.shape[axis]
        if reach[dim] + (size - 1) * step < shape[dim]:
            reach[dim] += (size - 1) * step
            continue
        fitting = (shape[dim] - 1 - reach[dim]) // step + 1
        if fitting < 1:
            raise NoLayout
        if shape[dim] == fitting * step and size % fitting == 0:
            return [split(block, axis, fitting)]
        if shape[dim] == fitting * step and size > fitting:
            border = size - size % fitting
        else:
            border = fitting
        return [taken(block, axis, 0, border), taken(block, axis, border, size)]
    return None


def place_in(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The index of a flat position."""
    digits = []
    for stride in row_major(shape):
        digit, flat = divmod(flat, stride)
        digits.append(digit)
    return tuple(digits)


def dim_and_step(stride: int, shape: tuple[int, ...]) -> tuple[int, int]:
    """The dim that a flat stride runs along, and how far one step goes there. Raises NoLayout when it runs along several."""
    for dim, each in enumerate(row_major(shape)):
        if each <= stride and shape[dim] > 1:
            if stride % each or stride >= each * shape[dim]:
                raise NoLayout
            return dim, stride // each
    raise NoLayout
