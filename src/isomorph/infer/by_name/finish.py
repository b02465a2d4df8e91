"""Relations and questions as they leave: casts between dtypes, copies of one source in one relation, keys that are unique."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from isomorph.infer.nouns import Alternative, Part, Question, Relation
from isomorph.language.tree import Op
from isomorph.tensors import DType, Manifest

WIDENING = {
    "f16": ("f32", "f64"),
    "bf16": ("f32", "f64"),
    "f32": ("f64",),
    "f8e4m3": ("f16", "bf16", "f32", "f64"),
    "f8e5m2": ("f16", "bf16", "f32", "f64"),
}


def finished(
    relations: Sequence[Relation], questions: Sequence[Question], source: Manifest, target: Manifest
) -> tuple[tuple[Relation, ...], tuple[Question, ...]]:
    """All of it, in the order of the targets."""
    order = {name: place for place, name in enumerate(target)}

    def place(names: Sequence[str]) -> int:
        return min((order[name] for name in names if name in order), default=len(order))

    made = sorted(with_copies(with_casts(relations, source, target)), key=lambda one: place(one.targets))
    keys: dict[str, int] = {}
    asked = []
    for question in sorted(questions, key=lambda one: (place(one.targets), one.key)):
        keys[question.key] = keys.get(question.key, 0) + 1
        key = question.key if keys[question.key] == 1 else f"{question.key} {keys[question.key]}"
        alternatives = tuple(
            Alternative(with_copies(with_casts(one.relations, source, target)), one.words)
            for one in question.alternatives
        )
        asked.append(replace(question, key=key, alternatives=alternatives))
    return tuple(made), tuple(asked)


def by_names(one: Relation) -> Relation:
    """The relation, as one that names and shapes decide."""
    return one if one.evidence == "catalogue" else replace(one, evidence="names")


def with_casts(relations: Sequence[Relation], source: Manifest, target: Manifest) -> tuple[Relation, ...]:
    """Relations whose two sides have other dtypes, with a cast. Names do not say that values are the same after it: a narrower
    dtype is rounded to."""
    found = []
    for one in relations:
        here = {source[name].dtype for name in one.sources if name in source}
        there = {target[name].dtype for name in one.targets if name in target}
        if not one.operators and len(here) == len(there) == 1 and here != there:
            one = replace(one, operators=(cast(here.pop(), there.pop()),))
        found.append(one)
    return tuple(found)


def cast(source: DType, target: DType) -> Op:
    """The cast between two dtypes: exact where every value fits, rounding between others; integers are checked to fit."""
    is_exact = target.name in WIDENING.get(source.name, ()) or (source.is_integer and target.is_integer)
    return Op("cast", source=source.name, target=target.name, rounding=not is_exact)


def with_copies(relations: Sequence[Relation]) -> tuple[Relation, ...]:
    """Relations that make several targets of the same source in the same way as one, which has the others as copies."""
    first: dict[object, int] = {}
    found: list[Relation] = []
    for one in relations:
        key = _form(one)
        if key is None or key not in first:
            if key is not None:
                first[key] = len(found)
            found.append(one)
            continue
        before = found[first[key]]
        part, other = before.right[0], one.right[0]
        assert isinstance(part, Part) and isinstance(other, Part)
        merged = replace(part, copies=(*part.copies, other.names, *other.copies))
        found[first[key]] = replace(before, right=(merged, *before.right[1:]))
    return tuple(found)


def _form(one: Relation) -> object:
    """What two relations have alike that make copies; None for one that makes several tensors of several."""
    if not isinstance(one.right[0], Part) or any(isinstance(part, Part) for part in one.right[1:]):
        return None
    part = one.right[0]
    sizes = tuple(sorted(one.sizes.items()))
    return (one.left, part.dims, part.along, one.right[1:], sizes, tuple(sorted(one.sums.items())), one.operators)
