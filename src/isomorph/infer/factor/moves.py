"""A relation -> its moves, by the pairing of blocks that the notation prescribes (LANGUAGE.md 3.8 to 3.10); and as rule text."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

from isomorph.errors import MorphError
from isomorph.infer.factor.blocks import Block, NoLayout, Spot
from isomorph.infer.nouns import Dim, Dropped, Filled, Part, Relation, Side
from isomorph.language import tree
from isomorph.language.axes import blocks, place
from isomorph.language.unparse import dims_text, operators_text
from isomorph.plan.boxes import simplify
from isomorph.plan.moves import Box, Fill, Move
from isomorph.tensors import DType, TensorSpec

Strides = Mapping[str, int]
Placed = tuple[int, int, Strides]
"""(term of its side, offset, stride of each axis), in the stack of the term's tensors (blocks.py)."""


def moves_of(
    relation: Relation, sources: Mapping[str, TensorSpec], targets: Mapping[str, TensorSpec]
) -> tuple[Move, ...]:
    """What a plan of this relation would do, copies made too, sorted by target and offset.

    Raises ValueError where the sides do not hold the same blocks or the shapes are not those of the tensors.
    """
    for side, specs in ((relation.left, sources), (relation.right, targets)):
        for part in side:
            for name in part.every if isinstance(part, Part) else ():
                if specs[name].shape != relation.shape(part):
                    raise ValueError(f"`{name}` has the shape {specs[name].shape}, its axes {relation.shape(part)}")
    read = [sources[name].dtype for name in relation.sources]
    order = {name: number for number, name in enumerate(relation.targets)}
    found = list(_moves(relation, read[0] if read else None))
    found.sort(key=lambda move: (order[move.target.tensor], move.target.offset))
    return tuple(found)


def blocks_in(relation: Relation, read: DType | None) -> Iterator[Block]:
    """What reaches the targets, as blocks of stacks. ValueError as in `moves_of`."""
    for left, right in pairs(relation):
        part = relation.right[right[0]]
        if not isinstance(part, Part):
            continue
        axes = sorted(right[2], key=lambda axis: (-right[2][axis], relation.sizes[axis]))
        shape = tuple(relation.sizes[axis] for axis in axes)
        target = Spot(part.names, right[1], tuple(right[2][axis] for axis in axes))
        made_of = relation.left[left[0]]
        if isinstance(made_of, Part):
            yield Block(shape, Spot(made_of.names, left[1], tuple(left[2][axis] for axis in axes)), target)
        elif isinstance(made_of, Filled):
            yield Block(shape, _fill(made_of, read, shape), target)


def _fill(filled: Filled, read: DType | None, shape: tuple[int, ...]) -> Fill:
    constant = tree.Constant(filled.text)
    dtype = filled.dtype or read
    if dtype is None:
        raise ValueError(f"the constant {filled.text} has no dtype")
    if constant.is_arange:
        return Fill(Fraction(0), dtype, shape, (1,) * len(shape))
    return Fill(constant.value, dtype, shape)


def _moves(relation: Relation, read: DType | None) -> Iterator[Move]:
    numels = {
        part.names: math.prod(relation.shape(part))
        for part in (*relation.left, *relation.right)
        if isinstance(part, Part)
    }
    copies = {part.names: (part.names, *part.copies) for part in relation.right if isinstance(part, Part)}
    for block in blocks_in(relation, read):
        over = [
            axis
            for axis in range(len(block.shape))
            if any(
                isinstance(spot, Spot) and len(spot.names) > 1 and spot.strides[axis] >= numels[spot.names]
                for spot in (block.source, block.target)
            )
        ]
        free = [axis for axis in range(len(block.shape)) if axis not in over]
        for index in itertools.product(*(range(block.shape[axis]) for axis in over)):
            target, there = _alone(block.target, over, index, free, numels)
            sizes = tuple(block.shape[axis] for axis in free)
            if isinstance(block.source, Spot):
                source, here = _alone(block.source, over, index, free, numels)
                shape, (source_strides, strides) = simplify(sizes, (here, there))
                made_of: Box | Fill = Box(block.source.names[source[0]], source[1], shape, source_strides)
            else:
                counts = block.source.arange_strides
                shape, (count, strides) = simplify(sizes, (counts or (0,) * len(sizes), there))
                made_of = Fill(block.source.value, block.source.dtype, shape, count if counts else None)
            for names in copies[block.target.names]:
                yield Move(Box(names[target[0]], target[1], shape, strides), made_of, relation.operators)


