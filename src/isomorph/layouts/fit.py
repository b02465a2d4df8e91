"""One layout held against a checkpoint's names: what it makes of them in the hub, and why it does not fit where it does not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from isomorph.errors import Gap, MorphError
from isomorph.layouts.catalogue import Layout
from isomorph.layouts.compose import (
    family_config,
    look_up,
    merged,
    plan_makeable,
    plan_sized,
    relaxed,
    sizes_of_config,
    sizes_of_plan,
)
from isomorph.layouts.hub import Clash, Found, schema
from isomorph.layouts.index import Score
from isomorph.layouts.recipe import in_hub_terms
from isomorph.plan.moves import Box, Check, names_of
from isomorph.tensors import Manifest

if TYPE_CHECKING:
    from isomorph.plan.plan import Plan

NO_SIZE = re.compile(r"^ax[ie]s |ha(?:s|ve) no size")
"""What a plan says of an axis that nothing tells."""


@dataclass(frozen=True)
class Fit:
    """One layout held against a checkpoint's names. `gaps` are why it does not fit; None of them: it does.

    `plan` leads to the hub (None where the layout is the hub), `hub` is what it makes there, `found` what that says.
    `wrapper` was taken off every name, `base` put before it. `unknown` are names of the checkpoint that it does not have, `missing`
    names that it must have and that the checkpoint lacks, both as the checkpoint would write them.
    """

    layout: Layout
    wrapper: str
    base: str
    score: Score
    plan: Plan | None = None
    hub: Manifest = field(default_factory=lambda: Manifest({}))
    found: Found = field(default_factory=lambda: Found({}))
    sizes: Mapping[str, int] = field(default_factory=dict)
    gaps: tuple[Gap, ...] = ()
    unknown: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        return not (self.gaps or self.unknown or self.missing)

    @property
    def asks(self) -> bool:
        """Whether all that it lacks is a config, which its `when` lines ask for."""
        return bool(self.gaps) and not (self.unknown or self.missing) and all(gap.kind == "config" for gap in self.gaps)

    @property
    def wants(self) -> tuple[str, ...]:
        """The axes of the vocabulary that it must be told, if that is all that it lacks: of those that stand in one equation, all
        but one; () when it fits, or lacks something else."""
        if self.unknown or self.missing or not all(NO_SIZE.search(gap.message) for gap in self.gaps):
            return ()
        found: dict[str, None] = {}
        for gap in self.gaps:
            axes = re.findall(r"\w+", NO_SIZE.sub("", gap.message).replace(" and ", " "))
            known = [axis for axis in self.layout.family.axes if axis in axes]
            found.update(dict.fromkeys(known[: max(1, len(axes) - 1)]))
        return tuple(found)

    def ties(self, shared: Sequence[frozenset[str]]) -> int:
        """How many tensors it takes to be equal copies: what takes fewer is right for any values. Copies that lie on the same bytes
        (`shared`) are equal for certain: of layouts all of whose copies do, the one that knows most of them comes first."""
        found = [
            {self.wrapper + name.removeprefix(self.base) for name in _names_of(check)}
            for check in (self.plan.checks if self.plan is not None else ())
            if check.kind == "tie"
        ]
        if found and all(any(names <= group for group in shared) for names in found):
            return -len(found)
        return len(found)

    def denied(self, config: Mapping[str, Any] | None) -> tuple[int, int]:
        """How many of the facts that the layout states the source's config denies; and, negative, how many it affirms."""
        told = in_hub_terms(self.layout.family.name, config)
        facts = [(look_up(told, key), value) for key, value in self.layout.header.facts.items()]
        return sum(one not in (None, value) for one, value in facts), -sum(one == value for one, value in facts)

    @property
    def result(self) -> object:
        """What tells whether two fits read the same thing."""
        moves = () if self.plan is None else tuple((m.target, m.source, m.operators) for m in self.plan.moves)
        is_identity = self.plan is None or (
            all(target == source and not operators for target, source, operators in moves)
            and set(self.hub) == set(self.plan.source)
        )
        return "identity" if is_identity else moves


def _names_of(check: Check) -> Iterable[str]:
    """The tensors that a check holds against each other."""
    return (side.tensor for side in (check.source, check.expected) if isinstance(side, Box))


