"""What is known already: relations that settle which modules correspond, and the sources that a target's values allow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from isomorph.infer.by_name.candidates import Candidate
from isomorph.infer.by_name.correspondence import Link
from isomorph.infer.nouns import Relation

KNOWN = 30.0
"""What a known relation between two modules is worth."""


class Anchors:
    """Known relations and silent targets, as what candidates must agree with."""

    def __init__(self, known: Sequence[Relation], silent: Mapping[str, Sequence[str]]) -> None:
        self.made_by: dict[str, set[str]] = {}
        for relation in known:
            for target in relation.targets:
                self.made_by.setdefault(target, set()).update(relation.sources)
        self.targets = frozenset(self.made_by)
        self.sources = frozenset(name for names in self.made_by.values() for name in names)
        self.allowed = {target: frozenset(names) for target, names in silent.items()}

    def apply(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The candidates that agree, with what the known relations add to their score."""
        if not self.made_by and not self.allowed:
            return list(candidates)
        confirmed: dict[int, int] = defaultdict(int)
        denied: set[int] = set()
        for at, each in enumerate(candidates):
            for links in each.links.values():
                for link in links:
                    verdict = self._verdict(link)
                    if verdict is False:
                        denied.add(at)
                    elif verdict:
                        confirmed[at] += 1
        return [
            replace(each, score=each.score + KNOWN) if confirmed[at] else each
            for at, each in enumerate(candidates)
            if at not in denied
        ]

    def _verdict(self, link: Link) -> bool | None:
        """True when a known relation says it, False when one says otherwise, or the values do."""
        sources = set(link.source_names)
        for target in link.target_names:
            if target in self.made_by:
                return bool(self.made_by[target] & sources)
            if target in self.allowed and not sources & self.allowed[target]:
                return False
        return None
