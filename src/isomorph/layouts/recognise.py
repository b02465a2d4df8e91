"""Manifest -> Recognition: which layout a checkpoint is in, what was seen through, its sizes; or which two it could be, and why."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from isomorph.errors import Gap, MorphError, near_misses
from isomorph.layouts.catalogue import Layout, find
from isomorph.layouts.compose import family_config, look_up, merged, plan_sized, relaxed, sizes_of_config, sizes_of_plan
from isomorph.layouts.hub import Clash, Found, folded, schema
from isomorph.layouts.index import Score, scores
from isomorph.layouts.recipe import in_hub_terms
from isomorph.plan.moves import Box, Check, names_of
from isomorph.tensors import Manifest

if TYPE_CHECKING:
    from isomorph.plan.plan import Plan

NO_SIZE = re.compile(r"^ax[ie]s |ha(?:s|ve) no size")
"""What a plan says of an axis that nothing tells."""
UNKNOWN = "no layout of the catalogue knows its names"
SAME = "the same names, read the same"
"""What is said of another layout that would give the same result."""

MOST_WRAPPERS = 6
"""How many pieces of what stands before every name may be a wrapper."""
MOST_TRIED = 6
PIECES = "./"
"""What ends a piece of a name."""
LEAST_SCORE = 0.3
LEAST_PART = 0.7
"""What a part of a checkpoint must score for it to be called a model by itself."""
LEAST_WHOLE = 0.5
"""A checkpoint that scores less is first asked whether it is several."""
MOST_PARTS = 60
MANY = 2000
"""Of a checkpoint with more tensors, a layout that lacks hardly anything is the nearest, and no further ones are tried."""
FOREIGN = {
    "lora_A": "These are the low-rank updates of another checkpoint (LoRA): merge them into it first",
    "lora_down": "These are the low-rank updates of another checkpoint (LoRA): merge them into it first",
    "qweight": "These are quantised weights (GPTQ, AWQ): convert the checkpoint that they were made from",
    "absmax": "These are quantised weights (bitsandbytes): convert the checkpoint that they were made from",
    "weight_scale_inv": "These are quantised weights (blocks of f8): convert the checkpoint that they were made from",
    "exp_avg": "These are an optimizer's averages: take the part that holds the weights",
}
"""Pieces of names that tell what a checkpoint is instead of a model."""
MOST_NAMED = 12


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


@dataclass(frozen=True)
class Recognition:
    """The layout a checkpoint is in. `others` are layouts that its names fit as well, each with what decides; `ambiguous`: one of
    them would read it otherwise."""

    fit: Fit
    others: tuple[tuple[Layout, str], ...] = ()
    ambiguous: bool = False

    @property
    def layout(self) -> Layout:
        return self.fit.layout

    @property
    def sizes(self) -> Mapping[str, int]:
        return self.fit.sizes

    @property
    def seen_through(self) -> str:
        """What was done to the names before they fitted, for people; empty for nothing."""
        parts = []
        if self.fit.wrapper:
            parts.append(f"without the wrapper `{self.fit.wrapper}`")
        if self.fit.base:
            parts.append(f"a model without a head: `{self.fit.base}` left out")
        return ", ".join(parts)


def recognise(
    manifest: Manifest,
    config: Mapping[str, Any] | None = None,
    *,
    only: Layout | None = None,
    within: str | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Recognition:
    """Which layout these names are in. `only` holds them against that one; `within` a family prefers its layouts.

    Raises MorphError (kind `layout`) where nothing fits, with the nearest layout, what is missing and what is left over.
    """
    fits = list(_fits(manifest, config, only, within, sizes or {}))
    good = [fit for fit in fits if fit.fits]
    wanting = [fit for fit in fits if fit.wants]
    if within is not None and not any(fit.layout.family.name == within for fit in good):
        wanting = [fit for fit in wanting if fit.layout.family.name == within] or ([] if good else wanting)
    elif good:
        wanting = []
    if wanting:
        raise MorphError([_sizes_wanted(wanting)])
    if not good:
        raise MorphError([_nothing_fits(manifest, fits, config, only, within, sizes or {})])
    shared = [frozenset(group) for group in manifest.shared]
    good = sorted(_decided(good, config, within), key=lambda fit: (fit.denied(config), fit.ties(shared)))
    best = good[0]
    others: list[tuple[Layout, str]] = []
    ambiguous = False
    for fit in good[1:]:
        same = fit.result == best.result and fit.layout.family == best.layout.family
        stated = fit.layout.header.facts == best.layout.header.facts
        others.append((fit.layout, SAME if same and stated else what_decides(best.layout, fit.layout)))
        as_likely = (fit.denied(config), fit.ties(shared)) == (best.denied(config), best.ties(shared))
        if fit.layout.family != best.layout.family or as_likely:
            ambiguous = ambiguous or not same
    return Recognition(best, tuple(others), ambiguous)


def ambiguity(found: Recognition) -> MorphError:
    """The error that asks which of several layouts it is."""
    names = [found.layout, *(layout for layout, _ in found.others)]
    return MorphError(
        [
            Gap(
                "layout",
                f"its names fit {len(names)} layouts: {', '.join(str(one) for one in names)}",
                details=tuple(f"{layout}: {why}" for layout, why in found.others),
                hint=f"Say which:  --from {names[0]}  (or another of them)",
            )
        ]
    )


def _sizes_wanted(fits: Sequence[Fit]) -> Gap:
    """The question for sizes that a checkpoint of these names must be told, and, of several layouts, which it is."""
    best = max(fit.score.value for fit in fits)
    fits = sorted((fit for fit in fits if fit.score.value >= best - 1e-9), key=lambda fit: str(fit.layout))
    first, *others = fits
    axes = [axis for axis in first.layout.family.axes if any(axis in fit.wants for fit in fits)]
    told = "  ".join(f"--set {axis}=N" for axis in axes)
    if not others:
        return Gap(
            "layout",
            f"its names are those of {first.layout}, which must be told what neither shapes nor a config tell: {', '.join(axes)}",
            hint=f"Say:  {told}",
        )
    return Gap(
        "layout",
        f"its names fit {len(fits)} layouts: {', '.join(str(fit.layout) for fit in fits)}",
        details=tuple(f"{fit.layout}: {fit.layout.header.title}" for fit in fits),
        hint=f"Say which, and the sizes that neither shapes nor a config tell:  --from {first.layout}  {told}",
    )


def what_decides(one: Layout, other: Layout) -> str:
    """What tells two layouts with the same names apart, as they state it."""
    for first, second in ((one, other), (other, one)):
        for name, why in first.header.like:
            if name == str(second):
                return why
    if one.family != other.family and other.family.model_type:
        return f'config.model_type decides ("{one.family.model_type}" or "{other.family.model_type}")'
    return "the names are the same"


# ── holding layouts against names ────────────────────────────────────────────────────────────────────────────────────


def _fits(
    manifest: Manifest,
    config: Mapping[str, Any] | None,
    only: Layout | None,
    within: str | None,
    sizes: Mapping[str, int],
) -> Iterable[Fit]:
    tried: list[tuple[str, Manifest, Score]] = []
    for wrapper, unwrapped in _unwrapped(manifest):
        tried += [(wrapper, unwrapped, score) for score in scores(unwrapped)]
    if only is not None:
        tried = [one for one in tried if one[2].layout == str(only)]
    tried.sort(key=lambda one: (-one[2].value, len(one[0]), len(one[2].base)))
    if not tried:
        return
    best = tried[0][2].value
    if only is None and best < LEAST_WHOLE and _parts(manifest):
        return
    if within is not None:
        inside = [one for one in tried if one[2].layout.startswith(within + "/") and one[2].value >= 0.9 * best]
        tried = [*inside, *(one for one in tried if one not in inside)]
    seen: set[str] = set()
    fitted: float | None = None
    nearest: float | None = None
    for wrapper, unwrapped, score in tried:
        if score.layout in seen or len(seen) >= MOST_TRIED:
            continue
        if fitted is not None and score.value < fitted - 1e-9:
            return
        if only is None and (score.value < LEAST_SCORE or score.value < 0.5 * best):
            continue
        if nearest is not None and score.value < nearest - 1e-9:
            return
        seen.add(score.layout)
        fit = hold(find(score.layout), unwrapped, config, sizes, wrapper=wrapper, base=score.base, score=score)
        fitted = score.value if fit.fits and fitted is None else fitted
        if len(manifest) > MANY and nearest is None and len(fit.unknown) + len(fit.missing) < len(manifest) // 50:
            nearest = score.value
        yield fit


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
    whole = merged(family_config(family, stated, None), config or {})
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
    left = dict(names)
    missing: tuple[str, ...] = ()
    found = Found({})
    for _ in range(8):
        try:
            programs = relaxed(layout.morph.programs(config))
            plan, _ = plan_sized(programs, Manifest(left), family, family_known(layout, stated), config)
        except MorphError as again:
            drop = {name for gap in again.gaps if gap.kind in ("unmatched", "incomplete") for name in gap.tensors}
            if not drop & set(left):
                break
            left = {name: tensor for name, tensor in left.items() if name not in drop}
            continue
        found = schema(family.name).read(plan.manifest, stated)
        missing = _in_layout(layout, plan.manifest, found, found.sizes, names, config, fit.base)
        break
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


def _unwrapped(manifest: Manifest) -> Iterable[tuple[str, Manifest]]:
    """The names as they are, and without each wrapper that all of them have: what frameworks put before every name of a model."""
    yield "", manifest
    names = list(manifest)
    if not names:
        return
    common = min(len(_common(names)), min(map(len, names)) - 1)
    cuts = [at + 1 for at in range(common) if names[0][at] in PIECES]
    for cut in cuts[:MOST_WRAPPERS]:
        yield (
            names[0][:cut],
            Manifest({name[cut:]: tensor for name, tensor in manifest.items()}, origin=manifest.origin),
        )


def _decided(good: list[Fit], config: Mapping[str, Any] | None, within: str | None) -> list[Fit]:
    """The fits, the most likely first; those that a config, a family or a better fit rule out are left out."""
    if within is not None and any(fit.layout.family.name == within for fit in good):
        good = [fit for fit in good if fit.layout.family.name == within]
    kind = (config or {}).get("model_type")
    stated = [fit for fit in good if fit.layout.family.model_type == kind]
    if kind is not None and stated:
        good = stated
    best = max(fit.score.value for fit in good)
    shortest = min(len(fit.wrapper) for fit in good if fit.score.value >= best - 1e-9)
    kept = [
        fit
        for fit in good
        if (fit.score.value >= best - 1e-9 and len(fit.wrapper) == shortest) or (fit.layout.is_hub and not fit.wrapper)
    ]
    return sorted(kept, key=lambda fit: (not fit.layout.is_hub, -fit.score.value, len(fit.base), str(fit.layout)))


# ── saying what does not fit ─────────────────────────────────────────────────────────────────────────────────────────


def _nothing_fits(
    manifest: Manifest,
    fits: Sequence[Fit],
    config: Mapping[str, Any] | None,
    only: Layout | None,
    within: str | None,
    sizes: Mapping[str, int],
) -> Gap:
    """What a checkpoint is instead, which parts of it are models, or what came nearest and why it is not it."""
    if not manifest:
        return Gap("layout", "it holds no tensors", hint="Is it the right file?")
    if only is not None and not any(fit.wants for fit in fits):
        try:
            other = recognise(manifest, config, sizes=sizes)
        except MorphError:
            pass
        else:
            said = f"it is not in {only}: its names are those of {other.layout}"
            return Gap(
                "layout", said, hint=f"Leave --from away, or  --from {other.layout}", tensors=tuple(manifest)[:4]
            )
    best = max((fit.score.value for fit in fits), default=0.0)
    parts = _parts(manifest) if best < LEAST_PART and only is None else []
    if len(parts) > 1:
        return Gap(
            "layout",
            f"it holds {len(parts)} sets of weights: {', '.join(part.prefix for part in parts)}",
            details=tuple(
                f"{part.prefix} {part.count:,} tensors, as {part.layout} names them" for part in parts[:MOST_NAMED]
            ),
            hint="Take one:  " + "  or  ".join(f"SRC#{part.prefix.rstrip(PIECES)}" for part in parts[:4]),
        )
    if parts:
        (part,) = parts
        rest = [name for name in manifest if not name.startswith(part.prefix)]
        return Gap(
            "layout",
            f"below `{part.prefix}` are the names of {part.layout}, and beside them {_tensors(len(rest))} more",
            details=(f"beside them: {', '.join(rest[:4])}" + (" …" if len(rest) > 4 else ""),),
            hint=f"Take that part alone:  SRC#{part.prefix.rstrip(PIECES)}",
            tensors=tuple(rest),
        )
    if not fits:
        names = ", ".join(list(manifest)[:4]) + (" …" if len(manifest) > 4 else "")
        return Gap(
            "layout",
            f"it is not in {only}: none of its names is" if only else UNKNOWN,
            details=(f"it has {names}",),
            hint=_foreign(manifest)
            or "`isomorph layouts` lists what is known; another mapping is a morph of your own:  -m M.morph",
        )
    inside = [fit for fit in fits if fit.layout.family.name == within and fit.score.value >= 0.5 * best]
    return _gap_of(min(inside or fits, key=_distance), only)


def _distance(fit: Fit) -> tuple[float, ...]:
    """How far a layout is from a checkpoint: names first, then what could not even be planned, then shapes."""
    is_refused = bool(fit.gaps) and fit.plan is None and not fit.layout.is_hub
    clashes = len(fit.gaps) + len(fit.found.clashes)
    return len(fit.unknown) + len(fit.missing), is_refused, clashes, -fit.score.value


def _tensors(number: int) -> str:
    return f"{number:,} tensor" + ("" if number == 1 else "s")


def _gap_of(fit: Fit, only: Layout | None) -> Gap:
    details = [line for gap in fit.gaps[:MOST_NAMED] for line in str(replace(gap, hint=None)).split("\n")]
    if fit.unknown:
        details.append(f"{_tensors(len(fit.unknown))} that it does not know{_all_below(fit.unknown)}:")
        for name in fit.unknown[:MOST_NAMED]:
            near = near_misses(name, fit.missing)
            details.append(f"    {name}" + (f"   (is it {near[0]}?)" if near else ""))
        if len(fit.unknown) > MOST_NAMED:
            details.append(f"    … and {len(fit.unknown) - MOST_NAMED:,} more")
    if fit.missing:
        are = "is" if len(fit.missing) == 1 else "are"
        details.append(f"{_tensors(len(fit.missing))} that it needs and that {are} not there{_all_below(fit.missing)}:")
        details += [f"    {name}" for name in fit.missing[:MOST_NAMED]]
        if len(fit.missing) > MOST_NAMED:
            details.append(f"    … and {len(fit.missing) - MOST_NAMED:,} more")
    through = f" (without the wrapper `{fit.wrapper}`)" if fit.wrapper else ""
    if not (fit.unknown or fit.missing) and any(gap.kind == "size" for gap in fit.gaps):
        message = f"it has the names of {fit.layout}{through}, but not its shapes"
    elif only is not None:
        message = f"it does not fit {only}{through}"
    else:
        message = f"it fits no layout of the catalogue; the nearest is {fit.layout}{through}"
    return Gap("layout", message, details=tuple(details), hint=_remedy(fit), tensors=fit.unknown + fit.missing)


def _remedy(fit: Fit) -> str:
    """What to do about a checkpoint that does not fit."""
    foreign = _foreign(fit.unknown)
    if foreign:
        return foreign
    if fit.unknown and not (fit.missing or fit.gaps):
        return f"A morph of your own leaves them out first:  drop {fit.wrapper}{fit.unknown[0]}  (and so on), then  ** <-> **"
    if fit.gaps and not (fit.unknown or fit.missing):
        return next((gap.hint for gap in fit.gaps if gap.hint), None) or "Is the file what it is said to be?"
    if fit.missing and not fit.unknown:
        return "Is it the whole checkpoint (all its shards, all its layers)?"
    return f"Mend the names or the file; or begin with the layout's own text:  isomorph layouts {fit.layout}"


def _foreign(names: Iterable[str]) -> str | None:
    """What these names tell a checkpoint to be, where it is no model's weights."""
    pieces = {piece for name in names for piece in re.split(r"[./]", name)}
    return next((said for piece, said in FOREIGN.items() if piece in pieces), None)


