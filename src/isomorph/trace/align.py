"""Two sides, a bridge and a run of each -> Alignment: which tensors at borders should be equal. Derived from the morph only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from isomorph.trace.bridge import Bridge
from isomorph.trace.channels import Asker
from isomorph.trace.compare import error_of
from isomorph.trace.leaves import Edge, block_links, leaf_edges
from isomorph.trace.nouns import Call, Capture, Event, Link, Node, Site
from isomorph.trace.owners import Owners
from isomorph.trace.pairing import Unpaired, beside, positions_taken, value
from isomorph.trace.protocol import Side
from isomorph.trace.spread import Spread
from isomorph.trace.timeline import calls_of, first_calls, places

EQUAL = 1e-4
"""Inputs that differ by less than this are one, where calls are told apart by what goes in."""


@dataclass(frozen=True)
class Alignment:
    """Nodes, in the reference's order of calls; links of the models' outputs; modules with parameters that no node holds."""

    nodes: tuple[Node, ...]
    outputs: tuple[Link, ...] = ()
    unaligned: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())

    def sites(self, seen_reference: Capture) -> dict[Site, Node | None]:
        """Every tensor of the reference's run that an event of some run of the candidate may be about, and its node."""
        found: dict[Site, Node | None] = {Site("", 0, "out", link.reference_index): None for link in self.outputs}
        for node in self.nodes:
            for link in node.links:
                for call in calls_of(seen_reference, [link.reference]):
                    found[Site(call.module, call.call, link.border, link.reference_index)] = node
        return found

    def events(self, seen_reference: Capture, seen_candidate: Capture) -> list[Event]:
        """Every pair of tensors of these two runs that should be equal, in the reference's order; outputs of the models last."""
        when = places(seen_reference)
        found: list[Event] = []
        for node in self.nodes:
            for link, one, other in _calls(node, seen_reference, seen_candidate):
                site = Site(one.module, one.call, link.border, link.reference_index)
                to = Site(other.module, other.call, link.border, link.candidate_index)
                if link.taken is not None:
                    settled = _where_taken(node, link, one, other, (seen_reference, seen_candidate))
                    if settled is None:
                        continue
                    link = settled
                if value(seen_reference, site) is not None and value(seen_candidate, to) is not None:
                    found.append(Event(node, link, site, to, when[one, link.border]))
        found.sort(key=lambda event: event.place)
        end = len(when)
        for link in self.outputs:
            site, to = Site("", 0, "out", link.reference_index), Site("", 0, "out", link.candidate_index)
            if value(seen_reference, site) is not None and value(seen_candidate, to) is not None:
                found.append(Event(None, link, site, to, end + link.reference_index))
        return found


def align(
    reference: Side,
    candidate: Side,
    bridge: Bridge,
    seen_reference: Capture,
    seen_candidate: Capture,
    outputs: Sequence[Link] = (),
) -> Alignment:
    """Align two models that hold corresponding weights, each as it ran on the same input.

    A leaf node is a connected component of modules that own their parameters themselves and share output channels. A block node is
    a module of each side whose parameters, with all below, correspond closed both ways; it is opaque where no leaf inside is
    aligned.
    """
    owners = (
        Owners.of(reference, seen_reference, [one for one, _ in bridge.pairs]),
        Owners.of(candidate, seen_candidate, [other for _, other in bridge.pairs]),
    )
    asked = (
        Asker(reference, seen_reference, reference.state(), owners[0].modules),
        Asker(candidate, seen_candidate, candidate.state(), owners[1].modules),
    )
    edges = leaf_edges(bridge, asked, owners)
    nodes = _components(edges)
    held = ({edge.reference for edge in edges}, {edge.candidate for edge in edges})
    nodes += _blocks(bridge, asked, owners, held)
    spoken = tuple(frozenset(names | _spoken(nodes, owners[side], side)) for side, names in enumerate(held))
    nodes += Spread(bridge, asked, owners, (seen_reference, seen_candidate), (spoken[0], spoken[1])).nodes()
    first = first_calls(seen_reference)
    nodes.sort(key=lambda node: min(first[name] for name in node.reference))
    return Alignment(tuple(nodes), tuple(outputs), _unaligned(nodes, owners))


