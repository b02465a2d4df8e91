"""A match -> its members: each link with the forms that shapes allow."""

from __future__ import annotations

from collections.abc import Sequence

from isomorph.infer.by_name.axes import Form, Stack, forms, padded
from isomorph.infer.by_name.correspondence import Correspondence, Link, Match
from isomorph.infer.by_name.facts import Facts
from isomorph.infer.by_name.orientation import Member, kind_of, leaf
from isomorph.infer.by_name.part_order import fused, rotated
from isomorph.infer.by_name.reorder import has_versions, parts_within, reordered
from isomorph.infer.by_name.rows import Rows
from isomorph.tensors import Manifest

Sides = tuple[Manifest, Manifest]
ROTATED = frozenset({"query", "key"})


def members_of(
    match: Match, sides: Sides, facts: Facts, widths: Sequence[int], is_same: bool, rows: Rows | None = None
) -> list[Member] | None:
    """Every link of a match with its forms; None where a link has none, so that shapes deny it."""
    found = []
    for link in match.links:
        several = _forms(link, sides, facts, widths, is_same, rows or {})
        if not several:
            return None
        first = next(link.source_names), next(link.target_names)
        found.append(Member(link, match.key, tuple(several), kind_of(*first, sides), _role(link)))
    return found


def _role(link: Link) -> str:
    """What an order is asked of: the roles of the parts, `query and key` for either by itself."""
    several = link.sources if len(link.sources) > 1 else link.targets
    if len(several) == 1:
        return "query and key" if several[0].role in ROTATED else several[0].role
    return ", ".join(sorted(bundle.role for bundle in several))


def _forms(link: Link, sides: Sides, facts: Facts, widths: Sequence[int], is_same: bool, rows: Rows) -> list[Form]:
    sources = [Stack.of(bundle, sides[0]) for bundle in link.sources]
    targets = [Stack.of(bundle, sides[1]) for bundle in link.targets]
    left = [one for one in sources if one is not None]
    right = [one for one in targets if one is not None]
    if len(left) < len(sources) or len(right) < len(targets) or not left or not right:
        return []
    if len(left) > 1 and len(right) > 1:
        return []
    if len(left) > 1:
        return distinct(fused(left, right[0], facts))
    if len(right) > 1:
        return distinct([form.mirrored for form in fused(right, left[0], facts)])
    one, other = left[0], right[0]
    found = forms(one, other) if one.numel == other.numel else padded(one, other)
    is_rotated = facts.rotary and ROTATED & {one.role, other.role} and not is_same and one.names != other.names
    is_copy = (is_same or one.names == other.names) and not has_versions(one.names[0])
    inside = None if is_copy else parts_within(one, other)
    if inside is not None:
        found = [each for form in found for each in reordered(form, *inside, facts)]
        if len({form.order for form in found}) < 2:
            return []  # how the parts lie cannot be asked without knowing the heads
    elif is_rotated:
        dims = rows.get((0, leaf(one.names[0]))), rows.get((1, leaf(other.names[0])))
        found = [each for form in found for each in rotated(form, widths, rows=dims)]
    return distinct(found)


def distinct(found: Sequence[Form]) -> list[Form]:
    """The forms, each once: two of one turn, cut and order are one."""
    kept: dict[tuple[str, str, str], Form] = {}
    for form in found:
        kept.setdefault((form.turn, form.cut, form.order), form)
    return list(kept.values())


def query_widths(found: Correspondence, sides: Sides, facts: Facts) -> tuple[int, ...]:
    """What the width of a head may be, where queries and keys are tensors of their own: it divides the rows of all of them."""
    rows: dict[int, None] = {}
    options = [match for each in found.choices for option in each.options for match in option]
    for match in (*found.matches, *options):
        for link in match.links:
            if len(link.sources) == len(link.targets) == 1 and ROTATED & {link.sources[0].role, link.targets[0].role}:
                shape = sides[0][next(link.source_names)].shape
                at = -1 if leaf(next(link.source_names)) == "kernel" else 0
                if 1 <= len(shape) <= 2:
                    rows[shape[at]] = None
    return facts.head_dims(sorted(rows, reverse=True), even=True) if rows else ()
