"""What was read off the blocks, written as a Relation: axes that stay together joined, letters given, what is left over dropped."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction

from isomorph.errors import MorphError
from isomorph.infer.factor_blocks import Block, Names, NoLayout, Spot
from isomorph.infer.factor_moves import blocks_in
from isomorph.infer.factor_parse import AxisOf, Chain, Same, Stack
from isomorph.infer.nouns import Dim, Dropped, Filled, Part, Product, Relation
from isomorph.language.tree import Op
from isomorph.operators.reference import constant
from isomorph.plan.boxes import simplify
from isomorph.plan.moves import Fill
from isomorph.tensors import DType, TensorSpec

VALUE_CHANGING = {"neg", "add", "mul", "exp", "log", "sum"}


@dataclass
class Node:
    """A Chain whose axes are the ones that stand for all that are the same."""

    axes: list[AxisOf]
    inner: list[Node]
    key: int | None


@dataclass
class Term:
    """A stack of tensors on its way to become a Part."""

    names: Names
    along: list[AxisOf]
    dims: list[list[Node]]
    taken: dict[tuple[int, ...], int]
    number_key: int | None


@dataclass
class Draft:
    """Both sides, with the size of every axis. `constants` and `dropped` are axes, outermost first."""

    left: list[Term]
    right: list[Term]
    sizes: dict[AxisOf, int]
    constants: list[tuple[int, list[AxisOf]]] = field(default_factory=list)
    """(block, axes)."""
    dropped: list[list[AxisOf]] = field(default_factory=list)


def written(
    blocks: list[Block],
    left: list[Stack],
    right: list[Stack],
    same: Same,
    specs: Mapping[str, TensorSpec],
    operators: tuple[Op, ...],
) -> Relation:
    """The relation of these stacks. Raises NoLayout where it would not be exactly these blocks."""
    draft = _drafted(blocks, left, right, same)
    _order(draft)
    read = {specs[name].dtype for term in draft.left for name in term.names}
    if len(read) > 1:
        raise NoLayout
    dtype = next(iter(read), None)
    wanted = {_form(block) for block in blocks}

    def holds(relation: Relation) -> bool:
        try:
            return {_form(block) for block in blocks_in(relation, dtype)} == wanted
        except ValueError:
            return False

    def write(one: Mapping[AxisOf, AxisOf], named_units: bool = False) -> Relation:
        return _Writer(blocks, draft, dtype, operators, one, named_units).relation()

    joined = _joined(draft)
    plain = write({})
    if not holds(plain):
        draft = joined
        plain = write({}, named_units=True)
        if not holds(plain):
            raise NoLayout
        return plain
    one: dict[AxisOf, AxisOf] = {}
    for group in list(_alike(draft)):
        tried = {**one, **{axis: group[0][k] for axes in group[1:] for k, axis in enumerate(axes)}}
        found = write(tried)
        if holds(found):
            one, plain = tried, found
    return plain


def _form(block: Block) -> object:
    """A block, however its axes are ordered or told as several."""
    order = sorted(range(len(block.shape)), key=lambda k: (-block.target.strides[k], block.shape[k]))
    sizes = tuple(block.shape[k] for k in order)
    there = tuple(block.target.strides[k] for k in order)
    if isinstance(block.source, Spot):
        shape, strides = simplify(sizes, (there, tuple(block.source.strides[k] for k in order)))
        return shape, strides, block.target.names, block.target.offset, block.source.names, block.source.offset
    counts = block.source.arange_strides
    shape, strides = simplify(sizes, (there, tuple(counts[k] for k in order) if counts else (0,) * len(sizes)))
    return shape, strides, block.target.names, block.target.offset, repr(block.source.value), str(block.source.dtype)


# ── the draft ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _drafted(blocks: list[Block], left: list[Stack], right: list[Stack], same: Same) -> Draft:
    sizes = {
        same.find((number, axis)): size for number, block in enumerate(blocks) for axis, size in enumerate(block.shape)
    }
    gaps = itertools.count()

    def node(chain: Chain) -> Node:
        axes = [same.find(axis) for axis in chain.axes]
        if chain.gap > 1:
            gap = (-1, next(gaps))
            sizes[gap] = chain.gap
            axes.append(gap)
        return Node(axes, [node(each) for each in chain.inner], chain.key)

    def term(stack: Stack) -> Term:
        (first,) = stack.dims[0]
        dims = [[node(chain) for chain in chains] for chains in stack.dims[1:]]
        return Term(stack.names, [same.find(axis) for axis in first.axes], dims, dict(stack.taken), first.key)

    draft = Draft([term(stack) for stack in left], [term(stack) for stack in right], sizes)
    for each in draft.left:
        for place, axes in _cells(each):
            if place not in each.taken:
                draft.dropped.append(axes)
    for each in draft.right:
        for place, axes in _cells(each):
            number = each.taken.get(place)
            if number is None:
                raise NoLayout
            if isinstance(blocks[number].source, Fill):
                draft.constants.append((number, axes))
    return draft


def _cells(term: Term) -> Iterator[tuple[tuple[int, ...], list[AxisOf]]]:
    """Every choice of a summand in each dim: its place among the patterns (-1: a gap), and its axes."""
    assert term.number_key is not None
    for choice in itertools.product(*(list(_leaves(nodes, [])) for nodes in term.dims)):
        place = (term.number_key, *(-1 if key is None else key for key, _ in choice))
        yield place, [*term.along, *(axis for _, axes in choice for axis in axes)]


def _leaves(nodes: Sequence[Node], above: list[AxisOf]) -> Iterator[tuple[int | None, list[AxisOf]]]:
    for node in nodes:
        if node.inner:
            yield from _leaves(node.inner, above + node.axes)
        else:
            yield node.key, above + node.axes


def _order(draft: Draft) -> None:
    """Terms of either side in the order in which the other side reads them."""
    for side, other in ((draft.right, draft.left), (draft.left, draft.right)):
        if len(other) == 1 or side is draft.left:
            rank: dict[int, int] = {}
            for term in other:
                for place, _ in _cells(term):
                    if place in term.taken:
                        rank.setdefault(term.taken[place], len(rank))
            last = len(rank)
            side.sort(key=lambda term: min((rank.get(number, last) for number in term.taken.values()), default=last))


def _joined(draft: Draft) -> Draft:
    """Neighbours that follow each other wherever one of them stands become one axis. Changes the draft."""
    chains: list[list[AxisOf]] = []

    def collect(nodes: Sequence[Node]) -> None:
        for node in nodes:
            chains.append(node.axes)
            collect(node.inner)

    for term in (*draft.left, *draft.right):
        chains.append(term.along)
        for nodes in term.dims:
            collect(nodes)
    after: dict[AxisOf, set[AxisOf | None]] = {}
    before: dict[AxisOf, set[AxisOf | None]] = {}
    for chain in chains:
        for first, second in itertools.pairwise((None, *chain, None)):
            if first is not None:
                after.setdefault(first, set()).add(second)
            if second is not None:
                before.setdefault(second, set()).add(first)
    follows = {
        axis: second
        for axis, seconds in after.items()
        if len(seconds) == 1 and (second := next(iter(seconds))) is not None and before[second] == {axis}
    }
    gone = set(follows.values())
    for axis in [axis for axis in follows if axis not in gone]:
        each = axis
        while each in follows:
            each = follows[each]
            draft.sizes[axis] *= draft.sizes[each]
    for chain in (*chains, *draft.dropped, *(axes for _, axes in draft.constants)):
        chain[:] = [axis for axis in chain if axis not in gone]
    return draft


def _alike(draft: Draft) -> Iterator[list[list[AxisOf]]]:
    """Summands of one sum that have the same sizes: they may be called alike."""

    def sums(nodes: list[Node]) -> Iterator[list[Node]]:
        yield nodes
        for node in nodes:
            yield from sums(node.inner)

    for term in (*draft.right, *draft.left):
        for dim in term.dims:
            for nodes in sums(dim):
                groups: dict[tuple[int, ...], list[list[AxisOf]]] = {}
                for node in nodes:
                    if node.key is not None and node.axes:
                        groups.setdefault(tuple(draft.sizes[axis] for axis in node.axes), []).append(node.axes)
                yield from (group for group in groups.values() if len(group) > 1)


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Writer:
    """Gives letters in the order of reading, left to right."""

    def __init__(
        self,
        blocks: list[Block],
        draft: Draft,
        dtype: DType | None,
        operators: tuple[Op, ...],
        one: Mapping[AxisOf, AxisOf],
        named_units: bool,
    ) -> None:
        self.blocks, self.draft, self.dtype, self.operators, self.one = blocks, draft, dtype, operators, one
        self.letters: dict[AxisOf, str] = {}
        self.sums: dict[str, Dim] = {}
        self.sizes: dict[str, int] = {}
        self.units = itertools.count() if named_units else None
        self.unit_of: dict[int, str] = {}

    def relation(self) -> Relation:
        left: list[Part | Filled | Dropped] = [self.part(term) for term in self.draft.left]
        right: list[Part | Filled | Dropped] = [self.part(term) for term in self.draft.right]
        left = self.with_constants(left)
        right.extend(Dropped(self.plain(axes)) for axes in self.draft.dropped)
        return Relation(tuple(left), tuple(right), dict(self.sizes), operators=self.operators, sums=dict(self.sums))

    def part(self, term: Term) -> Part:
        along = tuple(self.letter(axis) for axis in term.along)
        return Part(term.names, tuple(self.dim(nodes) for nodes in term.dims), along)

    def letter(self, axis: AxisOf) -> str:
        axis = self.one.get(axis, axis)
        if axis not in self.letters:
            name = _letter(len(self.letters))
            self.letters[axis] = name
            self.sizes[name] = self.draft.sizes[axis]
        return self.letters[axis]

    def dim(self, nodes: Sequence[Node]) -> Dim:
        return tuple(self.product(node) for node in nodes)

    def product(self, node: Node) -> Product:
        letters = [self.letter(axis) for axis in node.axes]
        if node.inner:
            dim = self.dim(node.inner)
            name = f"sum{len(self.sums) + 1}"
            self.sums[name] = dim
            self.sizes[name] = sum(math.prod(self.sizes[axis] for axis in product) for product in dim)
            letters.append(name)
        return tuple(letters)

    def plain(self, axes: Sequence[AxisOf]) -> tuple[Dim, ...]:
        return tuple(((self.letter(axis),),) for axis in axes)

    def with_constants(self, left: list[Part | Filled | Dropped]) -> list[Part | Filled | Dropped]:
        """The constants where the other side reads them, between the terms of the left."""
        if not self.draft.constants:
            return left
        first_read: dict[int, int] = {}
        for term in self.draft.right:
            for place, _ in _cells(term):
                first_read.setdefault(term.taken[place], len(first_read))
        ranked: list[tuple[int, Part | Filled | Dropped]] = [
            (min(first_read[number] for number in term.taken.values()), part)
            for term, part in zip(self.draft.left, left, strict=True)
        ]
        for number, axes in self.draft.constants:
            fill = self.blocks[number].source
            assert isinstance(fill, Fill)
            ranked.append((first_read[number], self.filled(fill, axes)))
        ranked.sort(key=lambda each: each[0])
        return [part for _, part in ranked]

    def filled(self, fill: Fill, axes: Sequence[AxisOf]) -> Filled:
        dtype = None if self.dtype is not None and (self.dtype == fill.dtype or self.operators) else fill.dtype
        if any(op.name in VALUE_CHANGING for op in self.operators):
            raise NoLayout
        if fill.arange_strides is None:
            return Filled(number_text(fill.value, fill.dtype), self.plain(axes), dtype)
        if fill.value != 0 or len(axes) != 1:
            raise NoLayout
        return Filled("arange", self.plain(axes), dtype)


def _letter(number: int) -> str:
    """a … z, a1 … z1, …"""
    turn, place = divmod(number, 26)
    return chr(ord("a") + place) + (str(turn) if turn else "")


def number_text(value: Fraction | float, dtype: DType) -> str:
    """The shortest decimal that is this value in `dtype`, as the notation writes numbers."""
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if isinstance(value, float) and value == 0:
        return "-0.0" if math.copysign(1, value) < 0 else "0"
    exact = Fraction(value)
    if exact.denominator == 1:
        return str(exact.numerator)
    with_digits: Callable[[int], str] = lambda digits: format(Decimal(f"{float(exact):.{digits}g}"), "f")  # noqa: E731
    for digits in range(1, 18):
        text = with_digits(digits)
        try:
            if constant(Fraction(text), dtype) == constant(exact, dtype):
                return text
        except MorphError:
            break
    raise NoLayout


__all__ = ["number_text", "written"]