def _components(edges: Iterable[Edge]) -> list[Node]:
    groups: list[list[Edge]] = []
    for edge in edges:
        touching = [
            group
            for group in groups
            if any(edge.reference == one.reference or edge.candidate == one.candidate for one in group)
        ]
        groups = [group for group in groups if group not in touching]
        groups.append([one for group in touching for one in group] + [edge])
    return [
        Node(
            "leaf",
            tuple(dict.fromkeys(edge.reference for edge in group)),
            tuple(dict.fromkeys(edge.candidate for edge in group)),
            tuple(pair for edge in group for pair in edge.parameters),
            tuple(link for edge in group for link in edge.links),
        )
        for group in groups
    ]


def _blocks(
    bridge: Bridge, asked: tuple[Asker, Asker], owners: tuple[Owners, Owners], held: tuple[set[str], set[str]]
) -> list[Node]:
    """Pairs of modules whose parameters correspond as sets; several of one set, inside each other, outermost first."""
    forth: dict[str, set[str]] = {}
    back: dict[str, set[str]] = {}
    for one, other in bridge.pairs:
        forth.setdefault(one, set()).add(other)
        back.setdefault(other, set()).add(one)
    chains: list[dict[frozenset[str], list[str]]] = [{}, {}]
    for side in (0, 1):
        for name in owners[side].wide:
            if name not in held[side]:
                chains[side].setdefault(owners[side].below[name], []).append(name)
    found = []
    for names, ones in chains[0].items():
        image = frozenset(other for name in names for other in forth.get(name, ()))
        others = chains[1].get(image, [])
        if not others or frozenset(one for name in image for one in back[name]) != names:
            continue
        chain = list(zip(ones, others, strict=True)) if len(ones) == len(others) else [(ones[0], others[0])]
        is_opaque = not any(owners[0].owner.get(name) in held[0] for name in names)
        parameters = tuple(pair for pair in bridge.pairs if pair[0] in names)
        for one, other in chain:
            links = block_links(asked, one, other)
            if any(link.border == "out" for link in links):
                found.append(Node("block", (one,), (other,), parameters, links, is_opaque))
    return found


def _spoken(nodes: Iterable[Node], owners: Owners, side: int) -> set[str]:
    """Modules of one side whose parameters an opaque block speaks of."""
    names = {pair[side] for node in nodes if node.is_opaque for pair in node.parameters}
    return {owners.owner[name] for name in names if name in owners.owner}


