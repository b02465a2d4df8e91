"""Statement 4 by brute force: every cut of a name by character class alone, against what a NamePattern finds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from isomorph.errors import MorphError
from isomorph.language.expressions import whole_number
from isomorph.language.names import NamePattern, Sizes, TwoCuts
from isomorph.language.parse import parse
from isomorph.language.rules import FullName, IndexHole, LabelHole, Literal, NamePiece, PathHole
from isomorph.language.scopes import flatten

PIECES = ("a", "1", ".", "_", ".w", "/", "a1", "{x}", "{y}", "{x*}", "{l+1}", "{m+0}", "{l:02}", "{k:_}")
LABELS = ("{p=a|b}", "{p=a|1}", "{q=|1|a.}", "{q=_1|x}", "*", "**")


def reads(piece: NamePiece, text: str) -> bool:
    """Whether a hole's character class takes the text."""
    match piece:
        case Literal(value):
            return text == value
        case LabelHole():
            return text in piece.labels
        case PathHole():
            return text != ""
        case IndexHole(pad="_"):
            return text == "" or (text[0] == "_" and text[1:].isdigit())
        case IndexHole():
            return text.isdigit()
    return text != "" and "." not in text and "/" not in text


def all_cuts(pieces: Sequence[NamePiece], name: str) -> Iterator[tuple[str, ...]]:
    if not pieces:
        if not name:
            yield ()
        return
    for end in range(len(name) + 1):
        if reads(pieces[0], name[:end]):
            own = () if isinstance(pieces[0], Literal) else (name[:end],)
            for rest in all_cuts(pieces[1:], name[end:]):
                yield own + rest


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.sampled_from(PIECES + LABELS), min_size=1, max_size=5),
    st.lists(st.sampled_from(("a", "1", "11", ".", "_", "_1", "/", "w", ".w", "x")), min_size=1, max_size=6),
)
def test_two_cuts_are_found_and_no_other(parts: list[str], texts: list[str]) -> None:
    """One cut: these texts fill the holes. Two: TwoCuts, even if one of them would not read. None: the name does not fit."""
    try:
        rule = flatten(parse(f'"{"".join(parts)}" <-> drop')).rules[0]
    except MorphError:
        return  # a path hole twice, or an axis of two kinds
    head = rule.left[0].head
    assert isinstance(head, FullName)
    pattern = NamePattern(head, Sizes({}, lambda expression: whole_number(expression, {}, {})))
    name = "".join(texts)
    cuts = set(all_cuts(pattern.pieces, name))
    try:
        values = pattern.read(name)
    except TwoCuts as error:
        assert len(cuts) > 1
        assert set(error.cuts) <= cuts
        return
    assert len(cuts) < 2
    assert values is None or cuts
