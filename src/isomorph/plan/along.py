"""Operators along axes (`resize n -> m`): what one block becomes on its way, before it is cut into boxes.

A worked example, `pe [1 (1 + n) d] -> x [1 (1 + m) d] | resize n -> m timm` with n=4, m=9, d=5:

    block [n d] of pe      offset 5, strides n: 5, d: 1
    the dense input        [d n], filled by one move with strides n: 1, d: 4
    what resize makes      [d m], strides m: 1, d: 9
    block [m d] of x       offset 5, strides m: 5, d: 1, filled from there

A View is where a block lies: in tensors, or in what an operator made. Each operator along axes makes the next View of the last.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from isomorph.errors import MorphError
from isomorph.language.rules import shown
from isomorph.language.tree import Op
from isomorph.operators.base import AxisOperator
from isomorph.operators.registry import build
from isomorph.plan.boxes import row_major
from isomorph.plan.kinds import AlongOf, BoxOf, MoveOf, SourceOf, Unsettled
from isomorph.plan.plan import Class
from isomorph.plan.values import effective, through
from isomorph.tensors import DType

BoxAt = Callable[[Mapping[str, int], tuple[int, ...], tuple[int, ...]], tuple[SourceOf, DType]]
"""(values of some of the axes, shape and strides over others) -> the box there, and its dtype."""


@dataclass(frozen=True, slots=True)
class View:
    """Where a block lies: `strides` of the axes inside a tensor; those of `enumerated` choose among tensors."""

    strides: Mapping[str, int]
    enumerated: tuple[str, ...]
    box: BoxAt
    klass: Class = "exact"

    @property
    def axes(self) -> tuple[str, ...]:
        return (*self.enumerated, *self.strides)


@dataclass(frozen=True, slots=True)
class Side:
    """A part of a block that is made: `sizes` of its axes, where it lies, what it is made of, the operators on each of these."""

    sizes: Mapping[str, int]
    offset: int
    strides: Mapping[str, int]
    views: tuple[View, ...]
    operators: tuple[tuple[Op, ...], ...]


def after_axes(side: Side, stacked: Sequence[str], sizes: Mapping[str, int], target: str) -> list[Side]:
    """The sides after the operators along axes: one, or two where the leading indices of an axis are only copied."""
    taken, rest = zip(*(_split(view, ops) for view, ops in zip(side.views, side.operators, strict=True)), strict=True)
    if not any(taken):
        return [replace(side, operators=rest)]
    if len(side.views) == 1:
        copied = _copied(side, taken[0], rest[0], stacked, sizes, target)
        if copied is not None:
            return copied
    views = tuple(_carried(view, ops, stacked, sizes, target) for view, ops in zip(side.views, taken, strict=True))
    return [replace(side, views=views, operators=rest)]


def _split(view: View, operators: Sequence[Op]) -> tuple[tuple[Op, ...], tuple[Op, ...]]:
    """(up to the last operator along axes that acts on this block, those after it); others along axes are left out."""
    kept: list[Op] = []
    last = 0
    now = set(view.axes)
    for op in operators:
        if not op.takes:
            kept.append(op)
        elif now.issuperset(op.reads):
            kept.append(op)
            now = now.difference(op.reads).union(axis for axis in op.gives if axis != "1")
            last = len(kept)
    return tuple(kept[:last]), tuple(kept[last:])


def _carried(view: View, operators: Sequence[Op], first: Sequence[str], sizes: Mapping[str, int], target: str) -> View:
    """The block after these operators, of which the last is one along axes. `first` are axes that had better be outermost."""
    waiting: list[Op] = []
    for op in operators:
        if op.takes:
            view = _along(view, tuple(waiting), op, first, sizes, target)
            waiting = []
        else:
            waiting.append(op)
    return view


def _copied(
    side: Side,
    taken: tuple[Op, ...],
    rest: tuple[Op, ...],
    stacked: Sequence[str],
    sizes: Mapping[str, int],
    target: str,
) -> list[Side] | None:
    """The side in two, where the operator along axes copies the leading indices of its first axis; None where it copies none."""
    (view,) = side.views
    *others, op = taken
    axis = op.gives[0]
    if any(other.takes for other in others) or "1" in op.gives or axis in stacked or set(op.reads) & {*view.enumerated}:
        return None
    before, after = _sizes_of(op, sizes, target)
    count = _operator(op, before, after, target).copied(before, after)
    if not count:
        return None
    became = dict(zip(op.reads, op.gives, strict=True))
    strides = {became.get(each, each): step for each, step in view.strides.items()}
    kept = replace(side, sizes={**side.sizes, axis: count}, views=(replace(view, strides=strides),))
    sides = [replace(kept, operators=((*others, *rest),))]
    if count < side.sizes[axis]:
        made = _carried(view, taken, stacked, sizes, target)
        offset = count * made.strides[axis]

        def later(at: Mapping[str, int], shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[SourceOf, DType]:
            box, dtype = made.box(at, shape, strides)
            assert isinstance(box, AlongOf)
            return replace(box, offset=box.offset + offset), dtype

        sides.append(
            Side(
                {**side.sizes, axis: side.sizes[axis] - count},
                side.offset + count * side.strides[axis],
                side.strides,
                (replace(made, box=later),),
                (rest,),
            )
        )
    return sides


def _sizes_of(op: Op, sizes: Mapping[str, int], target: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The sizes before and after an operator along axes; `1` is a unit axis. Raises Unsettled."""
    unknown = next((axis for axis in (*op.reads, *op.gives) if axis != "1" and axis not in sizes), None)
    if unknown is not None:
        message = f"`{target}`: axis {shown(unknown)} has no size: it stands in no brackets"
        raise Unsettled("size", message, find=shown(unknown), tensors=(target,))
    return tuple(sizes[axis] for axis in op.reads), tuple(1 if axis == "1" else sizes[axis] for axis in op.gives)


