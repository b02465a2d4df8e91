"""What was read off the blocks, written as a Relation: letters given, constants and what is dropped in their places."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from isomorph.infer.factor.blocks import Block, NoLayout, Spot
from isomorph.infer.factor.draft import Draft, Node, Term, alike, cells, drafted, join, name_units, order
from isomorph.infer.factor.moves import blocks_in
from isomorph.infer.factor.parse import AxisOf, Same, Stack
from isomorph.infer.nouns import Dim, Dropped, Filled, Part, Product, Relation
from isomorph.infer.texts import number_text
from isomorph.language.tree import Op
from isomorph.operators.numbers import NumberOverflow, encode
from isomorph.plan.boxes import simplify
from isomorph.plan.moves import Fill
from isomorph.tensors import DType, TensorSpec

VALUE_CHANGING = {"neg", "add", "mul", "exp", "log", "sum"}


def written(
    blocks: list[Block],
    left: list[Stack],
    right: list[Stack],
    same: Same,
    specs: Mapping[str, TensorSpec],
    operators: tuple[Op, ...],
) -> Relation:
    """The relation of these stacks. Raises NoLayout where it would not be exactly these blocks."""
    draft = drafted(blocks, left, right, same)
    order(draft)
    join(draft)
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

    def write(one: Mapping[AxisOf, AxisOf]) -> Relation:
        return _Writer(blocks, draft, dtype, operators, one, in_turn).relation()

    in_turn = False
    plain = write({})
    if not holds(plain):
        in_turn = True
        plain = write({})
    if not holds(plain):
        name_units(draft)
        plain = write({})
    if not holds(plain):
        raise NoLayout
    one: dict[AxisOf, AxisOf] = {}
    for group in list(alike(draft)):
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
        in_turn: bool,
    ) -> None:
        self.blocks, self.draft, self.dtype, self.operators, self.one = blocks, draft, dtype, operators, one
        self.letters: dict[AxisOf, str] = {}
        self.sums: dict[str, Dim] = {}
        self.sizes: dict[str, int] = {}
        self.in_turn = in_turn

    def relation(self) -> Relation:
        left: list[Part | Filled | Dropped] = [self.part(term) for term in self.draft.left]
        right: list[Part | Filled | Dropped] = [self.part(term) for term in self.draft.right]
        left = self.with_constants(left)
        if self.in_turn:
            right = self.with_dropped(right)
        else:
            right.extend(Dropped(self.plain(axes)) for *_, axes in self.draft.dropped)
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
            for place, _ in cells(term):
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

    def with_dropped(self, right: list[Part | Filled | Dropped]) -> list[Part | Filled | Dropped]:
        """What is dropped where the left reads it, between the terms of the right."""
        rank: dict[object, int] = {}
        for term in self.draft.left:
            for place, _ in cells(term):
                rank.setdefault(term.taken.get(place, (id(term), place)), len(rank))
        last = len(rank)
        ranked: list[tuple[int, Part | Filled | Dropped]] = [
            (min(rank.get(number, last) for number in term.taken.values()), part)
            for term, part in zip(self.draft.right, right, strict=True)
        ]
        ranked += [(rank[id(term), place], Dropped(self.plain(axes))) for term, place, axes in self.draft.dropped]
        ranked.sort(key=lambda each: each[0])
        return [part for _, part in ranked]

    def filled(self, fill: Fill, axes: Sequence[AxisOf]) -> Filled:
        dtype = None if self.dtype is not None and (self.dtype == fill.dtype or self.operators) else fill.dtype
        if any(op.name in VALUE_CHANGING for op in self.operators):
            raise NoLayout
        if fill.arange_strides is None:
            return Filled(_text(fill), self.plain(axes), dtype)
        if fill.value != 0 or len(axes) != 1:
            raise NoLayout
        return Filled("arange", self.plain(axes), dtype)


def _text(fill: Fill) -> str:
    """The value as the notation writes it. Raises NoLayout where it has no text in its dtype."""
    try:
        text = number_text(encode(fill.value, fill.dtype), fill.dtype)
    except NumberOverflow:
        text = None
    if text is None:
        raise NoLayout
    return text


def _letter(number: int) -> str:
    """a … z, a1 … z1, …"""
    turn, place = divmod(number, 26)
    return chr(ord("a") + place) + (str(turn) if turn else "")


__all__ = ["written"]
