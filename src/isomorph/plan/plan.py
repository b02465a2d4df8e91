"""Plan: the proof that a conversion is total, and everything that must be done for it. Printable, serialisable, no tensor read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from isomorph.language.rules import Program, Rule
from isomorph.plan.made_often import made_often
from isomorph.plan.moves import Check, Move
from isomorph.tensors import Manifest, TensorSpec

if TYPE_CHECKING:
    from isomorph.language.tree import Op

Class = Literal["exact", "rounding", "one-way"]
CLASSES: tuple[Class, ...] = ("exact", "rounding", "one-way")


@made_often(frozen=True, slots=True)
class Target:
    """A tensor that is made. `rule` is an index into `Plan.rules`; `instance` one into `Plan.instances`."""

    name: str
    spec: TensorSpec
    klass: Class
    rule: int
    instance: int


@made_often(frozen=True, slots=True)
class Instance:
    """One use of a rule: the values of the axes that count instances, the sizes that were solved, the tensors on both sides.

    Instances that share one `sizes` (the object) were settled as one: they are of one rule, and of the same specs on both sides.
    """

    rule: int
    values: Mapping[str, int | str | tuple[str, ...]]
    sizes: Mapping[str, int]
    sources: tuple[str, ...]
    targets: tuple[str, ...]


@made_often(frozen=True, slots=True)
class Link:
    """One use of a rule in a stage before the last: the tensors on both sides, and whether values of the first are checked."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    is_checked: bool


@dataclass(frozen=True)
class Plan:
    """What a conversion does, whole.

    `moves` are grouped by target in the order of `targets`, and sorted by target offset within each; every element of every target
    is the target of exactly one move. `dropped` are the source names nothing of which reaches a target or a constant; `unmade`
    lists the targets that cannot be made in this direction because they need a dropped block. `rules` are those of all stages,
    one after the other; the last `last_stage` of them are the last stage's, and so are `instances`: `before[k]` are those of stage
    k + 1 of a chain. `taken_by_general` maps a rule of the last stage to the keys it took. `programs`, `config`, `sizes` and `cast`
    are what the plan was made from.
    """

    source: Manifest
    targets: Mapping[str, Target]
    moves: tuple[Move, ...]
    checks: tuple[Check, ...]
    rules: tuple[Rule, ...]
    instances: tuple[Instance, ...]
    dropped: tuple[str, ...] = ()
    unmade: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    lossy: tuple[str, ...] = ()
    idle_later: tuple[str, ...] = ()
    last_stage: int = 0
    taken_by_general: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    before: tuple[tuple[Link, ...], ...] = ()
    programs: tuple[Program, ...] = ()
    config: Mapping[str, object] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    cast: Op | None = None

    @property
    def manifest(self) -> Manifest:
        """The specs of the targets, as a Manifest."""
        return Manifest({name: target.spec for name, target in self.targets.items()}, origin="plan")

    @cached_property
    def starts(self) -> list[int]:
        """`moves[starts[k] : starts[k + 1]]` fill the k-th of `targets`."""
        moves, at, starts = self.moves, 0, [0]
        for name in self.targets:
            while at < len(moves) and moves[at].target.tensor == name:
                at += 1
            starts.append(at)
        return starts

    @property
    def inverse(self) -> Plan:
        """The plan that reads the targets back. Raises MorphError when the way back needs more than the targets tell."""
        from isomorph.plan.prove import make_plan

        turned = [program.inverse for program in reversed(self.programs)]
        return make_plan(turned, self.manifest, config=self.config, sizes=self.sizes)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of all that is done: source specs, targets, moves, checks. Equal plans have equal digests."""
        from isomorph.plan.texts import check_text, move_text, spec_texts

        found = hashlib.sha256()
        texts = spec_texts(self.source.values())
        texts.update(spec_texts(target.spec for target in self.targets.values()))
        for part in (
            (f"S{name}\0{texts[id(spec)]}\n" for name, spec in self.source.items()),
            (f"T{name}\0{texts[id(target.spec)]}\0{target.klass}\n" for name, target in self.targets.items()),
            map(move_text, self.moves),
            map(check_text, self.checks),
        ):
            while lines := "".join(islice(part, 4096)):
                found.update(lines.encode("utf-8", "surrogatepass"))
        return found.hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The whole plan as plain data (serial.py)."""
        from isomorph.plan.serial import to_json

        return to_json(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Plan:
        """The plan again, proved again. Raises UsageError when the data is not the plan it says it is."""
        from isomorph.plan.serial import from_json

        return from_json(data)

    def __str__(self) -> str:
        from isomorph.plan.explain import explain

        return explain(self)
