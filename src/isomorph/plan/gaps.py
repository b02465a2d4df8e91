"""Gaps with their place: the line of the morph, and a caret under the part that is meant."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from isomorph.errors import Gap
from isomorph.language.rules import Rule
from isomorph.language.tokens import DEFAULT_FILE, WIDEST, gap_at, snippet
from isomorph.language.tree import Span
from isomorph.plan.folding import fold_numbers, template

if TYPE_CHECKING:
    from isomorph.plan.stage import StageRule

MOST_SHOWN = 20
"""So many names are listed in one gap; the rest are counted."""
MOST_GAPS = 12
"""So many different problems of one rule are told; the rest are counted."""
MOST_KEPT = 2_000
"""So many instances of one rule tell what is wrong with them, before what they say is folded; the rest are counted."""


def rule_gap(
    rule: Rule,
    kind: str,
    message: str,
    *,
    find: str | None = None,
    span: Span | None = None,
    details: Iterable[str] = (),
    hint: str | None = None,
    tensors: Iterable[str] = (),
) -> Gap:
    """A gap at the rule's line. The caret stands under `span`, else under the first whole word `find`, else nowhere."""
    origin = rule.origin
    raw = origin.line_text.strip("\n").rstrip()
    column = end = 0
    if span is not None and span.line == origin.line:
        column, end = span.column, span.end
    elif find:
        at = _word(raw, find)
        if at is not None:
            column, end = at + 1, at + 1 + len(find)
    told = tuple(tensors)
    if column:
        gap = gap_at(kind, message, origin.file, origin.line, raw, column, end, hint, tuple(details))
        return replace(gap, tensors=told)
    file = None if origin.file == DEFAULT_FILE else origin.file
    text = snippet(raw.strip(), WIDEST)
    return Gap(kind, message, file, origin.line, text=text, details=tuple(details), hint=hint, tensors=told)


def _word(text: str, word: str) -> int | None:
    at = text.find(word)
    while at >= 0:
        before = text[at - 1] if at else " "
        after = text[at + len(word)] if at + len(word) < len(text) else " "
        if not (before.isalnum() or before == "_") and not (after.isalnum() or after == "_"):
            return at
        at = text.find(word, at + 1)
    return None


def cut(text: str, most: int = WIDEST) -> str:
    """A rule's text for a message: one line, not long."""
    return snippet(text, most)


def listed(names: Sequence[str], most: int = MOST_SHOWN, total: int | None = None) -> str:
    """`a, b, c … and 7 more`. `total` counts them where `names` are but the first."""
    shown = ", ".join(names[:most])
    more = (len(names) if total is None else total) - min(most, len(names))
    return f"{shown} … and {more} more" if more > 0 else shown


_NAMED_NUMBER = re.compile(r"`[^`]*`|(?<=[a-z]=)\d+")
"""In a message: a name between backticks, or the value of an axis."""


class Told:
    """Gaps of many instances, as they are found: of one kind of one rule `MOST_KEPT` are kept, the others are counted."""

    def __init__(self) -> None:
        self._kept: list[Gap] = []
        self._rules: dict[tuple[int, str], Rule] = {}
        self._counts: Counter[tuple[int, str]] = Counter()

    def add(self, rule: StageRule, gap: Gap) -> None:
        key = (rule.number, gap.kind)
        self._rules[key] = rule.rule
        self._counts[key] += 1
        if self._counts[key] <= MOST_KEPT:
            self._kept.append(gap)

    def all(self) -> list[Gap]:
        """Those that say the same as one, then how many more there are."""
        gaps = list(merged(self._kept, MOST_GAPS))
        for key, count in self._counts.items():
            if count > MOST_KEPT:
                more = f"{count - MOST_KEPT:,} more instances of this rule have the same problem"
                gaps.append(rule_gap(self._rules[key], key[1], more))
        return gaps


def merged(gaps: Sequence[Gap], most: int) -> Iterator[Gap]:
    """Gaps that say the same of several instances as one, its names folded: `layers.{0..11}.q`. Of one rule, `most` are told."""
    alike: dict[tuple[str, Gap], list[Gap]] = {}
    for gap in gaps:
        open_text = _NAMED_NUMBER.sub(lambda found: template(f".{found[0].strip('`')}"), gap.message)
        alike.setdefault((open_text, replace(gap, message="", details=(), tensors=())), []).append(gap)
    told: Counter[tuple[str, str | None, int | None]] = Counter()
    last: dict[tuple[str, str | None, int | None], Gap] = {}
    for same in alike.values():
        gap = same[0]
        place = (gap.kind, gap.file, gap.line)
        told[place] += len(same) if told[place] >= most else 1
        last[place] = gap
        if told[place] > most:
            continue
        details: dict[str, list[str]] = {}
        for each in same:
            for line in each.details:
                key = _NAMED_NUMBER.sub(lambda found: template(f".{found[0].strip('`')}"), line)
                details.setdefault(key, []).append(line)
        yield replace(
            gap,
            message=_folded([each.message for each in same]),
            details=tuple(map(_folded, details.values())),
            tensors=tuple(dict.fromkeys(name for each in same for name in each.tensors)),
        )
    for place, count in told.items():
        if count > most:
            more = f"{count - most:,} more instances of this rule have the same problem"
            yield replace(last[place], message=more, column=None, end=None, details=(), hint=None, tensors=())


def _folded(texts: Sequence[str]) -> str:
    """Texts that differ in the numbers of their names alone, as one."""
    if len(set(texts)) == 1:
        return texts[0]
    found = [_NAMED_NUMBER.findall(text) for text in texts]
    if len({len(names) for names in found}) > 1:  # names that hold backticks of their own
        return texts[0]
    folded = iter([_fold(column) for column in zip(*found, strict=True)])
    return _NAMED_NUMBER.sub(lambda _: next(folded), texts[0])


def _fold(column: Sequence[str]) -> str:
    if column[0].startswith("`"):
        return f"`{fold_numbers([name.strip('`') for name in column])}`"
    return fold_numbers([f".{number}" for number in column])[1:]