def _common(names: Sequence[str]) -> str:
    """What all names begin with."""
    first, last = min(names), max(names)
    same = (at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other)
    return first[: next(same, min(len(first), len(last)))]


def _all_below(names: Sequence[str]) -> str:
    """`, all below layers.7.`: what several names have in common, in whole pieces."""
    if len(names) < 3:
        return ""
    same = _common(names)
    cut = max(same.rfind(piece) for piece in PIECES) + 1
    return f", all below {same[:cut]}" if cut else ""


@dataclass(frozen=True)
class Part:
    """A prefix of some names, below which the names of a layout lie."""

    prefix: str
    count: int
    layout: str


def _parts(names: Iterable[str]) -> list[Part]:
    """The prefixes under which a checkpoint holds a whole model each: weights and their average, student and teacher, two towers.

    The shallowest that are enough; numbers are taken out of names first, so that many layers cost as much as one.
    """
    counts: dict[str, int] = {}
    for name in names:
        shape = folded(name)
        counts[shape] = counts.get(shape, 0) + 1
    found: list[Part] = []
    queue = [("", counts)]
    tried = 0
    while queue and tried < MOST_PARTS:
        before, inside = queue.pop(0)
        below: dict[str, dict[str, int]] = {}
        for name, number in inside.items():
            ends = [at for at in (name.find(piece) for piece in PIECES) if at >= 0]
            if ends:
                below.setdefault(name[: min(ends) + 1], {})[name[min(ends) + 1 :]] = number
        for piece, rest in below.items():
            if "#" in piece or "" in rest or len(rest) < 2:
                continue
            tried += 1
            ranked = scores(rest)
            best = [one for one in ranked if one.value >= max(LEAST_PART, ranked[0].value)]
            if best:
                found.append(
                    Part(before + piece, sum(rest.values()), " or ".join(sorted(one.layout for one in best[:3])))
                )
            else:
                queue.append((before + piece, rest))
    return found
