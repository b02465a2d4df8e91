"""Places targets whose values are a source's values changed: w + 1, scaled, negated, exp, log (changes.py finds which)."""

from __future__ import annotations

from collections import Counter

from isomorph.infer.by_value.changes import Change, changes_of_leftovers
from isomorph.infer.by_value.laying import Laying
from isomorph.infer.by_value.ledger import Ledger
from isomorph.infer.by_value.templates import likeness, named

Candidate = tuple[str, Change]


def place_changed(ledger: Ledger, laying: Laying) -> None:
    """Book the relations that one change of all values explains; where several would, that of most of the class."""
    scene = ledger.scene
    targets = [name for name in ledger.targets() if scene.targets[name].dtype.is_float]
    sources = [name for name in ledger.sources() if scene.sources[name].dtype.is_float]
    if not targets or not sources:
        return
    found = changes_of_leftovers(
        scene.source,
        sources,
        scene.target,
        targets,
        prints=scene.targets,
        max_memory=scene.max_memory,
    )
    votes = Counter(_kind(target, one) for target, candidates in found.items() for one in candidates)
    for target, candidates in found.items():

        def rank(one: Candidate, target: str = target) -> tuple[int, int, int, str]:
            shared = likeness(named(one[0]).numbers, named(target).numbers)
            return -votes[_kind(target, one)], -shared, len(one[1].operators), one[0]

        for source, change in sorted(candidates, key=rank):
            if not ledger.is_free((source,), (target,)):
                continue
            relation = laying.relation((source,), (target,), change=change)
            if relation is not None:
                ledger.add(relation)
                break


def _kind(target: str, one: Candidate) -> tuple[object, ...]:
    return named(target).template, named(one[0]).template, one[1].operators