def _operator(op: Op, before: tuple[int, ...], after: tuple[int, ...], target: str) -> AxisOperator:
    """The operator, its sizes checked. Raises Unsettled with the target's name."""
    try:
        operator = build(op)
        assert isinstance(operator, AxisOperator)
        operator.check(before, after)
    except MorphError as error:
        gap = error.gaps[0]
        message = f"`{target}`: {gap.message}" if target else gap.message
        raise Unsettled(
            gap.kind, message, find=op.name, details=gap.details, hint=gap.hint, tensors=(target,)
        ) from None
    return operator


def _along(
    view: View, waiting: tuple[Op, ...], op: Op, first: Sequence[str], sizes: Mapping[str, int], target: str
) -> View:
    before, after = _sizes_of(op, sizes, target)
    _operator(op, before, after, target)
    others = sorted((axis for axis in view.axes if axis not in op.reads), key=lambda axis: axis not in first)
    outer = tuple(sizes[axis] for axis in others)
    dense = dict(zip((*others, *op.reads), row_major((*outer, *before)), strict=True))
    free = [axis for axis in dense if axis not in view.enumerated]
    shape = tuple(sizes[axis] for axis in free)
    parts: list[MoveOf] = []
    result, klass = None, view.klass
    for numbers in itertools.product(*(range(sizes[axis]) for axis in view.enumerated)):
        at = dict(zip(view.enumerated, numbers, strict=True))
        box, dtype = view.box(at, shape, tuple(view.strides[axis] for axis in free))
        result, klass = through((*waiting, op), dtype, view.klass, target)
        offset = sum(dense[axis] * number for axis, number in at.items())
        to = BoxOf(-1, -1, offset, shape, tuple(dense[axis] for axis in free))
        parts.append(MoveOf(to, box, effective(waiting, dtype)))
    assert result is not None, "a stack of no tensors makes no block"
    made = result
    steps = row_major((*outer, *after))
    strides = {axis: step for axis, step in zip((*others, *op.gives), steps, strict=True) if axis != "1"}

    def box_at(at: Mapping[str, int], shape: tuple[int, ...], free: tuple[int, ...]) -> tuple[SourceOf, DType]:
        offset = sum(strides[axis] * number for axis, number in at.items() if axis in strides)
        return AlongOf(tuple(parts), op, math.prod(outer), before, after, offset, shape, free), made

    return View(strides, (), box_at, klass)
