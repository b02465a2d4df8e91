"""Blocks -> the sums and products that each dim is made of, and which axes of which blocks are one.

Within a dim a block is a pattern: a start, and axes with a size and a step. Patterns that share an outermost axis make a product of
that axis and what is within one step of it; patterns that lie one after the other make a sum. Where neither holds yet, an axis is
split in two or a block is cut in two (`Refined`), and all is read anew: the result is the coarsest common refinement.

    dim of 20:  (0: 2 by 10, 6 by 1)  (6: 2 by 10, 2 by 1)  (8: 2 by 10, 2 by 1)     is     (g (a + b + c)) with g=2 a=6 b=2 c=2
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from isomorph.infer.factor.blocks import Block, Names, NoLayout, Spot, dim_and_step, place_in, shape_of, split, taken
from isomorph.tensors import TensorSpec

AxisOf = tuple[int, int]
"""(block, axis of the block)."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """What blocks take of a dim: element (i0, i1, …) at `start + Σ ik * step_k`; `axes` are (size, step) by falling step.

    `of`: for each block that takes it, which of its axes these are.
    """

    start: int
    axes: tuple[tuple[int, int], ...]
    of: tuple[tuple[AxisOf, ...], ...]
    key: int

    @property
    def end(self) -> int:
        return self.start + sum((size - 1) * step for size, step in self.axes) + 1


@dataclass(frozen=True, slots=True)
class Chain:
    """A product: axes outermost first, then a sum, where there is one. `axes` are any one of the axes that are the same.

    `key`: the pattern that ends here; None where a sum follows, and in a gap, which is `gap` elements that no block takes.
    """

    axes: tuple[AxisOf, ...] = ()
    inner: tuple[Chain, ...] = ()
    key: int | None = None
    gap: int = 0


@dataclass(frozen=True)
class Refined(Exception):
    """An axis must be split or a block cut first: these are the blocks then."""

    blocks: list[Block]


@dataclass
class Same:
    """Axes that are the same axis (a union-find)."""

    parent: dict[AxisOf, AxisOf] = field(default_factory=dict)

    def find(self, axis: AxisOf) -> AxisOf:
        while (above := self.parent.get(axis, axis)) != axis:
            self.parent[axis] = self.parent.get(above, above)
            axis = above
        return axis

    def unite(self, axes: Sequence[AxisOf]) -> None:
        roots = sorted({self.find(axis) for axis in axes})
        for root in roots[1:]:
            self.parent[root] = roots[0]


@dataclass(frozen=True)
class Stack:
    """A stack of tensors, each dim (the first counts the tensors) as a sum of chains; `taken`: patterns by dim -> the block."""

    names: Names
    shape: tuple[int, ...]
    dims: tuple[tuple[Chain, ...], ...]
    taken: Mapping[tuple[int, ...], int]


def stacks_of(blocks: list[Block], is_target: bool, specs: Mapping[str, TensorSpec], same: Same) -> list[Stack]:
    """The stacks of one side, in the order of the blocks. Raises Refined, NoLayout."""
    members: dict[Names, list[int]] = {}
    for number, block in enumerate(blocks):
        spot = block.target if is_target else block.source
        if isinstance(spot, Spot):
            members.setdefault(spot.names, []).append(number)
    return [_stack(names, blocks, numbers, is_target, specs, same) for names, numbers in members.items()]


def _stack(
    names: Names,
    blocks: list[Block],
    numbers: Sequence[int],
    is_target: bool,
    specs: Mapping[str, TensorSpec],
    same: Same,
) -> Stack:
    shape = (len(names), *specs[names[0]].shape)
    rank = len(shape)
    keys: list[dict[tuple[int, tuple[tuple[int, int], ...]], int]] = [{} for _ in range(rank)]
    users: list[dict[int, list[tuple[AxisOf, ...]]]] = [{} for _ in range(rank)]
    taken_by: dict[tuple[int, ...], int] = {}
    for number in numbers:
        spot = blocks[number].target if is_target else blocks[number].source
        assert isinstance(spot, Spot) and shape_of(spot, specs) == shape
        starts = place_in(spot.offset, shape)
        within: list[list[tuple[int, int, int]]] = [[] for _ in range(rank)]
        for axis, (size, stride) in enumerate(zip(blocks[number].shape, spot.strides, strict=True)):
            dim, step = dim_and_step(stride, shape)
            within[dim].append((-step, size, axis))
        place = []
        for dim in range(rank):
            axes = sorted(within[dim])
            form = starts[dim], tuple((size, -step) for step, size, _ in axes)
            key = keys[dim].setdefault(form, len(keys[dim]))
            users[dim].setdefault(key, []).append(tuple((number, axis) for _, _, axis in axes))
            place.append(key)
        if taken_by.setdefault(tuple(place), number) != number:
            raise NoLayout
    dims = []
    for dim, size in enumerate(shape):
        patterns = [Pattern(start, axes, tuple(users[dim][key]), key) for (start, axes), key in keys[dim].items()]
        for pattern in patterns:
            if any(outer[1] < inner[0] * inner[1] for outer, inner in itertools.pairwise(pattern.axes)):
                raise NoLayout
        dims.append(_Parser(blocks, same).sum(patterns, size))
    return Stack(names, shape, tuple(dims), taken_by)


class _Parser:
    """Reads the patterns of one dim; notes in `same` which axes are one."""

    def __init__(self, blocks: list[Block], same: Same) -> None:
        self.blocks = blocks
        self.same = same

    def sum(self, patterns: list[Pattern], size: int) -> tuple[Chain, ...]:
        """The summands of `size` elements that these patterns share."""
        if not patterns:
            return (Chain(gap=size),)
        if size == 1 and len(patterns) == 1:
            return (Chain(key=patterns[0].key),)
        product = self.product(patterns, size)
        if product is not None:
            return (product,)
        borders = self.borders(patterns, size)
        found: list[Chain] = []
        for low, high in itertools.pairwise((0, *borders, size)):
            inside = [
                Pattern(each.start - low, each.axes, each.of, each.key) for each in patterns if low <= each.start < high
            ]
            found.extend(self.sum(inside, high - low))
        return tuple(found)

    def product(self, patterns: list[Pattern], size: int) -> Chain | None:
        """The patterns as one outermost axis times what is within a step of it, or None."""
        if any(not each.axes or each.axes[0][0] * each.axes[0][1] != size for each in patterns):
            return None
        period = max(each.axes[0][1] for each in patterns)
        if any(period % each.axes[0][1] for each in patterns):
            return None
        wide = [axis for each in patterns for axis, *_ in each.of if each.axes[0][1] < period]
        if wide:
            self.split(wide, [period // self.step(patterns, axis) for axis in wide])
        if any(each.start >= period for each in patterns):
            return None
        outer = [axis for each in patterns for axis, *_ in each.of]
        self.same.unite(outer)
        inside = [
            Pattern(each.start, each.axes[1:], tuple(axes[1:] for axes in each.of), each.key) for each in patterns
        ]
        inner = self.sum(inside, period)
        if len(inner) > 1:
            return Chain((outer[0],), inner)
        return Chain((outer[0], *inner[0].axes), inner[0].inner, inner[0].key, inner[0].gap)

    @staticmethod
    def step(patterns: list[Pattern], axis: AxisOf) -> int:
        return next(each.axes[0][1] for each in patterns for first, *_ in each.of if first == axis)

    def split(self, axes: Sequence[AxisOf], inner: Sequence[int]) -> None:
        wanted = {number: (axis, size) for (number, axis), size in zip(axes, inner, strict=True)}
        raise Refined(
            [split(block, *wanted[number]) if number in wanted else block for number, block in enumerate(self.blocks)]
        )

    def borders(self, patterns: list[Pattern], size: int) -> list[int]:
        """Where a sum can be cut between all patterns. Raises Refined where some are cut first, NoLayout where none can be."""
        natural = {each.start for each in patterns}
        for each in patterns:
            if each.axes:
                natural.add(each.start + each.axes[0][0] * each.axes[0][1])
        ends = {each.end for each in patterns}
        firsts = {each.start + each.axes[0][1] * k for each in patterns if each.axes for k in (1, each.axes[0][0] - 1)}
        for candidates in (natural, ends):
            free = sorted(c for c in candidates if 0 < c < size and not any(e.start < c < e.end for e in patterns))
            if free:
                return free
        tried = itertools.chain(*(sorted(some) for some in (natural, ends, firsts)))
        for border in (c for c in tried if 0 < c < size):
            across = [each for each in patterns if each.start < border < each.end]
            cuts = [_cut(each, border) for each in across]
            if all(cut is not None for cut in cuts):
                self.cut({axes[0]: cut for each, cut in zip(across, cuts, strict=True) for axes in each.of if cut})
        raise NoLayout

    def cut(self, cuts: Mapping[AxisOf, int]) -> None:
        done: list[Block] = []
        wanted = {number: (axis, at) for (number, axis), at in cuts.items()}
        for number, block in enumerate(self.blocks):
            if number in wanted:
                axis, at = wanted[number]
                done.extend((taken(block, axis, 0, at), taken(block, axis, at, block.shape[axis])))
            else:
                done.append(block)
        raise Refined(done)


def _cut(pattern: Pattern, border: int) -> int | None:
    """After how many steps of its outermost axis a pattern can be cut at `border`."""
    if not pattern.axes:
        return None
    (size, step), *inner = pattern.axes
    width = sum((count - 1) * each for count, each in inner) + 1
    steps = -(-(border - pattern.start) // step)
    if 0 < steps < size and pattern.start + (steps - 1) * step + width <= border:
        return steps
    return None


def leaves(chains: Sequence[Chain], above: tuple[AxisOf, ...] = ()) -> Iterator[tuple[tuple[AxisOf, ...], Chain]]:
    """Every choice of a summand of a dim: all axes on the way, and the chain that ends it."""
    for chain in chains:
        if chain.inner:
            yield from leaves(chain.inner, (*above, *chain.axes))
        else:
            yield (*above, *chain.axes), chain
