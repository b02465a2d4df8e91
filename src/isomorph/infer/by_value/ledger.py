"""What is known while matching: both sides with their fingerprints, and the account of what has gone where."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from isomorph.formats.base import Checkpoint
from isomorph.infer.by_value.copies import is_silent, look
from isomorph.infer.by_value.fingerprint import Print
from isomorph.infer.by_value.siblings import stem
from isomorph.infer.nouns import Relation
from isomorph.language.tree import Op
from isomorph.tensors import DType

MOST_IN_MODULE = 64
"""Relations that are kept for one module: a list of thousands of tensors is none."""


@dataclass(frozen=True)
class Scene:
    """Two checkpoints and their fingerprints."""

    source: Checkpoint
    target: Checkpoint
    sources: Mapping[str, Print]
    targets: Mapping[str, Print]
    max_memory: int

    def operators(self, sources: Iterable[str], targets: Iterable[str]) -> tuple[Op, ...]:
        """The cast between these tensors, if their dtypes differ; rounding, where an element of one of them changes."""
        have = dict.fromkeys(self.sources[name].dtype for name in sources)
        want = self.targets[next(iter(targets))].dtype
        if list(have) == [want]:
            return ()
        looks = [look(self.sources[name], want) for name in sources]
        return (
            Op(
                "cast",
                source=next(iter(have)).name if len(have) == 1 else "float",
                target=want.name,
                rounding=not all(one.exact for one in looks),
                saturate=any(one.saturated for one in looks),
            ),
        )


@dataclass
class Ledger:
    """Relations found so far, and whose elements they account for. The one thing that changes while matching."""

    scene: Scene
    relations: list[Relation] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    placed: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    by_stem: dict[str, list[Relation]] = field(default_factory=dict)
    """Relations by the module of their first target."""

    def add(self, relation: Relation) -> None:
        """Book a relation."""
        self.relations.append(relation)
        self.used.update(relation.sources)
        self.placed.update(relation.targets)
        if relation.sources and relation.targets:
            known = self.by_stem.setdefault(stem(relation.targets[0]), [])
            if len(known) < MOST_IN_MODULE:
                known.append(relation)

    def is_free(self, sources: Iterable[str], targets: Iterable[str]) -> bool:
        """True when none of these is in a relation yet."""
        return self.used.isdisjoint(sources) and self.placed.isdisjoint(targets)

    def sources(self, *, silent: bool = False) -> list[str]:
        """Sources that went nowhere yet; constant ones only when asked for."""
        prints = self.scene.sources
        return [name for name in prints if name not in self.used and (silent or not is_silent(prints[name]))]

    def targets(self, *, silent: bool = False) -> list[str]:
        """Targets that nothing makes yet; constant ones only when asked for."""
        prints = self.scene.targets
        return [name for name in prints if name not in self.placed and (silent or not is_silent(prints[name]))]

    def dtypes(self) -> list[DType]:
        """The dtypes of the targets that nothing makes yet."""
        return list(dict.fromkeys(self.scene.targets[name].dtype for name in self.targets()))


def in_order(names: Sequence[str], prints: Mapping[str, Print]) -> tuple[str, ...]:
    """Names in the order of their checkpoint."""
    wanted = set(names)
    return tuple(name for name in prints if name in wanted) if len(wanted) > 64 else tuple(names)
