"""A checkpoint's names -> what the catalogue says of them: the layout, the sizes read off, what else it could be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isomorph.describe.text import escaped
from isomorph.errors import Gap, MorphError
from isomorph.layouts.hub import schema
from isomorph.layouts.misfit import UNKNOWN
from isomorph.layouts.recognise import SAME, Recognition, recognise
from isomorph.tensors import Manifest

MOST_LINES = 6
"""Of why no layout fits; a conversion says all of it."""
MOST_TENSORS = 100_000
"""A checkpoint of more is not held against the catalogue just to be looked at."""


def recognised(manifest: Manifest, config: Mapping[str, Any] | None = None) -> Recognition | Gap | None:
    """The layout of these names; why it is none, or which it could be, where the catalogue knows names like these; else None."""
    if not manifest or len(manifest) > MOST_TENSORS:
        return None
    try:
        return recognise(manifest, config)
    except MorphError as refused:
        return refused.gaps[0] if refused.gaps[0].message != UNKNOWN else None


def layout_lines(found: Recognition | Gap | None) -> list[str]:
    """What `inspect` prints of it; nothing for a checkpoint whose names no layout knows."""
    if found is None:
        return []
    if isinstance(found, Gap):
        more = [*found.details[:MOST_LINES], *(["…"] if len(found.details) > MOST_LINES else []), found.hint or ""]
        return [f"layout    {escaped(found.message)}", *(f"          {escaped(line)}" for line in more if line)]
    lines = [f"layout    {found.layout} · {found.layout.header.title}"]
    if found.seen_through:
        lines[0] += f" · {escaped(found.seen_through)}"
    lines += [f"          or {layout}: {why}" for layout, why in found.others if why != SAME]
    told = sizes_text(found)
    if told:
        lines.append(f"sizes     {told}")
    return lines


def sizes_text(found: Recognition) -> str:
    """`24 layers · width 1,024 · heads 16 if head dim is 64`: what shapes tell, and what they cannot."""
    family, known = found.layout.family, found.sizes
    parts, not_told = [], []
    for name, axis in family.axes.items():
        if name in known and not axis.ragged and axis.config is not None:
            parts.append(
                f"{known[name]} {axis.says}" if axis.says.endswith("layers") else f"{axis.says} {known[name]:,}"
            )
        elif name not in known and axis.config is not None and _would_be_there(found, name):
            not_told.append(_if_usual(found, name) or axis.says)
    if not_told:
        parts.append(f"not in the shapes: {', '.join(not_told)} (config.json or --set tells)")
    return " · ".join(parts)


def _if_usual(found: Recognition, axis: str) -> str:
    """`heads 16 if head dim is 64`: what an axis would be in a model whose other unknown size is the best-known model's."""
    family = found.layout.family
    best_known = family.complete(family.sizes)
    for other in family.axes:
        usual = best_known.get(other)
        if other == axis or other in found.sizes or usual is None:
            continue
        try:
            size = family.complete({**found.sizes, other: usual}).get(axis)
        except ValueError:
            continue
        if size is not None:
            return f"{family.axes[axis].says} {size:,} if {family.axes[other].says} is {usual:,}"
    return ""


def _would_be_there(found: Recognition, axis: str) -> bool:
    """Whether an axis that nothing tells belongs to a part that is there: tensors that it shapes, other sizes of its tower."""
    hub, family = schema(found.layout.family.name), found.layout.family
    shaped = {axis, *(one.name for one in family.axes.values() if axis in one.follows_from)}
    shaped &= set(hub.axes_needed(family.groups))
    if shaped and not shaped & set(hub.axes_needed(found.fit.found.groups)):
        return False
    head, _, tail = axis.partition("_")
    siblings = [one for one in found.layout.family.axes if one != axis and one.startswith(head + "_")]
    return not tail or not siblings or any(one in found.sizes for one in siblings)


def to_json(found: Recognition | Gap | None) -> dict[str, Any] | None:
    """The same, as data."""
    if found is None:
        return None
    if isinstance(found, Gap):
        return {"layout": None, "problem": found.message, "details": list(found.details), "hint": found.hint}
    return {
        "layout": str(found.layout),
        "others": {str(layout): why for layout, why in found.others},
        "wrapper": found.fit.wrapper,
        "base": found.fit.base,
        "sizes": dict(found.sizes),
    }
