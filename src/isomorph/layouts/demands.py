"""What a layout must have and a checkpoint cannot give -> one error, in terms of layouts instead of rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from isomorph.errors import Gap, MorphError
from isomorph.layouts.catalogue import layouts
from isomorph.layouts.compose import look_up, plan_sized
from isomorph.layouts.recipe import in_hub_terms
from isomorph.tensors import Manifest

if TYPE_CHECKING:
    from isomorph.layouts.route import Route
    from isomorph.plan.plan import Plan

IDLE = "idle"
TIED = "tie_word_embeddings"
HEAD = "lm_head.weight"
MOST_SHOWN = 6


def check(route: Route, plan: Plan) -> None:
    """Raise MorphError where rules of the target's layout find nothing, though it must have what they make; and where it ties a
    head that the model has besides.

    In a chain of morphs such rules are only listed. What the source's layout does not carry of any model may stay away.
    """
    target, found = route.target, route.source.fit.found
    if target.is_hub:
        return
    _check_tied(route)
    if not plan.idle_later:
        return
    whole = Manifest({**route.source.fit.hub, **found.missing_specs})
    try:
        plan_sized(target.morph.inverse.programs(route.config), whole, target.family, route.known, route.config)
    except MorphError as refused:
        idle = [gap for gap in refused.gaps if gap.kind == IDLE]
        if idle:
            raise _unmet(route, idle) from None


def _check_tied(route: Route) -> None:
    """A layout that writes the embedding as head has no place for a head: whether it is a copy, only the config says."""
    if route.target.header.facts.get(TIED) is not True or HEAD not in route.source.fit.hub:
        return
    said = look_up(in_hub_terms(route.target.family.name, route.given), TIED)
    if said is True:
        return
    untied = [one for one in layouts(route.target.family.name) if f"{one.name}_tied" == route.target.name]
    hint = f"If it is a copy of the embedding:  --set config.{TIED}=true" if said is None else ""
    if untied:
        hint += f"{'. Else' if hint else 'Convert it'}  --to {untied[0]}"
    message = (
        f"{route.target} writes the embedding as head, and would leave out the head that this {route.source.layout} "
        "checkpoint has"
    )
    details = () if said is None else (f"its config says {TIED} = {str(said).lower()}",)
    raise MorphError([Gap("layout", message, details=details, hint=hint or None, tensors=(HEAD,))])


def in_layouts(route: Route, refused: MorphError) -> MorphError:
    """The refusal of a plan in terms of layouts, where rules that find nothing are its only reason."""
    return _unmet(route, refused.gaps) if all(gap.kind == IDLE for gap in refused.gaps) else refused


def _unmet(route: Route, gaps: Sequence[Gap]) -> MorphError:
    source, target = route.source.layout, route.target
    hint = f"`isomorph layouts {target.family.name}` lists the other layouts of the family"
    groups, parts = route.source.fit.found.groups, target.header.parts
    if parts and not groups.intersection(parts):
        message = f"{target} holds {' and '.join(parts)} alone, and of that this {source} checkpoint has nothing"
        return MorphError([Gap("layout", message, details=(f"it has {', '.join(sorted(groups))}",), hint=hint)])
    rules = [text.strip() for gap in gaps for text in ([gap.text] if gap.text else gap.details)]
    details = [f"{target}: {target.header.title}", *(f"nothing fits  {text}" for text in rules[:MOST_SHOWN])]
    if len(rules) > MOST_SHOWN:
        details.append(f"nor {len(rules) - MOST_SHOWN} more of its rules")
    message = f"{target} must have tensors that this {source} checkpoint has nothing for"
    return MorphError([Gap("layout", message, details=tuple(details), hint=hint)])
