"""Operators along axes, as the verifier reads them: the dense array that one takes, and where a block lies in what it makes.

`pe [1 (1 + n) d] -> x [1 (1 + m) d] | resize n -> m timm`: the operator takes [d n] and makes [d m]; the block [m d] of x is the
box of that with strides m: 1, d: size of m.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

from isomorph.language.rules import shown
from isomorph.language.tree import Op
from isomorph.operators import reference
from isomorph.verify.operators import Refused, result
from isomorph.verify.regions import SCRATCH, Along, Leaf, Made, Node, Region, Whole

Sizes = Mapping[str, int]
BoxOf = Callable[[Sequence[str], Sizes], Node]
"""(free axes, values of the stacked ones) -> the box of a source tensor."""


@dataclass(frozen=True)
class Carried:
    """What the operators make of a block: an array whose axes have these strides."""

    whole: Whole
    strides: Mapping[str, int]

    def box(self, axes: Sequence[str], fixed: Sizes) -> Along:
        """The box over `axes`, at the values of the others that are fixed."""
        offset = sum(self.strides[axis] * value for axis, value in fixed.items() if axis in self.strides)
        return Along(self.whole, offset, tuple(self.strides[axis] for axis in axes), self.whole.dtype)


def acting(operators: Sequence[Op], axes: Sequence[str]) -> tuple[Op, ...]:
    """The operators that act on a block with these axes: those along axes that it lacks leave it alone."""
    found: list[Op] = []
    now = set(axes)
    for op in operators:
        if op.takes and not set(op.reads) <= now:
            continue
        now = axes_after(now, [op])
        found.append(op)
    return tuple(found)


def axes_after(axes: set[str], operators: Sequence[Op]) -> set[str]:
    now = set(axes)
    for op in operators:
        if op.takes and set(op.reads) <= now:
            now = (now - set(op.reads)) | (set(op.gives) - {"1"})
    return now


def sizes_of(op: Op, sizes: Sizes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The sizes that an operator takes and makes. Refused where one is not known, or they have no meaning."""
    for axis in (*op.reads, *op.gives):
        if axis != "1" and axis not in sizes:
            raise Refused(f"`{op.name}`: `{shown(axis)}` has no size")
    before = tuple(sizes[axis] for axis in op.reads)
    after = tuple(1 if axis == "1" else sizes[axis] for axis in op.gives)
    problem = reference.size_problem(op, before, after)
    if problem is not None:
        raise Refused(problem)
    return before, after


def strides_of(axes: Sequence[str], sizes: Sequence[int]) -> dict[str, int]:
    return {axis: prod(sizes[place + 1 :]) for place, axis in enumerate(axes)}


def carry(
    axes: Sequence[str],
    stacked: Sequence[str],
    sizes: Sizes,
    operators: Sequence[Op],
    level: int,
    box: BoxOf,
) -> Carried:
    """The block with these axes after `operators`, of which the last is one along axes. `box` says what it is at first."""
    waiting: list[Op] = []
    carried: Carried | None = None
    now = list(axes)
    for op in operators:
        if not op.takes:
            waiting.append(op)
            continue
        before, after = sizes_of(op, sizes)
        others = [axis for axis in now if axis not in op.reads]
        outer = [sizes[axis] for axis in others]
        dense = strides_of((*others, *op.reads), (*outer, *before))
        chosen = stacked if carried is None else ()
        free = [axis for axis in now if axis not in chosen]
        regions: list[Region] = []
        for values in product(*(range(sizes[axis]) for axis in chosen)):
            fixed = dict(zip(chosen, values, strict=True))
            end = box(free, fixed) if carried is None else carried.box(free, {})
            right = applied(end, waiting)
            offset = sum(dense[axis] * value for axis, value in fixed.items())
            left = Leaf(SCRATCH, "", offset, tuple(dense[axis] for axis in free), right.dtype)
            regions.append(Region(tuple(sizes[axis] for axis in free), left, right))
        kind = regions[0].right.dtype
        whole = Whole(tuple(regions), op, prod(outer), before, after, level, kind, result(op, kind))
        carried = Carried(whole, strides_of((*others, *op.gives), (*outer, *after)))
        now = [*others, *(axis for axis in op.gives if axis != "1")]
        waiting = []
    assert carried is not None
    return carried


def applied(end: Node, operators: Sequence[Op]) -> Node:
    if not operators:
        return end
    kind = end.dtype
    for op in operators:
        kind = result(op, kind)
    return Made((end,), tuple(operators), kind)
