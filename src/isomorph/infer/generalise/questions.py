"""Questions that are answered become relations; those that are not become open alternatives, `? rule`, under a comment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from textwrap import wrap

from isomorph.infer.generalise.notes import one_line
from isomorph.infer.nouns import Draft, Question, Relation
from isomorph.language.tree import Comments, Equation, Module, Scope, Statement

WIDEST_COMMENT = 120
MOST_LINES = 3
WIDEST_WORDS = 80


def chosen(draft: Draft, answers: Mapping[str, int]) -> Draft:
    """The draft with the questions of `answers` (key -> place of the alternative, from 0) settled; the others stay.

    Sources that are in no relation any more, nor in a question, are dropped. Raises KeyError for a key that is no question's,
    IndexError for an alternative that it has not.
    """
    known = {question.key: question for question in draft.questions}
    relations = list(draft.relations)
    for key, place in answers.items():
        if not 0 <= place < len(known[key].alternatives):
            raise IndexError(
                f"question `{key}` has {len(known[key].alternatives)} alternatives, not one of number {place}"
            )
        relations.extend(replace(one, evidence="answer") for one in known[key].alternatives[place].relations)
    left = tuple(question for question in draft.questions if question.key not in answers)
    spare = _spare([known[key] for key in answers], {name for one in relations for name in one.sources}, left)
    dropped = tuple(dict.fromkeys((*draft.dropped, *spare)))
    return replace(draft, relations=tuple(relations), questions=left, dropped=dropped)


def _spare(answered: Sequence[Question], used: set[str], left: Sequence[Question]) -> list[str]:
    """Sources of alternatives that were not chosen, which nothing else needs."""
    asked = {
        name for one in left for each in one.alternatives for relation in each.relations for name in relation.sources
    }
    return [
        name
        for one in answered
        for each in one.alternatives
        for relation in each.relations
        for name in relation.sources
        if name not in used and name not in asked
    ]


def order(question: Question) -> list[int]:
    """The alternatives, the likely one first."""
    places = list(range(len(question.alternatives)))
    return sorted(places, key=lambda place: (place != question.likely, place))


def asked(question: Question) -> tuple[str, ...]:
    """The comment above a question's alternatives: `question: is it transposed?  (key …)`; the key whole, for who answers by it."""
    key = f"(key {one_line(question.key)})"
    said = wrap(f"question: {one_line(question.text)}", WIDEST_COMMENT, subsequent_indent="  ")[:MOST_LINES]
    if len(said) == 1 and len(said[0]) + len(key) <= WIDEST_COMMENT:
        return (f"{said[0]}  {key}",)
    return (*said, f"  {key}")


def words(question: Question, place: int) -> str:
    """The comment at the end of an alternative."""
    said = question.alternatives[place].words
    if place == question.likely:
        said = f"likely: {said}" + (f" ({question.why})" if question.why and question.why not in said else "")
    return _cut(said)


def _cut(text: str) -> str:
    """The end of a line."""
    plain = one_line(text).rstrip()
    return plain if len(plain) <= WIDEST_WORDS else plain[: WIDEST_WORDS - 1] + "…"


# ── what is left of a text when its questions are answered ───────────────────────────────────────────────────────────


def sometimes(draft: Draft) -> tuple[list[str], list[str]]:
    """Sources and targets that some answers use and others leave over."""
    found: tuple[list[str], list[str]] = ([], [])
    for side, left in enumerate(found):
        certain = {name for one in draft.relations for name in _names(one, side)}
        every: dict[str, None] = {}
        for question in draft.questions:
            used = [{name for one in each.relations for name in _names(one, side)} for each in question.alternatives]
            always = set.intersection(*used) if used else set()
            certain |= always
            every.update(
                (name, None)
                for each in question.alternatives
                for one in each.relations
                for name in _names(one, side)
                if name not in always
            )
        left.extend(name for name in every if name not in certain)
    return found


def _names(relation: Relation, side: int) -> tuple[str, ...]:
    return relation.targets if side else relation.sources


def settled(module: Module, groups: Sequence[tuple[int, int] | None], ranks: Mapping[int, int]) -> Module:
    """The module with one alternative of each question (question -> its rank) as a rule and the others deleted.

    `groups` are those of its equations in the order of the text.
    """
    left = iter(groups)
    return Module(tuple(_settled(module.statements, left, ranks)))


def _settled(
    statements: Sequence[Statement], groups: Iterator[tuple[int, int] | None], ranks: Mapping[int, int]
) -> list[Statement]:
    found: list[Statement] = []
    for one in statements:
        if isinstance(one, Scope):
            body = _settled(one.body, groups, ranks)
            if body:
                found.append(replace(one, body=tuple(body)))
        elif isinstance(one, Equation):
            group = next(groups)
            if group is None or ranks[group[0]] == group[1]:
                found.append(closed(one))
        else:
            found.append(one)
    return found


def closed(statement: Statement) -> Statement:
    """An alternative as a rule like any other."""
    return replace(statement, open=False, comments=Comments()) if isinstance(statement, Equation) else statement
