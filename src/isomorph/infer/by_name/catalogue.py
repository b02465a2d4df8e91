"""Two manifests -> what the catalogue of layouts says of them: relations where all readings agree, questions where they do not.

A reading is a layout for either side and the plan between them. Names may fit several layouts, and a size that no shape tells (how
many heads) may be several things: then there are several readings, and only what all of them say is certain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

from isomorph.errors import MorphError
from isomorph.infer.by_name.cut import cut
from isomorph.infer.by_name.readings import Ties, alike, normal_form
from isomorph.language.morph import Morph
from isomorph.layouts.catalogue import Layout, find
from isomorph.layouts.compose import (
    IDENTITY,
    added,
    axes_of,
    between,
    family_config,
    merged,
    plan_makeable,
    plan_sized,
    stripped,
)
from isomorph.layouts.fit import Fit, hold
from isomorph.layouts.hub import folded
from isomorph.layouts.index import scores
from isomorph.layouts.recipe import in_hub_terms
from isomorph.layouts.recognise import recognise, unwrapped
from isomorph.plan.moves import Box, Move, names_of
from isomorph.plan.plan import Plan
from isomorph.tensors import Manifest

LEAST_SCORE = 0.5
"""A layout that fits a side only in part must score so much."""
MOST_TRIED = 4
MOST_SIZES = 8
"""How many sizes of one axis are tried where nothing tells it."""
LEAST_MADE = 0.5
"""The share of the target's tensors that a reading in part must make."""
HEAD_DIMS = (64, 128, 32, 80, 96, 256, 16, 48, 72, 112, 192, 40, 24, 8, 12)
"""Widths of a head in the models of the field, the usual ones first."""


@dataclass(frozen=True)
class Side:
    """A layout that a side may be in: what is taken off its names, what is put before them, and the sizes it tells."""

    layout: Layout
    wrapper: str
    base: str
    sizes: Mapping[str, int]
    is_whole: bool

    @staticmethod
    def of(fit: Fit, is_whole: bool) -> Side:
        """What a fit says."""
        return Side(fit.layout, fit.wrapper, fit.base, fit.sizes, is_whole)

    @property
    def removed(self) -> Morph | None:
        """From the names as they are to those of the layout."""
        return _chain([stripped(self.wrapper) if self.wrapper else None, added(self.base) if self.base else None])

    @property
    def restored(self) -> Morph | None:
        """From the layout's names to those as they are."""
        return _chain([stripped(self.base) if self.base else None, added(self.wrapper) if self.wrapper else None])


@dataclass(frozen=True)
class Reading:
    """One way to read both sides: what makes each target tensor that both agree on, by name and shape."""

    title: str
    moves: Mapping[str, tuple[Move, ...]]
    ties: Ties
    is_whole: bool
    dropped: tuple[str, ...] = ()
    """Sources that it leaves out."""
    assumed: tuple[tuple[str, int], ...] = ()
    """Sizes that nothing tells and that this reading assumes."""

    @cached_property
    def forms(self) -> Mapping[str, object]:
        """The moves of each target as they can be compared."""
        return {name: normal_form(moves) for name, moves in self.moves.items()}

    def says(self, name: str, other: Reading) -> bool:
        """Whether this reading makes a target of the same elements as the other does, up to what it holds equal."""
        return alike(self.forms[name], other.forms[name], self.ties)


def readings(
    source: Manifest,
    target: Manifest,
    configs: tuple[Mapping[str, Any] | None, Mapping[str, Any] | None] = (None, None),
) -> tuple[Reading, ...]:
    """Every reading of the two sides that explains them best; () when no family of the catalogue has both."""
    config, other_config = configs[0] or configs[1], configs[1] or configs[0]
    sources, targets = list(_sides(source, config)), list(_sides(target, other_config))
    if not {side.layout.family.name for side in sources} & {side.layout.family.name for side in targets}:
        sources, targets = (
            _distinct([*sources, *_within(source, config, targets)]),
            _distinct([*targets, *_within(target, other_config, sources)]),
        )
    found = [
        reading
        for one in sources
        for other in targets
        if one.layout.family.name == other.layout.family.name
        for reading in _readings(one, other, source, target, config)
    ]
    if any(reading.is_whole for reading in found):
        found = [reading for reading in found if reading.is_whole]
    if not found:
        return ()
    most = max(len(reading.moves) - len(reading.dropped) for reading in found)
    found = [reading for reading in found if len(reading.moves) - len(reading.dropped) == most]
    return tuple(sorted(found, key=lambda one: (len(one.ties.pairs), one.title, one.assumed)))


def _within(manifest: Manifest, config: Mapping[str, Any] | None, others: Sequence[Side]) -> Iterator[Side]:
    """What a side may be within the families of the other: names of Llama in one layout are those of Mistral in another."""
    for family in dict.fromkeys(side.layout.family.name for side in others):
        yield from _sides(manifest, config, within=family)


def _distinct(sides: Sequence[Side]) -> list[Side]:
    return list({(str(side.layout), side.wrapper, side.base): side for side in sides}.values())


