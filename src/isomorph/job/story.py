"""A Plan in a few words: how many tensors are fused, cut, transposed, cast, or copied as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from isomorph.describe.text import bytes_text, count

if TYPE_CHECKING:
    from isomorph.plan.moves import Source
    from isomorph.plan.plan import Plan


@dataclass(frozen=True)
class Work:
    """Targets counted by how they are made; each in the first kind that fits: fused, cast, transposed, cut, copied, made."""

    fused: int
    fused_from: int
    computed: int
    transposed: int
    cut: int
    copied: int
    made: int


def sources_of(source: Source) -> set[str]:
    """The source tensors that elements come from."""
    from isomorph.plan.moves import Along, Box, Mix

    if isinstance(source, Box):
        return {source.tensor}
    if isinstance(source, Mix):
        return set().union(*map(sources_of, source.sources))
    if isinstance(source, Along):
        return set().union(*(sources_of(part.source) for part in source.parts))
    return set()


def work(plan: Plan) -> Work:
    """Count the targets of a plan by how they are made."""
    reads: dict[str, set[str]] = {name: set() for name in plan.targets}
    computed, moved = set(), set()
    for move in plan.moves:
        found = sources_of(move.source)
        reads[move.target.tensor] |= found
        if move.operators or (found and not hasattr(move.source, "tensor")):
            computed.add(move.target.tensor)
        elif found and not move.is_range:
            moved.add(move.target.tensor)
    kinds = {"fused": 0, "computed": 0, "transposed": 0, "cut": 0, "copied": 0, "made": 0}
    fused_from: set[str] = set()
    for target, names in reads.items():
        if len(names) > 1:
            kinds["fused"] += 1
            fused_from |= names
        elif target in computed:
            kinds["computed"] += 1
        elif target in moved:
            kinds["transposed"] += 1
        elif not names:
            kinds["made" if plan.targets[target].spec.numel else "copied"] += 1
        elif any(plan.source[name].numel != plan.targets[target].spec.numel for name in names):
            kinds["cut"] += 1
        else:
            kinds["copied"] += 1
    return Work(fused_from=len(fused_from), **kinds)


def work_line(plan: Plan, nbytes: int) -> str:
    """`294 tensors (48 fused from 144, 246 copied; 202 dropped by name) · 1.21 GB`."""
    counted = work(plan)
    facts = [
        f"{counted.fused:,} fused from {counted.fused_from:,}" if counted.fused else "",
        f"{counted.computed:,} cast or computed" if counted.computed else "",
        f"{counted.transposed:,} rearranged" if counted.transposed else "",
        f"{counted.cut:,} cut out" if counted.cut else "",
        f"{counted.copied:,} copied" if counted.copied else "",
        f"{counted.made:,} made from constants" if counted.made else "",
    ]
    text = ", ".join(filter(None, facts))
    if plan.dropped:
        text += f"; {len(plan.dropped):,} dropped" + ("" if plan.unmade else " by name")
    if plan.unmade:
        text += f"; {len(plan.unmade):,} not made, for want of a dropped part"
    return f"{count(len(plan.targets), 'tensor')} ({text}) · {bytes_text(nbytes)}"
