"""Questions that are answered become relations; those that are not become open alternatives, `? rule`, under a comment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from isomorph.infer.nouns import Draft, Question

WIDEST_COMMENT = 130


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
    """The comment above a question's alternatives."""
    return tuple(_cut(line) for line in (f"? {question.text}", f"  key: {question.key}"))


def words(question: Question, place: int) -> str:
    """The comment at the end of an alternative."""
    said = question.alternatives[place].words
    if place == question.likely:
        said = f"{said} (likely{': ' + question.why if question.why else ''})"
    return _cut(said)


def _cut(text: str) -> str:
    """One line of a comment."""
    plain = "".join(char if char.isprintable() else " " for char in text).rstrip()
    return plain if len(plain) <= WIDEST_COMMENT else plain[: WIDEST_COMMENT - 1] + "…"
