"""Sizes that no shape tells: heads in `[(h d) i] <-> [i h d]` on the way back, halves in rotary orders. They are bound by `where`.

Solved as LANGUAGE.md 3.12 does: every dim of the tensors that are read is an equation, solved when one axis is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from isomorph.infer.generalise.patterns import Dim, Index, Labels, Rule, canonical, dims_axes, map_axes, token_axes

STRUCTURAL = (2, 3)
"""Sizes that may be written as numbers: halves of a rotation, q k v."""

WIDTHS = (
    "head", "expert", "group", "kv", "dim", "hidden", "intermediate", "inner", "ffn", "width", "channel", "size", "rank", "vocab",
)  # fmt: skip
"""What is in the names of config keys that say how wide an axis is."""


def sized(rule: Rule, sizes: Mapping[str, int], preferred: Mapping[str, int]) -> Rule:
    """The rule with a bound size for each axis that cannot be solved in one direction or the other.

    `sizes` are those of all its axes; `preferred` ranks the axes that are better bound than others (the lowest first).
    """
    literal: dict[str, str] = {}
    bound: dict[str, int] = {}
    for forward in (True, False):
        while True:
            unknown = _unknown(rule, sizes, bound, literal, forward)
            if not unknown:
                break
            small = _structural(rule, unknown, sizes, preferred) if forward and not literal else None
            if small is not None and _may_be_literal(rule, small, sizes, literal):
                literal[small] = str(sizes[small])
                continue
            axis = min(unknown, key=lambda one: (preferred.get(one, 1), unknown.index(one)))
            bound[axis] = sizes[axis]
    if literal:
        rule = _written(rule, literal)
    found = tuple(sorted((axis, size) for axis, size in bound.items()))
    return canonical(replace(rule, sizes=found)) if literal or found else rule


def _written(rule: Rule, literal: Mapping[str, str]) -> Rule:
    dims = [
        None
        if term.dims is None
        else tuple(map_axes(dim, lambda axis: (literal.get(axis, axis),)) for dim in term.dims)
        for term in (*rule.left, *rule.right)
    ]
    return rule.with_dims(dims)


def _structural(rule: Rule, unknown: list[str], sizes: Mapping[str, int], preferred: Mapping[str, int]) -> str | None:
    """The axis that is best written as a number: the 2 of `(h half 2)`, the 3 of `(heads 3 d)`; None where there is none.

    One that is outermost in no product is rather structural than a count; one that the config tells is rather a count.
    """
    outermost = {
        next(iter(dims_axes((dim,)))) for term in (*rule.left, *rule.right) for dim in term.dims or () if dim[0]
    }
    named = _named(rule)
    small = [axis for axis in unknown if sizes[axis] in STRUCTURAL and axis not in named]
    if len(unknown) < 3:
        small = [axis for axis in small if axis not in preferred]
    if not small or len(unknown) < 2:
        return None
    return min(small, key=lambda axis: (axis in outermost, axis in preferred, -unknown.index(axis)))


def _may_be_literal(rule: Rule, axis: str, sizes: Mapping[str, int], literal: Mapping[str, str]) -> bool:
    """No other axis of a block may be written as the same number."""
    return str(sizes[axis]) not in literal.values() and str(sizes[axis]) not in {
        one for term in (*rule.left, *rule.right) for one in dims_axes(term.dims)
    }


def _named(rule: Rule) -> set[str]:
    return {axis for name in rule.names for token in name for axis in token_axes(token)}


def _unknown(
    rule: Rule, sizes: Mapping[str, int], bound: Mapping[str, int], literal: Mapping[str, str], forward: bool
) -> list[str]:
    """The axes that stay unknown when one side is read, in reading order."""
    read, made = (rule.left, rule.right) if forward else (rule.right, rule.left)
    known = {*bound, *literal}
    if any(term.head is None for term in read):
        return []  # what needs the dropped block is not made in this direction
    for term in (*read, *made):
        for token in term.name or ():
            if isinstance(token, Labels) and token.axis:
                known.add(token.axis)
    for term in read:
        for token in term.name or ():
            if isinstance(token, Index):
                known.update(axis for axis in token.axes if axis in sizes or token.tied)
    equations = [dim for term in read if term.name is not None for dim in term.dims or ()]
    progress = True
    while progress:
        progress = False
        for dim in equations:
            unknown = [axis for axis in dict.fromkeys(dims_axes((dim,))) if axis not in known and not axis.isdigit()]
            if len(unknown) == 1 and _linear(dim, unknown[0]):
                known.add(unknown[0])
                progress = True
    every: dict[str, None] = {}
    for term in (*read, *made):
        every.update(dict.fromkeys(axis for axis in dims_axes(term.dims) if not axis.isdigit() and axis != "..."))
    for term in made:
        for token in term.name or ():
            if isinstance(token, Index):
                every.update(dict.fromkeys(axis for axis in token.axes if axis in sizes))
    return [axis for axis in every if axis not in known]


def _linear(dim: Dim, axis: str) -> bool:
    return all(list(dims_axes(((product,),))).count(axis) <= 1 for product in dim)


def config_keys(config: Mapping[str, object] | None, size: int) -> list[str]:
    """The dotted paths of a config whose value is this number, in order."""
    found: list[str] = []
    waiting: list[tuple[tuple[str, ...], object]] = [((), config or {})]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, Mapping):
            waiting.extend(
                ((*path, key), inner) for key, inner in value.items() if isinstance(key, str) and key.isidentifier()
            )
        elif type(value) is int and value == size:
            found.append(".".join(path))
    return sorted(found)


def sensible_key(config: Mapping[str, object] | None, size: int) -> str | None:
    """The one key of the config that says the size: the only one that names heads or experts, or the only one of any width.

    A number that happens to be that of layers, tokens or classes says nothing of an axis.
    """
    keys = [
        key
        for key, last in ((key, key.lower().rpartition(".")[2]) for key in config_keys(config, size))
        if any(word in last for word in WIDTHS) and "layer" not in last
    ]
    for word in ("head", "expert"):
        told = [key for key in keys if word in key.lower()]
        plain = [key for key in told if "key_value" not in key and "kv" not in key and "dim" not in key] or told
        if len(plain) == 1:
            return plain[0]
    return keys[0] if len(keys) == 1 else None
