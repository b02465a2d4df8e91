"""A plan's own rules, written out as relations about its very tensors: what inference would find if it found everything."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from isomorph.infer.nouns import Dim, Draft, Dropped, Filled, Part, Relation, Side
from isomorph.language import tree
from isomorph.language.rules import FlatTerm, FullName
from isomorph.plan.match import Group, match_names
from isomorph.plan.plan import Instance, Plan
from isomorph.plan.stage import NamedTerm, StageRule, make_stage
from isomorph.tensors import DTYPES, Manifest


def draft_of(plan: Plan) -> Draft:
    """The draft that stands for a plan of one stage."""
    used = {name for one in relations_of(plan) for name in one.sources}
    return Draft(relations_of(plan), dropped=tuple(name for name in plan.source if name not in used))


def relations_of(plan: Plan) -> tuple[Relation, ...]:
    """One relation for each instance of a plan of one stage."""
    (program,) = plan.programs
    stage = make_stage(program, plan.config, plan.sizes)
    found = match_names(stage, plan.source)
    groups: dict[frozenset[str], Group] = {}
    for each in found.groups.values():
        for group in each:
            groups[frozenset(name for part in group.parts for name in part.values())] = group
    specs = {
        **{name: spec.shape for name, spec in plan.source.items()},
        **{name: one.spec.shape for name, one in plan.targets.items()},
    }
    made = []
    for instance in plan.instances:
        mine = groups.get(frozenset(instance.sources))
        rule = stage.rules[instance.rule]
        if not rule.makes or not instance.targets:
            continue
        made.append(_relation(rule, mine, instance, specs))
    return tuple(made)


def _relation(
    rule: StageRule, group: Group | None, instance: Instance, specs: Mapping[str, tuple[int, ...]]
) -> Relation:
    values = dict(group.values) if group is not None else {}
    sizes = dict(instance.sizes)
    rest = _rest(rule, instance, sizes, specs)
    sums: dict[str, Dim] = {}
    sides: list[Side] = []
    for terms, named in ((rule.rule.left, rule.left), (rule.rule.right, rule.right)):
        of = {id(one.term): one for one in named}
        by_index = {one.index: one for one in named}
        parts: list[Part | Filled | Dropped] = []
        for number, term in enumerate(terms):
            dims = _dims(term, rest, sizes, sums)
            if isinstance(term.head, FullName):
                parts.append(_part(of.get(id(term)) or by_index[number], values, sizes, dims))
            elif isinstance(term.head, tree.Constant):
                dtype = DTYPES[term.head.dtype] if term.head.dtype else None
                parts.append(Filled(term.head.text, dims, dtype))
            else:
                parts.append(Dropped(dims))
        sides.append(tuple(parts))
    kept = {axis: size for axis, size in sizes.items() if axis in _axes(sides, sums)}
    return Relation(sides[0], sides[1], kept, rule.rule.operators, rule.rule.arrow != "<->", sums=sums)


def _axes(sides: Sequence[Side], sums: Mapping[str, Dim]) -> set[str]:
    found = {axis for side in sides for part in side for dim in part.dims for product in dim for axis in product}
    found |= {axis for dim in sums.values() for product in dim for axis in product}
    return found | {axis for side in sides for part in side if isinstance(part, Part) for axis in part.along}


def _part(term: NamedTerm, values: Mapping[str, object], sizes: Mapping[str, int], dims: tuple[Dim, ...]) -> Part:
    def names(tie: Mapping[str, int]) -> tuple[str, ...]:
        return tuple(
            term.pattern.write({**values, **tie, **dict(zip(term.stacked, slot, strict=True))}, sizes)  # type: ignore[dict-item]
            for slot in itertools.product(*(range(sizes[axis]) for axis in term.stacked))
        )

    ties = [
        dict(zip(term.ties, slot, strict=True))
        for slot in itertools.product(*(range(sizes[axis]) for axis in term.ties))
    ]
    first, *copies = map(names, ties)
    return Part(first, dims, term.stacked, tuple(copies))


def _rest(
    rule: StageRule, instance: Instance, sizes: dict[str, int], specs: Mapping[str, tuple[int, ...]]
) -> tuple[str, ...]:
    """The axes of `...`, with their sizes."""
    for named, tensors in ((rule.left, instance.sources), (rule.right, instance.targets)):
        if not named or not tensors:
            continue
        term, shape = named[0], specs[tensors[0]]
        at = next((k for k, dim in enumerate(term.term.dims) if isinstance(dim, tree.Ellipsis)), None)
        if at is None:
            return ()
        extent = shape[at : at + len(shape) - len(term.term.dims) + 1]
        for number, size in enumerate(extent):
            sizes[f"rest{number}"] = size
        return tuple(f"rest{number}" for number in range(len(extent)))
    return ()


def _dims(term: FlatTerm, rest: Sequence[str], sizes: dict[str, int], sums: dict[str, Dim]) -> tuple[Dim, ...]:
    made: list[Dim] = []
    for dim in term.dims:
        if isinstance(dim, tree.Ellipsis):
            made.extend(((axis,),) for axis in rest)
        elif isinstance(dim, tree.Sum):
            made.append(_sum(dim, sizes, sums))
        else:
            made.append((_factor(dim, sizes, sums),))
    return tuple(made)


def _sum(dim: tree.Sum, sizes: dict[str, int], sums: dict[str, Dim]) -> Dim:
    return tuple(
        tuple(axis for factor in product.factors for axis in _factor(factor, sizes, sums)) for product in dim.summands
    )


def _factor(dim: tree.Dim, sizes: dict[str, int], sums: dict[str, Dim]) -> tuple[str, ...]:
    match dim:
        case tree.Axis(name):
            return (name,)
        case tree.Integer(1):
            return ()
        case tree.Integer(value):
            sizes[f"size{value}"] = value
            return (f"size{value}",)
        case tree.Sum() if len(dim.summands) == 1:
            return _sum(dim, sizes, sums)[0]
        case tree.Sum():
            inner = _sum(dim, sizes, sums)
            symbol = f"sum{len(sums)}"
            sums[symbol] = inner
            sizes[symbol] = sum(math.prod(sizes[axis] for axis in product) for product in inner)
            return (symbol,)
    raise TypeError(dim)


def only(manifest: Manifest, names: Sequence[str]) -> Manifest:
    """Some of a manifest."""
    kept = set(names)
    return Manifest({name: spec for name, spec in manifest.items() if name in kept})
