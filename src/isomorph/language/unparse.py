"""Module -> canonical text: two blanks of indentation, one between words, comments kept. parse(unparse(module)) == module."""

from __future__ import annotations

from collections.abc import Sequence

from isomorph.language.rules import shown
from isomorph.language.term_syntax import ARROWS, CONSTANT
from isomorph.language.tree import (
    Assert,
    Axis,
    AxisProduct,
    Binary,
    Binding,
    Boolean,
    Both,
    Comments,
    Compare,
    ConfigPath,
    Constant,
    Decimal,
    Dim,
    Drop,
    DropStatement,
    Ellipsis,
    Equation,
    Expression,
    Hole,
    Integer,
    Length,
    Module,
    Name,
    Negative,
    Not,
    Number,
    Op,
    OperatorLine,
    Paths,
    Piece,
    Scope,
    Statement,
    String,
    Subscript,
    Sum,
    Term,
    Test,
    Text,
    Truth,
    Use,
    Variable,
    When,
    Where,
    Wildcard,
)

FIRST_WORDS = frozenset({"where", "use", "use?", "when", "paths", "assert", "isomorph", "?", "|", "drop?"})
INDENT = "  "


def unparse(module: Module) -> str:
    """The canonical text of a module, with a newline at its end (an empty module is the empty text).

    Raises ValueError for a tree that no text stands for: a name with a line break, two wildcards side by side.
    """
    lines: list[str] = []
    if module.version is not None:
        _comments_above(module.header, "", lines)
        lines.append(_with_comment(f"isomorph {module.version}", module.header))
    for statement in module.statements:
        _statement(statement, "", lines)
    _comments_above(Comments(module.footer), "", lines)
    return "\n".join(lines) + "\n" if lines else ""


def _comments_above(comments: Comments, indent: str, lines: list[str]) -> None:
    lines.extend(f"{indent}# {comment}" if comment else "" for comment in comments.above)


def _with_comment(text: str, comments: Comments) -> str:
    if comments.end is None:
        return text
    return f"{text}  # {comments.end}".rstrip()


def _statement(statement: Statement, indent: str, lines: list[str]) -> None:
    _comments_above(statement.comments, indent, lines)
    lines.append(_with_comment(indent + statement_text(statement), statement.comments))
    if isinstance(statement, Scope | When):
        for inner in statement.body:
            _statement(inner, indent + INDENT, lines)


def statement_text(statement: Statement) -> str:
    """One statement on one line (a block's first line), without its comments."""
    match statement:
        case Equation():
            return _equation(statement)
        case DropStatement(terms, maybe):
            return f"drop{'?' if maybe else ''} {', '.join(term_text(term) for term in terms)}"
        case Scope(left, right):
            before = name_text(left, first=True) + " " if left.pieces else ""
            return f"{before}<-> {name_text(right)}:"
        case Where(bindings):
            return f"where {bindings_text(bindings)}"
        case OperatorLine(operators):
            return f"| {operators_text(operators)}"
        case Use(file, maybe, inverse):
            return f"use{'?' if maybe else ''} {'inverse ' if inverse else ''}{_word(file)}"
        case Paths(left_separator, right_separator):
            return f"paths {_word(left_separator)} <-> {_word(right_separator)}"
        case When(test):
            return f"when {test_text(test)}:"
        case Assert(test):
            return f"assert {test_text(test)}"
    raise TypeError(statement)


def _equation(rule: Equation) -> str:
    text = "? " if rule.open else ""
    text += ", ".join(term_text(term, first=number == 0 and not rule.open) for number, term in enumerate(rule.left))
    text += f" {rule.arrow}{'?' if rule.maybe else ''} "
    text += ", ".join(term_text(term) for term in rule.right)
    if rule.operators:
        text += f" | {operators_text(rule.operators)}"
    if rule.where:
        text += f" where {bindings_text(rule.where)}"
    if text.endswith(":"):
        raise ValueError(f"a rule must not end in `:`: {text}")
    return text


# ── terms and names ──────────────────────────────────────────────────────────────────────────────────────────────────


def term_text(term: Term, first: bool = False) -> str:
    """A term; `first` when it is the first of its line, where some words must be quoted."""
    match term.head:
        case Name() as name:
            text = name_text(name, first, term=True)
        case Constant() as constant:
            text = constant_text(constant)
        case Drop():
            text = "drop"
    return text if term.dims is None else f"{text} {dims_text(term.dims)}"


def constant_text(constant: Constant) -> str:
    return constant.text if constant.dtype is None else f"{constant.text}:{constant.dtype}"


def dims_text(dims: Sequence[Dim]) -> str:
    """`[(h d) i]`."""
    return f"[{' '.join(dim_text(dim) for dim in dims)}]"


def dim_text(dim: Dim) -> str:
    match dim:
        case Axis(name):
            return name.partition("'")[0]
        case Integer(value):
            return str(value)
        case Ellipsis():
            return "..."
        case Sum(summands):
            return (
                "(" + " + ".join(" ".join(dim_text(factor) for factor in product.factors) for product in summands) + ")"
            )
    raise TypeError(dim)


def name_text(name: Name, first: bool = False, term: bool = False) -> str:
    """A name as it is written: quoted only where it must be. `term`: where a constant or `drop` could stand."""
    for before, after in zip(name.pieces, name.pieces[1:], strict=False):
        if isinstance(before, Wildcard) and isinstance(after, Wildcard):
            raise ValueError("two wildcards side by side cannot be written")
    bare = "".join(piece_text(piece) for piece in name.pieces)
    if not _must_quote(name.pieces, bare, first, term):
        return bare
    if "\n" in bare or "\r" in bare:
        raise ValueError("a name with a line break cannot be written")
    return (
        '"'
        + "".join(_quoted(piece.value) if isinstance(piece, Text) else piece_text(piece) for piece in name.pieces)
        + '"'
    )


