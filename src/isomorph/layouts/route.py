"""--to LAYOUT [--from LAYOUT], on a checkpoint -> Route: the one chain of morphs that leads there, and all it must be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from isomorph.errors import MorphError, UsageError, near_misses
from isomorph.layouts.catalogue import Layout, families, find, layouts
from isomorph.layouts.compose import (
    added,
    axes_of,
    between,
    family_config,
    merged,
    plan_sized,
    put,
    sizes_told,
    stripped,
)
from isomorph.layouts.recipe import in_hub_terms
from isomorph.layouts.recognise import Recognition, ambiguity, recognise
from isomorph.tensors import Manifest

if TYPE_CHECKING:
    from isomorph.language.morph import Morph
    from isomorph.plan.plan import Plan


@dataclass(frozen=True)
class Route:
    """How a checkpoint gets from its layout to another.

    `morph` is None where every name stays. `sizes` are those the plan must be told, `known` all of the vocabulary that are known,
    `config` what `when` lines may ask: what was given, over what sizes and the source layout's stated facts say.
    """

    source: Recognition
    target: Layout
    morph: Morph | None
    sizes: Mapping[str, int] = field(default_factory=dict)
    known: Mapping[str, int] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    given: Mapping[str, Any] = field(default_factory=dict)
    """The source's config with what was set, as it was before sizes and facts were put below it."""
    base: str = ""
    """The prefix that was left out of the target's names, because the model has no head."""
    proved: Plan | None = field(default=None, repr=False, compare=False)
    """The plan that finding the sizes took, for these tensors and nothing else asked: it need not be made twice."""

    @property
    def title(self) -> str:
        return f"{self.source.layout} -> {self.target}"

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided on the way, for people."""
        notes = [self.source.seen_through] if self.source.seen_through else []
        if self.base:
            notes.append(f"no head: {self.target} names it without `{self.base}`")
        lacking = self.source.fit.found.missing
        if lacking and not self.source.fit.missing:
            shown = ", ".join(lacking[:3]) + (" …" if len(lacking) > 3 else "")
            notes.append(f"{self.source.layout} does not carry {len(lacking)} tensors of the whole model: {shown}")
        return tuple(notes)


def check_names(to: str, from_: str | None) -> tuple[str | None, Layout | None]:
    """The family that is certain before a checkpoint is seen, and the source layout if it is named whole. Raises UsageError."""
    head, slash, _ = to.partition("/")
    if slash:
        found = find(to).family.name
        only = None if from_ is None else find(from_, within=found)
        if only is not None and only.family.name != found:
            raise UsageError(f"--from {only} and --to {to} are of two families: nothing leads from one to the other")
        return found, only
    source = None
    if from_ is not None and (("/" in from_) or len([one for one in families() if _has(one, from_)]) == 1):
        source = find(from_)
        find(to, within=source.family.name)
    elif not any(_has(one, head) for one in families()):
        find(to)  # raises, with what is near
    return (None if source is None else source.family.name), source


def _has(family: str, layout: str) -> bool:
    return any(one.is_called(layout) for one in layouts(family))


def route(
    manifest: Manifest,
    to: str,
    from_: str | None = None,
    config: Mapping[str, Any] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Route:
    """Recognise a checkpoint (or hold it against `from_`), and find the way to the layout `to`.

    Raises MorphError (kind `layout`) when it is not known what the checkpoint is, UsageError for names the catalogue lacks.
    """
    within, only = check_names(to, from_)
    given = dict(sizes or {})
    source = recognise(manifest, config, only=only, within=within, sizes=given)
    if only is None and from_ is not None:
        source = recognise(manifest, config, only=find(from_, within=source.layout.family.name), sizes=given)
    elif only is None and source.ambiguous:
        raise ambiguity(source)
    family = source.layout.family
    target = find(to, within=family.name) if "/" not in to else find(to)
    if target.family.name != family.name:
        names = [one.name for one in layouts(family.name)]
        meant = [f"{family.name}/{one}" for one in names if one == target.name] or near_misses(target.name, names)
        raise UsageError(
            f"the source is {source.layout}, and {target} is a layout of another family. "
            + (f"Did you mean --to {' or '.join(meant)}? " if meant else "")
            + f"`isomorph layouts {family.name}` lists where it can go"
        )
    facts: dict[str, Any] = {}
    for key, value in source.layout.header.stated(config).items():
        put(facts, key, value)
    known = {**source.sizes, **{axis: size for axis, size in given.items() if axis in family.axes}}
    told_config = in_hub_terms(family.name, config) or {}
    whole = merged(merged(family_config(family, known), facts), merged(told_config, config or {}))
    base = _base(source, target, known, whole)
    chain: Morph | None = None
    for stage in (
        stripped(source.fit.wrapper) if source.fit.wrapper else None,
        added(source.fit.base) if source.fit.base else None,
        between(source.layout, target),
        stripped(base) if base else None,
    ):
        if stage is not None:
            chain = stage if chain is None else chain @ stage
    if chain is not None and source.fit.base and source.fit.base == base and source.layout == target:
        chain = stripped(source.fit.wrapper) if source.fit.wrapper else None
    told: dict[str, int] = {}
    proved: Plan | None = None
    if chain is not None:
        programs = chain.programs(whole)
        used = axes_of(programs, whole)
        asked = {axis: size for axis, size in given.items() if axis in used or axis not in family.axes}
        told = sizes_told(used, family, known, asked)
        try:  # more of the known sizes are told when the plan lacks some; other gaps are for the plan that is asked for
            proved, told = plan_sized(programs, manifest, family, known, whole, told)
        except MorphError:
            proved = None
    return Route(source, target, chain, told, known, whole, dict(config or {}), base, proved)


def _base(source: Recognition, target: Layout, known: Mapping[str, int], config: Mapping[str, Any]) -> str:
    """The target's base prefix, when nothing of the model lies outside it: that is how its library saves one without a head."""
    base = target.base
    if not base or (target.family.base_always and not source.fit.base):
        return ""
    if target.is_hub:
        names = list(source.fit.hub)
    else:
        try:
            programs = target.morph.inverse.programs(config)
            names = list(plan_sized(programs, source.fit.hub, target.family, known, config)[0].targets)
        except MorphError:
            return ""
    return base if names and all(name.startswith(base) for name in names) else ""
