"""The morph of a trace, proved on the reference's state dict and cut down to the candidate's; found where none is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from isomorph.errors import Gap, MorphError, UsageError
from isomorph.job.loading import Held, named_as
from isomorph.job.port import UNCHANGED, Port, make_port

if TYPE_CHECKING:
    from isomorph.plan.plan import Plan
    from isomorph.tensors import Manifest

MOST_SHOWN = 8


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
    own_configs: tuple[Mapping[str, Any] | None, Mapping[str, Any] | None] = (None, None),
) -> TracedPlan:
    """Prove the morph on the reference's names and shapes, and hold what comes out against the candidate's.

    Without a morph: the identity where names and shapes say so, else the way between the two layouts, which are recognised. Raises
    MorphError for a morph that does not fit (with every gap, and with `--inverse` where it fits the other way round), and where a
    layout is not recognised.
    """
    told: dict[str, Any] = {"config": config, "settings": settings, "sizes": sizes}
    if morph is not None or to is not None:
        port = make_port(_chain(morph), inverse=inverse, to=to, from_=from_, **told)
        return _proved(_with_config(port, own_configs), reference, candidate)
    if inverse:
        raise UsageError("--inverse needs a --morph: without one, the morph is found from the two state dicts")
    if _is_identity(reference, candidate):
        return _proved(make_port([_parsed(UNCHANGED)], **told), reference, candidate)
    return _between_layouts(reference, candidate, from_, told, own_configs)


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


def _with_config(port: Port, configs: tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]) -> Port:
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
    configs: tuple[Mapping[str, Any] | None, Mapping[str, Any] | None],
) -> TracedPlan:
    from isomorph.layouts.compose import added

    first = _recognised(reference, "reference", configs[0], from_)
    second = _recognised(candidate, "candidate", configs[1], None, first.layout.family.name)
    if first.layout.family.name != second.layout.family.name:
        raise UsageError(
            f"the reference is {first.layout}, the candidate {second.layout}: of two families, and nothing leads from one to the "
            "other. Give the morph between them: --morph M.morph"
        )
    port = _with_config(make_port(to=str(second.layout), from_=str(first.layout), **told), configs)
    port = port.settled(reference)
    names = {name.removeprefix(second.fit.wrapper): spec for name, spec in candidate.items()}
    port = named_as(Held(names, {}, frozenset(), "the candidate"), port, port.plan(reference))
    if second.fit.wrapper:
        stage = added(second.fit.wrapper)
        port = replace(port, morph=stage if port.morph is None else port.morph @ stage)
    found = _proved(port, reference, candidate)
    title = f"{first.layout} -> {second.layout}"
    return replace(
        found,
        title=title,
        notes=(f"no morph was given: the layouts were recognised, {title}", *found.notes),
        is_found=True,
    )


def _recognised(
    manifest: Manifest, word: str, config: Mapping[str, Any] | None, named: str | None, within: str | None = None
) -> Any:
    from isomorph.layouts.catalogue import find
    from isomorph.layouts.recognise import ambiguity, recognise

    try:
        found = recognise(manifest, config, only=None if named is None else find(named), within=within)
        if found.ambiguous and named is None:
            raise ambiguity(found)
    except MorphError as refused:
        hint = "Give the morph between the two models: --morph M.morph (in Python morph=…)"
        raise MorphError(
            [*refused.gaps, Gap("layout", f"the {word}'s state dict was not recognised", hint=hint)]
        ) from None
    return found


def _proved(port: Port, reference: Manifest, candidate: Manifest) -> TracedPlan:
    """The plan, held against the candidate and cut down to it."""
    port = port.settled(reference)
    try:
        plan = port.plan(reference)
    except MorphError as refused:
        raise MorphError([*refused.gaps, *_other_way(port, reference, candidate)]) from None
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
        raise MorphError([*gaps, *_other_way(port, reference, candidate)])
    cut = replace(
        plan,
        targets={name: target for name, target in plan.targets.items() if name in both},
        moves=tuple(move for move in plan.moves if move.target.tensor in both),
    )
    text = "" if port.morph is None else port.morph.text
    return TracedPlan(cut, port.title, text, (*port.notes, *_left_over(plan, candidate)))


def _nothing_made(plan: Plan, candidate: Manifest) -> Gap:
    makes, has = ", ".join(list(plan.targets)[:3]), ", ".join(list(candidate)[:3])
    return Gap(
        "like",
        "the morph makes no tensor that the candidate has",
        details=(f"the morph makes {makes} …", f"the candidate has {has} …"),
        hint="It must lead from the reference's state dict to the candidate's",
    )


def _left_over(plan: Plan, candidate: Manifest) -> list[str]:
    """What nothing makes, and what is made for nobody."""
    tied = {name for group in candidate.shared if any(one in plan.targets for one in group) for name in group}
    lacking = [name for name in candidate if name not in plan.targets and name not in tied]
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


def _other_way(port: Port, reference: Manifest, candidate: Manifest) -> list[Gap]:
    """A hint where the morph fits the other way round."""
    if port.morph is None or port.route is not None:
        return []
    turned = replace(port, morph=port.morph.inverse, is_backward=not port.is_backward)
    try:
        made = turned.plan(reference).targets
    except MorphError:
        return []
    fits = [name for name in made if name in candidate and made[name].spec.shape == candidate[name].shape]
    if not fits or len(fits) < len([name for name in made if name in candidate]):
        return []
    flag = "leave --inverse out" if port.is_backward else "Did you mean --inverse (in Python inverse=True)?"
    return [Gap("like", f"read the other way round, the morph makes {len(fits)} of the candidate's tensors", hint=flag)]