def _sides(manifest: Manifest, config: Mapping[str, Any] | None, within: str | None = None) -> Iterator[Side]:
    try:
        found = recognise(manifest, config, within=within)
    except MorphError:
        yield from _partly(manifest, config, within)
        return
    yield Side.of(found.fit, True)
    wrapped = found.fit.wrapper
    for layout, _ in found.others:
        bare = Manifest({name.removeprefix(wrapped): spec for name, spec in manifest.items()}) if wrapped else manifest
        for base in dict.fromkeys(("", found.fit.base, layout.base or "")):
            fit = hold(layout, bare, config, {}, wrapper=wrapped, base=base)
            if fit.fits:
                yield Side.of(fit, True)
                break


def _partly(manifest: Manifest, config: Mapping[str, Any] | None, within: str | None) -> Iterator[Side]:
    """The layouts that hold a side but for tensors beside the model, or that must be told a size."""
    tried = [
        (wrapper, bare, score)
        for wrapper, bare in unwrapped(manifest)
        for score in scores(bare)
        if score.value >= LEAST_SCORE and (within is None or score.layout.startswith(f"{within}/"))
    ]
    tried.sort(key=lambda one: (-one[2].value, len(one[0])))
    for wrapper, bare, score in tried[:MOST_TRIED]:
        fit = hold(find(score.layout), bare, config, {}, wrapper=wrapper, base=score.base, score=score)
        if fit.wants or fit.asks:
            yield Side.of(fit, True)
        elif _is_beside(fit.unknown, bare) and all(gap.kind in ("idle", "incomplete", "unmatched") for gap in fit.gaps):
            yield Side.of(fit, False)


def _is_beside(unknown: Sequence[str], names: Iterable[str]) -> bool:
    """Whether the names that a layout does not know lie outside the blocks that it does know: heads, projections, another stack.

    A tensor that it does not know *inside* a layer means another kind of layer, whose other tensors may mean something else too.
    """
    left = set(unknown)
    blocks = {_block(name) for name in names if name not in left} - {""}
    return all(_block(name) not in blocks for name in unknown)


def _block(name: str) -> str:
    """What stands before the first index of a name; empty without one."""
    before, mark, _ = folded(name).partition("#")
    return before if mark else ""


def _readings(
    one: Side, other: Side, source: Manifest, target: Manifest, config: Mapping[str, Any] | None
) -> Iterator[Reading]:
    family = one.layout.family
    chain = _chain([one.removed, between(one.layout, other.layout), other.restored]) or Morph.parse(IDENTITY)
    known = {**one.sizes, **other.sizes}
    facts: dict[str, Any] = merged(family_config(family, known), in_hub_terms(family.name, config) or {})
    whole = merged(facts, config or {})
    programs = chain.programs(whole)
    open_axes = [
        axis
        for axis in family.axes
        if axis in axes_of(programs, whole) and axis not in known and not _index(axis, family.axes)
    ]
    for assumed in _assumptions(open_axes, known):
        try:
            sizes = family.complete({**known, **assumed})
        except ValueError:
            continue
        try:
            if one.is_whole and other.is_whole:
                plan = plan_sized(programs, source, family, sizes, whole)[0]
            else:
                plan = plan_makeable(programs, source, family, sizes, whole)
        except MorphError:
            continue
        reading = _held(plan, f"{one.layout} -> {other.layout}", target, tuple(sorted(assumed.items())))
        if reading is not None:
            yield reading


def _index(axis: str, axes: Mapping[str, Any]) -> bool:
    return axes[axis].ragged or axis.endswith("layers")


def _assumptions(axes: Sequence[str], known: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """What the sizes that nothing tells may be: nothing to assume first, then heads of the usual widths."""
    yield {}
    for axis in axes:
        if not axis.endswith("heads") or axis.startswith("kv"):
            continue
        widths = [known[name] for name in (axis.removesuffix("heads") + "width", "q_width", "inner") if name in known]
        if not widths:
            continue
        divisors = [size for size in HEAD_DIMS if widths[0] % size == 0 and size < widths[0]]
        for head_dim in divisors[:MOST_SIZES]:
            yield {axis: widths[0] // head_dim}


def _held(plan: Plan, title: str, target: Manifest, assumed: tuple[tuple[str, int], ...]) -> Reading | None:
    """The reading that a plan is, None where it makes a tensor of another shape than the target has, or too few. Of layers that one
    side has more of it says nothing."""
    made = {name for name in plan.targets if name in target}
    if any(plan.targets[name].spec.shape != target[name].shape for name in made):
        return None
    if len(made) < LEAST_MADE * len(target):
        return None
    moves: dict[str, list[Move]] = {name: [] for name in plan.targets if name in made}
    for move in plan.moves:
        if move.target.tensor in made:
            moves[move.target.tensor].append(move)
    read = {name for several in moves.values() for move in several for name in names_of(move.source)}
    doubtful = cut(plan.source, read) | cut(target, made)
    if doubtful:
        moves = {
            name: several
            for name, several in moves.items()
            if name not in doubtful
            and doubtful.isdisjoint(source for move in several for source in names_of(move.source))
        }
    ties = Ties(
        tuple(
            (check.source.tensor, check.expected.tensor)
            for check in plan.checks
            if check.kind == "tie" and isinstance(check.source, Box) and isinstance(check.expected, Box)
        )
    )
    is_whole = set(plan.targets) == set(target)
    return Reading(title, {name: tuple(found) for name, found in moves.items()}, ties, is_whole, plan.dropped, assumed)


def _chain(stages: Iterable[Morph | None]) -> Morph | None:
    found = [stage for stage in stages if stage is not None]
    return reduce(lambda one, other: one @ other, found) if found else None
