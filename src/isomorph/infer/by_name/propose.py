"""Names, shapes, configs and the catalogue -> Proposed: relations that are certain, questions for what these do not decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isomorph.infer.by_name.agreement import Told, agreed
from isomorph.infer.by_name.catalogue import readings
from isomorph.infer.nouns import Proposed, Relation, Silent
from isomorph.tensors import Manifest


def propose(
    source: Manifest,
    target: Manifest,
    *,
    configs: tuple[Mapping[str, Any] | None, Mapping[str, Any] | None] = (None, None),
    known: Sequence[Relation] = (),
    silent: Sequence[Silent] = (),
    use_catalogue: bool = True,
) -> Proposed:
    """What makes each target, as far as its name and shape and those of the source say; no tensor is read.

    `known` are relations that are certain already (by values); their targets are not proposed again. `silent` are targets whose
    values leave several sources open: names choose among these. Nothing that the evidence does not decide is in a relation: it is a
    question, whose alternatives hold the truth as far as it is known what conversions do.
    """
    done = {name for relation in known for name in relation.targets}
    wanted = [name for name in target if name not in done]
    told = agreed(readings(source, target, configs), source, target, wanted) if use_catalogue else Told()
    used = {name for relation in (*known, *told.relations) for name in relation.sources}
    used |= {
        name
        for question in told.questions
        for one in question.alternatives
        for r in one.relations
        for name in r.sources
    }
    return Proposed(
        told.relations,
        told.questions,
        unused=tuple(name for name in source if name not in used),
        unplaced=tuple(name for name in wanted if name not in told.targets),
        notes=told.notes,
    )
