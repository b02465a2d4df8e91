"""Targets whose values say nothing of where they are from: all one value, or 0, 1, 2, …

A constant that only one source and one target hold, and that is no common one, is a copy all the same: a logit scale of 2.6592.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from isomorph.errors import CheckError, MorphError
from isomorph.infer.by_value.changes import Change, apply, cast_change
from isomorph.infer.by_value.copies import is_silent
from isomorph.infer.by_value.fingerprint import Print
from isomorph.infer.by_value.forms import letters, permuted, renamed
from isomorph.infer.by_value.hashing import hash_elements, total
from isomorph.infer.by_value.ledger import Ledger, Scene
from isomorph.infer.by_value.siblings import kept_to, partners, stem, word
from isomorph.infer.by_value.templates import by_template, likeness, named, suggestions
from isomorph.infer.nouns import UNIT, Dim, Filled, Part, Relation, Silent, axis
from isomorph.language.tree import Op
from isomorph.tensors import DType

COMMON = ("0", "1", "-1", "0.5", "2", "-0.0", "inf", "-inf")
"""Values that tensors are filled with before they are trained: two that hold them need not have to do with each other."""


MOST_NEAR = 32
"""So many sources at most are looked at for a constant that none of them holds."""


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
    rounded = _Rounded(scene, [name for names in groups.values() for name in names])
    known: dict[object, list[str]] = {}
    found = []
    of_kind = {kind: tuple(names) for kind, names in groups.items()}
    for name in wanted:
        if name in ledger.placed or _as_module(ledger, name) or _as_changed(ledger, name, changed):
            continue
        one = scene.targets[name]
        kind = _kind(one)
        alike = (kind, one.shape, one.dtype)
        if alike not in known:
            known[alike] = _holders(scene, name, groups, rounded)
        held = known[alike]
        if not one.numel:
            candidates = [each for each in ledger.sources(silent=True) if scene.sources[each].shape == one.shape]
            found.append(Silent(name, tuple(candidates), None))
        elif len(held) == 1 and counts[kind] == 1 and one.constant not in COMMON and _fits(scene, held[0], name):
            ledger.add(_copy(scene, held[0], name))
        elif not held and one.constant is not None:
            near = _one_more(ledger, name, groups)
            if near:
                found.append(Silent(name, (), one.constant, near))
            else:
                ledger.add(_filled(scene, name, one.constant))
        else:
            found.append(Silent(name, tuple(held), one.constant, alike=of_kind.get(kind, tuple(held))))
    return found


def _one_more(ledger: Ledger, target: str, groups: Mapping[tuple[object, ...], Sequence[str]]) -> tuple[Relation, ...]:
    """How sources of one value would make it by `+ 1` or `- 1`: the scales of norms are filed as `w` and as `1 + w`."""
    prints = ledger.scene.sources
    one = ledger.scene.targets[target]
    if not one.dtype.is_float or one.numel < 2 or one.constant not in ("0", "1", "2"):
        return ()
    found = []
    for number in (1, -1):
        for name in groups.get((str(int(one.constant) - number),), ()):
            if prints[name].shape == one.shape and prints[name].dtype == one.dtype and name not in ledger.used:
                found.append((name, number))
    numbers = named(target).numbers
    found.sort(key=lambda each: -likeness(named(each[0]).numbers, numbers))
    kept = sum(size != 1 for size in one.shape)
    return tuple(
        permuted(
            (name,), one.shape, (target,), one.shape, tuple(range(kept)), operators=(Op("add", number=str(number)),)
        )
        for name, number in found[:MOST_NEAR]
    )


def _as_module(ledger: Ledger, target: str) -> bool:
    """Book a constant that is fused, split or stacked as the weight of its module is: biases of zeros."""
    scene = ledger.scene
    kind = _kind(scene.targets[target])
    for relation in ledger.by_stem.get(stem(target), ()):
        if relation.targets == (target,) or _is_plain(relation):
            continue
        here, there = {stem(name) for name in relation.sources}, {stem(name) for name in relation.targets}
        targets = [name for name in ledger.targets(silent=True) if stem(name) in there and word(name) == word(target)]
        sources = [
            name
            for name in ledger.sources(silent=True)
            if stem(name) in here and (len(relation.sources) > 1 or word(name) == word(target))
        ]
        if any(_kind(scene.targets[name]) != kind for name in targets):
            continue
        if any(_kind(scene.sources[name]) != kind for name in sources):
            continue
        names = partners(relation, sources, targets)
        if names is None:
            continue
        operators = scene.operators(sources, targets)
        found = list(kept_to(relation, names, scene.source.manifest, scene.target.manifest, operators))
        if not found:
            continue
        # of a square matrix either axis may be the bias's: the one of the outputs is the last of a kernel, the first of a weight
        made = found[-1 if word(relation.sources[0]) == "kernel" else 0][0]
        value = scene.targets[target].constant
        note = f"placed as `{relation.targets[0]}` is: its values are all {value}"
        ledger.add(replace(made, evidence="names", note=note))
        return True
    return False


def _is_plain(relation: Relation) -> bool:
    """True for one tensor made of one, with its axes in one piece each: names place what is beside it as well."""
    if len(relation.sources) != 1 or len(relation.targets) != 1:
        return False
    return all(len(dim) == 1 and len(dim[0]) < 2 for term in (*relation.left, *relation.right) for dim in term.dims)


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


def _holders(scene: Scene, name: str, groups: dict[tuple[object, ...], list[str]], rounded: _Rounded) -> list[str]:
    """Sources of that one value: those of as many elements, else those that could be a part of it or it a part of them."""
    one = scene.targets[name]
    same = list(groups.get(_kind(one), ()))
    if one.constant is not None and one.dtype.is_float:
        same += [each for each in rounded.to(name) if _kind(scene.sources[each]) != _kind(one)]
    exact = [each for each in same if _fits(scene, each, name)]
    if exact:
        return exact
    return [each for each in same if _may_be_part(scene.sources[each].shape, one.shape)]


class _Rounded:
    """The constant sources by their one element as it is in another dtype."""

    def __init__(self, scene: Scene, names: Sequence[str]) -> None:
        self.scene, self.names = scene, [name for name in names if scene.sources[name].numel]
        self._by_element: dict[DType, dict[int, list[str]]] = {}

    def to(self, target: str) -> list[str]:
        """Those that the dtype of the target rounds to its value."""
        one = self.scene.targets[target]
        if one.dtype not in self._by_element:
            held: dict[int, list[str]] = {}
            for name in self.names:
                its = self.scene.sources[name]
                if one.dtype.name in its.casts:
                    change = cast_change(its.dtype, one.dtype, exact=False, saturate=True)
                    try:
                        element = apply(self.scene.source.fetch(name, 0, (1,), (1,)), change, its.dtype)
                    except (MorphError, CheckError):  # there is no such cast
                        continue
                    held.setdefault(int(hash_elements(element.view(one.dtype.bits), one.dtype)[0]), []).append(name)
            self._by_element[one.dtype] = held
        element = self.scene.target.fetch(target, 0, (1,), (1,))
        return self._by_element[one.dtype].get(int(hash_elements(element, one.dtype)[0]), [])


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
