"""Sizes: what is bound before any tensor is seen, and what the shapes of an instance add (LANGUAGE.md 3 (11), (12))."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from isomorph.errors import Gap
from isomorph.language.expressions import whole_number
from isomorph.language.rules import FullName, LabelHole, Rule, shown
from isomorph.language.tree import (
    AxisProduct,
    Binary,
    Dim,
    Ellipsis,
    Expression,
    Length,
    Negative,
    Subscript,
    Variable,
)
from isomorph.verify.reading import Value
from isomorph.verify.shapes import axes_of, further, size_of, spread


class SizeProblem(Exception):
    """What does not add up, in one sentence."""


def variables_of(expression: Expression) -> frozenset[str]:
    """The axes that an expression asks for."""
    if isinstance(expression, Variable):
        return frozenset([expression.name])
    if isinstance(expression, AxisProduct):
        return frozenset(expression.axes)
    if isinstance(expression, Subscript):
        return variables_of(expression.value) | variables_of(expression.index)
    if isinstance(expression, Length | Negative):
        return variables_of(expression.value)
    if isinstance(expression, Binary):
        return variables_of(expression.left) | variables_of(expression.right)
    return frozenset()


def label_counts(rule: Rule) -> dict[str, int]:
    """axis → number of its labels, ties included."""
    return {
        piece.axis: len(piece.labels)
        for term in (*rule.left, *rule.right)
        if isinstance(term.head, FullName)
        for piece in term.head.pieces
        if isinstance(piece, LabelHole)
    }


def bound(
    rule: Rule, given: Mapping[str, int], config: Mapping[str, object], captures: Mapping[str, Value] | None = None
) -> dict[str, int]:
    """The sizes that are known without a tensor: `given` (from outside), label counts, `where`.

    Without `captures` only what does not depend on a capture. SizeProblem on a contradiction, a word used as a number, a negative.
    """
    counting = rule.counting
    sizes = {axis: given[shown(axis)] for axis in _axes_of_rule(rule) if shown(axis) in given}
    settled = frozenset(sizes)
    for axis, count in label_counts(rule).items():
        _agree(sizes, axis, count, "its labels")
    waiting = [(axis, each) for axis, all_of_it in rule.where.items() for each in all_of_it if axis not in settled]
    while waiting:
        later: list[tuple[str, Expression]] = []
        for axis, expression in waiting:
            known: dict[str, int] = {}
            for name in variables_of(expression):
                if name in counting:
                    if captures is not None and name in captures:
                        value = captures[name]
                        if not isinstance(value, int):
                            raise SizeProblem(
                                f"`{shown(axis)}` is bound through `{shown(name)}`, which is the word {value!r} here"
                            )
                        known[name] = value
                elif name in sizes:
                    known[name] = sizes[name]
            if len(known) < len(variables_of(expression)):
                later.append((axis, expression))
                continue
            size = whole_number(expression, known, config)
            if size < 0:
                raise SizeProblem(f"`{shown(axis)}` is bound to {size}, which is no size")
            _agree(sizes, axis, size, "`where`")
        if len(later) == len(waiting):
            break
        waiting = later
    return sizes


def _axes_of_rule(rule: Rule) -> Iterable[str]:
    found: dict[str, None] = dict.fromkeys(rule.where)
    for term in (*rule.left, *rule.right):
        found.update(dict.fromkeys(axes_of(term.dims)))
        if isinstance(term.head, FullName):
            found.update(dict.fromkeys(term.head.axes + term.head.ties))
    return found


def _agree(sizes: dict[str, int], axis: str, size: int, source: str) -> None:
    if sizes.setdefault(axis, size) != size:
        raise SizeProblem(f"`{shown(axis)}` is {sizes[axis]} and, by {source}, {size}")


def solve(sizes: dict[str, int], shapes: Sequence[tuple[Sequence[Dim], tuple[int, ...], str]]) -> int | None:
    """Add to `sizes` what the shapes (dims, shape, name of the tensor) tell; the rank of `...`, None where none of them has it.

    Each dim is an equation that is linear in each of its axes. SizeProblem on a contradiction, a negative or a fraction.
    """
    rank: int | None = None
    for dims, shape, name in shapes:
        fixed = sum(not isinstance(dim, Ellipsis) for dim in dims)
        if fixed == len(dims):
            if fixed != len(shape):
                raise SizeProblem(f"`{name}` has {len(shape)} axes, the rule has {fixed} for it")
        elif len(shape) < fixed:
            raise SizeProblem(f"`{name}` has {len(shape)} axes, the rule has at least {fixed} for it")
        elif rank is None:
            rank = len(shape) - fixed
        elif rank != len(shape) - fixed:
            raise SizeProblem(f"`...` is {rank} axes elsewhere in the instance and {len(shape) - fixed} in `{name}`")
    equations = [
        (dim, size, name)
        for dims, shape, name in shapes
        for dim, size in zip(spread(dims, rank or 0), shape, strict=True)
    ]
    progress = True
    while progress and equations:
        progress = False
        left: list[tuple[Dim, int, str]] = []
        for dim, size, name in equations:
            unknown = [axis for axis in axes_of([dim]) if axis not in sizes]
            if not unknown:
                if size_of(dim, sizes) != size:
                    parts = ", ".join(f"{shown(axis)}={sizes[axis]}" for axis in axes_of([dim]))
                    raise SizeProblem(f"an axis of `{name}` is {size}, and not {size_of(dim, sizes)} ({parts})")
            elif len(unknown) == 1 and _solved(dim, size, name, unknown[0], sizes):
                progress = True
            else:
                left.append((dim, size, name))
        equations = left
    return rank


def _solved(dim: Dim, size: int, name: str, axis: str, sizes: dict[str, int]) -> bool:
    constant = size_of(dim, {**sizes, axis: 0})
    slope = size_of(dim, {**sizes, axis: 1}) - constant
    if slope == 0:
        return False
    value, rest = divmod(size - constant, slope)
    if rest or value < 0:
        what = axis if axis.startswith("...") else shown(axis)
        raise SizeProblem(
            f"an axis of `{name}` is {size}: `{what}` would be {size - constant}/{slope}, which is no size"
        )
    sizes[axis] = value
    return True


def missing(dims: Sequence[Dim], sizes: Mapping[str, int], rank: int | None) -> tuple[str, ...]:
    """The axes of a term that have no size."""
    names = list(axes_of(dims))
    if any(isinstance(dim, Ellipsis) for dim in dims):
        names.extend(["..."] if rank is None else further(rank))
    return tuple(shown(axis) for axis in names if axis not in sizes)


def gap(kind: str, rule: Rule | None, problem: str, tensors: Iterable[str] = ()) -> Gap:
    if rule is None:
        return Gap(kind, problem, tensors=tuple(tensors))
    file = None if rule.origin.file == "<morph>" else rule.origin.file
    return Gap(kind, problem, file=file, line=rule.origin.line, text=rule.origin.text, tensors=tuple(tensors))
