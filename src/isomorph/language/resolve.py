"""One rule with everything that reaches it -> a flat Rule: full names, labels, numbered wildcards, `where` by precedence.

A Draft is a rule on its way through the files that use it: prefixes are prepended, it may be inverted, operators are appended. Only
when it has come to the top is it resolved, for what a bare `{p}` or the second `*` means depends on the whole name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from isomorph.errors import Gap
from isomorph.language.expressions import linear
from isomorph.language.rules import (
    FlatTerm,
    FullName,
    IndexHole,
    LabelHole,
    Literal,
    NamePiece,
    Origin,
    PathHole,
    PieceHole,
    Rule,
)
from isomorph.language.tokens import gap_at
from isomorph.language.tree import (
    Arrow,
    Axis,
    AxisProduct,
    Binary,
    Constant,
    Dim,
    Drop,
    Ellipsis,
    Expression,
    Hole,
    Length,
    Negative,
    Number,
    Op,
    Piece,
    Product,
    Span,
    Subscript,
    Sum,
    Text,
    Variable,
    Wildcard,
)
from isomorph.language.unparse import piece_text

LONGEST_NAME = 16384
MOST_PIECES = 1024
MOST_OPERATORS = 256
MOST_BINDINGS = 16
"""Different bindings of one axis in one block that are kept: two are a contradiction already."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A piece of a name with the separator of `paths` where it was written."""

    piece: Piece
    separator: str | None


@dataclass(frozen=True, slots=True)
class DraftTerm:
    head: tuple[Pattern, ...] | Constant | Drop
    dims: tuple[Dim, ...]
    span: Span


@dataclass
class Level:
    """What holds in one block (or in one rule): bindings by axis, with the number of the statement that made them."""

    bindings: dict[str, list[tuple[int, Expression]]] = field(default_factory=dict)
    operators: list[tuple[int, Op]] = field(default_factory=list)

    def bind(self, axis: str, number: int, value: Expression) -> None:
        entries = self.bindings.setdefault(axis, [])
        if len(entries) < MOST_BINDINGS and all(value != other for _, other in entries):
            entries.append((number, value))


@dataclass(frozen=True, slots=True)
class Frame:
    """The levels of one file around a statement, the innermost first, as they are before statement `number`."""

    mark: str
    levels: tuple[Level, ...]
    number: int

    def lookup(self, axis: str) -> tuple[Expression, ...]:
        """The expressions of the innermost level that binds the axis; () when none does."""
        for level in self.levels:
            found = tuple(value for number, value in level.bindings.get(axis, ()) if number <= self.number)
            if found:
                return found
        return ()

    def operators(self) -> tuple[Op, ...]:
        """Operator lines above the statement, the innermost block's first."""
        return tuple(op for level in self.levels for number, op in level.operators if number <= self.number)


@dataclass(frozen=True, slots=True)
class Draft:
    left: tuple[DraftTerm, ...]
    right: tuple[DraftTerm, ...]
    arrow: Arrow
    origin: Origin
    span: Span
    maybe: bool
    open: bool
    operators: tuple[Op, ...]
    frames: tuple[Frame, ...]
    """The file of the rule first, then its readers outward."""
    active: bool
    """False inside a `when` that does not hold: checked, but no part of the program."""

    @property
    def inverse(self) -> Draft:
        arrow: Arrow = "->" if self.arrow == "<-" else "<-" if self.arrow == "->" else "<->"
        operators = tuple(replace(op, inverted=not op.inverted) for op in reversed(self.operators))
        return replace(self, left=self.right, right=self.left, arrow=arrow, operators=operators)

    def within(
        self, left: tuple[Pattern, ...], right: tuple[Pattern, ...], operators: tuple[Op, ...], maybe: bool
    ) -> Draft:
        """The rule as its reader sees it: prefixes before its names, operators after its own."""
        return replace(
            self,
            left=tuple(_prefixed(term, left) for term in self.left),
            right=tuple(_prefixed(term, right) for term in self.right),
            operators=self.operators + operators,
            maybe=self.maybe or maybe,
        )

    def gap(self, kind: str, message: str, span: Span | None = None, hint: str | None = None) -> Gap:
        return rule_gap(self.origin, kind, message, span, hint)


def rule_gap(
    origin: Origin,
    kind: str,
    message: str,
    span: Span | None = None,
    hint: str | None = None,
    details: tuple[str, ...] = (),
) -> Gap:
    """A gap of a rule, drawn at `span` if that stands in the rule's own line."""
    column, end = (span.column, span.end) if span is not None and span.line == origin.line and span.line else (0, 0)
    return gap_at(kind, message, origin.file, origin.line, origin.line_text, column, end, hint, details)


def _prefixed(term: DraftTerm, prefix: tuple[Pattern, ...]) -> DraftTerm:
    return replace(term, head=prefix + term.head) if prefix and isinstance(term.head, tuple) else term


# ── renaming: the axes of a used file are its own ────────────────────────────────────────────────────────────────────


