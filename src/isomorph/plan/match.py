"""Which rule takes which key, and which keys make one instance (LANGUAGE.md 3, statements 6, 18, 22)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import merge

from isomorph.errors import Gap, MorphError
from isomorph.language.names import TwoCuts, Unsized, Value, Values
from isomorph.language.rules import shown
from isomorph.plan.gaps import rule_gap
from isomorph.plan.stage import NamedTerm, Stage, StageRule, where_value

MOST_GAPS = 12
"""So many names that a rule can read in two ways are told; the rest are counted."""
Slot = tuple[Value, ...]
"""The values of a term's stacked axes and ties: which tensor of the term."""


@dataclass(slots=True)
class Group:
    """One instance of a rule on the reading side: keys with equal values of the counting axes.

    `held[k]` maps the slots of the k-th named term to the key that fills it; or `held` is the one key of a rule of which each
    instance has one (`StageRule.takes_one`), as nearly all are in a checkpoint of many tensors.
    """

    rule: StageRule
    values: Values
    held: list[dict[Slot, str]] | str

    @property
    def parts(self) -> list[dict[Slot, str]]:
        """`held` by part and slot, whatever the rule."""
        return [{(): self.held}] if isinstance(self.held, str) else self.held


Taken = tuple[StageRule, int, Values]
"""What took a key: the rule, the number of its named term, the values that it read."""


@dataclass
class Matching:
    """All keys of one side, placed. `groups` by rule, in the order in which their first key came."""

    groups: dict[int, list[Group]] = field(default_factory=dict)
    order: list[Group] = field(default_factory=list)
    """All groups, in the order in which their first key came."""
    unmatched: list[str] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    unread: set[int] = field(default_factory=set)
    """Rules that met a name which they could not read (two cuts, an unsized index): said of the name, not of the rule again."""


