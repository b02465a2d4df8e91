"""Morphs from Python: the same tree that a text gives, without writing text.

    morph(
        scope("enc.", "dec.", [
            rule("l.{l}.weight [o i]", "layers.{l}.w [i o]", where={"o": 4}),
            drop("**.position_ids"),
        ]),
        rule("**", "**"),
    )

Terms are given as the notation writes them, with several of a side in a list; the rest are Python values. Raises MorphError for
a term that cannot be read. `unparse(morph(…))` is the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from isomorph.language.parse import parse
from isomorph.language.tree import (
    Arrow,
    Assert,
    Binding,
    Comments,
    DropStatement,
    Equation,
    Expression,
    Module,
    Name,
    Number,
    Op,
    OperatorLine,
    Paths,
    Scope,
    Statement,
    Term,
    Use,
    When,
    Where,
)

Sizes = Mapping[str, "int | str | Expression"]


def morph(*statements: Statement, version: int | None = None) -> Module:
    """A whole morph."""
    return Module(statements, version)


def rule(
    left: str | Sequence[str],
    right: str | Sequence[str],
    *,
    arrow: Arrow = "<->",
    operators: str | None = None,
    where: Sizes | None = None,
    maybe: bool = False,
    open: bool = False,
    comment: str | None = None,
) -> Equation:
    """`left arrow right | operators where …`.

    >>> from isomorph.language.unparse import statement_text
    >>> statement_text(rule(["q [h d]", "k [h d]"], "qk [(h d + h d)]", where={"h": "config.heads"}))
    'q [h d], k [h d] <-> qk [(h d + h d)] where h=config.heads'
    """
    return Equation(
        _terms(left),
        arrow,
        _terms(right),
        maybe,
        open,
        _operators(operators) if operators else (),
        _bindings(where or {}),
        _comment(comment),
    )


def scope(left: str, right: str, body: Iterable[Statement], *, comment: str | None = None) -> Scope:
    """`left <-> right:` with a block. Either prefix may be empty."""
    return Scope(_prefix(left), _prefix(right), tuple(body), _comment(comment))


def drop(*terms: str, maybe: bool = False, comment: str | None = None) -> DropStatement:
    """`drop a, b`."""
    return DropStatement(_terms(terms), maybe, _comment(comment))


def where(**sizes: int | str | Expression) -> Where:
    """`where h=config.heads, d=64`: ints, or expressions as text."""
    return Where(_bindings(sizes))


def operators(text: str) -> OperatorLine:
    """`| f16 -> f32, neg`."""
    return OperatorLine(_operators(text))


def use(file: str, *, inverse: bool = False, maybe: bool = False) -> Use:
    """`use file`."""
    return Use(file, maybe, inverse)


def paths(left: str, right: str) -> Paths:
    """`paths . <-> /`."""
    return Paths(left, right)


def when(test: str, body: Iterable[Statement]) -> When:
    """`when config.bias:` with a block."""
    found = _statement(f"when {test}:\n  x <-> x")
    return When(cast(When, found).test, tuple(body))


def require(test: str) -> Assert:
    """`assert config.model_type == "clip"`."""
    return Assert(cast(Assert, _statement(f"assert {test}")).test)


def _statement(text: str) -> Statement:
    return parse(text).statements[0]


def _terms(written: str | Sequence[str]) -> tuple[Term, ...]:
    text = written if isinstance(written, str) else ", ".join(written)
    return cast(Equation, _statement(f"x <-> {text}")).right


def _prefix(text: str) -> Name:
    return cast(Scope, _statement(f"<-> {text}:\n  x <-> x")).right


def _operators(text: str) -> tuple[Op, ...]:
    return cast(OperatorLine, _statement(f"| {text}")).operators


def _bindings(sizes: Sizes) -> tuple[Binding, ...]:
    bindings: list[Binding] = []
    for axis, value in sizes.items():
        if isinstance(value, int):
            value = Number(value)
        elif isinstance(value, str):
            value = cast(Where, _statement(f"where {axis}={value}")).bindings[0].value
        bindings.append(Binding(axis, value))
    return tuple(bindings)


def _comment(text: str | None) -> Comments:
    return Comments(end=text)