def rename_expression(expression: Expression, mark: str) -> Expression:
    """The expression with every axis marked as its file's own."""
    if not mark:
        return expression
    match expression:
        case Variable(name):
            return replace(expression, name=name + mark)
        case AxisProduct(axes):
            return replace(expression, axes=tuple(axis + mark for axis in axes))
        case Subscript(value, index):
            return replace(expression, value=rename_expression(value, mark), index=rename_expression(index, mark))
        case Length(value) | Negative(value):
            return replace(expression, value=rename_expression(value, mark))
        case Binary(_, left, right):
            return replace(expression, left=rename_expression(left, mark), right=rename_expression(right, mark))
    return expression


def rename_piece(piece: Piece, mark: str) -> Piece:
    if not mark or not isinstance(piece, Hole):
        return piece
    return replace(
        piece,
        axis=piece.axis + mark if piece.axis is not None else None,
        index=rename_expression(piece.index, mark) if piece.index is not None else None,
    )


def rename_dim(dim: Dim, mark: str) -> Dim:
    if not mark:
        return dim
    match dim:
        case Axis(name):
            return replace(dim, name=name + mark)
        case Sum(summands):
            return replace(
                dim,
                summands=tuple(
                    Product(tuple(rename_dim(factor, mark) for factor in product.factors), product.span)
                    for product in summands
                ),
            )
    return dim


def rename_operator(op: Op, mark: str) -> Op:
    """The operator with the axes it acts along marked as their file's own."""
    if not mark or not op.takes:
        return op
    return replace(
        op,
        takes=tuple(axis + mark for axis in op.takes),
        makes=tuple(axis if axis == "1" else axis + mark for axis in op.makes),
    )


# ── a draft becomes a rule ───────────────────────────────────────────────────────────────────────────────────────────

_Given = dict[tuple[str, bool], list[tuple[int, tuple[str, ...]]]]
"""(axis, tied) -> the first label list of at most two names of a side, with the number of the name."""


def resolve(draft: Draft, gaps: list[Gap]) -> Rule | None:
    """The rule a draft stands for; None, and a gap, when its names cannot be put together."""
    before = len(gaps)
    sides = (draft.left, draft.right)
    for term in (*draft.left, *draft.right):
        _check_head(draft, term, gaps)
    if len(draft.operators) > MOST_OPERATORS:
        gaps.append(draft.gap("syntax", f"more than {MOST_OPERATORS} operators reach this rule"))
    if len(gaps) > before:
        return None
    numeric = _numeric_axes(draft)
    given = (_given(draft.left), _given(draft.right))
    names = _Names(numeric, given)
    flat = tuple(
        tuple(
            FlatTerm(
                names.full_name(term.head, side, number) if isinstance(term.head, tuple) else term.head,
                term.dims,
                term.span,
            )
            for number, term in enumerate(terms)
        )
        for side, terms in enumerate(sides)
    )
    where = _where(flat[0] + flat[1], draft.frames)
    return Rule(0, flat[0], flat[1], draft.arrow, draft.origin, draft.maybe, draft.open, draft.operators, where)


def _check_head(draft: Draft, term: DraftTerm, gaps: list[Gap]) -> None:
    if not isinstance(term.head, tuple):
        return
    length = 0
    for pattern in term.head:
        piece = pattern.piece
        if isinstance(piece, Text):
            length += len(piece.value)
        elif isinstance(piece, Hole) and piece.path and piece.tied:
            message = f"{piece_text(piece)} ties a path: equal copies are numbered {{=r}} or listed {{=a|b}}"
            gaps.append(draft.gap("tie", message, piece.span))
            return
    if length > LONGEST_NAME or len(term.head) > MOST_PIECES:
        gaps.append(draft.gap("syntax", "with its prefixes this name is longer than any tensor's", term.span))


def _holes(terms: Iterable[DraftTerm]) -> Iterable[Hole]:
    for term in terms:
        if isinstance(term.head, tuple):
            for pattern in term.head:
                if isinstance(pattern.piece, Hole):
                    yield pattern.piece


def _numeric_axes(draft: Draft) -> frozenset[str]:
    """Axes written as an index anywhere in the rule."""
    found: set[str] = set()
    for hole in _holes((*draft.left, *draft.right)):
        if hole.index is not None:
            found.update(linear(hole.index).axes)
        elif hole.pad is not None and hole.axis is not None:
            found.add(hole.axis)
    return frozenset(found)


def _given(terms: tuple[DraftTerm, ...]) -> _Given:
    given: _Given = {}
    for number, term in enumerate(terms):
        for hole in _holes((term,)):
            if hole.labels is not None and hole.axis is not None:
                entries = given.setdefault((hole.axis, hole.tied), [])
                if not entries or (len(entries) == 1 and entries[0][0] != number):
                    entries.append((number, hole.labels))
    return given