def hold(
    layout: Layout,
    manifest: Manifest,
    config: Mapping[str, Any] | None,
    given: Mapping[str, int],
    *,
    wrapper: str = "",
    base: str = "",
    score: Score | None = None,
) -> Fit:
    """Hold a layout against names: plan them into the hub, and read that by the hub's schema."""
    family = layout.family
    names = Manifest({base + name: tensor for name, tensor in manifest.items()}) if base else manifest
    score = score or Score(str(layout), 1.0, 1.0, base)
    fit = Fit(layout, wrapper, base, score)
    stated = {**sizes_of_config(family, config, layout), **{k: v for k, v in given.items() if k in family.axes}}
    whole = merged(family_config(family, stated), config or {})
    plan: Plan | None = None
    hub = names
    try:
        if not layout.is_hub:
            plan, _ = plan_sized(layout.morph.programs(whole), names, family, family_known(layout, stated), whole)
            hub = plan.manifest
    except MorphError as refused:
        return _unfit(fit, names, refused, stated, whole)
    found = schema(family.name).read(hub, stated, dict.fromkeys(given, "--set"))
    known = {**stated, **({} if plan is None else sizes_of_plan(family, plan)), **found.sizes}
    problem = [_clash_gap(clash, plan, base) for clash in found.clashes]
    try:
        known = family.complete(known)
    except ValueError as clash:
        problem.append(Gap("size", str(clash)))
    return replace(
        fit,
        plan=plan,
        hub=hub,
        found=found,
        sizes=known,
        gaps=tuple(problem),
        unknown=tuple(name.removeprefix(base) for name in found.unknown) if layout.is_hub else (),
        missing=_in_layout(layout, hub, found, known, names, whole, base),
    )


def family_known(layout: Layout, stated: Mapping[str, int]) -> dict[str, int]:
    """The stated sizes and what follows from them; what contradicts itself is left as it was stated."""
    try:
        return layout.family.complete(stated)
    except ValueError:
        return dict(stated)


def _unfit(fit: Fit, names: Manifest, refused: MorphError, stated: Mapping[str, int], config: Mapping[str, Any]) -> Fit:
    """Why a layout does not fit: what it would read of the rest, so that what is missing can be named too."""
    layout, family = fit.layout, fit.layout.family
    unknown = tuple(name for gap in refused.gaps if gap.kind == "unmatched" for name in gap.tensors)
    other = tuple(gap for gap in refused.gaps if gap.kind not in ("unmatched", "idle", "incomplete"))
    missing: tuple[str, ...] = ()
    found = Found({})
    try:
        plan = plan_makeable(layout.morph.programs(config), names, family, family_known(layout, stated), config)
    except MorphError:
        pass  # nothing can be made of it
    else:
        found = schema(family.name).read(plan.manifest, stated)
        missing = _in_layout(layout, plan.manifest, found, found.sizes, names, config, fit.base)
    gaps = tuple(gap for gap in refused.gaps if gap.kind != "unmatched") if not (unknown or missing) else other
    return replace(
        fit, found=found, gaps=gaps, unknown=tuple(name.removeprefix(fit.base) for name in unknown), missing=missing
    )


def _in_layout(
    layout: Layout,
    hub: Manifest,
    found: Found,
    sizes: Mapping[str, int],
    names: Mapping[str, object],
    config: Mapping[str, Any],
    base: str,
) -> tuple[str, ...]:
    """What is missing in the hub, as the layout writes it (as the hub does where that cannot be told)."""
    if not found.missing:
        return ()
    if layout.is_hub:
        return tuple(name.removeprefix(base) for name in found.missing)
    try:
        everything = Manifest({**hub, **found.missing_specs})
        back, _ = plan_sized(relaxed(layout.morph.inverse.programs(config)), everything, layout.family, sizes, config)
    except MorphError:
        return tuple(f"{name} (in {layout.family.name}/{layout.family.hub})" for name in found.missing)
    return tuple(name.removeprefix(base) for name in back.targets if name not in names)


def _clash_gap(clash: Clash, plan: Plan | None, base: str) -> Gap:
    """A clash in the hub's terms, as the checkpoint has it."""
    if clash.tensor is None:
        hint = None
        if clash.axis is not None:
            hint = f"If the file is right:  --set {clash.axis}={clash.size}"
        return Gap("size", str(clash), hint=hint)
    if plan is None:
        return Gap("size", str(replace(clash, tensor=clash.tensor.removeprefix(base))), tensors=(clash.tensor,))
    read = dict.fromkeys(
        name for move in plan.moves if move.target.tensor == clash.tensor for name in names_of(move.source)
    )
    names = [name.removeprefix(base) for name in read]
    shapes = ", ".join(f"{name} [{' '.join(map(str, plan.source[name].shape))}]" for name in read) or "a constant"
    return Gap("size", f"{shapes.removeprefix(base)} becomes {clash.tensor} {clash.shapes}", tensors=tuple(names))
