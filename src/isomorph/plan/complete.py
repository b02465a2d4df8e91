"""Whether an instance is whole: every part is there, as many as its sizes say, and equal copies are alike (LANGUAGE.md 7-15)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping

from isomorph.errors import Gap, MorphError
from isomorph.language.resolve import variables_of
from isomorph.language.rules import LabelHole, shown
from isomorph.plan.gaps import listed, rule_gap
from isomorph.plan.instance_sizes import index_tuples
from isomorph.plan.kinds import Part
from isomorph.plan.match import Group, Slot, values_shown
from isomorph.plan.moves import Box, Check
from isomorph.plan.stage import NamedTerm, Stage, StageRule, where_value
from isomorph.tensors import TensorSpec

MOST_MISSING = 100_000
"""So many missing tensors of one instance are counted out; an index of a hostile name asks for more than there can be."""
MOST_MISSING_SHOWN = 64


class Completion:
    """Looks at the instances of one stage. What it finds: `unmade`, `unbound`, `checks`; gaps go to `gap`."""

    def __init__(
        self,
        stage: Stage,
        manifest: Mapping[str, TensorSpec],
        lost_before: frozenset[str],
        base: int,
        gap: Callable[[StageRule, Gap], None],
    ) -> None:
        self.stage, self.manifest, self.lost_before, self.base, self._gap = stage, manifest, lost_before, base, gap
        self.unmade: list[str] = []
        """Tensors that are missing because an earlier stage lost them."""
        self.unbound: dict[tuple[int, str], int] = {}
        """(rule, axis) -> how many were seen of an axis without a bound size."""
        self.checks: list[Check] = []

    def parts(self, group: Group) -> tuple[list[Part], dict[str, int]] | None:
        """The parts of an instance with their specs, and what the names count; None (and a gap) when a part is missing."""
        rule = group.rule
        if len(rule.left) == 1 and not rule.left[0].slots:
            (name,) = group.parts[0].values()
            return [Part(((),), (self.manifest[name],), {(): 0})], {}
        counted = self._count(group)
        if counted is None:
            return None
        lacking = sum(self._lacking(group, part, term, counted) for part, term in enumerate(rule.left))
        if lacking:
            every = (name for part, term in enumerate(rule.left) for name in self._missing(group, part, term, counted))
            missing = list(itertools.islice(every, MOST_MISSING))
            if len(missing) == lacking and all(name in self.lost_before for name in missing):
                self.unmade.extend(missing)
                return None
            values = ", ".join(values_shown(group.values))
            self._gap(
                rule,
                rule_gap(
                    rule.rule,
                    "incomplete",
                    f"missing {listed([f'`{name}`' for name in missing], MOST_MISSING_SHOWN, lacking)}",
                    details=(f"in the instance {values}",) if values else (),
                    hint="Every part of an instance must be there: fetch what is missing, or bind the size that counts them",
                    tensors=tuple(missing),
                ),
            )
            return None
        parts = []
        for held, term in zip(group.parts, rule.left, strict=True):
            slots = tuple(sorted(held))  # all numbers by now
            specs = tuple(self.manifest[held[slot]] for slot in slots)
            first: dict[Slot, int] = {}
            for number, slot in enumerate(slots):
                first.setdefault(slot[: len(term.stacked)], number)
            if term.ties and not self._check_ties(rule, term, held, slots, first):
                return None
            parts.append(Part(slots, specs, first))
        return parts, {axis: count for axis, count in counted.items() if axis not in rule.known}

    def _count(self, group: Group) -> dict[str, int] | None:
        """The size of every stacked axis and tie: bound, or the largest index seen and one. None (and a gap) for a word."""
        rule = group.rule
        counted: dict[str, int] = {}
        for held, term in zip(group.parts, rule.left, strict=True):
            for position, axis in enumerate(term.slots):
                values = {slot[position] for slot in held}
                words = [value for value in values if not isinstance(value, int)]
                if words:
                    names = sorted(name for slot, name in held.items() if slot[position] in words)
                    self._gap(
                        rule,
                        rule_gap(
                            rule.rule,
                            "incomplete",
                            f"{shown(axis)} counts 0, 1, 2, … but {listed([f'`{name}`' for name in names])} has a word there",
                            find=shown(axis),
                            hint="Let an axis count instances by writing it on both sides, or narrow the name",
                            tensors=tuple(names),
                        ),
                    )
                    return None
                seen = max((value for value in values if isinstance(value, int)), default=-1) + 1
                counted[axis] = max(counted.get(axis, 0), seen)
        for axis in counted:
            size = rule.known.get(axis)
            if size is None:
                if axis not in rule.dynamic:
                    key = (rule.number, axis)
                    self.unbound[key] = max(self.unbound.get(key, 0), counted[axis])
                counted[axis] = self._bound_later(group, axis, counted[axis])
            else:
                counted[axis] = size
        return counted

    def _bound_later(self, group: Group, axis: str, seen: int) -> int:
        """The size of an axis whose `where` needs captures, when this instance gives them all; else what was seen."""
        expressions = group.rule.dynamic.get(axis)
        if expressions is None:
            return seen
        numbers = {**group.rule.known, **{key: value for key, value in group.values.items() if isinstance(value, int)}}
        if not {name for expression in expressions for name in variables_of(expression)} <= numbers.keys():
            return seen
        try:
            return where_value(group.rule.rule, axis, expressions, numbers, self.stage.config)
        except MorphError:
            return seen  # told when the instance is settled

    def _there(self, group: Group, part: int, term: NamedTerm) -> tuple[list[str], set[str], set[Slot]]:
        """(axes whose every value must be there, label ties, the values that are)."""
        label_ties = {piece.axis for piece in term.pattern.pieces if isinstance(piece, LabelHole) and piece.tied}
        strict = [axis for axis in term.slots if axis not in label_ties]
        have = {
            tuple(slot[position] for position, axis in enumerate(term.slots) if axis in strict)
            for slot in group.parts[part]
        }
        return strict, label_ties, have

    def _lacking(self, group: Group, part: int, term: NamedTerm, counted: Mapping[str, int]) -> int:
        strict, _, have = self._there(group, part, term)
        return math.prod(max(1, counted.get(axis, 1)) for axis in strict) - len(have)

    def _missing(self, group: Group, part: int, term: NamedTerm, counted: Mapping[str, int]) -> Iterator[str]:
        strict, label_ties, have = self._there(group, part, term)
        for wanted in index_tuples([max(1, counted.get(axis, 1)) for axis in strict]):
            if wanted not in have:
                values = {**group.values, **dict.fromkeys(label_ties, 0), **dict(zip(strict, wanted, strict=True))}
                try:
                    yield term.pattern.write(values, counted)
                except ValueError:  # a number that no name can hold: it is missing all the same
                    at = ", ".join(f"{shown(axis)}={value}" for axis, value in zip(strict, wanted, strict=True))
                    yield f"{term.pattern.text} for {at}"

    def _check_ties(
        self,
        rule: StageRule,
        term: NamedTerm,
        held: Mapping[Slot, str],
        slots: tuple[Slot, ...],
        first: Mapping[Slot, int],
    ) -> bool:
        good = True
        for slot in slots:
            original, copy = held[slots[first[slot[: len(term.stacked)]]]], held[slot]
            if original == copy:
                continue
            one, other = self.manifest[original], self.manifest[copy]
            if one != other:
                good = False
                self._gap(
                    rule,
                    rule_gap(
                        rule.rule,
                        "tie",
                        f"`{original}` {one.shown} and `{copy}` {other.shown} are written as equal copies, but are not alike",
                        hint="Give them rules of their own, or drop one:  drop " + copy,
                        tensors=(original, copy),
                    ),
                )
                continue
            shape, strides = (one.numel,), (1,)
            self.checks.append(
                Check(
                    "tie", Box(original, 0, shape, strides), Box(copy, 0, shape, strides), rule=self.base + rule.number
                )
            )
        return good
