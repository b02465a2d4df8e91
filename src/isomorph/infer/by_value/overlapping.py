"""Places what is a part of a source or has more than its sources: by the rows that both sides share (overlaps.py)."""

from __future__ import annotations

from isomorph.infer.by_value.forms import with_copies
from isomorph.infer.by_value.laying import Laying
from isomorph.infer.by_value.ledger import Ledger
from isomorph.infer.by_value.overlaps import groups

MOST_IN_GROUP = 256


def place_overlaps(ledger: Ledger, laying: Laying) -> None:
    """Book the relations of groups that share rows and that a layout explains: slices, padding, many to many."""
    scene = ledger.scene
    targets = ledger.targets()
    sources = ledger.sources()
    if not targets or not sources:
        return
    copies: dict[str, list[str]] = {}
    kept = []
    seen: dict[tuple[object, ...], str] = {}
    for name in targets:
        one = scene.targets[name]
        first = seen.setdefault((one.total, one.numel, one.dtype, one.shape, one.axes), name)
        if first == name:
            kept.append(name)
        else:
            copies.setdefault(first, []).append(name)
    found = groups(
        scene.source,
        {name: scene.sources[name] for name in sources},
        scene.target,
        {name: scene.targets[name] for name in kept},
        max_memory=scene.max_memory,
    )
    for group in found:
        its_sources = tuple(name for name in group.sources if name not in ledger.used)
        if not its_sources or len(its_sources) + len(group.targets) > MOST_IN_GROUP:
            continue
        relation = laying.relation(its_sources, group.targets)
        if relation is not None and ledger.is_free(relation.sources, relation.targets):
            ledger.add(with_copies(relation, copies))
            continue
        for target, linked in group.links.items():
            left = tuple(name for name in linked if name not in ledger.used)
            alone = laying.relation(left, (target,)) if left else None
            if alone is not None and ledger.is_free(alone.sources, alone.targets):
                ledger.add(with_copies(alone, copies))
