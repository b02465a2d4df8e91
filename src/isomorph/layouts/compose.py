"""From any layout of a family to any other: one chain of morphs through the hub, and what its sizes are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from isomorph.errors import MorphError, UsageError
from isomorph.language.expressions import evaluate
from isomorph.language.rules import shown
from isomorph.layouts.family import LARGEST_SIZE
from isomorph.layouts.hub import schema
from isomorph.layouts.recipe import in_hub_terms
from isomorph.tensors import Manifest, TensorSpec

if TYPE_CHECKING:
    from isomorph.language.morph import Morph
    from isomorph.language.rules import Program
    from isomorph.layouts.catalogue import Layout
    from isomorph.layouts.family import Family
    from isomorph.plan.plan import Plan

IDENTITY = "** <-> **\n"
"""The morph between two layouts that are the same."""
MOST_ROUNDS = 8
"""How often a plan is tried without what lacked a part before."""


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


def family_config(family: Family, sizes: Mapping[str, int]) -> dict[str, Any]:
    """What sizes say under the hub's config keys."""
    made: dict[str, Any] = {}
    for name, axis in family.axes.items():
        if axis.config is not None and name in sizes:
            put(made, axis.config, sizes[name])
    return made


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


def sizes_told(used: set[str], family: Family, known: Mapping[str, int], given: Mapping[str, int]) -> dict[str, int]:
    """The sizes that a plan is told: those `given`, and of those that are known what shapes cannot tell and its rules use."""
    hidden = used & schema(family.name).hidden
    return {**{axis: size for axis, size in known.items() if axis in hidden}, **given}


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
    told = sizes_told(used, family, known, given or {})
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


def plan_makeable(
    programs: Sequence[Program],
    source: Mapping[str, TensorSpec],
    family: Family,
    known: Mapping[str, int],
    config: Mapping[str, Any],
) -> Plan:
    """The plan of what can be made: no rule asks for what is not there, and tensors that fit none or lack a part are left out.

    Raises MorphError for what stays wrong.
    """
    lenient = relaxed(programs)
    left = dict(source)
    for rounds_left in reversed(range(MOST_ROUNDS)):
        try:
            return plan_sized(lenient, Manifest(left), family, known, config)[0]
        except MorphError as refused:
            lacking = {name for gap in refused.gaps if gap.kind in ("incomplete", "unmatched") for name in gap.tensors}
            if not rounds_left or not lacking & set(left):
                raise
            left = {name: tensor for name, tensor in left.items() if name not in lacking}
    raise AssertionError("the last round returns or raises")


def relaxed(programs: Sequence[Program]) -> tuple[Program, ...]:
    """The programs with every rule's `?`: what is not there is not asked for."""
    return tuple(replace(one, rules=tuple(replace(rule, maybe=True) for rule in one.rules)) for one in programs)


def layout_keys(layout: Layout, sizes: Mapping[str, int], groups: Iterable[str] | None = None) -> Manifest:
    """The key set of a layout for a model of these sizes: the hub's, planned into it, as far as it can be made of these groups.

    Raises MorphError, KeyError.
    """
    family = layout.family
    known = family.complete(sizes)
    hub = schema(family.name).expand(known, groups)
    if layout.is_hub:
        return hub
    config = merged(family.example, family_config(family, known))
    return plan_makeable(layout.morph.inverse.programs(config), hub, family, known, config).manifest
