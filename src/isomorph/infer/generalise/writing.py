"""Rules as nodes of the syntax tree: names behind the prefixes of their blocks, labels given once, axes by their letters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from isomorph.infer.generalise.patterns import Dim, Filling, Index, Labels, Rule, Star, Template, Term
from isomorph.language import tree
from isomorph.language.tree import (
    Axis,
    AxisProduct,
    Binary,
    Comments,
    Constant,
    Drop,
    Ellipsis,
    Equation,
    Expression,
    Hole,
    Integer,
    Name,
    Number,
    Piece,
    Product,
    Sum,
    Text,
    Variable,
    Wildcard,
)

Letters = Mapping[str, str]
Given = dict[str, tuple[str, ...]]
"""Axis -> the labels that were last given for it."""


def equation(
    rule: Rule,
    letters: Letters,
    prefixes: tuple[Template, Template] = ((), ()),
    *,
    where: Sequence[tree.Binding] = (),
    comments: Comments | None = None,
    operators: bool = True,
) -> Equation:
    """The rule as it is written in a block with these prefixes."""
    before: Given = {}
    label_names(prefixes[0], before)
    sides = []
    for terms, prefix in zip((rule.left, rule.right), prefixes, strict=True):
        sides.append(_side(terms, prefix, letters, before))
    return Equation(
        sides[0],
        "->" if rule.one_way else "<->",
        sides[1],
        maybe=rule.maybe,
        open=rule.group is not None,
        operators=rule.operators if operators else (),
        where=tuple(where),
        comments=comments or Comments(),
    )


def _side(terms: Sequence[Term], prefix: Template, letters: Letters, other: Given) -> tuple[tree.Term, ...]:
    """The terms of a side; `other` holds what the other side gave first, and takes what this one does."""
    made: list[tree.Term] = []
    first: Given = {}
    for term in terms:
        dims = None if term.dims is None else tuple(dim_tree(dim, letters) for dim in term.dims)
        match term.head:
            case None:
                made.append(tree.Term(Drop(), dims))
            case Filling(text, dtype):
                made.append(tree.Term(Constant(text, dtype), dims))
            case head:
                given: Given = {}
                label_names(prefix, given)
                name = name_tree(head[len(prefix) :], letters, given, (first, other))
                for axis, labels in given.items():
                    first.setdefault(axis, labels)
                made.append(tree.Term(name, dims))
    for axis, labels in first.items():
        other.setdefault(axis, labels)
    return tuple(made)


def label_names(template: Template, given: Given) -> None:
    """Note the labels of a template."""
    for token in template:
        if isinstance(token, Labels) and token.axis:
            given[token.axis] = token.labels


def name_tree(template: Template, letters: Letters, given: Given, elsewhere: Sequence[Given] = ()) -> Name:
    """A name (or a prefix). `given` holds the labels given before in it and takes those given here."""
    pieces: list[Piece] = []
    for token in template:
        if isinstance(token, str):
            if pieces and isinstance(pieces[-1], Text):
                pieces[-1] = Text(pieces[-1].value + token)
            else:
                pieces.append(Text(token))
        elif isinstance(token, Star):
            pieces.append(Wildcard(token.path))
        elif isinstance(token, Index):
            pieces.append(index_hole(token, letters))
        else:
            pieces.append(_label_hole(token, letters, given, elsewhere))
    return Name(tuple(pieces))


def _label_hole(token: Labels, letters: Letters, given: Given, elsewhere: Sequence[Given]) -> Hole:
    if not token.axis:
        return Hole(labels=token.labels, tied=token.tied)
    axis = letters[token.axis]
    known = given.get(token.axis)
    if known is None:
        known = next((found[token.axis] for found in elsewhere if token.axis in found), None)
    if known == token.labels:
        return Hole(axis=axis, tied=token.tied)
    given[token.axis] = token.labels
    return Hole(axis=axis, labels=token.labels, tied=token.tied)


def index_hole(token: Index, letters: Letters) -> Hole:
    """`{l}`, `{l+1}`, `{11-l}`, `{(s j)}`."""
    named = tuple(letters[axis] for axis in token.axes)
    if len(named) == 1 and token.offset == 0 and token.sign == 1:
        return Hole(axis=named[0], pad=token.pad, tied=token.tied)
    inner: Expression = AxisProduct(named) if len(named) > 1 else Variable(named[0])
    if token.sign < 0:
        inner = Binary("-", Number(token.offset), inner)
    elif token.offset:
        inner = Binary("+" if token.offset > 0 else "-", inner, Number(abs(token.offset)))
    return Hole(index=inner, pad=token.pad, tied=token.tied)


def dim_tree(dim: Dim, letters: Letters) -> tree.Dim:
    """A dim with its letters."""
    if len(dim) == 1 and len(dim[0]) == 1 and isinstance(dim[0][0], str):
        return _factor(dim[0][0], letters)
    if dim == ((),):
        return Integer(1)
    return Sum(
        tuple(Product(tuple(_factor(factor, letters) for factor in product) or (Integer(1),)) for product in dim)
    )


def _factor(factor: str | Dim, letters: Letters) -> tree.Dim:
    if not isinstance(factor, str):
        return dim_tree(factor, letters)
    if factor == "...":
        return Ellipsis()
    return Integer(int(factor)) if factor.isdigit() else Axis(letters[factor])
