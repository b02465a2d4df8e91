"""One kind of instance: its parts, and what settling it gives. Slots stand for tensors; no names but in messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from isomorph.errors import Gap
from isomorph.language.names import Value
from isomorph.language.tree import Op
from isomorph.plan.gaps import rule_gap
from isomorph.plan.match import Slot
from isomorph.plan.moves import Fill
from isomorph.plan.plan import Class
from isomorph.plan.stage import NamedTerm, StageRule
from isomorph.tensors import TensorSpec


@dataclass(slots=True)
class Part:
    """The keys of one named term in an instance: slot -> spec, slots in order; `first` finds the first copy of a stacked slot."""

    slots: tuple[Slot, ...]
    specs: tuple[TensorSpec, ...]
    first: dict[Slot, int]


@dataclass(slots=True)
class BoxOf:
    """A box of a slot: `part` numbers the named term, `slot` its slot."""

    part: int
    slot: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(slots=True)
class MixOf:
    sources: tuple[SourceOf, ...]
    operators: tuple[Op, ...]


@dataclass(slots=True)
class AlongOf:
    parts: tuple[MoveOf, ...]
    operator: Op
    outer: int
    before: tuple[int, ...]
    after: tuple[int, ...]
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


SourceOf = BoxOf | Fill | MixOf | AlongOf


@dataclass(slots=True)
class MoveOf:
    target: BoxOf
    source: SourceOf
    operators: tuple[Op, ...]


@dataclass(slots=True)
class CheckOf:
    kind: str
    source: SourceOf
    expected: BoxOf | Fill
    operators: tuple[Op, ...] = ()


@dataclass(slots=True)
class TargetOf:
    part: int
    slot: Slot
    spec: TensorSpec
    klass: Class


@dataclass(slots=True)
class Settled:
    """What one kind of instance does. `reaches[part]`: some element of that left term reaches a target or a constant."""

    sizes: Mapping[str, int]
    targets: list[TargetOf] = field(default_factory=list)
    moves: list[MoveOf] = field(default_factory=list)
    checks: list[CheckOf] = field(default_factory=list)
    reaches: set[int] = field(default_factory=set)
    unmade: list[tuple[int, Slot]] = field(default_factory=list)
    """Tensors that a dropped block is missing from; the first one where not even their number is known."""
    lossy: bool = False


class Unsettled(Exception):
    """What stands in the way, in words that name the tensors; `axis` is where the caret goes."""

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        find: str | None = None,
        details: Sequence[str] = (),
        hint: str | None = None,
        tensors: Sequence[str] = (),
    ) -> None:
        self.kind, self.message, self.find = kind, message, find
        self.details, self.hint, self.tensors = tuple(details), hint, tuple(tensors)
        super().__init__(message)

    def gap(self, rule: StageRule) -> Gap:
        return rule_gap(
            rule.rule,
            self.kind,
            self.message,
            find=self.find,
            details=self.details,
            hint=self.hint,
            tensors=self.tensors,
        )


class Naming:
    """Names for messages: which tensor a slot is. The first instance of a kind lends its names."""

    def __init__(
        self, left: Sequence[Mapping[Slot, str]], right: Sequence[NamedTerm], values: Mapping[str, Value]
    ) -> None:
        self.left, self.right, self.values = left, right, values

    def source(self, part: int, slot: Slot) -> str:
        return self.left[part][slot]

    def target(self, part: int, slot: Slot, sizes: Mapping[str, int]) -> str:
        term = self.right[part]
        return term.pattern.write({**self.values, **dict(zip(term.slots, slot, strict=True))}, sizes)
