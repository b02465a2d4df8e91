"""Rules joined by labels until nothing is saved any more: full grids first, then those that are not full."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from isomorph.infer.generalise.grids import absorbed
from isomorph.infer.generalise.labels import joined_once
from isomorph.infer.generalise.patterns import Rule


def labelled(rules: Sequence[Rule], taken: AbstractSet[str]) -> list[Rule]:
    """Fewer rules. `taken` are all names of both sides: a join must not make a hole take one that is not its own."""
    current = list(rules)
    while True:
        joined = joined_once(current, taken)
        if joined is None:
            joined = absorbed(current, taken)
            if len(joined) == len(current):
                return sorted(current, key=lambda rule: rule.covers[0])
        current = joined
