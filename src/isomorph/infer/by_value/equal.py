"""Places targets that hold the very elements of a source: copies, transposed or not, ties; equal tensors that names tell apart.

                  one source            several
one target        a copy                a tie: the sources are equal, and it is checked when they are read
several           a tie                 a tie, where their names differ in more than numbers (embedding and head);
                                        silent, where they are siblings: equal layers are no tie, and values do not tell them apart
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from isomorph.infer.by_value.copies import Cluster, clusters, layouts, look, permutations
from isomorph.infer.by_value.forms import Permutation, permuted, with_copies
from isomorph.infer.by_value.laying import Laying
from isomorph.infer.by_value.ledger import Ledger, Scene
from isomorph.infer.by_value.templates import named
from isomorph.infer.nouns import Relation, Silent

MOST_TIED = 8
"""More equal tensors than this on both sides are no tie that anybody meant."""
MOST_CANDIDATES = 64


@dataclass(frozen=True)
class _Copy:
    """Equal sources of one layout, equal targets of one layout, and the orders of axes that lead from one to the other."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    orders: tuple[Permutation, ...]

    @property
    def classes(self) -> tuple[str, str]:
        return named(self.sources[0]).template, named(self.targets[0]).template


def place_equal(ledger: Ledger, laying: Laying) -> list[Silent]:
    """Book the copies and ties; give back what names must place."""
    scene = ledger.scene
    found: list[_Copy] = []
    doubtful: list[Cluster] = []
    for one in clusters(scene.sources, scene.targets, of=ledger.sources(), wanted=ledger.targets()):
        copies = _copies(scene, one)
        if copies is None:
            doubtful.append(one)
        else:
            found.extend(copies)
    votes = _votes([*found, *(each for one in doubtful for each in _every(scene, one))])
    # what is plain first, and weights before the biases that lie as they do
    found.sort(key=lambda copy: (not copy.orders, -sum(size != 1 for size in scene.sources[copy.sources[0]].shape)))
    for copy in found:
        relation = _relation(scene, laying, copy, votes)
        if relation is None:
            ledger.notes.append(
                f"`{copy.targets[0]}` holds the numbers of `{copy.sources[0]}` in an order that no layout explains"
            )
        elif ledger.is_free(relation.sources, relation.targets):
            ledger.add(relation)
        else:
            ledger.notes.append(
                f"`{copy.targets[0]}` holds what `{copy.sources[0]}` holds, which makes another target already, in another layout "
                "or dtype; a tensor is written to one of them only"
            )
    return [silent for one in doubtful for silent in _silent(scene, laying, one, votes)]


def _copies(scene: Scene, one: Cluster) -> list[_Copy] | None:
    """The cluster as copies and ties; None where names must decide."""
    dtype = scene.targets[one.targets[0]].dtype
    sources, targets = layouts(one.sources, scene.sources, dtype), layouts(one.targets, scene.targets, dtype)
    if len(one.sources) > 1 and len(one.targets) > 1:
        siblings = any(len({named(name).template for name in side}) < len(side) for side in (one.sources, one.targets))
        if siblings or len(sources) > 1 or len(targets) > 1 or len(one.sources) > MOST_TIED:
            return None
    made = []
    for names in targets:  # one source, or one target, or one layout on both sides
        best = max(sources, key=lambda group: (bool(_orders(scene, group[0], names[0])), len(group)))
        made.append(_Copy(tuple(best), tuple(names), _orders(scene, best[0], names[0])))
    same = scene.sources[made[0].sources[0]].shape  # where one source has several layouts to go to, its own comes first
    return sorted(made, key=lambda copy: scene.targets[copy.targets[0]].shape != same or not copy.orders)


def _every(scene: Scene, one: Cluster) -> list[_Copy]:
    return [
        _Copy((source,), (target,), _orders(scene, source, target))
        for target in one.targets[:MOST_TIED]
        for source in one.sources[:MOST_TIED]
    ]


def _orders(scene: Scene, source: str, target: str) -> tuple[Permutation, ...]:
    have, want = scene.sources[source], scene.targets[target]
    return tuple(permutations(have.shape, look(have, want.dtype).axes, want.shape, want.axes))


def _votes(copies: Sequence[_Copy]) -> dict[tuple[str, str], Permutation]:
    """For each class, the order of axes that most of its members have, of those that leave no choice."""
    counts: dict[tuple[str, str], Counter[Permutation]] = {}
    for copy in copies:
        if len(copy.orders) == 1:
            counts.setdefault(copy.classes, Counter())[copy.orders[0]] += 1
    return {classes: count.most_common(1)[0][0] for classes, count in counts.items()}


def _relation(scene: Scene, laying: Laying, copy: _Copy, votes: dict[tuple[str, str], Permutation]) -> Relation | None:
    if not copy.orders:
        found = laying.relation(copy.sources[:1], copy.targets[:1])
        if found is None:
            return None
        return with_copies(found, {copy.sources[0]: copy.sources[1:], copy.targets[0]: copy.targets[1:]})
    vote = votes.get(copy.classes)
    order = vote if vote in copy.orders else copy.orders[0]
    assert order is not None
    note = "its values are the same along several axes" if len(copy.orders) > 1 else ""
    if note and vote == order:
        note += "; taken as its siblings are"
    have, want = scene.sources[copy.sources[0]], scene.targets[copy.targets[0]]
    operators = scene.operators(copy.sources, copy.targets)
    return permuted(copy.sources, have.shape, copy.targets, want.shape, order, operators=operators, note=note)


def _silent(scene: Scene, laying: Laying, one: Cluster, votes: dict[tuple[str, str], Permutation]) -> list[Silent]:
    """What names must choose among. Of many equal tensors, the sources that share numbers with the target come first."""
    dtype = scene.targets[one.targets[0]].dtype
    sources = {name: group for group in layouts(one.sources, scene.sources, dtype) for name in group}
    by_number: dict[int, list[str]] = {}
    for source in one.sources:
        for number in set(named(source).numbers):
            by_number.setdefault(number, []).append(source)
    found = []
    for targets in layouts(one.targets, scene.targets, dtype):
        orders: dict[str, tuple[Permutation, ...]] = {}
        for group in layouts(one.sources, scene.sources, dtype):
            orders[group[0]] = _orders(scene, group[0], targets[0])
        plain = all(scene.sources[name].shape == scene.targets[targets[0]].shape for name in orders) and all(
            its and its[0] == tuple(range(len(its[0]))) for its in orders.values()
        )
        for target in targets:
            candidates = one.sources
            if len(candidates) > MOST_CANDIDATES:
                near = (source for number in named(target).numbers for source in by_number.get(number, ()))
                candidates = tuple(
                    islice(dict.fromkeys((*islice(near, MOST_CANDIDATES), *candidates)), MOST_CANDIDATES)
                )
            relations: list[Relation] = []
            if not (plain and len(one.sources) > MOST_CANDIDATES and not scene.operators(candidates, (target,))):
                for source in candidates:
                    copy = _Copy((source,), (target,), orders[sources[source][0]])
                    if copy.orders or len(one.sources) <= MOST_TIED:
                        relation = _relation(scene, laying, copy, votes)
                        relations.extend(() if relation is None else (relation,))
            # of many that lie as the target does, any may be chosen
            found.append(Silent(target, candidates if relations else one.sources, None, tuple(relations)))
    return found
