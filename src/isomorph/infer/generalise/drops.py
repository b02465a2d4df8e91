"""What goes nowhere: `drop text_model.**, logit_scale`. Few patterns, none of which takes a name that is needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from isomorph.infer.generalise.patterns import SEPARATORS, Rule, Star, Template, Term, Token, is_number, tokens

PLAIN = 2
"""So many names are written as they are."""


def dropped(
    names: Sequence[str], kept: Iterable[str], first: int, *, made: bool = False, maybe: bool = False
) -> list[Rule]:
    """A rule for each pattern of the names to drop; `made`: of the right side; `maybe`: they may take nothing.

    They cover numbers from `first` on, in order.
    """
    rules = []
    number = {name: first + k for k, name in enumerate(names)}
    for template, taken in _patterns(names, kept):
        named, nothing = Term(template, None), Term(None, None)
        covers = tuple(sorted(number[name] for name in taken))
        sides = ((nothing,), (named,)) if made else ((named,), (nothing,))
        rules.append(Rule(*sides, covers, maybe=maybe))
    return rules


def _patterns(names: Sequence[str], kept: Iterable[str]) -> list[tuple[Template, list[str]]]:
    """(pattern, what it takes), greedily: what takes most comes first, of equals the one that says most."""
    if len(names) <= PLAIN:
        return [(tokens(name), [name]) for name in names]
    taken: dict[Template, list[str]] = {}
    for name in names:
        for template in _general(name):
            taken.setdefault(template, []).append(name)
    for name in kept:
        for template in _general(name):
            taken.pop(template, None)
    left = dict.fromkeys(names)
    found: list[tuple[Template, list[str]]] = []
    order = sorted(taken, key=lambda template: (-len(taken[template]), -_said(template), str(template)))
    while left:
        best: tuple[int, int] = (1, 0)
        chosen: Template | None = None
        for template in order:
            if len(taken[template]) < best[0]:
                break
            here = sum(name in left for name in taken[template])
            if here >= 2 and (here, _said(template)) > best:
                best, chosen = (here, _said(template)), template
        if chosen is None:
            found.extend((tokens(name), [name]) for name in left)
            break
        found.append((chosen, [name for name in taken[chosen] if name in left]))
        for name in taken[chosen]:
            left.pop(name, None)
    return found


def _said(template: Template) -> int:
    """How much a pattern says: fewer stars, then more text."""
    return sum(len(token) if isinstance(token, str) else -1000 for token in template)


def _general(name: str) -> list[Template]:
    """The patterns that take this name: by what it begins with, by its numbers left open, by its last piece."""
    cut = tokens(name)
    marks = [k for k, token in enumerate(cut) if token in SEPARATORS]
    made: list[tuple[Token, ...]] = [(*cut[: k + 1], Star(True)) for k in marks if k + 1 < len(cut)]
    if marks and marks[-1] + 1 < len(cut):
        made.append((*cut[: marks[-1] + 1], Star(False)))
        if marks[-1] > 0:
            made.append((Star(True), *cut[marks[-1] :]))
        if len(marks) > 1 and marks[-2] > 0:
            made.append((Star(True), *cut[marks[-2] :]))
    return [*made, *_opened(cut, made)]


def _opened(cut: Template, made: Sequence[Template]) -> list[Template]:
    """The name, and what was made of it, with `*` for pieces that are numbers."""
    found = []
    for template in (cut, *made):
        opened = tuple(
            Star(False) if is_number(token) and _alone(template, k) else token for k, token in enumerate(template)
        )
        if opened != template:
            found.append(opened)
    return found


def _alone(template: Template, k: int) -> bool:
    before = template[k - 1] if k else "."
    after = template[k + 1] if k + 1 < len(template) else "."
    return before in SEPARATORS and after in SEPARATORS if isinstance(before, str) and isinstance(after, str) else False
