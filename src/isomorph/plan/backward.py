"""What reading a morph the other way gives back, proved by planning it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import chain

from isomorph.errors import MorphError
from isomorph.plan.moves import names_of
from isomorph.plan.plan import Class, Instance, Plan
from isomorph.tensors import Manifest, TensorSpec

MOST_WHOLE = 20_000
"""A plan of more targets is planned back by kinds of instances: so many of each kind as `OF_A_KIND`."""
OF_A_KIND = 3


def backward(plan: Plan) -> str:
    """What reading the morph the other way gives back, proved by planning it."""
    try:
        returned = _by_kinds(plan) if len(plan.targets) > MOST_WHOLE and len(plan.programs) == 1 else _whole(plan)
    except MorphError as error:
        first = error.gaps[0]
        more = f" (and {len(error.gaps) - 1} more)" if len(error.gaps) > 1 else ""
        rule = f": {first.text}" if first.kind == "idle" and first.text is not None else ""
        return f"not without more: {first.message}{rule}{more}"
    return _in_words(plan, returned)


def _whole(plan: Plan) -> Mapping[str, Class]:
    """Source name -> how it returns."""
    return {name: target.klass for name, target in plan.inverse.targets.items() if name in plan.source}


def _by_kinds(plan: Plan) -> Mapping[str, Class]:
    """The same, where a few instances of each kind are planned back and stand for the others.

    Instances of one rule whose tensors have the same specs and sizes differ in their names alone, and the plan has shown that each
    name it makes is read back by its own rule with its own values (plan/readback.py).
    """
    from isomorph.plan.prove import make_plan

    settled: dict[int, list[Instance]] = {}
    for instance in plan.instances:
        settled.setdefault(id(instance.sizes), []).append(instance)
    kinds: dict[tuple[object, ...], list[Instance]] = {}
    for alike in settled.values():
        kinds.setdefault(_kind(plan, alike[0]), []).extend(alike)
    chosen = [one for alike in kinds.values() for one in alike[:OF_A_KIND]]
    specs: dict[str, TensorSpec] = {name: plan.targets[name].spec for one in chosen for name in one.targets}
    turned = [program.inverse for program in reversed(plan.programs)]
    back = make_plan(turned, Manifest(specs, origin="plan"), config=plan.config, sizes=plan.sizes, is_part=True)
    returned: dict[str, Class] = {}
    for alike in kinds.values():
        classes = [back.targets[name].klass if name in back.targets else None for name in alike[0].sources]
        if set(classes) == {"exact"}:
            returned.update(dict.fromkeys(chain.from_iterable([one.sources for one in alike]), "exact"))
            continue
        for one in alike:
            returned.update(
                (name, klass) for name, klass in zip(one.sources, classes, strict=True) if klass is not None
            )
    return returned


def _kind(plan: Plan, instance: Instance) -> tuple[object, ...]:
    is_of_one = len(instance.sources) == len(instance.targets) == 1
    return (
        instance.rule,
        () if is_of_one else tuple(instance.sizes.items()),
        tuple(plan.source[name] for name in instance.sources),
        tuple(plan.targets[name].spec for name in instance.targets),
    )


def _in_words(plan: Plan, returned: Mapping[str, Class]) -> str:
    rounded = {name for name, target in plan.targets.items() if target.klass != "exact"}
    lossy_sources = (
        {source for move in plan.moves if move.target.tensor in rounded for source in names_of(move.source)}
        if rounded
        else set()
    )
    classes = Counter(returned.values())
    exact = classes["exact"] - sum(returned.get(name) == "exact" for name in lossy_sources)
    parts = []
    if exact:
        parts.append(f"{exact:,} tensors return exactly" if exact > 1 else "1 tensor returns exactly")
    rest = sum(classes.values()) - exact
    if rest:
        parts.append(f"{rest:,} return rounded" if rest > 1 else "1 returns rounded")
    gone = [name for name in plan.source if name not in returned]
    if gone:
        dropped = set(plan.dropped)
        one_way = {name for name, target in plan.targets.items() if target.klass == "one-way"}
        once = {source for move in plan.moves if move.target.tensor in one_way for source in names_of(move.source)}
        spent = sum(1 for name in gone if name not in dropped and name in once)
        left = sum(1 for name in gone if name in dropped)
        part = len(gone) - left - spent
        if left:
            parts.append(f"the {left:,} dropped do not" if left > 1 else "the dropped one does not")
        if spent:
            parts.append(f"{spent:,} that go one way do not" if spent > 1 else "1 that goes one way does not")
        if part:
            parts.append(f"{part:,} that lost a part do not" if part > 1 else "1 that lost a part does not")
    return "; ".join(parts) or "nothing returns"
