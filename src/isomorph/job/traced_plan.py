"""The morph of a trace, proved on the reference's state dict and cut down to the candidate's; found where none is given."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from isomorph.errors import Gap, MorphError, UsageError
from isomorph.job.both_recognised import both_recognised
from isomorph.job.port import UNCHANGED, Port, make_port

if TYPE_CHECKING:
    from isomorph.plan.plan import Plan
    from isomorph.tensors import Manifest

MOST_SHOWN = 8

Configs = tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]


@dataclass(frozen=True)
class TracedPlan:
    """A plan whose targets are the candidate's; what the morph is called, its text, and what was noted on the way."""

    plan: Plan
    title: str
    text: str
    notes: tuple[str, ...] = ()
    is_found: bool = False
    """The morph was not given: it is printed."""


def traced_plan(
    reference: Manifest,
    candidate: Manifest,
    morph: Any = None,
    *,
    inverse: bool = False,
    to: str | None = None,
    from_: str | None = None,
    config: Any = None,
    settings: Sequence[str] = (),
    sizes: Mapping[str, int] | None = None,
    own_configs: Configs = (None, None),
) -> TracedPlan:
    """Prove the morph on the reference's names and shapes, and hold what comes out against the candidate's.

    Without a morph: the identity where names and shapes say so, else the way between the two layouts, which are recognised, else
    what inference reads from names and shapes without a doubt. Raises MorphError for a morph that does not fit (with every gap, and
    with `--inverse` where it fits the other way round), and where no layout is recognised and names leave something open.
    """
    told: dict[str, Any] = {"config": config, "settings": settings, "sizes": sizes}
    if morph is not None or to is not None:
        port = make_port(_chain(morph), inverse=inverse, to=to, from_=from_, **told)
        return _proved(_with_config(port, own_configs), reference, candidate)
    if inverse:
        raise UsageError("--inverse needs a --morph: without one, the morph is found from the two state dicts")
    if _is_identity(reference, candidate):
        return _proved(make_port([_parsed(UNCHANGED)], **told), reference, candidate)
    try:
        return _between_layouts(reference, candidate, from_, told, own_configs)
    except MorphError as refused:
        if from_ is not None or refused.kinds != {"layout"}:
            raise
        return _inferred(reference, candidate, told, own_configs, refused)


def _inferred(
    reference: Manifest, candidate: Manifest, told: Mapping[str, Any], configs: Configs, refused: MorphError
) -> TracedPlan:
    """The morph that names and shapes alone say, where they leave nothing open; else what all of them were refused for."""
    from isomorph.job.inferred_plan import inferred

    found = inferred(_without(reference, _copies(reference)), _without(candidate, _copies(candidate)), configs)
    if not found.text:
        raise MorphError([*refused.gaps, *found.gaps]) from None
    port = _with_config(make_port([_parsed(found.text)], **told), configs)
    proved = _proved(port, reference, candidate)
    title = "inferred from names and shapes"
    return replace(proved, title=title, notes=(*found.notes, *proved.notes), is_found=True)


def _chain(morph: Any) -> list[Any]:
    """Morphs as `make_port` takes them: files, morphs of the language or of the API, and texts."""
    given = [] if morph is None else list(morph) if isinstance(morph, list | tuple) else [morph]
    chain = [getattr(one, "language", one) for one in given]
    return [_parsed(one) if isinstance(one, str) and ("<->" in one or "\n" in one) else one for one in chain]


def _parsed(text: str) -> Any:
    from isomorph.language.morph import InCatalogue, Morph

    return Morph.parse(
        text, file="<morph>" if text != UNCHANGED else "unchanged", load=InCatalogue() if "use " in text else None
    )


def _with_config(port: Port, configs: Configs) -> Port:
    """The port with the reference's own config where none was given; read backward, the candidate's first."""
    if port.file_config is not None:
        return port
    for config in reversed(configs) if port.is_backward else configs:
        if config is not None:
            return replace(port, file_config=config, config_from="the model's own config")
    return port


def _is_identity(reference: Manifest, candidate: Manifest) -> bool:
    """All names that one side has are the other's too, in the same shapes."""
    if not len(reference) or not len(candidate):
        return True
    common = [name for name in candidate if name in reference]
    same = all(reference[name].shape == candidate[name].shape for name in common)
    return same and len(common) == min(len(reference), len(candidate))


def _between_layouts(
    reference: Manifest,
    candidate: Manifest,
    from_: str | None,
    told: Mapping[str, Any],
    configs: Configs,
) -> TracedPlan:
    """The way through the hub. Of names that are one tensor, files hold the first; a copy that only the candidate needs is kept."""
    copies = _copies(reference)
    best = _way(_without(reference, copies), candidate, from_, told, configs)
    for name in copies:
        if not _unmade(best.plan, candidate):
            break
        try:
            tried = _way(_without(reference, [one for one in copies if one != name]), candidate, from_, told, configs)
        except (MorphError, UsageError):
            continue
        if len(_unmade(tried.plan, candidate)) < len(_unmade(best.plan, candidate)):
            best = tried
    return best