def _alone(
    spot: Spot, over: Sequence[int], index: Sequence[int], free: Sequence[int], numels: Mapping[tuple[str, ...], int]
) -> tuple[tuple[int, int], tuple[int, ...]]:
    """((which tensor of the stack, offset there), strides of the free axes)."""
    flat = spot.offset + sum(spot.strides[axis] * number for axis, number in zip(over, index, strict=True))
    numel = numels[spot.names]
    return divmod(flat, numel) if numel else (0, flat), tuple(spot.strides[axis] for axis in free)


# ── pairing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def pairs(relation: Relation) -> Iterator[tuple[Placed, Placed]]:
    """The blocks of the two sides that hold the same elements. Raises ValueError when they do not pair."""
    try:
        left, right = _placed(relation, relation.left), _placed(relation, relation.right)
    except MorphError as error:
        raise ValueError(str(error)) from None
    partners: dict[frozenset[str], list[Placed]] = {}
    for each in right:
        partners.setdefault(frozenset(each[2]), []).append(each)
    for group in partners.values():
        group.reverse()
    for each in left:
        group = partners.get(frozenset(each[2]), [])
        if not group:
            raise ValueError("the two sides do not hold the same blocks of axes")
        yield each, group.pop()
    if any(partners.values()):
        raise ValueError("the two sides do not hold the same blocks of axes")


def _placed(relation: Relation, side: Side) -> list[Placed]:
    found: list[Placed] = []
    for number, part in enumerate(side):
        dims = tree_dims(part.dims, relation.sums)
        along = part.along if isinstance(part, Part) else ()
        stride = math.prod(relation.shape(part))
        outer: dict[str, int] = {}
        for axis in reversed(along):
            outer[axis] = stride
            stride *= relation.sizes[axis]
        for block in blocks(dims, along):
            placement = place(dims, block, relation.sizes)
            found.append((number, placement.offset, {**outer, **placement.strides}))
    return found


def tree_dims(dims: Sequence[Dim], sums: Mapping[str, Dim]) -> tuple[tree.Dim, ...]:
    """The dims as the notation's tree has them, sums inside products in their places."""
    return tuple(_tree_dim(dim, sums) for dim in dims)


def _tree_dim(dim: Dim, sums: Mapping[str, Dim]) -> tree.Dim:
    products = tuple(
        tree.Product(tuple(_tree_dim(sums[axis], sums) if axis in sums else tree.Axis(axis) for axis in product))
        if product
        else tree.Product((tree.Integer(1),))
        for product in dim
    )
    if len(products) == 1 and len(products[0].factors) == 1:
        return products[0].factors[0]
    return tree.Sum(products)


def as_rule_text(relation: Relation) -> tuple[str, dict[str, str], dict[str, str]]:
    """(a morph of one rule, source name -> its name there, target name -> its name there).

    The tensors are renamed (`l0.0.1`: term 0, its axes of `along` at 0 and 1), so that any names can be stacked. Sizes are bound.
    """
    sides, renamed = [], []
    for letter, side in (("l", relation.left), ("r", relation.right)):
        terms, names = [], {}
        for number, part in enumerate(side):
            dims = " " + dims_text(tree_dims(part.dims, relation.sums))
            if isinstance(part, Part):
                ties = "".join(f".{{=c{letter}{number}}}" for _ in part.copies[:1])
                terms.append(f"{letter}{number}" + "".join(f".{{{axis}}}" for axis in part.along) + ties + dims)
                indices = list(itertools.product(*(range(relation.sizes[axis]) for axis in part.along)))
                for copy, grid in enumerate((part.names, *part.copies)):
                    for name, index in zip(grid, indices, strict=True):
                        ending = (*index, copy) if part.copies else index
                        names[name] = ".".join([f"{letter}{number}", *map(str, ending)])
            elif isinstance(part, Filled):
                terms.append(part.text + (f":{part.dtype}" if part.dtype else "") + dims)
            else:
                terms.append("drop" + dims)
        sides.append(", ".join(terms))
        renamed.append(names)
    bound = [f"{axis}={size}" for axis, size in relation.sizes.items() if axis not in relation.sums]
    for letter, side in (("l", relation.left), ("r", relation.right)):
        bound += [
            f"c{letter}{number}={1 + len(part.copies)}"
            for number, part in enumerate(side)
            if isinstance(part, Part) and part.copies
        ]
    operators = f" | {operators_text(relation.operators)}" if relation.operators else ""
    arrow = " -> " if relation.one_way else " <-> "
    where = f" where {', '.join(bound)}" if bound else ""
    return arrow.join(sides) + operators + where, renamed[0], renamed[1]


__all__ = ["Dropped", "NoLayout", "as_rule_text", "blocks_in", "moves_of", "pairs", "tree_dims"]
