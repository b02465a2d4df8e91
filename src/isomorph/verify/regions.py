"""Region: a box of elements, and for each the element (or value) it must equal.

A Leaf is a strided box of one tensor: its element (i0, i1, …) is the flat index `offset + Σ ik * strides[k]`. A Region has one
shape and two sides over it. `trace` replaces every Leaf of a made tensor by what that tensor is made of, stage by stage, and
cuts the region where the two do not share their grain: an axis is split in two (n → n/m × m) or the box is cut in two along an
axis, until every Leaf lies in one piece.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from isomorph.language.tree import Op
from isomorph.tensors import DType

TARGET = -1
"""The level of the checkpoint under test. 0 is the source, n the tensors that the first n stages make."""
SCRATCH = -2
"""The level of the dense array that an operator along axes takes."""


@dataclass(frozen=True, slots=True)
class Leaf:
    level: int
    name: str
    offset: int
    strides: tuple[int, ...]
    dtype: DType


@dataclass(frozen=True, slots=True)
class Constant:
    """One value, or 0, 1, 2, …: then the element (i0, …) is `offset + Σ ik * strides[k]`."""

    value: Fraction | float
    counts: bool
    offset: int
    strides: tuple[int, ...]
    dtype: DType


@dataclass(frozen=True, eq=False)
class Whole:
    """What an operator along axes takes whole: [outer, *before], filled by `regions` (their left sides lie in it, their right sides
    at `level` - 1); and makes: [outer, *after] of `dtype`."""

    regions: tuple[Region, ...]
    operator: Op
    outer: int
    before: tuple[int, ...]
    after: tuple[int, ...]
    level: int
    kind: DType
    dtype: DType


@dataclass(frozen=True, slots=True)
class Along:
    """A strided box of what an operator along axes makes: element (i0, …) is the flat index `offset + Σ ik * strides[k]`."""

    whole: Whole
    offset: int
    strides: tuple[int, ...]
    dtype: DType


@dataclass(frozen=True, slots=True)
class Made:
    """The parts, added from left to right, then the operators."""

    parts: tuple[Node, ...]
    operators: tuple[Op, ...]
    dtype: DType


End = Leaf | Constant | Along
Node = End | Made


@dataclass(frozen=True, slots=True)
class Region:
    shape: tuple[int, ...]
    left: Node
    right: Node

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Split:
    """Axis `axis` of n elements is to be read as n/inner × inner."""

    axis: int
    inner: int


@dataclass(frozen=True, slots=True)
class Cut:
    """The box is to be cut along `axis`, before its element `at`."""

    axis: int
    at: int


def leaves(node: Node) -> Iterator[Leaf]:
    if isinstance(node, Leaf):
        yield node
    elif isinstance(node, Made):
        for part in node.parts:
            yield from leaves(part)


def mapped(node: Node, change: Callable[[End], Node]) -> Node:
    """The node with every end of it changed."""
    if isinstance(node, Made):
        return replace(node, parts=tuple(mapped(part, change) for part in node.parts))
    return change(node)


def moved(node: Node, shift: Callable[[tuple[int, ...]], tuple[int, tuple[int, ...]]]) -> Node:
    """The node over another box: `shift(strides)` gives what is added to the offset, and the new strides."""

    def change(end: End) -> Node:
        offset, strides = shift(end.strides)
        return replace(end, offset=end.offset + offset, strides=strides)

    return mapped(node, change)


def split(region: Region, axis: int, inner: int) -> Region:
    def shift(strides: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
        return 0, (*strides[:axis], strides[axis] * inner, *strides[axis:])

    shape = (*region.shape[:axis], region.shape[axis] // inner, inner, *region.shape[axis + 1 :])
    return Region(shape, moved(region.left, shift), moved(region.right, shift))


def part(region: Region, axis: int, start: int, stop: int) -> Region:
    """The elements `start` to `stop` along an axis."""

    def shift(strides: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
        return start * strides[axis], strides

    shape = (*region.shape[:axis], stop - start, *region.shape[axis + 1 :])
    return Region(shape, moved(region.left, shift), moved(region.right, shift))


def coalesced(region: Region) -> Region:
    """The same elements with as few axes as can be: unit axes gone, neighbours joined where all sides walk them as one.

    Axes are sorted by the strides of the first leaf on the left, the longest step outermost.
    """
    ends: list[End] = []
    for side in (region.left, region.right):
        mapped(side, lambda end: ends.append(end) or end)  # type: ignore[func-returns-value] # append returns None, `or` goes on
    order = [axis for axis in range(len(region.shape)) if region.shape[axis] != 1]
    order.sort(key=lambda axis: tuple(-abs(end.strides[axis]) for end in ends))
    groups: list[list[int]] = []
    for axis in order:
        size = region.shape[axis]
        if groups and all(end.strides[groups[-1][-1]] == end.strides[axis] * size for end in ends):
            groups[-1].append(axis)
        else:
            groups.append([axis])

    def shift(strides: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
        return 0, tuple(strides[group[-1]] for group in groups)

    shape = tuple(math.prod(region.shape[axis] for axis in group) for group in groups)
    return Region(shape, moved(region.left, shift), moved(region.right, shift))


def trace(region: Region, pieces: Callable[[int, str], list[Region]]) -> Iterator[Region]:
    """The region cut up so that both sides come from level 0 (or TARGET, or constants).

    `pieces(level, name)` are the regions of a made tensor: on their left a Leaf of it, together every element of it, once.
    """
    waiting = [region]
    while waiting:
        region = waiting.pop()
        if region.numel == 0:
            continue
        step: Split | Cut | None = None
        replaced: dict[Leaf, Node] = {}
        for leaf in (*leaves(region.left), *leaves(region.right)):
            if leaf.level <= 0 or leaf in replaced:
                continue
            found = follow(leaf, region.shape, pieces(leaf.level, leaf.name))
            if isinstance(found, Split | Cut):
                step = found
                break
            replaced[leaf] = found
        if isinstance(step, Split):
            waiting.append(split(region, step.axis, step.inner))
        elif isinstance(step, Cut):
            waiting.append(part(region, step.axis, step.at, region.shape[step.axis]))
            waiting.append(part(region, step.axis, 0, step.at))
        elif replaced:
            waiting.append(
                Region(region.shape, _substituted(region.left, replaced), _substituted(region.right, replaced))
            )
        else:
            yield region


def _substituted(node: Node, replaced: dict[Leaf, Node]) -> Node:
    return mapped(node, lambda end: replaced.get(end, end) if isinstance(end, Leaf) else end)


def follow(leaf: Leaf, shape: tuple[int, ...], pieces: list[Region]) -> Node | Split | Cut:
    """What the box of a made tensor is made of; or how the box must first be split or cut."""
    for piece in pieces:
        origin = piece.left
        assert isinstance(origin, Leaf)
        if not piece.numel:
            continue  # an empty part of a sum begins where the next one does
        digits = [
            (step, size, axis)
            for axis, (size, step) in enumerate(zip(piece.shape, origin.strides, strict=True))
            if size > 1
        ]
        digits.sort(reverse=True)
        start = _digits_of(leaf.offset - origin.offset, digits)
        if start is not None:
            return _followed(leaf, shape, piece, digits, start)
    raise AssertionError(f"element {leaf.offset} of `{leaf.name}` is made by nothing")


def _digits_of(distance: int, digits: list[tuple[int, int, int]]) -> list[int] | None:
    """The place of an element in a piece, as a numeral; None when it does not lie in the piece."""
    start: list[int] = []
    if distance < 0:
        return None
    for step, size, _ in digits:
        digit, distance = divmod(distance, step)
        if digit >= size:
            return None
        start.append(digit)
    return None if distance else start


def _followed(
    leaf: Leaf, shape: tuple[int, ...], piece: Region, digits: list[tuple[int, int, int]], start: list[int]
) -> Node | Split | Cut:
    """Each axis of the box must move one digit only, and no digit may overflow: then the box is a box of the piece too."""
    moves: list[tuple[int, int]] = []  # for each axis of the box: (digit, by how many)
    reach = list(start)
    for axis, (size, stride) in enumerate(zip(shape, leaf.strides, strict=True)):
        if size == 1:
            moves.append((-1, 0))
            continue
        at = next((place for place, (step, _, _) in enumerate(digits) if step <= stride), None)
        if at is None:
            return Cut(axis, 1)
        step, room, _ = digits[at]
        by, rest = divmod(stride, step)
        if rest:
            return Cut(axis, size // 2)
        if start[at] + by * (size - 1) >= room:
            if at and digits[at - 1][0] == step * room and room % by == 0 and start[at] < by and size > room // by:
                inner = room // by
                return Split(axis, inner) if size % inner == 0 else Cut(axis, size // inner * inner)
            return Cut(axis, (room - 1 - start[at]) // by + 1)
        reach[at] += by * (size - 1)
        if reach[at] >= room:
            return Cut(axis, size // 2)
        moves.append((at, by))

    def shift(strides: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
        offset = sum(digit * strides[axis] for digit, (_, _, axis) in zip(start, digits, strict=True))
        return offset, tuple(by * strides[digits[at][2]] if by else 0 for at, by in moves)

    return moved(piece.right, shift)
