"""The relation of a weight -> that of the bias beside it: the same parts in the same order, without the axes that a bias lacks."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from isomorph.infer.nouns import Dim, Dropped, Filled, Part, Product, Relation, Side
from isomorph.tensors import Manifest

_LEAF = re.compile(r"(?:weights?|kernel|bias|biases|gamma|beta|scale|w|b)(?::0)?\Z")


def module_of(name: str) -> str:
    """A name without its last word: `h.0.attn.in_proj_` of `h.0.attn.in_proj_bias`."""
    found = _LEAF.search(name)
    return name[: found.start()] if found else name


def transferred(
    sources: Sequence[str], targets: Sequence[str], known: Mapping[str, Relation], sides: tuple[Manifest, Manifest]
) -> Relation | None:
    """The relation between `sources` and `targets` that is like a known one between their modules; None where there is none.

    `known` maps target names to relations. Where the known tensors have a dim more, its axes are left out everywhere.
    """
    here = {module_of(name): name for name in sources}
    there = {module_of(name): name for name in targets}
    tried: set[int] = set()
    for relation in known.values():
        if id(relation) in tried:
            continue
        tried.add(id(relation))
        if relation.sums or relation.operators:
            continue
        if {module_of(name) for name in relation.sources} != set(here) or {
            module_of(name) for name in relation.targets
        } != set(there):
            continue
        found = _like(relation, here, there, sides)
        if found is not None:
            return found
    return None


def _like(
    relation: Relation, here: Mapping[str, str], there: Mapping[str, str], sides: tuple[Manifest, Manifest]
) -> Relation | None:
    axes = dict.fromkeys(
        axis for part in (*relation.left, *relation.right) for dim in part.dims for product in dim for axis in product
    )
    for part in relation.right:
        if not isinstance(part, Part):
            continue
        for dim in part.dims:
            gone = {axis for axis in axes if all(axis not in product for product in dim)} - _along(relation)
            for lost in (gone, set()):
                left = _side(relation.left, here, lost)
                right = _side(relation.right, there, lost)
                kept = {axis: size for axis, size in relation.sizes.items() if axis not in lost}
                found = replace(relation, left=left, right=right, sizes=kept)
                if _fits(found, sides):
                    return found
    return None


def _along(relation: Relation) -> set[str]:
    return {axis for part in (*relation.left, *relation.right) if isinstance(part, Part) for axis in part.along}


def _side(side: Side, names: Mapping[str, str], lost: set[str]) -> Side:
    found: list[Part | Filled | Dropped] = []
    for part in side:
        dims = tuple(each for each in (_without(dim, lost) for dim in part.dims) if each is not None)
        if isinstance(part, Part):
            found.append(
                Part(_named(part.names, names), dims, part.along, tuple(_named(copy, names) for copy in part.copies))
            )
        else:
            found.append(replace(part, dims=dims))
    return tuple(found)


def _named(found: Sequence[str], names: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(names[module_of(name)] for name in found)


def _without(dim: Dim, lost: set[str]) -> Dim | None:
    """A dim without these axes; None for one that had no others."""
    kept: list[Product] = [tuple(axis for axis in product if axis not in lost) for product in dim]
    return None if lost and all(product and not rest for product, rest in zip(dim, kept, strict=True)) else tuple(kept)


def _fits(relation: Relation, sides: tuple[Manifest, Manifest]) -> bool:
    for side, manifest in ((relation.left, sides[0]), (relation.right, sides[1])):
        for part in side:
            if isinstance(part, Part):
                shape = tuple(
                    sum(math.prod(relation.sizes[axis] for axis in product) for product in dim) for dim in part.dims
                )
                if any(manifest[name].shape != shape for name in part.every):
                    return False
    return True
