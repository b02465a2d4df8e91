"""Is a choice closed: does it offer every source that names and shapes leave for its targets?

A question without the truth is worse than none. Where the words of a target, or those of a source, say nothing, no name excludes
the one from making the other: then every such source of its shape must be among the options, or nothing is asked.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from isomorph.infer.by_name.classes import Shape, TensorClass
from isomorph.infer.by_name.correspondence import Choice
from isomorph.infer.by_name.lexicon import lexicon
from isomorph.infer.by_name.links import alike
from isomorph.infer.by_name.modules import Module


@dataclass(frozen=True)
class _Leaf:
    """A class with what its words say: its role, and whether it is a weight or a bias ("" where nothing says it). `weight` is the
    shape of the weight beside it."""

    of: TensorClass
    role: str
    leaf: str
    weight: Shape | None


class Closure:
    """What could make what, as far as nothing excludes it."""

    def __init__(self, sources: Iterable[Module], targets: Iterable[Module]) -> None:
        self.sources: dict[int, list[_Leaf]] = defaultdict(list)
        for each in _leaves(sources):
            self.sources[math.prod(each.of.shape)].append(each)
        self.targets = {name: each for each in _leaves(targets) for name in each.of.members.values()}

    def holds(self, choice: Choice, used: Collection[str]) -> bool:
        """Whether a choice offers all sources that are not `used` elsewhere, for each of its targets."""
        offered: dict[str, set[str]] = defaultdict(set)
        fused: set[str] = set()
        for option in choice.options:
            for match in option:
                for link in match.links:
                    sources, targets = list(link.source_names), list(link.target_names)
                    for target in targets:
                        offered[target].update(sources)
                    if len(link.sources) > 1 or len(link.targets) > 1:
                        fused.update(targets)
        checked: set[int] = set()
        for target, names in offered.items():
            found = self.targets[target]
            if target in fused or id(found) in checked:
                continue
            checked.add(id(found))
            for source in self.sources[math.prod(found.of.shape)]:
                members = source.of.members.values()
                if _may_make(source, found) and names.isdisjoint(members) and not all(name in used for name in members):
                    return False
        return True


def _leaves(modules: Iterable[Module]) -> Iterable[_Leaf]:
    book = lexicon()
    for module in modules:
        for leaf, each in module.leaves.items():
            is_said = each.raw[-1:] in book.leaves or each.raw[-2:] in book.leaves or each.raw[-1:] in book.endings
            weight = module.leaves["weight"].shape if "weight" in module.leaves else None
            yield _Leaf(each, module.reading.role, leaf if is_said else "", weight)


def _may_make(source: _Leaf, target: _Leaf) -> bool:
    """True when no word excludes it, and shapes and counts allow it."""
    if (source.role and target.role) or (source.leaf and target.leaf and source.leaf != target.leaf):
        return False
    if source.weight and target.weight and source.leaf == target.leaf and not alike(source.weight, target.weight):
        return False
    is_numbered = any(letter.isdigit() for letter in source.of.template)
    enough = len(source.of.members) >= len(target.of.members) or is_numbered
    return enough and "buffer" not in (source.role, target.role) and alike(source.of.shape, target.of.shape)