class Matcher:
    """Finds the rule that takes a key. Patterns are tried top to bottom; literals and fixed beginnings are looked up first."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.terms: list[tuple[StageRule, int, NamedTerm]] = [
            (rule, part, term) for rule in stage.rules for part, term in enumerate(rule.left)
        ]
        self._plain: dict[str, list[int]] = {}
        self._open: list[int] = []
        for number, (_, _, term) in enumerate(self.terms):
            if term.pattern.is_literal:
                self._plain.setdefault(term.pattern.literal, []).append(number)
            else:
                self._open.append(number)
        self._by_piece: dict[str, list[int]] = {}

    def _candidates(self, name: str) -> Iterable[int]:
        """The terms that can read this name, in order: those that are its very text, and those whose fixed beginning begins it."""
        head = name[: name.find(".") + 1] or name[: name.find("/") + 1] or name[:1]
        found = self._by_piece.get(head)
        if found is None:
            prefixes = ((number, self.terms[number][2].pattern.prefix) for number in self._open)
            found = [number for number, prefix in prefixes if head.startswith(prefix) or prefix.startswith(head)]
            self._by_piece[head] = found
        plain = self._plain.get(name)
        return found if plain is None else merge(plain, found)

    def take(self, name: str) -> Taken | None:
        """The rule, term and values that take this key (statement 18). Raises TwoCuts, Unsized, MorphError."""
        against: Taken | None = None
        for number in self._candidates(name):
            rule, part, term = self.terms[number]
            pattern = term.pattern
            if not name.endswith(pattern.suffix) or (against is not None and not rule.is_along):
                continue
            values = pattern.read(name)
            if values is None or (rule.dynamic and not _fits_dynamic(self.stage, rule, term, values)):
                continue
            if not rule.is_against:
                return rule, part, values
            against = against or (rule, part, values)
        return against


def _fits_dynamic(stage: Stage, rule: StageRule, term: NamedTerm, values: Values) -> bool:
    """An axis whose bound size needs captures: when this name gives them all, a word or an index beyond the size does not fit."""
    numbers = {axis: value for axis, value in values.items() if isinstance(value, int)}
    for axis, expressions in rule.dynamic.items():
        if axis not in values:
            continue
        value = values[axis]
        if not isinstance(value, int):
            return False
        try:
            size = where_value(rule.rule, axis, expressions, {**rule.known, **numbers}, stage.config)
        except MorphError:
            continue  # it needs more than this name gives; the instance's sizes will say
        if value >= size:
            return False
    return True


def match_names(stage: Stage, names: Iterable[str]) -> Matching:
    """Give every key to its rule, and gather instances. Keys that cannot be read are gaps, keys without a rule are `unmatched`."""
    matching = Matching()
    matcher = Matcher(stage)
    index: dict[tuple[int, tuple[Value, ...]], list[dict[Slot, str]]] = {}
    unsized: set[int] = set()
    cuts: dict[int, int] = {}
    for name in names:
        try:
            taken = matcher.take(name)
        except TwoCuts as error:
            cutter = _cutter(stage, error)
            matching.unread.add(cutter.number)
            cuts[cutter.number] = cuts.get(cutter.number, 0) + 1
            if cuts[cutter.number] <= MOST_GAPS:
                matching.gaps.append(_two_cuts(cutter, name, error))
            continue
        except Unsized as error:
            rule = _culprit(stage, name)
            matching.unread.add(rule.number)
            if rule.number not in unsized:
                unsized.add(rule.number)
                matching.gaps.append(_unsized(rule, name, error))
            continue
        if taken is None:
            matching.unmatched.append(name)
            continue
        rule, part, values = taken
        if rule.takes_one:  # no other key has these values
            _add(matching, Group(rule, {axis: values[axis] for axis in rule.counting}, name))
            continue
        counted = tuple([values[axis] for axis in rule.counting])
        key = (rule.number, counted) if rule.makes else (rule.number, (name,))
        parts = index.get(key)
        if parts is None:
            parts = index[key] = [{} for _ in rule.left]
            _add(matching, Group(rule, dict(zip(rule.counting, counted, strict=True)), parts))
        slots = rule.left[part].slots
        parts[part][tuple([values[axis] for axis in slots]) if slots else ()] = name
    for number, count in cuts.items():
        if count > MOST_GAPS:
            more = f"{count - MOST_GAPS} more names can be read in two ways by this rule"
            matching.gaps.append(rule_gap(stage.rules[number].rule, "two-cuts", more))
    return matching


def _add(matching: Matching, group: Group) -> None:
    matching.order.append(group)
    matching.groups.setdefault(group.rule.number, []).append(group)


def _culprit(stage: Stage, name: str) -> StageRule:
    for rule in stage.rules:
        for term in rule.left:
            try:
                if term.pattern.read(name) is not None:
                    break
            except Unsized:
                return rule
            except TwoCuts:
                continue
    raise AssertionError("an unsized index was met, so some rule has it")


def _unsized(rule: StageRule, name: str, error: Unsized) -> Gap:
    axes = ", ".join(shown(axis) for axis in error.axes)
    return rule_gap(
        rule.rule,
        "size",
        f"the number in `{name}` stands for several axes, and the size of {axes} is not known",
        find=shown(error.axes[0]),
        hint=f"Give it: --set {shown(error.axes[0])}=N, or  where {shown(error.axes[0])}=…",
        tensors=(name,),
    )


def _cutter(stage: Stage, error: TwoCuts) -> StageRule:
    return next(
        rule for rule in stage.rules if any(term.pattern.text == error.pattern for term in (*rule.left, *rule.right))
    )


def _two_cuts(rule: StageRule, name: str, error: TwoCuts) -> Gap:
    one, other = (" · ".join(f"`{text}`" for text in cut) for cut in error.cuts)
    return rule_gap(
        rule.rule,
        "two-cuts",
        f"`{name}` can be read in two ways by {error.pattern}",
        details=(f"holes as {one}", f"or as    {other}"),
        hint="Put a `.` or other fixed text between the holes, or write labels out: {t=weight|bias}",
        tensors=(name,),
    )


def values_shown(values: Mapping[str, Value]) -> Iterator[str]:
    for axis, value in values.items():
        if not axis.startswith("*"):
            yield f"{shown(axis)}={'.'.join(value) if isinstance(value, tuple) else value}"