def _way(
    source: Manifest, candidate: Manifest, from_: str | None, told: Mapping[str, Any], configs: Configs
) -> TracedPlan:
    """From one recognised layout to the other; what one of the two lacks (a head, a tower) is left out."""
    from isomorph.layouts.compose import added, between, plan_makeable, plan_sized, stripped
    from isomorph.layouts.route import route

    first, second = both_recognised(source, _without(candidate, _copies(candidate)), from_, configs)
    if first.layout.family.name != second.layout.family.name:
        raise UsageError(
            f"the reference is {first.layout}, the candidate {second.layout}: of two families, and nothing leads from one to the "
            "other. Give the morph between them: --morph M.morph"
        )
    given = _with_config(make_port(**told), configs)
    try:
        way = route(source, str(second.layout), str(first.layout), given.config, given.sizes)
    except MorphError:  # the model's own config is not one of its shapes
        way = route(source, str(second.layout), str(first.layout), make_port(**told).config, given.sizes)
    chain: Any = None
    for stage in (
        stripped(first.fit.wrapper) if first.fit.wrapper else None,
        added(first.fit.base) if first.fit.base else None,
        between(first.layout, second.layout),
        stripped(second.fit.base) if second.fit.base else None,
        added(second.fit.wrapper) if second.fit.wrapper else None,
    ):
        if stage is not None:
            chain = stage if chain is None else chain @ stage
    chain = chain if chain is not None else _parsed(UNCHANGED)
    programs, family = chain.programs(way.config), first.layout.family
    try:
        plan, _ = plan_sized(programs, source, family, way.known, way.config, way.sizes)
    except MorphError as refused:
        try:
            plan = plan_makeable(programs, source, family, way.known, way.config)
        except MorphError:
            raise refused from None
    title = f"{first.layout} -> {second.layout}"
    cut, notes = _cut(plan, source, candidate)
    found = (f"no morph was given: the layouts were recognised, {title}", *way.notes[: bool(first.seen_through)])
    return TracedPlan(cut, title, chain.text, (*found, *notes), is_found=True)


def _copies(manifest: Manifest) -> list[str]:
    """Of names that are one tensor all but the first."""
    order = {name: place for place, name in enumerate(manifest)}
    return [name for group in manifest.shared for name in sorted(group, key=order.__getitem__)[1:]]


def _without(manifest: Manifest, names: Collection[str]) -> Manifest:
    from isomorph.tensors import Manifest as Held

    return Held({name: spec for name, spec in manifest.items() if name not in names}, origin=manifest.origin)


def _proved(port: Port, reference: Manifest, candidate: Manifest) -> TracedPlan:
    """The plan, held against the candidate and cut down to it.

    A morph for files fits models too: of names that are one tensor, files hold one, and a library may name its modules otherwise
    than its files (transformers 5 does). Raises what the morph as it is was refused for.
    """
    port = port.settled(reference)
    try:
        best = _held(port, reference, candidate)
    except MorphError as refused:
        tried = next(_held_as_files(port, reference, candidate), None)
        if tried is None:
            raise MorphError([*refused.gaps, *_other_way(refused.gaps, port, reference, candidate)]) from None
        return tried
    if not _unmade(best.plan, candidate):
        return best
    tries = [best, *_held_as_files(port, reference, candidate)]
    return min(tries, key=lambda one: len(_unmade(one.plan, candidate)))


def _held_as_files(port: Port, reference: Manifest, candidate: Manifest) -> Iterator[TracedPlan]:
    """The same of the two models as files of them are, wherever that can be proved."""
    for source, stages, note in _as_in_files(port, reference, candidate):
        try:
            made = _held(port, source, candidate, stages, note)
        except MorphError:
            continue
        yield made


Stages = tuple[Any, Any]
"""What is read before the morph, and after it; None for nothing."""


def _held(
    port: Port, reference: Manifest, candidate: Manifest, stages: Stages = (None, None), note: str | None = None
) -> TracedPlan:
    if port.morph is not None:
        chain = port.morph
        if stages[0] is not None:
            chain = stages[0] @ chain
        if stages[1] is not None:
            chain = chain @ stages[1]
        port = port if chain is port.morph else replace(port, morph=chain)
    cut, notes = _cut(port.plan(reference), reference, candidate)
    said = port.notes if note is None else (*port.notes, note)
    return TracedPlan(cut, port.title, "" if port.morph is None else port.morph.text, (*said, *notes))


