"""The sizes of one instance: what is bound, what names count, what the shapes give; and what is still missing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

from isomorph.language.resolve import dim_axes, variables_of
from isomorph.language.rules import FullName, shown
from isomorph.language.tree import Drop, Ellipsis, Expression
from isomorph.plan.kinds import Naming, Part, Unsettled
from isomorph.plan.match import Slot
from isomorph.plan.sizes import Contradiction, Equation, Solution, dims_text, equations, solve
from isomorph.plan.stage import NamedTerm, Stage, StageRule, where_value
from isomorph.plan.whole_blocks import counts_items

MOST_NAMES = 1_000_000
"""Tensors that one instance may write; the largest checkpoints known have some hundred thousand."""


def solve_instance(
    stage: Stage,
    rule: StageRule,
    parts: Sequence[Part],
    counted: Mapping[str, int],
    captures: Mapping[str, int],
    words: frozenset[str],
    naming: Naming,
) -> Solution:
    sizes = dict(rule.known)
    solution = Solution(sizes, origins={axis: _given_by(stage, rule, axis) for axis in sizes})
    dynamic = dict(rule.dynamic)
    _bind(stage, rule, dynamic, sizes, captures, words)
    for axis, count in counted.items():
        if sizes.setdefault(axis, count) != count:
            raise Unsettled(
                "size",
                f"{shown(axis)} is {sizes[axis]}, but the names count {count}",
                find=shown(axis),
            )
    try:
        waiting = _equations(rule, parts, naming, solution)
        while True:
            waiting = solve(waiting, solution)
            before = len(dynamic)
            _bind(stage, rule, dynamic, sizes, captures, words)
            if len(dynamic) == before:
                break
            waiting += _equations(rule, parts, naming, solution)  # what was just bound is held against every tensor
    except Contradiction as error:
        names = tuple(name for held in naming.left for name in held.values())
        find = shown(error.axis) if error.axis else None
        raise Unsettled("size", error.message, find=find, hint=counts_items(parts), tensors=names) from None
    return solution


def _given_by(stage: Stage, rule: StageRule, axis: str) -> str:
    """What gives a size that is known before any tensor is seen."""
    if shown(axis) in stage.sizes:
        return f"--set {shown(axis)}"
    if axis in rule.rule.where:
        line = rule.rule.where[axis][0].span.line
        return f"where, line {line}" if line else "where"
    return "its labels"


def _equations(rule: StageRule, parts: Sequence[Part], naming: Naming, solution: Solution) -> list[Equation]:
    return [
        equation
        for part, term, held in zip(parts, rule.left, naming.left, strict=True)
        for slot, spec in zip(part.slots, part.specs, strict=True)
        for equation in equations(term.term, held[slot], spec.shape, solution)
    ]


def _bind(
    stage: Stage,
    rule: StageRule,
    dynamic: dict[str, tuple[Expression, ...]],
    sizes: dict[str, int],
    captures: Mapping[str, int],
    words: frozenset[str],
) -> None:
    """Evaluate the `where` expressions whose variables are known by now; a value that contradicts a solved size is an error."""
    progress = True
    while progress:
        progress = False
        for axis, expressions in list(dynamic.items()):
            needed = {name for expression in expressions for name in variables_of(expression)}
            word = next((name for name in needed if name in words), None)
            if word is not None:
                raise Unsettled(
                    "size",
                    f"the size of {shown(axis)} is computed from {shown(word)}, which is a word here, not a number",
                    find=shown(axis),
                )
            if not needed <= {*sizes, *captures}:
                continue
            value = where_value(rule.rule, axis, expressions, {**sizes, **captures}, stage.config)
            del dynamic[axis]
            progress = True
            if sizes.setdefault(axis, value) != value:
                raise Unsettled(
                    "size", f"{shown(axis)} is {value} (where), but the tensors give {sizes[axis]}", find=shown(axis)
                )


def need_sizes(rule: StageRule, solution: Solution, lost: set[int], parts: Sequence[Part], naming: Naming) -> None:
    """Every axis of every tensor to be made, and of every tensor that is read in parts, has a size; so has `...`."""
    sizes = solution.sizes
    made = [term for part, term in enumerate(rule.right) if part not in lost]
    if rule.right and not made:
        return
    needed: dict[str, None] = {}
    for term in (*rule.rule.left, *(term for term in rule.rule.right)):
        if isinstance(term.head, FullName) and any(rule.right[part].term is term for part in lost):
            continue
        if isinstance(term.head, Drop) and term in rule.rule.left:
            continue
        for dim in term.dims:
            needed.update(dict.fromkeys(dim_axes(dim)))
    for named in made:
        needed.update(dict.fromkeys(named.slots))
    unknown = [axis for axis in needed if axis not in sizes]
    if unknown:
        names = [shown(axis) for axis in unknown]
        several = len(names) > 1
        shapes = [
            f"`{name}` is [{' '.join(map(str, spec.shape))}], written {dims_text(term.term.dims)}"
            for part, term, held in zip(parts, rule.left, naming.left, strict=True)
            for (slot, spec), name in [
                ((slot, spec), held[slot]) for slot, spec in list(zip(part.slots, part.specs, strict=True))[:1]
            ]
        ]
        axes = f"{', '.join(names[:-1])} and {names[-1]}" if several else names[0]
        example = names[0]
        raise Unsettled(
            "size",
            f"{'axes' if several else 'axis'} {axes} {'have' if several else 'has'} no size",
            find=example,
            details=shapes[:3],
            hint=f"Give {'all but what follows from a shape' if several else 'it'}: --set {example}=N, "
            f"or  where {example}=N  (or  where {example}=config.…)",
            tensors=tuple(name for held in naming.left for name in held.values())[:3],
        )
    for named in made:
        for axis in named.slots:
            if sizes[axis] == 0:
                raise Unsettled(
                    "size", f"{shown(axis)} is 0, but it is written into names: there would be none", find=shown(axis)
                )
    if solution.further is None and any(isinstance(dim, Ellipsis) for named in made for dim in named.term.dims):
        raise Unsettled(
            "size",
            "`...` stands for unknown axes: no tensor that is read has it",
            find=None,
            hint="Write the axes out in [ ] and give their sizes with where",
        )


def slots_of(rule: StageRule, term: NamedTerm, sizes: Mapping[str, int]) -> Iterator[Slot]:
    """All slots of a term that is written, stacked axes outermost."""
    return itertools.product(*(range(sizes[axis]) for axis in term.slots))


def index_tuples(sizes: Sequence[int]) -> Iterator[Slot]:
    """Every tuple of indices below `sizes`, the last running fastest: one at a time, however large the sizes are."""
    if not sizes:
        yield ()
        return
    for outer in index_tuples(sizes[:-1]):
        for index in range(sizes[-1]):
            yield (*outer, index)


def limit_names(rule: StageRule, sizes: Mapping[str, int]) -> None:
    """Refuse an instance that would write more tensors than any checkpoint has. Raises Unsettled."""
    for term in rule.right:
        count = math.prod(sizes.get(axis, 1) for axis in term.slots)
        if count > MOST_NAMES:
            axes = ", ".join(f"{shown(axis)}={sizes[axis]}" for axis in term.slots if axis in sizes)
            raise Unsettled(
                "size",
                f"{term.pattern.text} would stand for {count} tensors ({axes}): more than any checkpoint has",
                find=shown(max(term.slots, key=lambda axis: sizes.get(axis, 1))),
                hint="Bind the axis that counts them, or mend the tensor's axes",
            )