class _Names:
    """Makes full names; knows the label lists of both sides and numbers the ties that have no axis."""

    def __init__(self, numeric: frozenset[str], given: tuple[_Given, _Given]) -> None:
        self.numeric = numeric
        self.given = given
        self.nameless_ties = 0

    def full_name(self, patterns: tuple[Pattern, ...], side: int, number: int) -> FullName:
        pieces: list[NamePiece] = []
        written: list[str] = []
        literal: list[str] = []
        wildcards = 0
        last: dict[tuple[str, bool], tuple[str, ...]] = {}
        for pattern in patterns:
            piece = pattern.piece
            written.append(piece_text(piece))
            if isinstance(piece, Text):
                literal.append(piece.value)
                continue
            if literal:
                pieces.append(Literal("".join(literal)))
                literal.clear()
            if isinstance(piece, Wildcard):
                wildcards += 1
                axis = f"*{wildcards}"
                pieces.append(
                    PathHole(axis, pattern.separator, piece.span) if piece.path else PieceHole(axis, span=piece.span)
                )
            else:
                if piece.labels is not None and piece.axis is not None:
                    last[piece.axis, piece.tied] = piece.labels
                pieces.append(self._hole(piece, pattern.separator, side, number, last))
        if literal:
            pieces.append(Literal("".join(literal)))
        return FullName(tuple(pieces), "".join(written))

    def _hole(
        self,
        hole: Hole,
        separator: str | None,
        side: int,
        number: int,
        last: Mapping[tuple[str, bool], tuple[str, ...]],
    ) -> NamePiece:
        if hole.index is not None:
            form = linear(hole.index)
            return IndexHole(form.axes, form.offset, form.sign, hole.pad, hole.tied, hole.span)
        axis = hole.axis
        if axis is None:
            self.nameless_ties += 1
            axis = f"={self.nameless_ties}"
        if hole.path:
            return PathHole(axis, separator, hole.span)
        if hole.pad is not None:
            return IndexHole((axis,), Number(0), 1, hole.pad, hole.tied, hole.span)
        labels = hole.labels if hole.labels is not None else self._labels(axis, hole.tied, side, number, last)
        if labels is not None:
            return LabelHole(axis, labels, hole.tied, hole.span)
        return PieceHole(axis, axis in self.numeric, hole.tied, hole.span)

    def _labels(
        self, axis: str, tied: bool, side: int, number: int, last: Mapping[tuple[str, bool], tuple[str, ...]]
    ) -> tuple[str, ...] | None:
        """The labels a bare `{p}` means: last given before it, else first in another name of its side, else on the other side."""
        key = (axis, tied)
        if key in last:
            return last[key]
        own = self.given[side].get(key, [])
        others = [] if tied else self.given[1 - side].get(key, [])
        elsewhere = [labels for name, labels in own if name != number]
        candidates = elsewhere or [labels for _, labels in others] or [labels for _, labels in own]
        return candidates[0] if candidates else None


def _where(terms: tuple[FlatTerm, ...], frames: tuple[Frame, ...]) -> dict[str, tuple[Expression, ...]]:
    """The bindings of every axis of the rule, and of the axes those are computed from."""
    wanted: list[str] = []
    for term in terms:
        if isinstance(term.head, FullName):
            wanted.extend(term.head.axes)
            wanted.extend(term.head.ties)
        wanted.extend(axis for dim in term.dims for axis in dim_axes(dim))
    where: dict[str, tuple[Expression, ...]] = {}
    seen: set[str] = set()
    while wanted:
        axis = wanted.pop()
        if axis in seen:
            continue
        seen.add(axis)
        found = bindings_of(axis, frames)
        if found:
            where[axis] = found
            for expression in found:
                wanted.extend(variables_of(expression))
    return where


def bindings_of(axis: str, frames: tuple[Frame, ...]) -> tuple[Expression, ...]:
    """What binds an axis: its file's readers come first, from the outermost; then its own file."""
    name, mark, number = axis.partition("'")
    for position in range(len(frames) - 1, -1, -1):
        frame = frames[position]
        found = frame.lookup(name)
        if found:
            return tuple(rename_expression(expression, frame.mark) for expression in found)
        if frame.mark == mark + number:
            return ()
    return ()


def dim_axes(dim: Dim) -> Iterable[str]:
    match dim:
        case Axis(name):
            yield name
        case Sum(summands):
            for product in summands:
                for factor in product.factors:
                    yield from dim_axes(factor)


def variables_of(expression: Expression) -> Iterable[str]:
    """The names an expression needs values of, in reading order."""
    match expression:
        case Variable(name):
            yield name
        case AxisProduct(axes):
            yield from axes
        case Subscript(value, index):
            yield from variables_of(value)
            yield from variables_of(index)
        case Length(value) | Negative(value):
            yield from variables_of(value)
        case Binary(_, left, right):
            yield from variables_of(left)
            yield from variables_of(right)


def all_dims(dims: tuple[Dim, ...] | None, mark: str) -> tuple[Dim, ...]:
    """The dims of a term with its file's axes; no brackets are `[...]`."""
    return (Ellipsis(),) if dims is None else tuple(rename_dim(dim, mark) for dim in dims)
