"""What values say + what names say -> Draft; and a Draft with some of its questions decided.

Names place what values are silent about, and nothing else: a proposal stands only where the values of both files bear it out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from isomorph.infer.answers import answered
from isomorph.infer.factor.relation import moves_of
from isomorph.infer.nouns import (
    Alternative,
    Draft,
    Evidence,
    Filled,
    Matched,
    Outlier,
    Part,
    Proposed,
    Question,
    Relation,
    Silent,
    axis,
)
from isomorph.infer.report import listed
from isomorph.plan.moves import Move
from isomorph.tensors import Manifest

Holds = Callable[[Relation], bool]
"""Whether the values of both sides are what a relation says, element by element."""


def from_values(
    matched: Matched, proposed: Proposed, source: Manifest, target: Manifest, holds: Holds
) -> tuple[Draft, tuple[str, ...]]:
    """The draft of two files that hold the same weights; notes of proposals that the values contradict."""
    relations = list(matched.relations)
    questions = [question for one in matched.outliers if (question := of_outlier(one)) is not None]
    relations += [one.found for one in matched.outliers if one.expected is None]
    placed = {name for one in relations for name in one.targets}
    placed |= {name for question in questions for name in question.targets}
    contradicted: list[str] = []
    for relation in proposed.relations:
        if placed.isdisjoint(relation.targets):
            if holds(relation):
                relations.append(relation)
                placed.update(relation.targets)
            else:
                contradicted += relation.targets
    for question in proposed.questions:
        if not placed.isdisjoint(question.targets):
            continue
        question = distinct(question, source, target)
        left = tuple(one for one in question.alternatives if all(holds(each) for each in one.relations))
        if len(left) > 1:
            questions.append(_with_alternatives(question, left))
            placed.update(question.targets)
        elif left:
            many = len(question.alternatives)
            note = f"names leave {many} alternatives, and the values bear one of them out"
            relations += left[0].relations if many == 1 else [replace(one, note=note) for one in left[0].relations]
            placed.update(question.targets)
        else:
            contradicted += question.targets
    relations += [
        constant(one, target)
        for one in matched.silent
        if one.target not in placed and one.value is not None and not one.candidates
    ]
    return drafted(relations, questions, source, target), _contradictions(contradicted)


def from_names(proposed: Proposed, source: Manifest, target: Manifest) -> Draft:
    """The draft of names, shapes and layouts alone."""
    relations, questions = list(proposed.relations), []
    for question in proposed.questions:
        question = distinct(question, source, target)
        if len(question.alternatives) == 1:
            relations += question.alternatives[0].relations
        else:
            questions.append(question)
    return drafted(_tied(relations, target), questions, source, target)


def _tied(relations: Sequence[Relation], target: Manifest) -> list[Relation]:
    """The relations, with the other names of a target that is made: where the target holds one tensor under several."""
    made = {name for one in relations for name in one.targets}
    more: dict[str, list[str]] = {}
    for group in target.shared:
        kept = [name for name in group if name in made]
        if len(kept) == 1:
            more[kept[0]] = [name for name in group if name not in made]
    return [_with_copies(one, more) if any(name in more for name in one.targets) else one for one in relations]


def _with_copies(relation: Relation, more: Mapping[str, Sequence[str]]) -> Relation:
    right = tuple(
        replace(part, copies=(*part.copies, *((name,) for name in more[part.names[0]])))
        if isinstance(part, Part) and len(part.names) == 1 and part.names[0] in more
        else part
        for part in relation.right
    )
    return replace(relation, right=right)


def distinct(question: Question, source: Manifest, target: Manifest) -> Question:
    """The question without alternatives that move every element as an earlier one does: at some sizes two layouts are one."""
    begun = [_moves(one.relations[:1], source, target) or one.words for one in question.alternatives]
    seen: dict[object, Alternative] = {}
    same = []
    for one, beginning in zip(question.alternatives, begun, strict=True):
        is_alone = begun.count(beginning) == 1  # what differs in its first tensors is not looked at further
        whole = beginning if is_alone else _moves(one.relations, source, target) or one.words
        same.append(seen.setdefault(whole, one))
    likely = None if question.likely is None else question.alternatives.index(same[question.likely])
    return _with_alternatives(replace(question, likely=likely), tuple(seen.values()))


def _moves(relations: Sequence[Relation], source: Manifest, target: Manifest) -> frozenset[Move]:
    """All that relations move; nothing where that cannot be said."""
    try:
        return frozenset(move for one in relations for move in moves_of(one, source, target))
    except (KeyError, ValueError):
        return frozenset()


def drafted(relations: Iterable[Relation], questions: Iterable[Question], source: Manifest, target: Manifest) -> Draft:
    """A draft that accounts for every name of both sides."""
    relations, questions = tuple(relations), tuple(questions)
    standing = [
        *relations,
        *(one for question in questions for each in question.alternatives for one in each.relations),
    ]
    used = {name for one in standing for name in one.sources}
    made = {name for one in standing for name in one.targets}
    return Draft(
        relations,
        questions,
        dropped=tuple(name for name in source if name not in used),
        unplaced=tuple(name for name in target if name not in made),
    )


def decided(
    draft: Draft,
    places: Mapping[str, int],
    evidence: Evidence,
    source: Manifest,
    target: Manifest,
    notes: Mapping[str, str] | None = None,
) -> Draft:
    """The draft with these questions answered: key -> the place of an alternative, from 0."""
    relations = list(draft.relations)
    for question in draft.questions:
        if question.key in places:
            relations += answered(question, places[question.key], evidence, (notes or {}).get(question.key, ""))
    left = [question for question in draft.questions if question.key not in places]
    return drafted(relations, left, source, target)


def supposed(draft: Draft) -> dict[str, int]:
    """An answer for every question, so that the rest can be checked: as found for outliers, the likely one, or else the first one
    that claims no tensor that is claimed already."""
    taken = {name for one in draft.relations for name in (*one.sources, *one.targets)}
    places: dict[str, int] = {}
    for question in draft.questions:
        first = 0 if question.kind == "outlier" or question.likely is None else question.likely
        order = [first, *(place for place in range(len(question.alternatives)) if place != first)]
        names = [_claimed(question.alternatives[place].relations) for place in order]
        best = next((number for number, one in enumerate(names) if taken.isdisjoint(one)), 0)
        places[question.key] = order[best]
        taken |= names[best]
    return places


def of_outlier(outlier: Outlier) -> Question | None:
    """An outlier as a question: as it was found, or as its siblings are. None where nothing is known of its siblings."""
    if outlier.expected is None:
        return None
    return Question(
        key=f"{outlier.target} outlier",
        kind="outlier",
        text=outlier.text,
        alternatives=(
            Alternative((outlier.found,), "as found: this reproduces the target bit for bit"),
            Alternative((outlier.expected,), "as its siblings: the target is then not reproduced here"),
        ),
    )


def unsaid(matched: Matched, draft: Draft) -> dict[str, str]:
    """Unplaced target -> what its values say of it, in words: what they are near to, or which sources hold the same."""
    found = {name: matched.approximate[name] for name in draft.unplaced if name in matched.approximate}
    left = frozenset(draft.unplaced)
    for one in matched.silent:
        if one.target in left:
            held = f"{len(one.candidates):,} sources hold the same, and names do not say which it is"
            found[one.target] = held if one.value is None else f"all its values are {one.value}; {held}"
    return found


def constant(silent: Silent, target: Manifest) -> Relation:
    """The relation that makes a target of the one value that fills it."""
    spec = target[silent.target]
    letters = [f"a{number}" for number in range(len(spec.shape))]
    dims = tuple(axis(letter) if size != 1 else ((),) for letter, size in zip(letters, spec.shape, strict=True))
    assert silent.value is not None, "only a tensor of one value is a constant"
    return Relation(
        (Filled(silent.value, dims, spec.dtype),),
        (Part((silent.target,), dims),),
        {letter: size for letter, size in zip(letters, spec.shape, strict=True) if size != 1},
        evidence="constant",
        note=f"all its values are {silent.value}, and no source holds them",
    )


def _claimed(relations: Sequence[Relation]) -> set[str]:
    return {name for one in relations for name in (*one.sources, *one.targets)}


def _with_alternatives(question: Question, left: tuple[Alternative, ...]) -> Question:
    if len(left) == len(question.alternatives):
        return question
    likely = None if question.likely is None else question.alternatives[question.likely]
    place = None if likely is None else next((place for place, one in enumerate(left) if one is likely), None)
    return replace(question, alternatives=left, likely=place, why=question.why if place is not None else "")


def _contradictions(names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        return ()
    return (
        f"names would place {len(names):,} targets that the values of both files contradict; they are not placed: {listed(names)}",
    )
