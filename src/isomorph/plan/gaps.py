"""Gaps with their place: the line of the morph, and a caret under the part that is meant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from isomorph.errors import Gap
from isomorph.language.rules import Rule
from isomorph.language.tree import Span

MOST_SHOWN = 20
"""So many names are listed in one gap; the rest are counted."""


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
    text = origin.line_text.strip("\n")
    shift = len(text) - len(text.lstrip())
    text = text.strip()
    column = end = None
    if span is not None and span.line == origin.line:
        column, end = span.column - shift, span.end - shift
    elif find:
        at = _word(text, find)
        if at is not None:
            column, end = at + 1, at + 1 + len(find)
    return Gap(
        kind=kind,
        message=message,
        file=None if origin.file == "<morph>" else origin.file,
        line=origin.line,
        column=column,
        end=end,
        text=text,
        details=tuple(details),
        hint=hint,
        tensors=tuple(tensors),
    )


def _word(text: str, word: str) -> int | None:
    at = text.find(word)
    while at >= 0:
        before = text[at - 1] if at else " "
        after = text[at + len(word)] if at + len(word) < len(text) else " "
        if not (before.isalnum() or before == "_") and not (after.isalnum() or after == "_"):
            return at
        at = text.find(word, at + 1)
    return None


def listed(names: Sequence[str], most: int = MOST_SHOWN, total: int | None = None) -> str:
    """`a, b, c … and 7 more`. `total` counts them where `names` are but the first."""
    shown = ", ".join(names[:most])
    more = (len(names) if total is None else total) - min(most, len(names))
    return f"{shown} … and {more} more" if more > 0 else shown
