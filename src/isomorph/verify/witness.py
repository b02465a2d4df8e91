"""The plainest reading there is: one element of one target tensor, taken apart digit by digit. It stands witness to the regions.

`origins(stages, name, flat)` says which source elements an element of a target is made of. Regions are read off from a handful
of elements of each block; this walks the other way, from the target's index through the ranges of every sum and the digits of
every product.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from isomorph.language.rules import FullName
from isomorph.verify.regions import Constant, Leaf, Node, Region
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
    for place, source_choices in stage.maker.partners_of(rule).of[tensor.term, choices]:
        term = rule.left[place]
        if not isinstance(term.head, FullName):
            found.append(("", 0))
            continue
        copies = instance.keys[place][tuple(at[axis] for axis in instance.stacked(term))]
        found += origins(stages[:-1], copies[0], locate(spread(term.dims, rank), instance.sizes, source_choices, at))
    return found


def ends_at(node: Node, at: Sequence[int]) -> list[Origin]:
    """The source elements that a region names at one place of its box."""
    if isinstance(node, Leaf):
        return [(node.name, node.offset + sum(place * stride for place, stride in zip(at, node.strides, strict=True)))]
    if isinstance(node, Constant):
        return [("", 0)]
    return [end for part in node.parts for end in ends_at(part, at)]


def agrees(stages: Sequence[Stage], name: str, region: Region, samples: int, chance: random.Random) -> bool:
    """True when the region and the plain reading name the same source elements, at its two corners and at random places."""
    assert isinstance(region.left, Leaf)
    places = [(0,) * len(region.shape), tuple(size - 1 for size in region.shape)]
    places += [tuple(chance.randrange(size) for size in region.shape) for _ in range(samples)]
    for at in places:
        ((_, flat),) = ends_at(region.left, at)
        if origins(stages, name, flat) != ends_at(region.right, at):
            return False
    return True
