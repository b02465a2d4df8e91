"""Readings of the catalogue -> relations where all of them agree, questions where they do not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from isomorph.infer.by_name.catalogue import Reading
from isomorph.infer.by_name.readings import Ties
from isomorph.infer.factor.relation import groups, relation
from isomorph.infer.nouns import Alternative, Evidence, Part, Question, Relation, Side
from isomorph.plan.moves import names_of
from isomorph.tensors import Manifest

_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Told:
    """What the catalogue says: relations, questions, and in words what it took each side for."""

    relations: tuple[Relation, ...] = ()
    questions: tuple[Question, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def targets(self) -> frozenset[str]:
        """The targets that it speaks of."""
        return frozenset(
            [name for each in self.relations for name in each.targets]
            + [name for each in self.questions for name in each.targets]
        )


def agreed(readings: Sequence[Reading], source: Manifest, target: Manifest, wanted: Iterable[str]) -> Told:
    """What all readings say of the `wanted` targets is certain; where they differ it is asked, with what each of them says.

    A target whose moves are no relation is left out, for other evidence.
    """
    if not readings:
        return Told()
    asked_for = frozenset(wanted)
    first = readings[0]
    linked = _linked(readings, asked_for)
    certain: list[Relation] = []
    parted: dict[tuple[int, ...], list[tuple[str, ...]]] = {}
    for names in linked:
        kinds = _kinds(readings, names)
        if len(set(kinds)) == 1:
            found = _relations(first, names, source, target, note=first.title)
            certain.extend(found or ())
        else:
            parted.setdefault(kinds, []).append(names)
    questions: list[Question] = []
    for kinds, many in parted.items():
        questions.extend(_questions(readings, kinds, many, source, target))
    titles = list(dict.fromkeys(reading.title for reading in readings))
    return Told(tuple(certain), tuple(questions), (f"by the catalogue: {' or '.join(titles)}",))


def _linked(readings: Sequence[Reading], wanted: frozenset[str]) -> list[tuple[str, ...]]:
    """The targets in groups that share a source in any reading; a group that holds one that is not wanted is left out."""
    parent: dict[str, str] = {}

    def find(name: str) -> str:
        while (above := parent.get(name, name)) != name:
            parent[name] = parent.get(above, above)
            name = above
        return name

    for reading in readings:
        for target, moves in reading.moves.items():
            for move in moves:
                for name in names_of(move.source):
                    parent[find("s" + name)] = find("t" + target)
    found: dict[str, dict[str, None]] = {}
    for reading in readings:
        for target in reading.moves:
            found.setdefault(find("t" + target), {})[target] = None
    return [tuple(names) for names in found.values() if wanted.issuperset(names)]


def _kinds(readings: Sequence[Reading], names: Sequence[str]) -> tuple[int, ...]:
    """For each reading the number of the first one that says the same of these targets. A reading that does not make all of them
    has nothing to say, and goes with the first that does."""
    speaks = [all(name in reading.moves for name in names) for reading in readings]
    kinds: list[int] = []
    for number, reading in enumerate(readings):
        if not speaks[number]:
            kinds.append(speaks.index(True) if True in speaks else 0)
            continue
        same = (
            other
            for other in range(number)
            if speaks[other] and all(reading.says(name, readings[other]) for name in names)
        )
        kinds.append(next(same, number))
    return tuple(kinds)


def _relations(
    reading: Reading,
    names: Sequence[str],
    source: Manifest,
    target: Manifest,
    note: str,
    evidence: Evidence = "catalogue",
) -> tuple[Relation, ...] | None:
    moves = [move for name in names for move in reading.moves.get(name, ())]
    found = []
    for group in groups(moves):
        read = {name: source[name] for move in group for name in names_of(move.source)}
        made = {move.target.tensor: target[move.target.tensor] for move in group}
        one = relation(group, read, made, evidence=evidence, note=note)
        if one is None:
            return None
        found.append(with_copies(one, reading.ties))
    return tuple(found)


def with_copies(found: Relation, ties: Ties) -> Relation:
    """The relation with the equal copies of its sources, where all of a part's tensors have as many."""
    left: list[object] = []
    for part in found.left:
        if isinstance(part, Part) and not part.copies:
            copies = [ties.copies(name) for name in part.names]
            taken = set(found.sources)
            if (
                copies[0]
                and len({len(each) for each in copies}) == 1
                and not taken & {n for each in copies for n in each}
            ):
                part = replace(part, copies=tuple(zip(*copies, strict=True)))
        left.append(part)
    side: Side = tuple(left)  # type: ignore[arg-type]  # the parts of a side, one by one
    return replace(found, left=side)


def _questions(
    readings: Sequence[Reading],
    kinds: tuple[int, ...],
    many: Sequence[tuple[str, ...]],
    source: Manifest,
    target: Manifest,
) -> Iterable[Question]:
    names = [name for group in many for name in group]
    alternatives = []
    for kind in dict.fromkeys(kinds):
        found = _relations(readings[kind], names, source, target, note=readings[kind].title)
        if found is None:
            return
        alternatives.append(Alternative(found, _words(readings[kind])))
    templates = list(dict.fromkeys(_NUMBER.sub("{}", name) for name in names))
    sources = {frozenset(one.relations and [n for each in one.relations for n in each.sources]) for one in alternatives}
    assumes = any(readings[kind].assumed for kind in kinds)
    kind_of: str = "source" if len(sources) > 1 else ("size" if assumes else "order")
    text = f"the names fit several layouts, which read {_several(templates)} differently"
    if len(alternatives) > 1:
        yield Question(f"{templates[0]} catalogue", kind_of, text, tuple(alternatives))  # type: ignore[arg-type]


def _words(reading: Reading) -> str:
    assumed = ", ".join(f"{axis} {size}" for axis, size in reading.assumed)
    return f"{reading.title}{', with ' + assumed if assumed else ''}"


def _several(templates: Sequence[str]) -> str:
    shown = ", ".join(templates[:2])
    return shown if len(templates) <= 2 else f"{shown} and {len(templates) - 2} more"
