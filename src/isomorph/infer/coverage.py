"""Draft + manifests -> Coverage: how many target tensors and elements are placed, and by what."""

from __future__ import annotations

from isomorph.infer.nouns import EVIDENCE, Coverage, Draft, Evidence
from isomorph.tensors import Manifest


def coverage(draft: Draft, source: Manifest, target: Manifest, verified: int | None = None) -> Coverage:
    """Counts over the target. A target of an open question is asked, whatever its alternatives rest on."""
    by: dict[str, Evidence] = {}
    for relation in draft.relations:
        for name in relation.targets:
            by.setdefault(name, relation.evidence)
    asked = {name for question in draft.questions for name in question.targets if name in target}
    placed: dict[Evidence, tuple[int, int]] = {}
    for evidence in EVIDENCE:
        names = [name for name in target if by.get(name) == evidence and name not in asked]
        if names:
            placed[evidence] = len(names), sum(target[name].numel for name in names)
    return Coverage(
        targets=len(target),
        elements=target.numel,
        placed=placed,
        asked=(len(asked), sum(target[name].numel for name in asked)),
        unplaced=tuple(draft.unplaced),
        dropped=tuple(draft.dropped),
        sources=len(source),
        verified=verified,
    )
