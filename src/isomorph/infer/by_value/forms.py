"""Relations of one form: built for a permutation of axes, carried over to siblings, told apart by what they do and not by names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from isomorph.infer.nouns import UNIT, Dim, Dropped, Filled, Part, Relation, Side, axis
from isomorph.language.tree import Op
from isomorph.plan.moves import Box, Move

Permutation = tuple[int, ...]
"""For each target axis of more than one entry, which of the source's it is (both counted without unit axes)."""


def letters(count: int) -> list[str]:
    """`a`, `b`, …, `z`, `a1`, …: symbols for axes."""
    return [chr(ord("a") + number % 26) + (str(number // 26) if number >= 26 else "") for number in range(count)]


def permuted(
    sources: Sequence[str],
    source_shape: Sequence[int],
    targets: Sequence[str],
    target_shape: Sequence[int],
    permutation: Permutation,
    *,
    operators: tuple[Op, ...] = (),
    note: str = "",
) -> Relation:
    """Equal tensors up to the order of their axes and unit axes. The further names on either side are copies of the first."""
    kept = [size for size in source_shape if size != 1]
    names = letters(len(kept))
    left = iter(names)
    right = iter([names[number] for number in permutation])
    left_dims = tuple(UNIT if size == 1 else axis(next(left)) for size in source_shape)
    right_dims = tuple(UNIT if size == 1 else axis(next(right)) for size in target_shape)
    return Relation(
        (Part((sources[0],), left_dims, copies=tuple((name,) for name in sources[1:])),),
        (Part((targets[0],), right_dims, copies=tuple((name,) for name in targets[1:])),),
        dict(zip(names, kept, strict=True)),
        operators=operators,
        note=note,
    )


def renamed(relation: Relation, names: Mapping[str, str]) -> Relation:
    """The same relation about other tensors."""

    def side(terms: Side) -> Side:
        return tuple(
            replace(
                term,
                names=tuple(names.get(name, name) for name in term.names),
                copies=tuple(tuple(names.get(name, name) for name in copy) for copy in term.copies),
            )
            if isinstance(term, Part)
            else term
            for term in terms
        )

    return replace(relation, left=side(relation.left), right=side(relation.right))


def renamed_moves(moves: Sequence[Move], names: Mapping[str, str], operators: tuple[Op, ...]) -> tuple[Move, ...]:
    """The same moves between other tensors, with these operators on what is read."""

    def box(one: Box) -> Box:
        return replace(one, tensor=names.get(one.tensor, one.tensor))

    return tuple(
        Move(box(move.target), box(move.source), operators)
        if isinstance(move.source, Box)
        else replace(move, target=box(move.target))
        for move in moves
    )


def with_copies(relation: Relation, copies: Mapping[str, Sequence[str]]) -> Relation:
    """Add tensors equal to those of the relation: only where every tensor of a part has as many of them."""

    def side(terms: Side) -> Side:
        found = []
        for term in terms:
            if isinstance(term, Part):
                counts = {len(copies.get(name, ())) for name in term.names}
                if len(counts) == 1 and counts != {0}:
                    more = tuple(zip(*(copies[name] for name in term.names), strict=True))
                    term = replace(term, copies=term.copies + more)
            found.append(term)
        return tuple(found)

    return replace(relation, left=side(relation.left), right=side(relation.right))


def form(relation: Relation) -> tuple[object, ...]:
    """What a relation does, whatever its tensors are called and however large they are. Equal for siblings that are alike.

    Axes are numbered by their first use; the length of an axis or a stack does not count, fills and operators do.
    """
    numbers: dict[str, int] = {}

    def dim(one: Dim) -> tuple[tuple[object, ...], ...]:
        found = []
        for product in one:
            factors: list[object] = []
            for symbol in product:
                if symbol in relation.sums:
                    factors.append(dim(relation.sums[symbol]))
                else:
                    factors.append(numbers.setdefault(symbol, len(numbers)))
            found.append(tuple(factors))
        return tuple(found)

    terms: list[object] = []
    for terms_of in (relation.left, relation.right):
        for term in terms_of:
            along = tuple(numbers.setdefault(symbol, len(numbers)) for symbol in getattr(term, "along", ()))
            dims = tuple(dim(one) for one in term.dims)
            match term:
                case Part():
                    terms.append(("tensor", along, dims))
                case Filled(text=text):
                    terms.append((text, dims))
                case Dropped():
                    terms.append(("drop", dims))
        terms.append("=")
    return (*terms, relation.operators)
