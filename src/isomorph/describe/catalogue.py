"""The catalogue in print: families, the layouts of one, how exact each conversion is, a layout's text, and its key set."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isomorph.describe.text import columns, count, listed
from isomorph.errors import MorphError, UsageError, near_misses
from isomorph.layouts.catalogue import SPLICES, Layout, families, family, layouts, splices
from isomorph.layouts.compose import IDENTITY, family_config, layout_keys, merged, plan_sized, relaxed
from isomorph.layouts.hub import schema
from isomorph.layouts.index import small_sizes

if TYPE_CHECKING:
    from isomorph.layouts.family import Family
    from isomorph.tensors import Manifest


MOST_KEYS = 1_000_000
TOWERS = ("layers", "width", "heads", "head_dim", "ffn")
"""Axes that models of two towers have once for each, with the tower's name before them."""


def family_lines() -> Iterator[str]:
    """All families, each with its layouts."""
    rows = [(name, family(name).title, ", ".join(one.name for one in layouts(name))) for name in families()]
    yield from columns(rows)
    total = sum(len(layouts(name)) for name in families())
    yield f"{len(rows)} families, {total} layouts; the first of each is its hub, and any leads to any other through it"
    yield f"{len(splices())} splices make one model of several:  isomorph layouts {SPLICES}"


def splice_table() -> Iterator[str]:
    """The splices: how each is called with its inputs, and what it makes."""
    for one in splices():
        yield f"isomorph convert {one.header.inputs or 'NAME=PATH …'} DST -m {one}"
        yield f"    {one.header.title}"


@dataclass(frozen=True)
class Exactness:
    """What a layout keeps of the hub's tensors, and the other way round; names are folded."""

    layout: Layout
    forward: str
    backward: str
    dropped: tuple[str, ...]
    """Hub tensors that the layout does not carry."""


def exactness(layout: Layout) -> Exactness:
    """Plan a small model into a layout and back, and say what is lost on either way."""
    of = layout.family
    if layout.is_hub:
        return Exactness(layout, "exact", "exact", ())
    sizes = small_sizes(layout)
    config = merged(of.example, family_config(of, sizes))
    hub = schema(of.name).expand(sizes, of.groups)
    try:
        there, _ = plan_sized(layout.morph.inverse.programs(config), hub, of, sizes, config)
        back, _ = plan_sized(layout.morph.programs(config), there.manifest, of, sizes, config)
    except MorphError:
        listed_hub = schema(of.name).expand(sizes)
        there, _ = plan_sized(relaxed(layout.morph.inverse.programs(config)), listed_hub, of, sizes, config)
        back, _ = plan_sized(relaxed(layout.morph.programs(config)), there.manifest, of, sizes, config)
    return Exactness(layout, _class(back), _class(there), there.dropped)


def _class(plan: Any) -> str:
    worst = {"exact": 0, "rounding": 1, "one-way": 2}
    return max((target.klass for target in plan.targets.values()), key=worst.__getitem__, default="exact")


def layout_table(name: str) -> Iterator[str]:
    """The layouts of a family: what each is, and how exactly it leads to the hub and back."""
    of = family(name)
    yield f"{of.title} · hub {name}/{of.hub} · any layout leads to any other through it, as one plan"
    rows = []
    for one in layouts(name):
        facts = exactness(one)
        kept = f"{facts.forward}, back {facts.backward}" if facts.forward != facts.backward else facts.forward
        lost = f"without {parts_text(one, facts.dropped)}" if facts.dropped else ""
        rows.append((f"  {name}/{one.name}", kept, lost, one.header.title))
    yield from columns(rows)


def parts_text(layout: Layout, dropped: Sequence[str]) -> str:
    """The groups of the hub that are dropped whole, the largest first named; else the names."""
    hub = schema(layout.family.name)
    lost = set(dropped)
    members: dict[str, set[str]] = {}
    for name in hub.expand(small_sizes(layout), layout.family.groups):
        found = hub.which(name)
        for group in found[0].groups if found is not None else ():
            members.setdefault(group, set()).add(name)
    whole = {group: names for group, names in members.items() if names <= lost}
    said: dict[str, None] = {}
    for name in dropped:
        of = [group for group, names in whole.items() if name in names]
        said[max(of, key=lambda group: len(whole[group])) if of else re.sub(r"\d+", "N", name)] = None
    return listed(list(said), 4)


def text_between(source: Layout, target: Layout) -> str:
    """The morph's text from one layout to another, to begin with; `use` lines name the catalogue's files in full."""
    from isomorph.layouts.compose import between

    chain = between(source, target)
    if chain is None:
        return f"# {source} is {target}: every name stays\n{IDENTITY}"
    head = ""
    if len(chain.stages) > 1:
        head = f"# {source} to {target} in {len(chain.stages)} stages, each a file of its own:  -m first.morph -m second.morph\n"
    return head + re.sub(
        r"(?m)^(\s*use\??\s+(?:inverse\s+)?)([\w-]+)\s*$", rf"\g<1>{source.family.name}/\g<2>", chain.text
    )


