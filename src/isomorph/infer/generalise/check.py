"""Does a morph say exactly what the relations say? The ordinary plan answers, on the very manifests, in both directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from isomorph.errors import MorphError
from isomorph.infer.nouns import Relation
from isomorph.language.morph import Morph
from isomorph.language.tree import Module
from isomorph.plan.moves import Move
from isomorph.plan.plan import Plan
from isomorph.plan.prove import make_plan
from isomorph.tensors import Manifest

Moves = Mapping[str, tuple[Move, ...]]


@dataclass(frozen=True)
class Given:
    """What is proved against: the relations by number, the two manifests of their tensors, and the config."""

    relations: Mapping[int, Relation]
    source: Manifest
    target: Manifest
    config: Mapping[str, object] | None = None
    back: Manifest | None = None
    """What is read on the way back: the target's tensors, those that nothing makes too."""


def plan_of(module: Module, given: Given) -> Plan:
    """The plan of a module; raises MorphError."""
    return make_plan(Morph.of(module).programs(given.config), given.source, config=given.config, like=given.target)


def moves_of(plan: Plan) -> Moves:
    """The moves of each target."""
    found: dict[str, list[Move]] = {}
    for move in plan.moves:
        found.setdefault(move.target.tensor, []).append(move)
    return {name: tuple(moves) for name, moves in found.items()}


def wrong(module: Module, given: Given, expected: Moves | None) -> frozenset[int] | None:
    """The numbers of the relations that the module does not say as they are; None when it says them all, and reads back.

    An empty set: something is wrong that no relation can be blamed for.
    """
    of: dict[str, int] = {}
    for number, relation in given.relations.items():
        for name in (*(f"<{one}" for one in relation.sources), *(f">{one}" for one in relation.targets)):
            of[name] = number
    try:
        plan = plan_of(module, given)
    except MorphError as refused:
        return _blamed(refused, of)
    bad = {
        number
        for instance in plan.instances
        for number in [of.get(f">{name}", -1) for name in instance.targets[:1]]
        if number < 0 or not _is(given.relations[number], instance.sources, instance.targets)
    }
    if expected is not None:
        made = moves_of(plan)
        bad |= {of[f">{name}"] for name, moves in expected.items() if made.get(name) != moves and f">{name}" in of}
    if bad:
        return frozenset(bad - {-1})
    if any(relation.one_way for relation in given.relations.values()) or plan.unmade:
        return None
    try:
        turned = [program.inverse for program in reversed(plan.programs)]
        make_plan(turned, given.back or plan.manifest, config=given.config)
    except MorphError as refused:
        return _blamed(refused, of)
    return None


def _is(relation: Relation, sources: Sequence[str], targets: Sequence[str]) -> bool:
    return set(relation.sources) == set(sources) and set(relation.targets) == set(targets)


def _blamed(refused: MorphError, of: Mapping[str, int]) -> frozenset[int]:
    return frozenset(
        of[key] for gap in refused.gaps for name in gap.tensors for key in (f"<{name}", f">{name}") if key in of
    )
