"""Names, shapes, configs and the catalogue -> Proposed: relations that are certain, questions for what these do not decide.

catalogue: both sides recognised ──▶ all of it, axes and orders too
the rest:  correspond ──▶ which tensors make which ──forms──▶ how they may lie ──settled──▶ relations, or questions
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isomorph.infer.by_name.agreement import Told, agreed
from isomorph.infer.by_name.catalogue import readings
from isomorph.infer.by_name.correspond import correspond
from isomorph.infer.by_name.correspondence import Match
from isomorph.infer.by_name.facts import Facts, facts_of
from isomorph.infer.by_name.finish import by_names, finished
from isomorph.infer.by_name.members import members_of, query_widths
from isomorph.infer.by_name.orientation import Member, Siblings, is_same_layout, settled, siblings
from isomorph.infer.by_name.questions import asked, choice
from isomorph.infer.by_name.rows import rows_of
from isomorph.infer.by_name.silent import placed_silent
from isomorph.infer.nouns import Proposed, Question, Relation, Silent
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
    values leave several sources open: names choose among these, and no other targets are spoken of. Nothing that the evidence does
    not decide is in a relation: it is a question, whose alternatives hold the truth as far as it is known what conversions do.
    """
    done = {name for relation in known for name in relation.targets}
    wanted = [name for name in target if name not in done]
    if silent or known:
        spoken = {one.target for one in silent}
        wanted = [name for name in wanted if name in spoken]
    told = agreed(readings(source, target, configs), source, target, wanted) if use_catalogue else Told()
    facts = facts_of(source, target, configs)
    if silent or known:
        placed, open_ = placed_silent(source, target, facts, known, silent, told.relations)
        named, told = Proposed(tuple(placed), tuple(open_)), Told(notes=told.notes)
    else:
        named = _by_names(source, target, facts, told.relations, told.targets)
    relations, questions = finished(
        (*told.relations, *named.relations), (*told.questions, *named.questions), source, target
    )
    return Proposed(
        relations,
        questions,
        unused=_unused(source, (*known, *relations), questions),
        unplaced=_unplaced(wanted, relations, questions),
        notes=(*told.notes, *named.notes),
    )


def _by_names(
    source: Manifest, target: Manifest, facts: Facts, known: Sequence[Relation], done: frozenset[str]
) -> Proposed:
    """What names and shapes say of the targets that are not `done`."""
    if done.issuperset(target):
        return Proposed(())
    found = correspond(source, target, known=known)
    sides = (source, target)
    widths = query_widths(found, sides, facts)
    is_same = is_same_layout(source, target)
    rows = rows_of(found.matches, sides)

    def forms(match: Match) -> list[Member] | None:
        return members_of(match, sides, facts, widths, is_same, rows)

    members: list[Member] = []
    notes: list[str] = list(found.notes)
    for match in found.matches:
        several = forms(match)
        if several is None:
            notes.append(f"{match.key}: shapes do not say how its sources make it")
        elif done.isdisjoint(match.targets):
            members.extend(several)
    around = siblings(members, known, sides)
    members = [settled(member, around, is_same) for member in members]
    relations = [member.forms[0].relation for member in members if len(member.forms) == 1]
    questions, many = asked([member for member in members if len(member.forms) > 1], around)
    notes.extend(f"{name}: shapes allow more ways than can be asked for" for name in many[:1])
    for each in found.choices:
        if not done.isdisjoint(each.targets):
            continue
        question, decided = choice(each, _settled_forms(forms, around, is_same), around)
        relations.extend(decided)
        questions.extend([question] if question is not None else [])
    return Proposed(tuple(map(by_names, relations)), tuple(questions), notes=tuple(notes))


def _settled_forms(forms: Any, around: Siblings, is_same: bool) -> Any:
    def of(match: Match) -> list[Member] | None:
        several = forms(match)
        return None if several is None else [settled(member, around, is_same) for member in several]

    return of


def _unused(source: Manifest, relations: Sequence[Relation], questions: Sequence[Question]) -> tuple[str, ...]:
    used = {name for relation in relations for name in relation.sources}
    used |= {
        name
        for question in questions
        for one in question.alternatives
        for each in one.relations
        for name in each.sources
    }
    return tuple(name for name in source if name not in used)


def _unplaced(wanted: Sequence[str], relations: Sequence[Relation], questions: Sequence[Question]) -> tuple[str, ...]:
    placed = {name for relation in relations for name in relation.targets}
    placed |= {name for question in questions for name in question.targets}
    return tuple(name for name in wanted if name not in placed)
