"""A fused tensor on both sides -> its forms: the parts in the same order, or as one side has them and the other does not.

Shapes say nothing of what is inside: queries, keys and values lie one after another in GPT-2, of each head together in BLOOM, NeoX
and Megatron; LSTMs have their gates in any order.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

from isomorph.infer.by_name.axes import Form, Stack
from isomorph.infer.by_name.facts import Facts
from isomorph.infer.by_name.tokens import words
from isomorph.infer.nouns import Dim, Part, Product, Relation

PARTS: Mapping[str, int] = {"qkv": 3, "kv": 2, "gate_up": 2}
"""Roles of fused tensors -> how many parts they have."""
GATES: Mapping[str, int] = {"lstm": 4, "gru": 3}
"""Words of recurrent layers -> how many gates their weights have."""
LAYOUTS: Mapping[str, Product] = {
    "one after another": ("p", "h", "d"),
    "of each head": ("h", "p", "d"),
    "in turns within each head": ("h", "d", "p"),
}
SAME = "in the same order"
VERSIONED = ("query", "key", "value")
"""The words of a fused tensor whose rows lie in another order in each version of Megatron, under one name."""


def has_versions(name: str) -> bool:
    """Whether equal names do not mean equal orders."""
    found = words(name)
    return any(found[at : at + 3] == VERSIONED for at in range(len(found) - 2))


def parts_within(source: Stack, target: Stack) -> tuple[str, int] | None:
    """What is fused in both of two tensors and in how many parts, by their role or a word; None where nothing is."""
    for role in (source.role, target.role):
        if role in PARTS:
            return role, PARTS[role]
    found = {*words(source.names[0]), *words(target.names[0])}
    return next(((word, count) for word, count in GATES.items() if word in found), None)


def reordered(form: Form, role: str, count: int, facts: Facts) -> list[Form]:
    """A form of two fused tensors, and the same with the parts in other orders."""
    found = [Form(form.relation, form.turn, form.cut, SAME)]
    axis = _rows(form.relation, count)
    if axis is None:
        return found
    size = form.relation.sizes[axis]
    if size % count == 0:
        if role in GATES or count == 2:
            found.extend(_permuted(form, axis, count))
        if role == "gate_up":
            found.extend(_in_turns(form, axis, count))
        elif role in PARTS:
            for width in facts.head_dims([size // count]):
                found.extend(_by_heads(form, axis, count, width))
    if role == "qkv":
        found.extend(_by_groups(form, axis, facts))
    return found


def _rows(relation: Relation, count: int) -> str | None:
    """The axis that parts lie in: the longest, of those with a whole number of parts first."""
    left, right = relation.left[0], relation.right[0]
    if not (isinstance(left, Part) and isinstance(right, Part)) or left.along or right.along:
        return None
    if any(len(dim) != 1 or len(dim[0]) > 1 for part in (left, right) for dim in part.dims):
        return None
    axes = [dim[0][0] for dim in left.dims if dim[0]]
    return max(axes, key=lambda axis: (relation.sizes[axis] % count == 0, relation.sizes[axis]), default=None)


def _with(
    form: Form, axis: str, left: Dim, right: Dim, sizes: Mapping[str, int], order: str, sums: Mapping[str, Dim]
) -> Form:
    here, there = form.relation.left[0], form.relation.right[0]
    assert isinstance(here, Part) and isinstance(there, Part)
    known = {name: size for name, size in form.relation.sizes.items() if name != axis}

    def put(part: Part, dim: Dim) -> Part:
        return Part(
            part.names, tuple(dim if each == ((axis,),) else each for each in part.dims), part.along, part.copies
        )

    relation = Relation((put(here, left),), (put(there, right),), {**known, **sizes}, sums=sums)
    return Form(relation, form.turn, form.cut, order)


def _permuted(form: Form, axis: str, count: int) -> Iterator[Form]:
    """The parts one after another on both sides, in another order."""
    letters = [f"r{number}" for number in range(count)]
    sizes = dict.fromkeys(letters, form.relation.sizes[axis] // count)
    left: Dim = tuple((letter,) for letter in letters)
    for order in itertools.permutations(range(count)):
        if order != tuple(range(count)):
            right: Dim = tuple((letters[number],) for number in order)
            yield _with(
                form, axis, left, right, sizes, f"parts {' '.join(str(n + 1) for n in order)} of the source", {}
            )


def _in_turns(form: Form, axis: str, count: int) -> Iterator[Form]:
    sizes = {"p": count, "o": form.relation.sizes[axis] // count}
    halves: Dim = (("p", "o"),)
    turns: Dim = (("o", "p"),)
    yield _with(form, axis, halves, turns, sizes, "from one after another to row by row in turns", {})
    yield _with(form, axis, turns, halves, sizes, "from row by row in turns to one after another", {})


def _by_heads(form: Form, axis: str, count: int, width: int) -> Iterator[Form]:
    heads = form.relation.sizes[axis] // count // width
    if heads == 1:
        return
    sizes = {"p": count, "h": heads, "d": width}
    for (one, left), (other, right) in itertools.permutations(LAYOUTS.items(), 2):
        yield _with(form, axis, (left,), (right,), sizes, f"from {one} to {other}, heads of {width}", {})


def _by_groups(form: Form, axis: str, facts: Facts) -> Iterator[Form]:
    """Fewer keys and values than queries: all queries, keys, values on one side, of each group together on the other."""
    rows = form.relation.sizes[axis]
    for width, groups in facts.groupings(rows):
        repeat = rows // width // groups - 2
        sizes = {"g": groups, "r": repeat, "d": width}
        blocks: Dim = (("g", "r", "d"), ("g", "d"), ("g", "d"))
        grouped: Dim = (("g", "s", "d"),)
        sums: dict[str, Dim] = {"s": (("r",), (), ())}
        said = f"{groups} groups, heads of {width}"
        more = {**sizes, "s": repeat + 2}
        yield _with(form, axis, blocks, grouped, more, f"from one after another to of each group, {said}", sums)
        yield _with(form, axis, grouped, blocks, more, f"from of each group to one after another, {said}", sums)
