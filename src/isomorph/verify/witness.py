"""The plainest reading there is: one element of one target tensor, taken apart digit by digit. It stands witness to the regions.

`origins(stages, name, flat)` says which source elements an element of a target is made of. Regions are read off from a handful
of elements of each block; this walks the other way, from the target's index through the ranges of every sum and the digits of
every product.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import prod

from isomorph.language.rules import FullName
from isomorph.language.tree import Op
from isomorph.operators.reference import copied
from isomorph.verify.evaluate import WHOLE, Pieces
from isomorph.verify.instances import Instance
from isomorph.verify.regions import SCRATCH, Along, Constant, Leaf, Node, Region, trace
from isomorph.verify.shapes import locate, spread, take_apart
from isomorph.verify.stage import Stage

Origin = tuple[str, int]
"""(source tensor, flat row-major index); a constant is ("", 0)."""


def origins(stages: Sequence[Stage], name: str, flat: int) -> list[Origin]:
    """The source elements behind element `flat` of a tensor of the last of `stages`, in the order in which they are added."""
    if not stages:
        return [(name, flat)]
    stage = stages[-1]
    tensor = stage.tensors[name]
    instance, rule = tensor.instance, tensor.instance.rule
    rank = instance.rank or 0
    choices, at = take_apart(spread(rule.right[tensor.term].dims, rank), instance.sizes, flat)
    at = {**tensor.at, **at}
    found: list[Origin] = []
    for block in stage.maker.partners_of(rule).of[tensor.term, choices]:
        place, source_choices = block
        term = rule.left[place]
        for read in _before_operators(instance, stage.maker.operators(instance, block, last=False), at):
            if not isinstance(term.head, FullName):
                found.append(("", 0))
                continue
            copies = instance.keys[place][tuple(read[axis] for axis in instance.stacked(term))]
            flat = locate(spread(term.dims, rank), instance.sizes, source_choices, read)
            found += origins(stages[:-1], copies[0], flat)
    return found


def _before_operators(instance: Instance, operators: Sequence[Op], at: dict[str, int]) -> list[dict[str, int]]:
    """The places of the block that is read: the first and the last of what each operator along axes takes, or the one it copies."""
    places = [at]
    sizes = instance.sizes
    along = [op for op in operators if op.takes]
    for op in reversed(along):
        before = tuple(sizes[axis] for axis in op.reads)
        after = tuple(1 if axis == "1" else sizes[axis] for axis in op.gives)
        if len(along) == 1 and "1" not in op.gives and at[op.gives[0]] < copied(op, before, after):
            return [{**at, **{read: at[made] for read, made in zip(op.reads, op.gives, strict=True)}}]
        first = dict.fromkeys(op.reads, 0)
        last = {axis: size - 1 for axis, size in zip(op.reads, before, strict=True)}
        places = [{**place, **end} for place in places for end in (first, last)]
    return places


def ends_at(node: Node, at: Sequence[int], pieces: Pieces) -> list[Origin]:
    """The source elements that a region names at one place of its box; of what an operator takes whole, the first and the last."""
    if isinstance(node, Along):
        flat = node.offset + sum(place * stride for place, stride in zip(at, node.strides, strict=True))
        whole = node.whole
        start = flat // prod(whole.after) * prod(whole.before)
        found: list[Origin] = []
        for taken in (start, start + prod(whole.before) - 1):
            one = Region((), Leaf(SCRATCH, "", taken, (), whole.kind), Leaf(WHOLE, "", taken, (), whole.kind))
            traced = next(
                trace(one, lambda level, name: list(whole.regions) if level == WHOLE else pieces(level, name))
            )
            found += ends_at(traced.right, (), pieces)
        return found
    if isinstance(node, Leaf):
        return [(node.name, node.offset + sum(place * stride for place, stride in zip(at, node.strides, strict=True)))]
    if isinstance(node, Constant):
        return [("", 0)]
    return [end for part in node.parts for end in ends_at(part, at, pieces)]


def agrees(stages: Sequence[Stage], name: str, region: Region, samples: int, chance: random.Random) -> bool:
    """True when the region and the plain reading name the same source elements, at its two corners and at random places."""
    assert isinstance(region.left, Leaf)

    def pieces(level: int, name: str) -> list[Region]:
        return stages[level - 1].pieces(name)

    places = [(0,) * len(region.shape), tuple(size - 1 for size in region.shape)]
    places += [tuple(chance.randrange(size) for size in region.shape) for _ in range(samples)]
    for at in places:
        ((_, flat),) = ends_at(region.left, at, pieces)
        if origins(stages, name, flat) != ends_at(region.right, at, pieces):
            return False
    return True