def _unaligned(nodes: Iterable[Node], owners: tuple[Owners, Owners]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Modules that own parameters, of which no leaf or opaque block speaks."""
    nodes = list(nodes)
    left = {name for node in nodes for name in node.reference if node.kind == "leaf"}
    right = {name for node in nodes for name in node.candidate if node.kind == "leaf"}
    left |= _spoken(nodes, owners[0], 0)
    right |= _spoken(nodes, owners[1], 1)
    return (
        tuple(name for name, facts in owners[0].modules.items() if facts.own and name not in left),
        tuple(name for name, facts in owners[1].modules.items() if facts.own and name not in right),
    )


def _calls(node: Node, left: Capture, right: Capture) -> Iterable[tuple[Link, Call, Call]]:
    """Which call of the reference's module is which of the candidate's: by number where there are as many, else by what goes in.

    Modules of which each holds the same entries of one on the other side (copies of a shared layer) count together.
    """
    for border in ("in", "out"):
        groups: dict[object, list[Link]] = {}
        links = [link for link in node.links if link.border == border]
        for link in links:
            shares_candidate = sum(one.candidate == link.candidate for one in links) > 1
            mine = link.channels
            key: object = (
                ("candidate", link.candidate, None if mine is None else mine.candidate.tobytes())
                if shares_candidate and border == "out" and mine is not None
                else ("reference", link.reference, None if mine is None else mine.reference.tobytes())
            )
            groups.setdefault(key, []).append(link)
        for group in groups.values():
            yield from _matched(group, left, right)


def _where_taken(node: Node, link: Link, one: Call, other: Call, seen: tuple[Capture, Capture]) -> Link | None:
    """A link with the positions that the candidate took, told by what goes into the two modules; None where that does not tell."""
    for into in node.links:
        if into.border == "in" and (into.reference, into.candidate) == (link.reference, link.candidate):
            left = value(seen[0], Site(*one, "in", into.reference_index))
            right = value(seen[1], Site(*other, "in", into.candidate_index))
            if left is not None and right is not None and link.taken is not None:
                positions = positions_taken(into, left, right)
                return None if positions is None else replace(link, taken=(link.taken[0], positions))
    return None


def _matched(group: list[Link], left: Capture, right: Capture) -> Iterable[tuple[Link, Call, Call]]:
    by_modules = {(link.reference, link.candidate): link for link in group}
    for part in _parts(group, left, right):
        ones, others = part
        if len(ones) == len(others):
            pairs = list(zip(ones, others, strict=True))
        else:
            pairs = _by_inputs(group[0], ones, others, left, right)
        for one, other in pairs:
            link = by_modules.get((one.module, other.module))
            if link is not None:
                yield link, one, other


def _parts(group: list[Link], left: Capture, right: Capture) -> Iterable[tuple[list[Call], list[Call]]]:
    """Calls that count together: all of the group where their numbers agree, else link by link."""
    ones = calls_of(left, [link.reference for link in group])
    others = calls_of(right, [link.candidate for link in group])
    if len(group) == 1 or len(ones) == len(others):
        yield ones, others
        return
    for link in group:
        yield calls_of(left, [link.reference]), calls_of(right, [link.candidate])


def _by_inputs(
    link: Link, ones: list[Call], others: list[Call], left: Capture, right: Capture
) -> list[tuple[Call, Call]]:
    """Calls of which each has one on the other side, and only one, that is given the same."""
    same: list[tuple[Call, Call]] = []
    for one in ones:
        for other in others:
            first, second = left.values.get(Site(*one, "in", 0)), right.values.get(Site(*other, "in", 0))
            if first is None or second is None:
                continue
            try:
                given = Link("in", link.reference, link.candidate, None, link.order if link.border == "in" else None)
                if error_of(*beside(given, first, second)) < EQUAL:
                    same.append((one, other))
            except Unpaired:
                continue
    return [
        (one, other)
        for one, other in same
        if sum(one == each for each, _ in same) == 1 and sum(other == each for _, each in same) == 1
    ]


def order_differs(alignment: Alignment, left: Capture, right: Capture) -> tuple[tuple[Node, Node], ...]:
    """Aligned leaves that the candidate calls in another order than the reference, next to each other in the reference's.

    Only pairs are listed that the data flow tells apart: what the second is given is not what the first is given too (q, k and v
    may be called in any order).
    """
    ranks = {call: number for number, call in enumerate(right.began)}
    events = [
        event
        for event in alignment.events(left, right)
        if event.node is not None and event.link.border == "out" and (event.node.kind == "leaf" or event.node.is_opaque)
    ]
    given = {
        (site.module, site.call): array for site, array in left.values.items() if site.border == "in" and not site.index
    }
    found: dict[tuple[int, int], tuple[Node, Node]] = {}
    for number, one in enumerate(events):
        for other in events[number + 1 : number + 9]:
            assert one.node is not None and other.node is not None, "outputs of the models were left out"
            if one.node is other.node or other.place - one.place < 1:
                continue
            early, late = (ranks[Call(event.candidate.module, event.candidate.call)] for event in (one, other))
            if early <= late:
                continue
            first, second = (given.get((event.reference.module, event.reference.call)) for event in (one, other))
            if (
                first is not None
                and second is not None
                and first.shape == second.shape
                and np.array_equal(first, second)
            ):
                continue
            found.setdefault((id(one.node), id(other.node)), (one.node, other.node))
    return tuple(found.values())
