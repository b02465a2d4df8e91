"""The text of an inverse: sides and arrows swapped, operators undone, as a Module that can be written and read again.

Planning never uses this: there an inverse is `Program.inverse`, which is exact. Here an inverse is for people. What no text can say
(an inverted `float` cast, a division, operators that reach into a used file) stays as a comment that names the rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from isomorph.language.tree import (
    Arrow,
    Comments,
    Drop,
    DropStatement,
    Equation,
    Module,
    Op,
    OperatorLine,
    Paths,
    Scope,
    Statement,
    Term,
    Use,
    When,
)
from isomorph.language.unparse import statement_text

_ARROWS: dict[Arrow, Arrow] = {"<->": "<->", "->": "<-", "<-": "->"}


def inverse_module(module: Module) -> Module:
    """The module read right to left, as text would say it.

    >>> from isomorph.language.parse import parse
    >>> from isomorph.language.unparse import unparse
    >>> unparse(inverse_module(parse("a [o i] -> b [i o] | f16 -> f32"))).strip()
    'b [i o] <- a [o i] | f32 -> f16'
    """
    statements, left_over = _block(module.statements, ())
    footer = (*left_over, *module.footer)
    while not statements and footer[:1] == ("",):  # a text does not begin with an empty line
        footer = footer[1:]
    return Module(statements, module.version, module.header, footer, module.file)


def inverse_operators(operators: Sequence[Op]) -> tuple[Op, ...] | None:
    """The operators that undo these, in order; None when one of them cannot be written."""
    undone: list[Op] = []
    for op in reversed(operators):
        if op.name == "neg":
            undone.append(op)
        elif op.name == "cast" and op.source != "float":
            undone.append(Op("cast", source=op.target, target=op.source))
        elif op.name in ("exp", "log"):
            undone.append(Op("log" if op.name == "exp" else "exp"))
        elif op.name == "add" and op.number is not None:
            undone.append(Op("add", number=op.number[1:] if op.number.startswith("-") else f"-{op.number}"))
        else:
            return None
    return tuple(undone)


def _block(statements: Sequence[Statement], outer: tuple[Op, ...]) -> tuple[tuple[Statement, ...], tuple[str, ...]]:
    """The statements of a block inverted, and comments that found no statement to stand above."""
    found: list[Statement] = []
    waiting: list[str] = []
    lines: tuple[Op, ...] = ()

    def keep(statement: Statement) -> None:
        if waiting:
            above = (*waiting, *statement.comments.above)
            statement = replace(statement, comments=Comments(above, statement.comments.end))
            waiting.clear()
        found.append(statement)

    def leave_out(statement: Statement) -> None:
        waiting.extend((*statement.comments.above, f"no text undoes this: {statement_text(statement)}"))

    for statement in statements:
        operators = lines + outer
        match statement:
            case Equation():
                undone = inverse_operators(statement.operators + operators)
                if undone is None:
                    leave_out(statement)
                else:
                    keep(
                        replace(
                            statement,
                            left=statement.right,
                            arrow=_ARROWS[statement.arrow],
                            right=statement.left,
                            operators=undone,
                        )
                    )
            case DropStatement(terms, maybe, comments):
                for number, term in enumerate(terms):
                    keep(
                        Equation(
                            (Term(Drop()),), "<->", (term,), maybe, comments=comments if number == 0 else Comments()
                        )
                    )
            case Scope(left, right, body):
                inner, left_over = _block(body, operators)
                if inner:
                    keep(replace(statement, left=right, right=left, body=inner))
                waiting.extend(left_over)
            case When(_, body):
                inner, left_over = _block(body, operators)
                if inner:
                    keep(replace(statement, body=inner))
                waiting.extend(left_over)
            case OperatorLine():
                lines = lines + statement.operators
                waiting.extend(statement.comments.above)
            case Paths(left_separator, right_separator):
                keep(replace(statement, left=right_separator, right=left_separator))
            case Use() if operators:
                leave_out(statement)
            case Use():
                keep(replace(statement, inverse=not statement.inverse))
            case _:
                keep(statement)
    return tuple(found), tuple(waiting)