def _as_in_files(port: Port, reference: Manifest, candidate: Manifest) -> Iterator[tuple[Manifest, Stages, str | None]]:
    """The two models as files of them are: tied names once, and names of the layout that the catalogue leads to."""
    if port.morph is None or port.route is not None:
        return
    once = _without(reference, _copies(reference))
    if len(once) < len(reference):
        yield once, (None, None), None
    first, second = _to_hub(once), _to_hub(_without(candidate, _copies(candidate)))
    before = None if first is None else first[1]
    after = None if second is None else second[1].inverse
    if first is not None:
        yield (
            once,
            (before, None),
            f"the reference's modules are named as {first[0]}, the morph reads names as in its files",
        )
    if second is not None:
        said = f"the candidate's modules are named as {second[0]}, the morph makes names as in its files"
        yield once, (None, after), said
        if first is not None:
            yield (
                once,
                (before, after),
                f"the reference's modules are named as {first[0]}, the candidate's as {second[0]}",
            )


def _to_hub(manifest: Manifest) -> tuple[str, Any] | None:
    """A recognised layout that is not its hub, and the morph from these names to the hub's."""
    from isomorph.layouts.compose import stripped
    from isomorph.layouts.recognise import recognise

    try:
        found = recognise(manifest, None)
    except (MorphError, UsageError):
        return None
    if found.ambiguous or found.layout.is_hub:
        return None
    morph = found.layout.morph
    return str(found.layout), stripped(found.fit.wrapper) @ morph if found.fit.wrapper else morph


def _cut(plan: Plan, reference: Manifest, candidate: Manifest) -> tuple[Plan, list[str]]:
    """The plan of those targets that the candidate has; notes of what is left over. Raises MorphError for shapes that differ."""
    both = {name for name in plan.targets if name in candidate}
    gaps = [
        Gap(
            "like",
            f"`{name}` is {list(candidate[name].shape)} in the candidate; the morph makes {list(plan.targets[name].spec.shape)}",
            tensors=(name,),
        )
        for name in plan.targets
        if name in both and plan.targets[name].spec.shape != candidate[name].shape
    ]
    if not both and len(candidate) and len(reference):
        gaps = [_nothing_made(plan, candidate)]
    if gaps:
        raise MorphError(gaps)
    cut = replace(
        plan,
        targets={name: target for name, target in plan.targets.items() if name in both},
        moves=tuple(move for move in plan.moves if move.target.tensor in both),
    )
    return cut, _left_over(plan, candidate)


def _nothing_made(plan: Plan, candidate: Manifest) -> Gap:
    makes, has = ", ".join(list(plan.targets)[:3]), ", ".join(list(candidate)[:3])
    return Gap(
        "like",
        "the morph makes no tensor that the candidate has",
        details=(f"the morph makes {makes} …", f"the candidate has {has} …"),
        hint="It must lead from the reference's state dict to the candidate's",
    )


def _unmade(plan: Plan, candidate: Manifest) -> list[str]:
    """The candidate's tensors that nothing makes, by any of their names."""
    tied = {name for group in candidate.shared if any(one in plan.targets for one in group) for name in group}
    return [name for name in candidate if name not in plan.targets and name not in tied]


def _left_over(plan: Plan, candidate: Manifest) -> list[str]:
    """What nothing makes, and what is made for nobody."""
    lacking = _unmade(plan, candidate)
    extra = [name for name in plan.targets if name not in candidate]
    notes = []
    if lacking:
        notes.append(
            f"the morph makes nothing of {len(lacking)} of the candidate's tensors, which keep their values: {_listed(lacking)}"
        )
    if extra:
        notes.append(f"the candidate lacks {len(extra)} tensors that the morph makes: {_listed(extra)}")
    return notes


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_SHOWN]) + (f" … and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else "")


def _other_way(gaps: Sequence[Gap], port: Port, reference: Manifest, candidate: Manifest) -> list[Gap]:
    """A hint where the morph fits the other way round."""
    if port.morph is None or port.route is not None or any("--inverse" in str(gap) for gap in gaps):
        return []
    turned = replace(port, morph=port.morph.inverse, is_backward=not port.is_backward)
    try:
        made = turned.plan(reference).targets
    except MorphError:
        return []
    fits = [name for name in made if name in candidate and made[name].spec.shape == candidate[name].shape]
    if not fits or len(fits) < len([name for name in made if name in candidate]):
        return []
    flag = (
        "Did you mean to leave --inverse out?"
        if port.is_backward
        else "Did you mean --inverse (in Python inverse=True)?"
    )
    return [Gap("like", f"read the other way round, the morph makes {len(fits)} of the candidate's tensors", hint=flag)]
