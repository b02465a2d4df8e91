"""Groups of keys -> instances with names: complete or not, which targets they make, what moves (LANGUAGE.md 3, 7-15)."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from isomorph.errors import Gap, MorphError
from isomorph.language.names import Unsized, Value, Values
from isomorph.language.rules import shown
from isomorph.language.tree import Op
from isomorph.plan.complete import Completion
from isomorph.plan.gaps import Told, rule_gap
from isomorph.plan.kinds import AlongOf, BoxOf, MixOf, MoveOf, Naming, Part, Settled, SourceOf, TargetOf, Unsettled
from isomorph.plan.match import Group, Matching, Slot
from isomorph.plan.moves import Along, Box, Check, Mix, Move, Source
from isomorph.plan.plan import Instance, Target
from isomorph.plan.settle import settle
from isomorph.plan.stage import NamedTerm, Stage, StageRule, located
from isomorph.tensors import Manifest, TensorSpec


@dataclass
class Made:
    """What one stage makes. `moves[name]` fills target `name`, sorted by target offset."""

    targets: dict[str, Target] = field(default_factory=dict)
    moves: dict[str, list[Move]] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    instances: list[Instance] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    unmade: list[str] = field(default_factory=list)
    written_twice: list[str] = field(default_factory=list)
    made_by: dict[str, tuple[StageRule, int, dict[str, Value]]] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)
    unbound: dict[tuple[int, str], int] = field(default_factory=dict)
    lossy_rules: set[int] = field(default_factory=set)


OfOne = tuple[TargetOf, MoveOf, BoxOf, Mapping[str, int]]
"""What makes the one target of an instance of one tensor: the target, the move, its source, the instance's sizes."""


