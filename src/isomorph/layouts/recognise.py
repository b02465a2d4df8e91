"""Manifest -> Recognition: which layout a checkpoint is in, what was seen through, its sizes; or which two it could be, and why."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from isomorph.errors import Gap, MorphError
from isomorph.layouts.catalogue import Layout, find
from isomorph.layouts.elements import in_elements
from isomorph.layouts.fit import Fit, hold
from isomorph.layouts.index import Score, scores
from isomorph.layouts.misfit import nothing_fits, sizes_wanted
from isomorph.layouts.parts import PIECES, common_prefix, parts_of
from isomorph.tensors import Manifest

SAME = "the same names, read the same"
"""What is said of another layout that would give the same result."""

MOST_WRAPPERS = 6
"""How many pieces of what stands before every name may be a wrapper."""
MOST_TRIED = 6
LEAST_SCORE = 0.3
LEAST_WHOLE = 0.5
"""A checkpoint that scores less is first asked whether it is several."""
MANY = 2000
"""Of a checkpoint with more tensors, a layout that lacks hardly anything is the nearest, and no further ones are tried."""


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
    manifest = in_elements(manifest)
    fits = list(_fits(manifest, config, only, within, sizes or {}))
    good = [fit for fit in fits if fit.fits]
    wanting = [fit for fit in fits if fit.wants]
    if within is not None and not any(fit.layout.family.name == within for fit in good):
        wanting = [fit for fit in wanting if fit.layout.family.name == within] or ([] if good else wanting)
    elif good:
        wanting = []
    asking = [fit for fit in fits if fit.asks] if only is None else []
    if wanting:
        most = max(fit.score.value for fit in wanting)
        rivals = [fit for fit in asking if within in (None, fit.layout.family.name)]
        if good or not any(fit.score.value > most + 1e-9 for fit in rivals):
            equal = [fit for fit in rivals if abs(fit.score.value - most) <= 1e-9]
            raise MorphError([sizes_wanted([*wanting, *equal])])
    if not good:
        elsewhere = None if only is None or not manifest else _elsewhere(manifest, config, sizes)
        raise MorphError([nothing_fits(manifest, fits, only, within, elsewhere)])
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
    for fit in asking:  # as good a fit, which nobody can hold against the names without its config
        kind = (config or {}).get("model_type")
        is_known = best.layout.family.is_kind(kind) or (within is not None and fit.layout.family.name != within)
        if fit.score.value >= best.score.value - 1e-9 and not is_known:
            others.append((fit.layout, what_decides(best.layout, fit.layout)))
            ambiguous = True
    return Recognition(best, tuple(others), ambiguous)


def _elsewhere(manifest: Manifest, config: Mapping[str, Any] | None, sizes: Mapping[str, int] | None) -> Layout | None:
    """The layout that names are in which are not in the one that was said."""
    try:
        return recognise(manifest, config, sizes=sizes).layout
    except MorphError:
        return None


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


def what_decides(one: Layout, other: Layout) -> str:
    """What tells two layouts with the same names apart, as they state it."""
    for first, second in ((one, other), (other, one)):
        for name, why in first.header.like:
            if name == str(second):
                return why
    if one.family != other.family and other.family.model_type:
        return f'config.model_type decides ("{one.family.model_type}" or "{other.family.model_type}")'
    return "the names are the same"


def _fits(
    manifest: Manifest,
    config: Mapping[str, Any] | None,
    only: Layout | None,
    within: str | None,
    sizes: Mapping[str, int],
) -> Iterable[Fit]:
    tried: list[tuple[str, Manifest, Score]] = []
    for wrapper, bare in unwrapped(manifest):
        tried += [(wrapper, bare, score) for score in scores(bare)]
    if only is not None:
        tried = [one for one in tried if one[2].layout == str(only)]
    tried.sort(key=lambda one: (-one[2].value, len(one[0]), len(one[2].base)))
    if not tried:
        return
    best = tried[0][2].value
    if only is None and best < LEAST_WHOLE and parts_of(manifest):
        return
    if within is not None:
        inside = [one for one in tried if one[2].layout.startswith(within + "/") and one[2].value >= 0.9 * best]
        tried = [*inside, *(one for one in tried if one not in inside)]
    carried = _carried(manifest)
    seen: set[str] = set()
    fitted: float | None = None
    nearest: float | None = None
    for wrapper, bare, score in tried:
        if score.layout in seen or len(seen) >= MOST_TRIED:
            continue
        if fitted is not None and score.value < fitted - 1e-9:
            return
        if only is None and (score.value < LEAST_SCORE or score.value < 0.5 * best):
            continue
        if nearest is not None and score.value < nearest - 1e-9:
            return
        seen.add(score.layout)
        if only is None and find(score.layout).header.denied_by(carried):
            continue
        fit = hold(find(score.layout), bare, config, sizes, wrapper=wrapper, base=score.base, score=score)
        fitted = score.value if fit.fits and fitted is None else fitted
        if len(manifest) > MANY and nearest is None and len(fit.unknown) + len(fit.missing) < len(manifest) // 50:
            nearest = score.value
        yield fit


def _carried(manifest: Manifest) -> dict[str, Any]:
    """The numbers and words that a checkpoint carries beside its tensors, by the last piece of their names."""
    found: dict[str, Any] = {}
    for name, text in manifest.leaves.items():
        try:
            found[name.rpartition("/")[2]] = json.loads(text)
        except (ValueError, RecursionError):
            found[name.rpartition("/")[2]] = text
    return found


def unwrapped(manifest: Manifest) -> Iterable[tuple[str, Manifest]]:
    """The names as they are, and without each wrapper that all of them have: what frameworks put before every name of a model."""
    yield "", manifest
    names = list(manifest)
    if not names:
        return
    common = min(len(common_prefix(names)), min(map(len, names)) - 1)
    cuts = [at + 1 for at in range(common) if names[0][at] in PIECES]
    for cut in cuts[:MOST_WRAPPERS]:
        if not names[0][:cut].isprintable():
            return  # no framework's, and not to be written in a morph
        yield (
            names[0][:cut],
            Manifest({name[cut:]: tensor for name, tensor in manifest.items()}, origin=manifest.origin),
        )


def _decided(good: list[Fit], config: Mapping[str, Any] | None, within: str | None) -> list[Fit]:
    """The fits, the most likely first; those that a config, a family or a better fit rule out are left out."""
    if within is not None and any(fit.layout.family.name == within for fit in good):
        good = [fit for fit in good if fit.layout.family.name == within]
    kind = (config or {}).get("model_type")
    stated = [fit for fit in good if fit.layout.family.is_kind(kind)]
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
