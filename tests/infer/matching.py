"""Two sides in memory, what matching makes of them, and whether that holds element by element."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from isomorph.formats.base import Checkpoint
from isomorph.formats.memory import ArrayCheckpoint
from isomorph.infer.by_value.arrange.find import confirmed
from isomorph.infer.by_value.changes import Change
from isomorph.infer.by_value.match import match
from isomorph.infer.factor.relation import moves_of
from isomorph.infer.nouns import Matched, Relation

Array = np.ndarray[Any, np.dtype[Any]]
Arrays = Mapping[str, Array]


def matched(source: Arrays, target: Arrays) -> Matched:
    """What matching makes of two dictionaries; every relation is held against the arrays."""
    left, right = ArrayCheckpoint(source), ArrayCheckpoint(target)
    found = match(left, right)
    assert wrong(found, left, right) == []
    return found


def wrong(found: Matched, source: Checkpoint, target: Checkpoint) -> list[str]:
    """The targets of relations that do not reproduce them, and those that are in two places or in none."""
    relations = [*found.relations, *(one.found for one in found.outliers)]
    bad = [name for relation in relations if not holds(relation, source, target) for name in relation.targets]
    places = [name for relation in relations for name in relation.targets]
    places += [*(one.target for one in found.silent), *found.unplaced]
    return bad + sorted({name for name in target.manifest if places.count(name) != 1})


def holds(relation: Relation, source: Checkpoint, target: Checkpoint) -> bool:
    """Whether the relation, written out and planned, gives the targets: every element, bit for bit."""
    moves = moves_of(
        relation,
        {name: source.manifest[name] for name in relation.sources},
        {name: target.manifest[name] for name in relation.targets},
    )
    filled: dict[str, int] = {}
    for move in moves:
        filled[move.target.tensor] = filled.get(move.target.tensor, 0) + move.target.numel
    if any(filled.get(name, 0) != target.manifest[name].numel for name in relation.targets):
        return False
    return confirmed(moves, source, target, Change(relation.operators, "") if relation.operators else None)


def written(relation: Relation) -> str:
    """A relation on one line, roughly as the notation writes it: `a [a b] <-> b [b a]`."""
    sides = []
    for side in (relation.left, relation.right):
        terms = []
        for term in side:
            dims = " ".join("+".join(" ".join(one) or "1" for one in dim) for dim in term.dims)
            head = "|".join(term.names) if hasattr(term, "names") else getattr(term, "text", "drop")
            equal = "".join("=" + "|".join(copy) for copy in getattr(term, "copies", ()))
            terms.append(f"{head}{equal} [{dims}]")
        sides.append(", ".join(terms))
    return " <-> ".join(sides)
