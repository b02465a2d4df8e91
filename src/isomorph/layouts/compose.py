"""From any layout of a family to any other: one chain of morphs through the hub, and what its sizes are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from isomorph.errors import MorphError, UsageError
from isomorph.language.expressions import evaluate
from isomorph.language.rules import shown
from isomorph.language.tree import Axis
from isomorph.layouts.family import AGAIN, LARGEST_SIZE
from isomorph.layouts.hub import schema
from isomorph.layouts.recipe import in_hub_terms
from isomorph.tensors import Manifest

if TYPE_CHECKING:
    from isomorph.language.morph import Morph
    from isomorph.language.rules import Program
    from isomorph.layouts.catalogue import Layout
    from isomorph.layouts.family import Family
    from isomorph.plan.plan import Plan

IDENTITY = "** <-> **\n"


def between(source: Layout, target: Layout) -> Morph | None:
    """The morph from one layout to another of the same family, through the hub; None when they are the same."""
    if source.family.name != target.family.name:
        raise UsageError(f"{source} and {target} are of two families: nothing leads from one to the other")
    if source == target:
        return None
    if source.is_hub:
        return target.morph.inverse
    if target.is_hub:
        return source.morph
    return source.morph @ target.morph.inverse


def stripped(prefix: str) -> Morph:
    """The stage that takes a prefix away that every name has."""
    from isomorph.language.morph import Morph

    return Morph.parse(f"{quoted(prefix, '**')} <-> **\n", file=f"without {prefix}")


def added(prefix: str) -> Morph:
    """The stage that puts a prefix before every name."""
    from isomorph.language.morph import Morph

    return Morph.parse(f"** <-> {quoted(prefix, '**')}\n", file=f"with {prefix}")


def quoted(text: str, behind: str = "") -> str:
    """A text of one line as it is written in a morph, where each of its characters is itself; then what stands `behind` it."""
    escaped = "".join("\\" + char if char in '"\\{*' else char for char in text)
    return f'"{escaped}{behind}"'


def family_config(family: Family, sizes: Mapping[str, int], given: Mapping[str, Any] | None) -> dict[str, Any]:
    """The config that `when` lines may ask: what is given, else what the sizes say under the hub's keys."""
    made: dict[str, Any] = {}
    for name, axis in family.axes.items():
        if axis.config is not None and name in sizes:
            put(made, axis.config, sizes[name])
    return merged(made, given or {})


def put(config: dict[str, Any], dotted: str, value: Any) -> None:
    """`a.b` = value in nested dictionaries; a part that is no dictionary is left alone."""
    *folders, last = dotted.split(".")
    at: Any = config
    for part in folders:
        at = at.setdefault(part, {})
        if not isinstance(at, dict):
            return
    at[last] = value


def look_up(config: Mapping[str, Any] | None, dotted: str) -> Any:
    """The value of `a.b`, None without one."""
    at: Any = config
    for part in dotted.split("."):
        if not isinstance(at, Mapping) or part not in at:
            return None
        at = at[part]
    return at


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two nested configs; what `above` says wins."""
    found = dict(below)
    for key, value in above.items():
        before = found.get(key)
        found[key] = merged(before, value) if isinstance(before, dict) and isinstance(value, Mapping) else value
    return found


def sizes_of_config(family: Family, config: Mapping[str, Any] | None, layout: Layout | None = None) -> dict[str, int]:
    """The sizes of the vocabulary that a config states, by the hub's keys and by those of a layout of its own."""
    told = in_hub_terms(family.name, config)
    found: dict[str, Any] = {}
    for name, axis in family.axes.items():
        if axis.config is not None:
            found[name] = look_up(told, axis.config)
    for name, expression in (layout.header.axes if layout is not None else {}).items():
        try:
            found[name] = evaluate(expression, {}, config or {})
        except MorphError:
            continue  # that config has no such key: it is of another kind
    return {name: size for name, size in found.items() if type(size) is int and 0 <= size <= LARGEST_SIZE}


