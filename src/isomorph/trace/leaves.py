"""Which leaf modules of two sides correspond, and by which channels: what their parameters, and the modules themselves, say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from isomorph.trace.bridge import Bridge, Entries
from isomorph.trace.channels import Answer, Asker
from isomorph.trace.nouns import Array, Channels, Link
from isomorph.trace.owners import Owners
from isomorph.trace.pairing import Unpaired, beside, is_one_for_many, pools, settled


@dataclass(frozen=True)
class Edge:
    """A module of each side that share parameters: the links of what goes in and comes out."""

    reference: str
    candidate: str
    parameters: tuple[tuple[str, str], ...]
    links: tuple[Link, ...]


def leaf_edges(bridge: Bridge, asked: tuple[Asker, Asker], owners: tuple[Owners, Owners]) -> list[Edge]:
    """Edges between leaf modules. A module with a parameter that is linked to nothing, though the morph pairs it, has none."""
    shared: dict[tuple[str, str], list[tuple[str, str]]] = {}
    partners: dict[tuple[int, str], set[tuple[str, str | None]]] = {}
    for pair in bridge.pairs:
        modules = [owners[side].owner.get(pair[side]) for side in (0, 1)]
        for side in (0, 1):
            mine, other = modules[side], modules[1 - side]
            if mine is not None and mine in owners[side].whole:
                partners.setdefault((side, mine), set()).add((pair[side], other))
        if modules[0] in owners[0].whole and modules[1] in owners[1].whole:
            shared.setdefault((str(modules[0]), str(modules[1])), []).append(pair)
    edges = [
        Edge(one, other, tuple(pairs), links)
        for (one, other), pairs in shared.items()
        if (links := _links(bridge, asked, one, other, pairs))
    ]
    while True:
        spread = {
            (side, module)
            for (side, module), needs in partners.items()
            if _is_spread(needs, [edge for edge in edges if (edge.reference, edge.candidate)[side] == module], side)
        }
        kept = [edge for edge in edges if (0, edge.reference) not in spread and (1, edge.candidate) not in spread]
        if len(kept) == len(edges):
            return edges
        edges = kept


def _is_spread(needs: set[tuple[str, str | None]], edges: list[Edge], side: int) -> bool:
    """True when a parameter of the module is linked to no module: its partner is another, which this module holds a part of."""
    linked_modules = {(edge.reference, edge.candidate)[1 - side] for edge in edges}
    linked = {pair[side] for edge in edges for pair in edge.parameters}
    return bool(edges) and any(
        other is not None and other not in linked_modules and name not in linked for name, other in needs
    )


def _links(
    bridge: Bridge, asked: tuple[Asker, Asker], reference: str, candidate: str, pairs: list[tuple[str, str]]
) -> tuple[Link, ...]:
    """The output's link and, where there is one, the input's; nothing where the outputs share no channel."""
    left, right = asked
    if (_kind_of_input(left, reference) == "i") != (_kind_of_input(right, candidate) == "i"):
        return ()
    for one, other in sorted(pairs, key=lambda pair: -len(left.shape(pair[0]))):
        for axis in range(len(left.shape(one))):
            answer = left.output(reference, one, axis)
            if answer is None:
                continue
            found = _along(bridge, right, candidate, one, axis, other)
            if found is None:
                continue
            entries, candidate_axis, other_answer = found
            link = Link(
                "out", reference, candidate, Channels(answer.axis, other_answer.axis, entries.reference, entries.candidate),
                None, answer.tensor, other_answer.tensor,
            )  # fmt: skip
            made = made_link(link, left.tensors(reference, "out"), right.tensors(candidate, "out"))
            if made is None:
                continue
            into = _input_link(bridge, asked, reference, candidate, (one, axis), (other, candidate_axis), made)
            return (into, made) if into is not None else (made,)
    return ()


def _along(
    bridge: Bridge, asker: Asker, module: str, one: str, axis: int, other: str
) -> tuple[Entries, int, Answer] | None:
    """The axis of the candidate's parameter that the reference's output axis is, and which axis of the output that is there.

    The module is asked about this axis; one that answers only for another (a weight that its code transposes) is taken at that.
    """
    shape = asker.shape(other)
    for candidate_axis in range(len(shape)):
        entries = bridge.entries(other, candidate_axis, one, axis)
        if entries is None:
            continue
        for tried in (candidate_axis, *(each for each in range(len(shape)) if each != candidate_axis)):
            answer = asker.output(module, other, tried) if shape[tried] == shape[candidate_axis] else None
            if answer is not None:
                return entries, candidate_axis, answer
        for index, array in asker.tensors(module, "out").items():
            fits = [at for at in range(array.ndim) if array.shape[at] == shape[candidate_axis]]
            if array.dtype.kind == "f" and len(fits) == 1:
                return entries, candidate_axis, Answer(index, fits[0])
    return None


def _input_link(
    bridge: Bridge,
    asked: tuple[Asker, Asker],
    reference: str,
    candidate: str,
    one: tuple[str, int],
    other: tuple[str, int],
    output: Link,
) -> Link | None:
    """What goes in, first tensor with first tensor; permuted where the morph permutes the weights' input channels."""
    left, right = asked
    link = Link("in", reference, candidate)
    shapes = left.shape(one[0]), right.shape(other[0])
    for axis in range(len(shapes[0])):
        for candidate_axis in range(len(shapes[1])):
            if axis == one[1] or candidate_axis == other[1]:
                continue
            entries = bridge.entries(other[0], candidate_axis, one[0], axis)
            if entries is None or entries.is_identity(shapes[0][axis], shapes[1][candidate_axis]):
                continue
            at = left.input(reference, one[0], axis)
            other_at = right.input(candidate, other[0], candidate_axis)
            if at is not None:
                channels = Channels(at, at if other_at is None else other_at, entries.reference, entries.candidate)
                link = replace(link, channels=channels)
    is_norm = len(shapes[0]) == len(shapes[1]) == 1
    if is_norm and output.channels is not None:
        whole = Entries(output.channels.reference, output.channels.candidate)
        if not whole.is_identity(shapes[0][0], shapes[1][0]):
            link = replace(link, channels=output.channels)
    return made_link(link, left.tensors(reference, "in"), right.tensors(candidate, "in"))


