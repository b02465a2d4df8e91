"""Reading text: trees, spans, faults all in one report, and hostile text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isomorph.errors import MorphError
from isomorph.language import tree
from isomorph.language.parse import parse
from isomorph.language.scopes import check


def gaps(text: str, file: str = "<morph>") -> MorphError:
    with pytest.raises(MorphError) as refused:
        parse(text, file)
    return refused.value


def test_every_fault_of_a_text_is_in_one_report() -> None:
    """Reading goes on after a fault; each gap has its line, its text and a caret under what is wrong."""
    error = gaps("a <-> b\nc [o <-> d\n  e <-> f\nwhere h\nuse\nx. <-> y.:\n")
    assert [2, 3, 4, 5, 6] == [gap.line for gap in error.gaps]
    assert "line 2: `[` is not closed\n    c [o <-> d\n      ^" in str(error)
    assert "5 problems in all" in str(error)


def test_a_named_file_stands_before_its_line() -> None:
    """`file:line:`, as editors know it."""
    assert str(gaps("a b", "port.morph")).startswith("port.morph:1: ")


def test_spans_are_columns_of_the_line() -> None:
    """A term spans its name and brackets, 1-based, the end exclusive."""
    scope = parse("a. <-> b.:\n  x [o i], y <-> z").statements[0]
    assert isinstance(scope, tree.Scope)
    rule = scope.body[0]
    assert isinstance(rule, tree.Equation)
    assert [(2, 3, 10), (2, 12, 13)] == [(term.span.line, term.span.column, term.span.end) for term in rule.left]


def test_line_ends_and_byte_order_marks_are_let_pass() -> None:
    """CRLF and a BOM change nothing."""
    assert parse("a. <-> b.:\n  x <-> y\n") == parse("\ufeffa. <-> b.:\r\n  x <-> y\r\n")


@pytest.mark.parametrize(
    ("text", "mention"),
    [
        ("a. <-> b.:\n\tx <-> y", "a tab in the indentation"),
        ("a = b", "written  a <-> b"),
        ("a<->b", "blanks around it"),
        ("layer norm <-> n", '"layer norm"'),
        ("0:float32 <-> w", "write f32"),
        ("w <-> w | f32 -> bf17", "did you mean bf16"),
        ("w <-> w | negg", "did you mean `neg`"),
        ("w <-> w | f32->f16", "an arrow has blanks around it"),
        ("whre h=2", "did you mean `where`"),
        ("w [o*i] <-> w [i o]", "side by side"),
        ("a.{l:2} <-> b", "{…:02}"),
        ("where h=2.5", "whole number"),
        ("where h=config.a/2", "write `//`"),
        ("when config.a = 1:\n  x <-> y", "`==`"),
        ("assert not (config.a == 1)", "`not` stands before a config key"),
        ("assert (config.a == 1) or config.b", "tests take no brackets"),
        ("where <-> x", "is quoted"),
        ("use x y", "after the file"),
        ("a\u00a0b <-> c", "U+00A0"),
        ("a -> b:\n  x <-> y", "a scope puts prefixes on both sides"),
        ("{a|b} <-> c", "{=a|b}"),
        ("0::w <-> c", '"0::w"'),
    ],
)
def test_hints(text: str, mention: str) -> None:
    """What is wrong says what to write."""
    assert mention in str(gaps(text))


N = 200_000
HOSTILE = {
    "brackets": "w [" + "(" * N + " <-> x",
    "holes": "{" * N,
    "many holes": "{l}" * N + " <-> x",
    "stars": "*" * N,
    "escapes": '"' + "\\" * N,
    "expression": "where h=" + "(" * N,
    "minus": "where h=" + "-" * N,
    "not": "assert " + "not " * N + "config.a",
    "sum": "where h=" + "1+" * N + "1",
    "digits": "where h=" + "9" * N,
    "size": "w [" + "9" * N + "] <-> x",
    "constant": "9" * N + " <-> x",
    "lines": "a b\n" * N,
    "colons": ":\n" * N,
    "nesting": "".join(" " * depth + "a. <-> b.:\n" for depth in range(600)),
    "terms": "a, " * N + "a <-> b",
    "summands": "w [(" + "a + " * N + "a)] <-> x",
    "operators": "| neg\n" * 10_000 + "a <-> b\n" * 3_000,
    "bindings": "".join(f"where h={number}\n" for number in range(10_000)) + "a [(h d)] <-> b [h d]\n" * 100,
    "zero bytes": "\0" * N,
}


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in HOSTILE.items()])
def test_hostile_text_ends_in_a_report_of_bounded_size(text: str) -> None:
    """Deep, long and endless texts are a MorphError (or are read), never another error, and the report is short."""
    try:
        check(parse(text))
    except MorphError as refused:
        assert len(refused.gaps) <= 210
        assert len(str(refused)) < 200_000


pieces = st.sampled_from(
    ["a", "b.{l}", "*", "**", "{p=q|k}", '"x y"', " ", "  ", "\n", "\n  ", "[o i]", "[(h d)]", "<->", " <-> ", "->", ":", ",", "|", "| neg",
     "where", "h=2", "drop ", "use x", "when config.a", "(", ")", "+", "...", "?", "# c", "{", "}", "\\", '"', "0:f32", "=", "config."]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(pieces, max_size=14).map("".join))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text makes anything but a MorphError, and what is read can be checked and written back."""
    from isomorph.language.unparse import unparse

    try:
        module = parse(text)
    except MorphError:
        return
    assert module == parse(unparse(module))
    try:
        check(module)
    except MorphError as refused:
        assert refused.gaps