def sizes_of_plan(family: Family, plan: Plan) -> dict[str, int]:
    """The sizes of the vocabulary that a plan has solved and that are the same wherever they were."""
    found: dict[str, int] = {}
    differ: set[str] = set()
    for instance in plan.instances:
        for axis, size in instance.sizes.items():
            name = shown(axis)
            if name not in family.axes or family.axes[name].ragged:
                continue
            if found.setdefault(name, size) != size:
                differ.add(name)
    return {name: size for name, size in found.items() if name not in differ}


def axes_of(programs: Iterable[Program], config: Mapping[str, Any]) -> set[str]:
    """The axes, as written, that occur in these programs."""
    from isomorph.plan.stage import make_stage

    return {shown(axis) for program in programs for rule in make_stage(program, config, {}).rules for axis in rule.axes}


def hidden_axes(family: Family) -> frozenset[str]:
    """The axes that no shape and no name of the hub tells by itself: heads, and what stands in products only."""
    told: set[str] = set()
    for one in schema(family.name).tensors:
        told.update(axis.removesuffix(AGAIN) for axis in one.indices)
        told.update(shown(dim.name).removesuffix(AGAIN) for dim in one.dims if isinstance(dim, Axis))
    return frozenset(family.axes) - told


def plan_sized(
    programs: Sequence[Program],
    source: Manifest,
    family: Family,
    known: Mapping[str, int],
    config: Mapping[str, Any],
    given: Mapping[str, int] | None = None,
) -> tuple[Plan, dict[str, int]]:
    """A plan, and the sizes that it had to be told. `given` are told in any case; of `known`, what shapes cannot tell.

    Raises MorphError with every gap.
    """
    from isomorph.plan.prove import make_plan

    used = axes_of(programs, config)
    told = dict(given or {})
    told.update({axis: size for axis, size in known.items() if axis in used & hidden_axes(family) and axis not in told})
    try:
        return make_plan(programs, source, config=config, sizes=told), told
    except MorphError as refused:
        if not any(gap.kind == "size" for gap in refused.gaps):
            raise
        more = {axis: size for axis, size in known.items() if axis in used and axis not in told}
        if not more:
            raise
        try:
            return make_plan(programs, source, config=config, sizes={**more, **told}), {**more, **told}
        except MorphError:
            raise refused from None


def layout_keys(
    layout: Layout,
    sizes: Mapping[str, int],
    groups: Iterable[str] | None = None,
    config: Mapping[str, Any] | None = None,
    *,
    partial: bool = False,
) -> Manifest:
    """The key set of a layout for a model of these sizes: the hub's, planned into it.

    `partial`: what cannot be made from these groups alone is left out instead of refused. Raises MorphError, KeyError.
    """
    family = layout.family
    known = family.complete(sizes)
    hub = schema(family.name).expand(known, groups)
    if layout.is_hub:
        return hub
    config = merged(merged(family.example, family_config(family, known, None)), config or {})
    programs = layout.morph.inverse.programs(config)
    if partial:
        programs = relaxed(programs)
        hub = _makeable(hub, programs, family, config, known)
    return plan_sized(programs, hub, family, known, config)[0].manifest


def relaxed(programs: Sequence[Program]) -> tuple[Program, ...]:
    """The programs with every rule's `?`: what is not there is not asked for."""
    return tuple(replace(one, rules=tuple(replace(rule, maybe=True) for rule in one.rules)) for one in programs)


def _makeable(
    hub: Manifest, programs: Sequence[Program], family: Family, config: Mapping[str, Any], known: Mapping[str, int]
) -> Manifest:
    """The hub's tensors without those of instances that lack a part."""
    for _ in range(8):
        try:
            plan_sized(programs, hub, family, known, config)
            return hub
        except MorphError as refused:
            lacking = {name for gap in refused.gaps if gap.kind in ("incomplete", "unmatched") for name in gap.tensors}
            left = {name: tensor for name, tensor in hub.items() if name not in lacking}
            if len(left) == len(hub):
                raise
            hub = Manifest(left, origin=hub.origin)
    return hub
