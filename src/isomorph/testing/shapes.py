"""Sizes for the free axes of a morph: primes, different wherever two axes meet in a rule; and the shapes that follow."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import count

from isomorph.errors import MorphError
from isomorph.language.rules import shown
from isomorph.language.tree import Axis, Dim, Integer, Op, Product, Sum
from isomorph.language.tree import Ellipsis as Rest
from isomorph.operators.base import AxisOperator
from isomorph.operators.registry import build
from isomorph.plan.stage import Stage, StageRule

REST = (3, 2)
"""The axes that `...` stands for."""


def primes() -> Iterator[int]:
    """2, 3, 5, 7, 11, …"""
    found: list[int] = []
    for number in count(2):
        if all(number % one for one in found):
            found.append(number)
            yield number


def prime_sizes(stage: Stage) -> dict[str, int]:
    """axis, as written -> a prime that no other axis of any of its rules has, nor any integer, label count or bound size there."""
    neighbours: dict[str, set[str]] = {}
    fixed: dict[str, set[int]] = {}
    for rule in stage.rules:
        axes = dict.fromkeys(shown(axis) for axis in rule.axes if axis[0].isalpha())
        sizes = {*rule.known.values(), *rule.labels.values(), *REST}
        for term in (*rule.rule.left, *rule.rule.right):
            sizes |= {size for dim in term.dims for size in _integers(dim)}
        for axis in axes:
            neighbours.setdefault(axis, set()).update(other for other in axes if other != axis)
            fixed.setdefault(axis, set()).update(sizes)
    chosen: dict[str, int] = {}
    for axis, others in neighbours.items():
        taken = fixed[axis] | {chosen[other] for other in others if other in chosen}
        chosen[axis] = next(prime for prime in primes() if prime not in taken)
    for rule in stage.rules:
        for op in rule.rule.operators:
            if op.takes:
                chosen.update(_example(op, rule, chosen))
    return chosen


def _example(op: Op, rule: StageRule, chosen: Mapping[str, int]) -> dict[str, int]:
    """Sizes that an operator along axes can do something with, where primes do not suit it."""
    try:
        operator = build(op)
    except MorphError:
        return {}  # told when the morph is planned
    if not isinstance(operator, AxisOperator):
        return {}
    axes = (*op.takes, *op.makes)
    sizes = tuple(1 if axis == "1" else rule.known.get(axis, chosen.get(shown(axis), 1)) for axis in axes)
    before, after = operator.example(sizes[: len(op.takes)], sizes[len(op.takes) :])
    return {shown(axis): size for axis, size in zip(axes, (*before, *after), strict=True) if axis != "1"}


def _integers(dim: Dim) -> Iterator[int]:
    if isinstance(dim, Integer):
        yield dim.value
    elif isinstance(dim, Sum):
        for product in dim.summands:
            for factor in product.factors:
                yield from _integers(factor)


def shape_of(dims: Sequence[Dim], sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of these brackets."""
    shape: list[int] = []
    for dim in dims:
        if isinstance(dim, Rest):
            shape.extend(REST)
        else:
            shape.append(_size(dim, sizes))
    return tuple(shape)


def _size(dim: Dim | Product, sizes: Mapping[str, int]) -> int:
    match dim:
        case Axis():
            return sizes[dim.name]
        case Integer():
            return dim.value
        case Sum():
            return sum(_size(product, sizes) for product in dim.summands)
        case Product():
            return math.prod(_size(factor, sizes) for factor in dim.factors)
        case _:
            raise ValueError("`...` stands at the top level only")
