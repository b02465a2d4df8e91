"""Which block of one side is which block of the other (LANGUAGE.md 3 (8), (9))."""

from __future__ import annotations

from dataclasses import dataclass, field

from isomorph.language.rules import Rule
from isomorph.verify.along import axes_after
from isomorph.verify.instances import stacked
from isomorph.verify.shapes import Choices, blocks_of

Block = tuple[int, Choices]
"""(number of a term in its side, choices)."""


@dataclass
class Partners:
    """For every right block, the left blocks that fill it (several only with `sum`); found once for a rule."""

    of: dict[Block, list[Block]] = field(default_factory=dict)
    problem: str | None = None


def pair(rule: Rule) -> Partners:
    """Blocks with the same axes pair in reading order (LANGUAGE.md 3 (8), (9))."""
    sides: list[dict[frozenset[str], list[Block]]] = []
    inverted = any(op.inverted for op in rule.operators)
    written = rule.operators[::-1] if inverted else rule.operators
    for terms in (rule.left, rule.right):
        acted_on = terms is (rule.right if inverted else rule.left)
        blocks: dict[frozenset[str], list[Block]] = {}
        for place, term in enumerate(terms):
            for choices, in_dims in blocks_of(term.dims):
                own = {*stacked(term, rule), *in_dims}
                key = frozenset(axes_after(own, written) if acted_on else own)
                blocks.setdefault(key, []).append((place, choices))
        sides.append(blocks)
    left, right = sides
    partners = Partners()
    sums = any(op.name == "sum" for op in rule.operators)
    for axes in dict.fromkeys((*left, *right)):
        sources, targets = left.get(axes, []), right.get(axes, [])
        if sums and len(targets) == 1 and sources:
            partners.of[targets[0]] = sources
        elif len(sources) == len(targets):
            partners.of.update({target: [source] for source, target in zip(sources, targets, strict=True)})
        else:
            partners.problem = (
                f"{len(sources)} blocks with the axes {sorted(axes)} on the left, {len(targets)} on the right"
            )
    partners.of = dict(sorted(partners.of.items()))
    return partners
