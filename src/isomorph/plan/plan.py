"""Plan: the proof that a conversion is total, and everything that must be done for it. Printable, serialisable, no tensor read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from isomorph.language.rules import Rule
from isomorph.plan.moves import Check, Move
from isomorph.tensors import Manifest, TensorSpec

Class = Literal["exact", "rounding", "one-way"]
CLASSES: tuple[Class, ...] = ("exact", "rounding", "one-way")


@dataclass(frozen=True, slots=True)
class Target:
    """A tensor that is made. `rule` is an index into `Plan.rules` (of the last stage); `instance` one into `Plan.instances`."""

    name: str
    spec: TensorSpec
    klass: Class
    rule: int
    instance: int


@dataclass(frozen=True, slots=True)
class Instance:
    """One use of a rule: the values of the axes that count instances, the sizes that were solved, the tensors on both sides."""

    rule: int
    values: Mapping[str, str]
    sizes: Mapping[str, int]
    sources: tuple[str, ...]
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What a conversion does, whole.

    `moves` are grouped by target in the order of `targets`, and sorted by target offset within each; every element of every target
    is the target of exactly one move. `dropped` are the source names nothing of which reaches a target or a constant.
    `unmade` lists targets of `<->` rules that cannot be made in this direction (they need a dropped block), with the reason.
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
    taken_by_general: Mapping[int, tuple[str, ...]] = field(default_factory=dict)

    @property
    def manifest(self) -> Manifest:
        """The specs of the targets, as a Manifest."""
        return Manifest({name: target.spec for name, target in self.targets.items()}, origin="plan")
