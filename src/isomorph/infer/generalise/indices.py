"""Rules that differ in numbers alone become one: each number is an index, linked from side to side.

    h.0.w <-> layers.1.w,  h.1.w <-> layers.2.w, …   ->   h.{l}.w <-> layers.{l+1}.w

Numbers that no index links (0, 2 against 1, 2) stay as they are; labels may put such rules together later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from isomorph.infer.generalise.numbering import Tail
from isomorph.infer.generalise.patterns import Index, Rule, Template, Token, is_number

Bounds = tuple[tuple[str, int], ...] | None
Slot = tuple[int, int]
"""Which name, which token of it."""


def linked(rules: Sequence[Rule]) -> list[Rule]:
    """The rules with index holes, in the order of their first ones. Only rules without counting axes are given."""
    groups: dict[object, list[Rule]] = {}
    for rule in rules:
        groups.setdefault(
            (rule.form, rule.ranks if not rule.is_copy else None, tuple(map(_skeleton, rule.names))), []
        ).append(rule)
    found: list[Rule] = []
    for group in groups.values():
        found.extend(_link(group))
    return sorted(found, key=lambda rule: rule.covers[0])


def _skeleton(name: Template) -> tuple[Token | None, ...]:
    return tuple("_#" if isinstance(token, Tail) else None if is_number(token) else token for token in name)


@dataclass
class _Column:
    slot: Slot
    texts: list[str]

    @property
    def values(self) -> list[int]:
        return [text.number if isinstance(text, Tail) else int(text) for text in self.texts]

    @property
    def pad(self) -> str | None:
        if isinstance(self.texts[0], Tail):
            return "_"
        if all(str(int(text)) == text for text in self.texts):
            return None
        width = min(map(len, self.texts))
        return (
            f"{width:02}"
            if 1 < width < 10 and all(str(int(text)).zfill(width) == text for text in self.texts)
            else "no"
        )


def _link(rules: list[Rule]) -> list[Rule]:
    """One rule, or several where the numbers do not hang together."""
    waiting = [rules]
    found: list[Rule] = []
    while waiting:
        group = waiting.pop()
        if len(group) == 1:
            found.append(group[0])
            continue
        made = _one(group)
        if isinstance(made, Rule):
            found.append(made)
        else:
            waiting.extend(made)
    return found


def _one(group: list[Rule]) -> Rule | list[list[Rule]]:
    columns = _columns(group)
    n_left = group[0].n_left
    left = [column for column in columns if column.slot[0] < n_left]
    right = [column for column in columns if column.slot[0] >= n_left]
    turned = len({tuple(c.values) for c in right}) > len({tuple(c.values) for c in left})
    base, other = (right, left) if turned else (left, right)
    holes: dict[Slot, Token] = {}
    axes: list[tuple[str, list[int]]] = []
    for column in base:
        if column.pad == "no":
            return _parted(group, column)
        values = column.values
        for axis, numbers in axes:
            shift = _shift(values, numbers)
            if shift is not None:
                holes[column.slot] = Index((axis,), shift, pad=column.pad)
                break
        else:
            axis = f"n{len(axes)}"
            axes.append((axis, values))
            holes[column.slot] = Index((axis,), pad=column.pad)
    used: set[str] = set()
    astray: list[_Column] = []
    for column in other:
        hole = _hole(column, axes)
        if hole is None:
            astray.append(column)
        else:
            holes[column.slot] = hole
            used.update(hole.axes)
    if astray:
        voted = _voted(group, astray[0], axes)
        if voted is not None:
            return voted
    for axis, values in axes:
        if axis not in used:
            astray.extend(column for column in base if column.values == values)
    if astray or not _everywhere(group[0], holes, used):
        return _parted(group, _fewest(astray or columns))
    names = [tuple(holes.get((k, at), token) for at, token in enumerate(name)) for k, name in enumerate(group[0].names)]
    covers = sorted(number for rule in group for number in rule.covers)
    bound = _bounds(columns, holes, axes)
    if bound is None:
        return _parted(group, _fewest(columns))
    made = replace(group[0], sizes=(*group[0].sizes, *bound)).with_names(names, covers)
    return replace(made, ranks=frozenset().union(*(rule.ranks for rule in group)), notes=_notes(group))


def _notes(group: Sequence[Rule]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(note for rule in group for note in rule.notes))


def _everywhere(rule: Rule, holes: dict[Slot, Token], used: set[str]) -> bool:
    """Every name must carry every axis that counts."""
    for k, _ in enumerate(rule.names):
        here = {axis for slot, hole in holes.items() if slot[0] == k and isinstance(hole, Index) for axis in hole.axes}
        if here != used:
            return False
    return True


def _columns(group: Sequence[Rule]) -> list[_Column]:
    columns = []
    for k, name in enumerate(group[0].names):
        for at, token in enumerate(name):
            if is_number(token) or isinstance(token, Tail):
                texts = [text for rule in group if isinstance(text := rule.names[k][at], str)]
                if len(set(texts)) > 1:
                    columns.append(_Column((k, at), texts))
    return columns


def _shift(values: Sequence[int], numbers: Sequence[int]) -> int | None:
    shift = values[0] - numbers[0]
    return shift if all(value == number + shift for value, number in zip(values, numbers, strict=True)) else None


def _hole(column: _Column, axes: Sequence[tuple[str, list[int]]]) -> Index | None:
    if column.pad == "no":
        return None
    values = column.values
    for axis, numbers in axes:
        shift = _shift(values, numbers)
        if shift is not None:
            return Index((axis,), shift, pad=column.pad)
    for axis, numbers in axes:
        total = values[0] + numbers[0]
        if all(value + number == total for value, number in zip(values, numbers, strict=True)):
            return Index((axis,), total, -1, column.pad)
    return _product(column, axes)


def _product(column: _Column, axes: Sequence[tuple[str, list[int]]]) -> Index | None:
    """`{(s j)+1}`: numbers counted through, where the other side counts in stages of one length."""
    for outer, first in axes:
        for inner, second in axes:
            if outer == inner or min(second) != 0 or min(first) != 0:
                continue
            size, offset = _stages(column.values, first, second)
            if size > max(second):
                return Index((outer, inner), offset, pad=column.pad)
    return None


def _stages(values: Sequence[int], outer: Sequence[int], inner: Sequence[int]) -> tuple[int, int]:
    """(size, offset) such that every value is offset + outer * size + inner; (0, 0) when there is no such size."""
    begins = {stage: value - place for value, stage, place in zip(values, outer, inner, strict=True)}
    low, high = min(begins), max(begins)
    if low == high or (begins[high] - begins[low]) % (high - low):
        return 0, 0
    size = (begins[high] - begins[low]) // (high - low)
    offset = begins[low] - low * size
    if any(v != offset + a * size + b for v, a, b in zip(values, outer, inner, strict=True)):
        return 0, 0
    return size, offset


def _bounds(columns: Sequence[_Column], holes: dict[Slot, Token], axes: Sequence[tuple[str, list[int]]]) -> Bounds:
    """The sizes of the inner axes of products."""
    numbers = dict(axes)
    found: dict[str, int] = {}
    for column in columns:
        hole = holes.get(column.slot)
        if isinstance(hole, Index) and len(hole.axes) > 1:
            outer, inner = hole.axes
            size, _ = _stages(column.values, numbers[outer], numbers[inner])
            if found.setdefault(inner, size) != size:
                return None
    return tuple(sorted(found.items()))


def _voted(group: list[Rule], column: _Column, axes: Sequence[tuple[str, list[int]]]) -> list[list[Rule]] | None:
    """The members that one shift holds for, and the others, where most agree."""
    votes = Counter(
        (axis, value - number) for axis, numbers in axes for value, number in zip(column.values, numbers, strict=True)
    )
    if not votes:
        return None
    (axis, shift), count = min(votes.items(), key=lambda vote: (-vote[1], abs(vote[0][1]), vote[0]))
    if count < 3 or count * 10 < len(group) * 6 or count == len(group):
        return None
    numbers = dict(axes)[axis]
    fits = [value - number == shift for value, number in zip(column.values, numbers, strict=True)]
    return [[rule for rule, good in zip(group, fits, strict=True) if good is wanted] for wanted in (True, False)]


def _fewest(columns: Sequence[_Column]) -> _Column:
    return min(columns, key=lambda column: (len(set(column.texts)), column.slot))


def _parted(group: Sequence[Rule], column: _Column) -> list[list[Rule]]:
    parts: dict[str, list[Rule]] = {}
    for rule, text in zip(group, column.texts, strict=True):
        parts.setdefault(text, []).append(rule)
    return list(parts.values())
