"""Targets whose values do not say what they are -> relations by names, among the sources that their values allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isomorph.infer.by_name.agreement import Told
from isomorph.infer.nouns import Proposed, Relation, Silent
from isomorph.tensors import Manifest


def placed_silent(
    source: Manifest,
    target: Manifest,
    configs: tuple[Mapping[str, Any] | None, Mapping[str, Any] | None],
    known: Sequence[Relation],
    silent: Sequence[Silent],
    told: Told,
) -> Proposed:
    """Each silent target in a relation or in a question."""
    return Proposed(
        told.relations, told.questions, unplaced=tuple(one.target for one in silent if one.target not in told.targets)
    )