def _must_quote(pieces: Sequence[Piece], bare: str, first: bool, term: bool) -> bool:
    for piece in pieces:
        inside = (
            [piece.value] if isinstance(piece, Text) else list(piece.labels or ()) if isinstance(piece, Hole) else []
        )
        for text in inside:
            if any(char in ' \t,[]{}*"' or not char.isprintable() for char in text):
                return True
    if not bare:
        return False
    if bare.endswith(":") and term:
        return True
    if bare in ARROWS or bare.rstrip("?") in ARROWS or bare in ("|", "where", "?") or bare.startswith("#"):
        return True
    if first and bare in FIRST_WORDS:
        return True
    if not term:
        return False
    return bare == "drop" or (isinstance(pieces[0], Text) and CONSTANT.fullmatch(bare) is not None)


def _quoted(text: str) -> str:
    return "".join("\\" + char if char in '"\\{*' else char for char in text)


def piece_text(piece: Piece) -> str:
    """One piece, unquoted."""
    match piece:
        case Text(value):
            return value
        case Wildcard(path):
            return "**" if path else "*"
        case Hole():
            return hole_text(piece)
    raise TypeError(piece)


def hole_text(hole: Hole) -> str:
    """`{l}`, `{=r+1:02}`, `{p=q|k}` … with axes as they were written."""
    axis = hole.axis.partition("'")[0] if hole.axis is not None else None
    if hole.labels is not None:
        inner = ("" if axis is None else f"{axis}=") + "|".join(hole.labels)
    elif hole.index is not None:
        inner = _index_text(hole.index)
    else:
        inner = f"{axis}{'*' if hole.path else ''}"
    return "{" + ("=" if hole.tied else "") + inner + (f":{hole.pad}" if hole.pad is not None else "") + "}"


def _index_text(index: Expression) -> str:
    if isinstance(index, Variable):
        return f"({expression_text(index)})"
    return (
        expression_text(index).replace(" ", "")
        if not _has_product(index)
        else expression_text(index).replace(" + ", "+").replace(" - ", "-")
    )


def _has_product(index: Expression) -> bool:
    return isinstance(index, AxisProduct) or (
        isinstance(index, Binary) and (_has_product(index.left) or _has_product(index.right))
    )


def _word(text: str) -> str:
    if (
        any(char in ' \t"' or not char.isprintable() for char in text)
        or text.startswith("#")
        or text in ("<->", "inverse", "?")
        or not text
    ):
        if "\n" in text or "\r" in text or not text:
            raise ValueError("this word cannot be written")
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return text


# ── expressions, tests, operators ────────────────────────────────────────────────────────────────────────────────────

_RANK = {"+": 1, "-": 1, "*": 2, "//": 2, "%": 2}


def expression_text(expression: Expression, rank: int = 0) -> str:
    """An expression, bracketed where it stands beside something that binds tighter than `rank`."""
    match expression:
        case Number(value):
            return str(value) if value >= 0 or rank == 0 else f"({value})"
        case Decimal(text):
            return text
        case String(value):
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        case Boolean(value):
            return "true" if value else "false"
        case Variable(name):
            return name.partition("'")[0]
        case ConfigPath(parts):
            return ".".join(("config", *parts))
        case Subscript(value, index):
            return f"{expression_text(value, 4)}[{expression_text(index)}]"
        case Length(value):
            return f"len({expression_text(value)})"
        case Negative(value):
            text = "-" + expression_text(value, 3)
            return f"({text})" if rank > 3 else text
        case Binary(operator, left, right):
            own = _RANK[operator]
            space = " " if own == 1 else ""
            text = f"{expression_text(left, own)}{space}{operator}{space}{expression_text(right, own + 1)}"
            return f"({text})" if rank > own else text
        case AxisProduct(axes):
            return "(" + " ".join(axis.partition("'")[0] for axis in axes) + ")"
    raise TypeError(expression)


def test_text(test: Test, rank: int = 0) -> str:
    """A test; `or` binds loosest (1), then `and` (2), then `not` (3). ValueError for one that needs brackets: tests take none."""
    match test:
        case Truth(value):
            return expression_text(value)
        case Not(Truth(value)):
            return f"not {expression_text(value)}"
        case Compare(operator, left, right):
            return f"{expression_text(left)} {operator} {expression_text(right)}"
        case Both(operator, left, right):
            own = 1 if operator == "or" else 2
            if rank > own:
                raise ValueError("`or` inside `and` cannot be written: tests take no brackets")
            return f"{test_text(left, own)} {operator} {test_text(right, own)}"
    raise ValueError("`not` stands before a config key only")


test_text.__test__ = False  # type: ignore[attr-defined] # pytest must not take it for a test where it is imported


def bindings_text(bindings: Sequence[Binding]) -> str:
    return ", ".join(f"{binding.axis}={expression_text(binding.value)}" for binding in bindings)


def operators_text(operators: Sequence[Op]) -> str:
    return ", ".join(operator_text(operator) for operator in operators)


def operator_text(op: Op) -> str:
    """An operator as it is written; an inverted one as the operator it is, where one is."""
    if op.name == "cast":
        text = f"{op.source} {'~>' if op.rounding else '->'} {op.target}" + (" saturate" if op.saturate else "")
    elif op.number is not None:
        text = f"{op.name} {op.number}"
    else:
        along = (*op.takes, "->", *op.makes) if op.takes else ()
        text = " ".join((op.name, *map(shown, along), *op.arguments))
    return f"inverse of {text}" if op.inverted else text