def made_link(link: Link, left: dict[int, Array], right: dict[int, Array]) -> Link | None:
    """The link, its order settled; None where its tensors are not there or are of no one content."""
    one, other = left.get(link.reference_index), right.get(link.candidate_index)
    if one is None or other is None or (one.dtype.kind == "f") != (other.dtype.kind == "f"):
        return None
    link = settled(link, one, other)
    try:
        beside(link, one, other)
        is_same = not is_one_for_many(link, one, other)
    except Unpaired:
        is_same = False
    if is_same:
        return link
    axis = pools(one, other)
    if axis is not None:
        return replace(link, taken=(axis, ()), order=None)
    return replace(link, order=None) if _is_cut_short(link, one, other) else None


def _is_cut_short(link: Link, one: Array, other: Array) -> bool:
    """Whether two tensors differ in the length of one axis alone, which is none of channels: a token is missing."""
    differ = [axis for axis in range(one.ndim) if one.ndim == other.ndim and one.shape[axis] != other.shape[axis]]
    if len(differ) != 1 or one.ndim < 2 or 1 in (one.shape[differ[0]], other.shape[differ[0]]):
        return False
    if link.channels is None:
        return differ[0] < one.ndim - 1 or one.dtype.kind != "f"
    return differ[0] not in (link.channels.reference_axis % one.ndim, link.channels.candidate_axis % one.ndim)


def first_floating(tensors: Mapping[int, Array]) -> int | None:
    """The index of the first floating tensor at a border; None where there is none."""
    return next((index for index, array in tensors.items() if array.dtype.kind == "f"), None)


def block_links(asked: tuple[Asker, Asker], reference: str, candidate: str) -> tuple[Link, ...]:
    """What goes into and comes out of two blocks: the first floating tensors, where sizes let them be of one content."""
    found = []
    for border in ("in", "out"):
        left, right = asked[0].tensors(reference, border), asked[1].tensors(candidate, border)
        firsts = first_floating(left), first_floating(right)
        if firsts[0] is None or firsts[1] is None:
            continue
        link = Link("in" if border == "in" else "out", reference, candidate, None, None, firsts[0], firsts[1])
        made = made_link(link, left, right)
        if made is not None and np.ndim(left[firsts[0]]) > 1:
            found.append(made)
    return tuple(found)


def _kind_of_input(asker: Asker, module: str) -> str:
    first = asker.tensors(module, "in").get(0)
    return "" if first is None else "i" if first.dtype.kind in "iub" else "f"