class Maker:
    """Turns the groups of one stage into targets, moves and checks."""

    def __init__(
        self, stage: Stage, manifest: Mapping[str, TensorSpec], lost_before: frozenset[str], cast: Op | None, base: int
    ) -> None:
        self.stage = stage
        self.manifest = manifest.tensors if isinstance(manifest, Manifest) else manifest
        self.cast = cast
        self.base = base
        self._told = Told()
        self._gap = self._told.add
        self._completion = seen = Completion(stage, self.manifest, lost_before, base, self._gap)
        self.made = Made(checks=seen.checks, unmade=seen.unmade, unbound=seen.unbound)
        self._settled: dict[tuple[object, ...], Settled | Unsettled] = {}
        self._of_one: dict[tuple[int, TensorSpec], OfOne] = {}
        self._by_identity: list[dict[int, OfOne]] = [{} for _ in stage.rules]
        """The same by rule, found without hashing specs: readers give tensors of one kind one spec, and the manifest holds it."""

    def make(self, matching: Matching) -> Made:
        for group in matching.order:
            rule, held = group.rule, group.held
            if rule.makes and not (type(held) is str and self._group_of_one(rule, group.values, held)):
                self._group(group)
        for rule in self.stage.rules:
            if not rule.left and rule.makes and rule.right:
                self._group(Group(rule, {}, []))
        self.made.gaps = self._told.all()
        return self.made

    def _group_of_one(self, rule: StageRule, values: Values, source: str) -> bool:
        """Make the one target of an instance of one tensor, when an instance like it was settled before. False: make it in full.

        In a checkpoint of many tensors nearly all instances are such, and all that is new about each are its two names.
        """
        spec = self.manifest[source]
        known = self._by_identity[rule.number].get(id(spec))
        if known is None:
            known = self._of_one.get((rule.number, spec))
            if known is None:
                return False
            self._by_identity[rule.number][id(spec)] = known
        target, move, box, sizes = known
        term, made = rule.right[0], self.made
        try:
            name = term.pattern.write(values, sizes)
        except (ValueError, Unsized):
            return False
        if name in made.targets:
            return False
        number = self.base + rule.number
        made.targets[name] = Target(name, target.spec, target.klass, number, len(made.instances))
        filled = Box(name, move.target.offset, move.target.shape, move.target.strides)
        made.moves[name] = [Move(filled, Box(source, box.offset, box.shape, box.strides), move.operators)]
        made.made_by[name] = (rule, term.index, values)
        made.instances.append(Instance(number, values, sizes, (source,), (name,)))
        made.used.add(source)
        return True

    def _keep_of_one(self, rule: StageRule, spec: TensorSpec, settled: Settled) -> None:
        """Remember what makes the one target of such an instance in one move, where there is no more to it."""
        is_simple = not (rule.dynamic or rule.left[0].slots or rule.right[0].slots or settled.lossy or settled.unmade)
        if not is_simple or settled.checks or len(settled.targets) != 1 or len(settled.moves) != 1:
            return
        (target,), (move,) = settled.targets, settled.moves
        if isinstance(move.source, BoxOf):
            self._of_one[(rule.number, spec)] = target, move, move.source, settled.sizes

    # ── one instance ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _group(self, group: Group) -> None:
        rule = group.rule
        try:
            completed = self._completion.parts(group)
        except Unsized as error:
            completed = None
            axes = ", ".join(map(shown, error.axes))
            self._gap(rule, rule_gap(rule.rule, "size", f"the size of {axes} is not known", find=shown(error.axes[0])))
        if completed is None:
            return
        parts, counted = completed
        settled = self._settle(group, parts, counted)
        if settled is not None:
            if len(rule.left) == len(rule.right) == 1 and len(parts[0].specs) == 1:
                self._keep_of_one(rule, parts[0].specs[0], settled)
            self._expand(group, parts, settled)

    def _settle(self, group: Group, parts: list[Part], counted: dict[str, int]) -> Settled | None:
        rule = group.rule
        numbers = {axis: value for axis, value in group.values.items() if isinstance(value, int)}
        words = frozenset(axis for axis, value in group.values.items() if not isinstance(value, int))
        key = (
            rule.number,
            tuple((part.slots, part.specs) for part in parts),
            tuple(group.values.items()) if rule.dynamic else (),
        )
        found = self._settled.get(key)
        if found is None:
            naming = Naming(group.parts, rule.right, group.values)
            try:
                found = settle(self.stage, rule, parts, counted, numbers, words, naming, self.cast)
            except Unsettled as error:
                self._gap(rule, error.gap(rule))
                return None
            except Unsized as error:
                axes = ", ".join(map(shown, error.axes))
                self._gap(
                    rule, rule_gap(rule.rule, "size", f"the size of {axes} is not known", find=shown(error.axes[0]))
                )
                return None
            except MorphError as error:
                for gap in error.gaps:
                    self._gap(rule, located(gap, rule.rule))
                return None
            except ValueError as error:
                self._gap(rule, rule_gap(rule.rule, "size", str(error)))
                return None
            self._settled[key] = found
        assert isinstance(found, Settled)
        return found

    # ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _expand(self, group: Group, parts: list[Part], settled: Settled) -> None:
        rule, made = group.rule, self.made
        if settled.lossy:
            made.lossy_rules.add(self.base + rule.number)
        left = [[held[slot] for slot in part.slots] for held, part in zip(group.parts, parts, strict=True)]
        for part in settled.reaches:
            made.used.update(left[part])
        try:
            for part, slot in settled.unmade:
                made.unmade.append(self._name(rule.right[part], group, slot, settled))
            names: dict[tuple[int, Slot], str] = {
                (target.part, target.slot): self._name(rule.right[target.part], group, target.slot, settled)
                for target in settled.targets
            }
        except (ValueError, Unsized) as error:
            self._gap(rule, rule_gap(rule.rule, "size", str(error)))
            return
        instance = len(made.instances)
        by_number: dict[tuple[int, int], str] = {}
        numbers: dict[int, int] = {}
        fresh: list[str] = []
        for target in settled.targets:
            name = names[(target.part, target.slot)]
            number = numbers.get(target.part, 0)
            numbers[target.part] = number + 1
            by_number[(target.part, number)] = name
            if name in made.targets:
                made.written_twice.append(name)
                first = self.stage.rules[made.targets[name].rule - self.base]
                both = "" if first is rule else f" and by  {first.rule.origin.text}  (line {first.rule.origin.line})"
                self._gap(
                    rule,
                    rule_gap(
                        rule.rule,
                        "written-twice",
                        f"`{name}` is made twice: by this rule{both}",
                        hint="Narrow one of the two names, or drop one of the sources",
                        tensors=(name,),
                    ),
                )
                continue
            made.targets[name] = Target(name, target.spec, target.klass, self.base + rule.number, instance)
            made.moves[name] = []
            term = rule.right[target.part]
            values = group.values
            if term.slots:
                values = {**values, **dict(zip(term.slots, target.slot, strict=True))}
            made.made_by[name] = (rule, term.index, values)
            fresh.append(name)
        wanted = set(fresh)
        for move in settled.moves:
            name = by_number[(move.target.part, move.target.slot)]
            if name in wanted:
                made.moves[name].append(Move(_box(move.target, name), _source(move.source, left), move.operators))
        if len(settled.moves) > len(fresh):
            for name in fresh:
                made.moves[name].sort(key=lambda move: move.target.offset)
        for check in settled.checks:
            expected = _source(check.expected, left)
            made.checks.append(
                Check(check.kind, _source(check.source, left), expected, check.operators, self.base + rule.number)
            )
        made.instances.append(
            Instance(
                self.base + rule.number,
                group.values,
                settled.sizes,
                tuple(itertools.chain.from_iterable(left)),
                tuple(fresh),
            )
        )

    def _name(self, term: NamedTerm, group: Group, slot: Slot, settled: Settled) -> str:
        values: Mapping[str, Value] = group.values
        if term.slots:
            values = {**group.values, **dict(zip(term.slots, slot, strict=True))}
        return term.pattern.write(values, settled.sizes)


def _box(box: BoxOf, name: str) -> Box:
    return Box(name, box.offset, box.shape, box.strides)


def _source(source: SourceOf, left: list[list[str]]) -> Source:
    if isinstance(source, BoxOf):
        return Box(left[source.part][source.slot], source.offset, source.shape, source.strides)
    if isinstance(source, AlongOf):
        parts = tuple(Move(_box(part.target, ""), _source(part.source, left), part.operators) for part in source.parts)
        return Along(
            parts,
            source.operator,
            source.outer,
            source.before,
            source.after,
            source.offset,
            source.shape,
            source.strides,
        )
    if isinstance(source, MixOf):
        return Mix(tuple(_source(inner, left) for inner in source.sources), source.operators)
    return source


def made_manifest(made: Made, origin: str, only: Collection[str] | None = None) -> Manifest:
    """What a stage makes, as the next one reads it; `only` these of it."""
    tensors = {name: target.spec for name, target in made.targets.items() if only is None or name in only}
    return Manifest(tensors, origin=origin)
