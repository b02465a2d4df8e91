"""`where` and `|` said once for the whole file, where all rules that they concern say the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from isomorph.infer.nouns import Relation
from isomorph.language.tree import (
    Axis,
    Binding,
    Dim,
    Equation,
    Hole,
    Name,
    Op,
    Scope,
    Statement,
    Sum,
    Where,
)
from isomorph.tensors import DTYPES, Manifest


def hoisted(statements: Sequence[Statement]) -> list[Statement]:
    """The statements with a `where` at the top for bindings that several rules share and none contradicts."""
    rules = list(_equations(statements))
    counts: dict[Binding, int] = {}
    for rule in rules:
        for binding in rule.where:
            counts[binding] = counts.get(binding, 0) + 1
    shared = []
    for binding, count in counts.items():
        users = [rule for rule in rules if binding.axis in _axes(rule)]
        if count > 1 and all(binding in rule.where for rule in users):
            shared.append(binding)
    if not shared:
        return list(statements)
    top = Where(tuple(shared))
    return [top, *(_without(one, shared) for one in statements)]


def common_operators(relations: Sequence[Relation], source: Manifest) -> tuple[Op, ...]:
    """The operators that a `|` line may say for all: those that all relations share, or one cast of everything that floats."""
    shared = {relation.operators for relation in relations}
    if len(relations) < 2 or any(relation.one_way for relation in relations):
        return ()
    if len(shared) == 1:
        return next(iter(shared))
    if len(shared) != 2 or () not in shared:
        return ()
    (line,) = shared - {()}
    if len(line) != 1 or line[0].name != "cast" or line[0].source is None or not DTYPES[line[0].source].is_float:
        return ()
    for relation in relations:
        for name in relation.sources:
            if source[name].dtype.is_float != bool(relation.operators):
                return ()
        if not relation.sources:
            return ()
    return (replace(line[0], source="float"),)


def _equations(statements: Sequence[Statement]) -> Iterator[Equation]:
    waiting = list(reversed(statements))
    while waiting:
        one = waiting.pop()
        if isinstance(one, Equation):
            yield one
        elif isinstance(one, Scope):
            waiting.extend(reversed(one.body))


def _without(statement: Statement, shared: Sequence[Binding]) -> Statement:
    if isinstance(statement, Scope):
        return replace(statement, body=tuple(_without(one, shared) for one in statement.body))
    if isinstance(statement, Equation):
        return replace(statement, where=tuple(one for one in statement.where if one not in shared))
    return statement


def _axes(rule: Equation) -> set[str]:
    """The axes of a rule as it is written (not those of its blocks' prefixes)."""
    found: set[str] = {binding.axis for binding in rule.where}
    for term in (*rule.left, *rule.right):
        if isinstance(term.head, Name):
            found.update(piece.axis for piece in term.head.pieces if isinstance(piece, Hole) and piece.axis)
        waiting: list[Dim] = list(term.dims or ())
        while waiting:
            dim = waiting.pop()
            if isinstance(dim, Axis):
                found.add(dim.name)
            elif isinstance(dim, Sum):
                waiting.extend(factor for product in dim.summands for factor in product.factors)
    return found
