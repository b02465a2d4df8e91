"""Classes whose indices overlap: `in.{l} <-> 0.{l-1}` for l = 1, 2 and `in.{l} <-> 1.{l-4}` for l = 4, 5.

Each would take the other's names. Where one class ends before the other begins, a bound (`where l=3`) keeps it to its own, as it
stands above; where they lie among each other, the smaller one gives its indices up, and labels may put it together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations

from isomorph.infer.generalise.patterns import Index, Rule, Template, is_number

MOST_ALIKE = 60
"""Of more classes that read the same names the bounds are not looked for."""


def apart(classes: Sequence[Rule], single: Callable[[int], Rule]) -> list[Rule]:
    """The classes, none of which takes another's name where that one takes its. `single` gives the rule of one relation."""
    found = list(classes)
    dissolved: set[int] = set()
    for alike in _alike(found):
        alike.sort(key=lambda k: (_first(found[k]), k))
        for one, other in combinations(alike, 2):
            if dissolved & {one, other} or not _each_other(found[one], found[other], single):
                continue
            bounded = _bounded(found[one], found[other], single)
            if bounded is not None:
                found[one] = bounded
            else:
                dissolved.add(min(one, other, key=lambda k: (len(found[k].covers), -k)))
    if not dissolved:
        return found
    kept = [rule for k, rule in enumerate(found) if k not in dissolved]
    kept.extend(single(number) for k in sorted(dissolved) for number in found[k].covers)
    return sorted(kept, key=lambda rule: rule.covers[0])


def _alike(classes: Sequence[Rule]) -> list[list[int]]:
    """Classes with an index and a name that is another's but for numbers."""
    by: dict[tuple[bool, tuple[object, ...]], dict[int, None]] = {}
    for k, rule in enumerate(classes):
        if any(isinstance(token, Index) for name in rule.names for token in name):
            for place, name in enumerate(rule.names):
                by.setdefault((place < rule.n_left, _open(name)), {})[k] = None
    return [list(group) for group in by.values() if 1 < len(group) <= MOST_ALIKE]


def _open(name: Template) -> tuple[object, ...]:
    return tuple(0 if isinstance(token, Index) or is_number(token) else token for token in name)


def _first(rule: Rule) -> int:
    return rule.covers[0]


def _each_other(one: Rule, other: Rule, single: Callable[[int], Rule]) -> bool:
    return _takes(one, other, single) and _takes(other, one, single)


def _takes(one: Rule, other: Rule, single: Callable[[int], Rule]) -> bool:
    """Whether the first would read a name of the second."""
    bounds = dict(one.sizes)
    for number in other.covers:
        rule = single(number)
        for k, name in enumerate(one.names):
            same = rule.names[: rule.n_left] if k < one.n_left else rule.names[rule.n_left :]
            if any(_reads(name, text, bounds) for text in same):
                return True
    return False


def _reads(name: Template, text: Template, bounds: dict[str, int]) -> bool:
    if len(name) != len(text):
        return False
    seen: dict[str, int] = {}
    for token, own in zip(name, text, strict=True):
        if not isinstance(token, Index):
            if token != own:
                return False
            continue
        if not is_number(own):
            return False
        value = (int(str(own)) - token.offset) * token.sign
        if value < 0 or (len(token.axes) == 1 and value >= bounds.get(token.axes[0], value + 1)):
            return False
        if len(token.axes) == 1 and seen.setdefault(token.axes[0], value) != value:
            return False
    return True


def _bounded(one: Rule, other: Rule, single: Callable[[int], Rule]) -> Rule | None:
    """The first with a bound behind its last index, where that keeps it from all that the second has."""
    axes = dict.fromkeys(
        axis for name in one.names for token in name if isinstance(token, Index) for axis in token.axes
    )
    if len(axes) != 1 or any(axis in axes for axis, _ in one.sizes):
        return None
    (axis,) = axes
    made = replace(one, sizes=(*one.sizes, (axis, 1 + max(_value(one, single(number)) for number in one.covers))))
    return None if _takes(made, other, single) else made


def _value(rule: Rule, member: Rule) -> int:
    """The index of a member of a class with one axis."""
    for name, text in zip(rule.names, member.names, strict=True):
        for token, own in zip(name, text, strict=True):
            if isinstance(token, Index):
                return (int(str(own)) - token.offset) * token.sign
    raise AssertionError("a class with an index")
