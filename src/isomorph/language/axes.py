"""Blocks: a tensor's axes as a sum of products, and how the blocks of two sides pair.

A worked example, `qkv [(g (r + 1 + 1) d) i] <-> q [(g r d) i], k [(g d) i], v [(g d) i]` with g=2 r=3 d=4 i=5:

    blocks of qkv       {g r d i}   {g d i}   {g d i}          one for each choice of a summand, in reading order
    blocks of q, k, v   {g r d i}   {g d i}   {g d i}          equal sets pair in order: q, then k, then v
    qkv is [40 5]       size of (g (r + 1 + 1) d) = 2 * (3 + 1 + 1) * 4
    the second of qkv   offset 60 = 3 * 4 * 5  (r units of d·i past the start)
                        strides g: 100, d: 5, i: 1

so element (g, d, i) of k lies at 60 + 100 g + 5 d + i in the flat, row-major qkv, and at 20 g + 5 d + i in k. `place` computes just
this: every block of every term is an offset and one stride an axis. Axes of a name (a stack `x.{e}.w`) belong to the block but lie
outside the tensor: they have no stride.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from isomorph.errors import Gap, MorphError
from isomorph.language.rules import FullName, Rule, shown
from isomorph.language.tree import Axis, Dim, Ellipsis, Integer, Op, Span, Sum

MOST_BLOCKS = 4096
"""Blocks of one term. Thirty dims of two summands would make a billion."""
MOST_CELLS = 1 << 20
"""Blocks times axes of one term."""
FURTHER = "..."
"""The key of `...` among the axes of a block."""


@dataclass(frozen=True, slots=True)
class Factor:
    """One axis of a block: `key` is the axis, the integer as text (`"3"`), or `"..."`; `dim` the dim of the term it stands in,
    None for an axis of the name."""

    key: str
    dim: int | None


@dataclass(frozen=True, slots=True)
class Block:
    """One choice of a summand in every sum of a term.

    `factors` are its axes in reading order, name axes first, units left out. `choice` says for each dim which summand was taken:
    None for a dim that is no sum, else (summand, the choices of that summand's factors).
    """

    factors: tuple[Factor, ...]
    choice: tuple[Choice, ...] = field(repr=False, default=())

    @property
    def keys(self) -> frozenset[str]:
        """What pairs: the set of its axes."""
        return frozenset(factor.key for factor in self.factors)

    def __str__(self) -> str:
        return "[" + " ".join(shown_key(factor.key) for factor in self.factors) + "]"


Choice = tuple[int, tuple["Choice", ...]] | None
"""None for an axis, an integer or `...`; for a sum the summand taken and the choices of its factors."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a block lies in its row-major tensor, in elements: `offset + Σ index * stride`. `further` are the strides of `...`.

    Integers are axes under their text (`"3"`).
    """

    offset: int
    strides: Mapping[str, int]
    further: tuple[int, ...] = ()


def shown_key(key: str) -> str:
    """An axis as it was written; `*` for the axis of a wildcard."""
    return "*" if key.startswith("*") else shown(key)


# ── the blocks of a term ─────────────────────────────────────────────────────────────────────────────────────────────


def blocks(dims: Sequence[Dim], name_axes: Sequence[str] = ()) -> tuple[Block, ...]:
    """The blocks of a term in reading order (leftmost dim outermost); `name_axes` are its stacked axes, as they are read.

    >>> from isomorph.language.parse import parse
    >>> term = parse("x [(q + k) i] <-> y").statements[0].left[0]
    >>> [str(block) for block in blocks(term.dims)]
    ['[q i]', '[k i]']

    Raises MorphError (`syntax`) when an axis, an integer or `...` stands twice in a block, when `...` stands in brackets, or when
    there are more than MOST_BLOCKS of them.
    """
    count = math.prod(_count(dim) for dim in dims)
    nodes = len(name_axes) + sum(_nodes(dim) for dim in dims)
    if count > MOST_BLOCKS or count * max(1, nodes) > MOST_CELLS:
        span = dims[0].span if dims else None
        raise _refusal(
            f"these axes make {count if count < 10**9 else 'over a billion'} blocks, more than are ever meant", span
        )
    prefix = tuple(Factor(axis, None) for axis in name_axes)
    found: list[Block] = []
    for alternative in itertools.product(*(tuple(_alternatives(dim, number, 0)) for number, dim in enumerate(dims))):
        block = Block(
            prefix + tuple(itertools.chain.from_iterable(factors for factors, _ in alternative)),
            tuple(choice for _, choice in alternative),
        )
        _check_once(block, dims)
        found.append(block)
    return tuple(found)


def _count(dim: Dim) -> int:
    if not isinstance(dim, Sum):
        return 1
    total = 0
    for product in dim.summands:
        total += math.prod(_count(factor) for factor in product.factors)
    return total


def _nodes(dim: Dim) -> int:
    return (
        1 + sum(_nodes(factor) for product in dim.summands for factor in product.factors) if isinstance(dim, Sum) else 1
    )


def _alternatives(dim: Dim, number: int, depth: int) -> Iterator[tuple[tuple[Factor, ...], Choice]]:
    """Every choice of summands within one dim: its factors and how they were chosen."""
    match dim:
        case Axis(name):
            yield (Factor(name, number),), None
        case Integer(1):
            yield (), None
        case Integer(value):
            yield (Factor(str(value), number),), None
        case Ellipsis(span):
            if depth:
                raise _refusal("`...` inside `( )`", span)
            yield (Factor(FURTHER, number),), None
        case Sum(summands):
            for taken, product in enumerate(summands):
                inner = (tuple(_alternatives(factor, number, depth + 1)) for factor in product.factors)
                for parts in itertools.product(*inner):
                    factors = tuple(itertools.chain.from_iterable(factors for factors, _ in parts))
                    yield factors, (taken, tuple(choice for _, choice in parts))


def _check_once(block: Block, dims: Sequence[Dim]) -> None:
    seen: set[str] = set()
    for factor in block.factors:
        if factor.key in seen:
            span = dims[factor.dim].span if factor.dim is not None else None
            what = (
                "`...`"
                if factor.key == FURTHER
                else f"the size {factor.key}"
                if factor.key.isdigit()
                else f"axis `{shown_key(factor.key)}`"
            )
            hint = "an axis stands once in a block; give the second a name of its own"
            raise _refusal(f"{what} stands twice in the block {block}", span, hint)
        seen.add(factor.key)


def _refusal(message: str, span: Span | None, hint: str | None = None) -> MorphError:
    if span is None or not span.line:
        return MorphError([Gap("syntax", message, hint=hint)])
    return MorphError([Gap("syntax", message, line=span.line, column=span.column, end=span.end, hint=hint)])


# ── sizes and places ─────────────────────────────────────────────────────────────────────────────────────────────────


def dim_size(dim: Dim, sizes: Mapping[str, int]) -> int:
    """The size of one dim (no `...`) from the sizes of its axes. KeyError names an axis that has none."""
    match dim:
        case Axis(name):
            return sizes[name]
        case Integer(value):
            return value
        case Sum(summands):
            return sum(math.prod(dim_size(factor, sizes) for factor in product.factors) for product in summands)
    raise ValueError("`...` has no one size")


def tensor_shape(dims: Sequence[Dim], sizes: Mapping[str, int], further: Sequence[int] = ()) -> tuple[int, ...]:
    """The shape of a term's tensor; `further` are the sizes `...` stands for."""
    shape: list[int] = []
    for dim in dims:
        if isinstance(dim, Ellipsis):
            shape.extend(further)
        else:
            shape.append(dim_size(dim, sizes))
    return tuple(shape)


def place(dims: Sequence[Dim], block: Block, sizes: Mapping[str, int], further: Sequence[int] = ()) -> Placement:
    """Where a block lies in its tensor. Axes of the name have no stride: they choose among tensors.

    >>> from isomorph.language.parse import parse
    >>> dims = parse("x [(q + k) i] <-> y").statements[0].left[0].dims
    >>> place(dims, blocks(dims)[1], {"q": 3, "k": 2, "i": 5})
    Placement(offset=15, strides={'k': 5, 'i': 1}, further=())
    """
    strides: dict[str, int] = {}
    further_strides: tuple[int, ...] = ()
    offset, stride = 0, 1
    for dim, choice in zip(reversed(dims), reversed(block.choice), strict=True):
        if isinstance(dim, Ellipsis):
            steps: list[int] = []
            for size in reversed(further):
                steps.append(stride)
                stride *= size
            further_strides = tuple(reversed(steps))
        else:
            offset += _place(dim, choice, stride, sizes, strides)
            stride *= dim_size(dim, sizes)
    ordered = {factor.key: strides[factor.key] for factor in block.factors if factor.key in strides}
    return Placement(offset, ordered, further_strides)


def _place(dim: Dim, choice: Choice, stride: int, sizes: Mapping[str, int], strides: dict[str, int]) -> int:
    """Fill in the strides of one dim whose own step is `stride`; the offset that its chosen summands add."""
    match dim:
        case Axis(name):
            strides[name] = stride
        case Integer(value):
            if value != 1:
                strides[str(value)] = stride
        case Sum(summands):
            if choice is None:
                raise ValueError("a block of other dims")
            taken, inner = choice
            before = sum(
                math.prod(dim_size(factor, sizes) for factor in product.factors) for product in summands[:taken]
            )
            offset = before * stride
            for factor, within in zip(reversed(summands[taken].factors), reversed(inner), strict=True):
                offset += _place(factor, within, stride, sizes, strides)
                stride *= dim_size(factor, sizes)
            return offset
    return 0


# ── pairing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class TermBlock:
    """A block of the term with this number on its side."""

    term: int
    block: Block


@dataclass(frozen=True, slots=True)
class Pair:
    """Blocks of the two sides that hold the same elements. Each side is one block; under `| sum` the summed side may be several,
    to be added in this order."""

    left: tuple[TermBlock, ...]
    right: tuple[TermBlock, ...]


def side_blocks(rule: Rule, side: str) -> tuple[TermBlock, ...]:
    """All blocks of one side (`left` or `right`), terms in order. Raises MorphError as `blocks` does."""
    counting = rule.counting
    found: list[TermBlock] = []
    for number, term in enumerate(rule.left if side == "left" else rule.right):
        axes = tuple(axis for axis in term.head.axes if axis not in counting) if isinstance(term.head, FullName) else ()
        found.extend(TermBlock(number, block) for block in blocks(term.dims, axes))
        if len(found) > 4 * MOST_BLOCKS:
            raise _refusal("the terms of this side make more blocks than are ever meant", term.span)
    return tuple(found)


def pair(rule: Rule) -> tuple[Pair, ...]:
    """Pair the blocks of a rule's sides, in the reading order of the left. A rule against `drop` alone pairs nothing.

    Raises MorphError: `syntax` as `blocks` does, `unpaired` naming what is left over on both sides.
    """
    if rule.is_drop:
        return ()
    left, right = side_blocks(rule, "left"), side_blocks(rule, "right")
    along = [op for op in rule.operators if op.takes]
    if along:
        return _pair_along(left, right, rule.operators)
    summed = next((op for op in rule.operators if op.name == "sum"), None)
    if summed is None:
        return _pair_equally(left, right)
    if summed.inverted:
        return tuple(Pair(each.right, each.left) for each in _pair_summed(right, left, swapped=True))
    return _pair_summed(left, right)


def after_operators(keys: frozenset[str], operators: Sequence[Op]) -> frozenset[str]:
    """The axes of a block when these operators, read as they are written, have acted on it.

    An operator along axes acts on the blocks that have all of them, and leaves others alone.

    >>> sorted(after_operators(frozenset({"n", "d"}), [Op("resize", takes=("n",), makes=("m",))]))
    ['d', 'm']
    """
    for op in operators:
        if op.takes and keys.issuperset(op.takes):
            keys = keys.difference(op.takes).union(axis for axis in op.makes if axis != "1")
    return keys


def _pair_along(left: Sequence[TermBlock], right: Sequence[TermBlock], operators: Sequence[Op]) -> tuple[Pair, ...]:
    """A rule whose operators replace axes: a block pairs with the one that has the axes it has then."""
    is_inverse = any(op.inverted for op in operators)
    written = tuple(reversed(operators)) if is_inverse else operators
    read, made = (right, left) if is_inverse else (left, right)
    becomes = {id(each): after_operators(each.block.keys, written) for each in read}
    if any(op.name == "sum" for op in operators):
        found = _pair_summed(read, made, is_inverse, becomes)
    else:
        found = _pair_equally(read, made, is_inverse, becomes)
    return tuple(Pair(each.right, each.left) for each in found) if is_inverse else found


Keys = Mapping[int, frozenset[str]]
"""id of a block -> the axes it pairs by, where they are not its own."""


def _groups(found: Sequence[TermBlock], becomes: Keys = {}) -> dict[frozenset[str], list[TermBlock]]:  # noqa: B006 # only read
    groups: dict[frozenset[str], list[TermBlock]] = {}
    for each in found:
        groups.setdefault(becomes.get(id(each), each.block.keys), []).append(each)
    return groups


def _pair_equally(
    left: Sequence[TermBlock], right: Sequence[TermBlock], swapped: bool = False, becomes: Keys | None = None
) -> tuple[Pair, ...]:
    lefts, rights = _groups(left, becomes or {}), _groups(right)
    left_over = [each for keys, group in lefts.items() for each in group[len(rights.get(keys, ())) :]]
    right_over = [each for keys, group in rights.items() for each in group[len(lefts.get(keys, ())) :]]
    if left_over or right_over:
        raise MorphError([_unpaired(right_over, left_over) if swapped else _unpaired(left_over, right_over)])
    partners = {keys: iter(group) for keys, group in rights.items()}
    keys_of = becomes or {}
    return tuple(Pair((each,), (next(partners[keys_of.get(id(each), each.block.keys)]),)) for each in left)


def _pair_summed(
    left: Sequence[TermBlock], right: Sequence[TermBlock], swapped: bool = False, becomes: Keys | None = None
) -> tuple[Pair, ...]:
    lefts, rights = _groups(left, becomes or {}), _groups(right)
    left_over = [each for keys, group in lefts.items() if keys not in rights for each in group]
    right_over = [each for keys, group in rights.items() for each in group[1 if keys in lefts else 0 :]]
    if left_over or right_over:
        sides = (right_over, left_over) if swapped else (left_over, right_over)
        raise MorphError([_unpaired(*sides)])
    return tuple(Pair(tuple(group), (rights[keys][0],)) for keys, group in lefts.items())


def _unpaired(left_over: Sequence[TermBlock], right_over: Sequence[TermBlock]) -> Gap:
    details = []
    for side, over in (("left", left_over), ("right", right_over)):
        some = " ".join(dict.fromkeys(str(each.block) for each in over[:8]))
        details.append(
            f"{side + ':':<7}{some + (' …' if len(over) > 8 else '')} without a partner"
            if over
            else f"{side + ':':<7}nothing left over"
        )
    return Gap(
        "unpaired",
        _unpaired_message(left_over, right_over),
        details=tuple(details),
        hint=_unpaired_hint(left_over, right_over),
    )


def _unpaired_message(left_over: Sequence[TermBlock], right_over: Sequence[TermBlock]) -> str:
    left = dict.fromkeys(factor.key for each in left_over for factor in each.block.factors)
    right = dict.fromkeys(factor.key for each in right_over for factor in each.block.factors)
    only_left = [shown_key(key) for key in left if key not in right]
    only_right = [shown_key(key) for key in right if key not in left]
    parts = []
    if only_left:
        parts.append(f"`{' '.join(only_left[:12])}` only on the left")
    if only_right:
        parts.append(f"`{' '.join(only_right[:12])}` only on the right")
    if left_over and right_over and parts:
        return f"the axes of the two sides differ: {', '.join(parts)}"
    return "the two sides do not hold the same blocks of axes"


def _unpaired_hint(left_over: Sequence[TermBlock], right_over: Sequence[TermBlock]) -> str:
    sides = [[FURTHER in each.block.keys for each in side] for side in (left_over, right_over)]
    if sum(sides[0]) != sum(sides[1]):
        return "`...` needs a partner on the other side; a term without brackets reads [...]"
    stacked = [factor.key for each in (*left_over, *right_over) for factor in each.block.factors if factor.dim is None]
    if stacked:
        axis = shown_key(stacked[0])
        either = f"it stands on the other side too, in a name or in brackets, or is `{{={axis}}}` (equal copies)"
        return f"`{{{axis}}}` stands in a name: {either}"
    return "write the same axes on both sides; what is left out goes to `drop [..]`, what is made up comes from a constant `0 [..]`"