def of_every_tower(of: Family, settings: Mapping[str, int]) -> dict[str, int]:
    """`layers` where a family has them for each of its towers (`vision_layers`, `text_layers`): all of these."""
    found: dict[str, int] = {}
    for axis, size in settings.items():
        towers = [] if axis in of.axes else [one for one in of.axes if one.endswith(f"_{axis}") and axis in TOWERS]
        found.update(dict.fromkeys(towers or [axis], size))
    return {**found, **{axis: size for axis, size in settings.items() if axis in of.axes}}


def key_set(
    layout: Layout, settings: Mapping[str, int], without: Iterable[str] = (), with_: Iterable[str] = ()
) -> Manifest:
    """A layout's key set for a model of these sizes; of the best-known model where none are given. f32.

    Raises UsageError for an axis or a group that the family does not have, or a size that is not given.
    """
    of = layout.family
    hub = schema(of.name)
    settings = of_every_tower(of, settings)
    unknown = [axis for axis in settings if axis not in of.axes]
    if unknown:
        raise UsageError(f"{of.name} has no axis {', '.join(unknown)}{_meant(unknown[0], of.axes)}")
    groups = {*hub.listed_groups(), *with_} - set(without)
    foreign = [group for group in (*with_, *without) if group not in of.groups]
    if foreign:
        raise UsageError(f"{of.name} has no part {', '.join(foreign)}{_meant(foreign[0], of.groups)}")
    try:
        sizes = _sizes(of, settings)
        if hub.count(sizes, groups) > MOST_KEYS:
            raise UsageError(
                f"that is {hub.count(sizes, groups):,} tensors; a key set of more than {MOST_KEYS:,} is not listed"
            )
        return layout_keys(layout, sizes, groups)
    except KeyError as missing:
        raise UsageError(f"the size of {missing} is not known: give it with --set {missing}=N") from None


def _meant(name: str, known: Iterable[str]) -> str:
    near = near_misses(name, list(known))
    return f". Did you mean {' or '.join(near)}?" if near else f"; there are {', '.join(known)}"


def _sizes(of: Family, settings: Mapping[str, int]) -> dict[str, int]:
    """The sizes that are set, and the best-known model's for all that they do not settle. Raises UsageError for a contradiction."""
    try:
        known = of.complete(dict(settings))
    except ValueError as clash:
        raise UsageError(f"the sizes contradict each other: {clash}") from None
    for axis, size in of.complete(of.sizes).items():
        if axis not in known:
            try:
                known = of.complete({**known, axis: size})
            except ValueError:
                continue
    lost = [axis for axis in of.complete(of.sizes) if axis not in known]
    if lost:
        told = ", ".join(f"{axis}={size}" for axis, size in settings.items())
        raise UsageError(f"no {lost[0]} goes with {told}: they do not divide")
    return known


def key_head(layout: Layout, keys: Manifest, settings: Mapping[str, int]) -> str:
    """The first line above a key set."""
    sizes = _sizes(layout.family, of_every_tower(layout.family, settings))
    told = ", ".join(f"{axis}={sizes[axis]}" for axis in layout.family.axes if axis in sizes)
    whose = "" if settings else " (the best-known model's; --set others)"
    return f"{layout} · {count(len(keys), 'tensor')} · {told}{whose}"


def markdown() -> Iterator[str]:
    """The catalogue as a page."""
    yield "# The catalogue of layouts"
    yield ""
    yield "Generated by `isomorph layouts --markdown`, and held to the catalogue by a test."
    yield "`isomorph convert SRC DST --to FAMILY/LAYOUT` leads from any layout of a family to any other, as one plan."
    yield "*exact*: both ways, bit for bit; *without*: what the layout does not carry of the hub."
    for name in families():
        of = family(name)
        yield ""
        yield f"## {of.title} (`{name}`)"
        yield ""
        yield "| layout | what it is | hub → layout → hub | facts it states | loaded with |"
        yield "|---|---|---|---|---|"
        for one in layouts(name):
            facts = exactness(one)
            kept = facts.forward if facts.forward == facts.backward else f"{facts.forward}, back {facts.backward}"
            kept += f", without {parts_text(one, facts.dropped)}" if facts.dropped else ""
            stated = "; ".join(f"`{key}={value}`" for key, value in one.header.facts.items())
            load = f"`{one.header.load}`" if one.header.load else ""
            yield f"| `{one}` | {_cell(one.header.title)} | {_cell(kept)} | {_cell(stated)} | {_cell(load)} |"
    yield ""
    yield "## Splices"
    yield ""
    yield "| morph | inputs | what it makes | loaded with |"
    yield "|---|---|---|---|"
    for splice in splices():
        load = f"`{splice.header.load}`" if splice.header.load else ""
        title, inputs = splice.header.title, splice.header.inputs or ""
        yield f"| `-m {splice}` | `{inputs}` | {_cell(title)} | {_cell(load)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
