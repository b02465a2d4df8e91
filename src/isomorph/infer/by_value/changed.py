"""Places targets whose values are a source's values changed: w + 1, scaled, negated, exp, log (changes.py finds which).

Every source with the axes of a target could be the one; those that siblings point at are tried first, then those that share most
of the name. What is found is confirmed element by element.
"""

from __future__ import annotations

from collections.abc import Iterator

from isomorph.infer.by_value.changes import Change, value_changes
from isomorph.infer.by_value.laying import Laying
from isomorph.infer.by_value.ledger import Ledger
from isomorph.infer.by_value.templates import Index, by_template, likeness, named, suggestions

MOST_TRIED = 24
"""Sources tried for one target."""
PATIENCE = 200
"""So many pairs are tried without success, and no more are."""


def place_changed(ledger: Ledger, laying: Laying) -> None:
    """Book the relations that one change of all values explains."""
    scene = ledger.scene
    recipes: dict[str, tuple[Index, str, Index, Change]] = {}
    failures = 0
    for target in ledger.targets():
        for source in _candidates(ledger, target, recipes):
            if failures > PATIENCE:
                return
            if source in ledger.used:
                continue
            change, relation = None, None
            for change in value_changes(
                scene.source, source, scene.target, target, scene.sources[source], scene.targets[target]
            ):
                relation = laying.relation((source,), (target,), change=change)
                if relation is not None:
                    break
            if relation is None or change is None:
                failures += 1
                continue
            ledger.add(relation)
            of, it = named(target), named(source)
            recipes[of.template] = (of.index, it.template, it.index, change)
            failures = 0
            break


def _candidates(ledger: Ledger, target: str, recipes: dict[str, tuple[Index, str, Index, Change]]) -> Iterator[str]:
    """Free sources with the axes of the target: where siblings came from, then by what they share of the name."""
    scene = ledger.scene
    sizes = _sizes(scene.targets[target].shape)
    free = [name for name in ledger.sources() if _sizes(scene.sources[name].shape) == sizes]
    one = named(target)
    known = recipes.get(one.template)
    said: list[str] = []
    if known is not None:
        its_index, template, index, _ = known
        members = by_template(free).get(template, {})
        for numbers in suggestions(its_index, index, one.index):
            name = members.get(numbers)  # type: ignore[call-overload]
            if name is not None:
                said.append(name)
    words = set(_words(target))

    def strangeness(name: str) -> tuple[int, int, str]:
        return -likeness(named(name).index, one.index), -len(words & set(_words(name))), name

    yield from said
    yield from [name for name in sorted(free, key=strangeness) if name not in said][:MOST_TRIED]


def _sizes(shape: tuple[int, ...]) -> list[int]:
    return sorted(size for size in shape if size != 1)


def _words(name: str) -> list[str]:
    return named(name).template.replace("/", ".").replace("_", ".").split(".")
