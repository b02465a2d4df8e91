"""Members of a class that are unlike their siblings: not transposed where the others are, from another layer, not scaled.

A class is a target template; a line of it are the members that differ in one number only and have tensors of the same sizes. Where
nearly all members of a line agree in form and in what they are made of, those that do not are outliers. Where they do not nearly
all agree there is a pattern (every second layer), or none, and nothing is said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

from isomorph.infer.by_value.forms import form, renamed
from isomorph.infer.by_value.templates import Index, by_template, named
from isomorph.infer.nouns import Outlier, Part, Relation

FEWEST = 3
"""So many siblings must agree …"""
SHARE = 0.75
"""… and be so large a part of all."""
MOST_LOOKED_AT = 16
"""Of a long list of sources (a stack), so many are held against the siblings'."""

Value = TypeVar("Value", bound=Hashable)
Names = Mapping[str, Mapping[tuple[int, ...], str]]


def outliers(relations: Sequence[Relation], sources: Sequence[str]) -> list[Outlier]:
    """The relations unlike their siblings', each with what is said of it and, where that can be built, what was expected.

    `sources`: all names of the source. Each `found` is one of `relations`; whoever calls takes it out.
    """
    classes: dict[object, dict[Index, Relation]] = {}
    for relation in relations:
        if relation.evidence != "constant" and relation.sources:
            classes.setdefault(_class(relation), {})[_index(relation)] = relation
    names = by_template(sources)
    found: dict[str, Outlier] = {}
    for members in classes.values():
        for slot in range(len(next(iter(members)))):
            for line in _lines(members, slot):
                for outlier in _of_line(line, slot, names):
                    found.setdefault(outlier.target, outlier)
    return list(found.values())


def _class(relation: Relation) -> object:
    """The templates of the targets, and the sizes of all tensors."""
    templates = tuple(named(part.names[0]).template for part in relation.right if isinstance(part, Part))
    sizes = tuple(
        tuple(sorted(_sizes(relation, part) for part in side if isinstance(part, Part)))
        for side in (relation.left, relation.right)
    )
    return templates, sizes


def _sizes(relation: Relation, part: Part) -> tuple[int, ...]:
    return (len(part.names), *sorted(size for size in relation.shape(part) if size != 1))


def _index(relation: Relation) -> tuple[int, ...]:
    return named(relation.targets[0]).numbers


def _lines(members: Mapping[Index, Relation], slot: int) -> Iterator[dict[int, Relation]]:
    """The members that differ in that number only, by it."""
    lines: dict[Index, dict[int, Relation]] = {}
    for index, relation in members.items():
        value = index[slot]
        assert value is not None
        lines.setdefault((*index[:slot], *index[slot + 1 :]), {})[value] = relation
    yield from (line for line in lines.values() if len(line) > FEWEST)


def _of_line(line: Mapping[int, Relation], slot: int, names: Names) -> Iterator[Outlier]:
    forms = {value: form(relation) for value, relation in line.items()}
    usual = _majority(list(forms.values()))
    origins = {value: _origin(relation) for value, relation in line.items()}
    templates = _majority([one for one, _ in origins.values()])
    follows = _follows([(value, numbers) for value, (one, numbers) in origins.items() if one == templates], len(line))
    if templates is None or any(rule is None for rule in follows):
        return  # their names do not say that they are siblings
    right = {
        value: (
            origin[0] == templates
            and all(
                rule is not None and number == rule[0] * value + rule[1]
                for number, rule in zip(origin[1], follows, strict=True)
            )
        )
        for value, origin in origins.items()
    }
    good = [value for value in line if right[value] and (usual is None or forms[value] == usual)]
    if len(good) < max(FEWEST, SHARE * len(line)) or len(good) == len(line):
        return
    example = line[good[0]]
    for value, relation in line.items():
        if value in good:
            continue
        expected = _expected(example, good[0], value, slot, follows, names, relation)
        if forms[value] != usual and usual is not None:
            words = _unlike(relation, example, len(good))
        else:
            would = f"it would come from {_some(expected.sources)}" if expected is not None else "it would not"
            words = f"comes from {_some(relation.sources)}; by its {len(good)} siblings {would}"
        text = f"{relation.targets[0]} {words}"
        yield Outlier(relation.targets[0], text, relation, expected)


def _majority(values: Sequence[Value]) -> Value | None:
    value, count = Counter(values).most_common(1)[0]
    return value if count >= max(FEWEST, SHARE * len(values)) else None


def _origin(relation: Relation) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The templates of the sources, and all their numbers."""
    every = [named(name) for name in relation.sources[:MOST_LOOKED_AT]]
    return tuple(one.template for one in every), tuple(number for one in every for number in one.numbers)


def _follows(known: Sequence[tuple[int, tuple[int, ...]]], members: int) -> tuple[tuple[int, int] | None, ...]:
    """For each number of the sources' names, the rule that nearly all members keep: constant, in step, or turned round."""
    if not known:
        return ()
    rules: list[tuple[int, int] | None] = []
    for place in range(len(known[0][1])):
        best: tuple[int, int] | None = None
        for sign in (1, 0, -1):
            offset, count = Counter(numbers[place] - sign * value for value, numbers in known).most_common(1)[0]
            if count >= max(FEWEST, SHARE * members):
                best = (sign, offset)
                break
        rules.append(best)
    return tuple(rules)


def _unlike(found: Relation, usual: Relation, siblings: int) -> str:
    """In words, with what the siblings are."""
    if found.operators != usual.operators:
        return f"has {_operators(found)}; its {siblings} siblings have {_operators(usual)}"
    if len(found.sources) == len(found.targets) == 1:
        if _is_plain(found) and not _is_plain(usual):
            return f"is NOT transposed; its {siblings} siblings are"
        if _is_plain(usual) and not _is_plain(found):
            return f"is transposed; its {siblings} siblings are NOT"
    return f"is laid out otherwise than its {siblings} siblings"


def _is_plain(relation: Relation) -> bool:
    return [part.dims for part in relation.left] == [part.dims for part in relation.right]


def _operators(relation: Relation) -> str:
    if not relation.operators:
        return "no operator"
    return ", ".join(" ".join(filter(None, (op.name, op.source, op.target, op.number))) for op in relation.operators)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" … and {len(names) - 3} more" if len(names) > 3 else "")


def _expected(
    example: Relation,
    was: int,
    now: int,
    slot: int,
    follows: Sequence[tuple[int, int] | None],
    names: Names,
    found: Relation,
) -> Relation | None:
    """The relation as it would be if this member were like that sibling."""
    new: dict[str, str] = dict(zip(example.targets, found.targets, strict=True)) if _same(example, found) else {}
    if not new or not follows or any(rule is None for rule in follows) or len(example.sources) > MOST_LOOKED_AT:
        return None
    rules = iter(follows)
    for name in example.sources:
        one = named(name)
        index = []
        for number in one.numbers:
            rule = next(rules)
            assert rule is not None
            index.append(number + rule[0] * (now - was))
        source = names.get(one.template, {}).get(tuple(index))
        if source is None:
            return None
        new[name] = source
    return renamed(example, new)


def _same(one: Relation, other: Relation) -> bool:
    return len(one.targets) == len(other.targets)
