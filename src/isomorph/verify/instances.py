"""Which rule takes a name, and which names make one instance (LANGUAGE.md 3 (6), (7), (13), (18))."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import TypeVar

from isomorph.errors import Gap, MorphError
from isomorph.language.rules import FlatTerm, FullName, LabelHole, Rule, shown
from isomorph.language.tree import Constant, Dim, Drop
from isomorph.tensors import TensorSpec
from isomorph.verify.reading import Pattern, Reading, TwoCuts, UnknownFactor, Value
from isomorph.verify.sizes import SizeProblem, bound, gap

UNREAD = Reading({}, {})
"""What is kept of a name whose values all count instances."""
MOST_COPIES = 1_000_000
"""More names than this are not written out for one instance."""


Key = TypeVar("Key")
Held = TypeVar("Held")


class Single(Mapping[Key, Held]):
    """A mapping of one key: most instances are of one name, and a dict takes four times the memory."""

    __slots__ = ("_held", "_key")

    def __init__(self, key: Key, held: Held) -> None:
        self._key, self._held = key, held

    def __getitem__(self, key: Key) -> Held:
        if key != self._key:
            raise KeyError(key)
        return self._held

    def __iter__(self) -> Iterator[Key]:
        yield self._key

    def __len__(self) -> int:
        return 1


@dataclass
class Reader:
    """A rule, ready to read its left side. `against`: it is one-way and points the other way, so that it only takes names."""

    rule: Rule
    sizes: Mapping[str, int]
    patterns: dict[int, Pattern]
    taken: int = 0
    stacked: dict[int, tuple[str, ...]] = field(default_factory=dict)
    tied: dict[int, tuple[str, ...]] = field(default_factory=dict)
    counting: frozenset[str] = frozenset()
    is_settled: bool = False

    def __post_init__(self) -> None:
        """`stacked` and `tied` are by id of a term; `is_settled` says that no size depends on what a name reads."""
        self.counting = self.rule.counting
        for term in (*self.rule.left, *self.rule.right):
            self.stacked[id(term)] = stacked(term, self.rule)
            self.tied[id(term)] = term.head.ties if isinstance(term.head, FullName) else ()
        self.is_settled = all(axis in self.sizes for axis in self.rule.where)

    @property
    def against(self) -> bool:
        return self.rule.arrow == "<-"

    def read(self, name: str, given: Mapping[str, int], config: Mapping[str, object]) -> tuple[int, Reading] | None:
        """(number of the term, values) of the first left term that fits."""
        for place, pattern in self.patterns.items():
            reading = pattern.read(name, self.sizes) if pattern.may_fit(name) else None
            if reading is not None and self._within(reading, given, config):
                return place, reading
        return None

    def _within(self, reading: Reading, given: Mapping[str, int], config: Mapping[str, object]) -> bool:
        """Sizes that are bound through a capture bound the values too."""
        if self.is_settled:
            return True
        try:
            sizes = bound(self.rule, given, config, reading.axes)
        except (SizeProblem, MorphError):
            return True
        values = {**reading.ties, **reading.axes}
        names = [axis for axis in self.rule.where if axis in sizes and axis in values and axis not in self.sizes]
        return all(isinstance(value := values[axis], int) and value < sizes[axis] for axis in names)


@dataclass(slots=True)
class Instance:
    """One use of a rule. `keys[term][values of its stacked axes]` are the equal copies of one tensor."""

    reader: Reader
    values: Mapping[str, Value]
    sizes: dict[str, int] = field(default_factory=dict)
    rank: int | None = None
    readings: list[tuple[int, Reading, str]] = field(default_factory=list)
    keys: Mapping[int, Mapping[tuple[Value, ...], Sequence[str]]] = field(default_factory=dict)
    is_broken: bool | None = None

    @property
    def rule(self) -> Rule:
        return self.reader.rule

    def stacked(self, term: FlatTerm) -> tuple[str, ...]:
        """The name axes of a term that are axes of its tensor."""
        return self.reader.stacked[id(term)]

    def tied(self, term: FlatTerm) -> tuple[str, ...]:
        return self.reader.tied[id(term)]

    def names(self) -> Iterator[str]:
        for copies in self.keys.values():
            for names in copies.values():
                yield from names


def stacked(term: FlatTerm, rule: Rule) -> tuple[str, ...]:
    """The name axes of a term that are axes of its tensor."""
    if not isinstance(term.head, FullName):
        return ()
    counting = rule.counting
    return tuple(axis for axis in term.head.axes if axis not in counting)


def make_reader(rule: Rule, given: Mapping[str, int], config: Mapping[str, object]) -> Reader:
    """Raises MorphError when its `where` contradicts itself or the config lacks a key."""
    try:
        sizes = bound(rule, given, config)
    except SizeProblem as problem:
        raise MorphError([gap("size", rule, str(problem))]) from None
    patterns = {
        place: Pattern(term.head, config) for place, term in enumerate(rule.left) if isinstance(term.head, FullName)
    }
    return Reader(rule, sizes, patterns)


def take(
    readers: list[Reader],
    names: Iterable[str],
    given: Mapping[str, int],
    config: Mapping[str, object],
    gaps: list[Gap],
) -> Iterator[tuple[str, Reader, int, Reading]]:
    """(name, rule, number of its term, values) by the first rule that fits; names without one are added to `gaps`."""
    for name in names:
        try:
            found = _first(readers, name, given, config, only_along=False)
            if found is not None and found[0].against:
                found = _first(readers, name, given, config, only_along=True) or found
        except TwoCuts:
            gaps.append(gap("two-cuts", None, f"`{name}` can be cut in two ways", [name]))
            continue
        except UnknownFactor as unknown:
            axis = shown(str(unknown.args[0]))
            gaps.append(gap("size", None, f"`{name}`: `{axis}` must have a size to take its number apart", [name]))
            continue
        if found is None:
            gaps.append(gap("unmatched", None, f"`{name}` has no rule", [name]))
        else:
            found[0].taken += 1
            yield name, *found


def _first(
    readers: list[Reader], name: str, given: Mapping[str, int], config: Mapping[str, object], *, only_along: bool
) -> tuple[Reader, int, Reading] | None:
    for reader in readers:
        if only_along and reader.rule.arrow != "->":
            continue
        found = reader.read(name, given, config)
        if found is not None:
            return reader, *found
    return None


def group(taken: Iterable[tuple[str, Reader, int, Reading]], readers: Sequence[Reader]) -> list[Instance]:
    """Names with equal counting values, together; and one instance of every rule that names nothing on its left."""
    found: dict[tuple[object, ...], Instance] = {}
    order = {id(reader): place for place, reader in enumerate(readers)}
    for name, reader, place, reading in taken:
        rule = reader.rule
        if reader.against or drops_all(rule):
            continue
        values = {axis: value for axis, value in reading.axes.items() if axis in reader.counting}
        key = (order[id(reader)], *(each for item in sorted(values.items()) for each in item))
        instance = found.get(key)
        if instance is None:
            instance = found[key] = Instance(reader, _small(values))
        term = rule.left[place]
        kept = reading if instance.stacked(term) or instance.tied(term) else UNREAD
        instance.readings.append((place, kept, name))
    instances = list(found.values())
    for reader in readers:
        if not reader.patterns and not reader.against and not drops_all(reader.rule) and _supplies(reader.rule):
            instances.append(Instance(reader, {}))
    return instances


def drops_all(rule: Rule) -> bool:
    """True when the writing side is only `drop`."""
    return all(isinstance(term.head, Drop) for term in rule.right)


def _supplies(rule: Rule) -> bool:
    return any(isinstance(term.head, Constant) for term in rule.left)


def complete(
    instance: Instance, patterns: Mapping[int, Pattern], given: Mapping[str, int], config: Mapping[str, object]
) -> list[Gap]:
    """Fill `keys` and `sizes` from the names; gaps for what is missing (every tensor by name) and for words in a stack."""
    rule = instance.rule
    try:
        settled = instance.reader.is_settled
        instance.sizes = dict(instance.reader.sizes) if settled else bound(rule, given, config, instance.values)
    except SizeProblem as problem:
        return [gap("size", rule, str(problem))]
    seen: dict[str, int] = {}
    words: list[str] = []
    for place, reading, name in instance.readings:
        axes, ties = instance.stacked(rule.left[place]), instance.tied(rule.left[place])
        for axis, value in [
            *((axis, reading.axes[axis]) for axis in axes),
            *((axis, reading.ties[axis]) for axis in ties),
        ]:
            if isinstance(value, int):
                seen[axis] = max(seen.get(axis, 0), value + 1)
            else:
                words.append(name)
    if words:
        return [gap("incomplete", rule, f"a stack needs numbers, not words: {', '.join(sorted(set(words)))}", words)]
    for axis, count in seen.items():
        instance.sizes.setdefault(axis, count)
    gaps: list[Gap] = []
    keys: dict[int, Mapping[tuple[Value, ...], Sequence[str]]] = {}
    for place, pattern in patterns.items():
        gaps += _complete_term(instance, place, pattern, keys)
    instance.keys = _small(keys)
    instance.readings = []
    return gaps


def _small(mapping: dict[Key, Held]) -> Mapping[Key, Held]:
    return Single(*mapping.popitem()) if len(mapping) == 1 else mapping


def _complete_term(
    instance: Instance, place: int, pattern: Pattern, keys: dict[int, Mapping[tuple[Value, ...], Sequence[str]]]
) -> list[Gap]:
    """Put the names of a left term into `keys[place]`."""
    rule, sizes = instance.rule, instance.sizes
    term = rule.left[place]
    axes, ties = instance.stacked(term), instance.tied(term)
    unknown = [axis for axis in (*axes, *ties) if axis not in sizes]
    if unknown:
        return [
            gap("incomplete", rule, f"nothing fits `{pattern.name.text}` for this instance {_shown(instance.values)}")
        ]
    labels = {piece.axis for piece in pattern.name.pieces if isinstance(piece, LabelHole) and piece.tied}
    if prod(sizes[axis] for axis in (*axes, *ties)) > MOST_COPIES:
        return [gap("incomplete", rule, f"`{pattern.name.text}` would need more than {MOST_COPIES} tensors")]
    there = {
        (tuple(reading.axes[axis] for axis in axes), tuple(reading.ties[axis] for axis in ties)): name
        for at_place, reading, name in instance.readings
        if at_place == place
    }
    copies: dict[tuple[Value, ...], list[str]] = {}
    lacking: list[str] = []
    for at in product(*(range(sizes[axis]) for axis in axes)):
        groups: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
        for tie in product(*(range(sizes[axis]) for axis in ties)):
            indices = tuple(value for axis, value in zip(ties, tie, strict=True) if axis not in labels)
            groups.setdefault(indices, []).append(tie)
        for members in groups.values():
            present = [there[at, tie] for tie in members if (at, tie) in there]
            copies.setdefault(at, []).extend(present)
            if not present:
                named = pattern.write(
                    {**instance.values, **dict(zip(axes, at, strict=True))},
                    dict(zip(ties, members[0], strict=True)),
                    sizes,
                )
                lacking.append(named or pattern.name.text)
    keys[place] = _small({at: tuple(names) for at, names in copies.items()})
    if not lacking:
        return []
    return [
        gap(
            "incomplete",
            rule,
            f"missing: {', '.join(lacking[:20])}" + (f" and {len(lacking) - 20} more" if len(lacking) > 20 else ""),
            lacking,
        )
    ]


def _shown(values: Mapping[str, Value]) -> str:
    return "{" + ", ".join(f"{shown(axis)}={value}" for axis, value in values.items()) + "}"


def shapes_of(
    instance: Instance, specs: Mapping[str, TensorSpec | None]
) -> list[tuple[tuple[Dim, ...], tuple[int, ...], str]]:
    """(dims, shape, name) of every tensor of the instance whose shape is known."""
    found: list[tuple[tuple[Dim, ...], tuple[int, ...], str]] = []
    for place, copies in instance.keys.items():
        for names in copies.values():
            for name in names:
                spec = specs[name]
                if spec is not None:
                    found.append((instance.rule.left[place].dims, spec.shape, name))
    return found
