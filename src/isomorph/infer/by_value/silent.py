"""Targets whose values say nothing of where they are from: all one value, or 0, 1, 2, …

A constant that only one source and one target hold, and that is no common one, is a copy all the same: a logit scale of 2.6592.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from isomorph.infer.by_value.changes import Change, apply
from isomorph.infer.by_value.copies import is_silent, look
from isomorph.infer.by_value.fingerprint import Print
from isomorph.infer.by_value.forms import letters, permuted, renamed
from isomorph.infer.by_value.hashing import hash_elements, total
from isomorph.infer.by_value.ledger import Ledger, Scene
from isomorph.infer.by_value.siblings import kept_to, partners, stem
from isomorph.infer.by_value.templates import by_template, named, suggestions
from isomorph.infer.nouns import UNIT, Dim, Filled, Part, Relation, Silent, axis

COMMON = ("0", "1", "-1", "0.5", "2", "-0.0", "inf", "-inf")
"""Values that tensors are filled with before they are trained: two that hold them need not have to do with each other."""


def place_silent(ledger: Ledger) -> list[Silent]:
    """Book constants that one source only can have given, or none; give back those that names must place."""
    scene = ledger.scene
    groups: dict[tuple[object, ...], list[str]] = {}
    for name in ledger.sources(silent=True):
        if is_silent(scene.sources[name]):
            groups.setdefault(_kind(scene.sources[name]), []).append(name)
    wanted = [name for name in ledger.targets(silent=True) if is_silent(scene.targets[name])]
    counts: dict[tuple[object, ...], int] = {}
    for name in wanted:
        counts[_kind(scene.targets[name])] = counts.get(_kind(scene.targets[name]), 0) + 1
    changed = {
        named(one.targets[0]).template: one
        for one in ledger.relations
        if len(one.sources) == len(one.targets) == 1 and any(op.name != "cast" for op in one.operators)
    }
    found = []
    for name in wanted:
        if name in ledger.placed or _as_module(ledger, name) or _as_changed(ledger, name, changed):
            continue
        one = scene.targets[name]
        kind = _kind(one)
        held = _holders(scene, name, groups)
        if not one.numel:
            candidates = [each for each in ledger.sources(silent=True) if scene.sources[each].shape == one.shape]
            found.append(Silent(name, tuple(candidates), None))
        elif len(held) == 1 and counts[kind] == 1 and one.constant not in COMMON and _fits(scene, held[0], name):
            ledger.add(_copy(scene, held[0], name))
        elif not held and one.constant is not None:
            ledger.add(_filled(scene, name, one.constant))
        else:
            found.append(Silent(name, tuple(held), one.constant))
    return found


def _as_module(ledger: Ledger, target: str) -> bool:
    """Book a constant that is fused, split or stacked as the weight of its module is: biases of zeros."""
    scene = ledger.scene
    kind = _kind(scene.targets[target])
    for relation in ledger.by_stem.get(stem(target), ()):
        if len(relation.sources) == len(relation.targets) == 1 or relation.targets == (target,):
            continue
        here, there = {stem(name) for name in relation.sources}, {stem(name) for name in relation.targets}
        last = target[len(stem(target)) :]
        targets = [
            name for name in ledger.targets(silent=True) if stem(name) in there and name[len(stem(name)) :] == last
        ]
        sources = [name for name in ledger.sources(silent=True) if stem(name) in here]
        if any(_kind(scene.targets[name]) != kind for name in targets):
            continue
        if any(_kind(scene.sources[name]) != kind for name in sources):
            continue
        names = partners(relation, sources, targets)
        if names is None:
            continue
        operators = scene.operators(sources, targets)
        for made, _ in kept_to(relation, names, scene.source.manifest, scene.target.manifest, operators):
            value = scene.targets[target].constant
            note = f"placed as `{relation.targets[0]}` is: its values are all {value}"
            ledger.add(replace(made, evidence="names", note=note))
            return True
    return False


def _as_changed(ledger: Ledger, target: str, changed: Mapping[str, Relation]) -> bool:
    """Book a constant whose siblings are sources with one change: zeros that are ones less one."""
    example = changed.get(named(target).template)
    if example is None or not ledger.scene.targets[target].numel:
        return False
    scene = ledger.scene
    one = scene.targets[target]
    was, its = named(example.targets[0]), named(example.sources[0])
    free = by_template(name for name in ledger.sources(silent=True) if is_silent(scene.sources[name]))
    for numbers in suggestions(was.numbers, its.numbers, named(target).numbers):
        source = free.get(its.template, {}).get(tuple(number for number in numbers if number is not None))
        if source is None or scene.sources[source].shape != scene.sources[example.sources[0]].shape:
            continue
        if one.shape != scene.targets[example.targets[0]].shape:
            continue
        dtype = scene.sources[source].dtype
        made = apply(scene.source.fetch(source, 0, (1,), (1,)), Change(example.operators, ""), dtype)
        if int(hash_elements(made, one.dtype)[0]) * one.numel % (1 << 64) == one.total:
            note = f"placed as `{example.targets[0]}` is: its values are all {one.constant}"
            names = {example.sources[0]: source, example.targets[0]: target}
            ledger.add(replace(renamed(example, names), evidence="names", note=note))
            return True
    return False


def place_arange(ledger: Ledger) -> None:
    """Book targets of integers 0, 1, 2, … that no source holds: position ids."""
    for name in ledger.targets():
        one = ledger.scene.targets[name]
        kept = [size for size in one.shape if size != 1]
        if not one.dtype.is_integer or len(kept) != 1 or one.numel > 1 << 24:
            continue
        counted = np.arange(one.numel).astype(one.dtype.numpy)
        values = ledger.scene.target.fetch(name, 0, (one.numel,), (1,)).view(one.dtype.numpy)
        if total(hash_elements(counted, one.dtype)) == one.total and np.array_equal(values, counted):
            ledger.add(_filled(ledger.scene, name, "arange"))


def _kind(one: Print) -> tuple[object, ...]:
    """Constants of one kind may stand for each other: the value as a hash (so in any dtype that holds it), or the number."""
    return (one.constant,) if one.constant is not None else ("", one.total, one.numel)


def _holders(scene: Scene, name: str, groups: dict[tuple[object, ...], list[str]]) -> list[str]:
    """Sources of that one value: those of as many elements, else those that could be a part of it or it a part of them."""
    one = scene.targets[name]
    same = list(groups.get(_kind(one), ()))
    if one.constant is not None and one.dtype.is_float:  # a value that the target's dtype rounded
        for kind, names in groups.items():
            if kind != _kind(one):
                same += [each for each in names if _rounds_to(scene.sources[each], one)]
    exact = [each for each in same if _fits(scene, each, name)]
    if exact:
        return exact
    return [each for each in same if _may_be_part(scene.sources[each].shape, one.shape)]


def _rounds_to(source: Print, target: Print) -> bool:
    """True when that constant, cast to the target's dtype, is the target's."""
    if target.dtype.name not in source.casts or not source.numel:
        return False
    seen = look(source, target.dtype).total
    return seen * target.numel % (1 << 64) == target.total * source.numel % (1 << 64)


def _fits(scene: Scene, source: str, target: str) -> bool:
    """True when both have the same axes, up to their order and unit axes."""
    have = sorted(size for size in scene.sources[source].shape if size != 1)
    want = sorted(size for size in scene.targets[target].shape if size != 1)
    return have == want


def _may_be_part(have: Sequence[int], want: Sequence[int]) -> bool:
    """True when one could be a stack, a fusion, a reshape or a part of the other: all axes but one agree, or all elements do."""
    if math.prod(have) == math.prod(want):
        return True
    few, many = sorted(([size for size in side if size != 1] for side in (have, want)), key=len)
    left = list(many)
    for size in few:
        if size in left:
            left.remove(size)
    return len(left) <= 1 or (
        bool(few) and max(math.prod(have), math.prod(want)) % min(math.prod(have), math.prod(want)) == 0
    )


def _copy(scene: Scene, source: str, target: str) -> Relation:
    have, want = scene.sources[source], scene.targets[target]
    sizes = [size for size in have.shape if size != 1]
    order: list[int] = []
    for size in (size for size in want.shape if size != 1):
        order.append(next(number for number, each in enumerate(sizes) if each == size and number not in order))
    return permuted(
        (source,),
        have.shape,
        (target,),
        want.shape,
        tuple(order),
        operators=scene.operators((source,), (target,)),
        note=f"both are {want.constant} throughout, and nothing else is" if want.numel > 1 else "",
    )


def _filled(scene: Scene, target: str, text: str) -> Relation:
    """The target made of a number."""
    one = scene.targets[target]
    names = iter(letters(len(one.shape)))
    dims: list[Dim] = []
    sizes: dict[str, int] = {}
    for size in one.shape:
        if size == 1:
            dims.append(UNIT)
            continue
        symbol = next(names)
        dims.append(axis(symbol))
        sizes[symbol] = size
    kept = tuple(dim for dim in dims if dim != UNIT) if text == "arange" else tuple(dims)
    return Relation(
        (Filled(text, kept, one.dtype),),
        (Part((target,), tuple(dims)),),
        sizes,
        evidence="constant",
        note="no source holds it",
    )
