"""What a morph means, flat: an ordered list of Rules with full names. Blocks, `use`, `when`, `paths` and labels are resolved.

Plan and verify both start here, and each reads it by itself. An axis is a string that is unique to the file it is written in:
`l` in the first file, `l'2` in the second use of another; `shown(axis)` gives back what was written. Wildcards become axes of
their own: the first `*` or `**` of a full name is the axis `*1`, the next `*2` … on both sides (LANGUAGE.md 3 (5)).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from isomorph.language.tree import Arrow, Constant, Dim, Drop, Expression, Op, Span


def shown(axis: str) -> str:
    """The axis as it was written: without the mark of the file it belongs to."""
    return axis.partition("'")[0]


@dataclass(frozen=True, slots=True)
class PieceHole:
    """`{l}` or `*`: one or more characters but no `.` or `/` (and no `::`). `numeric`: only canonical numbers fit (the axis is
    written as an index elsewhere in the rule). A bound size makes it numeric too; that is for the reader to apply."""

    axis: str
    numeric: bool = False
    tied: bool = False
    span: Span = field(default=Span(0, 0, 0), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class PathHole:
    """`{x*}` or `**`: one or more of any character, no `::`. `separator` is this side's of `paths`, None without `paths`: the
    value is the text with the separator of its own side; it is written with the separator of the hole it is written into."""

    axis: str
    separator: str | None = None
    span: Span = field(default=Span(0, 0, 0), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class LabelHole:
    """One of `labels` (the empty label is allowed). `axis` is `"="` + a number for an axis-less tie `{=a|b}`."""

    axis: str
    labels: tuple[str, ...]
    tied: bool = False
    span: Span = field(default=Span(0, 0, 0), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class IndexHole:
    """A number made of axes: t = offset + sign * (row-major number of `axes`). Reads digits (pad None), digits padded to a width
    (pad `02`), or nothing for 0 and `_n` for n > 0 (pad `_`). `axes` is empty for a plain number (`{config.n}`); then t = offset.

    `offset` is an expression over integers and config paths only.
    """

    axes: tuple[str, ...]
    offset: Expression
    sign: int = 1
    pad: str | None = None
    tied: bool = False
    span: Span = field(default=Span(0, 0, 0), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Literal:
    """Fixed text."""

    value: str


NamePiece = Literal | PieceHole | PathHole | LabelHole | IndexHole


@dataclass(frozen=True, slots=True)
class FullName:
    """A name pattern with its prefixes; neighbouring literals are merged. `text` is how it is written, for messages."""

    pieces: tuple[NamePiece, ...]
    text: str

    @property
    def axes(self) -> tuple[str, ...]:
        """All axes of its holes that are not tied, in reading order, each once."""
        found: dict[str, None] = {}
        for piece in self.pieces:
            if isinstance(piece, IndexHole) and not piece.tied:
                found.update(dict.fromkeys(piece.axes))
            elif isinstance(piece, PathHole) or (isinstance(piece, PieceHole | LabelHole) and not piece.tied):
                found[piece.axis] = None
        return tuple(found)

    @property
    def ties(self) -> tuple[str, ...]:
        """All tied axes, in reading order, each once."""
        found: dict[str, None] = {}
        for piece in self.pieces:
            if isinstance(piece, IndexHole) and piece.tied:
                found.update(dict.fromkeys(piece.axes))
            elif isinstance(piece, PieceHole | LabelHole) and piece.tied:
                found[piece.axis] = None
        return tuple(found)


@dataclass(frozen=True, slots=True)
class FlatTerm:
    """A term with its full name. `dims` is never None (no brackets became `[...]`); axis names in it are file-unique.

    `span` is where the term stands in its line.
    """

    head: FullName | Constant | Drop
    dims: tuple[Dim, ...]
    span: Span = field(default=Span(0, 0, 0), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a rule was written: for messages. `text` is its line without indentation and comment, `line_text` all of it."""

    file: str
    line: int
    text: str
    line_text: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One equation, with everything that reaches it.

    `operators` are in the order in which they act reading left to right (the rule's own, then the blocks' from the innermost
    outward). `where` maps an axis to the expressions that bind it and that no other is said to win over (two that differ are a
    contradiction). `counting` are the axes that count instances: those of names on both sides. `is_drop`: one side is only
    `drop`, so nothing pairs.
    """

    number: int
    left: tuple[FlatTerm, ...]
    right: tuple[FlatTerm, ...]
    arrow: Arrow
    origin: Origin
    maybe: bool = False
    open: bool = False
    operators: tuple[Op, ...] = ()
    where: Mapping[str, tuple[Expression, ...]] = field(default_factory=dict)

    @property
    def inverse(self) -> Rule:
        arrow: Arrow = {"<->": "<->", "->": "<-", "<-": "->"}[self.arrow]  # type: ignore[assignment] # the literal types survive the table
        operators = tuple(replace(op, inverted=not op.inverted) for op in reversed(self.operators))
        return replace(self, left=self.right, right=self.left, arrow=arrow, operators=operators)

    @property
    def counting(self) -> frozenset[str]:
        left = {axis for term in self.left if isinstance(term.head, FullName) for axis in term.head.axes}
        right = {axis for term in self.right if isinstance(term.head, FullName) for axis in term.head.axes}
        return frozenset(left & right)

    @property
    def is_drop(self) -> bool:
        return any(all(isinstance(term.head, Drop) for term in side) for side in (self.left, self.right))


@dataclass(frozen=True)
class Program:
    """A whole morph, flat, in one reading direction: sources are read on the left, targets are made on the right.

    `when` and `assert` were settled by the config the program was flattened with. `is_inverse`: it is read against the way it
    was written (a chain whose every stage is, is a chain read backward: idle rules of any stage are then no errors, 3 (21)).
    """

    rules: tuple[Rule, ...]
    file: str = "<morph>"
    text: str = ""
    is_inverse: bool = False

    @property
    def inverse(self) -> Program:
        return replace(self, is_inverse=not self.is_inverse, rules=tuple(rule.inverse for rule in self.rules))
